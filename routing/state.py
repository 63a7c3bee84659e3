"""The requests of a running batch, each in a slot, and the arrays of a step on the host.

Kernels read only these arrays; nothing about a request is looked up inside the model's
forward. A slot is written when a request takes it and then left alone: what is new in each step
is only which slots run, and which tokens of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from routing.counts import Counts, Memory
from routing.policy.compiled import CompiledPolicy
from routing.policy.keys import WEIGHTS
from routing.policy.modes import MODES
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.step import CHOICE, MEASURES, NEVER, OBSERVED, Slot, Step, encode_rule, sizes_of, zeros
from routing.trace import Trace
from routing.trace.rows import MEASURED, Rows

_MODEL_WEIGHTS: Final = WEIGHTS.index("model")
_TAKES_TRACE: Final = {mode.code for mode in MODES.values() if mode.takes_trace}
COUNTED: Final = {*Step._fields} & {*Counts._fields}  # by kernels


@dataclass(eq=False, slots=True)
class RoutedRequest:
    """What the engine needs to know of one live request.

    policy: None for native routing. num_prompt_tokens: tokens the request came with.
    include: what is to be recorded of its tokens, see `routing.trace.rows`; unsent: their rows
    that have not left the worker yet. group: of the tokens that follow the policy, see
    `routing.counts`. num_routed: how many of its tokens have been routed.
    trace: what the policy replays.
    """

    policy: CompiledPolicy | None
    num_prompt_tokens: int
    include: tuple[str, ...] = ()
    unsent: list[Rows] = field(default_factory=list)
    group: int = 0
    num_routed: int = 0
    trace: Trace | None = field(init=False)

    def __post_init__(self) -> None:
        data = self.policy.trace if self.policy is not None else b""
        self.trace = Trace.decode(data) if data else None

    @property
    def records(self) -> int:
        """As a slot's number."""
        if not self.include:
            return 0
        return CHOICE | (MEASURES if MEASURED & {*self.include} else 0)

    def num_columns(self, spec: RouterSpec) -> int:
        """For the experts of any of its tokens."""
        policy = self.policy
        if policy is None:
            return spec.top_k
        if self.trace is not None:  # where it holds nothing the model's own router chooses
            return max(spec.top_k, min(self.trace.topk_ids.shape[2], spec.max_top_k))
        most = policy.most_experts()
        return most if policy.routes_prompt else max(spec.top_k, most)

    def first_position(self) -> int:
        """Of its first token that follows the policy."""
        if self.policy is None:
            return NEVER
        return self.policy.first_position(self.num_prompt_tokens)


@dataclass(slots=True)
class StepState:
    """A step's arrays on the host, and the requests that they stand for.

    T = max_num_tokens and R = max_num_seqs; rules: one per MoE layer. max_observed: tokens of a
    step that the self-test can see. memory: for the counts, of `Counts.num_bytes`; None for this
    process's own.
    arrays.num_tokens is 0 outside a step, so that warm-up and profiling runs are neither
    steered nor counted. slot_columns: how wide a slot's tokens may be; slot_reports: whether rows
    are wanted of them. observes: whether what layers do with the tokens of slots that are written
    from now on is kept for the self-test.
    """

    spec: RouterSpec
    rules: Sequence[RouterRule]
    max_num_tokens: int
    max_num_seqs: int
    max_observed: int
    memory: Memory | None = None
    sizes: dict[str, int] = field(init=False)
    arrays: Step = field(init=False)
    counts: Counts = field(init=False)
    slot_request: list[RoutedRequest | None] = field(init=False)
    slot_columns: npt.NDArray[np.int64] = field(init=False)
    slot_reports: npt.NDArray[np.bool_] = field(init=False)
    observes: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        size = len(self.spec.layers), self.spec.num_experts
        memory = bytearray(Counts.num_bytes(*size)) if self.memory is None else self.memory
        self.counts = Counts.on(memory, *size)
        shared = {name: array for name, array in self.counts._asdict().items() if name in COUNTED}
        self.sizes = sizes_of(self.spec, self.max_num_tokens, self.max_num_seqs, self.max_observed)
        self.arrays = zeros(self.sizes)._replace(**shared)
        self.arrays.layers[:] = self.spec.layers
        self.arrays.token_slot[:] = -1
        for layer_index, rule in enumerate(self.rules):
            self.arrays.rule_code[layer_index] = encode_rule(rule)
            self.arrays.rule_correction_bias[layer_index] = rule.correction_bias or 0
        self.slot_request = [None] * self.max_num_seqs
        self.slot_columns = np.full(self.max_num_seqs, self.spec.top_k)
        self.slot_reports = np.zeros(self.max_num_seqs, np.bool_)

    def write_slot(self, slot: int, request: RoutedRequest) -> None:
        """Have a slot stand for a request."""
        policy, arrays = request.policy, self.arrays
        self.slot_request[slot] = request
        self.slot_columns[slot] = request.num_columns(self.spec)
        self.slot_reports[slot] = bool(request.include)
        numbers = _NATIVE._replace(
            first_position=request.first_position(),
            num_prompt_tokens=request.num_prompt_tokens,
            num_routed=request.num_routed,
            native_group=0 if policy is not None else request.group,
            group=request.group,
            records=request.records | (CHOICE | OBSERVED if self.observes else 0),
        )
        if policy is not None:
            replays = policy.mode in _TAKES_TRACE
            numbers = numbers._replace(
                mode=policy.mode,
                weights=policy.weights,
                seed=_signed(policy.seed or 0),
                draws_once=policy.draws_once,
                is_steered=bool(policy.steering),
                keeps_native=replays and policy.weights == _MODEL_WEIGHTS,
            )
            _copy(policy.parameters, arrays.slot_parameters[slot])
            if policy.steering:
                _copy(policy.steering, arrays.slot_steering[slot])
        if request.trace is not None:
            numbers = _with_trace(numbers, request.trace)
        arrays.slot_numbers[slot] = numbers


_NATIVE: Final = Slot(*[0] * len(Slot._fields))


def _with_trace(numbers: Slot, trace: Trace) -> Slot:
    """Numbers with the addresses of a trace, whose arrays must live on."""
    return numbers._replace(
        trace_ids=trace.topk_ids.ctypes.data,
        trace_native=trace.native.ctypes.data,
        trace_position=trace.first_position,
        trace_tokens=len(trace.native),
        trace_top_k=trace.topk_ids.shape[2],
    )


def _signed(seed: int) -> int:
    """The int64 of the same bits."""
    return seed - 2**64 if seed >= 2**63 else seed


def _copy(data: bytes, array: npt.NDArray[Any]) -> None:
    array[...] = np.frombuffer(data, array.dtype).reshape(array.shape)
