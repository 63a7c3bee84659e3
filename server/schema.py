"""The `routing` object in JSON Schema: for the OpenAPI page, and exact for one model.

It describes; the rules themselves are `parse_policy`'s.
"""

from __future__ import annotations

from typing import Any, Final

from routing.modes import MODES
from routing.modes.mode import Mode, Parameter
from routing.policy import MAX_BIAS, SCOPES, default_scope, parse_policy
from routing.record import INCLUDE
from routing.rule import WEIGHTS
from routing.seed import MAX_SEED
from routing.spec import RouterSpec
from routing.trace import FOREIGN_DTYPES

Schema = dict[str, Any]


def mode_schema(mode: Mode, spec: RouterSpec | None = None) -> Schema:
    """A policy of that mode; with a spec, ranges and defaults are the model's.

    A bound that another key of the same request sets is here as wide as that key may be.
    """
    defaults: dict[str, Any] = {}
    if spec is not None and not mode.takes_trace:
        defaults = parse_policy({"mode": mode.name}, spec).as_dict()
    parameters = {}
    for parameter in mode.parameters:
        schema = parameters[parameter.name] = _parameter_schema(parameter, mode, spec)
        if parameter.name in defaults:
            schema["default"] = defaults[parameter.name]
    required = [] if mode.name == "top_k" else ["mode"]
    properties = {"mode": {"const": mode.name}, **parameters, **_common(mode)}
    return {
        "type": "object",
        "title": mode.name,
        "description": mode.meaning,
        "additionalProperties": False,
        "required": [*required, "trace"] if mode.takes_trace else required,
        "properties": properties | (_TRACE if mode.takes_trace else _steering(spec)),
    }


def _parameter_schema(parameter: Parameter, mode: Mode, spec: RouterSpec | None) -> Schema:
    if parameter.choices:
        return {"enum": list(parameter.choices), "description": parameter.meaning}
    one: Schema = {"type": "integer" if parameter.integer else "number"}
    for key, bound in (("minimum", parameter.low), ("maximum", parameter.high)):
        number = _widest(bound, key, parameter, mode, spec)
        if number is not None:
            one["exclusiveMinimum" if key == "minimum" and parameter.low_excluded else key] = number
    listed: Schema = {"type": "array", "items": one}
    if spec is not None:
        listed["minItems"] = listed["maxItems"] = len(spec.layers)
    own = [p.name for p in mode.parameters]
    bounds = {"at least": parameter.low, "at most": parameter.high}
    limits = [f"{words} the request's {bound}" for words, bound in bounds.items() if bound in own]
    return {
        "anyOf": [one, listed],
        "description": "; ".join([parameter.meaning, *limits]),
    }


def _widest(
    bound: float | str, key: str, parameter: Parameter, mode: Mode, spec: RouterSpec | None
) -> float | None:
    """A bound as a number; that of the parameter it names; None if only a model could tell."""
    if not isinstance(bound, str):
        return bound
    earlier = mode.parameters[: mode.parameters.index(parameter)]
    for other in earlier:
        if other.name == bound:
            return _widest(other.low if key == "minimum" else other.high, key, other, mode, spec)
    return None if spec is None else getattr(spec, bound)


def _common(mode: Mode) -> Schema:
    """The keys of every mode."""
    included: Schema = {"type": "array", "items": {"enum": list(INCLUDE)}}
    return {
        "seed": {"type": "integer", "minimum": 0, "maximum": MAX_SEED},
        "scope": {"enum": list(SCOPES), "default": default_scope(mode)},
        "weights": {"enum": list(WEIGHTS), "default": WEIGHTS[0]},
        "include": {**included, "description": "what the answer carries about the routing"},
    }


def _steering(spec: RouterSpec | None) -> Schema:
    """The keys of every mode that may be steered."""
    expert: Schema = {"type": "integer", "minimum": 0}
    layers: Schema = {}
    if spec is not None:
        expert["maximum"] = spec.num_experts - 1
        layers["propertyNames"] = {"enum": ["*", *map(str, spec.layers)]}
    experts: Schema = {"type": "object", **layers}
    experts["additionalProperties"] = {"type": "array", "items": expert}
    added: Schema = {"type": "number", "minimum": -MAX_BIAS, "maximum": MAX_BIAS}
    biases: Schema = {"type": "object", **layers}
    biases["additionalProperties"] = {"type": "object", "additionalProperties": added}
    return {
        "ban": {**experts, "description": "{layer or '*': [expert, ...]}: never these"},
        "force": {**experts, "description": "{layer or '*': [expert, ...]}: always these"},
        "bias": {**biases, "description": "{layer or '*': {expert: added to its logit}}"},
    }


_TRACE: Final[Schema] = {
    "trace": {
        "description": "what a response's routing.trace[].data holds, or other systems' arrays",
        "anyOf": [
            {"type": "string", "contentEncoding": "base64"},
            {
                "type": "object",
                "additionalProperties": False,
                "required": ["data", "shape"],
                "properties": {
                    "data": {"type": "string", "contentEncoding": "base64"},
                    "dtype": {"enum": list(FOREIGN_DTYPES), "default": "int32"},
                    "shape": {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 1},
                        "minItems": 3,
                        "maxItems": 3,
                        "description": "tokens, layers, top-k",
                    },
                    "first_position": {"type": "integer", "minimum": 0, "default": 0},
                },
            },
        ],
    }
}


ROUTING: Final[Schema] = {
    "anyOf": [
        {"type": "string", "description": "a preset's name"},
        *(mode_schema(mode) for mode in MODES.values()),
    ],
    "examples": [{"mode": "sample", "temperature": 0.7, "seed": 7}, "balanced"],
}
