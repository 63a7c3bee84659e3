"""Which token of an engine step follows which policy: preallocated arrays, filled once a step.

The kernel reads only these arrays; nothing about a request is looked up inside the
model's forward. A row belongs to the request at that place of the running batch and is
rewritten only when another request takes the place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from routing.policy.compiled import CompiledPolicy
from routing.policy.modes import MAX_PARAMETERS, MODES
from routing.reference.rule import SCORINGS, Floats, RouterRule
from routing.spec import RouterSpec
from routing.trace import Trace
from routing.trace.rows import Rows

PHASES: Final = ("prefill", "decode")
NUMBERS: Final = 6


def as_numbers(rule: RouterRule, num_experts: int) -> tuple[Floats, Floats]:
    """The rule for the kernels: [NUMBERS], and the correction bias [E], or zeros."""
    numbers = (
        SCORINGS.index(rule.scoring),
        rule.renormalize,
        rule.scaling_factor,
        rule.num_groups,
        rule.topk_groups,
        rule.correction_bias is not None,
    )
    bias = rule.correction_bias or (0.0,) * num_experts
    return np.array(numbers, np.float64), np.array(bias, np.float64)


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """What the engine needs to know of one live request.

    policy: None for native routing. num_prompt_tokens: tokens the request came with.
    include: what is to be recorded of its tokens, see `routing.trace.rows`; unsent: their rows
    that have not left the worker yet. trace: what the policy replays.
    """

    policy: CompiledPolicy | None
    num_prompt_tokens: int
    include: tuple[str, ...] = ()
    unsent: list[Rows] = field(default_factory=list, compare=False)
    trace: Trace | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        data = self.policy.trace if self.policy is not None else b""
        object.__setattr__(self, "trace", Trace.decode(data) if data else None)


_STOCK = RoutedRequest(None, 0)


@dataclass(slots=True)
class StepState:
    """Per-token, per-row and per-layer inputs of the kernel, and the counts it adds to.

    The arrays are named and shaped as `routing.cpu.route.route` takes them, with
    T = max_num_tokens and R = max_num_seqs. rules: one per MoE layer.
    num_tokens is 0 outside a step, so that warm-up and profiling runs are neither steered
    nor counted. any_policy: True if a token of this step follows a policy.
    """

    spec: RouterSpec
    rules: Sequence[RouterRule]
    max_num_tokens: int
    max_num_seqs: int
    any_policy: bool = field(init=False, default=False)
    layers: npt.NDArray[np.int64] = field(init=False)
    rule_numbers: npt.NDArray[np.float64] = field(init=False)
    rule_correction_bias: npt.NDArray[np.float64] = field(init=False)
    num_tokens: npt.NDArray[np.int64] = field(init=False)
    token_row: npt.NDArray[np.int32] = field(init=False)
    token_position: npt.NDArray[np.int64] = field(init=False)
    row_mode: npt.NDArray[np.int64] = field(init=False)
    row_weights: npt.NDArray[np.int64] = field(init=False)
    row_numbers: npt.NDArray[np.float64] = field(init=False)
    row_seed: npt.NDArray[np.uint64] = field(init=False)
    row_steered: npt.NDArray[np.bool_] = field(init=False)
    row_steering: npt.NDArray[np.float32] = field(init=False)
    token_replayed: npt.NDArray[np.int16] = field(init=False)
    assignments: npt.NDArray[np.int64] = field(init=False)
    routed_tokens: npt.NDArray[np.int64] = field(init=False)
    row_request: list[RoutedRequest] = field(init=False)
    _row_first_policy_position: npt.NDArray[np.int64] = field(init=False)
    _row_num_prompt_tokens: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        num_tokens, num_rows = self.max_num_tokens, self.max_num_seqs
        num_layers, num_experts = len(self.spec.layers), self.spec.num_experts
        self.layers = np.array(self.spec.layers, np.int64)
        self.rule_numbers = np.zeros((num_layers, NUMBERS))
        self.rule_correction_bias = np.zeros((num_layers, num_experts))
        for row, rule in enumerate(self.rules):
            self.rule_numbers[row], self.rule_correction_bias[row] = as_numbers(rule, num_experts)
        self.num_tokens = np.zeros(1, np.int64)
        self.token_row = np.full(num_tokens, -1, np.int32)
        self.token_position = np.zeros(num_tokens, np.int64)
        self.row_mode = np.zeros(num_rows, np.int64)
        self.row_weights = np.zeros(num_rows, np.int64)
        self.row_numbers = np.zeros((num_rows, num_layers, MAX_PARAMETERS))
        self.row_seed = np.zeros(num_rows, np.uint64)
        self.row_steered = np.zeros(num_rows, np.bool_)
        self.row_steering = np.zeros((num_rows, num_layers, num_experts), np.float32)
        self.token_replayed = np.zeros((num_tokens, num_layers, self.spec.max_top_k + 1), np.int16)
        self.assignments = np.zeros((num_layers, num_experts), np.int64)
        self.routed_tokens = np.zeros((len(MODES), len(PHASES)), np.int64)
        self.row_request = [_STOCK] * num_rows
        self._row_first_policy_position = np.full(num_rows, np.iinfo(np.int64).max, np.int64)
        self._row_num_prompt_tokens = np.zeros(num_rows, np.int64)

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
        num_rows = len(requests)
        for row, request in enumerate(requests):
            if self.row_request[row] is not request:
                self._write_row(row, request)

        token_row = np.repeat(np.arange(num_rows, dtype=np.int32), num_scheduled_tokens)
        num_tokens = token_row.shape[0]
        starts = np.cumsum(num_scheduled_tokens) - num_scheduled_tokens
        position = self.token_position[:num_tokens]
        np.subtract(np.arange(num_tokens), (starts - num_computed_tokens)[token_row], out=position)
        follows_policy = position >= self._row_first_policy_position[token_row]
        for row, request in enumerate(requests):
            if request.trace is not None:
                tokens = slice(starts[row], starts[row] + num_scheduled_tokens[row])
                follows_policy[tokens] &= self._replay(request.trace, tokens)
        self.any_policy = bool(follows_policy.any())
        self.token_row[:num_tokens] = np.where(follows_policy, token_row, -1)
        self.num_tokens[0] = num_tokens

        mode = np.where(follows_policy, self.row_mode[token_row], 0)
        phase = position >= self._row_num_prompt_tokens[token_row]
        counts = np.bincount(mode * len(PHASES) + phase, minlength=self.routed_tokens.size)
        self.routed_tokens += counts.reshape(self.routed_tokens.shape)

    def _replay(self, trace: Trace, tokens: slice) -> npt.NDArray[np.bool_]:
        """Copy a trace's experts for tokens of this step; which of them it holds, a mask."""
        rows = self.token_position[tokens] - trace.first_position
        held = (rows >= 0) & (rows < len(trace.own))
        held[held] = trace.topk_ids[rows[held], 0, 0] >= 0
        ids = trace.topk_ids[rows[held], :, : self.spec.max_top_k]
        replayed = self.token_replayed[tokens]
        replayed[...] = -1
        replayed[held, :, : ids.shape[2]] = ids
        replayed[held, :, -1] = trace.own[rows[held], None]
        return held

    def kernel_arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """What the kernel takes after a layer's own arguments, in its order."""
        return (
            self.layers,
            self.rule_numbers,
            self.rule_correction_bias,
            self.num_tokens,
            self.token_row,
            self.token_position,
            self.row_mode,
            self.row_weights,
            self.row_numbers,
            self.row_seed,
            self.row_steered,
            self.row_steering,
            self.token_replayed,
            self.assignments,
        )

    def end_step(self) -> None:
        """Forget the step: until the next one, every row is stock and none is counted."""
        self.num_tokens[0] = 0
        self.any_policy = False

    def _write_row(self, row: int, request: RoutedRequest) -> None:
        policy = request.policy
        self.row_request[row] = request
        self._row_num_prompt_tokens[row] = request.num_prompt_tokens
        if policy is None:
            self._row_first_policy_position[row] = np.iinfo(np.int64).max
            return
        self._row_first_policy_position[row] = policy.first_position(request.num_prompt_tokens)
        self.row_mode[row] = policy.mode
        self.row_weights[row] = policy.weights
        self.row_seed[row] = policy.seed
        self.row_numbers[row] = np.frombuffer(policy.parameters).reshape(self.row_numbers.shape[1:])
        self.row_steered[row] = bool(policy.steering)
        if policy.steering:
            steering = np.frombuffer(policy.steering, np.float32)
            self.row_steering[row] = steering.reshape(self.row_steering.shape[1:])
