"""Checkpoints of unknown origin: what is checked before a library opens them, and the strict way in.

A checkpoint is a folder with config.json, model.safetensors (or shards and their index) and tokenizer.json,
as transformers saves it. `trust_remote_code=False` alone is no boundary: CVE-2026-4372 ran code through one
key of config.json. So nothing here is handed to `from_pretrained`:

1. config.json is parsed as plain JSON; its model_type must be listed, its keys known, its values bounded;
2. the listed class is built without memory (torch's meta device), which gives the exact number of parameters;
3. the headers of the safetensors files are parsed here: the tensors must lie end to end in the file, and
   their names and shapes must be those of that class;
4. only then are the tensors read, made float32 and put in place, all of them and nothing else.

What is left to the libraries is arithmetic on plain numbers. tokenizer.json goes to a child process
(tokenlab.text.sandbox), because its library can be made to crash; everything else in the folder is ignored.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import stat
import struct
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from inspect import get_annotations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenlab import limits
from tokenlab.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"

OLDEST_TRANSFORMERS = (5, 3)  # before it, `_attn_implementation_internal` in config.json ran code (CVE-2026-4372)


@dataclass(frozen=True)
class Architecture:
    """One model_type. config, model: its classes in transformers.models.<model_type>. keys: older names of
    config keys that the class still reads. renamed: older names of tensors. computed: tensors (a regular
    expression) that older checkpoints hold although the model makes them itself."""

    config: str
    model: str
    keys: frozenset[str] = frozenset({"rope_theta", "rope_scaling"})
    renamed: dict[str, str] = field(default_factory=dict)
    computed: str = r".*rotary_emb\.inv_freq"


ARCHITECTURES = {
    "llama": Architecture("LlamaConfig", "LlamaForCausalLM"),
    "mistral": Architecture("MistralConfig", "MistralForCausalLM"),
    "qwen2": Architecture("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": Architecture("Qwen3Config", "Qwen3ForCausalLM"),
    "gpt2": Architecture(
        "GPT2Config", "GPT2LMHeadModel", keys=frozenset(), computed=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias"
    ),
    "gpt_neox": Architecture(
        "GPTNeoXConfig",
        "GPTNeoXForCausalLM",
        keys=frozenset({"rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base"}),
        renamed={"embed_out.weight": "lm_head.weight"},
        computed=r".*\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
    ),
}

# Keys without a bearing on the numbers of a forward pass: allowed and dropped.
_METADATA = frozenset(
    "_name_or_path _num_labels architectures transformers_version torch_dtype dtype use_cache id2label label2id "
    "task_specific_params n_ctx gradient_checkpointing output_attentions output_hidden_states output_past "
    "return_dict torchscript problem_type chunk_size_feed_forward is_llama_config transformers.js_config".split()
)
# Allowed while they say what is so anyway.
_OFF = frozenset({"is_encoder_decoder", "add_cross_attention", "rope_interleaved"})
_CODE = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "custom_generate"})
_ACTIVATIONS = frozenset({"silu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu"})
_SIZES = {  # the largest value of each; all are at least 1
    **dict.fromkeys(("vocab_size",), limits.VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd"), 8_192),
    **dict.fromkeys(("intermediate_size", "n_inner"), 65_536),
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 96),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), 128),
    **dict.fromkeys(("head_dim",), 512),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "sliding_window"), 1 << 20),
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
    """The files of a checkpoint that are read, all of them plain files."""

    config: bytes
    weights: tuple[Path, ...]
    tokenizer: bytes


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


def read_folder(folder: Path, name: str) -> Files:
    """The checkpoint's files. UserError: one is missing, a link, no plain file, too large, or only a pickle."""
    config = read_plain(folder / CONFIG, limits.CONFIG_BYTES, name)
    if (folder / WEIGHTS).is_symlink() or (folder / WEIGHTS).exists():
        weights = [folder / WEIGHTS]
    elif (folder / INDEX).is_symlink() or (folder / INDEX).exists():
        weights = [folder / shard for shard in shards(read_plain(folder / INDEX, limits.HEADER_BYTES, name), name)]
    else:
        raise no_weights(name, any(p.suffix in _PICKLES for p in folder.iterdir()))
    check_weight_bytes(sum(_plain_size(path, name) for path in weights), name)
    return Files(config, tuple(weights), read_plain(folder / TOKENIZER, limits.FILE_BYTES, name))


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


def check_weight_bytes(size: int, name: str) -> None:
    if size > limits.WEIGHT_BYTES:
        raise UserError(
            f"The weights of {name} have {size / 1e6:,.0f} MB; "
            f"please choose a checkpoint of at most {limits.WEIGHT_BYTES / 1e6:,.0f} MB."
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


def check_config(data: bytes, name: str) -> dict[str, Any]:
    """The settings of config.json that shape the model, "model_type" among them; imports no library.

    UserError: not JSON, a model_type that is not listed, a key that runs code, is private or unknown to that
    type, a value out of bounds."""
    config = parse_json(data, CONFIG, name)
    kind = config.pop("model_type", None)
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise UserError(
            f"{name} is a model of the type {_word(kind)}; please choose one of the types {', '.join(ARCHITECTURES)}."
        )
    names = config.get("architectures")
    if names is not None and names != [ARCHITECTURES[kind].model]:
        raise UserError(f"{name} is not saved as {ARCHITECTURES[kind].model}; please choose a causal language model.")
    for key in [*config]:
        if key in _METADATA:
            del config[key]
        elif key in _OFF and config[key] is False:
            del config[key]
        else:
            _check_setting(key, config[key], name)
    return {"model_type": kind, **config}


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
    if key in _SIZES and value is not None and not (type(value) is int and 1 <= value <= _SIZES[key]):
        raise _out_of_bounds(key, name)
    if key in ("hidden_act", "activation_function") and not (isinstance(value, str) and value in _ACTIVATIONS):
        raise _out_of_bounds(key, name)
    if key == "rotary_pct" and not _is_share(value):
        raise _out_of_bounds(key, name)
    if key in ("rope_parameters", "rope_scaling"):
        _check_rope(key, value, name)
    elif key == "layer_types":
        if value is not None and not (isinstance(value, list) and set(map(str, value)) <= _LAYER_TYPES):
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


def _is_bounded(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 100
    return value is None or isinstance(value, int | float) and math.isfinite(value) and abs(value) < 1e10


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= 1


def _out_of_bounds(key: str, name: str) -> UserError:
    return UserError(f"{CONFIG} of {name} gives {_word(key)} a value out of bounds; please choose another checkpoint.")


def _word(value: Any) -> str:
    """A name from a file, fit for a sentence: short, and nothing that a page could take for markup."""
    plain = re.sub(r"[^\w.-]+", "_", str(value))[:40]
    return f'"{plain}"'


# --- the model without its weights


def check_libraries() -> None:
    """UserError: transformers is older than the fix of CVE-2026-4372, or `kernels`, through which it ran, is there."""
    installed = version("transformers")
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < OLDEST_TRANSFORMERS:
        oldest = ".".join(map(str, OLDEST_TRANSFORMERS))
        raise UserError(f"Models need transformers {oldest} or newer, not {installed}; please update it.")
    if find_spec("kernels") is not None:
        raise UserError("The package kernels lets a checkpoint run code; please uninstall it (pip uninstall kernels).")


def build(settings: dict[str, Any], name: str) -> tuple[PreTrainedModel, int]:
    """The listed class for check_config's `settings`, on torch's meta device (shapes and no memory), and the
    number of positions that a run may use: the model's, at most its sliding window, at most limits.CONTEXT.

    Attention is "eager", which gives its weights; a model that is shared must not be switched later. A sliding
    window is switched off, as no run goes beyond it.
    UserError: unknown keys, sizes that do not fit together, too many parameters."""
    import torch

    check_libraries()
    kind = settings["model_type"]
    architecture = ARCHITECTURES[kind]
    library = importlib.import_module(f"transformers.models.{kind}")
    config_class, model_class = getattr(library, architecture.config), getattr(library, architecture.model)
    values = {key: value for key, value in settings.items() if key != "model_type"}
    for key in sorted(set(values) - set(get_annotations(config_class)) - architecture.keys):
        raise UserError(f"{CONFIG} of {name} has a key {_word(key)} that {kind} has not; please choose another.")
    try:
        config = config_class(**values, attn_implementation="eager")
        _check_heads(config)
        window = getattr(config, "sliding_window", None)
        context = min(config.max_position_embeddings, window or limits.CONTEXT, limits.CONTEXT)
        if window is not None:
            config.sliding_window = None
        if getattr(config, "layer_types", None) is not None:
            config.layer_types = ["full_attention"] * config.num_hidden_layers
        with torch.device("meta"):
            model = model_class(config)
    except Exception as error:  # the library's many ways to say that values do not fit together
        raise UserError(
            f"{CONFIG} of {name} does not describe a model that transformers can build; please choose another."
        ) from error
    parameters = sum(weight.numel() for weight in model.parameters())
    if parameters > limits.PARAMETERS:
        raise UserError(
            f"{name} has {parameters / 1e6:,.0f} million parameters; "
            f"please choose a model of at most {limits.PARAMETERS / 1e6:,.0f} million."
        )
    return model.eval(), context


def _check_heads(config: PreTrainedConfig) -> None:
    heads = config.num_attention_heads
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


def check_weights(weights: tuple[Path, ...], model: PreTrainedModel, name: str) -> dict[str, Stored]:
    """Where each tensor of `model` lies, by its name in the model; a tied output layer may be missing.

    UserError: a tensor is missing, left over, there twice, of another shape or not a float."""
    located: dict[str, Stored] = {}
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    architecture = ARCHITECTURES[model.config.model_type]
    for path in weights:
        for tensor, stored in read_header(path, name).items():
            if re.fullmatch(architecture.computed, tensor):
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
        if target not in located and target not in optional:
            raise UserError(f"{name} lacks the tensor {_word(target)}; please choose a complete checkpoint.")
    return located


def tied(model: PreTrainedModel) -> dict[str, str]:
    """Tensors that the model shares with another one: {"lm_head.weight": "model.embed_tokens.weight"} or nothing."""
    return dict(model._tied_weights_keys) if model.config.tie_word_embeddings else {}


def _target(tensor: str, expected: dict, architecture: Architecture, prefix: str) -> str | None:
    """The model's name for a tensor of the file; GPT-2 on the Hub leaves the base model's prefix out."""
    for target in (tensor, architecture.renamed.get(tensor), f"{prefix}.{tensor}"):
        if target in expected:
            return target
    return None


def load(model: PreTrainedModel, located: dict[str, Stored], name: str) -> None:
    """Read the tensors that check_weights located into `model`, as float32 on the CPU.

    UserError: values that are no numbers, two versions of one tied tensor, a model that cannot run."""
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
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.requires_grad_(False)
    _try(model, name)


def _try(model: PreTrainedModel, name: str) -> None:
    """Compute the buffers that no file holds, and run the model on two tokens."""
    import torch

    ids = torch.tensor([[0, model.config.vocab_size - 1]])
    try:
        _compute_buffers(model)
        with torch.inference_mode():
            logits = model(ids).logits
    except Exception as error:  # whatever the library raises on settings that do not fit together
        raise UserError(f"{name} cannot run: its settings do not fit together; please choose another.") from error
    if not bool(torch.isfinite(logits).all()):
        raise UserError(f"{name} gives no numbers (NaN or infinity) on two tokens; please choose another checkpoint.")


def _compute_buffers(model: PreTrainedModel) -> None:
    """Give the frequencies of rotary positions, the only buffers of these models, their values."""
    for module in model.modules():
        missing = [key for key, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
        if missing:
            fresh = type(module)(model.config)
            for key in missing:
                setattr(module, key, getattr(fresh, key))
