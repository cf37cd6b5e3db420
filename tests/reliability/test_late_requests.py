"""Requests that are carried out once more, but late, and records of a killed process that come after those of another.

The search went on meanwhile: with another worker, another driver, or after a pause.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from support import everything, services

from benchmarks.line import Fault, Line
from fmnist_exp.registry import versions
from fmnist_exp.tracking import resumption, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import LoggedModelTag, Tag, VersionTag
from fmnist_exp.tracking.run import Run
from fmnist_exp.tracking.spool import ids, sync
from fmnist_exp.tracking.spool.process import sender

KILLED = """
import os, shutil, signal, sys
from support import everything
from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import Run
from fmnist_exp.tracking.spool.folder import RunHead

run = Run(store.client(), RunHead(sys.argv[1], sys.argv[2], "trial", "me", "c0ffee"))
run.log_model(shutil.copytree(sys.argv[3], "late"), everything.ABOUT | {"replaces": sys.argv[4] == "resumed"}, False)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def past(tracking_server) -> MlflowClient:
    """A client of the server past the line."""
    return MlflowClient(tracking_server, tracking_server)


def start() -> Run:
    return runs.start_run(store.connect(), "train", "late", "mlp")


def test_a_run_whose_request_is_carried_out_late_as_well_stays_one_run(line: Line, past):
    run = start()
    run.log_metrics({"loss": 1.0}, step=1)
    run.release()  # as a trial that pauses
    known = past.get_run(run.id)
    number, local = known.info.experiment_id, known.data.tags[Tag.SPOOL_ID]
    for _ in range(4):  # some of their ids come before that of the run
        past.create_run(number, known.info.start_time, {**known.data.tags, str(Tag.SPOOL_ID): local})
    assert ids.find_run(past, local) == run.id
    again = Run(store.connect(), run.id)
    again.close()
    assert again.delivered()
    assert ids.find_runs(past, [number], local, active=True) == [run.id]
    for twin in past.search_runs([number], f"tags.`{Tag.SPOOL_ID}` = '{local}'", ViewType.DELETED_ONLY):
        assert twin.info.status == "KILLED"


def test_a_run_is_taken_over_whole_although_the_answer_is_lost(line: Line, past):
    run = start()
    run.status = "KILLED"
    run.set_tags({Tag.ERROR: "its driver was killed", Tag.TRIAL_STATE: "FAIL"})
    run.close()
    line.inject(Fault.DROP, "runs/update", times=None)
    again = resumption.take(store.connect(), run.id, {Tag.TRIAL: "22"})
    line.clear()
    again.delivered()
    found = past.get_run(run.id)
    assert (found.info.status, found.data.tags[Tag.TRIAL], found.data.tags[Tag.RESUMPTIONS]) == ("RUNNING", "22", "1")
    assert not {Tag.ERROR, Tag.TRIAL_STATE} & found.data.tags.keys()
    again.close()
    assert past.get_run(run.id).info.status == "FINISHED"


def test_a_second_version_is_found_although_the_server_was_killed_before_it_was_looked_for(
    line: Line, past, model, tmp_path
):
    number = past.create_experiment("second version")
    everything.write(number, model, tmp_path / "written")
    assert not sender().drain(60)
    (found,) = past.search_logged_models([number])
    (version,) = [each for each in versions.by_number(past).values() if versions.logged_model(each) == found.model_id]
    twin = past.create_model_version(versions.NAME, version.source, tags=version.tags, model_id=found.model_id)
    own = past.create_model_version(versions.NAME, version.source, model_id=found.model_id)  # somebody's own
    assert VersionTag.SPOOL_ID in version.tags
    assert versions.register(past, found.model_id, version.run_id, {}).version == version.version
    left = {each.version for each in versions.by_number(past).values() if versions.logged_model(each) == found.model_id}
    assert left == {version.version, own.version}
    assert twin.version not in left


def test_a_model_is_known_to_others_once_it_is_whole_and_not_its_twin(line: Line, past):
    """A parent run was linked with the twin that a doubled request had made, which was deleted a moment later."""
    number, local = past.create_experiment("a model and its twin"), ids.new()
    begun = [past.create_logged_model(number, tags={str(LoggedModelTag.SPOOL_ID): local}) for _ in range(3)]
    assert {found.model_id for found in ids.find_models(past, [number], local)} == {model.model_id for model in begun}
    assert ids.resolve(past, local) is None
    past.finalize_logged_model(begun[1].model_id, "READY")
    assert ids.resolve(past, local) == begun[1].model_id


@pytest.mark.parametrize("execution", ["first", "resumed"])
def test_a_model_of_a_killed_worker_comes_late_and_displaces_none(line: Line, past, model, tmp_path, execution):
    run = start()
    run.delivered()
    number = past.get_run(run.id).info.experiment_id
    with line.away():
        code = [sys.executable, "-c", KILLED, run.id, number, str(model), execution]
        died = subprocess.run(code, env={**os.environ, **services.with_package()}, check=False)
        assert died.returncode == -signal.SIGKILL
    resumption.count(run)
    run.resumed = True
    model_id = run.log_model(Path(shutil.copytree(model, tmp_path / "copy")), everything.ABOUT | {"replaces": True})
    sync.adopt(run.client)
    assert not sender().drain(60)
    query = f"name = 'model' and source_run_id = '{run.id}'"
    assert [found.model_id for found in past.search_logged_models([number], query)] == [model_id]
    assert past.get_logged_model(model_id).tags[LoggedModelTag.SHA256]
    run.close()
