"""The numbers of one tokenization, against values worked out by hand and against tokenization-scorer."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenlab import views
from tokenlab.errors import UserError
from tokenlab.text import metrics, samples, sources
from tokenlab.text.tokenization import Kind, Tokenization, graphemes


def spans(*pairs, ids=None):
    starts, ends = zip(*pairs, strict=True) if pairs else ((), ())
    array = lambda values: np.array(values, dtype=np.int64)  # noqa: E731
    return Tokenization(array(ids if ids is not None else [-1] * len(pairs)), array(starts), array(ends))


class Longest:
    """A closed vocabulary: the longest entry that fits, then single bytes 0..255, as ids behind it."""

    ref = name = "longest"

    def __init__(self, *entries):
        self.entries = [entry.encode() for entry in entries]
        self.vocabulary_size = len(entries) + 256

    def encode(self, text):
        data, at, tokens = text.encode(), 0, []
        while at < len(data):
            fits = [e for e in self.entries if data.startswith(e, at)]
            piece = max(fits, key=len) if fits else data[at : at + 1]
            tokens.append((self.entries.index(piece) if fits else len(self.entries) + piece[0], at, at + len(piece)))
            at += len(piece)
        ids, starts, ends = zip(*tokens, strict=True) if tokens else ((), (), ())
        return spans(*zip(starts, ends, strict=True), ids=ids)

    def decode(self, ids):
        return b"".join(self.pieces()[i] for i in ids).decode()

    def pieces(self):
        return self.entries + [bytes([b]) for b in range(256)]

    def kinds(self):
        return np.array([Kind.NORMAL] * len(self.entries) + [Kind.BYTE] * 256, dtype=np.uint8)

    def merges(self):
        return None


class Unknowing(Longest):
    """The same, but what is not in the vocabulary becomes one unknown token per byte."""

    def kinds(self):
        kinds = super().kinds()
        kinds[len(self.entries) :] = Kind.UNKNOWN
        return kinds

    def decode(self, ids):
        return "".join(self.entries[i].decode() if i < len(self.entries) else "?" for i in ids)


class Characters:
    """An open vocabulary: graphemes."""

    ref = name = "characters"
    vocabulary_size = None

    def encode(self, text):
        ends = np.cumsum([0, *(len(g.encode()) for g in graphemes(text))])
        return spans(*zip(ends[:-1], ends[1:], strict=True))

    def decode(self, ids):
        return None

    def pieces(self):
        return []

    def kinds(self):
        return np.zeros(0, dtype=np.uint8)

    def merges(self):
        return None


def measured(text, tokenizer, seconds=0.5, price=None):
    return metrics.measure(metrics.text_facts(text), tokenizer, tokenizer.encode(text), seconds, price)


def test_every_number_of_a_small_text():
    # the | _cat | , | _the | c,a,t,s -> "the cat, the cats" with " cats" not in the vocabulary
    tokenizer = Longest("the", " cat", ",", " the")
    n = measured("the cat, the cats", tokenizer, seconds=0.5, price=2.0)
    # the, _cat, ",", _the, _cat, s: 6 tokens, 17 bytes, 4 words of which "cats" is cut
    assert n.tokens == 6
    assert n.tokens_per_word == 6 / 4
    assert n.bytes_per_token == n.graphemes_per_token == n.code_points_per_token == 17 / 6
    assert n.words_whole == 3 / 4
    assert n.byte_tokens == 1 and n.unknown_tokens == 0
    assert n.round_trip is True
    assert n.vocabulary == 260
    assert n.types == 5
    assert n.vocabulary_used == 5 / 260
    assert n.megabytes_per_second == pytest.approx(17e-6 / 0.5)
    assert n.cost == pytest.approx(12e-6)
    # counts 1 1 1 1 2 of 6
    entropy = math.log2(4 * (1 / 6) ** 2.5 + (2 / 6) ** 2.5) / -1.5
    assert n.renyi == pytest.approx(entropy / math.log2(260))
    assert n.renyi_observed == pytest.approx(entropy / math.log2(5))


def test_characters_bytes_and_code_points_differ():
    family = "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}"  # one grapheme, three code points, 4 + 3 + 4 bytes
    n = measured(f"e\N{COMBINING ACUTE ACCENT} {family}", Longest())
    assert n.tokens == 3 + 1 + 11 == n.byte_tokens
    assert n.bytes_per_token == 1
    assert n.graphemes_per_token == 3 / 15
    assert n.code_points_per_token == 6 / 15
    assert n.words_whole == 0


def test_unknown_tokens_break_the_round_trip_and_keep_no_word_whole():
    n = measured("a b", Unknowing("b", " "))
    assert (n.tokens, n.unknown_tokens, n.round_trip) == (3, 1, False)
    assert n.words_whole == 1 / 2


def test_open_vocabulary():
    n = measured("noon", Characters())
    assert (n.tokens, n.vocabulary, n.vocabulary_used, n.renyi) == (4, None, None, None)
    assert n.types == 2
    assert n.renyi_observed == pytest.approx(1.0)  # n and o, half each
    assert n.round_trip is None


@given(st.lists(st.sampled_from(["a", "\0", "a\0", "é", "1234567", "12345678", "123456789", ""])))
def test_tokens_without_ids_are_told_apart_by_their_bytes(parts):
    text = "".join(parts)
    ends = np.cumsum([0, *(len(part.encode()) for part in parts)])
    tokenization = spans(*zip(ends[:-1], ends[1:], strict=True))
    counts = metrics.token_counts(metrics.text_facts(text), Characters(), tokenization)
    assert sorted(counts) == sorted(Counter(parts).values())


def test_open_vocabulary_that_drops_text_is_no_round_trip():
    facts = metrics.text_facts("a b")
    assert metrics.round_trip(facts, Characters(), spans((0, 1), (2, 3))) is False
    assert metrics.round_trip(facts, Characters(), spans((0, 1), (1, 2))) is False
    assert metrics.round_trip(facts, Characters(), spans((0, 1), (1, 2), (2, 3))) is None


@pytest.mark.parametrize("tokenizer", [Longest("a"), Characters()])
def test_empty_text_gives_zeros_and_nones(tokenizer):
    n = measured("", tokenizer, seconds=0.0, price=5.0)
    assert (n.tokens, n.byte_tokens, n.unknown_tokens, n.types, n.cost) == (0, 0, 0, 0, 0.0)
    for name in ("tokens_per_word", "bytes_per_token", "graphemes_per_token", "code_points_per_token"):
        assert getattr(n, name) is None
    assert n.words_whole is n.renyi is n.renyi_observed is n.megabytes_per_second is None


def test_white_space_alone_has_no_words():
    n = measured(" \n", Longest())
    assert (n.tokens, n.tokens_per_word, n.words_whole) == (2, None, None)


def test_one_type_has_no_efficiency_among_types():
    n = measured("aaa", Longest())
    assert n.renyi_observed is None
    assert n.renyi == 0


def test_lone_surrogate_is_a_users_error():
    with pytest.raises(UserError, match="surrogate"):
        metrics.text_facts("a\ud800")


def test_words_are_trimmed_of_punctuation_only():
    facts = metrics.text_facts("«Äh», (well-known) — C++!")
    data = facts.text.encode()
    words = [data[s:e].decode() for s, e in zip(facts.word_starts, facts.word_ends, strict=True)]
    assert words == ["Äh", "well-known", "C++"]
    assert facts.words == 4


def test_a_word_is_whole_only_inside_one_token():
    facts = metrics.text_facts("ab cd")
    kinds = np.zeros(9, dtype=np.uint8)
    whole = lambda *pairs: metrics.words_whole(facts, spans(*pairs), kinds)  # noqa: E731
    assert whole((0, 5)) == 1.0  # a token may hold several words
    assert whole((0, 2), (2, 5)) == 1.0
    assert whole((0, 3), (3, 4), (4, 5)) == 0.5
    assert whole((0, 0), (0, 2), (3, 5)) == 1.0  # an empty token before the text, a dropped space
    assert whole((0, 2), (0, 2), (3, 5)) == 0.5  # two tokens share rewritten characters
    assert whole((0, 1), (3, 5)) == 0.5  # half of the first word was dropped


@given(st.text())
def test_facts_agree_with_python(text):
    facts = metrics.text_facts(text)
    assert facts.bytes == len(text.encode())
    assert facts.words == len(text.split())
    assert len(facts.word_starts) <= facts.words
    data = text.encode()
    for start, end in zip(facts.word_starts, facts.word_ends, strict=True):
        assert len(data[start:end].decode().split()) == 1


def test_renyi_entropy_by_hand():
    # p = 1/2, 1/4, 1/4: sum p^2 = 3/8, Shannon 1.5 bits, sum p^3 = 5/32
    counts = np.array([2, 1, 1])
    assert metrics.renyi_entropy(counts, 2) == pytest.approx(math.log2(8 / 3))
    assert metrics.renyi_entropy(counts, 1) == pytest.approx(1.5)
    assert metrics.renyi_efficiency(counts, 8, 3) == pytest.approx(math.log2(32 / 5) / 2 / 3)
    assert metrics.renyi_entropy(np.ones(16), 2.5) == pytest.approx(4.0)


def test_agrees_with_tokenization_scorer():
    scorer = pytest.importorskip("tokenization_scorer")
    words = "the cat sat on the mat and the dog sat on the cat".split()
    counts = np.unique(words, return_counts=True)[1]
    ours = metrics.renyi_efficiency(counts, len(counts))
    assert ours == pytest.approx(scorer.score([" ".join(words)], metric="renyi", power=2.5))
    declared = metrics.renyi_efficiency(counts, 32_000)
    assert declared == pytest.approx(scorer.score([" ".join(words)], metric="renyi", power=2.5, vocab=32_000))
    shannon = metrics.renyi_efficiency(counts, len(counts), alpha=1)
    assert shannon == pytest.approx(scorer.score([" ".join(words)], metric="shannon_efficiency"))


def test_agreement_by_hand():
    # cuts of 6 bytes: {2, 4}, {2, 3, 4}, {}, and {1}
    cutters = [
        spans((0, 2), (2, 4), (4, 6)),
        spans((0, 2), (2, 3), (3, 4), (4, 6)),
        spans((0, 6)),
        spans((0, 1), (1, 6)),
    ]
    matrix = metrics.agreement(cutters, 6)
    assert matrix[0, 1] == 2 * 2 / 5
    assert matrix[0, 2] == matrix[0, 3] == 0
    assert metrics.agreement([cutters[2], cutters[2]], 6).tolist() == [[1, 1], [1, 1]]


@given(st.lists(st.sets(st.integers(1, 19)), min_size=1, max_size=4))
def test_agreement_is_symmetric_with_ones_on_the_diagonal(cut_sets):
    edges = [[0, *sorted(cut_set), 20] for cut_set in cut_sets]
    matrix = metrics.agreement([spans(*zip(e[:-1], e[1:], strict=True)) for e in edges], 20)
    assert np.array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 1).all()
    assert ((matrix >= 0) & (matrix <= 1)).all()


def test_agreement_of_an_empty_text():
    assert metrics.agreement([spans(), spans()], 0).tolist() == [[1, 1], [1, 1]]


def test_table_defines_every_column_and_shows_cost_only_with_a_price():
    numbers = [measured("the cat", Longest("the")), measured("the cat", Characters())]
    table = metrics.numbers_table(["<b>one", "two"], numbers)
    assert table.columns == ("Measure", "<b>one", "two")
    assert [row[0] for row in table.rows] == list(table.help) and "Cost" not in table.help
    row = {measure: value for measure, _, value in table.rows}
    assert (row["Tokens"], row["Exact round trip"], row["Vocabulary"]) == (7, "by construction", None)
    priced = metrics.numbers_table(["one"], [dataclasses.replace(numbers[0], cost=0.0000021)])
    assert priced.rows[-1] == ("Cost", 0.0000021)
    assert views.to_json(table)["kind"] == "Table"


def test_agreement_view():
    view = metrics.agreement_view(["a", "b"], np.array([[1, 1 / 3], [1 / 3, 1]]))
    assert view.values == ((1.0, 0.3333), (0.3333, 1.0))
    assert "lowest 0.333 at a, b" in view.alt()


@pytest.mark.parametrize("sample", ["showcase", "mixed", "python"])
def test_real_tokenizers(sample):
    text = samples.text(sample)
    facts = metrics.text_facts(text)
    refs = ("mistral-v3", "tekken-240911", "bytes", "characters", "words")
    tokenizers = [sources.load(ref) for ref in refs]
    cut = [tokenizer.encode(text) for tokenizer in tokenizers]
    numbers = {
        ref: metrics.measure(facts, tokenizer, tokenization, 1.0)
        for ref, tokenizer, tokenization in zip(refs, tokenizers, cut, strict=True)
    }
    for n in numbers.values():
        assert n.round_trip is not False and n.unknown_tokens == 0
        assert n.tokens * n.bytes_per_token == pytest.approx(len(text.encode()))
        assert 0 < n.renyi_observed <= 1
    assert numbers["bytes"].bytes_per_token == 1 and numbers["characters"].graphemes_per_token == 1
    assert numbers["words"].words_whole > numbers["tekken-240911"].words_whole > numbers["bytes"].words_whole
    assert (np.diag(metrics.agreement(cut, facts.bytes)) == 1).all()


def test_a_real_tokenizer_agrees_with_tokenization_scorer():
    scorer = pytest.importorskip("tokenization_scorer")
    tokenizer = sources.load("tekken-240911")
    text = samples.text("story")
    ids = " ".join(map(str, tokenizer.encode(text).ids))
    ours = measured(text, tokenizer)
    assert ours.renyi == pytest.approx(scorer.score([ids], metric="renyi", power=2.5, vocab=ours.vocabulary))
    assert ours.renyi_observed == pytest.approx(scorer.score([ids], metric="renyi", power=2.5))
    assert ours.tokens == -scorer.score([ids], metric="seq_len")
