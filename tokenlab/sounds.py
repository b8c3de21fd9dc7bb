"""References to sounds: strings that travel in links, in the API and on the command line.

    sample:chord               a sample that ships with TokenLab (recipes/sounds.py made it)
    say:de:Guten Tag           a sentence, spoken by espeak-ng with one of its voices (tokenlab.audio.corpus)
    upload:0123456789abcdef    an upload, by the SHA-256 of its bytes; lives as long as the server
    data:audio/wav;base64,...  the bytes themselves; check_ref keeps them and gives their upload:HASH

Every sound becomes mono, the mean of its channels, and its first limits.SOUND_SECONDS are used. One that goes beyond
full scale, in its file or between its samples once it is resampled, becomes softer as a whole and is never clipped.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, isinf
from pathlib import Path
from typing import TYPE_CHECKING

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.uploads import UPLOAD, Uploads, quoted, read_base64, read_path, reference

if TYPE_CHECKING:  # importing NumPy costs more than most uses of this module
    import numpy as np

FOLDER = Path(__file__).parents[1] / "assets" / "audio"

SAMPLES: dict[str, str] = {
    "speech-english": "Speech, English",
    "speech-english-low": "Speech, English, a low voice",
    "speech-german": "Speech, German",
    "speech-spanish": "Speech, Spanish",
    "speech-french": "Speech, French",
    "speech-chinese": "Speech, Chinese",
    "speech-hindi": "Speech, Hindi",
    "speech-arabic": "Speech, Arabic",
    "speech-swahili": "Speech, Swahili",
    "chord": "Chord",
    "strings": "Plucked strings",
    "drums": "Drums",
    "bell": "Bell",
    "chirp": "Chirp",
    "tones": "Pure tones",
    "noise": "Pink noise",
}

FORMATS = ("WAV", "FLAC", "OGG (Vorbis or Opus)", "MP3")
_SAY = re.compile(r"say:\s*([a-z0-9-]{1,40})\s*:(.*)", re.ASCII | re.IGNORECASE | re.DOTALL)
_DATA = re.compile(r"data:audio/[\w.+-]{1,40}(?:;codecs=[\w.+-]{1,40})?;base64,", re.ASCII | re.IGNORECASE)
_LABEL = 40  # characters of a spoken text that its label shows


@dataclass(frozen=True)
class _Sound:
    """wave: (T,) float32 in [-1, 1], not writable; rate: [Hz]; left_out: seconds."""

    wave: np.ndarray
    rate: int
    left_out: float


def offered() -> list[tuple[str, str]]:
    """(label, reference) of what a menu shows: the samples."""
    return [(label, f"sample:{name}") for name, label in SAMPLES.items()]


def check_ref(ref: str) -> str:
    """The reference that `ref` means: itself, a name or label of the menu, or data:audio/...;base64,... kept as upload.

    UserError: none of these, too long to be spoken, or the data is no sound that can be read. Whether espeak-ng has
    the voice is seen when it speaks."""
    if match := _DATA.match(ref):
        return register_bytes(read_base64(ref[match.end() :], _check_size, "sound"))
    if match := _SAY.fullmatch(ref):
        return f"say:{match[1].lower()}:{_spoken_text(match[2])}"
    if UPLOAD.fullmatch(ref):
        return ref
    known = {text.lower(): name for name, label in SAMPLES.items() for text in (name, label, f"sample:{name}")}
    if ref.lower() in known:
        return f"sample:{known[ref.lower()]}"
    raise UserError(
        f"There is no sound {quoted(ref)}; please choose one from the list, sample:NAME, say:VOICE:TEXT or an upload."
    )


def label(ref: str) -> str:
    """A short name to show. It may hold a user's text. UserError: the reference is not well formed."""
    ref = check_ref(ref)
    kind, _, rest = ref.partition(":")
    if kind == "upload":
        return _uploads.label(ref) or f"Upload {rest[:8]}"
    if kind == "sample":
        return SAMPLES[rest]
    text = "".join(c for c in rest.partition(":")[2] if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"


def load(ref: str, rate: int = 24_000) -> np.ndarray:
    """The sound that `ref` names: (T,) float32 in [-1, 1], mono, `rate` samples a second, at most SOUND_SECONDS.

    It is shared and cannot be written to. UserError: malformed, an upload that is gone, or a text that espeak-ng does
    not speak."""
    from tokenlab.audio.sound_child import within_scale

    sound = _sound(check_ref(ref))
    wave = within_scale(resample(sound.wave, sound.rate, rate))  # between the samples it may go beyond full scale
    wave.flags.writeable = False
    return wave


def seconds_left_out(ref: str) -> float:
    """Seconds at the end that are not used, as far as the file says; inf when it does not say how many, 0: none."""
    return _sound(check_ref(ref)).left_out


def left_out(ref: str) -> str:
    """One sentence for the page when not all of a sound is used, else ""."""
    seconds = seconds_left_out(ref)
    if not seconds:
        return ""
    rest = "the rest is" if isinf(seconds) else f"{seconds:,.1f} seconds are"
    return f"Only the first {limits.SOUND_SECONDS:g} seconds are used; {rest} left out."


def register_bytes(data: bytes, name: str = "") -> str:
    """Keep an uploaded sound and give its reference, "upload:" and 16 hex digits of the SHA-256 of `data`.

    data: a file in one of FORMATS, at most limits.SOUND_BYTES; name: of the file. UserError: empty, too large, of
    another kind, damaged, too short, with values that are no numbers, or beyond what its header may claim."""
    _check_size(len(data))
    ref = reference(data)
    if _uploads.get(ref) is None:
        sound = _decoded(data)
        _uploads.put(ref, sound, sound.wave.nbytes, name)
    return ref


def register_path(path: str | Path) -> str:
    """register_bytes for a file on this machine, which no link or endpoint can name. UserError: it cannot be read."""
    return register_bytes(*read_path(path, _check_size))


def resample(wave: np.ndarray, old: int, new: int) -> np.ndarray:
    """A wave (T,) at `old` samples a second as (ceil(T * new / old),) at `new`, by a polyphase filter; may overshoot.

    Silence is taken to lie before and behind it."""
    if old == new:
        return wave
    from scipy.signal import resample_poly

    common = gcd(old, new)
    return resample_poly(wave, new // common, old // common)


def flac(wave: np.ndarray, rate: int) -> str:
    """A wave (T,) as base64 of a FLAC with 16 bits a sample; what lies beyond full scale is clipped.

    Comes back as rint(32768 * wave) / 32768. ValueError: not finite, not (T,)."""
    import numpy as np
    import soundfile

    if wave.ndim != 1 or not np.isfinite(wave).all():
        raise ValueError(f"a FLAC is made of finite values (T,), not {wave.shape}")
    file = io.BytesIO()
    samples = np.clip(np.rint(wave * 32_768.0), -32_768, 32_767).astype(np.int16)
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(file.getvalue()).decode()


def _sound(ref: str) -> _Sound:
    kind, _, rest = ref.partition(":")
    if kind == "sample":
        return _sample(rest)
    if kind == "say":
        return _spoken(*rest.split(":", 1))
    sound = _uploads.get(ref)
    if sound is None:
        raise UserError(
            "This sound is no longer here: uploads and recordings do not travel with links; please load it again."
        )
    return sound


@lru_cache
def _sample(name: str) -> _Sound:
    from tokenlab.audio import sound_child  # ours, so it needs no process of its own

    wave, rate, left_out = sound_child.read((FOLDER / f"{name}.flac").read_bytes())
    wave.flags.writeable = False
    return _Sound(wave, rate, left_out)


@lru_cache(maxsize=16)
def _spoken(voice: str, text: str) -> _Sound:
    from tokenlab.audio import corpus, sound_child

    spoken = corpus.say(text, voice)
    most = round(limits.SOUND_SECONDS * spoken.rate)
    wave = sound_child.within_scale(spoken.wave[:most].copy())
    wave.flags.writeable = False
    return _Sound(wave, spoken.rate, max(0, len(spoken.wave) - most) / spoken.rate)


def _spoken_text(text: str) -> str:
    """A text to be spoken, its white space made single spaces."""
    text = " ".join(text.split())
    if not text:
        raise UserError("There is nothing to say; please write a text behind say:VOICE:, such as say:de:Guten Tag.")
    if len(text) > limits.SPOKEN_CHARACTERS:
        raise UserError(
            f"This text has {len(text):,} characters; please shorten it to at most {limits.SPOKEN_CHARACTERS}."
        )
    limits.check_unicode(text)
    return text


def _decoded(data: bytes) -> _Sound:
    """A file of unknown origin, decoded in a child process (sound_child.py)."""
    import numpy as np

    from tokenlab.text.sandbox import ROOT, environment

    try:
        done = subprocess.run(
            [sys.executable, "-m", "tokenlab.audio.sound_child"],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the MP3 decoder warns there of every oddity
            cwd=ROOT,
            env=environment(),
            timeout=limits.CHILD_SECONDS,
            start_new_session=True,  # Ctrl-C in the app's terminal is not for the child
        )
    except subprocess.TimeoutExpired:
        raise UserError("This sound took too long to read and was stopped; please save it again as WAV.") from None
    if done.returncode < 0:  # a signal
        raise UserError("This sound made its decoder crash; please save it again, for instance as WAV.")
    line, _, samples = done.stdout.partition(b"\n")
    head = json.loads(line)
    if "refused" in head:
        raise UserError(head["refused"])
    if "failed" in head:
        raise RuntimeError(head["failed"])
    return _Sound(np.frombuffer(samples, "<f4"), head["rate"], head["left_out"])  # of bytes: not writable


def _check_size(count: int) -> None:
    if count == 0:
        raise UserError("This file is empty; please load a sound.")
    if count > limits.SOUND_BYTES:
        raise UserError(f"This file is larger than {limits.SOUND_BYTES // 1_000_000} MB; please shorten the sound.")


_uploads = Uploads(limits.UPLOADED_SOUNDS, limits.UPLOADED_SOUND_BYTES)
