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
import pyarrow as pa

from dsir.checks import expect_array, expect_instance, too_few_buckets
from dsir.features import Features
from dsir.featurizer.intrinsics import four_sums, inner
from dsir.featurizer.packed import PackedFeatures, unpack_document

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


def log_weights(features: Features | pa.RecordBatch, ratios: np.ndarray) -> np.ndarray:
    """Log importance weight of every document under every target.

    The sum over buckets of count times log ratio (paper, equation 1; reference,
    ``HashedNgramDSIR.importance_estimator``), added in an order that depends only on the document, so that the result
    does not depend on batches, threads or other targets.

    Parameters
    ----------
    features : Features or pyarrow.RecordBatch
        Sparse counts of n documents, perhaps in the form in which they are stored, which is the faster one.
    ratios : ndarray of float64, shape (targets, buckets)
        From :func:`log_ratios`.

    Returns
    -------
    ndarray of float64, shape (targets, n)
        In nats.

    Raises
    ------
    ValueError
        If `ratios` has another type or shape, or fewer buckets than `features`; for a record batch as
        :meth:`dsir.features.Features.from_arrow`.
    """
    return Weigher(ratios)(features)[0]


#: Targets weighed at once where there are more than two, as lanes of a vector; of one or two, one after the other.
_LANES = 4
#: Documents are unpacked about so many entries at a time, which stay in the processor's cache; more of them if the
#: ratios of all targets do not, so that those of `_LANES` targets are used by many documents.
_BLOCK, _LARGE_BLOCK = 1 << 13, 1 << 17


class Weigher:
    """Weighs batches under the same log ratios: :func:`log_weights`.

    Parameters
    ----------
    ratios : ndarray of float64, shape (targets, buckets)

    Attributes
    ----------
    targets : int

    Raises
    ------
    ValueError
        If `ratios` has another type or shape.
    """

    def __init__(self, ratios: np.ndarray) -> None:
        expect_array("ratios", ratios, (np.floating,), "targets", "buckets")
        self.targets, n_buckets = ratios.shape
        lanes = 1 if self.targets < 3 else _LANES
        self._lanes = (0.0,) * lanes
        if lanes == 1:
            self._table = np.ascontiguousarray(ratios, dtype=np.float64)[:, :, np.newaxis]
            return
        # The ratios of a bucket side by side: one load reads those of all lanes.
        self._table = np.zeros((-(-self.targets // lanes), n_buckets, lanes))
        for target, of_target in enumerate(ratios):
            self._table[target // lanes, :, target % lanes] = of_target

    def __call__(self, features: Features | pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return the log weights of n documents, and how many n-grams they have.

        Parameters
        ----------
        features : Features or pyarrow.RecordBatch
            As for :func:`log_weights`.

        Returns
        -------
        log_weights : ndarray of float64, shape (targets, n)
        n_ngrams : ndarray of int64, shape (n,)

        Raises
        ------
        ValueError
            As :func:`log_weights`.
        """
        expect_instance("features", features, Features, pa.RecordBatch)
        packed = PackedFeatures.from_arrow(
            features.to_arrow() if isinstance(features, Features) else features
        )
        groups, n_buckets, lanes = self._table.shape
        weights, n_ngrams = np.empty((groups * lanes, len(packed))), np.empty(len(packed), np.int64)
        size = _BLOCK if groups == 1 else _LARGE_BLOCK
        documents = packed.data, packed.starts, packed.ends, size, *packed.room(size)
        wrong, beyond = _weigh(*documents, self._table, self._lanes, weights, n_ngrams)
        packed.check(wrong)
        if beyond >= 0:
            raise too_few_buckets("ratios", n_buckets, beyond)
        return weights[: self.targets], n_ngrams


@numba.njit(cache=True, nogil=True)
def _weigh(data, starts, ends, size, buckets, counts, table, lanes, weights, n_ngrams):
    """Fill weights and sums of counts; return an error code, and a bucket that the table lacks, else -1."""
    n, one = np.uint64(starts.size), np.uint64(1)
    # Entries of a block's documents.
    first, middle = np.zeros(n + one, np.uint64), np.zeros(n + one, np.uint64)
    sums = np.empty((4, len(lanes)))
    begin = np.uint64(0)
    while begin < n:
        end = begin
        while end < n and first[end - begin] <= np.uint64(size):
            at = first[end - begin]
            start, stop = np.uint64(starts[end]), np.uint64(ends[end])
            wrong, n_once, n_others = unpack_document(data, start, stop, buckets, counts, at)
            if wrong:
                return wrong, -1
            middle[end - begin] = at + n_once
            first[end - begin + one] = at + n_once + n_others
            total = n_once
            for i in range(at + n_once, at + n_once + n_others):
                total += np.uint64(counts[i])
            n_ngrams[end] = total
            end += one
        largest = np.uint64(0)
        for i in range(first[end - begin]):
            largest = max(largest, np.uint64(buckets[i]))
        if first[end - begin] and largest >= np.uint64(table.shape[1]):
            return 0, np.int64(largest)
        for group in range(np.uint64(table.shape[0])):
            for i in range(end - begin):
                document = begin + i
                _add_up(table, group, buckets, None, first[i], middle[i], lanes, sums)
                for lane in range(len(lanes)):
                    weights[group * len(lanes) + lane, document] = _in_order(sums, lane)
                _add_up(table, group, buckets, counts, middle[i], first[i + one], lanes, sums)
                for lane in range(len(lanes)):
                    weights[group * len(lanes) + lane, document] += _in_order(sums, lane)
        begin = end
    return 0, -1


@inner
def _in_order(sums, lane):
    return (sums[0, lane] + sums[1, lane]) + (sums[2, lane] + sums[3, lane])


@inner
def _add_up(table, group, buckets, times, first, last, lanes, sums):
    """Add up entries `first` to `last` in four sums, for every lane: each fourth entry, what remains to the first."""
    in_fours = last - first & ~np.uint64(3)
    four_sums(table, group, buckets, times, first, in_fours, lanes, sums)
    for i in range(first + in_fours, last):
        for lane in range(len(lanes)):
            ratio = table[group, buckets[i], lane]
            sums[0, lane] += ratio if times is None else np.float64(times[i]) * ratio


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
