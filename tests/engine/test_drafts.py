"""Tokens that are drafted, of which several are verified in a step: who drafts is not to be seen in
what is answered. Drafts on vLLM's other runner, and a model's: `test_runner_v2`.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from scipy.stats import chi2_contingency

from loadtests.servers import galton
from tests.conftest import FreshPrompt
from tests.shared.drafts import ngrams
from tests.shared.servers import Server, running

POLICIES: list[dict[str, Any]] = [
    {},
    {"mode": "sample", "seed": 7, "scope": "all", "include": ["trace", "stats"]},
    {"mode": "top_p", "top_p": 0.6, "max_experts": 8, "scope": "all", "include": ["trace"]},
    {"mode": "uniform", "seed": 5, "noise": "request"},
]


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three tokens guessed from what came before them."""
    drafts = json.dumps(ngrams(3))
    command = galton("serve", "--max-experts-per-token=8", f"--speculative-config={drafts}")
    log = tmp_path_factory.mktemp("drafts") / "log"
    # Not warm: vLLM guesses with numba's threads, which a fork has on one core with the model's.
    with running(command, log, popen=subprocess.Popen) as started:
        yield started


def choices(server: Server, prompt: list[int], body: dict[str, Any], seed: int) -> Any:
    return server.complete(prompt, **body, seed=1000 * seed)["choices"]


def accepted(server: Server) -> float:
    return server.metric("vllm:spec_decode_num_accepted_tokens_total")


def test_answers_are_those_of_one_token_a_step(
    server: Server, drafting: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(6) * 4
    before = accepted(drafting)
    requests = [(prompt, policy) for policy in POLICIES]
    assert drafting.together(requests) == server.together(requests)
    for request in requests:
        found, expected = (s.complete(*request)["routing"] for s in (drafting, server))
        assert found == expected
    assert accepted(drafting) > before


def test_tokens_are_drawn_as_without_drafts(
    server: Server, drafting: Server, fresh_prompt: FreshPrompt
) -> None:
    """Always of the same seeds; a fault of one chance in a million is taken for one."""
    prompt = fresh_prompt(4) * 3
    body = {"temperature": 1.3, "top_p": 0.8, "top_k": 40, "n": 125, "max_tokens": 4}
    before = accepted(drafting)
    drawn = [
        [choice["token_ids"] for seed in range(12) for choice in choices(s, prompt, body, seed)]
        for s in (server, drafting)
    ]
    assert accepted(drafting) > before
    for place in range(4):
        with_drafts, without = (Counter(tokens[place] for tokens in each) for each in drawn)
        frequent = [t for t, count in (with_drafts + without).items() if count >= 20]
        table = [
            [*(counts[t] for t in frequent), 1 + 1500 - sum(counts[t] for t in frequent)]
            for counts in (with_drafts, without)
        ]
        assert chi2_contingency(table).pvalue > 1e-6, place


def test_what_does_not_go_with_drafts_is_the_clients_error(
    drafting: Server, fresh_prompt: FreshPrompt
) -> None:
    body = {"prompt": fresh_prompt(5), "logit_bias": {"5": 1.0}}
    response = drafting.post("/v1/completions", body)
    assert response.status_code == 400, response.text
    assert "logit_bias" in response.json()["error"]["message"]
