"""The beginning of `make fuzz`, without its limit of ten seconds: machines differ."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.fuzz import Fuzzer
from tests.fuzz.openapi import schemathesis
from tests.shared.servers import MODEL, Server


def test_wrong_requests(server: Server) -> None:
    fuzzer = Fuzzer(server.url, MODEL, hang_seconds=300)
    fuzzer.run(range(700), in_flight=8)
    assert not fuzzer.verdict.problems
    assert {200, 400, None} <= {*fuzzer.verdict.statuses}


def test_what_the_openapi_page_allows(server: Server, tmp_path: Path) -> None:
    fuzzer = Fuzzer(server.url, MODEL, hang_seconds=300)
    made = schemathesis(server.url, fuzzer, tmp_path, examples=1, seed=0, phases="fuzzing")
    assert made > 20
    assert not fuzzer.verdict.problems
