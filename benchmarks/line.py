"""A line to an HTTP server that can fail: a proxy that refuses, delays, cuts, loses or repeats calls.

    with Line("http://127.0.0.1:5000", seed=1) as line:
        rule = line.inject(Fault.DROP, "POST .*/runs/create")  # the server makes the run, the client gets no answer
        ...  # clients use line.url
        assert rule.happened.wait(30)
        line.close()  # connections are refused from now on, at the same port
        line.open()

One request travels on each connection to the server, so that the server sees nothing of what the line does to clients.
"""

from __future__ import annotations

import contextlib
import enum
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from benchmarks.calls import Answer, Request, read

KEPT = 10_000  # calls of which the line keeps a record
BODY_BYTES = 2**14  # of each that the record keeps
ANSWER_SECONDS = 300.0  # that the server may take for one answer


class Fault(enum.Enum):
    """A fault that can happen to a call. The last five happen after the server has taken the call."""

    RESET = "the connection is reset before the call reaches the server"
    HANG = "nothing reaches the server, and no answer comes"
    DELAY = "the call is late"
    LOSE_REQUEST = "the server gets half of the call's body"
    UNAVAILABLE = "the line answers 503 itself"
    DROP = "the answer is lost"
    SILENT = "no answer comes, and the connection stays open"
    CUT = "half of the answer's body arrives"
    TWICE = "the server gets the call twice"
    GATEWAY = "the line answers 502 in place of the server"


@dataclass
class Rule:
    """The calls that a fault happens to. `happened` is set when it has happened to the last of them."""

    fault: Fault
    pattern: re.Pattern[str]  # searched in "METHOD /path?query"
    skip: int = 0  # calls that pass first
    times: int | None = 1  # calls that the fault happens to; None: all
    seconds: float = 0.0  # of DELAY, HANG and SILENT; 0 lets these two last until the line ends
    met: int = 0
    happened: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Exchange:
    """One call, as the line saw it end."""

    number: int  # by the time at which the call came, counted from 1
    call: str  # "METHOD /path?query"
    body: bytes  # its beginning
    fault: Fault | None
    status: int  # of the server's answer; 0 if there was none
    at: float  # time of the call's end, by time.monotonic


class Line:
    """The line. It listens on 127.0.0.1 until its block ends; `close` and `open` keep the port."""

    def __init__(self, server: str, seed: int = 0) -> None:
        address = urlsplit(server)
        self.server = address.hostname or "", address.port or 80
        self.port = 0
        self.record: deque[Exchange] = deque(maxlen=KEPT)
        self.counts: Counter[Fault | None] = Counter()  # calls by what happened to them
        self._random = random.Random(seed)
        self._rules: list[Rule] = []
        self._weather: tuple[float, Sequence[Fault], re.Pattern[str], float] | None = None
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._listener: socket.socket | None = None
        self._clients: set[socket.socket] = set()
        self._calls = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.close()

    def open(self) -> None:
        """Listen, at the port of before."""
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and reset those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        with self._guard:
            clients = list(self._clients)
        for client in clients:
            _reset(client)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Refuse connections during the block."""
        self.close()
        try:
            yield
        finally:
            self.open()

    def inject(self, fault: Fault, pattern: str, skip: int = 0, times: int | None = 1, seconds: float = 0.0) -> Rule:
        """Let a fault happen to calls whose "METHOD /path?query" matches the pattern. The oldest rule comes first."""
        rule = Rule(fault, re.compile(pattern), skip, times, seconds)
        with self._guard:
            self._rules.append(rule)
        return rule

    def weather(
        self, chance: float, faults: Sequence[Fault], pattern: str = "", seconds: float = 1.0, seed: int | None = None
    ) -> None:
        """Let one of these faults happen to a call by chance, unless a rule takes the call. A chance of 0 ends it."""
        with self._guard:
            if seed is not None:
                self._random.seed(seed)
            self._weather = (chance, tuple(faults), re.compile(pattern), seconds)

    def clear(self) -> None:
        """Forget all rules and the weather."""
        with self._guard:
            self._rules, self._weather = [], None

    def calls(self, pattern: str) -> list[Exchange]:
        """Return what the record has of calls in which the pattern is found."""
        with self._guard:
            return [exchange for exchange in self.record if re.search(pattern, exchange.call)]

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the line was closed
            while True:
                client, _ = listener.accept()
                with self._guard:
                    self._clients.add(client)
                threading.Thread(target=self._serve, args=[client], daemon=True).start()
                if self._listener is not listener:
                    _reset(client)

    def _serve(self, client: socket.socket) -> None:
        """Carry the calls of one connection until one of the two ends it or a fault does."""
        try:
            with (
                client,
                client.makefile("rb") as stream,
                contextlib.suppress(OSError, ValueError, http.client.HTTPException),
            ):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while (request := read(stream)) and self._carry(client, request):
                    pass
        finally:
            with self._guard:
                self._clients.discard(client)

    def _carry(self, client: socket.socket, request: Request) -> bool:
        """Carry one call and its answer. Return True if the connection is still good."""
        with self._guard:
            self._calls += 1
            number = self._calls
            fault, seconds, rule = self._choose(request.call)
        answer: Answer | None = None
        try:
            if fault is Fault.DELAY:
                self._over.wait(seconds)
            if fault not in (Fault.RESET, Fault.HANG, Fault.UNAVAILABLE):
                answer = self._ask(request, 0.5 if fault is Fault.LOSE_REQUEST else 1)
            if fault is Fault.TWICE:
                answer = self._ask(request)
        finally:
            status = answer.status if answer else 0
            with self._guard:
                body, now = request.body[:BODY_BYTES], time.monotonic()
                self.record.append(Exchange(number, request.call, body, fault, status, now))
                self.counts[fault] += 1
            if rule is not None and rule.times is not None and rule.met == rule.skip + rule.times:
                rule.happened.set()
        return self._reply(client, request, answer, fault, seconds)

    def _choose(self, call: str) -> tuple[Fault | None, float, Rule | None]:
        for rule in self._rules:
            if (rule.times is None or rule.met < rule.skip + rule.times) and rule.pattern.search(call):
                rule.met += 1
                if rule.met > rule.skip:
                    return rule.fault, rule.seconds, rule
        if self._weather and self._weather[2].search(call) and self._random.random() < self._weather[0]:
            return self._random.choice(self._weather[1]), self._weather[3], None
        return None, 0.0, None

    def _reply(
        self, client: socket.socket, request: Request, answer: Answer | None, fault: Fault | None, seconds: float
    ) -> bool:
        if fault is Fault.UNAVAILABLE:
            answer = Answer(503, "Service Unavailable", [], b"<h1>the server is busy</h1>")
        elif fault is Fault.GATEWAY:
            answer = Answer(502, "Bad Gateway", [], b"<h1>the server did not answer</h1>")
        elif fault in (Fault.HANG, Fault.SILENT):
            self._over.wait(seconds or None)
        if answer is None or fault in (Fault.DROP, Fault.SILENT):
            _reset(client)
            return False
        if fault is Fault.CUT:
            client.sendall(answer.head() + answer.body[: len(answer.body) // 2])
            client.shutdown(socket.SHUT_RDWR)
            return False
        client.sendall(answer.head() + (b"" if request.call.startswith("HEAD ") else answer.body))
        return True

    def _ask(self, request: Request, share: float = 1.0) -> Answer:
        """Return the answer of the server to a call, of whose body it gets this share."""
        with socket.create_connection(self.server, timeout=ANSWER_SECONDS) as server:
            server.sendall(request.head(*self.server) + request.body[: int(len(request.body) * share)])
            if share < 1:
                raise ConnectionAbortedError("the rest of the call is lost")
            found = http.client.HTTPResponse(server, method=request.call.split(" ")[0])
            found.begin()
            return Answer(found.status, found.reason, found.getheaders(), found.read())


def _reset(client: socket.socket) -> None:
    """End a connection at once, as when the process or the machine at its other end is gone."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RDWR)
