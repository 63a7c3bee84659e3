"""Cases: the bytes that a client sends, and how it leaves. The same number makes the same case."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from loadtests import raw
from loadtests.soak.mix import Mix
from routing.policy.keys import INCLUDE_KEY, STEERING
from routing.policy.modes import MODES
from tests.fuzz.junk import HEADERS, JUNK, PIECES, VALUES

Json = dict[str, Any]

# A policy that no request may have here, and which would show: see `Cases.smuggled`.
STEERED: Final[Json] = {"scope": "all", "ban": {"*": [0, 1, 2, 3, 4, 5]}}
PROMPT: Final[Json] = {"prompt": "The sea is", "max_tokens": 8, "temperature": 0}


@dataclass(frozen=True, slots=True)
class Case:
    """What one connection sends and how much it reads.

    reads: the client hangs up after so many bytes of the answer; None: it reads all.
    is_http: whether an answer is owed; where not, the server may just close. smuggles: the
    answer must be an error, or the text that `PROMPT` gets by itself.
    """

    kind: str
    sent: bytes
    reads: int | None = None
    is_http: bool = True
    smuggles: bool = False


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """`loadtests.raw.post`, once on a connection."""
    return raw.post(path, body, {"Connection": "close", **(headers or {})})


class Cases:
    """Cases by number, for a server.

    fields: of each endpoint's body, by its path. presets: {name: mode}. trace: of that server's.
    """

    def __init__(
        self,
        model: str,
        fields: Mapping[str, list[str]],
        presets: dict[str, str],
        trace: str,
        seed: int,
    ) -> None:
        self._model, self._presets, self._trace, self._seed = model, presets, trace, seed
        self._fields = fields
        self._kinds: tuple[Callable[[random.Random], Case], ...] = (
            *(self.routing, self.field, self.trace, self.header, self.raw, self.cut, self.smuggled),
        )

    def __getitem__(self, number: int) -> Case:
        """Every kind in turn."""
        rng = random.Random(f"{self._seed}/{number}")
        return self._kinds[number % len(self._kinds)](rng)

    def _valid(self, rng: random.Random) -> tuple[str, Json]:
        """A request as a soak would send it, short."""
        mix = Mix(self._model, self._presets, self._trace, rng.getrandbits(32))
        request = mix.draw()
        for name in ("max_tokens", "max_output_tokens"):
            if name in request.body:
                request.body[name] = rng.randint(1, 4)
        return request.path, request.body

    def routing(self, rng: random.Random) -> Case:
        """A policy with wrong values, wrong keys, or all of it wrong; in the body or the header."""
        path, body = self._valid(rng)
        policy = self._policy(rng) if rng.random() < 0.9 else rng.choice(JUNK)
        if rng.random() < 0.3:
            body.pop("routing", None)
            text = json.dumps(policy)
            return Case("routing", post(path, _json(body), {"X-Routing-Policy": text}))
        return Case("routing", post(path, _json({**body, "routing": policy})))

    def _policy(self, rng: random.Random) -> Json:
        mode, other = rng.choices([*MODES.values()], k=2)
        policy: Json = {"mode": mode.name}
        for key in rng.sample([*mode.keys, INCLUDE_KEY, *other.keys], rng.randint(0, 4)):
            policy[key.name] = self._value(rng, key.choices)
        if rng.random() < 0.1:
            policy[rng.choice(["Mode", "", "top-k", "\0", "a" * 9999])] = rng.choice(JUNK)
        return policy

    def _value(self, rng: random.Random, choices: tuple[str, ...]) -> object:
        kind = rng.randrange(6)
        if kind == 0 and choices:
            return rng.choice(choices)
        if kind == 1:  # per layer
            return [rng.choice([0, 1, 2, 0.5, *JUNK]) for _ in range(rng.choice([1, 7, 8, 9]))]
        if kind == 2:  # experts
            layer, expert = (rng.choice(["*", "0", "7", "8", "-1", "x", ""]) for _ in range(2))
            return {
                layer: rng.choice([[0], [0, 0], [-1], [10**9], {expert: 1}, {expert: 21}, JUNK])
            }
        return rng.choice([rng.choice(JUNK), rng.uniform(-1, 11), rng.randint(-1, 9)])

    def field(self, rng: random.Random) -> Case:
        """One to three of an endpoint's fields with values that are wrong, or right by chance."""
        path, body = self._valid(rng)
        for name in rng.choices(self._fields[path], k=rng.randint(1, 3)):
            body[name] = rng.choice(JUNK)
        return Case("field", post(path, _json(body)))

    def trace(self, rng: random.Random) -> Case:
        """A trace with wrong bytes."""
        path, body = self._valid(rng)
        data = _mutated(rng, base64.b64decode(self._trace), (b"\0", b"\xff", b"GLTN"))
        trace: object = base64.b64encode(data).decode()
        kind = rng.randrange(4)
        if kind == 0:
            trace = _mutated(rng, self._trace.encode(), (b"=", b"*", b" ")).decode("latin-1")
        elif kind == 1:
            names = ("data", "dtype", "shape", "layers", "first_position", "topk_ids")
            trace = {
                name: rng.choice([trace, [1, 8, 2], "int16", *JUNK])
                for name in rng.sample(names, 3)
            }
        body["routing"] = {"mode": "replay", "trace": trace}
        return Case("trace", post(path, _json(body)))

    def header(self, rng: random.Random) -> Case:
        """Headers of any kind. One that tells another length makes it no request."""
        path, body = self._valid(rng)
        names = rng.sample(HEADERS, rng.randint(1, 3))
        headers = {name: rng.choice(VALUES) for name in names}
        is_http = not {"Content-Length", "Transfer-Encoding", "Expect", "Connection"} & {*names}
        return Case("header", post(path, _json(body), headers), is_http=is_http)

    def raw(self, rng: random.Random) -> Case:
        """Bytes that were a request, or several, once."""
        path, body = self._valid(rng)
        body.pop("stream", None)
        sent = post(path, _json(body))
        if rng.random() < 0.3:  # in chunks
            content = _json(body)
            right = f"{len(content):x}"
            size = rng.choice([right, f"{right};a=b", "0", "-1", "zz", "f" * 17])
            sent = post(path, b"%b\r\n%b\r\n0\r\n\r\n" % (size.encode(), content))
            sent = sent.replace(b"Content-Length:", b"Transfer-Encoding: chunked\r\nX:")
        sent *= rng.choice([1, 1, 1, 2])
        return Case("raw", _mutated(rng, sent, PIECES), is_http=False)

    def cut(self, rng: random.Random) -> Case:
        """A client that leaves at any byte: of its request, or of the answer, mostly a stream."""
        path, body = self._valid(rng)
        body["stream"] = "batch" not in path and rng.random() < 0.8
        sent = post(path, _json(body))
        if rng.random() < 0.3:
            return Case("cut", sent[: rng.randrange(len(sent))], 0, is_http=False)
        return Case("cut", sent, rng.choice([0, 1, rng.randrange(400), rng.randrange(4000)]))

    def smuggled(self, rng: random.Random) -> Case:
        """Steering by any way but the one that is refused; the server allows none."""
        body, headers = rng.choice([*_smuggling(rng, self._model)])
        content = _json({"model": self._model, **PROMPT, **body})
        if rng.random() < 0.1:
            content = content[:-1] + b', "routing": null, "routing": %b}' % _json(STEERED)
        path = "/v1/completions" + rng.choice(["", "", "?routing=%7B%22ban%22%3A%7B%7D%7D", "?ban"])
        return Case("smuggled", post(path, content, headers), smuggles=True)


def _smuggling(rng: random.Random, model: str) -> Iterator[tuple[Json, dict[str, str]]]:
    """More of a body, and headers, which steer if anybody takes them for that."""
    steered: Any = {"mode": "top_k", **STEERED} if rng.random() < 0.5 else {**STEERED}
    text = json.dumps(steered)
    key = rng.choice([key.name for key in STEERING])
    for like_key in (key.upper(), f"{key} ", f"{key}\0"):
        yield {"routing": {"mode": "top_k", like_key: {"*": [0]}}}, {}
    for value in (steered, text, [steered], {"policy": steered}, {"seed": 7, "routing": steered}):
        yield {"routing": value}, {}
    yield {"routing": {"mode": "replay", "trace": steered}}, {}
    for like_routing in ("Routing", "ROUTING", "routing ", "routing\0", "routing_policy"):
        yield {like_routing: steered}, {}
    for field in ("vllm_xargs", "extra_args", "extra_body", "metadata"):
        yield {field: {"routing": steered}}, {}
        yield {field: {"routing": text, "policy": text}}, {}
    for field in ("kv_transfer_params", "chat_template_kwargs", "sampling_params"):
        yield {field: {"extra_args": {"routing": steered}}}, {}
    for name in (text, f"{model}-{text}"):
        yield {"model": name, "user": text}, {}

    for value in (text, f"[{text}]", json.dumps(text), f" {text} "):
        yield {}, {"X-Routing-Policy": value}
    for like_header in ("X_Routing_Policy", "X-Routing-Policy ", "X-Routing", "Routing", "Cookie"):
        yield {}, {like_header: text}
    yield {}, {"X-Routing-Policy": '{"seed": 1}', "x-routing-policy": text}
    for own in ({"seed": 7}, {"include": ["stats"]}):
        yield {"routing": own}, {"X-Routing-Policy": text}


def _json(body: object) -> bytes:
    """With what Python takes for JSON and the standard does not."""
    return json.dumps(body).encode()


def _mutated(rng: random.Random, data: bytes, pieces: tuple[bytes, ...]) -> bytes:
    """One to four bytes flipped, slices dropped or doubled, pieces put in."""
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice([1, 1, 2, 8, 64, 4096])
        part = data[at : at + length]
        new = rng.choice(
            (b"", part * 2, rng.randbytes(1), rng.choice(pieces), rng.choice(pieces) + part)
        )
        data = data[:at] + new + data[at + length :]
    return data
