"""`galton serve`: check the machine, then run vLLM's server with Galton in it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from server import preflight, sockets
from server.settings import LOG_LEVEL, Settings

# How long open connections may take to end once the engine is stopped, after the drain: vLLM kills
# an engine that does not stop at once, and a stream that waits for it would wait for ever.
GRACE_SECONDS: Final = 2

EPILOG: Final = """\
Every other flag is vLLM's and goes to vLLM unchanged: --host, --port, --api-key, --dtype,
--max-model-len, --tensor-parallel-size, ... `galton serve --help=all` prints them all;
they are explained at https://docs.vllm.ai/en/stable/cli/serve/.

examples:
  galton serve                                  the bundled demo model on port 8000
  galton serve --port 8123 --log-level INFO     with all that vLLM has to say
  galton serve allenai/OLMoE-1B-7B-0924-Instruct --max-experts-per-token 16
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "serve",
        help="start the server",
        usage="galton serve [MODEL] [galton's flags] [vLLM's flags]",
        description="Serve MODEL, a directory or a Hugging Face name (default: the bundled demo).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument(
        "-h", "--help", nargs="?", action=_Help, metavar="all", help="show this, or vLLM's flags"
    )
    Settings.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, vllm_argv: Sequence[str]) -> int:
    """Run the server until it is told to stop; 1 where its engine died or hung.

    Raises SettingError, CannotStartError.
    """
    settings = Settings.from_args(args)
    preflight.check_machine()
    with contextlib.suppress(OSError):  # a full disk under the log
        print("galton: loading vLLM ...", file=sys.stderr, flush=True)
    announce_plugins()
    set_environment(settings)

    import uvloop

    from server.http_protocol import HttpProtocol
    from server.launch import parse_vllm_args, quiet_failure, run_server
    from server.lifetime import end_while_starting

    preflight.check_plugins()
    vllm_args = parse_vllm_args(settings, vllm_argv)
    preflight.check_port(vllm_args.host, vllm_args.port)
    if settings.metrics_port is not None:
        preflight.check_port(vllm_args.host, settings.metrics_port, "--metrics-port")
    preflight.check_memory(vllm_args.model, vllm_args.kv_cache_memory_bytes)
    sockets.make_folder()
    HttpProtocol.seconds = settings.client_seconds
    signal.signal(signal.SIGTERM, end_while_starting)
    with quiet_failure():
        options = {"timeout_graceful_shutdown": GRACE_SECONDS, "http": HttpProtocol}
        uvloop.run(run_server(vllm_args, **options))
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)  # Python's own end takes a while: the status is known
    return 1 if vllm_args.galton_lifetime.failure else 0


def announce_plugins() -> None:
    """Name Galton among vLLM's allowed plugins: endpoint plugins load only when named."""
    plugins = [p for p in os.environ.get("VLLM_PLUGINS", "").split(",") if p]
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*plugins, "galton"]))


def set_environment(settings: Settings) -> None:
    """What vLLM takes from its environment only. What the user has set there stays."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", LOG_LEVEL)
    os.environ.setdefault("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", str(settings.keep_alive_seconds))
    os.environ.setdefault("VLLM_MAX_N_SEQUENCES", str(settings.max_choices))


class _Help(argparse.Action):
    """`--help` is Galton's, `--help=all` and `--help=GROUP` are vLLM's."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if values is None:
            parser.print_help()
        else:
            from server.launch import parse_vllm_args

            parse_vllm_args(Settings(), [f"--help={values}"])
        parser.exit()
