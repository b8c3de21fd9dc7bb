"""What is in a vocabulary: search, scripts, lengths, spellings of a word, and the merges that build a token.

An entry is bytes. As text it is decoded where the bytes are UTF-8; bytes that are not are written as
escapes such as \\xe2\\x80, so that a fragment of a character is seen, and can be searched, as what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import regex

from tokenlab import guard, limits, views
from tokenlab.errors import UserError
from tokenlab.text.tokenization import Kind, Tokenizer

# Values of the Unicode property Script, the most frequent in vocabularies first; the rest is "Other script".
SCRIPTS = (
    "Latin Han Cyrillic Hangul Arabic Devanagari Greek Hebrew Thai Hiragana Katakana Bengali Tamil Telugu Kannada "
    "Malayalam Gujarati Gurmukhi Georgian Armenian Myanmar Khmer Lao Tibetan Sinhala Ethiopic Mongolian Oriya Thaana "
    "Syriac Cherokee Canadian_Aboriginal Tifinagh Nko Javanese Balinese Sundanese Tagalog Bopomofo Yi Ol_Chiki "
    "Coptic Gothic Runic Ogham Vai Adlam Meetei_Mayek Tai_Le New_Tai_Lue Tai_Tham Cham Lepcha Limbu Buginese"
).split()
CLASSES = (
    *(name.replace("_", " ") for name in SCRIPTS),
    "Other script",
    "Common letters",
    "Mixed",
    "No letters",
    "Byte fragment",
    "Special",
)
_OTHER, _COMMON, _MIXED, _NO_LETTERS, _FRAGMENT, _SPECIAL = range(len(SCRIPTS), len(CLASSES))

SCRIPTS_SHOWN = 14  # bars of their own
SHOWN = 50  # rows of each tokenizer in a table of entries
DEPTH = 60  # levels of a merge tree


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A closed vocabulary, looked through once.

    pieces, texts, folded: per id the bytes, the text (fragments as escapes, "" for special entries) and
    the text without case; ids: bytes -> id, of a normal entry if there is one; kinds (|V|,) uint8 of Kind;
    classes (|V|,) int64, numbers into CLASSES; sizes (|V|,) int64 bytes; characters (|V|,) int64 code
    points, -1 for fragments and special entries."""

    name: str
    pieces: list[bytes]
    texts: list[str]
    folded: list[str]
    ids: dict[bytes, int]
    kinds: np.ndarray
    classes: np.ndarray
    sizes: np.ndarray
    characters: np.ndarray


@dataclass(frozen=True)
class _ByRef:
    """A tokenizer as a key: two with the same ref are the same."""

    ref: str
    tokenizer: Tokenizer = field(compare=False)


def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, kept for the next call. UserError when it is open."""
    return _vocabulary(_ByRef(tokenizer.ref, tokenizer))


@lru_cache(maxsize=8)
def _vocabulary(key: _ByRef) -> Vocabulary:
    tokenizer = key.tokenizer
    pieces, kinds = tokenizer.pieces(), tokenizer.kinds()
    if not pieces:
        raise UserError(f"{tokenizer.name} has an open vocabulary, so there are no entries to list; choose another.")
    decoded = [_decoded(piece) for piece in pieces]
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    special = (kinds == Kind.SPECIAL) | (kinds == Kind.UNKNOWN) | (sizes == 0)
    fragment = ~special & ((kinds == Kind.BYTE) | np.array([text is None for text in decoded]))
    texts = [
        "" if s else _escaped(piece, kind) if f else text
        for piece, kind, text, s, f in zip(pieces, kinds.tolist(), decoded, special.tolist(), fragment, strict=True)
    ]
    whole = ~special & ~fragment
    characters = np.where(whole, [len(text) for text in texts], -1)
    classes = np.full(len(pieces), _FRAGMENT, dtype=np.int64)
    classes[special] = _SPECIAL
    classes[whole] = script_classes([text for text, w in zip(texts, whole, strict=True) if w])
    folded = [text.casefold() for text in texts]
    last_wins = np.argsort(kinds != Kind.NORMAL, kind="stable")[::-1]
    ids = {pieces[i]: i for i in last_wins.tolist() if not special[i]}
    return Vocabulary(tokenizer.name, pieces, texts, folded, ids, kinds, classes, sizes, characters)


def _decoded(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _escaped(piece: bytes, kind: int) -> str:
    if kind == Kind.BYTE:  # ASCII too: <0x41> is another entry than A
        return "".join(f"\\x{byte:02x}" for byte in piece)
    return piece.decode("utf-8", "backslashreplace")


def script_classes(texts: Sequence[str]) -> np.ndarray:
    """(n,) int64 numbers into CLASSES for texts that are not empty.

    The Unicode script of the letters and marks; "Mixed" for several; letters that scripts share (such
    as µ or ー) count only when there are no others."""
    if not texts:
        return np.zeros(0, dtype=np.int64)
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4")
    starts = np.cumsum([0, *map(len, texts)])[:-1]
    masks = np.bitwise_or.reduceat(_script_masks(codes)[codes], starts)
    common = np.uint64(1 << _COMMON)
    own = np.where(masks == common, masks, masks & ~common)
    one = (own & (own - np.uint64(1))) == 0
    single = np.log2(np.maximum(own, np.uint64(1)).astype(float)).astype(np.int64)
    return np.where(own == 0, _NO_LETTERS, np.where(one, single, _MIXED))


def _script_masks(codes: np.ndarray) -> np.ndarray:
    """(0x110000,) uint64: per code point in `codes` one bit for its script, 0 unless a letter or mark."""
    masks = np.zeros(0x110000, dtype=np.uint64)
    seen = "".join(map(chr, np.flatnonzero(np.bincount(codes)).tolist()))
    left = "".join(regex.findall(r"[\p{L}\p{M}]", seen))
    for number, script in (*enumerate(SCRIPTS), (_COMMON, "Common"), (None, "Inherited")):
        found = regex.findall(rf"\p{{Script={script}}}", left)
        if found:
            masks[[ord(c) for c in found]] = 0 if number is None else 1 << number
            left = regex.sub(rf"\p{{Script={script}}}+", "", left)
    masks[[ord(c) for c in left]] = 1 << _OTHER
    return masks


_ESCAPE = regex.compile(r"\\x[0-9a-f]{2}")

# What is typed or shown for a space and the control characters: their Unicode pictures.
_PICTURES = {" ": "␣", "\x7f": "␡"} | {chr(code): chr(0x2400 + code) for code in range(0x20)}
_TYPED = str.maketrans({picture: character for character, picture in _PICTURES.items()})


def shown(text: str) -> str:
    """An entry's text for a table: ␣ for a space, ␊ for a line feed, ⟨U+200B⟩ for what else is invisible."""
    return regex.sub(r"[\p{Z}\p{Cc}\p{Cf}]", lambda match: _PICTURES.get(match[0]) or f"⟨U+{ord(match[0]):04X}⟩", text)


def search(
    tokenizer: Tokenizer, query: str, ignore_case: bool = True, most: int = SHOWN
) -> tuple[int, tuple[int, ...]]:
    """How many entries hold `query`, and the ids of the shortest `most` of them. "" finds all but special ones.

    Bytes are searched by their escapes, \\xe2\\x80; ␣ and ␊ stand for a space and a line feed."""
    entries = vocabulary(tokenizer)
    query = query.translate(_TYPED)
    wanted, texts = (query.casefold(), entries.folded) if ignore_case else (query, entries.texts)
    ids = [i for i, text in enumerate(texts) if wanted in text and text]
    if "\\x" not in wanted:  # the x and the digits of an escape are no text
        ids = [i for i in ids if entries.classes[i] != _FRAGMENT or wanted in _ESCAPE.sub("\0", texts[i])]
    found = np.array(ids, dtype=np.int64)
    order = np.argsort(entries.sizes[found], kind="stable")[:most]
    return len(found), tuple(found[order].tolist())


def longest(tokenizer: Tokenizer, n: int = 30, unit: str = "bytes") -> tuple[int, ...]:
    """The ids of the n longest entries in "bytes" or "characters" (code points), the longest first."""
    entries = vocabulary(tokenizer)
    lengths = entries.sizes if unit == "bytes" else entries.characters
    candidates = np.flatnonzero((entries.classes != _SPECIAL) & (lengths > 0))
    return tuple(candidates[np.argsort(-lengths[candidates], kind="stable")[:n]].tolist())


def entry(tokenizer: Tokenizer, query: str) -> int | None:
    """The id of the entry that is exactly `query`, or that with a space in front; # and digits: that id.

    `query` is written as in `search`. None when there is no such entry."""
    entries = vocabulary(tokenizer)
    number = regex.fullmatch(r"#(\d{1,9})", query)
    if number and int(number[1]) < len(entries.texts):
        return int(number[1])
    wanted = query.translate(_TYPED)
    exact = {wanted: 0, f" {wanted}": 1}
    candidates = [i for i, text in enumerate(entries.texts) if text in exact]
    ordered = sorted(candidates, key=lambda i: (exact[entries.texts[i]], entries.kinds[i] != Kind.NORMAL, i))
    return ordered[0] if wanted and ordered else None


@dataclass(frozen=True)
class Form:
    """A spelling of a string. id: the entry that is exactly this, or None; tokens: n when encoded alone."""

    label: str
    text: str
    id: int | None
    tokens: int


def forms(tokenizer: Tokenizer, string: str) -> tuple[Form, ...]:
    """A string as typed, small, Capitalised and in CAPITALS, each without and with a space in front; equal
    spellings once. UserError when nothing is typed."""
    limits.check_unicode(string, "The word")
    word = string.strip()
    if not word:
        raise UserError("Please type a word to see its spellings.")
    spellings = {}
    for label, text in (
        ("as typed", word),
        ("small", word.lower()),
        ("Capitalised", word[0].upper() + word[1:].lower()),
        ("CAPITALS", word.upper()),
    ):
        spellings.setdefault(text, label)
        spellings.setdefault(f" {text}", f"{label}, space in front")
    entries = vocabulary(tokenizer)
    return tuple(
        Form(label, text, entries.ids.get(text.encode()), len(tokenizer.encode(text)))
        for text, label in spellings.items()
    )


def merge_tree(tokenizer: Tokenizer, token: int) -> views.Node:
    """The merges that build an entry, down to the symbols that BPE starts from.

    Uses `tokenizer.merge_parts(id) -> (bytes, bytes) | None`. A single node when no merge makes the entry,
    as in Unigram and WordPiece. Below DEPTH levels the parts are left out, and the node says so."""
    entries = vocabulary(tokenizer)

    def node(piece: bytes, token: int | None, depth: int) -> views.Node:
        guard.check_time()
        if token is None:
            return views.Node(text=shown(_escaped(piece, Kind.NORMAL)), note="not an entry")
        parts = tokenizer.merge_parts(token)
        text, note = shown(entries.texts[token]), f"id {token}"
        if parts is not None and depth == DEPTH:
            return views.Node(text=text, note=f"{note}, built by further merges")
        children = (node(part, entries.ids.get(part), depth + 1) for part in parts or ())
        return views.Node(text=text, note=note, children=tuple(children))

    return node(entries.pieces[token], token, 0)


_ENTRY_COLUMNS = ("Tokenizer", "Id", "Entry", "Bytes (hex)", "Script", "Length (bytes)", "Length (code points)")
_ENTRY_HELP = {
    "Entry": "␣ is a space, ␊ a line feed; \\xe2 stands for a byte that is only a part of a character.",
    "Script": "Unicode script of the letters; Mixed: of several; Byte fragment: not whole characters.",
}


def _entry_row(tokenizer: Tokenizer, i: int) -> tuple:
    entries = vocabulary(tokenizer)
    return (
        tokenizer.name,
        i,
        shown(entries.texts[i]),
        entries.pieces[i].hex(" "),
        CLASSES[entries.classes[i]],
        int(entries.sizes[i]),
        None if entries.characters[i] < 0 else int(entries.characters[i]),
    )


def search_view(
    tokenizers: Sequence[Tokenizer], query: str, ignore_case: bool = True, most: int = SHOWN
) -> views.Table:
    """`search` in several vocabularies, the `most` shortest entries of each."""
    found = [search(tokenizer, query, ignore_case, most) for tokenizer in tokenizers]
    totals = ", ".join(f"{t.name} {total:,}" for t, (total, _) in zip(tokenizers, found, strict=True))
    return views.Table(
        title=f"Entries with “{shown(query[:60])}”",
        note=f"Entries found: {totals}. Shown: the shortest, at most {most} of each.",
        columns=_ENTRY_COLUMNS,
        rows=tuple(_entry_row(t, i) for t, (_, ids) in zip(tokenizers, found, strict=True) for i in ids),
        help=_ENTRY_HELP,
    )


def longest_view(tokenizers: Sequence[Tokenizer], n: int = 10, unit: str = "bytes") -> views.Table:
    """The n longest entries of each tokenizer (`longest`)."""
    return views.Table(
        title=f"Longest entries, in {unit}",
        columns=_ENTRY_COLUMNS,
        rows=tuple(_entry_row(t, i) for t in tokenizers for i in longest(t, n, unit)),
        help=_ENTRY_HELP,
    )


def script_shares(tokenizer: Tokenizer) -> np.ndarray:
    """(len(CLASSES),) float: the share of entries of each class; sums to 1."""
    classes = vocabulary(tokenizer).classes
    return np.bincount(classes, minlength=len(CLASSES)) / len(classes)


def script_view(tokenizers: Sequence[Tokenizer]) -> views.Bars:
    """Share of entries by script, one series per tokenizer, largest first, the rare ones together at the end."""
    shares = np.array([script_shares(tokenizer) for tokenizer in tokenizers])
    order = [i for i in np.argsort(-shares.mean(axis=0), kind="stable") if shares[:, i].any()]
    shown, rare = order[:SCRIPTS_SHOWN], order[SCRIPTS_SHOWN:]
    columns = np.column_stack([shares[:, shown], shares[:, rare].sum(axis=1)]) if rare else shares[:, shown]
    return views.Bars(
        title="Scripts in the vocabulary",
        note="Entries by the Unicode script of their letters and marks.",
        categories=(*(CLASSES[i] for i in shown), *([f"{len(rare)} more"] if rare else [])),
        series={t.name: tuple((100 * line).tolist()) for t, line in zip(tokenizers, columns, strict=True)},
        x="Script",
        y="Share of entries (%)",
        horizontal=True,
    )


def length_shares(tokenizer: Tokenizer, unit: str = "bytes") -> np.ndarray:
    """(longest,) float: the share of entries of 1, 2, ... "bytes" or "characters" (code points), among the
    entries that have such a length: special ones and, in characters, fragments have none."""
    entries = vocabulary(tokenizer)
    lengths = entries.sizes[entries.classes != _SPECIAL] if unit == "bytes" else entries.characters
    counts = np.bincount(lengths[lengths > 0])[1:]
    return counts / max(1, counts.sum())


def length_view(tokenizers: Sequence[Tokenizer], unit: str = "bytes") -> views.Lines:
    """Histogram of the entries' lengths, one curve per tokenizer; lengths that do not occur are gaps."""
    series = []
    for tokenizer in tokenizers:
        shares = length_shares(tokenizer, unit).tolist()
        lengths = tuple(range(1, len(shares) + 1))
        series.append(views.Series(name=tokenizer.name, x=lengths, y=tuple(100 * s if s else None for s in shares)))
    return views.Lines(
        title=f"Length of the entries in {unit}",
        series=tuple(series),
        x="Length (bytes)" if unit == "bytes" else "Length (code points)",
        y="Share of entries (%)",
        log_y=True,
    )


def forms_view(tokenizers: Sequence[Tokenizer], string: str) -> views.Table:
    """`forms` side by side: per tokenizer the id when the spelling is one entry, and its tokens when encoded."""
    found = [forms(tokenizer, string) for tokenizer in tokenizers]
    columns = ["Spelling", "Text"]
    for tokenizer in tokenizers:
        columns += [f"{tokenizer.name}: id", f"{tokenizer.name}: tokens"]
    rows = [
        (row[0].label, shown(row[0].text), *(cell for form in row for cell in (form.id, form.tokens)))
        for row in zip(*found, strict=True)
    ]
    definitions = {}
    for tokenizer in tokenizers:
        definitions[f"{tokenizer.name}: id"] = "The entry that is exactly this spelling; empty: there is none."
        definitions[f"{tokenizer.name}: tokens"] = (
            "Tokens when this spelling is encoded alone; some tokenizers put a space in front of every text."
        )
    return views.Table(
        title=f"Spellings of “{shown(string.strip()[:60])}”", columns=tuple(columns), rows=tuple(rows), help=definitions
    )


def merge_view(tokenizer: Tokenizer, query: str) -> views.Tree | None:
    """The merge tree of the entry that is `query` (see `entry`); None when there is no such entry."""
    token = entry(tokenizer, query)
    if token is None:
        return None
    root = merge_tree(tokenizer, token)
    note = "Every pair of branches is one merge." if root.children else "No merge makes this entry."
    return views.Tree(title=f"Merges that build “{root.text}” in {tokenizer.name}", note=note, root=root)
