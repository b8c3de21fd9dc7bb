"""The workbench on a tiny random model: its parts, the numbers by hand, and what users get wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tokenlab import guard, pictures, spec, views
from tokenlab.errors import UserError
from tokenlab.models import vision
from tokenlab.pruning import baselines, benchmark, compare, policies, reduction, scenes
from tokenlab.pruning.compare import BUDGETS, FRESH, KEPT, LOOKS, OWN, run

SHAPE = "What shape is the yellow thing?"  # scene 3: a circle


@pytest.fixture(autouse=True)
def known(monkeypatch, model):
    monkeypatch.setattr(vision, "vision_language_model", lambda name: model)
    monkeypatch.setattr(vision, "vision_transformer", lambda name: model.vision)
    monkeypatch.setattr(compare, "REPEATS", 1)


def last(**values) -> compare.Result:
    return list(run(**values))[-1]


def filled(result: compare.Result) -> list[str]:
    return [f.name for f in dataclasses.fields(result) if getattr(result, f.name) is not None]


def test_every_part_fills_its_own_views(monkeypatch):
    kept = ["kept", "outcome", "layers", "work", "formula"]
    result = last()
    assert filled(result) == [*kept, "known"]
    assert filled(last(picture="photo:chelsea")) == kept
    assert filled(last(part=LOOKS)) == ["looks", "norms"]
    monkeypatch.setattr(benchmark, "BUDGETS", (36,))
    against = last(part=BUDGETS, source=FRESH, n=4, tokens="36")
    assert filled(against) == ["accuracy", "against_work", "kinds", "numbers"]
    assert all(view.alt() for each in (result, against) for view in vars(each).values() if view)


def test_the_default_question_is_one_that_the_default_scene_knows():
    defaults = spec.check(run, {})
    told = compare.task(vision.vision_language_model(""), defaults["picture"], defaults["ask"], defaults["question"])
    assert told.truth.answer == "circle" and told.truth.kind == "shape"


def test_methods_join_one_by_one_with_full_first_and_random_always():
    results = list(run(compared=("FastV",)))
    assert [[row.name for row in r.kept.rows] for r in results] == [
        ["full"],
        ["full", "random"],
        ["full", "random", "FastV"],
    ]
    for result in results:
        names = [row.name for row in result.kept.rows]
        assert [row[0] for row in result.outcome.rows] == names == [s.name for s in result.layers.series]
        assert list(result.work.categories) == names


def sizes(value, path=()):
    """Path of every list -> its length."""
    if isinstance(value, dict):
        return {k: v for key, x in value.items() for k, v in sizes(x, (*path, key)).items()}
    if isinstance(value, list):
        inside = {k: v for i, x in enumerate(value) for k, v in sizes(x, (*path, i)).items()}
        return {path: len(value), **inside}
    return {}


def test_partial_results_only_grow():
    """Gradio sends what has changed since the partial result before, and lists that become shorter arrive damaged."""
    parts = [sizes(views.result_to_json(result)) for result in run()]
    assert len(parts) == len(policies.METHODS)
    for earlier, later in zip(parts, parts[1:], strict=False):
        assert all(later[path] >= length for path, length in earlier.items())


def test_keeping_all_gives_exactly_what_the_full_model_gives():
    result = last(budget=1.0)
    full, *others = result.kept.rows
    assert len(others) == len(policies.METHODS) - 1
    for row in others:
        assert row.left == full.left == (-1,) * 144 and row.groups == ()
        assert (row.facts["answer"], row.facts["probability [%]"]) == (
            full.facts["answer"],
            full.facts["probability [%]"],
        )
    told = compare.task(vision.vision_language_model(""), "scene:3", OWN, SHAPE)
    made = [
        compare.answered(vision.vision_language_model(""), told, method, 144, "keep", 0).reading.logits
        for method in policies.METHODS
    ]
    assert all(torch.equal(logits, made[0]) for logits in made[1:])


def test_the_answer_is_the_models_own(model):
    """The full model by transformers' own forward, without the driver."""
    result = last(compared=())
    told = compare.task(model, "scene:3", OWN, SHAPE)
    ids = [*model.opening, *[model.torch.config.image_token_id] * 144, *reduction.question_ids(model, SHAPE)]
    with torch.no_grad():
        logits = model.torch(input_ids=torch.tensor([ids]), pixel_values=model.vision.pixels(told.image[None])).logits[
            0, -1
        ]
    best = int(logits.argmax())
    facts = result.kept.rows[0].facts
    assert facts["answer"] == reduction.answer_text(model, [best])
    assert facts["probability [%]"] == pytest.approx(100 * float(logits.softmax(-1)[best]), abs=0.06)


def test_kept_patches_are_the_methods_own(model):
    result = last(budget=0.25)
    rows = {row.name: row for row in result.kept.rows}
    kept = {name: {p for p, left in enumerate(row.left) if left == -1} for name, row in rows.items()}
    assert [len(kept[name]) for name in rows] == [144, 36, 36, 36, 36]
    assert kept["uniform grid"] == set(baselines.spread(12, 36))
    assert set(rows["FastV"].left) == {-1, 2} and set(rows["random"].left) == {-1, 0}
    order = np.argsort(rows["FastV"].scores)
    assert kept["FastV"] == set(order[-36:].tolist()) and rows["FastV"].unit == "of the attention"
    order = np.argsort(rows["FasterVLM"].scores)
    assert kept["FasterVLM"] == set(order[-36:].tolist()) != kept["FastV"]
    assert rows["random"].scores == () and rows["full"].scores == ()


def test_numbers_of_a_run_by_hand(model):
    result = last(budget=0.25)
    assert {series.name: series.y for series in result.layers.series} == {
        "full": (144, 144, 144, 144),
        "random": (36, 36, 36, 36),
        "uniform grid": (36, 36, 36, 36),
        "FastV": (144, 144, 36, 36),
        "FasterVLM": (36, 36, 36, 36),
    }
    rows = {row[0]: dict(zip(result.outcome.columns, row, strict=True)) for row in result.outcome.rows}
    assert rows["FastV"]["Tokens per layer"] == 90 and rows["FastV"]["Kept patches"] == 36

    def layer(n, d=32, m=48):
        return 4 * n * d * d + 2 * n * n * d + 3 * n * d * m

    text = 1 + 7  # <s>, and "what shape is the yellow thing ?"
    language = dict(zip(result.work.categories, result.work.series["language model"], strict=True))
    assert language["full"] == pytest.approx(4 * layer(144 + text) / 1e6)
    assert language["FastV"] == pytest.approx(2 * (layer(144 + text) + layer(36 + text)) / 1e6)
    whole = {name: sum(values[i] for values in result.work.series.values()) for i, name in enumerate(language)}
    for name, row in rows.items():
        assert row["Work [M]"] == pytest.approx(whole[name], abs=0.06)
        share = next(kept.facts["work [% of full]"] for kept in result.kept.rows if kept.name == name)
        assert share == pytest.approx(100 * whole[name] / whole["full"], abs=0.06)
        assert row["Encoder [ms]"] > 0 and row["Language model [ms]"] > 0
    assert rows["full"]["Faster [times]"] == 1
    assert "$2nd^2" in result.formula.text


def test_right_and_wrong_where_the_truth_is_known(model):
    result = last()
    assert "The right answer is “circle”" in result.kept.note and result.kept.marked_name
    one = scenes.scene(3)
    thing = next(i for i, t in enumerate(one.things) if t.color == "yellow")
    assert result.kept.marked == one.patches((thing,))
    for row in result.kept.rows:
        assert row.mark == ("right" if row.facts["answer"] == "circle" else "wrong")
    assert set(result.outcome.marks) == set(range(len(result.kept.rows)))
    unknown = last(question="Is the yellow thing small?")
    assert {row.mark for row in unknown.kept.rows} == {""} and unknown.kept.marked == () and not unknown.outcome.marks
    assert "Of the right one [%]" not in unknown.outcome.columns
    photo = last(picture="photo:chelsea")
    assert {row.mark for row in photo.kept.rows} == {""} and "not known" in photo.outcome.note


def test_the_probability_of_the_right_answer(model):
    result = last(compared=())
    told = compare.task(model, "scene:3", OWN, SHAPE)
    vit = reduction.encode(model, model.vision.pixels(told.image[None]))
    logits = reduction.read(model, vit, [SHAPE], reduction.TokenReduction(), 1).logits[0]
    wanted = 100 * float(logits.softmax(-1)[model.tokenizer.encode("circle").ids[0]])
    column = result.outcome.columns.index("Of the right one [%]")
    assert result.outcome.rows[0][column] == pytest.approx(wanted, abs=0.06)


@pytest.mark.parametrize("label", [label for label in compare.ASKS if label != OWN])
def test_a_scenes_own_questions_can_be_chosen(model, label):
    one = scenes.scene(4)
    question = {q.kind: q for q in scenes.questions(one)}[compare.ASKS[label]]
    told = compare.task(model, "scene:4", label, "")
    assert (told.question, told.truth.answer) == (question.text, question.answer)
    assert told.truth.patches == question.patches
    assert compare.task(model, "scene:4", OWN, question.text.upper()).truth.answer == question.answer
    table = compare.known_table(told)
    assert (label, question.text, question.answer) in table.rows


def test_words_of_the_answer():
    assert compare.says("Circle.", "circle") and compare.says("It is top-left", "top-left")
    assert not compare.says("top-left", "top") and not compare.says("semicircle", "circle")


def test_patches_that_share_a_token_are_a_group():
    assert compare.groups(np.array([0, 1, 0, -1, 2, 1])) == (0, 1, 0, -1, -1, 1)
    assert compare.groups(np.array([0, -1, 1])) == ()


def test_a_method_that_merges_is_drawn_in_groups(model, monkeypatch):
    class Pairs(reduction.TokenReduction):
        def bridge(self, vit, context):
            source = (torch.arange(144) // 2)[None]
            tokens = context.project(vit.feature).unflatten(1, (72, 2)).mean(2)
            return reduction.Visual(tokens, torch.arange(0, 144, 2)[None], source)

    monkeypatch.setattr(policies.Method, "make", lambda self: Pairs())
    told = compare.task(model, "scene:3", OWN, SHAPE)
    made = compare.answered(model, told, policies.FULL, 72, "keep", 0)
    row = compare.overlay(model, told, [made], 72).rows[0]
    assert row.groups == tuple(p // 2 for p in range(144)) and row.left == (-1,) * 144
    assert row.facts["tokens per layer"] == 72


def test_a_budget_of_one_token_works():
    result = last(budget=0.005)
    assert [sum(x == -1 for x in row.left) for row in result.kept.rows] == [144, 1, 1, 1, 1]
    assert "1 of 144 patches" in result.kept.note


def test_positions_matter_and_repack_is_passed_on(model):
    told = compare.task(model, "scene:3", OWN, SHAPE)
    kept, packed = (
        compare.answered(model, told, policies.UNIFORM, 36, positions, 0).reading for positions in ("keep", "repack")
    )
    assert not torch.equal(kept.logits, packed.logits)
    assert int(kept.next_position) - int(packed.next_position) == 144 - 36


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"question": " \n"}, "question is empty"),
        ({"question": "?"}, "question is empty"),
        ({"question": "What is <img onerror=x>?"}, "is not one of them; please ask as in"),
        ({"question": "Quelle forme?"}, '"quelle" is not one of them'),
        ({"picture": "photo:chelsea", "ask": "what color?"}, "Only drawn scenes"),
        ({"picture": "scene:1", "ask": "what color?"}, "Scene 1 has no clear answer"),
        ({"picture": "upload:0123456789abcdef"}, "upload it again"),
    ],
)
def test_what_users_get_wrong_is_a_sentence(values, sentence):
    with pytest.raises(UserError, match=sentence) as error:
        next(run(**values))
    assert "\n" not in str(error.value)


def test_an_uploaded_picture(model):
    import base64

    noise = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    ref = pictures.register_bytes(base64.b64decode(pictures.png(noise)))
    result = last(picture=ref, compared=())
    assert len(result.kept.rows) == 2 and result.known is None
    assert last(part=LOOKS, picture=ref).looks.grid == (12, 12)


def test_where_the_encoder_looks(model):
    result = last(part=LOOKS)
    names = [f"head {h}" for h in range(4)]
    assert [[m.name for m in line] for line in result.looks.maps] == [[*names, "mean", "rollout"]] * 3
    assert result.looks.chosen == (1, 4), "the mean of the layer that is projected"
    assert "drawn things [%]" in result.looks.maps[0][0].facts
    assert "drawn things [%]" not in last(part=LOOKS, picture="photo:coffee").looks.maps[0][0].facts
    assert len(result.norms.maps[0]) == 4


def test_the_stored_benchmark_is_shown_or_missed_in_a_sentence(model, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark.measurement, "RESULTS", tmp_path)
    with pytest.raises(UserError, match="stored benchmark is not there"):
        next(run(BUDGETS))
    monkeypatch.setattr(benchmark, "BUDGETS", (18, 4))
    *_, whole = benchmark.board(model, policies.chosen(("FastV",)), 4, 1)
    benchmark.store(whole)
    result = last(part=BUDGETS, compared=("FastV",))
    names = ["full", "no picture", "random", "FastV", "oracle"]
    assert [s.name for s in result.accuracy.series] == names == list(result.kinds.rows)
    fewer = last(part=BUDGETS, compared=(), kind="total")
    assert [s.name for s in fewer.accuracy.series] == ["full", "no picture", "random", "oracle"]
    assert "kind “total”: 4." in fewer.accuracy.note


def test_a_live_benchmark_grows(monkeypatch):
    monkeypatch.setattr(benchmark, "BUDGETS", (18, 4))
    parts = list(run(BUDGETS, source=FRESH, n=4, compared=()))
    assert len(parts) == 2 + 2 * 2 and "1 of 6 runs" in parts[0].numbers.note
    grown = [sizes(views.result_to_json(part)) for part in parts]
    for earlier, later in zip(grown, grown[1:], strict=False):
        assert all(later[path] >= length for path, length in earlier.items())
    assert len(parts[-1].numbers.rows) == 6 and "runs" not in parts[-1].numbers.note


def test_a_user_may_choose_no_method_at_all():
    values = spec.check(run, {"part": KEPT, "compared": []})
    finished = guard.last(compare, values)
    assert [row["name"] for row in finished.result["kept"]["rows"]] == ["full", "random"]
