"""How close a copy of a sound comes to the original: (original (T,), copy (T',), rate [Hz]) -> one number.

The longer wave is cut to the shorter one, from the start. A metric that cannot be computed raises Unavailable with
the reason; it never gives a number in its place, and never one that is not finite.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tokenlab import guard, limits

SILENCE = 2**-15  # a sound that stays below one step of 16 bits
# Window [samples at 24 kHz] and bands of each scale of multi_scale_mel_distance; the hop is a quarter of the window.
SCALES = ((2048, 100), (1024, 80), (512, 40), (256, 20))
FLOOR = 1e-5  # of a band's magnitude there, where a sine of full scale has 1: what is softer than -100 dB is silent
STOI_SECONDS = 0.41  # 30 frames of 256 samples, every 128, at 10 kHz, and the one that its removal of silence costs


class Unavailable(Exception):
    """A metric has no value here; the text is the reason, in a few words."""


def pesq_wb(original: np.ndarray, copy: np.ndarray, rate: int) -> float:
    """Wideband PESQ (ITU-T P.862.2, at 16 kHz): predicted mean opinion score of listeners, about 1 to 4.64.

    It aligns level and time itself. Needs the package pesq, which is optional: its terms allow evaluation only. The
    program runs in a child process, because it crashes on some sounds. Unavailable: without the package, silence,
    less than 0.25 s, no speech, a crash."""
    (value,) = pesq_wb_each(original, [copy], rate)
    if isinstance(value, Unavailable):
        raise value
    return value


def pesq_wb_each(original: np.ndarray, copies: Sequence[np.ndarray], rate: int) -> list[float | Unavailable]:
    """pesq_wb of several copies of one original, which takes less time than one by one; reasons are not raised."""
    if importlib.util.find_spec("pesq") is None:
        return [Unavailable("the package pesq is not installed") for _ in copies]
    found: list[float | Unavailable | None] = [None] * len(copies)
    waiting: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}  # by length: copies may be shorter than the rest
    for i, copy in enumerate(copies):
        try:
            pair = [_at(wave, rate, 16_000).astype("<f4") for wave in _pair(original, copy)]
            waiting.setdefault(len(pair[0]), []).append((i, *pair))
        except Unavailable as reason:
            found[i] = reason
    for jobs in waiting.values():
        while jobs:
            answers, reason = _asked([jobs[0][1], *(copy for _, _, copy in jobs)])
            if len(answers) < len(jobs):
                answers.append({"reason": reason})  # of the copy that it was at; the ones behind get a new process
            for (i, _, _), answer in zip(jobs, answers, strict=False):
                found[i] = answer["value"] if "value" in answer else Unavailable(answer["reason"])
            jobs = jobs[len(answers) :]
    return found


def _asked(waves: Sequence[np.ndarray]) -> tuple[list[dict], str]:
    """The answers of pesq_child to an original and its copies, and why there are fewer than copies, if there are."""
    from tokenlab.text.sandbox import ROOT, environment

    guard.check_time()
    reason = "its program crashed on this pair"
    try:
        answers = subprocess.run(
            [sys.executable, "-m", "tokenlab.audio.pesq_child", str(len(waves[0]))],
            input=b"".join(wave.tobytes() for wave in waves),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
            timeout=limits.CHILD_SECONDS,
            start_new_session=True,  # Ctrl-C in the app's terminal is not for the child
        ).stdout
    except subprocess.TimeoutExpired as late:
        answers, reason = late.stdout or b"", f"its program took longer than {limits.CHILD_SECONDS:g} s"
    return [json.loads(line) for line in answers.splitlines(keepends=True) if line.endswith(b"\n")], reason


def stoi(original: np.ndarray, copy: np.ndarray, rate: int) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), up to 1: the mean correlation of the envelopes of 15
    third-octave bands (150 Hz to 4.3 kHz) over 0.4 s, where the original is not silent.

    Computed by pystoi, which resamples to 10 kHz. Unavailable: silence, less than 0.41 s that are not silent."""
    import pystoi

    original, copy = _pair(original, copy)
    if len(original) < STOI_SECONDS * rate:
        raise Unavailable(f"shorter than {STOI_SECONDS} s")
    value = float(pystoi.stoi(original, copy, rate))
    if value == 1e-5:  # what pystoi gives, with a warning, in place of a value
        raise Unavailable(f"less than {STOI_SECONDS} s that are not silent")
    return value


def si_sdr(original: np.ndarray, copy: np.ndarray, rate: int) -> float:
    """Scale-invariant signal-to-distortion ratio [dB] (Le Roux et al. 2019, eq. 3; no mean is subtracted):
    $10 \\log_{10} (|a s|^2 / |a s - c|^2)$ with $a = c·s / |s|^2$, for the original $s$ and the copy $c$.

    Unavailable: silence, an exact copy (the ratio is infinite), nothing of the original in the copy."""
    original, copy = _pair(original, copy)
    fitting = (copy @ original) / (original @ original) * original
    signal, error = fitting @ fitting, (fitting - copy) @ (fitting - copy)
    if error <= signal * np.finfo(np.float64).eps ** 2 * len(copy):  # what rounding leaves of a scaled copy
        raise Unavailable("infinite: the copy is exact")
    if signal == 0:
        raise Unavailable("minus infinite: the copy has nothing of the original")
    return float(10 * np.log10(signal / error))


def mel_distance(original: np.ndarray, copy: np.ndarray, rate: int) -> float:
    """Mean absolute difference of log-mel spectrograms [Np: natural logarithm of magnitude], over frames and bands.

    100 bands (HTK's mel scale, each filter sums to 1) from 0 to 12 kHz at 24 kHz, Hann windows of 1,280 samples
    every 320, magnitudes floored at 1e-4: tokenlab.audio.mel.log_mel. 1 Np is a factor of e, or 8.7 dB. It is not
    divided by a standard deviation, so that it does not depend on a corpus. Silence has a value here."""
    from tokenlab.audio import mel

    original, copy = (_at(wave, rate, mel.RATE) for wave in _pair(original, copy, silent=True))
    return float(np.abs(mel.log_mel(original) - mel.log_mel(copy)).mean())


def multi_scale_mel_distance(original: np.ndarray, copy: np.ndarray, rate: int) -> float:
    """mel_distance as a mean over four scales [Np]: short windows see when, long ones see which frequency.

    SCALES at 24 kHz: windows of 2,048, 1,024, 512 and 256 samples, hops of a quarter, 100, 80, 40 and 20 bands,
    magnitudes floored at 1e-5 of a full-scale sine; silence before and behind. Each paper has scales, bands,
    logarithm and floor of its own, so these numbers compare only with each other."""
    original, copy = (_at(wave, rate, 24_000) for wave in _pair(original, copy, silent=True))
    distances = []
    for window, bands in SCALES:
        logs = [
            np.log(np.maximum(_magnitudes(wave, window) @ _filters(window, bands), FLOOR)) for wave in (original, copy)
        ]
        distances.append(np.abs(logs[0] - logs[1]).mean())
    return float(np.mean(distances))


class Metric(NamedTuple):
    unit: str
    direction: str
    help: str
    measure: Callable[[np.ndarray, np.ndarray, int], float]


HIGHER, LOWER = "higher is better", "lower is better"

METRICS: dict[str, Metric] = {
    "PESQ-WB": Metric(
        "MOS",
        HIGHER,
        "The opinion that listeners would have of speech, from about 1 (bad) to 4.64 (the same), as ITU-T P.862.2 "
        "predicts it; made for telephone speech, so it says little about music.",
        pesq_wb,
    ),
    "STOI": Metric(
        "",
        HIGHER,
        "How much of speech would be understood, up to 1: the correlation of the loudness of 15 bands over time, "
        "whatever the sound of the voice.",
        stoi,
    ),
    "SI-SDR": Metric(
        "dB",
        HIGHER,
        "How well the waveform itself is kept, at the best level; meaningless for codecs that invent the phase: "
        "they get -10 dB and far less however good they sound.",
        si_sdr,
    ),
    "Mel distance": Metric(
        "Np",
        LOWER,
        "The mean difference of the logarithms of 100 frequency bands' magnitudes, 75 times a second; 0 is the same "
        "spectrum, 0.1 is about 0.9 dB.",
        mel_distance,
    ),
    "Mel distance, 4 scales": Metric(
        "Np",
        LOWER,
        "The mel distance as a mean over windows of 11 to 85 ms, which also hear blurred onsets and blurred pitch.",
        multi_scale_mel_distance,
    ),
}


def _pair(original: np.ndarray, copy: np.ndarray, silent: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, of equal length. Unavailable: nothing left, not finite, or silent unless that is allowed."""
    samples = min(len(original), len(copy))
    pair = np.asarray(original[:samples], np.float64), np.asarray(copy[:samples], np.float64)
    if samples == 0:
        raise Unavailable("there is no sound")
    for name, wave in zip(("original", "copy"), pair, strict=True):
        if not np.isfinite(wave).all():
            raise Unavailable(f"the {name} holds values that are no numbers")
        if not silent and np.abs(wave).max() < SILENCE:
            raise Unavailable(f"the {name} is silent")
    return pair


def _at(wave: np.ndarray, rate: int, new: int) -> np.ndarray:
    from tokenlab.sounds import resample

    return resample(wave, rate, new)


def _magnitudes(wave: np.ndarray, window: int) -> np.ndarray:
    """(F, window / 2 + 1) of a wave (T,): Hann windows, F = ceil(T / hop) with a hop of a quarter window.

    A sine of full scale has 1."""
    hop = window // 4
    padded = np.pad(wave, ((window - hop) // 2, (window - hop) // 2 + -len(wave) % hop + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][: -(-len(wave) // hop)]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.abs(np.fft.rfft(frames * hann)) / (window / 4)


@functools.cache
def _filters(window: int, bands: int) -> np.ndarray:
    """(window / 2 + 1, bands): triangles on HTK's mel scale from 0 to 12 kHz, each sums to 1."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(window // 2 + 1, bands, 0.0, 12_000, 24_000, norm=None, mel_scale="htk")
    return bank / bank.sum(0)
