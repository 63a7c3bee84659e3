"""What a process has counted since it started, in memory that others may read meanwhile."""

from __future__ import annotations

import mmap
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from routing.policy.modes import MODES

PHASES: Final = ("prefill", "decode")
Memory = bytearray | mmap.mmap


class Counts(NamedTuple):
    """assignments: int64 [L, E] (token, expert) pairs. routed_tokens: int64 [modes, PHASES]
    tokens; a native one counts as mode 0.
    """

    assignments: npt.NDArray[np.int64]
    routed_tokens: npt.NDArray[np.int64]

    @staticmethod
    def num_bytes(num_layers: int, num_experts: int) -> int:
        """Memory for those of that many layers and experts."""
        return 8 * (num_layers * num_experts + len(MODES) * len(PHASES))

    @classmethod
    def on(cls, memory: Memory, num_layers: int, num_experts: int) -> Self:
        """Those that stand in that memory."""
        numbers = np.frombuffer(memory, np.int64)
        assignments, routed_tokens = np.split(numbers, [num_layers * num_experts])
        return cls(
            assignments.reshape(num_layers, num_experts),
            routed_tokens.reshape(len(MODES), len(PHASES)),
        )
