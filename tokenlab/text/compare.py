"""Paste a text and see how real tokenizers cut it.

**Side by side.** All rows stand on one grid of characters, so cuts line up; a small triangle marks a place
that only some rows cut. A *token* is an entry of the tokenizer's vocabulary; its bytes are what the model is
given, so a character outside the vocabulary may be spread over several tokens: it is drawn whole, with its
pieces below it. The numbers under the strip are counted on the whole text:

- *fertility* is tokens per word, *compression* is bytes per token;
- *Rényi efficiency* (Zouhar et al. 2023) says how evenly the vocabulary is used:
  $\\mathrm{Eff}_\\alpha = \\frac{1}{1-\\alpha}\\log_2\\sum_i p_i^\\alpha \\,/\\, \\log_2 |V|$ with $\\alpha = 2.5$.

**Languages** counts the same 24 everyday sentences in every language. The *premium* is what a language pays:
its tokens divided by those of English (Petrov et al. 2023). Zero *Gini* would be equal cost for all.

**Vocabulary** searches and describes what is inside: which spellings of a word are one token, and the merges
that build it.

**Train your own** makes a BPE, Unigram or WordPiece tokenizer from a text, replays how its cuts on *your text*
change while it grows, and puts it into the comparison.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from tokenlab import guard, limits
from tokenlab.controls import Choice, Number, Slider, Switch, Text, Tokenizers
from tokenlab.errors import UserError
from tokenlab.text import attack as attacks
from tokenlab.text import languages, metrics, replay, samples, sources, training, vocabulary
from tokenlab.text.tokenization import Tokenization, Tokenizer, grapheme_ends, graphemes
from tokenlab.views import Bars, HeatMap, Lines, Made, Node, Replay, StripRow, Table, TokenStrip, Tree

SIDE, LANGUAGES, VOCABULARY, TRAIN = PARTS = ("Side by side", "Languages", "Vocabulary", "Train your own")
LIVE = ("part", SIDE, VOCABULARY)  # quick enough to answer while the user types
YOURS = "your training text"


@dataclass(frozen=True)
class Result:
    """Each part fills the views that it has."""

    strip: TokenStrip | None = None
    numbers: Table | None = None
    agreement: HeatMap | None = None
    attack: Table | None = None
    premium: Bars | None = None
    fairness: Table | None = None
    scripts_cost: HeatMap | None = None
    costs: Table | None = None
    variants: Table | None = None
    tree: Tree | None = None
    found: Table | None = None
    scripts: Bars | None = None
    lengths: Lines | None = None
    longest: Table | None = None
    training: Table | None = None
    made: Made | None = None
    replay: Replay | None = None


def run(
    part: Annotated[str, Choice("Show", options=PARTS, style="parts")] = SIDE,
    text: Annotated[
        str, Text("Your text", lines=6, when=("part", SIDE, TRAIN), upload=True, shared="text")
    ] = samples.text("showcase"),
    tokenizers: Annotated[
        tuple[str, ...], Tokenizers("Tokenizers", when=("part", SIDE, LANGUAGES, VOCABULARY), shared="tokenizers")
    ] = sources.DEFAULT,
    attack: Annotated[
        bool,
        Switch(
            "Attack the text",
            info="What invisible marks, look-alikes, case and spaces do to the counts",
            when=("part", SIDE),
        ),
    ] = False,
    price: Annotated[
        float, Number("Price", unit="per million tokens; 0: leave out", when=("part", SIDE, LANGUAGES))
    ] = 0.0,
    search: Annotated[
        str, Text("Find in the vocabularies", lines=1, characters=200, when=("part", VOCABULARY))
    ] = "token",
    algorithm: Annotated[str, Choice("Algorithm", options=training.ALGORITHMS, when=("part", TRAIN))] = "BPE",
    size: Annotated[
        int, Slider("Vocabulary size", minimum=280, maximum=limits.TRAINED_VOCABULARY, step=20, when=("part", TRAIN))
    ] = 1000,
    corpus: Annotated[str, Choice("Train on", options=(*samples.names()[1:], YOURS), when=("part", TRAIN))] = "stories",
    training_text: Annotated[
        str,
        Text(
            "Your training text",
            info=f'Used when "Train on" is "{YOURS}"',
            lines=4,
            characters=limits.TRAINING_CHARACTERS,
            when=("corpus", YOURS),
            upload=True,
        ),
    ] = "",
) -> Iterator[Result]:
    """Compare 2 to 6 tokenizers, look into their vocabularies, or train one."""
    if part == TRAIN:
        if corpus == YOURS and not training_text.strip():
            raise UserError("There is nothing to train on; please paste a text or choose a sample.")
        recipe = (
            training.Recipe(algorithm, size, text=training_text)
            if corpus == YOURS
            else training.Recipe(algorithm, size, sample=corpus)
        )
        yield from train(recipe, text)
        return
    chosen = []
    for ref in tokenizers:
        guard.check_time()
        chosen.append(sources.load(ref))
    if part == SIDE:
        yield side_by_side(text, chosen, attack, price or None)
    elif part == LANGUAGES:
        yield across_languages(chosen, price or None)
    else:
        yield inside(chosen, search)


def side_by_side(text: str, tokenizers: Sequence[Tokenizer], attack: bool, price: float | None) -> Result:
    """The strip, the numbers, and on demand what an attack on the text does."""
    facts = metrics.text_facts(text)
    names = [tokenizer.name for tokenizer in tokenizers]
    cut, numbers = [], []
    for tokenizer in tokenizers:
        guard.check_time()
        started = time.perf_counter()
        tokenization = tokenizer.encode(text)
        seconds = time.perf_counter() - started
        cut.append(tokenization)
        numbers.append(metrics.measure(facts, tokenizer, tokenization, seconds, price))
    return Result(
        strip=strip(text, tokenizers, cut),
        numbers=metrics.numbers_table(names, numbers),
        agreement=metrics.agreement_view(names, metrics.agreement(cut, facts.bytes)) if text else None,
        attack=attacks.attack_view(names, attacks.attack(text, tokenizers)) if attack else None,
    )


def across_languages(tokenizers: Sequence[Tokenizer], price: float | None) -> Result:
    """Fertility and premium on our parallel sentences."""
    known = languages.load()
    reports = []
    for tokenizer in tokenizers:
        guard.check_time()
        reports.append(languages.premiums(tokenizer.name, languages.count(tokenizer, known), known))
    return Result(
        premium=languages.premium_view(known, reports),
        fairness=languages.fairness_table(known, reports),
        scripts_cost=languages.script_view(known, reports),
        costs=languages.language_table(known, reports, price),
    )


def inside(tokenizers: Sequence[Tokenizer], search: str) -> Result:
    """What the closed vocabularies hold, and the merges that build the string in `search`."""
    closed = [tokenizer for tokenizer in tokenizers if tokenizer.vocabulary_size is not None]
    if not closed:
        raise UserError(
            "Characters and words have no list of entries; please choose a tokenizer that has a vocabulary."
        )
    wanted = bool(search)
    return Result(
        variants=vocabulary.forms_view(closed, search) if search.strip() else None,
        tree=_trees(closed, search) if wanted else None,
        found=vocabulary.search_view(closed, search) if wanted else None,
        scripts=vocabulary.script_view(closed),
        lengths=vocabulary.length_view(closed),
        longest=vocabulary.longest_view(closed),
    )


def _trees(tokenizers: Sequence[Tokenizer], search: str) -> Tree | None:
    """The merges of all tokenizers that have `search` as an entry, under one root."""
    trees = ((tokenizer.name, vocabulary.merge_view(tokenizer, search)) for tokenizer in tokenizers)
    built = tuple(
        Node(text=t.root.text, note=f"{name}, {t.root.note}", children=t.root.children)
        for name, t in trees
        if t and t.root.children
    )
    if not built:
        return None
    root = Node(text=search, note="one entry in", children=built)
    return Tree(
        title="The merges that build it",
        note="Every pair of branches is one merge; the leaves are what the training began with.",
        root=root,
    )


def train(recipe: training.Recipe, text: str) -> Iterator[Result]:
    """Progress while it trains, then the replay on `text` and the tokenizer itself."""
    progress = training.Progress("starting")
    for progress in training.make(recipe):
        yield Result(training=_progress(recipe, progress))
    ref = progress.ref
    assert ref is not None
    if recipe.algorithm == "Unigram":
        for stage in training.make_stages(ref):
            yield Result(training=_progress(recipe, stage, "the larger vocabularies that it was pruned from"))
    tokenizer = training.load(ref)
    made = Made(
        title="Your tokenizer",
        note=f"{tokenizer.vocabulary_size:,} entries, trained on {len(training.text_of(recipe)):,} characters.",
        control="tokenizers",
        value=ref,
        label=training.label(ref),
        filename="tokenizer.json",
        content=training.tokenizer_json(ref),
    )
    shown = replay.replay(tokenizer, text) if text else None
    yield Result(training=_progress(recipe, progress), made=made, replay=shown)


def _progress(recipe: training.Recipe, progress: training.Progress, what: str = "") -> Table:
    """Where the training stands: what is done, what was forecast, and at the end how good the forecast was."""
    phase = (
        progress.phase
        if progress.share is None or progress.phase == "done"
        else f"{progress.phase}, {progress.share:.0%}"
    )
    rows = [("Phase", phase), ("Elapsed (s)", round(progress.seconds, 2))]
    rows += (
        [("Forecast of the whole (s)", round(progress.forecast_seconds, 2))]
        if progress.forecast_seconds is not None
        else []
    )
    rows += (
        [("Forecast of memory (MB)", round(progress.forecast_bytes / 1e6))]
        if progress.forecast_bytes is not None
        else []
    )
    rows += [("Memory at its peak (MB)", round(progress.peak_bytes / 1e6))] if progress.peak_bytes is not None else []
    return Table(
        title=f"Training {recipe.algorithm}" + (f": {what}" if what else ""),
        columns=("What", "Value"),
        rows=tuple(rows),
    )


def strip(text: str, tokenizers: Sequence[Tokenizer], cut: Sequence[Tokenization]) -> TokenStrip:
    """All tokenizations on one grid. A long text is shown up to limits.STRIP_TOKENS tokens of all rows together."""
    ends = grapheme_ends(text)
    shown = _shown(ends, cut)
    whole = shown == len(ends)
    reach = int(ends[shown - 1]) if shown else 0
    rows = tuple(
        _row(tokenizer, tokenization, text, reach) for tokenizer, tokenization in zip(tokenizers, cut, strict=True)
    )
    note = "" if whole else f"The first {shown:,} of {len(ends):,} characters; the numbers below count the whole text."
    return TokenStrip(title="Side by side", note=note, graphemes=tuple(graphemes(text)[:shown]), rows=rows)


def _shown(ends: np.ndarray, cut: Sequence[Tokenization]) -> int:
    """How many graphemes fit, so that all rows together keep to the limit."""
    tokens = np.zeros(len(ends), dtype=np.int64)
    for tokenization in cut:
        tokens += np.searchsorted(tokenization.ends, ends, side="right")
    return int(np.searchsorted(tokens, limits.STRIP_TOKENS, side="right"))


def _row(tokenizer: Tokenizer, tokenization: Tokenization, text: str, reach: int) -> StripRow:
    n = int(np.searchsorted(tokenization.ends, reach, side="right"))
    ids, starts, ends = (a[:n].tolist() for a in (tokenization.ids, tokenization.starts, tokenization.ends))
    return StripRow(
        name=tokenizer.name,
        starts=tuple(starts),
        ends=tuple(ends),
        ids=tuple(ids),
        pieces=_rewritten(tokenizer, text.encode()[:reach], ids, starts, ends),
        total=len(tokenization),
        yardstick=tokenizer.ref in sources.YARDSTICKS,
    )


def _rewritten(tokenizer: Tokenizer, data: bytes, ids: list[int], starts: list[int], ends: list[int]) -> dict[int, str]:
    """Token number -> hex of its own bytes, where they are not the bytes of the text (a normaliser, a prefix)."""
    if tokenizer.vocabulary_size is None:
        return {}
    pieces = tokenizer.pieces()
    spans = enumerate(zip(ids, starts, ends, strict=True))
    return {k: pieces[i].hex() for k, (i, a, b) in spans if pieces[i] != data[a:b]}
