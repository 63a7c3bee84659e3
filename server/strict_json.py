"""Request bodies as RFC 8259 has JSON: what Python's parser forgives is refused with a 400.

NaN, infinities and half surrogate pairs would travel on and fail deep inside, in an answer
that cannot be encoded; of two equal keys one would be ignored.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Coroutine
from typing import Any

import jiter
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute


class StrictRoute(APIRoute):
    """A route whose JSON body is parsed by `parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return handle_strictly


class _StrictRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = parse_json(await self.body())
        return self._json


def parse_json(body: bytes) -> Any:
    """The value of a UTF-8 JSON document. Raises HTTPException: a 400 that says what is wrong."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        value = jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
        if _has_infinity(value):  # jiter reads 1e999 as one
            raise ValueError("a number is too large for a double")
    except ValueError as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from None
    return value


def _has_infinity(value: Any) -> bool:
    """Whether any number is infinite. Depth is what jiter allows, 200."""
    if isinstance(value, float):
        return math.isinf(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    # A million token ids are done with here, without a call for each.
    return not {float, dict, list}.isdisjoint(map(type, value)) and any(map(_has_infinity, value))
