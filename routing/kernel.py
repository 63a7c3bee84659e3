"""The routing kernel for CPUs: noise, selection, weights and counting in one pass.

One call serves one MoE layer and one engine step. Rows that follow no policy keep the
experts and weights that stock vLLM chose, bit for bit; the others are chosen here. The
rules are those of `routing.reference`, which the tests hold it to.

Compiled by numba ahead of the first call and cached on disk (`make setup` fills the
cache), so that no request pays for the compiler.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from routing.noise import PHILOX_M, PHILOX_ROUNDS, PHILOX_W

_M0, _M1 = (np.uint64(m) for m in PHILOX_M)
_W0, _W1 = (np.uint64(w) for w in PHILOX_W)
_MASK = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_8 = np.uint64(8)
_LOWEST = float(np.finfo(np.float32).min)
_HIGHEST = float(np.finfo(np.float32).max)


@njit(inline="always")
def _philox4x32(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    for _ in range(PHILOX_ROUNDS):
        p0 = _M0 * c0
        p1 = _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@njit(inline="always")
def _gumbel(word):  # type: ignore[no-untyped-def]
    uniform = (float(word >> _8) + 0.5) * 2.0**-24
    return -np.log(-np.log(uniform))


@njit(inline="always")
def _add_gumbel(values, temperature, seed, layer, position):  # type: ignore[no-untyped-def]
    num_experts = values.shape[0]
    k0, k1 = seed & _MASK, seed >> _32
    for block in range((num_experts + 3) // 4):
        words = _philox4x32(
            np.uint64(block), np.uint64(layer), np.uint64(position), np.uint64(0), k0, k1
        )
        first = 4 * block
        values[first] += temperature * _gumbel(words[0])
        if first + 1 < num_experts:
            values[first + 1] += temperature * _gumbel(words[1])
        if first + 2 < num_experts:
            values[first + 2] += temperature * _gumbel(words[2])
        if first + 3 < num_experts:
            values[first + 3] += temperature * _gumbel(words[3])


@njit(inline="always")
def _largest(values, top_k, best_values, best_ids):  # type: ignore[no-untyped-def]
    """Ids of the `top_k` largest values, best first, equal ones by lower id: insertion."""
    found = 0
    for expert in range(values.shape[0]):
        value = values[expert]
        if found == top_k:
            if value <= best_values[top_k - 1]:
                continue
            slot = top_k - 1
        else:
            slot = found
            found += 1
        while slot > 0 and best_values[slot - 1] < value:
            best_values[slot] = best_values[slot - 1]
            best_ids[slot] = best_ids[slot - 1]
            slot -= 1
        best_values[slot] = value
        best_ids[slot] = expert


_SIGNATURE = (
    "void(float32[:,::1], float32[:,::1], int32[:,::1], float32[:,::1], int32[:,::1], int64, "
    "int64, boolean, int64[::1], int32[::1], int64[::1], int64[::1], float32[:,::1], "
    "uint64[::1], int64[:,::1])"
)


@njit(
    _SIGNATURE,
    cache=True,
    nogil=True,
    boundscheck=False,
)
def route(  # type: ignore[no-untyped-def]
    router_logits,
    stock_weights,
    stock_ids,
    topk_weights,
    topk_ids,
    layer_row,
    layer,
    renormalize,
    num_tokens,
    token_row,
    token_position,
    row_top_k,
    row_temperature,
    row_seed,
    assignments,
):
    """Choose the experts of every token of one layer and count them.

    router_logits: [T, E]; not read, and may be empty, where every row is stock.
    stock_weights, stock_ids: [T, K] what the model's own rule chose.
    topk_weights, topk_ids: [T, M], M >= K, written here. Slots that a token does not use
        repeat its best expert with weight 0: no further expert is read from memory for
        them, so fewer experts cost less.
    layer_row: row of this layer in per-layer arrays; layer: its decoder layer index.
    num_tokens: [1] tokens that are not padding; the rest is routed but never counted.
    token_row: [T] the policy row a token follows, -1 for stock. token_position: [T].
    row_top_k: [R]; row_temperature: [R, L]; row_seed: [R].
    assignments: [L, E] counts of (token, expert), added to.
    """
    total_tokens, native_top_k = stock_ids.shape
    num_experts = assignments.shape[1]
    num_slots = topk_ids.shape[1]
    counted = num_tokens[0]
    clean = np.empty(num_experts, np.float64)
    noisy = np.empty(num_experts, np.float64)
    best_values = np.empty(num_slots, np.float64)
    best_ids = np.empty(num_slots, np.int32)

    for t in range(total_tokens):
        row = token_row[t] if t < counted else -1
        if row < 0:
            used = native_top_k
            for j in range(native_top_k):
                topk_weights[t, j] = stock_weights[t, j]
                topk_ids[t, j] = stock_ids[t, j]
        else:
            used = row_top_k[row]
            highest = _LOWEST
            for e in range(num_experts):
                z = float(router_logits[t, e])
                if not z >= _LOWEST:  # -inf, NaN
                    z = _LOWEST
                elif z > _HIGHEST:
                    z = _HIGHEST
                clean[e] = z
                noisy[e] = z
                highest = max(highest, z)
            temperature = row_temperature[row, layer_row]
            if temperature > 0:
                _add_gumbel(noisy, float(temperature), row_seed[row], layer, token_position[t])
            _largest(noisy, used, best_values, best_ids)
            normalizer = 0.0
            if not renormalize:
                for e in range(num_experts):
                    normalizer += np.exp(clean[e] - highest)
            for j in range(used):
                best_values[j] = np.exp(clean[best_ids[j]] - highest)
                if renormalize:
                    normalizer += best_values[j]
            for j in range(used):
                topk_weights[t, j] = best_values[j] / normalizer
                topk_ids[t, j] = best_ids[j]
        for j in range(used, num_slots):
            topk_weights[t, j] = 0.0
            topk_ids[t, j] = topk_ids[t, 0]
        if t < counted:
            for j in range(used):
                assignments[layer_row, topk_ids[t, j]] += 1
