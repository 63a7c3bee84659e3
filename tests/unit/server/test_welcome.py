"""What a server says once it is up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from routing.spec import RouterSpec
from server.settings import Settings
from server.welcome import text_of, url_of

ARGS = {"uds": None, "host": None, "port": 8000, "ssl_certfile": None, "api_key": None}


def args(**given: Any) -> Any:
    return SimpleNamespace(**{**ARGS, **given})


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://localhost:8000"),
        ({"host": "0.0.0.0", "port": 81}, "http://localhost:81"),
        ({"host": "10.0.0.7"}, "http://10.0.0.7:8000"),
        ({"host": "fe80::1", "ssl_certfile": "cert.pem"}, "https://[fe80::1]:8000"),
        ({"uds": "/run/galton"}, "--unix-socket /run/galton http://localhost"),
    ],
)
def test_where_it_is(given: dict[str, Any], url: str) -> None:
    assert url_of(args(**given)) == url


def test_what_it_serves_and_what_to_try() -> None:
    galton: Any = SimpleNamespace(
        spec=RouterSpec((0, 1), 16, 4, 8),
        settings=Settings(no_playground=True),
        file=SimpleNamespace(models=["its name"]),
        presets=SimpleNamespace(named={"fast": None, "precise": None}),
    )
    text = text_of(galton, args(api_key=["secret"]))
    assert "its name: 2 MoE layers of 16 experts, 4 per token, at most 8" in text
    assert "presets: fast, precise" in text
    assert "playground" not in text
    assert "secret" not in text
    assert '-H "Authorization: Bearer $VLLM_API_KEY"' in text
