"""Measure how long a client waits for its answers while 1,000 slow clients hold connections to the same server.

    python -m benchmarks.slow_clients

The benchmark needs a registered champion in the current tracking store. It starts `fmnist-exp serve` on this machine.
One client sends requests with one image, one after the other, on one connection and on a new one each: in turn
undisturbed and during an attack. A slow client opens its connection, sends a byte each second, and connects again a
second after the server has closed it. The whole takes about five minutes.
"""

from __future__ import annotations

import argparse
import http.client
import os
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np

from benchmarks import arguments, serving
from benchmarks.processes import python
from benchmarks.reporting import processor

HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
PAUSE = 1.0  # seconds between two bytes of a slow client
MANY = [f"127.0.{1 + index // 200}.{1 + index % 200}" for index in range(1000)]
ATTACKS: dict[str, tuple[list[str], bytes]] = {
    "heads, one address": (["127.0.0.2"], HEAD),
    "heads, the client's own address": (["127.0.0.1"], HEAD),
    "heads, many addresses": (MANY, HEAD),
    "bodies, one address": (["127.0.0.2"], HEAD + b"Content-Length: 3000\r\n\r\n{"),
    "bodies, many addresses": (MANY, HEAD + b"Content-Length: 3000\r\n\r\n{"),
}


Times = dict[tuple[str, bool, bool], list[float]]  # ms by attack, whether on new connections, and whether attacked


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        model=("models:/fashion-mnist@champion", "version to serve"),
        clients=(1000, "number of slow clients"),
        rounds=(3, "number of rounds"),
        requests=(1000, "requests of the other client in each turn"),
    )


def main() -> None:
    """Measure and print the table. Exits with 1 if an attack doubles the 99th percentile."""
    given = parser().parse_args()
    image = np.zeros((1, 28, 28), np.uint8)
    times: Times = {}
    command = python("fmnist_exp", "serve", "--model", given.model)
    with serving.serving(command, image) as (port, _, _):
        turn(port, image, given.requests, False)  # warm up
        for _ in range(given.rounds):
            for name, (addresses, sent) in ATTACKS.items():
                for clients in (0, given.clients):
                    with attack(port, addresses, sent, clients):
                        for new in (False, True):
                            found = turn(port, image, given.requests, new)
                            times.setdefault((name, new, clients > 0), []).extend(found)
    print(f"{processor()}, {os.cpu_count()} cores; {given.model}; {given.clients} slow clients;", end=" ")
    print(f"n = {given.rounds} × {given.requests} requests in each cell\n")
    sys.exit(0 if report(times) else 1)


def turn(port: int, image: np.ndarray, requests: int, new: bool) -> list[float]:
    """Return the ms of requests one after the other, each on a `new` connection or all on one."""
    connection, content, times = http.client.HTTPConnection("127.0.0.1", port, timeout=60), serving.body(image), []
    for _ in range(requests):
        start = time.perf_counter()
        serving.ask(connection, content)
        times.append(1000 * (time.perf_counter() - start))
        if new:
            connection.close()
    connection.close()
    return times


@contextmanager
def attack(port: int, addresses: Sequence[str], sent: bytes, clients: int) -> Iterator[None]:
    """Hold slow connections during the block, in a process of their own; it ends by itself after five minutes."""
    if not clients:
        yield
        return
    words = [str(port), str(clients), ",".join(addresses), sent.decode()]
    code = "import sys; from benchmarks import slow_clients; slow_clients.hold(*sys.argv[1:])"
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"connected\n"
            yield
        finally:
            process.terminate()


def hold(port: str, clients: str, addresses: str, sent: str) -> None:
    """Open the connections, say so, and send a byte on each of them from time to time."""
    sources, selector = addresses.split(","), selectors.DefaultSelector()
    threading.Timer(300, os._exit, [1]).start()

    def connect(index: int) -> None:
        client = socket.socket()
        client.bind((sources[index % len(sources)], 0))
        client.settimeout(30)
        client.connect(("127.0.0.1", int(port)))
        client.setblocking(False)
        quietly(lambda: client.send(sent.encode()))
        selector.register(client, selectors.EVENT_READ, index)

    for index in range(int(clients)):
        connect(index)
    print("connected", flush=True)
    while True:
        end, closed = time.monotonic() + PAUSE, []
        for key in list(selector.get_map().values()):
            quietly(lambda socket=key.fileobj: socket.send(b"x"))
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):  # an answer, or the end of the connection
                selector.unregister(key.fileobj)
                key.fileobj.close()
                closed.append(key.data)
        for index in closed:
            connect(index)


def quietly(action: Callable[[], object]) -> None:
    """Do something with a socket that the server may have closed."""
    with suppress(OSError):
        action()


def report(times: Times) -> bool:
    """Print the table; return True if no attack doubles the 99th percentile."""
    print("| attack | connection | undisturbed p50, p99, ms | attacked p50, p99, ms | ratio of the p99 | largest, ms |")
    print("|---|---|---:|---:|---:|---:|")
    held = True
    for new in (False, True):
        for name in ATTACKS:
            before, during = times[name, new, False], times[name, new, True]
            ratio = percentile(during) / percentile(before)
            held = held and ratio < 2
            shown = [f"{statistics.median(found):.2f}, {percentile(found):.2f}" for found in (before, during)]
            kind = "a new one each" if new else "one"
            print(f"| {name} | {kind} | {shown[0]} | {shown[1]} | {ratio:.2f} | {max(during):.1f} |")
    print("\nNo attack doubles the 99th percentile." if held else "\nAn attack DOUBLES the 99th percentile.")
    return held


def percentile(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


if __name__ == "__main__":
    main()
