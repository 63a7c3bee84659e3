"""The bench on a real server, through its load tool: what a run says is what was asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtests.bench.load import LoadError, LoadTool, load_tool
from loadtests.bench.measure import measure
from loadtests.bench.scenario import Load, Scenario, Share, Variant
from loadtests.servers import running
from tests.shared.servers import Server

LOAD = Load(requests=6, in_flight=3, output_tokens=8)
SCENARIO = Scenario(name="x", title="x", loads=(LOAD,), variants=(Variant(name="x"),))


@pytest.fixture(scope="module")
def tool() -> Iterator[LoadTool]:
    with load_tool() as started:
        yield started


def test_what_a_run_says_is_what_was_asked_for(tool: LoadTool, server: Server) -> None:
    two = Variant(
        name="two experts",
        policies=(Share(routing={"top_k": 2, "scope": "all"}),),
        scrape_seconds=0.1,
    )
    run = measure(tool, server, SCENARIO, two, LOAD, "asked")
    assert run.experts is not None
    assert run.experts.per_token == 2
    assert 2 <= run.experts.active <= 16
    assert run.tokens_per_second == pytest.approx(8 * run.requests_per_second)
    assert run.goodput <= run.requests_per_second
    assert all(0 < a <= b <= c for a, b, c in (run.ttft_ms, run.per_token_ms))
    assert run.cpu_ms_per_token > 0
    assert run.memory_mib > 100
    assert run.cached == 0


def test_a_replay_follows_its_own_trace_and_arrivals_wait_for_nobody(
    tool: LoadTool, server: Server
) -> None:
    replay = Variant(name="replayed", policies=(Share(routing={"mode": "replay"}),))
    load = Load(requests=5, requests_per_second=100, burstiness=0.5, output_tokens=4)
    run = measure(tool, server, SCENARIO, replay, load, "replay")
    assert run.experts is not None
    assert run.experts.per_token == 4
    assert run.cached == 0


OTHER = """
import http.server, json, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert asked["model"] == "/models/a" and "ignore_eos" not in asked, asked
        self.send_response(200)
        self.end_headers()
        for _ in range(asked["max_tokens"]):
            event = {"choices": [{"index": 0, "delta": {"content": " token"}}]}
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\\n\\n")

port = int(sys.argv[-1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_a_server_that_tells_neither_models_nor_tokens_is_measured(
    tool: LoadTool, tmp_path: Path
) -> None:
    command = (sys.executable, "-c", OTHER)
    other = Variant(name="other", server=command, body={"model": "{checkpoint}"}).of("/models/a")
    with running(command, tmp_path / "log") as started:
        run = measure(tool, started, SCENARIO, other, LOAD, "other")
    assert run.tokens_per_second == pytest.approx(8 * run.requests_per_second)
    assert run.experts is None


def test_a_refused_request_stops_the_run(tool: LoadTool, server: Server) -> None:
    wrong = Variant(name="wrong", policies=(Share(routing={"mode": "best"}),))
    with pytest.raises(LoadError, match="6 of 6 requests failed, the first: Bad Request"):
        measure(tool, server, SCENARIO, wrong, LOAD, "wrong")
