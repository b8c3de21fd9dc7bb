"""Every source of tokenizers: hand-checked cuts, the library as oracle, round trip and cover on any text."""

from __future__ import annotations

import base64
import io
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tiktoken
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tokenlab.errors import UserError
from tokenlab.text import adapters, files, merge_tree, sandbox, sources, spans
from tokenlab.text.tokenization import Kind, utf8_offsets
from tokenlab.text.tokenizer_json import TokenizerJson
from tokenlab.text.uploads import Uploads

BUILTIN = [ref for _, ref in sources.builtin()]
MISTRAL = [ref for ref in BUILTIN if ref.startswith("mistral")]
TEKKEN = [ref for ref in BUILTIN if ref.startswith("tekken")]
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467"  # one grapheme, five code points, 18 bytes
SAMPLE = f"naïve {FAMILY} 東京"
WORDS = ("the", "tokenization", "internationalization", "Straßenbahn", "everything", "anticonstitutionnellement")


def cut(tokenizer, text):
    """The text's bytes between the spans."""
    data = text.encode()
    tokens = tokenizer.encode(text)
    return [data[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]


def cut_text(tokenizer, text):
    return [part.decode() for part in cut(tokenizer, text)]


# --- the yardsticks, by hand


def test_bytes_by_hand():
    tokens = sources.load("bytes").encode("né")
    assert tokens.ids.tolist() == [0x6E, 0xC3, 0xA9]
    assert tokens.starts.tolist() == [0, 1, 2]
    assert tokens.ends.tolist() == [1, 2, 3]
    assert sources.load("bytes").decode(tokens.ids) == "né"
    assert len(sources.load("bytes").encode(SAMPLE)) == 6 + 1 + 18 + 1 + 6


def test_characters_by_hand():
    expected = ["n", "a", "ï", "v", "e", " ", FAMILY, " ", "東", "京"]
    assert cut_text(sources.load("characters"), SAMPLE) == expected
    assert cut_text(sources.load("characters"), "a\r\ne\u0301") == ["a", "\r\n", "e\u0301"]
    assert sources.load("characters").encode("ab").ids.tolist() == [-1, -1]


def test_words_by_hand():
    assert cut_text(sources.load("words"), SAMPLE) == ["naïve", " ", FAMILY, " ", "東", "京"]
    expected = ["Don't", " ", "pay", " ", "3.14", ",", " ", "ok", "!", "\r\n"]
    assert cut_text(sources.load("words"), "Don't pay 3.14, ok!\r\n") == expected


# --- the real ones


@pytest.mark.parametrize("ref", MISTRAL)
def test_mistral_by_hand(ref):
    assert cut_text(sources.load(ref), "naïve  東京") == ["na", "ï", "ve", "  ", "東", "京"]


def test_sentencepiece_prefix_is_not_in_the_text():
    # SentencePiece puts a space in front; before 東 it is a token of its own, of no bytes.
    tokens = sources.load("mistral-v3").encode("東京")
    assert tokens.starts.tolist() == [0, 0, 3]
    assert tokens.ends.tolist() == [0, 3, 6]


def test_byte_fallback_is_exact_where_the_rest_is_not():
    # The literal ▁ is read as a space, so the pieces do not spell the text and the library's offsets are used.
    parts = cut(sources.load("mistral-v3"), "▁x\U0001f469y")
    assert parts == [b"", "▁x".encode(), b"\xf0", b"\x9f", b"\x91", b"\xa9", b"y"]


@pytest.mark.parametrize("ref", BUILTIN)
def test_special_tokens_in_the_text_stay_text(ref):
    tokenizer = sources.load(ref)
    text = "<s>[INST] </s>[/INST]<unk><|endoftext|>"
    tokens = tokenizer.encode(text)
    assert b"".join(cut(tokenizer, text)) == text.encode()
    assert len(tokens) > 10
    if tokenizer.vocabulary_size is not None:
        assert not np.isin(tokenizer.kinds()[tokens.ids], [Kind.SPECIAL, Kind.UNKNOWN]).any()


@pytest.mark.parametrize("ref", MISTRAL)
@pytest.mark.parametrize("text", [SAMPLE, "a ▁ b", "", "  \n\t x\x00y"])
def test_ids_are_those_of_sentencepiece(ref, text):
    path = sources._mistral_file(sources._SENTENCEPIECE[ref][1])
    assert sources.load(ref).encode(text).ids.tolist() == sentencepiece.SentencePieceProcessor(str(path)).encode(text)


@pytest.mark.parametrize("ref", TEKKEN)
def test_ids_are_those_of_tekkenizer(ref):
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    oracle = Tekkenizer.from_file(sources._mistral_file(sources._TEKKEN[ref][1]))
    tokenizer = sources.load(ref)
    for text in (SAMPLE, "  x\n\n12345", ""):
        tokens = tokenizer.encode(text)
        assert tokens.ids.tolist() == oracle.encode(text, bos=False, eos=False)
        assert tokenizer.decode(tokens.ids) == oracle.decode(tokens.ids.tolist()) == text
    assert tokenizer.vocabulary_size == oracle.n_words == 131072
    assert all(tokenizer.pieces()[i] == oracle.id_to_byte_piece(i) for i in range(0, oracle.n_words, 997))
    assert (tokenizer.kinds() == Kind.SPECIAL).sum() == oracle.num_special_tokens == 1000


@pytest.mark.parametrize("ref", BUILTIN)
def test_tables_agree(ref):
    tokenizer = sources.load(ref)
    pieces, kinds = tokenizer.pieces(), tokenizer.kinds()
    assert len(pieces) == len(kinds) == (tokenizer.vocabulary_size or 0)
    assert kinds.dtype == np.uint8
    for piece, kind in zip(pieces, kinds, strict=True):
        assert bool(piece) == (kind in (Kind.NORMAL, Kind.BYTE))
        assert kind != Kind.BYTE or len(piece) == 1


def test_mistral_kinds():
    kinds = np.bincount(sources.load("mistral-v1").kinds(), minlength=4)
    assert kinds.tolist() == [31741, 256, 1, 2]  # <unk>; <s> and </s>


# --- any text at all

SPECIMENS = "a B1.\x00\x1b\r\n\t \xa0\u0301\u200b\u200d\u202e\u2066\ufeff\ufffdéß東か▁가\U0001f469\U0001f3fd\U0010ffff"
ANY_TEXT = st.text(st.one_of(st.sampled_from(SPECIMENS), st.characters(exclude_categories=["Cs"])), max_size=60)


@pytest.mark.parametrize("ref", BUILTIN)
@given(text=ANY_TEXT)
@example(text=SPECIMENS)
@example(text="")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_covered_and_comes_back(ref, text):
    tokenizer = sources.load(ref)
    tokens = tokenizer.encode(text)
    data = text.encode()
    assert tokens.ids.dtype == tokens.starts.dtype == tokens.ends.dtype == np.int64
    assert tokens.starts.tolist() == [0, *tokens.ends.tolist()][: len(tokens)]  # tiles: no gap, no overlap
    assert (tokens.ends[-1] if len(tokens) else 0) == len(data)
    if tokenizer.vocabulary_size is None:
        assert (tokens.ids == -1).all()
        return
    # SentencePiece keeps ▁ for itself, and puts a space in front of any text.
    read = text.replace("▁", " ") if ref in MISTRAL else text
    added = " " if ref in MISTRAL and text else ""
    pieces = tokenizer.pieces()
    assert b"".join(pieces[i] for i in tokens.ids).decode() == added + read
    assert tokenizer.decode(tokens.ids) == read


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1), st.data())
def test_spelling_is_joining(pieces, data):
    ids = np.array(data.draw(st.lists(st.integers(0, len(pieces) - 1))), dtype=np.int64)
    vocabulary = spans.Pieces(pieces)
    assert vocabulary.spell(ids, vocabulary.offsets(ids)) == b"".join(pieces[i] for i in ids)


@given(ANY_TEXT)
def test_byte_offsets_are_lengths_of_prefixes(text):
    assert utf8_offsets(text).tolist() == [len(text[:i].encode()) for i in range(len(text) + 1)]


@given(ANY_TEXT)
def test_words_end_where_regex_sees_a_boundary(text):
    import regex

    inner = {m.start() for m in regex.finditer(r"(?w)\b", text)} | ({0, len(text)} if text else set())
    offsets = utf8_offsets(text)
    tokens = sources.load("words").encode(text)
    assert {*tokens.starts.tolist(), *tokens.ends.tolist()} == {int(offsets[i]) for i in inner}


@pytest.mark.parametrize("ref", BUILTIN)
def test_half_a_character_is_the_users_error(ref):
    with pytest.raises(UserError, match="U\\+D800"):
        sources.load(ref).encode("a\ud800")


# --- merges


def greedy(word, merges, symbols):
    """BPE the slow way: of the pairs present, the one that ranks first, leftmost, until there is none."""
    ranks = {pair: rank for rank, pair in reversed([*enumerate(merges)])}
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(zip(symbols, symbols[1:], strict=False)) if pair in ranks]
        if not found:
            return symbols
        _, i = min(found)
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]


@pytest.mark.parametrize(
    ("ref", "start"),
    [("mistral-v3", merge_tree.single_characters), ("tekken-240911", merge_tree.single_bytes)],
)
def test_recovered_merges_cut_words_as_the_library_does(ref, start):
    tokenizer = sources.load(ref)
    merges = tokenizer.merges()
    pieces = tokenizer.pieces()
    for word in WORDS:
        spelled = f" {word}".encode()
        text = word if ref == "mistral-v3" else f" {word}"
        assert greedy(word, merges, start(spelled)) == [pieces[i] for i in tokenizer.encode(text).ids]
    known = set(pieces)
    assert all(a in known and b in known and a + b in known for a, b in merges)
    assert len({a + b for a, b in merges}) == len(merges)


@pytest.mark.parametrize("ref", ["mistral-v3", "tekken-240911"])
def test_merge_parts_lead_down_to_single_symbols(ref):
    tokenizer = sources.load(ref)
    pieces = tokenizer.pieces()
    entry = pieces.index(b" everything")
    a, b = tokenizer.merge_parts(entry)
    assert (a, b) == (b" every", b"thing")
    assert tokenizer.merge_parts(pieces.index(b"e")) is None
    assert tokenizer.merge_parts(0) is None  # special


def test_tekken_builds_all_its_entries_by_merges():
    tokenizer = sources.load("tekken-240911")
    assert len(tokenizer.merges()) == sum(len(piece) > 1 for piece in tokenizer.pieces())


def test_last_merge_by_hand():
    ranks = {"ab": 0, "cd": 1, "abcd": 2, "bc": 3}
    found = merge_tree.last_merge("abcd", lambda a, b: ranks.get(a + b), str.__add__)
    assert found == ("ab", "cd")
    assert merge_tree.last_merge("a", lambda a, b: 0, str.__add__) is None
    assert merge_tree.last_merge("axd", lambda a, b: None, str.__add__) is None


# --- tokenizer.json


def bpe_json(vocab=("a", "b", "c", "ab", "abc", "abab"), merges=("a b", "ab c", "ab ab"), added=(), **parts):
    model = {"type": "BPE", "vocab": {entry: i for i, entry in enumerate(vocab)}, "merges": list(merges)}
    model |= parts.pop("model", {})
    tokens = [
        {"id": vocab.index(content), "content": content, "special": special}
        | {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for content, special in added
    ]
    return {"version": "1.0", "added_tokens": tokens, "model": model, **parts}


def test_bpe_with_three_merges_by_hand():
    tokenizer = TokenizerJson("x", "x", bpe_json())
    assert tokenizer.encode("ababcab").ids.tolist() == [3, 4, 3]  # "ab c" ranks before "ab ab"
    assert cut(tokenizer, "ababcab") == [b"ab", b"abc", b"ab"]
    assert tokenizer.encode("abab").ids.tolist() == [5]
    assert tokenizer.vocabulary_size == 6
    assert tokenizer.pieces() == [b"a", b"b", b"c", b"ab", b"abc", b"abab"]
    assert tokenizer.kinds().tolist() == [0] * 6
    assert tokenizer.merges() == [(b"a", b"b"), (b"ab", b"c"), (b"ab", b"ab")]
    assert [tokenizer.merge_parts(i) for i in (0, 3, 4, 5)] == [None, (b"a", b"b"), (b"ab", b"c"), (b"ab", b"ab")]


def test_merges_as_pairs_and_suffixes():
    vocab = ("a", "b</w>", "ab</w>")
    model = {"end_of_word_suffix": "</w>", "merges": [["a", "b</w>"]]}
    tokenizer = TokenizerJson("x", "x", bpe_json(vocab, model=model))
    assert tokenizer.encode("ab").ids.tolist() == [2]
    assert tokenizer.pieces() == [b"a", b"b", b"ab"]
    assert tokenizer.merge_parts(2) == (b"a", b"b")


def test_suffix_on_a_byte_level_entry():
    vocab = ("a", "\u0120</w>", "</w>")  # as CLIP writes a space that ends a word
    model = {"end_of_word_suffix": "</w>", "merges": []}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    config = bpe_json(vocab, model=model, decoder=byte_level)
    assert TokenizerJson("x", "x", config).pieces() == [b"a", b" ", b"</w>"]


def test_bytes_that_a_file_lists_as_special_are_bytes():
    vocab = ("<unk>", "<0xC3>", "<0xA9>", "a")
    model = {"byte_fallback": True, "unk_token": "<unk>"}
    config = bpe_json(vocab, (), [("<unk>", True), ("<0xC3>", True), ("<0xA9>", True)], model=model)
    tokenizer = TokenizerJson("x", "x", config)
    assert cut(tokenizer, "aé") == [b"a", b"\xc3", b"\xa9"]
    assert tokenizer.kinds().tolist() == [Kind.UNKNOWN, Kind.BYTE, Kind.BYTE, Kind.NORMAL]


def test_truncation_padding_and_template_are_left_out():
    config = bpe_json(
        truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
        padding={"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0}
        | {"pad_type_id": 0, "pad_token": "a"},
        post_processor={"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    )
    assert TokenizerJson("x", "x", config).encode("abcab").ids.tolist() == [4, 3]


def test_special_token_of_a_file_stays_text():
    vocab = ("<", "/", "s", ">", "</s>", "<pad>")
    tokenizer = TokenizerJson("x", "x", bpe_json(vocab, (), [("</s>", True), ("<pad>", False)]))
    assert tokenizer.encode("</s>").ids.tolist() == [0, 1, 2, 3]
    assert tokenizer.encode("s<pad>").ids.tolist() == [2, 5]  # added, but not special: text
    assert tokenizer.kinds().tolist() == [0, 0, 0, 0, Kind.SPECIAL, 0]
    assert tokenizer.pieces()[4:] == [b"", b"<pad>"]
    assert tokenizer.decode(np.array([4, 2])) == "</s> s"  # still named as the file names it


@pytest.mark.parametrize(
    "model",
    [
        {"type": "Unigram", "unk_id": 0, "vocab": [["?", -9.0], ["</s>", 0.0], *([c, -1.0] for c in "<s/>")]},
        {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "</s>": 1}},
        {"type": "WordPiece", "unk_token": "?", "vocab": {"?": 0, "</s>": 1}, "max_input_chars_per_word": 9}
        | {"continuing_subword_prefix": "##"},
        {"type": "BPE", "ignore_merges": True, "merges": [], "vocab": {"?": 0, "</s>": 1, "<": 2, "s": 3}},
    ],
)
def test_special_token_stays_text_for_models_that_match_whole_entries(model):
    added = {"id": 1, "content": "</s>", "special": True, "single_word": False, "lstrip": False, "rstrip": False}
    config = {"version": "1.0", "added_tokens": [{**added, "normalized": False}], "model": model}
    library = Library.from_str(json.dumps(config))
    library.encode_special_tokens = True
    assert library.encode("</s>").ids == [1]  # the library's switch alone does not help here
    assert 1 not in TokenizerJson("x", "x", config).encode("</s>").ids


def test_word_piece_by_hand():
    vocab = {entry: i for i, entry in enumerate(("[UNK]", "un", "##believ", "##able", "cafe"))}
    config = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        | {"strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": False},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        | {"max_input_chars_per_word": 100, "vocab": vocab},
    }
    tokenizer = TokenizerJson("x", "x", config)
    tokens = tokenizer.encode("Unbelievable  Café 東")
    assert tokens.ids.tolist() == [1, 2, 3, 4, 0]
    assert cut_text(tokenizer, "Unbelievable  Café 東") == ["Un", "believ", "able", "Café", "東"]  # gaps: spaces
    assert tokenizer.pieces() == [b"", b"un", b"believ", b"able", b"cafe"]
    assert tokenizer.kinds().tolist() == [Kind.UNKNOWN, 0, 0, 0, 0]
    assert tokenizer.merges() is None
    assert tokenizer.merge_parts(1) is None


def test_rewritten_characters_share_their_span():
    # NFKC makes "1", "0", "." of the one character ⒑; the byte-level alphabet writes ASCII as it is.
    config = bpe_json(("1", "0", "."), (), normalizer={"type": "NFKC"})
    tokens = TokenizerJson("x", "x", config).encode("0⒑")
    assert tokens.ids.tolist() == [1, 0, 1, 2]
    assert tokens.starts.tolist() == [0, 1, 1, 1]
    assert tokens.ends.tolist() == [1, 4, 4, 4]


def trained(kind):
    """Small tokenizers of the four families, made by the library."""
    lines = [f"{SAMPLE} the tokens of the tokenizer, and tokenization: {i} times" for i in range(40)]
    special = ["<unk>", "</s>"]
    if kind == "byte-level":
        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    elif kind == "llama":
        library = Library(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        strip = decoders.Strip(" ", 1, 0)
        library.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
        )
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special + [f"<0x{b:02X}>" for b in range(256)])
    elif kind == "unigram":
        library = Library(models.Unigram())
        library.pre_tokenizer = pre_tokenizers.Metaspace()
        library.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=special, unk_token="<unk>")
    else:
        library = Library(models.WordPiece(unk_token="<unk>"))
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special)
    trainer.show_progress = False
    library.train_from_iterator(lines, trainer)
    config = json.loads(library.to_str())
    bytes_are_text = [t for t in config["added_tokens"] if not t["content"].startswith("<0x")]
    return {**config, "added_tokens": bytes_are_text}


FAMILIES = ("byte-level", "llama", "unigram", "word-piece")


@pytest.fixture(scope="module")
def configs():
    return {kind: trained(kind) for kind in FAMILIES}


@pytest.fixture(scope="module")
def family(configs):
    return {kind: TokenizerJson(kind, kind, config) for kind, config in configs.items()}


@pytest.mark.parametrize("kind", FAMILIES)
@given(text=ANY_TEXT)
@example(text=SPECIMENS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_in_any_tokenizer_json(family, kind, text):
    tokenizer = family[kind]
    tokens = tokenizer.encode(text)
    data = text.encode()
    assert ((0 <= tokens.starts) & (tokens.starts <= tokens.ends) & (tokens.ends <= len(data))).all()
    assert (np.diff(tokens.starts) >= 0).all()
    assert (np.diff(tokens.ends) >= 0).all()
    if kind in ("byte-level", "llama"):  # these drop nothing
        covered = np.zeros(len(data), dtype=bool)
        for start, end in zip(tokens.starts, tokens.ends, strict=True):
            covered[start:end] = True
        assert covered.all()
    if kind == "byte-level":
        assert tokenizer.decode(tokens.ids) == text
        assert b"".join(tokenizer.pieces()[i] for i in tokens.ids) == data


@pytest.mark.parametrize("kind", ["byte-level", "llama"])
def test_tokenizer_json_entries_are_built_by_their_last_merge(family, kind):
    tokenizer = family[kind]
    made = {a + b for a, b in tokenizer.merges()}
    for i, piece in enumerate(tokenizer.pieces()):
        parts = tokenizer.merge_parts(i)
        assert (parts is not None) == (piece in made)
        assert parts is None or (parts[0] + parts[1] == piece and parts in tokenizer.merges())


def test_llama_byte_fallback(family):
    tokenizer = family["llama"]
    tokens = tokenizer.encode("ж")
    assert [part for part in cut(tokenizer, "ж") if part] == [b"\xd0", b"\xb6"]
    assert (tokenizer.kinds()[tokens.ids] == Kind.BYTE).sum() == 2


# --- files, through the child process


def sentencepiece_model(**settings):
    model = io.BytesIO()
    lines = [f"the quick brown fox jumps over the lazy dog {SAMPLE} {i}" for i in range(50)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, num_threads=1, **settings
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def rewriting():
    """A Unigram model with SentencePiece's default rewriting (nmt_nfkc, spaces folded) and no byte fallback."""
    return adapters.SentencePiece("x", "x", sentencepiece_model(vocab_size=50, model_type="unigram"))


@given(text=ANY_TEXT)
@example(text=SPECIMENS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_in_a_sentencepiece_model_that_rewrites(rewriting, text):
    tokens = rewriting.encode(text)
    assert ((0 <= tokens.starts) & (tokens.starts <= tokens.ends) & (tokens.ends <= len(text.encode()))).all()
    assert (np.diff(tokens.starts) >= 0).all()
    assert (np.diff(tokens.ends) >= 0).all()
    covered = "".join(cut_text(rewriting, text))
    assert sum(c.isalnum() for c in covered) >= sum(c.isalnum() for c in text)


def rank_lines(*more):
    ranks = [bytes([b]) for b in range(256)] + [*more]
    return b"".join(base64.b64encode(token) + f" {i}\n".encode() for i, token in enumerate(ranks))


def uploaded(data, filename):
    return sources.load(sources.register_file(data, filename))


@pytest.mark.parametrize("kind", FAMILIES)
def test_upload_of_a_tokenizer_json_is_the_same_as_in_process(configs, family, kind):
    own = family[kind]
    child = uploaded(json.dumps(configs[kind]).encode(), f"{kind}.json")
    for text in (SAMPLE, "", "▁ \x00</s>", "the token"):
        a, b = own.encode(text), child.encode(text)
        assert a.ids.tolist() == b.ids.tolist()
        assert a.starts.tolist() == b.starts.tolist()
        assert a.ends.tolist() == b.ends.tolist()
        assert own.decode(a.ids) == child.decode(b.ids)
    assert own.vocabulary_size == child.vocabulary_size
    assert own.pieces() == child.pieces()
    assert own.kinds().tolist() == child.kinds().tolist()
    assert own.merges() == child.merges()
    some = range(0, own.vocabulary_size, 9)
    assert [own.merge_parts(i) for i in some] == [child.merge_parts(i) for i in some]


def test_upload_of_a_sentencepiece_unigram_that_rewrites():
    data = sentencepiece_model(vocab_size=50, model_type="unigram")  # nmt_nfkc, no byte fallback
    tokenizer = uploaded(data, "tiny.model")
    text = "ｆox  the①"
    tokens = tokenizer.encode(text)
    covered = "".join(cut_text(tokenizer, text))
    assert covered.replace(" ", "") == text.replace(" ", "")
    assert tokens.starts[0] == 0 and tokens.ends[-1] == len(text.encode())
    assert tokenizer.merges() is None
    assert tokenizer.merge_parts(10) is None
    unknown = tokenizer.encode("fox\u0416")
    assert tokenizer.kinds()[unknown.ids[-1]] == Kind.UNKNOWN
    assert cut_text(tokenizer, "fox\u0416")[-1] == "\u0416"


def test_upload_of_a_sentencepiece_bpe():
    data = sentencepiece_model(
        vocab_size=330, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, character_coverage=0.99,
    )  # fmt: skip
    tokenizer = uploaded(data, "bpe.model")
    assert b"".join(cut(tokenizer, "  Ж fox  ")) == "  Ж fox  ".encode()
    assert tokenizer.decode(tokenizer.encode("  Ж fox").ids) == "  Ж fox"
    pieces = tokenizer.pieces()
    assert tokenizer.merge_parts(pieces.index(b" the")) == (b" t", b"he")
    assert (b" t", b"he") in tokenizer.merges()


def test_upload_of_ranks():
    ref = sources.register_file(rank_lines(b"ab", b"abc"), "toy.tiktoken")
    tokenizer = sources.load(ref)
    assert tokenizer.encode("abcab é").ids.tolist() == [257, 256, 32, 0xC3, 0xA9]
    assert tokenizer.merges() == [(b"a", b"b"), (b"ab", b"c")]
    assert tokenizer.merge_parts(257) == (b"ab", b"c")
    assert tokenizer.vocabulary_size == 258
    assert tokenizer.kinds()[[32, 0xC3, 256]].tolist() == [Kind.NORMAL, Kind.BYTE, Kind.NORMAL]
    assert tokenizer.decode(np.array([257, 0xC3, 0xA9])) == "abcé"
    # The pattern is not in the file: that of cl100k_base cuts "1234" into "123" and "4".
    assert sources.label(ref) == tokenizer.name == f"toy.tiktoken {ref[-4:]} (cl100k_base pattern)"


def test_pattern_is_that_of_cl100k(monkeypatch):
    from tiktoken_ext import openai_public

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *arguments, **named: {})
    assert openai_public.cl100k_base()["pat_str"] == adapters.CL100K


def test_same_bytes_same_reference_and_safe_name():
    data = json.dumps(bpe_json()).encode()
    ref = sources.register_file(data, "../../x/<img onerror=1>.json")
    assert ref == sources.register_file(data, "again.json")
    assert sources.label(ref) == f"_img onerror_1_.json {ref[-4:]}"
    assert sources.load(ref) is sources.load(ref)


def test_path_of_the_command_line(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(bpe_json(("x", "y"), ())))
    ref = sources.register_path(path)
    assert sources.label(ref) == f"mine.json {ref[-4:]}"
    with pytest.raises(UserError, match="cannot be read"):
        sources.register_path(tmp_path / "missing.json")


def test_an_upload_that_is_gone_says_so():
    with pytest.raises(UserError, match="uploads do not travel with links; please upload it again"):
        sources.load("file:0123456789abcdef")


def test_uploads_are_bounded_and_forget_the_oldest():
    uploads = Uploads(files=2, size=10)
    for name in "abc":
        assert uploads.put(name, sandbox.File(b"1234", "json", name))
    assert uploads.get("a") is None
    assert uploads.get("b").data == b"1234"
    assert not uploads.put("b", sandbox.File(b"1234", "json", "other"))
    assert uploads.label("b") == "b"
    uploads.put("d", sandbox.File(b"12345678", "json", "d"))  # 4 + 8 > 10 bytes
    assert [uploads.get(name) is not None for name in "abcd"] == [False, False, False, True]
    assert len([*Path(uploads.folder.name).iterdir()]) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_child_has_no_secrets_and_limits(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    child = sandbox.Child(sandbox.File(json.dumps(bpe_json()).encode(), "json", "x"))
    try:
        with open(f"/proc/{child.process.pid}/environ") as environment:
            assert "secret" not in environment.read()
        with open(f"/proc/{child.process.pid}/limits") as limits:
            table = {line[:25].strip(): line[26:46].strip() for line in limits}
        assert table["Max address space"] == "3000000000"
        assert table["Max core file size"] == table["Max file size"] == "0"
    finally:
        child.kill()


def test_children_are_four_at_most():
    children = sandbox.Children(most=2)
    file = sandbox.File(json.dumps(bpe_json()).encode(), "json", "x")
    for ref in ("a", "b", "c"):
        assert children.ask(ref, lambda: file, {"do": "about"}, ()) == [b"6"]
    assert [*children.slots] == ["b", "c"]
    first = children.slots["b"].child.process
    assert children.ask("b", lambda: file, {"do": "about"}, ()) == [b"6"]
    assert children.slots["b"].child.process is first
    children.ask("d", lambda: file, {"do": "about"}, ())
    assert [*children.slots] == ["b", "d"]
    processes = [slot.child.process for slot in children.slots.values()]
    assert [process.poll() for process in processes] == [None, None]
    for slot in children.slots.values():
        slot.end()
    assert all(process.poll() is not None for process in processes)


# --- references


def test_lists_of_sources():
    assert sources.builtin() == [
        ("Mistral v1", "mistral-v1"),
        ("Mistral v3", "mistral-v3"),
        ("Mistral v7", "mistral-v7"),
        ("Tekken 240718", "tekken-240718"),
        ("Tekken 240911", "tekken-240911"),
        ("Bytes", "bytes"),
        ("Characters", "characters"),
        ("Words", "words"),
    ]
    assert ("o200k_base", "tiktoken:o200k_base") in sources.optional()
    assert [ref for _, ref in sources.optional()] == [f"tiktoken:{name}" for name in tiktoken.list_encoding_names()]
    assert set(sources.DEFAULT) < set(BUILTIN)
    assert len(sources.DEFAULT) == 3


@pytest.mark.parametrize(
    ("ref", "label"),
    [
        ("hub:meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),  # dots are part of names
        ("hub:a/b_c.d-e", "a/b_c.d-e"),
        ("tiktoken:cl100k_base", "cl100k_base"),
        ("file:0123456789abcdef", "upload 01234567"),
        ("words", "Words"),
    ],
)
def test_well_formed_references(ref, label):
    assert sources.check_ref(ref) == ref
    assert sources.label(ref) == label


@pytest.mark.parametrize(
    "ref",
    ["", "nope", "hub:", "hub:gpt2", "hub:a/b/c", "hub:../a", "hub:a/..", "hub:/etc/passwd", "hub:a/b\n"]
    + ["hub:.a/b", "hub:a/b.", "hub:a..b/c", "hub:é/b", f"hub:{'a' * 97}/b", "hub:https://x.org/a", "hub:a/b c"]
    + ["tiktoken:", "tiktoken:nope", "file:", "file:0123456789ABCDEF", "file:0123", "trained:", "trained:../x"],
)
def test_malformed_references(ref):
    for function in (sources.check_ref, sources.label, sources.load):
        with pytest.raises(UserError) as caught:
            function(ref)
        assert str(caught.value).count("\n") == 0


def test_threads_share_one_tokenizer():
    sources._slots.pop("mistral-v7", None)
    together = threading.Barrier(8)

    def load(_):
        together.wait()
        return sources.load("mistral-v7")

    with ThreadPoolExecutor(8) as threads:
        assert len({id(tokenizer) for tokenizer in threads.map(load, range(8))}) == 1


def test_kind_of_a_file_is_seen_from_its_content():
    assert files.kind_of(b'  {"model": 1}', "blob") == "json"
    assert files.kind_of(b"YQ== 0\nYg== 1\n", "tokenizer.model") == "tiktoken"  # as some Hub repositories name it
    assert files.kind_of(b"\x0a\x0e\x0a\x05<unk>", "Tokenizer.MODEL") == "model"


@pytest.mark.parametrize(
    ("pattern", "nested"),
    [
        ("(a+)+$", True),
        ("(?:a*b)*", True),
        ("((a+))*", True),
        ("(a{2,})+", True),
        ("(a|b+){3,}", True),
        ("(a{2,5})+", False),
        ("(a+)?", False),
        ("[(a+)+]", False),
        (r"\(a+\)+", False),
        ("[a[^b]+]+(c)+", False),
        (adapters.CL100K, False),
        (r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", False),
        ("(a|a)*b", False),  # slow all the same: the heuristic misses it, the clock does not
    ],
)
def test_nested_repeats(pattern, nested):
    assert files.nested_repeat(pattern) is nested


PRE_TOKENIZED = [
    ("bytes", "é!", [b"\xc3", b"\xa9", b"!"]),
    ("words", "one, two", [b"one", b",", b" ", b"two"]),
    ("tekken-240911", "one two", [b"one", b" two"]),
    ("mistral-v3", "one two", [b"one two"]),
]


@pytest.mark.parametrize(("ref", "text", "parts"), PRE_TOKENIZED)
def test_pre_tokenize(ref, text, parts):
    assert sources.load(ref).pre_tokenize(text) == parts


def test_pre_tokenize_of_an_upload_is_its_own_rule():
    config = json.loads((Path(__file__).parent / "toy_tokenizer.json").read_text("utf-8"))
    config["normalizer"] = {"type": "Lowercase"}
    config["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    ref = sources.register_file(json.dumps(config).encode(), "toy.json")
    assert sources.load(ref).pre_tokenize("AB abc") == [b"ab", b" ", b"abc"]
