"""The driver of a search: it asks the study for trials, keeps the workers busy, and reports results to the study.

Only the driver touches the study. A trial may run more than once, when its worker or its driver dies or when it paused;
only the newest execution counts, and it continues the trial's run from the last state that an earlier one has kept.
"""

from __future__ import annotations

import math
import time
from functools import partial

from optuna.trial import TrialState

from fmnist_exp.backend import interrupts
from fmnist_exp.errors import WorkError
from fmnist_exp.experiment import checkpoints
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import continuation, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.agenda import Agenda
from fmnist_exp.tuning.callback import SearchCallback, summary
from fmnist_exp.tuning.record import RunningTrial, TrialRecord
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.workers import messages
from fmnist_exp.tuning.workers.messages import Answer, Begin, Envelope, Started, TrialResult, Verdict
from fmnist_exp.tuning.workers.pool import WorkerPool
from fmnist_exp.tuning.workers.study_lock import StudyLock
from fmnist_exp.tuning.workers.trial import Objective, Task, requirements_of, train

FAILURES_IN_A_ROW = 5
SILENT_SECONDS = 600  # after which a trial is given up when the time is over: logging a model may take minutes
TICK_SECONDS = 1.0


class Driver:
    """Runs the trials of a search until its budget is spent.

    Attributes:
        search: the study, the experiment and the parent run.
        pool: the workers that run the trials.
        objective: the function that runs a trial; without one, it trains the experiment.
        timed: the experiment whose steps a worker times for the plan of the search; None if the objective is another.
        callback: receives the events of the search.
        lock: the lock of the study; the search ends when it is lost.
        agenda: the trials that are left to run.
        running: the trials in progress, by number.
        failures: number of trials that failed in a row.
        slow: names of the workers that compute slowly in the search's precision.
    """

    def __init__(
        self,
        search: Search,
        pool: WorkerPool,
        objective: Objective | None,
        callback: SearchCallback,
        lock: StudyLock | None,
    ) -> None:
        self.search = search
        self.pool = pool
        self.objective = objective or partial(train, names=search.space.search.objectives)
        self.timed = None if objective else search.space.config.without_search()
        self.callback = callback
        self.lock = lock
        self.space = search.space
        self.requirements = requirements_of(search.space.config, search.data)
        self.agenda = Agenda(search, self.requirements.keeps_states, is_timed=self.timed is not None)
        self.running: dict[int, RunningTrial] = {}
        self.failures = 0
        self.slow: set[str] = set()

    def work(self) -> None:
        """Keep as many trials in progress as there are workers, until all trials have ended.

        Raises:
            WorkError: the time limit is too short for a single trial, too many trials in a row failed, a worker cannot
                run them, or another driver took over the study.
        """
        while True:
            self._keep_busy()
            if not self.running:
                return
            for entry in self.running.values():
                if entry.ends_wait(self.search.clock()):
                    self._submit(entry)
            self.pool.work(self._handle, min(TICK_SECONDS, max(0.01, self.search.left())))
            interrupts.check()
            if self.agenda.refusal:
                raise WorkError(self.agenda.refusal)
            if self.lock is not None:
                self.lock.check()
            if self.search.is_late():
                self._cut_dead()

    def stop(self) -> None:
        """Stop all trials, at the latest at the end of their current epoch, and drop their messages."""
        for number in list(self.running):
            self._forget(number)

    def _keep_busy(self) -> None:
        """Give every worker a trial, if there is one for it."""
        while len(self.running) < self.pool.size and (entry := self.agenda.next(len(self.running))):
            self.running[entry.number] = entry
            self._submit(entry)

    def _submit(self, entry: RunningTrial) -> None:
        entry.heard = self.search.clock()
        timed = None if self.agenda.is_planned else self.timed
        self.pool.submit(Task(entry.number, entry.config, self.objective, self.requirements, timed))

    def _cut_dead(self) -> None:
        """When the time is over, cut off the trials that no worker has begun, or whose worker is gone or hangs."""
        for entry in list(self.running.values()):
            hangs = self.search.clock() - entry.heard > SILENT_SECONDS
            # what was stopped or has paused only lacks its results
            waits = not (entry.execution or entry.stopped or entry.logged or self.agenda.waits_for_speed)
            if waits or hangs or (entry.execution and not self.pool.has(entry.address)):
                self._cut(entry)

    def _cut(self, entry: RunningTrial) -> None:
        self._forget(entry.number)
        entry.close_run("KILLED", "the time was over", {Tag.TRIAL_STATE: TrialState.FAIL.name})
        studies.cut_off(self.search.study, entry.trial)

    def _handle(self, envelope: Envelope) -> Answer | None:
        """Handle a message. Messages of executions that have been replaced are ignored."""
        number, message = envelope.trial, envelope.message
        if isinstance(message, messages.Unfit):
            raise WorkError(message.reason)
        if (entry := self.running.get(number)) is None:
            return Verdict.ABANDON
        match message:
            case messages.Broken(reason):
                raise WorkError(f"a worker could not run trial {number}: {reason}")
            case messages.Died() | messages.Lost():
                self._retry(entry, lost=isinstance(message, messages.Lost))
                return None
            case messages.Unreachable(reason) if entry.execution in ("", envelope.execution):
                self.pool.drop(number)
                entry.wait(self.search.clock(), reason)
                return None
            case Started():
                return self._begin(entry, envelope.execution, message)
        if envelope.execution != entry.execution:
            return Verdict.ABANDON
        entry.heard = self.search.clock()
        match message:
            case messages.Progress(epochs):
                self.callback.on_progress(number, epochs)
            case messages.EpochEnd(epoch, val_accuracy):
                self.callback.on_progress(number, float(epoch))
                return self._report(entry, epoch, val_accuracy)
            case messages.Finished(result):
                self._finish(entry, result)
            case messages.Paused():
                self._forget(number)
                self.agenda.pause(entry)
                self.callback.on_pause(number, entry.epochs)
            case messages.Failed(reason, full_disk):
                if full_disk:
                    raise recovery.full_disk(f"on worker {TrialRecord.of(entry.trial).worker}: {reason}")
                self._fail(entry, reason)
        return None

    def _begin(self, entry: RunningTrial, execution: str, message: Started) -> Answer:
        """Let an execution of a trial begin: the first one, or the next one after a worker died."""
        self._note_speed(message)
        if self.agenda.refusal:  # `work` raises it: an error in here would be taken for the trial's
            return Verdict.ABANDON
        if self.search.is_late() and entry.logged and not entry.stopped:  # it paused, and was to go on
            entry.stopped = entry.epochs
            TrialRecord.write(entry.trial, stopped=entry.stopped)
        if self.search.is_late() and not entry.stopped:
            self._cut(entry)
            return Verdict.ABANDON
        if entry.hopeless:
            self._fail(entry, entry.hopeless)
            return Verdict.ABANDON
        if entry.executions:
            self.callback.on_retry(entry.number, entry.interruption)
        entry.executions += 1
        entry.execution, entry.address, entry.heard = execution, message.address, self.search.clock()
        entry.config = self.agenda.shortened(entry.config)
        entry.run, resumed = continuation.open_run(entry, self.search.parent, self.space.config.name)
        TrialRecord.write(entry.trial, worker=message.worker)
        if entry.executions == 1:
            entry.begun = time.time()
            self.callback.on_trial(entry.number, self.space.settings(entry.config), entry.config.training.epochs)
        return Begin(entry.run.head, entry.config.training.epochs, resumed, entry.logged)

    def _note_speed(self, message: Started) -> None:
        """Say that a worker is slow, and plan the search at the speed of the first one that has timed its steps."""
        if message.slow and message.worker not in self.slow:
            self.slow.add(message.worker)
            precision = self.space.config.training.precision
            self.callback.on_notice(f"worker {message.worker} computes slowly in {precision}: {message.slow}")
        timed = None if self.agenda.is_planned else message.seconds
        if timed and (plan := self.agenda.plan(timed, len(self.running), self.pool.size)):
            self.callback.on_notice(plan)

    def _report(self, entry: RunningTrial, epoch: int, val_accuracy: float) -> Verdict:
        """Report an epoch to the study once. Every execution has the same setting and seed, and so the same values."""
        verdict = self.agenda.judge(entry, epoch, val_accuracy)
        if epoch >= entry.config.training.epochs:
            return Verdict.CONTINUE  # nothing is left to stop: the trial is complete
        if not entry.stopped and epoch >= max(entry.epochs, entry.passed):
            if verdict is not Verdict.STOP and not self.search.is_late():
                return verdict
            entry.stopped = epoch  # for every execution: the run may already have the results of this end
            TrialRecord.write(entry.trial, stopped=epoch)
        return Verdict.STOP if 0 < entry.stopped <= epoch else Verdict.CONTINUE

    def _finish(self, entry: RunningTrial, result: TrialResult) -> None:
        measured = result.measured()
        TrialRecord.write(entry.trial, **measured)
        values = [float(measured[name]) for name in self.space.search.objectives]
        # with several objectives nothing is pruned, and what the time limit stopped may be on the front
        state = TrialState.PRUNED if result.stopped and len(values) == 1 else TrialState.COMPLETE
        self._tell(entry, state, values if state is TrialState.COMPLETE else None)

    def _fail(self, entry: RunningTrial, reason: str) -> None:
        TrialRecord.write(entry.trial, error=reason)
        if entry.run is not None:
            checkpoints.delete_states(entry.run)  # nothing continues the trial
        self._tell(entry, TrialState.FAIL, reason=reason)
        self.failures += 1
        if self.failures == FAILURES_IN_A_ROW:
            raise WorkError(f"{self.failures} trials failed in a row; the last one: {reason}")

    def _tell(
        self, entry: RunningTrial, state: TrialState, values: list[float] | None = None, reason: str = ""
    ) -> None:
        """Tell the study the result, then close the run. After a kill in between, `recovery.finalise` closes it."""
        if not all(math.isfinite(value) for value in values or []):
            state, values = TrialState.FAIL, None
        if TrialRecord.of(entry.trial).stretches:
            entry.note_stretch()
        TrialRecord.write(entry.trial, outcome={"state": state.name, "values": values})
        told = self.search.study.tell(entry.trial, values, state)
        self._forget(entry.number)
        self.agenda.finished += 1
        if state != TrialState.FAIL:
            self.failures = 0
        entry.close_run(recovery.STATUS[state], reason, {Tag.TRIAL_STATE: state.name})
        self.callback.on_trial_end(summary(self.space, told, len(self.search.data.validation.labels)))

    def _retry(self, entry: RunningTrial, lost: bool) -> None:
        """Retry a trial whose worker died or gave it up."""
        entry.losses += lost
        entry.early_deaths += not lost and not entry.execution
        if entry.hopeless:
            self._fail(entry, entry.hopeless)
        else:
            entry.execution = ""
            self._submit(entry)

    def _forget(self, number: int) -> None:
        del self.running[number]
        self.pool.drop(number)
