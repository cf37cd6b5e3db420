"""Asynchronous successive halving (ASHA, Li et al. 2020) whose weak trials pause, and are resumed if they deserve it.

Rungs lie at `min_epochs` · `reduction_factor` ** k epochs. Of all trials that have reached a rung, the best ones
deserve to go on: one of `reduction_factor`. Any other trial pauses there and keeps the state of its training. It is
resumed from this state when it is among the best ones, because enough others have reached the rung since. A trial that
will hardly come to that is stopped for good, so that only a few states are kept.

Li, Jamieson, Rostamizadeh, Gonina, Hardt, Recht, Talwalkar: "A System for Massively Parallel Hyperparameter Tuning",
MLSys 2020.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Mapping
from itertools import accumulate

from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.tuning.record import RunningTrial
from fmnist_exp.tuning.workers.messages import Verdict

KEPT = 8  # trials of a rung that may be paused behind those that deserve to go on, which bounds the states on the disk


class Halving:
    """The scores of all trials at the rungs, and the trials that are paused.

    Args:
        search: the section of the experiment.
        own: the parameters of the experiment's own setting, whose trial is never stopped for good.
        rungs: epochs before the first rung, and the factor between rungs, by the plan of an earlier session.
        keeps_own: whether that trial does not pause either; where nothing can pause, it would be stopped for good.
    """

    def __init__(
        self,
        search: SearchConfig,
        own: Mapping[str, object],
        rungs: tuple[int, int] | None = None,
        keeps_own: bool = False,
    ) -> None:
        self.paused: dict[int, RunningTrial] = {}  # by number
        self.least = 0  # trials of each rung that deserve to go on, however few have reached it
        self._active = search.pruner == "successive_halving"
        # epochs before the first rung; and of a rung's trials, one of this many goes on
        self._first, self._factor = rungs or (search.min_epochs, search.reduction_factor)
        self._n_trials = search.n_trials  # that the search will have in the end
        self._keeps_own = keeps_own
        self._own = own
        self._curves: dict[int, dict[int, float]] = {}  # by number: the accuracies of a trial by epoch
        self._scores: dict[int, list[float]] = {}  # by rung; negative, so that the best one comes first

    def plan(self, first: int, factor: int, n_trials: int) -> None:
        """Change the rungs and the number of trials that the search will have in the end; place all trials anew."""
        self._first, self._factor, self._n_trials = first, factor, n_trials
        self._scores = {}
        for curve in self._curves.values():
            self._note(curve)
        for entry in self.paused.values():
            self._place(entry)

    def count(self, trial: FrozenTrial) -> None:
        """Count a trial that ended in an earlier session at the rungs that it reached."""
        if trial.state != TrialState.FAIL:
            self._curves[trial.number] = dict(sorted(trial.intermediate_values.items()))
            self._note(self._curves[trial.number])

    def observe(self, entry: RunningTrial, epoch: int, accuracy: float) -> None:
        """Take note of an epoch of a running trial."""
        self._curves.setdefault(entry.number, {})[epoch] = accuracy
        entry.best = max(entry.best, accuracy)
        self._note({epoch: entry.best})
        if self._is_rung(epoch):
            entry.rung, entry.at_rung = epoch, entry.best

    def _note(self, curve: Mapping[int, float]) -> None:
        """Keep the best accuracies of a trial up to each rung among these epochs."""
        for epoch, best in zip(curve, accumulate(curve.values(), max), strict=True):
            if self._is_rung(epoch):
                insort(self._scores.setdefault(epoch, []), -best)

    def _place(self, entry: RunningTrial) -> None:
        """Let a paused trial be at the highest rung that it has reached, or at none."""
        curve = self._curves[entry.number]
        entry.rung = max(filter(self._is_rung, curve), default=0)
        entry.at_rung = max((curve[epoch] for epoch in curve if epoch <= entry.rung), default=-math.inf)

    def judge(self, entry: RunningTrial) -> Verdict:
        """Return whether a trial that has just reached a rung goes on, pauses, or is stopped for good."""
        if self._deserves(entry) or (self._keeps_own and self._is_own(entry)):
            return Verdict.CONTINUE
        return Verdict.STOP if self._is_hopeless(entry) else Verdict.PAUSE

    def pause(self, entry: RunningTrial) -> None:
        """Add a trial that has kept its state."""
        self.paused[entry.number] = entry

    def promoted(self) -> RunningTrial | None:
        """Take the paused trial that deserves to go on, from the highest rung; None if there is none."""
        return self._take([entry for entry in self.paused.values() if self._deserves(entry)])

    def own(self, keep: bool = False) -> RunningTrial | None:
        """Take the trial of the experiment's own setting, if it is paused: the search is compared with it.

        With `keep`, it does not pause any more.
        """
        self._keeps_own = self._keeps_own or keep
        return self._take([entry for entry in self.paused.values() if self._is_own(entry)])

    def own_epochs(self) -> int | None:
        """Return the epochs of the trial of the experiment's own setting, if it is paused."""
        return next((entry.epochs for entry in self.paused.values() if self._is_own(entry)), None)

    def hopeless(self, everyone: bool = False) -> RunningTrial | None:
        """Take a paused trial that will not deserve to go on any more; with `everyone`, any paused trial."""
        return self._take([entry for entry in self.paused.values() if everyone or self._is_hopeless(entry)])

    def _take(self, entries: list[RunningTrial]) -> RunningTrial | None:
        if not entries:
            return None
        found = max(entries, key=lambda entry: (entry.rung, entry.at_rung, -entry.number))
        return self.paused.pop(found.number)

    def _is_rung(self, epoch: int) -> bool:
        rung = self._first
        while rung < epoch:
            rung *= self._factor
        return self._active and rung == epoch

    def _is_own(self, entry: RunningTrial) -> bool:
        return dict(entry.trial.params) == self._own

    def _rank(self, entry: RunningTrial) -> int:
        """Return the number of trials that were better at the rung."""
        return bisect_left(self._scores[entry.rung], -entry.at_rung)

    def _deserves(self, entry: RunningTrial) -> bool:
        """Return whether a trial is among the best at its rung; one that paused where no rung is any more goes on."""
        return not entry.rung or self._rank(entry) < max(self.least, len(self._scores[entry.rung]) // self._factor)

    def _is_hopeless(self, entry: RunningTrial) -> bool:
        if not entry.rung:
            return False
        now, at_last = (count // self._factor for count in (len(self._scores[entry.rung]), self._n_trials))
        return not self._is_own(entry) and self._rank(entry) >= max(1, min(at_last, now + KEPT))
