"""A policy as the engine takes it: numbers in rows, made once where the request comes in.

Compiled policies travel: everything in them is an integer, a truth value or bytes. Nothing
behind the door parses; what a worker needs is copied from here into the arrays of a step.
What `scope`, the seed of a choice and prefix caching mean is said here and nowhere else.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace

from routing.policy.keys import NOISES, WEIGHTS, Parameters
from routing.policy.modes import MAX_PARAMETERS, MODES, Mode
from routing.policy.policy import Policy
from routing.policy.seed import derive_seed
from routing.spec import RouterSpec

_BY_CODE = {mode.code: mode for mode in MODES.values()}
_ONCE = NOISES[1]


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One request's policy.

    mode: code of the mode. weights: place in WEIGHTS. seed: None where no noise is drawn.
    draws_once: whether all of a request's tokens share their noise.
    routes_prompt: whether the prompt's tokens follow it too.
    parameters: float64 [L, MAX_PARAMETERS], in the mode's order, the rest 0.
    steering: float32 [L, E], added to the logits of the choice; empty where nothing is.
    trace: `Trace.encode` without weights, of what is replayed; empty where nothing is.
    digest: of all of this but the seed and the scope.
    """

    mode: int
    weights: int
    seed: int | None
    draws_once: bool
    routes_prompt: bool
    parameters: bytes
    steering: bytes
    trace: bytes
    digest: bytes

    def with_seed(self, seed: int) -> CompiledPolicy:
        """The same under another seed; itself where no noise is drawn."""
        return self if self.seed is None else replace(self, seed=seed)

    def for_choice(self, choice: int) -> CompiledPolicy:
        """The policy of one of a prompt's choices, numbered from 0."""
        return self if self.seed is None else self.with_seed(derive_seed(self.seed, choice))

    def noise_position(self, position: int) -> int:
        """The position under which a token's noise is drawn: its own, or one for all."""
        return 0 if self.draws_once else position

    def first_position(self, num_prompt_tokens: int) -> int:
        """Absolute position of the first token that follows the policy."""
        return 0 if self.routes_prompt else num_prompt_tokens

    def cache_key(self, num_prompt_tokens: int) -> str:
        """Equal for requests whose routed tokens may share key-value blocks.

        Under scope `decode` the number of prompt tokens is part of it: within one block it
        decides which tokens the native router chose for.
        """
        first = self.first_position(num_prompt_tokens)
        return f"{self.digest.hex()}.{self.seed}.{first}"

    @property
    def mode_row(self) -> Mode:
        """The mode in the table of modes."""
        return _BY_CODE[self.mode]

    def most_experts(self) -> int:
        """That a token may get, in any layer. Of a mode that takes no trace."""
        place = self.mode_row.index(self.mode_row.most)
        return int(max(_floats(self.parameters)[place::MAX_PARAMETERS]))

    def parameters_of(self, layer_index: int) -> Parameters:
        """One layer's value of each parameter of the mode, a choice by its index."""
        start = layer_index * MAX_PARAMETERS
        numbers = _floats(self.parameters)[start : start + MAX_PARAMETERS]
        return dict(zip([key.name for key in self.mode_row.parameters], numbers, strict=False))


def compile_policy(policy: Policy, spec: RouterSpec) -> CompiledPolicy:
    """The policy for a model with these routers."""
    mode = MODES[policy.mode]
    num_rows = len(spec.layers) if any(isinstance(v, tuple) for v in policy.values) else 1
    rows = [_parameters(policy, layer_index) for layer_index in range(num_rows)]
    parameters = b"".join(rows) * (len(spec.layers) // num_rows)
    steering, trace, replayed = b"", b"", b""
    if policy.steering is not None:
        by_layer = (policy.steering.dense(layer, spec.num_experts) for layer in spec.layers)
        steering = _bytes("f", (bias for row in by_layer for bias in row))
    if policy.trace is not None:
        trace, replayed = policy.trace.without_weights().encode(), policy.trace.sha256
    weights, once = WEIGHTS.index(policy.weights), policy.noise == _ONCE
    codes = struct.pack("<BB?", mode.code, weights, once)
    digest = hashlib.sha256(b"".join((codes, parameters, replayed, steering))).digest()
    seed = (policy.seed or 0) if policy.draws_noise() else None
    whole = policy.scope == "all"
    return CompiledPolicy(
        mode.code, weights, seed, once, whole, parameters, steering, trace, digest
    )


def _parameters(policy: Policy, layer_index: int) -> bytes:
    numbers = [*policy.parameters(layer_index).values()]
    return _bytes("d", numbers + [0.0] * (MAX_PARAMETERS - len(numbers)))


def _bytes(typecode: str, numbers: Iterable[float]) -> bytes:
    return array(typecode, numbers).tobytes()


def _floats(data: bytes) -> array[float]:
    numbers = array("d")
    numbers.frombytes(data)
    return numbers
