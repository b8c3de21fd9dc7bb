"""A vocabulary of a dozen entries, looked at from all sides."""

import numpy as np
import pytest
import regex

from tokenlab import views
from tokenlab.errors import UserError
from tokenlab.text import sources
from tokenlab.text import vocabulary as voc
from tokenlab.text.tokenization import Kind

NORMAL, BYTE, UNKNOWN, SPECIAL = Kind.NORMAL, Kind.BYTE, Kind.UNKNOWN, Kind.SPECIAL
ENTRIES = [
    (b"", SPECIAL),  # 0
    (b"", UNKNOWN),  # 1
    (b"\xe2", BYTE),  # 2
    (b"A", BYTE),  # 3
    (b"A", NORMAL),  # 4
    (b"t", NORMAL),  # 5
    (b"h", NORMAL),  # 6
    (b"e", NORMAL),  # 7
    (b"he", NORMAL),  # 8
    (b"the", NORMAL),  # 9
    (b" the", NORMAL),  # 10
    (b"The", NORMAL),  # 11
    (b" \xe2\x80", NORMAL),  # 12
    ("дом".encode(), NORMAL),  # 13
    ("дom".encode(), NORMAL),  # 14
    (b"!\n", NORMAL),  # 15
    ("<img onerror=alert(1)>\u202e".encode(), NORMAL),  # 16
    (b" ", NORMAL),  # 17
]
PARTS = {8: (b"h", b"e"), 9: (b"t", b"he"), 10: (b" ", b"the"), 12: (b" ", b"\xe2\x80")}


class Toy:
    """The entries above; encoding is one token for an entry, else one per byte."""

    ref = name = "toy"

    def __init__(self, entries=ENTRIES, parts=PARTS, ref="toy"):
        self.entries, self.parts, self.ref = entries, parts, ref
        self.vocabulary_size = len(entries) or None
        self.listed = 0

    def pieces(self):
        self.listed += 1
        return [piece for piece, _ in self.entries]

    def kinds(self):
        return np.array([kind for _, kind in self.entries], dtype=np.uint8)

    def encode(self, text):
        return range(1 if text.encode() in self.pieces() else len(text.encode()))

    def merge_parts(self, token):
        return self.parts.get(token)


@pytest.fixture
def toy(request):
    return Toy(ref=request.node.name)


def classes(*texts):
    return [voc.CLASSES[i] for i in voc.script_classes(texts)]


def test_what_an_entry_is(toy):
    entries = voc.vocabulary(toy)
    assert entries.texts[0] == entries.texts[1] == ""
    assert entries.texts[2:5] == ["\\xe2", "\\x41", "A"]
    assert entries.texts[12] == " \\xe2\\x80"
    assert "\ufffd" not in "".join(entries.texts)
    names = [voc.CLASSES[i] for i in entries.classes]
    assert names[:5] == ["Special", "Special", "Byte fragment", "Byte fragment", "Latin"]
    assert names[12:18] == ["Byte fragment", "Cyrillic", "Mixed", "No letters", "Latin", "No letters"]
    assert entries.sizes.tolist()[11:15] == [3, 3, 6, 4]
    assert entries.characters.tolist()[11:15] == [3, -1, 3, 3]
    assert entries.ids[b"A"] == 4 and entries.ids[b"\xe2"] == 2


def test_it_is_looked_through_once_per_ref(toy):
    first = voc.vocabulary(toy)
    again = Toy(ref=toy.ref)
    assert voc.vocabulary(again) is first
    assert (toy.listed, again.listed) == (1, 0)
    assert voc.vocabulary(Toy(ref=toy.ref + "!")) is not first


def test_scripts():
    texts = ("the", " Äß1", "дом", "日本", "ひらカタ", "हिन्दी", "123", "\u0301")
    assert classes(*texts) == ["Latin", "Latin", "Cyrillic", "Han", "Mixed", "Devanagari", "No letters", "No letters"]
    assert classes("µ", "ラー", "ー", "e\u0301") == ["Common letters", "Katakana", "Common letters", "Latin"]
    assert classes("𐀀") == ["Other script"]  # Linear B
    assert classes() == []


def test_every_script_is_known_to_unicode_and_has_a_bit():
    assert len(voc.SCRIPTS) + 2 < 64 and len(set(voc.SCRIPTS)) == len(voc.SCRIPTS)
    for script in voc.SCRIPTS:
        assert regex.compile(rf"\p{{Script={script}}}")
    assert classes("ꤰ") == ["Other script"]  # Rejang


def test_search(toy):
    assert voc.search(toy, "the") == (3, (9, 11, 10))
    assert voc.search(toy, "the", ignore_case=False) == (2, (9, 10))
    assert voc.search(toy, " the") == voc.search(toy, "␣THE") == (1, (10,))
    assert voc.search(toy, "the", most=1) == (3, (9,))
    assert voc.search(toy, "\\xE2\\x80") == (1, (12,))
    assert voc.search(toy, "\\xe2") == (2, (2, 12))
    assert voc.search(toy, "␊") == (1, (15,))
    assert voc.search(toy, "nothing") == (0, ())
    assert voc.search(toy, "") == (16, tuple(i for _, i in sorted((len(ENTRIES[i][0]), i) for i in range(2, 18))))


def test_escapes_are_found_by_escapes_only(toy):
    assert voc.search(toy, "x") == (0, ())
    assert 12 not in voc.search(toy, "8")[1] and 2 not in voc.search(toy, "e")[1]


def test_longest(toy):
    assert voc.longest(toy, 3) == (16, 13, 10)
    assert voc.longest(toy, 3, "characters") == (16, 10, 9)


def test_entry(toy):
    assert voc.entry(toy, "the") == 9
    assert voc.entry(toy, "A") == 4
    assert voc.entry(toy, "\\x41") == 3
    assert voc.entry(toy, "␣\\xe2\\x80") == voc.entry(toy, "\\xe2\\x80") == 12
    assert voc.entry(toy, "#13") == 13
    assert voc.entry(toy, "#999") is voc.entry(toy, "th") is voc.entry(toy, "") is None


def test_forms(toy):
    found = {form.text: (form.label, form.id, form.tokens) for form in voc.forms(toy, "the")}
    assert found == {
        "the": ("as typed", 9, 1),
        " the": ("as typed, space in front", 10, 1),
        "The": ("Capitalised", 11, 1),
        " The": ("Capitalised, space in front", None, 4),
        "THE": ("CAPITALS", None, 3),
        " THE": ("CAPITALS, space in front", None, 4),
    }
    assert len(voc.forms(toy, " tHe")) == 8
    for bad in ("", "  ", "\ud800"):
        with pytest.raises(UserError):
            voc.forms(toy, bad)


def test_merge_tree(toy):
    tree = voc.merge_view(toy, "␣the")
    assert tree.alt() == "Merges that build “␣the” in toy: ␣the from (␣ and the from (t and he from (h and e)))."
    assert [child.note for child in tree.root.children] == ["id 17", "id 9"]
    fragment = voc.merge_tree(toy, 12)
    assert [(node.text, node.note) for node in fragment.children] == [("␣", "id 17"), ("\\xe2\\x80", "not an entry")]
    assert voc.merge_tree(toy, 13) == views.Node(text="дом", note="id 13")
    assert "No merge" in voc.merge_view(toy, "дом").note
    assert voc.merge_view(toy, "unheard of") is None


def test_a_deep_merge_tree_ends_and_says_so():
    chain = [(b"a" * n, NORMAL) for n in range(1, 400)]
    parts = {n: (b"a" * n, b"a") for n in range(1, 399)}
    tree = voc.merge_view(Toy(chain, parts, ref="deep"), "#398")
    node, depth = tree.root, 0
    while node.children:
        node, depth = node.children[0], depth + 1
    assert depth == voc.DEPTH and node.note.endswith("built by further merges")
    assert views.to_json(tree)["kind"] == "Tree"


def test_open_vocabulary_is_a_users_error():
    with pytest.raises(UserError, match="open vocabulary"):
        voc.vocabulary(Toy([], {}, ref="open"))


def test_a_vocabulary_of_special_entries_only():
    empty = Toy([(b"", SPECIAL)], {}, ref="special")
    assert voc.search(empty, "") == (0, ())
    assert voc.longest(empty) == ()
    assert voc.length_shares(empty).tolist() == []
    assert voc.script_view([empty]).categories == ("Special",)
    assert voc.length_view([empty]).series[0].y == ()


def test_script_and_length_views(toy):
    shares = dict(zip(voc.CLASSES, voc.script_shares(toy), strict=True))
    assert shares["Byte fragment"] == 3 / 18 and shares["Cyrillic"] == 1 / 18
    assert sum(shares.values()) == pytest.approx(1)
    view = voc.script_view([toy])
    assert view.categories[:2] == ("Latin", "Byte fragment") and "Thai" not in view.categories
    # sixteen entries have a length in bytes, thirteen one in code points
    lengths = voc.length_shares(toy) * 16
    assert lengths[:6].tolist() == [7, 2, 3, 2, 0, 1] and lengths[-1] == 1 and len(lengths) == 25
    characters = voc.length_shares(toy, "characters") * 13
    assert characters[:4].round(9).tolist() == [5, 2, 4, 1] and len(characters) == 23
    lines = voc.length_view([toy])
    assert lines.series[0].x[:3] == (1, 2, 3)
    assert lines.series[0].y[4] is None  # no entry of 5 bytes
    assert views.to_json(view)["alt"] and views.to_json(lines)["alt"]


def test_tables_show_what_is_invisible(toy):
    table = voc.search_view([toy, toy], "<IMG")
    assert table.rows[0] == table.rows[1]
    assert table.rows[0][2] == "<img␣onerror=alert(1)>⟨U+202E⟩"
    assert table.rows[0][:2] == ("toy", 16)
    assert voc.shown("\x00\t\x7f\u200b\u3000") == "␀␉␡⟨U+200B⟩⟨U+3000⟩"
    assert "toy 1, toy 1" in table.note
    assert voc.longest_view([toy], 1).rows[0][1] == 16
    spellings = voc.forms_view([toy], "the")
    assert spellings.columns == ("Spelling", "Text", "toy: id", "toy: tokens")
    assert spellings.rows[1] == ("as typed, space in front", "␣the", 10, 1)


@pytest.mark.parametrize("ref", ["mistral-v3", "tekken-240911"])
def test_real_vocabularies(ref):
    tokenizer = sources.load(ref)
    entries = voc.vocabulary(tokenizer)
    assert len(entries.texts) == tokenizer.vocabulary_size
    for text, piece in zip(entries.texts, entries.pieces, strict=True):
        assert ("\ufffd" in text) == ("\ufffd".encode() in piece)  # Tekken has such entries; decoding adds none
    assert voc.script_shares(tokenizer)[voc.CLASSES.index("Latin")] > 0.5
    assert {form.text: form.tokens for form in voc.forms(tokenizer, "house")}[" house"] <= 2

    def spelt(node):
        piece = entries.pieces[int(node.note.removeprefix("id "))]
        if node.children:
            left, right = node.children
            assert piece == spelt(left) + spelt(right)
        else:
            assert len(piece) == 1 or len(piece.decode()) == 1 and ref == "mistral-v3"
        return piece

    for query in (" international", "ation", "функ"):
        assert spelt(voc.merge_view(tokenizer, query).root).decode().strip() == query.strip()
    fragments = np.count_nonzero([voc.CLASSES[c] == "Byte fragment" for c in entries.classes])
    literally = sum(b"\\x" in piece for piece in entries.pieces)
    assert voc.search(tokenizer, "\\x", ignore_case=False)[0] == fragments + literally


def test_rare_scripts_share_one_bar():
    view = voc.script_view([sources.load("tekken-240911"), sources.load("bytes")])
    assert len(view.categories) == voc.SCRIPTS_SHOWN + 1 and view.categories[-1].endswith(" more")
    assert all(sum(shares) == pytest.approx(100) for shares in view.series.values())
