"""How many answers are right: counted by task and difficulty, with 95 % intervals.

An answer is right when it is the reference or one of its accepted forms; an essay, which has many
right forms, when every sentence is one the grammar allows. Answers may come from anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from models.demo.language.data import TASKS, TRANSLATIONS, Example, Split, different, examples

DIFFICULTIES = ("easy", "medium", "hard")
QUESTIONS = ("passage", "arithmetic", "ordering", "calendar")
GROUPS = {"translation": TRANSLATIONS, "questions": QUESTIONS}


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share; `total` is above 0."""
    from scipy.stats import binomtest  # a second to import

    low, high = binomtest(right, total).proportion_ci(method="wilson")
    return float(low), float(high)


@dataclass(frozen=True)
class Score:
    """Right answers to `total` exchanges of a task or group, of one difficulty or of all."""

    task: str
    difficulty: str
    right: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval."""
        return wilson(self.right, self.total)


def held_out(split: Split, per_task: int, seed: int = 0) -> list[Example]:
    """`per_task` different exchanges of every task that has held-out content."""
    tasks = [task for task in TASKS if task != "fact"]
    return [e for task in tasks for e in different(examples(split, seed, (task,)), per_task)]


def tally(rows: Iterable[tuple[Example, str]]) -> list[Score]:
    """Scores by task and difficulty, then of both groups over what is easy or medium, then all."""
    judged = [(e.task, e.difficulty, e.accepts(answer)) for e, answer in rows]
    wanted: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
    wanted += [(task, (task,), (d,)) for task in TASKS for d in DIFFICULTIES]
    wanted += [(task, (task,), DIFFICULTIES) for task in TASKS]
    wanted += [(group, tasks, DIFFICULTIES[:2]) for group, tasks in GROUPS.items()]
    wanted += [(group, tasks, DIFFICULTIES) for group, tasks in (*GROUPS.items(), ("all", TASKS))]
    scores = []
    for name, tasks, difficulties in wanted:
        right = [ok for task, level, ok in judged if task in tasks and level in difficulties]
        label = {1: difficulties[0], 2: "easy, medium"}.get(len(difficulties), "all")
        if right:
            scores.append(Score(name, label, sum(right), len(right)))
    return scores


def table(scores: Sequence[Score]) -> str:
    """Scores as a Markdown table: a row per task, a column per difficulty, with 95 % intervals."""
    columns = (*DIFFICULTIES, "easy, medium", "all")
    cells = {(s.task, s.difficulty): _cell(s) for s in scores}
    lines = [f"| task | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for task in dict.fromkeys(s.task for s in scores):
        row = [cells.get((task, column), "") for column in columns]
        lines.append(f"| {task} | {' | '.join(row)} |")
    return "\n".join(lines)


def _cell(score: Score) -> str:
    low, high = score.interval
    return f"{score.right / score.total:.1%} ({low:.0%} to {high:.0%}, n={score.total})"


def as_json(scores: Sequence[Score]) -> str:
    """Scores as JSON: a list of objects with share and 95 % interval."""
    rows = [{**asdict(s), "share": s.right / s.total, "interval": s.interval} for s in scores]
    return json.dumps(rows, indent=2)
