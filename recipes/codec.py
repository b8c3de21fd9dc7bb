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
import math
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

from tokenlab.audio import codec, corpus, mel, metrics, wavtokenizer
from tokenlab.audio.opus import opus
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
TEMPLATE = Path(__file__).with_suffix(".md")
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

    def batch(self, step: int, rows: int | None = None, length: int | None = None) -> torch.Tensor:
        rng = np.random.default_rng((self.plan.seed, step))
        out = np.empty((rows or self.plan.batch, length or self.plan.crop, mel.BANDS), np.float32)
        for i, kind in enumerate(rng.choice(self.groups, len(out), p=list(SHARES.values()))):
            flat = self.flat[kind]
            start = rng.integers(len(flat) - out.shape[1])
            out[i] = flat[start : start + out.shape[1]] + np.log(rng.uniform(0.3, 1.6))
        return torch.from_numpy(np.maximum(out, np.float32(np.log(mel.FLOOR))))


# --- stage 0


def clusters(
    crops: Crops, sizes: tuple[int, ...], stride: int = 1, count: int = 60_000
) -> tuple[np.ndarray, float, list[np.ndarray]]:
    """(mean (100,), scale, books (K, 100 * stride) of each level): k-means on what the levels before left over."""
    from sklearn.cluster import KMeans

    batches = (crops.batch(-1 - i & 0xFFFFFFFF, Plan.batch, Plan.crop) for i in range(-(-count // 2000)))
    x = np.concatenate([batch.unflatten(1, (-1, stride)).flatten(0, 1).numpy() for batch in batches])
    x = x[np.random.default_rng(0).permutation(len(x))[:count]]
    mean = x.mean((0, 1))
    scale = float((x - mean).std())
    rest, books = ((x - mean) / scale).reshape(len(x), -1), []
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
    shared = "" if plan.model.stride == 1 else f"-by-{plan.model.stride}"
    path = work / f"clusters-{'-'.join(map(str, plan.model.sizes))}{shared}-{plan.seed}.npz"
    if not path.exists():
        mean, scale, books = clusters(crops, plan.model.sizes, plan.model.stride)
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
        ids.append(wavtokenizer.nearest(rest, book))
        counts, sums = own.cluster_size[0], own.embed_avg[0]
        wavtokenizer.average(counts, sums, rest, ids[-1], plan.decay)
        wavtokenizer.awaken(counts, sums, rest, plan.dead_below)
        own.embed[0] = wavtokenizer.entries(counts, sums)
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
            z = model.joined(target + encoder(target).float())
        ids = quantise(model, z.detach(), plan)
        own = commitment(model, z, ids)
        ids = kept(ids, np.random.default_rng((plan.seed, step, 1)), plan.half)
        with torch.autocast("cpu", torch.bfloat16):
            zq = model.parted(z + (model.quantizer.lookup(ids) - z).detach())
            y = zq + decoder(zq).float()
        error = (y - target).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        (error + plan.commitment * own).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        falling = (1 + math.cos(math.pi * step / plan.steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * min(1.0, (step + 1) / plan.warm_up) * falling
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
        whole = min(750, len(sound)) // model.config.stride * model.config.stride
        frames = torch.from_numpy(sound[:whole].astype(np.float32))[None]
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


# --- measuring


def measure(folder: Path, data: Path, work: Path, found: dict) -> dict:
    """Everything the card reports, on the exported files.

    Quality on the LibriTTS sentences (real speakers, 24 kHz, at most 10 seconds of each); use of the codes on them
    and on all other held-out sound."""
    rows, seconds = [], {}
    waves = [wave[: 10 * mel.RATE] for kind, _, wave in recordings(data) if kind == "test"]
    for name, versions in arms(folder, work).items():
        for label, copies in versions(waves, seconds).items():
            scores = [
                [metric(wave, copy) for metric in METRICS.values()] for wave, copy in zip(waves, copies, strict=True)
            ]
            rows.append(
                {"codec": name, "levels": label, **dict(zip(METRICS, np.mean(scores, 0).tolist(), strict=True))}
            )
            print(json.dumps(rows[-1]), flush=True)
    counts = {}
    for name in codec.NAMES:
        made = codec.Codec(name, folder)
        stats = CodebookStats(made.sizes)
        for sound in (*found["dev"], *found["test"]):
            stats.update(made.encode_frames(sound.astype(np.float32)).T[None])
        counts[name] = [stats.histogram(level).tolist() for level in range(len(made.sizes))]
    known = {}  # the share of rvq8's codes that come up in sound of each kind that it was trained on, and in all kinds
    for kind in (*SHARES, "all"):
        made = codec.Codec("rvq8", folder)
        stats = CodebookStats(made.sizes)
        for part in SHARES if kind == "all" else (kind,):
            flat = np.concatenate(found[part])
            for i in np.linspace(0, len(flat) - 500, min(len(flat), 30_000) // 500).astype(int):
                stats.update(made.encode_frames(flat[i : i + 500].astype(np.float32)).T[None])
        known[kind] = [stats.used_fraction(level) for level in range(len(made.sizes))]
    held_out = {"seconds": sum(map(len, (*found["dev"], *found["test"]))) / mel.FRAME_RATE, "counts": counts}
    (folder / codec.HELD_OUT).write_text(json.dumps(held_out, separators=(",", ":")) + "\n", "utf-8")
    length = sum(map(len, waves)) / mel.RATE
    result = {"rows": rows, "seconds": seconds, "length": length, "clips": len(waves), "counts": counts, "known": known}
    result["seconds_held_out"] = held_out["seconds"]
    (work / "measured.json").write_text(json.dumps(result, indent=1))
    return result


METRICS = {
    "pesq": lambda wave, copy: metrics.pesq_wb(wave, copy, mel.RATE),
    "stoi": lambda wave, copy: metrics.stoi(wave, copy, mel.RATE),
    "mel": lambda wave, copy: metrics.mel_distance(wave, copy, mel.RATE),
}


def arms(folder: Path, work: Path) -> dict:
    """name -> function(waves, seconds) -> {label: copies}; what it takes is added to `seconds`."""

    def of(made: codec.Codec, levels: tuple[int, ...]):
        def versions(waves: list, seconds: dict) -> dict[str, list]:
            start = time.process_time()
            ids = [made.encode(wave) for wave in waves]
            encoded = time.process_time()
            out = {}
            for k in levels:
                begun = time.process_time()
                out[str(k)] = [made.decode(i[:k], len(wave)) for i, wave in zip(ids, waves, strict=True)]
            seconds[made.name] = {"encode": encoded - start, "decode": time.process_time() - begun}
            return out

        return versions

    def ceiling(waves: list, seconds: dict) -> dict[str, list]:
        return {"-": [mel.MelSynth().wave(mel.log_mel(wave))[: len(wave)] for wave in waves]}

    def chance(waves: list, seconds: dict) -> dict[str, list]:
        made, rng = codec.Codec("rvq8", folder), np.random.default_rng(0)
        shapes = [(8, -(-len(wave) // mel.HOP)) for wave in waves]
        return {
            "8": [made.decode(rng.integers(0, 1024, shape), len(w)) for shape, w in zip(shapes, waves, strict=True)]
        }

    def classical(kbps: int):
        def versions(waves: list, seconds: dict) -> dict[str, list]:
            coded = [opus(wave, kbps) for wave in waves]
            real = 8e-3 * sum(size for _, size in coded) / (sum(map(len, waves)) / mel.RATE)
            return {f"{real:.1f} kbps": [copy for copy, _ in coded]}

        return versions

    bare = work / "stage0"
    return {
        "rvq8": of(codec.Codec("rvq8", folder), tuple(range(1, 9))),
        "rvq8, stage 0": of(codec.Codec("rvq8", bare, "torch"), tuple(range(1, 9))),
        "vq1": of(codec.Codec("vq1", folder), (1,)),
        "vq1, stage 0": of(codec.Codec("vq1", bare, "torch"), (1,)),
        "frames without codes": ceiling,
        "random codes": chance,
        "Opus": classical(8),
        "Opus, more": classical(16),
    }


def export(args: argparse.Namespace, found: dict) -> None:
    """Write both codecs and, in WORK, their stage 0; the shipped ones are those of stage 1."""
    made, bare = {}, {}
    for plan in PLANS:
        crops = Crops(found, plan)
        made[plan.name] = new_model(plan, crops, args.work)
        made[plan.name].load_state_dict(torch.load(args.work / f"{plan.name}.pt")["model"])
        bare[plan.name] = new_model(replace(plan, model=replace(plan.model, encoder=0, decoder=0)), crops, args.work)
    codec.save(bare, args.work / "stage0")
    codec.save(made, args.export)
    codec.export(args.export)


# --- the card


def verdict(found: dict) -> str:
    rows = {(row["codec"], row["levels"]): row for row in found["rows"]}
    best, ks = rows["rvq8", "8"], [str(k) for k in range(1, 9)]
    better = all(
        rows["rvq8", k]["mel"] < rows["rvq8, stage 0", k]["mel"]
        and rows["rvq8", k]["pesq"] > rows["rvq8, stage 0", k]["pesq"]
        for k in ks
    )
    pairs = list(zip(ks, ks[1:], strict=False))
    rising = all(rows["rvq8", k]["mel"] > rows["rvq8", after]["mel"] for k, after in pairs)
    used = [float(np.mean(np.array(counts) > 0)) for counts in found["counts"]["rvq8"]]
    factor = sum(found["seconds"]["rvq8"].values()) / found["length"]
    return (
        f"**rvq8 at 6 kbps on speakers it has not heard: PESQ-WB {best['pesq']:.2f}** (aim: 2.1, "
        f"{met(best['pesq'] >= 2.1)}), **STOI {best['stoi']:.3f}** (aim: 0.84, {met(best['stoi'] >= 0.84)}); better "
        f"than stage 0 with every number of levels by PESQ and mel distance ({met(better)}); closer with every "
        f"level ({met(rising)}); {min(used):.1%} to {max(used):.1%} of a level's codes in use (aim: 90 % of each, "
        f"{met(min(used) >= 0.9)}); real-time factor {factor:.2f} on one core (aim: 0.2, {met(factor < 0.2)})."
    )


def met(holds: bool) -> str:
    return "met" if holds else "not met"


def tables(rows: list[dict]) -> str:
    out = ["| codec | levels or rate | PESQ-WB | STOI | mel distance [Np] |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        scores = f"{row['pesq']:.2f} | {row['stoi']:.3f} | {row['mel']:.3f}"
        out.append(f"| {row['codec']} | {row['levels']} | {scores} |")
    return "\n".join(out)


def use(found: dict) -> str:
    out = ["| codebook | codes | tokens counted | used | perplexity |", "| --- | --- | --- | --- | --- |"]
    for name, levels in found["counts"].items():
        for level, counts in enumerate(levels):
            stats = CodebookStats((len(counts),))
            stats.update(np.repeat(np.arange(len(counts)), counts)[None])
            title = f"{name}, level {level + 1}" if len(levels) > 1 else name
            used = f"{stats.used_fraction():.1%} | {stats.perplexity():.0f}"
            out.append(f"| {title} | {len(counts):,} | {sum(counts):,} | {used} |")
    return "\n".join(out)


def curve(log: list[dict]) -> str:
    """What `look` saw of held-out sounds while a codec was trained."""
    seen = [entry for entry in log if "error" in entry]
    levels = list(seen[-1]["error"])
    out = [
        "| step | minutes | " + " | ".join(f"error with {k}" for k in levels) + " |",
        "| --- " * (len(levels) + 2) + "|",
    ]
    for entry in seen:
        errors = " | ".join(f"{entry['error'][k]:.3f}" for k in levels)
        out.append(f"| {entry['step']:,} | {entry['seconds'] / 60:.1f} | {errors} |")
    return "\n".join(out)


def write_card(folder: Path, work: Path, found: dict, frames: dict) -> None:
    """folder/card.md, from the logs, the checkpoints and what `measure` found."""
    runs, curves = [], []
    for plan in PLANS:
        state = torch.load(work / f"{plan.name}.pt")
        entries = map(json.loads, (work / f"{plan.name}.jsonl").read_text().splitlines())
        log = list({entry["step"]: entry for entry in entries}.values())  # a resumed run does some steps again
        runs.append(f"| {plan.name} | {state['step']:,} of {plan.steps:,} | {state['seconds'] / 60:.0f} |")
        curves.append(f"{plan.name}, error of held-out frames [Np] with so many levels:\n\n{curve(log)}\n")
    plan, model = PLANS[0], codec.Codec("rvq8", folder).torch
    factors = {name: sum(each.values()) / found["length"] for name, each in found["seconds"].items()}
    values = asdict(plan) | asdict(plan.model) | {
        "parameters": sum(p.numel() for net in (model.encoder, model.decoder) for p in net.parameters()),
        "verdict": verdict(found),
        "hours": round(sum(len(one) for kind in SHARES for one in frames[kind]) / mel.FRAME_RATE / 3600, 1),
        "voices": len(VARIANTS),
        "runs": "\n".join(runs),
        "curves": "\n".join(curves),
        "clips": found["clips"],
        "length": found["length"],
        "tables": tables(found["rows"]),
        "factors": ", ".join(f"{name} {factor:.3f}" for name, factor in factors.items() if "stage" not in name) + ".",
        "use": use(found),
        "held_out": found["seconds_held_out"] / 60,
        "known": "; ".join(f"{kind}: {min(used):.0%} to {max(used):.0%}" for kind, used in found["known"].items()),
        "first": "; ".join(f"{kind}: {used[0]:.0%}" for kind, used in found["known"].items()),
    }  # fmt: skip
    (folder / "card.md").write_text(TEMPLATE.read_text("utf-8").format_map(values), "utf-8")


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
    if given.export:
        export(given, found)
        write_card(given.export, given.work, measure(given.export, given.data, given.work, found), found)
        return
    for plan in PLANS:
        if given.only in (None, plan.name) and not train(plan, found, given.work, until):
            raise SystemExit(f"{plan.name} is not done; please run again to go on.")


if __name__ == "__main__":
    main()
