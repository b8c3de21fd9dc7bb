r"""**A prompt that ends inside a word asks a language model a question it was never taught to answer.** The
tokenizer turns *"The code of the tow"* into tokens at once, and the last ones spell the stub *tow*. In training
the model met *tower* as a token (or two) of its own, hardly ever as *tow* and then *er*: the tokenizer never writes
that. So after the stub the model predicts anything but *er*, even if it knows perfectly well what comes. This is
*tokenization bias*; the tab **Markov** shows it on a chain so small that everything can be computed by hand.

**The cure is exact and needs no training.** Call a sequence of tokens *valid* when the tokenizer, given its text,
gives it back. The *cover* of a text $x$ is the set of valid sequences whose bytes begin with $x$ and of which only
the last token may stick out: for *tow* that is *tow*, but also *tower*, *towards*, *town* and so on. The
text is spelled in one of these ways, and in only one, so
$$P(x_1 \dots x_n) = \sum_{t \,\in\, \mathrm{cover}(x)} P(t_1 \dots t_k), \qquad
P(b \mid x) = \frac{P(x\,b)}{P(x)} .$$
That makes a model of tokens into the *same* model of bytes. One call of the model per byte is enough: of the cover
of $x$, the sequences whose next byte is $b$ stay, and the one that ends with $x$ is continued by the tokens that
begin with $b$. Only the last word can be cut in other ways, as no merge crosses the border between two words.

**Strict or fast.** A trained network gives a little probability to invalid sequences too. *Strict* takes that away
and scales up the rest before every token, so that $\sum_b P(xb) = P(x)$ holds exactly. *Fast* only divides the sum
over the next bytes at the end, as the authors' program does on its command line.

**Beside it.** *Naive*: the tokens of the prompt as they are; the next byte is the first byte of the next token.
*Token healing*: the last token is dropped, and the next one must begin with its bytes. That mends the cut when
the stub is one token, and not when it is several.

**Fill in the middle.** Models trained for it read a prompt of prefix, suffix and then the middle, and an editor's
cursor is often inside a word. The models that ship here were not trained for it, and have no tokens that say
"here is the suffix". What they can do: read the suffix first, as ordinary text, then the prefix up to the cut.
They may then use what the suffix says, but nobody has told them to arrive at it.

**Ensemble.** Bytes are common ground: two models with different tokenizers, or with none, each predict the next
byte, the probabilities are averaged, a byte is drawn, and both read it. The temperature acts on bytes, which is
not the same as on tokens.

**Where it stops.** Byte-level BPE (GPT-2, Llama 3, Qwen and the model that ships), not SentencePiece. Where a word
cannot be known before the text goes on (GPT-2's contractions and runs of spaces), the last three are kept
open, and some texts with runs of spaces stay approximate.

**What is measured.** 500 prompts from text that no model here was trained on, each cut at a random byte inside a
word of at least four. Fixed before the run: in bits per true next byte, exact is at most token healing, token healing
is less than naive, and naive is at least one bit above exact; $|\sum_b P(xb) - P(x)|$ and the difference
from adding up all sequences of a small tokenizer are below 1e-5; the ensemble of both models needs no more bits than
the better one alone.

Source: B. Phan, B. Amos, I. Gat, M. Havasi, M. Muckley and K. Ullrich, *Exact Byte-Level Probabilities from
Tokenized Language Models for FIM-Tasks and Model Ensembles* (ICLR 2025). Their program is written for SentencePiece.
"""

from __future__ import annotations

import codecs
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import Annotated, Any, Protocol

import numpy as np
import regex

from tokenlab import guard, models, stories, views
from tokenlab.controls import Choice, Model, Seed, Slider, Text
from tokenlab.errors import UserError
from tokenlab.measurement import Measurement
from tokenlab.models import LanguageModel
from tokenlab.models.byte_model import (
    END,
    SYMBOLS,
    ByteModel,
    Network,
    OneTokenPerByte,
    generate,
    likelihoods,
    sharpened,
)
from tokenlab.text import languages, samples
from tokenlab.text.tokenization import Kind, Tokenizer, encode_many, graphemes
from tokenlab.text.tokenizer_json import TokenizerJson

STRICT, FAST = MASKS = ("strict", "fast")
NO_TEXT = SYMBOLS  # tokens that neither begin with a byte nor end the text
NEGLIGIBLE = 20.0  # nats below the likeliest: what may be forgotten where nothing is claimed to be exact
LONGEST_WORD = 256  # bytes from the last settled word border to the end of the prompt


# --- the tokenizer, as bytes -------------------------------------------------------------------------


class Vocabulary:
    """A byte-level BPE tokenizer as a table of byte strings, and the question which sequences of tokens are valid.

    size: rows of the model's output layer; end: ids that end a text. UserError: another kind of tokenizer."""

    def __init__(self, tokenizer: Tokenizer, size: int, end: Iterable[int]):
        check_byte_level(tokenizer)
        self.tokenizer = tokenizer
        self.pieces = tokenizer.pieces() + [b""] * (size - len(tokenizer.pieces()))
        self.first = np.array([piece[0] if piece else NO_TEXT for piece in self.pieces])  # (size,) first bytes
        self.first[sorted(end)] = END
        self.starting = [np.flatnonzero(self.first == byte) for byte in range(256)]
        self.single = {piece[0]: i for i, piece in enumerate(self.pieces) if len(piece) == 1}
        self._sorted = sorted((piece, i) for i, piece in enumerate(self.pieces) if self.first[i] < END)
        texts = ((i, *split_utf8(piece)) for piece, i in self._sorted)
        known = [(i, text, tail) for i, text, tail in texts if text is not None]
        self._whole = [(i, text) for i, text, tail in known if not tail]
        self._partial = [i for i, _, tail in known if tail]
        self._heads: dict[str, list[int]] = {}  # first character -> places in _whole
        for place, (_, text) in enumerate(self._whole):
            self._heads.setdefault(text[0], []).append(place)
        self.open_words = 3 if looks_ahead(tokenizer) else 1
        self.valid_next = lru_cache(4096)(self._valid_next)
        self.utf8_next = lru_cache(256)(self._utf8_next)

    def encode(self, text: str) -> tuple[int, ...]:
        """UserError: the tokenizer changes the text before it cuts it."""
        ids = tuple(self.tokenizer.encode(text).ids.tolist())
        if b"".join(map(self.pieces.__getitem__, ids)) != text.encode():
            raise UserError("The tokenizer of this model rewrites the prompt; please change it or use another model.")
        return ids

    def encode_many(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of each text, which may be none of the library's own spelling."""
        guard.check_time()
        return encode_many(self.tokenizer, texts)

    def words(self, text: str) -> list[bytes]:
        """The pre-tokens, which no merge crosses."""
        words = self.tokenizer.pre_tokenize(text)
        if b"".join(words) != text.encode():
            raise UserError("The tokenizer of this model rewrites the prompt; please change it or use another model.")
        return words

    def with_prefix(self, prefix: bytes) -> list[int]:
        """Tokens whose bytes begin with `prefix`, itself among them, in the order of their bytes."""
        found = []
        for piece, i in self._sorted[bisect_left(self._sorted, (prefix, -1)) :]:
            if not piece.startswith(prefix):
                break
            found.append(i)
        return found

    def spelled(self, ids: Iterable[int]) -> bytes:
        return b"".join(map(self.pieces.__getitem__, ids))

    def are_valid(self, sequences: Sequence[tuple[bytes, tuple[int, ...]]]) -> list[bool]:
        """Of each (bytes, ids that spell them): are these ids the encoding?

        Inside a character nothing can be encoded, so there the answer is yes as long as it may become one."""
        texts = [split_utf8(data) for data, _ in sequences]
        asked = [k for k, (text, tail) in enumerate(texts) if text is not None and not tail]
        valid = [text is not None for text, _ in texts]
        for k, ids in zip(asked, self.encode_many([texts[k][0] for k in asked]), strict=True):
            valid[k] = ids == sequences[k][1]
        return valid

    def _utf8_next(self, tail: bytes) -> np.ndarray:
        """(size,) bool: tokens after which bytes that end with `tail`, an unfinished character or b"", may become
        text, and those that end it."""
        mask = self.first == END
        mask[[i for piece, i in self._sorted if split_utf8(tail + piece)[0] is not None]] = True
        return mask

    def _valid_next(self, window: bytes, ids: tuple[int, ...]) -> np.ndarray:
        """(size,) bool: the tokens that may follow `ids`, which spell `window`, the words that are still open.

        The end of the text may follow anything; other special tokens stand in no text."""
        mask = self.first == END
        text, tail = split_utf8(window)
        if tail:
            entries = [(i, window + piece) for piece, i in self._sorted]
            mask[[i for i, _ in entries]] = self.are_valid([(data, (*ids, i)) for i, data in entries])
            return mask
        mask[self._partial] = True
        asked = []
        for head, places in self._heads.items():
            if text and self.open_words == 1 and self.words(text + head)[-1] == head.encode():
                # A new word begins here whatever follows, and words are encoded one by one.
                mask[[self._whole[place][0] for place in places]] = self._alone[places]
            else:
                asked += [self._whole[place] for place in places]
        codes = self.encode_many([text + more for _, more in asked])
        mask[[i for i, _ in asked]] = [code == (*ids, i) for code, (i, _) in zip(codes, asked, strict=True)]
        return mask

    @cached_property
    def _alone(self) -> np.ndarray:
        """Of each entry of _whole: does the tokenizer write its text with it?"""
        codes = self.encode_many([text for _, text in self._whole])
        return np.array([code == (i,) for code, (i, _) in zip(codes, self._whole, strict=True)])


@lru_cache(maxsize=4)
def vocabulary(tokenizer: Tokenizer, size: int, end: frozenset[int]) -> Vocabulary:
    """Shared, for what it has learned about valid sequences."""
    return Vocabulary(tokenizer, size, end)


def check_byte_level(tokenizer: Tokenizer) -> None:
    """UserError unless this is byte-level BPE: merges, and no byte fallback beside them."""
    fallback = any(
        piece < b"\x80" for piece, kind in zip(tokenizer.pieces(), tokenizer.kinds(), strict=True) if kind == Kind.BYTE
    )
    if tokenizer.merges() is None or fallback:
        raise UserError(
            "This works with byte-level BPE tokenizers, such as those of GPT-2, Llama 3 and Qwen, "
            "and the tokenizer of this model is of another kind; please choose another model."
        )


PROBES = ("Hi  you  ", "a \n\n b\t c", "we're here, they'll", "x1234.5 $6", "!?... (ok) 'so'")


def looks_ahead(tokenizer: Tokenizer) -> bool:
    """Whether a word border can move when the text goes on, as in GPT-2's rule (we'r and we're).

    Read off a few texts, cut everywhere; the regular expression itself may be in a child process."""

    def starts(text: str) -> set[int]:
        words = tokenizer.pre_tokenize(text)
        return {sum(map(len, words[:k])) for k in range(len(words))}

    for probe in PROBES:
        known = starts(probe)
        for end in range(1, len(probe)):
            if starts(probe[:end]) != {start for start in known if start < end}:
                return True
    return False


def split_utf8(data: bytes) -> tuple[str | None, bytes]:
    """The whole characters, and the bytes of one that is unfinished; (None, b"") when no text begins like this."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return decoder.decode(data), decoder.getstate()[0]
    except UnicodeDecodeError:
        return None, b""


# --- the cover ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoding:
    """One element of a cover. ids: behind the settled context; rest: the bytes that stick out; logp: natural log."""

    ids: tuple[int, ...]
    rest: bytes
    logp: float


@dataclass
class State:
    """A prefix, as the ways in which it can be encoded.

    past, logp, length: of the context that no encoding cuts differently; window: the bytes behind it;
    free: any tokens may follow, valid or not (naive and healing)."""

    past: Any
    logp: np.ndarray
    length: int
    window: bytes
    cover: list[Encoding]
    free: bool = False
    answers: list[tuple[Encoding, np.ndarray]] | None = field(default=None, repr=False)  # asked for once

    @property
    def total(self) -> float:
        """log P(x), up to the probability of the context at the start."""
        return float(np.logaddexp.reduce([e.logp for e in self.cover]))


@dataclass(frozen=True)
class Reading:
    """A prompt, read up to its last words. context: its ids, the opening included; tokens: the tokenizer's ids of
    the window behind it; dropped: tokens left out at the beginning."""

    past: Any
    logp: np.ndarray
    context: tuple[int, ...]
    window: bytes
    tokens: tuple[int, ...]
    dropped: int


class Predictor(Protocol):
    """What is needed of a token model; byte_model.Network says what the two methods give."""

    context: int

    def read(self, ids: Sequence[int], past: Any = None) -> tuple[np.ndarray, Any]: ...

    def after(self, rows: Sequence[Sequence[int]], past: Any) -> np.ndarray: ...


class ExactBytes:
    """A token-based language model as a ByteModel, by the Byte-Token Representation Lemma (Phan et al. 2024).

    mask: "strict" or "fast"."""

    def __init__(self, name: str, network: Predictor, words: Vocabulary, opening: Sequence[int], mask: str = STRICT):
        self.name = name
        self.vocabulary = words
        self.mask = mask
        self._network = network
        self._opening = tuple(opening)

    @classmethod
    def of(cls, model: LanguageModel, mask: str = STRICT) -> ExactBytes:
        """UserError: the tokenizer is not byte-level BPE, or has nothing but bytes."""
        if OneTokenPerByte.fits(model):
            raise UserError(
                f"The tokens of {model.name} are bytes, so nothing can be cut; please choose another model."
            )
        words = vocabulary(model.tokenizer, model.vocabulary_size, model.end)
        return cls(model.name, Network(model), words, model.opening, mask)

    # -- a prompt

    def read(self, prefix: bytes, room: int = 0) -> Reading:
        """Run the network over everything but the last words. UserError: no text, no room, too long a word."""
        text, tail = split_utf8(prefix)
        if text is None:
            raise UserError("The prompt is not UTF-8 text; please check its encoding.")
        ids = self.vocabulary.encode(text)
        settled = self._settled(text, ids)
        window = self.vocabulary.spelled(ids[settled:]) + tail
        if len(window) > LONGEST_WORD:
            raise UserError(
                f"The last word of the prompt has {len(window):,} bytes; please cut it to {LONGEST_WORD} or fewer."
            )
        space = self._network.context - len(self._opening) - len(window) - room
        if space < 1:
            raise UserError(f"{self.name} has no room for {room:,} more bytes; please ask for fewer.")
        context = (*self._opening, *ids[max(0, settled - space) : settled])
        if not context:
            raise UserError(f"{self.name} has no token that opens a text; please write at least one word more.")
        logp, past = self._network.read(context)
        tokens = (*ids[settled:], *(self.vocabulary.single[byte] for byte in tail))
        return Reading(past, logp, context, window, tokens, max(0, settled - space))

    def _settled(self, text: str, ids: tuple[int, ...]) -> int:
        """How many of the ids stand before the last words, those that other encodings may cut differently."""
        words = self.vocabulary.words(text)
        ends = np.cumsum([0, *(len(self.vocabulary.pieces[i]) for i in ids)]).tolist()
        border = sum(map(len, words[: -self.vocabulary.open_words]))
        while border not in ends:  # a token of several words, put into the vocabulary by hand
            border -= 1
        return ends.index(border)

    def exact(self, reading: Reading) -> State:
        """The whole cover of the prompt."""
        state = State(reading.past, reading.logp, len(reading.context), b"", [Encoding((), b"", 0.0)])
        for byte in reading.window:
            state = self.advance(state, byte)
        if self.mask == FAST:
            state.cover = self._valid(state)
        return state

    def naive(self, reading: Reading) -> State:
        """The prompt's own tokens, and nothing else."""
        cover = [Encoding(reading.tokens, b"", 0.0)]
        return State(reading.past, reading.logp, len(reading.context), reading.window, cover, free=True)

    def healed(self, reading: Reading) -> State:
        """The last token dropped; the next one begins with its bytes."""
        if not reading.tokens:
            return self.naive(reading)
        left, stub, logp = self.heal(reading)
        cover = [
            Encoding((*left, u), self.vocabulary.pieces[u][len(stub) :], float(logp[u]))
            for u in self.vocabulary.with_prefix(stub)
        ]
        return State(reading.past, reading.logp, len(reading.context), reading.window, cover, free=True)

    def heal(self, reading: Reading) -> tuple[tuple[int, ...], bytes, np.ndarray]:
        """The tokens before the last one, its bytes, and (|V|,) log-probabilities in its place."""
        *left, last = reading.tokens
        logp = self._network.after([left], reading.past)[0] if left else reading.logp
        return tuple(left), self.vocabulary.pieces[last], logp

    def token_probabilities(self, reading: Reading, ids: Sequence[int]) -> np.ndarray:
        """(|V|,) of the next token behind `ids`, without those that stand in no text."""
        logp = self._network.after([ids], reading.past)[0] if ids else reading.logp
        return np.where(self.vocabulary.first == NO_TEXT, 0.0, np.exp(logp))

    # -- the ByteModel

    def start(self, prefix: bytes, room: int = 0) -> State:
        return self.exact(self.read(prefix, room))

    def next(self, state: State) -> np.ndarray:
        mass = self.mass(state)
        return mass / mass.sum()

    def mass(self, state: State) -> np.ndarray:
        """(257,) P(xb) / P(x) before the last division; with the strict mask it sums to 1 as it is."""
        top = state.total
        mass = np.zeros(SYMBOLS + 1)  # the last one: tokens that stand in no text
        for e in state.cover:
            if e.rest:
                mass[e.rest[0]] += np.exp(e.logp - top)
        for e, logp in self._answers(state):
            mass += np.bincount(self.vocabulary.first, np.exp(logp + (e.logp - top)), minlength=SYMBOLS + 1)
        return mass[:SYMBOLS]

    def advance(self, state: State, byte: int) -> State:
        """ValueError: `next` gives this byte no probability, because no text goes on like that."""
        cover = [Encoding(e.ids, e.rest[1:], e.logp) for e in state.cover if e.rest and e.rest[0] == byte]
        fresh = self.vocabulary.starting[byte]
        for e, logp in self._answers(state):
            for u, more in zip(fresh.tolist(), logp[fresh].tolist(), strict=True):
                if more > -np.inf:
                    cover.append(Encoding((*e.ids, u), self.vocabulary.pieces[u][1:], e.logp + more))
        found = State(state.past, state.logp, state.length, state.window + bytes([byte]), cover, state.free)
        if state.free:
            best = max(e.logp for e in cover)
            found.cover = [e for e in cover if e.logp > best - NEGLIGIBLE]
            return found
        if self.mask == FAST:
            found.cover = [e for e in cover if e.rest] + self._valid(found, ending=True)
        if all(e.rest for e in found.cover):
            found.cover.append(self._own(found.window, max((e.logp for e in cover), default=state.total)))
        return self._settle(found)

    def _own(self, window: bytes, logp: float) -> Encoding:
        """The tokenizer's own encoding of `window`, when the cover has lost it.

        Happens where a rule looks ahead: GPT-2 writes two spaces as one token, but before a rare character as two,
        so a valid sequence then begins with one that is not valid. ValueError: no text begins like this."""
        text, tail = split_utf8(window)
        if text is None or tail:
            raise ValueError("no text goes on with this byte")
        return Encoding(self.vocabulary.encode(text), b"", logp)

    def _valid(self, state: State, ending: bool = False) -> list[Encoding]:
        """The valid encodings of a cover, or only those of them that end where the prefix does."""
        asked = [e for e in state.cover if not (ending and e.rest)]
        valid = self.vocabulary.are_valid([(state.window + e.rest, e.ids) for e in asked])
        return [e for e, is_valid in zip(asked, valid, strict=True) if is_valid]

    def _answers(self, state: State) -> list[tuple[Encoding, np.ndarray]]:
        """The encodings that end where the prefix does, with (|V|,) log-probabilities of the next token.

        There is one of them, and more only inside a character (which cannot be encoded) and in free states."""
        if state.answers is None:
            ending = [e for e in state.cover if not e.rest]
            asked = [e.ids for e in ending if e.ids]
            if asked and state.length + max(map(len, asked)) > self._network.context:
                raise UserError(f"{self.name} has room for {self._network.context:,} tokens; please shorten the text.")
            rows = iter(self._network.after(asked, state.past) if asked else ())
            found = ((e, next(rows) if e.ids else state.logp) for e in ending)
            state.answers = [(e, self._masked(state, e, logp)) for e, logp in found]
        return state.answers

    def _masked(self, state: State, e: Encoding, logp: np.ndarray) -> np.ndarray:
        if state.free:
            return logp
        if self.mask == FAST:
            return np.where(self.vocabulary.utf8_next(split_utf8(state.window)[1]), logp, -np.inf)
        mask = self.vocabulary.valid_next(state.window, e.ids)
        logp = np.where(mask, logp, -np.inf)
        # Before the next token, not at the end: nothing may leak, or the sum over b of P(xb) falls below P(x).
        return logp - np.logaddexp.reduce(logp)

    def _settle(self, state: State) -> State:
        """Move words that all encodings cut alike from the window into the context."""
        text, tail = split_utf8(state.window)
        if tail or len(state.window) < 2:
            return state
        words = self.vocabulary.words(text)
        border = sum(map(len, words[: -self.vocabulary.open_words]))
        if not border:
            return state
        count = self._common(state.cover, border)
        if not count:
            return state
        logp, past = self._network.read(state.cover[0].ids[:count], state.past)
        cover = [Encoding(e.ids[count:], e.rest, e.logp) for e in state.cover]
        return State(past, logp, state.length + count, state.window[border:], cover)

    def _common(self, cover: Sequence[Encoding], border: int) -> int:
        """How many ids all encodings share that spell exactly `border` bytes; 0 when there is no such number."""
        first = cover[0].ids
        ends = np.cumsum([len(self.vocabulary.pieces[i]) for i in first]).tolist()
        if border not in ends:
            return 0
        count = ends.index(border) + 1
        return count if all(e.ids[:count] == first[:count] for e in cover) else 0


class Ensemble:
    """The mean of byte models (Phan et al. 2024). weights: one per model, at least 0, some above.

    A byte that a member rules out altogether, because no text goes on like that, is ruled out."""

    def __init__(self, members: Sequence[ByteModel], weights: Sequence[float]):
        self.name = " and ".join(member.name for member in members)
        self._members = tuple(members)
        self._weights = np.array(weights) / sum(weights)

    def start(self, prefix: bytes, room: int = 0) -> tuple[Any, ...]:
        return tuple(member.start(prefix, room) for member in self._members)

    def next(self, state: tuple[Any, ...]) -> np.ndarray:
        each = np.stack([member.next(part) for member, part in zip(self._members, state, strict=True)])
        return mean(each, self._weights)

    def advance(self, state: tuple[Any, ...], byte: int) -> tuple[Any, ...]:
        return tuple(member.advance(part, byte) for member, part in zip(self._members, state, strict=True))


def mean(each: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """each: (members, n) probabilities -> (n,) their weighted mean where no member says 0, scaled to sum to 1."""
    p = np.where((each[:, :END] > 0).all(axis=0), weights @ each[:, :END], 0.0)
    p = np.append(p, weights @ each[:, END])  # a model may have no token for the end
    return p / p.sum()


def open_model(name: str, mask: str = STRICT) -> ByteModel:
    """Any causal language model as a ByteModel: exactly, or as it is when its tokens are bytes."""
    model = models.causal_lm(name)
    return OneTokenPerByte.of(model) if OneTokenPerByte.fits(model) else ExactBytes.of(model, mask)


# --- tokens, for comparison --------------------------------------------------------------------------


def token_continuation(
    model: ExactBytes,
    reading: Reading,
    healing: bool,
    length: int,
    temperature: float,
    top_p: float,
    rng: np.random.Generator,
) -> bytes:
    """What the token model itself writes behind the prompt, cut to `length` bytes; temperature on tokens."""
    pieces = model.vocabulary.pieces
    ids, stub = reading.tokens, b""
    p = model.token_probabilities(reading, ids)
    if healing and ids:
        ids, stub, logp = model.heal(reading)
        p = np.zeros(len(pieces))
        fitting = model.vocabulary.with_prefix(stub)
        p[fitting] = np.exp(logp[fitting])
    text = b""
    while True:
        guard.check_time()
        token = int(rng.choice(len(p), p=sharpened(p / p.sum(), temperature, top_p)))
        if model.vocabulary.first[token] == END:
            return text
        ids, text, stub = (*ids, token), text + pieces[token][len(stub) :], b""
        if len(text) >= length:
            return text[:length]
        p = model.token_probabilities(reading, ids)


# --- the Markov chain --------------------------------------------------------------------------------

CHAIN = ("A", "B", "AA", "<s>")  # the entries of its tokenizer, by id


class ChainTokens:
    """The perfect token model of a first-order Markov chain on A and B, tokenized by BPE with the one merge A A.

    a, b: P(A|A) and P(A|B). The chain starts as if after B. Pairs of A are merged from the left, so a token depends
    on the token before it alone: behind a lone A there is always B, or the two would have been merged."""

    context = 10_000

    def __init__(self, a: float, b: float):
        after_b = [b * (1 - a), 1 - b, b * a, 0]
        with np.errstate(divide="ignore"):
            self.table = np.log([[0, 1, 0, 0], after_b, [a * (1 - a), 1 - a, a * a, 0], after_b])

    def read(self, ids: Sequence[int], past: Any = None) -> tuple[np.ndarray, Any]:
        return self.table[ids[-1]], past

    def after(self, rows: Sequence[Sequence[int]], past: Any) -> np.ndarray:
        return self.table[[row[-1] for row in rows]]


@cache
def chain_vocabulary() -> Vocabulary:
    config = {
        "model": {"type": "BPE", "vocab": {entry: i for i, entry in enumerate(CHAIN)}, "merges": [["A", "A"]]},
        "added_tokens": [{"id": 3, "content": "<s>", "special": True}],
    }
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    config["added_tokens"][0] |= flags
    return Vocabulary(TokenizerJson("chain", "merge A A", {"version": "1.0", **config}), len(CHAIN), ())


def chain_model(a: float, b: float) -> ExactBytes:
    return ExactBytes("a Markov chain", ChainTokens(a, b), chain_vocabulary(), (CHAIN.index("<s>"),))


def chain_truth(text: str, a: float, b: float) -> np.ndarray:
    """(2,) the chain's own P(A), P(B) behind `text`."""
    p = a if text.endswith("A") else b
    return np.array([p, 1 - p])


# --- the panel ---------------------------------------------------------------------------------------

CUT, MIDDLE, ENSEMBLE, MARKOV = PARTS = ("Cut prompt", "Fill in the middle", "Ensemble", "Markov")
LIVE = ("part", MARKOV)
SHOWN_BYTES, SHOWN_ENCODINGS = 12, 40
ARRIVAL = 24  # bytes of the suffix that a continuation must write to have arrived
NAIVE, HEALING, EXACT = METHODS = ("naive", "token healing", "exact")

STORY = (
    "Once upon a time there was a small village by the sea. Otto lives in Norwick. Mia has a red kite. The code of "
    "the tower is 482. It rained for three hours. The lantern is in the kitchen. Question: Where is the lantern? "
    "Answer: kit"
)
PREFIX = (
    "This is a story from long ago. The sky was grey and the wind was cold. Clara walked along the river for a "
    "while. In the evening she carried the lantern to the kit"
)
SUFFIX = "Question: Where is the lantern? Answer: kitchen."


@dataclass(frozen=True)
class Result:
    """Each part fills the views that it has."""

    summary: views.Note
    strip: views.TokenStrip | None = None
    next_byte: views.Bars | None = None
    continuations: views.Table | None = None
    cover: views.Table | None = None
    sweep: views.Lines | None = None


def run(
    part: Annotated[str, Choice("Show", options=PARTS, style="parts")] = CUT,
    prompt: Annotated[
        str,
        Text(
            "Prompt",
            "cut it wherever you like, also inside a word",
            ("part", CUT, ENSEMBLE),
            lines=5,
            characters=20_000,
        ),
    ] = STORY,
    prefix: Annotated[
        str, Text("Text before the gap", "cut it wherever you like", ("part", MIDDLE), lines=4, characters=10_000)
    ] = PREFIX,
    suffix: Annotated[
        str, Text("Text behind the gap", "the model reads it first", ("part", MIDDLE), lines=2, characters=10_000)
    ] = SUFFIX,
    model: Annotated[str, Model("Model", when=("part", CUT, MIDDLE, ENSEMBLE), shared="model")] = "tinylm",
    second: Annotated[str, Model("Second model", when=("part", ENSEMBLE))] = "bytelm",
    weight: Annotated[
        float,
        Slider("Weight", "of the second model", ("part", ENSEMBLE), minimum=0.0, maximum=1.0, step=0.05),
    ] = 0.5,
    mask: Annotated[
        str,
        Choice(
            "Invalid tokens",
            "strict: none, exactly; fast: as the authors do",
            ("part", CUT, MIDDLE, ENSEMBLE),
            options=MASKS,
            style="buttons",
        ),
    ] = STRICT,
    length: Annotated[
        int, Slider("Bytes to write", when=("part", CUT, MIDDLE, ENSEMBLE), minimum=1, maximum=200, step=1)
    ] = 60,
    temperature: Annotated[
        float,
        Slider(
            "Temperature",
            "below 0.1: always the likeliest",
            ("part", CUT, MIDDLE, ENSEMBLE),
            minimum=0.0,
            maximum=1.5,
            step=0.05,
        ),
    ] = 0.7,
    top_p: Annotated[
        float,
        Slider("Top-p", "1: leave it out", ("part", CUT, MIDDLE, ENSEMBLE), minimum=0.05, maximum=1.0, step=0.05),
    ] = 1.0,
    chain: Annotated[str, Text("Letters so far", "A and B", ("part", MARKOV), lines=1, characters=40)] = "BA",
    alpha: Annotated[float, Slider("P(A|A)", "alpha", ("part", MARKOV), minimum=0.05, maximum=0.95, step=0.05)] = 0.7,
    beta: Annotated[float, Slider("P(A|B)", "beta", ("part", MARKOV), minimum=0.05, maximum=0.95, step=0.05)] = 0.4,
    seed: Annotated[int, Seed(when=("part", CUT, MIDDLE, ENSEMBLE))] = 0,
) -> Iterator[Result]:
    """Predict the next byte of a prompt that may end anywhere; each partial result has one continuation more."""
    writing = Writing(length, temperature, top_p, seed)
    if part == MARKOV:
        yield markov(chain, alpha, beta)
    elif part == ENSEMBLE:
        yield from together(prompt, [open_model(model, mask), open_model(second, mask)], weight, writing)
    elif part == MIDDLE:
        yield from fill_in(prefix, suffix, ExactBytes.of(models.causal_lm(model), mask), writing)
    else:
        yield from cut_prompt(prompt, ExactBytes.of(models.causal_lm(model), mask), writing)


@dataclass(frozen=True)
class Writing:
    """How to continue."""

    length: int
    temperature: float
    top_p: float
    seed: int

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)


def cut_prompt(prompt: str, model: ExactBytes, writing: Writing) -> Iterator[Result]:
    """The three methods side by side."""
    reading, states = three_states(model, prompt, writing.length)
    exact = states[EXACT]
    result = Result(
        summary=cut_summary(model, reading, exact),
        strip=prompt_strip(model, prompt, reading),
        next_byte=byte_bars({name: model.next(state) for name, state in states.items()}),
        cover=cover_table(model, exact),
    )
    rows: list[tuple] = []
    for name in METHODS:
        text, seconds = written(model, reading, exact, name, writing)
        rows.append((name, readable(text), len(text), round(1000 * seconds)))
        yield Result(**{**vars(result), "continuations": continuation_table(rows)})


def fill_in(prefix: str, suffix: str, model: ExactBytes, writing: Writing) -> Iterator[Result]:
    """The same with the suffix read before the prefix, and the place where a continuation arrives at it."""
    if not suffix.strip():
        raise UserError("Text behind the gap: please write some, or use the tab for cut prompts.")
    prompt = f"{suffix}\n{prefix}"
    reading, states = three_states(model, prompt, writing.length)
    exact = states[EXACT]
    text = cut_summary(model, reading, exact).text
    result = Result(
        summary=views.Note(
            title="A gap, and a model that was not trained to fill gaps",
            text="The model reads the text behind the gap, a line break, and then the text before the gap: a plain "
            "prompt, because it has no tokens that mark a prefix and a suffix. " + text,
        ),
        strip=prompt_strip(model, prompt, reading, told=len(suffix.encode()) + 1),
        next_byte=byte_bars({name: model.next(state) for name, state in states.items()}),
        cover=cover_table(model, exact),
    )
    target = suffix.strip().encode()[:ARRIVAL]
    rows: list[tuple] = []
    for name in METHODS:
        text, seconds = written(model, reading, exact, name, writing)
        at = text.find(target)
        rows.append((name, readable(text), len(text), round(1000 * seconds), f"after {at} bytes" if at >= 0 else "no"))
        yield Result(**{**vars(result), "continuations": continuation_table(rows, ("arrives at the suffix",))})


def three_states(model: ExactBytes, prompt: str, room: int) -> tuple[Reading, dict[str, State]]:
    reading = model.read(prompt.encode(), room)
    return reading, {NAIVE: model.naive(reading), HEALING: model.healed(reading), EXACT: model.exact(reading)}


def written(model: ExactBytes, reading: Reading, exact: State, name: str, writing: Writing) -> tuple[bytes, float]:
    """A continuation by one of METHODS, and the seconds it took."""
    began = time.perf_counter()
    how = writing.length, writing.temperature, writing.top_p, writing.rng()
    if name == EXACT:
        text = bytes(generate(model, exact, *how))
    else:
        text = token_continuation(model, reading, name == HEALING, *how)
    return text, time.perf_counter() - began


def together(prompt: str, members: Sequence[ByteModel], weight: float, writing: Writing) -> Iterator[Result]:
    """Two models and their mean."""
    names = [f"{letter}: {member.name}" for letter, member in zip("AB", members, strict=True)]
    both = {**dict(zip(names, members, strict=True)), "ensemble": Ensemble(members, (1 - weight, weight))}
    states = {name: member.start(prompt.encode(), writing.length) for name, member in zip(names, members, strict=True)}
    states["ensemble"] = tuple(states.values())
    kinds = ["bytes" if isinstance(member, OneTokenPerByte) else "tokens" for member in members]
    result = Result(
        summary=views.Note(
            title="Two models, one byte at a time",
            text=f"Model A reads {kinds[0]}, model B reads {kinds[1]}. The ensemble gives {1 - weight:.0%} of its "
            f"vote to A and {weight:.0%} to B, draws one byte, and both read it.",
        ),
        next_byte=byte_bars({name: both[name].next(states[name]) for name in both}),
    )
    rows: list[tuple] = []
    for name, member in both.items():
        began = time.perf_counter()
        how = writing.length, writing.temperature, writing.top_p, writing.rng()
        text = bytes(generate(member, states[name], *how))
        rows.append((name, readable(text), len(text), round(1000 * (time.perf_counter() - began))))
        yield Result(**{**vars(result), "continuations": continuation_table(rows)})


def markov(text: str, a: float, b: float) -> Result:
    """A chain where everything is known."""
    if not regex.fullmatch("[AB]+", text):
        raise UserError("Letters so far: please type only the letters A and B, at least one.")
    model = chain_model(a, b)
    reading = model.read(text.encode())
    exact = model.exact(reading)
    rows = chain_rows(text, a, b)
    grid = [k / 20 for k in range(1, 20)]
    curves = [chain_rows(text, x, b) for x in grid]
    return Result(
        summary=views.Note(
            title="A chain of two letters",
            text=f"The next letter depends on the last one alone: after A it is A with probability {a:g}, after B with "
            f"probability {b:g}. The tokenizer has the entries A, B and AA. A perfect token model of this chain "
            "says: behind a *lone* token A comes B, always, because two A would have become AA. Asked naively, "
            f"it says P(B) = **{rows[NAIVE][1]:.3g}**; the truth is **{rows['true'][1]:.3g}**, and the cover of this "
            f"text gives **{rows[EXACT][1]:.3g}**.",
        ),
        strip=prompt_strip(model, text, reading),
        next_byte=views.Bars(
            title="The next letter",
            categories=("A", "B"),
            series={name: tuple(map(float, values)) for name, values in rows.items()},
            x="next letter",
            y="probability",
        ),
        cover=cover_table(model, exact),
        sweep=views.Lines(
            title="The next letter is B, for every chain",
            note="Exact lies on the truth.",
            series=tuple(
                views.Series(
                    name=name, x=tuple(grid), y=tuple(float(curve[name][1]) for curve in curves), points=name == EXACT
                )
                for name in rows
            ),
            x="P(A|A)",
            y="P(B)",
        ),
    )


def chain_rows(text: str, a: float, b: float) -> dict[str, np.ndarray]:
    """Method -> (2,) P(A), P(B)."""
    model = chain_model(a, b)
    _, states = three_states(model, text, 0)
    return {
        "true": chain_truth(text, a, b),
        **{name: model.next(state)[[ord("A"), ord("B")]] for name, state in states.items()},
    }


# --- views -------------------------------------------------------------------------------------------


def cut_summary(model: ExactBytes, reading: Reading, exact: State) -> views.Note:
    own = sum(np.exp(e.logp - exact.total) for e in exact.cover if not e.rest)
    text = (
        f"The end of the prompt that is still open has {many(len(reading.window), 'byte')} and is "
        f"{many(len(reading.tokens), 'token')} of the tokenizer. There {'is' if len(exact.cover) == 1 else 'are'} "
        f"{many(len(exact.cover), 'encoding')} that can begin with these bytes; the tokenizer's own carries "
        f"**{proportion(own)}** of their probability, and it is all that the naive way sees."
    )
    if reading.dropped:
        text += f" The first {reading.dropped:,} tokens of the prompt do not fit into the model and are left out."
    return views.Note(title="Where the prompt is cut", text=text)


def many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def proportion(share: float) -> str:
    """A share in words that can be read, however small it is."""
    return f"{100 * share:.3g} %" if share >= 0.001 else f"one part in {float(f'{1 / max(share, 1e-300):.3g}'):,.0f}"


def prompt_strip(model: ExactBytes, text: str, reading: Reading, told: int = 0) -> views.TokenStrip:
    """The naive encoding; the tokens of the open words are marked, and those of the first `told` bytes."""
    tokens = model.vocabulary.tokenizer.encode(text)
    settled = len(text.encode()) - len(reading.window)
    marks = [1 if start >= settled else 2 if start < told else 0 for start in tokens.starts.tolist()]
    return views.TokenStrip(
        title="The prompt as the tokenizer cuts it",
        note="Marked: the end, which other encodings may cut differently"
        + ("; and the text behind the gap, which is told first." if told else "."),
        graphemes=tuple(graphemes(text)),
        rows=(
            views.StripRow(
                name="naive",
                starts=tuple(tokens.starts.tolist()),
                ends=tuple(tokens.ends.tolist()),
                ids=tuple(tokens.ids.tolist()),
                marks=tuple(marks),
            ),
        ),
        legend=("open end", "told first") if told else ("open end",),
        disagreements=False,
    )


def byte_bars(rows: dict[str, np.ndarray]) -> views.Bars:
    """rows: name -> (257,)."""
    most = np.max(np.stack(list(rows.values())), axis=0)
    order = np.argsort(-most, kind="stable")[:SHOWN_BYTES]
    return views.Bars(
        title="The next byte",
        note=f"The {SHOWN_BYTES} bytes that some row finds most likely. ␣ is a space, ⏎ a line break.",
        categories=tuple(symbol(int(byte)) for byte in order),
        series={name: tuple(float(p[byte]) for byte in order) for name, p in rows.items()},
        x="next byte",
        y="probability",
    )


def cover_table(model: ExactBytes, state: State) -> views.Table:
    best = sorted(state.cover, key=lambda e: -e.logp)[:SHOWN_ENCODINGS]
    logs = [e.logp - state.total for e in best]
    rows = tuple(
        (
            " + ".join(shown(model.vocabulary.pieces[i]) for i in e.ids),
            shown(e.rest),
            round(100 * float(np.exp(log)), 3),
            round(float(-log / np.log(2)), 2) + 0.0,
        )
        for e, log in zip(best, logs, strict=True)
    )
    hidden = len(state.cover) - len(best)
    return views.Table(
        title="The cover",
        note=f"Every way to encode a text that begins like this: {len(state.cover):,}"
        + (f", of which the {len(best)} likeliest are listed." if hidden else "."),
        columns=("encoding of the open end", "bytes that stick out", "share [%]", "cost [bits]"),
        rows=rows,
        marks={k: "the prompt's own" for k, e in enumerate(best) if not e.rest},
        help={
            "share [%]": "Of the probability of all texts that begin with the prompt.",
            "cost [bits]": "The same as -log2: 10 bits are a share of one in 1,024.",
        },
    )


def continuation_table(rows: Sequence[tuple], more: tuple[str, ...] = ()) -> views.Table:
    return views.Table(
        title="How it goes on",
        note="Same seed, same temperature. Naive and token healing draw tokens, the others draw bytes."
        if rows[0][0] == NAIVE
        else "Same seed, same temperature, byte by byte.",
        columns=("by", "continuation", "bytes", "time [ms]", *more),
        rows=tuple(rows),
        help={"arrives at the suffix": f"Where the first {ARRIVAL} bytes of the text behind the gap appear."}
        if more
        else {},
    )


_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def shown(data: bytes) -> str:
    """Text with white space made visible; bytes that are no text as \\x and two digits."""
    return "".join(_SIGNS.get(c, c) for c in data.decode("utf-8", "backslashreplace"))


def readable(data: bytes) -> str:
    """The same for a longer text: spaces are marked at its ends alone."""
    text = data.decode("utf-8", "backslashreplace")
    inner = text.strip(" ")
    inner = "".join(c if c == " " else _SIGNS.get(c, c) for c in inner)
    left = len(text) - len(text.lstrip(" "))
    right = len(text) - left - len(text.strip(" "))
    return "␣" * left + inner + "␣" * right


def symbol(byte: int) -> str:
    """The label of one of the 257 symbols."""
    if byte == END:
        return "end of text"
    return shown(bytes([byte])) if 32 <= byte < 127 or chr(byte) in _SIGNS else f"{byte:02X}"


# --- adding up all sequences -------------------------------------------------------------------------

TOY_ALPHABET = " abc"
TOY_ENTRIES = 40


def toy_tokenizer(seed: int, alphabet: str = TOY_ALPHABET, entries: int = TOY_ENTRIES) -> TokenizerJson:
    """A byte-level BPE of random merges over a few characters, the space among them; ids 0 <s> and 1 </s>."""
    rng = np.random.default_rng(seed)
    vocab = ["<s>", "</s>", *alphabet.replace(" ", "Ġ")]
    merges: list[tuple[str, str]] = []
    while len(vocab) < entries:
        a, b = (vocab[2:][k] for k in rng.integers(len(vocab) - 2, size=2))
        # Spaces stand at the beginning of a word or alone, as in any tokenizer trained with such words.
        if "Ġ" not in b and a.count("Ġ") < 2 and len(a + b) <= 4 and a + b not in vocab:
            vocab.append(a + b)
            merges.append((a, b))
    letters = "".join(alphabet.split())
    split = {
        "type": "Split",
        "pattern": {"Regex": f" ?[{letters}]+|\\s+"},
        "behavior": "Isolated",
        "invert": False,
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    config = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": vocab[i], **flags} for i in (0, 1)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "vocab": {entry: i for i, entry in enumerate(vocab)}, "merges": merges},
    }
    return TokenizerJson(f"toy-{seed}", "toy", config)


def toy_model(seed: int, tokenizer: Tokenizer | None = None, context: int = 64) -> LanguageModel:
    """A tiny Llama with random weights in float64; it has no preference for valid sequences whatever."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or toy_tokenizer(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.vocabulary_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        pad_token_id=None,
        bos_token_id=0,
        eos_token_id=1,
    )
    config._attn_implementation = "eager"
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=()):  # the library draws weights from the global generator
        network = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    for weight in network.parameters():
        if weight.ndim == 2:
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.5)
    return LanguageModel("toy", network, tokenizer, (0,), frozenset({1}), context)


class Enumeration:
    """P(x) by the definition: valid sequences one by one, each read by the network from its first token on.

    Shares nothing with ExactBytes but the tokenizer and the network."""

    def __init__(self, model: LanguageModel):
        self.model = model
        self.pieces = model.tokenizer.pieces()
        self.next = cache(self._next)

    def probability(self, text: bytes, ids: tuple[int, ...] = ()) -> float:
        """Of the texts that begin with `text` (ASCII), among those whose tokens begin with `ids`."""
        have = b"".join(self.pieces[i] for i in ids)
        if len(have) >= len(text):
            return 1.0
        total = 0.0
        for i, p in enumerate(self.next(ids)):
            more = have + self.pieces[i]
            if p and self.pieces[i] and (text.startswith(more) or more.startswith(text)):
                total += p * self.probability(text, (*ids, i))
        return total

    def _next(self, ids: tuple[int, ...]) -> tuple[float, ...]:
        import torch

        with torch.inference_mode():
            logits = self.model.torch(torch.tensor([[*self.model.opening, *ids]])).logits[0, -1]
        p = torch.softmax(logits.double(), -1).numpy()
        return tuple(p * self._valid(ids) / (p @ self._valid(ids)))

    def _valid(self, ids: tuple[int, ...]) -> np.ndarray:
        have = b"".join(self.pieces[i] for i in ids)
        valid = np.zeros(len(self.pieces))
        valid[sorted(self.model.end)] = 1
        for i, piece in enumerate(self.pieces):
            if piece:
                valid[i] = tuple(self.model.tokenizer.encode((have + piece).decode()).ids) == (*ids, i)
        return valid


def all_texts(alphabet: str, longest: int) -> list[bytes]:
    """Every string of 1 to `longest` characters."""
    texts = [""]
    for text in texts:
        if len(text) < longest:
            texts += [text + c for c in alphabet]
    return [text.encode() for text in texts[1:]]


def farthest_from_enumeration(model: LanguageModel, alphabet: str, longest: int) -> tuple[float, int]:
    """The largest relative difference of P(x) between the cover and adding up, over how many texts."""
    exact, enumeration = ExactBytes.of(model), Enumeration(model)
    states = {b"": exact.start(b"")}
    worst = 0.0
    texts = all_texts(alphabet, longest)
    for text in texts:
        guard.check_time()
        states[text] = exact.advance(states[text[:-1]], text[-1])
        wanted = enumeration.probability(text)
        worst = max(worst, abs(np.exp(states[text].total) / wanted - 1))
    return worst, len(texts)


def leak(model: ExactBytes, state: State) -> float:
    """|sum over b of P(xb) / P(x) - 1|: each P(xb) from the cover of xb, the end of the text counted too."""
    total = float(model.mass(state)[END])
    for byte in range(256):
        if model.mass(state)[byte] > 0:
            total += float(np.exp(model.advance(state, byte).total - state.total))
    return abs(total - 1)


# --- the experiment ----------------------------------------------------------------------------------

PROMPTS = 500
BEFORE = 300  # bytes of text in front of the word
LEAST_WORD = 4
MARGIN, IDENTITY = 1.0, 1e-5  # bits; largest deviation
LEAK_PROMPTS = 20
STRETCHES, STRETCH = 4, 500  # of each kind of text for the ensemble, and characters of one
STORIES, PROSE = "stories", "prose"


@dataclass(frozen=True)
class Cut:
    """A held-out word and where it is cut: the prompt is before + word[:at]."""

    kind: str
    before: bytes
    word: bytes
    at: int

    @property
    def left(self) -> int:
        """Bytes of the word that are still to come."""
        return len(self.word) - self.at


def held_out() -> dict[str, str]:
    """Text that no model here was trained on: told stories of the test split, and prose of the project's own."""
    told = "\n".join(stories.story(seed, "test", 1200, 10, "along").text for seed in range(100))
    english = " ".join(languages.load()[0].sentences)
    return {STORIES: told, PROSE: " ".join(f"{samples.text('story')} {english}".split())}


def draw_cuts(texts: dict[str, str], n: int, rng: np.random.Generator, before: int = BEFORE) -> list[Cut]:
    """n cuts, the kinds of text in turn: random words of at least four letters, at a random byte inside."""
    found = []
    kinds = list(texts)
    words = {
        kind: [match.span() for match in regex.finditer(rf"(?<= )[A-Za-z]{{{LEAST_WORD},}}", text, pos=before)]
        for kind, text in texts.items()
    }
    orders = {kind: rng.permutation(len(spans)) for kind, spans in words.items()}
    for k in range(n):
        kind = kinds[k % len(kinds)]
        start, end = words[kind][orders[kind][k // len(kinds) % len(orders[kind])]]
        context = texts[kind][start - before : start]
        context = context[context.index(" ") + 1 :]
        found.append(Cut(kind, context.encode(), texts[kind][start:end].encode(), int(rng.integers(1, end - start))))
    return found


@dataclass(frozen=True)
class Score:
    """One prompt. byte, rest: method -> bits of the next byte, and of the rest of the word; seconds: method -> to
    predict the next byte, without reading the context; uncut: bits of the next byte behind the whole word, naively."""

    cut: Cut
    byte: dict[str, float]
    rest: dict[str, float]
    seconds: dict[str, float]
    uncut: float


def score(model: ExactBytes, cut: Cut, after: int) -> Score:
    """after: the true byte behind the word."""
    reading = model.read(cut.before + cut.word[: cut.at], room=cut.left)
    make = {NAIVE: model.naive, HEALING: model.healed, EXACT: model.exact}
    byte, rest, seconds = {}, {}, {}
    for name in METHODS:
        began = time.perf_counter()
        state = make[name](reading)
        first = model.next(state)[cut.word[cut.at]]
        seconds[name] = time.perf_counter() - began
        byte[name] = bits(first)
        rest[name] = float(bits(likelihoods(model, state, cut.word[cut.at :])).sum())
    whole = model.next(model.naive(model.read(cut.before + cut.word)))[after]
    return Score(cut, byte, rest, seconds, float(bits(whole)))


def bits(p: np.ndarray) -> np.ndarray:
    """-log2, at most 1,074: the smallest positive float."""
    return -np.log2(np.maximum(p, 5e-324))


def interval(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, from 2,000 resamples."""
    draws = rng.choice(np.asarray(values), size=(2000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Mixed:
    """Likelihoods of the bytes of one text under two models; seconds: of each."""

    kind: str
    each: np.ndarray  # (2, n)
    seconds: tuple[float, float]


def read_both(
    members: Sequence[ByteModel], texts: dict[str, str], stretches: int, size: int, before: int
) -> list[Mixed]:
    """`stretches` times `size` characters of each text, each behind `before` others that are read and not counted."""
    found = []
    for kind, text in texts.items():
        rows, seconds = [], []
        for member in members:
            began = time.perf_counter()
            parts = []
            for start in range(before, before + stretches * (before + size), before + size):
                state = member.start(text[start - before : start].encode(), size)
                parts.append(likelihoods(member, state, text[start : start + size].encode()))
            rows.append(np.concatenate(parts))
            seconds.append(time.perf_counter() - began)
        found.append(Mixed(kind, np.stack(rows), (seconds[0], seconds[1])))
    return found


def measure(seed: int = 0) -> Measurement:
    """The claims, fixed before the run: see the end of the module's docstring. A few minutes on one core."""
    return experiment(models.causal_lm("tinylm"), open_model("bytelm"), seed=seed)


def experiment(
    tokens: LanguageModel,
    second: ByteModel,
    seed: int = 0,
    prompts: int = PROMPTS,
    leaks: int = LEAK_PROMPTS,
    stretches: int = STRETCHES,
    stretch: int = STRETCH,
    longest: int = 5,
    before: int = BEFORE,
) -> Measurement:
    """All of it. longest: characters of the texts that are added up on the toy; before: bytes in front of a cut."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    model, texts = ExactBytes.of(tokens), held_out()
    scores = []
    for cut in draw_cuts(texts, prompts, rng, before):
        guard.check_time()
        at = texts[cut.kind].encode().index(cut.before + cut.word) + len(cut.before + cut.word)
        scores.append(score(model, cut, texts[cut.kind].encode()[at]))
    fast = ExactBytes.of(tokens, FAST)
    starts = [s.cut.before[:40] + b" " + s.cut.word[: s.cut.at] for s in scores[:leaks]]
    leaked = {mask.mask: max(leak(mask, mask.start(start)) for start in starts) for mask in (model, fast)}
    apart, added = farthest_from_enumeration(toy_model(seed), TOY_ALPHABET, longest)
    mixed = read_both((model, second), texts, stretches, stretch, before)
    alone = [float(bits(np.concatenate([m.each[k] for m in mixed])).mean()) for k in (0, 1)]
    joint = float(bits(np.concatenate([m.each.mean(axis=0) for m in mixed])).mean())

    average = {name: float(np.mean([s.byte[name] for s in scores])) for name in METHODS}
    low, high = interval([s.byte[EXACT] for s in scores], rng)
    gain_low, gain_high = interval([s.byte[NAIVE] - s.byte[EXACT] for s in scores], rng)
    ordered = average[EXACT] <= average[HEALING] < average[NAIVE]
    points = {
        f"Next byte: exact {average[EXACT]:.3f}, token healing {average[HEALING]:.3f}, naive {average[NAIVE]:.3f} bits "
        "(asked: in this order)": ordered,
        f"naive minus exact {average[NAIVE] - average[EXACT]:.2f} bits, 95 % interval {gain_low:.2f} to "
        f"{gain_high:.2f} (asked: at least {MARGIN:g})": average[NAIVE] - average[EXACT] >= MARGIN,
        f"identities: the sum over b of P(xb) is P(x) up to {leaked[STRICT]:.1e}, and adding up all sequences for "
        f"{added:,} texts of a {TOY_ENTRIES}-token toy differs by {apart:.1e} (asked: below {IDENTITY:g})": max(
            leaked[STRICT], apart
        )
        < IDENTITY,
        f"ensemble {joint:.3f} bits per byte, {model.name} {alone[0]:.3f}, {second.name} {alone[1]:.3f} (asked: not "
        "more than the better one)": joint <= min(alone),
    }
    return Measurement(
        claim="A token-based model becomes the same model of bytes: a prompt cut inside a word costs it nothing, and "
        "it can be averaged with a model that has no tokenizer.",
        metric="bits of the true next byte behind a prompt cut inside a word, mean over prompts",
        unit="bits",
        value=average[EXACT],
        baseline_name="naive: the prompt's own tokens",
        baseline=average[NAIVE],
        bar=average[NAIVE] - MARGIN,
        direction="lower",
        holds=all(points.values()),
        reason="\n".join(f"{text}: {'yes' if good else 'no'}." for text, good in points.items()),
        paper="Fill-in-the-middle coding benchmarks, prompts cut anywhere: about 18 % better than plain tokens, and at "
        "least as good as token healing; ensembles of models with different vocabularies up to 3.7 % better than "
        "the single models on reasoning, knowledge and code.",
        n=len(scores),
        seed=seed,
        seconds=time.perf_counter() - began,
        random=8.0,
        full=float(np.mean([s.uncut for s in scores])),
        low=low,
        high=high,
        figures=(
            cut_bars(scores, rng),
            left_lines(scores, rng),
            method_table(scores),
            identity_table(leaked, apart, added, leaks),
            ensemble_table(mixed, (model.name, second.name)),
            weight_lines(mixed),
        ),
    )


def cut_bars(scores: Sequence[Score], rng: np.random.Generator) -> views.Bars:
    series = {name: ([s.byte[name] for s in scores], [s.rest[name] for s in scores]) for name in METHODS}
    ends = {name: [interval(values, rng) for values in both] for name, both in series.items()}
    return views.Bars(
        title="Bits of what really follows",
        note=f"Lower is better; mean and 95 % interval over {len(scores)} prompts.",
        categories=("the next byte", "the rest of the word"),
        series={name: tuple(float(np.mean(values)) for values in both) for name, both in series.items()},
        low={name: tuple(low for low, _ in pairs) for name, pairs in ends.items()},
        high={name: tuple(high for _, high in pairs) for name, pairs in ends.items()},
        x="what is predicted",
        y="bits",
    )


def left_lines(scores: Sequence[Score], rng: np.random.Generator) -> views.Lines:
    most = 6  # longer rests are rare
    groups = {left: [s for s in scores if min(s.cut.left, most) == left] for left in range(1, most + 1)}
    groups = {left: group for left, group in groups.items() if group}
    sizes = ", ".join(str(len(group)) for group in groups.values())
    series = []
    for name in METHODS:
        values = {left: [s.byte[name] for s in group] for left, group in groups.items()}
        ends = [interval(many, rng) for many in values.values()]
        series.append(
            views.Series(
                name=name,
                x=tuple(values),
                y=tuple(float(np.mean(many)) for many in values.values()),
                low=tuple(low for low, _ in ends),
                high=tuple(high for _, high in ends),
            )
        )
    return views.Lines(
        title="By what is left of the word",
        note=f"Mean and 95 % interval; {most} stands for {most} or more. Prompts: {sizes}.",
        series=tuple(series),
        x="bytes left in the word",
        y="bits of the next byte",
    )


def method_table(scores: Sequence[Score]) -> views.Table:
    kinds = list(dict.fromkeys(s.cut.kind for s in scores))
    rows = []
    for name in METHODS:
        cells = [np.mean([s.byte[name] for s in scores if s.cut.kind == kind]) for kind in kinds]
        cells += [np.mean([s.rest[name] for s in scores if s.cut.kind == kind]) for kind in kinds]
        right = np.mean([s.byte[name] < 1 for s in scores])
        spent = np.median([s.seconds[name] for s in scores])
        rows.append(
            (name, *(round(float(c), 3) for c in cells), round(100 * float(right), 1), round(1000 * float(spent), 1))
        )
    whole = [np.mean([s.uncut for s in scores if s.cut.kind == kind]) for kind in kinds]
    likely = np.mean([s.uncut < 1 for s in scores])
    blank = (None,) * len(kinds)
    rows.append(
        ("prompts that are not cut", *(round(float(c), 3) for c in whole), *blank, round(100 * float(likely), 1), None)
    )
    rows.append(("uniform over bytes", *(8.0 for _ in kinds), *blank, 0.0, None))
    return views.Table(
        title="By kind of text",
        note="Prompts: " + ", ".join(f"{sum(s.cut.kind == kind for s in scores)} of {kind}" for kind in kinds) + ".",
        columns=(
            "method",
            *(f"next byte, {kind} [bits]" for kind in kinds),
            *(f"rest of the word, {kind} [bits]" for kind in kinds),
            "true byte above 1/2 [% of prompts]",
            "time per prompt [ms]",
        ),
        rows=tuple(rows),
        help={
            "prompts that are not cut": "The same prompts up to the end of the word, which is a border between tokens; "
            "the byte behind the word, naively.",
            "time per prompt [ms]": "Median, to predict the next byte once the context before the word is read.",
        },
    )


def identity_table(leaked: dict[str, float], apart: float, added: int, prompts: int) -> views.Table:
    rows = [
        (f"sum over b of P(xb) / P(x) - 1, {mask}", float(f"{value:.2g}"), prompts) for mask, value in leaked.items()
    ]
    rows.append(("P(x) against adding up all sequences of a toy tokenizer", float(f"{apart:.2g}"), added))
    return views.Table(
        title="Identities",
        note="Strict is exact up to rounding; fast leaks what it gives to invalid sequences.",
        columns=("identity", "largest deviation", "texts"),
        rows=tuple(rows),
    )


def ensemble_table(mixed: Sequence[Mixed], names: Sequence[str]) -> views.Table:
    rows = []
    for m in mixed:
        each = bits(m.each).mean(axis=1)
        joint = bits(m.each.mean(axis=0)).mean()
        spent = (round(1000 * seconds / m.each.shape[1], 1) for seconds in m.seconds)
        rows.append((m.kind, *(round(float(x), 3) for x in (*each, joint)), m.each.shape[1], *spent))
    return views.Table(
        title="The ensemble",
        columns=(
            "text",
            *(f"{name} [bits per byte]" for name in names),
            "mean of both [bits per byte]",
            "bytes",
            *(f"{name} [ms per byte]" for name in names),
        ),
        rows=tuple(rows),
    )


def weight_lines(mixed: Sequence[Mixed]) -> views.Lines:
    grid = np.linspace(0, 1, 21)
    return views.Lines(
        title="Weight of the second model",
        note="0 is the first model alone, 1 the second alone.",
        series=tuple(
            views.Series(
                name=m.kind,
                x=tuple(float(w) for w in grid),
                y=tuple(float(bits((1 - w) * m.each[0] + w * m.each[1]).mean()) for w in grid),
            )
            for m in mixed
        ),
        x="weight",
        y="bits per byte",
    )
