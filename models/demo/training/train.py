"""Train the demo checkpoint from nothing: `galton train --out DIR`.

Stochastic routing: every sequence draws a temperature below an annealed maximum, and its tokens'
experts are drawn by Gumbel-top-k at that temperature (`router.StochasticRouter`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from models.arguments import at_least_one, positive
from models.demo.language.data import TASKS, examples
from models.demo.training.batches import batches, render
from models.demo.training.log import CURVES, SCORES, Log
from models.demo.training.recipe import Recipe
from models.demo.training.run import STATE, Run
from models.demo.training.tokenizer import train_tokenizer

VOCAB_SIZE = 3584
TOKENIZER_EXAMPLES = 30_000
SPEED_STEPS = 15
OVERHEAD = 1.08  # of saving and of looking at held-out answers, measured
CURVE_COLUMNS = ("step", "tokens", "seconds", "lr", "temperature", "loss", "aux_loss", "busiest")


class TrainError(Exception):
    """A run that cannot start as it was asked to."""


def make_tokenizer(seed: int, vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """The tokenizer of a run: the same for the same seed."""
    rng = random.Random(seed)
    texts = itertools.islice(examples("train", seed), TOKENIZER_EXAMPLES)
    return train_tokenizer(("".join(render(e, rng)) for e in texts), vocab_size)


def steps_for(recipe: Recipe, minutes: float, tokenizer: PreTrainedTokenizerFast) -> int:
    """How many steps this machine makes in `minutes`, from a few on a run that is thrown away."""
    trial = Run(recipe, 1000, tokenizer)
    stream = batches(tokenizer, recipe.seed, trial.place)
    trial.train_step(next(stream))  # the first allocates
    trial.seconds = 0.0
    for batch in itertools.islice(stream, SPEED_STEPS):
        trial.train_step(batch)
    speed = SPEED_STEPS / trial.seconds
    steps = max(1, round(minutes * 60 * speed / OVERHEAD))
    print(f"galton train: {steps} steps in {minutes:g} minutes, at {speed:.2f} a second")
    return steps


def start(args: argparse.Namespace) -> Run:
    """The run that `args` ask for: a new one, or the one that lies in `args.out`."""
    recipe = Recipe(
        args.seed, args.routing, args.threads, args.lr, args.aux_coef,
        args.start_temperature, args.end_temperature,
    )  # fmt: skip
    torch.set_num_threads(recipe.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / STATE).exists():
        tokenizer = make_tokenizer(args.seed)
        steps = args.steps or steps_for(recipe, args.minutes, tokenizer)
        run = Run(recipe, steps, tokenizer)
        run.save(args.out)
        return run
    run = Run.load(args.out)
    wanted, found = asdict(recipe), asdict(run.recipe)
    differing = [f"{k} {found[k]} (asked: {wanted[k]})" for k in wanted if wanted[k] != found[k]]
    if args.steps and args.steps != run.steps:
        differing.append(f"steps {run.steps} (asked: {args.steps})")
    if differing:
        raise TrainError(f"{args.out} holds a run with {', '.join(differing)}")
    return run


def train(args: argparse.Namespace) -> None:
    """Run to the last step, from the last state if there is one. Raises TrainError."""
    logging.disable_progress_bar()
    run = start(args)
    curves = Log(args.out / CURVES, (*CURVE_COLUMNS, *TASKS), run.step)
    scores = Log(args.out / SCORES, ("step", "task", "right", "questions"), run.step)
    stream = batches(run.tokenizer, run.recipe.seed, run.place)
    saved = time.monotonic()
    with tqdm(total=run.steps, initial=run.step, unit="step", mininterval=5) as bar:
        while run.step < run.steps:
            run.train_step(next(stream))
            bar.update()
            last = run.step == run.steps
            if run.step % args.log_every == 0 or last:
                row = run.curve_row()
                curves.add(row)
                bar.set_postfix(loss=row[5], tok_s=f"{run.tokens / max(run.seconds, 1e-9):.0f}")
            if args.looks and (run.step % max(1, run.steps // args.looks) == 0 or last):
                found = run.scores(args.per_task)
                scores.add(*([str(run.step), task, str(r), str(n)]
                             for task, (r, n) in found.items()))  # fmt: skip
                right, total = (sum(column) for column in zip(*found.values(), strict=True))
                bar.write(f"step {run.step}: {right} of {total} held-out answers right")
            if last or time.monotonic() - saved > args.save_minutes * 60:
                run.save(args.out)
                saved = time.monotonic()
    card = {**asdict(run.recipe), "steps": run.steps, "tokens": run.tokens,
            "seconds": round(run.seconds)}  # fmt: skip
    (args.out / "run.json").write_text(json.dumps(card, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `galton train`."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="state, curves and checkpoint; resumed if there")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=at_least_one, help="length of the run")
    length.add_argument(
        "--minutes", type=positive, default=110, help="as many steps as this machine makes in them"
    )
    add("--routing", choices=("sample", "top_k"), default="sample", help="top_k: the control")
    add("--seed", type=int, default=0)
    add("--threads", type=at_least_one, default=1, help="more help only on an idle machine")
    add("--lr", type=positive, default=4e-3)
    add("--aux-coef", type=float, default=0.01, help="load-balancing loss")
    add("--start-temperature", type=positive, default=1.0, help="highest, at the first step")
    add("--end-temperature", type=positive, default=0.3, help="highest, at the last step")
    add("--save-minutes", type=float, default=4)
    add("--log-every", type=at_least_one, default=20, help="steps to a row of curves.csv")
    add("--looks", type=int, default=10, help="times to try held-out exchanges, 0: never")
    add(
        "--per-task",
        type=at_least_one,
        default=10,
        help="held-out exchanges of each task at a look",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="galton train",
        description="Train the demo model from nothing, with stochastic routing; the same command "
        "again goes on from the last state.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    try:
        train(parser.parse_args(argv))
    except TrainError as error:
        print(f"galton train: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
