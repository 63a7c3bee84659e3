"""Held-out results of the demo checkpoint: `python -m models.demo.evaluate DIR`.

Greedy answers to held-out exchanges, by task and difficulty. An answer is right when it is the
reference or one of its accepted forms; an essay, which has many right forms, when every sentence is
one the grammar allows. What counts them (`tally`, `table`, `as_json`) takes answers from anywhere.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from models.demo.data import TASKS, TRANSLATIONS, Example, Split, different, examples

MAX_NEW_TOKENS = 160
BATCH = 64
DIFFICULTIES = ("easy", "medium", "hard")
QUESTIONS = ("passage", "arithmetic", "ordering", "calendar")
GROUPS = {"translation": TRANSLATIONS, "questions": QUESTIONS}


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share, 95 % by default; `total` is above 0."""
    share = right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Score:
    """Right answers to `total` exchanges of a task or group, of one difficulty or of all."""

    task: str
    difficulty: str
    right: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval."""
        return wilson(self.right, self.total)


def held_out(split: Split, per_task: int, seed: int = 0) -> list[Example]:
    """`per_task` different exchanges of every task that has held-out content."""
    tasks = [task for task in TASKS if task != "fact"]
    return [e for task in tasks for e in different(examples(split, seed, (task,)), per_task)]


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


def tally(rows: Iterable[tuple[Example, str]]) -> list[Score]:
    """Scores by task and difficulty, then of both groups over what is easy or medium, then all."""
    judged = [(e.task, e.difficulty, e.accepts(answer)) for e, answer in rows]
    wanted: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
    wanted += [(task, (task,), (d,)) for task in TASKS for d in DIFFICULTIES]
    wanted += [(task, (task,), DIFFICULTIES) for task in TASKS]
    wanted += [(group, tasks, DIFFICULTIES[:2]) for group, tasks in GROUPS.items()]
    wanted += [(group, tasks, DIFFICULTIES) for group, tasks in (*GROUPS.items(), ("all", TASKS))]
    scores = []
    for name, tasks, difficulties in wanted:
        right = [ok for task, level, ok in judged if task in tasks and level in difficulties]
        label = {1: difficulties[0], 2: "easy, medium"}.get(len(difficulties), "all")
        if right:
            scores.append(Score(name, label, sum(right), len(right)))
    return scores


def table(scores: Sequence[Score]) -> str:
    """Scores as a Markdown table: a row per task, a column per difficulty, with 95 % intervals."""
    columns = (*DIFFICULTIES, "easy, medium", "all")
    cells = {(s.task, s.difficulty): _cell(s) for s in scores}
    lines = [f"| task | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for task in dict.fromkeys(s.task for s in scores):
        row = [cells.get((task, column), "") for column in columns]
        lines.append(f"| {task} | {' | '.join(row)} |")
    return "\n".join(lines)


def _cell(score: Score) -> str:
    low, high = score.interval
    return f"{score.right / score.total:.1%} ({low:.0%} to {high:.0%}, n={score.total})"


def as_json(scores: Sequence[Score]) -> str:
    """Scores as JSON: a list of objects with share and 95 % interval."""
    rows = [{**asdict(s), "share": s.right / s.total, "interval": s.interval} for s in scores]
    return json.dumps(rows, indent=2)


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
