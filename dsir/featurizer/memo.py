"""SHA-256 buckets of n-grams, remembering those already hashed.

What belongs here: the memo and the queue of n-grams waiting to be hashed together. What does not: SHA-256 itself
(`sha256`), sparse counts (`kernel`).

Most n-grams of a text recur, so buckets are kept in two direct-mapped tables, of words and of longer n-grams, which
together fit a core's second-level cache: larger ones hash less, and wait longer for memory than that saves. The memo is
exact for any text: words are compared by their bytes, n-grams by two integers that identify their parts.

- Every word or n-gram that is not found gets a *serial number* that none before it had.
- A word of at most `MAX_WORD` bytes is found by comparing all its bytes and its length. Longer words, and n-grams too
  long for one block of SHA-256, are never found.
- An n-gram is found by comparing the pair (serial number of its first n - 1 words, serial number of its last word). A
  serial number identifies one word sequence, so equal pairs are equal n-grams. The converse does not hold (a sequence
  returns under a new number if its entry was overwritten), which costs a hash but is no error.
- Before the 32-bit numbers run out, the tables are emptied and numbering starts again.

`AT_ONCE` words are looked up before anything else is done, in a loop without branches that depend on the text, as a
processor cannot guess what will be found. What is not found is then queued, and hashed all at once.
"""

from collections import namedtuple

import numpy as np

from dsir.featurizer.hashing import ALL_ONES, K1, K2, K3
from dsir.featurizer.intrinsics import inlined, inner, load_u64, prefetch
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
WORD_BITS, GRAM_BITS = 15, 17  # log2 of the number of entries of each table: 3 MiB
WORD_ENTRY, GRAM_ENTRY = 4, 2  # 64-bit integers an entry: the key, then serial << 32 | bucket
GRAMS = WORD_ENTRY << WORD_BITS  # where the n-grams begin
AT_ONCE = 256  # words looked up at once; a multiple of LANES

_BUCKET = np.uint64(0xFFFFFFFF)
_0, _32 = np.uint64(0), np.uint64(32)
_SERIAL, _QUEUED = 0, 1
LAST_SERIAL = 2**32 - 1

Memo = namedtuple(
    "Memo",
    [
        "entries",  # uint64[...]: words, then n-grams
        "cursor",  # int64[2]: the last serial number given; the length of the queue
        "keys",  # uint64[3 * AT_ONCE]: of what is looked up
        "sought",  # int64[AT_ONCE]: where in `entries`
        "found",  # int64[AT_ONCE]: buckets
        "missing",  # int64[AT_ONCE]: which were not found
        "blocks",  # uint8[64 * (AT_ONCE + 1)]: the queue, padded messages
        "places",  # int64[AT_ONCE]: where in `entries` their serial numbers and buckets go, or -1
        "serials",  # uint64[AT_ONCE]
        "buckets",  # int64[AT_ONCE]
        "words",  # uint64[room]: serial numbers of the words counted now
        "prefixes",  # uint64[room]: serial numbers of the n-grams that end in them
        "state",  # uint32[8 * LANES]: scratch of SHA-256
        "block",  # uint8[64 * LANES]: scratch of SHA-256
        "initial",  # uint32[8]
        "factors",  # uint64[8]
    ],
)


def new_memo(n_buckets: int, room: int) -> Memo:
    """An empty memo of buckets among ``n_buckets`` (at most 2**24), for one thread at a time.

    `room` is the most words counted at once, and those before them that begin n-grams.
    """
    return Memo(
        entries=np.zeros(GRAMS + (GRAM_ENTRY << GRAM_BITS), np.uint64),
        cursor=np.zeros(2, np.int64),
        keys=np.zeros(3 * AT_ONCE, np.uint64),
        sought=np.zeros(AT_ONCE, np.int64),
        found=np.zeros(AT_ONCE, np.int64),
        missing=np.zeros(AT_ONCE, np.int64),
        blocks=np.zeros(64 * (AT_ONCE + 1), np.uint8),
        places=np.zeros(AT_ONCE, np.int64),
        serials=np.zeros(AT_ONCE, np.uint64),
        buckets=np.zeros(AT_ONCE, np.int64),
        words=np.zeros(room, np.uint64),
        prefixes=np.zeros(room, np.uint64),
        state=np.zeros(8 * LANES, np.uint32),
        block=np.zeros(64 * LANES, np.uint8),
        initial=INITIAL_STATE.copy(),
        factors=remainder_factors(n_buckets),
    )


@inner
def _flush(memo, n_buckets, counts):
    """Hash what is queued, count it, and fill in its entries."""
    n = memo.cursor[_QUEUED]
    buckets_of_blocks(memo.blocks, n, memo.state, memo.initial, memo.factors, n_buckets, memo.buckets)
    for q in range(n):
        add(counts, memo.buckets[q], 1)
        # In order, so that of two that share an entry the later one stays, whose key it has.
        if memo.places[q] >= 0:
            memo.entries[memo.places[q]] = memo.serials[q] << _32 | np.uint64(memo.buckets[q])
    memo.cursor[_QUEUED] = 0


@inlined
def _hash(memo, low, starts, ends, first, last, place, serial, n_buckets, counts):
    """Queue an n-gram; count it at once, and leave its entry alone, if it is too long for that."""
    length = last - first - 1
    for k in range(first, last):
        length += ends[k] - starts[k]
    if length > MAX_ONE_BLOCK:
        bucket = bucket_of_long(
            low, starts, ends, first, last, memo.block, memo.state, memo.initial, memo.factors, n_buckets
        )
        add(counts, bucket, 1)
        return False
    q = memo.cursor[_QUEUED]
    memo.cursor[_QUEUED] = q + 1
    write_block(memo.blocks, 64 * q, low, starts, ends, first, last)
    memo.places[q] = place
    memo.serials[q] = serial
    return True


@inlined
def _first_bytes(n):
    """Mask of the first `n` bytes of a little-endian uint64; none for a negative `n`, all for 8 and more."""
    half = np.uint64(32 - 4 * min(max(n, 0), 8))
    return ALL_ONES >> half >> half


@inlined
def _load_word(low, start, length):
    """Key of a word of at most `MAX_WORD` bytes: its bytes, zeros, and in the last byte its length plus one."""
    a = load_u64(low, start) & _first_bytes(length)
    b = load_u64(low, start + 8) & _first_bytes(length - 8)
    c = load_u64(low, start + 16) & _first_bytes(length - 16)
    return a, b, c | np.uint64(length + 1) << np.uint64(56)


@inlined
def _word_place(a, b, c):
    h = (a * K1) ^ (b * K2) ^ (c * K3)
    h = (h ^ (h >> _32)) * K1
    return WORD_ENTRY * np.int64(h >> np.uint64(64 - WORD_BITS))


@inlined
def _gram_place(key):
    h = (key ^ (key >> _32)) * K1
    h = (h ^ (h >> _32)) * K2
    return GRAMS + GRAM_ENTRY * np.int64(h >> np.uint64(64 - GRAM_BITS))


@inlined
def _next_serial(memo):
    memo.cursor[_SERIAL] += 1
    return np.uint64(memo.cursor[_SERIAL])


@inlined
def _sort_out(k, here, entry, serials, found, missing, n_found, n_missing):
    """Keep the serial number of what was looked up, and its bucket if it is there, else its place."""
    serials[k] = entry >> _32
    found[n_found] = entry & _BUCKET
    missing[n_missing] = k
    return n_found + here, n_missing + (not here)


@inlined
def _count_found(memo, n, counts):
    for k in range(n):
        add(counts, memo.found[k], 1)


@inner
def _count_words(memo, low, starts, ends, first, last, n_buckets, counts):
    """Count words and leave their serial numbers in ``memo.words``."""
    entries, keys, sought, found, missing = memo.entries, memo.keys, memo.sought, memo.found, memo.missing
    words = memo.words[first:last]
    begins, finishes = starts[first:last], ends[first:last]
    for k in range(len(words)):
        a, b, c = _load_word(low, begins[k], finishes[k] - begins[k])
        at = _word_place(a, b, c)
        prefetch(entries, at)
        keys[3 * k], keys[3 * k + 1], keys[3 * k + 2], sought[k] = a, b, c, at
    n_found, n_missing = 0, 0
    for k in range(len(words)):
        at = sought[k]
        here = (
            (entries[at] == keys[3 * k])
            & (entries[at + 1] == keys[3 * k + 1])
            & (entries[at + 2] == keys[3 * k + 2])
            & (finishes[k] - begins[k] <= MAX_WORD)
        )
        n_found, n_missing = _sort_out(k, here, entries[at + 3], words, found, missing, n_found, n_missing)
    _count_found(memo, n_found, counts)
    for m in range(n_missing):
        k = missing[m]
        at = -1
        words[k] = _next_serial(memo)
        if finishes[k] - begins[k] <= MAX_WORD:
            at = sought[k] + 3
            for j in range(3):
                entries[sought[k] + j] = keys[3 * k + j]
        _hash(memo, low, starts, ends, first + k, first + k + 1, at, words[k], n_buckets, counts)
    _flush(memo, n_buckets, counts)


@inner
def _count_grams(memo, low, starts, ends, first, last, order, n_buckets, counts):
    """Count n-grams of `order` words that end in words ``first .. last - 1``.

    ``memo.words[i]`` is the serial number of word i and ``memo.prefixes[i]`` that of the n-gram of
    ``order - 1`` words that ends there, from ``first - 1`` on; replaced by that of the n-gram counted.
    """
    entries, keys, sought, found, missing = memo.entries, memo.keys, memo.sought, memo.found, memo.missing
    before, words, serials = (
        memo.prefixes[first - 1 : last],
        memo.words[first:last],
        memo.prefixes[first:last],
    )
    for k in range(len(words)):
        key = before[k] << _32 | words[k]
        at = _gram_place(key)
        prefetch(entries, at)
        keys[k], sought[k] = key, at
    n_found, n_missing = 0, 0
    for k in range(len(words)):
        at = sought[k]
        here = entries[at] == keys[k]
        n_found, n_missing = _sort_out(k, here, entries[at + 1], serials, found, missing, n_found, n_missing)
    _count_found(memo, n_found, counts)
    for m in range(n_missing):
        k = missing[m]
        serial = _next_serial(memo)
        serials[k] = serial
        end = first + k + 1
        if _hash(memo, low, starts, ends, end - order, end, sought[k] + 1, serial, n_buckets, counts):
            entries[sought[k]] = keys[k]
    _flush(memo, n_buckets, counts)


@inner
def _count_some_words(memo, low, starts, ends, first, last, seen, carried, n_buckets, counts):
    """`count_words_sha256` of at most `AT_ONCE` words."""
    ngrams = len(carried)
    if memo.cursor[_SERIAL] > LAST_SERIAL - ngrams * (last - first):
        memo.entries[:] = 0
        for k in range(ngrams):
            carried[k] = k + 1
        memo.cursor[_SERIAL] = ngrams
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


@inner
def count_words_sha256(memo, low, starts, ends, first, last, seen, carried, n_buckets, counts):
    """Count the n-grams that end in words ``first .. last - 1`` of a document.

    Parameters
    ----------
    memo : Memo
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
    for begin in range(first, last, AT_ONCE):
        end = min(begin + AT_ONCE, last)
        _count_some_words(
            memo, low, starts, ends, begin, end, seen + begin - first, carried, n_buckets, counts
        )
