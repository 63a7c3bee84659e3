"""What scraping costs those who are being answered."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.client import COMPLETIONS, Client
from loadtests.promises.result import Result
from loadtests.scraper import scraper
from loadtests.servers import galton, running

PER_SECOND: Final = 50
PAIRS: Final = 10
SECONDS: Final = 6  # of each half of a pair: a minute of scraping in all
CLIENTS: Final = 4
RATIO: Final = 1.02
PATHS: Final = ("/metrics/serving", "/metrics")


async def measure(log: Path, quick: bool) -> list[Result]:
    """The p99 of inter-token latency with scrapes over that without, in alternating pairs."""
    pairs = 2 if quick else PAIRS
    results = []
    with running(galton("serve"), log) as server:
        for path in PATHS:
            ratios = []
            with scraper(server.url, path, PER_SECOND) as is_wanted:
                for _ in tqdm(range(pairs), desc=f"{PER_SECOND} scrapes of {path} per second"):
                    is_wanted.clear()
                    without = await _p99(server.url)
                    is_wanted.set()
                    ratios.append(await _p99(server.url) / without)
            ratios.sort()
            middle = median(ratios)
            measured = f"{middle:.3f} (of {pairs} pairs, {ratios[0]:.3f} to {ratios[-1]:.3f})"
            promise = f"p99 inter-token latency with {PER_SECOND} scrapes of {path} per second"
            results.append(Result(promise, f"{RATIO} of that without", measured, middle <= RATIO))
    return results


async def _p99(url: str) -> float:
    """Of streams that go on meanwhile, in seconds."""
    rng = random.Random(0)
    end = time.monotonic() + SECONDS
    gaps: list[float] = []

    async def read(client: Client) -> None:
        while time.monotonic() < end:
            prompt = [rng.randrange(10, 1000) for _ in range(16)]
            body = {"prompt": prompt, "max_tokens": 200, "ignore_eos": True, "stream": True}
            gaps.extend((await client.ask(body, COMPLETIONS)).itl_seconds)

    async with Client(url, CLIENTS) as client:
        await asyncio.gather(*(read(client) for _ in range(CLIENTS)))
    return quantiles(gaps, n=100)[-1]
