"""Which token of an engine step follows which policy: a step's arrays, filled once a step.

Kernels read only these arrays; nothing about a request is looked up inside the model's
forward. A slot belongs to the request at that place of the running batch and is rewritten
only when another request takes the place.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from routing.counts import PHASES, RECOMPUTE, Counts, Memory
from routing.policy.compiled import CompiledPolicy
from routing.policy.keys import WEIGHTS
from routing.policy.modes import MODES
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.step import Step, encode_rule, sizes_of, zeros
from routing.trace import Trace
from routing.trace.rows import Rows

_MODEL_WEIGHTS: Final = WEIGHTS.index("model")
_TAKES_TRACE: Final = {mode.code for mode in MODES.values() if mode.takes_trace}
_NEVER: Final = np.iinfo(np.int64).max
COUNTED: Final = {*Step._fields} & {*Counts._fields}  # by kernels


@dataclass(eq=False, slots=True)
class RoutedRequest:
    """What the engine needs to know of one live request.

    policy: None for native routing. num_prompt_tokens: tokens the request came with.
    include: what is to be recorded of its tokens, see `routing.trace.rows`; unsent: their rows
    that have not left the worker yet. group: of the tokens that follow the policy, see
    `routing.counts`. trace: what the policy replays. num_routed: tokens up to the last one that
    was routed.
    """

    policy: CompiledPolicy | None
    num_prompt_tokens: int
    include: tuple[str, ...] = ()
    unsent: list[Rows] = field(default_factory=list)
    group: int = 0
    trace: Trace | None = field(init=False)
    num_routed: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        data = self.policy.trace if self.policy is not None else b""
        self.trace = Trace.decode(data) if data else None


_NATIVE: Final = RoutedRequest(None, 0)


@dataclass(slots=True)
class StepState:
    """A step's arrays on the host, and the requests that they stand for.

    T = max_num_tokens and R = max_num_seqs; rules: one per MoE layer. memory: for the counts, of
    `Counts.num_bytes`; None for this process's own.
    arrays.num_tokens is 0 outside a step, so that warm-up and profiling runs are neither
    steered nor counted. any_policy: True if a token of this step follows a policy.
    """

    spec: RouterSpec
    rules: Sequence[RouterRule]
    max_num_tokens: int
    max_num_seqs: int
    memory: Memory | None = None
    any_policy: bool = field(init=False, default=False)
    arrays: Step = field(init=False)
    counts: Counts = field(init=False)
    slot_request: list[RoutedRequest] = field(init=False)
    _slot_first_position: npt.NDArray[np.int64] = field(init=False)
    _slot_num_prompt_tokens: npt.NDArray[np.int64] = field(init=False)
    # [R, 2] of tokens that follow no policy, and of those that do.
    _slot_groups: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.spec.layers), self.spec.num_experts
        memory = bytearray(Counts.num_bytes(*size)) if self.memory is None else self.memory
        self.counts = Counts.on(memory, *size)
        shared = {name: array for name, array in self.counts._asdict().items() if name in COUNTED}
        self.arrays = zeros(self.sizes())._replace(**shared)
        arrays = self.arrays
        arrays.layers[:] = self.spec.layers
        arrays.token_slot[:] = -1
        for layer_index, rule in enumerate(self.rules):
            arrays.rule_code[layer_index] = encode_rule(rule)
            arrays.rule_correction_bias[layer_index] = rule.correction_bias or 0
        self.slot_request = [_NATIVE] * self.max_num_seqs
        self._slot_first_position = np.full(self.max_num_seqs, _NEVER)
        self._slot_num_prompt_tokens = np.zeros(self.max_num_seqs, np.int64)
        self._slot_groups = np.zeros((self.max_num_seqs, 2), np.int32)

    def sizes(self) -> dict[str, int]:
        """What each letter of a shape stands for."""
        return sizes_of(self.spec, self.max_num_tokens, self.max_num_seqs)

    def begin_step(
        self,
        requests: Sequence[RoutedRequest],
        num_scheduled_tokens: npt.NDArray[np.integer[Any]],
        num_computed_tokens: npt.NDArray[np.integer[Any]],
    ) -> None:
        """Fill the arrays for one engine step.

        requests: B live requests in batch order. num_scheduled_tokens: [B] tokens of each
        in this step. num_computed_tokens: [B] absolute position of each one's first token.
        """
        arrays = self.arrays
        for slot, request in enumerate(requests):
            if self.slot_request[slot] is not request:
                self._write_slot(slot, request)

        token_slot = np.repeat(np.arange(len(requests), dtype=np.int32), num_scheduled_tokens)
        num_tokens = token_slot.shape[0]
        starts = np.cumsum(num_scheduled_tokens) - num_scheduled_tokens
        position = arrays.token_position[:num_tokens]
        np.subtract(np.arange(num_tokens), (starts - num_computed_tokens)[token_slot], out=position)
        follows_policy = position >= self._slot_first_position[token_slot]
        for slot, request in enumerate(requests):
            if request.trace is not None:
                tokens = slice(starts[slot], starts[slot] + num_scheduled_tokens[slot])
                follows_policy[tokens] &= self._replay(request.trace, tokens)
        self.any_policy = bool(follows_policy.any())
        arrays.token_slot[:num_tokens] = np.where(follows_policy, token_slot, -1)
        arrays.num_tokens[0] = num_tokens
        arrays.step_number[0] += 1
        group = self._slot_groups[token_slot, follows_policy.view(np.int8)]
        arrays.token_group[:num_tokens] = group
        self._count(requests, token_slot, position, group)
        for request, end in zip(requests, num_computed_tokens + num_scheduled_tokens, strict=True):
            request.num_routed = max(request.num_routed, int(end))

    def _count(
        self,
        requests: Sequence[RoutedRequest],
        token_slot: npt.NDArray[np.int32],
        position: npt.NDArray[np.int64],
        group: npt.NDArray[np.int32],
    ) -> None:
        """What is counted of a step without its experts."""
        num_routed = np.array([request.num_routed for request in requests])
        is_generated = position >= self._slot_num_prompt_tokens[token_slot]
        phase = np.where(position < num_routed[token_slot], RECOMPUTE, is_generated)
        routed = self.counts.routed_tokens
        counted = np.bincount(group * len(PHASES) + phase, minlength=routed.size)
        routed += counted.reshape(routed.shape)
        self.counts.num_steps[0] += 1
        self.counts.last_step[0] = time.time()

    def end_step(self) -> None:
        """Forget the step: until the next one, every token is native and none is counted."""
        self.arrays.num_tokens[0] = 0
        self.any_policy = False

    def _replay(self, trace: Trace, tokens: slice) -> npt.NDArray[np.bool_]:
        """Copy a trace's experts for tokens of this step; which of them it holds, a mask."""
        rows = self.arrays.token_position[tokens] - trace.first_position
        held = (rows >= 0) & (rows < len(trace.native))
        held[held] = trace.topk_ids[rows[held], 0, 0] >= 0
        ids = trace.topk_ids[rows[held], :, : self.spec.max_top_k]
        replayed = self.arrays.token_replayed[tokens]
        replayed[...] = -1
        replayed[held, :, : ids.shape[2]] = ids
        self.arrays.token_was_native[tokens][held] = trace.native[rows[held]]
        return held

    def _write_slot(self, slot: int, request: RoutedRequest) -> None:
        policy, arrays = request.policy, self.arrays
        self.slot_request[slot] = request
        self._slot_groups[slot] = (0 if policy is not None else request.group, request.group)
        self._slot_num_prompt_tokens[slot] = request.num_prompt_tokens
        self._slot_first_position[slot] = _NEVER
        if policy is None:
            return
        self._slot_first_position[slot] = policy.first_position(request.num_prompt_tokens)
        arrays.slot_mode[slot] = policy.mode
        arrays.slot_weights[slot] = policy.weights
        arrays.slot_seed[slot] = policy.seed or 0
        arrays.slot_draws_once[slot] = policy.draws_once
        _copy(policy.parameters, arrays.slot_parameters[slot])
        arrays.slot_steered[slot] = bool(policy.steering)
        if policy.steering:
            _copy(policy.steering, arrays.slot_steering[slot])
        arrays.slot_keeps_native[slot] = (
            policy.mode in _TAKES_TRACE and policy.weights == _MODEL_WEIGHTS
        )


def _copy(data: bytes, array: npt.NDArray[Any]) -> None:
    array[...] = np.frombuffer(data, array.dtype).reshape(array.shape)
