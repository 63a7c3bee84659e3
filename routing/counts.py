"""What a process has counted since it started, in memory that others may read meanwhile.

Tokens belong to groups: group i < len(MODES) are those of mode i under no preset, the others
are whatever the API process numbered, see `Groups`.
"""

from __future__ import annotations

import math
import mmap
from typing import Annotated, Any, Final, NamedTuple, Self, get_type_hints

import numpy as np
import numpy.typing as npt

from routing.policy.modes import MODES

# A token computed again after its request was preempted is in neither of the first two.
PHASES: Final = ("prefill", "decode", "recompute")
RECOMPUTE: Final = PHASES.index("recompute")
MAX_GROUPS: Final = 256
Memory = bytearray | mmap.mmap


class Counts(NamedTuple):
    """dtype, shape and meaning of each array, all 8 bytes wide. L layers, E experts, G groups, P
    phases.
    """

    assignments: Annotated[Any, "int64", "LE", "(token, expert) pairs"]
    active_experts: Annotated[Any, "int64", "L", "distinct experts of each step, added up"]
    router_entropy: Annotated[Any, "float64", "L", "of the tokens' softmax(logits), nats, added up"]
    routed_tokens: Annotated[Any, "int64", "GP", "tokens, by their group"]
    group_assignments: Annotated[Any, "int64", "G", "(token, expert) pairs of all layers"]
    num_steps: Annotated[Any, "int64", "1", "engine steps"]
    last_step: Annotated[Any, "float64", "1", "when the last one began, seconds since 1970"]

    @staticmethod
    def num_bytes(num_layers: int, num_experts: int) -> int:
        """Memory for those of that many layers and experts."""
        return 8 * sum(math.prod(shape) for _, shape in _arrays(num_layers, num_experts))

    @classmethod
    def on(cls, memory: Memory, num_layers: int, num_experts: int) -> Self:
        """Those that stand in that memory."""
        arrays, start = [], 0
        for dtype, shape in _arrays(num_layers, num_experts):
            count = math.prod(shape)
            arrays.append(np.frombuffer(memory, dtype, count, start).reshape(shape))
            start += 8 * count
        return cls(*arrays)


def _arrays(num_layers: int, num_experts: int) -> list[tuple[str, tuple[int, ...]]]:
    sizes = {"1": 1, "L": num_layers, "E": num_experts, "G": MAX_GROUPS, "P": len(PHASES)}
    rows = (row.__metadata__ for row in get_type_hints(Counts, include_extras=True).values())
    return [(dtype, tuple(sizes[letter] for letter in letters)) for dtype, letters, _ in rows]


class Groups:
    """Numbers for pairs of a mode and a preset, as long as there are any left."""

    def __init__(self) -> None:
        self._numbers = {(name, ""): mode.code for name, mode in MODES.items()}

    def number(self, mode: str, preset: str | None) -> int:
        """The pair's number; that of the mode alone, where all are given away."""
        pair = (mode, preset or "")
        if pair not in self._numbers and len(self._numbers) < MAX_GROUPS:
            self._numbers[pair] = len(self._numbers)
        return self._numbers.get(pair, MODES[mode].code)

    def pairs(self) -> list[tuple[str, str]]:
        """(mode, preset) by number."""
        return sorted(self._numbers, key=self._numbers.__getitem__)


def imbalance(loads: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of loads [..., E]: the greatest by the mean, from 1 to E; NaN where there is no load."""
    with np.errstate(invalid="ignore"):
        ratio: npt.NDArray[np.float64] = loads.max(axis=-1) / loads.mean(axis=-1)
    return ratio


def load_entropy(loads: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of loads [..., E]: the entropy of an assignment's expert over ln E, from 0, all to one, to
    1, all alike; NaN where there is no load.
    """
    with np.errstate(invalid="ignore"):
        share = loads / loads.sum(axis=-1, keepdims=True)
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy: npt.NDArray[np.float64] = -(share * logarithm).sum(axis=-1)
    return entropy / math.log(max(loads.shape[-1], 2))
