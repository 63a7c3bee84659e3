"""What an engine has counted, of all its workers, read from their memory: no step waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from routing.counts import MAX_GROUPS, PHASES, Counts
from routing.engine import shared_memory
from routing.spec import RouterSpec


class WorkerCounts(NamedTuple):
    """One worker's. layers: decoder layer index of each row of assignments. counts_tokens: whether
    its tokens are no other worker's, too.
    """

    layers: tuple[int, ...]
    counts: Counts
    counts_tokens: bool = True


class Totals(NamedTuple):
    """What has been counted at one time; a difference of two is what was counted in between.

    layers: decoder layer indices, of the rows of what follows: assignments [L, E] (token, expert)
    pairs; active_experts [L] distinct experts of each step, added up, and steps [L]; router_entropy
    [L] nats, added up, and tokens [L]. Of groups, see `routing.counts`: routed_tokens
    [G, PHASES]; group_assignments [G], in all layers. last_step: when the last one began, seconds
    since 1970, 0 before the first.
    """

    layers: tuple[int, ...]
    assignments: npt.NDArray[np.int64]
    active_experts: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    router_entropy: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]
    routed_tokens: npt.NDArray[np.int64]
    group_assignments: npt.NDArray[np.int64]
    last_step: float

    def since(self, before: Totals) -> Totals:
        """What was counted after that."""
        assert self.layers == before.layers, "totals of two engines"
        pairs: Any = zip(self[1:-1], before[1:-1], strict=True)
        return Totals(*[self.layers, *(now - then for now, then in pairs), self.last_step])


class EngineCounts:
    """The sum over workers, each of which counts what no other of its replica does.

    Pipeline stages hold different layers, data-parallel replicas the same ones. A step that runs
    may be counted in some layers and not yet in others.
    """

    def __init__(self, workers: Sequence[WorkerCounts]) -> None:
        assert workers, "no worker counts"
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

    def totals(self) -> Totals:
        """As of now."""
        layers = tuple(sorted({layer for worker in self._workers for layer in worker.layers}))
        num_experts = self._workers[0].counts.assignments.shape[1]
        totals = Totals(
            layers,
            np.zeros((len(layers), num_experts), np.int64),
            np.zeros(len(layers), np.int64),
            np.zeros(len(layers), np.int64),
            np.zeros(len(layers)),
            np.zeros(len(layers), np.int64),
            np.zeros((MAX_GROUPS, len(PHASES)), np.int64),
            np.zeros(MAX_GROUPS, np.int64),
            max(float(worker.counts.last_step[0]) for worker in self._workers),
        )
        for worker_layers, counts, counts_tokens in self._workers:
            rows = np.searchsorted(layers, worker_layers)
            totals.assignments[rows] += counts.assignments
            totals.active_experts[rows] += counts.active_experts
            totals.steps[rows] += counts.num_steps
            totals.router_entropy[rows] += counts.router_entropy
            totals.tokens[rows] += counts.routed_tokens.sum()
            totals.group_assignments[:] += counts.group_assignments
            if counts_tokens:
                totals.routed_tokens[:] += counts.routed_tokens
        return totals

    def progress(self) -> int:
        """Grows with every layer that routes a token."""
        return int(sum(worker.counts.assignments.sum() for worker in self._workers))
