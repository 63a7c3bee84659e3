"""A metric for `galton tune`: `--metric models.demo.judge:right_and_new`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from models.demo import styles


def right_and_new(answers: Sequence[str], references: Sequence[str]) -> float:
    """How many different right answers there are, over all answers: 0 to 1.

    Right is what equals a reference; where that is an essay, every essay about its topic that has
    its style and number of sentences.
    """
    different = {answer.strip() for answer in answers}
    return sum(is_right(answer, tuple(references)) for answer in different) / len(answers)


def is_right(answer: str, references: tuple[str, ...]) -> bool:
    """Whether one answer is; see above."""
    essay = _recognised(references[0])
    if essay:
        return styles.is_well_formed(answer, *essay)
    return answer in references


_recognised = cache(styles.recognised)
