"""Opus (RFC 6716), the codec of calls over the internet: a classical yardstick beside the learned ones."""

from __future__ import annotations

import io

import numpy as np

from tokenlab.audio import mel
from tokenlab.audio.tokenizer import fit

TRIES = 3
RATES = (6_000, 256_000)  # bits a second between which libsndfile turns "compression_level" into a rate
DELAY = 8  # samples that a copy may be shifted by
BLOCK = 4_096  # samples written at once: libsndfile's encoders keep what they are given on the stack


def opus(wave: np.ndarray, kbps: float) -> tuple[np.ndarray, int]:
    """A wave (T,) at 24 kHz through Opus at about `kbps`: (T,) float32, and the bytes of the whole file."""
    data = opus_file(wave, opus_setting(wave, kbps))
    return aligned(wave, opus_wave(data)), len(data)


def opus_setting(wave: np.ndarray, kbps: float) -> float:
    """libsndfile's "compression level" that comes nearest to `kbps`, container included, of TRIES.

    It stands for a rate on average over much sound, so each try corrects the last one by what came out."""
    low, high = RATES
    rate, tried = 1000 * kbps, {}
    for _ in range(TRIES):
        setting = 1 - (min(max(rate, low), high) - low) / (high - low)
        if setting in tried:
            break
        tried[setting] = rate_of(opus_file(wave, setting), wave) - 1000 * kbps
        rate -= tried[setting]
    return min(tried, key=lambda setting: abs(tried[setting]))


def rate_of(data: bytes, wave: np.ndarray) -> float:
    """Bits a second of a file that holds this wave."""
    return 8 * len(data) / (len(wave) / mel.RATE)


def opus_file(wave: np.ndarray, setting: float) -> bytes:
    """Opus in Ogg (RFC 6716, RFC 7845) at variable rate, by libsndfile."""
    import soundfile

    file = io.BytesIO()
    kind = {"format": "OGG", "subtype": "OPUS", "compression_level": setting}
    with soundfile.SoundFile(file, "w", mel.RATE, 1, **kind) as out:
        for start in range(0, len(wave), BLOCK):
            out.write(wave[start : start + BLOCK])
    return file.getvalue()


def opus_wave(data: bytes) -> np.ndarray:
    """(T,) float32 at 24 kHz. libsndfile leaves out the encoder's delay, but for a sample or two."""
    import soundfile

    return soundfile.read(io.BytesIO(data), dtype="float32")[0]


def aligned(original: np.ndarray, copy: np.ndarray) -> np.ndarray:
    """The copy (T,) shifted by up to DELAY samples to where its correlation with the original (T,) is highest."""
    samples = len(original)
    room = np.pad(fit(copy, samples), DELAY)
    shifted = [room[start : start + samples] for start in range(2 * DELAY + 1)]
    nearest = sorted(range(len(shifted)), key=lambda start: abs(start - DELAY))  # silence stays where it is
    return shifted[max(nearest, key=lambda start: float(shifted[start] @ original))]


def container_bytes(data: bytes) -> int:
    """Bytes of an Opus file that hold no sound: the headers of Ogg's pages (RFC 3533, section 6), and the pages in
    front with the codec's own headers, which stand at position 0 (RFC 7845, section 4)."""
    at = total = 0
    while at < len(data):
        head = 27 + data[at + 26]
        body = sum(data[at + 27 : at + head])
        position = int.from_bytes(data[at + 6 : at + 14], "little")
        total += head + (0 if position else body)
        at += head + body
    return total
