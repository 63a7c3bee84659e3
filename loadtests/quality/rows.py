"""The policies that are compared, in the order of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from routing.policy.presets import Presets

DEMO, CONTROL = "demo", "control"
MAX_EXPERTS: Final = 8
OWN: Final = "top_k"


@dataclass(frozen=True)
class Row:
    """A way of asking one checkpoint.

    routing: the policy. preset: its name, if a preset's: then the model's name chooses it, and the
    request does not state it. token_temperature: of the sampling of tokens, 0 is greedy.
    draws: whether answers to the same question may differ.
    """

    name: str
    checkpoint: str
    routing: Mapping[str, Any]
    preset: str = ""
    token_temperature: float = 0.0
    draws: bool = False

    @property
    def key(self) -> str:
        """Unique among the rows."""
        return f"{self.checkpoint} {self.name}"


def all_rows(presets: Path, *, control: bool) -> list[Row]:
    """Every row: policies on the demo model, its presets, then the control's."""
    found = [_top_k(DEMO, k) for k in (4, 1, 2, 3, 6, 8)]
    for scope in ("decode", "all"):
        found += [_sample(DEMO, t, scope) for t in (0.3, 0.5, 0.7, 1.0, 1.5)]
        found += [_sample(DEMO, t, scope, "request") for t in (1.0, 1.5)]
        found += [_drawn(DEMO, mode, scope) for mode in ("head_sample", "uniform")]
    found += [Row(f"tokens at T={t:g}", DEMO, {"mode": OWN}, "", t, draws=True) for t in (0.5, 1.0)]
    found += _preset_rows(presets)
    if control:
        found += [_top_k(CONTROL, k) for k in (4, 1, 2, 3)]
        found += [_sample(CONTROL, t, "all") for t in (0.3, 0.5, 0.7, 1.0, 1.5)]
        found += [_drawn(CONTROL, "uniform", "all")]
    return found


def _top_k(checkpoint: str, k: int) -> Row:
    own = k == 4
    routing = {"mode": OWN} if own else {"mode": OWN, "top_k": k, "scope": "all"}
    return Row(OWN if own else f"{OWN} {k}", checkpoint, routing)


def _sample(checkpoint: str, temperature: float, scope: str, noise: str = "token") -> Row:
    routing = {"mode": "sample", "temperature": temperature, "scope": scope}
    name = f"sample {temperature:g}, {scope}"
    if noise == "request":
        name, routing["noise"] = f"{name}, one draw", noise
    return Row(name, checkpoint, routing, draws=True)


def _drawn(checkpoint: str, mode: str, scope: str) -> Row:
    return Row(f"{mode}, {scope}", checkpoint, {"mode": mode, "scope": scope}, draws=True)


def _preset_rows(presets: Path) -> list[Row]:
    return [
        Row(f"preset {p.name}", DEMO, p.routing, p.name, draws=p.routing["mode"] != OWN)
        for p in Presets.read(presets).named.values()
    ]
