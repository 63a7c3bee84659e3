"""The machine that something is measured on."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu() -> dict[str, str]:
    """What Linux tells of a CPU: "model name", "flags" and more, where it does."""
    pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
