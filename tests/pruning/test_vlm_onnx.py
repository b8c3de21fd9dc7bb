"""The graphs of a tiny random model against torch, and who uses them when."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.pruning.conftest import tiny
from tokenlab import models
from tokenlab.errors import UserError
from tokenlab.models import onnx
from tokenlab.pruning import baselines, scenes, vlm, vlm_onnx
from tokenlab.pruning import reduction as R


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As the recipe writes it: weights in float16."""
    folder = tmp_path_factory.mktemp("models") / "shapes-vlm"
    folder.mkdir()
    made = tiny()
    config = copy.deepcopy(vlm.CONFIG)
    for part in ("vision_config", "text_config"):
        config[part] |= {key: getattr(getattr(made.torch.config, part), key) for key in config[part]}
    (folder / "config.json").write_text(json.dumps(config))
    state = {name: tensor.half().contiguous() for name, tensor in made.torch.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert not vlm_onnx.ships(vlm.load_folder(folder))
    assert models.export("shapes-vlm", folder) == folder
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return vlm.load_folder(folder)


def pictures(model, n):
    return model.vision.pixels(np.stack([scenes.scene(i).pixels for i in range(n)]))


def close(found, wanted):
    torch.testing.assert_close(torch.from_numpy(found), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_encoder_gives_what_transformers_gives(model, folder, rows):
    pixels = pictures(model, rows)
    graph = onnx.session(folder, vlm_onnx.VIT)
    names = [output.name for output in graph.get_outputs()]
    found = dict(zip(names, graph.run(names, {"pixels": pixels.numpy()}), strict=True))
    with torch.no_grad():
        stock = model.vision.torch(pixels, output_hidden_states=True, output_attentions=True)
    for k, hidden in enumerate(stock.hidden_states):
        close(found.pop(f"hidden.{k}"), hidden)
    for k, attention in enumerate(stock.attentions):
        close(found.pop(f"attention.{k}"), attention)
        close(found.pop(f"cls.{k}"), attention[:, :, 0, 1:])
    close(found.pop("feature"), stock.hidden_states[-2][:, 1:])
    close(found.pop("cls_score"), stock.attentions[-2][:, :, 0, 1:].mean(1))
    assert not found


@pytest.mark.parametrize("keep", [1, 36, 144])
def test_the_pruned_graph_is_the_method(model, folder, keep):
    pixels = pictures(model, 2)
    tokens, index, score = onnx.session(folder, vlm_onnx.FASTERVLM).run(
        None, {"pixels": pixels.numpy(), "keep": np.array(keep)}
    )
    with torch.no_grad():
        stock = model.vision.torch(pixels, output_hidden_states=True, output_attentions=True)
        projected = model.torch.model.multi_modal_projector(stock.hidden_states[-2][:, 1:])
    wanted = stock.attentions[-2][:, :, 0, 1:].mean(1)
    close(score, wanted)
    assert index.shape == (2, keep) and (np.diff(index) > 0).all()
    for row in range(2):
        assert set(index[row]) == set(wanted[row].topk(keep).indices.tolist())
        close(tokens[row], projected[row, index[row]])


def test_the_projector(model, folder):
    feature = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(0))
    (tokens,) = onnx.session(folder, vlm_onnx.PROJECTOR).run(None, {"feature": feature.numpy()})
    with torch.no_grad():
        close(tokens, model.torch.model.multi_modal_projector(feature))


def test_the_graphs_hold_no_weights(folder):
    weights = (folder / "model.safetensors").stat().st_size
    for name in (vlm_onnx.VIT, vlm_onnx.FASTERVLM, vlm_onnx.PROJECTOR):
        assert b"model.safetensors" in (folder / name).read_bytes()
        assert (folder / name).stat().st_size < weights / 2


class Nudge(R.TokenReduction):
    def vit(self, layer, x, context):
        return x + 1


def test_the_graph_is_used_unless_a_method_acts_in_the_encoder(model, monkeypatch):
    assert vlm_onnx.ships(model) and not vlm_onnx.ships(tiny())
    pixels = pictures(model, 2)
    torch_way = R.encode(model, pixels, onnx=False)
    by_graph = R.encode(model, pixels, onnx=True)
    for one, other in zip(torch_way.hidden + torch_way.cls_prob, by_graph.hidden + by_graph.cls_prob, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(by_graph.feature, torch_way.feature, atol=2e-5, rtol=1e-4)
    assert by_graph.feature_layer == 2 and len(by_graph.hidden) == 4 and len(by_graph.cls_prob) == 3

    used = []
    real = vlm_onnx.encode
    monkeypatch.setattr(vlm_onnx, "encode", lambda *given: used.append(1) or real(*given))
    R.encode(model, pixels)
    R.encode(model, pixels, baselines.FastV())
    assert len(used) == 2
    moved = R.encode(model, pixels, Nudge())
    assert len(used) == 2 and not torch.allclose(moved.feature, torch_way.feature)
    units = R.encode(model, pixels[None])
    assert len(used) == 3 and units.units == 2
    torch.testing.assert_close(units.feature, by_graph.feature)


def test_graphs_of_other_weights_are_refused(folder, tmp_path):
    other = tmp_path / "shapes-vlm"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    changed = {name: tensor.half() for name, tensor in tiny(num_key_value_heads=4).torch.state_dict().items()}
    changed["lm_head.weight"] = changed["lm_head.weight"] + 1
    save_file(changed, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="made for other weights; please run `python -m tokenlab export shapes-vlm`"):
        R.encode(vlm.load_folder(other), pictures(tiny(), 1))


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(UserError, match="weights of nothing are missing"):
        models.export("shapes-vlm", tmp_path / "nothing")
