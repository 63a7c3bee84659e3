"""Hooks in the process that accepts requests: check a policy once, give children seeds.

A request carries its policy as `SamplingParams.extra_args["routing"]`, from whichever
endpoint it came. Past this module it is a checked `Routing`, and absent for a stock request
that nobody asks to be told of.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from copy import copy
from typing import Any
from weakref import WeakValueDictionary

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams
from vllm.utils.async_utils import make_async
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.engine.parallel_sampling import ParentRequest

from routing.engine import REQUEST_KEY, config_of, routing_of, wrap
from routing.policy import Policy, PolicyError, parse_policy
from routing.record import Report
from routing.spec import RouterSpec


def install() -> None:
    """Wrap request intake and parallel sampling. Idempotent."""
    wrap(InputProcessor, "process_inputs", _process_inputs)
    wrap(ParentRequest, "_get_child_sampling_params", _child_sampling_params)
    wrap(OutputProcessor, "add_request", _add_request)


def renew(processor: InputProcessor) -> None:
    """Have a processor made before `install` use its hook for raw prompts too.

    vLLM gives each processor an asynchronous form of the method that `install` replaces.
    """
    processor.process_inputs_async = make_async(
        processor.process_inputs, executor=processor.renderer._executor
    )


class Routing(dict[str, Any]):
    """What travels with a request, checked by whoever made it.

    policy: resolved; None for the model's own. choice: the number of the first choice that
    it serves, see `derive_seed`; a list of prompts starts one engine request per prompt.
    include: what to record of its tokens; report: the number of the `Report` for that.
    JSON makes no such object, so no client can pass anything off as checked.
    """


# By number, while the HTTP request lasts that holds it.
_reports: WeakValueDictionary[int, Report] = WeakValueDictionary()
_report_numbers = itertools.count()


def travelling(
    policy: Policy, spec: RouterSpec, *, choice: int = 0, report: Report | None = None
) -> Routing | None:
    """The `Routing` of a request; None for a stock one."""
    if policy.is_native(spec) and report is None:
        return None
    resolved = None if policy.is_native(spec) else policy.as_dict()
    routing = Routing(policy=resolved, choice=choice)
    if report is not None:
        routing["include"], routing["report"] = list(report.include), next(_report_numbers)
        _reports[routing["report"]] = report
    return routing


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
    asked = routing_of(params) if isinstance(params, SamplingParams) else None
    if config is None or asked is None:
        return original(self, request_id, prompt, params, *args, **kwargs)
    routing = asked if isinstance(asked, Routing) else _check(asked, config)
    request = original(self, request_id, prompt, params, *args, **kwargs)
    # A new dictionary: the caller's sampling parameters may serve other requests too.
    extra_args = {k: v for k, v in params.extra_args.items() if k != REQUEST_KEY}
    if routing is not None:
        extra_args[REQUEST_KEY] = dict(routing)
    request.sampling_params.extra_args = extra_args
    return request


def _check(asked: object, config: dict[str, Any]) -> Routing | None:
    """A policy from an endpoint or a caller that has not checked it."""
    spec = RouterSpec.from_dict(config["router_spec"])
    try:
        allowed = config["allow_request_steering"]
        return travelling(parse_policy(asked, spec, allow_steering=allowed), spec)
    except PolicyError as error:
        raise invalid(error) from error


def _child_sampling_params(
    original: Callable[..., SamplingParams], self: ParentRequest, index: int
) -> SamplingParams:
    params = original(self, index)
    routing = routing_of(self.sampling_params)
    if routing is None:
        return params
    # vLLM gives all children one object unless they have token-sampling seeds.
    params = copy(params)
    child = {**routing, "choice": routing["choice"] + index}
    params.extra_args = {**(params.extra_args or {}), REQUEST_KEY: child}
    return params


def _add_request(
    original: Callable[..., None], self: OutputProcessor, request: Any, *args: Any, **kwargs: Any
) -> None:
    """Have vLLM collect the request's rows in its report, not in a list of its own."""
    original(self, request, *args, **kwargs)
    routing = routing_of(request.sampling_params) or {}
    report = _reports.get(routing.get("report", -1))
    if report is not None:
        state = self.request_states[request.request_id]
        state.routed_experts_chunks = report.unread(routing["choice"])
