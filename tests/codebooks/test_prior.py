"""The judge: a chain rule without leaks, nats that are right where they are known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from tokenlab.codebooks.prior import ARPrior, scale_mask


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def all_rows(sizes, n):
    codes = list(itertools.product(*(range(size) for size in sizes)))
    return torch.tensor(list(itertools.product(codes, repeat=n)))


@pytest.mark.parametrize(
    "settings",
    [
        dict(sizes=(3,), max_len=3),
        dict(sizes=(2, 3), max_len=2),
        dict(sizes=(2,), max_len=6, mask="scale_causal", scales=(1, 2, 3)),
    ],
)
def test_probabilities_of_all_rows_sum_to_one(settings):
    """Only a proper chain rule can: any leak from later codes would break it."""
    prior = ARPrior(d=16, depth=2, heads=2, **settings)
    rows = all_rows(settings["sizes"], settings["max_len"])
    with torch.no_grad():
        nats = prior.nll(rows) * settings["max_len"]
    assert torch.exp(-nats).sum().item() == pytest.approx(1, abs=1e-4)
    assert nats.std() > 1e-4


def test_a_code_changes_only_what_comes_after_it():
    prior = ARPrior((4, 4), d=16, depth=2, max_len=5, heads=2)
    ids = torch.randint(0, 4, (1, 5, 2))
    other = ids.clone()
    other[0, 2, 0] = (ids[0, 2, 0] + 1) % 4
    with torch.no_grad():
        changed = [(a != b).any(-1)[0].tolist() for a, b in zip(prior.logits(ids), prior.logits(other), strict=True)]
    assert changed == [[False, False, False, True, True], [False, False, True, True, True]]


def test_places_of_a_scale_see_all_coarser_tokens_and_none_of_their_own():
    prior = ARPrior((4,), d=16, depth=1, max_len=7, heads=2, mask="scale_causal", scales=(1, 2, 4))
    ids = torch.randint(0, 4, (1, 7, 1))
    for place, first in ((0, 1), (1, 3), (2, 3)):
        other = ids.clone()
        other[0, place] = (ids[0, place] + 1) % 4
        with torch.no_grad():
            changed = (prior.logits(ids)[0] != prior.logits(other)[0]).any(-1)[0].tolist()
        assert changed == [i >= first for i in range(7)]


def test_scale_mask():
    assert scale_mask((1, 2)).int().tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]
    with pytest.raises(ValueError, match="needs scales"):
        ARPrior((4,), mask="scale_causal", scales=(4, 2))


def test_left_out_ids_do_not_count():
    prior = ARPrior((4, 4), d=16, depth=1, max_len=3, heads=2)
    for head in prior.heads:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    ids = torch.tensor([[[0, 1], [2, -1], [-1, -1]], [[0, 1], [2, 3], [1, 1]]])
    expected = [1.5 * math.log(4), 2 * math.log(4)]  # three codes over two tokens; six over three
    assert prior.nll(ids).tolist() == pytest.approx(expected)


def test_trained_on_a_rule_it_comes_near_its_entropy_and_samples_obey():
    prior = ARPrior((4,), d=32, depth=1, max_len=6, heads=2, classes=2)
    optimizer = torch.optim.AdamW(prior.parameters(), lr=0.01)
    labels = torch.arange(64) % 2

    def rows(generator):
        first = torch.randint(0, 4, (64, 1), generator=generator)
        return ((first + torch.arange(6) * (1 + labels[:, None])) % 4)[..., None]  # counts by 1 or by 2

    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        loss = prior.nll(rows(generator), labels).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entropy = math.log(4) / 6  # only the first code is free
    assert entropy * 0.97 < prior.nll(rows(generator), labels).mean().item() < entropy + 0.03
    made = prior.sample(20, 6, torch.arange(20) % 2, top_k=2, temperature=0.5, generator=generator)[..., 0]
    steps = made.diff(dim=1) % 4
    assert made.shape == (20, 6) and (steps == 1 + (torch.arange(20) % 2)[:, None]).float().mean() > 0.95
