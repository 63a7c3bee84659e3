"""Pooled clients that use their connections again just when a server may close them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Final

import httpx
from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.promises.result import Result
from loadtests.servers import galton, running

CONNECTIONS: Final = 1000
REQUESTS: Final = 100_000
# uvicorn's own time is 5 s: the race is then.
IDLE_SECONDS: Final = (4.8, 5.2)


async def measure(log: Path, quick: bool) -> list[Result]:
    """Connection errors with the server's own setting, and, as the control, with uvicorn's."""
    requests = REQUESTS // 10 if quick else REQUESTS
    own, _ = await _errors(log, requests, [])
    control, total = await _errors(log, requests // 10, ["--keep-alive-seconds=5"])
    promise = f"{requests:,} requests of {CONNECTIONS:,} pooled connections, idle for 5 s each time"
    measured = f"{own} errors (with `--keep-alive-seconds=5`: {control} in {total:,})"
    return [Result(promise, "no connection error", measured, own == 0)]


async def _errors(log: Path, requests: int, flags: list[str]) -> tuple[int, int]:
    rng = random.Random(0)
    outcomes = Counter[str]()
    limits = httpx.Limits(max_connections=1, keepalive_expiry=60)
    body = {"prompt": "The sea is"}
    with running(galton("serve", *flags), log) as server:
        bar = tqdm(total=requests, unit=" requests", desc=" ".join(["keep-alive", *flags]))

        async def ask_on() -> None:
            async with httpx.AsyncClient(timeout=60, limits=limits) as client:
                for _ in range(max(1, requests // CONNECTIONS)):
                    try:
                        answer = await client.post(f"{server.url}/tokenize", json=body)
                        outcomes[str(answer.status_code)] += 1
                    except httpx.TransportError as error:
                        outcomes[type(error).__name__] += 1
                    bar.update()
                    await asyncio.sleep(rng.uniform(*IDLE_SECONDS))

        async def begin(number: int) -> None:
            await asyncio.sleep(number * IDLE_SECONDS[0] / CONNECTIONS)
            await ask_on()

        with bar:
            await asyncio.gather(*map(begin, range(CONNECTIONS)))
    return outcomes.total() - outcomes["200"], outcomes.total()
