"""`fmnist-exp serve` as a process: what it answers, what it refuses, and that nothing brings it down."""

import json
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from support.servers import HEAD, IMAGE, body, connect, refused, serving

from fmnist_exp.cli.serve import load
from fmnist_exp.errors import RequestError, WorkError


def with_pixel(value: object) -> list[list[object]]:
    return [[value, *IMAGE[0][1:]], *IMAGE[1:]]


def test_answers_real_images(running, served, small):
    response = running.post(body(*small.test.images[:10].tolist()))
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    rows = response.json()["predictions"]
    assert [row["name"] for row in rows] == list(served.predictor.predict(small.test.images[:10])["name"])


def test_other_addresses(running):
    assert requests.get(f"{running.url}/ping").status_code == 200
    health = requests.get(f"{running.url}/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok", "model": "fashion-mnist version 1"})
    assert requests.get(f"{running.url}/version").text.startswith("3.")
    assert requests.get(f"{running.url}/nothing").status_code == 404
    assert requests.get(f"{running.url}/invocations").status_code == 405


def test_metrics(running):
    running.post(body(IMAGE))
    running.post(b"{")
    response = requests.get(f"{running.url}/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    assert float(found['fmnist_requests_total{status="200"}']) >= 1
    assert float(found['fmnist_requests_total{status="400"}']) >= 1
    assert float(found["fmnist_request_seconds_count"]) >= 2
    assert found['fmnist_model_ready{model="fashion-mnist version 1"}'] == "1.0"
    assert found["fmnist_requests_at_work"] == "0.0"
    assert sum(float(value) for name, value in found.items() if name.startswith("fmnist_images_total")) >= 1


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"not JSON", 400, "not valid JSON"),
        (b"", 400, "not valid JSON"),
        (b"\xff\xfe\x00", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b'{"inputs": ' + b"9" * 5000 + b"}", 400, "not valid JSON"),
        (b"[[0]]", 400, "JSON object"),
        (b"{}", 400, "JSON object"),
        (b'{"inputs": [], "instances": []}', 400, "JSON object"),
        (b'{"dataframe_split": {"columns": [0], "data": [[0]]}}', 400, '"inputs" or "instances"'),
        (b'{"inputs": null}', 422, "list of images"),
        (b'{"inputs": {"a": 1}}', 422, "list of images"),
        (body(), 422, "N at least 1"),
        (body([0] * 784), 422, "shape (N, 28, 28)"),
        (json.dumps({"inputs": IMAGE}).encode(), 422, "shape (N, 28, 28)"),
        (body(IMAGE[1:]), 422, "shape (N, 28, 28)"),
        (body(IMAGE, IMAGE[1:]), 422, "same shape"),
        (body([[0] * 28] * 27 + [[0] * 27]), 422, "same shape"),
        (body(with_pixel("7")), 422, "numbers"),
        (body(with_pixel(None)), 422, "numbers"),
        (body(np.full((28, 28), True).tolist()), 422, "numbers"),
        (body(with_pixel(float("nan"))), 422, "finite"),
        (body(with_pixel(float("inf"))), 422, "finite"),
        (body(with_pixel(10**400)), 422, "numbers"),
        (body(with_pixel(256)), 422, "0…255"),
        (body(with_pixel(-1)), 422, "0…255"),
        (body((np.asarray(IMAGE) / 255).tolist()), 422, "multiply them by 255"),
        (b'{"inputs":[' + b"0," * 10_000 + b"0]}", 413, "at most 10,000 images"),
        (b" " * 20_000_000, 413, "at most 16 MiB"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else str(value),
)
def test_bad_bodies(running, content, status, reason):
    refused(running.post(content), status, reason)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/csv"},
        {"Content-Type": "application/vnd.apache.parquet"},
        {"Content-Type": ""},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
    ids=str,
)
def test_wrong_headers(running, headers):
    refused(running.post(body(IMAGE), headers=headers), 415, "")


def test_charset_may_be_named(running):
    assert running.post(body(IMAGE), headers={"Content-Type": "application/json; charset=UTF-8"}).status_code == 200


def test_a_chunked_body_is_counted_as_it_comes(running):
    with connect(running.url) as client:
        client.sendall(HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked"))
        for _ in range(100):
            client.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
            if select.select([client], [], [], 0.05)[0]:
                break
        assert client.recv(4096).startswith(b"HTTP/1.1 413")


def test_killed_clients(running):
    for sent in (b"", b"POST /inv", HEAD % 1000, HEAD % 1000 + b"{" * 500, HEAD % len(body(IMAGE)) + body(IMAGE)):
        client = connect(running.url)
        client.sendall(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, as from a dead process
        client.close()
    assert running.post(body(IMAGE)).status_code == 200


@settings(max_examples=100)
@given(content=st.binary(max_size=300), http=st.booleans())
def test_bytes_that_are_no_request(running, content, http):
    with connect(running.url) as client:
        client.sendall((HEAD % len(content) if http else b"") + content)
        client.shutdown(socket.SHUT_WR)
        answer = client.recv(4096)
    assert b"Traceback" not in answer
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 405", b"HTTP/1.1 422"), answer
    assert running.process.poll() is None


def test_memory_stays_flat(running):
    heavy = [
        b" " * 20_000_000,
        b'{"inputs": [' + b"[]," * 500_000 + b"[]]}",
        b'{"inputs": [' + ",".join(["0.123456789"] * 300_000).encode() + b"]}",
        body(*[IMAGE] * 300),
        b"[" * 1_000_000,
    ]

    def once() -> float:
        for content in heavy:
            running.post(content)
        return running.resident()

    once()
    settled = once()
    assert [once() for _ in range(4)][-1] < settled + 40  # MiB


def test_graceful_stop(registered, data):
    with serving(registered) as running:
        answers: list[requests.Response] = []
        images = data.test.images[:1500].tolist()
        client = threading.Thread(target=lambda: answers.append(running.post(body(*images))))
        client.start()
        while "fmnist_requests_at_work 1.0" not in requests.get(f"{running.url}/metrics").text:
            assert not answers, "answered before anybody saw it at work"
            time.sleep(0.005)
        running.process.send_signal(signal.SIGTERM)
        client.join(60)
        assert running.process.wait(30) == 0
        assert len(answers[0].json()["predictions"]) == 1500
        assert running.process.stdout.read() == "stopped\n"
        assert running.process.stderr.read() == ""


@pytest.fixture
def at_the_store(registered, monkeypatch):
    monkeypatch.chdir(registered.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered.uri)


@pytest.mark.usefixtures("at_the_store")
@pytest.mark.parametrize("reference", ["@winner", "/77"])
def test_a_missing_alias_or_version_lists_those_that_exist(reference):
    with pytest.raises(RequestError, match=r"has no .*versions: 1; aliases: .*champion \(version 1\)"):
        load(f"models:/fashion-mnist{reference}")


@pytest.mark.usefixtures("at_the_store")
def test_a_changed_file_is_refused(registered):
    assert load("models:/fashion-mnist@champion").name == "fashion-mnist version 1"
    file = registered.files / "requirements.txt"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"numpy", b"numpi"))
    try:
        with pytest.raises(WorkError, match=r"registered: requirements\.txt; put its files back"):
            load("models:/fashion-mnist@champion")
    finally:
        file.write_bytes(content)


def test_a_port_in_use(running, registered):
    port = str(urlsplit(running.url).port)
    command = [sys.executable, "-m", "fmnist_exp", "serve", "--port", port]
    done = subprocess.run(command, cwd=registered.folder, env=registered.environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_needs_neither_keras_nor_tensorflow(running):
    maps = Path(f"/proc/{running.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "tensorflow" not in maps
