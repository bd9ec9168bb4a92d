"""The relative entropy of a target to a selection, and how much one document changes it.

What belongs here: the target's distribution, the exact value of one document to a selection, in compiled code. What
does not: which documents to look at in which order (``dsir.matching``, ``dsir.refinement``, ``dsir.cynical``).

With p the target, C the selection's counts with their pseudo-counts, and N the sum of C,

    KL(p‖q) = Σ_b p_b log p_b - Σ_b p_b log C_b + log N,    q_b = C_b / N,

so a document with counts c, n in all, that is added lowers it by ``Σ_b p_b log(1 + c_b / C_b) - log(1 + n / N)``. The
second term is what n n-grams of any document cost. The first, for each of the n, is the document's worth; to first
order it is Σ_b (c_b / n) (p_b / q_b) / N, the score of :mod:`dsir.matching`.
"""

import numpy as np
from numba import njit

from dsir.featurizer.intrinsics import inner_float

#: The largest discount. Where no bucket has two n-grams, the estimate is 1, which would leave nothing of the target.
_MOST_DISCOUNT = 0.75


def target_distribution(counts: np.ndarray) -> np.ndarray:
    """The distribution of a target's n-grams, with what was not seen of it spread evenly.

    Absolute discounting (Ney, Essen & Kneser 1994): every count is lowered by D = n1 / (n1 + 2 n2), n1 and n2 being the
    numbers of buckets with one and two n-grams, and what that frees goes to all buckets alike. So a large target is
    taken as it is. A constant number of pseudo-counts a bucket would be most of a small one: with a hundred short
    documents and 65,536 buckets, selections would be asked for n-grams that nobody has seen in the target.

    Parameters
    ----------
    counts : ndarray of int64, shape (buckets,)
        At least one n-gram.

    Returns
    -------
    ndarray of float64, shape (buckets,)
    """
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    discount = min(once / (once + 2 * twice), _MOST_DISCOUNT) if once else 0.0
    total = counts.sum()
    freed = discount * np.count_nonzero(counts) / total
    return np.maximum(counts - discount, 0) / total + freed / len(counts)


def mixed(distributions: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The mixture of targets by their shares: ndarray of float64, shape (buckets,).

    Parameters
    ----------
    distributions : ndarray of float64, shape (targets, buckets)
    shares : ndarray of float64, shape (targets,)
        Any positive numbers.
    """
    # Added row by row, so that its bits do not depend on a library's threads.
    return np.sum((shares / shares.sum())[:, np.newaxis] * distributions, axis=0)


def relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p‖q) in nats; p may have zeros."""
    at = np.flatnonzero(p)
    return float(np.sum(p[at] * np.log(p[at] / q[at])))


@inner_float
def value(document, member, offsets, buckets, counts, n_ngrams, target, totals):
    """What a document is worth to a selection, in nats an n-gram, whatever the n-grams are.

    Parameters
    ----------
    document : int
    member : bool
        Whether the selection has it: then what it would lose without it, else what it would gain.
    offsets, buckets, counts
        Of :class:`dsir.features.Features`.
    n_ngrams : int64[documents]
    target : float64[buckets]
        A distribution; may have zeros.
    totals : float64[buckets]
        Of the selection, with pseudo-counts.
    """
    sign = -1.0 if member else 1.0
    change = 0.0
    for i in range(offsets[document], offsets[document + 1]):
        p = target[buckets[i]]
        if p > 0.0:
            change += p * np.log(1.0 + sign * np.float64(counts[i]) / totals[buckets[i]])
    return sign * change / n_ngrams[document] if n_ngrams[document] else -1.0  # that is below any other


@inner_float
def move(document, member, offsets, buckets, counts, totals):
    """Take a document out of the totals of a selection that has it, or else add it."""
    sign = -1.0 if member else 1.0
    for i in range(offsets[document], offsets[document + 1]):
        totals[buckets[i]] += sign * np.float64(counts[i])


@njit(cache=True, nogil=True)
def values(members, offsets, buckets, counts, n_ngrams, target, totals):
    """The :func:`value` of every document: float64[documents]; ``members`` is bool[documents]."""
    out = np.empty(members.size)
    for document in range(members.size):
        member = members[document]
        out[document] = value(document, member, offsets, buckets, counts, n_ngrams, target, totals)
    return out
