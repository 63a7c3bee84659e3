"""What a model's own router does with one token's logits: scores, groups, weights.

One `RouterRule` describes a layer of any router family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

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
    num_groups, topk_groups: experts come in equal groups of neighbors, of which a token
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


def entropy(logits: Floats) -> float:
    """Of P(expert | token) = softmax(logits), in nats: from 0 to ln E."""
    below = logits - logits.max()
    powers = np.exp(below)
    return float(np.log(powers.sum()) - powers @ below / powers.sum())


def measures(logits: Floats, ids: Ids, native_ids: Ids) -> tuple[float, float, float]:
    """Three numbers of one token, from P = softmax(logits).

    logits: [E], clean. ids: the experts used; native_ids: what the model's own router chose.
    Returns entropy, of P in nats; margin, P of the least likely expert used minus P of the
    most likely one not used, negative where a policy passed a better one over; overlap, the
    share of native_ids that were used.
    """
    powers = np.exp(logits - logits.max())
    p, used = powers / powers.sum(), np.zeros(logits.size, bool)
    used[ids] = True
    margin = p[used].min() - p[~used].max(initial=0)
    return entropy(logits), float(margin), float(used[native_ids].mean())


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
