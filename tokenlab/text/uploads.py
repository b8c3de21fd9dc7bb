"""Uploaded and downloaded tokenizer files, in a private folder that goes away with the process.

Nothing is kept for good: the least recently used files leave when there are too many or they are too large.
"""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tokenlab import limits
from tokenlab.text.sandbox import File


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    kind: str
    name: str


class Uploads:
    """Files by reference. `files` and `size` (bytes) bound what is kept."""

    def __init__(self, files: int = limits.UPLOADED_FILES, size: int = limits.UPLOADED_BYTES):
        self.files = files
        self.size = size
        self.lock = threading.Lock()
        self.entries: OrderedDict[str, _Entry] = OrderedDict()
        self.folder: tempfile.TemporaryDirectory | None = None

    def put(self, ref: str, file: File) -> bool:
        """Keep a file; True when it is new. One that is there already keeps its first name."""
        with self.lock:
            if ref in self.entries:
                self.entries.move_to_end(ref)
                return False
            if self.folder is None:
                self.folder = tempfile.TemporaryDirectory(prefix="tokenlab-")
            path = Path(self.folder.name) / sha256(ref.encode()).hexdigest()
            path.write_bytes(file.data)
            self.entries[ref] = _Entry(path, len(file.data), file.kind, file.name)
            while len(self.entries) > self.files or sum(e.size for e in self.entries.values()) > self.size:
                self._remove(next(iter(self.entries)))
            return True

    def get(self, ref: str) -> File | None:
        with self.lock:
            entry = self.entries.get(ref)
            if entry is None:
                return None
            self.entries.move_to_end(ref)
            return File(entry.path.read_bytes(), entry.kind, entry.name)

    def label(self, ref: str) -> str | None:
        """The file's name, with what is not in the file; None when it is not here."""
        entry = self.entries.get(ref)
        if entry is None:
            return None
        name = f"{entry.name} {ref[-4:]}" if ref.startswith("file:") else entry.name  # many are called tokenizer.json
        return f"{name} (cl100k_base pattern)" if entry.kind == "tiktoken" else name

    def drop(self, ref: str) -> None:
        with self.lock:
            if ref in self.entries:
                self._remove(ref)

    def _remove(self, ref: str) -> None:
        self.entries.pop(ref).path.unlink(missing_ok=True)
