"""The modes: ways to choose a token's experts, and the keys that each takes.

What a mode does is defined in `routing.reference.modes`, one function each; the other
columns compute the same. A mode's code is what kernels switch on: never reuse one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from routing.policy.keys import (
    NOISE,
    SCOPE,
    SEED,
    STEERING,
    TEMPERATURE,
    TOP_K,
    TRACE,
    WEIGHTS_KEY,
    Derived,
    Key,
    Type,
)


@dataclass(frozen=True, slots=True)
class Mode:
    """A way to choose experts.

    parameters: P of them, in the order in which kernels get them.
    draws_noise: whether the choice depends on the seed; where `noise_scale` names a
        parameter, only while that is above 0.
    most, least: the parameters that bound how many experts a token gets.
    extends_native: without noise and with the native top-k it is the model's own rule, which
        needs no kernel.
    takes_trace: whether a request must bring the experts; they are not steered then.
    """

    name: str
    code: int
    meaning: str
    parameters: tuple[Key, ...] = ()
    draws_noise: bool = False
    noise_scale: str | None = None
    most: str = "top_k"
    least: str = "top_k"
    extends_native: bool = False
    takes_trace: bool = False

    @property
    def keys(self) -> tuple[Key, ...]:
        """Every key of a policy of this mode, but `mode` itself."""
        noise = (NOISE,) if self.draws_noise else ()
        last = (TRACE,) if self.takes_trace else STEERING
        return (*self.parameters, SEED, *noise, SCOPE, WEIGHTS_KEY, *last)

    @property
    def default_scope(self) -> str:
        """Where the mode is followed unless the request says otherwise."""
        return "all" if self.takes_trace else "decode"

    def index(self, parameter: str) -> int:
        """Place of a parameter among those that kernels get."""
        return [key.name for key in self.parameters].index(parameter)


_TOP_K = Mode("top_k", 0, "The model's own rule.", (TOP_K,), extends_native=True)
_SAMPLE = Mode(
    "sample",
    1,
    "Experts drawn without replacement from softmax(logits / temperature).",
    (TOP_K, TEMPERATURE),
    draws_noise=True,
    noise_scale="temperature",
    extends_native=True,
)
_TOP_P = Mode(
    "top_p",
    2,
    "The smallest set of best experts whose mass reaches top_p.",
    (
        Key("top_p", Type.NUMBER, "mass to reach", low=0, high=1, default=0.9, low_excluded=True),
        Key("max_experts", Type.INTEGER, "most experts", low=1, high="max_top_k", default="top_k"),
        Key("min_experts", Type.INTEGER, "fewest", low=1, high="max_experts", default=1),
        Key(
            "mass",
            Type.CHOICE,
            "whose mass is counted",
            choices=("full", "top_k"),
            default="top_k",
        ),
    ),
    most="max_experts",
    least="min_experts",
)
_HEAD_SAMPLE = Mode(
    "head_sample",
    3,
    "The best experts for sure, the rest drawn from the next ranks.",
    (
        TOP_K,
        Key(
            "head",
            Type.INTEGER,
            "experts kept for sure",
            low=0,
            high="top_k",
            default=Derived(lambda spec, values: values["top_k"] // 2 + 1, "⌊top_k / 2⌋ + 1"),
        ),
        Key(
            "pool",
            Type.INTEGER,
            "lowest rank that may be drawn",
            low="top_k",
            high="num_experts",
            default=Derived(
                lambda spec, values: min(4 * values["top_k"], spec.num_experts), "4 top_k"
            ),
        ),
        TEMPERATURE,
    ),
    draws_noise=True,
    noise_scale="temperature",
)
_UNIFORM = Mode("uniform", 4, "Experts drawn uniformly: the control.", (TOP_K,), draws_noise=True)
_REPLAY = Mode("replay", 5, "The experts that a trace recorded, weighed anew.", takes_trace=True)

MODES: Final[dict[str, Mode]] = {
    mode.name: mode for mode in (_TOP_K, _SAMPLE, _TOP_P, _HEAD_SAMPLE, _UNIFORM, _REPLAY)
}
DEFAULT_MODE: Final = "top_k"
MAX_PARAMETERS: Final = max(len(mode.parameters) for mode in MODES.values())
