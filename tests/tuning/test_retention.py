"""Retention on real logged models; and a search with several objectives, from end to end."""

import csv
import io
import itertools
from functools import partial

import mlflow
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from support.searches import STORAGE, FinishedSearch, configure, ended, search

from fmnist_exp.errors import WorkError
from fmnist_exp.export import packaging
from fmnist_exp.registry import private_copy, versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tuning import retention


@pytest.fixture(scope="module")
def searched(shared_store, small) -> FinishedSearch:
    """Four trials of one epoch, accuracy against parameters and time; the weights of the best one stay."""
    names = ["val_accuracy", "parameters", "prediction_seconds"]
    more = {"search__n_trials": 4, "search__sampler": "gp", "search__keep": 1, "training__epochs": 1}
    return search(configure(search__objectives=names, **more), "several", data=small)


def beats(one: list[float], other: list[float]) -> bool:
    """In every objective as good, in one better: accuracy upwards, the others downwards."""
    pairs = [(one[0], other[0]), *((theirs, mine) for mine, theirs in zip(one[1:], other[1:], strict=True))]
    return all(mine >= theirs for mine, theirs in pairs) and any(mine > theirs for mine, theirs in pairs)


def test_each_objective_is_measured(searched):
    for trial, run in zip(searched.study.get_trials(), searched.children(), strict=True):
        metrics = run.data.metrics
        expected = [metrics[name] for name in ("best_val_accuracy", "parameters", "prediction_seconds")]
        assert trial.values == pytest.approx(expected)
        assert 1e-6 < metrics["prediction_seconds"] < 0.1
        assert trial.user_attrs["val_accuracies"] == pytest.approx([metrics["val_accuracy"]])


def test_nothing_on_the_front_is_beaten_and_its_most_accurate_is_registered(searched):
    trials = {trial.number: trial.values for trial in searched.study.get_trials()}
    front = searched.result.front
    assert set(front) == {n for n, own in trials.items() if not any(beats(other, own) for other in trials.values())}
    assert searched.parent.data.tags["fmnist.front"] == " ".join(map(str, front))
    best = searched.result.ranked[0]
    assert best.number == front[0]
    assert best.val_accuracy == max(values[0] for values in trials.values())
    version = searched.client.get_model_version("fashion-mnist", searched.result.registration.version)
    assert version.run_id == best.run_id


def test_the_table_of_the_front_and_its_pictures(searched):
    assert {"study/pareto_front.csv", "study/pareto_front.png", "study/timeline.png"} <= searched.artifacts()
    assert {"study/history.png", "study/slices.png"} <= searched.artifacts()
    text = mlflow.artifacts.load_text(f"runs:/{searched.parent.info.run_id}/study/pareto_front.csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["number"]) for row in rows] == list(searched.result.front)
    best = searched.study.get_trials()[searched.result.front[0]]
    assert [float(rows[0][f"value_{name}"]) for name in ("val_accuracy", "parameters")] == best.values[:2]
    page = mlflow.artifacts.load_text(f"runs:/{searched.parent.info.run_id}/study/figures.html")
    assert 'id="pareto_front"' in page


def test_weights_are_gone_but_the_rest_stays(searched):
    kept = set(searched.result.front)
    assert set(searched.result.retention.kept) == kept
    assert searched.result.retention.deleted == 4 - len(kept)
    for trial, run in zip(searched.study.get_trials(), searched.children(), strict=True):
        model_id = trial.user_attrs["model_id"]
        files = {entry.path for entry in searched.client.list_logged_model_artifacts(model_id, "data")}
        assert (set(packaging.WEIGHTS) <= files) == (trial.number in kept)
        assert searched.client.list_artifacts(run.info.run_id, "curves")
        assert searched.client.get_logged_model(model_id).status == "READY"


@pytest.fixture
def three(store, small) -> tuple[optuna.Study, mlflow.MlflowClient]:
    """A study of three finished trials with logged models, told and not searched: the third is the best."""
    from fmnist_exp import models
    from fmnist_exp.backend import seeds

    client = mlflow.MlflowClient()
    study = optuna.create_study(direction="maximize", storage=STORAGE)
    seeds.prepare(0, "float32")
    model = models.build(configure().model)
    for number in range(3):
        run = runs.start_run(client, "trial", f"trial {number}", "x")
        model(small.test.images[:1])
        attrs = {
            "model_id": logged_models.log(
                run, partial(packaging.save, model=model, examples=small.test.images[:2]), {}
            ),
            "run_id": run.id,
        }
        kinds = {"x": FloatDistribution(0, 1)}
        study.add_trial(ended(number, {"x": 0.5}, kinds, [number / 10], attrs=attrs))
    return study, client


def loads(client: mlflow.MlflowClient, study: optuna.Study) -> list[bool]:
    """Return for each trial whether its model can be loaded."""
    found = []
    for trial in study.get_trials():
        files = client.list_logged_model_artifacts(trial.user_attrs["model_id"], "data")
        found.append("data/model.onnx" in {entry.path for entry in files})
    return found


def test_the_best_stay(three):
    study, client = three
    assert retention.apply(study, 3, client) == retention.Retention((2, 1, 0), 0)
    assert retention.apply(study, 2, client) == retention.Retention((2, 1), 1)
    assert loads(client, study) == [False, True, True]
    gone = study.get_trials()[0].user_attrs["model_id"]
    assert client.get_logged_model(gone).tags[LoggedModelTag.WEIGHTS] == "deleted: search.keep=2"
    with (
        pytest.raises(WorkError, match=r"^models:/m-\w+ cannot be loaded: its weights were deleted: search\.keep=2; "),
        private_copy.opened(client, gone),
    ):
        pass


def test_what_a_failed_trial_had_logged_goes(three, small):
    study, client = three
    with private_copy.opened(client, study.get_trials()[0].user_attrs["model_id"]) as copy:
        model = copy.keras()
    strays = []
    for number in (3, 4):
        run = runs.start_run(client, "trial", f"trial {number}", "x")
        strays.append(logged_models.log(run, partial(packaging.save, model=model, examples=small.test.images[:2]), {}))
        failed = {"state": TrialState.FAIL, "attrs": {"run_id": run.id}}
        study.add_trial(ended(number, {"x": 0.5}, {"x": FloatDistribution(0, 1)}, None, **failed))
    versions.register(client, strays[1], run.id, {})
    assert retention.apply(study, 3, client) == retention.Retention((2, 1, 0), 0)
    files = [{entry.path for entry in client.list_logged_model_artifacts(model_id, "data")} for model_id in strays]
    assert [set(packaging.WEIGHTS) <= kept for kept in files] == [False, True]


def test_what_a_version_rests_on_stays(three):
    study, client = three
    first, second, third = (trial.user_attrs for trial in study.get_trials())
    versions.register(client, first["model_id"], first["run_id"], {})
    versions.register(client, third["model_id"], third["run_id"], {"refit_of": second["run_id"]})
    assert retention.apply(study, 1, client) == retention.Retention((2, 1, 0), 0)
    assert loads(client, study) == [True, True, True]


def test_what_a_version_of_another_name_rests_on_stays(three):
    """However it was registered: by an address in the artifact store, by its model, by its run."""
    study, client = three
    first, second, _ = (trial.user_attrs for trial in study.get_trials())
    client.create_registered_model("by-hand")
    client.create_model_version("by-hand", client.get_logged_model(first["model_id"]).artifact_location)
    client.create_model_version("by-hand", "file:///elsewhere/model", run_id=second["run_id"])
    assert versions.needed(client) == ({first["model_id"]}, {second["run_id"]})
    assert retention.apply(study, 1, client) == retention.Retention((2, 1, 0), 0)
    assert loads(client, study) == [True, True, True]


def test_what_was_cut_off_goes_on(three, monkeypatch):
    study, client = three
    calls = itertools.count()
    delete = logged_models.delete_files

    def cut_off(*arguments):
        if next(calls):
            raise KeyboardInterrupt
        delete(*arguments)

    monkeypatch.setattr(logged_models, "delete_files", cut_off)
    with pytest.raises(KeyboardInterrupt):
        retention.apply(study, 1, client)
    assert loads(client, study) == [True, False, True]
    monkeypatch.undo()
    assert retention.apply(study, 1, client) == retention.Retention((2,), 1)
    assert loads(client, study) == [False, False, True]


def test_a_store_that_deletes_nothing_is_no_failure_of_the_search(three):
    study, client = three
    bad = ended(3, {"x": 0.1}, {"x": FloatDistribution(0, 1)}, [0.0], attrs={"model_id": "m-unknown", "run_id": "r"})
    study.add_trial(bad)
    kept = retention.apply(study, 3, client)
    assert kept.kept == (2, 1, 0, 3)
    assert "m-unknown" in kept.reason
    with pytest.raises(WorkError, match="m-unknown"):
        logged_models.delete_files(client, "m-unknown", packaging.WEIGHTS, "test")
