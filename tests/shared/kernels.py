"""The compiled kernel as tests call it: one layer of the step that a state holds; and what
they call it with: shapes of logits, rules of router families.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from routing.cpu.route import route
from routing.policy import parse_policy
from routing.policy.compiled import compile_policy
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest, StepState

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

SHAPES = ("peaked", "flat", "tied")
RULES = (
    "softmax",
    "softmax, renormalized",
    "softmax, bias",
    "softmax, groups",
    "sigmoid",
    "sigmoid, bias",
    "sigmoid, bias, groups",
    "sqrtsoftplus, bias",
    "sparsemixer",
)


def logits_of(shape: str, num_experts: int) -> Floats:
    """[E] one token's logits, of one of the SHAPES."""
    rng = np.random.default_rng(num_experts)
    logits = {
        "peaked": rng.normal(0, 3, num_experts),
        "flat": rng.normal(0, 0.1, num_experts),
        "tied": rng.integers(0, 2, num_experts),
    }
    return logits[shape].astype(np.float32)


def rule_of(name: str, num_experts: int) -> RouterRule:
    """One of the RULES; with groups, tokens use two of four (one of one, of few experts)."""
    scoring, *parts = name.split(", ")
    num_groups = 4 if "groups" in parts and num_experts >= 16 else 1
    bias = np.random.default_rng(0).uniform(-1, 1, num_experts)
    return RouterRule(
        scoring,
        renormalize="renormalized" in parts or scoring == "sigmoid",
        scaling_factor=2.5 if "groups" in parts else 1.0,
        num_groups=num_groups,
        topk_groups=min(2, num_groups),
        correction_bias=tuple(bias) if "bias" in parts else None,
    )


def spec_of(num_experts: int, top_k: int, max_top_k: int | None = None) -> RouterSpec:
    """Two MoE layers, 0 and 3."""
    return RouterSpec((0, 3), num_experts, top_k, max_top_k or top_k)


def state_of(spec: RouterSpec, num_tokens: int, num_rows: int, rule: RouterRule) -> StepState:
    return StepState(spec, [rule] * len(spec.layers), num_tokens, num_rows)


def request_of(
    routing: dict[str, Any] | None, num_prompt_tokens: int, spec: RouterSpec
) -> RoutedRequest:
    """A request as it reaches the worker; with a policy even where that is the native one."""
    policy = None if routing is None else compile_policy(parse_policy(routing, spec), spec)
    return RoutedRequest(policy, num_prompt_tokens)


def step(
    spec: RouterSpec, routing: dict[str, Any], num_tokens: int, rule: RouterRule | None = None
) -> StepState:
    """A step of one request, whose tokens 0 .. num_tokens-1 all follow `routing`."""
    state = state_of(spec, num_tokens, 1, rule or RouterRule())
    request = request_of({**routing, "scope": "all"}, num_tokens, spec)
    state.begin_step([request], np.array([num_tokens]), np.array([0]))
    return state


def stock_choice(logits: Floats, top_k: int) -> tuple[Floats, Ints]:
    """Stand-in for vLLM's own choice: marked weights, so that a copy is recognized."""
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :top_k].astype(np.int32)
    weights = np.full(ids.shape, 0.125, np.float32) + ids.astype(np.float32)
    return weights, ids


def draws(
    logits: Floats,
    routing: dict[str, Any],
    num_tokens: int,
    *,
    rule: RouterRule | None = None,
    layer_row: int = 0,
) -> Ints:
    """[N, k] the experts of tokens 0 .. N-1 of one request, all with the same logits [E]."""
    top_k, chunk = routing["top_k"], 10_000
    spec = spec_of(logits.size, top_k)
    state = state_of(spec, chunk, 1, rule or RouterRule())
    request = request_of({**routing, "scope": "all"}, num_tokens, spec)
    rows = np.tile(logits, (chunk, 1))
    stock = stock_choice(rows, top_k)
    ids = np.empty((num_tokens, top_k), np.int32)
    for start in range(0, num_tokens, chunk):
        count = min(chunk, num_tokens - start)
        state.begin_step([request], np.array([count]), np.array([start]))
        chosen = run(state, rows, layer_row=layer_row, stock=stock)[1]
        ids[start : start + count] = chosen[:count]
    return ids


def to_bfloat16(logits: Floats) -> Floats:
    """The same rounded towards zero to 16 bits, still in float32."""
    return (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def run(
    state: StepState,
    logits: Floats,
    *,
    layer_row: int = 0,
    is_bfloat16: bool = False,
    stock: tuple[Floats, Ints] | None = None,
) -> tuple[Floats, Ints]:
    """One layer of the step that `state` holds; topk_weights and topk_ids, [T, max_top_k].

    is_bfloat16: pass the logits, which `to_bfloat16` has rounded, as bfloat16.
    stock: `stock_choice` of the logits, where a caller knows it.
    """
    spec = state.spec
    weights = np.full((len(logits), spec.max_top_k), np.nan, np.float32)
    ids = np.full((len(logits), spec.max_top_k), -1, np.int32)
    stock_weights, stock_ids = stock or stock_choice(logits, spec.top_k)
    logits = np.ascontiguousarray(logits)
    passed = (logits.view(np.uint32) >> 16).astype(np.uint16) if is_bfloat16 else logits
    route(
        passed.ctypes.data,
        is_bfloat16,
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
