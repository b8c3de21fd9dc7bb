"""Accuracy against kept tokens: drawn scenes that no model was trained on, every question with its truth.

    python -m tokenlab.pruning.benchmark            # writes assets/results/visual-tokens-benchmark.json

    items = asked(500, seed=99)                     # all questions about 500 scenes
    cell = score(model, encoded(model, items), policies.FASTV, 36, items, seed=99)
    interval(cell.right, items.scene)               # (share, low, high), scenes resampled
    difference(cell.right, other.right, items.scene)

Every method answers the same questions, so that differences are paired. The intervals are percentiles of a bootstrap
over scenes (Efron 1979): questions about one scene are not independent.
"""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenlab import guard, measurement
from tokenlab.pruning import policies, scenes
from tokenlab.pruning.policies import FULL, NO_PICTURE, ORACLE, Method
from tokenlab.views import HeatMap, Lines, Series, Table

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel
    from tokenlab.pruning.reduction import Reading, TokenReduction, Vit

BUDGETS = (72, 36, 18, 9, 4)  # of 144 patches
SCENES, SEED = 500, 99
BATCH = 32  # questions read at once
CLOCKED = (1, 16)  # questions at once when time is taken
FILE = "visual-tokens-benchmark.json"  # beside the measurements of the systems
RESAMPLES = 1000
ALL = "all"
UNLIMITED = (FULL.name, NO_PICTURE.name)  # methods without a budget


# --- questions


@dataclass(frozen=True)
class Items:
    """Questions about scenes. scene (n,): which of the scenes each is about."""

    scenes: tuple[scenes.Scene, ...]
    questions: tuple[scenes.Question, ...]
    scene: np.ndarray

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def kinds(self) -> np.ndarray:
        return np.array([question.kind for question in self.questions])


def asked(n: int, seed: int) -> Items:
    """All questions about n scenes whose seeds training never uses (it begins at scenes.TRAIN)."""
    drawn = tuple(scenes.scene(int(s)) for s in np.random.default_rng(seed).integers(0, 2**31, n))
    found = [scenes.questions(one) for one in drawn]
    where = np.repeat(np.arange(n), [len(some) for some in found])
    return Items(drawn, tuple(question for some in found for question in some), where)


# --- one method at one budget


@dataclass(frozen=True)
class Cell:
    """What a method gave at a budget. right: (n,) bool, question by question; hits: share of the patches that the
    questions are about that the last layer still has; tokens: visual tokens in a layer of the language model, mean;
    work: multiply-adds per question, with the text filled up to the longest of its batch; milliseconds: wall clock of
    a forward from the encoder's output to the answer, median, by questions read at once."""

    method: str
    budget: int | None
    right: np.ndarray
    hits: float | None
    tokens: float
    work: float
    milliseconds: dict[int, float] = field(default_factory=dict)


def acts_in_encoder(method: TokenReduction) -> bool:
    from tokenlab.pruning.reduction import TokenReduction

    return type(method).vit is not TokenReduction.vit


def encoded(
    model: VisionLanguageModel, items: Items, method: TokenReduction | None = None, budget: int = 0, seed: int = 0
) -> Vit:
    """All scenes through the encoder, batch by batch; with a method that acts inside it, or without any."""
    import torch

    from tokenlab.pruning import reduction

    parts = []
    for first in range(0, len(items.scenes), BATCH):
        pixels = model.vision.pixels(np.stack([one.pixels for one in items.scenes[first : first + BATCH]]))
        context = reduction.Context(budget, model.torch.model.multi_modal_projector, model.vision.grid, 1, [], seed)
        parts.append(reduction.encode(model, pixels, method, context))
    hidden, cls = (
        tuple(map(torch.cat, zip(*layers, strict=True)))
        for layers in ([part.hidden for part in parts], [part.cls_prob for part in parts])
    )
    return reduction.Vit(hidden, cls, torch.cat([part.feature for part in parts]), model.feature_layer)


def of_rows(vit: Vit, rows: np.ndarray) -> Vit:
    """The encoder's output for some pictures, which may come several times."""
    import torch

    from tokenlab.pruning.reduction import Vit

    index = torch.from_numpy(rows)
    hidden, cls = (tuple(layer[index] for layer in layers) for layers in (vit.hidden, vit.cls_prob))
    return Vit(hidden, cls, vit.feature[index], vit.feature_layer)


def score(
    model: VisionLanguageModel,
    vit: Vit,
    method: Method,
    budget: int | None,
    items: Items,
    seed: int = 0,
    repeats: int = 0,
    positions: str = "keep",
) -> Cell:
    """Every question once, BATCH at a time. vit: encoded(model, items); budget: None for a method that has none;
    repeats: forwards per number in CLOCKED when time is taken, 0 for none."""
    made, limit = method.make(), budget or 0
    if acts_in_encoder(made):
        vit = encoded(model, items, made, limit, seed)
    right, hits, tokens, work = np.zeros(len(items), bool), [], 0.0, 0.0
    for first in range(0, len(items), BATCH):
        guard.check_time()
        part = np.arange(first, min(first + BATCH, len(items)))
        out = read(model, vit, made, limit, items, part, seed, positions)
        right[part] = answers(model, items, part, out)
        hits += [share for i, left in zip(part, out.left.numpy(), strict=True) for share in _hit(items, i, left)]
        tokens += len(part) * float(np.mean(out.kept))
        work += len(part) * out.work.total
    return Cell(
        method.name,
        budget,
        right,
        float(np.mean(hits)) if hits else None,
        tokens / len(items),
        work / len(items),
        {b: clock(model, vit, made, limit, items, b, repeats) for b in CLOCKED} if repeats else {},
    )


def read(
    model: VisionLanguageModel,
    vit: Vit,
    method: TokenReduction,
    budget: int,
    items: Items,
    part: np.ndarray,
    seed: int = 0,
    positions: str = "keep",
) -> Reading:
    """The questions number `part`, at once."""
    from tokenlab.pruning import reduction

    some = [items.questions[i] for i in part]
    return reduction.read(
        model,
        of_rows(vit, items.scene[part]),
        [question.text for question in some],
        method,
        budget,
        positions,
        seed=seed + int(part[0]),  # a random choice is another one in each batch
        relevant=[question.patches for question in some],
    )


def answers(model: VisionLanguageModel, items: Items, part: np.ndarray, out: Reading) -> np.ndarray:
    """(len(part),) bool: the likeliest next word is the answer."""
    from tokenlab.pruning import reduction, vlm

    known = vlm.vocabulary()
    return reduction.accuracy_of(out, [known[items.questions[i].answer] for i in part]).numpy()


def _hit(items: Items, i: int, left: np.ndarray) -> list[float]:
    patches = items.questions[i].patches
    return [float((left[list(patches)] == -1).mean())] if patches else []


def clock(
    model: VisionLanguageModel,
    vit: Vit,
    method: TokenReduction,
    budget: int,
    items: Items,
    batch: int,
    repeats: int,
) -> float:
    """Milliseconds of a forward of `batch` questions, median of `repeats` after one that does not count."""
    seconds = []
    for k in range(repeats + 1):
        part = (np.arange(batch) + k * batch) % len(items)
        started = time.perf_counter()
        read(model, vit, method, budget, items, part)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[1:]))


# --- all methods at all budgets


@dataclass(frozen=True)
class Board:
    """A benchmark, whole or so far. kinds, scene: of each question; total: cells of the whole benchmark."""

    kinds: np.ndarray
    scene: np.ndarray
    cells: tuple[Cell, ...]
    seed: int
    seconds: float
    total: int
    machine: str = ""
    date: str = ""

    @property
    def scenes(self) -> int:
        return len(np.unique(self.scene))

    def find(self, method: str, budget: int | None) -> Cell | None:
        budget = None if method in UNLIMITED else budget
        return next((c for c in self.cells if (c.method, c.budget) == (method, budget)), None)


def board(
    model: VisionLanguageModel, methods: Sequence[Method], n: int, seed: int, repeats: int = 0
) -> Iterator[Board]:
    """The benchmark cell by cell: full and no picture first, then budget by budget all the others and the oracle."""
    started = time.monotonic()
    items = asked(n, seed)
    vit = encoded(model, items)
    others = [method for method in (*methods, ORACLE) if method.name not in UNLIMITED]
    plan = [(FULL, None), (NO_PICTURE, None), *((method, budget) for budget in BUDGETS for method in others)]
    cells: list[Cell] = []
    for method, budget in plan:
        cells.append(score(model, vit, method, budget, items, seed, repeats))
        yield Board(items.kinds, items.scene, tuple(cells), seed, time.monotonic() - started, len(plan))


# --- intervals


def interval(right: np.ndarray, scene: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The mean of (n,) values and its 95 % interval: percentiles of a bootstrap that resamples scenes."""
    _, where = np.unique(scene, return_inverse=True)
    sums, counts = np.bincount(where, right.astype(float)), np.bincount(where)
    drawn = _resampled(len(counts), seed)
    low, high = np.quantile((drawn @ sums) / (drawn @ counts), (0.025, 0.975))
    return float(right.mean()), float(low), float(high)


@lru_cache(maxsize=8)
def _resampled(n: int, seed: int) -> np.ndarray:
    """(RESAMPLES, n): how often each of n scenes is drawn."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)


def difference(ours: np.ndarray, theirs: np.ndarray, scene: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of ours - theirs, question by question, and its 95 % interval (paired, scenes resampled)."""
    return interval(ours.astype(float) - theirs.astype(float), scene, seed)


# --- on disk


def to_json(whole: Board) -> dict[str, Any]:
    """JSON-ready: right answers as a text of 0 and 1 per cell."""
    cells = [asdict(c) | {"right": "".join("01"[int(r)] for r in c.right), "work": round(c.work)} for c in whole.cells]
    return {
        "seed": whole.seed,
        "seconds": round(whole.seconds, 1),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
        "kinds": whole.kinds.tolist(),
        "scene": whole.scene.tolist(),
        "cells": cells,
    }


def from_json(data: dict[str, Any]) -> Board:
    cells = tuple(
        Cell(
            **c
            | {
                "right": np.array([r == "1" for r in c["right"]]),
                "milliseconds": {int(b): ms for b, ms in c["milliseconds"].items()},
            }
        )
        for c in data["cells"]
    )
    kinds, scene = np.array(data["kinds"]), np.array(data["scene"])
    return Board(kinds, scene, cells, data["seed"], data["seconds"], len(cells), data["machine"], data["date"])


def stored() -> Board | None:
    """The stored benchmark, or None when there is none yet."""
    path = measurement.RESULTS / FILE
    return from_json(json.loads(path.read_text("utf-8"))) if path.exists() else None


def store(whole: Board) -> Path:
    """Write it beside the measurements and return the path."""
    path = measurement.RESULTS / FILE
    path.write_text(json.dumps(to_json(whole), separators=(",", ":")) + "\n", "utf-8")
    return path


# --- views


def where(shown: Board) -> str:
    """What was measured, for the line below a picture."""
    done = f"{shown.seconds:.0f} s" + (
        f" so far, {len(shown.cells)} of {shown.total} runs" * (shown.total > len(shown.cells))
    )
    machine = f", {shown.machine}, {shown.date}" if shown.machine else ""
    return f"n = {len(shown.kinds):,} questions about {shown.scenes} scenes, seed {shown.seed}, {done}{machine}."


def listed(shown: Board, names: Sequence[str]) -> list[str]:
    """The methods called so and the bounds, as they have come: a benchmark under way only grows."""
    wanted = {*names, ORACLE.name, NO_PICTURE.name}
    return [name for name in dict.fromkeys(cell.method for cell in shown.cells) if name in wanted]


def curves(shown: Board, names: Sequence[str], kind: str, x: str = "budget") -> Lines:
    """Accuracy against kept tokens (x = "budget") or multiply-adds ("work"), with intervals; bounds as level lines."""
    mask = shown.kinds == kind if kind != ALL else np.ones(len(shown.kinds), bool)
    series = []
    for name in listed(shown, names):
        cells = [cell for cell in (shown.find(name, budget) for budget in BUDGETS) if cell is not None]
        if not cells or not mask.any():  # no scene of a small run has such a question
            continue
        found = [interval(100.0 * cell.right[mask], shown.scene[mask]) for cell in cells]
        level = name in UNLIMITED
        at = [float(b) for b in BUDGETS] if x == "budget" else [cell.work / 1e6 for cell in cells]
        if level and x == "work":
            at, found = at[:1], found[:1]
        y, low, high = zip(*found, strict=True)
        series.append(Series(name=name, x=tuple(at[: len(y)]), y=y, low=low, high=high, points=level and x == "work"))
    about = "all questions" if kind == ALL else f"questions of the kind “{kind}”"
    return Lines(
        title="Accuracy against " + ("kept tokens" if x == "budget" else "work"),
        note=f"Bands: 95 % intervals over scenes. {about[0].upper()}{about[1:]}: {int(mask.sum()):,}. {where(shown)}",
        series=tuple(series),
        x="visual tokens kept of 144" if x == "budget" else "multiply-adds per question [million]",
        y="right answers [%]",
        log_x=x == "budget",
    )


def by_kind(shown: Board, names: Sequence[str], budget: int) -> HeatMap:
    """Accuracy of every method by kind of question at one budget."""
    kinds = [kind for kind in scenes.KINDS if (shown.kinds == kind).any()]
    cells = [(name, shown.find(name, budget)) for name in listed(shown, names)]
    known = [(name, cell) for name, cell in cells if cell is not None]
    return HeatMap(
        title=f"By kind of question, {budget} of 144 tokens kept",
        note="Full and no picture have no budget. Oracle keeps the patches that the question is about, so it may lose "
        "what counting all things needs.",
        rows=tuple(name for name, _ in known),
        columns=tuple(kinds),
        values=tuple(tuple(round(100 * float(c.right[shown.kinds == k].mean()), 1) for k in kinds) for _, c in known),
        x="kind of question",
        y="method",
        unit="% right",
    )


def numbers(shown: Board, names: Sequence[str]) -> Table:
    """Every cell: accuracy with its interval, against random in pairs, hits, tokens, work and wall clock."""
    rows, methods, full = [], listed(shown, names), shown.find(FULL.name, None)
    for cell in shown.cells:
        if cell.method not in methods:
            continue
        value, low, high = interval(100.0 * cell.right, shown.scene)
        random = shown.find(policies.RANDOM.name, cell.budget) if cell.budget is not None else None
        gain = None
        if random is not None and cell is not random:
            ahead, least, most = difference(100.0 * cell.right, 100.0 * random.right, shown.scene)
            gain = f"{ahead:+.1f} ({least:+.1f} to {most:+.1f})"
        rows.append(
            (
                cell.method,
                cell.budget,
                round(value, 1),
                f"{low:.1f} to {high:.1f}",
                gain,
                None if cell.hits is None else round(100 * cell.hits, 1),
                round(cell.tokens, 1),
                round(cell.work / 1e6, 1),
                round(100 * cell.work / full.work, 1) if full else None,
                *(cell.milliseconds.get(b) for b in CLOCKED),
            )
        )
    timed = any(cell.milliseconds for cell in shown.cells)
    columns = {
        "Method": "",
        "Kept": "The budget: visual tokens of 144 that the last layer still has.",
        "Right [%]": "Questions whose answer was the likeliest next word.",
        "95 % interval [%]": "Percentiles of a bootstrap that resamples scenes.",
        "Against random [points]": "Mean difference on the same questions, with its 95 % interval.",
        "Hits [%]": "Of the patches that the question is about, those that the last layer still has.",
        "Tokens per layer": "Visual tokens that a layer of the language model reads, mean over layers.",
        "Work [M]": "Million multiply-adds per question, encoder included, from the formula.",
        "Work [% of full]": "The same against the full model.",
        **{f"Time, {b} at once [ms]": "Wall clock from the encoder's output to the answer, median." for b in CLOCKED},
    }
    keep = len(columns) - (0 if timed else len(CLOCKED))
    return Table(
        title="In numbers",
        note=where(shown),
        columns=tuple(columns)[:keep],
        rows=tuple(row[:keep] for row in rows),
        help={name: text for name, text in list(columns.items())[:keep] if text},
    )


def main() -> None:
    from tokenlab.models.vision import vision_language_model

    for whole in board(vision_language_model("shapes-vlm"), policies.METHODS, SCENES, SEED, repeats=20):
        cell = whole.cells[-1]
        print(
            f"{whole.seconds:6.0f} s  {cell.method:14} {cell.budget or '':>4}  {100 * cell.right.mean():.1f} %",
            flush=True,
        )
    print(store(whole))


if __name__ == "__main__":
    main()
