"""From start to end of a server: what cannot be routed stops it, signals end all of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from loadtests.servers import Process, ServerError, free_port, galton, stop
from server.settings import LOG_LEVEL
from tests.shared import warm
from tests.shared.families import build
from tests.shared.servers import DEMO, MODEL, Server, Stream, eventually, running


def _gone(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


# The demo, named: without its presets.
NO_PRESETS = [
    *(str(DEMO), f"--served-model-name={MODEL}", "--enforce-eager"),
    f"--kv-cache-memory-bytes={2**30}",
]


@pytest.mark.parametrize(
    ("sig", "frozen", "flags", "popen"),
    [
        (signal.SIGINT, False, [], subprocess.Popen),
        (signal.SIGTERM, True, ["--drain-seconds=1"], warm.Popen),
        (signal.SIGHUP, False, [*NO_PRESETS, "--drain-seconds=1"], warm.Popen),
    ],
    ids=["interrupt", "termination", "hang-up without presets"],
)
def test_signal_ends_the_server_and_all_its_processes(
    tmp_path: Path,
    sig: signal.Signals,
    frozen: bool,
    flags: list[str],
    popen: Callable[..., Process],
) -> None:
    """While a long answer is being streamed, which ends in an error or a cut, not a hang.

    frozen: the engine does not come to tell that it gave the request up. popen: once, the
    program as a user starts it, its processes all started afresh.
    """
    with running(galton("serve", *flags), tmp_path / "log", popen=popen) as server:
        # More than any machine does before the signal comes.
        stream = Stream(server, max_tokens=1900, n=64, temperature=1)
        assert eventually(lambda: bool(stream.lines))
        processes = server.children()
        assert len(processes) >= 2
        if popen is subprocess.Popen:
            _is_one_process_bound_as_vllm_binds(server)
        if frozen:
            server.child("EngineCore").suspend()
        assert stop(server, sig, seconds=60) == 0
        assert stream.lines[0].startswith('data: {"id"')
        assert "data: [DONE]" not in stream.end()
        assert _gone(processes, 60)
        assert "is used by process" not in server.log.read_text()


def _is_one_process_bound_as_vllm_binds(server: Server) -> None:
    """The model's first thread on one core, the talk with the API process on any."""
    assert not any("Worker" in child.name() for child in server.children())
    core, every = server.child("EngineCore"), os.sched_getaffinity(server.process.pid)
    assert len(os.sched_getaffinity(core.pid)) == 1
    assert sum(os.sched_getaffinity(thread.id) == every for thread in core.threads()) >= 2


def test_the_log_of_a_start_is_a_screen_with_a_request_to_paste(tmp_path: Path) -> None:
    """As where nobody names a level."""
    env = {"VLLM_LOGGING_LEVEL": LOG_LEVEL}
    with running(galton("serve"), tmp_path / "log", env) as server:
        log = server.log.read_text()
        (request,) = re.findall(r"^curl .*?^}'$", log, flags=re.DOTALL | re.MULTILINE)
        pasted = ["bash", "-c", request.replace("curl", "curl --silent --show-error")]
        answer = json.loads(subprocess.check_output(pasted))
    assert answer["routing"]["policy"]["seed"] == 7
    assert "routing self-test passed" in log
    assert " INFO " not in log
    assert len(log.splitlines()) < 50


def test_hangup_reloads_the_presets_that_came_with_the_demo(tmp_path: Path) -> None:
    """As `POST /v1/routing/presets/reload` does: both read the file the server started with."""
    with running(galton("serve", "--api-key=k"), tmp_path / "log") as server:
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while "presets reloaded: precise, " not in server.log.read_text():
            assert server.process.poll() is None, "the hang-up ended the server"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        answer = server.post("/v1/routing/presets/reload", {}, headers={"api-key": "k"})
        assert "precise" in [preset["id"] for preset in answer.json()["data"]]


KEYS = {"Authorization": "Bearer first"}, {"x-api-key": "second"}


RELOAD = "/v1/routing/presets/reload"
DIGEST = hashlib.sha256(b"second").hexdigest()


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def start_guarded(
    tmp_path_factory: pytest.TempPathFactory, metrics_port: int
) -> Iterator[Callable[[], Server]]:
    """The server of `guarded`; a new one where there is none yet, or a test has ended it."""
    started: list[Server] = []
    with contextlib.ExitStack() as stack:

        def start() -> Server:
            if not started or started[-1].process.poll() is not None:
                log = tmp_path_factory.mktemp("guarded") / "log"
                presets = log.with_name("presets.toml")
                presets.touch()
                keys = ("--api-key", "first", "second")
                port = f"--metrics-port={metrics_port}"
                flags = (*keys, port, "--max-num-seqs=1", "--no-playground")
                command = galton("serve", f"--presets={presets}", *flags)
                started.append(stack.enter_context(running(command, log)))
            return started[-1]

        yield start


@pytest.fixture
def guarded(start_guarded: Callable[[], Server]) -> Server:
    """A server with two API keys; the second has a preset, in presets.toml beside the log."""
    server = start_guarded()
    presets = f'[presets.a]\nrouting = {{ seed = 7 }}\n[keys]\n{DIGEST} = "a"\n'
    server.log.with_name("presets.toml").write_text(presets)
    assert server.post(RELOAD, {}, headers=KEYS[0]).status_code == 200
    return server


def test_key_has_its_preset(guarded: Server) -> None:
    body = {"prompt": [20, 21], "max_tokens": 2}
    first, second = [guarded.post("/v1/completions", body, headers=key).json() for key in KEYS]
    assert "preset" not in first["routing"]
    assert (second["routing"]["preset"], second["routing"]["policy"]["seed"]) == ("a", 7)
    assert guarded.post("/v1/completions", body).status_code == 401


def test_presets_are_reloaded_over_http_with_a_key_only(guarded: Server) -> None:
    file = guarded.log.with_name("presets.toml")
    file.write_text("[presets.b]\nrouting = { seed = 8 }\n")
    assert guarded.post(RELOAD, {}).status_code == 401
    reloaded = guarded.post(RELOAD, {}, headers=KEYS[0])
    assert [preset["id"] for preset in reloaded.json()["data"]] == ["b"]
    file.write_text("[presets.b]\n\nrouting = { sed = 8 }\n")
    refused = guarded.post(RELOAD, {}, headers=KEYS[0])
    assert refused.status_code == 400
    message = refused.json()["error"]["message"]
    assert message.startswith("presets.toml:3: presets.b.routing: must be one of the keys mode, ")
    body = {"model": "galton-demo-b", "prompt": [20, 21], "max_tokens": 2}
    answer = guarded.post("/v1/completions", body, headers=KEYS[1]).json()
    assert (answer["model"], answer["routing"]["policy"]["seed"]) == ("galton-demo-b", 8)
    log = guarded.log.read_text()
    assert f"the old ones stay in force: {file}:3: presets.b.routing: must be" in log
    assert DIGEST not in log


def test_who_sends_many_requests_does_not_keep_others_waiting(guarded: Server) -> None:
    """Of 21 requests, all waiting, the last is another key's: it is answered among the first."""
    body = {"prompt": [20, 21], "max_tokens": 8, "ignore_eos": True}
    answered: list[int] = []

    def ask(client: int) -> None:
        asked = guarded.post("/v1/completions", body, headers=KEYS[client])
        assert asked.status_code == 200
        answered.append(client)

    load = partial(guarded.load, headers=KEYS[0])
    assert eventually(lambda: load() == 0)
    with ThreadPoolExecutor(21) as pool:
        with guarded.engine_held():
            asks = [pool.submit(ask, 0) for _ in range(20)]
            assert eventually(lambda: load() == 20)
            asks.append(pool.submit(ask, 1))
            assert eventually(lambda: load() == 21)
        for future in asks:
            future.result()
    assert answered.index(1) < 10


def test_who_sends_many_requests_leaves_places_to_others(guarded: Server) -> None:
    """Of 64 places a key gets 32 where no other asks, the next one 16 of those that are left."""
    body = {"prompt": [20, 21], "max_tokens": 2}

    def ask(client: int) -> int:
        return guarded.post("/v1/completions", body, headers=KEYS[client]).status_code

    load = partial(guarded.load, headers=KEYS[0])
    assert eventually(lambda: load() == 0)
    with ThreadPoolExecutor(48) as pool:
        with guarded.engine_held():
            first = [pool.submit(ask, 0) for _ in range(32)]
            assert eventually(lambda: load() == 32)
            assert ask(0) == 503
            several = {"prompt": [[20, 21]] * 33, "max_tokens": 2}
            assert guarded.post("/v1/completions", several, headers=KEYS[1]).status_code == 503
            second = [pool.submit(ask, 1) for _ in range(16)]
            assert eventually(lambda: load() == 48)
            assert ask(1) == 503
        assert {future.result() for future in [*first, *second]} == {200}
    assert ask(0) == 200


def test_metrics_have_a_port_of_their_own(guarded: Server, metrics_port: int) -> None:
    for path, has_experts in (("/metrics", True), ("/metrics/serving", False)):
        page = httpx.get(f"http://127.0.0.1:{metrics_port}{path}", timeout=60).text
        assert "vllm:num_requests_running{" in page
        assert ("galton_expert_assignments_total{" in page) == has_experts
        assert status(guarded, path) == 404


def test_a_server_may_have_no_playground(guarded: Server) -> None:
    for path in ("/", "/playground", "/playground/page.js"):
        assert httpx.get(guarded.url + path, headers=KEYS[0]).status_code == 404


def test_dead_engine_ends_the_server(guarded: Server) -> None:
    processes = guarded.children()
    guarded.child("EngineCore").kill()
    body: dict[str, Any] = {"prompt": [20, 21], "max_tokens": 2}
    with contextlib.suppress(httpx.TransportError):
        assert guarded.post("/v1/completions", body, headers=KEYS[0]).status_code >= 500
    assert guarded.process.wait(60) == 1
    assert _gone(processes, 60)


def test_what_a_signal_to_the_engine_cuts_short_ends_in_an_error(tmp_path: Path) -> None:
    """As a supervisor sends it that signals every process."""
    with running(galton("serve"), tmp_path / "log") as server:
        # More than any machine does before the signal comes.
        stream = Stream(server, max_tokens=1900, n=64, temperature=1)
        assert eventually(lambda: bool(stream.lines))
        server.child("EngineCore").terminate()
        assert '"error"' in "".join(stream.end()[-1:])
        assert "data: [DONE]" not in stream.lines
        assert server.process.wait(60) == 1


def status(server: Server, path: str) -> int:
    return httpx.get(server.url + path, timeout=60).status_code


def test_sigterm_lets_running_requests_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    with running(galton("serve"), tmp_path / "log") as server:
        streams = [Stream(server, max_tokens=100) for _ in range(50)]
        assert eventually(lambda: all(stream.lines for stream in streams))
        with server.engine_held():  # so that none ends before the server is seen to drain
            server.process.send_signal(signal.SIGTERM)
            assert eventually(lambda: status(server, "/ready") == 503)
            assert status(server, "/health") == 200
            late = server.post("/v1/completions", {"prompt": [20, 21]})
            assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            assert "shutting down" in late.json()["error"]["message"]
        for stream in streams:
            assert stream.end()[-1] == "data: [DONE]"
        assert server.process.wait(60) == 0


def test_what_does_not_end_in_time_gets_an_error_and_a_second_signal_ends_at_once(
    tmp_path: Path,
) -> None:
    with running(galton("serve", "--drain-seconds=1"), tmp_path / "log") as server:
        stream = Stream(server, max_tokens=1900, n=64, temperature=1)
        assert eventually(lambda: bool(stream.lines))
        server.process.send_signal(signal.SIGTERM)
        last = json.loads(stream.end()[-1].removeprefix("data: "))
        assert last["error"]["code"] == 503
        assert "shutting down" in last["error"]["message"]
        assert server.process.wait(60) == 0

    with running(galton("serve", "--drain-seconds=100000"), tmp_path / "log") as server:
        stream = Stream(server, max_tokens=1900, n=64, temperature=1)
        assert eventually(lambda: bool(stream.lines))
        server.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: status(server, "/ready") == 503)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert stream.end()[-1] != "data: [DONE]"


@pytest.mark.parametrize(
    "stage",
    [
        "Initializing a V1 LLM engine",
        "Starting to load model",
        "Loading weights took",
        "Supported tasks",
        "Successfully reset prefix cache",
    ],
)
def test_sigterm_at_any_stage_of_the_start_ends_it(tmp_path: Path, stage: str) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = galton("serve", "--host=127.0.0.1", f"--port={free_port()}")
        process = warm.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=warm.environment()
        )
    assert eventually(lambda: stage in log.read_text(errors="replace"))
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(60) == 0
    finally:
        process.send_signal(signal.SIGKILL)
    assert _gone(children, 60)


@pytest.mark.parametrize(
    ("name", "flags"), [("EngineCore", []), ("Worker", ["--distributed-executor-backend=mp"])]
)
def test_hung_engine_is_told_and_ended(tmp_path: Path, name: str, flags: list[str]) -> None:
    """Idle, it is unhealthy until it moves again; at work, it is ended with its requests."""
    with running(galton("serve", "--stall-seconds=3", *flags), tmp_path / "log") as server:
        processes = server.children()
        hung = server.child(name)
        hung.suspend()
        assert eventually(lambda: status(server, "/health") == 503)
        refused = server.post("/v1/completions", {"prompt": [20, 21]})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        hung.resume()
        assert eventually(lambda: status(server, "/health") == 200)
        assert server.tokens([20, 21])

        stream = Stream(server, max_tokens=1900, n=64, temperature=1)
        assert eventually(lambda: bool(stream.lines))
        hung.suspend()
        assert eventually(lambda: status(server, "/ready") == 503)
        last = json.loads(stream.end()[-1].removeprefix("data: "))
        assert last["error"]["code"] == 503
        assert server.process.wait(60) == 1
        assert _gone(processes, 60)
        log = server.log.read_text(errors="replace")
        assert "the engine hangs: the server ends" in log
        assert "(most recent call first)" in log


def test_router_that_cannot_be_controlled_stops_the_start(tmp_path: Path) -> None:
    """A tiny HunYuan-MoE with random weights, through the real engine: see `REFUSED`."""
    from transformers import AutoTokenizer

    build("hunyuan_v1_moe", tmp_path / "model")
    AutoTokenizer.from_pretrained(DEMO).save_pretrained(tmp_path / "model")
    flags = ["--enforce-eager", f"--kv-cache-memory-bytes={2**28}"]
    with (
        pytest.raises(ServerError, match="cannot be controlled: its routing function"),
        running(galton("serve", str(tmp_path / "model"), *flags), tmp_path / "log"),
    ):
        pass
