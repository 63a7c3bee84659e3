"""Where requests enter the engine: unchecked policies are checked, choices get seeds of their own.

A request carries its policy as `SamplingParams.extra_args["routing"]`, from whichever
endpoint it came: checked and compiled, a `RequestRouting`; or as JSON gives it. Behind this
module it is a `RequestRouting`, and absent for a native request without a report.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from copy import copy
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.utils.async_utils import make_async
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core_client import AsyncMPClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.engine.parallel_sampling import ParentRequest

from routing.engine.config import config_of
from routing.engine.hooks import wrap
from routing.engine.travel import REQUEST_KEY, RequestRouting, routing_of
from routing.policy import PolicyError, parse_policy
from routing.policy.compiled import CompiledPolicy, compile_policy
from routing.policy.modes import MODES
from routing.trace.report import Report


def install() -> None:
    """Wrap request intake and parallel sampling. Idempotent."""
    wrap(InputProcessor, "process_inputs", _process_inputs)
    wrap(ParentRequest, "_get_child_sampling_params", _child_sampling_params)
    wrap(OutputProcessor, "add_request", _add_request)
    wrap(AsyncLLM, "_add_request", _register_request)
    wrap(AsyncMPClient, "add_request_async", _send_request)


def renew(processor: InputProcessor) -> None:
    """Have a processor made before `install` use its hook for raw prompts too.

    vLLM gives each processor an asynchronous form of the method that `install` replaces.
    """
    processor.process_inputs_async = make_async(
        processor.process_inputs, executor=processor.renderer._executor
    )


# By number, while the HTTP request lasts that holds it.
_reports: WeakValueDictionary[int, Report] = WeakValueDictionary()
_report_numbers = itertools.count()


def travelling(
    policy: CompiledPolicy | None, *, group: int, choice: int = 0, report: Report | None = None
) -> RequestRouting | None:
    """What travels with a request whose first choice has that number; None where nothing need.

    policy: of the request; None for the native one. group: see `routing.counts`.
    """
    if report is None:
        if policy is None and group == 0:
            return None
        return RequestRouting(policy, choice, group=group)
    number = next(_report_numbers)
    _reports[number] = report
    return RequestRouting(policy, choice, report.include, number, group)


def invalid(error: PolicyError) -> VLLMValidationError:
    """The same error in vLLM's terms, which its HTTP layer answers with a 400."""
    return VLLMValidationError(str(error), parameter=error.field)


def _process_inputs(
    original: Callable[..., Any],
    self: InputProcessor,
    request_id: str,
    prompt: Any,
    params: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    config = config_of(self.vllm_config)
    extra_args = (params.extra_args or {}) if isinstance(params, SamplingParams) else {}
    routing = extra_args.get(REQUEST_KEY)
    if config is None or routing is None:
        return original(self, request_id, prompt, params, *args, **kwargs)
    if not isinstance(routing, RequestRouting):
        routing = _check(routing, config)
    request = original(self, request_id, prompt, params, *args, **kwargs)
    # A new dictionary: the caller's sampling parameters may serve other requests too.
    extra_args = {k: v for k, v in extra_args.items() if k != REQUEST_KEY}
    if routing is not None:
        # Several choices become requests of their own, see `_child_sampling_params`.
        extra_args[REQUEST_KEY] = _of_choice(routing, 0) if params.n == 1 else routing
    request.sampling_params.extra_args = extra_args
    return request


def _check(raw: object, config: dict[str, Any]) -> RequestRouting | None:
    """A policy from an endpoint or a caller that has not checked it. Raises the 400's error."""
    spec = config["router_spec"]
    try:
        policy = parse_policy(raw, spec, allow_steering=config["allow_request_steering"])
    except PolicyError as error:
        raise invalid(error) from error
    if policy.is_native(spec):
        return None
    return travelling(compile_policy(policy, spec), group=MODES[policy.mode].code)


def _of_choice(routing: RequestRouting, index: int) -> RequestRouting:
    """For one of a prompt's choices, each of which has a seed of its own."""
    policy = routing.policy and routing.policy.for_choice(index)
    return replace(routing, choice=routing.choice + index, policy=policy)


def _child_sampling_params(
    original: Callable[..., SamplingParams], self: ParentRequest, index: int
) -> SamplingParams:
    params = original(self, index)
    routing = routing_of(self.sampling_params)
    if routing is None:
        return params
    # vLLM gives all children one object unless they have token-sampling seeds.
    params = copy(params)
    params.extra_args = {**(params.extra_args or {}), REQUEST_KEY: _of_choice(routing, index)}
    return params


class _Inbox(list[Any]):
    """Hands what vLLM appends on to a report. Empty, so that vLLM makes no field of it."""

    def __init__(self, report: Report, choice: int) -> None:
        super().__init__()
        self.report = report
        self.choice = choice

    def append(self, rows: Any) -> None:
        self.report.add(self.choice, rows)


def _add_request(
    original: Callable[..., None], self: OutputProcessor, request: Any, *args: Any, **kwargs: Any
) -> None:
    """Have vLLM collect the request's rows in its report, not in a list of its own."""
    original(self, request, *args, **kwargs)
    routing = routing_of(request.sampling_params)
    if routing is None or routing.report is None:
        return
    report = _reports.get(routing.report)
    if report is not None:
        state = self.request_states[request.request_id]
        state.routed_experts_chunks = _Inbox(report, routing.choice)


async def _register_request(
    original: Callable[..., Awaitable[None]], self: AsyncLLM, request: Any, *args: Any
) -> None:
    """Take a request that is not sent back from the running ones, where vLLM has put it before: it
    would have a place there for ever, and the engine would seem to hang.
    """
    try:
        await original(self, request, *args)
    except BaseException:
        with suppress(EngineDeadError):
            await self.abort(request.request_id, internal=True)
        raise


async def _send_request(
    original: Callable[..., Awaitable[None]], self: AsyncMPClient, request: Any
) -> None:
    """What cannot be serialized is the client's error."""
    try:
        await original(self, request)
    except OverflowError:
        raise VLLMValidationError("every integer must have at most 64 bits") from None
