"""The places: a real HTTP server, the real apt-get, and the cache under damage and several writers."""

import contextlib
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import cache, dataset, formats, sources
from fmnist_exp.data.formats import Parsed, SourceError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def parsed() -> Parsed:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 28, 28), np.uint8)
    labels = random.integers(0, 10, 30, np.uint8)
    return Parsed(images[:20], labels[:20], images[20:], labels[20:], "a test")


# download


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, after the faults that the server has in store."""

    def do_GET(self):
        self.server.asked.append(self.path)
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            self.send_error(fault)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b"\x1f\x8b" * 50)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Start a server for a folder with a list of faults; its address is `server.address`."""
    monkeypatch.setenv("NO_PROXY", "*")
    servers = []

    def start(folder: Path, faults: list[int | str]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        server.faults, server.asked = faults, []
        server.address = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_download_survives_a_busy_server_and_a_cut_transfer(serve, real_folder, tmp_path, capsys):
    server = serve(real_folder, [503, "cut"])
    folder = sources.download(tmp_path, server.address)
    parsed = formats.read_files(formats.find_files(folder), server.address)
    assert parsed.train_images.shape == (60_000, 28, 28)
    assert server.asked[:3] == ["/t10k-labels-idx1-ubyte.gz"] * 3
    assert len(server.asked) == 6
    assert capsys.readouterr().err == f"downloading Fashion-MNIST from {server.address}\n"


@pytest.mark.parametrize(
    ("faults", "requests", "reason"),
    [([404], 1, "404"), ([500, 500, 500], 3, "500"), (["cut", "cut"], 2, "incomplete|broken")],
)
def test_download_gives_up_at_the_first_file(serve, tmp_path, faults, requests, reason):
    server = serve(tmp_path, faults)
    with pytest.raises(SourceError, match=f"(?i){reason}"):
        sources.download(tmp_path, server.address)
    assert len(server.asked) == requests


def test_a_dead_address_is_named_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(SourceError, match=r"Failed to resolve 'data\.invalid'") as raised:
        sources.download(tmp_path, "http://data.invalid/")
    assert "HTTPConnection" not in str(raised.value)


def test_a_server_that_does_not_answer_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(sources, "RETRY", sources.RETRY.new(backoff_factor=10))  # a second attempt would be noticed
    monkeypatch.setenv("NO_PROXY", "*")
    start = time.monotonic()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as waiting:
        address = full.getsockname()
        for _ in range(2):  # fill the queue: from now on the kernel drops what arrives
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)
        with pytest.raises(SourceError, match="timed out"):
            sources.download(tmp_path, f"http://127.0.0.1:{address[1]}/")
    assert time.monotonic() - start < 5


# apt-get

needs_apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="no apt-get on this machine")


@needs_apt
def test_apt_without_the_package_says_so(tmp_path, monkeypatch):
    config = tmp_path / "apt.conf"
    config.write_text('Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "/dev/null";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(SourceError, match="E: Unable to locate package dataset-fashion-mnist"):
        sources.debian_archive(folder)


@needs_apt
@pytest.mark.slow
def test_apt_fetches_the_real_package(tmp_path):
    folder = sources.debian_archive(tmp_path)
    assert formats.read_files(formats.find_files(folder), "").test_images.shape == (10_000, 28, 28)


def test_a_command_that_hangs_is_ended(tmp_path):
    assert sources._command(["sleep", "5"], tmp_path, seconds=0.1) == "sleep did not finish within 0.1 s"


# the cache


def test_cache_gives_back_what_was_put_in(parsed):
    with pytest.raises(SourceError, match="empty"):
        cache.read_cache("entry", "stamp")
    cache.write_cache("entry", "stamp", parsed)
    back = cache.read_cache("entry", "stamp")
    assert back.source == parsed.source
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert np.array_equal(getattr(back, name), getattr(parsed, name))
        assert getattr(back, name).shape == getattr(parsed, name).shape
    with pytest.raises(SourceError, match="changed"):
        cache.read_cache("entry", "another stamp")


@pytest.mark.parametrize("place", [*range(0, 150, 7), 500, 10_000, *range(-400, 0, 7)])
def test_a_flipped_bit_in_the_cache_never_changes_an_image(parsed, own_cache, place):
    cache.write_cache("entry", "", parsed)
    content = bytearray((own_cache / "entry.npz").read_bytes())
    content[place] ^= 1
    (own_cache / "entry.npz").write_bytes(content)
    with contextlib.suppress(SourceError):  # a few bytes, such as the time of writing, do not matter
        back = cache.read_cache("entry", "")
        assert np.array_equal(back.train_images, parsed.train_images)
        assert np.array_equal(back.test_labels, parsed.test_labels)
        assert place not in (500, 10_000)  # images


@pytest.mark.parametrize("size", [0, 1, 64, 1000, 16_000, -1])
def test_cut_cache_is_refused(parsed, own_cache, size):
    cache.write_cache("entry", "", parsed)
    content = (own_cache / "entry.npz").read_bytes()
    (own_cache / "entry.npz").write_bytes(content[:size])
    with pytest.raises(SourceError, match="damaged"):
        cache.read_cache("entry", "")


def test_damaged_cache_is_made_anew(real_folder, own_cache):
    places = [sources.Source("real", lambda _: real_folder, "real")]
    first = dataset.load(DataConfig(), 0, places).train.digest
    (own_cache / "official.npz").write_bytes(b"damage")
    assert dataset.load(DataConfig(), 0, places).train.digest == first
    assert cache.read_cache("official", "").source == "real"


def test_cache_that_cannot_be_written_is_a_notice(parsed, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path / "file" / "cache"))  # root may write to any real folder
    cache.write_cache("entry", "", parsed)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not cached" in caplog.text
    with pytest.raises(SourceError, match="unreadable"):
        cache.read_cache("entry", "")


def test_several_writers_leave_one_whole_entry(parsed, own_cache):
    def write_and_read(_: int) -> str:
        cache.write_cache("entry", "", parsed)
        return cache.read_cache("entry", "").source

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write_and_read, range(64))) == {"a test"}
    assert [path.name for path in own_cache.iterdir()] == ["entry.npz"]


@pytest.mark.parametrize(
    ("own", "xdg", "expected"),
    [("/a", "/b", "/a"), ("", "/b", "/b/fmnist_exp"), ("", "", "/home/me/.cache/fmnist_exp")],
)
def test_cache_folder(monkeypatch, own, xdg, expected):
    for name, value in {"FMNIST_EXP_CACHE": own, "XDG_CACHE_HOME": xdg, "HOME": "/home/me"}.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_folder() == Path(expected)
