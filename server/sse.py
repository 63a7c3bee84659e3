"""Server-sent events: all that is known of their text, which vLLM's handlers yield ready-made.

No chunk is held back. What is searched for in a chunk cannot stand inside JSON text: its
quotes would be escaped there.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final

MEDIA_TYPE: Final = "text/event-stream"
DONE: Final = "data: [DONE]\n\n"  # how OpenAI's streams end
# A JSON string as the key's value.
_REASONING: Final = re.compile(r'"reasoning":("(?:[^"\\]|\\.)*")')

Routing = dict[str, Any]


async def with_routing(
    stream: AsyncIterator[str],
    is_last: Callable[[str], bool],
    echo: Callable[[], Routing],
    news: Callable[[], Routing | None],
) -> AsyncGenerator[str, None]:
    """Put `routing` on chunks: the echo on the one that `is_last`, on others the news, if any.

    is_last is called for every chunk, in order.
    """
    async for chunk in stream:
        routing = echo() if is_last(chunk) else news()
        if routing is not None:
            text = json.dumps(routing, separators=(",", ":"))
            chunk = f'{chunk.rstrip()[:-1]},"routing":{text}}}\n\n'
        yield chunk


async def with_reasoning_content(stream: AsyncIterator[str]) -> AsyncGenerator[str, None]:
    """Give every reasoning delta of a chat stream the field's older name, too.

    vLLM renamed it in 2025; many clients still read `reasoning_content` only.
    """
    async for chunk in stream:
        yield _REASONING.sub(r'\g<0>,"reasoning_content":\1', chunk)


def name_reasoning_twice(body: dict[str, Any]) -> None:
    """Give every message of a chat answer that is not streamed the older name, too."""
    for choice in body["choices"]:
        choice["message"]["reasoning_content"] = choice["message"].get("reasoning")


def is_error(event: str) -> bool:
    """Whether vLLM's stream ends in an error here, status 200 being sent already."""
    return event.startswith(('data: {"error"', "event: error"))


def has_usage(chunk: str) -> bool:
    """The chunk of OpenAI's streams with `usage`, which has no choices."""
    return '"choices":[]' in chunk


def is_message_delta(event: str) -> bool:
    """Anthropic's event with `usage`."""
    return event.startswith("event: message_delta")


class Finish:
    """The chunk with which the last of a request's choices finishes."""

    def __init__(self, num_choices: int) -> None:
        self.unfinished = num_choices

    def __call__(self, chunk: str) -> bool:
        finished = chunk.count('"finish_reason":"')
        self.unfinished -= finished
        return bool(finished) and self.unfinished == 0
