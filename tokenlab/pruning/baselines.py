"""What every method of visual token reduction is held against: random, a uniform grid, an oracle, no picture, FastV."""

from __future__ import annotations

import numpy as np
import torch

from tokenlab.pruning.reduction import (
    Context,
    Probe,
    State,
    TokenReduction,
    Visual,
    Vit,
    select,
    units_together,
)


class Ranked(TokenReduction):
    """Keeps the `budget` patches of each unit that score highest, between encoder and language model."""

    def score(self, vit: Vit, context: Context) -> torch.Tensor:
        """(B * U, N) or (B, U * N); higher stays."""
        raise NotImplementedError

    def bridge(self, vit: Vit, context: Context) -> Visual:
        count = vit.feature.shape[1]
        scores = self.score(vit, context).reshape(-1, count)
        keep = scores.topk(min(context.budget, count), 1, sorted=False).indices
        context.scores = units_together(scores, vit.units)
        keep = keep + count * (torch.arange(len(keep)) % vit.units)[:, None]
        return select(units_together(vit.feature, vit.units), units_together(keep, vit.units), context)


class Random(Ranked):
    """A random choice, another for each row, the same for the same seed."""

    name = "random"

    def score(self, vit: Vit, context: Context) -> torch.Tensor:
        rng = np.random.default_rng(context.seed)
        return torch.from_numpy(rng.random(vit.feature.shape[:2], np.float32))


class UniformGrid(Ranked):
    """Patches as evenly spread over the picture as the budget allows."""

    name = "uniform grid"

    def score(self, vit: Vit, context: Context) -> torch.Tensor:
        count = vit.feature.shape[1]
        kept = spread(context.grid, min(context.budget, count))
        scores = torch.zeros(count)
        scores[kept] = 1
        return scores.expand(len(vit.feature), -1)


def spread(grid: int, budget: int) -> list[int]:
    """`budget` of grid x grid patches, evenly: the cells of the smallest lattice that has enough of them, and of those
    evenly many along the raster."""
    side = next(k for k in range(1, grid + 1) if k * k >= budget)
    places = [int((i + 0.5) * grid / side) for i in range(side)]
    lattice = [row * grid + column for row in places for column in places]
    return [lattice[int((i + 0.5) * len(lattice) / budget)] for i in range(budget)]


class Oracle(Ranked):
    """The patches that the question is about first, then others at random: what no method can know."""

    name = "oracle"

    def score(self, vit: Vit, context: Context) -> torch.Tensor:
        rng = np.random.default_rng(context.seed)
        scores = torch.from_numpy(rng.random((len(context.questions), vit.units * vit.feature.shape[1]), np.float32))
        for row, patches in enumerate(context.relevant or ()):
            scores[row, list(patches)] += 1
        return scores


class NoPicture(TokenReduction):
    """The question alone: what can be guessed without looking."""

    name = "no picture"

    def bridge(self, vit: Vit, context: Context) -> Visual:
        features = units_together(vit.feature, vit.units)
        return select(features, torch.empty(len(features), 0, dtype=torch.long), context)


class FastV(TokenReduction):
    """FastV (Chen et al. 2024, section 4.1): before layer K, keep the visual tokens that the last token of the prompt
    looked at most in layer K - 1, averaged over heads. The first K layers see everything."""

    name = "FastV"

    def __init__(self, layer: int = 2):
        self.layer = layer

    def llm(self, layer: int, state: State, probe: Probe, context: Context) -> State:
        if layer != self.layer:
            return state
        weights = probe.attn(layer - 1, state.last[:, None])[:, :, 0, state.visual].mean(1)
        context.scores = weights
        budget = min(context.budget * context.units, weights.shape[1])
        return state.keep_visual(weights.topk(budget, 1).indices, repack=context.positions == "repack")

    def own_work(self, model, context: Context) -> int:
        return 0  # the attention of layer K - 1 has been computed anyway
