"""The trials that a search has yet to run: new settings, and paused trials that go on or come to their result."""

from __future__ import annotations

from optuna import Study

from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.halving import Halving
from fmnist_exp.tuning.record import RunningTrial, TrialRecord
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers.messages import Verdict


class Agenda:
    """Chooses the trial that a free worker runs, and which trials pause.

    Args:
        study: the study.
        space: its search space.
        can_pause: whether the state of a trial can be kept; otherwise weak trials are stopped for good.

    Attributes:
        finished: number of finished trials, including those of earlier sessions.
    """

    def __init__(self, study: Study, space: SearchSpace, can_pause: bool) -> None:
        self._study, self._space, self._can_pause = study, space, can_pause
        self._halving = Halving(space.search, space.defaults())
        before = studies.finished(study)  # read once: it takes longer with every trial
        self.finished = len(before)
        for trial in before:
            self._halving.count(trial)

    def next(self, running: int, late: bool) -> RunningTrial | None:
        """Return the trial to run, while so many others run; None if none is left, or they must end first.

        When the time is over, only the results of paused trials are left to log.
        """
        halving = self._halving
        if not late:
            begun = self.finished + running + len(halving.paused)
            if entry := halving.hopeless():
                return _ended(entry)
            if entry := halving.promoted():
                return _resumed(entry)
            if begun < self._space.search.n_trials:
                halving.least = int(begun + 1 == self._space.search.n_trials)
                return self._new() or self.next(running, late)
            if running:
                return None
            if entry := halving.own():
                return _resumed(entry)
        entry = halving.hopeless(everyone=True)
        return entry and _ended(entry)

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
