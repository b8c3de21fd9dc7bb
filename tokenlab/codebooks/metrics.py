"""How close a copy comes to the original: pictures, depth, masks, point clouds; and what features are worth.

Pictures are (H, W, C) or (H, W), uint8 or floats in [0, 1]. No network trained elsewhere takes part: what papers
measure with LPIPS or Inception features is measured on features that the caller names.
"""

from __future__ import annotations

import numpy as np


def unit(image: np.ndarray) -> np.ndarray:
    """A picture as float64 in [0, 1]."""
    return image / 255 if image.dtype == np.uint8 else np.asarray(image, np.float64)


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, over all channels together; infinite for the same picture."""
    error = float(((unit(image) - unit(other)) ** 2).mean())
    return float("inf") if error == 0 else -10 * np.log10(error)


def ssim(image: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004: Gaussian window, sigma 1.5), mean over channels; 1: the same.

    ValueError of scikit-image: a side is below 11 pixels."""
    from skimage.metrics import structural_similarity

    channel = -1 if image.ndim == 3 else None
    return float(
        structural_similarity(
            unit(image),
            unit(other),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=channel,
        )
    )


def l1(image: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute error of values in [0, 1]."""
    return float(np.abs(unit(image) - unit(other)).mean())


def mse(image: np.ndarray, other: np.ndarray) -> float:
    """Mean squared error of values in [0, 1]."""
    return float(((unit(image) - unit(other)) ** 2).mean())


def depth_errors(depth: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """rmse, absrel (mean |error| / truth) and delta1 (share within a factor of 1.25) where truth > 0."""
    valid = truth > 0
    d, t = np.maximum(depth[valid].astype(float), 1e-9), truth[valid].astype(float)
    return {
        "rmse": float(np.sqrt(((d - t) ** 2).mean())),
        "absrel": float((np.abs(d - t) / t).mean()),
        "delta1": float((np.maximum(d / t, t / d) < 1.25).mean()),
    }


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 when both are empty."""
    union = (mask | truth).sum()
    return float((mask & truth).sum() / union) if union else 1.0


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    """Twice the intersection over the sum of both areas; 1 when both are empty."""
    total = mask.sum() + truth.sum()
    return float(2 * (mask & truth).sum() / total) if total else 1.0


def chamfer(points: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance to the nearest point of the other set, both ways added; points (n, d), truth (m, d)."""
    there, back = _nearest(points, truth)
    return float(there.mean() + back.mean())


def f_score(points: np.ndarray, truth: np.ndarray, tau: float) -> float:
    """Harmonic mean of the shares of points, and of truth, that have the other within a distance of tau."""
    there, back = _nearest(points, truth)
    precision, recall = (there <= tau).mean(), (back <= tau).mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _nearest(points: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import cKDTree

    return cKDTree(truth).query(points)[0], cKDTree(points).query(truth)[0]


def variation_of_information(segments: np.ndarray, truth: np.ndarray) -> float:
    """Bits that each segmentation leaves open about the other: splits plus merges (Meila 2007)."""
    from skimage.metrics import variation_of_information as library

    return float(np.sum(library(truth, segments)))


def adapted_rand_error(segments: np.ndarray, truth: np.ndarray) -> float:
    """1 - the F-score of pairs of pixels that lie in one segment; label 0 of truth is left out."""
    from skimage.metrics import adapted_rand_error as library

    return float(library(truth, segments)[0])


def feature_frechet(features: np.ndarray, others: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to features (n, d) and (m, d).

    It depends on where the features come from, so it can be compared with no published FID."""
    mean, other = features.mean(0), others.mean(0)
    a, b = np.cov(features, rowvar=False), np.cov(others, rowvar=False)
    # The trace of sqrt(a b) from the eigenvalues of a b, which are real and not negative but for rounding.
    root = np.sqrt(np.linalg.eigvals(np.atleast_2d(a) @ np.atleast_2d(b)).real.clip(0)).sum()
    return float(((mean - other) ** 2).sum() + np.trace(np.atleast_2d(a)) + np.trace(np.atleast_2d(b)) - 2 * root)


def linear_probe(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray, c: float = 1.0
) -> float:
    """Share of test labels that logistic regression on standardised features (n, d) gets right; c is fixed."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    return float(probe.fit(features, labels).score(test_features, test_labels))
