"""HTTP calls and answers as bytes, for the line of benchmarks/line.py."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "expect"}


@dataclass(frozen=True)
class Request:
    """A call as it came from the client."""

    call: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def head(self, host: str, port: int) -> bytes:
        return _head([f"{self.call} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"], self.headers, self.body)


@dataclass(frozen=True)
class Answer:
    """An answer as it goes to the client."""

    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def head(self) -> bytes:
        return _head([f"HTTP/1.1 {self.status} {self.reason}"], self.headers, self.body)


def read(stream: BinaryIO) -> Request | None:
    """Return the next call of a connection, or None at its end."""
    words = stream.readline(65536).decode("latin-1").split()
    if len(words) != 3:
        return None
    headers = http.client.parse_headers(stream)
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        body = b""
        while size := int(stream.readline(1024).split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
    else:
        size = int(headers.get("Content-Length", 0))
        body = stream.read(size)
        if len(body) < size:  # the client is gone
            return None
    return Request(f"{words[0]} {words[1]}", headers.items(), body)


def _head(first: list[str], headers: Sequence[tuple[str, str]], body: bytes) -> bytes:
    kept = [f"{name}: {value}" for name, value in headers if name.lower() not in HOP_BY_HOP]
    return "\r\n".join([*first, *kept, f"Content-Length: {len(body)}", "", ""]).encode("latin-1")
