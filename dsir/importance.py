"""Importance weights: two bag-of-n-grams distributions, their log ratio, log weights of documents, temperature.

What belongs here: everything from n-gram totals to the log weights that noise is added to. What does not: counting
(``dsir.features``) and picking (``dsir.selection``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numba
import numpy as np

from dsir.checks import expect_array, expect_buckets, expect_instance
from dsir.features import Features
from dsir.featurizer.intrinsics import four_sums, inner
from dsir.featurizer.packed import PackedFeatures

#: Added to every probability before the logarithm, as in the reference's ``fit_importance_estimator``.
EPSILON = 1e-8


def log_ratios(
    target_counts: np.ndarray, raw_counts: np.ndarray, target_smoothing: float = 0.0
) -> np.ndarray:
    """Log ratio of the target and the raw distribution, per bucket.

    ``log(p_target + 1e-8) - log(p_raw + 1e-8)``, where a distribution is the counts divided by their sum (paper,
    section 3; reference, ``HashedNgramDSIR.fit_importance_estimator``).

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
        Either has no n-grams or is no such array, or the shapes differ.
    """
    expect_array("target_counts", target_counts, (np.integer, np.floating), "buckets")
    expect_array("raw_counts", raw_counts, (np.integer, np.floating), "buckets")
    if target_counts.shape != raw_counts.shape:
        raise ValueError(f"target has {target_counts.shape} buckets, the pool {raw_counts.shape}")
    if target_counts.sum() == 0:
        raise ValueError("the target has no n-grams")
    if raw_counts.sum() == 0:
        raise ValueError("the raw pool has no n-grams")
    target = target_counts + target_smoothing
    return np.log(target / target.sum() + EPSILON) - np.log(raw_counts / raw_counts.sum() + EPSILON)


def log_weights(features: Features | PackedFeatures, ratios: np.ndarray) -> np.ndarray:
    """Log importance weight of every document under every target.

    The sum over buckets of count times log ratio (paper, equation 1; reference,
    ``HashedNgramDSIR.importance_estimator``), added in an order that depends only on the document, so that the result
    does not depend on batches, threads or other targets.

    Parameters
    ----------
    features : Features or PackedFeatures
        Sparse counts of n documents.
    ratios : ndarray of float64, shape (targets, buckets)
        From :func:`log_ratios`.

    Returns
    -------
    ndarray of float64, shape (targets, n)
        In nats.

    Raises
    ------
    ValueError
        If `ratios` has another type or shape, or fewer buckets than `features`.
    """
    expect_instance("features", features, Features, PackedFeatures)
    expect_array("ratios", ratios, (np.floating,), "targets", "buckets")
    expect_buckets("ratios", ratios, features)
    ratios = np.ascontiguousarray(ratios, dtype=np.float64)
    out = np.empty((len(ratios), len(features)), dtype=np.float64)
    packed = features.packed() if isinstance(features, Features) else features
    counts = packed.repeat_offsets, packed.repeats, packed.large_at, packed.large_counts
    for of_target, weights in zip(ratios, out, strict=True):
        _dot(packed.offsets, packed.buckets, *counts, of_target, weights)
    return out


@numba.njit(cache=True, nogil=True)
def _dot(offsets, buckets, repeat_offsets, repeats, large_at, large_counts, ratios, out):
    large = 0
    for document in range(offsets.size - 1):
        last, first, end = offsets[document + 1], repeat_offsets[document], repeat_offsets[document + 1]
        middle = last - (end - first)
        once = _sum_once(buckets[offsets[document] : middle], ratios)
        repeated, times = buckets[middle:last], repeats[first:end]
        if large < large_at.size and large_at[large] < end:
            exact = times.astype(np.uint32)
            while large < large_at.size and large_at[large] < end:
                exact[large_at[large] - first] = large_counts[large]
                large += 1
            out[document] = once + _sum(repeated, exact, ratios)
        else:
            out[document] = once + _sum(repeated, times, ratios)


@inner
def _sum_once(of_document, ratios):
    n = len(of_document)
    in_fours = n - n % 4
    a = b = c = d = 0.0
    for i in range(0, in_fours, 4):
        a += ratios[of_document[i]]
        b += ratios[of_document[i + 1]]
        c += ratios[of_document[i + 2]]
        d += ratios[of_document[i + 3]]
    for i in range(in_fours, n):
        a += ratios[of_document[i]]
    return (a + b) + (c + d)


@inner
def _sum(of_document, times, ratios):
    n = len(times)
    in_fours = n - n % 4
    a, b, c, d = four_sums(ratios, of_document, times, in_fours)
    for i in range(in_fours, n):
        a += np.float64(times[i]) * ratios[of_document[i]]
    return (a + b) + (c + d)


def fit_threshold(total_ngrams: int, wanted_ngrams: int) -> int:
    """Content-hash threshold that leaves about ``wanted_ngrams`` of the pool's n-grams.

    The fit uses the documents whose content hash is at most the threshold, a sample that depends on the pool alone, not
    on shards or their order. (The reference instead takes the first n-grams of every worker's slice.)

    Returns
    -------
    int
        In [0, 2**64).
    """
    if wanted_ngrams >= total_ngrams:
        return 2**64 - 1
    return (2**64 * wanted_ngrams) // total_ngrams


def correct_for_length(
    log_weight: np.ndarray,
    length: str,
    n_ngrams: np.ndarray,
    n_tokens: np.ndarray,
    mean_tokens: tuple[float, float] | None = None,
) -> np.ndarray:
    """Correct log weights for document length.

    A log weight is a sum over n-grams, so its size grows with the length, and in pools mostly unlike the target the
    shortest documents have the largest.

    Parameters
    ----------
    log_weight : ndarray of float64, shape (n,)
    length : {"none", "per_ngram", "sqrt", "poisson"}
        Unchanged; divided by the number of n-grams, the log weight of a mean n-gram (``log(1e-8)``, the least there
        can be, of a document without any); divided by its square root; or
        plus the log ratio of two Poisson distributions of the number of tokens, ``n log(t / r) - (t - r)`` with means
        t and r, which makes DSIR's bag of n-grams a model of documents with their lengths. (RedPajama-V2 adds this to
        its importance weights, but with 1e-8 added to both probabilities, which levels the term for all lengths except
        those near the means.)
    n_ngrams, n_tokens : ndarray of int64, shape (n,)
    mean_tokens : (float, float), optional
        Means of the target and of the pool, for ``poisson``.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    if length == "none":
        return log_weight
    if length == "per_ngram":
        # Without n-grams there is no mean; 0 would rank above most documents. No mean is below this one.
        return np.where(n_ngrams > 0, log_weight / np.maximum(n_ngrams, 1), np.log(EPSILON))
    if length == "sqrt":
        return log_weight / np.sqrt(np.maximum(n_ngrams, 1))
    if length == "poisson":
        if mean_tokens is None:
            raise ValueError("mean_tokens: None; expected a pair with length poisson")
        target, pool = mean_tokens
        return log_weight + (n_tokens * np.log(target / pool) - (target - pool))
    raise ValueError(f"length: {length!r}; expected none, per_ngram, sqrt or poisson")


#: Temperatures tried: powers of ten between these exponents.
COLDEST, HOTTEST = -3, 7


def solve_temperature(
    passes: Callable[[Callable[[Iterable[np.ndarray]], Any]], Iterable[Any]],
    *,
    effective_sample_size: float | None = None,
    acceptance: float | None = None,
) -> float:
    """Find the temperature T at which the weights ``exp(log_weight / T)`` are as even as requested.

    Parameters
    ----------
    passes : callable
        Makes a pass over the log weights: calls the function that it is given, which can be pickled, for the batches
        of every part of them, and yields the results in any order. For one part of batches that can be read again:
        ``lambda function: [function(batches())]``.
    effective_sample_size : float
        ``(Σw)² / Σw²``, between 1 and the number of documents.
    acceptance : float
        ``mean(w) / max(w)``, between 0 and 1: the share of documents that rejection sampling would accept. Give
        exactly one of the two.

    Returns
    -------
    float
        Rounded to four significant digits, so that it does not depend on the order of sums.

    Raises
    ------
    ValueError
        No temperature between 1e-3 and 1e7 gives this; names the range within reach.
    """
    n, largest = _size_of(passes(_size_of_part))
    if not n:
        raise ValueError("there are no documents to find a temperature for")

    def measured(temperatures: np.ndarray) -> np.ndarray:
        sums = sum(passes(partial(_sums_of_part, temperatures, largest)))
        return sums[0] / n if acceptance is not None else sums[0] ** 2 / sums[1]

    wanted = acceptance if effective_sample_size is None else effective_sample_size
    if wanted is None:
        raise ValueError("give effective_sample_size or acceptance")
    low, high = COLDEST, HOTTEST
    reached = measured(10.0 ** np.array([low, high]))
    if not reached[0] <= wanted <= reached[1]:
        name = "an acceptance" if effective_sample_size is None else "an effective sample size"
        raise ValueError(
            f"no temperature gives {name} of {wanted:g}: with {n:,} documents it is from {reached[0]:.4g} to "
            f"{reached[1]:.4g}"
        )
    for _ in range(5):  # both measures grow with the temperature
        exponents = np.linspace(low, high, 17)
        at = int(np.clip(np.searchsorted(measured(10.0**exponents), wanted), 1, 16))
        low, high = exponents[at - 1], exponents[at]
    return float(f"{10.0 ** ((low + high) / 2):.4g}")


def _size_of(sizes: Iterable[tuple[int, float]]) -> tuple[int, float]:
    n, largest = 0, -np.inf
    for length, most in sizes:
        n, largest = n + length, max(largest, most)
    return n, largest


def _size_of_part(batches: Iterable[np.ndarray]) -> tuple[int, float]:
    """Return how many log weights there are, and the largest."""
    return _size_of((len(each), float(each.max(initial=-np.inf))) for each in batches)


def _sums_of_part(temperatures: np.ndarray, largest: float, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sums of the weights and of their squares at every temperature: shape (2, temperatures)."""
    sums = np.zeros((2, len(temperatures)))
    for each in batches:
        for i, t in enumerate(temperatures):
            weights = np.exp((each - largest) / t)
            sums[:, i] += weights.sum(), (weights * weights).sum()
    return sums
