"""The selection of experts for one token, slow and obvious: the oracle of every test.

Adding temperature x Gumbel noise to the logits and keeping the k largest draws k experts
without replacement from softmax(logits / temperature), in order (Plackett-Luce; Kool et
al., "Stochastic beams and where to find them", ICML 2019, arXiv 1903.06059).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from routing.noise import gumbel


def select_experts(
    router_logits: npt.NDArray[np.float32],
    top_k: int,
    *,
    temperature: float,
    seed: int,
    layer: int,
    position: int,
    renormalize: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Choose `top_k` experts for one token of a softmax router.

    router_logits: [E], clean; NaN and -inf count as the lowest finite float32, +inf as
    the highest. layer: decoder layer index; position: absolute, from 0.
    Returns topk_weights [K] and topk_ids [K], best noisy logit first; equal values keep
    the lower expert id. Weights come from the clean logits: their softmax over all
    experts, divided by the chosen ones' sum where `renormalize`.
    """
    lowest, highest = float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)
    clean = np.nan_to_num(
        router_logits.astype(np.float64), nan=lowest, posinf=highest, neginf=lowest
    )
    noisy = clean
    if temperature > 0:
        noisy = clean + float(np.float32(temperature)) * gumbel(seed, layer, position, clean.size)
    topk_ids = np.argsort(-noisy, kind="stable")[:top_k]
    exponentials = np.exp(clean - clean.max())
    topk_weights = exponentials[topk_ids]
    total = topk_weights.sum() if renormalize else exponentials.sum()
    return topk_weights / total, topk_ids
