"""Where Optuna looks: a number per MoE layer, from which a `routing` object is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from routing.spec import RouterSpec

Routing = dict[str, Any]


class Suggests(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float) -> float: ...


class SpaceError(ValueError):
    """A space that is empty, or layers that the model does not have."""


class Space(Protocol):
    """name: of the search. start: the parameters of the first trial."""

    @property
    def name(self) -> str: ...

    @property
    def start(self) -> Mapping[str, float]: ...

    def suggest(self, trial: Suggests) -> Routing: ...


@dataclass(frozen=True, slots=True)
class TemperatureSpace:
    """A temperature of mode `sample` per layer, 0 to `maximum`; 0 in frozen layers.

    frozen: layers that keep the model's own choice, as decoder layer indices. RoE (arXiv
    2509.17238) freezes the first and last. The first trial is 0 everywhere: the model's own.
    """

    spec: RouterSpec
    maximum: float
    frozen: frozenset[int] = frozenset()
    name: str = "temperature"

    @property
    def start(self) -> dict[str, float]:
        return dict.fromkeys(map(_parameter, _free(self.spec, self.frozen)), 0.0)

    def suggest(self, trial: Suggests) -> Routing:
        temperatures = [
            0.0
            if layer in self.frozen
            else round(trial.suggest_float(_parameter(layer), 0, self.maximum), 4)
            for layer in self.spec.layers
        ]
        return {"mode": "sample", "temperature": temperatures}


@dataclass(frozen=True, slots=True)
class TopKSpace:
    """Experts per token in each layer, on average `budget`, which every trial spends whole.

    What is searched is how much of the budget each layer gets (0 to 1, relative), so no trial
    is lost to policies that cost too much. Frozen layers keep the model's own number. The
    first trial spreads the budget evenly.
    """

    spec: RouterSpec
    budget: float
    frozen: frozenset[int] = frozenset()
    name: str = "top_k"

    def __post_init__(self) -> None:
        self.allocation(np.ones(len(_free(self.spec, self.frozen))))

    @property
    def start(self) -> dict[str, float]:
        return dict.fromkeys(map(_parameter, _free(self.spec, self.frozen)), 1.0)

    def suggest(self, trial: Suggests) -> Routing:
        free = _free(self.spec, self.frozen)
        shares = np.array([trial.suggest_float(_parameter(layer), 0, 1) for layer in free])
        return {"mode": "top_k", "top_k": self.allocation(shares)}

    def allocation(self, shares: np.ndarray) -> list[int]:
        """[free layers] shares -> [L] experts. Raises SpaceError where the budget cannot be met."""
        free = _free(self.spec, self.frozen)
        own = self.spec.top_k
        total = int(self.budget * len(self.spec.layers) + 1e-9) - own * len(self.frozen)
        least, most = len(free), len(free) * self.spec.max_top_k
        if not least <= total <= most:
            held, num = own * len(self.frozen), len(self.spec.layers)
            low, high = (held + least) / num, (held + most) / num
            raise SpaceError(
                f"the budget must be from {low:g} to {high:g} experts per token, "
                f"got {self.budget:g}"
            )
        found = dict(zip(free, allocate(shares, total, self.spec.max_top_k), strict=True))
        return [found.get(layer, own) for layer in self.spec.layers]


def allocate(shares: np.ndarray, total: int, most: int) -> list[int]:
    """Whole numbers from 1 to `most` that sum to `total`, as near to the shares as can be.

    One unit at a time goes to the layer with the highest quotient share / (units + 1/2), as
    seats go to parties (Sainte-Laguë); equal quotients go to the earlier layer. `total` lies
    in len(shares)..len(shares) * most.
    """
    found = np.ones(len(shares), int)
    weights = np.maximum(shares, 1e-9)
    for _ in range(total - len(shares)):
        quotients = np.where(found < most, weights / (found + 0.5), -1.0)
        found[quotients.argmax()] += 1
    return [int(number) for number in found]


def frozen_layers(names: Sequence[str], spec: RouterSpec) -> frozenset[int]:
    """Layers by name: `first`, `last` or a decoder layer's index. Raises SpaceError."""
    known = {"first": spec.layers[0], "last": spec.layers[-1]}
    known |= {str(layer): layer for layer in spec.layers}
    for name in names:
        if name not in known:
            layers = ", ".join(map(str, spec.layers))
            raise SpaceError(f"must be of first, last, {layers}, got {name!r}")
    frozen = frozenset(known[name] for name in names)
    if len(frozen) == len(spec.layers):
        raise SpaceError("every layer is frozen: nothing is left to search")
    return frozen


def mean_experts(routing: Mapping[str, Any], spec: RouterSpec) -> float:
    """Experts that a token is computed by, averaged over MoE layers."""
    return float(np.mean(routing.get("top_k", spec.top_k)))


def _free(spec: RouterSpec, frozen: frozenset[int]) -> list[int]:
    return [layer for layer in spec.layers if layer not in frozen]


def _parameter(layer: int) -> str:
    return f"layer_{layer}"
