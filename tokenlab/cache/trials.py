"""What the cache systems share: one prompt under several policies side by side, and many texts under one policy.

    told = task(model, "Dinah has a shovel. ...", "Question: Who has the shovel? Answer:", new_tokens=20)
    for traces in side_by_side(model, told, {"full": kv.Full(), "mine": Mine(budget)}, 20): ...
    retention(model, told, traces), outcome(model, told, outputs), costs(traces), memory(traces)    # views

    cases = recall_cases(model, 48, seed=0)
    score(model, RANDOM, 0.2, cases, seed=0)       # Score: nll and right, case by case

A prompt is read at once, with full attention. Then the policy cuts the cache, and what follows the prompt is read one
token at a time, so that a question comes after the policy has chosen what to keep. Then the model writes, greedily.

A method is a kv.KVPolicy or a kv.AttentionView; a `Policy` here is its name and how it is made for a budget.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from tokenlab import guard, kv, stories
from tokenlab.cache.attention_maps import texts
from tokenlab.errors import UserError
from tokenlab.text.tokenization import utf8_offsets
from tokenlab.views import Lines, Retention, RetentionRow, Series, Table

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlab.models import LanguageModel

    Method = kv.KVPolicy | kv.AttentionView

SINKS = 4  # first tokens that "sink + local" never evicts (StreamingLLM, Xiao et al. 2023, section 3.2)
EVERY = 1.0  # seconds between partial results
BATCH = 32  # stories read at once
# Stories that no model was trained on, but with the names and wordings of the training: what is lost under a policy is
# then lost by the cache, not for want of generalization (card.md of tinylm says how much it recalls in either kind).
SPLIT = "train"


@dataclass(frozen=True)
class Policy:
    """A row of a comparison. sentence: what it keeps; make: (budget, seed) -> the method."""

    name: str
    sentence: str
    make: Callable[[kv.Budget, int], Method]


FULL = Policy("full", "keeps every token; what all others are compared with", lambda budget, seed: kv.Full())
RANDOM = Policy("random", "the newest tokens, and a random choice of the older ones", kv.RandomRecent)
LOCAL = Policy(
    "local window", "the newest tokens", lambda budget, seed: kv.LocalWindow(dataclasses.replace(budget, sink=0))
)
SINK_LOCAL = Policy(
    "sink + local",
    f"the first tokens ({SINKS} unless told) and the newest (StreamingLLM)",
    lambda budget, seed: kv.LocalWindow(dataclasses.replace(budget, sink=budget.sink or SINKS)),
)


def start(model: LanguageModel, method: Method, positions: str = "original") -> kv.Session:
    """A session under a policy or a view; positions: "original" or "compacted"."""
    if isinstance(method, kv.AttentionView):
        return kv.Session(model.torch, view=method, positions=positions)
    return kv.Session(model.torch, method, positions=positions)


# --- one prompt


@dataclass(frozen=True)
class Example:
    """A story to begin with: what is read at once, the question that follows, and the answer to it."""

    prompt: str
    later: str
    answer: str

    def answer_to(self, prompt: str, later: str) -> str:
        """The answer when both texts are still the story's own, else ""."""
        return self.answer if (prompt.strip(), later.strip()) == (self.prompt, self.later) else ""


def example(seed: int, kind: str = "who", distance: int = 430) -> Example:
    """A story of tokenlab.stories.recall_case, cut before its question."""
    story = stories.recall_case(seed, kind, "test", distance)
    question = story.questions[0]
    before, asked = question.span[0], question.answer_span[0]
    return Example(story.text[: before - 1], story.text[before : asked - 1], question.answer)


@dataclass(frozen=True)
class Task:
    """A prompt and what follows it, as ids (n,) int64, the opening included.

    read: how many ids are read at once, at least one; the others come one by one. expected: what the output should
    begin with, or "". stated: the tokens that complete a statement of it. note: what was left out, or ""."""

    ids: np.ndarray
    read: int
    expected: str
    stated: tuple[int, ...]
    note: str


def joined(prompt: str, later: str) -> str:
    """Both texts with a blank between them. UserError: there is no prompt."""
    if not prompt.strip():
        raise UserError("The prompt is empty; please write at least one word.")
    return f"{prompt} {later}" if later.strip() else prompt


def task(model: LanguageModel, prompt: str, later: str, new_tokens: int, expected: str = "") -> Task:
    """Both texts as a model reads them, with room for `new_tokens`; what does not fit is cut off at the beginning.

    UserError: the prompt is empty; there is no room for any of it."""
    text = joined(prompt, later)
    found, opening, expected = model.prompt(text, new_tokens), len(model.opening), expected.strip()
    # A token that reaches into what follows belongs to it.
    own = int((found.tokens.ends <= len(prompt.encode())).sum())
    note = ""
    if found.dropped:
        kept = len(found.tokens)
        note = (
            f"{'The prompt and what follows have' if later.strip() else 'The prompt has'} {kept + found.dropped:,} "
            f"tokens; {model.name} reads only the last {kept:,} of them here."
        )
        if not own:
            raise UserError(
                f"{model.name} has room for {kept:,} tokens here, and what follows fills it all, so that nothing of "
                "the prompt is left; please shorten what follows."
            )
    stated = tuple(opening + i for i in stated_at(text, expected, found.tokens.starts, found.tokens.ends))
    return Task(found.ids, max(1, opening + own), expected, stated, note)


def stated_at(text: str, part: str, starts: np.ndarray, ends: np.ndarray) -> list[int]:
    """The last token of each place where `part` stands in `text` as whole words, whatever its case; none for "".

    starts, ends: (n,) bytes in the text's UTF-8."""
    if not part.strip():
        return []
    offsets, found = utf8_offsets(text), []
    for match in re.finditer(rf"(?<!\w){re.escape(part.strip())}(?!\w)", text, re.IGNORECASE):
        first, last = offsets[match.start()], offsets[match.end()]
        inside = np.flatnonzero((starts < last) & (ends > first))
        if len(inside) and starts[inside[0]] <= first:  # else a part of it was cut off
            found.append(int(inside[-1]))
    return found


@dataclass(frozen=True)
class Trace:
    """What a model wrote under one method so far, and what that took.

    new: generated ids; the last one was not read yet. done: nothing will be added.
    left: long (layers, Hkv, tokens read), the first step after which a token is gone, -1 if it stays (RetentionRow).
    positions, scores: per layer (Hkv, n), the slots after one step (`generate`). held: tokens in the cache now, mean
    over layers. kv_bytes: of keys and values after each forward; side_bytes: of the bookkeeping now.
    milliseconds: wall clock of a forward after the prompt's, mean; None: there was none."""

    new: tuple[int, ...]
    done: bool
    left: Tensor
    positions: tuple[Tensor, ...]
    scores: tuple[Tensor, ...]
    held: float
    kv_bytes: tuple[int, ...]
    side_bytes: int
    milliseconds: float | None

    @property
    def steps(self) -> int:
        """Forwards after the prompt's."""
        return len(self.kv_bytes) - 1


@dataclass
class Generation:
    """A run under way. counts: long (layers, Hkv, tokens), after how many forwards each token was held;
    slots: positions and scores as in Trace."""

    session: kv.Session
    read: int
    counts: Tensor
    slots: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] = ((), ())
    new: list[int] = field(default_factory=list)
    done: bool = False

    @property
    def steps(self) -> int:
        """Forwards after the prompt's."""
        return len(self.session.seconds) - 1

    def trace(self) -> Trace:
        """How it stands now, without the session and its keys and values."""
        cache, seconds = self.session.cache, self.session.seconds[1:]
        return Trace(
            tuple(self.new),
            self.done,
            left(self.counts, self.read, self.steps),
            *self.slots,
            sum(layer.positions.shape[-1] for layer in cache.layers) / len(cache.layers),
            tuple(cache.kv_bytes_per_step),
            cache.side_bytes,
            1000 * sum(seconds) / len(seconds) if seconds else None,
        )


def generate(
    model: LanguageModel, method: Method, told: Task, n: int, positions: str = "original", at: int | None = None
) -> Iterator[Generation]:
    """Read the prompt at once and what follows one by one, then write up to `n` tokens greedily.

    Yields the same Generation after each forward; closing it half-way loses nothing. Stops at the model's end of
    text. at: the step whose slots are shown, or the last one before it; None: always the newest."""
    import torch

    session = start(model, method, positions)
    logits = session.prefill(torch.from_numpy(told.ids[: told.read])[None])
    layers = session.cache.layers
    counts = torch.zeros(len(layers), layers[0].positions.shape[1], len(told.ids) + n, dtype=torch.long)
    made = Generation(session, told.read, counts)
    for step in count():
        guard.check_time()
        held = tuple(layer.positions[0] for layer in layers)
        for line, places in zip(counts, held, strict=True):
            line.scatter_add_(1, places.cpu(), torch.ones(places.shape, dtype=torch.long))
        if at is None or step <= at:
            made.slots = held, tuple(layer.scores[0] for layer in layers)
        if told.read + step < len(told.ids):
            token = int(told.ids[told.read + step])
        else:
            token = int(logits[0].argmax())
            made.new.append(token)
            made.done = len(made.new) == n or token in model.end
        yield made
        if made.done:
            return
        logits = session.step(torch.tensor([token]))


def left(counts: Tensor, read: int, steps: int) -> Tensor:
    """After how many forwards tokens were held -> the first step after which each is gone, -1 if it stays.

    counts, result: long (..., tokens). `read` tokens arrive at step 0, the next ones at the steps 1, 2, ...
    A merged token counts as gone when another position stands for it."""
    import torch

    counts = counts[..., : read + steps]
    # What is evicted never returns: a token held after k steps is gone after k steps from its arrival.
    gone = (torch.arange(read + steps) - read + 1).clamp(min=0) + counts
    return gone.masked_fill(gone > steps, -1)


def side_by_side(
    model: LanguageModel,
    told: Task,
    methods: Mapping[str, Method],
    n: int,
    positions: str = "original",
    at: int | None = None,
) -> Iterator[dict[str, Trace]]:
    """One method after the other on the same task: the traces by name, after each method and every EVERY seconds."""
    traces: dict[str, Trace] = {}
    for name, method in methods.items():
        shown = time.monotonic()
        for made in generate(model, method, told, n, positions, at):
            if not made.done and time.monotonic() - shown > EVERY:
                shown = time.monotonic()
                yield {**traces, name: made.trace()}
        traces[name] = made.trace()
        yield dict(traces)


def first_difference(ours: Sequence[int], reference: Sequence[int]) -> int | None:
    """The first place where both have a token and the tokens differ; None: there is none."""
    return next((i for i, (a, b) in enumerate(zip(ours, reference, strict=False)) if a != b), None)


def agreement(model: LanguageModel, method: Method, told: Task, reference: Sequence[int]) -> float:
    """Share of the `reference` tokens that the method would have chosen too, given those before (teacher forcing)."""
    import torch

    ids = torch.tensor([[*told.ids.tolist(), *reference]])
    predicted = kv.teacher_forced(start(model, method), ids, told.read).predicted[:, len(told.ids) - told.read :]
    return float((predicted == ids[:, len(told.ids) :]).float().mean())


def says(output: str, answer: str) -> bool:
    """Whether the output begins with the answer as whole words; case and outer blanks do not count."""
    output, answer = output.strip().casefold(), answer.strip().casefold()
    return output.startswith(answer) and not output[len(answer) : len(answer) + 1].isalnum()


def written(model: LanguageModel, ids: Sequence[int]) -> str:
    """Generated ids as text, from their bytes; special entries by name."""
    pieces = model.tokenizer.pieces()
    named = [texts(model, np.array([i]))[0].encode() if i not in model.end else b"" for i in ids]
    data = b"".join(pieces[i] if i < len(pieces) and pieces[i] else name for i, name in zip(ids, named, strict=True))
    return data.decode("utf-8", "backslashreplace") + (" ⟨end⟩" if ids and ids[-1] in model.end else "")


# --- views of one prompt; traces and outputs by name, those of the full cache first


def retention(model: LanguageModel, told: Task, traces: Mapping[str, Trace]) -> Retention:
    """Who holds which token when; marked are what states the answer, what follows, the output, and where it differs."""
    full, rows = next(iter(traces.values())).new, []
    for name, trace in traces.items():
        marks = {i: "states the answer" for i in told.stated}
        if told.read < len(told.ids):
            marks[told.read] = "what follows"
        marks[len(told.ids)] = "output"
        differs = first_difference(trace.new, full)
        if differs is not None:
            marks[len(told.ids) + differs] = "first difference"
        tokens = texts(model, np.array([*told.ids, *trace.new]))[: trace.left.shape[-1]]
        rows.append(
            RetentionRow(
                name=name,
                tokens=tokens,
                left=tuple(tuple(map(tuple, heads)) for heads in trace.left.tolist()),
                marks={i: mark for i, mark in marks.items() if i < len(tokens)},
            )
        )
    return Retention(
        title="What stays in the cache",
        note="The darker a token, the more (layer, head) pairs still hold it; struck through: it is gone everywhere. "
        "The last token that is written is not read any more.",
        rows=tuple(rows),
        prompt=told.read,
        steps=max(trace.steps for trace in traces.values()),
    )


def outcome(
    model: LanguageModel,
    told: Task,
    outputs: Mapping[str, Sequence[int]],
    agreements: Mapping[str, float] | None = None,
    note: str = "",
    help: Mapping[str, str] | None = None,
) -> Table:
    """What was written under each method, held against the full cache and the expected answer.

    agreements: name -> share, for a column of its own; help: what the names mean."""
    full, rows, marks = next(iter(outputs.values())), [], {}
    for row, (name, ids) in enumerate(outputs.items()):
        at = first_difference(ids, full)
        where = "nowhere" if row else None
        if at is not None:
            marks[row] = "differs"
            ours, other = texts(model, np.array([ids[at], full[at]]))
            where = f"token {at + 1}: “{ours}”, not “{other}”"
        text, cells = written(model, ids), [where]
        if told.expected:
            cells.insert(0, "right" if says(text, told.expected) else "wrong")
        if agreements is not None:
            cells.append(None if name not in agreements else round(100 * agreements[name], 1))
        rows.append((name, text, *cells))
    columns = {
        "Policy": "",
        "Output": "",
        "Answer": "Right: the output begins with the expected answer." if told.expected else None,
        "Differs at": "The first generated token that is another one than with the full cache, and what that gave.",
        "Agreement [%]": "Share of the full cache's tokens that the policy would have chosen too, given those before."
        if agreements is not None
        else None,
    }
    return Table(
        title="What each policy writes",
        note=" ".join(filter(None, (note, told.expected and f"The answer should be “{told.expected}”."))),
        columns=tuple(name for name, text in columns.items() if text is not None),
        rows=tuple(rows),
        marks=marks,
        help={name: text for name, text in columns.items() if text} | dict(help or {}),
    )


def costs(traces: Mapping[str, Trace]) -> Table:
    """What each method held at the end, and its wall clock."""
    return Table(
        title="What it costs",
        columns=("Policy", "Tokens held", "KV cache [kB]", "Bookkeeping [kB]", "Time per token [ms]"),
        rows=tuple(
            (name, round(trace.held, 1), trace.kv_bytes[-1] / 1000, trace.side_bytes / 1000, trace.milliseconds)
            for name, trace in traces.items()
        ),
        help={
            "Tokens held": "In each KV head at the end, averaged over the layers.",
            "KV cache [kB]": "Keys and values at the end, of all layers and heads (1 kB = 1000 bytes).",
            "Bookkeeping [kB]": "Positions and scores of the slots at the end.",
            "Time per token [ms]": "Wall clock of a forward after the prompt's, mean, with the policy's own work. "
            "Policies that look at attention weights need them in full, which costs time in a small model.",
        },
    )


def memory(traces: Mapping[str, Trace]) -> Lines:
    """Size of the cache after each step."""
    return Lines(
        title="Memory, step by step",
        note="Step 0 is after the prompt was read and the cache cut. Policies with the same budget lie on one line.",
        series=tuple(
            Series(name=name, x=tuple(range(trace.steps + 1)), y=tuple(size / 1000 for size in trace.kv_bytes))
            for name, trace in traces.items()
        ),
        x="tokens read after the prompt",
        y="KV cache [kB]",
    )


# --- many texts


@dataclass(frozen=True)
class Case:
    """A story with a question, as ids (n,) int64 from the opening to the end of the answer.

    read: ids before the question, read at once; the answer is ids[answer:]. kind: of question; aim: characters from
    the fact to the answer as ordered; distance: tokens between them; chance: of a guess among the story's own answers
    of that kind."""

    ids: np.ndarray
    read: int
    answer: int
    kind: str
    aim: int
    distance: int
    chance: float


def case(model: LanguageModel, seed: int, kind: str, aim: int, split: str = SPLIT) -> Case:
    """One story of tokenlab.stories.recall_case as ids. UserError: it does not fit into the context."""
    story = stories.recall_case(seed, kind, split, aim)
    question, found = story.questions[0], model.prompt(story.text)
    if found.dropped:
        raise UserError(
            f"{model.name} reads {model.context:,} tokens, too few for these stories; please choose another."
        )
    offsets = list(zip(found.tokens.starts.tolist(), found.tokens.ends.tolist(), strict=True))
    opening = len(model.opening)
    # A story is ASCII, so that its bytes are its characters; the blank goes with the question.
    read = opening + int((found.tokens.ends < question.span[0]).sum())
    first, last = stories.token_span(offsets, question.answer_span)
    return Case(
        found.ids[: opening + last],
        read,
        opening + first,
        kind,
        aim,
        question.token_distance(offsets),
        1 / len(question.candidates),
    )


def recall_cases(
    model: LanguageModel, n: int, seed: int, distances: Sequence[int] = (400,), split: str = SPLIT
) -> list[Case]:
    """`n` different stories: all kinds of questions in turn, each kind at all distances (characters) in turn."""
    kinds = stories.KINDS
    return [
        case(model, 1_000_000 * seed + i, kinds[i % len(kinds)], distances[i // len(kinds) % len(distances)], split)
        for i in range(n)
    ]


def padded(cases: Sequence[Case]) -> tuple[Tensor, Tensor]:
    """ids, long (B, T): stories end and questions begin at one column, behind short ones stands padding, too.

    real: bool (B, that column), False where padding."""
    import torch

    before, after = max(c.read for c in cases), max(len(c.ids) - c.read for c in cases)
    ids = torch.zeros(len(cases), before + after, dtype=torch.long)
    real = torch.zeros(len(cases), before, dtype=torch.bool)
    for row, c in enumerate(cases):
        first = before - c.read
        ids[row, first : first + len(c.ids)] = torch.from_numpy(c.ids)
        real[row, first:] = True
    return ids, real


@dataclass(frozen=True)
class Score:
    """One policy at one budget over n cases.

    nll: (n,) nats per token of question and answer; right: (n,) bool, every token of the answer was the likeliest.
    slots: (n,) tokens that each head may hold; kv_bytes: keys and values at the end per case, padding included;
    seconds: wall clock of all."""

    nll: np.ndarray
    right: np.ndarray
    slots: np.ndarray
    kv_bytes: float
    seconds: float


def score(
    model: LanguageModel, policy: Policy, share: float, cases: Sequence[Case], seed: int = 0, batch: int = BATCH
) -> Score:
    """Read each story at once, then its question and answer token by token, as if they came later.

    So the policy has thrown away what did not fit before it knew what would be asked. Cases of similar length share a
    batch, and all of a batch get the same number of slots: the share of the mean length of their stories."""
    started = time.perf_counter()
    nll, right, slots = np.zeros(len(cases)), np.zeros(len(cases), bool), np.zeros(len(cases), int)
    kv_bytes, order = 0, sorted(range(len(cases)), key=lambda i: cases[i].read)
    for first in range(0, len(order), batch):
        part = order[first : first + batch]
        mean = round(sum(cases[i].read for i in part) / len(part))
        slots[part] = total = kv.Budget(ratio=share).resolve(mean).total
        session = start(model, policy.make(kv.Budget(total=total), seed))
        ids, real = padded([cases[i] for i in part])
        forced = kv.teacher_forced(session, ids, real.shape[1], real)
        for row, i in enumerate(part):
            answer, end = cases[i].answer - cases[i].read, len(cases[i].ids) - cases[i].read
            nll[i] = forced.nll[row, :end].mean()
            right[i] = forced.predicted[row, answer:end].tolist() == cases[i].ids[cases[i].answer :].tolist()
        kv_bytes += session.cache.kv_bytes
    return Score(nll, right, slots, kv_bytes / len(cases), time.perf_counter() - started)


def held_out(model: LanguageModel, n: int, length: int, seed: int, split: str = SPLIT) -> Tensor:
    """`n` stories as ids, long (n, length): cut, so that they batch without padding.

    Half of them ask at the end, half along the way, as in training. UserError: more tokens than the context."""
    import torch

    if length > model.context:
        raise UserError(f"{model.name} reads {model.context:,} tokens, not {length:,}; please choose another model.")
    rows: list[np.ndarray] = []
    for draw in count(1_000_000 * seed):
        guard.check_time()
        ids = model.prompt(stories.story(draw, split, chars=900, facts=8, ask=("end", "along")[draw % 2]).text).ids
        if len(ids) >= length:
            rows.append(ids[:length])
        if len(rows) == n:
            return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True)
class Forced:
    """Documents under one method. nll: (n,) mean nats per token; predicted: (n, tokens), the likeliest ids;
    seconds: wall clock of a forward of one token of all documents, mean; kv_bytes: at the end."""

    nll: np.ndarray
    predicted: np.ndarray
    seconds: float
    kv_bytes: int


def forced(model: LanguageModel, method: Method, ids: Tensor, read: int) -> Forced:
    """Read the first `read` columns of ids, long (n, T), at once, the others token by token."""
    session = start(model, method)
    out = kv.teacher_forced(session, ids, read)
    return Forced(
        out.nll.double().mean(1).numpy(),
        out.predicted.numpy(),
        float(np.mean(session.seconds[1:])),
        session.cache.kv_bytes,
    )


# --- numbers with their intervals


def bootstrap(statistic: Callable[[np.ndarray], np.ndarray], n: int, seed: int) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over resampled items; statistic: indices (draws, n) -> (draws,)."""
    draws = np.random.default_rng(seed).integers(0, n, (2000, n))
    low, high = np.nanquantile(statistic(draws), [0.025, 0.975])
    return float(low), float(high)


def estimate(
    values: np.ndarray, seed: int, of: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> tuple[float, float, float]:
    """`of` the mean of values (n,), such as np.exp, and its 95 % interval by bootstrap: (value, low, high)."""
    return float(of(values.mean())), *bootstrap(lambda draw: of(values[draw].mean(1)), len(values), seed)


def percent(right: np.ndarray) -> tuple[float, float, float]:
    """The share of bool (n,) in percent, and Wilson's 95 % interval, which holds for a few items and for 0 and 100."""
    from scipy.stats import binomtest

    found = binomtest(int(right.sum()), len(right)).proportion_ci(0.95, "wilson")
    return 100 * float(right.mean()), 100 * float(found.low), 100 * float(found.high)


def curve(name: str, x: Sequence[float], found: Sequence[tuple[float, float, float]]) -> Series:
    """A curve with its band; found: (value, low, high) at each x."""
    y, low, high = zip(*found, strict=True)
    return Series(name=name, x=tuple(x), y=y, low=low, high=high)
