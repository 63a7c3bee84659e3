"""What a mode is made of: its parameters, its choice for one token, the same compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from routing.choice import Token
from routing.rule import Ids
from routing.spec import RouterSpec

Numbers = Mapping[str, float]  # one layer's value of each parameter, a choice by its index
MAX_TEMPERATURE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a mode: a number, which may differ by layer, or one of `choices`.

    low, high: bounds; a name stands for that number of the `RouterSpec`, or for that
        parameter, declared earlier, of the same mode. low_excluded: low itself is refused.
    default: a number, such a name, or a function of the spec and the layer's earlier values.
    """

    name: str
    meaning: str
    low: float | str = 0
    high: float | str = 0
    default: float | str | Callable[[RouterSpec, Numbers], float] = 0
    integer: bool = False
    low_excluded: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to choose experts.

    parameters: P of them, in the order in which `kernel` gets them.
    select: the reference, one token: (Token, Numbers) -> ids, best first.
    kernel: the same under numba: (CompiledToken, [P] float64) -> how many ids it left.
    draws_noise: whether the choice depends on the seed (where a temperature, if the mode
        has one, is above 0).
    most, least: the parameters that bound how many experts a token gets.
    takes_trace: whether a request must bring the experts; they are not steered then.
    """

    name: str
    meaning: str
    parameters: tuple[Parameter, ...]
    select: Callable[[Token, Numbers], Ids]
    kernel: Any
    draws_noise: bool = True
    most: str = "top_k"
    least: str = "top_k"
    takes_trace: bool = False


TOP_K: Final = Parameter(
    "top_k", "experts per token", low=1, high="max_top_k", default="top_k", integer=True
)
TEMPERATURE: Final = Parameter(
    "temperature", "scale of the noise; 0 draws none", low=0, high=MAX_TEMPERATURE, default=1.0
)
