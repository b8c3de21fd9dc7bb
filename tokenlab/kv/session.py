"""Run a model with a policy: prefill, step, generate, score a given text; and the data of the pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenlab import guard
from tokenlab.errors import UserError
from tokenlab.kv.policies import AttentionView, KVPolicy

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from tokenlab.kv.cache import PolicyCache


class Session:
    """One run of one user: a model with a cache of its own. Start a new session for a new prompt, and after a
    forward that has raised half-way through the layers.

    model: any causal language model of transformers with full or sliding-window attention; it is not changed.
    positions: "original" (each key keeps its place in the text) or "compacted" (distances are counted
    in slots, so that a text may go on beyond the trained context; RoPE models only).
    record: keep what each layer and head held after each step in `cache.events`.

    `session.model` may be used directly: `session.model.generate(ids, past_key_values=session.cache)`,
    or without a cache for training: `session.model(ids, use_cache=False)` gives gradients through a view."""

    def __init__(
        self,
        model: PreTrainedModel,
        policy: KVPolicy | None = None,
        view: AttentionView | None = None,
        *,
        positions: str = "original",
        record: bool = False,
    ):
        from tokenlab.kv.attention import rotation, twin
        from tokenlab.kv.cache import PolicyCache

        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if config.is_encoder_decoder or not kinds <= {"full_attention", "sliding_attention"}:
            raise UserError(
                "Looking into attention and the cache needs a decoder with ordinary attention in all layers; "
                "please choose another model."
            )
        if positions not in ("original", "compacted"):
            raise ValueError(f"positions must be original or compacted, not {positions}")
        rotate, compacted = rotation(model), positions == "compacted"
        if compacted and rotate is None:
            raise UserError(
                f"Compacted positions need plain rotary positions, which {config.model_type} has not; "
                "please keep the original positions."
            )
        self.cache: PolicyCache = PolicyCache(config.num_hidden_layers, policy, view, rotate, compacted, record)
        self.model = twin(model, self.cache).eval()
        self.context = getattr(config, "max_position_embeddings", None)
        self.seconds: list[float] = []  # wall clock of each forward

    def forward(self, ids: Tensor, real: Tensor | None = None, *, attention: bool = False) -> Tensor:
        """Logits (B, q, V) of the next tokens `ids`, long (B, q). real: bool (B, q), False where padding (left).

        attention: keep this forward's weights for `attention_maps`. UserError when `ids` are empty, not in
        the model's vocabulary, or beyond its context."""
        import torch

        if ids.numel() == 0:
            raise UserError("There is no text to read; please write at least one word.")
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
            raise UserError(
                f"The tokenizer gives token {int(ids.max())}, but the model knows only {vocabulary} tokens; "
                "please use the tokenizer that belongs to it."
            )
        real = torch.ones_like(ids, dtype=torch.bool) if real is None else real.bool()
        first = self.cache.layers[0]
        seen = first.tokens[:, None] if first.is_initialized else 0
        places = (seen + real.cumsum(1) - 1).clamp(min=0)  # padding must have some position; nothing looks at it
        self._check_context(int(places.max()) + 1, ids.shape[1])
        self.cache.keep_attention = attention
        self.cache.attentions = {}
        started = time.perf_counter()
        with torch.no_grad():
            logits = self.model(
                ids,
                attention_mask=None if bool(real.all()) else real,
                position_ids=places,
                past_key_values=self.cache,
                use_cache=True,
            ).logits
        self.seconds.append(time.perf_counter() - started)
        return logits

    def prefill(self, ids: Tensor, real: Tensor | None = None, *, attention: bool = False) -> Tensor:
        """Read the prompt in one forward: long (B, T) -> logits (B, V) of its last column. Budgets are set by it."""
        return self.forward(ids, real, attention=attention)[:, -1]

    def step(self, tokens: Tensor, *, attention: bool = False) -> Tensor:
        """Read one token per row: long (B,) -> logits (B, V) of the next."""
        return self.forward(tokens[:, None], attention=attention)[:, -1]

    def attention_maps(self, length: int | None = None) -> list[Tensor]:
        """The weights of the last forward with `attention=True`, per layer, over the tokens of the text.

        float32 (B, Hq, q, length), zero for tokens that a head no longer holds; length: tokens seen."""
        length = length or self.cache.get_seq_length()
        return [spread(weights, positions, length) for _, (weights, positions) in sorted(self.cache.attentions.items())]

    def _check_context(self, read: int, new: int) -> None:
        if self.context is None:
            return
        if self.cache.compacted:
            held = [layer.keys.shape[2] for layer in self.cache.layers if layer.is_initialized]
            read = max(held, default=0) + new
        if read > self.context:
            raise UserError(
                f"The text has reached {read:,} tokens, but this model reads at most {self.context:,}; "
                "please shorten the prompt or generate fewer tokens."
            )


def greedy(
    session: Session, ids: Tensor, n: int, real: Tensor | None = None, *, stop: frozenset[int] = frozenset()
) -> Iterator[Tensor]:
    """Read the prompt, then yield the likeliest next tokens, long (B,), `n` times or until all rows stopped.

    ids: long (B, T); real: bool (B, T), False where padding (left). stop: ids that end a row (they are
    yielded; the row then repeats its stop token). Closing the iterator loses nothing: the session can go on."""
    import torch

    stops = torch.tensor(sorted(stop), dtype=torch.long, device=ids.device)
    tokens = session.prefill(ids, real).argmax(-1)
    for i in range(n):
        yield tokens
        guard.check_time()
        done = torch.isin(tokens, stops)
        if i + 1 < n:
            if bool(done.all()):
                return
            tokens = torch.where(done, tokens, session.step(tokens).argmax(-1))


@dataclass(frozen=True)
class Forced:
    """A given text under a policy. nll: float32 (B, n), nats per token; predicted: long (B, n), the likeliest tokens.

    Column i is about token prompt_len + i of the text."""

    nll: Tensor
    predicted: Tensor


def teacher_forced(session: Session, ids: Tensor, prompt_len: int, real: Tensor | None = None) -> Forced:
    """Read ids[:, :prompt_len] at once, then the rest token by token, as if it had been generated.

    ids: long (B, T), real: bool (B, prompt_len), False where padding (left), 0 < prompt_len < T; n = T - prompt_len.
    The first token is predicted from the full prompt; a budget bites from the second on."""
    import torch

    if not 0 < prompt_len < ids.shape[1]:
        raise ValueError(f"prompt_len {prompt_len} leaves nothing to read or to predict of {ids.shape[1]} tokens")
    logits = session.prefill(ids[:, :prompt_len], real)
    nll, predicted = [], []
    for column in range(prompt_len, ids.shape[1]):
        guard.check_time()
        target = ids[:, column]
        nll.append(torch.nn.functional.cross_entropy(logits.float(), target, reduction="none"))
        predicted.append(logits.argmax(-1))
        if column + 1 < ids.shape[1]:
            logits = session.step(target)
    return Forced(torch.stack(nll, 1), torch.stack(predicted, 1))


def kept_map(cache: PolicyCache, row: int = 0, layer: int | None = None, head: int | None = None) -> Tensor:
    """Who still holds which token: float32 (steps, tokens), the share of (layer, KV head) pairs, or of the chosen ones.

    Step 0 is the prefill. Needs a session with record=True; merged slots count at the place they took."""
    import torch

    events = [e for e in cache.events if layer is None or e.layer == layer]
    held = [(e.step, e.positions[row] if head is None else e.positions[row, head : head + 1]) for e in events]
    steps = max(step for step, _ in held) + 1
    tokens = int(cache.layers[0].tokens[row])
    counts, pairs = torch.zeros(steps, tokens + 1), torch.zeros(steps, 1)
    for step, positions in held:
        places = positions.flatten().clamp(max=tokens).cpu()  # padding goes to a column of its own
        counts[step] += torch.bincount(places, minlength=tokens + 1)
        pairs[step] += positions.shape[0]
    return (counts / pairs)[:, :tokens]


def spread(weights: Tensor, positions: Tensor, length: int) -> Tensor:
    """Weights over slots -> weights over the first `length` tokens of the text, zero where a token is gone.

    weights: (B, Hq, q, L), positions: long (B, Hkv, L) -> (B, Hq, q, length)."""
    group = weights.shape[1] // positions.shape[1]
    places = positions.clamp(max=length).repeat_interleave(group, 1)  # padding goes to a column that is cut off
    spread_out = weights.new_zeros(*weights.shape[:3], length + 1)
    return spread_out.scatter_add(3, places[:, :, None].expand_as(weights), weights)[..., :length]


def attention_mass_recall(weights: Tensor, keep: Tensor) -> Tensor:
    """Share of the attention that falls on the kept keys: weights (..., L), bool keep (..., L) -> (...)."""
    return (weights * keep).sum(-1) / weights.sum(-1)
