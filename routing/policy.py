"""What a request may ask of the router: one frozen `Policy`, parsed and checked here.

Owns the names, ranges and defaults of the `routing` field. Knows nothing of HTTP,
tensors or vLLM.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

MODES: Final = ("top_k", "sample")
SCOPES: Final = ("decode", "all")
MAX_SEED: Final = 2**63 - 1
MAX_TEMPERATURE: Final = 10.0


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
class RouterSpec:
    """The routers of one loaded model.

    layers: decoder layer index, as in the checkpoint, of each of the L MoE layers.
    num_experts: E, the same in every layer.
    top_k: K, the model's own number of experts per token.
    max_top_k: the server's `--max-experts-per-token`; K <= max_top_k <= E.
    """

    layers: tuple[int, ...]
    num_experts: int
    top_k: int
    max_top_k: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form; `from_dict` gives the spec back."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RouterSpec:
        """The inverse of `as_dict`."""
        return cls(**{**fields, "layers": tuple(fields["layers"])})


@dataclass(frozen=True, slots=True)
class Policy:
    """A resolved routing policy: nothing left to default.

    temperature: one number for every layer, or one per MoE layer in order; unused and
    0.0 in mode `top_k`. seed: None where no noise is drawn and none was given.
    """

    mode: str
    top_k: int
    temperature: float | tuple[float, ...]
    seed: int | None
    scope: str

    def draws_noise(self) -> bool:
        """True if any layer's selection depends on the seed."""
        if self.mode != "sample":
            return False
        temperature = self.temperature
        return any(temperature) if isinstance(temperature, tuple) else temperature > 0

    def is_stock(self, spec: RouterSpec) -> bool:
        """True if every token is routed exactly as stock vLLM routes it."""
        return self.top_k == spec.top_k and not self.draws_noise()

    def temperatures(self, num_layers: int) -> tuple[float, ...]:
        """[L] one temperature per MoE layer."""
        if isinstance(self.temperature, tuple):
            return self.temperature
        return (self.temperature,) * num_layers

    def as_dict(self) -> dict[str, Any]:
        """The JSON form echoed to the client; `parse_policy` of it gives the policy back."""
        out: dict[str, Any] = {"mode": self.mode, "top_k": self.top_k}
        if self.mode == "sample":
            t = self.temperature
            out["temperature"] = list(t) if isinstance(t, tuple) else t
        if self.seed is not None:
            out["seed"] = self.seed
        out["scope"] = self.scope
        return out


def parse_policy(raw: object, spec: RouterSpec) -> Policy:
    """Check a `routing` object against the model and fill in every default.

    A seed is drawn where the policy needs one and none is given.
    Raises PolicyError for an unknown key, a wrong type or a value out of range.
    """
    if not isinstance(raw, Mapping):
        raise PolicyError("routing", raw, "an object such as {'mode': 'sample', 'seed': 7}")
    known = ("mode", "top_k", "temperature", "seed", "scope")
    for key in raw:
        if key not in known:
            accepted = f"one of the keys {', '.join(known)}"
            raise PolicyError("routing", key, accepted)
    # An explicit null means what leaving the key out means, as in the OpenAI API.
    given = {key: value for key, value in raw.items() if value is not None}

    mode = _choice("mode", given.get("mode", "top_k"), MODES)
    if mode != "sample" and "temperature" in given:
        raise PolicyError("routing.temperature", given["temperature"], f"left out in mode '{mode}'")
    top_k = _integer("top_k", given.get("top_k", spec.top_k), 1, spec.max_top_k)
    seed = _integer("seed", given["seed"], 0, MAX_SEED) if "seed" in given else None
    scope = _choice("scope", given.get("scope", "decode"), SCOPES)
    temperature: float | tuple[float, ...] = 0.0
    if mode == "sample":
        temperature = _temperature(given.get("temperature", 1.0), len(spec.layers))
    policy = Policy(mode, top_k, temperature, seed, scope)
    if mode == "sample" and seed is None:
        policy = Policy(mode, top_k, temperature, secrets.randbelow(MAX_SEED + 1), scope)
    return policy


def _choice(key: str, value: object, accepted: tuple[str, ...]) -> str:
    if isinstance(value, str) and value in accepted:
        return value
    raise PolicyError(f"routing.{key}", value, " or ".join(f"'{a}'" for a in accepted))


def _integer(key: str, value: object, low: int, high: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise PolicyError(f"routing.{key}", value, f"an integer from {low} to {high}")


def _temperature(value: object, num_layers: int) -> float | tuple[float, ...]:
    if isinstance(value, list | tuple):
        if len(value) != num_layers:
            accepted = f"a number, or a list of {num_layers} numbers, one per MoE layer"
            raise PolicyError("routing.temperature", value, accepted)
        numbers = tuple(_number(f"temperature[{i}]", v) for i, v in enumerate(value))
        return numbers[0] if len(set(numbers)) == 1 else numbers
    return _number("temperature", value)


def _number(key: str, value: object) -> float:
    accepted = f"a number from 0 to {MAX_TEMPERATURE:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"routing.{key}", value, accepted)
    if not 0 <= value <= MAX_TEMPERATURE:  # NaN is in no range
        raise PolicyError(f"routing.{key}", value, accepted)
    return float(value)


def derive_seed(seed: int, choice: int) -> int:
    """The routing seed of choice number `choice` of a request, in 0 .. 2^63-1.

    Choice 0 keeps the request's seed, so that a request with n = 1 equals the first
    choice of the same request with n > 1. The others take the splitmix64 finalizer
    (Steele et al., OOPSLA 2014) of seed + choice * golden ratio: neighbouring seeds'
    children do not meet.
    """
    if choice == 0:
        return seed
    mask = 2**64 - 1
    z = (seed + choice * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) & MAX_SEED
