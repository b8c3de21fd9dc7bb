import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from tokenlab.errors import UserError
from tokenlab.text import adapters, replay, samples, training
from tokenlab.text.tokenizer_json import TokenizerJson
from tokenlab.text.training import Recipe

TEXT = samples.text("story") + "\n" + samples.text("mixed") + "\n" + samples.text("python")
PROBE = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("the lamp in aeiou\n\t日本é👩\u200d"),
    min_size=1,
    max_size=50,
)


def cuts_at(view, step):
    """The places with a cut after `step` of a Replay, as the page shows them."""
    cuts = set(range(1, len(view.units)))
    for number, unit, cut in view.events:
        if number <= step:
            (cuts.add if cut else cuts.discard)(unit)
    return cuts


def own_cuts(tokenizer, text):
    return replay.cuts_of(tokenizer.encode(text), len(text.encode()))


def register(algorithm, size, text=TEXT):
    ref = training.register(Recipe(algorithm, size, text=text))
    training.tokenizer_json(ref)
    return ref


@pytest.fixture(scope="module")
def refs():
    return {algorithm: register(algorithm, 900) for algorithm in training.ALGORITHMS}


@pytest.fixture(scope="module")
def tokenizers(refs):
    return {algorithm: training.load(ref) for algorithm, ref in refs.items()}


def test_bpe_by_hand():
    view = replay.replay(register("BPE", 300, "aaab aaab ab"), "aaab")
    assert view.units == ("a", "a", "a", "b")
    assert view.steps == ("start: bytes", "merge 1: a + a", "merge 2: a + b", "merge 3: aa + ab")
    assert view.events == ((1, 1, 0), (2, 3, 0), (3, 2, 0))
    assert view.note == "Of 3 merges, in the order in which they were learned, those that change this text."


def test_only_merges_that_change_the_text_are_steps():
    view = replay.replay(register("BPE", 300, "aaab aaab ab"), "ab é")
    assert view.units == ("a", "b", " ", "é", "")
    assert view.steps == ("start: bytes", "merge 2: a + b")
    assert view.events == ((1, 1, 0),)


def test_wordpiece_by_hand():
    view = replay.replay(register("WordPiece", 100, "hug hug hug, pug pug"), "hug  pugs, é")
    assert view.units == ("h", "u", "g", " ", " ", "p", "u", "g", "s", ",", " ", "é", "")
    assert view.steps == ("start: characters", "entry 1: ##ug", "entry 2: hug")
    # At the start the two dropped spaces, the unknown words "pugs" and "é" are whole, and "hug" is in letters.
    assert view.events == ((0, 4, 0), (0, 6, 0), (0, 7, 0), (0, 8, 0), (0, 12, 0), (1, 2, 0), (2, 1, 0))


def test_a_wordpiece_entry_can_add_a_cut():
    # With ##bcd alone "abcd" is a|bcd. The entry "ab" is longer at the first place and leaves c|d behind.
    vocabulary = {"[UNK]": 0, "a": 1, "##b": 2, "##c": 3, "##d": 4, "##bcd": 5, "ab": 6}
    assert replay.longest_match("abcd", vocabulary, 5) == {1, 2, 3}
    assert replay.longest_match("abcd", vocabulary, 6) == {1}
    assert replay.longest_match("abcd", vocabulary, 7) == {2, 3}
    assert replay.longest_match("abx", vocabulary, 7) == set()


@settings(max_examples=40, deadline=None)
@given(text=PROBE)
def test_the_last_step_is_the_encoding(tokenizers, text):
    for tokenizer in tokenizers.values():
        view = replay.replay(tokenizer, text)
        assert "".join(view.units) == text and len(view.units) == len(text.encode())
        assert cuts_at(view, len(view.steps)) == own_cuts(tokenizer, text)
        assert "\ufffd" not in "".join(view.steps) or "\ufffd" in text


def truncated_bpe(config, count):
    """The library's own BPE with the first `count` merges."""
    model = config["model"]
    merges = [tuple(merge) for merge in model["merges"][:count]]
    tokenizer = Tokenizer(models.BPE(model["vocab"], merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    config = json.loads(tokenizer.to_str()) | {"decoder": {"type": "ByteLevel", **BYTE_LEVEL}}
    return TokenizerJson("truncated", "truncated", config)


BYTE_LEVEL = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def test_every_step_of_bpe_is_the_encoding_with_that_many_merges(refs):
    config = json.loads(training.tokenizer_json(refs["BPE"]))
    total = len(config["model"]["merges"])
    assert total == 644
    text = samples.text("showcase") + " aaaaaaa     ======== lanterns"
    view = replay.replay(refs["BPE"], text)
    numbers = [0] + [int(label.split()[1].rstrip(":").replace(",", "")) for label in view.steps[1:]]
    assert len(numbers) > 50
    for count in {*range(0, total + 1, 23), *numbers[:20], *(n - 1 for n in numbers[1:20]), *numbers[-20:], total}:
        step = sum(number <= count for number in numbers) - 1
        assert cuts_at(view, step) == own_cuts(truncated_bpe(config, count), text), count


@st.composite
def any_merges(draw):
    """A vocabulary over a and b whose merges come in any order, as an uploaded file may have them."""
    pieces = ["a", "b"]
    merges = []
    for _ in range(draw(st.integers(1, 8))):
        left, right = draw(st.sampled_from(pieces)), draw(st.sampled_from(pieces))
        if (left, right) not in merges and len(left + right) < 9:
            merges.append((left, right))
            pieces.append(left + right)
    return draw(st.permutations(merges))


@settings(max_examples=300, deadline=None)
@given(any_merges(), st.text("ab", min_size=1, max_size=14))
def test_merges_in_any_order(merges, text):
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(["a", "b", *("".join(m) for m in merges)]))}
    config = json.loads(Tokenizer(models.BPE(vocabulary, merges)).to_str())
    view = replay.replay(TokenizerJson("toy", "toy", config), text)
    numbers = [0] + [int(label.split()[1].rstrip(":")) for label in view.steps[1:]]
    for count in range(len(merges) + 1):
        less = json.loads(Tokenizer(models.BPE(vocabulary, merges[:count])).to_str())
        step = sum(number <= count for number in numbers) - 1
        assert cuts_at(view, step) == own_cuts(TokenizerJson("less", "less", less), text)


def test_a_merge_that_waits_for_a_later_one():
    assert replay.merged_at([b"a", b"b", b"c"], {(b"ab", b"c"): 1, (b"a", b"b"): 2}, never=3) == {1: 2, 2: 2}
    assert replay.merged_at([b"a", b"b", b"c"], {(b"a", b"b"): 1}, never=2) == {1: 1, 2: 2}
    assert replay.merged_at(["é".encode(), b"c"], {("é".encode(), b"c"): 1}, never=2) == {1: 0, 2: 1}


def test_entries_that_are_taken_whole():
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    config = json.loads(Tokenizer(models.BPE(vocabulary, [("a", "b")], ignore_merges=True)).to_str())
    view = replay.replay(TokenizerJson("toy", "toy", config), "abc")
    assert view.steps == ("start: bytes", "merge 1: a + b", "entries taken whole")
    assert view.events == ((1, 1, 0), (2, 2, 0))


def sentencepiece_bpe():
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=900,
        byte_fallback=True,
        character_coverage=0.99,
        num_threads=1,
        minloglevel=2,
    )
    return adapters.SentencePiece("toy", "toy", model.getvalue())


def test_bpe_that_begins_with_characters():
    tokenizer = sentencepiece_bpe()
    view = replay.replay(tokenizer, "né the lamp")
    assert view.steps[0] == "start: characters"
    assert view.units[:3] == ("n", "é", "")
    assert 2 not in cuts_at(view, 0)  # the two bytes of é never stand apart

    @settings(max_examples=100, deadline=None)
    @given(PROBE)
    def check(text):
        view = replay.replay(tokenizer, text)
        assert cuts_at(view, len(view.steps)) == own_cuts(tokenizer, text)

    check()


def test_wordpiece_steps_are_encodings_with_that_many_entries(refs):
    config = json.loads(training.tokenizer_json(refs["WordPiece"]))
    vocabulary = config["model"]["vocab"]
    alphabet = sum(len(entry.removeprefix("##")) == 1 for entry in vocabulary) + 1
    text = samples.text("showcase") + " lanternlight xylophone"
    view = replay.replay(refs["WordPiece"], text)
    numbers = [0] + [int(label.split()[1].rstrip(":").replace(",", "")) for label in view.steps[1:]]
    assert len(numbers) > 30
    for count in {*range(0, len(vocabulary) - alphabet, 29), *numbers[:20], *(n - 1 for n in numbers[1:20])}:
        less = {entry: i for entry, i in vocabulary.items() if i < alphabet + count}
        tokenizer = Tokenizer(models.WordPiece(less, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        oracle = TokenizerJson("less", "less", json.loads(tokenizer.to_str()))
        step = sum(number <= count for number in numbers) - 1
        assert cuts_at(view, step) == own_cuts(oracle, text), count


def test_unigram_stages():
    ref = register("Unigram", 700)
    progress = list(training.make_stages(ref))
    shares = [step.share for step in progress if step.phase == "pruning"]
    assert progress[0].phase == "starting" and progress[-1].phase == "done" and progress[-1].ref == ref
    assert shares == sorted(shares) and [step.seconds for step in progress] == sorted(s.seconds for s in progress)
    sizes = [len(json.loads(stage)["model"]["vocab"]) for stage in training.stages(ref)]
    assert len(sizes) == 8 and sizes == sorted(sizes, reverse=True) and sizes[-1] == 700
    view = replay.replay(ref, "Mira lit the lamp. 日本")
    assert view.steps == (f"start: {sizes[0]:,} pieces", *(f"pruned to {size:,} pieces" for size in sizes[1:]))
    for step, stage in enumerate(training.stages(ref)):
        tokenizer = TokenizerJson("stage", "stage", json.loads(stage))
        assert cuts_at(view, step) == own_cuts(tokenizer, "Mira lit the lamp. 日本")


def test_a_long_text_has_fewer_stages(monkeypatch):
    monkeypatch.setattr(training, "MANY", 1_000)
    assert len(training.stages(register("Unigram", 750))) == 4


def test_a_text_too_short_to_prune():
    view = replay.replay(register("Unigram", 5000, "abc abd abc abd"), "abc")
    assert view.steps == ("start: 265 pieces",)
    assert view.note.startswith("Nothing was pruned")


def test_only_unigram_has_stages():
    with pytest.raises(UserError, match="Only Unigram prunes"):
        training.stages(register("BPE", 300, "aaab aaab ab"))


def test_a_long_text_is_cut_short(refs):
    view = replay.replay(refs["BPE"], "é" * 700)
    assert "".join(view.units) == "é" * 600
    assert view.note.endswith("Shown: the first 600 of 700 characters.")
    zalgo = "e" + "\u0301" * 1999  # 3,999 bytes
    assert "".join(replay.replay(refs["BPE"], zalgo + "ab").units) == zalgo + "a"
    with pytest.raises(UserError, match="too long to replay"):
        replay.replay(refs["BPE"], zalgo + "\u0301")


def test_refusals(refs):
    for text, sentence in [("", "no text to replay"), ("a\ud800", "half a character")]:
        with pytest.raises(UserError, match=sentence):
            replay.replay(refs["BPE"], text)
    with pytest.raises(UserError, match="Only BPE tokenizers and those trained here"):
        replay.replay(adapters.Bytes(), "abc")
    with pytest.raises(UserError, match="train it again"):
        replay.replay("trained:0000000000000000", "abc")


@pytest.mark.parametrize(
    ("piece", "label"),
    [
        (b" the", "␣the"),
        (b"\n\t\x00", "␊␉␀"),
        ("é日".encode(), "é日"),
        (b"\xe6\x97", "E6 97"),
        (b" \xf0", "20 F0"),
        ("\u200d".encode(), "U+200D"),
        ("\u202e".encode(), "U+202E"),
        ("\u0301".encode(), "◌\u0301"),
        (b"<img onerror=x>", "<img␣onerror=x>"),
        (b"\x7f", "U+007F"),
    ],
)
def test_readable(piece, label):
    assert replay.readable(piece) == label
