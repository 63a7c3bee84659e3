"""Faults that end a server, or its start: with the status that was promised, and nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from loadtests.servers import free_port, galton
from tests.faults.neighbours import Neighbours
from tests.shared import warm
from tests.shared.servers import Server, Stream, eventually, running

KILLED: Final = -signal.SIGKILL


def to_server(sig: signal.Signals, server: Server) -> None:
    server.process.send_signal(sig)


def to_child(name: str, sig: signal.Signals, server: Server) -> None:
    server.child(name).send_signal(sig)


def to_all(sig: signal.Signals, server: Server) -> None:
    """As a terminal does on Ctrl-C, and a supervisor that ends a whole group."""
    os.killpg(server.process.pid, sig)


def in_a_drain(sig: signal.Signals, server: Server) -> None:
    to_server(signal.SIGTERM, server)
    assert eventually(partial(_status, server, "/ready", 503))
    to_server(sig, server)


def _status(server: Server, path: str, status: int) -> bool:
    try:
        return httpx.get(server.url + path, timeout=60).status_code == status
    except httpx.TransportError:
        return True  # too late to see it


def _is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Fault:
    """What happens, the server's exit status, and how its clients' requests may end."""

    what: Callable[[Server], None]
    status: int
    outcomes: frozenset[str]


TOLD = frozenset({"whole", "error", "refused", "cut"})
FAULTS: Final = {
    **{
        f"{sig.name} to {name}": Fault(partial(to_child, name, sig), 1, TOLD)
        for name in ("EngineCore", "Worker")
        for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGSTOP)
    },
    "SIGKILL to the server": Fault(partial(to_server, signal.SIGKILL), KILLED, TOLD),
    "SIGTERM": Fault(partial(to_server, signal.SIGTERM), 0, TOLD - {"error"}),
    "SIGTERM twice": Fault(partial(in_a_drain, signal.SIGTERM), 0, TOLD),
    "SIGINT": Fault(partial(to_server, signal.SIGINT), 0, TOLD),
    "SIGINT to all its processes": Fault(partial(to_all, signal.SIGINT), 0, TOLD),
    "SIGTERM to all its processes": Fault(partial(to_all, signal.SIGTERM), 0, TOLD),
    "SIGKILL to all its processes": Fault(partial(to_all, signal.SIGKILL), KILLED, TOLD),
    "SIGKILL in a drain": Fault(partial(in_a_drain, signal.SIGKILL), KILLED, TOLD),
}


def left() -> set[Path]:
    """What servers can leave: shared memory, and the folders of their sockets."""
    return {*Path("/dev/shm").iterdir(), *Path(tempfile.gettempdir()).glob("galton-sockets-*")}


def processes(session: int) -> list[psutil.Process]:
    """Those of a session that live."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            is_of_it = os.getsid(process.pid) == session
            if is_of_it and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@contextlib.contextmanager
def nothing_is_left() -> Iterator[Callable[[int], None]]:
    """Around a server's life, which tells its process id: no process of its session remains, no
    socket, no shared memory. The sockets of a killed server go when the next one starts.
    """
    before = left()
    sessions = list[int]()
    yield sessions.append
    (session,) = sessions
    assert eventually(lambda: not processes(session), 60), processes(session)
    subprocess.run(
        [sys.executable, "-c", "from server.sockets import *; make_folder()"], check=True
    )
    assert eventually(lambda: left() <= before, 10), left() - before


def flags_for(fault: str) -> list[str]:
    """A worker is a process of its own only where vLLM's executor is asked for."""
    return ["--distributed-executor-backend=mp"] if "Worker" in fault else []


@pytest.mark.parametrize("name", FAULTS)
def test_ends(tmp_path: Path, name: str, repeat: int) -> None:
    fault = FAULTS[name]
    with (
        nothing_is_left() as of_process,
        running(galton("serve", "--stall-seconds=3", *flags_for(name)), tmp_path / "log") as server,
    ):
        of_process(server.process.pid)
        neighbours = Neighbours(server)
        with neighbours.asking():
            fault.what(server)
            assert server.process.wait(60) == fault.status
        assert set(neighbours.outcomes) <= fault.outcomes, neighbours.outcomes
        # A killed server's engine, in tests a fork of it, holds its socket until it ends as well.
        assert eventually(partial(_is_free, int(server.url.rpartition(":")[2])))


# A command that Ctrl-C interrupts ends with 130; a server that serves ends with 0.
ENDS: Final = {signal.SIGTERM: {0}, signal.SIGINT: {0, 130}, signal.SIGKILL: {KILLED}}
STAGES: Final = (
    *("Initializing a V1 LLM engine", "Starting to load model", "Loading weights took"),
    *("Supported tasks", "Successfully reset prefix cache"),
)


@pytest.mark.parametrize("sig", ENDS)
@pytest.mark.parametrize("stage", STAGES)
def test_ends_at_any_stage_of_its_start(
    tmp_path: Path, stage: str, sig: signal.Signals, repeat: int
) -> None:
    log = tmp_path / "log"
    with nothing_is_left() as of_process, log.open("wb") as output:
        command = galton("serve", "--host=127.0.0.1", f"--port={free_port()}")
        process = warm.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=warm.environment()
        )
        of_process(process.pid)
        assert eventually(lambda: stage in log.read_text(errors="replace"))
        time.sleep(0.1 * repeat)  # here and there within the stage
        process.send_signal(sig)
        assert process.wait(60) in ENDS[sig]


@pytest.mark.parametrize("milliseconds", [0, 50, 200, 1000])
def test_killed_at_any_stage_of_its_end(tmp_path: Path, milliseconds: int, repeat: int) -> None:
    with nothing_is_left() as of_process, running(galton("serve"), tmp_path / "log") as server:
        of_process(server.process.pid)
        server.process.send_signal(signal.SIGINT)
        time.sleep(milliseconds / 1000)
        server.process.send_signal(signal.SIGKILL)
        assert server.process.wait(60) in (0, KILLED)


def test_200_streams_complete_through_a_drain(tmp_path: Path, repeat: int) -> None:
    command = galton("serve", "--drain-seconds=300")
    with nothing_is_left() as of_process, running(command, tmp_path / "log") as server:
        of_process(server.process.pid)
        streams = [Stream(server, max_tokens=200) for _ in range(200)]
        assert eventually(lambda: all(stream.lines for stream in streams))
        server.process.send_signal(signal.SIGTERM)
        assert {stream.end()[-1] for stream in streams} == {"data: [DONE]"}
        assert server.process.wait(60) == 0
