"""A checked routing policy, and the way to it from a request's `routing` object.

Knows nothing of HTTP, tensors or vLLM; which keys there are is said in `keys` and `modes`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from routing.policy.error import PolicyError, check_number
from routing.policy.keys import (
    INCLUDE_KEY,
    NOISES,
    STEERING,
    WEIGHTS,
    Derived,
    Key,
    Number,
    Parameters,
    Type,
)
from routing.policy.modes import DEFAULT_MODE, MODES, Mode
from routing.policy.seed import MAX_SEED
from routing.policy.steering import Steering, parse_steering
from routing.spec import RouterSpec

if TYPE_CHECKING:
    from routing.trace import Trace

Value = Number | tuple[Number, ...]  # the same in every layer, or one per MoE layer


@dataclass(frozen=True, slots=True)
class Policy:
    """A resolved routing policy: nothing left to default.

    values: of the mode's parameters, in their order. seed: None where no noise is drawn
    and none was given. noise: one of NOISES. trace: what mode `replay` replays.
    """

    mode: str
    values: tuple[Value, ...]
    seed: int | None
    scope: str
    noise: str = NOISES[0]
    weights: str = WEIGHTS[0]
    steering: Steering | None = None
    trace: Trace | None = None

    def __getitem__(self, name: str) -> Value:
        """The value of a parameter of the mode."""
        return self.values[MODES[self.mode].index(name)]

    def draws_noise(self) -> bool:
        """True if any layer's selection depends on the seed."""
        mode = MODES[self.mode]
        if not mode.draws_noise or mode.noise_scale is None:
            return mode.draws_noise
        scale = self[mode.noise_scale]
        return any(scale) if isinstance(scale, tuple) else bool(scale)

    def with_seed(self, seed: int | None, default: int | None = None) -> Policy:
        """The same under that seed. Where it is None and noise is drawn, under the default's, or
        under a new one.
        """
        if seed is None and MODES[self.mode].draws_noise:
            seed = secrets.randbelow(MAX_SEED + 1) if default is None else default
        return replace(self, seed=seed)

    def is_native(self, spec: RouterSpec) -> bool:
        """True if every token is routed exactly as stock vLLM routes it."""
        return (
            MODES[self.mode].extends_native
            and self["top_k"] == spec.top_k
            and not self.draws_noise()
            and self.weights == WEIGHTS[0]
            and self.steering is None
        )

    def parameters(self, layer_index: int) -> Parameters:
        """One layer's value of each parameter of the mode, a choice by its index."""
        return {
            key.name: key.encode(value[layer_index] if isinstance(value, tuple) else value)
            for key, value in zip(MODES[self.mode].parameters, self.values, strict=True)
        }

    def as_dict(self) -> dict[str, Any]:
        """The JSON form echoed to the client; `parse_policy` of it gives the policy back."""
        out: dict[str, Any] = {"mode": self.mode}
        for key, value in zip(MODES[self.mode].parameters, self.values, strict=True):
            out[key.name] = list(value) if isinstance(value, tuple) else value
        if self.seed is not None:
            out["seed"] = self.seed
        if self.noise != NOISES[0]:
            out["noise"] = self.noise
        out["scope"] = self.scope
        if self.weights != WEIGHTS[0]:
            out["weights"] = self.weights
        if self.trace is not None:
            out["trace"] = self.trace.encode_base64()
        return out if self.steering is None else {**out, **self.steering.requested}

    def shown(self) -> dict[str, Any]:
        """`as_dict` as the client gets it: a trace is described, not sent back."""
        if self.trace is None:
            return self.as_dict()
        return {**replace(self, trace=None).as_dict(), "trace": self.trace.description()}


def parse_policy(
    raw: object, spec: RouterSpec, *, allow_steering: bool = True, default_seed: int | None = None
) -> Policy:
    """Check a `routing` object against the model and fill in every default.

    default_seed: where the policy needs a seed and none is given; None: a new one is drawn.
    allow_steering: whether `ban`, `force` and `bias` are accepted. Banning experts can strip
    a model's refusals (SteerMoE, arXiv 2509.09660), so a server's operator decides.
    Raises PolicyError for an unknown key, a wrong type or a value out of range.
    """
    if not isinstance(raw, Mapping):
        raise PolicyError("routing", raw, "an object such as {'mode': 'sample', 'seed': 7}")
    # An explicit null means what leaving the key out means, as in the OpenAI API.
    requested = {key: value for key, value in raw.items() if value is not None}
    mode = MODES[_choice("mode", requested.get("mode", DEFAULT_MODE), tuple(MODES))]
    _refuse_other_keys(raw, mode)
    for key in STEERING:
        if key.name in requested and not allow_steering:
            accepted = "left out: this server takes no steering (--allow-request-steering)"
            raise PolicyError(f"routing.{key.name}", requested[key.name], accepted)

    by_layer = _parameters(mode, requested, spec)
    columns = [tuple(layer[key.name] for layer in by_layer) for key in mode.parameters]
    values = tuple(column[0] if len(set(column)) == 1 else column for column in columns)
    policy = Policy(mode.name, values, **_common(mode, requested, spec))
    if steering := parse_steering(requested, mode, by_layer, spec):
        policy = replace(policy, steering=steering)
    return policy.with_seed(policy.seed, default_seed)


def _refuse_other_keys(raw: Mapping[str, object], mode: Mode) -> None:
    known = ["mode", *(key.name for key in mode.keys)]
    for name in raw:
        if name in known:
            continue
        owners = [m.name for m in MODES.values() if name in [key.name for key in m.parameters]]
        if owners:
            accepted = f"left out in mode '{mode.name}'; it belongs to {', '.join(owners)}"
            raise PolicyError(f"routing.{name}", raw[name], accepted)
        if name == INCLUDE_KEY.name:
            accepted = "left out of a policy: it belongs to a request"
            raise PolicyError(f"routing.{name}", raw[name], accepted)
        accepted = f"one of the keys {', '.join([*known, INCLUDE_KEY.name])}"
        raise PolicyError("routing", name, accepted)


def _common(mode: Mode, requested: Mapping[str, object], spec: RouterSpec) -> dict[str, Any]:
    """The keys of every mode but steering: seed, noise, scope, weights; and the trace."""
    common: dict[str, Any] = {"seed": None}
    for key in mode.keys:
        if key in mode.parameters or key in STEERING:
            continue
        if key.type is Type.TRACE:
            common[key.name] = _trace(requested.get(key.name), spec)
        elif key.name in requested:
            common[key.name] = _check(key.name, requested[key.name], key, key.low, key.high)
        elif key.default is not None:
            common[key.name] = mode.default_scope if key.name == "scope" else key.default
    return common


def _trace(raw: object, spec: RouterSpec) -> Trace:
    """The trace that a request brings, which must be one of this model."""
    if raw is None:
        raise PolicyError("routing.trace", raw, "a trace: mode 'replay' replays one")
    # Needs NumPy, which whoever replays nothing can do without.
    from routing.trace import TraceError, check_trace, parse_trace

    try:
        trace = parse_trace(raw, spec.layers, spec.num_experts)
        check_trace(trace, spec)
    except TraceError as error:
        raise PolicyError("routing.trace", raw, f"a trace of this model: {error}") from None
    return trace


def _parameters(
    mode: Mode, requested: Mapping[str, object], spec: RouterSpec
) -> list[dict[str, Any]]:
    """[L] every parameter of the mode, by layer, since ranges and defaults may depend."""
    num_layers = len(spec.layers)
    requests = {key.name: requested.get(key.name) for key in mode.parameters}
    lists = {name: value for name, value in requests.items() if isinstance(value, list | tuple)}
    for name, values in lists.items():
        if len(values) != num_layers:
            accepted = f"a value, or a list of {num_layers} values, one per MoE layer"
            raise PolicyError(f"routing.{name}", values, accepted)
    by_layer = []
    for i in range(num_layers if lists else 1):
        layer: dict[str, Any] = {}
        for key in mode.parameters:
            listed = lists.get(key.name)
            name = key.name if listed is None else f"{key.name}[{i}]"
            value = requests[key.name] if listed is None else listed[i]
            layer[key.name] = _parameter(name, value, key, layer, spec)
        by_layer.append(layer)
    return by_layer if lists else by_layer * num_layers


def _parameter(
    name: str, value: object, key: Key, earlier: Mapping[str, Any], spec: RouterSpec
) -> Number:
    """One layer's value, or its default; earlier: that layer's parameters so far."""

    def resolve(bound: float | str) -> float:
        if not isinstance(bound, str):
            return bound
        return float(earlier[bound] if bound in earlier else getattr(spec, bound))

    if key.type is Type.CHOICE:
        return _choice(name, key.default if value is None else value, key.choices)
    low, high = resolve(key.low), resolve(key.high)
    if value is not None:
        return _check(name, value, key, low, high)
    default = key.default
    assert default is not None, f"{key.name} has no default"
    number = default.of(spec, earlier) if isinstance(default, Derived) else resolve(default)
    # A default never leaves the range that the request's other numbers leave it.
    number = min(max(number, low), high)
    return int(number) if key.type is Type.INTEGER else float(number)


def _check(name: str, value: object, key: Key, low: float | str, high: float | str) -> Number:
    if key.type is Type.CHOICE:
        return _choice(name, value, key.choices)
    if key.type is Type.INTEGER:
        return _integer(name, value, int(low), int(high))
    return check_number(name, value, float(low), float(high), low_excluded=key.low_excluded)


def _choice(name: str, value: object, accepted: Sequence[str]) -> str:
    if isinstance(value, str) and value in accepted:
        return value
    raise PolicyError(f"routing.{name}", value, " or ".join(f"'{a}'" for a in accepted))


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise PolicyError(f"routing.{name}", value, f"an integer from {low} to {high}")
