"""The attention that shows its weights to a policy, and the twin of a model that uses it."""

from __future__ import annotations

import copy
import itertools
import sys

import torch
from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from tokenlab.errors import UserError
from tokenlab.kv.cache import PolicyCache, PolicyLayer, Rotate
from tokenlab.kv.policies import PADDING, Observation

NAME = "tokenlab"  # under which transformers knows the function
UNKNOWN = ("softcap", "s_aux", "position_bias")  # extras of some models' attention that we do not compute


def twin(model: PreTrainedModel, cache: PolicyCache) -> PreTrainedModel:
    """The same model, with the same parameters in memory, whose attention works on `cache`.

    Modules and config are copied (milliseconds), tensors are shared. The model itself is left as it is,
    so its other users notice nothing. UserError when its attention cannot be exchanged."""
    shared = {id(x): x for x in itertools.chain(model.parameters(), model.buffers())}
    copied = copy.deepcopy(model, shared)
    copied.set_attn_implementation(NAME)
    if copied.config._attn_implementation != NAME:
        raise UserError(
            f"The attention of a {model.config.model_type} model cannot be opened; "
            "please choose a model of the Llama, Qwen, Mistral, GPT-2 or Pythia kind."
        )
    for module in copied.modules():
        if hasattr(module, "layer_idx"):
            module.kv_cache = cache
    return copied


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **extras: object,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention of one layer over the slots it holds, then the policy's turn.

    query: (B, Hq, q, d); key, value: (B, Hkv, L, d), the new tokens included; attention_mask: bool (B, q or
    more), False where padding, its last q columns are the new tokens. Returns the output (B, q, Hq, d) and,
    if computed, the weights, float32 (B, Hq, q, L). What is allowed follows from the slots' own positions,
    since layers and heads hold different tokens. The step that produces a token sees the cache as it was;
    eviction comes after."""
    _refuse_unknown(module, attention_mask, extras)
    cache: PolicyCache = module.kv_cache
    layer = cache.layers[module.layer_idx]
    cached = key is layer.keys
    new = query.shape[2]
    if not cached:
        # A forward without a cache, such as a training step: all the text at once, nothing to evict.
        if key.shape[2] != new:
            raise RuntimeError("this model belongs to a session: pass past_key_values=session.cache")
        layer = PolicyLayer(module.layer_idx, layer.rotate)
        key, value = layer.update(key, value)
    layer.arrive(None if attention_mask is None else attention_mask[:, -new:])

    q_pos, kv_pos = layer.positions[:, 0, -new:], layer.positions
    if cache.compacted:
        key = layer.rotate(key, gaps(kv_pos))
    if cache.view is not None:
        key, value, kv_pos = cache.view.keys_for(layer, query, key, value, kv_pos)
    group = query.shape[1] // key.shape[1]
    allowed = visible(q_pos, kv_pos, sliding_window).repeat_interleave(group, 1)
    if cache.view is not None:
        extra = cache.view.mask(layer, query, key, q_pos, kv_pos)
        allowed = allowed if extra is None else allowed & extra

    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    logits = weights = None
    if cache.keep_attention or cached and cache.policy.needs_weights:
        logits, weights, out = _open_attention(query, key, value, allowed, scaling, dropout)
    else:
        out = nn.functional.scaled_dot_product_attention(
            query, key, value, allowed, dropout, scale=scaling, enable_gqa=group > 1
        )

    if cache.keep_attention:
        cache.attentions[layer.index] = weights, kv_pos
    if cached:
        phase = "decode" if layer.forwards else "prefill"
        cache.settle(Observation(layer, phase, query, logits, weights, q_pos, kv_pos, group))
    return out.transpose(1, 2).contiguous(), weights


def visible(q_pos: Tensor, kv_pos: Tensor, window: int | None = None) -> Tensor:
    """Where a query may look: not ahead, not beyond the model's own window, not at padding.

    q_pos: long (B, q), kv_pos: long (B, H, L) -> bool (B, H, q, L). A padded query sees all padding and
    nothing else: a row of the mask must not be empty, and no token may collect weight from padding."""
    queries, keys = q_pos[:, None, :, None], kv_pos[:, :, None, :]
    allowed = (keys <= queries) & ((queries < PADDING) | (keys == PADDING))
    return allowed if window is None else allowed & (keys > queries - window)


def gaps(positions: Tensor) -> Tensor:
    """How many tokens are missing between each slot and the newest one: long (B, H, L) -> (B, H, L).

    Rotating a key forward by its gap makes its distance to the newest token count slots (StreamingLLM,
    Xiao et al. 2023, section 3.2). RoPE sees only distances, so queries and new keys stay as they are,
    and rounding errors do not build up from step to step."""
    length = positions.shape[-1]
    slots = torch.arange(length, device=positions.device)
    distance = positions[..., -1:] - positions
    return (distance - (length - 1 - slots)).masked_fill(positions == PADDING, 0)


def rotation(model: nn.Module) -> Rotate | None:
    """The function (keys (B, H, L, d), delta long (B, H, L)) -> keys moved on by `delta` positions of RoPE.

    By the model's own rotary code, so interleaved and partial rotations come out right. None for models
    with learned positions and for RoPE whose frequencies change with the length."""
    layer = next((m for m in model.modules() if hasattr(m, "layer_idx") and hasattr(m, "scaling")), None)
    apply = getattr(sys.modules[type(layer).__module__], "apply_rotary_pos_emb", None)
    rotary = next((m for m in model.modules() if hasattr(m, "inv_freq")), None)
    if apply is None or rotary is None or rotary.rope_type in ("dynamic", "longrope"):
        return None

    def rotate(keys: Tensor, delta: Tensor) -> Tensor:
        flat = keys.reshape(-1, 1, *keys.shape[2:]).float()  # heads become rows: each has its own positions
        cos, sin = rotary(flat, delta.reshape(flat.shape[0], -1))
        # The model has already applied the length scaling of YaRN to its keys; a second time would be wrong.
        cos, sin = cos / rotary.attention_scaling, sin / rotary.attention_scaling
        return apply(flat, flat, cos, sin)[1].reshape(keys.shape).to(keys.dtype)

    return rotate


def _open_attention(
    query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scaling: float, dropout: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and weights (B, Hq, q, L), and the output (B, Hq, q, d); in float32, whatever the model's dtype."""
    rows, heads, new, size = query.shape
    kv_heads = key.shape[1]
    # The query heads of a group stand below each other, so that keys need not be repeated.
    stacked = query.reshape(rows, kv_heads, -1, size).float()
    logits = (stacked @ key.float().transpose(2, 3) * scaling).reshape(rows, heads, new, -1)
    logits = logits.masked_fill(~allowed, torch.finfo(torch.float32).min)
    weights = logits.softmax(-1)
    used = nn.functional.dropout(weights, dropout) if dropout else weights
    out = used.reshape(rows, kv_heads, -1, used.shape[-1]) @ value.float()
    return logits, weights, out.reshape(rows, heads, new, -1).to(query.dtype)


def _refuse_unknown(module: nn.Module, attention_mask: Tensor | None, extras: dict[str, object]) -> None:
    """Rather than leave something out silently."""
    found = [name for name in UNKNOWN if extras.get(name) is not None]
    if found or not getattr(module, "is_causal", True):
        what = found[0] if found else "an encoder"
        raise UserError(f"This model's attention has {what}, which cannot be looked into here; please choose another.")
    if attention_mask is not None and attention_mask.ndim != 2:
        raise ValueError("an evicting cache needs the 2-D padding mask (B, columns), not a prepared 4-D one")


def _padding_mask(attention_mask: Tensor | None = None, **_: object) -> Tensor | None:
    """In place of a mask for all layers: the padding (B, q or more), handed through to `attention`."""
    return attention_mask


ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _padding_mask)
