"""Makes assets/models/vq-image: three tokenizers for photographs, 8 x 8 pixels and about 10 bits a token.

python recipes/vq_image.py --data DATA --work WORK                                     # train; can be resumed
python recipes/vq_image.py --data DATA --work WORK --export assets/models/vq-image     # write them, measure them

DATA holds kodak/kodim*.png. First "vq" is trained from nothing, then its twins "fsq" and "rvq" go on from its trunk
with quantisers of their own. Each learns as a plain autoencoder at first; then the codebooks start at the clusters
of its vectors. Loss: mean absolute plus 10 times mean squared error of pixels in [0, 1], and the quantiser's own.

Deterministic: a batch and the learning rate depend on step and seed only. Resumable: every two minutes a checkpoint.
"""

import argparse
import io
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image

from tokenlab import pictures
from tokenlab.codebooks import metrics, vq_image
from tokenlab.codebooks.stats import CodebookStats

HELD_OUT = ("kodim05", "kodim12", "kodim17", "kodim19")  # and vq_image.UNSEEN; chosen before any training
# Photographs of scikit-image beside vq_image.SEEN: grey ones, and weights of those that are mostly of one kind.
GREY = ("camera", "coins", "moon", "brick", "grass", "gravel")
RARE = {"hubble_deep_field": 0.2, "retina": 0.3, "ihc": 0.3, **dict.fromkeys(GREY, 0.15)}
SCALES = (1.0, 0.75, 0.5)  # each photograph is also seen smaller
TEMPLATE = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on. plain: steps without quantiser at first; decay: share of all steps over
    which the rate falls to nothing; jitter: largest change of a channel's brightness."""

    name: str
    model: vq_image.Config
    steps: int
    plain: int
    crop: int = 96
    batch: int = 12
    rate: float = 1.5e-3
    warm_up: int = 100
    decay: float = 0.6
    jitter: float = 0.15
    code_decay: float = 0.97
    dead_below: float = 0.2
    commitment: float = 0.25
    seed: int = 0


VQ = Plan("vq", vq_image.Config(), steps=5000, plain=600)
PLANS = (
    VQ,
    replace(VQ, name="fsq", model=vq_image.Config("fsq", (8, 5, 5, 5), None), steps=2600, plain=0, rate=1e-3),
    replace(VQ, name="rvq", model=vq_image.Config("rvq", (32, 32), 8), steps=2000, plain=150, rate=1e-3),
)


# --- photographs


def training_photographs(data: Path, without: tuple[str, ...] = ()) -> list[tuple[float, list[np.ndarray]]]:
    """(weight, the photograph (H, W, 3) uint8 at each of SCALES) of all that may be seen."""
    found = {}
    for path in sorted((data / "kodak").glob("kodim*.png")):
        if path.stem not in (*HELD_OUT, *without):
            found[path.stem] = np.asarray(Image.open(path).convert("RGB"))
    if not found:
        raise SystemExit(f"{data} holds no kodak/kodim*.png")
    for name in (*vq_image.SEEN, *GREY):
        found[name] = pictures.load(f"photo:{name}")
    return [(RARE.get(name, 1.0), [shrunk(image, scale) for scale in SCALES]) for name, image in found.items()]


def held_out_photographs(data: Path) -> dict[str, np.ndarray]:
    kodak = {name: np.asarray(Image.open(data / "kodak" / f"{name}.png").convert("RGB")) for name in HELD_OUT}
    return kodak | {name: pictures.load(f"photo:{name}") for name in vq_image.UNSEEN}


def shrunk(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((round(width * scale), round(height * scale)), Image.LANCZOS))


class Crops:
    """Batches (B, 3, crop, crop) float32 in [0, 1]; the same for the same seed and step."""

    def __init__(self, photographs: list[tuple[float, list[np.ndarray]]], plan: Plan):
        weights = np.array([weight for weight, _ in photographs])
        self.share = weights / weights.sum()
        self.photographs, self.plan = [sizes for _, sizes in photographs], plan

    def batch(self, step: int) -> torch.Tensor:
        rng, size = np.random.default_rng((self.plan.seed, step)), self.plan.crop
        out = np.empty((self.plan.batch, size, size, 3), np.float32)
        for i in range(len(out)):
            image = self.photographs[rng.choice(len(self.photographs), p=self.share)][rng.choice(3, p=(0.6, 0.2, 0.2))]
            top, left = (rng.integers(side - size + 1) for side in image.shape[:2])
            part = image[top : top + size, left : left + size].astype(np.float32) / 255
            part = part[:, ::-1] if rng.random() < 0.5 else part
            part = part[::-1] if rng.random() < 0.2 else part
            part = part.swapaxes(0, 1) if rng.random() < 0.2 else part
            gain, shift = 1 + self.plan.jitter * rng.uniform(-1, 1, 3), self.plan.jitter / 2 * rng.uniform(-1, 1)
            out[i] = (part * gain + shift).clip(0, 1)
        return torch.from_numpy(out.transpose(0, 3, 1, 2)).contiguous(memory_format=torch.channels_last)


# --- training


def new_model(plan: Plan) -> vq_image.VQImage:
    torch.manual_seed(plan.seed)
    settings = {}
    if plan.model.kind != "fsq":
        settings = dict(decay=plan.code_decay, dead_below=plan.dead_below, commitment=plan.commitment, kmeans=True)
    return vq_image.VQImage(plan.model, **settings).to(memory_format=torch.channels_last)


def start_codebook(model: vq_image.VQImage, crops: Crops) -> None:
    """k-means on the vectors of enough crops that training never sees."""
    batches = -(-10 * max(model.quantizer.sizes) // (crops.plan.batch * (crops.plan.crop // 8) ** 2))
    with torch.no_grad():
        z = torch.cat([model.vectors(crops.batch(-1 - i & 0xFFFFFFFF)).flatten(0, 2) for i in range(batches)])
        model.quantizer(z[None])


def train(plan: Plan, photographs: list, held_out: dict, work: Path, until: float, trunk: dict | None = None) -> bool:
    """Trains one tokenizer up to its last step or time.monotonic() == until; whether it is done.

    Logs to work/<name>.jsonl, keeps work/<name>.pt. trunk: weights of encoder and decoder to begin with."""
    path, crops, model = work / f"{plan.name}.pt", Crops(photographs, plan), new_model(plan)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.01)
    step, before, began = 0, 0.0, time.monotonic()
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, before = state["step"], state["seconds"]
    elif trunk is not None:
        model.load_state_dict({**model.state_dict(), **trunk})
    encoder, decoder = (torch.compile(part, dynamic=False) for part in (model.encoder, model.decoder))
    saved = looked = began
    while step < plan.steps and time.monotonic() < until:
        if step == plan.plain and plan.model.kind != "fsq":
            torch.manual_seed(plan.seed)
            start_codebook(model, crops)
        x = crops.batch(step)
        torch.manual_seed(step)  # dead codes move to random vectors, and residual levels are left out at random
        with torch.autocast("cpu", torch.bfloat16):
            z = encoder(2 * x - 1).permute(0, 2, 3, 1)
            tokens, own = z.flatten(1, 2), torch.zeros(())
            if step < plan.plain:
                zq = model.quantizer.up(model.quantizer.compared(tokens))
            else:
                out = model.quantizer(tokens)
                zq, own = out.zq, out.loss
            y = decoder(zq.unflatten(1, z.shape[1:3]).permute(0, 3, 1, 2))
        error = (y.float() + 1) / 2 - x
        absolute, squared = error.abs().mean(), (error**2).mean()
        optimizer.zero_grad(set_to_none=True)
        (absolute + 10 * squared + own).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(1.0, (step + 1) / plan.warm_up, (1 - step / plan.steps) / plan.decay)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            seconds = before + time.monotonic() - began
            entry = {"step": step, "seconds": round(seconds, 1), "l1": absolute.item(), "own": own.item()}
            entry["psnr"] = -10 * np.log10(squared.item())
            if time.monotonic() - looked > 240 or step == plan.steps:
                looked = time.monotonic()
                entry |= look(model, held_out, quantised=step >= plan.plain)
            with (work / f"{plan.name}.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            print(plan.name, json.dumps(entry), flush=True)
        if time.monotonic() - saved > 120:
            saved = time.monotonic()
            save(path, model, optimizer, plan, step, before + saved - began)
    save(path, model, optimizer, plan, step, before + time.monotonic() - began)
    return step == plan.steps


def look(model: vq_image.VQImage, held_out: dict[str, np.ndarray], quantised: bool) -> dict[str, float]:
    """PSNR and codebook use on the middle 256 x 256 pixels of photographs that are never trained on."""
    model.eval()
    counts, found = CodebookStats(model.quantizer.sizes), []
    for image in held_out.values():
        top, left = ((side - 256) // 2 for side in image.shape[:2])
        middle = image[top : top + 256, left : left + 256]
        x = torch.from_numpy(vq_image.padded(middle))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            z = model.vectors(x)
            flat, grid = z.flatten(1, 2), tuple(z.shape[1:3])
            if quantised:
                out = model.quantizer(flat)
                counts.update(out.ids)
                y = model.decode(out.zq, shape=grid)
            else:
                y = model.decode(model.quantizer.up(model.quantizer.compared(flat)), shape=grid)
            y = y.float().numpy()
        found.append(metrics.psnr(middle, vq_image.to_uint8(y)[0]))
    model.train()
    use = {"perplexity": counts.perplexity(), "used": counts.used_fraction()} if quantised else {}
    return {"held_out_psnr": float(np.mean(found)), **use}


def save(path: Path, model, optimizer, plan: Plan, step: int, seconds: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "plan": asdict(plan)}
    torch.save(state | {"step": step, "seconds": seconds}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def trunk_of(work: Path) -> dict:
    state = torch.load(work / "vq.pt")["model"]
    return {key: tensor for key, tensor in state.items() if not key.startswith("quantizer.")}


# --- measuring


def measure(folder: Path, data: Path, work: Path) -> dict:
    """Everything the card reports, on the exported files and whole photographs that were never trained on."""
    images, rows, counts = held_out_photographs(data), [], {}
    names = [plan.name for plan in PLANS]
    for name in names:
        tokenizer = vq_image.PictureTokenizer(name, folder)
        stats = CodebookStats(tokenizer.sizes)
        for picture, image in images.items():
            ids = tokenizer.encode(image)
            stats.update(ids.reshape(1, -1, ids.shape[-1]))
            size = ids.shape[0] * ids.shape[1] * tokenizer.bits_per_token / 8
            rows.append(row(picture, name, image, tokenizer.decode(ids, image.shape), size))
            if len(tokenizer.sizes) > 1:
                part = ids.shape[0] * ids.shape[1] * np.log2(tokenizer.sizes[0]) / 8
                rows.append(
                    row(picture, f"{name}, first level", image, tokenizer.decode(ids, image.shape, keep=1), part)
                )
        counts[name] = [stats.histogram(level).tolist() for level in range(len(tokenizer.sizes))]
    for picture, image in images.items():
        budget = next(entry["bytes"] for entry in rows if entry["picture"] == picture)
        for format in ("JPEG", "WEBP"):
            packed = smallest_loss(image, format, budget)
            copy = np.asarray(Image.open(io.BytesIO(packed)).convert("RGB"))
            rows.append(row(picture, format, image, copy, len(packed)))
    (folder / vq_image.HELD_OUT).write_text(
        json.dumps({"pictures": list(images), "counts": counts, "rows": rows}, separators=(",", ":")) + "\n", "utf-8"
    )
    parameters = {}
    for name in names:
        model = vq_image.PictureTokenizer(name, folder).torch
        parameters[name] = sum(p.numel() for p in (*model.encoder.parameters(), *model.decoder.parameters()))
    found = {"rows": rows, "counts": counts, "parameters": parameters}
    (work / "measured.json").write_text(json.dumps(found, indent=1))
    return found


def row(picture: str, name: str, image: np.ndarray, copy: np.ndarray, size: float) -> dict:
    values = {"psnr": metrics.psnr(image, copy), "ssim": metrics.ssim(image, copy)}
    return {"picture": picture, "tokenizer": name, "bytes": size} | values


def smallest_loss(image: np.ndarray, format: str, budget: float) -> bytes:
    """The picture as JPEG or WebP at the highest quality within `budget` bytes; at the lowest when none is."""
    settings, lowest, best = ({"optimize": True}, 1, None) if format == "JPEG" else ({"method": 6}, 0, None)
    for quality in range(lowest, 101):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format, quality=quality, **settings)
        if best is not None and buffer.tell() > budget:
            break
        best = buffer.getvalue()
    return best


# --- the card


def mean_row(rows: list[dict], name: str) -> dict[str, float]:
    own = [entry for entry in rows if entry["tokenizer"] == name]
    return {key: float(np.mean([entry[key] for entry in own])) for key in ("psnr", "ssim", "bytes")}


def tables(found: dict) -> str:
    """The measured numbers as Markdown."""
    names = list(dict.fromkeys(entry["tokenizer"] for entry in found["rows"]))
    places = list(dict.fromkeys(entry["picture"] for entry in found["rows"]))
    out = [
        "| PSNR in dB | " + " | ".join(places) + " | mean | SSIM | bytes |",
        "| --- |" + " --- |" * (len(places) + 3),
    ]
    for name in names:
        own = {entry["picture"]: entry["psnr"] for entry in found["rows"] if entry["tokenizer"] == name}
        mean = mean_row(found["rows"], name)
        cells = [*(f"{own[place]:.2f}" for place in places), f"**{mean['psnr']:.2f}**", f"{mean['ssim']:.3f}"]
        out.append(f"| {name} | " + " | ".join([*cells, f"{mean['bytes']:,.0f}"]) + " |")
    out += ["", "| codebook | codes | tokens counted | used | perplexity |", "| --- | --- | --- | --- | --- |"]
    for name, levels in found["counts"].items():
        for level, counts in enumerate(levels):
            stats = CodebookStats((len(counts),))
            stats.update(np.repeat(np.arange(len(counts)), counts)[None])
            title = f"{name}, level {level + 1}" if len(levels) > 1 else name
            used = f"{stats.used_fraction():.1%} | {stats.perplexity():.0f}"
            out.append(f"| {title} | {len(counts):,} | {sum(counts):,} | {used} |")
    return "\n".join(out) + "\n"


def verdict(found: dict) -> str:
    quality = mean_row(found["rows"], "vq")["psnr"]
    used = float(np.mean(np.array(found["counts"]["vq"][0]) > 0))
    return (
        f"**vq on photographs that it has not seen: {quality:.2f} dB** (aim: 24, {met(quality >= 24)}), "
        f"{used:.1%} of its codes in use (aim: 90 %, {met(used >= 0.9)})."
    )


def met(holds: bool) -> str:
    return "met" if holds else "not met"


def curve(log: list[dict], lines: int = 12) -> str:
    """The log in about `lines` rows of a Markdown table: means over the steps in between."""
    each = max(1, len(log) // lines)
    out = [
        "| step | minutes | PSNR of crops | mean absolute error | quantiser's loss |",
        "| --- | --- | --- | --- | --- |",
    ]
    for start in range(0, len(log), each):
        part = log[start : start + each]
        means = (float(np.mean([entry[key] for entry in part])) for key in ("psnr", "l1", "own"))
        psnr, l1, own = means
        out.append(f"| {part[-1]['step']:,} | {part[-1]['seconds'] / 60:.1f} | {psnr:.2f} | {l1:.4f} | {own:.5f} |")
    return "\n".join(out)


def write_card(folder: Path, work: Path, found: dict) -> None:
    """folder/card.md, from the logs, the checkpoints and what `measure` found."""
    runs, curves = [], []
    for plan in PLANS:
        state = torch.load(work / f"{plan.name}.pt")
        entries = map(json.loads, (work / f"{plan.name}.jsonl").read_text().splitlines())
        log = list({entry["step"]: entry for entry in entries}.values())  # a resumed run does some steps again
        runs.append(
            f"| {plan.name} | {state['step']:,} of {plan.steps:,} | {plan.plain} | {plan.rate:g} | "
            f"{state['seconds'] / 60:.0f} |"
        )
        curves.append(f"{plan.name}:\n\n{curve(log)}\n")
    values = {
        "verdict": verdict(found),
        "tables": tables(found),
        "runs": "\n".join(runs),
        "curves": "\n".join(curves),
        "parameters": found["parameters"]["vq"],
        "batch": VQ.batch,
        "crop": VQ.crop,
        "seen": ", ".join((*vq_image.SEEN, *GREY)),
        "held_out": ", ".join((*HELD_OUT, *vq_image.UNSEEN)),
        "code_decay": VQ.code_decay,
        "dead_below": VQ.dead_below,
        "commitment": VQ.commitment,
        "code_dim": VQ.model.code_dim,
        "jitter": VQ.jitter,
        "decay": VQ.decay,
        "warm_up": VQ.warm_up,
        "tried": (Path(__file__).parent / "vq_image_tried.md").read_text("utf-8"),
    }
    (folder / "card.md").write_text(TEMPLATE.read_text("utf-8").format_map(values), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with kodak/")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop this process after so many minutes")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the models there and measure them")
    args = parser.parse_args()
    if args.export is None:
        args.work.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + 60 * args.minutes
        photographs, held_out = training_photographs(args.data), held_out_photographs(args.data)
        for plan in PLANS:
            trunk = None if plan.name == "vq" else trunk_of(args.work)
            if not train(plan, photographs, held_out, args.work, until, trunk):
                return
        return
    models = {}
    for plan in PLANS:
        models[plan.name] = new_model(plan)
        models[plan.name].load_state_dict(torch.load(args.work / f"{plan.name}.pt")["model"])
    vq_image.save(models, args.export)
    vq_image.export(args.export)
    write_card(args.export, args.work, measure(args.export, args.data, args.work))
    print((args.export / "card.md").read_text("utf-8"))


if __name__ == "__main__":
    main()
