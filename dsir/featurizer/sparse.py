"""Counts of one document over all buckets, and their emission in ascending order of bucket.

What belongs here: the counters and the bitmaps of the buckets in use. What does not: where counts come from.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from dsir.featurizer.intrinsics import count_trailing_zeros, inner

_0, _1 = np.uint64(0), np.uint64(1)
DENSE_BUCKETS = 1 << 16  # up to here a document's bitmap is scanned whole, beyond it through a summary

Counts = namedtuple(
    "Counts",
    [
        "counters",  # uint32[n_buckets], zero between documents
        "bitmap",  # uint64[...]: a bit a counter, set if it is in use
        "summary",  # uint64[...]: a bit a word of the bitmap; empty if there are `DENSE_BUCKETS` or fewer
        "top",  # uint64[...]: a bit a word of the summary; likewise
    ],
)


def new_counts(n_buckets: int) -> Counts:
    """Counters for ``n_buckets``, all zero; for one thread at a time."""
    bitmap = -(-n_buckets // 64)
    summary = -(-bitmap // 64) if n_buckets > DENSE_BUCKETS else 0
    top = -(-summary // 64)
    return Counts(np.zeros(n_buckets, np.uint32), *(np.zeros(n, np.uint64) for n in (bitmap, summary, top)))


@inner
def _set(bitmap, i):
    bitmap[i >> 6] |= _1 << np.uint64(i & 63)


@inner
def add(counts, bucket, n):
    """Add `n` to the count of a bucket (int64)."""
    counts.counters[bucket] += np.uint32(n)
    _set(counts.bitmap, bucket)
    if len(counts.summary) > 0:
        _set(counts.summary, bucket >> 6)
        _set(counts.top, bucket >> 12)


@inner
def _emit_word(counts, word, buckets, values, at):
    bits = counts.bitmap[word]
    counts.bitmap[word] = _0
    while bits != 0:
        bucket = 64 * word + count_trailing_zeros(bits)
        bits &= bits - _1
        buckets[at] = bucket
        values[at] = counts.counters[bucket]
        counts.counters[bucket] = 0
        at += 1
    return at


@inner
def emit(counts, buckets, values, at):
    """Write the buckets in use and their counts, ascending, from index `at` on; all counts become zero.

    Returns the index after the last. There must be room for all of them.
    """
    if len(counts.summary) == 0:
        for word in range(len(counts.bitmap)):
            at = _emit_word(counts, word, buckets, values, at)
        return at
    for i in range(len(counts.top)):
        top = counts.top[i]
        counts.top[i] = _0
        while top != 0:
            j = 64 * i + count_trailing_zeros(top)
            top &= top - _1
            bits = counts.summary[j]
            counts.summary[j] = _0
            while bits != 0:
                at = _emit_word(counts, 64 * j + count_trailing_zeros(bits), buckets, values, at)
                bits &= bits - _1
    return at


@njit(cache=True, nogil=True)
def add_counts(buckets, counts, totals):
    """Add sparse counts to totals, int64[n_buckets]."""
    for i in range(len(buckets)):
        totals[buckets[i]] += np.int64(counts[i])


@njit(cache=True, nogil=True)
def sum_counts(offsets, counts):
    """The sum of every document's counts: int64[documents]."""
    sums = np.empty(offsets.size - 1, np.int64)
    for document in range(sums.size):
        total = np.int64(0)
        for i in range(np.uint64(offsets[document]), np.uint64(offsets[document + 1])):
            total += np.int64(counts[i])
        sums[document] = total
    return sums
