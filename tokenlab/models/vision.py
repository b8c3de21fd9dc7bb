"""Vision transformers and vision-language models: what both look like, whether they ship with TokenLab or not.

    encoder = vision_transformer("hub:facebook/dinov2-small")
    squares = pictures.square(pictures.load("photo:chelsea"), encoder.size)[None]
    states = encoder.torch(encoder.pixels(squares)).last_hidden_state    # (1, prefix + grid * grid, d)

Both load from the Hub with the checks of intake.py, as causal language models do:

| kind | model_type of the checkpoint |
| --- | --- |
| vit | clip and llava (their image encoder alone), clip_vision_model, dinov2, dinov2_with_registers |
| vlm | llava, of CLIP and a Llama, Mistral or Qwen2 |

The limits on weights and parameters fit a machine without a GPU, so the LLaVA models of 7 billion parameters and
CLIP's large encoders are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tokenlab import models
from tokenlab.errors import UserError
from tokenlab.models import intake
from tokenlab.text.tokenization import Tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

# What LLaVA-1.5 was trained on (Liu et al. 2023, "Improved baselines", conversation template of Vicuna).
BEFORE_PICTURE, BEFORE_QUESTION, AFTER_QUESTION = "USER: ", "\n", " ASSISTANT:"


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
        """(B, size, size, 3) uint8 -> (B, 3, size, size) float32 as the encoder wants it.

        The squares come from tokenlab.pictures.square. A checkpoint's own processor finds nearly the same pixels:
        CLIP's scales the shortest side to `size` and cuts out the middle, which is the same square, but resamples
        with a bicubic filter, where ours takes the mean of areas. DINOv2's scales it to a little more (256 for 224),
        so it cuts off a margin that is kept here. A processor that squeezes the whole picture into the square shows
        what is left out here."""
        import torch

        scaled = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (scaled - mean) / std


@dataclass(frozen=True)
class VisionLanguageModel:
    """A model of the LLaVA kind: vision transformer, projector, causal language model.

    torch: LlavaForConditionalGeneration; vision: its encoder (shares the weights); feature_layer: which of the
    encoder's hidden states (0 is the embedding) goes to the projector, without the prefix; opening: ids before the
    picture's tokens; before, after: text around the question; end: ids that end an answer; context: most ids;
    folder: where its ONNX graphs lie, if it has some."""

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
    folder: Path | None = None


def vision_transformer(name: str) -> VisionTransformer:
    """The image encoder that `name` means: "shapes-vlm" (that of the bundled VLM) or "hub:owner/name".

    Kept and shared as by models.causal_lm. UserError: malformed, off-line, not found, refused (intake), still being
    downloaded."""
    name = models.check_name(name, "vit")
    if name in models.VLMS:
        return vision_language_model(name).vision
    key = f"vit:{name}"
    return models.shared(key, lambda: models.from_hub(key, name, "vit", _open_vit))


def vision_language_model(name: str) -> VisionLanguageModel:
    """The model that `name` means: "shapes-vlm" or "hub:owner/name".

    Kept and shared as by models.causal_lm. UserError: malformed, off-line, not found, refused (intake), still being
    downloaded."""
    name = models.check_name(name, "vlm")
    key = f"vlm:{name}"
    if name in models.VLMS:
        from tokenlab.pruning.vlm import load_bundled

        return models.shared(key, load_bundled)
    return models.shared(key, lambda: models.from_hub(key, name, "vlm", _open_vlm))


def load_vision_transformer(folder: str | Path) -> VisionTransformer:
    """A checkpoint on this machine, with the checks of intake.py; named after its folder. UserError: one failed."""
    folder = Path(folder)
    return _open_vit(folder.name, intake.read_folder(folder, folder.name, "vit"))


def load_vision_language_model(folder: str | Path, trusted: bool = False) -> VisionLanguageModel:
    """A checkpoint on this machine, with the checks of intake.py; named after its folder.

    trusted: open its tokenizer.json in this process. UserError: a check failed."""
    folder = Path(folder)
    return _open_vlm(folder.name, intake.read_folder(folder, folder.name, "vlm"), trusted)


def _open_vit(name: str, found: intake.Files) -> VisionTransformer:
    label = name.removeprefix("hub:")
    settings = intake.check_config(found.config, label, "vit")
    model, _ = intake.build(settings, label, "vit")
    pictures = intake.check_preprocessor(found.others[intake.PREPROCESSOR], model.config, label)
    architecture = intake.ARCHITECTURES["vit"][settings["model_type"]]
    located = intake.check_weights(found.weights, model, label, architecture)
    encoder = _encoder(name, model, pictures)
    intake.load(model, located, label, pixel_values=encoder.pixels(_black(encoder)))
    return encoder


def _encoder(name: str, model: PreTrainedModel, pictures: intake.Pictures) -> VisionTransformer:
    prefix = 1 + getattr(model.config, "num_register_tokens", 0)
    return VisionTransformer(name, model, pictures.size, model.config.patch_size, prefix, pictures.mean, pictures.std)


def _black(encoder: VisionTransformer) -> np.ndarray:
    return np.zeros((1, encoder.size, encoder.size, 3), np.uint8)


def _check_second_text(pipeline: dict[str, Any], name: str) -> None:
    """UserError: a tokenizer.json (one that could be opened) that adds a space to the first text of a prompt only.

    The text behind the picture is encoded by itself here, so it would get that space too."""
    waiting = [pipeline.get("pre_tokenizer")]
    while waiting:
        part = waiting.pop() or {}
        waiting += part.get("pretokenizers", [])
        if part.get("prepend_scheme") == "first":
            raise UserError(
                f"The tokenizer of {name} treats the text before a picture in another way than the text behind it, "
                "which is not supported; please choose another checkpoint."
            )


def _open_vlm(name: str, found: intake.Files, trusted: bool = False) -> VisionLanguageModel:
    import torch

    label = name.removeprefix("hub:")
    settings = intake.check_config(found.config, label, "vlm")
    model, context = intake.build(settings, label, "vlm")
    config = model.config
    pictures = intake.check_preprocessor(found.others[intake.PREPROCESSOR], config.vision_config, label)
    architecture = intake.ARCHITECTURES["vlm"][settings["model_type"]]
    located = intake.check_weights(found.weights, model, label, architecture)
    size = config.text_config.vocab_size
    data = found.others[intake.TOKENIZER]
    tokenizer, opening = models.open_tokenizer(name, data, size, trusted)
    opening += tuple(tokenizer.encode(BEFORE_PICTURE).ids.tolist())
    _check_second_text(intake.parse_json(data, intake.TOKENIZER, label), label)
    vision = _encoder(name, model.model.vision_tower, pictures)
    if len(opening) + vision.grid**2 >= context:
        raise UserError(
            f"A picture fills the {context:,} tokens that {label} has room for; please choose another checkpoint."
        )
    ids = torch.tensor([[*opening, *[config.image_token_id] * vision.grid**2]])
    intake.load(model, located, label, input_ids=ids, pixel_values=vision.pixels(_black(vision)))
    return VisionLanguageModel(
        name,
        model,
        vision,
        tokenizer,
        config.vision_feature_layer % (config.vision_config.num_hidden_layers + 1),
        opening,
        BEFORE_QUESTION,
        AFTER_QUESTION,
        models.end_ids(config.text_config),
        context,
    )
