"""What starts and stops servers, on servers of a few lines."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from loadtests.servers import ServerError, running, stop

HEALTHY = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
port = int(sys.argv[-1].removeprefix("--port="))
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
"""
STUBBORN = f"{HEALTHY}signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def command(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_server_runs_until_the_end_of_the_block(tmp_path: Path) -> None:
    with running(command(f"{HEALTHY}server.serve_forever()"), tmp_path / "log") as server:
        assert httpx.get(f"{server.url}/health", timeout=300).status_code == 200
    assert server.process.returncode == -signal.SIGTERM


def test_one_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    failing = "print('line\\n' * 99 + 'no room'); raise SystemExit(1)"
    with (
        pytest.raises(ServerError, match=r"did not start, see .*/log:\n(line\n)+.*no room"),
        running(command(failing), tmp_path / "log"),
    ):
        pytest.fail("it started")


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"did not end in 0\.2 s"),
        running(command(f"{STUBBORN}server.serve_forever()"), tmp_path / "log") as server,
    ):
        stop(server, seconds=0.2)
    assert server.process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(server.process.pid)
