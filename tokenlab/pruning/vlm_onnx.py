"""The image side of shapes-vlm as ONNX graphs; their weights are those of the model.safetensors beside them.

| file | from | to |
| --- | --- | --- |
| vit.onnx | pixels (B, 3, S, S) | feature (B, N, dv), cls_score (B, N), hidden.<0 to L> (B, 1 + N, dv), |
| | | cls.<0 to L - 1> (B, H, N), attention.<0 to L - 1> (B, H, 1 + N, 1 + N) |
| fastervlm.onnx | pixels (B, 3, S, S), keep () int64 from 1 to N | tokens (B, keep, d), index (B, keep) int64, |
| | | cls_score (B, N) |
| projector.onnx | feature (B, n, dv) | tokens (B, n, d) |

What is not said to be int64 is float32. `cls` is the row of `attention` that belongs to [CLS], without its own column;
`cls_score` is its mean over heads in the layer whose output is `feature`. fastervlm.onnx is FasterVLM as a whole: the
encoder up to that layer and no further, the `keep` highest scores in raster order, and the projector on these alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tokenlab.models import intake, onnx

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel

VIT, FASTERVLM, PROJECTOR = "vit.onnx", "fastervlm.onnx", "projector.onnx"


def ships(model: VisionLanguageModel) -> bool:
    """Whether the model comes from a folder that holds its graphs."""
    return model.folder is not None and (model.folder / VIT).exists()


def encode(model: VisionLanguageModel, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """`hidden` and `cls` of every layer, of pixels (B, 3, S, S). UserError: there is no graph, or it is out of date."""
    count = model.torch.config.vision_config.num_hidden_layers
    names = [*(f"hidden.{k}" for k in range(count + 1)), *(f"cls.{k}" for k in range(count))]
    found = [torch.from_numpy(a) for a in onnx.session(model.folder, VIT).run(names, {"pixels": pixels.numpy()})]
    return found[: count + 1], found[count + 1 :]


# --- export


class Encoder(nn.Module):
    """The graph "vit". layers: how many of the encoder's are in it, None: all."""

    def __init__(self, model: VisionLanguageModel, layers: int | None = None):
        super().__init__()
        self.tower, self.prefix = model.vision.torch, model.vision.prefix
        self.feature_layer, self.layers = model.feature_layer, layers

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        x = self.tower.pre_layrnorm(self.tower.embeddings(pixels))
        hidden, attention = [x], []
        for block in self.tower.encoder.layers[: self.layers]:
            mixed, weights = block.self_attn(block.layer_norm1(x), attention_mask=None)
            x = x + mixed
            x = x + block.mlp(block.layer_norm2(x))
            hidden.append(x)
            attention.append(weights)
        cls = [weights[:, :, 0, self.prefix :] for weights in attention]
        feature = hidden[self.feature_layer][:, self.prefix :]
        return feature, cls[self.feature_layer - 1].mean(1), *hidden, *cls, *attention


class Pruned(nn.Module):
    """The graph "fastervlm"."""

    def __init__(self, model: VisionLanguageModel):
        super().__init__()
        self.encoder = Encoder(model, model.feature_layer)
        self.projector = model.torch.model.multi_modal_projector

    def forward(self, pixels: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        feature, score, *_ = self.encoder(pixels)
        count = keep.item()
        torch._check(count >= 1)  # else torch.export does not know that it is a size
        torch._check(count <= score.shape[1])
        index = score.topk(count, 1).indices.sort(1).values
        kept = feature.gather(1, index[..., None].expand(-1, -1, feature.shape[-1]))
        return self.projector(kept), index, score


def export(folder: Path) -> Path:
    """Write the three graphs of the model in `folder` beside its weights; gives the folder. Takes half a minute."""
    from tokenlab.pruning import vlm

    model = vlm.load_folder(folder)
    vision, projector = model.torch.config.vision_config, model.torch.model.multi_modal_projector
    count, side = vision.num_hidden_layers, model.vision.size
    parts = (("hidden", count + 1), ("cls", count), ("attention", count))
    outputs = ["feature", "cls_score", *(f"{name}.{k}" for name, n in parts for k in range(n))]
    # Sizes above 1, because torch.export takes 0 and 1 for constants.
    pixels, keep = {"pixels": torch.zeros(2, 3, side, side)}, {"keep": torch.tensor(7)}
    feature = {"feature": torch.zeros(2, 5, vision.hidden_size)}
    rows, tokens = torch.export.Dim("batch", min=1, max=1024), torch.export.Dim("tokens", min=1, max=4096)
    for name, module, inputs, named, dynamic in (
        (VIT, Encoder(model), pixels, outputs, ({0: rows},)),
        (FASTERVLM, Pruned(model), pixels | keep, ["tokens", "index", "cls_score"], ({0: rows}, None)),
        (PROJECTOR, projector, feature, ["tokens"], ({0: rows, 1: tokens},)),
    ):
        onnx.export_module(module.eval(), inputs, named, dynamic, folder / name, folder / intake.WEIGHTS)
    return folder
