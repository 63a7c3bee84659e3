"""What an engine has counted, of all its workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Counts:
    """assignments: {layer: [E]} (token, expert) pairs. routed_tokens: {(mode, phase): tokens}."""

    assignments: dict[int, list[int]] = field(default_factory=dict)
    routed_tokens: dict[tuple[str, str], int] = field(default_factory=dict)


def merge(workers: Iterable[Mapping[str, Any]]) -> Counts:
    """The sum over workers, each of which counts what no other of its replica does.

    Pipeline stages hold different layers, data-parallel replicas the same ones.
    workers: `galton_counts` of each.
    """
    counts = Counts()
    for worker in workers:
        for layer, row in worker["assignments"].items():
            known = counts.assignments.get(layer, [0] * len(row))
            counts.assignments[layer] = [a + b for a, b in zip(known, row, strict=True)]
        for mode, phases in worker["routed_tokens"].items():
            for phase, tokens in phases.items():
                key = (mode, phase)
                counts.routed_tokens[key] = counts.routed_tokens.get(key, 0) + tokens
    return counts
