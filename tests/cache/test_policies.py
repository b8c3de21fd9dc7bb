"""The registry, and what every policy in it must do, on a tiny random Llama over bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenlab import kv
from tokenlab.cache import policies, trials

EACH = pytest.mark.parametrize("policy", policies.POLICIES, ids=lambda policy: policy.name)


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, length)


def finished(toy, policy: trials.Policy, budget: kv.Budget, n: int) -> trials.Trace:
    *_, made = trials.generate(toy, policy.make(budget, 3), trials.Task(text(24), 20, "", (), ""), n)
    return made.trace()


def test_full_and_random_come_with_any_choice():
    assert [p.name for p in policies.chosen(())] == ["full", "random"]
    assert [p.name for p in policies.chosen(["H2O", "local window"])] == ["full", "random", "local window", "H2O"]
    assert set(policies.names()).isdisjoint({"full", "random"})
    assert len({p.name for p in policies.POLICIES}) == len(policies.POLICIES)


@EACH
def test_a_generous_budget_is_the_full_cache_and_one_token_is_enough(toy, policy):
    full = finished(toy, trials.FULL, kv.Budget(ratio=1.0), 6)
    generous = finished(toy, policy, kv.Budget(total=64), 6)
    assert generous.new == full.new and generous.held == 29
    least = finished(toy, policy, kv.Budget(ratio=0.01), 6)
    assert len(least.new) == 6 and least.held == (29 if policy is trials.FULL else 1)


@EACH
def test_left_says_what_the_map_of_kept_tokens_says(toy, policy):
    budget = kv.Budget(ratio=0.4)
    trace = finished(toy, policy, budget, 10)
    session = kv.Session(toy.torch, policy.make(budget, 3), record=True)
    session.prefill(torch.from_numpy(text(24))[None, :20])
    for token in [*text(24)[20:].tolist(), *trace.new[:-1]]:
        session.step(torch.tensor([token]))
    arrival = (torch.arange(33) - 20 + 1).clamp(min=0)
    steps = torch.arange(trace.steps + 1)[:, None]
    for layer in range(2):
        for head in range(2):
            left = trace.left[layer, head]
            held = ((left == -1) | (left > steps)) & (arrival <= steps)
            assert held.float().equal(kv.kept_map(session.cache, layer=layer, head=head))
    assert trace.kv_bytes == tuple(session.cache.kv_bytes_per_step)


@pytest.mark.parametrize("policy", [p for p in policies.POLICIES if p is not trials.RANDOM], ids=lambda p: p.name)
def test_batched_is_what_each_story_gives_alone(toy, policy):
    """Random is left out: what it draws depends on the row."""
    sizes = [(30, 9, 6), (31, 4, 3), (29, 7, 2)]
    cases = [
        trials.Case(text(read + rest, seed), read, read + answer, "who", 0, 0, 0.5)
        for seed, (read, rest, answer) in enumerate(sizes)
    ]
    together = trials.score(toy, policy, 0.235, cases)  # 7 of 29, 30 or 31, alone and of their mean
    alone = [trials.score(toy, policy, 0.242, [case]) for case in cases]
    np.testing.assert_allclose(together.nll, [one.nll[0] for one in alone], atol=1e-4)
    assert together.right.tolist() == [one.right[0] for one in alone]
    if policy is not trials.FULL:
        assert together.slots.tolist() == [7, 7, 7] == [int(one.slots[0]) for one in alone]
        assert together.kv_bytes == alone[0].kv_bytes == 2 * 2 * 2 * 7 * 8 * 4
