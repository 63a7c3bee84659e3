"""`make soak`: an hour of mixed load on the bundled model, and a verdict.

Ctrl-C ends it early, with the verdict of what was seen.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.busy import busy_loops
from loadtests.servers import Server, galton, running
from loadtests.soak import report
from loadtests.soak.clients import Clients
from loadtests.soak.mix import Mix, learned
from loadtests.soak.watch import watch

MODEL = "galton-demo"
Counts = dict[str, dict[tuple[str, ...], float]]  # by metric and labels' values


def main(argv: Sequence[str] | None = None) -> int:
    """0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="default: 60")
    parser.add_argument("--in-flight", type=int, default=16, help="clients at once (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of what is asked (default: 0)")
    parser.add_argument("--busy", type=int, default=0, help="loops that spin beside (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("build/soak"), help="folder (default: build/soak)"
    )
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    command = galton("serve", "--max-experts-per-token=8", "--batch-invariant")  # for the canary
    with running(command, args.out / "log") as server, busy_loops(args.busy):
        problems = asyncio.run(_soak(server, args))
    log = server.log.read_text(errors="replace")
    for unmeant in ("Traceback", "has not moved"):  # the latter is the watchdog's
        if unmeant in log:
            problems.append(f"there is '{unmeant}' in {server.log}")
    for problem in problems[:20]:
        print("PROBLEM", problem)
    print(f"{len(problems)} problems" if problems else "every promise was kept")
    return 1 if problems else 0


async def _soak(server: Server, args: argparse.Namespace) -> list[str]:
    mix = Mix(MODEL, *learned(server.url), seed=args.seed)
    clients = Clients(server.url, mix, args.in_flight, args.seed)
    before = _counters(server.url)
    samples: list[dict[str, Any]] = []
    watching = asyncio.create_task(watch(server.process.pid, samples))
    start = time.monotonic()
    bar = tqdm(unit=" requests", desc="soak", smoothing=0.01, mininterval=1)
    with bar, contextlib.suppress(asyncio.CancelledError):  # by Ctrl-C
        await clients.run(args.minutes * 60, bar.update)
    watching.cancel()
    minutes = (time.monotonic() - start) / 60
    after = await _at_rest(server.url)
    tally = clients.tally
    problems = [*tally.problems, *_differences(clients, before, after)]

    found = report.slopes(samples)
    problems += [f"{m} grow: {found[m]}" for m in found if report.grows(*found[m])]
    report.plot(samples, args.out / "soak.svg")
    (args.out / "samples.json").write_text(json.dumps(samples))
    print(f"{tally.sent:,} requests in {minutes:.0f} min, {tally.left:,} of them left early;")
    print("answers:", ", ".join(f"{n:,} x {s}" for s, n in sorted(tally.statuses.items())))
    print(report.table(found))
    return problems


def _counters(url: str) -> Counts:
    """Of Galton's counters and vLLM's gauges, every sample's value by its labels' values."""
    page = httpx.get(f"{url}/metrics", timeout=60).text
    names = ("galton_requests", "vllm:kv_cache_usage_perc")
    found: Counts = {name: {} for name in names}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if family.name in found and not sample.name.endswith("_created"):
                keys = [key for key in ("mode", "preset", "outcome") if key in sample.labels]
                labels = tuple(sample.labels[key] for key in keys)
                found[family.name][labels] = found[family.name].get(labels, 0) + sample.value
    return found


async def _at_rest(url: str) -> Counts:
    """The counters once the engine has given up what clients have left."""
    for _ in range(100):
        counters = _counters(url)
        if not any(counters["vllm:kv_cache_usage_perc"].values()):
            break
        await asyncio.sleep(0.1)
    return counters


def _differences(
    clients: Clients,
    before: Counts,
    after: Counts,
) -> list[str]:
    """Where the server's counts are not the clients'."""
    tally, problems = clients.tally, []
    counted, refused = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for (mode, preset, outcome), value in after["galton_requests"].items():
        more = int(value - before["galton_requests"].get((mode, preset, outcome), 0))
        counted[mode, preset] += more
        if outcome == "refused":
            refused[mode, preset] += more
        if outcome == "error" and more:
            problems.append(f"{more} requests of {mode} {preset} ended in an error")
    if +counted != +tally.asked:
        problems.append(
            f"counted {counted - tally.asked} too many, {tally.asked - counted} too few"
        )
    if +refused != +tally.refused:
        problems.append(f"refused {dict(refused)} and told so {dict(tally.refused)}")
    if any(after["vllm:kv_cache_usage_perc"].values()):
        problems.append("blocks of the key-value cache stay taken")
    return problems


if __name__ == "__main__":
    sys.exit(main())
