"""The search as a whole: take over what is there, have trials run until the budget is spent, register the best."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from fmnist_exp.backend import interrupts
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import redact
from fmnist_exp.tracking import run as runs
from fmnist_exp.training import precision
from fmnist_exp.tuning import objectives, recovery, retention, space, winner
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.driver import Driver, Search
from fmnist_exp.tuning.report import write as report
from fmnist_exp.tuning.watching import TrialSummary, Watcher, summary
from fmnist_exp.tuning.workers import trial
from fmnist_exp.tuning.workers.pool import Alone

if TYPE_CHECKING:
    from optuna import Study

    from fmnist_exp.registry.versions import Registration
    from fmnist_exp.tracking.run import Run
    from fmnist_exp.tuning.retention import Retention
    from fmnist_exp.tuning.workers.pool import Crew
    from fmnist_exp.tuning.workers.study_lock import Lease
    from fmnist_exp.tuning.workers.trial import Objective


PRECISION = "precision"  # user attribute of a study: what its `training.precision: auto` stands for


@dataclass(frozen=True)
class TuneResult:
    """A search that ended. Without `registration` it was interrupted."""

    study: str
    run_id: str
    ranked: tuple[TrialSummary, ...]
    states: Mapping[str, int]
    test_accuracy: float | None = None
    registration: Registration | None = None
    retention: Retention | None = None
    front: tuple[int, ...] = ()  # numbers of the trials that no other beats in every objective


@dataclass(frozen=True)
class _Ending:
    """What came of the winner, as far as nobody interrupted it."""

    test_accuracy: float | None = None
    registration: Registration | None = None
    retention: Retention | None = None


def tune(
    config: ExperimentConfig,
    data: FashionMNIST,
    study: Study,
    parent: Run,
    watcher: Watcher,
    *,
    crew: Crew | None = None,
    objective: Objective | None = None,
    lease: Lease | None = None,
) -> TuneResult:
    """Run trials until the study has `search.n_trials` finished ones or `search.timeout` is over; register the best.

    Args:
        config: the experiment, with its search.
        data: its images.
        study: from `studies.open_study`, with the same experiment.
        parent: the run whose children the trials become; the caller closes it.
        watcher: hears of every trial.
        crew: where the trials run; None: in this process, one at a time.
        objective: what a trial does; None: it trains.
        lease: of the study; the search ends when it is lost.

    Raises:
        WorkError: five trials failed in a row, or the time was over before any trial had a model.
    """
    limits = space.search_of(config)
    deadline = time.monotonic() + limits.timeout * 60
    config = _settled(config, data, study, parent)
    search = Search(config, study, parent, trial.place_of(config, data), deadline)
    parent.set_tags({"fmnist.study": study.study_name})
    runs.log_start(parent, config, data)
    trains = partial(trial.train, names=limits.objectives)
    interrupted = run_trials(search, crew or Alone(data), watcher, objective or trains, lease)
    ranked = studies.ranked(study)
    if not ranked and not interrupted:
        raise WorkError(f"no trial came to a model within search.timeout={limits.timeout:g} minutes")
    _log_study(config, study, parent)
    ending = _Ending() if interrupted else _end(config, study, data, parent, watcher)
    states = [ended.state.name for ended in studies.finished(study)]
    return TuneResult(
        study=study.study_name,
        run_id=parent.id,
        ranked=tuple(summary(config, ended) for ended in ranked),
        states={state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        test_accuracy=ending.test_accuracy,
        registration=ending.registration,
        retention=ending.retention,
        front=tuple(trial.number for trial in objectives.front(study)),
    )


def run_trials(
    search: Search, crew: Crew, watcher: Watcher, objective: Objective = trial.train, lease: Lease | None = None
) -> bool:
    """Take over what is there and run trials until the budget is spent; whatever ends that, leave none open.

    Returns:
        Whether it was interrupted.
    """
    study, parent = search.study, search.parent
    recovery.check(study, parent.client)
    recovery.adopt(study, parent)
    driver = Driver(search, crew, objective, watcher, lease)
    watcher.on_search(driver.finished, driver.n_trials, search.deadline)
    try:
        driver.work()
    except KeyboardInterrupt:
        interrupts.handled()
        driver.stop()
        parent.mark_killed()
        recovery.settle(study, parent, "interrupted")
        return True
    except Exception as error:
        driver.stop()
        with suppress(Exception):  # what broke the search may break this too; the next session does it then
            recovery.settle(study, parent, f"the search ended: {redact.first_line(error)}")
        raise
    return False


def _settled(config: ExperimentConfig, data: FashionMNIST, study: Study, parent: Run) -> ExperimentConfig:
    """The search with a precision in the place of `auto`, measured once in a study, before any trial begins.

    Trials that measured for themselves, beside others that compute, could differ in it, from each other and from the
    winner fitted again.
    """
    if config.training.precision != "auto":
        return config
    chosen = study.user_attrs.get(PRECISION)
    if chosen is None:
        choice = precision.choose(config, data)
        chosen = choice.precision
        parent.log_metrics(choice.metrics())
        study.set_user_attr(PRECISION, chosen)
    parent.set_tags({"fmnist.precision": chosen})
    return precision.with_precision(config, chosen)


def _end(config: ExperimentConfig, study: Study, data: FashionMNIST, parent: Run, watcher: Watcher) -> _Ending:
    """Register the best trial and clean up: it may take long too, and goes on another time as the trials do."""
    ending = _Ending()
    try:
        best = studies.ranked(study)[0]
        ending = _Ending(*winner.register(config, study, best, data, parent, watcher.on_ending))
        return replace(ending, retention=_retain(config, study, parent))
    except KeyboardInterrupt:
        interrupts.handled()
        parent.mark_killed()
    return ending


def _retain(config: ExperimentConfig, study: Study, parent: Run) -> Retention | None:
    keep = space.search_of(config).keep
    if keep is None:
        return None
    kept = retention.apply(study, keep, parent.client)
    parent.set_tags({"fmnist.weights_kept": " ".join(map(str, kept.kept))})
    return kept


def _log_study(config: ExperimentConfig, study: Study, parent: Run) -> None:
    ranked = studies.ranked(study)
    with parent.artifacts() as folder:
        (folder / "experiment.yaml").write_text(config.to_yaml(), encoding="utf-8")
        report.write(study, space.search_of(config), folder)
    if ranked:
        best = ranked[0]
        parent.set_tags({"fmnist.best_trial": best.number, "fmnist.best_run": best.user_attrs["run_id"]})
        if front := objectives.front(study):
            parent.set_tags({"fmnist.front": " ".join(str(trial.number) for trial in front)})
        parent.log_metrics({"best_val_accuracy": best.user_attrs["val_accuracy"], "best_trial": best.number})
        parent.log_params({f"best.{name}": value for name, value in studies.settings(config, best).items()})
