"""What is recorded of a token: one row for each one that was computed, where somebody asked.

Rows are made where the layers run (`routing.engine.recorder`) and turned here into a trace or
statistics.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from routing.spec import RouterSpec
from routing.trace.trace import Trace

Rows = npt.NDArray[np.void]
MEASURED: Final = {"stats", "tokens"}  # of `routing.policy.keys.INCLUDE`, what needs `measures`


def row_dtype(spec: RouterSpec) -> np.dtype[np.void]:
    """One token: L layers, S = max_top_k slots.

    generated: whether the request came without it. native: whether the model's own router
    chose. topk_ids: best first, -1 in slots not used. The last three are those of
    `routing.reference.rule.measures`, where somebody asked for statistics.
    """
    num_layers, max_top_k = len(spec.layers), spec.max_top_k
    return np.dtype(
        [
            ("position", "<i4"),
            ("generated", "?"),
            ("native", "?"),
            ("topk_ids", "<i2", (num_layers, max_top_k)),
            ("topk_weights", "<f4", (num_layers, max_top_k)),
            ("entropy", "<f4", num_layers),
            ("margin", "<f4", num_layers),
            ("overlap", "<f4", num_layers),
        ]
    )


def latest(rows: Rows) -> Rows:
    """Rows by position; of a token computed twice, as after a preemption, the later one."""
    _, first = np.unique(rows["position"][::-1], return_index=True)
    return rows[::-1][first]


def trace_of(rows: Rows, spec: RouterSpec, *, weights: bool, first_position: int = 0) -> Trace:
    """The trace from a position to the last of what `latest` gives; gaps are -1."""
    at = rows["position"] - first_position
    num_tokens = int(at[-1]) + 1
    top_k = int((rows["topk_ids"] >= 0).sum(axis=2).max())
    ids = np.full((num_tokens, len(spec.layers), top_k), -1, np.int16)
    ids[at] = rows["topk_ids"][:, :, :top_k]
    native = np.zeros(num_tokens, np.bool_)
    native[at] = rows["native"]
    topk_weights = None
    if weights:
        topk_weights = np.zeros(ids.shape, np.float32)
        topk_weights[at] = rows["topk_weights"][:, :, :top_k]
    layers, fingerprint = spec.layers, spec.fingerprint
    return Trace(layers, spec.num_experts, ids, native, topk_weights, first_position, fingerprint)


def tokens_of(rows: Rows) -> dict[str, Any]:
    """Of each token, by position: the means over layers of two of the measures."""
    means = {
        name: rows[column].mean(axis=1, dtype=np.float64).round(4).tolist()
        for name, column in (("entropy_nats", "entropy"), ("own_overlap_ratio", "overlap"))
    }
    return {"positions": rows["position"].tolist(), **means}


def statistics_of(rows: Rows, spec: RouterSpec) -> dict[str, Any]:
    """Of the prompt's tokens and of the generated ones, layer by layer.

    `assignments` {expert: tokens} of the experts used, `distinct_experts` how many those
    are, and the means of the measures.
    """
    phases = {"prompt": rows[~rows["generated"]], "generated": rows[rows["generated"]]}
    return {
        phase: {"tokens": len(chosen), "layers": _layers(chosen, spec)}
        for phase, chosen in phases.items()
    }


def _layers(rows: Rows, spec: RouterSpec) -> list[dict[str, Any]]:
    if not len(rows):
        return []
    return [_layer_statistics(rows, row, layer) for row, layer in enumerate(spec.layers)]


def _layer_statistics(rows: Rows, layer_index: int, layer: int) -> dict[str, Any]:
    ids = rows["topk_ids"][:, layer_index]
    experts, tokens = np.unique(ids[ids >= 0], return_counts=True)
    means = {
        name: round(float(rows[field][:, layer_index].mean(dtype=np.float64)), 6)
        for name, field in (
            ("entropy_nats", "entropy"),
            ("margin", "margin"),
            ("own_overlap_ratio", "overlap"),
        )
    }
    return {
        "layer": layer,
        "assignments": dict(zip(map(str, experts.tolist()), tokens.tolist(), strict=True)),
        "distinct_experts": len(experts),
        **means,
    }
