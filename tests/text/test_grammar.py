"""Grammars: the notation, the automaton against the set of all texts, stacks, refusals, JSON schemas."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.text import grammar as g
from tokenlab.text import json_schema

LIST = 'root ::= "[" [0-9]+ ("," [0-9]+)* "]"'


def accepts(grammar: str, text: bytes) -> bool:
    parser = g.Parser(g.compile_grammar(grammar))
    return parser.accept(text) == len(text) and parser.may_end()


# --- by hand


def test_a_list_of_numbers():
    parser = g.Parser(g.compile_grammar(LIST))
    assert parser.next_bytes() == [ord("[")]
    assert parser.accept(b"[12") == 3
    assert bytes(parser.next_bytes()) == b",0123456789]"
    assert not parser.may_end()
    parser.rollback(2)
    assert bytes(parser.next_bytes()) == b"0123456789"
    assert parser.accept(b"7]") == 2 and parser.may_end() and parser.next_bytes() == []
    assert parser.accept(b"7") == 0
    with pytest.raises(ValueError):
        parser.rollback(4)


def test_stacks_share_one_tree():
    """After "xx" both alternatives are open: two tops, one node below them."""
    text = 'root ::= "x" (a "1" | b "2")\na ::= "x" "a"{20} "y"\nb ::= "x" "b"{20} "y"'
    parser = g.Parser(g.compile_grammar(text))
    parser.accept(b"xx")
    first, second = parser.tops
    assert {parser.automaton.names[parser.automaton.rule[top.state]] for top in (first, second)} == {"a", "b"}
    assert first.parent is not second.parent  # they go on at different places
    assert first.parent.parent is second.parent.parent
    before = parser.tops
    parser.accept(b"aaa")
    assert len(parser.tops) == 1
    parser.rollback(3)
    assert parser.tops is before


def test_a_call_in_last_place_leaves_no_frame():
    parser = g.Parser(g.compile_grammar('root ::= "a" root | "b"'))
    assert parser.accept(b"a" * 300) == 300
    assert len(parser.tops) == 1 and list(parser.tops[0].path()) == [parser.tops[0]]


def test_forced_bytes():
    parser = g.Parser(g.compile_grammar('root ::= "colour: " ("red" | "rose") "!"?'))
    assert parser.forced() == b"colour: r"
    assert parser.length == 0
    parser.accept(b"colour: re")
    assert parser.forced() == b"d"  # "!" may follow, but the text may also end


@pytest.mark.parametrize(
    ("low", "high", "spans"),
    [
        (0x41, 0x5A, [((0x41, 0x5A),)]),
        (0x80, 0x7FF, [((0xC2, 0xDF), (0x80, 0xBF))]),
        (0xE9, 0xEA, [((0xC3, 0xC3), (0xA9, 0xAA))]),
        (0xD7FF, 0xE000, [((0xED,) * 2, (0x9F,) * 2, (0xBF,) * 2), ((0xEE,) * 2, (0x80,) * 2, (0x80,) * 2)]),
    ],
)
def test_utf8_spans_by_hand(low, high, spans):
    assert g.utf8_spans(low, high) == spans


@given(st.integers(0, 0x10FFFF), st.integers(0, 0x10FFFF), st.characters(codec="utf-8"))
def test_utf8_spans_hold_the_characters_between(a, b, letter):
    low, high = min(a, b), max(a, b)
    data = letter.encode()
    fits = [s for s in g.utf8_spans(low, high) if len(s) == len(data)]
    fits = [s for s in fits if all(x <= byte <= y for (x, y), byte in zip(s, data, strict=True))]
    assert len(fits) == (low <= ord(letter) <= high)


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "a" | # comment "x"\n "b"', ["a", "b"], ["", "x", "ab"]),
        ('root ::= [^a-c\\]"-]', ["d", "é", "🙂", "\n"], ["a", "b", "]", '"', "-", ""]),
        (r'root ::= "\x41\u00e9\n\"" [\-a\]]', ['Aé\n"-', 'Aé\n"]'], ['Aé\n"b']),
        ('root ::= "ab"{2} "c"{1,} "d"{0,2}', ["ababc", "ababcccdd"], ["abab", "abc", "ababcddd"]),
        ('root ::= a-1 "x"\na-1 ::= "y" | ""', ["x", "yx"], ["y", "yyx"]),
        ('root ::= ("a" ("b" | "c")?)+', ["a", "abaca"], ["", "b", "abb"]),
    ],
)
def test_the_notation(grammar, good, bad):
    for text in good:
        assert accepts(grammar, text.encode()), text
    for text in bad:
        assert not accepts(grammar, text.encode()), text


def test_bytes_that_are_no_utf8_do_not_get_through():
    automaton = g.compile_grammar('root ::= [^"]*')
    for data in (b"\xc0", b"\xff", b"\xed\xa0", b"\xf4\x90", b"\x80", b"\xe0\x80"):
        assert g.Parser(automaton).accept(data) < len(data)
    parser = g.Parser(automaton)
    assert parser.accept("é".encode()[:1]) == 1 and not parser.may_end()


# --- against the set of all texts

NAMES = ("root", "a", "b")


def items(depth: int) -> st.SearchStrategy[g.Item]:
    leaf = st.one_of(
        st.sampled_from([g.Literal(b""), g.Literal(b"x"), g.Literal(b"xy"), g.Class(((0x78, 0x79),))]),
        st.sampled_from(NAMES).map(g.Call),
    )
    if not depth:
        return leaf
    below = items(depth - 1)
    several = st.lists(below, min_size=2, max_size=3).map(tuple)
    times = st.sampled_from([(0, 1), (0, None), (1, None), (1, 2), (2, 2)])
    repeat = st.tuples(below, times).map(lambda pair: g.Repeat(pair[0], *pair[1]))
    return st.one_of(leaf, several.map(g.Series), several.map(g.Either), repeat)


def spelled(item: g.Item) -> str:
    """An item in the notation."""
    if isinstance(item, g.Literal):
        return f'"{item.data.decode()}"'
    if isinstance(item, g.Class):
        return "[" + "".join(f"{chr(low)}-{chr(high)}" for low, high in item.ranges) + "]"
    if isinstance(item, g.Call):
        return item.name
    if isinstance(item, g.Repeat):
        most = "" if item.most is None else item.most
        return f"({spelled(item.item)}){{{item.least},{most}}}"
    return "(" + (" " if isinstance(item, g.Series) else " | ").join(map(spelled, item.items)) + ")"


def texts(item: g.Item, rules: dict[str, set[bytes]], longest: int) -> set[bytes]:
    """All texts of an item up to a length, from those of the rules: the meaning of the notation, and nothing else."""
    if isinstance(item, g.Literal):
        return {item.data}
    if isinstance(item, g.Class):
        return {bytes([code]) for low, high in item.ranges for code in range(low, high + 1)}
    if isinstance(item, g.Call):
        return rules[item.name]
    if isinstance(item, g.Either):
        return set().union(*(texts(part, rules, longest) for part in item.items))
    if isinstance(item, g.Series):
        found = {b""}
        for part in item.items:
            found = joined(found, texts(part, rules, longest), longest)
        return found
    part = texts(item.item, rules, longest)
    found, layer = set(), {b""}
    for k in range((longest + item.least if item.most is None else item.most) + 1):
        if k >= item.least:
            found |= layer
        layer = joined(layer, part, longest)
    return found


def joined(a: set[bytes], b: set[bytes], longest: int) -> set[bytes]:
    return {x + y for x in a for y in b if len(x) + len(y) <= longest}


def language(rules: dict[str, g.Item], longest: int) -> set[bytes]:
    known: dict[str, set[bytes]] = {name: set() for name in rules}
    while True:
        new = {name: texts(item, known, longest) for name, item in rules.items()}
        if new == known:
            return known["root"]
        known = new


@settings(max_examples=120, deadline=None)
@given(st.tuples(*[items(2) for _ in NAMES]))
def test_accepts_exactly_the_texts_of_the_grammar(found):
    rules = dict(zip(NAMES, found, strict=True))
    source = "\n".join(f"{name} ::= {spelled(item)}" for name, item in rules.items())
    try:
        automaton = g.compile_grammar(source)
    except UserError as error:
        assert "left recursion" in str(error) or "never come to an end" in str(error)
        if "never" in str(error):
            assert language(rules, 4) == set()
        assume(False)
    valid = language(rules, 4)
    for size in range(5):
        for letters in itertools.product(b"xy", repeat=size):
            text = bytes(letters)
            parser = g.Parser(automaton)
            read = parser.accept(text)
            assert (read == size and parser.may_end()) == (text in valid), (source, text)
            if any(other.startswith(text) for other in valid):
                assert read == size


# --- hostile grammars

CHAIN = "\n".join(f"r{i} ::= r{i + 1} r{i + 1} | r{i + 1}" for i in range(40))
HOSTILE = {
    "left recursion": ('root ::= root "a" | "a"', "left recursion"),
    "left recursion behind an empty rule": ('root ::= e root "a" | "b"\ne ::= "x"?', "left recursion"),
    "left recursion in a circle": ('root ::= a | "x"\na ::= b "y"\nb ::= root "z"', "left recursion"),
    "never ends": ('root ::= "a" root', "never come to an end"),
    "undefined": ("root ::= foo", '"foo"'),
    "no root": ('start ::= "a"', "no rule root"),
    "twice": ('root ::= "a"\nroot ::= "b"', "twice"),
    "states": ('root ::= [ab]* "a" [ab]{20}', "5,000 states"),
    "repetition of repetition": ('root ::= ("a"{1000}){1000}', "5,000 states"),
    "huge repetition": ('root ::= "a"{100000000000000000000}', "2,000"),
    "optional repetitions": ('root ::= (("a"?){100}){20}', "5,000 states"),
    "deep": ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "nested"),
    "long": ('root ::= "' + "a" * 1_000_000 + '"', "1,000,0"),
    "stars": ('root ::= "a"' + "*" * 5000, "two repetitions"),
    "open quote": ('root ::= "a', "Line 1"),
    "open parenthesis": ('root ::=\n ("a"', "Line 2"),
    "empty alternative": ('root ::= "a" |', "missing"),
    "backwards": ("root ::= [z-a]", "backwards"),
    "escape": (r'root ::= "\q"', "escape"),
    "surrogate": (r'root ::= "\ud800"', "escape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_grammar_gets_one_sentence_in_time(name):
    source, said = HOSTILE[name]
    began = time.monotonic()
    with pytest.raises(UserError, match=said) as caught:
        g.compile_grammar(source)
    assert str(caught.value).count(". ") == 0 and len(str(caught.value)) < 250
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "source",
    [
        f'root ::= r0 "x"\n{CHAIN}\nr40 ::= "a"?',
        'root ::= p | q\np ::= "a" (p "x" | q "y") | "b"\nq ::= "a" (p "z" | q "w") | "b"',
    ],
)
def test_too_many_readings_at_once_are_one_sentence(source):
    began = time.monotonic()
    with pytest.raises(UserError, match="too many ways"):
        parser = g.Parser(g.compile_grammar(source))
        for _ in range(400):
            parser.accept(b"a")
    assert time.monotonic() - began < 15


def test_harmless_loops_are_read():
    assert accepts('root ::= (("a"?)*)* "b"', b"aaab")
    assert accepts('root ::= a* "."\na ::= b | c\nb ::= "x"?\nc ::= "y"*', b"xxyyx.")
    chain = "\n".join(f'r{i} ::= "a" r{i + 1}' for i in range(700))
    assert accepts(f'root ::= r0\n{chain}\nr700 ::= "b"', b"a" * 700 + b"b")
    nested = "\n".join(f"r{i} ::= r{i + 1}?" for i in range(600))
    assert accepts(f'root ::= r0\n{nested}\nr600 ::= "b"', b"b")


def test_what_never_ends_is_left_out():
    parser = g.Parser(g.compile_grammar('root ::= "a" | "b" endless\nendless ::= "c" endless'))
    assert bytes(parser.next_bytes()) == b"a"


# --- JSON schemas

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 4},
        "n": {"type": "number"},
        "color": {"enum": ["red", "gr\"ün"]},
        "tags": {"type": "array", "items": {"type": ["string", "null"], "maxLength": 3}, "minItems": 1, "maxItems": 2},
        "next": {"$ref": "#/$defs/next"},
        "any": True,
    },
    "required": ["name", "color"],
    "$defs": {"next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
              "pair": {"type": "array", "items": {"$ref": "#/$defs/next"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ({"name": "Mia", "color": "red"}, True),
        ({"name": "Mia", "n": -1.5e3, "color": 'gr"ün', "tags": ["a", None], "any": [{"x": [1, "é"]}]}, True),
        ({"name": "Mia", "color": "red", "next": [None, [None, []]]}, True),
        ({"name": "Maria", "color": "red"}, False),
        ({"name": "Mia"}, False),
        ({"color": "red", "name": "Mia"}, False),
        ({"name": "Mia", "color": "blue"}, False),
        ({"name": "Mia", "color": "red", "tags": []}, False),
        ({"name": "Mia", "color": "red", "tags": ["a", "b", "c"]}, False),
        ({"name": "Mia", "color": "red", "more": 1}, False),
        ({"name": "Mia", "n": "1", "color": "red"}, False),
    ],
)
def test_a_schema(value, fits):
    assert accepts(json_schema.to_grammar(json.dumps(PERSON)), json.dumps(value).encode()) == fits


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8,
))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_true_takes_any_json(value):
    assert accepts(ANYTHING, json.dumps(value).encode())


ANYTHING = json_schema.to_grammar("true")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "no JSON"),
        ("[" * 19_000, "nested too deeply"),
        ("3", "neither an object"),
        ('{"type": "string", "pattern": "a+"}', "pattern"),
        ('{"type": "sack"}', "types|type"),
        ('{"enum": []}', "enum"),
        ('{"$ref": "#/$defs/none"}', "leads nowhere"),
        ('{"type": "string", "maxLength": 1e9}', "whole numbers"),
        ('{"type": "string", "minLength": 3, "maxLength": 2}', "smaller"),
        ('{"properties": {"a": {}}, "required": ["b"]}', '"b"'),
        ('{"properties": {"a": {}}, "required": [[1]]}', "none of the properties|no property"),
        ('{"items": ' * 60 + "{}" + "}" * 60, "items|nested"),
        ('{"type": "array", "items": ' * 60 + "{}" + "}" * 60, "nested too deeply"),
        ('"' + "a" * 1_000_000 + '"', "1,000,0"),
    ],
)
def test_a_schema_outside_the_subset_is_refused(schema, said):
    with pytest.raises(UserError, match=said):
        json_schema.to_grammar(schema)


def test_nested_schemas_do_not_double_at_each_level():
    inner: dict = {"type": "null"}
    for k in range(24):
        inner = {"type": "array", "items": inner} if k % 2 else {"properties": {"a": inner}}
    assert len(json_schema.to_grammar(json.dumps(inner))) < 5_000


def test_a_schema_that_calls_itself_at_once_is_refused():
    source = json_schema.to_grammar('{"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/a"}}}')
    with pytest.raises(UserError, match="left recursion|never come to an end"):
        g.compile_grammar(source)


def test_the_limits_are_in_the_table():
    assert limits.GRAMMAR_CHARACTERS == 20_000 and limits.GRAMMAR_STATES == 5_000
