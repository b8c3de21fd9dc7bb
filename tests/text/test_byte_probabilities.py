"""Exact byte probabilities: the Markov chain by hand, adding up all sequences, identities, the panel."""

from __future__ import annotations

import dataclasses
import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as library

from tests.test_byte_model import byte_lm, byte_tokenizer
from tokenlab import guard, models, spec, views
from tokenlab.errors import UserError
from tokenlab.models import LanguageModel
from tokenlab.models.byte_model import END, OneTokenPerByte, generate, likelihoods
from tokenlab.text import byte_probabilities as bp
from tokenlab.text.sandbox import File, SandboxedTokenizer
from tokenlab.text.tokenization import encode_many
from tokenlab.text.tokenizer_json import TokenizerJson

PATTERN = r" ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"  # of recipes/tinylm.py
LESSON = (
    "The lantern is in the kitchen. Mia has a kite, and Otto lives in Norwick. The code of the tower is 482.\n"
    "Ein schöner Käfer fährt über die Brücke. Café, 3 € und 日本語, naïve “quotes” 🙂🙂.  Two  spaces,\ttabs\n\n"
)


def trained(pattern: str | None = PATTERN, size: int = 420) -> TokenizerJson:
    """A byte-level BPE with all 256 bytes; pattern None: GPT-2's rule."""
    tokenizer = Tokenizer(library.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([LESSON] * 3, trainer)
    return TokenizerJson("trained", "trained", json.loads(tokenizer.to_str()))


@cache
def toy(pattern: str | None = PATTERN) -> LanguageModel:
    return bp.toy_model(1, trained(pattern), context=256)


@cache
def exact(mask: str = bp.STRICT, pattern: str | None = PATTERN) -> bp.ExactBytes:
    return bp.ExactBytes.of(toy(pattern), mask)


def close(state: bp.State, other: bp.State, model: bp.ExactBytes) -> None:
    """The same distribution, and the same cover apart from what is settled."""
    np.testing.assert_allclose(model.next(state), model.next(other), rtol=1e-9, atol=1e-14)
    share = sorted(e.logp - state.total for e in state.cover)
    np.testing.assert_allclose(share, sorted(e.logp - other.total for e in other.cover), atol=1e-9)


# --- the Markov chain


def test_the_chain_by_hand():
    """P(A|A) = 0.7, P(A|B) = 0.4: behind a lone token A the token model says B, the chain says 0.3."""
    rows = bp.chain_rows("BA", 0.7, 0.4)
    np.testing.assert_allclose(rows["true"], [0.7, 0.3])
    np.testing.assert_allclose(rows[bp.NAIVE], [0, 1])
    np.testing.assert_allclose(rows[bp.EXACT], [0.7, 0.3], atol=1e-12)
    np.testing.assert_allclose(bp.chain_rows("BAA", 0.7, 0.4)[bp.NAIVE], [0.7, 0.3], atol=1e-12)  # AA is whole
    np.testing.assert_allclose(bp.chain_rows("AB", 0.7, 0.4)[bp.EXACT], [0.4, 0.6], atol=1e-12)


def test_the_cover_of_the_chain_by_hand():
    model = bp.chain_model(0.7, 0.4)
    state = model.start(b"BA")
    found = {(e.ids, e.rest): float(np.exp(e.logp)) for e in state.cover}
    b, a, aa = bp.CHAIN.index("B"), bp.CHAIN.index("A"), bp.CHAIN.index("AA")
    # B first: 0.6. Then AA 0.4 * 0.7, or A and not A again 0.4 * 0.3.
    assert found == pytest.approx({((b, aa), b"A"): 0.6 * 0.28, ((b, a), b""): 0.6 * 0.12})
    assert np.exp(state.total) == pytest.approx(0.6 * 0.4)


@given(st.text("AB", min_size=1, max_size=9), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_the_chain_is_found_again_from_its_tokens(text, a, b):
    model = bp.chain_model(a, b)
    state = model.start(text.encode())
    probability, last = 1.0, "B"
    for letter in text:
        probability *= {"A": a, "B": b}[last] if letter == "A" else 1 - {"A": a, "B": b}[last]
        last = letter
    assert np.exp(state.total) == pytest.approx(probability)
    np.testing.assert_allclose(model.next(state)[[65, 66]], bp.chain_truth(text, a, b), atol=1e-9)


def test_the_token_model_of_the_chain_is_that_of_its_tokenized_text():
    """Counts of next tokens in a long sample, against the table."""
    rng = np.random.default_rng(0)
    letters, last = [], "B"
    for draw in rng.random(60_000):
        last = "A" if draw < {"A": 0.7, "B": 0.4}[last] else "B"
        letters.append(last)
    tokenizer = bp.chain_vocabulary().tokenizer
    ids = np.concatenate([tokenizer.encode("".join(letters)).ids])
    counts = np.zeros((4, 4))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    table = np.exp(bp.ChainTokens(0.7, 0.4).table)
    np.testing.assert_allclose(counts[:3] / counts[:3].sum(axis=1, keepdims=True), table[:3], atol=0.015)


# --- against the definition


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_cover_is_the_sum_over_all_sequences(seed):
    """Every string of up to six characters; the network is random, and fond of invalid sequences."""
    alphabet, longest = (" ab", 5) if seed else ("ab", 6)
    tokenizer = bp.toy_tokenizer(seed, alphabet, 20)
    apart, texts = bp.farthest_from_enumeration(bp.toy_model(seed, tokenizer), alphabet, longest)
    assert texts == sum(len(alphabet) ** n for n in range(1, longest + 1))
    assert apart < 1e-9


def test_the_forty_token_toy():
    apart, texts = bp.farthest_from_enumeration(bp.toy_model(7), bp.TOY_ALPHABET, 4)
    assert texts == 340 and apart < 1e-9


def gpt2_toy(quote: bool = True) -> LanguageModel:
    """Contractions and runs of spaces: the last word can change when the text goes on."""
    quoted = ["Ġ'"] if quote else []
    pairs = [*(["Ġ", entry[1]] for entry in ["Ġr", "Ġe", *quoted]), ["Ġ", "Ġ"], ["r", "e"], ["'", "re"], ["e", "r"]]
    entries = ["<s>", "</s>", "Ġ", "'", "r", "e", *(a + b for a, b in pairs)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    config = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": entries[i], **flags} for i in (0, 1)],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {entry: i for i, entry in enumerate(entries)}, "merges": pairs},
    }
    return bp.toy_model(4, TokenizerJson("gpt2", "gpt2", config))


def test_rules_that_look_ahead():
    model = gpt2_toy()
    assert bp.looks_ahead(model.tokenizer) and not bp.looks_ahead(toy().tokenizer)
    apart, _ = bp.farthest_from_enumeration(model, " r'e", 5)
    assert apart < 1e-9


def test_a_valid_sequence_whose_beginning_is_not():
    """Two spaces are one token, but two tokens before a quote: what no cover can hold is written as the tokenizer
    writes it."""
    model = bp.ExactBytes.of(gpt2_toy(quote=False), bp.FAST)
    words = model.vocabulary
    assert words.encode("r  '")[1:3] == words.encode(" ") * 2 and len(words.encode("r  ")) == 2
    state = model.start(b"r  '")
    (own,) = [e for e in state.cover if not e.rest]
    assert own.ids == words.encode("r  '")[-len(own.ids) :]
    assert model.next(state).sum() == pytest.approx(1)


def test_states_from_the_middle_agree_with_states_from_the_beginning():
    """`start` settles all words but the last at once; advancing settles them one by one."""
    model = exact()
    text = b"Mia has a ki"
    state = model.start(b"")
    for k, byte in enumerate(text, start=1):
        state = model.advance(state, byte)
        if k > 3:
            close(state, model.start(text[:k]), model)
    assert state.window == b" ki" and state.length == 1 + len(model.vocabulary.encode("Mia has a"))


# --- identities


@pytest.mark.parametrize("prefix", ["", "M", "The ki", "kitchen ", "a  ", "Two \n", "482", "x. ", "Käf", "日"])
def test_nothing_leaks(prefix):
    assert bp.leak(exact(), exact().start(prefix.encode())) < 1e-12
    assert exact().next(exact().start(prefix.encode())).sum() == pytest.approx(1, abs=1e-12)


def test_the_fast_mask_leaks_and_is_scaled_up():
    model = exact(bp.FAST)
    state = model.start(b"The kit")
    assert bp.leak(model, state) > 1e-3  # a random network is fond of invalid sequences
    p = model.next(state)
    assert p.sum() == pytest.approx(1, abs=1e-12) and p[0xFF] == 0 == p[0x80]
    asked = [(state.window + e.rest, e.ids) for e in state.cover]
    assert all(model.vocabulary.are_valid(asked)) and len(asked) > 3


def test_the_cover_holds_exactly_one_encoding_that_ends_with_the_prompt():
    model = exact()
    for prefix in ("Otto lives in Nor", "kitchen", "a ", "482"):
        state = model.start(prefix.encode())
        (own,) = [e for e in state.cover if not e.rest]
        assert own.ids == model.read(prefix.encode()).tokens
        for e in state.cover:
            text = state.window + e.rest
            assert model.vocabulary.spelled(e.ids) == text
            if not bp.split_utf8(text)[1]:
                assert model.vocabulary.encode(text.decode()) == e.ids
            assert len(model.vocabulary.spelled(e.ids[:-1])) < len(state.window)


def test_a_prompt_that_ends_in_a_space():
    """The cover holds every token of a space and a word, and the naive way none of them."""
    model = exact()
    state = model.start(b"The ")
    words = {e.rest for e in state.cover if len(e.ids) == 1}
    assert {b"", b"kit", b"in"} <= words
    reading = model.read(b"The ")
    (naive,) = model.naive(reading).cover
    assert model.vocabulary.spelled(naive.ids) == b" "


def test_a_cut_inside_a_character():
    model = exact()
    whole = "schön".encode()
    cut = model.start(whole[:4])
    assert whole[:4] == b"sch\xc3"
    p = model.next(cut)
    continuing = range(0x80, 0xC0)
    assert p[list(continuing)].sum() + p[END] == pytest.approx(1, abs=1e-12)
    close(model.advance(cut, 0xB6), model.start(whole[:5]), model)
    close(model.advance(model.start(b"sch"), 0xC3), cut, model)
    with pytest.raises(ValueError):
        model.advance(cut, ord("a"))
    with pytest.raises(UserError, match="not UTF-8"):
        model.start(b"sch\xc3n")
    for end in range(1, 4):  # 🙂 is four bytes
        assert bp.leak(model, model.start("a 🙂".encode()[: 2 + end])) < 1e-12


def test_an_empty_prompt():
    model = exact()
    state = model.start(b"")
    assert len(state.cover) == 1 and state.total == 0
    with pytest.raises(UserError, match="no token that opens a text"):
        bp.ExactBytes.of(dataclasses.replace(toy(), opening=())).start(b"Kit")
    reading = model.read(b"")
    assert model.naive(reading).cover == model.healed(reading).cover == state.cover


def test_special_tokens_in_the_text_stay_text():
    model = exact()
    reading = model.read(b"<s></s> <s> kit</s>")
    assert reading.context[0] == 0 and not {0, 1} & {*reading.context[1:], *reading.tokens}
    assert model.vocabulary.spelled((*reading.context, *reading.tokens)) == b"<s></s> <s> kit</s>"
    state = model.advance(model.start(b"a </s"), ord(">"))
    assert state.cover and all(not {0, 1} & {*e.ids} for e in state.cover)


def test_states_are_values():
    model = exact()
    state = model.start(b"The k")
    before = model.next(state).copy()
    model.next(model.advance(model.advance(state, ord("i")), ord("t")))
    model.next(model.advance(state, ord(" ")))
    np.testing.assert_array_equal(model.next(state), before)


def test_the_context_ends():
    model = exact()
    with pytest.raises(UserError, match="no room for 300 more bytes"):
        model.start(b"The kit", room=300)
    with pytest.raises(UserError, match="last word of the prompt has 300 bytes"):
        model.start(b"k" * 300)
    reading = model.read(b"The kit " * 200, room=20)
    assert reading.dropped > 0 and len(reading.context) == 256 - 20 - len(reading.window)
    state = model.start(b"The kit " * 200)
    with pytest.raises(UserError, match="room for 256 tokens"):
        for byte in b"xy xy xy xy":
            state = model.advance(state, byte)


# --- the tokenizer


TEXTS = st.text(st.sampled_from("abrein Käöß12.,'\"!\n\t€日🙂") | st.characters(codec="utf-8"), max_size=24)


@given(TEXTS, st.integers(0, 24))
@settings(max_examples=300, deadline=None)
def test_encode_has_the_prefix_property(text, end):
    """All words but the last are the same whatever follows, and so are their tokens."""
    tokenizer = toy().tokenizer
    words = tokenizer.pre_tokenize(text)
    before = tokenizer.pre_tokenize(text[:end])
    assert words[: max(0, len(before) - 1)] == before[:-1]
    settled = b"".join(before[:-1]).decode()
    count = len(tokenizer.encode(settled))
    assert tokenizer.encode(text).ids[:count].tolist() == tokenizer.encode(settled).ids.tolist()


@given(TEXTS, st.data())
@settings(max_examples=60, deadline=None)
def test_which_tokens_may_follow_is_what_encode_says(text, data):
    """The mask with its shortcut for new words, against one encoding per token."""
    words = exact().vocabulary
    parts = words.words(text)
    window = parts[-1].decode() if parts else ""
    ids = words.encode(window)
    mask = words.valid_next(window.encode(), ids)
    assert mask[1] and not mask[0]
    for i in data.draw(st.lists(st.integers(2, len(words.pieces) - 1), min_size=20, max_size=20)):
        whole, tail = bp.split_utf8(window.encode() + words.pieces[i])
        if whole is None:
            assert not mask[i]
        elif not tail:
            assert mask[i] == (words.encode(whole) == (*ids, i))


def test_split_utf8():
    assert bp.split_utf8("aé".encode()) == ("aé", b"")
    assert bp.split_utf8(b"a\xf0\x9f\x99") == ("a", b"\xf0\x9f\x99")
    assert bp.split_utf8(b"a\x99") == (None, b"")
    assert bp.split_utf8(b"") == ("", b"")


def tokenizer_of(model: dict, **parts) -> TokenizerJson:
    return TokenizerJson("x", "x", {"version": "1.0", "added_tokens": [], "model": model, **parts})


def test_other_tokenizers_are_refused_in_one_sentence():
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    unigram = tokenizer_of({"type": "Unigram", "unk_id": 0, "vocab": [["?", 0.0], ["▁a", -1.0]]}, pre_tokenizer=space)
    word_piece = tokenizer_of(
        {
            "type": "WordPiece",
            "unk_token": "?",
            "vocab": {"?": 0, "a": 1},
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        }
    )
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "a": 257, "▁a": 258}
    fallback = tokenizer_of(
        {"type": "BPE", "vocab": vocab, "merges": [["▁", "a"]], "byte_fallback": True}, pre_tokenizer=space
    )
    for tokenizer in (unigram, word_piece, fallback):
        with pytest.raises(UserError, match="byte-level BPE tokenizers, such as those of GPT-2"):
            bp.Vocabulary(tokenizer, tokenizer.vocabulary_size, ())


def test_a_tokenizer_that_rewrites_the_text_is_refused():
    lower = tokenizer_of({"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, normalizer={"type": "Lowercase"})
    with pytest.raises(UserError, match="rewrites the prompt"):
        bp.Vocabulary(lower, 2, ()).encode("aB")


def test_a_tokenizer_in_a_child_process_gives_the_same():
    data = json.dumps(trained()._config).encode()
    inside = SandboxedTokenizer("file:70f0000000000000", "toy", lambda: File(data, "json", "toy"))
    texts = ["", "The lantern", " is", "日本語 🙂", "x" * 300, "<s>"]
    assert encode_many(inside, texts) == encode_many(trained(), texts)
    assert encode_many(inside, []) == []
    there = dataclasses.replace(toy(), tokenizer=inside)
    prompt = b"Mia has a kite, and Ot"
    own, other = exact(), bp.ExactBytes.of(there)
    assert other.mask == bp.STRICT
    np.testing.assert_array_equal(own.next(own.start(prompt)), other.next(other.start(prompt)))


def test_naive_and_healing_by_their_definitions():
    model = exact()
    reading = model.read(b"Mia has a kit")
    pieces, network = model.vocabulary.pieces, model._network
    *left, last = reading.tokens
    p = np.exp(network.after([reading.tokens], reading.past)[0])
    wanted = [sum(p[i] for i, piece in enumerate(pieces) if piece[:1] == bytes([byte])) for byte in range(256)]
    wanted = np.array([*wanted, p[1]])
    np.testing.assert_allclose(model.next(model.naive(reading)), wanted / wanted.sum(), rtol=1e-9)

    q = np.exp(network.after([left], reading.past)[0] if left else reading.logp)
    stub = pieces[last]
    healed = q[last] * wanted
    for i, piece in enumerate(pieces):
        if piece.startswith(stub) and piece != stub:
            healed[piece[len(stub)]] += q[i]
    np.testing.assert_allclose(model.next(model.healed(reading)), healed / healed.sum(), rtol=1e-9)


class Parrot:
    """A token model that knows one text by heart, as its tokenizer writes it, and nothing else."""

    context = 1000

    def __init__(self, tokens: tuple[int, ...], size: int):
        self.tokens, self.size = tokens, size

    def read(self, ids, past=()):
        ids = (*(past or ()), *ids)
        return self.after([()], ids)[0], ids

    def after(self, rows, past):
        found = np.full((len(rows), self.size), 0.05 / (self.size - 1))
        for k, row in enumerate(rows):
            ids = (*past, *row)
            if self.tokens[: len(ids)] == ids and len(ids) < len(self.tokens):
                found[k, self.tokens[len(ids)]] = 0.95
        return np.log(found / found.sum(axis=1, keepdims=True))


SAID = "Mia has a kite, and the lantern is in the kitchen. Otto lives in Norwick."


def parrot() -> bp.ExactBytes:
    words = exact().vocabulary
    return bp.ExactBytes("parrot", Parrot((0, *words.encode(SAID), 1), len(words.pieces)), words, (0,))


@pytest.mark.parametrize("end", range(len(SAID)))
def test_greedy_continuation_of_what_is_known_by_heart(end):
    """From any byte on, exact goes on with the text; naive does so where the prompt is not cut."""
    model = parrot()
    prompt, rest = SAID.encode()[:end], SAID.encode()[end:]
    rng = np.random.default_rng(0)
    reading = model.read(prompt)
    assert bytes(generate(model, model.exact(reading), 100, 0.0, 1.0, rng)) == rest
    whole = model.vocabulary.encode(SAID)
    uncut = whole[: len(model.vocabulary.encode(prompt.decode()))] == model.vocabulary.encode(prompt.decode())
    if uncut:
        assert bp.token_continuation(model, reading, False, len(rest) + 1, 0.0, 1.0, rng) == rest
    first = {name: model.next(state)[rest[0]] for name, state in bp.three_states(model, prompt.decode(), 0)[1].items()}
    assert first[bp.EXACT] > 0.9
    assert (first[bp.NAIVE] > 0.9) == uncut


def test_token_healing_mends_a_stub_of_one_token():
    model = parrot()
    one = [k for k in range(1, len(SAID)) if len(model.read(SAID.encode()[:k]).tokens) == 1]
    several = [k for k in range(1, len(SAID)) if len(model.read(SAID.encode()[:k]).tokens) > 1]
    assert len(one) > 10 and len(several) > 3
    for k in one:
        state = model.healed(model.read(SAID.encode()[:k]))
        assert model.next(state)[SAID.encode()[k]] > 0.9
    reading = model.read(SAID.encode()[: one[3]])
    rng = np.random.default_rng(0)
    assert bp.token_continuation(model, reading, True, 4, 0.0, 1.0, rng) == SAID.encode()[one[3] : one[3] + 4]


def test_the_rest_of_a_word_counts_every_way_to_write_it():
    """Naive and healing may go on with any tokens: P(it) = sum over the tokens that spell it."""
    model = exact()
    reading = model.read(b"a k")
    state = model.naive(reading)
    network, pieces = model._network, model.vocabulary.pieces
    base = reading.tokens

    def spell(ids: tuple[int, ...], rest: bytes) -> float:
        if not rest:
            return 1.0
        logp = network.after([ids], reading.past)[0]
        total = 0.0
        for i, piece in enumerate(pieces):
            if piece and (rest.startswith(piece) or piece.startswith(rest)):
                total += np.exp(logp[i]) * spell((*ids, i), rest[len(piece) :])
        return total

    def text_only(ids: tuple[int, ...]) -> float:
        p = np.exp(network.after([ids], reading.past)[0])
        return p[1] + sum(p[i] for i, piece in enumerate(pieces) if piece)

    found = likelihoods(model, state, b"it")
    assert found[0] == pytest.approx(spell(base, b"i") / text_only(base), rel=1e-9)
    # <s> stands in no text, so it is left out of each division but not of what was read before.
    wanted = spell(base, b"it") / sum(model.mass(model.advance(state, ord("i")))) / spell(base, b"i")
    assert found[1] == pytest.approx(wanted, rel=1e-9)


# --- ensembles


def test_an_ensemble_of_a_model_with_itself_is_itself():
    model = exact()
    both = bp.Ensemble((model, model), (0.3, 0.7))
    state, pair = model.start(b"The ki"), both.start(b"The ki")
    for byte in b"tchen is":
        np.testing.assert_allclose(both.next(pair), model.next(state), rtol=1e-12, atol=1e-15)
        state, pair = model.advance(state, byte), both.advance(pair, byte)


def test_an_ensemble_is_the_mean_where_all_members_agree_that_text_goes_on():
    tokens, by_bytes = exact(), OneTokenPerByte.of(byte_lm())
    both = bp.Ensemble((tokens, by_bytes), (1, 3))
    pair = both.start(b"The ki")
    a, b = tokens.next(tokens.start(b"The ki")), by_bytes.next(by_bytes.start(b"The ki"))
    wanted = np.where(np.append(a[:END] > 0, True), 0.25 * a + 0.75 * b, 0)
    np.testing.assert_allclose(both.next(pair), wanted / wanted.sum(), rtol=1e-9)
    assert both.next(pair)[0xFF] == 0 < b[0xFF]  # no UTF-8 text holds it
    text = bytes(generate(both, both.start(b"The ki", 30), 30, 1.0, 1.0, np.random.default_rng(0)))
    assert bp.split_utf8(text)[0] is not None


def test_a_mean_by_hand():
    each = np.zeros((2, 257))
    each[:, 0], each[:, 1], each[0, 2] = (0.5, 0.25), (0.25, 0.75), 0.25
    found = bp.mean(each, np.array([0.5, 0.5]))
    np.testing.assert_allclose(found[:3], [0.375 / 0.875, 0.5 / 0.875, 0])


# --- the panel


@pytest.fixture
def small(monkeypatch):
    """tinylm and bytelm replaced by random networks."""
    known = {"tinylm": toy(), "bytelm": byte_lm()}
    monkeypatch.setattr(models, "causal_lm", known.__getitem__)


def last(**values) -> dict:
    return guard.last(bp, {"length": 5, **values}).result


@pytest.mark.parametrize("part", bp.PARTS)
def test_every_part_fills_its_views(small, part):
    prompts = {"prompt": "The lantern is in the kit", "prefix": "Mia has a ki", "suffix": "A kite."}
    prompts = {"prompt": "a kit"} if part == bp.ENSEMBLE else prompts
    result = last(part=part, **prompts)
    assert list(result) == list(spec.result_views(bp.run))
    filled = {name for name, view in result.items() if view}
    assert (
        filled
        == {"summary", "next_byte"}
        | {
            bp.CUT: {"strip", "cover", "continuations"},
            bp.MIDDLE: {"strip", "cover", "continuations"},
            bp.ENSEMBLE: {"continuations"},
            bp.MARKOV: {"strip", "cover", "sweep"},
        }[part]
    )
    for values in result["next_byte"]["series"].values():
        assert all(0 <= value <= 1 for value in values)
    json.dumps(result, allow_nan=False)


def test_cut_prompt_streams_and_marks_the_cut(small):
    parts = list(bp.run(prompt="The lantern is in the kit", length=5))
    assert [len(part.continuations.rows) for part in parts] == [1, 2, 3]
    end = parts[-1]
    row = end.strip.rows[0]
    assert [mark for mark, start in zip(row.marks, row.starts, strict=True) if start >= 21] == [1] * sum(row.marks)
    assert [bp.METHODS.index(row[0]) for row in end.continuations.rows] == [0, 1, 2]
    assert sum(share for *_, share, _ in end.cover.rows) == pytest.approx(100, abs=1)
    assert "the prompt's own" in end.cover.marks.values()


def test_the_markov_part_by_hand():
    result = last(part=bp.MARKOV)
    series = {name: values for name, values in result["next_byte"]["series"].items()}
    assert series["true"] == pytest.approx([0.7, 0.3])
    assert series["naive"] == pytest.approx([0, 1])
    assert series["exact"] == pytest.approx([0.7, 0.3])
    curves = {s["name"]: s["y"] for s in result["sweep"]["series"]}
    assert curves["exact"] == pytest.approx(curves["true"])
    with pytest.raises(UserError, match="only the letters A and B"):
        last(part=bp.MARKOV, chain="ABC")


def test_users_text_is_data(small):
    evil = "<img src=x onerror=alert(1)> **b** kit"
    result = last(prompt=evil)
    assert "".join(result["strip"]["graphemes"]) == evil
    assert "<" not in result["summary"]["text"]
    result = last(part=bp.MIDDLE, prefix=evil, suffix=evil)
    assert "<" not in result["summary"]["text"]


def test_the_suffix_is_told_first_and_looked_for(small, monkeypatch):
    monkeypatch.setattr(bp, "written", lambda *_: (b"chen. Question: Where? Yes", 0.0))
    result = last(part=bp.MIDDLE, prefix="in the kit", suffix="Question: Where?", seed=1)
    assert "".join(result["strip"]["graphemes"]) == "Question: Where?\nin the kit"
    assert [row[-1] for row in result["continuations"]["rows"]] == ["after 6 bytes"] * 3
    monkeypatch.setattr(bp, "written", lambda *_: (b"chen.", 0.0))
    result = last(part=bp.MIDDLE, prefix="in the kit", suffix="Question: Where?", seed=2)
    assert [row[-1] for row in result["continuations"]["rows"]] == ["no"] * 3
    with pytest.raises(UserError, match="please write some"):
        last(part=bp.MIDDLE, suffix="  ")


def test_models_that_do_not_fit_a_part(small):
    with pytest.raises(UserError, match="tokens of byte toy are bytes"):
        last(model="bytelm")
    result = last(part=bp.ENSEMBLE, prompt="a kit", model="bytelm")
    bars = result["next_byte"]["series"]
    assert bars["A: byte toy"] == pytest.approx(bars["ensemble"], rel=1e-9)
    assert not OneTokenPerByte.fits(toy()) and byte_tokenizer().vocabulary_size == 259


def test_labels_of_bytes():
    assert [bp.symbol(byte) for byte in (ord("a"), ord(" "), ord("\n"), 0, 0xC3, END)] == [
        "a", "␣", "⏎", "00", "C3", "end of text",
    ]  # fmt: skip
    assert bp.shown("ö\n".encode() + b"\xc3") == "ö⏎\\xc3"
    assert bp.readable(b"  a b\n c ") == "␣␣a b⏎ c␣"
    assert bp.readable(b"  ") == "␣␣" and bp.readable(b"") == ""
    assert [bp.proportion(share) for share in (0.12345, 0.0001, 1e-8)] == [
        "12.3 %", "one part in 10,000", "one part in 100,000,000",
    ]  # fmt: skip


# --- the experiment


def test_held_out_prompts():
    texts = bp.held_out()
    assert {kind: len(text) > 5000 for kind, text in texts.items()} == {bp.STORIES: True, bp.PROSE: True}
    cuts = bp.draw_cuts(texts, 200, np.random.default_rng(0))
    assert [cut.kind for cut in cuts[:4]] == [bp.STORIES, bp.PROSE] * 2
    assert len({(cut.before, cut.word) for cut in cuts}) == 200
    for cut in cuts:
        assert len(cut.word) >= 4 and cut.word.isalpha() and 1 <= cut.at < len(cut.word) == cut.at + cut.left
        assert (cut.before + cut.word).decode() in texts[cut.kind] and cut.before.endswith(b" ")
    assert {cut.left for cut in cuts} >= {1, 2, 3, 4, 5}


def test_the_experiment_on_random_networks():
    found = bp.experiment(
        toy(), OneTokenPerByte.of(byte_lm()), prompts=8, leaks=2, stretches=2, stretch=6, longest=2, before=30
    )
    assert found.n == 8 and found.random == 8
    json.dumps(found.to_json(), allow_nan=False)
    assert len(found.reason.splitlines()) == 4
    identities = {row[0]: row[1] for row in found.figures[3].rows}
    assert max(value for name, value in identities.items() if "fast" not in name) < 1e-9
    assert views.to_json(found.figures[0])["series"].keys() == set(bp.METHODS)
