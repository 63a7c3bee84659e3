"""Programs of Debian's packages that tests use where they are installed: `make tools`."""

from __future__ import annotations

import shutil

import pytest


def tool(name: str) -> str:
    """The program's path; skips the test where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: make tools")
    return found
