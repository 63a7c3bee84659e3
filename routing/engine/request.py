"""One request to an engine without a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """routing: as a client gives it. temperature, seed: of the sampling of tokens."""

    prompt_token_ids: Sequence[int]
    routing: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None
