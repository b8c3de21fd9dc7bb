"""Makes assets/models/fqgan: the tokenizers that FQGAN compares, and FAR, which writes the tokens of one of them.

python recipes/fqgan.py                              # train what is not there yet; can be stopped and resumed
python recipes/fqgan.py --export assets/models/fqgan # the same, then write weights, facts, graphs and card
python recipes/fqgan.py --teacher shapes-vlm         # one more: two books with a semantic branch; only printed

Trainings are kept in --work, which is also where `python -m tokenlab reproduce fqgan` looks: it needs the same ones,
and more of them. Photographs come with scikit-image and scikit-learn; nothing is downloaded.
"""

import argparse
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tokenlab import pictures
from tokenlab.codebooks import fqgan

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=fqgan.cache_folder())
    parser.add_argument("--export", type=Path)
    parser.add_argument("--teacher", help="a model with a vision transformer, such as shapes-vlm")
    args = parser.parse_args()
    bank, classes = fqgan.crops(fqgan.TRAINING, fqgan.CROPS, SEED)
    held, _ = fqgan.crops(fqgan.HELD_OUT, fqgan.HELD, SEED + 1)
    if args.teacher:
        with_teacher(args.teacher, bank, held)
        return
    work = fqgan.Work(args.work)
    models, facts = {}, {}
    for name, plan in fqgan.VARIANTS.items():
        models[name], seconds = fqgan.trained(plan, bank, work)
        judged = fqgan.judge(models[name], held, SEED)
        facts[name] = fqgan.fact_sheet(judged, plan, seconds)
        print(line(name, facts[name]), flush=True)
    main_model = models[fqgan.MAIN]
    written = fqgan.generation(main_model, bank, classes, held, SEED, work, fqgan.FAR_STEPS)
    print(f"FAR: {written.nats} nats per code, {written.seconds:.0f} s", flush=True)
    if args.export:
        export(args.export, models, facts, written)


def line(name: str, told: dict) -> str:
    return f"{name}: PSNR {told['psnr']} dB, used {told['used']}, cos² {told['cosines']}, {told['training_seconds']} s"


def export(folder: Path, models: dict, facts: dict, written: fqgan.Written) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        fqgan.write(folder / fqgan.file_name(name), model, facts[name]["training_seconds"])
    fqgan.write(folder / fqgan.FAR_WEIGHTS, written.far, written.seconds)
    everything = {"tokenizers": facts, "far": {**written.nats, "training_seconds": round(written.seconds)}}
    (folder / "facts.json").write_text(json.dumps(everything, separators=(",", ":")) + "\n", "utf-8")
    fqgan.export(models[fqgan.MAIN], written.far, folder, fqgan.file_name(fqgan.MAIN), fqgan.FAR_WEIGHTS)
    (folder / "card.md").write_text(card(models, facts, written), "utf-8")
    print(f"{folder}: {sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


def card(models: dict, facts: dict, written: fqgan.Written) -> str:
    plan = fqgan.VARIANTS[fqgan.MAIN]
    rows = []
    for name, told in facts.items():
        several = len(told["plan"]["sizes"]) > 1
        cells = [name, f"{sum(p.numel() for p in models[name].parameters()):,}", f"{told['psnr']:.2f}"]
        cells.append(" + ".join(f"{100 * share:.0f}" for share in told["used"]))
        cells.append(f"{told['cosines']:.4f}" if several else "")
        cells.append(f"{told['information']['1-2'][0]:.2f}" if several else "")
        cells.append(f"{told['training_seconds']:,}")
        rows.append("| " + " | ".join(cells) + " |")
    shown = [pictures.label(f"photo:{name}") for name in (*fqgan.TRAINING, *fqgan.HELD_OUT)]
    seen, unseen = shown[: len(fqgan.TRAINING)], shown[len(fqgan.TRAINING) :]
    far = (
        f"FAR ({sum(p.numel() for p in written.far.parameters()):,} parameters, {fqgan.FAR_STEPS:,} steps, tokens of "
        f"{fqgan.MAIN}): {written.nats['chained'][0]:.2f} and {written.nats['chained'][1]:.2f} nats per code of "
        f"branch 1 and 2 on held-out crops; with independent heads {written.nats['parallel'][0]:.2f} and "
        f"{written.nats['parallel'][1]:.2f}."
    )
    data = (
        f"{fqgan.CROPS:,} crops, at full, half and quarter size, mirrored or not, of photographs that ship with "
        f"scikit-image and scikit-learn (their terms apply): {', '.join(seen)}. Never trained on: {', '.join(unseen)}."
    )
    return f"""# fqgan

Small factorised picture tokenizers (8 x 8 pixels per token) with the single-codebook twins that they are compared
with, and FAR, a small autoregressive model with a factorised head. They are made for comparing, not for pictures:
all are trained for {plan.steps:,} steps on crops of {len(seen)} photographs.

| tokenizer | parameters | PSNR, held out [dB] | codes used [%] | cos² | shared by ids [nats] | training [CPU s] |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

{fqgan.HELD:,} held-out crops of 48 x 48 pixels, {facts[fqgan.MAIN]["tokens"]:,} tokens. cos²: mean squared cosine of
the code vectors of a token; shared by ids: mutual information of its first two ids, chance level taken off.

{textwrap.fill(far, 118)}

## Files

<tokenizer>.safetensors and far.safetensors: float16 weights, for `tokenlab.codebooks.fqgan`. facts.json: the numbers
above, code counts and co-occurrences. encode.onnx and decode.onnx ({fqgan.MAIN}: pixels to ids and back), context.onnx
and head.onnx (FAR: the state before a token, the logits of its codes); their weights are those of the safetensors
files.

## Data and recipe

    python recipes/fqgan.py --export assets/models/fqgan

{textwrap.fill(data, 118)}

AdamW, rate {plan.rate:g} falling to 5 %, {plan.batch} crops per step, seed {SEED}, one CPU core. Loss: L1 and squared
error of pixels, codebook and commitment (0.25) errors, entropy term (0.03), squared cosines of code pairs (0.1 unless
the name says otherwise). No adversarial and no perceptual loss; no semantic branch.

## Licence

As the rest of this repository.
"""


def with_teacher(name: str, bank: np.ndarray, held: np.ndarray) -> None:
    """Train two books with the last one tied to the [CLS] feature of a vision transformer, and print what comes out.

    A teacher that has only seen drawn scenes knows little about photographs, so this is not among what ships."""
    from tokenlab.models.vision import vision_transformer

    encoder = vision_transformer(name)

    def teacher(crops: np.ndarray) -> torch.Tensor:
        resized = np.stack([pictures.square(crop, encoder.size) for crop in crops])
        with torch.no_grad():
            return encoder.torch(encoder.pixels(resized)).last_hidden_state[:, 0]

    model = fqgan.train(fqgan.VARIANTS[fqgan.MAIN], bank, teacher)
    print(line("semantic", fqgan.fact_sheet(fqgan.judge(model, held, SEED), model.plan, 0.0)))


if __name__ == "__main__":
    main()
