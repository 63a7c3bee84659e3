"""The steps of vLLM's model runner V1, the CPU's: which token follows which policy in each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from routing.backend import begin_batch
from routing.engine.hooks import wrap
from routing.engine.operator import BoundModel
from routing.engine.recorder import StepOutput
from routing.engine.sampling import SeededSampling
from routing.engine.travel import request_of
from routing.state import RoutedRequest


def hook_runner(runner: Any, bound: BoundModel) -> None:
    """Have a runner fill the arrays of each step before its forward."""
    sampling = SeededSampling(runner)
    steps = _Steps(runner, bound, sampling)
    wrap(runner, "_model_forward", steps.model_forward)
    wrap(runner, "sample_tokens", steps.sample_tokens)
    wrap(runner, "_bookkeeping_sync", sampling.bookkeeping)


class _Steps:
    def __init__(self, runner: Any, bound: BoundModel, sampling: SeededSampling) -> None:
        self.runner = runner
        self.bound = bound
        self.sampling = sampling
        self.output: StepOutput | None = None

    def model_forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner._model_forward`. A slot is a place in the batch."""
        runner, batch, backend = self.runner, self.runner.input_batch, self.bound.backend
        num_reqs = batch.num_reqs
        request_ids = batch.req_ids[:num_reqs]
        requests = [_routed(runner.requests[req_id]) for req_id in request_ids]
        query_start = runner.query_start_loc.np[: num_reqs + 1]
        num_computed = batch.num_computed_tokens_cpu[:num_reqs]
        begin_batch(backend, requests, np.diff(query_start), num_computed)
        self.sampling.before_sampling()
        try:
            answer = original(*args, **kwargs)
            output = self.bound.output_of_step(request_ids, requests, query_start)
            num_tokens = np.array([runner.requests[req_id].num_tokens for req_id in request_ids])
            # A step that computes all that there is of a request samples its next token.
            samples = np.diff(query_start) == num_tokens - num_computed
            output.enqueue_cpu_copy(samples, np.zeros_like(num_computed))
        finally:
            backend.end_step()
        self.output = output
        return answer

    def sample_tokens(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner.sample_tokens`: rows go with the step's tokens."""
        answer = original(*args, **kwargs)
        output, self.output = self.output, None
        if output is not None and (rows := output.process_output()) is not None:
            answer.aux_output_connector_output = rows
        return answer


def _routed(request: Any) -> RoutedRequest:
    """What a request's policy is, unpacked once and kept on vLLM's own state of the request."""
    routed: RoutedRequest | None = getattr(request, "_galton_routed", None)
    if routed is None:
        routed = request_of(request.sampling_params, request.num_prompt_tokens)
        request._galton_routed = routed
    return routed
