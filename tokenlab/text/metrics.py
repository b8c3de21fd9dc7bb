"""Numbers about one tokenization, and the agreement between several.

Definitions follow TokEval (github.com/cimeister/tokenizer-analysis-suite, docs/METRICS.md) and
tokenization-scorer (Zouhar et al. 2023, "Tokenization and the Noiseless Channel", ACL); each function
and each field of `Numbers` says its formula. Of one text TokEval's means of ratios per document are
plain ratios, and so they are here.

What all tokenizers share (words, graphemes, byte offsets) is worked out once per text: `text_facts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import regex

from tokenlab import limits, views
from tokenlab.text.tokenization import Kind, Tokenization, Tokenizer, grapheme_ends, utf8_offsets

ALPHA = 2.5  # the order for which Zouhar et al. (2023, abstract) report a correlation of 0.78 with BLEU

_PUNCTUATION = regex.compile(r"\p{P}")


@dataclass(frozen=True, eq=False)
class TextFacts:
    """What the metrics need to know of a text, whatever the tokenizer.

    bytes: length in UTF-8; code_points: len(text); graphemes: user-perceived characters (UAX #29);
    words: runs without white space, len(text.split());
    word_starts, word_ends (w,) int64: byte spans of the words less the punctuation at their ends;
    w <= words, as a word of nothing but punctuation has no span."""

    text: str
    bytes: int
    code_points: int
    graphemes: int
    words: int
    word_starts: np.ndarray
    word_ends: np.ndarray


def text_facts(text: str) -> TextFacts:
    """Count and locate the words and characters of a text. UserError: a lone surrogate."""
    limits.check_unicode(text)
    offsets = utf8_offsets(text)
    words, starts, ends = _words(text)
    return TextFacts(
        text=text,
        bytes=int(offsets[-1]),
        code_points=len(text),
        graphemes=len(grapheme_ends(text)),
        words=words,
        word_starts=offsets[starts],
        word_ends=offsets[ends],
    )


def _words(text: str) -> tuple[int, np.ndarray, np.ndarray]:
    """How many words, and where in `text` (code points) those begin and end that are more than punctuation."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    # Every distinct code point is classified once: 0 white space, 1 punctuation, 2 the rest.
    kinds = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.uint8)
    for character in set(text):
        if not character.isspace():
            kinds[ord(character)] = 1 if _PUNCTUATION.match(character) else 2
    kinds = kinds[codes]
    in_word = kinds > 0
    begins = in_word & ~np.concatenate(([False], in_word[:-1]))
    number = np.cumsum(begins)
    core = np.flatnonzero(kinds == 2)
    edges = np.flatnonzero(np.diff(number[core], prepend=0, append=len(text) + 1))
    return int(np.count_nonzero(begins)), core[edges[:-1]], core[edges[1:] - 1] + 1


@dataclass(frozen=True)
class Numbers:
    """The measures of one tokenization; None where a measure is not defined (empty text, open vocabulary).

    tokens: n.
    tokens_per_word: fertility, n / words, words by white space (TokEval `fertility`, its default words;
        Rust et al. 2021, "How Good is Your Tokenizer?", count treebank words instead).
    bytes_per_token: bytes / n (TokEval `compression_rate` in bytes).
    graphemes_per_token: user-perceived characters / n.
    code_points_per_token: code points / n (TokEval `token_length` in characters).
    words_whole: share of words that lie inside one known token; 1 - the "proportion of continued
        words" of Rust et al. (2021). Punctuation at a word's ends does not count, since
        their treebank words do not hold it.
    byte_tokens, unknown_tokens: tokens of Kind.BYTE and Kind.UNKNOWN.
    round_trip: decode(encode(text)) == text (TokEval `exact_match_rate`). Without a decoder: False when
        the spans leave bytes out, else None, exact by construction.
    vocabulary: |V|, special entries included. vocabulary_used: distinct ids / |V| (TokEval
        `vocabulary_utilization`).
    types: distinct tokens.
    renyi: H_alpha / log2 |V|, alpha 2.5 (TokEval `renyi_efficiency`; tokenization-scorer with vocab=|V|).
    renyi_observed: H_alpha / log2 types (tokenization-scorer's default; TokEval
        `observed_normalization`).
    megabytes_per_second: bytes / 10^6 / seconds of encoding.
    cost: n * price / 10^6, in the currency of the price."""

    tokens: int
    tokens_per_word: float | None
    bytes_per_token: float | None
    graphemes_per_token: float | None
    code_points_per_token: float | None
    words_whole: float | None
    byte_tokens: int
    unknown_tokens: int
    round_trip: bool | None
    vocabulary: int | None
    vocabulary_used: float | None
    types: int
    renyi: float | None
    renyi_observed: float | None
    megabytes_per_second: float | None
    cost: float | None


def measure(
    facts: TextFacts,
    tokenizer: Tokenizer,
    tokenization: Tokenization,
    seconds: float,
    price: float | None = None,
) -> Numbers:
    """All numbers of one tokenization of `facts.text`.

    seconds: what the encoding took; price: per million tokens, None leaves the cost out."""
    n = len(tokenization)
    counts = token_counts(facts, tokenizer, tokenization)
    size = tokenizer.vocabulary_size
    kinds = np.zeros(n, dtype=np.uint8) if size is None else tokenizer.kinds()[tokenization.ids]
    return Numbers(
        tokens=n,
        tokens_per_word=_ratio(n, facts.words),
        bytes_per_token=_ratio(facts.bytes, n),
        graphemes_per_token=_ratio(facts.graphemes, n),
        code_points_per_token=_ratio(facts.code_points, n),
        words_whole=words_whole(facts, tokenization, kinds),
        byte_tokens=int(np.count_nonzero(kinds == Kind.BYTE)),
        unknown_tokens=int(np.count_nonzero(kinds == Kind.UNKNOWN)),
        round_trip=round_trip(facts, tokenizer, tokenization),
        vocabulary=size,
        vocabulary_used=None if size is None else _ratio(len(counts), size),
        types=len(counts),
        renyi=None if size is None else renyi_efficiency(counts, size),
        renyi_observed=renyi_efficiency(counts, len(counts)),
        megabytes_per_second=_ratio(facts.bytes / 1e6, seconds) if facts.bytes else None,
        cost=None if price is None else n * price / 1e6,
    )


def token_counts(facts: TextFacts, tokenizer: Tokenizer, tokenization: Tokenization) -> np.ndarray:
    """(types,) int64: how often each distinct token occurs; tokens without an id are told apart by their bytes."""
    if tokenizer.vocabulary_size is not None:
        counts = np.bincount(tokenization.ids)
        return counts[counts > 0]
    data, starts, lengths = facts.text.encode(), tokenization.starts, tokenization.ends - tokenization.starts
    # Up to seven bytes and their number are one 64-bit integer, which is quicker to count than bytes.
    short = lengths < 8
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data + bytes(8), dtype=np.uint8), 8)
    size = lengths[short].astype(np.uint64)
    packed = windows[starts[short]].view("<u8").ravel() & ((np.uint64(1) << 8 * size) - np.uint64(1))
    _, few = np.unique(packed | size << np.uint64(56), return_counts=True)
    spans = zip(starts[~short].tolist(), tokenization.ends[~short].tolist(), strict=True)
    many = Counter(data[start:end] for start, end in spans)
    return np.concatenate((few, np.array(list(many.values()), dtype=np.int64)))


def words_whole(facts: TextFacts, tokenization: Tokenization, kinds: np.ndarray) -> float | None:
    """Share of words covered by exactly one token, which is not unknown; None without words.

    kinds: (n,) Kind of each token."""
    if not len(facts.word_starts):
        return None
    starts, ends = tokenization.starts, tokenization.ends
    # Spans are in order, so the tokens that overlap a word are a range.
    first = np.searchsorted(ends, facts.word_starts, side="right")
    behind = np.searchsorted(starts, facts.word_ends, side="left")
    whole = behind - first == 1
    token = first[whole]
    covered = (starts[token] <= facts.word_starts[whole]) & (ends[token] >= facts.word_ends[whole])
    return float(np.count_nonzero(covered & (kinds[token] != Kind.UNKNOWN)) / len(whole))


def round_trip(facts: TextFacts, tokenizer: Tokenizer, tokenization: Tokenization) -> bool | None:
    """Whether the tokens give the text back, byte for byte; None: by construction (see `Numbers`)."""
    decoded = tokenizer.decode(tokenization.ids)
    if decoded is not None:
        return decoded == facts.text
    edges = np.concatenate(([0], tokenization.ends))
    tiled = np.array_equal(edges[:-1], tokenization.starts) and edges[-1] == facts.bytes
    return None if tiled else False


def renyi_entropy(counts: np.ndarray, alpha: float = ALPHA) -> float:
    """H_alpha = log2(sum_i p_i^alpha) / (1 - alpha), in bits; Shannon's at alpha = 1. 0 without counts."""
    if not len(counts):
        return 0.0
    p = counts / counts.sum()
    if alpha == 1:
        return float(-(p * np.log2(p)).sum())
    return float(np.log2((p**alpha).sum()) / (1 - alpha))


def renyi_efficiency(counts: np.ndarray, size: int, alpha: float = ALPHA) -> float | None:
    """Eff_alpha = H_alpha / log2(size) (Zouhar et al. 2023); None below two entries or without tokens.

    counts: (types,) positive; size: of the vocabulary, or the number of types."""
    if size < 2 or not len(counts):
        return None
    return renyi_entropy(counts, alpha) / float(np.log2(size))


def cuts(tokenization: Tokenization, size: int) -> np.ndarray:
    """(size + 1,) bool: at which byte offsets strictly inside a text of `size` bytes a token starts or ends."""
    inside = np.zeros(size + 1, dtype=bool)
    inside[tokenization.starts] = True
    inside[tokenization.ends] = True
    inside[[0, -1]] = False
    return inside


def agreement(tokenizations: Sequence[Tokenization], size: int) -> np.ndarray:
    """(k, k) float: F1 of the cut sets of each pair, 2 |A & B| / (|A| + |B|); 1 where neither cuts.

    size: length of the text in bytes. Symmetric, ones on the diagonal."""
    sets = [cuts(tokenization, size) for tokenization in tokenizations]
    matrix = np.ones((len(sets), len(sets)))
    for i, a in enumerate(sets):
        for j, b in enumerate(sets[:i]):
            either = np.count_nonzero(a) + np.count_nonzero(b)
            if either:
                matrix[i, j] = matrix[j, i] = 2 * np.count_nonzero(a & b) / either
    return matrix


# Measure -> (value in its unit, its definition in one line).
_MEASURES = {
    "Tokens": (lambda n: n.tokens, "How many tokens the text becomes."),
    "Tokens per word": (
        lambda n: _round(n.tokens_per_word),
        "Fertility: tokens divided by words; words are what white space separates.",
    ),
    "Bytes per token": (
        lambda n: _round(n.bytes_per_token),
        "Compression: length of the text in UTF-8 bytes divided by tokens.",
    ),
    "Characters per token": (
        lambda n: _round(n.graphemes_per_token),
        "Characters as a reader sees them (Unicode graphemes) divided by tokens.",
    ),
    "Code points per token": (
        lambda n: _round(n.code_points_per_token),
        "Unicode code points divided by tokens; an emoji or an accented letter may be several.",
    ),
    "Words kept whole (%)": (
        lambda n: _percent(n.words_whole),
        "Words that lie inside one token, punctuation at their ends left aside.",
    ),
    "Byte tokens": (
        lambda n: n.byte_tokens,
        "Tokens that stand for one byte because no larger entry of the vocabulary fits.",
    ),
    "Unknown tokens": (lambda n: n.unknown_tokens, "Tokens for text that the vocabulary cannot write."),
    "Exact round trip": (
        lambda n: {True: "yes", False: "no", None: "by construction"}[n.round_trip],
        "Whether decoding the tokens gives the same text, byte for byte.",
    ),
    "Vocabulary": (lambda n: n.vocabulary, "Entries of the vocabulary, special ones included; none: it is open."),
    "Vocabulary used (%)": (
        lambda n: _percent(n.vocabulary_used, 4),
        "Distinct tokens of this text divided by the entries of the vocabulary.",
    ),
    "Rényi efficiency": (
        lambda n: _round(n.renyi, 4),
        "Evenness of token frequencies: Rényi entropy (alpha 2.5) divided by log2 of the vocabulary's size.",
    ),
    "Rényi efficiency, types": (
        lambda n: _round(n.renyi_observed, 4),
        "The same entropy divided by log2 of the number of distinct tokens in this text.",
    ),
    "Speed (MB/s)": (
        lambda n: _round(n.megabytes_per_second),
        "Bytes of text divided by the seconds that encoding took here.",
    ),
    "Cost": (
        lambda n: None if n.cost is None else float(f"{n.cost:.6g}"),
        "Tokens times the price per million tokens, in the price's currency.",
    ),
}


def numbers_table(names: Sequence[str], numbers: Sequence[Numbers]) -> views.Table:
    """One row per measure with its definition, one column per tokenizer; Cost only where there is a price."""
    priced = any(one.cost is not None for one in numbers)
    measures = [name for name in _MEASURES if name != "Cost" or priced]
    return views.Table(
        title="Numbers",
        columns=("Measure", *names),
        rows=tuple((name, *(_MEASURES[name][0](one) for one in numbers)) for name in measures),
        help={name: _MEASURES[name][1] for name in measures},
    )


def agreement_view(names: Sequence[str], matrix: np.ndarray) -> views.HeatMap:
    """The matrix of `agreement` as a heat map."""
    return views.HeatMap(
        title="Where the tokenizers cut in the same places",
        note="Share of cuts in common (F1): 1 means the same cuts everywhere, 0 means none in common.",
        rows=tuple(names),
        columns=tuple(names),
        values=tuple(tuple(round(float(value), 4) for value in line) for line in matrix),
        x="Tokenizer",
        y="Tokenizer",
        unit="F1 of cuts",
    )


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None


def _round(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def _percent(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(100 * value, digits)
