"""A search as one library call: run trials until the budget is spent, then register the best model."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from optuna import Study

from fmnist_exp.backend import interrupts
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.errors import WorkError
from fmnist_exp.experiment import outcome, resolve
from fmnist_exp.experiment.resolve import Resolved
from fmnist_exp.export import signing
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.failures import reason_of
from fmnist_exp.tracking.names import Artifact, Tag
from fmnist_exp.tracking.redact import shell_command
from fmnist_exp.tuning import checks, final, finish, objectives, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback, summary
from fmnist_exp.tuning.driver import Driver
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.report import write as report
from fmnist_exp.tuning.result import SearchResult, Status
from fmnist_exp.tuning.sampling import warm_start
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers import connection, local, pool, study_lock, trial
from fmnist_exp.tuning.workers.local import LocalWorkers
from fmnist_exp.tuning.workers.pool import WorkerPool
from fmnist_exp.tuning.workers.study_lock import StudyLock
from fmnist_exp.tuning.workers.trial import Objective


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search to run.

    Attributes:
        config: the experiment, with its `search`.
        study: name of the study; an existing one is resumed. None resumes the study that a killed driver of the same
            search left, or creates a new one.
        storage: database of the studies, as an address of SQLAlchemy.
        workers: number of trials at once; 1 runs them in this process. None: one per core that has 2 GiB of memory,
            or all workers of the scheduler.
        local_workers: workers of this machine that the caller has begun to start; None starts `workers` of them.
        scheduler: address of a running Dask scheduler; None: worker processes of this machine.
        data: the images of the experiment; None loads them.
        run_id: id of an existing run that becomes the parent run; None starts a new one.
        objective: the function that runs a trial; None trains the experiment.
        trials_only: end after the trials, without a report and without registering the best model.
        offline: send nothing to the tracking store; `fmnist-exp sync` does so later.
        callback: receives the events of the search.
    """

    config: ExperimentConfig
    study: str | None = None
    storage: str = "sqlite:///studies.db"
    workers: int | None = None
    local_workers: LocalWorkers | None = None
    scheduler: str | None = None
    data: dataset.FashionMNIST | None = None
    run_id: str | None = None
    objective: Objective | None = None
    trials_only: bool = False
    offline: bool = False
    callback: SearchCallback = field(default_factory=SearchCallback)


def run(request: SearchRequest) -> SearchResult:
    """Run trials until the study has `search.n_trials` finished ones or `search.timeout` is over; register the best.

    Raises:
        RequestError: the search cannot be run; no run was started.
        WorkError: the time limit is too short for a single trial, five trials failed in a row, no trial finished in
            time, or another driver took over the study.
    """
    checks.check(request.config)
    signing.check(own_models=True)
    if request.scheduler:
        connection.check(request.scheduler)
    with ExitStack() as stack:
        local_workers = stack.enter_context(_local_workers(request))  # they start while the images are loaded
        data = request.data or dataset.load(request.config.data, request.config.seed)
        checks.check_data(request.config, data)
        # an embedded store is created last, after all checks
        resolved = resolve.resolve(request.config, data, offline=request.offline, keep_auto=True)
        return _open(request, resolved, data, local_workers)


@contextmanager
def _local_workers(request: SearchRequest) -> Iterator[LocalWorkers | None]:
    """Begin to start local workers, unless the caller has done so. A scheduler has workers of its own."""
    if request.local_workers or request.scheduler:
        yield request.local_workers
        return
    with local.starting(request.workers) as workers:
        yield workers


def _open(
    request: SearchRequest, resolved: Resolved, data: dataset.FashionMNIST, local_workers: LocalWorkers | None
) -> SearchResult:
    """Open the study and the parent run, and run the search in them."""
    config = resolved.config
    name = request.study or _name(request, config)
    with recovery.explaining_full_disk(name), ExitStack() as stack:
        workers, lock = _acquire(request, config, data, name, local_workers, stack)
        study = studies.open_study(config, name, request.storage)
        request.callback.on_study(study.study_name)
        if not request.offline:
            recovery.check(study, resolved.client)
        _announce(request, study, workers.size)
        tags: dict[str, str] = {Tag.STUDY: name}
        run_id = request.run_id
        started = runs.start_run(resolved.client, "tune", config.name, config.name, run_id=run_id, more_tags=tags)
        parent = stack.enter_context(runs.closing(started))
        search = _begin(config, data, study, parent, request.callback)
        return _run(Driver(search, workers, request.objective, request.callback, lock), request)


def _acquire(
    request: SearchRequest,
    config: ExperimentConfig,
    data: dataset.FashionMNIST,
    study: str,
    local_workers: LocalWorkers | None,
    stack: ExitStack,
) -> tuple[WorkerPool, StudyLock]:
    """Connect to the workers and lock the study, until the stack is closed."""
    locked = study_lock.hold(request.storage, study)
    if request.scheduler:  # its workers may be refused, which must come before the lock writes a row
        requirements = trial.requirements_of(config, data)
        workers = stack.enter_context(pool.remote(request.scheduler, request.workers, requirements))
        return workers, stack.enter_context(locked)
    assert local_workers is not None
    lock = stack.enter_context(locked)  # before the local workers, which take seconds to start
    return pool.local(local_workers, data), lock


def _name(request: SearchRequest, config: ExperimentConfig) -> str:
    if left := studies.left_by_a_kill(config, request.storage):
        request.callback.on_notice(f"resuming study {left}, whose driver was killed; --study NAME starts a new one")
    return left or f"{config.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _announce(request: SearchRequest, study: Study, workers: int) -> None:
    search, callback = SearchSpace(request.config).search, request.callback
    kept = f", {final.SHARE * search.timeout:.3g} of them for the final fit" if request.config.final else ""
    limits = f"{search.n_trials} trials, at most {search.timeout:g} minutes{kept}"
    callback.on_notice(f"study {study.study_name}: {limits}")
    if taken := study.user_attrs.get(warm_start.TAKEN):
        callback.on_notice(f"warm start: {taken} of study {search.warm_start} come first")
    if warning := objectives.warning(search, workers):
        callback.on_notice(warning)


def _begin(
    config: ExperimentConfig, data: dataset.FashionMNIST, study: Study, parent: runs.Run, callback: SearchCallback
) -> Search:
    """Complete and log what the trials have in common, and take over the trials of earlier sessions."""
    begin, seconds = time.monotonic(), SearchSpace(config).search.timeout * 60
    deadline = begin + seconds * (1 - final.SHARE if config.final else 1)
    config = studies.with_precision(study, config, data, parent, callback.on_notice)
    runs.log_start(parent, config, data)
    recovery.reattach(study, parent)
    return Search(SearchSpace(config), data, study, parent, deadline, end=begin + seconds)


def _run(driver: Driver, request: SearchRequest) -> SearchResult:
    search, status = driver.search, _run_trials(driver)
    images = len(search.data.validation.labels)
    states = [finished.state.name for finished in studies.finished(search.study)]
    result = SearchResult(
        status=status,
        study=search.study.study_name,
        run_id=search.parent.id,
        ranked=tuple(summary(search.space, ranked, images) for ranked in studies.ranked(search.study)),
        states={state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        front=tuple(best.number for best in objectives.front(search.study)),
        test_images=len(search.data.test.labels),
    )
    if request.trials_only:
        return result
    if not result.ranked and status == "completed":
        raise WorkError(_nothing_found(search))
    report.log(search.study, search.space, search.parent, images)
    if status == "completed":
        result = finish.finish(search, result, request.callback)
    _describe(result, search, request)
    return result


def _nothing_found(search: Search) -> str:
    """Return a sentence about a search without a model."""
    ended = studies.finished(search.study)
    if ended and (reason := TrialRecord.of(ended[-1]).error):
        return f"all {len(ended)} trials failed; the last one: {reason}"
    return f"no trial came to a model within search.timeout={search.space.search.timeout:g} minutes"


def _run_trials(driver: Driver) -> Status:
    """Run the trials, and leave none of them open, however the search ends."""
    study, parent = driver.search.study, driver.search.parent
    driver.callback.on_search(driver.agenda.finished, driver.search.space.search.n_trials, driver.search.end)
    try:
        driver.work()
    except KeyboardInterrupt as interrupt:
        interrupts.release(interrupt)
        driver.stop()
        parent.mark_killed()
        recovery.finalise(study, parent, "interrupted")
        interrupts.clear()  # not before: what follows the first signal must not leave a trial open
        return "interrupted"
    except Exception as error:  # whatever ends the search must leave no trial or run open
        driver.stop()
        with suppress(Exception), interrupts.held():  # what broke the search may break this too; then the next one does
            recovery.finalise(study, parent, f"the search ended: {reason_of(error)}")
        raise
    return "completed"


def _describe(result: SearchResult, search: Search, request: SearchRequest) -> None:
    """Write the note of the parent run."""
    resume = ["fmnist-exp", "tune", "--experiment", f"runs:/{result.run_id}/{Artifact.EXPERIMENT}"]
    resume += ["--study", result.study, "--storage", request.storage]
    version = result.registration.version if result.registration else None
    note = outcome.search_note(search.space.config, result.study, result.text, shell_command(resume), version)
    search.parent.set_tags({Tag.NOTE: note})
