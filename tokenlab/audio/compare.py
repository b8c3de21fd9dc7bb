"""Hear what is left of a sound after a codec has turned it into a short list of numbers and back.

A *codec* here looks at the spectrum of a sound 75 times a second: 100 bands on the mel scale, the logarithm of their
magnitudes. It replaces each of these frames by entries of learned lists, the *codebooks*; small networks before and
after that also look at the frames around it. What travels is the numbers of the entries, the *tokens*. A token of a
codebook with $K$ entries costs $\\log_2 K$ bits, so $L$ codebooks at $f$ frames a second cost $f \\sum_l \\log_2 K_l$
bits a second: 750 for each codebook of 1,024 entries.

- **rvq8** has eight codebooks one behind the other. The first gives the entry nearest to the frame, every other one
  the entry nearest to what is still missing, $r_l = r_{l-1} - e_l$, and the decoder adds the entries up (residual
  vector quantization, Zeghidour et al. 2021). So one may stop after any number of levels.
- **vq1** has a single codebook of 4,096 entries.

Sound comes from the frames by Griffin-Lim: magnitudes are given, phases are found step by step, starting at random.

**Listen.** All versions in one player; a switch keeps the place. Two of them belong to every comparison: *not
quantised* makes sound of the frames themselves, which is the most that any number of codes can reach here, and
*random codes* makes it of tokens that say nothing. *Opus* is the codec of today's calls; at its lowest rate it mostly
takes more than all eight levels do. In the picture, tokens stand under the sound that they stand for: point at one to
see how often its code comes up elsewhere. The numbers predict what listeners would say; they do not listen.
PESQ and STOI are made for speech. SI-SDR compares waveforms, so it says nothing about a codec that invents the phase:
a low value is no bad sign there, while for Opus it counts. The mel distance weighs all bands alike, so it punishes Opus
for the high bands that it leaves out at low rates more than ears do.

**Levels.** What each level adds, band by band; and one level silenced, or heard alone. A later level alone is a
correction without the thing that it corrects. A choice of levels in random order says whether the order matters.

**Transplant.** The first levels of one sound under the later levels of another.

**Codebooks.** How evenly the codes are used. With shares $p_i$ of the codes, the *entropy* is
$H = -\\sum_i p_i \\log_2 p_i$ bits, the *perplexity* $2^H$, and $\\log_2 K - H$ bits a token are what an entropy
coder of single tokens would save. A short sound has too few tokens to tell: draws at random stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np

from tokenlab import guard, sounds
from tokenlab.audio import mel
from tokenlab.audio.metrics import HIGHER, LOWER, METRICS, Unavailable, pesq_wb_each
from tokenlab.audio.opus import DELAY, aligned, container_bytes, opus_file, opus_setting, opus_wave, rate_of
from tokenlab.audio.tokenizer import AudioTokenizer, bits_per_second, fit
from tokenlab.audio.versions import (
    NEPER,
    PCM_BITS,
    Version,
    about,
    of_tokens,
    random_ids,
    rank_curve,
    share_of_pcm,
    sounds_view,
    spec_of,
    timed,
)
from tokenlab.codebooks.stats import CodebookStats, entropy
from tokenlab.controls import Choice, Model, Seed, Slider, Sound, Switch
from tokenlab.views import HeatMap, Lines, Note, Series, Sounds, Table

if TYPE_CHECKING:
    from tokenlab.audio.codec import Codec

T = TypeVar("T")
LISTEN, LEVELS, TRANSPLANT, CODES = PARTS = ("Listen", "Levels", "Transplant", "Codebooks")
LIVE = ("part", LEVELS, TRANSPLANT, CODES)  # quick enough to answer when a slider is let go
SECONDS = 120  # a codec of the Hub takes its time
FULL, RANDOM = "not quantised", "random codes"
SHOWN = ("PESQ-WB", "STOI", "SI-SDR", "Mel distance")  # of METRICS
ARROWS = {HIGHER: "↑", LOWER: "↓"}
OPUS = (8, 16)  # kbps that are asked for
ORDERS = 6  # random orders of the levels
NOTHING = "what the decoder makes of no tokens, about the mean frame of its training"


@dataclass(frozen=True)
class Result:
    """Each part fills the views that it has."""

    sounds: Sounds | None = None
    heard: Note | None = None
    numbers: Table | None = None
    quality: Lines | None = None
    distance: Lines | None = None
    added: HeatMap | None = None
    kept: Lines | None = None
    by_level: Table | None = None
    nearness: Lines | None = None
    held_out: Table | None = None
    ranks: Lines | None = None
    here: Table | None = None
    ranks_here: Lines | None = None


def run(
    part: Annotated[str, Choice("Show", options=PARTS, style="parts")] = LISTEN,
    sound: Annotated[str, Sound("Sound", shared="sound")] = "sample:speech-english-low",
    other: Annotated[str, Sound("Sound B", when=("part", TRANSPLANT))] = "sample:speech-english",
    levels: Annotated[
        int,
        Slider("Levels of rvq8", minimum=1, maximum=8, step=1, when=("part", LISTEN)),
    ] = 4,
    level: Annotated[int, Slider("Level to silence", minimum=1, maximum=8, step=1, when=("part", LEVELS))] = 2,
    first: Annotated[
        int,
        Slider(
            "Levels of A",
            minimum=0,
            maximum=8,
            step=1,
            when=("part", TRANSPLANT),
        ),
    ] = 1,
    steps: Annotated[
        int,
        Slider(
            "Griffin-Lim steps",
            minimum=0,
            maximum=64,
            step=1,
            when=("part", LISTEN),
        ),
    ] = 32,
    hub: Annotated[bool, Switch("One more codec, at about the same rate", when=("part", LISTEN))] = False,
    codec: Annotated[str, Model("Codec", kind="audio-codec", when=("hub", "True"))] = "hub:facebook/encodec_24khz",
    seed: Annotated[int, Seed()] = 0,
) -> Iterator[Result]:
    """A sound through codecs at several rates; what each level adds; levels of two sounds mixed; use of the codes."""
    from tokenlab.audio.codec import NAMES, load

    wave = sounds.load(sound)
    rvq8, vq1 = map(load, NAMES)
    if part == LISTEN:
        extra = codec if hub and codec not in NAMES else None
        yield from listen(wave, sound, with_steps(rvq8, steps), with_steps(vq1, steps), levels, extra, seed)
    elif part == LEVELS:
        yield level_by_level(wave, sound, rvq8, level - 1, seed)
    elif part == TRANSPLANT:
        yield transplant(wave, sounds.load(other), (sound, other), rvq8, first, seed)
    else:
        yield codebooks(wave, sound, (rvq8, vq1), seed)


def with_steps(codec: Codec, steps: int) -> Codec:
    """The same codec with another number of Griffin-Lim steps; its graphs are shared."""
    return type(codec)(codec.name, codec.folder, codec.backend, steps)


def level_names(levels: Sequence[int]) -> str:
    """Numbers of levels from 1 on, in words: "level 3", "levels 1 to 4", "no level"."""
    if not levels:
        return "no level"
    return f"level {levels[0] + 1}" if len(levels) == 1 else f"levels {levels[0] + 1} to {levels[-1] + 1}"


# --- listen


def listen(
    wave: np.ndarray, ref: str, rvq8: Codec, vq1: Codec, levels: int, extra: str | None, seed: int
) -> Iterator[Result]:
    """First the sounds, then the numbers, then one more codec. UserError at the end: that codec cannot be had."""
    original = Version("original", wave, PCM_BITS * mel.RATE / 1000, PCM_BITS // 8 * len(wave))
    done = [original, *versions(wave, rvq8, vq1, levels, seed)]
    measured: dict[str, dict[str, float | str]] = {}
    views = partial(listen_views, ref=ref, steps=rvq8.steps, seed=seed)
    shown = views(done, measured)
    yield shown
    levels_end = 1 + levels_of(rvq8)
    for part in (done[1:levels_end], done[levels_end:]):
        found = quality(wave, [version.wave for version in part])
        measured |= {version.name: values for version, values in zip(part, found, strict=True)}
        yield views(done, measured, shown.sounds)
    if extra:
        from tokenlab.models import audio

        version = through(audio.codec(extra), wave, bits_per_second(rvq8, levels))
        done.append(version)
        (measured[version.name],) = quality(wave, [version.wave])
        yield views(done, measured)


def levels_of(codec: AudioTokenizer) -> int:
    return len(codec.sizes)


def versions(wave: np.ndarray, rvq8: Codec, vq1: Codec, levels: int, seed: int) -> Iterator[Version]:
    """rvq8 with 1, 2, ... levels, vq1, Opus, and the two baselines, as they are made."""
    for version in by_levels(rvq8, wave, seed, levels):
        yield version
    frames = len(version.tokens.ids[0])
    yield from by_levels(vq1, wave, seed)
    coded = [opus_version(wave, kbps) for kbps in OPUS]
    yield from {version.name: version for version in coded}.values()  # a very short sound has only one rate
    yield unquantised(wave, rvq8.steps, seed)
    yield from_nothing(rvq8, frames, len(wave), levels, seed)


def by_levels(codec: Codec, wave: np.ndarray, seed: int, chosen: int = 0) -> Iterator[Version]:
    """The wave of the first level, of the first two, and so on to all of them."""
    codec.decode(codec.encode(np.zeros(mel.HOP, np.float32)))  # so that opening the graphs does not count as time
    ids, encoding = timed(codec.encode, wave)
    spec, count = spec_of(codec, ids, codec.name, codec.held_out().counts), levels_of(codec)
    for keep in range(1, count + 1):
        guard.check_time()
        decoded, decoding = timed(codec.decode, ids[:keep], len(wave), seed)
        yield of_tokens(
            codec.name if count == 1 else f"{codec.name}, {keep} level{'s' if keep > 1 else ''}",
            codec,
            decoded,
            ids.shape[1],
            keep,
            seconds=encoding + decoding,
            tokens=spec,
            heard=() if keep == count else tuple(range(keep)),
            role="chosen" if keep == chosen else "",
        )


def from_nothing(codec: Codec, frames: int, samples: int, levels: int, seed: int) -> Version:
    """Sound (samples,) of random tokens, `frames` of them on each of the first `levels` levels."""
    ids = random_ids(codec, frames, seed)[:levels]
    decoded, decoding = timed(codec.decode, ids, samples, seed)
    spec = spec_of(codec, ids, RANDOM, codec.held_out().counts)
    return of_tokens(RANDOM, codec, decoded, frames, levels, seconds=decoding, tokens=spec, role="random")


def unquantised(wave: np.ndarray, steps: int, seed: int) -> Version:
    """Sound of the frames themselves, as 32-bit numbers."""
    frames, analysis = timed(mel.log_mel, wave)
    decoded, synthesis = timed(mel.MelSynth(steps, seed).wave, frames)
    kbps = 32 * mel.BANDS * mel.FRAME_RATE / 1000
    return Version(FULL, fit(decoded, len(wave)), kbps, frames.nbytes, analysis + synthesis, role="full")


def through(codec: AudioTokenizer, wave: np.ndarray, bits: float) -> Version:
    """The wave through a codec of another kind, with as many levels as come nearest to `bits` a second."""
    keep = min(range(1, levels_of(codec) + 1), key=lambda k: abs(bits_per_second(codec, k) - bits))
    own = sounds.resample(wave, mel.RATE, codec.sample_rate)
    codec.decode(codec.encode(own[: codec.sample_rate // 10]))  # the first time takes longer
    ids, encoding = timed(codec.encode, own)
    decoded, decoding = timed(codec.decode, ids[:keep], len(own))
    name = codec.name.removeprefix("hub:")
    return of_tokens(
        f"{name}, {keep} of {levels_of(codec)} levels",
        codec,
        fit(sounds.resample(decoded, codec.sample_rate, mel.RATE), len(wave)),
        ids.shape[1],
        keep,
        seconds=encoding + decoding,
        tokens=spec_of(codec, ids[:keep], name),
    )


def opus_version(wave: np.ndarray, kbps: float) -> Version:
    guard.check_time()
    setting = opus_setting(wave, kbps)
    data, encoding = timed(opus_file, wave, setting)
    decoded, decoding = timed(opus_wave, data)
    real = rate_of(data, wave) / 1000
    return Version(
        f"Opus, {real:.3g} kbps",
        aligned(wave, decoded),
        real,
        len(data),
        encoding + decoding,
        container=container_bytes(data),
    )


def quality(original: np.ndarray, copies: Sequence[np.ndarray]) -> list[dict[str, float | str]]:
    """For each copy the value of each metric in SHOWN, or the reason why there is none."""
    opinions = pesq_wb_each(original, copies, mel.RATE)
    return [scores(original, copy, opinion) for copy, opinion in zip(copies, opinions, strict=True)]


def scores(original: np.ndarray, copy: np.ndarray, opinion: float | Unavailable) -> dict[str, float | str]:
    """`quality` of one copy, of which PESQ has been asked."""
    found: dict[str, float | str] = {SHOWN[0]: f"none: {opinion}" if isinstance(opinion, Unavailable) else opinion}
    for name in SHOWN[1:]:
        guard.check_time()
        try:
            found[name] = METRICS[name].measure(original, copy, mel.RATE)
        except Unavailable as reason:
            found[name] = f"none: {reason}"
    return found


def listen_views(
    done: Sequence[Version],
    measured: Mapping[str, Mapping[str, float | str]],
    heard: Sounds | None = None,
    *,
    ref: str,
    steps: int,
    seed: int,
) -> Result:
    """done: the original, then all versions; measured: name -> quality; heard: the player, when nothing has joined."""
    seconds = len(done[0].wave) / mel.RATE
    place, chosen = next((i, version) for i, version in enumerate(done) if version.role == "chosen")
    said = (
        f"{chosen.name} is chosen: {chosen.kbps:g} kbps, {chosen.size:,} bytes where {PCM_BITS}-bit PCM takes "
        f"{done[0].size:,}, that is {share_of_pcm(chosen):.2g} %."
    )
    if heard is None:
        title = "The sound, version by version"
        heard = sounds_view(title, done, f"{said} {about(ref)}".strip(), place, sounds.label(ref))
    rows = [row_of(version, measured[version.name]) for version in done[1:] if version.name in measured]
    if not rows:
        return Result(sounds=heard)
    settings = (
        f"{seconds:.2f} s of sound; {steps} steps of Griffin-Lim, seed {seed}; Opus shifted by up to {DELAY} samples "
        "to where it fits best."
    )
    return Result(
        sounds=heard,
        numbers=numbers_table(rows, {i: v.role for i, v in enumerate(done[1 : len(rows) + 1]) if v.role}, settings),
        quality=against_rate(done[1:], measured, "PESQ-WB"),
        distance=against_rate(done[1:], measured, "Mel distance"),
    )


def row_of(version: Version, measured: Mapping[str, float | str]) -> tuple[Any, ...]:
    factor = version.seconds * mel.RATE / len(version.wave)
    return (
        version.name,
        version.kbps,
        version.size,
        share_of_pcm(version),
        version.per_second,
        *measured.values(),
        factor,
    )


def numbers_table(rows: Sequence[tuple], marks: dict[int, str], settings: str) -> Table:
    speed = f"Real-time factor {ARROWS[LOWER]}"
    return Table(
        title="In numbers",
        note=f"{settings} {'; '.join(f'{arrow}: {meaning}' for meaning, arrow in ARROWS.items())}.",
        columns=(
            "Version",
            "Rate [kbps]",
            "Size [bytes]",
            f"Of {PCM_BITS}-bit PCM [%]",
            "Tokens a second",
            *map(heading, SHOWN),
            speed,
        ),
        rows=tuple(rows),
        marks=marks,
        help={
            "Rate [kbps]": "Thousand bits for a second of sound. Tokens: log2 of the codebook's size each, not "
            "compressed any further, and without the codebooks and the decoder, which both ends must have. Opus: its "
            "file with the container, which weighs most in short sounds.",
            **{heading(name): METRICS[name].help for name in SHOWN},
            speed: "Seconds to encode and decode one second of sound: the wall clock of this run, which other work on "
            "the same machine makes longer.",
            FULL: "The frames themselves, as 32-bit numbers, through the same Griffin-Lim.",
            RANDOM: "Every token drawn at random, as many as the chosen version has; only decoding takes time.",
        },
    )


def heading(name: str) -> str:
    """A metric with its unit and its direction."""
    unit, direction = METRICS[name].unit, METRICS[name].direction
    return f"{name} [{unit}] {ARROWS[direction]}" if unit else f"{name} {ARROWS[direction]}"


def against_rate(
    versions: Sequence[Version], measured: Mapping[str, Mapping[str, float | str]], name: str
) -> Lines | None:
    """A metric over the rate; None while it has no value at all."""
    points = [
        (version, measured[version.name][name])
        for version in versions
        if version.name in measured and not isinstance(measured[version.name][name], str)
    ]
    if not points:
        return None
    curve = [(version.kbps, value) for version, value in points if version.tokens and version.tokens.name == "rvq8"]
    series = [Series(name="rvq8", x=tuple(x for x, _ in curve), y=tuple(y for _, y in curve))] if curve else []
    for version, value in points:
        if version.role == "full":  # its own rate is no rate to compare with
            ends = (0.0, max(v.kbps for v, _ in points if v is not version) if len(points) > 1 else 1.0)
            series.append(Series(name=FULL, x=ends, y=(value, value)))
        elif not (version.tokens and version.tokens.name == "rvq8"):
            series.append(Series(name=version.name, x=(version.kbps,), y=(value,), points=True))
    metric = METRICS[name]
    return Lines(
        title=f"{name} against the rate",
        note=f"{metric.direction.capitalize()}. The horizontal line: frames that are not quantised.",
        series=tuple(series),
        x="rate [kbps]",
        y=f"{name} [{metric.unit}]",
    )


# --- levels


def level_by_level(wave: np.ndarray, ref: str, codec: Codec, level: int, seed: int) -> Result:
    """What each level adds, and level `level` (from 0 on) silenced and alone."""
    ids, count = codec.encode(wave), levels_of(codec)
    frames = mel.log_mel(wave)

    @cache
    def decoded(levels: frozenset[int]) -> np.ndarray:
        guard.check_time()
        return codec.frames(only(ids, levels))

    def distance(levels: Iterable[int]) -> float:
        return apart(frames, decoded(frozenset(levels)))

    upto = [decoded(frozenset(range(k))) for k in range(count + 1)]
    steps = [NEPER * np.abs(after - before).mean(0) for before, after in zip(upto, upto[1:], strict=False)]
    rows = [
        (
            f"level {k + 1}",
            bits_per_second(codec, k + 1) / 1000,
            float(steps[k].mean()),
            distance(range(k + 1)),
            distance(set(range(count)) - {k}),
        )
        for k in range(count)
    ]
    return Result(
        sounds=silenced_view(wave, ref, codec, ids, level, seed),
        added=HeatMap(
            title="What each level adds",
            note="Mean change of the spectrogram, up or down, when the level joins those before it. Level 1 is left "
            f"out, because the others would look alike beside it: it changes {rows[0][2]:.3g} dB of {NOTHING}.",
            rows=tuple(f"level {k + 1}" for k in range(1, count)),
            columns=tuple(f"{hertz:,.0f} Hz" for hertz in mel.hertz()),
            values=tuple(tuple(line.round(3).tolist()) for line in steps[1:]),
            x="band",
            y="level",
            unit="dB",
        ),
        kept=order_lines(count, distance, seed),
        by_level=Table(
            title="Level by level",
            note=f"↓: {LOWER}.",
            columns=(
                "Level",
                "Rate up to it [kbps]",
                "Adds [dB]",
                "Distance up to it [Np] ↓",
                "Distance without it [Np] ↓",
            ),
            rows=tuple(rows),
            marks={level: "chosen"},
            help={
                "Adds [dB]": "Mean change of the spectrogram when it joins the levels before it; level 1 joins "
                f"{NOTHING}.",
                "Distance up to it [Np] ↓": f"{DISTANCE} Here with this level and those before it.",
                "Distance without it [Np] ↓": "The same with all levels but this one. Where it is hardly more than "
                "with all of them, the level says little.",
            },
        ),
    )


DISTANCE = (
    "Mean absolute difference of the logarithms of magnitudes, between the frames that were coded and the decoded "
    "ones, before any sound is made of them."
)


def only(ids: np.ndarray, levels: Iterable[int]) -> np.ndarray:
    """ids (L, F) with all other levels left out."""
    kept = np.full_like(ids, -1)
    for level in levels:
        kept[level] = ids[level]
    return kept


def apart(frames: np.ndarray, others: np.ndarray) -> float:
    """Mean absolute difference [Np] of log-mel frames (F, 100)."""
    return float(np.abs(frames - others).mean())


def silenced_view(wave: np.ndarray, ref: str, codec: Codec, ids: np.ndarray, level: int, seed: int) -> Sounds:
    count = levels_of(codec)
    everything = tuple(range(count))
    wanted = {
        f"all {count} levels": everything,
        f"without level {level + 1}": tuple(k for k in everything if k != level),
        f"only level {level + 1}": (level,),
        level_names(range(level + 1)): everything[: level + 1],
        level_names(range(level)): everything[:level],
    }
    spec = spec_of(codec, ids, codec.name, codec.held_out().counts)
    made: dict[tuple[int, ...], Version] = {}
    for name, levels in wanted.items():
        guard.check_time()
        if levels and levels not in made:  # the first level alone is also all levels up to it
            decoded = codec.decode(only(ids, levels), len(wave), seed)
            heard = () if levels == everything else levels
            made[levels] = Version(name, decoded, tokens=spec, heard=heard)
    note = "All levels come first, because the others are held against them. " + about(ref)
    return sounds_view("Levels silenced and alone", [*made.values(), Version("original", wave)], note.strip(), 1)


def order_lines(count: int, distance: Callable[[Iterable[int]], float], seed: int) -> Lines:
    """The first k of `count` levels against k levels in random order; distance: of some levels from the original."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(count).tolist() for _ in range(ORDERS)]
    drawn = [[distance(order[:k]) for k in range(count + 1)] for order in orders]
    x = tuple(range(count + 1))
    chance = np.array(drawn)
    return Lines(
        title="The first levels, or any levels",
        note=f"{DISTANCE} Lower is better. Random choice: mean and range of {ORDERS} orders, seed {seed}. With no "
        f"level at all, {NOTHING} is left.",
        series=(
            Series(name="the first k levels", x=x, y=tuple(distance(range(k)) for k in x)),
            Series(
                name="k levels at random",
                x=x,
                y=tuple(chance.mean(0).tolist()),
                low=tuple(chance.min(0).tolist()),
                high=tuple(chance.max(0).tolist()),
            ),
        ),
        x="levels kept, k",
        y="distance of the frames [Np]",
    )


# --- transplant


def transplant(a: np.ndarray, b: np.ndarray, refs: tuple[str, str], codec: Codec, first: int, seed: int) -> Result:
    """Levels 1 to `first` of A under the others of B, and the reverse; both cut to the shorter one."""
    samples, count = min(len(a), len(b)), levels_of(codec)
    own, others = codec.encode(a[:samples]), codec.encode(b[:samples])
    noise = random_ids(codec, own.shape[1], seed)
    frames_a, frames_b = codec.frames(own), codec.frames(others)
    mixed, chance = ([codec.frames(under(own, upper, m)) for m in range(count + 1)] for upper in (others, noise))
    to_a, to_b, random = (
        [apart(to, one) for one in many] for to, many in ((frames_a, mixed), (frames_b, mixed), (frames_a, chance))
    )
    named = {
        "A": own,
        "B": others,
        mixture("A", "B", first, count): under(own, others, first),
        mixture("B", "A", first, count): under(others, own, first),
        mixture("A", "random codes", first, count): under(own, noise, first),
    }
    made = []
    for name, ids in named.items():
        guard.check_time()
        spec = spec_of(codec, ids, name, codec.held_out().counts)
        made.append(Version(name, codec.decode(ids, samples, seed), tokens=spec))
    note = f"A is the first sound, B the second, both from all {count} levels and cut to the shorter one, "
    x = tuple(range(count + 1))
    note = f"{note}{samples / mel.RATE:.2f} s. {about(*refs)}".strip()
    return Result(
        sounds=sounds_view("Levels of two sounds", made, note, 2),
        heard=what_to_hear(to_a, to_b, random, first),
        nearness=Lines(
            title="Nearer to A or to B?",
            note=f"{DISTANCE} Here between decoded frames: of the mixture, and of A or B. Random: levels of A under "
            f"random codes, seed {seed}.",
            series=(
                Series(name="A under B: distance to A", x=x, y=tuple(to_a)),
                Series(name="A under B: distance to B", x=x, y=tuple(to_b)),
                Series(name="A under random codes: distance to A", x=x, y=tuple(random)),
            ),
            x="levels of A, m",
            y="distance of the frames [Np]",
        ),
    )


def under(lower: np.ndarray, upper: np.ndarray, count: int) -> np.ndarray:
    """The first `count` levels of `lower` and the others of `upper`, both (L, F)."""
    return np.concatenate((lower[:count], upper[count:]))


def mixture(lower: str, upper: str, first: int, count: int) -> str:
    """A name for levels 1 to `first` of `lower` under the others of `upper`."""
    if first in (0, count):
        return f"{upper if first == 0 else lower}, all levels"
    return f"{level_names(range(first))} of {lower}, {level_names(range(first, count))} of {upper}"


def what_to_hear(to_a: Sequence[float], to_b: Sequence[float], random: Sequence[float], first: int) -> Note:
    """What the distances at m = 0 .. L say, in words."""
    between, count = to_a[0], len(to_a) - 1
    if between == 0:
        return Note(title="What to listen for", text="A and B have the same tokens, so every mixture is A.")
    nearer = next(m for m in range(count + 1) if to_a[m] < to_b[m])
    fine = to_a[first] - random[first]
    text = (
        f"A and B lie {between:.2f} Np apart. With m = {first} the mixture lies {to_a[first]:.2f} Np from A and "
        f"{to_b[first]:.2f} Np from B; from m = {nearer} on it is nearer to A. "
    )
    if 0 < first < count:
        text += (
            f"Under random codes, the same levels of A would lie {random[first]:.2f} Np from A: the later levels of B "
            f"{'change A less than' if fine < 0 else 'change A no less than'} codes drawn at random do. "
        )
    owner = "A" if to_a[first] < to_b[first] else "B"
    text += f"Listen for {owner}: whose words or notes do you recognise, and what of the other is left?"
    return Note(title="What to listen for", text=text)


# --- codebooks


def codebooks(wave: np.ndarray, ref: str, codecs: Sequence[Codec], seed: int) -> Result:
    """Use of every codebook on held-out sound and in this one."""
    held, here, curves, curves_here = [], [], [], []
    kbps: list[str] = []
    seconds = codecs[0].held_out().seconds
    for codec in codecs:
        guard.check_time()
        ids, known = codec.encode(wave), codec.held_out()
        stats, draws = CodebookStats(codec.sizes), CodebookStats(codec.sizes)
        stats.update(ids.T[None])
        draws.update(random_ids(codec, ids.shape[1], seed).T[None])
        coded = 0.0
        for level, counts in enumerate(known.counts):
            name = codec.name if levels_of(codec) == 1 else f"{codec.name}, level {level + 1}"
            held.append((name, *use(counts)))
            here.append((name, *use_here(stats, level, counts)))
            curves.append(rank_curve(name, counts))
            curves_here.append(rank_curve(name, stats.histogram(level)))
            coded += entropy(counts) / math.log(2)
        name = f"{codec.name}, drawn at random"
        here.append((name, *use_here(draws, levels_of(codec) - 1, known.counts[-1])))
        curves_here.append(rank_curve(name, draws.histogram(levels_of(codec) - 1)))
        plain = bits_per_second(codec) / 1000
        kbps.append(f"{codec.name} {coded * codec.frame_rate / 1000:.3g} instead of {plain:.3g} kbps")
    return Result(
        held_out=Table(
            title="Use on held-out sound",
            note=f"{seconds / 60:.0f} minutes of sound from speakers that training has not heard. With an ideal "
            f"entropy coder of single tokens: {', '.join(kbps)}.",
            columns=("Codebook", *HELD_COLUMNS),
            rows=tuple(held),
            help=USE_HELP,
        ),
        ranks=rank_lines("Rank and frequency on held-out sound", [*curves, even_curve(codecs[0].sizes[0])]),
        here=Table(
            title="Use in this sound",
            note=f"{len(wave) / mel.RATE:.2f} s of sound. Draws at random: seed {seed}. {about(ref)}".strip(),
            columns=("Codebook", *HERE_COLUMNS),
            rows=tuple(here),
            marks={i: "random" for i, row in enumerate(here) if row[0].endswith("at random")},
            help=USE_HELP,
        ),
        ranks_here=rank_lines("Rank and frequency in this sound", curves_here),
    )


ENTROPY = "Entropy [bits]"
HELD_COLUMNS = ("Entries", "Tokens", "Used [%]", "Dead", "Perplexity", ENTROPY, "log2 K [bits]", "Could be saved [%]")
HERE_COLUMNS = ("Tokens", "Different codes", "Perplexity", ENTROPY, "Coded by held-out use [bits a token]")
USE_HELP = {
    "Used [%]": "Entries that came up at all.",
    "Dead": "Entries that never came up.",
    "Tokens": "How many were counted. Of a codebook with K entries, many more than K are needed.",
    "Perplexity": "2 to the entropy: as many codes, used evenly, would be as uncertain. At most the number of entries, "
    "and of tokens counted.",
    ENTROPY: "Of the shares of the codes. Too low where few tokens were counted.",
    "Could be saved [%]": "1 - entropy / log2 K: what an entropy coder of single tokens saves at best. One that also "
    "looks at the tokens before could save more.",
    "Coded by held-out use [bits a token]": "The length of this sound's tokens in a code made for the frequencies on "
    "held-out sound, each counted once more than seen. More than log2 K: this sound uses codes that are rare there.",
}


def use(counts: np.ndarray) -> tuple[float, ...]:
    """HELD_COLUMNS of how often each of K codes came up (K,)."""
    bits, most = entropy(counts) / math.log(2), math.log2(len(counts))
    used = int((counts > 0).sum())
    saved = 100 * (1 - bits / most)
    return len(counts), int(counts.sum()), 100 * used / len(counts), len(counts) - used, 2**bits, bits, most, saved


def use_here(stats: CodebookStats, level: int, known: np.ndarray) -> tuple[float, ...]:
    """HERE_COLUMNS of one level; known: (K,) how often each code came up elsewhere."""
    found = stats.histogram(level)
    return (
        stats.counted(level),
        int((found > 0).sum()),
        stats.perplexity(level),
        max(0.0, float(stats.entropy_bits(level))),  # of a single code it is minus zero
        code_length(found, known),
    )


def code_length(found: np.ndarray, known: np.ndarray) -> float:
    """Bits a token for codes that came up `found` times, in a code made for `known` + 1 times, both (K,)."""
    share = (known + 1) / (known + 1).sum()
    return float(-(found * np.log2(share)).sum() / found.sum())


def rank_lines(title: str, curves: Sequence[Series]) -> Lines:
    return Lines(
        title=title,
        note="The flatter, the more evenly the codes are used. Codes that never came up are left out.",
        series=tuple(curves),
        x="rank of the code",
        y="share of the tokens [%]",
        log_x=True,
        log_y=True,
    )


def even_curve(size: int) -> Series:
    """What rank_curve would be if all `size` codes came up equally often."""
    return Series(name=f"{size:,} codes, used evenly", x=(1, size), y=(100 / size, 100 / size))
