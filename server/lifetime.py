"""A server from its first request to its end: drained on SIGTERM, ended where its engine is dead.

One object of `app.state`. What it answers with is in `server.health`; who finds the engine hung
is `server.watchdog`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import psutil
from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.exceptions import EngineDeadError

from routing.engine.config import DUMP_SIGNAL
from routing.engine.hooks import wrap
from server.sockets import remove_folder

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("vllm.galton")

SHUTTING_DOWN: Final = "the server is shutting down"
POLL_SECONDS: Final = 0.1
# How long answers may take to reach their clients once they have ended in an error.
FLUSH_SECONDS: Final = 1.0
# After a failure, the process ends even where vLLM's own way to the end hangs.
LAST_SECONDS: Final = 10.0


class Lifetime:
    """Whether the server takes requests, how many it answers, and why it ends.

    draining: it has been told to end. ending: vLLM ends the engine. stalled: why the engine is
    thought to hang, or None. failure: why the process ends with a status other than 0, or None.
    active: requests being answered.
    """

    def __init__(self, drain_seconds: float) -> None:
        self.drain_seconds = drain_seconds
        self.draining = False
        self.ending = False
        self.stalled: str | None = None
        self.failure: str | None = None
        self.active = 0
        self._tasks = set[asyncio.Task[None]]()

    @property
    def refusal(self) -> str | None:
        """Why a new request is not taken; None where it is."""
        if self.draining:
            return SHUTTING_DOWN
        return self.failure or self.stalled

    def heed_signals(self, engine: AsyncLLM) -> None:
        """SIGTERM drains; a second one ends at once, as SIGINT does, which stays vLLM's.

        To be called in the running loop, once vLLM has installed its own handlers.
        """
        loop, loop_thread = asyncio.get_running_loop(), threading.get_ident()

        def terminate() -> None:
            if self.draining:
                os.kill(os.getpid(), signal.SIGINT)
            else:
                self.draining = True
                self._run(self._drain(engine))

        def end(shutdown: Callable[..., None], timeout: float | None = None) -> None:
            """In place of the engine's `shutdown`, which vLLM calls in a thread upon SIGINT, and
            at the very end.
            """
            first, self.ending = not self.ending, True
            if first and engine.errored:
                self.failure = self.failure or "the engine died"
            elif first and threading.get_ident() != loop_thread:
                ended = self.end_requests(engine, SHUTTING_DOWN)
                asyncio.run_coroutine_threadsafe(ended, loop).result()
            shutdown(timeout)

        loop.add_signal_handler(signal.SIGTERM, terminate)
        wrap(engine, "shutdown", end)

    async def _drain(self, engine: AsyncLLM) -> None:
        logger.info("draining for up to %g s: %d requests", self.drain_seconds, self.active)
        if not await self._idle(engine, self.drain_seconds):
            logger.warning("%d requests did not end in time: they get an error", self.active)
        os.kill(os.getpid(), signal.SIGINT)

    async def end_requests(self, engine: AsyncLLM, reason: str) -> None:
        """Every running request ends in an error 503 that gives the reason."""
        running = list(engine.output_processor.request_states)
        engine.output_processor.propagate_error(
            GracefulHTTPError(reason, HTTPStatus.SERVICE_UNAVAILABLE)
        )
        with contextlib.suppress(EngineDeadError):
            await engine.abort(running, internal=True)
        await self._idle(engine, FLUSH_SECONDS)

    def fail(self, engine: AsyncLLM, reason: str) -> None:
        """End the process with status 1: stacks in the log, the engine's processes killed."""
        self.failure = reason
        self._run(self._fail(engine, reason))

    async def _fail(self, engine: AsyncLLM, reason: str) -> None:
        logger.critical("%s: the server ends", reason)
        last = threading.Timer(LAST_SECONDS, os._exit, (1,))
        last.daemon = True
        last.start()
        faulthandler.dump_traceback(sys.stderr)
        processes = engine_processes()
        _signal(processes, DUMP_SIGNAL)
        await asyncio.sleep(POLL_SECONDS)
        _signal(processes, signal.SIGKILL)
        await self.end_requests(engine, reason)
        os.kill(os.getpid(), signal.SIGINT)

    async def _idle(self, engine: AsyncLLM, seconds: float) -> bool:
        """Whether all requests have ended by then, also those made in the background."""
        for _ in range(int(seconds / POLL_SECONDS)):
            if not self.active and not engine.output_processor.request_states:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _run(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def engine_processes() -> list[psutil.Process]:
    """Engine core and workers; without Python's tracker of shared memory, which cleans up."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if not any("resource_tracker" in part for part in process.cmdline()):
                found.append(process)
    return found


def end_while_starting(*_: object) -> None:
    """Handler of SIGTERM until requests are taken: ends at once, whatever vLLM waits for."""
    logger.info("told to end while starting")
    _signal(engine_processes(), signal.SIGKILL)
    remove_folder()
    os._exit(0)


def _signal(processes: list[psutil.Process], sig: int) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(sig)
