"""What every codec here can do: sound -> tokens -> sound.

A wave is (T,) float32, mono, between -1 and 1, at the codec's own `sample_rate`. Tokens are ids (L, F) int64:
L levels, coarse to fine, of F frames; -1 stands for a level that is left out. One clip at a time, because padding
in a batch would change the tokens.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class AudioTokenizer(Protocol):
    """sizes: entries of the codebook of each level; frame_rate: tokens of one level a second [Hz]."""

    name: str
    sample_rate: int
    frame_rate: float
    sizes: tuple[int, ...]

    def encode(self, wave: np.ndarray) -> np.ndarray:
        """ids (L, F) of a wave (T,)."""
        ...

    def decode(self, ids: np.ndarray, samples: int | None = None) -> np.ndarray:
        """The wave (T,) of ids (L', F) with L' <= L levels; cut or filled with silence to `samples`."""
        ...


class FrameVocoder(Protocol):
    """Sound out of frames, for everything that predicts frames: features (F, D) -> wave (F * hop,)."""

    sample_rate: int
    hop: int

    def wave(self, frames: np.ndarray) -> np.ndarray: ...


def bits_per_second(tokenizer: AudioTokenizer, levels: int | None = None) -> float:
    """Bits for one second of the first `levels` levels (all of them: None), without entropy coding."""
    return tokenizer.frame_rate * sum(math.log2(size) for size in tokenizer.sizes[:levels])


def tokens_per_second(tokenizer: AudioTokenizer, levels: int | None = None) -> float:
    return tokenizer.frame_rate * len(tokenizer.sizes[:levels])


def fit(wave: np.ndarray, samples: int | None) -> np.ndarray:
    """A wave (T,) cut or filled with silence to `samples`; as it is when that is None."""
    if samples is None or len(wave) == samples:
        return wave
    return np.pad(wave, (0, samples - len(wave))) if len(wave) < samples else wave[:samples]
