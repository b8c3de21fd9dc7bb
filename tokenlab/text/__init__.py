"""Tokenizers: how text is cut into the pieces that a language model reads.

Members share one interface, `tokenization.py`: a `Tokenizer` cuts a text into byte spans with ids,
and can list its vocabulary as bytes. `sources.py` turns a short reference such as "mistral-v3",
"hub:owner/name" or "trained:0a1b..." into a Tokenizer; files that users upload are opened only in a
child process (`child.py`).

The workbench is `compare.py`; its parts are `metrics.py` (the numbers), `languages.py` (fertility over
46 languages), `vocabulary.py`, `attack.py`, `training.py` and `replay.py` (train a tokenizer and watch
it grow).

One file per paper:

- `less_is_better.py`: Rethinking Tokenization, the Less-is-Better model
- `data_mixture.py`: Data Mixture Inference, what BPE tokenizers reveal about their training data
- `byte_probabilities.py`: Exact Byte-Level Probabilities, a token model as the same model of bytes; its shared
  interface for models that predict bytes is `tokenlab/models/byte_model.py`
- `dahsf.py`: Digestion Algorithm in Hierarchical Symbolic Forests, commands read by a dictionary in two layers; with
  `data_words.py` (numbers, dates, times, units) and `learned_parser.py` (what it is compared with)
- `xgrammar.py`: XGrammar, which tokens a grammar allows next; with `grammar.py` (automata over bytes, with a stack)
  and `json_schema.py`

Still to come: adt, compoundpiece, dynamic-tokenization, zett.
"""
