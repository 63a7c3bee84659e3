"""Parallel English, French and German sentences, drawn at random from one small grammar."""

from __future__ import annotations

import random
from dataclasses import dataclass

from models.demo import lexicon as lex

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
POSSESSIVES = {  # English -> French m, f, plural; German stem
    "my": ("mon", "ma", "mes", "mein"),
    "his": ("son", "sa", "ses", "sein"),
    "her": ("son", "sa", "ses", "ihr"),
    "our": ("notre", "notre", "nos", "unser"),
}
PRONOUNS = {  # English -> French, German, person (index into je/il/nous/ils)
    "I": ("je", "ich", 0),
    "he": ("il", "er", 1),
    "she": ("elle", "sie", 1),
    "we": ("nous", "wir", 2),
    "they": ("ils", "sie", 3),
}


@dataclass(frozen=True)
class Sentence:
    """One sentence in three languages."""

    en: str
    fr: str
    de: str


@dataclass(frozen=True)
class Phrase:
    """A noun phrase or pronoun: its forms, person (0 je, 1 il, 2 nous, 3 ils), French agreement."""

    en: str
    fr: str
    de: str
    de_acc: str
    person: int
    fr_form: str  # m, f, mp or fp


def starts_with_vowel(word: str) -> bool:
    """Whether French elides before `word` (every h in the lexicon is mute)."""
    return word[0].lower() in VOWELS


def elide(short: str, long: str, word: str) -> str:
    """`l'` + eau, but `le ` + chat."""
    return f"{short}{word}" if starts_with_vowel(word) else f"{long} {word}"


def sentence_case(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[0].upper() + text[1:]


def agree(adjective: lex.Adjective, form: str) -> str:
    """The French form of an adjective: `form` is m, f, mp or fp."""
    return {
        "m": adjective.fr_m,
        "f": adjective.fr_f,
        "mp": adjective.fr_mp,
        "fp": adjective.fr_fp,
    }[form]


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
        masc, fem, many, _ = POSSESSIVES[determiner]
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
            before = adjective is not None and adjective.position == "before"
            return f"{'de' if before else 'des'} {phrase}"
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


def noun_phrase(
    noun: lex.Noun,
    determiner: str,
    *,
    plural: bool = False,
    adjective: lex.Adjective | None = None,
    number: tuple[str, str, str] | None = None,
) -> Phrase:
    """A noun phrase; `determiner` is the, a, this or a possessive, `number` replaces it."""
    en_noun = f"{adjective.en} " if adjective else ""
    en_noun += noun.en_pl if plural else noun.en
    form = noun.fr_gender + ("p" if plural else "")
    if number:
        en, fr, de = number
    else:
        en = {"this": "these", "a": ""}.get(determiner, determiner) if plural else determiner
        fr = de = determiner
        if determiner == "a" and not plural and en_noun[0] in "aeiou":
            en = "an"
    return Phrase(
        f"{en} {en_noun}".strip(),
        _french(noun, adjective, form, fr),
        _german(noun, adjective, plural, de, 0),
        _german(noun, adjective, plural, de, 1),
        3 if plural else 1,
        form,
    )


def _random_phrase(
    rng: random.Random, kinds: tuple[str, ...], *, definite: bool = False, subject: bool = False
) -> tuple[Phrase, lex.Noun]:
    noun = rng.choice([n for n in lex.NOUNS if n.kind in kinds])
    mass = not noun.en_pl
    plural = not mass and rng.random() < 0.25
    adjective = None
    if rng.random() < (0.25 if subject else 0.4):
        adjective = rng.choice([a for a in lex.ADJECTIVES if noun.kind in a.kinds.split()])
    if mass:
        determiner = rng.choice(("the", "the", "this", "my"))
    elif definite or subject:
        determiner = rng.choice(("the", "the", "the", "this", *POSSESSIVES))
    else:
        determiner = rng.choice(("the", "the", "a", "a", "a", "this", *POSSESSIVES))
    number = rng.choice(lex.NUMBERS) if plural and not definite and rng.random() < 0.3 else None
    phrase = noun_phrase(noun, determiner, plural=plural, adjective=adjective, number=number)
    return phrase, noun


def random_subject(rng: random.Random, kinds: tuple[str, ...] = ("human", "animal")) -> Phrase:
    """A subject: a name, a pronoun, a noun phrase, or two of them joined by `and`."""
    draw = rng.random()
    if draw < 0.22:
        name = rng.choice(lex.FEMALE_NAMES + lex.MALE_NAMES)
        return Phrase(name, name, name, name, 1, "f" if name in lex.FEMALE_NAMES else "m")
    if draw < 0.42 and "human" in kinds:
        en = rng.choice(list(PRONOUNS))
        fr, de, person = PRONOUNS[en]
        form = "f" if en == "she" else "mp" if person > 1 else "m"
        return Phrase(en, fr, de, de, person, form)
    if draw < 0.5 and "human" in kinds:
        first, second = rng.sample(lex.FEMALE_NAMES + lex.MALE_NAMES, 2)
        both = first in lex.FEMALE_NAMES and second in lex.FEMALE_NAMES
        de = f"{first} und {second}"
        return Phrase(
            f"{first} and {second}", f"{first} et {second}", de, de, 3, "fp" if both else "mp"
        )
    return _random_phrase(rng, kinds, subject=True)[0]


def _negate(verb: str, negated: bool) -> str:
    return elide("n'", "ne", verb) + " pas" if negated else verb


def _french_clause(subject: Phrase, verb: str, rest: str) -> str:
    start = elide("j'", "je", verb) if subject.fr == "je" else f"{subject.fr} {verb}"
    return f"{start} {rest}".strip()


@dataclass(frozen=True)
class _Core:
    """A finite verb in each language, and what closes the clause (participle or infinitive)."""

    en: str
    fr: str
    fr_tail: str
    de: str
    de_tail: str
    en_base: str  # after does/do/did/the modal, for questions


FR_HAVE, DE_HAVE = ("ai", "a", "avons", "ont"), ("habe", "hat", "haben", "haben")
FR_BE, DE_BE = ("suis", "est", "sommes", "sont"), ("bin", "ist", "sind", "sind")
FR_GO, DE_GO = ("vais", "va", "allons", "vont"), ("gehe", "geht", "gehen", "gehen")
DE_MAY = ("darf", "darf", "dürfen")  # "must not" forbids; "muss nicht" would mean "need not"
EN_BE = ("am", "is", "are", "are")


def _core(verb: lex.Verb, tense: str, modal: lex.Modal | None, subject: Phrase, neg: bool) -> _Core:
    p = subject.person
    third = p == 1
    if modal:
        if modal.en == "want to":
            finite = modal.en_3sg if third else modal.en
            if neg:
                finite = f"{'does' if third else 'do'} not want to"
        else:
            finite = {"can": "cannot", "must": "must not"}[modal.en] if neg else modal.en
        return _Core(
            f"{finite} {verb.en}",
            _negate(modal.fr[p], neg),
            verb.fr_infinitive,
            (DE_MAY if neg and modal.en == "must" else modal.de)[min(p, 2)],
            verb.de_infinitive,
            f"{modal.en} {verb.en}",
        )
    if tense == "past":
        return _Core(
            f"did not {verb.en}" if neg else verb.en_past,
            _negate(FR_HAVE[p], neg),
            verb.fr_participle,
            DE_HAVE[p],
            verb.de_participle,
            verb.en,
        )
    plain = verb.en_3sg if third else verb.en
    return _Core(
        f"{'does' if third else 'do'} not {verb.en}" if neg else plain,
        _negate(verb.fr[p], neg),
        "",
        verb.de[min(p, 2)],
        "",
        verb.en,
    )


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _clause(rng: random.Random) -> Sentence:
    """Subject, verb, object, place and time; statement, negation or yes/no question."""
    verb = rng.choice(lex.VERBS)
    human_only = verb.kinds not in ("", "food", "drink") and verb.en not in ("see", "hear", "find")
    subject = random_subject(rng, ("human",) if human_only else ("human", "animal"))
    draw = rng.random()
    modal = rng.choice(lex.MODALS) if draw < 0.2 else None
    tense = "modal" if modal else "past" if draw < 0.5 else "present"
    neg = rng.random() < 0.15
    question = not neg and rng.random() < 0.12 and not (modal and modal.en != "want to")
    obj = None
    if verb.kinds:
        obj = _random_phrase(rng, tuple(verb.kinds.split()), definite=neg)[0]
    place = rng.choice(lex.PLACES) if rng.random() < (0.2 if obj else 0.5) else ("", "", "")
    time = ("", "", "")
    if rng.random() < 0.35:
        time = rng.choice([t[:3] for t in lex.TIMES if tense in t[3].split()])
    core = _core(verb, tense, modal, subject, neg)
    en_obj, fr_obj, de_obj = (obj.en, obj.fr, obj.de_acc) if obj else ("", "", "")
    de_rest = (de_obj, "nicht" if neg else "", place[2], core.de_tail)
    fr_rest = _join(core.fr_tail, fr_obj, place[1])
    if question:
        auxiliary = "did" if tense == "past" else "does" if subject.person == 1 else "do"
        en = _join(auxiliary, subject.en, core.en_base, en_obj, place[0], time[0])
        fr = _join(_french_clause(subject, core.fr, fr_rest), time[1])
        fr = elide("est-ce qu'", "est-ce que", fr)
        de = _join(core.de, subject.de, time[2], *de_rest)
        return Sentence(sentence_case(en) + "?", sentence_case(fr) + " ?", sentence_case(de) + "?")
    en = _join(subject.en, core.en, en_obj, place[0])
    fr = _french_clause(subject, core.fr, fr_rest)
    if time[0] and rng.random() < 0.3:
        de = _join(time[2], core.de, subject.de, *de_rest)
        en, fr = f"{time[0]}, {en}", f"{time[1]}, {fr}"
    else:
        de = _join(subject.de, core.de, time[2], *de_rest)
        en, fr = _join(en, time[0]), _join(fr, time[1])
    return Sentence(*(sentence_case(text) + "." for text in (en, fr, de)))


def _copula(rng: random.Random) -> Sentence:
    """X is ADJECTIVE, X is PLACE, or where is X?"""
    draw = rng.random()
    if draw < 0.5:
        subject, noun = _random_phrase(
            rng,
            ("human", "animal", "food", "drink", "text", "thing", "opening", "sight"),
            subject=True,
        )
        kind = noun.kind
        if kind == "human" and rng.random() < 0.6:
            subject = random_subject(rng, ("human",))
    else:
        kind = rng.choice(("human", "animal", "thing"))
        subject = random_subject(rng, (kind,))
        if subject.en in (*PRONOUNS, *lex.FEMALE_NAMES, *lex.MALE_NAMES) or " and " in subject.en:
            kind = "human"
    p = subject.person
    if draw > 0.85:
        en = f"where {EN_BE[p]} {subject.en}"
        if subject.en in PRONOUNS:
            fr = f"où {FR_BE[p]}-{subject.fr}"
        else:
            fr = f"où {FR_BE[p]} {subject.fr}"
        de = f"wo {DE_BE[p]} {subject.de}"
        return Sentence(sentence_case(en) + "?", sentence_case(fr) + " ?", sentence_case(de) + "?")
    neg = rng.random() < 0.15
    if draw < 0.5:
        adjective = rng.choice([a for a in lex.ADJECTIVES if kind in a.kinds.split()])
        rest = (adjective.en, agree(adjective, subject.fr_form), adjective.de)
    else:
        rest = rng.choice(lex.PLACES)
    en = _join(subject.en, EN_BE[p], "not" if neg else "", rest[0])
    fr = _french_clause(subject, _negate(FR_BE[p], neg), rest[1])
    de = _join(subject.de, DE_BE[p], "nicht" if neg else "", rest[2])
    return Sentence(*(sentence_case(text) + "." for text in (en, fr, de)))


def _motion(rng: random.Random) -> Sentence:
    """X goes to DESTINATION, went there, or lives in CITY."""
    subject = random_subject(rng, ("human",))
    p, neg = subject.person, rng.random() < 0.15
    do = "does" if p == 1 else "do"
    if rng.random() < 0.35:
        city = rng.choice(lex.CITIES)
        en_verb = f"{do} not live" if neg else "lives" if p == 1 else "live"
        habiter = ("habite", "habite", "habitons", "habitent")[p]
        wohnen = ("wohne", "wohnt", "wohnen", "wohnen")[p]
        en = f"{subject.en} {en_verb} in {city[0]}"
        fr = _french_clause(subject, _negate(habiter, neg), f"à {city[1]}")
        de = _join(subject.de, wohnen, "nicht" if neg else "", f"in {city[2]}")
        return Sentence(*(sentence_case(text) + "." for text in (en, fr, de)))
    goal = rng.choice(lex.DESTINATIONS)
    past = rng.random() < 0.4
    tense = "past" if past else "present"
    time = ("", "", "")
    if rng.random() < 0.5:
        time = rng.choice([t[:3] for t in lex.TIMES if tense in t[3].split()])
    if past:
        en_verb = "did not go" if neg else "went"
        ending = {"m": "", "f": "e", "mp": "s", "fp": "es"}[subject.fr_form]
        fr_verb, fr_tail = _negate(FR_BE[p], neg), f"allé{ending}"
        de_verb, de_tail = DE_BE[p], "gegangen"
    else:
        en_verb = f"{do} not go" if neg else "goes" if p == 1 else "go"
        fr_verb, fr_tail = _negate(FR_GO[p], neg), ""
        de_verb, de_tail = DE_GO[p], ""
    en = _join(subject.en, en_verb, goal[0], time[0])
    fr = _french_clause(subject, fr_verb, _join(fr_tail, goal[1], time[1]))
    de = _join(subject.de, de_verb, time[2], "nicht" if neg else "", goal[2], de_tail)
    return Sentence(*(sentence_case(text) + "." for text in (en, fr, de)))


def random_sentence(rng: random.Random) -> Sentence:
    """One sentence from the whole grammar."""
    draw = rng.random()
    make = _clause if draw < 0.68 else _copula if draw < 0.85 else _motion
    return make(rng)


def random_word(rng: random.Random) -> Sentence:
    """A bare noun: the English word, and the other languages with their definite article."""
    noun = rng.choice(lex.NOUNS)
    phrase = noun_phrase(noun, "the")
    return Sentence(noun.en, phrase.fr, phrase.de)
