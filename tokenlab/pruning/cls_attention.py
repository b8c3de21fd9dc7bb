"""Selection by the [CLS] attention of the image encoder, and the text attention that it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tokenlab import guard, pictures
from tokenlab.pruning import reduction
from tokenlab.pruning.baselines import Ranked, spread
from tokenlab.pruning.reduction import Context, Probe, State, TokenReduction, Vit

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel
    from tokenlab.pruning.scenes import Scene

BATCH = 20  # scenes at once


class FasterVLM(Ranked):
    """Keep the patches of each unit that [CLS] attends to most (Zhang et al. 2024).

    layer: of the encoder, counted from 0; None: the one whose output is projected, as in the paper.
    head: one head alone; None: the mean of all."""

    name = "FasterVLM"

    def __init__(self, layer: int | None = None, head: int | None = None):
        self.layer, self.head = layer, head

    def score(self, vit: Vit, context: Context) -> Tensor:
        return cls_score(vit, self.layer, self.head)


class HalfGrid(FasterVLM):
    """Half of the budget by [CLS] attention, the other half a uniform grid: a control, not a method of the paper.

    It tells whether a language model misses the background as such, whatever is shown there."""

    name = "half FasterVLM, half grid"

    def score(self, vit: Vit, context: Context) -> Tensor:
        scores = super().score(vit, context).clone()
        scores[:, spread(context.grid, max(1, context.budget // 2))] += 1  # above any part of a softmax
        return scores


def cls_score(vit: Vit, layer: int | None = None, head: int | None = None) -> Tensor:
    """(B * U, N) attention of [CLS] on the patches: parts of a softmax that [CLS] itself takes part in."""
    # hidden[feature_layer] is the output of the layer of index feature_layer - 1
    weights = vit.cls_prob[vit.feature_layer - 1 if layer is None else layer]
    return weights.mean(1) if head is None else weights[:, head]


class TextAttention(TokenReduction):
    """Not a method: gives the attention of the question's last token on the patches in one layer, head by head.

    It comes out as `scores`, (B, heads, N). The later layers, whose output nobody reads, get a single patch."""

    name = "text attention"

    def __init__(self, layer: int = 1):
        self.layer = layer

    def llm(self, layer: int, state: State, probe: Probe, context: Context) -> State:
        if layer != self.layer:
            return state
        context.scores = probe.attn(layer, state.last[:, None])[:, :, 0, state.visual]
        return state.keep_visual(torch.zeros(len(state.last), 1, dtype=torch.long))


def attentions(
    model: VisionLanguageModel, drawn: Sequence[Scene], questions: Sequence[str], layer: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where [CLS] looks in every layer and head of the encoder, (n, L, H, N), and where the question's last token
    looks in every head of layer `layer` of the language model, (n, heads, N): n scenes with a question each."""
    cls, text = [], []
    for first in range(0, len(drawn), BATCH):
        guard.check_time()
        part = slice(first, first + BATCH)
        images = np.stack([pictures.square(one.pixels, model.vision.size) for one in drawn[part]])
        vit = reduction.encode(model, model.vision.pixels(images))
        cls.append(torch.stack(vit.cls_prob, 1).numpy())
        text.append(reduction.read(model, vit, questions[part], TextAttention(layer), 1).scores.numpy())
    return np.concatenate(cls), np.concatenate(text)
