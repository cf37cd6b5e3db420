"""The winner of a search, trained to the end with the values of the section `final:`."""

import dataclasses
import math
import re

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from support.searches import Diary, FinishedSearch, configure, ended, pruning, search

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import checkpoints
from fmnist_exp.registry import lineage
from fmnist_exp.tracking.names import Tag
from fmnist_exp.training import speed
from fmnist_exp.training.events import Epoch
from fmnist_exp.tuning import again, final, winner
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace

LONGER = {"training.epochs": 5, "training.labels": "one_hot", "training.label_smoothing": 0.05}
DROPOUT = {"model.dropout": {"low": 0.0, "high": 0.3}}


class Listener(Diary):
    """Keep the notices and the progress of other fits too."""

    def __init__(self) -> None:
        super().__init__()
        self.notices: list[str] = []
        self.fits: list[tuple[str, float, int]] = []

    def on_notice(self, text: str) -> None:
        self.notices.append(text)

    def on_fit(self, title: str, epochs: float, total: int) -> None:
        self.fits.append((title, epochs, total))


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def searched(shared_store, folder, listener) -> FinishedSearch:
    config = configure(data__source=folder, search__n_trials=2, search__keep=1, final=LONGER)
    return search(config, "to the end", callback=listener)


def test_the_winner_is_trained_to_the_end_and_registered(searched):
    best = searched.result.ranked[0]
    trial, (run,) = searched.client.get_run(best.run_id), searched.children("train")
    assert run.data.tags[Tag.FINAL_OF] == best.run_id
    assert run.info.run_name == f"final fit of trial {best.number}"
    expected = {**trial.data.params, **{name: str(value) for name, value in LONGER.items()}}
    assert run.data.params == expected, "the settings of the trial, except for those of final"
    assert len(searched.client.get_metric_history(run.info.run_id, "val_accuracy")) == 5
    version = searched.client.get_model_version("fashion-mnist", searched.result.registration.version)
    assert version.run_id == run.info.run_id
    assert version.tags["trial"] == str(best.number)
    assert float(version.tags["val_accuracy"]) == run.data.metrics["best_val_accuracy"]
    assert version.tags["gain"] == searched.result.gain


def test_the_network_itself_is_judged(searched, folder):
    """It has seen neither the validation nor the gate images, so nothing stands in for it."""
    version = searched.client.get_model_version("fashion-mnist", searched.result.registration.version)
    subject = lineage.trace(searched.client, version)
    assert not subject.refit
    data = dataset.load(configure(data__source=folder).data, 0)
    assert subject.held_out.split(data).gate.digest == data.gate.digest


def test_only_the_final_fit_is_scored_on_the_test_set(searched):
    runs = [*searched.children("trial"), *searched.children("train")]
    scored = [run.info.run_id for run in runs if "test_accuracy" in run.data.metrics]
    assert scored == [searched.children("train")[0].info.run_id]


def test_what_the_user_is_told(searched, listener):
    number = searched.result.ranked[0].number
    told = "\n".join(listener.notices)
    assert "2 trials, at most 60 minutes, 24 of them for the final fit" in told
    assert f"training the setting of trial {number} to the end: 5 epochs" in told
    assert "the final fit reaches " in told
    assert searched.result.gain in told
    assert listener.fits[-1] == (f"final fit of trial {number}", 5.0, 5)
    note = searched.parent.data.tags[Tag.NOTE]
    assert searched.result.gain in note.replace("\\", "")
    assert f"validation accuracy of the final fit {searched.result.final_accuracy:.2%}" in note
    assert searched.parent.data.tags[Tag.GAIN] == searched.result.gain


def test_a_resumed_search_does_not_fit_its_winner_again(searched, folder):
    config = configure(data__source=folder, search__n_trials=2, search__keep=1, final=LONGER)
    (before,) = searched.children("train")
    resumed = search(config, "to the end")
    (after,) = resumed.children("train")
    assert after.info.run_id == before.info.run_id
    assert resumed.result.registration.version == searched.result.registration.version
    assert resumed.result.gain == searched.result.gain
    with pytest.raises(RequestError, match=r"belongs to another search: final\.training\.epochs is 5 there and 9 here"):
        search(files.override(config, {"final": {**LONGER, "training.epochs": 9}}), "to the end")


def test_an_interrupted_final_fit_continues_with_its_epochs(shared_store, folder, monkeypatch):
    config = configure(data__source=folder, search__n_trials=1, training__schedule="one_cycle", final=LONGER)
    fitted, log_epoch = list[int](), checkpoints.EpochLog.on_epoch

    def interrupt_once(log: checkpoints.EpochLog, epoch: Epoch) -> bool:
        if log.run.kind == "train" and epoch.number == 3 and 3 not in fitted:
            fitted.append(3)
            raise KeyboardInterrupt
        return log_epoch(log, epoch)

    monkeypatch.setattr(checkpoints, "PAUSE", 0.0)
    monkeypatch.setattr(checkpoints.EpochLog, "on_epoch", interrupt_once)
    stopped = search(config, "final stopped")
    assert stopped.result.status == "interrupted"
    (before,) = stopped.children("train")
    # the machine is much slower now: nothing but the epochs of before could be chosen
    monkeypatch.setattr(speed, "epoch_seconds", lambda config, data: 1e9)
    continued = search(config, "final stopped")
    (run,) = continued.children("train")
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert run.data.tags["fmnist.resumptions"] == "1"
    curve = continued.client.get_metric_history(run.info.run_id, "val_accuracy")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5]


def slow(monkeypatch: pytest.MonkeyPatch, trial: float, final: float) -> None:
    """Let the steps of an epoch take these times, in seconds, when they are measured."""
    seconds = {LONGER["training.epochs"]: final}
    monkeypatch.setattr(speed, "epoch_seconds", lambda config, data: seconds.get(config.training.epochs, trial))


def test_without_time_the_trial_is_registered(shared_store, folder, monkeypatch):
    slow(monkeypatch, trial=1.0, final=3600.0)
    listener = Listener()
    config = configure(data__source=folder, search__n_trials=1, final=LONGER)
    found = search(config, "no time", callback=listener)
    assert not found.children("train")
    version = found.client.get_model_version("fashion-mnist", found.result.registration.version)
    assert version.run_id == found.result.ranked[0].run_id
    assert (
        "the time left of search.timeout does not suffice for a final fit of 2 epochs, so the network of trial 0 is"
        " registered" in listener.notices
    )


def test_where_time_is_short_trials_are_schedules_of_an_epoch_and_the_winner_is_trained_to_the_end(
    shared_store, folder, monkeypatch
):
    slow(monkeypatch, trial=580.0, final=1.0)  # so that whole trials do not fit into the time of the trials
    slow_start = {"training__learning_rate": 3e-4}  # so that some other trial is the best
    found = search(pruning(data__source=folder, search__n_trials=9, final=LONGER, **slow_start), "short trials")
    assert [list(trial.intermediate_values) for trial in found.trials] == [[1]] * 9, "it was faster than planned"
    assert found.statuses() == [("FINISHED", "COMPLETE")] * 9
    assert {run.data.params["training.epochs"] for run in found.children()} == {"1"}
    assert "the experiment's own setting trained equally" in found.result.gain
    (run,) = found.children("train")
    assert run.data.params["training.epochs"] == str(LONGER["training.epochs"])
    assert found.result.registration.version


@pytest.mark.parametrize(
    ("curves", "final_values", "first"),
    [
        ([[0.874], [0.878]], LONGER, 0),  # on 6,000 images
        ([[0.854], [0.878]], LONGER, 1),
        ([[0.874], [0.878]], None, 1),  # the trial itself is registered
        ([[0.874, 0.874], [0.878, 0.878]], LONGER, 1),  # whole trials
        ([[0.874], [0.878, 0.878]], LONGER, 1),
    ],
)
def test_after_shortened_trials_the_own_setting_wins_unless_another_is_better_by_more_than_chance(
    curves, final_values, first, data
):
    """A search on two cores trained a small network to the end that had led by 0.4 points after an epoch, by chance."""
    study, kinds = optuna.create_study(direction="maximize"), {"model.dropout": FloatDistribution(0.0, 0.3)}
    for number, (dropout, curve) in enumerate(zip((0.0, 0.2), curves, strict=True)):
        params, attrs = {"model.dropout": dropout}, {"val_accuracy": curve[-1], "model_id": f"m-{number}"}
        epochs = dict(enumerate(curve, 1))
        study.add_trial(ended(number, params, kinds, None, state=TrialState.PRUNED, curve=epochs, attrs=attrs))
    config = configure(search__space=DROPOUT, final=final_values)
    search = Search(SearchSpace(config), data, study, None, 0.0)  # type: ignore[arg-type]
    assert [trial.number for trial in winner.candidates(search)] == [first, 1 - first]


def test_a_final_fit_that_is_worse_is_not_registered(shared_store, folder):
    listener = Listener()
    final_values = {"training.learning_rate": 1e-9}
    config = configure(data__source=folder, search__n_trials=1, search__space=DROPOUT, final=final_values)
    found = search(config, "worse", callback=listener)
    assert len(found.children("train")) == 1
    version = found.client.get_model_version("fashion-mnist", found.result.registration.version)
    assert version.run_id == found.result.ranked[0].run_id
    (said,) = [text for text in listener.notices if text.startswith("the final fit reaches ")]
    both = (
        r"the final fit reaches .*% \(.*\) on the validation images, and trial 0 .*% \(.*\), so that one is registered"
    )
    assert re.fullmatch(both, said)


def test_a_final_fit_that_takes_much_longer_than_expected_is_stopped(shared_store, folder, monkeypatch):
    """Its first steps may have been fast; the limit of an hour is over by more than a tenth."""
    late, listener = list[bool](), Listener()
    own_clock = again.Progress.on_epoch

    def let_time_pass(progress: again.Progress, epoch: Epoch) -> bool:
        if epoch.number == 3:
            progress.search = dataclasses.replace(progress.search, clock=lambda: progress.end + 1)
        late.append(own_clock(progress, epoch))
        return late[-1]

    monkeypatch.setattr(again.Progress, "on_epoch", let_time_pass)
    found = search(configure(data__source=folder, search__n_trials=1, final=LONGER), "late", callback=listener)
    assert late == [False, False, True]
    assert any("was stopped after 3 of 5 epochs, since it took longer" in text for text in listener.notices)
    assert found.result.registration.version


def test_a_final_fit_that_cannot_begin_costs_no_version(shared_store, folder, monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise RequestError("model.frozen=2: must be below 2, the model's layers with weights")

    monkeypatch.setattr(final, "_affordable", refuse)
    listener = Listener()
    config = configure(data__source=folder, search__n_trials=1, search__space=DROPOUT, final=LONGER)
    found = search(config, "cannot begin", callback=listener)
    version = found.client.get_model_version("fashion-mnist", found.result.registration.version)
    assert version.run_id == found.result.ranked[0].run_id
    expected = "the final fit failed, so the network of trial 0 is registered: model.frozen"
    assert any(text.startswith(expected) for text in listener.notices)


def test_a_final_fit_that_fails_costs_no_version(shared_store, folder):
    listener = Listener()
    diverging = {"training": {"optimizer": "sgd", "learning_rate": 10, "momentum": 0.999, "epochs": 4}}
    config = configure(data__source=folder, search__n_trials=1, search__space=DROPOUT, final=diverging)
    found = search(config, "diverging", callback=listener)
    (run,) = found.children("train")
    assert run.info.status == "FAILED"
    version = found.client.get_model_version("fashion-mnist", found.result.registration.version)
    assert version.run_id == found.result.ranked[0].run_id
    said = [text for text in listener.notices if text.startswith("the final fit failed, so the network of trial 0 is")]
    assert "lower training.learning_rate" in said[0]


@pytest.mark.parametrize(("seconds", "epochs"), [(1.0, 20), (10.0, 20), (20.0, 12), (40.0, 6), (400.0, 0)])
def test_the_epochs_fit_into_the_time(seconds, epochs, monkeypatch):
    """With recorded speeds: 300 s are left, of which 20 are for logging, and an epoch takes 1.15 times its steps."""
    monkeypatch.setattr(speed, "epoch_seconds", lambda config, data: seconds)
    fields = dict.fromkeys((field.name for field in dataclasses.fields(Search)), None)
    made = Search(**{**fields, "clock": lambda: 1000.0, "end": 1300.0})  # type: ignore[arg-type]
    config = files.override(ExperimentConfig(), {"training.epochs": 20})
    assert final._affordable(config, made) == epochs
    assert math.isinf(Search.end), "a search without a final fit has no end of its own"


def test_a_measured_epoch_takes_as_long_as_its_images(folder):
    config = configure(data__source=folder, data__validation_fraction=0.1).without_search()
    data = dataset.load(config.data, 0)
    assert 0 < speed.epoch_seconds(config, data) < 60
