"""Open an interrupted run again, so that it stays one run with one curve."""

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import ownership, transport
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.tracking.spool import ids, sync
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.writing import LOAD


def reopen(client: MlflowClient, run_id: str) -> Run:
    """Open a run that was interrupted, so that this process continues it, and count the resumption.

    Raises RequestError if a live process writes the run, for example one that resumes it at the same moment.
    """
    ownership.check_dead(client, client.get_run(run_id), f"run {run_id}")
    mine = ownership.text()
    run = take(client, run_id, {Tag.OWNER: mine})
    continue_curves(run)
    run.delivered()
    if client.get_run(run_id).data.tags.get(Tag.OWNER) != mine:
        raise RequestError(f"run {run_id} was resumed by another process at the same moment; leave it to that one")
    ownership.hold(run)
    return run


def take(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> Run:
    """Open a run again, whoever wrote it before, count the resumption, and set these tags. Raises MlflowException."""
    before, run = client.get_run(run_id), Run(client, run_id)
    if before.info.lifecycle_stage != "active":
        raise MlflowException(f"run {run_id} was deleted")
    run.resumptions = int(before.data.tags.get(Tag.RESUMPTIONS, 0))
    count(run, {Tag.OWNER: ownership.text(), **tags})
    run.reopen()
    return run


def count(run: Run, tags: Mapping[str, str] | None = None) -> None:
    """Count a resumption of a run, and set these tags."""
    run.resumptions += 1
    run.set_tags({Tag.RESUMPTIONS: run.resumptions, **(tags or {})})


def continue_curves(run: Run) -> None:
    """Make the run keep the steps that its metrics have: the fit is deterministic, so that the values are the same.

    What the process before left unsent on this machine is sent first. If the store does not answer, it is asked for the
    steps when it gets the next ones.
    """
    run.resumed, run.known_steps = True, None
    if sender().offline:
        return
    try:
        sync.adopt(run.client)
        if ids.is_local(run.id):
            return
        keys = [key for key in run.client.get_run(run.id).data.metrics if not key.startswith(LOAD)]
        run.known_steps = {key: {entry.step for entry in run.client.get_metric_history(run.id, key)} for key in keys}
    except Exception as error:
        if not transport.is_lost(error):
            raise
