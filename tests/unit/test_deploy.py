"""The files in deploy/ and Galton agree on names, paths and ports. Containers are not started."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from server.aliases import read_presets
from server.settings import Settings, variable
from tests.shared.frontends import PROFILES
from tests.shared.servers import DEMO, MODEL, REPO

DEPLOY = REPO / "deploy"
DEFAULT_PORT = 8000


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load(
        (DEPLOY / "frontends" / "open-webui.yaml").read_text()
    )["services"]
    return services


def test_open_webui_is_pointed_at_galton(services: dict[str, Any]) -> None:
    galton, webui = services["galton"], services["open-webui"]
    address = urlsplit(webui["environment"]["OPENAI_API_BASE_URL"])
    assert (address.hostname, address.port, address.path) == ("galton", DEFAULT_PORT, "/v1")
    assert galton["ports"] == [f"127.0.0.1:{DEFAULT_PORT}:{DEFAULT_PORT}"]
    assert webui["depends_on"] == {"galton": {"condition": "service_healthy"}}
    assert f":{DEFAULT_PORT}/health" in galton["healthcheck"]["test"][-1]
    assert galton["environment"]["VLLM_API_KEY"] == webui["environment"]["OPENAI_API_KEY"]


def test_its_model_is_an_alias_of_the_demo(services: dict[str, Any]) -> None:
    presets = read_presets(DEMO.parent / "presets.toml", [MODEL])
    assert services["open-webui"]["environment"]["DEFAULT_MODELS"] in presets.aliases


def test_variables_of_galton_exist(services: dict[str, Any]) -> None:
    ours = {variable(name) for name in Settings.__dataclass_fields__}
    given = {name for name in services["galton"]["environment"] if name.startswith("GALTON_")}
    assert given <= ours


def test_the_image_has_what_its_build_reads(services: dict[str, Any]) -> None:
    build = services["galton"]["build"]
    context = (DEPLOY / "frontends" / build["context"]).resolve()
    assert context == REPO
    kept = (context / f"{build['dockerfile']}.dockerignore").read_text().splitlines()
    for line in kept:
        assert not line.startswith("!") or (context / line[1:]).exists(), line
    read = {"requirements-cpu.lock", "requirements-cuda.lock", "pyproject.toml"}
    assert {f"!{name}" for name in read} <= set(kept)
    assert '"requirements-$device.lock"' in _setup()
    assert {"!loadtests", "!server", "!models", "!routing", "!README.md", "!LICENSE"} <= set(kept)


def _setup() -> str:
    return (DEPLOY / "setup.sh").read_text() + Path(REPO / "Makefile").read_text()


@pytest.mark.parametrize("name", PROFILES)
def test_the_documentation_has_each_frontend_and_its_variables(name: str) -> None:
    page = (DEPLOY / "frontends" / "README.md").read_text()
    profile = PROFILES[name]
    assert f"**{profile['name']}.**" in page
    for text in profile["set"].values():
        for variable_ in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
            assert variable_ in page, variable_
