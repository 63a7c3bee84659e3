"""What several workers count and describe, merged."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import pytest

from routing.counts import Counts
from routing.engine import shared_memory
from routing.engine.counts import EngineCounts, WorkerCounts
from routing.spec import RouterSpec

SPEC = RouterSpec(layers=(0, 2), num_experts=2, top_k=1, max_top_k=2)


def _counts(rows: list[list[int]], tokens: dict[int, list[int]]) -> Counts:
    counts = Counts.on(bytearray(Counts.num_bytes(len(rows), 2)), len(rows), 2)
    counts.assignments[:] = rows
    for mode, phases in tokens.items():
        counts.routed_tokens[mode] = phases
    return counts


def test_replicas_are_added_and_stages_joined() -> None:
    engine = EngineCounts(
        [
            WorkerCounts((0,), _counts([[1, 2]], {0: [3, 0]})),
            # The next stage: the same tokens.
            WorkerCounts((2,), _counts([[3, 0]], {0: [3, 0]}), counts_tokens=False),
            WorkerCounts((0, 2), _counts([[10, 0], [5, 5]], {0: [9, 1], 1: [0, 5]})),
        ]
    )
    rows = {layer: row.tolist() for layer, row in engine.assignments().items()}
    assert rows == {0: [11, 2], 2: [8, 5]}
    tokens = {key: count for key, count in engine.routed_tokens().items() if count}
    assert tokens == {("top_k", "prefill"): 12, ("top_k", "decode"): 1, ("sample", "decode"): 5}
    assert engine.progress() == 26


def _worker(pipe: Connection) -> None:
    memory, path = shared_memory.create(Counts.num_bytes(2, 2))
    counts = Counts.on(memory, 2, 2)
    pipe.send({"spec": SPEC.as_dict(), "counts": path, "counts_tokens": True})
    for _ in range(2):
        pipe.recv()
        counts.assignments[:] += 1
        pipe.send(None)


def test_counts_of_another_process_are_seen_as_they_grow_and_outlive_it() -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_worker, args=(theirs,))
    worker.start()
    engine = EngineCounts.of([ours.recv(), {"spec": SPEC.as_dict(), "counts": None}])
    for seen in (4, 8):
        ours.send(None)
        ours.recv()
        assert engine.progress() == seen
    worker.join()
    assert engine.assignments()[2].tolist() == [2, 2]
    with pytest.raises(OSError, match="No such file"):
        EngineCounts.of([{"spec": SPEC.as_dict(), "counts": f"/proc/{worker.pid}/fd/3"}])


def test_a_reader_cannot_write() -> None:
    memory, path = shared_memory.create(Counts.num_bytes(1, 1))
    counts = Counts.on(shared_memory.open_to_read(path), 1, 1)
    assert not counts.assignments.flags.writeable
    Counts.on(memory, 1, 1).routed_tokens[0, 0] = 7
    assert np.count_nonzero(counts.routed_tokens) == 1


def test_model_has_the_layers_of_all_its_workers() -> None:
    stages = [
        replace(SPEC, layers=(0, 1)),
        replace(SPEC, layers=(2, 3)),
        replace(SPEC, layers=(0, 1)),
    ]
    assert RouterSpec.union(stages) == replace(SPEC, layers=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="the workers' routers differ"):
        RouterSpec.union([SPEC, replace(SPEC, max_top_k=1)])
