"""The limits of the server: the size of requests, the number of requests at a time, and waiting times."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from fmnist_exp.serving.asgi import Receive
from fmnist_exp.serving.protocol import RefusedError


@dataclass(frozen=True)
class Limits:
    """The limits of a server. `bodies` bounds the memory of requests, and one of them at a time is parsed."""

    body: int = 16 * 2**20  # bytes; 10,000 images as compact JSON need 16 MB and more
    bodies: int = 256 * 2**20  # bytes of all bodies together, from their first byte to the answer
    images: int = 10_000  # in one request
    requests: int = 32  # at a time whose body has arrived, the one that is computed included
    connections: int = 2048  # at a time; fewer if the process may not open that many files
    address: int = 1536  # connections from one address at a time
    head: float = 10.0  # seconds from the connection, or the last answer, to the end of a request's headers
    arrival: float = 10.0  # seconds for a body
    answer: float = 60.0  # seconds from the end of the body to the answer
    reading: float = 60.0  # seconds that a closed connection waits for a client that has not read its answer
    stop: float = 10.0  # seconds for the requests that are being answered when the server is stopped


class RequestSlots:
    """A fixed number of slots for requests whose body has arrived. A request that finds no free slot is refused."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a slot during the block. Raises RefusedError if all are taken."""
        if self.taken >= self.number:
            raise _busy(f"The server is busy with {self.number} requests; try again in a second.")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class Bodies:
    """The bodies of all requests. If they need too much memory, the one that has been arriving longest is refused."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.size = 0  # bytes in memory
        self._arriving: dict[asyncio.Timeout, list[bytes]] = {}  # the oldest first

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the body of a request, which counts until it is given to `release`.

        Raises RefusedError if it is too large or too slow, or if its memory is needed; ClientGoneError if it ends.
        """
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.limits.body:
            raise self._too_large()
        parts: list[bytes] = []
        patience = asyncio.timeout(self.limits.arrival)
        try:
            async with patience:
                self._arriving[patience] = parts
                await self._collect(receive, parts, patience)
        except BaseException as error:
            self.size -= sum(map(len, parts))
            if not isinstance(error, TimeoutError):
                raise
            if patience not in self._arriving:
                raise _busy("The server needs its memory for other requests; try again in a second.") from error
            sentence = f"The body did not arrive within {self.limits.arrival:g} seconds."
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, sentence) from error
        finally:
            self._arriving.pop(patience, None)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self, body: bytes) -> None:
        """Give back the memory of a body."""
        self.size -= len(body)

    async def _collect(self, receive: Receive, parts: list[bytes], patience: asyncio.Timeout) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            parts.append(part)
            size += len(part)
            self.size += len(part)
            if size > self.limits.body:  # a chunked body says no length
                raise self._too_large()
            if self.size > self.limits.bodies:
                self._make_room(patience)
            more = message.get("more_body", False)

    def _make_room(self, newest: asyncio.Timeout) -> None:
        while self.size > self.limits.bodies:
            oldest = next(iter(self._arriving), newest)
            if oldest is newest:
                raise _busy("The server needs its memory for other requests; try again in a second.")
            parts = self._arriving.pop(oldest)
            self.size -= sum(map(len, parts))
            parts.clear()
            if not oldest.expired():
                oldest.reschedule(asyncio.get_running_loop().time())

    def _too_large(self) -> RefusedError:
        sentence = f"The body must have at most {self.limits.body // 2**20} MiB; send the images in several requests."
        return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)


def _busy(sentence: str) -> RefusedError:
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, sentence, [(b"retry-after", b"1")])
