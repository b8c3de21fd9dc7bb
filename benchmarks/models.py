"""Bundled models: ONNX Runtime against torch, in one run, one thread each.

python -m benchmarks.models [NAME ...]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import DynamicCache

from tokenlab import models
from tokenlab.audio import codec, mel
from tokenlab.models import onnx
from tokenlab.models.vision import vision_language_model
from tokenlab.pruning import reduction, scenes, vlm_onnx
from tokenlab.pruning.cls_attention import FasterVLM

LENGTHS = (16, 64, 256, 960)
ROUNDS = 15


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def torch_step(model: torch.nn.Module, ids: torch.Tensor, past: DynamicCache | None) -> DynamicCache:
    with torch.no_grad():
        return model(ids, past_key_values=past, use_cache=True).past_key_values


def medians(jobs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a busy machine hits all alike."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            seconds[name].append(job())
    return {name: statistics.median(values) for name, values in seconds.items()}


def compare(name: str) -> None:
    """Prefill of n tokens, and one more token behind them, in eager torch, torch's fused attention and ONNX."""
    model = models.causal_lm(name)
    eager, graph = model.torch, models.onnx_session(name)
    fused = type(eager).from_pretrained(models.FOLDER / name, attn_implementation="sdpa").eval()
    print(f"{name}: milliseconds, median of {ROUNDS}, one thread ({', '.join(graph.get_providers())})")
    print(f"{'':24}{'torch eager':>14}{'torch sdpa':>14}{'ONNX':>14}{'ONNX : eager':>14}")
    for n in LENGTHS:
        ids = np.random.default_rng(0).integers(3, model.vocabulary_size, (1, n))
        tensor, last = torch.from_numpy(ids), np.array([[5]])
        _, past = onnx.step(graph, ids)

        def decode(module: torch.nn.Module, tensor: torch.Tensor = tensor) -> float:
            cache = torch_step(module, tensor, None)  # a cache grows when it is used, so each round has its own
            return timed(lambda: torch_step(module, torch.tensor([[5]]), cache))

        rows = {
            f"prefill, {n} tokens": {
                "eager": lambda tensor=tensor: timed(lambda: torch_step(eager, tensor, None)),
                "sdpa": lambda tensor=tensor: timed(lambda: torch_step(fused, tensor, None)),
                "onnx": lambda ids=ids: timed(lambda: onnx.step(graph, ids)),
            },
            f"one token behind {n}": {
                "eager": lambda decode=decode: decode(eager),
                "sdpa": lambda decode=decode: decode(fused),
                "onnx": lambda last=last, past=past: timed(lambda: onnx.step(graph, last, past)),
            },
        }
        for label, jobs in rows.items():
            found = medians(jobs)
            numbers = "".join(f"{found[key] * 1e3:14.2f}" for key in ("eager", "sdpa", "onnx"))
            print(f"{label:24}{numbers}{found['eager'] / found['onnx']:12.2f} x")


def compare_pictures(name: str) -> None:
    """The image encoder with the attention of [CLS], and FasterVLM from pixels to the projected tokens."""
    model = vision_language_model(name)
    pruned = onnx.session(model.folder, vlm_onnx.FASTERVLM)
    print(f"{name}: milliseconds, median of {ROUNDS}, one thread ({', '.join(pruned.get_providers())})")
    print(f"{'':24}{'torch eager':>14}{'ONNX':>14}{'ONNX : eager':>14}")
    for batch in (1, 16):
        pixels = model.vision.pixels(np.stack([scenes.scene(i).pixels for i in range(batch)]))
        context = reduction.Context(36, model.torch.model.multi_modal_projector, model.vision.grid, 1, [])
        feed = {"pixels": pixels.numpy(), "keep": np.array(context.budget)}

        @torch.no_grad()
        def reduced(pixels: torch.Tensor = pixels, context: reduction.Context = context) -> None:
            FasterVLM().bridge(reduction.encode(model, pixels, onnx=False), context)

        rows = {
            f"encoder, {batch} at once": (
                lambda pixels=pixels: reduction.encode(model, pixels, onnx=False),
                lambda pixels=pixels: reduction.encode(model, pixels, onnx=True),
            ),
            f"FasterVLM, {batch} at once": (reduced, lambda feed=feed: pruned.run(None, feed)),
        }
        for label, pair in rows.items():
            found = medians({k: lambda job=job: timed(job) for k, job in zip(("eager", "onnx"), pair, strict=True)})
            numbers = "".join(f"{seconds * 1e3:14.2f}" for seconds in found.values())
            print(f"{label:24}{numbers}{found['eager'] / found['onnx']:12.2f} x")


def compare_sounds(name: str) -> None:
    """A codec's two networks on five seconds of sound, and how long the way around them takes."""
    eager, graph = codec.Codec(name, backend="torch"), codec.Codec(name)
    wave = np.random.default_rng(0).normal(0, 0.1, 5 * mel.RATE).astype(np.float32)
    frames, ids = mel.log_mel(wave), graph.encode(wave)
    print(f"{name}: milliseconds for 5 seconds of sound, median of {ROUNDS}, one thread")
    print(f"{'':24}{'torch eager':>14}{'ONNX':>14}{'ONNX : eager':>14}")
    for label, work in {
        "encode frames": lambda made: made.encode_frames(frames),
        "decode frames": lambda made: made.frames(ids),
        "sound to sound": lambda made: made.decode(made.encode(wave)),
    }.items():
        pair = {"eager": eager, "onnx": graph}
        found = medians({key: lambda made=made, work=work: timed(lambda: work(made)) for key, made in pair.items()})
        numbers = "".join(f"{seconds * 1e3:14.2f}" for seconds in found.values())
        print(f"{label:24}{numbers}{found['eager'] / found['onnx']:12.2f} x")


if __name__ == "__main__":
    torch.set_num_threads(1)
    jobs = dict.fromkeys(models.CAUSAL_LMS, compare) | dict.fromkeys(models.VLMS, compare_pictures)
    jobs |= dict.fromkeys(models.AUDIO_CODECS, compare_sounds)
    for chosen in sys.argv[1:] or jobs:
        jobs[chosen](chosen)
