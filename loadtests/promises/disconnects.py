"""A thousand clients that leave."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from loadtests.promises.result import Result
from loadtests.raw import address, post
from loadtests.servers import galton, running

CLIENTS: Final = 1000
AT_ONCE: Final = 100
SECONDS: Final = 1.0
BODY: Final[dict[str, Any]] = {"max_tokens": 1500, "routing": {"mode": "sample"}}
MESSAGES: Final = [{"role": "user", "content": "Write a poem about the sea."}]
# How they leave: path, body, and the bytes that they read before.
WAYS: Final[dict[str, tuple[str, dict[str, Any], int]]] = {
    "before the first token": ("/v1/completions", {"prompt": "The sea is", "ignore_eos": True}, 0),
    "in a stream": (
        "/v1/completions",
        {"prompt": "The sea is", "ignore_eos": True, "stream": True},
        500,
    ),
    "in a batch": ("/v1/chat/completions/batch", {"messages": [MESSAGES] * 3}, 0),
    "in a response": ("/v1/responses", {"input": "Write a poem.", "max_output_tokens": 1500}, 0),
}


async def measure(log: Path, quick: bool) -> list[Result]:
    """Seconds from the last one's leaving until no block is taken, and what was counted."""
    clients = CLIENTS // 10 if quick else CLIENTS
    results = []
    with running(galton("serve", "--max-num-queued-reqs=2000"), log) as server:
        for way, (path, body, reads) in WAYS.items():
            before = _aborts(server.url)
            slowest = 0.0
            for _ in range(clients // AT_ONCE):
                slowest = max(slowest, await _leave(server.url, path, {**BODY, **body}, reads))
            counted = int(_aborts(server.url) - before)
            measured = f"{slowest:.2f} s at most, {counted:,} counted as aborts"
            is_kept = slowest <= SECONDS and counted == clients
            promise = f"{clients:,} clients leave {way}, {AT_ONCE} at once: their blocks are free"
            results.append(Result(promise, f"within {SECONDS:g} s, all counted", measured, is_kept))
    return results


async def _leave(url: str, path: str, body: dict[str, Any], reads: int) -> float:
    """Seconds until the key-value cache is empty once all have left."""
    sent = post(path, {"model": "galton-demo", **body})

    async def begin() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(*address(url))
        writer.write(sent)
        await writer.drain()
        if reads:
            await reader.readexactly(reads)
        return writer

    writers = await asyncio.gather(*(begin() for _ in range(AT_ONCE)))
    await asyncio.sleep(0.5)
    for writer in writers:
        writer.transport.abort()
    left = time.monotonic()
    while _gauge(url, "vllm:kv_cache_usage_perc") or _gauge(url, "vllm:num_requests_running"):
        await asyncio.sleep(0.02)
    return time.monotonic() - left


def _gauge(url: str, name: str, **labels: str) -> float:
    page = httpx.get(f"{url}/metrics/serving", timeout=60).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def _aborts(url: str) -> float:
    return _gauge(url, "galton_requests_total", outcome="abort")
