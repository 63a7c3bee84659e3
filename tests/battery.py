"""The noise's raw words on standard output, for a battery of randomness tests.

Words come in the order in which a server would draw them: experts, then layers, then
positions, then requests with neighbouring seeds. `make battery` feeds them to dieharder
(Debian package of that name), which reads as many as its tests want.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numba import njit

from routing.noise import philox_words

NUM_EXPERTS, NUM_LAYERS, NUM_POSITIONS = 64, 32, 512


@njit
def fill(words: Any, seed: Any) -> None:
    """One request's words, [NUM_POSITIONS, NUM_LAYERS, NUM_EXPERTS] uint32."""
    k0, k1 = seed & np.uint64(0xFFFFFFFF), seed >> np.uint64(32)
    for position in range(NUM_POSITIONS):
        for layer in range(NUM_LAYERS):
            for block in range(NUM_EXPERTS // 4):
                drawn = philox_words(
                    np.uint64(block), np.uint64(layer), np.uint64(position), np.uint64(0), k0, k1
                )
                for i in range(4):
                    words[position, layer, 4 * block + i] = np.uint32(drawn[i])


def main() -> None:
    """Write until the reader has enough."""
    words = np.empty((NUM_POSITIONS, NUM_LAYERS, NUM_EXPERTS), np.uint32)
    try:
        for seed in range(2**32):
            fill(words, np.uint64(seed))
            sys.stdout.buffer.write(words.tobytes())
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
