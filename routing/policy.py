"""What a request may ask of the router: one frozen `Policy`, parsed and checked here.

Owns the keys of the `routing` field; the parameters of each mode are the mode's own.
Knows nothing of HTTP, tensors or vLLM.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from routing.modes import MODES
from routing.modes.mode import Mode, Parameter
from routing.rule import WEIGHTS
from routing.seed import MAX_SEED
from routing.spec import RouterSpec
from routing.trace import Trace, TraceError, check_trace, parse_trace

SCOPES: Final = ("decode", "all")
STEERING: Final = ("ban", "force", "bias")
MAX_BIAS: Final = 20.0

Number = float | int | str
Value = Number | tuple[Number, ...]  # the same in every layer, or one per MoE layer
Steering = dict[int, dict[int, float]]  # layer -> expert -> bias; -inf bans, +inf forces


class PolicyError(ValueError):
    """A policy that cannot be accepted: names the field, the value and the accepted range."""

    def __init__(self, field: str, value: object, accepted: str) -> None:
        self.field = field
        self.value = value
        self.accepted = accepted
        super().__init__(f"{field} must be {accepted}, got {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


@dataclass(frozen=True, slots=True)
class Policy:
    """A resolved routing policy: nothing left to default.

    values: of the mode's parameters, in their order. seed: None where no noise is drawn
    and none was given. steering: as the request gave it, {"ban": {layer: [expert, ...]}, ...}.
    trace: what mode `replay` replays.
    """

    mode: str
    values: tuple[Value, ...]
    seed: int | None
    scope: str
    weights: str = "model"
    steering: Mapping[str, Any] | None = None
    trace: Trace | None = None

    def __getitem__(self, name: str) -> Value:
        """The value of a parameter of the mode."""
        names = [parameter.name for parameter in MODES[self.mode].parameters]
        return self.values[names.index(name)]

    def draws_noise(self) -> bool:
        """True if any layer's selection depends on the seed."""
        mode = MODES[self.mode]
        if not mode.draws_noise or "temperature" not in [p.name for p in mode.parameters]:
            return mode.draws_noise
        temperature = self["temperature"]
        return any(temperature) if isinstance(temperature, tuple) else bool(temperature)

    def is_stock(self, spec: RouterSpec) -> bool:
        """True if every token is routed exactly as stock vLLM routes it."""
        return (
            self.mode in ("top_k", "sample")
            and self["top_k"] == spec.top_k
            and not self.draws_noise()
            and self.weights == "model"
            and not self.steering
        )

    def numbers(self, num_layers: int) -> list[list[float]]:
        """[L][P] every layer's value of each parameter; a choice as its index."""
        parameters = MODES[self.mode].parameters
        rows = []
        for layer in range(num_layers):
            row = [v[layer] if isinstance(v, tuple) else v for v in self.values]
            rows.append([_index(p, v) for p, v in zip(parameters, row, strict=True)])
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The JSON form echoed to the client; `parse_policy` of it gives the policy back."""
        out: dict[str, Any] = {"mode": self.mode}
        for parameter, value in zip(MODES[self.mode].parameters, self.values, strict=True):
            out[parameter.name] = list(value) if isinstance(value, tuple) else value
        if self.seed is not None:
            out["seed"] = self.seed
        out["scope"] = self.scope
        if self.weights != "model":
            out["weights"] = self.weights
        if self.trace is not None:
            out["trace"] = self.trace.encode_base64()
        return {**out, **(self.steering or {})}

    def shown(self) -> dict[str, Any]:
        """`as_dict` as the client gets it: a trace is told of, not sent back."""
        out = self.as_dict()
        if self.trace is not None:
            digest = hashlib.sha256(self.trace.encode()).hexdigest()
            out["trace"] = {
                "first_position": self.trace.first_position,
                "tokens": len(self.trace.own),
                "sha256": digest,
            }
        return out


def _index(parameter: Parameter, value: Number) -> float:
    return parameter.choices.index(value) if isinstance(value, str) else value


def parse_policy(raw: object, spec: RouterSpec, *, allow_steering: bool = True) -> Policy:
    """Check a `routing` object against the model and fill in every default.

    A seed is drawn where the policy needs one and none is given.
    allow_steering: whether `ban`, `force` and `bias` are accepted. Banning experts can strip
    a model's refusals (SteerMoE, arXiv 2509.09660), so a server's operator decides.
    Raises PolicyError for an unknown key, a wrong type or a value out of range.
    """
    if not isinstance(raw, Mapping):
        raise PolicyError("routing", raw, "an object such as {'mode': 'sample', 'seed': 7}")
    # An explicit null means what leaving the key out means, as in the OpenAI API.
    given = {key: value for key, value in raw.items() if value is not None}
    mode = MODES[_choice("mode", given.get("mode", "top_k"), tuple(MODES))]
    own = [parameter.name for parameter in mode.parameters]
    known = ("mode", *own, "seed", "scope", "weights")
    known = (*known, "trace") if mode.takes_trace else (*known, *STEERING)
    for key in raw:
        if key not in known:
            others = [m.name for m in MODES.values() if key in [p.name for p in m.parameters]]
            if others:
                accepted = f"left out in mode '{mode.name}'; it belongs to {', '.join(others)}"
                raise PolicyError(f"routing.{key}", raw[key], accepted)
            raise PolicyError("routing", key, f"one of the keys {', '.join(known)}")

    for key in STEERING:
        if key in given and not allow_steering:
            accepted = "left out: this server takes no steering (--allow-request-steering)"
            raise PolicyError(f"routing.{key}", given[key], accepted)
    values = _values(mode, given, spec)
    seed = _integer("seed", given["seed"], 0, MAX_SEED) if "seed" in given else None
    policy = Policy(
        mode.name,
        values,
        seed,
        _choice("scope", given.get("scope", default_scope(mode)), SCOPES),
        _choice("weights", given.get("weights", "model"), WEIGHTS),
        _steering(given, mode, values, spec),
        _trace(given.get("trace"), spec) if mode.takes_trace else None,
    )
    if mode.draws_noise and seed is None:
        policy = replace(policy, seed=secrets.randbelow(MAX_SEED + 1))
    return policy


def default_scope(mode: Mode) -> str:
    """Where a mode is followed unless the request says otherwise."""
    return "all" if mode.takes_trace else "decode"


def _trace(raw: object, spec: RouterSpec) -> Trace:
    """The trace that a request brings, which must be one of this model."""
    if raw is None:
        raise PolicyError("routing.trace", raw, "a trace: mode 'replay' replays one")
    try:
        trace = parse_trace(raw, spec.layers, spec.num_experts)
        check_trace(trace, spec)
    except TraceError as error:
        raise PolicyError("routing.trace", raw, f"a trace of this model: {error}") from None
    return trace


def _values(mode: Mode, given: Mapping[str, object], spec: RouterSpec) -> tuple[Value, ...]:
    """Every parameter of the mode, layer by layer, since ranges and defaults may depend."""
    num_layers = len(spec.layers)
    rows: list[dict[str, Any]] = [{} for _ in range(num_layers)]
    for parameter in mode.parameters:
        asked = given.get(parameter.name)
        listed = isinstance(asked, list | tuple)
        if isinstance(asked, list | tuple) and len(asked) != num_layers:
            accepted = f"a value, or a list of {num_layers} values, one per MoE layer"
            raise PolicyError(f"routing.{parameter.name}", asked, accepted)
        for layer, row in enumerate(rows):
            name = f"{parameter.name}[{layer}]" if listed else parameter.name
            value = asked[layer] if isinstance(asked, list | tuple) else asked
            row[parameter.name] = _value(name, value, parameter, row, spec)
    columns = [tuple(row[parameter.name] for row in rows) for parameter in mode.parameters]
    return tuple(column[0] if len(set(column)) == 1 else column for column in columns)


def _value(
    name: str, value: object, parameter: Parameter, row: Mapping[str, Any], spec: RouterSpec
) -> Number:
    def resolved(bound: float | str) -> float:
        if not isinstance(bound, str):
            return bound
        return float(row[bound]) if bound in row else float(getattr(spec, bound))

    if value is None:
        default = parameter.default
        number = default(spec, row) if callable(default) else resolved(default)
        if parameter.choices:
            return parameter.choices[int(number)]
        # A default never leaves the range that the request's other numbers leave it.
        number = min(max(number, resolved(parameter.low)), resolved(parameter.high))
        return int(number) if parameter.integer else float(number)
    if parameter.choices:
        return _choice(name, value, parameter.choices)
    low, high = resolved(parameter.low), resolved(parameter.high)
    if parameter.integer:
        return _integer(name, value, int(low), int(high))
    return _number(name, value, low, high, low_excluded=parameter.low_excluded)


def _steering(
    given: Mapping[str, object], mode: Mode, values: tuple[Value, ...], spec: RouterSpec
) -> dict[str, Any] | None:
    """`ban`, `force` and `bias`, checked: enough experts stay open, none is both."""
    asked = {key: given[key] for key in STEERING if key in given}
    if not asked:
        return None
    by_layer = steering_by_layer(asked, spec)
    names = [parameter.name for parameter in mode.parameters]
    for row, layer in enumerate(spec.layers):
        numbers: dict[str, Any] = {
            name: value[row] if isinstance(value, tuple) else value
            for name, value in zip(names, values, strict=True)
        }
        chosen = by_layer.get(layer, {}).values()
        banned, forced = sum(v == -math.inf for v in chosen), sum(v == math.inf for v in chosen)
        most = int(numbers.get(mode.most, spec.max_top_k))
        least = int(numbers.get(mode.least, 1))
        if banned > spec.num_experts - most:
            accepted = f"at most {spec.num_experts - most} of layer {layer}'s experts"
            raise PolicyError("routing.ban", banned, accepted)
        if forced > least:
            raise PolicyError(
                "routing.force", forced, f"at most {least} of layer {layer}'s experts"
            )
    return asked


def steering_by_layer(asked: Mapping[str, Any], spec: RouterSpec) -> Steering:
    """What steering adds to the logits of the choice; -inf bans, +inf forces.

    asked: {"ban": {layer: [expert, ...]}, "force": the same, "bias": {layer: {expert: number}}};
    a layer is a decoder layer's index, or "*" for every MoE layer; in JSON, keys are strings.
    Raises PolicyError.
    """
    found: Steering = {}
    for key in STEERING:
        for name, layers, experts in _steered_layers(key, asked.get(key, {}), spec):
            if key == "bias":
                if not isinstance(experts, Mapping):
                    raise PolicyError(name, experts, "an object {expert: number}")
                numbers = {
                    _expert(name, e, spec): _number(f"{name[8:]}.{e}", number, -MAX_BIAS, MAX_BIAS)
                    for e, number in experts.items()
                }
            else:
                if not isinstance(experts, list | tuple):
                    raise PolicyError(name, experts, "a list of experts")
                infinity = -math.inf if key == "ban" else math.inf
                numbers = {_expert(name, e, spec): infinity for e in experts}
            for layer in layers:
                known = found.setdefault(layer, {})
                for expert in numbers.keys() & known.keys():
                    if math.isinf(known[expert]) and known[expert] != numbers[expert]:
                        raise PolicyError(name, expert, "an expert not steered otherwise too")
                known.update(numbers)
    return found


def _steered_layers(
    key: str, asked: object, spec: RouterSpec
) -> Iterator[tuple[str, tuple[int, ...], object]]:
    if not isinstance(asked, Mapping):
        raise PolicyError(f"routing.{key}", asked, "an object {layer: experts}")
    for layer, experts in asked.items():
        if layer == "*":
            yield f"routing.{key}.*", spec.layers, experts
            continue
        number = _whole(layer)
        if number not in spec.layers:
            accepted = f"an MoE layer ({_span(spec.layers)}) or '*'"
            raise PolicyError(f"routing.{key}", layer, accepted)
        yield f"routing.{key}.{number}", (number,), experts


def _expert(name: str, value: object, spec: RouterSpec) -> int:
    number = _whole(value)
    if number is None or number >= spec.num_experts:
        raise PolicyError(name, value, f"experts from 0 to {spec.num_experts - 1}")
    return number


def _whole(value: object) -> int | None:
    """A whole number, also as the string that a JSON key must be; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _span(layers: tuple[int, ...]) -> str:
    consecutive = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if consecutive else ", ".join(map(str, layers))


def _choice(key: str, value: object, accepted: Sequence[str]) -> str:
    if isinstance(value, str) and value in accepted:
        return value
    raise PolicyError(f"routing.{key}", value, " or ".join(f"'{a}'" for a in accepted))


def _integer(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise PolicyError(f"routing.{key}", value, f"an integer from {low} to {high}")


def _number(
    key: str, value: object, low: float, high: float, *, low_excluded: bool = False
) -> float:
    accepted = f"a number {'above' if low_excluded else 'from'} {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"routing.{key}", value, accepted)
    if not low <= value <= high or (low_excluded and value == low):  # NaN is in no range
        raise PolicyError(f"routing.{key}", value, accepted)
    return float(value)
