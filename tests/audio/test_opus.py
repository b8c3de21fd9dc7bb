"""Opus beside the learned codecs: real files, the bytes in them counted, copies that stand where the original does."""

from __future__ import annotations

import numpy as np
import pytest

from tokenlab import sounds
from tokenlab.audio import metrics, opus


def noise():
    return (0.1 * np.random.default_rng(0).normal(size=4_800)).clip(-1, 1).astype(np.float32)


@pytest.mark.parametrize("kbps", [8, 16])
def test_opus_counts_the_bytes_of_a_real_file(kbps):
    wave = np.array(sounds.load("sample:speech-english-low"))
    copy, size = opus.opus(wave, kbps)
    data = opus.opus_file(wave, opus.opus_setting(wave, kbps))
    assert size == len(data) and data[:4] == b"OggS" and b"OpusHead" in data[:64]
    assert copy.shape == wave.shape and copy.dtype == np.float32
    assert abs(opus.rate_of(data, wave) / 1000 - kbps) < 3
    assert metrics.stoi(wave, copy, 24_000) > 0.8


def test_the_bytes_of_a_container():
    page = lambda position, packets: (  # noqa: E731
        b"OggS" + bytes(2) + position.to_bytes(8, "little") + bytes(12) + bytes([len(packets)])
        + bytes(map(len, packets)) + b"".join(packets)
    )  # fmt: skip
    file = page(0, [b"OpusHead" + bytes(11)]) + page(0, [b"OpusTags"]) + page(960, [bytes(30), bytes(20)])
    assert opus.container_bytes(file) == len(file) - 50
    real = opus.opus_file(noise(), 1.0)
    assert 100 < opus.container_bytes(real) < len(real)


def test_a_copy_is_moved_to_where_it_fits():
    wave = noise()
    for shift in (-8, -1, 0, 3):
        assert np.array_equal(opus.aligned(wave, np.roll(wave, shift))[20:-20], wave[20:-20])
    silence = np.zeros(100, np.float32)
    assert np.array_equal(opus.aligned(silence, silence), silence)


def test_opus_is_not_shifted_by_more_than_a_sample_or_two():
    wave = np.array(sounds.load("sample:speech-english"))
    copy = opus.opus_wave(opus.opus_file(wave, 0.9))
    agreement = [float(np.roll(copy, -shift) @ wave) for shift in range(-20, 21)]
    assert abs(int(np.argmax(agreement)) - 20) <= 2
