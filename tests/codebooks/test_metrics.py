"""Measures of likeness against numbers worked out by hand, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest

from tokenlab.codebooks import metrics


def test_psnr_l1_and_mse_by_hand():
    image = np.zeros((4, 4, 3), np.uint8)
    other = np.full_like(image, 51)  # a fifth of full scale
    assert metrics.l1(image, other) == pytest.approx(0.2)
    assert metrics.mse(image, other) == pytest.approx(0.04)
    assert metrics.psnr(image, other) == pytest.approx(13.9794, abs=1e-4)
    assert metrics.psnr(image / 255, other) == metrics.psnr(image, other)
    assert metrics.psnr(image, image) == float("inf")


def test_psnr_is_that_of_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio

    rng = np.random.default_rng(0)
    image, other = rng.integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    assert metrics.psnr(image, other) == pytest.approx(peak_signal_noise_ratio(image, other, data_range=255))


def test_ssim_falls_with_noise_and_is_one_for_the_same():
    rng = np.random.default_rng(0)
    image = np.linspace(0, 1, 32 * 32).reshape(32, 32)
    values = [metrics.ssim(image, image + rng.normal(0, sigma, image.shape)) for sigma in (0, 0.02, 0.2)]
    assert values[0] == pytest.approx(1) and values[0] > values[1] > values[2]
    colour = np.stack([image] * 3, -1)
    assert metrics.ssim(colour, colour[::-1]) == pytest.approx(metrics.ssim(image, image[::-1]))


def test_depth_errors_by_hand():
    found = metrics.depth_errors(np.array([1.0, 2.0, 9.0]), np.array([1.0, 4.0, 0.0]))
    assert found == pytest.approx({"rmse": np.sqrt(2), "absrel": 0.25, "delta1": 0.5})


def test_masks_by_hand():
    mask, truth = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert metrics.iou(mask, truth) == pytest.approx(1 / 3) and metrics.dice(mask, truth) == 0.5
    empty = np.zeros(4, bool)
    assert metrics.iou(empty, empty) == metrics.dice(empty, empty) == 1.0


def test_point_clouds_by_hand():
    points, truth = np.array([[0.0, 0], [1, 0]]), np.array([[0.0, 0], [1, 0], [1, 2]])
    assert metrics.chamfer(points, truth) == pytest.approx(2 / 3)
    assert metrics.f_score(points, truth, 0.5) == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert metrics.f_score(points, truth + 9, 0.5) == 0.0


def test_segmentations_by_hand():
    truth, split = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert metrics.variation_of_information(split, truth) == pytest.approx(1)  # one bit: which half
    assert metrics.variation_of_information(truth, truth) == 0
    assert metrics.adapted_rand_error(truth, truth) == pytest.approx(0)
    assert metrics.adapted_rand_error(split, truth) > 0.3


def test_frechet_of_shifted_and_scaled_gaussians():
    features = np.random.default_rng(0).normal(size=(500, 3))
    assert metrics.feature_frechet(features, features) == pytest.approx(0, abs=1e-6)
    assert metrics.feature_frechet(features, features + 2) == pytest.approx(12, rel=1e-6)
    spread = np.cov(features, rowvar=False).trace()  # (1 - 3) ** 2 times the variance
    scaled = (features - features.mean(0)) * 3 + features.mean(0)
    assert metrics.feature_frechet(features, scaled) == pytest.approx(4 * spread)


def test_linear_probe_learns_what_is_linear_and_no_more():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 2)) * (1, 1000)
    linear, parity = (features[:, 0] > 0).astype(int), (np.sign(features).prod(1) > 0).astype(int)
    assert metrics.linear_probe(features[:300], linear[:300], features[300:], linear[300:]) > 0.95
    assert metrics.linear_probe(features[:300], parity[:300], features[300:], parity[300:]) < 0.7
