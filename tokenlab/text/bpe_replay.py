"""Byte-pair encoding as a film: train merges, or replay someone else's, and count pairs before each step.

BPE (Sennrich et al., 2016, arXiv:1508.07909) starts from single symbols and again and again joins the
most frequent pair of neighbors into a new symbol. Text is cut into words (pre-tokens) first, and no
pair crosses a word's edge, so a corpus is a table of distinct words with counts. Here the counts may
have several columns, one per corpus: one replay then counts pairs in all of them.

Counting and ties follow the `tokenizers` library: every adjacency counts ("aaa" holds the pair (a, a)
twice), merging goes from left to right ("aaa" becomes "aa", "a"), equal counts go to the pair with the
lower ids, and two ways to write the same bytes are one symbol.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np

Pair = tuple[int, int]
Merge = tuple[bytes, bytes]

# GPT-2's order of the 256 bytes, which byte-level tokenizers use as ids: printable ones first.
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256), *range(33), *range(127, 161), 173]


class Replay:
    """A corpus under a growing list of merges.

    words: each a list of symbols (bytes): single bytes for byte-level BPE, single characters for
    SentencePiece (merge_tree.single_bytes, single_characters). counts: (words, n) int, a column per corpus.
    tokens: id -> bytes. table[row] is the (n,) count of the pair pairs[row]."""

    def __init__(self, words: Iterable[Sequence[bytes]], counts: np.ndarray):
        self.counts = np.asarray(counts)
        words = list(words)
        self.tokens = _alphabet(words)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.words = [[self.ids[symbol] for symbol in word] for word in words]
        self.pairs: list[Pair] = []
        self.rows: dict[Pair, int] = {}
        self.where: list[set[int]] = []  # row -> words that hold the pair, or once held it
        rows, owners = [], []
        for number, word in enumerate(self.words):
            for pair in zip(word, word[1:], strict=False):
                row = self._row(pair)
                self.where[row].add(number)
                rows.append(row)
                owners.append(number)
        self.table = np.zeros((max(1024, 2 * len(self.pairs)), self.counts.shape[1]), self.counts.dtype)
        np.add.at(self.table, rows, self.counts[owners])

    def row(self, merge: Merge) -> int | None:
        """The table row of a pair of tokens given as bytes; None when the corpus never held it."""
        left, right = (self.ids.get(token) for token in merge)
        return self.rows.get((left, right))

    def merge(self, merge: Merge) -> np.ndarray:
        """Join the pair everywhere. Returns the rows of all pairs whose counts changed."""
        joined = b"".join(merge)
        if joined not in self.ids:
            self.ids[joined] = len(self.tokens)
            self.tokens.append(joined)
        row = self.row(merge)
        if row is None or not self.where[row]:
            return np.empty(0, np.int64)
        pair, new = self.pairs[row], self.ids[joined]
        rows, owners, signs = [], [], []
        for number in self.where[row]:
            word, lost, gained = _join(self.words[number], pair, new)
            self.words[number] = word
            for changed, sign in ((lost, -1), (gained, 1)):
                for other in changed:
                    rows.append(self._row(other))
                    owners.append(number)
                    signs.append(sign)
            for other in gained:
                self.where[self.rows[other]].add(number)
        self.where[row] = set()
        if len(self.pairs) > len(self.table):
            self.table = np.concatenate([self.table, np.zeros_like(self.table)])
        if not rows:  # the words in `where` held the pair once, and no longer do
            return np.empty(0, np.int64)
        np.add.at(self.table, rows, self.counts[owners] * np.array(signs)[:, None])
        return np.unique(rows)

    def train(self, count: int) -> list[Merge]:
        """Learn up to `count` merges, the most frequent pair (sum of all columns) first."""
        heap = [(-n, pair) for pair, n in zip(self.pairs, self.totals(), strict=True)]
        heapq.heapify(heap)
        learned: list[Merge] = []
        while heap and len(learned) < count:
            n, pair = heapq.heappop(heap)
            now = int(self.table[self.rows[pair]].sum())
            if now != -n:  # written down before a merge took some of them away
                if now > 0:
                    heapq.heappush(heap, (-now, pair))
                continue
            if now == 0:
                continue
            learned.append((self.tokens[pair[0]], self.tokens[pair[1]]))
            changed = self.merge(learned[-1])
            for row, total in zip(changed.tolist(), self.table[changed].sum(axis=1).tolist(), strict=True):
                if total > 0:
                    heapq.heappush(heap, (-total, self.pairs[row]))
        return learned

    def totals(self) -> list[int]:
        """The count of every pair, summed over the corpora."""
        return self.table[: len(self.pairs)].sum(axis=1).tolist()

    def token_counts(self) -> np.ndarray:
        """(tokens, n): how often each token stands in each corpus now."""
        out = np.zeros((len(self.tokens), self.counts.shape[1]), self.counts.dtype)
        ids = [token for word in self.words for token in word]
        owners = np.repeat(np.arange(len(self.words)), [len(word) for word in self.words])
        np.add.at(out, ids, self.counts[owners])
        return out

    def _row(self, pair: Pair) -> int:
        row = self.rows.get(pair)
        if row is None:
            row = self.rows[pair] = len(self.pairs)
            self.pairs.append(pair)
            self.where.append(set())
        return row


def _alphabet(words: list[Sequence[bytes]]) -> list[bytes]:
    """All 256 bytes, then longer symbols (characters) in the order of their code points."""
    longer = {symbol for word in words for symbol in word if len(symbol) > 1}
    return [bytes([b]) for b in BYTES] + sorted(longer)


def _join(word: list[int], pair: Pair, new: int) -> tuple[list[int], list[Pair], list[Pair]]:
    """The word with `pair` joined from left to right, the pairs it lost and the pairs it gained."""
    left, right = pair
    out: list[int] = []
    lost: list[Pair] = []
    gained: list[Pair] = []
    i, last = 0, len(word) - 1
    while i <= last:
        if word[i] == left and i < last and word[i + 1] == right:
            lost.append(pair)
            if out:
                lost.append((out[-1], left))
                gained.append((out[-1], new))
            if i + 1 < last:
                lost.append((right, word[i + 2]))
                gained.append((new, word[i + 2]))
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out, lost, gained
