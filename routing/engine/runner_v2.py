"""The steps of vLLM's model runner V2, a GPU's: which token follows which policy in each.

A request keeps its slot, vLLM's own, while it runs. Where its tokens stand is read from the
runner's tensors on the device: with drafted tokens the host knows only an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from routing.engine.hooks import wrap
from routing.engine.operator import BoundModel
from routing.engine.recorder import StepOutput
from routing.engine.travel import request_of
from routing.state import RoutedRequest


def hook_runner(runner: Any, bound: BoundModel) -> None:
    """Have a runner tell the backend of its requests and steps."""
    steps = _Steps(runner, bound)
    wrap(runner, "add_requests", steps.add_requests)
    wrap(runner, "finish_requests", steps.finish_requests)
    wrap(runner, "prepare_inputs", steps.prepare_inputs)
    wrap(runner, "execute_model", steps.execute_model)
    runner.aux_output_connector = steps


class _Steps:
    """Hooks, and what the runner calls its auxiliary output connector."""

    def __init__(self, runner: Any, bound: BoundModel) -> None:
        self.runner = runner
        self.bound = bound
        self._requests: dict[str, RoutedRequest] = {}
        # By slot: how many of the request's tokens its last step left routed, drafts included.
        self._num_routed = np.zeros(runner.req_states.max_num_reqs, np.int64)

    def add_requests(self, original: Callable[..., None], scheduler_output: Any) -> None:
        """In place of `GPUModelRunner.add_requests`. A preempted request comes again."""
        original(scheduler_output)
        for new in scheduler_output.scheduled_new_reqs:
            request = self._requests.get(new.req_id)
            if request is None:
                request = request_of(new.sampling_params, new.prompt_len)
                self._requests[new.req_id] = request
            request.num_routed = min(request.num_routed, len(new.prefill_token_ids) - 1)
            slot = self.runner.req_states.req_id_to_index[new.req_id]
            self.bound.backend.write_slot(slot, request)

    def finish_requests(self, original: Callable[..., None], scheduler_output: Any) -> None:
        """In place of `GPUModelRunner.finish_requests`, which preemption calls too."""
        states = self.runner.req_states
        for request_id in scheduler_output.preempted_req_ids or ():
            request, slot = self._requests[request_id], states.req_id_to_index[request_id]
            request.num_routed = max(request.num_routed, int(self._num_routed[slot]))
        for request_id in scheduler_output.finished_req_ids:
            self._requests.pop(request_id, None)
        original(scheduler_output)

    def prepare_inputs(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner.prepare_inputs`, before every forward but a dummy's."""
        batch = original(*args, **kwargs)
        num_routed = batch.num_computed_tokens_np + batch.num_scheduled_tokens
        self._num_routed[batch.idx_mapping_np] = num_routed
        query_start = batch.query_start_loc[: batch.num_reqs + 1]
        positions = self.runner.input_buffers.positions
        self.bound.backend.begin_step(batch.idx_mapping, query_start, positions)
        self.bound.fit(batch.idx_mapping_np)
        return batch

    def execute_model(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner.execute_model`: a dummy's tokens are native, uncounted."""
        if kwargs.get("dummy_run"):
            self.bound.end_step()
        return original(*args, **kwargs)

    def begin_step(self, metadata: Any) -> None:
        """The scheduler tells nothing."""

    def prepare_output(self, batch: Any) -> StepOutput:
        """After the forward of a step."""
        query_start = batch.query_start_loc_np[: batch.num_reqs + 1]
        return self.bound.output_of_step(batch.req_ids, batch.idx_mapping_np, query_start)

    def close(self) -> None:
        """There is nothing to close."""
