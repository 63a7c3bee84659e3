"""The steps of vLLM's model runner V1, the CPU's: which token follows which policy in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from routing.engine.hooks import wrap
from routing.engine.operator import BoundModel
from routing.engine.sampling import SeededSampling
from routing.engine.travel import routing_of
from routing.state import RoutedRequest


def hook_runner(runner: Any, bound: BoundModel) -> None:
    """Have a runner fill the arrays of each step before its forward."""
    sampling = SeededSampling(runner)
    wrap(runner, "_model_forward", _Steps(runner, bound, sampling).model_forward)
    wrap(runner, "_bookkeeping_sync", sampling.bookkeeping)


class _Steps:
    def __init__(self, runner: Any, bound: BoundModel, sampling: SeededSampling) -> None:
        self.runner = runner
        self.backend = bound.backend
        self.recorder = bound.recorder
        self.sampling = sampling

    def model_forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner._model_forward`."""
        runner, batch = self.runner, self.runner.input_batch
        num_reqs = batch.num_reqs
        request_ids = batch.req_ids[:num_reqs]
        requests = [_routed(runner.requests[req_id]) for req_id in request_ids]
        num_scheduled = np.diff(runner.query_start_loc.np[: num_reqs + 1])
        num_computed = batch.num_computed_tokens_cpu[:num_reqs]
        self.backend.begin_step(requests, num_scheduled, num_computed)
        num_tokens = [runner.requests[req_id].num_tokens for req_id in request_ids]
        self.recorder.begin_step(
            request_ids, requests, num_scheduled, num_tokens - num_computed, self.backend.state
        )
        self.sampling.before_sampling()
        try:
            return original(*args, **kwargs)
        finally:
            self.recorder.end_step()
            self.backend.end_step()


def _routed(request: Any) -> RoutedRequest:
    """What a request's policy is, unpacked once and kept on vLLM's own state of the request."""
    routed: RoutedRequest | None = getattr(request, "_galton_routed", None)
    if routed is None:
        routing = routing_of(request.sampling_params)
        routed = RoutedRequest(None, request.num_prompt_tokens)
        if routing is not None:
            include = tuple(routing.include)
            routed = RoutedRequest(
                routing.policy, request.num_prompt_tokens, include, group=routing.group
            )
        request._galton_routed = routed
    return routed
