"""The demo model's data: splits never share content, and the grammar's forms are right."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from models.demo.language import grammar, lexicon, phrases, questions, styles
from models.demo.language.data import TASKS, TRANSLATIONS, Split, examples, split_of
from models.demo.training.batches import render
from models.demo.training.tokenizer import train_tokenizer

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


def test_no_held_out_sentence_is_in_training_in_any_language() -> None:
    """Exact sentences, source and answer: stronger than keys, which a wording could drop."""
    held = set()
    for example in itertools.islice(examples("test", 2, TRANSLATIONS), 600):
        if len(example.keys) == 1:
            held |= {example.assistant, example.plain.split("\n")[0].partition(": ")[2]}
    for example in itertools.islice(examples("train", 2, TRANSLATIONS), 20_000):
        assert example.assistant not in held
        assert not any(text in held for text in example.user.split("\n"))
        assert example.plain.split("\n")[0].partition(": ")[2] not in held


def test_no_language_writes_two_meanings_alike() -> None:
    """So that every direction has one right answer, or the set that `accepted` holds."""
    rng = random.Random(9)
    drawn = [grammar.random_sentence(rng) for _ in range(20_000)]
    for language in grammar.LANGUAGES:
        meanings: dict[str, set[str]] = {}
        for sentence in drawn:
            text = getattr(sentence, language)
            meanings.setdefault(text, set()).add(sentence.key)
        assert [m for m in meanings.values() if len(m) > 1] == []
    written: dict[str, set[tuple[str, str, str]]] = {}
    for s in drawn:
        if not s.vague:
            written.setdefault(s.en, set()).add((s.fr, s.de, s.zh))
    assert [w for w in written.values() if len(w) > 1] == []


def test_what_french_leaves_open_is_accepted_both_ways() -> None:
    example = next(
        e
        for e in examples("train", 10, ("translate_fr_en",))
        if re.search(r"\b(his|her)\b", e.assistant)
    )
    swapped = re.sub(
        r"\bhis\b|\bher\b", lambda m: {"his": "her", "her": "his"}[m[0]], example.assistant
    )
    assert swapped != example.assistant
    assert example.accepts(swapped)
    assert not example.accepts(swapped + " No.")


def test_difficulty_grows_with_what_is_asked() -> None:
    seen: dict[str, set[str]] = {}
    for example in itertools.islice(examples("train", 11), 6_000):
        seen.setdefault(example.task, set()).add(example.difficulty)
        if example.task == "arithmetic" and "=" in example.assistant and not example.system:
            digits = max(len(n) for n in re.findall(r"\d+", example.user))
            if "*" not in example.user and digits == 3:
                assert example.difficulty == "hard"
    graded = (*TRANSLATIONS, "passage", "arithmetic", "ordering", "calendar")
    assert all(seen[task] == {"easy", "medium", "hard"} for task in graded)


def test_arithmetic_and_yes_no_answers_are_true() -> None:
    rng = random.Random(12)
    for _ in range(3_000):
        question = questions.arithmetic(rng)
        if " = " in question.answer:
            left, right = question.answer.split(" = ")
            a, op, b = left.split(" ")
            assert int(right) == {"+": int(a) + int(b), "-": int(a) - int(b),
                                  "*": int(a) * int(b)}[op]  # fmt: skip
        asked = questions.passage(rng)
        if found := re.search(r"Does (\S+) (live in|like|work on) (.+)\?$", asked.user):
            name, verb, what = found.groups()
            said = f"{name} {verb.replace(' ', 's ', 1) if ' ' in verb else verb + 's'} {what}."
            assert (said in asked.key) == (asked.answer == "Yes.")


def test_a_system_prompt_decides_language_and_style() -> None:
    words = {"French": "font|vient|Oui|Non", "German": "ist|kommt|Ja|Nein", "Chinese": "[等是]"}
    languages, styled = set(), set()
    for example in itertools.islice(examples("train", 13), 20_000):
        if example.system.startswith("Answer in") and example.task in ("arithmetic", "calendar"):
            language = example.system[len("Answer in ") : -1]
            assert re.search(words[language], example.assistant), example
            languages.add(language)
        if example.system and example.essay:
            assert example.essay[1] in example.system
            styled.add(example.essay[1])
    assert languages == set(words)
    assert styled == set(styles.STYLES)


def test_chinese_characters_and_digits_are_single_tokens() -> None:
    rng = random.Random(14)
    texts = ["".join(render(e, rng)) for e in itertools.islice(examples("train", 14), 6_000)]
    tokenizer = train_tokenizer(texts, 3584)
    for example in itertools.islice(examples("valid", 14, ("translate_en_zh",)), 100):
        assert len(tokenizer.encode(example.assistant)) == len(example.assistant)
        assert tokenizer.decode(tokenizer.encode(example.assistant)) == example.assistant


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
    ("english", "determiner", "plural", "modifier", "french", "german_acc", "chinese"),
    [
        ("cat", "the", False, None, "le chat", "die Katze", "猫"),
        ("lamp", "a", False, "red", "une lampe rouge", "eine rote Lampe", "一盏红色的灯"),
        ("water", "the", False, "cold", "l'eau froide", "das kalte Wasser", "冷的水"),
        ("friend", "this", False, None, "cet ami", "diesen Freund", "这个朋友"),
        ("tree", "a", False, "old", "un vieil arbre", "einen alten Baum", "一棵古老的树"),
        ("star", "my", False, None, "mon étoile", "meinen Stern", "我的星星"),
        ("book", "a", True, "new", "de nouveaux livres", "neue Bücher", "一些新书"),
        ("book", "this", False, "old", "ce vieux livre", "dieses alte Buch", "这本旧书"),
        ("lion", "the", True, None, "les lions", "die Löwen", "那些狮子"),
        ("student", "a", False, None, "un étudiant", "einen Studenten", "一个学生"),
        ("nurse", "our", True, None, "nos infirmières", "unsere Krankenschwestern", "我们的护士们"),
        ("boy", "the", False, "tired", "le garçon fatigué", "den müden Jungen", "疲倦的男孩"),
        (
            "horse",
            "her",
            True,
            "black",
            "ses chevaux noirs",
            "ihre schwarzen Pferde",
            "她的那些黑色的马",
        ),
    ],
)
def test_noun_phrases_agree(
    english: str,
    determiner: str,
    plural: bool,
    modifier: str | None,
    french: str,
    german_acc: str,
    chinese: str,
) -> None:
    phrase = phrases.noun_phrase(
        noun(english),
        determiner,
        plural=plural,
        adjective=adjective(modifier) if modifier else None,
    )
    assert (phrase.fr, phrase.de_acc, phrase.zh) == (french, german_acc, chinese)


SENTENCES = """
Emma spoke today.|Emma a parlé aujourd'hui.|Emma hat heute gesprochen.|艾玛今天说话了。
The goat danced.|La chèvre a dansé.|Die Ziege hat getanzt.|山羊跳舞了。
Who plays in the library?|Qui joue dans la bibliothèque ?|Wer spielt in der Bibliothek?|谁在图书馆里玩耍？
Clara cannot cook.|Clara ne peut pas cuisiner.|Clara kann nicht kochen.|克拉拉不能做饭。
Three doors are white.|Trois portes sont blanches.|Drei Türen sind weiß.|三扇门是白色的。
She is very happy.|Elle est très heureuse.|Sie ist sehr glücklich.|她非常快乐。
The teachers will go to the bakery.|Les professeurs iront à la boulangerie.|Die Lehrer werden zur Bäckerei gehen.|老师们会去面包店。
My cup is not at the station.|Ma tasse n'est pas à la gare.|Meine Tasse ist nicht am Bahnhof.|我的杯子不在车站。
They pushed our ball.|Ils ont poussé notre ballon.|Sie haben unseren Ball geschoben.|他们推了我们的球。
My teacher will not drink the milk.|Mon professeur ne boira pas le lait.|Mein Lehrer wird die Milch nicht trinken.|我的老师不会喝牛奶。
Must David use my hat?|Est-ce que David doit utiliser mon chapeau ?|Muss David meinen Hut benutzen?|大卫必须使用我的帽子吗？
The bear saw modern rivers.|L'ours a vu des rivières modernes.|Der Bär hat moderne Flüsse gesehen.|熊看见了一些现代的河。
"""  # noqa: E501, RUF001


def test_hand_checked_sentences_are_what_the_grammar_writes() -> None:
    """Tenses, negation, questions, agreement, measure words; each drawn from the grammar itself."""
    wanted = [tuple(line.split("|")) for line in SENTENCES.strip().splitlines()]
    rng, found = random.Random(1), {}
    for _ in range(60_000):
        sentence = grammar.random_sentence(rng)
        found[sentence.en] = (sentence.en, sentence.fr, sentence.de, sentence.zh)
    compared = [row for row in wanted if row[0] in found]
    assert [found[row[0]] for row in compared] == compared
    assert len(compared) >= 8


def test_sentences_are_whole() -> None:
    rng = random.Random(7)
    for _ in range(3_000):
        sentence = grammar.random_sentence(rng)
        for text in (sentence.en, sentence.fr, sentence.de):
            assert re.fullmatch(r"[A-ZÀÉÊÎÖÜÄ](?:\S| (?! ))*[.?]", text), sentence
        assert re.fullmatch(r"[\u4e00-\u9fff]+[。？]", sentence.zh), sentence  # noqa: RUF001
        assert not re.search(r"\b(je|ne|le|de|que) [aeiouéœ]", sentence.fr), sentence


def test_essays_with_a_foreign_sentence_are_refused() -> None:
    topic = next(t for t in styles.TOPICS if t.subject == "the sea")
    good = styles.compose(random.Random(8), topic, "plain", 3)
    assert styles.is_well_formed(good, topic, "plain", 3)
    assert not styles.is_well_formed(good, topic, "formal", 3)
    assert not styles.is_well_formed(good + " The cat sleeps.", topic, "plain", 3)
    assert not styles.is_well_formed(good, topic, "plain", 2)
