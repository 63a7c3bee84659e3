"""Clients that ask at once, hold each answer against what it must be, and keep count."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import httpx

from loadtests.soak.mix import Mix, Request

TIMEOUT_SECONDS: Final = 120
CANARY: Final[dict[str, Any]] = {
    "prompt": "The sea is",
    "max_tokens": 24,
    "temperature": 0,
    "routing": {"mode": "sample", "temperature": 1.5, "seed": 7, "scope": "all"},
}
CANARY_EVERY: Final = 200  # requests


class Tally:
    """What was asked and what went wrong.

    asked: requests with a valid policy, by (mode, preset); refused: of those, by a 4xx.
    problems: a line each.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.left = 0
        self.statuses = Counter[int]()
        self.asked = Counter[tuple[str, str]]()
        self.refused = Counter[tuple[str, str]]()
        self.problems: list[str] = []
        self.canary: str | None = None


class Clients:
    """`in_flight` clients of a server, until they are told to stop."""

    def __init__(self, url: str, mix: Mix, in_flight: int, seed: int = 0) -> None:
        self.tally = Tally()
        self._url = url
        self._mix = mix
        self._in_flight = in_flight
        self._rng = random.Random(seed)

    async def run(self, seconds: float, progress: Callable[[], object]) -> None:
        """Ask for so long, then let all end. progress: called after each request."""
        end = time.monotonic() + seconds
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._in_flight)
        async with httpx.AsyncClient(
            base_url=self._url, timeout=TIMEOUT_SECONDS, limits=limits
        ) as client:

            async def ask_on() -> None:
                while time.monotonic() < end:
                    await self._ask(client)
                    progress()

            async with asyncio.TaskGroup() as group:
                for _ in range(self._in_flight):
                    group.create_task(ask_on())
            await self._ask_canary(client)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        if self.tally.sent % CANARY_EVERY == 0:
            await self._ask_canary(client)
        request = self._mix.draw()
        self.tally.sent += 1
        if request.mode:
            self.tally.asked[request.mode, request.preset] += 1
        try:
            problem = await self._answer(client, request)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            problem = repr(error)
        if problem:
            self.tally.problems.append(
                f"{request.path} {json.dumps(request.body)[:300]}: {problem}"
            )

    async def _answer(self, client: httpx.AsyncClient, request: Request) -> str | None:
        """What is wrong with the answer."""
        async with client.stream("POST", request.path, json=request.body) as answer:
            self.tally.statuses[answer.status_code] += 1
            if answer.status_code not in request.statuses:
                return f"{answer.status_code} {(await answer.aread())[:300]!r}"
            if answer.status_code != 200:
                if request.mode:
                    self.tally.refused[request.mode, request.preset] += 1
                return None
            shown = json.loads(answer.headers["x-routing-policy"])
            if shown["mode"] != request.mode:
                return f"followed {shown}"
            if request.leaves:
                self.tally.left += 1
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rng.random()):
                        await answer.aread()
                return None
            text = (await answer.aread()).decode()
        if not request.streams:
            return None if "routing" in json.loads(text) else "no echo"
        if '"routing"' not in text or '"error"' in text:
            return f"a stream that ends in {text[-200:]!r}"
        return None

    async def _ask_canary(self, client: httpx.AsyncClient) -> None:
        """One request that must be answered alike throughout; not counted among the others."""
        answer = (await client.post("/v1/completions", json=CANARY)).json()
        text = answer["choices"][0]["text"]
        self.tally.asked["sample", ""] += 1
        if self.tally.canary is None:
            self.tally.canary = text
        if text != self.tally.canary:
            self.tally.problems.append(f"the canary says {text!r}, before {self.tally.canary!r}")
