"""All of a tuning run in turn: the model's own score, the searches, the test, the presets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from models.tuning.metrics import Scores
from models.tuning.objective import Objective
from models.tuning.path_update import PathUpdate
from models.tuning.report import Found
from models.tuning.search import BIAS, Budget, baseline, search_bias, search_space
from models.tuning.spaces import Routing, Space, mean_experts
from models.tuning.study import Studies, Study, Trial
from routing.spec import RouterSpec

OWN: Final = {"mode": "top_k"}
OWN_STUDY: Final = "own"
Progress = Callable[[str, int, float, float], None]


@dataclass(frozen=True, slots=True)
class Searches:
    """What to search: Optuna's spaces, then the path update."""

    spaces: Sequence[Space]
    update: PathUpdate | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of `galton tune`, its engine started.

    progress: called after each trial with the search, trials done, the model's own value and the
    best one so far, both on the validation data.
    """

    spec: RouterSpec
    searches: Searches
    studies: Studies
    validation: Objective
    test: Objective | None
    budget: Budget
    seed: int
    progress: Progress

    def found(self) -> list[Found]:
        """Search, then test what was found, by earlier runs too. Once the budget is stopped, no
        further search begins; a KeyboardInterrupt leaves out what it interrupts, searches or test.
        """
        own = self._own()
        opened: dict[str, Study] = {}
        try:
            for name, trials in self._streams():
                if self.budget.stopped and opened and not self.studies.open(name).trials:
                    continue
                for done, study in trials:
                    opened[name] = study
                    self.progress(name, done, own, study.best.value)
        except KeyboardInterrupt:
            if not opened:
                raise
        return self._tested(own, opened)

    def _own(self) -> float:
        study = self.studies.open(OWN_STUDY)
        if not study.trials:
            routing = self.validation.in_scope(OWN)
            study.add(Trial(routing, self.validation.scores([routing])[0].summary()))
        return study.trials[0].value

    def _streams(self) -> Iterator[tuple[str, Iterator[tuple[int, Study]]]]:
        for space in self.searches.spaces:
            trials = search_space(space, self.studies, self.validation, self.budget, self.seed)
            yield space.name, trials
        if self.searches.update is not None:
            update = self.searches.update
            yield BIAS, search_bias(update, self.studies, self.validation, self.budget)

    def _tested(self, own: float, opened: Mapping[str, Study]) -> list[Found]:
        bests = {name: self._bests(study) for name, study in opened.items()}
        own_routing = self.validation.in_scope(OWN)
        tested = self._test_scores([own_routing, *(t.routing for b in bests.values() for t in b)])
        return [
            Found(
                search=name,
                routing=best.routing,
                metric=self.validation.metric.name,
                trials=len(opened[name].trials),
                seed=self.seed,
                own=own,
                value=best.value,
                random=rest[0].value if rest else None,
                num_examples=len(self.validation.examples),
                experts=(float(self.spec.top_k), mean_experts(best.routing, self.spec)),
                test=[
                    tested[_key(routing)]
                    for routing in (own_routing, *(t.routing for t in (best, *rest)))
                    if tested
                ],
            )
            for name, (best, *rest) in bests.items()
        ]

    def _bests(self, study: Study) -> list[Trial]:
        """The search's best trial, and its baseline's, if it has one."""
        if study.name == BIAS:
            return [study.best]
        return [study.best, self.studies.open(baseline(study.name)).best]

    def _test_scores(self, routings: Sequence[Routing]) -> dict[str, Scores]:
        """By `_key`; none without a test split, or if interrupted."""
        if self.test is None:
            return {}
        different = {_key(routing): routing for routing in routings}
        try:
            scores = self.test.scores(list(different.values()))
        except KeyboardInterrupt:
            return {}
        return dict(zip(different, scores, strict=True))


def _key(routing: Routing) -> str:
    return json.dumps(routing, sort_keys=True)
