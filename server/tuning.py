"""`galton tune`: its flags, its progress on the terminal, its errors in one line."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from server.preflight import CannotStartError
from server.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from models.tuning.search import Budget
    from models.tuning.spaces import Space
    from models.tuning.tune import Searches
    from routing.engine.offline import OfflineEngine
    from routing.spec import RouterSpec

SEARCHES = ("temperature", "top_k", "bias")
EPILOG = """\
Every other flag is vLLM's and goes to its engine unchanged: --dtype, --max-model-len, ...

DATA is JSON Lines: {"prompt": "..."} or {"messages": [...]}, with "reference": "..." or
"references": ["...", ...].

examples:
  galton tune --data valid.jsonl --test test.jsonl --metric chrf --out tuned.toml
  galton tune MODEL --data valid.jsonl --test test.jsonl --search top_k --budget 3
  galton serve MODEL --presets tuned.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag of the command but vLLM's."""
    add = parser.add_argument
    add("model", nargs="?", metavar="MODEL", help="a directory or a Hugging Face name")
    add("--data", type=Path, required=True, metavar="FILE", help="validation examples")
    add(
        "--test",
        type=Path,
        metavar="FILE",
        help="test examples, untouched by the search: without them no gain is claimed",
    )
    add(
        "--metric",
        default="exact_match",
        metavar="NAME",
        help="exact_match, chrf, perplexity (of the reference), pass_at_n, diversity, or "
        "module:function, called with the answers to an example and its references, higher is "
        "better (default: exact_match)",
    )
    add(
        "--out",
        type=Path,
        default=Path("tuned.toml"),
        metavar="FILE",
        help="presets file to write (default: tuned.toml)",
    )
    add(
        "--name",
        type=_preset_name,
        default="tuned",
        help="of the preset; of several, NAME-SEARCH (default: tuned)",
    )
    add(
        "--study",
        type=Path,
        metavar="FILE",
        help="SQLite file of the trials; the same command goes on from it (default: OUT with .db)",
    )
    _add_search(parser.add_argument_group("search"))
    _add_asking(parser.add_argument_group("answers"))


def _add_search(group: Any) -> None:
    add = group.add_argument
    add(
        "--search",
        choices=(*SEARCHES, "all"),
        default="temperature",
        help="per-layer temperatures of mode sample; experts per layer under a budget; a bias per "
        "expert, by the path update (default: temperature)",
    )
    add("--trials", type=_count, default=50, metavar="N", help="per search (default: 50)")
    add(
        "--minutes",
        type=_positive,
        default=math.inf,
        metavar="M",
        help="per search, at most (default: no limit)",
    )
    add("--seed", type=_seed, default=0, help="of the search and of all noise (default: 0)")
    add(
        "--freeze-layers",
        default="",
        metavar="LIST",
        help="layers that keep the model's own routing: first, last, numbers, with commas",
    )
    add(
        "--max-temperature",
        type=_temperature,
        default=1.0,
        metavar="T",
        help="of temperature (default: 1)",
    )
    add(
        "--budget",
        type=_positive,
        metavar="K",
        help="of top_k: mean experts per token and layer (default: the model's own)",
    )
    add(
        "--max-experts-per-token",
        type=_count,
        metavar="N",
        help="of top_k: most experts in a layer (default: the model's own); galton serve needs "
        "the same",
    )
    add("--population", type=_pairs, default=16, metavar="N", help="of bias: even (default: 16)")
    add("--sigma", type=_positive, default=0.5, help="of bias: size of its steps (default: 0.5)")
    add(
        "--minibatch",
        type=_count,
        default=32,
        metavar="N",
        help="of bias: examples per update (default: 32)",
    )


def _add_asking(group: Any) -> None:
    add = group.add_argument
    add(
        "--samples",
        type=_count,
        metavar="N",
        help="answers per example (default: 1; 8 for pass_at_n and diversity)",
    )
    add(
        "--scope",
        choices=("decode", "all"),
        default="decode",
        help="what the policy routes: generated tokens, or the prompt's too, as for perplexity "
        "always (default: decode)",
    )
    add("--max-tokens", type=_count, default=256, metavar="N", help="of an answer (default: 256)")
    add(
        "--token-temperature",
        type=_temperature,
        default=0.0,
        metavar="T",
        help="of the sampling of tokens (default: 0, greedy)",
    )


def tune(args: argparse.Namespace, vllm_argv: Sequence[str]) -> int:
    """Run it; returns the exit status. Raises CannotStartError."""
    for package in ("optuna", "sacrebleu"):
        if importlib.util.find_spec(package) is None:
            raise CannotStartError(f"the package {package} is missing: install galton[tune]")
    from models.tuning.data import DataError
    from models.tuning.metrics import MetricError
    from models.tuning.report import ReportError
    from models.tuning.spaces import SpaceError
    from models.tuning.study import StudyError

    try:
        return _tune(args, vllm_argv)
    except (DataError, ReportError, StudyError) as error:
        raise CannotStartError(str(error)) from None
    except MetricError as error:
        raise CannotStartError(f"--metric {error}") from None
    except SpaceError as error:
        raise CannotStartError(f"--freeze-layers, --budget: {error}") from None


def _tune(args: argparse.Namespace, vllm_argv: Sequence[str]) -> int:
    from rich.console import Console

    from models.tuning.data import read_examples, refuse_shared
    from models.tuning.metrics import find_metric
    from models.tuning.objective import Asking, Objective
    from models.tuning.report import refuse_foreign, write_presets
    from models.tuning.search import Budget
    from models.tuning.study import Studies
    from models.tuning.tune import OWN_STUDY, Run

    # Whatever can be wrong is looked for before the engine starts.
    metric = find_metric(args.metric)
    needed = {"needs_references": metric.needs_references}
    validation = read_examples(args.data, **needed)
    test = read_examples(args.test, **needed) if args.test else []
    refuse_shared(validation, test, args.test)
    refuse_foreign(args.out)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("galton: loading vLLM ...")
    vllm_args = _vllm_args(args, vllm_argv)
    samples = args.samples or metric.samples
    path = args.study or args.out.with_suffix(".db")
    settings = _settings(args, samples, vllm_args.model, vllm_argv)
    studies = Studies(path, settings, higher_is_better=metric.higher_is_better)
    studies.open(OWN_STUDY)

    engine = _start(vllm_args)
    asking = Asking(
        samples,
        args.max_tokens,
        args.token_temperature,
        args.seed,
        args.scope,
        vllm_args.chat_template,
    )
    budget = Budget(args.trials, args.minutes * 60)
    with _Progress(console, args.trials) as progress, _stopped_by_ctrl_c(budget, console):
        found = Run(
            engine.spec,
            _searches(args, engine.spec),
            studies,
            Objective(engine, validation, metric, asking, "validation"),
            Objective(engine, test, metric, asking, "test") if test else None,
            budget,
            args.seed,
            progress.told,
        ).found()
    engine.stop()
    presets = {f"{args.name}-{f.search}" if found[1:] else args.name: f for f in found}
    write_presets(args.out, presets)
    for name, one in presets.items():
        console.print(f"{name}: {one.description()}")
    console.print(f"written: {args.out}; trials: {path}")
    return 0


def _vllm_args(args: argparse.Namespace, vllm_argv: Sequence[str]) -> argparse.Namespace:
    """As for `galton serve`, with its checks."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from server.launch import parse_vllm_args

    settings = Settings(
        max_experts_per_token=args.max_experts_per_token, allow_request_steering=True
    )
    return parse_vllm_args(settings, [*([args.model] if args.model else []), *vllm_argv])


def _start(vllm_args: argparse.Namespace) -> OfflineEngine:
    from vllm import EngineArgs

    from routing.engine.offline import OfflineEngine
    from server.launch import quiet_failure

    with quiet_failure():
        return OfflineEngine(EngineArgs.from_cli_args(vllm_args))


def _settings(
    args: argparse.Namespace, samples: int, model: str, vllm_argv: Sequence[str]
) -> dict[str, Any]:
    """Whatever the trials' values depend on, so that no study mixes two kinds."""
    from models.fingerprint import fingerprint

    names = (
        *("metric", "seed", "freeze_layers", "max_temperature", "budget"),
        *("max_experts_per_token", "population", "sigma", "minibatch"),
        *("max_tokens", "token_temperature", "scope"),
    )
    return {
        "model": fingerprint(model),
        "data": hashlib.sha256(args.data.read_bytes()).hexdigest()[:16],
        **{name: getattr(args, name) for name in names},
        "samples": samples,
        "engine": list(vllm_argv),
    }


def _searches(args: argparse.Namespace, spec: RouterSpec) -> Searches:
    from models.tuning.path_update import PathUpdate
    from models.tuning.spaces import TemperatureSpace, TopKSpace, frozen_layers
    from models.tuning.tune import Searches

    chosen = SEARCHES if args.search == "all" else (args.search,)
    frozen = frozen_layers([n.strip() for n in args.freeze_layers.split(",") if n.strip()], spec)
    spaces: list[Space] = []
    if "temperature" in chosen:
        spaces.append(TemperatureSpace(spec, args.max_temperature, frozen))
    if "top_k" in chosen:
        spaces.append(TopKSpace(spec, args.budget or float(spec.top_k), frozen))
    update = PathUpdate(
        spec, args.population, args.sigma, minibatch=args.minibatch, frozen=frozen, seed=args.seed
    )
    return Searches(spaces, update if "bias" in chosen else None)


@contextmanager
def _stopped_by_ctrl_c(budget: Budget, console: Console) -> Iterator[None]:
    """The first Ctrl-C ends the search after its trial, the next one whatever runs."""

    def stop(*_: object) -> None:
        if budget.stopped:
            raise KeyboardInterrupt
        budget.stopped = True
        console.print("galton: stopping after this trial; Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Progress:
    """One bar per search on a terminal; elsewhere a line per trial."""

    def __init__(self, console: Console, trials: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self.console = console
        self.trials = trials
        text = TextColumn("{task.description}")
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def told(self, search: str, done: int, own: float, best: float) -> None:
        """Validation chose the best, so that beside it is no gain yet: it is not called one."""
        shown = f"{search}: best {best:.4f}, the model's own {own:.4f} on validation"
        if not self.console.is_terminal:
            self.console.print(f"{search} {done}/{self.trials}: {shown.partition(': ')[2]}")
            return
        if search not in self.tasks:
            self.tasks[search] = self.bars.add_task(search, total=self.trials)
        self.bars.update(self.tasks[search], completed=done, description=shown)


def _number(text: str, low: float, high: float, accepted: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be {accepted}, got {text!r}")
    return number


def _positive(text: str) -> float:
    return _number(text, sys.float_info.min, sys.float_info.max, "a number above 0")


def _temperature(text: str) -> float:
    return _number(text, 0, 10, "a number from 0 to 10")


def _whole(text: str, low: int, accepted: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < low:
        raise argparse.ArgumentTypeError(f"must be {accepted}, got {text!r}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1, "an integer from 1")


def _seed(text: str) -> int:
    return _whole(text, 0, "an integer from 0")


def _pairs(text: str) -> int:
    number = _whole(text, 2, "an even integer from 2")
    if number % 2:
        raise argparse.ArgumentTypeError(f"must be an even integer from 2, got {text!r}")
    return number


def _preset_name(text: str) -> str:
    from server.presets import NAME

    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"must match {NAME.pattern}, got {text!r}")
    return text
