"""What routing costs and saves, beside stock vLLM: `make bench`, or `make bench-full` for all.

Servers of a scenario stand side by side and are asked in turn, round by round, so that what else
the machine does hits all alike; run nothing else meanwhile. Every run is kept: the same command
goes on after a kill.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.bench import report
from loadtests.bench.load import Job, LoadError, LoadTool, load_tool
from loadtests.bench.measure import bodies, measure
from loadtests.bench.results import Point, Results
from loadtests.bench.scenario import Scenario, ScenarioError, Variant, find, names
from loadtests.bench.stub import stub
from loadtests.bench.texts import questions
from loadtests.busy import busy_loops
from loadtests.client import RequestError
from loadtests.servers import NO_PLUGINS, Server, ServerError, galton, running, stock
from models.arguments import at_least_one
from models.demo import CHECKPOINT

# An idle vLLM spins for a second after its last message.
GAP_SECONDS: Final = 1.5


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    add = parser.add_argument
    add(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        default=names(),
        help=f"of {', '.join(names())}, or your own, FILE.toml (default: all)",
    )
    add("--rounds", type=at_least_one, help="of each scenario (default: what its file says)")
    add("--out", type=Path, default=Path("build/bench"), help="folder (default: build/bench)")
    args = parser.parse_args(argv)
    try:
        scenarios = [find(name) for name in args.scenarios]
        if args.rounds:
            scenarios = [s.model_copy(update={"rounds": args.rounds}) for s in scenarios]
        with load_tool() as tool:
            for scenario in scenarios:
                _run(tool, scenario, args.out)
    except (LoadError, RequestError, ScenarioError, ServerError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _run(tool: LoadTool, scenario: Scenario, out: Path) -> None:
    """What of the scenario is not measured yet, and its report."""
    folder = out / scenario.name
    folder.mkdir(parents=True, exist_ok=True)
    results = Results.at(folder, scenario)
    points = [
        Point(round_, load.label, variant.name)
        for round_ in range(scenario.rounds)
        for load in scenario.loads
        for variant in scenario.variants
    ]
    left = [point for point in points if point not in results.runs]
    if left:
        loads = {load.label: load for load in scenario.loads}
        with ExitStack() as stack:
            model = _checkpoint(scenario, folder.parent)
            variants = {variant.name: variant.of(model) for variant in scenario.variants}
            servers = _start(stack, scenario, model, variants.values(), folder)
            stack.enter_context(busy_loops(scenario.busy))
            if not results.ceiling:
                results.ceiling = _ceiling(tool, scenario)
            for variant in variants.values():  # what comes first is slower
                server = servers[_server(variant)]
                measure(tool, server, scenario, variant, scenario.loads[0], "warm-up")
            done = len(points) - len(left)
            bar = tqdm(left, scenario.name, len(points), unit=" runs", initial=done)
            for point in bar:
                variant, load = variants[point.variant], loads[point.load]
                bar.set_postfix_str(f"{variant.name}, {load.label}")
                server = servers[_server(variant)]
                key = f"round {point.round}"
                results.runs[point] = measure(tool, server, scenario, variant, load, key)
                results.save()
                time.sleep(GAP_SECONDS)
    report.write(results, folder / "report.html")
    print(report.text(results))
    print(f"written: {folder / 'report.html'}, {results.path}")


def _start(
    stack: ExitStack, scenario: Scenario, model: str, variants: Iterable[Variant], folder: Path
) -> dict[tuple[Any, ...], Server]:
    """One server for all variants that need the same."""
    servers: dict[tuple[Any, ...], Server] = {}
    for variant in variants:
        if (key := _server(variant)) in servers:
            continue
        flags = (*scenario.flags, *variant.flags)
        if variant.server == "galton":
            command = galton("serve", model, *flags)
        elif variant.server == "stock":
            command = stock(f"--model={model}", *flags)
        else:
            command = [*variant.server, *variant.flags]
        log = folder / f"server-{len(servers)}.log"
        print(f"{scenario.name}: starting {' '.join(command)}")
        servers[key] = stack.enter_context(running(command, log, os.environ | NO_PLUGINS))
    return servers


def _server(variant: Variant) -> tuple[Any, ...]:
    return variant.server, variant.flags


def _checkpoint(scenario: Scenario, folder: Path) -> str:
    """The path of the demo, or of a random model of that shape, made where it is missing."""
    shape, spread = scenario.checkpoint, scenario.router_spread
    if shape == "demo":
        return str(CHECKPOINT)
    path = folder / "checkpoints" / (shape if spread == 1 else f"{shape}-{spread:g}")
    if not (path / "config.json").exists():
        command = [sys.executable, "-m", "models.shapes", shape, str(path), f"--spread={spread}"]
        subprocess.run(command, check=True)
    return str(path)


def _ceiling(tool: LoadTool, scenario: Scenario) -> float:
    """Tokens a second that the load tool reads from a server which does nothing, at most."""
    found = []
    with stub() as url:
        for load in scenario.loads:
            if load.in_flight:
                asked = questions(scenario, load, "ceiling")
                sent = bodies(url, "stub", Variant(name="stub"), asked, "ceiling")
                outcome = tool.run(Job(url, "stub", sent, load, seed=0))
                found.append(outcome.tokens / outcome.duration)
    return max(found, default=0.0)


if __name__ == "__main__":
    sys.exit(main())
