"""The routing kernel for GPUs: `routing.kernel.route` in Triton, one launch per MoE layer.

Owns the same way from logits to experts, weights and counts, one program per token and one
lane per expert. It reads everything about a step from device memory, so a launch can be
captured in a CUDA graph once and replayed for every later step. Knows nothing of requests.

All arithmetic on scores and noise is float64, as on the CPU, rounded to float32 where keys
are compared: then one seed chooses the same experts on both. float32 would not do for the
noise: it rounds the largest u to 1, where -ln(-ln u) is infinite, and a GPU's float32 ln
may be off by 2^-22 (PTX ISA, lg2.approx), 8 times the smallest -ln u.

Inputs are not checked here, as in `routing.kernel`; `tests/triton_kernel_cases.py` holds
it to `routing.reference`.
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl

from routing import choice, rule
from routing.modes import top_p
from routing.policy.keys import WEIGHTS
from routing.policy.modes import MODES

_KNOWN_MODES: Final = ("top_k", "sample", "top_p", "head_sample", "uniform", "replay")
if tuple(MODES) != _KNOWN_MODES:
    raise NotImplementedError(f"the GPU kernel knows the modes {_KNOWN_MODES}, not {tuple(MODES)}")

# Triton reads a global only where it is a constexpr.
_TOP_P, _HEAD_SAMPLE = (tl.constexpr(_KNOWN_MODES.index(m)) for m in ("top_p", "head_sample"))
_SAMPLE, _UNIFORM = (tl.constexpr(_KNOWN_MODES.index(m)) for m in ("sample", "uniform"))
_REPLAY = tl.constexpr(_KNOWN_MODES.index("replay"))
_TOP_K_MASS = tl.constexpr(top_p.TOP_K_MASS)
_ALMOST = tl.constexpr(top_p.ALMOST)
_MODEL, _RENORMALIZE, _PRESERVE_MASS = (tl.constexpr(i) for i in range(len(WEIGHTS)))
_SOFTMAX, _SIGMOID, _SQRTSOFTPLUS, _SPARSEMIXER = (
    tl.constexpr(i) for i in range(len(rule.SCORINGS))
)
_RULE_NUMBERS = tl.constexpr(rule.NUMBERS)
_SPARSEMIXER_REACH = tl.constexpr(2 * rule.SPARSEMIXER_EPSILON)
_LOWEST, _HIGHEST = tl.constexpr(rule.LOWEST), tl.constexpr(rule.HIGHEST)
_STEP = tl.constexpr(2.0**-24)
_INFINITY = tl.constexpr(float("inf"))
_LAST = tl.constexpr((1 << 31) - 1)
_CLOSED, _ABOVE_ALL = tl.constexpr(choice.CLOSED), tl.constexpr((1 << 63) - 1)


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

    Arguments, shapes and dtypes as `routing.kernel.route` takes them, as contiguous tensors
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
        NUM_PARAMETERS=row_numbers.shape[2],
        LANES=lanes,
        SLOT_LANES=triton.next_power_of_2(num_slots),
        # Every pass of the selection reduces over all lanes; in one warp that needs no barrier.
        num_warps=min(max(lanes // 128, 1), 4),
        enable_fp_fusion=False,  # round after each operation, as on the CPU
    )


# One compiled kernel serves all layers: none's number may be specialised on.
@triton.jit(do_not_specialize=["layer_row"])
def _route(  # type: ignore[no-untyped-def]
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
        replays = (tl.load(row_mode + row) == _REPLAY) & (tl.load(row_weights + row) == _MODEL)
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
            rule_numbers + layer_row * _RULE_NUMBERS,
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
def _is_own(  # type: ignore[no-untyped-def]
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
def _copy_stock(  # type: ignore[no-untyped-def]
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
def _route_token(  # type: ignore[no-untyped-def]
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
    clean = tl.where(z >= _LOWEST, tl.minimum(z, _HIGHEST), _LOWEST)  # NaN: LOWEST
    steer = tl.zeros_like(clean)
    if steered:
        steer = tl.load(steering + experts, mask=real, other=0).to(tl.float64)
    banned, forced = steer == -_INFINITY, steer == _INFINITY
    logits = tl.where(banned | forced, clean, clean + steer)
    allowed = real & ~banned
    if num_groups > 1:
        compared = _selection_scores(clean, real, scoring, has_bias, bias)
        allowed &= _in_best_groups(
            tl.where(banned, _LOWEST, compared), NUM_EXPERTS, num_groups, topk_groups, has_bias
        )
    allowed |= forced

    place = _choose(
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
    place = tl.where(place < NUM_SLOTS, place, _LAST)
    chosen = place < _LAST
    used = tl.sum(chosen.to(tl.int32))

    weights = _model_weights(clean, place, real, scoring, renormalize, scaling_factor)
    if how_weighed == _RENORMALIZE:
        weights = _share(weights, used) * scaling_factor
    if how_weighed == _PRESERVE_MASS:
        # What the model's own choice would weigh: no steering, its own top-k.
        compared = _selection_scores(clean, real, scoring, has_bias, bias)
        own_allowed = real
        if num_groups > 1:
            own_allowed &= _in_best_groups(compared, NUM_EXPERTS, num_groups, topk_groups, has_bias)
        own_place = _take_largest(_keys(compared, own_allowed, experts < 0), NATIVE_TOP_K)
        own = _model_weights(clean, own_place, real, scoring, renormalize, scaling_factor)
        weights = _share(weights, used) * tl.sum(own)

    tl.store(topk_ids + place, experts, mask=chosen)
    tl.store(topk_weights + place, weights.to(tl.float32), mask=chosen)
    slots = tl.arange(0, SLOT_LANES)
    unused = (slots >= used) & (slots < NUM_SLOTS)
    best = tl.sum(tl.where(place == 0, experts, 0))
    tl.store(topk_ids + slots, tl.zeros_like(slots) + best, mask=unused)
    tl.store(topk_weights + slots, tl.zeros_like(slots).to(tl.float32), mask=unused)
    _count(assignments, experts, chosen)


# Below, vectors are [LANES], one lane per expert. A choice is `place`: where in the list of
# chosen ones an expert comes, from 0, or _LAST for one that is not chosen.


@triton.jit
def _count(assignments, ids, mask):  # type: ignore[no-untyped-def]
    """Add 1 to assignments[ids]; the order of the additions does not matter."""
    tl.atomic_add(assignments + ids, tl.full(ids.shape, 1, tl.int64), mask=mask, sem="relaxed")


@triton.jit
def _choose(  # type: ignore[no-untyped-def]
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
    NATIVE_TOP_K: tl.constexpr,
    NUM_SLOTS: tl.constexpr,
):
    """The places that the mode gives; parameters: pointer to its numbers, see `routing.modes`."""
    first = tl.load(parameters)  # top_k, or top_p's own number
    second = tl.load(parameters + 1)
    third = tl.load(parameters + 2)
    fourth = tl.load(parameters + 3)
    temperature = tl.where(mode == _HEAD_SAMPLE, fourth, second)
    noise = tl.zeros_like(logits)
    if (mode == _SAMPLE) | (mode == _HEAD_SAMPLE) | (mode == _UNIFORM):
        noise = _gumbel(seed, layer, position, logits.shape[0])

    if mode == _REPLAY:
        experts = tl.arange(0, logits.shape[0])
        place = tl.full(logits.shape, _LAST, tl.int32)
        for slot in range(NUM_SLOTS):
            place = tl.where(experts == tl.load(replayed + slot), slot, place)
    elif mode == _UNIFORM:
        place = _take_largest(_keys(noise, allowed, forced), first.to(tl.int32))
    elif mode == _SAMPLE:
        noisy = _selection_scores(logits + temperature * noise, real, scoring, has_bias, bias)
        place = _take_largest(_keys(noisy, allowed, forced), first.to(tl.int32))
    else:
        keys = _keys(_selection_scores(logits, real, scoring, has_bias, bias), allowed, forced)
        if mode == _HEAD_SAMPLE:
            place = _take_largest(keys, third.to(tl.int32))
            noisy = _selection_scores(logits + temperature * noise, real, scoring, has_bias, bias)
            keys = _keys(noisy, allowed & (place < _LAST), forced)
            # The head's keys are put above all others, in its order.
            above = ((place ^ _LAST) - 1).to(tl.int64) << 32
            keys = tl.where(place < second.to(tl.int32), above, keys)
            place = _take_largest(keys, first.to(tl.int32))
        elif mode == _TOP_P:
            max_experts = second.to(tl.int32)
            place = _take_largest(keys, tl.maximum(max_experts, NATIVE_TOP_K))
            mass = tl.where(allowed, _scores(logits, real, scoring), 0.0)
            total = tl.sum(mass)
            if fourth == _TOP_K_MASS:
                total = tl.sum(tl.where(place < NATIVE_TOP_K, mass, 0.0))
            to_reach = first * total * _ALMOST
            enough = _enough(mass, place, to_reach, third.to(tl.int32), max_experts)
            place = tl.where(place < enough, place, _LAST)
        else:
            place = _take_largest(keys, first.to(tl.int32))
    return place


@triton.jit
def _enough(mass, place, to_reach, min_experts, max_experts):  # type: ignore[no-untyped-def]
    """How many of the first places hold the mass, within the bounds."""
    enough = max_experts
    for count in range(min_experts, max_experts):
        reached = tl.sum(tl.where(place < count, mass, 0.0))
        enough = tl.where(reached >= to_reach, tl.minimum(enough, count), enough)
    return enough


@triton.jit
def _gumbel(seed, layer, position, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Standard Gumbel noise, float64, as `routing.noise.gumbel` makes it."""
    bits = (_words(seed, layer, position, LANES) >> 8).to(tl.float64)
    return -tl.log(-tl.log((bits + 0.5) * _STEP))


@triton.jit
def _words(seed, layer, position, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """uint32: word e % 4 of the Philox block with counter (e // 4, layer, position, 0)."""
    block = tl.arange(0, LANES // 4).to(tl.uint32)
    zero = tl.zeros_like(block)
    w0, w1, w2, w3 = tl.philox(
        seed, block, zero + layer.to(tl.uint32), zero + position.to(tl.uint32), zero
    )
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))


@triton.jit
def _scores(logits, among, scoring):  # type: ignore[no-untyped-def]
    """`routing.rule.scores`, a softmax among the experts of a mask and 0 elsewhere."""
    scores = tl.zeros_like(logits)
    if scoring == _SIGMOID:
        scores = 1.0 / (1.0 + tl.exp(-tl.maximum(logits, -700.0)))
    elif scoring == _SQRTSOFTPLUS:
        # ln(1 + e^z) without overflow; ln(y) t / (y - 1) is ln(1 + t) exact to the last
        # bits, also where y = 1 + t has lost most of t (Kahan).
        t = tl.exp(-tl.abs(logits))
        y = 1.0 + t
        log1p = tl.where(y == 1.0, t, tl.log(y) * t / tl.where(y == 1.0, 1.0, y - 1.0))
        scores = tl.sqrt(tl.maximum(logits, 0.0) + log1p)
    else:
        highest = tl.max(tl.where(among, logits, 2 * _LOWEST))
        exponentials = tl.where(among, tl.exp(tl.minimum(logits - highest, 0.0)), 0.0)
        scores = exponentials / tl.maximum(tl.sum(exponentials), 1.0)
    return tl.where(among, scores, 0.0)


@triton.jit
def _selection_scores(logits, real, scoring, has_bias, bias):  # type: ignore[no-untyped-def]
    """`routing.rule.selection_scores`; bias: zeros where the rule has none."""
    compared = logits
    if has_bias | (scoring == _SIGMOID) | (scoring == _SQRTSOFTPLUS):
        compared = _scores(logits, real, scoring) + bias
    return compared


@triton.jit
def _in_best_groups(  # type: ignore[no-untyped-def]
    scores, num_experts, num_groups, topk_groups, two_best
):
    """Mask of the experts in the best groups, ranked as `routing.rule.open_experts` does."""
    experts = tl.arange(0, scores.shape[0])
    size = num_experts // num_groups
    group = experts // size
    rank = tl.full(scores.shape, -_INFINITY, tl.float64)
    for g in range(num_groups):
        members = tl.where(group == g, scores, -_INFINITY)
        best = tl.max(members)
        if two_best & (size > 1):
            first = tl.min(tl.where(members == best, experts, _LAST))
            best += tl.max(tl.where(experts == first, -_INFINITY, members))
        rank = tl.where(group == g, best, rank)
    inside = experts < 0
    for _ in range(topk_groups):
        best = tl.max(tl.where(inside, -_INFINITY, rank))
        inside |= group == tl.min(tl.where((rank == best) & ~inside, group, _LAST))
    return inside


@triton.jit
def _keys(values, allowed, forced):  # type: ignore[no-untyped-def]
    """int64 in the order of (forced, float32 value, lower id), see `choice.set_keys`."""
    experts = tl.arange(0, values.shape[0])
    rounded = values.to(tl.float32)
    rounded = tl.where(rounded == 0, 0.0, rounded)  # -0 becomes 0
    rounded = tl.where(forced, _INFINITY, rounded)
    bits = rounded.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & _LAST)
    keys = (ordered.to(tl.int64) << 32) | (experts ^ _LAST).to(tl.int64)
    return tl.where(allowed, keys, _CLOSED)


@triton.jit
def _take_largest(keys, count):  # type: ignore[no-untyped-def]
    """Places of the `count` largest keys; fewer, where fewer are not closed."""
    place = tl.full(keys.shape, _LAST, tl.int32)
    found = tl.full((), _ABOVE_ALL, tl.int64)
    for slot in range(count):
        found = tl.max(tl.where(keys < found, keys, _CLOSED))
        place = tl.where((keys == found) & (found > _CLOSED), slot, place)
    return place


@triton.jit
def _model_weights(  # type: ignore[no-untyped-def]
    clean, place, real, scoring, renormalize, scaling_factor
):
    """`routing.rule.model_weights` of the chosen experts, 0 for the others."""
    chosen = place < _LAST
    used = tl.sum(chosen.to(tl.int32))
    weights = tl.zeros_like(clean)
    if scoring == _SPARSEMIXER:
        for slot in range(used):
            z = tl.sum(tl.where(place == slot, clean, 0.0))
            reach = tl.maximum(tl.abs(clean), z) * _SPARSEMIXER_REACH
            taken = (clean == z) & (place < slot)  # those above z are out in any case
            near = real & (clean <= z) & (z - clean <= reach) & ~taken
            total = tl.sum(tl.where(near, tl.exp(tl.minimum(clean - z, 0.0)), 0.0))
            weights = tl.where(place == slot, 1.0 / total, weights)
    else:
        among = real
        if (scoring == _SOFTMAX) & renormalize:
            among = chosen  # a softmax over these alone: none underflows
        weights = tl.where(chosen, _scores(clean, among, scoring), 0.0)
        if renormalize:
            weights = _share(weights, used)
        weights *= scaling_factor
    return tl.where(chosen, weights, 0.0)


@triton.jit
def _share(weights, used):  # type: ignore[no-untyped-def]
    """Weights divided by their sum; all the same where that is 0."""
    total = tl.sum(weights)
    equal = 1.0 / tl.maximum(used, 1).to(tl.float64)
    return tl.where(total > 0, weights / tl.where(total > 0, total, 1.0), equal)
