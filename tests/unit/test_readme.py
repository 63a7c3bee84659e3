"""What the documents name exists."""

from __future__ import annotations

import re

from server.settings import Settings, variable
from tests.shared.servers import REPO

PAGES = [REPO / "CONTRIBUTING.md", *REPO.glob("README.md"), *REPO.glob("[a-z]*/**/README.md")]


def test_make_commands_exist() -> None:
    makefile = (REPO / "Makefile").read_text()
    for page in PAGES:
        text = page.read_text()
        named = re.findall(r"^make ([\w-]+)|`make ([\w-]+)", text, flags=re.MULTILINE)
        for target in {first or second for first, second in named}:
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page}: {target}"
    assert "make test" in (REPO / ".ci" / "run").read_text()


def test_every_setting_is_documented() -> None:
    settings = (REPO / "server" / "README.md").read_text()
    for name in Settings.__dataclass_fields__:
        assert f"`{variable(name)}`" in settings
        assert f"`--{name.replace('_', '-')}" in settings


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, heading = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{page}: {target}"
            if heading:
                headings = re.findall(r"^#+ (.+)$", file.read_text(), flags=re.MULTILINE)
                assert heading in map(slug, headings), f"{page}: {target}"


def slug(heading: str) -> str:
    """The fragment by which a page's heading is reached."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_test_that_the_docs_name_exists() -> None:
    tests = "".join(file.read_text() for file in (REPO / "tests").rglob("*.py"))
    named = re.findall(r"`(test_\w+)`", (REPO / "tests" / "README.md").read_text())
    assert len(named) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []
