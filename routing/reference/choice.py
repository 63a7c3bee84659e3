"""One token at one layer, as the modes see it, and how the best experts are taken.

Everything between a model's logits and a mode's own idea is here: steering, groups, the
model's scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from routing.reference.rule import Floats, Ids, RouterRule, scores, selection_scores


@dataclass(frozen=True, slots=True)
class Token:
    """One token at one layer.

    logits: [E] clean router logits plus the request's bias.
    gumbel: [E] the token's noise.
    gate: [E] -inf for an expert that may not be chosen, +inf for one that must be, else 0.
    rule: the layer's own. native_top_k: the model's own number of experts.
    replayed: the experts that a trace holds for the token, best first.
    """

    logits: Floats
    gumbel: Floats
    gate: Floats
    rule: RouterRule
    native_top_k: int
    replayed: Ids = field(default_factory=lambda: np.zeros(0, np.int64))

    def best(self, logits: Floats, count: int) -> Ids:
        """The `count` best experts by the model's own scores of `logits`."""
        return self.largest(selection_scores(self.rule, logits), count)

    def largest(self, values: Floats, count: int) -> Ids:
        """The `count` experts of largest value, equal ones by lower id; forced ones first.

        Values are compared in float32. Fewer, where fewer may be chosen.
        """
        values = np.where(self.gate == 0, values.astype(np.float32), self.gate)
        order = np.argsort(-values, kind="stable")
        return order[values[order] > -np.inf][:count]

    def masses(self) -> Floats:
        """[E] the router's scores; 0 for an expert that may not be chosen."""
        return np.where(self.gate >= 0, scores(self.rule, self.logits), 0.0)
