"""`make fuzz`: 100,000 wrong requests of our own making, and schemathesis over the OpenAPI page.

Each must be answered, with an error that is the client's, within ten seconds; a request that is
asked again and again is answered alike throughout. Ctrl-C ends it early, with the verdict so far.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.servers import galton, running
from tests.fuzz.fuzz import Fuzzer
from tests.fuzz.openapi import schemathesis
from tests.shared.servers import MODEL

# Short answers, whatever is asked.
FLAGS = (
    "--max-experts-per-token=8",
    "--max-model-len=512",
    '--override-generation-config={"max_new_tokens": 4}',
)
# Answers that a client did not wait for, and what uvicorn logs, to its last line.
UNMEANT = re.compile(
    r'^[^\n]*" 5\d\d [^\n]*$'
    r"|Exception in ASGI application$.*?^[\w.]*(?:Error|Exception)\b[^\n]*$",
    re.MULTILINE | re.DOTALL,
)
CLIENT_LEFT = "the handler is closed"  # between two events of uvloop's
PHASES = "examples,coverage,fuzzing"


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the server did what it must."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="own ones (default: 100000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument(
        "--examples",
        type=int,
        default=50,
        help="schemathesis's for each operation; 0: without it (default: 50)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of both (default: 0)")
    parser.add_argument("--in-flight", type=int, default=8, help="at once (default: 8)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/fuzz"), help="folder (default: build/fuzz)"
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    with running(galton("serve", *FLAGS), args.out / "log") as server:
        fuzzer = Fuzzer(server.url, MODEL, args.seed)
        numbers = range(args.first, args.first + args.cases)
        with contextlib.suppress(KeyboardInterrupt):
            with tqdm(
                total=len(numbers), unit=" cases", desc="fuzz", smoothing=0.01, mininterval=1
            ) as bar:
                fuzzer.run(numbers, args.in_flight, bar.update)
            if args.examples:
                how = {"examples": args.examples, "seed": args.seed, "phases": PHASES}
                num_generated = schemathesis(server.url, fuzzer, args.out, **how)
                print(f"schemathesis made {num_generated:,} cases")
    verdict = fuzzer.verdict
    for line in UNMEANT.findall(server.log.read_text("latin-1")):
        if CLIENT_LEFT not in line:
            verdict.problems.append(f"in {server.log}: {line}")
    (args.out / "problems").write_text("\n".join(verdict.problems))
    for problem in verdict.problems[:20]:
        print("PROBLEM", problem)
    print("sent:", ", ".join(f"{n:,} x {kind}" for kind, n in sorted(verdict.sent.items())))
    answers = sorted(verdict.statuses.items(), key=str)
    print("answers:", ", ".join(f"{n:,} x {status or 'none'}" for status, n in answers))
    print(f"{len(verdict.problems)} problems" if verdict.problems else "the server did as it must")
    return 1 if verdict.problems else 0


if __name__ == "__main__":
    sys.exit(main())
