r"""**Keep only the patches that the image encoder itself sums the picture up from.** A vision-language model turns a
picture into one *visual token* per patch, and its language model spends most of its work on them. The encoder has one
more token, [CLS], that belongs to no patch and gathers what matters of the whole picture. FasterVLM keeps the patches
that [CLS] looks at most and drops the rest before the language model sees any. Nothing is trained.

**Score.** Let $A^{h}$ be the attention of head $h$ in the encoder layer whose output is projected: in LLaVA and here
the last but one, not the last. Patch $j$ gets
$$s_j = \frac{1}{H} \sum_{h} A^{h}_{\text{[CLS]}, j},$$
softmax weights as they are; [CLS] also looks at itself, so they sum to less than 1. Layers count from 0.

**Selection.** The $T$ patches of highest score go through the projector, *in the order of the picture*, not of their
scores. The question is not asked: one reduced picture serves any number of questions. A picture in several parts
(a thumbnail and crops) keeps $T$ of each.

**Positions.** The authors' code closes the gaps: kept tokens get consecutive positions (*repack*). LLaVA can afford
that, because its encoder's features carry the place. The small model here may read places from the positions, so
*keep* is the default: a token stays where its patch was. Both are measured.

**Why not the text's attention?** FastV (Chen et al. 2024) ranks visual tokens by how much the last token of the
question looks at them in layer 1 of the language model. The paper finds two faults in such scores. *Shift*: they grow
towards the end of the picture, which is nearest to the question. *Dispersion*: they are spread over many patches. Both
are drawn below, over $n$ drawn scenes with a question each. In large encoders [CLS] has faults of its own: a few
patches of background with huge features attract it (Darcet et al. 2024), so the length of the features is shown too.

**What is measured.** 500 scenes that the model was not trained on, up to six questions each, with 72, 36, 18, 9 and 4
of 144 patches. Fixed before the run: the claim holds if with 18 and with 36 patches FasterVLM answers more questions
than a random choice and than a uniform grid, each time with a 95 % interval of the difference (bootstrap over scenes)
above zero, and has more of the patches that the question is about than the random choice. Whether it beats FastV is
reported, not demanded: many questions here name one object, which favours scores that know the question, and counting
favours scores that do not; so it is split by kind of question. *Oracle* keeps what the question is about first, *no
picture* keeps nothing. Beside it: repacked positions; half of the budget on a uniform grid, a control that tells
whether the language model misses the background as such; and large scenes as a thumbnail and four crops.

**The model bears missing patches because its language model was trained to.** Before the last stage of training, in
which patches chosen by random fields are left out, it took a picture without background for one without things, and
FasterVLM answered fewer questions than a random choice (see its card). The paper's models bear it untrained.

**What stands in its way here.** The patches that [CLS] looks at are those that show things, and yet a random choice
does better: in this encoder, attention has carried what the things are to the patches around them. With 18 patches
none of which the question is about, the model still answers 57 % (no picture: 21 %), so a few patches from everywhere
tell more than all patches of the things. Of a thumbnail and crops, where the budget is spread over five parts,
FasterVLM is ahead of the random choice. A run on 60 scenes with the weights before the stage with missing patches, and
the whole measurement on weights whose encoder was trained on in that stage, gave the same verdict.

Source: Q. Zhang, A. Cheng, M. Lu, Z. Zhuo, M. Wang, J. Cao, S. Guo, Q. She and S. Zhang, *[CLS] Attention is All You
Need for Training-Free Visual Token Pruning: Make VLM Inference Faster* (2024). Encoders without [CLS], such as SigLIP,
are not supported here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import numpy as np

from tokenlab import guard, models, pictures
from tokenlab.controls import Choice, Choices, Model, Picture, Seed, Slider, Text
from tokenlab.errors import UserError
from tokenlab.measurement import Measurement
from tokenlab.pruning import benchmark, compare, scenes, vit_attention
from tokenlab.pruning.benchmark import Board, Cell, Items
from tokenlab.pruning.compare import Outcome, Task
from tokenlab.pruning.policies import FASTERVLM, FASTV, FULL, NO_PICTURE, ORACLE, RANDOM, UNIFORM, Method
from tokenlab.views import Lines, Note, PatchMap, PatchMaps, PatchOverlay, Series, Table

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel
    from tokenlab.pruning.reduction import TokenReduction

SECONDS = 120.0  # a checkpoint of the Hub takes its time
TEXT_LAYER = 1  # of the language model: FastV with K = 2 ranks by it
LOOKED = 100  # scenes whose attention is averaged in the panel; of a checkpoint of the Hub fewer, because it is slow
LOOKED_HUB = 4

BAR_BUDGETS = (18, 36)
RIVALS = (RANDOM, UNIFORM)
PER_SCENE = 6  # questions
REPACKED = "FasterVLM, repacked"
HALF = Method("half FasterVLM, half grid", "a control, not a method of the paper", "cls_attention:HalfGrid")
LARGE = 12  # scenes of a thumbnail and four crops


@dataclass(frozen=True)
class Single(Method):
    """FasterVLM by another layer or a single head."""

    layer: int | None = None
    head: int | None = None

    def make(self) -> TokenReduction:
        from tokenlab.pruning.cls_attention import FasterVLM

        return FasterVLM(self.layer, self.head)


# --- the panel ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    kept: PatchOverlay
    outcome: Table
    looks: PatchMaps | None = None
    norms: PatchMaps | None = None
    shift: Lines | None = None
    dispersion: Lines | None = None
    formula: Note | None = None
    known: Table | None = None


def run(
    picture: Annotated[
        str,
        Picture(
            "Picture",
            info="The middle square is read. Type scene: and a number for any drawn scene.",
            shared="scene.picture",
        ),
    ] = "scene:3",
    question: Annotated[
        str,
        Text(
            "Question",
            info="Left empty, the drawn scene's own first question; the last table lists more",
            lines=1,
            characters=500,
            shared="scene.question",
        ),
    ] = "What shape is the yellow thing?",
    tokens: Annotated[int, Slider("Kept tokens", minimum=1, maximum=144, step=1)] = 36,
    layer: Annotated[
        int,
        Slider("Encoder layer", info="-1: the one that is projected", minimum=-1, maximum=31, step=1),
    ] = -1,
    head: Annotated[int, Slider("Head", info="-1: the mean of all", minimum=-1, maximum=31, step=1)] = -1,
    positions: Annotated[
        str,
        Choice(
            "Positions",
            info="keep: a token stays where its patch was; repack: the gaps are closed, as the authors' code does",
            options=("keep", "repack"),
        ),
    ] = "keep",
    beside: Annotated[
        tuple[str, ...],
        Choices(
            "Beside it",
            info="The full model and a random choice are always there; the oracle only where the answer is known.",
            options=(UNIFORM.name, FASTV.name, ORACLE.name),
            least=0,
        ),
    ] = (FASTV.name, ORACLE.name),
    model: Annotated[str, Model("Model", kind="vlm", shared="model")] = "shapes-vlm",
    seed: Annotated[int, Seed()] = 0,
) -> Iterator[Result]:
    """A picture and a question with FasterVLM and its rivals, and where [CLS] and the question look."""
    from tokenlab.models.vision import vision_language_model

    opened = vision_language_model(model)
    config = opened.torch.config.vision_config
    if layer >= config.num_hidden_layers or head >= config.num_attention_heads:
        raise UserError(
            f"The image encoder of {opened.name} has layers 0 to {config.num_hidden_layers - 1} and heads 0 to "
            f"{config.num_attention_heads - 1}; please choose one of them."
        )
    told = task(opened, picture, question)
    at, one = layer if layer >= 0 else opened.feature_layer - 1, head if head >= 0 else None
    own = Single(**dataclasses.asdict(FASTERVLM), layer=at, head=one)
    result = None
    for outcomes in side_by_side(opened, told, methods(own, beside, told), tokens, positions, seed):
        result = Result(
            kept=compare.overlay(opened, told, outcomes, min(tokens, opened.vision.grid**2)),
            outcome=compare.outcome_table(outcomes, told),
            formula=compare.formula(),
            known=_known(told),
        )
        yield result
    result = dataclasses.replace(result, **maps(opened, told, at, one))
    yield result
    cls, text = seen_scenes(opened)
    shares = {cls_name(at, one): cls[:, at].mean(1) if one is None else cls[:, at, one], TEXT_NAME: text.mean(1)}
    yield dataclasses.replace(result, shift=shift_lines(shares), dispersion=dispersion_lines(shares))


def task(model: VisionLanguageModel, picture: str, question: str) -> Task:
    """The picture with the user's question, or with its scene's first one. UserError: neither is there."""
    scene = compare.drawn(picture)
    if not question.strip() and scene is not None:
        question = scenes.questions(scene)[0].text
    return compare.task(model, picture, compare.OWN, question)


def methods(own: Method, beside: Sequence[str], told: Task) -> tuple[Method, ...]:
    """full, FasterVLM, random and what was chosen, as far as it can be."""
    others = [method for method in (UNIFORM, FASTV, ORACLE) if method.name in beside]
    return FULL, own, RANDOM, *(method for method in others if method is not ORACLE or told.truth is not None)


def side_by_side(
    model: VisionLanguageModel, told: Task, chosen: Sequence[Method], tokens: int, positions: str, seed: int
) -> Iterator[list[Outcome]]:
    outcomes: list[Outcome] = []
    for method in chosen:
        guard.check_time()
        outcomes.append(compare.answered(model, told, method, tokens, positions, seed))
        yield outcomes


TEXT_NAME = f"question, layer {TEXT_LAYER} of the language model"


def cls_name(layer: int, head: int | None) -> str:
    return f"[CLS], layer {layer} of the encoder" + (f", head {head}" if head is not None else "")


def maps(model: VisionLanguageModel, told: Task, layer: int, head: int | None) -> dict[str, PatchMaps]:
    """This picture: both attentions, mean and head by head, and the length of the features."""
    from tokenlab.pruning import reduction
    from tokenlab.pruning.cls_attention import TextAttention

    seen = vit_attention.look(model.vision, told.image)
    vit = reduction.encode(model, model.vision.pixels(told.image[None]))
    text = reduction.read(model, vit, [told.question], TextAttention(TEXT_LAYER), 1).scores[0].numpy()
    about = told.truth.patches if told.truth else ()
    looks = PatchMaps(
        title="Where [CLS] looks, and where the question looks",
        note="Upper line: the scores of FasterVLM. Lower line: the question's last token, mean by which FastV ranks; "
        "the rest of its attention goes to words.",
        png=pictures.png(told.image),
        grid=(seen.grid, seen.grid),
        lines=(f"[CLS], layer {layer}", f"question, layer {TEXT_LAYER}"),
        maps=(_line(seen.cls[layer], seen.grid, about), _line(text, seen.grid, about)),
        chosen=(0, 0 if head is None else 1 + head),
        unit="of the attention",
    )
    norms = vit_attention.norm_view(
        seen, told.image, "Patches far above the median attract [CLS] in large encoders without showing anything."
    )
    return {"looks": looks, "norms": dataclasses.replace(norms, chosen=(0, model.feature_layer))}


def _known(told: Task) -> Table | None:
    table = compare.known_table(told)
    note = "Write one of them above, or another of its kind in words that the scene allows."
    return table and dataclasses.replace(table, note=note)


def _line(weights: np.ndarray, grid: int, about: Sequence[int]) -> tuple[PatchMap, ...]:
    """weights: (heads, N)."""
    named = {"mean": weights.mean(0), **{f"head {h}": one for h, one in enumerate(weights)}}
    return tuple(
        vit_attention.patch_map(name, one, grid, vit_attention.attention_facts(one, about))
        for name, one in named.items()
    )


# --- shift and dispersion ----------------------------------------------------------------------------


def seen_scenes(model: VisionLanguageModel) -> tuple[np.ndarray, np.ndarray]:
    """Both attentions over drawn scenes, as of cls_attention.attentions; those of the bundled model are kept."""
    return _bundled(model) if model.name in models.VLMS else looked_at(model, LOOKED_HUB)


@lru_cache(maxsize=1)
def _bundled(model: VisionLanguageModel) -> tuple[np.ndarray, np.ndarray]:
    return looked_at(model, LOOKED)


def looked_at(model: VisionLanguageModel, n: int, seed: int = benchmark.SEED) -> tuple[np.ndarray, np.ndarray]:
    """Both attentions over the first n scenes of the benchmark, each with one of its questions."""
    from tokenlab.pruning import cls_attention

    items = benchmark.asked(n, seed)
    kinds = np.random.default_rng(seed)
    asked = [items.questions[kinds.choice(np.flatnonzero(items.scene == i))].text for i in range(n)]
    return cls_attention.attentions(model, items.scenes, asked, TEXT_LAYER)


def share(weights: np.ndarray) -> np.ndarray:
    """(..., N) weights -> their parts of the whole, which sum to 1."""
    return weights / weights.sum(-1, keepdims=True)


def entropy(shares: np.ndarray) -> np.ndarray:
    """(..., N) parts -> (...) bits; log2 N when they are all alike."""
    logs = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return -(shares * logs).sum(-1)


def rank_correlation(weights: np.ndarray, resamples: int = 1000) -> tuple[float, float, float]:
    """Spearman correlation of the mean of (n, N) shares with the raster index, and its 95 % interval over scenes."""
    from scipy.stats import rankdata

    parts = share(weights)
    drawn = np.random.default_rng(0).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), resamples)
    means = np.concatenate((parts.mean(0)[None], drawn @ parts / len(parts)))
    ranks = rankdata(means, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    index = np.arange(parts.shape[1]) - (parts.shape[1] - 1) / 2
    spread = np.sqrt((ranks**2).sum(1) * (index**2).sum())
    found = np.divide(ranks @ index, spread, out=np.zeros(len(ranks)), where=spread > 0)  # 0: all alike
    low, high = np.quantile(found[1:], (0.025, 0.975))
    return float(found[0]), float(low), float(high)


def shift_lines(attention: dict[str, np.ndarray]) -> Lines:
    """attention: name -> (n, N)."""
    series, found = [], []
    for name, weights in attention.items():
        n, count = weights.shape
        series.append(
            Series(name=name, x=tuple(map(float, range(count))), y=tuple((count * share(weights).mean(0)).tolist()))
        )
        found.append("{:.2f} ({:.2f} to {:.2f})".format(*rank_correlation(weights)))
    return Lines(
        title="Shift",
        note=f"Mean over {n} drawn scenes; 1 is an even spread. Rank correlation with the place in the raster, with "
        f"its 95 % interval: [CLS] {found[0]}, question {found[1]}.",
        series=tuple(series),
        x="patch, row by row from the upper left",
        y="attention [times the even share]",
    )


def dispersion_lines(attention: dict[str, np.ndarray]) -> Lines:
    """attention: name -> (n, N)."""
    series, found = [], []
    for name, weights in attention.items():
        n, count = weights.shape
        parts = share(weights)
        mass = 100 * np.cumsum(-np.sort(-parts, -1), -1).mean(0)
        series.append(Series(name=name, x=tuple(map(float, range(1, count + 1))), y=tuple(mass.tolist())))
        found.append(f"{entropy(parts).mean():.2f}")
    even = tuple(100 * k / count for k in range(1, count + 1))
    series.append(Series(name="even", x=tuple(map(float, range(1, count + 1))), y=even))
    return Lines(
        title="Dispersion",
        note=f"Mean over {n} drawn scenes. Entropy: [CLS] {found[0]}, question {found[1]} bits; an even spread has "
        f"{np.log2(count):.2f}.",
        series=tuple(series),
        x="patches, from the most attended on",
        y="share of the attention on patches [%]",
    )


# --- the experiment ----------------------------------------------------------------------------------


def measure(seed: int = 0) -> Measurement:
    """The claim, fixed before the run: with 18 and with 36 of 144 patches, more right answers than a random choice and
    than a uniform grid, outside the paired 95 % interval, and more hits than the random choice. About six minutes on
    one core."""
    from tokenlab.models.vision import vision_language_model

    return experiment(vision_language_model("shapes-vlm"), seed)


def experiment(
    model: VisionLanguageModel,
    seed: int = 0,
    n: int = benchmark.SCENES,
    most: int = PER_SCENE,
    budgets: Sequence[int] = benchmark.BUDGETS,
    looked: int = LOOKED,
    large: int = LARGE,
) -> Measurement:
    """`measure` for any model and size."""
    began = time.perf_counter()
    items = fewer(benchmark.asked(n, benchmark.SEED + seed), most, seed)
    vit = dataclasses.replace(benchmark.encoded(model, items), hidden=())  # no method here looks at them
    compared = (FASTERVLM, *RIVALS, FASTV, ORACLE)
    plan = [(FULL, None), (NO_PICTURE, None), *((method, budget) for budget in budgets for method in compared)]
    cells = [benchmark.score(model, vit, method, budget, items, seed) for method, budget in plan]
    repacked = dataclasses.replace(FASTERVLM, name=REPACKED)
    cells += [
        benchmark.score(model, vit, method, budget, items, seed, positions=positions)
        for method, positions in ((repacked, "repack"), (HALF, "keep"))
        for budget in BAR_BUDGETS
    ]
    board = Board(items.kinds, items.scene, tuple(cells), benchmark.SEED + seed, 0.0, len(cells))
    several = large_scenes(model, large, seed)
    cls, text = looked_at(model, looked, benchmark.SEED + seed)
    attention = {cls_name(model.feature_layer - 1, None): cls[:, model.feature_layer - 1].mean(1)}
    attention[TEXT_NAME] = text.mean(1)
    board = dataclasses.replace(board, seconds=time.perf_counter() - began)

    leads = {
        (rival.name, budget): _lead(board, FASTERVLM.name, rival.name, budget)
        for budget in BAR_BUDGETS
        for rival in RIVALS
    }
    hits = {budget: (_cell(board, FASTERVLM, budget).hits, _cell(board, RANDOM, budget).hits) for budget in BAR_BUDGETS}
    holds = all(low > 0 for _, low, _ in leads.values()) and all(own > chance for own, chance in hits.values())
    value, low, high = _accuracy(board, FASTERVLM, BAR_BUDGETS[0])
    random, uniform, fastv = (_accuracy(board, method, BAR_BUDGETS[0])[0] for method in (RANDOM, UNIFORM, FASTV))
    names = (FULL.name, *(method.name for method in compared))
    return Measurement(
        claim="Keeping the patches that [CLS] attends to most answers more questions than a random choice or a uniform "
        "grid of as many patches, with 18 and with 36 of 144.",
        metric=f"right answers with {BAR_BUDGETS[0]} of 144 visual tokens",
        unit="%",
        value=value,
        low=low,
        high=high,
        baseline_name=FASTV.name,
        baseline=fastv,
        random=random,
        full=_accuracy(board, FULL, None)[0],
        bar=max(random, uniform),
        direction="higher",
        holds=bool(holds),
        reason="\n".join(_reasons(board, leads, hits, several, attention, bool(holds))),
        paper="LLaVA-1.5-7B keeps 90 % of its performance without 95 % of its visual tokens, better than by text "
        "attention (FastV and others), most clearly where most is removed.",
        n=len(items),
        seed=seed,
        seconds=board.seconds,
        figures=(
            benchmark.curves(board, names, benchmark.ALL),
            benchmark.by_kind(board, names, BAR_BUDGETS[0]),
            hit_lines(board, [method.name for method in compared if method is not ORACLE]),
            shift_lines(attention),
            dispersion_lines(attention),
            benchmark.numbers(board, (*names, REPACKED, HALF.name)),
            large_table(several, large),
        ),
    )


def fewer(items: Items, most: int, seed: int) -> Items:
    """At most `most` questions about each scene, chosen at random.

    They are sorted by length, because a batch is as long as its longest."""
    rng = np.random.default_rng((seed, 3))
    order = rng.permutation(len(items))
    place = np.empty(len(items), int)  # of each question among those of its scene
    counts = np.zeros(len(items.scenes), int)
    for i in order:
        place[i] = counts[items.scene[i]]
        counts[items.scene[i]] += 1
    kept = sorted(np.flatnonzero(place < most), key=lambda i: len(items.questions[i].text.split()))
    return Items(items.scenes, tuple(items.questions[i] for i in kept), items.scene[kept])


def large_scenes(model: VisionLanguageModel, n: int, seed: int) -> dict[tuple[str, int], np.ndarray]:
    """Scenes of twice the side, read as a thumbnail and four crops: (method, tokens of each) -> right (questions,)."""
    from tokenlab.pruning import reduction, vlm

    known = vlm.vocabulary()
    plan = [(FULL, model.vision.grid**2), *((method, b) for b in BAR_BUDGETS for method in (FASTERVLM, RANDOM))]
    right: dict[tuple[str, int], list[bool]] = {(method.name, budget): [] for method, budget in plan}
    for drawn in np.random.default_rng(benchmark.SEED + seed).integers(0, scenes.TRAIN, n):
        one = scenes.large(int(drawn))
        pixels = model.vision.pixels(scenes.crops(one))[None]
        vit = reduction.encode(model, pixels)
        for question in scenes.questions(one):
            guard.check_time()
            for method, budget in plan:
                out = reduction.read(model, vit, [question.text], method.make(), budget, seed=int(drawn) + seed)
                right[method.name, budget].append(bool(reduction.accuracy_of(out, [known[question.answer]])))
    return {key: np.array(values) for key, values in right.items()}


def large_table(several: dict[tuple[str, int], np.ndarray], n: int) -> Table:
    questions = len(next(iter(several.values())))
    return Table(
        title="A thumbnail and four crops",
        note=f"{questions} questions about {n} large scenes. The model has seen few of them in training: what counts "
        "here is the distance to full.",
        columns=("Method", "Tokens of each part", "Visual tokens", "Right [%]"),
        rows=tuple(
            (name, budget, 5 * budget, round(100 * float(found.mean()), 1)) for (name, budget), found in several.items()
        ),
    )


def hit_lines(board: Board, names: Sequence[str]) -> Lines:
    """Share of the patches asked about that are kept."""
    budgets = [budget for budget in benchmark.BUDGETS if board.find(names[0], budget)]
    return Lines(
        title="Hits",
        note="Of the patches that the question is about, those that the last layer still has; mean over questions.",
        series=tuple(
            Series(
                name=name,
                x=tuple(map(float, budgets)),
                y=tuple(100 * board.find(name, budget).hits for budget in budgets),
            )
            for name in names
        ),
        x="visual tokens kept of 144",
        y="hits [%]",
        log_x=True,
    )


def _cell(board: Board, method: Method, budget: int | None) -> Cell:
    return board.find(method.name, budget)


def _accuracy(board: Board, method: Method, budget: int | None) -> tuple[float, float, float]:
    return benchmark.interval(100.0 * _cell(board, method, budget).right, board.scene)


def _lead(board: Board, ours: str, theirs: str, budget: int) -> tuple[float, float, float]:
    own, other = board.find(ours, budget), board.find(theirs, budget)
    return benchmark.difference(100.0 * own.right, 100.0 * other.right, board.scene)


def _points(lead: tuple[float, float, float]) -> str:
    return "{:+.1f} points ({:+.1f} to {:+.1f})".format(*lead)


def _reasons(
    board: Board,
    leads: dict[tuple[str, int], tuple[float, float, float]],
    hits: dict[int, tuple[float, float]],
    several: dict[tuple[str, int], np.ndarray],
    attention: dict[str, np.ndarray],
    holds: bool,
) -> Iterator[str]:
    def against(ours: str, theirs: str) -> str:
        return ", ".join(f"{_points(_lead(board, ours, theirs, b))} with {b}" for b in BAR_BUDGETS)

    for budget in BAR_BUDGETS:
        found = ", ".join(f"{_points(leads[rival.name, budget])} against {rival.name}" for rival in RIVALS)
        own, chance = hits[budget]
        yield f"{budget} of 144 patches: {found}; hits {100 * own:.0f} %, random {100 * chance:.0f} %."
    ahead, behind = by_kind(board, FASTERVLM, FASTV, BAR_BUDGETS[0])
    yield (
        f"Against FastV: {against(FASTERVLM.name, FASTV.name)}; with {BAR_BUDGETS[0]} ahead on {_all(ahead)} and "
        f"behind on {_all(behind)}, outside the interval. FastV's first two layers read all patches."
    )
    yield f"Repacked positions against kept ones: {against(REPACKED, FASTERVLM.name)}."
    yield f"Half of the budget on a uniform grid against none: {against(HALF.name, FASTERVLM.name)}."
    numbers = ", ".join(f"{name} {100 * right.mean():.0f} % with {b}" for (name, b), right in several.items())
    yield f"Thumbnail and four crops, tokens of each part: {numbers}."
    shift = [rank_correlation(weights)[0] for weights in attention.values()]
    spread = [entropy(share(weights)).mean() for weights in attention.values()]
    yield (
        f"Shift: rank correlation with the place in the raster {shift[0]:.2f} for [CLS], {shift[1]:.2f} for the "
        f"question. Dispersion: entropy {spread[0]:.2f} and {spread[1]:.2f} bits."
    )
    yield f"The claim {'holds' if holds else 'does not hold'} here."


def by_kind(board: Board, ours: Method, theirs: Method, budget: int) -> tuple[list[str], list[str]]:
    """Kinds of question on which ours is ahead, and behind, with an interval that excludes zero."""
    ahead, behind = [], []
    for kind in scenes.KINDS:
        mask = board.kinds == kind
        if mask.any():
            own, other = (_cell(board, method, budget).right[mask] for method in (ours, theirs))
            _, low, high = benchmark.difference(own, other, board.scene[mask])
            ahead += [kind] * (low > 0)
            behind += [kind] * (high < 0)
    return ahead, behind


def _all(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "none"
