"""The only package that imports Dask: jobs run in worker processes, here or on a cluster, and talk with their driver.

A job may run more than once, since Dask starts it again elsewhere when its worker dies. Each execution has a name of
its own, which all its messages carry, so that the driver can tell them apart. Messages go to the driver through the
scheduler's events, answers come back through its variables: the driver waits for no worker, only for the scheduler.
"""

from __future__ import annotations

import itertools
import queue
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fmnist_exp.errors import WorkError

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = 60  # seconds without an answer after which a worker takes its driver for dead
STOP: Mapping[str, Any] = {"stop": True}

Answer = Mapping[str, Any]  # "stop", and whatever the two sides agree on
Hear = Callable[["Message"], Answer | None]


@dataclass(frozen=True)
class Message:
    """What an execution of a job says, or what became of the job: kind `died` (to be retried) or `broken` (not)."""

    job: str
    execution: str
    number: int  # of the questions that the execution has asked so far, this one included
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


class DriverGone(Exception):  # noqa: N818 — no error of the job
    """Nobody answers: the driver is dead, and nobody wants the job's result."""


class Line:
    """A job's line to its driver, on a worker."""

    def __init__(self, session: str, job: str) -> None:
        from distributed import get_client, get_worker

        self._worker = get_worker()
        self.place = str(self._worker.name)  # where the job runs, the same after its process was replaced
        self.address = str(self._worker.address)
        self._client = get_client()
        self._session = session
        self._job = job
        self._execution = uuid.uuid4().hex
        self._asked = 0

    def say(self, kind: str, **body: Any) -> None:
        """Tell the driver; `body` holds plain numbers, texts, lists and dicts."""
        content = {"job": self._job, "execution": self._execution, "number": self._asked, "kind": kind, "body": body}
        self._worker.log_event(self._session, {"message": content})  # Dask adds keys of its own

    def ask(self, kind: str, **body: Any) -> Answer:
        """Tell the driver and wait for its answer. Raises DriverGone."""
        from distributed import Variable

        self._asked += 1
        self.say(kind, **body)
        answer = Variable(_address(self._execution, self._asked), client=self._client)
        try:
            found: Answer = answer.get(timeout=PATIENCE)
        except (TimeoutError, OSError) as error:
            raise DriverGone from error
        answer.delete()
        return found


class Cluster:
    """Workers that run one job each at a time. `limit`: jobs at once, or None for one per worker that is there."""

    def __init__(self, client: Client, limit: int | None) -> None:
        self._client = client
        self._limit = limit
        self._session = f"fmnist_exp-{uuid.uuid4().hex}"
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._jobs: dict[str, Future[Any]] = {}
        self._last: dict[str, Message] = {}  # job → the latest message of its latest execution
        self._counter = itertools.count()
        client.subscribe_topic(self._session, lambda event: self._inbox.put(Message(**event[1]["message"])))

    @property
    def size(self) -> int:
        """How many jobs may run at once."""
        return self._limit or max(1, len(self.hosts()))

    def hosts(self) -> dict[str, str]:
        """Each worker's address with its host."""
        self._check_scheduler()
        return {address: worker["host"] for address, worker in self._client.scheduler_info()["workers"].items()}

    def start(self, job: str, function: Callable[..., None], argument: Any) -> None:
        """Have a worker call function(argument, line)."""
        self._check_scheduler()
        key = f"{self._session}-{job}-{next(self._counter)}"
        future = self._client.submit(_execute, self._session, job, function, argument, key=key, pure=False)
        self._jobs[job] = future
        future.add_done_callback(lambda done: self._inbox.put(Message(job, "", 0, "over", {"key": done.key})))

    def work(self, hear: Hear, seconds: float) -> None:
        """Wait for the next message, `seconds` at most, let `hear` answer it, and pass the answer on."""
        try:
            message = self._inbox.get(timeout=seconds)
        except queue.Empty:
            self._check_scheduler()
            return
        if message.kind == "over":
            ended = self._end_of(message)
            if ended:
                hear(ended)
            return
        if message.job in self._jobs:
            self._last[message.job] = message
        answer = hear(message)
        if answer is not None:
            self._answer(message.execution, message.number, answer)

    def drop(self, job: str) -> None:
        """Forget a job: it ended, or nobody wants it any more. Its execution hears STOP when it asks next."""
        future, last = self._jobs.pop(job, None), self._last.pop(job, None)
        with suppress(Exception):  # the scheduler may be gone
            if future is not None and not future.done():
                future.cancel()
                if last is not None:
                    self._answer(last.execution, last.number + 1, STOP)

    def survey(self, function: Callable[..., str], argument: Any) -> dict[str, str]:
        """Call function(argument) on every worker: worker's address → what it returned, or its error."""
        found = self._client.run(function, argument, on_error="return")
        return {address: result if isinstance(result, str) else _error(result) for address, result in found.items()}

    def threads(self) -> dict[str, int]:
        """Each worker's address with the jobs that it would run at once."""
        return dict(self._client.nthreads())

    def _answer(self, execution: str, number: int, answer: Answer) -> None:
        from distributed import Variable

        Variable(_address(execution, number), client=self._client).set(dict(answer))

    def _end_of(self, message: Message) -> Message | None:
        """What the end of a job means, if the job is still wanted: its own last message would have come before."""
        future = self._jobs.get(message.job)
        if future is None or future.key != message.body["key"]:
            return None
        from distributed import KilledWorker

        error = future.exception() if future.status == "error" else None
        broken = error is not None and not isinstance(error, KilledWorker)
        reason = _error(error) if error is not None and broken else ""
        return Message(message.job, "", 0, "broken" if broken else "died", {"reason": reason})

    def _check_scheduler(self) -> None:
        if self._client.status != "running" and self._client.status != "connecting":
            raise WorkError("the Dask scheduler is gone; the same command goes on with the study")


def _execute(session: str, job: str, function: Callable[..., None], argument: Any) -> None:
    with suppress(DriverGone):
        function(argument, Line(session, job))


def _address(execution: str, number: int) -> str:
    return f"{execution}-{number}"


def _error(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
