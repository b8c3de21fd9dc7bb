"""The variants do what they say, and those that claim to look the same can be undone."""

import random
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenlab import views
from tokenlab.errors import UserError
from tokenlab.text import attack

BY_NAME = {variant.name: variant for variant in attack.VARIANTS}
SAME = [variant for variant in attack.VARIANTS if variant.looks != "different"]
MIXED = "Pay the bill at café Zoë, не забудь, ב בית, 日本語です, हिन्दी, العربية!"


def varied(name, text, **settings):
    return attack.vary(text, BY_NAME[name], **settings)


def counter(count):
    return SimpleNamespace(encode=lambda text: range(count(text)))


def test_each_variant_by_hand():
    assert varied("zero-width space", "ab") == "a\u200bb"
    assert varied("zero-width non-joiner", "ab") == "a\u200cb"
    assert varied("zero-width joiner", "ab") == "a\u200db"
    assert varied("left-to-right mark", "ab") == "a\u200eb"
    assert varied("right-to-left override", "pay up", every=1) == "\u202eyap\u202c \u202epu\u202c"
    assert varied("no-break spaces", "a b c d", every=2) == "a\u00a0b c\u00a0d"
    assert varied("decomposed accents", "é") == "e\u0301"
    assert varied("trailing space", "a") == "a "
    assert varied("homoglyphs", "eee") in ("еee", "eеe", "eeе")
    assert varied("doubled spaces", "a b\nc") == "a  b\nc"
    assert varied("UPPER CASE", "aß") == "ASS"
    assert varied("lower case", "Ab") == "ab"
    assert varied("Title Case", "don't STOP") == "Don't Stop"
    assert varied("leet digits", "teasio") == "734510"
    assert varied("full-width forms", "a b!") == "ａ\u3000ｂ！"


def test_every_nth_word_is_touched():
    assert varied("zero-width space", "ab cd ef gh", every=3) == "a\u200bb cd ef g\u200bh"
    assert varied("zero-width space", "a b ab", every=1) == "a b a\u200bb"  # one letter has no inside


def test_marks_never_go_where_they_would_show():
    for name in ("zero-width space", "zero-width non-joiner", "zero-width joiner"):
        assert varied(name, "العربية हिन्दी ไทย", every=1) == "العربية हिन्दी ไทย"
        assert varied(name, "עב", every=1) != "עב"
    assert varied("left-to-right mark", "עב", every=1) == "עב"  # would turn the two letters round
    # An accent stays on its letter.
    assert varied("zero-width space", "e\u0301e\u0301") == "e\u0301\u200be\u0301"


def test_the_seed_chooses_the_places():
    text = "internationalisation " * 20
    assert varied("homoglyphs", text, seed=1) == varied("homoglyphs", text, seed=1)
    assert varied("homoglyphs", text, seed=1) != varied("homoglyphs", text, seed=2)
    assert varied("zero-width space", text, seed=1) != varied("zero-width space", text, seed=2)


def test_confusables_are_single_letters_of_another_script():
    alikes = [alike for choices in attack.CONFUSABLES.values() for alike in choices]
    assert len(set(alikes)) == len(alikes)
    for alike in alikes:
        assert unicodedata.name(alike).split()[0] in ("CYRILLIC", "GREEK")
        assert unicodedata.normalize("NFC", alike) == alike
    for letter, choices in attack.CONFUSABLES.items():
        assert letter.isascii() and all(alike.isupper() == letter.isupper() for alike in choices)


@pytest.mark.parametrize("variant", SAME, ids=lambda variant: variant.name)
def test_what_looks_the_same_can_be_undone(variant):
    changed = attack.vary(MIXED, variant, every=1)
    assert changed != MIXED
    assert variant.undo(changed) == variant.undo(MIXED)


@pytest.mark.parametrize("variant", SAME, ids=lambda variant: variant.name)
@given(text=st.text(st.sampled_from("abcXYZ éеñ.,\n日本ではעבالहि👩\u200d"), max_size=40), every=st.integers(1, 4))
def test_undoing_holds_for_any_text(variant, text, every):
    changed = variant.apply(text, every, random.Random(0))
    assert variant.undo(changed) == variant.undo(text)


@pytest.mark.parametrize("variant", attack.VARIANTS, ids=lambda variant: variant.name)
def test_empty_text_stays_empty(variant):
    assert attack.vary("", variant) == ""


def test_step_below_one_is_a_users_error():
    with pytest.raises(UserError, match="from 1"):
        varied("homoglyphs", "text", every=0)


def test_what_is_invisible_is_spelt_out():
    assert attack.reveal("pay\u200bpal\u202e\u0007\u2028\n\t") == "pay⟨ZWSP⟩pal⟨RLO⟩⟨U+0007⟩⟨U+2028⟩\n\t"
    show = lambda name, changed, original: attack.sample(changed, original, BY_NAME[name])  # noqa: E731
    assert show("homoglyphs", "pаy", "pay") == "pа⟨U+0430⟩y"
    assert show("decomposed accents", "cafe\u0301", "café") == "cafe⟨U+0301⟩"
    assert show("trailing space", "a ", "a") == "a⟨SPACE⟩"
    assert show("doubled spaces", "a  b", "a b") == "a ⟨SPACE⟩b"
    assert show("lower case", "ab", "ab") == ""


def test_a_sample_shows_the_first_change():
    original = "x" * 100 + "A" + "y" * 100
    assert attack.sample(original.lower(), original, BY_NAME["lower case"]) == "…" + "x" * 12 + "a" + "y" * 27 + "…"


def test_counts_and_changes():
    characters, words = counter(len), counter(lambda text: len(text.split()))
    attacked = attack.attack("Ab cd", [characters, words], every=1)
    assert attacked[0].variant is attack.ORIGINAL and attacked[0].tokens == (5, 2)
    counts = {one.variant.name: one.tokens for one in attacked}
    assert counts["zero-width space"] == (7, 2)
    assert counts["right-to-left override"] == (9, 2)
    assert counts["doubled spaces"] == (6, 2)
    table = attack.attack_view(["c", "<w>"], attacked)
    assert table.columns[4:] == ("c: tokens", "c: change (%)", "<w>: tokens", "<w>: change (%)")
    row = next(row for row in table.rows if row[0] == "zero-width space")
    assert row[2:] == ("the same", "A⟨ZWSP⟩b c⟨ZWSP⟩d", 7, 40.0, 2, 0.0)
    assert table.marks == {7: "nothing to change"}  # no accents to take apart
    assert table.rows[7][0] == "decomposed accents"
    bars = attack.attack_bars(["c", "<w>"], attacked)
    assert bars.series["c"][0] == 40.0 and len(bars.categories) == len(attack.VARIANTS)
    assert views.to_json(table)["alt"] and views.to_json(bars)["alt"]


def test_nothing_to_attack():
    attacked = attack.attack("", [counter(len)])
    table = attack.attack_view(["c"], attacked)
    assert {row[4:] for row in table.rows} == {(0, None)}
