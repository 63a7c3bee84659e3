"""Tune the demo's presets, each with `galton tune`, and write presets.toml: `make presets`.

Each search keeps its trials in the work folder: the same command goes on from them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.demo import CHECKPOINT, PRESETS
from models.demo.data import TASKS, TRANSLATIONS, Split, as_row, different, examples
from models.demo.evaluate import QUESTIONS
from models.tuning.report import write_tables

FIRST_LINES: Final = """\
# Presets of the bundled demo model: each is a model of its own, `galton-demo-NAME`.
# Written by `make presets`: see models/README.md, The demo's presets."""
OWN: Final = {"mode": "top_k"}
_BIAS: Final = ("--search=bias", "--metric=perplexity", "--population=16", "--minibatch=24")
_RIGHT_AND_NEW: Final = ("--metric=models.demo.judge:right_and_new", "--samples=8")


@dataclass(frozen=True)
class Recipe:
    """How a preset is found. meaning: for people. must_gain: whether it is the model's own
    routing unless the test data show a gain. trials: of the search.
    """

    name: str
    meaning: str
    tasks: tuple[str, ...]
    flags: tuple[str, ...]
    trials: int
    must_gain: bool = False


RECIPES: Final = (
    Recipe("precise", "Right answers, no chance", TASKS, _BIAS, 120, must_gain=True),
    Recipe(
        "balanced",
        "A little chance, for one right answer among four",
        TASKS,
        ("--search=temperature", "--metric=pass_at_n", "--samples=4"),
        25,
    ),
    Recipe(
        "diverse",
        "Much chance, for many different right answers",
        TASKS,
        ("--search=temperature", *_RIGHT_AND_NEW, "--max-temperature=3"),
        25,
    ),
    Recipe(
        "fast",
        "Less work: fewer experts, where they matter least",
        TASKS,
        ("--search=top_k", "--metric=perplexity", "--budget=2"),
        60,
    ),
    Recipe("translate", "Translation, no chance", TRANSLATIONS, _BIAS, 120, must_gain=True),
    Recipe("qa", "Questions, no chance", QUESTIONS, _BIAS, 120, must_gain=True),
    Recipe(
        "write",
        "Texts in a style, as many different right ones as can be",
        ("essay", "rewrite"),
        ("--search=temperature", *_RIGHT_AND_NEW, "--max-temperature=3"),
        25,
    ),
)


def write_data(path: Path, split: Split, recipe: Recipe, count: int) -> None:
    """Held-out exchanges of the recipe's tasks, as many of each."""
    tasks = [task for task in recipe.tasks if task != "fact"]
    each = -(-count // len(tasks))
    drawn = [different(examples(split, 2, (task,)), each) for task in tasks]
    rows = [json.dumps(as_row(e), ensure_ascii=False) for e in itertools.chain(*drawn)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def tuned(recipe: Recipe, checkpoint: Path, work: Path, sizes: tuple[int, int]) -> dict[str, Any]:
    """The preset that `galton tune` finds, as a table; an earlier run's if there is one."""
    out = work / f"{recipe.name}.toml"
    if not out.exists():
        write_data(work / f"{recipe.name}-valid.jsonl", "valid", recipe, sizes[0])
        write_data(work / f"{recipe.name}-test.jsonl", "test", recipe, sizes[1])
        command = [
            *(str(Path(sys.executable).with_name("galton")), "tune", str(checkpoint)),
            f"--data={work / f'{recipe.name}-valid.jsonl'}",
            f"--test={work / f'{recipe.name}-test.jsonl'}",
            *("--enforce-eager", f"--kv-cache-memory-bytes={2**30}"),
            *(f"--name={recipe.name}", f"--out={out}", f"--trials={recipe.trials}"),
            *recipe.flags,
        ]
        print(f"{recipe.name}: {' '.join(recipe.flags)}", flush=True)
        subprocess.run(command, check=True)
    return dict(tomllib.loads(out.read_text(encoding="utf-8"))["presets"][recipe.name])


def shipped(recipe: Recipe, found: Mapping[str, Any]) -> dict[str, Any]:
    """The preset with its meaning first; the model's own routing where a gain was not shown."""
    text, verdict = found["description"], found["results"]["verdict"]
    if recipe.must_gain and verdict != "gain":
        return {
            "description": f"{recipe.meaning}: the model's own routing. {text}",
            "routing": OWN,
        }
    return {
        "description": f"{recipe.meaning}. {text}",
        "routing": found["routing"],
        "results": found["results"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Tune as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m models.demo.tune_presets", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=CHECKPOINT, help="default: the demo")
    add("--work", type=Path, default=Path("build/presets"), help="data and trials (build/presets)")
    add("--out", type=Path, default=PRESETS, help="presets file to write; default: the demo's")
    add("--only", nargs="+", choices=[r.name for r in RECIPES], help="tune these; write no file")
    add("--validation", type=int, default=156, help="examples to search on (156)")
    add("--test", type=int, default=650, help="examples to judge on (650)")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    recipes = [r for r in RECIPES if not args.only or r.name in args.only]
    sizes = (args.validation, args.test)
    try:
        found = {r.name: tuned(r, args.checkpoint, args.work, sizes) for r in recipes}
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    except KeyboardInterrupt:
        print("presets: stopped; the same command goes on", file=sys.stderr)
        return 130
    if not args.only:
        presets = {recipe.name: shipped(recipe, found[recipe.name]) for recipe in recipes}
        write_tables(args.out, FIRST_LINES, presets)
        print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
