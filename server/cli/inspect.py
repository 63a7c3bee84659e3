"""`galton inspect`: what is known of a checkpoint without loading it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from server.cli.flags import InspectFlags
from server.preflight import CannotStartError
from server.settings import automatic_level


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "inspect",
        help="describe a checkpoint: its routers, size and modes",
        description="Describe MODEL, a directory or a Hugging Face name (default: the bundled "
        "demo): MoE layers, router rule, parameters, memory, metrics, and which modes apply. "
        "Reads its configuration only: loads no weights, starts no engine.",
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="?", metavar="MODEL")
    parser.add_argument("--json", action="store_true", help="print JSON")
    InspectFlags.add_arguments(parser)
    parser.set_defaults(run=partial(run, parser))


def run(parser: argparse.ArgumentParser, args: argparse.Namespace, unknown: Sequence[str]) -> int:
    """Print the facts, as a table or as JSON. Raises CannotStartError."""
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    from transformers.utils import logging

    from models.checkpoint import CheckpointError, read_checkpoint
    from models.demo import CHECKPOINT
    from models.inspect import LimitError, facts_of, print_table

    logging.set_verbosity_error()
    flags = InspectFlags.from_args(args)
    try:
        checkpoint = read_checkpoint(args.model or str(CHECKPOINT))
        facts = facts_of(checkpoint, flags.max_experts_per_token, automatic_level)
    except (CheckpointError, LimitError) as error:
        raise CannotStartError(str(error)) from None
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        print_table(facts)
    return 0
