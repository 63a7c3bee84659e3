"""Short texts in a style (plain, formal, poetic, telegraphic), and sentences rewritten in a style."""

# The topics are one row each, whatever its length.
# ruff: noqa: E501

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from models.demo.language.grammar import sentence_case

STYLES = ("plain", "formal", "poetic", "telegraphic")

# subject | three adjectives | three things it does | things that belong to it | when or where
_TOPICS = """
the sea|deep,blue,restless|rolls onto the sand,carries the ships,sings to the shore|waves,white gulls,shells|on a summer morning
the moon|pale,silver,distant|rises over the hills,lights the road,watches the houses|quiet fields,dreams,long shadows|at midnight
the rain|soft,grey,patient|falls on the roofs,waters the gardens,washes the streets|umbrellas,wet leaves,small rivers|in the afternoon
the snow|white,cold,silent|covers the fields,hides the paths,slows the city|footprints,warm coats,frozen lakes|in January
the forest|green,dark,old|shelters the birds,keeps the cool air,hides the deer|tall trees,soft moss,narrow paths|before sunrise
the river|slow,clear,long|crosses the valley,turns the wheels,reaches the sea|small boats,stones,bridges|in spring
the mountain|high,steep,calm|looks over the valley,holds the snow,guards the village|pine trees,eagles,clouds|in clear weather
the garden|green,small,peaceful|feeds the bees,smells of roses,grows behind the house|roses,young trees,stone benches|in June
autumn|golden,cool,quiet|paints the leaves,ends the harvest,shortens the days|red leaves,apples,morning mist|in September
winter|cold,dark,long|brings the snow,empties the streets,freezes the lake|candles,thick coats,bare trees|after Christmas
spring|fresh,gentle,young|opens the flowers,warms the earth,brings back the birds|blossoms,light rain,new leaves|in April
summer|hot,bright,lazy|fills the beaches,dries the grass,lengthens the days|cold drinks,late evenings,blue skies|in July
the city|loud,busy,modern|never sleeps,welcomes the travellers,grows every year|tall buildings,crowded streets,street lamps|at night
the train|fast,long,punctual|leaves the station,crosses the country,brings people home|passengers,heavy bags,rails|in the early morning
the cat|soft,proud,curious|sleeps on the sofa,watches the birds,walks on the wall|green eyes,quiet steps,sharp claws|in the warm sun
the dog|loyal,happy,brave|guards the house,runs in the park,waits at the door|long walks,old bones,muddy paws|every evening
coffee|hot,dark,strong|wakes the tired,warms the hands,starts the day|white cups,small tables,friendly talks|in the morning
bread|fresh,simple,warm|feeds the family,leaves the oven,smells of home|flour,butter,early bakers|at breakfast
music|sweet,powerful,old|fills the room,moves the heart,brings people together|violins,songs,dancers|at the concert
the star|bright,lonely,far|shines over the desert,guides the sailors,burns in the dark|old maps,wishes,quiet nights|in December
"""

# Templates by style; S the topic, B the same without its article, A its adjectives, V what it
# does, N what belongs to it, P when or where; with t, telegraphic, without articles. A digit picks
# the first or second draw.
_SENTENCES = {
    "plain": (
        "{S} is {A1} and {A2}.",
        "{P}, {s} {V1}.",
        "Many people like {s} because it is {A1}.",
        "When we think of {s}, we think of {N1} and {N2}.",
        "{S} {V1}.",
        "It {V1} and it {V2}.",
        "You can often see {N1} there.",
    ),
    "formal": (
        "It should be noted that {s} {V1}.",
        "{S} is generally regarded as {A1} and {A2}.",
        "{S} is frequently associated with {N1} and {N2}.",
        "Furthermore, {s} {V1} {p}.",
        "In conclusion, {s} remains {A1} and deserves our attention.",
        "Moreover, the presence of {N1} is of considerable interest.",
        "One may therefore consider {s} to be {A1}.",
    ),
    "poetic": (
        "O {A1} {b}, you are {A2} as a dream,",
        "softly {s} {V1},",
        "{p}, where {N1} whisper,",
        "and {N1} dance with {N2}.",
        "Listen, {s} {V1},",
        "{A1} and {A2}, like a song of {N1},",
        "and my heart grows {A1}.",
    ),
    "telegraphic": (
        "{B}: {A1}, {A2}.",
        "Seen: {N1}, {N2}.",
        "{Vt1}.",
        "Never without {N1}.",
        "{Pt}: {vt2}.",
        "Worth noting: {vt1}, {vt2}.",
        "Always {A1}.",
    ),
}
_SYSTEMS = ("Write in a {} style.", "Answer in a {} style.", "Style: {}.")
_COUNTS = {2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Topic:
    """What there is to say about a subject."""

    subject: str
    adjectives: tuple[str, ...]
    actions: tuple[str, ...]
    things: tuple[str, ...]
    when: str


@dataclass(frozen=True)
class Text:
    """A request for a text, one good answer, and the key by which splits are made."""

    user: str
    answer: str
    key: str
    system: str = ""


def _topics() -> tuple[Topic, ...]:
    rows = [line.split("|") for line in _TOPICS.strip().splitlines()]
    return tuple(
        Topic(r[0], tuple(r[1].split(",")), tuple(r[2].split(",")), tuple(r[3].split(",")), r[4])
        for r in rows
    )


TOPICS = _topics()


def _fill(
    template: str, topic: Topic, adjectives: list[str], actions: list[str], things: list[str]
) -> str:
    return template.format(
        S=sentence_case(topic.subject),
        s=topic.subject,
        b=topic.subject.removeprefix("the "),
        P=sentence_case(topic.when),
        p=topic.when,
        A1=adjectives[0],
        A2=adjectives[1],
        V1=actions[0],
        V2=actions[1],
        B=sentence_case(topic.subject.removeprefix("the ")),
        Pt=sentence_case(_terse(topic.when)),
        Vt1=sentence_case(_terse(actions[0])),
        vt1=_terse(actions[0]),
        vt2=_terse(actions[1]),
        N1=things[0],
        N2=things[1],
    )


def _terse(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word not in ("the", "a", "an"))


@cache
def all_sentences(topic: Topic, style: str) -> frozenset[str]:
    """Every sentence (poetic: line) that the grammar allows about `topic` in `style`."""
    found = set()
    for template in _SENTENCES[style]:
        for a in _pairs(topic.adjectives):
            for v in _pairs(topic.actions):
                for n in _pairs(topic.things):
                    found.add(_fill(template, topic, a, v, n))
    return frozenset(found | {sentence_case(line) for line in found})


def _pairs(items: tuple[str, ...]) -> list[list[str]]:
    return [[x, y] for x in items for y in items if x != y]


def compose(rng: random.Random, topic: Topic, style: str, count: int) -> str:
    """`count` sentences in a random order; a poem has a line for each and ends in a full stop."""
    templates = rng.sample(_SENTENCES[style], count)
    lines = [
        _fill(t, topic, rng.sample(topic.adjectives, 2), rng.sample(topic.actions, 2),
              rng.sample(topic.things, 2))
        for t in sorted(templates, key=_SENTENCES[style].index)
    ]  # fmt: skip
    if style != "poetic":
        return " ".join(lines)
    lines = [sentence_case(line) for line in lines]
    lines[-1] = lines[-1].rstrip(",.") + "."
    return "\n".join(lines)


def is_well_formed(answer: str, topic: Topic, style: str, count: int) -> bool:
    """Whether `answer` is `count` different sentences of the grammar for `topic` and `style`."""
    allowed = {line.rstrip(",.") for line in all_sentences(topic, style)}
    lines = answer.split("\n") if style == "poetic" else answer.split(". ")
    stripped = [line.strip().rstrip(",.") for line in lines]
    return len(set(stripped)) == len(stripped) == count and set(stripped) <= allowed


def recognised(text: str) -> tuple[Topic, str, int] | None:
    """Topic, style and number of sentences of an essay of the grammar; None for other text."""
    for style in STYLES:
        count = text.count("\n") + 1 if style == "poetic" else text.count(". ") + 1
        for topic in TOPICS:
            if is_well_formed(text, topic, style, count):
                return topic, style, count
    return None


def essay(rng: random.Random) -> tuple[Text, Topic, str, int]:
    """A request to write about a topic in a style, with what is needed to judge the answer."""
    topic, style = rng.choice(TOPICS), rng.choice(STYLES)
    count = rng.choice((2, 3, 3, 3, 3, 4))
    s = topic.subject
    forms = [f"Write {_COUNTS[count]} sentences about {s} in a {style} style."]
    if count == 3:
        forms += [
            f"Write a few sentences about {s} in a {style} style.",
            f"Write a few {style} sentences about {s}.",
            f"Describe {s} in a {style} style.",
            f"Write about {s}. Style: {style}.",
        ]
        forms += {
            "plain": [f"Write a few sentences about {s}.", f"Tell me about {s}."],
            "formal": [f"Write a formal text about {s}."],
            "poetic": [f"Write a short poem about {s}.", f"Write a poem about {s}."],
            "telegraphic": [f"Write a telegram about {s}."],
        }[style]
    system = ""
    if count == 3 and rng.random() < 0.25:
        forms = [f"Tell me about {s}.", f"Write about {s}.", f"Write a few sentences about {s}."]
        system = rng.choice(_SYSTEMS).format(style)
    text = Text(rng.choice(forms), compose(rng, topic, style, count), f"{s} {style}", system)
    return text, topic, style, count


# casual verb phrase | formal verb phrase
_ACTS = (
    ("send me", "send us"),
    ("show me", "present to us"),
    ("give me", "provide us with"),
    ("get me", "obtain for us"),
    ("check", "examine"),
    ("fix", "repair"),
    ("buy", "purchase"),
    ("keep", "retain"),
    ("tell me about", "inform us about"),
    ("ask for", "request"),
    ("start", "commence"),
    ("end", "terminate"),
)
_THINGS = (
    *("the report", "the letter", "the contract", "the invoice", "the new plan", "the tickets"),
    *("the old car", "the project", "the machine", "the list", "the documents", "the order"),
    *("the map", "the repair", "the programme", "the lamps", "the second key", "the work"),
)
_WHEN = (
    *("today", "tomorrow", "by Monday", "by Friday", "this week", "next week", "before noon"),
    *("before the meeting", "on Tuesday", "by the end of the month"),
)


def rewrite(rng: random.Random) -> Text:
    """A casual request made formal or telegraphic, or a formal one made plain."""
    (casual, formal), thing, when = rng.choice(_ACTS), rng.choice(_THINGS), rng.choice(_WHEN)
    low = rng.choice(("Can you {0} {1} {2}?", "Hey, {0} {1} {2}.", "{0} {1} {2}, okay?"))
    casual_text = sentence_case(low.format(casual, thing, when))
    formal_text = f"We would be grateful if you could {formal} {thing} {when}."
    key = f"{casual} {thing} {when}"
    draw = rng.random()
    if draw < 0.3:
        telegram = rng.choice(("Make this a telegram: {0}", "Rewrite in a telegraphic style: {0}"))
        terse = sentence_case(f"{_terse(casual)} {_terse(thing)} {_terse(when)}.")
        return Text(telegram.format(casual_text), terse, key)
    if draw < 0.7:
        forms = (
            "Rewrite in a formal style: {0}",
            "Make this formal: {0}",
            "Say this formally: {0}",
        )
        return Text(rng.choice(forms).format(casual_text), formal_text, key)
    forms = (
        "Rewrite in a plain style: {0}",
        "Make this plain: {0}",
        "Say this in plain words: {0}",
    )
    return Text(rng.choice(forms).format(formal_text), f"Please {casual} {thing} {when}.", key)
