"""The flags of the commands but `galton serve`, whose are `server.settings`'."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Final

from routing.policy.presets import NAME
from server.settings import Flags, flag, integer_from, number, one_of

SEARCHES: Final = ("temperature", "top_k", "bias")
SCOPES: Final = ("decode", "all")


def add_url(parser: argparse.ArgumentParser) -> None:
    """The running server that `galton chat` and `galton top` ask."""
    parser.add_argument(
        "url",
        nargs="?",
        default="http://localhost:8000",
        metavar="URL",
        help="default: %(default)s",
    )


_positive = number(sys.float_info.min, sys.float_info.max, "a number above 0")
_temperature = number(0, 10, "a number from 0 to 10")


def _pairs(text: str) -> int:
    accepted = "an even integer from 2"
    if not text.isascii() or not text.isdigit() or int(text) < 2 or int(text) % 2:
        raise ValueError(accepted)
    return int(text)


def _preset_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError(f"a name that matches {NAME.pattern}")
    return text


@dataclass(frozen=True, slots=True)
class InspectFlags(Flags):
    """Of `galton inspect`, but MODEL and --json."""

    max_experts_per_token: int | None = flag(
        None,
        integer_from(1),
        "N",
        "as for serve: show what requests could then ask for (default: the model's top-k)",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneFlags(Flags):
    """Of `galton tune`, but MODEL and vLLM's."""

    data: Path = flag(MISSING, Path, "FILE", "validation examples")
    test: Path | None = flag(
        None,
        Path,
        "FILE",
        "test examples, untouched by the search: without them no gain is claimed",
    )
    metric: str = flag(
        "exact_match",
        str,
        "NAME",
        "exact_match, chrf, perplexity (of the reference), pass_at_n, diversity, or "
        "module:function, called with the answers to an example and its references, higher is "
        "better (default: exact_match)",
    )
    out: Path = flag(
        Path("tuned.toml"), Path, "FILE", "presets file to write (default: tuned.toml)"
    )
    name: str = flag(
        "tuned", _preset_name, "NAME", "of the preset; of several, NAME-SEARCH (default: tuned)"
    )
    study: Path | None = flag(
        None,
        Path,
        "FILE",
        "SQLite file of the trials; the same command goes on from it (default: OUT with .db)",
    )

    search: str = flag(
        "temperature",
        one_of((*SEARCHES, "all")),
        "{" + ",".join((*SEARCHES, "all")) + "}",
        "per-layer temperatures of mode sample; experts per layer under a budget; a bias per "
        "expert, by the path update (default: temperature)",
        group="search",
    )
    trials: int = flag(50, integer_from(1), "N", "per search (default: 50)", group="search")
    minutes: float = flag(
        math.inf, _positive, "M", "per search, at most (default: no limit)", group="search"
    )
    seed: int = flag(
        0, integer_from(0), "SEED", "of the search and of all noise (default: 0)", group="search"
    )
    freeze_layers: str = flag(
        "",
        str,
        "LIST",
        "layers that keep the model's own routing: first, last, numbers, with commas",
        group="search",
    )
    max_temperature: float = flag(
        1.0, _temperature, "T", "of temperature (default: 1)", group="search"
    )
    budget: float | None = flag(
        None,
        _positive,
        "K",
        "of top_k: mean experts per token and layer (default: the model's own)",
        group="search",
    )
    max_experts_per_token: int | None = flag(
        None,
        integer_from(1),
        "N",
        "of top_k: most experts in a layer (default: the model's own); galton serve needs the same",
        group="search",
    )
    population: int = flag(16, _pairs, "N", "of bias: even (default: 16)", group="search")
    sigma: float = flag(
        0.5, _positive, "S", "of bias: size of its steps (default: 0.5)", group="search"
    )
    minibatch: int = flag(
        32, integer_from(1), "N", "of bias: examples per update (default: 32)", group="search"
    )

    samples: int | None = flag(
        None,
        integer_from(1),
        "N",
        "answers per example (default: 1; 8 for pass_at_n and diversity)",
        group="answers",
    )
    scope: str = flag(
        "decode",
        one_of(SCOPES),
        "{" + ",".join(SCOPES) + "}",
        "what the policy routes: generated tokens, or the prompt's too, as for perplexity "
        "always (default: decode)",
        group="answers",
    )
    max_tokens: int = flag(
        256, integer_from(1), "N", "of an answer (default: 256)", group="answers"
    )
    token_temperature: float = flag(
        0.0,
        _temperature,
        "T",
        "of the sampling of tokens (default: 0, greedy)",
        group="answers",
    )
