"""Tokenizers of the field behind the one interface of tokenization.py.

Bytes, Characters, Words: the yardsticks. ByteBPE: tiktoken's encodings and Mistral's Tekken.
SentencePiece: .model files. tokenizer.json files have their own module, tokenizer_json.py.

Spans come from the bytes of the tokens, all at once, so that `encode` costs what the library costs.
"""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import regex

from tokenlab.text.merge_tree import Ranks, single_bytes, single_characters
from tokenlab.text.spans import Pieces, located, offsets_of, spelled, tiled, utf8
from tokenlab.text.tokenization import Kind, Tokenization, grapheme_ends, utf8_offsets

if TYPE_CHECKING:
    import tiktoken


class Bytes:
    """Every byte of the UTF-8 is a token, as in ByT5; its id is its value."""

    ref = "bytes"
    name = "Bytes"
    vocabulary_size = 256

    def encode(self, text: str) -> Tokenization:
        data = np.frombuffer(utf8(text), dtype=np.uint8)
        return tiled(data.astype(np.int64), np.arange(len(data) + 1))

    def decode(self, ids: np.ndarray) -> str:
        return np.asarray(ids).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def pieces(self) -> list[bytes]:
        return [bytes([b]) for b in range(256)]

    def pre_tokenize(self, text: str) -> list[bytes]:
        return [bytes([b]) for b in utf8(text)]

    def kinds(self) -> np.ndarray:
        """All NORMAL: there is nothing larger to fall back from."""
        return np.zeros(256, dtype=np.uint8)

    def merges(self) -> None:
        return None

    def merge_parts(self, piece_id: int) -> None:
        return None


class OpenVocabulary:
    """Units of text without ids."""

    vocabulary_size = None

    def decode(self, ids: np.ndarray) -> None:
        return None

    def pieces(self) -> list[bytes]:
        return []

    def kinds(self) -> np.ndarray:
        return np.zeros(0, dtype=np.uint8)

    def merges(self) -> None:
        return None

    def merge_parts(self, piece_id: int) -> None:
        return None

    def pre_tokenize(self, text: str) -> list[bytes]:
        data, cut = utf8(text), self.encode(text)
        return [data[start:end] for start, end in zip(cut.starts, cut.ends, strict=True)]


class Characters(OpenVocabulary):
    """User-perceived characters: extended grapheme clusters (Unicode UAX #29)."""

    ref = "characters"
    name = "Characters"

    def encode(self, text: str) -> Tokenization:
        utf8(text)
        ends = grapheme_ends(text)
        return tiled(np.full(len(ends), -1), np.concatenate(([0], ends)))


# In WORD mode \b stands at the default word boundaries, so this matches what lies between two of them.
_UNIT = regex.compile(r"(?w).+?\b", regex.DOTALL)


class Words(OpenVocabulary):
    """What lies between the default word boundaries of Unicode UAX #29: words, and also the spaces and
    punctuation between them, so that the units cover the text."""

    ref = "words"
    name = "Words"

    def encode(self, text: str) -> Tokenization:
        utf8(text)
        units = _UNIT.findall(text)
        cuts = offsets_of(np.fromiter(map(len, units), np.int64, len(units)))
        return tiled(np.full(len(units), -1), cuts if text.isascii() else utf8_offsets(text)[cuts])


class ByteBPE:
    """Byte-level BPE by ranks: a tiktoken Encoding, its ids moved up by `shift` special entries (Tekken)."""

    def __init__(self, ref: str, name: str, encoding: tiktoken.Encoding, shift: int = 0):
        self.ref = ref
        self.name = name
        self.encoding = encoding
        self.shift = shift
        self.vocabulary_size = shift + encoding.max_token_value + 1
        self._special = {encoding.encode_single_token(token) for token in encoding.special_tokens_set}
        self._pieces = Pieces([b""] * shift + [self._bytes_of(i) for i in range(encoding.max_token_value + 1)])
        self._kinds = self._find_kinds()

    def _bytes_of(self, rank: int) -> bytes:
        try:
            return b"" if rank in self._special else self.encoding.decode_single_token_bytes(rank)
        except KeyError:  # a gap in the ranks
            return b""

    def encode(self, text: str) -> Tokenization:
        utf8(text)
        # array reads a list of ints three times faster than numpy does, and faster unsigned than signed.
        ids = np.array(array("Q", self.encoding.encode_ordinary(text))).view(np.int64)
        if self.shift:
            ids += self.shift
        return tiled(ids, self._pieces.offsets(ids))

    def decode(self, ids: np.ndarray) -> str:
        return self.encoding.decode((np.asarray(ids) - self.shift).tolist())

    def pieces(self) -> list[bytes]:
        return self._pieces.pieces

    def kinds(self) -> np.ndarray:
        return self._kinds

    def _find_kinds(self) -> np.ndarray:
        """BYTE: single bytes that are not ASCII, and so only a part of a character."""
        kinds = np.full(self.vocabulary_size, Kind.NORMAL, dtype=np.uint8)
        single = np.flatnonzero(self._pieces.lengths == 1)
        kinds[single[self._pieces.bytes[self._pieces.starts[single]] >= 0x80]] = Kind.BYTE
        kinds[self._pieces.lengths == 0] = Kind.SPECIAL
        return kinds

    @cached_property
    def _ranks(self) -> Ranks:
        return Ranks(filter(None, self._pieces.pieces), single_bytes)

    def merges(self) -> list[tuple[bytes, bytes]]:
        """Recovered from the ranks; a few seconds for 130,000 entries."""
        return self._ranks.merges

    def merge_parts(self, piece_id: int) -> tuple[bytes, bytes] | None:
        """The two entries that merge into this one; None for single bytes and special entries."""
        return self._ranks.parts(self._pieces.pieces[piece_id])

    def pre_tokenize(self, text: str) -> list[bytes]:
        """By the encoding's own pattern; what the pattern leaves out is in no part, as in tiktoken."""
        return [part.encode() for part in regex.findall(self.encoding._pat_str, text)]


# Types of pieces in sentencepiece_model.proto. User-defined symbols (4) are matched in any text: that is
# what they are for. Unused ones (5) are never made.
_SENTENCEPIECE_KINDS = {2: Kind.UNKNOWN, 3: Kind.SPECIAL, 5: Kind.SPECIAL, 6: Kind.BYTE}
_MODEL_BPE = 2
_SPACE = "▁"


class SentencePiece:
    """A SentencePiece .model (Kudo and Richardson, 2018): `data` is the serialized ModelProto.

    Raises what the library raises (RuntimeError and others) when `data` is not one."""

    def __init__(self, ref: str, name: str, data: bytes):
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        self.ref = ref
        self.name = name
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=data)
        model = sentencepiece_model_pb2.ModelProto.FromString(data)
        types = [piece.type for piece in model.pieces]
        self.vocabulary_size = len(types)
        self._kinds = np.array([_SENTENCEPIECE_KINDS.get(t, Kind.NORMAL) for t in types], dtype=np.uint8)
        self._pieces = Pieces([_sentencepiece_bytes(p.piece, p.type) for p in model.pieces])
        self._is_bpe = model.trainer_spec.model_type == _MODEL_BPE
        self._scores = [piece.score for piece in model.pieces]
        self._mergeable = [t == 1 for t in types]

    def encode(self, text: str) -> Tokenization:
        data = utf8(text)
        ids = self._processor.encode_as_numpy(text).astype(np.int64)
        exact = spelled(ids, self._pieces, data)
        if exact is not None:
            return exact
        offsets = self._processor.encode_as_offset_mapping(text)["offsets"]
        return located(ids, offsets, self._pieces, self._kinds, text)

    def decode(self, ids: np.ndarray) -> str:
        return self._processor.decode(np.asarray(ids).tolist())

    def pieces(self) -> list[bytes]:
        return self._pieces.pieces

    def kinds(self) -> np.ndarray:
        return self._kinds

    @cached_property
    def _ranks(self) -> Ranks | None:
        if not self._is_bpe:
            return None
        ids = np.flatnonzero(self._mergeable)
        best_first = ids[np.argsort(-np.array(self._scores)[ids], kind="stable")]
        return Ranks((self._pieces.pieces[i] for i in best_first), single_characters)

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        """Recovered from the scores; None for a Unigram, word or character model."""
        return None if self._ranks is None else self._ranks.merges

    def merge_parts(self, piece_id: int) -> tuple[bytes, bytes] | None:
        """The two entries that merge into this one; None for single characters, or when it is not BPE."""
        if self._ranks is None or not self._mergeable[piece_id]:
            return None
        return self._ranks.parts(self._pieces.pieces[piece_id])

    def pre_tokenize(self, text: str) -> list[bytes]:
        """The whole text: SentencePiece splits at spaces when it trains, not when it encodes."""
        return [utf8(text)]


def _sentencepiece_bytes(piece: str, type: int) -> bytes:
    kind = _SENTENCEPIECE_KINDS.get(type, Kind.NORMAL)
    if kind == Kind.BYTE:
        return bytes([int(piece[1:-1], 16)])  # <0xE2>
    if kind != Kind.NORMAL:
        return b""
    return piece.replace(_SPACE, " ").encode()


def tekken(ref: str, name: str, path: str) -> ByteBPE:
    """A Tekken file of mistral-common. Its special tokens take the first ids, the ranks follow."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    loaded = Tekkenizer.from_file(path)
    return ByteBPE(ref, name, loaded._model, shift=loaded.num_special_tokens)


# The pattern of cl100k_base, as tiktoken writes it: a .tiktoken file holds ranks and no pattern.
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)


def rank_file(ref: str, name: str, ranks: dict[bytes, int]) -> ByteBPE:
    """The ranks of a .tiktoken file, with the pattern of cl100k_base, as the file has none of its own."""
    import tiktoken

    encoding = tiktoken.Encoding(name, pat_str=CL100K, mergeable_ranks=ranks, special_tokens={})
    return ByteBPE(ref, name, encoding)
