"""The GPU's backend: Triton kernels on tensors that are made once and only written to.

A captured launch so follows every later step. Nothing is read from the device in a step, and
nothing sent but what a new request brings.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from routing.backend import Observed, Recorded
from routing.counts import Counts, Memory
from routing.gpu.begin import begin
from routing.gpu.route import route
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import COUNTED, RoutedRequest, StepState
from routing.step import Slot, Step

if TYPE_CHECKING:
    from routing.backend import Array

MAX_OBSERVED: Final = 64
TRACE: Final = [Slot._fields.index(name) for name in ("trace_ids", "trace_native")]


class GpuBackend:
    """A `routing.backend.Backend`. Without a GPU, for Triton's interpreter, its device is cpu."""

    def __init__(
        self,
        spec: RouterSpec,
        rules: Sequence[RouterRule],
        max_num_tokens: int,
        max_num_seqs: int,
        memory: Memory | None = None,
    ) -> None:
        self.state = StepState(spec, rules, max_num_tokens, max_num_seqs, MAX_OBSERVED, memory)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        on_host = map(torch.from_numpy, self.state.arrays)
        step = Step(*(tensor.to(self.device, copy=True) for tensor in on_host))
        # All counts in one piece of memory, to be copied together.
        size = Counts.num_bytes(*self.state.counts.assignments.shape)
        self._counted = torch.zeros(size, dtype=torch.uint8, device=self.device)
        self.step = step._replace(**_views(self._counted, self.state.counts))
        self._traces: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by slot

    def write_slot(self, slot: int, request: RoutedRequest) -> None:
        """See `Backend`. Copies what the request brings, once."""
        self.state.write_slot(slot, request)
        arrays, step = self.state.arrays, self.step
        numbers = arrays.slot_numbers[slot]
        self._traces.pop(slot, None)
        if request.trace is not None:
            trace = self._copy(request.trace.topk_ids), self._copy(request.trace.native)
            self._traces[slot] = trace
            numbers[TRACE] = [tensor.data_ptr() for tensor in trace]
        self._copy(numbers, step.slot_numbers[slot])
        if request.policy is not None:
            self._copy(arrays.slot_parameters[slot], step.slot_parameters[slot])
            if request.policy.steering:
                self._copy(arrays.slot_steering[slot], step.slot_steering[slot])

    def _copy(self, array: npt.NDArray[Any], out: torch.Tensor | None = None) -> torch.Tensor:
        """The array on the device, without waiting for it; the array may change meanwhile."""
        tensor = torch.from_numpy(array.copy())
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        if out is None:
            return tensor.to(self.device, non_blocking=True)
        return out.copy_(tensor, non_blocking=True)

    def begin_step(self, slots: Array, query_start: Array, positions: Array) -> None:
        """See `Backend`."""
        to_device = self._on_device
        begin(to_device(slots), to_device(query_start), to_device(positions), self.step)
        self.state.counts.last_step[0] = time.time()

    def needs_native(self, num_tokens: int) -> bool:
        """See `Backend`. Whose policy a token follows is known on the device only."""
        return True

    def only_counts(
        self,
        router_logits: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
        num_columns: int,
    ) -> bool:
        """See `Backend`."""
        return False

    def _on_device(self, array: Array) -> torch.Tensor:
        return array if isinstance(array, torch.Tensor) else self._copy(array)

    def route(
        self,
        router_logits: torch.Tensor,
        native_weights: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
        num_columns: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Backend`."""
        shape = (len(native_ids), num_columns)
        topk_weights, topk_ids = native_weights.new_empty(shape), native_ids.new_empty(shape)
        route(
            router_logits.contiguous(),
            native_weights.contiguous(),
            native_ids.contiguous(),
            topk_weights,
            topk_ids,
            layer_index,
            self.step,
        )
        return topk_weights, topk_ids

    def end_step(self) -> None:
        """See `Backend`."""
        self.step.num_tokens.zero_()

    def recorded(self, tokens: npt.NDArray[np.int64]) -> Recorded:
        """See `Backend`."""
        step, places = self.step, self._copy(tokens)
        of_all = (
            step.token_slot,
            step.token_position,
            step.record_ids,
            step.record_weights,
            step.record_measures,
        )
        return Recorded(*(tensor.index_select(0, places) for tensor in of_all))

    def observed(self, num_tokens: int) -> Observed:
        """See `Backend`."""
        step = self.step
        seen = step.observed_logits, step.observed_weights, step.observed_ids
        return Observed(*(tensor[:num_tokens].clone().cpu().numpy() for tensor in seen))

    def counts(self) -> Counts:
        """See `Backend`."""
        self.publish(self.counted().cpu().numpy())
        return self.state.counts

    def counted(self) -> torch.Tensor:
        """See `Backend`."""
        return self._counted.clone()

    def publish(self, counted: npt.NDArray[np.uint8]) -> None:
        """See `Backend`. When the last step began is the host's to say."""
        found = Counts.on(bytearray(counted), *self.state.counts.assignments.shape)
        for name in COUNTED:
            getattr(self.state.counts, name)[...] = getattr(found, name)

    def set_counts(self, counts: Counts) -> None:
        """See `Backend`."""
        for name, count in counts._asdict().items():
            getattr(self.state.counts, name)[...] = count
            if name in COUNTED:
                getattr(self.step, name).copy_(torch.from_numpy(count))


def _views(memory: torch.Tensor, counts: Counts) -> dict[str, torch.Tensor]:
    """Of memory laid out as `Counts.on` does, the arrays that kernels count in."""
    views, start = {}, 0
    for name, array in counts._asdict().items():
        of_array = memory[start : start + array.nbytes].view(torch.from_numpy(array).dtype)
        views[name] = of_array.view(array.shape)
        start += array.nbytes
    return {name: view for name, view in views.items() if name in COUNTED}
