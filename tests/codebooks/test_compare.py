"""The workbench on tiny tokenizers with random weights: what fits into a budget, what each part shows, what users get
wrong."""

from __future__ import annotations

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tokenlab import pictures
from tokenlab.codebooks import compare, metrics, vq_image
from tokenlab.codebooks.compare import CODES, LEVELS, SIDE, SWAP, run
from tokenlab.errors import UserError

SHAPES = {
    "vq": vq_image.Config("vq", (16,), 4, base=8, mults=(1, 1, 1), z=8),
    "fsq": vq_image.Config("fsq", (4, 4), None, base=8, mults=(1, 1, 1), z=8),
    "rvq": vq_image.Config("rvq", (8, 4), 4, base=8, mults=(1, 1, 1), z=8),
}
COUNTS = {"vq": [list(range(16))], "fsq": [[1] * 16], "rvq": [[8] * 8, [16] * 4]}
SMALL = {"size": 64}
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_thread):
    folder = tmp_path_factory.mktemp("vq-image")
    torch.manual_seed(0)
    vq_image.save({name: vq_image.VQImage(config) for name, config in SHAPES.items()}, folder)
    (folder / vq_image.HELD_OUT).write_text(json.dumps({"pictures": ["coffee", "china"], "counts": COUNTS}))
    return folder


@pytest.fixture(autouse=True)
def tokenizers(monkeypatch, folder):
    known = {name: vq_image.PictureTokenizer(name, folder, "torch") for name in SHAPES}
    monkeypatch.setattr(vq_image, "load", known.__getitem__)
    monkeypatch.setattr(vq_image, "photographs", lambda: {"toy": PHOTO})
    return known


@pytest.fixture
def image():
    return compare.prepared("photo:coffee", 64)


def filled(result):
    return [f.name for f in dataclasses.fields(result) if getattr(result, f.name) is not None]


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def upload(height, width):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return pictures.register_bytes(file.getvalue())


# --- pictures


def test_pictures_are_cut_to_whole_patches():
    assert compare.prepared("photo:coffee", 256).shape == (168, 256, 3)  # 400 x 600, so 171 x 256
    assert compare.prepared("photo:coffee", 512).shape == (336, 512, 3)
    image = compare.prepared(upload(39, 300), 300)
    assert image.shape == (32, 296, 3) and (image == (255, 0, 0)).all()


@pytest.mark.parametrize(("height", "width", "size"), [(1, 1, 256), (31, 200, 256), (1000, 60, 256)])
def test_too_small_a_picture_is_a_sentence(height, width, size):
    with pytest.raises(UserError, match=f"{width} × {height} pixels.*at least 32 on each side"):
        next(run(picture=upload(height, width), size=size))


def test_small_pictures_are_not_enlarged():
    assert compare.prepared(upload(40, 48), 512).shape == (40, 48, 3)


# --- budgets


@pytest.mark.parametrize(
    ("bits", "grid"),
    [(1280, (8, 16)), (1279, (8, 15)), (10, (1, 1)), (9.9, None), (1e6, (16, 32)), (20, (1, 2)), (5119, (16, 31))],
)
def test_the_finest_grid_that_fits(bits, grid):
    assert compare.largest_grid((64, 128), bits, 10) == grid


def test_levels_that_are_left_out_cost_nothing(tokenizers):
    assert [compare.bits_of(tokenizers["rvq"], keep) for keep in (1, 2)] == [3, 5]


def test_of_levels_and_sizes_the_best_is_chosen(tokenizers, image):
    bits = 4.0 * image.shape[0] * image.shape[1] / 64
    grids = [compare.largest_grid(image.shape, bits, per_token) for per_token in (3, 5)]
    tried = [compare.coded(tokenizers["rvq"], image, grid, keep) for keep, grid in zip((1, 2), grids, strict=True)]
    chosen = compare.through_codes(tokenizers["rvq"], image, bits)
    assert metrics.psnr(image, chosen.image) == max(metrics.psnr(image, one.image) for one in tried)
    assert tried[0].bits == 3 * np.prod(grids[0]) <= bits and tried[1].bits == 5 * np.prod(grids[1]) <= bits
    assert tried[0].how == f"{grids[0][0]} × {grids[0][1]} tokens, 1 of 2 levels"
    assert compare.through_codes(tokenizers["rvq"], image, 2.9) is None


def test_at_its_own_size_a_picture_is_not_scaled(tokenizers, image):
    bits = image.shape[0] * image.shape[1] / 64 * 4
    chosen = compare.through_codes(tokenizers["vq"], image, bits)
    assert chosen.bits == bits
    assert np.array_equal(chosen.image, tokenizers["vq"].decode(tokenizers["vq"].encode(image)))


# --- JPEG and WebP


def test_headers_are_what_holds_no_picture(image):
    jpeg, webp = (compare.file_of(kind, image, 50) for kind in ("JPEG", "WebP"))
    scan = jpeg.index(b"\xff\xda")
    assert jpeg.count(b"\xff\xda") == 1 and jpeg.endswith(b"\xff\xd9")
    assert compare.header_bytes("JPEG", jpeg) == scan + 2 + 12 + 2  # 12: length of a scan header of three components
    assert webp[12:16] == b"VP8 " and webp[23:26] == b"\x9d\x01\x2a"  # the start code of a lossy key frame
    assert compare.header_bytes("WebP", webp) == 30


@pytest.mark.parametrize("kind", ["JPEG", "WebP"])
def test_a_file_keeps_to_the_budget_and_uses_it(kind, image):
    bits = 8 * 900
    found = compare.as_file(kind, image, bits)
    quality, size = int(found.how.split()[1]), found.how.rpartition(" at ")[2]
    width, height = map(int, size.split(" × "))
    small = compare.resized(image, (height, width))
    assert found.bits == 8 * len(compare.file_of(kind, small, quality)) <= bits
    assert 8 * len(compare.file_of(kind, small, quality + 1)) > bits
    free = compare.as_file(kind, image, bits, free=True)
    assert free.headers == 0 < found.headers and free.bits <= bits
    assert metrics.psnr(image, free.image) >= metrics.psnr(image, found.image)
    assert compare.as_file(kind, image, 8 * 20) is None


# --- side by side


def test_methods_come_one_by_one_and_the_yardsticks_last(image):
    *partial, result = run(SIDE, **SMALL, compared=["rvq", "vq", "WebP"], budget=0.5)
    names = [row[0] for row in result.numbers.rows]
    assert names == ["rvq", "vq", "WebP", "WebP, headers free", "rvq, no rounding", "rvq, random codes"]
    assert result.numbers.marks == {4: "full", 5: "random"}
    assert [len(one.numbers.rows) for one in partial] == [1, 2, 4]
    shown = [item.name for item in result.compared.items]
    assert shown == ["original", "rvq", "vq", "WebP", "rvq, no rounding", "rvq, random codes"]
    assert [item.name for item in result.differences.items] == shown[1:]
    assert result.compared.slide and np.array_equal(pixels(result.compared.items[0].png), image)
    assert "have not seen this photograph" in result.compared.note
    assert filled(result) == ["compared", "numbers", "differences"]


def test_numbers_belong_to_the_pictures(image, tokenizers):
    *_, result = run(SIDE, **SMALL, compared=["vq"], budget=4 / 64, seed=1)
    rows = {row[0]: row for row in result.numbers.rows}
    painted = pixels(result.compared.items[1].png)
    tokens = image.shape[0] * image.shape[1] // 64
    assert rows["vq"][1] == metrics.psnr(image, painted) and rows["vq"][2] == metrics.ssim(image, painted)
    assert rows["vq"][3:6] == (tokens / 2, 0, 4 / 64)  # 4 bits a token
    assert rows["vq, no rounding"][5] == 4 * 32 / 64  # four 32-bit numbers a token
    ids = np.random.default_rng(1).integers(0, 16, (image.shape[0] // 8, image.shape[1] // 8, 1))
    assert np.array_equal(pixels(result.compared.items[3].png), tokenizers["vq"].decode(ids))
    lost = pixels(result.differences.items[0].png)
    expected = (4 * np.abs(image.astype(float) - painted).mean(-1)).clip(0, 255)
    assert np.abs(lost - expected).max() <= 1 and lost.max() > 0


def test_no_rounding_is_the_decoder_on_the_vectors(tokenizers, image):
    vq = tokenizers["vq"]
    _, z = vq.vectors(image)
    entries = vq.codebook()[vq.encode(image)[..., 0]]
    assert np.array_equal(compare.paint_vectors(vq, entries), vq.decode(vq.encode(image)))
    assert not np.array_equal(compare.paint_vectors(vq, z), vq.decode(vq.encode(image)))


def test_what_does_not_fit_is_said():
    *_, result = run(SIDE, **SMALL, compared=["JPEG"], budget=0.02)
    assert result.numbers.rows[0] == ("JPEG", *[None] * 7, "does not fit into 6 bytes")
    assert [item.name for item in result.compared.items] == ["original", "vq, no rounding", "vq, random codes"]


# --- codes


@pytest.mark.parametrize("name", ["vq", "rvq"])
def test_codes_are_those_of_the_picture(name, tokenizers, image):
    (result,) = run(CODES, **SMALL, tokenizer=name)
    assert filled(result) == ["codes"]
    view, tokenizer = result.codes, tokenizers[name]
    ids = tokenizer.encode(image)
    assert view.grid == ids.shape[:2] and "held-out photographs: coffee, china" in view.note
    assert np.array_equal(pixels(view.png), tokenizer.decode(ids))
    sheet = pixels(view.sheet)

    def tile(i):
        top, left = 8 * (i // view.across), 8 * (i % view.across)
        return sheet[top : top + 8, left : left + 8]

    assert [level.name for level in view.levels] == (["vq"] if name == "vq" else ["level 1", "level 2"])
    for at, level in enumerate(view.levels):
        assert level.ids == tuple(ids[..., at].ravel()) and level.counts == tuple(COUNTS[name][at])
        assert level.counted == sum(level.counts) and len(level.x) == len(level.y) == level.size
        patches, nearest = tokenizer.nearest(at, compare.PATCHES)
        assert set(level.nearest) == set(nearest)
        for code in range(level.size):
            assert np.array_equal(tile(level.decoded[code]), tokenizer.tiles(at)[code])
            for place, i in zip(level.nearest.get(code, ()), nearest.get(code, ()), strict=True):
                assert np.array_equal(tile(place), patches[i])


# --- swap a code


def test_other_codes():
    book = np.array([[0.0, 0], [1, 0], [5, 0], [0.5, 0]])
    assert compare.other_code("nearest", book, 0, 0) == 3 and compare.other_code(" Opposite ", book, 0, 0) == 2
    assert compare.other_code("2", book, 0, 0) == 2
    assert {compare.other_code("random", book, 1, seed) for seed in range(40)} == {0, 2, 3}


@pytest.mark.parametrize("wanted", ["4", "-1", "", "1.5", "²", "x" * 20])
def test_a_code_that_is_none_is_a_sentence(wanted):
    with pytest.raises(UserError, match="a number from 0 to 15, or nearest, opposite, random"):
        next(run(SWAP, **SMALL, code=wanted if wanted != "4" else "16", row=1, column=1))


def test_steps_from_a_patch():
    steps = compare.steps_from((1, 1), (24, 32))
    assert (steps[8:16, 8:16] == 0).all() and (steps == 0).sum() == 64
    assert (steps[0, 0], steps[8, 16], steps[23, 31], steps[16, 31]) == (8, 1, 16, 16)


def test_one_token_changes_and_only_its_surroundings(tokenizers):
    picture = "photo:coffee"
    image = compare.prepared(picture, 256)
    ids = tokenizers["vq"].encode(image)
    new = (int(ids[9, 15, 0]) + 1) % 16
    (result,) = run(SWAP, picture, 256, row=10, column=16, code=str(new))
    assert filled(result) == ["swapped", "close", "change", "reach"]
    changed = ids.copy()
    changed[9, 15, 0] = new
    before, after, lost = (pixels(item.png) for item in result.swapped.items)
    assert np.array_equal(before, compare.to_uint8(compare.paint_codes(tokenizers["vq"], ids)))
    assert np.array_equal(after, compare.to_uint8(compare.paint_codes(tokenizers["vq"], changed)))
    assert np.abs(before.astype(int) - tokenizers["vq"].decode(ids)).max() <= 1
    assert np.array_equal(pixels(result.close.items[0].png), before[48:104, 96:152])
    # A convolution 3 wide reaches one token farther, which is 8 pixels, and transposed ones 4 wide with stride 2 reach
    # 4, 2 and 1 pixels farther; the second convolution of each residual block starts at zero.
    numbers = dict(result.change.rows)
    reach = numbers["the farthest pixel that changes at all [pixels]"]
    assert reach == 8 + 4 + 2 + 1
    visible = numbers["of these the farthest from the patch [pixels]"]
    assert visible is None or visible <= reach
    largest = result.reach.series[0]
    assert len(largest.x) == reach + 2 and largest.y[-1] is None and largest.y[0] > 0
    assert f"code {ids[9, 15, 0]} becomes {new}" in result.change.note


def test_the_same_code_changes_nothing(tokenizers, image):
    same = int(tokenizers["rvq"].encode(image)[0, 0, 1])
    (result,) = run(SWAP, **SMALL, book="rvq, level 2", row=1, column=1, code=str(same))
    assert [row[1] for row in result.change.rows] == [0, None, None, None, None, 0.0]
    assert result.reach.series[0].y == (None, None)


def test_a_place_outside_of_the_picture_is_a_sentence():
    with pytest.raises(UserError, match="has 5 rows and 8 columns of tokens"):
        next(run(SWAP, **SMALL, row=6, column=1))


# --- fewer levels, fewer codes


def test_codes_merge_into_the_nearest_kept_one():
    book = np.array([[0.0], [1], [10], [11]])
    assert compare.merging(book, np.array([2, 0])).tolist() == [0, 0, 2, 2]
    assert compare.merging(book, np.array([1])).tolist() == [1, 1, 1, 1]
    assert compare.merging(np.array([[3.0], [3], [4]]), np.array([0, 1, 2])).tolist() == [0, 1, 2]


def test_levels_and_codes_are_taken_away(tokenizers, image):
    partial = list(run(LEVELS, **SMALL))
    assert filled(partial[0]) == ["levels", "by_level"]
    result = partial[-1]
    assert filled(result) == ["levels", "by_level", "merging", "by_size", "merged"]
    ids = tokenizers["rvq"].encode(image)
    rows = result.by_level.rows
    assert [row[:2] for row in rows[:2]] == [("1 of 2 levels", 3.0), ("2 of 2 levels", 5.0)]
    assert [row[3] for row in rows[:2]] == [
        metrics.psnr(image, tokenizers["rvq"].decode(ids, keep=keep)) for keep in (1, 2)
    ]
    assert result.by_level.marks == {2: "full", 3: "random"}

    vq = tokenizers["vq"]
    assert [row[0] for row in result.by_size.rows] == [16, 8, 4, 2]
    assert len(partial) == 5
    used, random = result.merging.series
    assert used.y[0] == random.y[0] == metrics.psnr(image, vq.decode(vq.encode(image)))
    # Code k came up k times in 120 tokens: the 8 most used ones are 8 to 15, 92 in all.
    assert result.by_size.rows[1][2] == pytest.approx(100 * 92 / 120)
    assert result.by_size.rows[0][3] == pytest.approx(np.exp(-sum(k / 120 * np.log(k / 120) for k in range(1, 16))))
    mapped = compare.merging(vq.codebook(), np.arange(15, 7, -1))[vq.encode(image)]
    assert used.y[1] == metrics.psnr(image, vq.decode(mapped)) and mapped.min() >= 8
    assert all(low <= mean <= high for low, mean, high in zip(random.low, random.y, random.high, strict=True))
    assert [item.name for item in result.merged.items] == ["original", "16 codes", "4 codes"]


def test_without_weights_there_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(vq_image, "load", lambda name: vq_image.PictureTokenizer(name, tmp_path))
    with pytest.raises(UserError, match="vq-image is not there.*recipes/vq_image.py"):
        next(run(SIDE, **SMALL))
