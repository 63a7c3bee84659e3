"""A training run: a step is a function of the seed, its number and the weights.

So a run with the same number of threads gives the same weights bit for bit, whether or not it was
killed and resumed on the way.
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from models.demo.language.data import TASKS
from models.demo.language.scores import held_out
from models.demo.training.batches import IGNORE, Batch, Place
from models.demo.training.evaluate import answers
from models.demo.training.moe import build_config, build_model, export
from models.demo.training.muon import build_optimizers
from models.demo.training.noise import Draw
from models.demo.training.recipe import Recipe
from models.demo.training.router import add_routers
from models.demo.training.tokenizer import wrapped

STATE = "state.pt"


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
        self._set_draw((batch.ids.shape[0], batch.ids.shape[1]))
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

    def _set_draw(self, shape: tuple[int, int]) -> None:
        """Give every router this step's seeds and temperatures, of a batch [B, S]."""
        hottest = self.recipe.temperature(self.progress)
        draw = Draw.of_step(self.recipe.seed, self.step, shape, hottest) if hottest else None
        for router in self.routers:
            router.draw = draw

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
            router.draw = None
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
