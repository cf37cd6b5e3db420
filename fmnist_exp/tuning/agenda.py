"""The trials that a search has yet to run: new settings, and paused trials that go on or come to their result."""

from __future__ import annotations

import math
from itertools import pairwise

from optuna.trial import TrialState

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import plan as plans
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.halving import Halving
from fmnist_exp.tuning.record import RunningTrial, TrialRecord
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.workers.messages import Verdict

MARGIN = 1.1  # of a time limit that is recommended


class Agenda:
    """Chooses the trial that a free worker runs, and which trials pause.

    Args:
        search: the search.
        can_pause: whether the state of a trial can be kept; otherwise weak trials are stopped for good.
        is_timed: whether workers time the steps of the experiment, so that the search can be planned.

    Attributes:
        finished: number of finished trials, including those of earlier sessions.
        epochs: of a whole trial, by the plan.
        is_planned: whether the search has been fitted into its time.
        refusal: why the search cannot go on, once that is known: its time limit is too short for a single trial.
    """

    def __init__(self, search: Search, can_pause: bool, is_timed: bool) -> None:
        self._search, self._can_pause, self._is_timed = search, can_pause, is_timed
        self._study, self._space = search.study, search.space
        rungs = studies.rungs(self._study)
        self._halving = Halving(self._space.search, self._space.defaults(), rungs, keeps_own=not can_pause)
        self._limit = self._space.search.n_trials  # of trials that are begun, by the plan
        self._round = 0.0  # seconds that a trial takes to the first rung
        self._seconds = 0.0  # of an epoch; 0 without a plan
        self._longest = 0  # epochs between two rungs, at most
        self._known = studies.epochs(self._study, self._space.config)  # of whole trials in earlier sessions
        self.epochs = self._known or self._space.config.training.epochs
        self.is_planned = False
        self._began_late = False  # whether a trial was begun when the time was over, to learn the speed
        self.refusal = ""
        before = studies.finished(self._study)  # read once: it takes longer with every trial
        self.finished = len(before)
        self._has_trial = any(trial.state != TrialState.FAIL for trial in before)
        for trial in before:
            self._halving.count(trial)

    def plan(self, seconds: float, running: int, workers: int) -> str:
        """Fit the search into its time, and return the plan in words; none if the limit is refused, or over.

        Args:
            seconds: that the steps of an epoch of the experiment's own setting take.
            running: trials that are in progress.
            workers: trials that may run at once.
        """
        self.is_planned, seconds = True, plans.SLOWER * seconds
        config, search, others = self._space.config, self._search, self._begun(running) - running
        whole = config.training.epochs * seconds + plans.TRIAL_SECONDS
        if not self._has_result and (search.is_late() or search.end - search.clock() < whole):
            self.refusal = self._too_short(whole)
        if self.refusal or search.is_late():
            return ""
        left, final, at_once = search.left(), search.end - search.deadline - plans.FINAL_SECONDS, workers / seconds
        budget = plans.Budget(left * at_once, max(0.0, final) * at_once, plans.TRIAL_SECONDS / seconds)
        plan = plans.make(config, self._space.search.n_trials - others, budget, self._known)
        self._study.set_user_attr(studies.EPOCHS, plan.epochs)
        self._study.set_user_attr(studies.RUNGS, (plan.rounds[0], plan.factor))
        self.epochs, self._limit = plan.epochs, others + plan.settings
        self._halving.plan(plan.rounds[0], plan.factor, self._limit)
        search.deadline += plan.borrowed / at_once
        self._longest = max(b - a for a, b in pairwise((0, *plans.rungs(plan.rounds[0], plan.factor, plan.epochs))))
        self._seconds, self._round = seconds, (plan.rounds[0] + budget.overhead) * seconds
        return f"plan for {search.left() / 60:.1f} minutes at {seconds:.1f} s per epoch: {plan.text}"

    def shortened(self, config: ExperimentConfig) -> ExperimentConfig:
        """Return the experiment of a trial with the epochs that the plan gives to all."""
        return override(config, {plans.EPOCHS: self.epochs}) if self._is_short() else config

    @property
    def waits_for_speed(self) -> bool:
        """Whether the time limit may still be refused when a worker tells its speed, even if the limit is over."""
        return self._is_timed and not (self.is_planned or self._has_result)

    @property
    def _has_result(self) -> bool:
        """Whether the search can come to a model without another trial."""
        return self._has_trial or bool(self._halving.paused)

    def _is_short(self) -> bool:
        """Return whether trials have fewer epochs than in the experiment, which leaves the rest to the final fit."""
        return self.epochs < self._space.config.training.epochs

    def _too_short(self, whole: float) -> str:
        """Return why the time limit is refused: a whole trial takes `whole` seconds. Say which one suffices."""
        search, minutes = self._search, self._space.search.timeout
        spent = 60 * minutes - (search.end - search.clock())
        share = 1 - (search.end - search.deadline) / (60 * minutes)  # of the limit, in which trials run
        enough = math.ceil(10 * MARGIN * (spent + whole) / share / 60) / 10
        return (
            f"search.timeout: {minutes:g} minutes are too short for a single trial, which takes"
            f" {whole / 60:.1f} minutes on this machine; {enough:g} suffice"
        )

    def _begun(self, running: int) -> int:
        return self.finished + running + len(self._halving.paused)

    def next(self, running: int) -> RunningTrial | None:
        """Return the trial to run beside the running ones; None if none is left, or they must end first.

        When the time is over, only the results of paused trials are left to log.
        """
        halving = self._halving
        is_late = self._search.is_late()
        if not is_late or (self.waits_for_speed and not running and not self._began_late):
            begun, self._began_late = self._begun(running), is_late
            if self._own_is_urgent() and (entry := halving.own(keep=True)):
                return _resumed(entry)
            if entry := halving.hopeless():
                return _ended(entry)
            if entry := halving.promoted():
                return _resumed(entry)
            if begun < self._limit and (self._search.left() > self._round or not begun or is_late):
                halving.least = int(begun + 1 >= self._limit)
                return self._new() or self.next(running)
            if running:
                return None
            if entry := halving.own():
                return _resumed(entry)
            faster = begun < self._space.search.n_trials and self._search.left() > self._round  # than planned
            if faster and (begun < plans.ENOUGH or not self._is_short()):
                self._limit = begun + 1
                return self.next(running)
        entry = halving.hopeless(everyone=True)
        return entry and _ended(entry)

    def _own_is_urgent(self) -> bool:
        """Return whether the own setting's trial is paused, and must go on now to come to its end in time.

        The search is compared with it. It used to come last, and was cut off when the time was over. Any other trial
        may take the worker until it reaches its next rung.
        """
        if (done := self._halving.own_epochs()) is None or not self._seconds:
            return False
        needed = (self.epochs - done + plans.LARGER * self._longest) * self._seconds + 2 * plans.TRIAL_SECONDS
        return self._search.left() < needed

    def _new(self) -> RunningTrial | None:
        """Return a trial with the next setting; None if it paused under an earlier driver, and goes on waiting."""
        trial = self._study.ask()
        known = TrialRecord.of(trial)
        entry = RunningTrial(trial, self._space.suggest(trial), known.passed, known.stopped)
        if known.passed:  # it continues a trial that was cut off, and has its curve
            for epoch, accuracy in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values.items():
                self._halving.observe(entry, epoch, accuracy)
                entry.epochs = epoch
        if not known.paused:
            return entry
        self._halving.pause(entry)
        return None

    def judge(self, entry: RunningTrial, epoch: int, val_accuracy: float) -> Verdict:
        """Report an epoch to the study, unless an earlier execution did, and return whether the trial goes on."""
        if epoch > entry.epochs:
            entry.epochs, entry.outages = epoch, 0
            objectives.report(entry.trial, epoch, val_accuracy)
            self._halving.observe(entry, epoch, val_accuracy)
        # where it was let go on before, it is not judged again: others may have become better since
        verdict = self._halving.judge(entry) if entry.rung == epoch > entry.passed else Verdict.CONTINUE
        return Verdict.STOP if verdict is Verdict.PAUSE and not self._can_pause else verdict

    def pause(self, entry: RunningTrial) -> None:
        """Let a trial wait whose worker has kept the state of its training."""
        TrialRecord.write(entry.trial, paused=entry.epochs)
        entry.pause()
        self._halving.pause(entry)


def _resumed(entry: RunningTrial) -> RunningTrial:
    """Let a paused trial go on."""
    entry.passed = entry.epochs
    TrialRecord.write(entry.trial, passed=entry.passed, paused=0)
    if entry.run is not None:
        entry.run.set_tags({Tag.TRIAL_STATE: "RUNNING"})
    return entry


def _ended(entry: RunningTrial) -> RunningTrial:
    """Let a paused trial come to its result, without another epoch."""
    entry.stopped = entry.epochs
    TrialRecord.write(entry.trial, stopped=entry.stopped, paused=0)
    return entry
