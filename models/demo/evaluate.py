"""Held-out results of the demo checkpoint: `python -m models.demo.evaluate DIR`.

Greedy answers to held-out exchanges, compared with the reference answer; essays, which have many
right answers, count when every sentence is one the grammar allows for that topic and style.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from models.demo.data import TASKS, Example, Split, examples

MAX_NEW_TOKENS = 160


def held_out(split: Split, per_task: int, seed: int = 0) -> list[Example]:
    """`per_task` different exchanges of every task that has held-out content."""
    found = []
    for task in TASKS:
        if task == "fact":
            continue
        unique: dict[str, Example] = {}
        for example in itertools.islice(examples(split, seed, (task,)), per_task * 20):
            unique.setdefault(example.user, example)
            if len(unique) == per_task:
                break
        found += list(unique.values())
    return found


@torch.inference_mode()
def answers(model: Any, tokenizer: Any, batch: Sequence[Example]) -> list[str]:
    """Greedy answers to a batch of exchanges."""
    prompts = [
        tokenizer.apply_chat_template(e.messages(), tokenize=False, add_generation_prompt=True)
        for e in batch
    ]
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    output = model.generate(
        input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, generation_config=greedy
    )
    decoded = tokenizer.batch_decode(
        output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True
    )
    return [str(text).strip() for text in decoded]


def table(rows: Sequence[tuple[Example, str]]) -> str:
    """Right answers per task as a Markdown table."""
    lines = ["| task | held-out exchanges | right |", "|---|---|---|"]
    for task in TASKS:
        right = [example.accepts(answer) for example, answer in rows if example.task == task]
        if right:
            lines.append(f"| {task} | {len(right)} | {sum(right) / len(right):.1%} |")
    right = [example.accepts(answer) for example, answer in rows]
    lines.append(f"| all | {len(right)} | {sum(right) / len(right):.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, answer the held-out exchanges, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--split", choices=("valid", "test"), default="test")
    parser.add_argument("--per-task", type=int, default=100)
    parser.add_argument("--batch", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="float32")
    parser.add_argument("--errors", type=int, default=0, help="wrong answers to print per task")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=args.dtype).eval()
    rows: list[tuple[Example, str]] = []
    todo = held_out(args.split, args.per_task)
    for start in tqdm(range(0, len(todo), args.batch)):
        batch = todo[start : start + args.batch]
        rows += zip(batch, answers(model, tokenizer, batch), strict=True)
    print(table(rows))
    for task in TASKS:
        wrong = [(e, a) for e, a in rows if e.task == task and not e.accepts(a)]
        for example, answer in wrong[: args.errors]:
            print(
                f"{task}\n  {example.user!r}\n  got    {answer!r}\n  wanted {example.assistant!r}"
            )


if __name__ == "__main__":
    main()
