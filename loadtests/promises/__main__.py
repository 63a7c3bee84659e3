"""`make promises`: measures of a server under strain, each with what was promised.

Each starts servers of its own. On two cores clients and server share them: the figures are lower
bounds. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.promises import disconnects, keepalive, overload, scrapes
from loadtests.promises.result import Result

MEASURES: Final[dict[str, Callable[[Path, bool], Coroutine[Any, Any, list[Result]]]]] = {
    "keepalive": keepalive.measure,
    "overload": overload.measure,
    "scrapes": scrapes.measure,
    "disconnects": disconnects.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="make promises", description=__doc__)
    parser.add_argument(
        "measures", nargs="*", choices=[[], *MEASURES], help="default: all, 40 minutes"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of each, to try it")
    parser.add_argument(
        "--out", type=Path, default=Path("build/promises"), help="folder (default: build/promises)"
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for name in args.measures or MEASURES:
        results += asyncio.run(MEASURES[name](args.out / f"{name}.log", args.quick))
    print("| promise | bound | measured | kept |", "|---|---|---|---|", sep="\n")
    for result in results:
        print(result)
    return 0 if all(result.is_kept for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
