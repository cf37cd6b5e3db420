"""Requests that attack `fmnist-exp serve`: foreign names, malformed requests, and bodies that explode."""

import json
import tracemalloc

import pytest
import requests
from support.browsers import chromium, needs_chromium
from support.servers import IMAGE, ask, body, connect, in_thread, read_all, refused, send

from fmnist_exp.serving import protocol
from fmnist_exp.serving.limits import Limits

PATHS = ["/", "/invocations", "/health", "/ping", "/version", "/metrics", "/nothing"]
ONE = body(IMAGE)


@pytest.fixture(scope="module")
def url(served):
    with in_thread(lambda: served, Limits()) as url:
        yield url


def attack(name, result="refused"):
    return pytest.mark.attack(name, entry="serve", result=result)


# names


@attack("DNS rebinding: another site's name leads to the server", "status 403 on every route")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "8.8.8.8", "[::2]"])
def test_a_foreign_host(url, path, host):
    for method in ("GET", "POST"):
        refused(requests.request(method, url + path, headers={"Host": host}), 403, "Host")


@attack("DNS rebinding in a browser", "the page of the other site reads nothing")
@needs_chromium
def test_a_browser_whose_site_rebinds_its_name(url):
    site = url.replace("127.0.0.1", "evil.example")
    with chromium(
        "--host-resolver-rules=MAP evil.example 127.0.0.1", "--disable-features=LocalNetworkAccessChecks"
    ) as browser:
        page = browser.new_page()
        page.route("**/page", lambda route: route.fulfill(body="from the attacker, before the name was changed"))
        page.goto(f"{site}/page")
        for path, method in (("/", "GET"), ("/health", "GET"), ("/invocations", "POST")):
            status = "([path, method]) => fetch(path, {method}).then(reply => reply.status)"
            assert page.evaluate(status, [path, method]) == 403
        browser.close()


@attack("no Host, an empty one, several, or one that is no name")
@pytest.mark.parametrize(
    "host",
    [b"", b"Host:\r\n", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: a b\r\n", b"Host: localhost@evil\r\n"],
    ids=str,
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_host_that_is_none(url, host, version):
    answer = send(url, b"GET /health HTTP/%s\r\n%sConnection: close\r\n\r\n" % (version, host))
    assert answer[:12] in (b"HTTP/1.1 403", b"HTTP/1.1 400")


@attack("a request from a page of another site")
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "", "http://127.0.0.1"])
def test_a_foreign_origin(url, origin):
    refused(ask(url, Origin=origin), 403, "another site")
    assert ask(url, Origin=url).status_code == 200


# framing


HOST = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@attack("request smuggling", "status 400, connection closed, the hidden request stays unread")
@pytest.mark.parametrize(
    "head",
    {
        "length and chunks": HOST + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
        "chunks and length": HOST + CHUNKED + b"content-length: 5\r\n\r\n0\r\n\r\n",
        "two equal lengths": HOST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "two lengths": HOST + b"Content-Length: 0\r\nContent-Length: 46\r\n\r\n",
        "a list of lengths": HOST + b"Content-Length: 0, 46\r\n\r\n",
        "a signed length": HOST + b"Content-Length: +0\r\n\r\n",
        "two codings": HOST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
        "an unknown coding": HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "a folded coding": HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        "a folded header": HOST + b"X: a\r\n\tb\r\n\r\n",
        "a space before the colon": HOST + b"Content-Length : 0\r\n\r\n",
        "a bare line feed": HOST + b"X: a\nContent-Length: 0\r\n\r\n",
        "only bare line feeds": HOST.replace(b"\r", b"") + b"\n",
        "a bare carriage return": HOST + b"X: a\rContent-Length: 46\r\n\r\n",
        "chunks in HTTP/1.0": HOST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n",
        "HTTP/9.9": HOST.replace(b"1.1", b"9.9") + b"\r\n",
        "HTTP/1.2": HOST.replace(b"1.1", b"1.2") + b"\r\n",
        "HTTP/2.0": HOST.replace(b"1.1", b"2.0") + b"\r\n",
        "no version": b"GET /health\r\n\r\n",
        "a bad chunk": HOST + CHUNKED + b"Content-Type: application/json\r\n\r\nzz\r\n",
        "a length after the chunks": HOST
        + CHUNKED
        + b"Content-Type: application/json\r\n\r\n0\r\nHost: x\r\nHost: x\r\n\r\n",
        "an endless header": HOST + b"X: " + b"a" * 200_000,
    }.items(),
    ids=lambda item: item[0],
)
def test_requests_that_a_proxy_may_read_otherwise(url, head):
    answer = send(url, head[1] + SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert answer.count(b"content-length") == 1
    assert b'"message": "The request is not valid' in answer


@attack("a malformed end of a request that was refused already", "one answer, and no traceback in the log")
def test_garbage_after_a_refusal(url, caplog):
    with connect(url) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: evil.example\r\n" + CHUNKED + b"\r\n")
        answer = client.recv(65536)
        client.sendall(b"zz\r\n" + SMUGGLED)
        answer += read_all(client)
    assert answer.startswith(b"HTTP/1.1 403")
    assert answer.count(b"HTTP/1.1") == 1
    assert not caplog.records


@attack("MLflow's own routes", "status 404 with a strict policy")
@pytest.mark.parametrize("path", ["docs", "redoc", "openapi.json", "docs/oauth2-redirect", "../docs", "%2e%2e/docs"])
def test_routes_that_are_not_documented(url, path):
    response = requests.get(f"{url}/{path}")
    refused(response, 404, "nothing here")
    assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


# bodies


def many(unit: bytes) -> bytes:
    return b'{"inputs":[' + unit * (2**24 // len(unit) - 8) + unit.rstrip(b",") + b"]}"


@attack("16 MiB of JSON that takes gigabytes when it is parsed", "refused before it is parsed")
@pytest.mark.parametrize(
    "content",
    [
        *map(many, [b"[],", b"[ ],", b"[0],", b"{},", b'"",', b'{"":0},', b"null,", b"[[[]]],", b"0,"]),
        b"[" * 2**24,
        b'{"a":' * 2**21,
        b"{" + b",".join(b'"%d":1' % index for index in range(10**6)) + b"}",
        body(*[[[0] * 28] * 27] * 1000),
        b'{"inputs":[' + b",".join([json.dumps([[[0]] * 28] * 28).encode()] * 2000)[:-1] + b"]}",
    ],
    ids=lambda content: str(content[:16]),
)
def test_json_that_explodes(content):
    tracemalloc.start()
    try:
        with pytest.raises(protocol.RefusedError) as caught:
            protocol.read_images(content, 10_000)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert caught.value.status in (400, 413, 422)


@attack("a key that is given twice, so that a proxy may see the other value")
def test_keys_given_twice(url):
    content = ONE[:-1] + b', "inputs": []}'
    headers = {"Content-Type": "application/json"}
    refused(requests.post(f"{url}/invocations", content, headers=headers), 400, "not valid JSON")


@attack("a long number or a long text", "refused in one sentence")
@pytest.mark.parametrize(
    "value", [b"9" * 2**20, b"0." + b"9" * 2**20, b"1e999999", b'"' + b"9" * 2**20 + b'"'], ids=len
)
def test_long_values(url, value):
    content = ONE.replace(b"7", value, 1)
    response = requests.post(f"{url}/invocations", content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422) or value.startswith(b"0.9")
    assert len(response.content) < 500
