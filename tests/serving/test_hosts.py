"""The names under which the server answers."""

import pytest
import requests
from click.testing import CliRunner
from support.servers import IMAGE, body, in_thread

from fmnist_exp.cli.serve import open_to_others, serve
from fmnist_exp.serving.connections import client_of
from fmnist_exp.serving.hosts import Hosts
from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.protocol import RefusedError


def request(host: str, origin: str | None = None, server: str = "127.0.0.1", method: str = "POST") -> dict[str, object]:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin is not None else [])
    return {"method": method, "path": "/", "headers": headers, "server": (server, 8080)}


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("localhost", "127.0.0.1"),
        ("LOCALHOST:8080", "127.0.0.1"),
        ("localhost.", "127.0.0.1"),
        ("127.0.0.1:1", "10.0.0.7"),
        ("[::1]:8080", "::1"),
        ("[0:0::1]", "::1"),
        ("10.0.0.7:8080", "10.0.0.7"),  # the probe of a pod
        ("10.0.0.7", "::ffff:10.0.0.7"),
        ("[fe80::2]", "fe80::2%eth0"),
        ("fashion.example.org", "10.0.0.7"),
        ("fashion.example.org:443", "10.0.0.7"),
        ("192.168.1.5:8080", "172.17.0.2"),
        ("[2001:db8::1]", "172.17.0.2"),
    ],
)
def test_names_of_the_server(host, server):
    hosts = Hosts(["Fashion.example.org", "192.168.1.5", "2001:DB8:0::1"])
    hosts.check(request(host, server=server))


@pytest.mark.parametrize("host", ["example.org", "a.fashion.example.org", "10.0.0.8", "[::2]", "[::1", "::1", "", "*"])
def test_other_names(host):
    with pytest.raises(RefusedError, match="--allowed-hosts"):
        Hosts(["fashion.example.org"]).check(request(host, server="10.0.0.7"))


def test_origins():
    hosts = Hosts(["fashion.example.org"])
    hosts.check(request("localhost:8080", "http://localhost:8080"))
    hosts.check(request("fashion.example.org", "https://fashion.example.org"))
    hosts.check(request("127.0.0.1:8080", "https://fashion.example.org"))  # a proxy that changes the Host
    hosts.check(request("localhost:8080", "http://evil.example", method="GET"))
    for origin in ("http://localhost:3000", "null", "http://evil.example", "https://fashion.example.org.evil.example"):
        with pytest.raises(RefusedError, match="another site"):
            hosts.check(request("localhost:8080", origin))


def test_a_given_name_is_answered(served):
    with in_thread(lambda: served, Limits(), hosts=("fashion.example.org",)) as url:
        headers = {"Content-Type": "application/json", "Host": "fashion.example.org"}
        assert requests.post(f"{url}/invocations", body(IMAGE), headers=headers).status_code == 200


@pytest.mark.parametrize("name", ["*", "*.example.org", "https://example.org", "example.org:80", "a b", "[::1]:80"])
def test_what_is_no_name(name):
    result = CliRunner().invoke(serve, ["--port", "0", "--allowed-hosts", f"example.org,{name}"])
    assert "without scheme and port" in str(result.exception)


def test_a_warning_for_other_machines():
    assert open_to_others("127.0.0.1") is open_to_others("::1") is None
    for address in ("0.0.0.0", "::", "10.0.0.7"):
        assert "without authentication" in open_to_others(address)


def test_clients_by_address():
    assert client_of("10.0.0.7") == client_of("::ffff:10.0.0.7") == "10.0.0.7"
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:0:0:2") != client_of("2001:db8:0:1::1")
