"""The application run by uvicorn: it listens at once, loads the model meanwhile and stops gracefully."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from fmnist_exp import compat
from fmnist_exp.errors import RequestError
from fmnist_exp.serving.app import Application
from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.model import ServedModel


def listen(host: str, port: int) -> socket.socket:
    """Return a socket bound to host and port; port 0 selects a free one. Raises RequestError if that fails."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, proto)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
    return bound


def serve(
    load: Callable[[], ServedModel], bound: socket.socket, limits: Limits, ready: Callable[[ServedModel], None]
) -> None:
    """Serve on the socket from `listen` until SIGINT or SIGTERM.

    `load` returns the model. It runs in a thread while the server answers 503; if it raises an error, the server ends.
    `ready` is called with the warm model.
    """
    asyncio.run(run(uvicorn_server(limits), load, bound, ready))


def uvicorn_server(limits: Limits) -> uvicorn.Server:
    """Return a uvicorn server around an application that has no model yet."""
    config = uvicorn.Config(
        Application(limits),
        http=_connection_class(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(limits.stop),
    )
    return uvicorn.Server(config)


async def run(
    server: uvicorn.Server, load: Callable[[], ServedModel], bound: socket.socket, ready: Callable[[ServedModel], None]
) -> None:
    """Serve in the caller's event loop; the arguments are those of `serve`."""
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        model = await asyncio.to_thread(load)
        server.config.app.start(model)  # type: ignore[union-attr]
        ready(model)
    except BaseException:
        server.should_exit = True
        await serving
        raise
    await serving


def _connection_class(limits: Limits) -> type[asyncio.Protocol]:
    class Connection(compat.http_protocol()):  # type: ignore[misc]
        """uvicorn's connection with a time limit for a request's headers, which uvicorn itself does not have."""

        patience: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            self._wait()
            super().on_response_complete()
            if self.cycle is not None and not self.cycle.response_complete:  # a request that was sent early
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._stop_waiting()
            self.patience = self.loop.call_later(limits.head, self.transport.close)

        def _stop_waiting(self) -> None:
            if self.patience is not None:
                self.patience.cancel()
                self.patience = None

    return Connection
