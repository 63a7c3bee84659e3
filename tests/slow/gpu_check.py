"""What Galton promises, tried on this machine's GPU: `make gpu-check`, half an hour.

Each check is a program of its own, with its log beside the report. The report says of each whether
it held; attach it to an issue, whatever it says.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Final

REPORTED_LINES: Final = 60


@dataclass(frozen=True)
class Check:
    """claim: what is shown where the command's status is 0. needs: a program without which it is
    left out.
    """

    claim: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    needs: str | None = None


def _pytest(*args: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pytest", "-q", *args)


_KERNELS = ("tests/unit/routing/triton_kernel_cases.py", "tests/unit/routing/test_kernel.py")
_ON_GPU = {"GALTON_TEST_BACKEND": "gpu"}
CHECKS: Final = {
    "kernels": Check(
        "The kernels choose, weigh, count and record as the reference does; 48 layers captured in "
        "a CUDA graph follow every step.",
        _pytest(*_KERNELS),
        _ON_GPU,
    ),
    "memory": Check(
        "They read and write no memory but their own.",
        ("compute-sanitizer", "--error-exitcode=9", *_pytest(*_KERNELS)),
        _ON_GPU,
        "compute-sanitizer",
    ),
    "families": Check(
        "Of each family of routers: without a policy stock vLLM's bits, and every mode as the "
        "reference says, in every layer.",
        _pytest("tests/engine/test_families.py"),
    ),
    "circumstances": Check(
        "No token has a wrong expert: alone, in batches, in CUDA graphs, a step ahead, in chunks, "
        "preempted, from the prefix cache, drafted. How often texts are the same is told, too.",
        (sys.executable, "-m", "tests.slow.reproducibility"),
    ),
    "server": Check(
        "The server: traces, replays, statistics and metrics agree.",
        _pytest("tests/engine/test_reports.py", "tests/engine/test_expert_metrics.py"),
    ),
    "kernel's cost": Check(
        "(figures) One layer's call beside torch's softmax and top-k.",
        (sys.executable, "-m", "routing.bench.gpu"),
    ),
    "cost": Check(
        "(figures) Tokens per second beside stock vLLM.",
        (sys.executable, "-m", "loadtests.bench", "tests/slow/gpu_check.toml"),
    ),
}


def main() -> int:
    """Run the checks, one after the other; 1 where one did not hold."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=[*CHECKS], metavar="CHECK")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"), help="folder")
    args = parser.parse_args()
    gpu = _gpu()
    if gpu is None:
        parser.exit(1, "make gpu-check: nvidia-smi finds no GPU here\n")
    if not any(distributions(name="vllm")):
        parser.exit(1, "make gpu-check: .venv is set up for the CPU: make clean gpu-setup\n")
    args.out.mkdir(parents=True, exist_ok=True)
    parts, failed = [_machine(gpu)], 0
    for number, name in enumerate(args.only, 1):
        check, log = CHECKS[name], args.out / f"{name.replace(' ', '-')}.log"
        print(f"[{number}/{len(args.only)}] {name}: {check.claim}", flush=True)
        verdict, seconds = run(check, log)
        failed += verdict == "FAILED"
        print(f"    {verdict}, {seconds:.0f} s, {log}", flush=True)
        lines = log.read_text(errors="replace").splitlines()[-REPORTED_LINES:]
        parts.append(
            f"## {name}: {verdict}\n\n{check.claim} {seconds:.0f} s.\n\n"
            + "\n".join(["<details><summary>log</summary>\n", "```", *lines, "```\n</details>"])
        )
    report = args.out / "report.md"
    report.write_text("\n\n".join(parts) + "\n")
    print(f"{failed} of {len(args.only)} failed: {report}")
    return int(failed > 0)


def run(check: Check, log: Path) -> tuple[str, float]:
    """Its verdict, and the seconds that it took; what it said is in the log."""
    if check.needs is not None and shutil.which(check.needs) is None:
        log.write_text(f"there is no {check.needs} here\n")
        return "left out", 0.0
    started = time.monotonic()
    with log.open("wb") as output:
        done = subprocess.run(
            check.command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **check.env},
            check=False,
        )
    return "held" if done.returncode == 0 else "FAILED", time.monotonic() - started


def _gpu() -> str | None:
    """Name and driver of the GPUs, as nvidia-smi tells them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    if shutil.which(query[0]) is None:
        return None
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return "; ".join(found.stdout.split("\n")).strip("; ") or None


def _machine(gpu: str) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("vllm", "torch", "triton"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return f"# make gpu-check\n\n{gpu}. {versions}, Python {platform.python_version()}. {commit}"


if __name__ == "__main__":
    sys.exit(main())
