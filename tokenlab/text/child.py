"""The child process that opens one tokenizer file of unknown origin.

    python -m tokenlab.text.child MEMORY_BYTES SECONDS_PER_REQUEST

A crafted file can make its library panic, crash, eat memory or run for ever. Here it can do that alone: no
secrets in the environment, no files to write, bounded memory, and the app (sandbox.py) kills it on time.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import numpy as np

from tokenlab.errors import UserError
from tokenlab.text import files, pipe
from tokenlab.text.tokenization import Tokenizer, encode_many


def main(memory: int, seconds: int) -> None:
    """Answer requests on standard input until it ends."""
    restrict(memory)
    # Replies leave by a private copy of standard output, so that nothing a library prints is mixed in.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tokenizer: Tokenizer | None = None
    while (message := pipe.receive(sys.stdin.buffer)) is not None:
        head, parts = message
        _alarm(seconds + 2)
        outcome: dict[str, Any] = {}
        answer: list[bytes] = []
        try:
            if head["do"] == "open":
                tokenizer = files.open_file(parts[0], head["kind"], head["name"])
            else:
                answer = ANSWERS[head["do"]](tokenizer, head, parts)
        except UserError as error:
            outcome = {"refused": str(error)}
        except MemoryError:
            outcome = {"memory": True}
        except Exception as error:
            outcome = {"failed": str(error)[:200]}
        except BaseException:  # noqa: BLE001  a panic of a Rust library is no Exception
            outcome = {"crashed": True}
        _alarm(0)
        pipe.send(replies, outcome, answer)


def restrict(memory: int) -> None:
    """Bound memory (bytes of address space) and forbid files and core dumps, where the system can (not on Windows)."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _alarm(seconds: int) -> None:
    """End this process in `seconds` (0: never), in case nobody is left to kill it."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _about(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    return [str(tokenizer.vocabulary_size).encode()]


def _encode(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    tokens = tokenizer.encode(parts[0].decode())
    return [tokens.ids.tobytes(), tokens.starts.tobytes(), tokens.ends.tobytes()]


def _encode_batch(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    texts = [text.decode() for text in pipe.unpacked(parts)]
    return pipe.packed([np.array(ids, np.int64).tobytes() for ids in encode_many(tokenizer, texts)])


def _decode(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    return [tokenizer.decode(np.frombuffer(parts[0], dtype=np.int64)).encode()]


def _pieces(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    return pipe.packed(tokenizer.pieces())


def _kinds(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    return [tokenizer.kinds().tobytes()]


def _merges(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    merges = tokenizer.merges()
    return [] if merges is None else pipe.packed([part for pair in merges for part in pair])


def _merge_parts(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    return list(tokenizer.merge_parts(head["id"]) or ())


def _pre_tokenize(tokenizer: Tokenizer, head: dict, parts: list[bytes]) -> list[bytes]:
    return pipe.packed(tokenizer.pre_tokenize(parts[0].decode()))


ANSWERS = {
    "about": _about,
    "encode": _encode,
    "encode_batch": _encode_batch,
    "decode": _decode,
    "pieces": _pieces,
    "kinds": _kinds,
    "merges": _merges,
    "merge_parts": _merge_parts,
    "pre_tokenize": _pre_tokenize,
}

if __name__ == "__main__":
    main(memory=int(sys.argv[1]), seconds=int(sys.argv[2]))
