"""What is asked: text of the demo's language, so that experts see what they would in service.

Random tokens would not do: which experts a batch shares depends on what it says.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from loadtests.bench.scenario import Load, Scenario, Text
from models.demo.language.data import TRANSLATIONS, examples
from models.demo.language.scores import QUESTIONS

_TASKS: Final[dict[Text, tuple[str, ...]]] = {
    "chat": ("essay", "rewrite", "repeat"),
    "questions": QUESTIONS,
    "translation": TRANSLATIONS,
}
# Median and sigma of a lognormal distribution: people talk long, and are answered briefly.
_OUTPUT_TOKENS: Final[dict[Text, tuple[float, float]]] = {
    "chat": (128, 0.5),
    "questions": (24, 0.5),
    "translation": (48, 0.4),
}
_MOST_TOKENS: Final = 512


@dataclass(frozen=True)
class Question:
    """Messages of a chat, and how many tokens the answer is to have."""

    messages: list[dict[str, str]]
    output_tokens: int


def questions(scenario: Scenario, load: Load, key: str, variant: str = "") -> list[Question]:
    """`load.requests` of them, the same for the same `key` but for a number at the beginning, which
    is the variant's own: so no prompt is cached for another, and all have the same work.
    """
    rng, numbers = random.Random(key), random.Random(f"{key} {variant}")
    kinds = list(scenario.texts)
    streams = {kind: examples("train", rng.randrange(2**32), _TASKS[kind]) for kind in kinds}
    asked = []
    for number in range(load.requests):
        kind = rng.choices(kinds, list(scenario.texts.values()))[0]
        nonce = f"{numbers.randrange(10**6):06d} {number:03d}"
        messages = [{"role": "system", "content": f"{nonce}. You are a helpful assistant."}]
        for turn in range(load.history + 1):
            exchange = next(streams[kind]).messages(with_answer=turn < load.history)
            messages += [message for message in exchange if message["role"] != "system"]
        median, sigma = _OUTPUT_TOKENS[kind]
        drawn = round(median * rng.lognormvariate(0, sigma))
        tokens = load.output_tokens or max(1, min(drawn, _MOST_TOKENS))
        asked.append(Question(messages, tokens))
    return asked
