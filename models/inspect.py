"""What `galton inspect` says of a checkpoint: one dictionary of facts, as JSON or as a table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from models.checkpoint import Checkpoint
from routing.policy.keys import Key
from routing.policy.modes import MODES
from routing.spec import RouterSpec

Facts = dict[str, Any]


class LimitError(ValueError):
    """A limit of experts per token that the model cannot have."""


def facts_of(
    checkpoint: Checkpoint, max_experts_per_token: int | None, metrics_level: Callable[[int], str]
) -> Facts:
    """Everything known, with JSON's types; what is unknown is None.

    max_experts_per_token: as for `galton serve`; None: native top-k. metrics_level: number of
    (layer, expert) pairs -> "full" or "layer", what is exported of them unless asked otherwise.
    Raises LimitError if the model has not that many experts or its native top-k is above it.
    """
    spec = checkpoint.spec
    most = spec.top_k if max_experts_per_token is None else max_experts_per_token
    if not spec.top_k <= most <= spec.num_experts:
        raise LimitError(
            f"--max-experts-per-token must be from {spec.top_k} (the model's own top-k) to "
            f"{spec.num_experts} (its experts), got {most}"
        )
    free = tuple(layer for layer in spec.layers if layer not in spec.uncontrolled)
    num_series = len(spec.layers) * spec.num_experts
    level = metrics_level(num_series)
    router = RouterSpec(spec.layers, spec.num_experts, spec.top_k, most)
    notes = [*spec.notes, *checkpoint.notes]
    if spec.uncontrolled:
        notes.append("`galton serve` refuses a model with a layer that it cannot control.")
    if spec.num_zero_experts:
        notes.append("A token uses fewer parameters for every zero expert it is routed to.")
    return {
        "model": checkpoint.model,
        "architecture": spec.architecture,
        "num_layers": spec.num_layers,
        "moe_layers": list(spec.layers),
        "num_experts": spec.num_experts,
        "num_zero_experts": spec.num_zero_experts,
        "num_shared_experts": spec.num_shared_experts,
        "top_k": spec.top_k,
        "max_experts_per_token": most,
        "router": {
            "scoring": spec.rule.scoring,
            "renormalize": spec.rule.renormalize,
            "scaling_factor": spec.rule.scaling_factor,
            "num_groups": spec.rule.num_groups,
            "topk_groups": spec.rule.topk_groups,
            "correction_bias": spec.has_correction_bias,
        },
        "parameters": {
            "total": checkpoint.num_parameters,
            "active_per_token": checkpoint.num_active_parameters(spec.top_k),
            "active_per_token_at_most": checkpoint.num_active_parameters(most),
        },
        "memory": {
            "dtype": checkpoint.dtype,
            "quantization": checkpoint.quantization,
            "weights_bytes": checkpoint.weights_bytes,
            "kv_cache_bytes_per_token": checkpoint.cache_bytes_per_token,
        },
        "expert_metrics": {
            "num_series": num_series,
            "auto": level,
            "num_exported": num_series if level == "full" else len(spec.layers),
        },
        "layers": [
            {
                "layer": layer,
                "modes": list(MODES) if layer in free else [],
                "uncontrolled": spec.uncontrolled.get(layer),
            }
            for layer in spec.layers
        ],
        "modes": {
            name: {"meaning": mode.meaning, "parameters": _ranges(mode.parameters, router)}
            for name, mode in MODES.items()
            if free
        },
        "notes": notes,
    }


def _ranges(parameters: tuple[Key, ...], router: RouterSpec) -> dict[str, str]:
    """Parameter -> what it accepts; a bound may be another parameter's name."""

    names = [parameter.name for parameter in parameters]

    def bound(value: float | str) -> str:
        if value in names:  # the request's own, which wins over the model's of that name
            return str(value)
        return str(getattr(router, value)) if isinstance(value, str) else f"{value:g}"

    return {
        p.name: " or ".join(p.choices)
        or f"{'above' if p.low_excluded else 'from'} {bound(p.low)} to {bound(p.high)}"
        for p in parameters
    }


def print_table(facts: Facts) -> None:
    """The same facts for people, on stdout."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows_of(facts):
        table.add_row(name, text)
    # A pipe has no width: nothing is wrapped there.
    width = None if sys.stdout.isatty() else 10_000
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def rows_of(facts: Facts) -> list[tuple[str, str]]:
    """The rows of the table: a name and a text each."""
    parameters, memory, metrics = facts["parameters"], facts["memory"], facts["expert_metrics"]
    rows = [
        ("model", facts["model"]),
        ("architecture", facts["architecture"]),
        ("MoE layers", f"{len(facts['moe_layers'])} of {facts['num_layers']}: "
            f"{span(facts['moe_layers'])}"),
        ("experts per layer", _experts(facts)),
        ("experts per token", _per_token(facts)),
        ("router", _rule(facts["router"])),
        ("parameters", _count(parameters["total"])),
        ("active per token", _active(facts)),
        ("weights", f"{_bytes(memory['weights_bytes'])} ({memory['dtype']}"
            f"{', ' + memory['quantization'] if memory['quantization'] else ''})"),
        ("KV cache per token", _bytes(memory["kv_cache_bytes_per_token"])),
        ("expert series", f"{metrics['num_series']:,}"
            + ("" if metrics["auto"] == "full" else f"; {metrics['num_exported']:,} by default: "
               "sums per layer")),
    ]  # fmt: skip
    for index, (group, layers) in enumerate(_grouped(facts["layers"]).items()):
        modes, reason = group
        text = ", ".join(modes) if modes else f"none: {reason}"
        rows.append(("" if index else "modes", f"layers {span(layers)}: {text}"))
    for name, mode in facts["modes"].items():
        ranges = "; ".join(f"{p} {accepted}" for p, accepted in mode["parameters"].items())
        rows.append((f"  {name}", f"{mode['meaning']} {ranges}".rstrip()))
    return [*rows, *(("note", note) for note in facts["notes"])]


def span(layers: list[int]) -> str:
    """Ascending numbers, neighbors joined: "0, 3-7, 9"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _grouped(layers: list[Facts]) -> dict[tuple[tuple[str, ...], str | None], list[int]]:
    """(modes, reason) -> the layers that share them."""
    groups: dict[tuple[tuple[str, ...], str | None], list[int]] = {}
    for layer in layers:
        key = (tuple(layer["modes"]), layer["uncontrolled"])
        groups.setdefault(key, []).append(layer["layer"])
    return groups


def _experts(facts: Facts) -> str:
    text = str(facts["num_experts"])
    if facts["num_zero_experts"]:
        text += f", {facts['num_zero_experts']} zero experts"
    return text + (f", {facts['num_shared_experts']} shared" if facts["num_shared_experts"] else "")


def _per_token(facts: Facts) -> str:
    most = facts["max_experts_per_token"]
    return str(facts["top_k"]) + (f", at most {most}" if most > facts["top_k"] else "")


def _active(facts: Facts) -> str:
    parameters = facts["parameters"]
    text = _count(parameters["active_per_token"])
    if facts["max_experts_per_token"] > facts["top_k"]:
        text += f", at most {_count(parameters['active_per_token_at_most'])}"
    return text


def _rule(router: Facts) -> str:
    parts = [router["scoring"], "renormalized" if router["renormalize"] else "not renormalized"]
    if router["num_groups"] > 1:
        parts.append(f"{router['topk_groups']} of {router['num_groups']} groups")
    if router["correction_bias"]:
        parts.append("correction bias")
    if router["scaling_factor"] != 1:
        parts.append(f"weights times {router['scaling_factor']:g}")
    return ", ".join(parts)


def _count(number: int | None) -> str:
    if number is None:
        return "unknown"
    for size, unit in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number:,} ({number / size:.1f} {unit})"
    return f"{number:,}"


def _bytes(number: int | None) -> str:
    if number is None:
        return "unknown"
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if number >= size:
            return f"{number:,} bytes ({number / size:.1f} {unit})"
    return f"{number:,} bytes"
