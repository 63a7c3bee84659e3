"""What was found, as a presets file: policies with their results on both splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.tuning.interval import CONFIDENCE, paired_gain
from models.tuning.metrics import Scores
from models.tuning.spaces import Routing
from routing.policy.presets import write_presets

FIRST_LINE: Final = "# Written by `galton tune`, which overwrites this file."
NOT_TESTED: Final = "not tested"


class ReportError(ValueError):
    """A file that must not be overwritten."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found. Values are on the validation data, which chose the policy.

    own: the model's own top-k. random: the best of as many random trials; None where the search
    has no such baseline. test: scores on the test split of own, of the policy and, with a
    baseline, of that; none without a test split. experts: per token, of own and of the policy.
    """

    search: str
    routing: Routing
    metric: str
    trials: int
    seed: int
    own: float
    value: float
    random: float | None
    num_examples: int
    experts: tuple[float, float]
    test: Sequence[Scores] = ()

    @property
    def verdict(self) -> str:
        if not self.test:
            return NOT_TESTED
        return paired_gain(self.test[0], self.test[1]).verdict

    def results(self) -> dict[str, Any]:
        """The preset's table `results`; numbers have four decimals."""
        baseline = {} if self.random is None else {"random": _rounded(self.random)}
        results = {
            "search": self.search,
            "metric": self.metric,
            "trials": self.trials,
            "seed": self.seed,
            "experts_per_token": {"own": self.experts[0], "tuned": self.experts[1]},
            "verdict": self.verdict,
            "validation": {
                "examples": self.num_examples,
                "own": _rounded(self.own),
                "tuned": _rounded(self.value),
                **baseline,
            },
        }
        return {**results, "test": self._test()} if self.test else results

    def _test(self) -> dict[str, Any]:
        own, tuned, *rest = self.test
        gain = paired_gain(own, tuned)
        test = {
            "examples": len(own.values),
            "own": _rounded(own.summary()),
            "tuned": _rounded(tuned.summary()),
            "gain": _rounded(gain.estimate),
            "interval": [_rounded(gain.low), _rounded(gain.high)],
            "confidence": CONFIDENCE,
        }
        for random in rest:
            over = paired_gain(random, tuned)
            test["random"] = _rounded(random.summary())
            test["gain_over_random"] = _rounded(over.estimate)
            test["interval_over_random"] = [_rounded(over.low), _rounded(over.high)]
        return test

    def description(self) -> str:
        """One line for people: what was tuned, and whether it is a gain."""
        tuned = f"Tuned for {self.metric} ({self.search})"
        if not self.test:
            return f"{tuned}; not tested, so no gain is claimed"
        test = self._test()
        low, high = test["interval"]
        return (
            f"{tuned}: {self.verdict}, {test['tuned']:g} against {test['own']:g} on "
            f"{test['examples']} test examples, difference {test['gain']:+g} "
            f"({CONFIDENCE:.0%} interval {low:+g} to {high:+g})"
        )


def refuse_foreign(path: Path) -> None:
    """Raise ReportError if a file is there that `galton tune` did not write."""
    if path.exists() and not path.read_text(errors="replace").startswith(FIRST_LINE):
        raise ReportError(f"{path} exists and is not of galton tune's making: name another --out")


def write_found(path: Path, found: Mapping[str, Found]) -> None:
    """Write a presets file: name -> what the search of that preset found."""
    tables = {
        name: {"description": f.description(), "routing": f.routing, "results": f.results()}
        for name, f in found.items()
    }
    write_presets(path, f"{FIRST_LINE}\n# Results: models/tuning/README.md.", tables)


def _rounded(number: float) -> float:
    return round(number, 4)
