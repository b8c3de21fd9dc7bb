"""Byte models: sampling by hand, a byte-vocabulary network against reading everything at once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tokenlab.errors import UserError
from tokenlab.models import LanguageModel
from tokenlab.models.byte_model import (
    END,
    SYMBOLS,
    Network,
    OneTokenPerByte,
    generate,
    likelihoods,
    log_softmax,
    sharpened,
)
from tokenlab.text.tokenizer_json import BYTE_OF, TokenizerJson

CONTEXT = 48


def byte_tokenizer(extra: tuple[str, ...] = ()) -> TokenizerJson:
    """As recipes/bytelm.py makes it: three special tokens, then the bytes in the order of the BPE alphabet."""
    special = ["<s>", "</s>", "<pad>"]
    vocab = {entry: i for i, entry in enumerate([*special, *sorted(BYTE_OF), *extra])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    config = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": content, **flags} for i, content in enumerate(special)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {"type": "BPE", "vocab": vocab, "merges": [[entry[0], entry[1]] for entry in extra]},
    }
    return TokenizerJson("bytes", "bytes", json.loads(json.dumps(config)))


def byte_lm(opening: tuple[int, ...] = (0,)) -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.5,
    )
    config._attn_implementation = "eager"
    network = LlamaForCausalLM(config).double().eval()
    return LanguageModel("byte toy", network, byte_tokenizer(), opening, frozenset({1}), CONTEXT)


def at_once(model: LanguageModel, text: bytes) -> np.ndarray:
    """(257,) by reading the whole text without a cache: every byte by name, and </s>."""
    spelled = {BYTE_OF[entry]: i for i, entry in enumerate(sorted(BYTE_OF), start=3)}
    with torch.inference_mode():
        logits = model.torch(torch.tensor([[0, *(spelled[byte] for byte in text)]])).logits[0, -1]
    p = torch.softmax(logits, -1).numpy()
    p = np.array([*(p[spelled[byte]] for byte in range(256)), p[1]])
    return p / p.sum()


# --- sampling


def test_temperature_by_hand():
    p = np.array([0.5, 0.25, 0.25, 0.0])
    np.testing.assert_allclose(sharpened(p, 1.0), p)
    np.testing.assert_allclose(sharpened(p, 0.5), [2 / 3, 1 / 6, 1 / 6, 0])  # squares: 4, 1, 1
    np.testing.assert_allclose(sharpened(np.array([0.8, 0.2, 0.0]), 2.0), [2 / 3, 1 / 3, 0])  # roots: 2, 1
    np.testing.assert_array_equal(sharpened(p, 0.05), [1, 0, 0, 0])
    np.testing.assert_array_equal(sharpened(p, 0.0), [1, 0, 0, 0])


def test_top_p_by_hand():
    p = np.array([0.1, 0.5, 0.15, 0.25])
    np.testing.assert_allclose(sharpened(p, 1.0, 0.5), [0, 1, 0, 0])
    np.testing.assert_allclose(sharpened(p, 1.0, 0.51), [0, 2 / 3, 0, 1 / 3])
    np.testing.assert_allclose(sharpened(p, 1.0, 0.76), [0, 5 / 9, 1.5 / 9, 2.5 / 9])
    np.testing.assert_allclose(sharpened(p, 1.0, 0.05), [0, 1, 0, 0])  # the first one always stays


class Cycle:
    """Says a, b, c and then the end, with certainty."""

    name = "cycle"

    def start(self, prefix: bytes, room: int = 0) -> int:
        return len(prefix)

    def next(self, state: int) -> np.ndarray:
        return np.eye(SYMBOLS)[[*b"abc", END][min(state, 3)]]

    def advance(self, state: int, byte: int) -> int:
        return state + 1


def test_generation_stops_at_the_end_or_at_the_length():
    rng = np.random.default_rng(0)
    assert bytes(generate(Cycle(), 0, 10, 0.7, 1.0, rng)) == b"abc"
    assert bytes(generate(Cycle(), 0, 2, 0.7, 1.0, rng)) == b"ab"
    assert bytes(generate(Cycle(), 3, 2, 0.7, 1.0, rng)) == b""


def test_likelihoods_of_the_toy():
    np.testing.assert_array_equal(likelihoods(Cycle(), 0, b"abx"), [1, 1, 0])
    assert len(likelihoods(Cycle(), 0, b"")) == 0


def test_log_softmax_in_float64():
    found = log_softmax(np.array([[1e4, 1e4, -1e4]], np.float32))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[0, :2], -np.log(2))


# --- a network over bytes


def test_the_next_byte_is_the_next_token():
    model = byte_lm()
    view = OneTokenPerByte.of(model)
    text = "Café, 3 €".encode()
    state = view.start(b"")
    for k, byte in enumerate(text):
        np.testing.assert_allclose(view.next(state), at_once(model, text[:k]), rtol=1e-9)
        assert view.next(state).sum() == pytest.approx(1, abs=1e-12)
        state = view.advance(state, byte)
    np.testing.assert_allclose(view.next(state), at_once(model, text), rtol=1e-9)
    np.testing.assert_allclose(view.next(view.start(text)), view.next(state), rtol=1e-9)


def test_states_are_values():
    view = OneTokenPerByte.of(byte_lm())
    state = view.start(b"ab")
    before = view.next(state).copy()
    c, d = view.advance(state, ord("c")), view.advance(state, ord("d"))
    np.testing.assert_array_equal(view.next(state), before)
    np.testing.assert_allclose(view.next(view.advance(c, 0)), view.next(view.start(b"abc\0")), rtol=1e-9)
    np.testing.assert_allclose(view.next(view.advance(d, 0)), view.next(view.start(b"abd\0")), rtol=1e-9)


def test_likelihoods_are_those_of_the_whole_text():
    model = byte_lm()
    view = OneTokenPerByte.of(model)
    found = likelihoods(view, view.start(b"a"), b"bcd")
    wanted = [at_once(model, b"a")[ord("b")], at_once(model, b"ab")[ord("c")], at_once(model, b"abc")[ord("d")]]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_a_seed_gives_one_text():
    view = OneTokenPerByte.of(byte_lm())
    texts = [bytes(generate(view, view.start(b"x"), 20, 1.0, 1.0, np.random.default_rng(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_of_a_long_prefix_the_end_is_read():
    model = byte_lm()
    view = OneTokenPerByte.of(model)
    text = bytes(range(97, 123)) * 3
    np.testing.assert_allclose(view.next(view.start(text, room=10)), at_once(model, text[-37:]), rtol=1e-9)
    state = view.start(text, room=2)
    state = view.advance(view.advance(state, 65), 66)
    with pytest.raises(UserError, match="room for 48 bytes"):
        view.advance(state, 67)
    with pytest.raises(UserError, match="no room for 48 more bytes"):
        view.start(text, room=48)


def test_without_an_opening_a_prompt_is_needed():
    view = OneTokenPerByte.of(byte_lm(opening=()))
    assert view.next(view.start(b"a")).sum() == pytest.approx(1)
    with pytest.raises(UserError, match="prompt is empty"):
        view.start(b"")


def test_which_models_fit():
    model = byte_lm()
    assert OneTokenPerByte.fits(model)
    merged = LanguageModel("m", model.torch, byte_tokenizer(("ab",)), (0,), frozenset({1}), CONTEXT)
    assert not OneTokenPerByte.fits(merged)


def test_rows_of_unequal_length_do_not_disturb_each_other():
    network = Network(byte_lm())
    _, past = network.read([0, 50, 60])
    rows = [(70,), (71, 72, 73), (74, 75)]
    together = network.after(rows, past)
    for row, found in zip(rows, together, strict=True):
        np.testing.assert_allclose(found, network.after([row], past)[0], rtol=1e-9)
        np.testing.assert_allclose(found, network.read([0, 50, 60, *row])[0], rtol=1e-9)
