"""From a policy to its scores: every example asked, answered and judged, in one batch."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from models.tuning.data import DataError, Example
from models.tuning.metrics import Metric, Scores
from routing.engine.request import Request
from routing.policy.seed import MAX_SEED


class Engine(Protocol):
    """What is needed of `routing.engine.offline.OfflineEngine`."""

    tokenizer: Any
    max_model_len: int

    def generate(self, requests: Sequence[Request]) -> list[str]: ...

    def prompt_logprobs(self, requests: Sequence[Request]) -> list[list[float]]: ...


@dataclass(frozen=True, slots=True)
class Asking:
    """How answers are asked for. samples: per example. temperature: of tokens, 0 is greedy.

    scope: of the policy, see `routing.policy`.
    seed: where all noise starts. Every example and sample has its own, the same under every
    policy, so that policies differ by themselves and not by their luck.
    """

    samples: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    scope: str = "decode"
    chat_template: str | None = None


class Objective:
    """Scores of policies on one split.

    split: its name, which keeps its noise apart from other splits'. Raises DataError for an
    example that is too long for the model.
    """

    def __init__(
        self,
        engine: Engine,
        examples: Sequence[Example],
        metric: Metric,
        asking: Asking,
        split: str,
    ) -> None:
        self.engine = engine
        self.examples = examples
        self.metric = metric
        self.asking = asking
        self.split = split
        self._prompts = [self._prompt_ids(example) for example in examples]
        # Only where the metric is of the reference itself.
        self._references = [
            [] if metric.score else self._reference_ids(example) for example in examples
        ]
        for example, *parts in zip(examples, self._prompts, self._references, strict=True):
            self._check_length(example, sum(map(len, parts)))

    def in_scope(self, routing: Mapping[str, Any]) -> dict[str, Any]:
        """The policy that is measured: perplexity's is of the prompt too, where references are."""
        scope = "all" if self.metric.score is None else self.asking.scope
        return {**routing, "scope": scope} if scope != "decode" else dict(routing)

    def scores(
        self, routings: Sequence[Mapping[str, Any]], chosen: Sequence[int] | None = None
    ) -> list[Scores]:
        """Of each policy, on the chosen examples (default: all)."""
        chosen = range(len(self.examples)) if chosen is None else chosen
        if self.metric.score is None:
            return self._perplexities(routings, chosen)
        samples = self.asking.samples
        answers = iter(
            self.engine.generate(
                [
                    self._request(routing, number, sample)
                    for routing in routings
                    for number in chosen
                    for sample in range(samples)
                ]
            )
        )
        found = []
        for _ in routings:
            values = [
                self.metric.score(
                    [next(answers) for _ in range(samples)], self.examples[number].references
                )
                for number in chosen
            ]
            found.append(Scores(self.metric, np.array(values), np.ones(len(chosen))))
        return found

    def _perplexities(
        self, routings: Sequence[Mapping[str, Any]], chosen: Sequence[int]
    ) -> list[Scores]:
        lengths = np.array([len(self._references[number]) for number in chosen])
        logprobs = iter(
            self.engine.prompt_logprobs(
                [
                    self._request(routing, number, 0, then=self._references[number])
                    for routing in routings
                    for number in chosen
                ]
            )
        )
        return [
            Scores(
                self.metric,
                np.array([-np.mean(next(logprobs)[-length:]) for length in lengths]),
                lengths.astype(float),
            )
            for _ in routings
        ]

    def _request(
        self, routing: Mapping[str, Any], number: int, sample: int, then: Sequence[int] = ()
    ) -> Request:
        noise = random.Random(f"{self.split} {self.asking.seed} {number} {sample}")
        seeded = {"seed": noise.randrange(MAX_SEED + 1)} if routing["mode"] != "top_k" else {}
        return Request(
            [*self._prompts[number], *then],
            {**routing, **seeded},
            self._max_tokens(number),
            self.asking.temperature,
            noise.randrange(2**31) if self.asking.temperature else None,
        )

    def _max_tokens(self, number: int) -> int:
        return min(self.asking.max_tokens, self.engine.max_model_len - len(self._prompts[number]))

    def _prompt_ids(self, example: Example) -> list[int]:
        tokenizer = self.engine.tokenizer
        if example.is_chat:
            ids = tokenizer.apply_chat_template(
                example.messages(),
                chat_template=self.asking.chat_template,
                add_generation_prompt=True,
                return_dict=False,
            )
        else:
            ids = tokenizer.encode(example.prompt)
        return list(ids)

    def _reference_ids(self, example: Example) -> list[int]:
        return list(self.engine.tokenizer.encode(example.references[0], add_special_tokens=False))

    def _check_length(self, example: Example, num_tokens: int) -> None:
        most = self.engine.max_model_len - 1
        if num_tokens > most:
            raise DataError(
                f"{self.split} data, line {example.line}: {num_tokens} tokens, "
                f"the model takes at most {most} and one more"
            )
