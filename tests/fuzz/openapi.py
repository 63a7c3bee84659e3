"""What follows, or just does not follow, from the page /openapi.json: schemathesis makes it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from tests.fuzz.fuzz import Fuzzer

# It answers 501, and that is so: no model of Galton's has what it is for.
NOT_FOR_US = "/v1/systemone"


def schemathesis(
    url: str, fuzzer: Fuzzer, out: Path, *, examples: int, seed: int, phases: str
) -> int:
    """Let it send `examples` cases for each operation, and in its phase `coverage` all that it
    counts by itself; add what it finds to the fuzzer's verdict, which asks its canary meanwhile.
    out: the folder for its report. Returns the number of cases.
    """
    report = out.resolve() / "schemathesis.json"
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"),
        *(f"--phases={phases}", f"--max-examples={examples}", f"--seed={seed}"),
        *("--checks=not_a_server_error", f"--request-timeout={fuzzer.hang_seconds}"),
        *("--workers=4", "--continue-on-failure", "--warnings=off", "--no-color"),
        *("--generation-database=none", f"--exclude-path={NOT_FOR_US}"),
        f"--report-json-path={report}",
    ]
    ended = threading.Event()

    def ask_canary() -> None:
        while not ended.wait(1):
            fuzzer.ask_canary()

    canary = threading.Thread(target=ask_canary)
    canary.start()
    try:
        subprocess.run(command, check=False, cwd=out)  # it leaves a folder there
    finally:
        ended.set()
        canary.join()
    # Not its exit status: it may stumble itself, over its own generators.
    found = json.loads(report.read_text())
    for failure in found["failures"]:
        fuzzer.verdict.problems.append(f"schemathesis, see {report}: {failure}")
    return int(found["test_cases"]["generated"])
