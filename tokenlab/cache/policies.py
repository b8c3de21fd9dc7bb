"""Cache policies side by side: the registry, one prompt under each of them, and many stories at many budgets.

Entries are really removed from the cache (tokenlab.kv); nothing is masked or simulated.
To add a policy to the workbench, add one line to POLICIES.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tokenlab import guard, kv, models, stories
from tokenlab.cache.h2o import H2O
from tokenlab.text.tokenization import utf8_offsets

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tokenlab.kv.cache import PolicyCache
    from tokenlab.models import LanguageModel

SINK = 4  # first tokens that "sink + local" never evicts (StreamingLLM, Xiao et al. 2023, section 3.2)
BATCH = 16  # stories read at once


@dataclass(frozen=True)
class Policy:
    """A row of the comparison. sentence: what it keeps; make: (budget, seed) -> the policy."""

    name: str
    sentence: str
    make: Callable[[kv.Budget, int], kv.KVPolicy]


FULL = Policy("full", "keeps every token; what all others are compared with", lambda budget, seed: kv.Full())
RANDOM = Policy("random", "the newest half, and a random choice of the older tokens", kv.RandomRecent)
POLICIES = (
    FULL,
    RANDOM,
    Policy("local window", "the newest tokens", lambda budget, seed: kv.LocalWindow(budget)),
    Policy(
        "sink + local",
        f"the first {SINK} tokens and the newest (StreamingLLM)",
        lambda budget, seed: kv.LocalWindow(kv.Budget(budget.total, budget.ratio, sink=SINK)),
    ),
    Policy("H2O", "the newest half, and the older tokens that got most attention", lambda budget, seed: H2O(budget)),
)
ALWAYS = (FULL.name, RANDOM.name)  # in every comparison, whatever is chosen


def names() -> tuple[str, ...]:
    """What a user can choose; full and random come with any choice."""
    return tuple(policy.name for policy in POLICIES if policy.name not in ALWAYS)


def chosen(some: Sequence[str]) -> tuple[Policy, ...]:
    """The policies called so, and those of ALWAYS, in the order of the registry."""
    return tuple(policy for policy in POLICIES if policy.name in (*ALWAYS, *some))


# --- one prompt


@dataclass(frozen=True)
class Trace:
    """What a model wrote under one policy so far, and what that took.

    prompt: (n,) ids, the opening included. new: generated ids; the last one was not read yet.
    left: see `left`. held: tokens in the cache now, averaged over layers and KV heads. kv_bytes: of keys and values
    after each forward. milliseconds: wall clock of a generated token on average, the prompt's forward not counted."""

    policy: Policy
    prompt: np.ndarray
    new: tuple[int, ...]
    left: tuple[tuple[tuple[int, ...], ...], ...]
    held: float
    kv_bytes: tuple[int, ...]
    milliseconds: float | None

    @property
    def read(self) -> np.ndarray:
        """All ids that went through the model."""
        return np.concatenate((self.prompt, np.array(self.new[:-1], np.int64)))


@dataclass
class Generation:
    """A run under way; `new` grows."""

    policy: Policy
    session: kv.Session
    prompt: np.ndarray
    new: list[int] = field(default_factory=list)

    def trace(self) -> Trace:
        """How it stands now. Does not keep the session, whose events take much memory."""
        cache, seconds = self.session.cache, self.session.seconds[1:]
        return Trace(
            self.policy,
            self.prompt,
            tuple(self.new),
            left(cache, len(self.prompt)),
            sum(layer.positions.shape[-1] for layer in cache.layers) / len(cache.layers),
            tuple(cache.kv_bytes_per_step),
            1000 * sum(seconds) / len(seconds) if seconds else None,
        )


def generate(
    model: LanguageModel, prompt: np.ndarray, policy: Policy, budget: kv.Budget, seed: int, n: int
) -> Iterator[Generation]:
    """Greedy decoding of up to `n` tokens; yields the same Generation after each. Closing it half-way loses nothing."""
    import torch

    session = kv.Session(model.torch, policy.make(budget, seed), record=True)
    made = Generation(policy, session, prompt)
    for token in kv.greedy(session, torch.from_numpy(prompt)[None], n, stop=model.end):
        made.new.append(int(token))
        yield made


def left(cache: PolicyCache, prompt: int, row: int = 0) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """[layer][KV head][token]: the first step after which it is gone, -1 if it stays to the end (views.RetentionRow).

    prompt: tokens read at step 0; token prompt + k is read at step k + 1. Needs a session with record=True.
    A merged token counts as gone when another position stands for it."""
    import torch

    tokens = int(cache.layers[0].tokens[row])
    steps = max(event.step for event in cache.events)
    arrival = (torch.arange(tokens) - prompt + 1).clamp(min=0)
    counts: dict[int, Tensor] = {}
    for event in cache.events:
        positions = event.positions[row].cpu().clamp(max=tokens)  # padding goes to a column of its own
        seen = counts.setdefault(event.layer, torch.zeros(len(positions), tokens + 1, dtype=torch.long))
        seen.scatter_add_(1, positions, torch.ones_like(positions))
    # What is evicted never returns: a token held after k steps is gone after k steps from its arrival.
    gone = [arrival + counts[layer][:, :tokens] for layer in sorted(counts)]
    return tuple(tuple(map(tuple, x.masked_fill(x > steps, -1).tolist())) for x in gone)


def first_difference(ours: Sequence[int], reference: Sequence[int]) -> int | None:
    """The first place where both have a token and the tokens differ; None: there is none."""
    return next((i for i, (a, b) in enumerate(zip(ours, reference, strict=False)) if a != b), None)


def agreement(
    model: LanguageModel, prompt: np.ndarray, reference: Sequence[int], policy: Policy, budget: kv.Budget, seed: int
) -> float:
    """Share of the `reference` tokens that the policy would have chosen too, given those before (teacher forcing)."""
    import torch

    ids = torch.tensor([[*prompt.tolist(), *reference]])
    forced = kv.teacher_forced(kv.Session(model.torch, policy.make(budget, seed)), ids, len(prompt))
    return float((forced.predicted == ids[:, len(prompt) :]).float().mean())


def has_onnx(model: LanguageModel) -> bool:
    """Whether a bundled model comes with an exported graph."""
    return model.name in models.CAUSAL_LMS and (models.FOLDER / model.name / "model.onnx").exists()


def by_onnx(model: LanguageModel, prompt: np.ndarray, n: int) -> tuple[list[int], float | None]:
    """What the exported graph generates with its full cache, and its milliseconds per token after the first."""
    from tokenlab.models import onnx

    graph = models.onnx_session(model.name)
    tokens, clock = [], []
    for token in onnx.generate(graph, prompt, n, model.end):
        tokens.append(token)
        clock.append(time.perf_counter())
    return tokens, 1000 * (clock[-1] - clock[0]) / (len(clock) - 1) if len(clock) > 1 else None


def says(output: str, answer: str) -> bool:
    """Whether the output begins with the answer as whole words; case and outer blanks do not count."""
    output, answer = output.strip().casefold(), answer.strip().casefold()
    return output.startswith(answer) and not output[len(answer) : len(answer) + 1].isalnum()


def stated_at(text: str, part: str, starts: np.ndarray, ends: np.ndarray) -> list[int]:
    """The last token of each place where `part` stands in `text`; starts, ends: (n,) bytes in the text's UTF-8."""
    found, data, wanted = [], text.encode(), part.strip().encode()
    at = data.find(wanted) if wanted else -1
    while at >= 0:
        found += np.flatnonzero((starts < at + len(wanted)) & (ends > at))[-1:].tolist()
        at = data.find(wanted, at + 1)
    return found


# --- many stories


@dataclass(frozen=True)
class Case:
    """A story with a question, as ids. story: what is read at once (the opening included), up to the question.

    rest: question and answer, read one by one; the answer is rest[answer:]. chance: of a guess among the
    story's own answers of that kind."""

    story: tuple[int, ...]
    rest: tuple[int, ...]
    answer: int
    chance: float


@dataclass(frozen=True)
class Score:
    """One policy at one budget over n stories.

    nll: (n,) nats per token of the rest; right: (n,) bool, every token of the answer was the first choice.
    kv_bytes: keys and values at the end, per story; seconds: wall clock of all."""

    nll: np.ndarray
    right: np.ndarray
    kv_bytes: float
    seconds: float


def cases(model: LanguageModel, n: int, seed: int, distance: int = 400) -> list[Case]:
    """`n` held-out stories, all kinds of questions in turn, asked about `distance` characters after the fact."""
    return [case(model, seed * 10_000 + i, stories.KINDS[i % len(stories.KINDS)], distance) for i in range(n)]


def case(model: LanguageModel, seed: int, kind: str, distance: int) -> Case:
    """One story of tokenlab.stories.recall_case as ids."""
    story = stories.recall_case(seed, kind, "test", distance)
    question = story.questions[0]
    tokens = model.tokenizer.encode(story.text)
    offsets = utf8_offsets(story.text)

    def token_at(character: int) -> int:
        return int(np.searchsorted(tokens.ends, offsets[character], side="right"))

    asked, answer = token_at(question.span[0]), token_at(question.answer_span[0])
    last = token_at(question.answer_span[1] - 1) + 1
    ids = tokens.ids.tolist()
    chance = 1 / len(question.candidates)
    return Case((*model.opening, *ids[:asked]), tuple(ids[asked:last]), answer - asked, chance)


def score(model: PreTrainedModel, some: Sequence[Case], policy: kv.KVPolicy) -> Score:
    """Read each story at once, then its question and answer token by token, as if they came later.

    So the policy has thrown away what did not fit before it knew what would be asked. Stories are batched,
    padded on the left; a budget of the policy must be in slots, since a ratio would count the padding."""
    started = time.perf_counter()
    nll, right, kv_bytes = [], [], 0.0
    for first in range(0, len(some), BATCH):
        batch = some[first : first + BATCH]
        session = kv.Session(model, policy)
        ids, real = padded(batch)
        forced = kv.teacher_forced(session, ids, real.shape[1], real)
        for row, one in enumerate(batch):
            read = len(one.rest)  # behind it stands padding on the right
            nll.append(float(forced.nll[row, :read].mean()))
            hit = forced.predicted[row, one.answer : read].tolist() == list(one.rest[one.answer :])
            right.append(hit)
        kv_bytes += session.cache.kv_bytes
    return Score(np.array(nll), np.array(right), kv_bytes / len(some), time.perf_counter() - started)


def padded(batch: Sequence[Case]) -> tuple[Tensor, Tensor]:
    """ids, long (B, T): stories end and rests begin at one column; real: bool (B, that column), False where padding."""
    import torch

    before, after = max(len(c.story) for c in batch), max(len(c.rest) for c in batch)
    ids = torch.zeros(len(batch), before + after, dtype=torch.long)
    real = torch.zeros(len(batch), before, dtype=torch.bool)
    for row, c in enumerate(batch):
        ids[row, before - len(c.story) : before] = torch.tensor(c.story)
        ids[row, before : before + len(c.rest)] = torch.tensor(c.rest)
        real[row, before - len(c.story) :] = True
    return ids, real


def against_budget(
    model: LanguageModel, some: Sequence[Case], policies: Sequence[Policy], shares: Sequence[float], seed: int
) -> Iterator[tuple[Policy, float, int, Score]]:
    """(policy, share, slots, its score), one by one. The full cache has no budget and comes once, first, with share 1.

    A share is one of the longest story, so that every story gets the same number of slots."""
    longest = max(len(c.story) for c in some)
    if FULL in policies:
        yield FULL, 1.0, longest, score(model.torch, some, kv.Full())
    for share in shares:
        slots = max(1, round(share * longest))
        for policy in policies:
            if policy is not FULL:
                guard.check_time()
                made = policy.make(kv.Budget(total=slots), seed)
                yield policy, share, slots, score(model.torch, some, made)
