"""`routing.reference.noise` in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

_STEP = tl.constexpr(2.0**-24)


@triton.jit
def gumbel(seed, layer, position, LANES: tl.constexpr):
    """Standard Gumbel noise, float64, as `reference.noise.gumbel` makes it."""
    bits = (words(seed, layer, position, LANES) >> 8).to(tl.float64)
    return -tl.log(-tl.log((bits + 0.5) * _STEP))


@triton.jit
def words(seed, layer, position, LANES: tl.constexpr):
    """uint32: word e % 4 of the Philox block with counter (e // 4, layer, position, 0)."""
    block = tl.arange(0, LANES // 4).to(tl.uint32)
    zero = tl.zeros_like(block)
    w0, w1, w2, w3 = tl.philox(
        seed, block, zero + layer.to(tl.uint32), zero + position.to(tl.uint32), zero
    )
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))
