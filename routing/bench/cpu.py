"""The kernel's cost beside the torch operations it stands for: `python -m routing.bench.cpu`.

One layer's router call. `stock` is vLLM's own CPU code, softmax and top-k of bfloat16
logits; ours is the compiled kernel on the same. Alternating short blocks, of which the
fastest of each are given, and ours / stock: the least disturbed ones on a machine with other
work. Spread: the middle half of the ratios of neighboring blocks.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from vllm.model_executor.layers.fused_moe.router.cpu_router import _softmax_topk

from routing.backend import begin_batch
from routing.cpu.backend import CpuBackend
from routing.cpu.route import route
from routing.policy import parse_policy
from routing.policy.compiled import compile_policy
from routing.policy.modes import MODES
from routing.reference.rule import RouterRule
from routing.spec import RouterSpec
from routing.state import RoutedRequest

TOP_K = 8


def _ours(mode: str, logits: torch.Tensor) -> Callable[[], object]:
    num_tokens, num_experts = logits.shape
    spec = RouterSpec((0,), num_experts, TOP_K, TOP_K)
    backend = CpuBackend(spec, [RouterRule()], num_tokens, 1)
    # top_k with 7 experts: 8 would be native and only be copied.
    routing = {"mode": mode, "scope": "all", **({"top_k": 7} if mode == "top_k" else {})}
    request = RoutedRequest(compile_policy(parse_policy(routing, spec), spec), 0)
    begin_batch(backend, [request], np.array([num_tokens]), np.array([0]))
    native_weights, native_ids = _softmax_topk(logits, TOP_K, True)
    weights, ids = torch.empty_like(native_weights), torch.empty_like(native_ids)

    def call() -> None:
        route(
            logits.data_ptr(),
            True,
            native_weights.data_ptr(),
            native_ids.data_ptr(),
            weights.data_ptr(),
            ids.data_ptr(),
            num_tokens,
            TOP_K,
            TOP_K,
            0,
            backend.step_table,
        )

    return call


def _microseconds(call: Callable[[], object], seconds: float) -> float:
    call()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            call()
        calls += 10
    return (time.perf_counter() - started) / calls * 1e6


def main() -> None:
    """Print one Markdown row per shape and mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch; ours has one")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.002, help="per block")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(0)
    print(f"{platform.processor() or platform.machine()}, {args.threads} thread(s), top-{TOP_K}\n")
    print("| mode | experts | tokens | stock µs | ours µs | ratio | middle half |")
    print("|---|---|---|---|---|---|---|")
    for num_experts in (64, 128):
        for num_tokens in (1, 8, 32, 256, 2048):
            logits = torch.randn(num_tokens, num_experts, generator=generator).bfloat16()
            for mode in (mode.name for mode in MODES.values() if not mode.takes_trace):
                ours = _ours(mode, logits)
                pairs = [
                    (
                        _microseconds(partial(_softmax_topk, logits, TOP_K, True), args.seconds),
                        _microseconds(ours, args.seconds),
                    )
                    for _ in range(args.repeats)
                ]
                low, _, high = statistics.quantiles((mine / theirs for theirs, mine in pairs), n=4)
                stock, mine = (min(column) for column in zip(*pairs, strict=True))
                print(
                    f"| {mode} | {num_experts} | {num_tokens} | {stock:.1f} | {mine:.1f} | "
                    f"{mine / stock:.2f} | {low:.2f} to {high:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
