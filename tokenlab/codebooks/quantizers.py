"""Quantisers behind one interface: vectors in, the nearest entries of a codebook and their ids out.

    quantizer = make_quantizer("vq", dim=256, sizes=(1024,), code_dim=8)
    out = quantizer(z)                              # z (B, N, 256) -> out.zq (B, N, 256), out.ids (B, N, 1)
    (reconstruction_loss + out.loss).backward()

| kind | sizes | what |
| --- | --- | --- |
| vq | (K,) | one codebook, moved by exponential averages (van den Oord et al. 2017; cosine as in Yu et al. 2022) |
| product | (K1, K2, ...) | the vector cut into parts, a codebook for each part |
| rvq | (K1, K2, ...) | each codebook quantises what the ones before left over (Zeghidour et al. 2021) |
| fsq | (L1, L2, ...) | every dimension rounded to so many levels: one book of L1 * L2 * ... (Mentzer et al. 2023) |
| lfq | (K,) | the signs of log2 K dimensions (Yu et al. 2023) |
| simvq | (K,) | a fixed random codebook behind a learned linear map (Zhu et al. 2024) |

The search, the averages and the losses are vector-quantize-pytorch's. What is chosen here, where its defaults differ
from the papers or surprise:

- decay 0.99 and commitment 0.25 (the library: 0.8 and 1.0); gradients go straight through, `rotation=True` turns the
  rotation trick on (the library: on).
- A code whose average count per step falls below `dead_below` is put on a vector of the batch, and counts as used
  once per step for the moment: unused, it has about ln(1 / dead_below) / (1 - decay) steps before it moves again.
  The library never resets, and once told to, again at every step. dead_below=0 turns it off.
- `kmeans=True` starts a codebook at the clusters of the first batch, which must hold at least 10 vectors per code.
- Straight through a residual quantiser, the library passes the gradient once per level; here it is passed once.
- Masked tokens never reach the library, whose masked commitment compares with vectors that are not yet normalised.
- ids are int64 for every kind (the library's FSQ and LFQ: int32). Searching is float32 also under autocast, in which
  the library would compare distances in bfloat16 on a CPU.
- The loss is 0 in evaluation mode.

B: batch, N: tokens, D: `dim`, H: codebooks, K: entries of one, d: `code_dim`, the width of an entry.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantOut:
    """zq: (B, N, D), zero where the mask is False; ids: (B, N, H) int64, -1 there and in levels that were dropped;
    loss: scalar, to be added to the task's. aux: "z" and "codes" (n, d_all), the vectors before and after, of the n
    tokens that the mask keeps, books side by side. mask: (B, N) bool or None."""

    zq: Tensor
    ids: Tensor
    loss: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of a batch of pictures, clips, meshes: ids (B, N, H) int64.

    layout "grid": N = prod(shape), row by row; "sequence": N tokens in order, lengths (B,) of them valid; "scales":
    coarse first, scales[s] tokens each, N = sum(scales)."""

    ids: Tensor
    layout: str
    shape: tuple[int, ...]
    lengths: Tensor | None = None
    scales: tuple[int, ...] | None = None


class Quantizer(nn.Module):
    """What every kind has in common: projections around it, masks, look-up. A kind gives `_quantize` and `codebook`.

    cosine: entries are compared by cosine (and have length 1), else by Euclidean distance. residual: the codebooks
    add up, else their entries stand side by side."""

    cosine = False
    residual = False

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.down = nn.Linear(dim, width) if width != dim else nn.Identity()
        self.up = nn.Linear(width, dim) if width != dim else nn.Identity()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each codebook."""
        raise NotImplementedError

    @property
    def bits_per_token(self) -> float:
        """log2 of all combinations of codes."""
        return sum(math.log2(size) for size in self.sizes)

    def codebook(self, h: int = 0) -> Tensor:
        """Entries (K_h, d) of codebook h, before `up`."""
        raise NotImplementedError

    def forward(self, z: Tensor, mask: Tensor | None = None) -> QuantOut:
        """Quantise z (B, N, D); mask (B, N) bool: which tokens there are. ValueError: it keeps none."""
        if mask is not None and not mask.any():
            raise ValueError("the mask keeps no token")
        with torch.autocast(z.device.type, enabled=False):
            x = self.down(z.float())
            codes, ids, loss, before = self._quantize(x if mask is None else x[mask][None])
            aux = {"z": before.flatten(0, 1), "codes": codes.flatten(0, 1)}
            zq = self.up(codes)
        if mask is not None:
            zq = zq.new_zeros(z.shape).masked_scatter(mask[..., None], zq)
            ids = ids.new_full((*mask.shape, ids.shape[-1]), -1).masked_scatter(mask[..., None], ids)
        return QuantOut(zq.to(z.dtype), ids, loss, aux, mask)

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (B, n, d_all) -> codes with gradients (B, n, d_all), ids (B, n, H), loss, what was compared with codes."""
        raise NotImplementedError

    def lookup(self, ids: Tensor) -> Tensor:
        """zq (B, N, D) of ids (B, N, H): -1 in some of the codebooks leaves those out, in all of them gives zero."""
        codes = gather([self.codebook(h) for h in range(len(self.sizes))], ids, self.residual)
        return self.up(codes) * (ids >= 0).any(-1, keepdim=True)

    def logits(self, z: Tensor, tau: float = 1.0) -> Tensor:
        """(B, N, H, K): cosine or negative squared distance of z (B, N, D) to every entry, over tau.

        The largest one is the id; books smaller than the largest are filled up with -inf. A residual quantiser's
        later levels see what the nearest entries of the earlier ones left over."""
        rest = self.compared(z)
        books = [self.codebook(h) for h in range(len(self.sizes))]
        out = z.new_full((*z.shape[:-1], len(books), max(self.sizes)), -torch.inf, dtype=torch.float32)
        parts = [rest] * len(books) if self.residual else rest.split([book.shape[1] for book in books], -1)
        for h, (part, book) in enumerate(zip(parts, books, strict=True)):
            part = rest if self.residual else part
            scores = closeness(part, book, self.cosine)
            out[..., h, : len(book)] = scores / tau
            if self.residual:
                rest = rest - book[scores.argmax(-1)]
        return out

    def soft_lookup(self, probs: Tensor) -> Tensor:
        """(B, N, D): mixtures of entries, weighted by probs (B, N, H, K)."""
        parts = [probs[..., h, :size] @ self.codebook(h) for h, size in enumerate(self.sizes)]
        return self.up(sum(parts) if self.residual else torch.cat(parts, -1))

    def compared(self, z: Tensor) -> Tensor:
        """(..., d_all): z (..., D) as it is compared with the entries of all books (a residual one: of the first)."""
        return self._compared(self.down(z.float()))

    def _compared(self, x: Tensor) -> Tensor:
        return x

    def frozen(self) -> Frozen:
        """A copy for inference and ONNX: arg max and gather, no state that changes."""
        books = [self.codebook(h).detach().clone() for h in range(len(self.sizes))]
        return Frozen(deepcopy(self.down), deepcopy(self.up), books, self.residual, self.cosine).eval()


class VQ(Quantizer):
    """One codebook, or several side by side (product quantisation), each a VectorQuantize of the library."""

    def __init__(
        self,
        dim: int,
        sizes: tuple[int, ...],
        code_dim: int | None = None,
        cosine: bool = True,
        decay: float = 0.99,
        commitment: float = 0.25,
        dead_below: float = 0.03,
        kmeans: bool = False,
        rotation: bool = False,
    ):
        from vector_quantize_pytorch import VectorQuantize

        code_dim = code_dim or dim // len(sizes)
        super().__init__(dim, code_dim * len(sizes))
        self.cosine = cosine
        self.books = nn.ModuleList(
            VectorQuantize(
                dim=code_dim,
                codebook_size=size,
                use_cosine_sim=cosine,
                decay=decay,
                commitment_weight=commitment,
                threshold_ema_dead_code=dead_below,
                kmeans_init=kmeans,
                rotation_trick=rotation,
            )
            for size in sizes
        )
        for book in self.books:
            book._codebook.reset_cluster_size = 1.0

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(book.codebook_size for book in self.books)

    def codebook(self, h: int = 0) -> Tensor:
        return self.books[h].codebook

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_start(x, self.books)
        outs = [book(part) for book, part in zip(self.books, x.chunk(len(self.books), -1), strict=True)]
        codes, ids, losses = zip(*outs, strict=True)
        loss = torch.stack([loss.reshape(()) for loss in losses]).mean()
        return torch.cat(codes, -1), torch.stack(ids, -1), loss, self._compared(x)

    def _compared(self, x: Tensor) -> Tensor:
        if not self.cosine:
            return x
        return torch.cat([F.normalize(part, dim=-1) for part in x.chunk(len(self.books), -1)], -1)


class RVQ(Quantizer):
    """A ResidualVQ of the library. drop: while training, leave out all levels behind a random one, so that
    fewer levels decode as well."""

    residual = True

    def __init__(
        self,
        dim: int,
        sizes: tuple[int, ...],
        code_dim: int | None = None,
        decay: float = 0.99,
        commitment: float = 0.25,
        dead_below: float = 0.03,
        kmeans: bool = False,
        drop: bool = True,
    ):
        from vector_quantize_pytorch import ResidualVQ

        super().__init__(dim, code_dim or dim)
        self.levels = ResidualVQ(
            dim=code_dim or dim,
            codebook_size=tuple(sizes),
            quantize_dropout=drop,
            decay=decay,
            commitment_weight=commitment,
            threshold_ema_dead_code=dead_below,
            kmeans_init=kmeans,
            rotation_trick=False,
        )
        for level in self.levels.layers:
            level._codebook.reset_cluster_size = 1.0

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.levels.codebook_sizes)

    def codebook(self, h: int = 0) -> Tensor:
        return self.levels.layers[h].codebook

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        check_start(x, self.levels.layers)
        codes, ids, losses = self.levels(x)
        return x + (codes - x).detach(), ids, losses.sum(), x


class FSQ(Quantizer):
    """FSQ of the library; its codebook is the grid of all levels, scaled to [-1, 1]."""

    def __init__(self, dim: int, sizes: tuple[int, ...]):
        from vector_quantize_pytorch import FSQ as Library

        super().__init__(dim, len(sizes))
        self.grid = Library(list(sizes), preserve_symmetry=min(sizes) == 2)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.grid.codebook_size,)

    def codebook(self, h: int = 0) -> Tensor:
        return self.grid.implicit_codebook

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes, ids = self.grid(x)
        return codes, ids.long()[..., None], x.new_zeros(()), self._compared(x)

    def _compared(self, x: Tensor) -> Tensor:
        # What the library rounds, before it does: with even numbers of levels the grid is not symmetric around 0.
        levels = self.grid._levels
        if self.grid.preserve_symmetry:
            return torch.tanh(x)
        half = (levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(levels % 2 == 0, 0.5, 0.0)
        return (torch.tanh(x + torch.atanh(offset / half)) * half - offset) / (levels // 2)

    def frozen(self) -> Frozen:
        return FrozenGrid(deepcopy(self.down), deepcopy(self.up), [self.codebook().clone()], deepcopy(self.grid)).eval()


class LFQ(Quantizer):
    """LFQ of the library with its entropy loss: weight 0.1, and as much for even use as for sure choices."""

    def __init__(self, dim: int, sizes: tuple[int, ...], entropy: float = 0.1, commitment: float = 0.25):
        from vector_quantize_pytorch import LFQ as Library

        (size,) = sizes
        super().__init__(dim, int(math.log2(size)))
        self.signs = Library(codebook_size=size, entropy_loss_weight=entropy, commitment_loss_weight=commitment)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.signs.codebook_size,)

    def codebook(self, h: int = 0) -> Tensor:
        return self.signs.codebook

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes, ids, loss = self.signs(x)
        return codes, ids.long()[..., None], loss, x


class SimVQ(Quantizer):
    """SimVQ of the library: gradients move all codes at once through the linear map, so none dies."""

    def __init__(self, dim: int, sizes: tuple[int, ...], code_dim: int | None = None, commitment: float = 0.25):
        from vector_quantize_pytorch import SimVQ as Library

        (size,) = sizes
        super().__init__(dim, code_dim or dim)
        self.book = Library(
            dim=code_dim or dim,
            codebook_size=size,
            rotation_trick=False,
            input_to_quantize_commit_loss_weight=commitment,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.book.codebook_size,)

    def codebook(self, h: int = 0) -> Tensor:
        return self.book.codebook

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes, ids, loss = self.book(x)
        return codes, ids[..., None], loss if self.training else loss.detach() * 0, x


class Frozen(nn.Module):
    """A quantiser that only looks up: z (B, N, D) -> zq (B, N, D), ids (B, N, H) int64. `lookup` goes back."""

    def __init__(self, down: nn.Module, up: nn.Module, books: list[Tensor], residual: bool, cosine: bool):
        super().__init__()
        self.down, self.up, self.residual, self.cosine = down, up, residual, cosine
        self.widths = [book.shape[1] for book in books]
        for h, book in enumerate(books):
            self.register_buffer(f"book{h}", book)

    @property
    def books(self) -> list[Tensor]:
        return [getattr(self, f"book{h}") for h in range(len(self.widths))]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        ids = self.assign(self.down(z))
        return self.lookup(ids), ids

    def assign(self, x: Tensor) -> Tensor:
        """ids (B, N, H) of vectors behind `down`."""
        ids = []
        for part, book in zip(self._parts(x), self.books, strict=True):
            part = x if self.residual else part
            ids.append(closeness(part, book, self.cosine).argmax(-1))
            if self.residual:
                x = x - F.embedding(ids[-1], book)
        return torch.stack(ids, -1)

    def _parts(self, x: Tensor) -> list[Tensor]:
        return [x] * len(self.widths) if self.residual else list(x.split(self.widths, -1))

    def lookup(self, ids: Tensor) -> Tensor:
        """As Quantizer.lookup."""
        return self.up(gather(self.books, ids, self.residual)) * (ids >= 0).any(-1, keepdim=True)


class FrozenGrid(Frozen):
    """A frozen FSQ: it rounds instead of searching."""

    def __init__(self, down: nn.Module, up: nn.Module, books: list[Tensor], grid: nn.Module):
        super().__init__(down, up, books, residual=False, cosine=False)
        self.grid = grid

    def assign(self, x: Tensor) -> Tensor:
        return self.grid.codes_to_indices(self.grid.quantize(x)).long()[..., None]


def closeness(x: Tensor, book: Tensor, cosine: bool) -> Tensor:
    """(..., K): cosine, or negative squared distance, of x (..., d) to each row of book (K, d)."""
    if cosine:
        return F.normalize(x, dim=-1) @ book.T
    return 2 * x @ book.T - (book**2).sum(-1) - (x**2).sum(-1, keepdim=True)


def gather(books: list[Tensor], ids: Tensor, residual: bool) -> Tensor:
    """Entries (..., d_all) of ids (..., H), added up or side by side; zero for an id of -1."""
    parts = [F.embedding(ids[..., h].clamp(min=0), book) * (ids[..., h, None] >= 0) for h, book in enumerate(books)]
    return sum(parts) if residual else torch.cat(parts, -1)


def check_start(x: Tensor, books: nn.ModuleList) -> None:
    """ValueError: k-means is still to come, and x (B, n, d) has fewer than 10 vectors per code."""
    for book in books:
        if not book._codebook.initted and x.shape[:-1].numel() < 10 * book.codebook_size:
            raise ValueError(
                f"k-means of {book.codebook_size:,} codes needs a first batch of at least "
                f"{10 * book.codebook_size:,} vectors, not {x.shape[:-1].numel():,}"
            )


def make_quantizer(kind: str, dim: int, sizes: tuple[int, ...], **settings) -> Quantizer:
    """A quantiser of vectors (B, N, dim); kind, sizes: the table above, settings: of its class.

    ValueError: no such kind, or more codebooks than it has."""
    makers = {"vq": VQ, "product": VQ, "rvq": RVQ, "fsq": FSQ, "lfq": LFQ, "simvq": SimVQ}
    if kind not in makers:
        raise ValueError(f"there is no quantiser {kind!r}; there are {', '.join(makers)}")
    if kind in ("vq", "lfq", "simvq") and len(sizes) != 1:
        raise ValueError(f"{kind} has one codebook, not {len(sizes)}")
    return makers[kind](dim, tuple(sizes), **settings)
