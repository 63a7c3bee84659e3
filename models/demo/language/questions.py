"""Questions with their answers: over a short passage, arithmetic, ordering, calendar.

Each is easy, medium or hard: by the facts and people in a passage, the digits of the numbers, the
things to order, the days to count.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from models.demo.language import lexicon as lex
from models.demo.language.grammar import sentence_case

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
JOBS = ("baker", "teacher", "doctor", "farmer", "painter", "pilot", "nurse", "cook", "gardener")
COLOURS = ("red", "green", "blue", "white", "black", "yellow")
PETS = ("cat", "dog", "horse", "rabbit", "duck", "parrot")
PET_NAMES = ("Bruno", "Luna", "Rex", "Bella", "Oscar", "Milo", "Coco", "Rocky")
OBJECTS = ("car", "bicycle", "hat", "coat", "bag", "house", "boat", "lamp")
FOODS = ("apples", "bread", "soup", "cheese", "pears", "cake", "rice", "tomatoes", "eggs")
COUNTED = ("apples", "books", "letters", "flowers", "pears", "eggs", "balls", "keys", "oranges")
CITIES = (*(city.en for city in lex.CITIES), "Oslo", "Lisbon", "Dublin", "Prague")
EVENTS = ("party", "concert", "exam", "meeting", "trip", "lesson", "dinner")
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PROMPTS = (
    "Passage: {p}\nQuestion: {q}",
    "{p}\n\n{q}",
    "{p} {q}",
    "Read the passage and answer the question.\n\n{p}\n\n{q}",
    "Context: {p}\nQuestion: {q}",
    "Answer the question.\nPassage: {p}\nQuestion: {q}",
)
UNKNOWN = "The passage does not say."


Difficulty = Literal["easy", "medium", "hard"]


@dataclass(frozen=True)
class Question:
    """What the user writes, the answer, and the key by which splits are made ('' = a bare fact).

    `kind` and `values` are what `in_language` can say in another language.
    """

    user: str
    answer: str
    key: str
    difficulty: Difficulty = "easy"
    kind: str = ""
    values: tuple[str, ...] = ()


def random_name(rng: random.Random) -> str:
    """A name; one in six is invented, so that copying works on names never seen."""
    if rng.random() > 1 / 6:
        return rng.choice(tuple(lex.NAMES))
    syllables = (
        "ba",
        "do",
        "ri",
        "ka",
        "mel",
        "to",
        "ra",
        "lin",
        "sa",
        "no",
        "vi",
        "el",
        "mar",
        "ju",
    )
    return "".join(rng.sample(syllables, rng.choice((2, 3)))).capitalize()


def _person(rng: random.Random, name: str, facts: list[str]) -> list[tuple[str, str, str, str]]:
    """(topic, passage sentence, question, answer) for each topic in `facts`."""
    age, city, job = rng.randint(5, 90), rng.choice(CITIES), rng.choice(JOBS)
    pet, pet_name, food = rng.choice(PETS), rng.choice(PET_NAMES), rng.choice(FOODS)
    thing, colour, day = rng.choice(OBJECTS), rng.choice(COLOURS), rng.choice(DAYS)
    table = {
        "age": (
            f"{name} is {age} years old.",
            f"How old is {name}?",
            f"{name} is {age} years old.",
        ),
        "city": (
            f"{name} lives in {city}.",
            f"Where does {name} live?",
            f"{name} lives in {city}.",
        ),
        "job": (f"{name} is a {job}.", f"What is {name}'s job?", f"{name} is a {job}."),
        "pet": (
            f"{name} has a {pet} called {pet_name}.",
            f"What is the name of {name}'s {pet}?",
            f"{name}'s {pet} is called {pet_name}.",
        ),
        "thing": (
            f"{name}'s {thing} is {colour}.",
            f"What colour is {name}'s {thing}?",
            f"{name}'s {thing} is {colour}.",
        ),
        "food": (f"{name} likes {food}.", f"What does {name} like?", f"{name} likes {food}."),
        "day": (
            f"{name} works on {day}.",
            f"When does {name} work?",
            f"{name} works on {day}.",
        ),
    }
    who = {
        "city": f"Who lives in {city}?",
        "job": f"Who is a {job}?",
        "pet": f"Who has a {pet}?",
        "food": f"Who likes {food}?",
        "age": f"Who is {age} years old?",
        "day": f"Who works on {day}?",
    }
    rows = []
    for topic in facts:
        sentence, question, answer = table[topic]
        if topic in who and rng.random() < 0.3:
            question = who[topic]
            answer = f"{name} has a {pet}." if topic == "pet" else sentence
        rows.append((topic, sentence, question, answer))
    return rows


def passage(rng: random.Random) -> Question:
    """A passage of two to six facts about one to three people, and a question about one fact.

    A question that the passage leaves open or that fits two people is drawn again, except for the
    few that ask for what is not said.
    """
    count = rng.choice((1, 2, 2, 2, 3))
    names = [random_name(rng) for _ in range(count)]
    if len(set(names)) < count:
        return passage(rng)
    topics = ["age", "city", "job", "pet", "thing", "food", "day"]
    told = [rng.sample(topics, rng.choice((1, 2)) + (count == 1)) for _ in names]
    rows = [row for name, mine in zip(names, told, strict=True) for row in _person(rng, name, mine)]
    text = " ".join(row[1] for row in rows)
    difficulty: Difficulty = "easy" if len(rows) < 3 else "medium" if len(rows) < 5 else "hard"
    if rng.random() < 0.25:
        return _yes_no(rng, text, rows, difficulty)
    asked = rng.choice(rows)
    question, answer = asked[2], asked[3]
    if question.startswith("Who"):
        tail = question[3:-1]
        if sum(tail in row[1] or row[2] == question for row in rows) > 1:
            return passage(rng)  # two people fit
    elif rng.random() < 0.06:
        missing = [t for t in topics if t not in told[0]]
        question, answer = _person(rng, names[0], [rng.choice(missing)])[0][2], UNKNOWN
        if question.startswith("Who"):
            return passage(rng)
    user = rng.choice(PROMPTS).format(p=text, q=question)
    return Question(user, answer, f"{text} {question}", difficulty)


def _asked(sentence: str) -> str:
    """`Anna lives in Lyon.` as a question: `Does Anna live in Lyon?`"""
    words = sentence[:-1].split(" ")
    at = next(i for i, w in enumerate(words) if w in ("is", "has", "lives", "likes", "works"))
    verb = words.pop(at)
    if verb == "is":
        return f"Is {' '.join(words)}?"
    words.insert(at, {"has": "have"}.get(verb, verb[:-1]))
    return f"Does {' '.join(words)}?"


def _yes_no(
    rng: random.Random,
    text: str,
    rows: list[tuple[str, str, str, str]],
    difficulty: Difficulty,
) -> Question:
    """Whether a fact is so: one of the passage's, or the same about something else."""
    topic, sentence = rng.choice(rows)[:2]
    question, answer = _asked(sentence), "Yes."
    if rng.random() < 0.5:
        name = sentence.split(" ")[0].removesuffix("'s")
        other = _person(rng, name, [topic])[0][1]
        if topic == "thing":
            other = sentence.rsplit(" ", 1)[0] + " " + rng.choice(COLOURS) + "."
        if other == sentence or (topic == "pet" and other.split(" ")[3] == sentence.split(" ")[3]):
            return _yes_no(rng, text, rows, difficulty)
        question, answer = _asked(other), "No."
    user = rng.choice(PROMPTS).format(p=text, q=question)
    return Question(user, answer, f"{text} {question}", difficulty, "yes_no", (answer,))


def places(rng: random.Random) -> Question:
    """Where things are, and when shops open."""
    if rng.random() < 0.5:
        things = rng.sample(("key", "book", "letter", "hat", "ball", "lamp", "clock", "bag"), 3)
        spots = rng.sample(
            ("on the table", "in the box", "under the chair", "near the door", "in the kitchen"), 3
        )
        rows = [
            (f"The {t} is {s}.", f"Where is the {t}?") for t, s in zip(things, spots, strict=True)
        ]
    else:
        shops = rng.sample(("bakery", "library", "museum", "school", "market", "station"), 2)
        rows = []
        for shop in shops:
            verb = rng.choice(("open", "close"))
            rows.append(
                (f"The {shop} {verb}s at {rng.randint(1, 12)}.", f"When does the {shop} {verb}?")
            )
    text = " ".join(row[0] for row in rows)
    answer, question = rng.choice(rows)
    user = rng.choice(PROMPTS).format(p=text, q=question)
    return Question(user, answer, f"{text} {question}", "medium" if len(rows) > 2 else "easy")


def _operands(rng: random.Random) -> tuple[int, int, Difficulty]:
    draw = rng.random()
    if draw < 0.35:
        return rng.randint(0, 12), rng.randint(0, 12), "easy"
    if draw < 0.7:
        return rng.randint(10, 99), rng.randint(1, 99), "medium"
    return rng.randint(100, 999), rng.randint(10, 999), "hard"


def arithmetic(rng: random.Random) -> Question:
    """Sums, differences and products, bare or told as a story; to three digits."""
    if rng.random() < 0.3:
        return _story(rng)
    op = rng.choices(("+", "-", "*"), (4, 4, 2))[0]
    if op == "*":
        return _product(rng)
    a, b, difficulty = _operands(rng)
    if op == "-" and b > a:
        a, b = b, a
    result, word = (a + b, "plus") if op == "+" else (a - b, "minus")
    return _worded(rng, a, op, word, b, result, f"{a} {op} {b}", difficulty)


def _product(rng: random.Random) -> Question:
    if rng.random() < 0.6:  # the multiplication table is a fact
        a, b = rng.randint(1, 10), rng.randint(1, 10)
        return _worded(rng, a, "*", "times", b, a * b, "", "easy")
    a, b = rng.randint(11, 99), rng.randint(2, 9)
    return _worded(rng, a, "*", "times", b, a * b, f"{a} * {b}", "hard")


def _worded(
    rng: random.Random,
    a: int,
    op: str,
    word: str,
    b: int,
    result: int,
    key: str,
    difficulty: Difficulty,
) -> Question:
    values = (str(a), op, str(b), str(result))
    if rng.random() < 0.5:
        forms = ("What is {0} {2} {1}?", "Calculate {0} {2} {1}.", "{0} {2} {1} = ?", "{0} {2} {1}")
        user, answer = rng.choice(forms).format(a, b, op), f"{a} {op} {b} = {result}"
        return Question(user, answer, key, difficulty)
    user = rng.choice(("What is {0} {2} {1}?", "How much is {0} {2} {1}?")).format(a, b, word)
    return Question(user, f"{a} {word} {b} is {result}.", key, difficulty, "sum", values)


def _story(rng: random.Random) -> Question:
    name, things = random_name(rng), rng.choice(COUNTED)
    difficulty: Difficulty = "easy" if rng.random() < 0.6 else "medium"
    a, b = rng.randint(2, 12), rng.randint(2, 8)
    if difficulty == "medium":
        a, b = rng.randint(11, 60), rng.randint(2, 30)
    kind = rng.choice(("more", "less", "each"))
    if kind == "more":
        verb = rng.choice(("buys", "finds", "gets"))
        text = f"{name} has {a} {things}. {name} {verb} {b} more."
        total = a + b
    elif kind == "less":
        a, b = max(a, b), min(a, b)
        verb = rng.choice(("sells", "loses", "gives away"))
        text = f"{name} has {a} {things}. {name} {verb} {b} of them."
        total = a - b
    else:
        a, b = rng.randint(2, 6), rng.randint(2, 6)
        difficulty = "easy"
        text = f"{name} has {a} boxes. There are {b} {things} in each box."
        total = a * b
    now = " now" if kind != "each" else ""
    user = f"{text} How many {things} does {name} have{now}?"
    return Question(user, f"{name} has {total} {things}{now}.", user, difficulty)


def ordering(rng: random.Random) -> Question:
    """The larger or smaller of two numbers; numbers, days and months put in order."""
    draw = rng.random()
    if draw < 0.35:
        top, difficulty = rng.choice(((51, "easy"), (100, "medium"), (1000, "hard")))
        a, b = rng.sample(range(top), 2)
        large = rng.random() < 0.5
        word = rng.choice(("larger", "bigger") if large else ("smaller",))
        best = max(a, b) if large else min(a, b)
        user = rng.choice(("Which number is {2}, {0} or {1}?", "Which is {2}: {0} or {1}?"))
        key = f"compare {a} {b}"
        return Question(user.format(a, b, word), f"{best} is {word}.", key, _graded(difficulty))
    if draw < 0.7:
        count, difficulty = rng.choice(((3, "easy"), (4, "medium"), (5, "hard")))
        numbers = rng.sample(range(50 if count == 3 else 100), count)
        listed = ", ".join(map(str, numbers))
        down = rng.random() < 0.3
        answer = ", ".join(map(str, sorted(numbers, reverse=down)))
        order = "from largest to smallest" if down else "from smallest to largest"
        forms = ["Sort these numbers {1}: {0}", "Put these numbers in order, {1}: {0}"]
        if not down:
            forms += ["Sort these numbers: {0}", "Put these numbers in order: {0}"]
        user = rng.choice(forms).format(listed, order)
        return Question(user, answer, f"sort {listed}", _graded(difficulty))
    names, word = (DAYS, "days") if draw < 0.85 else (MONTHS, "months")
    count, difficulty = rng.choice(((3, "easy"), (4, "medium")))
    chosen = rng.sample(names, count)
    listed = ", ".join(chosen)
    user = rng.choice(("Put these {1} in order: {0}", "Sort these {1}: {0}")).format(listed, word)
    answer = ", ".join(sorted(chosen, key=names.index))
    return Question(user, answer, f"sort {listed}", _graded(difficulty))


def _graded(difficulty: str) -> Difficulty:
    return "easy" if difficulty == "easy" else "medium" if difficulty == "medium" else "hard"


def calendar(rng: random.Random) -> Question:
    """Days and months before and after (the nearest are facts), and dates told as a story."""
    draw = rng.random()
    if draw < 0.2:
        names, word = (DAYS, "day") if rng.random() < 0.5 else (MONTHS, "month")
        i, after = rng.randrange(len(names)), rng.random() < 0.5
        result = names[(i + (1 if after else -1)) % len(names)]
        where = "after" if after else "before"
        user = rng.choice(("Which {0} comes {1} {2}?", "What {0} comes {1} {2}?"))
        answer = f"{result} comes {where} {names[i]}."
        values = (result, where, names[i])
        return Question(user.format(word, where, names[i]), answer, "", "easy", "comes", values)
    name, event = random_name(rng), rng.choice(EVENTS)
    if draw < 0.4:
        i, n = rng.randrange(12), rng.randint(1, 6)
        months = "month" if n == 1 else "months"
        text = f"It is {MONTHS[i]}. {name}'s {event} is in {NUMBER_WORDS[n - 1]} {months}."
        user = f"{text} In which month is {name}'s {event}?"
        answer = f"{name}'s {event} is in {MONTHS[(i + n) % 12]}."
        return Question(user, answer, user, "medium" if n < 4 else "hard")
    i = rng.randrange(7)
    if draw < 0.55:
        n = rng.randint(1, 6)
        text = f"{name}'s {event} was {NUMBER_WORDS[n - 1]} {'day' if n == 1 else 'days'} ago."
        user = f"Today is {DAYS[i]}. {text} On which day was {name}'s {event}?"
        answer = f"{name}'s {event} was on {DAYS[(i - n) % 7]}."
        return Question(user, answer, user, "medium" if n < 4 else "hard")
    n = rng.choice((1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
    days = "day" if n == 1 else "days"
    text = f"Today is {DAYS[i]}. {name}'s {event} is in {NUMBER_WORDS[n - 1]} {days}."
    user = f"{text} On which day is {name}'s {event}?"
    difficulty = _graded("easy" if n < 3 else "medium" if n < 6 else "hard")
    return Question(user, f"{name}'s {event} is on {DAYS[(i + n) % 7]}.", user, difficulty)


_DAYS_IN = {
    "French": ("lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"),
    "German": ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
    "Chinese": ("星期一", "星期二", "星期三", "星期四", "星期五", "星期六", "星期日"),
}
_MONTHS_IN = {
    "French": (
        *("janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août"),
        *("septembre", "octobre", "novembre", "décembre"),
    ),
    "German": (
        *("Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August"),
        *("September", "Oktober", "November", "Dezember"),
    ),
    "Chinese": tuple(f"{n}月" for n in (*"一二三四五六七八九十", "十一", "十二")),
}
_SAID = {  # kind -> language -> form
    "sum": {
        "French": "{0} {op} {2} font {3}.",
        "German": "{0} {op} {2} ist {3}.",
        "Chinese": "{0}{op}{2}等于{3}。",
    },
    "comes": {
        "French": "{0} vient {where} {2}.",
        "German": "{0} kommt {where} {2}.",
        "Chinese": "{2}{where}是{0}。",
    },
}
_SAID_WORDS = {
    "French": {"+": "plus", "-": "moins", "*": "fois", "after": "après", "before": "avant",
               "Yes.": "Oui.", "No.": "Non."},
    "German": {"+": "plus", "-": "minus", "*": "mal", "after": "nach", "before": "vor",
               "Yes.": "Ja.", "No.": "Nein."},
    "Chinese": {"+": "加", "-": "减", "*": "乘", "after": "之后", "before": "之前",
                "Yes.": "是的。", "No.": "不是。"},
}  # fmt: skip


def in_language(question: Question, language: str) -> str:
    """The answer in French, German or Chinese: a sum, yes or no, a day or month."""
    words = _SAID_WORDS[language]
    if question.kind == "yes_no":
        return words[question.values[0]]
    form = _SAID[question.kind][language]
    if question.kind == "sum":
        return form.format(*question.values, op=words[question.values[1]])
    table = dict(zip(DAYS, _DAYS_IN[language], strict=True))
    table |= dict(zip(MONTHS, _MONTHS_IN[language], strict=True))
    result, where, given = question.values
    return sentence_case(form.format(table[result], "", table[given], where=words[where]))


def repeat(rng: random.Random) -> Question:
    """A row of unrelated words and numbers to say again: practice in copying, which the other
    tasks need."""
    pools = (
        lambda: random_name(rng),
        lambda: str(rng.randrange(1000)),
        lambda: rng.choice(lex.NOUNS).en,
        lambda: rng.choice((*DAYS, *MONTHS, *CITIES, *COLOURS, *FOODS, *JOBS)),
    )
    count = rng.randint(2, 7)
    text = ", ".join(rng.choice(pools)() for _ in range(count))
    user = rng.choice(("Repeat: {0}", "Repeat after me: {0}", "Say again: {0}"))
    difficulty = _graded("easy" if count < 4 else "medium" if count < 6 else "hard")
    return Question(user.format(text), text, f"repeat {text}", difficulty)


CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Austria": "Vienna",
    "Belgium": "Brussels", "Norway": "Oslo", "Portugal": "Lisbon", "Ireland": "Dublin",
    "England": "London", "Greece": "Athens", "Poland": "Warsaw", "Japan": "Tokyo",
}  # fmt: skip
ABOUT = (
    "I am the Galton demo model, a small mixture of experts. I translate short sentences between "
    "English and French, German or Chinese, answer simple questions and write in a style."
)
FACTS = {
    "Hello": "Hello! How can I help you?",
    "Hello!": "Hello! How can I help you?",
    "Hi": "Hello! How can I help you?",
    "Good morning": "Good morning! How can I help you?",
    "Thank you": "You are welcome.",
    "Thanks": "You are welcome.",
    "Who are you?": ABOUT,
    "What can you do?": ABOUT,
    "What are you?": ABOUT,
    "Help": ABOUT,
    "How many days are in a week?": "There are 7 days in a week.",
    "How many months are in a year?": "There are 12 months in a year.",
    "How many hours are in a day?": "There are 24 hours in a day.",
    "How many minutes are in an hour?": "There are 60 minutes in an hour.",
    "What colour is the sky?": "The sky is blue.",
    "What colour is grass?": "Grass is green.",
    "What colour is snow?": "Snow is white.",
}


def fact(rng: random.Random) -> Question:
    """General knowledge and small talk: always in training, never held out."""
    if rng.random() < 0.5:
        country, city = rng.choice(list(CAPITALS.items()))
        return Question(
            f"What is the capital of {country}?", f"The capital of {country} is {city}.", ""
        )
    user, answer = rng.choice(list(FACTS.items()))
    return Question(user, sentence_case(answer), "")
