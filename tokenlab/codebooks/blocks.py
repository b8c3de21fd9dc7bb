"""Parts that the tokenizers of this family are built from: a convolutional trunk, and two transformer blocks.

B: batch, N and M: tokens, d: width, H, W: height and width of a picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenlab.codebooks.quantizers import QuantOut, TokenBatch


class VisualTokenizer(nn.Module, ABC):
    """What has tokens for pictures (or clips, volumes, graphs)."""

    @abstractmethod
    def encode(self, x: Tensor) -> tuple[TokenBatch, QuantOut]:
        """Tokens of x, and what the quantiser gave."""

    @abstractmethod
    def decode(self, tokens: Tensor | TokenBatch, keep: int | Tensor | None = None) -> Tensor:
        """x again, from quantised vectors or from tokens. keep: how many leading tokens, levels or scales (whatever
        the tokenizer orders) count, for all or for each of the batch (B,); None: all of them."""

    @abstractmethod
    def bits(self, tokens: TokenBatch) -> Tensor:
        """(B,) bits that the tokens of each element take when every code costs log2 K."""


# --- convolutions


class ResidualConv(nn.Module):
    """x + conv(act(conv(act(x)))), 3 wide, with GroupNorm before each activation when `norm`.

    Without normalisation the second convolution starts at zero, so that deep stacks start as the identity, and a
    change of one place never reaches further than the kernels do."""

    def __init__(self, channels: int, norm: bool = True, dims: int = 2):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
        self.norm1, self.norm2 = (nn.GroupNorm(8, channels) if norm else nn.Identity() for _ in range(2))
        self.conv1, self.conv2 = (conv(channels, channels, 3, padding=1) for _ in range(2))
        if not norm:
            nn.init.zeros_(self.conv2.weight)
            nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class ConvEncoder(nn.Sequential):
    """(B, in_ch, H, W) -> (B, z, H / f, W / f) with f = 2 ** len(mults); volumes with dims=3.

    For each of mults: a convolution 4 wide with stride 2 to base * mult channels, then `blocks` residual ones, or
    blocks[i] of them after the i-th."""

    def __init__(
        self,
        in_ch: int,
        base: int = 32,
        mults: tuple[int, ...] = (1, 2, 4),
        z: int = 64,
        blocks: int | tuple[int, ...] = 1,
        norm: bool = True,
        dims: int = 2,
    ):
        conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
        parts, channels = [], in_ch
        for mult, count in zip(mults, counts(blocks, mults), strict=True):
            parts.append(conv(channels, base * mult, 4, stride=2, padding=1))
            channels = base * mult
            parts += [ResidualConv(channels, norm, dims) for _ in range(count)]
        super().__init__(*parts, nn.SiLU(), conv(channels, z, 1))


class ConvDecoder(nn.Sequential):
    """(B, z, h, w) -> (B, out_ch, f h, f w): the encoder's mirror, with transposed convolutions 4 wide."""

    def __init__(
        self,
        out_ch: int,
        base: int = 32,
        mults: tuple[int, ...] = (1, 2, 4),
        z: int = 64,
        blocks: int | tuple[int, ...] = 1,
        norm: bool = True,
        dims: int = 2,
    ):
        conv = (nn.Conv2d, nn.Conv3d)[dims - 2]
        transposed = (nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 2]
        widths = [out_ch, *(base * mult for mult in mults)]
        parts = [conv(z, widths[-1], 3, padding=1)]
        for i, count in reversed(list(enumerate(counts(blocks, mults)))):
            parts += [ResidualConv(widths[i + 1], norm, dims) for _ in range(count)]
            parts += [nn.SiLU(), transposed(widths[i + 1], widths[i], 4, stride=2, padding=1)]
        super().__init__(*parts)


def counts(blocks: int | tuple[int, ...], mults: tuple[int, ...]) -> tuple[int, ...]:
    return (blocks,) * len(mults) if isinstance(blocks, int) else blocks


# --- transformers


class Attention(nn.Module):
    """Multi-head self-attention over (B, N, d); mask (N, N) bool, True where a row may see a column."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        if d % heads:
            raise ValueError(f"{heads} heads do not divide a width of {d}")
        self.heads = heads
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


def feed_forward(d: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))


class Block(nn.Module):
    """A transformer block, normalised before attention and before the feed-forward layer."""

    def __init__(self, d: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention, self.mlp = Attention(d, heads), feed_forward(d)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class AdaLNBlock(nn.Module):
    """A transformer block steered by a condition (adaLN-Zero, Peebles and Xie 2023): shift, scale and gate of both
    halves are linear in it, and start at zero, so that the block starts as the identity.

    x: (B, N, d); condition: (B, N, c), one for each position, or (B, 1, c), one for all."""

    def __init__(self, d: int, heads: int, condition: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(d, elementwise_affine=False) for _ in range(2))
        self.attention, self.mlp = Attention(d, heads), feed_forward(d)
        self.modulation = nn.Linear(condition or d, 6 * d)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, x: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(condition)).chunk(6, -1)
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1, mask)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class JointResampler(nn.Module):
    """Self-attention over [context; queries], whose last M outputs are kept: context (B, N, d), queries (B, M, d)
    -> (B, M, d). Positions are the caller's to add.

    mask "full": all see all (VAT, LARP). "causal_queries": a query sees the context and earlier queries; through the
    context, which sees everything, a later query still reaches an earlier one from the second layer on.
    "no_feedback": the context does not see queries either, so each output depends on earlier queries only (FlexTok).
    """

    def __init__(self, d: int, depth: int, heads: int, mask: str = "full"):
        super().__init__()
        if mask not in ("full", "causal_queries", "no_feedback"):
            raise ValueError(f"there is no mask {mask!r}")
        self.mask = mask
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(d)

    def forward(self, context: Tensor, queries: Tensor) -> Tensor:
        n, m = context.shape[1], queries.shape[1]
        mask = resampler_mask(n, m, self.mask, context.device)
        x = torch.cat((context, queries), 1)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x[:, n:])


def resampler_mask(n: int, m: int, kind: str, device: torch.device | None = None) -> Tensor | None:
    """(n + m, n + m) bool: which row may see which column; None: all."""
    if kind == "full":
        return None
    mask = torch.ones(n + m, n + m, dtype=torch.bool, device=device)
    mask[n:, n:] = mask[n:, n:].tril()
    if kind == "no_feedback":
        mask[:n, n:] = False
    return mask
