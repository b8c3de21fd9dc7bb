"""What small changes of a text do to its token count, some of which a reader cannot see.

A variant is a pure function of (text, every, rng): `every` n-th word is touched, and where in the word is
drawn from the seeded `rng`. A variant that claims to look the same only touches scripts for which that is
true: a zero-width character between Arabic or Devanagari letters would change their shapes, and a
left-to-right mark inside a Hebrew word would change the order.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from tokenlab import guard, views
from tokenlab.errors import UserError
from tokenlab.text.tokenization import Tokenizer, graphemes

EVERY = 3  # a variant touches every third word unless told otherwise

ZWSP, ZWNJ, ZWJ = "\u200b", "\u200c", "\u200d"
LRM, RLO, PDF = "\u200e", "\u202e", "\u202c"
NBSP = "\u00a0"

_LEFT_TO_RIGHT = r"\p{Latin}\p{Greek}\p{Cyrillic}\p{Armenian}\p{Georgian}\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}"
_APART = _LEFT_TO_RIGHT + r"\p{Hebrew}"  # scripts whose letters do not join
_LTR_WORD = regex.compile(rf"[{_LEFT_TO_RIGHT}][{_LEFT_TO_RIGHT}\p{{M}}]+")
_APART_WORD = regex.compile(rf"[{_APART}][{_APART}\p{{M}}]+")
_CASED_WORD = regex.compile(r"\p{L}[\p{L}\p{M}'’]*")
_SPACE = regex.compile(r"(?<=\S) (?=\S)")

# Latin letter -> look-alikes in Cyrillic and Greek, from the Unicode list of confusables (UTS #39).
CONFUSABLES = {
    "a": "а",
    "c": "сϲ",
    "d": "ԁ",
    "e": "е",
    "h": "һ",
    "i": "і",
    "j": "јϳ",
    "o": "оο",
    "p": "р",
    "q": "ԛ",
    "s": "ѕ",
    "v": "ѵν",
    "w": "ԝ",
    "x": "х",
    "y": "у",
    "A": "АΑ",
    "B": "ВΒ",
    "C": "С",
    "E": "ЕΕ",
    "H": "НΗ",
    "I": "ІΙ",
    "J": "Ј",
    "K": "КΚ",
    "M": "МΜ",
    "N": "Ν",
    "O": "ОΟ",
    "P": "РΡ",
    "S": "Ѕ",
    "T": "ТΤ",
    "X": "ХΧ",
    "Y": "ҮΥ",
    "Z": "Ζ",
}
_SKELETON = str.maketrans({alike: letter for letter, choices in CONFUSABLES.items() for alike in choices})

_FULL_WIDTH = str.maketrans({chr(c): chr(c + 0xFEE0) for c in range(0x21, 0x7F)} | {" ": "\u3000"})
_LEET = str.maketrans("aeiostAEIOST", "431057431057")

# Format, control and space characters but the plain space, tab and line feed.
_INVISIBLE = regex.compile(r"[\p{Cf}\p{Cc}\p{Z}--[ \t\n]]", regex.V1)
_SHORT_NAMES = {
    0x00A0: "NBSP",
    0x00AD: "SHY",
    0x200B: "ZWSP",
    0x200C: "ZWNJ",
    0x200D: "ZWJ",
    0x200E: "LRM",
    0x200F: "RLM",
    0x202A: "LRE",
    0x202B: "RLE",
    0x202C: "PDF",
    0x202D: "LRO",
    0x202E: "RLO",
    0x2060: "WJ",
    0x2066: "LRI",
    0x2067: "RLI",
    0x2068: "FSI",
    0x2069: "PDI",
    0xFEFF: "BOM",
}


def reveal(changed: str, original: str = "") -> str:
    """`changed` with its invisible characters spelt out: pay⟨ZWSP⟩pal."""
    return _INVISIBLE.sub(lambda match: _spelt(match[0]), changed)


def _reveal_swaps(changed: str, original: str) -> str:
    swapped = zip(changed, original, strict=True)
    return reveal("".join(now if now == was else now + _spelt(now) for now, was in swapped))


def _reveal_marks(changed: str, original: str) -> str:
    return reveal(regex.sub(r"\p{M}|[\u1160-\u11ff]", lambda match: _spelt(match[0]), changed))


def _reveal_spaces(changed: str, original: str) -> str:
    return reveal(regex.sub(r"(?<= ) ", "⟨SPACE⟩", changed))


def _reveal_end(changed: str, original: str) -> str:
    return reveal(regex.sub(r" \Z", "⟨SPACE⟩", changed))


def _spelt(character: str) -> str:
    code = ord(character)
    return f"⟨{_SHORT_NAMES.get(code, f'U+{code:04X}')}⟩"


def _inside_words(text: str, every: int, pattern: regex.Pattern, change: Callable[[list[str]], str]) -> str:
    """Words 0, every, 2 every, ... of `pattern`, handed to `change` as graphemes; two at least."""
    seen = -1

    def replace(match: regex.Match) -> str:
        nonlocal seen
        units = graphemes(match[0])
        seen += len(units) > 1
        return change(units) if len(units) > 1 and seen % every == 0 else match[0]

    return pattern.sub(replace, text)


def _insert(mark: str, pattern: regex.Pattern) -> Callable[[str, int, random.Random], str]:
    def apply(text: str, every: int, rng: random.Random) -> str:
        def change(units: list[str]) -> str:
            at = rng.randrange(1, len(units))
            return "".join(units[:at]) + mark + "".join(units[at:])

        return _inside_words(text, every, pattern, change)

    return apply


def _override(text: str, every: int, rng: random.Random) -> str:
    return _inside_words(text, every, _LTR_WORD, lambda units: RLO + "".join(reversed(units)) + PDF)


def _undo_override(text: str) -> str:
    return regex.sub(f"{RLO}([^{PDF}]*){PDF}", lambda match: "".join(reversed(graphemes(match[1]))), text)


def _homoglyphs(text: str, every: int, rng: random.Random) -> str:
    def change(units: list[str]) -> str:
        places = [i for i, unit in enumerate(units) if unit in CONFUSABLES]
        if places:
            at = rng.choice(places)
            units[at] = rng.choice(CONFUSABLES[units[at]])
        return "".join(units)

    return _inside_words(text, every, _LTR_WORD, change)


def skeleton(text: str) -> str:
    """The text with the look-alikes of `CONFUSABLES` turned back into Latin (as UTS #39, section 4)."""
    return text.translate(_SKELETON)


def _hard_spaces(text: str, every: int, rng: random.Random) -> str:
    seen = -1

    def replace(match: regex.Match) -> str:
        nonlocal seen
        seen += 1
        return NBSP if seen % every == 0 else " "

    return _SPACE.sub(replace, text)


def _title(text: str, every: int, rng: random.Random) -> str:
    return _CASED_WORD.sub(lambda match: match[0][0].title() + match[0][1:].lower(), text)


@dataclass(frozen=True)
class Variant:
    """name; what: what was done, one line; looks: "the same", "nearly the same" or "different" to a
    reader; apply(text, every, rng) -> text; undo(text): what makes variant and original equal again,
    None where it looks different; show(changed, original): the change made visible."""

    name: str
    what: str
    looks: str
    apply: Callable[[str, int, random.Random], str]
    undo: Callable[[str], str] | None = None
    show: Callable[[str, str], str] = reveal


def _without(mark: str) -> Callable[[str], str]:
    return lambda text: text.replace(mark, "")


ORIGINAL = Variant("original", "The text as it is.", "the same", lambda text, every, rng: text, lambda text: text)

VARIANTS = (
    Variant(
        "zero-width space",
        "U+200B between two letters of every n-th word.",
        "the same",
        _insert(ZWSP, _APART_WORD),
        _without(ZWSP),
    ),
    Variant(
        "zero-width non-joiner",
        "U+200C between two letters of every n-th word.",
        "the same",
        _insert(ZWNJ, _APART_WORD),
        _without(ZWNJ),
    ),
    Variant(
        "zero-width joiner",
        "U+200D between two letters of every n-th word.",
        "the same",
        _insert(ZWJ, _APART_WORD),
        _without(ZWJ),
    ),
    Variant(
        "left-to-right mark",
        "U+200E between two letters of every n-th word.",
        "the same",
        _insert(LRM, _LTR_WORD),
        _without(LRM),
    ),
    Variant(
        "right-to-left override",
        "Every n-th word stored backwards between U+202E and U+202C, which turn it round on the screen.",
        "the same",
        _override,
        _undo_override,
    ),
    Variant(
        "no-break spaces",
        "Every n-th space between words is U+00A0, as in text copied from a web page.",
        "the same",
        _hard_spaces,
        lambda text: text.replace(NBSP, " "),
    ),
    Variant(
        "decomposed accents",
        "NFD: letters and their accents as separate code points.",
        "the same",
        lambda text, every, rng: unicodedata.normalize("NFD", text),
        lambda text: unicodedata.normalize("NFC", text),
        _reveal_marks,
    ),
    Variant(
        "trailing space",
        "One space after the end.",
        "the same",
        lambda text, every, rng: text + " " if text else text,
        lambda text: text.rstrip(" "),
        _reveal_end,
    ),
    Variant(
        "homoglyphs",
        "One Latin letter of every n-th word is a Cyrillic or Greek look-alike.",
        "nearly the same",
        _homoglyphs,
        skeleton,
        _reveal_swaps,
    ),
    Variant(
        "doubled spaces",
        "Two spaces between words.",
        "nearly the same",
        lambda text, every, rng: _SPACE.sub("  ", text),
        lambda text: regex.sub(" +", " ", text),
        _reveal_spaces,
    ),
    Variant("UPPER CASE", "All letters as capitals.", "different", lambda text, every, rng: text.upper()),
    Variant("lower case", "All letters small.", "different", lambda text, every, rng: text.lower()),
    Variant("Title Case", "A capital at the start of every word.", "different", _title),
    Variant(
        "leet digits",
        "The letters a e i o s t as the digits 4 3 1 0 5 7.",
        "different",
        lambda text, every, rng: text.translate(_LEET),
    ),
    Variant(
        "full-width forms",
        "ASCII as the wide forms used among Chinese characters.",
        "different",
        lambda text, every, rng: text.translate(_FULL_WIDTH),
    ),
)


@dataclass(frozen=True)
class Attacked:
    """One variant of the text. tokens: per tokenizer; sample: the place of the first change, made visible."""

    variant: Variant
    text: str
    tokens: tuple[int, ...]
    sample: str


def vary(text: str, variant: Variant, every: int = EVERY, seed: int = 0) -> str:
    """The variant of a text. Every variant draws from a stream of its own, so none depends on another."""
    if every < 1:
        raise UserError("Please touch every first, second, ... word: the step is a whole number from 1.")
    return variant.apply(text, every, random.Random(f"{seed} {variant.name}"))


def attack(text: str, tokenizers: Sequence[Tokenizer], every: int = EVERY, seed: int = 0) -> tuple[Attacked, ...]:
    """The original and all variants with their token counts; the original comes first."""
    first = tuple(len(tokenizer.encode(text)) for tokenizer in tokenizers)
    attacked = [Attacked(ORIGINAL, text, first, "")]
    for variant in VARIANTS:
        changed = vary(text, variant, every, seed)
        tokens = first
        if changed != text:
            tokens = tuple(len(tokenizer.encode(changed)) for tokenizer in tokenizers)
        attacked.append(Attacked(variant, changed, tokens, sample(changed, text, variant)))
        guard.check_time()
    return tuple(attacked)


def sample(changed: str, original: str, variant: Variant, before: int = 12, behind: int = 28) -> str:
    """The surroundings of the first change, with what is invisible spelt out; "" when nothing changed."""
    if changed == original:
        return ""
    pairs = enumerate(zip(changed, original, strict=False))
    at = next((i for i, (now, was) in pairs if now != was), min(len(changed), len(original)))
    start, end = max(0, at - before), at + behind
    shown = variant.show(changed[start:end], original[start:end])
    return ("…" if start else "") + shown + ("…" if end < len(changed) else "")


def change(tokens: int, original: int) -> float | None:
    """Change in per cent; None where the original has no tokens."""
    return 100 * (tokens - original) / original if original else None


def attack_view(names: Sequence[str], attacked: Sequence[Attacked], every: int = EVERY) -> views.Table:
    """One row per variant, two columns per tokenizer. every: the step that `attack` was given."""
    columns = ["Variant", "What was done", "Looks", "Sample"]
    for name in names:
        columns += [f"{name}: tokens", f"{name}: change (%)"]
    rows = []
    for one in attacked:
        row = [one.variant.name, one.variant.what, one.variant.looks, one.sample]
        for tokens, original in zip(one.tokens, attacked[0].tokens, strict=True):
            percent = change(tokens, original)
            row += [tokens, None if percent is None else round(percent, 1)]
        rows.append(tuple(row))
    return views.Table(
        title="The same text, attacked",
        note=f"Token counts of variants of the text; n is {every}. The samples spell out what is invisible.",
        columns=tuple(columns),
        rows=tuple(rows),
        help={"Looks": "What a reader sees, compared with the original, in common fonts."},
        marks={r: "nothing to change" for r, one in enumerate(attacked) if r and one.text == attacked[0].text},
    )


def attack_bars(names: Sequence[str], attacked: Sequence[Attacked]) -> views.Bars:
    """Change of the token count in per cent by variant, one series per tokenizer."""
    variants = attacked[1:]
    return views.Bars(
        title="Change of the token count",
        categories=tuple(f"{one.variant.name} ({one.variant.looks})" for one in variants),
        series={
            name: tuple(change(one.tokens[k], attacked[0].tokens[k]) for one in variants)
            for k, name in enumerate(names)
        },
        x="Variant (to a reader)",
        y="Change (%)",
        horizontal=True,
    )
