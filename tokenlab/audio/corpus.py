"""Speech without limit, with the time of every word and sound: espeak-ng, a formant synthesiser of 100 languages.

espeak-ng (github.com/espeak-ng/espeak-ng, GPL 3) is no part of this project: the optional package espeakng-loader
brings its shared library and data. Each sentence is spoken in a child process of its own (espeak_child.py), because
some texts crash the library: 37 times "pneumono" without a space in Danish, 300 digits in Greenlandic.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokenlab import limits
from tokenlab.errors import UserError

CHARACTERS = 2_000  # of one text; a user's is held against limits.SPOKEN_CHARACTERS before
SECONDS = 120  # of sound
SPEEDS = (80, 450)  # words a minute that espeak-ng can speak without time stretching
PITCHES = (0, 99)


@dataclass(frozen=True)
class Spoken:
    """wave: (T,) float32 in [-1, 1] at `rate` Hz.

    words: (text, start, end) in seconds, as written, from the start of a word's first phone to the end of its last;
    scripts without spaces come in the pieces that espeak-ng cuts them into. phones: (IPA, start, end), with the
    stress mark before a stressed vowel; espeak-ng gives at most 8 bytes of IPA for one. A gap is a pause."""

    wave: np.ndarray
    rate: int
    words: tuple[tuple[str, float, float], ...]
    phones: tuple[tuple[str, float, float], ...]


def say(text: str, voice: str = "en-us", speed: int = 170, pitch: int = 50, variant: str = "") -> Spoken:
    """`text` spoken by espeak-ng: the same arguments give the same samples.

    voice: one of voices(). speed: words a minute, SPEEDS. pitch: PITCHES. variant: one of variants(), "": none.
    UserError for an unknown voice or variant, a setting out of range, a text that is empty, too long, holds control
    characters or gives no sound, and when the package is missing."""
    known = _known()
    if voice.lower() not in known["voices"]:
        raise UserError("espeak-ng has no voice of that name; please use one such as en-us, de or hi.")
    if variant and variant not in known["variants"]:
        raise UserError("espeak-ng has no variant of that name; please use one such as f2, m3 or whisper.")
    for name, value, (low, high) in (("speed", speed, SPEEDS), ("pitch", pitch, PITCHES)):
        if not low <= value <= high:
            raise UserError(f"The {name} must be from {low} to {high}; please change it.")
    identifier = known["voices"][voice.lower()] + (f"+{variant}" if variant else "")
    question = {"text": _checked(text), "voice": identifier, "speed": int(speed), "pitch": int(pitch)}
    head, samples = _ask({**question, "seconds": SECONDS})
    wave = np.frombuffer(samples, "<i2").astype(np.float32) / 32768
    if head["cut"]:
        raise UserError(f"This text takes longer than {SECONDS} seconds to speak; please shorten it.")
    if not wave.any():
        raise UserError("espeak-ng cannot speak this text in this language; please change one of them.")
    return Spoken(wave, head["rate"], *_times(text, head["events"], len(wave), head["rate"]))


def voices() -> tuple[str, ...]:
    """Names of the voices, one for each language or accent: "af", ..., "en-us", ..., "yue-latn-jyutping"."""
    return tuple(sorted({Path(identifier).name.lower() for identifier in _known()["voices"].values()}))


def variants() -> tuple[str, ...]:
    """Names of the variants, which speak any language with another voice: "Alex", ..., "f2", ..., "zac"."""
    return tuple(sorted(_known()["variants"], key=str.lower))


@functools.cache
def _known() -> dict[str, Any]:
    """voices: {name in lower case: identifier}, by the name of the voice's file and by its language."""
    head, _ = _ask({})
    by_file = {Path(identifier).name.lower(): identifier for _, identifier in head["voices"]}
    by_language = {language.lower(): identifier for language, identifier in reversed(head["voices"])}
    return {
        "voices": {**by_language, **by_file},
        "variants": {identifier.removeprefix("!v/") for _, identifier in head["variants"]},
    }


def _checked(text: str) -> str:
    """The text itself; line ends and tabs are the only control characters in it (others steer espeak-ng)."""
    if not text.strip():
        raise UserError("There is nothing to say; please write a sentence.")
    if len(text) > CHARACTERS:
        raise UserError(f"The text has {len(text):,} characters; please shorten it to at most {CHARACTERS:,}.")
    limits.check_unicode(text)
    if any(unicodedata.category(character) == "Cc" and character not in "\t\n\r" for character in text):
        raise UserError("The text holds control characters; please delete them.")
    return text


def _times(text: str, events: list[list], samples: int, rate: int) -> tuple[tuple, tuple]:
    """(words, phones) of a Spoken from events (sample, text position from 1, length, IPA or None for a word)."""
    spans: list[list[int]] = []  # of the words in `text`: [start, end)
    owners: list[int] = []  # the word of each phone
    phones: list[tuple[str, int, int]] = []
    sounds = [(min(max(event[0], 0), samples), event[3]) for event in events if event[3] is not None]
    ends = iter([start for start, _ in sounds[1:]] + [samples])
    sounds = iter(sounds)
    for _, position, length, ipa in events:
        first = min(max(position - 1, 0), len(text))
        if ipa is not None:
            start, end = next(sounds)[0], next(ends)
            if ipa and not ipa.startswith("(") and end > start:  # "": a pause; "(en)": a change of language
                phones.append((ipa, start, end))
                owners.append(len(spans) - 1)
        elif spans and first < spans[-1][1]:  # one number is several words to espeak-ng
            spans[-1][1] = max(spans[-1][1], first + length)
        else:
            spans.append([first, first + length])
    words = []
    stops = [start for start, _ in spans[1:]] + [len(text)]
    for owner, (first, last) in enumerate(spans):
        while last < stops[owner] and not text[last].isspace():  # "it's" counts as "it" to espeak-ng
            last += 1
        own = [phone for phone, its in zip(phones, owners, strict=True) if its == owner]
        word = _bare(text[first:last])
        if word and own:
            words.append((word, own[0][1] / rate, own[-1][2] / rate))
    return tuple(words), tuple((ipa, start / rate, end / rate) for ipa, start, end in phones)


def _bare(word: str) -> str:
    """A word without the white space and punctuation around it; the word itself if nothing is left."""
    word = word.strip()
    inside = [i for i, character in enumerate(word) if unicodedata.category(character)[0] not in "PZC"]
    return word[inside[0] : inside[-1] + 1] if inside else word


def _ask(question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """The child's answer to one question. UserError when it gives none."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("Spoken samples need the package espeakng-loader; please install it.") from None
    child = Path(__file__).with_name("espeak_child.py")
    paths = [espeakng_loader.get_library_path(), espeakng_loader.get_data_path()]
    bounds = [str(round(limits.CHILD_SECONDS) + 2), str(limits.CHILD_MEMORY_BYTES)]
    try:
        # -I -S: none of the environment's settings, and none of the installed packages, which it does not need.
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(child), *paths, *bounds],
            input=json.dumps(question).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={key: os.environ[key] for key in ("SYSTEMROOT", "LD_LIBRARY_PATH") if key in os.environ},
            timeout=limits.CHILD_SECONDS,
            start_new_session=True,  # Ctrl-C in the app's terminal is not for the child
        )
    except subprocess.TimeoutExpired:
        raise UserError("espeak-ng took too long for this text and was stopped; please change it.") from None
    head, separator, samples = done.stdout.partition(b"\n")
    if done.returncode != 0 or not separator:
        raise UserError("espeak-ng crashed on this text; please change it.")
    return json.loads(head), samples
