"""Questions with their answers: over a short passage, small arithmetic, ordering, calendar."""

from __future__ import annotations

import random
from dataclasses import dataclass

from models.demo import lexicon as lex
from models.demo.grammar import sentence_case

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
CITIES = (*(city[0] for city in lex.CITIES), "Oslo", "Lisbon", "Dublin", "Prague")
EVENTS = ("party", "concert", "exam", "meeting", "trip", "lesson", "dinner")
NUMBER_WORDS = ("one", "two", "three", "four")
PROMPTS = (
    "Passage: {p}\nQuestion: {q}",
    "{p}\n\n{q}",
    "{p} {q}",
    "Read the passage and answer the question.\n\n{p}\n\n{q}",
    "Context: {p}\nQuestion: {q}",
    "Answer the question.\nPassage: {p}\nQuestion: {q}",
)
UNKNOWN = "The passage does not say."


@dataclass(frozen=True)
class Question:
    """What the user writes, the answer, and the key by which splits are made ('' = a bare fact)."""

    user: str
    answer: str
    key: str


def random_name(rng: random.Random) -> str:
    """A name; one in six is invented, so that copying works on names never seen."""
    if rng.random() > 1 / 6:
        return rng.choice(lex.FEMALE_NAMES + lex.MALE_NAMES)
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
    """A passage of two to four facts about one or two people, and a question about one of them."""
    first, second = random_name(rng), random_name(rng)
    if first == second:
        return passage(rng)
    topics = ["age", "city", "job", "pet", "thing", "food", "day"]
    mine = rng.sample(topics, rng.choice((1, 2)))
    theirs = rng.sample(topics, rng.choice((1, 2)))
    rows = _person(rng, first, mine) + _person(rng, second, theirs)
    text = " ".join(row[1] for row in rows)
    asked = rng.choice(rows)
    question, answer = asked[2], asked[3]
    if question.startswith("Who"):
        tail = question[3:-1]
        if sum(tail in row[1] or row[2] == question for row in rows) > 1:
            return passage(rng)  # two people fit
    elif rng.random() < 0.06:
        missing = [t for t in topics if t not in mine]
        question, answer = _person(rng, first, [rng.choice(missing)])[0][2], UNKNOWN
        if question.startswith("Who"):
            return passage(rng)
    user = rng.choice(PROMPTS).format(p=text, q=question)
    return Question(user, answer, f"{text} {question}")


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
    return Question(user, answer, f"{text} {question}")


def arithmetic(rng: random.Random) -> Question:
    """Sums, differences and products of small numbers, bare or told as a story."""
    if rng.random() < 0.4:
        return _story(rng)
    op = rng.choice(("+", "+", "-", "-", "*"))
    if op == "*":
        a, b = rng.randint(1, 6), rng.randint(1, 6)
        result, word, key = a * b, "times", ""  # the multiplication table is a fact
    else:
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        if op == "-" and b > a:
            a, b = b, a
        result, word = (a + b, "plus") if op == "+" else (a - b, "minus")
        key = f"{a} {op} {b}"
    if rng.random() < 0.5:
        forms = ("What is {0} {2} {1}?", "Calculate {0} {2} {1}.", "{0} {2} {1} = ?", "{0} {2} {1}")
        return Question(rng.choice(forms).format(a, b, op), f"{a} {op} {b} = {result}", key)
    user = rng.choice(("What is {0} {2} {1}?", "How much is {0} {2} {1}?")).format(a, b, word)
    return Question(user, f"{a} {word} {b} is {result}.", key)


def _story(rng: random.Random) -> Question:
    name, things = random_name(rng), rng.choice(COUNTED)
    a, b = rng.randint(2, 12), rng.randint(1, 8)
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
        text = f"{name} has {a} boxes. There are {b} {things} in each box."
        total = a * b
    now = " now" if kind != "each" else ""
    user = f"{text} How many {things} does {name} have{now}?"
    return Question(user, f"{name} has {total} {things}{now}.", user)


def ordering(rng: random.Random) -> Question:
    """The larger or smaller of two numbers; numbers, days and months put in order."""
    draw = rng.random()
    if draw < 0.35:
        a, b = rng.sample(range(51), 2)
        large = rng.random() < 0.5
        word = rng.choice(("larger", "bigger") if large else ("smaller",))
        best = max(a, b) if large else min(a, b)
        user = rng.choice(("Which number is {2}, {0} or {1}?", "Which is {2}: {0} or {1}?"))
        return Question(user.format(a, b, word), f"{best} is {word}.", f"compare {a} {b}")
    if draw < 0.7:
        numbers = rng.sample(range(31), 3)
        listed = ", ".join(map(str, numbers))
        down = rng.random() < 0.3
        answer = ", ".join(map(str, sorted(numbers, reverse=down)))
        order = "from largest to smallest" if down else "from smallest to largest"
        forms = ["Sort these numbers {1}: {0}", "Put these numbers in order, {1}: {0}"]
        if not down:
            forms += ["Sort these numbers: {0}", "Put these numbers in order: {0}"]
        return Question(rng.choice(forms).format(listed, order), answer, f"sort {listed}")
    names, word = (DAYS, "days") if draw < 0.85 else (MONTHS, "months")
    chosen = rng.sample(names, 3)
    listed = ", ".join(chosen)
    user = rng.choice(("Put these {1} in order: {0}", "Sort these {1}: {0}")).format(listed, word)
    return Question(user, ", ".join(sorted(chosen, key=names.index)), f"sort {listed}")


def calendar(rng: random.Random) -> Question:
    """Days and months before and after (facts), and dates told as a story."""
    if rng.random() < 0.3:
        names, word = (DAYS, "day") if rng.random() < 0.5 else (MONTHS, "month")
        i, after = rng.randrange(len(names)), rng.random() < 0.5
        result = names[(i + (1 if after else -1)) % len(names)]
        where = "after" if after else "before"
        user = rng.choice(("Which {0} comes {1} {2}?", "What {0} comes {1} {2}?"))
        answer = f"{result} comes {where} {names[i]}."
        return Question(user.format(word, where, names[i]), answer, "")
    i, n = rng.randrange(7), rng.randint(1, 4)
    name, event = random_name(rng), rng.choice(EVENTS)
    days = "day" if n == 1 else "days"
    text = f"Today is {DAYS[i]}. {name}'s {event} is in {NUMBER_WORDS[n - 1]} {days}."
    user = f"{text} On which day is {name}'s {event}?"
    return Question(user, f"{name}'s {event} is on {DAYS[(i + n) % 7]}.", user)


def repeat(rng: random.Random) -> Question:
    """A row of unrelated words and numbers to say again: practice in copying, which the other
    tasks need."""
    pools = (
        lambda: random_name(rng),
        lambda: str(rng.randrange(100)),
        lambda: rng.choice(lex.NOUNS).en,
        lambda: rng.choice((*DAYS, *MONTHS, *CITIES, *COLOURS, *FOODS, *JOBS)),
    )
    text = ", ".join(rng.choice(pools)() for _ in range(rng.randint(2, 7)))
    user = rng.choice(("Repeat: {0}", "Repeat after me: {0}", "Say again: {0}"))
    return Question(user.format(text), text, f"repeat {text}")


CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Austria": "Vienna",
    "Belgium": "Brussels", "Norway": "Oslo", "Portugal": "Lisbon", "Ireland": "Dublin",
    "England": "London", "Greece": "Athens", "Poland": "Warsaw", "Japan": "Tokyo",
}  # fmt: skip
ABOUT = (
    "I am the Galton demo model, a small mixture of experts. I translate short English sentences "
    "into French and German, answer simple questions and write a few sentences in a style."
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
