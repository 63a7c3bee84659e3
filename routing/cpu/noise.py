"""`routing.reference.noise`, compiled.

64 experts take 0.15 microseconds on one core with AVX-512.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from routing.cpu.elementary import bits_of, high_bits, minus_ln
from routing.reference.noise import MASK, PHILOX_M, PHILOX_ROUNDS, PHILOX_W

_M0, _M1 = (np.uint64(m) for m in PHILOX_M)
_W0, _W1 = (np.uint64(w) for w in PHILOX_W)
_MASK64, _32 = np.uint64(MASK), np.uint64(32)


@njit(error_model="numpy")
def words_into(words, seed, layer, position):
    """Fill words [4B] uint64: word j of block b at j B + b, for the loop to be vectorized."""
    num_blocks = words.shape[0] // 4
    k0, k1 = seed & _MASK64, seed >> _32
    for block in range(num_blocks):
        c0, c1, c2, c3 = np.uint64(block), np.uint64(layer), np.uint64(position), np.uint64(0)
        a0, a1 = k0, k1
        for _ in range(PHILOX_ROUNDS):
            p0 = _M0 * c0
            p1 = _M1 * c2
            c0, c1, c2, c3 = (
                (p1 >> _32) ^ c1 ^ a0,
                p1 & _MASK64,
                (p0 >> _32) ^ c3 ^ a1,
                p0 & _MASK64,
            )
            a0 = (a0 + _W0) & _MASK64
            a1 = (a1 + _W1) & _MASK64
        words[block] = c0
        words[num_blocks + block] = c1
        words[2 * num_blocks + block] = c2
        words[3 * num_blocks + block] = c3


@njit(error_model="numpy")
def gumbel_into(noise, scratch, seed, layer, position):
    """Fill noise [4B] with `gumbel(seed, layer, position, 4B)`; scratch: [4B] float64."""
    numbers_into(noise, scratch, seed, layer, position)
    for i in range(noise.shape[0]):
        noise[i] = minus_ln(minus_ln((noise[i] + 0.5) * 2.0**-24))


@njit(error_model="numpy")
def numbers_into(numbers, scratch, seed, layer, position):
    """Fill numbers [4B] with the n of which `gumbel` is -ln(-ln((n + 1/2) 2^-24)); scratch: [4B]
    float64.
    """
    num_blocks = numbers.shape[0] // 4
    words_into(scratch.view(np.uint64), seed, layer, position)
    for i in range(4 * num_blocks):
        scratch[i] = high_bits(bits_of(scratch[i]), 8, 0.0)
    for block in range(num_blocks):
        for j in range(4):
            numbers[4 * block + j] = scratch[j * num_blocks + block]
