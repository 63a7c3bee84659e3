"""Which token of an engine step follows which policy: preallocated arrays, filled once a step.

The kernel reads only these arrays; nothing about a request is looked up inside the
model's forward. A row belongs to the request at that place of the running batch and is
rewritten only when another request takes the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from routing.policy import MODES, Policy, RouterSpec, derive_seed, parse_policy

PHASES: Final = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """What the engine needs to know of one live request.

    policy: None for stock routing. num_prompt_tokens: tokens the request came with.
    """

    policy: Policy | None
    num_prompt_tokens: int

    @classmethod
    def of(
        cls, resolved: Mapping[str, Any] | None, num_prompt_tokens: int, spec: RouterSpec
    ) -> RoutedRequest:
        """From the resolved policy that travels with a request; `choice` is its child number."""
        if resolved is None:
            return cls(None, num_prompt_tokens)
        asked = dict(resolved)
        choice = asked.pop("choice", 0)
        policy = parse_policy(asked, spec)
        if policy.seed is not None:
            asked["seed"] = derive_seed(policy.seed, choice)
            policy = parse_policy(asked, spec)
        return cls(policy, num_prompt_tokens)


_STOCK = RoutedRequest(None, 0)


@dataclass(slots=True)
class StepState:
    """Per-token and per-row inputs of the kernel, and the counts it adds to.

    T = max_num_tokens, R = max_num_seqs, L = MoE layers, E = experts.
    num_tokens: [1] tokens of the step that are not padding; 0 outside a step, so that
    warm-up and profiling runs are neither steered nor counted.
    any_policy: True if a token of this step follows a policy.
    """

    spec: RouterSpec
    max_num_tokens: int
    max_num_seqs: int
    any_policy: bool = field(init=False, default=False)
    num_tokens: npt.NDArray[np.int64] = field(init=False)
    token_row: npt.NDArray[np.int32] = field(init=False)
    token_position: npt.NDArray[np.int64] = field(init=False)
    row_top_k: npt.NDArray[np.int64] = field(init=False)
    row_temperature: npt.NDArray[np.float32] = field(init=False)
    row_seed: npt.NDArray[np.uint64] = field(init=False)
    assignments: npt.NDArray[np.int64] = field(init=False)
    routed_tokens: npt.NDArray[np.int64] = field(init=False)
    _row_request: list[RoutedRequest] = field(init=False)
    _row_mode: npt.NDArray[np.int64] = field(init=False)
    _row_first_policy_position: npt.NDArray[np.int64] = field(init=False)
    _row_num_prompt_tokens: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        num_tokens, num_rows = self.max_num_tokens, self.max_num_seqs
        num_layers = len(self.spec.layers)
        self.num_tokens = np.zeros(1, np.int64)
        self.token_row = np.full(num_tokens, -1, np.int32)
        self.token_position = np.zeros(num_tokens, np.int64)
        self.row_top_k = np.full(num_rows, self.spec.top_k, np.int64)
        self.row_temperature = np.zeros((num_rows, num_layers), np.float32)
        self.row_seed = np.zeros(num_rows, np.uint64)
        self.assignments = np.zeros((num_layers, self.spec.num_experts), np.int64)
        self.routed_tokens = np.zeros((len(MODES), len(PHASES)), np.int64)
        self._row_request = [_STOCK] * num_rows
        self._row_mode = np.zeros(num_rows, np.int64)
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
            if self._row_request[row] is not request:
                self._write_row(row, request)

        token_row = np.repeat(np.arange(num_rows, dtype=np.int32), num_scheduled_tokens)
        num_tokens = token_row.shape[0]
        starts = np.cumsum(num_scheduled_tokens) - num_scheduled_tokens
        position = self.token_position[:num_tokens]
        np.subtract(np.arange(num_tokens), (starts - num_computed_tokens)[token_row], out=position)
        follows_policy = position >= self._row_first_policy_position[token_row]
        self.any_policy = bool(follows_policy.any())
        self.token_row[:num_tokens] = np.where(follows_policy, token_row, -1)
        self.num_tokens[0] = num_tokens

        mode = np.where(follows_policy, self._row_mode[token_row], 0)
        phase = position >= self._row_num_prompt_tokens[token_row]
        counts = np.bincount(mode * len(PHASES) + phase, minlength=self.routed_tokens.size)
        self.routed_tokens += counts.reshape(self.routed_tokens.shape)

    def end_step(self) -> None:
        """Forget the step: until the next one, every row is stock and none is counted."""
        self.num_tokens[0] = 0
        self.any_policy = False

    def _write_row(self, row: int, request: RoutedRequest) -> None:
        policy = request.policy
        self._row_request[row] = request
        self._row_num_prompt_tokens[row] = request.num_prompt_tokens
        if policy is None:
            self._row_first_policy_position[row] = np.iinfo(np.int64).max
            return
        first = 0 if policy.scope == "all" else request.num_prompt_tokens
        self._row_first_policy_position[row] = first
        self._row_mode[row] = MODES.index(policy.mode)
        self.row_top_k[row] = policy.top_k
        self.row_temperature[row] = policy.temperatures(len(self.spec.layers))
        self.row_seed[row] = policy.seed or 0
