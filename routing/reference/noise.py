"""The router's random numbers: Philox 4x32-10, and Gumbel noise made from it.

Counter-based: a number is a pure function of (seed, layer, position, expert, pass), so
one request's noise is the same alone or in a crowd, whole or in chunks, before and after
a preemption, on every rank. Source of the generator: Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

PHILOX_M: Final = (0xD2511F53, 0xCD9E8D57)
PHILOX_W: Final = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS: Final = 10
MASK: Final = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Four 32-bit words of Philox 4x32-10 for one counter (four words) and key (two)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(PHILOX_ROUNDS):
        p0 = PHILOX_M[0] * c0
        p1 = PHILOX_M[1] * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0 = (k0 + PHILOX_W[0]) & MASK
        k1 = (k1 + PHILOX_W[1]) & MASK
    return [c0, c1, c2, c3]


def uniforms(
    seed: int, layer: int, position: int, num_experts: int, pass_index: int = 0
) -> npt.NDArray[np.float64]:
    """[E] one uniform number in (0, 1) per expert: ((word >> 8) + 0.5) * 2^-24.

    Half a step away from both ends, and so never 0 or 1. float64, because float32 would
    round the largest to 1.
    """
    key = (seed & MASK, seed >> 32)
    words = [
        word
        for block in range(-(-num_experts // 4))
        for word in philox4x32((block, layer, position, pass_index), key)
    ]
    bits = np.array(words[:num_experts], dtype=np.uint32)
    return (bits.astype(np.float64) // 256 + 0.5) * 2.0**-24


def gumbel(
    seed: int, layer: int, position: int, num_experts: int, pass_index: int = 0
) -> npt.NDArray[np.float64]:
    """[E] standard Gumbel noise, -ln(-ln u): mean 0.577, variance pi^2 / 6."""
    noise: npt.NDArray[np.float64] = -np.log(
        -np.log(uniforms(seed, layer, position, num_experts, pass_index))
    )
    return noise
