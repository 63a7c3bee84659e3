"""Every key of the `routing` object, once: type, range, default, meaning, per layer or not.

`Key` is a row of the table. Parsing, JSON Schema, `galton inspect`, error messages and the
documents' tables are views of these rows; a mode's own are in `routing.policy.modes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from routing.policy.seed import MAX_SEED
from routing.spec import RouterSpec

MAX_BIAS: Final = 20.0
MAX_TEMPERATURE: Final = 10.0
SCOPES: Final = ("decode", "all")
# For how long a draw of the noise holds.
NOISES: Final = ("token", "request")
# How the chosen experts are weighed; the place is the code that kernels switch on.
WEIGHTS: Final = ("model", "renormalize", "preserve_mass")
INCLUDE: Final = ("stats", "tokens", "trace", "weights")
# The dtypes of other systems' routed experts.
FOREIGN_DTYPES: Final = ("uint8", "int16", "uint16", "int32", "int64")

Number = float | int | str  # a value of a parameter; one of its choices by name
Parameters = Mapping[str, float]  # one layer's value of each parameter, a choice by its index


class Type(Enum):
    """What a key's value is."""

    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "one of"
    CHOICES = "a list of"
    EXPERTS = "{layer or '*': [expert, ...]}"
    BIASES = "{layer or '*': {expert: number}}"
    TRACE = "a trace"


class Derived(NamedTuple):
    """A default that follows from the model and the request's earlier values of that layer."""

    of: Callable[[RouterSpec, Parameters], float]
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    low, high: bounds; a name stands for that field of the `RouterSpec`, or for that key,
        declared earlier, of the same mode. low_excluded: low itself is refused.
    default: a value, such a name, or `Derived`; None: absent.
    per_layer: a list with one value per MoE layer is accepted too.
    """

    name: str
    type: Type
    meaning: str
    low: float | str = 0
    high: float | str = 0
    default: float | str | Derived | None = None
    low_excluded: bool = False
    choices: tuple[str, ...] = ()
    per_layer: bool = True

    def encode(self, value: Number) -> float:
        """The number that kernels take: a choice by its index."""
        return self.choices.index(value) if isinstance(value, str) else value


TOP_K: Final = Key(
    "top_k", Type.INTEGER, "experts per token", low=1, high="max_top_k", default="top_k"
)
TEMPERATURE: Final = Key(
    "temperature",
    Type.NUMBER,
    "scale of the noise; 0 draws none",
    low=0,
    high=MAX_TEMPERATURE,
    default=1.0,
)


def _common(name: str, type_: Type, meaning: str, **rest: Any) -> Key:
    return Key(name, type_, meaning, per_layer=False, **rest)


SEED: Final = _common(
    "seed", Type.INTEGER, "where the noise starts; drawn when absent", low=0, high=MAX_SEED
)
NOISE: Final = _common(
    "noise",
    Type.CHOICE,
    "for whom noise is drawn: for every token anew, or once for all of a request's",
    choices=NOISES,
    default="token",
)
SCOPE: Final = _common(
    "scope",
    Type.CHOICE,
    "which tokens follow the policy: the generated ones, or the prompt's too",
    choices=SCOPES,
    default="decode",
)
WEIGHTS_KEY: Final = _common(
    "weights",
    Type.CHOICE,
    "the chosen experts' weights: by the model's own rule; divided by their sum; or scaled to "
    "the sum that the native choice would have",
    choices=WEIGHTS,
    default="model",
)
BAN: Final = _common("ban", Type.EXPERTS, "never these experts")
FORCE: Final = _common("force", Type.EXPERTS, "always these experts")
BIAS: Final = _common(
    "bias", Type.BIASES, "added to the logits of the choice", low=-MAX_BIAS, high=MAX_BIAS
)
TRACE: Final = _common(
    "trace",
    Type.TRACE,
    "what an answer's routing.trace[].data holds, or another system's array",
)
# Of a request, not of its policy: no preset has it.
INCLUDE_KEY: Final = _common(
    "include", Type.CHOICES, "what the answer carries about the routing", choices=INCLUDE
)

STEERING: Final = (BAN, FORCE, BIAS)
