"""The compiled entry point of the featurizer: documents in, sparse n-gram counts out, and counts of words.

What belongs here: the loop over documents, and the phases of the ``fast`` hash. What does not: anything of Arrow or
Python objects (`dsir.features`), finding words (`words`), SHA-256 (`memo`, `sha256`), counting buckets (`sparse`), what
is counted for the quality filter (`word_counts`).

A document goes through in blocks of about a thousand words, and a block in phases: find words, hash them, buckets of
the n-grams that end in them, count. Each is a plain loop over the block, which processors run several words at once.
"""

import zlib
from pathlib import Path

import numpy as np
from numba import njit

from dsir.featurizer.hashing import bucket_of, extend, hash_words
from dsir.featurizer.intrinsics import BLOCK, inner
from dsir.featurizer.memo import count_words_sha256
from dsir.featurizer.sparse import FOUND, count, emit, larger, with_room
from dsir.featurizer.word_counts import count_classes, count_most_frequent, room_for_counters
from dsir.featurizer.words import END, POS, ROOM, STATE, begin_words, lowercased, next_words


@inner
def _add_buckets(hashes, begin, end, ngrams, n_buckets, grams, counts):
    """Add the buckets of the n-grams that end in words ``begin .. end - 1``, whose hashes and those before are given.

    `grams` is scratch, uint64[ngrams + end - begin].
    """
    first = max(begin - ngrams + 1, 0)  # the word that the longest of them begins with
    n = counts.n[FOUND]
    for more in range(min(ngrams, end - first)):  # words after an n-gram's first
        grams, words = grams[: end - first - more], hashes[first + more : end]
        for i in range(len(words)):
            grams[i] = extend(grams[i], words[i]) if more > 0 else words[i]
        complete = grams[max(begin - first - more, 0) :]  # the others end in words before
        found = counts.found[n : n + len(complete)]
        for i in range(len(complete)):
            found[i] = bucket_of(complete[i], n_buckets)
        n += len(complete)
    counts.n[FOUND] = n


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
            See `words.next_words`; not used if `bounds` is given.
        ngrams : int64
            Longest n-gram counted.
        n_buckets : uint64
        counts : dsir.featurizer.sparse.Counts
            Of nothing, and of nothing again at the end.
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
        word_counts = np.zeros((3, n), np.int64)
        room = ngrams + ROOM
        starts, ends, others = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
        # `hashes`: of all words of a document.
        grams, hashes = np.empty(room, np.uint64), np.empty(room, np.uint64)
        prefixes = np.zeros(ngrams, np.uint64)
        state = np.zeros(STATE, np.int64)
        counters = np.zeros(room_for_counters(room), np.uint32)
        low = lowercased(data, begins, finishes, bounds)

        # A literal would be a type of its own, for which all that takes it is compiled once more.
        zero = np.int64(0)
        at = zero
        for d in range(n):
            begin_words(state, begins[d], finishes[d])
            prefixes[:] = 0
            seen = zero
            while state[POS] < state[END]:
                first, last = next_words(data, bounds, table, all_words, state, low, starts, ends, ngrams - 1)
                new = last - first
                if seen + new > len(hashes):
                    hashes = larger(hashes, seen, seen + new)
                most = counts.n[FOUND] + ngrams * new
                if most > len(counts.found):
                    counts = with_room(counts, most)
                if memo is None or quality:
                    hash_words(low, starts, ends, first, last, hashes, seen, others)
                if memo is None:
                    _add_buckets(hashes, seen, seen + new, ngrams, n_buckets, grams, counts)
                else:
                    count_words_sha256(
                        memo, low, starts, ends, first, last, seen, prefixes, n_buckets, counts
                    )
                count(counts)
                seen += new
            n_words[d] = seen
            if quality:
                word_counts[1, d], word_counts[2, d] = count_classes(hashes, seen)
                if len(counters) < room_for_counters(seen):
                    counters = np.zeros(room_for_counters(seen), np.uint32)
                word_counts[0, d] = count_most_frequent(hashes, seen, counters)
            needed = at + min(seen * ngrams, np.int64(n_buckets)) + BLOCK
            if needed > len(buckets):
                buckets, values = larger(buckets, at, needed), larger(values, at, needed)
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
