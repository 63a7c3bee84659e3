"""What was measured so far, in results.json: written row by row, so that a kill loses one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtests.quality.measure import Measured, as_json, from_json
from loadtests.quality.rows import Row
from loadtests.quality.usage import Usage

HERE: Final = Path(__file__).parent
RESULTS: Final = "results.json"


class Results:
    """What was measured so far, in results.json."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        self.path, self.settings = out / RESULTS, settings
        self.measured: dict[str, Measured] = {}
        self.usages: dict[str, Usage] = {}

    @classmethod
    def at(cls, out: Path, settings: dict[str, Any], rows: Sequence[Row]) -> Results:
        """Those of `rows` that lie there, if they were made with the same settings."""
        if (out / RESULTS).exists():
            results = cls.load(out)
            if results.settings == settings:
                kept = (m for m in results.measured.values() if m.row in rows)
                results.measured = {m.row.key: m for m in kept}
                return results
        return cls(out, settings)

    @classmethod
    def load(cls, out: Path) -> Results:
        """Whatever lies there."""
        stored = json.loads((out / RESULTS).read_text())
        results = cls(out, stored["settings"])
        results.measured = {m.row.key: m for m in map(from_json, stored["rows"])}
        results.usages = {n: Usage.from_json(u) for n, u in stored["usages"].items()}
        return results

    def save(self) -> None:
        """Write them at once or not at all."""
        found = {
            "settings": self.settings,
            "usages": {name: found.as_json() for name, found in self.usages.items()},
            "rows": [as_json(measured) for measured in self.measured.values()],
        }
        partial = self.path.with_suffix(".partial")
        # A line for each row, so that a diff shows which changed.
        text = json.dumps(found).replace('{"row"', '\n{"row"')
        partial.write_text(f"{text}\n")
        os.replace(partial, self.path)
