"""The private APIs of uvicorn and h11, which parse HTTP for our server."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fmnist_exp.compat.finding import attribute, find

if TYPE_CHECKING:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol


def http_protocol() -> type[H11Protocol]:
    """Return uvicorn's class of HTTP connections, for use as a base class."""
    found: type[H11Protocol] = find("uvicorn", "uvicorn.protocols.http.h11_impl", "H11Protocol")
    own = ("connection_made", "data_received", "on_response_complete", "connection_lost", "send_400_response")
    for method in own:
        attribute("uvicorn", found, method)
    return found


def check_heads(connection: h11.Connection, accept: Callable[[bytes], bool]) -> None:
    """Let an HTTP connection refuse each head of a request, and each end of a chunked one, that `accept` refuses."""
    attribute("h11", connection, "_receive_buffer")
    connection._receive_buffer = _checked_buffer()(accept)


@functools.cache
def _checked_buffer() -> Any:
    buffer = find("h11", "h11._receivebuffer", "ReceiveBuffer")
    error = importlib.import_module("h11").LocalProtocolError
    for method in ("maybe_extract_lines", "_extract"):
        attribute("h11", buffer, method)

    class CheckedBuffer(buffer):  # type: ignore[misc, valid-type]
        """h11's buffer, which would split a head into lines and forget how they ended."""

        def __init__(self, accept: Callable[[bytes], bool]) -> None:
            super().__init__()
            self.accept = accept
            self.extracted = b""

        def _extract(self, count: int) -> bytearray:
            found: bytearray = super()._extract(count)
            self.extracted = found  # type: ignore[assignment]
            return found

        def maybe_extract_lines(self) -> list[bytearray] | None:
            lines: list[bytearray] | None = super().maybe_extract_lines()
            if lines is not None and not self.accept(bytes(self.extracted)):
                raise error("the head of the request is not well-formed")
            return lines

    return CheckedBuffer
