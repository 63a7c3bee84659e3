"""Presets as clients meet them: models, names, lists, reload, and the count of requests."""

from __future__ import annotations

import http.client
import json
import signal
from collections import Counter
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import FreshPrompt
from tests.shared.servers import HTTP, MODEL, Server, eventually

SEVEN = {"mode": "sample", "temperature": 0.7, "seed": 7}
ECHO = {"policy": {**SEVEN, "top_k": 4, "scope": "decode"}, "preset": "seven"}
PROMPT = list(range(20, 40))
MESSAGES = [{"role": "user", "content": "Translate to French: the cat sleeps."}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/completions": {"prompt": PROMPT, "max_tokens": 4},
    "/v1/responses": {"input": "The cat", "max_output_tokens": 4},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/chat/completions/batch": {"messages": [MESSAGES, MESSAGES], "max_tokens": 4},
}
STREAMING = list(BODIES)[:4]
ALIAS = f"{MODEL}-seven"
COMPLETIONS = "/v1/completions"


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def without_seeds(routing: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in routing.items() if key != "choice_seeds"}


@pytest.mark.parametrize("path", BODIES)
def test_preset_is_a_model_everywhere(server: Server, path: str) -> None:
    response = server.post(path, {**BODIES[path], "model": ALIAS})
    answer = response.json()
    assert answer["model"] == ALIAS
    assert without_seeds(answer["routing"]) == ECHO
    assert json.loads(response.headers["x-routing-policy"]) == ECHO["policy"]


@pytest.mark.parametrize("path", STREAMING)
def test_preset_is_a_model_in_streams(server: Server, path: str) -> None:
    response = server.post(path, {**BODIES[path], "model": ALIAS, "stream": True})
    assert json.loads(response.headers["x-routing-policy"]) == ECHO["policy"]
    chunks = events(response)
    carriers = [c.get("response", c) for c in chunks if "routing" in c.get("response", c)]
    assert [carrier["routing"] for carrier in carriers] == [ECHO]
    holders = [chunk.get("response", chunk.get("message", chunk)) for chunk in chunks]
    assert {holder["model"] for holder in holders if "model" in holder} == {ALIAS}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("body", "headers"), [({"routing": "seven"}, {}), ({}, {"X-Routing-Policy": "seven"})]
)
def test_preset_is_chosen_by_name(
    server: Server, path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    answer = server.post(path, {**BODIES[path], **body}, headers=headers).json()
    assert answer["model"] == MODEL
    assert without_seeds(answer["routing"]) == ECHO


def test_alias_routes_like_its_policy(server: Server) -> None:
    assert server.tokens(PROMPT, model=ALIAS) == server.tokens(PROMPT, SEVEN)
    eight = server.tokens(PROMPT, {**SEVEN, "seed": 8})
    assert server.tokens(PROMPT, {"seed": 8}, model=ALIAS) == eight


def test_preset_steers_though_requests_may_not(server: Server, fresh_prompt: FreshPrompt) -> None:
    def assignments() -> list[float]:
        name = "galton_expert_assignments_total"
        return [server.metric(name, expert=str(expert)) for expert in range(3)]

    before = assignments()
    server.complete(fresh_prompt(40), model=f"{MODEL}-steered")
    zero, one, two = [b - a for a, b in zip(before, assignments(), strict=True)]
    assert (zero, one) == (0, 0)
    assert two > 0


def test_messages_are_routed_like_chats(server: Server) -> None:
    body = {"messages": MESSAGES, "max_tokens": 24, "temperature": 0, "model": ALIAS}
    chat = server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]
    assert server.post("/v1/messages", body).json()["content"][0]["text"] == chat
    uniform = server.post("/v1/messages", {**body, "routing": {"mode": "uniform", "seed": 7}})
    assert uniform.json()["content"][0]["text"] != chat


def test_conversations_of_a_batch_are_answered_as_each_would_be_alone(server: Server) -> None:
    policy = {"mode": "uniform", "seed": 11, "scope": "all"}
    body = {"max_tokens": 16, "temperature": 0, "return_token_ids": True, "routing": policy}
    conversations = [MESSAGES, MESSAGES, [{"role": "user", "content": "Write a poem."}]]
    batch = {**body, "messages": conversations}
    answer = server.post("/v1/chat/completions/batch", batch).json()
    assert answer["routing"]["choice_seeds"] == [11] * 3
    for messages, choice in zip(conversations, answer["choices"], strict=True):
        alone = server.post("/v1/chat/completions", {**body, "messages": messages}).json()
        assert alone["choices"][0]["token_ids"] == choice["token_ids"]


def test_one_model_is_shown_by_its_name(server: Server) -> None:
    listed = HTTP.get(f"{server.url}/v1/models").json()["data"]
    for card in listed:
        shown = HTTP.get(f"{server.url}/v1/models/{card['id']}").json()
        for key in ("id", "object", "root", "parent", "max_model_len"):
            assert shown[key] == card[key]
        assert shown.get("routing") == card.get("routing")
    missing = HTTP.get(f"{server.url}/v1/models/{MODEL}-sevn")
    assert missing.status_code == 404
    assert f"`{ALIAS}`" in missing.json()["error"]["message"]


def test_tokenizing_and_counting_take_aliases(server: Server) -> None:
    tokens = server.post("/tokenize", {"model": ALIAS, "prompt": "The cat."}).json()["tokens"]
    plain = server.post("/detokenize", {"model": ALIAS, "tokens": tokens}).json()["prompt"]
    assert plain == "The cat."
    body = {"model": ALIAS, "messages": MESSAGES}
    assert server.post("/v1/messages/count_tokens", body).json()["input_tokens"] > 5


@pytest.mark.parametrize("path", BODIES)
def test_unknown_model_or_preset_is_a_404_with_near_names(server: Server, path: str) -> None:
    def error(**body: Any) -> tuple[int, dict[str, Any]]:
        response = server.post(path, {**BODIES[path], **body})
        return response.status_code, response.json()["error"]

    not_found = "not_found_error" if path == "/v1/messages" else "NotFoundError"
    status, refusal = error(model=f"{MODEL}-sevn")
    assert (status, refusal["type"]) == (404, not_found)
    assert f"`{ALIAS}`" in refusal["message"]
    status, refusal = error(routing="sevn")
    assert (status, refusal["type"]) == (404, not_found)
    assert "Near names: `seven`" in refusal["message"]
    if path != "/v1/messages":  # Anthropic's errors have neither
        assert (refusal["param"], refusal["code"]) == ("routing", 404)


def test_bad_message_is_refused_in_anthropics_shape(server: Server) -> None:
    body = {**BODIES["/v1/messages"], "routing": {"mode": "best"}}
    response = server.post("/v1/messages", body)
    assert response.status_code == 400
    assert response.json()["type"] == "error"
    assert "routing.mode" in response.json()["error"]["message"]


def test_official_client_lists_presets_as_models(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused")
    cards = {card.id: card.model_dump() for card in client.models.list()}
    base, card = cards[MODEL], cards[ALIAS]
    same = ("root", "owned_by", "max_model_len", "object")
    assert [card[key] for key in same] == [base[key] for key in same]
    assert card["parent"] == MODEL
    assert card["routing"]["policy"] == ECHO["policy"]
    assert card["routing"]["description"] == "Always the same noise"


def test_modes_and_presets_are_listed(server: Server) -> None:
    def listed(path: str) -> dict[str, dict[str, Any]]:
        page = HTTP.get(f"{server.url}/v1/routing/{path}").json()
        return {item["id"]: item for item in page["data"]}

    schema = listed("policies")["top_k"]["json_schema"]
    top_k = schema["properties"]["top_k"]
    assert (top_k["default"], top_k["anyOf"][0]["maximum"]) == (4, 8)
    seven = listed("presets")["seven"]
    assert (seven["policy"], seven["models"]) == (ECHO["policy"], [ALIAS])
    assert seven["results"] == {"metric": "chrf", "test": {"gain": 0.5, "interval": [-0.1, 1.2]}}
    assert listed("presets")["steered"]["results"] == {}


def test_hangup_reloads_the_file_and_a_bad_one_changes_nothing(server: Server) -> None:
    file = server.log.with_name("presets.toml")
    before = file.read_text()
    children = {child.pid for child in server.children()}

    def reload(text: str) -> None:
        file.write_text(text)
        server.process.send_signal(signal.SIGHUP)

    def listed() -> set[str]:
        page = HTTP.get(f"{server.url}/v1/routing/presets").json()
        return {preset["id"] for preset in page["data"]}

    body = {"model": ALIAS, "prompt": PROMPT, "max_tokens": 40, "ignore_eos": True}
    old = listed()
    try:
        with server.crowd([lambda: server.post(COMPLETIONS, {**body, "stream": True})]) as answers:
            reload("[presets.new]\nrouting = {}\n")
            assert eventually(lambda: listed() == {"new"})
        *_, last, done = [line for line in answers[0].result().text.splitlines() if line]
        assert done == "data: [DONE]"
        assert json.loads(last.removeprefix("data: "))["routing"] == ECHO
        assert server.post(COMPLETIONS, body).status_code == 404

        reload("[presets.newer]\nrouting = { mode = 'best' }\n")
        assert eventually(lambda: f"{file}:2: presets.newer.routing.mode" in server.log.read_text())
        assert listed() == {"new"}
    finally:
        reload(before)
        assert eventually(lambda: listed() == old)
    assert {child.pid for child in server.children()} == children


def test_server_without_keys_is_not_reloaded_over_http(server: Server) -> None:
    refused = server.post("/v1/routing/presets/reload", {})
    assert refused.status_code == 403
    assert "SIGHUP" in refused.json()["error"]["message"]


def counts(server: Server) -> Counter[str]:
    """`galton_requests_total` of the preset `seven`, by outcome."""
    page = HTTP.get(f"{server.url}/metrics").text
    return Counter(
        {
            sample.labels["outcome"]: int(sample.value)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "galton_requests_total"
            and (sample.labels["mode"], sample.labels["preset"]) == ("sample", "seven")
        }
    )


def test_every_request_is_counted_once_by_its_end(server: Server) -> None:
    before = counts(server)
    for path, body in BODIES.items():
        server.post(path, {**body, "model": ALIAS})
    for path in STREAMING:
        server.post(path, {**BODIES[path], "model": ALIAS, "stream": True})
    assert counts(server) - before == {"ok": 9}

    server.post(COMPLETIONS, {"prompt": PROMPT, "max_tokens": 10**6, "model": ALIAS})
    server.post(COMPLETIONS, {"prompt": PROMPT, "routing": "sevn"})  # follows no policy
    assert counts(server) - before == {"ok": 9, "refused": 1}


def send(server: Server, body: dict[str, Any]) -> http.client.HTTPConnection:
    """A request on a connection of its own, which the client may close before it is answered."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=300)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", COMPLETIONS, json.dumps({**body, "model": ALIAS}), headers)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_client_that_leaves_unanswered_is_noticed_without_the_engine(
    server: Server, stream: bool
) -> None:
    before = counts(server)
    assert eventually(lambda: server.load() == 0)
    with server.engine_held():
        connection = send(server, {"prompt": PROMPT, "stream": stream})
        assert eventually(lambda: server.load() == 1)
        connection.close()
        assert eventually(lambda: counts(server) - before == {"abort": 1})
    assert eventually(lambda: server.load() == 0)
    assert counts(server) - before == {"abort": 1}


def test_client_that_leaves_in_mid_stream_frees_the_engine(server: Server) -> None:
    """More work than any machine does between the first token and the engine's halt."""
    choices, tokens = 64, 1900
    before, generated = counts(server), server.metric("vllm:generation_tokens_total")
    body = {"prompt": PROMPT, "n": choices, "max_tokens": tokens, "ignore_eos": True}
    connection = send(server, {**body, "stream": True})
    assert connection.getresponse().readline().startswith(b"data: {")
    with server.engine_held():
        connection.close()
        assert eventually(lambda: counts(server) - before == {"abort": 1})
    server.tokens(PROMPT, max_tokens=2)  # with which the engine tells how many requests it has
    assert server.metric("vllm:num_requests_running") == 0
    generated = server.metric("vllm:generation_tokens_total") - generated
    assert generated < choices * tokens / 2
