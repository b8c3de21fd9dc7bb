"""Shapes, who sees whom, and identities at the start; flow matching against its closed form."""

from __future__ import annotations

import pytest
import torch

from tokenlab.codebooks.blocks import AdaLNBlock, Block, ConvDecoder, ConvEncoder, JointResampler, ResidualConv
from tokenlab.codebooks.flow import euler, flow_loss, mix


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("dims, side", [(2, (16, 24)), (3, (8, 16, 8))])
@pytest.mark.parametrize("norm", [True, False])
def test_trunk_shrinks_and_grows_by_two_per_level(dims, side, norm):
    shape = dict(base=8, mults=(1, 2, 2), z=5, blocks=(0, 1, 2), norm=norm, dims=dims)
    x = torch.randn(2, 3, *side)
    z = ConvEncoder(3, **shape)(x)
    assert z.shape == (2, 5, *(s // 8 for s in side))
    assert ConvDecoder(3, **shape)(z).shape == x.shape


def test_without_normalisation_blocks_start_as_identity_and_stay_local():
    x = torch.randn(1, 8, 9, 9)
    block = ResidualConv(8, norm=False)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.conv2.weight)
    other = x.clone()
    other[..., 4, 4] += 1
    changed = (block(x) != block(other)).any(1)[0]
    assert changed[2:7, 2:7].any() and not changed[:2].any() and not changed[:, 7:].any()


def test_the_same_blocks_everywhere_or_by_level():
    count = lambda blocks: sum(isinstance(m, ResidualConv) for m in ConvEncoder(3, 8, (1, 2), blocks=blocks).modules())  # noqa: E731
    assert count(2) == 4 and count((0, 3)) == 3


def influence(module, context, queries, i):
    """Which outputs change with query i, and which with the context."""
    with torch.no_grad():
        before, moved = module(context, queries), queries.clone()
        moved[:, i] = torch.randn(moved.shape[-1])  # a constant would not pass the normalisation
        return (module(context, moved) != before).any(-1)[0].tolist()


@pytest.mark.parametrize("mask", ["full", "causal_queries", "no_feedback"])
def test_resampler_outputs_see_what_the_mask_says(mask):
    module = JointResampler(16, depth=2, heads=2, mask=mask)
    context, queries = torch.randn(1, 5, 16), torch.randn(1, 3, 16)
    assert module(context, queries).shape == (1, 3, 16)
    # With two layers a later query reaches the first output through the context, unless that cannot see queries.
    assert influence(module, context, queries, 1) == [mask != "no_feedback", True, True]
    shallow = JointResampler(16, depth=1, heads=2, mask=mask)
    assert influence(shallow, context, queries, 1) == [mask == "full", True, True]
    assert not torch.equal(module(context.flip(-1), queries), module(context, queries))


def test_resampler_with_an_unknown_mask_is_refused():
    with pytest.raises(ValueError, match="no mask"):
        JointResampler(16, 1, 2, mask="causal")
    with pytest.raises(ValueError, match="do not divide"):
        Block(16, 3)


def test_adaln_starts_as_identity_and_takes_a_condition_per_position_or_for_all():
    block, x = AdaLNBlock(16, 2, condition=4), torch.randn(2, 6, 16)
    condition = torch.randn(2, 1, 4)
    assert torch.equal(block(x, condition), x)
    torch.nn.init.normal_(block.modulation.weight)
    torch.testing.assert_close(block(x, condition), block(x, condition.expand(2, 6, 4)))
    assert not torch.equal(block(x, condition), x)


# --- flow matching


def test_flow_ends_are_picture_and_noise():
    x, eps = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    torch.testing.assert_close(mix(x, eps, torch.zeros(3)), x)
    torch.testing.assert_close(mix(x, eps, torch.ones(3)), eps)
    torch.testing.assert_close(mix(x, eps, torch.tensor([0, 1, 0.25]))[2], 0.75 * x[2] + 0.25 * eps[2])


def test_flow_loss_is_zero_for_the_true_velocity():
    x, eps = torch.randn(4, 3), torch.randn(4, 3)
    assert flow_loss(lambda xt, t, cond: eps - x, x, eps=eps) == 0
    assert flow_loss(lambda xt, t, cond: eps - x + 2, x, eps=eps).item() == pytest.approx(4)


def test_euler_reaches_a_single_picture_in_any_number_of_steps():
    target = torch.tensor([[3.0, -1.0]])
    exact = lambda xt, t, cond: (xt - target) / t[:, None]  # noqa: E731, the velocity when all pictures are `target`
    for steps in (1, 2, 7):
        torch.testing.assert_close(euler(exact, (5, 2), steps=steps), target.expand(5, 2), atol=1e-5, rtol=0)
    one, two = (euler(exact, (1, 2), generator=torch.Generator().manual_seed(1), steps=1) for _ in range(2))
    assert torch.equal(one, two)


def test_guidance_goes_beyond_the_condition():
    net = lambda xt, t, cond: torch.full_like(xt, 0.0 if cond is None else 1.0)  # noqa: E731
    noise = torch.zeros(1, 1)
    assert [round(euler(net, (1, 1), "c", 4, cfg, noise=noise).item(), 5) for cfg in (0.0, 1.0, 3.0)] == [0, -1, -3]
