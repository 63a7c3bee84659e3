"""`galton train`: train the demo model. Its flags are `models.demo.training`'s own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the command, which passes on whatever follows it, --help too."""
    parser = commands.add_parser(
        "train",
        add_help=False,
        help="train the demo model from nothing, with stochastic routing",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)


def run(_: argparse.Namespace, argv: Sequence[str]) -> int:
    """Train; returns the exit status."""
    from models.demo.training.train import main

    return main(argv)
