"""DAHSF: both layers by hand, rules and their errors, data words, and a small run of the experiment."""

import dataclasses
import json
import random
import time
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab import guard, spec, views
from tokenlab.errors import UserError
from tokenlab.text import dahsf, learned_parser
from tokenlab.text.dahsf import FILLER, KEYWORD, LEFT, UNKNOWN, Forest, load
from tokenlab.text.data_words import chinese_number, english_number, normalize, number, plain

PAPER = """
keyword close = close | shut
keyword program = program | app | software
keyword go = go
command close program = program close | go close program | close go program | program go close
"""
SMALL = """
# rockets before fire
filler = please | the
connector = then
keyword open = open | launch
keyword rocket = rocket
keyword fire = fire
keyword fire rocket = fire rocket
program browser = browser | web browser
command open [program] = [program] open
command fire rocket = rocket fire
command wait = fire [duration]
"""


def small(more=""):
    return load(SMALL.replace("command wait = fire [duration]", "") + more)


def tagged(forest, text, **settings):
    return [(text[u.start : u.end], u.tag, u.value) for u in forest.digest(text, **settings).units]


# --- layer 1


def test_longest_first_by_hand():
    forest = small()
    assert tagged(forest, "Please launch the web browser") == [
        ("Please", FILLER, "Please"),
        ("launch", KEYWORD, "open"),
        ("the", FILLER, "the"),
        ("web browser", "program", "browser"),
    ]
    assert tagged(forest, "fire  rocket") == [("fire  rocket", KEYWORD, "fire rocket")]


def test_the_two_orders_differ_on_overlaps():
    forest = load("keyword x = 乙丙丁\nkeyword y = 甲乙\nkeyword z = 丙")
    assert [u.value for u in forest.digest("甲乙丙丁").units] == ["甲", "x"]
    assert [u.value for u in forest.digest("甲乙丙丁", LEFT).units] == ["y", "z", "丁"]


def test_words_of_scripts_with_spaces_are_whole_words():
    forest = load("keyword art = art\nkeyword 关 = 关\ncommand art = art")
    assert tagged(forest, "start art") == [("start", UNKNOWN, "start"), ("art", KEYWORD, "art")]
    assert tagged(forest, "关机") == [("关", KEYWORD, "关"), ("机", UNKNOWN, "机")]


def test_a_representative_is_not_digested_again():
    forest = load("keyword fire rocket = launch\nkeyword fire = fire\ncommand fire rocket = launch")
    assert forest.commands_in("launch") == ("fire rocket",)


def test_data_words_compete_by_length():
    forest = small()
    assert tagged(forest, "open www.open.com") == [("open", KEYWORD, "open"), ("www.open.com", "url", "www.open.com")]


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_no_text_is_dropped(text):
    forest = small()
    units = forest.digest(text).units
    place = 0
    for unit in units:
        assert unit.start >= place and not text[place : unit.start].strip()
        assert unit.end > unit.start
        place = unit.end
    assert not text[place:].strip()


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_offsets_of_the_normal_text_lead_back(text):
    normal = normalize(text)
    assert len(normal.text) == len(normal.begin) == len(normal.end) == len(normal.edge) - 1 or not text
    assert all(0 <= b < e <= len(text) for b, e in zip(normal.begin, normal.end, strict=True))
    assert list(normal.begin) == sorted(normal.begin)


def test_width_and_case_are_folded_and_the_source_is_kept():
    assert tagged(small(), "ＯＰＥＮ　Notes.TXT") == [("ＯＰＥＮ", KEYWORD, "open"), ("Notes.TXT", "file", "Notes.TXT")]


# --- data words


@pytest.mark.parametrize(
    "said, tag, value",
    [
        ("twenty-five", "number", "25"),
        ("two hundred and five", "number", "205"),
        ("one million two hundred thousand and three", "number", "1200003"),
        ("three point one four", "number", "3.14"),
        ("1,200", "number", "1200"),
        ("3.50", "number", "3.5"),
        ("二十五", "number", "25"),
        ("一百五", "number", "150"),
        ("三百零五", "number", "305"),
        ("二〇二四", "number", "2024"),
        ("三万五", "number", "35000"),
        ("一亿二千万", "number", "120000000"),
        ("20万", "number", "200000"),
        ("March 3rd", "date", "--03-03"),
        ("3 March 2024", "date", "2024-03-03"),
        ("2024/3/5", "date", "2024-03-05"),
        ("三月三日", "date", "--03-03"),
        ("二〇二四年十二月三十一号", "date", "2024-12-31"),
        ("the day after tomorrow", "date", "today+2"),
        ("下周一", "date", "next monday"),
        ("half past five pm", "time", "17:30"),
        ("quarter to six", "time", "05:45"),
        ("12 am", "time", "00:00"),
        ("noon", "time", "12:00"),
        ("下午五点半", "time", "17:30"),
        ("三点二十", "time", "03:20"),
        ("十五点四十五分", "time", "15:45"),
        ("中午十二点", "time", "12:00"),
        ("twenty-five millimetres", "length", "25 mm"),
        ("20千米", "length", "20 km"),
        ("half an hour", "duration", "0.5 h"),
        ("两个半小时", "duration", "2.5 h"),
        ("半小时", "duration", "0.5 h"),
        ("百分之五十", "percent", "50 %"),
        ("45°", "angle", "45 °"),
        ("（19，16）", "position", "(19, 16)"),
        ("~/a/b.txt", "file", "~/a/b.txt"),
        ("《三体》", "text", "三体"),
    ],
)
def test_data_words(said, tag, value):
    forest = Forest()
    assert [(u.tag, u.value) for u in forest.digest(said).units] == [(tag, value)]
    if tag != "text":  # written in its standard form it is read as the same
        assert [(u.tag, u.value) for u in forest.digest(value).units] == [(tag, value)]


def test_what_is_no_date_or_number():
    forest = Forest()
    assert [u.tag for u in forest.digest("February 30").units] == [UNKNOWN, "number"]
    assert [u.value for u in forest.digest("twenty twenty").units] == ["20", "20"]
    assert chinese_number("百百") is None and chinese_number("十万十万") is None
    assert [u.tag for u in forest.digest("25:99").units][0] == "number"


@given(st.integers(0, 10**9 - 1))
@settings(max_examples=200, deadline=None)
def test_numbers_in_words_come_back(n):
    assert number(in_english(n)) == n
    assert chinese_number(in_chinese(n)) == n


def in_english(n):
    """An independent way to write numbers: thousands group by group."""
    ones = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen"
    ).split()
    tens = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
    if n < 20:
        return ones[n]
    if n < 100:
        return tens[n // 10] + (f"-{ones[n % 10]}" if n % 10 else "")
    for unit, name in ((10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= unit:
            rest = n % unit
            return f"{in_english(n // unit)} {name}" + (f" {in_english(rest)}" if rest else "")


def in_chinese(n):
    digits = "零一二三四五六七八九"
    if n < 10:
        return digits[n]
    for unit, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if n >= unit:
            rest = n % unit
            gap = "零" if rest and rest < unit // 10 else ""
            return in_chinese(n // unit) + name + (gap + in_chinese(rest) if rest else "")


def test_numbers_by_hand():
    assert english_number("two hundred and five apples".split()) == (Decimal(205), 4)
    assert english_number(["twenty", "twenty"]) == (Decimal(20), 1)
    assert english_number(["and"]) == (None, 0)
    assert plain(Decimal("3.50")) == "3.5" and plain(Decimal("100")) == "100" and plain(Decimal(10) ** 3) == "1000"
    assert (
        dahsf.spoken(21, False) == "twenty-one"
        and dahsf.spoken(10, True) == "十"
        and dahsf.spoken(35, True) == "三十五"
    )


# --- layer 2


def test_thirty_ways_from_ten_strings():
    # The paper's example: 5 variants, keywords with 2 and 3 synonyms. Here three variants hold a third keyword
    # without synonyms, which multiplies by one and adds one string.
    forest = load(PAPER)
    (command,) = forest.commands
    assert forest.ways(command) == 5 * 2 * 3
    assert forest.stored(command) == 5 + 2 + 3 + 1
    said = {forest.paraphrase(command, k, {}) for k in range(30)}
    assert len(said) == 30 and "app go shut" in said
    assert {forest.commands_in(sentence) for sentence in said} == {("close program",)}


def test_a_word_left_over_refuses_the_command():
    forest = small()
    assert forest.commands_in("open the browser") == ("open browser",)
    assert forest.commands_in("don't open the browser") == ()
    assert forest.commands_in("don't open the browser", lenient=True) == ("open browser",)
    assert forest.commands_in("") == () and forest.commands_in("please") == ()


def test_connectors_part_commands_and_commas_do_not():
    forest = small("command open [position]\n")
    assert forest.commands_in("open (1,2), then rocket, fire") == ("open (1, 2)", "fire rocket")


def test_slots_by_name_and_defaults():
    forest = load(
        "keyword from = from\nkeyword to = to\ncommand from [a:number] to [b:number=7] = to [b] from [a] | from [a]"
    )
    assert forest.commands_in("to 2 from one") == ("from 1 to 2",)
    assert forest.commands_in("from three") == ("from 3 to 7",)
    assert forest.commands_in("from three to") == ()


def test_a_text_slot_takes_a_run_with_an_unknown_word():
    forest = load(
        "keyword find = find\nkeyword in = in\nprogram mail = mail\ncommand find [text] in [program=mail] = find [text]"
    )
    assert forest.commands_in("find my old letters in mail") == ('find "my old letters" in mail',)
    assert forest.commands_in("find in") == ()
    assert forest.commands_in('find "in"') == ('find "in" in mail',)


@pytest.mark.parametrize("name", ["english", "chinese", "tokenlab"])
def test_shipped_rules_read_all_that_they_write(name):
    forest = dahsf.domain_rules(name)
    for said, commands in dahsf.generated(forest, name == "chinese", 150, seed=7):
        assert forest.commands_in(said) == commands, said
        for command in commands:  # a standard command is its own standard form
            assert forest.commands_in(command) == (command,)


@pytest.mark.parametrize("name", ["english", "chinese"])
def test_gold_commands_are_standard_commands(name):
    forest = dahsf.domain_rules(name)
    pairs = dahsf.open_set(name)
    assert len(pairs) == 137 and sum(not gold for _, gold in pairs) == 25
    assert len({said for said, _ in pairs}) == 137
    for _, gold in pairs:
        for command in gold:
            assert forest.commands_in(command) == (command,)


# --- rules


@pytest.mark.parametrize(
    "rules, message",
    [
        ("\n= a | b", "line 2: a rule begins with"),
        ("keyword = a | b", "line 1: write keyword NAME"),
        ("keyword open", "line 1: there is no equals sign"),
        ("filler x = a", "line 1: write filler = first | second"),
        ("keyword a = b\nkeyword c = b", r"line 2: “b” already belongs to keyword “a” \(Rules, line 1\)"),
        ("keyword a = " + "x" * 61, "line 1: “x{40}…” is longer than 60"),
        ("keyword a = [b]", "line 1: “.b.” holds a bracket"),
        ("unknown a = b", "line 1: unknown is what is left over"),
        ("command open = open", "line 1: “open” is no keyword yet"),
        ("color red = red\nkeyword a = a\ncommand a red", "line 3: “red” is a color; a command holds keywords"),
        ("keyword a = a\ncommand a [hue]", "line 2: there is no type “hue”; the types are text, url"),
        ("keyword a = a\ncommand a [number", "line 2: a bracket is not closed"),
        ("keyword a = a\ncommand a [x y]", r"line 2: \[x y\] is no slot"),
        ("keyword a = a\ncommand a [number] [number]", "line 2: two slots have the same name"),
        ("keyword a = a\ncommand a [number] = a", r"line 2: a variant leaves out \[number\]"),
        ("keyword a = a\ncommand a [number] = a [number] [number]", r"line 2: a variant fills \[number\] twice"),
        ("keyword a = a\ncommand a [number] = a [date]", r"line 2: the standard command has no slot \[date\]"),
        ("keyword a = a\ncommand a [x:text] [y:text]", "line 2: a command has at most one slot of type text"),
        ("keyword a = a\nkeyword b = b\ncommand a = b\ncommand b = b a", "line 4: “b” already stands for “a”"),
        ("keyword a = a\ncommand " + "a " * 17, "line 2: a command has at most 16"),
        ("command", "line 1: write command STANDARD FORM"),
        ("pattern p = abc", "line 1: the shape “abc” needs"),
        ("pattern = #", "line 1: write pattern TAG"),
        ("rename keyword a = b", "line 1: there is no “keyword” “a”"),
        ("keyword a = b\nrename keyword a =", "line 2: write rename"),
        ("# a\n" * 501, "at most 500 lines"),
    ],
)
def test_a_wrong_rule_is_one_sentence_with_its_line(rules, message):
    with pytest.raises(UserError, match=message) as error:
        load(rules)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "please."))


def test_a_wrong_rule_leaves_the_forest_as_it_was():
    forest = small()
    before = json.dumps(forest.to_json())
    for wrong in ("keyword open = browser", "command open [program] = fire", "keyword new = fresh | browser"):
        with pytest.raises(UserError):
            forest.add(wrong, "line 1")
    assert json.dumps(forest.to_json()) == before
    assert forest.commands_in("fire") == () == forest.commands_in("fresh")


def test_synonyms_join_and_nothing_else_changes():
    forest = small()
    sentences = ["launch the browser", "rocket fire", "web browser open", "open fire", "hello"]
    before = [forest.commands_in(said) for said in sentences]
    load("keyword open = fire up, bring up、start", forest)
    assert [forest.commands_in(said) for said in sentences] == before
    assert forest.commands_in("start browser") == forest.commands_in("fire up the browser") == ("open browser",)


def test_rename_reaches_the_layer_above():
    forest = small("rename keyword open = unlock\nrename program browser = surfer\n")
    assert forest.commands_in("launch web browser") == ("unlock surfer",)
    assert forest.commands_in("unlock surfer") == ("unlock surfer",)
    load("keyword unlock = unbolt", forest)  # the class is known by its new name
    assert forest.commands_in("unbolt browser") == ("unlock surfer",)


def test_remove_takes_what_is_built_on_it():
    forest = load(PAPER)
    load("remove keyword go", forest)
    (command,) = forest.commands
    assert forest.ways(command) == 2 * 2 * 3 and forest.commands_in("app go shut") == ()
    load("remove keyword close", forest)
    assert not forest.commands and forest.commands_in("close program") == ()


def test_patterns_of_users_are_shapes():
    forest = load("keyword show = show\npattern ticket = @@-#+ | №#\ncommand show [ticket]")
    assert forest.commands_in("show AB-1234") == ("show AB-1234",)
    assert forest.commands_in("show AB-12x") == ()
    assert forest.commands_in("show A-12") == ()
    assert dahsf.match_shape("#+", "123a", 0) == 3 and dahsf.match_shape("#+1", "111", 0) == 0  # gives nothing back


def test_rules_are_an_own_grammar_too():
    forest = load(dahsf.GRAMMAR)
    assert forest.commands_in("please bring a big coffee with oats") == ("order coffee large oat milk",)
    assert forest.commands_in("get a cup of joe for T-12") == ("for T-12 order coffee small",)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 2000,
        "a " * 1000,
        "twenty " * 280,
        "a.a" * 600,
        "1,000" * 400,
        "/a" * 900,
        "(1," * 600,
        '"' * 2000,
        "一" * 2000,
        "十点" * 900,
        "half past " * 190,
        "\ufdfa" * 500,
        "open browser " * 150,
        "find x in " * 190,
        "e\u0301" * 900,
    ],
)
def test_hostile_text_is_read_in_time(text):
    forest = dahsf.domain_rules("english")
    load("pattern p = #+-#+-#+-x | @+@+@+!", forest)
    start = time.perf_counter()
    forest.digest(text)
    assert time.perf_counter() - start < 4


def test_hostile_rules_are_read_in_time():
    letters = [f"k{i}" for i in range(240)]
    rules = "\n".join(f"keyword {x} = {x}" for x in letters)
    rules += "\nkeyword z = " + " | ".join("z" * k for k in range(1, 60))
    rules += "\n" + "\n".join(f"command {x} [text] z = [text] {x} | [text] z {x}" for x in letters[:120])
    start = time.perf_counter()
    forest = load(rules)
    forest.digest("z" * 2000)
    forest.digest("q z " * 300)
    assert time.perf_counter() - start < 6


# --- generated sentences, rivals, scores


def test_scores_by_hand():
    gold = [("open browser",), ("wait 5 s",), (), ('find "a b"',)]
    found = dahsf.score([("open browser",), ("wait 6 s",), (), ()], gold)
    assert (found.right, found.answered, found.wrong, found.positives, found.refused) == (1, 2, 1, 3, 1)
    # Pieces: 2 and 3 given, 2 + 3 + 2 wanted, 2 + 2 in common.
    assert found.f1 == pytest.approx(200 * 4 / (5 + 7))
    assert found.exact == pytest.approx(100 / 3) and found.precision == 50 and found.unknown == 100
    assert dahsf.pieces(['find "a b" (1, 2)']) == {"find": 1, '"a b"': 1, "(1, 2)": 1}


def test_precision_at_equal_coverage_by_hand():
    answers = [(("a",), 0.9), (("b",), 0.8), (("x",), 0.95), ((), 0.0)]
    gold = [("a",), ("b",), (), ("d",)]
    assert dahsf.at_coverage(answers, gold, 2) == 50.0
    assert dahsf.at_coverage(answers, gold, 3) == pytest.approx(200 / 3)


def test_the_nearest_neighbour_finds_what_it_was_given():
    near = dahsf.Nearest(dahsf.domain_rules("english"), False, 400, seed=0)
    commands, surest = near.answer("take a screenshot")
    assert commands == ("take screenshot",) and 0 < surest <= 1
    assert near.answer("set the volume to 30%")[0] == ("set volume 30 %",)
    assert near.answer("") == ((), 0.0)


def test_the_learned_parser_learns_two_sentences_by_heart():
    parser = learned_parser.Learned(0)
    pairs = [("open it", ("open",)), ("关", ("close", "wait 5 s")), ("hm", ())]
    parser.train(pairs, 60, 4, 5e-3)
    assert parser.answers([said for said, _ in pairs]) == [gold for _, gold in pairs]


def test_the_stored_parsers_load_and_are_small():
    path = dahsf.FOLDER / "learned.safetensors"
    assert path.stat().st_size < 4_000_000
    for n in dahsf.SIZES:
        parser = dahsf.stored_parser(n)
        assert parser.seconds > 1
    held_out = dahsf.generated(dahsf.domain_rules("english"), False, 60, 1000)
    answers = parser.answers([said for said, _ in held_out])
    assert dahsf.score(answers, [gold for _, gold in held_out]).exact > 3  # chance is near 0


def test_saved_parsers_come_back(tmp_path):
    first = learned_parser.Learned(3)
    learned_parser.save_all(tmp_path / "p.safetensors", {"5": first})
    back = learned_parser.Learned.load(tmp_path / "p.safetensors", "5")
    assert all(
        (a.half().float() == b).all()
        for a, b in zip(first.network.state_dict().values(), back.network.state_dict().values(), strict=True)
    )


def test_training_and_generated_test_sentences_differ():
    forest = dahsf.domain_rules("english")
    train = {said for said, _ in dahsf.generated(forest, False, 300, 0)}
    test = [said for said, _ in dahsf.generated(forest, False, 100, 1000)]
    assert sum(said in train for said in test) < 15
    assert dahsf.generated(forest, False, 5, 3) == dahsf.generated(forest, False, 5, 3)


def test_new_words_are_new_and_belong_to_a_class():
    forests = {False: dahsf.domain_rules("english"), True: dahsf.domain_rules("chinese")}
    rng = random.Random(0)
    for representative, word in dahsf.NEW_WORDS:
        chinese = not representative.isascii()
        assert word not in forests[chinese].owner
        load(f"keyword {representative} = {word}", forests[chinese])
        known = forests[chinese].owner[word]
        assert len(forests[chinese].words[known].members) > 1
        said, _ = dahsf._with_word(forests[chinese], known, word, chinese, rng)
        assert word in said
    assert len(dahsf.NEW_WORDS) == dahsf.LOOKED[-1]


def test_the_experiment_end_to_end_with_an_untrained_parser():
    found = dahsf.experiment(0, {7: learned_parser.Learned(1)}, 12, 1, (0, 1, 2))
    assert found.n == 274 and found.bar == found.baseline and found.full == 100
    assert found.holds == ("does not hold" not in found.reason)
    assert [type(view).__name__ for view in found.figures] == ["Table", "Lines", "Lines", "Table"]
    rows = {row[0]: row for row in found.figures[0].rows}
    assert rows["DAHSF"][6] == 100.0 and rows["learned from 7 pairs"][1] == 0.0
    assert found.figures[2].series[0].y == (100.0, 100.0, 100.0)
    json.dumps(found.to_json())


# --- the panel


def run(**values):
    return guard.last(dahsf, values).result


@pytest.mark.parametrize("domain", dahsf.DOMAINS)
def test_every_domain_fills_its_views(domain):
    result = run(domain=domain)
    assert (result["change"] is None) == (domain == dahsf.OWN)
    assert {k for k, v in result.items() if v is None} <= {"change"}
    assert any(row[1] for row in result["commands"]["rows"])
    for row in result["strip"]["rows"][:2]:  # layers cover the text without gaps
        length = len("".join(result["strip"]["graphemes"]).encode())
        assert row["starts"][0] == 0 and row["ends"][-1] == length and row["starts"][1:] == row["ends"][:-1]
    json.loads(result["made"]["content"])


def test_the_default_run_says_what_it_should():
    rows = run()["commands"]["rows"]
    assert [row[1] for row in rows] == [
        "open browser",
        "draw circle (19, 16) radius 25 mm red",
        'remind "call Anna" --03-03 17:30',
        "close calculator",
        "dance 2 min",
        "",
    ]
    assert rows[-1][3] == "Don't"


def test_without_rules_old_sentences_stay():
    change = run(rules="")["change"]
    assert change["note"].startswith("0 of 287 old") and set(change["marks"].values()) == {"same"}


def test_a_rule_that_changes_old_sentences_is_shown():
    change = run(rules="remove keyword mute\n")["change"]
    assert not change["note"].startswith("0 of") and change["marks"]["0"] == "changed"


def test_text_of_users_is_data():
    text = "open <img onerror=x> \u202e $a$"
    result = run(english=text, rules="color <b>x</b> = <i>y</i>")
    assert "".join(result["strip"]["graphemes"]) == text
    for view in result.values():
        assert view is None or "onerror" not in view["note"]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"english": "  \n "}, "type a sentence"),
        ({"rules": "keyword"}, "^Your rules, line 1: write keyword NAME"),
        ({"domain": dahsf.OWN, "grammar": ""}, "there is no command yet"),
        ({"english": "a" * 2001}, "2,000"),
        ({"rules": "#" * 20_001}, "20,000"),
        ({"n": 101}, "outside"),
        ({"english": "a\ud800"}, "surrogate"),
    ],
)
def test_bad_values_are_one_sentence(values, message):
    with pytest.raises(UserError, match=message):
        run(**values)


def test_controls_and_views():
    assert spec.check(dahsf.run, {})["n"] == 20
    assert {f.name for f in dataclasses.fields(dahsf.Result)} == set(spec.result_views(dahsf.run))
    assert all(issubclass(kind, views.View) for kind in spec.result_views(dahsf.run).values())
