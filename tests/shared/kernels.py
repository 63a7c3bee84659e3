"""A backend as tests call it: one layer of the step that it is in; and what they call it with:
shapes of logits, rules of router families.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from routing.backend import Backend, begin_batch, load_backend
from routing.policy import parse_policy
from routing.policy.compiled import compile_policy
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest
from tests.shared.interpreter import patch_language_once

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
BACKEND = os.environ.get("GALTON_TEST_BACKEND", "cpu")
DEVICE = "cuda" if BACKEND == "gpu" and torch.cuda.is_available() else "cpu"
IS_INTERPRETED = BACKEND == "gpu" and DEVICE == "cpu"  # a thousand times slower

if IS_INTERPRETED:
    patch_language_once()

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


def backend_of(spec: RouterSpec, num_tokens: int, num_slots: int, rule: RouterRule) -> Backend:
    """One of the BACKENDS, the CPU's unless the environment names another."""
    return load_backend(BACKEND)(spec, [rule] * len(spec.layers), num_tokens, num_slots)


def assignments(backend: Backend) -> npt.NDArray[np.int64]:
    """[L, E] what the backend counted."""
    return backend.counts().assignments.copy()


def request_of(
    routing: dict[str, Any] | None, num_prompt_tokens: int, spec: RouterSpec
) -> RoutedRequest:
    """A request as it reaches the worker; with a policy even where that is the native one."""
    policy = None if routing is None else compile_policy(parse_policy(routing, spec), spec)
    group = 0 if policy is None else policy.mode
    return RoutedRequest(policy, num_prompt_tokens, group=group)


def step(
    spec: RouterSpec, routing: dict[str, Any], num_tokens: int, rule: RouterRule | None = None
) -> Backend:
    """In a step of one request, whose tokens 0 .. num_tokens-1 all follow `routing`."""
    backend = backend_of(spec, num_tokens, 1, rule or RouterRule())
    request = request_of({**routing, "scope": "all"}, num_tokens, spec)
    begin_batch(backend, [request], np.array([num_tokens]), np.array([0]))
    return backend


def native_choice(logits: Floats, top_k: int) -> tuple[Floats, Ints]:
    """Stand-in for the native choice: marked weights, so that a copy is recognized."""
    ids = np.argsort(-logits, axis=1, kind="stable")[:, :top_k].astype(np.int32)
    weights = np.full(ids.shape, 0.125, np.float32) + ids.astype(np.float32)
    return weights, ids


def draws(
    logits: Floats,
    routing: dict[str, Any],
    num_tokens: int,
    *,
    rule: RouterRule | None = None,
    layer_index: int = 0,
) -> Ints:
    """[N, k] the experts of tokens 0 .. N-1 of one request, all with the same logits [E]."""
    top_k, chunk = routing["top_k"], 10_000
    spec = spec_of(logits.size, top_k)
    backend = backend_of(spec, chunk, 1, rule or RouterRule())
    request = request_of({**routing, "scope": "all"}, num_tokens, spec)
    rows = np.tile(logits, (chunk, 1))
    native = native_choice(rows, top_k)
    ids = np.empty((num_tokens, top_k), np.int32)
    for start in range(0, num_tokens, chunk):
        count = min(chunk, num_tokens - start)
        begin_batch(backend, [request], np.array([count]), np.array([start]))
        chosen = run(backend, rows, layer_index=layer_index, native=native)[1]
        ids[start : start + count] = chosen[:count]
    return ids


def to_bfloat16(logits: Floats) -> Floats:
    """The same rounded towards zero to 16 bits, still in float32."""
    return (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def run(
    backend: Backend,
    logits: Floats | torch.Tensor,
    *,
    layer_index: int = 0,
    is_bfloat16: bool = False,
    native: tuple[Floats, Ints] | None = None,
    num_columns: int | None = None,
) -> tuple[Floats, Ints]:
    """One layer of the step that the backend is in; topk_weights and topk_ids, [T, num_columns].

    is_bfloat16: pass the logits, which `to_bfloat16` has rounded, as bfloat16.
    native: `native_choice` of the logits, where a caller knows it. num_columns: None: max_top_k.
    """
    tensor = torch.as_tensor(logits).contiguous()
    weights, ids = native or native_choice(tensor.float().numpy(), backend.state.spec.top_k)
    tensor = (tensor.bfloat16() if is_bfloat16 else tensor).to(DEVICE)
    native_weights, native_ids = (torch.from_numpy(array).to(DEVICE) for array in (weights, ids))
    # torch then fills new memory with NaN and with 2^31 - 1: what is not written is seen.
    torch.use_deterministic_algorithms(True)
    num_columns = num_columns or backend.state.spec.max_top_k
    topk_weights, topk_ids = backend.route(
        tensor, native_weights, native_ids, layer_index, num_columns
    )
    torch.use_deterministic_algorithms(False)
    return topk_weights.cpu().numpy(), topk_ids.cpu().numpy()
