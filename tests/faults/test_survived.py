"""Faults that a server survives: the neighbours' answers are whole and the same, it is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

import httpx
import psutil
import pytest

from loadtests import raw
from loadtests.busy import busy_loops
from loadtests.servers import Process, galton
from tests.faults.neighbours import REQUESTS, Neighbours
from tests.shared import warm
from tests.shared.servers import DEMO, MODEL, Server, eventually, running, stopped

NO_DESCRIPTORS: Final = "no file descriptors left"
PRESETS: Final = (DEMO.parent / "presets.toml").read_text()
FAULTS: dict[str, Callable[[Server], None]] = {}
Popen = Callable[..., Process]


def fault(name: str) -> Callable[[Callable[[Server], None]], Callable[[Server], None]]:
    """What happens while the neighbours ask; it ends before the server is looked at."""

    def add(what: Callable[[Server], None]) -> Callable[[Server], None]:
        FAULTS[name] = what
        return what

    return add


def main_process(server: Server) -> psutil.Process:
    return psutil.Process(server.process.pid)


def stops(process: psutil.Process) -> None:
    with stopped(process):
        time.sleep(2)


def crawls(process: psutil.Process) -> None:
    """It gets a tenth of its time."""
    for _ in range(40):
        with stopped(process):
            time.sleep(0.045)
        time.sleep(0.005)


fault("EngineCore stands still")(lambda server: stops(server.child("EngineCore")))
fault("EngineCore is slow")(lambda server: crawls(server.child("EngineCore")))
fault("API process stands still")(lambda server: stops(main_process(server)))
fault("API process is slow")(lambda server: crawls(main_process(server)))


@fault("resource tracker is killed")
def _(server: Server) -> None:
    for child in server.children():
        with contextlib.suppress(psutil.ZombieProcess):  # killed before
            if any("resource_tracker" in part for part in child.cmdline()):
                child.kill()


@fault("more work than cores")
def _(server: Server) -> None:
    with busy_loops(4):
        time.sleep(5)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(raw.address(server.url), timeout=60)


def request(**body: Any) -> bytes:
    return raw.post("/v1/completions", {"model": MODEL, **REQUESTS[1], **body})


@fault("1,000 clients leave before the first token")
def _(server: Server) -> None:
    sent = request(max_tokens=400)
    for _ in range(1000):
        with connect(server) as client:
            client.sendall(sent)


@fault("200 clients leave a stream")
def _(server: Server) -> None:
    def leave(_: int) -> None:
        with connect(server) as client:
            client.sendall(request(max_tokens=400, stream=True, ignore_eos=True))
            client.recv(1000)

    with ThreadPoolExecutor(50) as pool:
        list(pool.map(leave, range(200)))


@fault("500 connections say nothing")
def _(server: Server) -> None:
    with contextlib.ExitStack() as clients:
        for _ in range(500):
            clients.enter_context(connect(server))
        time.sleep(1)


@fault("100 clients send byte by byte")
def _(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(100)]
        for byte in request()[:50]:
            for client in clients:
                client.sendall(bytes([byte]))


@fault("50 clients read nothing")
def _(server: Server) -> None:
    sent = request(max_tokens=400, stream=True, ignore_eos=True, logprobs=5)
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(connect(server))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            client.sendall(sent)
        time.sleep(3)


@fault(NO_DESCRIPTORS)
def _(server: Server) -> None:
    """libuv closes the connections for which there is none, before anything is read."""
    process = main_process(server)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 2, limits[1]))
    with contextlib.ExitStack() as clients:
        for _ in range(50):
            clients.enter_context(connect(server))
        time.sleep(2)
        process.rlimit(psutil.RLIMIT_NOFILE, limits)


@fault("no room left for the log")
def _(server: Server) -> None:
    """As on a full disk: no process of it can make a file larger."""
    processes = [main_process(server), *server.children()]
    limits = [process.rlimit(psutil.RLIMIT_FSIZE) for process in processes]
    for process, (_, hard) in zip(processes, limits, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, (1, hard))
    hang_up(server)
    time.sleep(2)
    for process, limit in zip(processes, limits, strict=True):
        process.rlimit(psutil.RLIMIT_FSIZE, limit)


@fault("no memory left for large bodies")
def _(server: Server) -> None:
    process = main_process(server)
    limits = process.rlimit(psutil.RLIMIT_AS)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms + 2**25, limits[1]))
    body = b'{"prompt": "%b"}' % (b"a" * (30 * 2**20))
    headers = {"Content-Type": "application/json"}
    for _ in range(5):
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{server.url}/v1/completions", content=body, headers=headers, timeout=60)
    process.rlimit(psutil.RLIMIT_AS, limits)


@fault("/metrics is scraped without a pause")
def _(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        pages = pool.map(lambda _: httpx.get(f"{server.url}/metrics", timeout=60), range(200))
        assert {page.status_code for page in pages} == {200}


def presets(server: Server) -> Path:
    return server.log.with_name("presets.toml")


def hang_up(server: Server) -> None:
    server.process.send_signal(signal.SIGHUP)


def names(server: Server) -> list[str]:
    page = httpx.get(f"{server.url}/v1/routing/presets", timeout=60).json()
    return [preset["id"] for preset in page["data"]]


@fault("presets are replaced while they are read")
def _(server: Server) -> None:
    file = presets(server)
    for length in range(0, len(PRESETS), len(PRESETS) // 50):
        file.write_text(PRESETS[:length])
        hang_up(server)
        file.write_text(PRESETS)
    hang_up(server)
    assert eventually(lambda: "precise" in names(server))


@fault("presets are gone")
def _(server: Server) -> None:
    presets(server).unlink()
    _reload_changes_nothing(server)


@fault("presets are a folder")
def _(server: Server) -> None:
    presets(server).unlink()
    presets(server).mkdir()
    _reload_changes_nothing(server)
    presets(server).rmdir()


@fault("presets are a pipe that nobody writes to")
def _(server: Server) -> None:
    presets(server).unlink()
    os.mkfifo(presets(server))
    _reload_changes_nothing(server)
    presets(server).unlink()


def _reload_changes_nothing(server: Server) -> None:
    before = names(server)
    hang_up(server)
    time.sleep(0.2)
    assert names(server) == before


@fault("hung up 200 times")
def _(server: Server) -> None:
    for _ in range(200):
        hang_up(server)


@contextlib.contextmanager
def survived(server: Server, *, may_be_cut: bool = False) -> Iterator[None]:
    """Around a fault: the neighbours' answers, the counters, and that the server is ready."""
    neighbours = Neighbours(server)
    assert eventually(lambda: server.load() == 0)
    ok = server.metric("galton_requests_total", outcome="ok")
    errors = server.metric("galton_requests_total", outcome="error")
    with neighbours.asking():
        yield
    others = {"cut"} if may_be_cut else set()
    assert {*neighbours.outcomes} - others == {"whole"}, neighbours.outcomes
    assert eventually(lambda: server.load() == 0)
    assert server.metric("galton_requests_total", outcome="ok") >= ok + neighbours.outcomes["whole"]
    assert server.metric("galton_requests_total", outcome="error") == errors
    assert httpx.get(f"{server.url}/ready", timeout=60).status_code == 200
    assert eventually(lambda: not server.metric("vllm:kv_cache_usage_perc"))


@contextlib.contextmanager
def started(folder: Path, popen: Popen = warm.Popen, port: int | None = None) -> Iterator[Server]:
    folder.mkdir(exist_ok=True)
    file = folder / "presets.toml"
    file.write_text(PRESETS)
    flags = (f"--presets={file}", "--stall-seconds=20")
    # One queue for all: none is told to come again.
    command = galton("serve", *flags, "--max-num-queued-reqs=5000")
    with running(command, folder / "log", popen=popen, port=port) as server:
        yield server


@pytest.mark.parametrize("name", FAULTS)
def test_survives(tmp_path: Path, name: str, pytestconfig: pytest.Config) -> None:
    with started(tmp_path) as server:
        for _ in range(pytestconfig.getoption("repeats")):
            presets(server).write_text(PRESETS)
            with survived(server, may_be_cut=name == NO_DESCRIPTORS):
                FAULTS[name](server)


def writing_to(output: IO[bytes]) -> Popen:
    """A process whose stdout and stderr are that file."""

    def popen(command: Sequence[str], **options: Any) -> Process:
        return warm.Popen(command, **{**options, "stdout": output})

    return popen


def test_survives_that_nobody_reads_its_log(tmp_path: Path, repeat: int) -> None:
    """As in `galton serve | head`."""
    read, write = os.pipe()
    with open(read, "rb") as reader, open(write, "wb", buffering=0) as output:
        drain = threading.Thread(target=lambda: [reader.readline() for _ in range(20)])
        drain.start()
        with started(tmp_path, writing_to(output)) as server:
            drain.join()
            reader.close()
            with survived(server):
                hang_up(server)


def test_starts_without_room_for_its_log(tmp_path: Path) -> None:
    with (
        open("/dev/full", "wb") as output,
        started(tmp_path, writing_to(output)) as server,
        survived(server),
    ):
        hang_up(server)


FAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


@pytest.mark.skipif(FAKETIME is None, reason="needs Debian's package libfaketime")
def test_survives_jumps_of_the_clock(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    def popen(command: Sequence[str], **options: Any) -> Process:
        return subprocess.Popen(command, **{**options, "env": {**options["env"], **environment}})

    with started(tmp_path, popen) as server:
        for _ in range(pytestconfig.getoption("repeats")):
            with survived(server):
                for jump in ("+1d", "-1d", "+0"):
                    clock.write_text(jump)
                    time.sleep(1)


def test_survives_its_own_restart(tmp_path: Path, repeat: int) -> None:
    """Told to end, and started again on its port at once: who was being answered is, all others
    are told to come again, or find the port closed, and are answered by the next one.
    """
    folders = [tmp_path / "first", tmp_path / "second"]
    with contextlib.ExitStack() as servers:
        first = servers.enter_context(started(folders[0]))
        neighbours = Neighbours(first)
        with neighbours.asking():
            first.process.send_signal(signal.SIGTERM)
            assert first.process.wait(60) == 0
            before = neighbours.outcomes["whole"]
            servers.enter_context(started(folders[1], port=int(first.url.rpartition(":")[2])))
            assert eventually(lambda: neighbours.outcomes["whole"] > before + 20)
        assert "error" not in neighbours.outcomes
