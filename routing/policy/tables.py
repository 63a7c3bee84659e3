"""The table of keys as Markdown, for documents: `cog` puts it into routing/README.md."""

from __future__ import annotations

from routing.policy.keys import (
    BIAS,
    INCLUDE_KEY,
    NOISE,
    SCOPE,
    SEED,
    STEERING,
    TRACE,
    WEIGHTS_KEY,
    Derived,
    Key,
    Type,
)
from routing.policy.modes import MODES

# Fields of the `RouterSpec` that bounds and defaults name.
_LETTERS = {"top_k": "K", "max_top_k": "M", "num_experts": "E"}


def modes_table() -> str:
    """A row per mode: its own keys and what it chooses."""
    rows = ["| `mode` | its own keys: range (default) | which experts |", "|---|---|---|"]
    for mode in MODES.values():
        keys = (TRACE,) if mode.takes_trace else mode.parameters
        names = [key.name for key in keys]
        cells = [f"`{key.name}`{_range(key, names)}" for key in keys]
        rows.append(f"| `{mode.name}` | {', '.join(cells)} | {mode.meaning} |")
    return "\n".join(rows)


def common_keys_table() -> str:
    """A row per key that belongs to no mode alone."""
    rows = ["| key | values (default) | meaning |", "|---|---|---|"]
    for key in (SEED, NOISE, SCOPE, WEIGHTS_KEY, *STEERING, INCLUDE_KEY):
        rows.append(f"| `{key.name}` | {_values(key)} | {key.meaning} |")
    return "\n".join(rows)


def _range(key: Key, names: list[str]) -> str:
    if key.type is Type.TRACE:
        return ""
    if key.type is Type.CHOICE:
        return f" {' or '.join(f'`{choice}`' for choice in key.choices)} (`{key.default}`)"
    opening = "above " if key.low_excluded else ""
    low, high = _bound(key.low, key, names), _bound(key.high, key, names)
    default = key.default
    shown = default.text if isinstance(default, Derived) else _bound(default or 0, key, names)
    return f" {opening}{low} to {high} ({shown})"


def _bound(bound: float | str, key: Key, names: list[str]) -> str:
    """A number; or the name of an earlier key of the mode; or of the model's number."""
    if not isinstance(bound, str):
        return f"{bound:g}"
    return f"`{bound}`" if bound in names[: names.index(key.name)] else _LETTERS[bound]


def _values(key: Key) -> str:
    if key.type in (Type.CHOICE, Type.CHOICES):
        shown = ", ".join(f"`{choice}`" for choice in key.choices)
        return f"{shown} (`{key.default}`)" if key.default else f"list of {shown}"
    if key is SEED:
        return "0 to 2^63 - 1"
    bounds = f", {key.low:g} to {key.high:g}" if key is BIAS else ""
    return f"`{key.type.value}`{bounds}"
