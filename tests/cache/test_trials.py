"""One prompt under several policies, and many texts under one: by hand, on a tiny random Llama over bytes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tokenlab import kv, stories
from tokenlab.cache import trials
from tokenlab.cache.trials import FULL, LOCAL, RANDOM, SINK_LOCAL, Case, Policy
from tokenlab.errors import UserError

LAYERS, KV_HEADS = 2, 2


def text(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, length)


def asked(ids: np.ndarray, read: int | None = None) -> trials.Task:
    return trials.Task(ids, read or len(ids), "", (), "")


def finished(toy, told: trials.Task, method, n: int, **more) -> trials.Trace:
    *_, made = trials.generate(toy, method, told, n, **more)
    return made.trace()


# ---- policies


def test_windows_and_sinks(toy):
    budget = kv.Budget(total=6, sink=2)
    for policy, stays in ((LOCAL, [17, 18, 19, 20, 21, 22]), (SINK_LOCAL, [0, 1, 19, 20, 21, 22])):
        trace = finished(toy, asked(text(20)), policy.make(budget, 0), 4)
        assert [token for token, step in enumerate(trace.left[0, 0]) if step == -1] == stays
    trace = finished(toy, asked(text(20)), SINK_LOCAL.make(kv.Budget(total=6), 0), 4)
    assert [token for token, step in enumerate(trace.left[0, 0]) if step == -1] == [0, 1, 2, 3, 21, 22]


def test_the_seed_decides_what_random_keeps(toy):
    def kept(seed: int) -> torch.Tensor:
        return finished(toy, asked(text(20)), RANDOM.make(kv.Budget(total=8), seed), 3).left

    assert kept(1).equal(kept(1)) and not kept(1).equal(kept(2))


def test_a_view_is_a_method_too(toy):
    told = asked(text(20), 15)
    full = finished(toy, told, kv.Full(), 5)
    assert finished(toy, told, kv.AttentionView(), 5).new == full.new

    class Blind(kv.AttentionView):
        def mask(self, layer, query, key, q_pos, kv_pos):
            return kv_pos[:, :1, None] == q_pos[:, None, :, None]  # each token sees itself

    blind = finished(toy, told, Blind(), 5)
    assert blind.new != full.new and (blind.left == -1).all()


# ---- a prompt and what follows


def test_the_story_comes_apart_before_its_question():
    one = trials.example(5, "home", 300)
    question = stories.recall_case(5, "home", "test", 300).questions[0]
    assert one.later == f"Question: {question.text} Answer:" and one.answer == question.answer
    assert f"{one.prompt} {one.later} {one.answer}." == stories.recall_case(5, "home", "test", 300).text
    assert one.answer_to(f" {one.prompt}", f"{one.later} ") == one.answer
    assert one.answer_to(one.prompt, "") == one.answer_to("", one.later) == ""


def test_a_task_by_hand(toy):
    told = trials.task(toy, "Eva has a kité.", "Who?", 3, " eva ")
    assert bytes(told.ids.tolist()).decode() == "Eva has a kité. Who?"
    assert (told.read, told.expected, told.stated, told.note) == (16, "eva", (2,), "")  # é is two bytes
    alone = trials.task(toy, "Eva", " \n", 3)
    assert (len(alone.ids), alone.read, alone.stated) == (3, 3, ())
    opened = trials.task(dataclasses.replace(toy, opening=(7, 8)), "Eva has", "it", 3, "has")
    assert opened.ids[:3].tolist() == [7, 8, ord("E")] and (opened.read, opened.stated) == (9, (8,))
    with pytest.raises(UserError, match="prompt is empty"):
        trials.task(toy, " \n", "Who?", 3)


def test_what_does_not_fit_is_left_out_at_the_beginning_and_said(toy):
    short = dataclasses.replace(toy, context=20)
    told = trials.task(short, "abc " * 10, "Who?", 4, "abc")
    assert bytes(told.ids.tolist()) == b"bc abc abc  Who?"[-16:] and told.read == 11
    assert told.note == "The prompt and what follows have 45 tokens; toy reads only the last 16 of them here."
    assert told.stated == (5, 9)  # of the abc before, the a is cut off
    alone = trials.task(short, "abc " * 10, "", 4)
    assert alone.note == "The prompt has 40 tokens; toy reads only the last 16 of them here."
    least = trials.task(short, "abc", "x" * 14, 4)
    assert bytes(least.ids.tolist()) == b"c " + b"x" * 14 and least.read == 1
    with pytest.raises(UserError, match="room for 16 tokens here, and what follows fills it all"):
        trials.task(short, "abc", "x" * 16, 4)


def test_where_the_answer_is_stated():
    each = np.arange(13)  # a token per byte; é has two
    assert trials.stated_at("é Fern, fern", "Fern ", each, each + 1) == [6, 12]
    words = np.array([0, 2, 7]), np.array([2, 7, 8])
    assert trials.stated_at("é Fern,", "Fern", *words) == [1]
    assert trials.stated_at("é Fern,", "er", *words) == []  # no whole word
    assert trials.stated_at("é Fern,", " ", *words) == []
    assert trials.stated_at("a (b)", "(b)", np.array([0, 2]), np.array([2, 5])) == [1]


# ---- one run


class EarlyOrLate(kv.KVPolicy):
    """Head 0 likes early tokens, head 1 late ones."""

    def score(self, observation):
        positions = observation.kv_pos.float()
        return torch.stack([-positions[:, 0], positions[:, 1] ** 2], 1)


def test_when_each_head_lets_go_of_each_token(toy):
    trace = finished(toy, asked(text(3)), EarlyOrLate(kv.Budget(total=2, recent=1)), 3)
    # Head 0 holds 0 2, then 0 3, then 0 4; head 1 holds 1 2, then 2 3, then 3 4.
    assert trace.left.tolist() == [[[-1, 0, 1, 2, -1], [0, 1, 2, -1, -1]]] * LAYERS
    assert len(trace.new) == 3 and trace.steps == 2 and trace.done
    assert trace.kv_bytes == (2 * LAYERS * KV_HEADS * 2 * 8 * 4,) * 3  # keys and values, 2 slots of 8 float32
    window = finished(toy, asked(text(3)), kv.LocalWindow(kv.Budget(total=2)), 3)
    assert window.left[1, 0].tolist() == [0, 1, 2, -1, -1] and window.held == 2


def test_left_by_hand():
    # Two tokens at step 0, one each at the steps 1 and 2. Held after 3, 1, 0 and 1 forwards.
    assert trials.left(torch.tensor([[3, 1, 0, 1, 9]]), read=2, steps=2).tolist() == [[-1, 1, 1, -1]]


def test_what_follows_is_read_one_by_one_and_then_the_model_writes(toy):
    whole = text(20)
    split, policy = asked(whole, 12), kv.LocalWindow(kv.Budget(total=5))
    trace = finished(toy, split, policy, 6)
    session = kv.Session(toy.torch, policy)
    logits = session.prefill(torch.from_numpy(whole)[None, :12])
    for token in whole[12:]:
        logits = session.step(torch.tensor([int(token)]))
    expected = []
    for _ in range(6):
        expected.append(int(logits.argmax()))
        logits = session.step(torch.tensor(expected[-1:]))
    assert trace.new == tuple(expected) and trace.steps == 8 + 5 and trace.left.shape[-1] == 25
    assert finished(toy, asked(whole), policy, 6).new != trace.new  # read at once, its first token saw everything
    full = finished(toy, split, kv.Full(), 6)
    assert full.new == finished(toy, asked(whole), kv.Full(), 6).new
    assert list(full.new) == [
        int(token) for token in kv.greedy(kv.Session(toy.torch), torch.from_numpy(whole)[None], 6)
    ]


def test_a_run_ends_with_the_text(toy):
    first = finished(toy, asked(text(12)), kv.Full(), 9).new[0]
    ended = finished(dataclasses.replace(toy, end=frozenset({first})), asked(text(12)), kv.Full(), 9)
    assert ended.new == (first,) and ended.done and ended.steps == 0 and ended.milliseconds is None
    # A given token that would end a text does not.
    given = dataclasses.replace(toy, end=frozenset({int(text(12)[-1])}))
    assert len(finished(given, asked(text(12), 6), kv.Full(), 3).new) >= 1


def test_slots_of_one_step_are_kept(toy):
    told, policy = asked(text(20), 16), EarlyOrLate(kv.Budget(total=4, recent=1))
    session = kv.Session(toy.torch, policy, record=True)
    session.prefill(torch.from_numpy(told.ids)[None, :16])
    for token in told.ids[16:19].tolist():
        session.step(torch.tensor([token]))
    trace = finished(toy, told, policy, 4, at=3)
    for event, places, scores in zip(session.cache.events[-LAYERS:], trace.positions, trace.scores, strict=True):
        assert event.positions[0].equal(places) and event.scores[0].equal(scores)
    last = finished(toy, told, policy, 4)
    assert last.positions[0][:, -1].tolist() == [22, 22] and trace.positions[0][:, -1].tolist() == [18, 18]
    assert finished(toy, told, policy, 4, at=99).positions[0].equal(last.positions[0])


def test_a_run_that_is_left_half_way_can_be_shown_and_goes_on(toy):
    told, method = asked(text(12), 11), RANDOM.make(kv.Budget(total=5), 0)
    whole = finished(toy, told, method, 6)
    running = trials.generate(toy, method, told, 6)
    made = next(running)
    assert made.trace().new == () and made.trace().left.shape[-1] == 11
    for _ in range(3):
        made = next(running)
    trace = made.trace()
    assert trace.new == whole.new[:3] and not trace.done and trace.left.shape == (LAYERS, KV_HEADS, 14)
    running.close()
    made.session.step(torch.tensor([made.new[-1]]))
    assert len(made.session.seconds) == 5


def test_a_closed_run_leaves_the_shared_model_as_it_was(toy):
    ids = torch.from_numpy(text(30))[None]

    def state() -> tuple:
        with torch.no_grad():
            logits = toy.torch(ids).logits
        hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in toy.torch.modules())
        return logits, hooks, toy.torch.config._attn_implementation, toy.torch.training

    before = state()
    running = trials.side_by_side(toy, asked(text(20)), {"random": RANDOM.make(kv.Budget(total=4), 0)}, 50)
    next(running)
    running.close()
    half = trials.generate(toy, EarlyOrLate(kv.Budget(total=4)), asked(text(20), 10), 9)
    next(half)
    half.close()
    assert state()[0].equal(before[0]) and state()[1:] == before[1:]


def test_methods_take_turns_and_show_what_they_have(toy, monkeypatch):
    methods = {"full": kv.Full(), "window": kv.LocalWindow(kv.Budget(total=4))}
    whole = list(trials.side_by_side(toy, asked(text(12), 10), methods, 3))
    assert [list(traces) for traces in whole] == [["full"], ["full", "window"]]
    monkeypatch.setattr(trials, "EVERY", 0.0)
    parts = list(trials.side_by_side(toy, asked(text(12), 10), methods, 3))
    assert [(len(p), len(list(p.values())[-1].new)) for p in parts] == [(k, n) for k in (1, 2) for n in (0, 0, 1, 2, 3)]
    assert [t.new for t in parts[-1].values()] == [t.new for t in whole[-1].values()]


def test_the_first_difference():
    assert trials.first_difference((1, 2, 3), (1, 5, 3)) == 1
    assert trials.first_difference((1, 2), (1, 2, 3)) is None
    assert trials.first_difference((), ()) is None


@pytest.mark.parametrize("read", [20, 15])
def test_agreement_follows_the_reference_whatever_the_policy_would_have_written(toy, read):
    told, window = asked(text(20), read), kv.LocalWindow(kv.Budget(total=4))
    full = finished(toy, told, kv.Full(), 8).new
    assert trials.agreement(toy, kv.Full(), told, full) == 1.0
    session = kv.Session(toy.torch, window)
    logits = session.prefill(torch.from_numpy(told.ids)[None, :read])
    choices = []
    for token in [*told.ids[read:].tolist(), *full]:
        choices.append(int(logits.argmax()))
        logits = session.step(torch.tensor([token]))
    same = [ours == token for ours, token in zip(choices[20 - read :], full, strict=True)]
    assert sum(same) < 8  # else this test would see nothing
    assert trials.agreement(toy, window, told, full) == sum(same) / 8


def test_whether_an_output_gives_the_answer():
    assert trials.says(" Fern. And then", "fern") and trials.says("Fern", " Fern ")
    assert trials.says(" (a+b)!", "(a+b)") and trials.says("the wind fainted", "the wind fainted")
    assert not trials.says("Fernwick", "Fern") and not trials.says("So Fern", "Fern")


def test_generated_bytes_as_text(toy):
    assert trials.written(toy, [0xE2, 0x82, 0xAC, 0xFF]) == "€\\xff"
    assert trials.written(dataclasses.replace(toy, end=frozenset({65})), [66, 65]) == "BA ⟨end⟩"
    special = dataclasses.replace(toy, opening=(300,), end=frozenset({301}))
    assert trials.written(special, [300, 66, 302, 65, 301]) == "⟨start⟩B⟨302⟩A ⟨end⟩"


# ---- views


def views_of(toy, told: trials.Task, *outputs: tuple[int, ...]) -> tuple:
    """Traces that wrote this, with nothing gone."""
    traces = {
        f"p{i}": trials.Trace(
            new,
            True,
            torch.full((1, 1, len(told.ids) + len(new) - 1), -1),
            (),
            (),
            3.0,
            (100,) * (len(told.ids) - told.read + len(new)),
            7,
            1.5,
        )
        for i, new in enumerate(outputs)
    }
    return traces, trials.retention(toy, told, traces)


def test_marks_on_the_strips(toy):
    told = trials.task(toy, "Eva sat", "Who?", 9, "Eva")
    traces, kept = views_of(toy, told, (65, 66, 67), (65, 70, 67), (70, 66, 67), (65, 66, 70))
    common = {2: "states the answer", 7: "what follows"}
    assert [row.marks for row in kept.rows] == [
        common | {12: "output"},
        common | {12: "output", 13: "first difference"},
        common | {12: "first difference"},
        common | {12: "output"},  # what differs was not read any more
    ]
    assert "".join(kept.rows[0].tokens) == "Eva sat Who?AB" and (kept.prompt, kept.steps) == (7, 7)
    _, alone = views_of(toy, trials.task(toy, "Eva", "", 9), (65,))
    assert alone.rows[0].marks == {} and alone.steps == 0


def test_tables_by_hand(toy):
    told = trials.task(toy, "Eva sat", "Who?", 9, "AB")
    traces, _ = views_of(toy, told, (65, 66, 46), (65, 70, 46))
    outputs = {name: trace.new for name, trace in traces.items()}
    found = trials.outcome(toy, told, outputs, {"p0": 1.0}, "Note.", {"p1": "Second."})
    assert found.columns == ("Policy", "Output", "Answer", "Differs at", "Agreement [%]")
    assert found.rows == (
        ("p0", "AB.", "right", None, 100.0),
        ("p1", "AF.", "wrong", "token 2: “F”, not “B”", None),
    )
    assert found.marks == {1: "differs"} and found.help["p1"] == "Second."
    assert found.note == "Note. The answer should be “AB”."
    plain = trials.outcome(toy, dataclasses.replace(told, expected=""), {"p0": (65,), "p1": (65,)})
    assert plain.columns == ("Policy", "Output", "Differs at")
    assert plain.rows == (("p0", "A", None), ("p1", "A", "nowhere"))
    assert trials.costs(traces).rows[0] == ("p0", 3.0, 0.1, 0.007, 1.5)
    series = trials.memory(traces).series[0]
    assert series.x == tuple(range(8)) and series.y == (0.1,) * 8


# ---- many stories


def test_a_case_is_cut_before_the_question_and_ends_with_the_answer(toy):
    story = stories.recall_case(7, "who", trials.SPLIT, 300)
    question = story.questions[0]
    one = trials.case(toy, 7, "who", 300)
    data = story.text.encode()
    assert bytes(one.ids[: one.read].tolist()) == data[: question.span[0] - 1]  # the blank goes with the question
    assert bytes(one.ids.tolist()) == data[: question.answer_span[1]]
    assert bytes(one.ids[one.answer :].tolist()).decode() == question.answer
    assert (one.chance, one.kind, one.aim) == (1 / len(question.candidates), "who", 300)
    assert one.distance == question.distance + 1  # a token is a byte here; from the fact's last one
    opened = trials.case(dataclasses.replace(toy, opening=(1, 2)), 7, "who", 300)
    assert (opened.read, opened.answer, len(opened.ids)) == (one.read + 2, one.answer + 2, len(one.ids) + 2)
    with pytest.raises(UserError, match="too few for these stories"):
        trials.case(dataclasses.replace(toy, context=100), 7, "who", 300)


def test_kinds_and_distances_take_turns(toy):
    cases = trials.recall_cases(toy, 48, 0, (200, 400))
    assert sorted({(c.kind, c.aim) for c in cases}) == sorted((k, d) for k in stories.KINDS for d in (200, 400))
    assert all(sum((c.kind, c.aim) == (kind, 200) for c in cases) >= 2 for kind in stories.KINDS)
    assert [c.kind for c in trials.recall_cases(toy, 4, 0)] == list(stories.KINDS[:4])
    ids = [trials.recall_cases(toy, 2, seed)[1].ids.tolist() for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2] and ids[0] == trials.case(toy, 1, stories.KINDS[1], 400).ids.tolist()


def made_up(ids, read: int, answer: int) -> Case:
    return Case(np.array(ids), read, answer, "who", 0, 0, 0.5)


def test_padding_by_hand():
    ids, real = trials.padded([made_up([1, 2, 3, 4, 5], 2, 3), made_up([6, 7, 8, 9], 3, 3)])
    assert ids.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 0]]
    assert real.tolist() == [[False, True, True], [True, True, True]]


def test_an_answer_counts_when_every_token_of_it_was_the_first_choice(toy):
    story = text(20)
    new = finished(toy, asked(story), kv.Full(), 6).new
    good = made_up([*story, *new], 20, 24)
    late = made_up([*story, *new[:5], (new[5] + 1) % 256], 20, 24)
    early = made_up([*story, (new[0] + 1) % 256, new[1]], 20, 21)
    scored = trials.score(toy, FULL, 1.0, [good, late, early])
    assert scored.right.tolist()[:2] == [True, False]
    ids = torch.from_numpy(early.ids)[None]
    with torch.no_grad():
        logits = toy.torch(ids).logits[0, 19:-1]
    assert scored.nll[2] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, ids[0, 20:])), abs=1e-4)


def test_a_policy_answers_in_a_batch_what_it_writes_alone(toy):
    """Answers are what the model itself would write under the policy, each case alone; one of them is spoiled."""
    for policy in (FULL, LOCAL, SINK_LOCAL):
        cases = []
        for seed, read in enumerate((20, 22, 24)):  # 22 on average, as many slots for all
            ids, method = text(read + 5 + seed, seed), policy.make(kv.Budget(total=6), 0)
            cases.append(made_up([*ids, *finished(toy, asked(ids, read), method, 3).new], read, len(ids)))
        scored = trials.score(toy, policy, 0.3, cases)
        assert scored.right.tolist() == [True] * 3 and scored.slots.tolist() == [6] * 3
        cases[1].ids[-1] = (cases[1].ids[-1] + 1) % 256
        assert trials.score(toy, policy, 0.3, cases).right.tolist() == [True, False, True]


def test_stories_of_similar_length_share_a_batch_and_its_slots(toy):
    cases = [made_up(text(n + 3, n), n, n + 1) for n in (40, 10, 42, 12)]
    scored = trials.score(toy, LOCAL, 0.5, cases, batch=2)
    assert scored.slots.tolist() == [20, 5, 20, 5]  # halves of 41 and 11
    slot = 2 * LAYERS * KV_HEADS * 8 * 4
    assert scored.kv_bytes == (2 * 20 + 2 * 5) * slot / 4
    assert np.isfinite(scored.nll).all() and scored.seconds > 0


def test_documents_are_cut_to_one_length(toy):
    ids = trials.held_out(toy, 4, 100, seed=0)
    assert ids.shape == (4, 100)
    assert ids.equal(trials.held_out(toy, 4, 100, seed=0)) and not ids.equal(trials.held_out(toy, 4, 100, seed=1))
    with pytest.raises(UserError, match="reads 1,024 tokens, not 1,025"):
        trials.held_out(toy, 4, 1025, seed=0)


def test_documents_in_a_batch_are_documents_alone(toy):
    ids, method = trials.held_out(toy, 3, 60, seed=0), kv.LocalWindow(kv.Budget(total=6))
    batch = trials.forced(toy, method, ids, 30)
    alone = [trials.forced(toy, method, row[None], 30) for row in ids]
    np.testing.assert_allclose(batch.nll, [float(one.nll[0]) for one in alone], atol=1e-4)
    assert batch.predicted.tolist() == [one.predicted[0].tolist() for one in alone]
    assert batch.kv_bytes == 3 * 6 * 2 * LAYERS * KV_HEADS * 8 * 4


def test_random_rows_follow_the_seed_only(toy):
    ids, policy = trials.held_out(toy, 3, 60, seed=0), Policy("r", "", kv.RandomRecent)
    nll = [trials.forced(toy, policy.make(kv.Budget(total=6), seed), ids, 30).nll for seed in (1, 1, 2)]
    assert nll[0].tolist() == nll[1].tolist() != nll[2].tolist()


# ---- numbers


def test_intervals():
    values = np.array([1.0, 2.0, 3.0, 4.0])
    mean, low, high = trials.estimate(values, 0)
    assert mean == 2.5 and 1 <= low < 2.5 < high <= 4
    assert trials.estimate(values, 0) == (mean, low, high)
    assert trials.estimate(values, 0, np.exp) == pytest.approx((np.exp(2.5), np.exp(low), np.exp(high)), rel=0.01)
    assert trials.estimate(np.full(5, 3.0), 0) == (3.0, 3.0, 3.0)
    assert trials.bootstrap(lambda draw: draw.shape[0] + 0.0 * draw[:, 0], 9, 0) == (2000, 2000)


def test_the_interval_of_a_share_is_wilsons():
    # (5 + z²/2 ± z sqrt(2.5 + z²/4)) / (10 + z²), z = 1.96
    assert trials.percent(np.arange(10) < 5) == pytest.approx((50, 23.66, 76.34), abs=0.01)
    assert trials.percent(np.zeros(8, bool))[:2] == (0, 0) and trials.percent(np.ones(8, bool))[2] == 100


def test_a_curve_has_a_band():
    found = trials.curve("a", [5, 10], [(1.0, 0.5, 2.0), (3.0, 2.5, 4.0)])
    assert (found.x, found.y, found.low, found.high) == ((5, 10), (1.0, 3.0), (0.5, 2.5), (2.0, 4.0))
