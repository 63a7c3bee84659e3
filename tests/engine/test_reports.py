"""Traces, statistics and replay through the real engine and the API."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import Any

import anthropic
import numpy as np
import openai
import pytest
import torch

from models.fingerprint import fingerprint
from routing.trace import Trace, join
from tests.conftest import FreshPrompt
from tests.shared.servers import DEMO, MODEL, Server

NUM_LAYERS, NUM_EXPERTS, TOP_K = 8, 16, 4
POLICIES: list[dict[str, Any]] = [
    {},
    {"mode": "sample", "temperature": 1.0, "seed": 2, "scope": "all"},
    {"mode": "sample", "temperature": 0.5, "seed": 1},
    {"mode": "top_k", "top_k": 8, "scope": "all"},
    {"mode": "top_p", "top_p": 0.6, "max_experts": 8, "scope": "all"},
    {"mode": "head_sample", "temperature": 2.0, "seed": 4, "scope": "all"},
    {"mode": "uniform", "top_k": 3, "seed": 5},
]
LOGPROBS: dict[str, Any] = {
    "logprobs": 1,
    "prompt_logprobs": 0,
}  # vLLM computes all of such a prompt


def traced(
    server: Server, prompt: list[int], routing: dict[str, Any], **body: Any
) -> tuple[Trace, dict[str, Any]]:
    """The trace and the whole answer of one request."""
    answer = server.complete(prompt, {**routing, "include": ["trace"]}, **body)
    (entry,) = answer["routing"]["trace"]
    assert answer["choices"][0]["routed_experts"] is None  # vLLM's field, not ours
    return Trace.decode(entry["data"]), answer


def replay(trace: Trace) -> dict[str, Any]:
    return {"mode": "replay", "trace": trace.encode_base64()}


def test_who_asks_nothing_is_told_nothing(server: Server, fresh_prompt: FreshPrompt) -> None:
    assert server.complete(fresh_prompt(40), max_tokens=2)["routing"].keys() == {"policy"}


def test_one_draw_serves_all_tokens_and_requests_of_a_window(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    """`uniform` chooses by noise alone: under one draw every token has the same experts."""

    def routed(routing: dict[str, Any], **body: Any) -> tuple[int, list[list[int]]]:
        trace, answer = traced(
            server, fresh_prompt(5), routing, model=f"{MODEL}-windowed", max_tokens=4, **body
        )
        assert (trace.topk_ids == trace.topk_ids[:1]).all()
        return answer["routing"]["policy"]["seed"], trace.topk_ids[0].tolist()

    shared = routed({})
    assert routed({}) == shared
    named = routed({"seed": shared[0] ^ 1})
    assert named[0] == shared[0] ^ 1
    assert named[1] != shared[1]
    several = server.complete(fresh_prompt(5), model=f"{MODEL}-windowed", n=2, temperature=1)
    assert several["routing"]["policy"]["seed"] != shared[0]


def test_trace_and_metrics_count_the_same(server: Server, fresh_prompt: FreshPrompt) -> None:
    name = "galton_expert_assignments_total"

    def counts() -> list[list[float]]:
        lines = server.samples(name)
        return [
            [lines[str(layer), str(expert)] for expert in range(NUM_EXPERTS)]
            for layer in range(NUM_LAYERS)
        ]

    before = np.array(counts())
    policy = {"mode": "top_p", "top_p": 0.5, "max_experts": 8, "scope": "all"}
    trace, _ = traced(server, fresh_prompt(40), policy, max_tokens=10)
    # 40 tokens of the prompt and 10 generated, of which the last was never computed.
    assert trace.topk_ids.shape[:2] == (49, NUM_LAYERS)
    assert trace.computed.all()
    assert not trace.native.any()
    assert trace.fingerprint == fingerprint(str(DEMO))
    found = [
        np.bincount(trace.topk_ids[:, layer][trace.topk_ids[:, layer] >= 0], minlength=16)
        for layer in range(NUM_LAYERS)
    ]
    assert (np.array(counts()) - before).tolist() == np.array(found).tolist()


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_replay_gives_the_same_experts_tokens_and_logprobs(
    server: Server, fresh_prompt: FreshPrompt, policy: dict[str, Any]
) -> None:
    prompt = fresh_prompt(40)
    trace, answer = traced(server, prompt, policy, **LOGPROBS)
    again, replayed = traced(server, prompt, replay(trace), **LOGPROBS)
    assert again.topk_ids.tolist() == trace.topk_ids.tolist()
    for key in ("token_ids", "logprobs", "prompt_logprobs"):
        assert replayed["choices"][0][key] == answer["choices"][0][key], key
    assert replayed["routing"]["policy"]["trace"]["tokens"] == 71


def test_replay_is_followed_where_the_router_would_not(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(40)
    trace, answer = traced(server, prompt, {"mode": "uniform", "scope": "all", "seed": 1})
    own = server.tokens(prompt)
    assert answer["choices"][0]["token_ids"] != own
    assert server.tokens(prompt, replay(trace)) == answer["choices"][0]["token_ids"]
    # Only the prompt's part: from there on the model's own router chooses.
    half = replace(trace, topk_ids=trace.topk_ids[:40], native=trace.native[:40])
    mixed, _ = traced(server, prompt, replay(half))
    assert mixed.topk_ids[:40].tolist() == half.topk_ids[..., : mixed.topk_ids.shape[2]].tolist()
    assert mixed.native.tolist() == [False] * 40 + [True] * 31


def test_teacher_forced_logprobs_are_those_of_the_generation(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(40)
    policy = {"mode": "sample", "temperature": 1.5, "seed": 3, "scope": "all"}
    trace, answer = traced(server, prompt, policy, **LOGPROBS)
    choice = answer["choices"][0]
    forced = server.complete(
        prompt + choice["token_ids"], replay(trace), max_tokens=1, prompt_logprobs=0
    )
    tokens = forced["choices"][0]["prompt_logprobs"][len(prompt) :]
    found = [next(iter(token.values()))["logprob"] for token in tokens]
    # A prompt's matrix products have other shapes than one token's, and may round otherwise.
    expected = choice["logprobs"]["token_logprobs"]
    assert np.abs(np.array(found) - expected).max() < 0.05


def test_chunks_and_preemption_leave_no_hole(
    server: Server, small_server: Server, fresh_prompt: FreshPrompt
) -> None:
    requests = [(fresh_prompt(150), POLICIES[i % len(POLICIES)]) for i in range(12)]
    expected = [traced(server, *request, max_tokens=50, **LOGPROBS)[0] for request in requests]

    before = small_server.metric("vllm:num_preemptions_total")
    asks = [partial(traced, small_server, *request, max_tokens=50) for request in requests]
    with small_server.crowd(asks) as answers:
        pass
    for answer, theirs in zip(answers, expected, strict=True):
        mine, _ = answer.result()
        assert mine.topk_ids.shape == theirs.topk_ids.shape
        assert mine.computed.all()
        assert mine.native.tolist() == theirs.native.tolist()
        if not torch.cuda.is_available():  # a GPU's sums depend on the batch, and on them the text
            assert mine.topk_ids.tolist() == theirs.topk_ids.tolist()
    assert small_server.metric("vllm:num_preemptions_total") > before


def test_cached_tokens_have_no_experts(server: Server, fresh_prompt: FreshPrompt) -> None:
    prompt = fresh_prompt(70)
    first, _ = traced(server, prompt, {}, max_tokens=4)
    second, _ = traced(server, prompt, {"mode": "uniform", "seed": 1}, max_tokens=4)
    assert first.computed.all()
    assert second.computed.tolist() == [False] * 64 + [True] * 9
    assert second.topk_ids[64:70].tolist() == first.topk_ids[64:70].tolist()
    # A hole is filled by the model's own router.
    again, _ = traced(server, prompt, replay(second), max_tokens=4)
    assert again.topk_ids[:70].tolist() == first.topk_ids[:70].tolist()
    assert again.topk_ids[70:].tolist() == second.topk_ids[70:].tolist()


def test_each_choice_has_its_trace(server: Server, fresh_prompt: FreshPrompt) -> None:
    prompt = fresh_prompt(40)
    routing = {"mode": "sample", "temperature": 2.0, "seed": 1, "include": ["trace", "stats"]}
    answer = server.complete(prompt, routing, n=3)
    assert [entry["index"] for entry in answer["routing"]["trace"]] == [0, 1, 2]
    assert [entry["index"] for entry in answer["routing"]["stats"]] == [0, 1, 2]
    for entry, choice in zip(answer["routing"]["trace"], answer["choices"], strict=True):
        trace = Trace.decode(entry["data"])
        assert server.tokens(prompt, replay(trace)) == choice["token_ids"]


def test_weights_come_on_demand(server: Server, fresh_prompt: FreshPrompt) -> None:
    include = ["trace", "weights"]
    answer = server.complete(fresh_prompt(40), {"mode": "top_k", "top_k": 2, "include": include})
    weights = Trace.decode(answer["routing"]["trace"][0]["data"]).topk_weights
    assert weights is not None
    generated = weights[40:]
    assert (generated[:, :, 2:] == 0).all()
    assert generated.sum(axis=2) == pytest.approx(1, abs=1e-6)
    assert (generated[:, :, 0] >= generated[:, :, 1]).all()


def test_statistics_sum_up_the_trace(server: Server, fresh_prompt: FreshPrompt) -> None:
    routing = {"mode": "uniform", "seed": 9, "include": ["stats", "trace"]}
    answer = server.complete(fresh_prompt(40), routing, max_tokens=20)
    trace = Trace.decode(answer["routing"]["trace"][0]["data"])
    (stats,) = answer["routing"]["stats"]
    for phase, tokens in (("prompt", slice(0, 40)), ("generated", slice(40, None))):
        assert stats[phase]["tokens"] == {"prompt": 40, "generated": 19}[phase]
        for layer, found in enumerate(stats[phase]["layers"]):
            experts, counts = np.unique(trace.topk_ids[tokens, layer], return_counts=True)
            expected = dict(zip(map(str, experts.tolist()), counts.tolist(), strict=True))
            assert found["assignments"] == expected
            assert (found["layer"], found["distinct_experts"]) == (layer, len(experts))
            assert 0 < found["entropy_nats"] < math.log(NUM_EXPERTS)
    # The prompt's tokens were the model's own; drawn uniformly, 4 of 16 meet 4 in one.
    assert all(layer["own_overlap_ratio"] == 1 for layer in stats["prompt"]["layers"])
    assert all(layer["margin"] > 0 for layer in stats["prompt"]["layers"])
    overlaps = [layer["own_overlap_ratio"] for layer in stats["generated"]["layers"]]
    assert np.mean(overlaps) == pytest.approx(TOP_K / NUM_EXPERTS, abs=0.08)
    assert all(layer["margin"] < 0 for layer in stats["generated"]["layers"])


@pytest.mark.parametrize("include_usage", [False, True])
def test_stream_brings_the_trace_chunk_by_chunk(
    server: Server, fresh_prompt: FreshPrompt, include_usage: bool
) -> None:
    prompt = fresh_prompt(40)
    routing = {"mode": "sample", "seed": 5, "scope": "all", "include": ["trace", "stats"]}
    body: dict[str, Any]
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "n": 2, "routing": routing}
    body |= {"ignore_eos": True, "return_token_ids": True}
    options = {"stream": True, "stream_options": {"include_usage": include_usage}}
    text = server.post("/v1/completions", {**body, **options}).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    routings = [chunk.get("routing", {}) for chunk in chunks]
    whole = server.post("/v1/completions", body).json()["routing"]
    parts = [entry for routing in routings for entry in routing.get("trace", ())]
    for entry in whole["trace"]:
        joined = join(Trace.decode(p["data"]) for p in parts if p["index"] == entry["index"])
        found = Trace.decode(entry["data"])
        both = joined.computed & found.computed  # one of the two may have been cached
        assert both[-11:].all()
        assert joined.topk_ids[both].tolist() == found.topk_ids[both].tolist()
    # Chunk by chunk: whoever has read a token has the experts of every token before it.
    read, known = Counter[int](), Counter[int]()
    for chunk, routing in zip(chunks, routings, strict=True):
        for part in routing.get("trace", ()):
            trace = Trace.decode(part["data"])
            known[part["index"]] = trace.first_position + len(trace.topk_ids)
        for choice in chunk["choices"]:
            read[choice["index"]] += len(choice["token_ids"] or ())
            assert known[choice["index"]] >= len(prompt) + read[choice["index"]] - 1
    assert read == {0: 12, 1: 12}
    assert [i for i, routing in enumerate(routings) if "policy" in routing] == [len(routings) - 1]
    assert routings[-1]["stats"][1]["generated"] == whole["stats"][1]["generated"]


def test_every_endpoint_reports(server: Server) -> None:
    routing = {"include": ["trace", "stats"]}
    message: Any = [{"role": "user", "content": "What is 8 plus 6?"}]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused")
    reported: list[Any] = []
    options: Any = {"model": MODEL, "extra_body": {"routing": routing}}
    chat = client.chat.completions.create(messages=message, max_tokens=4, **options)
    response = client.responses.create(input="What is 8 plus 6?", max_output_tokens=4, **options)
    for answer in (chat, response):
        assert answer.model_extra is not None
        reported.append(answer.model_extra["routing"])
    events = client.responses.create(
        input="What is 8 plus 6?", max_output_tokens=4, stream=True, **options
    )
    *_, last = events
    reported.append(last.response.routing)
    claude = anthropic.Anthropic(base_url=server.url, api_key="unused")
    said: Any = claude.messages.create(messages=message, max_tokens=4, **options)
    reported.append(said.routing)
    batch = {"messages": [message, message], "max_tokens": 4, "routing": routing}
    reported.append(server.post("/v1/chat/completions/batch", batch).json()["routing"])
    for entry in reported:
        assert Trace.decode(entry["trace"][-1]["data"]).computed[-3:].all()
        assert entry["stats"][-1]["generated"]["tokens"] == 3
    assert [entry["index"] for entry in reported[-1]["trace"]] == [0, 1]


def test_traces_that_cannot_be_replayed_never_reach_the_engine(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(40)
    trace, _ = traced(server, prompt, {}, max_tokens=2)
    bad: list[Any] = [
        replace(trace, fingerprint="0123456789abcdef").encode_base64(),
        replace(trace, layers=trace.layers[::-1]).encode_base64(),
        trace.encode_base64()[:-8],
        {"data": "AAAA", "dtype": "int32", "shape": [1, 8, 4]},
        None,
    ]
    for stream in (False, True):
        for raw in bad:
            body = {"prompt": prompt, "max_tokens": 2, "stream": stream}
            response = server.post(
                "/v1/completions", {**body, "routing": {"mode": "replay", "trace": raw}}
            )
            assert response.status_code == 400
            assert response.json()["error"]["param"] == "routing.trace"


@pytest.mark.parametrize("include", ["trace", ["traces"], [1], ["weights"], {"trace": True}])
def test_bad_include_is_a_400(server: Server, fresh_prompt: FreshPrompt, include: Any) -> None:
    body = {"prompt": fresh_prompt(40), "max_tokens": 2, "routing": {"include": include}}
    response = server.post("/v1/completions", body)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "routing.include"


def test_beam_search_with_a_report_is_refused(server: Server, fresh_prompt: FreshPrompt) -> None:
    body = {"prompt": fresh_prompt(40), "max_tokens": 2, "n": 2, "use_beam_search": True}
    routing = {"include": ["trace"]}
    assert server.post("/v1/completions", {**body, "routing": routing}).status_code == 400
