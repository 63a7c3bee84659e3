"""The `galton` command: start vLLM's server with Galton in it, describe a checkpoint, or tune."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from collections.abc import Sequence

from server import preflight, tuning, tuning_flags
from server.settings import SettingError, Settings, positive_integer

# How long open connections may take to end once the engine is stopped. vLLM kills an engine
# that does not stop at once, and a stream that waits for it would wait for ever.
GRACE_SECONDS = 2

EPILOG = """\
Every other flag is vLLM's and goes to vLLM unchanged: --host, --port, --api-key, --dtype,
--max-model-len, --tensor-parallel-size, ... `galton serve --help=all` prints them all;
they are explained at https://docs.vllm.ai/en/stable/cli/serve/.

examples:
  galton serve                                  the bundled demo model on port 8000
  galton serve --port 8123
  galton serve allenai/OLMoE-1B-7B-0924-Instruct --max-experts-per-token 16
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `galton` command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="galton",
        description="Serve a mixture-of-experts model; every request chooses its routing.",
    )
    parser.add_argument(
        "--version", action="version", version=f"galton {importlib.metadata.version('galton')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    serve_parser = commands.add_parser(
        "serve",
        help="start the server",
        usage="galton serve [MODEL] [galton's flags] [vLLM's flags]",
        description="Serve MODEL, a directory or a Hugging Face name (default: the bundled demo).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    Settings.add_arguments(serve_parser)
    inspect_parser = commands.add_parser(
        "inspect",
        help="describe a checkpoint: its routers, size and modes",
        description="Describe MODEL, a directory or a Hugging Face name (default: the bundled "
        "demo): MoE layers, router rule, parameters, memory, metrics, and which modes apply. "
        "Reads its configuration only: loads no weights, starts no engine.",
        allow_abbrev=False,
    )
    inspect_parser.add_argument("model", nargs="?", metavar="MODEL")
    inspect_parser.add_argument("--json", action="store_true", help="print JSON")
    inspect_parser.add_argument(
        "--max-experts-per-token",
        metavar="N",
        type=positive_integer,
        help="as for serve: show what requests could then ask for (default: the model's top-k)",
    )
    tuning_flags.add_arguments(
        commands.add_parser(
            "tune",
            help="search a routing policy on validation data",
            usage="galton tune [MODEL] --data FILE [galton's flags] [vLLM's flags]",
            description="Search a policy for MODEL (default: the bundled demo) on validation data,"
            "\nand write it as a preset, with its results on validation and test data.",
            epilog=tuning_flags.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
    )
    commands.add_parser(
        "train",
        add_help=False,
        help="train the demo model from nothing, with stochastic routing",
    )
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["train"]:
        return train(arguments[1:])
    if arguments[:1] == ["serve"] and any(a.startswith("--help=") for a in arguments):
        return _print_vllm_help(arguments[1:])
    args, vllm_argv = parser.parse_known_args(arguments)
    if args.command == "inspect":
        if vllm_argv:
            inspect_parser.error(f"unrecognized arguments: {' '.join(vllm_argv)}")
        return inspect(args)
    try:
        if args.command == "tune":
            return tuning.tune(args, vllm_argv)
        serve(Settings.from_args(args), vllm_argv)
    except (SettingError, preflight.CannotStartError) as error:
        print(f"galton: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def serve(settings: Settings, vllm_argv: Sequence[str]) -> None:
    """Run the server until it is told to stop. Raises CannotStartError."""
    preflight.check_machine()
    print("galton: loading vLLM ...", file=sys.stderr, flush=True)
    _announce_plugins()

    import uvloop
    from vllm.entrypoints.launchers.api_server.entry import run_server

    from server.launch import parse_vllm_args, quiet_failure

    args = parse_vllm_args(settings, vllm_argv)
    preflight.check_port(args.host, args.port)
    preflight.check_memory(args.model, args.kv_cache_memory_bytes)
    with quiet_failure():
        uvloop.run(run_server(args, timeout_graceful_shutdown=GRACE_SECONDS))


def inspect(args: argparse.Namespace) -> int:
    """Print what is known of a checkpoint; returns the exit status."""
    from transformers.utils import logging

    from models.checkpoint import CheckpointError, read_checkpoint
    from models.demo import CHECKPOINT
    from models.inspect import LimitError, facts_of, print_table
    from server.settings import automatic_level

    logging.set_verbosity_error()
    try:
        checkpoint = read_checkpoint(args.model or str(CHECKPOINT))
        facts = facts_of(checkpoint, args.max_experts_per_token, automatic_level)
    except (CheckpointError, LimitError) as error:
        print(f"galton: {error}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        print_table(facts)
    return 0


def train(argv: Sequence[str]) -> int:
    """Train the demo model; returns the exit status. Its flags are its own module's."""
    try:
        from models.demo.training.train import main as train_main

        return train_main(argv)
    except KeyboardInterrupt:
        return 130


def _announce_plugins() -> None:
    """Name Galton among vLLM's allowed plugins: endpoint plugins load only when named."""
    named = [p for p in os.environ.get("VLLM_PLUGINS", "").split(",") if p]
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*named, "galton"]))


def _print_vllm_help(argv: Sequence[str]) -> int:
    from server.launch import parse_vllm_args

    parse_vllm_args(Settings(), argv)
    return 0
