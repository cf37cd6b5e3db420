"""The names under which the server answers, so that a page of another site cannot reach it through a browser.

An attacker's site can let its own name point to 127.0.0.1 once its page is loaded (DNS rebinding). The browser then
takes this server for a part of that site, but it still sends the site's name as Host.
"""

import functools
import ipaddress
import re
from collections.abc import Iterable
from http import HTTPStatus

from fmnist_exp.serving.asgi import Scope
from fmnist_exp.serving.protocol import RefusedError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]*)?")
READING = ("GET", "HEAD")
WRONG_HOST = "The server does not answer under the name in the Host header; its option --allowed-hosts adds names."
WRONG_ORIGIN = "A page of another site sent the request; the server's option --allowed-hosts adds names of its own."


class Hosts:
    """The names of a server: those of the loopback interface, the address of each connection, and the given names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Add `names` to the names of the server. Raises ValueError if one of them is no host name or address."""
        self.names = frozenset(map(_plain, names))

    def check(self, scope: Scope) -> None:
        """Raise RefusedError if a request asks for another host, or if a page of another site sent it.

        The address at which a connection arrived is a name of the server: no site can let a browser send an address
        as Host without a connection to it, and the probes of Kubernetes use the address of the pod.
        """
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"")
        name = _name(host)
        if name is None or not (name in LOOPBACK or name in self.names or name == _address(scope["server"])):
            raise RefusedError(HTTPStatus.FORBIDDEN, WRONG_HOST)
        origin = headers.get(b"origin")
        if origin is None or scope["method"] in READING:
            return
        site = origin.partition(b"://")[2]
        if site.lower() != host.lower() and _name(site) not in self.names:  # a proxy may have changed the Host
            raise RefusedError(HTTPStatus.FORBIDDEN, WRONG_ORIGIN)


def _plain(name: str) -> str:
    found = _name((f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name).encode())
    if found is None or name.rpartition("]")[2].count(":") == 1:
        raise ValueError(f"{name!r} is not a host name or an address without scheme and port")
    return found


@functools.lru_cache(256)
def _name(host: bytes) -> str | None:
    """Return the name or address in a Host header without its port, or None if the header is malformed."""
    match = HOST.fullmatch(host.decode("latin-1").lower())
    if match is None:
        return None
    if match["address"]:
        try:
            return _address((match["address"], 0))
        except ValueError:
            return None
    return match["name"].rstrip(".")


@functools.lru_cache(256)
def _address(server: tuple[str, int] | None) -> str | None:
    """Return the address of a socket in its shortest form; an IPv4 address in IPv6 becomes plain IPv4."""
    if server is None:
        return None
    address = ipaddress.ip_address(server[0])
    return str(getattr(address, "ipv4_mapped", None) or address).partition("%")[0]
