"""FasterVLM by hand, against transformers' own attentions, as a panel and as an experiment, on a tiny random model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.pruning.test_reduction import ASKED, Masked, pictures
from tokenlab import spec, views
from tokenlab.errors import UserError
from tokenlab.models import vision
from tokenlab.pruning import baselines, benchmark, compare, fastervlm, scenes
from tokenlab.pruning import reduction as R
from tokenlab.pruning.cls_attention import FasterVLM, HalfGrid, TextAttention, attentions, cls_score
from tokenlab.pruning.fastervlm import entropy, rank_correlation, run, share

# ---- by hand


def toy(units: int = 1) -> R.Vit:
    """Four patches, two heads, three layers; patch j's feature is (j, 10 j). The second layer's output is projected."""
    second = [[0.1, 0.4, 0.0, 0.2], [0.3, 0.1, 0.0, 0.4]]  # mean .2 .25 0 .3
    first, third = [[0.0, 0.0, 0.9, 0.0]] * 2, [[0.9, 0.0, 0.0, 0.0]] * 2
    cls = [torch.tensor(rows)[None] for rows in (first, second, third)]
    if units == 2:  # in the second unit, the patches the other way round
        cls = [torch.cat((layer, layer.flip(-1))) for layer in cls]
    index = torch.arange(4.0)
    feature = torch.stack((index, 10 * index), -1).expand(units, -1, -1)
    return R.Vit((), tuple(cls), feature, 2, units)


def bridge(method: R.TokenReduction, budget: int, vit: R.Vit, positions: str = "keep"):
    context = R.Context(budget, lambda x: 2 * x, 2, vit.units, [[]], positions=positions)
    return method.bridge(vit, context), context


def test_the_mean_of_the_heads_in_raster_order():
    visual, context = bridge(FasterVLM(), 3, toy())
    assert visual.tokens.tolist() == [[[0, 0], [2, 20], [6, 60]]]  # not by score, which would be 3, 1, 0
    assert visual.positions.tolist() == [[0, 1, 3]] and visual.source.tolist() == [[0, 1, -1, 2]]
    torch.testing.assert_close(context.scores, torch.tensor([[0.2, 0.25, 0.0, 0.3]]))
    two, _ = bridge(FasterVLM(), 2, toy(), "repack")
    assert two.source.tolist() == [[-1, 0, -1, 1]] and two.positions.tolist() == [[0, 1]]


def test_one_head_and_another_layer():
    assert bridge(FasterVLM(head=0), 1, toy())[0].source.tolist() == [[-1, 0, -1, -1]]
    assert bridge(FasterVLM(head=1), 2, toy())[0].source.tolist() == [[0, -1, -1, 1]]
    assert bridge(FasterVLM(layer=0), 1, toy())[0].source.tolist() == [[-1, -1, 0, -1]]
    assert bridge(FasterVLM(layer=2), 1, toy())[0].source.tolist() == [[0, -1, -1, -1]]


def test_every_unit_keeps_as_many():
    visual, context = bridge(FasterVLM(), 1, toy(units=2))
    assert visual.source.tolist() == [[-1, -1, -1, 0, 1, -1, -1, -1]]
    assert visual.positions.tolist() == [[3, 4]] and context.scores.shape == (1, 8)


def test_half_on_a_grid(model):
    # of 2 x 2 patches a grid of one is the last; then the best of the others
    visual, _ = bridge(HalfGrid(), 2, toy())
    assert baselines.spread(2, 1) == [3] and visual.source.tolist() == [[-1, 0, -1, 1]]
    vit = R.encode(model, pictures(model))
    left = R.read(model, vit, ASKED, HalfGrid(), 18).left
    kept = [set(torch.nonzero(row == -1)[:, 0].tolist()) for row in left]
    best = [set(row.topk(18).indices.tolist()) for row in cls_score(vit)]
    for row in range(3):
        assert len(kept[row]) == 18 and set(baselines.spread(12, 9)) <= kept[row]
        assert kept[row] - set(baselines.spread(12, 9)) <= best[row]


def test_more_than_there_are():
    assert bridge(FasterVLM(), 9, toy())[0].source.tolist() == [[0, 1, 2, 3]]


def test_shares_and_entropy():
    np.testing.assert_allclose(share(np.array([[1.0, 3.0], [2.0, 2.0]])), [[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(entropy(np.array([[0.25] * 4, [1, 0, 0, 0], [0.5, 0.5, 0, 0]])), [2, 0, 1])


def test_rank_correlation():
    rising, falling = np.array([[1.0, 2, 3, 8]] * 5), np.array([[4.0, 3, 2, 1]] * 5)
    assert rank_correlation(rising) == (1, 1, 1) and rank_correlation(falling) == (-1, -1, -1)
    assert rank_correlation(np.ones((5, 4))) == (0, 0, 0)
    # two scenes of the same weight that pull apart: the interval holds both, and the mean 2 3 3 2 says nothing
    value, low, high = rank_correlation(np.array([[1.0, 2, 3, 4], [3.0, 4, 3, 0]]))
    assert (low, high) == (pytest.approx(-0.63, abs=0.01), 1) and low < value < high


# ---- against transformers


@pytest.fixture(scope="module")
def stock(model):
    with torch.no_grad():
        return model.vision.torch(pictures(model), output_attentions=True)


def test_scores_are_those_of_transformers_last_layer_but_one(model, stock):
    out = R.read(model, R.encode(model, pictures(model)), ASKED, FasterVLM(), 30)
    wanted = stock.attentions[-2][:, :, 0, 1:].mean(1)
    torch.testing.assert_close(out.scores, wanted, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(wanted, stock.attentions[-1][:, :, 0, 1:].mean(1), atol=1e-4)
    for row in range(3):
        kept = set(torch.nonzero(out.left[row] == -1)[:, 0].tolist())
        assert kept == set(wanted[row].topk(30).indices.tolist())
    assert out.kept == (30,) * 4 and set(out.left.unique().tolist()) == {-1, 0}


def test_layers_and_heads_are_those_of_transformers(model, stock):
    vit = R.encode(model, pictures(model))
    for layer in range(3):
        for head in (None, 0, 3):
            rows = stock.attentions[layer][:, :, 0, 1:]
            wanted = rows.mean(1) if head is None else rows[:, head]
            torch.testing.assert_close(cls_score(vit, layer, head), wanted, atol=1e-6, rtol=1e-4)


def test_removing_is_masking(model):
    vit = R.encode(model, pictures(model))
    out = R.read(model, vit, ASKED, FasterVLM(), 20)
    keep = torch.stack([torch.nonzero(row == -1)[:, 0] for row in out.left])
    masked = R.read(model, vit, ASKED, Masked(keep, 0), 144)
    torch.testing.assert_close(out.logits, masked.logits, atol=2e-5, rtol=1e-4)
    everything = R.read(model, vit, ASKED, FasterVLM(), 144)
    torch.testing.assert_close(everything.logits, R.read(model, vit, ASKED, R.TokenReduction(), 144).logits)


def test_the_question_does_not_matter(model):
    vit = R.encode(model, pictures(model)[:1].expand(3, -1, -1, -1))
    left = R.read(model, vit, ASKED, FasterVLM(), 20).left
    assert (left == left[0]).all()


def test_text_attention_is_what_fastv_ranks_by(model):
    vit = R.encode(model, pictures(model))
    found = R.read(model, vit, ASKED, TextAttention(1), 1).scores
    assert found.shape == (3, 4, 144)
    torch.testing.assert_close(found.mean(1), R.read(model, vit, ASKED, baselines.FastV(2), 9).scores)


def test_attentions_of_scenes(model):
    drawn = [scenes.scene(i) for i in range(3)]
    cls, text = attentions(model, drawn, ASKED, 2)
    assert cls.shape == (3, 3, 4, 144) and text.shape == (3, 4, 144)
    vit = R.encode(model, pictures(model))
    np.testing.assert_allclose(cls[:, 1], vit.cls_prob[1], atol=1e-6)
    np.testing.assert_allclose(text, R.read(model, vit, ASKED, TextAttention(2), 1).scores, atol=1e-6)


# ---- the panel


@pytest.fixture(autouse=True)
def known(monkeypatch, model):
    monkeypatch.setattr(vision, "vision_language_model", lambda name: model)
    monkeypatch.setattr(compare, "REPEATS", 1)
    monkeypatch.setattr(fastervlm, "LOOKED", 5)


def panel(**values) -> list[dict]:
    return [views.result_to_json(result) for result in run(**spec.check(run, values))]


def test_the_default_run(model):
    parts = panel()
    assert [len(part["kept"]["rows"]) for part in parts] == [1, 2, 3, 4, 5, 5, 5]
    found = parts[-1]
    json.dumps(found, allow_nan=False)
    assert all(found.values())
    rows = {row["name"]: row for row in found["kept"]["rows"]}
    assert list(rows) == ["full", "FasterVLM", "random", "FastV", "oracle"]
    assert [sum(left == -1 for left in row["left"]) for row in rows.values()] == [144, 36, 36, 36, 36]
    assert set(rows["FasterVLM"]["left"]) == {0, -1} and set(rows["FastV"]["left"]) == {2, -1}
    assert all(row["mark"] in ("right", "wrong") for row in rows.values())
    assert "The right answer is “circle”." in found["kept"]["note"]
    assert set(found["kept"]["marked"]) <= {i for i, left in enumerate(rows["oracle"]["left"]) if left == -1}
    vit = R.encode(model, model.vision.pixels(scenes.scene(3).pixels[None]))
    np.testing.assert_allclose(rows["FasterVLM"]["scores"], cls_score(vit)[0], atol=1e-6)
    assert found["looks"]["lines"] == ["[CLS], layer 1", "question, layer 1"] and found["looks"]["chosen"] == [0, 0]
    assert [[m["name"] for m in line] for line in found["looks"]["maps"]] == [
        ["mean", *(f"head {h}" for h in range(4))]
    ] * 2
    assert found["looks"]["maps"][0][0]["most"] == pytest.approx(float(cls_score(vit).max()), rel=1e-4)


def test_the_curves(model):
    found = panel()[-1]
    cls, text = fastervlm.looked_at(model, 5)
    shift = {series["name"]: series["y"] for series in found["shift"]["series"]}
    assert list(shift) == ["[CLS], layer 1 of the encoder", "question, layer 1 of the language model"]
    np.testing.assert_allclose(
        shift["[CLS], layer 1 of the encoder"], 144 * share(cls[:, 1].mean(1)).mean(0), rtol=1e-5
    )
    assert all(np.mean(y) == pytest.approx(1, abs=1e-5) for y in shift.values())
    mass = {series["name"]: series["y"] for series in found["dispersion"]["series"]}
    assert all(y[-1] == pytest.approx(100, abs=1e-3) and (np.diff(y) >= -1e-6).all() for y in mass.values())
    assert mass["even"][35] == 25 and mass["question, layer 1 of the language model"][0] == pytest.approx(
        100 * float(share(text.mean(1)).max(1).mean()), rel=1e-5
    )
    assert found["dispersion"]["note"].startswith("Mean over 5 drawn scenes.")


def test_one_head_of_another_layer(model):
    found = panel(layer=0, head=2, tokens=9, beside=[])[-1]
    assert [row["name"] for row in found["kept"]["rows"]] == ["full", "FasterVLM", "random"]
    vit = R.encode(model, model.vision.pixels(scenes.scene(3).pixels[None]))
    kept = {i for i, left in enumerate(found["kept"]["rows"][1]["left"]) if left == -1}
    assert kept == set(vit.cls_prob[0][0, 2].topk(9).indices.tolist())
    assert found["looks"]["chosen"] == [0, 3] and found["looks"]["lines"][0] == "[CLS], layer 0"
    assert found["shift"]["series"][0]["name"] == "[CLS], layer 0 of the encoder, head 2"


def test_an_empty_question_is_the_scene_s_own():
    found = panel(picture="scene:7", question=" ", beside=["oracle"])[-1]
    first = scenes.questions(scenes.scene(7))[0]
    assert found["kept"]["note"].startswith(f"“{first.text}” The right answer is “{first.answer}”.")


def test_a_photograph_has_no_oracle():
    found = panel(picture="photo:chelsea", question="is there a red star?")[-1]
    assert [row["name"] for row in found["kept"]["rows"]] == ["full", "FasterVLM", "random", "FastV"]
    assert found["known"] is None and found["kept"]["marked"] == []


def test_the_seed_changes_random_alone():
    one, other = (panel(seed=seed, beside=[])[-1]["kept"]["rows"] for seed in (0, 1))
    assert one[1]["left"] == other[1]["left"] and one[2]["left"] != other[2]["left"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"layer": 3}, "layers 0 to 2 and heads 0 to 3"),
        ({"head": 4}, "layers 0 to 2 and heads 0 to 3"),
        ({"picture": "photo:chelsea", "question": " "}, "question is empty"),
        ({"question": "where is the <img onerror=alert(1)> ?"}, "is not one of them"),
        ({"tokens": 0}, "outside"),
        ({"tokens": 145}, "outside"),
        ({"positions": "both"}, "not one of"),
        ({"beside": ["magic"]}, "not one of"),
        ({"picture": "scene:-1"}, "no picture"),
    ],
)
def test_bad_input_is_one_sentence(values, words):
    with pytest.raises(UserError, match=words) as caught:
        panel(**values)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


# ---- the experiment


def test_fewer_questions():
    items = benchmark.asked(6, 0)
    some = fastervlm.fewer(items, 3, 0)
    assert np.bincount(some.scene).tolist() == [3] * 6 and some.scenes is items.scenes
    lengths = [len(question.text.split()) for question in some.questions]
    assert lengths == sorted(lengths)
    for scene, question in zip(some.scene, some.questions, strict=True):
        assert question.scene is items.scenes[scene]
    assert len({(question.scene.seed, question.kind) for question in some.questions}) == 18
    assert len({question.kind for question in some.questions}) > 5
    assert len(fastervlm.fewer(items, 99, 0)) == len(items)


def test_a_small_experiment(model, monkeypatch):
    monkeypatch.setattr(benchmark, "BUDGETS", (36, 18))
    found = fastervlm.experiment(model, n=4, most=3, budgets=(36, 18), looked=3, large=1)
    plain = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [figure["kind"] for figure in plain["figures"]] == [
        "Lines",
        "HeatMap",
        "Lines",
        "Lines",
        "Lines",
        "Table",
        "Table",
    ]
    rows = {(row[0], row[1]): row for row in plain["figures"][5]["rows"]}
    assert len(rows) == 2 + 2 * 5 + 2 * 2 and (found.n, found.seed) == (12, 0)
    assert found.value == pytest.approx(rows["FasterVLM", 18][2], abs=0.05)
    assert found.bar == pytest.approx(max(rows["random", 18][2], rows["uniform grid", 18][2]), abs=0.05)
    assert found.baseline == pytest.approx(rows["FastV", 18][2], abs=0.05)
    assert rows["oracle", 36][5] > 95 and rows["full", None][5] == 100 and rows["no picture", None][5] == 0
    # Random weights know nothing, so nothing may be claimed.
    assert not found.holds and found.reason.endswith("The claim does not hold here.")
    assert len(found.reason.split("\n")) == 8
    large = plain["figures"][6]["rows"]
    assert [row[2] for row in large] == [720, 90, 90, 180, 180]


def test_repacked_is_another_reading(model):
    items = benchmark.asked(2, 0)
    vit = benchmark.encoded(model, items)
    part = np.arange(len(items))
    kept, repacked = (benchmark.read(model, vit, FasterVLM(), 18, items, part, positions=p) for p in ("keep", "repack"))
    assert (kept.left == repacked.left).all() and not torch.allclose(kept.logits, repacked.logits, atol=1e-4)


def test_by_kind():
    items = benchmark.asked(40, 0)
    kinds = items.kinds

    def cell(name, right):
        return benchmark.Cell(name, 18, right, None, 0.0, 0.0)

    ours = np.where(kinds == "count", True, np.where(kinds == "color", False, items.scene % 2 == 0))
    theirs = np.where(kinds == "count", False, np.where(kinds == "color", True, items.scene % 2 == 0))
    board = benchmark.Board(kinds, items.scene, (cell("FasterVLM", ours), cell("FastV", theirs)), 0, 0.0, 2)
    assert fastervlm.by_kind(board, fastervlm.FASTERVLM, fastervlm.FASTV, 18) == (["count"], ["color"])
