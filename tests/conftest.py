"""Engines are expensive to start: each is started once for a session, when first needed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator

import pytest

from loadtests.servers import galton
from tests.shared.servers import DEMO, TOOL_ENVIRONMENT, TOOL_FLAGS, Server, running

KEY_OF_TWO = "sk-of-two"
MORE_PRESETS = f"""
[presets.seven]
description = "Always the same noise"
routing = {{ mode = "sample", temperature = 0.7, seed = 7 }}
results = {{ metric = "chrf", test = {{ gain = 0.5, interval = [-0.1, 1.2] }} }}

[presets.two]
routing = {{ mode = "top_k", top_k = 2 }}

[presets.own]
routing = {{ mode = "top_k" }}

[presets.steered.routing]
mode = "sample"
seed = 7
scope = "all"
ban = {{ "*" = [0, 1] }}

[presets.windowed]
seed_window = 86400
routing = {{ mode = "uniform", noise = "request", scope = "all" }}

[keys]
"{hashlib.sha256(KEY_OF_TWO.encode()).hexdigest()}" = "two"
"""

collect_ignore = ["clients"]  # they need an environment of their own: `make conformance`
FreshPrompt = Callable[[int], list[int]]
_names_of_fresh = set[str]()


@pytest.fixture
def fresh_prompt(request: pytest.FixtureRequest) -> FreshPrompt:
    """`fresh_prompt(length)`: token ids that no other test sends, so that nothing of them is
    cached. They are the same in whatever order tests run.
    """
    name = request.node.name
    assert name not in _names_of_fresh, f"two tests have the name {name}: so their prompts agree"
    _names_of_fresh.add(name)
    rng = random.Random(name)
    return lambda length: [rng.randrange(10, 1000) for _ in range(length)]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`galton serve` as README says, with flags that let tests see more: small cache blocks, tools,
    and an endpoint whose sampling parameters are not Galton's making.

    Beside its log lies its presets.toml: the demo's, and some more.
    """
    log = tmp_path_factory.mktemp("server") / "log"
    presets = log.with_name("presets.toml")
    presets.write_text((DEMO.parent / "presets.toml").read_text() + MORE_PRESETS)
    command = galton(
        "serve",
        f"--presets={presets}",
        "--max-experts-per-token=8",
        "--enable-prompt-tokens-details",
        "--block-size=32",
        "--enable-scale-out",
        *TOOL_FLAGS,
    )
    with running(command, log, TOOL_ENVIRONMENT) as started:
        yield started


@pytest.fixture(scope="session")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Chunks of 32 tokens, a key-value cache too small for the load, no prefix caching."""
    command = galton(
        "serve",
        "--max-experts-per-token=8",
        "--allow-request-steering",
        "--no-enable-prefix-caching",
        "--max-num-batched-tokens=32",
        "--max-num-seqs=12",
        "--max-num-queued-reqs=48",
        "--num-gpu-blocks-override=24",
        "--block-size=32",
        "--max-model-len=320",
    )
    with running(command, tmp_path_factory.mktemp("small") / "log") as started:
        yield started
