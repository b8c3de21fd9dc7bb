"""The one interface of visual token reduction, and the driver that runs a vision-language model with it.

    model = vision_language_model("shapes-vlm")
    vit = encode(model, model.vision.pixels(images))                # once for any number of questions and methods
    out = read(model, vit, ["what color is the star ?"], FastV(), budget=36)
    out.logits, out.kept, out.left, out.work.total                  # the tokens are really gone

A method says what happens at up to four places; the driver owns the loops, the gathers and the counts:

| place | when | who needs it |
| --- | --- | --- |
| `vit` | before layer l of the image encoder | merging inside the encoder |
| `bridge` | between encoder and language model | selection by [CLS], projectors that compress |
| `llm` | before layer l of the language model, while the prompt is read | dropping by attention of the text |
| `compute` | the mask of layer l: tokens stay, work goes | sparse computation, and the masks in our tests |

Notation: B pictures, each with one question; N patches; n visual tokens; S tokens in the language model; d its width,
dv the encoder's. Everything is float32. Sources: LLaVA (Liu et al. 2023) for the plain model; positions of tokens that
stay: "keep" leaves them where their patch was, "repack" closes the gaps, as LLaVA code does when it drops tokens
before the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenlab import guard
from tokenlab.errors import UserError
from tokenlab.pruning import vlm_onnx

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel

POSITIONS = ("keep", "repack")


@dataclass(frozen=True)
class Vit:
    """What the image encoder gave. U units (thumbnail and crops, or frames) are read as U pictures.

    hidden: L + 1 tensors (B * U, 1 + N, dv), the embedding first; cls_prob: L tensors (B * U, heads, N), softmax of
    the [CLS] query on the patches, not renormalised; feature (B * U, N, dv): hidden[feature_layer] without [CLS], what
    the projector gets; the attention of the layer that made it is cls_prob[feature_layer - 1]."""

    hidden: tuple[Tensor, ...]
    cls_prob: tuple[Tensor, ...]
    feature: Tensor
    feature_layer: int
    units: int = 1


@dataclass
class Context:
    """What a method may know beside its tensors.

    budget: visual tokens to keep, of each unit; project: (B, n, dv) -> (B, n, d), the model's own projector;
    grid: patches along a side; questions: ids of each row; relevant: patches that each row's question is about, for
    the oracle alone; scores (B, N): set by a method to show what it ranked by."""

    budget: int
    project: Callable[[Tensor], Tensor]
    grid: int
    units: int
    questions: list[list[int]]
    seed: int = 0
    positions: str = "keep"
    relevant: Sequence[Sequence[int]] | None = None
    scores: Tensor | None = None


@dataclass(frozen=True)
class Visual:
    """The tokens that go into the language model. tokens: (B, n, d); positions: (B, n) long, in units of patches;
    source: (B, N) long, the token that each patch went into, -1: it was dropped."""

    tokens: Tensor
    positions: Tensor
    source: Tensor


@dataclass(frozen=True)
class State:
    """The sequence before a layer of the language model.

    hidden: (B, S, d); positions: (B, S) long; the visual tokens are hidden[:, start : start + n]; alive: (B, n) long,
    which of the bridge's tokens they are; last: (B,) index of the last token of the question."""

    hidden: Tensor
    positions: Tensor
    start: int
    alive: Tensor
    last: Tensor

    @property
    def visual(self) -> slice:
        return slice(self.start, self.start + self.alive.shape[1])

    def keep_visual(self, index: Tensor, repack: bool = False) -> State:
        """The state with the visual tokens index (B, m) alone, in their order in the sequence.

        repack: positions are counted anew; else every token keeps its own."""
        index = index.sort(1).values
        rows, n = index.shape[0], self.alive.shape[1]
        fixed = torch.arange(self.hidden.shape[1])
        before, after = fixed[: self.start].expand(rows, -1), fixed[self.start + n :].expand(rows, -1)
        kept = torch.cat((before, self.start + index, after), 1)
        positions = self.positions.gather(1, kept)
        if repack:
            positions = torch.arange(kept.shape[1]).expand(rows, -1)
        return State(
            self.hidden.gather(1, kept[..., None].expand(-1, -1, self.hidden.shape[-1])),
            positions,
            self.start,
            self.alive.gather(1, index),
            self.last - (n - index.shape[1]),
        )


class TokenReduction:
    """A method; this one keeps everything. Override the places that matter. Holds parameters, no state of a run."""

    name = "full"

    def vit(self, layer: int, x: Tensor, context: Context) -> Tensor:
        """x (B * U, 1 + N, dv) before layer `layer` of the encoder -> the same with fewer or other tokens."""
        return x

    def bridge(self, vit: Vit, context: Context) -> Visual:
        """The encoder's output as visual tokens."""
        tokens = units_together(context.project(vit.feature), vit.units)
        every = torch.arange(tokens.shape[1]).expand(len(tokens), -1)
        return Visual(tokens, every, every)

    def llm(self, layer: int, state: State, probe: Probe, context: Context) -> State:
        """The state before layer `layer` -> the same with fewer visual tokens (State.keep_visual)."""
        return state

    def compute(self, layer: int, state: State, context: Context) -> Tensor | None:
        """Which keys each query of the layer may see beside causality: bool, broadcast to (B, heads, S, S)."""
        return None

    def own_work(self, model: VisionLanguageModel, context: Context) -> int:
        """Multiply-adds that the method itself costs, of one picture."""
        return 0


def select(features: Tensor, keep: Tensor, context: Context) -> Visual:
    """The patches keep (B, n) of features (B, N, dv), projected, in raster order whatever order `keep` has.

    In the order of their scores they would tell the language model wrong places."""
    keep = keep.sort(1).values
    rows, count = features.shape[:2]
    n = keep.shape[1]
    source = torch.full((rows, count), -1).scatter(1, keep, torch.arange(n).expand(rows, -1))
    tokens = context.project(features.gather(1, keep[..., None].expand(-1, -1, features.shape[-1])))
    return Visual(tokens, keep if context.positions == "keep" else torch.arange(n).expand(rows, -1), source)


def units_together(x: Tensor, units: int) -> Tensor:
    """(B * U, N, ...) -> (B, U * N, ...)."""
    return x.reshape(len(x) // units, units * x.shape[1], *x.shape[2:])


# --- the image encoder


@torch.no_grad()
def encode(
    model: VisionLanguageModel,
    pixels: Tensor,
    method: TokenReduction | None = None,
    context: Context | None = None,
    onnx: bool | None = None,
) -> Vit:
    """The encoder layer by layer. pixels: (B, 3, size, size), or (B, U, 3, size, size) of several units each.

    onnx: through the graph instead, where no method can act; None: when the model has one and `method` does not act
    in the encoder. UserError: the graph is missing or out of date."""
    units = 1
    if pixels.ndim == 5:
        units = pixels.shape[1]
        pixels = pixels.flatten(0, 1)
    if onnx is None:
        onnx = vlm_onnx.ships(model) and (method is None or type(method).vit is TokenReduction.vit)
    if onnx:
        hidden, cls = vlm_onnx.encode(model, pixels)
    else:
        hidden, cls = _layer_by_layer(model, pixels, method, context)
    feature = hidden[model.feature_layer][:, model.vision.prefix :]
    return Vit(tuple(hidden), tuple(cls), feature, model.feature_layer, units)


def _layer_by_layer(
    model: VisionLanguageModel, pixels: Tensor, method: TokenReduction | None, context: Context | None
) -> tuple[list[Tensor], list[Tensor]]:
    tower = model.vision.torch
    x = tower.pre_layrnorm(tower.embeddings(pixels))
    hidden, cls = [x], []
    for layer, block in enumerate(tower.encoder.layers):
        guard.check_time()
        if method is not None:
            x = method.vit(layer, x, context)
        mixed, weights = block.self_attn(block.layer_norm1(x), attention_mask=None)
        x = x + mixed
        x = x + block.mlp(block.layer_norm2(x))
        hidden.append(x)
        cls.append(weights[:, :, 0, model.vision.prefix :])
    return hidden, cls


# --- the language model


class Probe:
    """Attention of a layer for some queries, from that layer's queries and keys alone."""

    def __init__(self, model: VisionLanguageModel):
        self.model = model
        self.inputs: dict[int, State] = {}  # of the layer at hand and the one before

    def attn(self, layer: int, rows: Tensor) -> Tensor:
        """Softmax weights (B, heads, r, S) of the queries at index rows (B, r), before or in layer `layer`.

        Layer: the one that comes next, or the one that has just been computed."""
        state = self.inputs[layer]
        block = language(self.model).layers[layer]
        attention = block.self_attn
        x = block.input_layernorm(state.hidden)
        picked = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        cos, sin = language(self.model).rotary_emb(x, state.positions)
        width = attention.head_dim
        q = _rotated(_heads(attention.q_proj(picked), width), *(_at(part, rows) for part in (cos, sin)))
        k = _rotated(_heads(attention.k_proj(x), width), cos, sin)
        k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        logits = q @ k.transpose(2, 3) * attention.scaling
        ahead = torch.arange(x.shape[1]) > rows[..., None]
        return logits.masked_fill(ahead[:, None], float("-inf")).softmax(-1)


def _heads(x: Tensor, width: int) -> Tensor:
    return x.unflatten(-1, (-1, width)).transpose(1, 2)


def _at(part: Tensor, rows: Tensor) -> Tensor:
    return part.expand(len(rows), -1, -1).gather(1, rows[..., None].expand(-1, -1, part.shape[-1]))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * cos[:, None] + turned * sin[:, None]


def language(model: VisionLanguageModel):
    return model.torch.model.language_model


@dataclass(frozen=True)
class Work:
    """Multiply-adds of reading one picture and one question, by part, from the formulas below."""

    vit: int
    projector: int
    llm: int
    own: int

    @property
    def total(self) -> int:
        return self.vit + self.projector + self.llm + self.own


@dataclass(frozen=True)
class Reading:
    """What came out. logits: (B, V) behind the question's last token; kept: visual tokens in each layer; source: as
    of Visual; left: (B, N) the layer before which a patch was removed, 0: it never got in, -1: it stayed; scores:
    (B, N) or None; work: multiply-adds of the first row; state, cache: to go on generating from."""

    logits: Tensor
    kept: tuple[int, ...]
    source: Tensor
    left: Tensor
    scores: Tensor | None
    work: Work
    state: State = field(repr=False)
    cache: object = field(repr=False)
    next_position: Tensor = field(repr=False)


def question_ids(model: VisionLanguageModel, question: str) -> list[int]:
    """The ids between the picture and the answer. UserError: empty, or a word that a model of few words lacks."""
    if not question.strip():
        raise UserError("The question is empty; please ask something.")
    if model.name == "shapes-vlm":
        from tokenlab.pruning import vlm

        return vlm.question_ids(question)
    return model.tokenizer.encode(model.before + question + model.after).ids.tolist()


@torch.no_grad()
def read(
    model: VisionLanguageModel,
    vit: Vit,
    questions: Sequence[str],
    method: TokenReduction,
    budget: int,
    positions: str = "keep",
    seed: int = 0,
    relevant: Sequence[Sequence[int]] | None = None,
) -> Reading:
    """One forward over opening, picture and question, with `method` at its places.

    vit: of the same pictures, one per question (its rows are B * U). UserError: too long, or a bad question."""
    asked = [question_ids(model, question) for question in questions]
    grid = model.vision.grid
    context = Context(
        budget, model.torch.model.multi_modal_projector, grid, vit.units, asked, seed, positions, relevant
    )
    visual = method.bridge(vit, context)
    state = _sequence(model, visual, asked, vit.units * grid * grid, positions)
    if state.hidden.shape[1] >= model.context:
        raise UserError(
            f"Picture and question have more tokens than the {model.context:,} that {model.name} has room for."
        )
    probe, left, kept, lengths = Probe(model), _not_in(visual), [], []
    cache = _new_cache(model)
    for layer, block in enumerate(language(model).layers):
        guard.check_time()
        probe.inputs = {layer - 1: probe.inputs.get(layer - 1), layer: state}
        state = _followed(method.llm(layer, state, probe, context), visual, left, layer)
        probe.inputs[layer] = state
        kept.append(state.alive.shape[1])
        lengths.append(state.hidden.shape[1])
        hidden = block(
            state.hidden,
            attention_mask=_mask(method.compute(layer, state, context), state),
            position_embeddings=language(model).rotary_emb(state.hidden, state.positions),
            past_key_values=cache,
        )
        state = replace(state, hidden=hidden)
    ends = state.hidden[torch.arange(len(asked)), state.last]
    logits = model.torch.lm_head(language(model).norm(ends))
    work = _work(model, visual.tokens.shape[1], lengths, vit.units, method.own_work(model, context))
    following = state.positions[torch.arange(len(asked)), state.last] + 1
    return Reading(logits, tuple(kept), visual.source, left, context.scores, work, state, cache, following)


def _sequence(model: VisionLanguageModel, visual: Visual, asked: list[list[int]], count: int, positions: str) -> State:
    """Opening, visual tokens and question; shorter questions are filled up on the right, where nobody looks back."""
    embed = language(model).embed_tokens
    rows, longest = len(asked), max(map(len, asked))
    ids = torch.tensor([question + [0] * (longest - len(question)) for question in asked])
    opening = torch.tensor(model.opening).expand(rows, -1)
    hidden = torch.cat((embed(opening), visual.tokens, embed(ids)), 1)
    start, n = len(model.opening), visual.tokens.shape[1]
    behind = start + (count if positions == "keep" else n)
    places = torch.cat(
        (
            torch.arange(start).expand(rows, -1),
            start + visual.positions,
            behind + torch.arange(longest).expand(rows, -1),
        ),
        1,
    )
    last = torch.tensor([start + n + len(question) - 1 for question in asked])
    return State(hidden, places, start, torch.arange(n).expand(rows, -1), last)


def _not_in(visual: Visual) -> Tensor:
    return torch.where(visual.source < 0, 0, -1)


def _followed(state: State, visual: Visual, left: Tensor, layer: int) -> State:
    """Notes in `left` which patches have gone with the tokens that the method removed."""
    n = visual.tokens.shape[1]
    if state.alive.shape[1] < n:
        alive = torch.zeros(len(left), n, dtype=torch.bool).scatter(1, state.alive, True)
        inside = visual.source >= 0
        gone = inside & ~alive.gather(1, visual.source.clamp(min=0)) & (left == -1)
        left[gone] = layer
    return state


def _mask(extra: Tensor | None, state: State) -> Tensor:
    """Additive, (1 or B, 1 or heads, S, S): causal, and what the method forbids."""
    length = state.hidden.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    if extra is not None:
        allowed = allowed & extra
    return torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))


def _new_cache(model: VisionLanguageModel):
    from transformers import DynamicCache

    return DynamicCache(config=language(model).config)


@torch.no_grad()
def generate(model: VisionLanguageModel, reading: Reading, new_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy answer of a reading of one picture: ids up to an end, and the probability of each.

    Every layer goes on with the keys and values of the tokens that it was left with."""
    logits, position, ids, sure = reading.logits, reading.next_position, [], []
    for step in range(new_tokens):
        guard.check_time()
        probability, best = logits[0].softmax(-1).max(0)
        ids.append(int(best))
        sure.append(float(probability))
        if int(best) in model.end or step + 1 == new_tokens:
            break
        hidden = language(model).embed_tokens(best.view(1, 1))
        rotary = language(model).rotary_emb(hidden, position[:, None])
        for block in language(model).layers:
            hidden = block(hidden, attention_mask=None, position_embeddings=rotary, past_key_values=reading.cache)
        logits, position = model.torch.lm_head(language(model).norm(hidden[:, -1])), position + 1
    return ids, sure


def answer_text(model: VisionLanguageModel, ids: Sequence[int]) -> str:
    """Generated ids as text, without the end."""
    import numpy as np

    return model.tokenizer.decode(np.array([i for i in ids if i not in model.end], np.int64)).strip()


# --- what it costs

FORMULA = (
    "Multiply-adds of a layer of the language model with $n$ tokens, width $d$, SwiGLU width $m$ and keys and values "
    "of width $d_{kv}$: $2nd^2 + 2ndd_{kv} + 2n^2d + 3ndm$; of the encoder: $4nd^2 + 2n^2d + 2ndm$ and its "
    "patch embedding; of the projector: $n(d_v d + d^2)$. Text tokens count."
)


def _work(model: VisionLanguageModel, visual: int, lengths: list[int], units: int, own: int) -> Work:
    text, config = language(model).config, model.torch.config.vision_config
    d, m = text.hidden_size, text.intermediate_size
    heads = text.num_key_value_heads * language(model).layers[0].self_attn.head_dim
    llm = sum(2 * n * d * d + 2 * n * d * heads + 2 * n * n * d + 3 * n * d * m for n in lengths)
    dv, n = config.hidden_size, model.vision.grid**2 + model.vision.prefix
    layer = 4 * n * dv * dv + 2 * n * n * dv + 2 * n * dv * config.intermediate_size
    vit = units * (layer * config.num_hidden_layers + patch_embedding_work(model))
    return Work(vit, visual * (dv * d + d * d), llm, own)


def patch_embedding_work(model: VisionLanguageModel) -> int:
    """Multiply-adds of the encoder's convolutions on one picture: one of LLaVA, four of shapes-vlm."""
    total, side = 0, model.vision.size
    for layer in model.vision.torch.embeddings.patch_embedding.modules():
        if isinstance(layer, torch.nn.Conv2d):
            side //= layer.stride[0]
            total += side * side * layer.weight.numel()
    return total


def accuracy_of(reading: Reading, answers: Sequence[int]) -> Tensor:
    """Whether the likeliest next id is the answer's only one, (B,) bool."""
    return reading.logits.argmax(-1) == torch.tensor(list(answers))


def probability_of(reading: Reading, answers: Sequence[int]) -> Tensor:
    """The probability of the answer's id, (B,)."""
    return F.softmax(reading.logits, -1)[torch.arange(len(answers)), torch.tensor(list(answers))]
