r"""**One number where others need eight.** A language model that reads or writes sound pays for every token. Codecs
with residual codebooks give 300 to 900 tokens a second, several for each frame. WavTokenizer keeps a single
codebook of 4,096 entries and 75 or 40 tokens a second, and puts the effort into filling that codebook and into the
decoder.

**Quantiser.** The encoder's vector $z$ becomes the nearest entry by squared Euclidean distance,
$$i = \operatorname*{arg\,min}_k \lVert z \rVert^2 - 2\, z^\top e_k + \lVert e_k \rVert^2 .$$
Its $\log_2 4096 = 12$ bits, 75 times a second, are 0.9 kbps. Gradients go straight through, and the commitment error
$\lVert z - \operatorname{sg}(e_i) \rVert^2$ keeps vectors near their entries. The codebook starts at the k-means
clusters of the first vectors. After that the entries are averages of what they stand for: with $n_k$ vectors in a
batch that chose code $k$, and their sum $s_k$,
$$N_k \leftarrow 0.99\, N_k + 0.01\, n_k, \qquad m_k \leftarrow 0.99\, m_k + 0.01\, s_k,$$
$$e_k = m_k \Big/ \frac{(N_k + \epsilon) \sum_j N_j}{\sum_j N_j + K \epsilon}, \qquad \epsilon = 10^{-5}.$$

**Random awakening.** A code whose average count $N_k$ is low is put on a random vector of the batch. The paper's
threshold is 2 for about 9,000 vectors a step: nine tenths of even use. For the twins here it is a tenth of even use,
and the code then counts as used evenly, so that it has 230 steps to find vectors of its own. In the released code the
moved entry is overwritten in the same step, when the codebook is set to the averages, which awakening leaves as they
are: there it has no effect. One training here does without it, to see what it is worth.

**Decoder.** It keeps one frame per token to the end. One attention head without positions looks at all frames,
$x + W \operatorname{softmax}(q k^\top / \sqrt d)\, v$, so nothing can be decoded before everything has come. The head
gives a magnitude and a phase for each frequency, $S = \min(e^m, 100)\, (\cos p + i \sin p)$, and an inverse short-time
Fourier transform adds up the frames (Hann window of 1,280 samples, one every 320, divided by the squared windows).

**Here.** Codecs of TokenLab turn log-mel frames into tokens and back; Griffin-Lim finds the phases, for all in the
same way, so that only tokens differ. *vq1* and *rvq8* are the bundled ones. The *twins* were trained for comparing:
the same small network, the same number of steps, the same number of frames per step. The iSTFT head above makes the
version *with the original's phases*: magnitudes from tokens, phases from the original. What it gains is what invented
phases cost. **Edit** changes a span of tokens before they are decoded.

**What is measured.** The paper cuts a codec of nine codebooks to its first one and sets it against a single codebook
at about the same token rate. So does this, on voices of espeak-ng that training has not heard. Fixed before the run:
over three trainings, the mel distance of one book of 4,096 is at least 5 % below that of the first codebook of eight
(1,024 entries each), PESQ is higher, and more than 80 % of its codes are used over 20 minutes. One book of 1,024 codes
stands beside it, to tell what two more bits give from what training alone gives. Levels of the eight are dropped at
random while training, so the first one has learned to stand alone.

Not measured: naturalness. The paper's main claim rests on UTMOS, a network that predicts what listeners say, and on a
listening test. Neither can be had here, and these codecs are trained without the discriminators that make speech sound
natural. In the paper's own table, PESQ and STOI of one codebook are well below those of nine.

Source: S. Ji, Z. Jiang, W. Wang, Y. Chen, M. Fang, J. Zuo and others, *WavTokenizer: an Efficient Acoustic Discrete
Codec Tokenizer for Audio Language Modeling* (2024), sections 3 and 4, and the code in its repository.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tokenlab import guard, sounds
from tokenlab.audio import codec, corpus, mel, metrics
from tokenlab.audio.codec import Codec
from tokenlab.audio.tokenizer import fit
from tokenlab.audio.versions import Version, about, of_tokens, random_ids, rank_curve, sounds_view, spec_of, timed
from tokenlab.codebooks.quantizers import closeness
from tokenlab.codebooks.stats import CodebookStats, entropy
from tokenlab.controls import Choice, Seed, Slider, Sound
from tokenlab.errors import UserError
from tokenlab.measurement import Measurement
from tokenlab.views import Lines, Series, Sounds, Table, View

K = TypeVar("K")

# --- the mechanism -----------------------------------------------------------------------------------

DECAY, EPSILON = 0.99, 1e-5
AWAKENED = 10  # times the threshold: what an awakened code counts as
LOUDEST = 100.0  # magnitude of one frequency in one frame; a sine at full scale has 320


def nearest(x: Tensor, book: Tensor) -> Tensor:
    """ids (n,) of the entries of book (K, d) that are nearest to x (n, d) by squared Euclidean distance."""
    return closeness(x, book, cosine=False).argmax(-1)


def smoothed(counts: Tensor, epsilon: float = EPSILON) -> Tensor:
    """(K,) Laplace smoothing of average counts (K,): their sum stays, and none is zero."""
    total = counts.sum()
    return (counts + epsilon) / (total + len(counts) * epsilon) * total


def average(counts: Tensor, sums: Tensor, x: Tensor, ids: Tensor, decay: float = DECAY) -> None:
    """Let the averages follow a batch, in place: counts (K,), how many vectors a code gets per step, and sums (K, d)
    of these vectors, by x (n, d) and its ids (n,)."""
    counts.lerp_(torch.bincount(ids, minlength=len(counts)).to(counts), 1 - decay)
    sums.lerp_(torch.zeros_like(sums).index_add_(0, ids, x), 1 - decay)


def awaken(counts: Tensor, sums: Tensor, x: Tensor, below: float, generator: torch.Generator | None = None) -> Tensor:
    """Random awakening, in place: codes with an average count of less than `below` move to random vectors of x (n, d).

    They then count as used AWAKENED times as often as the threshold. Gives the numbers of these codes."""
    rare = torch.nonzero(counts < below)[:, 0]
    chosen = x[torch.randint(len(x), (len(rare),), generator=generator)]
    counts[rare] = AWAKENED * below
    sums[rare] = AWAKENED * below * chosen
    return rare


def entries(counts: Tensor, sums: Tensor) -> Tensor:
    """The codebook (K, d) that the averages stand for."""
    return sums / smoothed(counts)[:, None]


def istft_head(log_magnitude: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """(F * 320,) float32: the wave of min(exp(m), LOUDEST) (cos p + i sin p), for m and p (F, 641)."""
    magnitude = np.exp(np.minimum(log_magnitude, np.log(LOUDEST)))
    return mel.istft(magnitude * np.exp(1j * phase))


def with_phases(frames: np.ndarray, wave: np.ndarray) -> np.ndarray:
    """(T,): magnitudes of log-mel frames (F, 100) with the phases of a wave (T,), F = T / 320 rounded up or more."""
    phase = np.angle(mel.stft(np.pad(wave, (0, len(frames) * mel.HOP - len(wave)))))
    return istft_head(np.log(mel.magnitudes(frames)), phase)[: len(wave)]


# --- what ships --------------------------------------------------------------------------------------

FOLDER = Path(__file__).parents[2] / "assets" / "models" / "wavtokenizer"
MAIN, FIRST, SMALL = "vq1-4096", "rvq8", "vq1-1024"  # the claim: one book, the first of eight, one as small as that
SEEDS = 3  # trainings of each of them
SHIPPED = ("vq1-37.5", "vq1-256", "vq1-4096-attention")  # one training each
ABOUT = {
    "vq1": "the bundled codec with one codebook of 4,096 entries",
    "rvq8": "the bundled codec with eight codebooks of 1,024 entries, one behind the other",
    "twin vq1-4096": "one book of 4,096 entries",
    "twin vq1-1024": "one book of 1,024 entries",
    "twin vq1-256": "one book of 256 entries",
    "twin vq1-37.5": "one book of 4,096 entries, two frames to a token: 37.5 a second, in place of the paper's 40",
    "twin vq1-4096-attention": "one book of 4,096 entries, and the decoder's attention over all frames",
    "twin rvq8": "eight books of 1,024 entries, with the twins' small network",
}
CODECS = tuple(ABOUT)


def trained(name: str, seed: int) -> str:
    """The name of the training with this seed."""
    return f"{name}-seed{seed}" if seed else name


@lru_cache(maxsize=32)
def twin(name: str) -> Codec:
    """A codec that was trained for comparing; shared. UserError: it is not there."""
    if not (FOLDER / codec.CONFIG).exists():
        raise UserError("The codecs of WavTokenizer are not there yet; please make them with recipes/wavtokenizer.py.")
    return Codec(name, FOLDER)


def find(name: str) -> Codec:
    """One of CODECS."""
    return twin(name.removeprefix("twin ")) if name.startswith("twin ") else codec.load(name)


@lru_cache(maxsize=1)
def facts() -> dict[str, Any]:
    """What the recipe measured on real speakers that training has not heard: facts.json."""
    try:
        return json.loads((FOLDER / "facts.json").read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(
            "The codecs of WavTokenizer are not there yet; please make them with recipes/wavtokenizer.py."
        ) from None


# --- judging -----------------------------------------------------------------------------------------

FULL, RANDOM = "not quantised", "random codes"
METRICS = {"pesq": "PESQ-WB [MOS]", "stoi": "STOI", "mel": "Mel distance [Np]"}
HELP = {
    "PESQ-WB [MOS]": f"Higher is better. {metrics.METRICS['PESQ-WB'].help}",
    "STOI": f"Higher is better. {metrics.METRICS['STOI'].help}",
    "Mel distance [Np]": f"Lower is better. {metrics.METRICS['Mel distance'].help}",
    "Used [%]": "Entries of the (first) codebook that came up at all.",
    "Perplexity": "e to the entropy of the shares of the codes: as many codes, used evenly, would be as uncertain.",
}


def scores(original: np.ndarray, copies: Sequence[np.ndarray]) -> list[dict[str, float]]:
    """METRICS of each copy (T,) of a wave (T,) at 24 kHz; NaN where one is unavailable."""
    found = []
    for copy, opinion in zip(copies, metrics.pesq_wb_each(original, copies, mel.RATE), strict=True):
        guard.check_time()
        try:
            clear = metrics.stoi(original, copy, mel.RATE)
        except metrics.Unavailable:
            clear = float("nan")
        pesq = float("nan") if isinstance(opinion, metrics.Unavailable) else opinion
        found.append({"pesq": pesq, "stoi": clear, "mel": metrics.mel_distance(original, copy, mel.RATE)})
    return found


def judge(waves: Sequence[np.ndarray], made: Mapping[K, Sequence[np.ndarray]]) -> dict[K, dict[str, np.ndarray]]:
    """METRICS, each (n,), of several codecs' copies of n waves."""
    rows = [scores(wave, [copies[i] for copies in made.values()]) for i, wave in enumerate(waves)]
    return {key: {m: np.array([row[k][m] for row in rows]) for m in METRICS} for k, key in enumerate(made)}


def through(coder: Codec, waves: Sequence[np.ndarray], levels: int | None = None, seed: int = 0) -> list[np.ndarray]:
    """What the first `levels` levels (None: all) make of waves (T,)."""
    return [coder.decode(coder.encode(wave)[:levels], len(wave), seed) for wave in waves]


def unquantised(waves: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """The waves through frames and Griffin-Lim alone: as good as any number of codes can be."""
    return [fit(mel.MelSynth(seed=seed).wave(mel.log_mel(wave)), len(wave)) for wave in waves]


def chance(coder: Codec, waves: Sequence[np.ndarray], seed: int = 0) -> list[np.ndarray]:
    """Random codes for each wave."""
    counts = [-(-len(wave) // coder.hop) for wave in waves]
    return [
        coder.decode(random_ids(coder, count, seed + i), len(wave), seed)
        for i, (count, wave) in enumerate(zip(counts, waves, strict=True))
    ]


def use(coder: Codec, frames: Sequence[np.ndarray], levels: int | None = None) -> CodebookStats:
    """How often the codes of the first `levels` levels come up in log-mel frames (F, 100) of several sounds."""
    stats = CodebookStats(coder.sizes[:levels])
    for one in frames:
        guard.check_time()
        stats.update(coder.encode_frames(one)[:levels].T[None])
    return stats


# --- the panel ---------------------------------------------------------------------------------------

REPEAT, HOLD, SHUFFLE, DRAW = EDITS = ("played twice", "held at its first", "shuffled", "random")
# PESQ-WB on LibriTTS test-clean as Ji et al. 2024 report it: other sentences, far larger models.
PUBLISHED = {
    "WavTokenizer": (75, 2.37),
    "DAC": (900, 3.91),
    "DAC cut to 1": (100, 1.25),
}


@dataclass(frozen=True)
class Result:
    sounds: Sounds
    ranks: Lines
    numbers: Table | None = None
    quality: Lines | None = None
    sizes: Lines | None = None
    real: Table | None = None


def run(
    sound: Annotated[str, Sound("Sound", shared="sound")] = "sample:speech-english",
    name: Annotated[
        str, Choice("Codec", options=CODECS, info="Twins share a small network and their training")
    ] = "vq1",
    levels: Annotated[int, Slider("Levels of rvq8", info="1: tokens as vq1", minimum=1, maximum=8, step=1)] = 1,
    edit: Annotated[str, Choice("Edit: a span is", options=EDITS)] = SHUFFLE,
    start: Annotated[float, Slider("Span from [s]", minimum=0.0, maximum=20.0, step=0.1)] = 0.6,
    length: Annotated[float, Slider("Length [s]", minimum=0.1, maximum=4.0, step=0.1)] = 1.0,
    seed: Annotated[int, Seed()] = 0,
) -> Iterator[Result]:
    """A sound through one large codebook and through eight small ones; how the codes are used; tokens changed."""
    told, wave = facts(), sounds.load(sound)
    coder, rvq8 = find(name), codec.load("rvq8")
    done = list(versions(wave, name, coder, rvq8, levels, edit, start, length, seed))
    note = f"{ABOUT[name][:1].upper()}{ABOUT[name][1:]}; seed {seed}. {about(sound)}".strip()
    result = Result(
        sounds_view("Tokens, heard", done, note, chosen=1, label=sounds.label(sound)),
        ranks(name, coder, rvq8),
        sizes=size_lines(told),
        real=real_table(told),
    )
    yield result
    compared = done[1:-1]  # edited tokens are meant to differ
    found = scores(wave, [version.wave for version in compared])
    shown = [{name: value if math.isfinite(value) else None for name, value in one.items()} for one in found]
    scored = list(zip(compared, shown, strict=True))
    yield dataclasses.replace(
        result, numbers=numbers(scored, len(wave) / mel.RATE, seed), quality=against_rate(scored, told)
    )


def versions(
    wave: np.ndarray,
    name: str,
    coder: Codec,
    rvq8: Codec,
    levels: int,
    edit: str,
    start: float,
    length: float,
    seed: int,
) -> Iterator[Version]:
    """The original, the codecs, the two baselines and the edited tokens."""
    yield Version("original", wave)
    for one in (coder, rvq8):  # so that opening the graphs does not count as time
        one.decode(one.encode(np.zeros(mel.HOP, np.float32)))
    wanted = {(name, coder): len(coder.sizes), ("rvq8", rvq8): 8}
    found: dict[tuple[str, int], Version] = {}
    for (label, one), most in wanted.items():
        ids, encoding = timed(one.encode, wave)
        spec = spec_of(one, ids, label, one.held_out().counts)
        for keep in dict.fromkeys((min(levels, most), most) if label == "rvq8" else (most,)):
            guard.check_time()
            made, decoding = timed(one.decode, ids[:keep], len(wave), seed)
            heard = tuple(range(keep)) if keep < most else ()
            shown = label if most == 1 else f"{label}, {keep} level{'s' if keep > 1 else ''}"
            known = {"seconds": encoding + decoding, "tokens": spec, "heard": heard}
            found[label, keep] = of_tokens(shown, one, made, ids.shape[1], keep, **known)
    yield from found.values()
    ids = coder.encode(wave)
    frames = coder.frames(ids)
    yield Version(f"{name}, the original's phases", with_phases(frames[: -(-len(wave) // mel.HOP)], wave))
    made, seconds = timed(unquantised, [wave], seed)
    yield Version(FULL, made[0], seconds=seconds, role="full")
    drawn = random_ids(coder, ids.shape[1], seed)
    made, decoding = timed(coder.decode, drawn, len(wave), seed)
    spec = spec_of(coder, drawn, RANDOM, coder.held_out().counts)
    known = {"seconds": decoding, "tokens": spec, "role": "random"}
    yield of_tokens(RANDOM, coder, made, drawn.shape[1], len(coder.sizes), **known)
    changed, marked = edited(
        ids, round(start * coder.frame_rate), round(length * coder.frame_rate), edit, coder.sizes, seed
    )
    label = f"edited: {edit}"
    spec = spec_of(coder, changed, label, coder.held_out().counts)
    spec = dataclasses.replace(spec, marks=dict.fromkeys(marked, edit))
    samples = len(wave) + (changed.shape[1] - ids.shape[1]) * coder.hop
    yield Version(label, coder.decode(changed, samples, seed), tokens=spec)


def edited(
    ids: np.ndarray, start: int, count: int, edit: str, sizes: Sequence[int], seed: int = 0
) -> tuple[np.ndarray, list[int]]:
    """ids (L, F) with `count` frames from `start` on changed, one of EDITS, and the numbers of the changed frames.

    A span that goes beyond the end is moved back; one that is longer than the sound is all of it."""
    count = max(1, min(count, ids.shape[1]))
    start = min(start, ids.shape[1] - count)
    span, marked = slice(start, start + count), list(range(start, start + count))
    rng = np.random.default_rng(seed)
    if edit == REPEAT:
        return np.concatenate((ids[:, : span.stop], ids[:, span], ids[:, span.stop :]), 1), [i + count for i in marked]
    ids = ids.copy()
    if edit == HOLD:
        ids[:, span] = ids[:, start : start + 1]
    elif edit == SHUFFLE:
        ids[:, span] = rng.permutation(ids[:, span], axis=1)
    else:
        ids[:, span] = rng.integers(0, np.array(sizes)[:, None], (len(ids), count))
    return ids, marked


def ranks(name: str, coder: Codec, rvq8: Codec) -> Lines:
    """How evenly codebooks are used by speakers that training has not heard, as counted when they were made."""
    shown = {name if len(coder.sizes) == 1 else f"{name}, level 1": coder, "rvq8, level 1": rvq8}
    shown |= {f"twin {size}": twin(size) for size in (MAIN, SMALL, "vq1-256")}
    curves = []
    for label, one in shown.items():
        counts = one.held_out().counts[0]
        used, perplexity = 100 * (counts > 0).mean(), np.exp(entropy(counts))
        curves.append(rank_curve(f"{label}: {used:.0f} % used, perplexity {perplexity:,.0f}", counts))
    return Lines(
        title="Codes by rank",
        note=f"The flatter, the more evenly codes are used. {twin(MAIN).held_out().counted:,} tokens of speakers not "
        f"heard in training; the bundled codecs: {rvq8.held_out().counted:,}.",
        series=tuple(curves),
        x="rank of the code",
        y="share of the tokens [%]",
        log_x=True,
        log_y=True,
    )


def price(version: Version) -> tuple[int | None, float | None]:
    """(tokens, bits): how many tokens a version was decoded from, and log2 of the codebooks' sizes for each."""
    if version.tokens is None:
        return None, None
    levels, frames = len(version.heard) or len(version.tokens.ids), len(version.tokens.ids[0])
    return frames * levels, frames * sum(map(math.log2, version.tokens.sizes[:levels]))


def numbers(scored: Sequence[tuple[Version, Mapping[str, float | None]]], seconds: float, seed: int) -> Table:
    rows = []
    for version, found in scored:
        tokens, bits = price(version)
        rows.append(
            (
                version.name,
                version.per_second,
                tokens,
                bits and round(bits),
                version.kbps,
                *(found[metric] for metric in METRICS),
                version.seconds,
            )
        )
    marks = {i: "full" if v.role == "full" else "random" for i, (v, _) in enumerate(scored) if v.role}
    return Table(
        title="In numbers",
        note=f"This sound, {seconds:.2f} s; seed {seed}. Edited tokens have no score: they are meant to differ.",
        columns=(
            "Version",
            "Tokens a second",
            "Tokens",
            "Bits",
            "kbps",
            *METRICS.values(),
            "There and back [s]",
        ),
        rows=tuple(rows),
        marks=marks,
        help={
            **HELP,
            "Bits": "Tokens times log2 of the codebook's size.",
            "There and back [s]": "Wall clock of encoding and decoding, Griffin-Lim included.",
            FULL: "The frames themselves, through the same Griffin-Lim.",
        },
    )


def against_rate(scored: Sequence[tuple[Version, Mapping[str, float | None]]], told: Mapping) -> Lines:
    """PESQ against tokens a second: this sound, the twins on real speakers, and what the paper reports."""
    arms, here = told["arms"], {}
    for version, found in scored:
        if version.per_second:
            here.setdefault(version.name.split(", ")[0], []).append((version.per_second, found["pesq"]))
    twins = {
        "twin rvq8": [(arms[FIRST]["rate"] * int(k), found["pesq"]) for k, found in arms[FIRST]["levels"].items()],
        "twins with one codebook": [
            (arms[name]["rate"], arms[name]["levels"]["1"]["pesq"]) for name in (MAIN, SMALL, "vq1-256", "vq1-37.5")
        ],
    }
    rate, value = zip(*PUBLISHED.values(), strict=True)
    return Lines(
        title="Quality against tokens a second",
        note=f"Twins: {told['clips']} real sentences (LibriTTS), measured {told['date']}. Published: Ji et al. 2024 on "
        "LibriTTS test-clean, DAC with nine codebooks and one: other sentences, far larger models, discriminators.",
        series=(
            *(_curve(f"this sound, {name}", points) for name, points in here.items()),
            *(_curve(name, points) for name, points in twins.items()),
            Series(name="published", x=rate, y=value, labels=tuple(PUBLISHED), points=True),
        ),
        x="tokens a second",
        y="PESQ-WB [MOS]",
        log_x=True,
    )


def _curve(name: str, points: Sequence[tuple[float, float | None]]) -> Series:
    x, y = zip(*points, strict=True)
    return Series(name=name, x=x, y=y, points=len(set(x)) < 3)


def size_lines(told: Mapping) -> Lines:
    """Use against the size of a single codebook, on the held-out sound of the recipe."""
    arms = sorted(
        (arm["sizes"][0], arm["used"], arm["perplexity"], arm["mix"]["used"])
        for name, arm in told["arms"].items()
        if name in (MAIN, SMALL, "vq1-256", "vq1-16384")
    )
    sizes = tuple(size for size, _, _, _ in arms)
    return Lines(
        title="Use against the size of the codebook",
        note=f"One book, trained alike; {told['seconds'] / 60:.0f} minutes of speakers not heard in training, measured "
        f"{told['date']}.",
        series=(
            Series(name="codes used", x=sizes, y=tuple(100 * used for _, used, _, _ in arms)),
            Series(name="perplexity", x=sizes, y=tuple(100 * p / size for size, _, p, _ in arms)),
            Series(name="codes used, crops of the training data", x=sizes, y=tuple(100 * used for *_, used in arms)),
        ),
        x="entries of the codebook",
        y="share of the entries [%]",
        log_x=True,
    )


def real_table(told: Mapping) -> Table:
    """What the recipe measured of all trainings on real speakers."""
    rows, marks = [], {}
    for name, arm in told["arms"].items():
        for keep, found in arm["levels"].items():
            several = len(arm["sizes"]) > 1
            if several and int(keep) not in (1, len(arm["sizes"])):
                continue  # the picture has them
            bits = sum(map(math.log2, arm["sizes"][: int(keep)])) * arm["rate"]
            use = (None, None) if several and keep != "1" else (100 * arm["used"], arm["perplexity"])
            label = f"{name}, {keep} level{'s' if keep != '1' else ''}" if several else name
            rows.append((label, arm["rate"] * int(keep), bits / 1000, *(found[m] for m in METRICS), *use))
    for label, mark in ((FULL, "full"), (RANDOM, "random")):
        marks[len(rows)] = mark
        rows.append((label, None, None, *(told[label][m] for m in METRICS), None, None))
    return Table(
        title="Real speakers",
        note=f"{told['clips']} sentences of LibriTTS, {told['real_seconds']:.0f} s, that no training has heard; use of "
        f"the codes over {told['seconds'] / 60:.0f} minutes. Measured {told['date']}. Names: codebook size; "
        "asleep: without awakening; 1s, 4s: length of a training crop (else 1.7 s).",
        columns=(
            "Training",
            "Tokens a second",
            "kbps",
            *METRICS.values(),
            "Used [%]",
            "Perplexity",
        ),
        rows=tuple(rows),
        marks=marks,
        help=HELP,
    )


# --- the experiment ----------------------------------------------------------------------------------

NEARER, USED = 5.0, 0.8
ALL = f"{FIRST}, all eight"
CLIPS = 32  # of the utterances, for the metrics that need a wave
VOICES = ("f5", "m8", "steph", "Michael", "anika")  # of espeak-ng, held out by recipes/codec.py
SENTENCES = {
    "en-us": (
        "The ferry was late again, so we watched the gulls fight over a piece of bread.",
        "My grandmother keeps her letters in a blue tin under the kitchen stairs.",
        "After the storm, three young men carried the broken fence back up the hill.",
        "Nobody told the new teacher that the school bell had not worked for years.",
        "She measured the flour twice, shook her head, and began all over again.",
        "A narrow path leads past the quarry to a pond where children skate in winter.",
        "Could you please read me the second number on that yellow ticket once more?",
        "The orchestra tuned for so long that people thought the concert had begun.",
    ),
    "de": (
        "Der Bäcker an der Ecke öffnet erst um sieben, aber das Licht brennt schon die halbe Nacht.",
        "Im Herbst sammeln wir Kastanien und legen sie auf die Fensterbank zum Trocknen.",
        "Kannst du mir bitte erklären, warum dieser Zug jeden Morgen zwei Minuten zu früh fährt?",
        "Auf dem Dachboden fand mein Bruder eine Kiste voller alter Landkarten und Münzen.",
        "Die Katze schlief auf dem warmen Ofen, während draußen der erste Schnee fiel.",
        "Unser Nachbar spielt seit einem Jahr Trompete, und langsam erkennt man die Lieder.",
        "Gestern haben sie endlich die Brücke freigegeben, auf die das ganze Dorf gewartet hat.",
        "Wer zuletzt aus dem Haus geht, dreht bitte die Heizung ab und schließt das Tor.",
    ),
    "fr-fr": (
        "Le facteur passe toujours vers midi, sauf quand il pleut trop fort dans la vallée.",
        "Ma voisine a planté des tomates sur son balcon et elle en donne à tout l'immeuble.",
        "Nous avons marché toute la journée sans croiser une seule voiture sur la route.",
        "Est-ce que quelqu'un a retrouvé la clé de la vieille armoire du couloir ?",
        "Les enfants construisent une cabane avec des branches et des draps usés.",
        "Hier soir, le chat a renversé un verre de vin rouge sur mes partitions.",
        "Au marché, le vendeur de fromage raconte les mêmes histoires depuis vingt ans.",
        "Il faut tourner à gauche après le moulin, puis suivre la rivière jusqu'au pont.",
    ),
    "es": (
        "El panadero silba cada mañana la misma canción mientras saca el pan del horno.",
        "Mi hermana perdió el paraguas en el tren y volvió a casa completamente mojada.",
        "Detrás de la iglesia hay un jardín donde los viejos juegan a las cartas.",
        "¿Me puedes decir a qué hora sale el último barco hacia la isla?",
        "Durante la cena se fue la luz y terminamos contando cuentos de miedo.",
        "El perro del pescador espera en el muelle hasta que vuelven todas las barcas.",
        "Compramos una mesa muy grande que después no pasaba por la puerta.",
        "Cuando llueve en las montañas, el río llega al pueblo con el agua marrón.",
    ),
    "it": (
        "La nonna prepara la pasta la domenica e non permette a nessuno di aiutarla.",
        "Il treno si è fermato in mezzo alla campagna e nessuno sapeva il motivo.",
        "Vicino al porto c'è una piccola libreria che vende soltanto carte nautiche.",
        "Puoi chiudere la finestra, per favore, prima che entri tutta la polvere?",
        "I ragazzi hanno dipinto il muro della scuola con colori molto allegri.",
        "Mio zio ripara orologi da quando aveva quindici anni, senza mai avere fretta.",
        "Dopo il temporale, il sentiero era coperto di foglie e di rami spezzati.",
        "Questa mattina il fornaio ha finito il pane prima delle otto e mezza.",
    ),
    "pt": (
        "O pescador remenda a rede na praia enquanto o sol desaparece atrás do morro.",
        "Minha prima comprou uma bicicleta usada e agora vai a todo lugar com ela.",
        "Na feira de sábado, as bananas são baratas e todo mundo fala muito alto.",
        "Você pode me emprestar aquele livro sobre as estrelas até a semana que vem?",
        "A chuva começou tão de repente que ninguém teve tempo de fechar as janelas.",
        "O velho relógio da estação está parado desde o inverno do ano passado.",
        "Os meninos jogam bola na rua até que as mães chamem para o jantar.",
        "Encontramos o caminho de volta graças às luzes da pequena aldeia.",
    ),
    "pl": (
        "Sąsiad naprawia rower na podwórku i co chwilę szuka zgubionej śrubki.",
        "W sobotę rano pojedziemy do babci, która piecze najlepszy chleb w okolicy.",
        "Czy możesz mi powiedzieć, o której odjeżdża ostatni autobus do miasta?",
        "Dzieci zbudowały zamek z piasku, ale wieczorem zabrała go fala.",
        "Na strychu znaleźliśmy stary zegar i pudełko pełne pożółkłych listów.",
        "Przez całą noc padał śnieg, więc rano musieliśmy odkopać drzwi.",
        "Nauczycielka cierpliwie powtarzała to samo pytanie, aż ktoś podniósł rękę.",
        "Za młynem droga skręca w lewo i prowadzi prosto nad jezioro.",
    ),
    "sv": (
        "Grannen målar sitt staket varje vår, fast färgen knappt har hunnit torka.",
        "På vinden hittade vi en gammal symaskin och en låda full av knappar.",
        "Kan du vara snäll och läsa upp den andra raden en gång till?",
        "Båten kom in i hamnen just när dimman började lägga sig över vattnet.",
        "Min syster cyklar till arbetet även när det snöar och blåser hårt.",
        "Barnen plockade blåbär hela dagen och kom hem med alldeles blå händer.",
        "Tåget stannade mitt i skogen, och ingen visste hur länge vi skulle vänta.",
        "Efter middagen berättade farfar om den sommaren då sjön nästan torkade ut.",
    ),
}


@dataclass(frozen=True)
class Arm:
    """What one training makes of the clips. scores: METRICS, each (n,); stats: of its codes, where they were counted;
    seconds: wall clock of encoding and decoding."""

    scores: dict[str, np.ndarray]
    stats: CodebookStats | None = None
    seconds: float = 0.0

    def mean(self, metric: str) -> float:
        return float(np.nanmean(self.scores[metric])) if np.isfinite(self.scores[metric]).any() else float("nan")


def utterances(seed: int) -> list[np.ndarray]:
    """SENTENCES by each of VOICES at a random speed and pitch: waves (T,) at 24 kHz, in random order."""
    rng = np.random.default_rng(seed)
    spoken = []
    for language, sentences in SENTENCES.items():
        for sentence in sentences:
            for voice in VOICES:
                guard.check_time()
                said = corpus.say(sentence, language, int(rng.integers(120, 191)), int(rng.integers(25, 76)), voice)
                wave = sounds.resample(said.wave, said.rate, mel.RATE)
                spoken.append((wave * (0.6 / np.abs(wave).max())).astype(np.float32))
    return [spoken[i] for i in rng.permutation(len(spoken))]


def measure(seed: int = 0) -> Measurement:
    """The claim, fixed before the run: mel distance at least 5 % below that of the first codebook of rvq8, PESQ above
    it, over three trainings, and more than 80 % of 4,096 codes used over 20 minutes.

    Speech of espeak-ng; the trainings are those that ship. About five minutes on one core."""
    began = time.perf_counter()
    spoken = utterances(seed)
    frames = [mel.log_mel(wave) for wave in spoken]
    clips = spoken[:CLIPS]
    made: dict[tuple[str, int], list[np.ndarray]] = {}
    took: dict[tuple[str, int], float] = {}
    stats: dict[tuple[str, int], CodebookStats] = {}
    for again in range(SEEDS):
        for name, levels in ((MAIN, 1), (SMALL, 1), (FIRST, 1), (ALL, 8)):
            coder, key = twin(trained(FIRST if name == ALL else name, again)), (name, again)
            made[key], took[key] = timed(through, coder, clips, levels, seed)
            if levels == 1:
                stats[key] = use(coder, frames, 1)
    made[FULL, 0], took[FULL, 0] = timed(unquantised, clips, seed)
    made[RANDOM, 0], took[RANDOM, 0] = timed(chance, twin(MAIN), clips, seed)
    arms = {key: Arm(found, stats.get(key), took[key]) for key, found in judge(clips, made).items()}
    small = use(twin("vq1-256"), frames)
    length = sum(map(len, spoken)) / mel.RATE
    return verdict(arms, small, length, seed, time.perf_counter() - began, facts())


def verdict(
    arms: Mapping[tuple[str, int], Arm], small: CodebookStats, length: float, seed: int, seconds: float, told: Mapping
) -> Measurement:
    """The bars held against what was found. arms: by name and training; small: use of the book of 256 codes; length: of
    the sound over which codes were counted [s]."""
    full, random = arms[FULL, 0], arms[RANDOM, 0]
    count = len(full.scores["mel"])

    def of(name: str, metric: str) -> np.ndarray:
        """(trainings, clips)."""
        return np.stack([arms[name, again].scores[metric] for again in range(SEEDS)])

    def less(one: np.ndarray, other: np.ndarray) -> float:
        """Percent by which the mean of one is below that of the other."""
        return float(100 * (1 - one.mean() / other.mean()))

    one, first = of(MAIN, "mel"), of(FIRST, "mel")
    gain = less(one, first)
    draws = np.random.default_rng(seed).integers(count, size=(1000, count))
    low, high = np.percentile([less(one[:, draw], first[:, draw]) for draw in draws], (2.5, 97.5))
    by_training = ", ".join(f"{less(a, b):.1f}" for a, b in zip(one, first, strict=True))
    pesq = of(MAIN, "pesq").mean() - of(FIRST, "pesq").mean()
    used = [arms[MAIN, again].stats.used_fraction() for again in range(SEEDS)]
    tokens, arm = arms[MAIN, 0].stats.counted(), told["arms"][MAIN]
    mix = arm["mix"]
    bits = less(of(SMALL, "mel"), first)
    better = bool(np.isfinite(pesq) and pesq > 0)
    conditions = {"mel distance": gain >= NEARER, "PESQ-WB": better, "use of the codes": min(used) > USED}
    holds, missed = all(conditions.values()), [name for name, met in conditions.items() if not met]
    outcome = "holds here" if holds else f"does not hold here ({' and '.join(missed)} below the bar)"
    heard = (
        f"PESQ-WB {of(MAIN, 'pesq').mean():.3f} against {of(FIRST, 'pesq').mean():.3f} (by training "
        f"{_signed(of(MAIN, 'pesq').mean(1) - of(FIRST, 'pesq').mean(1))}): {'above it' if better else 'not above it'}."
        if np.isfinite(pesq)
        else "PESQ-WB could not be computed, so the claim is not confirmed: the package pesq is missing or failed."
    )
    points = [
        f"At 75 tokens a second, one book of 4,096 codes has a mel distance of {one.mean():.3f} Np, the first codebook "
        f"of eight {first.mean():.3f}: {abs(gain):.1f} % {'less' if gain >= 0 else 'more'} (95 % interval over clips "
        f"{low:.1f} to {high:.1f}; by training {by_training}; bar {NEARER:g}).",
        heard,
        f"Of the 4,096 codes, {min(used):.1%} or more are used in each training (bar {USED:.0%}), over "
        f"{length / 60:.0f} minutes of one synthesiser's voices, {tokens:,} tokens. Stored, of the first training: "
        f"{arm['used']:.1%} over {told['seconds'] / 60:.0f} minutes of other speech not heard in training, real and "
        f"synthetic, and {mix['used']:.1%} over crops of the training data itself ({mix['tokens']:,} tokens), where "
        "there are music and tones as well.",
        f"One book of 1,024 codes, as large as the first of eight, is {abs(bits):.1f} % "
        f"{'nearer' if bits >= 0 else 'further away'} than that: what it gains by being trained alone. The other "
        f"{gain - bits:.1f} points come with the two more bits.",
        f"All eight codebooks, 600 tokens a second, reach {of(ALL, 'mel').mean():.3f} Np and PESQ-WB "
        f"{of(ALL, 'pesq').mean():.2f}; frames that are not quantised {full.mean('mel'):.3f} and "
        f"{full.mean('pesq'):.2f}; random codes {random.mean('mel'):.3f} and {random.mean('pesq'):.2f}.",
        on_real(told),
        f"The claim {outcome}. Naturalness, which is what the paper claims most of all, is not measured.",
    ]
    return Measurement(
        claim="At 75 tokens a second, one codebook of 4,096 entries keeps more of speech than the first codebook of "
        "eight, and more than 80 % of it is used.",
        metric="mel distance of one book of 4,096 codes below that of the first codebook of eight",
        unit="%",
        value=gain,
        baseline_name="the first of eight codebooks",
        baseline=0.0,
        bar=NEARER,
        direction="higher",
        holds=bool(holds),
        reason="\n".join(points),
        paper="LibriTTS test-clean: UTMOS 4.05, PESQ 2.37, STOI 0.914 with one codebook at 75 tokens a second; DAC "
        "with nine, 900 tokens a second: 3.91, 3.91, 0.970; DAC cut to its first codebook, 100 tokens a second: 1.49, "
        "1.25, 0.771. Codebook of 4,096 entries: all used; 16,384: 27 %.",
        n=count,
        seed=seed,
        seconds=seconds,
        random=less(random.scores["mel"], first),
        full=less(full.scores["mel"], first),
        low=float(low),
        high=float(high),
        figures=figures(arms, small, length, told),
    )


def _signed(values: np.ndarray) -> str:
    return ", ".join(f"{value:+.3f}" for value in values)


def on_real(told: Mapping) -> str:
    """The same comparison, and those of one training each, on real speakers, as stored by the recipe."""
    arms = told["arms"]

    def found(name: str, keep: str = "1", metric: str = "mel") -> float:
        return arms[name]["levels"][keep][metric]

    def mean(name: str, metric: str = "mel") -> float:
        return float(np.mean([found(trained(name, again), "1", metric) for again in range(SEEDS)]))

    return (
        f"On {told['clips']} sentences of real speakers (LibriTTS, stored {told['date']}): one book of 4,096 "
        f"{mean(MAIN):.3f} Np and PESQ-WB {mean(MAIN, 'pesq'):.2f}, the first of eight {mean(FIRST):.3f} and "
        f"{mean(FIRST, 'pesq'):.2f}, one of 1,024 {mean(SMALL):.3f} and {mean(SMALL, 'pesq'):.2f}. One training each: "
        f"with attention {found('vq1-4096-attention'):.3f} Np (crops of 1 s {found('vq1-4096-attention-1s'):.3f}, of "
        f"4 s {found('vq1-4096-attention-4s'):.3f}), without awakening {found('vq1-4096-asleep'):.3f} with "
        f"{arms['vq1-4096-asleep']['used']:.0%} of the codes used, 16,384 codes {found('vq1-16384'):.3f} with "
        f"{arms['vq1-16384']['used']:.0%} used, 37.5 tokens a second {found('vq1-37.5'):.3f}."
    )


def figures(
    arms: Mapping[tuple[str, int], Arm], small: CodebookStats, length: float, told: Mapping
) -> tuple[View, ...]:
    named = {
        FIRST: f"{FIRST}, first codebook",
        SMALL: "one book of 1,024",
        MAIN: "one book of 4,096",
        ALL: ALL,
    }
    rows, marks = [], {}
    for name, label in named.items():
        for again in range(SEEDS):
            arm = arms[name, again]
            use = (100 * arm.stats.used_fraction(), arm.stats.perplexity()) if arm.stats else (None, None)
            rate = 600 if name == ALL else 75
            row = (f"{label}, training {again + 1}", rate, *map(arm.mean, METRICS), *use, arm.seconds)
            rows.append(row)
    for label, mark in ((FULL, "full"), (RANDOM, "random")):
        marks[len(rows)] = mark
        rows.append((label, None, *map(arms[label, 0].mean, METRICS), None, None, arms[label, 0].seconds))
    count = len(arms[FULL, 0].scores["mel"])
    table = Table(
        title="All numbers",
        note=f"{count} sentences by voices of espeak-ng that training has not heard; use of the codes over "
        f"{length / 60:.0f} minutes of them.",
        columns=(
            "Codec",
            "Tokens a second",
            *METRICS.values(),
            "Used [%]",
            "Perplexity",
            "There and back [s]",
        ),
        rows=tuple(rows),
        marks=marks,
        help=HELP,
    )
    books = {256: small, 1024: arms[SMALL, 0].stats, 4096: arms[MAIN, 0].stats}
    here = Lines(
        title="Use against the size of the codebook, espeak-ng",
        note=f"{length / 60:.0f} minutes, {small.counted():,} tokens of each; one training of each size.",
        series=(
            Series(name="codes used", x=tuple(books), y=tuple(100 * one.used_fraction() for one in books.values())),
            Series(name="perplexity", x=tuple(books), y=tuple(100 * one.perplexity() / k for k, one in books.items())),
        ),
        x="entries of the codebook",
        y="share of the entries [%]",
        log_x=True,
    )
    return table, here, size_lines(told), real_table(told)
