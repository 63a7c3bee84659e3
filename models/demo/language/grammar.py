"""Parallel English, French, German and Chinese sentences, drawn from one small grammar.

Every sentence is drawn once and written in four languages. Tenses are present, past and future:
`did`/`will`, passé composé/futur simple, Perfekt/Futur, 了 and 没/会. No two meanings share a
sentence in any of the languages, but for what French and English leave open: `son` is his or her
(see `key_of`), and `I read` is present or past (`Sentence.vague`).
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from models.demo.language import lexicon as lex
from models.demo.language.phrases import (
    WHO,
    Phrase,
    adjectives,
    agree,
    elide,
    noun_phrase,
    random_phrase,
    random_subject,
)

KINDS = ("human", "animal", "food", "drink", "text", "thing", "opening", "sight")
LANGUAGES = ("en", "fr", "de", "zh")
NOTHING = lex.Words()
ANIMALS_CAN = {
    *("see", "hear", "find", "look for", "eat", "drink", "steal", "hide"),
    *("sleep", "play", "wait", "dream", "dance"),
}
FR_HAVE, DE_HAVE = ("ai", "a", "avons", "ont"), ("habe", "hat", "haben", "haben")
FR_BE, DE_BE = ("suis", "est", "sommes", "sont"), ("bin", "ist", "sind", "sind")
FR_GO, DE_GO = ("vais", "va", "allons", "vont"), ("gehe", "geht", "gehen", "gehen")
FR_LIVE = ("habite", "habite", "habitons", "habitent")
DE_LIVE = ("wohne", "wohnt", "wohnen", "wohnen")
FR_FUTURE, DE_WILL = ("ai", "a", "ons", "ont"), ("werde", "wird", "werden", "werden")
DE_MAY = ("darf", "darf", "dürfen")  # "must not" forbids; "muss nicht" would mean "need not"
EN_BE = ("am", "is", "are", "are")
EN_DO = ("do", "does", "do", "do")


@dataclass(frozen=True)
class Sentence:
    """One sentence in four languages; `size` counts what it has beside subject, verb, object."""

    en: str
    fr: str
    de: str
    zh: str
    size: int = 0
    vague: bool = False  # the English leaves the tense open

    @property
    def key(self) -> str:
        """What the split is made by: the same for sentences that share a form in any language."""
        return key_of(self.en)


def key_of(english: str) -> str:
    """`english` with its `her` as `his`, which French does not tell apart."""
    return re.sub(r"\b([Hh])er\b", r"\1is", english)


def his_or_her(english: str) -> frozenset[str]:
    """Every reading of a sentence whose source says `son`, `sa` or `ses`."""
    texts = [""]
    for part in re.split(r"\b([Hh]is|[Hh]er)\b", english):
        both = {"his": ("his", "her"), "her": ("his", "her")}.get(part.lower(), (part,))
        choices = [sentence_case(x) if part[:1] == "H" else x for x in both]
        texts = [text + choice for text in texts for choice in choices]
    return frozenset(texts)


def sentence_case(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _written(
    en: str, fr: str, de: str, zh: str, size: int, *, asks: bool = False, vague: bool = False
) -> Sentence:
    en, fr, de = (sentence_case(text) for text in (en, fr, de))
    if asks:
        return Sentence(f"{en}?", f"{fr} ?", f"{de}?", f"{zh}？", size, vague)  # noqa: RUF001
    return Sentence(f"{en}.", f"{fr}.", f"{de}.", f"{zh}。", size, vague)


def _negate(verb: str, negated: bool) -> str:
    return elide("n'", "ne", verb) + " pas" if negated else verb


def _french_clause(subject: Phrase, verb: str, rest: str) -> str:
    start = elide("j'", "je", verb) if subject.fr == "je" else f"{subject.fr} {verb}"
    return f"{start} {rest}".strip()


@dataclass(frozen=True)
class _Core:
    """A finite verb in each language, and what closes the clause (participle or infinitive).

    Chinese: what stands before the place (会, 不, ...), and the verb after it.
    """

    en: str
    fr: str
    fr_tail: str
    de: str
    de_tail: str
    zh: tuple[str, str]
    asks: tuple[str, str]  # English question: auxiliary, rest


def _future(infinitive: str) -> str:
    return lex.FRENCH_FUTURES.get(infinitive, infinitive.removesuffix("e"))


def _core(verb: lex.Verb, tense: str, modal: lex.Modal | None, p: int, neg: bool) -> _Core:
    if modal:
        return _modal_core(verb, modal, p, neg)
    if tense == "past":
        return _Core(
            f"did not {verb.en}" if neg else verb.en_past,
            _negate(FR_HAVE[p], neg),
            verb.fr_participle,
            DE_HAVE[p],
            verb.de_participle,
            ("没", verb.zh[0]) if neg else ("", verb.zh[2]),
            ("did", verb.en),
        )
    if tense == "future":
        return _Core(
            f"will not {verb.en}" if neg else f"will {verb.en}",
            _negate(_future(verb.fr_infinitive) + FR_FUTURE[p], neg),
            "",
            DE_WILL[p],
            verb.de_infinitive,
            ("不会" if neg else "会", verb.zh[0]),
            ("will", verb.en),
        )
    zh = ("", verb.zh[0])
    if neg:
        zh = ("", verb.zh[1]) if verb.zh[1] else ("不", verb.zh[0])
    return _Core(
        f"{EN_DO[p]} not {verb.en}" if neg else verb.en_3sg if p == 1 else verb.en,
        _negate(verb.fr[p], neg),
        "",
        verb.de[min(p, 2)],
        "",
        zh,
        (EN_DO[p], verb.en),
    )


def _modal_core(verb: lex.Verb, modal: lex.Modal, p: int, neg: bool) -> _Core:
    if modal.en == "want to":
        finite = f"{EN_DO[p]} not want to" if neg else modal.en_3sg if p == 1 else modal.en
        asks = (EN_DO[p], f"{modal.en} {verb.en}")
    else:
        finite = {"can": "cannot", "must": "must not"}[modal.en] if neg else modal.en
        asks = (modal.en, verb.en)
    return _Core(
        f"{finite} {verb.en}",
        _negate(modal.fr[p], neg),
        verb.fr_infinitive,
        (DE_MAY if neg and modal.en == "must" else modal.de)[min(p, 2)],
        verb.de_infinitive,
        (modal.zh[neg], verb.zh[0]),
        asks,
    )


def _time(rng: random.Random, tense: str, chance: float) -> lex.Words:
    return rng.choice(lex.TIMES[tense]) if rng.random() < chance else NOTHING


def _tense(rng: random.Random) -> tuple[str, lex.Modal | None]:
    tense = rng.choices(("present", "past", "future", "modal"), (33, 27, 22, 18))[0]
    return tense, rng.choice(lex.MODALS) if tense == "modal" else None


def _clause(rng: random.Random) -> Sentence:
    """Subject, verb, object, place, time, adverb; statement, negation or question."""
    verb = rng.choice(lex.VERBS)
    subject = random_subject(rng, ("human", "animal") if verb.en in ANIMALS_CAN else ("human",))
    tense, modal = _tense(rng)
    neg = rng.random() < 0.17
    asks = not neg and rng.random() < 0.14
    if asks and rng.random() < 0.25:
        subject = WHO
    obj = random_phrase(rng, verb.kinds, definite=neg) if verb.kinds else None
    place = rng.choice(lex.PLACES) if rng.random() < (0.2 if obj else 0.4) else NOTHING
    time = _time(rng, tense, 0.35)
    often = manner = NOTHING
    if not (neg or asks or time.en) and tense == "present" and rng.random() < 0.3:
        often = rng.choice(lex.FREQUENCIES)
    elif not (obj or neg or asks) and tense != "past" and rng.random() < 0.3:
        manner = rng.choice(lex.MANNERS)
    core = _core(verb, tense, modal, subject.person, neg)
    en_obj, fr_obj, de_obj, zh_obj = (obj.en, obj.fr, obj.de_acc, obj.zh) if obj else ("",) * 4
    fr = _french_clause(
        subject, core.fr, _join(often.fr, core.fr_tail, manner.fr, fr_obj, place.fr)
    )
    de_rest = (
        time.de, often.de, de_obj, "nicht" if neg else "", manner.de, place.de, core.de_tail,
    )  # fmt: skip
    zh = _join(often.zh, core.zh[0], place.zh, manner.zh, core.zh[1], zh_obj).replace(" ", "")
    size = (subject.size + (obj.size if obj else 0) + (tense != "present") + neg + asks
            + bool(place.en) + bool(time.en) + bool(often.en) + bool(manner.en))  # fmt: skip
    tail = _join(en_obj, manner.en, place.en)
    if asks:
        return _question(subject, core, time, tail, fr, de_rest, zh, size)
    en = _join(subject.en, often.en, core.en, tail)
    vague = verb.en == verb.en_past and not (neg or modal or time.en or often.en)
    vague = vague and tense in ("present", "past")
    if time.en and rng.random() < 0.3:
        de = _join(time.de, core.de, subject.de, *de_rest[1:])
        return _written(
            f"{time.en}, {en}", f"{time.fr}, {fr}", de, f"{time.zh}{subject.zh}{zh}", size
        )
    de = _join(subject.de, core.de, *de_rest)
    zh = f"{subject.zh}{time.zh}{zh}"
    return _written(_join(en, time.en), _join(fr, time.fr), de, zh, size, vague=vague)


def _question(
    subject: Phrase,
    core: _Core,
    time: lex.Words,
    tail: str,
    fr: str,
    de_rest: tuple[str, ...],
    zh: str,
    size: int,
) -> Sentence:
    zh = f"{subject.zh}{time.zh}{zh}"
    fr = _join(fr, time.fr)
    if subject is WHO:
        en = _join("who", core.en, tail, time.en)
        return _written(en, fr, _join("wer", core.de, *de_rest), zh, size, asks=True)
    en = _join(core.asks[0], subject.en, core.asks[1], tail, time.en)
    de = _join(core.de, subject.de, *de_rest)
    return _written(en, elide("est-ce qu'", "est-ce que", fr), de, f"{zh}吗", size, asks=True)


def _copula(rng: random.Random) -> Sentence:
    """X is ADJECTIVE, X is PLACE, or where is X?"""
    draw = rng.random()
    kind = rng.choice(KINDS if draw < 0.55 else ("human", "animal", "thing"))
    subject = random_subject(rng, (kind,))
    p = subject.person
    if draw > 0.88:
        fr = f"où {FR_BE[p]}{'-' if subject.fr in ('je', 'il', 'elle', 'nous', 'ils') else ' '}"
        return _written(
            f"where {EN_BE[p]} {subject.en}",
            fr + subject.fr,
            f"wo {DE_BE[p]} {subject.de}",
            f"{subject.zh}在哪里",
            subject.size,
            asks=True,
        )
    neg = rng.random() < 0.17
    asks = not neg and rng.random() < 0.14
    if draw < 0.55:
        adjective = rng.choice(adjectives(kind))
        very = adjective.is_gradable and not neg and rng.random() < 0.2
        what = lex.Words(
            f"{'very ' if very else ''}{adjective.en}",
            f"{'très ' if very else ''}{agree(adjective, subject.fr_form)}",
            f"{'sehr ' if very else ''}{adjective.de}",
            _predicate(adjective, kind, neg=neg, asks=asks, very=very),
        )
    else:
        what, very = rng.choice(lex.PLACES), True
        what = lex.Words(what.en, what.fr, what.de, f"{'不' if neg else ''}{what.zh}")
    en = _join(subject.en, EN_BE[p], "not" if neg else "", what.en)
    fr = _french_clause(subject, _negate(FR_BE[p], neg), what.fr)
    de = _join(subject.de, DE_BE[p], "nicht" if neg else "", what.de)
    size = subject.size + neg + asks + very
    if asks:
        en, fr = f"{EN_BE[p]} {subject.en} {what.en}", elide("est-ce qu'", "est-ce que", fr)
        de = _join(DE_BE[p], subject.de, what.de)
        return _written(en, fr, de, f"{subject.zh}{what.zh}吗", size, asks=True)
    return _written(en, fr, de, subject.zh + what.zh, size)


def _predicate(adjective: lex.Adjective, kind: str, *, neg: bool, asks: bool, very: bool) -> str:
    """猫很大, 猫不大, 猫大吗; 车是红色的, 车不是红色的, 车是红色的吗."""
    word = adjective.chinese(kind)
    if not adjective.is_gradable:
        return f"{'不' if neg else ''}是{word}"
    word = word.removesuffix("的")
    return f"非常{word}" if very else f"不{word}" if neg else word if asks else f"很{word}"


def _motion(rng: random.Random) -> Sentence:
    """X lives in CITY, or X goes, went or will go somewhere."""
    subject = random_subject(rng, ("human",))
    p = subject.person
    neg = rng.random() < 0.15
    if rng.random() < 0.3:
        city = rng.choice(lex.CITIES)
        en = f"{EN_DO[p]} not live" if neg else "lives" if p == 1 else "live"
        return _written(
            f"{subject.en} {en} in {city.en}",
            _french_clause(subject, _negate(FR_LIVE[p], neg), f"à {city.fr}"),
            _join(subject.de, DE_LIVE[p], "nicht" if neg else "", f"in {city.de}"),
            f"{subject.zh}{'不' if neg else ''}住在{city.zh}",
            subject.size + neg,
        )
    goal = rng.choice(lex.DESTINATIONS)
    tense = rng.choice(("present", "past", "future"))
    time = _time(rng, tense, 0.5)
    verb, _, where = goal.zh.partition(" ")
    zh_not = {"present": "不", "past": "没", "future": "不会"}[tense]
    if tense == "past":
        ending = {"m": "", "f": "e", "mp": "s", "fp": "es"}[subject.fr_form]
        core = ("did not go" if neg else "went", FR_BE[p], f"allé{ending}", DE_BE[p], "gegangen")
        zh = f"{verb}{where}" if neg else f"{verb}了{where}"
    elif tense == "future":
        core = (f"will {'not ' if neg else ''}go", f"ir{FR_FUTURE[p]}", "", DE_WILL[p], "gehen")
        zh = f"{'' if neg else '会'}{verb}{where}"
    else:
        en = f"{EN_DO[p]} not go" if neg else "goes" if p == 1 else "go"
        core = (en, FR_GO[p], "", DE_GO[p], "")
        zh = f"{verb}{where}"
    return _written(
        _join(subject.en, core[0], goal.en, time.en),
        _french_clause(subject, _negate(core[1], neg), _join(core[2], goal.fr, time.fr)),
        _join(subject.de, core[3], time.de, "nicht" if neg else "", goal.de, core[4]),
        f"{subject.zh}{time.zh}{zh_not if neg else ''}{zh}",
        subject.size + neg + (tense != "present") + bool(time.en),
    )


def random_sentence(rng: random.Random) -> Sentence:
    """One sentence from the whole grammar."""
    draw = rng.random()
    make = _clause if draw < 0.68 else _copula if draw < 0.85 else _motion
    return make(rng)


def random_word(rng: random.Random) -> Sentence:
    """A bare noun: the English word, and the other languages with their definite article."""
    noun = rng.choice(lex.NOUNS)
    phrase = noun_phrase(noun, "the")
    return Sentence(noun.en, phrase.fr, phrase.de, phrase.zh)
