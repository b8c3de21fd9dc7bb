"""Models: the small ones that ship with TokenLab and any Hub checkpoint, behind one call.

    model = causal_lm("tinylm")                  # or "bytelm", or "hub:HuggingFaceTB/SmolLM2-135M"
    prompt = model.prompt("Once upon a time")    # ids and the bytes that each of them stands for
    logits = model.torch(torch.from_numpy(prompt.ids)[None]).logits

A causal language model comes as a torch module of transformers (float32, on the CPU, evaluation mode, "eager"
attention, so that its weights can be read) with its tokenizer. `onnx_session(name)` gives the exported graph of a
bundled model instead, which is the faster way where nobody looks inside; `generate` takes it by itself.

| file | what |
| --- | --- |
| intake.py | the checks of a checkpoint of unknown origin, and the strict way to load it |
| hub.py | config.json, safetensors and what else a kind needs from the Hub: sizes first, no login |
| vision.py | vision transformers and vision-language models: what they look like, and how they are loaded |
| audio.py | audio codecs: those of the Hub as an AudioTokenizer, and how they are loaded |
| onnx.py | export with the key-value cache, sessions, greedy generation |
| byte_model.py | the interface of models that predict bytes, and a byte-vocabulary model through it |

A bundled model is a folder assets/models/<name> as transformers saves it, so that
`AutoModelForCausalLM.from_pretrained` opens it too, with model.onnx and card.md in it; recipes/ made it.

The tokenizer is TokenLab's own (tokenlab.text.tokenization), not that of transformers: its tokens are byte spans,
special tokens that a user types stay text, and a file of unknown origin stays in its child process.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tokenlab import guard, limits
from tokenlab.errors import UserError
from tokenlab.models import hub, intake
from tokenlab.text import files, sources
from tokenlab.text.remote import in_time
from tokenlab.text.sandbox import File, SandboxedTokenizer
from tokenlab.text.tokenization import Tokenization, Tokenizer
from tokenlab.text.tokenizer_json import TokenizerJson

if TYPE_CHECKING:
    import onnxruntime
    from transformers import PreTrainedConfig, PreTrainedModel

FOLDER = Path(__file__).parents[2] / "assets" / "models"
CAUSAL_LMS = ("tinylm", "bytelm")
VLMS = ("shapes-vlm",)
AUDIO_CODECS = ("rvq8", "vq1")
# What a menu of that kind lists; any hub:owner/name may be typed. A bundled VLM hands out its image encoder.
OFFERED = {"causal-lm": CAUSAL_LMS, "vit": VLMS, "vlm": VLMS, "audio-codec": AUDIO_CODECS}

_T = TypeVar("_T")


@dataclass(frozen=True)
class Prompt:
    """A text as a model reads it.

    ids (n,) int64: the first ids are the checkpoint's own opening (`LanguageModel.opening`), then the tokens.
    tokens: those tokens with their byte spans in the text. dropped: how many were left out at the text's
    beginning; note: the sentence that says so, or None."""

    ids: np.ndarray
    tokens: Tokenization
    dropped: int
    note: str | None


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model. Many threads may share it: put no hook on `torch` that you do not take off again.

    opening: ids that its own tokenizer puts in front of every text (<s>), end: ids that end a text,
    context: the most ids of a prompt and what is generated, together."""

    name: str
    torch: PreTrainedModel
    tokenizer: Tokenizer
    opening: tuple[int, ...]
    end: frozenset[int]
    context: int

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output layer; the tokenizer may have fewer entries."""
        return self.torch.config.vocab_size

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.torch.parameters())

    def prompt(self, text: str, new_tokens: int = 0) -> Prompt:
        """`text` as ids, with room for `new_tokens` more; of a text that is too long, the last tokens stay.

        UserError: the text is empty and the model has no opening, or there is no room at all."""
        limits.check_text(text, name="The prompt")
        tokens = self.tokenizer.encode(text)
        if not len(tokens) + len(self.opening):
            raise UserError("The prompt is empty; please write at least one word.")
        room = self.context - len(self.opening) - new_tokens
        if room < 1:
            raise UserError(
                f"{self.name} has room for {self.context:,} tokens; please ask for fewer than {new_tokens:,} new ones."
            )
        dropped = max(0, len(tokens) - room)
        kept = Tokenization(tokens.ids[dropped:], tokens.starts[dropped:], tokens.ends[dropped:])
        note = None
        if dropped:
            note = (
                f"The prompt has {len(tokens):,} tokens, and {self.name} has room for {room:,} of them here: "
                f"the first {dropped:,} are left out."
            )
        return Prompt(np.concatenate((np.array(self.opening, np.int64), kept.ids)), kept, dropped, note)


def check_name(name: str, kind: str | None = None) -> str:
    """`name` when it is well formed, a bare owner/name with "hub:". UserError: it is not. Loads nothing.

    kind: of OFFERED; its bundled models are the ones meant. None: a bundled model of any kind will do."""
    bundled = OFFERED[kind or "causal-lm"]
    if name in bundled or kind is None and any(name in names for names in OFFERED.values()):
        return name
    if name.startswith("hub:") or "/" in name and ":" not in name:
        return sources.check_ref(name)
    raise UserError(f"There is no such model; please choose one of {', '.join(bundled)} or hub:owner/name.")


def causal_lm(name: str) -> LanguageModel:
    """The model that `name` means: "tinylm", "bytelm" or "hub:owner/name".

    Bundled models stay in memory, and the last limits.MODELS of the Hub. Threads share what is loaded once.
    UserError: malformed, off-line, not found, refused (intake), still being downloaded."""
    name = check_name(name, "causal-lm")
    if name in CAUSAL_LMS:
        return shared(name, lambda: load_folder(FOLDER / name, trusted=True))
    return shared(name, lambda: from_hub(name, name, "causal-lm", _open))


def shared(key: str, load: Callable[[], _T]) -> _T:
    """What `load` gives, once for all who ask for `key`.

    The last limits.MODELS of all kinds whose key holds "hub:" stay in memory, and all others."""
    with _lock:
        slot = _slots.setdefault(key, _Slot())
        _slots.move_to_end(key)
        for old in [key for key in _slots if "hub:" in key][: -limits.MODELS]:
            del _slots[old]
    with slot.lock:
        if slot.model is None:
            try:
                slot.model = load()
            except BaseException:
                with _lock:
                    _slots.pop(key, None)
                raise
        return slot.model


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: Any = None


_lock = threading.Lock()
_slots: OrderedDict[str, _Slot] = OrderedDict()


def load_folder(folder: str | Path, trusted: bool = False) -> LanguageModel:
    """A checkpoint on this machine, with the checks of intake.py; named after its folder.

    trusted: open its tokenizer.json in this process. UserError: a check failed."""
    folder = Path(folder)
    return _open(folder.name, intake.read_folder(folder, folder.name), trusted)


def from_hub(key: str, name: str, kind: str, open_files: Callable[[str, intake.Files], _T]) -> _T:
    """The Hub's checkpoint `name` as a model of `kind`, for `shared`, which keeps it under `key`.

    open_files(name, files): builds it. UserError: as for hub.fetch; still being downloaded."""
    repo = name.removeprefix("hub:")

    def work() -> _T:
        with tempfile.TemporaryDirectory(prefix="tokenlab-") as folder:
            model = open_files(name, hub.fetch(repo, Path(folder), kind))
        with _lock:  # whoever asked may have left by now; the next one finds it here
            _slots.setdefault(key, _Slot()).model = model
        return model

    return in_time(
        limits.MODEL_SECONDS, f"model:{key}", work, f"{repo} is still being downloaded; please try again in a minute."
    )


def _open(name: str, found: intake.Files, trusted: bool = False) -> LanguageModel:
    label = name.removeprefix("hub:")
    settings = intake.check_config(found.config, label)
    model, context = intake.build(settings, label)
    located = intake.check_weights(found.weights, model, label)
    tokenizer, opening = open_tokenizer(name, found.others[intake.TOKENIZER], model.config.vocab_size, trusted)
    intake.load(model, located, label)
    return LanguageModel(name, model, tokenizer, opening, end_ids(model.config), context)


def open_tokenizer(name: str, data: bytes, size: int, trusted: bool) -> tuple[Tokenizer, tuple[int, ...]]:
    """The tokenizer in `data` for a model of `size` entries, and the ids that it puts in front of every text.

    trusted: open it in this process. UserError: it is no tokenizer, or has ids that the model lacks."""
    label = name.removeprefix("hub:")
    pipeline = intake.parse_json(data, intake.TOKENIZER, label)
    tokenizer = _tokenizer(name, label, data, pipeline, trusted)
    if tokenizer.vocabulary_size > size:
        raise UserError(
            f"The tokenizer of {label} has ids up to {tokenizer.vocabulary_size - 1:,}, "
            f"but the model only has {size:,} entries; please choose another checkpoint."
        )
    opening = _opening(pipeline, label)
    if any(not 0 <= i < size for i in opening):
        raise UserError(f"The tokenizer of {label} begins a text with ids that the model lacks; please choose another.")
    return tokenizer, opening


def end_ids(config: PreTrainedConfig) -> frozenset[int]:
    """The ids that end a text, of those that the language model with this config has."""
    end = config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    return frozenset(i for i in ends if i is not None and 0 <= i < config.vocab_size)


def _tokenizer(name: str, label: str, data: bytes, pipeline: dict[str, Any], trusted: bool) -> Tokenizer:
    if trusted:
        return TokenizerJson(name, label, pipeline)
    file = File(data, files.kind_of(data, intake.TOKENIZER), label)
    # The child is found again by this reference: the same bytes may share one.
    return SandboxedTokenizer(f"file:{sha256(data).hexdigest()[:16]}", label, lambda: file)


def _opening(pipeline: dict[str, Any], label: str) -> tuple[int, ...]:
    """Ids that the post-processor of a tokenizer.json puts in front of a text: `<s> $A` in a template."""
    try:
        waiting = [pipeline.get("post_processor")]
        while waiting:
            part = waiting.pop()
            if part is not None and part["type"] == "Sequence":
                waiting.extend(part["processors"])
            elif part is not None and part["type"] == "TemplateProcessing":
                found: list[int] = []
                for item in part["single"]:
                    if "Sequence" in item:
                        break
                    found += part["special_tokens"][item["SpecialToken"]["id"]]["ids"]
                if len(found) > 8 or not all(type(i) is int for i in found):
                    raise ValueError
                return tuple(found)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{intake.TOKENIZER} of {label} has a post-processor that makes no sense here.") from None
    return ()


def onnx_session(name: str) -> onnxruntime.InferenceSession:
    """The session of assets/models/<name>/model.onnx, on CUDA when there is one, else on the CPU; shared.

    UserError: this model has no model.onnx."""
    from tokenlab.models import onnx

    return onnx.session(FOLDER / name)


def has_onnx(model: LanguageModel) -> bool:
    """Whether this is a bundled model that comes with its graph."""
    from tokenlab.models import onnx

    return model.name in CAUSAL_LMS and (FOLDER / model.name / onnx.GRAPH).exists()


def generate(model: LanguageModel, ids: np.ndarray, new_tokens: int) -> Iterator[int]:
    """Greedy decoding where nobody looks inside: the most likely next ids after `ids` (n,), one by one.

    Through the ONNX graph when the model ships with one, else through torch with its cache; the logits agree to
    float32 rounding. Stops behind an id that ends a text, which is given too. UserError: more ids than the model's
    context has room for; time is up."""
    from tokenlab.models import onnx

    if has_onnx(model):
        return onnx.generate(onnx_session(model.name), ids, new_tokens, model.end)
    return _generate_torch(model, ids, new_tokens)


def _generate_torch(model: LanguageModel, ids: np.ndarray, new_tokens: int) -> Iterator[int]:
    import torch

    if not 0 < len(ids) <= model.context - new_tokens:
        raise UserError(
            f"{len(ids):,} tokens and {new_tokens:,} new ones do not fit into {model.context:,}; "
            "please shorten the prompt."
        )
    past, following = None, torch.from_numpy(np.asarray(ids, np.int64))[None]
    for _ in range(new_tokens):
        guard.check_time()
        with torch.no_grad():
            out = model.torch(following, past_key_values=past, use_cache=True)
        past, best = out.past_key_values, int(out.logits[0, -1].argmax())
        yield best
        if best in model.end:
            return
        following = torch.tensor([[best]])


def export(name: str, folder: str | Path | None = None) -> Path:
    """Write the ONNX graph of `name`, with its key-value cache, and give its path; of a model of pictures, all graphs.

    folder: where to; by default a bundled model's own folder, else ./<owner>--<name>. Takes half a minute.
    UserError: as for causal_lm."""
    if name == "vq-image":
        from tokenlab.codebooks import vq_image

        return vq_image.export(Path(folder) if folder is not None else FOLDER / name)
    if name == "codec":
        from tokenlab.audio import codec

        return codec.export(Path(folder) if folder is not None else FOLDER / name)
    if name in VLMS:
        from tokenlab.pruning import vlm_onnx

        return vlm_onnx.export(Path(folder) if folder is not None else FOLDER / name)
    from tokenlab.models import onnx

    name = check_name(name)
    if folder is None:
        folder = FOLDER / name if name in CAUSAL_LMS else Path(name.removeprefix("hub:").replace("/", "--"))
    return onnx.export(causal_lm(name), Path(folder))


def listing() -> list[dict[str, Any]]:
    """What ships in assets/models, read from configs and headers alone: name, type, parameters, bytes, has ONNX."""
    rows = []
    for folder in sorted(path.parent for path in FOLDER.glob(f"*/{intake.CONFIG}")):
        weights = sorted(folder.glob("*.safetensors"))
        tensors = [stored for path in weights for stored in intake.read_header(path, folder.name).values()]
        rows.append(
            {
                "name": folder.name,
                "type": json.loads((folder / intake.CONFIG).read_text("utf-8")).get("model_type"),
                "parameters": sum(int(np.prod(stored.shape)) for stored in tensors),
                "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
                "onnx": any(folder.glob("*.onnx")),
            }
        )
    return rows
