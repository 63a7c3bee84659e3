"""The demo model's data: an endless stream of short exchanges, split by composition.

Every exchange has keys: its sentences, its passage and question, its numbers, or its topic and
style. A hash of the key decides the split, so the same content never occurs on both sides, whatever
the wording, the languages or the direction around it. Bare facts (single words, greetings,
capitals, the multiplication table) have no key and occur in training only.

`python -m models.demo.language.data` prints exchanges as JSON lines, which `galton tune` reads. No
outside text is in them; they are under Galton's licence, which every line names.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from models.demo.language import grammar, lexicon, questions, styles
from models.demo.language.questions import Difficulty

LICENCE = "Apache-2.0"
Split = Literal["train", "valid", "test"]
DIRECTIONS = (("en", "fr"), ("fr", "en"), ("en", "de"), ("de", "en"), ("en", "zh"), ("zh", "en"))
TRANSLATIONS = tuple(f"translate_{source}_{target}" for source, target in DIRECTIONS)
TASKS = (
    *TRANSLATIONS,
    *("passage", "arithmetic", "ordering", "calendar", "repeat", "rewrite", "essay", "fact"),
)
_WEIGHTS = (9, 8, 9, 8, 10, 10, 16, 16, 6, 6, 5, 2, 4, 2)
_NAMES = {"en": "English", "fr": "French", "de": "German", "zh": "Chinese"}
_TRANSLATE = (
    "Translate into {l}: {s}",
    "Translate to {l}: {s}",
    "Translate this sentence into {l}: {s}",
    "Translate the following text into {l}:\n{s}",
    "Translate the following sentence from {f} to {l}: {s}",
    "Translate from {f} to {l}: {s}",
    "Translate {f} to {l}: {s}",
    "Please translate into {l}: {s}",
    "{s}\nTranslate this into {l}.",
    'How do you say "{s}" in {l}?',
    "Say in {l}: {s}",
)
_TRANSLATE_SYSTEM = (  # and how the user then asks
    ("You are a translator. Translate the user's text into {l}.", "{s}"),
    ("Translate everything the user writes into {l}.", "{s}"),
    ("Translate from {f} to {l}.", "{s}"),
    ("Answer in {l}.", "Translate: {s}"),
)
_SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant. Answer briefly.")


@dataclass(frozen=True)
class Example:
    """One exchange; `accepts` judges answers that have more than one right form.

    `plain` is the prompt as plain completion models get it, without chat markers.
    """

    task: str
    user: str
    assistant: str
    keys: tuple[str, ...]
    system: str = ""
    difficulty: Difficulty = "easy"
    accepted: frozenset[str] = frozenset()
    plain: str = ""
    essay: tuple[styles.Topic, str, int] | None = field(default=None, compare=False)

    def accepts(self, answer: str) -> bool:
        """Whether `answer` is right: the reference or as good, or for an essay well formed."""
        if self.essay:
            return styles.is_well_formed(answer.strip(), *self.essay)
        return answer.strip() == self.assistant or answer.strip() in self.accepted

    def messages(self, *, with_answer: bool = False) -> list[dict[str, str]]:
        """The exchange as chat messages."""
        chat = [{"role": "system", "content": self.system}] if self.system else []
        chat.append({"role": "user", "content": self.user})
        if with_answer:
            chat.append({"role": "assistant", "content": self.assistant})
        return chat


def split_of(key: str) -> Split:
    """The split of a key: 1 in 20 each for valid and test, by BLAKE2b; '' means train."""
    if not key:
        return "train"
    bucket = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") % 20
    return "test" if bucket == 0 else "valid" if bucket == 1 else "train"


def _sentence(rng: random.Random, source: str, split: Split) -> grammar.Sentence:
    """A sentence of `split` whose form in the language `source` has one meaning."""
    while True:
        sentence = grammar.random_sentence(rng)
        if split_of(sentence.key) == split and not (sentence.vague and source == "en"):
            return sentence


def _translation(rng: random.Random, source: str, target: str, split: Split) -> Example:
    if split == "train" and rng.random() < 0.06:
        return _word(rng, source, target)
    sentences = [_sentence(rng, source, split) for _ in range(1 if rng.random() < 0.93 else 2)]
    text = ("" if source == "zh" else " ").join(getattr(s, source) for s in sentences)
    answer = ("" if target == "zh" else " ").join(getattr(s, target) for s in sentences)
    size = max(s.size for s in sentences) + 2 * (len(sentences) - 1)
    shown = text[:-1] if rng.random() < 0.08 and text[-1] in ".。" else text
    names = {"f": _NAMES[source], "l": _NAMES[target], "s": shown}
    system, user = "", rng.choice(_TRANSLATE)
    if rng.random() < 0.15:
        system, user = rng.choice(_TRANSLATE_SYSTEM)
    return Example(
        f"translate_{source}_{target}",
        user.format(**names),
        answer,
        tuple(s.key for s in sentences),
        system.format(**names),
        "easy" if size < 2 else "medium" if size < 4 else "hard",
        grammar.his_or_her(answer) if source == "fr" else frozenset(),
        f"{_NAMES[source]}: {shown}\n{_NAMES[target]}:",
    )


def _word(rng: random.Random, source: str, target: str) -> Example:
    name = _NAMES[target]
    if rng.random() < 0.6:
        word = grammar.random_word(rng)
        form = rng.choice(('What is "{w}" in {l}?', 'How do you say "{w}" in {l}?'))
        user = form.format(w=getattr(word, source), l=name)
        return Example("fact", user, getattr(word, target), ())
    phrase = rng.choice(lexicon.PHRASES)
    user = rng.choice(_TRANSLATE).format(s=getattr(phrase, source), f=_NAMES[source], l=name)
    return Example("fact", user, getattr(phrase, target), ())


def _styled(rng: random.Random, task: str) -> Example:
    if task == "rewrite":
        text = styles.rewrite(rng)
        return Example(task, text.user, text.answer, (text.key,))
    text, topic, style, count = styles.essay(rng)
    difficulty: Difficulty = "easy" if count < 3 else "medium" if count == 3 else "hard"
    judged = (topic, style, count)
    return Example(task, text.user, text.answer, (text.key,), text.system, difficulty, essay=judged)


def _question(rng: random.Random, task: str) -> Example:
    make = {
        "passage": questions.passage if rng.random() < 0.8 else questions.places,
        "arithmetic": questions.arithmetic,
        "ordering": questions.ordering,
        "calendar": questions.calendar,
        "repeat": questions.repeat,
        "fact": questions.fact,
    }[task]
    question = make(rng)
    answer, system = question.answer, rng.choice(_SYSTEMS) if rng.random() < 0.1 else ""
    if question.kind and rng.random() < 0.15:
        language = rng.choice(("French", "German", "Chinese"))
        answer, system = questions.in_language(question, language), f"Answer in {language}."
    keys = (question.key,) if question.key else ()
    return Example(task, question.user, answer, keys, system, question.difficulty)


def _draw(rng: random.Random, task: str, split: Split) -> Example:
    if task in TRANSLATIONS:
        source, target = DIRECTIONS[TRANSLATIONS.index(task)]
        return _translation(rng, source, target, split)
    return _styled(rng, task) if task in ("essay", "rewrite") else _question(rng, task)


def examples(
    split: Split, seed: int, tasks: tuple[str, ...] = TASKS, *, block: int = 0
) -> Iterator[Example]:
    """An endless stream of `split`, the same for the same `seed`; tasks in fixed proportions.

    Each `block` is a stream of its own, so that training can go on from anywhere.
    """
    if split != "train":
        tasks = tuple(task for task in tasks if task != "fact")
    rng = random.Random(f"{split} {seed} {block}")
    weights = [_WEIGHTS[TASKS.index(task)] for task in tasks]
    while True:
        task = rng.choices(tasks, weights)[0]
        example = _draw(rng, task, split)
        while any(split_of(key) != split for key in example.keys or ("",)):
            example = _draw(rng, task, split)
        yield example


def different(stream: Iterator[Example], count: int) -> list[Example]:
    """The first `count` exchanges with different requests; fewer if they get rare."""
    found: dict[str, Example] = {}
    for example in itertools.islice(stream, count * 20):
        found.setdefault(f"{example.system}\n{example.user}", example)
        if len(found) == count:
            break
    return list(found.values())


def as_row(example: Example) -> dict[str, Any]:
    """An exchange as `galton tune` reads it, and more; the best reference is first."""
    return {
        "messages": example.messages(),
        "references": [example.assistant, *sorted(example.accepted - {example.assistant})],
        "task": example.task,
        "difficulty": example.difficulty,
        "licence": LICENCE,
    }


def main() -> None:
    """Print different exchanges, one JSON object a line."""
    parser = argparse.ArgumentParser(description="Print the demo model's exchanges as JSON lines.")
    parser.add_argument("--split", choices=get_args(Split), default="valid")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    args = parser.parse_args()
    for example in different(examples(args.split, args.seed, tuple(args.tasks)), args.count):
        print(json.dumps(as_row(example), ensure_ascii=False))


if __name__ == "__main__":
    main()
