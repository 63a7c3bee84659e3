"""Which experts serve what: whether routing follows the kind of a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.demo.language.data import Example

SHUFFLES: Final = 100
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Usage:
    """Of the model's own routing, over the held-out questions.

    kinds: K names: tasks, essays by their style. share: [K, L, E] share of a kind's assignments
    in a layer that an expert gets. bits: [L] mutual information of kind and expert, kinds equally
    weighed, and chance_bits: [L] the same after shuffling the kinds of the questions, mean of 100.
    recognized, classified: questions whose kind is found from their load alone, by the nearest of
    the kinds' means, and all that were tried; each mean is of other questions.
    """

    kinds: list[str]
    share: Array
    bits: Array
    chance_bits: Array
    recognized: int
    classified: int

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        arrays = {"share": self.share, "bits": self.bits, "chance_bits": self.chance_bits}
        rounded = {name: np.round(values, 5).tolist() for name, values in arrays.items()}
        counts = {"recognized": self.recognized, "classified": self.classified}
        return {"kinds": self.kinds, **rounded, **counts}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Usage:
        """What `as_json` made."""
        arrays = {name: np.array(found[name]) for name in ("share", "bits", "chance_bits")}
        return cls(**{**found, **arrays})


def kind_of(example: Example) -> str:
    """The task; of an essay, its style too."""
    return f"essay, {example.essay[1]}" if example.essay else example.task


def usage(examples: Sequence[Example], loads: NDArray[np.int64]) -> Usage:
    """From the [N, L, E] loads of N questions."""
    names = [kind_of(example) for example in examples]
    kinds = list(dict.fromkeys(names))
    labels = np.array([kinds.index(name) for name in names])
    each = loads / loads.sum(axis=2, keepdims=True)
    rng = np.random.default_rng(0)
    shuffled = [information(_means(each, rng.permutation(labels))) for _ in range(SHUFFLES)]
    share = _means(each, labels)
    chance = np.mean(shuffled, axis=0)
    return Usage(kinds, share, information(share), chance, _recognized(each, labels), len(labels))


def information(share: Array) -> Array:
    """[K, L, E] P(expert | kind) -> [L] mutual information in bits, every kind as likely."""
    mean = share.mean(axis=0)
    terms = share * np.log2(np.where(share > 0, share / np.where(mean > 0, mean, 1), 1))
    return np.asarray(terms.sum(axis=2).mean(axis=0))


def _means(each: Array, labels: NDArray[np.int64]) -> Array:
    return np.stack([each[labels == kind].mean(axis=0) for kind in range(labels.max() + 1)])


def _recognized(each: Array, labels: NDArray[np.int64]) -> int:
    """Questions nearest to the mean of their kind, where the mean leaves them out."""
    flat = each.reshape(len(each), -1)
    sums = np.stack([flat[labels == kind].sum(axis=0) for kind in range(labels.max() + 1)])
    counts = np.bincount(labels).astype(float)
    right = 0
    for load, label in zip(flat, labels, strict=True):
        others, left = sums.copy(), counts.copy()
        others[label] -= load
        left[label] -= 1
        distances = ((others / left[:, None] - load) ** 2).sum(axis=1)
        right += int(distances.argmin() == label)
    return right
