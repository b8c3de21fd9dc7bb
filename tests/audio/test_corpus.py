"""Speech from espeak-ng: what it says when, that it says the same each time, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tokenlab import limits
from tokenlab.audio import corpus
from tokenlab.audio.corpus import Spoken, say, variants, voices
from tokenlab.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def package():
    pytest.importorskip("espeakng_loader")


def texts(items):
    return [text for text, _, _ in items]


def test_hello():
    spoken = say("Hello world, it's 42 cats.")
    assert spoken.rate == 22_050
    assert spoken.wave.dtype == np.float32 and spoken.wave.ndim == 1
    assert 0.1 < np.abs(spoken.wave).max() <= 1
    assert texts(spoken.words) == ["Hello", "world", "it's", "42", "cats"]
    assert "".join(texts(spoken.phones)).startswith("həlˈoʊwˈɜːldɪts")
    assert 1.5 < len(spoken.wave) / spoken.rate < 3  # 6 words at 170 a minute take about 2.1 s


@pytest.mark.parametrize(
    "voice, text, words",
    [
        ("de", "Guten Tag, schöne Grüße!", ["Guten", "Tag", "schöne", "Grüße"]),
        ("hi", "नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ru", "Привет, мир", ["Привет", "мир"]),
        ("vi", "Xin chào các bạn", ["Xin", "chào", "các", "bạn"]),
        ("ar", "مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("en-us", "😀 so\r\n“U.S.A.”\t(na\u0308ive)", ["😀", "so", "U.S.A", "na\u0308ive"]),
        ("en-us", "Don't we — rock'n'roll 1,000.5 x²?", ["Don't", "we", "rock'n'roll", "1,000.5", "x", "²"]),
    ],
)
def test_words_as_written(voice, text, words):
    assert texts(say(text, voice).words) == words


@pytest.mark.parametrize("voice", ["en-us", "cmn", "ja", "fr"])
def test_times_are_in_order_and_within_the_sound(voice):
    spoken = say("One two. Drei; 4 and 你好 five", voice)
    seconds = len(spoken.wave) / spoken.rate
    for items in (spoken.words, spoken.phones):
        assert items
        edges = [time for _, start, end in items for time in (start, end)]
        assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= seconds
        assert all(start < end for _, start, end in items)
    assert all(ipa and not ipa.startswith("(") for ipa in texts(spoken.phones))
    starts, ends = {start for _, start, _ in spoken.phones}, {end for _, _, end in spoken.phones}
    assert {start for _, start, _ in spoken.words} <= starts and {end for _, _, end in spoken.words} <= ends


def test_times_point_at_the_sound():
    """Between two sentences there is silence, and in the words there is none."""
    spoken = say("Mama. Papa.")
    (_, start, end), (_, second, last) = spoken.words
    level = lambda a, b: np.sqrt(np.mean(spoken.wave[int(a * spoken.rate) : int(b * spoken.rate)] ** 2))  # noqa: E731
    assert second - end > 0.1
    assert min(level(start, end), level(second, last)) > 20 * level(end + 0.02, second - 0.02)


def test_the_same_each_time_whatever_came_between():
    """The library's own jitter and noise depend on all earlier calls and on the clock."""
    for voice, variant in [("en-us", ""), ("en-us", "f2"), ("cmn", "whisper"), ("de", "klatt")]:
        first = say("This is a test.", voice, variant=variant)
        say("Something else", "fr", 300, 90, "croak")
        second = say("This is a test.", voice, variant=variant)
        assert np.array_equal(first.wave, second.wave)
        assert (first.words, first.phones) == (second.words, second.phones)


def test_speed_pitch_and_variant():
    plain = say("A longer sentence shows it.")
    fast = say("A longer sentence shows it.", speed=340)
    assert 0.4 < len(fast.wave) / len(plain.wave) < 0.7  # twice as fast, pauses included

    def fundamental(spoken: Spoken) -> float:
        """Hz, of the longest sound: the largest value of its cepstrum from 60 to 400 Hz."""
        _, start, end = max(spoken.phones, key=lambda phone: phone[2] - phone[1])
        part = spoken.wave[int(start * spoken.rate) : int(end * spoken.rate)]
        cepstrum = np.fft.irfft(np.log(np.abs(np.fft.rfft(part * np.hanning(len(part)), 8192)) + 1e-3))
        low, high = spoken.rate // 400, spoken.rate // 60
        return spoken.rate / (low + np.argmax(cepstrum[low:high]))

    low, high = fundamental(say("Ah", pitch=10)), fundamental(say("Ah", pitch=90))
    assert high > 1.3 * low
    assert fundamental(say("Ah", variant="f2")) > 1.3 * fundamental(say("Ah"))


def test_markup_is_read_out_not_obeyed():
    """SSML, phoneme input and commands would change what is said, or read files."""
    assert len(say("<break time='60s'/> hi").wave) < 10 * 22_050
    assert "time" in texts(say("<break time='60s'/> hi").words)
    assert texts(say("[[h@l'oU]] you").phones) != texts(say("hello you").phones)


def test_voices_and_variants():
    names = voices()
    assert {"en-us", "de", "fr", "es", "it", "pl", "ru", "cmn", "hi", "tr", "sv", "vi"} <= {*names}
    assert len(names) == len({*names}) > 100
    assert {"f2", "m3", "Andy", "whisper"} <= {*variants()} and len(variants()) > 90
    assert np.array_equal(say("Bonjour", "fr").wave, say("Bonjour", "FR-fr").wave)  # the language is a name as well
    assert "fo" not in names  # the package has its voice, but no rules for its spelling


@pytest.mark.parametrize(
    "arguments, part",
    [
        ({"text": ""}, "nothing to say"),
        ({"text": " \n\t "}, "nothing to say"),
        ({"text": "..."}, "cannot speak this text"),
        ({"text": "a\x01b"}, "control characters"),
        ({"text": "a\x00b"}, "control characters"),
        ({"text": "a\x85b"}, "control characters"),
        ({"text": "a\ud800b"}, "half a character"),
        ({"text": "a" * (corpus.CHARACTERS + 1)}, "2,001 characters"),
        ({"text": "a", "voice": "tlh-xx"}, "no voice of that name"),
        ({"text": "a", "voice": "../../../../etc/passwd"}, "no voice of that name"),
        ({"text": "a", "voice": "en-us+f2"}, "no voice of that name"),
        ({"text": "a", "voice": ""}, "no voice of that name"),
        ({"text": "a", "variant": "../f2"}, "no variant of that name"),
        ({"text": "a", "speed": 0}, "speed must be from 80 to 450"),
        ({"text": "a", "pitch": 100}, "pitch must be from 0 to 99"),
        ({"text": "9 " * 1_000, "speed": 80}, "longer than 120 seconds"),
    ],
)
def test_refused(arguments, part):
    with pytest.raises(UserError, match=part):
        say(**arguments)


@pytest.mark.parametrize(
    "text",
    [
        "😀" * 300,
        "a" + "\u0301" * 299,
        "\u202e שלום \u202c" * 20,
        "9" * 300,
        "x" * 300,
        "龘" * 40,
        "[[" * 150,
        "ᄀ" * 300,
    ],
    ids=["emoji", "marks", "rtl", "digits", "one word", "rare", "brackets", "jamo"],
)
@pytest.mark.parametrize("voice", ["en-us", "cmn", "kl"])
def test_odd_texts_give_sound_or_a_sentence(text, voice):
    try:
        assert len(say(text, voice).wave)
    except UserError as error:
        assert str(error).endswith(".")


def test_a_crash_stays_in_the_child():
    """Unpatched espeak-ng 1.52 dies of this; a later one may speak it."""
    try:
        say("pneumono" * 37, "da")
    except UserError as error:
        assert str(error) == "espeak-ng crashed on this text; please change it."
    assert texts(say("Hej", "da").words) == ["Hej"]


def test_the_sentence_for_a_crash_and_for_a_hang(monkeypatch):
    voices()

    def crash(*arguments, **settings):
        return SimpleNamespace(returncode=-11, stdout=b"")

    def hang(command, *arguments, timeout, **settings):
        assert timeout == limits.CHILD_SECONDS
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(corpus.subprocess, "run", crash)
    with pytest.raises(UserError, match="crashed on this text"):
        say("Hello")
    monkeypatch.setattr(corpus.subprocess, "run", hang)
    with pytest.raises(UserError, match="took too long"):
        say("Hello")


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="^Spoken samples need the package espeakng-loader; please install it.$"):
        say("Hello")
