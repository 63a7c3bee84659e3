"""What was promised, what was seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the table that `make promises` prints."""

    promise: str
    bound: str
    measured: str
    is_kept: bool

    def __str__(self) -> str:
        kept = "yes" if self.is_kept else "**no**"
        return f"| {self.promise} | {self.bound} | {self.measured} | {kept} |"
