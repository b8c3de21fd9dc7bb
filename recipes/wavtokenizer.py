"""Makes assets/models/wavtokenizer: one codebook instead of eight, with everything else alike.

python recipes/wavtokenizer.py --data DATA --work WORK                                     # train; can be resumed
python recipes/wavtokenizer.py --data DATA --work WORK --export assets/models/wavtokenizer # write and measure

DATA and WORK are those of recipes/codec.py, whose frames and training these are; trainings are kept in
WORK/wavtokenizer. All have the same trunk, as many steps and as many frames per step. What the claim needs comes first.
Three trainings of each side of the claim, one of the others; those that no panel runs are only measured.
"""

import argparse
import datetime
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch

from recipes import codec as shared
from tokenlab.audio import codec, mel, wavtokenizer
from tokenlab.audio.codec import Codec, Config

STEPS, CROP, BATCH = 1500, 128, 20
TRUNK = Config(width=112, encoder=2, decoder=3)
# A code is awakened when it is used less than a tenth as often as it would be if all were used alike. The paper's
# threshold, 2 of about 9,000 vectors a step with 4,096 codes, is nine tenths of even use.
RARE = 0.1
CLIP_SECONDS = 10  # at most, of each LibriTTS sentence
MIX, MIX_BATCHES = 1_000_000, 40  # batches of which the use of codes is counted: numbers that no training reaches


def plan(name: str, size: int, levels: int = 1, seed: int = 0, crop: int = CROP, rare: float = RARE, **trunk):
    model = replace(TRUNK, sizes=(size,) * levels, **trunk)
    even = CROP * BATCH / model.stride / size
    return shared.Plan(name, model, STEPS, crop, CROP * BATCH // crop, dead_below=rare * even, seed=seed)


def claimed(seed: int) -> list[shared.Plan]:
    one, first, small = (
        wavtokenizer.trained(name, seed) for name in (wavtokenizer.MAIN, wavtokenizer.FIRST, wavtokenizer.SMALL)
    )
    return [plan(one, 4096, seed=seed), plan(first, 1024, 8, seed=seed), plan(small, 1024, seed=seed)]


PLANS = (
    *(one for seed in range(wavtokenizer.SEEDS) for one in claimed(seed)),
    plan("vq1-37.5", 4096, stride=2),
    plan("vq1-256", 256),
    plan("vq1-4096-attention", 4096, attention=True),
    plan("vq1-16384", 16384),
    plan("vq1-4096-asleep", 4096, rare=0.0),
    plan("vq1-4096-attention-1s", 4096, attention=True, crop=80),
    plan("vq1-4096-attention-4s", 4096, attention=True, crop=320),
)
SHIPPED = {one.name for one in PLANS[: 3 * wavtokenizer.SEEDS]} | set(wavtokenizer.SHIPPED)


# --- measuring


def finished(one: shared.Plan, work: Path) -> tuple[codec.MelCodec, float]:
    """A training's model and its seconds. SystemExit: it is not done."""
    path = work / f"{one.name}.pt"
    state = torch.load(path) if path.exists() else {"step": 0}
    if state["step"] < one.steps:
        raise SystemExit(f"{one.name} is not done; please run without --export to go on.")
    model = codec.MelCodec(one.model)
    model.load_state_dict(state["model"])
    return model.eval(), state["seconds"]


def export(folder: Path, data: Path, work: Path, found: dict, plans: tuple[shared.Plan, ...] = PLANS) -> None:
    """Write what ships, and what was measured of all; measurements are kept in `work` until their training changes."""
    done = {one.name: finished(one, work) for one in plans}
    everything = work / "models"
    codec.save({name: model for name, (model, _) in done.items()}, everything)
    codec.save({name: model for name, (model, _) in done.items() if name in SHIPPED}, folder)
    codec.export(folder)
    clips = [wave[: CLIP_SECONDS * mel.RATE] for kind, _, wave in shared.recordings(data) if kind == "test"]
    held_out = [sound.astype(np.float32) for sound in (*found["dev"], *found["test"])]
    crops = shared.Crops(found, PLANS[0])
    mix = [crops.batch(MIX + i).numpy() for i in range(MIX_BATCHES)]
    arms, counts = {}, {}
    for one in plans:
        path = work / f"{one.name}.measured.json"
        if not path.exists() or path.stat().st_mtime < (work / f"{one.name}.pt").stat().st_mtime:
            path.write_text(json.dumps(measured(one, Codec(one.name, everything, "torch"), clips, held_out, mix)))
        arms[one.name] = json.loads(path.read_text())
        counts[one.name] = arms[one.name].pop("counts")
        arms[one.name]["training_seconds"] = round(done[one.name][1])
        print(one.name, json.dumps(arms[one.name]), flush=True)
    yardsticks = {
        wavtokenizer.FULL: wavtokenizer.unquantised(clips),
        wavtokenizer.RANDOM: wavtokenizer.chance(Codec(wavtokenizer.MAIN, folder), clips),
    }
    seconds = sum(map(len, held_out)) / mel.FRAME_RATE
    facts = {
        "date": datetime.date.today().isoformat(),
        "clips": len(clips),
        "real_seconds": sum(map(len, clips)) / mel.RATE,
        "seconds": seconds,
        "arms": arms,
        **{name: means(scores) for name, scores in wavtokenizer.judge(clips, yardsticks).items()},
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    kept = {"seconds": seconds, "counts": {name: counts[name] for name in counts if name in SHIPPED}}
    (folder / codec.HELD_OUT).write_text(json.dumps(kept, separators=(",", ":")) + "\n", "utf-8")
    (folder / "card.md").write_text(card(facts), "utf-8")
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


def measured(
    one: shared.Plan, made: Codec, clips: list[np.ndarray], held_out: list[np.ndarray], mix: list[np.ndarray]
) -> dict:
    """One training on real speakers, by number of levels, and the use of its codes on all held-out sound and, for
    comparison, on batches (B, F, 100) as those of training."""
    most = len(made.sizes)
    keep = range(1, most + 1) if one.seed == 0 else sorted({1, most})
    copies = {str(k): wavtokenizer.through(made, clips, k) for k in keep}
    levels = {k: means(scores) for k, scores in wavtokenizer.judge(clips, copies).items()}
    stats = wavtokenizer.use(made, held_out)
    heard = wavtokenizer.use(made, [crop for batch in mix for crop in batch], 1)
    return {
        "sizes": list(made.sizes),
        "rate": made.frame_rate,
        "steps": one.steps,
        "crop": one.crop,
        "seed": one.seed,
        "levels": levels,
        "used": round(stats.used_fraction(), 4),
        "perplexity": round(stats.perplexity(), 1),
        "tokens": stats.counted(),
        "mix": {
            "used": round(heard.used_fraction(), 4),
            "perplexity": round(heard.perplexity(), 1),
            "tokens": heard.counted(),
        },
        "counts": [stats.histogram(level).tolist() for level in range(most)],
    }


def means(found: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over clips; ValueError: one has no value."""
    if not all(np.isfinite(values).all() for values in found.values()):
        raise ValueError("a metric has no value for one of the clips; is the package pesq there?")
    return {name: round(float(values.mean()), 4) for name, values in found.items()}


def card(facts: dict) -> str:
    rows = []
    for name, arm in facts["arms"].items():
        for keep, found in arm["levels"].items():
            several = len(arm["sizes"]) > 1
            used = f"{100 * arm['used']:.1f} | {arm['perplexity']:,.0f}" if keep == "1" else " | "
            cells = [
                f"{name}, {keep} of {len(arm['sizes'])} levels" if several else name,
                f"{arm['rate'] * int(keep):g}",
                *(f"{found[metric]:.3f}" for metric in wavtokenizer.METRICS),
                used,
                f"{arm['training_seconds']:,}",
            ]
            rows.append("| " + " | ".join(cells) + " |")
    for name in (wavtokenizer.FULL, wavtokenizer.RANDOM):
        rows.append(
            f"| {name} |  | " + " | ".join(f"{facts[name][m]:.3f}" for m in wavtokenizer.METRICS) + " |  |  |  |"
        )
    names = "\n".join(
        f"- {name.removeprefix('twin ')}: {what}" for name, what in wavtokenizer.ABOUT.items() if "twin" in name
    )
    return f"""# wavtokenizer

Small audio codecs for comparing one large codebook with several small ones, as WavTokenizer (Ji et al. 2024) does.
They turn log-mel frames into tokens (75 a second) and back; Griffin-Lim makes sound of the frames. For listening, take
the codecs of assets/models/codec: they are larger and were trained for longer.

{names}

-seed1, -seed2: trained again from another seed.

| training | tokens a second | PESQ-WB | STOI | mel distance [Np] | codes used [%] | perplexity | training [s] |
| --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

PESQ, STOI and mel distance: {facts["clips"]} sentences of LibriTTS, {facts["real_seconds"]:.0f} s, whose speakers no
training has heard. Use of the (first) codebook: {facts["seconds"] / 60:.0f} minutes of held-out sound. Measured
{facts["date"]}. Only measured, not stored: vq1-16384; vq1-4096-asleep, whose rare codes were never moved;
vq1-4096-attention-1s and -4s, trained on crops of 1.1 and 4.3 s (the others: 1.7 s).

## Files

<name>.safetensors: float16 weights. <name>.encode.onnx, <name>.decode.onnx: frames to ids and back, with the weights of
the safetensors file. config.json: sizes. held_out.json: how often each code came up on held-out sound. facts.json: the
numbers above. `tokenlab.audio.codec.Codec(name, folder)` reads them.

## Data and recipe

    python recipes/wavtokenizer.py --data DATA --work WORK --export assets/models/wavtokenizer

The data, its licences and the speakers held out are those of assets/models/codec/card.md. {STEPS:,} steps of
{CROP * BATCH:,} frames, AdamW, rate 0.0015 falling to 0, one CPU core. Codebooks start at k-means clusters of 60,000
frames and follow exponential averages (decay 0.99, Laplace smoothing 1e-5); a code used less than a tenth as often as
even use moves to a random vector. Loss: mean absolute error of the frames, and commitment (2). rvq8: in 60 % of crops
a random number of levels is left out. No discriminator.

## Licence

As the rest of this repository.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=180.0, help="stop after this; run again to go on")
    parser.add_argument("--only", choices=[plan.name for plan in PLANS])
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer, to try it out")
    parser.add_argument("--export", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    found, until = shared.frames(given.data, given.work), time.monotonic() + 60 * given.minutes
    work = given.work / "wavtokenizer"
    work.mkdir(exist_ok=True)
    plans = tuple(replace(one, steps=given.steps) for one in PLANS if given.only in (None, one.name))
    if given.export:
        export(given.export, given.data, work, found, plans)
        return
    for one in plans:
        if not shared.train(one, found, work, until):
            raise SystemExit(f"{one.name} is not done; please run again to go on.")


if __name__ == "__main__":
    main()
