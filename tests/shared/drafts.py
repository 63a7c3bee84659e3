"""How tokens are drafted in tests: vLLM's option `speculative_config`."""

from __future__ import annotations

from typing import Any


def ngrams(num_tokens: int, method: str = "ngram") -> dict[str, Any]:
    """So many, guessed from what came before them."""
    return {
        "method": method,
        "num_speculative_tokens": num_tokens,
        "prompt_lookup_max": 3,
        "prompt_lookup_min": 1,
    }
