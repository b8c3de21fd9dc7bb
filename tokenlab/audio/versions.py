"""Versions of one sound, as what came out of codecs: what each costs, how loud it is, and the view that plays them all.

copy = of_tokens("vq1", codec, decoded, frames=ids.shape[1], keep=1, tokens=spec_of(codec, ids, "vq1"))
view = sounds_view("The sound, version by version", [Version("original", wave), copy], note="")
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tokenlab import pictures, sounds
from tokenlab.audio import mel
from tokenlab.audio.sound_child import within_scale
from tokenlab.audio.tokenizer import AudioTokenizer, bits_per_second, tokens_per_second
from tokenlab.views import Series, Sounds, SoundTokens, Track

T = TypeVar("T")
PCM_BITS = 16
RANKS = 40  # places at most on a rank-frequency curve
RANGE = 80  # dB between black and white
QUIETEST = -60  # dB: the loudest band of a picture counts as at least that
MOST_GAIN = 10.0  # what loudness matching may do to a track, and its inverse
# K-weighting: a high shelf and a high pass, as digital filters at 48 kHz (ITU-R BS.1770-5, annex 1, tables 1 and 2).
WEIGHTING = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
NEPER = 20 / math.log(10)  # dB


@dataclass(frozen=True)
class Version:
    """A sound (T,) after coding. size: bytes of all that must be stored, `container` of them to describe itself;
    seconds: to encode and decode, None where that was not measured; role: "full", "random", "chosen" or ""."""

    name: str
    wave: np.ndarray
    kbps: float | None = None
    size: int | None = None
    seconds: float | None = None
    per_second: float | None = None
    tokens: SoundTokens | None = None
    heard: tuple[int, ...] = ()
    container: int | None = None
    role: str = ""


def of_tokens(name: str, codec: AudioTokenizer, wave: np.ndarray, frames: int, keep: int, **known: Any) -> Version:
    """A version of `frames` tokens on each of `keep` levels: log2 of the codebook's size is the bits of a token."""
    size = math.ceil(frames * sum(map(math.log2, codec.sizes[:keep])) / 8)
    return Version(
        name, wave, bits_per_second(codec, keep) / 1000, size, per_second=tokens_per_second(codec, keep), **known
    )


def share_of_pcm(version: Version) -> float:
    """Percent of what the same samples take as 16-bit numbers."""
    return 100 * version.size / (len(version.wave) * PCM_BITS / 8)


def sounds_view(title: str, versions: Sequence[Version], note: str, chosen: int = 0, label: str = "") -> Sounds:
    """All versions, the first of which is the one that the others are held against.

    chosen: the one that is seen first; label: what the first is called elsewhere, which may be a user's text."""
    frames = [mel.log_mel(version.wave) for version in versions]
    db = range_of(frames[0])
    specs = {version.tokens.name: version.tokens for version in versions if version.tokens}
    target = loudness(versions[0].wave)
    tracks = tuple(
        Track(
            name=version.name,
            flac=sounds.flac(stored := within_scale(version.wave), mel.RATE),
            mel=spectrogram(one, db),
            gain=gain(target, loudness(stored)),
            tokens=list(specs).index(version.tokens.name) if version.tokens else -1,
            heard=version.heard,
            facts=({"sound": label} if label and i == 0 else {}) | facts(version),
        )
        for i, (version, one) in enumerate(zip(versions, frames, strict=True))
    )
    return Sounds(
        title=title,
        note=note,
        tracks=tracks,
        seconds=max(len(version.wave) for version in versions) / mel.RATE,
        hertz=tuple(mel.hertz().round(1).tolist()),
        db=db,
        mel_rate=mel.FRAME_RATE,
        tokens=tuple(specs.values()),
        chosen=chosen,
    )


def facts(version: Version) -> dict[str, Any]:
    known = {
        "kbps": version.kbps,
        "bytes": version.size,
        "of these the container": version.container,
        f"% of {PCM_BITS}-bit PCM": None if version.size is None else share_of_pcm(version),
        "tokens a second": version.per_second,
        "role": {"full": "ceiling", "random": "baseline", "chosen": "chosen with the slider"}.get(version.role),
    }
    return {name: value for name, value in known.items() if value is not None}


def spec_of(codec: AudioTokenizer, ids: np.ndarray, name: str, counts: Sequence[np.ndarray] = ()) -> SoundTokens:
    """ids (L, F) as a strip; counts: for each level (K,) how often its codes came up in held-out sound."""
    seen = tuple(tuple(counted[line].tolist()) for counted, line in zip(counts, ids, strict=False))
    return SoundTokens(
        name=name,
        rate=codec.frame_rate,
        ids=tuple(tuple(line.tolist()) for line in ids),
        sizes=tuple(codec.sizes[: len(ids)]),
        seen=seen,
        counted=int(counts[0].sum()) if len(counts) else 0,
    )


def random_ids(codec: AudioTokenizer, frames: int, seed: int) -> np.ndarray:
    """ids (L, F), every code equally likely."""
    sizes = np.array(codec.sizes)[:, None]
    return np.random.default_rng(seed).integers(0, sizes, (len(codec.sizes), frames))


def decibels(frames: np.ndarray) -> np.ndarray:
    """Log-mel frames in dB; 0 is a sine at full scale in a band of a single frequency."""
    return NEPER * (frames - math.log(mel.WINDOW / 4))  # a Hann window sums to half of its length, a sine has two sides


def range_of(frames: np.ndarray) -> tuple[float, float]:
    """The ends [dB] of a picture of log-mel frames: RANGE below the next ten above the loudest band, and that."""
    top = max(QUIETEST, 10.0 * math.ceil(float(decibels(frames).max()) / 10))
    return top - RANGE, top


def spectrogram(frames: np.ndarray, db: tuple[float, float]) -> str:
    """Log-mel frames (F, 100) as a grey PNG in base64, F wide, low bands at the bottom."""
    share = (decibels(frames) - db[0]) / (db[1] - db[0])
    return pictures.png(np.ascontiguousarray(np.rint(255 * share.clip(0, 1)).astype(np.uint8).T[::-1]))


def loudness(wave: np.ndarray) -> float:
    """K-weighted root mean square (ITU-R BS.1770-5, annex 1, without gating: versions pause together)."""
    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(len(wave), 1 / mel.RATE) / 48_000)
    power = np.abs(np.fft.rfft(wave)) ** 2
    for above, below in WEIGHTING:
        power *= np.abs(np.polyval(above[::-1], turn) / np.polyval(below[::-1], turn)) ** 2
    return float(np.sqrt(2 * power.sum()) / len(wave))


def gain(target: float, own: float) -> float:
    """The factor that makes a sound of loudness `own` as loud as `target`, at most MOST_GAIN up or down; 1: silence."""
    if target <= 0 or own <= 0:
        return 1.0
    return min(max(target / own, 1 / MOST_GAIN), MOST_GAIN)


def timed(function: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    started = time.perf_counter()
    value = function(*arguments)
    return value, time.perf_counter() - started


def about(*refs: str) -> str:
    """Sentences on where the sounds come from and what is not used of them."""
    said = list(dict.fromkeys(filter(None, map(sounds.left_out, refs))))
    if any(ref.startswith(("sample:", "say:")) for ref in refs):
        said.append(
            "Spoken samples come from espeak-ng and the others from formulas, as a part of the codecs' training data "
            "did; your own recording tells more."
        )
    return " ".join(said)


def rank_curve(name: str, counts: np.ndarray) -> Series:
    """Share of the tokens [%] of the most used code, the next one, and so on, at no more than RANKS ranks."""
    shares = 100 * np.sort(counts[counts > 0])[::-1] / counts.sum()
    ranks = np.unique(np.geomspace(1, len(shares), RANKS).round().astype(int))
    return Series(name=name, x=tuple(ranks.tolist()), y=tuple(shares[ranks - 1].tolist()))
