"""Train the demo checkpoint from scratch on CPU: `python -m models.demo.train --out DIR`.

The model is transformers' own Qwen3MoE; only the experts' loop (tokens sorted by expert) and the
router (Gumbel noise on the selection, never on the weights) are replaced, during training only.
The schedule follows wall time, so a run ends when it was told to; `--resume` continues one.
"""

from __future__ import annotations

import argparse
import copy
import csv
import itertools
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from models.demo.data import Example, examples
from models.demo.tokenizer import ASSISTANT, END, SYSTEM, USER, train_tokenizer

VOCAB_SIZE = 2560
BATCH_TOKENS = 3072
LENGTHS, LENGTH_WEIGHTS = (0, 128, 256, 1024), (85, 9, 5, 1)  # 0: one exchange per row
IGNORE = -100
STATE = "state.pt"


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3MoeConfig:
    """Eight MoE layers of 16 experts, 4 per token: 8.2 M parameters."""
    return Qwen3MoeConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=384,  # no dense layer uses it
        moe_intermediate_size=96,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=16,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        initializer_range=0.04,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )


# Model: faster experts, noisy router


def sorted_experts(self: Any, hidden: Tensor, topk_ids: Tensor, topk_weights: Tensor) -> Tensor:
    """transformers' experts, tokens sorted by expert: hidden [T, H], topk_* [T, K] -> [T, H]."""
    flat = topk_ids.reshape(-1)
    order = flat.argsort(stable=True)
    tokens = order // topk_ids.shape[1]
    counts = torch.bincount(flat, minlength=self.num_experts).tolist()
    outputs = []
    weights = zip(self.gate_up_proj.unbind(0), self.down_proj.unbind(0), strict=True)
    inputs = torch.split(hidden.index_select(0, tokens), counts)
    for rows, (gate_up_proj, down_proj) in zip(inputs, weights, strict=True):
        gate, up = F.linear(rows, gate_up_proj).chunk(2, dim=-1)
        outputs.append(F.linear(F.silu(gate) * up, down_proj))
    scaled = torch.cat(outputs) * topk_weights.reshape(-1, 1).index_select(0, order)
    return torch.zeros_like(hidden).index_add_(0, tokens, scaled)


class NoisyRouter:
    """Replaces a router's forward: Gumbel noise of a drawn temperature on the choice of experts.

    Weights come from the clean logits. `aux_loss` is the load-balancing loss of the last call,
    E * sum over experts of (share of assignments * mean probability), 1 when balanced.
    """

    def __init__(self, router: Any) -> None:
        self.router = router
        self.temperature: Tensor | None = None  # [T, 1]
        self.aux_loss = torch.zeros(())

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(hidden.reshape(-1, hidden.shape[-1]), self.router.weight)
        noisy = logits.detach()
        if self.temperature is not None:
            noise = -torch.log(-torch.log(torch.rand_like(noisy).clamp(1e-9, 1 - 1e-7)))
            noisy = noisy + self.temperature * noise
        ids = noisy.topk(self.router.top_k, dim=-1).indices
        probs = logits.softmax(dim=-1)
        chosen = probs.gather(1, ids)
        share = torch.bincount(ids.reshape(-1), minlength=logits.shape[-1]) / ids.numel()
        self.aux_loss = logits.shape[-1] * (share * probs.mean(dim=0)).sum()
        return logits, chosen / chosen.sum(dim=-1, keepdim=True), ids


def add_noise(model: Qwen3MoeForCausalLM) -> list[NoisyRouter]:
    """Put a `NoisyRouter` in every layer; returns them."""
    routers = [NoisyRouter(layer.mlp.gate) for layer in model.model.layers]
    for layer, noisy in zip(model.model.layers, routers, strict=True):
        layer.mlp.gate.forward = noisy
    return routers


# Optimizer: Muon for matrices, AdamW for the rest


def orthogonalize(matrix: Tensor, steps: int = 4) -> Tensor:
    """Newton-Schulz iteration towards the nearest (semi-)orthogonal matrix; [..., R, C]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.mT if matrix.shape[-2] > matrix.shape[-1] else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrix.shape[-2] > matrix.shape[-1] else x


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) for matrices and stacks of them, step sizes scaled to AdamW's.

    torch.optim.Muon takes 2-D parameters only; experts are [E, R, C], and gate_up_proj holds two.
    Source of the 0.2 * sqrt(max(R, C)) scale: Moonlight, arXiv 2502.16982.
    """

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                buffer = state.setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(buffer, group["momentum"])
                shape = update.shape
                if group.get("halves"):
                    update = update.view(shape[0] * 2, shape[1] // 2, shape[2])
                scale = 0.2 * max(update.shape[-2:]) ** 0.5
                update = orthogonalize(update).reshape(shape)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale)


def build_optimizers(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for attention and experts, AdamW for embeddings, norms and routers."""
    fused, matrices, rest = [], [], []
    for name, p in model.named_parameters():
        if "gate_up_proj" in name:
            fused.append(p)
        elif p.ndim >= 2 and "embed" not in name and "mlp.gate." not in name:
            matrices.append(p)
        else:
            rest.append(p)
    muon = Muon(
        [{"params": fused, "halves": True}, {"params": matrices}],
        lr=lr,
        momentum=0.95,
        weight_decay=0.05,
    )
    adam = torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.97), weight_decay=0.0, fused=True)
    return [muon, adam]


def schedule(progress: float, step: int) -> float:
    """Learning rate factor: 50 steps up, flat until 40 % of the time, then straight to zero."""
    return min(1.0, (step + 1) / 50, max(0.0, (1 - progress) / 0.6))


# Data


def render(example: Example, rng: random.Random) -> tuple[str, str]:
    """Prompt and answer as text; now and then without the chat markers, for plain completion."""
    if not example.system and rng.random() < 0.06:
        if example.task.startswith("translate"):
            language = "French" if example.task.endswith("fr") else "German"
            return f"English: {' '.join(example.keys)}\n{language}:", f" {example.assistant}{END}"
        return f"Question: {example.user}\nAnswer:", f" {example.assistant}{END}"
    system = f"{SYSTEM}{example.system}{END}" if example.system else ""
    return f"{system}{USER}{example.user}{END}{ASSISTANT}", f"{example.assistant}{END}"


class Document(NamedTuple):
    """A tokenized exchange; its answer begins at `start`."""

    ids: list[int]
    start: int


def documents(tokenizer: Any, seed: int) -> Iterator[Document]:
    """Endless training exchanges."""
    rng = random.Random(seed)
    stream = examples("train", seed)
    while True:
        pairs = [render(example, rng) for example in itertools.islice(stream, 256)]
        prompts = tokenizer([p for p, _ in pairs]).input_ids
        answers = tokenizer([a for _, a in pairs]).input_ids
        for prompt, answer in zip(prompts, answers, strict=True):
            yield Document(prompt + answer, len(prompt))


def pack(stream: Iterator[Document], waiting: list[Document], length: int) -> list[Document]:
    """One row of whole exchanges, at most `length` + 1 tokens, taken from `waiting`."""
    row: list[Document] = []
    room = length + 1
    while True:
        fit = next((i for i, doc in enumerate(waiting) if len(doc.ids) <= room), None)
        if fit is None:
            return row
        row.append(waiting.pop(fit))
        waiting.append(next(stream))
        room -= len(row[-1].ids)


def batches(tokenizer: Any, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (input ids, labels), both [B, S], B * S about BATCH_TOKENS.

    Most batches hold one exchange per row, of similar lengths: copying from the prompt is learnt
    much sooner without other exchanges in view. The rest are packed, for longer contexts.
    labels[b, s] is the token after position s where it belongs to an answer, else IGNORE.
    """
    rng = random.Random(seed)
    stream = documents(tokenizer, seed)
    waiting = list(itertools.islice(stream, 600))
    while True:
        length = rng.choices(LENGTHS, LENGTH_WEIGHTS)[0]
        if length:
            rows = [pack(stream, waiting, length) for _ in range(BATCH_TOKENS // length)]
        else:
            middle = len(rng.choice(waiting).ids)
            waiting.sort(key=lambda doc: abs(len(doc.ids) - middle))
            size = BATCH_TOKENS // (middle + 2)
            rows = [[doc] for doc in waiting[:size]]
            waiting = waiting[size:] + list(itertools.islice(stream, size))
            rng.shuffle(waiting)
            length = max(len(row[0].ids) for row in rows) - 1
        ids = torch.full((len(rows), length + 1), tokenizer.pad_token_id)
        labels = torch.full((len(rows), length + 1), IGNORE)
        for i, row in enumerate(rows):
            joined = [token for doc in row for token in doc.ids]
            wanted = [t for d in row for t in [IGNORE] * d.start + d.ids[d.start :]]
            ids[i, : len(joined)] = torch.tensor(joined)
            labels[i, : len(wanted)] = torch.tensor(wanted)
        yield ids[:, :-1], labels[:, 1:]


# Training


def answer_loss(model: Qwen3MoeForCausalLM, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the answer tokens; only their logits are computed."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    wanted = labels != IGNORE
    return F.cross_entropy(model.lm_head(hidden[wanted]), labels[wanted])


def export(model: Qwen3MoeForCausalLM, tokenizer: Any, out: Path) -> None:
    """Write the bf16 checkpoint to `out`, replacing what is there only when it is complete."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
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


def train(args: argparse.Namespace) -> None:
    """Run until `args.minutes` of training have been spent, counting earlier runs."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    saved = None
    if args.resume and (args.out / STATE).exists():
        saved = torch.load(args.out / STATE, weights_only=True)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.out / "checkpoint")
    else:
        rng = random.Random(args.seed)
        texts = itertools.islice(examples("train", args.seed), 40_000)
        tokenizer = train_tokenizer(("".join(render(e, rng)) for e in texts), VOCAB_SIZE)
    ALL_EXPERTS_FUNCTIONS.register("sorted", sorted_experts)
    model = Qwen3MoeForCausalLM._from_config(
        build_config(tokenizer), attn_implementation="sdpa", experts_implementation="sorted"
    )
    optimizers = build_optimizers(model, args.lr)
    step, tokens, elapsed = 0, 0, 0.0
    if saved:
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, tokens, elapsed = saved["step"], saved["tokens"], saved["elapsed"]
    routers = add_noise(model)
    limit = args.minutes * 60

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "step": step,
            "tokens": tokens,
            "elapsed": elapsed,
        }
        torch.save(state, args.out / "state.partial")
        os.replace(args.out / "state.partial", args.out / STATE)
        export(model, tokenizer, args.out / "checkpoint")

    last_save = elapsed
    log = (args.out / "loss.csv").open("a" if saved else "w", newline="")
    writer = csv.writer(log)
    if not saved:
        writer.writerow(["step", "tokens", "seconds", "lr", "loss", "aux_loss"])
        export(model, tokenizer, args.out / "checkpoint")
    bar = tqdm(total=round(limit), initial=round(elapsed), unit="s", mininterval=10)
    for ids, labels in batches(tokenizer, args.seed + step):
        if elapsed >= limit:
            break
        started = time.perf_counter()
        factor = schedule(elapsed / limit, step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * factor
        # Half of the sequences are routed cleanly, the others at a temperature up to the maximum.
        hottest = args.router_temperature * min(1.0, 2 * elapsed / limit)
        drawn = (2 * torch.rand(ids.shape[0]) - 1).clamp(min=0) * hottest
        for router in routers:
            router.temperature = drawn.repeat_interleave(ids.shape[1])[:, None]
        loss = answer_loss(model, ids, labels)
        aux = torch.stack([router.aux_loss for router in routers]).mean()
        (loss + args.aux_coef * aux).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step, tokens = step + 1, tokens + ids.numel()
        spent = time.perf_counter() - started
        elapsed += spent
        bar.update(round(elapsed) - bar.n)
        if step % 10 == 0:
            writer.writerow(
                [step, tokens, f"{elapsed:.0f}", f"{args.lr * factor:.6f}",
                 f"{loss.item():.4f}", f"{aux.item():.4f}"]
            )  # fmt: skip
            log.flush()
            bar.set_postfix(loss=f"{loss.item():.3f}", tok_s=f"{ids.numel() / spent:.0f}")
        if elapsed - last_save > args.save_minutes * 60:
            last_save = elapsed
            save()
    save()
    log.close()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="directory for state and checkpoint"
    )
    parser.add_argument("--minutes", type=float, default=75, help="training time, resumes included")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--aux-coef", type=float, default=0.01, help="load-balancing loss")
    parser.add_argument(
        "--router-temperature", type=float, default=0.3, help="maximum, see NoisyRouter"
    )
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--resume", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
