"""The same request in many circumstances: `make reproducibility`, some minutes.

Random requests (prompt, policy, routing seed, token sampling) run alone, then in batches of
2 to 32 of each other, in engines that chunk, preempt, find their prompts cached, verify drafts,
split over two ranks; each in a process of its own. On a GPU with CUDA graphs.

In every layer and for every token that follows a policy, the experts must be those that the
reference chooses from the logits seen there with the noise of (seed, layer, position): so the
noise is right. How often the text is the same too is counted, not required.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from routing.policy.modes import MODES
from routing.spec import RouterSpec
from tests.shared import warm
from tests.shared.drafts import ngrams
from tests.shared.servers import DEMO, REPO
from tests.shared.traces import random_trace

MAX_TOP_K, NUM_TOKENS = 8, 16
SMALL = {"max_num_batched_tokens": 48, "num_gpu_blocks_override": 24}
CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "alone": {},
    "alone, after a restart": {},
    "in batches": {"batches": True},
    "in batches, prompts cached": {"batches": True, "repeats": 2},
    "in batches, chunks and preemption": {"batches": True, "engine": SMALL},
    "in batches, drafted": {"batches": True, "engine": {"speculative_config": ngrams(3)}},
    "in batches, two ranks": {"batches": True, "engine": {"tensor_parallel_size": 2}},
}
# Where no graph is replayed; where no step is scheduled ahead of the device.
ON_GPUS: dict[str, dict[str, Any]] = {
    "in batches, eager": {"batches": True, "engine": {"enforce_eager": True}},
    "in batches, a step at a time": {"batches": True, "engine": {"async_scheduling": False}},
}
if torch.cuda.is_available():
    CIRCUMSTANCES |= ON_GPUS


def requests(count: int, spec: RouterSpec) -> list[dict[str, Any]]:
    """Random requests, the same for every circumstance. Each follows a policy."""
    rng = random.Random(0)
    not_native = [k for k in range(1, MAX_TOP_K + 1) if k != spec.top_k]
    drawn = []
    for number in range(count):
        prompt = [rng.randrange(5, 2560) for _ in range(rng.randint(1, 90))]
        mode = rng.choice([*MODES])
        policy: dict[str, Any] = {"mode": mode, "scope": rng.choice(["decode", "all"])}
        if mode == "replay":
            policy["trace"] = random_trace(spec, len(prompt) + NUM_TOKENS).encode_base64()
        else:
            policy["seed"] = rng.randrange(2**63)
        if mode == "top_p":
            policy["top_p"] = rng.choice([0.5, 0.9])
        elif mode != "replay":
            policy["top_k"] = rng.choice(not_native)
        if mode in ("sample", "head_sample"):
            policy["temperature"] = rng.choice([0.3, 1.0, 3.0])
        drawn.append(
            {
                "prompt": prompt,
                "routing": policy,
                "temperature": rng.choice([0.0, 1.0]),
                "seed": number,
            }
        )
    return drawn


def observe(circumstance: str, count: int) -> dict[str, Any]:
    """Run all requests: their tokens, the reference's objections, the preemptions."""
    from tqdm import tqdm  # type: ignore[import-untyped]
    from vllm import LLM, SamplingParams

    from routing.engine import engine_options
    from routing.engine.travel import REQUEST_KEY

    how = CIRCUMSTANCES[circumstance]
    engine = {
        "max_num_batched_tokens": 2048,
        "kv_cache_memory_bytes": 2**28,
        "enforce_eager": not torch.cuda.is_available(),
        **how.get("engine", {}),
    }
    llm = LLM(
        str(DEMO),
        dtype="bfloat16",
        max_model_len=256,
        max_num_seqs=32,
        block_size=32,
        disable_log_stats=False,
        **engine,
        **engine_options(MAX_TOP_K, batch_invariant=True),
    )
    # With numba behind them: not before the engine, see `routing.engine.plugin`.
    from routing.engine.offline import AwaitableLLM
    from routing.engine.startup import attach

    spec, _ = asyncio.run(attach(AwaitableLLM(llm)))
    asked = requests(count, spec)
    params = [
        SamplingParams(
            temperature=request["temperature"],
            seed=request["seed"],
            max_tokens=NUM_TOKENS,
            ignore_eos=True,
            extra_args={REQUEST_KEY: request["routing"]},
        )
        for request in asked
    ]
    tokens: list[list[int]] = [[] for _ in asked]
    problems: list[str] = []
    rng = random.Random(1)
    order = list(range(count))
    if how.get("batches"):
        rng.shuffle(order)
    with tqdm(total=count, desc=circumstance) as bar:
        while order:
            size = rng.randint(2, 32) if how.get("batches") else 1
            batch, order = order[:size], order[size:]
            for _ in range(how.get("repeats", 1)):
                llm.collective_rpc("galton_listen")
                prompts = [{"prompt_token_ids": asked[i]["prompt"]} for i in batch]
                outputs = llm.generate(prompts, [params[i] for i in batch], use_tqdm=False)
                problems += [line for w in llm.collective_rpc("galton_check") for line in w]
            for i, output in zip(batch, outputs, strict=True):
                tokens[i] = list(output.outputs[0].token_ids)
            bar.update(len(batch))
    counters = {metric.name: getattr(metric, "value", 0) for metric in llm.get_metrics()}
    return {
        "tokens": tokens,
        "problems": problems,
        "preemptions": counters.get("vllm:num_preemptions", 0),
        "cached": counters.get("vllm:prefix_cache_hits", 0),
    }


def _elsewhere(circumstance: str, count: int) -> dict[str, Any]:
    """`observe` in a process of its own, which is ended with all that it started."""
    if "ranks" in circumstance:
        env = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}
    else:
        env = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    if torch.cuda.is_available():
        env["VLLM_GPU_SYNC_CHECK"] = "error"  # no step may wait for the device
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "seen.json"
        command = [sys.executable, "-m", "tests.slow.reproducibility", f"--only={circumstance}"]
        process = subprocess.Popen(
            [*command, f"--requests={count}", f"--out={out}"],
            cwd=REPO,
            env=warm.environment(**env),
            stdout=sys.stderr,
            start_new_session=True,
        )
        try:
            process.wait()
            seen: dict[str, Any] = json.loads(out.read_text())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return seen


def main() -> int:
    """Run every circumstance in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=250)
    parser.add_argument("--only", choices=tuple(CIRCUMSTANCES), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        args.out.write_text(json.dumps(observe(args.only, args.requests)))
        os._exit(0)  # the engine's own end is not what is tested
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{args.requests} requests of {NUM_TOKENS} tokens, demo model, bfloat16, {device}\n")
    print("| circumstance | wrong experts | same text as alone | preemptions | tokens cached |")
    print("|---|---|---|---|---|")
    alone: list[list[int]] = []
    wrong = 0
    for circumstance in CIRCUMSTANCES:
        if "ranks" in circumstance and torch.cuda.device_count() == 1:
            continue
        seen = _elsewhere(circumstance, args.requests)
        alone = alone or seen["tokens"]
        same = sum(a == b for a, b in zip(alone, seen["tokens"], strict=True))
        wrong += len(seen["problems"])
        print(
            f"| {circumstance} | {len(seen['problems'])} | {same / args.requests:.1%} "
            f"| {seen['preemptions']:.0f} | {seen['cached']:.0f} |",
            flush=True,
        )
        for line in seen["problems"][:3]:
            print(line, file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
