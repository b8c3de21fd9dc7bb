"""Sound to log-mel frames and back: known tones, known frames, torch as an oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenlab.audio import mel


def tone(hertz, seconds=0.5):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * mel.RATE)) / mel.RATE).astype(np.float32)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (320, 1), (321, 2), (24_000, 75), (24_001, 76)])
def test_one_frame_for_each_320_samples(samples, frames):
    assert mel.log_mel(np.zeros(samples, np.float32)).shape == (frames, 100)


def test_silence_is_the_floor_and_a_factor_is_a_shift():
    assert np.all(mel.log_mel(np.zeros(3200, np.float32)) == np.float32(np.log(1e-4)))
    loud, soft = mel.log_mel(tone(1000)), mel.log_mel(0.5 * tone(1000))
    heard = soft > np.log(1e-4) + 0.01
    np.testing.assert_allclose((loud - soft)[heard], np.log(2), atol=1e-3)


@pytest.mark.parametrize("hertz", [110, 440, 3000, 9000])
def test_a_tone_is_loudest_in_its_band(hertz):
    assert mel.log_mel(tone(hertz))[10].argmax() == np.abs(mel.hertz() - hertz).argmin()


def test_bands_are_weighted_means_of_frequencies():
    bank = mel.filters()
    assert bank.shape == (641, 100) and (bank >= 0).all()
    np.testing.assert_allclose(bank.sum(0), 1, atol=1e-5)
    assert len(set(bank.argmax(0))) == 100  # no two bands stand for the same frequency


def test_stft_is_that_of_torch():
    wave = np.random.default_rng(0).normal(size=3200).astype(np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(wave), (480, 480))
    expected = torch.stft(padded, 1280, 320, window=torch.hann_window(1280), center=False, return_complex=True)
    np.testing.assert_allclose(mel.stft(wave), expected.T.numpy(), atol=2e-4)


@pytest.mark.parametrize("frames", [1, 2, 3, 10])
def test_a_spectrum_of_a_wave_gives_the_wave(frames):
    wave = np.random.default_rng(0).normal(size=320 * frames).astype(np.float32)
    np.testing.assert_allclose(mel.istft(mel.stft(wave)), wave, atol=1e-5)


def test_frames_that_lie_apart_are_added_where_they_overlap():
    ones = mel.overlapped(np.ones((2, mel.WINDOW), np.float32))
    # Two frames cover samples 0 to 1279 and 320 to 1599; 480 at both ends are cut off.
    assert ones.tolist() == [2.0] * 640


def test_griffin_lim_comes_closer_with_every_step_and_repeats_itself():
    wave = sum(tone(hertz) / k for k, hertz in enumerate((220, 440, 660, 1320), 1))
    aim = np.abs(mel.stft(wave))

    def miss(steps):
        return np.linalg.norm(np.abs(mel.stft(mel.griffin_lim(aim, steps))) - aim) / np.linalg.norm(aim)

    misses = [miss(steps) for steps in (0, 4, 32)]
    assert misses[0] > 2 * misses[1] > 3 * misses[2]
    assert np.array_equal(mel.griffin_lim(aim, 4, seed=1), mel.griffin_lim(aim, 4, seed=1))
    assert not np.array_equal(mel.griffin_lim(aim, 4, seed=1), mel.griffin_lim(aim, 4, seed=2))


def test_magnitudes_of_frames_are_positive_and_have_their_bands():
    frames = mel.log_mel(sum(tone(110 * k) for k in range(1, 40)))  # harmonics, so that bands differ from their like
    found = mel.magnitudes(frames)
    assert found.shape == (len(frames), 641) and (found > 0).all()
    plain = np.maximum(np.exp(frames) @ np.linalg.pinv(mel.filters()), 1e-5)  # least squares, its negative part cut

    def miss(magnitude):
        return np.abs(np.log(magnitude @ mel.filters()) - frames).mean()

    assert miss(found) < miss(plain) / 3


def test_what_is_made_of_frames_has_these_frames():
    from tokenlab import sounds

    frames = mel.log_mel(sounds.load("sample:speech-english"))
    again = mel.log_mel(mel.MelSynth().wave(frames))
    assert again.shape == frames.shape
    assert np.abs(again - frames)[frames > frames.max() - 6].mean() < 0.15
