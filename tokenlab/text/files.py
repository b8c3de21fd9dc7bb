"""Which tokenizer files are taken, and what is refused before a library sees them.

`kind_of` looks at the first bytes, in the app. `open_file` parses, checks and opens the file, in the child
process: the checks catch honest mistakes with a clear sentence; the boundary is the child and its clock.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.text.adapters import SentencePiece, rank_file
from tokenlab.text.tokenization import Tokenizer
from tokenlab.text.tokenizer_json import TokenizerJson, components

TAKEN = "a tokenizer.json, a SentencePiece .model or a .tiktoken file"

# Pickles since protocol 2 begin with 0x80 and the protocol's number; torch checkpoints are zip archives.
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive (or a torch checkpoint)",
    b"\x1f\x8b": "a gzip archive",
    **{bytes([0x80, protocol]): "a Python pickle" for protocol in range(2, 6)},
}
_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?(\n|$)")


def kind_of(data: bytes, name: str) -> str:
    """ "json", "model" or "tiktoken", by content first. UserError: too big, an archive, a pickle, none of these."""
    check_size(len(data), name)
    for magic, what in _ARCHIVES.items():
        if data.startswith(magic):
            raise UserError(f"{name} is {what}, which is never opened here; please upload {TAKEN}.")
    if not data.strip():
        raise UserError(f"{name} is empty; please upload {TAKEN}.")
    ending = name.lower().rpartition(".")[2]
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") or ending == "json":
        return "json"
    if _RANK_LINE.match(data) or ending == "tiktoken":
        return "tiktoken"
    if ending == "model":
        return "model"
    raise UserError(f"{name} is of an unknown kind; please upload {TAKEN}.")


def check_size(size: int, name: str) -> None:
    if size > limits.FILE_BYTES:
        raise UserError(
            f"{name} has {size / 1e6:.1f} MB; please choose a tokenizer file of at most {limits.FILE_BYTES / 1e6:g} MB."
        )


def open_file(data: bytes, kind: str, name: str) -> Tokenizer:
    """Open a file of unknown origin; only for the child process. UserError: a check failed.

    Everything else that the libraries may raise is the caller's to catch, BaseException included."""
    if kind == "json":
        try:
            return TokenizerJson("", name, checked_json(data, name))
        except (TypeError, ValueError, KeyError, AttributeError):  # the library's own errors are plain Exceptions
            raise UserError(f"{name} is not laid out as a tokenizer.json; please check the file.") from None
    if kind == "tiktoken":
        return rank_file("", name, checked_ranks(data, name))
    try:
        tokenizer = SentencePiece("", name, data)
    except RuntimeError:  # its message is a line of C++
        raise UserError(f"{name} is not a SentencePiece model; please check the file.") from None
    _check_vocabulary(tokenizer.vocabulary_size, name)
    return tokenizer


def checked_json(data: bytes, name: str) -> dict[str, Any]:
    """The parsed tokenizer.json. UserError: not JSON, no model, too many entries, ids out of range, a regular
    expression with one unbounded repeat inside another."""
    try:
        config = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{name} is not UTF-8 text; please upload {TAKEN}.") from None
    except (ValueError, RecursionError):
        raise UserError(f"{name} is not valid JSON, perhaps cut short; please upload the whole file.") from None
    model = config.get("model") if isinstance(config, dict) else None
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise UserError(f'{name} has no "model" with a "vocab" in it; please upload {TAKEN}.')
    added = config.get("added_tokens") or []
    _check_vocabulary(len(model["vocab"]) + len(added), name)
    ids = [*model["vocab"].values()] if isinstance(model["vocab"], dict) else []
    if not all(type(i) is int and 0 <= i < limits.VOCABULARY for i in ids):
        raise UserError(f"{name} has ids outside 0 to {limits.VOCABULARY:,}; please choose a smaller tokenizer.")
    for pattern in patterns(config):
        if len(pattern) > limits.PATTERN_CHARACTERS or nested_repeat(pattern):
            raise UserError(
                f"{name} has a regular expression that may take for ever (a repeat inside a repeat); "
                "please choose another tokenizer."
            )
    return config


def checked_ranks(data: bytes, name: str) -> dict[bytes, int]:
    """token -> rank. UserError: a line that is not base64 and a rank, a repeat, a missing byte, too many entries."""
    lines = data.splitlines()
    _check_vocabulary(len(lines), name)
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            if not _RANK_LINE.fullmatch(line):
                raise ValueError
            token, rank = line.split(b" ")
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:  # binascii.Error is one
            raise UserError(f"{name} has no token and rank in line {number:,}; please check the file.") from None
    if len(set(ranks.values())) != sum(map(bool, lines)):
        raise UserError(f"{name} has a token or a rank twice; please check the file.")
    if not all(0 <= rank < limits.VOCABULARY for rank in ranks.values()):
        raise UserError(f"{name} has ranks outside 0 to {limits.VOCABULARY:,}; please check the file.")
    if b"" in ranks or not all(bytes([b]) in ranks for b in range(256)):
        raise UserError(f"{name} lacks some of the 256 bytes; please check the file.")
    return ranks


def _check_vocabulary(size: int, name: str) -> None:
    if size > limits.VOCABULARY:
        raise UserError(f"{name} has {size:,} entries; please choose a tokenizer with at most {limits.VOCABULARY:,}.")


def patterns(config: dict[str, Any]) -> Iterator[str]:
    """The regular expressions of a tokenizer.json's normalizers, pre-tokenizers and decoders."""
    for part in components(config):
        pattern = part.get("pattern")
        if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            yield pattern["Regex"]


def nested_repeat(pattern: str) -> bool:
    """Whether a group that holds an unbounded repeat is itself repeated without bound, as in (a+)+.

    A heuristic: it misses slow patterns such as (a|a)*b or a*a*a*b, and no pattern is proved fast."""
    repeats = [False]  # for each open group: does it hold an unbounded repeat?
    closed = False  # does the group that was just closed hold one?
    brackets = 0  # open character classes: [a-z&&[^b]]
    for token in _TOKEN.findall(pattern):
        if brackets or token == "[":
            brackets += (token == "[") - (token == "]")
        elif token == "(":
            repeats.append(False)
        elif token == ")" and len(repeats) > 1:
            closed = repeats.pop()
            repeats[-1] |= closed
            continue
        elif _UNBOUNDED.fullmatch(token):
            if closed:
                return True
            repeats[-1] = True
        closed = False
    return False


_TOKEN = re.compile(r"\\.|\{\d*,?\d*\}|.", re.DOTALL)
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")
