"""`make audit` with a database of vulnerabilities on this machine: the public one cannot be reached everywhere."""

import json
import re
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.documents import ROOT

pytestmark = pytest.mark.slow  # uv asks the package index for each requirement


class Database(BaseHTTPRequestHandler):
    """Know one vulnerability, in absl-py."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        found = {"vulns": [{"id": "OSV-1", "modified": "2026-01-01T00:00:00Z"}]}
        self.answer({"results": [found if query["package"]["name"] == "absl-py" else {} for query in asked]})

    def do_GET(self):
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]
        package = {"name": "absl-py", "ecosystem": "PyPI"}
        affected = [{"package": package, "ranges": ranges}]
        self.answer({"id": "OSV-1", "modified": "2026-01-01T00:00:00Z", "summary": "a hole", "affected": affected})

    def answer(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def audit(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci/audit", *options], capture_output=True, text=True, timeout=300)


@pytest.fixture
def database():
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_known_vulnerability_fails_the_audit(database):
    done = audit("--service-url", database)
    assert done.returncode == 1
    assert "OSV-1: a hole" in done.stdout
    assert re.search(r"requirements-dev.txt: \d\d requirements, no known vulnerability", done.stdout)


def test_one_that_is_ignored_does_not(database):
    done = audit("--service-url", database, "--ignore", "OSV-1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("no known vulnerability") == 3


def test_a_database_that_is_away_gives_one_line():
    done = audit("--service-url", "http://127.0.0.1:9")  # nobody listens there
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    assert "cannot be reached" in done.stdout
