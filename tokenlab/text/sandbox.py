"""Tokenizers from files of unknown origin: each lives in a child process of its own, and this is the app's side.

Whatever the file does to the child, the caller gets one sentence (UserError) within limits.CHILD_SECONDS, and
the next request finds a fresh child.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import tokenlab
from tokenlab import limits
from tokenlab.errors import UserError
from tokenlab.text import pipe
from tokenlab.text.spans import utf8
from tokenlab.text.tokenization import Tokenization


@dataclass(frozen=True)
class File:
    """A tokenizer file. kind: "json", "model" or "tiktoken" (files.kind_of); name: as the user knows it."""

    data: bytes
    kind: str
    name: str


class SandboxedTokenizer:
    """A file as a Tokenizer, through its child process. read: gives the file whenever a child must start.

    Every method raises UserError when the file, or its library on this input, is at fault."""

    def __init__(self, ref: str, name: str, read: Callable[[], File]):
        self.ref = ref
        self.name = name
        self._read = read
        self.vocabulary_size = self._ask(_size, "about")

    def encode(self, text: str) -> Tokenization:
        data = utf8(text)
        return self._ask(lambda parts: _tokenization(parts, len(data), self.vocabulary_size), "encode", data)

    def encode_batch(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of each text, all in one question to the child."""
        data = [utf8(text) for text in texts]
        return self._ask(
            lambda parts: _batch(parts, len(data), self.vocabulary_size), "encode_batch", *pipe.packed(data)
        )

    def decode(self, ids: np.ndarray) -> str:
        return self._ask(lambda parts: parts[0].decode(), "decode", np.asarray(ids, dtype=np.int64).tobytes())

    @cached_property
    def _pieces(self) -> list[bytes]:
        return self._ask(lambda parts: pipe.unpacked(parts, self.vocabulary_size), "pieces")

    def pieces(self) -> list[bytes]:
        return self._pieces

    @cached_property
    def _kinds(self) -> np.ndarray:
        return self._ask(lambda parts: _kinds(parts, self.vocabulary_size), "kinds")

    def kinds(self) -> np.ndarray:
        return self._kinds

    def merges(self) -> list[tuple[bytes, bytes]] | None:
        return self._ask(_pairs, "merges")

    def merge_parts(self, piece_id: int) -> tuple[bytes, bytes] | None:
        """The two entries that merge into this one; None for single symbols, or when it is not BPE."""
        return self._ask(lambda parts: tuple(parts) or None, "merge_parts", id=int(piece_id))

    def pre_tokenize(self, text: str) -> list[bytes]:
        return self._ask(pipe.unpacked, "pre_tokenize", utf8(text))

    def _ask(self, read: Callable[[list[bytes]], Any], do: str, *parts: bytes, **head: Any) -> Any:
        """read(the parts of the child's answer). The child is not trusted: `read` raises when they make no sense."""
        answer = _children.ask(self.ref, self._read, {"do": do, **head}, parts)
        try:
            return read(answer)
        except (ValueError, IndexError):
            raise UserError(f"{self.name} gave nonsense; please use another tokenizer.") from None


def _size(parts: list[bytes]) -> int:
    size = int(parts[0])
    if not 0 <= size <= limits.VOCABULARY:
        raise ValueError
    return size


def _kinds(parts: list[bytes], entries: int) -> np.ndarray:
    kinds = np.frombuffer(parts[0], dtype=np.uint8)
    if len(kinds) != entries:
        raise ValueError
    return kinds


def _pairs(parts: list[bytes]) -> list[tuple[bytes, bytes]] | None:
    if not parts:
        return None
    items = pipe.unpacked(parts)
    return list(zip(items[::2], items[1::2], strict=True))


def _tokenization(parts: Sequence[bytes], size: int, entries: int) -> Tokenization:
    """Raises ValueError unless ids are below `entries` and spans lie within `size` bytes and never fall."""
    ids, starts, ends = (np.frombuffer(part, dtype=np.int64) for part in parts)
    if not len(ids) == len(starts) == len(ends):
        raise ValueError
    if len(ids) and not (
        0 <= ids.min() and ids.max() < entries and 0 <= starts[0] and ends[-1] <= size
        and (np.diff(starts) >= 0).all() and (np.diff(ends) >= 0).all() and (starts <= ends).all()
    ):  # fmt: skip
        raise ValueError
    return Tokenization(ids, starts, ends)


def _batch(parts: Sequence[bytes], texts: int, entries: int) -> list[tuple[int, ...]]:
    """Raises ValueError unless there are ids for `texts` texts, all below `entries`."""
    found = [np.frombuffer(part, dtype=np.int64) for part in pipe.unpacked(parts, texts)]
    if any(len(ids) and not 0 <= ids.min() <= ids.max() < entries for ids in found):
        raise ValueError
    return [tuple(ids.tolist()) for ids in found]


class Child:
    """One child process with one opened file."""

    def __init__(self, file: File):
        self.name = file.name
        seconds = math.ceil(limits.CHILD_SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tokenlab.text.child", str(limits.CHILD_MEMORY_BYTES), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
            start_new_session=True,  # Ctrl-C in the app's terminal is not for the child
        )
        try:
            self.ask({"do": "open", "kind": file.kind, "name": file.name}, [file.data])
        except BaseException:
            self.kill()
            raise

    def ask(self, head: dict[str, Any], parts: Sequence[bytes]) -> list[bytes]:
        """The parts of the answer to one request. UserError: in one sentence, why there is none."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(limits.CHILD_SECONDS, stop)
        timer.start()
        try:
            pipe.send(self.process.stdin, head, parts)
            received = pipe.receive(self.process.stdout)
        except (OSError, ValueError, KeyError, TypeError):  # a broken pipe, or an answer out of shape
            received = None
        finally:
            timer.cancel()
        if late.is_set():
            raise UserError(
                f"{self.name} took longer than {limits.CHILD_SECONDS:g} seconds and was stopped; "
                "please use a shorter text or another tokenizer."
            )
        outcome, answer = received or ({"crashed": True}, [])
        if "crashed" in outcome:
            raise UserError(f"{self.name} made its library crash; please use another tokenizer.")
        if "memory" in outcome:
            raise UserError(f"{self.name} needs too much memory; please use a shorter text or another tokenizer.")
        if "refused" in outcome:
            raise UserError(_plain(outcome["refused"], 300))
        if "failed" in outcome:
            problem = _plain(outcome["failed"], 120)
            if head["do"] == "open":
                raise UserError(f"{self.name} is not a file that its library can open ({problem}); please check it.")
            raise UserError(f"{self.name} cannot do this ({problem}); please change the text or use another tokenizer.")
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        with suppress(OSError):  # unsent bytes in the buffer of a broken pipe
            self.process.stdin.close()
        self.process.stdout.close()


class Children:
    """The living children by reference, at most `most`, least recently used out first."""

    def __init__(self, most: int):
        self.most = most
        self.lock = threading.Lock()
        self.slots: OrderedDict[str, _Slot] = OrderedDict()

    def ask(self, ref: str, read: Callable[[], File], head: dict[str, Any], parts: Sequence[bytes]) -> list[bytes]:
        """The answer of the child of `ref`, which starts here if it is not there, and ends if it fails."""
        slot = self._take(ref)
        try:
            if slot.child is not None and slot.child.process.poll() is not None:
                slot.end()  # the system ended it while it had nothing to do
            if slot.child is None:
                slot.child = Child(read())
            return slot.child.ask(head, parts)
        except BaseException:
            slot.end()
            raise
        finally:
            slot.lock.release()

    def _take(self, ref: str) -> _Slot:
        """The slot of `ref`, locked by the caller."""
        while True:
            with self.lock:
                slot = self.slots.setdefault(ref, _Slot())
                self.slots.move_to_end(ref)
                self._trim()
            if not slot.lock.acquire(timeout=limits.CHILD_SECONDS):
                raise UserError("This tokenizer is busy with another request; please try again in a moment.")
            if not slot.dropped:
                return slot
            slot.lock.release()

    def _trim(self) -> None:
        """Drop the oldest slots that are not at work."""
        for ref in [*self.slots][: -self.most]:
            slot = self.slots[ref]
            if slot.lock.acquire(blocking=False):
                slot.end()
                slot.dropped = True
                del self.slots[ref]
                slot.lock.release()


class _Slot:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child: Child | None = None
        self.dropped = False  # no longer in the table: whoever waited for the lock must look again

    def end(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child = None


def _plain(text: Any, most: int) -> str:
    """One short line without markup: the child's words may hold pieces of the file."""
    return re.sub(r"[^\w .,:;'\"()/+-]+", " ", str(text))[:most].strip()


def environment() -> dict[str, str]:
    """Only what Python needs to find its packages: no tokens, no secrets, no proxies."""
    kept = {key: os.environ[key] for key in ("SYSTEMROOT", "LD_LIBRARY_PATH") if key in os.environ}
    path = os.pathsep.join([ROOT, *filter(None, sys.path)])
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**kept, **threads, "PATH": os.defpath, "PYTHONPATH": path, "PYTHONUTF8": "1", "RUST_BACKTRACE": "0"}


ROOT = str(Path(tokenlab.__file__).parents[1])
_children = Children(limits.CHILDREN)
