"""`routing.reference.rule` in Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from routing.reference import rule

# Triton reads a global only where it is a constexpr.
_SOFTMAX, _SIGMOID, _SQRTSOFTPLUS, _SPARSEMIXER = (
    tl.constexpr(i) for i in range(len(rule.SCORINGS))
)
_SPARSEMIXER_REACH = tl.constexpr(2 * rule.SPARSEMIXER_EPSILON)
LOWEST, HIGHEST = tl.constexpr(rule.LOWEST), tl.constexpr(rule.HIGHEST)
INFINITY = tl.constexpr(float("inf"))
LAST = tl.constexpr((1 << 31) - 1)


@triton.jit
def scores(logits, among, scoring):
    """`reference.rule.scores`, a softmax among the experts of a mask and 0 elsewhere."""
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
        highest = tl.max(tl.where(among, logits, 2 * LOWEST))
        exponentials = tl.where(among, tl.exp(tl.minimum(logits - highest, 0.0)), 0.0)
        scores = exponentials / tl.maximum(tl.sum(exponentials), 1.0)
    return tl.where(among, scores, 0.0)


@triton.jit
def selection_scores(logits, real, scoring, has_bias, bias):
    """`reference.rule.selection_scores`; bias: zeros where the rule has none."""
    compared = logits
    if has_bias | (scoring == _SIGMOID) | (scoring == _SQRTSOFTPLUS):
        compared = scores(logits, real, scoring) + bias
    return compared


@triton.jit
def in_best_groups(scores, num_experts, num_groups, topk_groups, two_best):
    """Mask of the experts in the best groups, ranked as `reference.rule.open_experts` does."""
    experts = tl.arange(0, scores.shape[0])
    size = num_experts // num_groups
    group = experts // size
    rank = tl.full(scores.shape, -INFINITY, tl.float64)
    for g in range(num_groups):
        members = tl.where(group == g, scores, -INFINITY)
        best = tl.max(members)
        if two_best & (size > 1):
            first = tl.min(tl.where(members == best, experts, LAST))
            best += tl.max(tl.where(experts == first, -INFINITY, members))
        rank = tl.where(group == g, best, rank)
    inside = experts < 0
    for _ in range(topk_groups):
        best = tl.max(tl.where(inside, -INFINITY, rank))
        inside |= group == tl.min(tl.where((rank == best) & ~inside, group, LAST))
    return inside


@triton.jit
def model_weights(clean, place, real, scoring, renormalize, scaling_factor):
    """`reference.rule.model_weights` of the chosen experts, 0 for the others."""
    chosen = place < LAST
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
        weights = tl.where(chosen, scores(clean, among, scoring), 0.0)
        if renormalize:
            weights = share(weights, used)
        weights *= scaling_factor
    return tl.where(chosen, weights, 0.0)


@triton.jit
def share(weights, used):
    """Weights divided by their sum; all the same where that is 0."""
    total = tl.sum(weights)
    equal = 1.0 / tl.maximum(used, 1).to(tl.float64)
    return tl.where(total > 0, weights / tl.where(total > 0, total, 1.0), equal)
