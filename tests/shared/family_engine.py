"""An engine for `test_families`: `python -m tests.shared.family_engine stock|galton MODEL ANSWER`.

MODEL is a checkpoint's directory, ANSWER the JSON file that is written. Runs as a fork of a process
that imported vLLM, see `tests.shared.warm`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from vllm import LLM, SamplingParams

from routing.engine import engine_options
from routing.engine.travel import REQUEST_KEY
from routing.spec import RouterSpec
from tests.shared.families import VOCAB_SIZE
from tests.shared.traces import random_trace


def _prompts() -> list[dict[str, Any]]:
    rng = random.Random(1)
    lengths = (5, 12, 20)
    return [{"prompt_token_ids": [rng.randrange(3, VOCAB_SIZE) for _ in range(n)]} for n in lengths]


PROMPTS = _prompts()


def policies(spec: RouterSpec) -> dict[str, dict[str, Any]]:
    """One request's `routing` for each mode, and one that steers."""
    top_k, max_top_k = spec.top_k, spec.max_top_k
    trace = random_trace(spec, len(PROMPTS[-1]["prompt_token_ids"]))
    steering = {"ban": {"*": [0]}, "force": {"*": [3]}, "bias": {"*": {"1": 3.0, "2": -1.0}}}
    return {
        "top_k": {"mode": "top_k", "top_k": max_top_k, "weights": "preserve_mass"},
        "sample": {"mode": "sample", "temperature": 1.5, "seed": 1},
        "top_p": {"mode": "top_p", "top_p": 0.7, "max_experts": max_top_k, "mass": "full"},
        "head_sample": {"mode": "head_sample", "top_k": top_k, "head": 1, "seed": 2},
        "uniform": {"mode": "uniform", "seed": 3, "weights": "renormalize"},
        "replay": {"mode": "replay", "trace": trace.encode_base64()},
        "steered": {
            "mode": "sample",
            "temperature": 0.5,
            "seed": 4,
            "noise": "request",
            **steering,
        },
    }


# Two stand side by side, with the kernel that both have.
ON_GPUS: dict[str, Any] = {"gpu_memory_utilization": 0.3, "moe_backend": "triton"}


def _engine(path: Path, **options: Any) -> LLM:
    return LLM(
        str(path),
        dtype="bfloat16",
        enforce_eager=True,
        skip_tokenizer_init=True,
        max_model_len=64,
        max_num_batched_tokens=64,
        max_num_seqs=4,
        kv_cache_memory_bytes=2**24,
        **(ON_GPUS if torch.cuda.is_available() else {}),
        **options,
    )


def _greedy(llm: LLM, prompts: list[dict[str, Any]], routing: object = None) -> list[Any]:
    """Of each prompt, the generated tokens and every step's five best logprobs."""
    params = SamplingParams(
        temperature=0,
        max_tokens=8,
        ignore_eos=True,
        logprobs=5,
        extra_args={REQUEST_KEY: routing} if routing else None,
    )
    answers = [output.outputs[0] for output in llm.generate(prompts, params, use_tqdm=False)]
    return [
        [
            list(answer.token_ids),
            [{str(t): p.logprob for t, p in s.items()} for s in answer.logprobs or ()],
        ]
        for answer in answers
    ]


def _stock(path: Path) -> dict[str, Any]:
    return {"greedy": _greedy(_engine(path), PROMPTS)}


def _galton(path: Path) -> dict[str, Any]:
    """Start as the server does, self-test included; then what each policy did.

    problems: by policy, `galton_check`'s. answers: by policy, `_greedy` of the last prompt.
    """
    config = json.loads((path / "config.json").read_text())
    top_k = config.get("num_experts_per_tok") or config["moe_k"]
    max_top_k = 1 if top_k == 1 else top_k + 2
    llm = _engine(path, **engine_options(max_top_k, allow_request_steering=True))
    # With numba behind them: not before the engine, see `routing.engine.plugin`.
    from routing.engine.offline import AwaitableLLM
    from routing.engine.startup import attach
    from routing.policy import parse_policy

    spec, _ = asyncio.run(attach(AwaitableLLM(llm)))
    greedy = _greedy(llm, PROMPTS)
    answers, problems = {}, {}
    for name, policy in policies(spec).items():
        policy = {**policy, "scope": "all"}
        llm.collective_rpc("galton_listen")
        (answers[name],) = _greedy(llm, PROMPTS[-1:], policy)
        sent = parse_policy(policy, spec).as_dict()
        (problems[name],) = llm.collective_rpc("galton_check", args=(sent, 1))
    return {"greedy": greedy, "answers": answers, "problems": problems}


def main() -> None:
    which, model, answer = sys.argv[1:]
    # Compiling the one function that counts logprobs takes two seconds.
    torch.compiler.set_stance("force_eager")
    run = {"stock": _stock, "galton": _galton}[which]
    Path(answer).write_text(json.dumps(run(Path(model))))
    sys.stdout.flush()
    os._exit(0)  # an engine's own end is not what is tested


if __name__ == "__main__":
    main()
