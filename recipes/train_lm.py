"""Trains the small language models on story worlds and natural English. Used by tinylm.py and bytelm.py.

The weights live in a plain LlamaForCausalLM (float32); each step computes in bfloat16 through `weighted_loss`, which
is the same network written with fewer operations, because on a CPU thin layers spend most of their time on small
elementwise steps. Hidden matrices are trained with Muon (Jordan et al. 2024), the rest with AdamW.

Deterministic: batch and learning rate depend only on the step and the seed. Resumable: the newest checkpoint in
--work is taken up. The rate warms up, stays constant, and falls linearly over the last steps (WSD).
"""

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import model_card
import numpy as np
import torch
import torch.nn.functional as F
from text_data import natural_text
from tokenizers import Tokenizer

from tokenlab import stories

SPECIAL = ("<s>", "</s>", "<pad>")  # ids 0, 1, 2


@dataclass(frozen=True)
class Stage:
    """Part of a run. Short rows and small steps first, because recall is learned there much sooner.

    row: tokens of a row; tokens: of a step. natural: share of rows that are natural text; twice: share of rows that
    say a passage again, which teaches to look back before any question can be answered. apart: most stories have
    facts of one kind or two only, because a model that has learned which sort of word answers a question must still
    learn which one of them."""

    steps: int
    row: int
    tokens: int
    natural: float = 0.25
    twice: float = 0.05
    apart: bool = False


@dataclass
class Plan:
    """Everything that a run depends on."""

    hidden: int = 192
    layers: int = 12
    heads: int = 4
    inner: int = 352
    vocab: int = 4096
    context: int = 1024
    muon_rate: float = 0.005
    adam_rate: float = 1.5e-3
    warm_up: int = 40
    decay: float = 0.25  # share of all steps over which the rate falls to nearly nothing
    seed: int = 0
    chars_per_token: float = 3.4
    answer_weight: float = 8.0  # in the loss, against 1 of other tokens
    choice_weight: float = 24.0  # of an answer's first token, which chooses among the facts
    stages: tuple[Stage, ...] = (
        Stage(2700, 64, 2048, twice=0.2),
        Stage(942, 128, 4096, twice=0.1),
        Stage(1400, 96, 2016, apart=True),
        Stage(19, 128, 4096, apart=True),
        Stage(4000, 128, 2048, natural=0.15, twice=0.02, apart=True),
        Stage(3000, 256, 2048, twice=0.02, apart=True),
        Stage(223, 1024, 4096, twice=0.02, apart=True),
    )
    cases: int = 30  # questions per kind and distance that the card reports
    # for the card
    vocabulary: str = "a byte-level BPE with 4,096 entries"
    recall_aim: bool = True
    tried: str = ""


def new_model(plan: Plan):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=plan.vocab,
        hidden_size=plan.hidden,
        intermediate_size=plan.inner,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=plan.context,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        rms_norm_eps=1e-5,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight /= (2 * plan.layers) ** 0.5
    return model


def rotary(positions: torch.Tensor, width: int, base: float = 10000.0) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and signed sin (rows, length, 1, width) of rotary positions (rows, length), halves layout as in Llama."""
    angles = positions[..., None] * base ** (-torch.arange(0, width, 2) / width)
    cos, sin = angles.cos(), angles.sin()
    pack = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    return tuple(part[:, :, None].to(torch.bfloat16) for part in pack)


def block(h, norm1, qkv, out, norm2, gate_up, down, cos, sin, mask, heads: int):
    """One layer of the network. h: (B, T, d); qkv: (3d, d); gate_up: (2 inner, d); mask: (T, T), -inf above."""
    rows, length, size = h.shape
    width = size // heads
    mixed = F.linear(F.rms_norm(h, (size,), norm1, 1e-5), qkv).view(rows, length, 3 * heads, width)
    qk, v = mixed[:, :, : 2 * heads], mixed[:, :, 2 * heads :]
    qk = qk * cos + torch.cat((qk[..., width // 2 :], qk[..., : width // 2]), -1) * sin
    q, k = (part.transpose(1, 2).reshape(rows * heads, length, width) for part in qk.split(heads, 2))
    v = v.transpose(1, 2).reshape(rows * heads, length, width)
    attention = (torch.bmm(q, k.transpose(1, 2)) * width**-0.5 + mask).softmax(-1)
    mixed = torch.bmm(attention, v).view(rows, heads, length, width).transpose(1, 2)
    h = h + F.linear(mixed.reshape(rows, length, size), out)
    gate, up = F.linear(F.rms_norm(h, (size,), norm2, 1e-5), gate_up).chunk(2, -1)
    return h + F.linear(F.silu(gate) * up, down)


def token_losses(h, norm, head, y):
    """Loss of each next token y (B, T) from the last layer's h (B, T, d)."""
    logits = F.linear(F.rms_norm(h, h.shape[-1:], norm, 1e-5), head)
    return F.cross_entropy(logits.view(-1, head.shape[0]).float(), y.reshape(-1), reduction="none")


# compiled once per row length: fusing the elementwise steps is worth about as much as the matrix products cost
fast_block = torch.compile(block, dynamic=False)
fast_losses = torch.compile(token_losses, dynamic=False)


def weighted_loss(w: dict, plan: Plan, x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor):
    """Mean loss of next tokens y (B, T) given x (B, T), each weighted, and the losses; w: bfloat16 weights by name."""
    cos, sin = rotary(torch.arange(x.shape[1])[None], plan.hidden // plan.heads)
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=torch.bfloat16).triu(1)
    h = F.embedding(x, w["model.embed_tokens.weight"])
    for i in range(plan.layers):
        at = f"model.layers.{i}."
        norms = w[at + "input_layernorm.weight"], w[at + "post_attention_layernorm.weight"]
        out, down = w[at + "self_attn.o_proj.weight"], w[at + "mlp.down_proj.weight"]
        h = fast_block(h, norms[0], w[at + "qkv"], out, norms[1], w[at + "gate_up"], down, cos, sin, mask, plan.heads)
    losses = fast_losses(h, w["model.norm.weight"], w["lm_head.weight"], y)
    return (losses * weight.reshape(-1)).sum() / weight.sum(), losses.detach()


def half_weights(model, plan: Plan) -> dict[str, torch.Tensor]:
    """bfloat16 copies by name, differentiable; query, key and value as one matrix, gate and up as one."""
    w = {name: p.to(torch.bfloat16) for name, p in model.named_parameters()}
    for i in range(plan.layers):
        at = f"model.layers.{i}."
        w[at + "qkv"] = torch.cat([w[f"{at}self_attn.{part}_proj.weight"] for part in "qkv"])
        w[at + "gate_up"] = torch.cat([w[f"{at}mlp.{part}_proj.weight"] for part in ("gate", "up")])
    return w


class Optimizer:
    """Muon for the matrices of the layers, AdamW for embeddings, head and norms."""

    def __init__(self, model, plan: Plan):
        named = dict(model.named_parameters())
        hidden = {k: p for k, p in named.items() if p.ndim == 2 and "layers" in k}
        self.groups: dict[tuple, list] = {}
        for p in hidden.values():
            self.groups.setdefault(tuple(p.shape), []).append(p)
        self.momentum = {shape: torch.zeros(len(ps), *shape) for shape, ps in self.groups.items()}
        rest = [p for k, p in named.items() if k not in hidden]
        self.adam = torch.optim.AdamW(rest, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.01)
        self.plan = plan

    def step(self, scale: float) -> None:
        for shape, parameters in self.groups.items():
            buffer = self.momentum[shape]
            gradient = torch.stack([p.grad for p in parameters])
            buffer.mul_(0.95).add_(gradient)
            update = orthogonal(gradient + 0.95 * buffer) * max(1.0, shape[0] / shape[1]) ** 0.5
            with torch.no_grad():
                for p, change in zip(parameters, update, strict=True):
                    p.mul_(1 - scale * self.plan.muon_rate * 0.05).sub_(change, alpha=scale * self.plan.muon_rate)
        for group in self.adam.param_groups:
            group["lr"] = self.plan.adam_rate * scale
        self.adam.step()

    def state(self) -> dict:
        return {"momentum": self.momentum, "adam": self.adam.state_dict()}

    def load(self, state: dict) -> None:
        self.momentum = state["momentum"]
        self.adam.load_state_dict(state["adam"])


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrices (N, a, b), roughly: five Newton-Schulz steps in bfloat16 (Muon)."""
    x = matrices.to(torch.bfloat16)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2).contiguous()
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Rows:
    """Batches of rows (B, T + 1) of ids with a weight per id; the same for the same seed and step."""

    def __init__(self, tokenizer, plan: Plan, data: Path):
        self.tokenizer, self.plan = tokenizer, plan
        documents = tokenizer.encode_batch_fast(natural_text(data, "train"))
        self.natural = np.concatenate([np.array([0, *doc.ids, 1], np.int32) for doc in documents])

    def story(self, rng: random.Random, length: int, apart: bool) -> tuple[list[int], list[float]]:
        most = int(length * self.plan.chars_per_token)
        if apart and rng.random() < 0.8:
            chars, kinds, ask = rng.randint(most * 2 // 3, most), rng.choice((1, 1, 2)), rng.choice(("end", "along"))
            facts = max(2, min(stories.MAX_FACTS, round(chars / rng.uniform(100, 130))))
        else:
            chars, kinds = rng.randint(min(150, most), most), None
            facts = max(1, min(stories.MAX_FACTS, round(chars / rng.uniform(75, 180))))
            ask = rng.choice(("end", "along"))
        made = stories.story(rng.randrange(2**40), "train", chars, facts, ask, kinds)
        code = self.tokenizer.encode(made.text)
        weights = [1.0] * len(code.ids)
        for question in made.questions:
            first, last = code.char_to_token(question.answer_span[0]), code.char_to_token(question.answer_span[1] - 1)
            weights[first : last + 1] = [self.plan.answer_weight] * (last + 1 - first)
            weights[first] = self.plan.choice_weight
        return [0, *code.ids, 1], [0.0, *weights, 1.0]

    def passage(self, rng: random.Random, length: int) -> tuple[list[int], list[float]]:
        """Natural text from anywhere, half of the time behind <s>, or <s> would promise a story."""
        start = rng.randrange(len(self.natural) - length)
        ids = self.natural[start : start + length].tolist()
        return ([0, *ids[1:]] if rng.random() < 0.5 else ids), [1.0] * length

    def twice(self, rng: random.Random, length: int, apart: bool) -> tuple[list[int], list[float]]:
        """A piece of natural text or the beginning of a story, said twice; half weight the first time."""
        half = rng.randint(length // 4, length // 2)
        ids, weights = self.passage(rng, half) if rng.random() < 0.5 else self.story(rng, half, apart)
        ids = ids[:half]
        return ids + ids, [0.5] * len(ids) + [1.5] * len(ids)

    def batch(self, step: int, stage: Stage) -> tuple[torch.Tensor, torch.Tensor]:
        rng = random.Random(f"{self.plan.seed} rows {step}")
        length, ids, weights = stage.row, [], []
        for _ in range(stage.tokens // length):
            kind, row, weight = rng.random(), [], []
            while len(row) < length + 1:
                if kind < stage.natural:
                    more, w = self.passage(rng, length + 1)
                elif kind < stage.natural + stage.twice:
                    more, w = self.twice(rng, length, stage.apart)
                else:
                    more, w = self.story(rng, length, stage.apart)
                row += more
                weight += w
            ids.append(row[: length + 1])
            weights.append(weight[: length + 1])
        return torch.tensor(ids), torch.tensor(weights)


def recall(model, tokenizer, split: str, n: int, tokens: tuple[int, ...], chars: float) -> list[dict]:
    """Questions answered by the model, most likely token at each step of the answer, one row per kind and distance.

    distance: the aim in tokens (`chars` characters each); mean_distance: what it was. chance: a guess among the
    answers of that kind in the story.
    """
    rows = []
    for kind in stories.KINDS:
        for aim in tokens:
            right, chance, distances = 0, 0.0, []
            for seed in range(1000 * aim, 1000 * aim + n):  # other stories at each distance
                case = stories.recall_case(seed, kind, split, int(aim * chars))
                question = case.questions[0]
                code = tokenizer.encode(case.text)
                first, last = stories.token_span(code.offsets, question.answer_span)
                ids = torch.tensor([[0, *code.ids]])
                with torch.no_grad():
                    guess = model(ids[:, :-1]).logits[0].argmax(-1)
                right += bool((guess[first:last] == ids[0, first + 1 : last + 1]).all())
                chance += 1 / len(question.candidates)
                distances.append(question.token_distance(code.offsets))
            row = {"kind": kind, "distance": aim, "mean_distance": sum(distances) / n, "n": n}
            rows.append(row | {"recall": right / n, "chance": chance / n})
    return rows


def bits_per_byte(model, tokenizer, documents: list[str], context: int) -> float:
    """Bits per UTF-8 byte, every token predicted from at least half a context where there is as much before it.

    A text that begins with a line break is a piece out of a longer one: <s> in front of it would be a lie, and its
    first token costs as much as any."""
    bits, size = 0.0, 0
    for text in documents:
        ids = ([] if text.startswith("\n") else [0]) + tokenizer.encode(text).ids
        bits += 0.0 if ids[0] == 0 else np.log2(tokenizer.get_vocab_size())
        size += len(text.encode())
        known = 1
        while known < len(ids):
            start = max(0, known - context // 2)
            row = torch.tensor([ids[start : start + context]])
            with torch.no_grad():
                logits = model(row[:, :-1]).logits[0].float()
            new = slice(known - start - 1, None)
            bits += F.cross_entropy(logits[new], row[0, 1:][new], reduction="sum").item() / np.log(2)
            known = start + row.shape[1]
    return bits / size


def test_documents(data: Path, stories_n: int = 40, natural_bytes: int = 40_000) -> dict[str, list[str]]:
    """Held-out text in the two units that the card reports: stories, and both books and short sentences."""
    natural = natural_text(data, "test")
    books, short = [t for t in natural if len(t) > 20_000], [t for t in natural if len(t) <= 20_000]
    part = [text[text.index("\n", 5000) :][: natural_bytes // 3] for text in books]
    return {
        "stories": [stories.story(seed, "test", 1200, 10, "along").text for seed in range(stories_n)],
        "natural": [*part, *short[: natural_bytes // 3 // 800]],
    }


def stage_at(plan: Plan, step: int) -> Stage:
    for stage in plan.stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    return plan.stages[-1]


def train(plan: Plan, tokenizer, data: Path, work: Path, minutes: float) -> None:
    """Trains all stages, at most `minutes` in this process; logs to work/log.jsonl, keeps work/checkpoint.pt."""
    work.mkdir(parents=True, exist_ok=True)
    model, rows = new_model(plan), Rows(tokenizer, plan, data)
    steps = sum(stage.steps for stage in plan.stages)
    optimizer, step, seen, spent = Optimizer(model, plan), 0, 0, 0.0
    path = work / "checkpoint.pt"
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load(state["optimizer"])
        step, seen, spent = state["step"], state["tokens"], state["seconds"]
    before, began, saved, last = spent, time.monotonic(), time.monotonic(), 0.0
    while step < steps and time.monotonic() - began < 60 * minutes:
        spent = before + time.monotonic() - began
        stage = stage_at(plan, step)
        scale = min(1.0, (step + 1) / plan.warm_up, (1 - step / steps) / plan.decay + 0.02)
        ids, weights = rows.batch(step, stage)
        loss, losses = weighted_loss(half_weights(model, plan), plan, ids[:, :-1], ids[:, 1:], weights[:, 1:])
        model.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step(scale)
        step, seen = step + 1, seen + ids[:, 1:].numel()
        if step % 20 == 0:
            flat = weights[:, 1:].reshape(-1)
            entry = {"step": step, "tokens": seen, "seconds": round(spent, 1), "row": stage.row, "loss": loss.item()}
            for name, part in (("answers", losses[flat > 2]), ("text", losses[flat == 1])):
                entry[name] = part.mean().item() if len(part) else None  # a batch of natural text asks nothing
            if time.monotonic() - last > 150:
                last = time.monotonic()
                model.eval()
                for split in stories.SPLITS:
                    found = recall(model, tokenizer, split, 5, (stage.row // 2,), plan.chars_per_token)
                    entry[f"recall_{split}"] = round(_mean(row["recall"] for row in found), 3)
                    entry[f"kinds_{split}"] = {row["kind"]: row["recall"] for row in found}
            with (work / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            print(json.dumps(entry), flush=True)
        if time.monotonic() - saved > 120:
            saved = time.monotonic()
            save(path, model, optimizer, plan, step, seen, spent)
    save(path, model, optimizer, plan, step, seen, spent)


def save(path: Path, model, optimizer: Optimizer, plan: Plan, step: int, tokens: int, seconds: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state(), "plan": asdict(plan)}
    torch.save(state | {"step": step, "tokens": tokens, "seconds": seconds}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def export(plan: Plan, tokenizer, work: Path, folder: Path) -> None:
    """The newest checkpoint as a Hugging Face folder: float16 on disk, float32 once loaded (config.dtype)."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    model = new_model(plan)
    model.load_state_dict(torch.load(work / "checkpoint.pt")["model"])
    model.to(torch.float16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    names = dict(zip(("bos_token", "eos_token", "pad_token"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=plan.context, clean_up_tokenization_spaces=False, **names
    ).save_pretrained(folder)


def measure(folder: Path, data: Path, work: Path, n: int) -> dict:
    """Everything the card reports, measured on the exported files: recall, bits per byte, references, samples."""
    import lm_references
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = None
    window = model.config.max_position_embeddings
    chars = chars_per_token(tokenizer)
    aims = tuple(aim for aim in (56, 128, 256, 512) if aim < window - 200)
    found = {"recall": recall(model, tokenizer, "test", n, aims, chars=chars)}
    found["recall_seen"] = recall(model, tokenizer, "train", n // 2, aims, chars=chars)
    rng = random.Random(1)
    told = "\n".join(stories.story(rng.randrange(2**40), "train", 600, 6, "along").text for _ in range(16_000))
    read = "\n".join(natural_text(data, "train"))
    ngram = lm_references.ByteNgram((read + "\n" + told).encode())
    found["bits"] = {}
    for name, documents in test_documents(data).items():
        size = sum(len(text.encode()) for text in documents)
        whole = "\n".join(documents).encode()
        before = (told if name == "stories" else read).encode()
        found["bits"][name] = {
            "bytes": size,
            "model": bits_per_byte(model, tokenizer, documents, window),
            "ngram": sum(ngram.bits(text.encode()) for text in documents) / size,
            "xz": lm_references.xz_bits(whole) / size,
            "xz_after_training_text": lm_references.xz_bits_after(before, whole) / size,
        }
    found["samples"] = [(prompt, sample(model, tokenizer, prompt)) for prompt in SAMPLE_PROMPTS]
    found["parameters"] = sum(p.numel() for p in model.parameters())
    (work / "measured.json").write_text(json.dumps(found, indent=1))
    return found


SAMPLE_PROMPTS = (
    "Once upon a time",
    "The king looked at the old man and said",
    "This is a story from long ago. Mia has a red kite. The lantern is in the barn. The code of the tower is 482. "
    "Otto lives in Norwick. Question: What is the code of the tower? Answer:",
)


def sample(model, tokenizer, prompt: str, tokens: int = 60) -> str:
    """A continuation at temperature 0.7 among the 40 likeliest tokens, seed 0."""
    ids = torch.tensor([[0, *tokenizer.encode(prompt).ids]])
    torch.manual_seed(0)
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=True, temperature=0.7, top_k=40
    )
    return tokenizer.decode(made[0, ids.shape[1] :].tolist())


def chars_per_token(tokenizer) -> float:
    texts = [stories.story(seed, "test", 600, 6).text for seed in range(50)]
    return sum(map(len, texts)) / sum(len(tokenizer.encode(text).ids) for text in texts)


def tables(found: dict) -> str:
    """The measured numbers as Markdown for the card."""
    out = []
    for name, title in (("recall", "held-out names, towns, wordings and combinations"), ("recall_seen", "new stories")):
        rows = found[name]
        aims = sorted({row["distance"] for row in rows})
        out += [f"Recall, {title} (n = {rows[0]['n']} per cell)", ""]
        out += ["| kind | " + " | ".join(f"{aim} tokens" for aim in aims) + " | chance |"]
        out += ["| --- |" + " --- |" * (len(aims) + 1)]
        for kind in (*stories.KINDS, "all"):
            own = [row for row in rows if kind in ("all", row["kind"])]
            cells = [_mean(row["recall"] for row in own if row["distance"] == aim) for aim in aims]
            cells.append(_mean(row["chance"] for row in own))
            out.append(f"| {kind} | " + " | ".join(f"{100 * cell:.0f} %" for cell in cells) + " |")
        means = [_mean(row["mean_distance"] for row in rows if row["distance"] == aim) for aim in aims]
        out += ["", "Mean true distance in tokens: " + ", ".join(f"{mean:.0f}" for mean in means) + ".", ""]
    out += ["| bits per byte, held out | bytes | model | order-5 n-gram | xz | xz after the training text |"]
    out += ["| --- | --- | --- | --- | --- | --- |"]
    for name, bits in found["bits"].items():
        values = (f"{bits[key]:.3f}" for key in ("model", "ngram", "xz", "xz_after_training_text"))
        out.append(f"| {name} | {bits['bytes']:,} | " + " | ".join(values) + " |")
    return "\n".join(out) + "\n"


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def main(description: str, plan: Plan, new_tokenizer) -> None:
    """The command line of a recipe; new_tokenizer(data, plan) makes the tokenizer once per work folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with english/ and tatoeba/")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokenizer, checkpoint and log")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop this process after so many minutes")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the model there and measure it")
    args = parser.parse_args()
    saved = args.work / "tokenizer.json"
    if not saved.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        new_tokenizer(args.data, plan).save(str(saved))
    tokenizer = Tokenizer.from_file(str(saved))
    if args.export is None:
        train(plan, tokenizer, args.data, args.work, args.minutes)
        return
    export(plan, tokenizer, args.work, args.export)
    found = measure(args.export, args.data, args.work, plan.cases)
    (args.work / "tables.md").write_text(tables(found))
    model_card.write(args.export, plan, args.work, found, tables(found))
    print((args.export / "card.md").read_text("utf-8"))
