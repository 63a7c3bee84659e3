"""What computes routing on a device: one protocol, and the backends that follow it, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from routing.counts import Counts, Memory
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest, StepState

if TYPE_CHECKING:
    import torch

# Loaded when asked for: each has a compiler behind it.
BACKENDS: Final = {
    "cpu": "routing.cpu.backend:CpuBackend",
    "gpu": "routing.gpu.backend:GpuBackend",
}


class Backend(Protocol):
    """The routers of one model, as far as this process holds its layers.

    state: which token of the running step follows which policy.
    """

    state: StepState

    def __init__(
        self,
        spec: RouterSpec,
        rules: Sequence[RouterRule],
        max_num_tokens: int,
        max_num_seqs: int,
        memory: Memory | None = None,
    ) -> None:
        """rules: one per layer of the spec. max_num_*: tokens and requests in a step. memory: see
        `StepState`.
        """

    def begin_step(
        self,
        requests: Sequence[RoutedRequest],
        num_scheduled_tokens: npt.NDArray[np.integer[Any]],
        num_computed_tokens: npt.NDArray[np.integer[Any]],
    ) -> None:
        """Before the forward: see `StepState.begin_step`."""

    def route(
        self,
        router_logits: torch.Tensor,
        native_weights: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose the experts of every token of one layer and count them.

        router_logits: [T, E], any float dtype; padding after the step's tokens is routed
        natively and not counted. native_weights, native_ids: [T, K] float32, int32, what the
        model's own router chose. layer_index: among the spec's layers.
        Returns topk_weights and topk_ids, [T, max_top_k]. Columns that a token does not use
        repeat its best expert with weight 0: no further expert is read from memory for them.
        """
        ...

    def end_step(self) -> None:
        """After the forward: until the next step every token is native and none is counted."""

    def counts(self) -> Counts:
        """What has been counted since the start; waits for the device."""
        ...


def load_backend(name: str) -> type[Backend]:
    """The class of one of `BACKENDS`."""
    backend: type[Backend] = resolve_name(BACKENDS[name])
    return backend
