"""The only package that imports Dask: jobs run in worker processes, here or on a cluster, and talk with their driver.

A job may run more than once, since Dask starts it again elsewhere when its worker dies. Each execution has a name of
its own, which all its messages carry, so that the driver can tell them apart. Messages go to the driver through the
scheduler's events, answers come back through its variables: the driver waits for no worker, only for the scheduler.
"""

from __future__ import annotations

import itertools
import queue
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fmnist_exp import compat
from fmnist_exp.errors import WorkError

if TYPE_CHECKING:
    from distributed import Client, Future

# Seconds without an answer after which a worker takes its driver for dead; MLflow's client, for which the driver may be
# waiting, gives up after some 20 minutes. A driver that died is noticed sooner: its scheduler drops its jobs.
PATIENCE = 1800
LOOK_SECONDS = 2  # between two looks whether a job is still wanted
HOSTS_SECONDS = 1  # for which the list of workers is taken for true
STOP: Mapping[str, Any] = {"stop": True}  # end as after the last epoch
GONE: Mapping[str, Any] = {"stop": True, "gone": True}  # nobody wants the result

LOST = "the Dask scheduler is gone, or was started anew"

Answer = Mapping[str, Any]  # "stop", and whatever the two sides agree on
Report = dict[str, str]  # worker's address → what it said
Hear = Callable[["Message"], Answer | None]


@dataclass(frozen=True)
class Message:
    """What an execution of a job says, or what became of the job.

    That is kind `died` (its worker did), `left` (its worker lost touch with the driver), or `broken` (not to be tried
    again).
    """

    job: str
    execution: str
    number: int  # of the questions that the execution has asked so far, this one included
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)
    asks: bool = False  # whether the execution waits for an answer


class DriverGone(Exception):  # noqa: N818 — no error of the job
    """Nobody wants the job's result, or nobody answers."""


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
        self._key = self._worker.get_current_task()
        self._execution = uuid.uuid4().hex
        self._asked = 0

    def say(self, kind: str, **body: Any) -> None:
        """Tell the driver; `body` holds plain numbers, texts, lists and dicts."""
        self._send(kind, body, asks=False)

    def ask(self, kind: str, **body: Any) -> Answer:
        """Tell the driver and wait for its answer. Raises DriverGone."""
        from distributed import Variable

        self._asked += 1
        self._send(kind, body, asks=True)
        answer = Variable(_address(self._execution, self._asked), client=self._client)
        deadline = time.monotonic() + PATIENCE
        while self._is_wanted() and time.monotonic() < deadline:
            try:
                found: Answer = answer.get(timeout=LOOK_SECONDS)
            except TimeoutError:
                continue
            except OSError as error:
                raise DriverGone from error
            answer.delete()
            return found
        raise DriverGone

    def _send(self, kind: str, body: Mapping[str, Any], *, asks: bool) -> None:
        content = {"job": self._job, "execution": self._execution, "number": self._asked, "kind": kind, "body": body}
        self._worker.log_event(self._session, {"message": {**content, "asks": asks}})  # Dask adds keys of its own

    def _is_wanted(self) -> bool:
        """Whether Dask still wants this job here; it does not after `drop`, nor when the driver's connection ends."""
        task = self._worker.state.tasks.get(self._key)
        return task is not None and task.state != "cancelled"


class Cluster:
    """Workers that run one job each at a time. `limit`: jobs at once, or None for one per worker that is there."""

    def __init__(self, client: Client, limit: int | None) -> None:
        self._client = client
        self._limit = limit
        self._session = f"fmnist_exp-{uuid.uuid4().hex}"
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._jobs: dict[str, Future[Any]] = {}
        self._hosts: dict[str, str] = {}
        self._hosts_until = 0.0
        self._unread: dict[str, str] = {}  # execution → the address of an answer that it may not have read
        self._counter = itertools.count()
        client.subscribe_topic(self._session, lambda event: self._inbox.put(Message(**event[1]["message"])))

    @property
    def size(self) -> int:
        """How many jobs may run at once."""
        return self._limit or max(1, len(self.hosts()))

    def hosts(self) -> dict[str, str]:
        """Each worker's address with its host."""
        self._check_scheduler()
        if time.monotonic() > self._hosts_until:
            # `scheduler_info` reads a copy that the client renews in the background, without the workers
            workers = compat.dask_workers(self._client)
            self._hosts = {address: worker["host"] for address, worker in workers.items()}
            self._hosts_until = time.monotonic() + HOSTS_SECONDS
        return self._hosts

    def start(self, job: str, function: Callable[..., None], argument: Any) -> None:
        """Have a worker call function(argument, line)."""
        self._check_scheduler()
        key = f"{self._session}-{job}-{next(self._counter)}"
        future = self._client.submit(_execute, self._session, job, function, argument, key=key, pure=False)
        self._jobs[job] = future
        future.add_done_callback(lambda done: self._inbox.put(Message(job, "", 0, "over", {"key": done.key})))

    def work(self, hear: Hear, seconds: float) -> None:
        """Wait for the next message, `seconds` at most; let `hear` answer all that are there, and pass the answers on.

        Raises WorkError: the scheduler is gone, or has forgotten the jobs.
        """
        try:
            messages = [self._inbox.get(timeout=seconds)]
        except queue.Empty:
            self._check_scheduler()
            return
        while messages:
            self._pass_on(messages.pop(), hear)
            with suppress(queue.Empty):
                messages.append(self._inbox.get_nowait())

    def drop(self, job: str) -> None:
        """Forget a job: it ended, or nobody wants it any more. Its execution notices when it asks next."""
        future = self._jobs.pop(job, None)
        with suppress(Exception):  # the scheduler may be gone
            if future is not None and not future.done():
                future.cancel()

    def close(self) -> None:
        """Have the scheduler forget the answers that nobody has read: those to executions that died."""
        from distributed import Variable

        with suppress(Exception):  # the scheduler may be gone
            for address in self._unread.values():
                Variable(address, client=self._client).delete()
        self._unread.clear()

    def survey(self, function: Callable[..., str], *arguments: Any, workers: Iterable[str] | None = None) -> Report:
        """Call the function on every worker, or on these: worker's address → what it returned, or its error."""
        chosen = None if workers is None else list(workers)
        found = self._client.run(function, *arguments, workers=chosen, on_error="return")
        return {address: result if isinstance(result, str) else _error(result) for address, result in found.items()}

    def threads(self) -> dict[str, int]:
        """Each worker's address with the jobs that it would run at once."""
        return dict(self._client.nthreads())

    def _pass_on(self, message: Message, hear: Hear) -> None:
        if message.kind == "over":
            ended = self._end_of(message)
            if ended:
                hear(ended)
            return
        answer = hear(message)
        if not message.asks:
            self._unread.pop(message.execution, None)  # it goes on, so it has read what it asked for
        elif answer is not None:
            self._answer(message, answer)

    def _answer(self, message: Message, answer: Answer) -> None:
        from distributed import Variable

        address = _address(message.execution, message.number)
        self._unread[message.execution] = address
        Variable(address, client=self._client).set(dict(answer))

    def _end_of(self, message: Message) -> Message | None:
        """What the end of a job means, if the job is still wanted: its own last message would have come before."""
        future = self._jobs.get(message.job)
        if future is None or future.key != message.body["key"]:
            return None
        from distributed import KilledWorker

        if future.status == "cancelled":  # not by `drop`
            raise WorkError(LOST)
        if future.status == "finished":
            return Message(message.job, "", 0, "left")
        error = future.exception() if future.status == "error" else None
        broken = error is not None and not isinstance(error, KilledWorker)
        reason = _error(error) if error is not None and broken else ""
        return Message(message.job, "", 0, "broken" if broken else "died", {"reason": reason})

    def _check_scheduler(self) -> None:
        if self._client.status != "running" and self._client.status != "connecting":
            raise WorkError(LOST)


def _execute(session: str, job: str, function: Callable[..., None], argument: Any) -> None:
    with suppress(DriverGone):
        function(argument, Line(session, job))


def _address(execution: str, number: int) -> str:
    return f"{execution}-{number}"


def _error(error: BaseException) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
