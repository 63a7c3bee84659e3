"""The routing kernel for GPUs: `routing.cpu.route.route` in Triton, one launch per MoE layer.

Owns the same way from logits to experts, weights and counts, one program per token and one
lane per expert. It reads everything about a step from device memory, so a launch can be
captured in a CUDA graph once and replayed for every later step. Knows nothing of requests.

Inputs are not checked here, as in `routing.cpu.route`; `triton_kernel_cases.py` of the tests holds
it to `routing.reference`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from routing.gpu.choice import keys_of, take_largest
from routing.gpu.modes import REPLAY, choose
from routing.gpu.rule import (
    HIGHEST,
    INFINITY,
    LAST,
    LOWEST,
    in_best_groups,
    model_weights,
    selection_scores,
    share,
)
from routing.policy.keys import WEIGHTS

# Triton reads a global only where it is a constexpr.
_MODEL, _RENORMALIZE, _PRESERVE_MASS = (tl.constexpr(i) for i in range(len(WEIGHTS)))


def route_triton(
    router_logits: torch.Tensor,
    stock_weights: torch.Tensor,
    stock_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    topk_ids: torch.Tensor,
    layer_row: int,
    layers: torch.Tensor,
    rule_numbers: torch.Tensor,
    rule_correction_bias: torch.Tensor,
    num_tokens: torch.Tensor,
    token_row: torch.Tensor,
    token_position: torch.Tensor,
    row_mode: torch.Tensor,
    row_weights: torch.Tensor,
    row_numbers: torch.Tensor,
    row_seed: torch.Tensor,
    row_steered: torch.Tensor,
    row_steering: torch.Tensor,
    token_replayed: torch.Tensor,
    assignments: torch.Tensor,
) -> None:
    """Choose the experts of every token of one layer and count them.

    Arguments, shapes and dtypes as `routing.cpu.route.route` takes them, as contiguous tensors
    of one device; router_logits may have any float dtype, and row_seed be int64 with the
    same bits. None is read on the host.
    """
    total_tokens, num_slots = topk_ids.shape
    num_experts = assignments.shape[1]
    if total_tokens == 0:
        return
    # At least 4: a Philox block has four words.
    lanes = max(4, triton.next_power_of_2(num_experts))
    _route[(total_tokens,)](
        router_logits,
        stock_weights,
        stock_ids,
        topk_weights,
        topk_ids,
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
        NUM_LAYERS=assignments.shape[0],
        NUM_EXPERTS=num_experts,
        NATIVE_TOP_K=stock_ids.shape[1],
        NUM_SLOTS=num_slots,
        NUM_RULE_NUMBERS=rule_numbers.shape[1],
        NUM_PARAMETERS=row_numbers.shape[2],
        LANES=lanes,
        SLOT_LANES=triton.next_power_of_2(num_slots),
        # Every pass of the selection reduces over all lanes; in one warp that needs no barrier.
        num_warps=min(max(lanes // 128, 1), 4),
        enable_fp_fusion=False,  # round after each operation, as on the CPU
    )


# One compiled kernel serves all layers: none's number may be specialised on.
@triton.jit(do_not_specialize=["layer_row"])
def _route(
    router_logits,
    stock_weights,
    stock_ids,
    topk_weights,
    topk_ids,
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
    NUM_LAYERS: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    NATIVE_TOP_K: tl.constexpr,
    NUM_SLOTS: tl.constexpr,
    NUM_RULE_NUMBERS: tl.constexpr,
    NUM_PARAMETERS: tl.constexpr,
    LANES: tl.constexpr,
    SLOT_LANES: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    counted = t < tl.load(num_tokens)
    row = tl.load(token_row + t, mask=counted, other=-1).to(tl.int64)
    topk_weights += t * NUM_SLOTS
    topk_ids += t * NUM_SLOTS
    stock_weights += t * NATIVE_TOP_K
    stock_ids += t * NATIVE_TOP_K
    replayed = token_replayed + (t * NUM_LAYERS + layer_row) * (NUM_SLOTS + 1)
    assignments += layer_row * NUM_EXPERTS
    if row >= 0:
        replays = (tl.load(row_mode + row) == REPLAY) & (tl.load(row_weights + row) == _MODEL)
        if replays & _is_own(replayed, stock_ids, NATIVE_TOP_K, NUM_SLOTS, SLOT_LANES):
            row = tl.full((), -1, tl.int64)
    if row < 0:
        _copy_stock(
            stock_weights,
            stock_ids,
            topk_weights,
            topk_ids,
            assignments,
            counted,
            NATIVE_TOP_K,
            NUM_SLOTS,
            SLOT_LANES,
        )
    else:
        _route_token(
            router_logits + t * NUM_EXPERTS,
            topk_weights,
            topk_ids,
            tl.load(layers + layer_row),
            rule_numbers + layer_row * NUM_RULE_NUMBERS,
            rule_correction_bias + layer_row * NUM_EXPERTS,
            tl.load(token_position + t),
            tl.load(row_mode + row),
            tl.load(row_weights + row),
            row_numbers + (row * NUM_LAYERS + layer_row) * NUM_PARAMETERS,
            tl.load(row_seed + row),
            tl.load(row_steered + row),
            row_steering + (row * NUM_LAYERS + layer_row) * NUM_EXPERTS,
            replayed,
            assignments,
            NUM_EXPERTS,
            NATIVE_TOP_K,
            NUM_SLOTS,
            LANES,
            SLOT_LANES,
        )


@triton.jit
def _is_own(
    replayed,
    stock_ids,
    NATIVE_TOP_K: tl.constexpr,
    NUM_SLOTS: tl.constexpr,
    SLOT_LANES: tl.constexpr,
):
    """Whether the model's own router chose what a token replays, when recorded and now."""
    slots = tl.arange(0, SLOT_LANES)
    recorded = tl.load(replayed + slots, mask=slots < NUM_SLOTS, other=-1).to(tl.int32)
    own = tl.load(stock_ids + slots, mask=slots < NATIVE_TOP_K, other=-1)
    same = tl.sum((recorded != own).to(tl.int32)) == 0
    return same & (tl.load(replayed + NUM_SLOTS) != 0)


@triton.jit
def _copy_stock(
    stock_weights,
    stock_ids,
    topk_weights,
    topk_ids,
    assignments,
    counted,
    NATIVE_TOP_K: tl.constexpr,
    NUM_SLOTS: tl.constexpr,
    SLOT_LANES: tl.constexpr,
):
    """One token that follows no policy. Pointers are to its own part of each array."""
    slots = tl.arange(0, SLOT_LANES)
    native = slots < NATIVE_TOP_K
    ids = tl.load(stock_ids + slots, mask=native, other=0)
    weights = tl.load(stock_weights + slots, mask=native, other=0)
    best = tl.sum(tl.where(slots == 0, ids, 0))
    tl.store(topk_ids + slots, tl.where(native, ids, best), mask=slots < NUM_SLOTS)
    tl.store(topk_weights + slots, weights, mask=slots < NUM_SLOTS)
    if counted:
        _count(assignments, ids, native)


@triton.jit
def _route_token(
    router_logits,
    topk_weights,
    topk_ids,
    layer,
    rule_numbers,
    rule_correction_bias,
    position,
    mode,
    how_weighed,
    parameters,
    seed,
    steered,
    steering,
    replayed,
    assignments,
    NUM_EXPERTS: tl.constexpr,
    NATIVE_TOP_K: tl.constexpr,
    NUM_SLOTS: tl.constexpr,
    LANES: tl.constexpr,
    SLOT_LANES: tl.constexpr,
):
    """One token that follows a policy. Pointers are to its own part of each array."""
    experts = tl.arange(0, LANES)
    real = experts < NUM_EXPERTS
    scoring = tl.load(rule_numbers).to(tl.int32)
    renormalize = tl.load(rule_numbers + 1) != 0
    scaling_factor = tl.load(rule_numbers + 2)
    num_groups = tl.load(rule_numbers + 3).to(tl.int32)
    topk_groups = tl.load(rule_numbers + 4).to(tl.int32)
    has_bias = tl.load(rule_numbers + 5) != 0
    bias = tl.load(rule_correction_bias + experts, mask=real, other=0)

    z = tl.load(router_logits + experts, mask=real, other=0).to(tl.float64)
    clean = tl.where(z >= LOWEST, tl.minimum(z, HIGHEST), LOWEST)  # NaN: LOWEST
    steer = tl.zeros_like(clean)
    if steered:
        steer = tl.load(steering + experts, mask=real, other=0).to(tl.float64)
    banned, forced = steer == -INFINITY, steer == INFINITY
    logits = tl.where(banned | forced, clean, clean + steer)
    allowed = real & ~banned
    if num_groups > 1:
        compared = selection_scores(clean, real, scoring, has_bias, bias)
        allowed &= in_best_groups(
            tl.where(banned, LOWEST, compared), NUM_EXPERTS, num_groups, topk_groups, has_bias
        )
    allowed |= forced

    place = choose(
        mode,
        parameters,
        logits,
        real,
        allowed,
        forced,
        scoring,
        has_bias,
        bias,
        seed,
        layer,
        position,
        replayed,
        NATIVE_TOP_K,
        NUM_SLOTS,
    )
    place = tl.where(place < NUM_SLOTS, place, LAST)
    chosen = place < LAST
    used = tl.sum(chosen.to(tl.int32))

    weights = model_weights(clean, place, real, scoring, renormalize, scaling_factor)
    if how_weighed == _RENORMALIZE:
        weights = share(weights, used) * scaling_factor
    if how_weighed == _PRESERVE_MASS:
        # What the model's own choice would weigh: no steering, its own top-k.
        compared = selection_scores(clean, real, scoring, has_bias, bias)
        own_allowed = real
        if num_groups > 1:
            own_allowed &= in_best_groups(compared, NUM_EXPERTS, num_groups, topk_groups, has_bias)
        own_place = take_largest(keys_of(compared, own_allowed, experts < 0), NATIVE_TOP_K)
        own = model_weights(clean, own_place, real, scoring, renormalize, scaling_factor)
        weights = share(weights, used) * tl.sum(own)

    tl.store(topk_ids + place, experts, mask=chosen)
    tl.store(topk_weights + place, weights.to(tl.float32), mask=chosen)
    slots = tl.arange(0, SLOT_LANES)
    unused = (slots >= used) & (slots < NUM_SLOTS)
    best = tl.sum(tl.where(place == 0, experts, 0))
    tl.store(topk_ids + slots, tl.zeros_like(slots) + best, mask=unused)
    tl.store(topk_weights + slots, tl.zeros_like(slots).to(tl.float32), mask=unused)
    _count(assignments, experts, chosen)


@triton.jit
def _count(assignments, ids, mask):
    """Add 1 to assignments[ids]; the order of the additions does not matter."""
    tl.atomic_add(assignments + ids, tl.full(ids.shape, 1, tl.int64), mask=mask, sem="relaxed")
