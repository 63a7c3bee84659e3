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
from routing.gpu.step import slot_at, trace_experts, trace_row, trace_was_native
from routing.policy.keys import WEIGHTS
from routing.step import MEASURES, NUM_MEASURES, OBSERVED, Step

_MEASURES, _OBSERVED = tl.constexpr(MEASURES), tl.constexpr(OBSERVED)
_NUM_MEASURES = tl.constexpr(NUM_MEASURES)
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

    router_logits: [T, E], any float dtype. native_*: [T, K], topk_*: [T, columns], float32 and
    int32. step: tensors. All contiguous, of one device; none is read on the host.
    """
    num_tokens, num_columns = topk_ids.shape
    max_top_k = step.record_ids.shape[2]
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
        num_columns,
        step,
        NUM_LAYERS=step.layers.shape[0],
        NUM_EXPERTS=num_experts,
        NATIVE_TOP_K=native_ids.shape[1],
        MAX_TOP_K=max_top_k,
        NUM_RULE_NUMBERS=step.rule_code.shape[1],
        NUM_PARAMETERS=step.slot_parameters.shape[2],
        NUM_OBSERVED=step.observed_ids.shape[0],
        LANES=lanes,
        COLUMNS=triton.next_power_of_2(max_top_k),
        # Every pass of the selection reduces over all lanes; in one warp that needs no barrier.
        num_warps=min(max(lanes // 128, 1), 4),
        enable_fp_fusion=False,  # round after each operation, as on the CPU
    )


# One compiled kernel serves all layers and widths: no number of theirs may be specialised on.
@triton.jit(do_not_specialize=["layer_index", "num_columns"])
def route_kernel(
    router_logits,
    native_weights,
    native_ids,
    topk_weights,
    topk_ids,
    layer_index,
    num_columns,
    step,
    NUM_LAYERS: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    NATIVE_TOP_K: tl.constexpr,
    MAX_TOP_K: tl.constexpr,
    NUM_RULE_NUMBERS: tl.constexpr,
    NUM_PARAMETERS: tl.constexpr,
    NUM_OBSERVED: tl.constexpr,
    LANES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    t = tl.program_id(0).to(tl.int64)
    counted = t < tl.load(step.num_tokens)
    topk_weights += t * num_columns
    topk_ids += t * num_columns
    experts, columns = tl.arange(0, LANES), tl.arange(0, COLUMNS)
    real, native = experts < NUM_EXPERTS, columns < NATIVE_TOP_K
    clean = _clamp(tl.load(router_logits + t * NUM_EXPERTS + experts, mask=real, other=0))
    own_ids = tl.load(native_ids + t * NATIVE_TOP_K + columns, mask=native, other=0)
    own_weights = tl.load(native_weights + t * NATIVE_TOP_K + columns, mask=native, other=0)

    number = tl.load(step.token_slot + t, mask=counted, other=-1).to(tl.int64)
    slot = slot_at(step, tl.maximum(number, 0))
    position = tl.load(step.token_position + t)
    row = trace_row(slot, position)
    replayed = trace_experts(slot, row, layer_index, NUM_LAYERS)
    if (number >= 0) & (slot.keeps_native != 0):
        recorded = tl.load(replayed + columns, mask=columns < slot.trace_top_k, other=-1)
        changed = tl.sum((recorded != tl.where(native, own_ids, -1)).to(tl.int32))
        if trace_was_native(slot, row) & (changed == 0):
            number = tl.full((), -1, tl.int64)

    records = tl.load(step.token_records + t, mask=counted, other=0)
    place = tl.full((LANES,), LAST, tl.int32)
    if number < 0:
        own_place = tl.where(native, columns, LAST)
        _store(topk_weights, topk_ids, own_ids, own_weights, own_place, num_columns, COLUMNS)
        if counted:
            _count(step, layer_index, t, own_ids, native, NUM_EXPERTS)
        if records != 0:
            _record_choice(
                step,
                layer_index,
                t,
                own_ids,
                own_weights,
                own_place,
                NUM_LAYERS,
                MAX_TOP_K,
                COLUMNS,
            )
    else:
        of_layer = number * NUM_LAYERS + layer_index
        code = step.rule_code + layer_index * NUM_RULE_NUMBERS
        bias = step.rule_correction_bias + layer_index * NUM_EXPERTS
        steering = step.slot_steering + of_layer * NUM_EXPERTS
        layer = tl.load(step.layers + layer_index)
        token = _token(
            slot, layer, position, replayed, clean, real, code, bias, steering, NUM_EXPERTS, LANES
        )
        parameters = step.slot_parameters + of_layer * NUM_PARAMETERS
        place = choose(slot.mode, token, parameters, NATIVE_TOP_K, MAX_TOP_K)
        place = tl.where(place < MAX_TOP_K, place, LAST)
        weights = _weigh(token, clean, place, slot.weights, NUM_EXPERTS, NATIVE_TOP_K)
        _store(topk_weights, topk_ids, experts, weights, place, num_columns, COLUMNS)
        _count(step, layer_index, t, experts, place < LAST, NUM_EXPERTS)
        if records != 0:
            _record_choice(
                step, layer_index, t, experts, weights, place, NUM_LAYERS, MAX_TOP_K, COLUMNS
            )

    if counted:
        entropy = _entropy(clean, real)
        tl.atomic_add(step.router_entropy + layer_index, entropy, sem="relaxed")
        of_token = t * NUM_LAYERS + layer_index
        if (records & _MEASURES) != 0:
            is_own = _is_among(experts, own_ids, native)
            used = is_own
            if number >= 0:
                used = place < LAST
            margin, overlap = _margin(clean, real, used, is_own, NATIVE_TOP_K)
            measures = step.record_measures + of_token * _NUM_MEASURES
            tl.store(measures, entropy.to(tl.float32))
            tl.store(measures + 1, margin.to(tl.float32))
            tl.store(measures + 2, overlap.to(tl.float32))
        if ((records & _OBSERVED) != 0) & (t < NUM_OBSERVED):
            logits = step.observed_logits + of_token * NUM_EXPERTS
            tl.store(logits + experts, clean.to(tl.float32), mask=real)
            own = of_token * NATIVE_TOP_K + columns
            tl.store(step.observed_ids + own, own_ids, mask=native)
            tl.store(step.observed_weights + own, own_weights, mask=native)


# Below, pointers are to one token's or one layer's part of an array.


@triton.jit
def _token(
    slot,
    layer,
    position,
    replayed,
    clean,
    real,
    rule_code,
    correction_bias,
    steering,
    NUM_EXPERTS: tl.constexpr,
    LANES: tl.constexpr,
):
    """A token that follows a slot's policy."""
    experts = tl.arange(0, LANES)
    rule = decode_rule(rule_code, tl.load(correction_bias + experts, mask=real, other=0))
    added = tl.zeros_like(clean)
    if slot.is_steered != 0:
        added = tl.load(steering + experts, mask=real, other=0).to(tl.float64)
    banned, forced = added == -INFINITY, added == INFINITY
    return Token(
        tl.where(banned | forced, clean, clean + added),
        real,
        _open_experts(rule, clean, real, banned, NUM_EXPERTS) | forced,
        forced,
        rule,
        slot.seed,
        layer,
        tl.where(slot.draws_once != 0, 0, position),
        replayed,
        slot.trace_top_k,
    )


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
def _open_experts(rule, clean, real, banned, NUM_EXPERTS: tl.constexpr):
    """`reference.rule.open_experts`."""
    is_open = real & ~banned
    if rule.num_groups > 1:
        compared = selection_scores(rule, clean, real)
        is_open &= in_best_groups(rule, tl.where(banned, LOWEST, compared), NUM_EXPERTS)
    return is_open


@triton.jit
def _store(topk_weights, topk_ids, ids, weights, place, num_columns, COLUMNS: tl.constexpr):
    """Write a choice; columns that it does not use repeat the best expert with weight 0."""
    chosen = place < num_columns  # LAST is above; so are some of padding
    tl.store(topk_ids + place, ids, mask=chosen)
    tl.store(topk_weights + place, weights.to(tl.float32), mask=chosen)
    unused, columns = _unused(chosen, num_columns, COLUMNS)
    best = tl.sum(tl.where(place == 0, ids, 0))
    tl.store(topk_ids + columns, tl.zeros_like(columns) + best, mask=unused)
    tl.store(topk_weights + columns, tl.zeros_like(columns).to(tl.float32), mask=unused)


@triton.jit
def _record_choice(
    step,
    layer_index,
    t,
    ids,
    weights,
    place,
    NUM_LAYERS: tl.constexpr,
    MAX_TOP_K: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write a choice down; columns that it does not use are -1 with weight 0."""
    chosen = place < LAST
    start = (t * NUM_LAYERS + layer_index) * MAX_TOP_K
    tl.store(step.record_ids + start + place, ids.to(tl.int16), mask=chosen)
    tl.store(step.record_weights + start + place, weights.to(tl.float32), mask=chosen)
    unused, columns = _unused(chosen, MAX_TOP_K, COLUMNS)
    tl.store(step.record_ids + start + columns, tl.full((COLUMNS,), -1, tl.int16), mask=unused)
    tl.store(step.record_weights + start + columns, tl.zeros((COLUMNS,), tl.float32), mask=unused)


@triton.jit
def _unused(chosen, num_columns, COLUMNS: tl.constexpr):
    """Mask of the columns after those of the chosen experts, and the columns."""
    columns = tl.arange(0, COLUMNS)
    return (columns >= tl.sum(chosen.to(tl.int32))) & (columns < num_columns), columns


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
def _entropy(clean, real):
    """`reference.rule.entropy` of one token."""
    below = tl.where(real, clean - tl.max(tl.where(real, clean, LOWEST)), 0.0)
    powers = tl.where(real, tl.exp(below), 0.0)
    sum_of_powers = tl.sum(powers)
    return tl.log(sum_of_powers) - tl.sum(powers * below) / sum_of_powers


@triton.jit
def _is_among(experts, ids, mask):
    """Mask of the experts that are among ids."""
    same = (experts[:, None] == ids[None, :]) & mask[None, :]
    return tl.sum(same.to(tl.int32), 1) > 0


@triton.jit
def _margin(clean, real, used, is_own, NATIVE_TOP_K: tl.constexpr):
    """margin and overlap of `reference.rule.measures`."""
    below = tl.where(real, clean - tl.max(tl.where(real, clean, LOWEST)), 0.0)
    powers = tl.where(real, tl.exp(below), 0.0)
    least_used = tl.min(tl.where(used, powers, INFINITY))
    most_unused = tl.max(tl.where(used, 0.0, powers))
    overlap = tl.sum((used & is_own).to(tl.int32)) / NATIVE_TOP_K
    return (least_used - most_unused) / tl.sum(powers), overlap
