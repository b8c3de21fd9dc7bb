r"""Context-free grammars as byte automata: the parser of the notation, the automaton, its stacks.

    automaton = compile_grammar('root ::= "[" [0-9]+ ("," [0-9]+)* "]"')
    parser = Parser(automaton)
    parser.accept(b"[12")            # 3: all three bytes fit
    parser.next_bytes()              # the digits, "," and "]"
    parser.rollback(1)               # one byte back

**The notation** (that of llama.cpp and of the package xgrammar): rules `name ::= ...`; alternatives with `|`;
"text" with the escapes \n \t \r \" \\ \xHH \uHHHH; classes [a-z_] and [^"\\] of characters; groups; `*`, `+`,
`?`, `{n}`, `{n,}`, `{n,m}`; comments from `#` to the end of the line. The first rule is `root`.

**The automaton.** Each rule is a deterministic automaton of its own. An edge reads one byte of UTF-8, or *calls* a
rule and goes on at a state when that rule has ended. Classes of characters are spelled out as ranges of bytes, so an
edge may stand in the middle of a character, and no byte sequence that is not UTF-8 gets through.

**A stack** is a state and, below it, the states to go on at when rules end. A text may be read in several ways at
once, so there are several stacks; all of them share one tree, in which a node knows its parent. A branch copies
nothing, and the list of tops before a byte stays valid: going back is forgetting the newer lists.

Grammars are refused, in one sentence, when a rule may call itself before it reads a byte (left recursion), when the
root can never end, and beyond the sizes in tokenlab.limits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokenlab import guard, limits
from tokenlab.errors import UserError

ROOT = "root"
INLINED = 16  # positions of a rule without calls that is written out where it is called

# --- the notation ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Literal:
    """Bytes, one after the other; none at all is the empty text."""

    data: bytes


@dataclass(frozen=True)
class Class:
    """One character of these ranges (first, last) of code points."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Call:
    """What a rule stands for."""

    name: str


@dataclass(frozen=True)
class Series:
    """One item after the other."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Either:
    """One of the items."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class Repeat:
    """The item `least` to `most` times; most None: without end."""

    item: Item
    least: int
    most: int | None


Item = Literal | Class | Call | Series | Either | Repeat

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)|(?P<name>[A-Za-z_][\w.-]*)|(?P<is>::=)|(?P<text>"(?:[^"\\\n]|\\.)*")"""
    r"""|(?P<class>\[(?:[^\]\\\n]|\\.)*\])|(?P<repeat>\{\s*\d+\s*(?:,\s*\d*\s*)?\})|(?P<sign>[|()*+?])""",
    re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", **{c: c for c in "\"'\\/[]-^"}}
_LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)


def parse_grammar(text: str) -> dict[str, Item]:
    """The rules by name, as they are written, in their order. UserError: a mistake, with its line."""
    limits.check_text(text, name="The grammar", characters=limits.GRAMMAR_CHARACTERS)
    return _Reader(text).rules()


class _Reader:
    """Recursive descent over the tokens (kind, text, line)."""

    def __init__(self, text: str):
        self.tokens: list[tuple[str, str, int]] = []
        self.at, self.depth = 0, 0
        place, line = 0, 1
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise UserError(
                    f"Line {line} of the grammar holds something that is no part of the notation; please check quotes, "
                    "brackets and signs there."
                )
            if found.lastgroup != "space":
                self.tokens.append((found.lastgroup, found.group(), line))
            line += found.group().count("\n")
            place = found.end()
        self.tokens += [("end", "", line), ("end", "", line)]

    def rules(self) -> dict[str, Item]:
        found: dict[str, Item] = {}
        while self.peek() != "end":
            name = self.take("name", "a rule begins with its name, such as root")
            self.take("is", "behind the name of a rule comes ::=")
            if name in found:
                raise self.refuse(f"the rule {quoted(name)} is written twice; please join the two with |")
            found[name] = self.either()
        return found

    def either(self) -> Item:
        items = [self.series()]
        while self.peek() == "sign" and self.tokens[self.at][1] == "|":
            self.at += 1
            items.append(self.series())
        return items[0] if len(items) == 1 else Either(tuple(items))

    def series(self) -> Item:
        items = []
        while (item := self.repeated()) is not None:
            items.append(item)
        if not items:
            raise self.refuse('here something is missing; please write "" for the empty text')
        return items[0] if len(items) == 1 else Series(tuple(items))

    def repeated(self) -> Item | None:
        item = self.single()
        if item is None:
            return None
        times = self.times()
        if times is None:
            return item
        if self.times() is not None:
            raise self.refuse("two repetitions follow each other; please put the first into parentheses")
        return Repeat(item, *times)

    def times(self) -> tuple[int, int | None] | None:
        kind, text, _ = self.tokens[self.at]
        if kind == "sign" and text in "*+?":
            self.at += 1
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[text]
        if kind != "repeat":
            return None
        low, comma, high = (part.strip() for part in text[1:-1].partition(","))
        if max(len(low), len(high)) > 9 or max(int(low), int(high or 0)) > limits.GRAMMAR_REPEATS:
            raise self.refuse(f"a repetition may go up to {limits.GRAMMAR_REPEATS:,}; please ask for fewer, or use *")
        least, most = int(low), int(high) if high else None if comma else int(low)
        if most is not None and most < least:
            raise self.refuse("a repetition ends before it begins; please write the smaller number first")
        self.at += 1
        return least, most

    def single(self) -> Item | None:
        kind, text, _ = self.tokens[self.at]
        if kind == "name" and self.tokens[self.at + 1][0] == "is":
            return None  # the next rule begins
        if kind not in ("name", "text", "class") and (kind, text) != ("sign", "("):
            return None
        self.at += 1
        if kind == "name":
            return Call(text)
        if kind == "text":
            return Literal("".join(self.characters(text[1:-1])).encode("utf-8"))
        if kind == "class":
            return self.character_class(text[1:-1])
        self.depth += 1
        if self.depth > limits.GRAMMAR_DEPTH:
            raise self.refuse(f"parentheses are nested more than {limits.GRAMMAR_DEPTH} deep; please name the parts")
        item = self.either()
        if self.tokens[self.at][:2] != ("sign", ")"):
            raise self.refuse("a parenthesis is not closed")
        self.at += 1
        self.depth -= 1
        return item

    def characters(self, text: str) -> Iterator[str]:
        place = 0
        while place < len(text):
            if text[place] != "\\":
                yield text[place]
                place += 1
                continue
            found = _ESCAPE.match(text, place)
            code = found and (found.group(1) or found.group(2))
            letter = chr(int(code, 16)) if code else _ESCAPES.get(found.group(3)) if found else None
            if letter is None or _SURROGATES[0] <= ord(letter) <= _SURROGATES[1]:
                raise self.refuse(r"an unknown escape; there are \n \t \r \" \\ \xHH and \uHHHH")
            yield letter
            place = found.end()

    def character_class(self, text: str) -> Class:
        negated = text.startswith("^")
        body = text[negated:]
        # An escaped - is a character, a bare one between two characters makes a range.
        bare = [i for i, c in enumerate(body) if c == "-" and not _escaped(body, i)]
        letters: list[tuple[str, bool]] = []
        last = 0
        for dash in [*bare, len(body)]:
            letters += [(c, False) for c in self.characters(body[last:dash])]
            if dash < len(body):
                letters.append(("-", True))
            last = dash + 1
        ranges, i = [], 0
        while i < len(letters):
            low = high = ord(letters[i][0])
            if i + 2 < len(letters) and letters[i + 1][1]:
                high, i = ord(letters[i + 2][0]), i + 2
            if high < low:
                raise self.refuse("a range of characters runs backwards; please write the smaller one first")
            ranges.append((low, high))
            i += 1
        if not ranges and not negated:
            raise self.refuse("a class of characters is empty")
        return Class(_complement(ranges) if negated else tuple(ranges))

    def peek(self) -> str:
        return self.tokens[self.at][0]

    def take(self, kind: str, what: str) -> str:
        if self.peek() != kind:
            raise self.refuse(what)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def refuse(self, what: str) -> UserError:
        return UserError(f"Line {self.tokens[self.at][2]} of the grammar: {what}.")


def _escaped(text: str, place: int) -> bool:
    before = text[:place]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _complement(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    found, start = [], 0
    for low, high in sorted(ranges):
        if start < low:
            found.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        found.append((start, _LAST))
    return tuple(found)


def quoted(name: str) -> str:
    """A name of the user's for a sentence: rule names hold letters, digits and . _ - only, but may be long."""
    return '"' + re.sub(r"[^\w.$/ -]", "_", name)[:40] + '"'


# --- bytes of characters -----------------------------------------------------------------------------

Span = tuple[int, int]  # bytes from, to


def utf8_spans(low: int, high: int) -> list[tuple[Span, ...]]:
    """The UTF-8 of all code points from `low` to `high`, as sequences of byte ranges; surrogates have none."""
    found = []
    for first, last in ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, _LAST)):
        a, b = max(low, first), min(high, last)
        if a <= b:
            found += _spans(chr(a).encode(), chr(b).encode())
    return found


def _spans(low: bytes, high: bytes) -> list[tuple[Span, ...]]:
    """low, high: of equal length. All strings between them whose later bytes are continuation bytes."""
    if len(low) == 1:
        return [((low[0], high[0]),)]
    if low[0] == high[0]:
        return [((low[0], low[0]), *rest) for rest in _spans(low[1:], high[1:])]
    first, last, more = low[0], high[0], len(low) - 1
    head, tail = [], []
    if low[1:] != b"\x80" * more:
        head = [((first, first), *rest) for rest in _spans(low[1:], b"\xbf" * more)]
        first += 1
    if high[1:] != b"\xbf" * more:
        tail = [((last, last), *rest) for rest in _spans(b"\x80" * more, high[1:])]
        last -= 1
    middle = [((first, last), *[(0x80, 0xBF)] * more)] if first <= last else []
    return head + middle + tail


# --- the automaton -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Automaton:
    """One deterministic automaton per rule; states are numbered through all rules.

    names (R,): of the rules, names[0] calls the root and is nobody's. start (R,): their first states.
    next[s]: byte -> state. calls[s]: (rule, state to go on at). final[s]: the rule may end here. rule[s]: whose state.
    places[r]: the states at which a caller goes on when rule r ends."""

    names: tuple[str, ...]
    start: tuple[int, ...]
    next: tuple[dict[int, int], ...]
    calls: tuple[tuple[tuple[int, int], ...], ...]
    final: tuple[bool, ...]
    rule: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]

    def is_end(self, state: int) -> bool:
        """Whether all that is left of the rule is its end."""
        return self.final[state] and not self.next[state] and not self.calls[state]


def compile_grammar(text: str) -> Automaton:
    """The automaton of a grammar. UserError: a mistake in it, left recursion, no end, too large."""
    rules = parse_grammar(text)
    if ROOT not in rules:
        raise UserError("The grammar has no rule root; please call the first rule root.")
    for item in rules.values():
        for name in _called(item):
            if name not in rules:
                raise UserError(f"The rule {quoted(name)} is used in the grammar but not defined; please add it.")
    rules = _inlined(rules)
    order = _reachable(rules)
    number = {name: i + 1 for i, name in enumerate(order)}
    rows = _Rows(["", *order])
    for item in (Call(ROOT), *(rules[name] for name in order)):
        rows.add(item, number)
    rows.drop_dead_ends()
    rows.check_left_recursion()
    return rows.automaton()


def _called(item: Item) -> Iterator[str]:
    if isinstance(item, Call):
        yield item.name
    elif isinstance(item, Repeat):
        yield from _called(item.item)
    elif isinstance(item, Series | Either):
        for part in item.items:
            yield from _called(part)


def size(item: Item) -> int:
    """Positions when all repetitions are written out: bytes, classes, calls, and one for each repetition."""
    if isinstance(item, Literal):
        return max(1, len(item.data))
    if isinstance(item, Repeat):
        return 1 + size(item.item) * max(1, item.least, item.most or 0)
    if isinstance(item, Series | Either):
        return sum(size(part) for part in item.items)
    return 1


def _inlined(rules: dict[str, Item]) -> dict[str, Item]:
    """Small rules that call nothing are written out where they are called, until nothing changes: what stands in one
    rule can be decided without the stack."""
    leaves: dict[str, Item] = {}
    while True:
        guard.check_time()
        new = {
            name: item
            for name, item in rules.items()
            if name not in leaves and name != ROOT and size(item) <= INLINED and not any(_called(item))
        }
        if not new:
            return rules
        leaves |= new
        rules = {name: item if name in leaves else _replaced(item, new) for name, item in rules.items()}


def _replaced(item: Item, by: dict[str, Item]) -> Item:
    if isinstance(item, Call):
        return by.get(item.name, item)
    if isinstance(item, Repeat):
        return Repeat(_replaced(item.item, by), item.least, item.most)
    if isinstance(item, Series | Either):
        return type(item)(tuple(_replaced(part, by) for part in item.items))
    return item


def _reachable(rules: dict[str, Item]) -> list[str]:
    found, todo = {ROOT: None}, [ROOT]
    while todo:
        for name in _called(rules[todo.pop()]):
            if name not in found:
                found[name] = None
                todo.append(name)
    return list(found)


class _Rows:
    """The automaton while it is built."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.start: list[int] = []
        self.next: list[dict[int, int]] = []
        self.calls: list[dict[int, int]] = []
        self.final: list[bool] = []
        self.rule: list[int] = []

    def add(self, item: Item, number: dict[str, int]) -> None:
        """One rule more: its nondeterministic automaton, made deterministic by the subset construction."""
        if size(item) > limits.GRAMMAR_STATES:
            raise _too_large()
        loose = _Loose(number)
        last = loose.build(item, 0)
        first = loose.closure([0])
        self.start.append(len(self.next))
        known = {first: self._new(last in first)}
        todo = [first]
        while todo:
            subset = todo.pop()
            guard.check_time()
            for label, targets in loose.moves(subset):
                target = loose.closure(targets)
                if target not in known:
                    known[target] = self._new(last in target)
                    todo.append(target)
                if isinstance(label, int):
                    self.calls[known[subset]][label] = known[target]
                else:
                    self.next[known[subset]].update(dict.fromkeys(label, known[target]))

    def _new(self, final: bool) -> int:
        if len(self.next) >= limits.GRAMMAR_STATES:
            raise _too_large()
        self.next.append({})
        self.calls.append({})
        self.final.append(final)
        self.rule.append(len(self.start) - 1)
        return len(self.next) - 1

    def drop_dead_ends(self) -> None:
        """Leave out edges that no valid text takes: a rule that never ends, or a state from which none does."""
        before: list[list[tuple[int, int]]] = [[] for _ in self.next]  # state -> (state before it, rule called or -1)
        callers: list[list[tuple[int, int]]] = [[] for _ in self.start]
        for state in range(len(self.next)):
            for target in set(self.next[state].values()):
                before[target].append((state, -1))
            for rule, target in self.calls[state].items():
                before[target].append((state, rule))
                callers[rule].append((state, target))
        alive = [False] * len(self.next)
        todo = [state for state, final in enumerate(self.final) if final]
        while todo:
            state = todo.pop()
            if alive[state]:
                continue
            alive[state] = True
            todo += [s for s, rule in before[state] if rule < 0 or alive[self.start[rule]]]
            if self.start[self.rule[state]] == state:  # the rule can end, so calls of it can go on
                todo += [s for s, target in callers[self.rule[state]] if alive[target]]
        if not alive[0]:
            raise UserError(
                "The grammar can never come to an end: every way through its rules calls a rule again; "
                "please add an alternative that calls none."
            )
        for state in range(len(self.next)):
            self.next[state] = {byte: target for byte, target in self.next[state].items() if alive[target]}
            kept = self.calls[state].items()
            self.calls[state] = {r: target for r, target in kept if alive[target] and alive[self.start[r]]}

    def check_left_recursion(self) -> None:
        """UserError when a rule can call itself before it has read a byte: `accept` would never stop."""
        empty = self._nullable()
        first: list[set[int]] = []
        for start in self.start:
            seen, todo, called = set(), [start], set()
            while todo:
                state = todo.pop()
                if state not in seen:
                    seen.add(state)
                    called |= set(self.calls[state])
                    todo += [target for rule, target in self.calls[state].items() if empty[rule]]
            first.append(called)
        done: set[int] = set()
        for rule in range(len(self.start)):
            path: dict[int, Iterator[int]] = {rule: iter(first[rule])} if rule not in done else {}
            while path:
                current = next(reversed(path))
                called = next(path[current], None)
                if called is None:
                    del path[current]
                    done.add(current)
                elif called in path:
                    raise UserError(
                        f"The rule {quoted(self.names[called])} may call itself before it reads anything (left "
                        'recursion); please write it as a repetition, such as term ("+" term)*.'
                    )
                elif called not in done:
                    path[called] = iter(first[called])

    def _nullable(self) -> list[bool]:
        empty = [self.final[start] for start in self.start]
        while True:
            guard.check_time()
            before = sum(empty)
            for rule, start in reversed(list(enumerate(self.start))):  # rules mostly call later ones
                seen, todo = set(), [start]
                while todo and not empty[rule]:
                    state = todo.pop()
                    if state not in seen:
                        seen.add(state)
                        empty[rule] = self.final[state]
                        todo += [target for called, target in self.calls[state].items() if empty[called]]
            if sum(empty) == before:
                return empty

    def automaton(self) -> Automaton:
        places: list[set[int]] = [set() for _ in self.start]
        for calls in self.calls:
            for rule, target in calls.items():
                places[rule].add(target)
        return Automaton(
            names=tuple(self.names),
            start=tuple(self.start),
            next=tuple(self.next),
            calls=tuple(tuple(calls.items()) for calls in self.calls),
            final=tuple(self.final),
            rule=tuple(self.rule),
            places=tuple(tuple(sorted(states)) for states in places),
        )


class _Loose:
    """A rule as a nondeterministic automaton with empty edges (Thompson's construction)."""

    def __init__(self, number: dict[str, int]):
        self.number = number
        self.empty: list[list[int]] = [[]]
        self.spans: list[list[tuple[int, int, int]]] = [[]]  # bytes from, to, state
        self.calls: list[list[tuple[int, int]]] = [[]]
        self.work = 0

    def new(self) -> int:
        if len(self.empty) >= limits.GRAMMAR_WORK:
            raise _too_large()
        self.empty.append([])
        self.spans.append([])
        self.calls.append([])
        return len(self.empty) - 1

    def build(self, item: Item, start: int) -> int:
        """Add `item` behind the state `start`; gives the state behind it."""
        if isinstance(item, Literal):
            for byte in item.data:
                end = self.new()
                self.spans[start].append((byte, byte, end))
                start = end
            return start
        if isinstance(item, Series):
            for part in item.items:
                start = self.build(part, start)
            return start
        if isinstance(item, Repeat):
            return self.repeat(item, start)
        end = self.new()
        if isinstance(item, Call):
            self.calls[start].append((self.number[item.name], end))
        elif isinstance(item, Class):
            for low, high in item.ranges:
                for spans in utf8_spans(low, high):
                    at = start
                    for a, b in spans[:-1]:
                        step = self.new()
                        self.spans[at].append((a, b, step))
                        at = step
                    self.spans[at].append((*spans[-1], end))
        else:
            for part in item.items:
                begin = self.new()  # an item may loop back to where it starts
                self.empty[start].append(begin)
                self.empty[self.build(part, begin)].append(end)
        return end

    def repeat(self, item: Repeat, start: int) -> int:
        for _ in range(item.least):
            start = self.build(item.item, start)
        end = self.new()
        self.empty[start].append(end)
        if item.most is None:
            again = self.new()
            self.empty[start].append(again)
            behind = self.build(item.item, again)
            self.empty[behind] += [again, end]
            return end
        for _ in range(item.most - item.least):
            begin = self.new()
            self.empty[start].append(begin)
            start = self.build(item.item, begin)
            self.empty[start].append(end)
        return end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """The states and what empty edges lead to from them."""
        found, todo = set(), list(states)
        while todo:
            state = todo.pop()
            if state not in found:
                found.add(state)
                todo += self.empty[state]
        self.work += len(found)
        if self.work > limits.GRAMMAR_WORK:
            raise _too_large()
        return frozenset(found)

    def moves(self, subset: frozenset[int]) -> Iterator[tuple[range | int, set[int]]]:
        """What leads out of a set of states: a range of bytes, or the number of a rule; and where to."""
        spans = [span for state in subset for span in self.spans[state]]
        cuts = sorted({low for low, _, _ in spans} | {high + 1 for _, high, _ in spans})
        for low, high in zip(cuts, cuts[1:], strict=False):
            targets = {target for a, b, target in spans if a <= low and high - 1 <= b}
            if targets:
                yield range(low, high), targets
        rules: dict[int, set[int]] = {}
        for state in subset:
            for rule, target in self.calls[state]:
                rules.setdefault(rule, set()).add(target)
        yield from rules.items()


def _too_large() -> UserError:
    return UserError(
        f"The grammar needs more than {limits.GRAMMAR_STATES:,} states once its repetitions are written out; "
        "please ask for fewer repetitions or use *."
    )


# --- stacks ------------------------------------------------------------------------------------------


class Node:
    """The top of a stack: a state, and the stack below it, None where nothing is known to be below."""

    __slots__ = ("_pushed", "_tops", "parent", "state")

    def __init__(self, state: int, parent: Node | None):
        self.state = state
        self.parent = parent
        self._pushed: dict[int, Node] = {}
        self._tops: tuple[Node, ...] | None = None

    def path(self) -> Iterator[Node]:
        """The node itself and all below it."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent


class Anywhere(Node):
    """Below a state of `rule`, when all that is known is that somebody called that rule."""

    __slots__ = ("rule",)

    def __init__(self, rule: int):
        super().__init__(-1, None)
        self.rule = rule


BOTTOM = Node(-1, None)  # among the tops: everything that was known to be on the stack has ended


class Stacks:
    """The tree of all stacks. Equal stacks are one node, so a set of tops holds no stack twice."""

    def __init__(self, automaton: Automaton):
        self.automaton = automaton
        self.nodes = 0
        self._base: dict[int, Node] = {}
        self._anywhere: dict[int, Anywhere] = {}

    def node(self, state: int, parent: Node | None = None) -> Node:
        """The stack with `state` on top of `parent`."""
        siblings = self._base if parent is None else parent._pushed
        found = siblings.get(state)
        if found is None:
            self.nodes += 1
            if self.nodes > limits.GRAMMAR_NODES:
                raise _too_ambiguous()
            found = siblings[state] = Node(state, parent)
        return found

    def anywhere(self, rule: int) -> Anywhere:
        """Stands for all stacks from which `rule` may have been called."""
        if rule not in self._anywhere:
            self._anywhere[rule] = Anywhere(rule)
        return self._anywhere[rule]

    def tops(self, node: Node) -> tuple[Node, ...]:
        """The stacks that `node` stands for before the next byte: calls are entered, ended rules are left, until a
        byte can be read. BOTTOM is among them when all may end here."""
        if node._tops is None:
            node._tops = self._expand(node)
        return node._tops

    def _expand(self, node: Node) -> tuple[Node, ...]:
        a = self.automaton
        seen, todo, found = set(), [node], {}
        while todo:
            top = todo.pop()
            if top in seen:
                continue
            seen.add(top)
            if len(seen) > 10 * limits.GRAMMAR_STACKS:
                raise _too_ambiguous()
            state, parent = top.state, top.parent
            if a.next[state]:
                found[top] = None
            for rule, back in a.calls[state]:
                # A call in last place leaves nothing to come back to, so repetition by recursion does not pile up.
                below = parent if a.is_end(back) else self.node(back, parent)
                todo.append(self.node(a.start[rule], below))
            if a.final[state]:
                if parent is None:
                    found[BOTTOM] = None
                elif isinstance(parent, Anywhere):
                    backs = a.places[parent.rule]
                    todo += [self.node(back, self.anywhere(a.rule[back])) for back in backs]
                    if not backs:
                        found[BOTTOM] = None
                else:
                    todo.append(parent)
        return tuple(found)

    def step(self, tops: Sequence[Node], byte: int) -> tuple[Node, ...]:
        """The tops behind one more byte; none when no stack can read it."""
        a = self.automaton
        if len(tops) == 1:
            top = tops[0]
            state = a.next[top.state].get(byte, -1) if top is not BOTTOM else -1
            return self.tops(self.node(state, top.parent)) if state >= 0 else ()
        found: dict[Node, None] = {}
        for top in tops:
            if top is BOTTOM:
                continue
            state = a.next[top.state].get(byte, -1)
            if state >= 0:
                found.update(dict.fromkeys(self.tops(self.node(state, top.parent))))
        if len(found) > limits.GRAMMAR_STACKS:
            raise _too_ambiguous()
        return tuple(found)


def _too_ambiguous() -> UserError:
    return UserError(
        "The grammar can read this text in too many ways at once; please make its rules differ in what they begin with."
    )


class Parser:
    """Reads a text byte by byte and remembers the tops before each byte, so that it can go back."""

    def __init__(self, automaton: Automaton):
        self.automaton = automaton
        self.stacks = Stacks(automaton)
        self._history = [self.stacks.tops(self.stacks.node(automaton.start[0]))]

    @property
    def tops(self) -> tuple[Node, ...]:
        return self._history[-1]

    @property
    def length(self) -> int:
        """Bytes read."""
        return len(self._history) - 1

    def accept(self, data: bytes) -> int:
        """Read `data` up to the first byte that does not fit; gives how many did."""
        for k, byte in enumerate(data):
            tops = self.stacks.step(self._history[-1], byte)
            if not tops:
                return k
            self._history.append(tops)
        return len(data)

    def rollback(self, n: int) -> None:
        """Forget the last n bytes. ValueError: there are fewer."""
        if not 0 <= n <= self.length:
            raise ValueError(f"cannot go back {n} of {self.length} bytes")
        del self._history[len(self._history) - n :]

    def may_end(self) -> bool:
        """Whether the text so far is complete."""
        return BOTTOM in self.tops

    def next_bytes(self) -> list[int]:
        """The bytes that may come next, in order."""
        found: set[int] = set()
        for top in self.tops:
            if top is not BOTTOM:
                found.update(self.automaton.next[top.state])
        return sorted(found)

    def forced(self) -> bytes:
        """What must come next, whoever writes it: as long as the text may not end and only one byte fits."""
        found = bytearray()
        while not self.may_end() and len(choice := self.next_bytes()) == 1:
            self.accept(bytes(choice))
            found += bytes(choice)
        self.rollback(len(found))
        return bytes(found)


def byte_set(values: Iterable[int]) -> str:
    """Bytes as text: characters, ranges from three on, and two digits for what is no visible character."""
    values = sorted(values)
    parts, i = [], 0
    while i < len(values):
        j = i
        while j + 1 < len(values) and values[j + 1] == values[j] + 1:
            j += 1
        if j - i >= 2:
            parts.append(f"{byte_name(values[i])}–{byte_name(values[j])}")
        else:
            parts += [byte_name(v) for v in values[i : j + 1]]
        i = j + 1
    return " ".join(parts)


def byte_name(byte: int) -> str:
    signs = {0x20: "␣", 0x0A: "⏎", 0x09: "⇥", 0x0D: "␍"}
    return signs.get(byte) or (chr(byte) if 0x20 < byte < 0x7F else f"{byte:02X}")
