"""Rows of the tokens whose requests asked for them, on their way out of the engine.

The way is vLLM's own for outputs beside the tokens, its "auxiliary output connector": the
worker sends rows along with a step's output, the scheduler hands them to the request's next
output (`routing.engine.scheduler`), and the API process keeps them for the response
(`routing.engine.intake`). Where nobody asks, nothing is copied or sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from routing.spec import RouterSpec
from routing.trace.rows import MEASURED, Rows, measure, row_dtype

if TYPE_CHECKING:
    from routing.state import RoutedRequest, StepState


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one request in a step; ends: whether the step samples its next token."""

    request_id: str
    request: RoutedRequest
    rows: slice
    ends: bool


class Recorder:
    """In the worker: fills the rows of a step, layer by layer, and sends them off.

    tokens: places in the step of the tokens to record; None while none is.
    """

    def __init__(self, spec: RouterSpec) -> None:
        self.tokens: npt.NDArray[np.int64] | None = None
        self._dtype: Final = row_dtype(spec)
        self._rows: Rows
        self._measures = False
        self._parts: list[_Part] = []

    def begin_step(
        self,
        request_ids: Sequence[str],
        requests: Sequence[RoutedRequest],
        num_scheduled_tokens: npt.NDArray[np.integer[Any]],
        num_missing_tokens: npt.NDArray[np.integer[Any]],
        state: StepState,
    ) -> None:
        """Prepare rows for a step that `state` has begun.

        num_missing_tokens: [B] tokens that each request still has to compute; a step that
        computes them all samples the next.
        """
        self._parts, places, end = [], [], 0
        for row in np.flatnonzero([bool(request.include) for request in requests]):
            count = num_scheduled_tokens[row]
            start = num_scheduled_tokens[:row].sum()
            places.append(np.arange(start, start + count))
            ends = bool(count == num_missing_tokens[row])
            rows = slice(end, end := end + count)
            self._parts.append(_Part(request_ids[row], requests[row], rows, ends))
        if not places:
            return
        self.tokens = tokens = np.concatenate(places)
        self._measures = any(MEASURED & {*part.request.include} for part in self._parts)
        self._rows = np.zeros(len(tokens), self._dtype)
        self._rows["position"] = state.arrays.token_position[tokens]
        self._rows["native"] = state.arrays.token_slot[tokens] < 0
        for part in self._parts:
            generated = self._rows["position"][part.rows] >= part.request.num_prompt_tokens
            self._rows["generated"][part.rows] = generated

    def record(
        self,
        layer_index: int,
        router_logits: Callable[[], npt.NDArray[np.float32]],
        topk_weights: npt.NDArray[np.float32],
        topk_ids: npt.NDArray[np.int32],
        native_ids: npt.NDArray[np.int32],
    ) -> None:
        """What one layer chose, for all tokens of the step; shapes as the kernel has them."""
        tokens, rows = self.tokens, self._rows
        ids = topk_ids[tokens].astype(np.int16)
        ids[:, 1:][ids[:, 1:] == ids[:, :1]] = -1  # slots not used repeat the best expert
        rows["topk_ids"][:, layer_index] = ids
        rows["topk_weights"][:, layer_index] = np.where(ids < 0, 0, topk_weights[tokens])
        if self._measures:
            entropy, margin, overlap = measure(router_logits()[tokens], ids, native_ids[tokens])
            rows["entropy"][:, layer_index] = entropy
            rows["margin"][:, layer_index] = margin
            rows["overlap"][:, layer_index] = overlap

    def end_step(self) -> None:
        """Keep the rows with their requests: vLLM drops them together."""
        if self.tokens is not None:
            for part in self._parts:
                part.request.unsent.append(self._rows[part.rows])
        self.tokens = None

    def take(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """By request id, the unsent rows of those that sample a token now, as bytes."""
        taken = {}
        for part in self._parts:
            if part.ends:
                taken[part.request_id] = np.concatenate(part.request.unsent).view(np.uint8)
                part.request.unsent.clear()
        self._parts = []
        return taken or None
