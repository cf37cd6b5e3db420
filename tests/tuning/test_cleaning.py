"""Cleaning deletes what nobody needs in a real store, and keeps what a version, a study or a live run needs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import optuna
import pytest
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from support import spools
from support.searches import STORAGE, configure, ended

from fmnist_exp import cli
from fmnist_exp.export import packaging
from fmnist_exp.tracking import store as tracking_store
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.folder import DELIVERED, Folder
from fmnist_exp.tracking.spool.records import Record
from fmnist_exp.tuning import cleaning
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.workers import study_lock

KINDS = {"x": FloatDistribution(0, 1)}
EXPECTED = {"weights": (3, 18), "models": (3, 27), "checkpoints": (3, 25), "spool folders": (2, None)}


class World:
    """A store with a bit of everything."""

    def __init__(self, client: MlflowClient, scratch: Path) -> None:
        self.client = client
        self.scratch = scratch
        self.stays: list[str] = []  # ids of logged models that must keep all of their files
        self.weak = ""  # id of one whose weights go
        self.kept_folders: set[Path] = set()
        self.held: Folder | None = None

    def run(self, kind: str = "train", status: str = "FINISHED", **tags: str) -> str:
        known = {"fmnist.kind": kind, **{f"fmnist.{name}": value for name, value in tags.items()}}
        run_id = self.client.create_run("0", tags=known if kind else {}).info.run_id
        if status == "DELETED":
            self.client.delete_run(run_id)
        elif status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return run_id

    def model(self, run_id: str, status: str = "READY", stays: bool = False, name: str = "model") -> str:
        """Log a model with two files of weights, 3 bytes each, and its description, 3 bytes; return its id."""
        model_id = self.client.create_logged_model("0", name, run_id, model_type="keras").model_id
        files = spools.folder(self.scratch / model_id, {"MLmodel": "{}\n", **dict.fromkeys(packaging.WEIGHTS, "www")})
        self.client.log_model_artifacts(model_id, str(files))
        if status != "PENDING":
            self.client.finalize_logged_model(model_id, status)
        self.stays += [model_id] if stays else []
        return model_id

    def study(self, name: str, stays: tuple[bool, ...], stray: bool = False) -> list[str]:
        """Make a study whose trials are better from one to the next, and a failed one; return the models' ids.

        `stays` and `stray` say whether the weights of these trials and of the failed one stay.
        """
        study = studies.open_study(configure(), name, STORAGE)
        models = []
        for number, kept in enumerate(stays, start=1):  # the first one is the setting of the experiment, and waits
            run_id = self.run("trial", study=name)
            models.append(self.model(run_id, stays=kept))
            attrs = {"model_id": models[-1], "run_id": run_id}
            study.add_trial(ended(number, {"x": 0.5}, KINDS, [number / 10], attrs=attrs))
        run_id = self.run("trial", "FAILED", study=name)
        models.append(self.model(run_id, stays=stray))
        attrs = {"run_id": run_id}
        study.add_trial(ended(9, {"x": 0.5}, KINDS, None, attrs=attrs, state=TrialState.FAIL))
        return models

    def checkpoint(self, run_id: str) -> None:
        files = {"checkpoint/best.keras": "cccc", "checkpoint/state-1.npz": "ssss", "curves/loss.png": "p"}
        self.client.log_artifacts(run_id, str(spools.folder(self.scratch / run_id, files)))

    def folder(self, run_id: str, sent: bool, is_live: bool = False, address: str = "") -> Path:
        """Make a folder of the spool with one record."""
        head = spools.head(id=run_id)
        folder = Folder.create(head, address or tracking_store.address(), 1)
        folder.append(Record(1, "batch", 0, {"tags": {"a": "b"}}))
        if sent:
            folder.settle(1, DELIVERED)
        if not is_live:
            folder.release()
        self.held = folder if is_live else self.held
        return folder.path

    def files(self, model_id: str) -> set[str]:
        """Return what a model has, by MLflow's own API."""
        top = self.client.list_logged_model_artifacts(model_id)
        below = [self.client.list_logged_model_artifacts(model_id, entry.path) for entry in top if entry.is_dir]
        return {entry.path for entries in (top, *below) for entry in entries if not entry.is_dir}


@pytest.fixture
def world(store, tmp_path) -> Iterator[World]:
    made = World(mlflow.MlflowClient(), tmp_path / "scratch")
    yield made
    if made.held is not None:
        made.held.release()


@pytest.fixture
def full(world) -> World:
    """A world in which a part of everything can go: for EXPECTED with `keep=1`."""
    versioned, world.weak, *_ = world.study("old", (True, False, True))
    world.client.create_registered_model("by-hand")
    world.client.create_model_version("by-hand", f"models:/{versioned}", model_id=versioned)
    world.study("other", (True,))
    ended_run, live_run, waiting_run = world.run(), world.run(status="RUNNING"), world.run(status="KILLED")
    world.model(ended_run, stays=True)
    world.model(ended_run, "PENDING")
    world.model(ended_run, "FAILED")
    world.model(ended_run, name="checkpoint")
    world.model(live_run, "PENDING", stays=True)
    world.model(live_run, name="checkpoint", stays=True)
    world.model(waiting_run, "PENDING", stays=True)  # the spool of this machine is sending it
    world.model(world.run(kind=""), "FAILED", stays=True)  # another program's
    deleted_run = world.run()
    world.model(deleted_run)
    world.client.delete_run(deleted_run)
    for run_id in (ended_run, world.run("trial", study="old"), live_run, world.run(status="KILLED")):
        world.checkpoint(run_id)
    world.kept_folders = {
        world.folder(waiting_run, sent=False),
        world.folder(ids.new(), sent=False),
        world.folder(ended_run, sent=True, is_live=True),
        world.folder(ended_run, sent=True, address="http://elsewhere"),
    }
    world.folder(ended_run, sent=True)
    world.folder(deleted_run, sent=False)
    return world


def test_what_nobody_needs_is_found_and_deleted_and_the_rest_stays(full):
    found = cleaning.find(full.client, STORAGE, keep=1)
    for kind, (count, size) in EXPECTED.items():
        assert found.total(kind)[0] == count, kind
        assert size in (None, found.total(kind)[1]), kind
    assert found.notices == ()
    again = cleaning.find(full.client, STORAGE, keep=1)
    assert [item.name for item in again.items] == [item.name for item in found.items]  # nothing was changed
    assert cleaning.delete(found) == []
    assert cleaning.find(full.client, STORAGE, keep=1).items == ()
    for model_id in full.stays:
        assert full.files(model_id) == {"MLmodel", *packaging.WEIGHTS}, full.client.get_logged_model(model_id)
    assert set(folders.all_paths(folders.root())) == full.kept_folders
    left = [run for run in full.client.search_runs(["0"]) if full.client.list_artifacts(run.info.run_id, "checkpoint")]
    assert sorted(run.info.status for run in left) == ["KILLED", "RUNNING"]
    weak = full.client.get_logged_model(
        optuna.load_study(study_name="old", storage=STORAGE).trials[2].user_attrs["model_id"]
    )
    assert weak.tags["fmnist.weights"] == "deleted: fmnist-exp clean --keep 1"
    assert full.files(weak.model_id) == {"MLmodel"}


def test_a_running_study_and_a_larger_search_keep_are_respected(world):
    world.study("busy", (True, True, True), stray=True)
    kept = studies.open_study(configure(search__keep=2), "kept", STORAGE)
    for number in (1, 2, 3):
        run_id = world.run("trial", study="kept")
        attrs = {"model_id": world.model(run_id, stays=number > 1), "run_id": run_id}
        kept.add_trial(ended(number, {"x": 0.5}, KINDS, [number / 10], attrs=attrs))
    strange = optuna.create_study(study_name="strange", storage=STORAGE)
    strange.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with study_lock.hold(STORAGE, "busy"):
        found = cleaning.find(world.client, STORAGE, keep=1)
        assert [(item.name, item.count) for item in found.items] == [("study kept", 1)]
        assert any("study busy is running" in notice for notice in found.notices)
        assert any("study strange was made by another program" in notice for notice in found.notices)
        assert cleaning.delete(found) == []
    assert all(world.files(model_id) == {"MLmodel", *packaging.WEIGHTS} for model_id in world.stays)
    with_busy = cleaning.find(world.client, STORAGE, keep=1)
    assert [(item.name, item.count) for item in with_busy.items] == [("study busy", 3)]
    with study_lock.hold(STORAGE, "busy"):  # it has been resumed since
        (problem,) = cleaning.delete(with_busy)
    assert "is being run" in problem
    assert all(world.files(model_id) == {"MLmodel", *packaging.WEIGHTS} for model_id in world.stays)


def test_what_a_version_needs_since_the_look_stays(world):
    model_id = world.model(world.run(status="FAILED"), "FAILED", stays=True)
    found = cleaning.find(world.client, STORAGE, keep=1)
    assert [item.name for item in found.items] == [f"model {model_id}"]
    world.client.create_registered_model("by-hand")
    world.client.create_model_version("by-hand", f"models:/{model_id}", model_id=model_id)
    assert cleaning.delete(found) == []
    assert world.files(model_id) == {"MLmodel", *packaging.WEIGHTS}


def clean(capsys, *options: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended_with:
        cli.run(["clean", *options])
    printed = capsys.readouterr()
    return int(ended_with.value.code or 0), printed.out, printed.err


def test_the_command_says_what_and_how_much_before_it_deletes(full, capsys):
    code, printed, _ = clean(capsys, "--keep", "1")
    assert code == 0
    assert "weights of trials that are not among the best of their study" in printed
    assert "nothing was deleted; the same command with --yes true deletes it" in printed
    assert cleaning.find(full.client, STORAGE, keep=1).total("weights") == EXPECTED["weights"]
    code, printed, _ = clean(capsys, "--keep", "1", "--yes", "true")
    assert code == 0
    assert "study old: weights of 2 trials" in printed
    assert "all of it was deleted" in printed
    assert clean(capsys, "--keep", "1", "--yes")[:2] == (0, "there is nothing to delete\n")


def test_the_command_fails_with_the_documented_codes(world, capsys):
    Path("studies.db").write_text("no database")
    code, _, error = clean(capsys)
    assert code == 2
    assert "the study database sqlite:///studies.db cannot be used" in error
    Path("studies.db").unlink()
    assert clean(capsys)[:2] == (0, "there is nothing to delete\n")
    assert not Path("studies.db").exists()
    model_id = world.model(world.run(status="FAILED"), "FAILED")
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:  # its files lie on another server
        change = "UPDATE logged_models SET artifact_location = 'http://elsewhere/1' WHERE model_id = ?"
        connection.execute(change, [model_id])
    code, printed, error = clean(capsys, "--yes", "true")
    assert code == 1
    assert "cannot be listed" in printed
    assert f"model {model_id} cannot be deleted" in error
