"""Run trials as Dask jobs: submit them to workers, connect them with the driver, and watch them until they end.

Messages go to the driver through the scheduler's events, and answers come back through its variables. The driver
therefore never waits for a worker, only for the scheduler.
"""

from __future__ import annotations

import itertools
import pickle
import queue
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from distributed import Client, Future, KilledWorker, Variable, get_client, get_worker

from fmnist_exp import compat
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tuning.workers import messages
from fmnist_exp.tuning.workers.messages import Abandoned, Answer, Channel, Envelope, Handler, Message, Verdict

# Seconds without an answer after which a worker takes its driver for dead; MLflow's client, for which the driver may be
# waiting, gives up after some 20 minutes. A driver that died is noticed sooner: its scheduler drops its jobs.
PATIENCE = 1800
LOOK_SECONDS = 2  # between two looks whether a job is still wanted
HOSTS_SECONDS = 1  # for which the list of workers is taken for true

Argument = TypeVar("Argument")

GONE = "the Dask scheduler is gone, or was started anew"


class DaskChannel:
    """The channel of an execution on a Dask worker."""

    def __init__(self, session: str, trial: int) -> None:
        self._worker = get_worker()
        self.worker = str(self._worker.name)
        self.address = str(self._worker.address)
        self._client = get_client()
        self._session = session
        self._trial = trial
        self._key = self._worker.get_current_task()
        self._execution = uuid.uuid4().hex
        self._questions = 0

    def send(self, message: Message) -> None:
        """Send the driver a message."""
        self._post(Envelope(self._trial, self._execution, message))

    def ask(self, message: Message) -> Answer:
        """Send the driver a message and return its answer. Raises Abandoned."""
        self._questions += 1
        envelope = Envelope(self._trial, self._execution, message, self._questions)
        self._post(envelope)
        variable = Variable(_address(envelope), client=self._client)
        deadline = time.monotonic() + PATIENCE
        while self._is_wanted() and time.monotonic() < deadline:
            try:
                answer: Answer = pickle.loads(variable.get(timeout=LOOK_SECONDS))
            except TimeoutError:
                continue
            except OSError as error:
                raise Abandoned from error
            variable.delete()
            if answer is Verdict.ABANDON:
                raise Abandoned
            return answer
        raise Abandoned

    def _post(self, envelope: Envelope) -> None:
        self._worker.log_event(self._session, {"envelope": pickle.dumps(envelope)})  # events are plain values

    def _is_wanted(self) -> bool:
        """Return False if the job was dropped or the driver's connection has ended."""
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state != "cancelled"


@dataclass(frozen=True)
class _JobEnd:
    trial: int
    key: str  # of the job


class Cluster:
    """Workers that each run one trial at a time. At most `limit` trials run at once; None stands for one per worker."""

    def __init__(self, client: Client, limit: int | None) -> None:
        self._client = client
        self._limit = limit
        self._session = f"fmnist_exp-{uuid.uuid4().hex}"
        self._inbox: queue.SimpleQueue[Envelope | _JobEnd] = queue.SimpleQueue()
        self._jobs: dict[int, Future[None]] = {}  # by trial
        self._hosts: dict[str, str] = {}
        self._hosts_until = 0.0
        self._unread: dict[str, str] = {}  # execution → the address of an answer that it may not have read
        self._counter = itertools.count()
        client.subscribe_topic(self._session, lambda event: self._inbox.put(pickle.loads(event[1]["envelope"])))

    @property
    def size(self) -> int:
        """The number of trials that may run at once."""
        return self._limit or max(1, len(self.hosts()))

    def hosts(self) -> dict[str, str]:
        """Return each worker's address with its host."""
        self._check_scheduler()
        if time.monotonic() > self._hosts_until:
            # `scheduler_info` reads a copy that the client renews in the background, without the workers
            workers = compat.dask_workers(self._client)
            self._hosts = {address: worker["host"] for address, worker in workers.items()}
            self._hosts_until = time.monotonic() + HOSTS_SECONDS
        return self._hosts

    def submit(self, trial: int, function: Callable[[Argument, Channel], None], argument: Argument) -> None:
        """Have the next free worker call `function(argument, channel)` for a trial."""
        self._check_scheduler()
        key = f"{self._session}-{trial}-{next(self._counter)}"
        future = self._client.submit(_execute, self._session, trial, function, argument, key=key, pure=False)
        self._jobs[trial] = future
        future.add_done_callback(lambda done: self._inbox.put(_JobEnd(trial, done.key)))

    def work(self, handle: Handler, seconds: float) -> None:
        """Wait at most `seconds` for a message, handle all messages that have come, and send the answers.

        Raises:
            WorkError: the scheduler is gone, or has forgotten the jobs.
        """
        try:
            waiting = [self._inbox.get(timeout=seconds)]
        except queue.Empty:
            self._check_scheduler()
            return
        while waiting:
            message = waiting.pop()
            if isinstance(message, Envelope):
                self._handle(message, handle)
            elif ended := self._meaning_of(message):
                handle(Envelope(message.trial, "", ended))
            with suppress(queue.Empty):
                waiting.append(self._inbox.get_nowait())

    def drop(self, trial: int) -> None:
        """Forget a trial that has ended or is no longer wanted. Its execution stops when it next asks the driver."""
        future = self._jobs.pop(trial, None)
        with suppress(Exception):  # the scheduler may be gone, which Dask reports in many ways
            if future is not None and not future.done():
                future.cancel()

    def close(self) -> None:
        """Delete the answers that were not read because their executions died."""
        with suppress(Exception):  # the scheduler may be gone, which Dask reports in many ways
            for address in self._unread.values():
                Variable(address, client=self._client).delete()
        self._unread.clear()

    def survey(
        self, function: Callable[..., str], *arguments: object, workers: Iterable[str] | None = None
    ) -> dict[str, str]:
        """Call the function on every worker, or on these; return its result, or its error, by the worker's address."""
        chosen = None if workers is None else list(workers)
        found = self._client.run(function, *arguments, workers=chosen, on_error="return")
        return {address: result if isinstance(result, str) else _described(result) for address, result in found.items()}

    def threads(self) -> dict[str, int]:
        """Return each worker's address with the number of jobs that it would run at once."""
        return dict(self._client.nthreads())

    def _handle(self, envelope: Envelope, handle: Handler) -> None:
        answer = handle(envelope)
        if not envelope.question:
            self._unread.pop(envelope.execution, None)  # it has continued, so it has read its last answer
        elif answer is not None:
            self._unread[envelope.execution] = _address(envelope)
            Variable(_address(envelope), client=self._client).set(pickle.dumps(answer))

    def _meaning_of(self, end: _JobEnd) -> Message | None:
        """Return the message to handle when a job has ended, or None if the trial itself sent a last message."""
        future = self._jobs.get(end.trial)
        if future is None or future.key != end.key:
            return None
        if future.status == "cancelled":  # not by `drop`
            raise WorkError(GONE)
        if future.status == "finished":
            return messages.Lost()
        error = future.exception() if future.status == "error" else None
        return (
            messages.Died() if error is None or isinstance(error, KilledWorker) else messages.Broken(_described(error))
        )

    def _check_scheduler(self) -> None:
        if self._client.status != "running" and self._client.status != "connecting":
            raise WorkError(GONE)


def _execute(session: str, trial: int, function: Callable[[Argument, Channel], None], argument: Argument) -> None:
    failure = ""  # in words: Dask would send the error itself, with all that its text and its causes say
    try:
        with suppress(Abandoned):
            function(argument, DaskChannel(session, trial))
    except Exception as error:
        failure = _described(error)
    if failure:
        raise WorkError(failure)


def _address(question: Envelope) -> str:
    return f"{question.execution}-{question.question}"


def _described(error: BaseException) -> str:
    return first_line(error) if isinstance(error, WorkError) else f"{type(error).__name__}: {first_line(error)}"
