"""Traces made up for tests. Imports no numba, for `family_engine`."""

from __future__ import annotations

import numpy as np

from routing.spec import RouterSpec
from routing.trace import Trace


def random_trace(
    spec: RouterSpec, num_tokens: int, *, first_position: int = 0, seed: int = 0
) -> Trace:
    """From 1 to `max_top_k` distinct experts for each token in every layer."""
    rng = np.random.default_rng(seed)
    ids = np.full((num_tokens, len(spec.layers), spec.max_top_k), -1, np.int16)
    for row in ids.reshape(-1, spec.max_top_k):
        used = rng.integers(1, spec.max_top_k + 1)
        row[:used] = rng.permutation(spec.num_experts)[:used]
    native = np.zeros(num_tokens, np.bool_)
    return Trace(spec.layers, spec.num_experts, ids, native, None, first_position, spec.fingerprint)
