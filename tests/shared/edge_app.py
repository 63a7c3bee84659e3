"""`galton serve`'s HTTP application without an engine behind it: `edge_app GALTON_AND_VLLM_FLAGS`.

It starts in a third of the time, and what stands in front of the engine needs none.
"""

from __future__ import annotations

import argparse
import sys

from server.cli.serve import announce_plugins, set_environment
from server.settings import Settings


def crash() -> None:
    """`POST /v1/crash`: the mistake that every other test looks for."""
    raise RuntimeError("broken on purpose")


def main() -> None:
    announce_plugins()
    import uvicorn
    from vllm import envs
    from vllm.entrypoints.launchers.app import build_app

    from server.http_protocol import HttpProtocol
    from server.launch import parse_vllm_args

    parser = argparse.ArgumentParser(allow_abbrev=False)
    Settings.add_arguments(parser)
    ours, vllms = parser.parse_known_args(sys.argv[1:])
    settings = Settings.from_args(ours)
    set_environment(settings)
    args = parse_vllm_args(settings, vllms)
    app = build_app(args, ("generate",))
    app.state.engine_client = None
    app.add_api_route("/v1/crash", crash, methods=["POST"])
    uvicorn.run(
        app,
        host=args.host,
        port=args.port,
        http=HttpProtocol,
        lifespan="off",
        log_level="info",
        timeout_keep_alive=envs.VLLM_HTTP_TIMEOUT_KEEP_ALIVE,
    )


if __name__ == "__main__":
    main()
