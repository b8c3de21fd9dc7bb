"""Statistics of codes, against numbers worked out by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab.codebooks.stats import CodebookStats, plane


def counted(ids, sizes, mask=None):
    stats = CodebookStats(sizes)
    stats.update(np.array(ids), mask)
    return stats


def test_histogram_entropy_and_dead_codes_by_hand():
    stats = counted([[0, 0, 1, 2]], (4,))
    assert stats.histogram().tolist() == [2, 1, 1, 0]
    assert stats.counted() == 4
    assert stats.entropy_bits() == pytest.approx(1.5)  # 1/2 * 1 + 2 * 1/4 * 2
    assert stats.perplexity() == pytest.approx(2**1.5)
    assert stats.used_fraction() == 0.75
    assert stats.dead().tolist() == [3]


def test_masked_and_dropped_tokens_do_not_count():
    stats = CodebookStats((3, 3))
    stats.update(np.array([[[0, 1], [1, -1], [2, 2]]]), np.array([[True, True, False]]))
    assert stats.histogram(0).tolist() == [1, 1, 0]
    assert stats.histogram(1).tolist() == [0, 1, 0]
    assert stats.cooccurrence(0, 1).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_updates_add_up_and_tensors_are_taken():
    import torch

    stats = CodebookStats((2,))
    stats.update(torch.tensor([[0, 1]]))
    stats.update(torch.tensor([[[1]], [[1]]]))
    assert stats.histogram().tolist() == [1, 3]


def test_nothing_counted_is_zero():
    stats = CodebookStats((2,))
    assert stats.counted() == 0 and stats.entropy_bits() == 0 and stats.used_fraction() == 0


def test_bigrams_stay_within_a_row():
    stats = counted([[0, 1, 1], [2, 0, -1]], (3,))
    assert stats.bigram().tolist() == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_entropy_per_position():
    stats = counted([[0, 0], [0, 1]], (2,))
    assert stats.per_position_entropy().tolist() == [0, 1]
    stats.update(np.array([[0, 0, 0]]))
    with pytest.raises(ValueError, match="same number of tokens"):
        stats.per_position_entropy()


def test_mutual_information_of_the_same_book_is_its_entropy():
    ids = np.tile([0, 1], 500)
    stats = counted(np.stack((ids, ids), -1)[None], (2, 2))
    assert stats.mutual_information(0, 1, corrected=False) == pytest.approx(np.log(2))
    assert stats.mutual_information(0, 1) == pytest.approx(np.log(2), abs=0.005)


def test_the_correction_takes_away_what_few_tokens_feign():
    rng = np.random.default_rng(0)
    n, k = 4000, 32
    stats = counted(rng.integers(0, k, (1, n, 2)), (k, k))
    plain = stats.mutual_information(0, 1, corrected=False)
    assert plain == pytest.approx((k - 1) ** 2 / (2 * n), rel=0.15)  # independent books: all of it is bias
    assert abs(stats.mutual_information(0, 1)) < 0.1 * plain
    assert stats.mutual_information(0, 1) == stats.mutual_information(0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.integers(1, 60))
def test_against_scikit_learn_and_invariants(seed, first, second, n):
    from sklearn.metrics import mutual_info_score

    ids = np.random.default_rng(seed).integers(0, (first, second), (1, n, 2))
    stats = counted(ids, (first, second))
    expected = mutual_info_score(ids[0, :, 0], ids[0, :, 1])
    assert stats.mutual_information(0, 1, corrected=False) == pytest.approx(expected, abs=1e-9)
    assert stats.cooccurrence(0, 1).sum(1).tolist() == stats.histogram(0).tolist()
    assert stats.perplexity(0) <= first * stats.used_fraction(0) + 1e-9


@pytest.mark.parametrize("ids", [[[2]], [[-2]], [[[0, 0]]], [0]])
def test_wrong_ids_are_refused(ids):
    with pytest.raises(ValueError):
        counted(ids, (2,))


def test_plane_finds_the_directions_in_order():
    points, shares = plane(np.array([[3.0, 0, 5], [-3, 0, 5], [0, 1, 5], [0, -1, 5]]))
    np.testing.assert_allclose(points, [[3, 0], [-3, 0], [0, 1], [0, -1]], atol=1e-12)
    assert shares == pytest.approx((0.9, 0.1))
    assert plane(np.ones((3, 1)))[0].tolist() == [[0, 0]] * 3
