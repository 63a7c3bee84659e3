"""The HTTP surface on a real server: the `routing` field, its echo, errors, metrics."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Any
from urllib.parse import urljoin

import openai
import pytest

from tests.shared.servers import HTTP, MODEL, Server

PROMPT = list(range(20, 40))
SAMPLE = {"mode": "sample", "temperature": 0.7, "seed": 7}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Translate to French: the cat sleeps."}]
}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused")


def test_plain_request_echoes_the_models_own_routing(server: Server) -> None:
    response = server.post("/v1/chat/completions", {**CHAT, "max_tokens": 4})
    policy = {"mode": "top_k", "top_k": 4, "scope": "decode"}
    assert response.json()["routing"] == {"policy": policy}
    assert json.loads(response.headers["x-routing-policy"]) == policy


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {**CHAT, "max_tokens": 4}),
        ("/v1/completions", {"prompt": "The cat", "max_tokens": 4}),
        ("/v1/responses", {"input": "The cat", "max_output_tokens": 4}),
    ],
)
def test_policy_is_resolved_and_echoed_in_body_and_header(
    server: Server, path: str, body: dict[str, object]
) -> None:
    response = server.post(path, {**body, "routing": SAMPLE})
    policy = {"mode": "sample", "top_k": 4, "temperature": 0.7, "seed": 7, "scope": "decode"}
    assert response.json()["routing"]["policy"] == policy
    assert json.loads(response.headers["x-routing-policy"]) == policy


def test_echoed_policy_sent_back_repeats_the_answer(server: Server) -> None:
    first = server.complete(PROMPT, {"mode": "sample"})
    policy = first["routing"]["policy"]
    assert 0 <= policy["seed"] < 2**63
    assert server.tokens(PROMPT, policy) == first["choices"][0]["token_ids"]


def test_policy_may_come_in_the_header_and_the_body_wins(server: Server) -> None:
    headers = {"X-Routing-Policy": json.dumps(SAMPLE)}
    body = {"prompt": PROMPT, "max_tokens": 2}
    by_header = server.post("/v1/completions", body, headers=headers).json()
    assert by_header["routing"]["policy"]["seed"] == 7
    body["routing"] = {**SAMPLE, "seed": 8}
    both = server.post("/v1/completions", body, headers=headers).json()
    assert both["routing"]["policy"]["seed"] == 8


def test_official_client_streams_the_same_answer_twice(client: openai.OpenAI) -> None:
    def stream() -> tuple[str, object]:
        text, routing = "", None
        for chunk in client.chat.completions.create(
            model=MODEL, stream=True, max_tokens=24, extra_body={"routing": SAMPLE}, **CHAT
        ):
            text += chunk.choices[0].delta.content or ""
            routing = getattr(chunk, "routing", routing)
        return text, routing

    first, second = stream(), stream()
    assert first == second
    assert first[0]
    assert first[1] == {"policy": {**SAMPLE, "top_k": 4, "scope": "decode"}}


def test_official_client_reads_the_policy_without_streaming(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, max_tokens=4, extra_body={"routing": SAMPLE}, **CHAT
    )
    assert answer.model_extra is not None
    assert answer.model_extra["routing"]["policy"]["seed"] == 7


def _stream_chunks(server: Server, body: dict[str, object]) -> list[dict[str, object]]:
    text = server.post("/v1/completions", {"stream": True, **body}).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_stream_carries_routing_once_on_its_last_chunk(
    server: Server, n: int, include_usage: bool
) -> None:
    body: dict[str, object] = {"prompt": PROMPT, "max_tokens": 5, "n": n, "routing": SAMPLE}
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    chunks = _stream_chunks(server, body)
    assert [i for i, chunk in enumerate(chunks) if "routing" in chunk] == [len(chunks) - 1]
    assert ("usage" in chunks[-1] and bool(chunks[-1]["usage"])) == include_usage


def test_stream_and_whole_answer_agree(server: Server) -> None:
    whole = server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 16, "routing": SAMPLE})
    chunks = _stream_chunks(server, {"prompt": PROMPT, "max_tokens": 16, "routing": SAMPLE})
    streamed = "".join(chunk["choices"][0]["text"] for chunk in chunks)  # type: ignore[index]
    assert streamed == whole.json()["choices"][0]["text"]


def test_choices_have_their_own_seeds_which_repeat_them(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 2.0, "seed": 11}
    answer = server.complete(PROMPT, policy, n=4)
    seeds = answer["routing"]["choice_seeds"]
    choices = [choice["token_ids"] for choice in answer["choices"]]
    assert seeds[0] == 11
    assert len(set(seeds)) == 4
    assert len({tuple(choice) for choice in choices}) > 1
    for seed, choice in zip(seeds, choices, strict=True):
        assert server.tokens(PROMPT, {**policy, "seed": seed}) == choice


def test_prompts_of_a_list_are_answered_as_each_would_be_alone(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 2.0, "seed": 11}
    prompts = [PROMPT, PROMPT, PROMPT[:-1]]

    def ask(prompt: object) -> tuple[list[list[int]], list[int]]:
        body = {"prompt": prompt, "max_tokens": 16, "n": 2, "return_token_ids": True}
        answer = server.post("/v1/completions", {**body, "routing": policy}).json()
        choices = [choice["token_ids"] for choice in answer["choices"]]
        return choices, answer["routing"]["choice_seeds"]

    together, seeds = ask(prompts)
    alone = [ask(prompt) for prompt in prompts]
    assert together == [choice for choices, _ in alone for choice in choices]
    assert seeds == [seed for _, seeds in alone for seed in seeds]
    assert together[0] != together[1]


def test_noise_follows_the_seed_of_the_tokens_where_it_has_none(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 2.0}
    body = {"max_tokens": 16, "temperature": 0, "seed": 42}
    answer = server.complete(PROMPT, policy, **body)
    assert answer["routing"]["policy"]["seed"] == 42
    again = server.complete(PROMPT, policy, **body)
    assert again["choices"][0]["token_ids"] == answer["choices"][0]["token_ids"]
    own = server.complete(PROMPT, {**policy, "seed": 11}, **body)
    assert own["routing"]["policy"]["seed"] == 11


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"n": 129}, "n", "at most 128 choices in one request (--max-choices), got 129"),
        ({"n": 43, "prompt": [PROMPT] * 3}, "n", "got 129"),
        ({"n": 10**9}, "n", "got 1,000,000,000"),
        ({"n": 10**9, "use_beam_search": True}, "n", "got 1,000,000,000"),
        ({"prompt": ["hi"] * 129}, "n", "got 129"),
        ({"n": 128, "logprobs": 20, "max_tokens": 1900}, "logprobs", "got up to 5,107,200"),
        (
            {"prompt": [[20] * 1900] * 128, "logprobs": 20, "echo": True},
            "logprobs",
            "got up to 5,507,712",
        ),
    ],
)
@pytest.mark.parametrize("routing", [None, SAMPLE])
def test_a_requests_cost_is_bounded_before_it_starts(
    server: Server, body: dict[str, object], field: str, message: str, routing: object
) -> None:
    body = {"prompt": PROMPT, "max_tokens": 1, "temperature": 1, **body, "routing": routing}
    response = server.post("/v1/completions", body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, field)
    assert message in error["message"]


BAD_POLICIES = [
    ({"mod": "sample"}, "routing", ["'mod'", "mode, top_k, seed, scope, weights"]),
    ({"mode": "best"}, "routing.mode", ["'best'", "'top_k' or 'sample' or"]),
    ({"mode": "top_p", "top_p": 1.5}, "routing.top_p", ["1.5", "above 0 to 1"]),
    ({"mode": "head_sample", "head": 5}, "routing.head", ["5", "from 0 to 4"]),
    ({"ban": {"*": [0]}}, "routing.ban", ["--allow-request-steering"]),
    ({"mode": 1}, "routing.mode", ["1"]),
    ({"top_k": 0}, "routing.top_k", ["0", "from 1 to 8"]),
    ({"top_k": 9}, "routing.top_k", ["9", "from 1 to 8"]),
    ({"top_k": "4"}, "routing.top_k", ["'4'"]),
    ({"mode": "sample", "temperature": -0.1}, "routing.temperature", ["-0.1", "from 0 to 10"]),
    ({"mode": "sample", "temperature": 10.5}, "routing.temperature", ["10.5", "from 0 to 10"]),
    ({"mode": "sample", "temperature": "hot"}, "routing.temperature", ["'hot'"]),
    ({"mode": "sample", "temperature": [1, 2]}, "routing.temperature", ["[1, 2]", "list of 8"]),
    ({"mode": "sample", "temperature": [1] * 7 + [11]}, "routing.temperature[7]", ["11"]),
    ({"temperature": 1}, "routing.temperature", ["left out in mode 'top_k'"]),
    ({"mode": "sample", "seed": -1}, "routing.seed", ["-1", "from 0 to 9223372036854775807"]),
    ({"mode": "sample", "seed": 2**63}, "routing.seed", [str(2**63)]),
    ({"mode": "sample", "seed": True}, "routing.seed", ["True"]),
    ({"scope": "prompt"}, "routing.scope", ["'prompt'", "'decode' or 'all'"]),
    ([1], "routing", ["[1]"]),
]


@pytest.mark.parametrize(("routing", "param", "parts"), BAD_POLICIES)
def test_bad_policy_is_a_400_that_names_field_value_and_range(
    server: Server, routing: object, param: str, parts: list[str]
) -> None:
    for stream in (False, True):
        body = {**CHAT, "routing": routing, "stream": stream, "max_tokens": 2}
        response = server.post("/v1/chat/completions", body)
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["param"]) == (400, 400, param)
        assert error["type"] == "BadRequestError"
        assert all(part in error["message"] for part in parts), error["message"]


def test_bad_header_is_a_400(server: Server) -> None:
    headers = {"x-routing-policy": "mode=sample"}
    response = server.post("/v1/chat/completions", {**CHAT, "max_tokens": 2}, headers=headers)
    assert response.status_code == 400
    assert "x-routing-policy" in response.json()["error"]["message"]


def test_policy_smuggled_in_engine_arguments_is_refused(server: Server) -> None:
    body = {"prompt": PROMPT, "max_tokens": 2, "vllm_xargs": {"routing": "x"}}
    assert server.post("/v1/completions", body).status_code == 400
    batch = {**body, "messages": [CHAT["messages"]]}
    assert server.post("/v1/chat/completions/batch", batch).status_code == 400
    # An endpoint whose sampling parameters Galton does not make: checked where all must pass.
    for policy in ("diverse", {"mode": "sample", "ban": {"*": [0]}}):
        params = {"max_tokens": 2, "extra_args": {"routing": policy}}
        response = server.post(
            "/inference/v1/generate", {"token_ids": [9], "sampling_params": params}
        )
        assert response.status_code == 400, response.text


def test_beam_search_with_a_policy_is_refused(server: Server) -> None:
    body = {"prompt": PROMPT, "max_tokens": 2, "n": 2, "use_beam_search": True}
    assert server.post("/v1/completions", body).status_code == 200
    assert server.post("/v1/completions", {**body, "routing": SAMPLE}).status_code == 400


def test_bad_requests_leave_concurrent_ones_unharmed(server: Server) -> None:
    requests = [(PROMPT, SAMPLE), (PROMPT[3:], None)]
    alone = [server.tokens(*request, max_tokens=64) for request in requests]

    def statuses_of_bad_ones() -> set[int]:
        return {
            server.post("/v1/completions", {"prompt": PROMPT, "routing": routing}).status_code
            for routing, _, _ in BAD_POLICIES
        }

    # While the good ones wait for the engine, and while it answers them.
    with server.crowd([partial(server.tokens, *r, max_tokens=64) for r in requests]) as answers:
        assert statuses_of_bad_ones() == {400}
    assert statuses_of_bad_ones() == {400}
    assert [answer.result() for answer in answers] == alone


@pytest.mark.parametrize(
    "path", ["/health", "/version", "/v1/models", "/openapi.json", "/docs", "/load", "/metrics"]
)
def test_the_rest_of_vllms_surface_answers(server: Server, path: str) -> None:
    assert HTTP.get(server.url + path).status_code == 200


def test_docs_are_galtons_and_need_no_internet(server: Server) -> None:
    page = HTTP.get(f"{server.url}/docs").text
    assert "<title>Galton - Swagger UI</title>" in page
    loaded = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert {path.rpartition(".")[2] for path in loaded} == {"css", "js", "svg"}
    for path in loaded:
        url = urljoin(f"{server.url}/docs", path)
        assert url.startswith(server.url)
        assert HTTP.get(url).status_code == 200


def test_every_example_of_the_docs_is_answered(server: Server) -> None:
    page = HTTP.get(f"{server.url}/openapi.json").json()
    assert page["info"]["title"] == "Galton"
    answered = set()
    for path, operations in page["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {}).get("$ref", "")
        for example in page["components"]["schemas"].get(schema[21:], {}).get("examples", ()):
            answer = HTTP.post(server.url + path, json=example)
            assert answer.status_code == 200, answer.text
            assert answer.json()["routing"]["policy"]["seed"] == example["routing"]["seed"]
            answered.add(path)
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses"} < answered
    assert {"/v1/messages", "/v1/chat/completions/batch"} < answered


def test_tokenize_round_trip(server: Server) -> None:
    tokens = server.post("/tokenize", {"prompt": "The cat sleeps."}).json()["tokens"]
    assert server.post("/detokenize", {"tokens": tokens}).json()["prompt"] == "The cat sleeps."


def test_openapi_documents_what_is_galtons(server: Server) -> None:
    page = HTTP.get(f"{server.url}/openapi.json").json()
    schemas = page["components"]["schemas"]
    names = ["ChatCompletion", "Completion", "Responses", "Batch", "Messages"]
    for name in names:
        routing = schemas[f"Routed{name}Request"]["properties"]["routing"]
        preset, *modes = routing["anyOf"]
        assert preset["type"] == "string"
        assert [mode["title"] for mode in modes][:2] == ["top_k", "sample"]
    for path in ("policies", "presets"):
        answer = page["paths"][f"/v1/routing/{path}"]["get"]["responses"]["200"]
        assert "$ref" in answer["content"]["application/json"]["schema"]


def test_metrics_have_the_format_that_is_asked_for(server: Server) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"
    for path in ("/metrics", "/metrics/", "//metrics/serving"):
        for headers, kind in (({}, "text/plain"), ({"Accept": accept}, "application/openmetrics")):
            page = HTTP.get(server.url + path, headers=headers, follow_redirects=True)
            assert page.headers["content-type"].startswith(kind)
            assert page.text.endswith("# EOF\n") == bool(headers)
            assert "\nvllm:num_requests_running{" in page.text
    assert HTTP.post(f"{server.url}/metrics").status_code == 405


def test_gateways_have_a_page_without_experts(server: Server) -> None:
    page = HTTP.get(f"{server.url}/metrics/serving").text
    for gauge in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"):
        assert f"vllm:{gauge}{{" in page
    assert "galton_requests_total" in page
    assert "galton_expert" not in page
