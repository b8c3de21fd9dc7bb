"""Premiums, intervals and the Gini coefficient over a parallel text small enough to count by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenlab import views
from tokenlab.text import languages as lang
from tokenlab.text.tokenization import Kind, Tokenization, graphemes

TOML = """
[[language]]
code = "tha"
name = "Thai"
endonym = "ไทย"
script = "Thai"
direction = "ltr"
spaces = false
checked = false

[[language]]
code = "eng"
name = "English"
endonym = "English"
script = "Latin"
direction = "ltr"
spaces = true
checked = true

[[language]]
code = "deu"
name = "German"
endonym = "Deutsch"
script = "Latin"
direction = "ltr"
spaces = true
checked = true
"""
TEXTS = {"eng": "a cat\nbc\n", "deu": "äh der\nbcd\n", "tha": "กขค ง\nกข\n"}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "languages.toml").write_text(TOML, "utf-8")
    for code, text in TEXTS.items():
        (tmp_path / f"{code}.txt").write_text(text, "utf-8")
    return tmp_path


class Units:
    """One token per byte, or per grapheme; those that are not ASCII may be unknown."""

    vocabulary_size = 2

    def __init__(self, cut, unknown=False):
        self.ref = self.name = cut
        self.cut, self.unknown = cut, unknown

    def encode(self, text):
        parts = [g.encode() for g in graphemes(text)]
        parts = [bytes([b]) for part in parts for b in part] if self.cut == "bytes" else parts
        ends = np.cumsum([0, *map(len, parts)])
        return Tokenization(np.array([not part.isascii() for part in parts], dtype=np.int64), ends[:-1], ends[1:])

    def kinds(self):
        return np.array([Kind.NORMAL, Kind.UNKNOWN if self.unknown else Kind.NORMAL], dtype=np.uint8)


class Nothing(Units):
    def encode(self, text):
        return super().encode("")


def report(folder, tokenizer, seed=0):
    languages = lang.load(folder)
    return languages, lang.premiums(tokenizer.name, lang.count(tokenizer, languages), languages, seed)


def test_load_puts_english_first(folder):
    languages = lang.load(folder)
    assert [language.code for language in languages] == ["eng", "tha", "deu"]
    assert languages[1].sentences == ("กขค ง", "กข")
    assert [language.units for language in languages] == [3, 6, 3]  # words, Thai letters, words
    assert [language.bytes for language in languages] == [7, 19, 10]


def test_load_refuses_texts_that_are_not_parallel(folder):
    (folder / "deu.txt").write_text("nur eine Zeile\n", "utf-8")
    with pytest.raises(ValueError, match="deu.txt has 1 lines"):
        lang.load(folder)


def test_numbers_by_hand(folder):
    languages, bytewise = report(folder, Units("bytes"))
    assert bytewise.tokens.tolist() == [7, 19, 10]
    assert bytewise.premium.tolist() == [1, 19 / 7, 10 / 7]
    assert bytewise.premium.tolist() == lang.bytes_premium(languages).tolist()
    assert bytewise.fertility.tolist() == [7 / 3, 19 / 6, 10 / 3]
    # costs 7, 19, 10: differences 12 + 3 + 9, twice; mean 12
    assert bytewise.gini == pytest.approx(48 / (2 * 9 * 12))
    assert bytewise.gini_bytes == 0
    _, characters = report(folder, Units("characters"))
    assert characters.tokens.tolist() == [7, 7, 9]
    # one token per byte in English, 7 / 19 in Thai, 9 / 10 in German
    costs = [1, 7 / 19, 9 / 10]
    apart = sum(abs(a - b) for a in costs for b in costs)
    assert characters.gini_bytes == pytest.approx(apart / (2 * 9 * sum(costs) / 3))


def test_interval_holds_the_premium_and_follows_the_seed(folder):
    _, first = report(folder, Units("characters"), seed=1)
    _, same = report(folder, Units("characters"), seed=1)
    assert first.low.tolist() == same.low.tolist() and first.high.tolist() == same.high.tolist()
    assert (first.low <= first.premium).all() and (first.premium <= first.high).all()
    assert (first.low[0], first.high[0]) == (1, 1)
    # Two sentences: a resample is the first twice, the second twice, or both.
    assert (first.low[2], first.high[2]) == (6 / 5, 3 / 2)


def test_a_language_that_cannot_be_written_has_no_premium(folder):
    _, blind = report(folder, Units("characters", unknown=True))
    assert blind.premium[0] == 1 and math.isnan(blind.premium[1])  # Thai: all unknown
    assert math.isnan(blind.premium[2])  # German: 2 of 10 bytes
    assert blind.gini is None  # English alone


def test_a_tokenizer_that_drops_everything(folder):
    languages, nothing = report(folder, Nothing("nothing"))
    assert np.isnan(nothing.premium).all()
    assert nothing.gini is None
    table = lang.fairness_table(languages, [nothing])
    assert table.rows == (("nothing", None, None, None, None, None, None),)
    assert "null" not in lang.premium_view(languages, [nothing]).alt()


def test_gini_by_hand():
    assert lang.gini(np.array([1.0, 3.0])) == 0.25
    assert lang.gini(np.array([2.0, 4.0, 6.0])) == pytest.approx(2 / 9)
    assert lang.gini(np.array([1.0, 100.0])) == pytest.approx(198 / 404)
    assert lang.gini(np.array([5.0])) is None and lang.gini(np.zeros(3)) is None


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20).filter(any), st.integers(1, 9))
def test_gini_is_bounded_and_scale_free(costs, factor):
    value = lang.gini(np.array(costs, dtype=float))
    assert -1e-12 <= value <= 1 - 1 / len(costs) + 1e-12
    assert value == pytest.approx(lang.gini(np.array(costs, dtype=float) * factor))


def test_views(folder):
    languages, bytewise = report(folder, Units("bytes"))
    _, characters = report(folder, Units("characters"))
    bars = lang.premium_view(languages, [bytewise, characters])
    # means: English 1, Thai (19/7 + 1) / 2, German (10/7 + 9/7) / 2
    assert bars.categories == ("Thai", "German", "English")
    assert bars.series == {"bytes": (2.714, 1.429, 1.0), "characters": (1.0, 1.286, 1.0)}
    assert all(low <= high for name in bars.low for low, high in zip(bars.low[name], bars.high[name], strict=True))
    heat = lang.script_view(languages, [bytewise, characters])
    assert heat.rows == ("Thai (1)", "Latin (2)")
    assert heat.values == ((2.714, 1.0), (1.214, 1.143))
    table = lang.language_table(languages, [bytewise], price=2.0)
    assert [row[0] for row in table.rows] == ["German", "English", "Thai *"]  # by script, dearest first
    assert table.rows[0] == ("German", "Deutsch", "Latin", 1.429, 10, 3.333, 1.429, 2.857)
    assert table.marks == {2: "draft"}
    assert set(table.help) <= set(table.columns)
    assert "cost" not in " ".join(lang.language_table(languages, [bytewise]).columns)
    fairness = lang.fairness_table(languages, [bytewise])
    assert fairness.rows == (("bytes", 0.2222, 0.0, "English", 1.0, "Thai", 2.714),)
    for view in (bars, heat, table, fairness):
        assert views.to_json(view)["alt"]


def test_the_projects_own_parallel_text():
    languages = lang.load()
    assert len(languages) >= 30 and len(languages[0].sentences) >= 20
    assert len({language.script for language in languages}) >= 12
    assert len({language.name for language in languages}) == len(languages)
    reports = report(lang.PARALLEL, Units("bytes"))[1]
    assert reports.premium[0] == 1
    assert 0 < reports.gini < 1
