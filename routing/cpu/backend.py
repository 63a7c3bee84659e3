"""The CPU's backend: the compiled kernel on the arrays that `StepState` fills."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from routing.backend import Observed, Recorded
from routing.counts import Counts, Memory
from routing.cpu.begin import begin
from routing.cpu.count import count_native
from routing.cpu.route import route
from routing.cpu.step import table_of
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest, StepState

FEW: Final = 256
"""Tokens of which all layers' logits may be kept until the end of the step."""


class CpuBackend:
    """A `routing.backend.Backend`."""

    def __init__(
        self,
        spec: RouterSpec,
        rules: Sequence[RouterRule],
        max_num_tokens: int,
        max_num_seqs: int,
        memory: Memory | None = None,
    ) -> None:
        self.state = StepState(spec, rules, max_num_tokens, max_num_seqs, max_num_tokens, memory)
        self._table = table_of(self.state.arrays, self.state.sizes)
        self.step_table: int = self._table.ctypes.data
        self._num_curious, self._is_native = 0, False
        self._to_count: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def write_slot(self, slot: int, request: RoutedRequest) -> None:
        """See `Backend`."""
        self.state.write_slot(slot, request)

    def begin_step(self, slots: Any, query_start: Any, positions: Any) -> None:
        """See `Backend`."""
        self._num_curious, num_busy = begin(
            np.asarray(slots), np.asarray(query_start), np.asarray(positions), self.step_table
        )
        self._is_native = num_busy == 0
        self.state.counts.last_step[0] = time.time()

    def needs_native(self, num_tokens: int) -> bool:
        """See `Backend`."""
        return bool(self._num_curious or num_tokens != self.state.arrays.num_tokens[0])

    def only_counts(
        self,
        router_logits: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
        num_columns: int,
    ) -> bool:
        """See `Backend`."""
        num_tokens, native_top_k = native_ids.shape
        if not self._is_native or num_columns != native_top_k or num_tokens > FEW:
            return False
        _check(native_ids)
        self._to_count.append((layer_index, _readable(router_logits), native_ids))
        return True

    def route(
        self,
        router_logits: torch.Tensor,
        native_weights: torch.Tensor,
        native_ids: torch.Tensor,
        layer_index: int,
        num_columns: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Backend`."""
        num_tokens, native_top_k = native_ids.shape
        topk_weights = native_weights.new_empty((num_tokens, num_columns))
        topk_ids = native_ids.new_empty((num_tokens, num_columns))
        logits = _readable(router_logits)
        # The kernel takes addresses and would not notice.
        assert native_weights.dtype is torch.float32, native_weights.dtype
        assert native_weights.is_contiguous(), "the native router's weights are not contiguous"
        _check(native_ids)
        route(
            logits.data_ptr(),
            logits.dtype is torch.bfloat16,
            native_weights.data_ptr(),
            native_ids.data_ptr(),
            topk_weights.data_ptr(),
            topk_ids.data_ptr(),
            num_tokens,
            native_top_k,
            num_columns,
            layer_index,
            self.step_table,
        )
        return topk_weights, topk_ids

    def end_step(self) -> None:
        """See `Backend`."""
        if self._to_count:
            layers = [(i, x.data_ptr(), ids.data_ptr()) for i, x, ids in self._to_count]
            _, logits, native_ids = self._to_count[0]
            is_bfloat16 = logits.dtype is torch.bfloat16
            count_native(np.array(layers), is_bfloat16, native_ids.shape[1], self.step_table)
            self._to_count.clear()
        self._is_native = False
        self.state.arrays.num_tokens[0] = 0

    def recorded(self, tokens: npt.NDArray[np.int64]) -> Recorded:
        """See `Backend`."""
        arrays = self.state.arrays
        return Recorded(
            arrays.token_slot[tokens],
            arrays.token_position[tokens],
            arrays.record_ids[tokens],
            arrays.record_weights[tokens],
            arrays.record_measures[tokens],
        )

    def observed(self, num_tokens: int) -> Observed:
        """See `Backend`."""
        arrays = self.state.arrays
        seen = arrays.observed_logits, arrays.observed_weights, arrays.observed_ids
        return Observed(*(array[:num_tokens].copy() for array in seen))

    def counts(self) -> Counts:
        """See `Backend`."""
        return self.state.counts

    def counted(self) -> None:
        """See `Backend`."""

    def publish(self, counted: npt.NDArray[np.uint8]) -> None:
        """See `Backend`."""

    def set_counts(self, counts: Counts) -> None:
        """See `Backend`."""
        for array, count in zip(self.state.counts, counts, strict=True):
            array[...] = count


def _readable(router_logits: torch.Tensor) -> torch.Tensor:
    """As the kernels read them."""
    logits = router_logits.contiguous()
    return logits if logits.dtype in (torch.float32, torch.bfloat16) else logits.float()


def _check(native_ids: torch.Tensor) -> None:
    """The kernels take addresses and would not notice."""
    assert native_ids.dtype is torch.int32, native_ids.dtype
    assert native_ids.is_contiguous(), "the native router's ids are not contiguous"
