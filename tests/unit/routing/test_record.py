"""What is recorded of tokens, as numbers and as parts of a response."""

from __future__ import annotations

import math

import numpy as np
import pytest

from routing.reference.rule import clamp, measures
from routing.spec import RouterSpec
from routing.trace import Trace
from routing.trace.report import Report
from routing.trace.rows import Rows, latest, row_dtype

SPEC = RouterSpec((1, 4), 8, 2, 3)


def rows_of(positions: list[int], ids: list[list[int]], *, num_prompt_tokens: int = 2) -> Rows:
    """Tokens with the same experts in both layers."""
    rows = np.zeros(len(positions), row_dtype(SPEC))
    rows["position"] = positions
    rows["generated"] = rows["position"] >= num_prompt_tokens
    rows["topk_ids"] = np.array(ids, np.int16)[:, None, :]
    rows["topk_weights"] = 0.25
    rows["entropy"] = np.array(positions)[:, None]
    return rows


def report_of(include: list[str], *chunks: Rows) -> Report:
    report = Report(SPEC, include)
    for chunk in chunks:
        report.add(0, chunk.view(np.uint8))
    return report


def test_measures_are_those_of_the_founding_example() -> None:
    p = 1 / (1 + math.exp(-1))
    nats = -p * math.log(p) - (1 - p) * math.log(1 - p)
    for logits, used, native, expected in (
        ([2, 1], [0], [0], (nats, 2 * p - 1, 1)),
        ([2, 1], [1], [0], (nats, 1 - 2 * p, 0)),
        ([0, 0], [1, 0], [1], (math.log(2), 0.5, 1)),
    ):
        found = measures(clamp(np.array(logits)), np.array(used), np.array(native))
        assert found == pytest.approx(expected)


def test_measures_of_hostile_logits_are_finite() -> None:
    specials = [1e4, -1e4, 3e38, np.inf, -np.inf, np.nan, 0, 0]
    ids = np.array([0, 1])
    for logits in (specials, [np.nan] * 8, [-np.inf] * 8, [3e38] * 8):
        assert np.isfinite(measures(clamp(np.array(logits, np.float32)), ids, ids)).all()


def test_later_row_of_a_token_counts() -> None:
    rows = rows_of([0, 1, 2, 1, 2, 3], [[i, 7, -1] for i in range(6)])
    assert latest(rows)["topk_ids"][:, 0, 0].tolist() == [0, 3, 4, 5]


def test_whole_report_starts_at_zero_and_marks_what_was_not_computed() -> None:
    report = report_of(["trace", "weights"], rows_of([2, 3], [[5, 1, -1], [6, 2, 0]]))
    (entry,) = report.whole()["trace"]
    trace = Trace.decode(entry["data"])
    assert entry["index"] == 0
    assert trace.topk_ids[:, 1].tolist() == [[-1] * 3, [-1] * 3, [5, 1, -1], [6, 2, 0]]
    assert trace.topk_weights is not None
    assert trace.topk_weights[:, 0, 0].tolist() == [0, 0, 0.25, 0.25]


def test_news_come_once_and_statistics_of_all_at_the_end() -> None:
    report = report_of(["trace", "stats"], rows_of([0, 1], [[1, 2, -1], [1, 3, -1]]))
    first = report.news()
    assert first is not None
    assert Trace.decode(first["trace"][0]["data"]).first_position == 0
    assert report.news() is None
    report.add(0, rows_of([2], [[4, -1, -1]]).view(np.uint8))
    rest = report.rest()
    assert Trace.decode(rest["trace"][0]["data"]).first_position == 2
    (stats,) = rest["stats"]
    assert (stats["prompt"]["tokens"], stats["generated"]["tokens"]) == (2, 1)
    layer = stats["prompt"]["layers"][1]
    assert layer["layer"] == 4
    assert layer["assignments"] == {"1": 2, "2": 1, "3": 1}
    assert layer["distinct_experts"] == 3
    assert layer["entropy_nats"] == 0.5
    assert stats["generated"]["layers"][0]["assignments"] == {"4": 1}


def test_phase_without_tokens_has_no_layers() -> None:
    (stats,) = report_of(["stats"], rows_of([0], [[1, 2, -1]])).whole()["stats"]
    assert stats["generated"] == {"tokens": 0, "layers": []}
