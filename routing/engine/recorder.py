"""Rows of the tokens whose requests asked for them, on their way out of the engine.

The way is vLLM's own for outputs beside the tokens, its "auxiliary output connector": the
worker sends rows along with a step's output, the scheduler hands them to the request's next
output (`routing.engine.scheduler`), and the API process keeps them for the response
(`routing.engine.intake`). Where nobody asks, nothing is copied or sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from routing.backend import Backend, Recorded, on_host
from routing.state import RoutedRequest
from routing.trace.rows import Rows, row_dtype

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one request in a step; place: the request's in the batch."""

    request_id: str
    request: RoutedRequest
    place: int
    rows: slice


class StepOutput:
    """What leaves the worker beside the tokens of a step. The methods are those that vLLM's
    runner V2 wants of a pending auxiliary output.
    """

    def __init__(
        self,
        backend: Backend,
        request_ids: Sequence[str],
        slots: Ints,
        query_start: Ints,
    ) -> None:
        """Of the step that the backend is in. slots: [B], query_start: [B + 1], of the host, see
        `Backend.begin_step`.
        """
        self._backend = backend
        self._counted: Any = backend.counted()
        self._parts: list[_Part] = []
        self._recorded: Recorded | None = None
        places, end = [], 0
        state = backend.state
        for place in np.flatnonzero(state.slot_reports[slots]).tolist():
            request = state.slot_request[slots[place]]
            assert request is not None
            tokens = np.arange(query_start[place], query_start[place + 1])
            rows = slice(end, end := end + len(tokens))
            self._parts.append(_Part(request_ids[place], request, place, rows))
            places.append(tokens)
        if places:
            self._recorded = backend.recorded(np.concatenate(places))

    @property
    def is_wanted(self) -> bool:
        """Whether anything is to be copied to the host."""
        return self._counted is not None or self._recorded is not None

    def enqueue_cpu_copy(self, num_sampled: Ints, num_rejected: Ints) -> None:
        """Start to copy to the host. num_sampled, num_rejected: [B], there by the time of
        `process_output`, as all of this.
        """
        self._num_sampled, self._num_rejected = num_sampled, num_rejected
        if self._counted is not None:
            self._counted = on_host(self._counted, waits=False)
        if self._recorded is not None:
            self._recorded = Recorded(*(on_host(a, waits=False) for a in self._recorded))

    def process_output(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        """By request id, [N, bytes of a row] what has not been sent yet of those that got a token.
        Drafts that were rejected have no rows.
        """
        if self._counted is not None:
            self._backend.publish(self._counted)
        if self._recorded is None:
            return None
        rows, taken = _rows(self._recorded, self._backend), {}
        for part in self._parts:
            request, of_part = part.request, rows[part.rows]
            of_part = of_part[: len(of_part) - int(self._num_rejected[part.place])]
            of_part["generated"] = of_part["position"] >= request.num_prompt_tokens
            request.unsent.append(of_part)
            if self._num_sampled[part.place] > 0:
                unsent = np.concatenate(request.unsent)
                taken[part.request_id] = unsent.view(np.uint8).reshape(len(unsent), -1)
                request.unsent.clear()
        return taken or None


def _rows(recorded: Recorded, backend: Backend) -> Rows:
    rows = np.zeros(len(recorded.position), row_dtype(backend.state.spec))
    rows["position"] = recorded.position
    rows["native"] = recorded.slot < 0
    rows["topk_ids"] = recorded.topk_ids
    rows["topk_weights"] = recorded.topk_weights
    for place, measure in enumerate(("entropy", "margin", "overlap")):
        rows[measure] = recorded.measures[:, :, place]
    return rows
