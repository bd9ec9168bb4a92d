"""From the buckets of a document's n-grams to how often each occurs, in ascending order of bucket.

What belongs here: the list of buckets, the counters, sorting, emission. What does not: where buckets come from.

Up to `MOST_COUNTERS` buckets there is a counter for each, of one byte, so that all stay in the nearest caches; counts
above 255 are rare and kept elsewhere. Where a scan of the counters would take longer, since there would be more of them
or the document is short, its buckets are sorted instead.
"""

from collections import namedtuple

import numpy as np
from numba import njit

from dsir.featurizer.intrinsics import BLOCK, append_places, count_trailing_zeros, inner, nonzero

MOST_COUNTERS = 1 << 16
_SCANNED = 128  # counters that are scanned in the time it takes to sort a bucket
_LARGEST_BYTE, _1 = np.uint8(255), np.uint8(1)
FOUND, _COUNTED, _BEYOND = range(3)

Counts = namedtuple(
    "Counts",
    [
        "counters",  # uint8[n_buckets rounded up], zero between documents; of no length above `MOST_COUNTERS` buckets
        "beyond",  # uint32[n_buckets], zero between documents: what the counters cannot hold
        "tallies",  # uint32[3 * 2**k], zero between documents: scratch of sorting, by k bits at a time
        "n",  # int64[3]: of the buckets in `found`; of those counted; of those of them that are counted in `beyond`
        "found",  # uint32[room]: the buckets not counted yet
        "spare",  # uint32[room]: scratch of sorting
    ],
)


def new_counts(n_buckets: int) -> Counts:
    """Counts over ``n_buckets``, of nothing; for one thread at a time."""
    counters = n_buckets if n_buckets <= MOST_COUNTERS else 0
    third = -(-(n_buckets - 1).bit_length() // 3)
    return Counts(
        counters=np.zeros(-(-counters // BLOCK) * BLOCK, np.uint8),
        beyond=np.zeros(counters, np.uint32),
        tallies=np.zeros(3 << third, np.uint32),
        n=np.zeros(3, np.int64),
        found=np.zeros(0, np.uint32),
        spare=np.zeros(0, np.uint32),
    )


@njit(nogil=True)
def larger(array, used, needed):
    """An array of at least `needed` elements with the same first `used`."""
    new = np.empty(needed + needed // 2, array.dtype)
    for i in range(used):
        new[i] = array[i]
    return new


@njit(nogil=True)
def with_room(counts, n):
    """The same counts, with room for n buckets."""
    found, spare = larger(counts.found, counts.n[FOUND], n), larger(counts.spare, counts.n[FOUND], n)
    return Counts(counts.counters, counts.beyond, counts.tallies, counts.n, found, spare)


@inner
def add(counts, bucket, n):
    """Add `n` to the count of a bucket. There must be room."""
    first = counts.n[FOUND]
    for i in range(first, first + n):
        counts.found[i] = bucket
    counts.n[FOUND] += n


@inner
def count(counts):
    """Count the buckets found so far, unless they are few enough to be sorted."""
    counters, found = counts.counters, counts.n[FOUND]
    if (counts.n[_COUNTED] == 0 and found * _SCANNED < len(counters)) or len(counters) == 0:
        return
    for i in range(found):
        bucket = counts.found[i]
        n = counters[bucket]
        if n == _LARGEST_BYTE:
            counts.beyond[bucket] += np.uint32(n)
            counts.n[_BEYOND] += 1
            n = np.uint8(0)
        counters[bucket] = n + _1
    counts.n[_COUNTED] += found
    counts.n[FOUND] = 0


@inner
def _sort(keys, spare, n, tallies):
    """Sort ``keys[:n]`` into ``spare[:n]``: three times by a third of the bits, the lowest first."""
    size = len(tallies) // 3
    width, mask = np.uint32(count_trailing_zeros(np.uint64(size))), np.uint32(size - 1)
    low, middle, high = tallies[:size], tallies[size : 2 * size], tallies[2 * size :]
    for i in range(n):
        key = keys[i]
        low[key & mask] += 1
        middle[(key >> width) & mask] += 1
        high[(key >> (width + width)) & mask] += 1
    for third in range(3):
        shift, places = np.uint32(third) * width, tallies[third * size : (third + 1) * size]
        total = 0
        for k in range(size):
            tally = places[k]
            places[k] = total
            total += tally
        for i in range(n):
            key = keys[i]
            digit = (key >> shift) & mask
            place = places[digit]
            places[digit] = place + 1
            spare[place] = key
        keys, spare = spare, keys
    tallies[:] = 0


@inner
def emit(counts, buckets, values, at):
    """Write the buckets that occur and their counts, ascending, from index `at` on; all counts become zero.

    Returns the index after the last. There must be room for all of them and `BLOCK` more.
    """
    count(counts)
    first = at
    if counts.n[_COUNTED] > 0:
        counters = counts.counters
        for i in range(0, len(counters), BLOCK):
            at = append_places(nonzero(counters, i), i, buckets, at)
        for i in range(first, at):
            bucket = buckets[i]
            values[i] = counters[bucket]
            counters[bucket] = 0
    if counts.n[_BEYOND] > 0:
        for i in range(first, at):
            values[i] += counts.beyond[buckets[i]]
            counts.beyond[buckets[i]] = 0
    n = counts.n[FOUND]
    if n > 0:
        _sort(counts.found, counts.spare, n, counts.tallies)
        before, start = ~counts.spare[0], 0
        for i in range(n):
            bucket = counts.spare[i]
            start = i if bucket != before else start
            at += np.int64(start == i)
            buckets[at - 1], values[at - 1] = bucket, i - start + 1
            before = bucket
    counts.n[:] = 0
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
