"""Finds an engine that hangs: it works and no layer routes a token, or its processes are stopped.

Reads what the workers count and what the kernel says of the processes. The engine is asked
nothing while it is well: each message makes vLLM's idle processes spin for a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

import psutil

from routing.engine.counts import EngineCounts
from server.lifetime import Lifetime, engine_processes

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("vllm.galton")

TICK_SECONDS: Final = 1.0


class Watchdog:
    """Looks once a second.

    stall_seconds: without progress for that long, the engine is thought to hang, and no request
    is taken; for twice as long, running ones end in an error; for three times, the process ends.
    Told in looks, not by the clock: time in which this process stood still itself is not counted.
    """

    def __init__(
        self, engine: AsyncLLM, counts: EngineCounts, lifetime: Lifetime, stall_seconds: int
    ) -> None:
        self._engine = engine
        self._counts = counts
        self._lifetime = lifetime
        self._processes = engine_processes()
        self._stall_looks = int(stall_seconds / TICK_SECONDS)
        self._looks = 0  # since the last sign of life
        self._progress = -1
        self._probe: asyncio.Task[object] | None = None

    async def run(self) -> None:
        """Look until the server ends."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._lifetime.ending or self._lifetime.failure is not None:
                return
            await self.look()

    async def look(self) -> None:
        """One look, and what follows from it."""
        if self._engine.errored:
            self._lifetime.fail(self._engine, "the engine died")
            return
        self._looks = 0 if self._is_alive() else self._looks + 1
        if self._looks == 0:
            self._recovered()
        elif self._looks == self._stall_looks:
            self._lifetime.stalled = f"the engine has not moved for {self._stall_looks} s"
            logger.error("%s: no request is taken", self._lifetime.stalled)
            # Answered once it moves again.
            self._probe = asyncio.create_task(self._engine.collective_rpc("galton_describe"))
        elif self._looks == 2 * self._stall_looks:
            await self._lifetime.end_requests(self._engine, "the engine hangs")
        elif self._looks == 3 * self._stall_looks:
            self._lifetime.fail(self._engine, "the engine hangs")

    def _is_alive(self) -> bool:
        if self._probe is not None:
            return self._probe.done()
        progress, before = self._counts.progress(), self._progress
        self._progress = progress
        if progress != before:
            return True
        is_working = bool(self._engine.output_processor.request_states)
        return not is_working and not any(map(_is_stopped, self._processes))

    def _recovered(self) -> None:
        if self._lifetime.stalled is not None:
            logger.warning("the engine moves again: requests are taken")
            self._lifetime.stalled = None
        if self._probe is not None:
            with contextlib.suppress(Exception):  # a dead engine is seen at the next look
                self._probe.result()
            self._probe = None


def _is_stopped(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        status: str = process.status()
        return status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
    return False
