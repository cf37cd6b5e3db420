"""A search over small networks on some hundred real images: its trials, records and winner, also when it is resumed."""

import csv
import io
import json
import re

import mlflow
import numpy as np
import pytest
from support.searches import SPACE, STORAGE, Diary, FinishedSearch, pruning, search

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.errors import RequestError
from fmnist_exp.registry import champions
from fmnist_exp.tracking import store
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.search import SearchRequest


@pytest.fixture(scope="module")
def diary() -> Diary:
    return Diary()


@pytest.fixture(scope="module")
def found(shared_store, small, diary) -> FinishedSearch:
    """One search of four trials for all tests that only look."""
    return search(pruning(), "first", data=small, callback=diary)


# a search that ended


def test_the_search_makes_so_many_trials(found, diary):
    trials = found.study.get_trials()
    assert len(trials) == 4
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert sum(found.result.states.values()) == 4
    assert diary.searches == [(0, 4)]
    assert list(dict.fromkeys(number for number, _ in diary.started)) == [0, 1, 2, 3]  # again when a pause ends
    assert sorted(summary.number for summary in diary.ended) == [0, 1, 2, 3]


def test_the_first_trial_has_the_experiments_own_setting(found, diary):
    first = found.children()[0].data.params
    assert (first["model.widths"], first["training.learning_rate"], first["model.dropout"]) == ("[32]", "0.01", "0.0")
    assert diary.started[0][1] == {"model.dropout": 0, "training.learning_rate": 0.01, "model.widths": (32,)}
    assert len({json.dumps(trial.params) for trial in found.study.get_trials()}) == 4


def test_every_trial_is_a_child_run_with_the_status_of_its_state(found, diary):
    states = [trial.state.name for trial in found.study.get_trials()]
    assert states[0] == "COMPLETE"
    status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    assert found.statuses() == [(status[state], state) for state in states]
    for number, run in enumerate(found.children()):
        conditions = ("threads", "processor", "backend", "libraries", "code", "dirty", "weights_sha256")
        tags = {name: value for name, value in run.data.tags.items() if name.startswith("fmnist.")}
        assert all(tags.pop(f"fmnist.{name}") for name in (*conditions, "owner", "spool_id"))
        assert (tags.pop("fmnist.test_scored", None) is not None) == (number == found.result.ranked[0].number)
        assert tags == {
            "fmnist.kind": "trial",
            "fmnist.experiment": "tiny_search",
            "fmnist.study": "first",
            "fmnist.trial": str(number),
            "fmnist.trial_state": states[number],
            "fmnist.score_test": "false",
        } | ({"fmnist.resumptions": str(pauses)} if (pauses := diary.paused.count(number)) else {})
        assert run.data.metrics["trial"] == number
        assert run.data.params.keys() >= flatten(pruning().model_copy(update={"search": None})).keys()
        assert len(run.outputs.model_outputs) == 1


def test_a_pruned_trial_stopped_before_its_last_epoch(small, shared_store):
    config = pruning(search__reduction_factor=2, search__n_trials=2)
    study = studies.open_study(config, "pruned", STORAGE)
    worse = {"model.dropout": 0.5, "training.learning_rate": 3e-4}
    study.enqueue_trial(worse | {"model.widths.depth": 1, "model.widths.1": 8, "model.widths.2": 8})
    pruned = search(config, "pruned", data=small)
    assert pruned.statuses() == [("FINISHED", "COMPLETE"), ("KILLED", "PRUNED")]
    run = pruned.children()[1]
    steps = [entry.step for entry in pruned.client.get_metric_history(run.info.run_id, "val_accuracy")]
    assert steps == [1]
    assert run.data.metrics["best_val_accuracy"] < pruned.parent.data.metrics["best_val_accuracy"]
    assert [trial.state for trial in pruned.result.ranked] == ["COMPLETE", "PRUNED"]


def test_trials_report_what_they_measured(found):
    for trial, run in zip(found.study.get_trials(), found.children(), strict=True):
        history = found.client.get_metric_history(run.info.run_id, "val_accuracy")
        assert {entry.step: entry.value for entry in history} == pytest.approx(trial.intermediate_values)
        if trial.state.name == "COMPLETE":
            assert trial.value == pytest.approx(run.data.metrics["best_val_accuracy"])


def test_ranked_starts_with_the_best_trial(found):
    best, *_ = found.result.ranked
    values = {trial.number: trial.user_attrs["val_accuracy"] for trial in found.study.get_trials()}
    assert best.number == max(values, key=values.get)
    assert best.val_accuracy == values[best.number]
    assert best.run_id == found.children()[best.number].info.run_id
    assert set(best.settings) == set(SPACE)
    assert best.seconds > 0
    assert best.epochs == 2


def test_the_parent_has_the_best_values(found):
    best = found.result.ranked[0]
    data = found.parent.data
    assert found.parent.info.status == "FINISHED"
    assert data.tags["fmnist.kind"] == "tune"
    assert data.tags["fmnist.study"] == "first"
    assert (data.tags["fmnist.best_trial"], data.tags["fmnist.best_run"]) == (str(best.number), best.run_id)
    assert data.tags["fmnist.version"] == found.result.registration.version
    assert data.metrics["best_val_accuracy"] == pytest.approx(best.val_accuracy)
    assert {f"best.{name}" for name in SPACE} <= data.params.keys()
    assert data.params["search.n_trials"] == "4"
    assert float(data.params["best.training.learning_rate"]) == best.settings["training.learning_rate"]


def test_the_parents_note_says_how_to_resume_it(found):
    note = found.parent.data.tags["mlflow.note.content"]
    experiment = f"runs:/{found.parent.info.run_id}/experiment.yaml"
    assert f"fmnist-exp tune --experiment {experiment} --study first --storage {STORAGE}\n" in note
    assert found.result.ranked[0].accuracy in note
    resumed = files.parse(store.download_text(experiment), "first")
    assert studies.open_study(resumed, "first", STORAGE).get_trials()


def test_the_parents_artifacts(found):
    paths = {entry.path for entry in found.client.list_artifacts(found.parent.info.run_id, "study")}
    names = ("history", "parallel_coordinates", "slices", "learning_curves", "timeline")
    assert paths == {"study/trials.csv", "study/figures.html", *(f"study/{name}.png" for name in names)}
    uri = f"runs:/{found.parent.info.run_id}"
    rows = list(csv.DictReader(io.StringIO(mlflow.artifacts.load_text(f"{uri}/study/trials.csv"))))
    assert [row["number"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["state"] for row in rows] == [trial.state.name for trial in found.study.get_trials()]
    assert files.parse(mlflow.artifacts.load_text(f"{uri}/experiment.yaml"), "x") == pruning()
    page = mlflow.artifacts.load_text(f"{uri}/study/figures.html")
    assert "<h1>Study first</h1>" in page
    assert 'src="http' not in page  # it works without a network


def test_only_the_winner_is_scored_on_the_test_set(found, small):
    best = found.result.ranked[0].number
    for number, run in enumerate(found.children()):
        scored = {name for name in run.data.metrics if name.startswith("test_")}
        assert len(scored) == (13 if number == best else 0)
        contexts = {entry.tags[0].value for entry in run.inputs.dataset_inputs}
        assert contexts == {"training", "validation"} | ({"test"} if number == best else set())
    assert found.parent.data.metrics["test_accuracy"] == pytest.approx(found.result.test_accuracy)
    registered = mlflow.pyfunc.load_model(f"models:/fashion-mnist/{found.result.registration.version}")
    served = registered.predict(small.test.images)
    assert np.mean(served["label"] == small.test.labels) == pytest.approx(found.result.test_accuracy)


def test_the_winner_is_registered(found, small):
    best = found.result.ranked[0]
    registration = found.result.registration
    assert not registration.champion, "no image of these 800 is kept back for the gate"
    versions = found.client.search_model_versions("name = 'fashion-mnist'")
    assert registration.version in [str(version.version) for version in versions]
    version = found.client.get_model_version("fashion-mnist", registration.version)
    assert version.run_id == best.run_id
    expected = {"run_id": best.run_id, "study": "first", "trial": str(best.number)}
    expected |= {"data_digest": small.train.digest, "val_accuracy": str(best.val_accuracy)}
    assert {name: version.tags[name] for name in expected} == expected
    assert float(version.tags["test_accuracy"]) == pytest.approx(found.result.test_accuracy)
    assert "git_commit" in version.tags
    record = re.fullmatch(r"\S+\+00:00 tune by \S+, run (\w+)", version.tags["test_scored"])
    assert (version.tags["test_scorings"], record[1]) == ("1", found.result.run_id)
    scored = [found.client.get_run(run_id).data.tags["fmnist.test_scored"] for run_id in (best.run_id, record[1])]
    assert scored == [version.tags["test_scored"]] * 2


# resumed


@pytest.fixture(scope="module")
def continued(found, small) -> tuple[FinishedSearch, Diary]:
    diary = Diary()
    return search(pruning(search__n_trials=5, search__timeout=1), "first", data=small, callback=diary), diary


def test_a_study_goes_on_where_it_stopped(found, continued):
    more, diary = continued
    assert diary.searches == [(4, 5)]
    assert [summary.number for summary in diary.ended] == [4]
    assert len(more.study.get_trials()) == 5
    assert len(more.children()) == 5  # the earlier trials' runs too
    assert not found.children()


def test_a_winner_is_scored_and_registered_once(found, continued):
    more, _ = continued
    best = more.result.ranked[0].number
    scored = [run.info.run_id for run in more.children() if "test_accuracy" in run.data.metrics]
    assert scored == [found.result.ranked[0].run_id]
    assert len(more.client.get_metric_history(scored[0], "test_accuracy")) == 1
    if best < 4:
        assert more.result.registration.version == found.result.registration.version
        assert more.result.test_accuracy == pytest.approx(found.result.test_accuracy)


class Notices(SearchCallback):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_notice(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_a_study_is_scored_once_also_if_another_trial_wins_later(shared_store, small):
    """Finding F3: a second score would let the test set choose between the winners."""
    slow = {"training__learning_rate": 3e-4, "training__epochs": 1}
    first = search(pruning(**slow, search__n_trials=1), "late winner", data=small)
    notices = Notices()
    more = search(pruning(**slow, search__n_trials=4), "late winner", data=small, callback=notices)
    early, late = first.result, more.result
    assert (early.ranked[0].number, early.test_accuracy is None) == (0, False)
    assert (late.ranked[0].number > 0, late.test_accuracy) == (True, None)
    told = [text for text in notices.sentences if "scored on the test set" in text]
    assert len(told) == 1
    assert early.ranked[0].run_id in told[0]
    runs = [*more.children(), more.parent]
    assert [run.info.run_id for run in runs if "test_accuracy" in run.data.metrics] == [early.ranked[0].run_id]
    assert "test accuracy" not in more.parent.data.tags["mlflow.note.content"]
    assert late.registration.version != early.registration.version
    tags = more.client.get_model_version("fashion-mnist", late.registration.version).tags
    assert tags.keys().isdisjoint({"test_accuracy", "test_scored", "test_scorings"})


def test_a_worse_model_becomes_challenger_and_the_champion_stays(found, small):
    first = found.client.get_model_version("fashion-mnist", found.result.registration.version)
    champions.set_champion(found.client, first, "test")
    before = first.version
    slow = pruning(training__learning_rate=3e-4, search__n_trials=1, training__epochs=1)
    worse = search(slow, "worse", data=small)
    registration = worse.result.registration
    assert not registration.champion
    challenger = worse.client.get_model_version_by_alias("fashion-mnist", "challenger")
    assert str(challenger.version) == registration.version
    assert worse.client.get_model_version_by_alias("fashion-mnist", "champion").version == before != challenger.version


def test_trials_of_another_store_are_refused(found, small, tmp_path, new_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", new_database(tmp_path, str(tmp_path / "mlruns")))
    request = SearchRequest(config=pruning(search__n_trials=9), study="first", data=small, workers=1)
    with pytest.raises(RequestError, match="the runs of study 'first' are not in this tracking store"):
        searching.run(request)
