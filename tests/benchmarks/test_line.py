"""Tests of the line that fails: each fault as the server and as the client see it."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests

from benchmarks.line import Fault, Line

TAKEN = {Fault.DELAY: 1, Fault.DROP: 1, Fault.SILENT: 1, Fault.CUT: 1, Fault.TWICE: 2, Fault.GATEWAY: 1}
ANSWERED = {Fault.DELAY: 200, Fault.TWICE: 200, Fault.UNAVAILABLE: 503, Fault.GATEWAY: 502}


class Server(ThreadingHTTPServer):
    """A server that keeps the bodies it was sent, and sends them back."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) == int(self.headers["Content-Length"]):
            self.server.taken.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        threading.Thread(target=made.serve_forever, args=[0.01], daemon=True).start()
        yield made
        made.shutdown()


@pytest.mark.parametrize("fault", Fault)
def test_a_fault_happens_to_the_call_that_was_chosen(server, fault):
    with Line(f"http://127.0.0.1:{server.server_port}") as line, requests.Session() as session:
        rule = line.inject(fault, "POST /chosen", skip=1, seconds=0.3)

        def post(path: str) -> int:
            answer = session.post(f"{line.url}/{path}", b"0123456789", timeout=5)
            assert answer.status_code != 200 or answer.content == b"0123456789"
            return answer.status_code

        assert [post("other"), post("chosen")] == [200, 200]
        assert not rule.happened.is_set()
        server.taken.clear()
        if status := ANSWERED.get(fault):
            assert post("chosen") == status
        else:
            with pytest.raises(requests.exceptions.RequestException):
                post("chosen")
        assert rule.happened.wait(5)
        assert server.taken == [b"0123456789"] * TAKEN.get(fault, 0)
        assert [post("chosen"), post("chosen")] == [200, 200]
        assert [exchange.fault for exchange in line.calls("chosen")] == [None, fault, None, None]
        assert {exchange.body for exchange in line.record} == {b"0123456789"}


def test_a_closed_line_refuses_and_resets(server):
    with Line(f"http://127.0.0.1:{server.server_port}") as line, requests.Session() as session:
        hanging = line.inject(Fault.HANG, "hang")
        errors: list[Exception] = []

        def hang() -> None:
            try:
                requests.post(f"{line.url}/hang", b"x", timeout=60)
            except requests.exceptions.ConnectionError as error:
                errors.append(error)

        thread = threading.Thread(target=hang)
        thread.start()
        assert hanging.happened.wait(5)
        with line.away():
            thread.join(10)
            assert len(errors) == 1, "the connection stays open"
            with pytest.raises(requests.exceptions.ConnectionError, match="refused"):
                requests.post(f"{line.url}/x", b"x", timeout=5)
        assert session.post(f"{line.url}/x", b"x", timeout=5).status_code == 200


def test_the_weather_depends_on_the_seed_alone(server):
    def faults(seed: int) -> list[Fault | None]:
        with Line(f"http://127.0.0.1:{server.server_port}", seed) as line:
            line.weather(0.5, [Fault.TWICE, Fault.DELAY], "POST", seconds=0.001)
            for _ in range(20):
                requests.post(f"{line.url}/x", b"x", timeout=5)
            line.clear()
            requests.post(f"{line.url}/x", b"x", timeout=5)
            return [exchange.fault for exchange in line.record]

    first = faults(1)
    assert faults(1) == first != faults(2)
    assert {*first} == {None, Fault.TWICE, Fault.DELAY}
    assert first[-1] is None


def test_a_body_of_unknown_length_is_carried(server):
    with Line(f"http://127.0.0.1:{server.server_port}") as line:
        answer = requests.post(f"{line.url}/x", iter([b"01", b"234"]), timeout=5)
        assert answer.content == b"01234"
