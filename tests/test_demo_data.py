"""The demo model's data: splits never share content, and the grammar's forms are right."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from models.demo import grammar, lexicon, styles
from models.demo.data import TASKS, Split, examples, split_of

HELD_OUT: tuple[Split, ...] = ("valid", "test")


@pytest.mark.parametrize("split", HELD_OUT)
def test_held_out_content_never_occurs_in_training(split: Split) -> None:
    train = list(itertools.islice(examples("train", 0), 20_000))
    held = list(itertools.islice(examples(split, 0), 1_000))
    assert not {k for e in train for k in e.keys} & {k for e in held for k in e.keys}
    assert not {(e.system, e.user) for e in train} & {(e.system, e.user) for e in held}


@pytest.mark.parametrize("split", ["train", *HELD_OUT])
def test_every_key_belongs_to_its_split(split: Split) -> None:
    for example in itertools.islice(examples(split, 1), 1_000):
        assert all(split_of(key) == split for key in example.keys)
        assert example.keys or split == "train", f"a bare fact in {split}: {example.user}"


def test_a_held_out_sentence_is_not_hidden_in_a_training_prompt() -> None:
    """Exact English sentences: stronger than keys, which a wording could drop."""
    held = {e.keys[0] for e in itertools.islice(examples("test", 2, ("translate_fr",)), 500)}
    train = itertools.islice(examples("train", 2, ("translate_fr", "translate_de")), 20_000)
    for example in train:
        assert not any(s in held for s in example.user.split("\n"))
        assert not held & set(example.keys)


def test_same_seed_gives_same_examples() -> None:
    first, again = examples("train", 3), examples("train", 3)
    assert list(itertools.islice(first, 200)) == list(itertools.islice(again, 200))
    other = list(itertools.islice(examples("train", 4), 200))
    assert other != list(itertools.islice(examples("train", 3), 200))


def test_every_task_occurs_and_accepts_its_own_answer() -> None:
    seen = set()
    for example in itertools.islice(examples("train", 5), 3_000):
        seen.add(example.task)
        assert example.accepts(example.assistant), example
        assert not example.accepts("Nothing of the kind."), example
    assert seen == set(TASKS)


def test_messages_carry_system_user_and_answer() -> None:
    example = next(e for e in examples("train", 6) if e.system)
    roles = [m["role"] for m in example.messages(with_answer=True)]
    assert roles == ["system", "user", "assistant"]


def noun(english: str) -> lexicon.Noun:
    return next(n for n in lexicon.NOUNS if n.en == english)


def adjective(english: str) -> lexicon.Adjective:
    return next(a for a in lexicon.ADJECTIVES if a.en == english)


@pytest.mark.parametrize(
    ("english", "determiner", "plural", "modifier", "french", "german_acc"),
    [
        ("cat", "the", False, None, "le chat", "die Katze"),
        ("apple", "a", False, "red", "une pomme rouge", "einen roten Apfel"),
        ("water", "the", False, "cold", "l'eau froide", "das kalte Wasser"),
        ("friend", "this", False, None, "cet ami", "diesen Freund"),
        ("tree", "a", False, "old", "un vieil arbre", "einen alten Baum"),
        ("star", "my", False, None, "mon étoile", "meinen Stern"),
        ("book", "a", True, "small", "de petits livres", "kleine Bücher"),
        ("boy", "the", False, "tired", "le garçon fatigué", "den müden Jungen"),
        ("horse", "her", True, "black", "ses chevaux noirs", "ihre schwarzen Pferde"),
    ],
)
def test_noun_phrases_agree(
    english: str, determiner: str, plural: bool, modifier: str | None, french: str, german_acc: str
) -> None:
    phrase = grammar.noun_phrase(
        noun(english),
        determiner,
        plural=plural,
        adjective=adjective(modifier) if modifier else None,
    )
    assert (phrase.fr, phrase.de_acc) == (french, german_acc)


def test_sentences_are_whole() -> None:
    rng = random.Random(7)
    for _ in range(3_000):
        sentence = grammar.random_sentence(rng)
        for text in (sentence.en, sentence.fr, sentence.de):
            assert re.fullmatch(r"[A-ZÀÉÊÖÜÄ](?:\S| (?! ))*[.?]", text), sentence
        assert not re.search(r"\b(je|ne|le|de|que) [aeiouéœ]", sentence.fr), sentence


def test_essays_with_a_foreign_sentence_are_refused() -> None:
    topic = next(t for t in styles.TOPICS if t.subject == "the sea")
    good = styles.compose(random.Random(8), topic, "plain", 3)
    assert styles.is_well_formed(good, topic, "plain", 3)
    assert not styles.is_well_formed(good, topic, "formal", 3)
    assert not styles.is_well_formed(good + " The cat sleeps.", topic, "plain", 3)
    assert not styles.is_well_formed(good, topic, "plain", 2)
