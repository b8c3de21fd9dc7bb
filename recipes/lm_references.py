"""Simple references for bits per byte: an order-5 byte n-gram with back-off, and xz."""

import lzma

import numpy as np

ORDER = 5  # bytes of context


class ByteNgram:
    """Witten-Bell: each order mixes its counts with the order below, weighted by how many followers its context has.

    P_k(c | context) = (count(context, c) + types(context) P_{k-1}(c)) / (count(context) + types(context)), and
    P_{-1} = 1 / 256 (Witten and Bell 1991; Chen and Goodman 1999, section 2.6).
    """

    def __init__(self, data: bytes):
        self.tables = []
        for order in range(ORDER + 1):
            grams, counts = np.unique(_grams(data, order), return_counts=True)
            contexts, first = np.unique(grams >> 8, return_index=True)
            types = np.diff(np.append(first, len(grams)))
            self.tables.append((grams, counts, contexts, np.add.reduceat(counts, first), types))

    def bits(self, data: bytes) -> float:
        """Bits for all bytes of `data`; the first ones have a shorter context."""
        size = len(data)
        probability = np.full(size, 1 / 256)
        for order, (grams, counts, contexts, totals, types) in enumerate(self.tables):
            if size <= order:
                break
            wanted = _grams(data, order)
            count = _find(grams, counts, wanted)
            total = _find(contexts, totals, wanted >> 8)
            kinds = _find(contexts, types, wanted >> 8)
            lower = probability[order:]
            probability[order:] = np.where(total > 0, (count + kinds * lower) / np.maximum(total + kinds, 1), lower)
        return float(-np.log2(probability).sum())


def _grams(data: bytes, order: int) -> np.ndarray:
    """Each byte with the `order` bytes before it, packed into an integer: (len(data) - order,)."""
    array = np.frombuffer(data, np.uint8).astype(np.int64)
    size = len(array) - order
    packed = np.zeros(size, np.int64)
    for i in range(order + 1):
        packed = packed << 8 | array[i : i + size]
    return packed


def _find(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def xz_bits(data: bytes) -> int:
    """Bits of `data` packed by xz -9e, without the container's header."""
    return 8 * len(lzma.compress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9 | 1 << 31}]))


def xz_bits_after(before: bytes, data: bytes) -> int:
    """Bits that `data` adds to `before` when both are packed as one (before: up to 64 MiB, xz's window)."""
    return xz_bits(before + data) - xz_bits(before)
