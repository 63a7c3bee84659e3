"""Metrics for `galton tune`: `--metric models.demo.language.judge:any_right`, `:right_and_new`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from models.demo.language import styles


def any_right(answers: Sequence[str], references: Sequence[str]) -> float:
    """1 if one of the answers is right, else 0."""
    return float(any(is_right(answer.strip(), tuple(references)) for answer in answers))


def right_and_new(answers: Sequence[str], references: Sequence[str]) -> float:
    """How many different right answers there are, over all answers: 0 to 1."""
    different = {answer.strip() for answer in answers}
    return sum(is_right(answer, tuple(references)) for answer in different) / len(answers)


def is_right(answer: str, references: tuple[str, ...]) -> bool:
    """Whether an answer equals a reference; where that is an essay, whether it is any about its
    topic that has its style and number of sentences.
    """
    essay = _recognised(references[0])
    if essay:
        return styles.is_well_formed(answer, *essay)
    return answer in references


_recognised = cache(styles.recognised)
