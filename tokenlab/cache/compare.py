"""Look into attention, head by head, and see what a cache policy throws away.

While a language model writes, it keeps a *key* and a *value* of every token that it has read, in every layer and
every head: the KV cache. It grows with the text. A *cache policy* keeps it small by evicting entries for good;
what is gone can no longer be looked at.

**Attention.** Where each head looks when the model reads your prompt:
$\\mathrm{softmax}(q k^\\top / \\sqrt{d})$, one row per token that looks, one column per token that is looked at.

**Cache policies.** The same prompt under several policies at once. The prompt is read with all its tokens; then
each layer and head cuts its own cache down to the budget, and again after every generated token. Entries are really
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

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from tokenlab import models, stories
from tokenlab.cache import attention_maps, policies
from tokenlab.cache.policies import Policy, Score, Trace
from tokenlab.controls import Choice, Choices, Model, Seed, Slider, Text
from tokenlab.errors import UserError
from tokenlab.kv import Budget
from tokenlab.models import LanguageModel
from tokenlab.views import AttentionMaps, Lines, Note, Retention, RetentionRow, Series, Table

ATTENTION, POLICIES, BUDGETS = PARTS = ("Attention", "Cache policies", "Against budget")
SECONDS = 120  # a checkpoint of the Hub takes its time
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
EVERY = 1.0  # seconds between partial results
STORY = stories.recall_case(1, "who", distance=430)
QUESTION = STORY.questions[0]
PROMPT = STORY.prompt(QUESTION)
ONNX_HELP = "The same model with its full cache as an exported graph, which no policy can reach into."

Onnx = tuple[list[int], float | None]  # what the exported graph wrote, and its milliseconds per token


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
        Text("Prompt", info="What the model reads before it goes on", lines=7, when=("part", ATTENTION, POLICIES)),
    ] = PROMPT,
    model: Annotated[str, Model("Model")] = "tinylm",
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
    new_tokens: Annotated[
        int, Slider("Tokens to generate", minimum=1, maximum=200, step=1, when=("part", POLICIES))
    ] = 20,
    n: Annotated[int, Slider("Stories", minimum=4, maximum=64, step=4, when=("part", BUDGETS))] = 16,
    seed: Annotated[int, Seed(when=("part", POLICIES, BUDGETS))] = 0,
) -> Iterator[Result]:
    """Attention maps of a prompt; cache policies side by side on it; or their recall at all budgets."""
    if part != BUDGETS and not prompt.strip():
        raise UserError("The prompt is empty; please write at least one word.")
    opened = models.causal_lm(model)
    if part == ATTENTION:
        yield attention(opened, prompt)
    elif part == POLICIES:
        expected = answer.strip() or (QUESTION.answer if prompt.strip() == PROMPT else "")
        yield from side_by_side(opened, prompt, policies.chosen(compared), budget, new_tokens, expected, seed)
    else:
        yield from against_budget(opened, policies.chosen(compared), n, seed)


# --- attention


def attention(model: LanguageModel, text: str) -> Result:
    """All heads of one reading of the prompt."""
    seen = attention_maps.attend(model, model.prompt(text))
    return Result(maps=attention_maps.maps_view(seen), heads=attention_maps.heads_view(seen))


# --- cache policies


def side_by_side(
    model: LanguageModel, text: str, chosen: Sequence[Policy], share: float, n: int, expected: str, seed: int
) -> Iterator[Result]:
    """One policy after the other on the same prompt; what is there is shown at least every EVERY seconds."""
    prompt = model.prompt(text, n)
    note = Note(title="The prompt is too long", text=prompt.note) if prompt.note else None
    opened = len(model.opening)
    stated = [opened + i for i in policies.stated_at(text, expected, prompt.tokens.starts, prompt.tokens.ends)]
    budget = Budget(ratio=share)
    done: list[Trace] = []
    agreements: dict[str, float] = {}

    def result(runs: Sequence[Trace], onnx: Onnx | None = None) -> Result:
        return Result(
            shortened=note,
            outcome=outcome(model, runs, agreements, expected, budget, onnx),
            kept=retention(model, runs, stated),
            costs=costs(runs, onnx),
            memory=memory(runs),
        )

    for policy in chosen:
        shown = time.monotonic()
        for made in policies.generate(model, prompt.ids, policy, budget, seed, n):
            if time.monotonic() - shown > EVERY:
                shown = time.monotonic()
                yield result([*done, made.trace()])
        done.append(made.trace())
        if policies.first_difference(made.new, done[0].new) is None:
            agreements[policy.name] = 1.0
        else:
            agreements[policy.name] = policies.agreement(model, prompt.ids, done[0].new, policy, budget, seed)
        if policy is not chosen[-1]:
            yield result(done)
    yield result(done, policies.by_onnx(model, prompt.ids, n) if policies.has_onnx(model) else None)


def outcome(
    model: LanguageModel,
    runs: Sequence[Trace],
    agreements: dict[str, float],
    expected: str,
    budget: Budget,
    onnx: Onnx | None,
) -> Table:
    """What each policy wrote, held against the full cache and the expected answer."""
    full, prompt = runs[0].new, len(runs[0].prompt)
    outputs = [(made.policy.name, made.new) for made in runs] + ([("full, ONNX", onnx[0])] if onnx else [])
    rows, marks = [], {}
    for row, (name, ids) in enumerate(outputs):
        differs = policies.first_difference(ids, full)
        if differs is not None:
            marks[row] = "differs"
        text = written(model, ids)
        answers = (("right" if policies.says(text, expected) else "wrong"),) if expected else ()
        rows.append((name, text, *answers, difference(model, ids, full, differs), percent(agreements.get(name))))
    return Table(
        title="What each policy writes",
        note=f"The prompt has {prompt:,} tokens; the budget is {budget.resolve(prompt).total:,} tokens per head."
        + (f" The answer should be “{expected}”." if expected else ""),
        columns=("Policy", "Output", *(("Answer",) if expected else ()), "Differs at", "Agreement [%]"),
        rows=tuple(rows),
        marks=marks,
        help={policy.name: policy.sentence for policy in policies.POLICIES}
        | {
            "full, ONNX": ONNX_HELP,
            "Differs at": "The first generated token that is another one than with the full cache, and what that gave.",
            "Agreement [%]": "Share of the full cache's tokens that the policy would have chosen too, given those "
            "before. Not for ONNX, which is only generated with.",
        },
    )


def costs(runs: Sequence[Trace], onnx: Onnx | None) -> Table:
    """What each policy held at the end, and its wall clock."""
    rows = [(made.policy.name, round(made.held, 1), made.kv_bytes[-1] / 1000, made.milliseconds) for made in runs]
    rows += [("full, ONNX", None, None, onnx[1])] if onnx else []
    return Table(
        title="What it costs",
        columns=("Policy", "Tokens held", "KV cache [kB]", "Time per token [ms]"),
        rows=tuple(rows),
        help={
            "full, ONNX": ONNX_HELP,
            "Tokens held": "At the end, averaged over layers and heads.",
            "KV cache [kB]": "Keys and values at the end, of all layers and heads (1 kB = 1000 bytes).",
            "Time per token [ms]": "Wall clock of this run per generated token, with the policy's own work; reading "
            "the prompt is not counted.",
        },
    )


def written(model: LanguageModel, ids: Sequence[int]) -> str:
    """Generated ids as text, from their bytes."""
    pieces = model.tokenizer.pieces()
    data = b"".join(pieces[i] for i in ids if i < len(pieces))
    return data.decode("utf-8", "backslashreplace") + (" ⟨end⟩" if ids and ids[-1] in model.end else "")


def difference(model: LanguageModel, ours: Sequence[int], full: Sequence[int], at: int | None) -> str | None:
    """The first difference in words; None for the full cache itself."""
    if at is None:
        return None if ours is full else "nowhere"
    mine, other = attention_maps.texts(model, np.array([ours[at], full[at]]))
    return f"token {at + 1}: “{mine}”, not “{other}”"


def retention(model: LanguageModel, runs: Sequence[Trace], stated: Sequence[int]) -> Retention:
    """Who holds which token when; the tokens that state the answer and the first difference are marked."""
    prompt = len(runs[0].prompt)
    rows = []
    for made in runs:
        marks = {i: "states the answer" for i in stated}
        differs = policies.first_difference(made.new, runs[0].new)
        if differs is not None and differs < len(made.new) - 1:
            marks[prompt + differs] = "first difference"
        rows.append(
            RetentionRow(
                name=made.policy.name,
                tokens=attention_maps.texts(model, made.read),
                left=made.left,
                marks=marks,
            )
        )
    return Retention(
        title="What stays in the cache",
        note="The darker a token, the more (layer, head) pairs still hold it; struck through: it is gone everywhere.",
        rows=tuple(rows),
        prompt=prompt,
        steps=max(len(made.new) for made in runs) - 1,
    )


def memory(runs: Sequence[Trace]) -> Lines:
    """Size of the cache after each step."""
    series = []
    for made in runs:
        kilobytes = [size / 1000 for size in made.kv_bytes]
        series.append(Series(name=made.policy.name, x=tuple(range(len(kilobytes))), y=tuple(kilobytes)))
    return Lines(
        title="Memory, step by step",
        note="Step 0 is after the prompt was read and the cache cut. Policies with the same budget lie on one line.",
        series=tuple(series),
        x="generated tokens read",
        y="KV cache [kB]",
    )


# --- against budget


def against_budget(model: LanguageModel, chosen: Sequence[Policy], n: int, seed: int) -> Iterator[Result]:
    """The curves grow policy by policy and budget by budget."""
    started = time.monotonic()
    some = policies.cases(model, n, seed)
    total = 1 + len(SHARES) * (len(chosen) - 1)
    scores: list[tuple[Policy, float, int, Score]] = []
    where = f"n = {n} held-out stories, seed {seed}"
    chance = float(np.mean([one.chance for one in some]))
    for scored in policies.against_budget(model, some, chosen, SHARES, seed):
        scores.append(scored)
        seconds = time.monotonic() - started
        progress = (
            f"{seconds:.1f} s" if len(scores) == total else f"{seconds:.1f} s so far, {len(scores)} of {total} runs"
        )
        yield budget_views(chosen, scores, f"{where}, {progress}.", chance)


def budget_views(
    chosen: Sequence[Policy], scores: Sequence[tuple[Policy, float, int, Score]], note: str, chance: float
) -> Result:
    """Two pictures and their numbers."""
    rows = []
    for policy, share, slots, score in scores:
        low, high = interval(int(score.right.sum()), len(score.right))
        rows.append(
            (
                policy.name,
                100 * share if policy is not policies.FULL else None,
                slots if policy is not policies.FULL else None,
                100 * float(score.right.mean()),
                f"{100 * low:.0f} to {100 * high:.0f}",
                float(score.nll.mean()),
                score.kv_bytes / 1000,
                score.seconds,
            )
        )
    return Result(
        recall=Lines(
            title="Recall: is the question answered?",
            note=f"{note} The question comes when the cache has been cut. Guess: one of the story's own answers.",
            series=(
                *curves(chosen, scores, lambda score: 100 * float(score.right.mean())),
                line("guess", [100 * chance] * len(SHARES)),
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
                "Budget [%]": "Share of the longest story; every story gets the same number of slots.",
                "Slots": "Tokens that each layer and head may hold.",
                "Recall [%]": "Questions for which every token of the answer was the model's first choice.",
                "95 % interval [%]": "Of the recall (Wilson).",
                "NLL [nats per token]": "Negative log-likelihood of question and answer; mean over tokens and stories.",
                "KV cache [kB per story]": "Keys and values at the end, padding of the batch included.",
                "Time [s]": "Wall clock of this policy at this budget, all stories in batches.",
            },
        ),
    )


def curves(
    chosen: Sequence[Policy], scores: Sequence[tuple[Policy, float, int, Score]], value: Callable[[Score], float]
) -> tuple[Series, ...]:
    """One curve per policy, with gaps where it has not come to yet; the full cache is the same at every budget."""
    known = {(policy.name, share): value(score) for policy, share, _, score in scores}
    full = known.get((policies.FULL.name, 1.0))
    return tuple(
        line(policy.name, [full if policy is policies.FULL else known.get((policy.name, share)) for share in SHARES])
        for policy in chosen
    )


def line(name: str, y: Sequence[float | None]) -> Series:
    """A curve over all budgets."""
    return Series(name=name, x=tuple(round(100 * share) for share in SHARES), y=tuple(y))


def interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, 0..1."""
    from scipy.stats import binomtest

    found = binomtest(right, n).proportion_ci(0.95, "wilson")
    return float(found.low), float(found.high)


def percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)
