"""Messages between the app and its child processes: one line of JSON, then raw bytes. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from tokenlab import limits


def send(stream: BinaryIO, head: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Write a message. Raises OSError when the other side is gone."""
    stream.write(json.dumps({"head": head, "sizes": [len(part) for part in parts]}).encode() + b"\n")
    for part in parts:
        stream.write(part)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], list[bytes]] | None:
    """Read a message; None at the end of the stream. Raises ValueError when it is not well formed."""
    line = stream.readline(limits.CHILD_HEAD_BYTES)
    if not line:
        return None
    message = json.loads(line)
    head, sizes = dict(message["head"]), message["sizes"]
    if sum(sizes) > limits.CHILD_BODY_BYTES or any(size < 0 for size in sizes):
        raise ValueError("the message is too large")
    parts = [stream.read(size) for size in sizes]
    if [len(part) for part in parts] != sizes:
        return None
    return head, parts


def packed(items: Sequence[bytes]) -> list[bytes]:
    """Many small items as two parts of a message: their lengths, and all of them in a row."""
    return [np.array([len(item) for item in items], dtype=np.int64).tobytes(), b"".join(items)]


def unpacked(parts: Sequence[bytes], items: int | None = None) -> list[bytes]:
    """What `packed` packed. Raises ValueError unless there are `items` of them (None: any number)."""
    lengths, data = parts
    ends = np.cumsum(np.frombuffer(lengths, dtype=np.int64)).tolist()
    if items not in (None, len(ends)):
        raise ValueError(f"{len(ends)} items instead of {items}")
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
