"""`routing.reference.rule`, compiled. Arrays are [E] float64, but clean: the logits, float32.
highest: of them, float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from routing.cpu.elementary import bits_of, exp, f32, number_of, rough_exp
from routing.reference.rule import LOWEST, SCORINGS, SPARSEMIXER_EPSILON


class CompiledRule(NamedTuple):
    """A rule as the kernel takes it."""

    scoring: Any
    renormalize: Any
    scaling_factor: Any
    num_groups: Any
    topk_groups: Any
    has_correction_bias: Any
    correction_bias: Any


@njit(error_model="numpy")
def decode_rule(code, correction_bias):
    """What `routing.step.encode_rule` encoded."""
    return CompiledRule(
        int(code[0]),
        code[1] != 0,
        code[2],
        int(code[3]),
        int(code[4]),
        code[5] != 0,
        correction_bias,
    )


_ALL_BUT_SIGN = (1 << 63) - 1
_LEAST = f32(-87)
_SOFTMAX, _SIGMOID, _SQRTSOFTPLUS, _SPARSEMIXER = range(len(SCORINGS))


@njit(error_model="numpy")
def selects_by_logits(rule):
    """Whether `selection_scores` are the logits themselves."""
    return not (
        rule.has_correction_bias or rule.scoring == _SIGMOID or rule.scoring == _SQRTSOFTPLUS
    )


@njit(error_model="numpy")
def to_selection_scores(values, num_experts, rule):
    """Turn values[:num_experts] from logits into `selection_scores`."""
    if not selects_by_logits(rule):
        to_scores(values, num_experts, rule)
        for e in range(num_experts):
            values[e] += rule.correction_bias[e]


@njit(error_model="numpy")
def to_scores(values, count, rule):
    """Turn values[:count] from logits into `scores`, a softmax among themselves.

    Here and below values and weights have room for `whole_blocks(count)`.
    """
    if rule.scoring == _SIGMOID:
        for i in range(count):
            values[i] = 1.0 / (1.0 + exp(-values[i]))
    elif rule.scoring == _SQRTSOFTPLUS:
        for i in range(count):  # ln(1 + e^z) without overflow
            z = values[i]
            values[i] = np.sqrt(max(z, 0.0) + np.log1p(exp(-abs(z))))
    else:
        total = _exp_below(values, count, _largest(values, count))
        for i in range(count):
            values[i] /= total


@njit(error_model="numpy", fastmath={"contract", "reassoc"})
def entropy_of(clean, highest, below):
    """`reference.rule.entropy`, to six digits. below: float32 [E] to work in."""
    for e in range(clean.shape[0]):
        below[e] = max(clean[e] - f32(highest), _LEAST)
    total, mean = f32(0), f32(0)
    for e in range(clean.shape[0]):
        power = rough_exp(below[e])
        total += power
        mean += power * below[e]
    return np.log(np.float64(total)) - np.float64(mean) / np.float64(total)


@njit(error_model="numpy")
def margin_of(clean, highest, used, native_ids, work):
    """margin and overlap of `reference.rule.measures`; used: ids. work: room for E."""
    count = clean.shape[0]
    least_used, most_unused, kept = np.inf, -np.inf, 0
    for e in range(count):
        work[e] = 0.0
    for expert in used:
        work[expert] = 1.0
    for e in range(count):
        if work[e] != 0:
            least_used = min(least_used, clean[e])
        else:
            most_unused = max(most_unused, clean[e])
    for expert in native_ids:
        kept += work[expert] != 0
    margin = np.exp(least_used - highest) - np.exp(most_unused - highest)
    return margin / _sum_of_exp(clean, highest), kept / native_ids.shape[0]


@njit(error_model="numpy")
def whole_blocks(count):
    """The next multiple of 8: of fewer numbers LLVM would take the rest one by one."""
    return (count + 7) & -8


@njit(error_model="numpy")
def _exp_below(values, count, highest):
    """values[:count] <- exp(values - highest); their sum. What fills the last block is lost."""
    for i in range(whole_blocks(count)):
        values[i] = exp(values[i] - highest)
    return _sum(values, count)


@njit(error_model="numpy")
def _largest(values, count):
    """Of the numbers' bits, which order as they do once those of the negative ones are flipped:
    numba has no vector instructions for the largest of float64.
    """
    highest = np.int64(-1 << 63)
    for i in range(count):
        bits = bits_of(values[i])
        highest = max(highest, bits ^ ((bits >> 63) & _ALL_BUT_SIGN))
    return number_of(highest ^ ((highest >> 63) & _ALL_BUT_SIGN))


@njit(fastmath={"reassoc"}, error_model="numpy")
def _sum(values, count):
    total = 0.0
    for i in range(count):
        total += values[i]
    return total


@njit(error_model="numpy")
def close_groups(gate, logits, ranked, rank, rule):
    """Set gate to -inf for the experts outside the token's groups: see `open_experts`.

    gate: -inf where an expert is banned; else left alone. ranked, rank: [E] to work in.
    """
    group_size = logits.shape[0] // rule.num_groups
    for e in range(logits.shape[0]):
        ranked[e] = logits[e]
    to_selection_scores(ranked, logits.shape[0], rule)
    for group in range(rule.num_groups):
        best, second = -np.inf, -np.inf
        for e in range(group * group_size, (group + 1) * group_size):
            value = LOWEST if gate[e] == -np.inf else ranked[e]
            if value > best:
                best, second = value, best
            elif value > second:
                second = value
        rank[group] = best + second if rule.has_correction_bias and group_size > 1 else best
    for group in range(rule.num_groups):
        better = 0
        for other in range(rule.num_groups):
            if rank[other] > rank[group] or (rank[other] == rank[group] and other < group):
                better += 1
        if better >= rule.topk_groups:
            for e in range(group * group_size, (group + 1) * group_size):
                gate[e] = -np.inf


@njit(error_model="numpy")
def weights_into(weights, clean, highest, ids, count, rule):
    """Fill weights[:count] with `model_weights` of ids[:count]."""
    if count == 0:
        return
    if rule.scoring == _SPARSEMIXER:
        _sparsemixer_into(weights, clean, ids, count)
        return
    for j in range(count):
        weights[j] = clean[ids[j]]
    if rule.scoring != _SOFTMAX:
        to_scores(weights, count, rule)
    elif rule.renormalize:
        _exp_below(weights, count, _largest(weights, count))
    else:
        total = _sum_of_exp(clean, highest)
        for j in range(count):
            weights[j] = exp(weights[j] - highest) / total
    scale_to(weights, count, rule.scaling_factor, rule.renormalize)


@njit(fastmath={"reassoc"}, error_model="numpy")
def _sum_of_exp(clean, highest):
    total = 0.0
    for e in range(clean.shape[0]):
        total += exp(clean[e] - highest)
    return total


@njit(error_model="numpy")
def scale_to(weights, count, factor, renormalize):
    """weights[:count] <- factor times them, or times their `share`."""
    total = _sum(weights, count) if renormalize else 1.0
    if not total > 0:
        weights[:count] = 1.0
        total = float(count)
    for j in range(whole_blocks(count)):
        weights[j] = factor * (weights[j] / total)


@njit(error_model="numpy")
def _sparsemixer_into(weights, clean, ids, count):
    for j in range(count):
        z = np.float64(clean[ids[j]])
        total = 0.0
        for e in range(clean.shape[0]):
            reach = 2 * SPARSEMIXER_EPSILON * max(abs(clean[e]), z)
            if clean[e] > z or z - clean[e] > reach:
                continue
            taken = False  # by a better one of the chosen
            for i in range(count):
                better = clean[ids[i]] > z or (clean[ids[i]] == z and i < j)
                taken = taken or (better and ids[i] == e)
            if not taken:
                total += np.exp(clean[e] - z)
        weights[j] = 1.0 / total
