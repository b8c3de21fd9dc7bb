"""The tokenizers that ship, as tiny random ones: ONNX is torch, any size of picture goes through and comes back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from tokenlab import models
from tokenlab.codebooks import vq_image
from tokenlab.codebooks.vq_image import Config, PictureTokenizer, VQImage
from tokenlab.errors import UserError

SMALL = dict(base=8, mults=(1, 1, 2), z=16, code_dim=4)
CONFIGS = {"vq": Config("vq", (64,), **SMALL), "rvq": Config("rvq", (16, 8), **SMALL)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two random models with their graphs, in the layout of assets/models/vq-image."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vq-image")
    vq_image.save({name: VQImage(config) for name, config in CONFIGS.items()}, folder)
    assert models.export("vq-image", folder) == folder
    return folder


@pytest.fixture(params=["vq", "rvq"])
def pair(request, folder):
    return [PictureTokenizer(request.param, folder, backend) for backend in ("onnx", "torch")]


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (37, 50), (64, 9)])
def test_onnx_gives_the_ids_vectors_and_pixels_of_torch(pair, shape):
    onnx, network = pair
    image = picture(*shape)
    (ids, z), (expected, vectors) = onnx.vectors(image), network.vectors(image)
    assert ids.shape == (-(-shape[0] // 8), -(-shape[1] // 8), len(onnx.sizes)) and ids.dtype == np.int64
    assert np.array_equal(ids, expected)
    np.testing.assert_allclose(z, vectors, atol=1e-5)
    copies = [tokenizer.decode(ids, image.shape) for tokenizer in pair]
    assert copies[0].shape == image.shape and copies[0].dtype == np.uint8
    assert np.abs(copies[0].astype(int) - copies[1]).max() <= 1  # rounding to whole numbers


def test_vectors_lie_nearest_to_their_code(pair):
    ids, z = pair[0].vectors(picture(40, 40))
    distance = ((z[:, :, None] - pair[0].codebook(0)) ** 2).sum(-1)
    assert np.array_equal(distance.argmin(-1), ids[..., 0])


def test_weights_are_stored_once_as_float16(folder):
    from safetensors.torch import load_file

    stored = load_file(folder / "vq.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert not any("embed_avg" in key for key in stored)
    tokenizer = PictureTokenizer("vq", folder)
    for key, tensor in stored.items():
        assert torch.equal(tokenizer.torch.state_dict()[key], tensor.float())
    graphs = sum((folder / f"vq.{part}.onnx").stat().st_size for part in ("encode", "decode"))
    assert graphs < (folder / "vq.safetensors").stat().st_size


def test_padding_repeats_the_edges():
    image = picture(3, 9)
    filled = vq_image.padded(image)
    assert filled.shape == (1, 3, 8, 16) and filled.dtype == np.float32
    assert np.array_equal(filled[0, :, 7, 15], np.float32(image[2, 8]) / 255)
    assert np.array_equal(vq_image.to_uint8(filled)[0, :3, :9], image)


def test_levels_can_be_left_out(folder):
    for backend in ("onnx", "torch"):
        tokenizer = PictureTokenizer("rvq", folder, backend)
        ids = tokenizer.encode(picture(24, 24))
        without = ids.copy()
        without[..., 1] = -1
        assert np.array_equal(tokenizer.decode(ids, keep=1), tokenizer.decode(without))
        assert np.array_equal(tokenizer.decode(ids, keep=2), tokenizer.decode(ids))
        assert not np.array_equal(tokenizer.decode(ids, keep=1), tokenizer.decode(ids))


def test_the_network_is_a_visual_tokenizer(folder):
    model = PictureTokenizer("rvq", folder).torch
    x = torch.rand(2, 3, 16, 24)
    tokens, out = model.encode(x)
    assert tokens.layout == "grid" and tokens.shape == (2, 3) and tokens.ids.shape == (2, 6, 2)
    torch.testing.assert_close(model.decode(tokens), model.decode(out.zq, shape=tokens.shape))
    torch.testing.assert_close(model.decode(tokens), model(x)[0])
    assert model.bits(tokens).tolist() == [6 * 7, 6 * 7]
    both = model.decode(tokens, keep=torch.tensor([1, 2]))
    torch.testing.assert_close(both[0], model.decode(tokens, keep=1)[0])
    torch.testing.assert_close(both[1], model.decode(tokens)[1])
    with pytest.raises(ValueError, match="not of vectors"):
        model.decode(out.zq, keep=1, shape=tokens.shape)


def test_another_code_changes_only_its_neighbourhood(pair):
    tokenizer = pair[0]
    ids = tokenizer.encode(picture(160, 160))
    other = ids.copy()
    other[10, 10, 0] = (ids[10, 10, 0] + 1) % tokenizer.sizes[0]
    changed = (tokenizer.decode(ids) != tokenizer.decode(other)).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed.any() and rows.min() >= 32 and columns.max() < 136


def test_tiles_are_what_a_code_paints_among_its_like(pair):
    tokenizer = pair[0]
    tiles = tokenizer.tiles(0)
    assert tiles.shape == (tokenizer.sizes[0], 8, 8, 3)
    ids = np.full((3, 3, len(tokenizer.sizes)), -1)
    ids[..., 0] = 5
    assert np.array_equal(tiles[5], tokenizer.decode(ids)[8:16, 8:16])


def test_nearest_patches_are_the_closest_of_each_code(pair, monkeypatch):
    images = {"a": picture(40, 48, 1), "b": picture(29, 16, 2)}
    monkeypatch.setattr(vq_image, "photographs", lambda: images)
    tokenizer = pair[1]
    level = len(tokenizer.sizes) - 1
    patches, nearest = tokenizer.nearest(level, codes=2)
    distances = {}
    for image in images.values():
        image = image[: len(image) // 8 * 8]
        ids, z = tokenizer.vectors(image)
        for row in range(ids.shape[0]):
            for column in range(ids.shape[1]):
                rest, code = z[row, column], ids[row, column]
                for before in range(level):
                    rest = rest - tokenizer.codebook(before)[code[before]]
                distance = float(((rest - tokenizer.codebook(level)[code[level]]) ** 2).sum())
                patch = image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
                distances.setdefault(int(code[level]), []).append((distance, patch))
    assert set(nearest) == set(distances)
    for code, members in nearest.items():
        best = sorted(distances[code], key=lambda entry: entry[0])[:2]
        assert len(members) == len(best)
        assert all(np.array_equal(patches[i], patch) for i, (_, patch) in zip(members, best, strict=True))


def test_held_out_counts(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    stored = {"pictures": ["a", "b"], "counts": {"rvq": [[1] * 16, [2] * 8]}, "rows": []}
    (tmp_path / vq_image.HELD_OUT).write_text(json.dumps(stored), "utf-8")
    found = PictureTokenizer("rvq", tmp_path).held_out()
    assert found.pictures == ("a", "b") and found.counted == 16
    assert [counts.tolist() for counts in found.counts] == [[1] * 16, [2] * 8]


def test_what_is_missing_or_does_not_match_is_one_sentence(folder, tmp_path):
    with pytest.raises(UserError, match="is not there"):
        PictureTokenizer("vq", tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such tokenizer; please choose one of vq, rvq"):
        PictureTokenizer("fsq", folder)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    torch.manual_seed(1)
    vq_image.save({"vq": VQImage(CONFIGS["vq"])}, tmp_path)
    with pytest.raises(UserError, match="made for other weights"):
        PictureTokenizer("vq", tmp_path).encode(picture(8, 8))


def test_photographs_never_trained_on_are_not_among_those_seen():
    from tokenlab import pictures

    assert not set(vq_image.SEEN) & set(vq_image.UNSEEN)
    assert set((*vq_image.SEEN, *vq_image.UNSEEN)) <= set(pictures.PHOTOS)


def test_it_learns():
    torch.manual_seed(0)
    model = VQImage(Config("vq", (16,), **SMALL), decay=0.9, dead_below=0.5).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    x = torch.rand(4, 3, 3, 3).repeat_interleave(8, 2).repeat_interleave(8, 3)  # plain patches
    errors = []
    for _ in range(100):
        y, out = model(x)
        error = ((y - x) ** 2).mean()
        optimizer.zero_grad()
        (error + out.loss).backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.3 * errors[0]
