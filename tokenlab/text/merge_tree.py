"""From which two parts does BPE build a token? The last of the merges that make it, found by replaying them.

Rank files (tiktoken, Tekken) and SentencePiece models list tokens by rank, not merges. But a token's own
parts all rank before it, so encoding it with the lower ranks alone stops one merge short of the token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from tokenlab import guard

LONGEST = 512  # symbols of a token whose parts are looked for: the search is quadratic


def last_merge(
    symbols: Sequence[Any], rank: Callable[[Any, Any], int | None], join: Callable[[Any, Any], Any]
) -> tuple[Any, Any] | None:
    """The pair that is left when all merges but the last are done; None when the merges get stuck before.

    symbols: what the token is built from; rank(a, b): lower merges first, None: no such merge.
    Of equal ranks the leftmost goes first."""
    symbols = list(symbols)
    if not 2 <= len(symbols) <= LONGEST:
        return None
    while len(symbols) > 2:
        ranks = [(rank(a, b), i) for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False))]
        possible = [item for item in ranks if item[0] is not None]
        if not possible:
            return None
        _, i = min(possible)
        symbols[i : i + 2] = [join(symbols[i], symbols[i + 1])]
    return symbols[0], symbols[1]


class Ranks:
    """A vocabulary in order of rank: pairs merge when their bytes together are an entry.

    entries: the mergeable ones, best first; symbols: how an entry is cut to begin with."""

    def __init__(self, entries: Iterable[bytes], symbols: Callable[[bytes], Sequence[bytes]]):
        self.ranks = {entry: rank for rank, entry in enumerate(entries)}
        self.symbols = symbols

    def parts(self, entry: bytes) -> tuple[bytes, bytes] | None:
        """The two parts that make `entry`; None for a single symbol, or when no merges lead to it."""
        own = self.ranks.get(entry)
        if own is None:
            return None

        def rank(a: bytes, b: bytes) -> int | None:
            found = self.ranks.get(a + b)
            return found if found is not None and found < own else None

        return last_merge(self.symbols(entry), rank, bytes.__add__)

    @cached_property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """All merges by rank: two seconds' work for 100,000 entries, done once."""
        found = []
        for rank, entry in enumerate(self.ranks):
            if rank % 1000 == 0:
                guard.check_time()
            parts = self.parts(entry)
            if parts is not None:
                found.append(parts)
        return found


def single_bytes(entry: bytes) -> list[bytes]:
    return [entry[i : i + 1] for i in range(len(entry))]


def single_characters(entry: bytes) -> list[bytes]:
    return [character.encode() for character in entry.decode("utf-8", "surrogatepass")]
