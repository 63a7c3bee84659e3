"""What computes routing on a device: one protocol, and the backends that follow it, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from routing.counts import Counts, Memory
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest, StepState

if TYPE_CHECKING:
    import torch

    Array = npt.NDArray[Any] | torch.Tensor

# Loaded when asked for: each has a compiler behind it.
BACKENDS: Final = {
    "cpu": "routing.cpu.backend:CpuBackend",
    "gpu": "routing.gpu.backend:GpuBackend",
}


class Recorded(NamedTuple):
    """What was recorded of N tokens of a step, arrays of the backend's device. L layers, S the most
    experts per token.

    slot: [N], -1 for the native choice. position: [N]. topk_ids, topk_weights: [N, L, S], -1 and
    0 in columns that are not used. measures: [N, L, 3], see `routing.reference.rule.measures`.
    """

    slot: Any
    position: Any
    topk_ids: Any
    topk_weights: Any
    measures: Any


class Observed(NamedTuple):
    """What layers were given for the first O tokens of a step, arrays of the host: router_logits
    [O, L, E], native_weights and native_ids [O, L, K].
    """

    router_logits: Any
    native_weights: Any
    native_ids: Any


class Backend(Protocol):
    """The routers of one model, as far as this process holds its layers.

    A request has a slot from `write_slot` on until another request takes it.
    state: the requests, and the arrays of the step on the host.
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

    def write_slot(self, slot: int, request: RoutedRequest) -> None:
        """Have a slot stand for a request, from the next step on."""

    def begin_step(self, slots: Array, query_start: Array, positions: Array) -> None:
        """Before the forward. Arrays of NumPy, or tensors of the backend's device.

        slots: [B] of the requests in batch order, int64. query_start: [B + 1], or longer, int32:
        where each one's tokens begin in the batch, and where the last one's end. positions: [T]
        of the tokens, absolute, int64, or longer.
        """

    def needs_native(self, num_tokens: int) -> bool:
        """Whether any of so many tokens, with padding, is to have the native choice, or to be
        compared with it.
        """
        ...

    def only_counts(
        self,
        router_logits: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
        num_columns: int,
    ) -> bool:
        """Whether `route` would only count, and give the native choice as it is: if so, that is
        seen to, by `end_step` at the latest. Arguments: as of `route`; left alone until then.
        """
        ...

    def route(
        self,
        router_logits: torch.Tensor,
        native_weights: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
        num_columns: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose the experts of every token of one layer and count them.

        router_logits: [T, E], any float dtype; padding after the step's tokens is routed
        natively and not counted. native_weights, native_ids: [T, K] float32, int32, what the
        model's own router chose, or anything where `needs_native` is not so. layer_index: among
        the spec's layers. num_columns: as many as a token of the step has experts, or more: see
        `StepState.slot_columns`.
        Returns topk_weights and topk_ids, [T, num_columns]. Columns that a token does not use
        repeat its best expert with weight 0: no further expert is read from memory for them.
        """
        ...

    def end_step(self) -> None:
        """Until the next step every token is native and none is counted."""

    def recorded(self, tokens: npt.NDArray[np.int64]) -> Recorded:
        """Of tokens of the step, by their places in it: a copy."""
        ...

    def observed(self, num_tokens: int) -> Observed:
        """Of the step's first tokens, as many of them as can be observed."""
        ...

    def counts(self) -> Counts:
        """What has been counted since the start; waits for the device."""
        ...

    def counted(self) -> torch.Tensor | None:
        """What has been counted, as bytes on the device; None where kernels run on the host."""
        ...

    def publish(self, counted: npt.NDArray[np.uint8]) -> None:
        """Have `StepState.counts` show what `counted` gave, once that is on the host."""

    def set_counts(self, counts: Counts) -> None:
        """Count on from these."""


def on_host(array: Array, *, waits: bool = True) -> npt.NDArray[Any]:
    """A backend's array as NumPy's. waits: until it is there; else a stream may still fill it."""
    if isinstance(array, np.ndarray):
        return array
    copied: npt.NDArray[Any] = array.to("cpu", non_blocking=not waits).numpy()
    return copied


def load_backend(name: str) -> type[Backend]:
    """The class of one of `BACKENDS`."""
    backend: type[Backend] = resolve_name(BACKENDS[name])
    return backend


def begin_batch(
    backend: Backend,
    requests: Sequence[RoutedRequest],
    num_scheduled_tokens: npt.NDArray[np.integer[Any]],
    num_computed_tokens: npt.NDArray[np.integer[Any]],
) -> None:
    """Begin a step in which each request's slot is its place in the batch.

    requests: B live ones in batch order. num_scheduled_tokens: [B] tokens of each in this step.
    num_computed_tokens: [B] absolute position of each one's first token.
    """
    query_start, positions = [0], list[int]()
    tokens = zip(num_scheduled_tokens.tolist(), num_computed_tokens.tolist(), strict=True)
    for slot, (request, (scheduled, computed)) in enumerate(zip(requests, tokens, strict=True)):
        was_preempted = computed < request.num_routed
        if was_preempted or backend.state.slot_request[slot] is not request:
            backend.write_slot(slot, request)
        positions.extend(range(computed, computed + scheduled))
        query_start.append(len(positions))
        request.num_routed = max(request.num_routed, computed + scheduled)
    backend.begin_step(
        np.arange(len(requests)), np.array(query_start, np.int32), np.array(positions, np.int64)
    )
