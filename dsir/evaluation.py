"""Measures of a selection: KL reduction with its interval, effective sample size, agreement, duplicates, leakage.

What belongs here: numbers computed from counts, weights, content hashes and picks. What does not: which selections
to compare, tables, plots; unhashed n-grams (``dsir.ngrams``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from dsir.checks import expect_array, expect_buckets, expect_instance
from dsir.features import Features, FeatureSpec
from dsir.noise import gumbel_noise

#: Groups of target documents that the bootstrap draws, and number of draws.
GROUPS, REPLICATES = 1000, 1000
#: Lower and upper quantile of an interval: 95 %.
INTERVAL = 0.025, 0.975
#: Default pseudo-counts a bucket of a distribution.
SMOOTHING = 0.5
#: What the headline figure counts, whatever features selected: words and pairs of words in the buckets of one hash that
#: selects nothing. SHA-256 modulo a prime says nothing about SHA-256 modulo another number, nor about the `fast` hash;
#: that one modulo a prime would not do, since two moduli cut the same high bits of it. Only the tokenizer is the
#: configuration's: what a word is depends on the language.
INDEPENDENT = FeatureSpec(ngrams=2, buckets=40_009, hash="sha256")
#: Share of the uniform distribution in those of the headline figure.
UNIFORM = 0.01


def distribution(counts: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Probabilities of counts with ``smoothing`` pseudo-counts a bucket.

    Parameters
    ----------
    counts : ndarray of int64, shape (buckets,)
    smoothing : float
        Greater than 0, so that all probabilities are.

    Returns
    -------
    ndarray of float64, shape (buckets,)
    """
    smoothed = counts + smoothing
    return smoothed / smoothed.sum()


def independent_distribution(counts: np.ndarray) -> np.ndarray:
    """Probabilities of a pick's counts for the headline figure: 99 % the counts' own, 1 % uniform.

    The headline figure is a lead in nats, ``H(p, q_other) - H(p, q_pick)``: of a pick over random picks, or over
    another method's. Here p are the held-out counts as they are, without pseudo-counts (:func:`cross_entropy`,
    ``CrossEntropies(q, smoothing=0)``), and all are counted under :data:`INDEPENDENT`. So it is the same for every
    configuration that picks the same documents, it is not diluted where the held-out text is short, and since shares
    rather than pseudo-counts keep q above 0, counting every document twice changes nothing.

    The paper's own figure (:func:`kl_reduction`) depends on the buckets that selected: it flatters a method that
    fitted them, pseudo-counts outnumber a few hundred held-out questions, and figures under different numbers of
    buckets cannot be compared.

    Parameters
    ----------
    counts : ndarray of int64, shape (buckets,)
        Without any, the distribution is uniform.

    Returns
    -------
    ndarray of float64, shape (buckets,)
    """
    share = UNIFORM if counts.any() else 1.0
    return (1 - share) * counts / max(counts.sum(), 1) + share / len(counts)


def cross_entropy(counts: np.ndarray, q: np.ndarray) -> float:
    """Cross-entropy of counts with a distribution, ``-Σ_j p_j log q_j`` in nats, where p are the counts' shares.

    Parameters
    ----------
    counts : ndarray of int64, shape (buckets,)
        At least one is above 0.
    q : ndarray of float64, shape (buckets,)
        Without zeros.
    """
    return float(-(counts @ np.log(q)) / counts.sum())


def kl_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p‖q) in nats, for two distributions without zeros, each of shape (buckets,)."""
    return float(np.sum(p * (np.log(p) - np.log(q))))


def kl_reduction(
    target_counts: np.ndarray, raw_counts: np.ndarray, selected_counts: np.ndarray, smoothing: float
) -> float:
    """How much closer to the target the selection is than the pool (paper, section 5).

    ``KL(target‖raw) - KL(target‖selected)`` over hashed n-grams, in nats. Counts are ndarrays of int64, shape
    (buckets,).
    """
    target = distribution(target_counts, smoothing)
    raw = distribution(raw_counts, smoothing)
    selected = distribution(selected_counts, smoothing)
    return kl_divergence(target, raw) - kl_divergence(target, selected)


class CrossEntropies:
    """Cross-entropies of the target with several distributions q, and how they vary with the target's documents.

    ``H(p, q) = -Σ_j p_j log q_j`` in nats, where p are the target's counts with ``smoothing`` pseudo-counts a
    feature: none for the headline figure (:func:`independent_distribution`), some for the paper's. The difference of
    two of them is a KL reduction (paper, section 5)::

        KL(p‖raw) - KL(p‖selected) = H(p, raw) - H(p, selected)

    since the target's own entropy cancels. It is linear in the target's counts, so a document contributes one number,
    and drawing other target documents (the bootstrap) needs no second look at their n-grams.

    The interval is for *this* selection, over target documents: how far the figure would move with another sample of
    held-out documents of the same size. Documents are drawn whole, since the n-grams of one are not independent. It
    does not say how the selection would vary under another seed or another pool. The q are fixed: drawing the selected
    documents again would measure a selection with fewer different documents, not this one.

    Parameters
    ----------
    q : ndarray of float64, shape (k, features)
        Distributions without zeros.
    smoothing : float
        At least 0. With 0, documents with at least one n-gram must be added before a value is taken.

    References
    ----------
    Poisson bootstrap: Hanley and MacGibbon, "Creating non-parametric bootstrap samples using Poisson frequencies",
    2006.
    """

    def __init__(self, q: np.ndarray, smoothing: float) -> None:
        self.log_q = np.log(q)
        self._prior = smoothing * self.log_q.sum(axis=1)
        self._prior_ngrams = smoothing * q.shape[1]
        self._scores = np.zeros((GROUPS, len(q)))
        self._ngrams = np.zeros(GROUPS)

    def add(self, content_hash: np.ndarray, n_ngrams: np.ndarray, log_likelihood: np.ndarray) -> None:
        """Take target documents into account.

        Parameters
        ----------
        content_hash : ndarray of uint64, shape (n,)
            Assigns a document to one of ``GROUPS`` groups, which the bootstrap draws as a whole, so that it depends
            neither on the order of the documents nor on their number.
        n_ngrams : ndarray of int64, shape (n,)
        log_likelihood : ndarray of float64, shape (k, n)
            ``Σ_j z_j log q_j`` of every document's counts z.
        """
        group = (content_hash % np.uint64(GROUPS)).astype(np.int64)
        self._ngrams += np.bincount(group, weights=n_ngrams, minlength=GROUPS)
        for k, values in enumerate(log_likelihood):
            self._scores[:, k] += np.bincount(group, weights=values, minlength=GROUPS)

    @property
    def n_ngrams(self) -> int:
        """Of the documents so far."""
        return int(self._ngrams.sum())

    @property
    def values(self) -> np.ndarray:
        """The cross-entropies on the documents themselves: ndarray of float64, shape (k,)."""
        return -(self._scores.sum(axis=0) + self._prior) / (self._ngrams.sum() + self._prior_ngrams)

    def replicates(self, seed: str) -> np.ndarray:
        """Return the cross-entropies on bootstrapped documents: ndarray of float64, shape (REPLICATES, k).

        Parameters
        ----------
        seed : str
            The same text gives the same draws.
        """
        rng = np.random.default_rng(list(seed.encode()))
        drawn = rng.poisson(1.0, (REPLICATES, GROUPS))
        if self.n_ngrams:
            # Of very few documents a draw may have none; there is no cross-entropy without text.
            while len(empty := np.flatnonzero(drawn @ self._ngrams == 0)):
                drawn[empty] = rng.poisson(1.0, (len(empty), GROUPS))
        return -(drawn @ self._scores + self._prior) / (drawn @ self._ngrams + self._prior_ngrams)[:, None]


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrapped values: ndarray of float64, shape (replicates,)."""
    low, high = np.quantile(replicates, INTERVAL)
    return float(low), float(high)


@dataclass
class EffectiveSampleSize:
    """``(Σw)² / Σw²`` of importance weights that come in batches of log weights.

    The sums are kept relative to the largest log weight seen, so that nothing overflows.
    """

    largest: float = -np.inf
    total: float = field(default=0.0, repr=False)
    squares: float = field(default=0.0, repr=False)

    def add(self, log_weight: np.ndarray) -> None:
        """Take a batch of log weights into account: ndarray of float64, shape (n,)."""
        if not len(log_weight):
            return
        largest = max(self.largest, float(log_weight.max()))
        if np.isfinite(self.largest):
            shrink = np.exp(self.largest - largest)
            self.total *= shrink
            self.squares *= shrink * shrink
        relative = np.exp(log_weight - largest)
        self.largest = largest
        self.total += float(relative.sum())
        self.squares += float((relative * relative).sum())

    def merge(self, other: EffectiveSampleSize) -> None:
        """Take the log weights that another one was given into account."""
        largest = max(self.largest, other.largest)
        for each in (self, other):
            if np.isfinite(each.largest):
                shrink = np.exp(each.largest - largest)
                each.total, each.squares = each.total * shrink, each.squares * shrink * shrink
        self.largest = largest
        self.total += other.total
        self.squares += other.squares

    @property
    def value(self) -> float:
        """Between 1 and the number of documents; 0 if there are none."""
        return self.total * self.total / self.squares if self.squares else 0.0


def masked_totals(features: Features, masks: np.ndarray, totals: np.ndarray) -> None:
    """Add the counts of the documents in each mask to that mask's totals.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    masks : ndarray of bool or unsigned integers, shape (masks, n)
        Which documents are counted, or how often.
    totals : ndarray of int64, shape (masks, buckets)
        Changed in place.

    Raises
    ------
    ValueError
        If an argument has another type or shape, or `totals` has fewer buckets than `features`.
    """
    expect_instance("features", features, Features)
    expect_array("masks", masks, (np.bool_, np.unsignedinteger), "masks", len(features))
    expect_array("totals", totals, (np.int64,), len(masks), "buckets")
    expect_buckets("totals", totals, features)
    _masked_totals(features.offsets, features.buckets, features.counts, masks, totals)


@numba.njit(cache=True, nogil=True)
def _masked_totals(offsets, buckets, counts, masks, totals):
    for mask in range(masks.shape[0]):
        for document in range(offsets.size - 1):
            times = np.int64(masks[mask, document])
            if times:
                for i in range(offsets[document], offsets[document + 1]):
                    totals[mask, buckets[i]] += times * np.int64(counts[i])


def draw(n_ngrams: np.ndarray, content_hash: np.ndarray, wanted: int) -> np.ndarray:
    """Draw documents with the wanted number of n-grams, in an order that depends only on their content.

    This gives samples of equal size from selections with documents of different length: a small sample has a larger KL
    divergence than a large one, whatever was selected. A smaller sample is part of a larger one.

    Parameters
    ----------
    n_ngrams : ndarray of int64, shape (n,)
    content_hash : ndarray of uint64, shape (n,)
    wanted : int
        Documents are taken while they fit, but at least one.

    Returns
    -------
    ndarray of int64
        Indices, ascending.
    """
    order = np.argsort(gumbel_noise(content_hash, 0, "evaluation"), kind="stable")
    fitting = np.searchsorted(np.cumsum(n_ngrams[order]), wanted, side="right")
    return np.sort(order[: max(fitting, 1)])


def overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the share of our documents that are also theirs: two ndarrays of unique int64; 0 if we have none."""
    return len(np.intersect1d(ours, theirs, assume_unique=True)) / max(len(ours), 1)


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct values, ascending: `numpy.unique` in a quarter of its time or less.

    Since version 2.3 NumPy hashes integers and sorts what is left; sorting first uses SIMD.
    """
    ascending = np.sort(values)
    return ascending[np.append(True, ascending[1:] != ascending[:-1])[: len(ascending)]]


def duplicates(content_hash: np.ndarray) -> int:
    """Return how many documents have the content of an earlier one: ndarray of uint64, shape (n,)."""
    return len(content_hash) - len(distinct(content_hash))


def contained(content_hash: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Tell which documents have a known content.

    Parameters
    ----------
    content_hash : ndarray of uint64, shape (n,)
    known : ndarray of uint64, shape (m,)
        Sorted; far fewer than n.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    if not len(known):
        return np.zeros(len(content_hash), dtype=bool)
    at = np.searchsorted(known, content_hash)
    return known[np.minimum(at, len(known) - 1)] == content_hash
