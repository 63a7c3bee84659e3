"""The `routing` object in JSON Schema: for the OpenAPI page, and exact for one model.

It describes the table of keys; the rules themselves are `parse_policy`'s.
"""

from __future__ import annotations

from typing import Any, Final

from routing.policy.keys import FOREIGN_DTYPES, INCLUDE_KEY, Key, Type
from routing.policy.modes import DEFAULT_MODE, MODES, Mode
from routing.policy.policy import parse_policy
from routing.spec import RouterSpec

Schema = dict[str, Any]


def mode_schema(mode: Mode, spec: RouterSpec | None = None) -> Schema:
    """A policy of that mode; with a spec, ranges and defaults are the model's.

    A bound that another key of the same request sets is here as wide as that key may be.
    """
    defaults: dict[str, Any] = {"scope": mode.default_scope}
    if spec is not None and not mode.takes_trace:
        defaults |= parse_policy({"mode": mode.name}, spec).as_dict()
    properties: Schema = {"mode": {"const": mode.name}}
    for key in (*mode.keys, INCLUDE_KEY):
        schema = properties[key.name] = _key_schema(key, mode, spec)
        if key in mode.parameters and spec is None:
            continue  # the model's own
        default = defaults.get(key.name, key.default)
        if default is not None and key.name != "seed":
            schema["default"] = default
    required = [] if mode.name == DEFAULT_MODE else ["mode"]
    return {
        "type": "object",
        "title": mode.name,
        "description": mode.meaning,
        "additionalProperties": False,
        "required": [*required, "trace"] if mode.takes_trace else required,
        "properties": properties,
    }


def _key_schema(key: Key, mode: Mode, spec: RouterSpec | None) -> Schema:
    schema: Schema
    match key.type:
        case Type.INTEGER | Type.NUMBER:
            schema = _number_schema(key, mode, spec)
        case Type.CHOICE:
            schema = {"enum": list(key.choices)}
        case Type.CHOICES:
            schema = {"type": "array", "items": {"enum": list(key.choices)}}
        case Type.EXPERTS:
            experts: Schema = {"type": "array", "items": _expert_schema(spec)}
            schema = {"type": "object", **_layers(spec), "additionalProperties": experts}
        case Type.BIASES:
            biases: Schema = {
                "type": "object",
                "additionalProperties": _number_schema(key, mode, spec),
            }
            schema = {"type": "object", **_layers(spec), "additionalProperties": biases}
        case Type.TRACE:
            schema = {"anyOf": [{"type": "string", "contentEncoding": "base64"}, _FOREIGN_TRACE]}
    if key.per_layer:
        listed: Schema = {"type": "array", "items": schema}
        if spec is not None:
            listed["minItems"] = listed["maxItems"] = len(spec.layers)
        schema = {"anyOf": [schema, listed]}
    return {**schema, "description": _description(key, mode)}


def _description(key: Key, mode: Mode) -> str:
    """The meaning, and which of the request's other keys bound it."""
    own = [parameter.name for parameter in mode.parameters]
    bounds = {"at least": key.low, "at most": key.high}
    limits = [f"{words} the request's {bound}" for words, bound in bounds.items() if bound in own]
    form = f"{key.type.value}: " if key.type in (Type.EXPERTS, Type.BIASES) else ""
    return form + "; ".join([key.meaning, *limits])


def _number_schema(key: Key, mode: Mode, spec: RouterSpec | None) -> Schema:
    schema: Schema = {"type": "integer" if key.type is Type.INTEGER else "number"}
    for name, bound in (("minimum", key.low), ("maximum", key.high)):
        number = _widest(bound, name, key, mode, spec)
        if number is not None:
            schema["exclusiveMinimum" if name == "minimum" and key.low_excluded else name] = number
    return schema


def _widest(
    bound: float | str, name: str, key: Key, mode: Mode, spec: RouterSpec | None
) -> float | None:
    """A bound as a number; that of the key it names; None if only a model could tell."""
    if not isinstance(bound, str):
        return bound
    for earlier in mode.parameters[: mode.parameters.index(key)]:
        if earlier.name == bound:
            outer = earlier.low if name == "minimum" else earlier.high
            return _widest(outer, name, earlier, mode, spec)
    return None if spec is None else getattr(spec, bound)


def _expert_schema(spec: RouterSpec | None) -> Schema:
    schema: Schema = {"type": "integer", "minimum": 0}
    return schema if spec is None else {**schema, "maximum": spec.num_experts - 1}


def _layers(spec: RouterSpec | None) -> Schema:
    return {} if spec is None else {"propertyNames": {"enum": ["*", *map(str, spec.layers)]}}


_FOREIGN_TRACE: Final[Schema] = {
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
}

ROUTING: Final[Schema] = {
    "anyOf": [
        {"type": "string", "description": "a preset's name"},
        *(mode_schema(mode) for mode in MODES.values()),
    ],
    "examples": [{"mode": "sample", "temperature": 0.7, "seed": 7}, "balanced"],
}
