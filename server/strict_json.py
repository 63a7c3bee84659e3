"""Request bodies as RFC 8259 has JSON: what Python's parser forgives is refused with a 400.

NaN, infinities and half surrogate pairs would travel on and fail deep inside, in an answer
that cannot be encoded; of two equal keys one would be ignored. And a body has a greatest number of
parts, each of which vLLM tries as every kind of part: a wrong one makes fifteen errors.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

import jiter
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

MAX_PARTS: Final = 2**15  # objects and lists; a long conversation with many tools has a tenth


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
    except ValueError as error:
        raise HTTPException(400, f"the body is not valid JSON: {error}") from None
    _check(value)
    return value


def _check(value: Any) -> None:
    """Refuse what no double holds, and too many parts. Raises HTTPException."""
    pending: list[Any] = [[value]]
    num_parts = 0
    while pending:
        part = pending.pop()
        values = part.values() if isinstance(part, dict) else part
        # A million token ids are done with here, without a step for each.
        if {float, dict, list}.isdisjoint(map(type, values)):
            continue
        for inner in values:
            if isinstance(inner, dict | list):
                pending.append(inner)
                num_parts += 1
            elif isinstance(inner, float) and math.isinf(inner):  # as jiter reads 1e999
                raise HTTPException(
                    400, "the body is not valid JSON: a number is too large for a double"
                )
        if num_parts > MAX_PARTS:
            raise HTTPException(400, f"the body must have at most {MAX_PARTS:,} objects and lists")
