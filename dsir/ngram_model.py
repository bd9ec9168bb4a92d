"""A language model without a GPU: interpolated Kneser-Ney over the bytes of texts, for bits per byte.

What belongs here: training the model, and what a text costs under it. What does not: which texts, tables.

It is ours because no kept library trains one from Python: the module of KenLM only reads models, and ``nltk.lm`` goes
through all its n-grams again for every lower-order probability (nltk#3317).

Symbols are the bytes of UTF-8 and ``BOUNDARY``, 0xFF, which no UTF-8 text contains; so up to eight symbols are one
uint64, and there is no tokenizer to fit. A text is read as BOUNDARY, its bytes, BOUNDARY. A context reaches back to the
boundary before its text and no further: texts do not touch one another. What can follow a context is one of the 255
other bytes or the end of the text, and these probabilities sum to one. The first boundary is given; the end is
predicted, but not counted by :meth:`NgramModel.bits_per_byte`: where texts were cut is not what it measures.

References
----------
Chen and Goodman, "An empirical study of smoothing techniques for language modeling", Computer Speech and Language 13,
1999: interpolation with three discounts an order. Heafield et al., "Scalable modified Kneser-Ney language model
estimation", 2013: n-grams that start a text keep their counts; fixed discounts where none can be estimated.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

#: Changes whenever the same texts and order could give another figure.
VERSION = 1
#: Starts and ends a text.
BOUNDARY = 0xFF
#: Discounts of n-grams seen once, twice, and more often, where there is too little to estimate them from.
FALLBACK = 0.5, 1.0, 1.5
#: Bits are added up in multiples of this, exactly, so that the order of texts does not change the last digit.
_GRAIN = 2.0**-32


class NgramModel:
    """An n-gram model of bytes, from :meth:`fit`."""

    def __init__(self, orders: list[_Order], order: int) -> None:
        self.order = order
        self._orders = orders

    @classmethod
    def fit(cls, texts: pa.Array | Iterable[str], order: int = 6) -> NgramModel:
        """Train on texts, in any order; n-grams of 1 to `order` bytes, at most 8. ValueError where there is no text.

        Training takes 20 bytes of memory a byte of text and 45 a distinct n-gram: under 1 GB and a quarter of a minute
        for 40 MB of English, at most 140 bytes a byte of anything.
        """
        if not 1 <= order <= 8:
            raise ValueError(f"order: {order!r}; expected 1 to 8")
        starts = _tally(texts, order)
        orders: list[_Order] = []
        longer = np.zeros(0, np.uint64)
        for length in range(order, 0, -1):
            # Inside texts, with the number of different symbols before; then those that start one: keys ascend.
            inside, before = _count(longer & _mask(length))
            keys, counts = starts.pop()
            longer, counts = np.append(inside, keys), np.append(before, counts)
            if len(longer):
                orders.insert(0, _Order(longer, counts))
        return cls(orders, order)

    def bits_per_byte(self, texts: pa.Array | Iterable[str]) -> float:
        """Return what texts, in any order, cost under the model: bits per byte of UTF-8; ValueError without a text."""
        bits = n_bytes = 0
        for length, (keys, counts) in enumerate(_tally(texts, self.order), 1):
            is_byte = keys & _mask(1) != BOUNDARY
            cost = np.rint(-np.log2(self.probability(keys[is_byte], length)) / _GRAIN).astype(np.int64)
            bits += int(cost @ counts[is_byte])
            n_bytes += int(counts[is_byte].sum())
        return bits * _GRAIN / n_bytes

    def probability(self, keys: np.ndarray, length: int) -> np.ndarray:
        """Return the probability of the last symbol of n-grams after the others: ndarray of float64, shape (n,).

        `keys` is uint64[n], `length` symbols of eight bits each, the last one lowest.
        """
        found = np.full(len(keys), 1 / 256)
        for shorter, order in enumerate(self._orders[:length], 1):
            found = order.probability(keys & _mask(shorter), found)
        return found


class _Order:
    """The n-grams of one order, at least one; keys (uint64[n]) ascend, counts (int64[n]) are positive."""

    def __init__(self, keys: np.ndarray, counts: np.ndarray) -> None:
        n = [int(np.count_nonzero(counts == times)) for times in range(5)]
        y = n[1] / max(n[1] + 2 * n[2], 1)
        found = [times - (times + 1) * y * n[times + 1] / max(n[times], 1) for times in (1, 2, 3)]
        usable = min(*n[1:4], *found) > 0
        discount = np.array([0, *(found if usable else FALLBACK)])[np.minimum(counts, 3)]
        self._keys, self._discounted = keys, counts - discount
        self._contexts, types = _count(keys >> np.uint64(8))
        first = np.cumsum(types) - types
        self._total, self._left = np.add.reduceat(counts, first), np.add.reduceat(discount, first)

    def probability(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Interpolate with the lower order's probabilities; where the context is unseen, return those."""
        context, seen = _find(self._contexts, keys >> np.uint64(8))
        gram, known = _find(self._keys, keys)
        ours = np.where(known, self._discounted[gram], 0.0) + self._left[context] * lower
        return np.where(seen, ours / self._total[context], lower)


def _tally(texts: pa.Array | Iterable[str], order: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Count n-grams by length, 1 to `order`: every symbol but the first boundary with as much context as it has."""
    strings = texts.to_pylist() if isinstance(texts, pa.Array) else texts
    joined = b"\xff".join([b"", *(text.encode("utf-8", "surrogatepass") for text in strings), b""])
    symbols = np.frombuffer(joined, np.uint8)
    if symbols.min() == BOUNDARY:
        raise ValueError("no text; expected at least one that is not empty")
    context = np.ones(len(symbols), np.int8)  # the symbols of its text before each one, up to order - 1
    context[0] = -1
    inside = np.ones(len(symbols), bool)
    for back in range(1, order - 1):
        inside[back:] &= symbols[:-back] != BOUNDARY
        context[back:] += inside[back:]
    found = []
    keys = np.zeros(len(symbols), np.uint64)  # of the windows from each symbol on
    for length in range(1, order + 1):
        keys = keys[: max(len(symbols) - length + 1, 0)]
        keys <<= np.uint64(8)
        keys |= symbols[length - 1 :]
        before = context[length - 1 :]
        found.append(_count(keys[before >= length - 1 if length == order else before == length - 1]))
    return found


def _count(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct keys, ascending, and how often each occurs: uint64[n], int64[n]. Sorts in place."""
    keys.sort()
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
    return keys[first], np.diff(np.append(first, len(keys)))


def _find(ascending: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return at, ascending[at] == wanted


def _mask(length: int) -> np.uint64:
    return np.uint64((1 << 8 * length) - 1)
