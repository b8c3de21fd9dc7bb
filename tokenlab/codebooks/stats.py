"""What codes say about a codebook: how evenly it is used, which codes go together, how it looks from above.

Counted on pictures that training has not seen, in evaluation mode. A codebook of K entries needs many more than K
tokens: show `counted` beside every number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class CodebookStats:
    """Statistics of ids (B, N, H) that come in by `update`; entry h of sizes is how many codes book h has.

    Tokens with an id of -1 in a book (masked, or a level that was dropped) do not count there."""

    def __init__(self, sizes: Sequence[int]):
        self.sizes = tuple(sizes)
        self._batches: list[np.ndarray] = []

    def update(self, ids: np.ndarray, mask: np.ndarray | None = None) -> None:
        """ids (B, N, H), or (B, N) of one book: NumPy or torch, on the CPU; mask (B, N) bool: tokens that count.

        ValueError: another number of books, or an id beyond a book's end."""
        ids = np.array(ids, dtype=np.int64)
        if ids.ndim == 2:
            ids = ids[..., None]
        if ids.ndim != 3 or ids.shape[-1] != len(self.sizes):
            raise ValueError(f"ids of shape {ids.shape} are not (B, N, {len(self.sizes)})")
        if ids.size and ((ids < -1) | (ids >= np.array(self.sizes))).any():
            raise ValueError("an id lies outside of its codebook")
        if mask is not None:
            ids[~np.asarray(mask, dtype=bool)] = -1
        self._batches.append(ids)

    def counted(self, h: int = 0) -> int:
        """Tokens that count in book h."""
        return int(self.histogram(h).sum())

    def histogram(self, h: int = 0) -> np.ndarray:
        """(K_h,) how often each code came up."""
        ids = self._flat(h)
        return np.bincount(ids[ids >= 0], minlength=self.sizes[h])

    def entropy_bits(self, h: int = 0) -> float:
        """Entropy of the codes' frequencies; at most log2 K. Too low on few tokens."""
        return entropy(self.histogram(h)) / np.log(2)

    def perplexity(self, h: int = 0) -> float:
        """e to the entropy: as many codes, used evenly, would be as uncertain."""
        return float(np.exp(entropy(self.histogram(h))))

    def used_fraction(self, h: int = 0) -> float:
        """Share of the codes that came up at all."""
        return float((self.histogram(h) > 0).mean())

    def dead(self, h: int = 0) -> np.ndarray:
        """Codes that never came up."""
        return np.flatnonzero(self.histogram(h) == 0)

    def cooccurrence(self, h1: int, h2: int) -> np.ndarray:
        """(K_h1, K_h2) how often two codes stood for the same token."""
        return self._pairs(self._flat(h1), self._flat(h2), h1, h2)

    def mutual_information(self, h1: int, h2: int, seed: int = 0, shuffles: int = 4, corrected: bool = True) -> float:
        """Nats that the code of one book tells about the other's, for the same token.

        From n tokens it comes out too high by about (K - 1) ** 2 / 2n even for independent books; so the mean over
        `shuffles` random pairings of the same codes is subtracted. corrected=False leaves that out."""
        first, second = self._flat(h1), self._flat(h2)
        both = (first >= 0) & (second >= 0)
        first, second = first[both], second[both]
        found = mutual_information(self._pairs(first, second, h1, h2))
        if not corrected:
            return found
        rng = np.random.default_rng(seed)
        chance = [
            mutual_information(self._pairs(first, rng.permutation(second), h1, h2)) for _ in range(max(1, shuffles))
        ]
        return found - float(np.mean(chance))

    def bigram(self, h: int = 0) -> np.ndarray:
        """(K_h, K_h) how often code [column] came right after code [row] in the order of tokens."""
        counts = np.zeros((self.sizes[h], self.sizes[h]), np.int64)
        for ids in self._batches:
            counts += self._pairs(ids[:, :-1, h].ravel(), ids[:, 1:, h].ravel(), h, h)
        return counts

    def per_position_entropy(self, h: int = 0) -> np.ndarray:
        """(N,) entropy in bits of the codes at each position, over the batch. ValueError: N was not always the same."""
        if len({ids.shape[1] for ids in self._batches}) > 1:
            raise ValueError("positions can only be compared when all have the same number of tokens")
        ids = np.concatenate([ids[..., h] for ids in self._batches])
        columns = (np.bincount(column[column >= 0], minlength=self.sizes[h]) for column in ids.T)
        return np.array([entropy(column) / np.log(2) for column in columns])

    def _flat(self, h: int) -> np.ndarray:
        return np.concatenate([ids[..., h].ravel() for ids in self._batches] or [np.zeros(0, np.int64)])

    def _pairs(self, first: np.ndarray, second: np.ndarray, h1: int, h2: int) -> np.ndarray:
        both = (first >= 0) & (second >= 0)
        shape = self.sizes[h1], self.sizes[h2]
        return np.bincount(first[both] * shape[1] + second[both], minlength=shape[0] * shape[1]).reshape(shape)


def entropy(counts: np.ndarray) -> float:
    """Nats, of frequencies; 0 of nothing."""
    counts = counts[counts > 0]
    if not len(counts):
        return 0.0
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum())


def mutual_information(joint: np.ndarray) -> float:
    """Nats, of a table of joint counts (a, b): H(a) + H(b) - H(a, b)."""
    return entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint.ravel())


def plane(codebook: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Entries (K, d) in the plane of their two main directions: (K, 2), and the share of the variance that each
    direction holds. A direction's sign is chosen so that its largest part points up."""
    centred = np.asarray(codebook, np.float64) - np.mean(codebook, 0)
    u, s, vt = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(centred), 2))
    shares = [0.0, 0.0]
    for i in range(min(2, len(s))):
        sign = np.sign(vt[i, np.abs(vt[i]).argmax()])
        points[:, i] = sign * u[:, i] * s[i]
        shares[i] = float(s[i] ** 2 / max((s**2).sum(), 1e-30))
    return points, (shares[0], shares[1])
