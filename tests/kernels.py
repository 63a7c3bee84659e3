"""The compiled kernel as tests call it: one layer of the step that a state holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routing.kernel import route
from routing.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest, StepState

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


def spec_of(num_experts: int, top_k: int, max_top_k: int | None = None) -> RouterSpec:
    """Two MoE layers, 0 and 3."""
    return RouterSpec((0, 3), num_experts, top_k, max_top_k or top_k)


def state_of(spec: RouterSpec, num_tokens: int, num_rows: int, rule: RouterRule) -> StepState:
    return StepState(spec, [rule] * len(spec.layers), num_tokens, num_rows)


def step(
    spec: RouterSpec, routing: dict[str, Any], num_tokens: int, rule: RouterRule | None = None
) -> StepState:
    """A step of one request, whose tokens 0 .. num_tokens-1 all follow `routing`."""
    state = state_of(spec, num_tokens, 1, rule or RouterRule())
    request = RoutedRequest.of({**routing, "scope": "all"}, num_tokens, spec)
    state.begin_step([request], np.array([num_tokens]), np.array([0]))
    return state


def stock_choice(logits: Floats, top_k: int) -> tuple[Floats, Ints]:
    """Stand-in for vLLM's own choice: marked weights, so that a copy is recognized."""
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :top_k].astype(np.int32)
    weights = np.full(ids.shape, 0.125, np.float32) + ids.astype(np.float32)
    return weights, ids


def run(state: StepState, logits: Floats, *, layer_row: int = 0) -> tuple[Floats, Ints]:
    """One layer of the step that `state` holds; topk_weights and topk_ids, [T, max_top_k]."""
    spec = state.spec
    weights = np.full((len(logits), spec.max_top_k), np.nan, np.float32)
    ids = np.full((len(logits), spec.max_top_k), -1, np.int32)
    stock_weights, stock_ids = stock_choice(logits, spec.top_k)
    logits = np.ascontiguousarray(logits)
    route(
        logits.ctypes.data,
        False,
        stock_weights.ctypes.data,
        stock_ids.ctypes.data,
        weights.ctypes.data,
        ids.ctypes.data,
        len(logits),
        spec.top_k,
        spec.max_top_k,
        layer_row,
        *state.kernel_arrays(),
    )
    return weights, ids
