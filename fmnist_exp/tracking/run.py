"""MLflow runs: start a run, and close it when its work ends.

Every call to MLflow names the run, because MLflow's active-run stack is thread-local, and a process that inherits
MLFLOW_RUN_ID would write into its parent's run by mistake.
"""

import importlib.metadata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from mlflow import MlflowClient

from fmnist_exp import compat
from fmnist_exp.backend import interrupts
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import experiments, ownership, writing
from fmnist_exp.tracking.failures import reason_of
from fmnist_exp.tracking.names import Artifact, Kind, Param, Tag
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.folder import RunHead
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.writing import Run as Run
from fmnist_exp.tracking.writing import Status as Status

LIBRARIES = ("tensorflow", "keras", "numpy")


def start_run(
    client: MlflowClient,
    kind: Kind,
    name: str,
    experiment: str,
    parent: Run | None = None,
    run_id: str | None = None,
    more_tags: Mapping[str, str] | None = None,
) -> Run:
    """Start a run with MLflow's own source and git tags, as a child of `parent` if given, or take over a run.

    Args:
        client: The client of the store.
        kind: What the run is.
        name: The run's name in the MLflow UI.
        experiment: The name of the experiment file, not of an MLflow experiment.
        parent: The run whose child the new run becomes.
        run_id: The run to take over; `mlflow run` makes one before it starts a command.
        more_tags: Tags that the run needs from its first moment, because the process may be killed right after it.

    Raises:
        RequestError: The tracking server does not let its user write there.
    """
    own = {Tag.KIND: kind, Tag.EXPERIMENT: experiment, Tag.NAME: name, Tag.OWNER: ownership.text(), **(more_tags or {})}
    if parent is None and not sender().offline:
        ownership.close_dead(client)
    if run_id is not None:
        if sender().offline:
            raise RequestError(
                "--offline: the store has this run already, which `mlflow run` made; leave --offline out"
            )
        run = Run(client, replace(writing.ask(client, run_id), kind=kind))
        run.set_tags(own)
        experiments.describe(client, run.experiment_id)
        ownership.hold(run)
        return run
    tags = compat.context_tags({str(key): value for key, value in own.items()})
    tags |= {str(Tag.PARENT): parent.id} if parent else {}
    if parent:
        experiment_id = parent.experiment_id
    else:
        experiment_id = experiments.wanted()[0] if sender().offline else experiments.current(client)
    user, commit = tags.get(Tag.USER, "unknown"), tags.get(Tag.GIT_COMMIT, "")
    run = Run(client, RunHead(ids.new(), experiment_id, kind, user, commit, frozenset()))
    run.create(name, tags)
    if parent is None:
        ownership.hold(run)
    return run


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """Close the run when the block ends: KILLED after an interrupt, FAILED with the reason after an error.

    Ctrl-C waits until the run is closed. A library may have replaced an interrupt by an error of its own.
    """
    try:
        yield run
    except BaseException as error:
        with interrupts.held():
            try:
                _explain(run, error)
            finally:  # what broke the run may break the tags as well
                run.close()
        raise
    with interrupts.held():
        run.close()


def _explain(run: Run, error: BaseException) -> None:
    """Make `close` close the run with the status that the error means, and tag the run with the reason."""
    if isinstance(error, ownership.LostError):
        return  # the run is another process's now
    if isinstance(error, KeyboardInterrupt):
        interrupts.release(error)
    if isinstance(error, KeyboardInterrupt) or interrupts.pending():
        run.mark_killed()
    else:
        run.status = "FAILED"
        run.set_tags({Tag.ERROR: reason_of(error)})


def log_start(run: Run, config: ExperimentConfig, data: FashionMNIST) -> None:
    """Log what is known before the first epoch: the experiment, every field, library versions and the data."""
    with run.artifacts() as folder:  # already now, so that a run that is killed can be run again or resumed
        text = config.without_search().to_yaml()
        (folder / Artifact.EXPERIMENT).write_text(text, encoding="utf-8")
    versions = {Param.LIBRARY.format(library=name): importlib.metadata.version(name) for name in LIBRARIES}
    run.log_params({**flatten(config), **versions})
    splits = {"training": data.train, "validation": data.validation, "gate": data.gate}
    run.log_inputs(data, {context: split for context, split in splits.items() if len(split.images)})
