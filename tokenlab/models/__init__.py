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
| hub.py | config.json, safetensors and tokenizer.json from the Hub: sizes first, no login |
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
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from transformers import PreTrainedModel

FOLDER = Path(__file__).parents[2] / "assets" / "models"
CAUSAL_LMS = ("tinylm", "bytelm")
OFFERED = {"causal-lm": CAUSAL_LMS}  # what a menu of that kind lists; any hub:owner/name may be typed


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


def check_name(name: str) -> str:
    """`name` when it is well formed, a bare owner/name with "hub:". UserError: it is not. Loads nothing."""
    if name in CAUSAL_LMS:
        return name
    if name.startswith("hub:") or "/" in name and ":" not in name:
        return sources.check_ref(name)
    raise UserError(f"There is no such model; please choose one of {', '.join(CAUSAL_LMS)} or hub:owner/name.")


def causal_lm(name: str) -> LanguageModel:
    """The model that `name` means: "tinylm", "bytelm" or "hub:owner/name".

    Bundled models stay in memory, and the last limits.MODELS of the Hub. Threads share what is loaded once.
    UserError: malformed, off-line, not found, refused (intake), still being downloaded."""
    name = check_name(name)
    with _lock:
        slot = _slots.setdefault(name, _Slot())
        _slots.move_to_end(name)
        for old in [key for key in _slots if key not in CAUSAL_LMS][: -limits.MODELS]:
            del _slots[old]
    with slot.lock:
        if slot.model is None:
            try:
                slot.model = load_folder(FOLDER / name, trusted=True) if name in CAUSAL_LMS else _from_hub(name)
            except BaseException:
                with _lock:
                    _slots.pop(name, None)
                raise
        return slot.model


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: LanguageModel | None = None


_lock = threading.Lock()
_slots: OrderedDict[str, _Slot] = OrderedDict()


def load_folder(folder: str | Path, trusted: bool = False) -> LanguageModel:
    """A checkpoint on this machine, with the checks of intake.py; named after its folder.

    trusted: open its tokenizer.json in this process. UserError: a check failed."""
    folder = Path(folder)
    return _open(folder.name, intake.read_folder(folder, folder.name), trusted)


def _from_hub(name: str) -> LanguageModel:
    repo = name.removeprefix("hub:")

    def work() -> LanguageModel:
        with tempfile.TemporaryDirectory(prefix="tokenlab-") as folder:
            model = _open(name, hub.fetch(repo, Path(folder)), trusted=False)
        with _lock:  # whoever asked may have left by now; the next one finds it here
            _slots.setdefault(name, _Slot()).model = model
        return model

    return in_time(
        limits.MODEL_SECONDS, f"model:{name}", work, f"{repo} is still being downloaded; please try again in a minute."
    )


def _open(name: str, found: intake.Files, trusted: bool) -> LanguageModel:
    label = name.removeprefix("hub:")
    settings = intake.check_config(found.config, label)
    model, context = intake.build(settings, label)
    located = intake.check_weights(found.weights, model, label)
    pipeline = intake.parse_json(found.tokenizer, intake.TOKENIZER, label)
    tokenizer = _tokenizer(name, label, found.tokenizer, pipeline, trusted)
    size = model.config.vocab_size
    if tokenizer.vocabulary_size > size:
        raise UserError(
            f"The tokenizer of {label} has ids up to {tokenizer.vocabulary_size - 1:,}, "
            f"but the model only has {size:,} entries; please choose another checkpoint."
        )
    opening = _opening(pipeline, label)
    if any(not 0 <= i < size for i in opening):
        raise UserError(f"The tokenizer of {label} begins a text with ids that the model lacks; please choose another.")
    intake.load(model, located, label)
    end = model.config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    return LanguageModel(
        name, model, tokenizer, opening, frozenset(i for i in ends if i is not None and 0 <= i < size), context
    )


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
    """Write the ONNX graph of `name`, with its key-value cache, and give its path.

    folder: where to; by default a bundled model's own folder, else ./<owner>--<name>. Takes half a minute.
    UserError: as for causal_lm."""
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
                "onnx": (folder / "model.onnx").exists(),
            }
        )
    return rows
