"""What an engine has counted, of all its workers, read from their memory: no step waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routing.counts import PHASES, Counts
from routing.engine import shared_memory
from routing.policy.modes import MODES
from routing.spec import RouterSpec


class WorkerCounts(NamedTuple):
    """One worker's. layers: decoder layer index of each row of assignments. counts_tokens: whether
    its tokens are no other worker's, too.
    """

    layers: tuple[int, ...]
    counts: Counts
    counts_tokens: bool = True


class EngineCounts:
    """The sum over workers, each of which counts what no other of its replica does.

    Pipeline stages hold different layers, data-parallel replicas the same ones. A step that runs
    may be counted in some layers and not yet in others.
    """

    def __init__(self, workers: Sequence[WorkerCounts]) -> None:
        self._workers = workers

    @classmethod
    def of(cls, described: Sequence[dict[str, Any]]) -> EngineCounts:
        """described: `galton_describe` of every worker. Raises OSError."""
        workers = []
        for worker in described:
            if worker["counts"] is not None:
                spec = RouterSpec.from_dict(worker["spec"])
                memory = shared_memory.open_to_read(worker["counts"])
                counts = Counts.on(memory, len(spec.layers), spec.num_experts)
                workers.append(WorkerCounts(spec.layers, counts, worker["counts_tokens"]))
        return cls(workers)

    def assignments(self) -> dict[int, npt.NDArray[np.int64]]:
        """{layer: [E]} (token, expert) pairs."""
        total: dict[int, npt.NDArray[np.int64]] = {}
        for layers, counts, _ in self._workers:
            for layer, row in zip(layers, counts.assignments.copy(), strict=True):
                total[layer] = total.get(layer, 0) + row
        return total

    def routed_tokens(self) -> dict[tuple[str, str], int]:
        """{(mode, phase): tokens}."""
        table = sum(w.counts.routed_tokens for w in self._workers if w.counts_tokens)
        assert isinstance(table, np.ndarray), "no worker counts"
        return {
            (mode, phase): int(table[i, j])
            for i, mode in enumerate(MODES)
            for j, phase in enumerate(PHASES)
        }

    def progress(self) -> int:
        """Grows with every layer that routes a token."""
        return int(sum(worker.counts.assignments.sum() for worker in self._workers))
