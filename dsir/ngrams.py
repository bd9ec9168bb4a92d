"""N-grams as they are: each told apart by a 64-bit hash, rather than put into a bucket.

What belongs here: the hashes of the n-grams of texts, the n-grams that a vocabulary tells apart, sums over them. What
does not: counting a pool in buckets (``dsir.features``), the compiled loop over words
(``dsir.featurizer.ngram_hashes``), measures (``dsir.evaluation``).

Of ten million n-grams, two share their 64 bits with a probability of about 3 in a million.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from dsir.checks import expect_array, expect_instance
from dsir.evaluation import distinct
from dsir.features import FeatureSpec, words_of
from dsir.featurizer.ngram_hashes import hash_documents


@dataclass(frozen=True, eq=False)
class Ngrams:
    """The n-grams of n documents, of order 1 to that of a :class:`FeatureSpec`, one entry an occurrence.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Those of document i are ``offsets[i] .. offsets[i + 1] - 1``.
    hashes : ndarray of uint64, shape (m,)
        The 64 bits that the ``fast`` hash of ``dsir.featurizer.hashing`` makes its buckets of; equal for equal
        n-grams.
    content_hash : ndarray of uint64, shape (n,)
        XXH64, seed 0, of the UTF-8 bytes of each document.
    """

    offsets: np.ndarray
    hashes: np.ndarray
    content_hash: np.ndarray

    def __len__(self) -> int:
        return len(self.content_hash)

    @property
    def n_ngrams(self) -> np.ndarray:
        """Number of n-grams of each document: ndarray of int64, shape (n,)."""
        return np.diff(self.offsets)

    def of(self, documents: np.ndarray) -> np.ndarray:
        """Return the hashes in some documents: ndarray of bool, shape (n,), to ndarray of uint64."""
        return self.hashes[np.repeat(documents, self.n_ngrams)]


def hash_ngrams(texts: pa.Array, spec: FeatureSpec) -> Ngrams:
    """Hash the n-grams of a batch of documents.

    Compiled code in one thread, which releases the GIL; takes 8 bytes an n-gram.

    Parameters
    ----------
    texts : pyarrow.Array of string or large_string
        n documents.
    spec : FeatureSpec
        Its tokenizer and ``ngrams`` are used; its hash and buckets are not.

    Raises
    ------
    ValueError
        As :func:`dsir.features.featurize`.

    Examples
    --------
    >>> ngrams = hash_ngrams(pa.array(["to be or not to be", "be"]), FeatureSpec())
    >>> ngrams.n_ngrams.tolist(), len(distinct(ngrams.hashes))
    ([11, 1], 8)
    """
    content_hash, words = words_of(texts, spec)
    room = np.empty(spec.ngrams * (words.n_words() + 64), np.uint64)
    offsets, hashes = hash_documents(*words, spec.ngrams, room)
    return Ngrams(offsets, hashes, content_hash)


class Vocabulary:
    """N-grams that are told apart; all others count as one.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (m,)
        Of n-grams, in any order, repeated or not.

    Attributes
    ----------
    hashes : ndarray of uint64, shape (k,)
        Ascending, each once. The number of an n-gram is its place here, and k if it is not here.
    """

    def __init__(self, hashes: np.ndarray) -> None:
        expect_array("hashes", hashes, (np.uint64,), "n-grams")
        self.hashes = distinct(hashes)
        # At most half full, so that few places are tried for an n-gram that is not there.
        self._places = np.full(2 << max(len(self.hashes).bit_length(), 4), -1, np.int32)
        _place(self.hashes, self._places)

    def __len__(self) -> int:
        """k + 1: the n-grams told apart, and all others."""
        return len(self.hashes) + 1

    def numbers(self, hashes: np.ndarray) -> np.ndarray:
        """Return the numbers of n-grams: ndarray of uint64, shape (m,), to int32, shape (m,)."""
        expect_array("hashes", hashes, (np.uint64,), "n-grams")
        return _numbers(self.hashes, self._places, hashes)


@numba.njit(cache=True, nogil=True, inline="always")
def _first_place(h, mask):
    # The low bits of a hash are as good as any; the high ones have made the order of `hashes`.
    return np.int64(h) & mask


@numba.njit(cache=True, nogil=True)
def _place(known, places):
    mask = len(places) - 1
    for i in range(len(known)):
        at = _first_place(known[i], mask)
        while places[at] >= 0:
            at = (at + 1) & mask
        places[at] = i


@numba.njit(cache=True, nogil=True)
def _numbers(known, places, hashes):
    mask = len(places) - 1
    numbers = np.empty(len(hashes), np.int32)
    for i in range(len(hashes)):
        at = _first_place(hashes[i], mask)
        while places[at] >= 0 and known[places[at]] != hashes[i]:
            at = (at + 1) & mask
        numbers[i] = places[at] if places[at] >= 0 else len(known)
    return numbers


def add_totals(offsets: np.ndarray, numbers: np.ndarray, times: np.ndarray, totals: np.ndarray) -> None:
    """Add the n-grams of documents to totals, each as often as its document is counted.

    Parameters
    ----------
    offsets : ndarray of int64, shape (n + 1,)
    numbers : ndarray of int32, shape (m,)
        From :meth:`Vocabulary.numbers`.
    times : ndarray of bool or unsigned integers, shape (picks, n)
        How often a document is counted.
    totals : ndarray of int64, shape (picks, k + 1)
        Changed in place.

    Raises
    ------
    ValueError
        If an argument has another type or shape.
    """
    expect_instance("times", times, np.ndarray)
    expect_array("numbers", numbers, (np.int32,), "n-grams")
    expect_array("times", times, (np.bool_, np.unsignedinteger), "picks", len(offsets) - 1)
    expect_array("totals", totals, (np.int64,), len(times), "n-grams told apart")
    _add_totals(offsets, numbers, times, totals)


@numba.njit(cache=True, nogil=True)
def _add_totals(offsets, numbers, times, totals):
    for document in range(len(offsets) - 1):
        for pick in range(len(times)):
            n = np.int64(times[pick, document])
            if n:
                for i in range(offsets[document], offsets[document + 1]):
                    totals[pick, numbers[i]] += n


def sums(ngrams: Ngrams, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Add up the values of the n-grams of every document.

    Parameters
    ----------
    ngrams : Ngrams
        Of n documents.
    numbers : ndarray of int32, shape (m,)
        From :meth:`Vocabulary.numbers`.
    values : ndarray of float64, shape (picks, k + 1)

    Returns
    -------
    ndarray of float64, shape (picks, n)
    """
    document = np.repeat(np.arange(len(ngrams)), ngrams.n_ngrams)
    return np.array([np.bincount(document, each[numbers], minlength=len(ngrams)) for each in values])
