"""Attention & cache: where a model looks in the text that it has read, and what of it stays in memory.

A language model that writes keeps keys and values of every token so far, in each layer and head: the KV cache. The
systems here make it smaller (by evicting or merging entries), or look at less of it.

Members share one interface, `tokenlab.kv` (its docstring is the next page to read). A method that evicts or merges is
a `KVPolicy`, often no more than `score`; a method that limits what a query sees is an `AttentionView`. A `Session`
runs any causal language model with either of them. Entries that are evicted are removed from memory, not masked.

Below the systems stands `trials.py`: one prompt under several policies, many stories under one, and their views and
intervals. A method is compared there with the full cache, a random choice and local windows.

The workbench is `compare.py`. Its parts: `attention_maps.py` (where every head looks, in pictures and numbers) and the
registry `policies.py` (a policy joins by one line).

One file per paper:

- `h2o.py`: H2O, keeps the newest tokens and those that drew most attention

Still to come: keyformer, ems, hip-attention, cca-attention, hmt, tokenring.
"""
