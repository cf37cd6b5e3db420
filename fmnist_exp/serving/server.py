"""The application run by uvicorn: it listens at once, loads the model meanwhile and stops gracefully."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from fmnist_exp.errors import RequestError
from fmnist_exp.serving.app import Application
from fmnist_exp.serving.connections import Connections, Door, connection_class
from fmnist_exp.serving.hosts import Hosts
from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.model import ServedModel


class Server(uvicorn.Server):
    """uvicorn around an application that has no model yet."""

    def __init__(self, limits: Limits, hosts: Hosts) -> None:
        self.application = Application(limits, hosts)
        self.connections = Connections(limits)
        self.application.counters.connections.set_function(lambda: self.connections.number)
        config = uvicorn.Config(
            self.application,
            http=connection_class(limits, self.connections),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # a malformed request is no reason to write a line
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the address of a client is that of its connection
            timeout_graceful_shutdown=int(limits.stop),
        )
        super().__init__(config)


def listen(host: str, port: int) -> Door:
    """Return a socket bound to host and port; port 0 selects a free one. Raises RequestError if that fails."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = Door(family, kind, proto)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"cannot listen on {host} port {port}: {reason}; choose another --port") from error
    return bound


def serve(
    load: Callable[[], ServedModel], bound: Door, limits: Limits, hosts: Hosts, ready: Callable[[ServedModel], None]
) -> None:
    """Serve on the socket from `listen` until SIGINT or SIGTERM.

    `load` returns the model. It runs in a thread while the server answers 503; if it raises an error, the server ends.
    `ready` is called with the warm model.
    """
    asyncio.run(run(Server(limits, hosts), load, bound, ready))


async def run(
    server: Server, load: Callable[[], ServedModel], bound: Door, ready: Callable[[ServedModel], None]
) -> None:
    """Serve in the caller's event loop; the arguments are those of `serve`."""
    bound.connections = server.connections
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        model = await asyncio.to_thread(load)
        server.application.start(model)
        ready(model)
    except BaseException:
        server.should_exit = True
        await serving
        raise
    await serving
