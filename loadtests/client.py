"""A client of the API: many requests at once, and of each what came back and when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from tqdm import tqdm  # type: ignore[import-untyped]

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
IN_FLIGHT: Final = 32
TIMEOUT_SECONDS: Final = 600

Body = Mapping[str, Any]


class RequestError(Exception):
    """A request that was refused, or that did not reach its end."""


@dataclass
class Answer:
    """What a request was answered.

    texts: of its choices, in their order. usage: the tokens counted by the server. routing: the
    echo of the policy, see routing/README.md; None where the server sends none. seconds: until the
    end. Of streamed answers only, ttft_seconds: until the first text, and itl_seconds: between one
    chunk with text of a choice and the next.
    """

    texts: list[str]
    usage: dict[str, int]
    routing: dict[str, Any] | None
    seconds: float
    ttft_seconds: float | None = None
    itl_seconds: list[float] = field(default_factory=list)


def ask(
    url: str,
    bodies: Sequence[Body],
    *,
    path: str = CHAT,
    in_flight: int = IN_FLIGHT,
    progress: str = "",
) -> list[Answer]:
    """Send all, at most `in_flight` at once; the answers in the order of the bodies.

    progress: the label of a progress bar; none if empty. Raises RequestError at the first request
    that fails, and gives up the others.
    """
    try:
        return asyncio.run(_ask(url, bodies, path, in_flight, progress))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _ask(
    url: str, bodies: Sequence[Body], path: str, in_flight: int, progress: str
) -> list[Answer]:
    turn = asyncio.Semaphore(in_flight)
    bar = tqdm(total=len(bodies), desc=progress, leave=False, mininterval=1, disable=not progress)
    async with Client(url, in_flight) as client:

        async def one(body: Body) -> Answer:
            async with turn:
                answer = await client.ask(body, path)
            bar.update()
            return answer

        with bar:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(body)) for body in bodies]
    return [task.result() for task in tasks]


class Client:
    """Connections to one server; an asynchronous context."""

    def __init__(self, url: str, connections: int = IN_FLIGHT) -> None:
        limits = httpx.Limits(max_connections=connections)
        self._http = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, limits=limits)

    async def __aenter__(self) -> Client:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._http.__aexit__(*error)

    async def ask(self, body: Body, path: str = CHAT) -> Answer:
        """Send one request; streamed if its body says so. Raises RequestError."""
        try:
            return await (self._streamed if body.get("stream") else self._whole)(body, path)
        except httpx.HTTPError as error:
            raise RequestError(str(error) or type(error).__name__) from error

    async def _whole(self, body: Body, path: str) -> Answer:
        began = time.perf_counter()
        response = await self._http.post(path, json=body)
        seconds = time.perf_counter() - began
        _check(response, response.text)
        answer = response.json()
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        texts = [_text(choice) for choice in choices]
        return Answer(texts, answer["usage"], answer.get("routing"), seconds)

    async def _streamed(self, body: Body, path: str) -> Answer:
        body = {"stream_options": {"include_usage": True}, **body}
        texts: dict[int, str] = {}
        last_text: dict[int, float] = {}
        answer = Answer([], {}, None, 0.0)
        began = time.perf_counter()
        async with self._http.stream("POST", path, json=body) as response:
            _check(response, "" if response.is_success else (await response.aread()).decode())
            async for event in _events(response):
                now = time.perf_counter()
                answer.usage = event.get("usage") or answer.usage
                answer.routing = event.get("routing") or answer.routing
                for choice in event.get("choices", ()):
                    index, text = choice["index"], _text(choice)
                    texts[index] = texts.get(index, "") + text
                    if not text:
                        continue
                    if answer.ttft_seconds is None:
                        answer.ttft_seconds = now - began
                    if index in last_text:
                        answer.itl_seconds.append(now - last_text[index])
                    last_text[index] = now
        answer.seconds = time.perf_counter() - began
        answer.texts = [texts[index] for index in sorted(texts)]
        return answer


def _check(response: httpx.Response, text: str) -> None:
    if not response.is_success:
        raise RequestError(f"{response.status_code}, {text[:300]}")


def _text(choice: Mapping[str, Any]) -> str:
    message = choice.get("message") or choice.get("delta") or choice
    return message.get("content") or message.get("text") or ""


async def _events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The data of server-sent events, up to [DONE]. Raises RequestError without one."""
    async for line in response.aiter_lines():
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            return
        if data != line:
            event = json.loads(data)
            if "error" in event:
                raise RequestError(str(event["error"])[:300])
            yield event
    raise RequestError("the stream ended early")
