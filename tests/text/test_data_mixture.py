"""Data mixture inference: the linear program by hand and against the dense one, the panel, bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tokenlab import guard, spec, views
from tokenlab.errors import UserError
from tokenlab.text import data_mixture as dm
from tokenlab.text import sources
from tokenlab.text.merge_tree import single_bytes, single_characters


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


def diary_of(texts: list[str], merges: list[str], read: int | None = None, **more) -> dm.Diary:
    """merges: two-letter strings; every count is enough."""
    pairs = [(merge[:1].encode(), merge[1:].encode()) for merge in merges]
    return dm.keep_diary(texts, pairs, len(pairs) if read is None else read, words, **{"least": 1, **more})


# Each text once: every pair stands six times in all, so that each constraint is an equality in the true mixture.
A = "ab ab ab ab cd xy xy xy"  # 8 pairs, 23 bytes
B = "ab ab cd cd cd cd cd xy xy xy"  # 10 pairs, 29 bytes


def test_a_mixture_known_by_hand():
    """ab >= cd asks for at least 4/9 of A, cd >= xy for at most 4/9; in bytes that is 23 of 52."""
    merges = dm.train([A, B], 3, words)
    assert merges == [(b"a", b"b"), (b"c", b"d"), (b"x", b"y")]
    found = dm.MixtureProgram(dm.keep_diary([A, B], merges, 3, words, least=1)).solve(3)
    np.testing.assert_allclose(found.pair_shares, [4 / 9, 5 / 9], atol=1e-8)
    np.testing.assert_allclose(found.shares, [23 / 52, 29 / 52], atol=1e-8)
    assert found.objective < 1e-6
    assert dm.log_error(found.shares, np.array([23, 29]) / 52) == -16


def test_shares_of_pairs_become_shares_of_bytes():
    """The same, with every x in A's words made four letters longer: same pairs, more bytes. By hand."""
    diary = diary_of([A, B], ["ab", "cd", "xy"])
    longer = dm.Diary(**{**vars(diary), "sizes": np.array([23 + 29, 29])})
    np.testing.assert_allclose(dm.MixtureProgram(longer).solve(3).shares, [52 / 81, 29 / 81], atol=1e-8)


def test_slack_by_hand():
    """cd leads in both samples, and ab was merged first: the best excuse is B alone, where it lags by 0.2."""
    diary = diary_of(["ab cd cd cd", "ab ab cd cd cd"], ["ab"])
    found = dm.MixtureProgram(diary).solve(1)
    np.testing.assert_allclose(found.pair_shares, [0, 1], atol=1e-8)
    assert found.objective == pytest.approx(200_000)
    assert found.constraints == 1


def test_the_diary_counts_before_each_merge():
    diary = diary_of(["aaab abc", "bc bc"], ["ab", "bc", "aa"])
    assert diary.pairs.tolist() == [5, 2]  # aa aa ab, ab bc; bc bc
    assert diary.leading.tolist() == [[2, 0], [0, 2], [1, 0]]  # one bc went with ab, one aa when aab came
    row = diary.steps[0].row
    assert diary.steps[0].counts[diary.steps[0].changed == row].tolist() == [[0, 0]]
    assert diary.start[row].tolist() == [2, 0]
    assert diary.readable.tolist() == [True, True, True]


def test_rare_missing_and_given_merges_make_no_constraints():
    diary = diary_of(["ab ab ab cd", "ab cd ef"], ["cd", "qq", "ab", "ef"], given=1, least=2)
    assert diary.readable.tolist() == [False, False, True, False]
    assert diary.steps[1].row is None
    found = dm.MixtureProgram(diary).solve(4)
    assert found.objective == 0 and found.constraints == 0
    np.testing.assert_array_equal(found.pair_shares, [0.5, 0.5])  # nothing speaks against the start


def dense(diary: dm.Diary, read: int) -> tuple[float, np.ndarray]:
    """The whole linear program at once: every pair against every merge. Objective and shares of pairs."""
    from scipy.optimize import linprog

    scale = dm.MILLION / diary.pairs
    q = diary.start * scale
    pairs, n = q.shape
    blocks = []
    for t, step in enumerate(diary.steps[:read]):
        if diary.readable[t]:
            block = np.zeros((pairs, n + read + pairs))
            block[:, :n] = q[step.row] - q
            block[:, n + t] = 1
            block[:, n + read :] = np.eye(pairs)
            blocks.append(np.delete(block, step.row, axis=0))
        q[step.changed] = step.counts * scale
    cost = np.concatenate([np.zeros(n), np.ones(read + pairs)])
    one = np.concatenate([np.ones(n), np.zeros(read + pairs)])[None]
    rows = np.concatenate(blocks)
    found = linprog(cost, A_ub=-rows, b_ub=np.zeros(len(rows)), A_eq=one, b_eq=[1], bounds=(0, None), method="highs")
    return found.fun, found.x[:n]


@pytest.mark.parametrize("attack", ["other half", "shifted domain"])
def test_lazy_constraints_reach_the_optimum_of_the_whole_program(attack):
    secret = dm.mix(("Python", "JSON", "Invented, Latin"), np.array([0.5, 0.2, 0.3]), 8_000)
    diary = dm.keep_diary(secret.samples(attack), dm.train(secret.texts, 20), 20, least=1)
    program = dm.MixtureProgram(diary)
    for read in (5, 12, 20):  # constraints are kept from one to the next
        found = program.solve(read)
        objective, shares = dense(diary, read)
        assert found.objective == pytest.approx(objective, rel=1e-6, abs=1e-2)
        if read == 20:
            np.testing.assert_allclose(found.pair_shares, shares, atol=1e-4)
    assert objective > 1000  # the samples do not fit exactly, or the test would say little
    assert found.constraints < 20 * len(diary.start) / 4


def test_reading_in_steps_ends_where_reading_at_once_ends():
    secret = dm.mix(("Python", "JSON", "English prose"), np.array([0.5, 0.2, 0.3]), 50_000)
    diary = dm.keep_diary(secret.samples("other half"), dm.train(secret.texts, 100), 100)
    *_, stepwise = dm.read_on(diary)
    at_once = dm.MixtureProgram(diary).solve(100)
    assert stepwise.objective == pytest.approx(at_once.objective, rel=1e-6)
    np.testing.assert_allclose(stepwise.shares, at_once.shares, atol=1e-4)
    assert [e.read for e in dm.read_on(diary)] == [25, 50, 100]


def test_the_same_text_gives_the_mix_away():
    secret = dm.mix(("Python", "JSON", "English prose"), np.array([0.5, 0.0, 0.5]), 50_000)
    diary = dm.keep_diary(secret.samples("same text"), dm.train(secret.texts, 200), 200)
    found = dm.MixtureProgram(diary).solve(200)
    assert found.objective < 1e-3  # no slack is needed
    assert dm.log_error(found.shares, secret.shares) < -7


def test_a_mix_has_the_shares_asked_for():
    secret = dm.mix(("Python", "JSON"), np.array([0.25, 0.75]), 9_000)
    np.testing.assert_allclose(secret.shares, [0.25, 0.75], atol=1e-3)
    assert [len(text.encode()) for text in secret.texts] == [3_000, 9_000]
    assert secret.bytes == 12_000
    python, json_ = secret.samples("other half")
    assert not python.startswith(secret.texts[0][:200]) and not json_.startswith(secret.texts[1][:200])


def test_token_counting_by_hand():
    """Relative frequencies: "ab" 0.5 against 0.2 is A's, "cd" 0.1 against 0.6 B's, "xy" is B's; bytes do not count."""
    diary = diary_of([A, B], ["ab"])
    tokens = (b"a", b"ab", b"cd", b"xy", b"never")
    counts = np.array([[4, 0], [5, 2], [1, 6], [0, 2], [0, 0]])
    diary = dm.Diary(**{**vars(diary), "tokens": tokens, "token_counts": counts})
    np.testing.assert_allclose(dm.token_counting(diary), [1 / 3, 2 / 3])


def test_scores_by_hand():
    assert dm.log_error(np.array([0.6, 0.4]), np.array([0.5, 0.5])) == pytest.approx(-2)
    assert dm.log_error(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == -16
    draws = np.array([dm.random_shares(3, np.random.default_rng(i)) for i in range(4000)])
    np.testing.assert_allclose(draws.sum(axis=1), 1)
    assert (draws >= 0).all()
    # On the simplex of three the mean is 1/3 and the variance of a share 1/18.
    np.testing.assert_allclose(draws.mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(draws.var(axis=0), 1 / 18, atol=0.005)


def test_encoding_efficiency_recovers_a_power_law():
    """Shares that are a power of the ratio are found from the other mixes, up to normalizing."""
    shares = np.array([[0.2, 0.8], [0.5, 0.5], [0.7, 0.3]])
    np.testing.assert_allclose(dm.token_efficiency(shares**0.5, shares), shares, atol=1e-9)


def test_bootstrap():
    rng = np.random.default_rng(0)
    assert dm.bootstrap([2.0, 2.0, 2.0], rng) == (2.0, 2.0)
    low, high = dm.bootstrap(np.arange(100.0), rng)
    # The standard error of the mean is 2.9.
    assert low == pytest.approx(49.5 - 1.96 * 2.9, abs=0.6) and high == pytest.approx(49.5 + 1.96 * 2.9, abs=0.6)


# --- foreign tokenizers ------------------------------------------------------------------------------


def merge_list(*merges: str) -> list[tuple[bytes, bytes]]:
    return [tuple(part.encode() for part in merge.split("+")) for merge in merges]


def test_of_redundant_merges_the_one_that_is_reached_stays():
    kept = dm.canonical(merge_list("a+b", "b+c", "a+bc", "ab+c"), single_bytes)
    assert kept == merge_list("a+b", "b+c", "ab+c")
    kept = dm.canonical(merge_list("b+c", "a+b", "ab+c", "a+bc", "b+c"), single_bytes)
    assert kept == merge_list("b+c", "a+b", "a+bc")


def test_hand_added_white_space():
    spaces = [(b" " * n, b" ") for n in range(1, 9)]
    assert dm.hand_added([*spaces, (b"a", b"b"), (b" ", b"\n")]) == 8
    assert dm.hand_added([*spaces[:7], (b"a", b"b")]) == 0
    assert dm.hand_added([]) == 0


def test_byte_level_or_characters():
    assert dm.byte_level([(b"a", b"b"), (b"\xc3", b"\xa9")])
    assert not dm.byte_level([(b"a", b"b"), ("é".encode(), b"t")])


class Fake:
    def __init__(self, cuts: bool):
        self.cuts = cuts

    def pre_tokenize(self, text: str) -> list[bytes]:
        return words(text) if self.cuts else [text.encode()]


def test_words_are_cut_as_the_target_cuts_them():
    cut, known = dm.words_of(Fake(True), single_bytes)
    assert (list(cut("Hi you")), known) == ([b"Hi", b"you"], True)
    cut, known = dm.words_of(Fake(False), single_characters)
    assert (list(cut("Hi you2go,  ok 12\n")), known) == (
        [b"Hi", b" you", b"2", b"go", b",", b" ", b" ok", b" ", b"1", b"2", b"\n"],
        True,
    )
    cut, known = dm.words_of(Fake(False), single_bytes)
    assert (list(cut("Hi you2, ok")), known) == ([b"Hi", b" you", b"2", b",", b" ok"], False)


def test_the_cut_of_gpt2_agrees_with_the_tokenizers_library():
    from tokenizers import pre_tokenizers

    text = "".join(dm.categories.sample(name, "first half", 20_000) for name in dm.categories.NAMES)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    assert list(dm.cut_by(dm.GPT2)(text)) == [text[start:end].encode() for _, (start, end) in pieces]


def test_the_targets_that_ship():
    target = dm.open_target("mistral-v3")
    assert target.symbols is single_characters and target.own_words
    assert target.merges[:4] == tuple(merge_list(" +t", "i+n", "e+r", " +a"))
    with pytest.raises(UserError, match="keeps no list of merges"):
        dm.open_target("bytes")


def uploaded(texts: tuple[str, ...], merges: int) -> str:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    )
    return sources.register_file(tokenizer.to_str().encode(), "tokenizer.json")


def test_an_uploaded_tokenizer_json_is_attacked():
    """Trained by the library on a known mix of our samples: the panel finds the mix again."""
    secret = dm.mix(("Python", "JSON", "English prose"), np.array([0.5, 0.1, 0.4]), 100_000)
    ref = uploaded(secret.texts, 300)
    result = last(part=dm.FOREIGN, tokenizer=[ref], kinds=secret.names, text=0.2, read=300)
    inferred = np.array([result["shares"]["series"][name][0] for name in secret.names]) / 100
    assert dm.log_error(inferred, secret.shares) < -2.5
    assert result["error"] is None
    assert f"of {len(dm.open_target(ref).merges)} merges" in result["summary"]["text"]


def test_hostile_tokens_are_data_and_never_markdown():
    evil = "<img/src=x/onerror=alert(1)>"
    merges = [["i", "n"], ["e", "r"], ["t", "h"]]
    for end in range(1, len(evil)):
        merges.append([evil[:end], evil[end]])
    entries = dict.fromkeys([*evil, *"inerth", *("".join(merge) for merge in merges)])
    config = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "BPE", "vocab": {entry: i for i, entry in enumerate(entries)}, "merges": merges},
    }
    ref = sources.register_file(json.dumps(config).encode(), f"{evil}.json")
    result = last(part=dm.FOREIGN, tokenizer=[ref], kinds=("English prose", "JSON"), read=50)
    assert [row[3] for row in result["diary"]["rows"]][-1] == evil
    assert result["diary"]["marks"][str(len(merges) - 1)] == "skipped"
    assert "<" not in result["summary"]["text"]


# --- the panel ---------------------------------------------------------------------------------------

SMALL = {"kinds": ("Python", "JSON", "Invented, Greek"), "text": 0.2, "merges": 100, "read": 100}


def last(**values) -> dict:
    return guard.last(dm, {**SMALL, **values}).result


def test_the_panel_streams_and_ends_with_the_whole_diary():
    parts = list(dm.run(**SMALL))
    assert [part.reading.series[0].x[-1] for part in parts] == [25, 50, 100]
    end = parts[-1]
    assert set(views.result_to_json(end)) == set(spec.result_views(dm.run))
    assert end.shares.categories == ("true", "inferred", "token counting", "random guess")
    for row in range(4):
        assert sum(values[row] for values in end.shares.series.values()) == pytest.approx(100, abs=0.05)
    assert len(end.diary.rows) == 100
    assert end.diary.rows[0][0] == 1
    for row in end.diary.rows:
        counts = row[6:]
        assert row[4] == SMALL["kinds"][int(np.argmax(counts))] or not any(counts)
    json.dumps(views.result_to_json(end), allow_nan=False)
    errors = {series.name: series.y[-1] for series in end.error.series}
    assert errors["inferred"] < min(-2.5, errors["token counting"], errors["random guess"])


def test_typed_shares_are_the_truth():
    result = last(shares="1, 2; 1%")
    true = [values[0] for values in result["shares"]["series"].values()]
    np.testing.assert_allclose(true, [25, 50, 25], atol=0.1)


def test_same_text_leaves_nothing_unexplained():
    result = last(attack="same text")
    assert result["slack"] is None
    assert result["error"]["series"][0]["y"][-1] < -7


def test_a_dropped_category_is_unknown_to_the_attacker():
    result = last(drop="JSON", shares="1, 2, 1")
    series = result["shares"]["series"]
    assert list(series) == ["Python", "Invented, Greek"]
    np.testing.assert_allclose([values[0] for values in series.values()], [50, 50], atol=0.1)
    assert "JSON makes up 50.0 %" in result["summary"]["text"]
    assert result["slack"] is not None


def test_the_seed_decides_the_secret():
    assert last(seed=1)["shares"] == last(seed=1)["shares"]
    assert last(seed=1)["shares"] != last(seed=2)["shares"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"read": 150}, "only 100"),
        ({"shares": "40, 30"}, "3 numbers"),
        ({"shares": "0, 0, 0"}, "vanish"),
        ({"shares": "-1, 1, 1"}, "at least 0"),
        ({"shares": "1, nan, 1"}, "at least 0"),
        ({"shares": "1, inf, 1"}, "at least 0"),
        ({"shares": "half, rest, <b>"}, "numbers separated by commas"),
        ({"drop": "English prose"}, "in the mix"),
        ({"kinds": ("Python", "JSON"), "drop": "JSON"}, "at least two"),
        ({"shares": "0, 1, 0", "drop": "JSON"}, "positive share"),
        ({"shares": "1000000, 10, 10", "attack": "same text"}, "too little text"),
        ({"kinds": ("Python",)}, "at least 2"),
        ({"kinds": ("Klingon", "Python")}, "not one of"),
        ({"attack": "none"}, "not one of"),
        ({"merges": 10**9}, "outside"),
        ({"part": dm.FOREIGN, "tokenizer": ["characters"]}, "keeps no list of merges"),
        ({"part": dm.FOREIGN, "tokenizer": ["file:0123456789abcdef"]}, "upload it again"),
        ({"part": dm.FOREIGN, "tokenizer": ["mistral-v3", "mistral-v1"]}, "choose 1 tokenizer"),
    ],
)
def test_bad_input_is_one_sentence(values, words):
    with pytest.raises(UserError, match=words) as caught:
        last(**values)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and "<" not in message


# --- the experiment ----------------------------------------------------------------------------------


def test_a_small_experiment():
    found = dm.experiment(
        names=("Python", "JSON", "English prose"),
        invented=("Invented, Latin", "Invented, Greek"),
        mixes=3,
        few=2,
        merges=60,
        read=(20, 60),
        size=30_000,
        sizes=(15_000, 30_000),
    )
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [figure["kind"] for figure in plain["figures"]] == ["Bars", "Lines", "Lines", "Lines", "Table"]
    assert found.low <= found.value <= found.high
    assert found.value < found.baseline and found.value < found.random
    assert found.full < found.value
    ahead = min(found.baseline, found.random) - found.value
    assert found.holds == (found.value <= -2.5 and ahead >= 1.0 and found.full <= -7)
    assert len(plain["figures"][-1]["rows"]) == found.n == 3
