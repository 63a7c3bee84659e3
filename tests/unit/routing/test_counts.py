"""What several workers count and describe, merged."""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import pytest

from routing.counts import MAX_GROUPS, PHASES, Counts, Groups, imbalance, load_entropy
from routing.engine import shared_memory
from routing.engine.counts import EngineCounts, WorkerCounts
from routing.policy.modes import MODES
from routing.spec import RouterSpec

SPEC = RouterSpec(layers=(0, 2), num_experts=2, top_k=1, max_top_k=2)


def _counts(rows: list[list[int]], tokens: dict[int, list[int]]) -> Counts:
    counts = Counts.on(bytearray(Counts.num_bytes(len(rows), 2)), len(rows), 2)
    counts.assignments[:] = rows
    counts.active_experts[:] = np.count_nonzero(rows, axis=1)
    counts.router_entropy[:] = 0.5
    counts.num_steps[:] = 1
    for group, phases in tokens.items():
        counts.routed_tokens[group] = [*phases, 0]
        counts.group_assignments[group] = sum(phases)
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
    totals = engine.totals()
    assert totals.layers == (0, 2)
    assert totals.assignments.tolist() == [[11, 2], [8, 5]]
    assert totals.active_experts.tolist() == [3, 3]
    assert totals.steps.tolist() == [2, 2]
    assert totals.router_entropy.tolist() == [1, 1]
    assert totals.tokens.tolist() == [18, 18]
    assert totals.routed_tokens[:2].tolist() == [[12, 1, 0], [0, 5, 0]]
    assert totals.routed_tokens[2:].sum() == 0
    assert totals.group_assignments[:2].tolist() == [16, 5]
    assert engine.progress() == 26
    assert engine.totals().since(totals).assignments.tolist() == [[0, 0], [0, 0]]


def test_groups_are_numbered_by_mode_and_preset_until_there_are_too_many() -> None:
    groups = Groups()
    assert [groups.number(name, None) for name in MODES] == [m.code for m in MODES.values()]
    named = [groups.number("sample", f"preset {i}") for i in range(MAX_GROUPS)]
    assert named[: MAX_GROUPS - len(MODES)] == list(range(len(MODES), MAX_GROUPS))
    assert set(named[MAX_GROUPS - len(MODES) :]) == {MODES["sample"].code}
    assert groups.number("sample", "preset 1") == named[1]
    assert groups.pairs()[named[1]] == ("sample", "preset 1")
    assert len(groups.pairs()) == MAX_GROUPS


def test_phases_name_those_of_a_token_first() -> None:
    assert PHASES[:2] == ("prefill", "decode")  # by whether it was generated


def test_imbalance_and_entropy_of_loads() -> None:
    loads = np.array([[4, 4, 4, 4], [8, 0, 0, 0], [4, 4, 0, 0], [0, 0, 0, 0]])
    assert imbalance(loads).tolist()[:3] == [1, 4, 2]
    np.testing.assert_allclose(load_entropy(loads)[:3], [1, 0, math.log(2) / math.log(4)])
    assert np.isnan(imbalance(loads)[3])
    assert np.isnan(load_entropy(loads)[3])


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
    assert engine.totals().assignments.tolist() == [[2, 2], [2, 2]]
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
