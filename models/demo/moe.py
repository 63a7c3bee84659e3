"""The demo's Qwen3-MoE, and what training puts in place of its experts' loop and its routers.

The model is transformers' own class, so that vLLM loads it unchanged. During training only, the
experts take their tokens sorted, in bf16, and the routers choose by Gumbel-top-k.
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

HIDDEN, EXPERT_HIDDEN, LAYERS, EXPERTS, TOP_K = 192, 96, 8, 16, 4
ROWS = 64


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


def _with_zero_row(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])])


class _Dispatch(torch.autograd.Function):
    """hidden [T, H] -> the rows of each expert one after the other [P, H]; see `_slots`.

    The backward pass gathers and sums K rows, where autograd's own would scatter them.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, filled: Tensor, slots: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.top_k = top_k
        return _with_zero_row(hidden).index_select(0, filled // top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slots,) = ctx.saved_tensors
        rows = grads[0].index_select(0, slots)
        return rows.view(-1, ctx.top_k, rows.shape[-1]).sum(dim=1), None, None, None


class _Collect(torch.autograd.Function):
    """The experts' rows back in the order of assignments: [P, H] -> [T * K, H]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, filled: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(filled)
        return rows.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (filled,) = ctx.saved_tensors
        return _with_zero_row(grads[0]).index_select(0, filled), None, None


def _slots(topk_ids: Tensor, num_experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Where each assignment goes when every expert has a multiple of ROWS rows; topk_ids [T, K].

    Returns filled [P], the assignment in each row, T * K where there is none; slots [T * K], the
    row of each assignment; and the number of rows of each expert. Multiples, because oneDNN
    compiles a kernel for every number of rows it has not seen: 0.7 ms, more than the product takes.
    """
    flat = topk_ids.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=num_experts)
    padded = (counts + ROWS - 1) // ROWS * ROWS
    shift = (padded.cumsum(0) - padded) - (counts.cumsum(0) - counts)
    slots = torch.empty_like(flat)
    slots[order] = torch.arange(flat.shape[0]) + shift[flat[order]]
    filled = torch.full((int(padded.sum()),), flat.shape[0])
    filled[slots] = torch.arange(flat.shape[0])
    return filled, slots, padded.tolist()


def sorted_experts(self: Any, hidden: Tensor, topk_ids: Tensor, topk_weights: Tensor) -> Tensor:
    """transformers' experts, tokens sorted by expert: hidden [T, H], topk_* [T, K] -> [T, H]."""
    top_k = topk_ids.shape[1]
    filled, slots, counts = _slots(topk_ids, self.num_experts)
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else hidden.dtype
    rows = _Dispatch.apply(hidden.to(dtype), filled, slots, top_k)  # type: ignore[no-untyped-call]
    outputs = []
    weights = zip(
        self.gate_up_proj.to(dtype).unbind(0), self.down_proj.to(dtype).unbind(0), strict=True
    )
    for part, (gate_up_proj, down_proj) in zip(rows.split(counts), weights, strict=True):
        gate, up = F.linear(part, gate_up_proj).chunk(2, dim=-1)
        outputs.append(F.linear(F.silu(gate) * up, down_proj))
    collected = _Collect.apply(torch.cat(outputs), filled, slots)  # type: ignore[no-untyped-call]
    weighted = collected.view(-1, top_k, hidden.shape[-1]) * topk_weights.to(dtype).unsqueeze(-1)
    return weighted.sum(dim=1).to(hidden.dtype)


class StochasticRouter:
    """Replaces a router's forward: Gumbel-top-k, the `sample` mode of serving, in training.

    With a temperature t per token the experts are the top k of logits + t * Gumbel noise; without
    one they are the top k of the logits. Weights come from the clean logits of the chosen experts,
    so the gradient flows through these experts and their weights, never through the choice.

    aux_loss: the load-balancing loss of the last call, E * sum over experts of (share of
    assignments * mean probability), 1 when balanced; Switch Transformers, arXiv 2101.03961. A loss
    and not a selection bias: Qwen3-MoE has no place for a bias, so the exported model would route
    differently from the trained one.
    load: [E], each expert's share of assignments in the last call.
    """

    def __init__(self, router: Any) -> None:
        self.router = router
        self.temperature: Tensor | None = None  # [T, 1]
        self.generator = torch.Generator()
        self.aux_loss = torch.zeros(())
        self.load = torch.zeros(router.weight.shape[0])

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logits [T, E], weights [T, K], ids [T, K]), as transformers' router returns them."""
        with torch.autocast("cpu", enabled=False):
            flat = hidden.reshape(-1, hidden.shape[-1]).float()
            logits = F.linear(flat, self.router.weight.float())
        ids = self._choose(logits.detach())
        probs = logits.softmax(dim=-1)
        chosen = probs.gather(1, ids)
        self.load = torch.bincount(ids.reshape(-1), minlength=logits.shape[-1]) / ids.numel()
        self.aux_loss = logits.shape[-1] * (self.load * probs.mean(dim=0)).sum()
        return logits, chosen / chosen.sum(dim=-1, keepdim=True), ids

    def _choose(self, logits: Tensor) -> Tensor:
        if self.temperature is not None:
            uniform = torch.rand(logits.shape, generator=self.generator)
            logits = logits - self.temperature * torch.log(
                -torch.log(uniform.clamp(1e-9, 1 - 1e-7))
            )
        return logits.topk(self.router.top_k, dim=-1).indices


def add_routers(model: Qwen3MoeForCausalLM) -> list[StochasticRouter]:
    """Put a `StochasticRouter` in every layer; returns them."""
    routers = [StochasticRouter(layer.mlp.gate) for layer in model.model.layers]
    for layer, router in zip(model.model.layers, routers, strict=True):
        layer.mlp.gate.forward = router
    return routers


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
