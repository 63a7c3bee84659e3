"""Routing seeds: the one of each choice of a request."""

from __future__ import annotations

from typing import Final

MAX_SEED: Final = 2**63 - 1


def derive_seed(seed: int, choice: int) -> int:
    """The routing seed of choice number `choice` of a request, in 0 .. 2^63-1.

    Choice 0 keeps the request's seed, so that a request with n = 1 equals the first
    choice of the same request with n > 1. The others take the splitmix64 finalizer
    (Steele et al., OOPSLA 2014) of seed + choice * golden ratio: neighboring seeds'
    children do not meet.
    """
    if choice == 0:
        return seed
    mask = 2**64 - 1
    z = (seed + choice * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) & MAX_SEED
