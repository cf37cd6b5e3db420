"""Trials whose driver or worker dies continue in their run, from the state that they kept, as if nothing had been."""

import signal
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
import yaml
from support import mortal, searches
from support.stable import Done, Stable

from fmnist_exp.tuning import study as studies

PER_EPOCH = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
TRIALS_DONE = ["fmnist_exp.tuning.report.write.log", 1, signal.SIGKILL]  # registering the winner is not of interest
KEEPS_THIRD_STATE = "fmnist_exp.experiment.checkpoints.keep", 3  # after the epoch was logged


class Site:
    """A folder with a store and a study of its own."""

    def __init__(self, folder: Path, uri: str, experiment: Path, commands: Stable) -> None:
        self.folder, self.uri, self.experiment, self.commands = folder, uri, experiment, commands
        self.client = mlflow.MlflowClient(uri)

    def tune(self, *press: Any) -> Done:
        words = "tune", "--experiment", str(self.experiment), "--workers", "1", "--study", "resumed"
        storage = f"sqlite:///{self.folder}/studies.db"
        return self.commands.run(
            *words, "--storage", storage, folder=self.folder, press=press, MLFLOW_TRACKING_URI=self.uri
        )

    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="resumed", storage=f"sqlite:///{self.folder}/studies.db")

    def runs(self) -> list[Any]:
        query = "tags.`fmnist.kind` = 'trial'"
        return list(self.client.search_runs(["0"], query, order_by=["attributes.start_time"]))

    def curves(self, run: Any) -> dict[str, list[tuple[int, float]]]:
        histories = {name: self.client.get_metric_history(run.info.run_id, name) for name in PER_EPOCH}
        return {name: [(entry.step, entry.value) for entry in history] for name, history in histories.items()}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory, tiny) -> Path:
    described = yaml.safe_load(tiny.read_text())
    described["training"] |= {"epochs": 5, "checkpoint": True}
    described["model"] |= {"dropout": 0.2}
    file = tmp_path_factory.mktemp("resumed") / "resumed.yaml"
    file.write_text(yaml.safe_dump(described))
    return file


@pytest.fixture(scope="module")
def new_site(tmp_path_factory, new_database, experiment, commands):
    def make(name: str) -> Site:
        folder = tmp_path_factory.mktemp(name)
        return Site(folder, new_database(folder, str(folder / "mlruns")), experiment, commands)

    return make


@pytest.fixture(scope="module")
def unbroken(new_site) -> Site:
    site = new_site("unbroken")
    assert site.tune(*TRIALS_DONE).code == -signal.SIGKILL
    return site


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_trial_continues_in_its_run_after_its_driver_ended(new_site, unbroken, how, code):
    site = new_site(f"signal{int(how)}")
    done = site.tune(*KEEPS_THIRD_STATE, how)
    assert done.code == code, done.printed
    (first,) = site.runs()
    assert len(site.curves(first)["val_accuracy"]) in {2, 3}  # a kill may leave the newest record in the spool
    assert site.tune(*TRIALS_DONE).code == -signal.SIGKILL
    resumed, other = site.runs()
    expected = unbroken.runs()
    assert resumed.info.run_id == first.info.run_id
    assert [run.info.status for run in (resumed, other)] == ["FINISHED", "FINISHED"]
    assert site.curves(resumed) == unbroken.curves(expected[0])  # every epoch once, to the last bit
    assert resumed.data.tags["fmnist.weights_sha256"] == expected[0].data.tags["fmnist.weights_sha256"]
    assert resumed.data.params == {**expected[0].data.params, **resumed.data.params}
    assert resumed.data.tags["fmnist.resumptions"] == "1"
    assert "fmnist.error" not in resumed.data.tags
    assert "fmnist.resumptions" not in other.data.tags
    models = site.client.search_logged_models(["0"], f"source_run_id = '{first.info.run_id}' and name = 'model'")
    assert len(models) == 1
    assert list((site.folder / "mlruns" / "0" / first.info.run_id).rglob("*.npz")) == []
    check_study(site, resumed.info.run_id)


@pytest.mark.slow
def test_a_trial_whose_worker_is_killed_ends_with_the_same_weights(store, folder):
    same = {"training.patience": {"low": 100, "high": 900}}  # of four epochs, so that it has no effect on the fit
    changes = {"training__epochs": 4, "training__checkpoint": True, "model__dropout": 0.2, "search__space": same}
    changes |= {
        "data__source": folder,
        "data__validation_fraction": 0.2,
        "search__n_trials": 2,
        "training__patience": 500,
    }
    request = {"workers": 2, "objective": mortal.objective, "trials_only": True}
    found = searches.search(searches.configure(**changes), "mortal", **request)
    assert Path("killed").exists()
    assert sorted(Path(mortal.FITTED).read_text().split()) == [*"112233344"]  # only the one without a state twice
    found.check_nothing_is_open()
    resumed, unbroken = sorted(found.runs(), key=lambda run: "fmnist.resumptions" not in run.data.tags)
    assert resumed.data.tags["fmnist.resumptions"] == "1"
    assert "fmnist.resumptions" not in unbroken.data.tags
    for name in PER_EPOCH:
        both = [found.client.get_metric_history(run.info.run_id, name) for run in (resumed, unbroken)]
        one, other = ([(point.step, point.value) for point in history] for history in both)
        assert one == other  # every epoch once, to the last bit
        assert [step for step, _ in one] == [1, 2, 3, 4]
    assert resumed.data.tags["fmnist.weights_sha256"] == unbroken.data.tags["fmnist.weights_sha256"]


def check_study(site: Site, run_id: str) -> None:
    """The trial that was cut off does not count, and the one that continues it has the whole curve."""
    study = site.study()
    cut, continued, last = study.get_trials()
    assert study.user_attrs[studies.CUT_OFF] == [cut.number]
    assert [trial.state.name for trial in (cut, continued, last)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert cut.params == continued.params
    assert continued.user_attrs["run_id"] == cut.user_attrs["run_id"] == run_id
    run = site.client.get_run(run_id)
    assert (run.data.tags["fmnist.trial"], run.info.run_name) == ("1", "trial 1")
    assert dict(site.curves(run)["val_accuracy"]) == continued.intermediate_values
