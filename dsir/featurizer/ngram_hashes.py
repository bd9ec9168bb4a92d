"""The compiled loop that hashes every n-gram of documents and counts none.

What belongs here: documents in, the 64-bit hash of each n-gram out. What does not: what the hashes are
(`hashing`), buckets and counts (`kernel`), anything of Arrow or Python objects (`dsir.ngrams`).
"""

import numpy as np
from numba import njit

from dsir.featurizer.hashing import extend, hash_word
from dsir.featurizer.kernel import stamp
from dsir.featurizer.unicode_tables import SPACE
from dsir.featurizer.words import BLOCK, MAX_GROWTH, find_words


def _entry_point(source_stamp):
    @njit(cache=True, nogil=True)
    def hash_documents(data, begins, finishes, bounds, table, all_words, ngrams, starts, ends, hashes):
        """Hash the n-grams of documents.

        Parameters
        ----------
        data, begins, finishes, bounds, table, all_words, ngrams
            As for `kernel.count_documents`.
        starts, ends : int64[room_for_words(1)]
            Scratch.
        hashes : uint64[:]
            First guess at the room needed; replaced by a larger array as it turns out.

        Returns
        -------
        offsets : int64[n + 1]
        hashes : uint64[:]
            Those of document d at ``offsets[d] .. offsets[d + 1] - 1``, in order of length and then of place.
        """
        source_stamp  # noqa: B018  (part of the key of the on-disk cache, see `kernel.stamp`)
        n = len(begins)
        offsets = np.zeros(n + 1, np.int64)
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
            out, current, n_starts, n_ends, seen = 0, SPACE, 0, 0, 0
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
                needed = at + ngrams * (seen + n_ends)
                if needed > len(hashes):
                    more = np.empty(2 * needed, np.uint64)
                    more[: at + seen] = hashes[: at + seen]
                    hashes = more
                for i in range(n_ends):
                    hashes[at + seen + i] = hash_word(low, starts[i], ends[i] - starts[i])
                seen += n_ends
                for k in range(n_starts - n_ends):  # the start of an open word
                    starts[k] = starts[n_ends + k]
                n_starts -= n_ends
                n_ends = 0
            words = at
            shorter = at  # where those begin that are shorter by a word
            at += seen
            for order in range(2, ngrams + 1):
                for i in range(seen - order + 1):
                    hashes[at + i] = extend(hashes[shorter + i], hashes[words + i + order - 1])
                shorter = at
                at += max(seen - order + 1, 0)
            offsets[d + 1] = at
        return offsets, hashes[:at]

    return hash_documents


hash_documents = _entry_point(stamp())
