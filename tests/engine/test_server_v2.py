"""`galton serve` as on a GPU answers as on a CPU: on vLLM's model runner V2, a step ahead, with
Triton's kernels.

See `tests.shared.v2_server`. The kernels are interpreted: a token takes 0.2 seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from routing.trace import Trace
from tests.conftest import FreshPrompt
from tests.shared.servers import HTTP, MODEL, Server, running

ALL = ["trace", "stats", "weights"]
POLICIES: list[dict[str, Any]] = [
    {},
    {"mode": "sample", "temperature": 1.5, "seed": 7, "scope": "all", "include": ALL},
    {"mode": "top_k", "top_k": 1, "include": ["stats"]},
    {"mode": "head_sample", "seed": 3, "top_k": 6, "scope": "all", "include": ["trace"]},
    {"mode": "top_p", "top_p": 0.7, "max_experts": 8},
]


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the flags of `server`, but for chunks of 32 tokens."""
    command = [
        *(sys.executable, "-m", "tests.shared.v2_server"),
        "--max-experts-per-token=8",
        "--enable-prompt-tokens-details",
        "--block-size=32",
        "--max-num-batched-tokens=32",
        "--max-num-seqs=8",
        "--enforce-eager",
        "--max-cudagraph-capture-size=8",  # so that the self-test asks what graphs might get wrong
    ]
    log = tmp_path_factory.mktemp("v2") / "log"
    env = {"VLLM_SERVER_DEV_MODE": "1"}
    # Not warm: what imported vLLM already has asked for Triton.
    with running(command, log, env, subprocess.Popen) as started:
        yield started


def test_it_is_what_a_gpu_runs(v2: Server) -> None:
    info = HTTP.get(f"{v2.url}/server_info?config_format=json").json()["vllm_config"]
    assert info["scheduler_config"]["async_scheduling"] is True
    assert "Using V2 Model Runner" in v2.log.read_text()


def test_requests_are_answered_as_on_a_cpu(
    server: Server, v2: Server, fresh_prompt: FreshPrompt
) -> None:
    """Together, in chunks, and from the prefix cache, of which a trace has no rows."""
    long = fresh_prompt(40)
    asked: list[tuple[list[int], Any, Any]]
    asked = [(fresh_prompt(8), policy, {}) for policy in POLICIES]
    two = {"n": 2, "temperature": 0.01}  # all but greedy: each runner draws tokens in its own way
    asked.append((long, {"mode": "uniform", "seed": 5, "noise": "request"}, two))

    def answer(server: Server, prompt: list[int], policy: Any, body: Any) -> Any:
        whole = server.complete(prompt, policy, max_tokens=6, logprobs=1, **body)
        return {key: whole[key] for key in ("choices", "routing", "usage")}

    with ThreadPoolExecutor(len(asked)) as pool:
        answers = [
            list(pool.map(answer, [s] * len(asked), *zip(*asked, strict=True)))
            for s in (server, v2)
        ]
    again = [answer(s, long, {"mode": "top_k", "include": ALL}, {}) for s in (server, v2)]
    assert again[0]["usage"]["prompt_tokens_details"]["cached_tokens"] == 32
    for on_cpu, on_v2 in [*zip(*answers, strict=True), again]:
        assert_same(on_v2, on_cpu)


def assert_same(found: Any, expected: Any) -> None:
    """Answers are the same but for the last bits of numbers."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    elif isinstance(expected, str) and len(expected) > 200:  # a trace
        ours, theirs = Trace.decode(found), Trace.decode(expected)
        assert np.array_equal(ours.topk_ids, theirs.topk_ids)
        assert np.array_equal(ours.computed, theirs.computed)
    else:
        assert found == expected


def test_a_trace_is_replayed_streamed_and_counted(
    server: Server, v2: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(8)
    policy = {"mode": "uniform", "seed": 9, "scope": "all", "include": ["trace"]}
    traced = server.complete(prompt, policy, max_tokens=6)
    data = traced["routing"]["trace"][0]["data"]
    name = "galton_expert_assignments_total"
    before = v2.samples(name)
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": 6,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "return_token_ids": True,
        "routing": {"mode": "replay", "trace": data, "include": ["trace"]},
    }
    with HTTP.stream("POST", f"{v2.url}/v1/completions", json=body) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    events = [json.loads(line) for line in lines]
    choices = [choice for event in events for choice in event["choices"]]
    token_ids = [token for choice in choices for token in choice["token_ids"] or ()]
    assert token_ids == traced["choices"][0]["token_ids"]
    counted = {labels: count - before[labels] for labels, count in v2.samples(name).items()}
    replayed = Trace.decode(data)
    for layer in range(replayed.topk_ids.shape[1]):
        ids = replayed.topk_ids[:, layer]
        found = [counted[str(layer), str(expert)] for expert in range(16)]
        assert found == np.bincount(ids[ids >= 0], minlength=16).tolist()


def test_wrong_requests_leave_it_well(v2: Server, fresh_prompt: FreshPrompt) -> None:
    body = {"prompt": fresh_prompt(8), "routing": {"mode": "sample", "top_k": 99}}
    response = v2.post("/v1/completions", body)
    assert response.status_code == 400
    assert "top_k" in response.json()["error"]["message"]
    assert len(v2.tokens(fresh_prompt(8), max_tokens=2)) == 2
