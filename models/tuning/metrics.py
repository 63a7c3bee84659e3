"""How good answers are: one number per example, and how those become one number."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Score = Callable[[Sequence[str], Sequence[str]], float]


class MetricError(ValueError):
    """A metric that does not exist, or that gave no number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """score: (answers to one example, its references) -> a number; None for perplexity, which
    is of the reference itself and asks for no answer. samples: answers per example, unless the
    user says otherwise.
    """

    name: str
    score: Score | None
    higher_is_better: bool = True
    samples: int = 1
    needs_references: bool = True

    def summary(self, values: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
        """[..., N] values and weights of N examples -> [...] the metric: their mean.

        Of perplexity, values are nats per token and weights tokens: exp of the mean.
        """
        mean = (values * weights).sum(-1) / weights.sum(-1)
        return np.asarray(np.exp(mean) if self.score is None else mean)


@dataclass(frozen=True, slots=True)
class Scores:
    """values: [N] the metric of each example. weights: [N] what each counts."""

    metric: Metric
    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    def summary(self) -> float:
        return float(self.metric.summary(self.values, self.weights))


def exact_match(answers: Sequence[str], references: Sequence[str]) -> float:
    """Share of answers that equal a reference, but for white space around them."""
    return sum(map(_matches(references), answers)) / len(answers)


def pass_at_n(answers: Sequence[str], references: Sequence[str]) -> float:
    """1 if any of the answers equals a reference, else 0."""
    return float(any(map(_matches(references), answers)))


def diversity(answers: Sequence[str], _references: Sequence[str]) -> float:
    """Share of answers that are new: 0 if all are the same, 1 if all differ."""
    if len(answers) == 1:
        return 0.0
    return (len({answer.strip() for answer in answers}) - 1) / (len(answers) - 1)


def chrf(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean sentence-level chrF2 of the answers, 0 to 100 (Popović 2015, by sacrebleu)."""
    scorer = _chrf_scorer()
    scores = [scorer.sentence_score(answer, list(references)).score for answer in answers]
    return float(sum(scores) / len(scores))


@cache
def _chrf_scorer() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _matches(references: Sequence[str]) -> Callable[[str], bool]:
    right = {reference.strip() for reference in references}
    return lambda answer: answer.strip() in right


METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("exact_match", exact_match),
        Metric("chrf", chrf),
        Metric("perplexity", None, higher_is_better=False),
        Metric("pass_at_n", pass_at_n, samples=8),
        Metric("diversity", diversity, samples=8, needs_references=False),
    )
}


def find_metric(name: str) -> Metric:
    """A metric by its name, or a user's own as `module:function`. Raises MetricError.

    A user's function takes the list of answers to one example and the list of its references,
    which may be empty, and returns a number; higher is better. The module is looked for in the
    working directory too.
    """
    if name in METRICS:
        return METRICS[name]
    module, colon, function = name.partition(":")
    if not colon:
        accepted = ", ".join(METRICS)
        raise MetricError(f"must be one of {accepted}, or module:function, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        score = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise MetricError(f"{name!r} cannot be imported: {error}") from None
    if not callable(score):
        raise MetricError(f"{name!r} is not a function")
    return Metric(name, _checked(name, score), needs_references=False)


def _checked(name: str, score: Callable[..., Any]) -> Score:
    def checked(answers: Sequence[str], references: Sequence[str]) -> float:
        value = score(list(answers), list(references))
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise MetricError(f"{name!r} must return a finite number, returned {value!r}")
        return float(value)

    return checked
