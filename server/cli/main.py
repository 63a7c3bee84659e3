"""The `galton` command: its commands, their errors in one line, its exit status."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence

from server.cli import chat, inspect, serve, top, train, tune
from server.preflight import CannotStartError
from server.settings import SettingError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="galton",
        description="Serve a mixture-of-experts model; every request chooses its routing.",
    )
    parser.add_argument(
        "--version", action="version", version=f"galton {importlib.metadata.version('galton')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for command in (serve, chat, top, inspect, tune, train):
        command.add_parser(commands)
    args, rest = parser.parse_known_args(argv)
    try:
        status: int = args.run(args, rest)
    except (SettingError, CannotStartError) as error:
        print(f"galton: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
