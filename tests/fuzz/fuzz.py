"""Send cases to a server and hold what it does against what it must do."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from loadtests import raw
from loadtests.soak.mix import learned
from tests.fuzz.cases import PROMPT, Case, Cases

HANG_SECONDS: Final = 10
IDLE_SECONDS: Final = 0.3
CANARY_EVERY: Final = 200  # cases
CANARY: Final[dict[str, Any]] = {**PROMPT, "routing": {"mode": "sample", "seed": 7, "scope": "all"}}
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})")
_SERVER_ERROR: Final = re.compile(r'"code": ?5\d\d|server_error|InternalServerError')


@dataclass
class Verdict:
    """What was sent, how it was answered, and what went wrong: a line each, with its number."""

    sent: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int | None] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Fuzzer:
    """Asks a server, and judges. hang_seconds: every case must end by then."""

    def __init__(
        self, url: str, model: str, seed: int = 0, *, hang_seconds: float = HANG_SECONDS
    ) -> None:
        self.verdict = Verdict()
        self.hang_seconds = hang_seconds
        self._address = raw.address(url)
        self._model = model
        self._cases = Cases(model, _fields(url), *learned(url), seed)
        self._plain = self._text(PROMPT)
        self._canary = self._text(CANARY)

    def run(
        self, numbers: Iterable[int], in_flight: int, progress: Callable[[], object] = lambda: None
    ) -> None:
        """Send the cases of those numbers, so many at once; progress: called after each."""
        asyncio.run(self._run(numbers, in_flight, progress))
        self.ask_canary()

    async def _run(
        self, numbers: Iterable[int], in_flight: int, progress: Callable[[], object]
    ) -> None:
        left = iter(numbers)

        async def send_on() -> None:
            for number in left:
                if number % CANARY_EVERY == 0:
                    await asyncio.to_thread(self.ask_canary)
                await self._judge(number, self._cases[number])
                progress()

        await asyncio.gather(*(send_on() for _ in range(in_flight)))

    def ask_canary(self) -> None:
        """One request that is answered alike throughout."""
        text = self._text(CANARY)
        if text != self._canary:
            self.verdict.problems.append(f"the canary says {text!r}, before {self._canary!r}")

    def _text(self, body: dict[str, Any]) -> str:
        host, port = self._address
        url = f"http://{host}:{port}/v1/completions"
        answer = httpx.post(url, json={"model": self._model, **body}, timeout=60)
        return _text_of(answer.content)

    async def _judge(self, number: int, case: Case) -> None:
        self.verdict.sent[case.kind] += 1
        try:
            async with asyncio.timeout(self.hang_seconds):
                answer = await self._exchange(case)
        except TimeoutError:
            self._complain(number, case, f"no end in {self.hang_seconds} s")
            return
        except OSError as error:
            answer = b""
            if case.is_http and case.reads is None:
                self._complain(number, case, repr(error))
        found = _STATUS.match(answer)
        status = int(found[1]) if found else None
        self.verdict.statuses[status] += 1
        if case.reads is not None:
            return
        head, _, body = answer.partition(b"\r\n\r\n")
        if status is None and (case.is_http or answer):
            self._complain(number, case, f"no answer: {answer[:200]!r}")
        elif status is not None and status >= 500:
            self._complain(number, case, f"{status}: {body[:300]!r}")
        elif b"text/event-stream" in head and _SERVER_ERROR.search(body.decode(errors="replace")):
            self._complain(number, case, f"a stream with {body[-300:]!r}")
        elif case.smuggles and status == 200 and _text_of(body) != self._plain:
            self._complain(number, case, f"it is steered: {body[:300]!r}")

    def _complain(self, number: int, case: Case, what: str) -> None:
        self.verdict.problems.append(
            f"case {number}, {case.kind}: {what}; sent {case.sent[:600]!r}"
        )

    async def _exchange(self, case: Case) -> bytes:
        """What came back, up to the end or to where the client hangs up."""
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(case.sent)
            await writer.drain()
            if case.reads is not None:
                return await _at_most(reader, case.reads)
            if case.is_http:
                return await reader.read()
            return await _until_idle(reader, writer) + await reader.read()
        finally:
            writer.transport.abort()


async def _at_most(reader: asyncio.StreamReader, length: int) -> bytes:
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        return error.partial


async def _until_idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What comes without a pause; then this end is closed: the server may still wait for more."""
    answer = b""
    while True:
        try:
            part = await asyncio.wait_for(reader.read(2**16), IDLE_SECONDS)
        except TimeoutError:
            writer.write_eof()
            return answer
        if not part:
            return answer
        answer += part


def _fields(url: str) -> dict[str, list[str]]:
    """The fields of each endpoint's body."""
    page = httpx.get(f"{url}/openapi.json", timeout=60).json()
    fields = {}
    for path, methods in page["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        name = schema.get("$ref", "").rpartition("/")[2]
        fields[path] = [*page["components"]["schemas"].get(name, {}).get("properties", {})]
    return fields


def _text_of(body: bytes) -> str:
    text: str = json.loads(body)["choices"][0]["text"]
    return text
