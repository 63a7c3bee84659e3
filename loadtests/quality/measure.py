"""From answers to numbers: right ones, passes at n, work, balance, speed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from loadtests.client import IN_FLIGHT, Answer
from loadtests.quality.questions import Question, ask, stats_of
from loadtests.quality.rows import Row
from models.demo import EXPERTS, LAYERS
from models.demo.language.data import Example
from models.demo.language.scores import Score, held_out, tally

PASSES: Final = (1, 4, 8, 16)
SAMPLES: Final = max(PASSES)
TIMED_TOKENS: Final = 128
Load = NDArray[np.int64]


@dataclass(frozen=True)
class Passes:
    """Of questions answered 16 times; one entry for each n of PASSES.

    share: chance that one of n answers is right, mean over the questions. half: half the width of
    that mean's 95 % interval. distinct: mean number of different answers among the 16.
    """

    share: list[float]
    half: list[float]
    distinct: float


@dataclass(frozen=True)
class Measured:
    """What was found of a row.

    experts: mean number per generated token and layer. overlap: share of the model's own top-k
    among them, of generated tokens. busiest: load of the busiest expert of a layer over the mean,
    mean of layers. rates: generated tokens a second, round by round.
    """

    row: Row
    scores: list[Score]
    experts: float
    overlap: float
    busiest: float
    passes: Passes | None = None
    rates: list[float] = field(default_factory=list)


def load_of(answer: Answer, phases: Sequence[str] = ("prompt", "generated")) -> Load:
    """[LAYERS, EXPERTS] the tokens that each expert computed for an answer."""
    stats = stats_of(answer)
    load = np.zeros((LAYERS, EXPERTS), np.int64)
    for phase in phases:
        for row, layer in enumerate(stats[phase]["layers"]):
            for expert, tokens in layer["assignments"].items():
                load[row, int(expert)] += tokens
    return load


def measure(url: str, row: Row, per_task: int, sampled_per_task: int) -> tuple[Measured, Load]:
    """Ask the held-out test questions, and those of a draw 16 times; also [N, L, E] loads."""
    todo = held_out("test", per_task)
    answers = ask(url, row, [Question(e.messages(), i) for i, e in enumerate(todo)], stats=True)
    loads = np.stack([load_of(answer) for answer in answers])
    generated = [stats_of(answer)["generated"] for answer in answers]
    layers = [(part["tokens"], layer) for part in generated for layer in part["layers"]]
    tokens = sum(count for count, _ in layers)
    measured = Measured(
        row,
        tally((e, answer.texts[0].strip()) for e, answer in zip(todo, answers, strict=True)),
        experts=sum(sum(layer["assignments"].values()) for _, layer in layers) / tokens,
        overlap=sum(count * layer["own_overlap_ratio"] for count, layer in layers) / tokens,
        busiest=busiest(loads.sum(axis=0)),
        passes=_passes(url, row, held_out("test", sampled_per_task, seed=1)) if row.draws else None,
    )
    return measured, loads


def busiest(load: Load) -> float:
    """[L, E] -> the largest over the mean of each layer, mean of layers; 1 is even."""
    return float((load.max(axis=1) / load.mean(axis=1)).mean())


def _passes(url: str, row: Row, todo: Sequence[Example]) -> Passes:
    answers = ask(url, row, [Question(e.messages(), i, SAMPLES) for i, e in enumerate(todo)])
    texts = [[text.strip() for text in answer.texts] for answer in answers]
    right = [sum(map(e.accepts, each)) for e, each in zip(todo, texts, strict=True)]
    distinct = sum(len(set(each)) for each in texts) / len(texts)
    shares = np.array([[pass_at(n, SAMPLES, c) for c in right] for n in PASSES])
    halves = 1.96 * shares.std(axis=1, ddof=1) / math.sqrt(len(todo))
    return Passes(shares.mean(axis=1).tolist(), halves.tolist(), distinct)


def pass_at(n: int, samples: int, right: int) -> float:
    """Chance that one of n answers, drawn from `samples` of which `right` are, is right.

    The unbiased estimate of Chen et al. 2021 (2107.03374), 1 - C(samples - right, n) /
    C(samples, n).
    """
    return 1 - math.comb(samples - right, n) / math.comb(samples, n)


def rate(url: str, row: Row) -> float:
    """Generated tokens a second: 32 questions at once, 128 tokens each.

    One wave: with more questions than places, what was measured was how the second wave happened
    to meet the first.
    """
    todo = held_out("test", -(-IN_FLIGHT // 13))[:IN_FLIGHT]
    questions = [Question(e.messages(), i, 1, TIMED_TOKENS) for i, e in enumerate(todo)]
    began = time.perf_counter()
    answers = ask(url, row, questions)
    seconds = time.perf_counter() - began
    return sum(answer.usage["completion_tokens"] for answer in answers) / seconds


def score(scores: Iterable[Score], task: str, difficulty: str = "all") -> Score | None:
    """The score of a task or group and difficulty, if there is one."""
    for found in scores:
        if (found.task, found.difficulty) == (task, difficulty):
            return found
    return None


def as_json(measured: Measured) -> dict[str, Any]:
    """For results.json."""
    return {**asdict(measured), "scores": [list(astuple(s)) for s in measured.scores]}


def from_json(found: dict[str, Any]) -> Measured:
    """What `as_json` made."""
    row, scores = Row(**found["row"]), [Score(*values) for values in found["scores"]]
    passes = found["passes"] and Passes(**found["passes"])
    return Measured(**{**found, "row": row, "scores": scores, "passes": passes})
