r"""**LiB learns its vocabulary the way a reader might.** It reads small portions of text again and again.
Two chunks that it meets side by side twice become one new chunk. Every long chunk is put to the test:
does reading on with it take fewer steps than reading on with its shorter rival? Winners move up a ranked
list, losers move down and fall off its end. Nothing says where a word begins, so the vocabulary ends up
with parts of words, words and multi-word expressions (`in front of the`) side by side.

The name, *less is better*, is the aim: few **tokens** (effort of reading) and few **types** (effort of
remembering) at once.

**State.** A ranked list of chunks, a set of chunks on probation, and a trie for look-up. Reading is greedy:
at place $i$ the longest chunk that matches is the next unit.

**One epoch** reads one document, 200 sentences drawn at random.

1. *Memorize.* With probability $p_\text{in}$ the chunk before $i$ and the chunk at $i$, joined, are a
   candidate (if not longer than the limit). At its second meeting in the document it enters the list, at the
   lowest rank.
2. *Test.* Let $a$ be the longest and $b$ the second longest chunk at $i$. Read on greedily after each until
   both readings $A, B$ stand at the same place. With $u$ unknown characters, $n$ units and ranks $r$ (0 is
   best), $a$ is **bad** if
   $$u_A > u_B \quad\text{or}\quad u_A = u_B \wedge \Big(n_A > n_B \vee \big(n_A = n_B \wedge
   \textstyle\sum_A r > \sum_B r\big)\Big).$$
   Bad: a vote against $a$ and one for $b$. Good: a vote for $a$, which also ends its probation.
3. *Forget.* Each chunk on probation loses one of its lives; without any left it is deleted.
4. *Vote.* A vote moves the chunk at rank $r$ by $\lfloor \text{rate} \cdot r \rfloor + 1$ places, forward or
   back. What moves past the end is deleted. Then the last $10^{-4}$ of the list goes on probation.

The finished tokenizer reads greedily, longest chunk first. All characters of the training text, and the 256
bytes, stay in its vocabulary outside the ranking, so that every text can be read.

**The numbers** are on sentences that were held out before learning. *Bits per character*: an interpolated
bigram model over the units (Witten-Bell) predicts the text,
$$P(u \mid h) = \frac{c(h,u) + T(h)\,P(u)}{c(h) + T(h)}, \qquad P(u) = \frac{c(u) + T / V}{N + T},$$
with counts $c$, $T(h)$ different units seen after $h$, and $T$ in all. *Description length*: bits to spell the
vocabulary, and bits to write the training text with it. *Boundary F1*: agreement of the cuts with the edges of
words; a cut on either side of a space counts as the same place.

**What is measured.** Two corpora: the project's own stories (another draw than the one shown here), and prose
from the docstrings of Python's standard library; distinct sentences, a tenth of them held out. Spaces are kept,
chunks have at most 16 characters, 800 epochs, the other settings as in the authors' demo, three seeds. The
claim holds if on **both** corpora, on average over the seeds,

1. LiB needs fewer tokens than words split at spaces when both have equally many types: LiB is taken at the epoch
   in which it first has as many types as there are words. Where it never has that many, the most frequent words
   are taken and the others spelled.
2. LiB needs fewer bits per character than BPE with the same number of types, trained without any splitting at
   spaces.

Shown beside it, and not part of the verdict: words with punctuation split off as well, which are fewer types; LiB
with its lowest ranks dropped until it has as many types as words; the tokens of BPE; spaces removed.

Source: J. Yang, *Rethinking Tokenization: Crafting Better Tokenizers for Large Language Models* (2024);
the algorithm is from J. Yang, S. L. Frank and A. van den Bosch, *Less is Better: A cognitively
inspired unsupervised model for language segmentation* (CogALex 2020). Left out: skip-gram chunks, which are off
in the authors' demo too.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Annotated, NamedTuple

from tokenlab import guard, views
from tokenlab.controls import Choice, Seed, Slider, Switch, Text
from tokenlab.errors import UserError
from tokenlab.measurement import Measurement
from tokenlab.text import story_corpus
from tokenlab.text.tokenization import graphemes

SECONDS = 240.0  # 3,000 epochs of long sentences

MINI_GAP = 7  # longest unknown stretch that is remembered as one chunk (the authors' demo)
P_OUT = 1e-4  # share of the list, from its end, that goes on probation after every epoch
DOCUMENT = 200  # sentences that one epoch reads

SHIPPED = Path(__file__).parents[2] / "assets" / "text" / "lib_lexicon.json"


# --- the lexicon -----------------------------------------------------------------------------------


class Lexicon:
    """A ranked list of chunks, and a trie that finds the longest ones at a place of a text.

    order: chunks, best first; rank: chunk -> its place in `order`, out of date after `vote` and `remove`
    until `rerank`; alphabet: characters that stay readable whatever happens to the list."""

    def __init__(self, alphabet: Sequence[str], max_len: int, chunks: Sequence[str] = ()):
        self.alphabet = frozenset(alphabet)
        self.max_len = max_len
        self.order: list[str] = []
        self.rank: dict[str, int] = {}
        self.trie: dict = {}
        for chunk in chunks:
            self.add(chunk)

    def __len__(self) -> int:
        return len(self.order)

    def __contains__(self, chunk: str) -> bool:
        return chunk in self.rank

    def add(self, chunk: str) -> None:
        """Put a new chunk at the end of the list."""
        self.rank[chunk] = len(self.order)
        self.order.append(chunk)
        node = self.trie
        for character in chunk:
            node = node.setdefault(character, {})
        node[""] = True  # a chunk ends here

    def remove(self, chunk: str) -> None:
        self.order.remove(chunk)
        del self.rank[chunk]
        path = [self.trie]
        for character in chunk:
            path.append(path[-1][character])
        del path[-1][""]
        for character, parent in zip(reversed(chunk), reversed(path[:-1]), strict=True):
            if parent[character]:
                break
            del parent[character]

    def match(self, text: str, i: int) -> tuple[int, int]:
        """Lengths of the second longest and of the longest chunk that begins at text[i]; 0: none."""
        node, second, first = self.trie, 0, 0
        for length, character in enumerate(text[i : i + self.max_len], 1):
            node = node.get(character)
            if node is None:
                break
            if "" in node:
                second, first = first, length
        return second, first

    def vote(self, chunk: str, sign: int, rate: float) -> None:
        """Move a chunk towards the front (-1) or the back (+1); past the end it is deleted, rank 0 stays.

        The place is looked up afresh: every vote shifts others, so that no rank from before the votes is true."""
        place = self.order.index(chunk)
        if place == 0:
            return
        target = place + sign * (int(place * rate) + 1)
        if target >= len(self.order):
            self.remove(chunk)
        else:
            self.order.insert(target, self.order.pop(place))

    def rerank(self) -> None:
        self.rank = {chunk: place for place, chunk in enumerate(self.order)}

    def cut(self, text: str) -> list[bytes]:
        """Greedy longest match; a character that is in neither list nor alphabet falls into its bytes."""
        units, i = [], 0
        while i < len(text):
            unit = text[i : i + max(1, self.match(text, i)[1])]
            i += len(unit)
            data = unit.encode()
            known = unit in self.rank or unit in self.alphabet
            units += [data] if known else [bytes([byte]) for byte in data]
        return units

    def entries(self) -> list[bytes]:
        """The vocabulary without the bytes: the alphabet, then the longer chunks, best first."""
        return [c.encode() for c in sorted(self.alphabet)] + [c.encode() for c in self.order if c not in self.alphabet]

    def parts(self, chunk: str, depth: int = 2) -> list[str]:
        """Sub-chunks: the best-ranked pair that spells the chunk, if both rank above it; again inside each."""
        pairs = [(chunk[:i], chunk[i:]) for i in range(1, len(chunk))]
        ranked = [(self.rank[a], self.rank[b], a, b) for a, b in pairs if a in self.rank and b in self.rank]
        if not depth or not ranked:
            return [chunk]
        rank_a, rank_b, a, b = min(ranked)
        if max(rank_a, rank_b) >= self.rank.get(chunk, len(self.order)):
            return [chunk]
        return self.parts(a, depth - 1) + self.parts(b, depth - 1)


# --- the learner -----------------------------------------------------------------------------------


class Contest(NamedTuple):
    """A test: the reading with the longest chunk against the reading with the second longest."""

    longer: list[str]
    shorter: list[str]
    bad: bool
    because: str


class LiB:
    """The Less-is-Better learner. `epoch()` reads one document and brings the lexicon up to date."""

    def __init__(
        self,
        sentences: Sequence[str],
        *,
        p_in: float = 0.25,
        rate: float = 0.2,
        life: int = 10,
        max_len: int = 16,
        seed: int = 0,
    ):
        self.sentences = sentences
        self.p_in, self.rate, self.life = p_in, rate, life
        self.rng = random.Random(seed)
        first = sorted(set("".join(self.document())))
        self.lexicon = Lexicon(sorted(set("".join(sentences))), max_len, first)
        self.probation = dict.fromkeys(first, life)
        self.contests: deque[Contest] = deque(maxlen=20)

    def document(self) -> list[str]:
        return self.rng.sample(self.sentences, min(DOCUMENT, len(self.sentences)))

    def epoch(self) -> None:
        want: set[str] = set()  # candidates met once
        votes: list[tuple[str, int]] = []
        for sentence in self.document():
            self.read(sentence, want, votes)
        self.forget()
        self.elect(votes)

    def read(self, sentence: str, want: set[str], votes: list[tuple[str, int]]) -> None:
        """Walk through a sentence by longest match; memorize and test on the way."""
        i, before, gap = 0, "", ""  # the chunk before i; else the unknown stretch before i
        while i < len(sentence):
            second, first = self.lexicon.match(sentence, i)
            if not first:
                before, gap, i = "", gap + sentence[i], i + 1
                continue
            chunk = sentence[i : i + first]
            if self.rng.random() < self.p_in:
                candidate, longest = (before + chunk, self.lexicon.max_len) if before else (gap, MINI_GAP)
                if 0 < len(candidate) <= longest:
                    self.memorize(candidate, want)
            if second:
                self.test(sentence, i, second, first, votes)
            else:  # nothing to compare with: this chunk is needed
                self.probation.pop(chunk, None)
            before, gap, i = chunk, "", i + first

    def memorize(self, candidate: str, want: set[str]) -> None:
        """The first meeting in a document is noted, the second makes it a chunk."""
        if candidate in self.lexicon:
            return
        if candidate in want:
            want.remove(candidate)
            self.lexicon.add(candidate)
        else:
            want.add(candidate)

    def test(self, sentence: str, i: int, second: int, first: int, votes: list[tuple[str, int]]) -> None:
        """Read on from sentence[i] with the longest and with the second longest chunk until the readings meet."""
        a, b = i + first, i + second
        longer, shorter = [sentence[i:a]], [sentence[i:b]]
        unknown_a = unknown_b = 0
        while a != b:
            place, units = (a, longer) if a < b else (b, shorter)
            length = self.lexicon.match(sentence, place)[1]
            if length:
                units.append(sentence[place : place + length])
            if a < b:
                a += length or 1
                unknown_a += not length
            else:
                b += length or 1
                unknown_b += not length
        if a == len(sentence):
            return  # the end of the sentence forced them together: no verdict
        bad, because = verdict(longer, shorter, unknown_a, unknown_b, self.lexicon.rank)
        self.contests.append(Contest(longer, shorter, bad, because))
        if bad:
            votes += [(longer[0], 1), (shorter[0], -1)]
        else:
            votes.append((longer[0], -1))
            self.probation.pop(longer[0], None)

    def forget(self) -> None:
        """Chunks on probation lose a life; those without any left are deleted."""
        for chunk in list(self.probation):
            self.probation[chunk] -= 1
            if self.probation[chunk] <= 0:
                del self.probation[chunk]
                self.lexicon.remove(chunk)

    def elect(self, votes: list[tuple[str, int]]) -> None:
        """Carry out the votes in their order, then put the end of the list on probation."""
        lexicon = self.lexicon
        for chunk, sign in votes:
            if chunk in lexicon:
                lexicon.vote(chunk, sign, self.rate)
                if chunk not in lexicon:
                    self.probation.pop(chunk, None)
        lexicon.rerank()
        for chunk in lexicon.order[int((1 - P_OUT) * len(lexicon)) :]:
            self.probation.setdefault(chunk, self.life)


def verdict(
    longer: list[str], shorter: list[str], unknown_a: int, unknown_b: int, rank: dict[str, int]
) -> tuple[bool, str]:
    """(is the longest chunk bad, why). longer, shorter: the known units of the two readings.

    As in the authors' code, unknown characters count as units of the shorter reading only."""
    if unknown_a != unknown_b:
        return unknown_a > unknown_b, "fewer unknown characters"
    a, b = len(longer), len(shorter) + unknown_b
    if a != b:
        return a > b, "fewer units"
    return sum(rank[unit] for unit in longer) > sum(rank[unit] for unit in shorter), "as many units, better ranks"


# --- sentences and words ---------------------------------------------------------------------------

_END = ".!?…。！？"  # noqa: RUF001
# Parts that make up the whole text; bounded, because a reader looks ahead to the end of a sentence. A straight quote
# behind the end is left to the next part: without spaces, nothing says whether it closes or opens.
SENTENCE = rf"\n|[^\n{_END}]{{0,1000}}[{_END}]{{1,100}}[”’)\]]?|[^\n{_END}]{{1,1000}}"
_SENTENCE = re.compile(SENTENCE)
_WORD = re.compile(r"\s*\w+(?:['’-]\w+)*|\s*[^\w\s]+|\s+")
_SPACED = re.compile(r"\s*\S+|\s+")
BLANK = "[ \\t\\r\u00a0\u3000]+"  # the spaces that can be removed
_BLANK = re.compile(BLANK)


class Sentence(NamedTuple):
    """text, and the same in words: with punctuation split off, and split at spaces only.

    A space belongs to the word behind it."""

    text: str
    words: list[str]
    spaced: list[str]


def sentences(text: str, spaces: bool) -> list[Sentence]:
    """The sentences of a text, in order; together they are the text (without its spaces if not `spaces`)."""
    found = (sentence_of(part, spaces) for part in _SENTENCE.findall(text))
    return [sentence for sentence in found if sentence.text]


def sentence_of(text: str, spaces: bool) -> Sentence:
    words, spaced = _WORD.findall(text), _SPACED.findall(text)
    if spaces:
        return Sentence(text, words, spaced)
    words, spaced = ([w for w in (_BLANK.sub("", w) for w in cuts) if w] for cuts in (words, spaced))
    return Sentence("".join(words), words, spaced)


def held_out(corpus: list[Sentence]) -> tuple[list[Sentence], list[Sentence]]:
    """(train, test): every tenth sentence is for the test, unless the training part has it too."""
    full = [sentence for sentence in corpus if sentence.text.strip()]
    train = [sentence for k, sentence in enumerate(full) if k % 10 != 9]
    seen = {sentence.text for sentence in train}
    test = {s.text: s for s in full[9::10] if s.text not in seen}
    return train, list(test.values())


# --- the rivals ------------------------------------------------------------------------------------


class Cutter(NamedTuple):
    """A tokenizer to compare. entries: its vocabulary without bytes that the training text does not have."""

    name: str
    entries: list[bytes]
    cut: Callable[[Sentence], list[bytes]]
    seconds: float  # to make it


def lib_cutter(lexicon: Lexicon, seconds: float, name: str = "LiB") -> Cutter:
    return Cutter(name, lexicon.entries(), lambda sentence: lexicon.cut(sentence.text), seconds)


def sub_chunk_cutter(lexicon: Lexicon, seconds: float) -> Cutter:
    """LiB's chunks taken apart into their sub-chunks, for the comparison with words."""
    parts: dict[bytes, list[bytes]] = {c.encode(): [p.encode() for p in lexicon.parts(c)] for c in lexicon.order}

    def cut(sentence: Sentence) -> list[bytes]:
        return [part for unit in lexicon.cut(sentence.text) for part in parts.get(unit, [unit])]

    return Cutter("LiB, sub-chunks", lexicon.entries(), cut, seconds)


def word_cutter(name: str, words: Sequence[list[str]], of: Callable[[Sentence], list[str]], types: int = 0) -> Cutter:
    """The most frequent words, up to `types` entries with the alphabet (0: all words); others are spelled."""
    start = time.perf_counter()
    alphabet = sorted({character for line in words for word in line for character in word})
    counts = Counter(word for line in words for word in line if len(word) > 1)
    room = max(0, types - len(alphabet)) if types else None
    kept = [word for word, _ in counts.most_common(room)]
    lexicon = Lexicon(alphabet, 1)
    known = set(kept)

    def cut(sentence: Sentence) -> list[bytes]:
        return [u for w in of(sentence) for u in ([w.encode()] if w in known else lexicon.cut(w))]

    return Cutter(name, lexicon.entries() + [word.encode() for word in kept], cut, time.perf_counter() - start)


def character_cutter(train: Sequence[Sentence]) -> Cutter:
    lexicon = Lexicon(sorted({character for sentence in train for character in sentence.text}), 1)
    return Cutter("Characters", lexicon.entries(), lambda sentence: lexicon.cut(sentence.text), 0.0)


def random_cutter(train: Sequence[Sentence], types: int, max_len: int, seed: int) -> Cutter:
    """Greedy longest match with substrings of the training text, drawn at random (place and length)."""
    start = time.perf_counter()
    rng = random.Random(seed)
    lexicon = Lexicon(sorted({character for sentence in train for character in sentence.text}), max_len)
    text = "\n".join(sentence.text for sentence in train)
    for _ in range(100 * types):  # a small text may not have that many
        if len(lexicon) + len(lexicon.alphabet) >= types:
            break
        place = rng.randrange(len(text))
        chunk = text[place : place + rng.randint(2, max_len)]
        if len(chunk) > 1 and "\n" not in chunk and chunk not in lexicon:
            lexicon.add(chunk)
    seconds = time.perf_counter() - start
    return Cutter("Random chunks", lexicon.entries(), lambda sentence: lexicon.cut(sentence.text), seconds)


def bpe_cutter(train: Sequence[Sentence], types: int) -> Cutter:
    """Byte-level BPE of the same size, trained on whole sentences: merges may cross spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    start = time.perf_counter()
    seen = {byte for sentence in train for byte in sentence.text.encode()}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=types + 256 - len(seen),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((sentence.text for sentence in train), trainer)
    pieces = [spelled_bytes(piece) for piece, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    entries = [piece for piece in pieces if len(piece) > 1 or piece[0] in seen]

    def cut(sentence: Sentence) -> list[bytes]:
        return [pieces[i] for i in tokenizer.encode(sentence.text).ids]

    return Cutter("BPE", entries, cut, time.perf_counter() - start)


def byte_characters() -> list[str]:
    """The printable character that byte-level tokenizers write for each byte (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


_CHARACTER_OF = byte_characters()
_BYTE_OF = {character: byte for byte, character in enumerate(_CHARACTER_OF)}


def spelled_bytes(piece: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in piece)


def ids_of(lexicon: Lexicon) -> dict[bytes, int]:
    """Ids of the finished tokenizer: the 256 bytes, then the longer entries, best first."""
    pieces = [bytes([byte]) for byte in range(256)] + [entry for entry in lexicon.entries() if len(entry) > 1]
    return {piece: i for i, piece in enumerate(pieces)}


def to_tokenizer_json(lexicon: Lexicon, spaces: bool) -> str:
    """The lexicon as a tokenizer.json: WordPiece without a prefix is greedy longest match.

    It works on bytes, all 256 of which are entries, so that there is nothing that it cannot read."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    vocabulary = {"".join(_CHARACTER_OF[byte] for byte in piece): i for piece, i in ids_of(lexicon).items()}
    vocabulary["[UNK]"] = len(vocabulary)  # WordPiece wants one; it never occurs
    model = models.WordPiece(
        vocabulary, unk_token="[UNK]", max_input_chars_per_word=5000, continuing_subword_prefix=""
    )  # a sentence has at most 1,101 characters: 4,404 bytes
    tokenizer = Tokenizer(model)
    if not spaces:
        tokenizer.normalizer = normalizers.Replace(Regex(BLANK), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SENTENCE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str(pretty=True)


# --- the numbers -----------------------------------------------------------------------------------

END = b""  # the unit behind the last and before the first of a sentence


class WittenBell:
    """Bigram model over units, interpolated with unigrams and these with 1 / outcomes (Witten and Bell, 1991).

    lines: the units of each training sentence; outcomes: all units that the tokenizer can write, and END."""

    def __init__(self, lines: Sequence[list[bytes]], outcomes: int):
        self.outcomes = outcomes
        self.unigrams = Counter(unit for line in lines for unit in (*line, END))
        self.bigrams = Counter(pair for line in lines for pair in zip((END, *line), (*line, END), strict=True))
        self.followers = Counter(before for before, _ in self.bigrams)  # different units after each
        self.total = self.unigrams.total()

    def p(self, unit: bytes, before: bytes) -> float:
        types = len(self.unigrams)
        unigram = (self.unigrams[unit] + types / self.outcomes) / (self.total + types)
        followers = self.followers[before]
        if not followers:
            return unigram
        # Each unit stands before another as often as it occurs: END is the one before every first unit.
        return (self.bigrams[before, unit] + followers * unigram) / (self.unigrams[before] + followers)

    def bits(self, line: list[bytes]) -> float:
        """The cost of a sentence and its end, in bits."""
        return -sum(math.log2(self.p(unit, before)) for before, unit in zip((END, *line), (*line, END), strict=True))


def edges(units: Sequence[bytes]) -> set[int]:
    """The inner cuts of a sentence, as places in its bytes without spaces."""
    places = set(accumulate(len(unit.replace(b" ", b"")) for unit in units))
    return places - {0, max(places, default=0)}


def boundary_f1(cuts: Sequence[list[bytes]], words: Sequence[list[str]]) -> float:
    """Harmonic mean of precision and recall of the inner cuts against the edges of words, 0..1."""
    right = made = true = 0
    for units, gold in zip(cuts, words, strict=True):
        found, wanted = edges(units), edges([word.encode() for word in gold])
        right, made, true = right + len(found & wanted), made + len(found), true + len(wanted)
    return 2 * right / (made + true) if made + true else 1.0


class Score(NamedTuple):
    """Units: tokens per 1,000 characters, bits per character, lexicon and tokens in kilobit, F1 0..1, seconds."""

    name: str
    types: int
    tokens: float
    bits: float
    lexicon: float
    text: float
    f1: float
    seconds: float


def score(cutter: Cutter, train: Sequence[Sentence], test: Sequence[Sentence]) -> Score:
    """Tokens, bits per character and F1 on `test`; description length on `train`."""
    train_cuts = [cutter.cut(sentence) for sentence in train]
    guard.check_time()
    test_cuts = [cutter.cut(sentence) for sentence in test]
    characters = sum(len(sentence.text) for sentence in test)
    single_bytes = {bytes([byte]) for byte in range(256)}
    model = WittenBell(train_cuts, len(single_bytes | set(cutter.entries)) + 1)
    lexicon, text = description_length(cutter.entries, train_cuts)
    return Score(
        cutter.name,
        len(cutter.entries),
        1000 * sum(map(len, test_cuts)) / characters,
        sum(model.bits(line) for line in test_cuts) / characters,
        lexicon / 1000,
        text / 1000,
        boundary_f1(test_cuts, [sentence.words for sentence in test]),
        cutter.seconds,
    )


def description_length(entries: Sequence[bytes], cuts: Sequence[list[bytes]]) -> tuple[float, float]:
    """(bits of the lexicon, bits of the text).

    The lexicon spells every entry of more than one character, and its end, with equally long codes for the
    characters; the text is written with ideal codes for the units, by their frequency in it."""
    texts = [entry.decode("utf-8", "replace") for entry in entries]
    per_character = math.log2(1 + len({character for text in texts for character in text}))
    lexicon = per_character * sum(len(text) + 1 for text in texts if len(text) > 1)
    counts = Counter(unit for line in cuts for unit in line)
    total = counts.total()
    return lexicon, -sum(n * math.log2(n / total) for n in counts.values())


# --- the panel -------------------------------------------------------------------------------------

STORIES = 250  # in the default corpus
SHOWN = 1500  # characters of the text in the strip
REDRAW = 0.5  # seconds between partial results
CLIMBERS = 20  # chunks whose way through the ranks is drawn
LEGEND = ("several words", "part of a word", "cuts through words")


@dataclass(frozen=True)
class Result:
    """What the panel shows, in order. The last two come when all epochs are done."""

    strip: views.TokenStrip
    climb: views.Lines
    curve: views.Lines
    contests: views.Table
    numbers: views.Table | None
    made: views.Made | None


def run(
    corpus: Annotated[
        str,
        Choice("Corpus", "stories: children's stories of our own", options=("stories", "pasted text"), style="buttons"),
    ] = "stories",
    text: Annotated[
        str,
        Text(
            "Your text",
            "every tenth sentence is kept for the numbers",
            ("corpus", "pasted text"),
            lines=8,
            shortest=400,
            shared="text",
        ),
    ] = "",
    spaces: Annotated[
        str, Choice("Spaces", "kept: part of the chunks, shown as \u2581", options=("kept", "removed"), style="buttons")
    ] = "kept",
    epochs: Annotated[int, Slider("Epochs", "documents of 200 sentences", minimum=10, maximum=3000, step=10)] = 150,
    p_in: Annotated[float, Slider("Chance to memorize", "p_in", minimum=0.0, maximum=1.0, step=0.05)] = 0.25,
    rate: Annotated[float, Slider("Rate of a vote", "share of the rank", minimum=0.05, maximum=0.5, step=0.05)] = 0.2,
    life: Annotated[int, Slider("Lives on probation", "epochs", minimum=2, maximum=50, step=1)] = 10,
    max_len: Annotated[int, Slider("Longest chunk", "characters", minimum=4, maximum=24, step=1)] = 16,
    bpe: Annotated[bool, Switch("BPE twin", "a BPE of the same size on the same text")] = True,
    seed: Annotated[int, Seed()] = 0,
) -> Iterator[Result]:
    """Learn a lexicon and watch it: each partial result is the state after some more epochs."""
    kept = spaces == "kept"
    whole = sentences(story_corpus.stories(STORIES) if corpus == "stories" else text, kept)
    train, test = held_out(whole)
    if len(train) < 2:
        raise UserError("Your text: please paste at least two sentences.")
    start = time.perf_counter()
    learner = LiB([s.text for s in train], p_in=p_in, rate=rate, life=life, max_len=max_len, seed=seed)
    words, characters = word_cutter("Words", [s.words for s in train], lambda s: s.words), character_cutter(train)
    watch = Watch(learner, beginning(whole), test or train, [words, characters])
    marks, drawn = milestones(epochs), time.monotonic()
    for epoch in range(1, epochs + 1):
        guard.check_time()
        learner.epoch()
        if epoch in marks:
            watch.note(epoch)
            if epoch < epochs and time.monotonic() - drawn > REDRAW:
                drawn = time.monotonic()
                yield watch.result()
    seconds = time.perf_counter() - start

    lexicon = learner.lexicon
    types = len(lexicon.entries())
    cutters = [lib_cutter(lexicon, seconds), sub_chunk_cutter(lexicon, seconds)]
    if bpe:
        cutters.append(bpe_cutter(train, types))
        watch.add(cutters[-1])
    if corpus == "stories" and kept:
        watch.rows.append(lib_row(*shipped_lexicon(), watch.shown, " (shipped)"))
    cutters.append(words)
    if len(words.entries) > types:
        cutters.append(word_cutter("Words, as many types", [s.words for s in train], lambda s: s.words, types))
    cutters += [characters, random_cutter(train, types, max_len, seed)]
    where = "held-out sentences" if test else "the text itself, which is too short to hold any of it out"
    numbers = numbers_table("The numbers", [score(cutter, train, test or train) for cutter in cutters], where)
    made = views.Made(
        title="The tokenizer",
        note="The tokenizers library reads it; it cuts every text as the strip above does.",
        control="",
        value="",
        label=f"LiB tokenizer with {types:,} types",
        filename="lib-tokenizer.json",
        content=to_tokenizer_json(lexicon, kept),
    )
    yield watch.result(numbers, made)


def milestones(epochs: int) -> set[int]:
    """About 16 epochs from 1 to the last one, dense at the start, where most of it happens."""
    return {max(1, round(epochs ** (k / 15))) for k in range(16)}


def beginning(whole: Sequence[Sentence]) -> list[Sentence]:
    """Whole sentences from the start, about SHOWN characters, at least one."""
    sizes = accumulate(len(sentence.text) for sentence in whole)
    return [s for k, (s, size) in enumerate(zip(whole, sizes, strict=True)) if not k or size <= SHOWN]


def tokens_per_1000(cutter: Cutter, test: Sequence[Sentence], most: int = 200) -> float:
    sample = test[:most]
    return 1000 * sum(len(cutter.cut(sentence)) for sentence in sample) / sum(len(s.text) for s in sample)


def visible(chunk: str) -> str:
    return chunk.replace(" ", "\u2581")


def word_marks(units: Sequence[bytes], sentence: Sentence) -> list[int]:
    """Per unit 0, or 1 + index into LEGEND: several whole words, a part of one, parts of several.

    Spaces and punctuation belong to no word."""
    owner: list[int] = []  # per byte: number of its word, -1 outside words
    for number, word in enumerate(sentence.words):
        core = word.lstrip()
        is_word = core[:1].isalnum() or core[:1] == "_"
        owner += [-1] * (len(word.encode()) - len(core.encode()))
        owner += [number if is_word else -1] * len(core.encode())
    size, marks, place = Counter(owner), [], 0
    for unit in units:
        covered = Counter(owner[place : place + len(unit)])
        del covered[-1]
        place += len(unit)
        whole = all(covered[word] == size[word] for word in covered)
        marks.append((0 if whole else 2) if len(covered) < 2 else (1 if whole else 3))
    return marks


def strip_row(
    name: str,
    cut: Callable[[Sentence], list[bytes]],
    shown: Sequence[Sentence],
    ids: dict[bytes, int] | None = None,
    details: Callable[[str], str] | None = None,
) -> views.StripRow:
    cuts = [cut(sentence) for sentence in shown]
    units = [unit for line in cuts for unit in line]
    ends, end = [], 0
    for unit in units:
        end += len(unit)
        ends.append(end)
    lines = {k: details(unit.decode("utf-8", "replace")) for k, unit in enumerate(units)} if details else {}
    return views.StripRow(
        name=name,
        starts=(0, *ends[:-1]),
        ends=tuple(ends),
        ids=tuple(ids[unit] for unit in units) if ids else (),
        marks=tuple(mark for line, s in zip(cuts, shown, strict=True) for mark in word_marks(line, s)),
        details={k: line for k, line in lines.items() if line},
    )


def lib_row(lexicon: Lexicon, epochs: int, shown: Sequence[Sentence], suffix: str = "") -> views.StripRow:
    def details(chunk: str) -> str:
        if chunk not in lexicon:
            return "not in the ranked list"
        parts = lexicon.parts(chunk)
        split = f"; sub-chunks: {' + '.join(map(visible, parts))}" if len(parts) > 1 else ""
        return f"rank {lexicon.rank[chunk] + 1:,} of {len(lexicon):,}{split}"

    name = f"LiB after {epochs:,} epochs{suffix}, {len(lexicon.entries()):,} types"
    return strip_row(name, lambda s: lexicon.cut(s.text), shown, ids_of(lexicon), details)


@dataclass
class Watch:
    """What is noted while the learner learns, and the views of it.

    shown: the sentences of the strip; test: held-out sentences; yardsticks: points beside LiB's curve;
    rows: rows of the strip between LiB and the words; the rest: per milestone."""

    learner: LiB
    shown: Sequence[Sentence]
    test: Sequence[Sentence]
    yardsticks: list[Cutter]
    rows: list[views.StripRow] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    ranks: list[dict[str, int]] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def note(self, epoch: int) -> None:
        lexicon = self.learner.lexicon
        self.epochs.append(epoch)
        self.ranks.append(dict(lexicon.rank))
        self.types.append(len(lexicon.entries()))
        self.tokens.append(tokens_per_1000(lib_cutter(lexicon, 0.0), self.test))

    def add(self, cutter: Cutter) -> None:
        self.yardsticks.append(cutter)
        self.rows.append(strip_row(f"{cutter.name}, {len(cutter.entries):,} types", cutter.cut, self.shown))

    def result(self, numbers: views.Table | None = None, made: views.Made | None = None) -> Result:
        return Result(self.strip(), self.climb(), self.curve(), self.contests(), numbers, made)

    def strip(self) -> views.TokenStrip:
        words = strip_row("Words", lambda s: [word.encode() for word in s.words], self.shown)
        return views.TokenStrip(
            title="How the text is read",
            note="The beginning of the text. In the row of words, a space belongs to the word behind it.",
            graphemes=tuple(graphemes("".join(sentence.text for sentence in self.shown))),
            rows=(lib_row(self.learner.lexicon, self.epochs[-1], self.shown), *self.rows, words),
            legend=LEGEND,
        )

    def climb(self) -> views.Lines:
        best = [chunk for chunk in self.learner.lexicon.order if len(chunk.strip()) > 1][:CLIMBERS]
        epochs = tuple(self.epochs)
        return views.Lines(
            title="The way up the ranked list",
            note=f"The {len(best)} best chunks of more than one letter; a line begins when its chunk is remembered.",
            series=tuple(
                views.Series(name=visible(c), x=epochs, y=tuple(r[c] + 1 if c in r else None for r in self.ranks))
                for c in best
            ),
            x="epoch",
            y="rank (1 is best)",
            log_x=True,
            log_y=True,
            reverse_y=True,
        )

    def curve(self) -> views.Lines:
        points = ((c.name, len(c.entries), tokens_per_1000(c, self.test)) for c in self.yardsticks)
        return views.Lines(
            title="Tokens against types",
            note="Down and to the left is less effort. Every point of LiB is some epochs further on.",
            series=(
                views.Series(name="LiB", x=tuple(self.types), y=tuple(self.tokens)),
                *(views.Series(name=name, x=(x,), y=(y,), points=True, labels=(name,)) for name, x, y in points),
            ),
            x="types",
            y="tokens per 1,000 characters",
            log_x=True,
        )

    def contests(self) -> views.Table:
        return views.Table(
            title="The last tests",
            note="Longest chunk against second longest, each read on until both stand at the same place.",
            columns=("winner", "loser", "winner is", "because"),
            rows=tuple(contest_row(contest) for contest in reversed(self.learner.contests)),
        )


def contest_row(contest: Contest) -> tuple[str, str, str, str]:
    readings = [" + ".join(map(visible, reading)) for reading in (contest.longer, contest.shorter)]
    winner, loser = reversed(readings) if contest.bad else readings
    return winner, loser, "the shorter chunk" if contest.bad else "the longer chunk", contest.because


NUMBERS = {
    "types": "entries of the vocabulary; bytes that the training text does not have are not counted",
    "tokens per 1,000 characters": "units of the text; fewer is less effort",
    "bits per character": "what a bigram model over the units needs to predict the text; fewer is better",
    "lexicon [kbit]": "to spell all entries of more than one character",
    "text [kbit]": "to write the training text as entries, with ideal codes by frequency",
    "description length [kbit]": "lexicon and text together",
    "boundary F1 [%]": "agreement of the cuts with the edges of words and punctuation marks",
    "made in [s]": "wall clock for learning; sub-chunks come with LiB",
}


def numbers_table(title: str, scores: Sequence[Score], where: str) -> views.Table:
    return views.Table(
        title=title,
        note=f"Tokens, bits per character and F1 are on {where}.",
        columns=("tokenizer", *NUMBERS),
        rows=tuple(
            (
                s.name,
                s.types,
                round(s.tokens, 1),
                round(s.bits, 3),
                round(s.lexicon, 1),
                round(s.text, 1),
                round(s.lexicon + s.text, 1),
                round(100 * s.f1, 1),
                round(s.seconds, 2),
            )
            for s in scores
        ),
        help=NUMBERS,
    )


def shipped_lexicon() -> tuple[Lexicon, int]:
    """The lexicon in assets/text and the epochs it took (recipes/lib_lexicon.py)."""
    stored = json.loads(SHIPPED.read_text("utf-8"))
    return Lexicon(stored["alphabet"], stored["max_len"], stored["order"]), stored["epochs"]


# --- the experiment --------------------------------------------------------------------------------

JUDGED = 800  # epochs; the demo's order of magnitude, fixed beforehand
SWEEP = (5, 20, 50, 100, 200, 400, JUDGED, 1600)
SEEDS = 3
T_95 = 4.303  # Student's t for two degrees of freedom: the interval of a mean of three
MOST = 6000  # sentences of each corpus


def measure(seed: int = 0) -> Measurement:
    """The claim as the module's docstring fixes it. About seven minutes on one core."""
    corpora = {
        "stories": [s.text for s in sentences(story_corpus.stories(600, seed=1), True)],
        "docstrings": docstring_prose(),
    }
    return experiment(corpora, seed=seed)


def docstring_prose() -> list[str]:
    """English sentences from the docstrings of the standard library, in the order of its files.

    Sentences of at least five words, of letters and plain punctuation only: no code."""
    import ast
    import sysconfig

    library = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idlelib", "site-packages", "dist-packages", "lib2to3", "__pycache__"}
    prose: dict[str, None] = {}
    for path in sorted(library.rglob("*.py")):
        if left_out & set(path.relative_to(library).parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for paragraph in (ast.get_docstring(node) or "").split("\n\n"):
                    for part in re.findall(r"[^.!?]+[.!?]+(?=\s|$)", " ".join(paragraph.split())):
                        if re.fullmatch(r" ?[A-Z][A-Za-z ,;:'()-]*[.!?]", part) and part.strip().count(" ") >= 4:
                            prose[part.strip()] = None
    return list(prose)


def experiment(
    corpora: dict[str, list[str]],
    seed: int = 0,
    judged: int = JUDGED,
    sweep: Sequence[int] = SWEEP,
    seeds: int = SEEDS,
    most: int = MOST,
) -> Measurement:
    """corpora: name -> sentences. The first one gives the measurement's value; all are judged."""
    start = time.perf_counter()
    scores: dict[tuple[str, bool, int], dict[str, list[Score]]] = {}  # (corpus, spaces, epochs) -> name -> per seed
    tested = 0
    for name, texts in corpora.items():
        for spaces in (True, False):
            for offset in range(seeds):
                train, test = split(texts, spaces, seed + offset, most)
                tested += len(test) if spaces else 0
                stops = sweep if spaces else (judged,)
                for epochs, found in sweep_scores(train, test, stops, judged, seed + offset):
                    for one in found:
                        scores.setdefault((name, spaces, epochs), {}).setdefault(one.name, []).append(one)
    verdicts = [judge(name, scores[name, True, judged]) for name in corpora]
    lost = [lost_to_bpe([scores[name, True, epochs] for epochs in sorted({*sweep, judged})]) for name in corpora]
    first = scores[next(iter(corpora)), True, judged]
    value, low, high = interval([s.bits for s in first["LiB"]])
    baseline = mean([s.bits for s in first["BPE"]])
    return Measurement(
        claim="LiB needs fewer tokens than words split at spaces with equally many types, and fewer bits per "
        "character than BPE of the same size without splitting at spaces.",
        metric=f"bits per character of a bigram model ({next(iter(corpora))}, held out)",
        unit="bits per character",
        value=value,
        baseline_name="BPE of the same size",
        baseline=baseline,
        bar=baseline,
        direction="lower",
        holds=all(holds for holds, _ in verdicts),
        reason="\n".join(f"{sentence} {where}" for (_, sentence), where in zip(verdicts, lost, strict=True)),
        paper="The paper argues that a LiB lexicon mixes parts of words, words and multi-word expressions, and that it "
        "has fewer tokens and fewer types than words and BPE on English and Chinese text.",
        n=tested,
        seed=seed,
        seconds=time.perf_counter() - start,
        random=mean([s.bits for s in first["Random chunks"]]),
        low=low,
        high=high,
        figures=tuple(figures(scores, corpora, judged)),
    )


def split(texts: Sequence[str], spaces: bool, seed: int, most: int) -> tuple[list[Sentence], list[Sentence]]:
    """(train, test): distinct sentences in random order, nine tenths and one tenth. Documents are drawn later."""
    distinct = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    random.Random(seed).shuffle(distinct)
    chosen = [sentence_of(text, spaces) for text in distinct[:most]]
    edge = len(chosen) * 9 // 10
    return chosen[:edge], chosen[edge:]


BAR = "words split at spaces"
KINDS: dict[str, Callable[[Sentence], list[str]]] = {
    BAR: lambda sentence: sentence.spaced,
    "words and punctuation": lambda sentence: sentence.words,
}


def sweep_scores(
    train: list[Sentence], test: list[Sentence], stops: Sequence[int], judged: int, seed: int
) -> Iterator[tuple[int, list[Score]]]:
    """At each of the epochs `stops`: (epochs, scores of LiB and its rivals with as many types)."""
    learner = LiB([sentence.text for sentence in train], seed=seed)
    everything = {kind: word_cutter(f"All {kind}", [of(s) for s in train], of) for kind, of in KINDS.items()}
    alike: dict[str, Cutter] = {}  # kind -> LiB when it first had as many types as there are such words
    seconds = 0.0
    for epoch in range(1, max(stops) + 1):
        start = time.perf_counter()
        learner.epoch()
        seconds += time.perf_counter() - start
        types = len(learner.lexicon.entries())
        for kind, words in everything.items():
            if kind not in alike and (types >= len(words.entries) or epoch == judged):
                equal = smaller(learner.lexicon, len(words.entries))
                alike[kind] = lib_cutter(equal, seconds, f"LiB, as many types as {kind}")
        if epoch not in stops:
            continue
        cutters = [lib_cutter(learner.lexicon, seconds), bpe_cutter(train, types)]
        cutters += [word_cutter(kind, [of(s) for s in train], of, types) for kind, of in KINDS.items()]
        if epoch == judged:
            cutters += [sub_chunk_cutter(learner.lexicon, seconds), *everything.values(), *alike.values()]
            for kind, words in everything.items():
                pruned = smaller(learner.lexicon, len(words.entries))
                cutters.append(lib_cutter(pruned, seconds, f"LiB, pruned to as many types as {kind}"))
            cutters += [character_cutter(train), random_cutter(train, types, learner.lexicon.max_len, seed)]
        yield epoch, [score(cutter, train, test) for cutter in cutters]


def smaller(lexicon: Lexicon, types: int) -> Lexicon:
    """A copy with the best chunks only: at most `types` entries with the alphabet."""
    chunks = [chunk for chunk in lexicon.order if chunk not in lexicon.alphabet]
    return Lexicon(lexicon.alphabet, lexicon.max_len, chunks[: types - len(lexicon.alphabet)])


def judge(corpus: str, scores: dict[str, list[Score]]) -> tuple[bool, str]:
    """(does the claim hold on this corpus, the numbers in sentences)."""

    def gap(name: str, rival: str, column: str) -> tuple[bool, str]:
        a, b = ([getattr(s, column) for s in scores[key]] for key in (name, rival))
        center, low, high = interval([x - y for x, y in zip(a, b, strict=True)])
        digits = 3 if column == "bits" else 1
        spread = ", within the spread of the seeds" if low <= 0 <= high else ""
        return center < 0, (
            f"LiB {mean(a):.{digits}f}, {rival} {mean(b):.{digits}f} "
            f"(difference {center:+.{digits}f}, 95 % interval {low:+.{digits}f} to {high:+.{digits}f}{spread})"
        )

    fewer, tokens = gap(f"LiB, as many types as {BAR}", BAR, "tokens")
    better, bits = gap("LiB", "BPE", "bits")
    beside = [gap(f"LiB, as many types as {kind}", kind, "tokens")[1] for kind in KINDS if kind != BAR]
    return fewer and better, (
        f"{corpus.capitalize()}: the claim {'holds' if fewer and better else 'does not hold'}. Tokens per 1,000 "
        f"characters with equally many types: {tokens}. Bits per character: {bits}. Not part of the verdict, tokens "
        f"per 1,000 characters: {'; '.join(beside)}; {gap('LiB', 'BPE', 'tokens')[1]}."
    )


def lost_to_bpe(sweep: Sequence[dict[str, list[Score]]]) -> str:
    """In which part of the sweep BPE needs fewer bits than LiB."""
    lost = [
        round(mean([s.types for s in scores["LiB"]]))
        for scores in sweep
        if mean([s.bits for s in scores["LiB"]]) >= mean([s.bits for s in scores["BPE"]])
    ]
    if not lost:
        return "LiB needs fewer bits than BPE at every point of the sweep."
    return f"BPE needs fewer bits at {', '.join(f'{types:,}' for types in sorted(lost))} types of the sweep."


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval when there are three values (else the value thrice)."""
    center = mean(values)
    if len(values) != 3:
        return center, center, center
    half = T_95 * math.sqrt(sum((v - center) ** 2 for v in values) / 2 / 3)
    return center, center - half, center + half


def figures(scores: dict, corpora: dict[str, list[str]], judged: int) -> Iterator[views.View]:
    for corpus in corpora:
        stops = sorted(epochs for name, spaces, epochs in scores if name == corpus and spaces)
        at = {epochs: scores[corpus, True, epochs] for epochs in stops}
        for column, unit in (("tokens", "tokens per 1,000 characters"), ("bits", "bits per character")):
            yield views.Lines(
                title=f"{corpus.capitalize()}: {unit} against types",
                note="Held-out sentences; mean of three seeds, band: 95 % interval.",
                series=tuple(
                    sweep_series(name, [at[epochs][name] for epochs in stops], column)
                    for name in ("LiB", "BPE", *KINDS)
                ),
                x="types",
                y=unit,
            )
    for corpus in corpora:
        for spaces in (True, False):
            rows = [average(many) for many in scores[corpus, spaces, judged].values()]
            title = f"{corpus.capitalize()}, spaces {'kept' if spaces else 'removed'}"
            yield numbers_table(title, rows, f"held-out sentences, after {judged:,} epochs; mean of the seeds")


def sweep_series(name: str, points: Sequence[list[Score]], column: str) -> views.Series:
    intervals = [interval([getattr(s, column) for s in many]) for many in points]
    return views.Series(
        name=name,
        x=tuple(mean([s.types for s in many]) for many in points),
        y=tuple(center for center, _, _ in intervals),
        low=tuple(low for _, low, _ in intervals),
        high=tuple(high for _, _, high in intervals),
    )


def average(many: Sequence[Score]) -> Score:
    columns = list(zip(*many, strict=True))
    return Score(columns[0][0], round(mean(columns[1])), *(mean(column) for column in columns[2:]))
