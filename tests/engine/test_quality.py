"""`make quality`: rows of it on the real server."""

from __future__ import annotations

import pytest

from loadtests.quality.measure import (
    as_json,
    from_json,
    measure,
    score,
)
from loadtests.quality.rows import DEMO, Row
from models.demo import EXPERTS, LAYERS
from tests.shared.servers import Server


@pytest.mark.parametrize("row", [
    Row("sample 1, decode", DEMO, {"mode": "sample"}, draws=True),
    Row("top_k 2", DEMO, {"mode": "top_k", "top_k": 2, "scope": "all"}),
    Row("preset precise", DEMO, {"mode": "not sent"}, "precise"),
])  # fmt: skip
def test_a_row_is_measured_on_the_real_server(server: Server, row: Row) -> None:
    measured, loads = measure(server.url, row, per_task=1, sampled_per_task=1)
    everything = score(measured.scores, "all")
    assert everything is not None
    assert everything.total == 13
    assert loads.shape == (13, LAYERS, EXPERTS)
    assert measured.experts == row.routing.get("top_k", 4)
    assert 1 < measured.busiest < 8
    if row.draws:
        assert 0.3 < measured.overlap < 1
        assert measured.passes is not None
        assert measured.passes.share == sorted(measured.passes.share)
    else:
        assert measured.passes is None
    assert from_json(as_json(measured)) == measured
