"""The compiled entry point of the featurizer: documents in, sparse n-gram counts out, and counts of words.

What belongs here: the loop over documents, and the loop over the words of a document for the ``fast`` hash. What does
not: anything of Arrow or Python objects (`dsir.features`), finding words (`words`), SHA-256 (`memo`, `sha256`), the
counters (`sparse`), what is counted for the quality filter (`word_counts`).
"""

import zlib
from pathlib import Path

import numpy as np
from numba import njit

from dsir.featurizer.hashing import bucket_of, extend, hash_word
from dsir.featurizer.intrinsics import inner
from dsir.featurizer.memo import count_words_sha256, flush
from dsir.featurizer.sparse import add, emit
from dsir.featurizer.unicode_tables import SPACE
from dsir.featurizer.word_counts import count_classes, count_most_frequent, room_for_counters
from dsir.featurizer.words import BLOCK, MAX_GROWTH, find_words

WORDS_AT_ONCE = 2048  # words found before they are hashed: their bounds stay in the first-level cache


def room_for_words(ngrams: int) -> int:
    """Words found at once, and those before them that begin n-grams."""
    return ngrams + WORDS_AT_ONCE + BLOCK


@inner
def _count_words_fast(low, starts, ends, first, last, seen, prefixes, n_buckets, counts, hashes):
    """Count the n-grams that end in words ``first .. last - 1``: `count_words_sha256` for the ``fast`` hash.

    Here `prefixes` are the hashes of the n-grams that end in the word before `first`. The words' hashes are
    written to `hashes` from `seen` on.
    """
    ngrams = len(prefixes)
    for i in range(first, last):
        word = hash_word(low, starts[i], ends[i] - starts[i])
        hashes[seen] = word
        add(counts, bucket_of(word, n_buckets), 1)
        for k in range(min(ngrams - 1, seen), 0, -1):
            prefixes[k] = extend(prefixes[k - 1], word)
            add(counts, bucket_of(prefixes[k], n_buckets), 1)
        prefixes[0] = word
        seen += 1


_room_for_words = inner(room_for_words)


def _entry_point(source_stamp):
    @njit(cache=True, nogil=True)
    def count_documents(
        data,
        begins,
        finishes,
        bounds,
        table,
        all_words,
        ngrams,
        n_buckets,
        counts,
        memo,
        quality,
        buckets,
        values,
    ):
        """Sparse n-gram counts of documents.

        Parameters
        ----------
        data : uint8[:]
            Valid UTF-8, read-only; or, if `bounds` is given, the bytes of the words and 24 more, writable.
        begins, finishes : int64[n]
            Bounds of the documents in `data`; or, if `bounds` is given, in the sequence of words.
        bounds : int64[n_words + 1] or None
            Bounds in `data` of words found by other means; None to find them here.
        table, all_words
            See `words.find_words`; not used if `bounds` is given.
        ngrams : int64
            Longest n-gram counted.
        n_buckets : uint64
        counts : dsir.featurizer.sparse.Counts
            All zero, and all zero again at the end.
        memo : dsir.featurizer.memo.Memo or None
            For the ``sha256`` hash; None for the ``fast`` one.
        quality : bool
            Whether words are counted for the quality filter.
        buckets : uint16[:] or uint32[:]
        values : uint32[:]
            First guess at the room needed; replaced by larger arrays as it turns out.

        Returns
        -------
        offsets : int64[n + 1]
        buckets, values
            Buckets, ascending, and counts of document d at ``offsets[d] .. offsets[d + 1] - 1``.
        n_words : int64[n]
        word_counts : int64[3, n]
            The fields of `word_counts.WordCounts`; all zero without `quality`.
        """
        source_stamp  # noqa: B018  (part of the key of the on-disk cache, see `stamp`)
        n = len(begins)
        offsets = np.zeros(n + 1, np.int64)
        n_words = np.zeros(n, np.int64)
        prefixes = np.zeros(ngrams, np.uint64)
        starts = np.empty(_room_for_words(ngrams), np.int64)
        ends = np.empty(len(starts), np.int64)
        hashes = np.empty(len(starts), np.uint64)  # of all words of a document
        counters = np.zeros(room_for_counters(len(hashes)), np.uint32)
        word_counts = np.zeros((3, n), np.int64)
        if bounds is None:
            longest = 0
            for d in range(n):
                longest = max(longest, finishes[d] - begins[d])
            low = np.empty(np.int64(longest * MAX_GROWTH) + BLOCK + 24, np.uint8)
        else:
            low = data

        at = 0
        for d in range(n):
            pos, end = begins[d], finishes[d]
            out, current = 0, SPACE
            n_starts, n_ends, known, seen = 0, 0, 0, 0
            prefixes[:] = 0
            while pos < end:
                if bounds is None:
                    pos, out, current, n_starts, n_ends = find_words(
                        data, pos, end, low, out, current, table, all_words, starts, n_starts, ends, n_ends
                    )
                else:
                    while pos < end and n_ends < len(ends):
                        starts[n_ends], ends[n_ends] = bounds[pos], bounds[pos + 1]
                        n_ends += 1
                        pos += 1
                    n_starts = n_ends
                if seen + n_ends - known > len(hashes):
                    more_hashes = np.empty(2 * len(hashes), np.uint64)
                    more_hashes[:seen] = hashes[:seen]
                    hashes = more_hashes
                if memo is None:
                    _count_words_fast(
                        low, starts, ends, known, n_ends, seen, prefixes, n_buckets, counts, hashes
                    )
                else:
                    count_words_sha256(
                        memo, low, starts, ends, known, n_ends, seen, prefixes, n_buckets, counts
                    )
                    for i in range(known, n_ends):
                        hashes[seen + i - known] = hash_word(low, starts[i], ends[i] - starts[i])
                seen += n_ends - known
                # Keep the bounds of the words that later n-grams begin with, and the start of an open word.
                known = min(ngrams - 1, n_ends)
                shift = n_ends - known
                for k in range(known + n_starts - n_ends):
                    starts[k] = starts[k + shift]
                    ends[k] = ends[k + shift]
                n_starts -= shift
                n_ends -= shift
            if memo is not None:
                flush(memo, n_buckets, counts)
            n_words[d] = seen
            if quality:
                word_counts[1, d], word_counts[2, d] = count_classes(hashes, seen)
                if len(counters) < room_for_counters(seen):
                    counters = np.zeros(room_for_counters(seen), np.uint32)
                word_counts[0, d] = count_most_frequent(hashes, seen, counters)
            needed = at + min(seen * ngrams, np.int64(n_buckets))
            if needed > len(buckets):
                room = needed + needed // 2
                more_buckets = np.empty(room, buckets.dtype)
                more_values = np.empty(room, np.uint32)
                more_buckets[:at] = buckets[:at]
                more_values[:at] = values[:at]
                buckets, values = more_buckets, more_values
            at = emit(counts, buckets, values, at)
            offsets[d + 1] = at
        return offsets, buckets[:at], values[:at], n_words, word_counts

    return count_documents


def stamp() -> int:
    """Checksum of the sources in this folder, which hold all that is compiled into an entry point.

    Numba recompiles a cached function if its own file changes, but not if the file of a function it calls does. The
    value of a closure's variable is part of the cache's key, so the entry point is a closure over this checksum.
    """
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))


count_documents = _entry_point(stamp())
