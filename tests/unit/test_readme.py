"""What the documents name exists."""

from __future__ import annotations

import re
from pathlib import Path

from server.settings import Settings, variable
from tests.shared.servers import REPO

README = (REPO / "README.md").read_text()


def test_make_commands_exist() -> None:
    makefile = (REPO / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (REPO / ".ci" / "run").read_text()


def test_every_setting_is_documented() -> None:
    for name in Settings.__dataclass_fields__:
        assert f"`{variable(name)}`" in README
        assert f"`--{name.replace('_', '-')}" in README


def test_links_lead_somewhere() -> None:
    for page in (REPO / "README.md", *REPO.glob("*/README.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / Path(target)).exists(), f"{page}: {target}"


def test_every_test_that_the_docs_name_exists() -> None:
    tests = "".join(file.read_text() for file in (REPO / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (REPO / "tests" / "README.md").read_text())
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []
