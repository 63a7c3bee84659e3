"""What a server says once it is up: what it serves, how that routes, where, and what to try."""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from typing import Final

from server.app import Galton

EXAMPLE: Final = """\
curl {url}/v1/completions -H 'Content-Type: application/json'{key} -d '{{
  "model": "{model}", "prompt": "The sea", "max_tokens": 16,
  "routing": {{"mode": "sample", "seed": 7}}
}}'"""


def welcome(galton: Galton, args: Namespace) -> None:
    """Say it on stderr, so that it can be pasted."""
    with contextlib.suppress(OSError):  # a full disk under the log
        print(text_of(galton, args), file=sys.stderr, flush=True)


def text_of(galton: Galton, args: Namespace) -> str:
    """What `welcome` says."""
    spec, model = galton.spec, galton.file.models[0]
    presets = ", ".join(galton.presets.named) or "none"
    url = url_of(args)
    pages = [] if galton.settings.no_playground else ["/playground"]
    key = ' -H "Authorization: Bearer $VLLM_API_KEY"' if args.api_key else ""
    return "\n".join(
        [
            f"galton: {model}: {len(spec.layers)} MoE layers of {spec.num_experts} experts, "
            f"{spec.top_k} per token, at most {spec.max_top_k}; routing self-test passed",
            f"galton: presets: {presets}",
            f"galton: {url} serves {', '.join([*pages, '/docs', '/metrics'])}; try",
            "",
            EXAMPLE.format(url=url, model=model, key=key),
            "",
        ]
    )


def url_of(args: Namespace) -> str:
    """Where a client on this machine finds the server."""
    if args.uds:
        return f"--unix-socket {args.uds} http://localhost"  # as curl takes it
    host = "localhost" if args.host in (None, "0.0.0.0", "::") else args.host
    scheme = "https" if args.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{args.port}"
