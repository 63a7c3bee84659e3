"""The path update: a bias per layer and expert, moved by the reward of what it routes.

An evolution strategy (Salimans et al., arXiv 1703.03864): candidates around the present bias
are tried on the next examples, and the bias moves towards those that did better. A
score-function update would need the probability of every choice that was made, which a trace
does not hold, and would hold for softmax routers only; this one needs nothing but the metric,
whatever the router's rule, and each of its candidates is just another request to the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.policy.keys import MAX_BIAS
from routing.spec import RouterSpec

Bias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PathUpdate:
    """population: candidates per update, even: they come in pairs, bias + d and bias - d, whose
    common noise cancels. sigma: standard deviation of d, in units of router logits. rate: the
    step's length, in units of sigma. minibatch: examples per update.
    """

    spec: RouterSpec
    population: int = 16
    sigma: float = 0.5
    rate: float = 1.0
    minibatch: int = 32
    frozen: frozenset[int] = frozenset()
    seed: int = 0

    def start(self) -> Bias:
        """[L, E] zeros: the model's own routing."""
        return np.zeros((len(self.spec.layers), self.spec.num_experts))

    def candidates(self, bias: Bias, generation: int) -> Bias:
        """[population, L, E] what to try. The same again for the same generation."""
        return self._clipped(bias + self.sigma * self._directions(generation))

    def updated(self, bias: Bias, generation: int, rewards: NDArray[Any]) -> Bias:
        """[L, E] after the [population] rewards of `candidates`, higher being better.

        Rewards count by their rank, ties by their mean rank: the step does not depend on the
        metric's unit, and there is none where all are equal. Rounded, so that the preset file
        holds exactly what was measured.
        """
        below = (rewards[:, None] > rewards).sum(1)
        above = (rewards[:, None] < rewards).sum(1)
        utilities = (below - above) / len(rewards)  # mean 0, within -1..1
        step = np.tensordot(utilities, self._directions(generation), 1) / len(rewards)
        return self._clipped(bias + self.rate * self.sigma * step * np.sqrt(len(rewards)))

    def examples(self, generation: int, num_examples: int) -> list[int]:
        """Which examples serve this generation: all of them in turn, each round shuffled."""
        size = min(self.minibatch, num_examples)
        per_round = num_examples // size
        shuffled = np.random.default_rng([self.seed, 1, generation // per_round])
        first = generation % per_round * size
        return [int(i) for i in shuffled.permutation(num_examples)[first : first + size]]

    def _directions(self, generation: int) -> Bias:
        rng = np.random.default_rng([self.seed, 0, generation])
        half = rng.standard_normal((self.population // 2, *self.start().shape))
        half[:, [row for row, layer in enumerate(self.spec.layers) if layer in self.frozen]] = 0
        return np.concatenate([half, -half])

    def _clipped(self, bias: Bias) -> Bias:
        clipped: Bias = bias.clip(-MAX_BIAS, MAX_BIAS).round(4)
        return clipped


def bias_routing(bias: Bias, spec: RouterSpec) -> dict[str, Any]:
    """The `routing` object that adds [L, E] `bias` to the logits of the choice."""
    steering = {
        str(layer): {str(expert): float(row[expert]) for expert in np.flatnonzero(row)}
        for layer, row in zip(spec.layers, bias, strict=True)
        if row.any()
    }
    return {"mode": "top_k", "bias": steering} if steering else {"mode": "top_k"}
