"""Clients that go on asking while something happens to their server."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx

from tests.shared.servers import MODEL, Server, eventually

CLIENTS: Final = 8
HANG_SECONDS: Final = 60
REQUESTS: Final[tuple[dict[str, Any], ...]] = (
    {"prompt": "The sea is"},
    {"prompt": "The old man reads", "routing": {"mode": "sample", "seed": 7, "scope": "all"}},
    {"prompt": "Rain falls on", "routing": {"mode": "top_p", "top_p": 0.7}},
    {"prompt": "In the garden", "routing": {"mode": "head_sample", "seed": 8, "temperature": 2}},
)


class Neighbours:
    """`CLIENTS` threads, each of which streams one request after another.

    outcomes: how many ended `whole`; in an `error`, which the server told; `refused`, with a 503
    before the first byte; or `cut`. wrong: texts that are not those that the server gave in peace.
    """

    def __init__(self, server: Server) -> None:
        self.outcomes = Counter[str]()
        self.wrong: list[str] = []
        self._url = f"{server.url}/v1/completions"
        self._expected = [self._ask(request)[1] for request in REQUESTS]
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=[i]) for i in range(CLIENTS)]

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """They ask, from before the block to its end; then each ends its last request."""
        for thread in self._threads:
            thread.start()
        try:
            assert eventually(lambda: self.outcomes.total() >= CLIENTS)
            yield
        finally:
            self._end.set()
            for thread in self._threads:
                thread.join(HANG_SECONDS)
            hung = sum(thread.is_alive() for thread in self._threads)
        assert hung == 0, f"{hung} clients hang"
        assert not self.wrong, self.wrong

    def _ask_on(self, number: int) -> None:
        which = number % len(REQUESTS)
        while not self._end.is_set():
            outcome, text = self._ask(REQUESTS[which])
            self.outcomes[outcome] += 1
            if outcome == "whole" and text != self._expected[which]:
                self.wrong.append(text)
            if outcome != "whole":
                self._end.wait(0.1)

    def _ask(self, request: Mapping[str, Any]) -> tuple[str, str]:
        body = {"model": MODEL, "max_tokens": 48, "temperature": 0, "ignore_eos": True, **request}
        text = ""
        try:
            with httpx.stream(
                "POST", self._url, json={**body, "stream": True}, timeout=HANG_SECONDS
            ) as answer:
                if answer.status_code != 200:
                    return ("refused" if "retry-after" in answer.headers else "error"), ""
                for line in filter(None, answer.iter_lines()):
                    if line == "data: [DONE]":
                        return "whole", text
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        return "error", ""
                    text += event["choices"][0]["text"] if event["choices"] else ""
        except httpx.TimeoutException:
            self.wrong.append(f"no byte for {HANG_SECONDS} s")
        except httpx.TransportError:
            pass
        return "cut", ""
