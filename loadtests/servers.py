"""A server as a subprocess on a free port: started, waited for, stopped.

For tests and measurements alike; `command` may be `galton serve` or any server that takes --host
and --port and answers /health.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import httpx

START_SECONDS = 600
STOP_SECONDS = 60
LOG_LINES = 60
# For an environment: none of vLLM's plugins, but Galton's where `galton serve` names them.
NO_PLUGINS: Final = {"VLLM_PLUGINS": ""}


class ServerError(Exception):
    """A server that did not start, or did not end."""


class Process(Protocol):
    """What is asked of a `subprocess.Popen`, which is one."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...


@dataclass
class Server:
    """A running server. log: what it wrote to stdout and stderr."""

    url: str
    log: Path
    process: Process


def galton(*args: str) -> list[str]:
    """The command line of the installed `galton`."""
    return [str(Path(sys.executable).with_name("galton")), *args]


def stock(*args: str) -> list[str]:
    """The command line of vLLM's own server; where it has `NO_PLUGINS`, without Galton's."""
    return [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", *args]


def free_port() -> int:
    """A port that nothing listens on now; another process may take it before the server does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    popen: Callable[..., Process] = subprocess.Popen,
    port: int | None = None,
) -> Iterator[Server]:
    """Start a server, wait until it is healthy, stop it at the end.

    environment: all its variables; None: this process's. popen: what starts it. port: None: one
    that is free. Raises ServerError.
    """
    port = port or free_port()
    with log.open("wb") as output:
        # A session of its own: Ctrl-C here ends it below, in order.
        process = popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        stop(server)


def wait_until_healthy(server: Server, seconds: float = START_SECONDS) -> None:
    """Wait for its first 200 to GET /health. Raises ServerError with the end of its log."""
    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=5) as client:
        while server.process.poll() is None and time.monotonic() < deadline:
            try:
                if client.get(f"{server.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    tail = "\n".join(server.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    raise ServerError(f"the server did not start, see {server.log}:\n{tail}")


def stop(server: Server, sig: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
    """Signal the server and wait; its exit status.

    Raises ServerError if it has not ended by then; it is killed, and all of its session.
    """
    if server.process.poll() is None:
        server.process.send_signal(sig)
    try:
        return server.process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        raise ServerError(
            f"the server did not end in {seconds:g} s, see {server.log}: killed"
        ) from None
