"""Maps of a tiny random CLIP encoder, and of matrices that can be worked out by hand."""

import base64
import io

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from tokenlab.models.vision import VisionTransformer
from tokenlab.pruning import vit_attention as va


@pytest.fixture(scope="module")
def vision():
    torch.manual_seed(0)
    config = hf.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=24, patch_size=8
    )
    model = hf.CLIPVisionModel(config).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(20)
    return VisionTransformer("toy", model, 24, 8, 1, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


def weights(shown):
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.png)))).astype(float)
    return (grey / 255) ** 2 * shown.most


def test_rollout_by_hand():
    # one head, two tokens: [CLS] looks at the patch only, the patch at both alike
    once = np.array([[0.0, 1.0], [0.5, 0.5]])
    first = np.array([[0.5, 0.5], [0.25, 0.75]])  # half itself
    found = va.rollout(np.stack([once, once])[:, None])
    np.testing.assert_allclose(found[0], first)
    np.testing.assert_allclose(found[1], first @ first)
    np.testing.assert_allclose(found[1][0], [0.375, 0.625])


def test_rollout_is_the_mean_over_all_paths(vision, image):
    """Rows stay distributions; attention that copies itself changes nothing."""
    seen = va.look(vision, image)
    assert (seen.rolled > 0).all() and (seen.rolled.sum(1) < 1).all()  # the rest stays on [CLS]
    np.testing.assert_allclose(va.rollout(np.eye(4)[None, None].repeat(3, 0)), np.eye(4)[None].repeat(3, 0))


def test_what_the_encoder_itself_computes(vision, image):
    seen = va.look(vision, image)
    assert seen.cls.shape == (3, 2, 9) and seen.rolled.shape == (3, 9) and seen.norms.shape == (4, 9)
    # layer 1 by hand, from its own weights and the hidden state that goes into it
    layer = vision.torch.vision_model.encoder.layers[1] if hasattr(vision.torch, "vision_model") else None
    layer = layer or vision.torch.encoder.layers[1]
    with torch.no_grad():
        out = vision.torch(vision.pixels(image[None]), output_hidden_states=True)
        x = layer.layer_norm1(out.hidden_states[1])
        q, k = layer.self_attn.q_proj(x), layer.self_attn.k_proj(x)
        split = [t.view(1, 10, 2, 8).transpose(1, 2) for t in (q, k)]
        probabilities = (split[0] @ split[1].transpose(2, 3) / 8**0.5).softmax(-1)[0, :, 0, 1:]
    np.testing.assert_allclose(seen.cls[1], probabilities.numpy(), atol=1e-5)
    np.testing.assert_allclose(seen.norms[2], out.hidden_states[2][0, 1:].norm(dim=-1).numpy(), rtol=1e-5)
    assert seen.cls.max() - seen.cls.min() > 0.1, "the toy does look somewhere"


def test_the_view_holds_every_head_the_mean_and_the_rollout(vision, image):
    seen = va.look(vision, image)
    view = va.attention_view(seen, image, things=(0, 4))
    assert [m.name for m in view.maps[0]] == ["head 0", "head 1", "mean", "rollout"]
    assert view.lines == ("layer 0", "layer 1", "layer 2") and view.chosen == (1, 2) and view.grid == (3, 3)
    np.testing.assert_allclose(weights(view.maps[1][0]), seen.cls[1, 0].reshape(3, 3), atol=0.005)
    np.testing.assert_allclose(weights(view.maps[1][2]), seen.cls[1].mean(0).reshape(3, 3), atol=0.005)
    np.testing.assert_allclose(weights(view.maps[2][3]), seen.rolled[2].reshape(3, 3), atol=0.005)
    facts = view.maps[1][0].facts
    share = seen.cls[1, 0] / seen.cls[1, 0].sum()
    assert facts["drawn things [%]"] == pytest.approx(100 * share[[0, 4]].sum(), abs=0.06)
    assert "drawn things [%]" not in va.attention_view(seen, image).maps[0][0].facts
    assert view.alt() == "Where [CLS] looks: 12 maps of 3 x 3 patches; mean first."


def test_norms_with_their_outlier():
    norms = np.array([[1.0, 2, 2, 2], [1, 2, 2, 20]])
    seen = va.Seen(np.ones((1, 1, 4)), np.ones((1, 4)), norms, 2)
    view = va.norm_view(seen, np.zeros((16, 16, 3), np.uint8))
    assert [m.name for m in view.maps[0]] == ["input", "layer 0"] and view.chosen == (0, 1)
    assert view.maps[0][1].facts == {"shortest": 1, "median": 2, "longest": 20, "longest / median": 10}
    np.testing.assert_allclose(weights(view.maps[0][1]), [[0, 1], [1, 19]], atol=0.05)


def test_facts_by_hand():
    even = np.full(20, 0.02)
    assert va.attention_facts(even) == {
        "on patches [%]": 40,
        "entropy [bits]": 4.32,  # log2 of 20
        "strongest tenth [%]": 10,
    }
    one = np.zeros(20)
    one[3] = 0.5
    facts = va.attention_facts(one, (3, 4))
    assert facts == {
        "on patches [%]": 50,
        "entropy [bits]": 0,
        "strongest tenth [%]": 100,
        "drawn things [%]": 100,
    }
