"""SHA-256 buckets of n-grams, remembering those already hashed.

What belongs here: the memo and the queue of n-grams waiting to be hashed together. What does not: SHA-256 itself
(`sha256`), sparse counts (`kernel`).

Most n-grams of a text recur, so buckets are kept in two direct-mapped tables, of words and of longer n-grams. The memo
is exact for any text: words are compared by their bytes, n-grams by two integers that identify their parts.

- Every entry, when written, gets a *serial number* that no earlier entry had.
- A word of at most `MAX_WORD` bytes is found by comparing all its bytes and its length. Longer words are hashed anew
  each time and have serial number 0, which is never looked up.
- An n-gram is found by comparing the pair (serial number of its first n - 1 words, serial number of its last word). A
  serial number identifies one word sequence, so equal pairs are equal n-grams. The converse does not hold (an
  overwritten entry returns under a new number), which costs a hash but is no error.
- Before the 32-bit numbers run out, the tables are emptied and numbering starts again.

What is not found is queued, hashed `sha256.LANES` at a time, and only then counted; until then its entry holds its
place in the queue, where further occurrences are added up.
"""

from collections import namedtuple

import numpy as np

from dsir.featurizer.hashing import ALL_ONES, K1, K2, K3
from dsir.featurizer.intrinsics import inner, load_u64, prefetch
from dsir.featurizer.sha256 import (
    INITIAL_STATE,
    LANES,
    MAX_ONE_BLOCK,
    bucket_of_long,
    buckets_of_blocks,
    remainder_factors,
    write_block,
)
from dsir.featurizer.sparse import add

MAX_WORD = 23  # bytes of the longest word kept: three 64-bit integers, less one byte for the length
WORD_BITS, GRAM_BITS = 17, 20  # log2 of the number of entries of each table
WORD_ENTRY, GRAM_ENTRY = 4, 2  # 64-bit integers an entry: the key, then serial << 32 | value
GRAMS = WORD_ENTRY << WORD_BITS  # where the n-grams begin
QUEUE = 512  # a multiple of LANES
AHEAD = 12  # n-grams between asking for an entry and using it

_PENDING = np.uint64(1 << 31)  # a value with this bit is a place in the queue, any other is a bucket
_VALUE = np.uint64(0xFFFFFFFF)
_0, _32 = np.uint64(0), np.uint64(32)
_SERIAL, _QUEUED = 0, 1
LAST_SERIAL = 2**32 - 1

Memo = namedtuple(
    "Memo",
    [
        "entries",  # uint64[...]: words, then n-grams
        "cursor",  # int64[2]: the last serial number given; the length of the queue
        "blocks",  # uint8[64 * QUEUE + 8]: padded messages
        "occurrences",  # int64[QUEUE]
        "places",  # int64[QUEUE]: index in `entries` of the value to fill in, or -1
        "buckets",  # int64[QUEUE]
        "words",  # uint64[room]: serial numbers of the words counted now
        "prefixes",  # uint64[room]: serial numbers of the n-grams that end in them
        "state",  # uint32[8 * LANES]: scratch of SHA-256
        "block",  # uint8[64 * LANES]: scratch of SHA-256
        "initial",  # uint32[8]
        "factors",  # uint64[8]
    ],
)


def new_memo(n_buckets: int, room: int) -> Memo:
    """An empty memo of buckets among ``n_buckets`` (at most 2**24), for one thread at a time; about 20 MiB.

    `room` is the most words counted at once, and those before them that begin n-grams.
    """
    return Memo(
        entries=np.zeros(GRAMS + (GRAM_ENTRY << GRAM_BITS), np.uint64),
        cursor=np.zeros(2, np.int64),
        blocks=np.zeros(64 * QUEUE + 8, np.uint8),
        occurrences=np.zeros(QUEUE, np.int64),
        places=np.zeros(QUEUE, np.int64),
        buckets=np.zeros(QUEUE, np.int64),
        words=np.zeros(room, np.uint64),
        prefixes=np.zeros(room, np.uint64),
        state=np.zeros(8 * LANES, np.uint32),
        block=np.zeros(64 * LANES, np.uint8),
        initial=INITIAL_STATE.copy(),
        factors=remainder_factors(n_buckets),
    )


@inner
def flush(memo, n_buckets, counts):
    """Hash what is queued, count it, and fill in the entries that wait for it."""
    n = memo.cursor[_QUEUED]
    buckets_of_blocks(memo.blocks, n, memo.state, memo.initial, memo.factors, n_buckets, memo.buckets)
    for q in range(n):
        add(counts, memo.buckets[q], memo.occurrences[q])
        place = memo.places[q]
        if place >= 0:
            entry = memo.entries[place]
            if entry & _VALUE == _PENDING | np.uint64(q):
                memo.entries[place] = (entry & ~_VALUE) | np.uint64(memo.buckets[q])
    memo.cursor[_QUEUED] = 0


@inner
def _hash(memo, low, starts, ends, first, last, place, n_buckets, counts):
    """Count an n-gram that is not in the memo; returns the value of its entry (a bucket or a place in the queue)."""
    length = last - first - 1
    for k in range(first, last):
        length += ends[k] - starts[k]
    if length > MAX_ONE_BLOCK:
        bucket = bucket_of_long(
            low, starts, ends, first, last, memo.block, memo.state, memo.initial, memo.factors, n_buckets
        )
        add(counts, bucket, 1)
        return np.uint64(bucket)
    if memo.cursor[_QUEUED] == QUEUE:
        flush(memo, n_buckets, counts)
    q = memo.cursor[_QUEUED]
    memo.cursor[_QUEUED] = q + 1
    write_block(memo.blocks, 64 * q, low, starts, ends, first, last)
    memo.occurrences[q] = 1
    memo.places[q] = place
    return _PENDING | np.uint64(q)


@inner
def _count_entry(memo, entry, counts):
    """Count one more occurrence of a known n-gram; returns its serial number."""
    value = entry & _VALUE
    if value & _PENDING != 0:
        memo.occurrences[np.int64(value & ~_PENDING)] += 1
    else:
        add(counts, np.int64(value), 1)
    return entry >> _32


@inner
def _load_word(low, start, length):
    """Key of a word of at most `MAX_WORD` bytes: its bytes, zeros, and in the last byte its length plus one."""
    a, b, c = load_u64(low, start), _0, _0
    if length <= 8:
        a = a & (ALL_ONES >> np.uint64(64 - 8 * length)) if length > 0 else _0
    else:
        b = load_u64(low, start + 8)
        if length <= 16:
            b &= ALL_ONES >> np.uint64(128 - 8 * length)
        else:
            c = load_u64(low, start + 16) & (ALL_ONES >> np.uint64(192 - 8 * length))
    return a, b, c | np.uint64(length + 1) << np.uint64(56)


@inner
def _word_place(a, b, c):
    h = (a * K1) ^ (b * K2) ^ (c * K3)
    h = (h ^ (h >> _32)) * K1
    return WORD_ENTRY * np.int64(h >> np.uint64(64 - WORD_BITS))


@inner
def _gram_place(prefix, word):
    key = prefix << _32 | word
    h = (key ^ (key >> _32)) * K1
    h = (h ^ (h >> _32)) * K2
    return GRAMS + GRAM_ENTRY * np.int64(h >> np.uint64(64 - GRAM_BITS))


@inner
def _next_serial(memo):
    memo.cursor[_SERIAL] += 1
    return np.uint64(memo.cursor[_SERIAL])


@inner
def _count_words(memo, low, starts, ends, first, last, n_buckets, counts):
    """Count words and leave their serial numbers in ``memo.words``, 0 for those too long for the memo."""
    entries = memo.entries
    for i in range(first, last):
        length = ends[i] - starts[i]
        serial = _0
        if length > MAX_WORD:
            _hash(memo, low, starts, ends, i, i + 1, -1, n_buckets, counts)
        else:
            a, b, c = _load_word(low, starts[i], length)
            at = _word_place(a, b, c)
            if entries[at] == a and entries[at + 1] == b and entries[at + 2] == c:
                serial = _count_entry(memo, entries[at + 3], counts)
            else:
                value = _hash(memo, low, starts, ends, i, i + 1, at + 3, n_buckets, counts)
                serial = _next_serial(memo)
                entries[at], entries[at + 1], entries[at + 2] = a, b, c
                entries[at + 3] = serial << _32 | value
        memo.words[i] = serial


@inner
def _count_grams(memo, low, starts, ends, first, last, order, n_buckets, counts):
    """Count n-grams of `order` words that end in words ``first .. last - 1``.

    ``memo.words[i]`` is the serial number of word i and ``memo.prefixes[i]`` that of the n-gram of
    ``order - 1`` words that ends there, from ``first - 1`` on; replaced by that of the n-gram counted.
    """
    entries, words, prefixes = memo.entries, memo.words, memo.prefixes
    before = prefixes[first - 1]
    for i in range(first, last):
        # The entries lie all over the memory: ask for one some time before it is needed.
        ahead = min(i + AHEAD, last - 1)
        prefetch(entries, _gram_place(prefixes[ahead - 1], words[ahead]))
        prefix, word = before, words[i]
        before = prefixes[i]
        serial = _0
        if prefix == 0 or word == 0:
            _hash(memo, low, starts, ends, i - order + 1, i + 1, -1, n_buckets, counts)
        else:
            at = _gram_place(prefix, word)
            key = prefix << _32 | word
            if entries[at] == key:
                serial = _count_entry(memo, entries[at + 1], counts)
            else:
                value = _hash(memo, low, starts, ends, i - order + 1, i + 1, at + 1, n_buckets, counts)
                serial = _next_serial(memo)
                entries[at] = key
                entries[at + 1] = serial << _32 | value
        prefixes[i] = serial


@inner
def count_words_sha256(memo, low, starts, ends, first, last, seen, carried, n_buckets, counts):
    """Count the n-grams that end in words ``first .. last - 1`` of a document.

    Parameters
    ----------
    memo : Memo
        Counts are complete only after `flush`.
    low : uint8[:]
        The words' bytes, with 23 more after the last.
    starts, ends : int64[:]
        Bounds of the words in `low`, those before `first` that begin an n-gram included.
    seen : int64
        How many words of the document came before `first`.
    carried : uint64[ngrams]
        Serial numbers of the n-grams of 1, 2 ... words that end in the word before `first`; updated.
    n_buckets : uint64
    counts : dsir.featurizer.sparse.Counts
    """
    ngrams = len(carried)
    if first == last:
        return
    if memo.cursor[_SERIAL] > LAST_SERIAL - ngrams * (last - first):
        flush(memo, n_buckets, counts)
        memo.entries[:] = 0
        memo.cursor[_SERIAL] = 0
        carried[:] = 0
    _count_words(memo, low, starts, ends, first, last, n_buckets, counts)
    for i in range(first, last):
        memo.prefixes[i] = memo.words[i]
    for order in range(2, ngrams + 1):
        # The first of these words that ends an n-gram of this order.
        start = first + max(order - 1 - seen, 0)
        if start >= last:
            break
        if start == first:
            before, carried[order - 2] = carried[order - 2], memo.prefixes[last - 1]
            memo.prefixes[first - 1] = before
        else:
            carried[order - 2] = memo.prefixes[last - 1]
        _count_grams(memo, low, starts, ends, start, last, order, n_buckets, counts)
