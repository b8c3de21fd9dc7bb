"""The category samples: of the promised size, repeatable, and dealt without overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tokenlab.errors import UserError
from tokenlab.text import categories

SIZE = 60_000
REAL = categories.NAMES[:5]
INVENTED = categories.NAMES[5:]


def test_every_category_says_where_it_comes_from():
    assert set(categories.SOURCES) == set(categories.NAMES)


@pytest.mark.parametrize("name", categories.NAMES)
@pytest.mark.parametrize("part", categories.PARTS)
def test_a_sample_has_its_size_and_grows_from_its_beginning(name, part):
    text = categories.sample(name, part, SIZE)
    assert SIZE - 4 < len(text.encode()) <= SIZE
    assert "\N{REPLACEMENT CHARACTER}" not in text
    smaller = categories.sample(name, part, SIZE // 2)
    assert text.startswith(smaller)
    assert len(smaller.encode()) > SIZE // 2 - 4


@pytest.mark.parametrize("name", ["English prose", "Python", "Invented, Greek"])
def test_the_largest_sample_is_there(name):
    for part in categories.PARTS:
        assert len(categories.sample(name, part, categories.MOST_BYTES).encode()) > 0.9 * categories.MOST_BYTES


@pytest.mark.parametrize("name", categories.NAMES)
def test_samples_repeat(name):
    first = categories.sample(name, "first half", SIZE)
    categories.sample.cache_clear()
    assert categories.sample(name, "first half", SIZE) == first


@pytest.mark.parametrize("name", categories.NAMES)
def test_the_parts_share_no_piece(name):
    parts = [set(itertools.islice(categories._dealt(name, part), 40)) for part in categories.PARTS]
    long = [{piece for piece in part if len(piece) > 1500} for part in parts]
    assert all(long)
    assert not long[0] & long[1] and not long[0] & long[2] and not long[1] & long[2]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("English prose", " the "),
        ("Python", "def "),
        ("C and C++", "#include"),
        ("JavaScript", "function"),
        ("JSON", '": '),
    ],
)
def test_real_categories_look_like_what_they_are(name, word):
    for part in categories.PARTS:
        text = categories.sample(name, part, SIZE)
        assert text.count(word) > 20
        assert len(text) > 0.9 * len(text.encode())  # mostly ASCII


def test_no_tests_and_no_bundled_extras():
    files = categories._files("", "", ".py")
    assert len(files) > 200
    assert not any(categories._SKIP & set(file.parts[-4:-1]) for file in files)


def test_a_missing_package_is_one_sentence():
    with pytest.raises(UserError, match="no_such_package is not installed"):
        categories._root("no_such_package")


@pytest.mark.parametrize(
    ("name", "part", "size"), [("Klingon", "away", 10), ("JSON", "middle", 10), ("JSON", "away", 0)]
)
def test_unknown_samples_are_a_programming_error(name, part, size):
    with pytest.raises(ValueError):
        categories.sample(name, part, size)


def test_prose_is_picked_out_of_docstrings():
    source = '''
def f(x):
    """Return x.

    This paragraph is a sentence, it is long enough to be kept, and it ends
    with a full stop.

    x : int
        The number of things, which is a line of a parameter list and not a sentence.

    >>> f(1) + f(2) == f(3) and this is long enough but it is code, not prose at all.
    """
    text = "A string in the code, which is long enough but no docstring at all, is left."
'''
    assert categories._paragraphs(source) == [
        "This paragraph is a sentence, it is long enough to be kept, and it ends with a full stop.\n\n"
    ]
    assert categories._paragraphs("x = 1\n") == []


def test_long_files_are_cut_at_line_ends(monkeypatch):
    monkeypatch.setattr(categories, "PIECE", 10)
    assert list(categories._cut("one\ntwo\nthree\nfour\n")) == ["one\ntwo\n", "three\n", "four\n"]
    assert list(categories._cut("a" * 25)) == ["a" * 10, "a" * 10, "a" * 5]
    assert list(categories._cut("ünïcödé")) == []


@pytest.mark.parametrize("name", INVENTED)
def test_invented_languages_are_words_of_a_chain(name):
    alphabet, order = categories._LANGUAGES[name]
    chain = categories._chain(len(alphabet), order)
    assert chain.shape == ((len(alphabet) + 1) ** order, len(alphabet) + 1)
    np.testing.assert_allclose(chain.sum(axis=1), 1)
    assert chain[0, 0] == 0
    lexicon = categories._lexicon(chain, alphabet, order, np.random.default_rng(0))
    assert len(lexicon) == len(set(lexicon)) > 2000
    assert all(1 <= len(word) <= 12 and set(word) <= set(alphabet) for word in lexicon)


def test_a_chain_that_leaves_no_choice():
    """Order 1, letters a and b: a is always followed by b, b by the end of the word."""
    chain = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    assert categories._lexicon(chain, "ab", 1, np.random.default_rng(0)) == ["ab"]
