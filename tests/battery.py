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

from routing.noise import words_into

NUM_EXPERTS, NUM_LAYERS, NUM_POSITIONS = 64, 32, 512


@njit
def fill(words: Any, drawn: Any, seed: Any) -> None:
    """One request's words, [NUM_POSITIONS, NUM_LAYERS, NUM_EXPERTS] uint32."""
    num_blocks = NUM_EXPERTS // 4
    for position in range(NUM_POSITIONS):
        for layer in range(NUM_LAYERS):
            words_into(drawn, seed, layer, position)
            for expert in range(NUM_EXPERTS):
                word = drawn[expert % 4 * num_blocks + expert // 4]
                words[position, layer, expert] = np.uint32(word)


def main() -> None:
    """Write until the reader has enough."""
    words = np.empty((NUM_POSITIONS, NUM_LAYERS, NUM_EXPERTS), np.uint32)
    drawn = np.empty(NUM_EXPERTS, np.uint64)
    try:
        for seed in range(2**32):
            fill(words, drawn, np.uint64(seed))
            sys.stdout.buffer.write(words.tobytes())
    except BrokenPipeError:
        sys.stderr.close()


if __name__ == "__main__":
    main()
