"""The one custom operator: the routing of every MoE layer, which asks the backend.

It is opaque to torch.compile: Dynamo would otherwise bake one step's policies into the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from vllm.utils.torch_utils import direct_register_custom_op

from routing.backend import Backend
from routing.engine.recorder import Ints, StepOutput
from routing.engine.selftest import Observation
from routing.state import RoutedRequest


@dataclass(slots=True)
class BoundModel:
    """The routers of the model loaded in this process.

    counts_path: where other processes find the backend's counts, see
    `routing.engine.shared_memory`.
    observations: what the layers did in each step; None while no self-test runs.
    """

    backend: Backend
    counts_path: str
    observations: list[Observation] | None = None

    def output_of_step(
        self, request_ids: Sequence[str], requests: Sequence[RoutedRequest], query_start: Ints
    ) -> StepOutput:
        """After the forward, see `StepOutput`."""
        if self.observations is not None:
            self.observations.append(Observation.of(self.backend, int(query_start[-1])))
        return StepOutput(self.backend, request_ids, requests, query_start)


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
    return bound.backend.route(router_logits, native_weights, native_ids, layer_index)


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
