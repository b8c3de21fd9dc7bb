"""References to tokenizers: strings that travel in links, in the API and on the command line.

    mistral-v1 mistral-v3 mistral-v7       SentencePiece models of Mistral, in mistral-common
    tekken-240718 tekken-240911            Mistral's byte-level BPE, in mistral-common
    bytes characters words                 yardsticks
    tiktoken:cl100k_base                   an encoding of tiktoken; needs the internet the first time
    hub:owner/name                         tokenizer.json (or tokenizer.model) of a public Hub repository
    file:0123456789abcdef                  an upload, by the SHA-256 of its bytes; lives as long as the server
    trained:0123456789abcdef               trained in the page (tokenlab.text.training)

Uploads and Hub files are only ever opened in a child process (sandbox.py). A .tiktoken file holds ranks but
no pattern for splitting the text; that of cl100k_base is used, and the label says so.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.text import adapters, files, remote
from tokenlab.text.sandbox import File, SandboxedTokenizer
from tokenlab.text.tokenization import Tokenizer
from tokenlab.text.uploads import Uploads

# Two families of Mistral's and the bytes that they both fall back to. Versions of one family cut the same way.
DEFAULT = ("mistral-v3", "tekken-240911", "bytes")

_SENTENCEPIECE = {
    "mistral-v1": ("Mistral v1", "tokenizer.model.v1"),
    "mistral-v3": ("Mistral v3", "mistral_instruct_tokenizer_240323.model.v3"),
    "mistral-v7": ("Mistral v7", "mistral_instruct_tokenizer_241114.model.v7"),
}
_TEKKEN = {
    "tekken-240718": ("Tekken 240718", "tekken_240718.json"),
    "tekken-240911": ("Tekken 240911", "tekken_240911.json"),
}
_UNITS = {unit.ref: unit for unit in (adapters.Bytes, adapters.Characters, adapters.Words)}
YARDSTICKS = tuple(_UNITS)  # not learned: to measure by
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{16}")


def builtin_names() -> dict[str, str]:
    """The names on the page -> reference; a user may type either."""
    files = {name: ref for ref, (name, _) in {**_SENTENCEPIECE, **_TEKKEN}.items()}
    return files | {unit.name: ref for ref, unit in _UNITS.items()}


def builtin() -> list[tuple[str, str]]:
    """(label, reference) of the tokenizers that work without the internet."""
    return [(label(ref), ref) for ref in (*_SENTENCEPIECE, *_TEKKEN, *_UNITS)]


def optional() -> list[tuple[str, str]]:
    """(label, reference) of tiktoken's encodings, which need the internet the first time."""
    return [(name, f"tiktoken:{name}") for name in remote.tiktoken_names()]


def check_ref(ref: str) -> str:
    """The reference that `ref` means: itself, a name on the page, a bare owner/name. UserError: none. Loads nothing."""
    ref = {name.lower(): known for name, known in builtin_names().items()}.get(ref.lower(), ref)
    if "/" in ref and ":" not in ref:
        ref = f"hub:{ref}"
    kind, _, rest = ref.partition(":")
    if ref in _SENTENCEPIECE or ref in _TEKKEN or ref in _UNITS:
        return ref
    if kind == "tiktoken" and rest in remote.tiktoken_names():
        return ref
    if kind == "hub":
        if _HUB_ID.fullmatch(rest) and ".." not in rest and not any(p.strip(".-") != p for p in rest.split("/")):
            return ref
        raise UserError("A Hugging Face repository is named owner/name, such as openai-community/gpt2.")
    if kind == "file" and _HASH.fullmatch(rest):
        return ref
    if kind == "trained":
        from tokenlab.text import training  # late: training builds on this module's tokenizers

        return training.check_ref(ref)
    raise UserError(
        f"There is no tokenizer {_quoted(ref)}; please choose one from the list, hub:owner/name or tiktoken:name."
    )


def label(ref: str) -> str:
    """A short name to show. UserError: the reference is not well formed."""
    ref = check_ref(ref)
    kind, _, rest = ref.partition(":")
    if kind in ("tiktoken", "hub"):
        return rest
    if kind == "file":
        return _uploads.label(ref) or f"upload {rest[:8]}"
    if kind == "trained":
        from tokenlab.text import training

        return training.label(ref)
    return _UNITS[ref].name if ref in _UNITS else {**_SENTENCEPIECE, **_TEKKEN}[ref][0]


def load(ref: str) -> Tokenizer:
    """The tokenizer that `ref` names; the last 16 stay in memory. Threads may share it.

    UserError: malformed, off-line, not found, refused, an upload that is gone."""
    ref = check_ref(ref)
    with _lock:
        slot = _slots.setdefault(ref, _Slot())
        _slots.move_to_end(ref)
        while len(_slots) > limits.LOADED_TOKENIZERS:
            _slots.popitem(last=False)
    with slot.lock:
        if slot.tokenizer is None:
            try:
                slot.tokenizer = _open(ref)
            except BaseException:
                with _lock:
                    _slots.pop(ref, None)
                raise
        return slot.tokenizer


def register_file(data: bytes, filename: str) -> str:
    """Keep an uploaded tokenizer file and give its reference, after opening it once.

    data: a tokenizer.json, a SentencePiece .model or a .tiktoken file of at most limits.FILE_BYTES.
    UserError: too large, of another kind, or its library cannot open it."""
    name = _safe_name(filename)
    kind = files.kind_of(data, name)
    ref = f"file:{sha256(data).hexdigest()[:16]}"
    new = _uploads.put(ref, File(data, kind, name))
    try:
        load(ref)
    except BaseException:
        if new:
            _uploads.drop(ref)
        raise
    return ref


def register_path(path: str | Path) -> str:
    """register_file for a file on this machine (the command line). UserError: it cannot be read."""
    path = Path(path)
    try:
        files.check_size(path.stat().st_size, _safe_name(path.name))
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{_quoted(path.name)} cannot be read; please check the path.") from error
    return register_file(data, path.name)


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tokenizer: Tokenizer | None = None


_lock = threading.Lock()
_slots: OrderedDict[str, _Slot] = OrderedDict()
_uploads = Uploads()


def _open(ref: str) -> Tokenizer:
    kind, _, rest = ref.partition(":")
    if ref in _UNITS:
        return _UNITS[ref]()
    if ref in _SENTENCEPIECE:
        return adapters.SentencePiece(ref, label(ref), _mistral_file(_SENTENCEPIECE[ref][1]).read_bytes())
    if ref in _TEKKEN:
        return adapters.tekken(ref, label(ref), _mistral_file(_TEKKEN[ref][1]))
    if kind == "tiktoken":
        return adapters.ByteBPE(ref, rest, remote.tiktoken_encoding(rest))
    if kind == "trained":
        from tokenlab.text import training

        return training.load(ref)
    read = _hub_file if kind == "hub" else _uploaded_file
    return SandboxedTokenizer(ref, label(ref), lambda: read(ref))


def _mistral_file(filename: str) -> Path:
    # find_spec: importing mistral_common costs more than reading the file.
    return Path(find_spec("mistral_common").origin).parent / "data" / filename


def _uploaded_file(ref: str) -> File:
    file = _uploads.get(ref)
    if file is None:
        raise UserError(
            "This tokenizer file is no longer here: uploads do not travel with links; please upload it again."
        )
    return file


def _hub_file(ref: str) -> File:
    file = _uploads.get(ref)
    if file is None:
        repo = ref.removeprefix("hub:")
        data, filename = remote.hub_file(repo)
        file = File(data, files.kind_of(data, filename), repo)
        _uploads.put(ref, file)
    return file


def _safe_name(filename: str) -> str:
    """A file name without folders and without anything that a page could take for markup."""
    name = re.split(r"[/\\]", filename)[-1]
    return re.sub(r"[^\w. ()+-]+", "_", name)[-60:] or "the file"


def _quoted(text: str) -> str:
    return f'"{_safe_name(text)}"'
