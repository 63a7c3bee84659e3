"""Galton's own settings: every name, default, range and help text, once.

A flag and a `GALTON_*` variable derive from each field; a flag wins. Everything else
about the server is vLLM's and is set by vLLM's flags.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

EXPERT_METRICS = ("auto", "full", "layer", "off")
MAX_FULL_SERIES = 20_000


class SettingError(ValueError):
    """A setting with a value that cannot be used: names both, and what is accepted."""


def positive_integer(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("an integer from 1")
    return int(text)


def _expert_metrics(text: str) -> str:
    if text not in EXPERT_METRICS:
        raise ValueError("one of " + ", ".join(EXPERT_METRICS))
    return text


def _switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "0", "false"):
        raise ValueError("1, true, 0 or false")
    return text.lower() in ("1", "true")


def _setting(default: Any, parse: Callable[[str], Any], metavar: str, help_text: str) -> Any:
    return field(default=default, metadata={"parse": parse, "metavar": metavar, "help": help_text})


@dataclass(frozen=True, slots=True)
class Settings:
    """Galton's settings, valid by construction through `from_args`."""

    max_experts_per_token: int | None = _setting(
        None,
        positive_integer,
        "N",
        "most experts per token a request may ask for (default: the model's top-k)",
    )
    expert_metrics: str = _setting(
        "auto",
        _expert_metrics,
        "{" + ",".join(EXPERT_METRICS) + "}",
        "per-expert load in /metrics: 'full' one series per layer and expert, 'layer' one per "
        f"layer, 'off' none, 'auto' full up to {MAX_FULL_SERIES:,} series, then layer "
        "(default: auto)",
    )

    allow_request_steering: bool = _setting(
        False,
        _switch,
        "",
        "let any request ban, force or bias experts; bans can strip a model's refusals",
    )
    presets: str | None = _setting(
        None,
        str,
        "FILE",
        "policies with names, in TOML; each is a model of its own (default: none; with the "
        "bundled demo, its own)",
    )

    # A prompt of a million tokens is 5 MB as text and 8 MB as ids. What a body becomes in
    # Python takes several times its size, for every request that is being read.
    max_body_bytes: int = _setting(
        32 * 2**20,
        positive_integer,
        "N",
        "most bytes in a request's body, more is a 413 (default: 33554432, which is 32 MiB)",
    )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add one flag per setting."""
        for f in fields(cls):
            takes_value = {"metavar": f.metadata["metavar"]}
            switch = {"action": "store_const", "const": "true"}
            parser.add_argument(
                f"--{f.name.replace('_', '-')}",
                help=f"{f.metadata['help']} [{variable(f.name)}]",
                **(takes_value if f.metadata["metavar"] else switch),
            )

    @classmethod
    def from_args(
        cls, args: argparse.Namespace, environ: Mapping[str, str] = os.environ
    ) -> Settings:
        """Flags over variables over defaults. Raises SettingError."""
        values = {}
        for f in fields(cls):
            source, text = f"--{f.name.replace('_', '-')}", getattr(args, f.name)
            if text is None:
                source, text = variable(f.name), environ.get(variable(f.name))
            if text is None:
                continue
            try:
                values[f.name] = f.metadata["parse"](text)
            except ValueError as error:
                raise SettingError(f"{source} must be {error}, got {text!r}") from None
        return cls(**values)


def automatic_level(num_series: int) -> str:
    """What `expert_metrics` "auto" means for a model with that many (layer, expert) pairs."""
    return "full" if num_series <= MAX_FULL_SERIES else "layer"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"GALTON_{name.upper()}"
