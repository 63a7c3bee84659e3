"""The trials of a tuning run, kept in one SQLite file as Optuna's studies.

A run that was killed goes on where it was: what the next trial tries follows from the seed and
the complete trials alone, so the result is the one an undisturbed run would have had.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from models.tuning.spaces import Routing, Space

SAMPLERS: Final[dict[str, type[TPESampler] | type[RandomSampler]]] = {
    "tpe": TPESampler,
    "random": RandomSampler,
}
_SETTINGS: Final = "settings"


class StudyError(ValueError):
    """A study file that cannot be used, or was made with other settings."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy and its score on the validation data. state: what a search needs to go on."""

    routing: Routing
    value: float
    state: Any = None


class Studies:
    """One file, with a study per search; each has complete trials only, in order.

    settings: everything that the values depend on. Raises StudyError for a file that was made
    with others.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, higher_is_better: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.path = path
        self.settings = dict(settings)
        self.higher_is_better = higher_is_better
        with _readable(path):
            self.storage = optuna.storages.RDBStorage(f"sqlite:///{path}")

    def open(self, name: str) -> Study:
        """The study of that name, new or as it was left."""
        with _readable(self.path):
            study = optuna.create_study(
                storage=self.storage,
                study_name=name,
                direction="maximize" if self.higher_is_better else "minimize",
                load_if_exists=True,
            )
        made_with = study.user_attrs.get(_SETTINGS)
        if made_with is None:
            study.set_user_attr(_SETTINGS, self.settings)
        elif made_with != self.settings:
            changed = {
                key: (made_with.get(key), self.settings.get(key))
                for key in {**made_with, **self.settings}
                if made_with.get(key) != self.settings.get(key)
            }
            changes = "; ".join(
                f"{key} was {old!r}, is {new!r}" for key, (old, new) in changed.items()
            )
            raise StudyError(f"{self.path} was made otherwise ({changes}): name another --study")
        for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(left.number, state=TrialState.FAIL)  # interrupted
        return Study(study, higher_is_better=self.higher_is_better)


class Study:
    """Trials of one search."""

    def __init__(self, study: optuna.Study, *, higher_is_better: bool) -> None:
        self._study = study
        self._sign = 1 if higher_is_better else -1

    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def trials(self) -> list[Trial]:
        return [_trial(frozen) for frozen in self._complete()]

    @property
    def best(self) -> Trial:
        """The best value; of equal ones the earliest, which is the nearest to the start."""
        return max(self.trials, key=lambda trial: self._sign * trial.value)

    @contextmanager
    def trying(self, space: Space, sampler: str, seed: int) -> Iterator[Attempt]:
        """The next policy of a space; complete once its `value` is set.

        sampler: one of SAMPLERS. The first trial is the space's start. A trial that was
        interrupted is forgotten when the study is opened again, and tried again.
        """
        done = len(self._complete())
        # A new sampler each time: where the last one was in its numbers, no file knows. TPE
        # begins at random too, and shall not repeat what the baseline draws.
        numbers = random.Random(f"{sampler} {seed} {done}")
        self._study.sampler = SAMPLERS[sampler](seed=numbers.randrange(2**32))
        if done == 0 and not self._study.get_trials(states=(TrialState.WAITING,)):
            self._study.enqueue_trial(dict(space.start))
        trial = self._study.ask()
        attempt = Attempt(space.suggest(trial))
        yield attempt
        assert attempt.value is not None, "the attempt was not judged"
        trial.set_user_attr("routing", attempt.routing)
        self._study.tell(trial, attempt.value)

    def add(self, trial: Trial) -> None:
        """Keep a trial that no sampler suggested."""
        attributes = {"routing": trial.routing, "state": trial.state}
        self._study.add_trial(create_trial(value=trial.value, user_attrs=attributes))

    def _complete(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


@dataclass(slots=True)
class Attempt:
    """A policy that is being tried. value: its score, set by whoever tries it."""

    routing: Routing
    value: float | None = None


def _trial(frozen: FrozenTrial) -> Trial:
    assert frozen.value is not None
    return Trial(frozen.user_attrs["routing"], frozen.value, frozen.user_attrs.get("state"))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Any failure of the database becomes a StudyError."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{path}: is no study that can be used ({reason})") from None
