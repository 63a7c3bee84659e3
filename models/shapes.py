"""Random models of real families' shapes, for measuring speed: `python -m models.shapes olmoe DIR`.

What they say means nothing. Their routers are as decided as asked: a token's logits have the given
standard deviation over the experts. The tokenizer is the demo's.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models.arguments import positive
from models.demo import CHECKPOINT

_SIZES: Final = {
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 3584,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "num_experts_per_tok": 8,
    "tie_word_embeddings": True,
}
# By name: transformers' model type, and what its configuration says beyond `_SIZES`.
SHAPES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    # OLMoE-1B-7B: half as wide, 8 of 16 layers; 0.83 billion parameters
    "olmoe": ("olmoe", {"num_experts": 64, "intermediate_size": 512}),
    # Qwen3-30B-A3B: half as wide, 8 of 48 layers; 1.2 billion parameters
    "qwen3-moe": (
        "qwen3_moe",
        {
            "num_experts": 128,
            "moe_intermediate_size": 384,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "norm_topk_prob": True,
        },
    ),
}
_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def configuration(shape: str) -> Any:
    """What transformers builds the model from."""
    family, more = SHAPES[shape]
    return AutoConfig.for_model(family, **(_SIZES | more))


def build(shape: str, path: Path, spread: float) -> int:
    """Write a checkpoint in bfloat16; the number of its parameters.

    spread: standard deviation of a token's router logits. Hidden states come to the router with
    unit variance, so its weights have spread / sqrt(hidden size).
    """
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = AutoModelForCausalLM.from_config(configuration(shape))
    for name, weights in model.named_parameters():
        if name.endswith("mlp.gate.weight"):
            torch.nn.init.normal_(weights.data, std=spread / math.sqrt(model.config.hidden_size))
    model.save_pretrained(path)
    for file in _FILES:
        shutil.copy(CHECKPOINT / file, path / file)
    return sum(weights.numel() for weights in model.parameters())


def main(argv: Sequence[str] | None = None) -> int:
    """Write one as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.shapes", description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path, help="folder")
    parser.add_argument(
        "--spread", type=positive, default=1.0, help="of a token's router logits (1.0)"
    )
    args = parser.parse_args(argv)
    parameters = build(args.shape, args.out, args.spread)
    print(f"{args.out}: {parameters / 1e9:.2f} billion parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
