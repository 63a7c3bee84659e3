"""Python programs that find vLLM imported already: forks of one process that did nothing else.

`Popen` here is `subprocess.Popen` as far as tests need it. Importing vLLM costs ten seconds of CPU,
and a server pays twice: on CPU vLLM starts its engine's processes as new interpreters ("spawn").
Here they are forks too, as they are on GPUs; all else is the program itself. Tests of
how processes start and die take `subprocess`.

Both ends of the socket are in this file: `Popen` in pytest's process, `main` in the warm one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import ForkContext, ForkProcess
from typing import IO, Any

MODULES = (
    "server.cli",
    "server.launch",
    "server.plugin",
    "vllm.entrypoints.launchers.api_server.entry",
    "vllm.model_executor.layers.fused_moe.layer",
    "vllm.model_executor.models.qwen3_moe",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "routing.engine.executor",
)


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without settings of Galton and vLLM, and `extra`.

    No engine is thought to hang: tests hold it, on machines that are busy otherwise. A page of
    metrics is always a new one: tests compare two. So they do with answers, whatever the batch.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GALTON_", "VLLM_"))}
    ours = {
        "GALTON_STALL_SECONDS": "0",
        "GALTON_METRICS_KEPT_SECONDS": "0",
        "GALTON_BATCH_INVARIANT": "1",
        "GALTON_EXPERIMENTAL_CUDA": "1",
    }
    return {**env, **ours, "VLLM_LOGGING_LEVEL": "INFO", **extra}


class Popen:
    """args: a Python program's path, or the interpreter, `-m` and a module; then its arguments."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        stdout: IO[Any],
        stderr: IO[Any] | int,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        start_new_session: bool = True,
    ) -> None:
        assert start_new_session
        outputs = (stdout, stdout if isinstance(stderr, int) else stderr)
        request = {"args": list(args), "env": dict(env or os.environ), "cwd": os.fspath(cwd or ".")}
        self._status, theirs = socket.socketpair()
        with theirs:
            message = json.dumps(request).encode()
            socket.send_fds(
                _warm_process(), [message], [theirs.fileno(), *(file.fileno() for file in outputs)]
            )
        self.pid = int(self._status.recv(32))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.recv(32) or -signal.SIGKILL)
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            select.select([self._status], [], [], timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        """To the process, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


@functools.cache
def _warm_process() -> socket.socket:
    """The socket of the one warm process of this session; it ends with the socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = environment(OMP_NUM_THREADS="1")  # as a worker has on two cores; read at the import
    with theirs:
        command = [sys.executable, "-m", __name__]
        process = subprocess.Popen(command, stdin=theirs.fileno(), env=env, start_new_session=True)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class _Fork(ForkProcess):
    """What vLLM wants spawned. It does for itself what a new interpreter would have found."""

    def run(self) -> None:
        import vllm.plugins

        vllm.plugins.plugins_loaded = False
        if places := os.environ.get("OMP_PLACES"):  # a worker's cores, as "{0,1}"
            os.sched_setaffinity(0, map(int, places.strip("{}").split(",")))
        super().run()


class _Context(ForkContext):
    Process = _Fork


def _next_request(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for each request: it is returned in the child. None in the warm process, at the end."""
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    children = dict[int, tuple[int, socket.socket]]()  # by pidfd: pid, and who awaits its status
    while True:
        for fd, _ in poll.poll():
            if fd in children:
                pid, client = children.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with client, contextlib.suppress(OSError):
                    client.send(str(status).encode())
                continue
            message, fds, _, _ = socket.recv_fds(requests, 2**20, 3)
            if not message:
                for pid, _ in children.values():
                    os.kill(pid, signal.SIGKILL)
                return None
            client, outputs = socket.socket(fileno=fds[0]), fds[1:]
            pid = os.fork()
            if pid == 0:
                for other in (requests, client, *(client for _, client in children.values())):
                    other.close()
                for number, output in enumerate(outputs, 1):
                    os.dup2(output, number)
                for open_fd in (*outputs, *children):
                    os.close(open_fd)
                request: dict[str, Any] = json.loads(message)
                return request
            for output in outputs:
                os.close(output)
            client.send(str(pid).encode())
            fd = os.pidfd_open(pid)
            children[fd] = (pid, client)
            poll.register(fd, select.POLLIN)


def _become(args: Sequence[str], env: Mapping[str, str], cwd: str) -> None:
    """Run the program in this process."""
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    resource_tracker._resource_tracker.__init__()  # type: ignore[misc]
    resource_tracker.ensure_running()  # of this program: it frees what it leaves, at its end
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: (  # type: ignore[assignment]
        _Context() if method == "spawn" else get_context(method)
    )
    if args[0] == sys.executable:
        assert args[1] == "-m"
        sys.argv = [*args[2:]]
        runpy.run_module(args[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [*args]
        runpy.run_path(args[0], run_name="__main__")


def main() -> None:
    """The warm process, and every program that it becomes. The socket is file 0."""
    requests = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Under nohup, and in a shell's background, they are ignored, and inherited so.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for module in MODULES:
        importlib.import_module(module)
    from vllm.platforms import current_platform

    # Not both: the CPU's takes CUDA's streams and memory away from torch.
    device = "cpu" if current_platform.is_cpu() else "gpu"
    importlib.import_module(f"vllm.v1.worker.{device}_worker")
    from vllm.utils.system_utils import set_process_title

    set_process_title("warm")  # finds the place of the title, before `environ` changes
    gc.collect()
    gc.freeze()  # vLLM collects garbage at its start; what was imported is none
    request = _next_request(requests)
    if request is not None:
        _become(**request)


if __name__ == "__main__":
    main()
