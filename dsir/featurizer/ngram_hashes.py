"""The compiled loop that hashes every n-gram of documents and counts none.

What belongs here: documents in, the 64-bit hash of each n-gram out. What does not: what the hashes are
(`hashing`), buckets and counts (`kernel`), anything of Arrow or Python objects (`dsir.ngrams`).
"""

import numpy as np
from numba import njit

from dsir.featurizer.hashing import extend, hash_words
from dsir.featurizer.kernel import stamp
from dsir.featurizer.sparse import larger
from dsir.featurizer.words import END, POS, ROOM, STATE, begin_words, lowercased, next_words


def _entry_point(source_stamp):
    @njit(cache=True, nogil=True)
    def hash_documents(data, begins, finishes, bounds, table, all_words, ngrams, hashes):
        """Hash the n-grams of documents.

        Parameters
        ----------
        data, begins, finishes, bounds, table, all_words, ngrams
            As for `kernel.count_documents`.
        hashes : uint64[:]
            First guess at the room needed; replaced by a larger array as it turns out.

        Returns
        -------
        offsets : int64[n + 1]
        hashes : uint64[:]
            Those of document d at ``offsets[d] .. offsets[d + 1] - 1``, in order of length and then of place.
        """
        source_stamp  # noqa: B018  (part of the key of the on-disk cache, see `kernel.stamp`)
        offsets = np.zeros(len(begins) + 1, np.int64)
        starts, ends, others = np.empty(ROOM, np.int64), np.empty(ROOM, np.int64), np.empty(ROOM, np.int64)
        state = np.zeros(STATE, np.int64)
        low = lowercased(data, begins, finishes, bounds)

        at = zero = np.int64(0)  # see `kernel`
        for d in range(len(begins)):
            begin_words(state, begins[d], finishes[d])
            seen = zero
            while state[POS] < state[END]:
                first, last = next_words(data, bounds, table, all_words, state, low, starts, ends, 0)
                needed = at + ngrams * (seen + last - first)
                if needed > len(hashes):
                    hashes = larger(hashes, at + seen, needed)
                hash_words(low, starts, ends, first, last, hashes, at + seen, others)
                seen += last - first
            words = shorter = hashes[at : at + seen]
            at += seen
            for more in range(1, min(ngrams, seen)):  # words after an n-gram's first
                longer, last_words = hashes[at : at + seen - more], words[more:]
                for i in range(len(longer)):
                    longer[i] = extend(shorter[i], last_words[i])
                shorter = longer
                at += len(longer)
            offsets[d + 1] = at
        return offsets, hashes[:at]

    return hash_documents


hash_documents = _entry_point(stamp())
