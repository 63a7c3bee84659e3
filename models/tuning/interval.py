"""What may be called a gain: a paired bootstrap over examples of the test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from models.tuning.metrics import Scores

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
GAIN, NO_GAIN, LOSS = "gain", "no gain shown", "loss"
_CHUNK: Final = 500  # resamples at once, which bounds memory


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better, in the metric's unit; above 0 is better also where less is better."""

    estimate: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """A gain only where the whole interval is above 0."""
        if self.low > 0:
            return GAIN
        return LOSS if self.high < 0 else NO_GAIN


def paired_gain(own: Scores, tuned: Scores, seed: int = 0) -> Gain:
    """Percentile interval of the difference on the same examples, drawn with replacement.

    own, tuned: scores of the same N examples. Source: Efron & Tibshirani 1993; for paired
    systems on one test set, Koehn 2004 (W04-3250).
    """
    assert len(own.values) == len(tuned.values), "not the same examples"
    rng = np.random.default_rng(seed)
    num = len(own.values)
    drawn = []
    for _ in range(RESAMPLES // _CHUNK):
        # How often each example occurs stands for the examples drawn: only sums are needed.
        counts = rng.multinomial(num, np.full(num, 1 / num), size=_CHUNK)
        drawn.append(_difference(own, tuned, counts))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Gain(float(_difference(own, tuned, np.ones(num))), float(low), float(high))


def _difference(own: Scores, tuned: Scores, counts: np.ndarray) -> np.ndarray:
    metric = tuned.metric
    better = metric.summary(tuned.values, tuned.weights * counts)
    worse = metric.summary(own.values, own.weights * counts)
    difference = better - worse if metric.higher_is_better else worse - better
    return np.asarray(difference)
