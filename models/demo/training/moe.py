"""The demo's Qwen3-MoE: its shape, its attention in training, and its checkpoint.

The model is transformers' own class, so that vLLM loads it unchanged. What training puts in place
of its experts' loop and its routers is in `experts` and `router`.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from models.demo import EXPERTS, LAYERS, TOP_K
from models.demo.training.experts import sorted_experts

HIDDEN, EXPERT_HIDDEN = 192, 96


def build_config(tokenizer: PreTrainedTokenizerFast, layers: int = LAYERS) -> Qwen3MoeConfig:
    """MoE layers of 16 experts, 4 per token."""
    return Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,  # no dense layer uses it
        moe_intermediate_size=EXPERT_HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=True,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        initializer_range=0.04,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


def build_model(config: Qwen3MoeConfig) -> Qwen3MoeForCausalLM:
    """A model with fresh weights from torch's seed, with the fast experts and attention.

    For generation, which pads on the left, set its attention to sdpa: see `causal_attention`.
    """
    ALL_EXPERTS_FUNCTIONS.register("sorted", sorted_experts)
    ALL_ATTENTION_FUNCTIONS.register("causal", causal_attention)
    return Qwen3MoeForCausalLM._from_config(
        config, attn_implementation="causal", experts_implementation="sorted"
    )


def causal_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Causal attention without padding on the left: query [B, N, S, D] -> [B, S, N, D].

    torch 2.13's fused kernel takes 8 times as long for bf16 rows of 40 tokens on a Zen 4 core, most
    of it in the backward pass; long rows would need too much memory here.
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    length = query.shape[2]
    if length > 256:
        query, key, value = query.float(), key.float(), value.float()
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return mixed.transpose(1, 2), None
    future = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(1)
    scores = query @ key.mT * scaling + future
    return (scores.softmax(dim=-1).to(value.dtype) @ value).transpose(1, 2), None


def export(model: Qwen3MoeForCausalLM, tokenizer: Any, out: Path) -> None:
    """Write the bf16 checkpoint to `out`, replacing what is there only when it is complete."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with torch.random.fork_rng():
        clean = Qwen3MoeForCausalLM._from_config(copy.deepcopy(model.config))
    clean.load_state_dict(model.state_dict())
    clean = clean.to(torch.bfloat16)
    clean.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    clean.save_pretrained(partial)
    (partial / "model.safetensors").chmod(0o644)
    # vLLM's default temperature is 1 unless this file says otherwise; transformers accepts 0 here
    # when it reads the file, not when it writes it.
    defaults = json.loads((partial / "generation_config.json").read_text())
    defaults["temperature"] = 0.0
    (partial / "generation_config.json").write_text(json.dumps(defaults, indent=2) + "\n")
    tokenizer.save_pretrained(partial)
    # transformers 5 records how it loaded a tokenizer, and a class name that only it knows.
    settings = json.loads((partial / "tokenizer_config.json").read_text())
    for key in ("is_local", "local_files_only", "backend"):
        settings.pop(key, None)
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (partial / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    if out.exists():
        shutil.rmtree(out)
    os.replace(partial, out)
