"""Tune the demo's presets, each with `galton tune`, and write presets.toml: `make presets`.

Each search keeps its trials in the work folder: the same command goes on from them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests.servers import galton
from models.demo import CHECKPOINT, PRESETS
from models.demo.language.data import TASKS, TRANSLATIONS, Split, as_row, different, examples
from models.demo.language.scores import QUESTIONS
from models.tuning.interval import GAIN, LOSS, NO_GAIN
from routing.policy.presets import Preset, Presets, write_presets

FIRST_LINES: Final = """\
# Presets of the bundled demo model: each is a model of its own, `galton-demo-NAME`.
# Written by `make presets`: see models/demo/README.md, Its presets."""
OWN: Final = {"mode": "top_k"}
# Not searched for. Shares of right answers: `make quality`; speed: loadtests/bench, Shared noise.
SHARED: Final = {
    "description": "Chance that the answers of a minute share, so that a batch reads fewer "
    "experts: 1.15 to 1.36 times as fast as the model's own routing where experts are large. As "
    "many right: 0.951 of 1300 test examples, with noise of their own 0.952",
    "routing": {"mode": "sample", "noise": "request"},
    "seed_window": 60,
}
_BIAS: Final = ("--search=bias", "--metric=perplexity", "--sigma=0.4", "--minibatch=100")
_FEWER: Final = ("--search=top_k", "--metric=exact_match", "--scope=all")
# Answers are short: the prompt's routing decides much of them.
_TEMPERATURE: Final = ("--search=temperature", "--scope=all")
_RIGHT: Final = ("--metric=models.demo.language.judge:any_right", "--samples=4")
_RIGHT_AND_NEW: Final = ("--metric=models.demo.language.judge:right_and_new", "--samples=8")


@dataclass(frozen=True)
class Recipe:
    """How a preset is found. meaning: for people. trials: of the search. examples: to search on,
    and to judge on. worth: verdicts of the test with which it ships; it is the model's own routing
    with others.
    """

    name: str
    meaning: str
    tasks: tuple[str, ...]
    flags: tuple[str, ...]
    trials: int
    examples: tuple[int, int] = (156, 650)
    worth: tuple[str, ...] = (GAIN, NO_GAIN, LOSS)


RECIPES: Final = (
    Recipe("precise", "Right answers, no chance", TASKS, _BIAS, 60, (1300, 1300), (GAIN,)),
    Recipe(
        "balanced",
        "A little chance, for one right answer among four",
        TASKS,
        (*_TEMPERATURE, *_RIGHT, "--max-temperature=2"),
        25,
        (390, 1300),
    ),
    Recipe(
        "diverse",
        "Much chance, for many different right answers",
        TASKS,
        (*_TEMPERATURE, *_RIGHT_AND_NEW, "--max-temperature=3"),
        25,
    ),
    Recipe(
        "fast",
        "Less work: fewer experts, where they matter least",
        TASKS,
        ("--search=top_k", "--metric=perplexity", "--budget=2"),
        60,
    ),
    Recipe(
        "translate",
        "Translation, with no more work than it needs",
        TRANSLATIONS,
        (*_FEWER, "--budget=1.5"),
        40,
        (390, 1300),
        (GAIN, NO_GAIN),
    ),
    Recipe(
        "qa",
        "Questions, with no more work than they need",
        QUESTIONS,
        (*_FEWER, "--budget=2"),
        40,
        (390, 1300),
        (GAIN, NO_GAIN),
    ),
    Recipe(
        "write",
        "Texts in a style, as many different right ones as can be",
        ("essay", "rewrite"),
        (*_TEMPERATURE, *_RIGHT_AND_NEW, "--max-temperature=3"),
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


def tuned(recipe: Recipe, checkpoint: Path, work: Path) -> Preset:
    """The preset that `galton tune` finds; an earlier run's if there is one."""
    out = work / f"{recipe.name}.toml"
    if not out.exists():
        valid, test = (work / f"{recipe.name}-{split}.jsonl" for split in ("valid", "test"))
        write_data(valid, "valid", recipe, recipe.examples[0])
        write_data(test, "test", recipe, recipe.examples[1])
        command = galton(
            *("tune", str(checkpoint), f"--data={valid}", f"--test={test}"),
            *("--enforce-eager", f"--kv-cache-memory-bytes={2**30}"),
            *(f"--name={recipe.name}", f"--out={out}", f"--trials={recipe.trials}"),
            *recipe.flags,
        )
        print(f"{recipe.name}: {' '.join(recipe.flags)}", flush=True)
        subprocess.run(command, check=True)
    return Presets.read(out).named[recipe.name]


def shipped(recipe: Recipe, tuned: Preset) -> dict[str, Any]:
    """The preset with its meaning first; the model's own routing where it is not worth it."""
    if tuned.results["verdict"] not in recipe.worth:
        text = f"{recipe.meaning}: the model's own routing. {tuned.description}"
        return {"description": text, "routing": OWN}
    text = f"{recipe.meaning}. {tuned.description}"
    return {"description": text, "routing": tuned.routing, "results": tuned.results}


def main(argv: Sequence[str] | None = None) -> int:
    """Tune as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.presets", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", type=Path, default=CHECKPOINT, help="default: the demo")
    add("--work", type=Path, default=Path("build/presets"), help="data and trials (build/presets)")
    add("--out", type=Path, default=PRESETS, help="presets file to write; default: the demo's")
    add("--only", nargs="+", choices=[r.name for r in RECIPES], help="tune these; write no file")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    recipes = [r for r in RECIPES if not args.only or r.name in args.only]
    try:
        presets = {r.name: shipped(r, tuned(r, args.checkpoint, args.work)) for r in recipes}
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    except KeyboardInterrupt:
        print("presets: stopped; the same command goes on", file=sys.stderr)
        return 130
    if not args.only:
        write_presets(args.out, FIRST_LINES, presets | {"shared": SHARED})
        print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
