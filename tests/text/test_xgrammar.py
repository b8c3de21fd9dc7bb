"""XGrammar: masks by hand, against brute force, four ways against each other and the package; writing; the panel."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.text.test_grammar import NAMES, items, language, spelled
from tokenlab import guard, models, spec, views
from tokenlab.errors import UserError
from tokenlab.text import xgrammar as xg
from tokenlab.text.byte_probabilities import toy_model
from tokenlab.text.grammar import Item, Parser, compile_grammar
from tokenlab.text.tokenizer_json import TokenizerJson

GOLDEN = Path(__file__).with_name("xgrammar_masks.json")
MORE = {  # further texts than the examples of the presets
    xg.JSON: ['["café 日本 🙂", {"a\\u00e9\\n": [true, null, -0.5E+3, {}], "b": []}]', "{\n}", '[[[["x"]]]]'],
    xg.JSON_SCHEMA: ['{"name": "Zoë", "thing": "🙂🙂", "color": "green", "count": -120, "friends": ["日本", "b"]}'],
    xg.ARITHMETIC: ["((((1))))", "9999 / 3 / 3 - 12"],
    xg.DATE: ["1912-11-30"],
}


@cache
def words() -> xg.Vocabulary:
    """The vocabulary of tinylm, without its network."""
    pipeline = json.loads((models.FOLDER / "tinylm" / "tokenizer.json").read_text("utf-8"))
    tokenizer = TokenizerJson("tinylm", "tinylm", pipeline)
    return xg.vocabulary(tokenizer, 4096, frozenset({1}))


def few(*pieces: bytes) -> xg.Vocabulary:
    """Id 0 ends a text, then the pieces."""
    return xg.Vocabulary([b"", *pieces], len(pieces) + 1, (0,))


def caches(source: str, vocabulary: xg.Vocabulary) -> dict[str, xg.MaskCache]:
    automaton = compile_grammar(source)
    return {xg.CACHE: xg.MaskCache(automaton, vocabulary, False), xg.AHEAD: xg.MaskCache(automaton, vocabulary)}


def four_masks(both: dict[str, xg.MaskCache], parser: Parser) -> list[np.ndarray]:
    vocabulary = both[xg.AHEAD].words
    return [
        xg.naive_mask(parser, vocabulary),
        xg.sorted_mask(parser, vocabulary),
        *(c.mask(parser) for c in both.values()),
    ]


# --- by hand

# Two calls of `word`, which is too long to be written out: behind the first comes ":", behind the second "."
WORD = "a" * 20
SENTENCE = f'root ::= word ":" word "."\nword ::= "b" | "{WORD}"'


def test_always_never_and_context_dependent_by_hand():
    both = caches(SENTENCE, few(b"b", b"b:", b"b.", b"b;", b"b:b", b"a", b":"))
    state = compile_grammar(SENTENCE).start[2]
    plain, ahead = both[xg.CACHE].entry(state), both[xg.AHEAD].entry(state)
    assert plain.always == 2  # b and a
    assert plain.uncertain.tolist() == [3, 2, 5, 4]  # b. b: b:b b; in the order of their bytes
    assert ahead.always == 2
    assert ahead.uncertain.tolist() == [3, 2, 5]  # nothing goes on with ;
    parser = Parser(compile_grammar(SENTENCE))
    for mask in four_masks(both, parser):
        assert np.flatnonzero(mask).tolist() == [1, 2, 5, 6]
    parser.accept(b"b:")
    for mask in four_masks(both, parser):
        assert np.flatnonzero(mask).tolist() == [1, 3, 6]
    parser.accept(b"b.")
    for mask in four_masks(both, parser):
        assert np.flatnonzero(mask).tolist() == [0]


def test_a_token_that_fits_every_caller_is_always_allowed():
    source = f'root ::= word "::" word ":."\nword ::= "b" | "{WORD}"'
    both = caches(source, few(b"b:", b"b::", b"b"))
    state = compile_grammar(source).start[2]
    assert both[xg.CACHE].entry(state).always == 1
    ahead = both[xg.AHEAD].entry(state)
    assert ahead.always == 2 and ahead.uncertain.tolist() == [2]


def test_look_ahead_climbs_through_rules_that_end():
    """Behind `word` its caller ends, too; what follows that one decides."""
    source = f'root ::= part ";" part ","\npart ::= "(" "x"{{20}} word | word\nword ::= "b" | "{WORD}"'
    both = caches(source, few(b"b;", b"b,", b"b."))
    state = compile_grammar(source).start[compile_grammar(source).names.index("word")]
    assert both[xg.CACHE].entry(state).uncertain.tolist() == [2, 3, 1]
    assert both[xg.AHEAD].entry(state).uncertain.tolist() == [2, 1]


def test_the_smallest_form_is_kept():
    pieces = [bytes([a, b]) for a in range(32, 64) for b in range(32, 64)]  # 1,024 tokens, a bitset has 129 bytes
    vocabulary = few(*pieces)
    entry = caches('root ::= "!" [ -?] "x"', vocabulary)[xg.AHEAD].entry(compile_grammar('root ::= "!"').start[1])
    assert entry.form == xg.ALWAYS and len(entry.kept) == 32 and entry.bytes == 128
    automaton = compile_grammar("root ::= [ -?]*")
    entry = xg.MaskCache(automaton, vocabulary).entry(automaton.start[1])
    assert (entry.form, entry.bytes) == (xg.OTHERS, 0)
    automaton = compile_grammar("root ::= ([ -/] [ -?])*")
    entry = xg.MaskCache(automaton, vocabulary).entry(automaton.start[1])
    assert (entry.form, entry.bytes, entry.always) == (xg.BITS, 129, 512)


def test_special_tokens_and_the_end():
    vocabulary = xg.Vocabulary([b"", b"", b"a", b"ab"], 6, (1,))  # two ids more than the tokenizer has
    both = caches('root ::= "a"+', vocabulary)
    parser = Parser(compile_grammar('root ::= "a"+'))
    assert all(np.flatnonzero(mask).tolist() == [2] for mask in four_masks(both, parser))
    parser.accept(b"a")
    assert all(np.flatnonzero(mask).tolist() == [1, 2] for mask in four_masks(both, parser))


def test_scan_passes_over_tokens_that_fail_alike():
    class Counting:
        def __init__(self, stacks):
            self.stacks, self.calls = stacks, 0

        def step(self, tops, byte):
            self.calls += 1
            return self.stacks.step(tops, byte)

    parser = Parser(compile_grammar('root ::= "ab" [a-z]*'))
    counting = Counting(parser.stacks)
    found = xg.scan(counting, parser.tops, xg.Words([b"ab", b"abc", b"abcd", b"b", b"ba", b"bb", b"bc", b"\xff\xff"]))
    assert found == ([0, 1, 2], [])
    assert counting.calls == 6  # a b c d, one b for four tokens, one FF


# --- against brute force


# The same examples every time: some grammars take seconds, and how many is a matter of chance.
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.tuples(*[items(2) for _ in NAMES]))
def test_masks_on_random_grammars(found: tuple[Item, ...]):
    try:
        check_masks(found)
    except UserError as refused:  # a grammar may be refused while it is read, too
        assert "too many ways" in str(refused)
        assume(False)


def check_masks(found: tuple[Item, ...]) -> None:
    rules = dict(zip(NAMES, found, strict=True))
    source = "\n".join(f"{name} ::= {spelled(item)}" for name, item in rules.items())
    pieces = [bytes(p) for n in (1, 2, 3) for p in itertools.product(b"xy", repeat=n)]
    try:
        both = caches(source, few(*pieces))
    except UserError:
        assume(False)
    valid = language(rules, 5)
    beginnings = {text[:k] for text in valid for k in range(len(text) + 1)}
    for prefix in sorted(p for p in beginnings if len(p) <= 2):
        parser = Parser(both[xg.AHEAD].automaton)
        assert parser.accept(prefix) == len(prefix)
        first, *others = four_masks(both, parser)
        assert all(np.array_equal(first, other) for other in others), (source, prefix)
        assert first[0] == (prefix in valid)
        for i, piece in enumerate(pieces):
            if prefix + piece in beginnings:
                assert first[i + 1], (source, prefix, piece)
            elif first[i + 1]:  # only a text longer than those in `valid` can begin so
                assert can_end(both[xg.AHEAD].automaton, prefix + piece, at_least=6), (source, prefix, piece)


def can_end(automaton, text: bytes, at_least: int) -> bool:
    """Whether some text of at least so many bytes begins with `text`: breadth first, by bytes.

    False only if all texts have been tried; a search that had to be cut short counts as True."""
    waiting, cut = [text], False
    while waiting and len(waiting[0]) < 24:
        text = waiting.pop(0)
        parser = Parser(automaton)
        try:
            parser.accept(text)
        except UserError:  # too many ways to read it at once
            return True
        if parser.may_end():
            return len(text) >= at_least
        waiting += [text + bytes([byte]) for byte in parser.next_bytes()]
        cut = cut or len(waiting) > 64
        waiting = waiting[:64]
    return cut or bool(waiting)


# --- four ways, and the package

TEXTS = [(preset, k) for preset in xg.PRESETS for k in range(1 + len(MORE.get(preset, ())))]


def text_of(preset: str, k: int) -> str:
    return [xg.PRESETS[preset].example, *MORE.get(preset, ())][k]


@cache
def preset_caches(preset: str) -> dict[str, xg.MaskCache]:
    return caches(xg.PRESETS[preset].grammar, words())


def steps(preset: str, k: int) -> list[bytes]:
    """The text as tinylm's tokenizer cuts it."""
    pipeline = json.loads((models.FOLDER / "tinylm" / "tokenizer.json").read_text("utf-8"))
    return [piece.data for piece in xg.cut(TokenizerJson("tinylm", "tinylm", pipeline), text_of(preset, k))]


def digest(mask: np.ndarray) -> str:
    return f"{int(mask.sum())}:{hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:12]}"


@pytest.mark.parametrize(("preset", "k"), TEXTS)
def test_four_ways_and_the_package_give_the_same_masks(preset, k):
    """xgrammar_masks.json holds what the package xgrammar 0.2.8 said (`python -m tests.text.test_xgrammar` writes it
    where the package is installed): it brings a GPU compiler of 1 GB, so it is not among the requirements."""
    both = preset_caches(preset)
    parser, said = Parser(both[xg.AHEAD].automaton), []
    for piece in [*steps(preset, k), b""]:
        first, *others = four_masks(both, parser)
        assert all(np.array_equal(first, other) for other in others)
        said.append(digest(first))
        assert parser.accept(piece) == len(piece)
    assert parser.may_end()
    assert said == json.loads(GOLDEN.read_text("utf-8"))[preset][k]


def test_the_stored_masks_are_what_the_package_says():
    pytest.importorskip("xgrammar")
    assert package_masks() == json.loads(GOLDEN.read_text("utf-8"))


def package_masks() -> dict[str, list[list[str]]]:
    """Digests of the package's masks before each token of the texts and behind the last."""
    import xgrammar

    pieces = [piece or f"<special {i}>".encode() for i, piece in enumerate(words().pieces)]
    special = [i for i, piece in enumerate(words().pieces) if not piece and i not in words().stop]
    info = xgrammar.TokenizerInfo(
        pieces, vocab_type=xgrammar.VocabType.RAW, vocab_size=words().size, stop_token_ids=list(words().stop)
    )
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    found: dict[str, list[list[str]]] = {}
    for preset, k in TEXTS:
        matcher = xgrammar.GrammarMatcher(compiler.compile_grammar(xg.PRESETS[preset].grammar))
        bits = xgrammar.allocate_token_bitmask(1, words().size)
        said = []
        for piece in [*steps(preset, k), b""]:
            xgrammar.reset_token_bitmask(bits)
            matcher.fill_next_token_bitmask(bits)
            mask = np.unpackbits(bits.numpy().view(np.uint8), bitorder="little")[: words().size].astype(bool)
            mask[special] = False  # the package takes their names for text
            said.append(digest(mask))
            assert matcher.accept_string(piece)
        found.setdefault(preset, []).append(said)
    return found


def test_all_entries_of_a_grammar():
    both = preset_caches(xg.ARITHMETIC)
    for cache_ in both.values():
        entries = cache_.fill()
        assert len(entries) == len(cache_.states()) == len(cache_.held())
        for entry in entries:
            assert entry.bytes <= words().dense_bytes + entry.uncertain.nbytes


# --- writing


def toy_grammar() -> str:
    return 'root ::= "a" [bc]{2,4} " " "cab" " b"?'


@cache
def toy():
    return toy_model(1, context=96)


def toy_words() -> xg.Vocabulary:
    return xg.vocabulary(toy().tokenizer, toy().vocabulary_size, toy().end)


@pytest.mark.parametrize("jump", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_written_fits(seed, jump):
    automaton = compile_grammar(toy_grammar())
    cache_ = xg.MaskCache(automaton, toy_words())
    written = xg.write(toy(), toy_words(), "abc", 40, 1.0, np.random.default_rng(seed), cache_, jump)
    assert written.finished and xg.judge(automaton, written.text).complete
    assert any(piece.id < 0 for piece in written.pieces) == jump
    if jump:
        assert any(b"cab" in piece.data for piece in written.pieces if piece.id < 0)
    again = xg.write(toy(), toy_words(), "abc", 40, 1.0, np.random.default_rng(seed), cache_, jump)
    assert again.text == written.text


def test_the_model_sees_the_text_cut_anew_after_a_jump():
    """The next token's probabilities are those behind the whole text as the tokenizer cuts it."""
    model = toy()
    cache_ = xg.MaskCache(compile_grammar('root ::= "abcab" [abc]'), toy_words())
    written = xg.write(model, toy_words(), "cab ", 12, 1.0, np.random.default_rng(0), cache_, jump=True)
    forced, chosen = written.pieces[0], written.pieces[1]
    assert (forced.data, forced.id) == (b"abcab", -1)
    network = xg.Network(model)
    ids = [*model.opening, *model.tokenizer.encode("cab abcab").ids.tolist()]
    p = np.exp(network.read(ids)[0])
    single = [i for i, piece in enumerate(toy_words().pieces) if piece in (b"a", b"b", b"c")]
    assert chosen.allowed == 3 and chosen.mass == pytest.approx(float(p[single].sum()), rel=1e-6)


def test_the_limit_of_tokens_leaves_a_beginning():
    automaton = compile_grammar('root ::= "a"{50}')
    written = xg.write(toy(), toy_words(), "a", 5, 1.0, np.random.default_rng(0), xg.MaskCache(automaton, toy_words()))
    found = xg.judge(automaton, written.text)
    assert not written.finished and not found.complete and found.fits == len(written.text)


def test_a_vocabulary_that_cannot_write_the_grammar_is_told():
    cache_ = xg.MaskCache(compile_grammar('root ::= "q" | "z"'), toy_words())
    with pytest.raises(UserError, match="No token of this model fits"):
        xg.write(toy(), toy_words(), "a", 5, 1.0, np.random.default_rng(0), cache_)


def test_judge_by_hand():
    automaton = compile_grammar('root ::= "a" ("b" "c")*')
    assert xg.judge(automaton, b"abcb") == xg.Verdict(4, False, 3)
    assert xg.judge(automaton, b"abc") == xg.Verdict(3, True, 3)
    assert xg.judge(automaton, b"abx") == xg.Verdict(2, False, 1)
    assert xg.judge(automaton, b"x") == xg.Verdict(0, False, None)


def test_whole_characters_by_hand():
    assert xg.whole_characters(b"", "aé".encode()[:2]) == b"a"
    assert xg.whole_characters("é".encode()[:1], "é".encode()[1:] + b"x") == "é".encode()[1:] + b"x"
    assert xg.whole_characters(b"", b"\xc3") == b""


def test_bytes_as_text_by_hand():
    assert xg.as_text("aé".encode() + b"\xff" + b"b") == ("aé\ufffdb", [0, 1, 2, 3, 6, 7])
    assert xg.as_text(b"") == ("", [0])


def test_shared_ids_leave_one_to_read():
    assert xg.shared_ids([1, 2, 3], [1, 2, 3]) == 2
    assert xg.shared_ids([1, 2], [1, 3, 2]) == 1
    assert xg.shared_ids([], [1]) == 0


@pytest.mark.parametrize("preset", [p for p in xg.PRESETS if p not in (xg.FREE,)])
def test_examples_have_their_format(preset):
    example = xg.PRESETS[preset].example.encode()
    assert xg.well_formed(preset, example)
    assert not xg.well_formed(preset, example[:-1])
    assert not xg.well_formed(preset, b"Mia has a kite.")


def test_free_example_fits():
    assert xg.judge(compile_grammar(xg.FREE_GRAMMAR), xg.PRESETS[xg.FREE].example.encode()).complete


def test_break_even_by_hand():
    def timing(naive, ahead, making):
        return xg.Timing({xg.NAIVE: naive, xg.AHEAD: ahead}, {xg.AHEAD: making}, {}, True)

    timings = [timing(2, 0.5, 4), timing(2, 0.5, 0), timing(2, 0.5, 0), timing(2, 0.5, 0)]
    assert xg.running(timings, xg.AHEAD).tolist() == [4.5, 5, 5.5, 6]
    assert xg.break_even(timings, xg.NAIVE) == 3
    assert xg.break_even(timings[:2], xg.NAIVE) is None


# --- the panel


def test_the_default_run(one_thread):
    *_, result = xg.run()
    assert result.outcome.marks[0] == "valid" and result.outcome.marks[1] == "invalid"
    text = "".join(result.written.graphemes)
    assert xg.well_formed(xg.JSON_SCHEMA, text.encode())
    assert sum(piece == -1 for piece in result.written.rows[0].ids) >= 2
    assert len(result.steps.rows) == len(result.written.rows[0].ids) + 1
    views.result_to_json(result)
    names = set(spec.result_views(xg.run))
    assert names == {field for field in result.__dataclass_fields__}


@pytest.mark.parametrize("preset", list(xg.PRESETS))
@pytest.mark.parametrize("part", [xg.PARSE, xg.SPEED])
def test_parser_and_speed(part, preset):
    *_, result = xg.run(part=part, preset=preset, step=4)
    views.result_to_json(result)
    if part == xg.PARSE:
        assert "is complete" in result.summary.text
        shares = np.array(list(result.shares.series.values()))
        np.testing.assert_allclose(shares.sum(axis=0), 100)
    else:
        assert result.times.rows[0][-1] == "yes"


def test_a_text_that_does_not_fit():
    *_, result = xg.run(part=xg.PARSE, preset=xg.JSON, text='{"a": <img onerror=alert(1)>}', step=200)
    assert "up to byte 6 of 29" in result.summary.text
    assert result.steps.rows[-1][2] == "does not fit"
    assert "<img" not in result.summary.text
    marks = result.written.rows[0].marks
    assert set(marks) == {0, 2} and marks[-1] == 2


def test_a_deep_stack_is_cut_where_it_is_shown():
    *_, result = xg.run(part=xg.PARSE, preset=xg.JSON, text="[" * 1500, step=200)
    assert "must go on" in result.summary.text
    assert "12 frames" in result.stacks.note
    views.result_to_json(result)


def test_a_hostile_grammar_in_the_panel():
    began = time.monotonic()
    for source in ('root ::= root "a"', 'root ::= ("a"{1000}){1000}', "root ::= " + "(" * 9_000):
        with pytest.raises(UserError):
            guard.last(xg, {"preset": xg.FREE, "grammar": source})
    with pytest.raises(UserError, match="at most 20,000"):
        guard.last(xg, {"preset": xg.FREE, "grammar": 'root ::= "' + "a" * 1_000_000 + '"'})
    assert time.monotonic() - began < 10


def test_the_experiment_runs_small(one_thread):
    measured = xg.experiment(
        models.causal_lm("tinylm"), presets=(xg.DATE, xg.ARITHMETIC), samples=2, length=12, masks=20, repeats=1
    )
    assert measured.n > 20 and 0 < measured.low <= measured.value <= measured.high < measured.baseline
    assert "the four ways give the same at " + f"{measured.n} of {measured.n}" in measured.reason
    assert len(measured.figures) == 4
    json.dumps(measured.to_json())


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(package_masks(), ensure_ascii=False, indent=0) + "\n", "utf-8")
