"""The one custom operator: the routing of every MoE layer, which asks the backend.

It is opaque to torch.compile: Dynamo would otherwise bake one step's policies into the graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from vllm.utils.torch_utils import direct_register_custom_op

from routing.backend import Backend
from routing.engine.recorder import Recorder
from routing.state import RoutedRequest


@dataclass(slots=True)
class Observation:
    """What one layer did in one step, kept for the self-test. N tokens, without padding.

    router_logits: [N, E]. token_slot, token_position: [N]. topk_*: [N, max_top_k], the choice.
    native_*: [N, K], what vLLM's own router chose for the same logits. requests: by slot,
    whose policy a token follows.
    """

    layer_index: int
    router_logits: npt.NDArray[np.float32]
    token_slot: npt.NDArray[np.int32]
    token_position: npt.NDArray[np.int64]
    topk_weights: npt.NDArray[np.float32]
    topk_ids: npt.NDArray[np.int32]
    native_weights: npt.NDArray[np.float32]
    native_ids: npt.NDArray[np.int32]
    requests: list[RoutedRequest]


@dataclass(slots=True)
class BoundModel:
    """The routers of the model loaded in this process.

    counts_path: where other processes find the backend's counts, see
    `routing.engine.shared_memory`.
    observations: what the layers did; None while no self-test runs.
    """

    backend: Backend
    recorder: Recorder
    counts_path: str
    observations: list[Observation] | None = None


# A custom operator cannot take an object as an argument; a process serves one model.
_bound: BoundModel | None = None


def serve(bound: BoundModel) -> None:
    """Have the operator ask these routers from now on."""
    global _bound
    _bound = bound


def _galton_route(
    router_logits: torch.Tensor,
    native_weights: torch.Tensor,
    native_ids: torch.Tensor,
    layer_index: int,
    max_top_k: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    bound = _bound
    assert bound is not None, "the routing operator ran before a model was bound"
    weights, ids = bound.backend.route(router_logits, native_weights, native_ids, layer_index)
    if bound.recorder.tokens is not None:
        bound.recorder.record(
            layer_index,
            lambda: router_logits.float().numpy(),
            weights.numpy(),
            ids.numpy(),
            native_ids.numpy(),
        )
    state = bound.backend.state
    if bound.observations is not None and state.any_policy:
        n = int(state.arrays.num_tokens[0])
        bound.observations.append(
            Observation(
                layer_index,
                router_logits[:n].float().numpy().copy(),
                state.arrays.token_slot[:n].copy(),
                state.arrays.token_position[:n].copy(),
                weights[:n].numpy().copy(),
                ids[:n].numpy().copy(),
                native_weights[:n].numpy().copy(),
                native_ids[:n].numpy().copy(),
                state.slot_request.copy(),
            )
        )
    return weights, ids


def _galton_route_fake(
    router_logits: torch.Tensor,
    native_weights: torch.Tensor,
    native_ids: torch.Tensor,
    layer_index: int,
    max_top_k: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (native_ids.shape[0], max_top_k)
    return native_weights.new_empty(shape), native_ids.new_empty(shape)


direct_register_custom_op("galton_route", _galton_route, fake_impl=_galton_route_fake)
