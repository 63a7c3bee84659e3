"""Prefix caching and routing: which key-value blocks may be shared.

Keys and values depend on the experts that computed them. A block that holds a token
routed by a policy therefore gets that policy in its hash; a block of native tokens, the
prompt under `scope: decode` among them, keeps vLLM's hash and is shared as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.core import kv_cache_utils
from vllm.v1.request import Request

from routing.engine.hooks import wrap
from routing.engine.travel import REQUEST_KEY, routing_of

_ATTRIBUTE = "_galton_cache_key"


def install() -> None:
    """Wrap the block hash's extra keys. Idempotent."""
    # The one helper of generate_block_hash_extra_keys that is given the block's range;
    # that function itself is imported by name into several modules.
    wrap(kv_cache_utils, "_gen_prompt_embeds_extra_hash_keys", _extra_keys)


def _extra_keys(
    original: Callable[..., list[Any]], request: Request, start: int, end: int
) -> list[Any]:
    keys = original(request, start, end)
    first, key = _cache_key(request)
    return keys if key is None or end <= first else [*keys, (REQUEST_KEY, key)]


def _cache_key(request: Request) -> tuple[int, str | None]:
    """Position of the first token routed by a policy, and the key of blocks from there on.

    Found once per request.
    """
    cached: tuple[int, str | None] | None = getattr(request, _ATTRIBUTE, None)
    if cached is None:
        routing = routing_of(request.sampling_params)
        cached = (0, None)
        if routing is not None and routing.policy is not None:
            length = request.num_prompt_tokens
            cached = (routing.policy.first_position(length), routing.policy.cache_key(length))
        setattr(request, _ATTRIBUTE, cached)
    return cached
