"""The KV cache and attention of any causal language model, open to a policy. For cache and attention systems.

    session = Session(model, LocalWindow(Budget(ratio=0.2)), record=True)
    for tokens in greedy(session, prompt_ids, 50): ...
    session.cache.kv_bytes_per_step, kept_map(session.cache)

A `Session` runs the user's model through a twin: the same parameters, its own config, its own cache. The
twin's attention (`attention.py`) computes exactly what the model's own would, then shows the weights to
the policy, which says what stays. Nothing of the model itself changes, so any number of sessions may run
on one model at once, in threads or taking turns.

- `policies.py`: what a method writes. `KVPolicy` evicts (H2O, Keyformer) or merges (EMS): usually `score`
  alone. `AttentionView` limits or extends what a query sees without evicting (HiP, CCA). And the simple
  policies that every comparison needs: `Full`, `LocalWindow`, `RandomRecent`.
- `cache.py`: `PolicyLayer`, the slots of one decoder layer, and `PolicyCache` (import torch on demand).
- `attention.py`: the attention function and the twin.
- `session.py`: prefill, step, greedy generation, teacher forcing, and what the pictures are made from.

A slot is one entry of the cache, in one layer and one KV head. Every layer and every KV head evicts for
itself, but all hold the same number of slots. B: rows of the batch, Hq and Hkv: query and KV heads,
q: new tokens of a forward, L: slots, d: head size.
"""

from tokenlab.kv.policies import (
    PADDING,
    AttentionView,
    Budget,
    Full,
    KVPolicy,
    LocalWindow,
    Observation,
    RandomRecent,
    Reduced,
    Slots,
    head_mean,
    keep_best,
)
from tokenlab.kv.session import (
    Forced,
    Session,
    attention_mass_recall,
    greedy,
    kept_map,
    spread,
    teacher_forced,
)

__all__ = [
    "PADDING",
    "AttentionView",
    "Budget",
    "Forced",
    "Full",
    "KVPolicy",
    "LocalWindow",
    "Observation",
    "RandomRecent",
    "Reduced",
    "Session",
    "Slots",
    "attention_mass_recall",
    "greedy",
    "head_mean",
    "keep_best",
    "kept_map",
    "spread",
    "teacher_forced",
]
