"""Decodes one sound file of unknown origin, in a process of its own: started by tokenlab/sounds.py.

    python -m tokenlab.audio.sound_child < file > answer

libsndfile and the decoders inside it are native code, which a crafted file can make crash, eat memory or run for
ever. Here it can do that alone. What the file claims to be is checked before libsndfile sees it, so that only its
readers of WAV, FLAC, Ogg and MP3 are ever used. The answer is one line of JSON, then float32 samples.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import traceback

import numpy as np
import soundfile

from tokenlab import limits
from tokenlab.audio.espeak_child import restrict
from tokenlab.errors import UserError

NAMED = "WAV, FLAC, OGG (Vorbis or Opus) or MP3"
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3")
CODINGS = (
    *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
    *("VORBIS", "OPUS", "MPEG_LAYER_III"),
)
BLOCK = 256  # frames read at once: of a damaged file, at most these are lost before the damage
UNKNOWN = 2**62  # libsndfile gives 2**63 - 1 frames where the header gives none


class _Forward(soundfile.SoundFile):
    """A file that is only read from its start on. soundfile seeks after every read of a seekable file, and in one
    that is cut off, that fails although the samples are there."""

    def seekable(self) -> bool:
        return False


def read(data: bytes) -> tuple[np.ndarray, int, float]:
    """(wave, rate, seconds left out) of a file: wave (T,) float32 in [-1, 1], at its own `rate` [Hz].

    Channels are averaged. A sound beyond full scale becomes softer as a whole. Only the first limits.SOUND_SECONDS
    are decoded; what is left out is what the header claims beyond them, inf when that is not there or not said. A
    file that is cut off or damaged gives what comes before. UserError: no sound, of another kind, too short,
    damaged from the start, beyond limits.SOUND_RATES or SOUND_CHANNELS, or with values that are no numbers."""
    data = data[_tags(data) :]
    if not _is_known(data):
        raise _other_kind()
    try:
        file = _Forward(io.BytesIO(data))
    except soundfile.LibsndfileError:
        raise _damaged() from None
    with file:
        if file.format not in FORMATS or file.subtype not in CODINGS:
            raise _other_kind()
        _check_header(file.samplerate, file.channels)
        wave, whole = _samples(file)
        left_out = _left_out(file, len(wave))
        rate = file.samplerate
    if len(wave) < limits.SOUND_SHORTEST * rate:
        if not whole:
            raise _damaged()
        raise UserError(f"This sound is shorter than {limits.SOUND_SHORTEST:g} seconds; please load a longer one.")
    if not np.isfinite(wave).all():
        raise UserError(
            "This sound holds values that are not finite numbers; please export it again, for instance as 16-bit WAV."
        )
    return within_scale(wave), rate, left_out


def within_scale(wave: np.ndarray) -> np.ndarray:
    """A wave (T,) made softer as a whole when it goes beyond -1 or 1, which would distort less than clipping."""
    peak = np.abs(wave).max(initial=0)
    return wave / peak if peak > 1 else wave


def _tags(data: bytes) -> int:
    """Bytes of the ID3v2 tags in front. Source: id3.org, ID3v2.4.0 structure, sections 3.1 and 6.2."""
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        size = sum((byte & 127) << shift for byte, shift in zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True))
        at += 10 + size + (10 if data[at + 5] & 16 else 0)
    return at


def _is_known(data: bytes) -> bool:
    """Whether a file begins as one of FORMATS does."""
    if data[:4] in (b"RIFF", b"RF64"):
        return data[8:12] == b"WAVE"
    if data[:4] == b"OggS":  # the first page holds the coding's name and nothing else (RFC 3533, section 4)
        packet = data[27 + data[26] :] if len(data) > 27 else b""
        return packet.startswith((b"\x01vorbis", b"OpusHead"))
    if data[:4] == b"fLaC":
        return True
    # MPEG audio: 11 bits of sync, any version but the reserved one, layer III (ISO 11172-3, section 2.4.1.3).
    return len(data) > 4 and data[0] == 255 and data[1] >> 5 == 7 and data[1] >> 3 & 3 != 1 and data[1] >> 1 & 3 == 1


def _check_header(rate: int, channels: int) -> None:
    low, high = limits.SOUND_RATES
    if not low <= rate <= high:
        raise UserError(f"This sound has {rate:,} samples a second; please resample it to {low:,} to {high:,}.")
    if channels > limits.SOUND_CHANNELS:
        raise UserError(f"This sound has {channels} channels; please mix it down to at most {limits.SOUND_CHANNELS}.")


def _samples(file: _Forward) -> tuple[np.ndarray, bool]:
    """(wave, whole): the mean of the channels, at most limits.SOUND_SECONDS, and whether nothing failed on the way.

    The length that the header claims plays no part."""
    most = round(limits.SOUND_SECONDS * file.samplerate)
    block = np.empty((BLOCK, file.channels), np.float32)
    parts, count = [np.zeros(0)], 0
    while count < most:
        try:
            got = file.buffer_read_into(block, "float32")
        except soundfile.LibsndfileError:
            return np.concatenate(parts).astype(np.float32), False
        if not got:
            break
        parts.append(block[:got].mean(axis=1, dtype=np.float64))
        count += got
    return np.concatenate(parts)[:most].astype(np.float32), True


def _left_out(file: _Forward, used: int) -> float:
    """Seconds that the header claims beyond the `used` frames, when these are the most that is used; else 0."""
    if used < round(limits.SOUND_SECONDS * file.samplerate) or file.frames == used:
        return 0.0
    block = np.empty((1, file.channels), np.float32)
    try:
        there = file.frames < UNKNOWN and file.seek(file.frames - 1) >= 0 and file.buffer_read_into(block, "float32")
    except soundfile.LibsndfileError:
        there = False
    return (file.frames - used) / file.samplerate if there else math.inf


def _other_kind() -> UserError:
    return UserError(f"This file is not a sound that can be read; please save it as {NAMED}.")


def _damaged() -> UserError:
    return UserError("This sound is damaged or cut off at its start; please save it again and load the new file.")


def main() -> None:
    # Two seconds more than the app waits, in case nobody is left to end this process.
    restrict(math.ceil(limits.CHILD_SECONDS) + 2, limits.SOUND_MEMORY_BYTES)
    # The answer leaves by a private copy of standard output, so that nothing the library prints is mixed in.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    samples = b""
    try:
        wave, rate, left_out = read(sys.stdin.buffer.read())
        head = {"rate": rate, "left_out": left_out}
        samples = wave.astype("<f4").tobytes()
    except UserError as error:
        head = {"refused": str(error)}
    except MemoryError:
        head = {"refused": "This sound needs too much memory to read; please save it again, for instance as WAV."}
    except Exception:
        head = {"failed": traceback.format_exc()}
    answer.write(json.dumps(head).encode() + b"\n" + samples)
    answer.flush()


if __name__ == "__main__":
    main()
