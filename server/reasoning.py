"""`reasoning_content` beside `reasoning` in chat answers, where a reasoning parser runs.

vLLM renamed the field in 2025; many clients still read the older name only.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

# A JSON string as the key's value. It cannot match inside another string: quotes are escaped there.
_REASONING = re.compile(r'"reasoning":("(?:[^"\\]|\\.)*")')


def name_twice(answer: dict[str, Any]) -> None:
    """Give every message of a whole chat answer both names."""
    for choice in answer["choices"]:
        choice["message"]["reasoning_content"] = choice["message"].get("reasoning")


async def name_twice_in_stream(stream: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Give every reasoning delta of a chat stream both names."""
    async for chunk in stream:
        yield _REASONING.sub(r'\g<0>,"reasoning_content":\1', chunk)
