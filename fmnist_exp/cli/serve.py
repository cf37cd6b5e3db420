"""The entry point serve."""

from __future__ import annotations

import gc
import ipaddress
from typing import TYPE_CHECKING

import click

from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    from fmnist_exp.serving.hosts import Hosts
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
@click.option(
    "--allowed-hosts",
    default="",
    metavar="NAMES",
    help="More names of this server, separated by commas, for example fashion.example.org; requests whose Host is"
    " another name are refused, except localhost and the address of the connection.",
)
def serve(model: str, port: int, host: str, allowed_hosts: str) -> None:
    """Serve a version over HTTP like MLflow's scoring server, with a page to try it."""
    gc.disable()  # all that is imported from here on lives as long as the server, so it holds no garbage
    from fmnist_exp.serving import limits, server

    names = hosts_named(allowed_hosts)
    bound = server.listen(host, port)
    address, number = bound.getsockname()[:2]
    if warning := open_to_others(address):
        click.echo(warning, err=True)

    def ready(served: ServedModel) -> None:
        gc.freeze()
        gc.enable()
        shown = f"[{address}]" if ":" in address else address
        click.echo(f"{served.name}: http://{shown}:{number} (a page to try it; Ctrl-C stops)")

    try:
        server.serve(lambda: load(model), bound, limits.Limits(), names, ready)
    except KeyboardInterrupt:  # the usual end of a server
        click.echo("stopped")


def open_to_others(address: str) -> str | None:
    """Return a warning if other machines can reach a server at this address."""
    if ipaddress.ip_address(address).is_loopback:
        return None
    return (
        f"warning: the server listens on {address} without authentication, so everyone who can reach it can use the"
        " model; put a reverse proxy in front of it (docs/how-to/serve-a-model.md)"
    )


def hosts_named(names: str) -> Hosts:
    """Return the names of the server from --allowed-hosts. Raises RequestError if one of them is no host name."""
    from fmnist_exp.serving.hosts import Hosts

    try:
        return Hosts(name.strip() for name in names.split(",") if name.strip())
    except ValueError as error:
        raise RequestError(f"--allowed-hosts: {error}") from error


def load(uri: str) -> ServedModel:
    """Return the model of a version, with verified files. Raises RequestError or WorkError.

    The imports take a second, and the server listens before they are done.
    """
    from fmnist_exp.export import signing
    from fmnist_exp.registry import versions
    from fmnist_exp.serving.model import ServedModel
    from fmnist_exp.tracking import store

    signing.check()
    client = store.connect()
    version = versions.find_uri(client, uri)
    with versions.opened(client, version) as copy:
        return ServedModel(copy.folder, f"{version.name} version {version.version}")


COMMANDS = (serve,)
