"""Makes assets/models/shapes-vlm: a small LLaVA that answers questions about drawn scenes.

python recipes/shapes_vlm.py --work WORK                                       # train; can be stopped and resumed
python recipes/shapes_vlm.py --work WORK --export assets/models/shapes-vlm     # write the model, measure it

Everything is trained together, on scenes that never come twice. One row of the language model is a picture and a
dozen questions about it, which do not see each other: the picture is read once for all of them. Four losses:
answers (and a caption of the whole scene); the words for what is in a patch, read off its projected token through
the language model's own embeddings, which teaches the projector the vocabulary; colour, shape, size and digit of each
patch at the layer that goes to the projector; what the scene holds, read off the last [CLS].

The same computation as transformers' modules, written with fewer operations (see train_lm.py) and in bfloat16.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
import train_lm
from scipy.ndimage import gaussian_filter

from tokenlab.pruning import benchmark, policies, reduction, scenes, vlm

# Questions of a row and the tokens of each; what is shorter ends with unused ones.
SLOTS = (
    *(("exist", 6), ("exist", 6), ("exist", 6), ("color", 6), ("shape", 7), ("count", 6), ("count", 6)),
    *(("total", 6), ("where", 6), ("where", 6), ("digit", 5), ("size", 8), ("relation", 10), ("relation", 10)),
)
CAPTION = 4 * scenes.MOST + 1
KEPT = (18, 36, 72)  # patches that are left where some are dropped
PATCHES = scenes.GRID**2
SHAPE_WORDS, COLOR_WORDS, SIZE_WORDS = scenes.SHAPES, tuple(scenes.COLORS), ("small", "big")


@dataclass(frozen=True)
class Stage:
    """steps with at most `things` things in a scene. large_every: each so many-th step is of large scenes, read as a
    thumbnail and four crops; 0: none is. drop: share of the other steps in which the language model gets only some of
    the patches, or it takes what is missing for a scene without things. frozen: the encoder stays as it is. Trained
    with dropped patches it writes everything into all of them, and then it does not matter which are dropped."""

    steps: int
    things: int
    clutter: int
    large_every: int = 0
    drop: float = 0.0
    frozen: bool = False


@dataclass
class Plan:
    """Everything that a run depends on."""

    batch: int = 24
    large_batch: int = 6
    muon_rate: float = 0.005
    adam_rate: float = 1.5e-3
    warm_up: int = 60
    decay: float = 0.3
    seed: int = 0
    weights: dict[str, float] = field(
        default_factory=lambda: {"answer": 1.0, "caption": 0.3, "words": 0.3, "patch": 0.3, "cls": 0.3}
    )
    stages: tuple[Stage, ...] = (
        Stage(300, 2, 0),
        Stage(500, 3, 1),
        Stage(400, 4, 2),
        Stage(740, 6, 3),
        Stage(400, 6, 3, large_every=6, drop=0.6, frozen=True),
    )

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)


def stage_at(plan: Plan, step: int) -> Stage:
    for stage in plan.stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    return plan.stages[-1]


def is_large(plan: Plan, step: int) -> bool:
    every = stage_at(plan, step).large_every
    return every > 0 and step % every == 0


# --- data


class Words:
    """Words and ids."""

    def __init__(self):
        self.id = vlm.vocabulary()

    def __call__(self, text: str) -> list[int]:
        return [self.id[word] for word in text.split()]


@dataclass
class Batch:
    """pixels (B * units, 3, 96, 96); text (B, S) ids of all slots, the caption's last; target (B, S) the next id or
    -100; patch (B, 144, 4) shape, color, size, digit or -1; seen (B, 47) what the scene holds; of large scenes these
    two are empty. keep (B, n): the visual tokens that the language model gets."""

    pixels: torch.Tensor
    text: torch.Tensor
    target: torch.Tensor
    patch: torch.Tensor
    seen: torch.Tensor
    units: int
    keep: torch.Tensor


@cache
def layout(units: int, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the slots, and the mask (T, T) over <bos>, the kept patches and the slots: no slot sees another."""
    lengths = [length for _, length in SLOTS] + [CAPTION]
    behind = 1 + units * PATCHES
    positions = torch.tensor([behind + i for length in lengths for i in range(length)])
    part = torch.tensor([-1] * (1 + kept) + [i for i, length in enumerate(lengths) for _ in range(length)])
    index = torch.arange(len(part))
    allowed = (index[:, None] >= index) & ((part == -1) | (part[:, None] == part))
    return positions, torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf")).to(torch.bfloat16)


def kept_patches(plan: Plan, step: int, rows: int, units: int) -> np.ndarray:
    """Which visual tokens each row keeps, (rows, n): all, or in some steps those that a random field is highest at,
    sometimes smooth and sometimes not, so that they come scattered as well as in clusters."""
    rng = np.random.default_rng((plan.seed, step, 3))
    if units > 1 or rng.random() >= stage_at(plan, step).drop:
        return np.broadcast_to(np.arange(units * PATCHES), (rows, units * PATCHES)).copy()
    count, found = KEPT[rng.integers(len(KEPT))], []
    for _ in range(rows):
        noise = rng.random((scenes.GRID, scenes.GRID))
        smooth = gaussian_filter(rng.random((scenes.GRID, scenes.GRID)), 1.5, mode="wrap")
        field = noise + rng.choice((0.0, 6.0)) * smooth
        found.append(np.sort(np.argsort(field.reshape(-1))[-count:]))
    return np.stack(found)


def make_batch(words: Words, plan: Plan, step: int) -> Batch:
    stage, large = stage_at(plan, step), is_large(plan, step)
    rows = plan.large_batch if large else plan.batch
    size = sum(length for _, length in SLOTS) + CAPTION
    pixels, text = [], np.full((rows, size), words.id[vlm.PAD], np.int64)
    target = np.full((rows, size), -100, np.int64)
    patch, seen = np.full((rows, PATCHES, 4), -1, np.int64), np.zeros((rows, 47), np.float32)
    for row in range(rows):
        seed = scenes.TRAIN + (plan.seed << 28) + step * plan.batch + row
        one = scenes.large(seed) if large else scenes.scene(seed, (1, stage.things), stage.clutter)
        pixels.append(scenes.crops(one) if large else one.pixels[None])
        write_text(one, words, np.random.default_rng((seed, 1)), text[row], target[row])
        if not large:
            describe(one, patch[row], seen[row])
    tensors = map(torch.from_numpy, (text, target, patch, seen))
    units = 5 if large else 1
    keep = torch.from_numpy(kept_patches(plan, step, rows, units))
    return Batch(vlm.normalised(np.concatenate(pixels)), *tensors, units, keep)


def write_text(one: scenes.Scene, words: Words, rng: np.random.Generator, text: np.ndarray, target: np.ndarray) -> None:
    at = 0
    for kind, length in SLOTS:
        question = scenes.ask(one, kind, rng)
        if question is not None:
            ids = words(question.text)
            text[at : at + len(ids)] = ids
            target[at + len(ids) - 1] = words.id[question.answer]
        at += length
    if one.side > scenes.SIDE:
        return  # more things than the caption has room for
    ids = words(f"describe {scenes.caption(one)}") + [words.id[vlm.END]]
    text[at : at + len(ids) - 1] = ids[:-1]
    target[at : at + len(ids) - 1] = ids[1:]


def describe(one: scenes.Scene, patch: np.ndarray, seen: np.ndarray) -> None:
    """Labels per patch (144, 4) and of the whole scene (47,)."""
    best = np.full(PATCHES, 0.2)
    for index, thing in enumerate(one.things):
        shape, color = SHAPE_WORDS.index(thing.shape), COLOR_WORDS.index(thing.color)
        cover = one.cover(index).reshape(-1)
        own = cover > np.minimum(best, cover.max() - 1e-6)
        best = np.maximum(best, cover)
        patch[own, :3] = shape, color, SIZE_WORDS.index(thing.size)
        seen[6 * shape + color] = 1
    if one.digit is not None:
        tag = list(one.patches((), digit=True))
        patch[tag, 3] = one.digit.value
        seen[30 + one.digit.value] = 1
    seen[40 + len(one.things)] = 1


# --- model


class Heads(torch.nn.Module):
    """Linear readers used in training only: of every patch and of [CLS]."""

    def __init__(self, width: int):
        super().__init__()
        self.patch = torch.nn.Linear(width, 6 + 7 + 3 + 11)  # one more each: nothing
        self.scene = torch.nn.Linear(width, 47)


def vit_block(h, norm1, bias1, qkv, qkv_bias, out, out_bias, norm2, bias2, fc1, fc1_bias, fc2, fc2_bias, heads: int):
    """One layer of the image encoder. h: (B, N, d)."""
    rows, length, size = h.shape
    width = size // heads
    mixed = F.linear(F.layer_norm(h, (size,), norm1, bias1, 1e-5), qkv, qkv_bias).view(rows, length, 3, heads, width)
    q, k, v = (part.transpose(1, 2).reshape(rows * heads, length, width) for part in mixed.unbind(2))
    attention = (torch.bmm(q, k.transpose(1, 2)) * width**-0.5).softmax(-1)
    mixed = torch.bmm(attention, v).view(rows, heads, length, width).transpose(1, 2)
    h = h + F.linear(mixed.reshape(rows, length, size), out, out_bias)
    inner = F.gelu(F.linear(F.layer_norm(h, (size,), norm2, bias2, 1e-5), fc1, fc1_bias))
    return h + F.linear(inner, fc2, fc2_bias)


fast_vit_block = torch.compile(vit_block, dynamic=False)


def half_weights(model) -> dict[str, torch.Tensor]:
    """bfloat16 copies by name, differentiable; query, key and value as one matrix, gate and up as one."""
    w = {name.removeprefix("model."): p.to(torch.bfloat16) for name, p in model.named_parameters()}
    for i in range(model.config.vision_config.num_hidden_layers):
        at = f"vision_tower.encoder.layers.{i}."
        for part in ("weight", "bias"):
            w[f"{at}qkv.{part}"] = torch.cat([w[f"{at}self_attn.{x}_proj.{part}"] for x in "qkv"])
    for i in range(model.config.text_config.num_hidden_layers):
        at = f"language_model.layers.{i}."
        w[at + "qkv"] = torch.cat([w[f"{at}self_attn.{part}_proj.weight"] for part in "qkv"])
        w[at + "gate_up"] = torch.cat([w[f"{at}mlp.{part}_proj.weight"] for part in ("gate", "up")])
    return w


def encode(model, w: dict, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Patch features (B, 144, d) that go to the projector, and the [CLS] of the last layer (B, d)."""
    config, at = model.config.vision_config, "vision_tower."
    tower = model.model.vision_tower
    with torch.autocast("cpu", torch.bfloat16):
        h = tower.embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2).to(torch.bfloat16)
    h = torch.cat((w[at + "embeddings.class_embedding"].expand(len(h), 1, -1), h), 1)
    h = h + w[at + "embeddings.position_embedding.weight"]
    h = F.layer_norm(h, h.shape[-1:], w[at + "pre_layrnorm.weight"], w[at + "pre_layrnorm.bias"], 1e-5)
    layers = config.num_hidden_layers
    feature = layers + 1 + model.config.vision_feature_layer  # an index into the hidden states
    for i in range(layers):
        if i == feature:
            patches = h[:, 1:]
        names = "layer_norm1 qkv self_attn.out_proj layer_norm2 mlp.fc1 mlp.fc2".split()
        parts = [w[f"{at}encoder.layers.{i}.{name}.{part}"] for name in names for part in ("weight", "bias")]
        h = fast_vit_block(h, *parts, config.num_attention_heads)
    return patches, h[:, 0]


def losses(model, heads: Heads, batch: Batch, words: Words, frozen: bool = False) -> dict[str, torch.Tensor]:
    """The losses, each a mean; of large scenes only that of the answers, of a frozen encoder none of its own."""
    w = half_weights(model)
    slots, mask = layout(batch.units, batch.keep.shape[1])
    with torch.set_grad_enabled(not frozen):
        patches, cls = encode(model, w, batch.pixels)
    projected = F.gelu(
        F.linear(patches, w["multi_modal_projector.linear_1.weight"], w["multi_modal_projector.linear_1.bias"])
    )
    projected = F.linear(
        projected, w["multi_modal_projector.linear_2.weight"], w["multi_modal_projector.linear_2.bias"]
    )
    table = w["language_model.embed_tokens.weight"]
    opening = table[words.id[vlm.BOS]].expand(len(batch.text), 1, -1)
    visual = projected.reshape(len(batch.text), -1, projected.shape[-1])
    rows = len(batch.text)
    positions = torch.cat((torch.zeros(rows, 1), 1 + batch.keep, slots.expand(rows, -1)), 1)
    if batch.keep.shape[1] < visual.shape[1]:
        visual = visual.gather(1, batch.keep[..., None].expand(-1, -1, visual.shape[-1]))
    else:
        positions = positions[:1]  # the same in all rows
    h = torch.cat((opening, visual, F.embedding(batch.text, table)), 1)
    text = model.config.text_config
    cos, sin = train_lm.rotary(positions, text.hidden_size // text.num_attention_heads)
    for i in range(text.num_hidden_layers):
        at = f"language_model.layers.{i}."
        norms = w[at + "input_layernorm.weight"], w[at + "post_attention_layernorm.weight"]
        out, down = w[at + "self_attn.o_proj.weight"], w[at + "mlp.down_proj.weight"]
        h = train_lm.fast_block(
            h, norms[0], w[at + "qkv"], out, norms[1], w[at + "gate_up"], down, cos, sin, mask, text.num_attention_heads
        )
    h = F.rms_norm(h[:, 1 + visual.shape[1] :], h.shape[-1:], w["language_model.norm.weight"], 1e-5)
    logits = F.linear(h, w["lm_head.weight"]).float()
    every = F.cross_entropy(logits.flatten(0, 1), batch.target.flatten(), reduction="none", ignore_index=-100)
    every = every.view(batch.target.shape)
    known, split = batch.target != -100, batch.target.shape[1] - CAPTION
    right = (logits.argmax(-1) == batch.target)[:, :split].detach()
    found = {"answer": every[:, :split].sum() / known[:, :split].sum(), "right": right, "known": known[:, :split]}
    if batch.units > 1:
        return found
    found["caption"] = every[:, split:].sum() / known[:, split:].sum()
    found["words"] = words_loss(projected.float(), table.float(), batch.patch, words)
    if frozen:
        return found
    return found | {
        "patch": patch_loss(heads.patch(patches.float()), batch.patch),
        "cls": cls_loss(heads.scene(cls.float()), batch.seen),
    }


def words_loss(projected: torch.Tensor, table: torch.Tensor, patch: torch.Tensor, words: Words) -> torch.Tensor:
    """A patch's token, normalised, against the embeddings of the words for shape, colour, size and digit."""
    projected = F.rms_norm(projected, projected.shape[-1:])
    total = projected.new_zeros(())
    for k, names in enumerate((SHAPE_WORDS, COLOR_WORDS, SIZE_WORDS, tuple("0123456789"))):
        own = patch[..., k] >= 0
        if own.any():
            logits = projected[own] @ table[[words.id[name] for name in names]].T
            total = total + F.cross_entropy(logits, patch[..., k][own])
    return total / 4


def patch_loss(logits: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    total = logits.new_zeros(())
    for part, k in zip(logits.split((6, 7, 3, 11), -1), range(4), strict=True):
        label = torch.where(patch[..., k] >= 0, patch[..., k], part.shape[-1] - 1)
        weight = torch.ones(part.shape[-1])
        weight[-1] = 0.1  # most patches show nothing
        total = total + F.cross_entropy(part.flatten(0, 1), label.flatten(), weight)
    return total / 4


def cls_loss(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    pairs = F.binary_cross_entropy_with_logits(logits[:, :30], seen[:, :30], pos_weight=torch.tensor(4.0))
    has_digit = seen[:, 30:40].sum(1) > 0
    digit = F.cross_entropy(logits[has_digit, 30:40], seen[has_digit, 30:40].argmax(1)) if has_digit.any() else 0.0
    return pairs + 0.3 * digit + 0.3 * F.cross_entropy(logits[:, 40:], seen[:, 40:].argmax(1))


# --- training


def new_model(plan: Plan):
    torch.manual_seed(plan.seed)
    model = vlm.new(vlm.CONFIG)
    depth = model.config.text_config.num_hidden_layers
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight")):
                weight /= (2 * depth) ** 0.5
    return model, Heads(model.config.vision_config.hidden_size)


def train(plan: Plan, work: Path, minutes: float) -> None:
    """Trains all stages, at most `minutes` in this process; logs to work/log.jsonl, keeps work/checkpoint.pt."""
    work.mkdir(parents=True, exist_ok=True)
    model, heads = new_model(plan)
    both = torch.nn.ModuleDict({"model": model, "heads": heads})
    words, step, spent, state = Words(), 0, 0.0, None
    path = work / "checkpoint.pt"
    if path.exists():
        state = torch.load(path)
        both.load_state_dict(state["model"])
        step, spent = state["step"], state["seconds"]
    frozen, optimizer = None, None
    before, began, saved = spent, time.monotonic(), time.monotonic()
    while step < plan.steps and time.monotonic() - began < 60 * minutes:
        scale = min(1.0, (step + 1) / plan.warm_up, (1 - step / plan.steps) / plan.decay + 0.02)
        if stage_at(plan, step).frozen != frozen:
            frozen = stage_at(plan, step).frozen
            optimizer = train_lm.Optimizer(trained(model, heads, frozen), plan)
            if state is not None and state["frozen"] == frozen:
                optimizer.load(state["optimizer"])
        found = losses(model, heads, make_batch(words, plan, step), words, frozen)
        loss = sum(weight * found[name] for name, weight in plan.weights.items() if name in found)
        both.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step(scale)
        step, spent = step + 1, before + time.monotonic() - began
        if step % 20 == 0 and not is_large(plan, step - 1):
            entry = {"step": step, "seconds": round(spent, 1), "things": stage_at(plan, step - 1).things}
            entry |= {name: round(found[name].item(), 3) for name in plan.weights if name in found}
            entry |= by_kind(found["right"], found["known"])
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
        if time.monotonic() - saved > 120:
            saved = time.monotonic()
            save(path, both, optimizer, plan, step, spent, frozen)
    save(path, both, optimizer, plan, step, spent, frozen)


def trained(model, heads: Heads, frozen: bool) -> torch.nn.Module:
    """The parts that learn."""
    if not frozen:
        return torch.nn.ModuleDict({"model": model, "heads": heads})
    parts = {"language": model.model.language_model, "projector": model.model.multi_modal_projector}
    return torch.nn.ModuleDict(parts | {"head": model.lm_head})


def by_kind(right: torch.Tensor, known: torch.Tensor) -> dict[str, float]:
    hits, asked, at = dict.fromkeys(scenes.KINDS, 0), dict.fromkeys(scenes.KINDS, 0), 0
    for kind, length in SLOTS:
        hits[kind] += int(right[:, at : at + length].sum())
        asked[kind] += int(known[:, at : at + length].sum())
        at += length
    return {kind: round(hits[kind] / max(1, asked[kind]), 2) for kind in scenes.KINDS}


def save(path: Path, both, optimizer, plan: Plan, step: int, seconds: float, frozen: bool) -> None:
    state = {"model": both.state_dict(), "optimizer": optimizer.state(), "plan": asdict(plan)}
    torch.save(state | {"step": step, "seconds": seconds, "frozen": frozen}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


# --- the model's folder


def export(plan: Plan, work: Path, folder: Path) -> dict:
    """The newest checkpoint as config.json, model.safetensors (float16), tokenizer.json; gives the checkpoint."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = torch.load(work / "checkpoint.pt")
    model, heads = new_model(plan)
    torch.nn.ModuleDict({"model": model, "heads": heads}).load_state_dict(state["model"])
    weights = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "stem": "convolutions"}
    (folder / "config.json").write_text(json.dumps(config | vlm.CONFIG, indent=2) + "\n")
    (folder / "tokenizer.json").write_text(json.dumps(vlm.tokenizer_json(), indent=1) + "\n")
    return state


TOLD = 6000  # training scenes whose questions the text-only reader has seen


def text_only(items: benchmark.Items) -> np.ndarray:
    """What can be got without any picture: to each question the answer most frequent in training for the same words,
    and for words that never came the most frequent of the kind. (n,) bool: right."""
    same, alike = defaultdict(Counter), defaultdict(Counter)
    for seed in range(TOLD):
        one = scenes.scene(scenes.TRAIN + seed, (1, scenes.MOST))
        rng = np.random.default_rng((seed, 2))
        for kind, _ in SLOTS:
            question = scenes.ask(one, kind, rng)
            if question is not None:
                same[question.text][question.answer] += 1
                alike[kind][question.answer] += 1
    guesses = ((same.get(q.text) or alike[q.kind]).most_common(1)[0][0] for q in items.questions)
    return np.array([guess == q.answer for guess, q in zip(guesses, items.questions, strict=True)])


CHOICES = {
    "exist": 2,
    "color": 6,
    "shape": 5,
    "count": 7,
    "total": 7,
    "where": 9,
    "digit": 10,
    "size": 2,
    "relation": 2,
}


def measure(folder: Path, work: Path) -> dict:
    """Accuracy by kind on scenes never trained on, beside a guess, the text alone and large scenes."""
    model = vlm.load_folder(folder)
    items = benchmark.asked(benchmark.SCENES, benchmark.SEED)
    right = benchmark.score(model, benchmark.encoded(model, items), policies.FULL, None, items).right
    blind, large = text_only(items), of_large(model, 150)
    found = {"parameters": sum(p.numel() for p in model.torch.parameters()), "kinds": {}}
    for kind in (*scenes.KINDS, "all"):
        own = (items.kinds == kind) | (kind == "all")
        found["kinds"][kind] = {
            "n": int(own.sum()),
            "model": float(right[own].mean()),
            "text": float(blind[own].mean()),
            "chance": 1 / CHOICES[kind] if kind != "all" else float(np.mean([1 / CHOICES[k] for k in items.kinds])),
            "large": float(np.mean([hit for k, hit in large if kind in (k, "all")])),
        }
    (work / "measured.json").write_text(json.dumps(found, indent=1))
    return found


def of_large(model, n: int) -> list[tuple[str, bool]]:
    """Kind and whether it was right, of all questions about n large scenes."""
    found, known = [], vlm.vocabulary()
    for seed in np.random.default_rng(benchmark.SEED).integers(0, 2**31, n):
        one = scenes.large(int(seed))
        asked = scenes.questions(one)
        vit = reduction.encode(model, model.vision.pixels(scenes.crops(one))[None])
        for question in asked:
            out = reduction.read(model, vit, [question.text], reduction.TokenReduction(), PATCHES)
            found.append((question.kind, bool(reduction.accuracy_of(out, [known[question.answer]])[0])))
    return found


def write_card(folder: Path, plan: Plan, work: Path, found: dict, seconds: float, steps: int) -> None:
    lines = map(json.loads, (work / "log.jsonl").read_text().splitlines())
    log = list({entry["step"]: entry for entry in lines}.values())  # a resumed run does some steps again
    each, curve = max(1, len(log) // 14), []
    for start in range(0, len(log), each):
        part = log[start : start + each]
        cells = [f"{part[-1]['step']:,}", str(part[-1]["things"])]
        for name in plan.weights:
            values = [e[name] for e in part if name in e]
            cells.append(f"{np.mean(values):.2f}" if values else "")
        cells += [f"{100 * np.mean([e[kind] for e in part]):.0f}" for kind in scenes.KINDS]
        curve.append("| " + " | ".join(cells) + " |")
    rows = [
        f"| {kind} | {row['n']:,} | {row['model']:.0%} | {row['text']:.0%} | {row['chance']:.0%} | {row['large']:.0%} |"
        for kind, row in found["kinds"].items()
    ]
    whole = found["kinds"]["all"]
    weak = [k for k, row in found["kinds"].items() if row["model"] < row["text"] + 0.15]
    verdict = (
        f"**{whole['model']:.0%} of the questions are answered rightly** (aim: 85 %, "
        f"{'met' if whole['model'] >= 0.85 else 'not met'}); the text alone gets {whole['text']:.0%}. "
        + (f"Not well above the text alone: {', '.join(weak)}." if weak else "Every kind is well above the text alone.")
    )
    stages = ", ".join(
        f"{stage.steps:,} with up to {stage.things} things"
        + (
            f" (each {stage.large_every}th of large scenes, {stage.drop:.0%} of the others with dropped patches, "
            "the encoder frozen)"
        )
        * bool(stage.large_every)
        for stage in plan.stages
    )
    text = Path(__file__).with_suffix(".md").read_text("utf-8")
    facts = {
        "verdict": verdict,
        "parameters": f"{found['parameters']:,}",
        "steps": f"{steps:,}",
        "minutes": f"{seconds / 60:.0f}",
        "stages": stages,
        "batch": plan.batch,
        "questions": len(SLOTS),
        "rows": "\n".join(rows),
        "curve": "\n".join(curve),
        "each": each,
        "kinds": " | ".join(scenes.KINDS),
        "dashes": " --- |" * (7 + len(scenes.KINDS)),
        "words": len(scenes.words()),
    }
    (folder / "card.md").write_text(text.format(**facts), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long; the next call goes on")
    parser.add_argument("--export", type=Path, help="write the newest checkpoint and its card here")
    options = parser.parse_args()
    if options.export:
        state = export(Plan(), options.work, options.export)
        measured = measure(options.export, options.work)
        write_card(options.export, Plan(), options.work, measured, state["seconds"], state["step"])
        print(json.dumps(measured, indent=1))
    else:
        train(Plan(), options.work, options.minutes)
