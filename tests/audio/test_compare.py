"""The workbench on tiny codecs with random entries, where tokens and bits can be counted by hand, and once on those
that ship."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from tokenlab import sounds, views
from tokenlab.audio import codec, compare, mel, metrics, versions
from tokenlab.audio.codec import Codec, Config, MelCodec
from tokenlab.audio.compare import CODES, LEVELS, LISTEN, TRANSPLANT, run
from tokenlab.errors import UserError

SIZES = (8,) * 8
HELD_OUT = {"rvq8": [[4, 4, 0, 0, 0, 0, 0, 0], *[[1] * 8] * 7], "vq1": [[0, 8] + [0] * 30]}
SAMPLES = 4_800  # 0.2 s, 15 frames: too short for PESQ and STOI


def noise(samples=SAMPLES, seed=0):
    return (0.1 * np.random.default_rng(seed).normal(size=samples)).clip(-1, 1).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory, one_thread):
    """Two codecs without networks whose entries lie at random around a frame of noise."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    shapes = {"rvq8": Config(SIZES, encoder=0, decoder=0), "vq1": Config((32,), encoder=0, decoder=0)}
    models = {name: MelCodec(config).eval() for name, config in shapes.items()}
    for model in models.values():
        model.mean.copy_(torch.from_numpy(mel.log_mel(noise()).mean(0)))
        entries = [buffer for name, buffer in model.named_buffers() if name.endswith("_codebook.embed")]
        for level, entry in enumerate(entries):
            entry.normal_(std=0.5**level)
    codec.save(models, folder)
    (folder / codec.HELD_OUT).write_text(json.dumps({"seconds": 60, "counts": HELD_OUT}))
    return folder


@pytest.fixture(autouse=True)
def codecs(monkeypatch, folder):
    known = {name: Codec(name, folder, "torch") for name in codec.NAMES}
    monkeypatch.setattr(codec, "load", known.__getitem__)
    return known


@pytest.fixture(autouse=True)
def no_pesq(monkeypatch):
    """Each value of PESQ starts a process; `real` comes before this and measures it."""

    missing = metrics.Unavailable("the package pesq is not installed")
    monkeypatch.setattr(compare, "pesq_wb_each", lambda original, copies, rate: [missing for _ in copies])


@pytest.fixture(scope="module")
def refs():
    """Sounds of 0.2 s: noise, other noise that is longer, silence."""
    waves = {"a": noise(), "b": noise(2 * SAMPLES, 1), "silence": np.zeros(SAMPLES, np.float32)}
    return {name: register(wave) for name, wave in waves.items()}


def register(wave, rate=24_000):
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="FLOAT")
    return sounds.register_bytes(file.getvalue(), "sound.wav")


def filled(result):
    return [f.name for f in dataclasses.fields(result) if getattr(result, f.name) is not None]


def sound_of(track):
    return soundfile.read(io.BytesIO(base64.b64decode(track.flac)), dtype="float32")[0]


def grey(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def row(table, name):
    return dict(zip(table.columns, next(row for row in table.rows if row[0] == name), strict=True))


# --- listening


@pytest.fixture(scope="module")
def real():
    """A second and a half of the default sound on the codecs that ship: all parts of the stream."""
    ref = register(np.array(sounds.load("sample:speech-english-low"))[:36_000])
    return [views.result_to_json(result) for result in run(sound=ref)]


def test_a_run_on_the_real_codecs(real):
    assert [name for name, view in real[0].items() if view] == ["sounds"]
    last = real[-1]
    assert [name for name, view in last.items() if view] == ["sounds", "numbers", "quality", "distance"]
    assert last["sounds"] == real[0]["sounds"]  # the player is not disturbed
    columns, rows = last["numbers"]["columns"], {row[0]: row for row in last["numbers"]["rows"]}
    pesq, stoi, _, distance = (columns.index(compare.heading(name)) for name in compare.SHOWN)
    levels = [rows[f"rvq8, {k} level{'s' if k > 1 else ''}"] for k in range(1, 9)]
    assert [row[1] for row in levels] == [0.75 * k for k in range(1, 9)]
    assert levels[7][stoi] > levels[3][stoi] > levels[0][stoi] > rows["random codes"][stoi]
    distances = [row[distance] for row in levels]
    assert distances == sorted(distances, reverse=True)
    assert rows["not quantised"][distance] < distances[-1] < distances[0] < rows["random codes"][distance]
    if isinstance(rows["not quantised"][pesq], float):  # the package pesq is optional
        assert rows["not quantised"][pesq] > levels[7][pesq] > rows["random codes"][pesq]
    assert last["numbers"]["marks"] == {"3": "chosen", "11": "full", "12": "random"}
    assert all(0 < row[-1] < 20 for row in rows.values())


def test_the_versions_and_what_they_cost(refs, codecs):
    *_, result = run(LISTEN, refs["a"], levels=3, seed=1)
    names = [track.name for track in result.sounds.tracks]
    levels = ["rvq8, 1 level", *(f"rvq8, {k} levels" for k in range(2, 9))]
    opus = [name for name in names if name.startswith("Opus")]
    assert names == ["original", *levels, "vq1", *opus, "not quantised", "random codes"] and opus
    assert [track.heard for track in result.sounds.tracks[1:9]] == [*(tuple(range(k)) for k in range(1, 8)), ()]
    assert [spec.name for spec in result.sounds.tokens] == ["rvq8", "vq1", "random codes"]
    facts = {track.name: track.facts for track in result.sounds.tracks}
    # 15 frames of 3 tokens of log2(8) = 3 bits: 135 bits, 17 bytes; at 75 frames a second 675 bits.
    assert facts["rvq8, 3 levels"]["bytes"] == facts["random codes"]["bytes"] == 17
    assert facts["rvq8, 3 levels"]["kbps"] == 0.675 and facts["rvq8, 3 levels"]["tokens a second"] == 225
    assert facts["rvq8, 3 levels"]["% of 16-bit PCM"] == pytest.approx(100 * 17 / 9600)
    assert facts["vq1"]["bytes"] == math.ceil(15 * 5 / 8) and facts["original"]["kbps"] == 384
    assert facts["not quantised"]["bytes"] == 15 * 100 * 4 and facts["not quantised"]["role"] == "ceiling"
    assert row(result.numbers, "rvq8, 3 levels")["Size [bytes]"] == 17
    assert result.numbers.marks[2] == "chosen" and list(result.numbers.marks.values()) == ["chosen", "full", "random"]
    assert result.sounds.tracks[result.sounds.chosen].name == "rvq8, 3 levels"
    assert "rvq8, 3 levels is chosen: 0.675 kbps, 17 bytes where 16-bit PCM takes 9,600" in result.sounds.note


def test_what_is_heard_is_what_the_codec_decodes(refs, codecs):
    *_, result = run(LISTEN, refs["a"], levels=2, steps=5, seed=3)
    tracks = {track.name: track for track in result.sounds.tracks}
    slow = Codec("rvq8", codecs["rvq8"].folder, "torch", steps=5)
    ids = slow.encode(noise())
    assert np.abs(sound_of(tracks["original"]) - noise()).max() < 2**-15
    decoded = slow.decode(ids[:2], SAMPLES, seed=3)
    assert np.abs(sound_of(tracks["rvq8, 2 levels"]) - decoded).max() < 2**-15
    assert result.sounds.tokens[0].ids == tuple(map(tuple, ids.tolist()))
    assert result.sounds.tokens[0].seen[0] == tuple(HELD_OUT["rvq8"][0][i] for i in ids[0])
    assert result.sounds.tokens[0].counted == 8 and result.sounds.tokens[2].sizes == (8, 8)
    ceiling = mel.MelSynth(5, 3).wave(mel.log_mel(noise()))
    assert np.abs(sound_of(tracks["not quantised"]) - ceiling).max() < 2**-15
    drawn = np.random.default_rng(3).integers(0, 8, (8, 15))[:2]
    assert result.sounds.tokens[2].ids == tuple(map(tuple, drawn.tolist()))
    distance = compare.heading("Mel distance")
    assert row(result.numbers, "rvq8, 2 levels")[distance] == metrics.mel_distance(noise(), decoded, 24_000)


def test_what_cannot_be_measured_says_why_and_is_never_a_number(refs):
    *_, short = run(LISTEN, refs["a"])
    columns = short.numbers.columns
    pesq, stoi, waveform, distance = (columns.index(compare.heading(name)) for name in compare.SHOWN)
    assert {row[pesq] for row in short.numbers.rows} == {"none: the package pesq is not installed"}
    assert {row[stoi] for row in short.numbers.rows} == {"none: shorter than 0.41 s"}
    assert short.quality is None and short.distance is not None
    *_, silent = run(LISTEN, refs["silence"])
    assert {row[waveform] for row in silent.numbers.rows} == {"none: the original is silent"}
    assert all(isinstance(row[distance], float) for row in silent.numbers.rows)
    assert silent.sounds.tracks[0].gain == 1


def test_whichever_is_silent_is_named():
    silence = np.zeros(SAMPLES, np.float32)
    (found,), (other,) = compare.quality(silence, [noise()]), compare.quality(noise(), [silence])
    assert found["STOI"] == "none: the original is silent" and other["SI-SDR"] == "none: the copy is silent"


def test_every_heading_says_which_way_is_better():
    assert [compare.heading(name) for name in compare.SHOWN] == [
        *("PESQ-WB [MOS] ↑", "STOI ↑", "SI-SDR [dB] ↑", "Mel distance [Np] ↓"),
    ]


def test_quality_against_the_rate(refs):
    *_, result = run(LISTEN, refs["a"], levels=2)
    series = {one.name: one for one in result.distance.series}
    assert series["rvq8"].x == tuple(0.225 * k for k in range(1, 9)) and not series["rvq8"].points
    assert series["vq1"].points and series["vq1"].x == (0.375,) and series["random codes"].x == (0.45,)
    assert len(series["not quantised"].x) == 2 and len(set(series["not quantised"].y)) == 1
    column = result.numbers.columns.index(compare.heading("Mel distance"))
    assert series["rvq8"].y == tuple(row[column] for row in result.numbers.rows[:8])


def test_a_cut_sound_says_so(monkeypatch, refs):
    monkeypatch.setattr(sounds, "left_out", lambda ref: "Only the first 20 seconds are used.")
    for part in (LISTEN, LEVELS, TRANSPLANT):
        *_, result = run(part, refs["a"], refs["b"])
        assert "Only the first 20 seconds are used." in result.sounds.note
        assert result.sounds.note.count("Only") == 1
    assert "Only the first 20 seconds" in next(run(CODES, refs["a"])).here.note


# --- one more codec


class Other:
    """A codec at 16 kHz with 4 levels of 1 kbps each, which gives back what it gets."""

    name, sample_rate, frame_rate, sizes = "hub:some/codec", 16_000, 100.0, (1024,) * 4

    def encode(self, wave):
        self.wave = wave
        return np.zeros((4, math.ceil(len(wave) / 160)), np.int64)

    def decode(self, ids, samples=None):
        self.kept = len(ids)
        return self.wave[:samples]


def test_one_more_codec_has_about_the_same_rate(monkeypatch, refs):
    from tokenlab.models import audio

    other = Other()
    monkeypatch.setattr(audio, "codec", {"hub:some/codec": other}.__getitem__)
    # rvq8 has 8 * 225 bits a second, 1.8 kbps; 2 kbps come nearest.
    *_, without, result = run(LISTEN, refs["a"], levels=8, hub=True, codec="hub:some/codec")
    assert other.kept == 2
    assert [track.name for track in result.sounds.tracks][:-1] == [track.name for track in without.sounds.tracks]
    found = row(result.numbers, "some/codec, 2 of 4 levels")
    assert found["Rate [kbps]"] == 2 and found["Size [bytes]"] == 20 * 20 / 8 and found["Tokens a second"] == 200
    assert found[compare.heading("SI-SDR")] > 2  # noise has a third of its power above 8 kHz
    assert result.sounds.tracks[-1].tokens == 3 and result.sounds.tokens[3].seen == ()


def test_a_codec_that_cannot_be_had_is_a_sentence_and_leaves_the_rest(monkeypatch, refs):
    from tokenlab.models import audio

    def refuse(name):
        raise UserError("The Hub does not answer.")

    monkeypatch.setattr(audio, "codec", refuse)
    seen = []
    with pytest.raises(UserError, match="does not answer"):
        for result in run(LISTEN, refs["a"], hub=True, codec="hub:some/codec"):
            seen.append(filled(result))
    assert seen[0] == ["sounds"] and seen[-1] == ["sounds", "numbers", "distance"]
    *_, bundled = run(LISTEN, refs["a"], hub=True, codec="vq1")  # stands there anyway
    assert [track.name for track in bundled.sounds.tracks].count("vq1") == 1


# --- what the views are made of


def test_loudness_is_that_of_the_standard():
    """ITU-R BS.1770-5: a sine of 997 Hz at full scale has -3.01 LKFS, of which -0.691 dB is a constant."""
    t = np.arange(24_000) / 24_000
    assert 20 * math.log10(versions.loudness(np.sin(2 * np.pi * 997 * t))) - 0.691 == pytest.approx(-3.01, abs=0.01)
    low, high = (versions.loudness(np.sin(2 * np.pi * hertz * t)) for hertz in (20, 4_000))
    assert low < 0.3 * high


def test_gains_make_tracks_equally_loud():
    made = [versions.Version("a", noise()), versions.Version("b", 0.25 * noise()), versions.Version("c", 20 * noise())]
    view = versions.sounds_view("T", [*made, versions.Version("d", np.zeros(SAMPLES))], "")
    assert [track.gain for track in view.tracks[:2]] == [1, pytest.approx(4, rel=1e-3)]
    assert view.tracks[3].gain == 1 and versions.gain(1, 1e-9) == 10 and versions.gain(1, 1e9) == 0.1
    loud = view.tracks[2]
    assert np.abs(sound_of(loud)).max() == pytest.approx(1, abs=2e-5)  # made softer, not clipped
    assert loud.gain * versions.loudness(sound_of(loud)) == pytest.approx(versions.loudness(noise()), rel=1e-3)


def test_a_sine_at_full_scale_is_black_and_in_its_band():
    wave = np.sin(2 * np.pi * 3_000 * np.arange(24_000) / 24_000).astype(np.float32)
    frames = mel.log_mel(wave)
    band = int(np.abs(mel.hertz() - 3_000).argmin())
    assert -12 < versions.decibels(frames)[37].max() <= 0 and versions.range_of(frames) == (-80, 0)
    image = grey(versions.spectrogram(frames, (-80, 0)))
    assert image.shape == (100, 75) and abs(int(image[:, 37].argmax()) - (99 - band)) <= 1
    assert versions.range_of(mel.log_mel(np.zeros(100))) == (-140, -60)


# --- levels


def test_levels_silenced_and_alone(refs, codecs):
    (result,) = run(LEVELS, refs["a"], level=3, seed=1)
    assert filled(result) == ["sounds", "added", "kept", "by_level"]
    tracks = {track.name: track for track in result.sounds.tracks}
    assert {name: track.heard for name, track in tracks.items()} == {
        "all 8 levels": (),
        "without level 3": (0, 1, 3, 4, 5, 6, 7),
        "only level 3": (2,),
        "levels 1 to 3": (0, 1, 2),
        "levels 1 to 2": (0, 1),
        "original": (),
    }
    assert result.sounds.tracks[result.sounds.chosen].name == "without level 3"
    rvq8 = codecs["rvq8"]
    ids = rvq8.encode(noise())
    silenced = ids.copy()
    silenced[2] = -1
    assert np.abs(sound_of(tracks["without level 3"]) - rvq8.decode(silenced, SAMPLES, seed=1)).max() < 2**-15
    assert [track.name for track in next(run(LEVELS, refs["a"], level=1)).sounds.tracks] == [
        *("all 8 levels", "without level 1", "only level 1", "original"),
    ]


def test_what_a_level_adds_is_its_entry(codecs, refs):
    """Without a context network, level k adds the entry itself."""
    (result,) = run(LEVELS, refs["a"], level=1)
    rvq8 = codecs["rvq8"]
    ids, frames = rvq8.encode(noise()), mel.log_mel(noise())
    decibels = 20 / math.log(10) * np.abs(rvq8.codebook(4)[ids[4]]).mean(0)
    assert result.added.rows == tuple(f"level {k}" for k in range(2, 9))
    assert np.allclose(result.added.values[3], decibels, atol=1e-3)
    rows = {row[0]: row for row in result.by_level.rows}
    assert rows["level 5"][2] == pytest.approx(decibels.mean(), rel=1e-4)
    mean = rvq8.frames(np.full_like(ids, -1))
    assert np.allclose(mean, mean[:1]) and result.kept.series[0].y[0] == pytest.approx(np.abs(frames - mean).mean())
    assert rows["level 8"][3] == pytest.approx(float(np.abs(frames - rvq8.frames(ids)).mean()))
    assert [row[3] for row in result.by_level.rows] == list(result.kept.series[0].y[1:])
    first, random = result.kept.series
    assert random.y[0] == pytest.approx(first.y[0]) and random.y[8] == pytest.approx(first.y[8])
    assert all(low <= y <= high for low, y, high in zip(random.low[1:8], random.y[1:8], random.high[1:8], strict=True))
    assert result.by_level.marks == {0: "chosen"}


# --- transplant


def test_levels_of_two_sounds(refs, codecs):
    (result,) = run(TRANSPLANT, refs["a"], refs["b"], first=3, seed=2)
    assert filled(result) == ["sounds", "heard", "nearness"]
    rvq8 = codecs["rvq8"]
    a, b = rvq8.encode(noise()), rvq8.encode(noise(2 * SAMPLES, 1)[:SAMPLES])  # cut to the shorter one
    ids = [np.array(spec.ids) for spec in result.sounds.tokens]
    assert np.array_equal(ids[0], a) and np.array_equal(ids[1], b)
    assert np.array_equal(ids[2], [*a[:3], *b[3:]]) and np.array_equal(ids[3], [*b[:3], *a[3:]])
    assert np.array_equal(ids[4][:3], a[:3]) and not np.array_equal(ids[4][3:], a[3:])
    assert [track.name for track in result.sounds.tracks] == [
        *("A", "B", "levels 1 to 3 of A, levels 4 to 8 of B", "levels 1 to 3 of B, levels 4 to 8 of A"),
        "levels 1 to 3 of A, levels 4 to 8 of random codes",
    ]
    mixed = rvq8.decode(np.concatenate((a[:3], b[3:])), SAMPLES, seed=2)
    assert np.abs(sound_of(result.sounds.tracks[2]) - mixed).max() < 2**-15
    to_a, to_b, random = (one.y for one in result.nearness.series)
    apart = float(np.abs(rvq8.frames(a) - rvq8.frames(b)).mean())
    assert to_a[0] == to_b[8] == pytest.approx(apart) and to_a[8] == to_b[0] == random[8] == 0
    assert f"lie {apart:.2f} Np apart" in result.heard.text and f"{to_a[3]:.2f} Np from A" in result.heard.text
    assert f"{random[3]:.2f} Np from A" in result.heard.text and "0.20 s" in result.sounds.note


def test_a_sound_under_itself_is_itself(refs):
    for first in (0, 3, 8):
        (result,) = run(TRANSPLANT, refs["a"], refs["a"], first=first)
        tracks = result.sounds.tracks
        assert tracks[1].flac == tracks[0].flac == tracks[2].flac and "the same tokens" in result.heard.text
        assert set(result.nearness.series[0].y) == {0}


@pytest.mark.parametrize(("first", "same"), [(0, "B"), (8, "A")])
def test_the_ends_of_the_slider(refs, first, same):
    (result,) = run(TRANSPLANT, refs["a"], refs["b"], first=first)
    tracks = {track.name: track.flac for track in result.sounds.tracks}
    assert tracks[f"{same}, all levels"] == tracks[same]
    assert ("Listen for A" in result.heard.text) == (same == "A")


def test_words_follow_the_numbers():
    near = compare.what_to_hear((2.0, 1.5, 0.5, 0.0), (0.0, 0.9, 1.6, 2.0), (3.0, 1.4, 0.4, 0.0), 1)
    assert "from m = 2 on it is nearer to A" in near.text and "Listen for B" in near.text
    assert "1.40 Np from A: the later levels of B change A no less than codes drawn at random do" in near.text
    far = compare.what_to_hear((2.0, 1.5, 0.5, 0.0), (0.0, 0.9, 1.6, 2.0), (3.0, 1.6, 0.6, 0.0), 2)
    assert "0.60 Np from A: the later levels of B change A less than codes" in far.text and "Listen for A" in far.text


# --- codebooks


def test_use_of_the_codebooks(refs, codecs):
    (result,) = run(CODES, refs["a"], seed=1)
    assert filled(result) == ["held_out", "ranks", "here", "ranks_here"]
    assert [row[0] for row in result.held_out.rows] == [*(f"rvq8, level {k}" for k in range(1, 9)), "vq1"]
    # Two of 8 codes, equally often: 1 bit of 3. Then 8 of 8. vq1: one of 32.
    assert result.held_out.rows[0][1:] == pytest.approx((8, 8, 25, 6, 2, 1, 3, 100 * 2 / 3))
    assert result.held_out.rows[1][1:] == pytest.approx((8, 8, 100, 0, 8, 3, 3, 0))
    assert result.held_out.rows[8][1:] == pytest.approx((32, 8, 100 / 32, 31, 1, 0, 5, 100))
    # 75 frames of 1 + 7 * 3 bits, and of nothing at all
    assert "rvq8 1.65 instead of 1.8 kbps, vq1 0 instead of 0.375 kbps" in result.held_out.note
    ids = codecs["rvq8"].encode(noise())
    here = {row[0]: row[1:] for row in result.here.rows}
    assert list(here)[8:] == ["rvq8, drawn at random", "vq1", "vq1, drawn at random"]
    assert result.here.marks == {8: "random", 10: "random"}
    counts = np.bincount(ids[0], minlength=8)
    shares = counts[counts > 0] / 15
    bits = -(shares * np.log2(shares)).sum()
    coded = -np.log2((np.array(HELD_OUT["rvq8"][0])[ids[0]] + 1) / 16).mean()
    assert here["rvq8, level 1"] == pytest.approx((15, len(set(ids[0])), 2**bits, bits, coded))
    drawn = np.random.default_rng(1).integers(0, 8, (8, 15))[7]
    assert here["rvq8, drawn at random"][:2] == (15, len(set(drawn)))
    assert here["rvq8, drawn at random"][4] == pytest.approx(3)  # a code for equal use


def test_rank_and_frequency():
    curve = versions.rank_curve("c", np.array([0, 1, 6, 0, 3]))
    assert curve.x == (1, 2, 3) and curve.y == pytest.approx((60, 30, 10))
    long = versions.rank_curve("c", np.arange(1, 1025))
    assert len(long.x) <= versions.RANKS and (long.x[0], long.x[-1]) == (1, 1024)
    assert compare.even_curve(4).y == (25, 25)


# --- sounds as they come


@pytest.mark.parametrize("part", compare.PARTS)
@pytest.mark.parametrize(("samples", "rate"), [(2_400, 24_000), (1_600, 8_000)])
def test_a_tenth_of_a_second_and_a_telephone(part, samples, rate):
    ref = register(noise(samples), rate)
    *_, result = run(part, ref, ref)
    assert json.dumps(views.result_to_json(result), allow_nan=False)
    if result.sounds:
        assert {len(sound_of(track)) for track in result.sounds.tracks} == {samples * 24_000 // rate}


@pytest.mark.parametrize("part", compare.PARTS)
def test_silence_warns_of_nothing(part, refs, recwarn):
    *_, result = run(part, refs["silence"], refs["a"])
    assert json.dumps(views.result_to_json(result), allow_nan=False)
    assert [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)] == []


def test_without_weights_there_is_a_sentence(monkeypatch, tmp_path, refs):
    monkeypatch.setattr(codec, "load", lambda name: Codec(name, tmp_path))
    with pytest.raises(UserError, match="recipes/codec.py"):
        next(run(LISTEN, refs["a"]))
