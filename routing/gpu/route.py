"""`routing.reference.route` for every token of one layer, in one launch: a program per token.

It reads everything about a step from device memory, so a launch can be captured in a CUDA
graph once and replayed for every later step. Inputs are not checked.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routing.gpu.choice import Token, keys_of, take_largest
from routing.gpu.modes import choose
from routing.gpu.rule import (
    HIGHEST,
    INFINITY,
    LAST,
    LOWEST,
    decode_rule,
    in_best_groups,
    model_weights,
    selection_scores,
    share,
)
from routing.policy.keys import WEIGHTS
from routing.step import Step

_RENORMALIZE = tl.constexpr(WEIGHTS.index("renormalize"))
_PRESERVE_MASS = tl.constexpr(WEIGHTS.index("preserve_mass"))


def route(
    router_logits: torch.Tensor,
    native_weights: torch.Tensor,
    native_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    layer_index: int,
    step: Step,
) -> None:
    """Choose the experts of every token of one layer and count them.

    router_logits: [T, E], any float dtype. native_*: [T, K], topk_*: [T, S], float32 and
    int32. step: tensors, of which slot_seed may be int64 with the same bits. All contiguous,
    of one device; none is read on the host.
    """
    num_tokens, max_top_k = topk_ids.shape
    num_experts = step.assignments.shape[1]
    if num_tokens == 0:
        return
    # At least 4: a Philox block has four words.
    lanes = max(4, triton.next_power_of_2(num_experts))
    route_kernel[(num_tokens,)](
        router_logits,
        native_weights,
        native_ids,
        topk_weights,
        topk_ids,
        layer_index,
        step,
        NUM_LAYERS=step.layers.shape[0],
        NUM_EXPERTS=num_experts,
        NATIVE_TOP_K=native_ids.shape[1],
        MAX_TOP_K=max_top_k,
        NUM_RULE_NUMBERS=step.rule_code.shape[1],
        NUM_PARAMETERS=step.slot_parameters.shape[2],
        LANES=lanes,
        COLUMNS=triton.next_power_of_2(max_top_k),
        # Every pass of the selection reduces over all lanes; in one warp that needs no barrier.
        num_warps=min(max(lanes // 128, 1), 4),
        enable_fp_fusion=False,  # round after each operation, as on the CPU
    )


# One compiled kernel serves all layers: none's number may be specialised on.
@triton.jit(do_not_specialize=["layer_index"])
def route_kernel(
    router_logits,
    native_weights,
    native_ids,
    topk_weights,
    topk_ids,
    layer_index,
    step,
    NUM_LAYERS: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    NATIVE_TOP_K: tl.constexpr,
    MAX_TOP_K: tl.constexpr,
    NUM_RULE_NUMBERS: tl.constexpr,
    NUM_PARAMETERS: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    counted = t < tl.load(step.num_tokens)
    slot = tl.load(step.token_slot + t, mask=counted, other=-1).to(tl.int64)
    topk_weights += t * MAX_TOP_K
    topk_ids += t * MAX_TOP_K
    native_weights += t * NATIVE_TOP_K
    native_ids += t * NATIVE_TOP_K
    replayed = step.token_replayed + (t * NUM_LAYERS + layer_index) * MAX_TOP_K
    logits = router_logits + t * NUM_EXPERTS
    if counted:
        _count_entropy(step.router_entropy + layer_index, logits, NUM_EXPERTS, LANES)
    if slot >= 0:
        keeps = tl.load(step.slot_keeps_native + slot) & tl.load(step.token_was_native + t)
        if keeps & _replays_native(replayed, native_ids, NATIVE_TOP_K, MAX_TOP_K, COLUMNS):
            slot = tl.full((), -1, tl.int64)
    if slot < 0:
        ids, native = _keep_native(
            native_weights, native_ids, topk_weights, topk_ids, NATIVE_TOP_K, MAX_TOP_K, COLUMNS
        )
        if counted:
            _count(step, layer_index, t, ids, native, NUM_EXPERTS)
    else:
        row = slot * NUM_LAYERS + layer_index
        code = step.rule_code + layer_index * NUM_RULE_NUMBERS
        bias = step.rule_correction_bias + layer_index * NUM_EXPERTS
        steering = step.slot_steering + row * NUM_EXPERTS
        token, clean = _token(
            step, code, bias, logits, steering, replayed, layer_index, slot, t, NUM_EXPERTS, LANES
        )
        parameters = step.slot_parameters + row * NUM_PARAMETERS
        mode = tl.load(step.slot_mode + slot)
        place = choose(mode, token, parameters, NATIVE_TOP_K, MAX_TOP_K)
        place = tl.where(place < MAX_TOP_K, place, LAST)
        weighing = tl.load(step.slot_weights + slot)
        weights = _weigh(token, clean, place, weighing, NUM_EXPERTS, NATIVE_TOP_K)
        _store(topk_weights, topk_ids, weights, place, MAX_TOP_K, COLUMNS)
        _count(step, layer_index, t, tl.arange(0, LANES), place < LAST, NUM_EXPERTS)


# Below, pointers are to one token's or one layer's part of an array.


@triton.jit
def _keep_native(
    native_weights,
    native_ids,
    topk_weights,
    topk_ids,
    NATIVE_TOP_K: tl.constexpr,
    MAX_TOP_K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Copy the native choice; columns that it does not use repeat its first expert. Returns it, and
    which of its lanes are real.
    """
    columns = tl.arange(0, COLUMNS)
    native = columns < NATIVE_TOP_K
    ids = tl.load(native_ids + columns, mask=native, other=0)
    weights = tl.load(native_weights + columns, mask=native, other=0)
    best = tl.sum(tl.where(columns == 0, ids, 0))
    tl.store(topk_ids + columns, tl.where(native, ids, best), mask=columns < MAX_TOP_K)
    tl.store(topk_weights + columns, weights, mask=columns < MAX_TOP_K)
    return ids, native


@triton.jit
def _token(
    step,
    rule_code,
    correction_bias,
    router_logits,
    steering,
    replayed,
    layer_index,
    slot,
    t,
    NUM_EXPERTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Token t, and its clean logits."""
    experts = tl.arange(0, LANES)
    real = experts < NUM_EXPERTS
    rule = decode_rule(rule_code, tl.load(correction_bias + experts, mask=real, other=0))
    clean = _clamp(tl.load(router_logits + experts, mask=real, other=0))
    added = tl.zeros_like(clean)
    if tl.load(step.slot_steered + slot):
        added = tl.load(steering + experts, mask=real, other=0).to(tl.float64)
    banned, forced = added == -INFINITY, added == INFINITY
    token = Token(
        tl.where(banned | forced, clean, clean + added),
        real,
        _open_experts(rule, clean, real, banned, NUM_EXPERTS) | forced,
        forced,
        rule,
        tl.load(step.slot_seed + slot),
        tl.load(step.layers + layer_index),
        tl.where(tl.load(step.slot_draws_once + slot), 0, tl.load(step.token_position + t)),
        replayed,
    )
    return token, clean


@triton.jit
def _clamp(router_logits):
    """`reference.rule.clamp`."""
    z = router_logits.to(tl.float64)
    return tl.where(z >= LOWEST, tl.minimum(z, HIGHEST), LOWEST)  # NaN: LOWEST


@triton.jit
def _weigh(token, clean, place, weighing, NUM_EXPERTS: tl.constexpr, NATIVE_TOP_K: tl.constexpr):
    """The chosen experts' weights; weighing: place in WEIGHTS."""
    rule, real = token.rule, token.real
    used = tl.sum((place < LAST).to(tl.int32))
    weights = model_weights(rule, clean, place, real)
    if weighing == _RENORMALIZE:
        weights = share(weights, used) * rule.scaling_factor
    if weighing == _PRESERVE_MASS:
        # What the native choice would weigh: no steering, native top-k.
        nothing = real & ~real
        is_open = _open_experts(rule, clean, real, nothing, NUM_EXPERTS)
        keys = keys_of(selection_scores(rule, clean, real), is_open, nothing)
        native = model_weights(rule, clean, take_largest(keys, NATIVE_TOP_K), real)
        weights = share(weights, used) * tl.sum(native)
    return weights


@triton.jit
def _replays_native(
    replayed,
    native_ids,
    NATIVE_TOP_K: tl.constexpr,
    MAX_TOP_K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Whether what a token replays, chosen by the native router, is what it chooses now."""
    columns = tl.arange(0, COLUMNS)
    recorded = tl.load(replayed + columns, mask=columns < MAX_TOP_K, other=-1).to(tl.int32)
    native = tl.load(native_ids + columns, mask=columns < NATIVE_TOP_K, other=-1)
    return tl.sum((recorded != native).to(tl.int32)) == 0


@triton.jit
def _open_experts(rule, clean, real, banned, NUM_EXPERTS: tl.constexpr):
    """`reference.rule.open_experts`."""
    is_open = real & ~banned
    if rule.num_groups > 1:
        compared = selection_scores(rule, clean, real)
        is_open &= in_best_groups(rule, tl.where(banned, LOWEST, compared), NUM_EXPERTS)
    return is_open


@triton.jit
def _store(topk_weights, topk_ids, weights, place, MAX_TOP_K: tl.constexpr, COLUMNS: tl.constexpr):
    """Write a choice; columns that it does not use repeat the best expert with weight 0."""
    experts = tl.arange(0, place.shape[0])
    chosen = place < LAST
    used = tl.sum(chosen.to(tl.int32))
    tl.store(topk_ids + place, experts, mask=chosen)
    tl.store(topk_weights + place, weights.to(tl.float32), mask=chosen)
    columns = tl.arange(0, COLUMNS)
    unused = (columns >= used) & (columns < MAX_TOP_K)
    best = tl.sum(tl.where(place == 0, experts, 0))
    tl.store(topk_ids + columns, tl.zeros_like(columns) + best, mask=unused)
    tl.store(topk_weights + columns, tl.zeros_like(columns).to(tl.float32), mask=unused)


@triton.jit
def _count(step, layer_index, t, ids, mask, NUM_EXPERTS: tl.constexpr):
    """Count token t's experts; the order of the additions does not matter."""
    places = layer_index * NUM_EXPERTS + ids
    ones = tl.full(ids.shape, 1, tl.int64)
    tl.atomic_add(step.assignments + places, ones, mask=mask, sem="relaxed")
    number = tl.load(step.step_number)
    is_new = mask & (tl.load(step.expert_step + places, mask=mask, other=number) != number)
    # Of the tokens that see it so at the same time, one is the first.
    before = tl.atomic_xchg(
        step.expert_step + places, tl.zeros_like(ones) + number, mask=is_new, sem="relaxed"
    )
    first = tl.sum((is_new & (before != number)).to(tl.int64))
    tl.atomic_add(step.active_experts + layer_index, first, mask=first > 0, sem="relaxed")
    used = tl.sum(mask.to(tl.int64))
    group = tl.load(step.token_group + t)
    tl.atomic_add(step.group_assignments + group, used, mask=used > 0, sem="relaxed")


@triton.jit
def _count_entropy(total, router_logits, NUM_EXPERTS: tl.constexpr, LANES: tl.constexpr):
    """Add `reference.rule.entropy` of one token."""
    experts = tl.arange(0, LANES)
    real = experts < NUM_EXPERTS
    clean = _clamp(tl.load(router_logits + experts, mask=real, other=0))
    below = tl.where(real, clean - tl.max(tl.where(real, clean, LOWEST)), 0.0)
    powers = tl.where(real, tl.exp(below), 0.0)
    sum_of_powers = tl.sum(powers)
    entropy = tl.log(sum_of_powers) - tl.sum(powers * below) / sum_of_powers
    tl.atomic_add(total, entropy, sem="relaxed")
