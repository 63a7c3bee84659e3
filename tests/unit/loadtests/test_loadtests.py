"""What starts, stops and asks servers, on servers of a few lines."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from loadtests.client import COMPLETIONS, RequestError, ask
from loadtests.servers import ServerError, running, stop

HEALTHY = """
import http.server, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
port = int(sys.argv[-1])
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
"""
STUBBORN = f"{HEALTHY}signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


def command(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_server_runs_until_the_end_of_the_block(tmp_path: Path) -> None:
    with running(command(f"{HEALTHY}server.serve_forever()"), tmp_path / "log") as server:
        assert httpx.get(f"{server.url}/health", timeout=300).status_code == 200
    assert server.process.poll() == -signal.SIGTERM


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
    assert server.process.poll() == -signal.SIGKILL
    assert not psutil.pid_exists(server.process.pid)


ANSWERING = f"""
import json
{HEALTHY}
class Answering(Handler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != "/v1/chat/completions":
            self.send_error(400, "no such policy")
            return
        self.send_response(200)
        self.end_headers()
        if body.get("stream"):
            for event in EVENTS[: body.get("events")]:
                self.wfile.write(f"data: {{event}}\\n\\n".encode())
        else:
            self.wfile.write(WHOLE.encode())
server.RequestHandlerClass = Answering
USAGE = {{"prompt_tokens": 3, "completion_tokens": 2}}
ROUTING = {{"policy": {{"mode": "top_k"}}}}
def choice(index, text):
    return {{"index": index, "delta": {{"content": text}}}}
EVENTS = [*map(json.dumps, [
    {{"choices": [{{"index": 0, "delta": {{"role": "assistant", "content": ""}}}}]}},
    {{"choices": [choice(1, "b")]}},
    {{"choices": [choice(0, "a")]}},
    {{"choices": [choice(0, "c")], "routing": ROUTING}},
    {{"choices": [], "usage": USAGE}},
]), "[DONE]"]
WHOLE = json.dumps({{
    "choices": [
        {{"index": 1, "message": {{"content": "b"}}}},
        {{"index": 0, "message": {{"content": "ac"}}}},
    ],
    "usage": USAGE,
    "routing": ROUTING,
}})
server.serve_forever()
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(command(ANSWERING), tmp_path_factory.mktemp("answering") / "log") as server:
        yield server.url


def test_whole_and_streamed_answers_are_read_alike(url: str) -> None:
    whole, streamed = ask(url, [{}, {"stream": True}])
    assert whole.texts == streamed.texts == ["ac", "b"]
    assert whole.usage == streamed.usage == {"prompt_tokens": 3, "completion_tokens": 2}
    assert whole.routing == streamed.routing == {"policy": {"mode": "top_k"}}
    assert (whole.ttft_seconds, whole.itl_seconds) == (None, [])
    assert streamed.ttft_seconds is not None
    assert len(streamed.itl_seconds) == 1  # "c" after "a"; "b" is another choice's
    assert 0 < streamed.ttft_seconds + sum(streamed.itl_seconds) <= streamed.seconds


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_request_is_an_error_with_its_status(url: str, stream: bool) -> None:
    with pytest.raises(RequestError, match=r"(?s)^400, .*no such policy"):
        ask(url, [{"stream": stream}], path=COMPLETIONS)


def test_a_stream_without_its_end_is_an_error(url: str) -> None:
    with pytest.raises(RequestError, match="ended early"):
        ask(url, [{"stream": True, "events": 3}])
