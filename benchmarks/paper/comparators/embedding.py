"""Latent semantic analysis of hashed n-grams: a vector for every document, without a network or a GPU.

What belongs here: from counts to vectors. What does not: what the vectors are compared for.

Documents are weighed by tf-idf and projected on the leading singular vectors of a sample of the pool (Deerwester et
al., "Indexing by latent semantic analysis", 1990).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer
from threadpoolctl import threadpool_limits

from benchmarks.paper.corpus import Mapper
from dsir.features import Features

#: Of the vectors, and the documents that the singular vectors are computed from.
DIMENSIONS, SAMPLE = 100, 40_000


def matrix(batch: Features, buckets: int) -> csr_matrix:
    """Return the counts of n documents: csr_matrix of float32, shape (n, buckets)."""
    entries = batch.counts.astype(np.float32), batch.buckets.astype(np.int32), batch.offsets
    return csr_matrix(entries, shape=(len(batch), buckets))


class Embedding:
    """Vectors of documents that point in similar directions if the documents have similar words.

    Parameters
    ----------
    pool : list of Features
        At least two documents; a sample of them is used.
    buckets : int
        Of the features.
    """

    def __init__(self, pool: list[Features], buckets: int) -> None:
        self._buckets = buckets
        n = sum(map(len, pool))
        chosen = np.zeros(n, dtype=bool)
        chosen[np.random.default_rng(0).permutation(n)[:SAMPLE]] = True
        parts, first = [], 0
        for batch in pool:
            parts.append(matrix(batch, buckets)[chosen[first : first + len(batch)]])
            first += len(batch)
        sample = vstack(parts, format="csr")
        self._tfidf = TfidfTransformer(sublinear_tf=True).fit(sample)
        self._svd = TruncatedSVD(min(DIMENSIONS, sample.shape[0] - 1, buckets - 1), n_iter=3, random_state=0)
        # One thread: a sum split among threads depends on their number in its last bits.
        with threadpool_limits(limits=1):
            self._svd.fit(self._tfidf.transform(sample))

    def vectors(self, batches: Iterable[Features], mapper: Mapper = map) -> np.ndarray:
        """Return unit vectors, ndarray of float32, shape (documents, dimensions); zeros for a document without words.

        Parameters
        ----------
        batches : iterable of Features
        mapper : callable
            Like `map`, perhaps in several threads.
        """

        def of(batch: Features) -> np.ndarray:
            found = self._svd.transform(self._tfidf.transform(matrix(batch, self._buckets)))
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            return (found / np.where(lengths > 0, lengths, 1)).astype(np.float32)

        with threadpool_limits(limits=1):
            return np.concatenate(list(mapper(of, batches)))
