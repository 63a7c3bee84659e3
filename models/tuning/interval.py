"""What may be called a gain: a paired bootstrap over examples of the test split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from models.tuning.metrics import Scores

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 10_000
GAIN, NO_GAIN, LOSS = "gain", "no gain shown", "loss"
_BATCH: Final = 500  # resamples at once, which bounds memory
Array = NDArray[np.float64]


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
    metric = tuned.metric

    def difference(*examples: Array, axis: int = -1) -> Array:
        own_values, own_weights, values, weights = examples
        better = metric.summary(values, weights) - metric.summary(own_values, own_weights)
        return np.asarray(better if metric.higher_is_better else -better)

    examples = (own.values, own.weights, tuned.values, tuned.weights)
    estimate = float(difference(*examples))
    if len(own.values) == 1:  # drawn from one example, all resamples are alike
        return Gain(estimate, estimate, estimate)
    interval = bootstrap(
        examples,
        difference,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Gain(estimate, float(interval.low), float(interval.high))
