"""Checkpoints of unknown origin: what is checked before a library opens them, and the strict way in.

A checkpoint is a folder with config.json, model.safetensors (or shards and their index) and tokenizer.json or
preprocessor_config.json or both, as transformers saves it. `trust_remote_code=False` alone is no boundary:
CVE-2026-4372 ran code through one key of config.json. So nothing here is handed to `from_pretrained`:

1. config.json is parsed as plain JSON; its model_type must be listed, its keys known, its values bounded, and
   so in the configs nested in it;
2. the listed class is built without memory (torch's meta device), which gives the exact number of parameters;
3. the headers of the safetensors files are parsed here: the tensors must lie end to end in the file, and
   their names and shapes must be those of that class;
4. only then are the tensors read, made float32 and put in place, all of them and nothing else.

Where only a part of a checkpoint is wanted (the image encoder of CLIP or LLaVA), the tensors of its other parts are
passed over by their names.

What is left to the libraries is arithmetic on plain numbers. tokenizer.json goes to a child process
(tokenlab.text.sandbox), because its library can be made to crash; everything else in the folder is ignored.
"""

from __future__ import annotations

import json
import math
import re
import stat
import struct
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenlab import limits
from tokenlab.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
PREPROCESSOR = "preprocessor_config.json"

KINDS = {
    "causal-lm": "a causal language model",
    "vit": "a vision transformer",
    "vlm": "a vision-language model",
    "audio-codec": "an audio codec",
}
FILES = {  # what a kind needs besides config.json and its weights, and the most bytes of each
    "causal-lm": {TOKENIZER: limits.FILE_BYTES},
    "vit": {PREPROCESSOR: limits.CONFIG_BYTES},
    "vlm": {PREPROCESSOR: limits.CONFIG_BYTES, TOKENIZER: limits.FILE_BYTES},
    "audio-codec": {},
}

OLDEST_TRANSFORMERS = (5, 3)  # before it, `_attn_implementation_internal` in config.json ran code (CVE-2026-4372)


@dataclass(frozen=True)
class Architecture:
    """One model_type as one kind of model.

    config, model: classes of transformers. saved: what config.json may name in `architectures`, by default `model`.
    keys: config keys that the class does not list: older names that it reads, and some without effect. aliases:
    keys that are another one's name. defaults: values of keys that are not there, where they are not the class's own.
    parts: nested configs, each with the types it may have (the first one when it names none). taken: the part that
    `model` is built from, where it is not the whole. renamed: regular expressions for older names of tensors and
    what to put instead, one after the other. skipped: tensors (a regular expression) that are passed over and need
    not be there: those of parts that are not taken, those that older checkpoints hold although the model makes them
    itself, and those that only training reads."""

    config: str
    model: str
    saved: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    aliases: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Architecture]] = field(default_factory=dict)
    taken: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    skipped: str = r"(?!)"


def _rotary(name: str, *keys: str, renamed: tuple = (), skipped: str = r".*rotary_emb\.inv_freq") -> Architecture:
    return Architecture(
        f"{name}Config",
        f"{name}ForCausalLM",
        keys=frozenset({"rope_theta", "rope_scaling", *keys}),
        renamed=renamed,
        skipped=skipped,
    )


_LANGUAGE = {
    "llama": _rotary("Llama"),
    "mistral": _rotary("Mistral"),
    "qwen2": _rotary("Qwen2"),
    "qwen3": _rotary("Qwen3"),
    "gpt2": Architecture("GPT2Config", "GPT2LMHeadModel", skipped=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias"),
    "gpt_neox": _rotary(
        "GPTNeoX",
        "rotary_pct",
        "rotary_emb_base",
        renamed=((r"^embed_out\.", "lm_head."),),
        skipped=r".*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
    ),
}
_POSITIONS = r".*\.position_ids"
_CLIP_VISION = Architecture(
    "CLIPVisionConfig",
    "CLIPVisionModel",
    saved=("CLIPVisionModel", "CLIPVisionModelWithProjection"),
    keys=frozenset({"vocab_size"}),
    renamed=((r"^vision_model\.", ""),),
    skipped=rf"visual_projection\.weight|{_POSITIONS}",
)
_CLIP_TEXT = Architecture("CLIPTextConfig", "CLIPTextModel")
# Its names since transformers 5; before 4.52 the language model had its own "model." and "lm_head.", and later
# versions still save those names.
_LLAVA = Architecture(
    "LlavaConfig",
    "LlavaForConditionalGeneration",
    keys=frozenset({"vocab_size", "ignore_index", "pad_token_id", "bos_token_id", "eos_token_id"}),
    parts={
        "vision_config": {"clip_vision_model": _CLIP_VISION},
        "text_config": {name: _LANGUAGE[name] for name in ("llama", "mistral", "qwen2")},
    },
    renamed=(
        (r"^language_model\.lm_head\.", "lm_head."),
        (r"^(model\.)?language_model\.model\.", "model.language_model."),
        (r"^(vision_tower|multi_modal_projector|language_model)\.", r"model.\1."),
        (r"^model\.vision_tower\.vision_model\.", "model.vision_tower."),
    ),
    skipped=rf"{_POSITIONS}|.*rotary_emb\.inv_freq",
)
# torch stored the two factors of a normalised weight under these names until 2.0, and EnCodec was converted before.
_WEIGHT_NORM = (
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)
_CODEBOOK_STATISTICS = r"quantizer\.\w+\.\d+\.codebook\.(inited|cluster_size|embed_avg)"
_DAC = Architecture("DacConfig", "DacModel", keys=frozenset({"hidden_size", "hop_length", "upsampling_ratios"}))
# Keys of speech models that only training or another head reads, some of them from older versions.
_SPEECH_KEYS = frozenset(
    "num_feat_extract_layers feat_extract_dropout feat_quantizer_dropout hidden_dropout_prob "
    "mask_channel_length mask_channel_min_space mask_channel_other mask_channel_prob "
    "mask_channel_selection mask_time_min_space mask_time_other mask_time_selection mask_feature_min_masks "
    "no_mask_channel_overlap no_mask_time_overlap freeze_feat_extract_train replace_prob".split()
)
_XCODEC = Architecture(
    "XcodecConfig",
    "XcodecModel",
    parts={
        "acoustic_model_config": {
            # Xcodec's own; its class puts them in when the file leaves them out, as it does with equal ones.
            "dac": replace(
                _DAC,
                defaults={
                    "encoder_hidden_size": 64,
                    "decoder_hidden_size": 1024,
                    "hidden_size": 256,
                    "downsampling_ratios": [8, 5, 4, 2],
                    "upsampling_ratios": [8, 5, 4, 2],
                },
            )
        },
        "semantic_model_config": {
            "hubert": Architecture("HubertConfig", "HubertModel", keys=_SPEECH_KEYS),
            "wavlm": Architecture("WavLMConfig", "WavLMModel", keys=_SPEECH_KEYS),
        },
    },
    renamed=_WEIGHT_NORM,
    skipped=rf"semantic_model\.masked_spec_embed|{_CODEBOOK_STATISTICS}",
)
_CODECS = {
    "encodec": Architecture("EncodecConfig", "EncodecModel", renamed=_WEIGHT_NORM, skipped=_CODEBOOK_STATISTICS),
    "dac": _DAC,
    # The file has the names from before its two halves were models of their own.
    "mimi": Architecture(
        "MimiConfig",
        "MimiModel",
        keys=frozenset({"frame_rate", "rope_theta"}),
        aliases={"_frame_rate": "frame_rate"},
        renamed=(
            (r"^encoder\.layers\.", "encoder.encoder_seanet.layers."),
            (r"^decoder\.layers\.", "decoder.decoder_seanet.layers."),
            (r"^(encoder_transformer|downsample)\.", r"encoder.\1."),
            (r"^(decoder_transformer|upsample)\.", r"decoder.\1."),
        ),
        skipped=r"quantizer\..*\.codebook\.initialized",
    ),
    "xcodec": _XCODEC,
}
_DINOV2_RENAMED = (
    (r"\.attention\.attention\.query\.", ".attention.q_proj."),
    (r"\.attention\.attention\.key\.", ".attention.k_proj."),
    (r"\.attention\.attention\.value\.", ".attention.v_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
)

ARCHITECTURES = {
    "causal-lm": _LANGUAGE,
    "vit": {
        "clip": Architecture(
            "CLIPConfig",
            "CLIPVisionModel",
            saved=("CLIPModel",),
            parts={
                "vision_config": {"clip_vision_model": _CLIP_VISION},
                "text_config": {"clip_text_model": _CLIP_TEXT},
            },
            taken="vision_config",
            renamed=_CLIP_VISION.renamed,
            skipped=rf"text_model\..*|(text|visual)_projection\.weight|logit_scale|{_POSITIONS}",
        ),
        "clip_vision_model": _CLIP_VISION,
        "dinov2": Architecture("Dinov2Config", "Dinov2Model", renamed=_DINOV2_RENAMED),
        "dinov2_with_registers": Architecture(
            "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", renamed=_DINOV2_RENAMED
        ),
        "llava": replace(
            _LLAVA,
            model="CLIPVisionModel",
            saved=(_LLAVA.model,),
            taken="vision_config",
            renamed=((r"^(model\.)?vision_tower\.(vision_model\.)?", ""),),
            skipped=rf"(model\.)?(language_model|multi_modal_projector)\..*|lm_head\.weight|{_POSITIONS}",
        ),
    },
    "vlm": {"llava": _LLAVA},
    "audio-codec": _CODECS,
}

# Keys without a bearing on the numbers of a forward pass: allowed and dropped.
_METADATA = frozenset(
    "_name_or_path _num_labels architectures transformers_version torch_dtype dtype use_cache id2label label2id "
    "task_specific_params n_ctx gradient_checkpointing output_attentions output_hidden_states output_past "
    "return_dict torchscript problem_type chunk_size_feed_forward is_llama_config transformers.js_config "
    # how a text would be generated: older versions wrote all of it into the configs of CLIP's two parts
    "bad_words_ids begin_suppress_tokens decoder_start_token_id diversity_penalty do_sample early_stopping "
    "encoder_no_repeat_ngram_size exponential_decay_length_penalty finetuning_task forced_bos_token_id "
    "forced_eos_token_id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams "
    "num_return_sequences output_scores prefix pruned_heads remove_invalid_values repetition_penalty "
    "return_dict_in_generate sep_token_id suppress_tokens temperature tf_legacy_loss tokenizer_class top_k top_p "
    "typical_p use_bfloat16 dropout "
    # which layers a detector would read from DINOv2
    "out_features out_indices stage_names apply_layernorm reshape_hidden_states".split()
)
# Allowed while they say what is so anyway.
_OFF = frozenset(
    "is_encoder_decoder is_decoder add_cross_attention cross_attention_hidden_size tie_encoder_decoder "
    "rope_interleaved use_swiglu_ffn text_config_dict vision_config_dict use_streaming add_adapter "
    "normalize chunk_length_s chunk_in_sec".split()
)
# Of a codec: what it would say of the sound outside of its tokens, of which there are one row for each level.
_BESIDE_TOKENS = {"audio_channels": (1,), "normalize": (False, None), "chunk_length_s": (None,)}
_CODE = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "custom_generate"})
_ACTIVATIONS = frozenset({"silu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "quick_gelu"})
_SIZES = {  # the largest value of each; all are at least 1
    **dict.fromkeys(("vocab_size",), limits.VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "projection_dim"), 8_192),
    **dict.fromkeys(("intermediate_size", "n_inner"), 65_536),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 96),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), 128),
    **dict.fromkeys(("head_dim",), 512),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "sliding_window"), 1 << 20),
    **dict.fromkeys(("image_size", "patch_size"), 1_024),
    **dict.fromkeys(("mlp_ratio",), 16),
    **dict.fromkeys(("num_register_tokens",), 64),
    **dict.fromkeys(("sampling_rate", "sample_rate"), limits.SOUND_RATES[1]),
    **dict.fromkeys(("num_quantizers", "num_semantic_quantizers", "n_codebooks"), limits.CODEC_LEVELS),
    **dict.fromkeys(("codebook_size", "hop_length"), 65_536),
    **dict.fromkeys(("codebook_dim", "vector_quantization_hidden_dimension", "upsample_groups"), 8_192),
    **dict.fromkeys(("encoder_hidden_size", "decoder_hidden_size"), 8_192),
    **dict.fromkeys(("num_filters", "num_conv_pos_embeddings", "num_conv_pos_embedding_groups"), 1_024),
    **dict.fromkeys(("kernel_size", "last_kernel_size", "residual_kernel_size", "unit_kernel_size", "compress"), 64),
    **dict.fromkeys(("num_residual_layers", "num_lstm_layers", "dilation_growth_rate"), 8),
    **dict.fromkeys(("num_buckets", "max_bucket_distance"), 8_192),
}
_LISTS = {  # the least and the largest of their numbers; all have 1 to 16 of them
    **dict.fromkeys(("upsampling_ratios", "downsampling_ratios"), (2, 64)),
    **dict.fromkeys(("strides", "block_dilations", "conv_stride", "conv_kernel"), (1, 64)),
    **dict.fromkeys(("channel_ratios",), (1, 8)),
    **dict.fromkeys(("conv_dim",), (1, 2_048)),
}
# "dynamic" and "longrope" rewrite their frequencies during a forward pass, which threads would share.
_ROPE_TYPES = frozenset({"default", "linear", "llama3", "yarn"})
_ROPE_KEYS = frozenset(
    "rope_type type rope_theta factor original_max_position_embeddings low_freq_factor high_freq_factor beta_fast "
    "beta_slow attention_factor mscale mscale_all_dim partial_rotary_factor truncate".split()
)
_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True)
class Files:
    """The files of a checkpoint that are read, all of them plain files. others: those of FILES, by their names."""

    config: bytes
    weights: tuple[Path, ...]
    others: dict[str, bytes]


@dataclass(frozen=True)
class Pictures:
    """What preprocessor_config.json says of an encoder's input. size: pixels of its square; mean, std: of each
    colour channel, for pixels from 0 to 1."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Stored:
    """A tensor as a safetensors header describes it."""

    path: Path
    tensor: str  # its name in that file
    dtype: str
    shape: tuple[int, ...]
    start: int  # its first byte in the file
    size: int  # its bytes


# --- the folder


def read_folder(folder: Path, name: str, kind: str = "causal-lm") -> Files:
    """The files of a checkpoint of one of KINDS.

    UserError: one is missing, a link, no plain file, too large, or only a pickle."""
    config = read_plain(folder / CONFIG, limits.CONFIG_BYTES, name)
    if (folder / WEIGHTS).is_symlink() or (folder / WEIGHTS).exists():
        weights = [folder / WEIGHTS]
    elif (folder / INDEX).is_symlink() or (folder / INDEX).exists():
        weights = [folder / shard for shard in shards(read_plain(folder / INDEX, limits.HEADER_BYTES, name), name)]
    else:
        raise no_weights(name, any(p.suffix in _PICKLES for p in folder.iterdir()))
    check_weight_bytes(sum(_plain_size(path, name) for path in weights), name, kind)
    others = {file: read_plain(folder / file, most, name) for file, most in FILES[kind].items()}
    return Files(config, tuple(weights), others)


def read_plain(path: Path, most: int, name: str) -> bytes:
    """The bytes of a plain file. UserError: there is none, it is a link or a device, it has more than `most`."""
    if _plain_size(path, name) > most:
        raise UserError(f"{path.name} of {name} is larger than {most / 1e6:g} MB; please choose another checkpoint.")
    return path.read_bytes()


def _plain_size(path: Path, name: str) -> int:
    try:
        found = path.lstat()
    except OSError:
        raise UserError(f"{name} has no {path.name}; please choose a complete checkpoint.") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path.name} of {name} is a link or no plain file; please put the file itself there.")
    return found.st_size


def shards(index: bytes, name: str) -> list[str]:
    """The file names in a model.safetensors.index.json. UserError: it is out of shape or has too many."""
    parsed = parse_json(index, INDEX, name)
    weight_map = parsed.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UserError(f"{INDEX} of {name} has no weight_map; please choose a complete checkpoint.")
    found = sorted({str(file) for file in weight_map.values()})
    if len(found) > limits.SHARDS or not all(_SHARD.fullmatch(file) for file in found):
        raise UserError(
            f"{INDEX} of {name} names more than {limits.SHARDS} files, or files that are no shards; "
            "please choose another checkpoint."
        )
    return found


def no_weights(name: str, has_pickle: bool) -> UserError:
    why = "only Python pickles, which can run code and are never opened here" if has_pickle else f"no {WEIGHTS}"
    return UserError(f"{name} has {why}; please choose a checkpoint with safetensors weights.")


def check_weight_bytes(size: int, name: str, kind: str = "causal-lm") -> None:
    most = limits.CODEC_WEIGHT_BYTES if kind == "audio-codec" else limits.WEIGHT_BYTES
    if size > most:
        raise UserError(
            f"The weights of {name} have {size / 1e6:,.0f} MB; "
            f"please choose a checkpoint of at most {most / 1e6:,.0f} MB, which runs without a GPU."
        )


def parse_json(data: bytes, file: str, name: str) -> dict[str, Any]:
    """A JSON object in UTF-8, no key twice, no NaN. UserError: it is something else."""
    try:
        parsed = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise UserError(f"{file} of {name} is not UTF-8 text; please choose another checkpoint.") from None
    except (ValueError, RecursionError):
        raise UserError(
            f"{file} of {name} is not valid JSON, or names something twice; please choose another checkpoint."
        ) from None
    if not isinstance(parsed, dict):
        raise UserError(f"{file} of {name} is not a JSON object; please choose another checkpoint.")
    return parsed


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


# --- config.json


def check_config(data: bytes, name: str, kind: str = "causal-lm") -> dict[str, Any]:
    """The settings of config.json that shape the model, "model_type" among them; imports no library.

    kind: one of KINDS. Nested configs come checked in the same way, each as a dictionary with its own "model_type".
    UserError: not JSON, a model_type that is not listed, a key that runs code, is private or unknown to that
    type, a value out of bounds."""
    config = parse_json(data, CONFIG, name)
    settings = _check_settings(config, config.get("model_type"), ARCHITECTURES[kind], "is a model", name)
    architecture = ARCHITECTURES[kind][settings["model_type"]]
    saved = architecture.saved or (architecture.model,)
    names = config.get("architectures")
    if names is not None and names not in [[model] for model in saved]:
        raise UserError(f"{name} is not saved as {' or '.join(saved)}; please choose {KINDS[kind]}.")
    return settings


def _check_settings(
    config: dict[str, Any], kind: Any, types: dict[str, Architecture], what: str, name: str
) -> dict[str, Any]:
    """`config` without what has no bearing on the numbers, `kind` as its "model_type"."""
    if not isinstance(kind, str) or kind not in types:
        raise UserError(f"{name} {what} of the type {_word(kind)}; please choose one of the types {', '.join(types)}.")
    parts = types[kind].parts
    found: dict[str, Any] = {"model_type": kind}
    for key, value in config.items():
        if key == "model_type" or key in _METADATA or key in _OFF and (value is None or value is False):
            continue
        key = types[kind].aliases.get(key, key)
        if key in found:
            raise _out_of_bounds(key, name)
        if key in parts and isinstance(value, dict):
            inner = value.get("model_type", next(iter(parts[key])))
            found[key] = _check_settings(value, inner, parts[key], f"has a {key}", name)
        else:
            _check_setting(key, value, name)
            found[key] = value
    for part in parts:
        if not isinstance(found.get(part), dict):
            raise UserError(f"{CONFIG} of {name} has no {part}; please choose a complete checkpoint.")
    return found


def _check_setting(key: str, value: Any, name: str) -> None:
    if key in _CODE:
        raise UserError(
            f'{name} wants to run its own code ("{key}" in {CONFIG}); please choose a checkpoint that needs none.'
        )
    if key.startswith("quantization"):
        raise UserError(f"{name} is quantized; please choose its version in float16, bfloat16 or float32.")
    if key.startswith("_"):
        raise UserError(
            f"{CONFIG} of {name} sets {_word(key)}, which is private to the library; please choose another."
        )
    if key in _BESIDE_TOKENS and value not in _BESIDE_TOKENS[key]:
        raise UserError(
            f"{name} codes more than one channel, or a loudness beside its tokens, which is not supported; "
            "please choose another codec, such as facebook/encodec_24khz."
        )
    if key in _SIZES and value is not None and not (type(value) is int and 1 <= value <= _SIZES[key]):
        raise _out_of_bounds(key, name)
    if key in ("hidden_act", "activation_function", "projector_hidden_act", "feat_extract_activation") and not (
        isinstance(value, str) and value in _ACTIVATIONS
    ):
        raise _out_of_bounds(key, name)
    if key == "rotary_pct" and not _is_share(value) or key == "num_channels" and value != 3 or key in _OFF:
        raise _out_of_bounds(key, name)
    if key in ("rope_parameters", "rope_scaling"):
        _check_rope(key, value, name)
    elif key == "layer_types":
        if value is not None and not (isinstance(value, list) and set(map(str, value)) <= _LAYER_TYPES):
            raise _out_of_bounds(key, name)
    elif key in _LISTS and value is not None:
        least, most = _LISTS[key]
        if not (_is_short_list(value) and all(type(item) is int and least <= item <= most for item in value)):
            raise _out_of_bounds(key, name)
    elif key == "target_bandwidths":  # in kbit/s
        if not (_is_short_list(value) and all(0 < _number(item) <= 10_000 for item in value)):
            raise _out_of_bounds(key, name)
    elif isinstance(value, list):  # eos_token_id
        if len(value) > 100 or not all(type(item) is int and _is_bounded(item) for item in value):
            raise _out_of_bounds(key, name)
    elif not _is_bounded(value):
        raise _out_of_bounds(key, name)


def _check_rope(key: str, value: Any, name: str) -> None:
    if value is None:
        return
    if not isinstance(value, dict) or not set(value) <= _ROPE_KEYS:
        raise _out_of_bounds(key, name)
    for part, item in value.items():
        if not _is_bounded(item) or part == "partial_rotary_factor" and not _is_share(item):
            raise _out_of_bounds(key, name)
        if part in ("rope_type", "type") and item not in _ROPE_TYPES:
            raise UserError(
                f"{name} scales its positions by the rule {_word(item)}, which is not supported; please choose another."
            )


def _is_short_list(value: Any) -> bool:
    return isinstance(value, list) and 1 <= len(value) <= 16


def _is_bounded(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 100
    return value is None or isinstance(value, int | float) and abs(value) < 1e10


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 1


def _out_of_bounds(key: str, name: str) -> UserError:
    return UserError(f"{CONFIG} of {name} gives {_word(key)} a value out of bounds; please choose another checkpoint.")


def _word(value: Any) -> str:
    """A name from a file, fit for a sentence: short, and nothing that a page could take for markup."""
    plain = re.sub(r"[^\w.-]+", "_", str(value))[:40]
    return f'"{plain}"'


# --- preprocessor_config.json


_PREPROCESSOR_KEYS = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std "
    "do_convert_rgb do_pad default_to_square image_processor_type feature_extractor_type processor_class "
    "_valid_processor_keys".split()
)


def check_preprocessor(data: bytes, config: PreTrainedConfig, name: str) -> Pictures:
    """What preprocessor_config.json says of the pictures for the encoder that `config` describes.

    UserError: not JSON, an unknown key, numbers out of bounds, a step that is not TokenLab's (tokenlab.models.vision
    says which ones are), a size that the encoder does not take."""
    found = parse_json(data, PREPROCESSOR, name)
    for key in found:
        if key in _CODE:
            _check_setting(key, found[key], name)
        if key not in _PREPROCESSOR_KEYS:
            raise UserError(f"{PREPROCESSOR} of {name} has an unknown key {_word(key)}; please choose another.")
    for key, needed in (("do_resize", True), ("do_rescale", True), ("do_normalize", True), ("do_pad", False)):
        if found.get(key) not in (None, needed):
            raise _odd_preprocessor(key, name)
    if not math.isclose(_number(found.get("rescale_factor", 1 / 255)), 1 / 255, rel_tol=1e-3):
        raise _odd_preprocessor("rescale_factor", name)
    if found.get("resample") not in (None, *range(6)):  # the filters of Pillow
        raise _odd_preprocessor("resample", name)
    mean, std = found.get("image_mean"), found.get("image_std")
    for key, values, least, most in (("image_mean", mean, 0, 1), ("image_std", std, 0.01, 2)):
        if not (isinstance(values, list) and len(values) == 3 and all(least <= _number(v) <= most for v in values)):
            raise _odd_preprocessor(key, name)
    size = _side(found.get("size"), "size", name)
    if found.get("do_center_crop") not in (None, True, False):
        raise _odd_preprocessor("do_center_crop", name)
    if found.get("do_center_crop", "crop_size" in found):
        crop = _side(found.get("crop_size"), "crop_size", name)
        if crop > size:  # the processor would put black around the picture
            raise _odd_preprocessor("crop_size", name)
        size = crop
    # DINOv2 stretches its table of positions to any grid; CLIP has one position for each patch.
    free = config.model_type.startswith("dinov2")
    if size % config.patch_size or size > config.image_size or not free and size != config.image_size:
        raise UserError(
            f"{PREPROCESSOR} of {name} makes pictures of {size:,} pixels, "
            f"which its encoder does not take; please choose another checkpoint."
        )
    return Pictures(size, tuple(map(float, mean)), tuple(map(float, std)))


def _side(value: Any, key: str, name: str) -> int:
    """n of n, {"shortest_edge": n} or {"height": n, "width": n}."""
    sides = value.values() if isinstance(value, dict) else [value]
    if isinstance(value, dict) and set(value) not in ({"shortest_edge"}, {"height", "width"}):
        raise _odd_preprocessor(key, name)
    side, *others = sides
    if type(side) is not int or not 1 <= side <= _SIZES["image_size"] or any(other != side for other in others):
        raise _odd_preprocessor(key, name)
    return side


def _number(value: Any) -> float:
    """`value` as a float; NaN, which is within no bounds, when it is no number or too large for one."""
    return float(value) if type(value) in (int, float) and _is_bounded(value) else math.nan


def _odd_preprocessor(key: str, name: str) -> UserError:
    return UserError(
        f"{PREPROCESSOR} of {name} gives {_word(key)} a value that is not supported; please choose another checkpoint."
    )


# --- the model without its weights


def check_libraries() -> None:
    """UserError: transformers is older than the fix of CVE-2026-4372, or `kernels`, through which it ran, is there."""
    installed = version("transformers")
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise UserError(f"Models need transformers {oldest} or newer, not {installed}; please update it.")
    if find_spec("kernels") is not None:
        raise UserError("The package kernels lets a checkpoint run code; please uninstall it (pip uninstall kernels).")


def build(settings: dict[str, Any], name: str, kind: str = "causal-lm") -> tuple[PreTrainedModel, int]:
    """The listed class for check_config's `settings`, on torch's meta device (shapes and no memory), and the number
    of positions that a run of its language model may use: the model's, at most its sliding window, at most
    limits.CONTEXT; 0 where there is no language model.

    Attention is "eager", which gives its weights; a model that is shared must not be switched later. A sliding
    window is switched off, as no run goes beyond it.
    A codec's codebooks count as parameters too; `load_codec` builds it once more.
    UserError: unknown keys, sizes that do not fit together, too many parameters."""
    import torch
    import transformers

    check_libraries()
    architecture = ARCHITECTURES[kind][settings["model_type"]]
    _check_keys(settings, architecture, name)
    try:
        config = _configure(settings, architecture)
        if architecture.taken:
            config = getattr(config, architecture.taken)
        context = _bound_context(getattr(config, "text_config", config)) if kind in ("causal-lm", "vlm") else 0
        shape = codec_shape(config) if kind == "audio-codec" else None
    except Exception as error:
        raise _does_not_fit(name) from error
    if kind in ("vit", "vlm"):
        _check_encoder(vision_config(config), name)
    if shape:
        _check_codec(shape, name)
    if kind == "vlm":
        _check_joint(config, name)
    try:
        # A part that is a model of its own draws its weights, meta device or not.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = getattr(transformers, architecture.model)(config)
    except Exception as error:
        raise _does_not_fit(name) from error
    parameters = sum(weight.numel() for weight in model.parameters())
    if shape:
        parameters += sum(buffer.numel() for buffer in model.buffers())
    if parameters > limits.PARAMETERS:
        raise UserError(
            f"{name} has {parameters / 1e6:,.0f} million parameters; please choose a model of at most "
            f"{limits.PARAMETERS / 1e6:,.0f} million, which runs without a GPU."
        )
    return model.eval(), context


def _check_keys(settings: dict[str, Any], architecture: Architecture, name: str) -> None:
    import transformers

    known = set(get_annotations(getattr(transformers, architecture.config))) | architecture.keys | {"model_type"}
    for key in sorted(set(settings) - known):
        kind = settings["model_type"]
        raise UserError(f"{CONFIG} of {name} has a key {_word(key)} that {kind} has not; please choose another.")
    for part, types in architecture.parts.items():
        _check_keys(settings[part], types[settings[part]["model_type"]], name)


def _configure(settings: dict[str, Any], architecture: Architecture) -> PreTrainedConfig:
    """The config object for checked settings, with those nested in it. The library's many ways to say that values
    do not fit together come through."""
    import transformers

    values = architecture.defaults | {key: value for key, value in settings.items() if key != "model_type"}
    for part, types in architecture.parts.items():
        values[part] = _configure(values[part], types[values[part]["model_type"]])
    config = getattr(transformers, architecture.config)(**values, attn_implementation="eager")
    if not architecture.parts:
        _check_heads(config)
    return config


def _bound_context(config: PreTrainedConfig) -> int:
    window = getattr(config, "sliding_window", None)
    if window is not None:
        config.sliding_window = None
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = ["full_attention"] * config.num_hidden_layers
    return min(config.max_position_embeddings, window or limits.CONTEXT, limits.CONTEXT)


def vision_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """The part of `config` that describes the image encoder, or `config` itself when it describes nothing else."""
    return getattr(config, "vision_config", config)


def _check_encoder(config: PreTrainedConfig, name: str) -> None:
    """UserError: patches that do not tile the picture, or more of them (or more heads) than a run can bear."""
    if config.image_size is None or config.patch_size is None:  # which CLIP's own class lets through
        raise _does_not_fit(name)
    if config.image_size % config.patch_size:
        raise UserError(
            f"Patches of {config.patch_size:,} pixels do not tile a picture of {config.image_size:,} in {name}; "
            "please choose another checkpoint."
        )
    patches = (config.image_size // config.patch_size) ** 2
    if patches > limits.PATCHES or config.num_attention_heads > limits.VISION_HEADS:
        raise UserError(
            f"{name} has {patches:,} patches and {config.num_attention_heads:,} heads; please choose a checkpoint with "
            f"at most {limits.PATCHES:,} and {limits.VISION_HEADS:,}."
        )


def _check_joint(config: PreTrainedConfig, name: str) -> None:
    """UserError: a LLaVA whose parts do not meet, or meet in a way that is not supported."""
    layers = config.vision_config.num_hidden_layers
    layer, strategy = config.vision_feature_layer, config.vision_feature_select_strategy
    if not 0 <= config.image_token_index < config.text_config.vocab_size:
        raise UserError(
            f"{name} marks pictures with the id {config.image_token_index:,}, "
            f"but its vocabulary has {config.text_config.vocab_size:,} entries; please choose another checkpoint."
        )
    if type(layer) is not int or not -layers - 1 <= layer <= layers:
        raise UserError(
            f"{name} takes its picture from several layers, or from one that its encoder has not; "
            "please choose a checkpoint that takes one."
        )
    if strategy != "default":
        raise UserError(
            f"{name} hands the encoder's [CLS] token to its language model (vision_feature_select_strategy "
            f"{_word(strategy)}); please choose a checkpoint with the strategy default."
        )


@dataclass(frozen=True)
class CodecShape:
    """What a codec makes of a second of sound.

    rate: samples; hop: samples that a frame stands for; levels: codebooks, size: entries of each; activations:
    numbers that its largest layer at full rate holds; positions, heads: of its attention, 0 where it has none."""

    rate: int
    hop: int
    levels: int
    size: int
    activations: int
    positions: float = 0
    heads: int = 0


def codec_shape(config: PreTrainedConfig) -> CodecShape:
    """That of a codec's config. The many ways in which its values may not fit together come through."""
    if config.model_type == "xcodec":
        acoustic, semantic, rate = config.acoustic_model_config, config.semantic_model_config, config.sample_rate
        hop, activations = _dac_shape(acoustic, rate)
        stride = math.prod(semantic.conv_stride)
        if stride * math.prod(config.strides) != hop:
            raise ValueError("the acoustic and the semantic model have other frames")
        for i, channels in enumerate(semantic.conv_dim):
            activations = max(activations, rate * channels // math.prod(semantic.conv_stride[: i + 1]))
        heads = semantic.num_attention_heads
        return CodecShape(rate, hop, config.num_quantizers, config.codebook_size, activations, rate / stride, heads)
    rate = config.sampling_rate
    if config.model_type == "dac":
        hop, activations = _dac_shape(config, rate)
        return CodecShape(rate, hop, config.n_codebooks, config.codebook_size, activations)
    stride = math.prod(config.upsampling_ratios)
    # A residual layer pads as many samples as it looks back, at each rate; the slowest has the most channels.
    reach = config.residual_kernel_size * config.dilation_growth_rate ** (config.num_residual_layers - 1)
    activations = config.num_filters * max(rate, reach * 2 ** (len(config.upsampling_ratios) - 1))
    if config.model_type == "mimi":
        hop = stride * config.latent_stride
        levels, size = config.num_quantizers, config.codebook_size
        return CodecShape(rate, hop, levels, size, activations, rate / stride, config.num_attention_heads)
    return CodecShape(rate, stride, config.num_quantizers, config.codebook_size, activations)


def _dac_shape(config: PreTrainedConfig, rate: int) -> tuple[int, int]:
    """hop and activations of CodecShape."""
    hop = math.prod(config.downsampling_ratios)
    if hop != math.prod(config.upsampling_ratios):
        raise ValueError("the encoder and the decoder have other frames")
    return hop, rate * max(config.encoder_hidden_size, config.decoder_hidden_size >> len(config.upsampling_ratios))


def _check_codec(shape: CodecShape, name: str) -> None:
    """UserError: rates, levels or frames out of bounds, or more work for a clip than a run can bear."""
    least, most = limits.SOUND_RATES
    if not least <= shape.rate <= most:
        raise UserError(
            f"{name} is a codec of {shape.rate:,} samples a second; please choose one of {least:,} to {most:,}."
        )
    if not 1 <= shape.levels <= limits.CODEC_LEVELS or shape.hop < limits.CODEC_HOP:
        raise UserError(
            f"{name} has {shape.levels:,} codebooks and frames of {shape.hop:,} samples; please choose a codec with "
            f"1 to {limits.CODEC_LEVELS} and of at least {limits.CODEC_HOP}."
        )
    positions = shape.positions * limits.SOUND_SECONDS
    if (
        shape.activations > limits.CODEC_ACTIVATIONS
        or positions > limits.CODEC_POSITIONS
        or shape.heads > limits.VISION_HEADS
    ):
        raise UserError(
            f"{name} holds {shape.activations / 1e6:,.1f} million numbers for a second of sound and {positions:,.0f} "
            f"positions with {shape.heads:,} heads for a clip; please choose a codec with at most "
            f"{limits.CODEC_ACTIVATIONS / 1e6:,.1f} million, {limits.CODEC_POSITIONS:,} and {limits.VISION_HEADS}."
        )


def _does_not_fit(name: str) -> UserError:
    return UserError(
        f"{CONFIG} of {name} does not describe a model that transformers can build; please choose another."
    )


def _check_heads(config: PreTrainedConfig) -> None:
    heads = getattr(config, "num_attention_heads", None)
    if heads is None:  # a codec without attention
        return
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None)
    if heads % kv_heads or (head_dim is None and config.hidden_size % heads) or (head_dim or 0) % 2:
        raise ValueError("the heads do not divide the hidden size")


# --- safetensors


def read_header(path: Path, name: str) -> dict[str, Stored]:
    """The tensors of a safetensors file by name, from its header alone.

    The format: 8 bytes little-endian N, N bytes of JSON {tensor: {dtype, shape, data_offsets}}, the data.
    UserError: the file is cut short, or the tensors do not lie end to end in it."""
    size = _plain_size(path, name)
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(limits.HEADER_BYTES, size - 8):
            raise _damaged(path, name)
        header = parse_json(file.read(length), path.name, name)
    header.pop("__metadata__", None)
    found, spans = {}, []
    for tensor, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _damaged(path, name)
        dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (isinstance(dtype, str) and dtype in _ITEM_BYTES and _are_counts(shape, 8) and _are_counts(span, 2)):
            raise _damaged(path, name)
        if len(span) != 2 or span[1] - span[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
            raise _damaged(path, name)
        found[tensor] = Stored(path, tensor, dtype, tuple(shape), 8 + length + span[0], span[1] - span[0])
        spans.append(tuple(span))
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise _damaged(path, name)
        end = last
    if end != size - 8 - length:
        raise _damaged(path, name)
    return found


def _are_counts(value: Any, most: int) -> bool:
    return isinstance(value, list) and len(value) <= most and all(type(n) is int and 0 <= n < 2**40 for n in value)


def _damaged(path: Path, name: str) -> UserError:
    return UserError(
        f"{path.name} of {name} is cut short or is not a safetensors file; please get the whole file again."
    )


def check_weights(
    weights: tuple[Path, ...], model: PreTrainedModel, name: str, architecture: Architecture | None = None
) -> dict[str, Stored]:
    """Where each tensor of `model` lies, by its name in the model; a tied output layer may be missing, and so may
    what is skipped.

    architecture: of the checkpoint; by default that of the causal language model that `model` is.
    UserError: a tensor is missing, left over, there twice, of another shape or not a float."""
    located: dict[str, Stored] = {}
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    architecture = architecture or ARCHITECTURES["causal-lm"][model.config.model_type]
    for path in weights:
        for tensor, stored in read_header(path, name).items():
            if re.fullmatch(architecture.skipped, tensor):
                continue
            target = _target(tensor, expected, architecture, model.base_model_prefix)
            if target is None or target in located:
                raise UserError(f"{name} holds a tensor {_word(tensor)} that its {CONFIG} has no place for.")
            if stored.shape != expected[target] or stored.dtype not in _FLOATS:
                raise UserError(
                    f"The tensor {_word(tensor)} of {name} has another shape or type than its {CONFIG} says."
                )
            located[target] = stored
    optional = set(tied(model))
    for target in expected:
        if target not in located and target not in optional and not re.fullmatch(architecture.skipped, target):
            raise UserError(f"{name} lacks the tensor {_word(target)}; please choose a complete checkpoint.")
    return located


def tied(model: PreTrainedModel) -> dict[str, str]:
    """Tensors that the model shares with another one: {"lm_head.weight": "model.embed_tokens.weight"} or nothing."""
    return dict(model._tied_weights_keys or {}) if getattr(model.config, "tie_word_embeddings", False) else {}


def _target(tensor: str, expected: dict, architecture: Architecture, prefix: str) -> str | None:
    """The model's name for a tensor of the file; GPT-2 on the Hub leaves the base model's prefix out."""
    renamed = tensor
    for pattern, replacement in architecture.renamed:
        renamed = re.sub(pattern, replacement, renamed)
    for target in (tensor, renamed, f"{prefix}.{tensor}"):
        if target in expected:
            return target
    return None


def load(model: PreTrainedModel, located: dict[str, Stored], name: str, **inputs: torch.Tensor) -> None:
    """Read the tensors that check_weights located into `model`, as float32 on the CPU.

    inputs: what the model is tried on, by default two tokens.
    UserError: values that are no numbers, two versions of one tied tensor, a model that cannot run."""
    import torch

    model.load_state_dict(_read(model, located, name), strict=True, assign=True)
    model.tie_weights()
    model.requires_grad_(False)
    _try(model, name, inputs or {"input_ids": torch.tensor([[0, model.config.vocab_size - 1]])})


def load_codec(model: PreTrainedModel, located: dict[str, Stored], name: str) -> PreTrainedModel:
    """`model`, which is on the meta device, anew on the CPU, with the tensors that check_weights located.

    What is not located is what only training reads; it has the values that the class gives it. A codec's layers keep
    numbers outside of their buffers too, so it has to be built twice. UserError: values that are no numbers."""
    import torch

    state = _read(model, located, name)
    with torch.random.fork_rng(devices=[]):  # building draws weights
        built = type(model)(model.config)
    built.load_state_dict(built.state_dict() | state, strict=True, assign=True)
    return built.eval().requires_grad_(False)


def _read(model: PreTrainedModel, located: dict[str, Stored], name: str) -> dict[str, torch.Tensor]:
    """The located tensors as float32 by their names in the model, tied ones under both of them."""
    import torch
    from safetensors import safe_open

    state = {}
    for path in {stored.path for stored in located.values()}:
        with safe_open(path, framework="pt", device="cpu") as file:
            for target, stored in located.items():
                if stored.path == path:
                    state[target] = file.get_tensor(stored.tensor).to(torch.float32, copy=True)
    for target, source in tied(model).items():
        if target in state and not torch.equal(state[target], state[source]):
            raise UserError(f"{name} says that its output layer is its embedding, but it holds two different ones.")
        state[target] = state[source]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise UserError(f"{name} has weights that are no numbers (NaN or infinity); please choose another checkpoint.")
    return state


def _try(model: PreTrainedModel, name: str, inputs: dict[str, torch.Tensor]) -> None:
    """Compute the buffers that no file holds, and run the model once."""
    import torch

    try:
        _compute_buffers(model)
        with torch.inference_mode():
            output = model(**inputs)[0]
    except Exception as error:  # whatever the library raises on settings that do not fit together
        raise UserError(f"{name} cannot run: its settings do not fit together; please choose another.") from error
    if not bool(torch.isfinite(output).all()):
        raise UserError(f"{name} gives no numbers (NaN or infinity) when it is tried; please choose another.")


def _compute_buffers(model: PreTrainedModel) -> None:
    """Give the frequencies of rotary positions and the indices of patches, the only buffers, their values."""
    import torch

    for module in model.modules():
        missing = [key for key, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        if missing:
            with torch.random.fork_rng(devices=[]):  # a fresh embedding draws weights
                fresh = type(module)(module.config)
            for key in missing:
                setattr(module, key, getattr(fresh, key))
