"""The experts' load as it may be told, in all and lately: for /metrics and for statistics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from routing.counts import Groups
from routing.engine.counts import EngineCounts, Totals
from routing.spec import RouterSpec

WINDOW_SECONDS: Final = 60.0
# Between two totals that are kept to be compared with.
SPACING_SECONDS: Final = 1.0


class Load:
    """Of one engine. Reading the workers' memory asks the engine nothing.

    min_tokens: the totals change once so many more were routed; what changes from one reading to
    the next is never fewer tokens' experts.
    """

    def __init__(
        self,
        spec: RouterSpec,
        counts: EngineCounts,
        groups: Groups,
        min_tokens: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.groups = groups
        self._counts = counts
        self._min_tokens = min_tokens
        self._clock = clock
        self._totals = counts.totals()
        self._kept = deque([(clock(), self._totals)])

    def totals(self) -> Totals:
        """Since the start."""
        totals = self._counts.totals()
        more = totals.routed_tokens.sum() - self._totals.routed_tokens.sum()
        if more >= self._min_tokens:
            self._totals = totals
        return self._totals

    def lately(self, totals: Totals) -> Totals:
        """Of what `totals` has just returned: in the last minute, or since the call before where
        that is longer ago.
        """
        now = self._clock()
        while len(self._kept) > 1 and self._kept[1][0] <= now - WINDOW_SECONDS:
            self._kept.popleft()
        if now - self._kept[-1][0] >= SPACING_SECONDS:
            self._kept.append((now, totals))
        return totals.since(self._kept[0][1])

    def native_assignments(self, num_tokens: int) -> int:
        """What the model's own top-k would have computed for them, in all layers."""
        return num_tokens * self.spec.top_k * len(self.spec.layers)
