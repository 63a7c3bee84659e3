"""Held-out results of a checkpoint: `python -m models.demo.training.evaluate DIR`.

Greedy answers to held-out exchanges through transformers, by task and difficulty.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from models.demo.language.data import TASKS, Example
from models.demo.language.scores import as_json, held_out, table, tally

MAX_NEW_TOKENS = 160
BATCH = 64


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, batch: Sequence[Example]) -> list[str]:
    """Greedy answers to exchanges, in their order; prompts of similar length run together."""
    prompts = [
        tokenizer.apply_chat_template(e.messages(), tokenize=False, add_generation_prompt=True)
        for e in batch
    ]
    by_length = sorted(range(len(batch)), key=lambda i: len(prompts[i]))
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    found = [""] * len(batch)
    for start in range(0, len(batch), BATCH):
        chosen = by_length[start : start + BATCH]
        inputs = tokenizer(
            [prompts[i] for i in chosen], return_tensors="pt", padding=True, padding_side="left"
        )
        output = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            generation_config=greedy,
        )
        new = output[:, inputs.input_ids.shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        for i, text in zip(chosen, texts, strict=True):
            found[i] = str(text).strip()
    return found


def main() -> None:
    """Parse the command line, answer the held-out exchanges, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--per-task", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument("--json", type=Path, help="write the scores here too")
    parser.add_argument("--errors", type=int, default=0, help="wrong answers to print per task")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=args.dtype).eval()
    rows: list[tuple[Example, str]] = []
    todo = held_out(args.split, args.per_task)
    for start in tqdm(range(0, len(todo), 4 * BATCH)):
        batch = todo[start : start + 4 * BATCH]
        rows += zip(batch, answers(model, tokenizer, batch), strict=True)
    scores = tally(rows)
    print(table(scores))
    if args.json:
        args.json.write_text(as_json(scores) + "\n")
    for task in TASKS:
        wrong = [(e, a) for e, a in rows if e.task == task and not e.accepts(a)]
        for example, answer in wrong[: args.errors]:
            print(
                f"{task}\n  {example.user!r}\n  got    {answer!r}\n  wanted {example.assistant!r}"
            )


if __name__ == "__main__":
    main()
