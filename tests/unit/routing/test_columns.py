"""The three columns hold the same files and the same modes; the reference needs NumPy alone."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import routing
from routing.backend import BACKENDS
from routing.policy.modes import MODES
from routing.spec import RouterSpec
from routing.step import ARRAYS, sizes_of, zeros

COLUMNS = ("reference", "cpu", "gpu")
FILES = {"noise.py", "rule.py", "choice.py", "modes.py", "route.py"}
OF_A_STEP = {"begin.py", "step.py", "backend.py"}


@pytest.mark.parametrize("column", COLUMNS)
def test_columns_hold_the_same_files(column: str) -> None:
    folder = Path(routing.__file__).parent / column
    files = FILES if column == "reference" else FILES | OF_A_STEP
    assert files <= {file.name for file in folder.glob("*.py")}


@pytest.mark.parametrize("column", COLUMNS)
def test_columns_choose_by_every_mode(column: str) -> None:
    choose = set(import_module(f"routing.{column}.modes").CHOOSE)
    assert choose == set(MODES), (
        f"routing/{column}/modes.py lacks {sorted(set(MODES) - choose)} "
        f"and has {sorted(choose - set(MODES))} that is not declared"
    )


def test_codes_of_modes_are_places_in_counts() -> None:
    assert sorted(mode.code for mode in MODES.values()) == list(range(len(MODES)))


def test_every_backend_is_a_column() -> None:
    for name, target in BACKENDS.items():
        assert target.startswith(f"routing.{name}.backend:")


def test_reference_imports_no_compiler() -> None:
    code = (
        "import sys, routing.reference.route\n"
        "print(*{'numba', 'torch', 'triton', 'vllm'} & set(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == ""


def test_arrays_have_the_shapes_of_the_table() -> None:
    spec = RouterSpec((0, 3), 16, 4, 8)
    step = zeros(sizes_of(spec, 32, 5, 20))
    assert step.record_ids.shape == (32, 2, 8)
    assert step.observed_logits.shape == (20, 2, 16)
    assert step.slot_steering.shape == (5, 2, 16)
    assert [array.dtype for array in step] == [np.dtype(array.dtype) for array in ARRAYS]
    assert all(array.meaning for array in ARRAYS)
