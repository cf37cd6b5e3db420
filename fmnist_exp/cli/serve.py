"""The entry point serve."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fmnist_exp.serving.model import ServedModel

LOOPBACK = "127.0.0.1"


@click.command("serve")
@click.option(
    "--model",
    default="models:/fashion-mnist@champion",
    show_default=True,
    help="A registered version: models:/fashion-mnist@ALIAS or models:/fashion-mnist/VERSION.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Address to listen on; 0.0.0.0 opens it to the network."
)
def serve(model: str, port: int, host: str) -> None:
    """Serve a version over HTTP like MLflow's scoring server, with a page to try it."""
    gc.disable()  # all that is imported from here on lives as long as the server, so it holds no garbage
    from fmnist_exp.serving import limits, server

    bound = server.listen(host, port)
    address, number = bound.getsockname()[:2]

    def ready(served: ServedModel) -> None:
        gc.freeze()
        gc.enable()
        shown = f"[{address}]" if ":" in address else address
        click.echo(f"{served.name}: http://{shown}:{number} (a page to try it; Ctrl-C stops)")

    try:
        server.serve(lambda: load(model), bound, limits.Limits(), ready)
    except KeyboardInterrupt:  # the usual end of a server
        click.echo("stopped")


def load(uri: str) -> ServedModel:
    """Return the model of a version, with verified files. Raises RequestError or WorkError.

    The imports take a second, and the server listens before they are done.
    """
    from fmnist_exp.registry import versions
    from fmnist_exp.serving.model import ServedModel
    from fmnist_exp.tracking import store

    version = versions.find_uri(store.connect(), uri)
    return ServedModel(versions.files(version), f"{version.name} version {version.version}")


COMMANDS = (serve,)
