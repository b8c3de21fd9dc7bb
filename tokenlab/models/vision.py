"""Vision transformers and vision-language models: what both look like, whether they ship with TokenLab or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tokenlab.text.tokenization import Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class VisionTransformer:
    """An image encoder with its input's form.

    torch: CLIPVisionModel or Dinov2Model of transformers, float32, evaluation mode, "eager" attention.
    size: pixels of the square input; patch: pixels of a patch; prefix: tokens before the patches ([CLS], then any
    registers); mean, std: of each colour channel, for pixels from 0 to 1."""

    name: str
    torch: PreTrainedModel
    size: int
    patch: int
    prefix: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.size // self.patch

    def pixels(self, images: np.ndarray) -> torch.Tensor:
        """(B, size, size, 3) uint8 -> (B, 3, size, size) float32 as the encoder wants it."""
        import torch

        scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (scaled - mean) / std


@dataclass(frozen=True)
class VisionLanguageModel:
    """A model of the LLaVA kind: vision transformer, projector, causal language model.

    torch: LlavaForConditionalGeneration; vision: its encoder (shares the weights); feature_layer: which of the
    encoder's hidden states (0 is the embedding) goes to the projector, without the prefix; opening: ids before the
    picture's tokens; before, after: text around the question; end: ids that end an answer; context: most ids."""

    name: str
    torch: PreTrainedModel
    vision: VisionTransformer
    tokenizer: Tokenizer
    feature_layer: int
    opening: tuple[int, ...]
    before: str
    after: str
    end: frozenset[int]
    context: int
