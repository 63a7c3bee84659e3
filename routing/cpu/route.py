"""The routing kernel for CPUs: noise, selection, weights and counting in one pass.

One call serves one MoE layer and one engine step. Rows that follow no policy keep the
experts and weights that stock vLLM chose, bit for bit; the others are chosen here, as
`routing.reference` chooses, which the tests hold it to.

Compiled by numba ahead of the first call and cached on disk (`make setup` fills the
cache), so that no request pays for the compiler.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from routing.cpu.choice import CompiledToken, best
from routing.cpu.elementary import number_of
from routing.cpu.modes import CHOOSE
from routing.cpu.rule import close_groups, compiled_rule, scale_to, weights_into, whole_blocks
from routing.policy.keys import WEIGHTS
from routing.policy.modes import MODES
from routing.reference.rule import HIGHEST, LOWEST

_REPLAY = MODES["replay"].code
_MODEL, _RENORMALIZE, _PRESERVE_MASS = range(len(WEIGHTS))


def _either(code: int, kernel: Any, other: Any) -> Any:
    @njit(inline="always", error_model="numpy")
    def choose(mode, token, numbers):
        if mode == code:
            return kernel(token, numbers)
        return other(mode, token, numbers)

    return choose


@njit(inline="always", error_model="numpy")
def _choose(mode, token, numbers):
    return 0


for _mode in reversed(MODES.values()):
    _choose = _either(_mode.code, CHOOSE[_mode.name], _choose)


@njit(error_model="numpy")
def _clamp(logit):
    """`routing.reference.rule.clamp`."""
    z = float(logit)
    return min(z, HIGHEST) if z >= LOWEST else LOWEST  # NaN: LOWEST


@njit(error_model="numpy")
def _fill_gate(gate, logits, clean, steering, work, scratch, rule):
    """Fill gate and logits of a `CompiledToken`.

    steering: as `select_experts` takes it, or empty.
    """
    for e in range(clean.shape[0]):
        logits[e] = clean[e]
        gate[e] = 0.0
    for e in range(steering.shape[0]):
        if abs(steering[e]) < np.inf:
            logits[e] += steering[e]
        elif steering[e] < 0:
            gate[e] = -np.inf
    if rule.num_groups > 1:
        close_groups(gate, clean, work, scratch, rule)
    for e in range(steering.shape[0]):
        if steering[e] == np.inf:
            gate[e] = np.inf


@njit(error_model="numpy")
def _is_own(replayed, stock_ids):
    """Whether the model's own router chose what a token replays, when recorded and now."""
    num_slots, top_k = replayed.shape[0] - 1, stock_ids.shape[0]
    same = replayed[num_slots] != 0 and (top_k == num_slots or replayed[top_k] < 0)
    for j in range(top_k):
        same &= replayed[j] == stock_ids[j]
    return same


@intrinsic
def _pointer(typing_context, address):
    """An integer as a pointer: making an array of a tensor costs 0.6 microseconds in Python."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


@njit(inline="always", error_model="numpy")
def _borrowed(array):
    """The same array without its owner, who must live as long.

    numba counts references to owners, atomically, at every slice and in every tuple: that
    took 0.1 microseconds per token.
    """
    return carray(_pointer(array.ctypes.data), array.shape, array.dtype)


_SIGNATURE = (
    "void(int64, boolean, int64, int64, int64, int64, int64, int64, int64, int64, "
    "int64[::1], float64[:,::1], float64[:,::1], int64[::1], int32[::1], int64[::1], "
    "int64[::1], int64[::1], float64[:,:,::1], uint64[::1], boolean[::1], float32[:,:,::1], "
    "int16[:,:,::1], int64[:,::1])"
)


def _compile(sources: int) -> Any:
    """Compile, or load from numba's cache.

    sources: a checksum of every file that is compiled in. numba renews a cached function
    when its own file changes; as a captured variable this makes it part of the cache's key.
    """

    @njit(_SIGNATURE, cache=True, nogil=True, boundscheck=False, error_model="numpy")
    def route(
        router_logits_address,
        is_bfloat16,
        stock_weights_address,
        stock_ids_address,
        topk_weights_address,
        topk_ids_address,
        total_tokens,
        native_top_k,
        num_slots,
        layer_row,
        layers,
        rule_numbers,
        rule_correction_bias,
        num_tokens,
        token_row,
        token_position,
        row_mode,
        row_weights,
        row_numbers,
        row_seed,
        row_steered,
        row_steering,
        token_replayed,
        assignments,
    ):
        """Choose the experts of every token of one layer and count them.

        T tokens, E experts, K the model's own top-k, S >= K slots, L layers, R rows, P parameters.

        The first arguments are addresses of contiguous arrays, then T, K and S:
        router_logits: [T, E] float32 or bfloat16; not read where every row is stock.
        stock_weights, stock_ids: [T, K] float32, int32, what the model's own router chose.
        topk_weights, topk_ids: [T, S] float32, int32, written here. Slots that a token does not use
            repeat its best expert with weight 0: no further expert is read from memory for them,
            so fewer experts cost less.
        layer_row: row of this layer in per-layer arrays. layers: [L] decoder layer indices.
        rule_numbers, rule_correction_bias: [L, ...] `routing.state.as_numbers` of each layer.
        num_tokens: [1] tokens that are not padding; the rest is routed but never counted.
        token_row: [T] the row of parameters a token follows, -1 for stock. token_position: [T].
        row_mode, row_weights: [R] place in MODES and in WEIGHTS. row_numbers: [R, L, P].
        row_seed: [R]. row_steered: [R] whether row_steering, [R, L, E], is to be read.
        token_replayed: [T, L, S + 1] of tokens that replay a trace, the recorded experts, then -1;
            last, whether the model's own router had chosen them. Where it does so again, its
            weights stay.
        assignments: [L, E] counts of (token, expert), added to.
        """
        num_experts = assignments.shape[1]
        shape = (total_tokens, num_experts)
        logits_16 = carray(_pointer(router_logits_address), shape, np.uint16)
        logits_32 = carray(_pointer(router_logits_address), shape, np.float32)
        shape = (total_tokens, native_top_k)
        stock_weights = carray(_pointer(stock_weights_address), shape, np.float32)
        stock_ids = carray(_pointer(stock_ids_address), shape, np.int32)
        shape = (total_tokens, num_slots)
        topk_weights = carray(_pointer(topk_weights_address), shape, np.float32)
        topk_ids = carray(_pointer(topk_ids_address), shape, np.int32)
        counted = num_tokens[0] if sources >= 0 else 0
        row_numbers, row_steering = _borrowed(row_numbers), _borrowed(row_steering)
        token_replayed = _borrowed(token_replayed)
        correction_bias = _borrowed(rule_correction_bias)[layer_row]
        rule = compiled_rule(rule_numbers[layer_row], correction_bias)
        has_groups = rule.num_groups > 1
        room = np.empty((8, whole_blocks(num_experts)), np.float64)
        rows = _borrowed(room)
        work, scratch, weights = rows[0], rows[1], rows[2]
        clean, steered, gate = rows[3, :num_experts], rows[4, :num_experts], rows[5, :num_experts]
        keys, ids = rows[6, :num_experts].view(np.int64), rows[7].view(np.int32)

        for t in range(total_tokens):
            row = token_row[t] if t < counted else -1
            if (
                row >= 0
                and row_mode[row] == _REPLAY
                and row_weights[row] == _MODEL
                and _is_own(token_replayed[t, layer_row], stock_ids[t])
            ):
                row = -1
            if row < 0:
                used = native_top_k
                for j in range(native_top_k):
                    topk_weights[t, j] = stock_weights[t, j]
                    topk_ids[t, j] = stock_ids[t, j]
            else:
                if is_bfloat16:
                    for e in range(num_experts):
                        clean[e] = _clamp(number_of(np.int32(np.int32(logits_16[t, e]) << 16)))
                else:
                    for e in range(num_experts):
                        clean[e] = _clamp(logits_32[t, e])
                gated = row_steered[row] or has_groups
                if gated:
                    steering = row_steering[row, layer_row, : num_experts * row_steered[row]]
                    _fill_gate(gate, steered, clean, steering, work, scratch, rule)
                token = CompiledToken(
                    steered if gated else clean,
                    gate,
                    gated,
                    rule,
                    native_top_k,
                    row_seed[row],
                    layers[layer_row],
                    token_position[t],
                    work,
                    scratch,
                    keys,
                    token_replayed[t, layer_row, :num_slots],
                    ids,
                )
                used = min(_choose(row_mode[row], token, row_numbers[row, layer_row]), num_slots)
                weights_into(weights, clean, ids, used, rule)
                for j in range(used):
                    topk_ids[t, j] = ids[j]
                if row_weights[row] == _RENORMALIZE:
                    scale_to(weights, used, rule.scaling_factor, True)
                elif row_weights[row] == _PRESERVE_MASS:
                    # What the model's own choice would weigh: no steering, its own top-k.
                    if gated:
                        steering = row_steering[row, layer_row, :0]
                        _fill_gate(gate, steered, clean, steering, work, scratch, rule)
                    own = best(token, native_top_k)
                    weights_into(work, clean, ids, own, rule)
                    total = 0.0
                    for j in range(own):
                        total += work[j]
                    scale_to(weights, used, total, True)
                for j in range(used):
                    topk_weights[t, j] = weights[j]
            if used == 0:
                topk_ids[t, 0] = 0
            for j in range(used, num_slots):
                topk_weights[t, j] = 0.0
                topk_ids[t, j] = topk_ids[t, 0]
            if t < counted:
                for j in range(used):
                    assignments[layer_row, topk_ids[t, j]] += 1

        room[0, 0] = 0.0  # numba frees it after its last use: not before

    # Its one form: to look it up by the types of 23 arguments takes 0.5 microseconds a call. An
    # array with items of another size is still refused.
    return route.get_overload(route.signatures[0])


def _checksum() -> int:
    routing = Path(__file__).parent.parent
    folders = ("cpu", "policy", "reference")
    files = sorted(file for folder in folders for file in (routing / folder).glob("*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


route = _compile(_checksum())
