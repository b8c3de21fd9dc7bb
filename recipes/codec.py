"""Makes assets/models/codec: rvq8, eight codebooks at 75 frames a second, and vq1, one codebook.

python recipes/codec.py --data DATA --work WORK                                    # train; can be resumed
python recipes/codec.py --data DATA --work WORK --export assets/models/codec       # write them, measure them

DATA holds audio/ (recordings) and text/tatoeba (sentences for espeak-ng). Sound becomes log-mel frames once, kept in
WORK/frames.npz; training never touches a wave again. Stage 0 is residual k-means on frames. Stage 1 puts a context
network on both sides, which begins at zero, so exactly at stage 0; it is kept only where it is better with every
number of codebooks. Loss: mean absolute error of the frames, and the quantiser's own.

Deterministic: a batch and the learning rate depend on step and seed only. Resumable: every two minutes a checkpoint.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from scipy.signal import resample_poly

from tokenlab.audio import codec, corpus, mel
from tokenlab.codebooks.quantizers import closeness
from tokenlab.codebooks.stats import CodebookStats

# Speakers that training never hears. LibriTTS (24 kHz) is what the card reports, the others help to choose.
TEST = ("libritts-20",)
HELD_OUT_DIGITS = ("theo", "yweweler")
HELD_OUT_VARIANTS = ("f5", "m8", "steph", "Michael", "anika")
LANGUAGES = {
    "en-us": "eng", "en-gb": "eng", "de": "deu", "fr-fr": "fra", "es": "spa", "pl": "pol", "it": "ita", "ru": "rus",
    "cmn": "cmn", "hi": "hin", "tr": "tur", "sv": "swe", "vi": "vie", "pt": "por", "ja": "jpn", "ar": "ara",
}  # fmt: skip
VARIANTS = (
    *("", "f1", "f2", "f3", "f4", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "Alex", "Andrea", "Annie", "belinda"),
    *("david", "Gene", "Lee", "linda", "max", "Reed", "robert", "shelby", "travis", "whisperf"),
)
SENTENCES = 210  # of each language
HELD_OUT_SENTENCES = 8  # of each language and held-out variant: others than those of training
SPEEDS = (1.0, 0.9, 1.12)  # each recording is also heard slower and faster, which makes another speaker of it
SHARES = {"speech": 0.5, "wide": 0.12, "espeak": 0.23, "music": 0.1, "tones": 0.05}


# --- sound


def recordings(data: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """(group, name, wave (T,) at 24 kHz) of everything there is, resampled, mono, its peak at 0.6."""
    audio = data / "audio"
    for path in sorted([*audio.glob("*/*.flac"), *audio.glob("*/*.ogg")]):
        wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
        yield group(path), f"{path.parent.name}/{path.stem}", leveled(resample_poly(wave.mean(1), mel.RATE, rate))


def group(path: Path) -> str:
    """What a recording is for: "test", "dev", or one of SHARES."""
    folder, name = path.parent.name, path.stem
    if folder in TEST:
        return "test"
    if folder == "music-and-voices":
        spoken = name[0].isdigit() and "-" in name  # LibriSpeech: speaker-chapter-sentence
        return "dev" if spoken else "music"
    if folder == "spoken-digits":
        return "dev" if name.split("_")[1] in HELD_OUT_DIGITS else "speech"
    return {"ljspeech-32": "wide", "sonic-pi-samples": "music"}.get(folder, "speech")


def leveled(wave: np.ndarray) -> np.ndarray:
    return wave.astype(np.float32) * (0.6 / max(1e-4, np.abs(wave).max()))


def spoken(data: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """Sentences of Tatoeba by espeak-ng: the voices of training, and those held out (group "dev")."""
    for voice, code in LANGUAGES.items():
        path = data / "text" / "tatoeba" / f"{code}-eng.{code}"
        path = data / "text" / "tatoeba" / "deu-eng.eng" if code == "eng" else path
        sentences = [line for line in path.read_text("utf-8").splitlines() if 12 <= len(line.encode()) <= 200]
        chosen = np.random.default_rng(0).permutation(len(sentences))
        rng = np.random.default_rng(stable(voice))
        for i, k in enumerate(chosen[:SENTENCES]):
            variant = VARIANTS[i % len(VARIANTS)]
            yield "espeak", f"{voice}+{variant}", utter(sentences[k], voice, variant, rng)
        others = iter(chosen[SENTENCES:])
        for variant in HELD_OUT_VARIANTS:
            for k in [next(others) for _ in range(HELD_OUT_SENTENCES)]:
                yield "dev", f"{voice}+{variant}", utter(sentences[k], voice, variant, rng)


def utter(text: str, voice: str, variant: str, rng: np.random.Generator) -> np.ndarray:
    said = corpus.say(text, voice, int(rng.integers(120, 211)), int(rng.integers(25, 76)), variant)
    return leveled(resample_poly(said.wave, mel.RATE, said.rate))


def tones(seed: int, count: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Harmonic stacks, chirps, chords, plucked strings, clicks and coloured noise, 2 seconds each."""
    time = np.arange(2 * mel.RATE) / mel.RATE
    for i in range(count):
        rng = np.random.default_rng((seed, i))
        kind = ("stack", "chirp", "chord", "pluck", "clicks", "noise")[i % 6]
        pitch = 55 * 2 ** rng.uniform(0, 5)
        if kind == "stack":
            wave = sum(np.sin(2 * np.pi * pitch * k * time) / k ** rng.uniform(0.5, 2) for k in range(1, 12))
        elif kind == "chirp":
            wave = np.sin(2 * np.pi * pitch * (2 ** (time * rng.uniform(-2, 2)) * time))
        elif kind == "chord":
            ratios = (1, 2 ** (rng.choice((3, 4)) / 12), 2 ** (7 / 12))
            wave = sum(np.sin(2 * np.pi * pitch * r * k * time) / k for r in ratios for k in range(1, 6))
        elif kind == "pluck":
            wave = plucked(pitch, rng)
        elif kind == "clicks":
            wave = (rng.random(len(time)) < rng.uniform(1, 40) / mel.RATE).astype(float)
        else:
            spectrum = np.fft.rfft(rng.normal(size=len(time)))
            wave = np.fft.irfft(spectrum / (1 + np.arange(len(spectrum))) ** rng.uniform(0, 1))
        envelope = np.exp(-time * rng.choice((0, 0, 2, 5)))
        yield "tones", f"{kind} {i}", leveled((wave * envelope).astype(np.float32))


def plucked(pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Karplus and Strong 1983: noise that goes round in a loop of one period and gets duller."""
    from scipy.signal import lfilter

    period = max(2, round(mel.RATE / pitch))
    burst = np.zeros(2 * mel.RATE)
    burst[:period] = rng.uniform(-1, 1, period)
    loop = np.zeros(period + 2)
    loop[0], loop[period], loop[period + 1] = 1, -0.497, -0.497
    return lfilter([1], loop, burst)


def stable(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def frames(data: Path, work: Path) -> dict[str, list[np.ndarray]]:
    """group -> log-mel frames (F, 100) float16 of each of its sounds; made once."""
    path = work / "frames.npz"
    if not path.exists():
        found: dict[str, list[np.ndarray]] = {}
        for source in (recordings(data), spoken(data), tones(0, 300)):
            for kind, _, wave in source:
                speeds = SPEEDS if kind in ("speech", "wide", "music") else (1.0,)
                for speed in speeds:
                    changed = wave if speed == 1 else resample_poly(wave, 100, round(100 * speed))
                    found.setdefault(kind, []).append(mel.log_mel(changed.astype(np.float32)).astype(np.float16))
            print({kind: round(sum(map(len, all)) / mel.FRAME_RATE / 3600, 2) for kind, all in found.items()}, "hours")
        stored = {f"{kind} frames": np.concatenate(all) for kind, all in found.items()}
        stored |= {f"{kind} lengths": np.array([len(one) for one in all]) for kind, all in found.items()}
        np.savez(path, **stored)
    with np.load(path) as stored:
        kinds = [key.removesuffix(" lengths") for key in stored if key.endswith(" lengths")]
        return {kind: np.split(stored[f"{kind} frames"], stored[f"{kind} lengths"].cumsum()[:-1]) for kind in kinds}


class Crops:
    """Batches (B, crop, 100) float32 of frames at a random loudness; the same for the same seed and step."""

    def __init__(self, found: dict[str, list[np.ndarray]], plan: "Plan"):
        self.plan, self.groups = plan, list(SHARES)
        self.flat = {kind: np.concatenate(found[kind]) for kind in self.groups}

    def batch(self, step: int) -> torch.Tensor:
        rng = np.random.default_rng((self.plan.seed, step))
        out = np.empty((self.plan.batch, self.plan.crop, mel.BANDS), np.float32)
        for i, kind in enumerate(rng.choice(self.groups, len(out), p=list(SHARES.values()))):
            flat = self.flat[kind]
            start = rng.integers(len(flat) - self.plan.crop)
            out[i] = flat[start : start + self.plan.crop] + np.log(rng.uniform(0.3, 1.6))
        return torch.from_numpy(np.maximum(out, np.float32(np.log(mel.FLOOR))))


# --- stage 0


def clusters(crops: Crops, sizes: tuple[int, ...], count: int = 60_000) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """(mean (100,), scale, books (K, 100) of each level): k-means on what the levels before left over."""
    from sklearn.cluster import KMeans

    x = np.concatenate([crops.batch(-1 - i & 0xFFFFFFFF).flatten(0, 1).numpy() for i in range(-(-count // 2000))])
    x = x[np.random.default_rng(0).permutation(len(x))[:count]]
    mean, scale = x.mean(0), float((x - x.mean(0)).std())
    rest, books = (x - mean) / scale, []
    for size in sizes:
        fit = KMeans(size, init="random", n_init=1, max_iter=12, algorithm="lloyd", random_state=0).fit(rest)
        books.append(fit.cluster_centers_.astype(np.float32))
        rest = rest - books[-1][fit.labels_]
        print(f"stage 0: {len(books)} levels leave {np.square(rest).mean():.4f} of the variance", flush=True)
    return mean, scale, books


@torch.no_grad()
def start(model: codec.MelCodec, mean: np.ndarray, scale: float, books: list[np.ndarray]) -> None:
    """Put the clusters of stage 0 into a model: codes follow their averages from there."""
    model.mean.copy_(torch.from_numpy(mean))
    model.scale.fill_(scale)
    for layer, book in zip(layers(model), books, strict=True):
        own = layer._codebook
        own.embed.data.copy_(torch.from_numpy(book)[None])
        own.embed_avg.data.copy_(own.embed.data * 5)
        own.cluster_size.data.fill_(5.0)
        own.initted.data.fill_(True)


# --- stage 1


@dataclass(frozen=True)
class Plan:
    """Everything that a run depends on. half: share of the crops that are decoded from all levels; the others from
    a random number of them."""

    name: str
    model: codec.Config
    steps: int
    crop: int = 128
    batch: int = 20
    rate: float = 1.5e-3
    warm_up: int = 200
    decay: float = 0.99
    commitment: float = 2.0
    dead_below: float = 0.1
    half: float = 0.4
    seed: int = 0


PLANS = (
    Plan("rvq8", codec.Config(), steps=5000),
    Plan("vq1", codec.Config((4096,)), steps=4000),
)


def new_model(plan: Plan, crops: Crops, work: Path) -> codec.MelCodec:
    """At stage 0: clusters are made once for all models with the same codebooks."""
    torch.manual_seed(plan.seed)
    model = codec.MelCodec(plan.model)
    path = work / f"clusters-{'-'.join(map(str, plan.model.sizes))}-{plan.seed}.npz"
    if not path.exists():
        mean, scale, books = clusters(crops, plan.model.sizes)
        np.savez(path, mean=mean, scale=scale, **{f"book{i}": book for i, book in enumerate(books)})
    with np.load(path) as stored:
        start(model, stored["mean"], float(stored["scale"]), [stored[f"book{i}"] for i in range(len(plan.model.sizes))])
    return model


def kept(ids: torch.Tensor, rng: np.random.Generator, half: float) -> torch.Tensor:
    """ids (B, F, L) with the last levels of some crops left out (-1)."""
    batch, levels = len(ids), ids.shape[-1]
    keep = np.where(rng.random(batch) < half, levels, rng.integers(1, levels + 1, batch))
    return ids.masked_fill(torch.arange(levels) >= torch.from_numpy(keep)[:, None, None], -1)


@torch.no_grad()
def quantise(model: codec.MelCodec, z: torch.Tensor, plan: Plan) -> torch.Tensor:
    """ids (B, F, L) of vectors (B, F, 100); the codebooks follow the averages of what they stand for.

    As the library's own forward pass, without its one-hot matrices: a third of the time. A code that has become rare
    moves to a random vector of the batch."""
    rest, ids = z.flatten(0, 1), []
    for own in (layer._codebook for layer in layers(model)):
        book = own.embed[0].clone()
        ids.append(closeness(rest, book, cosine=False).argmax(-1))
        count = torch.bincount(ids[-1], minlength=len(book)).float()
        total = torch.zeros_like(book).index_add_(0, ids[-1], rest)
        size, average = own.cluster_size[0], own.embed_avg[0]
        size.lerp_(count, 1 - plan.decay)
        average.lerp_(total, 1 - plan.decay)
        dead = torch.nonzero(size < plan.dead_below)[:, 0]
        average[dead] = rest[torch.randint(len(rest), (len(dead),))]
        size[dead] = 1.0
        own.embed[0] = average / size[:, None]
        rest = rest - book[ids[-1]]
    return torch.stack(ids, -1).unflatten(0, z.shape[:2])


def commitment(model: codec.MelCodec, z: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean over levels of the squared distance between z and what the levels up to there make of it."""
    parts = torch.stack([F.embedding(ids[..., i], layer._codebook.embed[0]) for i, layer in enumerate(layers(model))])
    return ((z - parts.cumsum(0)) ** 2).mean()


def layers(model: codec.MelCodec) -> list:
    return list(model.quantizer.levels.layers if len(model.config.sizes) > 1 else model.quantizer.books)


def train(plan: Plan, found: dict, work: Path, until: float) -> bool:
    """Trains one codec up to its last step or time.monotonic() == until; whether it is done.

    Logs to work/<name>.jsonl, keeps work/<name>.pt."""
    path, crops = work / f"{plan.name}.pt", Crops(found, plan)
    model = new_model(plan, crops, work)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, betas=(0.8, 0.99), weight_decay=0.01)
    step, before, began = 0, 0.0, time.monotonic()
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, before = state["step"], state["seconds"]
    looked = saved = began - 1e9 if step == 0 else began
    encoder, decoder = (torch.compile(part, dynamic=False) for part in (model.encoder, model.decoder))
    while step < plan.steps and time.monotonic() < until:
        target = (crops.batch(step) - model.mean) / model.scale
        torch.manual_seed(step)  # dead codes move to random vectors
        with torch.autocast("cpu", torch.bfloat16):
            z = target + encoder(target).float()
        ids = quantise(model, z.detach(), plan)
        own = commitment(model, z, ids)
        ids = kept(ids, np.random.default_rng((plan.seed, step, 1)), plan.half)
        with torch.autocast("cpu", torch.bfloat16):
            zq = z + (model.quantizer.lookup(ids) - z).detach()
            y = zq + decoder(zq).float()
        error = (y - target).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        (error + plan.commitment * own).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(1.0, (step + 1) / plan.warm_up) * (1 + np.cos(np.pi * step / plan.steps)) / 2
        optimizer.step()
        step += 1
        if step % 50 == 0:
            seconds = before + time.monotonic() - began
            entry = {"step": step, "seconds": round(seconds, 1), "l1": error.item(), "own": own.item()}
            if time.monotonic() - looked > 240 or step == plan.steps:
                looked = time.monotonic()
                entry |= look(model, found["dev"])
            with (work / f"{plan.name}.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            print(plan.name, json.dumps(entry), flush=True)
        if time.monotonic() - saved > 120:
            saved = time.monotonic()
            save(path, model, optimizer, plan, step, before + saved - began)
    save(path, model, optimizer, plan, step, before + time.monotonic() - began)
    return step == plan.steps


def look(model: codec.MelCodec, sounds: list[np.ndarray], most: int = 40) -> dict:
    """Mean absolute error of log-mel frames [nepers] with 1, 2, 4 and 8 levels, and use, on held-out speakers."""
    model.eval()
    levels = len(model.config.sizes)
    counts, errors = CodebookStats(model.config.sizes), {k: [] for k in (1, 2, 4, 8) if k <= levels}
    for sound in sounds[:: max(1, len(sounds) // most)]:
        frames = torch.from_numpy(sound[:750].astype(np.float32))[None]
        with torch.inference_mode():
            ids = model.encode(frames)
            counts.update(ids.transpose(1, 2))
            for k in errors:
                part = ids.masked_fill(torch.arange(levels)[:, None] >= k, -1)
                errors[k].append((model.decode(part) - frames).abs().mean().item())
    model.train()
    use = [round(counts.used_fraction(level), 3) for level in range(levels)]
    return {"error": {k: round(float(np.mean(all)), 4) for k, all in errors.items()}, "used": use}


def save(path: Path, model, optimizer, plan: Plan, step: int, seconds: float) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "plan": asdict(plan)}
    torch.save(state | {"step": step, "seconds": seconds}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=180.0, help="stop after this; run again to go on")
    parser.add_argument("--only", choices=[plan.name for plan in PLANS])
    parser.add_argument("--export", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * given.minutes
    found = frames(given.data, given.work)
    for plan in PLANS:
        if given.only in (None, plan.name) and not train(plan, found, given.work, until):
            raise SystemExit(f"{plan.name} is not done; please run again to go on.")


if __name__ == "__main__":
    main()
