"""Writes card.md of a small language model from what the recipe logged and measured."""

import json
from pathlib import Path

from tokenlab import stories

TEMPLATE = Path(__file__).with_suffix(".md")


def curve(log: list[dict], rows: int = 14) -> tuple[str, int]:
    """The log in about `rows` rows of a Markdown table, and how many logged steps one row averages."""
    each = max(1, len(log) // rows)
    lines = []
    for start in range(0, len(log), each):
        part = log[start : start + each]
        last = part[-1]
        cells = [f"{last['step']:,}", f"{last['tokens']:,}", str(last["row"])]
        for name in ("answers", "text"):
            values = [entry[name] for entry in part if entry[name] is not None and entry[name] == entry[name]]
            cells.append(f"{sum(values) / len(values):.2f}" if values else "")
        for split in stories.SPLITS:
            values = [entry[f"recall_{split}"] for entry in part if f"recall_{split}" in entry]
            cells.append(f"{sum(values) / len(values):.0%}" if values else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), each


def verdict(found: dict, recall_aim: bool) -> str:
    """What became of the aims, in one paragraph computed from the numbers."""
    near = [row for row in found["recall"] if row["distance"] <= 512]
    recall = sum(row["recall"] for row in near) / len(near)
    chance = sum(row["chance"] for row in near) / len(near)
    parts = []
    aim = f" (aim: 90 %, {'met' if recall >= 0.9 else 'not met'})" if recall_aim else ""
    parts.append(
        f"**Held-out recall within {near[-1]['distance']} tokens: {recall:.0%}**{aim}; a guess gets {chance:.0%}."
    )
    for name, bits in found["bits"].items():
        gain = 1 - bits["model"] / bits["ngram"]
        parts.append(
            f"Bits per byte on {name}: {bits['model']:.3f}, {abs(gain):.1%} {'below' if gain >= 0 else 'above'} an "
            f"order-5 n-gram (aim: 15 % below, {'met' if gain >= 0.15 else 'not met'})."
        )
    return " ".join(parts)


def write(folder: Path, plan, work: Path, found: dict, tables: str) -> None:
    """folder/card.md; found: what train_lm.measure gives; tables: its numbers as Markdown."""
    import torch

    state = torch.load(work / "checkpoint.pt")
    lines = map(json.loads, (work / "log.jsonl").read_text().splitlines())
    log = list({entry["step"]: entry for entry in lines}.values())  # a resumed run does some steps again
    rows, each = curve(log)
    stages = ", ".join(f"{stage.steps:,} of {stage.row} ({stage.tokens:,} tokens a step)" for stage in plan.stages)
    samples = "".join(f"> {prompt} **{text.strip()}**\n\n" for prompt, text in found["samples"])
    twice = [stage.twice for stage in plan.stages]
    natural = sum(stage.natural * stage.steps * stage.tokens for stage in plan.stages)
    natural /= sum(stage.steps * stage.tokens for stage in plan.stages)
    values = {
        "name": folder.name,
        "parameters": found["parameters"],
        "layers": plan.layers,
        "hidden": plan.hidden,
        "heads": plan.heads,
        "width": plan.hidden // plan.heads,
        "inner": plan.inner,
        "context": plan.context,
        "vocabulary": plan.vocabulary,
        "verdict": verdict(found, plan.recall_aim),
        "told": 1 - natural - sum(twice) / len(twice),
        "natural": natural,
        "twice": f"{max(twice):.0%} falling to {min(twice):.0%}",
        "step": state["step"],
        "tokens": state["tokens"],
        "seed": plan.seed,
        "minutes": state["seconds"] / 60,
        "stages": stages,
        "muon": plan.muon_rate,
        "adam": plan.adam_rate,
        "decay": plan.decay,
        "warm_up": plan.warm_up,
        "choice": plan.choice_weight,
        "weight": plan.answer_weight,
        "tried": plan.tried,
        "curve": rows,
        "each": each,
        "n": 5 * len(stories.KINDS),
        "tables": tables,
        "samples": samples,
    }
    (folder / "card.md").write_text(TEMPLATE.read_text("utf-8").format_map(values), "utf-8")
