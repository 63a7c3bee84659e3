"""Train the demo checkpoint from nothing: `galton train --out DIR`.

Stochastic routing: every sequence draws a temperature below an annealed maximum, and its tokens'
experts are drawn by Gumbel-top-k at that temperature (`moe.StochasticRouter`). A step is a function
of the seed, its number and the weights, so that a run with the same number of threads gives the
same weights bit for bit, whether or not it was killed and resumed on the way.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from models.demo.batches import IGNORE, Batch, Place, batches, render
from models.demo.data import TASKS, examples
from models.demo.evaluate import answers, held_out
from models.demo.moe import LAYERS, add_routers, build_config, build_model, export
from models.demo.muon import build_optimizers
from models.demo.tokenizer import train_tokenizer, wrapped

VOCAB_SIZE = 3584
TOKENIZER_EXAMPLES = 30_000
STATE, CURVES, SCORES = "state.pt", "curves.csv", "scores.csv"
WARM_UP_STEPS, FLAT_SHARE = 50, 0.4
SPEED_STEPS = 15
OVERHEAD = 1.08  # of saving and of looking at held-out answers, measured
CURVE_COLUMNS = ("step", "tokens", "seconds", "lr", "temperature", "loss", "aux_loss", "busiest")


class TrainError(Exception):
    """A run that cannot start as it was asked to."""


@dataclass(frozen=True)
class Recipe:
    """What makes the weights what they are; stored with the state, the same on resuming."""

    seed: int
    routing: str  # sample: stochastic; top_k: the control
    threads: int
    lr: float
    aux_coef: float
    start_temperature: float
    end_temperature: float
    layers: int = LAYERS

    def temperature(self, progress: float) -> float:
        """The highest temperature of a sequence: annealed in a straight line; progress is 0..1."""
        if self.routing == "top_k":
            return 0.0
        return self.start_temperature + progress * (self.end_temperature - self.start_temperature)

    def learning_rate(self, progress: float, step: int) -> float:
        """50 steps up, flat until 40 % of the steps, then straight to zero."""
        falling = max(0.0, (1 - progress) / (1 - FLAT_SHARE))
        return self.lr * min(1.0, (step + 1) / WARM_UP_STEPS, falling)


@dataclass
class Curve:
    """Sums since the last row of curves.csv; loss and count by task."""

    loss: Tensor = field(default_factory=lambda: torch.zeros(len(TASKS), dtype=torch.float64))
    count: Tensor = field(default_factory=lambda: torch.zeros(len(TASKS), dtype=torch.float64))
    aux_loss: float = 0.0
    busiest: float = 0.0
    steps: int = 0

    def row(self) -> list[str]:
        """Mean loss, auxiliary loss, load of the busiest expert (1 is even), loss by task."""
        mean = self.loss.sum() / self.count.sum()
        by_task = [f"{x:.4f}" if n else "" for x, n in zip(self.loss / self.count, self.count,
                                                          strict=True)]  # fmt: skip
        both = (self.aux_loss / self.steps, self.busiest / self.steps)
        return [f"{mean:.4f}", *(f"{value:.4f}" for value in both), *by_task]


class Run:
    """A training run: model, optimizers, and how far they are."""

    def __init__(self, recipe: Recipe, steps: int, tokenizer: PreTrainedTokenizerFast) -> None:
        torch.set_num_threads(recipe.threads)
        torch.manual_seed(recipe.seed)
        self.recipe, self.steps, self.tokenizer = recipe, steps, tokenizer
        self.model = build_model(build_config(tokenizer, recipe.layers))
        self.optimizers = build_optimizers(self.model, recipe.lr)
        self.routers = add_routers(self.model)
        self.place = Place()
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.curve = Curve()

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return self.step / self.steps

    def train_step(self, batch: Batch) -> None:
        """One update."""
        began = time.perf_counter()
        rate = self.recipe.learning_rate(self.progress, self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        self._heat(batch.ids.shape)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
            wanted = batch.labels != IGNORE
            logits = self.model.lm_head(hidden[wanted])
        losses = F.cross_entropy(logits.float(), batch.labels[wanted], reduction="none")
        aux = torch.stack([router.aux_loss for router in self.routers]).mean()
        torch.autograd.backward(losses.mean() + self.recipe.aux_coef * aux)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self._count(losses.detach(), batch.tasks[wanted], aux.item())
        self.step, self.tokens = self.step + 1, self.tokens + batch.ids.numel()
        self.seconds += time.perf_counter() - began

    def _heat(self, shape: torch.Size) -> None:
        """Give every router this step's noise: a temperature for each sequence of [B, S]."""
        hottest = self.recipe.temperature(self.progress)
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)
        drawn = torch.rand(shape[0], generator=generator) * hottest
        for router in self.routers:
            router.generator = generator
            router.temperature = drawn.repeat_interleave(shape[1])[:, None] if hottest else None

    def _count(self, losses: Tensor, tasks: Tensor, aux_loss: float) -> None:
        size = len(TASKS)
        self.curve.loss += torch.bincount(tasks, losses.double(), minlength=size)
        self.curve.count += torch.bincount(tasks, minlength=size)
        load = torch.stack([router.load for router in self.routers])
        self.curve.busiest += (load.max(dim=1).values.mean() * load.shape[1]).item()
        self.curve.aux_loss += aux_loss
        self.curve.steps += 1

    def curve_row(self) -> list[str]:
        """A row of curves.csv; begins a new one."""
        last = self.step - 1
        row = [str(self.step), str(self.tokens), f"{self.seconds:.0f}",
               f"{self.recipe.learning_rate(last / self.steps, last):.6f}",
               f"{self.recipe.temperature(last / self.steps):.4f}", *self.curve.row()]  # fmt: skip
        self.curve = Curve()
        return row

    def scores(self, per_task: int) -> dict[str, tuple[int, int]]:
        """task -> right answers and questions: greedy, the clean top k, the validation split."""
        for router in self.routers:
            router.temperature = None
        self.model.set_attn_implementation("sdpa")
        self.model.eval()
        found: dict[str, tuple[int, int]] = {}
        todo = held_out("valid", per_task)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            given = answers(self.model, self.tokenizer, todo)
        for example, answer in zip(todo, given, strict=True):
            right, total = found.get(example.task, (0, 0))
            found[example.task] = (right + example.accepts(answer), total + 1)
        self.model.train()
        self.model.set_attn_implementation("causal")
        return found

    def save(self, out: Path) -> None:
        """Write state and checkpoint to `out`; a kill at any moment leaves a whole state there."""
        state = {
            "recipe": asdict(self.recipe),
            "steps": self.steps,
            "tokenizer": self.tokenizer.backend_tokenizer.to_str(),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "place": asdict(self.place),
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
        }
        partial = out / f"{STATE}.partial"
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, out / STATE)
        export(self.model, self.tokenizer, out / "checkpoint")

    @classmethod
    def load(cls, out: Path) -> Run:
        """The run that `save` wrote to `out`."""
        state = torch.load(out / STATE, weights_only=True)
        tokenizer = wrapped(Tokenizer.from_str(state["tokenizer"]))
        run = cls(Recipe(**state["recipe"]), state["steps"], tokenizer)
        run.model.load_state_dict(state["model"])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        run.place = Place(**state["place"])
        run.step, run.tokens, run.seconds = state["step"], state["tokens"], state["seconds"]
        return run


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


def _kept_rows(path: Path, step: int) -> list[list[str]]:
    """The rows of a CSV up to `step`: what was written after the last state is trained again."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row for row in rows if row and row[0].isdigit() and int(row[0]) <= step]


class Log:
    """A CSV that a resumed run goes on with."""

    def __init__(self, path: Path, columns: tuple[str, ...], step: int) -> None:
        kept = _kept_rows(path, step)
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([columns, *kept])
        os.replace(partial, path)
        self.path = path

    def add(self, *rows: list[str]) -> None:
        """Write `rows` at once."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)


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


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value


def at_least_one(text: str) -> int:
    """An argument's type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `galton train`."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="state, curves and checkpoint; resumed if there")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=at_least_one, help="length of the run")
    length.add_argument(
        "--minutes", type=_positive, default=110, help="as many steps as this machine makes in them"
    )
    add("--routing", choices=("sample", "top_k"), default="sample", help="top_k: the control")
    add("--seed", type=int, default=0)
    add("--threads", type=at_least_one, default=1, help="more help only on an idle machine")
    add("--lr", type=_positive, default=4e-3)
    add("--aux-coef", type=float, default=0.01, help="load-balancing loss")
    add("--start-temperature", type=_positive, default=1.0, help="highest, at the first step")
    add("--end-temperature", type=_positive, default=0.3, help="highest, at the last step")
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
