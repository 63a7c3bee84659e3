"""What a run writes down on its way: CSV files that a resumed run goes on with."""

from __future__ import annotations

import csv
import os
from pathlib import Path

CURVES, SCORES = "curves.csv", "scores.csv"


class Log:
    """A CSV that a resumed run goes on with."""

    def __init__(self, path: Path, columns: tuple[str, ...], step: int) -> None:
        kept = _kept_rows(path, step)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *kept])
        os.replace(partial, path)
        self.path = path

    def add(self, *rows: list[str]) -> None:
        """Write `rows` at once."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)


def _kept_rows(path: Path, step: int) -> list[list[str]]:
    """The rows of a CSV up to `step`: what was written after the last state is trained again."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row for row in rows if row and row[0].isdigit() and int(row[0]) <= step]
