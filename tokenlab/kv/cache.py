"""The cache that a policy works on: per decoder layer, the slots with their positions and scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from tokenlab.kv.policies import PADDING, AttentionView, Full, KVPolicy, Observation, Reduced, Slots

Rotate = Callable[[Tensor, Tensor], Tensor]


class PolicyLayer(DynamicLayer):
    """The slots of one decoder layer, in ascending order of position.

    keys, values: (B, Hkv, L, d), keys as the model rotated them. positions: long (B, Hkv, L), in the row's
    own text, PADDING for padding. scores: float32 (B, Hkv, L), -inf for padding (sums in bfloat16 would stall).
    side: name -> (B, Hkv, L, ...); state: name -> anything; both belong to the policy or view.
    slots: the policy's budget. cumulative_length: columns seen. tokens: long (B,), tokens seen without
    padding. forwards: forwards seen. rotate: (keys, delta long (B, Hkv, L)) -> keys moved on by `delta` positions of
    RoPE, None when the model has no plain RoPE. No tensor is ever changed in place."""

    is_croppable = False

    def __init__(self, index: int = 0, rotate: Rotate | None = None):
        super().__init__()
        self.index = index
        self.rotate = rotate
        self.reset()

    def reset(self) -> None:
        self.keys = self.values = self.positions = self.scores = self.tokens = None
        self.side: dict[str, Tensor] = {}
        self.state: dict[str, Any] = {}
        self.slots: Slots | None = None
        self.is_initialized = False
        self.cumulative_length = self.forwards = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        rows, heads = key_states.shape[:2]
        self.positions = torch.empty(rows, heads, 0, dtype=torch.long, device=self.device)
        self.scores = torch.empty(rows, heads, 0, device=self.device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the new tokens' (B, Hkv, q, d); the model calls this, then the attention, which calls `arrive`."""
        self.cumulative_length += key_states.shape[2]
        return super().update(key_states, value_states)

    def arrive(self, real: Tensor | None) -> None:
        """Positions and scores (0) for the tokens just appended. real: bool (B, q), False where padding."""
        rows, heads, length = self.keys.shape[:3]
        new = length - self.positions.shape[2]
        if real is None:
            positions = self.tokens[:, None] + torch.arange(new, device=self.device)
            self.tokens = self.tokens + new
        else:
            positions = (self.tokens[:, None] + real.cumsum(1) - 1).masked_fill(~real, PADDING)
            self.tokens = self.tokens + real.sum(1)
        scores = torch.zeros(rows, new, device=self.device).masked_fill(positions == PADDING, -torch.inf)
        self.positions = torch.cat([self.positions, positions[:, None].expand(-1, heads, -1)], 2)
        self.scores = torch.cat([self.scores, scores[:, None].expand(-1, heads, -1)], 2)
        self.side = {
            name: torch.cat([x, x.new_zeros(rows, heads, new, *x.shape[3:])], 2) for name, x in self.side.items()
        }

    def gather(self, keep: Tensor) -> Tensor:
        """Keep only the slots `keep`, long (B, Hkv, n), ascending. Returns src, as in `Reduced`."""

        def cut(x: Tensor) -> Tensor:
            index = keep.reshape(*keep.shape, *[1] * (x.ndim - 3)).expand(*keep.shape, *x.shape[3:])
            return x.gather(2, index)  # a copy: a slice would keep the evicted slots in memory

        src = torch.full_like(self.positions, -1)
        src = src.scatter(2, keep, torch.arange(keep.shape[2], device=keep.device).expand_as(keep))
        self.keys, self.values = cut(self.keys), cut(self.values)
        self.positions, self.scores = cut(self.positions), cut(self.scores)
        self.side = {name: cut(x) for name, x in self.side.items()}
        return src

    def replace(self, reduced: Reduced) -> None:
        """Put merged slots in place of all. A policy with `side` tensors merges those itself, in `reduce`."""
        slots = reduced.keys.shape[2]
        if any(x.shape[2] != slots for x in self.side.values()):
            raise ValueError(f"the policy has merged the slots to {slots}, but not its side tensors")
        self.keys, self.values = reduced.keys, reduced.values
        self.positions, self.scores = reduced.positions, reduced.scores.float()

    def get_seq_length(self) -> int:
        """Columns seen, not slots kept: the model derives the next position from it."""
        return self.cumulative_length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cumulative_length + query_length, 0

    def crop(self, tokens_to_remove: int) -> None:
        """Nothing to do for 0. Evicted slots cannot come back, so anything else needs `snapshot` and `restore`."""
        if tokens_to_remove:
            raise RuntimeError("an evicting cache cannot be cropped; take a snapshot before, and restore it")

    def snapshot(self) -> dict[str, Any]:
        """All there is to know about the layer, without copying a tensor."""
        return {**self.__dict__, "side": dict(self.side), "state": dict(self.state)}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go back to a snapshot, as often as needed."""
        self.__dict__.update({**snapshot, "side": dict(snapshot["side"]), "state": dict(snapshot["state"])})

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._rows(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._rows(lambda x: x[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._rows(lambda x: x.repeat_interleave(repeats, 0))

    def _rows(self, pick: Callable[[Tensor], Tensor]) -> None:
        if self.is_initialized:
            for name in ("keys", "values", "positions", "scores", "tokens"):
                setattr(self, name, pick(getattr(self, name)))
            self.side = {name: pick(x) for name, x in self.side.items()}


@dataclass(frozen=True)
class Event:
    """The slots of one layer after one forward. step: 0 is the prefill; positions, scores: (B, Hkv, n).

    src: long (B, Hkv, L), the slot now held by each slot of before (the new tokens last), -1 where it
    is gone; None where all stayed."""

    step: int
    layer: int
    positions: Tensor
    scores: Tensor
    src: Tensor | None


class PolicyCache(Cache):
    """The layers of one session, with the policy and the view that rule them.

    rotate: for the layers. compacted: distances are counted in slots, not in the text. record: fill
    `events`. attentions: of the last forward, per layer (weights (B, Hq, q, L), positions (B, Hkv, L)),
    when `keep_attention` is set. kv_bytes_per_step: bytes of keys and values after each forward."""

    def __init__(
        self,
        n_layers: int,
        policy: KVPolicy | None = None,
        view: AttentionView | None = None,
        rotate: Rotate | None = None,
        compacted: bool = False,
        record: bool = False,
    ):
        super().__init__(layers=[PolicyLayer(index, rotate) for index in range(n_layers)])
        self.policy = policy or Full()
        self.view = view
        self.compacted = compacted
        self.record = record
        self.keep_attention = False
        self.events: list[Event] = []
        self.kv_bytes_per_step: list[int] = []
        self.attentions: dict[int, tuple[Tensor, Tensor]] = {}

    def settle(self, observation: Observation) -> None:
        """After a layer's attention: score, then merge or evict."""
        layer, policy = observation.layer, self.policy
        if layer.forwards == 0:
            policy.start(layer, observation.query.shape[2])
        gain = policy.score(observation)
        if gain is not None:
            layer.scores = layer.scores + gain.float()
        src = None
        reduced = policy.reduce(layer)
        if reduced is not None:
            layer.replace(reduced)
            src = reduced.src
        else:
            keep = policy.select(layer)
            if keep is not None:
                src = layer.gather(keep)
        if self.record:
            self.events.append(Event(layer.forwards, layer.index, layer.positions, layer.scores, src))
        layer.forwards += 1
        if layer is self.layers[-1]:
            self.kv_bytes_per_step.append(self.kv_bytes)

    @property
    def kv_bytes(self) -> int:
        """Bytes of all keys and values that are held now."""
        return sum(x.nbytes for layer in self.layers if layer.is_initialized for x in (layer.keys, layer.values))

    @property
    def side_bytes(self) -> int:
        """Bytes of the positions, scores and side tensors: what the bookkeeping costs."""
        layers = [layer for layer in self.layers if layer.is_initialized]
        return sum(x.nbytes for layer in layers for x in (layer.positions, layer.scores, *layer.side.values()))

    def snapshot(self) -> tuple:
        """The whole cache now; see PolicyLayer.snapshot."""
        return [layer.snapshot() for layer in self.layers], len(self.events), len(self.kv_bytes_per_step)

    def restore(self, snapshot: tuple) -> None:
        """Go back to a snapshot: the steps since leave no trace."""
        layers, events, steps = snapshot
        for layer, state in zip(self.layers, layers, strict=True):
            layer.restore(state)
        del self.events[events:], self.kv_bytes_per_step[steps:]

    def reset(self) -> None:
        super().reset()
        self.events.clear()
        self.kv_bytes_per_step.clear()
        self.attentions.clear()
