"""The driver of a search, which alone touches the study: it hands out trials and tells the study what they measure.

A trial may run more than once, when its worker dies; each execution has a run of its own, and only the newest counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna import Study, Trial
from optuna.trial import TrialState

from fmnist_exp.backend import interrupts
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import finished
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning import objectives, recovery, space
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback, summary
from fmnist_exp.tuning.workers.jobs import GONE, Answer, Message
from fmnist_exp.tuning.workers.pool import Crew
from fmnist_exp.tuning.workers.study_lock import Lease
from fmnist_exp.tuning.workers.trial import Objective, Task, place_of

FAILURES_IN_A_ROW = 5
EXECUTIONS = 3  # of one trial, when its workers die
LEFT = 20  # times that a trial's workers may lose touch with the driver
SILENT_SECONDS = 600  # after which a trial is given up when the time is over: logging a model may take minutes
TICK_SECONDS = 1.0
GO: Mapping[str, Any] = {"stop": False}


@dataclass(frozen=True)
class Search:
    """What a driver works on. `deadline` in time.monotonic's seconds."""

    config: ExperimentConfig
    data: FashionMNIST
    study: Study
    parent: Run
    deadline: float


@dataclass
class _Running:
    """A trial in progress."""

    trial: Trial
    config: ExperimentConfig
    executions: int = 0  # begun
    left: int = 0  # of those, given up by their worker, since this driver was silent for long
    stillborn: int = 0  # died before they begun
    address: str = ""  # of the worker that begun the one that counts
    heard: float = 0.0  # when it last said something, by time.monotonic
    execution: str = ""  # the one that counts
    run: Run | None = None
    epochs: int = 0  # reported to the study


class Driver:
    """Runs trials until the budget is spent. Raises WorkError when it makes no sense to go on."""

    def __init__(
        self, search: Search, crew: Crew, objective: Objective, callback: SearchCallback, lease: Lease | None
    ) -> None:
        self.search = search
        self.study = search.study
        self.crew = crew
        self.objective = objective
        self.callback = callback
        self.place = place_of(search.config, search.data)
        self.lease = lease
        self.running: dict[int, _Running] = {}
        self.finished = len(studies.finished(search.study))  # counted once: it takes longer with every trial
        self.n_trials = space.search_of(search.config).n_trials
        self.failures = 0

    def work(self) -> None:
        """Keep as many trials in progress as the crew has hands, until none is left to start or to wait for."""
        while True:
            while self._wants_more():
                self._start()
            if not self.running:
                return
            self.crew.work(self._hear, min(TICK_SECONDS, max(0.01, self.search.deadline - time.monotonic())))
            interrupts.check()
            if self.lease is not None:
                self.lease.check()
            if self._is_late():
                self._cut_dead()

    def stop(self) -> None:
        """Have the crew stop all trials, the latest at the end of their epochs; nobody listens to them any more."""
        for number in list(self.running):
            self._forget(number)

    def _wants_more(self) -> bool:
        if self._is_late() or len(self.running) >= self.n_trials - self.finished:
            return False
        return len(self.running) < self.crew.size

    def _is_late(self) -> bool:
        return time.monotonic() > self.search.deadline

    def _start(self) -> None:
        trial = self.study.ask()
        self.running[trial.number] = _Running(trial, space.suggest(trial, self.search.config))
        self._submit(trial.number)

    def _submit(self, number: int) -> None:
        self.crew.start(Task(number, self.running[number].config, self.objective, self.place))

    def _cut_dead(self) -> None:
        """The time is over: what no worker has begun, none shall begin; what died or hangs is not waited for."""
        for number, entry in list(self.running.items()):
            hangs = time.monotonic() - entry.heard > SILENT_SECONDS
            if not entry.execution or hangs or not self.crew.has(entry.address):
                self._cut(number, entry)

    def _cut(self, number: int, entry: _Running) -> None:
        self._forget(number)
        self._close_run(entry, "KILLED", "the time was over")
        studies.cut_off(self.study, entry.trial)

    def _hear(self, message: Message) -> Answer | None:
        """What an execution says changes the study, or nothing if another one has taken its place."""
        number = int(message.job)
        entry = self.running.get(number)
        if message.kind == "unfit":
            raise WorkError(str(message.body["reason"]))
        if entry is None:
            return GONE
        if message.kind in ("died", "left", "broken"):
            self._retry(number, entry, message)
            return None
        if message.kind == "start":
            return self._begin(number, entry, message)
        if message.execution != entry.execution:
            return GONE
        entry.heard = time.monotonic()
        if message.kind == "progress":
            self.callback.on_progress(number, message.body["epochs"])
            return None
        if message.kind == "epoch":
            return self._report(number, entry, message.body["epoch"], message.body["val_accuracy"])
        if message.kind == "end":
            self._end(number, entry, message.body["stopped"], message.body["known"])
        elif message.body["full"]:
            raise recovery.full_disk(f"on worker {entry.trial.user_attrs['worker']}: {message.body['reason']}")
        else:
            self._fail(number, entry, message.body["reason"])
        return None

    def _begin(self, number: int, entry: _Running, message: Message) -> Answer:
        """A worker is about to run the trial: the first to do so, or the next after one that died."""
        if self._is_late():
            self._cut(number, entry)
            return GONE
        if self._gives_up(number, entry):
            return GONE
        if entry.executions:
            self.callback.on_retry(number, "its worker lost touch with the driver" if entry.left else "its worker died")
        entry.executions += 1
        entry.execution, entry.address = message.execution, message.body["address"]
        entry.heard = time.monotonic()
        search, parent, before = self.search, self.search.parent, entry.run
        tags = {"fmnist.study": self.study.study_name, "fmnist.trial": str(number)}
        entry.run = runs.start_run(
            parent.client, "trial", f"trial {number}", search.config.name, parent, more_tags=tags
        )
        entry.trial.set_user_attr("run_id", entry.run.id)
        if before is not None:  # after that: a trial must not name a run that a kill left deleted
            finished.discard(before.client, before.id)
        entry.trial.set_user_attr("worker", message.body["place"])
        entry.run.log_metrics({"trial": number})
        if entry.executions == 1:
            chosen = flatten(entry.config)
            settings = {name: chosen[name] for name in space.search_of(search.config).space}
            self.callback.on_trial(number, settings, entry.config.training.epochs)
        return {**GO, "run_id": entry.run.id}

    def _report(self, number: int, entry: _Running, epoch: int, val_accuracy: float) -> Answer:
        """Report an epoch, once: the same setting and seed measure the same when a trial is run again."""
        pruned = False
        if epoch > entry.epochs:
            entry.epochs = epoch
            pruned = objectives.report(entry.trial, epoch, val_accuracy)
        self.callback.on_progress(number, float(epoch))
        last = epoch >= entry.config.training.epochs  # after it nothing is left to stop: the trial is complete
        return {"stop": not last and (pruned or self._is_late())}

    def _end(self, number: int, entry: _Running, stopped: bool, known: Mapping[str, Any]) -> None:
        for name, value in known.items():
            entry.trial.set_user_attr(name, value)
        values = objectives.values(space.search_of(self.search.config), known)
        if stopped and len(values) == 1:
            self._tell(number, entry, TrialState.PRUNED, None)
        else:  # several objectives, where nothing prunes: what the time limit stopped has them all, for the front
            self._tell(number, entry, TrialState.COMPLETE, values)

    def _fail(self, number: int, entry: _Running, reason: str) -> None:
        entry.trial.set_user_attr("error", reason)
        self._tell(number, entry, TrialState.FAIL, None, reason)
        self.failures += 1
        if self.failures == FAILURES_IN_A_ROW:
            raise WorkError(f"{self.failures} trials failed in a row; the last one: {reason}")

    def _tell(
        self, number: int, entry: _Running, state: TrialState, values: list[float] | None, reason: str = ""
    ) -> None:
        """Tell the study, then close the run: after a kill in between, recovery.settle does what is left."""
        if not all(math.isfinite(value) for value in values or []):
            state, values = TrialState.FAIL, None
        entry.trial.set_user_attr(recovery.OUTCOME, {"state": state.name, "values": values})
        told = self.study.tell(entry.trial, values, state)
        self._forget(number)
        self.finished += 1
        if state != TrialState.FAIL:
            self.failures = 0
        if entry.run is not None:
            entry.run.set_tags({"fmnist.trial_state": state.name})
        self._close_run(entry, recovery.STATUS[state], reason)
        self.callback.on_trial_end(summary(self.search.config, told))

    def _close_run(self, entry: _Running, status: runs.Status, reason: str) -> None:
        if entry.run is not None:
            entry.run.status = status
            if reason:
                entry.run.set_tags({"fmnist.error": reason})
            entry.run.close()

    def _retry(self, number: int, entry: _Running, message: Message) -> None:
        """Dask or the worker gave the job up, or the worker could not even begin it."""
        if message.kind == "broken":
            raise WorkError(f"a worker could not run trial {number}: {message.body['reason']}")
        entry.left += message.kind == "left"
        entry.stillborn += message.kind == "died" and not entry.execution
        if not self._gives_up(number, entry):
            entry.execution = ""
            self._submit(number)

    def _gives_up(self, number: int, entry: _Running) -> bool:
        """Fail the trial if it had all its executions."""
        if entry.left == LEFT:
            self._fail(number, entry, f"its workers lost touch with the driver {LEFT} times")
        elif entry.executions + entry.stillborn - entry.left >= EXECUTIONS:
            self._fail(number, entry, f"its worker died {EXECUTIONS} times: killed, or over its memory limit")
        else:
            return False
        return True

    def _forget(self, number: int) -> None:
        del self.running[number]
        self.crew.drop(number)
