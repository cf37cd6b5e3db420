"""The limits of the server: the size of a request, the number of requests at a time, and waiting times."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

from fmnist_exp.serving.asgi import Receive
from fmnist_exp.serving.protocol import RefusedError


@dataclass(frozen=True)
class Limits:
    """The limits of a server. Memory is bounded by `requests` × `body`, since one body at a time is parsed."""

    body: int = 16 * 2**20  # bytes; 10,000 images as compact JSON need 16 MB and more
    images: int = 10_000  # in one request
    requests: int = 32  # at a time, the one that is computed included
    head: float = 10.0  # seconds from the connection, or the last answer, to the end of a request's headers
    arrival: float = 10.0  # seconds for a body
    answer: float = 60.0  # seconds from the end of the body to the answer
    stop: float = 10.0  # seconds for the requests that are being answered when the server is stopped


class RequestSlots:
    """A fixed number of slots for requests at a time. A request that finds no free slot is refused."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.taken = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold a slot during the block. Raises RefusedError if all are taken."""
        if self.taken >= self.number:
            sentence = f"The server is busy with {self.number} requests; try again in a second."
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, sentence, retry_after=1)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limits: Limits) -> bytes:
    """Return the body of a request. Raises RefusedError if it is too large or too slow, or ClientGoneError."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limits.body:
        raise _too_large(limits)
    try:
        return await asyncio.wait_for(_collect(receive, limits), limits.arrival)
    except TimeoutError as error:
        sentence = f"The body did not arrive within {limits.arrival:g} seconds."
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, sentence) from error


async def _collect(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body:  # a chunked body says no length
            raise _too_large(limits)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limits: Limits) -> RefusedError:
    sentence = f"The body must have at most {limits.body // 2**20} MiB; send the images in several requests."
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence)
