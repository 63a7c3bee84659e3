"""The random models of `make bench-full`: what they are built from."""

from __future__ import annotations

import pytest

from models.shapes import SHAPES, configuration


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_says_more_than_all_have(shape: str) -> None:
    found = configuration(shape)
    family, more = SHAPES[shape]
    assert found.model_type == family
    assert more == {key: getattr(found, key) for key in more}
    assert found.num_hidden_layers == 8
