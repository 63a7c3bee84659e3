"""What an answer carries of its routing: traces and statistics, whole or chunk by chunk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from routing.spec import RouterSpec
from routing.trace.rows import Rows, latest, row_dtype, statistics_of, tokens_of, trace_of


class Report:
    """What one HTTP request wants to know of its tokens' routing, for each of its choices."""

    def __init__(self, spec: RouterSpec, include: Sequence[str]) -> None:
        self.include = tuple(include)
        self._spec = spec
        self._unread: defaultdict[int, list[npt.NDArray[np.uint8]]] = defaultdict(list)
        self._read: defaultdict[int, list[Rows]] = defaultdict(list)

    def add(self, choice: int, rows: npt.NDArray[np.uint8]) -> None:
        """Take in rows of a choice, as bytes."""
        self._unread[choice].append(rows)

    def news(self) -> dict[str, Any] | None:
        """What is known of the tokens since the last call, for a chunk of a stream."""
        return self._tokens(self._take(), whole=False) or None

    def rest(self) -> dict[str, Any]:
        """What is known of the tokens since the last call of `news`, and statistics of all."""
        return {**(self.news() or {}), **self._statistics()}

    def whole(self) -> dict[str, Any]:
        """What is known of all tokens, from position 0 on, and their statistics."""
        self._take()
        return {**self._statistics(), **self._tokens(self._all(), whole=True)}

    def _tokens(self, by_choice: dict[int, Rows], *, whole: bool) -> dict[str, Any]:
        """Token by token, in the forms that were asked for; of a chunk without tokens nothing."""
        out: dict[str, Any] = {}
        rows = by_choice.items()
        if not rows and not whole:
            return out
        if "trace" in self.include:
            out["trace"] = [self._trace(choice, of_it, whole=whole) for choice, of_it in rows]
        if "tokens" in self.include:
            out["tokens"] = [{"index": choice, **tokens_of(of_it)} for choice, of_it in rows]
        return out

    def _statistics(self) -> dict[str, Any]:
        if "stats" not in self.include:
            return {}
        rows = self._all()
        of_choices = {choice: statistics_of(rows[choice], self._spec) for choice in rows}
        return {"stats": [{"index": choice, **found} for choice, found in of_choices.items()]}

    def _all(self) -> dict[int, Rows]:
        parts = sorted(self._read.items())
        return {choice: latest(np.concatenate(rows)) for choice, rows in parts}

    def _take(self) -> dict[int, Rows]:
        taken = {}
        for choice, chunks in self._unread.items():
            if chunks:
                rows = np.concatenate(chunks).view(row_dtype(self._spec))
                chunks.clear()
                self._read[choice].append(rows)
                taken[choice] = latest(rows)
        return taken

    def _trace(self, choice: int, rows: Rows, *, whole: bool) -> dict[str, Any]:
        first = 0 if whole else int(rows["position"][0])
        weights = "weights" in self.include
        trace = trace_of(rows, self._spec, weights=weights, first_position=first)
        return {"index": choice, "data": trace.encode_base64()}
