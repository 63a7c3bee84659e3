"""Routing seeds: the one of each choice of a request, and those that requests share."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final

MAX_SEED: Final = 2**63 - 1
MAX_WINDOW_SECONDS: Final = 86_400


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


class SeedWindows:
    """Seeds for requests that name none: for a while the same one, so that their tokens share
    noise, and with it experts.

    Each request's choice still has its own distribution: the seed was drawn without regard to it.
    Two requests of one window are not independent of each other.
    """

    def __init__(self, seconds: float) -> None:
        """seconds: how long a window is, where a preset does not say; 0: each has its own seed."""
        self._seconds = seconds
        self._secret = secrets.token_bytes(16)

    def seed(self, seconds: float | None = None) -> int | None:
        """The seed of the window of that length that is open now; None where there are none."""
        seconds = self._seconds if seconds is None else seconds
        if not seconds:
            return None
        window = f"{seconds} {time.monotonic() // seconds:.0f}".encode()
        digest = hashlib.blake2b(window, digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest) & MAX_SEED
