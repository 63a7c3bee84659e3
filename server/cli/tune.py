"""`galton tune`: a run, its progress on the terminal, its errors in one line."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from server.cli.flags import SEARCHES, TuneFlags
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


EPILOG: Final = """\
Every other flag is vLLM's and goes to its engine unchanged: --dtype, --max-model-len, ...

DATA is JSON Lines: {"prompt": "..."} or {"messages": [...]}, with "reference": "..." or
"references": ["...", ...].

examples:
  galton tune --data valid.jsonl --test test.jsonl --metric chrf --out tuned.toml
  galton tune MODEL --data valid.jsonl --test test.jsonl --search top_k --budget 3
  galton serve MODEL --presets tuned.toml
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tune",
        help="search a routing policy on validation data",
        usage="galton tune [MODEL] --data FILE [galton's flags] [vLLM's flags]",
        description="Search a policy for MODEL (default: the bundled demo) on validation data,"
        "\nand write it as a preset, with its results on validation and test data.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a directory or a Hugging Face name"
    )
    TuneFlags.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, vllm_argv: Sequence[str]) -> int:
    """Tune; returns the exit status. Raises CannotStartError."""
    for package in ("optuna", "sacrebleu"):
        if importlib.util.find_spec(package) is None:
            raise CannotStartError(f"the package {package} is missing: install galton[tune]")
    from models.tuning.data import DataError
    from models.tuning.metrics import MetricError
    from models.tuning.report import ReportError
    from models.tuning.spaces import SpaceError
    from models.tuning.study import StudyError

    try:
        return _tune(args.model, TuneFlags.from_args(args), vllm_argv)
    except (DataError, ReportError, StudyError) as error:
        raise CannotStartError(str(error)) from None
    except MetricError as error:
        raise CannotStartError(f"--metric {error}") from None
    except SpaceError as error:
        raise CannotStartError(f"--freeze-layers, --budget: {error}") from None


def _tune(model: str | None, flags: TuneFlags, vllm_argv: Sequence[str]) -> int:
    from rich.console import Console

    from models.tuning.data import read_examples, refuse_shared
    from models.tuning.metrics import find_metric
    from models.tuning.objective import Asking, Objective
    from models.tuning.report import refuse_foreign, write_found
    from models.tuning.search import Budget
    from models.tuning.study import Studies
    from models.tuning.tune import OWN_STUDY, Run

    # Whatever can be wrong is looked for before the engine starts.
    metric = find_metric(flags.metric)
    needed = {"needs_references": metric.needs_references}
    validation = read_examples(flags.data, **needed)
    test = []
    if flags.test is not None:
        test = read_examples(flags.test, **needed)
        refuse_shared(validation, test, flags.test)
    refuse_foreign(flags.out)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("galton: loading vLLM ...")
    vllm_args = _vllm_args(model, flags, vllm_argv)
    samples = flags.samples or metric.samples
    path = flags.study or flags.out.with_suffix(".db")
    settings = _study_settings(flags, samples, vllm_args.model, vllm_argv)
    studies = Studies(path, settings, higher_is_better=metric.higher_is_better)
    studies.open(OWN_STUDY)

    engine = _start(vllm_args)
    asking = Asking(
        samples,
        flags.max_tokens,
        flags.token_temperature,
        flags.seed,
        flags.scope,
        vllm_args.chat_template,
    )
    budget = Budget(flags.trials, flags.minutes * 60)
    with _Progress(console, flags.trials) as progress, _stopped_by_ctrl_c(budget, console):
        results = Run(
            engine.spec,
            _searches(flags, engine.spec),
            studies,
            Objective(engine, validation, metric, asking, "validation"),
            Objective(engine, test, metric, asking, "test") if test else None,
            budget,
            flags.seed,
            progress.show,
        ).found()
    engine.stop()
    presets = {f"{flags.name}-{r.search}" if results[1:] else flags.name: r for r in results}
    write_found(flags.out, presets)
    for name, result in presets.items():
        console.print(f"{name}: {result.description()}")
    console.print(f"written: {flags.out}; trials: {path}")
    return 0


def _vllm_args(model: str | None, flags: TuneFlags, vllm_argv: Sequence[str]) -> argparse.Namespace:
    """As for `galton serve`, with its checks."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from server.launch import parse_vllm_args

    settings = Settings(
        max_experts_per_token=flags.max_experts_per_token, allow_request_steering=True
    )
    return parse_vllm_args(settings, [*([model] if model else []), *vllm_argv])


def _start(vllm_args: argparse.Namespace) -> OfflineEngine:
    from vllm import EngineArgs

    from routing.engine.offline import OfflineEngine
    from server.launch import quiet_failure

    with quiet_failure():
        return OfflineEngine(EngineArgs.from_cli_args(vllm_args))


def _study_settings(
    flags: TuneFlags, samples: int, model: str, vllm_argv: Sequence[str]
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
        "data": hashlib.sha256(flags.data.read_bytes()).hexdigest()[:16],
        **{name: getattr(flags, name) for name in names},
        "samples": samples,
        "engine": list(vllm_argv),
    }


def _searches(flags: TuneFlags, spec: RouterSpec) -> Searches:
    from models.tuning.path_update import PathUpdate
    from models.tuning.spaces import TemperatureSpace, TopKSpace, frozen_layers
    from models.tuning.tune import Searches

    chosen = SEARCHES if flags.search == "all" else (flags.search,)
    frozen = frozen_layers([n.strip() for n in flags.freeze_layers.split(",") if n.strip()], spec)
    spaces: list[Space] = []
    if "temperature" in chosen:
        spaces.append(TemperatureSpace(spec, flags.max_temperature, frozen))
    if "top_k" in chosen:
        spaces.append(TopKSpace(spec, flags.budget or float(spec.top_k), frozen))
    update = PathUpdate(
        spec,
        flags.population,
        flags.sigma,
        minibatch=flags.minibatch,
        frozen=frozen,
        seed=flags.seed,
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

    def show(self, search: str, done: int, own: float, best: float) -> None:
        """Validation chose the best, so that beside it is no gain yet: it is not called one."""
        values = f"best {best:.4f}, the model's own {own:.4f} on validation"
        if not self.console.is_terminal:
            self.console.print(f"{search} {done}/{self.trials}: {values}")
            return
        if search not in self.tasks:
            self.tasks[search] = self.bars.add_task(search, total=self.trials)
        self.bars.update(self.tasks[search], completed=done, description=f"{search}: {values}")
