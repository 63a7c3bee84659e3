"""`routing.bench.experts`, on a layer of no size."""

from __future__ import annotations

from routing.bench.experts import Layers, Shape, measure


def test_fewer_experts_per_token_are_read() -> None:
    found = measure(Layers(Shape(8, 4, 64, 32)), num_tokens=1, rounds=2)
    assert [(k, read) for k, read, _ in found] == [(4, 4), (2, 2), (1, 1)]
    assert all(seconds > 0 for *_, seconds in found)
