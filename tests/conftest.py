"""Engines are expensive to start: each is started once for a session, when first needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import Server, galton, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`galton serve` as README says, with flags that let tests see more: small cache blocks."""
    log = tmp_path_factory.mktemp("server") / "log"
    command = galton(
        "serve",
        "--max-experts-per-token=8",
        "--enable-prompt-tokens-details",
        "--block-size=32",
    )
    with running(command, log) as started:
        yield started
