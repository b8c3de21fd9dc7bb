"""What pictures and sounds do alike with uploads: name them by their bytes, keep them in bounded memory."""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenlab.errors import UserError

UPLOAD = re.compile(r"upload:[0-9a-f]{16}")


def reference(data: bytes) -> str:
    """ "upload:" and 16 hex digits of the SHA-256 of `data`."""
    return f"upload:{sha256(data).hexdigest()[:16]}"


def read_path(path: str | Path, check_size: Callable[[int], None]) -> tuple[bytes, str]:
    """(bytes, name) of a file. check_size(bytes) raises before anything is read. UserError: it cannot be read."""
    path = Path(path)
    try:
        check_size(path.stat().st_size)
        return path.read_bytes(), path.name
    except OSError as error:
        raise UserError(f"{quoted(path.name)} cannot be read; please check the path.") from error


def read_base64(text: str, check_size: Callable[[int], None], what: str) -> bytes:
    """The bytes that `text` spells. check_size(bytes) raises before anything is decoded; what: "picture"."""
    check_size(max(1, len(text) * 3 // 4) if text else 0)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"The {what} after base64, is damaged, perhaps cut off while it was copied.") from None


def safe_name(name: str) -> str:
    """A file name without folders and without anything that a page could take for markup."""
    return re.sub(r"[^\w. ()+-]+", "_", re.split(r"[/\\]", name)[-1])[-60:]


def quoted(text: str) -> str:
    return f'"{re.sub(r"[^ -~]|[<>&]", "_", text)[:60]}"'


@dataclass(frozen=True)
class _Entry:
    value: Any
    size: int
    name: str


class Uploads:
    """Decoded uploads by reference, in memory. `most` and `size` (bytes) bound what is kept; the least recently used
    leave first."""

    def __init__(self, most: int, size: int):
        self.most, self.size = most, size
        self.lock = threading.Lock()
        self.entries: OrderedDict[str, _Entry] = OrderedDict()

    def put(self, ref: str, value: Any, size: int, name: str = "") -> None:
        """size: bytes that `value` takes; name: of the file."""
        with self.lock:
            self.entries[ref] = _Entry(value, size, safe_name(name))
            while len(self.entries) > self.most or sum(e.size for e in self.entries.values()) > self.size:
                self.entries.popitem(last=False)

    def get(self, ref: str) -> Any | None:
        with self.lock:
            entry = self.entries.get(ref)
            if entry is not None:
                self.entries.move_to_end(ref)
            return entry and entry.value

    def label(self, ref: str) -> str | None:
        """The file's name with the end of the hash, because many are called image.png; None: not here, or no name."""
        entry = self.entries.get(ref)
        return f"{entry.name} {ref[-4:]}" if entry and entry.name else None
