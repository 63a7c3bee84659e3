"""Noun phrases, pronouns and names in English, French, German and Chinese, with agreement."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from models.demo.language import lexicon as lex

VOWELS = "aeiouhéèêâîôœà"
DE_ARTICLES = {  # kind -> gender, or p for plural -> nominative, accusative (ein: the endings)
    "der": {"m": ("der", "den"), "f": ("die", "die"), "n": ("das", "das"), "p": ("die", "die")},
    "dieser": {
        "m": ("dieser", "diesen"),
        "f": ("diese", "diese"),
        "n": ("dieses", "dieses"),
        "p": ("diese", "diese"),
    },
    "ein": {"m": ("", "en"), "f": ("e", "e"), "n": ("", ""), "p": ("e", "e")},
}
DE_WEAK = {"m": ("e", "en"), "f": ("e", "e"), "n": ("e", "e"), "p": ("en", "en")}
DE_MIXED = {"m": ("er", "en"), "f": ("e", "e"), "n": ("es", "es"), "p": ("en", "en")}
POSSESSIVES = {  # English -> French m, f, plural; German stem; Chinese
    "my": ("mon", "ma", "mes", "mein", "我的"),
    "his": ("son", "sa", "ses", "sein", "他的"),
    "her": ("son", "sa", "ses", "ihr", "她的"),
    "our": ("notre", "notre", "nos", "unser", "我们的"),
}


@dataclass(frozen=True)
class Phrase:
    """A noun phrase or pronoun: its forms, person (0 je, 1 il, 2 nous, 3 ils), French agreement.

    `size` counts what makes it harder than a name, a pronoun or a bare noun.
    """

    en: str
    fr: str
    de: str
    de_acc: str
    zh: str
    person: int
    fr_form: str  # m, f, mp or fp
    kind: str = "human"
    size: int = 0


PRONOUNS = (
    Phrase("I", "je", "ich", "ich", "我", 0, "m"),
    Phrase("he", "il", "er", "er", "他", 1, "m"),
    Phrase("she", "elle", "sie", "sie", "她", 1, "f"),
    Phrase("we", "nous", "wir", "wir", "我们", 2, "mp"),
    Phrase("they", "ils", "sie", "sie", "他们", 3, "mp"),
)
WHO = Phrase("who", "qui", "wer", "wer", "谁", 1, "m")


def starts_with_vowel(word: str) -> bool:
    """Whether French elides before `word` (every h in the lexicon is mute)."""
    return word[0].lower() in VOWELS


def elide(short: str, long: str, word: str) -> str:
    """`l'` + eau, but `le ` + chat."""
    return f"{short}{word}" if starts_with_vowel(word) else f"{long} {word}"


def agree(adjective: lex.Adjective, form: str) -> str:
    """The French form of an adjective: `form` is m, f, mp or fp."""
    forms = {
        "m": adjective.fr_m,
        "f": adjective.fr_f,
        "mp": adjective.fr_mp,
        "fp": adjective.fr_fp,
    }
    return forms[form]


def _french_noun(noun: lex.Noun, adjective: lex.Adjective | None, form: str) -> str:
    word = noun.fr_pl if form.endswith("p") else noun.fr
    if adjective is None:
        return word
    if adjective.position == "after":
        return f"{word} {agree(adjective, form)}"
    if form == "m" and adjective.fr_vowel and starts_with_vowel(word):
        return f"{adjective.fr_vowel} {word}"
    return f"{agree(adjective, form)} {word}"


def _french(noun: lex.Noun, adjective: lex.Adjective | None, form: str, determiner: str) -> str:
    phrase = _french_noun(noun, adjective, form)
    plural, feminine = form.endswith("p"), form[0] == "f"
    if determiner in POSSESSIVES:
        masc, fem, many = POSSESSIVES[determiner][:3]
        if plural:
            return f"{many} {phrase}"
        return f"{fem if feminine and not starts_with_vowel(phrase) else masc} {phrase}"
    if determiner == "the":
        if plural:
            return f"les {phrase}"
        return elide("l'", "la" if feminine else "le", phrase)
    if determiner == "this":
        if plural:
            return f"ces {phrase}"
        return f"cette {phrase}" if feminine else elide("cet ", "ce", phrase)
    if determiner == "a":
        if plural:
            if adjective is None or adjective.position == "after":
                return f"des {phrase}"
            return elide("d'", "de", phrase)
        return f"{'une' if feminine else 'un'} {phrase}"
    return f"{determiner} {phrase}"  # a number


def _german(
    noun: lex.Noun, adjective: lex.Adjective | None, plural: bool, determiner: str, case: int
) -> str:
    gender = "p" if plural else noun.de_gender
    word = noun.de_pl if plural else (noun.de_acc or noun.de if case else noun.de)
    stem = adjective.de if adjective else ""
    if determiner in ("the", "this"):
        article = DE_ARTICLES["der" if determiner == "the" else "dieser"][gender][case]
        ending = DE_WEAK[gender][case]
    elif determiner == "a" and plural:
        article, ending = "", "e"
    elif determiner in POSSESSIVES or determiner == "a":
        base = "ein" if determiner == "a" else POSSESSIVES[determiner][3]
        article, ending = base + DE_ARTICLES["ein"][gender][case], DE_MIXED[gender][case]
    else:
        article, ending = determiner, "e"
    if stem.endswith("e") and ending.startswith("e"):
        ending = ending[1:]
    return " ".join(part for part in (article, stem + ending if stem else "", word) if part)


def _chinese(noun: lex.Noun, adjective: lex.Adjective | None, plural: bool, determiner: str) -> str:
    """A bare noun is definite: 猫 the cat, 那些猫 the cats, 一只猫 a cat, 一些猫 cats."""
    phrase = (adjective.chinese(noun.kind) if adjective else "") + noun.zh
    owner = POSSESSIVES[determiner][4] if determiner in POSSESSIVES else ""
    if plural and noun.kind == "human" and (owner or determiner == "the"):
        return f"{owner}{phrase}们"
    if owner or determiner == "the":
        return f"{owner}{'那些' if plural else ''}{phrase}"
    if determiner == "this":
        return f"这{noun.zh_measure if noun.en_pl and not plural else '些'}{phrase}"
    if determiner == "a":
        return f"一{'些' if plural else noun.zh_measure}{phrase}"
    return f"{determiner}{noun.zh_measure}{phrase}"


def noun_phrase(
    noun: lex.Noun,
    determiner: str,
    *,
    plural: bool = False,
    adjective: lex.Adjective | None = None,
    number: lex.Words | None = None,
) -> Phrase:
    """A noun phrase; `determiner` is the, a, this or a possessive, `number` replaces it."""
    en_noun = f"{adjective.en} " if adjective else ""
    en_noun += noun.en_pl if plural else noun.en
    form = noun.fr_gender + ("p" if plural else "")
    words = number or lex.Words(determiner, determiner, determiner, determiner)
    en = words.en
    if plural:
        en = {"this": "these", "a": ""}.get(en, en)
    elif en == "a" and en_noun[0] in "aeiou":
        en = "an"
    return Phrase(
        f"{en} {en_noun}".strip(),
        _french(noun, adjective, form, words.fr),
        _german(noun, adjective, plural, words.de, 0),
        _german(noun, adjective, plural, words.de, 1),
        _chinese(noun, adjective, plural, words.zh),
        3 if plural else 1,
        form,
        noun.kind,
        (adjective is not None) + plural,
    )


@cache
def _nouns(kinds: tuple[str, ...]) -> tuple[lex.Noun, ...]:
    return tuple(noun for noun in lex.NOUNS if noun.kind in kinds)


@cache
def adjectives(kind: str) -> tuple[lex.Adjective, ...]:
    """The adjectives that suit nouns of `kind`."""
    return tuple(adjective for adjective in lex.ADJECTIVES if kind in adjective.kinds)


def random_phrase(
    rng: random.Random, kinds: tuple[str, ...], *, definite: bool = False, subject: bool = False
) -> Phrase:
    """A noun phrase about a noun of one of `kinds`; subjects are definite."""
    noun = rng.choice(_nouns(kinds))
    mass = not noun.en_pl
    plural = not mass and rng.random() < 0.3
    adjective = None
    if rng.random() < (0.25 if subject else 0.4):
        adjective = rng.choice(adjectives(noun.kind))
    if mass:
        determiner = rng.choice(("the", "the", "this", "my"))
    elif definite or subject:
        determiner = rng.choice(("the", "the", "the", "this", *POSSESSIVES))
    else:
        determiner = rng.choice(("the", "the", "a", "a", "a", "this", *POSSESSIVES))
    number = rng.choice(lex.NUMBERS) if plural and not definite and rng.random() < 0.3 else None
    return noun_phrase(noun, determiner, plural=plural, adjective=adjective, number=number)


def _name(name: str) -> Phrase:
    form = "f" if name in lex.FEMALE_NAMES else "m"
    return Phrase(name, name, name, name, lex.NAMES[name], 1, form)


def _pair(first: str, second: str) -> Phrase:
    both = first in lex.FEMALE_NAMES and second in lex.FEMALE_NAMES
    de, zh = f"{first} und {second}", f"{lex.NAMES[first]}和{lex.NAMES[second]}"
    form = "fp" if both else "mp"
    return Phrase(f"{first} and {second}", f"{first} et {second}", de, de, zh, 3, form, size=1)


def random_subject(rng: random.Random, kinds: tuple[str, ...] = ("human", "animal")) -> Phrase:
    """A subject: a name, a pronoun, a noun phrase, or two names joined by `and`."""
    draw = rng.random()
    if "human" in kinds:
        if draw < 0.2:
            return _name(rng.choice(tuple(lex.NAMES)))
        if draw < 0.42:
            return rng.choice(PRONOUNS)
        if draw < 0.5:
            return _pair(*rng.sample(tuple(lex.NAMES), 2))
    return random_phrase(rng, kinds, subject=True)
