"""Quantisers find the nearest entry, give gradients straight through, and freeze and export without change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenlab.codebooks.quantizers import make_quantizer

KINDS = {
    "vq": ("vq", (32,), {"code_dim": 8}),
    "euclidean": ("vq", (32,), {"cosine": False}),
    "product": ("product", (16, 8), {"code_dim": 4}),
    "rvq": ("rvq", (16, 16, 8), {"code_dim": 8}),
    "fsq": ("fsq", (8, 5, 5, 5), {}),
    "binary": ("fsq", (2, 2, 3), {}),
    "lfq": ("lfq", (64,), {}),
    "simvq": ("simvq", (32,), {}),
}


def made(name, seed=0):
    torch.manual_seed(seed)
    kind, sizes, values = KINDS[name]
    return make_quantizer(kind, 16, sizes, **values).eval()


def vectors(seed=1, rows=3, tokens=40):
    return torch.randn(rows, tokens, 16, generator=torch.Generator().manual_seed(seed))


def brute_force(x, books, residual, cosine):
    """ids of one vector x: try all entries, one after the other."""
    ids = []
    for book in books:
        part = x if residual else x[: book.shape[1]]
        if cosine:
            scores = [-float(np.dot(part, entry)) / np.linalg.norm(part) / np.linalg.norm(entry) for entry in book]
        else:
            scores = [float(((part - entry) ** 2).sum()) for entry in book]
        ids.append(int(np.argmin(scores)))
        x = x - book[ids[-1]] if residual else x[book.shape[1] :]
    return ids


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_those_of_a_brute_force_search(name):
    quantizer, z = made(name), vectors()
    out = quantizer(z)
    x = quantizer.compared(z).detach().double().numpy()
    books = [quantizer.codebook(h).detach().double().numpy() for h in range(len(quantizer.sizes))]
    expected = [[brute_force(token, books, quantizer.residual, quantizer.cosine) for token in row] for row in x]
    assert out.ids.tolist() == expected
    assert out.ids.dtype == torch.int64 and out.ids.shape == (3, 40, len(quantizer.sizes))


@pytest.mark.parametrize("name", KINDS)
def test_frozen_lookup_and_logits_agree_with_the_library(name):
    quantizer, z = made(name), vectors()
    out = quantizer(z)
    zq, ids = quantizer.frozen()(z)
    assert torch.equal(ids, out.ids)
    torch.testing.assert_close(zq, out.zq)
    torch.testing.assert_close(quantizer.lookup(out.ids), out.zq)
    logits = quantizer.logits(z, tau=0.5)
    assert torch.equal(logits.argmax(-1), out.ids)
    torch.testing.assert_close(logits, quantizer.logits(z) * 2)
    hard = torch.nn.functional.one_hot(out.ids, max(quantizer.sizes)).float()
    torch.testing.assert_close(quantizer.soft_lookup(hard), out.zq)
    assert out.loss == 0


@pytest.mark.parametrize("name", KINDS)
def test_training_gives_gradients_to_the_encoder_and_leaves_masked_tokens_alone(name):
    quantizer, z = made(name).train(), vectors().requires_grad_()
    mask = torch.zeros(3, 40, dtype=torch.bool)
    mask[0], mask[1, :7] = True, True
    out = quantizer(z, mask)
    (out.zq**2).sum().backward()
    assert (z.grad[mask].abs().sum(-1) > 0).all() and (z.grad[~mask] == 0).all()
    assert (out.zq[~mask] == 0).all() and (out.ids[~mask] == -1).all()
    assert (out.ids[mask][:, 0] >= 0).all()  # later levels may be left out while training
    assert out.aux["z"].shape == out.aux["codes"].shape == (47, sum_width(quantizer))
    with pytest.raises(ValueError, match="no token"):
        quantizer(z, torch.zeros(3, 40, dtype=torch.bool))


def sum_width(quantizer):
    widths = [quantizer.codebook(h).shape[1] for h in range(len(quantizer.sizes))]
    return widths[0] if quantizer.residual else sum(widths)


@pytest.mark.parametrize("name", KINDS)
def test_masked_tokens_do_not_change_the_others(name):
    z = vectors()
    mask = torch.ones(3, 40, dtype=torch.bool)
    mask[:, 30:] = False
    other = torch.where(mask[..., None], z, 100.0)
    one, two = made(name).train(), made(name).train()
    torch.manual_seed(5)
    first = one(z, mask)
    torch.manual_seed(5)
    second = two(other, mask)
    assert torch.equal(first.zq, second.zq) and first.loss == second.loss
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", ["euclidean", "rvq", "simvq"])
def test_the_gradient_goes_straight_through_once(name):
    torch.manual_seed(0)
    kind, sizes, values = KINDS[name]
    quantizer = make_quantizer(kind, 16, sizes, **values | ({"code_dim": 16} if "code_dim" in values else {}))
    z = vectors().requires_grad_()
    weights = torch.randn(3, 40, 16)
    (quantizer(z).zq * weights).sum().backward()
    torch.testing.assert_close(z.grad, weights)


def test_commitment_is_a_quarter_of_the_squared_distance():
    torch.manual_seed(0)
    quantizer = make_quantizer("vq", 2, (2,), cosine=False)
    quantizer.books[0].codebook = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    out = quantizer(torch.tensor([[[1.0, 0.0], [4.0, 2.0]]]))
    assert out.ids.flatten().tolist() == [0, 1]
    assert out.loss.item() == pytest.approx(0.25 * (1 + 4) / 4)  # two vectors of two numbers


def test_averages_move_a_code_by_one_in_a_hundred():
    quantizer = make_quantizer("vq", 2, (2,), cosine=False, dead_below=0)
    book = quantizer.books[0]
    book.codebook = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    book._codebook.embed_avg.copy_(book._codebook.embed)
    quantizer(torch.tensor([[[2.0, 0.0]]]))  # counts 1 and 1 become 1 and 0.99, the sum of code 0 becomes 0.02
    torch.testing.assert_close(quantizer.codebook()[0], torch.tensor([0.02, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(quantizer.codebook()[1], torch.tensor([10.0, 0.0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("dead_below, alive", [(0.0, 1), (0.5, 4)])
def test_dead_codes_move_to_vectors_of_the_batch(dead_below, alive):
    torch.manual_seed(0)
    quantizer = make_quantizer("vq", 2, (4,), cosine=False, decay=0.9, dead_below=dead_below)
    quantizer.books[0].codebook = torch.tensor([[0.0, 0.0], [90.0, 0.0], [0.0, 90.0], [90.0, 90.0]])
    quantizer.books[0]._codebook.embed_avg.copy_(quantizer.books[0]._codebook.embed)
    z = torch.rand(1, 64, 2)
    for _ in range(40):
        quantizer(z)
    assert len(quantizer.eval()(z).ids.unique()) == alive


def test_a_moved_code_has_time_before_it_moves_again():
    quantizer = make_quantizer("vq", 2, (4,), dead_below=0.03)
    book = quantizer.books[0]._codebook
    book.cluster_size.fill_(0.0)
    torch.manual_seed(0)
    quantizer(torch.randn(1, 8, 2))
    assert (book.cluster_size == 1).any()
    assert ((book.cluster_size == 1) | (book.cluster_size >= 0.0299)).all()


def test_residual_levels_may_be_left_out():
    quantizer, z = made("rvq"), vectors()
    ids = quantizer(z).ids
    first = quantizer.lookup(torch.cat((ids[..., :1], torch.full_like(ids[..., 1:], -1)), -1))
    torch.testing.assert_close(first, quantizer.up(quantizer.codebook(0)[ids[..., 0]]))
    assert (quantizer.lookup(torch.full_like(ids, -1)) == 0).all()
    quantizer.train()
    levels = {int((quantizer(z).ids >= 0).all((0, 1)).sum()) for _ in range(20)}
    assert levels == {1, 2, 3}


def test_kmeans_needs_ten_vectors_per_code_and_then_uses_every_code():
    torch.manual_seed(0)
    quantizer = make_quantizer("vq", 4, (16,), kmeans=True)
    with pytest.raises(ValueError, match="at least 160 vectors, not 100"):
        quantizer(torch.randn(1, 100, 4))
    quantizer(torch.randn(1, 160, 4))
    assert quantizer.eval()(torch.randn(4, 200, 4)).ids.unique().numel() == 16


def test_sizes_and_bits():
    bits = {name: made(name).bits_per_token for name in KINDS}
    assert bits["vq"] == 5 and bits["product"] == 7 and bits["rvq"] == 11 and bits["lfq"] == 6
    assert bits["fsq"] == pytest.approx(math.log2(1000)) and made("fsq").sizes == (1000,)
    with pytest.raises(ValueError, match="no quantiser 'pq'"):
        make_quantizer("pq", 4, (2,))
    with pytest.raises(ValueError, match="one codebook, not 2"):
        make_quantizer("vq", 4, (2, 2))


def test_searching_is_float32_under_autocast():
    quantizer, z = made("euclidean"), vectors()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(z).ids, quantizer(z.float()).ids)
        assert quantizer(z).zq.dtype == torch.float32
        assert quantizer(z.bfloat16()).zq.dtype == torch.bfloat16
    assert torch.equal(quantizer(z.bfloat16()).ids, quantizer(z.bfloat16().float()).ids)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["vq", "euclidean", "product", "lfq", "simvq"]), st.integers(0, 1000))
def test_an_entry_is_its_own_nearest(name, seed):
    quantizer = made(name, seed)
    ids = torch.stack([torch.randint(0, size, (1, 20)) for size in quantizer.sizes], -1)
    entries = [quantizer.codebook(h)[ids[..., h]] for h in range(len(quantizer.sizes))]
    assert torch.equal(quantizer.frozen().assign(torch.cat(entries, -1)), ids)


@pytest.mark.parametrize("name", ["rvq", "fsq"])
def test_onnx_gives_the_same_ids(name, tmp_path):
    import onnxruntime

    quantizer, z = made(name), vectors(rows=2, tokens=500)
    path = tmp_path / "frozen.onnx"
    dims = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    program = torch.onnx.export(quantizer.frozen(), (z[:, :7],), dynamo=True, dynamic_shapes=(dims,), verbose=False)
    program.save(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    zq, ids = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    out = quantizer(z)
    assert np.array_equal(ids, out.ids.numpy())
    np.testing.assert_allclose(zq, out.zq.detach().numpy(), atol=1e-5)
