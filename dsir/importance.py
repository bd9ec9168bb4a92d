"""Importance weights: two bag-of-n-grams distributions, their log ratio, and a document's log weight.

What belongs here: everything between n-gram totals and log weights. What does not: counting
(``dsir.features``) and picking (``dsir.selection``).
"""

from __future__ import annotations

import numba
import numpy as np

from dsir.features import Features

#: Added to every probability before the logarithm, as in the reference's ``fit_importance_estimator``.
EPSILON = 1e-8


def log_ratios(
    target_counts: np.ndarray, raw_counts: np.ndarray, target_smoothing: float = 0.0
) -> np.ndarray:
    """Log ratio of the target and the raw distribution, per bucket.

    ``log(p_target + 1e-8) - log(p_raw + 1e-8)``, each distribution being the counts divided by their
    sum (paper, section 3; reference, ``HashedNgramDSIR.fit_importance_estimator``).

    Parameters
    ----------
    target_counts, raw_counts : ndarray of int64, shape (buckets,)
        N-gram totals.
    target_smoothing : float
        Laplace smoothing of the target: pseudo-counts added to every bucket.

    Returns
    -------
    ndarray of float64, shape (buckets,)
        In nats.

    Raises
    ------
    ValueError
        One of the two has no n-grams, or the shapes differ.
    """
    if target_counts.shape != raw_counts.shape:
        raise ValueError(f"target has {target_counts.shape} buckets, the pool {raw_counts.shape}")
    if target_counts.sum() == 0:
        raise ValueError("the target has no n-grams")
    if raw_counts.sum() == 0:
        raise ValueError("the raw pool has no n-grams")
    target = target_counts + target_smoothing
    return np.log(target / target.sum() + EPSILON) - np.log(raw_counts / raw_counts.sum() + EPSILON)


def log_weights(features: Features, ratios: np.ndarray) -> np.ndarray:
    """Log importance weight of every document under every target.

    The sum over buckets of count times log ratio (paper, equation 1; reference,
    ``HashedNgramDSIR.importance_estimator``), added in ascending order of bucket, so that the result
    does not depend on batches or threads.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    ratios : ndarray of float64, shape (targets, buckets)
        From :func:`log_ratios`.

    Returns
    -------
    ndarray of float64, shape (targets, n)
        In nats.
    """
    # Bucket-major, so that one count reads one contiguous run of all targets' ratios.
    by_bucket = np.ascontiguousarray(ratios.T, dtype=np.float64)
    out = np.empty((ratios.shape[0], len(features)), dtype=np.float64)
    _dot(features.offsets, features.buckets, features.counts, by_bucket, out)
    return out


@numba.njit(cache=True, nogil=True)
def _dot(offsets, buckets, counts, by_bucket, out):
    n_targets = by_bucket.shape[1]
    sums = np.empty(n_targets, dtype=np.float64)
    for document in range(offsets.size - 1):
        sums[:] = 0.0
        for i in range(offsets[document], offsets[document + 1]):
            bucket = buckets[i]
            count = np.float64(counts[i])
            for target in range(n_targets):
                sums[target] += count * by_bucket[bucket, target]
        for target in range(n_targets):
            out[target, document] = sums[target]


def fit_threshold(total_ngrams: int, wanted_ngrams: int) -> int:
    """Content-hash threshold that leaves about ``wanted_ngrams`` of the pool's n-grams.

    A document takes part in the fit where its content hash is at most the threshold: a sample of
    documents that depends on the pool alone, not on shards or their order. (The reference instead
    takes the first n-grams of every worker's slice.)

    Returns
    -------
    int
        In [0, 2**64).
    """
    if wanted_ngrams >= total_ngrams:
        return 2**64 - 1
    return (2**64 * wanted_ngrams) // total_ngrams
