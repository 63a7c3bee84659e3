"""The one custom operator: the routing of every MoE layer in a compiled graph asks the backend.

It is opaque to torch.compile: Dynamo would otherwise bake one step's policies into the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from vllm.utils.gpu_sync_debug import gpu_sync_allowed
from vllm.utils.torch_utils import direct_register_custom_op

from routing.backend import Backend
from routing.engine.recorder import Ints, StepOutput
from routing.engine.selftest import Observation


@dataclass(slots=True)
class BoundModel:
    """The routers of the model loaded in this process.

    counts_path: where other processes find the backend's counts, see
    `routing.engine.shared_memory`.
    observations: what the layers did in each step; None while no self-test runs.
    num_columns: for the experts of each token of this step, where no graph fixes it.
    """

    backend: Backend
    counts_path: str
    observations: list[Observation] | None = None
    num_columns: int = field(init=False)

    def __post_init__(self) -> None:
        self.end_step()

    def fit(self, slots: Ints) -> None:
        """Before the forward of these requests' step: it is as wide as the widest of them."""
        self.num_columns = int(self.backend.state.slot_columns[slots].max())

    def end_step(self) -> None:
        """Until the next step every token is native, and there is room for any: so runs warm up,
        and graphs are captured.
        """
        self.num_columns = self.backend.state.spec.max_top_k
        self.backend.end_step()

    def output_of_step(
        self, request_ids: Sequence[str], slots: Ints, query_start: Ints
    ) -> StepOutput:
        """After the forward, see `StepOutput`."""
        if self.observations is not None:
            with gpu_sync_allowed():  # in a self-test alone
                self.observations.append(Observation.of(self.backend, int(query_start[-1])))
        return StepOutput(self.backend, request_ids, slots, query_start)


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
    num_columns: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    bound = _bound
    assert bound is not None, "the routing operator ran before a model was bound"
    return bound.backend.route(router_logits, native_weights, native_ids, layer_index, num_columns)


def _galton_route_fake(
    router_logits: torch.Tensor,
    native_weights: torch.Tensor,
    native_ids: torch.Tensor,
    layer_index: int,
    num_columns: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (native_ids.shape[0], num_columns)
    return native_weights.new_empty(shape), native_ids.new_empty(shape)


direct_register_custom_op("galton_route", _galton_route, fake_impl=_galton_route_fake)
