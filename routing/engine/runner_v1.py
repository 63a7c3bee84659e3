"""The steps of vLLM's model runner V1, the CPU's: which token follows which policy in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that has run its forward. num_drafts: [B] of its tokens that were guessed."""

    output: StepOutput
    requests: list[RoutedRequest]
    num_drafts: npt.NDArray[np.int64]


class _Steps:
    def __init__(self, runner: Any, bound: BoundModel, sampling: SeededSampling) -> None:
        self.runner = runner
        self.bound = bound
        self.sampling = sampling
        self.step: _Step | None = None

    def model_forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner._model_forward`. A slot is a place in the batch."""
        runner, batch, backend = self.runner, self.runner.input_batch, self.bound.backend
        num_reqs = batch.num_reqs
        request_ids = batch.req_ids[:num_reqs]
        requests = [_routed(runner.requests[req_id]) for req_id in request_ids]
        query_start = runner.query_start_loc.np[: num_reqs + 1]
        num_computed = batch.num_computed_tokens_cpu[:num_reqs]
        num_scheduled = runner.num_scheduled_tokens.np[:num_reqs]
        begin_batch(backend, requests, num_scheduled, num_computed)
        slots = np.arange(num_reqs)
        self.bound.fit(slots)
        self.sampling.before_sampling()
        try:
            answer = original(*args, **kwargs)
            output = self.bound.output_of_step(request_ids, slots, query_start)
        finally:
            self.bound.end_step()
        # What may be left to do once tokens are sampled: to send rows, to take drafts back.
        self.step = None
        if output.is_wanted or runner.speculative_config is not None:
            num_tokens = np.array([runner.requests[req_id].num_tokens for req_id in request_ids])
            num_drafts = np.maximum(num_scheduled - (num_tokens - num_computed), 0)
            self.step = _Step(output, requests, num_drafts)
        return answer

    def sample_tokens(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """In place of `GPUModelRunner.sample_tokens`: rows go with the step's tokens."""
        answer = original(*args, **kwargs)
        step, self.step = self.step, None
        if step is None:
            return answer
        num_sampled = np.array([len(token_ids) for token_ids in answer.sampled_token_ids])
        # A request of which there is more to compute gets no token, and has no drafts yet.
        num_rejected = np.where(num_sampled > 0, step.num_drafts - (num_sampled - 1), 0)
        for place in np.flatnonzero(num_rejected):
            step.requests[place].num_routed -= int(num_rejected[place])
        step.output.enqueue_cpu_copy(num_sampled, num_rejected)
        if (rows := step.output.process_output()) is not None:
            answer.aux_output_connector_output = rows
        return answer


def _routed(request: Any) -> RoutedRequest:
    """What a request's policy is, unpacked once and kept on vLLM's own state of the request."""
    routed: RoutedRequest | None = getattr(request, "_galton_routed", None)
    if routed is None:
        routed = request_of(request.sampling_params, request.num_prompt_tokens)
        request._galton_routed = routed
    return routed
