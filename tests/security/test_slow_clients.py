"""Clients that are slow, or too many, for `fmnist-exp serve`: while they are held, honest ones are answered.

Nothing here measures time.
"""

import time
from contextlib import ExitStack, contextmanager

import pytest
from support.servers import HEAD, IMAGE, Waiting, ask, body, connect, gauge, in_thread, read_all, send, serving

from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.model import ServedModel

ONE = body(IMAGE)
LOOSE = Limits(head=60, arrival=60)  # a slow client is dropped for its place only


@contextmanager
def held():
    """A function that connects to a server until the end of the block."""
    with ExitStack() as stack:
        yield lambda url, source="127.0.0.1": stack.enter_context(connect(url, source))


def attack(name, result="refused"):
    return pytest.mark.attack(name, entry="serve", result=result)


@attack("40 bodies of one byte", "others are answered")
def test_slow_bodies_take_no_place(served):
    with in_thread(lambda: served, LOOSE) as url, held() as hold:
        slow = [hold(url) for _ in range(40)]
        for client in slow:
            client.sendall(HEAD % 1000 + b"{")
        while gauge(url, "fmnist_connections") < 40:
            time.sleep(0.01)
        assert [ask(url).status_code for _ in range(10)] == [200] * 10


def sources(number: int) -> list[str]:
    return [f"127.0.{1 + index // 200}.{1 + index % 200}" for index in range(number)]


@attack("more slow clients than connections", "the oldest of them lose theirs; others are answered")
@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"] * 200, ["127.0.0.2"] * 200, sources(200)], ids=["own", "one", "many"]
)
@pytest.mark.parametrize("sent", [b"", b"POST /inv", HEAD % 1000 + b"{"], ids=["nothing", "head", "body"])
def test_more_slow_clients_than_connections(served, addresses, sent):
    limits = Limits(head=60, arrival=60, connections=30, address=20)
    with in_thread(lambda: served, limits) as url, held() as hold:
        slow = []
        for address in addresses:
            slow.append(hold(url, address))
            slow[-1].sendall(sent)
            if len(slow) % 50 == 0:
                assert ask(url).status_code == 200
        assert gauge(url, "fmnist_connections") <= 30
        assert send(url, b"GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(
            b"HTTP/1.1 200"
        )


@attack("more connections at work than allowed", "status 503 in one sentence")
def test_connections_that_all_work(registered):
    waiting = Waiting(registered.files)
    with in_thread(lambda: waiting, Limits(connections=4, address=3)) as url, held() as hold:
        clients = [hold(url) for _ in range(3)]
        for client in clients:
            client.sendall(HEAD % len(ONE) + ONE)
        with connect(url, "127.0.0.2") as other:
            for _ in range(500):
                other.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                if b"fmnist_requests_at_work 3.0" in other.recv(2**20):
                    break
            answer = send(url, b"")
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"too many connections" in answer
        waiting.release.set()
        assert all(client.recv(12) == b"HTTP/1.1 200" for client in clients)


@attack("more slow clients than file descriptors", "others are answered; the log stays empty")
def test_few_file_descriptors(registered):
    with serving(registered, files=160) as running, held() as hold:
        slow = []
        for address in sources(300):
            slow.append(hold(running.url, address))
            slow[-1].sendall(b"POST")
        assert [running.post(ONE).status_code for _ in range(5)] == [200] * 5
        running.process.terminate()
        assert running.process.wait(30) == 0
        assert running.process.stderr.read() == ""


@attack("bodies that fill the memory and stop", "the oldest are refused; others are answered")
def test_bodies_share_their_memory(served):
    limits = Limits(head=60, arrival=60, body=2**20, bodies=4 * 2**20)
    with in_thread(lambda: served, limits) as url, held() as hold:
        slow = [hold(url) for _ in range(10)]
        for client in slow:
            client.sendall(HEAD % 2**20 + b" " * (2**20 - 1))
        assert slow[0].recv(12) == b"HTTP/1.1 503"
        assert ask(url).status_code == 200
        slow[-1].sendall(b" ")
        assert slow[-1].recv(12) == b"HTTP/1.1 400"  # the newest was still being read


@attack("a client that does not read its answer", "the connection is closed")
def test_a_client_that_does_not_read(registered):
    class Talkative(ServedModel):
        def answer(self, body: bytes, limit: int) -> tuple[bytes, list[str]]:
            return b" " * 2**25, []

    talkative = Talkative(registered.files, "talkative")
    with in_thread(lambda: talkative, Limits(head=0.1, reading=0.1)) as url, connect(url) as client:
        client.sendall(HEAD % len(ONE) + ONE)
        client.recv(1)
        while gauge(url, "fmnist_connections") > 1:  # the one that asks
            time.sleep(0.01)
        assert len(read_all(client)) < 2**25
