"""Metrics of sounds: values that can be worked out by hand, what they must not depend on, and when there is none."""

from __future__ import annotations

import importlib.util
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from tokenlab import sounds
from tokenlab.audio import corpus, metrics
from tokenlab.audio.metrics import METRICS, Unavailable, mel_distance, multi_scale_mel_distance, pesq_wb, si_sdr, stoi

RATE = 24_000
needs_pesq = pytest.mark.skipif(importlib.util.find_spec("pesq") is None, reason="pesq is optional")
OF_SPEECH = [pytest.param(pesq_wb, marks=needs_pesq), stoi]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    pytest.importorskip("espeakng_loader")
    spoken = corpus.say("The quick brown fox jumps over the lazy dog.")
    return metrics._at(spoken.wave, spoken.rate, RATE)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(samples)


def tone(hertz: float, seconds: float = 1.0, phase: float = 0.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(RATE * seconds)) / RATE + phase)


# --- the same sound, and a softer copy


@pytest.mark.parametrize(
    "metric, best",
    [
        pytest.param(pesq_wb, 4.644, marks=needs_pesq),  # P.862.2: 0.999 + 4 / (1 + e^(3.8224 - 1.3669 * 4.5))
        (stoi, 1.0),
        (mel_distance, 0.0),
        (multi_scale_mel_distance, 0.0),
    ],
)
def test_an_exact_copy_is_best(speech, metric, best):
    assert metric(speech, speech, RATE) == pytest.approx(best, abs=5e-4)


@pytest.mark.parametrize("metric", [*OF_SPEECH, si_sdr])
def test_level_plays_no_part(speech, metric):
    copy = speech + noise(len(speech)) * 0.1
    assert metric(speech, 0.25 * copy, RATE) == pytest.approx(metric(speech, copy, RATE), abs=0.02)


def test_more_noise_is_worse(speech):
    levels = [0.001, 0.01, 0.1, 1.0]
    for metric in METRICS.values():
        if metric.measure is pesq_wb and importlib.util.find_spec("pesq") is None:
            continue
        values = [metric.measure(speech, speech + level * noise(len(speech)), RATE) for level in levels]
        assert values == sorted(values, reverse=metric.direction == "higher is better")
        assert len({*values}) == len(levels)


@pytest.mark.parametrize("metric", [*OF_SPEECH, mel_distance, multi_scale_mel_distance])
def test_the_rate_plays_little_part(speech, metric):
    copy = speech + 0.1 * noise(len(speech))
    at_16 = [metrics._at(wave, RATE, 16_000) for wave in (speech, copy)]
    # Above 8 kHz, 16,000 samples a second hold nothing: a third of what the mel distances compare.
    tolerance = 0.02 if metric in (pesq_wb, stoi) else 0.5 * metric(speech, copy, RATE)
    assert metric(*at_16, 16_000) == pytest.approx(metric(speech, copy, RATE), abs=tolerance)


# --- each on its own


@pytest.mark.parametrize("ratio", [40, 20, 0, -20])
def test_si_sdr_of_a_known_ratio(ratio):
    """Sine and cosine of whole periods are orthogonal, so the ratio is that of their powers."""
    copy = tone(100) + 10 ** (-ratio / 20) * tone(100, phase=np.pi / 2)
    assert si_sdr(tone(100), copy, RATE) == pytest.approx(ratio, abs=1e-9)


def test_si_sdr_by_hand():
    """s = (1, 0), c = (3, 4): a = 3, signal 9, error 16; and a = 1, signal 2, error 2 for s = (1, 1), c = (2, 0)."""
    assert si_sdr(np.array([1.0, 0]), np.array([3.0, 4]), RATE) == pytest.approx(10 * np.log10(9 / 16))
    assert si_sdr(np.array([1.0, 1]), np.array([2.0, 0]), RATE) == pytest.approx(0)


def test_si_sdr_knows_no_phase():
    """The same tone an eighth of a period later sounds the same, and gets 0 dB; a quarter later it gets nothing."""
    assert si_sdr(tone(100), tone(100, phase=np.pi / 4), RATE) == pytest.approx(0, abs=1e-9)
    assert si_sdr(tone(100), tone(100, phase=np.pi / 2), RATE) < -200


@pytest.mark.parametrize("factor", [1, 2, -1, 1 / 3, 1e-3])
def test_si_sdr_of_a_scaled_copy_is_infinite(speech, factor):
    wave = speech.astype(np.float64)
    with pytest.raises(Unavailable, match="^infinite: the copy is exact$"):
        si_sdr(wave, factor * wave, RATE)
    assert 120 < si_sdr(wave, (wave / 3).astype(np.float32), RATE) < 180  # what float32 rounds off is an error


@pytest.mark.parametrize("metric", [mel_distance, multi_scale_mel_distance])
def test_mel_distance_is_the_log_of_the_gain(metric):
    """Half the amplitude is ln 2 less in each band, as long as all are above the floor; both ways round."""
    original = noise(RATE)
    assert metric(original, original / 2, RATE) == pytest.approx(np.log(2), abs=1e-4)
    assert metric(original / 2, original, RATE) == pytest.approx(np.log(2), abs=1e-4)


def test_mel_distances_of_silence():
    silence = np.zeros(RATE)
    for metric in (mel_distance, multi_scale_mel_distance):
        assert metric(silence, silence, RATE) == 0
        assert metric(silence, noise(RATE), RATE) > 3
    # A sine of full scale has magnitude 1 in the middle of its band, and ln 1 - ln 1e-5 is 11.5 Np.
    full = [metrics._magnitudes(tone(3_000), window) for window, _ in metrics.SCALES]
    assert [float(np.median(magnitudes.max(1))) for magnitudes in full] == pytest.approx([1] * 4, abs=1e-3)


@pytest.mark.parametrize("samples", [1, 255, 256, 6_000, 6_001])
def test_frames_of_the_scales(samples):
    for window, bands in metrics.SCALES:
        assert metrics._magnitudes(np.ones(samples), window).shape == (-(-samples // (window // 4)), window // 2 + 1)
        filters = metrics._filters(window, bands)
        assert filters.shape == (window // 2 + 1, bands) and np.allclose(filters.sum(0), 1)


def test_stoi_against_its_definition():
    """The paper's equations, written out for a sound without silence at 10 kHz, where nothing is resampled or cut."""
    rng = np.random.default_rng(0)
    original = noise(10_000)
    copy = original * (1 + 0.8 * np.sin(np.arange(10_000) / 500)) + 0.05 * rng.standard_normal(10_000)

    def bands(wave):
        window = np.hanning(258)[1:-1]
        # Removing silence adds windowed frames up, half a window apart, and leaves out the last one.
        frames = [window * wave[i : i + 256] for i in range(0, len(wave) - 256, 128)]
        wave = np.zeros(128 * (len(frames) + 1))
        for i, frame in enumerate(frames):
            wave[128 * i : 128 * i + 256] += frame
        spectrum = [np.abs(np.fft.rfft(window * wave[i : i + 256], 512)) ** 2 for i in range(0, len(wave) - 256, 128)]
        hertz = np.arange(257) * 10_000 / 512
        edges = [np.abs(hertz - 150 * 2 ** ((2 * k - 1) / 6)).argmin() for k in range(16)]
        power = np.array(spectrum)
        return np.sqrt([power[:, a:b].sum(1) for a, b in zip(edges, edges[1:], strict=False)])

    x, y = bands(original), bands(copy)
    values = []
    for m in range(30, x.shape[1] + 1):
        for a, b in zip(x[:, m - 30 : m], y[:, m - 30 : m], strict=True):
            b = np.minimum(b * np.linalg.norm(a) / np.linalg.norm(b), a * (1 + 10 ** (15 / 20)))
            values.append(np.corrcoef(a, b)[0, 1])
    assert 0.2 < np.mean(values) < 0.95
    assert stoi(original, copy, 10_000) == pytest.approx(np.mean(values), abs=1e-6)


def test_the_longer_one_is_cut():
    original = noise(RATE)
    for metric in (stoi, mel_distance, multi_scale_mel_distance):
        assert metric(original, original[:-5_000], RATE) == pytest.approx(metric(original, original, RATE))


# --- no value


@pytest.mark.parametrize("metric", [*OF_SPEECH, si_sdr])
def test_silence_has_no_value(metric):
    silence = np.zeros(RATE)
    with pytest.raises(Unavailable, match="^the original is silent$"):
        metric(silence, noise(RATE), RATE)
    with pytest.raises(Unavailable, match="^the original is silent$"):
        metric(noise(RATE) * 1e-6, noise(RATE), RATE)
    with pytest.raises(Unavailable, match="^the copy is silent$"):
        metric(noise(RATE), silence, RATE)


@pytest.mark.parametrize(
    "metric, reason",
    [pytest.param(pesq_wb, "shorter than 0.25 s", marks=needs_pesq), (stoi, "shorter than 0.41 s")],
)
def test_a_short_sound_has_no_value(metric, reason):
    wave = noise(round(0.05 * RATE))
    with pytest.raises(Unavailable) as unavailable:
        metric(wave, wave, RATE)
    assert str(unavailable.value) == reason


@pytest.mark.filterwarnings("ignore:Not enough STFT frames")
def test_stoi_needs_enough_that_is_not_silent():
    wave = noise(RATE)
    wave[4_000:] = 0
    with pytest.raises(Unavailable, match="less than 0.41 s that are not silent"):
        stoi(wave, noise(RATE, seed=1), RATE)
    shortest = round(0.41 * RATE)
    assert stoi(noise(shortest), noise(shortest), RATE) == pytest.approx(1)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_has_no_value(metric, value):
    if metric.measure is pesq_wb:
        pytest.importorskip("pesq")
    broken = noise(RATE)
    broken[100] = value
    with pytest.raises(Unavailable, match="the copy holds values that are no numbers"):
        metric.measure(noise(RATE), broken, RATE)
    with pytest.raises(Unavailable, match="there is no sound"):
        metric.measure(noise(RATE), np.zeros(0), RATE)


def test_si_sdr_of_nothing_in_common():
    with pytest.raises(Unavailable, match="minus infinite"):
        si_sdr(np.array([1.0, 0]), np.array([0.0, 1]), RATE)


@needs_pesq
def test_pesq_without_speech():
    """0.1 s of noise now and then is no utterance: P.862 wants 0.2 s at least."""
    bursts = noise(2 * RATE) * (np.arange(2 * RATE) % 12_000 < 2_400)
    with pytest.raises(Unavailable, match="no speech found in the original"):
        pesq_wb(bursts, bursts, RATE)


def test_pesq_that_crashes_hangs_or_is_missing(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(metrics.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=-11, stdout=b""))
    with pytest.raises(Unavailable, match="its program crashed on this pair"):
        pesq_wb(noise(RATE), noise(RATE), RATE)

    def hang(command, timeout, **settings):
        raise subprocess.TimeoutExpired(command, timeout)  # its output so far is None

    monkeypatch.setattr(metrics.subprocess, "run", hang)
    with pytest.raises(Unavailable, match="its program took longer than 10 s"):
        pesq_wb(noise(RATE), noise(RATE), RATE)
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="the package pesq is not installed"):
        pesq_wb(noise(RATE), noise(RATE), RATE)


def test_a_crash_costs_only_the_pair_that_it_was_at(monkeypatch):
    """Three copies and a silent one; the process answers for the first, dies on the second, and is started again."""
    answers = iter([b'{"value": 2.5}\n{"val', b'{"value": 3.5}\n'])
    asked = []

    def run(command, input, **settings):
        asked.append(len(input) // (4 * 16_000) - 1)
        return SimpleNamespace(returncode=-11, stdout=next(answers))

    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(metrics.subprocess, "run", run)
    copies = [noise(16_000), noise(16_000, seed=1), np.zeros(16_000), noise(16_000, seed=2)]
    first, second, silent, last = metrics.pesq_wb_each(noise(16_000), copies, 16_000)
    assert (first, last) == (2.5, 3.5) and asked == [3, 1]
    assert str(second) == "its program crashed on this pair" and str(silent) == "the copy is silent"


@needs_pesq
def test_several_copies_at_once_have_the_values_that_each_has_alone():
    speech = sounds.load("sample:speech-english", 16_000)
    copies = [speech + level * noise(len(speech), seed=3) for level in (0.01, 0.1)]
    assert metrics.pesq_wb_each(speech, copies, 16_000) == [pesq_wb(speech, copy, 16_000) for copy in copies]


@needs_pesq
def test_a_crash_of_pesq_stays_in_its_child():
    """25 s of bursts, 59 of them, are more than the 50 utterances that its program has room for."""
    bursts = noise(25 * 16_000) * (np.arange(25 * 16_000) % 6_720 < 3_360)
    try:
        assert 1 <= pesq_wb(bursts, bursts + 0.1 * noise(25 * 16_000, seed=1), 16_000) <= 4.65
    except Unavailable as unavailable:
        assert str(unavailable) in ("its program crashed on this pair", "its program took longer than 10 s")


def test_the_table():
    assert [*METRICS] == ["PESQ-WB", "STOI", "SI-SDR", "Mel distance", "Mel distance, 4 scales"]
    for metric in METRICS.values():
        assert metric.direction in ("higher is better", "lower is better")
        assert metric.help.endswith(".") and "\n" not in metric.help
    assert "meaningless for codecs that invent the phase" in METRICS["SI-SDR"].help
