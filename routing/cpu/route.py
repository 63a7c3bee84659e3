"""`routing.reference.route` for every token of one layer: noise, choice, weights, counts.

One call serves one MoE layer and one engine step. Tokens that follow no policy keep the
native experts and weights, bit for bit; the others' are chosen here.

Compiled ahead of the first call and cached on disk (`make setup` fills the cache), so that
no request pays for the compiler.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numba import carray, njit

from routing.cpu.choice import CompiledToken, best
from routing.cpu.count import count_token, read_logits
from routing.cpu.modes import CHOOSE
from routing.cpu.rule import (
    close_groups,
    decode_rule,
    margin_of,
    scale_to,
    weights_into,
    whole_blocks,
)
from routing.cpu.step import (
    pointer,
    slot_at,
    sources,
    step_at,
    trace_experts,
    trace_row,
    trace_was_native,
)
from routing.policy.keys import WEIGHTS
from routing.policy.modes import MODES
from routing.step import MEASURES, OBSERVED

_RENORMALIZE: Final = WEIGHTS.index("renormalize")
_PRESERVE_MASS: Final = WEIGHTS.index("preserve_mass")


class _Layer(NamedTuple):
    """One call's arrays. T tokens, E experts, K native experts, S columns.

    logits_32, logits_16: [T, E] the same memory, as float32 and as the bits of bfloat16.
    native_weights, native_ids: [T, K]; topk_weights, topk_ids: [T, S], float32 and int32.
    """

    logits_32: Any
    logits_16: Any
    native_weights: Any
    native_ids: Any
    topk_weights: Any
    topk_ids: Any


class _Room(NamedTuple):
    """Room to work in, for one token: see `CompiledToken`."""

    work: Any
    scratch: Any
    weights: Any
    clean: Any
    steered: Any
    gate: Any
    keys: Any
    ids: Any


@njit(inline="always", error_model="numpy")
def _layer_at(logits, native_weights, native_ids, topk_weights, topk_ids, num_tokens, sizes):
    """A `_Layer` from addresses; sizes: (E, K, S)."""
    num_experts, native_top_k, num_columns = sizes
    return _Layer(
        carray(pointer(logits), (num_tokens, num_experts), np.float32),
        carray(pointer(logits), (num_tokens, num_experts), np.uint16),
        carray(pointer(native_weights), (num_tokens, native_top_k), np.float32),
        carray(pointer(native_ids), (num_tokens, native_top_k), np.int32),
        carray(pointer(topk_weights), (num_tokens, num_columns), np.float32),
        carray(pointer(topk_ids), (num_tokens, num_columns), np.int32),
    )


@njit(inline="always", error_model="numpy")
def _room_in(rows, num_experts):
    """A `_Room` in memory [8, `whole_blocks(E)`] float64."""
    return _Room(
        rows[0],
        rows[1],
        rows[2],
        rows[3].view(np.float32)[:num_experts],
        rows[4, :num_experts],
        rows[5, :num_experts],
        rows[6, :num_experts].view(np.int64),
        rows[7].view(np.int32),
    )


def _either(code: int, this: Any, other: Any) -> Any:
    @njit(inline="always", error_model="numpy")
    def choose(mode, token, parameters):
        if mode == code:
            return this(token, parameters)
        return other(mode, token, parameters)

    return choose


@njit(inline="always", error_model="numpy")
def _choose(mode, token, parameters):
    return 0


for _mode in reversed(MODES.values()):
    _choose = _either(_mode.code, CHOOSE[_mode.name], _choose)


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
def _replays_native(replayed, native_ids):
    """Whether what a token replays, chosen by the native router, is what it chooses now."""
    num_columns, top_k = replayed.shape[0], native_ids.shape[0]
    if num_columns < top_k or (num_columns > top_k and replayed[top_k] >= 0):
        return False
    same = True
    for j in range(top_k):
        same &= replayed[j] == native_ids[j]
    return same


@njit(inline="always", error_model="numpy")
def _slot_of(step, layer, layer_index, token):
    """The slot whose policy a token follows, or -1 where it keeps the native choice."""
    number = step.token_slot[token]
    if number >= 0:
        slot = slot_at(step, number)
        if slot.keeps_native:
            row = trace_row(slot, step.token_position[token])
            replayed = trace_experts(slot, row, layer_index, step.layers.shape[0])
            native_ids = layer.native_ids[token]
            if trace_was_native(slot, row) and _replays_native(replayed, native_ids):
                return -1
    return number


@njit(inline="always", error_model="numpy")
def _keep_native(layer, token):
    """Copy the native choice; how many experts it has. Of padding there may be no room for all."""
    used = min(layer.native_ids.shape[1], layer.topk_ids.shape[1])
    for j in range(used):
        layer.topk_weights[token, j] = layer.native_weights[token, j]
        layer.topk_ids[token, j] = layer.native_ids[token, j]
    return used


@njit(inline="always", error_model="numpy")
def _follow_policy(step, layer, room, highest, rule, layer_index, t, number):
    """Choose and weigh token t's experts as the policy of its slot, of that number, says; how many
    there are.
    """
    work, scratch, weights, clean, steered, gate, keys, ids = room
    native_top_k, num_experts = layer.native_ids.shape[1], clean.shape[0]
    slot, position = slot_at(step, number), step.token_position[t]
    steering = step.slot_steering[number, layer_index, : num_experts * slot.is_steered]
    gated = slot.is_steered != 0 or rule.num_groups > 1
    if gated:
        _fill_gate(gate, steered, clean, steering, work, scratch, rule)
    token = CompiledToken(
        clean,
        steered,
        gate,
        gated,
        rule,
        native_top_k,
        np.uint64(slot.seed),
        step.layers[layer_index],
        0 if slot.draws_once else position,
        work,
        scratch,
        keys,
        trace_experts(slot, trace_row(slot, position), layer_index, step.layers.shape[0]),
        ids,
    )
    chosen = _choose(slot.mode, token, step.slot_parameters[number, layer_index])
    used = min(chosen, layer.topk_ids.shape[1])
    weights_into(weights, clean, highest, ids, used, rule)
    for j in range(used):
        layer.topk_ids[t, j] = ids[j]
    if slot.weights == _RENORMALIZE:
        scale_to(weights, used, rule.scaling_factor, True)
    elif slot.weights == _PRESERVE_MASS:
        # What the native choice would weigh: no steering, native top-k.
        if gated:
            _fill_gate(gate, steered, clean, steering[:0], work, scratch, rule)
        native = best(token, native_top_k)
        weights_into(work, clean, highest, ids, native, rule)
        total = 0.0
        for j in range(native):
            total += work[j]
        scale_to(weights, used, total, True)
    for j in range(used):
        layer.topk_weights[t, j] = weights[j]
    return used


@njit(inline="always", error_model="numpy")
def _fill_unused(layer, token, used):
    """Columns that a token does not use repeat its best expert with weight 0.

    No further expert is read from memory for them, so fewer experts cost less.
    """
    if used == 0:
        layer.topk_ids[token, 0] = 0
    for j in range(used, layer.topk_ids.shape[1]):
        layer.topk_weights[token, j] = 0.0
        layer.topk_ids[token, j] = layer.topk_ids[token, 0]


@njit(inline="always", error_model="numpy")
def _record(step, layer, room, highest, layer_index, t, used, entropy):
    """Write down what token t was given and what it chose."""
    records, native_ids = step.token_records[t], layer.native_ids[t]
    for j in range(step.record_ids.shape[2]):
        is_used = j < used
        step.record_ids[t, layer_index, j] = layer.topk_ids[t, j] if is_used else -1
        step.record_weights[t, layer_index, j] = layer.topk_weights[t, j] if is_used else 0.0
    if records & MEASURES:
        margin, overlap = margin_of(
            room.clean, highest, layer.topk_ids[t, :used], native_ids, room.work
        )
        step.record_measures[t, layer_index, 0] = entropy
        step.record_measures[t, layer_index, 1] = margin
        step.record_measures[t, layer_index, 2] = overlap
    if records & OBSERVED and t < step.observed_ids.shape[0]:
        for e in range(room.clean.shape[0]):
            step.observed_logits[t, layer_index, e] = room.clean[e]
        for j in range(native_ids.shape[0]):
            step.observed_ids[t, layer_index, j] = native_ids[j]
            step.observed_weights[t, layer_index, j] = layer.native_weights[t, j]


_SIGNATURE: Final = (
    "void(int64, boolean, int64, int64, int64, int64, int64, int64, int64, int64, int64)"
)


def _compile(checksum: int) -> Any:
    @njit(_SIGNATURE, cache=True, nogil=True, boundscheck=False, error_model="numpy")
    def route(
        router_logits,
        is_bfloat16,
        native_weights,
        native_ids,
        topk_weights,
        topk_ids,
        num_tokens,
        native_top_k,
        num_columns,
        layer_index,
        step_table,
    ):
        """Choose the experts of every token of one layer and count them.

        router_logits, native_*, topk_*: addresses of contiguous arrays, see `_Layer`; the
        logits are float32 or bfloat16.
        step_table: address of a `routing.cpu.step.table_of`.
        """
        step = step_at(step_table)
        num_experts = step.assignments.shape[1]
        counted = step.num_tokens[0] if checksum >= 0 else 0
        sizes = (num_experts, native_top_k, num_columns)
        layer = _layer_at(
            router_logits, native_weights, native_ids, topk_weights, topk_ids, num_tokens, sizes
        )
        rule = decode_rule(step.rule_code[layer_index], step.rule_correction_bias[layer_index])
        memory = np.empty((8, whole_blocks(num_experts)), np.float64)
        room = _room_in(carray(pointer(memory.ctypes.data), memory.shape, np.float64), num_experts)

        for t in range(num_tokens):
            slot, highest = -1, 0.0
            if t < counted:
                slot = _slot_of(step, layer, layer_index, t)
                logits_32, logits_16 = layer.logits_32[t], layer.logits_16[t]
                highest = read_logits(room.clean, logits_32, logits_16, is_bfloat16)
            if slot < 0:
                used = _keep_native(layer, t)
            else:
                used = _follow_policy(step, layer, room, highest, rule, layer_index, t, slot)
            _fill_unused(layer, t, used)
            if t < counted:
                ids, group = layer.topk_ids[t, :used], step.token_group[t]
                work = room.work.view(np.float32)
                entropy = count_token(step, layer_index, room.clean, highest, work, ids, group)
                if step.token_records[t]:
                    _record(step, layer, room, highest, layer_index, t, used, entropy)

        memory[0, 0] = 0.0  # numba frees it after its last use: not before

    # Its one form: numba need not look it up.
    return route.get_overload(route.signatures[0])


route = _compile(sources())
