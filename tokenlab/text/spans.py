"""From tokens to byte spans: exact where the pieces spell the text, else from the library's offsets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from tokenlab import limits
from tokenlab.text.tokenization import Kind, Tokenization, utf8_offsets


class Pieces:
    """The bytes of every entry of a vocabulary, laid out so that a whole text is spelled at once.

    pieces: one bytes object per id; lengths (|V|,) int64: their number of bytes."""

    def __init__(self, pieces: Sequence[bytes]):
        self.pieces = list(pieces)
        self.lengths = np.array([len(piece) for piece in self.pieces], dtype=np.int64)
        self.starts = offsets_of(self.lengths)[:-1]
        self.bytes = np.frombuffer(b"".join(self.pieces), dtype=np.uint8)

    def offsets(self, ids: np.ndarray) -> np.ndarray:
        """(n + 1,) int64: where each piece of `ids` (n,) begins when they are written in a row."""
        return offsets_of(self.lengths[ids])

    def spell(self, ids: np.ndarray, offsets: np.ndarray) -> bytes:
        """The pieces of `ids` (n,) in a row; offsets: theirs."""
        positions = np.repeat(self.starts[ids] - offsets[:-1], np.diff(offsets))
        positions += np.arange(offsets[-1])
        return self.bytes[positions].tobytes()


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """(n + 1,) int64: where parts of the given `lengths` (n,) begin, and where the last one ends."""
    offsets = np.empty(len(lengths) + 1, dtype=np.int64)
    offsets[0] = 0
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def utf8(text: str) -> bytes:
    """The text's bytes; UserError for a lone surrogate, which has none."""
    limits.check_unicode(text)
    return text.encode()


def tiled(ids: np.ndarray, offsets: np.ndarray) -> Tokenization:
    """Tokens that lie end to end: ids (n,), offsets (n + 1,)."""
    return Tokenization(ids, offsets[:-1], offsets[1:])


def spelled(ids: np.ndarray, vocabulary: Pieces, data: bytes) -> Tokenization | None:
    """Exact spans when the pieces of `ids` (n,) spell the text `data`; None when they do not.

    A space that SentencePiece adds in front (or behind) is not in the text: its token gets only its share."""
    offsets = vocabulary.offsets(ids)
    if offsets[-1] - len(data) not in (0, 1):
        return None
    spelling = vocabulary.spell(ids, offsets)
    if spelling == data:
        return tiled(ids, offsets)
    if spelling == b" " + data:
        return tiled(ids, np.maximum(offsets - 1, 0))
    if spelling == data + b" ":
        return tiled(ids, np.minimum(offsets, len(data)))
    return None


def located(
    ids: np.ndarray, spans: Sequence[tuple[int, int]], vocabulary: Pieces, kinds: np.ndarray, text: str
) -> Tokenization:
    """Spans from a library's own offsets, for tokenizers that rewrite the text before they cut it.

    spans: n pairs, start and end of each token in code points; kinds (|V|,): Kind of each entry.
    Tokens that begin at the same character and together spell what they cover get their exact bytes;
    bytes of a character that was rewritten all get the span of that character."""
    offsets = utf8_offsets(text)
    characters = np.fromiter(chain.from_iterable(spans), np.int64).reshape(-1, 2)
    starts = np.maximum.accumulate(offsets[characters[:, 0]])
    ends = np.maximum.accumulate(np.maximum(offsets[characters[:, 1]], starts))
    data = text.encode()
    group = np.flatnonzero(np.diff(starts, prepend=-1, append=len(data) + 1))
    shared = np.flatnonzero(np.diff(group) > 1)
    for first, behind in zip(group[shared], group[shared + 1], strict=True):
        members = slice(first, behind)
        start, end = starts[first], ends[behind - 1]
        inner = vocabulary.offsets(ids[members])
        if vocabulary.spell(ids[members], inner) == data[start:end]:
            starts[members], ends[members] = start + inner[:-1], start + inner[1:]
        else:
            ends[members] = np.where(kinds[ids[members]] == Kind.BYTE, end, ends[members])
    return Tokenization(ids, np.maximum.accumulate(starts), np.maximum.accumulate(ends))
