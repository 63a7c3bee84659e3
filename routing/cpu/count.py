"""What is counted of tokens and their experts; and steps that need no more, all layers at once.

Where every token keeps the native choice, the model goes on with its own tensors. A kernel called
in each of its layers would find its code and data gone from the caches every time: 7 microseconds
a call, of which 1 is work.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import carray, njit

from routing.cpu.elementary import f32, flipped, i32, number_of, order_of
from routing.cpu.rule import entropy_of
from routing.cpu.step import pointer, sources, step_at
from routing.reference.rule import HIGHEST, LOWEST


@njit(error_model="numpy")
def _clamp(logit):
    """`reference.rule.clamp`, of a float32."""
    return min(logit, f32(HIGHEST)) if logit >= f32(LOWEST) else f32(LOWEST)  # NaN: LOWEST


@njit(inline="always", error_model="numpy")
def read_logits(clean, logits_32, logits_16, is_bfloat16):
    """clean <- a token's logits; the highest of them, float64.

    logits_32, logits_16: [E] the same memory, as float32 and as the bits of bfloat16.
    """
    highest = order_of(f32(LOWEST))
    if is_bfloat16:
        for e in range(clean.shape[0]):
            clean[e] = _clamp(number_of(i32(i32(logits_16[e]) << i32(16))))
            highest = max(highest, order_of(clean[e]))
    else:
        for e in range(clean.shape[0]):
            clean[e] = _clamp(logits_32[e])
            highest = max(highest, order_of(clean[e]))
    return np.float64(number_of(flipped(highest)))


@njit(inline="always", error_model="numpy")
def count_token(step, layer_index, clean, highest, work, ids, group):
    """Count a token of a group in one layer, and its experts; its entropy. work: [E] float32."""
    entropy = entropy_of(clean, highest, work)
    step.router_entropy[layer_index] += entropy
    for expert in ids:
        step.assignments[layer_index, expert] += 1
        is_new = step.expert_step[layer_index, expert] != step.step_number[0]
        step.expert_step[layer_index, expert] = step.step_number[0]
        step.active_experts[layer_index] += is_new  # a branch would be mispredicted
    step.group_assignments[group] += ids.shape[0]
    return entropy


_SIGNATURE: Final = "void(int64[:, ::1], boolean, int64, int64)"


def _compile(checksum: int) -> Any:
    @njit(_SIGNATURE, cache=True, nogil=True, boundscheck=False, error_model="numpy")
    def count_native(layers, is_bfloat16, native_top_k, step_table):
        """Count the step's tokens with the experts that the native router chose.

        layers: [N, 3], of each layer its index and the addresses of its router's logits [T, E],
        float32 or bfloat16, and of the native ids [T, K], int32. step_table: address of a
        `routing.cpu.step.table_of`.
        """
        step = step_at(step_table)
        num_tokens, num_experts = step.num_tokens[0], step.assignments.shape[1]
        room = np.empty((2, num_experts), np.float32)
        clean, work = room[0], room[1]
        for n in range(layers.shape[0] if checksum >= 0 else 0):
            layer_index, address = layers[n, 0], pointer(layers[n, 1])
            logits_32 = carray(address, (num_tokens, num_experts), np.float32)
            logits_16 = carray(address, (num_tokens, num_experts), np.uint16)
            ids = carray(pointer(layers[n, 2]), (num_tokens, native_top_k), np.int32)
            for t in range(num_tokens):
                highest = read_logits(clean, logits_32[t], logits_16[t], is_bfloat16)
                group = step.token_group[t]
                count_token(step, layer_index, clean, highest, work, ids[t], group)

    # Its one form: numba need not look it up.
    return count_native.get_overload(count_native.signatures[0])


count_native = _compile(sources())
