"""Story worlds: short English stories whose facts are asked later, so that recall can be measured.

A story is a row of sentences. Some state a fact (who has the kite, what colour it is, where the lantern is, where
someone lives, how many, a three-digit code, why, on which day), the others are weather, talk, time and bustle that
mention people, places, colours and numbers without stating anything that is asked. A question follows later:

    ... Question: Who has the kite? Answer: Mia. ...

Each question knows the characters of the fact's sentence, of the answer inside it, and of the answer after the
question; through a tokenizer's offsets these become tokens and a distance. Every thing, person or place is asked
about only once per kind and stated only once, so the fact is the one source of the answer.

Split "test" uses names, towns, fact sentences and combinations of thing with colour or place that "train" never does.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

KINDS = ("who", "color", "where", "home", "count", "code", "cause", "day")
SPLITS = ("train", "test")
MAX_FACTS = 16  # more would use up the towns of the test split

NAMES = {
    "train": """Mia Otto Lena Paul Clara Hugo Nora Felix Ada Jonas Ruth Oscar Emma Karl Ella Simon Vera Ivan Rosa Leo
        Ida Max Tara Finn Maya Eric Lucy Adam Jane Mark Kate Fred Alma Carl Dora Hans Edith Frank Grace Henry Irene
        Jack Kim Louis Molly Nick Olive Peter Queenie Ralph Sarah Toby Uma Victor Wendy Xavier Yara Zoe Amir Bella
        Cyrus Daisy Elias Fiona Gina Harold Ines Jasper Kira Liam Mona Nadia Omar Pia Quentin Rita Sven Tess Ugo Viola
        Walter Yusuf Zelda Arthur Betty Cora Dennis Esther Flora Gustav Hilda Igor Judith Kevin Lotte Martin Nina
        Abigail Alice Amos Angela Barbara Basil Beatrice Bernard Brenda Caleb Carmen Cecil Charlotte Chester Claude
        Colin Cordelia Curtis Cynthia Daphne Deborah Derek Diana Dominic Donald Doris Dorothy Douglas Duncan Edmund
        Edwin Eleanor Elliot Enid Ernest Eugene Evelyn Florence Francis Gareth Gemma George Gerald Gloria Gordon Graham
        Harriet Hazel Hector Heidi Herbert Horace Howard Imogen Iris Isabel Jacob James Janet Jason Jeremy Jerome Jill
        Josephine Julian Juliet Kenneth Kirsten Laura Lavinia Leonard Lionel Lorna Louise Luke Mabel Magnus Marcus
        Margaret Marian Matilda Maurice Melanie Mildred Miranda Muriel Neil Nigel Norman Octavia Opal Patrick Pauline
        Pearl Penelope Phoebe Phyllis Quincy Rachel Ramon Raymond Rebecca Reginald Rhoda Roderick Roland Ronald Rosalind
        Rufus Rupert Samuel Sandra Sebastian Shirley Sibyl Silas Sophia Stanley Stephen Susan Sylvia Tabitha Terence
        Tilda Timothy Tobias Tristan Umberto Valentine Vanessa Vernon Veronica Vivian Wallace Warren Wendell Wilfred
        Winifred Yorick Yvette Zachary
        Oliver Polly Robert Stella Thomas Ulla Vincent Wilma Anton Bruno Celia David Elsa Greta Helen Isaac Joan""",
    "test": """Ben Agnes Boris Cleo Dan Eva Gabriel Hannah Joel Kasper Lydia Milo Naomi Orson Petra Roman Selma Theo
        Ursula Vito Willa Yvonne Zeno Abel Birgit Conrad Dinah Edgar Fern Gilbert""",
}
TOWNS = {
    "train": """Norwick Ashford Milbury Eastham Dunfield Kelby Redcliff Stonely Harwood Oakley Winslow Farley Brindle
        Colby Denham Elmstead Foxton Glenmore Hadley Ironbridge Kingsley Langford Marlow Newbury Penrose Quinton
        Ripley Saltash Thornby Upton Westport Yarrow""",
    "test": "Amberton Briarly Copley Dovecot Elverton Fenwick Gorsley Hexby Larkhill Mossgate",
}
# Made-up names keep a model from learning the list by heart instead of copying what the story says. They follow the
# letters of the names above (`invented`).
TOWN_ENDS = "ton by ham ley wick field ford bury stead mouth hill gate worth brook port dale".split()

THINGS = """kite lantern ball drum hat basket book clock coat cup doll flute key map ring rope scarf shovel spoon sword
    umbrella violin wagon whistle bell blanket boot bottle box broom bucket candle chair coin comb crown feather flag
    glove hammer jar jug kettle knife ladder letter mirror mug needle net pan pencil pillow pipe plate puppet purse
    saddle shell sledge stick stool telescope ticket torch towel trumpet vase watch wheel""".split()
COLORS = """red blue green yellow white black brown pink purple golden silver grey scarlet violet turquoise cream
    crimson bronze""".split()
PLACES = """barn kitchen garden cellar tower mill harbour school church library stable attic bakery forest cave castle
    market station theatre museum boathouse cabin chapel courtyard dairy forge hall hotel inn lighthouse meadow
    orchard palace park pantry prison shed shop studio temple tunnel vineyard warehouse workshop""".split()
COUNTED = """pears ships geese apples stars bees coins sheep windows bridges cats cherries clouds ducks eggs flowers
    frogs goats horses leaves lemons mice nuts owls pigs plums rabbits roses sparrows stones swans tents trees
    turnips wolves boats carts doors""".split()
NUMBERS = """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen twenty thirty forty fifty""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FEELINGS = (("laughed", "laugh"), ("cried", "cry"), ("smiled", "smile"), ("shouted", "shout"), ("ran away", "run away"))
FEELINGS += (("woke up", "wake up"), ("stopped", "stop"), ("blushed", "blush"), ("jumped", "jump"), ("sang", "sing"))
ACTORS = "goat baker dog king parrot teacher wind baby train soldier cook donkey mayor storm cow ghost monkey".split()
DEEDS = "sneezed danced fell came vanished whistled snored roared slipped fainted waved grinned arrived left".split()

# Sentences that state a fact. Slots in braces; {other} is a person about whom the sentence states nothing.
FACTS = {
    "own": {
        "train": (
            "{who} has a {color} {thing}.",
            "{who} has a {thing}, and it is {color}.",
            "The {color} {thing} belongs to {who}.",
            "{who} bought a {color} {thing} at the market.",
            "{who} found a {color} {thing} in the grass and kept it.",
            '"This {color} {thing} is mine," said {who}.',
            "The owner of the {color} {thing} is {who}.",
            "For years {who} had wanted a {thing}, and now there was a {color} one.",
            '"Look," said {other}, "that {color} {thing} belongs to {who}."',
            "{who} carries a {color} {thing} everywhere.",
            "Everybody knows the {color} {thing} of {who}.",
            "{who} got a {color} {thing} for a birthday.",
            "There is a {color} {thing} that only {who} may touch.",
            "{other} sold a {color} {thing} to {who}.",
            "{other} made a {color} {thing} for {who}.",
            "The {thing} is {color}, and {who} owns it.",
            "A {thing} of {color} wood stands in the room of {who}.",
            '"Is that {color} {thing} yours?" asked {other}, and {who} nodded.',
            "{who} is proud of a {color} {thing}.",
            "{who} keeps a {thing}, and it is {color}.",
            "Yesterday {who} won a {color} {thing}.",
            "{other} gave {who} a {color} {thing}.",
            "A {color} {thing} lies in the bag of {who}.",
            "The {color} {thing} was sold to {who}.",
            '"I love my {color} {thing}," said {who}.',
            "Without a {color} {thing}, {who} never leaves the house.",
            "{who} had forgotten the {color} {thing} at home.",
            "{other} borrowed the {color} {thing} of {who}.",
            "What a {color} {thing} {who} has!",
            "{who} looked after a {color} {thing}.",
            '"Whose {color} {thing} is this?" asked {other}. It was the one of {who}.',
            "A {color} {thing} is all that {who} has.",
            "It is {who} who has the {color} {thing}.",
        ),
        "test": (
            "{who} now owns a {color} {thing}.",
            "A {color} {thing} was given to {who}.",
            '"Do you like my {color} {thing}?" asked {who}.',
        ),
    },
    "where": {
        "train": (
            "The {thing} is in the {place}.",
            "{other} put the {thing} in the {place}.",
            "Someone left the {thing} in the {place}.",
            "After supper {other} carried the {thing} to the {place}.",
            "In the {place} there is a {thing}.",
            '"I saw the {thing} in the {place}," said {other}.',
            "Because of the rain, the {thing} was brought to the {place}.",
            "{other} found the {thing} in the {place}.",
            "The {thing} stands in the {place}.",
            "You can find the {thing} in the {place}.",
            "Nobody looked in the {place}, where the {thing} was.",
            '"Where is it?" "The {thing}? In the {place}," said {other}.',
            "The {thing} has been in the {place} for years.",
            "{other} took the {thing} and went to the {place} to leave it there.",
            "In a corner of the {place} {other} saw the {thing}.",
            "The {place} is where they keep the {thing}.",
            "Behind the door of the {place} hung the {thing}.",
            "Every night the {thing} is kept in the {place}.",
            "The {thing} was forgotten in the {place}.",
            "{other} dropped the {thing} in the {place}.",
            "Go to the {place} and you will see the {thing}.",
            '"Bring me the {thing} from the {place}," said {other}.',
            "The {thing} had fallen behind a box in the {place}.",
        ),
        "test": (
            "{other} hid the {thing} in the {place}.",
            "The {thing} was lying in the {place}.",
        ),
    },
    "home": {
        "train": (
            "{who} lives in {town}.",
            "{who} comes from {town}.",
            "The house of {who} stands in {town}.",
            '"My home is {town}," said {who}.',
            "{who} moved to {town} when the war was over.",
            "{town} is the home of {who}.",
            "{who} was born in {town} and never left.",
            "{who} has a room in {town}.",
            "Every evening {who} takes the train back to {town}.",
            "In {town} everybody knows {who}.",
            '"I live in {town}," {who} told {other}.',
            "{who} and a cat share a flat in {town}.",
            "{other} wrote a letter to {who} in {town}.",
            "{who}, who lives in {town}, was there too.",
            "They call {who} the baker of {town}.",
            "{who} grew up in {town}.",
            "{who} bought a house in {town}.",
            "The family of {who} is from {town}.",
            '"Come and see me in {town}," said {who}.',
            "{town} is where {who} sleeps at night.",
            "{who} feels at home only in {town}.",
        ),
        "test": ("In {town} lives {who}.", "{who} has a little house in {town}."),
    },
    "count": {
        "train": (
            "{who} counted {number} {counted}.",
            "There were {number} {counted} on the hill.",
            "They saw {number} {counted} that morning.",
            '"I can see {number} {counted}," said {who}.',
            "{who} drew {number} {counted} on the wall.",
            "{who} found {number} {counted} in a box.",
            "{number} {counted} were waiting outside.",
            "Behind the house {who} saw {number} {counted}.",
            "The farmer had {number} {counted}.",
            "{who} bought {number} {counted}.",
            "In the picture there are {number} {counted}.",
            "Suddenly {number} {counted} came down the road.",
            "{who} wished for {number} {counted} and got them.",
            '"Only {number} {counted} are left," said {who}.',
            "There are {number} {counted} in the garden.",
            "{who} painted {number} {counted}.",
            "{number} {counted} stood in a row.",
            '"Why are there {number} {counted}?" asked {who}.',
            "Of all the {counted} only {number} came back.",
            "{who} was followed by {number} {counted}.",
        ),
        "test": ("{who} dreamed of {number} {counted}.", "Far away there were {number} {counted}."),
    },
    "code": {
        "train": (
            "The code of the {place} is {code}.",
            "The {place} opens with the code {code}.",
            '"The code of the {place} is {code}," whispered {other}.',
            "{other} wrote down {code}, the code of the {place}.",
            "Without the code {code} nobody could enter the {place}.",
            "{code} is the code of the {place}.",
            "For the {place} you need the code {code}.",
            "{other} remembered the code of the {place}: {code}.",
            "They changed the code of the {place} to {code}.",
            '"Type {code}," said {other}, "and the {place} will open."',
            "On the door of the {place} somebody had written {code}.",
            "The number {code} opens the {place}.",
            "{other} whispered {code} at the gate of the {place}.",
            "The lock of the {place} has the code {code}.",
            '"{code}," said {other}, "is what opens the {place}."',
            "The guard of the {place} asks for the code {code}.",
            "Somebody told {other} that the {place} has the code {code}.",
            "The {place} can be opened with {code}.",
        ),
        "test": ("Only {other} knew that the code of the {place} was {code}.", "To open the {place}, type {code}."),
    },
    "cause": {
        "train": (
            "{who} {felt} because {cause}.",
            "Because {cause}, {who} {felt}.",
            "When {cause}, {who} {felt}.",
            "All at once {cause}, and so {who} {felt}.",
            "First {cause}, so {who} {felt}.",
            "{who} {felt} when {cause}.",
            "It was because {cause} that {who} {felt}.",
            "{who} {felt}, and the reason was that {cause}.",
            '"Look!" said {other}. Just then {cause}, and {who} {felt}.',
            "{who} {felt} after {cause}.",
            "As {cause}, {who} {felt}.",
            "{who} {felt} only because {cause}.",
            "Just as {cause}, {who} {felt}.",
            "That is why {who} {felt}: {cause}.",
            "Then {cause}. That was too much for {who}, who {felt}.",
        ),
        "test": ("{who} {felt}, for {cause}.", "Since {cause}, {who} {felt}."),
    },
    "day": {
        "train": (
            "On {day} {who} visited the {place}.",
            "{who} visited the {place} on {day}.",
            "It was {day} when {who} visited the {place}.",
            '"I will visit the {place} on {day}," said {who}.',
            "On {day} {who} went to the {place}.",
            "{who} was at the {place} on {day}.",
            "That {day} {who} walked to the {place}.",
            "{who} waited for {day} to see the {place}.",
            "Last {day} {who} came to the {place}.",
            "The visit of {who} to the {place} was on {day}.",
            '"On {day}," said {who}, "I was at the {place}."',
            "{who} spent {day} at the {place}.",
            "The {place} was full when {who} came on {day}.",
            "{day} was the day of the {place} for {who}.",
            "At last, on {day}, {who} saw the {place}.",
        ),
        "test": ("One {day} {who} visited the {place}.", "The {place} was open on {day}, so {who} went in."),
    },
}
# kind of question: (group of facts, slot that answers, wordings)
QUESTIONS = {
    "who": ("own", "who", ("Who has the {thing}?", "Whose is the {thing}?")),
    "color": ("own", "color", ("What colour is the {thing}?", "Which colour has the {thing}?")),
    "where": ("where", "place", ("Where is the {thing}?", "In which place is the {thing}?")),
    "home": ("home", "town", ("Where does {who} live?", "In which town does {who} live?")),
    "count": ("count", "number", ("How many {counted} were there?", "What was the number of {counted}?")),
    "code": ("code", "code", ("What is the code of the {place}?", "Which code opens the {place}?")),
    "cause": ("cause", "cause", ("Why did {who} {feel}?", "What made {who} {feel}?")),
    "day": ("day", "day", ("On which day did {who} visit the {place}?", "When did {who} visit the {place}?")),
}
GROUPS = tuple(FACTS)
KINDS_OF = {group: tuple(kind for kind in KINDS if QUESTIONS[kind][0] == group) for group in GROUPS}

OPENERS = (
    "Once upon a time there was a small village by the sea.",
    "It was a quiet evening in the old town.",
    "This is a story from long ago.",
    "One morning the sun came up over the hills.",
    "Here is what happened last year.",
    "The winter had been long and cold.",
    "Listen to this tale of friends.",
)
FILLERS = (
    "The {actor} slept under a tree.",
    "It rained for {number} hours.",
    "At {number} o'clock the bells rang.",
    "The sky was {color} and the wind was cold.",
    "{other} looked out of the window and said nothing.",
    '"What a lovely day," said {other}.',
    '"Are you hungry?" asked {other}. "Not yet," said {other2}.',
    "{other} and {other2} walked along the river for a while.",
    "Nobody knew what would happen next.",
    "Later the {actor} and the {actor2} sat by the fire.",
    "{other} told {other2} a long story about a {color} dragon.",
    "The road to the village was full of mud, so they walked slowly.",
    "Then everybody ate bread and soup.",
    "The {actor} had no idea why the {actor2} was so angry.",
    "Some said that winter would come early.",
    "{other} yawned, because it was late.",
    "An old {actor} told them not to worry.",
    "The children played in the snow until the evening.",
    '"We should go home soon," said {other}, "before it gets dark."',
    "{other} was tired but happy.",
    "After {number} minutes the {actor} was gone.",
    "They drank tea from {color} glasses.",
    "{other} asked {other2} for help, and {other2} said yes.",
    "A {color} bird flew over the roof.",
    "In the evening there was music, and {other} danced with {other2}.",
    "If it had not been for the {actor}, they would have been lost.",
    "The moon was bright that night.",
    "{other} thought about the summer and sighed.",
    "Nothing much happened for the next {number} days.",
    "Everyone in the street heard the {actor}.",
)


@dataclass(frozen=True)
class Question:
    """A question and where its answer comes from. Spans are (start, end) in characters of the story's text."""

    kind: str
    text: str
    answer: str
    span: tuple[int, int]  # "Question: ... ?"
    answer_span: tuple[int, int]  # the answer after "Answer: "
    fact_span: tuple[int, int]  # the sentence that states the fact
    source_span: tuple[int, int]  # the answer inside that sentence
    candidates: tuple[str, ...]  # all answers of this kind that the story states: a guess among them is chance

    @property
    def distance(self) -> int:
        """Characters from the end of the answer inside the fact to the answer after the question."""
        return self.answer_span[0] - self.source_span[1]

    def token_distance(self, offsets: Sequence[tuple[int, int]]) -> int:
        """Tokens from the last one of the answer inside the fact to the first one of the answer that is asked for."""
        return token_span(offsets, self.answer_span)[0] - (token_span(offsets, self.source_span)[1] - 1)


@dataclass(frozen=True)
class Story:
    """A text and the questions inside it, in the order of the text."""

    text: str
    questions: tuple[Question, ...]

    def prompt(self, question: Question) -> str:
        """The text up to and with "Answer:", which the answer must follow."""
        return self.text[: question.answer_span[0] - 1]


def token_span(offsets: Sequence[tuple[int, int]], span: tuple[int, int]) -> tuple[int, int]:
    """The tokens (first, last + 1) that overlap a span of characters; offsets: (n, 2), a tokenizer's character offsets.

    A byte-level tokenizer's token may begin with the blank before the word: it overlaps, so it counts.
    """
    inside = [i for i, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]
    return inside[0], inside[-1] + 1


def held_out(first: str, second: str) -> bool:
    """Whether a combination of two words is kept for testing: about one in five, by checksum."""
    return zlib.crc32(f"{first} {second}".encode()) % 5 == 0


def invented(rng: random.Random, split: str) -> str:
    """A made-up name of four to nine letters; a checksum decides to which split it belongs.

    Each letter follows the two before it as in the first names of "train", or now and then one of them."""
    chain = _letters()
    while True:
        name = "  "
        while not name.endswith("."):
            after = chain[name[-2:]] if rng.random() < 0.85 else chain[name[-1]]
            name += rng.choice(after)
        name = name.strip(" .").capitalize()
        fits = 4 <= len(name) <= 9 and held_out("name", name) == (split == "test")
        if fits and name not in _known_names():
            return name


@cache
def _letters() -> dict[str, str]:
    """One or two letters -> all letters that follow them in the first names of "train", "." at the end."""
    follows: dict[str, str] = {}
    for name in _words(NAMES["train"]):
        spelled = f"  {name.lower()}."
        for i in range(2, len(spelled)):
            for context in (spelled[i - 2 : i], spelled[i - 1]):
                follows[context] = follows.get(context, "") + spelled[i]
    return follows


def story(
    seed: int, split: str = "train", chars: int = 600, facts: int = 6, ask: str = "end", kinds: int | None = None
) -> Story:
    """A story of about `chars` characters with `facts` facts, each of them asked about once.

    ask="end": all questions at the end. ask="along": each at some place between its fact and the end.
    kinds: of how many kinds the facts are; None: all kinds, or two or three. Few kinds mean that the facts must be
    told apart, since knowing what sort of word answers no longer helps.
    """
    _check(split, facts)
    rng = random.Random(f"{split} story {seed}")
    world = _World(rng, split)
    stated = [world.fact(group) for group in _mix(rng, facts, kinds)]
    body: list[_Fact | str] = list(stated)
    while sum(len(part if isinstance(part, str) else part.text) + 1 for part in body) < chars - 55 * facts:
        body.append(world.filler())
    rng.shuffle(body)
    asked = [(fact, rng.choice(KINDS_OF[fact.group])) for fact in stated]
    rng.shuffle(asked)
    parts: list[_Fact | tuple[_Fact, str] | str] = [rng.choice(OPENERS), *body]
    for fact, kind in asked:
        at = len(parts) if ask == "end" else rng.randint(parts.index(fact) + 1, len(parts))
        parts.insert(at, (fact, kind))
    return _assemble(rng, parts, stated)


def recall_case(seed: int, kind: str, split: str = "test", distance: int = 400, facts: int = 6) -> Story:
    """A story with one question, at its end, about a fact stated about `distance` characters before the answer.

    `facts` facts in all, at least two of the asked kind, so that knowing the kind of answer is not enough; those
    after the asked one count towards the distance as far as they fit.
    """
    _check(split, facts)
    rng = random.Random(f"{split} recall {kind} {seed}")
    world = _World(rng, split)
    group = QUESTIONS[kind][0]
    stated = [world.fact(g) for g in (group, group, *_mix(rng, max(0, facts - 2)))]
    asked, *others = stated
    rng.shuffle(others)
    room = distance - 60
    before: list[_Fact | str] = []
    after: list[_Fact | str] = []
    for fact in others:
        if len(fact.text) + 1 <= room and rng.random() < 0.6:
            after.append(fact)
            room -= len(fact.text) + 1
        else:
            before.append(fact)
    while room > 45:
        after.append(world.filler())
        room -= len(after[-1]) + 1
    before += [world.filler() for _ in range(rng.randint(0, 2))]
    rng.shuffle(before)
    rng.shuffle(after)
    return _assemble(rng, [rng.choice(OPENERS), *before, asked, *after, (asked, kind)], stated)


@dataclass(frozen=True, eq=False)
class _Fact:
    group: str
    text: str
    slots: dict[str, str]
    spans: dict[str, tuple[int, int]]  # slot: characters inside text


class _World:
    """Draws people, things and places so that no two facts of a story are about the same one."""

    def __init__(self, rng: random.Random, split: str):
        self.rng, self.split = rng, split
        real = rng.random() < 0.2
        if split == "test" or real:
            self.people = rng.sample(_words(NAMES[split]), 12)
            self.towns = rng.sample(_words(TOWNS[split]), 8)
        else:
            self.people = list({invented(rng, split): 0 for _ in range(16)})
            self.towns = list({invented(rng, split) + rng.choice(TOWN_ENDS): 0 for _ in range(12)})
        self.bystanders = [self.people.pop() for _ in range(2)]
        self.things = rng.sample(THINGS, 24)
        self.counted = rng.sample(COUNTED, 20)
        self.doors = rng.sample(PLACES, 20)
        # an answer appears once, so that the place where it is stated is the only one
        self.used: set[str] = set()

    def fact(self, group: str) -> _Fact:
        rng, slots = self.rng, {"other": self.rng.choice(self.bystanders)}
        if group in ("own", "home", "cause", "day"):
            slots["who"] = self.people.pop() if self.people else invented(rng, self.split)
        elif group == "count":
            slots["who"] = rng.choice(self.bystanders)
        if group == "own":
            slots["thing"] = self.things.pop()
            slots["color"] = self._fresh(_allowed(slots["thing"], "color", self.split))
        elif group == "where":
            slots["thing"] = self.things.pop()
            slots["place"] = self._fresh(_allowed(slots["thing"], "place", self.split))
        elif group == "home":
            slots["town"] = self.towns.pop() if self.towns else invented(rng, self.split) + rng.choice(TOWN_ENDS)
        elif group == "count":
            slots["counted"], slots["number"] = self.counted.pop(), self._fresh(NUMBERS)
        elif group == "code":
            slots["place"], slots["code"] = self.doors.pop(), str(rng.randrange(100, 1000))
        elif group == "cause":
            slots["felt"], slots["feel"] = rng.choice(FEELINGS)
            slots["cause"] = f"the {rng.choice(ACTORS)} {rng.choice(DEEDS)}"
        else:
            slots["place"], slots["day"] = self.doors.pop(), self._fresh(DAYS)
        text, spans = _render(rng.choice(FACTS[group][self.split]), slots)
        return _Fact(group, text, slots, spans)

    def filler(self) -> str:
        rng = self.rng
        template = rng.choice(FILLERS)
        if "{" not in template:
            return template
        slots = {"other": self.bystanders[0], "other2": self.bystanders[1]}
        if rng.random() < 0.5:
            slots = {"other": self.bystanders[1], "other2": self.bystanders[0]}
        slots |= {"actor": rng.choice(ACTORS), "actor2": rng.choice(ACTORS)}
        slots |= {"color": rng.choice(COLORS), "number": rng.choice(NUMBERS)}
        return template.format_map(slots)

    def _fresh(self, words: Sequence[str]) -> str:
        left = [word for word in words if word not in self.used] or words
        word = self.rng.choice(left)
        self.used.add(word)
        return word


def _check(split: str, facts: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is one of {SPLITS}")
    if not 1 <= facts <= MAX_FACTS:
        raise ValueError(f"a story states 1 to {MAX_FACTS} facts")


def _mix(rng: random.Random, facts: int, kinds: int | None = None) -> list[str]:
    """Groups of facts of `kinds` kinds; None: half of the stories have all kinds, the others two or three."""
    if kinds is None:
        chosen = KINDS if rng.random() < 0.5 else rng.sample(KINDS, rng.choice((2, 3)))
    else:
        chosen = rng.sample(KINDS, kinds)
    repeats = max(3, -(-facts // len(chosen)))
    return [QUESTIONS[kind][0] for kind in rng.sample(list(chosen) * repeats, facts)]


def _assemble(rng: random.Random, parts: Sequence[_Fact | tuple[_Fact, str] | str], stated: Sequence[_Fact]) -> Story:
    text, at, questions, starts = [], 0, [], {}
    for part in parts:
        if isinstance(part, tuple):
            fact, kind = part
            _, slot, wordings = QUESTIONS[kind]
            asked = f"Question: {rng.choice(wordings).format_map(fact.slots)}"
            answer = fact.slots[slot]
            sentence = f"{asked} Answer: {answer}."
            first = starts[id(fact)]
            source = fact.spans[slot]
            reply = at + len(asked) + len(" Answer: ")
            questions.append(
                Question(
                    kind,
                    asked.removeprefix("Question: "),
                    answer,
                    (at, at + len(asked)),
                    (reply, reply + len(answer)),
                    (first, first + len(fact.text)),
                    (first + source[0], first + source[1]),
                    tuple(sorted({other.slots[slot] for other in stated if other.group == fact.group})),
                )
            )
        elif isinstance(part, _Fact):
            starts[id(part)] = at
            sentence = part.text
        else:
            sentence = part
        text.append(sentence)
        at += len(sentence) + 1
    return Story(" ".join(text), tuple(questions))


def _render(template: str, slots: dict[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    text, spans = "", {}
    for piece in _pieces(template):
        if piece[0] == "{":
            value = slots[piece[1:-1]]
            spans[piece[1:-1]] = (len(text), len(text) + len(value))
            text += value
        else:
            text += piece
    return text, spans


@cache
def _pieces(template: str) -> tuple[str, ...]:
    return tuple(piece for piece in re.split(r"(\{\w+\})", template) if piece)


@cache
def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@cache
def _known_names() -> frozenset[str]:
    return frozenset(name for split in SPLITS for name in _words(NAMES[split]))


@cache
def _allowed(thing: str, slot: str, split: str) -> tuple[str, ...]:
    words = COLORS if slot == "color" else PLACES
    return tuple(word for word in words if held_out(thing, word) == (split == "test"))
