"""Tokenizers: what TokenLab adds to the bare libraries. Prints ratios measured in one run.

python -m benchmarks.text
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tokenlab.text import compare, metrics, samples, sources

BYTES = 100_000
ROUNDS = 15
REFS = ("mistral-v3", "tekken-240911", "bytes")


def text() -> str:
    """100 KB of our mixed samples, repeated."""
    everything = "\n".join(samples.text(name) for name in samples.names())
    return (everything * (BYTES // len(everything.encode()) + 1)).encode()[:BYTES].decode("utf-8", "ignore")


def bare() -> dict[str, Callable[[str], object]]:
    """The same encoders without TokenLab."""
    import sentencepiece
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    data = Path(find_spec("mistral_common").origin).parent / "data"
    piece = sentencepiece.SentencePieceProcessor(model_file=str(data / "mistral_instruct_tokenizer_240323.model.v3"))
    tekken = Tekkenizer.from_file(data / "tekken_240911.json")._model
    return {"mistral-v3": piece.encode, "tekken-240911": tekken.encode_ordinary, "bytes": lambda t: list(t.encode())}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a busy machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            seconds[name].append(timed(job))
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    sample, libraries = text(), bare()
    tokenizers = [sources.load(ref) for ref in REFS]

    def numbers() -> None:
        facts = metrics.text_facts(sample)
        for tokenizer in tokenizers:
            metrics.measure(facts, tokenizer, tokenizer.encode(sample), 1.0)

    jobs: dict[str, Callable[[], object]] = {
        "bare libraries": lambda: [encode(sample) for encode in libraries.values()],
        "encode through TokenLab (goal 1.05)": lambda: [tokenizer.encode(sample) for tokenizer in tokenizers],
        "encode and all numbers": numbers,
        "the whole comparison, strip included": lambda: compare.side_by_side(sample, tokenizers, False, None),
    }
    for ref, encode in libraries.items():
        jobs[f"  bare {ref}"] = lambda encode=encode: encode(sample)
        jobs[f"  TokenLab {ref}"] = lambda ref=ref: sources.load(ref).encode(sample)
    seconds = alternate(jobs)
    base = seconds["bare libraries"]
    print(f"{len(REFS)} tokenizers on {len(sample.encode()):,} bytes, median of {ROUNDS}")
    for name, value in seconds.items():
        print(f"{name:42} {value * 1e3:8.2f} ms   {value / base:6.2f} x bare")


if __name__ == "__main__":
    main()
