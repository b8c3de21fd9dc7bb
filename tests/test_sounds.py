"""References to sounds, and files as people and attackers send them: right, or one sentence."""

import base64
import io
import struct
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab import limits, sounds
from tokenlab.audio import sound_child
from tokenlab.errors import UserError
from tokenlab.uploads import Uploads

KINDS = {  # name: format, coding, rate
    "WAV": ("WAV", "PCM_16", 44_100),
    "FLAC": ("FLAC", "PCM_16", 44_100),
    "Vorbis": ("OGG", "VORBIS", 44_100),
    "Opus": ("OGG", "OPUS", 48_000),
    "MP3": ("MP3", "MPEG_LAYER_III", 44_100),
}


def sine(rate, seconds=1.0, channels=1, hertz=500.0, peak=0.5):
    t = np.arange(round(rate * seconds)) / rate
    return np.repeat(peak * np.sin(2 * np.pi * hertz * t)[:, None], channels, axis=1)


def file(wave, rate, kind="WAV", coding=None):
    out = io.BytesIO()
    wave = wave if wave.ndim == 2 else wave[:, None]
    with soundfile.SoundFile(out, "w", rate, wave.shape[1], coding, format=kind) as written:
        for start in range(0, len(wave), 4096):  # its Vorbis encoder crashes on long blocks
            written.write(wave[start : start + 4096])
    return out.getvalue()


def noisy(kind, seconds=2.0):
    """A file in which nothing compresses away, so that half of the bytes are about half of the seconds."""
    form, coding, rate = KINDS[kind]
    return file(np.random.default_rng(0).uniform(-0.3, 0.3, round(rate * seconds)), rate, form, coding)


def wav(samples, rate=24_000, channels=1, bits=16, code=1, claimed=None):
    """A WAV written by hand; claimed: bytes of sound according to its header."""
    claimed = len(samples) if claimed is None else claimed
    step = channels * bits // 8
    fmt = struct.pack("<HHIIHH", code, channels, rate, rate * step % 2**32, step % 2**16, bits)
    head = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", claimed % 2**32)
    return b"RIFF" + struct.pack("<I", (len(head) + claimed) % 2**32) + head + samples


def flac_claiming(data, **fields):
    """A FLAC with other values in its STREAMINFO: 20 bits of rate, 3 of channels - 1, 5 of bits - 1, 36 of frames."""
    word = int.from_bytes(data[18:26], "big")
    for name, (low, size) in {"frames": (0, 36), "channels": (41, 3), "rate": (44, 20)}.items():
        if name in fields:
            word = word & ~((2**size - 1) << low) | fields[name] << low
    return data[:18] + word.to_bytes(8, "big") + data[26:]


def id3(size, body=b""):
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + body


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Every test has a memory of its own."""
    monkeypatch.setattr(sounds, "_uploads", Uploads(8, 10**8))


PCM = np.array([0, 16384, -16384, -32768] * 600, "<i2")
EXACT = np.tile(np.array([0, 0.5, -0.5, -1], np.float32), 600)
FULL = np.random.default_rng(0).uniform(-1, 1, 3_000).astype(np.float32)
RIGHT = {
    "16 bits": (wav(PCM.tobytes()), EXACT, 24_000),
    "8 bits": (wav(bytes([128, 192, 64, 0] * 600), bits=8), EXACT, 24_000),
    "24 bits": (wav(b"\0\0\0\0\0\x40\0\0\xc0\0\0\x80" * 600, bits=24), EXACT, 24_000),
    "32 bits": (wav((PCM.astype("<i4") << 16).tobytes(), bits=32), EXACT, 24_000),
    "32-bit float": (wav(EXACT.astype("<f4").tobytes(), bits=32, code=3), EXACT, 24_000),
    "64-bit float": (wav(EXACT.astype("<f8").tobytes(), bits=64, code=3), EXACT, 24_000),
    "extensible": (file(EXACT, 24_000, "WAVEX", "PCM_16"), EXACT, 24_000),
    "RF64": (file(EXACT, 24_000, "RF64", "PCM_16"), EXACT, 24_000),
    "FLAC": (file(EXACT, 24_000, "FLAC", "PCM_16"), EXACT, 24_000),
    "FLAC, 24 bits": (file(EXACT, 24_000, "FLAC", "PCM_24"), EXACT, 24_000),
    "FLAC behind an ID3 tag": (id3(5, b"hello") + file(EXACT, 24_000, "FLAC", "PCM_16"), EXACT, 24_000),
    "8 kHz": (wav(PCM.tobytes(), 8_000), EXACT, 8_000),
    "192 kHz": (wav(np.tile(PCM, 10).tobytes(), 192_000), np.tile(EXACT, 10), 192_000),
    "4 kHz": (wav(PCM.tobytes(), 4_000), EXACT, 4_000),
    "an odd rate": (wav(PCM.tobytes(), 23_977), EXACT, 23_977),
    "6 channels": (wav(np.repeat(PCM, 6).tobytes(), channels=6), EXACT, 24_000),
    "2 channels, averaged": (wav(np.array([[16384, 0], [0, -32768]] * 1500, "<i2").tobytes(), channels=2),
                             np.tile(np.float32([0.25, -0.5]), 1500), 24_000),
    "silence": (wav(bytes(6_000)), np.zeros(3_000, np.float32), 24_000),
    "clipping": (wav(np.array([32767] * 9 + [-32768] * 9, "<i2").tobytes() * 200),
                 np.tile(np.repeat(np.float32([32767 / 32768, -1]), 9), 200), 24_000),
    "float beyond full scale": (wav((4 * FULL).astype("<f4").tobytes(), bits=32, code=3),
                                FULL / np.abs(FULL).max(), 24_000),
    "float as large as 16-bit numbers": (wav((32768 * FULL).astype("<f4").tobytes(), bits=32, code=3),
                                         FULL / np.abs(FULL).max(), 24_000),
    "just long enough": (wav(PCM.tobytes()[:4_800]), EXACT, 24_000),
    "claims 2**31 frames": (wav(PCM.tobytes(), claimed=2**32 - 2), EXACT, 24_000),
    "claims one frame more": (wav(PCM.tobytes(), claimed=4_802), EXACT, 24_000),
    "FLAC that claims 2**36 - 1 frames": (
        flac_claiming(file(EXACT, 24_000, "FLAC", "PCM_16"), frames=2**36 - 1), EXACT, 24_000),
    "FLAC that does not say its length": (
        flac_claiming(file(EXACT, 24_000, "FLAC", "PCM_16"), frames=0), EXACT, 24_000),
}  # fmt: skip


@pytest.mark.parametrize(("data", "wave", "rate"), RIGHT.values(), ids=RIGHT)
def test_odd_sounds_come_out_right(data, wave, rate):
    read, its_rate, left_out = sound_child.read(data)
    assert read.dtype == np.float32 and (its_rate, left_out) == (rate, 0.0)
    np.testing.assert_allclose(read, wave, atol=1e-6)


@pytest.mark.parametrize("coding", ["ULAW", "ALAW"])
def test_telephone_codings(coding):
    wave = sine(8_000)
    read, rate, _ = sound_child.read(file(wave, 8_000, "WAV", coding))
    assert rate == 8_000 and np.abs(read - wave[:, 0]).max() < 0.02


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_kind_gives_the_sound_back(kind, channels):
    """The frames that it had, and a sine of 500 Hz as its loudest part."""
    form, coding, rate = KINDS[kind]
    read, its_rate, left_out = sound_child.read(file(sine(rate, 1.0, channels), rate, form, coding))
    assert (its_rate, len(read), left_out) == (rate, rate, 0.0)
    spectrum = np.abs(np.fft.rfft(read)) / (rate / 2)
    assert spectrum.argmax() == 500 and abs(spectrum[500] - 0.5) < 0.03


def test_a_file_read_forward_is_what_the_library_gives_at_once():
    for kind in KINDS:
        data = noisy(kind)
        whole, rate = soundfile.read(io.BytesIO(data), dtype="float32")
        read, its_rate, _ = sound_child.read(data)
        assert rate == its_rate
        np.testing.assert_array_equal(read, whole / max(1, np.abs(whole).max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.35, 0.5, 0.9])
def test_a_truncated_file_is_right_up_to_where_it_ends(kind, share):
    data = noisy(kind, 5)
    whole, rate, _ = sound_child.read(data)
    cut, its_rate, left_out = sound_child.read(data[: round(share * len(data))])
    assert (its_rate, left_out) == (rate, 0.0)
    # Ogg loses the pages, of a second or more, that are not whole; the others a block of the coding.
    lost = 1.6 if kind in ("Vorbis", "Opus") else 0.12
    assert share * 5 - lost < len(cut) / rate <= share * 5 + 0.01
    same = len(cut) - 2_500  # the last windows of a lossy coding lack the ones they overlap with
    np.testing.assert_allclose(cut[:same], whole[:same], atol=1e-4)


KIND = "save it as WAV, FLAC, OGG (Vorbis or Opus) or MP3"
SHORT = "shorter than 0.1 seconds"
FINITE = "not finite numbers"
ONE_NAN = np.where(np.arange(3_000) == 1_234, np.nan, 0.1)
ONE_INF = np.where(np.arange(3_000) == 1_234, np.inf, 0.1)
OGG_HEAD = b"OggS\0\2" + bytes(20) + b"\1\x50"
WRONG = {
    "text named .wav": (b"Dear reader, this is text.", KIND),
    "RIFF of something else": (b"RIFF\x24\0\0\0AVI LIST" + bytes(64), KIND),
    "WebM": (b"\x1a\x45\xdf\xa3" + bytes(64), KIND),
    "MP4": (b"\0\0\0\x20ftypM4A " + bytes(64), KIND),
    "AIFF": (file(EXACT, 24_000, "AIFF", "PCM_16"), KIND),
    "AIFF behind an ID3 tag": (id3(0) + file(EXACT, 24_000, "AIFF", "PCM_16"), KIND),
    "AU": (file(EXACT, 24_000, "AU", "PCM_16"), KIND),
    "W64": (file(EXACT, 24_000, "W64", "PCM_16"), KIND),
    "CAF": (file(EXACT, 24_000, "CAF", "PCM_16"), KIND),
    "MATLAB": (file(EXACT, 24_000, "MAT5", "PCM_16"), KIND),
    "Ogg of video": (OGG_HEAD + b"\x80theora" + bytes(73), KIND),
    "Ogg of Speex": (OGG_HEAD + b"Speex   " + bytes(72), KIND),
    "Ogg cut off in its first page": (b"OggS", KIND),
    "WAV with a rare coding": (file(EXACT, 24_000, "WAV", "IMA_ADPCM"), KIND),
    "WAV with GSM": (file(EXACT, 24_000, "WAV", "GSM610"), KIND),
    "MPEG layer II": (b"\xff\xfd\x90\x04" + bytes(5_000), KIND),
    "AAC": (b"\xff\xf1\x50\x80" + bytes(5_000), KIND),
    "ID3 tag alone": (id3(5, b"hello"), KIND),
    "ID3 tag that claims 256 MB": (id3(2**28 - 1, bytes(500)), KIND),
    "WAV header without sound": (wav(b""), SHORT),
    "0.05 s": (wav(PCM.tobytes()[:2_400]), SHORT),
    "claims that nothing follows": (wav(PCM.tobytes(), claimed=0), SHORT),
    "FLAC that claims 1,000 frames": (flac_claiming(file(EXACT, 24_000, "FLAC"), frames=1_000), SHORT),
    "NaN": (file(ONE_NAN, 24_000, "WAV", "FLOAT"), FINITE),
    "NaN in one of two channels": (
        file(np.stack([ONE_NAN, np.zeros(3_000)], axis=1), 24_000, "WAV", "DOUBLE"), FINITE),
    "infinite": (file(ONE_INF, 24_000, "WAV", "FLOAT"), FINITE),
    "64-bit float beyond 32 bits": (file(np.full(3_000, 1e300), 24_000, "WAV", "DOUBLE"), FINITE),
    "9 channels": (wav(np.repeat(PCM, 9).tobytes(), channels=9), "9 channels"),
    "1,000 channels": (wav(np.repeat(PCM, 1_000).tobytes(), channels=1_000), "1000 channels"),
    "3,999 Hz": (wav(PCM.tobytes(), 3_999), "resample it to 4,000 to 192,000"),
    "192,001 Hz": (wav(np.tile(PCM, 20).tobytes(), 192_001), "resample it to 4,000 to 192,000"),
    "2**31 - 1 Hz": (wav(PCM.tobytes(), 2**31 - 1), "resample it to 4,000 to 192,000"),
    "FLAC of 384 kHz": (flac_claiming(file(EXACT, 24_000, "FLAC"), rate=384_000), "resample it to 4,000 to 192,000"),
    "MP3 sync alone": (b"\xff\xfb\x90\x04", KIND),
    "MP3 frame that is cut off": (b"\xff\xfb\x90\x04" + bytes(50), "damaged"),
    "FLAC signature alone": (b"fLaC", "damaged"),
    "FLAC without frames": (noisy("FLAC")[:200], "damaged"),
    "Vorbis signature alone": (OGG_HEAD + b"\x01vorbis", "damaged"),
    "Opus header alone": (noisy("Opus")[:60], "damaged"),
    "WAV signature alone": (b"RIFF\x24\0\0\0WAVE", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "says"), WRONG.values(), ids=WRONG)
def test_what_is_no_sound_is_one_sentence(data, says):
    with pytest.raises(UserError) as caught:
        sound_child.read(data)
    sentence = str(caught.value)
    assert says in sentence and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 160


def test_an_empty_and_a_huge_file_are_refused_unread(tmp_path):
    with pytest.raises(UserError, match="This file is empty"):
        sounds.register_bytes(b"")
    with pytest.raises(UserError, match="larger than 20 MB"):
        sounds.register_bytes(bytes(limits.SOUND_BYTES + 1))
    with (tmp_path / "large.wav").open("wb") as out:
        out.truncate(10**12)  # a sparse file; reading it would fill the memory
    with pytest.raises(UserError, match="larger than 20 MB"):
        sounds.register_path(tmp_path / "large.wav")


@pytest.mark.parametrize("kind", ["MP3", "FLAC"])
def test_ten_minutes_are_cut_and_that_is_said(kind):
    form, coding, _ = KINDS[kind]
    ref = sounds.register_bytes(file(np.tile(sine(8_000), (600, 1)), 8_000, form, coding), "long")
    wave = sounds.load(ref, 8_000)
    assert len(wave) == 20 * 8_000 and abs(np.abs(wave).max() - 0.5) < 0.05
    assert sounds.seconds_left_out(ref) == 580
    assert sounds.left_out(ref) == "Only the first 20 seconds are used; 580.0 seconds are left out."


def test_a_length_that_is_not_there_is_not_repeated():
    """More than 20 seconds, and a header that claims 2**36 - 1 frames, or none: how much is left out is unknown."""
    data = file(np.tile(sine(4_000), (21, 1)), 4_000, "FLAC")
    assert sound_child.read(data)[2] == 1.0
    for claim in (2**36 - 1, 0):
        wave, _, left_out = sound_child.read(flac_claiming(data, frames=claim))
        assert len(wave) == 80_000 and left_out == np.inf
    ref = sounds.register_bytes(flac_claiming(data, frames=0))
    assert sounds.left_out(ref) == "Only the first 20 seconds are used; the rest is left out."


def test_exactly_as_long_as_allowed_leaves_nothing_out():
    ref = sounds.register_bytes(file(np.tile(sine(4_000), (20, 1)), 4_000))
    assert sounds.seconds_left_out(ref) == 0 and sounds.left_out(ref) == "" and len(sounds.load(ref, 4_000)) == 80_000


def test_memory_is_not_taken_for_what_a_header_claims():
    """In a process that may take 60 MB more."""
    code = """if True:
        import resource, sys
        from tests.test_sounds import flac_claiming, noisy, wav
        from tokenlab.audio import sound_child
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        bombs = [wav(bytes(9_000), claimed=2**32 - 2), flac_claiming(noisy("FLAC"), frames=2**36 - 1)]
        bombs.append(wav(bytes(640_000), channels=8, rate=192_000, claimed=2**32 - 64))
        resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)
        print([len(sound_child.read(bomb)[0]) for bomb in bombs])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[4500, 88200, 40000]", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for the child is a shell script")
@pytest.mark.parametrize(
    ("script", "says"),
    [("kill -SEGV $$", "made its decoder crash"), ("exec sleep 30", "took too long"), ("kill -KILL $$", "crash")],
)
def test_a_child_that_crashes_or_hangs_is_one_sentence(monkeypatch, tmp_path, script, says):
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(limits, "CHILD_SECONDS", 0.5)
    with pytest.raises(UserError, match=says):
        sounds.register_bytes(wav(PCM.tobytes()))


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for the child is a shell script")
def test_an_error_of_ours_in_the_child_is_not_blamed_on_the_file(monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text("""#!/bin/sh\necho '{"failed": "Traceback: KeyError"}'\n""")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(RuntimeError, match="KeyError"):
        sounds.register_bytes(wav(PCM.tobytes()))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_never_escape_as_another_error(data):
    whole = bytearray(SMALL[data.draw(st.sampled_from(sorted(SMALL)))])
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[: data.draw(st.integers(len(whole) // 2, len(whole)))]
    try:
        wave, rate, left_out = sound_child.read(bytes(whole))
    except UserError:
        return
    assert wave.dtype == np.float32 and wave.ndim == 1 and np.abs(wave).max() <= 1 and left_out >= 0
    assert limits.SOUND_SHORTEST * rate <= len(wave) <= limits.SOUND_SECONDS * rate


SMALL = {kind: noisy(kind, 0.3) for kind in KINDS}


def test_a_reference_is_the_hash_of_the_bytes_however_they_come(tmp_path):
    data = wav(PCM.tobytes())
    ref = f"upload:{sha256(data).hexdigest()[:16]}"
    (tmp_path / "a<b>.wav").write_bytes(data)
    assert sounds.register_bytes(data) == ref
    assert sounds.label(ref) == f"Upload {ref[7:15]}"
    sounds._uploads.entries.clear()
    assert sounds.register_path(tmp_path / "a<b>.wav") == ref
    assert sounds.label(ref) == f"a_b_.wav {ref[-4:]}"
    coded = base64.b64encode(data).decode()
    for kind in ("mpeg", "x-wav", "webm;codecs=opus"):  # whatever it claims
        assert sounds.check_ref(f"data:audio/{kind};base64,{coded}") == ref
    wave = sounds.load(ref, 24_000)
    np.testing.assert_array_equal(wave, EXACT)
    with pytest.raises(ValueError, match="read-only"):
        wave[0] = 1


def test_a_known_file_is_not_decoded_again(monkeypatch):
    ref = sounds.register_bytes(wav(PCM.tobytes()))
    monkeypatch.setattr(sys, "executable", "/no/such/program")
    assert sounds.register_bytes(wav(PCM.tobytes())) == ref


def test_an_upload_that_is_gone_says_so():
    assert sounds.check_ref("upload:0123456789abcdef") == "upload:0123456789abcdef"
    assert sounds.label("upload:0123456789abcdef") == "Upload 01234567"
    for ask in (sounds.load, sounds.seconds_left_out):
        with pytest.raises(UserError, match="please load it again"):
            ask("upload:0123456789abcdef")


@pytest.mark.parametrize(
    ("given", "ref", "label"),
    [
        ("sample:chord", "sample:chord", "Chord"),
        ("Sample:Speech-English", "sample:speech-english", "Speech, English"),
        ("pink noise", "sample:noise", "Pink noise"),
        ("drums", "sample:drums", "Drums"),
        ("say:de:Guten Tag", "say:de:Guten Tag", "Guten Tag"),
        ("SAY: EN-us : 10:30\n\tis the time ", "say:en-us:10:30 is the time", "10:30 is the time"),
        ("say:cmn:你好", "say:cmn:你好", "你好"),
        ("say:de:" + "a" * 41, "say:de:" + "a" * 41, "a" * 39 + "…"),
        ("say:de:<b>a\u202eb\x07</b>", "say:de:<b>a\u202eb\x07</b>", "<b>ab</b>"),
    ],
)
def test_references_and_what_people_type_for_them(given, ref, label):
    assert sounds.check_ref(given) == ref and sounds.label(given) == label
    assert sounds.check_ref(ref) == ref


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no sound"),
        ("sample:", "no sound"),
        ("sample:../../../../etc/passwd", "no sound"),
        ("/etc/passwd", "no sound"),
        ("file:///etc/passwd", "no sound"),
        ("https://example.org/a.wav", "no sound"),
        ("<img src=x onerror=alert(1)>", "no sound"),
        ("say:Guten Tag", "no sound"),
        ("say:../../x:Guten Tag", "no sound"),
        ("say:de:", "nothing to say"),
        ("say:de: \n", "nothing to say"),
        ("say:de:" + "a " * 151, "301 characters"),
        ("say:de:" + "a" * 1_000_000, "1,000,000 characters; please shorten it to at most 300"),
        ("say:de:a\ud800", "surrogate"),
        ("upload:0123", "no sound"),
        ("upload:0123456789ABCDEF", "no sound"),
        ("data:text/html;base64,PGI+", "no sound"),
        ("data:audio/wav,RIFF", "no sound"),
        ("data:audio/wav;base64,", "empty"),
        ("data:audio/wav;base64,A", "cut off"),
        ("data:audio/wav;base64,é", "cut off"),
        ("data:audio/wav;base64," + base64.b64encode(b"Dear reader").decode(), "save it as WAV"),
        ("data:audio/wav;base64," + "A" * 30_000_000, "larger than 20 MB"),
    ],
)
def test_a_bad_reference_is_one_sentence(given, says):
    with pytest.raises(UserError) as caught:
        sounds.check_ref(given)
    sentence = str(caught.value)
    assert says in sentence and "<" not in sentence and "\n" not in sentence
    assert len(sentence) < 250


def test_a_missing_file_is_one_sentence(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(UserError, match="cannot be read; please check the path"):
            sounds.register_path(path)


def test_every_sample_ships_and_together_they_are_small():
    assert {path.stem for path in sounds.FOLDER.glob("*.flac")} == {*sounds.SAMPLES}
    assert sum(path.stat().st_size for path in sounds.FOLDER.iterdir()) < 1_500_000
    for name in sounds.SAMPLES:
        about = soundfile.info(sounds.FOLDER / f"{name}.flac")
        assert (about.samplerate, about.channels, about.subtype) == (24_000, 1, "PCM_16"), name
        wave = sounds.load(f"sample:{name}")
        assert 2 <= len(wave) / 24_000 <= 6 and 0.69 < np.abs(wave).max() < 0.71 and wave.std() > 0.03, name
        assert sounds.seconds_left_out(f"sample:{name}") == 0 and not wave.flags.writeable


def test_the_tones_are_what_they_are_called():
    wave = sounds.load("sample:tones")
    for i in range(6):
        part = wave[i * 12_000 : (i + 1) * 12_000]
        assert np.abs(np.fft.rfft(part)).argmax() * 2 == 220 * 2**i  # bins of 2 Hz


def test_the_menu_holds_valid_references_with_distinct_labels():
    menu = sounds.offered()
    assert [sounds.check_ref(ref) for _, ref in menu] == [ref for _, ref in menu]
    assert [sounds.label(ref) for _, ref in menu] == [label for label, _ in menu]
    assert len({label for label, _ in menu}) == len(menu) == len(sounds.SAMPLES)


def test_a_sentence_is_spoken_at_the_rate_asked():
    pytest.importorskip("espeakng_loader")
    wave = sounds.load("say:de:Guten Tag")
    assert 0.4 < len(wave) / 24_000 < 2 and wave.dtype == np.float32 and 0.05 < np.abs(wave).max() <= 1
    assert abs(len(sounds.load("say:de:Guten Tag", 8_000)) - len(wave) / 3) <= 1
    np.testing.assert_array_equal(sounds.load("say: DE: Guten  Tag"), wave)
    with pytest.raises(UserError, match="no voice of that name"):
        sounds.load("say:nowhere:Guten Tag")


def test_a_long_sentence_is_cut_and_that_is_said():
    pytest.importorskip("espeakng_loader")
    ref = "say:en-us:" + "77 " * 60
    assert len(sounds.load(ref, 8_000)) == 160_000 and 0 < sounds.seconds_left_out(ref) < 90
    assert "seconds are left out" in sounds.left_out(ref)


@pytest.mark.parametrize(("old", "new"), [(44_100, 24_000), (8_000, 24_000), (192_000, 24_000), (23_977, 16_000)])
def test_resampling_keeps_a_tone_and_its_place(old, new):
    wave = sine(old, 0.5)[:, 0].astype(np.float32)
    got = sounds.resample(wave, old, new)
    want = sine(new, 0.5)[:, 0]
    assert got.dtype == np.float32 and len(got) == -(-len(wave) * new // old)
    inside = slice(new // 50, len(want) - new // 50)
    np.testing.assert_allclose(got[inside], want[inside], atol=0.005)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    wave = sine(48_000, 0.5, hertz=15_000)[:, 0]
    assert np.abs(sounds.resample(wave, 48_000, 24_000)[500:-500]).max() < 0.002 * 0.5
    assert sounds.resample(wave, 48_000, 48_000) is wave


def test_a_clipped_sound_is_not_clipped_again_when_it_is_resampled():
    square = np.sign(sine(44_100, 0.5, hertz=440)[:, 0])
    ref = sounds.register_bytes(file(square, 44_100, "WAV", "PCM_16"))
    raw = sounds.resample(sounds.load(ref, 44_100), 44_100, 24_000)
    assert np.abs(raw).max() > 1.05
    wave = sounds.load(ref, 24_000)
    assert np.abs(wave).max() == 1
    np.testing.assert_allclose(wave, raw / np.abs(raw).max(), atol=1e-6)


def test_flac_comes_back_to_16_bits():
    wave = np.array([0, 0.5, -1, 1, 2, -3, 1 / 32_768, 0.4 / 32_768] * 1_000)
    back, rate = soundfile.read(io.BytesIO(base64.b64decode(sounds.flac(wave, 24_000))), dtype="int16")
    assert rate == 24_000 and back[:8].tolist() == [0, 16_384, -32_768, 32_767, 32_767, -32_768, 1, 0]
    assert len(back) == 8_000
    for bad in (np.full(9, np.nan), np.zeros((9, 2))):
        with pytest.raises(ValueError, match="finite values"):
            sounds.flac(bad, 24_000)
