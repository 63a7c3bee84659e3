"""`routing.reference.rule` in Triton."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class Rule(NamedTuple):
    """A `RouterRule`; correction_bias: [LANES], zeros where there is none."""

    scoring: Any
    renormalize: Any
    scaling_factor: Any
    num_groups: Any
    topk_groups: Any
    has_correction_bias: Any
    correction_bias: Any


@triton.jit
def decode_rule(code, correction_bias):
    """What `routing.step.encode_rule` encoded; code: pointer to the layer's."""
    return Rule(
        tl.load(code).to(tl.int32),
        tl.load(code + 1) != 0,
        tl.load(code + 2),
        tl.load(code + 3).to(tl.int32),
        tl.load(code + 4).to(tl.int32),
        tl.load(code + 5) != 0,
        correction_bias,
    )


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
def selection_scores(rule, logits, real):
    """`reference.rule.selection_scores`."""
    compared = logits
    by_score = (rule.scoring == _SIGMOID) | (rule.scoring == _SQRTSOFTPLUS)
    if rule.has_correction_bias | by_score:
        compared = scores(logits, real, rule.scoring) + rule.correction_bias
    return compared


@triton.jit
def in_best_groups(rule, scores, num_experts):
    """Mask of the experts in the best groups, ranked as `reference.rule.open_experts` does."""
    experts = tl.arange(0, scores.shape[0])
    size = num_experts // rule.num_groups
    group = experts // size
    rank = tl.full(scores.shape, -INFINITY, tl.float64)
    for g in range(rule.num_groups):
        members = tl.where(group == g, scores, -INFINITY)
        best = tl.max(members)
        if rule.has_correction_bias & (size > 1):
            first = tl.min(tl.where(members == best, experts, LAST))
            best += tl.max(tl.where(experts == first, -INFINITY, members))
        rank = tl.where(group == g, best, rank)
    inside = experts < 0
    for _ in range(rule.topk_groups):
        best = tl.max(tl.where(inside, -INFINITY, rank))
        inside |= group == tl.min(tl.where((rank == best) & ~inside, group, LAST))
    return inside


@triton.jit
def model_weights(rule, clean, place, real):
    """`reference.rule.model_weights` of the chosen experts, 0 for the others."""
    chosen = place < LAST
    used = tl.sum(chosen.to(tl.int32))
    weights = tl.zeros_like(clean)
    if rule.scoring == _SPARSEMIXER:
        for j in range(used):
            z = tl.sum(tl.where(place == j, clean, 0.0))
            reach = tl.maximum(tl.abs(clean), z) * _SPARSEMIXER_REACH
            taken = (clean == z) & (place < j)  # those above z are out in any case
            near = real & (clean <= z) & (z - clean <= reach) & ~taken
            total = tl.sum(tl.where(near, tl.exp(tl.minimum(clean - z, 0.0)), 0.0))
            weights = tl.where(place == j, 1.0 / total, weights)
    else:
        among = real
        if (rule.scoring == _SOFTMAX) & rule.renormalize:
            among = chosen  # a softmax over these alone: none underflows
        weights = tl.where(chosen, scores(clean, among, rule.scoring), 0.0)
        if rule.renormalize:
            weights = share(weights, used)
        weights *= rule.scaling_factor
    return tl.where(chosen, weights, 0.0)


@triton.jit
def share(weights, used):
    """Weights divided by their sum; all the same where that is 0."""
    total = tl.sum(weights)
    equal = 1.0 / tl.maximum(used, 1).to(tl.float64)
    return tl.where(total > 0, weights / tl.where(total > 0, total, 1.0), equal)
