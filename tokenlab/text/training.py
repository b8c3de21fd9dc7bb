"""Train a tokenizer on a text: BPE, Unigram or WordPiece, with progress, a forecast and a way to stop.

A trained tokenizer is its recipe: the same recipe gives the same tokenizer.json, byte for byte, so a link carries
the recipe and a reference such as "trained:0123456789abcdef" names it by content. Training runs in a process of its
own (train_child.py, which says how each algorithm is set up), so it can be stopped at any moment.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from tokenlab import guard, limits
from tokenlab.errors import UserError
from tokenlab.text import samples
from tokenlab.text.tokenization import Tokenizer

ALGORITHMS = ("BPE", "Unigram", "WordPiece")
REFERENCE = re.compile(r"trained:[0-9a-f]{16}")
TRAVELS = 2_000  # characters of a pasted text that still fit into a link
FORECAST_FROM = 50_000  # characters: below, slices are too small to measure and training takes a moment
STAGES = 7  # vocabularies of a Unigram training that are shown before the finished one
FEW_STAGES = 3  # the same for texts of more than MANY characters, as each stage is a training
MANY = 300_000
LARGEST = 8  # the size of the first of them, as a multiple of the wanted size
PROGRESS_SECONDS = 0.1  # the least time between two reports
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Recipe:
    """What a tokenizer is trained with.

    algorithm: one of ALGORITHMS; vocabulary_size: all entries, the alphabet or the 256 bytes included (a short text
    may give fewer); sample: the name of a shipped text; text: a pasted one, used instead of the sample."""

    algorithm: str = "BPE"
    vocabulary_size: int = 500
    sample: str = "story"
    text: str = ""


@dataclass(frozen=True)
class Progress:
    """phase: "starting", "measuring", "reading", "merging" or "pruning", "done"; share: of this phase, 0 to 1, None
    when unknown; seconds: since the start; forecast_seconds: the whole, known after "measuring" for texts of at least
    FORECAST_FROM characters; forecast_bytes, peak_bytes: memory of the training process, expected and (at the end)
    true; ref: the tokenizer, at the end."""

    phase: str
    share: float | None = None
    seconds: float = 0.0
    forecast_seconds: float | None = None
    forecast_bytes: int | None = None
    peak_bytes: int | None = None
    ref: str | None = None


def check(recipe: Recipe) -> Recipe:
    """The recipe itself, or UserError: unknown algorithm or sample, size or text outside the limits."""
    if recipe.algorithm not in ALGORITHMS:
        raise UserError(f"There is no such algorithm; please choose one of {', '.join(ALGORITHMS)}.")
    size = recipe.vocabulary_size
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= limits.TRAINED_VOCABULARY:
        raise UserError(f"The vocabulary size must be a whole number from 1 to {limits.TRAINED_VOCABULARY:,}.")
    text = text_of(recipe)
    if not text.strip():
        raise UserError("There is nothing to train on; please paste a text or choose a sample.")
    limits.check_text(text, name="The training text", characters=limits.TRAINING_CHARACTERS)
    return recipe


def text_of(recipe: Recipe) -> str:
    """The text that the recipe trains on."""
    return recipe.text or samples.text(recipe.sample)


def make(recipe: Recipe) -> Iterator[Progress]:
    """Train the recipe's tokenizer and keep it; the last Progress holds its reference.

    UserError when the recipe is outside the limits, the vocabulary too small for the alphabet of the text, or memory
    runs out; TimeUp when the run is over its time. Closing the iterator ends the training."""
    ref = register(recipe)
    done = Progress("done", 1.0)
    if _kept(ref).tokenizer is None:
        text, begin = text_of(recipe), Progress("starting")
        (tokenizer,), done = yield from _train(
            recipe, (recipe.vocabulary_size,), text, begin, forecast=len(text) >= FORECAST_FROM
        )
        entry = _store.get(ref) or _Entry(recipe)  # it may be gone meanwhile, when others train much
        _store.put(ref, replace(entry, tokenizer=tokenizer, entries=_entries(tokenizer)))
    yield replace(done, phase="done", share=1.0, ref=ref)


def make_stages(ref: str) -> Iterator[Progress]:
    """Train the larger vocabularies from which Unigram arrived at this one (see `stages`)."""
    recipe = recipe_of(ref)
    if recipe.algorithm != "Unigram":
        raise UserError("Only Unigram prunes its vocabulary; please choose a Unigram tokenizer.")
    done = Progress("done", 1.0)
    if _kept(ref).stages is None:
        size, text = recipe.vocabulary_size, text_of(recipe)
        count = STAGES if len(text) <= MANY else FEW_STAGES
        made, done = yield from _train(recipe, (LARGEST * size,), text, Progress("starting"), of=count)
        largest = _entries(made[0])
        if largest > size:
            sizes = tuple(round(largest * (size / largest) ** (k / count)) for k in range(1, count))
            more, done = yield from _train(recipe, sizes, text, replace(done, phase="pruning"), before=1, of=count)
            made += more
        entry = _store.get(ref) or _Entry(recipe)
        _store.put(ref, replace(entry, stages=tuple(dict.fromkeys(made))))
    yield replace(done, phase="done", share=1.0, ref=ref)


def _entries(tokenizer: str) -> int:
    return len(json.loads(tokenizer)["model"]["vocab"])


def register(recipe: Recipe) -> str:
    """Remember the recipe and return its reference; the training waits until someone asks for the tokenizer."""
    canonical = json.dumps(_plain(check(recipe)), sort_keys=True)
    ref = f"trained:{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"
    _store.add(ref, _Entry(recipe))
    return ref


def check_ref(ref: str) -> str:
    """The reference itself, or UserError when it is malformed or its recipe is not (or no longer) in memory."""
    if not REFERENCE.fullmatch(ref):
        raise UserError('A tokenizer of your own is named "trained:" and 16 hexadecimal digits.')
    _kept(ref)
    return ref


def _kept(ref: str) -> _Entry:
    entry = _store.get(ref)
    if entry is None:
        raise UserError("That tokenizer of yours is no longer in memory; please train it again.")
    return entry


def recipe_of(ref: str) -> Recipe:
    """The recipe that `ref` was made from."""
    return _kept(check_ref(ref)).recipe


def label(ref: str) -> str:
    """Its name on the page, e.g. "BPE 1,000 (yours, stories)": the entries it has, or is to have when it was not
    trained yet, and what it learned from; a pasted text is told apart by the end of the reference."""
    recipe = recipe_of(ref)
    source = f"text {ref[-4:]}" if recipe.text else recipe.sample
    return f"{recipe.algorithm} {_kept(ref).entries or recipe.vocabulary_size:,} (yours, {source})"


def load(ref: str) -> Tokenizer:
    """The tokenizer, trained now if it was not yet. The file is of our own making, so it is opened in-process."""
    from tokenlab.text.tokenizer_json import TokenizerJson

    return TokenizerJson(ref, label(ref), json.loads(tokenizer_json(ref)))


def tokenizer_json(ref: str) -> str:
    """Its tokenizer.json, trained now if it was not yet."""
    recipe = recipe_of(ref)
    for _ in make(recipe):
        pass
    return _kept(ref).tokenizer


def stages(ref: str) -> tuple[str, ...]:
    """The tokenizer.json of each stage of a Unigram training, largest vocabulary first, the finished one last.

    Unigram starts with every frequent substring and prunes. A stage is what the same training gives when it stops
    earlier: at LARGEST times the wanted size, or at as many entries as the text has to give, and at STAGES - 1 (or
    FEW_STAGES - 1) sizes in equal ratios on the way down. Trains them now unless `make_stages` did."""
    for _ in make_stages(ref):
        pass
    last = tokenizer_json(ref)
    return *(stage for stage in _kept(ref).stages if stage != last), last


def recipe_json(ref: str) -> dict[str, Any] | None:
    """The recipe as it travels in a link; None when its pasted text is longer than TRAVELS characters."""
    recipe = recipe_of(ref)
    return _plain(recipe) if len(recipe.text) <= TRAVELS else None


def receive(data: Any) -> str:
    """The reference of a recipe that came in a link: `recipe_json` the other way round. UserError for anything else."""
    known = {"algorithm", "vocabulary_size", "sample", "text"}
    if not isinstance(data, dict) or not set(data) <= known or not {"algorithm", "vocabulary_size"} <= set(data):
        raise UserError("The link names a tokenizer by a recipe that cannot be read; please ask for a new link.")
    recipe = Recipe(**data)
    if not isinstance(recipe.sample, str) or not isinstance(recipe.text, str):
        raise UserError("The link names a tokenizer by a recipe that cannot be read; please ask for a new link.")
    return register(recipe)


def _plain(recipe: Recipe) -> dict[str, Any]:
    source = {"text": recipe.text} if recipe.text else {"sample": recipe.sample}
    return {"algorithm": recipe.algorithm, "vocabulary_size": recipe.vocabulary_size, **source}


def _train(
    recipe: Recipe,
    sizes: tuple[int, ...],
    text: str,
    now: Progress,
    *,
    forecast: bool = False,
    before: int = 0,
    of: int = 1,
) -> Generator[Progress, None, tuple[list[str], Progress]]:
    """Train on `text` once per size; returns the tokenizer.json files and the last Progress, still without a ref.

    now: where the whole work stands; it is `of` trainings, of which `before` are done."""
    started = time.monotonic() - now.seconds
    reported = time.monotonic()
    job = {"algorithm": recipe.algorithm, "text": text, "sizes": sizes, "forecast": forecast}
    yield now
    tokenizers: list[str] = []
    alphabet = seeds = 0
    with closing(_messages(job)) as messages:
        for message in messages:
            match message:
                case {"forecast_seconds": seconds, "forecast_bytes": size}:
                    total = time.monotonic() - started + seconds
                    now = replace(now, phase="reading", forecast_seconds=total, forecast_bytes=size)
                case {"alphabet": alphabet}:
                    _check_alphabet(alphabet, recipe.vocabulary_size)
                    now = replace(now, phase="measuring") if forecast else now
                case {"read": share} if now.phase != "pruning":
                    now = replace(now, phase="reading", share=share)
                case {"merges": merges, "size": size}:
                    now = replace(now, phase="merging", share=min(1.0, merges / max(1, size - alphabet)))
                case {"seeds": seeds}:
                    now = replace(now, phase="pruning", share=(before + len(tokenizers)) / of)
                case {"pieces": pieces}:
                    share = _pruned(seeds, pieces, sizes[len(tokenizers)])
                    now = replace(now, phase="pruning", share=(before + len(tokenizers) + share) / of)
                case {"tokenizer": tokenizer, "peak_bytes": size}:
                    tokenizers.append(tokenizer)
                    now = replace(now, peak_bytes=size or None)
            now = replace(now, seconds=time.monotonic() - started)
            if time.monotonic() - reported >= PROGRESS_SECONDS:
                reported = time.monotonic()
                yield now
    return tokenizers, replace(now, seconds=time.monotonic() - started)


def _check_alphabet(alphabet: int, size: int) -> None:
    if size < alphabet:
        raise UserError(
            f"This text needs a vocabulary of at least {alphabet:,} entries, one for each single character or byte; "
            "please raise the vocabulary size."
        )


def _pruned(seeds: int, pieces: int, size: int) -> float:
    """How far a Unigram vocabulary is on its way from `seeds` to `size`; every round removes the same share."""
    if pieces >= seeds or size >= seeds:
        return 0.0
    return min(1.0, math.log(seeds / pieces) / math.log(seeds / size))


def _messages(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the child process says about `job`, as it comes, and {} while it is silent. It ends with this iterator."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tokenlab.text.train_child"],
        cwd=ROOT,
        # One thread: several would not be faster on a text of this size, and other runs want the cores.
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # one pipe keeps both in order
    )
    lines: queue.Queue[bytes] = queue.Queue()
    threads = [
        threading.Thread(target=_write, args=(process.stdin, json.dumps(job).encode()), daemon=True),
        threading.Thread(target=_read, args=(process.stdout, lines), daemon=True),
    ]
    for thread in threads:
        thread.start()
    log: deque[bytes] = deque(maxlen=20)
    line = b" "
    try:
        while line:
            guard.check_time()
            try:
                line = lines.get(timeout=PROGRESS_SECONDS)
            except queue.Empty:
                yield {}
                continue
            message = _parsed(line)
            if message is None:
                log.append(line)
            else:
                yield message
        if process.wait() != 0:
            raise _failure(process.returncode, b"".join(log).decode("utf-8", "replace"))
    finally:
        process.kill()
        for thread in threads:
            thread.join()
        with process:  # closes the pipes and waits
            pass


def _write(stream: IO[bytes], data: bytes) -> None:
    with suppress(BrokenPipeError), stream:  # a child that died has said why
        stream.write(data)


def _read(stream: IO[bytes], lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


SEEDS = re.compile(rb"Initialized (\d+) seed pieces")
PIECES = re.compile(rb"EM sub_iter=\d+ size=(\d+)")


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the child as a message: its own, or what a library says of its progress. None for other lines."""
    if line.startswith(b"{"):
        message = json.loads(line)
        if message.get("stage") == "Compute merges":
            return {"merges": message["current"], "size": message["total"]}
        return message
    if found := SEEDS.search(line):
        return {"seeds": int(found[1])}
    if found := PIECES.search(line):
        return {"pieces": int(found[1])}
    return None


def _failure(code: int, log: str) -> Exception:
    """Why the child died. A Rust or C++ library that gets no memory aborts; the system's own guard kills."""
    aborted = code in (-signal.SIGABRT, -signal.SIGKILL) if sys.platform != "win32" else False
    if aborted or "MemoryError" in log or "bad_alloc" in log:
        return UserError("There was not enough memory for this training; please try a shorter text.")
    return RuntimeError(f"the training process ended with code {code}: {log}")


@dataclass(frozen=True)
class _Entry:
    recipe: Recipe
    tokenizer: str | None = None
    entries: int | None = None
    stages: tuple[str, ...] | None = None

    def size(self) -> int:
        return sum(map(len, (self.recipe.text, self.tokenizer or "", *(self.stages or ()))))


class _Store:
    """Recipes and what was made of them, by reference; the least recently used go first. Safe between threads."""

    def __init__(self, size: int):
        self.size = size
        self.lock = threading.Lock()
        self.entries: OrderedDict[str, _Entry] = OrderedDict()

    def get(self, ref: str) -> _Entry | None:
        with self.lock:
            if ref in self.entries:
                self.entries.move_to_end(ref)
            return self.entries.get(ref)

    def add(self, ref: str, entry: _Entry) -> None:
        """Keep `entry` unless there is one of that name, which may hold more."""
        if self.get(ref) is None:
            self.put(ref, entry)

    def put(self, ref: str, entry: _Entry) -> None:
        with self.lock:
            self.entries[ref] = entry
            self.entries.move_to_end(ref)
            while len(self.entries) > 1 and sum(e.size() for e in self.entries.values()) > self.size:
                self.entries.popitem(last=False)


_store = _Store(limits.TRAINED_BYTES)
