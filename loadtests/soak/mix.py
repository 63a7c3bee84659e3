"""What clients send: every endpoint, mode and preset, streamed or whole, some of it wrong."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

LEAVING, WRONG = 0.05, 0.02  # shares of all requests
MODES: Final[tuple[dict[str, Any], ...]] = (
    {"mode": "top_k"},
    {"mode": "top_k", "top_k": 2},
    {"mode": "sample", "temperature": 0.7},
    {"mode": "sample", "temperature": [0, 0, 1, 1, 2, 2, 0.5, 0], "scope": "all"},
    {"mode": "top_p", "top_p": 0.8},
    {"mode": "head_sample", "temperature": 2.0},
    {"mode": "uniform", "weights": "preserve_mass"},
)
_WORDS: Final = (
    *("the", "cat", "sleeps", "in", "the", "garden", "and", "the", "old", "man", "reads", "a"),
    *("long", "letter", "near", "the", "window", "of", "his", "house", "while", "it", "rains"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    mode: of its policy, "" where that is wrong and not counted. leaves: the client hangs up before
    the answer ends. statuses: what it may be answered with.
    """

    path: str
    body: dict[str, Any]
    mode: str
    preset: str = ""
    leaves: bool = False
    statuses: frozenset[int] = field(default=frozenset({200}))

    @property
    def streams(self) -> bool:
        """Whether the answer comes in events."""
        return bool(self.body.get("stream"))


class Mix:
    """Requests without end, the same for the same seed.

    presets: {name: mode}. trace: of this server, for `replay`.
    """

    def __init__(self, model: str, presets: dict[str, str], trace: str, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._model = model
        self._presets = presets
        self._policies = (*MODES, {"mode": "replay", "trace": trace})

    def draw(self) -> Request:
        """The next one."""
        rng = self._rng
        path, body = rng.choice(self._forms())()
        body["model"] = self._model
        preset, mode = "", "top_k"
        how = rng.random()
        if how < 0.3:
            preset = rng.choice(sorted(self._presets))
            mode = self._presets[preset]
            body["model"] = f"{self._model}-{preset}"
        elif how < 0.9:
            body["routing"] = dict(rng.choice(self._policies))
            mode = body["routing"]["mode"]
        if rng.random() < WRONG:
            return self._spoiled(path, body)
        leaves = rng.random() < LEAVING
        if "batch" not in path:
            body["stream"] = leaves or rng.random() < 0.5
        return Request(path, body, mode, preset, leaves=leaves)

    def _spoiled(self, path: str, body: dict[str, Any]) -> Request:
        wrong: Sequence[dict[str, Any]] = (
            {"routing": {"mode": "best"}},
            {"routing": {"mode": "sample", "temperature": -1}},
            {"routing": {"mode": "sample", "ban": {"*": [0]}}},
            {"routing": "nobody"},
            {"model": "nobody"},
        )
        spoiled = self._rng.choice(wrong)
        mode = "" if "routing" in spoiled else "top_k"
        body.pop("routing", None)
        return Request(
            path, {**body, "model": self._model, **spoiled}, mode, statuses=frozenset({400, 404})
        )

    def _text(self) -> str:
        rng = self._rng
        return " ".join(rng.choices(_WORDS, k=int(rng.lognormvariate(3, 1)) + 1)[:300])

    def _forms(self) -> Sequence[Any]:
        rng = self._rng
        most = int(rng.lognormvariate(2.5, 1)) % 128 + 1
        sampling = {"temperature": rng.choice([0, 0.7]), "max_tokens": most}
        messages = [{"role": "user", "content": self._text()}]

        def completion() -> tuple[str, dict[str, Any]]:
            n = rng.choice([1, 1, 1, 3])
            several = {"n": n, "temperature": 1} if n > 1 else {}
            return "/v1/completions", {"prompt": self._text(), **sampling, **several}

        def chat() -> tuple[str, dict[str, Any]]:
            return "/v1/chat/completions", {"messages": messages, **sampling}

        def batch() -> tuple[str, dict[str, Any]]:
            return "/v1/chat/completions/batch", {"messages": [messages] * 2, **sampling}

        def response() -> tuple[str, dict[str, Any]]:
            return "/v1/responses", {"input": self._text(), "max_output_tokens": most}

        def message() -> tuple[str, dict[str, Any]]:
            return "/v1/messages", {"messages": messages, "max_tokens": most}

        return completion, completion, chat, chat, batch, response, message


def learned(url: str) -> tuple[dict[str, str], str]:
    """A server's presets with their modes, and a trace: what a `Mix` for it is made with."""
    presets = httpx.get(f"{url}/v1/routing/presets", timeout=60).json()["data"]
    body = {"prompt": "The old man reads", "max_tokens": 40, "routing": {"include": ["trace"]}}
    answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
    (trace,) = answer["routing"]["trace"]
    return {preset["id"]: preset["policy"]["mode"] for preset in presets}, trace["data"]
