"""Routing through the real engine: whatever the crowd, the chunks, the cache or the ranks.

Prompts are token ids; texts are compared as generated ids. Each engine is the demo model,
bf16, on CPU, eager unless said otherwise.
"""

from __future__ import annotations

import itertools
import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from loadtests.servers import galton
from routing.trace import Trace
from tests.conftest import FreshPrompt
from tests.shared.servers import DEMO, MODEL, Server, running, stock

Requests = list[tuple[list[int], Any]]


def _prompts(count: int, length: int, seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(10, 1000) for _ in range(length)] for _ in range(count)]


PROMPTS = _prompts(12, 24, seed=1)
POLICIES: list[dict[str, Any] | None] = [
    None,
    {"mode": "sample", "temperature": 0.5, "seed": 1},
    {"mode": "sample", "temperature": 1.0, "seed": 2, "scope": "all"},
    {"mode": "top_k", "top_k": 2},
    {"mode": "sample", "temperature": [0, 0, 1, 1, 2, 0.5, 0.3, 0], "seed": 3, "top_k": 6},
    {"mode": "top_k", "top_k": 8, "scope": "all"},
    {"mode": "top_p", "top_p": 0.6, "max_experts": 8},
    {"mode": "head_sample", "temperature": 2.0, "seed": 4, "scope": "all"},
    {"mode": "uniform", "top_k": 3, "seed": 5, "weights": "preserve_mass"},
]
MIXED: Requests = [(prompt, POLICIES[i % 9]) for i, prompt in enumerate(PROMPTS)]
LONG: Requests = [(prompt, POLICIES[i % 9]) for i, prompt in enumerate(_prompts(12, 150, seed=2))]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def _logprobs(server: Server, prompt: list[int]) -> Any:
    answer = server.complete(prompt, max_tokens=24, logprobs=5, prompt_logprobs=0)
    choice = answer["choices"][0]
    return choice["token_ids"], choice["logprobs"], choice["prompt_logprobs"]


def _first_layers(count: int, path: Path) -> Path:
    """The demo without the other layers, a checkpoint in `path`."""
    shutil.copytree(DEMO, path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": count}))
    weights = load_file(path / "model.safetensors")
    kept = [f"model.layers.{layer}." for layer in range(count)]
    for name in list(weights):
        if name.startswith("model.layers.") and not name.startswith(tuple(kept)):
            del weights[name]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    return path


def _answers(server: Server) -> Any:
    """Tokens and log-probabilities of half of the prompts alone, and tokens of all at once."""
    alone = [_logprobs(server, prompt) for prompt in PROMPTS[::2]]
    return alone, server.together([(prompt, None) for prompt in PROMPTS])


HAS_AMX = torch.cpu._is_amx_tile_supported()
# Stock vLLM's sums depend on the batch there: Galton's must be made in the same way.
AS_STOCK = {"GALTON_BATCH_INVARIANT": "0"} if HAS_AMX else {}


def _is_stock(ours: Server, vllm: Server) -> None:
    """Alone; where the batch does not matter, also in a crowd and beside sampled tokens."""
    alone, together = _answers(vllm)
    our_alone, our_together = _answers(ours)
    assert our_alone == alone
    if HAS_AMX:
        return
    assert our_together == together
    among_sampled = ours.together(
        [(prompt, None) for prompt in PROMPTS]
        + [(prompt, {"mode": "sample", "temperature": 3.0}) for prompt in PROMPTS]
    )
    assert among_sampled[: len(PROMPTS)] == together


STOCK_CACHE = f"--kv-cache-memory-bytes={2**30}"  # as much as the demo has


def test_top_k_is_stock_vllm_to_the_last_bit(server: Server, logs: Path) -> None:
    # `server` has 8 expert slots per token for a model of top-4.
    with ExitStack() as stack:
        vllm = stack.enter_context(running(stock("--enforce-eager", STOCK_CACHE), logs / "stock"))
        if HAS_AMX:
            ours = running(galton("serve", "--max-experts-per-token=8"), logs / "ours", AS_STOCK)
            server = stack.enter_context(ours)
        _is_stock(server, vllm)


def test_top_k_is_stock_vllm_compiled_too(logs: Path) -> None:
    """The demo's first two layers: compiling takes most of the time, and as long for each."""
    model = _first_layers(2, logs / "model")
    flags = ("--no-enforce-eager", STOCK_CACHE)
    ours = running(
        galton("serve", str(model), f"--served-model-name={MODEL}", *flags),
        logs / "compiled",
        {"VLLM_CPU_OMP_THREADS_BIND": "0", **AS_STOCK},
    )
    vllms = running(
        stock(f"--model={model}", *flags),
        logs / "compiled-stock",
        {"VLLM_CPU_OMP_THREADS_BIND": "1"},
    )
    # Side by side, each on a core of its own.
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        _is_stock(*pool.map(stack.enter_context, (ours, vllms)))


def test_requests_are_the_same_alone_and_in_a_crowd(server: Server) -> None:
    alone = [server.tokens(*request) for request in MIXED]
    assert server.together(MIXED) == alone
    assert server.together(MIXED[::-1]) == alone[::-1]


def test_same_seed_same_tokens_and_other_seeds_other_tokens(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 1.5}
    runs = [
        server.together([(prompt, {**policy, "seed": seed}) for prompt in PROMPTS])
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert sum(a != b for a, b in zip(runs[0], runs[2], strict=True)) > len(PROMPTS) / 2


def test_seed_does_not_depend_on_token_sampling(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 1.5, "seed": 5}
    drawn = [server.tokens(PROMPTS[0], policy, temperature=1, seed=9) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_temperature_zero_is_the_models_own_routing(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 0, "seed": 5}
    for prompt in PROMPTS[:4]:
        assert server.tokens(prompt, policy) == server.tokens(prompt)


def test_scope_decode_leaves_the_prompt_alone(server: Server) -> None:
    policy = {"mode": "sample", "temperature": 3.0, "seed": 5}

    def prompt_logprobs(routing: object) -> Any:
        answer = server.complete(PROMPTS[0], routing, max_tokens=1, prompt_logprobs=0)
        return answer["choices"][0]["prompt_logprobs"]

    clean = prompt_logprobs(None)
    assert prompt_logprobs({**policy, "scope": "decode"}) == clean
    assert prompt_logprobs({**policy, "scope": "all"}) != clean


def test_chunks_and_preemption_change_nothing(server: Server, small_server: Server) -> None:
    def preemptions() -> float:
        return small_server.metric("vllm:num_preemptions_total")

    expected = server.together(LONG, max_tokens=50)
    before = preemptions()
    few = [small_server.together(LONG[i : i + 3], max_tokens=50) for i in range(0, len(LONG), 3)]
    assert list(itertools.chain(*few)) == expected
    assert preemptions() == before
    # All twelve at once: 84 blocks of a cache that has 24.
    assert small_server.together(LONG, max_tokens=50) == expected
    assert preemptions() > before


def test_chunks_do_not_disturb_seeded_tokens(server: Server, small_server: Server) -> None:
    for prompt, routing in LONG[:3]:
        drawn = {"temperature": 1, "seed": 9}
        expected = server.tokens(prompt, routing, **drawn)
        assert small_server.tokens(prompt, routing, **drawn) == expected


def test_tensor_parallel_follows_the_same_policies(logs: Path) -> None:
    flags = ("--max-experts-per-token=8", "--tensor-parallel-size=2")
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    with running(galton("serve", *flags), logs / "tp2", threads) as server:
        requests = MIXED[: len(POLICIES)]
        alone = [server.tokens(*request, max_tokens=8) for request in requests]
        tokens = server.metric("galton_routed_tokens_total")
        assert tokens == sum(len(prompt) + 7 for prompt, _ in requests)
        assert server.together(requests, max_tokens=8) == alone
        policy = {"mode": "sample", "temperature": 1.5, "seed": 1, "scope": "all"}
        recorded = server.complete(PROMPTS[0], {**policy, "include": ["trace"]}, max_tokens=16)
        (entry,) = recorded["routing"]["trace"]
        assert Trace.decode(entry["data"]).computed.all()
        sampled = recorded["choices"][0]["token_ids"]
        assert sampled[:8] != alone[0]
        replay = {"mode": "replay", "trace": entry["data"]}
        assert server.tokens(PROMPTS[0], replay, max_tokens=16) == sampled


def _cached(server: Server, prompt: list[int], routing: object) -> int:
    """Prompt tokens served from the prefix cache."""
    usage = server.complete(prompt, routing, max_tokens=40)["usage"]
    cached: int = usage["prompt_tokens_details"]["cached_tokens"]
    return cached


def _follow_up(server: Server, prompt: list[int], routing: object) -> list[int]:
    """The prompt of a second turn: the first turn and its answer, and a bit more."""
    return prompt + server.tokens(prompt, routing, max_tokens=40) + [50, 51, 52]


SAMPLE = {"mode": "sample", "temperature": 1.0, "seed": 1}
ALL = {**SAMPLE, "scope": "all"}


def test_prompts_under_scope_decode_share_the_cache_with_everybody(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(100)
    assert _cached(server, prompt, None) == 0
    for routing in (None, SAMPLE, {**SAMPLE, "seed": 2}, {"top_k": 2}):
        assert _cached(server, prompt, routing) == 96


def test_prompts_under_scope_all_share_only_with_their_equals(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(100)
    assert _cached(server, prompt, None) == 0
    assert _cached(server, prompt, ALL) == 0
    assert _cached(server, prompt, ALL) == 96
    others = [{**ALL, "seed": 2}, {**ALL, "temperature": 0.9}, {**ALL, "top_k": 3}]
    others += [{**ALL, "temperature": [1] * 7 + [0]}, {"top_k": 3, "scope": "all"}]
    for other in others:
        assert _cached(server, prompt, other) == 0
    assert _cached(server, prompt, {**ALL, "temperature": [1] * 8}) == 96
    # Without noise there is nothing that could differ.
    assert _cached(server, prompt, {**ALL, "temperature": 0, "seed": 3}) == 96


def test_generated_blocks_are_not_taken_for_clean_ones(
    server: Server, fresh_prompt: FreshPrompt
) -> None:
    prompt = fresh_prompt(96)
    second_turn = _follow_up(server, prompt, SAMPLE)
    assert _cached(server, second_turn, None) == 96
    prompt = fresh_prompt(96)
    second_turn = _follow_up(server, prompt, None)
    assert _cached(server, second_turn, None) == 128


def test_cached_blocks_give_the_same_tokens_as_no_cache(
    server: Server, small_server: Server, fresh_prompt: FreshPrompt
) -> None:
    requests: Requests = []
    for prompt in (fresh_prompt(100) for _ in range(3)):
        requests += [
            (prompt, policy) for policy in (None, ALL, SAMPLE, ALL, None, {**ALL, "seed": 2})
        ]
    with_cache = [server.tokens(*request, max_tokens=16) for request in requests]
    assert with_cache == [small_server.tokens(*request, max_tokens=16) for request in requests]


def test_fewer_experts_are_really_computed(server: Server, fresh_prompt: FreshPrompt) -> None:
    name = "galton_expert_assignments_total"
    counts = [server.metric(name)]
    for top_k in (4, 2, 1):
        server.tokens(fresh_prompt(20), {"top_k": top_k, "scope": "all"})
        counts.append(server.metric(name))
    steps = [after - before for before, after in itertools.pairwise(counts)]
    assert steps == [51 * 8 * top_k for top_k in (4, 2, 1)]


def test_steering_is_obeyed_where_it_is_allowed(small_server: Server) -> None:
    name = "galton_expert_assignments_total"
    before = [small_server.metric(name, expert=str(expert)) for expert in range(16)]
    steering = {"ban": {"*": [0, 1]}, "force": {"*": [5]}, "bias": {"3": {"7": -20}}}
    small_server.tokens(PROMPTS[0], {"mode": "sample", "seed": 1, "scope": "all", **steering})
    used = [small_server.metric(name, expert=str(e)) - before[e] for e in range(16)]
    num_tokens = len(PROMPTS[0]) + 31
    assert used[0] == used[1] == 0
    assert used[5] == num_tokens * 8
    assert sum(used) == num_tokens * 8 * 4
