"""What a model's own router does with its logits: scores, groups, weights. The reference.

One `RouterRule` describes a layer of any router family. The functions take one token and
are meant to be read; `routing.kernel` computes the same, fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from routing.elementary import exp

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int64]

SCORINGS: Final = ("softmax", "sigmoid", "sqrtsoftplus", "sparsemixer")
LOWEST: Final = float(np.finfo(np.float32).min)
HIGHEST: Final = float(np.finfo(np.float32).max)
# vLLM fixes Phi-MoE's router_jitter_noise at this value.
SPARSEMIXER_EPSILON: Final = 0.01


@dataclass(frozen=True, slots=True)
class RouterRule:
    """The selection and weighting rule of one layer's router.

    scoring: how a logit becomes a score: `softmax`; `sigmoid`; `sqrtsoftplus`, the root of
        ln(1 + e^z) (DeepSeek-V4); `sparsemixer` (Phi-MoE, arXiv 2404.14219).
    renormalize: divide the weights of the chosen experts by their sum.
    scaling_factor: then multiply them by this.
    num_groups, topk_groups: experts come in equal groups of neighbours, of which a token
        may use the `topk_groups` best; 1 and 1 where there are no groups.
    correction_bias: [E] added to scores for the choice, never to a weight
        (DeepSeek-V3, arXiv 2412.19437); None where there is none.
    """

    scoring: str = "softmax"
    renormalize: bool = True
    scaling_factor: float = 1.0
    num_groups: int = 1
    topk_groups: int = 1
    correction_bias: tuple[float, ...] | None = None


def clamp(router_logits: npt.NDArray[np.floating]) -> Floats:
    """[E] in float64; NaN and -inf become the lowest finite float32, +inf the highest."""
    z: Floats = np.nan_to_num(
        router_logits.astype(np.float64), nan=LOWEST, posinf=HIGHEST, neginf=LOWEST
    )
    return z


def scores(rule: RouterRule, logits: Floats) -> Floats:
    """[E] each expert's score, as the model's weights are made from it."""
    if rule.scoring == "sigmoid":
        return 1 / (1 + np.exp(-np.maximum(logits, -700)))
    if rule.scoring == "sqrtsoftplus":
        return np.sqrt(np.logaddexp(0, logits))
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def selection_scores(rule: RouterRule, logits: Floats) -> Floats:
    """[E] what the model compares when it chooses: best first, equal ones by lower id.

    Softmax keeps the order of the logits, which are compared themselves unless a
    correction bias is added.
    """
    if rule.correction_bias is not None:
        return scores(rule, logits) + np.array(rule.correction_bias)
    if rule.scoring in ("softmax", "sparsemixer"):
        return logits
    return scores(rule, logits)


def open_experts(rule: RouterRule, logits: Floats, banned: Mask) -> Mask:
    """[E] the experts a token may use: not banned, and in one of its best groups.

    Groups are ranked by the clean scores of their experts that are not banned: the best
    one, or with a correction bias the two best together. Equal ones: the lower group.
    """
    grouped = np.where(banned, LOWEST, selection_scores(rule, logits)).reshape(rule.num_groups, -1)
    best = -np.sort(-grouped, axis=1)
    rank = best[:, 0] if rule.correction_bias is None else best[:, :2].sum(axis=1)
    chosen = np.argsort(-rank, kind="stable")[: rule.topk_groups]
    is_open = np.zeros(grouped.shape, bool)
    is_open[chosen] = True
    return is_open.reshape(-1) & ~banned


def model_weights(rule: RouterRule, logits: Floats, ids: Ids) -> Floats:
    """[K] the model's own weights of the chosen experts, from clean logits."""
    if rule.scoring == "sparsemixer":
        return _sparsemixer_weights(logits, ids)
    if rule.renormalize and rule.scoring == "softmax":
        weights = scores(rule, logits[ids])  # over the chosen alone: none underflows
    else:
        weights = scores(rule, logits)[ids]
        if rule.renormalize:
            weights = share(weights)
    return weights * rule.scaling_factor


def share(weights: Floats) -> Floats:
    """[K] weights divided by their sum; all the same where that is 0."""
    total = weights.sum()
    return weights / total if total > 0 else np.full(weights.size, 1 / max(weights.size, 1))


def _sparsemixer_weights(logits: Floats, ids: Ids) -> Floats:
    """Each chosen expert against those it nearly ties with, the better chosen ones taken out.

    The better ones that were not chosen are out too: the model's own choice leaves none.
    """
    weights = np.zeros(ids.size)
    left = np.ones(logits.size, bool)
    for slot in np.argsort(-logits[ids], kind="stable"):
        z = logits[ids[slot]]
        reach = 2 * SPARSEMIXER_EPSILON * np.maximum(np.abs(logits), z)
        near = left & (logits <= z) & (z - logits <= reach)
        weights[slot] = 1 / np.exp(logits[near] - z).sum()
        left[ids[slot]] = False
    return weights


# The same, compiled. Arrays are [E] float64 unless said otherwise.

NUMBERS: Final = 6


class CompiledRule(NamedTuple):
    """A rule as the kernel takes it."""

    scoring: Any
    renormalize: Any
    scaling_factor: Any
    num_groups: Any
    topk_groups: Any
    has_correction_bias: Any
    correction_bias: Any


def as_numbers(rule: RouterRule, num_experts: int) -> tuple[Floats, Floats]:
    """The rule for `compiled_rule`: [NUMBERS], and the correction bias [E], or zeros."""
    numbers = (
        SCORINGS.index(rule.scoring),
        rule.renormalize,
        rule.scaling_factor,
        rule.num_groups,
        rule.topk_groups,
        rule.correction_bias is not None,
    )
    bias = rule.correction_bias or (0.0,) * num_experts
    return np.array(numbers, np.float64), np.array(bias, np.float64)


@njit(error_model="numpy")
def compiled_rule(numbers, correction_bias):  # type: ignore[no-untyped-def]
    """`as_numbers` as a `CompiledRule`."""
    return CompiledRule(
        int(numbers[0]),
        numbers[1] != 0,
        numbers[2],
        int(numbers[3]),
        int(numbers[4]),
        numbers[5] != 0,
        correction_bias,
    )


_SOFTMAX, _SIGMOID, _SQRTSOFTPLUS, _SPARSEMIXER = range(len(SCORINGS))


@njit(error_model="numpy")
def to_selection_scores(values, num_experts, rule):  # type: ignore[no-untyped-def]
    """Turn values[:num_experts] from logits into `selection_scores`."""
    if rule.has_correction_bias or rule.scoring == _SIGMOID or rule.scoring == _SQRTSOFTPLUS:
        to_scores(values, num_experts, rule)
        for e in range(num_experts):
            values[e] += rule.correction_bias[e]


@njit(error_model="numpy")
def to_scores(values, count, rule):  # type: ignore[no-untyped-def]
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


@njit(error_model="numpy")
def whole_blocks(count):  # type: ignore[no-untyped-def]
    """The next multiple of 8: of fewer numbers LLVM would take the rest one by one."""
    return (count + 7) & -8


@njit(error_model="numpy")
def _exp_below(values, count, highest):  # type: ignore[no-untyped-def]
    """values[:count] <- exp(values - highest); their sum. What fills the last block is lost."""
    for i in range(whole_blocks(count)):
        values[i] = exp(values[i] - highest)
    return _sum(values, count)


@njit(fastmath={"reassoc", "nsz", "nnan"}, error_model="numpy")
def _largest(values, count):  # type: ignore[no-untyped-def]
    highest = values[0]
    for i in range(count):
        highest = max(highest, values[i])
    return highest


@njit(fastmath={"reassoc"}, error_model="numpy")
def _sum(values, count):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(count):
        total += values[i]
    return total


@njit(error_model="numpy")
def close_groups(gate, logits, ranked, rank, rule):  # type: ignore[no-untyped-def]
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
def weights_into(weights, logits, ids, count, rule):  # type: ignore[no-untyped-def]
    """Fill weights[:count] with `model_weights` of ids[:count]."""
    if count == 0:
        return
    if rule.scoring == _SPARSEMIXER:
        _sparsemixer_into(weights, logits, ids, count)
        return
    for j in range(count):
        weights[j] = logits[ids[j]]
    if rule.scoring != _SOFTMAX:
        to_scores(weights, count, rule)
    elif rule.renormalize:
        _exp_below(weights, count, _largest(weights, count))
    else:
        highest = _largest(logits, logits.shape[0])
        total = _sum_of_exp(logits, highest)
        for j in range(count):
            weights[j] = exp(weights[j] - highest) / total
    scale_to(weights, count, rule.scaling_factor, rule.renormalize)


@njit(fastmath={"reassoc"}, error_model="numpy")
def _sum_of_exp(logits, highest):  # type: ignore[no-untyped-def]
    total = 0.0
    for e in range(logits.shape[0]):
        total += exp(logits[e] - highest)
    return total


@njit(error_model="numpy")
def scale_to(weights, count, factor, renormalize):  # type: ignore[no-untyped-def]
    """weights[:count] <- factor times them, or times their `share`."""
    total = _sum(weights, count) if renormalize else 1.0
    if not total > 0:
        weights[:count] = 1.0
        total = float(count)
    for j in range(whole_blocks(count)):
        weights[j] = factor * (weights[j] / total)


@njit(error_model="numpy")
def _sparsemixer_into(weights, logits, ids, count):  # type: ignore[no-untyped-def]
    for j in range(count):
        z = logits[ids[j]]
        total = 0.0
        for e in range(logits.shape[0]):
            reach = 2 * SPARSEMIXER_EPSILON * max(abs(logits[e]), z)
            if logits[e] > z or z - logits[e] > reach:
                continue
            taken = False  # by a better one of the chosen
            for i in range(count):
                better = logits[ids[i]] > z or (logits[ids[i]] == z and i < j)
                taken = taken or (better and ids[i] == e)
            if not taken:
                total += np.exp(logits[e] - z)
        weights[j] = 1.0 / total
