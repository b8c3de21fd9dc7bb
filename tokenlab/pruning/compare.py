"""See which visual tokens a method keeps, on your own picture, and whether the answer survives.

A vision-language model cuts a picture into square *patches*. An image encoder turns each into a vector, a projector
turns the vectors into *visual tokens*, and a language model reads these before it reads the question. There are many
more of them than words, so most of the work goes into them. *Token reduction* removes or merges some.

**What is kept.** The same picture and question under several methods. Removed patches are hatched; tokens are really
gone, so that later layers are shorter. The bundled model has learnt scenes like the drawn ones (one word is the
answer), and knows nothing of the world: for a photograph it answers in the words that it has.

- *full* keeps everything, *random* a random choice: any method must be held against these two. *Uniform grid* takes
  patches that are evenly spread.
- *FastV* (Chen et al. 2024) lets two layers of the language model read everything, then keeps the visual tokens that
  the question's last token looks at most.
- *FasterVLM* (Zhang et al. 2024) keeps the patches that the encoder's summary token [CLS] looks at most, whatever is
  asked, and the language model never sees the others.

Work is counted in multiply-adds (half of the FLOPs). *Time* is the wall clock of this very run. With few patches a
layer spends most of its time on overheads, so that less work need not be less time.

**ViT attention.** Where [CLS] looks, in every layer and head, the mean of the heads, and
*attention rollout* (Abnar and Zuidema 2020), which multiplies the layers' matrices, half identity for the residual
stream: $\\hat A_l \\cdots \\hat A_0$ with $\\hat A = (\\bar A + I) / 2$. Below it the length of every patch's feature:
in large encoders a few patches with huge norms attract attention without showing anything (Darcet et al. 2024).

**Against kept tokens.** Every method on the same questions about scenes that the model was not trained on. *No picture*
shows what can be guessed from the question alone. *Oracle* keeps the patches that the question is about first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Annotated, TypeVar

import numpy as np

from tokenlab import guard, models, pictures
from tokenlab.controls import Choice, Choices, Model, Picture, Seed, Slider, Text
from tokenlab.errors import UserError
from tokenlab.pruning import benchmark, policies, scenes, vit_attention
from tokenlab.pruning.policies import Method
from tokenlab.views import Bars, HeatMap, Lines, Note, PatchMaps, PatchOverlay, PatchRow, Series, Table

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel, VisionTransformer
    from tokenlab.pruning.reduction import Reading, Vit

T = TypeVar("T")
KEPT, LOOKS, BUDGETS = PARTS = ("What is kept", "ViT attention", "Against kept tokens")
STORED, FRESH = SOURCES = ("stored, 500 scenes", "live, new scenes")
SECONDS = 120  # a checkpoint of the Hub takes its time
REPEATS = 7  # forwards of which the median time is shown
NEW_TOKENS = 16  # of a checkpoint of the Hub; the bundled model answers in one word
DRAWINGS = 200  # of questions about a scene; what is written in other words has no known answer
OWN = "in my words"
ASKS = {
    OWN: "",
    "is it there?": "exist",
    "what color?": "color",
    "what shape?": "shape",
    "how many of a shape?": "count",
    "how many things?": "total",
    "where?": "where",
    "which digit?": "digit",
    "big or small?": "size",
    "left of or above?": "relation",
}


@dataclass(frozen=True)
class Result:
    """Each part fills the views that it has."""

    kept: PatchOverlay | None = None
    outcome: Table | None = None
    layers: Lines | None = None
    work: Bars | None = None
    formula: Note | None = None
    known: Table | None = None
    looks: PatchMaps | None = None
    norms: PatchMaps | None = None
    accuracy: Lines | None = None
    against_work: Lines | None = None
    kinds: HeatMap | None = None
    numbers: Table | None = None


def run(
    part: Annotated[str, Choice("Show", options=PARTS, style="parts")] = KEPT,
    picture: Annotated[
        str,
        Picture(
            "Picture",
            info="The middle square is read. Type scene: and a number for any drawn scene.",
            when=("part", KEPT, LOOKS),
            shared="scene.picture",
        ),
    ] = "scene:3",
    ask: Annotated[
        str,
        Choice(
            "Question",
            info="Of a drawn scene all but the first have a known answer.",
            options=tuple(ASKS),
            when=("part", KEPT),
        ),
    ] = OWN,
    question: Annotated[
        str,
        Text("Your question", lines=1, characters=500, when=("ask", OWN), shared="scene.question"),
    ] = "What shape is the yellow thing?",
    budget: Annotated[
        float,
        Slider("Kept patches", info="share of all", minimum=0.005, maximum=1.0, step=0.005, when=("part", KEPT)),
    ] = 0.25,
    compared: Annotated[
        tuple[str, ...],
        Choices(
            "Methods",
            info="The full model and a random choice are always shown beside them.",
            options=policies.names(),
            least=0,
            when=("part", KEPT, BUDGETS),
        ),
    ] = policies.names(),
    positions: Annotated[
        str,
        Choice(
            "Positions",
            info="keep: a token stays where its patch was; repack: the gaps are closed, as LLaVA code does",
            options=("keep", "repack"),
            when=("part", KEPT),
        ),
    ] = "keep",
    model: Annotated[str, Model("Model", kind="vlm", when=("part", KEPT), shared="model")] = "shapes-vlm",
    encoder: Annotated[str, Model("Image encoder", kind="vit", when=("part", LOOKS))] = "shapes-vlm",
    source: Annotated[str, Choice("Benchmark", options=SOURCES, style="buttons", when=("part", BUDGETS))] = STORED,
    kind: Annotated[
        str, Choice("Questions", options=(benchmark.ALL, *scenes.KINDS), when=("part", BUDGETS))
    ] = benchmark.ALL,
    tokens: Annotated[
        str,
        Choice(
            "Kept tokens",
            info="for the table by kind of question",
            options=tuple(map(str, benchmark.BUDGETS)),
            when=("part", BUDGETS),
        ),
    ] = "18",
    n: Annotated[int, Slider("Scenes", minimum=4, maximum=40, step=4, when=("source", FRESH))] = 8,
    seed: Annotated[int, Seed(when=("part", KEPT, BUDGETS))] = 0,
) -> Iterator[Result]:
    """A picture and a question under several methods; where the image encoder looks; or accuracy at all budgets."""
    from tokenlab.models import vision

    if part == KEPT:
        opened = vision.vision_language_model(model)
        told = task(opened, picture, ask, question)
        yield from side_by_side(opened, told, policies.chosen(compared), budget, positions, seed)
    elif part == LOOKS:
        yield looks(vision.vision_transformer(encoder), picture)
    else:
        names = [method.name for method in policies.chosen(compared)]
        for board in boards(source, compared, n, seed):
            yield budget_views(board, names, kind, int(tokens))


# --- what is kept


@dataclass(frozen=True)
class Task:
    """A picture (size, size, 3) uint8 as the model reads it, and a question.

    truth: what is known about the question, or None; scene: the drawn scene, or None."""

    image: np.ndarray
    question: str
    truth: scenes.Question | None
    scene: scenes.Scene | None


def task(model: VisionLanguageModel, picture: str, ask: str, question: str) -> Task:
    """The picture squared and scaled; a question of the scene's own, or the user's.

    UserError: the question is empty, or this picture has no question of that kind."""
    scene = drawn(picture)
    image = pictures.square(pictures.load(picture), model.vision.size)
    if ask == OWN:
        if not plain(question):
            raise UserError("The question is empty; please ask something.")
        truth = None if scene is None else known_questions(scene.seed).get(plain(question))
        return Task(image, question.strip(), truth, scene)
    if scene is None:
        raise UserError(f"Only drawn scenes know such questions; please choose a scene, or ask “{OWN}”.")
    made = next((question for question in scenes.questions(scene) if question.kind == ASKS[ask]), None)
    if made is None:
        raise UserError(f"Scene {scene.seed} has no clear answer to “{ask}”; please choose another question or scene.")
    return Task(image, made.text, made, scene)


def drawn(picture: str) -> scenes.Scene | None:
    """The scene behind "scene:SEED", None for other pictures."""
    kind, _, seed = pictures.check_ref(picture).partition(":")
    return scenes.scene(int(seed)) if kind == "scene" else None


def plain(question: str) -> str:
    """Without case, double spaces and the question mark: two of the same words ask the same."""
    return " ".join(question.lower().replace("?", " ").split())


@lru_cache(maxsize=16)
def known_questions(seed: int) -> dict[str, scenes.Question]:
    """Questions about a scene whose answer is known, by their `plain` text: all that DRAWINGS of every kind gave."""
    one = scenes.scene(seed)
    drawings = (np.random.default_rng((seed, 2, i)) for i in range(DRAWINGS))
    found = (scenes.ask(one, kind, rng) for rng in drawings for kind in scenes.KINDS)
    return {plain(question.text): question for question in (*scenes.questions(one), *found) if question is not None}


@dataclass(frozen=True)
class Outcome:
    """One method on a task. sure: probability of what was answered, all its tokens; right: None where no truth is
    known; wanted: probability of the right answer, where it is one token; milliseconds: medians of the encoder, and
    of the language model up to the answer's first token."""

    method: Method
    reading: Reading
    answer: str
    sure: float
    right: bool | None
    wanted: float | None
    milliseconds: tuple[float, float]


def side_by_side(
    model: VisionLanguageModel, told: Task, chosen: Sequence[Method], share: float, positions: str, seed: int
) -> Iterator[Result]:
    """One method after the other on the same picture and question."""
    patches = model.vision.grid**2
    limit = max(1, round(share * patches))
    outcomes: list[Outcome] = []
    for method in chosen:
        guard.check_time()
        outcomes.append(answered(model, told, method, limit, positions, seed))
        yield Result(
            kept=overlay(model, told, outcomes, limit),
            outcome=outcome_table(outcomes, told),
            layers=layer_lines(outcomes),
            work=work_bars(outcomes),
            formula=formula(),
            known=known_table(told),
        )


def answered(model: VisionLanguageModel, told: Task, method: Method, limit: int, positions: str, seed: int) -> Outcome:
    """Read the picture and the question REPEATS times for the clock, and answer once."""
    from tokenlab.pruning import reduction

    made, relevant = method.make(), [told.truth.patches] if told.truth else None
    pixels = model.vision.pixels(told.image[None])
    asked = [reduction.question_ids(model, told.question)]
    context = reduction.Context(
        limit, model.torch.model.multi_modal_projector, model.vision.grid, 1, asked, seed, positions, relevant
    )

    def see() -> Vit:
        return reduction.encode(model, pixels, made, context)

    def read(vit: Vit) -> Reading:
        return reduction.read(model, vit, [told.question], made, limit, positions, seed, relevant)

    vit, first = timed(see)
    reading, second = timed(lambda: read(vit))
    ids, sure = reduction.generate(model, reading, 1 if model.name in models.VLMS else NEW_TOKENS)
    text = reduction.answer_text(model, ids)
    wanted = None
    if told.truth:
        truth = model.tokenizer.encode(told.truth.answer).ids
        wanted = float(reduction.probability_of(reading, truth)) if len(truth) == 1 else None
    right = says(text, told.truth.answer) if told.truth else None
    return Outcome(method, reading, text, float(np.prod(sure)), right, wanted, (first, second))


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """What work() gives, and its milliseconds: the median of REPEATS calls after one that does not count.

    Where a call takes long, of those that fit into a second, at least one."""
    seconds: list[float] = []
    while len(seconds) <= REPEATS and (len(seconds) < 2 or sum(seconds) < 1):
        guard.check_time()
        started = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - started)
    return made, 1000 * median(seconds[1:])


def says(output: str, answer: str) -> bool:
    """Whether the output has the answer as a word of its own, whatever its case."""
    return re.search(rf"(?<![\w-]){re.escape(answer)}(?![\w-])", output, re.IGNORECASE) is not None


def overlay(model: VisionLanguageModel, told: Task, outcomes: Sequence[Outcome], limit: int) -> PatchOverlay:
    grid, full = model.vision.grid, outcomes[0].reading.work.total
    rows = []
    for made in outcomes:
        reading = made.reading
        facts = {
            "answer": made.answer or "(nothing)",
            "probability [%]": round(100 * made.sure, 1),
            "tokens per layer": round(float(np.mean(reading.kept)), 1),
            "work [% of full]": round(100 * reading.work.total / full, 1),
            "time [ms]": round(sum(made.milliseconds), 1),
        }
        rows.append(
            PatchRow(
                name=made.method.name,
                left=tuple(reading.left[0].tolist()),
                groups=groups(reading.source[0].numpy()),
                scores=() if reading.scores is None or not made.method.unit else tuple(reading.scores[0].tolist()),
                unit=made.method.unit,
                facts=facts,
                mark="" if made.right is None else "right" if made.right else "wrong",
            )
        )
    truth = f" The right answer is “{told.truth.answer}”." if told.truth else ""
    return PatchOverlay(
        title="What is kept",
        note=f"“{told.question}”{truth} The budget is {limit} of {grid * grid} patches.",
        png=pictures.png(told.image),
        grid=(grid, grid),
        layers=len(outcomes[0].reading.kept),
        rows=tuple(rows),
        marked=told.truth.patches if told.truth else (),
        marked_name="what the question is about" if told.truth else "",
    )


def groups(source: np.ndarray) -> tuple[int, ...]:
    """(N,) the token that each patch went into, -1: dropped -> the same where a token holds several, else -1."""
    sizes = np.bincount(source[source >= 0], minlength=len(source))
    merged = (source >= 0) & (sizes[source] > 1)
    return tuple(np.where(merged, source, -1).tolist()) if merged.any() else ()


def outcome_table(outcomes: Sequence[Outcome], told: Task) -> Table:
    full = outcomes[0]
    columns = {
        "Method": "",
        "Answer": "",
        "Probability [%]": "What the model gives to its own answer.",
        "Of the right one [%]": "What it gives to the right answer." if told.truth else None,
        "Kept patches": "Patches whose token the last layer still has.",
        "Tokens per layer": "Visual tokens that a layer of the language model reads, mean over layers.",
        "Work [M]": "Million multiply-adds of the picture and the question, from the formula below.",
        "Encoder [ms]": f"Wall clock of the image encoder in this run, median of up to {REPEATS}.",
        "Language model [ms]": "Wall clock from there to the answer's first token, likewise.",
        "Faster [times]": "Time of the full model, encoder included, by that of the method.",
    }
    rows = []
    for made in outcomes:
        reading = made.reading
        row = {
            "Method": made.method.name,
            "Answer": made.answer or "(nothing)",
            "Probability [%]": round(100 * made.sure, 1),
            "Of the right one [%]": None if made.wanted is None else round(100 * made.wanted, 1),
            "Kept patches": int((reading.left[0] == -1).sum()),
            "Tokens per layer": round(float(np.mean(reading.kept)), 1),
            "Work [M]": round(reading.work.total / 1e6, 1),
            "Encoder [ms]": round(made.milliseconds[0], 2),
            "Language model [ms]": round(made.milliseconds[1], 2),
            "Faster [times]": round(sum(full.milliseconds) / sum(made.milliseconds), 2),
        }
        rows.append(tuple(row[name] for name, text in columns.items() if text is not None))
    return Table(
        title="What each method answers, and what it costs",
        note=f"The right answer is “{told.truth.answer}”." if told.truth else "The right answer is not known here.",
        columns=tuple(name for name, text in columns.items() if text is not None),
        rows=tuple(rows),
        marks={i: "right" if made.right else "wrong" for i, made in enumerate(outcomes) if made.right is not None},
        help={name: text for name, text in columns.items() if text}
        | {made.method.name: made.method.sentence for made in outcomes},
    )


def layer_lines(outcomes: Sequence[Outcome]) -> Lines:
    return Lines(
        title="Visual tokens in each layer",
        series=tuple(
            Series(
                name=made.method.name,
                x=tuple(map(float, range(len(made.reading.kept)))),
                y=tuple(map(float, made.reading.kept)),
            )
            for made in outcomes
        ),
        x="layer of the language model",
        y="visual tokens",
    )


def work_bars(outcomes: Sequence[Outcome]) -> Bars:
    parts = {"image encoder": "vit", "projector": "projector", "language model": "llm", "the method itself": "own"}
    return Bars(
        title="Where the work goes",
        categories=tuple(made.method.name for made in outcomes),
        series={
            name: tuple(getattr(made.reading.work, part) / 1e6 for made in outcomes) for name, part in parts.items()
        },
        x="method",
        y="multiply-adds [million]",
        stacked=True,
        horizontal=True,
    )


def formula() -> Note:
    from tokenlab.pruning import reduction

    return Note(title="How work is counted", text=reduction.FORMULA)


def known_table(told: Task) -> Table | None:
    """What a drawn scene can be asked so that right and wrong are known."""
    if told.scene is None:
        return None
    made = scenes.questions(told.scene)
    labels = {kind: label for label, kind in ASKS.items()}
    return Table(
        title="What this scene can be asked",
        note="Choose one under Question, or write it, or another of its kind, in your words.",
        columns=("Question", "In its words", "Right answer"),
        rows=tuple((labels[question.kind], question.text, question.answer) for question in made),
    )


# --- where the encoder looks


def looks(vision: VisionTransformer, picture: str) -> Result:
    """All heads of one forward, and the norms."""
    image, scene = pictures.square(pictures.load(picture), vision.size), drawn(picture)
    seen = vit_attention.look(vision, image)
    things: tuple[int, ...] = ()
    if scene is not None and vision.grid == scenes.GRID:
        things = scene.patches(tuple(range(len(scene.things))), digit=True)
    return Result(
        looks=vit_attention.attention_view(
            seen,
            image,
            f"{vision.name} reads {vision.grid} x {vision.grid} patches. LLaVA-type models project the last layer but "
            "one. The numbers: how much of the attention falls on patches at all; of that, its entropy, and the shares "
            "of the strongest tenth of the patches and, in a drawn scene, of the patches that show a thing.",
            things,
        ),
        norms=vit_attention.norm_view(
            seen, image, "Patches far above the median hold something else than what they show."
        ),
    )


# --- against kept tokens


def boards(source: str, compared: Sequence[str], n: int, seed: int) -> Iterator[benchmark.Board]:
    """The stored benchmark, or a new one that grows."""
    if source == STORED:
        found = benchmark.stored()
        if found is None:
            raise UserError(f"The stored benchmark is not there; please choose “{FRESH}”.")
        yield found
        return
    from tokenlab.models.vision import vision_language_model

    yield from benchmark.board(vision_language_model("shapes-vlm"), policies.chosen(compared), n, seed)


def budget_views(board: benchmark.Board, names: Sequence[str], kind: str, tokens: int) -> Result:
    return Result(
        accuracy=benchmark.curves(board, names, kind),
        against_work=benchmark.curves(board, names, kind, "work"),
        kinds=benchmark.by_kind(board, names, tokens),
        numbers=benchmark.numbers(board, names),
    )
