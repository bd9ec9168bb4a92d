"""Measures of a selection: KL divergence and reduction, effective sample size, agreement.

What belongs here: numbers computed from counts, weights and picks. What does not: which selections to
compare, tables, plots.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from dsir.features import Features


def distribution(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Probabilities of counts with ``smoothing`` pseudo-counts a bucket.

    Parameters
    ----------
    counts : ndarray of int64, shape (buckets,)
    smoothing : float
        Greater than 0, so that every probability is.

    Returns
    -------
    ndarray of float64, shape (buckets,)
    """
    smoothed = counts + smoothing
    return smoothed / smoothed.sum()


def kl_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p‖q) in nats, for two distributions without zeros, each of shape (buckets,)."""
    return float(np.sum(p * (np.log(p) - np.log(q))))


def kl_reduction(
    target_counts: np.ndarray, raw_counts: np.ndarray, selected_counts: np.ndarray, smoothing: float
) -> float:
    """How much closer to the target the selection is than the pool (paper, section 5).

    ``KL(target‖raw) - KL(target‖selected)`` over hashed n-grams, in nats. Each argument is an ndarray
    of int64, shape (buckets,).
    """
    target = distribution(target_counts, smoothing)
    raw = distribution(raw_counts, smoothing)
    selected = distribution(selected_counts, smoothing)
    return kl_divergence(target, raw) - kl_divergence(target, selected)


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

    @property
    def value(self) -> float:
        """Between 1 and the number of documents; 0 where there are none."""
        return self.total * self.total / self.squares if self.squares else 0.0


def masked_totals(features: Features, masks: np.ndarray, totals: np.ndarray) -> None:
    """Add the counts of the documents in each mask to that mask's totals.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    masks : ndarray of bool, shape (masks, n)
    totals : ndarray of int64, shape (masks, buckets)
        Changed in place.
    """
    _masked_totals(features.offsets, features.buckets, features.counts, masks, totals)


@numba.njit(cache=True, nogil=True)
def _masked_totals(offsets, buckets, counts, masks, totals):
    for mask in range(masks.shape[0]):
        for document in range(offsets.size - 1):
            if masks[mask, document]:
                for i in range(offsets[document], offsets[document + 1]):
                    totals[mask, buckets[i]] += counts[i]
