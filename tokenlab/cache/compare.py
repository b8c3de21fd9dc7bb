"""Look into attention, head by head, and see what a cache policy throws away.

While a language model writes, it keeps a *key* and a *value* of every token that it has read, in every layer and
every head: the KV cache. It grows with the text. A *cache policy* keeps it small by evicting entries for good;
what is gone can no longer be looked at.

**Attention.** Where each head looks when the model reads your prompt:
$\\mathrm{softmax}(q k^\\top / \\sqrt{d})$, one row per token that looks, one column per token that is looked at.

**Cache policies.** The same text under several policies at once. The prompt is read with all its tokens; then each
layer and head cuts its own cache down to the budget. What follows the prompt comes one token at a time, and the cache
is cut again after every token: so a policy must choose what to keep before it sees the question. (With the question
at the end of the prompt, all policies would give the same first token.) Then the model writes. Entries are really
removed from memory. Each token is shaded by the share of (layer, head) pairs that still hold it.

- *full* keeps everything, *random* keeps the newest tokens and a random choice of the others: any policy must be
  held against these two.
- *local window* keeps the newest tokens; *sink + local* the first four as well, because heads park attention there
  (StreamingLLM, Xiao et al. 2023).
- *H2O* keeps the newest tokens and the "heavy hitters", which have collected most attention so far (Zhang et al. 2023).

*Agreement* feeds the full cache's own text to each policy, token by token, and counts how often the policy would have
gone on in the same way. So one early slip does not count for the whole rest. *Time per token* is the wall clock of this
very run: a smaller cache needs less memory, but with a short text choosing what to keep may cost more than it saves.

**Against budget.** Stories with facts, and a question about one of them. The model reads the story, the policy cuts
the cache to its budget, and only *then* come the question and the answer, token by token. Shown are the share of
questions for which every token of the answer was the model's first choice, and the negative log-likelihood of all
tokens of question and answer.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from tokenlab import guard, models
from tokenlab.cache import attention_maps, policies, trials
from tokenlab.cache.trials import FULL, Case, Policy, Score, Trace
from tokenlab.controls import Choice, Choices, Model, Seed, Slider, Text
from tokenlab.kv import Budget
from tokenlab.models import LanguageModel
from tokenlab.views import AttentionMaps, Lines, Note, Retention, Series, Table

ATTENTION, POLICIES, BUDGETS = PARTS = ("Attention", "Cache policies", "Against budget")
SECONDS = 120  # a checkpoint of the Hub takes its time
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
EXAMPLE = trials.example(17)
ONNX = "full, ONNX"
ONNX_HELP = "The same model with its full cache as an exported graph, which no policy can reach into."


@dataclass(frozen=True)
class Result:
    """Each part fills the views that it has."""

    shortened: Note | None = None
    maps: AttentionMaps | None = None
    heads: Table | None = None
    outcome: Table | None = None
    kept: Retention | None = None
    costs: Table | None = None
    memory: Lines | None = None
    recall: Lines | None = None
    nll: Lines | None = None
    scores: Table | None = None


def run(
    part: Annotated[str, Choice("Show", options=PARTS, style="parts")] = ATTENTION,
    prompt: Annotated[
        str,
        Text(
            "Prompt",
            info="Read at once, with full attention",
            lines=7,
            when=("part", ATTENTION, POLICIES),
            shared="prompt.text",
        ),
    ] = EXAMPLE.prompt,
    later: Annotated[
        str,
        Text(
            "What follows",
            info="Read one token at a time, with the cache already cut; may be empty",
            lines=2,
            when=("part", ATTENTION, POLICIES),
            shared="prompt.later",
        ),
    ] = EXAMPLE.later,
    model: Annotated[str, Model("Model", shared="model")] = "tinylm",
    compared: Annotated[
        tuple[str, ...],
        Choices(
            "Policies",
            info="The full cache and a random choice are always shown beside them.",
            options=policies.names(),
            least=0,
            when=("part", POLICIES, BUDGETS),
        ),
    ] = policies.names(),
    answer: Annotated[
        str,
        Text(
            "Expected answer",
            info="What the output should begin with; known for the story that is shown at first",
            lines=1,
            characters=200,
            placeholder="optional",
            when=("part", POLICIES),
            shared="prompt.answer",
        ),
    ] = "",
    budget: Annotated[
        float,
        Slider(
            "Cache budget",
            info="share of the prompt",
            minimum=0.01,
            maximum=1.0,
            step=0.01,
            when=("part", POLICIES),
        ),
    ] = 0.2,
    new_tokens: Annotated[int, Slider("New tokens", minimum=1, maximum=200, step=1, when=("part", POLICIES))] = 20,
    n: Annotated[int, Slider("Stories", minimum=4, maximum=64, step=4, when=("part", BUDGETS))] = 16,
    seed: Annotated[int, Seed(when=("part", POLICIES, BUDGETS))] = 0,
) -> Iterator[Result]:
    """Attention maps of a prompt; cache policies side by side on it; or their recall at all budgets."""
    opened = models.causal_lm(model)
    if part == ATTENTION:
        yield attention(opened, trials.joined(prompt, later))
    elif part == POLICIES:
        told = trials.task(opened, prompt, later, new_tokens, answer.strip() or EXAMPLE.answer_to(prompt, later))
        yield from side_by_side(opened, told, policies.chosen(compared), Budget(ratio=budget), new_tokens, seed)
    else:
        yield from against_budget(opened, policies.chosen(compared), n, seed)


# --- attention


def attention(model: LanguageModel, text: str) -> Result:
    """All heads of one reading of the text."""
    seen = attention_maps.attend(model, model.prompt(text))
    return Result(maps=attention_maps.maps_view(seen), heads=attention_maps.heads_view(seen))


# --- cache policies


def side_by_side(
    model: LanguageModel, told: trials.Task, chosen: Sequence[Policy], budget: Budget, n: int, seed: int
) -> Iterator[Result]:
    """One policy after the other on the same task; at the end the exported graph, where there is one."""
    methods = {policy.name: policy.make(budget, seed) for policy in chosen}
    agreements: dict[str, float] = {}
    for traces in trials.side_by_side(model, told, methods, n):
        full = traces[FULL.name].new
        for name, trace in traces.items():
            if trace.done and name not in agreements:
                same = trials.first_difference(trace.new, full) is None
                agreements[name] = 1.0 if same else trials.agreement(model, methods[name], told, full)
        yield policy_views(model, told, traces, agreements, budget)
    if models.has_onnx(model):
        yield policy_views(model, told, traces, agreements, budget, by_onnx(model, told.ids, n))


def policy_views(
    model: LanguageModel,
    told: trials.Task,
    traces: dict[str, Trace],
    agreements: dict[str, float],
    budget: Budget,
    onnx: tuple[list[int], float | None] | None = None,
) -> Result:
    """onnx: what the exported graph wrote, and its milliseconds per token; one more row in the tables."""
    sentences = {policy.name: policy.sentence for policy in policies.POLICIES}
    outputs, costs = {name: trace.new for name, trace in traces.items()}, trials.costs(traces)
    if onnx:
        outputs[ONNX], sentences[ONNX] = onnx[0], ONNX_HELP
        costs = dataclasses.replace(costs, rows=(*costs.rows, (ONNX, None, None, None, onnx[1])))
    note = f"{told.read:,} tokens are read at once; the budget is {budget.resolve(told.read).total:,} tokens per head."
    return Result(
        shortened=Note(title="The text is too long", text=told.note) if told.note else None,
        outcome=trials.outcome(model, told, outputs, agreements, note, sentences),
        kept=trials.retention(model, told, traces),
        costs=dataclasses.replace(costs, help=costs.help | sentences),
        memory=trials.memory(traces),
    )


def by_onnx(model: LanguageModel, ids: np.ndarray, n: int) -> tuple[list[int], float | None]:
    """What the exported graph generates after `ids` with its full cache, and its milliseconds per token after the
    first."""
    from tokenlab.models import onnx

    graph = models.onnx_session(model.name)
    tokens, clock = [], []
    for token in onnx.generate(graph, ids, n, model.end):
        tokens.append(token)
        clock.append(time.perf_counter())
    return tokens, 1000 * (clock[-1] - clock[0]) / (len(clock) - 1) if len(clock) > 1 else None


# --- against budget


def against_budget(model: LanguageModel, chosen: Sequence[Policy], n: int, seed: int) -> Iterator[Result]:
    """The curves grow policy by policy and budget by budget."""
    started = time.monotonic()
    cases = trials.recall_cases(model, n, seed)
    total = 1 + len(SHARES) * (len(chosen) - 1)
    scores: dict[tuple[str, float], Score] = {}
    where = f"n = {n} new stories, seed {seed}"
    for policy, share in runs(chosen):
        guard.check_time()
        scores[policy.name, share] = trials.score(model, policy, share, cases, seed)
        seconds = time.monotonic() - started
        progress = (
            f"{seconds:.1f} s" if len(scores) == total else f"{seconds:.1f} s so far, {len(scores)} of {total} runs"
        )
        yield budget_views(chosen, scores, f"{where}, {progress}.", cases)


def runs(chosen: Sequence[Policy]) -> Iterator[tuple[Policy, float]]:
    """The full cache has no budget and comes once, first; then budget by budget all the others."""
    yield FULL, 1.0
    yield from ((policy, share) for share in SHARES for policy in chosen if policy is not FULL)


def budget_views(
    chosen: Sequence[Policy], scores: dict[tuple[str, float], Score], note: str, cases: Sequence[Case]
) -> Result:
    """Two pictures and their numbers."""
    rows = []
    for (name, share), score in scores.items():
        recall, low, high = trials.percent(score.right)
        rows.append(
            (
                name,
                100 * share if name != FULL.name else None,
                round(float(score.slots.mean()), 1) if name != FULL.name else None,
                recall,
                f"{low:.0f} to {high:.0f}",
                float(score.nll.mean()),
                score.kv_bytes / 1000,
                score.seconds,
            )
        )
    guess = 100 * float(np.mean([case.chance for case in cases]))
    return Result(
        recall=Lines(
            title="Recall: is the question answered?",
            note=f"{note} The question comes when the cache has been cut. Guess: one of the story's own answers.",
            series=(
                *curves(chosen, scores, lambda score: 100 * float(score.right.mean())),
                line("guess", [guess] * len(SHARES)),
            ),
            x="budget [% of the story]",
            y="questions answered [%]",
        ),
        nll=Lines(
            title="How surprised is the model by question and answer?",
            note="Lower is better.",
            series=curves(chosen, scores, lambda score: float(score.nll.mean())),
            x="budget [% of the story]",
            y="negative log-likelihood [nats per token]",
        ),
        scores=Table(
            title="In numbers",
            note=note,
            columns=(
                "Policy",
                "Budget [%]",
                "Slots",
                "Recall [%]",
                "95 % interval [%]",
                "NLL [nats per token]",
                "KV cache [kB per story]",
                "Time [s]",
            ),
            rows=tuple(rows),
            help={
                "Budget [%]": "Share of the story, in a batch of similar length: of the mean story.",
                "Slots": "Tokens that each layer and head may hold; mean over the stories.",
                "Recall [%]": "Questions for which every token of the answer was the model's first choice.",
                "95 % interval [%]": "Of the recall (Wilson).",
                "NLL [nats per token]": "Negative log-likelihood of question and answer; mean over tokens and stories.",
                "KV cache [kB per story]": "Keys and values at the end, padding of the batch included.",
                "Time [s]": "Wall clock of this policy at this budget, all stories in batches.",
            },
        ),
    )


def curves(
    chosen: Sequence[Policy], scores: dict[tuple[str, float], Score], value: Callable[[Score], float]
) -> tuple[Series, ...]:
    """One curve per policy, with gaps where it has not come to yet; the full cache is the same at every budget."""

    def found(policy: Policy, share: float) -> float | None:
        score = scores.get((policy.name, 1.0 if policy is FULL else share))
        return None if score is None else value(score)

    return tuple(line(policy.name, [found(policy, share) for share in SHARES]) for policy in chosen)


def line(name: str, y: Sequence[float | None]) -> Series:
    """A curve over all budgets."""
    return Series(name=name, x=tuple(round(100 * share) for share in SHARES), y=tuple(y))
