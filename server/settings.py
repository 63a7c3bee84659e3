"""Flags as tables: every name, default, range and help text, once. Galton's own settings.

A flag derives from each field of a table, and for `Settings` a `GALTON_*` variable too; a
flag wins. Everything else about the server is vLLM's and is set by vLLM's flags.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Self

from routing.policy.seed import MAX_WINDOW_SECONDS

EXPERT_METRICS = ("auto", "full", "layer", "off")
MAX_FULL_SERIES = 20_000
LOG_LEVEL = "WARNING"  # vLLM's, where nobody names one: its account of a start is pages long

Parse = Callable[[str], Any]  # raises ValueError with what is accepted


class SettingError(ValueError):
    """A setting with a value that cannot be used: names both, and what is accepted."""


def integer_from(low: int) -> Parse:
    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or int(text) < low:
            raise ValueError(f"an integer from {low}")
        return int(text)

    return parse


def number(low: float, high: float, accepted: str) -> Parse:
    """A number from low to high."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ValueError(accepted)
        return value

    return parse


def one_of(choices: Sequence[str]) -> Parse:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return text

    return parse


def switch(text: str) -> bool:
    """A flag without a value; as a variable 1, true, 0 or false."""
    if text.lower() not in ("1", "true", "0", "false"):
        raise ValueError("1, true, 0 or false")
    return text.lower() in ("1", "true")


def flag(
    default: Any, parse: Parse, metavar: str, help_text: str, *, group: str | None = None
) -> Any:
    """A field of a table. default: MISSING for a flag that must be given."""
    metadata = {"parse": parse, "metavar": metavar, "help": help_text, "group": group}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Flags:
    """A table of flags, one field each. Valid by construction through `from_args`."""

    # Whether `GALTON_*` variables set them too, which are checked with the flags.
    has_variables = False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add one flag per field."""
        groups: dict[str | None, Any] = {None: parser}
        for f in fields(cls):
            group = f.metadata["group"]
            if group not in groups:
                groups[group] = parser.add_argument_group(group)
            groups[group].add_argument(flag_name(f.name), **cls._options(f))

    @classmethod
    def _options(cls, f: Field[Any]) -> dict[str, Any]:
        parse, help_text = f.metadata["parse"], f.metadata["help"]
        if cls.has_variables:
            help_text += f" [{variable(f.name)}]"
        if parse is switch:
            return {"action": "store_const", "const": "true", "help": help_text}
        options = {"metavar": f.metadata["metavar"], "help": help_text}
        if not cls.has_variables:
            options |= {"type": _argparse_type(parse), "required": f.default is MISSING}
        return options

    @classmethod
    def from_args(cls, args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Self:
        """Flags over variables over defaults. Raises SettingError."""
        values = {}
        for f in fields(cls):
            source, value = flag_name(f.name), getattr(args, f.name)
            if value is None and cls.has_variables:
                source, value = variable(f.name), environ.get(variable(f.name))
            if value is None:
                continue
            values[f.name] = _parsed(f, source, value) if isinstance(value, str) else value
        return cls(**values)


def _parsed(f: Field[Any], source: str, text: str) -> Any:
    try:
        return f.metadata["parse"](text)
    except ValueError as error:
        raise SettingError(f"{source} must be {error}, got {text!r}") from None


def _argparse_type(parse: Parse) -> Parse:
    def typed(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}, got {text!r}") from None

    return typed


@dataclass(frozen=True, slots=True)
class Settings(Flags):
    """Galton's settings of a server."""

    has_variables = True

    max_experts_per_token: int | None = flag(
        None,
        integer_from(1),
        "N",
        "most experts per token a request may ask for (default: the model's top-k)",
    )
    expert_metrics: str = flag(
        "auto",
        one_of(EXPERT_METRICS),
        "{" + ",".join(EXPERT_METRICS) + "}",
        "per-expert load in /metrics: 'full' one series per layer and expert, 'layer' one per "
        f"layer, 'off' none, 'auto' full up to {MAX_FULL_SERIES:,} series, then layer "
        "(default: auto)",
    )
    # On a quiet server the difference of two scrapes is one request's experts, and experts tell
    # of its text (arXiv 2602.04105).
    metrics_min_tokens: int = flag(
        0,
        integer_from(0),
        "N",
        "expert counts in /metrics change once so many more tokens were routed, so that they do "
        "not tell a single request's (default: 0)",
    )
    # Writing a page holds up everybody's tokens for some milliseconds.
    metrics_kept_seconds: float = flag(
        1,
        number(0, 3600, "a number from 0 to 3600"),
        "S",
        "for so long whoever asks for /metrics again gets the same page; 0: always a new one "
        "(default: 1)",
    )
    metrics_port: int | None = flag(
        None,
        integer_from(1),
        "N",
        "serve /metrics on a port of its own, and not on the server's (default: on the server's)",
    )
    allow_request_steering: bool = flag(
        False,
        switch,
        "",
        "let any request ban, force or bias experts; bans can strip a model's refusals",
    )
    seed_window: float = flag(
        0,
        number(0, MAX_WINDOW_SECONDS, f"a number from 0 to {MAX_WINDOW_SECONDS}"),
        "S",
        "requests that name no seed share one for so long, and with it noise and experts, which "
        "makes batches cheaper; 0: each has its own (default: 0)",
    )
    experimental_cuda: bool = flag(
        False,
        switch,
        "",
        "serve on a GPU; tried on an H100, see `make gpu-check`",
    )
    # Only those sums of a CPU with AMX depend on it: see `routing.engine.amx`.
    batch_invariant: bool = flag(
        False,
        switch,
        "",
        "answers do not depend on what else is in the batch; only needed on CPUs with AMX",
    )
    no_playground: bool = flag(
        False,
        switch,
        "",
        "serve no page /playground",
    )
    presets: str | None = flag(
        None,
        str,
        "FILE",
        "policies with names, in TOML; each is a model of its own (default: none; with the "
        "bundled demo, its own)",
    )
    # A prompt of a million tokens is 5 MB as text and 8 MB as ids. What a body becomes in
    # Python takes several times its size, for every request that is being read.
    max_body_bytes: int = flag(
        32 * 2**20,
        integer_from(1),
        "N",
        "most bytes in a request's body, more is a 413 (default: 33554432, which is 32 MiB)",
    )
    # Longer than those of proxies and clients, which else reuse a connection as it is closed:
    # nginx and AWS keep theirs for 60.
    keep_alive_seconds: int = flag(
        75,
        integer_from(1),
        "N",
        "how long a connection without a request stays open (default: 75)",
    )
    client_seconds: int = flag(
        300,
        integer_from(1),
        "N",
        "how long a client may take to send its request, or leave its answer unread (default: 300)",
    )
    # Kubernetes kills what has not ended after 30.
    drain_seconds: int = flag(
        25,
        integer_from(0),
        "N",
        "how long running requests may take to end after SIGTERM (default: 25)",
    )
    stall_seconds: int = flag(
        10,
        integer_from(0),
        "N",
        "an engine that works and does not move for so long is thought to hang: /health is 503; "
        "after twice the time requests end in an error, after three times the process; 0: never "
        "(default: 10)",
    )
    # Each is a sequence in the engine, and 16,384 of them, vLLM's bound, stall all others for
    # seconds.
    max_choices: int = flag(
        128,
        integer_from(1),
        "N",
        "most choices in one request, n for each of its prompts; more is a 400 (default: 128)",
    )
    # Each takes some 300 bytes until the answer is sent.
    max_logprobs_per_request: int = flag(
        2**22,
        integer_from(1),
        "N",
        "most log-probabilities in one request, tokens x choices x those of each token; more is a "
        "400 (default: 4194304)",
    )


def automatic_level(num_series: int) -> str:
    """What `expert_metrics` "auto" means for a model with that many (layer, expert) pairs."""
    return "full" if num_series <= MAX_FULL_SERIES else "layer"


def flag_name(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"GALTON_{name.upper()}"


def settings_table() -> str:
    """The settings as Markdown."""
    rows = ["| flag | variable | what it sets |", "|---|---|---|"]
    for f in fields(Settings):
        value = "" if f.metadata["parse"] is switch else f" {f.metadata['metavar']}"
        rows.append(
            f"| `{flag_name(f.name)}{value}` | `{variable(f.name)}` | {f.metadata['help']} |"
        )
    return "\n".join(rows)
