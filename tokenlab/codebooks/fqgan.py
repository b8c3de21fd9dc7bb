r"""**One large dictionary of picture patches is hard to fill; two small ones make as many words.** A picture tokenizer
replaces the vector of each patch by the nearest entry of a codebook. With thousands of entries, training can leave most
of them unused, and every token must be compared with all of them. FQGAN splits the vector into *branches*, each with a
small book of its own, and pushes the branches to say different things: two books of $K$ codes make $K^2$ combinations
for $2K$ comparisons.

**Tokenizer.** A convolutional trunk reads the picture; for each branch $b$ an *adapter* makes a vector for every
8 x 8 pixels. Vectors and codes have length 1, and the nearest code is taken:
$$k_b = \operatorname*{arg\,min}_k \lVert z_b - e_{b,k} \rVert^2,
\qquad \lVert z_b \rVert = \lVert e_{b,k} \rVert = 1.$$
The decoder sees the codes of all branches side by side. Codes are learned by gradients (straight through), with
codebook and commitment errors (0.25), and an entropy term (0.03) that wants each token to be sure of its code and all
codes to be used: with $p = \operatorname{softmax}(-\lVert z - e \rVert^2 / 0.01)$, the mean entropy of $p$ minus the
entropy of the mean of $p$.

**Disentangling.** The loss adds, for the two codes that a token gets (mean over tokens and pairs of branches),
$$\lambda \, \big( e_{1,k_1}^\top e_{2,k_2} \big)^2 , \qquad \lambda = 0.1.$$
It acts on code *vectors*; here its gradient reaches codes and encoder alike (in the released code, which applies it
after the straight-through step, the encoder only). Orthogonal vectors do not make independent *ids*: a decoder does
not care how a branch is rotated. So the mutual information of the ids stands beside the squared cosine everywhere, with
the level of shuffled ids taken off, because few tokens make any two ids look related.

**Semantic branch.** In the paper, the codes of one branch also predict the picture's CLIP feature, through a small
transformer and InfoNCE without temperature. The mechanism is here (`SemanticHead`, `info_nce`, `train(..., teacher)`),
but no tokenizer that ships was trained with it: it needs a teacher that knows photographs.

**Writing pictures.** FAR, an autoregressive transformer over tokens, predicts the codes of one token one after the
other: from its state $h_t$ the first code, from $h_t$ and the first code's embedding the second, by a small causal
*head*. Each branch has its own temperature. Here it writes crops as of one of the training photographs.

**Dead codes.** The paper does not reset codes that are never chosen. Most VQ training does: an unused code is put on a
vector of the batch. Both are measured, and what happens without the entropy term, which the authors' training script
has.

**What is measured.** Tokenizers with the same trunk, data and steps, on crops of photographs that none was trained on.
Fixed before the run: the claim holds if at 12 bits per token and without resetting, the books of 2 x 64 codes are used
at least 3 times as fully as the book of 1 x 4,096 (the lesser of the two books counts) and PSNR is at least 0.3 dB
better, mean of three trainings each. Beside it, as details: the same with dead codes reset (expected within 0.3 dB),
and without the entropy term; 2 x 256 against 1 x 512 codes at the same number of comparisons; whether disentangling
cuts the squared cosine at least 5 times for at most 0.2 dB; what ids still share; random codes, and the autoencoder
without codes. Not like the paper: 8 x 8 instead of 16 x 16 pixels per token, a few hundred tokens per step where the
paper has 65,536 (so the large book sees less than one token per code and step), no perceptual and no adversarial
loss, PSNR instead of FID.

Source: Z. Bai, J. Gao, Z. Gao, P. Wang, Z. Zhang, T. He and M. Z. Shou, *Factorized Visual Tokenization and
Generation* (2024), section 3, and the training scripts in its repository.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenlab import guard, pictures, views
from tokenlab.codebooks import blocks, quantizers
from tokenlab.codebooks.blocks import Block, ConvDecoder, ConvEncoder, VisualTokenizer
from tokenlab.codebooks.quantizers import Quantizer, QuantOut, TokenBatch
from tokenlab.codebooks.stats import CodebookStats, plane
from tokenlab.controls import Choice, Picture, Seed, Slider
from tokenlab.errors import UserError
from tokenlab.measurement import Measurement
from tokenlab.views import Bars, CodeLevel, Codes, HeatMap, Note, Pictures, Table

# --- the mechanism -----------------------------------------------------------------------------------

TEMPERATURE = 0.01  # of the assignment in the entropy term


def entropy_term(distances: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Scalar: mean entropy of each token's soft assignment minus the entropy of their mean.

    distances: (n, K) squared distances; the assignment is softmax(-distances / temperature). Between -ln K, where each
    token is sure and all codes are used alike, and ln K."""
    # Not below -60, which changes nothing but spares the processor numbers too small for its fast path.
    logs = F.log_softmax(-distances / temperature, -1).clamp(min=-60)
    shares = logs.exp()
    mean = shares.mean(0)
    return (mean * (mean + 1e-9).log()).sum() - (shares * logs).sum(-1).mean()


def squared_cosines(codes: Sequence[Tensor]) -> Tensor:
    """Scalar: the squared cosine between the code vectors that two books chose for the same token, mean over tokens and
    pairs of books; 0 with a single book.

    codes: H tensors (..., d) of length-1 vectors; the paper's disentanglement loss (section 3)."""
    pairs = [(a * b).sum(-1).square().mean() for a, b in combinations(codes, 2)]
    return torch.stack(pairs).mean() if pairs else codes[0].new_zeros(())


class FactorizedQuantizer(Quantizer):
    """H independent codebooks of learned unit vectors, side by side.

    sizes: (K_1, ..., K_H); dim: D = H * d, the width of all parts together. The vectors of each part get length 1 and
    the nearest code of their book; gradients go straight through. Loss: squared error of codes and, `commitment` times,
    of vectors, `entropy` times the entropy term, all three summed over books, and `disentangle` times the squared
    cosines, whose gradient reaches codes and vectors alike. `reset` moves dead codes; the paper has no such step."""

    cosine = True

    def __init__(
        self,
        dim: int,
        sizes: tuple[int, ...],
        disentangle: float = 0.1,
        commitment: float = 0.25,
        entropy: float = 0.03,
    ):
        super().__init__(dim, dim)
        self.disentangle, self.commitment, self.entropy = disentangle, commitment, entropy
        width = dim // len(sizes)
        self.books = nn.ParameterList(nn.Parameter(F.normalize(torch.randn(size, width), dim=-1)) for size in sizes)
        for h, size in enumerate(sizes):
            self.register_buffer(f"seen{h}", torch.zeros(size, dtype=torch.bool), persistent=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(len(book) for book in self.books)

    def codebook(self, h: int = 0) -> Tensor:
        return F.normalize(self.books[h], dim=-1)

    def _compared(self, x: Tensor) -> Tensor:
        return torch.cat([F.normalize(part, dim=-1) for part in x.chunk(len(self.books), -1)], -1)

    def _quantize(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        unit = self._compared(x)
        vectors = unit.chunk(len(self.books), -1)
        loss, chosen, ids = x.new_zeros(()), [], []
        for h, vector in enumerate(vectors):
            book = self.codebook(h)
            distances = 2 - 2 * vector @ book.T  # of unit vectors
            ids.append(distances.argmin(-1))
            chosen.append(F.embedding(ids[-1], book))
            if self.training:
                getattr(self, f"seen{h}")[ids[-1].flatten()] = True
                loss = loss + (chosen[h] - vector.detach()).square().mean()
                loss = loss + self.commitment * (chosen[h].detach() - vector).square().mean()
                if self.entropy:
                    loss = loss + self.entropy * entropy_term(distances.flatten(0, -2))
        if self.training and self.disentangle:
            both = [code + vector - vector.detach() for code, vector in zip(chosen, vectors, strict=True)]
            loss = loss + self.disentangle * squared_cosines(both)
        through = unit + (torch.cat(chosen, -1) - unit).detach()
        return through, torch.stack(ids, -1), loss, unit

    @torch.no_grad()
    def reset(self, vectors: Tensor, generator: torch.Generator) -> int:
        """Put each code that no token chose since the last call on one of `vectors` (n, D); gives how many moved."""
        moved = 0
        for h, part in enumerate(self._compared(vectors).chunk(len(self.books), -1)):
            seen = getattr(self, f"seen{h}")
            dead = (~seen).nonzero().flatten()
            self.books[h][dead] = part[torch.randint(len(part), dead.shape, generator=generator)]
            moved += len(dead)
            seen.zero_()
        return moved


class Unquantized(nn.Module):
    """Stands where a quantiser would and lets vectors pass: the yardstick that loses nothing to codes."""

    sizes: tuple[int, ...] = ()

    def forward(self, z: Tensor) -> QuantOut:
        return QuantOut(z, z.new_zeros((*z.shape[:2], 0), dtype=torch.int64), z.new_zeros(()))


@dataclass(frozen=True)
class Plan:
    """A tokenizer and its training; with the seed and the photographs, everything that it depends on.

    sizes: entries of each codebook, () for none; disentangle, entropy: weights of the squared cosines and of the
    entropy term; reset: move dead codes; dim: d, numbers of a code; base: channels of the first convolution."""

    sizes: tuple[int, ...]
    disentangle: float = 0.1
    entropy: float = 0.03
    reset: bool = False
    dim: int = 8
    base: int = 16
    steps: int = 1500
    batch: int = 16
    rate: float = 4e-3
    seed: int = 0

    @property
    def bits(self) -> float:
        """Per token."""
        return sum(map(math.log2, self.sizes))

    @property
    def lookups(self) -> int:
        """Distances computed per token."""
        return sum(self.sizes)


class FactorizedTokenizer(VisualTokenizer):
    """Pictures (B, 3, H, W) from 0 to 1 -> tokens (B, N, books) -> pictures. H and W are multiples of 8, a token stands
    for 8 x 8 pixels.

    A convolutional trunk, an adapter for each branch, its codebook; the decoder sees all codes of a token side by side.
    Without codebooks there are two branches of plain numbers."""

    def __init__(self, plan: Plan):
        super().__init__()
        self.plan = plan
        self.branches = len(plan.sizes) or 2
        width = 4 * plan.base
        self.encoder = ConvEncoder(3, plan.base, (1, 2, 4), width, norm=False)
        self.adapters = nn.ModuleList(adapter(width, plan.dim) for _ in range(self.branches))
        dim = self.branches * plan.dim
        self.quantizer = Unquantized()
        if plan.sizes:
            self.quantizer = FactorizedQuantizer(dim, plan.sizes, plan.disentangle, entropy=plan.entropy)
        self.mix = nn.Conv2d(dim, width, 1)
        self.decoder = ConvDecoder(3, plan.base, (1, 2, 4), width, norm=False)

    def vectors(self, x: Tensor) -> Tensor:
        """(B, N, branches * d) before quantisation, row by row."""
        trunk = self.encoder(2 * x - 1)
        return torch.cat([adapt(trunk) for adapt in self.adapters], 1).flatten(2).transpose(1, 2)

    def encode(self, x: Tensor) -> tuple[TokenBatch, QuantOut]:
        out = self.quantizer(self.vectors(x))
        return TokenBatch(out.ids, "grid", (x.shape[2] // 8, x.shape[3] // 8)), out

    def decode(
        self, tokens: Tensor | TokenBatch, keep: int | None = None, shape: tuple[int, int] | None = None
    ) -> Tensor:
        """Pictures (B, 3, 8 rows, 8 columns), not clipped to 0..1, of tokens, or of codes (B, N, branches * d) with
        their grid's shape (rows, columns). keep: how many leading branches of tokens count; the others are zero."""
        if isinstance(tokens, TokenBatch):
            ids, shape = tokens.ids.clone(), tokens.shape
            ids[..., len(self.plan.sizes) if keep is None else keep :] = -1
            tokens = self.quantizer.lookup(ids)
        elif keep is not None:
            raise ValueError("branches can only be left out of tokens, not of vectors")
        return (self.decoder(self.mix(tokens.transpose(1, 2).unflatten(2, shape))) + 1) / 2

    def bits(self, tokens: TokenBatch) -> Tensor:
        return torch.full((len(tokens.ids),), tokens.ids.shape[1] * self.plan.bits)

    def forward(self, x: Tensor) -> tuple[Tensor, QuantOut]:
        """The pictures again, and what the quantiser gave."""
        tokens, out = self.encode(x)
        return self.decode(out.zq, shape=tokens.shape), out


def adapter(width: int, dim: int) -> nn.Sequential:
    """What makes a branch: two convolutions from the trunk's channels to the numbers of a code."""
    return nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, dim, 1))


class SemanticHead(nn.Module):
    """From the codes of one branch, (B, N, d), to a picture's feature (B, width): the paper's representation learning.

    Codes go through a small MLP, [CLS] and positions join, three transformer blocks follow, [CLS] is the output; width
    is the teacher's."""

    def __init__(self, dim: int, width: int, tokens: int, heads: int = 4):
        super().__init__()
        self.widen = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
        self.cls = nn.Parameter(torch.randn(1, 1, width) * width**-0.5)
        self.positions = nn.Parameter(torch.randn(1, tokens + 1, width) * width**-0.5)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(3))
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, codes: Tensor) -> Tensor:
        x = torch.cat((self.cls.expand(len(codes), -1, -1), self.widen(codes)), 1)
        x = self.norm_in(x + self.positions)
        for block in self.blocks:
            x = block(x)
        return self.norm_out(x[:, 0])


def info_nce(found: Tensor, wanted: Tensor) -> Tensor:
    """Scalar: how badly each row of found (B, C) picks its own row of wanted (B, C) out of the batch.

    Softmax over cosines without a temperature, as in the paper: even at its best it stays near ln(B) - 2."""
    cosines = F.normalize(found, dim=-1) @ F.normalize(wanted, dim=-1).T
    return F.cross_entropy(cosines, torch.arange(len(found)))


class FAR(nn.Module):
    """An autoregressive model of tokens that are several codes each, with the paper's factorised head.

    The embeddings of a token's codes, side by side, go through a linear layer; a transformer, causal over positions,
    turns the tokens before position t into h_t; the head, a transformer over the short row [h_t, embedding of code 1,
    embedding of code 2, ...] of position t itself, gives the logits of code 1, code 2, ... one after the other.

    sizes: of the codebooks; classes: what a picture may be told to show, class number `classes` is "any"; chained:
    without it, the head sees h_t alone, and codes of a token are independent given the tokens before."""

    def __init__(
        self,
        sizes: Sequence[int],
        classes: int,
        length: int,
        d: int = 96,
        depth: int = 3,
        head_depth: int = 2,
        heads: int = 4,
        chained: bool = True,
    ):
        super().__init__()
        self.sizes, self.classes, self.length, self.chained = tuple(sizes), classes, length, chained
        self.embed = nn.ModuleList(nn.Embedding(size, d) for size in sizes)
        self.join = nn.Linear(d * len(sizes), d)
        self.start = nn.Embedding(classes + 1, d)
        self.positions = nn.Parameter(torch.randn(length, d) * 0.02)
        self.places = nn.Parameter(torch.randn(len(sizes), d) * 0.02)
        self.body = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.head = nn.ModuleList(Block(d, heads) for _ in range(head_depth))
        self.norm = nn.LayerNorm(d)
        self.out = nn.ModuleList(nn.Linear(d, size) for size in sizes)
        for embed in (*self.embed, self.start):
            nn.init.normal_(embed.weight, std=0.02)

    def contexts(self, ids: Tensor, classes: Tensor) -> Tensor:
        """h (B, n + 1, d) of the tokens ids (B, n, H): row t knows the class (B,) and the tokens before t."""
        codes = torch.cat([embed(ids[..., h]) for h, embed in enumerate(self.embed)], -1)
        x = torch.cat((self.start(classes)[:, None], self.join(codes)), 1)
        x = x + self.positions[: x.shape[1]]
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        for block in self.body:
            x = block(x, mask)
        return x

    def logits(self, context: Tensor, before: Tensor) -> list[Tensor]:
        """Logits (n, K_j) of codes 1 to j + 1 of n tokens, from h (n, d) and their first j codes, before (n, j)."""
        codes = [embed(before[:, h]) for h, embed in enumerate(self.embed) if h < before.shape[1]]
        if not self.chained:
            codes = [torch.zeros_like(code) for code in codes]
        x = torch.stack((context, *codes), 1) + self.places[: 1 + len(codes)]
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        for block in self.head:
            x = block(x, mask)
        x = self.norm(x)
        return [self.out[h](x[:, h]) for h in range(x.shape[1])]

    def nll(self, ids: Tensor, classes: Tensor) -> Tensor:
        """(H, B, N) nats of each code of ids (B, N, H), given the codes before it."""
        contexts = self.contexts(ids[:, :-1], classes)
        flat = ids.flatten(0, 1)
        logits = self.logits(contexts.flatten(0, 1), flat[:, :-1])
        losses = [F.cross_entropy(row, flat[:, h], reduction="none") for h, row in enumerate(logits)]
        return torch.stack(losses).unflatten(1, ids.shape[:2])

    @torch.no_grad()
    def sample(self, classes: Tensor, temperatures: Sequence[float], generator: torch.Generator) -> Tensor:
        """ids (B, length, H), drawn token by token, code by code; classes (B,). Temperature 0: the likeliest code."""
        ids = torch.zeros(len(classes), 0, len(self.sizes), dtype=torch.int64)
        for _ in range(self.length):
            guard.check_time()
            context = self.contexts(ids, classes)[:, -1]
            token = ids.new_zeros(len(classes), 0)
            for temperature in temperatures:
                row = self.logits(context, token)[-1]
                if temperature:
                    chosen = torch.multinomial((row / temperature).softmax(-1), 1, generator=generator)
                else:
                    chosen = row.argmax(-1, keepdim=True)
                token = torch.cat((token, chosen), 1)
            ids = torch.cat((ids, token[:, None]), 1)
        return ids


# --- training ----------------------------------------------------------------------------------------

SIDE = 48  # pixels of a crop: 6 x 6 tokens
TRAINING = (
    *("astronaut", "chelsea", "rocket", "motorcycle", "hubble_deep_field", "retina", "ihc"),
    *("camera", "coins", "moon", "brick", "grass", "gravel"),
)
HELD_OUT = ("coffee", "china", "flower")  # no crop of these is ever trained on
RESET_EVERY = 50  # steps

Teacher = Callable[[np.ndarray], Tensor]  # crops (B, 48, 48, 3) uint8 -> features (B, C)


def crops(names: Sequence[str], count: int, seed: int = 0, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """`count` crops of photographs, (count, side, side, 3) uint8, and the number of each one's photograph in `names`.

    Each photograph is as likely as another; it is taken at full, half or quarter size, mirrored half of the time."""
    rng = np.random.default_rng(seed)
    levels = [halvings(pictures.load(f"photo:{name}"), side) for name in names]
    found, sources = np.empty((count, side, side, 3), np.uint8), rng.integers(len(names), size=count)
    for i, source in enumerate(sources):
        image = levels[source][rng.integers(len(levels[source]))]
        top, left = (rng.integers(extent - side + 1) for extent in image.shape[:2])
        crop = image[top : top + side, left : left + side]
        found[i] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return found, sources


def halvings(image: np.ndarray, side: int) -> list[np.ndarray]:
    """A picture (H, W, 3) uint8 and its halves, quarters: as long as both sides are `side` or longer, three at most."""
    levels = [image]
    while len(levels) < 3 and min(levels[-1].shape[:2]) >= 2 * side:
        last = levels[-1]
        height, width = last.shape[0] // 2 * 2, last.shape[1] // 2 * 2
        four = last[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).astype(np.float32)
        levels.append(np.rint(four.mean((1, 3))).astype(np.uint8))
    return levels


def to_tensor(images: np.ndarray) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 from 0 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def to_pixels(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) -> (B, H, W, 3) uint8, clipped."""
    return (images.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def slope(step: int, steps: int, warm_up: int = 50) -> float:
    """Share of the learning rate at a step: rises over the first steps, then half a cosine down to 5 %."""
    return min(1.0, (step + 1) / warm_up) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train(plan: Plan, bank: np.ndarray, teacher: Teacher | None = None, semantic: float = 0.5) -> FactorizedTokenizer:
    """A tokenizer trained on the crops `bank` (n, side, side, 3) uint8, its weights rounded to float16.

    Loss: L1 and squared error of pixels (from -1 to 1), the quantiser's loss, and with a teacher `semantic` times
    InfoNCE between the last branch's codes and the teacher's features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model = FactorizedTokenizer(plan).train()
        parameters = list(model.parameters())
        head = None
        if teacher is not None:
            head = SemanticHead(plan.dim, teacher(bank[:1]).shape[-1], (bank.shape[1] // 8) ** 2)
            parameters += head.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.01)
    rng = np.random.default_rng(plan.seed)
    generator = torch.Generator().manual_seed(plan.seed)
    for step in range(plan.steps):
        guard.check_time()
        batch = bank[rng.integers(len(bank), size=plan.batch)]
        wanted = to_tensor(batch)
        rebuilt, out = model(wanted)
        error = 2 * (rebuilt - wanted)
        loss = error.abs().mean() + error.square().mean() + out.loss
        if head is not None:
            with torch.no_grad():
                feature = teacher(batch)
            loss = loss + semantic * info_nce(head(out.zq[..., -plan.dim :]), feature)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * slope(step, plan.steps)
        optimizer.step()
        # Not in the last tenth, so that a code that has just moved can settle.
        if plan.reset and step % RESET_EVERY == RESET_EVERY - 1 and step < 0.9 * plan.steps:
            model.quantizer.reset(out.aux["z"], generator)
    return rounded(model)


def rounded(model: nn.Module) -> nn.Module:
    """The model in evaluation mode, with weights that float16 can hold."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    return model.eval().requires_grad_(False)


def train_far(
    ids: np.ndarray,
    classes: np.ndarray,
    sizes: Sequence[int],
    count: int,
    chained: bool = True,
    steps: int = 1000,
    batch: int = 32,
    rate: float = 2e-3,
    seed: int = 0,
) -> FAR:
    """A FAR of ids (n, N, H) with their classes (n,), numbers below `count`; weights rounded to float16.

    A tenth of the classes is replaced by "any". Loss: the mean of the codes' cross-entropies."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FAR(sizes, count, ids.shape[1], chained=chained).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.05)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        guard.check_time()
        chosen = rng.integers(len(ids), size=batch)
        told = np.where(rng.random(batch) < 0.1, count, classes[chosen])
        loss = model.nll(torch.from_numpy(ids[chosen]), torch.from_numpy(told)).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * slope(step, steps)
        optimizer.step()
    return rounded(model)


# --- judging -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """A tokenizer on crops that training has not seen.

    errors (n,): mean squared error of each crop, pixels from 0 to 1; random (n,): the same with every code drawn at
    random; stats: of its codes; cosines: mean squared cosine of the codes of a token; ids (n, N, H)."""

    errors: np.ndarray
    random: np.ndarray
    stats: CodebookStats
    cosines: float
    ids: np.ndarray

    @property
    def used(self) -> float:
        """Share of codes that came up, in the book where it is least."""
        return min(self.stats.used_fraction(h) for h in range(len(self.stats.sizes)))


def psnr(errors: np.ndarray) -> float:
    """dB of the mean of squared errors of pixels from 0 to 1."""
    return float(-10 * np.log10(errors.mean()))


@torch.no_grad()
def judge(model: FactorizedTokenizer, images: np.ndarray, seed: int = 0) -> Judged:
    """`model` on crops (n, side, side, 3) uint8."""
    stats = CodebookStats(model.plan.sizes)
    generator = torch.Generator().manual_seed(seed)
    errors, chance, cosines, found = [], [], [], []
    for start in range(0, len(images), 64):
        guard.check_time()
        wanted = to_tensor(images[start : start + 64])
        rebuilt, out = model(wanted)
        errors.append((rebuilt.clamp(0, 1) - wanted).square().mean((1, 2, 3)))
        found.append(out.ids)
        if not model.plan.sizes:
            continue
        stats.update(out.ids)
        cosines.append(squared_cosines(model.quantizer.lookup(out.ids).chunk(model.branches, -1)))
        drawn = [torch.randint(size, out.ids.shape[:2], generator=generator) for size in model.plan.sizes]
        shape = (images.shape[1] // 8, images.shape[2] // 8)
        painted = model.decode(model.quantizer.lookup(torch.stack(drawn, -1)), shape=shape)
        chance.append((painted.clamp(0, 1) - wanted).square().mean((1, 2, 3)))
    return Judged(
        torch.cat(errors).numpy(),
        torch.cat(chance).numpy() if chance else np.zeros(0),
        stats,
        float(torch.stack(cosines).mean()) if cosines else 0.0,
        torch.cat(found).numpy(),
    )


# --- what ships, and what a run leaves behind ----------------------------------------------------------

FOLDER = Path(__file__).parents[2] / "assets" / "models" / "fqgan"
VARIANTS: dict[str, Plan] = {
    "2 x 64": Plan((64, 64)),
    "2 x 64, not disentangled": Plan((64, 64), disentangle=0.0),
    "2 x 64, disentangled tenfold": Plan((64, 64), disentangle=1.0),
    "2 x 64, dead codes reset": Plan((64, 64), reset=True),
    "2 x 64, no entropy term": Plan((64, 64), entropy=0.0),
    "3 x 16": Plan((16, 16, 16)),
    "1 x 4096": Plan((4096,)),
    "1 x 4096, dead codes reset": Plan((4096,), reset=True),
    "1 x 4096, no entropy term": Plan((4096,), entropy=0.0),
    "2 x 256": Plan((256, 256)),
    "1 x 512": Plan((512,)),
    "no codes": Plan(()),
}
CODED = tuple(name for name in VARIANTS if name != "no codes")
MAIN = "2 x 64"  # the one that FAR writes
CROPS = 8192  # to train on
HELD = 1024  # to judge on: 36,864 tokens
FAR_STEPS = 1000
FAR_WEIGHTS = "far.safetensors"


def file_name(name: str) -> str:
    """Of a tokenizer's weights: 2x64-not-disentangled.safetensors is that of "2 x 64, not disentangled"."""
    return name.replace(" x ", "x").replace(",", "").replace(" ", "-") + ".safetensors"


def cache_folder() -> Path:
    """Where trainings are kept between runs: $TOKENLAB_CACHE or ~/.cache/tokenlab, in it "fqgan"."""
    return Path(os.environ.get("TOKENLAB_CACHE", Path.home() / ".cache" / "tokenlab")) / "fqgan"


def digest(*parts: object) -> str:
    """Names a training by all that it depends on: `parts` (arrays by their bytes), and the code that does it."""
    seen = sha256(code())
    for part in parts:
        seen.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return seen.hexdigest()[:20]


@lru_cache(maxsize=1)
def code() -> bytes:
    """What a training runs through, as source without comments and docstrings, so that their words may change."""
    own = (
        FactorizedTokenizer,
        FactorizedQuantizer,
        entropy_term,
        squared_cosines,
        adapter,
        FAR,
        train,
        train_far,
        slope,
    )
    shared = (quantizers.Quantizer, blocks.ConvEncoder, blocks.ConvDecoder, blocks.ResidualConv, blocks.Block)
    used = (*own, *shared, blocks.Attention, blocks.feed_forward)
    return "\n".join(bare(inspect.getsource(part)) for part in used).encode()


def bare(source: str) -> str:
    """Python source without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@dataclass
class Work:
    """Trainings in a folder, kept from one run to the next.

    In seconds of CPU time: `trained` is what those asked for took, whenever that was, `spent` what this run took."""

    folder: Path
    trained: float = 0.0
    spent: float = 0.0

    def keep(self, name: str, make: Callable[[], nn.Module], empty: Callable[[], nn.Module]) -> tuple[nn.Module, float]:
        """What `make` trains and the seconds that it took: from the file of that name, or else made and written there.

        empty: gives an untrained module of the same form."""
        path = self.folder / f"{name}.safetensors"
        began = time.process_time()
        if not path.exists():
            model = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            # Under another name first: what stands under its own name is whole.
            part = path.with_suffix(".part")
            write(part, model, time.process_time() - began)
            part.rename(path)
        model, seconds = read(path, empty())
        self.spent += time.process_time() - began
        self.trained += seconds
        return model, seconds


def write(path: Path, model: nn.Module, seconds: float) -> None:
    """The weights as float16 in a safetensors file, and how long they took."""
    from safetensors.torch import save_file

    state = {key: weight.half().contiguous() for key, weight in model.state_dict().items()}
    save_file(state, path, metadata={"format": "pt", "seconds": f"{seconds:.3f}"})


def read(path: Path, model: nn.Module) -> tuple[nn.Module, float]:
    """`model` with the weights of `path`, float32, in evaluation mode, and the seconds of its training."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    model.load_state_dict({key: weight.float() for key, weight in load_file(path).items()})
    with safe_open(path, framework="pt") as file:
        seconds = float(file.metadata()["seconds"])
    return model.eval().requires_grad_(False), seconds


def trained(plan: Plan, bank: np.ndarray, work: Work) -> tuple[FactorizedTokenizer, float]:
    """The tokenizer of a plan, trained on `bank` now or in an earlier run, and the seconds that it took."""
    return work.keep(digest(plan, bank), lambda: train(plan, bank), lambda: FactorizedTokenizer(plan))


@lru_cache(maxsize=len(VARIANTS))
def tokenizer(name: str) -> FactorizedTokenizer:
    """The tokenizer that ships under this name, one of VARIANTS; shared. UserError: it is not there."""
    if name not in VARIANTS:
        raise UserError(f"There is no tokenizer {name[:40]!r}; please choose one of {', '.join(VARIANTS)}.")
    path = FOLDER / file_name(name)
    if not path.exists():
        raise UserError("The tokenizers of FQGAN are not there yet; please make them with recipes/fqgan.py.")
    plan = Plan(**(facts()["tokenizers"][name]["plan"]))
    return read(path, FactorizedTokenizer(dataclasses.replace(plan, sizes=tuple(plan.sizes))))[0]


@lru_cache(maxsize=1)
def far() -> FAR:
    """The shipped model of MAIN's tokens; its classes are TRAINING. UserError: it is not there."""
    if not (FOLDER / FAR_WEIGHTS).exists():
        raise UserError("The generator of FQGAN is not there yet; please make it with recipes/fqgan.py.")
    return read(FOLDER / FAR_WEIGHTS, FAR(VARIANTS[MAIN].sizes, len(TRAINING), (SIDE // 8) ** 2))[0]


@lru_cache(maxsize=1)
def facts() -> dict:
    """What the recipe measured of every tokenizer on held-out crops: facts.json."""
    return json.loads((FOLDER / "facts.json").read_text("utf-8"))


def fact_sheet(judged: Judged, plan: Plan, seconds: float) -> dict:
    """A tokenizer's entry in facts.json."""
    stats, books = judged.stats, range(len(plan.sizes))
    return {
        "plan": dataclasses.asdict(plan),
        "psnr": round(psnr(judged.errors), 3),
        "psnr_random": round(psnr(judged.random), 3) if plan.sizes else None,
        "used": [round(stats.used_fraction(h), 4) for h in books],
        "perplexity": [round(stats.perplexity(h), 2) for h in books],
        "cosines": round(judged.cosines, 5),
        "information": {
            f"{a + 1}-{b + 1}": [
                round(stats.mutual_information(a, b), 4),
                round(stats.mutual_information(a, b, corrected=False), 4),
            ]
            for a, b in combinations(books, 2)
        },
        "counts": [stats.histogram(h).tolist() for h in books],
        "pairs": stats.cooccurrence(0, 1).tolist() if len(plan.sizes) > 1 else None,
        "tokens": stats.counted() if plan.sizes else 0,
        "training_seconds": round(seconds),
    }


# --- graphs ------------------------------------------------------------------------------------------


class Encode(nn.Module):
    """pixels (B, 3, H, W) in [0, 1] -> ids (B, h, w, books) int64. The graph "encode"."""

    def __init__(self, model: FactorizedTokenizer):
        super().__init__()
        self.model, self.frozen = model, model.quantizer.frozen()

    def forward(self, pixels: Tensor) -> Tensor:
        ids = self.frozen.assign(self.model.vectors(pixels))
        return ids.unflatten(1, (pixels.shape[2] // 8, pixels.shape[3] // 8))


class Decode(nn.Module):
    """ids (B, h, w, books), -1 for a branch that is left out -> pixels (B, 3, 8 h, 8 w). The graph "decode"."""

    def __init__(self, model: FactorizedTokenizer):
        super().__init__()
        self.mix, self.decoder, self.frozen = model.mix, model.decoder, model.quantizer.frozen()

    def forward(self, ids: Tensor) -> Tensor:
        return (self.decoder(self.mix(self.frozen.lookup(ids).permute(0, 3, 1, 2))) + 1) / 2


class Context(nn.Module):
    """ids (B, n, H) so far, classes (B,) -> h (B, d) of the next token. The graph "context"."""

    def __init__(self, model: FAR):
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, classes: Tensor) -> Tensor:
        return self.model.contexts(ids, classes)[:, -1]


class Head(nn.Module):
    """h (B, d), the first H - 1 codes of the token (B, H - 1) -> logits of each book, (B, K). The graph "head".

    The logits of code j depend on codes before j only, so that codes not yet drawn may be anything."""

    def __init__(self, model: FAR):
        super().__init__()
        self.model = model

    def forward(self, context: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.logits(context, before))


def export(model: FactorizedTokenizer, generator: FAR, folder: Path, weights: str, far_weights: str) -> Path:
    """Write the four graphs beside the safetensors files that hold the weights; gives the folder."""
    from tokenlab.models import onnx

    batch, rows, columns = (torch.export.Dim(side, min=1, max=512) for side in ("batch", "rows", "columns"))
    length = torch.export.Dim("length", min=0, max=generator.length - 1)
    books, d = len(model.plan.sizes), generator.join.out_features
    pixels, ids = torch.zeros(2, 3, 24, 40), torch.zeros(2, 3, 5, books, dtype=torch.int64)
    past, classes = torch.zeros(2, 3, books, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)
    context, before = torch.zeros(2, d), torch.zeros(2, books - 1, dtype=torch.int64)
    for name, module, inputs, dims, outputs, file in (
        ("encode", Encode(model), {"pixels": pixels}, ({0: batch, 2: 8 * rows, 3: 8 * columns},), ["ids"], weights),
        ("decode", Decode(model), {"ids": ids}, ({0: batch, 1: rows, 2: columns},), ["pixels"], weights),
        (
            "context",
            Context(generator),
            {"ids": past, "classes": classes},
            ({0: batch, 1: length}, {0: batch}),
            ["h"],
            far_weights,
        ),
        (
            "head",
            Head(generator),
            {"h": context, "codes": before},
            ({0: batch}, {0: batch}),
            [f"logits{h + 1}" for h in range(books)],
            far_weights,
        ),
    ):
        onnx.export_module(module.eval(), inputs, outputs, dims, folder / f"{name}.onnx", folder / file)
    return folder


# --- the panel ---------------------------------------------------------------------------------------

ABOUT = {
    "2 x 64": "two books of 64 codes, disentangled with the paper's weight of 0.1",
    "2 x 64, not disentangled": "two books of 64 codes, without the disentanglement loss",
    "2 x 64, disentangled tenfold": "two books of 64 codes, disentangled with a weight of 1",
    "2 x 64, dead codes reset": "two books of 64 codes; every 50 steps unused ones are put on vectors of the batch",
    "2 x 64, no entropy term": "two books of 64 codes, without the loss that wants all codes to be used",
    "3 x 16": "three books of 16 codes",
    "1 x 4096": "one book of 4,096 codes: the paper's baseline at equal bits",
    "1 x 4096, dead codes reset": "one book of 4,096 codes; every 50 steps unused ones are put on vectors of the batch",
    "1 x 4096, no entropy term": "one book of 4,096 codes, without the loss that wants all codes to be used",
    "2 x 256": "two books of 256 codes",
    "1 x 512": "one book of 512 codes: as many distances per token as two of 256",
    "no codes": "the autoencoder with its vectors as they are: what quantisation costs",
}
FILLINGS = ("its mean code", "its codes, shuffled", "zeros")
SUBJECTS = ("any", *TRAINING)
PAIRS = 48  # codes of each book that the co-occurrence map shows
TILES = 512  # codes of a book that are decoded alone
SECONDS = 120.0


@dataclass(frozen=True)
class Result:
    about: Note
    pictures: Pictures
    codes: Codes
    compared: Table
    together: HeatMap | None = None
    samples: Pictures | None = None


def run(
    picture: Annotated[
        str, Picture("Picture", info="Its middle square; no crop of the first one was trained on", shared="picture")
    ] = ("photo:coffee"),
    variant: Annotated[str, Choice("Tokenizer", options=CODED, info="Number of codebooks x codes in each")] = MAIN,
    other: Annotated[str, Picture("Swap with", info="Whose codes one branch takes over")] = "photo:flower",
    fill: Annotated[str, Choice("A branch that is left out holds", options=FILLINGS)] = FILLINGS[0],
    side: Annotated[int, Slider("Side [pixels]", info="Training saw 48", minimum=48, maximum=240, step=48)] = 144,
    subject: Annotated[
        str,
        Choice("Generate", options=SUBJECTS, info="Crops as of this training photograph", when=("variant", MAIN)),
    ] = "any",
    temperature1: Annotated[
        float, Slider("Temperature, branch 1", minimum=0, maximum=2, step=0.1, when=("variant", MAIN))
    ] = 1.0,
    temperature2: Annotated[
        float, Slider("Temperature, branch 2", minimum=0, maximum=2, step=0.1, when=("variant", MAIN))
    ] = 1.0,
    samples: Annotated[int, Slider("Samples", minimum=1, maximum=16, step=1, when=("variant", MAIN))] = 6,
    seed: Annotated[int, Seed()] = 0,
) -> Iterator[Result]:
    model = tokenizer(variant)
    image = pictures.square(pictures.load(picture), side)
    donor = pictures.square(pictures.load(other), side)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        view, ids = branches(model, variant, image, donor, pictures.label(other), fill, generator)
        result = Result(
            _about(variant, ids, seed),
            view,
            codes_view(model, variant, ids),
            compared(image, generator),
            together_map(variant),
        )
    yield result
    if variant != MAIN:
        return
    with torch.inference_mode():  # not while the caller has the word
        drawn = sample_view(model, subject, (temperature1, temperature2), samples, generator)
    yield dataclasses.replace(result, samples=drawn)


def mean_codes(model: FactorizedTokenizer, name: str) -> list[Tensor]:
    """(d,) for each book: the mean of its codes over the held-out tokens."""
    counts = [torch.tensor(counted, dtype=torch.float32) for counted in facts()["tokenizers"][name]["counts"]]
    return [count @ model.quantizer.codebook(h) / count.sum() for h, count in enumerate(counts)]


def filled(
    parts: Sequence[Tensor], keep: int, means: Sequence[Tensor], fill: str, generator: torch.Generator
) -> Tensor:
    """zq (B, N, D) with branch `keep` of parts, H tensors (B, N, d), and the others replaced as `fill` says."""
    out = []
    for h, part in enumerate(parts):
        if h != keep:
            if fill == FILLINGS[0]:
                part = means[h].expand_as(part)
            elif fill == FILLINGS[1]:
                part = part[:, torch.randperm(part.shape[1], generator=generator)]
            else:
                part = torch.zeros_like(part)
        out.append(part)
    return torch.cat(out, -1)


def branches(
    model: FactorizedTokenizer,
    name: str,
    image: np.ndarray,
    donor: np.ndarray,
    donor_label: str,
    fill: str,
    generator: torch.Generator,
) -> tuple[Pictures, np.ndarray]:
    """The picture rebuilt from all branches, from each one alone, and with each one taken from another picture; and
    its ids (N, H). image, donor: (side, side, 3) uint8."""
    tokens, out = model.encode(to_tensor(np.stack([image, donor])))
    codes = model.quantizer.lookup(out.ids)
    own, foreign = (list(codes[i : i + 1].chunk(model.branches, -1)) for i in range(2))
    made = {"reconstruction": torch.cat(own, -1)}
    if model.branches > 1:
        means = mean_codes(model, name)
        for h in range(model.branches):
            made[f"branch {h + 1} only"] = filled(own, h, means, fill, generator)
        for h in range(model.branches):
            made[f"branch {h + 1} of {donor_label}"] = torch.cat([*own[:h], foreign[h], *own[h + 1 :]], -1)
    items = [views.Picture(name="original", png=pictures.png(image))]
    for label, zq in made.items():
        painted = to_pixels(model.decode(zq, shape=tokens.shape))[0]
        items.append(
            views.Picture(name=label, png=pictures.png(painted), facts={"PSNR [dB]": _decibel(image, painted)})
        )
    note = f"{name}: {image.shape[0]} x {image.shape[1]} pixels, {model.plan.bits * len(out.ids[0]):,.0f} bits."
    if model.branches > 1:
        note += f" A branch that is left out holds {fill}. What looks like nothing may still matter together."
    return Pictures(title="What each branch holds", note=note, items=tuple(items), slide=True), out.ids[0].numpy()


def _decibel(image: np.ndarray, painted: np.ndarray) -> float | None:
    """PSNR in dB; None where nothing differs."""
    error = np.square(image / 255 - painted / 255).mean()
    return round(float(-10 * np.log10(error)), 2) if error else None


def codes_view(model: FactorizedTokenizer, name: str, ids: np.ndarray) -> Codes:
    """The ids (N, H) of a square picture, and the codebooks behind them."""
    told = facts()["tokenizers"][name]
    rows = math.isqrt(len(ids))
    means, tiles, levels = mean_codes(model, name), [], []
    for h, size in enumerate(model.plan.sizes):
        counts = told["counts"][h]
        own = np.unique(ids[:, h])
        wanted = list(dict.fromkeys([*own.tolist(), *np.argsort(counts)[::-1].tolist()]))[:TILES]
        decoded = np.full(size, -1)
        decoded[wanted] = len(tiles) + np.arange(len(wanted))
        tiles += list(alone(model, h, torch.tensor(wanted), means))
        book = model.quantizer.codebook(h).numpy()
        points, shares = plane(book)
        levels.append(
            CodeLevel(
                name=f"branch {h + 1}" if model.branches > 1 else "the codebook",
                ids=tuple(ids[:, h].tolist()),
                size=size,
                counts=tuple(counts),
                counted=told["tokens"],
                x=tuple(points[:, 0].round(4).tolist()),
                y=tuple(points[:, 1].round(4).tolist()),
                decoded=tuple(decoded.tolist()),
                facts={"of the variance on the map [%]": round(100 * sum(shares))},
            )
        )
    tokens = torch.from_numpy(ids)[None]
    painted = to_pixels(model.decode(model.quantizer.lookup(tokens), shape=(rows, rows)))[0]
    across = 32
    sheet = np.zeros((-(-len(tiles) // across), across, 8, 8, 3), np.uint8)
    sheet.reshape(-1, 8, 8, 3)[: len(tiles)] = tiles
    return Codes(
        title="The picture as codes",
        note=f"Counts: {told['tokens']:,} tokens of held-out crops. A code alone is decoded with all tokens alike"
        + (" and the other branches at their mean code." if model.branches > 1 else "."),
        png=pictures.png(painted),
        grid=(rows, rows),
        levels=tuple(levels),
        sheet=pictures.png(np.ascontiguousarray(sheet.swapaxes(1, 2)).reshape(-1, across * 8, 3)),
        tile=8,
        across=across,
    )


def alone(model: FactorizedTokenizer, h: int, codes: Tensor, means: Sequence[Tensor]) -> np.ndarray:
    """(n, 8, 8, 3) uint8: what codes (n,) of book h paint where all tokens have them, other branches at their mean."""
    vectors = F.embedding(codes, model.quantizer.codebook(h))
    parts = [vectors if i == h else mean.expand(len(codes), -1) for i, mean in enumerate(means)]
    zq = torch.cat(parts, -1)[:, None].expand(-1, 9, -1)
    return to_pixels(model.decode(zq, shape=(3, 3)))[:, 8:16, 8:16]


def together_map(name: str) -> HeatMap | None:
    """How the codes of the first two books go together in the held-out tokens; None for a single book."""
    told = facts()["tokenizers"][name]
    if told["pairs"] is None:
        return None
    pairs = np.array(told["pairs"], float)
    first, second = (np.argsort(-pairs.sum(axis), kind="stable")[:PAIRS] for axis in (1, 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.log2(pairs * pairs.sum() / np.outer(pairs.sum(1), pairs.sum(0)))[np.ix_(first, second)]
    corrected, raw = told["information"]["1-2"]
    shown = f"the {len(first)} and {len(second)} most used codes" if len(first) < len(pairs) else "all codes"
    return HeatMap(
        title="Which codes go together",
        note=f"log2 of how often two codes share a token over how often they would by chance: 0 is independent; "
        f"blank: never. {told['tokens']:,} held-out tokens, {shown}. Mutual information {corrected:.2f} nats "
        f"({raw:.2f} with the chance level left in), though the mean squared cosine of the "
        f"code vectors is {told['cosines']:.3f}.",
        rows=tuple(f"{code}" for code in first),
        columns=tuple(f"{code}" for code in second),
        values=tuple(
            tuple(round(value, 2) if math.isfinite(value) else None for value in line) for line in surprise.tolist()
        ),
        x="code of branch 2",
        y="code of branch 1",
        unit="log2 ratio",
    )


COLUMNS = {
    "bits per token": "log2 of all combinations of codes.",
    "look-ups per token": "Distances computed to find the codes of a token: the sum of the books' sizes.",
    "used [%]": "Share of the codes that came up in the held-out tokens, book by book.",
    "perplexity": "exp(entropy) of how often the codes came up, book by book.",
    "cos²": "Squared cosine of the code vectors that two books choose for one token, mean over held-out tokens.",
    "shared [nats]": "Mutual information of the first two books' codes, less what shuffled codes have.",
    "PSNR, held out [dB]": "Of the mean squared error over the held-out crops, 48 x 48 pixels each.",
}


def compared(image: np.ndarray, generator: torch.Generator) -> Table:
    """Every tokenizer on this picture (side, side, 3), beside what was measured on held-out crops."""
    wanted = to_tensor(image[None])
    rows = []
    for name in VARIANTS:
        guard.check_time()
        model, told = tokenizer(name), facts()["tokenizers"][name]
        began = time.perf_counter()
        painted = to_pixels(model(wanted)[0])[0]
        milliseconds = 1000 * (time.perf_counter() - began)
        rows.append((*_line(name, told), _decibel(image, painted), round(milliseconds, 1)))
    main, told = tokenizer(MAIN), facts()["tokenizers"][MAIN]
    grid = image.shape[0] // 8, image.shape[1] // 8
    drawn = [torch.randint(size, (1, grid[0] * grid[1]), generator=generator) for size in main.plan.sizes]
    painted = to_pixels(main.decode(TokenBatch(torch.stack(drawn, -1), "grid", grid)))[0]
    blank = (None,) * (len(COLUMNS) - 1)
    rows.append((f"{MAIN}, codes at random", *blank, told["psnr_random"], _decibel(image, painted), None))
    return Table(
        title="All tokenizers, this picture",
        note="The same trunk, data and number of steps for all; one training each.",
        columns=("tokenizer", *COLUMNS, "PSNR, this picture [dB]", "there and back [ms]"),
        rows=tuple(rows),
        help=COLUMNS | ABOUT,
    )


def _line(name: str, told: Mapping) -> tuple:
    sizes = told["plan"]["sizes"]
    several = len(sizes) > 1
    return (
        name,
        round(sum(map(math.log2, sizes)), 1) if sizes else None,
        sum(sizes) if sizes else None,
        " + ".join(f"{100 * share:.0f}" for share in told["used"]) or None,
        " + ".join(f"{value:.0f}" for value in told["perplexity"]) or None,
        round(told["cosines"], 4) if several else None,
        round(told["information"]["1-2"][0], 2) if several else None,
        round(told["psnr"], 2),
    )


def sample_view(
    model: FactorizedTokenizer, subject: str, temperatures: tuple[float, float], count: int, generator: torch.Generator
) -> Pictures:
    """Crops that FAR writes token by token, beside one of random codes."""
    writer = far()
    known = TRAINING.index(subject) if subject in TRAINING else len(TRAINING)
    classes = torch.full((count,), known)
    began = time.perf_counter()
    ids = writer.sample(classes, temperatures, generator)
    seconds = time.perf_counter() - began
    nats = writer.nll(ids, classes).mean((1, 2))
    grid = SIDE // 8, SIDE // 8
    drawn = [torch.randint(size, ids.shape[1:2], generator=generator) for size in model.plan.sizes]
    everything = torch.cat((torch.stack(drawn, -1)[None], ids))
    painted = to_pixels(model.decode(TokenBatch(everything, "grid", grid)))
    items = [views.Picture(name="random codes", png=pictures.png(painted[0]))]
    items += [views.Picture(name=f"sample {i + 1}", png=pictures.png(one)) for i, one in enumerate(painted[1:])]
    what = "any training photograph" if subject == "any" else pictures.label(f"photo:{subject}")
    told = facts()["far"]
    return Pictures(
        title="Written token by token",
        note=f"{SIDE} x {SIDE} pixels as from a crop of {what}, temperatures {temperatures[0]:g} and "
        f"{temperatures[1]:g}, {seconds:.1f} s. At temperature 1 the model gives these samples {nats[0]:.2f} and "
        f"{nats[1]:.2f} nats per code; held-out crops {told['chained'][0]:.2f} and {told['chained'][1]:.2f}, and "
        f"{told['parallel'][1]:.2f} for branch 2 when the head does not see branch 1.",
        items=tuple(items),
    )


def _about(name: str, ids: np.ndarray, seed: int) -> Note:
    plan = VARIANTS[name]
    return Note(
        title="Codes",
        text=f"**{name}**: {ABOUT[name]}. Each of the {len(ids)} tokens takes {plan.bits:g} bits and "
        f"{plan.lookups:,} distances to find. One picture, one training of each tokenizer; random choices have seed "
        f"{seed}. The semantic branch of the paper is not among the tokenizers that ship.",
    )


# --- the experiment ----------------------------------------------------------------------------------

TIMES_USED, GAIN, CUT, COST, PARITY = 3.0, 0.3, 5.0, 0.2, 0.3
SEEDS = 3  # trainings of each side of the headline comparison


@dataclass(frozen=True)
class Trial:
    """A trained tokenizer, judged; seconds: of its training."""

    model: FactorizedTokenizer
    judged: Judged
    seconds: float


def measure(seed: int = 0) -> Measurement:
    """The claim, fixed before the run: at 12 bits per token and without resetting dead codes, two books of 64 codes are
    used at least 3 times as fully as one of 4,096 and rebuild held-out crops at least 0.3 dB better.

    The trainings that it needs are kept in `cache_folder()`: a run that was stopped goes on where it was. Its seconds
    are CPU time, of all trainings, whenever they were done. About half an hour on one core."""
    return experiment(seed, VARIANTS, cache_folder())


def experiment(
    seed: int,
    plans: Mapping[str, Plan],
    work: Path,
    count: int = CROPS,
    held: int = HELD,
    far_steps: int = FAR_STEPS,
    seeds: int = SEEDS,
) -> Measurement:
    """All of it, with the plans of VARIANTS or smaller ones under the same names."""
    began = time.process_time()
    bank, classes = crops(TRAINING, count, seed)
    images, _ = crops(HELD_OUT, held, seed + 1)
    trials: dict[tuple[str, int], Trial] = {}
    kept = Work(work)
    for name, plan in plans.items():
        for again in range(seeds if name in ("1 x 4096", "2 x 64") else 1):
            model, seconds = trained(dataclasses.replace(plan, seed=seed + again), bank, kept)
            trials[name, again] = Trial(model, judge(model, images, seed), seconds)
    written = generation(trials[MAIN, 0].model, bank, classes, images, seed, kept, far_steps)
    seconds = time.process_time() - began - kept.spent + kept.trained
    return verdict(seed, plans, trials, written, held, seconds, seeds)


@dataclass(frozen=True)
class Written:
    """FAR of MAIN's tokens; nats per code of each book on held-out crops, by head; seconds of all their training."""

    far: FAR
    nats: dict[str, tuple[float, ...]]
    seconds: float


def generation(
    model: FactorizedTokenizer,
    bank: np.ndarray,
    classes: np.ndarray,
    images: np.ndarray,
    seed: int,
    work: Work,
    steps: int,
) -> Written:
    """FAR with the factorised head and without, trained on the tokens of `bank`, judged on those of `images`."""
    ids, held = judge(model, bank, seed).ids, torch.from_numpy(judge(model, images, seed).ids)
    sizes, total, models, nats = model.plan.sizes, 0.0, {}, {}
    for name, chained in (("chained", True), ("parallel", False)):

        def make(chained: bool = chained) -> FAR:
            return train_far(ids, classes, sizes, len(TRAINING), chained, steps, seed=seed)

        def empty(chained: bool = chained) -> FAR:
            return FAR(sizes, len(TRAINING), ids.shape[1], chained=chained)

        models[name], seconds = work.keep(digest(name, steps, seed, ids, classes), make, empty)
        total += seconds
        with torch.inference_mode():
            anything = torch.full((len(held),), len(TRAINING))
            nats[name] = tuple(models[name].nll(held, anything).mean((1, 2)).tolist())
    return Written(models["chained"], nats, total)


def verdict(
    seed: int,
    plans: Mapping[str, Plan],
    trials: Mapping[tuple[str, int], Trial],
    written: Written,
    held: int,
    seconds: float,
    seeds: int,
) -> Measurement:
    """The bars held against what was found."""
    one, two = ([trials[name, again].judged for again in range(seeds)] for name in ("1 x 4096", "2 x 64"))

    def mean_psnr(side: Sequence[Judged], draw: np.ndarray) -> np.ndarray:
        """dB, mean over trainings, for each row of draw (r, held) of crops."""
        return np.mean([-10 * np.log10(judged.errors[draw].mean(-1)) for judged in side], 0)

    everyone = np.arange(held)[None]
    draws = np.random.default_rng(seed).integers(held, size=(1000, held))
    gain = float(mean_psnr(two, everyone)[0] - mean_psnr(one, everyone)[0])
    low, high = np.percentile(mean_psnr(two, draws) - mean_psnr(one, draws), (2.5, 97.5))
    used_one, used_two = (float(np.mean([judged.used for judged in side])) for side in (one, two))
    times = used_two / used_one
    joint = float(np.mean([(judged.stats.cooccurrence(0, 1) > 0).mean() for judged in two]))
    base = float(mean_psnr(one, everyone)[0])
    chance = psnr(two[0].random) - base
    first = {name: trials[name, 0].judged for name in plans}
    db = {name: psnr(judged.errors) for name, judged in first.items()}
    gap = db["2 x 64, dead codes reset"] - db["1 x 4096, dead codes reset"]
    free, tied = first["2 x 64, not disentangled"], first["2 x 64"]
    cut, cost = free.cosines / max(tied.cosines, 1e-9), db["2 x 64, not disentangled"] - db["2 x 64"]
    shared = {
        name: judged.stats.mutual_information(0, 1) for name, judged in first.items() if len(plans[name].sizes) > 1
    }
    even = db["2 x 256"] - db["1 x 512"]
    holds = times >= TIMES_USED and gain >= GAIN
    spread = ", ".join(f"{psnr(b.errors) - psnr(a.errors):+.2f}" for a, b in zip(one, two, strict=True))
    reset, bare = (
        [first[f"{books}, {change}"] for books in ("1 x 4096", "2 x 64")]
        for change in ("dead codes reset", "no entropy term")
    )
    reason = (
        f"At 12 bits per token, without resetting dead codes, mean of {seeds} trainings of {plans[MAIN].steps:,} "
        f"steps: of the books of 64 codes {used_two:.0%} are used (in the lesser one), of the book of 4,096 "
        f"{used_one:.0%}: {times:.1f} times as much (bar {TIMES_USED:g}). PSNR {base + gain:.2f} against {base:.2f} "
        f"dB, a gain of {gain:.2f} dB (95 % interval over crops {low:.2f} to {high:.2f}; by training {spread}; bar "
        f"{GAIN:g}). Of the 4,096 pairs that two books can form, {joint:.0%} come up; the distances are "
        f"{128 / 4096:.1%} of those of the large book.\n"
        f"With dead codes reset, the large book uses {reset[0].used:.0%}, the lesser small one {reset[1].used:.0%}, "
        f"and the small books are {gap:+.2f} dB from the large one: "
        f"{'within' if abs(gap) <= PARITY else 'not within'} {PARITY:g} dB. With neither that nor the entropy term, "
        f"the large book uses {bare[0].used:.0%}, the lesser small one {bare[1].used:.0%}, and the small books are "
        f"{psnr(bare[1].errors) - psnr(bare[0].errors):+.2f} dB from the large one.\n"
        f"At about equal look-up cost (512 distances), two books of 256 (16 bits) are {even:+.2f} dB from one of 512 "
        f"(9 bits), which also shows what 7 more bits are worth.\n"
        f"Disentangling (0.1) brings the mean squared cosine of a token's two codes from {free.cosines:.3f} to "
        f"{tied.cosines:.4f}, {cut:.0f} times less, for {cost:+.2f} dB lost (bars: {CUT:g} times, {COST:g} dB): "
        f"{'as the paper says' if cut >= CUT and cost <= COST else 'not as the paper says'}. What the two ids share "
        f"is another matter: {shared['2 x 64, not disentangled']:.2f} nats of mutual information without it, "
        f"{shared['2 x 64']:.2f} with it (chance level taken off).\n"
        f"The factorised head predicts held-out codes at {_nats(written.nats['chained'])} nats (branch 1, branch 2), "
        f"independent heads at {_nats(written.nats['parallel'])}.\n"
        f"The claim {'holds' if holds else 'does not hold'} here."
        + (
            f" The entropy term alone keeps {used_one:.0%} of the large book in use, against {bare[0].used:.0%} "
            f"without it, which leaves small books no room to be {TIMES_USED:g} times as full."
            if used_one > 1 / TIMES_USED > bare[0].used
            else ""
        )
    )
    return Measurement(
        claim="At equal bits per token and without resetting dead codes, two small codebooks are used at least three "
        "times as fully as a single large one and rebuild pictures at least 0.3 dB better.",
        metric="PSNR of two books of 64 codes over that of one book of 4,096",
        unit="dB",
        value=gain,
        baseline_name="one book of 4,096 codes",
        baseline=0.0,
        bar=GAIN,
        direction="higher",
        holds=bool(holds),
        reason=reason,
        paper="Reconstruction FID on ImageNet 256 x 256 of 0.94 with two books of 16,384 codes and 0.76 with three "
        "(16 x 16 pixels per token), better than VQ and LFQ tokenizers with as large or larger vocabularies; a single "
        "book stops gaining from size, and disentanglement and representation learning each help.",
        n=held,
        seed=seed,
        seconds=seconds,
        random=float(chance),
        full=db["no codes"] - base,
        low=float(low),
        high=float(high),
        figures=(_bars(first), _numbers(plans, trials), _shared_bars(shared, first)),
    )


def _nats(values: Sequence[float]) -> str:
    return " and ".join(f"{value:.2f}" for value in values)


def _bars(first: Mapping[str, Judged]) -> Bars:
    coded = [name for name, judged in first.items() if judged.stats.sizes]
    return Bars(
        title="How much of each codebook is used",
        note=f"The least used book of each tokenizer; {first[coded[0]].stats.counted():,} tokens of held-out crops.",
        categories=tuple(coded),
        series={"used": tuple(round(100 * first[name].used, 1) for name in coded)},
        x="tokenizer",
        y="codes used [%]",
        horizontal=True,
    )


def _shared_bars(shared: Mapping[str, float], first: Mapping[str, Judged]) -> Bars:
    return Bars(
        title="Orthogonal codes are not independent codes",
        note="Squared cosine of a token's first two code vectors (of all pairs where there are three), and the mutual "
        "information of its first two ids, chance level taken off.",
        categories=tuple(shared),
        series={
            "squared cosine [1]": tuple(round(first[name].cosines, 4) for name in shared),
            "mutual information [nats]": tuple(round(value, 3) for value in shared.values()),
        },
        x="tokenizer",
        y="squared cosine, nats",
        horizontal=True,
    )


def _numbers(plans: Mapping[str, Plan], trials: Mapping[tuple[str, int], Trial]) -> Table:
    rows = []
    for (name, again), trial in trials.items():
        told = fact_sheet(trial.judged, plans[name], trial.seconds)
        rows.append((f"{name}, training {again + 1}" if again else name, *_line(name, told)[1:], round(trial.seconds)))
    chance = trials["2 x 64", 0].judged.random
    blank = (None,) * (len(COLUMNS) - 1)
    rows.append(("2 x 64, codes at random", *blank, round(psnr(chance), 2), None))
    return Table(
        title="All numbers",
        columns=("tokenizer", *COLUMNS, "training [CPU s]"),
        rows=tuple(rows),
        help=COLUMNS | ABOUT,
    )
