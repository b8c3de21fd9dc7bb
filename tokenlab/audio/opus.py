"""Opus (RFC 6716), the codec of calls over the internet: a classical yardstick beside the learned ones."""

from __future__ import annotations

import io

import numpy as np

from tokenlab.audio.tokenizer import fit

# kbps -> libsndfile's compression level that gives about so many for speech at 24 kHz, Ogg's share included.
LEVELS = {8: 0.995, 16: 0.967}


def opus(wave: np.ndarray, rate: int, kbps: int) -> tuple[np.ndarray, int]:
    """(copy (T,), bytes of the Ogg file) of a wave (T,) at 8, 12, 16, 24 or 48 kHz; kbps: one of LEVELS."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="OGG", subtype="OPUS", compression_level=LEVELS[kbps])
    size = file.tell()
    file.seek(0)
    copy, _ = soundfile.read(file, dtype="float32")
    return fit(copy, len(wave)), size
