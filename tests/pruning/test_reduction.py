"""The driver of visual token reduction against transformers' own forward, and removing against masking."""

import numpy as np
import pytest
import torch

from tests.pruning.conftest import tiny
from tokenlab.errors import UserError
from tokenlab.pruning import baselines, scenes
from tokenlab.pruning import reduction as R

ASKED = ["what color is the star ?", "how many things are there ?", "is the red star left of the blue circle ?"]


def pictures(model, n=3):
    return model.vision.pixels(np.stack([scenes.scene(i).pixels for i in range(n)]))


def stock(model, pixels, question):
    """transformers' own forward of one picture and one question, logits of the last token."""
    ids = [*model.opening, *[3] * model.vision.grid**2, *R.question_ids(model, question)]
    with torch.no_grad():
        return model.torch(input_ids=torch.tensor([ids]), pixel_values=pixels[None]).logits[0, -1]


@pytest.mark.parametrize("heads", [4, 2])
def test_keeping_everything_is_the_plain_model(heads):
    model = tiny(num_key_value_heads=heads)
    pixels = pictures(model)
    vit = R.encode(model, pixels)
    count = model.vision.grid**2
    for method in (R.TokenReduction(), baselines.Random(), baselines.UniformGrid(), baselines.FastV()):
        out = R.read(model, vit, ASKED, method, count)
        for row, question in enumerate(ASKED):
            torch.testing.assert_close(out.logits[row], stock(model, pixels[row], question), atol=2e-5, rtol=1e-4)
        assert out.kept == (count,) * 4 and (out.left == -1).all()


class Masked(R.TokenReduction):
    """The test's oracle: nothing is removed, but from `layer` on nobody sees the tokens that are not in `keep`."""

    def __init__(self, keep, layer):
        self.keep, self.layer = keep, layer

    def compute(self, layer, state, context):
        if layer < self.layer:
            return None
        seen = torch.ones(len(self.keep), state.hidden.shape[1], dtype=torch.bool)
        seen[:, state.visual] = torch.zeros(seen[:, state.visual].shape, dtype=torch.bool).scatter(1, self.keep, True)
        # a token always sees itself, else the softmax of a removed one is empty
        return seen[:, None, None] | torch.eye(state.hidden.shape[1], dtype=torch.bool)


@pytest.mark.parametrize(
    "method", [baselines.Random(), baselines.UniformGrid(), baselines.FastV(1), baselines.FastV(3)]
)
def test_removing_is_masking(model, method):
    vit = R.encode(model, pictures(model))
    out = R.read(model, vit, ASKED, method, 20)
    keep = torch.stack([torch.nonzero(row == -1)[:, 0] for row in out.left])
    first = next((layer for layer, n in enumerate(out.kept) if n == 20), 0)
    masked = R.read(model, vit, ASKED, Masked(keep, first), 144)
    torch.testing.assert_close(out.logits, masked.logits, atol=2e-5, rtol=1e-4)
    assert not torch.allclose(out.logits, R.read(model, vit, ASKED, R.TokenReduction(), 144).logits, atol=1e-3)


def test_rows_of_different_length_do_not_mix(model):
    vit = R.encode(model, pictures(model))
    together = R.read(model, vit, ASKED, baselines.FastV(), 9)
    for row, question in enumerate(ASKED):
        alone = R.read(model, R.encode(model, pictures(model)[row : row + 1]), [question], baselines.FastV(), 9)
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=2e-5, rtol=1e-4)


def test_fastv_ranks_by_the_attention_that_transformers_computes(model):
    pixels = pictures(model)[:1]
    out = R.read(model, R.encode(model, pixels), ASKED[:1], baselines.FastV(2), 10)
    ids = [*model.opening, *[3] * 144, *R.question_ids(model, ASKED[0])]
    with torch.no_grad():
        stock = model.torch(input_ids=torch.tensor([ids]), pixel_values=pixels, output_attentions=True)
    weights = stock.attentions[1][0, :, -1, 1:145].mean(0)
    torch.testing.assert_close(out.scores[0], weights, atol=1e-6, rtol=1e-4)
    assert set(torch.nonzero(out.left[0] == -1)[:, 0].tolist()) == set(weights.topk(10).indices.tolist())
    assert out.kept == (144, 144, 10, 10) and set(out.left.unique().tolist()) == {-1, 2}


def test_repacked_positions_are_those_of_a_shorter_picture(model):
    """Without gaps, a prompt of 20 visual tokens is what transformers reads when it is given these 20 embeddings."""
    pixels = pictures(model)[:1]
    vit = R.encode(model, pixels)
    out = R.read(model, vit, ASKED[:1], baselines.UniformGrid(), 20, positions="repack")
    keep = torch.nonzero(out.left[0] == -1)[:, 0]
    with torch.no_grad():
        embed = model.torch.get_input_embeddings()
        tokens = model.torch.model.multi_modal_projector(vit.feature)[:, keep]
        asked = torch.tensor([R.question_ids(model, ASKED[0])])
        whole = torch.cat((embed(torch.tensor([model.opening])), tokens, embed(asked)), 1)
        logits = model.torch.lm_head(model.torch.model.language_model(inputs_embeds=whole).last_hidden_state)
    torch.testing.assert_close(out.logits[0], logits[0, -1], atol=2e-5, rtol=1e-4)
    assert not torch.allclose(out.logits, R.read(model, vit, ASKED[:1], baselines.UniformGrid(), 20).logits, atol=1e-4)


def test_generating_goes_on_as_the_plain_model_would(model):
    pixels = pictures(model)[:1]
    out = R.read(model, R.encode(model, pixels), ASKED[:1], R.TokenReduction(), 144)
    ids, sure = R.generate(model, out, 6)
    prompt = [*model.opening, *[3] * 144, *R.question_ids(model, ASKED[0])]
    with torch.no_grad():
        for step, found in enumerate(ids):
            logits = model.torch(input_ids=torch.tensor([prompt + ids[:step]]), pixel_values=pixels).logits[0, -1]
            assert int(logits.argmax()) == found
            assert sure[step] == pytest.approx(float(logits.softmax(-1).max()), abs=1e-4)


def test_units_are_read_one_after_the_other(model):
    large = scenes.crops(scenes.large(3))
    pixels = model.vision.pixels(large)
    vit = R.encode(model, pixels[None])
    assert vit.units == 5 and vit.feature.shape == (5, 144, 32)
    torch.testing.assert_close(vit.feature[2], R.encode(model, pixels[2:3]).feature[0])
    out = R.read(model, vit, ASKED[:1], baselines.UniformGrid(), 9)
    assert out.kept == (45,) * 4
    left = out.left.view(5, 144)
    assert (left == left[0]).all() and int((left[0] == -1).sum()) == 9


def test_the_oracle_keeps_what_the_question_is_about(model):
    vit = R.encode(model, pictures(model))
    about = [[5, 77], [0], list(range(100, 112))]
    out = R.read(model, vit, ASKED, baselines.Oracle(), 4, relevant=about)
    kept = [set(torch.nonzero(row == -1)[:, 0].tolist()) for row in out.left]
    assert {5, 77} <= kept[0] and 0 in kept[1] and kept[2] <= set(about[2])


def test_no_picture_has_no_visual_tokens(model):
    one, other = (R.encode(model, pictures(model, 2)[i : i + 1]) for i in range(2))
    out = [R.read(model, vit, ASKED[:1], baselines.NoPicture(), 0) for vit in (one, other)]
    assert out[0].kept == (0,) * 4
    torch.testing.assert_close(out[0].logits, out[1].logits)


def test_work_is_the_formula(model):
    vit = R.encode(model, pictures(model)[:1])
    question = R.question_ids(model, ASKED[0])
    out = R.read(model, vit, ASKED[:1], baselines.FastV(2), 10)
    d, m = 32, 48

    def layer(n):
        return 4 * n * d * d + 2 * n * n * d + 3 * n * d * m

    long, short = 1 + 144 + len(question), 1 + 10 + len(question)
    assert out.work.llm == 2 * layer(long) + 2 * layer(short)
    stem = 48 * 48 * 27 * 8 + 24 * 24 * 72 * 16 + 12 * 12 * 144 * 32 + 12 * 12 * 32 * 32
    assert R.patch_embedding_work(model) == stem
    assert out.work.vit == stem + 3 * (4 * 145 * d * d + 2 * 145**2 * d + 2 * 145 * d * m)
    assert out.work.projector == 144 * 2 * d * d


@pytest.mark.parametrize("budget", range(1, 145))
def test_the_uniform_grid_has_as_many_as_asked(budget):
    kept = baselines.spread(12, budget)
    assert len(set(kept)) == budget and all(0 <= patch < 144 for patch in kept)


def test_four_of_a_uniform_grid_lie_in_the_quarters():
    assert baselines.spread(12, 4) == [3 * 12 + 3, 3 * 12 + 9, 9 * 12 + 3, 9 * 12 + 9]


@pytest.mark.parametrize("question", ["", "   ", "where is the dog ?"])
def test_a_question_that_cannot_be_asked(model, question):
    with pytest.raises(UserError, match=r"\.$"):
        R.question_ids(model, question)


def test_case_spacing_and_question_mark_do_not_matter(model):
    assert R.question_ids(model, "What  COLOR is the star") == R.question_ids(model, "what color is the star ?")
