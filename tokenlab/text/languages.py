"""What the same sentences cost in different languages.

The parallel text in assets/text/parallel holds one file per language, line k of each a translation of
line k of the others. The premium of a language is its tokens divided by the tokens of English on the
same sentences (Petrov et al. 2023, "Language Model Tokenizers Introduce Unfairness Between Languages",
NeurIPS; their code also divides totals). Inequality over all languages is TokEval's fairness Gini.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from tokenlab import guard, views
from tokenlab.text.tokenization import Kind, Tokenizer, graphemes

PARALLEL = Path(__file__).parents[2] / "assets" / "text" / "parallel"
ENGLISH = "eng"
RESAMPLES = 1000
MOST_UNKNOWN = 0.1  # Petrov et al. leave a language out when more than this share of it is unknown


@dataclass(frozen=True)
class Language:
    """code: ISO 639-3; script: Unicode script name, "Japanese" for kana with Han; direction: "ltr" or
    "rtl"; spaces: whether white space separates words; checked: whether the translation is relied on."""

    code: str
    name: str
    endonym: str
    script: str
    direction: str
    spaces: bool
    checked: bool
    sentences: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Length of all sentences in UTF-8."""
        return sum(len(sentence.encode()) for sentence in self.sentences)

    @property
    def units(self) -> int:
        """What fertility divides by: words where the language writes spaces, else graphemes."""
        if self.spaces:
            return sum(len(sentence.split()) for sentence in self.sentences)
        return sum(1 for sentence in self.sentences for g in graphemes(sentence) if not g.isspace())


@lru_cache(maxsize=4)
def load(folder: Path = PARALLEL) -> tuple[Language, ...]:
    """All languages of languages.toml, English first. ValueError when the files are not parallel."""
    rows = tomllib.loads((folder / "languages.toml").read_text("utf-8"))["language"]
    rows.sort(key=lambda row: row["code"] != ENGLISH)
    languages = tuple(
        Language(**row, sentences=tuple((folder / f"{row['code']}.txt").read_text("utf-8").splitlines()))
        for row in rows
    )
    if languages[0].code != ENGLISH:
        raise ValueError(f"{folder} holds no {ENGLISH}.txt to compare with")
    for language in languages:
        if len(language.sentences) != len(languages[0].sentences):
            raise ValueError(f"{language.code}.txt has {len(language.sentences)} lines, unlike {ENGLISH}.txt")
    return languages


@dataclass(frozen=True, eq=False)
class Costs:
    """One tokenizer over all languages (l) and sentences (s).

    tokens (l, s) int64; unknown (l,): share of the language's bytes that became unknown tokens."""

    tokens: np.ndarray
    unknown: np.ndarray


def count(tokenizer: Tokenizer, languages: Sequence[Language]) -> Costs:
    """Encode every sentence once."""
    is_unknown = tokenizer.kinds() == Kind.UNKNOWN
    look = bool(is_unknown.any())
    tokens = np.zeros((len(languages), len(languages[0].sentences)), dtype=np.int64)
    unknown = np.zeros(len(languages))
    for row, language in enumerate(languages):
        guard.check_time()
        for column, sentence in enumerate(language.sentences):
            tokenization = tokenizer.encode(sentence)
            tokens[row, column] = len(tokenization)
            if look:
                lengths = tokenization.ends - tokenization.starts
                unknown[row] += lengths[is_unknown[tokenization.ids]].sum()
        unknown[row] /= language.bytes or 1
    return Costs(tokens, unknown)


@dataclass(frozen=True, eq=False)
class Premiums:
    """One tokenizer over all languages; arrays (l,) float, NaN where not defined.

    tokens: of the whole parallel text. fertility: tokens per unit (`Language.units`).
    premium: tokens / tokens of English; NaN too where the tokenizer cannot write the language, or English.
    low, high: 95 % bootstrap interval over the sentences.
    gini: over the languages' tokens per sentence; gini_bytes: over their tokens per byte; None below
    two languages. Languages that the tokenizer cannot write count in neither."""

    name: str
    tokens: np.ndarray
    fertility: np.ndarray
    premium: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gini: float | None
    gini_bytes: float | None


def premiums(name: str, costs: Costs, languages: Sequence[Language], seed: int = 0) -> Premiums:
    """Everything about one tokenizer; `languages` as in `count`, English first.

    A sentence is drawn together with its translations, so the interval says how far the premium depends
    on the choice of sentences (percentile bootstrap, 1000 resamples)."""
    written = costs.unknown <= MOST_UNKNOWN
    compared = written & written[0]
    tokens = costs.tokens.sum(axis=1).astype(float)
    premium = _over_english(tokens[None])[0]
    sentences = costs.tokens.shape[1]
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(sentences, np.full(sentences, 1 / sentences), size=RESAMPLES)
    low, high = np.quantile(_over_english(draws @ costs.tokens.T.astype(float)), [0.025, 0.975], axis=0)
    units = np.array([language.units for language in languages], dtype=float)
    sizes = np.array([language.bytes for language in languages], dtype=float)
    return Premiums(
        name=name,
        tokens=tokens,
        fertility=np.divide(tokens, units, out=np.full(len(tokens), np.nan), where=units > 0),
        premium=np.where(compared, premium, np.nan),
        low=np.where(compared, low, np.nan),
        high=np.where(compared, high, np.nan),
        gini=gini(tokens[written]),
        gini_bytes=gini((tokens / np.maximum(sizes, 1))[written]),
    )


def _over_english(tokens: np.ndarray) -> np.ndarray:
    """tokens (r, l) divided by column 0, NaN where that is 0."""
    english = np.broadcast_to(tokens[:, :1], tokens.shape)
    return np.divide(tokens, english, out=np.full(tokens.shape, np.nan), where=english > 0)


def bytes_premium(languages: Sequence[Language]) -> np.ndarray:
    """(l,) UTF-8 bytes of each language divided by those of English: the premium of a byte model."""
    return _over_english(np.array([[language.bytes for language in languages]], dtype=float))[0]


def gini(costs: np.ndarray) -> float | None:
    """sum_ij |c_i - c_j| / (2 n^2 mean): 0 when all n costs are equal, at most 1 - 1/n.

    TokEval `tokenizer_fairness_gini`; with tokens per sentence of a parallel text its
    `per_line_normalization`, the one it says to read. None below two costs, or when all are 0."""
    if len(costs) < 2 or costs.sum() == 0:
        return None
    differences = np.abs(costs[:, None] - costs[None, :]).sum()
    return float(differences / (2 * len(costs) ** 2 * costs.mean()))


def premium_view(languages: Sequence[Language], reports: Sequence[Premiums]) -> views.Bars:
    """Premium by language with its interval, dearest first; one series per tokenizer."""
    order = _by_premium(reports)
    return views.Bars(
        title="What the same sentences cost in each language",
        note=f"Tokens relative to English over {len(languages[0].sentences)} sentences; 1 is the price of English. "
        "Lines: 95 % bootstrap interval over the sentences.",
        categories=tuple(languages[i].name for i in order),
        series={report.name: tuple(_known(report.premium[i]) for i in order) for report in reports},
        low={report.name: tuple(report.low[order].round(3).tolist()) for report in reports},
        high={report.name: tuple(report.high[order].round(3).tolist()) for report in reports},
        x="Language",
        y="Premium (tokens / tokens of English)",
        horizontal=True,
    )


def script_view(languages: Sequence[Language], reports: Sequence[Premiums]) -> views.HeatMap:
    """Mean premium over the languages of each script, dearest script first."""
    scripts = sorted({language.script for language in languages})
    inside = np.array([[language.script == script for language in languages] for script in scripts])
    means = np.array([[_mean(report.premium[rows]) for report in reports] for rows in inside])
    order = np.argsort([-_mean(line) for line in means], kind="stable")
    return views.HeatMap(
        title="Premium by script",
        note="Mean over the languages of a script; English is 1.",
        rows=tuple(f"{scripts[i]} ({np.count_nonzero(inside[i])})" for i in order),
        columns=tuple(report.name for report in reports),
        values=tuple(tuple(_known(value) for value in means[i]) for i in order),
        x="Tokenizer",
        y="Script (languages)",
        unit="tokens / tokens of English",
    )


def language_table(
    languages: Sequence[Language], reports: Sequence[Premiums], price: float | None = None
) -> views.Table:
    """One row per language, grouped by script, dearest first within it.

    price: per million tokens; with it, what a text costs that takes a million tokens in English."""
    order = sorted(_by_premium(reports), key=lambda i: languages[i].script)
    by_bytes = bytes_premium(languages)
    columns = ["Language", "Endonym", "Script", "Bytes premium"]
    definitions = {"Bytes premium": "UTF-8 bytes of the sentences divided by those of English: what a byte model pays."}
    for report in reports:
        columns += [f"{report.name}: tokens", f"{report.name}: tokens per word", f"{report.name}: premium"]
        definitions[columns[-3]] = "Tokens of all sentences."
        definitions[columns[-2]] = "Tokens per word; per character where the language writes no spaces (marked *)."
        definitions[columns[-1]] = "Tokens divided by this tokenizer's tokens for the English sentences."
        if price is not None:
            columns.append(f"{report.name}: cost")
            definitions[columns[-1]] = "Price of a text that takes one million tokens in English."
    rows = []
    for i in order:
        language = languages[i]
        row = [language.name + ("" if language.spaces else " *"), language.endonym, language.script]
        row.append(_known(by_bytes[i]))
        for report in reports:
            row += [int(report.tokens[i]), _known(report.fertility[i]), _known(report.premium[i])]
            if price is not None:
                row.append(_known(report.premium[i] * price))
        rows.append(tuple(row))
    return views.Table(
        title="Languages",
        note="* counted per character, since the language writes no spaces between words. "
        "Draft: the translator was less sure of it. "
        f"No premium: more than {MOST_UNKNOWN:.0%} of the text is unknown to the tokenizer.",
        columns=tuple(columns),
        rows=tuple(rows),
        help=definitions,
        marks={r: "draft" for r, i in enumerate(order) if not languages[i].checked},
    )


def fairness_table(languages: Sequence[Language], reports: Sequence[Premiums]) -> views.Table:
    """One row per tokenizer: inequality over the languages, and its two ends."""
    rows = []
    for report in reports:
        known = np.flatnonzero(~np.isnan(report.premium))
        cheap, dear = (known[f(report.premium[known])] if len(known) else None for f in (np.argmin, np.argmax))
        ends = (cell for i in (cheap, dear) for cell in _end(languages, report, i))
        rows.append((report.name, _known(report.gini, 4), _known(report.gini_bytes, 4), *ends))
    return views.Table(
        title="Fairness over the languages",
        columns=(
            "Tokenizer",
            "Gini",
            "Gini per byte",
            "Cheapest language",
            "Lowest premium",
            "Dearest language",
            "Highest premium",
        ),
        rows=tuple(rows),
        help={
            "Gini": "Inequality of tokens per sentence over the languages: 0 is equal cost for all, 1 the extreme.",
            "Gini per byte": "The same for tokens per UTF-8 byte; scripts with long bytes look cheap in it.",
        },
    )


def _end(languages: Sequence[Language], report: Premiums, i: int | None) -> tuple[str | None, float | None]:
    return (None, None) if i is None else (languages[i].name, _known(report.premium[i]))


def _by_premium(reports: Sequence[Premiums]) -> list[int]:
    """Language numbers, highest mean premium over the tokenizers first, undefined ones last."""
    means = [_mean(np.array([report.premium[i] for report in reports])) for i in range(len(reports[0].premium))]
    return [int(i) for i in np.argsort([-mean for mean in means], kind="stable")]


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _known(value: float | None, digits: int = 3) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), digits)
