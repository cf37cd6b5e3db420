"""The search: ask Optuna for a trial, run it, tell how it went, until the budget is spent; then register the best."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from fmnist_exp import connection, experiment, tracking
from fmnist_exp.config import ExperimentConfig, flatten
from fmnist_exp.data import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.training import Epoch, Listener
from fmnist_exp.tuning import objectives, report, retention, space, winner
from fmnist_exp.tuning import study as studies

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from fmnist_exp.experiment import Outcome
    from fmnist_exp.registry import Registration
    from fmnist_exp.tracking import Run
    from fmnist_exp.tuning.retention import Retention

FAILURES_IN_A_ROW = 5


@dataclass(frozen=True)
class TrialSummary:
    """One trial, as tables show it. `settings` are the searched fields."""

    number: int
    state: str
    settings: Mapping[str, Any]
    run_id: str
    epochs: int = 0
    val_accuracy: float | None = None
    parameters: int | None = None
    seconds: float = 0.0
    reason: str = ""


class Watcher(Listener):
    """Watches a search: beside steps and epochs it hears of each trial."""

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        """The search starts; `done` trials are there from before. `deadline` in time.monotonic's seconds."""

    def on_trial(self, number: int, settings: Mapping[str, Any], epochs: int) -> None:
        """A trial starts; it has at most `epochs` epochs."""

    def on_trial_end(self, trial: TrialSummary) -> None:
        """A trial ended, in whatever state."""

    def on_ending(self, step: str) -> None:
        """The trials are done; `step` says what is being done with the winner."""


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


def tune(config: ExperimentConfig, data: FashionMNIST, study: Study, parent: Run, watcher: Watcher) -> TuneResult:
    """Run trials until the study has `search.n_trials` finished ones or `search.timeout` is over; register the best.

    Raises:
        WorkError: five trials failed in a row, or the time was over before any trial had a model.
    """
    search = space.search_of(config)
    deadline = time.monotonic() + search.timeout * 60
    parent.tag({"fmnist.study": study.study_name})
    tracking.log_start(parent, config, data)
    _adopt(study, parent)
    watcher.on_search(len(studies.finished(study)), search.n_trials, deadline)
    interrupted = False
    try:
        _search(config, data, study, parent, watcher, deadline)
    except KeyboardInterrupt:
        interrupted = True
        parent.kill()
    ranked = studies.ranked(study)
    if not ranked and not interrupted:
        raise WorkError(f"no trial came to a model within search.timeout={search.timeout:g} minutes")
    _log_study(config, study, parent)
    test_accuracy, registration, kept = None, None, None
    if not interrupted:
        try:  # what follows the trials may take long too, and goes on as they do
            test_accuracy, registration = winner.register(config, study, ranked[0], data, parent, watcher.on_ending)
            kept = _retain(config, study, parent)
        except KeyboardInterrupt:
            parent.kill()
    states = [trial.state.name for trial in studies.finished(study)]
    return TuneResult(
        study=study.study_name,
        run_id=parent.id,
        ranked=tuple(summary(config, trial) for trial in ranked),
        states={state: states.count(state) for state in ("COMPLETE", "PRUNED", "FAIL")},
        test_accuracy=test_accuracy,
        registration=registration,
        retention=kept,
        front=tuple(trial.number for trial in objectives.front(study)),
    )


def _search(
    config: ExperimentConfig, data: FashionMNIST, study: Study, parent: Run, watcher: Watcher, deadline: float
) -> None:
    failures = 0
    n_trials = space.search_of(config).n_trials
    while len(studies.finished(study)) < n_trials and time.monotonic() < deadline:
        trial = study.ask()
        try:
            failed = _run_trial(config, data, trial, parent, watcher, deadline)
        except KeyboardInterrupt:
            _cut_off(study, parent.client)
            raise
        watcher.on_trial_end(summary(config, _frozen(study, trial.number)))
        failures = failures + 1 if failed else 0
        if failures == FAILURES_IN_A_ROW:
            raise WorkError(f"{failures} trials failed in a row; the last one: {failed}")


def _run_trial(
    config: ExperimentConfig, data: FashionMNIST, trial: Trial, parent: Run, watcher: Watcher, deadline: float
) -> str:
    """Run one trial, tell the study, and return why it failed, or nothing."""
    study = trial.study
    chosen = space.suggest(trial, config)
    run = tracking.start_run(parent.client, "trial", f"trial {trial.number}", config.name, parent)
    trial.set_user_attr("run_id", run.id)
    settings = {name: flatten(chosen)[name] for name in space.search_of(config).space}
    watcher.on_trial(trial.number, settings, chosen.training.epochs)
    pruner = _Pruner(trial, deadline)
    try:
        with tracking.closing(run):
            run.tag({"fmnist.study": study.study_name, "fmnist.trial": trial.number})
            run.metrics({"trial": trial.number})
            outcome = experiment.run_experiment(chosen, data, run, [pruner, watcher], score_test=False)
            state = TrialState.PRUNED if outcome.fit.stopped_by_listener else TrialState.COMPLETE
            found = objectives.measure(space.search_of(config), outcome, data.validation.images)
            _remember(trial, outcome, found)
            run.metrics({name: value for name, value in found.items() if name == "prediction_seconds"})
            run.status = "KILLED" if state == TrialState.PRUNED else "FINISHED"
            run.tag({"fmnist.trial_state": state.name})
            values = objectives.values(space.search_of(config), found)
            study.tell(trial, values if state == TrialState.COMPLETE else None, state)
    except Exception as error:  # whatever broke this setting, the search goes on with the next
        reason = connection.first_line(error)
        trial.set_user_attr("error", reason)
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        run.tag({"fmnist.trial_state": "FAIL"})
        return reason
    return ""


class _Pruner(Listener):
    """Reports each epoch to Optuna; stops the trial when it is pruned or when the search's time is over."""

    def __init__(self, trial: Trial, deadline: float) -> None:
        self.trial = trial
        self.deadline = deadline

    def on_epoch(self, epoch: Epoch) -> bool:
        pruned = objectives.report(self.trial, epoch.number, epoch.metrics["val_accuracy"])
        return pruned or time.monotonic() > self.deadline


def _remember(trial: Trial, outcome: Outcome, found: Mapping[str, float]) -> None:
    """Keep with the trial what a later session needs, so that it need not ask MLflow."""
    for name, value in {"model_id": outcome.model_id, "best_epoch": outcome.fit.best.number, **found}.items():
        trial.set_user_attr(name, value)


def _frozen(study: Study, number: int) -> FrozenTrial:
    return next(trial for trial in reversed(study.get_trials(deepcopy=False)) if trial.number == number)


def summary(config: ExperimentConfig, trial: FrozenTrial) -> TrialSummary:
    """A trial of the study as tables show it."""
    known = trial.user_attrs
    return TrialSummary(
        number=trial.number,
        state=trial.state.name,
        settings=studies.settings(config, trial),
        run_id=known.get("run_id", ""),
        epochs=len(trial.intermediate_values) or len(known.get(objectives.CURVE, [])),
        val_accuracy=known.get("val_accuracy"),
        parameters=known.get("parameters"),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        reason=known.get("error", ""),
    )


def _adopt(study: Study, parent: Run) -> None:
    """Take over an earlier session's trials: close what a kill left open, make all runs children of this one."""
    from mlflow.exceptions import MlflowException

    _cut_off(study, parent.client)
    for trial in study.get_trials(deepcopy=False):
        if run_id := trial.user_attrs.get("run_id"):
            try:
                parent.client.set_tag(run_id, "mlflow.parentRunId", parent.id)
            except MlflowException as error:
                raise RequestError(
                    f"the runs of study {study.study_name!r} are not in this tracking store; use the store that it"
                    " was made with, or another study name"
                ) from error


def _cut_off(study: Study, client: MlflowClient) -> None:
    for trial in studies.running(study):
        studies.cut_off(study, trial)
        if run_id := trial.user_attrs.get("run_id"):
            client.set_terminated(run_id, "KILLED")
            client.set_tag(run_id, "fmnist.trial_state", "FAIL")


def _retain(config: ExperimentConfig, study: Study, parent: Run) -> Retention | None:
    keep = space.search_of(config).keep
    if keep is None:
        return None
    kept = retention.apply(study, keep, parent.client)
    parent.tag({"fmnist.weights_kept": " ".join(map(str, kept.kept))})
    return kept


def _log_study(config: ExperimentConfig, study: Study, parent: Run) -> None:
    ranked = studies.ranked(study)
    with parent.artifacts() as folder:
        (folder / "experiment.yaml").write_text(config.to_yaml(), encoding="utf-8")
        report.write(study, space.search_of(config), folder)
    if ranked:
        best = ranked[0]
        parent.tag({"fmnist.best_trial": best.number, "fmnist.best_run": best.user_attrs["run_id"]})
        if front := objectives.front(study):
            parent.tag({"fmnist.front": " ".join(str(trial.number) for trial in front)})
        parent.metrics({"best_val_accuracy": best.user_attrs["val_accuracy"], "best_trial": best.number})
        parent.params({f"best.{name}": value for name, value in studies.settings(config, best).items()})
