"""The ASGI types that this server uses, and a function that sends a complete response."""

from collections.abc import Awaitable, Callable
from typing import TypedDict

Headers = list[tuple[bytes, bytes]]


class Scope(TypedDict):
    """One HTTP request, without its body."""

    method: str
    path: str
    headers: Headers


class Message(TypedDict, total=False):
    """One event of a request or of its answer; which keys it has depends on its type."""

    type: str
    status: int
    headers: Headers
    body: bytes
    more_body: bool


Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a complete response: status, headers and body."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
