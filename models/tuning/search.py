"""The three searches, each a stream of trials that can be stopped after any of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from models.tuning.objective import Objective
from models.tuning.path_update import PathUpdate, bias_routing
from models.tuning.spaces import Space
from models.tuning.study import Studies, Study, Trial

BIAS: Final = "bias"


@dataclass(slots=True)
class Budget:
    """How long to search. trials: per search, those of earlier runs included. seconds: per
    search and run. stopped: set from outside, when the trial that runs is to be the last.
    """

    trials: int
    seconds: float = float("inf")
    stopped: bool = False
    _started: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        self._started = time.monotonic()

    def allows(self, done: int) -> bool:
        """At least one trial is always made: without any there is nothing to report."""
        in_time = time.monotonic() - self._started < self.seconds
        return done == 0 or (done < self.trials and in_time and not self.stopped)


def search_space(
    space: Space, studies: Studies, objective: Objective, budget: Budget, seed: int
) -> Iterator[tuple[int, Study]]:
    """Yields the number of trials done and the study: after each, and at first of earlier runs.

    TPE and, turn by turn, random search: the baseline has the same budget at any time.
    """
    guided = studies.open(space.name)
    control = studies.open(baseline(space.name))
    budget.start()
    if done := len(guided.trials):
        yield done, guided
    while budget.allows(done := len(guided.trials)):
        if len(control.trials) <= done:
            _try(control, space, "random", objective, seed)
        _try(guided, space, "tpe", objective, seed)
        yield done + 1, guided


def baseline(search: str) -> str:
    """The name of a search's random baseline."""
    return f"{search}-random"


def _try(study: Study, space: Space, sampler: str, objective: Objective, seed: int) -> None:
    with study.trying(space, sampler, seed) as attempt:
        attempt.routing = objective.in_scope(attempt.routing)
        attempt.value = objective.scores([attempt.routing])[0].summary()


def search_bias(
    update: PathUpdate, studies: Studies, objective: Objective, budget: Budget
) -> Iterator[tuple[int, Study]]:
    """One trial per update: the bias after it, judged on all validation examples.

    The first trial is no bias at all. What the update learns from is one minibatch at a time.
    """
    study = studies.open(BIAS)
    budget.start()
    if done := len(study.trials):
        yield done, study
    while budget.allows(done := len(study.trials)):
        bias = update.start() if done == 0 else _next_bias(update, study, objective, done - 1)
        routing = objective.in_scope(bias_routing(bias, update.spec))
        value = objective.scores([routing])[0].summary()
        study.add(Trial(routing, value, bias.tolist()))
        yield done + 1, study


def _next_bias(update: PathUpdate, study: Study, objective: Objective, generation: int) -> Any:
    bias = np.array(study.trials[-1].state)
    routings = [bias_routing(b, update.spec) for b in update.candidates(bias, generation)]
    chosen = update.examples(generation, len(objective.examples))
    scores = objective.scores([objective.in_scope(routing) for routing in routings], chosen)
    sign = 1 if objective.metric.higher_is_better else -1
    rewards = np.array([sign * score.summary() for score in scores])
    return update.updated(bias, generation, rewards)
