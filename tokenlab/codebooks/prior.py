"""ARPrior: a small GPT over codes, the judge of which tokens are easy to predict.

"Easier to model autoregressively" is a claim of several papers here. It is judged by a prior that is trained afresh
on the frozen codes of each tokenizer, for as long and as wide for one as for the other, never by a prior that took
part in training the codes. Compare nats per picture, or per token at equal numbers of tokens; not across those.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokenlab import guard
from tokenlab.codebooks.blocks import Block


class ARPrior(nn.Module):
    """p(ids) of ids (B, N, H) with N <= max_len, H = len(sizes), and optionally a class of `classes`.

    "causal": one code after the other, the H codes of a token in order, so every code sees all before it.
    "scale_causal" (Tian et al. 2024, VAR; H = 1): the tokens of a scale are predicted at once from all coarser
    scales. scales: tokens of each, coarse first, never fewer than before. A place of a scale reads the token of the
    scale before that lies at the same share of the way, so no token is left out.
    """

    def __init__(
        self,
        sizes: tuple[int, ...],
        d: int = 128,
        depth: int = 4,
        max_len: int = 256,
        heads: int = 4,
        classes: int = 0,
        mask: str = "causal",
        scales: tuple[int, ...] | None = None,
    ):
        super().__init__()
        if mask not in ("causal", "scale_causal"):
            raise ValueError(f"there is no mask {mask!r}")
        if mask == "scale_causal" and (scales is None or len(sizes) != 1 or list(scales) != sorted(scales)):
            raise ValueError("scale_causal needs scales, from few tokens to many, and one codebook")
        self.sizes, self.mask, self.scales = tuple(sizes), mask, scales
        self.start = nn.Embedding(max(1, classes), d)
        self.codes = nn.ModuleList(nn.Embedding(size, d) for size in sizes)
        self.place = nn.Embedding(max_len, d)
        self.book = nn.Embedding(len(sizes), d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(d)
        self.heads = nn.ModuleList(nn.Linear(d, size) for size in sizes)
        for part in (self.start, self.place, self.book, *self.codes):
            nn.init.normal_(part.weight, std=0.02)

    def nll(self, ids: Tensor, labels: Tensor | None = None) -> Tensor:
        """(B,) nats per token: of all H codes of a token together, mean over the tokens of each row. An id of -1 is
        not counted, and a token is one as soon as any of its ids is counted."""
        losses = torch.stack(
            [
                F.cross_entropy(logits.transpose(1, 2), ids[..., h], ignore_index=-1, reduction="none")
                for h, logits in enumerate(self.logits(ids, labels))
            ],
            -1,
        )
        return losses.sum((1, 2)) / (ids >= 0).any(-1).sum(1).clamp(min=1)

    def logits(self, ids: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """For each codebook (B, N, K_h): the logits of each code given those before it."""
        batch, n, books = ids.shape
        first = self.start(torch.zeros(batch, dtype=torch.long, device=ids.device) if labels is None else labels)
        if self.mask == "scale_causal":
            h = self._run(self._scale_inputs(ids, first), scale_mask(self.scales, ids.device)[:n, :n])
            return [self.heads[0](h)]
        x = torch.stack([code(ids[..., b].clamp(min=0)) for b, code in enumerate(self.codes)], 2).flatten(1, 2)
        x = x * (ids >= 0).flatten(1)[..., None]
        x = torch.cat((first[:, None], x[:, :-1]), 1)
        places = self.place.weight[:n, None] + self.book.weight
        x = x + places.flatten(0, 1)
        h = self._run(x, torch.ones(n * books, n * books, dtype=torch.bool, device=ids.device).tril())
        return [head(part) for head, part in zip(self.heads, h.unflatten(1, (n, books)).unbind(2), strict=True)]

    def _scale_inputs(self, ids: Tensor, first: Tensor) -> Tensor:
        codes, parts, begin, n = self.codes[0](ids[..., 0].clamp(min=0)), [], 0, ids.shape[1]
        for i, size in enumerate(self.scales):
            if begin >= n:
                break
            if i == 0:
                parts.append(first[:, None].expand(-1, size, -1))
            else:
                before = self.scales[i - 1]
                parts.append(codes[:, begin - before + torch.arange(size, device=ids.device) * before // size])
            begin += size
        return torch.cat(parts, 1) + self.place.weight[:n]

    def _run(self, x: Tensor, mask: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        length: int | None = None,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """n rows of ids (n, length, H); scale_causal always makes all its scales. Nothing is cached between steps."""
        scales = self.scales if self.mask == "scale_causal" else (1,) * (length or self.place.num_embeddings)
        ids = torch.zeros(n, 0, len(self.sizes), dtype=torch.long, device=self.place.weight.device)
        for size in scales:
            guard.check_time()
            ids = torch.cat((ids, ids.new_zeros(n, size, ids.shape[-1])), 1)
            for book in range(len(self.sizes)):
                logits = self.logits(ids, labels)[book][:, -size:] / temperature
                if top_k is not None:
                    least = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
                    logits = logits.masked_fill(logits < least, -torch.inf)
                drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator)
                ids[:, -size:, book] = drawn.view(n, size)
        return ids


def scale_mask(scales: tuple[int, ...], device: torch.device | None = None) -> Tensor:
    """(N, N) bool: a place sees its own scale and all coarser ones."""
    scale = torch.repeat_interleave(torch.arange(len(scales), device=device), torch.tensor(scales, device=device))
    return scale[:, None] >= scale
