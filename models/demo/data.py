"""The demo model's data: an endless stream of short exchanges, split by composition.

Every exchange has a key: its English sentence, its passage and question, its numbers, or its
topic and style. A hash of the key decides the split, so the same content never occurs on both
sides, whatever the wording or target language around it. Bare facts (single words, greetings,
capitals, the multiplication table) have no key and occur in training only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from models.demo import grammar, lexicon, questions, styles

Split = Literal["train", "valid", "test"]
TASKS = (
    *("translate_fr", "translate_de", "passage", "arithmetic", "ordering", "calendar"),
    *("repeat", "rewrite", "essay", "fact"),
)
_WEIGHTS = (15, 15, 22, 16, 9, 7, 12, 2, 6, 2)
_LANGUAGES = {"fr": "French", "de": "German"}
_TRANSLATE = (
    "Translate into {l}: {s}",
    "Translate to {l}: {s}",
    "Translate this sentence into {l}: {s}",
    "Translate the following text into {l}:\n{s}",
    "Translate the following sentence from English to {l}: {s}",
    "Translate from English to {l}: {s}",
    "Translate English to {l}: {s}",
    "Please translate into {l}: {s}",
    "{s}\nTranslate this into {l}.",
    'How do you say "{s}" in {l}?',
    "Say in {l}: {s}",
)
_TRANSLATE_SYSTEM = (
    "You are a translator. Translate the user's text into {l}.",
    "Translate everything the user writes into {l}.",
    "Translate from English to {l}.",
)
_SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant. Answer briefly.")


@dataclass(frozen=True)
class Example:
    """One exchange; `accepts` judges answers that have more than one right form."""

    task: str
    user: str
    assistant: str
    keys: tuple[str, ...]
    system: str = ""
    essay: tuple[styles.Topic, str, int] | None = field(default=None, compare=False)

    def accepts(self, answer: str) -> bool:
        """Whether `answer` is right: equal to the reference, or for an essay well formed."""
        if self.essay:
            return styles.is_well_formed(answer.strip(), *self.essay)
        return answer.strip() == self.assistant

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


def _sentence(rng: random.Random, split: Split) -> grammar.Sentence:
    while True:
        sentence = grammar.random_sentence(rng)
        if split_of(sentence.en) == split:
            return sentence


def _translation(rng: random.Random, language: str, split: Split) -> Example:
    task = f"translate_{language}"
    if split == "train" and rng.random() < 0.06:
        return _word(rng, language)
    sentences = [_sentence(rng, split)]
    if rng.random() < 0.08:
        sentences.append(_sentence(rng, split))
    source = " ".join(s.en for s in sentences)
    keys = tuple(s.en for s in sentences)
    target = " ".join(getattr(s, language) for s in sentences)
    shown = source[:-1] if rng.random() < 0.08 and source.endswith(".") else source
    if rng.random() < 0.15:
        system = rng.choice(_TRANSLATE_SYSTEM).format(l=_LANGUAGES[language])
        return Example(task, shown, target, keys, system)
    user = rng.choice(_TRANSLATE).format(s=shown, l=_LANGUAGES[language])
    return Example(task, user, target, keys)


def _word(rng: random.Random, language: str) -> Example:
    name = _LANGUAGES[language]
    if rng.random() < 0.6:
        word = grammar.random_word(rng)
        form = rng.choice(('What is "{w}" in {l}?', 'How do you say "{w}" in {l}?'))
        return Example("fact", form.format(w=word.en, l=name), getattr(word, language), ())
    phrase = rng.choice(lexicon.PHRASES)
    user = rng.choice(_TRANSLATE).format(s=phrase[0], l=name)
    return Example("fact", user, phrase[1 if language == "fr" else 2], ())


def _draw(rng: random.Random, task: str, split: Split) -> Example:
    if task.startswith("translate"):
        return _translation(rng, task[-2:], split)
    if task == "essay":
        text, topic, style, count = styles.essay(rng)
        judged = (topic, style, count)
        return Example(task, text.user, text.answer, (text.key,), essay=judged)
    if task == "rewrite":
        text = styles.rewrite(rng)
        return Example(task, text.user, text.answer, (text.key,))
    make = {
        "passage": questions.passage if rng.random() < 0.8 else questions.places,
        "arithmetic": questions.arithmetic,
        "ordering": questions.ordering,
        "calendar": questions.calendar,
        "repeat": questions.repeat,
        "fact": questions.fact,
    }[task]
    question = make(rng)
    system = rng.choice(_SYSTEMS) if rng.random() < 0.1 else ""
    return Example(
        task, question.user, question.answer, (question.key,) if question.key else (), system
    )


def examples(split: Split, seed: int, tasks: tuple[str, ...] = TASKS) -> Iterator[Example]:
    """An endless stream of `split`, the same for the same `seed`; tasks in fixed proportions."""
    if split != "train":
        tasks = tuple(task for task in tasks if task != "fact")
    rng = random.Random(f"{split} {seed}")
    weights = [_WEIGHTS[TASKS.index(task)] for task in tasks]
    while True:
        task = rng.choices(tasks, weights)[0]
        example = _draw(rng, task, split)
        while any(split_of(key) != split for key in example.keys or ("",)):
            example = _draw(rng, task, split)
        yield example
