"""The vocabulary of outputs: plain data with a title, a text alternative and a JSON form.

A system's Result is a dataclass whose fields are views (or `View | None`); the user sees them in
that order. A new kind of view is a deliberate act: one dataclass here, one file in components/views.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class View:
    """title: the heading; note: one line below it, e.g. how to read the picture."""

    title: str
    note: str = ""

    def alt(self) -> str:
        """The same content as one or two sentences, for a screen reader."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Note(View):
    """A short text in Markdown. Text of users goes into the other views, never in here."""

    text: str

    def alt(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True)
class StripRow:
    """One tokenizer's cuts. Token k covers bytes starts[k]:ends[k] of the strip's text (UTF-8).

    ids: -1 where there is no id. pieces: token number -> hex of the vocabulary's own bytes, only
    where they differ from the bytes of the text. marks: per token, 0 (plain) or 1 + index into the
    strip's `legend`. shades: per token 0..1, drawn as opacity. details: token number -> one more line.
    total: tokens in the whole text when the strip shows only its beginning. yardstick: a row to measure
    by, such as bytes; it does not count where disagreements are marked."""

    name: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    ids: tuple[int, ...] = ()
    pieces: dict[int, str] = field(default_factory=dict)
    marks: tuple[int, ...] = ()
    shades: tuple[float, ...] = ()
    details: dict[int, str] = field(default_factory=dict)
    total: int | None = None
    yardstick: bool = False


@dataclass(frozen=True, kw_only=True)
class TokenStrip(View):
    """Rows of tokens on one grapheme grid: one row is a strip, several are a comparison.

    graphemes: the user-perceived characters whose concatenation is the text.
    disagreements: mark the places that only some rows cut."""

    graphemes: tuple[str, ...]
    rows: tuple[StripRow, ...]
    legend: tuple[str, ...] = ()
    disagreements: bool = True

    def alt(self) -> str:
        counts = ", ".join(f"{row.name} {row.total or len(row.starts)} tokens" for row in self.rows)
        return f"{self.title}: {len(self.graphemes)} characters; {counts}."


@dataclass(frozen=True, kw_only=True)
class Replay(View):
    """A strip whose cuts change step by step.

    units: what the text is cut into before the first step (graphemes, or the parts of one);
    steps: labels, steps[0] is the start; events: (step, unit, cut): from `step` on there is
    (1) or is not (0) a cut before `unit`. Before step 0 every unit stands alone."""

    units: tuple[str, ...]
    steps: tuple[str, ...]
    events: tuple[tuple[int, int, int], ...]

    def alt(self) -> str:
        ends = f"from {self.steps[0]} to {self.steps[-1]}"
        return f"{self.title}: {len(self.units)} units, {len(self.steps) - 1} steps {ends}."


@dataclass(frozen=True, kw_only=True)
class Table(View):
    """Rows of text and numbers. columns: heading with its unit in brackets; help: definitions of
    headings, or of the first cells of rows.

    marks: row number -> a word shown as a label in front (never colour alone)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    help: dict[str, str] = field(default_factory=dict)
    marks: dict[int, str] = field(default_factory=dict)

    def alt(self) -> str:
        return f"{self.title}: a table of {len(self.rows)} rows with {', '.join(self.columns)}."


@dataclass(frozen=True, kw_only=True)
class Bars(View):
    """Bars per category. series: name -> one value per category; low and high: the ends of an interval.

    stacked: shares that add up; horizontal: long category names."""

    categories: tuple[str, ...]
    series: dict[str, tuple[float | None, ...]]
    x: str
    y: str
    low: dict[str, tuple[float, ...]] = field(default_factory=dict)
    high: dict[str, tuple[float, ...]] = field(default_factory=dict)
    stacked: bool = False
    horizontal: bool = False

    def alt(self) -> str:
        parts = []
        for name, values in self.series.items():
            known = [(v, c) for v, c in zip(values, self.categories, strict=True) if v is not None]
            if known:
                (least, where_least), (most, where_most) = min(known), max(known)
                parts.append(f"{name} from {least:.3g} ({where_least}) to {most:.3g} ({where_most})")
        return f"{self.title}: {self.y} by {self.x}; {'; '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve. low and high: an interval around y; points: markers without a line; labels: per point."""

    name: str
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    points: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Lines(View):
    """Curves over a common axis; axis names carry their unit in brackets."""

    series: tuple[Series, ...]
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False
    reverse_y: bool = False

    def alt(self) -> str:
        parts = []
        for s in self.series:
            ys = [y for y in s.y if y is not None]
            if ys:
                parts.append(f"{s.name} from {ys[0]:.3g} to {ys[-1]:.3g}")
        return f"{self.title}: {self.y} against {self.x}; {'; '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class HeatMap(View):
    """A matrix. values[r][c] belongs to rows[r] and columns[c]; None is left blank."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    x: str
    y: str
    unit: str = ""

    def alt(self) -> str:
        known = [
            (v, r, c)
            for r, line in zip(self.rows, self.values, strict=True)
            for c, v in zip(self.columns, line, strict=True)
            if v is not None
        ]
        if not known:
            return f"{self.title}: an empty matrix."
        least, most = min(known), max(known)
        return (
            f"{self.title}: {self.y} by {self.x}; lowest {least[0]:.3g} at {least[1]}, {least[2]}; "
            f"highest {most[0]:.3g} at {most[1]}, {most[2]}."
        )


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of a Tree; children from left to right."""

    text: str
    note: str = ""
    children: tuple[Node, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tree(View):
    """A tree drawn from its root, e.g. the merges that build a token."""

    root: Node

    def alt(self) -> str:
        return f"{self.title}: {_spoken(self.root)}."


def _spoken(node: Node) -> str:
    if not node.children:
        return node.text
    return f"{node.text} from ({' and '.join(_spoken(child) for child in node.children)})"


@dataclass(frozen=True, kw_only=True)
class Made(View):
    """Something a run has made: a file to take away, and a value that joins a control of the panel.

    control: the control's name; value: what is added to it; label: what the user reads there;
    filename and content: the download (text)."""

    control: str
    value: str
    label: str
    filename: str
    content: str

    def alt(self) -> str:
        return f"{self.title}: {self.label}, to download as {self.filename}."


@dataclass(frozen=True, kw_only=True)
class AttentionMaps(View):
    """Where every attention head of a model looks: all heads as small images, one of them large.

    tokens: the texts on both axes, T of them; queries: how many of them, the last ones, ask (T when the whole text
    was read at once). maps[layer][head]: a grey 8-bit PNG in base64, `queries` high and T wide, whose pixel
    (row q, column k) is 255 * sqrt(weight) of query q on key k. marks: token number -> a word, such as "sink".
    numbers: name of a measure -> [layer][head]; help: what each measure and each of the words means. chosen: the
    (layer, head) that is large at first."""

    tokens: tuple[str, ...]
    queries: int
    maps: tuple[tuple[str, ...], ...]
    marks: dict[int, str] = field(default_factory=dict)
    numbers: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    help: dict[str, str] = field(default_factory=dict)
    chosen: tuple[int, int] = (0, 0)

    def alt(self) -> str:
        parts = []
        for name, table in self.numbers.items():
            most, layer, head = max((v, i, j) for i, line in enumerate(table) for j, v in enumerate(line))
            parts.append(f"highest {name} {most:.3g} in layer {layer}, head {head}")
        heads = sum(len(line) for line in self.maps)
        return f"{self.title}: {len(self.maps)} layers, {heads} heads, {len(self.tokens)} tokens; {'; '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class RetentionRow:
    """What one policy keeps. tokens: the prompt's and then those read after it, given or generated, as texts.

    left[layer][head][token]: the first step after which that KV head no longer holds the token, -1 if it holds it
    to the end. Step 0 reads the prompt, step s the s-th token after it. marks: token number -> a word, such as
    "first difference"."""

    name: str
    tokens: tuple[str, ...]
    left: tuple[tuple[tuple[int, ...], ...], ...]
    marks: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Retention(View):
    """What stays in the cache while a text goes on, policy by policy: a strip at any step, a token x step map.

    prompt: how many tokens are read at step 0; steps: forwards after it, one token each."""

    rows: tuple[RetentionRow, ...]
    prompt: int
    steps: int

    def alt(self) -> str:
        parts = []
        for row in self.rows:
            heads = [head for layer in row.left for head in layer]
            kept = sum(step == -1 for head in heads for step in head) / len(heads)
            parts.append(f"{row.name} holds {kept:.0f} of {len(row.tokens)} tokens at the end")
        return f"{self.title}: {'; '.join(parts)} (mean over layers and heads)."


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with a name. png: in base64; facts: what stands below it, heading -> text or number;
    mark: a word that stands beside the name, such as "right" or "wrong"."""

    name: str
    png: str
    facts: dict[str, Any] = field(default_factory=dict)
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Pictures(View):
    """Pictures of one subject, all of the same shape. slide: the first one can be laid over any other, with an edge
    that moves; else they only stand side by side. Pixels are drawn as squares, never smoothed."""

    items: tuple[Picture, ...]
    slide: bool = False

    def alt(self) -> str:
        parts = [" ".join([item.name, item.mark]).strip() for item in self.items]
        return f"{self.title}: {len(self.items)} pictures, {', '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class PatchRow:
    """What one method does to the patches of a picture. The patches lie on the view's grid, row by row.

    left[patch]: the layer of the language model before which the patch is removed; 0: it never gets there, -1: it
    stays to the end. groups[patch]: patches of the same number went on as one token; -1, or no groups at all: the
    patch was not merged. scores[patch]: what the method ranked them by, None where it did not look; unit: of the
    scores. facts and mark: as of a Picture."""

    name: str
    left: tuple[int, ...]
    groups: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    unit: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class PatchOverlay(View):
    """A picture, method by method, with what is removed dimmed and what is merged in one colour, at any layer.

    png: in base64; grid: (rows, columns) of patches over the whole picture; layers: of the language model.
    marked: patches with an outline of their own (those that the question is about), and what they are called."""

    png: str
    grid: tuple[int, int]
    layers: int
    rows: tuple[PatchRow, ...]
    marked: tuple[int, ...] = ()
    marked_name: str = ""

    def alt(self) -> str:
        count = self.grid[0] * self.grid[1]
        parts = []
        for row in self.rows:
            parts.append(f"{row.name} keeps {sum(x == -1 for x in row.left)} of {count} patches {row.mark}".strip())
        return f"{self.title}: {'; '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class PatchMap:
    """A weight per patch. png: a grey 8-bit PNG in base64, one pixel per patch, 255 * sqrt(weight / most);
    most: the largest weight; facts: numbers about it, such as its entropy."""

    name: str
    png: str
    most: float
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PatchMaps(View):
    """Heat maps over one picture: all of them small, one of them large.

    png: in base64; grid: (rows, columns) of patches; maps[line][k]: lines are, for instance, layers, and k heads.
    lines: the name of each line. chosen: (line, k), large at first. unit: of the weights."""

    png: str
    grid: tuple[int, int]
    lines: tuple[str, ...]
    maps: tuple[tuple[PatchMap, ...], ...]
    chosen: tuple[int, int] = (0, 0)
    unit: str = ""

    def alt(self) -> str:
        count = sum(map(len, self.maps))
        line, k = self.chosen
        return (
            f"{self.title}: {count} maps of {self.grid[0]} x {self.grid[1]} patches; {self.maps[line][k].name} first."
        )


@dataclass(frozen=True, kw_only=True)
class CodeLevel:
    """One codebook, or one level of a residual quantiser: what it says of a picture and how it is used.

    ids[token]: the code of each token, row by row; size: entries of the codebook; counts[code]: how often the code
    came up in `counted` held-out tokens; x, y: where the entries lie in the plane of their two main directions;
    decoded[code]: the tile of the view's sheet that the code alone decodes to, -1 where there is none;
    nearest[code]: tiles of the patches whose vectors lie closest to it."""

    name: str
    ids: tuple[int, ...]
    size: int
    counts: tuple[int, ...]
    counted: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    decoded: tuple[int, ...] = ()
    nearest: dict[int, tuple[int, ...]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Codes(View):
    """A picture as codes: its token grid, and the codebook as a map; pointing at one shows the other.

    png: the decoded picture in base64; grid: (rows, columns) of tokens; levels: at least one. sheet: a PNG in base64
    of square tiles of `tile` pixels, `across` in a row, that `decoded` and `nearest` count into."""

    png: str
    grid: tuple[int, int]
    levels: tuple[CodeLevel, ...]
    sheet: str = ""
    tile: int = 8
    across: int = 32

    def alt(self) -> str:
        parts = [f"{level.name} uses {len(set(level.ids))} of its {level.size} codes here" for level in self.levels]
        return f"{self.title}: {self.grid[0]} by {self.grid[1]} tokens; {'; '.join(parts)}."


@dataclass(frozen=True, kw_only=True)
class Track:
    """A sound with a name. flac: the sound in base64, mono; mel: a grey 8-bit PNG in base64, its log-mel spectrogram,
    one column per frame, low bands at the bottom, 0 and 255 standing for the ends of the view's `db`.

    gain: the factor that makes it as loud as the first track. tokens: which of the view's `tokens` it was decoded
    from, -1: none; heard: the levels of these that count, none named: all. facts: heading -> text or number."""

    name: str
    flac: str
    mel: str
    gain: float = 1.0
    tokens: int = -1
    heard: tuple[int, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SoundTokens:
    """What a codec writes: ids[level][frame], `rate` frames a second, sizes[level] entries in each codebook.

    seen[level][frame]: how often the code of this token came up among `counted` held-out tokens of its level.
    marks: frame -> a word, for instance for tokens that were changed."""

    name: str
    rate: float
    ids: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    seen: tuple[tuple[int, ...], ...] = ()
    counted: int = 0
    marks: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sounds(View):
    """Versions of one sound, to switch between while they play, over one time axis with what they look like: wave,
    spectrogram, difference from the first track, tokens.

    seconds: of the longest track. hertz: the centre of each band of the spectrograms, from low to high; db: what
    their black and white stand for; mel_rate: their columns a second. blind: offer a blind test (ABX); chosen: the
    track that is heard and seen first."""

    tracks: tuple[Track, ...]
    seconds: float
    hertz: tuple[float, ...]
    db: tuple[float, float]
    mel_rate: float = 75.0
    tokens: tuple[SoundTokens, ...] = ()
    blind: bool = True
    chosen: int = 0

    def alt(self) -> str:
        names = ", ".join(track.name for track in self.tracks)
        codes = "".join(
            f"; {t.name}: {len(t.ids)} by {len(t.ids[0])} tokens, {t.rate:g} frames a second" for t in self.tokens
        )
        return f"{self.title}: {len(self.tracks)} versions of {self.seconds:.1f} seconds of sound, {names}{codes}."


KINDS: dict[str, type[View]] = {
    cls.__name__: cls
    for cls in (
        *(Note, TokenStrip, Replay, Table, Bars, Lines, HeatMap, Tree, Made, AttentionMaps, Retention),
        *(Pictures, PatchOverlay, PatchMaps, Codes, Sounds),
    )
}


def to_json(view: View) -> dict[str, Any]:
    """The view as JSON-ready data, with its `kind` and its text alternative; NaN becomes null."""
    return {"kind": type(view).__name__, "alt": view.alt(), **_plain(dataclasses.asdict(view))}


def result_to_json(result: Any) -> dict[str, Any]:
    """A Result dataclass as {field: view as JSON, or null}."""
    views = ((f.name, getattr(result, f.name)) for f in dataclasses.fields(result))
    return {name: None if view is None else to_json(view) for name, view in views}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
