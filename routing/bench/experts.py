"""What fewer experts save in a layer: `python -m routing.bench.experts`.

vLLM's own operation for the experts of an MoE layer on a CPU, bfloat16, on random weights, for
tokens whose router logits are random. A layer's ideal is time in proportion to the experts per
token; the share of its saving that is reached tells how near it comes. Eight layers take turns, as
in a model, so that no cache holds their weights. Medians of rounds, in which every k has its turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from vllm._custom_ops import cpu_fused_moe, cpu_prepack_moe_weight

NUM_LAYERS: Final = 8


class Shape(NamedTuple):
    """A layer's, as of `models.shapes` and the demo."""

    num_experts: int
    top_k: int
    hidden_size: int
    intermediate_size: int


SHAPES: Final = {
    "demo": Shape(16, 4, 192, 96),
    "olmoe": Shape(64, 8, 1024, 512),
    "qwen3-moe": Shape(128, 8, 1024, 384),
}


class Layers:
    """The experts of `NUM_LAYERS` layers."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.isa = "amx" if torch.cpu._is_amx_tile_supported() else "vec"
        if self.isa == "amx":
            torch.cpu._init_amx()
        experts, _, hidden, intermediate = shape
        w13 = torch.randn(experts, 2 * intermediate, hidden).bfloat16() * 0.02
        w2 = torch.randn(experts, hidden, intermediate).bfloat16() * 0.02
        self.weights = [
            (cpu_prepack_moe_weight(w13, self.isa), cpu_prepack_moe_weight(w2, self.isa))
            for _ in range(NUM_LAYERS)
        ]

    def seconds(self, inputs: torch.Tensor, weights: torch.Tensor, ids: torch.Tensor) -> float:
        """Of one layer, on average. inputs: [T, hidden_size]; weights, ids: [T, k]."""
        outputs = torch.empty_like(inputs)
        started = time.perf_counter()
        for w13, w2 in self.weights:
            cpu_fused_moe(outputs, inputs, w13, w2, None, None, weights, ids, "silu", self.isa)
        return (time.perf_counter() - started) / NUM_LAYERS


def measure(layers: Layers, num_tokens: int, rounds: int) -> list[tuple[int, float, float]]:
    """(k, different experts that a layer reads, seconds a layer), from all k down to one."""
    shape = layers.shape
    ks = [k for k in range(shape.top_k, 0, -1) if k in (1, 2) or k % 2 == 0]
    seconds: dict[int, list[float]] = {k: [] for k in ks}
    experts: dict[int, list[int]] = {k: [] for k in ks}
    for _ in tqdm(range(rounds), desc=f"{num_tokens} tokens", leave=False):
        inputs = torch.randn(num_tokens, shape.hidden_size).bfloat16()
        logits = torch.randn(num_tokens, shape.num_experts)
        for k in ks:
            weights, ids = logits.softmax(-1).topk(k)
            experts[k].append(len({*ids.flatten().tolist()}))
            seconds[k].append(layers.seconds(inputs, weights, ids.int()))
    return [(k, sum(experts[k]) / rounds, median(seconds[k])) for k in ks]


def main(argv: Sequence[str] | None = None) -> None:
    """Print one Markdown row for each shape, number of tokens and k."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="vLLM takes one on two cores")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print("| shape | tokens | k | experts read | µs a layer | of all | share of the ideal saving |")
    print("|---|---|---|---|---|---|---|")
    for name, shape in SHAPES.items():
        layers = Layers(shape)
        for num_tokens in (1, 8, 32):
            found = measure(layers, num_tokens, args.rounds)
            whole = found[0][2]
            for k, read, seconds in found:
                share = ""
                if k < shape.top_k:
                    share = f"{(1 - seconds / whole) / (1 - k / shape.top_k):.0%}"
                print(
                    f"| {name} | {num_tokens} | {k} of {shape.top_k} | {read:.1f} | "
                    f"{seconds * 1e6:.0f} | {seconds / whole:.2f} | {share} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
