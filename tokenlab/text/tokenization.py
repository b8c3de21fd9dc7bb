"""The interface that all tokenizers of the text family share.

A tokenization is byte offsets into the text's UTF-8, because tokens need not respect characters:
a token's text comes from its bytes, grouped into whole graphemes, never from decoding one id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

import numpy as np
import regex


class Kind(IntEnum):
    """What an entry of a vocabulary is."""

    NORMAL = 0
    BYTE = 1  # byte fallback: one byte that no larger entry covers
    UNKNOWN = 2  # stands for text that the vocabulary cannot write
    SPECIAL = 3  # control symbols, never made from a user's text


@dataclass(frozen=True)
class Tokenization:
    """ids (n,) int64, -1 where the tokenizer has no id; starts, ends (n,) int64: byte spans in the
    text's UTF-8. starts and ends never fall. Gaps are text that the tokenizer dropped; equal spans are
    tokens that share characters which the tokenizer rewrote before cutting."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Tokenizer(Protocol):
    """One tokenizer. `ref` names it in links and on the command line, `name` on the page."""

    ref: str
    name: str
    vocabulary_size: int | None  # None: open vocabulary (characters, words)

    def encode(self, text: str) -> Tokenization:
        """Cut `text`; special tokens in it stay text, none are added."""

    def decode(self, ids: np.ndarray) -> str | None:
        """The library's own way back; None when there is none (open vocabulary: ids are -1)."""

    def pieces(self) -> list[bytes]:
        """The bytes of every entry, by id; b"" for special entries. Empty list: open vocabulary."""

    def kinds(self) -> np.ndarray:
        """(|V|,) uint8 of Kind."""

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """BPE merges by rank as pairs of bytes; None when the tokenizer is not BPE."""

    def merge_parts(self, piece_id: int) -> tuple[bytes, bytes] | None:
        """The two entries that merge into this one; None for single symbols, or when it is not BPE."""

    def pre_tokenize(self, text: str) -> list[bytes]:
        """The parts that no merge crosses, as bytes; the whole text when there is no such rule."""


def encode_many(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The ids of each of many short texts; at once where the tokenizer has a way to do that (`encode_batch`)."""
    if hasattr(tokenizer, "encode_batch"):
        return tokenizer.encode_batch(texts)
    return [tuple(tokenizer.encode(text).ids.tolist()) for text in texts]


GRAPHEME = regex.compile(r"\X")


def graphemes(text: str) -> list[str]:
    """User-perceived characters (Unicode UAX #29 extended grapheme clusters)."""
    if text.isascii() and "\r" not in text:
        return list(text)
    return GRAPHEME.findall(text)


def utf8_offsets(text: str) -> np.ndarray:
    """(len(text) + 1,) int64: where each code point begins in UTF-8, and where the text ends."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    lengths = 1 + (codes >= 0x80) + (codes >= 0x800).astype(np.int64) + (codes >= 0x10000)
    return np.concatenate(([0], np.cumsum(lengths)))


@lru_cache(maxsize=16)
def grapheme_ends(text: str) -> np.ndarray:
    """(g,) int64: the byte offset in UTF-8 at which each grapheme ends."""
    if text.isascii() and "\r" not in text:
        return np.arange(1, len(text) + 1)
    parts = GRAPHEME.findall(text)
    return utf8_offsets(text)[np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)))]
