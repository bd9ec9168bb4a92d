"""Counts of one document over all buckets, and their emission in ascending order of bucket.

Belongs here: the counters and the bitmaps of the buckets in use. Does not belong here: where counts come from.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from dsir.hashing import _0, _1
from dsir.intrinsics import count_ones, count_trailing_zeros, inner

DENSE_BUCKETS = 1 << 16  # up to here a document's bitmap is scanned whole, beyond it through a summary

Counts = namedtuple(
    "Counts",
    [
        "counters",  # uint32[n_buckets], zero between documents
        "bitmap",  # uint64[ceil(n_buckets / 64)]: which counters are in use
        "summary",  # uint64[ceil(n_buckets / 4096)]: which words of the bitmap are; empty if `DENSE_BUCKETS` or fewer
    ],
)


def new_counts(n_buckets: int) -> Counts:
    """Counters for ``n_buckets``, all zero; for one thread at a time."""
    words = -(-n_buckets // 64)
    summary = -(-words // 64) if n_buckets > DENSE_BUCKETS else 0
    return Counts(np.zeros(n_buckets, np.uint32), np.zeros(words, np.uint64), np.zeros(summary, np.uint64))


@inner
def add(counts, bucket, n):
    """Add `n` to the count of a bucket (int64)."""
    counts.counters[bucket] += np.uint32(n)
    word = bucket >> 6
    counts.bitmap[word] |= _1 << np.uint64(bucket & 63)
    if len(counts.summary) > 0:
        counts.summary[word >> 6] |= _1 << np.uint64(word & 63)


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
def n_in_use(counts):
    """How many buckets have a count."""
    n = 0
    if len(counts.summary) == 0:
        for word in range(len(counts.bitmap)):
            n += count_ones(counts.bitmap[word])
    else:
        for i in range(len(counts.summary)):
            bits = counts.summary[i]
            while bits != 0:
                n += count_ones(counts.bitmap[64 * i + count_trailing_zeros(bits)])
                bits &= bits - _1
    return n


@inner
def emit(counts, buckets, values, at):
    """Write the buckets in use and their counts, ascending, from index `at` on; all counts become zero.

    Returns the index after the last. There must be room for `n_in_use` more.
    """
    if len(counts.summary) == 0:
        for word in range(len(counts.bitmap)):
            at = _emit_word(counts, word, buckets, values, at)
    else:
        for i in range(len(counts.summary)):
            bits = counts.summary[i]
            counts.summary[i] = _0
            while bits != 0:
                at = _emit_word(counts, 64 * i + count_trailing_zeros(bits), buckets, values, at)
                bits &= bits - _1
    return at


@njit(cache=True, nogil=True)
def add_counts(buckets, counts, totals):
    """Add sparse counts to totals, int64[n_buckets]."""
    for i in range(len(buckets)):
        totals[buckets[i]] += counts[i]
