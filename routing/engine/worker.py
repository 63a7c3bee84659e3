"""vLLM's worker, with bound routers: what it does each step and answers over RPC.

Chosen by vLLM's own `worker_cls` option. The hooks sit on this worker's model runner, of
which vLLM has two: V1 (`vllm.v1.worker.gpu_model_runner`, the CPU's too) offers
`_model_forward` for it; V2 (`vllm.v1.worker.gpu.model_runner`, CUDA's) returns a step
from `prepare_inputs`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm.v1.worker.gpu_worker import Worker

from routing.engine.config import config_of
from routing.engine.hooks import wrap
from routing.engine.router import BoundModel, LayerTrace, RoutingBindError, bind_model
from routing.engine.sampling import SeededSampling
from routing.engine.travel import routing_of
from routing.policy import parse_policy
from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.policy.modes import MODES
from routing.reference.route import route_token, select_experts
from routing.reference.rule import RouterRule
from routing.state import PHASES, RoutedRequest, StepState


class RoutingWorker:
    """Mixin for vLLM's workers: binds after loading, then answers `collective_rpc`."""

    vllm_config: Any
    model_runner: Any
    bound: BoundModel
    problem: str | None = None

    def load_model(self, **kwargs: Any) -> None:
        """Load as vLLM does, then bind every router.

        A model that cannot be bound is told of in `galton_describe`, in one line; an
        exception here would end in a page of every process's tracebacks.
        """
        super().load_model(**kwargs)  # type: ignore[misc]
        runner = self.model_runner
        config = config_of(self.vllm_config)
        assert config is not None, "the engine was not started with engine_options()"
        scheduler = self.vllm_config.scheduler_config
        try:
            self.bound = bind_model(
                runner.model,
                max_experts_per_token=config["max_experts_per_token"],
                max_num_tokens=scheduler.max_num_batched_tokens,
                max_num_seqs=scheduler.max_num_seqs,
            )
        except RoutingBindError as error:
            self.problem = str(error)
            return
        hook_runner(runner, self.bound)

    def sample_tokens(self, grammar_output: Any) -> Any:
        """Sample as vLLM does, and send the rows of requests that asked for them along."""
        output = super().sample_tokens(grammar_output)  # type: ignore[misc]
        rows = self.bound.recorder.take()
        if rows is not None:
            output.aux_output_connector_output = rows
        return output

    def galton_describe(self) -> dict[str, Any]:
        """This worker's `RouterSpec`, as a dictionary; or the `problem` that it has none."""
        if self.problem is not None:
            return {"problem": self.problem}
        return self.bound.backend.state.spec.as_dict()

    def galton_counts(self) -> dict[str, Any]:
        """Counts since the start; empty on ranks that repeat rank 0's routing.

        assignments: [L][E] (token, expert) pairs. routed_tokens: {mode: {phase: tokens}}.
        """
        if get_tensor_model_parallel_rank() != 0:
            return {}
        backend = self.bound.backend
        tokens = backend.state.routed_tokens.tolist()
        return {
            "assignments": [counts.tolist() for counts in backend.counts().values()],
            "routed_tokens": {
                mode: dict(zip(PHASES, row, strict=True))
                for mode, row in zip(MODES, tokens, strict=True)
            },
        }

    def galton_listen(self) -> None:
        """Start keeping what the routers do, for `galton_check`."""
        self.bound.heard = []

    def galton_check(self, policy: dict[str, Any] | None = None) -> list[str]:
        """Compare what was heard since `galton_listen` with the reference; stop listening.

        policy: of scope `all`, which every token must have followed, as a `routing` object;
        None to hold each token to its own request's, if it follows one.
        Forgets the counts. Returns one line per disagreement: empty when all did as told.
        """
        state = self.bound.backend.state
        told = None
        if policy is not None:
            told = compile_policy(parse_policy(policy, state.spec), state.spec)
        heard, self.bound.heard = self.bound.heard or [], None
        state.arrays.assignments[:] = 0
        state.routed_tokens[:] = 0
        missing = set(range(len(state.spec.layers))) - {trace.layer_row for trace in heard}
        return [
            *(f"layer {state.spec.layers[row]} never asked its router" for row in sorted(missing)),
            *(line for trace in heard for line in _disagreements(trace, state, told)),
        ]


class RoutingCPUWorker(RoutingWorker, CPUWorker):
    """vLLM's CPU worker, with bound routers."""


class RoutingGPUWorker(RoutingWorker, Worker):
    """vLLM's CUDA worker, with bound routers."""


def hook_runner(runner: Any, bound: BoundModel) -> None:
    """Have a model runner of either kind fill `bound.backend` before each forward."""
    if hasattr(runner, "_model_forward"):
        sampling = SeededSampling(runner)
        wrap(runner, "_model_forward", _Step(runner, bound, sampling).model_forward)
        wrap(runner, "_bookkeeping_sync", sampling.bookkeeping)
        return
    step = _StepV2(bound)
    wrap(runner, "add_requests", step.add_requests)
    wrap(runner, "finish_requests", step.finish_requests)
    wrap(runner, "prepare_inputs", step.prepare_inputs)


class _Step:
    """Model runner V1."""

    def __init__(self, runner: Any, bound: BoundModel, sampling: SeededSampling) -> None:
        self.runner = runner
        self.backend = bound.backend
        self.recorder = bound.recorder
        self.sampling = sampling

    def model_forward(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        runner, batch = self.runner, self.runner.input_batch
        num_reqs = batch.num_reqs
        request_ids = batch.req_ids[:num_reqs]
        requests = [self._routed(runner.requests[req_id]) for req_id in request_ids]
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

    def _routed(self, request: Any) -> RoutedRequest:
        """The request's policy, unpacked once and kept on vLLM's own per-request state."""
        routed: RoutedRequest | None = getattr(request, "_galton_routed", None)
        if routed is None:
            routed = _routed(request.sampling_params, request.num_prompt_tokens)
            request._galton_routed = routed
        return routed


def _routed(params: Any, num_prompt_tokens: int) -> RoutedRequest:
    """What the worker keeps of what travels with a request."""
    routing = routing_of(params)
    if routing is None:
        return RoutedRequest(None, num_prompt_tokens)
    return RoutedRequest(routing.policy, num_prompt_tokens, tuple(routing.include))


class _StepV2:
    """Model runner V2, which keeps no sampling parameters by request: we do."""

    def __init__(self, bound: BoundModel) -> None:
        self.backend = bound.backend
        self.requests: dict[str, RoutedRequest] = {}

    def add_requests(self, original: Callable[..., Any], scheduler_output: Any) -> Any:
        for new in scheduler_output.scheduled_new_reqs:
            routed = _routed(new.sampling_params, new.prompt_len)
            self.requests[new.req_id] = routed
        return original(scheduler_output)

    def finish_requests(self, original: Callable[..., Any], scheduler_output: Any) -> Any:
        # A preempted request comes back as a new one.
        gone = scheduler_output.finished_req_ids | (scheduler_output.preempted_req_ids or set())
        for req_id in gone:
            self.requests.pop(req_id, None)
        return original(scheduler_output)

    def prepare_inputs(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        batch = original(*args, **kwargs)
        self.backend.begin_step(
            [self.requests[req_id] for req_id in batch.req_ids],
            batch.num_scheduled_tokens,
            batch.num_computed_tokens_np,
        )
        return batch


def _disagreements(trace: LayerTrace, state: StepState, told: CompiledPolicy | None) -> list[str]:
    """One line per token that the layer did not route as the policy and its own rule say."""
    layer = state.spec.layers[trace.layer_row]
    problems = []
    for token, position in enumerate(trace.token_position.tolist()):
        row = trace.token_row[token]
        policy = trace.requests[row].policy if row >= 0 else None
        if told is not None and policy != told:
            problem: str | None = f"followed {policy}, not {told}"
        elif policy is None:
            continue
        else:
            problem = _disagreement(trace, token, state, policy)
        if problem:
            problems.append(f"layer {layer}, position {position}: {problem}")
    return problems


def _disagreement(
    trace: LayerTrace, token: int, state: StepState, policy: CompiledPolicy
) -> str | None:
    """What a token's experts and weights are, against the reference; None if they agree."""
    spec, rule = state.spec, state.rules[trace.layer_row]
    weights, ids = route_token(
        policy,
        spec,
        rule,
        trace.router_logits[token],
        layer_index=trace.layer_row,
        position=int(trace.token_position[token]),
    )
    got = trace.topk_ids[token, : ids.size].tolist()
    if got != ids.tolist():
        return f"{got}, not {ids.tolist()}"
    unused = np.zeros(spec.max_top_k - ids.size)
    if not np.allclose(trace.topk_weights[token], [*weights, *unused], rtol=1e-5):
        return "wrong weights"
    return _own_disagreement(trace, token, rule)


def _own_disagreement(trace: LayerTrace, token: int, rule: RouterRule) -> str | None:
    """What vLLM's router chose, against the rule that was read from it; None if they agree."""
    own = trace.stock_ids[token].tolist()
    logits = trace.router_logits[token].copy()
    logits[own] += 1e-3  # of equal experts vLLM may choose any
    numbers = {"top_k": len(own)}
    weights, ids = select_experts(logits, "top_k", numbers, rule=rule, native_top_k=len(own))
    if set(own) != set(ids.tolist()):
        return f"vLLM's router chose {own}, its rule {ids.tolist()}"
    # vLLM takes the softmax in the logits' bfloat16: each number on the way, the greatest
    # of them ln(sum(e^z)), is rounded to 8 bits. So is Phi-MoE's decision which experts
    # nearly tie, and a weight may then be any.
    tolerance = 2**-7 * (1 + np.abs(logits).max() + np.log(logits.size))
    own_weights = dict(zip(own, trace.stock_weights[token].tolist(), strict=True))
    theirs = [own_weights[expert] for expert in ids.tolist()]
    if rule.scoring != "sparsemixer" and not np.allclose(theirs, weights, rtol=tolerance):
        return f"vLLM's router weighs {theirs}, its rule {weights.tolist()}"
    return None
