"""The benchmark on a tiny random model: its questions, one cell against one question at a time, its intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokenlab.pruning import benchmark as bm
from tokenlab.pruning import policies, reduction, scenes, vlm
from tokenlab.pruning.policies import FASTV, FULL, NO_PICTURE, ORACLE, RANDOM, UNIFORM


@pytest.fixture(scope="module")
def items():
    return bm.asked(6, 99)


@pytest.fixture(scope="module")
def vit(model, items):
    return bm.encoded(model, items)


def test_questions_are_those_of_the_scenes_and_never_trained_on(items):
    assert len(items.scenes) == 6 and len(items) == len(items.scene) == len(items.kinds) > 36
    for number, one in enumerate(items.scenes):
        assert one.seed < scenes.TRAIN
        mine = [q.text for q, where in zip(items.questions, items.scene, strict=True) if where == number]
        assert mine == [q.text for q in scenes.questions(one)]
    again, other = bm.asked(6, 99), bm.asked(6, 98)
    assert [one.seed for one in again.scenes] == [one.seed for one in items.scenes]
    assert not {one.seed for one in other.scenes} & {one.seed for one in items.scenes}


@pytest.mark.parametrize("method", [FULL, UNIFORM, FASTV, NO_PICTURE, ORACLE], ids=lambda method: method.name)
def test_a_cell_is_what_one_question_after_the_other_gives(model, items, vit, method, monkeypatch):
    monkeypatch.setattr(bm, "BATCH", 7)  # so that batches hold several scenes, and questions of different lengths
    known = vlm.vocabulary()
    cell = bm.score(model, vit, method, 18, items)
    kept = []
    for i, (question, number) in enumerate(zip(items.questions, items.scene, strict=True)):
        alone = reduction.encode(model, model.vision.pixels(items.scenes[number].pixels[None]))
        out = reduction.read(model, alone, [question.text], method.make(), 18, relevant=[question.patches])
        if method is not ORACLE or len(question.patches) >= 18:  # else it fills up at random
            assert cell.right[i] == (int(out.logits.argmax()) == known[question.answer])
        kept.append(np.mean(out.kept))
    assert cell.tokens == pytest.approx(np.mean(kept))
    assert cell.tokens == {"full": 144, "uniform grid": 18, "FastV": 81, "no picture": 0, "oracle": 18}[method.name]


def test_hits_by_hand(model, items, vit):
    about = [set(q.patches) for q in items.questions]
    grid = set(np.flatnonzero(bm.read(model, vit, UNIFORM.make(), 36, items, np.arange(1)).left[0] == -1).tolist())
    share = np.mean([len(patches & grid) / len(patches) for patches in about if patches])
    assert bm.score(model, vit, UNIFORM, 36, items).hits == pytest.approx(share)
    assert bm.score(model, vit, FULL, None, items).hits == 1
    assert bm.score(model, vit, NO_PICTURE, None, items).hits == 0
    first = np.mean([min(1, 4 / len(patches)) for patches in about if patches])
    assert bm.score(model, vit, ORACLE, 4, items).hits == pytest.approx(first)


def test_a_random_choice_differs_between_batches_and_not_between_runs(model, items, vit):
    def kept(part, seed):
        return bm.read(model, vit, RANDOM.make(), 18, items, np.array(part), seed).left[0].tolist()

    assert kept([0], 5) == kept([0], 5) != kept([1], 5)
    assert kept([0], 5) != kept([0], 6)


def test_a_method_inside_the_encoder_sees_the_pictures_itself(model, items, vit, monkeypatch):
    class Blind(reduction.TokenReduction):
        def vit(self, layer, x, context):
            return x * (context.budget > 0)

    plain = bm.score(model, vit, FULL, 4, items)
    monkeypatch.setattr(policies.Method, "make", lambda self: Blind())
    assert bm.acts_in_encoder(Blind()) and not bm.acts_in_encoder(reduction.TokenReduction())
    assert (bm.score(model, vit, FULL, 4, items).right == plain.right).all()
    blind = bm.encoded(model, items, Blind(), 0)
    assert torch.equal(blind.feature[0], blind.feature[1]) and not torch.equal(vit.feature[0], vit.feature[1])


def test_an_interval_resamples_scenes():
    scene = np.repeat(np.arange(50), 4)
    same = np.repeat(np.arange(50) % 2, 4)  # all questions of a scene go together: 50 coins, not 200
    mean, low, high = bm.interval(same, scene)
    assert mean == 0.5 and low == pytest.approx(0.5 - 1.96 * 0.5 / 50**0.5, abs=0.03)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 50**0.5, abs=0.03)
    alone = bm.interval(same, np.arange(200))
    assert alone[2] - alone[1] < 0.6 * (high - low)
    assert bm.interval(np.ones(8), np.repeat([3, 9], 4)) == (1, 1, 1)


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    theirs = rng.random(400) < 0.5
    ours = theirs.copy()
    ours[np.flatnonzero(~theirs)[:40]] = True  # never worse, better in 40 of 400
    mean, low, high = bm.difference(ours, theirs, np.arange(400))
    assert mean == pytest.approx(0.1) and low > 0.06 and high < 0.14
    assert bm.difference(theirs, theirs, np.arange(400)) == (0, 0, 0)


@pytest.fixture(scope="module")
def boards(model):
    patch = pytest.MonkeyPatch()
    patch.setattr(bm, "BUDGETS", (36, 9))
    patch.setattr(bm, "CLOCKED", (1, 2))
    yield list(bm.board(model, policies.METHODS, 4, 99, repeats=1))
    patch.undo()


def test_every_method_at_every_budget(boards):
    names = [method.name for method in policies.METHODS[1:]]
    plan = [("full", None), ("no picture", None), *((name, b) for b in (36, 9) for name in (*names, "oracle"))]
    assert [(cell.method, cell.budget) for cell in boards[-1].cells] == plan
    assert [len(board.cells) for board in boards] == list(range(1, len(plan) + 1))
    assert boards[-1].total == len(plan) and boards[-1].scenes == 4
    for cell in boards[-1].cells:
        assert set(cell.milliseconds) == {1, 2} and min(cell.milliseconds.values()) > 0
        assert 0 <= cell.hits <= 1 and cell.work > 0
    assert boards[-1].find("FastV", 9).tokens > boards[-1].find("random", 9).tokens
    assert boards[-1].find("full", 36) is boards[-1].cells[0], "it has no budget"
    assert boards[0].find("random", 36) is None


def test_stored_and_read_again(boards, monkeypatch, tmp_path):
    monkeypatch.setattr(bm.measurement, "RESULTS", tmp_path)
    assert bm.stored() is None
    path = bm.store(boards[-1])
    assert path.parent == tmp_path and path.stat().st_size < 20_000
    again = bm.stored()
    for cell, copy in zip(boards[-1].cells, again.cells, strict=True):
        assert (cell.right == copy.right).all() and (cell.method, cell.budget) == (copy.method, copy.budget)
        assert (cell.hits, cell.tokens, cell.milliseconds) == (copy.hits, copy.tokens, copy.milliseconds)
        assert abs(cell.work - copy.work) <= 0.5
    assert (again.kinds == boards[-1].kinds).all() and (again.scene == boards[-1].scene).all()
    assert again.seed == 99 and again.date and "Python" in bm.where(again)


def test_views_show_the_cells(boards, monkeypatch):
    monkeypatch.setattr(bm, "BUDGETS", (36, 9))
    monkeypatch.setattr(bm, "CLOCKED", (1, 2))
    whole = boards[-1]
    lines = {series.name: series for series in bm.curves(whole, ("full", "random"), bm.ALL).series}
    assert list(lines) == ["full", "no picture", "random", "oracle"]
    shares = [100 * whole.find("random", b).right.mean() for b in (36, 9)]
    assert lines["random"].x == (36, 9) and lines["random"].y == pytest.approx(shares)
    for series in lines.values():
        assert all(low <= y <= high for low, y, high in zip(series.low, series.y, series.high, strict=True))
    assert len(set(lines["full"].y)) == 1 and lines["full"].x == (36, 9)

    total = bm.curves(whole, ("full",), "total")
    mine = whole.cells[0].right[whole.kinds == "total"]
    assert total.series[0].y[0] == pytest.approx(100 * mine.mean()) and "kind “total”: 4." in total.note

    work = {series.name: series for series in bm.curves(whole, ("full", "FastV"), bm.ALL, "work").series}
    assert len(work["full"].x) == 1 and work["FastV"].x[1] < work["FastV"].x[0] < work["full"].x[0]

    heat = bm.by_kind(whole, ("full", "random"), 9)
    row, column = heat.rows.index("random"), heat.columns.index("exist")
    mine = whole.find("random", 9).right[whole.kinds == "exist"]
    assert heat.values[row][column] == pytest.approx(100 * mine.mean(), abs=0.06)

    table = bm.numbers(whole, ("full", "random", "FastV"))
    rows = {row[:2]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert set(rows) == {("full", None), ("no picture", None)} | {
        (name, b) for name in ("random", "FastV", "oracle") for b in (36, 9)
    }
    assert rows["full", None]["Work [% of full]"] == 100 and rows["full", None]["Against random [points]"] is None
    ahead = 100 * (whole.find("FastV", 9).right.mean() - whole.find("random", 9).right.mean())
    assert rows["FastV", 9]["Against random [points]"].startswith(f"{ahead:+.1f} (")
    assert rows["random", 9]["Against random [points]"] is None
    assert table.columns[-2:] == ("Time, 1 at once [ms]", "Time, 2 at once [ms]")
    assert "so far" in bm.where(boards[0]) and "so far" not in table.note


def test_a_registry_of_methods():
    assert [m.name for m in policies.METHODS[:2]] == list(policies.ALWAYS) == ["full", "random"]
    assert not set(policies.ALWAYS) & set(policies.names())
    assert [m.name for m in policies.chosen(("FastV",))] == ["full", "random", "FastV"]
    for method in (*policies.METHODS, NO_PICTURE, ORACLE):
        assert isinstance(method.make(), reduction.TokenReduction) and method.make().name == method.name
