"""Requests that come at several times the rate that a server can answer."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.promises.result import Result
from loadtests.raw import ask, post
from loadtests.servers import galton, running

RATES: Final = (0.5, 1.0, 2.0, 5.0)  # times the capacity
SECONDS: Final = 60
PATIENCE_SECONDS: Final = 30
TOKENS: Final = 64
GOODPUT: Final = 0.9
REFUSAL_MS: Final = 100
MAX_NUM_SEQS: Final = 32


@dataclass
class Seen:
    """answered: whole, while requests came. refused: seconds until each 503 with `Retry-After`."""

    until: float
    answered: int = 0
    refused: list[float] = field(default_factory=list)
    other: int = 0


async def measure(log: Path, quick: bool) -> list[Result]:
    """Answers per second at each rate, and how soon the others are refused."""
    seconds = SECONDS / 10 if quick else SECONDS
    command = galton("serve", f"--max-num-seqs={MAX_NUM_SEQS}", "--max-num-queued-reqs=128")
    with running(command, log) as server:
        capacity = await _capacity(server.url, seconds)
        seen = {rate: await _offer(server.url, rate * capacity, seconds, rate) for rate in RATES}
    goodput = {rate: some.answered / seconds for rate, some in seen.items()}
    best, last = max(capacity, *goodput.values()), RATES[-1]
    refused = sorted(seen[last].refused) or [0.0]
    rates = ", ".join(f"{rate:g}x {value:.1f}" for rate, value in goodput.items())
    p50, p99 = median(refused) * 1000, refused[int(0.99 * len(refused))] * 1000
    unclear = seen[last].other
    return [
        Result(
            f"goodput at {last:g} times the capacity ({capacity:.1f} answers/s)",
            f"{GOODPUT:.0%} of the best",
            f"{goodput[last] / best:.0%} ({rates})",
            goodput[last] >= GOODPUT * best,
        ),
        Result(
            "who is too many is told so",
            f"503 within {REFUSAL_MS} ms",
            f"{len(refused):,} times, p50 {p50:.0f}, p99 {p99:.0f} ms; {unclear} other ends",
            p99 <= REFUSAL_MS and unclear == 0,
        ),
    ]


def _request(rng: random.Random) -> bytes:
    body = {
        "prompt": [rng.randrange(10, 1000) for _ in range(16)],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "routing": {"mode": "sample"},
    }
    return post("/v1/completions", body, {"Connection": "close"})


async def _ask(url: str, sent: bytes, seen: Seen) -> None:
    start = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await ask(url, sent)
    except (OSError, TimeoutError):
        answer = b""
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.lower().split(b"\r\n")
    is_whole = b"content-length: %d" % len(body) in fields
    if is_whole and head.startswith(b"HTTP/1.1 200 "):
        seen.answered += time.monotonic() < seen.until
    elif is_whole and head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in fields:
        seen.refused.append(time.perf_counter() - start)
    else:
        seen.other += 1


async def _capacity(url: str, seconds: float) -> float:
    """Answers per second where as many clients ask as the engine runs at once."""
    rng, seen = random.Random(0), Seen(time.monotonic() + seconds)

    async def ask_on() -> None:
        while time.monotonic() < seen.until:
            await _ask(url, _request(rng), seen)

    await asyncio.gather(*(ask_on() for _ in range(MAX_NUM_SEQS)))
    return seen.answered / seconds


async def _offer(url: str, per_second: float, seconds: float, rate: float) -> Seen:
    """Requests that come one after another, whatever becomes of those before: an open loop."""
    rng, seen = random.Random(1), Seen(time.monotonic() + seconds)
    tasks, due = [], time.monotonic()
    for _ in tqdm(range(int(per_second * seconds)), desc=f"{rate:g} times the capacity"):
        due += rng.expovariate(per_second)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(_ask(url, _request(rng), seen)))
    await asyncio.gather(*tasks)
    return seen
