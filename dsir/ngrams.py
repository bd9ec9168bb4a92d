"""The unhashed n-grams of a sample of documents, all told apart.

What belongs here: numbering the n-grams of documents that fit into memory, and their buckets under a hash that nothing
else in this package uses. What does not: counting over a pool, which never builds an n-gram (``dsir.features``);
measures (``dsir.evaluation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.explain import tokenize
from dsir.features import Features, FeatureSpec, hash_strings


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Which feature occurs in which document, one entry an occurrence or several equal ones.

    Attributes
    ----------
    document : ndarray of int64, shape (m,)
        Index of the document.
    feature : ndarray of int64, shape (m,)
        0 .. size - 1.
    count : ndarray of int64, shape (m,), or None
        Number of occurrences; None for one each.
    size : int
        Number of features.
    """

    document: np.ndarray
    feature: np.ndarray
    count: np.ndarray | None
    size: int

    @classmethod
    def of_features(cls, features: Features, size: int) -> Occurrences:
        """Return the hashed features of n documents, in ``size`` buckets."""
        document = np.repeat(np.arange(len(features)), np.diff(features.offsets))
        return cls(document, features.buckets.astype(np.int64), features.counts.astype(np.int64), size)

    def totals(self, times: np.ndarray) -> np.ndarray:
        """Add up the counts of some documents.

        Parameters
        ----------
        times : ndarray of int64, shape (documents,)
            How often to count each document.

        Returns
        -------
        ndarray of int64, shape (size,)
        """
        inside = np.flatnonzero(times[self.document])
        weights = times[self.document[inside]]
        if self.count is not None:
            weights = weights * self.count[inside]
        totals = np.bincount(self.feature[inside], weights=weights, minlength=self.size)
        return totals.astype(np.int64)  # exact: below 2**53

    def of(self, documents: np.ndarray) -> Occurrences:
        """Return the occurrences in some documents: ndarray of bool, shape (documents,)."""
        inside = np.flatnonzero(documents[self.document])
        count = None if self.count is None else self.count[inside]
        return Occurrences(self.document[inside], self.feature[inside], count, self.size)

    def sums(self, value: np.ndarray, n_documents: int) -> np.ndarray:
        """Add up the features' values in every document: ndarray of float64, shape (n_documents,)."""
        each = value[self.feature] if self.count is None else value[self.feature] * self.count
        return np.bincount(self.document, weights=each, minlength=n_documents)


@dataclass(frozen=True, eq=False)
class Ngrams:
    """All n-grams of some documents, of order 1 to n.

    Attributes
    ----------
    document : ndarray of int64, shape (m,)
        The documents of the n-grams, one entry an occurrence.
    number : ndarray of int64, shape (m,)
        Equal for equal n-grams, 0 .. size - 1.
    hashes : ndarray of uint64, shape (size,)
        XXH64, seed 0, of the n-grams' UTF-8 bytes, words joined by one space.
    """

    document: np.ndarray
    number: np.ndarray
    hashes: np.ndarray

    def buckets(self, n_buckets: int) -> Occurrences:
        """Return the n-grams hashed into buckets: XXH64 modulo ``n_buckets``; independent of ``FeatureSpec.hash``."""
        buckets = (self.hashes % np.uint64(n_buckets)).astype(np.int64)
        return Occurrences(self.document, buckets[self.number], None, n_buckets)

    def known(self, documents: np.ndarray) -> Occurrences:
        """Return the n-grams, with all that do not occur in some documents counted as one.

        Parameters
        ----------
        documents : ndarray of bool, shape (documents,)
            Documents whose n-grams are features; the last feature is all others.
        """
        seen = np.zeros(len(self.hashes), dtype=bool)
        seen[self.number[documents[self.document]]] = True
        features = np.where(seen, np.cumsum(seen) - 1, seen.sum())
        return Occurrences(self.document, features[self.number], None, int(seen.sum()) + 1)

    def distinct(self, times: np.ndarray) -> tuple[int, int]:
        """Return how many different n-grams, and how many in all, documents have when counted so many times."""
        totals = Occurrences(self.document, self.number, None, len(self.hashes)).totals(times)
        return int(np.count_nonzero(totals)), int(totals.sum())


def number_ngrams(texts: Sequence[str], spec: FeatureSpec) -> Ngrams:
    """Number the n-grams of documents that fit into memory.

    Parameters
    ----------
    texts : sequence of str
    spec : FeatureSpec
        Its tokenizer and ``ngrams`` are used; its hash and buckets are ignored.

    Returns
    -------
    Ngrams
        Numbered in order of first occurrence, those of order 1 first.
    """
    found: list[str] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        words = tokenize(text, spec)
        lengths[i] = len(words)
        found += words
    # All places of all documents, in order; `depth` is the number of words before one in its document.
    encoded = pa.array(found, pa.string()).dictionary_encode()
    words, vocabulary = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary
    document = np.repeat(np.arange(len(texts)), lengths)
    depth = np.arange(len(words)) - np.repeat(np.cumsum(lengths) - lengths, lengths)

    numbers, strings, size = words, vocabulary, len(vocabulary)
    documents, all_numbers, hashes = [document], [words], [hash_strings(vocabulary)]
    for order in range(2, spec.ngrams + 1):
        ends = np.flatnonzero(depth >= order - 1)
        # `numbers` has one entry a place; entries of n-grams that would begin before their document are not read.
        pairs = numbers[ends - 1] * len(vocabulary) + words[ends]
        encoded = pa.array(pairs).dictionary_encode()
        pairs = encoded.dictionary.to_numpy()
        prefixes = strings.take(pa.array(pairs // max(len(vocabulary), 1)))
        last = vocabulary.take(pa.array(pairs % max(len(vocabulary), 1)))
        strings = pc.binary_join_element_wise(prefixes, last, " ")
        numbers = np.zeros(len(words), dtype=np.int64)
        numbers[ends] = encoded.indices.to_numpy()
        documents.append(document[ends])
        all_numbers.append(numbers[ends] + size)
        hashes.append(hash_strings(strings))
        size += len(strings)
    return Ngrams(np.concatenate(documents), np.concatenate(all_numbers), np.concatenate(hashes))
