"""Tokenizers stored as tokenizer.json, the format of Hugging Face tokenizers.

The file is a pipeline: normalizer, pre-tokenizer, model, post-processor, decoder. Two things are changed
before the library opens it, so that a text is only cut, and cut whole: truncation, padding and the
post-processor go, and special tokens that stand in the text are made to stay text.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tokenlab.text.merge_tree import last_merge
from tokenlab.text.spans import Pieces, located, spelled, utf8
from tokenlab.text.tokenization import Kind, Tokenization

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenizerJson:
    """A tokenizer.json as a Tokenizer. config: the parsed file.

    Raises Exception when the library refuses it, and may panic (a BaseException) or worse: a file of unknown
    origin is opened in tokenlab.text.child only."""

    def __init__(self, ref: str, name: str, config: dict[str, Any]):
        import tokenizers

        self.ref = ref
        self.name = name
        self._config, self._masks = only_cutting(config)
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(self._config))
        self._tokenizer.encode_special_tokens = True  # the library's own switch; see only_cutting for its gaps
        self._entries = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocabulary_size = max(self._entries.values(), default=-1) + 1
        self._spelling = Spelling(self._config)
        self._kinds = self._find_kinds()
        pieces = [b""] * self.vocabulary_size
        for entry, i in self._entries.items():
            if self._kinds[i] not in (Kind.SPECIAL, Kind.UNKNOWN):
                pieces[i] = self._spelling.bytes_of(entry)
        self._pieces = Pieces(pieces)

    def encode(self, text: str) -> Tokenization:
        data = utf8(text)
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int64)
        exact = spelled(ids, self._pieces, data)
        if exact is not None:
            return exact
        return located(ids, encoding.offsets, self._pieces, self._kinds, text)

    def encode_batch(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids alone, four times faster than one text at a time."""
        codes = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [tuple(code.ids) for code in codes]

    def decode(self, ids: np.ndarray) -> str:
        text = self._tokenizer.decode(np.asarray(ids).tolist(), skip_special_tokens=False)
        for mask, content in self._masks.items():
            text = text.replace(mask, content)
        return text

    def pieces(self) -> list[bytes]:
        return self._pieces.pieces

    def kinds(self) -> np.ndarray:
        return self._kinds

    def _find_kinds(self) -> np.ndarray:
        kinds = np.full(self.vocabulary_size, Kind.SPECIAL, dtype=np.uint8)  # gaps in the ids stay special
        for entry, i in self._entries.items():
            kinds[i] = self._spelling.kind_of(entry)
        for mask in self._masks:
            kinds[self._entries[mask]] = Kind.SPECIAL
        model = self._config["model"]
        unknown = model.get("unk_id")
        if unknown is None:
            unknown = self._entries.get(model.get("unk_token"))
        if unknown is not None:
            kinds[unknown] = Kind.UNKNOWN
        return kinds

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """The file's own merges; None when the model is not BPE."""
        if "merges" not in self._config["model"]:
            return None
        bytes_of = self._spelling.bytes_of
        return [(bytes_of(a), bytes_of(b)) for a, b in pairs(self._config["model"]["merges"])]

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        # Backwards, so that of a pair listed twice the lower rank stays.
        return {pair: rank for rank, pair in reversed([*enumerate(pairs(self._config["model"].get("merges", ())))])}

    @cached_property
    def _names(self) -> dict[int, str]:
        return {i: entry for entry, i in self._entries.items()}

    def merge_parts(self, piece_id: int) -> tuple[bytes, bytes] | None:
        """The two entries that merge into this one; None for single characters, or when it is not BPE."""
        if piece_id not in self._names:
            return None
        parts = last_merge(
            self._spelling.symbols(self._names[piece_id]),
            lambda a, b: self._ranks.get((a, b)),
            lambda a, b: a + b.removeprefix(self._spelling.prefix),
        )
        if parts not in self._ranks:
            return None
        return self._spelling.bytes_of(parts[0]), self._spelling.bytes_of(parts[1])

    def pre_tokenize(self, text: str) -> list[bytes]:
        """What the file's normalizer and pre-tokenizer make of the text, before the model."""
        pipeline = self._tokenizer
        if pipeline.normalizer is not None:
            text = pipeline.normalizer.normalize_str(text)
        if pipeline.pre_tokenizer is None:
            return [self._spelling.bytes_of(text)]
        return [self._spelling.bytes_of(part) for part, _ in pipeline.pre_tokenizer.pre_tokenize_str(text)]


def only_cutting(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The pipeline without the parts that add, drop or guess tokens, and {mask: special token}.

    The library's switch `encode_special_tokens` keeps it from looking for special tokens in a text, but
    a model that matches whole entries (Unigram, WordLevel, WordPiece, BPE that ignores merges) still finds
    their names in its vocabulary. So these entries get another name, a mask that nobody can have typed,
    and keep their ids. Entries that merges build, or that spell one character, are text and stay."""
    model = {**config["model"]}
    if "dropout" in model:
        model["dropout"] = None
    prefix = model.get("continuing_subword_prefix") or ""
    merges = pairs(model.get("merges") or ())
    built = {part for a, b in merges for part in (a, b, a + b.removeprefix(prefix))}
    key = secrets.token_hex(8)
    masks = {}
    for token in config.get("added_tokens") or ():
        content = token["content"]
        is_text = len(content) < 2 or content in built or _BYTE_FALLBACK.fullmatch(content)
        if token.get("special") and not is_text:
            masks[content] = f"\U0010fffe{key}{content}"
    if isinstance(model["vocab"], dict):
        model["vocab"] = {masks.get(entry, entry): i for entry, i in model["vocab"].items()}
    else:
        model["vocab"] = [[masks.get(entry, entry), score] for entry, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = masks.get(model["unk_token"], model["unk_token"])
    added = [{**t, "content": masks.get(t["content"], t["content"])} for t in config.get("added_tokens") or ()]
    masked = {**config, "model": model, "added_tokens": added, "truncation": None, "padding": None}
    masked["post_processor"] = None
    return masked, {mask: content for content, mask in masks.items()}


class Spelling:
    """How the entries of a tokenizer.json write bytes: with the byte-level alphabet, '▁' for a space,
    '##' before a continuation, '</w>' behind a word, <0xE2> for a byte."""

    def __init__(self, config: dict[str, Any]):
        model = config["model"]
        parts = list(components(config))
        types = {part["type"] for part in parts}
        self.byte_level = "ByteLevel" in types
        self.byte_fallback = bool(model.get("byte_fallback")) or "ByteFallback" in types
        self.prefix = model.get("continuing_subword_prefix") or ""
        self.suffix = model.get("end_of_word_suffix") or ""
        self.spaces = {part.get("replacement", "▁") for part in parts if part["type"] == "Metaspace"}
        if any(part["type"] == "Replace" and part.get("content") == "▁" for part in parts):
            self.spaces.add("▁")  # Llama: the normalizer writes the spaces
        # Added tokens are matched in the text itself, so they are written as they are.
        self.plain = {token["content"] for token in config.get("added_tokens") or () if not token.get("special")}

    def bytes_of(self, entry: str) -> bytes:
        """What the entry writes into a text, as UTF-8."""
        if entry in self.plain:
            return entry.encode()
        if self.byte_fallback and (byte := _BYTE_FALLBACK.fullmatch(entry)):
            return bytes([int(byte[1], 16)])
        entry = entry.removeprefix(self.prefix) if entry != self.prefix else entry
        entry = entry.removesuffix(self.suffix) if entry != self.suffix else entry
        if self.byte_level and all(c in BYTE_OF for c in entry):
            return bytes(map(BYTE_OF.__getitem__, entry))
        for space in self.spaces:
            entry = entry.replace(space, " ")
        return entry.encode()

    def kind_of(self, entry: str) -> Kind:
        """BYTE for byte fallback, and for single bytes of the byte-level alphabet that are not ASCII."""
        if entry in self.plain:
            return Kind.NORMAL
        if self.byte_fallback and _BYTE_FALLBACK.fullmatch(entry):
            return Kind.BYTE
        if self.byte_level and len(entry) == 1 and BYTE_OF.get(entry, 0) >= 0x80:
            return Kind.BYTE
        return Kind.NORMAL

    def symbols(self, entry: str) -> list[str]:
        """The single symbols that BPE starts from when it builds `entry`."""
        body = entry.removeprefix(self.prefix).removesuffix(self.suffix)
        if not body:
            return []
        symbols = [self.prefix + character for character in body]
        if not entry.startswith(self.prefix):
            symbols[0] = body[0]
        if entry.endswith(self.suffix):
            symbols[-1] += self.suffix
        return symbols


def components(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The normalizers, pre-tokenizers and decoders of a pipeline, sequences unpacked."""
    waiting = [config.get("normalizer"), config.get("pre_tokenizer"), config.get("decoder")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict) and isinstance(part.get("type"), str):
            yield part
            for key in ("normalizers", "pretokenizers", "decoders"):
                waiting.extend(part.get(key) or ())


def pairs(merges: Any) -> list[tuple[str, str]]:
    """Merges as pairs; older files write them as "a b"."""
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]


def _byte_alphabet() -> dict[str, int]:
    """The character that byte-level BPE (GPT-2) writes for each byte, the other way round: printable bytes
    stand for themselves, the other 68 for the characters from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + n): b for n, b in enumerate(others)}


BYTE_OF = _byte_alphabet()
