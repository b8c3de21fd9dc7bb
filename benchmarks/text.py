"""Tokenizers: what TokenLab adds to the bare libraries, and what each system of the family costs beside the plain way
of doing the same. Prints ratios measured in one run.

python -m benchmarks.text [SLUG ...]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from tokenlab.text import compare, metrics, samples, sources

BYTES = 100_000
ROUNDS = 15
Job = Callable[[], object]
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


def timed(work: Job) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(jobs: dict[str, Job]) -> dict[str, float]:
    """Median seconds of each job; the jobs take turns, so that a busy machine hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # warm
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            seconds[name].append(timed(job))
    return {name: statistics.median(values) for name, values in seconds.items()}


def overhead() -> None:
    """Encoding and the comparison's numbers, relative to the libraries alone."""
    sample, libraries = text(), bare()
    tokenizers = [sources.load(ref) for ref in REFS]

    def numbers() -> None:
        facts = metrics.text_facts(sample)
        for tokenizer in tokenizers:
            metrics.measure(facts, tokenizer, tokenizer.encode(sample), 1.0)

    jobs: dict[str, Job] = {
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


# --- the systems of the family: plain way -> this system's way of the same work


def less_is_better() -> tuple[str, Job, str, Job]:
    from tokenlab.text import less_is_better as lib
    from tokenlab.text import story_corpus

    lexicon, _ = lib.shipped_lexicon()
    train = lib.sentences(story_corpus.stories(1500, 0), spaces=True)
    test = lib.sentences(story_corpus.stories(60, 1), spaces=True)
    bpe, ours = lib.bpe_cutter(train, len(lexicon.entries())), lib.lib_cutter(lexicon, 0.0)
    return (
        f"BPE of `tokenizers` with {len(bpe.entries):,} entries on {len(test)} sentences",
        lambda: [bpe.cut(sentence) for sentence in test],
        "greedy matching with the lexicon, in Python",
        lambda: [ours.cut(sentence) for sentence in test],
    )


def data_mixture() -> tuple[str, Job, str, Job]:
    from tokenlab.text import categories
    from tokenlab.text import data_mixture as mixture

    names = categories.NAMES[:6]
    secret = mixture.mix(names, np.full(len(names), 1 / len(names)), 300_000)
    merges = mixture.train(secret.texts, 300)

    def attack() -> None:
        diary = mixture.keep_diary(secret.samples("other half"), merges, len(merges))
        mixture.MixtureProgram(diary).solve(len(merges))

    return (
        "training the BPE that is attacked: 300 merges on 0.3 MB",
        lambda: mixture.train(secret.texts, 300),
        "counting its merges in 6 samples, and the linear program",
        attack,
    )


def byte_probabilities() -> tuple[str, Job, str, Job]:
    from tokenlab import models
    from tokenlab.text.byte_probabilities import ExactBytes

    model = ExactBytes.of(models.causal_lm("tinylm"))
    prompt = b"Once upon a time there was a small village by the sea. Otto walked to the mark"
    return (
        "tinylm's next token: one pass over the prompt",
        lambda: model.next(model.naive(model.read(prompt))),
        "its exact next byte, for a prompt that ends in mid-word",
        lambda: model.next(model.exact(model.read(prompt))),
    )


def dahsf() -> tuple[str, Job, str, Job]:
    from tokenlab.text import dahsf as digestion

    said = [sentence for sentence, _ in digestion.open_set("english")[:40]]
    forest, learned = digestion.domain_rules("english"), digestion.stored_parser(digestion.JUDGED)
    return (
        f"the learned parser on {len(said)} sentences, one at a time",
        lambda: [learned.answers([sentence]) for sentence in said],
        "digestion by the rules",
        lambda: [forest.commands_in(sentence) for sentence in said],
    )


def xgrammar() -> tuple[str, Job, str, Job]:
    from tokenlab import models
    from tokenlab.text import xgrammar as engine

    model = models.causal_lm("tinylm")
    words = engine.vocabulary(model.tokenizer, model.vocabulary_size, model.end)
    preset = engine.PRESETS["JSON schema"]
    automaton = engine.automaton_of(preset.grammar)
    cache = engine.MaskCache(automaton, words)
    pieces = [piece.data for piece in engine.cut(model.tokenizer, preset.example)]

    def masks(mask: Callable[[engine.Parser], np.ndarray]) -> None:
        parser = engine.Parser(automaton)
        for piece in pieces:
            mask(parser)
            parser.accept(piece)

    return (
        f"masks of {len(pieces)} steps of a JSON schema, every token of the vocabulary on the stacks",
        lambda: masks(lambda parser: engine.naive_mask(parser, words)),
        "the same masks from the cache with look-ahead, entries made",
        lambda: masks(cache.mask),
    )


SYSTEMS = (less_is_better, data_mixture, byte_probabilities, dahsf, xgrammar)


def systems(slugs: Sequence[str]) -> None:
    """One line each: both ways of the same work take turns."""
    for system in SYSTEMS:
        slug = system.__name__.replace("_", "-")
        if slugs and slug not in slugs:
            continue
        plain, base, own, work = system()
        seconds = alternate({plain: base, own: work})
        print(f"\n{slug}")
        for name, value in seconds.items():
            print(f"  {name:84} {value * 1e3:10.2f} ms   {value / seconds[plain]:8.3f} x")


def main() -> None:
    torch.set_num_threads(1)
    if not sys.argv[1:]:
        overhead()
    systems(sys.argv[1:])


if __name__ == "__main__":
    main()
