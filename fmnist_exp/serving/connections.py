"""The connections of the server: how many there may be, how long each may wait, and which requests are well-formed.

A client that sends nothing, or a byte from time to time, costs a connection. Once a limit is reached, a new connection
takes the place of the one that has been waiting for its client longest, so slow clients cannot shut out others.
"""

import asyncio
import ipaddress
import re
import socket
from collections import Counter
from contextlib import suppress
from http import HTTPStatus

import h11

from fmnist_exp.compat import http
from fmnist_exp.serving import asgi
from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.protocol import RefusedError

BURST = 16  # connections that are accepted before the event loop looks at them
RESERVED = 64  # file descriptors for everything but connections
FRAMING = re.compile(rb"^(content-length|transfer-encoding|host)[ \t]*:", re.IGNORECASE | re.MULTILINE)
BAD_LINES = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]")  # ended by a bare LF or CR, or folded
OTHER_VERSION = re.compile(rb"[^\r]* HTTP/(?!1\.[01]\r)")
OLD_VERSION = re.compile(rb"[^\r]* HTTP/1\.0\r")


class Connections:
    """The open connections of a server, and those of them that wait for their clients."""

    def __init__(self, limits: Limits) -> None:
        descriptors = raise_descriptor_limit(limits)
        # the descriptor of a dropped connection is closed by the event loop a moment later, hence the half
        self.limit = min(limits.connections, max(descriptors - RESERVED, 8) // 2)
        self.limit_each = min(limits.address, 3 * self.limit // 4)
        self._of: Counter[str] = Counter()  # connections of each client
        self._new: dict[int, tuple[socket.socket, str]] = {}  # accepted, without a transport; by file descriptor
        self._clients: dict[asyncio.Transport, str] = {}
        self._waiting: dict[asyncio.Transport, None] = {}  # the oldest first

    @property
    def number(self) -> int:
        """The number of open connections."""
        return len(self._new) + len(self._clients)

    def many_are_new(self) -> bool:
        """Return whether the event loop has not yet looked at many of the connections."""
        if len(self._new) >= BURST:
            failed = [number for number, (accepted, _) in self._new.items() if accepted.fileno() < 0]
            for number in failed:
                self._forget(self._new.pop(number)[1])
        return len(self._new) >= BURST

    def admit(self, accepted: socket.socket, address: str) -> bool:
        """Count a connection from this address, and return whether there is a place for it."""
        client = client_of(address)
        if self._of[client] >= self.limit_each:
            admitted = self._drop_oldest(client)
        else:
            admitted = self.number < self.limit or self._drop_oldest(None)
        if admitted:
            self._new[accepted.fileno()] = accepted, client
            self._of[client] += 1
        return admitted

    def enter(self, transport: asyncio.Transport) -> None:
        """Note the transport of a connection that was admitted; it waits for its client."""
        self._clients[transport] = self._new.pop(transport.get_extra_info("socket").fileno())[1]
        self.wait(transport)

    def wait(self, transport: asyncio.Transport) -> None:
        """Note that a connection waits for its client: for a request, or until the client has read an answer."""
        if transport in self._clients:
            self._waiting[transport] = None

    def work(self, transport: asyncio.Transport) -> None:
        """Note that a connection has a complete request."""
        self._waiting.pop(transport, None)

    def leave(self, transport: asyncio.Transport) -> None:
        """Note that a connection has ended, or is about to."""
        self._waiting.pop(transport, None)
        client = self._clients.pop(transport, None)
        if client is not None:
            self._forget(client)

    def _forget(self, client: str) -> None:
        self._of[client] -= 1
        if not self._of[client]:
            del self._of[client]

    def _drop_oldest(self, client: str | None) -> bool:
        """Close the connection that has waited longest, of `client` if given; return whether there is one."""
        oldest = next((each for each in self._waiting if client in (None, self._clients[each])), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.abort()
        return True


class Door(socket.socket):
    """A listening socket. A connection for which there is no place is answered with status 503 and closed."""

    connections: Connections

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accept a connection, for asyncio, which ignores the two errors that this method raises.

        Raises BlockingIOError if the event loop has to look at earlier connections first, so that a burst of
        connections does not delay the requests of others, and ConnectionAbortedError if the connection was refused.
        """
        if self.connections.many_are_new():
            raise BlockingIOError
        accepted, address = super().accept()
        if self.connections.admit(accepted, address[0]):
            return accepted, address
        with accepted, suppress(OSError):
            accepted.setblocking(False)
            sentence = "The server has too many connections; try again in a second."
            accepted.send(closing_answer(HTTPStatus.SERVICE_UNAVAILABLE, sentence))
        raise ConnectionAbortedError


def raise_descriptor_limit(limits: Limits) -> int:
    """Let this process open as many files as the limits need, as far as the system allows it, and return the number."""
    wanted = 2 * limits.connections + RESERVED
    try:
        import resource  # Windows has no such module, and no such limit
    except ImportError:
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft


def client_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the network (/64) of an IPv6 address."""
    if ":" not in address:
        return address
    found = ipaddress.IPv6Address(address)
    return str(found.ipv4_mapped or found.exploded[:19])


def well_formed(head: bytes) -> bool:
    """Return whether every server and proxy reads the head of a request, or the end of a chunked one, as this one does.

    Otherwise a request could be hidden from a proxy in the body of another one. h11 would accept bare line feeds,
    folded lines, any version, and a length beside the chunked encoding.
    """
    framing = [name.lower() for name in FRAMING.findall(head)]
    chunked = b"transfer-encoding" in framing
    return not (
        BAD_LINES.search(head)
        or OTHER_VERSION.match(head)
        or len(framing) != len(set(framing))
        or (chunked and (b"content-length" in framing or OLD_VERSION.match(head)))
    )


def closing_answer(status: HTTPStatus, sentence: str) -> bytes:
    """Return a complete answer with one sentence, after which the connection is closed."""
    refused = RefusedError(status, sentence, [(b"connection", b"close"), *asgi.SAFE])
    body = refused.body()
    lines = [f"HTTP/1.1 {int(status)} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in refused.headers]
    lines += [b"content-security-policy: " + asgi.POLICY, b"content-length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


class Connection(http.http_protocol()):  # type: ignore[misc]
    """uvicorn's connection, which waits neither for a request nor for the reading of an answer without a limit."""

    limits: Limits
    open_connections: Connections  # of the server; uvicorn has a set named `connections`
    patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Enter the connection, and wait for its first request."""
        super().connection_made(transport)
        http.check_heads(self.conn, well_formed)
        self.open_connections.enter(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of a request; a complete one ends the waiting."""
        super().data_received(data)
        self._note_request()

    def on_response_complete(self) -> None:
        """Wait until the client has read the answer and sends its next request."""
        self._wait()
        super().on_response_complete()
        self._note_request()  # one that was sent early

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the place of the connection."""
        self._stop_waiting()
        self.open_connections.leave(self.transport)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request with one sentence instead of h11's words, and close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # otherwise the request has its answer already
            sentence = "The request is not valid HTTP/1.1, or its headers are too long."
            self.transport.write(closing_answer(HTTPStatus.BAD_REQUEST, sentence))
        self.transport.close()

    def _note_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            if not self.cycle.more_body:
                self.open_connections.work(self.transport)

    def _wait(self) -> None:
        self.open_connections.wait(self.transport)
        self._stop_waiting()
        self.patience = self.loop.call_later(self.limits.head, self._close)

    def _close(self) -> None:
        self.transport.close()
        self.patience = self.loop.call_later(self.limits.reading, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None


def connection_class(limits: Limits, connections: Connections) -> type[asyncio.Protocol]:
    """Return the class of a server's HTTP connections."""
    return type("Connection", (Connection,), {"limits": limits, "open_connections": connections})
