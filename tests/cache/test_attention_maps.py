"""Attention maps: numbers by hand on three and four tokens, pictures back to weights, and the library's own weights."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokenlab import limits, views
from tokenlab.cache import attention_maps as am
from tokenlab.errors import UserError
from tokenlab.models import LanguageModel, Prompt
from tokenlab.text.tokenization import Tokenization

# One head on three tokens. Query 1: half and half; query 2: a quarter, a quarter, a half.
THREE = np.array([[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]], np.float32)
# Four tokens a b a b. The last looks back at what followed the first b.
FOUR = np.array([[1, 0, 0, 0], [0.4, 0.6, 0, 0], [0.1, 0.7, 0.2, 0], [0.05, 0.15, 0.8, 0]], np.float32)
SIZES = dict(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
ROOM = dict(max_position_embeddings=600, eos_token_id=None, bos_token_id=None)
CONFIGS = {
    "llama": hf.LlamaConfig(**SIZES, **ROOM),
    "grouped": hf.LlamaConfig(**SIZES, **ROOM, num_key_value_heads=2),
    "gpt2": hf.GPT2Config(vocab_size=300, n_positions=600, n_embd=32, n_layer=3, n_head=4),
}


class Bytes:
    """One token a byte; ids 256 and 257 are special."""

    vocabulary_size = 258

    def encode(self, text):
        ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
        return Tokenization(ids, np.arange(len(ids)), np.arange(len(ids)) + 1)

    def pieces(self):
        return [bytes([i]) for i in range(256)] + [b"", b""]


def language_model(config, opening=(256,)) -> LanguageModel:
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and re.search("q_proj|k_proj|c_attn", name):
                parameter.mul_(12)  # as initialized, attention is nearly flat
    return LanguageModel("toy", model, Bytes(), opening, frozenset(), 600)


def seen_of(weights, ids=None) -> am.Attended:
    weights = np.asarray(weights, np.float32)
    weights = weights.reshape((1,) * (4 - weights.ndim) + weights.shape)
    length = weights.shape[-1]
    ids = np.arange(length) if ids is None else np.array(ids)
    return am.Attended("toy", ids, tuple(f"t{i}" for i in ids), weights, am.find_sinks(weights))


def pixels(png: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(png))))


# ---- numbers


def test_entropy_in_bits():
    # Query 1 chooses between two alike: 1 bit. Query 2: 2/4 + 2/4 + 1/2 = 1.5 bits. The first query has no choice.
    assert am.entropy(THREE) == pytest.approx((1 + 1.5) / 2)
    assert am.entropy(np.eye(4, dtype=np.float32)) == 0


def test_mean_distance_in_tokens():
    # Query 1: 0.5 * 1. Query 2: 0.25 * 2 + 0.25 * 1.
    assert am.mean_distance(THREE) == pytest.approx((0.5 + 0.75) / 2)


def test_previous_token_share():
    assert am.previous_share(THREE) == pytest.approx((0.5 + 0.25) / 2)
    assert am.previous_share(FOUR) == pytest.approx((0.4 + 0.7 + 0.8) / 3)


def test_sink_share_leaves_out_queries_that_see_nothing_else():
    assert am.sink_share(THREE, [0]) == pytest.approx((0.5 + 0.25) / 2)
    assert am.sink_share(THREE, [0, 1]) == pytest.approx(0.5)  # query 2 alone has a choice
    assert am.sink_share(THREE, [1]) == pytest.approx((0 + 0.5 + 0.25) / 3)  # even the first sees a token that is none
    assert am.sink_share(THREE, []) is None and am.sink_share(THREE, [0, 1, 2]) is None


def test_induction_looks_at_what_followed_last_time():
    # a b a b: query 2 (a) should look at key 1; query 3 (b) at key 2.
    assert am.induction(FOUR, np.array([5, 6, 5, 6])) == pytest.approx((0.7 + 0.8) / 2)
    # a a b a: query 1 follows at once, so key 1 is itself and does not count; query 3 has two places, keys 1 and 2.
    assert am.induction(FOUR, np.array([5, 5, 6, 5])) == pytest.approx(0.15 + 0.8)
    assert am.induction(FOUR, np.array([5, 6, 7, 8])) is None
    assert am.induction(THREE, np.array([5, 5, 6])) is None


def test_numbers_are_per_head():
    both = np.stack([THREE, np.eye(3, dtype=np.float32)])[None]
    assert am.entropy(both).shape == (1, 2)
    assert am.mean_distance(both)[0].tolist() == pytest.approx([0.625, 0])


def causal(draw_seed: int, length: int, heads: int = 2) -> np.ndarray:
    logits = np.random.default_rng(draw_seed).normal(size=(1, heads, length, length)) * 3
    logits = np.where(np.tril(np.ones((length, length), bool)), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_numbers_stay_in_their_bounds(seed, length):
    weights = causal(seed, length)
    ids = np.random.default_rng(seed).integers(0, 4, length)
    assert (am.entropy(weights) >= -1e-6).all() and (am.entropy(weights) <= np.log2(length)).all()
    assert (am.mean_distance(weights) >= 0).all() and (am.mean_distance(weights) <= length - 1).all()
    for share in (am.previous_share(weights), am.sink_share(weights, [0]), am.induction(weights, ids)):
        assert share is None or (share >= 0).all() and (share <= 1 + 1e-6).all()


# ---- sinks


def even(length: int) -> np.ndarray:
    return (np.tril(np.ones((length, length))) / np.arange(1, length + 1)[:, None]).astype(np.float32)


def test_an_even_spread_gives_everyone_one_share_and_no_sink():
    times = am.received(even(40)[None, None])
    judged = 40 - am.FAR - am.QUERIES + 1  # later tokens have fewer than QUERIES queries that are FAR away
    np.testing.assert_allclose(times[:judged], 1, rtol=1e-5)
    assert np.isnan(times[judged:]).all()
    assert am.find_sinks(even(40)[None, None]) == {}


def test_a_token_that_draws_half_of_all_attention_is_a_sink():
    weights = even(60) * 0.5
    weights[:, 0] += 0.5
    weights[:3, :3] = even(3)
    # Query q gives the first token 0.5 + 0.5 / (q + 1), an even spread 1 / (q + 1); queries 8..59.
    shares = 1 / np.arange(9, 61)
    expected = (0.5 + 0.5 * shares).sum() / shares.sum()
    assert am.find_sinks(weights[None, None]) == {0: pytest.approx(expected)}
    assert expected > am.SINK


def test_attention_to_neighbours_makes_no_sink():
    previous = np.eye(40, k=-1, dtype=np.float32)
    previous[0, 0] = 1
    assert am.find_sinks(previous[None, None]) == {}


def test_a_sink_of_one_head_among_many_is_none():
    weights = np.stack([even(60)] * 20)
    weights[0] = 0
    weights[0, :, 0] = 1
    assert am.find_sinks(weights[None]) == {}


# ---- pictures


def test_png_is_255_times_the_root():
    assert pixels(am.png(THREE)).tolist() == [[255, 0, 0], [180, 180, 0], [128, 128, 180]]
    assert Image.open(io.BytesIO(base64.b64decode(am.png(THREE[1:])))).size == (3, 2)  # two queries, three keys


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 40))
def test_weights_come_back_from_a_png(seed, length):
    weights = causal(seed, length, heads=1)[0, 0]
    back = (pixels(am.png(weights)) / 255.0) ** 2
    assert np.abs(back - weights).max() < 0.004


# ---- a model's own weights


@pytest.mark.parametrize("name", CONFIGS)
def test_maps_are_the_models_own(name):
    model = language_model(CONFIGS[name])
    seen = am.attend(model, model.prompt("she sells sea shells"))
    ids = torch.tensor([[256, *b"she sells sea shells"]])
    with torch.no_grad():
        stock = torch.stack(model.torch(ids, output_attentions=True).attentions)[:, 0]
    assert seen.weights.shape == (3, 4, 21, 21)
    np.testing.assert_allclose(seen.weights, stock.numpy(), atol=1e-5)
    assert np.ptp(stock.numpy()[..., -1, :]) > 0.2, "flat attention would hide a mistake"
    assert seen.ids.tolist() == ids[0].tolist() and seen.note == ""
    view = am.maps_view(seen)
    np.testing.assert_allclose((pixels(view.maps[2][3]) / 255) ** 2, stock[2, 3], atol=0.004)


def test_a_long_prompt_is_read_from_its_end():
    model = language_model(CONFIGS["llama"])
    text = "".join(chr(97 + i % 26) for i in range(limits.ATTENTION_TOKENS + 44))
    seen = am.attend(model, model.prompt(text))
    assert seen.ids.tolist() == [256, *text.encode()[-limits.ATTENTION_TOKENS + 1 :]]
    assert seen.note == "The prompt has 301 tokens; for these maps toy reads only the last 256."
    assert am.maps_view(seen).note.startswith(seen.note)
    np.testing.assert_allclose(seen.weights.sum(-1), 1, atol=1e-5)


def test_shortened_keeps_the_opening():
    ids = np.arange(10)
    assert am.shortened(ids, 1, 4).tolist() == [0, 7, 8, 9]
    assert am.shortened(ids, 0, 4).tolist() == [6, 7, 8, 9]
    assert am.shortened(ids, 1, 10).tolist() == ids.tolist()


def test_the_note_of_a_prompt_is_kept():
    model = language_model(CONFIGS["llama"])
    prompt = model.prompt("abc")
    assert am.attend(model, Prompt(prompt.ids, prompt.tokens, 7, "Seven are left out.")).note == "Seven are left out."
    long = model.prompt("ab" * 150)
    long = Prompt(long.ids, long.tokens, 7, "Seven are left out.")
    assert am.attend(model, long).note == "The prompt has 308 tokens; for these maps toy reads only the last 256."


def test_one_token_is_too_few():
    model = language_model(CONFIGS["llama"], opening=())
    with pytest.raises(UserError, match="please write a few words"):
        am.attend(model, model.prompt("a"))


def test_a_model_without_open_attention_is_one_sentence():
    config = hf.MambaConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, state_size=4)
    torch.manual_seed(0)
    model = LanguageModel("toy", hf.MambaForCausalLM(config), Bytes(), (), frozenset(), 600)
    with pytest.raises(UserError) as caught:
        am.attend(model, model.prompt("abc"))
    assert str(caught.value) == (
        "Looking into attention and the cache needs a decoder with ordinary attention in all layers; "
        "please choose another model."
    )


def test_texts_are_bytes_and_never_replacement_characters():
    model = language_model(CONFIGS["llama"])
    ids = np.array([256, *"a€".encode(), 257, 299])
    assert am.texts(model, ids) == ("⟨start⟩", "a", "\\xe2", "\\x82", "\\xac", "⟨257⟩", "⟨299⟩")


# ---- views


def test_the_view_carries_numbers_marks_and_help():
    weights = even(60) * 0.4
    weights[:, 0] += 0.6
    weights[0, 0] = 1
    heads = np.stack([weights, even(60)])
    view = am.maps_view(seen_of(heads[None], ids=[i % 50 for i in range(60)]))
    assert view.marks == {0: "sink"}
    assert list(view.numbers) == [am.ENTROPY, am.DISTANCE, am.SINKS, am.PREVIOUS, am.INDUCTION]
    assert set(view.help) == {*view.numbers, "sink"}
    assert view.numbers[am.SINKS][0][0] > 0.6 > view.numbers[am.SINKS][0][1]
    assert view.chosen == (0, 1)  # more on what followed, because less on the sink
    assert view.note == "" and (view.queries, len(view.maps), len(view.maps[0])) == (60, 1, 2)
    plain = json.loads(json.dumps(views.to_json(view), allow_nan=False))
    assert plain["marks"] == {"0": "sink"} and plain["chosen"] == [0, 1]


def test_what_cannot_be_measured_is_said_and_left_out():
    view = am.maps_view(seen_of(FOUR))
    assert list(view.numbers) == [am.ENTROPY, am.DISTANCE, am.PREVIOUS]
    assert view.marks == {} and "sink" not in view.help
    assert view.note == (
        "No token gets over 4 times an even share from all heads together, so no sink is marked. "
        "No token comes back, so there is no induction score."
    )
    sharp = np.stack([even(4), np.eye(4, dtype=np.float32)])
    assert am.maps_view(seen_of(sharp[None])).chosen == (0, 1)  # the lowest entropy


def test_the_table_has_a_row_for_each_head():
    table = am.heads_view(seen_of(np.stack([THREE, np.eye(3)])[:, None]))
    assert table.columns == ("Layer", "Head", "Entropy [bits]", "Mean distance [tokens]", "Previous-token share")
    assert table.rows[0] == (0, 0, pytest.approx(1.25), pytest.approx(0.625), pytest.approx(0.375))
    assert table.rows[1] == (1, 0, 0, 0, 0)
    assert set(table.help) == set(table.columns[2:])
