"""Original stories for small children, written by a grammar: the text family's default corpus.

A story has a hero and a friend, an animal, a place and a thing, and goes from an opening through a
few episodes of narration and dialogue to an ending. A sentence starts as a pattern; its slots are
filled from `GRAMMAR`, whose entries may hold slots again:

    {S} {vp:past}.  ->  Mia {vp:past}.  ->  Mia gave {np} to {O}.  ->  Mia gave a lot of apples to the fox.

A verb phrase begins with its verb in the base form; `:past` and `:ing` inflect that first word. Entries
early in a list are drawn more often than late ones (weight 1 / (rank + 3)), so that frequencies fall off
as they do in natural text. The text is the project's own and depends on the seed alone.
"""

from __future__ import annotations

import random
import re
from itertools import accumulate

GRAMMAR: dict[str, list[str]] = {
    # People and animals
    "girl": "Mia Anna Lily Rosa Nora Ella Zoe Ruth Clara Ivy Hana Amira Greta Penny".split(),
    "boy": "Tom Ben Leo Max Sam Finn Oscar Hugo Jack Omar Kofi Theo Jonas Milo".split(),
    "animal": (
        "fox rabbit mouse bear owl duck frog hedgehog cat dog squirrel goat hen badger pony kitten goose otter "
        "beaver crow robin snail turtle puppy donkey pig cow wolf lion deer mole swan sparrow lamb"
    ).split(),
    "family": "mother father grandmother brother sister grandfather aunt uncle".split(),
    "size": "little small big old young tiny enormous thin fat tall".split(),
    "nature": "kind clever brave hungry friendly lazy gentle lonely quiet cheerful shy funny wise sleepy proud".split(),
    "glad": "happy glad proud excited thankful cheerful curious".split(),
    "low": "sad tired hungry worried lonely cold sleepy afraid thirsty angry".split(),
    "feeling": ["{low}", "{glad}", "very {glad}", "a little {low}", "not {low} any more", "too {low} to {vp}"],
    # Things and places
    "look": (
        "red blue shiny old green golden round yellow wooden soft silver broken white heavy pretty strange empty "
        "bright warm striped rusty purple crooked"
    ).split(),
    "noun": (
        "ball kite boat box basket book bell key lamp map coin hat scarf blanket drum flute wagon rope ladder bucket "
        "spoon cup kettle lantern mirror button feather shell stone umbrella letter picture doll ribbon nest shoe "
        "whistle cart pillow clock"
    ).split(),
    "nouns": (
        "apples berries flowers stones nuts books cookies shells pears stars leaves carrots feathers plums pancakes "
        "cherries toys beans coins eggs buttons grapes candles muffins"
    ).split(),
    "food": (
        "bread soup cake honey cheese milk porridge pie jam tea pudding butter toast stew lemonade fruit salad rice"
    ).split(),
    "place": (
        "forest river garden village lake meadow barn market school mill cave pond field harbor orchard castle tower "
        "bakery library station park stable workshop kitchen"
    ).split(),
    "np": [
        "the {noun}", "{her} {noun}", "a {look} {noun}", "the {look} {noun}", "{her} {look} {noun}", "the {thing}",
        "some {nouns}", "a lot of {nouns}", "one of the {nouns}", "the {nouns}", "a piece of {food}", "{her} {nouns}",
        "a basket full of {nouns}", "a bowl of {food}", "all of the {nouns}", "two {nouns}", "three {look} {nouns}",
        "the {nouns} from the {place}", "a little bit of {food}", "a pair of {look} shoes", "the rest of the {food}",
        "the {noun} of the {animal}", "a cup of tea", "many {nouns}", "the {look} {noun} with the {noun}",
    ],
    "meal": [
        "some {food}", "a bowl of {food}", "a piece of {food}", "all of the {food}", "a little bit of {food}",
        "the rest of the {food}", "a lot of {food}", "{food} and {food}",
    ],
    "where": [
        "in the {place}", "by the {place}", "near the {place}", "in front of the {place}", "at the {place}",
        "under a tree", "behind the {place}", "on the other side of the {place}", "at the end of the road",
        "next to the {place}", "in the middle of the {place}", "on top of the hill", "at the edge of the forest",
        "on the way to the {place}", "under the {noun}", "inside the {noun}", "not far from the {place}",
        "in the tall grass", "between two stones", "at the bottom of the garden",
    ],
    "whither": [
        "to the {place}", "into the {place}", "home", "up the hill", "down the road", "through the {place}",
        "back to the {place}", "across the bridge", "out of the {place}", "along the river", "over the fields",
        "past the {place}", "around the {place}", "toward the mountains", "up the stairs", "as far as the {place}",
    ],
    "home": [
        "in a little house near the {place}", "in a hollow tree", "at the edge of the forest", "by the {place}",
        "on a small farm", "at the end of a long road", "in a village by the sea", "under the roots of an old oak",
        "on the other side of the hill", "in a house with a {look} roof", "at the foot of the mountain",
    ],
    # Verb phrases, base form first
    "vp": [
        "{go} {whither}", "{see} {np}", "{take} {np}", "look for {np}", "{rest} {where}", "{see} {np} {where}",
        "give {np} to {O}", "give {O} {np}", "{go} {whither} with {O}", "{play} {where}", "eat {meal}",
        "{play} with {O}", "put {np} {where}", "{take} {np} {how}", "look at {np}", "{go} {how} {whither}", "help {O}",
        "pick up {np}", "talk to {O}", "take care of {np}", "{rest} {long}", "wait for {O}", "tell {O} a story",
        "sing a song", "listen to {O}", "think of {np}", "try to {vp}", "help {O} to {O_vp}", "come home",
        "{play} {long}", "say good night to {O}", "make {np}", "laugh at {O}", "ask {O} for {np}",
        "build a house {where}", "go to sleep", "run away from {O}", "have a good time with {O}", "let go of {np}",
        "show {np} to {O}", "fall down", "learn how to {vp}", "get up", "look after {O}", "count the stars",
        "trade {np} for {np}",
    ],
    "go": "go walk run hurry skip creep wander march race tiptoe hop stroll".split(),
    "see": "see find notice remember miss".split(),
    "take": "take carry open hold bring wash mend paint lose clean hide drop fill lift push throw".split(),
    "rest": "sit wait sleep stay rest stand hide dream".split(),
    "play": "play dance sing dig swim laugh work".split(),
    # How, when, why
    "how": "slowly quickly quietly carefully softly happily gently bravely patiently politely".split(),
    "long": [
        "for a long time", "all day long", "for a little while", "all night", "for three days", "again and again",
        "from morning to night", "for more than an hour", "until the sun went down",
    ],
    "when": [
        "One day", "Then", "The next morning", "After a while", "In the afternoon", "Later that day", "At last",
        "One summer day", "All of a sudden", "Just then", "A little later", "On the way home", "Early in the morning",
        "At that very moment", "The next day", "Before long", "Once again", "That night", "Little by little",
    ],
    "weather": [
        "the sun was shining", "it was raining", "the wind was blowing", "it began to snow", "the sky was gray",
        "it was a warm day", "it was very cold", "it got dark", "the moon was bright", "there was a lot of snow",
        "it was early in the morning", "there was fog over the fields",
    ],
    "sound": "a loud crash|a soft knock|a small voice|a funny noise|a splash|a whistle|a song|a deep growl".split("|"),
    "why": [
        "{he} was {feeling}", "{weather}", "{O} was {feeling}", "{O} did not want to {O_vp}", "{he} had lost {np}",
        "there were so many {nouns}", "{he} liked {O} very much", "nobody wanted to {vp}", "the {noun} was {look}",
    ],
    # What is said
    "statement": [
        "I want to {vp}", "let us {vp}", "I am {feeling}", "we have to {vp}", "I will {vp}", "please {vp}",
        "do not {vp}", "you are very {nature}", "there is a {look} {noun} {where}",
        "I have never seen such a {size} {noun}", "thank you for the {nouns}", "you can have {np}",
        "I do not know how to {vp}", "of course you may {vp}", "I would like to {vp}", "this is not my {noun}",
        "I am looking for {np}", "you are my best friend", "we will {vp} tomorrow", "if you {vp}, I will {vp}",
        "it is time to {vp}", "good morning", "never mind", "my name is {name}", "I am sorry",
        "the {animal} took {np}", "you must not {vp}", "thank you very much",
    ],
    "question": [
        "where is the {noun}", "do you want to {vp}", "can you {vp}", "what are you looking for", "may I {vp}",
        "shall we {vp}", "who are you", "why did you {vp}", "have you seen my {noun}", "will you help me to {vp}",
        "what shall we do now", "how do you do", "do you like my {look} {noun}", "who wants to {vp}",
        "what is the matter", "did you {vp}", "are you {feeling}", "where do you live", "is that {np}",
    ],
    "cry": [
        "look at {np}", "help", "oh no", "hurry up", "watch out", "how nice", "do not let go of {np}", "hooray",
        "I found {np}", "wait for me", "what a {look} {noun}", "give me {np}",
    ],
    "talk": [
        '"{statement}," said {name}.', '"{question}?" asked {name}.', '"{statement}," said {name} {how}.',
        '"{cry}!" cried {name}.', '{S} said, "^{statement}."', '"{statement}," {S} told {O}.',
        '"{question}?" {S} asked {O}.', '{S} asked {O}, "^{question}?"',
        '"{cry}!" shouted {name}, and {he} {vp:past}.', '"{statement}," said {name}, "but I do not want to {vp}."',
        '"{statement}," whispered {name}.', '"{statement}," answered {name}, "and {statement}."',
        '"Yes," said {name}, "{statement}."', '"No," said {name}, "{statement}."', '"{question}?" asked {name} {how}.',
    ],
    # What happens
    "tell": [
        "{S} {vp:past}.", "{when} {S} {vp:past}.", "{S} {vp:past}, and then {he} {vp:past}.", "{S} was {feeling}.",
        "{S} wanted to {vp}, but {why}.", "{S} {vp:past}, because {why}.", "{when} {S} {vp:past} and {vp:past}.",
        "{S} {vp:past}, and {O} {O_vp:past}.", "{weather}, so {S} {vp:past}.", "When {O} {O_vp:past}, {S} {vp:past}.",
        "{S} began to {vp}.", "{S} could not {vp}.", "There was a {look} {noun} {where}.",
        "{when} {S} met {O} {where}.", "{S} was {vp:ing} when {O} {O_vp:past}.", "{S} did not {vp}, but {O} did.",
        "{S} heard {sound} {where}.", "While {S} was {vp:ing}, {weather}.",
        "{S} had {np}, but {he} did not have a {look} {noun}.", "There were {nouns} {where}.",
        "It was time to {vp}, but {why}.", "{S} decided to {vp}.", "As soon as {S} {vp:past}, {O} {O_vp:past}.",
        "{S} {vp:past} as fast as {he} could.", "The {thing} was gone.", "{when} the {noun} fell into the water.",
        "Nobody knew where the {noun} was.", "{S} was so {glad} that {he} {vp:past}.",
        "{S} made up {her} mind to {vp}.",
    ],
    "opening": [
        "Once upon a time there was a {size} {kind} named {hero}.",
        "Once upon a time a {nature} {kind} named {hero} lived {home}.",
        "There once was a {kind} named {hero} who wanted to {vp}.",
        "A long time ago, a {size} {kind} named {hero} lived {home}.",
        "{hero} was a {nature} {kind} who lived {home} with {her} {family}.",
        "This is the story of {hero}, the {nature} {kind} who lost a {look} {noun}.",
    ],
    "habit": [
        "Every day {hero} {vp:past}.", "{hero} had a {look} {thing} and a friend named {friend}.",
        "{hero} and {friend} were best friends.", "Everybody liked {hero}, because {he} was so {nature}.",
        "More than anything in the world, {hero} wanted to {vp}.", "{hero} had a {thing} and a lot of {nouns}.",
    ],
    "ending": [
        "And they lived happily ever after.", "Then they all went home and ate {meal}.",
        "{hero} was so {glad} that {he} gave {friend} a big hug.", "From that day on, {hero} {vp:past} every day.",
        "{hero} never forgot the {nature} {animal}.", "{hero} put the {thing} next to {her} bed and fell asleep.",
        "That night {hero} dreamed of {np}.", "Everybody was {glad}, and they danced all night.",
        "After that, {hero} was never {low} again.", '"Good night," said {her} {family}, and {hero} fell asleep.',
    ],
}  # fmt: skip

_IRREGULAR = (
    "go:went run:ran creep:crept see:saw find:found take:took hold:held bring:brought lose:lost hide:hid throw:threw "
    "sit:sat sleep:slept stand:stood sing:sang dig:dug swim:swam give:gave eat:ate put:put tell:told think:thought "
    "come:came say:said make:made build:built have:had let:let fall:fell get:got stay:stayed play:played"
)
PAST = dict(pair.split(":") for pair in _IRREGULAR.split())
_DOUBLING = {"run", "skip", "hop", "swim", "sit", "dig", "put", "get", "let", "drop"}
_SPOKEN = ("statement", "question", "cry")

_WEIGHTS = {key: list(accumulate(1 / (rank + 3) for rank in range(len(words)))) for key, words in GRAMMAR.items()}
_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")


def stories(count: int = 400, seed: int = 0) -> str:
    """`count` stories, one per line. The same seed gives the same text."""
    rng = random.Random(seed)
    return "\n".join(story(rng) for _ in range(count))


def story(rng: random.Random) -> str:
    """One story of 10 to 19 sentences on one line."""
    hero, friend = _person(rng), _person(rng)
    while friend["name"] == hero["name"]:
        friend = _person(rng)
    kind = _pick(rng, "animal")
    animal = {"name": f"the {kind}", "he": "it", "her": "its"}
    # Drawn once, so that all sentences of a story speak of the same people and things.
    cast = {"hero": hero["name"], "kind": hero["kind"], "friend": friend["name"], "animal": kind}
    cast |= {"thing": _pick(rng, "noun")}
    roles = _roles(hero, friend, animal)
    text = [_sentence(rng, "opening", cast | roles), _sentence(rng, "habit", cast | roles)]
    for _ in range(rng.randint(7, 16)):
        subject, other, third = rng.choice(((hero, friend, animal), (hero, animal, friend)) * 2 + (
            (friend, hero, animal), (friend, animal, hero), (animal, hero, friend), (animal, friend, hero)
        ))  # fmt: skip
        act = rng.choice(("tell", "tell", "talk"))
        pronoun = subject is hero and rng.random() < 0.5
        text.append(_sentence(rng, act, cast | _roles(subject, other, third, pronoun)))
    return " ".join([*text, _sentence(rng, "ending", cast | roles)])


def _person(rng: random.Random) -> dict[str, str]:
    female = rng.random() < 0.5
    kind = ("girl" if female else "boy") if rng.random() < 0.4 else _pick(rng, "animal")
    pronouns = {"he": "she", "her": "her"} if female else {"he": "he", "her": "his"}
    return {"name": _pick(rng, "girl" if female else "boy"), "kind": kind} | pronouns


def _roles(subject: dict, other: dict, third: dict, pronoun: bool = False) -> dict[str, str]:
    """The slots that depend on who acts. S, O: subject and object; third: whom a speaker talks about."""
    return {
        "S": subject["he"] if pronoun else subject["name"],
        "O": other["name"],
        "other_her": other["her"],
        "third": third["name"],
        **{key: subject[key] for key in ("name", "he", "her")},
    }


def _pick(rng: random.Random, key: str) -> str:
    return rng.choices(GRAMMAR[key], cum_weights=_WEIGHTS[key])[0]


def _sentence(rng: random.Random, key: str, cast: dict[str, str]) -> str:
    """Fill all slots, then mend `a` before a vowel, and the capitals (^ asks for one inside a sentence)."""
    text = _fill(rng, _pick(rng, key), cast)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return re.sub(r'(^"?|\^)(.)', lambda match: match[1].strip("^") + match[2].upper(), text)


def _fill(rng: random.Random, pattern: str, cast: dict[str, str]) -> str:
    def filler(slot: re.Match) -> str:
        key, form = slot.groups()
        if key in cast:
            return cast[key]
        if key in _SPOKEN:  # speakers say "my" and talk about somebody else than the two in the room
            words = _fill(rng, _pick(rng, key), cast | {"her": "my", "O": cast["third"], "name": cast["name"]})
        elif key == "O_vp":  # the object acts in its turn
            turned = {"O": cast["name"], "name": cast["O"], "her": cast["other_her"], "other_her": cast["her"]}
            words = _fill(rng, _pick(rng, "vp"), cast | turned)
        else:
            words = _fill(rng, _pick(rng, key), cast)
        return inflect(words, form) if form else words

    return _SLOT.sub(filler, pattern)


def inflect(phrase: str, form: str) -> str:
    """The past or the -ing form of a verb phrase in the base form.

    >>> inflect("carry the box", "past"), inflect("run home", "ing")
    ('carried the box', 'running home')
    """
    verb, space, rest = phrase.partition(" ")
    doubled = verb + verb[-1] if verb in _DOUBLING else verb
    if form == "ing":
        inflected = (doubled[:-1] if doubled.endswith("e") and not doubled.endswith(("ee", "oe")) else doubled) + "ing"
    elif verb in PAST:
        inflected = PAST[verb]
    elif verb.endswith("y"):
        inflected = verb[:-1] + "ied"
    else:
        inflected = doubled + ("d" if doubled.endswith("e") else "ed")
    return inflected + space + rest
