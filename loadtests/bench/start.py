"""How long a start takes, part by part, beside stock vLLM's: `make bench-start`.

Starts alternate, and run nothing else meanwhile. Everything is warm: packages, the kernel and what
vLLM compiles are on disk since a start of each that does not count; `--cold` removes what both have
compiled before every start.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tqdm import tqdm  # type: ignore[import-untyped]

from loadtests.bench.results import machine
from loadtests.client import COMPLETIONS, RequestError, ask
from loadtests.servers import NO_PLUGINS, ServerError, galton, running, stock
from models.arguments import at_least_one
from models.demo import CHECKPOINT

# What ends a part, and words of the line that vLLM logs then.
PARTS: Final = {
    "vLLM is imported, the command line read": "Resolved architecture",
    "the engine's process has imported it too": "Initializing a V1 LLM engine",
    "weights are loaded": "Loading weights took",
    "the engine is compiled and warm": "init engine (profile, create kv cache, warmup model) took",
    "/health answers": "",
    "a first token is there": "",
}
HEALTHY, TOKEN = list(PARTS)[-2:]
FLAGS: Final = ("--served-model-name=model", f"--kv-cache-memory-bytes={2**30}")
Seconds = dict[str, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make bench-start", description=__doc__)
    add = parser.add_argument
    add("--pairs", type=at_least_one, default=10, help="starts of each (default: 10)")
    add("--compiled", action="store_true", help="let vLLM compile the model; without: eager")
    add("--cold", action="store_true", help="nothing compiled is on disk, of ours or of vLLM's")
    add("--checkpoint", default=str(CHECKPOINT), help="default: the demo")
    add("--out", type=Path, default=Path("build/bench/start"), help="default: build/bench/start")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    flags = FLAGS if args.compiled else (*FLAGS, "--enforce-eager")
    commands = {
        "stock vLLM": stock(f"--model={args.checkpoint}", *flags),
        "Galton": galton("serve", args.checkpoint, *flags),
    }
    found: dict[str, list[Seconds]] = {name: [] for name in commands}
    turns = [(name, pair) for pair in range(-1, args.pairs) for name in commands]
    try:
        with tempfile.TemporaryDirectory() as caches:
            for name, pair in tqdm(turns, desc="starts"):
                log = args.out / f"{name.split()[0]}.log"
                environment = _environment(name, Path(caches), args.cold)
                seconds = started(commands[name], environment, log)
                if pair >= 0:
                    found[name].append(seconds)
    except (RequestError, ServerError) as error:
        print(f"bench-start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench-start: stopped", file=sys.stderr)
        return 130
    results = {"machine": machine(), "flags": flags, "cold": args.cold, "seconds": found}
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    print(table(found))
    return 0


def _environment(name: str, caches: Path, cold: bool) -> dict[str, str]:
    """A server's, with caches of its own; empty ones, if `cold`."""
    folder = caches / name.split()[0]
    if cold:
        shutil.rmtree(folder, ignore_errors=True)
    kept = {
        "VLLM_CACHE_ROOT": str(folder / "vllm"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        **({"NUMBA_CACHE_DIR": str(folder / "numba")} if cold else {}),
    }
    return {**os.environ, **NO_PLUGINS, **kept, "VLLM_LOGGING_LEVEL": "INFO"}


def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Seconds:
    """Start a server and stop it; when each part ended, in seconds since the process began."""
    began, seconds, is_up = time.monotonic(), Seconds(), threading.Event()
    log.unlink(missing_ok=True)

    def watch() -> None:
        while not is_up.wait(0.02):
            text = log.read_text(errors="replace") if log.exists() else ""
            for part, words in PARTS.items():
                if words and words in text:
                    seconds.setdefault(part, time.monotonic() - began)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        with running(command, log, environment) as server:
            seconds[HEALTHY] = time.monotonic() - began
            is_up.set()
            watching.join()
            body = {"model": "model", "prompt": "The sea", "max_tokens": 1}
            ask(server.url, [body], path=COMPLETIONS)
            seconds[TOKEN] = time.monotonic() - began
    finally:
        is_up.set()
    return seconds


def table(found: Mapping[str, Sequence[Seconds]]) -> str:
    """Markdown: seconds until the end of each part, and how many more of Galton, by pair."""
    theirs, ours = found.values()
    lines = [f"| until | {' | '.join(found)} | more |", "|---|---|---|---|"]
    for part in PARTS:
        columns = [[each[part] for each in starts if part in each] for starts in (theirs, ours)]
        more = [b - a for a, b in zip(*columns, strict=False)]
        cells = [_spread(values) for values in (*columns, more)]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    sys.exit(main())
