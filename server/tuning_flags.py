"""The flags of `galton tune`: names, defaults, ranges and help texts."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from routing.policy.presets import NAME

SEARCHES = ("temperature", "top_k", "bias")
EPILOG = """\
Every other flag is vLLM's and goes to its engine unchanged: --dtype, --max-model-len, ...

DATA is JSON Lines: {"prompt": "..."} or {"messages": [...]}, with "reference": "..." or
"references": ["...", ...].

examples:
  galton tune --data valid.jsonl --test test.jsonl --metric chrf --out tuned.toml
  galton tune MODEL --data valid.jsonl --test test.jsonl --search top_k --budget 3
  galton serve MODEL --presets tuned.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag of the command but vLLM's."""
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a directory or a Hugging Face name")
    add("--data", type=Path, required=True, metavar="FILE", help="validation examples")
    add(
        "--test",
        type=Path,
        metavar="FILE",
        help="test examples, untouched by the search: without them no gain is claimed",
    )
    add(
        "--metric",
        default="exact_match",
        metavar="NAME",
        help="exact_match, chrf, perplexity (of the reference), pass_at_n, diversity, or "
        "module:function, called with the answers to an example and its references, higher is "
        "better (default: exact_match)",
    )
    add(
        "--out",
        type=Path,
        default=Path("tuned.toml"),
        metavar="FILE",
        help="presets file to write (default: tuned.toml)",
    )
    add(
        "--name",
        type=_preset_name,
        default="tuned",
        help="of the preset; of several, NAME-SEARCH (default: tuned)",
    )
    add(
        "--study",
        type=Path,
        metavar="FILE",
        help="SQLite file of the trials; the same command goes on from it (default: OUT with .db)",
    )
    _add_search(parser.add_argument_group("search"))
    _add_asking(parser.add_argument_group("answers"))


def _add_search(group: Any) -> None:
    add = group.add_argument
    add(
        "--search",
        choices=(*SEARCHES, "all"),
        default="temperature",
        help="per-layer temperatures of mode sample; experts per layer under a budget; a bias per "
        "expert, by the path update (default: temperature)",
    )
    add("--trials", type=_count, default=50, metavar="N", help="per search (default: 50)")
    add(
        "--minutes",
        type=_positive,
        default=math.inf,
        metavar="M",
        help="per search, at most (default: no limit)",
    )
    add("--seed", type=_seed, default=0, help="of the search and of all noise (default: 0)")
    add(
        "--freeze-layers",
        default="",
        metavar="LIST",
        help="layers that keep the model's own routing: first, last, numbers, with commas",
    )
    add(
        "--max-temperature",
        type=_temperature,
        default=1.0,
        metavar="T",
        help="of temperature (default: 1)",
    )
    add(
        "--budget",
        type=_positive,
        metavar="K",
        help="of top_k: mean experts per token and layer (default: the model's own)",
    )
    add(
        "--max-experts-per-token",
        type=_count,
        metavar="N",
        help="of top_k: most experts in a layer (default: the model's own); galton serve needs "
        "the same",
    )
    add("--population", type=_pairs, default=16, metavar="N", help="of bias: even (default: 16)")
    add("--sigma", type=_positive, default=0.5, help="of bias: size of its steps (default: 0.5)")
    add(
        "--minibatch",
        type=_count,
        default=32,
        metavar="N",
        help="of bias: examples per update (default: 32)",
    )


def _add_asking(group: Any) -> None:
    add = group.add_argument
    add(
        "--samples",
        type=_count,
        metavar="N",
        help="answers per example (default: 1; 8 for pass_at_n and diversity)",
    )
    add(
        "--scope",
        choices=("decode", "all"),
        default="decode",
        help="what the policy routes: generated tokens, or the prompt's too, as for perplexity "
        "always (default: decode)",
    )
    add("--max-tokens", type=_count, default=256, metavar="N", help="of an answer (default: 256)")
    add(
        "--token-temperature",
        type=_temperature,
        default=0.0,
        metavar="T",
        help="of the sampling of tokens (default: 0, greedy)",
    )


def _number(text: str, low: float, high: float, accepted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be {accepted}, got {text!r}")
    return number


def _positive(text: str) -> float:
    return _number(text, sys.float_info.min, sys.float_info.max, "a number above 0")


def _temperature(text: str) -> float:
    return _number(text, 0, 10, "a number from 0 to 10")


def _whole(text: str, low: int, accepted: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < low:
        raise argparse.ArgumentTypeError(f"must be {accepted}, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1, "an integer from 1")


def _seed(text: str) -> int:
    return _whole(text, 0, "an integer from 0")


def _pairs(text: str) -> int:
    number = _whole(text, 2, "an even integer from 2")
    if number % 2:
        raise argparse.ArgumentTypeError(f"must be an even integer from 2, got {text!r}")
    return number


def _preset_name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must match {NAME.pattern}, got {text!r}")
    return text
