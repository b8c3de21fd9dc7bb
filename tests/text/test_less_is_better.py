import hashlib
import json
import math
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab import guard, spec, views
from tokenlab.errors import UserError
from tokenlab.text import less_is_better as lib
from tokenlab.text import story_corpus
from tokenlab.text.less_is_better import END, Lexicon, LiB, Score, Sentence, WittenBell


def learner(chunks, sentences=("abcd",), **settings):
    """A learner whose ranked list is `chunks`, with nothing on probation."""
    made = LiB(list(sentences), **{"p_in": 0.0, "max_len": 12} | settings)
    made.lexicon = Lexicon("abcd", made.lexicon.max_len, chunks)
    made.probation = {}
    return made


def read(made, *sentences):
    want, votes = set(), []
    for sentence in sentences:
        made.read(sentence, want, votes)
    return want, votes


# --- the lexicon


def test_match_gives_the_two_longest_prefixes():
    lexicon = Lexicon("", 12, ["a", "abc", "abcde"])
    assert lexicon.match("xabcdex", 1) == (3, 5)
    assert lexicon.match("xabcdx", 1) == (1, 3)  # abcd leads on but is no chunk
    assert lexicon.match("ax", 0) == (0, 1)
    assert lexicon.match("x", 0) == (0, 0)


def test_match_looks_no_further_than_max_len():
    assert Lexicon("", 2, ["a", "abc"]).match("abc", 0) == (0, 1)


def test_remove_keeps_chunks_that_share_a_branch():
    lexicon = Lexicon("", 12, ["ab", "abcd", "abce"])
    lexicon.remove("abcd")
    assert lexicon.match("abcd", 0) == (0, 2) and lexicon.match("abce", 0) == (2, 4)
    lexicon.remove("ab")
    lexicon.remove("abce")
    assert lexicon.trie == {} and lexicon.order == [] and lexicon.rank == {}


def test_a_vote_moves_by_a_share_of_the_rank_and_one():
    lexicon = Lexicon("", 12, "abcdefghijk")
    lexicon.vote("k", -1, 0.2)  # rank 10: 2 + 1 places
    assert "".join(lexicon.order) == "abcdefgkhij"
    lexicon.vote("b", 1, 0.2)  # rank 1: 0 + 1 places
    assert "".join(lexicon.order) == "acbdefgkhij"
    lexicon.vote("h", 1, 0.2)  # rank 8: 1 + 1 places, just the last one
    assert "".join(lexicon.order) == "acbdefgkijh"


def test_rank_0_never_moves():
    lexicon = Lexicon("", 12, "abc")
    lexicon.vote("a", 1, 0.5)
    lexicon.vote("a", -1, 0.5)
    assert lexicon.order == ["a", "b", "c"]


def test_past_the_end_is_deleted():
    lexicon = Lexicon("", 12, "abcdefghijk")
    lexicon.vote("j", 1, 0.2)  # rank 9: 1 + 1 places, to 11 of 11
    assert "".join(lexicon.order) == "abcdefghik" and "j" not in lexicon and lexicon.match("j", 0) == (0, 0)


def test_votes_use_the_current_rank_not_the_one_before_the_votes():
    # e: 4 -> 1, which pushes d from 3 to 4. A rank from before the votes would take c for d.
    made = learner("abcde", rate=0.5)
    made.elect([("e", -1), ("d", -1)])
    assert "".join(made.lexicon.order) == "adebc"
    assert made.lexicon.rank == {"a": 0, "d": 1, "e": 2, "b": 3, "c": 4}


def test_votes_for_deleted_chunks_are_void():
    made = learner("abc")
    made.elect([("c", 1), ("c", -1), ("b", -1)])
    assert made.lexicon.order == ["b", "a"]


def test_sub_chunks_take_the_best_ranked_pair_and_recurse_once():
    lexicon = Lexicon("", 12, ["of", "the", "t", "he", "ofthe", "o", "fthe"])
    assert lexicon.parts("ofthe") == ["of", "the"]
    assert lexicon.parts("the") == ["the"]  # he ranks below the
    assert lexicon.parts("fthe") == ["fthe"]
    deep = Lexicon("", 12, ["a", "b", "ab", "aab", "aaab", "aaaab"])
    assert deep.parts("aaaab") == ["a", "a", "aab"]  # two levels, not more
    assert deep.parts("unheard") == ["unheard"]


# --- one step of the learner at a time


def test_a_pair_is_remembered_at_its_second_meeting_in_the_document():
    made = learner("ab", p_in=1.0)
    want, _ = read(made, "ab")
    assert want == {"ab"} and made.lexicon.order == ["a", "b"]
    want, _ = read(made, "ab", "ab")
    assert want == set() and made.lexicon.order == ["a", "b", "ab"]  # lowest rank


def test_meetings_in_different_documents_do_not_add_up():
    made = learner("ab", p_in=1.0)
    read(made, "ab")
    read(made, "ab")
    assert made.lexicon.order == ["a", "b"]


def test_candidates_are_pairs_of_units_as_read():
    want, _ = read(learner(["a", "b", "c", "ab"], p_in=1.0), "abc")
    assert want == {"abc"}  # read as ab, c


def test_too_long_pairs_are_not_remembered():
    want, _ = read(learner(["abc", "d"], p_in=1.0, max_len=3), "abcd")
    assert want == set()


def test_p_in_0_remembers_nothing():
    want, _ = read(learner("ab", p_in=0.0), "ab", "ab", "ab")
    assert want == set()


def test_a_short_unknown_stretch_is_remembered_when_something_known_follows():
    made = learner("a", p_in=1.0)
    want, _ = read(made, "xya")
    assert want == {"xy"}
    read(made, "xya", "bxya")
    assert made.lexicon.order == ["a"]  # xy and bxy: one meeting each
    read(made, "xya", "xya")
    assert made.lexicon.order == ["a", "xy"]
    assert read(learner("a", p_in=1.0), "x" * lib.MINI_GAP + "a")[0] == {"x" * lib.MINI_GAP}
    assert read(learner("a", p_in=1.0), "x" * (lib.MINI_GAP + 1) + "a")[0] == set()
    assert read(learner("a", p_in=1.0), "axx")[0] == set()  # nothing follows


def test_fewer_units_make_a_chunk_good_and_end_its_probation():
    made = learner(["a", "b", "c", "ab"])
    made.probation = {"ab": 3, "c": 3}
    _, votes = read(made, "abcd")
    assert votes == [("ab", -1)]  # ab against a + b
    assert made.probation == {}  # c has no rival, which clears it too
    assert made.contests[-1] == (["ab"], ["a", "b"], False, "fewer units")


def test_more_units_make_a_chunk_bad():
    made = learner(["a", "b", "c", "d", "ab", "bcd"])
    made.probation = {"ab": 3}
    _, votes = read(made, "abcdx")
    assert votes[:2] == [("ab", 1), ("a", -1)]  # ab + c + d against a + bcd
    assert made.probation == {"ab": 3}
    assert made.contests[0] == (["ab", "c", "d"], ["a", "bcd"], True, "fewer units")


def test_a_tie_goes_to_the_better_ranks():
    bad = learner(["a", "bc", "c", "b", "ab"])  # ab + c: 4 + 2, a + bc: 0 + 1
    assert read(bad, "abcd")[1][:2] == [("ab", 1), ("a", -1)]
    good = learner(["ab", "c", "b", "a", "bc"])  # ab + c: 0 + 1, a + bc: 3 + 4
    assert read(good, "abcd")[1] == [("ab", -1)]
    assert good.contests[0].because == "as many units, better ranks"


def test_equal_units_and_ranks_are_good():
    assert lib.verdict(["ab", "c"], ["a", "bc"], 0, 0, {"ab": 0, "c": 3, "a": 1, "bc": 2}) == (
        False,
        "as many units, better ranks",
    )


def test_unknown_characters_weigh_most():
    made = learner(["a", "ab", "bc"])
    assert read(made, "abcd")[1] == [("ab", 1), ("a", -1)]  # ab + unknown c against a + bc
    assert made.contests[0].because == "fewer unknown characters"


def test_unknown_characters_count_as_units_of_the_shorter_reading_only():
    # 2 known units and 1 unknown character each: 2 against 3, as in the authors' code.
    assert lib.verdict(["ab", "e"], ["a", "de"], 1, 1, {"ab": 9, "e": 9, "a": 0, "de": 0}) == (False, "fewer units")


def test_readings_that_meet_only_at_the_end_of_the_sentence_give_no_verdict():
    made = learner(["a", "b", "c", "ab"])
    made.probation = {"ab": 3}
    assert read(made, "cab")[1] == [] and made.probation == {"ab": 3}


def test_probation_costs_a_life_per_epoch():
    made = learner("abc")
    made.probation = {"b": 2}
    made.forget()
    assert made.lexicon.order == ["a", "b", "c"] and made.probation == {"b": 1}
    made.forget()
    assert made.lexicon.order == ["a", "c"] and made.probation == {}


def test_the_end_of_the_list_goes_on_probation_but_keeps_the_lives_it_has_left():
    made = learner("abc", life=7)
    made.elect([])
    assert made.probation == {"c": 7}
    made.probation = {"c": 2}
    made.elect([])
    assert made.probation == {"c": 2}


def test_a_chunk_that_is_voted_out_leaves_probation():
    made = learner("abc", life=7)
    made.probation = {"c": 5}
    made.elect([("c", 1)])
    assert made.lexicon.order == ["a", "b"] and made.probation == {"b": 7}


def test_first_lexicon_is_the_characters_of_the_first_document_all_on_probation():
    made = LiB(["ba", "ca"], life=4)
    assert made.lexicon.order == ["a", "b", "c"] and made.probation == {"a": 4, "b": 4, "c": 4}


def votes_read_step_by_step(lexicon, sentence):
    """The tests of a sentence as the authors run them: in step with the reading, open until the readings meet."""
    votes, running, i = Counter(), [], 0
    while i < len(sentence):
        still = []
        for start, longer, shorter, end, unknown_b in running:
            while end < i:
                length = lexicon.match(sentence, end)[1]
                shorter.append(sentence[end : end + length])
                end += length or 1
                unknown_b += not length
            if end != i:
                still.append((start, longer, shorter, end, unknown_b))
                continue
            unknown_a = longer.count("")
            a = [unit for unit in longer if unit]
            b = [unit for unit in shorter if unit]
            tie = unknown_a == unknown_b and len(a) == len(shorter)
            ranks_a, ranks_b = (sum(map(lexicon.order.index, units)) for units in (a, b))
            if (
                unknown_a > unknown_b
                or (unknown_a == unknown_b and len(a) > len(shorter))
                or (tie and ranks_a > ranks_b)
            ):
                votes[longer[0], 1] += 1
                votes[lexicon_prefix(lexicon, longer[0]), -1] += 1
            else:
                votes[longer[0], -1] += 1
        running = still
        second, first = lexicon.match(sentence, i)
        for test in running:
            test[1].append(sentence[i : i + first])
        if second:
            running.append((i, [sentence[i : i + first]], [sentence[i : i + second]], i + second, 0))
        i += first or 1
    return votes


def lexicon_prefix(lexicon, chunk):
    return max((c for c in lexicon.order if chunk.startswith(c) and c != chunk), key=len)


@given(
    chunks=st.lists(st.text("abc", min_size=1, max_size=4), unique=True, max_size=12),
    sentence=st.text("abcd", max_size=30),
)
def test_tests_agree_with_a_reading_in_step(chunks, sentence):
    made = learner(chunks)
    _, votes = read(made, sentence)
    assert Counter(votes) == votes_read_step_by_step(made.lexicon, sentence)


def test_same_seed_same_lexicon_and_another_seed_another():
    texts = [s.text for s in lib.sentences(story_corpus.stories(20), True)]
    orders = []
    for seed in (1, 1, 2):
        made = LiB(texts, seed=seed)
        for _ in range(5):
            made.epoch()
        orders.append(made.lexicon.order)
    assert orders[0] == orders[1] != orders[2]


def test_state_stays_consistent_over_many_epochs():
    made = LiB([s.text for s in lib.sentences(story_corpus.stories(10), True)], p_in=1.0, rate=0.5, life=2)
    for _ in range(30):
        made.epoch()
        lexicon = made.lexicon
        assert lexicon.rank == {chunk: k for k, chunk in enumerate(lexicon.order)}
        assert set(made.probation) <= set(lexicon.order) and all(0 < life <= 2 for life in made.probation.values())
        assert all(lexicon.match(chunk, 0)[1] == len(chunk) <= 16 for chunk in lexicon.order)


def test_it_learns_words_from_text_without_spaces():
    rng = random.Random(0)
    texts = ["".join(rng.choices(["lo", "mira", "tun", "esk"], k=8)) for _ in range(300)]
    made = LiB(texts, max_len=4, seed=0)
    for _ in range(60):
        made.epoch()
    assert {"mira", "tun", "esk"} <= set(made.lexicon.order)


# --- text, cuts, export

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@settings(deadline=None)
@given(text=TEXTS)
def test_sentences_are_the_text(text):
    found = lib.sentences(text, spaces=True)
    assert "".join(s.text for s in found) == text
    assert all("".join(s.words) == "".join(s.spaced) == s.text for s in found)


@given(text=TEXTS)
def test_words_spell_the_sentence_without_spaces_too(text):
    for sentence in lib.sentences(text, spaces=False):
        assert "".join(sentence.words) == "".join(sentence.spaced) == sentence.text
        assert " " not in sentence.text


def test_sentences_and_words_of_an_example():
    found = lib.sentences('"Stop!" said Mia. It\'s late.\n\nBye', spaces=True)
    assert [s.text for s in found] == ['"Stop!', '" said Mia.', " It's late.", "\n", "\n", "Bye"]
    assert found[2].words == [" It's", " late", "."] and found[2].spaced == [" It's", " late."]
    assert lib.sentence_of(" It's late.", spaces=False) == ("It'slate.", ["It's", "late", "."], ["It's", "late."])


@given(
    text=TEXTS,
    chunks=st.lists(st.text(min_size=1, max_size=5).filter(lambda c: c.isprintable()), unique=True, max_size=20),
)
def test_greedy_cuts_cover_any_text_exactly(text, chunks):
    assert b"".join(Lexicon("abc ", 5, chunks).cut(text)) == text.encode()


def test_cut_falls_back_to_characters_of_the_alphabet_and_to_bytes():
    lexicon = Lexicon("aé", 4, ["aa"])
    assert lexicon.cut("aaaéü") == [b"aa", b"a", "é".encode(), b"\xc3", b"\xbc"]
    assert lexicon.entries() == [b"a", "é".encode(), b"aa"]


@pytest.fixture(scope="module")
def trained():
    train, _ = lib.held_out(lib.sentences(story_corpus.stories(60) + "\nÄrger über Öl. 日本の話。", True))
    made = LiB([s.text for s in train])
    for _ in range(40):
        made.epoch()
    return made.lexicon


AWKWARD = (
    'Naïve 日本の話! <img onerror=alert(1)>\r\n\u202eabc\u0000 👩‍👩‍👧  two  spaces\tand\u00a0tab …\n\n3.14 "no." \'x’'
)


def test_exported_tokenizer_cuts_as_the_lexicon_reads(trained):
    from tokenizers import Tokenizer

    text = story_corpus.stories(30, seed=5) + "\n" + AWKWARD
    loaded = Tokenizer.from_str(lib.to_tokenizer_json(trained, spaces=True))
    encoding = loaded.encode(text)
    cuts = [unit for s in lib.sentences(text, True) for unit in trained.cut(s.text)]
    assert [lib.spelled_bytes(token) for token in encoding.tokens] == cuts
    assert encoding.ids == [lib.ids_of(trained)[unit] for unit in cuts]
    assert loaded.decode(encoding.ids, skip_special_tokens=False) == text
    assert len(cuts) < len(text) / 3


@settings(max_examples=50, deadline=None)
@given(text=TEXTS)
def test_exported_tokenizer_reads_any_text(trained, text):
    loaded = exported(trained)
    cuts = [unit for s in lib.sentences(text, True) for unit in trained.cut(s.text)]
    assert [lib.spelled_bytes(token) for token in loaded.encode(text).tokens] == cuts


_EXPORTED = {}


def exported(lexicon):
    from tokenizers import Tokenizer

    return _EXPORTED.setdefault(id(lexicon), Tokenizer.from_str(lib.to_tokenizer_json(lexicon, spaces=True)))


def test_exported_tokenizer_removes_spaces_when_learned_without():
    from tokenizers import Tokenizer

    text = story_corpus.stories(20)
    whole = lib.sentences(text, False)
    made = LiB([s.text for s in whole])
    for _ in range(20):
        made.epoch()
    loaded = Tokenizer.from_str(lib.to_tokenizer_json(made.lexicon, spaces=False))
    cuts = [unit for s in whole for unit in made.lexicon.cut(s.text)]
    assert [lib.spelled_bytes(token) for token in loaded.encode(text).tokens] == cuts


def test_exported_tokenizer_takes_the_longest_sentence():
    from tokenizers import Tokenizer

    text = "日" * 1000 + "!" * 100 + "”"
    assert [s.text for s in lib.sentences(text, True)] == [text]
    loaded = Tokenizer.from_str(lib.to_tokenizer_json(Lexicon("a", 4, []), spaces=True))
    assert "[UNK]" not in loaded.encode(text).tokens


def test_byte_characters_are_those_of_the_library():
    from tokenizers import pre_tokenizers

    assert set(lib.byte_characters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("é ")[0][0] == "ÃĠ"[0] + "©"
    assert lib.spelled_bytes("Ã©Ġ") == "é ".encode()


def test_word_marks():
    sentence = lib.sentence_of('"A lot of fog, Tom."', True)
    cases = {
        '"|A lot of| fog, T|om|."': [0, 1, 3, 2, 0],
        '"A |lo|t of |fog|,| Tom."': [0, 2, 3, 0, 0, 0],
    }
    for cuts, marks in cases.items():
        assert lib.word_marks([unit.encode() for unit in cuts.split("|")], sentence) == marks
    assert lib.word_marks([b"\xc3", b"\xa9a"], lib.sentence_of("éa", True)) == [2, 2]


# --- the numbers


def test_witten_bell_by_hand():
    # a b, a c: counts a 2, b 1, c 1, END 2; N = 6, T = 4; 5 outcomes (a, b, c, d, END).
    model = WittenBell([[b"a", b"b"], [b"a", b"c"]], outcomes=5)
    assert model.p(b"d", b"b") == pytest.approx((0 + 1 * 0.8 / 10) / 2)
    assert model.p(b"a", END) == pytest.approx((2 + 1 * 0.28) / 3)  # P(a) = (2 + 4/5) / 10 = 0.28
    assert model.p(b"b", b"a") == pytest.approx((1 + 2 * 0.18) / 4)
    assert model.p(b"a", b"d") == pytest.approx(0.28)  # never seen before anything
    assert model.bits([b"a", b"b"]) == pytest.approx(-math.log2(0.76 * 0.34 * 0.64))


@given(
    lines=st.lists(st.lists(st.sampled_from([b"a", b"b", b"cc"]), max_size=5), min_size=1, max_size=6),
    before=st.sampled_from([END, b"a", b"b", b"cc", b"z"]),
)
def test_witten_bell_sums_to_one(lines, before):
    model = WittenBell(lines, outcomes=5)
    assert sum(model.p(unit, before) for unit in (END, b"a", b"b", b"cc", b"z")) == pytest.approx(1)


def test_boundary_f1_by_hand():
    # Gold: of|the|cat. LiB: ofthe|c|at, and with spaces on either side of the cut.
    assert lib.boundary_f1([[b"ofthe", b"c", b"at"]], [["of", "the", "cat"]]) == pytest.approx(2 * 1 / (2 + 2))
    assert lib.boundary_f1([[b"of ", b"the", b" cat"]], [["of", " the", " cat"]]) == 1.0
    assert lib.boundary_f1([[b"of", b" ", b"the"]], [["of", " the"]]) == 1.0
    assert lib.boundary_f1([[b"of the"]], [["of", " the"]]) == 0.0


def test_description_length_by_hand():
    # 3 characters and an end mark: 2 bits each; "ab" and its end: 6 bits.
    # Four units, half of them "ab": 2 * 1 + 2 * 2 bits.
    lexicon, text = lib.description_length([b"a", b"b", b"c", b"ab"], [[b"ab", b"a"], [b"ab", b"c"]])
    assert (lexicon, text) == (6.0, pytest.approx(6.0))


def test_score_by_hand():
    sentence = Sentence("ab c", ["ab", " c"], ["ab", " c"])
    cutter = lib.word_cutter("Words", [sentence.words], lambda s: s.words)
    assert cutter.entries == [b" ", b"a", b"b", b"c", b"ab", b" c"]
    scored = lib.score(cutter, [sentence], [sentence])
    assert (scored.types, scored.tokens, scored.f1) == (6, 500.0, 1.0)
    model = WittenBell([[b"ab", b" c"]], 256 + 2 + 1)
    assert scored.bits == pytest.approx(model.bits([b"ab", b" c"]) / 4)


def test_word_cutter_keeps_the_most_frequent_words_and_spells_the_rest():
    lines = [["ab", " ab"], ["ab", " cd"], ["é", " ab"]]
    cutter = lib.word_cutter("Words", lines, lambda s: s.words, types=7)  # 6 letters (with the space) and 1 word
    assert cutter.entries[-1] == b"ab" and len(cutter.entries) == 7
    unseen = Sentence("", ["ab", " ab", "é", "ü"], [])
    assert cutter.cut(unseen) == [b"ab", b" ", b"a", b"b", "é".encode(), b"\xc3", b"\xbc"]


def test_bpe_twin_has_the_size_asked_for_and_crosses_spaces():
    train = lib.sentences(story_corpus.stories(30), True)
    cutter = lib.bpe_cutter(train, 400)
    assert len(cutter.entries) == 400
    cuts = [cutter.cut(s) for s in train]
    assert [b"".join(cut).decode() for cut in cuts] == [s.text for s in train]
    assert any(b" " in unit.strip() for cut in cuts for unit in cut)
    assert {unit for cut in cuts for unit in cut} <= set(cutter.entries)


def test_random_chunks_are_substrings_of_the_training_text():
    train = lib.sentences("the cat sat. the dog ran.", True)
    cutter = lib.random_cutter(train, 40, 6, seed=0)
    assert len(cutter.entries) == 40
    assert all(entry.decode() in "the cat sat.\n the dog ran." for entry in cutter.entries)


def test_held_out_sentences_are_not_in_the_training_part():
    corpus = lib.sentences(story_corpus.stories(60), True)
    train, test = lib.held_out(corpus)
    assert len(test) > 50 and not {s.text for s in test} & {s.text for s in train}
    assert len({s.text for s in test}) == len(test)


# --- the panel


def run(**values):
    return guard.last(lib, values)


def test_default_run_streams_and_shows_everything():
    results = list(lib.run(epochs=40))
    final = results[-1]
    text = "".join(final.strip.graphemes).encode()
    assert [row.name.split(",")[0] for row in final.strip.rows] == [
        "LiB after 40 epochs",
        "BPE",
        "LiB after 3",  # 3,000 epochs (shipped)
        "Words",
    ]
    for row in final.strip.rows:
        assert row.starts[0] == 0 and row.ends[-1] == len(text) and row.starts[1:] == row.ends[:-1]
        assert len(row.marks) == len(row.starts)
    assert 1 in final.strip.rows[0].marks  # a multi-word chunk
    assert len(final.climb.series) == lib.CLIMBERS
    assert list(final.curve.series[0].y) == sorted(final.curve.series[0].y, reverse=True)
    assert len(final.contests.rows) == 20
    assert {row[0] for row in final.numbers.rows} >= {"LiB", "BPE", "Words", "Characters", "Random chunks"}
    json.dumps(views.result_to_json(final))


def test_partial_results_come_without_numbers(monkeypatch):
    monkeypatch.setattr(lib, "REDRAW", 0.0)
    *partial, final = lib.run(epochs=20, bpe=False)
    assert len(partial) > 5 and all(r.numbers is None and r.made is None for r in partial)
    assert "BPE" not in {row[0] for row in final.numbers.rows}


def test_pasted_text_is_data_and_the_made_tokenizer_reads_it():
    from tokenizers import Tokenizer

    text = "<img onerror=x> ate $a$. " * 30 + AWKWARD
    result = run(corpus="pasted text", text=text, epochs=10).result
    assert "".join(result["strip"]["graphemes"]) == text[: len("".join(result["strip"]["graphemes"]))]
    Tokenizer.from_str(result["made"]["content"]).encode(text)
    assert "onerror" not in result["strip"]["note"] + result["climb"]["note"]


def test_short_text_is_measured_on_itself_and_says_so():
    result = run(corpus="pasted text", text="The cat sat. The cat ran.", epochs=10).result
    assert "too short" in result["numbers"]["note"]


def test_spaces_removed():
    result = run(spaces="removed", epochs=10, bpe=False, max_len=8).result
    assert " " not in result["strip"]["graphemes"]
    assert [row["name"].split(",")[0] for row in result["strip"]["rows"]] == ["LiB after 10 epochs", "Words"]


@pytest.mark.parametrize("text", ["", " \n\n ", "One sentence only"])
def test_too_little_text_is_one_sentence(text):
    with pytest.raises(UserError, match="^Your text: please paste at least two sentences.$"):
        run(corpus="pasted text", text=text)


@pytest.mark.parametrize(
    "values",
    [{"epochs": 5}, {"rate": 0.9}, {"max_len": 3}, {"corpus": "x"}, {"text": "a\ud800"}, {"text": "a" * 10**6}],
)
def test_bad_values_are_refused(values):
    with pytest.raises(UserError):
        run(**values)


def test_one_endless_line_stays_within_the_budget():
    assert run(corpus="pasted text", text="ab " * 3000 + "c. d. e.", epochs=10, bpe=False).done


def test_a_stopped_run_ends():
    guard_time = guard.Budget(seconds=0.0)
    token = guard._budget.set(guard_time)
    try:
        with pytest.raises(guard.TimeUp):
            list(lib.run(epochs=3000))
    finally:
        guard._budget.reset(token)


def test_controls_have_their_defaults_within_range():
    assert spec.check(lib.run, {})["epochs"] == 150


# --- the experiment


def scores(**pairs):
    blank = {"types": 9, "lexicon": 0.0, "text": 0.0, "f1": 0.0, "seconds": 0.0}
    return {name.replace("_", " "): [Score(name=name, tokens=t, bits=b, **blank)] for name, (t, b) in pairs.items()}


@pytest.mark.parametrize(
    "tokens, bits, holds", [(140.0, 1.0, True), (200.0, 1.0, False), (140.0, 1.2, False), (160.0, 1.0, False)]
)
def test_judge_wants_both_conditions(tokens, bits, holds):
    words = {"words_split_at_spaces": (150.0, 1.0), "words_and_punctuation": (130.0, 1.0)}  # the second is only shown
    found = scores(LiB=(tokens, bits), BPE=(90.0, 1.1), **words) | {
        f"LiB, as many types as {kind}": scores(LiB=(tokens, bits))["LiB"] for kind in lib.KINDS
    }
    verdict, sentence = lib.judge("toys", found)
    assert verdict is holds and ("does not hold" in sentence) is not holds
    assert f"LiB {bits:.3f}, BPE 1.100 (difference {bits - 1.1:+.3f}" in sentence


def test_where_bpe_wins_the_sweep_is_told():
    better, worse = scores(LiB=(1.0, 1.0), BPE=(1.0, 1.1)), scores(LiB=(1.0, 1.2), BPE=(1.0, 1.1))
    assert "at every point" in lib.lost_to_bpe([better])
    assert lib.lost_to_bpe([better, worse]) == "BPE needs fewer bits at 9 types of the sweep."


def test_interval_of_three():
    center, low, high = lib.interval([1.0, 2.0, 3.0])
    assert (center, low, high) == (
        2.0,
        pytest.approx(2 - 4.303 / math.sqrt(3)),
        pytest.approx(2 + 4.303 / math.sqrt(3)),
    )


def test_smaller_keeps_the_best_chunks():
    small = lib.smaller(Lexicon("ab", 4, ["ab", "a", "ba", "b", "abb"]), 4)
    assert small.order == ["ab", "ba"] and len(small.entries()) == 4


def test_split_is_disjoint_and_bounded():
    texts = [s.text for s in lib.sentences(story_corpus.stories(40), True)]
    train, test = lib.split(texts, True, seed=0, most=300)
    assert (len(train), len(test)) == (270, 30)
    assert not {s.text for s in train} & {s.text for s in test}


def test_experiment_end_to_end_on_two_small_corpora():
    texts = [s.text for s in lib.sentences(story_corpus.stories(40), True)]
    found = lib.experiment({"even": texts[::2], "odd": texts[1::2]}, judged=6, sweep=(3, 6), seeds=1, most=150)
    assert found.n == 15 * 2 and found.bar == found.baseline and found.random > found.value
    assert found.holds == ("does not hold" not in found.reason) and "of the sweep" in found.reason
    json.dumps(found.to_json())
    assert [type(view).__name__ for view in found.figures] == ["Lines"] * 4 + ["Table"] * 4
    kept = {row[0]: row for row in found.figures[4].rows}
    assert kept["LiB"][1] == kept["BPE"][1]  # the same number of types
    for kind in lib.KINDS:
        assert kept[f"LiB, as many types as {kind}"][1] == kept[kind][1]


# --- the corpus and what ships


def test_stories_are_reproducible_varied_and_well_formed():
    text = story_corpus.stories(lib.STORIES)
    assert text == story_corpus.stories(lib.STORIES) != story_corpus.stories(lib.STORIES, seed=1)
    found = [s.text.strip() for s in lib.sentences(text, True) if s.text.strip()]
    assert len(set(found)) > 3000
    assert not re.search(r"[{}^]|  |\b[Aa] [aeiou]|\b[Aa]n (?!hour)[^aeiou]", text)
    assert all(line[0].isupper() and line[-1] in '.!?"' for line in text.split("\n"))
    assert {len(re.findall(r'[.!?]"?(?= |$)', line)) for line in text.split("\n")} <= set(range(10, 26))


def test_every_slot_of_the_stories_is_known():
    cast = {"hero", "kind", "friend", "animal", "thing", "S", "O", "O_vp", "name", "he", "her"}
    slots = {
        slot for words in story_corpus.GRAMMAR.values() for w in words for slot, _ in re.findall(r"{(\w+)(:\w+)?}", w)
    }
    assert slots <= set(story_corpus.GRAMMAR) | cast


@pytest.mark.parametrize(
    "phrase, past, ing",
    [
        ("carry the box", "carried the box", "carrying the box"),
        ("run home", "ran home", "running home"),
        ("see it", "saw it", "seeing it"),
        ("tiptoe", "tiptoed", "tiptoeing"),
        ("skip", "skipped", "skipping"),
        ("wait", "waited", "waiting"),
        ("stay", "stayed", "staying"),
        ("dance", "danced", "dancing"),
    ],
)
def test_inflection(phrase, past, ing):
    assert (story_corpus.inflect(phrase, "past"), story_corpus.inflect(phrase, "ing")) == (past, ing)


def test_shipped_lexicon_belongs_to_the_default_corpus():
    stored = json.loads(lib.SHIPPED.read_text("utf-8"))
    text = story_corpus.stories(lib.STORIES)
    assert stored["text_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    lexicon, epochs = lib.shipped_lexicon()
    assert epochs == 3000 and len(lexicon) == len(set(lexicon.order)) > 3000
    _, test = lib.held_out(lib.sentences(text, True))
    tokens = sum(len(lexicon.cut(s.text)) for s in test)
    assert tokens < sum(len(s.words) for s in test) * 0.7
