r"""**A BPE tokenizer's list of merges is a diary of its training data.** Training always joins the pair of
neighbors that is most frequent *at that moment*. So the first entry says which pair was the most frequent of
all, the second which one led after that, and so on. With sample text of each kind (English, Python, ...)
one can ask: in which proportions must the kinds be mixed so that these pairs win, in this order? A linear
program answers.

**Counts.** Cut the sample of category $i$ into words as the target tokenizer does, replay its merges
$m_1, m_2, \dots$ on it, and let $c_i(p, t)$ be the count of the pair $p$ just *before* merge $m_t$. Divide by
the pairs that the sample had before any merge: $q_i(p, t) = c_i(p, t) / \sum_{p'} c_i(p', 0)$.

**Constraints.** In a mixture with shares $\alpha_i$ of all pairs, $m_t$ was at least as frequent as any rival:
$$\sum_i \alpha_i\, q_i(m_t, t) \;\ge\; \sum_i \alpha_i\, q_i(p, t) \qquad\text{for every pair } p \ne m_t.$$
Samples are not the training data, so some of these fail. Slacks pay for that, $v_t$ one that a merge needs
against all its rivals, $w_p$ one that a pair needs against all merges:
$$\min_{\alpha, v, w \ge 0} \sum_t v_t + \sum_p w_p \quad\text{so that}\quad
\sum_i \alpha_i \big(q_i(m_t, t) - q_i(p, t)\big) + v_t + w_p \ge 0, \quad \sum_i \alpha_i = 1.$$
There are millions of constraints, and few of them matter. So: solve with some, look through the whole diary
for those that the solution breaks, add the ten worst of each step, solve again, until none is broken.

**Shares of text.** At the end $\alpha_i$ is turned from pairs to bytes,
$\alpha'_i \propto \alpha_i \cdot \text{bytes}_i / \text{pairs}_i$. The error is the mean of
$(\alpha'_i - \alpha^*_i)^2$ over the categories, as a logarithm to base 10; -16 stands for an exact hit.

**Beside it.** *Token counting* gives every token of the vocabulary to the category where it is most frequent,
and takes the shares of tokens as the estimate. *Random guess* is a random mixture.

**Where it stops.** A pair that stands fewer than 50 times in all samples together says nothing about order, so
its merge is skipped. When a tokenizer.json lists several merges for one token (conversions from SentencePiece
do), only the one that its own encoder uses counts; a block of white-space merges at the very beginning (Gemma)
was put there by hand and counts as given. And the answer is about the data of the *tokenizer*: a model that
uses it may have been trained on something else.

**The categories** are cut from files that every installation has: prose from docstrings, Python's standard
library, PyTorch's C++ headers, Gradio's JavaScript, Plotly's JSON; and three invented languages, whose words
come from random letter chains. In the attack *other half* the attacker's samples are other files from the same
source, in *same text* the very text that the tokenizer saw, in *shifted domain* text of the same kind by other
authors.

**What is measured.** Twenty random mixtures of the five real categories, 1 MB of text per category, 500 merges,
all of them read. Fixed before the run: the claim holds if with the other half the mean log10 MSE is at most
-2.5 and at least 1.0 below token counting and random guesses, and with the same text at most -7. (With the same
text dozens of merges are exactly as frequent as a rival; these ties pin the mixture down to the last digit.)

Source: J. Hayase, A. Liu, Y. Choi, S. Oh and N. A. Smith, *Data Mixture Inference: What do BPE Tokenizers
Reveal about their Training Data?* (NeurIPS 2024), sections 3 and 4. There: 1 GB of text per category and
30,000 merges; here: 1 MB and 500.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import regex

from tokenlab import guard, views
from tokenlab.controls import Choice, Choices, Seed, Slider, Text, Tokenizers
from tokenlab.errors import UserError
from tokenlab.measurement import Measurement
from tokenlab.text import categories
from tokenlab.text.bpe_replay import Merge, Replay
from tokenlab.text.merge_tree import last_merge, single_bytes, single_characters
from tokenlab.text.tokenization import Tokenizer

SECONDS = 150.0  # eight categories, 1,000 merges of a shifted domain: a minute or two of linear programming

LEAST_COUNT = 50  # occurrences in all samples: below, chance decides which pair leads
PER_STEP = 10  # constraints added per step of the diary and round
MILLION = 1e6  # shares of pairs are counted in pairs per million: numbers that suit the solver's tolerances
TOLERANCE = 1e-3  # pairs per million
HAND_ADDED = 8  # white-space merges at the beginning of a list: as many are no accident

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# What SentencePiece's trainer lets into one piece: a word with the space before it, letters apart from
# punctuation, every digit alone (trainer_interface.cc, IsValidSentencePiece).
SENTENCEPIECE = r" ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+| +(?!\S)| +|[^\S ]"

Cut = Callable[[str], Iterable[bytes]]  # a text -> its words (pre-tokens)


# --- counting ----------------------------------------------------------------------------------------


def cut_by(pattern: str) -> Cut:
    """Words by a regular expression, as byte-level tokenizers cut them."""
    rule = regex.compile(pattern)
    return lambda text: (word.encode() for word in rule.findall(text))


def word_table(texts: Sequence[str], cut: Cut) -> tuple[list[bytes], np.ndarray]:
    """The distinct words of all texts, and (words, texts) how often each stands in each text."""
    tallies = [Counter(cut(text)) for text in texts]
    words = sorted(set().union(*tallies))
    return words, np.array([[tally[word] for tally in tallies] for word in words], dtype=np.int64)


def train(texts: Sequence[str], count: int, cut: Cut | None = None) -> list[Merge]:
    """The first `count` merges of a byte-level BPE tokenizer trained on all texts together."""
    words, counts = word_table(texts, cut or cut_by(GPT2))
    return Replay(map(single_bytes, words), counts.sum(axis=1, keepdims=True)).train(count)


@dataclass(frozen=True)
class Step:
    """One entry of the diary. row: the merged pair, None when no sample ever holds it;
    changed (k,): pairs whose counts the merge changes; counts (k, n): what they are after it."""

    row: int | None
    changed: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Diary:
    """Pair counts of n samples before each merge, sparse in time.

    start: (pairs, n) counts before the first merge; pairs: (n,) all pairs then; sizes: (n,) bytes of the samples;
    leading: (steps, n) count of each merge's own pair before it; readable: (steps,) bool, does it make constraints;
    tokens, token_counts (tokens, n): the samples after the last merge."""

    merges: tuple[Merge, ...]
    steps: tuple[Step, ...]
    start: np.ndarray
    pairs: np.ndarray
    sizes: np.ndarray
    leading: np.ndarray
    readable: np.ndarray
    tokens: tuple[bytes, ...]
    token_counts: np.ndarray


def keep_diary(
    texts: Sequence[str],
    merges: Sequence[Merge],
    read: int,
    cut: Cut | None = None,
    symbols: Callable[[bytes], Sequence[bytes]] = single_bytes,
    given: int = 0,
    least: int = LEAST_COUNT,
) -> Diary:
    """Replay `merges` on the samples and write down the pair counts of the first `read` steps.

    given: how many merges at the beginning were not learned; least: skip merges that are rarer in all samples.
    UserError: a sample without any pair."""
    words, counts = word_table(texts, cut or cut_by(GPT2))
    replay = Replay(map(symbols, words), counts)
    start = replay.table[: len(replay.pairs)].copy()
    pairs = start.sum(axis=0)
    if not pairs.all():
        raise UserError("A category has too little text to count pairs in; please give it a larger share.")
    steps, leading = [], np.zeros((read, len(texts)), dtype=np.int64)
    for t, merge in enumerate(merges):
        guard.check_time()
        row = replay.row(merge)
        if t < read and row is not None:
            leading[t] = replay.table[row]
        changed = replay.merge(merge)
        if t < read:
            steps.append(Step(row, changed, replay.table[changed]))
    grown = np.zeros((len(replay.pairs), len(texts)), dtype=np.int64)
    grown[: len(start)] = start
    readable = leading.sum(axis=1) >= max(least, 1)
    readable[:given] = False
    return Diary(
        merges=tuple(merges[:read]),
        steps=tuple(steps),
        start=grown,
        pairs=pairs,
        sizes=np.array([len(text.encode()) for text in texts]),
        leading=leading,
        readable=readable,
        tokens=tuple(replay.tokens),
        token_counts=replay.token_counts(),
    )


# --- the linear program ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What the first `read` steps say. pair_shares, shares: (n,) of pairs and of bytes; slack: (read,) v_t in
    pairs per million; objective: sum of all slacks; constraints: how many were needed; seconds: to find them."""

    read: int
    pair_shares: np.ndarray
    shares: np.ndarray
    slack: np.ndarray
    objective: float
    constraints: int
    seconds: float


class MixtureProgram:
    """The linear program over a growing part of a diary; constraints once found are kept."""

    def __init__(self, diary: Diary):
        self.diary = diary
        self.scale = MILLION / diary.pairs
        n = len(diary.pairs)
        self.pair_shares = np.full(n, 1 / n)
        self.v = np.zeros(len(diary.steps))
        self.w = np.zeros(len(diary.start))
        self.objective = 0.0
        self.seconds = 0.0
        self.known: dict[tuple[int, int], np.ndarray] = {}  # (t, p) -> (n,) q(m_t, t) - q(p, t)

    def solve(self, read: int) -> Estimate:
        """The shares that explain the first `read` steps best. UserError: the solver ran out of time."""
        began = time.perf_counter()
        while broken := self._broken(read):
            self.known.update(broken)
            self._optimize()
        self.seconds += time.perf_counter() - began
        shares = self.pair_shares * self.diary.sizes / self.diary.pairs
        return Estimate(
            read=read,
            pair_shares=self.pair_shares.copy(),
            shares=shares / shares.sum(),
            slack=self.v[:read].copy(),
            objective=self.objective,
            constraints=len(self.known),
            seconds=self.seconds,
        )

    def _broken(self, read: int) -> dict[tuple[int, int], np.ndarray]:
        """The worst constraints that the solution breaks, at most PER_STEP per step."""
        broken = {}
        q = self.diary.start * self.scale
        score = q @ self.pair_shares - self.w
        for t, step in enumerate(self.diary.steps[:read]):
            guard.check_time()
            if self.diary.readable[t]:
                own = q[step.row]
                over = np.flatnonzero(score > own @ self.pair_shares + self.v[t] + TOLERANCE)
                worst = over[np.argsort(-score[over], kind="stable")].tolist()
                fresh = [p for p in worst if p != step.row and (t, p) not in self.known][:PER_STEP]
                broken.update({(t, p): own - q[p] for p in fresh})
            q[step.changed] = step.counts * self.scale
            score[step.changed] = q[step.changed] @ self.pair_shares - self.w[step.changed]
        return broken

    def _optimize(self) -> None:
        from scipy.optimize import linprog
        from scipy.sparse import csr_array, hstack

        gains = np.array(list(self.known.values()))
        merges, merge_of = np.unique([t for t, _ in self.known], return_inverse=True)
        rivals, rival_of = np.unique([p for _, p in self.known], return_inverse=True)
        n, rows, ones = gains.shape[1], np.arange(len(gains)), np.ones(len(gains))
        v_part = csr_array((ones, (rows, merge_of)), shape=(len(gains), len(merges)))
        w_part = csr_array((ones, (rows, rival_of)), shape=(len(gains), len(rivals)))
        slacks = len(merges) + len(rivals)
        found = linprog(
            c=np.concatenate([np.zeros(n), np.ones(slacks)]),
            A_ub=-hstack([csr_array(gains), v_part, w_part], format="csr"),
            b_ub=np.zeros(len(gains)),
            A_eq=csr_array(np.concatenate([np.ones(n), np.zeros(slacks)])[None]),
            b_eq=[1.0],
            bounds=[(0, 1)] * n + [(0, None)] * slacks,
            method="highs",
            options={"time_limit": SECONDS},
        )
        if found.x is None:
            raise UserError("The linear program took too long; please read fewer merges.")
        self.pair_shares = found.x[:n]
        self.v[:] = 0
        self.v[merges] = found.x[n : n + len(merges)]
        self.w[:] = 0
        self.w[rivals] = found.x[n + len(merges) :]
        self.objective = float(found.fun)


# --- baselines and scores ----------------------------------------------------------------------------


def token_counting(diary: Diary) -> np.ndarray:
    """(n,) baseline TC: each learned token belongs to the category where it is relatively most frequent.

    Tokens that no sample holds are left out."""
    learned = np.array([len(token) > 1 for token in diary.tokens])
    frequency = (diary.token_counts / diary.token_counts.sum(axis=0))[learned]
    seen = frequency[frequency.sum(axis=1) > 0]
    return np.bincount(seen.argmax(axis=1), minlength=frequency.shape[1]) / max(len(seen), 1)


def random_shares(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n,) uniform on the simplex: the gaps between sorted random cuts of [0, 1]."""
    return np.diff(np.concatenate([[0.0], np.sort(rng.random(n - 1)), [1.0]]))


def log_error(shares: np.ndarray, true: np.ndarray) -> float:
    """log10 of the mean squared error, not below -16: beyond that it is the rounding of the solver."""
    return float(np.log10(max(np.mean((shares - true) ** 2), 1e-16)))


# --- the secret mix ----------------------------------------------------------------------------------

ATTACKS = ("other half", "same text", "shifted domain")


@dataclass(frozen=True)
class Secret:
    """What the attacker does not know. texts: the training text by category; shares: (n,) of its bytes."""

    names: tuple[str, ...]
    texts: tuple[str, ...]
    shares: np.ndarray
    size: int

    @property
    def bytes(self) -> int:
        return sum(len(text.encode()) for text in self.texts)

    def samples(self, attack: str) -> list[str]:
        """The attacker's text of each category, in an attack of ATTACKS."""
        if attack == "same text":  # of a category that is not in the mix, any text will do
            return [t or categories.sample(name, "first half", self.size) for name, t in self._named()]
        part = "second half" if attack == "other half" else "away"
        return [categories.sample(name, part, self.size) for name in self.names]

    def _named(self) -> Iterable[tuple[str, str]]:
        return zip(self.names, self.texts, strict=True)


def mix(names: Sequence[str], shares: np.ndarray, size: int) -> Secret:
    """Training text with the given shares of bytes; the largest share takes its whole first half, `size` bytes."""
    wanted = (shares / shares.max() * size).astype(int)
    texts = [
        categories.sample(name, "first half", size).encode()[:bytes_].decode("utf-8", "ignore")
        for name, bytes_ in zip(names, wanted, strict=True)
    ]
    sizes = np.array([len(text.encode()) for text in texts])
    return Secret(tuple(names), tuple(texts), sizes / sizes.sum(), size)


def parse_shares(text: str, n: int) -> np.ndarray:
    """Shares as typed, such as "40, 30, 20, 10", scaled to sum to 1. UserError: not n shares."""
    parts = [part.removesuffix("%").strip() for part in text.replace(";", ",").split(",")]
    try:
        shares = np.array([float(part) for part in parts])
    except ValueError:
        raise UserError('Shares: please type numbers separated by commas, such as "40, 30, 20, 10".') from None
    if len(shares) != n:
        raise UserError(f"Shares: please type {n} numbers, one per category; there are {len(shares)} now.")
    if not np.isfinite(shares).all() or (shares < 0).any() or not 0 < shares.sum() < 1e12:
        raise UserError("Shares: please type numbers of at least 0 that do not all vanish.")
    return shares / shares.sum()


# --- a foreign tokenizer -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A tokenizer under attack. given: merges at the beginning that were not learned; own_words: False when
    `cut` is a guess."""

    merges: tuple[Merge, ...]
    given: int
    cut: Cut
    symbols: Callable[[bytes], Sequence[bytes]]
    own_words: bool


def open_target(ref: str) -> Target:
    """The tokenizer that `ref` names (tokenlab.text.sources), ready for an attack. UserError: it is not BPE."""
    from tokenlab.text import sources

    tokenizer = sources.load(ref)
    merges = tokenizer.merges()
    if not merges:
        raise UserError("This tokenizer keeps no list of merges; please choose a BPE tokenizer.")
    symbols = single_bytes if byte_level(merges) else single_characters
    cut, own = words_of(tokenizer, symbols)
    merges = canonical(merges, symbols)
    return Target(tuple(merges), hand_added(merges), cut, symbols, own)


def words_of(tokenizer: Tokenizer, symbols: Callable[[bytes], Sequence[bytes]]) -> tuple[Cut, bool]:
    """How the tokenizer's training text was cut into words, and whether that is known or a guess.

    SentencePiece cuts words in training only, so its models, and tokenizer.json files made of them, cut
    nothing when they encode; their merges start from characters."""
    if len(tokenizer.pre_tokenize("one two")) > 1:
        return tokenizer.pre_tokenize, True
    if symbols is single_characters:
        return cut_by(SENTENCEPIECE), True
    return cut_by(GPT2), False


def byte_level(merges: Sequence[Merge]) -> bool:
    """Do the merges build characters out of bytes? Then some part of a merge is no whole character."""
    return any(not _is_text(part) for merge in merges for part in merge)


def _is_text(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True


def canonical(merges: Sequence[Merge], symbols: Callable[[bytes], Sequence[bytes]]) -> list[Merge]:
    """One merge per token: of several, the one that encoding the token ends with (the first, if none does)."""
    ranks: dict[Merge, int] = {}
    ways: dict[bytes, list[Merge]] = {}
    for rank, merge in enumerate(merges):
        if merge not in ranks:
            ranks[merge] = rank
            ways.setdefault(b"".join(merge), []).append(merge)
    kept = []
    for token, listed in ways.items():
        last = listed[0]
        if len(listed) > 1:
            guard.check_time()
            reached = last_merge(symbols(token), lambda a, b: ranks.get((a, b)), bytes.__add__)
            last = reached if reached in listed else last
        kept.append(last)
    return sorted(kept, key=ranks.__getitem__)


def hand_added(merges: Sequence[Merge]) -> int:
    """The length of a block of white-space merges at the very beginning, 0 when it is shorter than HAND_ADDED."""
    block = next((t for t, merge in enumerate(merges) if b"".join(merge).strip()), len(merges))
    return block if block >= HAND_ADDED else 0


# --- the panel ---------------------------------------------------------------------------------------

SECRET, FOREIGN = "Secret mix", "Attack a tokenizer"
STOPS = (25, 50, 100, 200, 350, 500, 700)  # merges after which the estimate is shown
SHOWN = 15  # bars of unexplained merges


@dataclass(frozen=True)
class Result:
    summary: views.Note
    shares: views.Bars
    reading: views.Lines
    error: views.Lines | None
    slack: views.Bars | None
    diary: views.Table


def run(
    part: Annotated[str, Choice("What to attack", options=(SECRET, FOREIGN), style="parts")] = SECRET,
    kinds: Annotated[
        tuple[str, ...], Choices("Categories", "the attacker has a sample of each", options=categories.NAMES, least=2)
    ] = categories.NAMES[:5],
    shares: Annotated[
        str,
        Text(
            "Shares",
            'one number per category, such as "40, 30, 20, 5, 5"; empty: a secret random mix',
            ("part", SECRET),
            lines=1,
            characters=200,
            placeholder="a secret random mix",
        ),
    ] = "",
    tokenizer: Annotated[
        tuple[str, ...],
        Tokenizers("Tokenizer", "any BPE tokenizer", ("part", FOREIGN), least=1, most=1, shared="tokenizers"),
    ] = ("tekken-240911",),
    text: Annotated[
        float,
        Slider(
            "Text per category (MB)",
            "of a secret mix: half for the tokenizer, half for the attacker",
            minimum=0.2,
            maximum=2.0,
            step=0.2,
        ),
    ] = 1.0,
    merges: Annotated[int, Slider("Merges to train", "M", ("part", SECRET), minimum=100, maximum=3000, step=50)] = 500,
    read: Annotated[int, Slider("Merges to read", "T, at most M", minimum=50, maximum=1000, step=50)] = 500,
    attack: Annotated[
        str,
        Choice(
            "The attacker's samples",
            "compared with the tokenizer's text",
            ("part", SECRET),
            options=ATTACKS,
            style="buttons",
        ),
    ] = ATTACKS[0],
    drop: Annotated[
        str,
        Choice(
            "Unknown to the attacker",
            "a category without a sample",
            ("part", SECRET),
            options=("none", *categories.NAMES),
        ),
    ] = "none",
    seed: Annotated[int, Seed()] = 0,
) -> Iterator[Result]:
    """Attack a tokenizer; each partial result has read some more of its merges."""
    size = round(text * 500_000)
    if part == FOREIGN:
        yield from attack_tokenizer(tokenizer[0], kinds, size, read)
    else:
        yield from attack_secret(kinds, shares, size, merges, read, attack, drop, seed)


def attack_secret(
    kinds: Sequence[str], shares: str, size: int, merges: int, read: int, attack: str, drop: str, seed: int
) -> Iterator[Result]:
    """Train on a mix, forget the mix, and infer it."""
    if read > merges:
        raise UserError(f"Merges to read: there are only {merges:,}; please read fewer or train more.")
    if drop != "none" and drop not in kinds:
        raise UserError("Unknown to the attacker: please choose one of the categories that are in the mix.")
    known = [i for i, kind in enumerate(kinds) if kind != drop]
    if len(known) < 2:
        raise UserError("Categories: please leave the attacker at least two.")
    rng = np.random.default_rng(seed)
    random_mix, guess = random_shares(len(kinds), rng), random_shares(len(known), rng)
    secret = mix(kinds, parse_shares(shares, len(kinds)) if shares.strip() else random_mix, size)
    if not secret.shares[known].sum() > 0:
        raise UserError("Shares: please give a positive share to a category that the attacker knows.")
    began = time.perf_counter()
    learned = train(secret.texts, merges)
    trained = time.perf_counter()
    samples = secret.samples(attack)
    diary = keep_diary([samples[i] for i in known], learned, min(read, len(learned)))
    counted = time.perf_counter()

    names = [kinds[i] for i in known]
    true = secret.shares[known] / secret.shares[known].sum()
    rivals = {"token counting": token_counting(diary), "random guess": guess}
    estimates: list[Estimate] = []
    for estimate in read_on(diary):
        estimates.append(estimate)
        errors = {name: log_error(values, true) for name, values in rivals.items()}
        text = (
            f"log10 MSE after {estimate.read} merges: **inferred {log_error(estimate.shares, true):.2f}**, "
            + ", ".join(f"{name} {error:.2f}" for name, error in errors.items())
            + f". {merges:,} merges were learned from {secret.bytes / 1e6:.2f} MB in {trained - began:.1f} s; "
            f"pairs were counted in {counted - trained:.1f} s; the linear program has {estimate.constraints:,} "
            f"constraints so far and took {estimate.seconds:.1f} s."
        )
        if drop != "none":
            text += (
                f" {drop} makes up {100 * secret.shares[kinds.index(drop)]:.1f} % of the tokenizer's text and is "
                "unknown to the attacker; the shares below are those among the others."
            )
        yield Result(
            summary=summary(text, diary, estimate),
            shares=share_bars(names, {"true": true, "inferred": estimate.shares, **rivals}),
            reading=reading_lines(names, estimates, true),
            error=error_lines([(e.read, log_error(e.shares, true)) for e in estimates], errors),
            slack=slack_bars(diary, estimate),
            diary=diary_table(names, diary, estimate),
        )


def attack_tokenizer(ref: str, kinds: Sequence[str], size: int, read: int) -> Iterator[Result]:
    """Infer the mix of someone else's tokenizer from our own samples, both halves of them."""
    target = open_target(ref)
    texts = [categories.sample(kind, half, size) for kind in kinds for half in categories.PARTS[:2]]
    texts = [first + second for first, second in zip(texts[::2], texts[1::2], strict=True)]
    began = time.perf_counter()
    merges = target.merges[: target.given + read]
    diary = keep_diary(texts, merges, len(merges), target.cut, target.symbols, target.given)
    counted = time.perf_counter()
    if not diary.readable.any():
        raise UserError("None of these merges stands often enough in the samples; please choose more text or merges.")
    counting = token_counting(diary)
    estimates: list[Estimate] = []
    for estimate in read_on(diary):
        estimates.append(estimate)
        text = (
            f"After {estimate.read:,} of {len(target.merges):,} merges. The true mixture is not known; the shares are "
            "among these categories, and everything else in the tokenizer's data shows up as merges that are "
            f"skipped or unexplained. Pairs were counted in {counted - began:.1f} s; the linear program took "
            f"{estimate.seconds:.1f} s."
        )
        if target.given:
            text += f" The first {target.given} merges are runs of white space that were added by hand."
        if not target.own_words:
            text += " How this tokenizer cuts words before it merges is not known here; a common rule was used."
        yield Result(
            summary=summary(text, diary, estimate),
            shares=share_bars(kinds, {"inferred": estimate.shares, "token counting": counting}),
            reading=reading_lines(kinds, estimates),
            error=None,
            slack=slack_bars(diary, estimate),
            diary=diary_table(kinds, diary, estimate),
        )


def read_on(diary: Diary) -> Iterator[Estimate]:
    """Estimates from more and more of the diary, the whole last."""
    program, last = MixtureProgram(diary), len(diary.steps)
    for stop in [*(stop for stop in STOPS if stop < last), last]:
        yield program.solve(stop)


def summary(text: str, diary: Diary, estimate: Estimate) -> views.Note:
    skipped = int((~diary.readable[: estimate.read]).sum())
    missing = int((diary.leading[: estimate.read].sum(axis=1) == 0).sum())
    if skipped:
        text += f" {skipped} merges were skipped, {missing} of them because no sample holds their pair."
    text += (
        "\n\nThis is about the data that the *tokenizer* was trained on; a model that uses it may have been "
        "trained on another mixture."
    )
    return views.Note(title="What the diary says", text=text)


def share_bars(names: Sequence[str], rows: dict[str, np.ndarray]) -> views.Bars:
    return views.Bars(
        title="The mixture",
        note="Shares of the bytes of text.",
        categories=tuple(rows),
        series={
            name: tuple(abs(round(100 * float(row[i]), 2)) for row in rows.values()) for i, name in enumerate(names)
        },
        x="estimate",
        y="share of the text [%]",
        stacked=True,
        horizontal=True,
    )


def reading_lines(names: Sequence[str], estimates: Sequence[Estimate], true: np.ndarray | None = None) -> views.Lines:
    read = tuple(estimate.read for estimate in estimates)
    series = [
        views.Series(name=name, x=read, y=tuple(100 * float(estimate.shares[i]) for estimate in estimates))
        for i, name in enumerate(names)
    ]
    if true is not None:
        ends = views.Series(
            name="true", x=read[-1:] * len(names), y=tuple(100 * true), points=True, labels=tuple(names)
        )
        series.append(ends)
    return views.Lines(
        title="How the diary is read",
        note="The estimate from the first T merges."
        + (" Points at the end: the true shares." if len(series) > len(names) else ""),
        series=tuple(series),
        x="merges read, T",
        y="share of the text [%]",
    )


def error_lines(points: Sequence[tuple[int, float]], errors: dict[str, float]) -> views.Lines:
    read = tuple(t for t, _ in points)
    return views.Lines(
        title="Error against merges read",
        note="Lower is better. The two rivals do not depend on T.",
        series=(
            views.Series(name="inferred", x=read, y=tuple(error for _, error in points)),
            *(views.Series(name=name, x=(read[0], read[-1]), y=(error, error)) for name, error in errors.items()),
        ),
        x="merges read, T",
        y="log10 MSE",
    )


def slack_bars(diary: Diary, estimate: Estimate) -> views.Bars | None:
    """None when the mix explains everything."""
    worst = unexplained(estimate)[:SHOWN]
    if not worst:
        return None
    return views.Bars(
        title="Merges that the mix cannot explain",
        note="By how much some rival was ahead of the merge in the inferred mix (slack v).",
        categories=tuple(f"{t + 1}: {' + '.join(map(shown, diary.merges[t]))}" for t in worst),
        series={"slack": tuple(float(estimate.slack[t]) for t in worst)},
        x="merge",
        y="slack [pairs per million]",
        horizontal=True,
    )


def unexplained(estimate: Estimate) -> list[int]:
    """Steps with slack, the largest first."""
    order = np.argsort(-estimate.slack, kind="stable")
    return [int(t) for t in order if estimate.slack[t] > TOLERANCE]


def diary_table(names: Sequence[str], diary: Diary, estimate: Estimate) -> views.Table:
    share = diary.leading * (MILLION / diary.pairs)
    marks = {t: "unexplained" for t in unexplained(estimate)[:SHOWN]}
    marks |= {int(t): "skipped" for t in np.flatnonzero(~diary.readable)}
    rows = []
    for t, (left, right) in enumerate(diary.merges):
        most = names[int(share[t].argmax())] if share[t].any() else "none of them"
        slack = round(float(estimate.slack[t]), 1) if t < estimate.read else None
        numbers = (round(float(x), 1) for x in share[t])
        rows.append((t + 1, shown(left), shown(right), shown(left + right), most, slack, *numbers))
    return views.Table(
        title="The diary",
        note="The merges in the order in which they were learned. The last columns count the pair in the attacker's "
        "samples just before the merge.",
        columns=(
            "merge",
            "left",
            "right",
            "token",
            "most frequent in",
            "slack [pairs per million]",
            *(f"{name} [pairs per million]" for name in names),
        ),
        rows=tuple(rows),
        marks=marks,
        help={
            "merge": "Its rank: 1 was learned first.",
            "most frequent in": "The category in whose sample the pair has the largest share of all pairs.",
            "slack [pairs per million]": "How far a rival was ahead of this merge in the inferred mix.",
            **{f"{name} [pairs per million]": f"Sample: {categories.SOURCES[name]}." for name in names},
        },
    )


_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def shown(token: bytes) -> str:
    """The token with white space made visible; bytes that are no text as \\x and two digits."""
    text = token.decode("utf-8", "backslashreplace")
    return "".join(_SIGNS.get(c, c) for c in text)


# --- the experiment ----------------------------------------------------------------------------------

MIXES = 20
FEW = 5  # mixes for the side questions
MERGES = 500
SIZE = 500_000  # bytes of each half of a category
READ = (50, 100, 200, MERGES)
SIZES = (50_000, 125_000, 250_000, SIZE, 1_000_000)
BAR, MARGIN, NOISE_FREE = -2.5, 1.0, -7.0  # log10 MSE: other half; ahead of both baselines; same text
GUESSES = 100  # random mixtures per mix


@dataclass(frozen=True)
class Trial:
    """One mix attacked once. shares: inferred from all merges; errors: log10 MSE by number of merges read;
    counting: the error of token counting; efficiency: (n,) bytes per token of the samples; seconds: to train,
    count and solve."""

    true: np.ndarray
    shares: np.ndarray
    errors: dict[int, float]
    counting: float
    efficiency: np.ndarray
    seconds: tuple[float, float, float]


def attempt(
    names: Sequence[str], shares: np.ndarray, size: int, attack: str, merges: int, read: Sequence[int]
) -> Trial:
    """Train on a mix and attack it, as the panel does."""
    secret = mix(names, shares, size)
    began = time.perf_counter()
    learned = train(secret.texts, merges)
    trained = time.perf_counter()
    diary = keep_diary(secret.samples(attack), learned, len(learned))
    counted = time.perf_counter()
    program = MixtureProgram(diary)
    estimates = {stop: program.solve(min(stop, len(learned))) for stop in sorted(read)}
    return Trial(
        true=secret.shares,
        shares=estimates[max(read)].shares,
        errors={stop: log_error(estimate.shares, secret.shares) for stop, estimate in estimates.items()},
        counting=log_error(token_counting(diary), secret.shares),
        efficiency=diary.sizes / diary.token_counts.sum(axis=0),
        seconds=(trained - began, counted - trained, program.seconds),
    )


def own_efficiency(names: Sequence[str], size: int, merges: int) -> np.ndarray:
    """(n,) bytes per token of each second half under a tokenizer trained on that category's first half alone."""
    out = []
    for name in names:
        diary = keep_diary(
            [categories.sample(name, "second half", size)],
            train([categories.sample(name, "first half", size)], merges),
            0,
        )
        out.append(float(diary.sizes[0] / diary.token_counts.sum()))
    return np.array(out)


def token_efficiency(ratios: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(mixes, n) baseline TEE: shares from how well each category is compressed.

    ratios: (mixes, n) efficiency relative to a tokenizer of the category's own; shares: (mixes, n) true ones. The
    line log share = a + b log ratio is fitted to the other mixes, whose shares this baseline is allowed to know."""
    x, y = np.log(ratios), np.log(np.maximum(shares, 1e-4))
    out = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        slope, height = np.polyfit(x[others].ravel(), y[others].ravel(), 1)
        guess = np.exp(height + slope * x[i])
        out.append(guess / guess.sum())
    return np.array(out)


def bootstrap(values: Sequence[float], rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % percentile interval of the mean, from 2,000 resamples."""
    draws = rng.choice(np.asarray(values), size=(2000, len(values))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def measure(seed: int = 0) -> Measurement:
    """The claim, fixed before the run: with the other half as samples, the mean log10 MSE over 20 random mixes of
    five categories is at most -2.5, and at least 1.0 below both token counting and a random guess; with the
    tokenizer's own text it is at most -7. About five minutes on one core."""
    return experiment(seed=seed)


def experiment(
    seed: int = 0,
    names: Sequence[str] = categories.NAMES[:5],
    invented: Sequence[str] = categories.NAMES[5:],
    mixes: int = MIXES,
    few: int = FEW,
    merges: int = MERGES,
    read: Sequence[int] = READ,
    size: int = SIZE,
    sizes: Sequence[int] = SIZES,
) -> Measurement:
    """All of it; sizes holds `size`, read ends with `merges`."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    drawn = [random_shares(len(names), rng) for _ in range(mixes)]
    other = [attempt(names, shares, size, "other half", merges, read) for shares in drawn]
    shifted = [attempt(names, shares, size, "shifted domain", merges, (merges,)) for shares in drawn]
    same = [attempt(names, shares, size, "same text", merges, (merges,)) for shares in drawn[:few]]
    by_size = {
        s: other[:few]
        if s == size
        else [attempt(names, shares, s, "other half", merges, (merges,)) for shares in drawn[:few]]
        for s in sizes
    }
    languages = [
        attempt(invented, random_shares(len(invented), rng), size, "other half", merges, (merges,)) for _ in range(few)
    ]
    guesses = [
        float(np.mean([log_error(random_shares(len(names), rng), t.true) for _ in range(GUESSES)])) for t in other
    ]
    ratios = np.array([t.efficiency for t in other]) / own_efficiency(names, size, merges)
    true = np.array([t.true for t in other])
    compressed = [log_error(e, t) for e, t in zip(token_efficiency(ratios, true), true, strict=True)]

    inferred, counting = [t.errors[merges] for t in other], [t.counting for t in other]
    value, chance, baseline = np.mean(inferred), np.mean(guesses), np.mean(counting)
    noise_free = np.mean([t.errors[merges] for t in same])
    low, high = bootstrap(inferred, rng)
    holds = value <= BAR and value <= min(baseline, chance) - MARGIN and noise_free <= NOISE_FREE
    return Measurement(
        claim="The order of a BPE tokenizer's merges gives away the mixture of its training data, far better than "
        "counting tokens does.",
        metric="log10 of the mean squared error of the shares, mean over mixes",
        unit="log10 MSE",
        value=float(value),
        baseline_name="token counting (TC)",
        baseline=float(baseline),
        bar=BAR,
        direction="lower",
        holds=bool(holds),
        reason=f"Other half: {value:.2f} (95 % interval {low:.2f} to {high:.2f}; bar {BAR}), token counting "
        f"{baseline:.2f}, encoding efficiency {np.mean(compressed):.2f}, random {chance:.2f}; at least {MARGIN} below "
        f"counting and random is asked. With the tokenizer's own text {noise_free:.2f} (bar {NOISE_FREE}); with "
        f"samples of other authors {np.mean([t.errors[merges] for t in shifted]):.2f}. The claim "
        f"{'holds' if holds else 'does not hold'} here.",
        paper="log10 MSE over 100 mixtures of five: languages -7.30, programming languages -6.46, English domains "
        "-3.74; token counting -2.12, -1.92, -1.64; encoding efficiency -2.02, -2.54, -1.69; random -1.39. Samples "
        "from another domain (ten languages, Wikipedia against the web): -3.53.",
        n=mixes,
        seed=seed,
        seconds=time.perf_counter() - began,
        random=float(chance),
        full=float(noise_free),
        low=low,
        high=high,
        figures=(
            attack_bars(
                {
                    "other half": other,
                    "shifted domain": shifted,
                    "same text": same,
                    "invented languages, other half": languages,
                },
                merges,
                rng,
            ),
            true_against_inferred(names, other),
            read_lines(
                other, read, {"token counting": counting, "encoding efficiency": compressed, "random": guesses}, rng
            ),
            size_lines(by_size, merges, rng),
            mix_table(names, other, counting, compressed, guesses, merges),
        ),
    )


def attack_bars(trials: dict[str, list[Trial]], merges: int, rng: np.random.Generator) -> views.Bars:
    values = {
        "inferred": [[t.errors[merges] for t in many] for many in trials.values()],
        "token counting": [[t.counting for t in many] for many in trials.values()],
    }
    ends = {name: [bootstrap(many, rng) for many in rows] for name, rows in values.items()}
    return views.Bars(
        title="Error by attack",
        note=f"Lower is better; mean and 95 % interval over {', '.join(str(len(many)) for many in trials.values())} "
        "mixes. Same text: -16 stands for exact. Invented languages: three, in three scripts.",
        categories=tuple(trials),
        series={name: tuple(float(np.mean(many)) for many in rows) for name, rows in values.items()},
        low={name: tuple(low for low, _ in pairs) for name, pairs in ends.items()},
        high={name: tuple(high for _, high in pairs) for name, pairs in ends.items()},
        x="attack",
        y="log10 MSE",
    )


def true_against_inferred(names: Sequence[str], trials: Sequence[Trial]) -> views.Lines:
    return views.Lines(
        title="Inferred against true shares",
        note="One point per category and mix, other half. On the line the attack is right.",
        series=(
            views.Series(name="right", x=(0.0, 100.0), y=(0.0, 100.0)),
            *(
                views.Series(
                    name=name,
                    x=tuple(100 * float(t.true[i]) for t in trials),
                    y=tuple(100 * float(t.shares[i]) for t in trials),
                    points=True,
                )
                for i, name in enumerate(names)
            ),
        ),
        x="true share [%]",
        y="inferred share [%]",
    )


def read_lines(
    trials: Sequence[Trial], read: Sequence[int], rivals: dict[str, list[float]], rng: np.random.Generator
) -> views.Lines:
    inferred = error_series("inferred", {t: [trial.errors[t] for trial in trials] for t in read}, rng)
    flat = (error_series(name, dict.fromkeys((read[0], read[-1]), errors), rng) for name, errors in rivals.items())
    return views.Lines(
        title="Error against merges read",
        note=f"Other half, {len(trials)} mixes; bands: 95 % intervals. The rivals use the whole vocabulary.",
        series=(inferred, *flat),
        x="merges read, T",
        y="log10 MSE",
    )


def size_lines(by_size: dict[int, list[Trial]], merges: int, rng: np.random.Generator) -> views.Lines:
    inferred = {2 * s / 1e6: [t.errors[merges] for t in many] for s, many in by_size.items()}
    counting = {2 * s / 1e6: [t.counting for t in many] for s, many in by_size.items()}
    return views.Lines(
        title="Error against text per category",
        note=f"Other half, {len(next(iter(by_size.values())))} mixes; half of the text is the attacker's.",
        series=(error_series("inferred", inferred, rng), error_series("token counting", counting, rng)),
        x="text per category [MB]",
        y="log10 MSE",
        log_x=True,
    )


def error_series(name: str, errors: dict[float, list[float]], rng: np.random.Generator) -> views.Series:
    ends = [bootstrap(many, rng) for many in errors.values()]
    return views.Series(
        name=name,
        x=tuple(errors),
        y=tuple(float(np.mean(many)) for many in errors.values()),
        low=tuple(low for low, _ in ends),
        high=tuple(high for _, high in ends),
    )


def mix_table(
    names: Sequence[str],
    trials: Sequence[Trial],
    counting: Sequence[float],
    compressed: Sequence[float],
    guesses: Sequence[float],
    merges: int,
) -> views.Table:
    rows = []
    for i, trial in enumerate(trials):
        shares = (f"{100 * t:.1f} / {100 * s:.1f}" for t, s in zip(trial.true, trial.shares, strict=True))
        errors = (trial.errors[merges], counting[i], compressed[i], guesses[i])
        rows.append((i + 1, *shares, *(round(e, 2) for e in errors), *(round(s, 2) for s in trial.seconds)))
    return views.Table(
        title="Every mix",
        note="True / inferred shares, other half.",
        columns=(
            "mix",
            *(f"{name} [%]" for name in names),
            "inferred [log10 MSE]",
            "token counting [log10 MSE]",
            "encoding efficiency [log10 MSE]",
            "random [log10 MSE]",
            "train [s]",
            "count [s]",
            "solve [s]",
        ),
        rows=tuple(rows),
        help={
            "encoding efficiency [log10 MSE]": "How well each category is compressed, against a tokenizer of its own; "
            "its line is fitted to the shares of the other mixes.",
            "random [log10 MSE]": f"Mean over {GUESSES} random mixtures.",
        },
    )
