"""Time the experts of a training step: `python -m models.demo.training.bench`.

Forward and backward pass of one layer under bf16 autocast, on one thread: `experts.sorted_experts`
beside transformers' own ways. Processor time, so that other work on the machine counts less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, Final

import torch
from torch import Tensor
from transformers import Qwen3MoeConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from models.arguments import at_least_one
from models.demo import EXPERTS, TOP_K
from models.demo.training.batches import BATCH_TOKENS
from models.demo.training.experts import sorted_experts
from models.demo.training.moe import EXPERT_HIDDEN, HIDDEN

WAYS: Final = ("sorted", "eager", "grouped_mm")


def build_experts(way: str) -> Any:
    """The experts of one of the demo's layers, computed in that way; the same weights each time."""
    ALL_EXPERTS_FUNCTIONS.register("sorted", sorted_experts)
    config = Qwen3MoeConfig(
        hidden_size=HIDDEN,
        moe_intermediate_size=EXPERT_HIDDEN,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
    )
    config._experts_implementation = way
    experts = Qwen3MoeExperts(config)
    torch.manual_seed(0)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.04)
    return experts


def seconds_of(experts: Any, hidden: Tensor, ids: Tensor, weights: Tensor) -> float:
    """Processor time of one forward and backward pass."""
    began = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = experts(hidden, ids, weights)
    output.float().square().mean().backward()
    return time.process_time() - began


def main() -> None:
    """Parse the command line, time every way in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=at_least_one, default=BATCH_TOKENS, help="of a batch")
    parser.add_argument(
        "--rounds", type=at_least_one, default=5, help="after one that warms up (5)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    ways = {way: build_experts(way) for way in WAYS}
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(args.rounds + 1):
        hidden = torch.randn(args.tokens, HIDDEN, requires_grad=True)
        weights, ids = torch.randn(args.tokens, EXPERTS).softmax(dim=-1).topk(TOP_K)
        for way, experts in ways.items():
            seconds = seconds_of(experts, hidden, ids, weights)
            times[way] += [seconds] if number else []
    print(f"{args.tokens} tokens, {EXPERTS} experts, {TOP_K} a token; {args.rounds} rounds\n")
    print("| experts | ms, median | least | most |\n|---|---|---|---|")
    for way, found in times.items():
        ms = [1000 * t for t in (statistics.median(found), min(found), max(found))]
        print(f"| {way} | {' | '.join(f'{value:.0f}' for value in ms)} |")


if __name__ == "__main__":
    main()
