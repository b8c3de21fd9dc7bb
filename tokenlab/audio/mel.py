"""Sound as log-mel frames, and sound out of them again.

    frames = log_mel(wave)                    # (T,) float32 at 24 kHz -> (F, 100), F = T / 320 rounded up
    wave = MelSynth(steps=32).wave(frames)    # and back, (F * 320,), with phases that Griffin-Lim finds

Frames hold the natural logarithm of the bands' magnitudes.

A frame is 1,280 samples under a Hann window, one every 320 samples: 75 frames a second. The wave is framed as it
stands in a codec's convolutions ("same"): 480 samples of silence on both sides, so that F * 320 samples come back.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RATE, WINDOW, HOP, BANDS = 24_000, 1_280, 320, 100
FRAME_RATE = RATE / HOP
FLOOR = 1e-4  # of a band's magnitude: below the noise of 16 bits, and silence does not dominate a loss
_PAD = (WINDOW - HOP) // 2
_LEAST = 1e-5  # of a magnitude that is synthesised
_UPDATES, _TINY = 5, 1e-9


@lru_cache(maxsize=1)
def filters() -> np.ndarray:
    """(641, 100) float32: what each frequency weighs in each band (HTK's mel scale); a band's weights sum to 1."""
    from transformers.audio_utils import mel_filter_bank

    bank = mel_filter_bank(WINDOW // 2 + 1, BANDS, 0.0, RATE / 2, RATE, norm=None, mel_scale="htk")
    narrow = bank.sum(0) == 0  # a band between two frequencies: the nearest one stands for it
    bank[np.abs(_bin_hertz()[:, None] - hertz()[None]).argmin(0)[narrow], np.flatnonzero(narrow)] = 1
    return (bank / bank.sum(0)).astype(np.float32)


def hertz() -> np.ndarray:
    """(100,) centre of each band [Hz]."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, BANDS + 2)[1:-1] / 2595) - 1)


def log_mel(wave: np.ndarray) -> np.ndarray:
    """(F, 100) float32, natural log of the bands' magnitudes, at least log(1e-4), of a wave (T,)."""
    wave = np.pad(np.asarray(wave, np.float32), (0, -len(wave) % HOP))
    return np.log(np.maximum(np.abs(stft(wave)) @ filters(), FLOOR))


class MelSynth:
    """Griffin-Lim: magnitudes from the frames, phases such that the spectrogram fits to a wave.

    The fast version (Perraudin, Balazs, Søndergaard 2013) with momentum 0.9: $t_n = P(c_{n-1})$,
    $c_n = t_n + 0.9 (t_n - t_{n-1})$, where $P$ goes to the wave and back. Phases begin at random, by `seed`."""

    sample_rate, hop = RATE, HOP

    def __init__(self, steps: int = 32, seed: int = 0):
        self.steps, self.seed = steps, seed

    def wave(self, frames: np.ndarray) -> np.ndarray:
        """(F * 320,) float32 of frames (F, 100)."""
        return griffin_lim(magnitudes(frames), self.steps, self.seed)


def magnitudes(frames: np.ndarray) -> np.ndarray:
    """(F, 641) magnitudes whose bands are those of the frames (F, 100).

    Least squares would make some of them negative. Where it does they begin at a ten-thousandth of the loudest band,
    and a few multiplicative updates (Lee and Seung 2001, for the generalised Kullback-Leibler divergence), which keep
    them positive, bring the bands back to what they should be."""
    bands = np.exp(frames)
    found = np.maximum(bands @ _inverse(), 1e-4 * bands.max(1, keepdims=True))
    weight = filters().sum(1) + _TINY
    for _ in range(_UPDATES):
        found = found * ((bands / (found @ filters() + _TINY)) @ filters().T) / weight
    return np.maximum(found, _LEAST)


def griffin_lim(magnitude: np.ndarray, steps: int = 32, seed: int = 0) -> np.ndarray:
    """(F * 320,) float32: a wave whose spectrogram has these magnitudes (F, 641), as nearly as `steps` make it."""
    phase = np.random.default_rng(seed).uniform(-np.pi, np.pi, magnitude.shape).astype(np.float32)
    guess, before = magnitude * np.exp(1j * phase), 0
    for _ in range(steps):
        fitting = stft(istft(guess))
        ahead = fitting + 0.9 * (fitting - before)
        guess = magnitude * ahead / np.maximum(np.abs(ahead), 1e-9)
        before = fitting
    return istft(guess)


def stft(wave: np.ndarray) -> np.ndarray:
    """(F, 641) complex64 of a wave (F * 320,)."""
    from scipy.fft import rfft

    padded = np.pad(wave, _PAD)
    return rfft(np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP] * _hann())


def istft(spectrum: np.ndarray) -> np.ndarray:
    """(F * 320,) float32: the wave whose windowed frames come closest to the spectrum (F, 641)."""
    from scipy.fft import irfft

    frames = irfft(spectrum, WINDOW).astype(np.float32, copy=False) * _hann()
    return overlapped(frames) / _weight(len(frames))


def overlapped(frames: np.ndarray) -> np.ndarray:
    """(F * 320,) sum of frames (F, 1280) that lie 320 samples apart, without the padding at both ends."""
    parts = frames.reshape(len(frames), WINDOW // HOP, HOP)
    total = np.zeros((len(frames) + WINDOW // HOP - 1, HOP), np.float32)
    for i in range(WINDOW // HOP):
        total[i : i + len(frames)] += parts[:, i]
    return total.reshape(-1)[_PAD : _PAD + len(frames) * HOP]


@lru_cache(maxsize=1)
def _hann() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)


@lru_cache(maxsize=1)
def _inverse() -> np.ndarray:
    return np.linalg.pinv(filters()).astype(np.float32)


def _weight(frames: int) -> np.ndarray:
    """The squared windows that overlap at each sample; never 0, because the padding is cut off."""
    return overlapped(np.tile(_hann() ** 2, (frames, 1)))


def _bin_hertz() -> np.ndarray:
    return np.arange(WINDOW // 2 + 1) * RATE / WINDOW
