"""Tiny random checkpoints, one of each router family.

`FAMILIES` run under Galton; what the others lack is said at `REFUSED` and `STOCK_FAILS`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

VOCAB_SIZE: Final = 256

# The CPU engine wants hidden and expert sizes divisible by 32.
_SIZES: Final[dict[str, Any]] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TOP_2_OF_8: Final = {"num_experts": 8, "num_experts_per_tok": 2}
_LOCAL_TOP_2_OF_8: Final = {"num_local_experts": 8, "num_experts_per_tok": 2}
_GROUPS: Final[dict[str, Any]] = {
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 32,
    "n_routed_experts": 16,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
}
# DeepSeek's attention, of the only size that the CPU engine has a kernel for.
_LATENT_ATTENTION: Final[dict[str, Any]] = {
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "head_dim": 64,
}

# What a family's configuration says beyond `_SIZES`, by transformers' model type.
FAMILIES: Final[dict[str, dict[str, Any]]] = {
    # softmax over all experts, not renormalized
    "olmoe": _TOP_2_OF_8,
    "flex_olmo": _TOP_2_OF_8,
    "qwen2_moe": {
        **_TOP_2_OF_8,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    # renormalized
    "mixtral": _LOCAL_TOP_2_OF_8,
    "granitemoe": _LOCAL_TOP_2_OF_8,
    "gpt_oss": _LOCAL_TOP_2_OF_8,
    "qwen3_moe": {
        "moe_intermediate_size": 32,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "norm_topk_prob": True,
    },
    # renormalized; vLLM's CPU router leaves its correction bias out
    "ernie4_5_moe": {
        "num_hidden_layers": 3,
        "moe_intermediate_size": 32,
        "moe_num_experts": 8,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
    },
    # groups of experts: softmax, then sigmoid with a correction bias
    "deepseek_v2": {
        **_LATENT_ATTENTION,
        **_GROUPS,
        "topk_method": "group_limited_greedy",
        "norm_topk_prob": False,
    },
    "deepseek_v3": {
        **_LATENT_ATTENTION,
        **_GROUPS,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
    },
    "glm4_moe": _GROUPS,
    "dots1": _GROUPS,
    # functions of their own: one expert's sigmoid, the sparse mixer
    "llama4_text": {"num_local_experts": 8, "num_experts_per_tok": 1, "intermediate_size_mlp": 64},
    "phimoe": {
        **_LOCAL_TOP_2_OF_8,
        "attention_bias": True,
        "lm_head_bias": True,
        "architectures": ["PhiMoEForCausalLM"],
    },
}

# Galton does not start: vLLM has no model class of its own for it, and Transformers' code
# chooses the experts before vLLM's router is asked.
REFUSED: Final[dict[str, dict[str, Any]]] = {
    "hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2},
}

# Stock vLLM 0.32 does not start on CPU either.
STOCK_FAILS: Final[dict[str, str]] = {
    "minimax_m2": "CPURouter asserts scoring_func == 'softmax' where there are no groups",
}


def build(family: str, path: Path) -> None:
    """Write a checkpoint whose routers have opinions and whose correction biases matter."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {**_SIZES, **{**FAMILIES, **REFUSED}[family]}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "e_score_correction_bias" in name:
            torch.nn.init.uniform_(tensor.data, -0.2, 0.2)
        elif any(part in name for part in ("gate.weight", "router", "experts", ".mlp.")):
            torch.nn.init.normal_(tensor.data, std=0.2)
    model.to(torch.bfloat16).save_pretrained(path)
    if "architectures" in fields:  # transformers writes its own class's name
        config = json.loads((path / "config.json").read_text())
        config["architectures"] = fields["architectures"]
        (path / "config.json").write_text(json.dumps(config))
