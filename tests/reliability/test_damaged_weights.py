"""Damaged weights of the best trial: the search takes the next-best one, says so, and records it."""

from pathlib import Path

import mlflow
from support.searches import FinishedSearch, configure, search

from fmnist_exp.errors import WorkError
from fmnist_exp.export import layout
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary

CONFIG = configure(training__epochs=1, search__n_trials=2)


def weights(trial: TrialSummary) -> Path:
    client = mlflow.MlflowClient()
    (model,) = client.search_logged_models(["0"], filter_string=f"source_run_id = '{trial.run_id}'")
    return Path(model.artifact_location) / layout.KERAS_MODEL


class Damaging(SearchCallback):
    """Cuts the best trial's weights short when the last trial has ended."""

    def __init__(self) -> None:
        self.ended: list[TrialSummary] = []
        self.notices: list[str] = []

    def on_notice(self, text: str) -> None:
        self.notices.append(text)

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.ended.append(trial)
        if len(self.ended) == 2:
            self.ended.sort(key=lambda trial: -trial.val_accuracy)
            file = weights(self.ended[0])
            file.write_bytes(file.read_bytes()[:-1000])


def test_the_next_best_trial_is_taken_and_at_last_none(shared_store, small):
    damaging = Damaging()
    done = search(CONFIG, "damaged", data=small, callback=damaging)
    best, second = damaging.ended
    (notice,) = [text for text in damaging.notices if "next-best" in text]
    assert f"the model of trial {best.number} is passed over" in notice
    assert "data/model.keras" in notice
    assert done.parent.data.tags["fmnist.damaged_trials"] == str(best.number)
    version = done.client.get_model_version("fashion-mnist", done.result.registration.version)
    assert (version.run_id, version.tags["trial"]) == (second.run_id, str(second.number))
    assert done.result.test_accuracy is not None
    assert done.statuses() == [("FINISHED", "COMPLETE")] * 2

    weights(second).unlink()
    done = search(CONFIG, "damaged", WorkError, data=small)
    assert done.parent.info.status == "FAILED"
    reason = done.parent.data.tags["fmnist.error"]
    assert reason.startswith("none of the 2 trials with a model can be registered")
    assert "larger --n_trials" in reason
    FinishedSearch("damaged").check_nothing_is_open()
