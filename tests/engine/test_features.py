"""What vLLM's API can do works under every mode: well formed, repeatable, streamed or whole."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from routing.policy import modes
from tests.shared.servers import Server

# Far enough from the model's own routing that an answer shows which of the two it followed.
MODES: dict[str, dict[str, Any]] = {
    "top_k": {"mode": "top_k", "top_k": 1},
    "sample": {"mode": "sample", "temperature": 3, "seed": 7},
    "top_p": {"mode": "top_p", "top_p": 0.3},
    "head_sample": {"mode": "head_sample", "head": 0, "temperature": 10, "seed": 8},
    "uniform": {"mode": "uniform", "seed": 7},
}
assert set(MODES) == {name for name, mode in modes.MODES.items() if not mode.takes_trace}
every_mode = pytest.mark.parametrize("routing", MODES.values(), ids=MODES)

SCHEMA = {
    "type": "object",
    "properties": {"cold": {"type": "boolean"}, "month": {"enum": ["May", "June"]}},
    "required": ["cold", "month"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "note", "parameters": SCHEMA}}
Choice = dict[str, Any]


def asked(routing: object, **body: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": "Tell me about winter."}]
    return {"messages": question, "routing": routing, "temperature": 0, "max_tokens": 96, **body}


def choice_of(finished: dict[str, Any], message: dict[str, Any]) -> Choice:
    calls = [call["function"] for call in message.get("tool_calls") or []]
    return {
        "text": message.get("content") or "",
        "calls": [(call["name"], json.loads(call["arguments"])) for call in calls],
        "logprobs": (finished.get("logprobs") or {}).get("content") or [],
        "finish": (finished["finish_reason"], finished.get("stop_reason")),
    }


def whole(server: Server, body: dict[str, Any]) -> list[Choice]:
    response = server.post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    return [choice_of(choice, choice["message"]) for choice in response.json()["choices"]]


def streamed(server: Server, body: dict[str, Any]) -> list[Choice]:
    """The chunks of a stream put together: as `whole`."""
    response = server.post("/v1/chat/completions", {**body, "stream": True})
    assert response.status_code == 200, response.text
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    out: list[Choice] = [{"text": "", "calls": [], "logprobs": []} for _ in range(body.get("n", 1))]
    for part in (part for line in lines[:-1] for part in json.loads(line)["choices"]):
        choice, delta = out[part["index"]], part["delta"]
        choice["text"] += delta.get("content") or ""
        for call in delta.get("tool_calls") or []:
            said = call["function"]
            if said.get("name"):
                choice["calls"].append((said["name"], ""))
            name, arguments = choice["calls"][call["index"]]
            choice["calls"][call["index"]] = (name, arguments + (said.get("arguments") or ""))
        choice["logprobs"] += (part.get("logprobs") or {}).get("content") or []
        if part["finish_reason"]:
            choice["finish"] = (part["finish_reason"], part.get("stop_reason"))
    for choice in out:  # parsed: whole and streamed answers differ in blanks
        choice["calls"] = [(name, json.loads(arguments)) for name, arguments in choice["calls"]]
    return out


def has_logprobs(choices: list[Choice]) -> bool:
    (choice,) = choices
    tokens = choice["logprobs"]
    # Greedy: the token taken is the likeliest, but for ties.
    likeliest = all(t["logprob"] == t["top_logprobs"][0]["logprob"] <= 0 for t in tokens)
    return likeliest and "".join(t["token"] for t in tokens).startswith(choice["text"])


def calls_the_tool(choices: list[Choice]) -> bool:
    ((name, arguments),) = choices[0]["calls"]
    return bool(name == "note") and follows_schema(arguments)


def follows_schema(said: dict[str, Any]) -> bool:
    return set(said) == {"cold", "month"} and said["cold"] in (True, False)


FEATURES: dict[str, tuple[dict[str, Any], Callable[[list[Choice]], bool]]] = {
    "logprobs": ({"logprobs": True, "top_logprobs": 3}, has_logprobs),
    "named tool": (
        {
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "note"}},
        },
        calls_the_tool,
    ),
    "required tool": (
        {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        calls_the_tool,
    ),
    "optional tool": ({"tools": [TOOL], "tool_choice": "auto"}, lambda c: bool(c[0]["text"])),
    "json schema": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "weather", "schema": SCHEMA},
            }
        },
        lambda c: follows_schema(json.loads(c[0]["text"])),
    ),
    "regex": (
        {"structured_outputs": {"regex": "(yes|no), [0-9]{2}"}},
        lambda c: bool(re.fullmatch("(yes|no), [0-9]{2}", c[0]["text"])),
    ),
    "choice": (
        {"structured_outputs": {"choice": ["snow", "rain"]}},
        lambda c: c[0]["text"] in ("snow", "rain"),
    ),
    "several choices": (
        {"n": 3, "temperature": 1.5, "seed": 5},
        lambda c: len({choice["text"] for choice in c}) == 3,
    ),
    "token seed": ({"temperature": 1.5, "seed": 5}, lambda c: bool(c[0]["text"])),
}


def together(*calls: Callable[[], list[Choice]]) -> list[list[Choice]]:
    """What the calls return, all made at once."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@pytest.fixture(scope="module")
def feature_answers(server: Server) -> Callable[[str], dict[str, list[list[Choice]]]]:
    """A feature's answers by mode: whole, whole again and streamed. All are asked at once."""

    @functools.cache
    def ask(feature: str) -> dict[str, list[list[Choice]]]:
        bodies = [asked(routing, **FEATURES[feature][0]) for routing in MODES.values()]
        answers = together(
            *(partial(call, server, body) for body in bodies for call in (whole, whole, streamed))
        )
        return {mode: answers[3 * i : 3 * i + 3] for i, mode in enumerate(MODES)}

    return ask


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("feature", FEATURES)
def test_feature(
    feature_answers: Callable[[str], dict[str, list[list[Choice]]]], feature: str, mode: str
) -> None:
    answer, again, in_chunks = feature_answers(feature)[mode]
    is_well_formed = FEATURES[feature][1]
    assert is_well_formed(answer), answer
    assert again == answer
    assert in_chunks == answer


@every_mode
def test_stop_string_cuts_the_answer(server: Server, routing: dict[str, Any]) -> None:
    [[full], [native]] = together(*(partial(whole, server, asked(r)) for r in (routing, None)))
    text = full["text"]
    assert text != native["text"]
    stop = text[len(text) // 2 :][:3]
    body = asked(routing, stop=[stop])
    answer, again, in_chunks = together(
        *(partial(call, server, body) for call in (whole, whole, streamed))
    )
    assert answer[0]["text"] == text[: text.index(stop)]
    assert answer[0]["finish"] == ("stop", stop)
    assert in_chunks == again == answer


@every_mode
def test_another_token_seed_gives_another_answer(server: Server, routing: dict[str, Any]) -> None:
    bodies = [asked(routing, temperature=1.5, seed=seed) for seed in (1, 2, 3)]
    answers = together(*(partial(whole, server, body) for body in bodies))
    assert len({choice["text"] for [choice] in answers}) > 1


@every_mode
def test_logprobs_are_the_policys(server: Server, routing: dict[str, Any]) -> None:
    def first(routing: object) -> float:
        body = asked(routing, logprobs=True, max_tokens=1)
        return float(whole(server, body)[0]["logprobs"][0]["logprob"])

    # The first token comes from the prompt's last, which `scope: all` routes by the policy.
    assert first({**routing, "scope": "all"}) != first(None)
    assert first({**routing, "scope": "decode"}) == first(None)


@every_mode
def test_prompt_logprobs_follow_the_scope(server: Server, routing: dict[str, Any]) -> None:
    prompt = list(range(100, 120))

    def prompt_logprobs(routing: object) -> list[dict[str, dict[str, Any]]]:
        body = {"prompt": prompt, "max_tokens": 1, "prompt_logprobs": 1, "routing": routing}
        answer = server.post("/v1/completions", body).json()
        first, *rest = answer["choices"][0]["prompt_logprobs"]
        assert first is None
        for token, logprobs in zip(prompt[1:], rest, strict=True):
            assert logprobs[str(token)]["logprob"] <= 0
        return list(rest)

    clean = prompt_logprobs(None)
    everywhere = prompt_logprobs({**routing, "scope": "all"})
    assert everywhere != clean
    assert prompt_logprobs({**routing, "scope": "all"}) == everywhere
    assert prompt_logprobs({**routing, "scope": "decode"}) == clean
