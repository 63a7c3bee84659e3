"""What a server's processes hold, sampled while it works."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final

import psutil

EVERY_SECONDS: Final = 10
MEASURES: Final = ("memory MiB", "descriptors", "threads", "processes")


def sample(pid: int) -> dict[str, float]:
    """Of a server and its children: proportional memory, open descriptors, threads, processes."""
    total = dict.fromkeys(MEASURES, 0.0)
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            total["memory MiB"] += process.memory_full_info().pss / 2**20
            total["descriptors"] += process.num_fds()
            total["threads"] += process.num_threads()
            total["processes"] += 1
    return total


async def watch(pid: int, samples: list[dict[str, Any]]) -> None:
    """Add a sample every `EVERY_SECONDS`, with its `seconds` since the first, until cancelled."""
    start = time.monotonic()
    while True:
        samples.append({"seconds": time.monotonic() - start, **sample(pid)})
        await asyncio.sleep(EVERY_SECONDS)
