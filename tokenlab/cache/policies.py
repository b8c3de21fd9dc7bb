"""The registry of cache policies: what the workbench compares. To add a policy, add one line to POLICIES.

Entries are really removed from the cache (tokenlab.kv); nothing is masked or simulated.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenlab.cache import h2o
from tokenlab.cache.trials import FULL, LOCAL, RANDOM, SINK_LOCAL, Policy

POLICIES = (
    FULL,
    RANDOM,
    LOCAL,
    SINK_LOCAL,
    h2o.POLICY,
)
ALWAYS = (FULL.name, RANDOM.name)  # in every comparison, whatever is chosen


def names() -> tuple[str, ...]:
    """What a user can choose; full and random come with any choice."""
    return tuple(policy.name for policy in POLICIES if policy.name not in ALWAYS)


def chosen(some: Sequence[str]) -> tuple[Policy, ...]:
    """The policies called so, and those of ALWAYS, in the order of the registry."""
    return tuple(policy for policy in POLICIES if policy.name in (*ALWAYS, *some))
