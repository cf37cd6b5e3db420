"""The ASGI types that this server uses, and a function that sends a complete response."""

from collections.abc import Awaitable, Callable
from typing import TypedDict

Headers = list[tuple[bytes, bytes]]

# Every answer has these. They let a browser neither run, embed nor guess the type of an answer.
SAFE: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
POLICY = b"default-src 'none'; frame-ancestors 'none'"  # the Content-Security-Policy of everything but the page


class Scope(TypedDict):
    """One HTTP request, without its body."""

    method: str
    path: str
    headers: Headers
    server: tuple[str, int] | None  # the address at which the request arrived


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


async def respond(send: Send, status: int, body: bytes, headers: Headers, policy: bytes = POLICY) -> None:
    """Send a complete response: status, headers and body. `policy` is its Content-Security-Policy."""
    own = [(b"content-security-policy", policy), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": int(status), "headers": [*headers, *SAFE, *own]})
    await send({"type": "http.response.body", "body": body})
