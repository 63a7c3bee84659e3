"""Steering: `ban`, `force` and `bias` of a request, as one number for each expert they name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from routing.policy.error import PolicyError, check_number
from routing.policy.keys import BIAS, MAX_BIAS, STEERING
from routing.policy.modes import Mode
from routing.spec import RouterSpec

Biases = Mapping[int, Mapping[int, float]]  # layer -> expert -> bias
# What is added to an expert's logit by each key that takes experts alone.
_INFINITE: Final = {"ban": -math.inf, "force": math.inf}


@dataclass(frozen=True, slots=True)
class Steering:
    """requested: the keys as the request gave them, for the echo.

    biases: what they add to the logits of the choice; -inf bans, +inf forces.
    """

    requested: Mapping[str, Any]
    biases: Biases

    def dense(self, layer: int, num_experts: int) -> list[float]:
        """[E] what is added to each expert's logit at a layer."""
        row = [0.0] * num_experts
        for expert, bias in self.biases.get(layer, {}).items():
            row[expert] = bias
        return row


def parse_steering(
    requested: Mapping[str, object],
    mode: Mode,
    parameters: Sequence[Mapping[str, Any]],
    spec: RouterSpec,
) -> Steering | None:
    """The steering of a `routing` object, checked: enough experts stay open, none is both.

    A layer is a decoder layer's index, or "*" for every MoE layer; in JSON, keys are strings.
    parameters: [L] the mode's, by layer. None without steering. Raises PolicyError.
    """
    steering = {key.name: requested[key.name] for key in STEERING if key.name in requested}
    if not steering:
        return None
    biases = _biases(steering, spec)
    for layer, numbers in zip(spec.layers, parameters, strict=True):
        steered = biases.get(layer, {}).values()
        banned, forced = sum(v == -math.inf for v in steered), sum(v == math.inf for v in steered)
        most = spec.num_experts - int(numbers.get(mode.most, spec.max_top_k))
        least = int(numbers.get(mode.least, 1))
        if banned > most:
            raise PolicyError("routing.ban", banned, f"at most {most} of layer {layer}'s experts")
        if forced > least:
            accepted = f"at most {least} of layer {layer}'s experts"
            raise PolicyError("routing.force", forced, accepted)
    return Steering(steering, biases)


def _biases(steering: Mapping[str, Any], spec: RouterSpec) -> Biases:
    biases: dict[int, dict[int, float]] = {}
    for key, requested in steering.items():
        for name, layers, experts in _steered_layers(key, requested, spec):
            numbers = _numbers(key, name, experts, spec)
            for layer in layers:
                known = biases.setdefault(layer, {})
                for expert in numbers.keys() & known.keys():
                    if math.isinf(known[expert]) and known[expert] != numbers[expert]:
                        raise PolicyError(name, expert, "an expert not steered otherwise too")
                known.update(numbers)
    return biases


def _steered_layers(
    key: str, requested: object, spec: RouterSpec
) -> Iterator[tuple[str, tuple[int, ...], object]]:
    """For each entry, its name in messages, the layers that it steers, and their experts."""
    if not isinstance(requested, Mapping):
        raise PolicyError(f"routing.{key}", requested, "an object {layer: experts}")
    for layer, experts in requested.items():
        if layer == "*":
            yield f"routing.{key}.*", spec.layers, experts
            continue
        number = _whole(layer)
        if number not in spec.layers:
            accepted = f"an MoE layer ({_span(spec.layers)}) or '*'"
            raise PolicyError(f"routing.{key}", layer, accepted)
        yield f"routing.{key}.{number}", (number,), experts


def _numbers(key: str, name: str, experts: object, spec: RouterSpec) -> dict[int, float]:
    """Expert -> what is added to its logit."""
    if key == BIAS.name:
        if not isinstance(experts, Mapping):
            raise PolicyError(name, experts, "an object {expert: number}")
        path = name.removeprefix("routing.")
        return {
            _expert(name, expert, spec): check_number(f"{path}.{expert}", n, -MAX_BIAS, MAX_BIAS)
            for expert, n in experts.items()
        }
    if not isinstance(experts, list | tuple):
        raise PolicyError(name, experts, "a list of experts")
    return {_expert(name, expert, spec): _INFINITE[key] for expert in experts}


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
