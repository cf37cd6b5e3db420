"""Slow, too many, too early: servers with limits and models of their own, in the tests' process."""

import socket
import threading
import time

import pytest
import requests
from support.servers import HEAD, Waiting, ask, connect, in_thread, refused

from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.model import ServedModel


def test_503_until_the_model_is_warm(served):
    loaded = threading.Event()

    def load() -> ServedModel:
        loaded.wait(60)
        return served

    with in_thread(load, Limits(), warm=False) as url:
        for method, path in (("GET", "health"), ("POST", "invocations"), ("GET", "ping")):
            response = requests.request(method, f"{url}/{path}")
            refused(response, 503, "being loaded")
            assert response.headers["Retry-After"] == "1"
        assert requests.get(f"{url}/").status_code == 200
        loaded.set()
        while requests.get(f"{url}/health").status_code != 200:
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("limits", "sent", "answered"),
    [
        (Limits(head=0.4), b"POST /invocations HT", b""),
        (Limits(arrival=0.4), HEAD % 100 + b"{", b"HTTP/1.1 408"),
    ],
    ids=["head", "body"],
)
def test_slow_senders(served, limits, sent, answered):
    with in_thread(lambda: served, limits) as url, connect(url) as client:
        start = time.monotonic()
        client.sendall(sent)
        assert client.recv(4096)[:12] == answered
        assert time.monotonic() - start < 5


def test_dribbling_does_not_help(served):
    def dribble(client: socket.socket) -> None:
        for _ in range(100):
            client.sendall(b"P")
            time.sleep(0.05)

    with in_thread(lambda: served, Limits(head=0.5)) as url, connect(url) as client, pytest.raises(OSError):  # noqa: PT011
        dribble(client)


def test_too_many_at_a_time_and_too_slow_to_answer(registered):
    waiting = Waiting(registered.files)
    answers: list[requests.Response] = []
    with in_thread(lambda: waiting, Limits(requests=2, answer=60)) as url:
        clients = [threading.Thread(target=lambda: answers.append(ask(url))) for _ in range(2)]
        for client in clients:
            client.start()
        while "fmnist_requests_at_work 2.0" not in requests.get(f"{url}/metrics").text:
            assert not answers
            time.sleep(0.01)
        response = ask(url)
        refused(response, 503, "busy with 2 requests")
        assert response.headers["Retry-After"] == "1"
        assert requests.get(f"{url}/health").status_code == 200
        waiting.release.set()
        for client in clients:
            client.join()
    assert [answer.status_code for answer in answers] == [200, 200]
    waiting.release.clear()
    with in_thread(lambda: waiting, Limits(answer=0.3)) as url:
        refused(ask(url), 504, "within 0.3 seconds")
        waiting.release.set()
        assert ask(url).status_code == 200


def test_a_fault_of_ours_says_nothing_about_itself(served, registered, caplog):
    class Broken(ServedModel):
        def answer(self, body: bytes, limit: int) -> tuple[bytes, list[str]]:
            raise RuntimeError("a secret")

    broken = Broken(registered.files, "broken")
    with in_thread(lambda: broken, Limits()) as url:
        response = ask(url)
    refused(response, 500, "its log says why")
    assert "a secret" in caplog.text
