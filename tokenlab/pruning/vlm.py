"""shapes-vlm, the vision-language model that ships: a LLaVA with a convolutional stem, in the parts of transformers.

Image encoder: CLIPVisionModel (pre-LN blocks, [CLS], learned positions) whose patch embedding is three convolutions of
stride 2 instead of one of stride 8, because small encoders learn fine shapes that way much sooner (Xiao et al. 2021).
Projector and language model are LLaVA-1.5's (Liu et al. 2023): the features of the last layer but one, without [CLS],
through two linear layers into a Llama. Its words are those of tokenlab.pruning.scenes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenlab.errors import UserError
from tokenlab.pruning import scenes

if TYPE_CHECKING:
    from tokenlab.models.vision import VisionLanguageModel

BOS, END, PAD, IMAGE = "<s>", "</s>", "<pad>", "<image>"
MEAN, STD = 0.5, 0.25  # of all three colour channels

CONFIG: dict[str, Any] = {
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "image_size": scenes.SIDE,
        "patch_size": scenes.PATCH,
        "hidden_act": "gelu",
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": 4 + len(scenes.words()),
        "hidden_size": 160,
        "intermediate_size": 416,
        "num_hidden_layers": 8,
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "max_position_embeddings": 1536,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    },
    "image_token_index": 3,
    "image_seq_length": scenes.GRID**2,
    "vision_feature_layer": -2,
}


def vocabulary() -> dict[str, int]:
    """Word -> id: four special ones, then those of the scenes."""
    return {word: i for i, word in enumerate((BOS, END, PAD, IMAGE, *scenes.words()))}


def normalised(images: np.ndarray) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, S, S) float32."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


class Stem(nn.Sequential):
    """(B, 3, S, S) -> (B, width, S / 8, S / 8): three convolutions of stride 2 and one across channels."""

    def __init__(self, width: int):
        super().__init__(
            *(nn.Conv2d(3, width // 4, 3, 2, 1), nn.GELU()),
            *(nn.Conv2d(width // 4, width // 2, 3, 2, 1), nn.GELU()),
            *(nn.Conv2d(width // 2, width, 3, 2, 1), nn.GELU()),
            nn.Conv2d(width, width, 1),
        )

    @property
    def weight(self) -> Tensor:  # transformers asks the patch embedding for its dtype
        return self[0].weight


def new(config: dict[str, Any]) -> nn.Module:
    """LlavaForConditionalGeneration with our stem, random weights, eager attention in the encoder."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = {k: v for k, v in config["vision_config"].items() if k != "model_type"}
    text = {k: v for k, v in config["text_config"].items() if k != "model_type"}
    rest = {k: v for k, v in config.items() if k not in ("vision_config", "text_config")}
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=CLIPVisionConfig(**vision), text_config=LlamaConfig(**text), **rest)
    )
    model.model.vision_tower.embeddings.patch_embedding = Stem(vision["hidden_size"])
    model.set_attn_implementation("eager")
    return model


# --- words

_WORD = r"[\p{L}\p{N}]+(?:-[\p{L}]+)*|[^\s\p{L}\p{N}]"


def tokenizer_json() -> dict[str, Any]:
    """The word tokenizer as a tokenizer.json: lower case, one id per word or sign."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False}
            for i, word in enumerate((BOS, END, PAD, IMAGE))
        ],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _WORD}, "behavior": "Isolated", "invert": False},
                {"type": "WhitespaceSplit"},
            ],
        },
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary(), "unk_token": PAD},
    }


def tokenizer():
    """The word tokenizer as TokenLab's."""
    from tokenlab.text.tokenizer_json import TokenizerJson

    return TokenizerJson("shapes-vlm", "shapes-vlm", tokenizer_json())


def question_ids(question: str) -> list[int]:
    """The ids of a question in any case and spacing; a question mark is put behind it when it has none.

    UserError: a word that the model has never seen."""
    import regex

    known = vocabulary()
    found = regex.findall(_WORD, question.lower())
    strange = [word for word in found if word not in known]
    if strange:
        raise UserError(
            f'shapes-vlm knows {len(scenes.words())} words, and "{strange[0][:40]}" is not one of them; '
            'please ask as in "what color is the star ?" or "how many circles are there ?".'
        )
    if found[-1] != "?":
        found.append("?")
    return [known[word] for word in found]


# --- the bundled weights


def load_bundled() -> VisionLanguageModel:
    """assets/models/shapes-vlm. UserError: it is not there."""
    from tokenlab import models

    return load_folder(models.FOLDER / "shapes-vlm")


def load_folder(folder: Path) -> VisionLanguageModel:
    """A folder as the recipe writes it: config.json, model.safetensors (float16), tokenizer.json."""
    from safetensors.torch import load_file

    if not (folder / "config.json").exists():
        raise UserError(f"The weights of {folder.name} are missing; please run recipes/shapes_vlm.py.")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    model = new({key: config[key] for key in CONFIG})
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights)
    return wrapped(model.eval(), tokenizer(), folder.name, folder)


def wrapped(model: nn.Module, tokenizer: Any, name: str, folder: Path | None = None) -> VisionLanguageModel:
    """A model of `new` as the drivers take it. folder: where its ONNX graphs lie, if it has some."""
    from tokenlab.models.vision import VisionLanguageModel, VisionTransformer

    vision, text = model.config.vision_config, model.config.text_config
    encoder = VisionTransformer(
        name, model.model.vision_tower, vision.image_size, vision.patch_size, 1, (MEAN,) * 3, (STD,) * 3
    )
    feature = model.config.vision_feature_layer % (vision.num_hidden_layers + 1)
    return VisionLanguageModel(
        name, model, encoder, tokenizer, feature, (0,), "", "", frozenset({1}), text.max_position_embeddings, folder
    )
