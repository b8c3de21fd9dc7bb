"""What a cache or attention method writes: a policy that evicts or merges slots, or a view that limits what is seen."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tokenlab.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from tokenlab.kv.cache import PolicyLayer

PADDING = 2**31  # the position of a padded slot: later than any token, so no query sees it


class Slots(NamedTuple):
    """A budget in slots: `total` per KV head, of which the last `recent` and the first `sink` tokens always stay."""

    total: int
    recent: int
    sink: int


@dataclass(frozen=True)
class Budget:
    """How much of the cache may stay.

    total: slots, or ratio: a share of the prompt (give one of them); it is fixed at the end of the
    prefill, however long the output becomes. recent_share: the part of the total that is kept for the
    newest tokens, or recent: the same in slots. sink: the first tokens of the text that always stay.
    """

    total: int | None = None
    ratio: float | None = None
    recent_share: float = 0.5
    recent: int | None = None
    sink: int = 0

    def __post_init__(self) -> None:
        if (self.total is None) == (self.ratio is None):
            raise UserError("Please give the cache budget either in tokens or as a share of the prompt.")
        if self.total is not None and self.total < 1 or self.ratio is not None and not self.ratio > 0:
            raise UserError("The cache budget must leave room for at least one token; please raise it.")
        if not 0 <= self.recent_share <= 1 or self.recent is not None and self.recent < 0 or self.sink < 0:
            raise UserError("The recent share must lie between 0 and 1, and recent and sink tokens cannot be negative.")

    def resolve(self, prompt_len: int) -> Slots:
        """The budget for a prompt of `prompt_len` tokens: at least one slot, shares rounded down.

        Sinks leave at least one slot to the rest, and the recent window takes what sinks leave at most."""
        total = self.total if self.total is not None else max(1, _floor(self.ratio * prompt_len))
        sink = min(self.sink, total - 1)
        recent = self.recent if self.recent is not None else _floor(self.recent_share * total)
        return Slots(total, min(recent, total - sink), sink)


def _floor(x: float) -> int:
    return int(x + 1e-9)  # 0.57 * 100 is 56.99999999999999, and the user means 57


@dataclass(frozen=True)
class Observation:
    """What one layer's attention saw in one forward, before anything is evicted.

    layer: its slots, the new ones included. phase: "prefill" (the layer's first forward) or "decode".
    query: (B, Hq, q, d). logits: float32 (B, Hq, q, L), scaled, finfo.min where a query must not look;
    weights: float32 (B, Hq, q, L), their softmax; both None unless the policy sets `needs_weights`.
    q_pos: long (B, q); kv_pos: long (B, Hkv, L), positions in the text, PADDING for padding.
    group: query heads per KV head, Hq // Hkv. A padded query sees only padding, so that a sum over
    queries adds nothing from it to a token. With a view that adds slots, L counts those too."""

    layer: PolicyLayer
    phase: str
    query: Tensor
    logits: Tensor | None
    weights: Tensor | None
    q_pos: Tensor
    kv_pos: Tensor
    group: int


@dataclass(frozen=True)
class Reduced:
    """The slots that a merging policy leaves, in ascending order of position.

    keys, values: (B, Hkv, M, d); positions: long, scores: float32 (B, Hkv, M).
    src: long (B, Hkv, L), the new slot of each old one, -1 where it is gone."""

    keys: Tensor
    values: Tensor
    positions: Tensor
    scores: Tensor
    src: Tensor


class KVPolicy:
    """Decides after each forward, in every layer and KV head, which slots stay: the best-scored within a budget.

    A method usually gives `score` alone. A policy holds settings and never changes; what changes is kept
    in the layer: `layer.scores`, `layer.side` (tensors (B, Hkv, L, ...) that are extended with zeros for
    new tokens and cut with the slots) and `layer.state` (anything else; replace values, don't mutate
    them). So one policy serves any number of sessions, and a layer can be rolled back."""

    needs_weights = False  # True: attention is computed in float32 and shown; False: by SDPA, which shows none

    def __init__(self, budget: Budget):
        self.budget = budget

    def start(self, layer: PolicyLayer, prompt_len: int) -> None:
        """Before the first `score` of a layer. prompt_len: columns of the prefill, padding included."""
        layer.slots = self.budget.resolve(prompt_len)

    def score(self, observation: Observation) -> Tensor | None:
        """What to add to `layer.scores`: float32 (B, Hkv, L), or None for nothing."""
        return None

    def select(self, layer: PolicyLayer) -> Tensor | None:
        """The slots to keep: long (B, Hkv, n), ascending; None keeps all. Called after the step's attention."""
        if layer.scores.shape[-1] <= layer.slots.total:
            return None
        return keep_best(layer.scores, layer.positions, layer.slots)

    def reduce(self, layer: PolicyLayer) -> Reduced | None:
        """For policies that merge; when it returns something, `select` is not asked."""
        return None


class AttentionView:
    """What the queries of a layer see; nothing is evicted. One view serves any number of sessions."""

    def keys_for(
        self, layer: PolicyLayer, query: Tensor, key: Tensor, value: Tensor, kv_pos: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values (B, Hkv, L', d) to attend over, with positions long (B, Hkv, L'): here the slots as they are.

        query: (B, Hq, q, d). A pooled slot gets the position from which on it may be seen."""
        return key, value, kv_pos

    def mask(self, layer: PolicyLayer, query: Tensor, key: Tensor, q_pos: Tensor, kv_pos: Tensor) -> Tensor | None:
        """Bool, broadcastable to (B, Hq, q, L'): where a query may look, besides being causal; None: everywhere.

        Every query must be left at least one key; itself is always a safe one."""
        return None


def head_mean(x: Tensor, group: int) -> Tensor:
    """(B, Hq, ...) -> (B, Hkv, ...): the mean over the query heads that share a KV head."""
    return x.unflatten(1, (-1, group)).mean(2)


def keep_best(scores: Tensor, positions: Tensor, slots: Slots) -> Tensor:
    """The slots of a budget: the last `recent`, the first `sink` tokens, and the best-scored others.

    scores: (B, H, L), positions: long (B, H, L), slots.total <= L -> ascending long (B, H, total).
    Padding leaves first; of equal scores the earlier slot stays."""
    import torch

    length = scores.shape[-1]
    is_recent = torch.arange(length, device=scores.device) >= length - slots.recent
    rank = scores.masked_fill(is_recent | (positions < slots.sink), torch.inf)
    rank = rank.masked_fill(positions == PADDING, -torch.inf)
    best = rank.sort(dim=-1, descending=True, stable=True).indices[..., : slots.total]
    return best.sort(dim=-1).values


class Full(KVPolicy):
    """Keep everything: what every other policy is compared with."""

    def __init__(self) -> None:
        super().__init__(Budget(ratio=1.0))

    def select(self, layer: PolicyLayer) -> None:
        return None


class LocalWindow(KVPolicy):
    """Keep the newest tokens, and with `sink` the first ones too (StreamingLLM, Xiao et al. 2023, section 3)."""

    def start(self, layer: PolicyLayer, prompt_len: int) -> None:
        total, _, sink = self.budget.resolve(prompt_len)
        layer.slots = Slots(total, total - sink, sink)


class RandomRecent(KVPolicy):
    """Keep the newest tokens and a random choice of the others: the trivial comparison for every policy.

    Each token draws one number for life. The tokens with the highest numbers are at any time a uniform
    sample of all tokens that have left the recent window; fresh draws at each step, or summed ones, would
    favour some by age. Layers, heads and rows draw on their own."""

    def __init__(self, budget: Budget, seed: int = 0):
        super().__init__(budget)
        self.seed = seed

    def score(self, observation: Observation) -> Tensor:
        import torch

        layer = observation.layer
        seed = random.Random(f"{self.seed} {layer.index} {layer.cumulative_length}").getrandbits(62)
        new = observation.query.shape[2]
        rows, heads, length = layer.scores.shape
        draws = torch.zeros(rows, heads, length)
        draws[..., length - new :] = torch.rand(rows, heads, new, generator=torch.Generator().manual_seed(seed))
        return draws.to(layer.scores.device)
