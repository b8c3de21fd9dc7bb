"""BPE replay: by hand, against a recount from scratch, and against the tokenizers library."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab.text import categories
from tokenlab.text.bpe_replay import BYTES, Replay
from tokenlab.text.merge_tree import single_bytes, single_characters


def replay(words: dict[str, int | tuple[int, ...]]) -> Replay:
    counts = np.array([np.atleast_1d(n) for n in words.values()])
    return Replay([single_bytes(word.encode()) for word in words], counts)


def counts_of(r: Replay) -> dict[tuple[bytes, bytes], tuple[int, ...]]:
    """The pair counts that the replay keeps, without the zeros."""
    named = ((tuple(r.tokens[i] for i in pair), tuple(r.table[row].tolist())) for row, pair in enumerate(r.pairs))
    return {pair: n for pair, n in named if any(n)}


def recount(r: Replay) -> dict[tuple[bytes, bytes], tuple[int, ...]]:
    """The same from scratch: every adjacency of every word as it is now."""
    found: Counter = Counter()
    for word, counts in zip(r.words, r.counts.tolist(), strict=True):
        for a, b in zip(word, word[1:], strict=False):
            for column, n in enumerate(counts):
                found[(r.tokens[a], r.tokens[b]), column] += n
    pairs = {pair for (pair, _), n in found.items() if n}
    return {pair: tuple(found[pair, c] for c in range(r.counts.shape[1])) for pair in pairs}


def test_overlapping_pairs_count_per_adjacency_and_merge_from_left_to_right():
    r = replay({"aaa": 2, "ab": 3})
    assert counts_of(r) == {(b"a", b"a"): (4,), (b"a", b"b"): (3,)}
    changed = r.merge((b"a", b"a"))
    assert counts_of(r) == {(b"aa", b"a"): (2,), (b"a", b"b"): (3,)}
    assert [[r.tokens[i] for i in word] for word in r.words] == [[b"aa", b"a"], [b"a", b"b"]]
    assert {tuple(r.tokens[i] for i in r.pairs[row]) for row in changed} == {(b"a", b"a"), (b"aa", b"a")}


def test_the_example_of_the_bpe_paper():
    """low 5, lower 2, newest 6, widest 3 with an end mark. Ties go to the lower ids, so "t_" comes before "est"."""
    r = replay({"low_": 5, "lower_": 2, "newest_": 6, "widest_": 3})
    assert r.train(5) == [(b"e", b"s"), (b"t", b"_"), (b"es", b"t_"), (b"l", b"o"), (b"lo", b"w")]
    assert [b" ".join(r.tokens[i] for i in word) for word in r.words] == [
        b"low _",
        b"low e r _",
        b"n e w est_",
        b"w i d est_",
    ]


def test_training_ends_when_no_pair_is_left():
    assert replay({"ab": 1, "c": 9}).train(10) == [(b"a", b"b")]
    assert replay({"c": 9}).train(10) == []


def test_two_ways_to_the_same_bytes_are_one_symbol():
    r = replay({"abc": 1, "xbc": 1, "abx": 1})
    for merge in ((b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")):
        r.merge(merge)
    assert r.tokens.count(b"abc") == 1
    assert [[r.tokens[i] for i in word] for word in r.words] == [[b"abc"], [b"x", b"bc"], [b"ab", b"x"]]


def test_a_merge_that_the_corpus_never_held_changes_nothing():
    r = replay({"ab": 1})
    before = counts_of(r)
    assert r.row((b"q", b"q")) is None
    assert len(r.merge((b"q", b"q"))) == 0
    assert len(r.merge((b"unknown", b"parts"))) == 0
    assert counts_of(r) == before


def test_token_counts():
    r = replay({"abab": (1, 10), "b": (5, 0)})
    r.merge((b"a", b"b"))
    found = {r.tokens[i]: tuple(n) for i, n in enumerate(r.token_counts().tolist()) if any(n)}
    assert found == {b"ab": (2, 20), b"b": (5, 0)}


def test_characters_as_first_symbols():
    r = Replay([single_characters("né".encode()), single_characters("né!".encode())], np.array([[3], [1]]))
    assert counts_of(r) == {(b"n", "é".encode()): (4,), ("é".encode(), b"!"): (1,)}


word_lists = st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=12, unique=True)


@settings(max_examples=150, deadline=None)
@given(word_lists, st.data())
def test_counts_equal_a_recount_after_any_foreign_merges(words, data):
    counts = data.draw(st.lists(st.tuples(*[st.integers(0, 9)] * 2), min_size=len(words), max_size=len(words)))
    r = replay(dict(zip(words, counts, strict=True)))
    assert counts_of(r) == recount(r)
    for _ in range(6):
        before = counts_of(r)
        parts = st.sampled_from(sorted({b"a", b"b", b"c", *r.tokens[256:]}))
        merge = data.draw(st.tuples(parts, parts))
        changed = {tuple(r.tokens[i] for i in r.pairs[row]) for row in r.merge(merge)}
        after = counts_of(r)
        assert after == recount(r)
        assert merge not in after
        assert {pair for pair in before | after if before.get(pair) != after.get(pair)} <= changed


def library_merges(words: list[str], size: int) -> list[tuple[bytes, bytes]]:
    """What BpeTrainer learns from these words, in bytes; the vocabulary has `size` entries."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, min_frequency=0, show_progress=False)
    tokenizer.train_from_iterator(words, trainer)
    byte_of = dict(zip(sorted(alphabet), BYTES, strict=True))
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(bytes(byte_of[c] for c in a), bytes(byte_of[c] for c in b)) for a, b in merges]


@settings(max_examples=50, deadline=None)
@given(word_lists, st.data())
def test_training_agrees_with_the_tokenizers_library_on_toys(words, data):
    counts = data.draw(st.lists(st.integers(1, 5), min_size=len(words), max_size=len(words)))
    expected = library_merges([w for w, n in zip(words, counts, strict=True) for _ in range(n)], 256 + 15)
    assert replay(dict(zip(words, counts, strict=True))).train(len(expected)) == expected


@pytest.mark.parametrize("name", ["Python", "Invented, Cyrillic"])
def test_training_agrees_with_the_tokenizers_library_on_text(name):
    import regex

    from tokenlab.text.data_mixture import GPT2

    text = categories.sample(name, "first half", 200_000)
    expected = library_merges([text], 256 + 400)
    r = replay(Counter(regex.findall(GPT2, text)))
    assert len(expected) >= 400
    assert r.train(len(expected)) == expected
    assert counts_of(r) == recount(r)
