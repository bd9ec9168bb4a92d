"""Cynical selection: one document after the other, the one that brings the selection closest to the target.

What belongs here: the greedy selection, for a pool in memory. What does not: what a document is worth
(``dsir.relative_entropy``), the same objective over a stream (``dsir.matching``).

Axelrod, *Cynical Selection of Language Model Training Data* (arXiv 1709.02279, 2017), after Sethy et al. (2009): every
step adds the document that lowers the relative entropy of the target to the selection the most. Differences from the
paper: worth is divided by the document's n-grams, since it is a budget of tokens that is to be filled; n-grams are
hashed, and of every order up to n; the target is discounted, and the selection has pseudo-counts, where the paper has a
vocabulary.

The choice is lazy (Minoux 1978): the worth of a document falls as others like it are added, so the largest of the
worths known from before is looked at again first, and taken if it is still the largest.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from dsir.checks import expect_array, expect_buckets
from dsir.features import Features
from dsir.featurizer.intrinsics import inner_float
from dsir.matching import MatchingOptions, nothing_picked
from dsir.relative_entropy import move, value, values
from dsir.selection import NO_CAP, Budget

#: Documents looked at between two calls of ``before``: a second's work.
_AT_A_TIME = 1 << 18


def cynical(
    features: Features,
    target: np.ndarray,
    budget: Budget,
    smoothing: float = MatchingOptions.smoothing,
    *,
    source: np.ndarray | None = None,
    limits: np.ndarray | None = None,
    before: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Select documents greedily, until the next one does not fit into the budget.

    Parameters
    ----------
    features : Features
        Sparse counts of the n documents of the pool.
    target : ndarray of float64, shape (buckets,)
        A distribution: :func:`dsir.relative_entropy.target_distribution`, or a mixture of these.
    budget : Budget
    smoothing : float
        Pseudo-counts a bucket of the selection, greater than 0.
    source : ndarray of int64, shape (n,), optional
        Index of each document's source.
    limits : ndarray of int64, shape (sources,), optional
        What each source may take of the budget; a source exceeds it by less than one document.
    before : callable, optional
        Called every second or so with what is left of the budget; may raise.

    Returns
    -------
    ndarray of int64
        Indices of the documents, in the order in which they were selected. Documents of equal worth come in the order
        in which they are given.

    Raises
    ------
    NothingFits
        The best document is longer than the budget.
    ValueError
        There are no documents; or naming the argument, its shape, and what is expected.
    """
    expect_array("target", target, (np.floating,), "buckets")
    expect_buckets("target", target[np.newaxis], features)
    n = len(features)
    if source is None or limits is None:
        source, limits = np.zeros(n, np.int64), np.array([NO_CAP])
    amounts = np.ones(n, np.int64) if budget.tokens is None else features.n_tokens
    totals = np.full(len(target), float(smoothing))
    members = np.zeros(n, bool)
    selected = fill(
        features, members, target, totals, amounts, source, budget.amount, limits.copy(), before=before
    )
    if not len(selected):
        raise nothing_picked(budget)
    return selected


def fill(
    features: Features,
    members: np.ndarray,
    target: np.ndarray,
    totals: np.ndarray,
    amounts: np.ndarray,
    source: np.ndarray,
    left: int,
    room: np.ndarray,
    *,
    before: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Add documents to a selection greedily, until the next one does not fit.

    Parameters
    ----------
    features : Features
    members : ndarray of bool, shape (n,)
        Those that the selection has; changed in place.
    target, totals : ndarray of float64, shape (buckets,)
        Of the target, a distribution; of the selection, with pseudo-counts, changed in place.
    amounts, source : ndarray of int64, shape (n,)
        What a document takes of the budget, and the index of its source.
    left : int
        Of the budget.
    room : ndarray of int64, shape (sources,)
        What is left of each source's cap; changed in place.
    before : callable, optional
        As for :func:`cynical`.

    Returns
    -------
    ndarray of int64
        Indices of the documents added, in order.
    """
    content = features.offsets, features.buckets, features.counts, features.n_ngrams
    worth = values(members, *content, target, totals)
    heap = np.argsort(-worth, kind="stable")  # ascending in -worth, so a heap
    heap = heap[~members[heap] & (content[3][heap] > 0)]
    state = np.array([len(heap), 0, left, 0], np.int64)  # in the heap, added, left, whether done
    seen_at = np.zeros(len(features), np.int64)  # the number added when a document's worth was last computed
    added = np.empty(len(heap), np.int64)
    while not state[3]:
        if before:
            before(int(state[2]))
        _greedy(
            state, heap, worth, seen_at, added, amounts, source, room, *content, target, totals, _AT_A_TIME
        )
    added = added[: state[1]].copy()
    members[added] = True
    return added


@inner_float
def _sink(heap, size, worth):
    """Move the document at the top of the heap down to its place; equal ones are in order of their indices."""
    at, document = 0, heap[0]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size:
            one, other = heap[child], heap[child + 1]
            if worth[other] > worth[one] or (worth[other] == worth[one] and other < one):
                child += 1
        best = heap[child]
        if worth[best] < worth[document] or (worth[best] == worth[document] and best > document):
            break
        heap[at] = best
        at = child
    heap[at] = document


@njit(cache=True, nogil=True)
def _greedy(
    state,
    heap,
    worth,
    seen_at,
    added,
    amounts,
    source,
    room,
    offsets,
    buckets,
    counts,
    n_ngrams,
    target,
    totals,
    looks,
):
    """Go on adding documents, for so many looks at one."""
    held, n, left = state[0], state[1], state[2]
    done = False
    while looks > 0 and not done:
        if held == 0:
            done = True
            break
        document = heap[0]
        fresh = seen_at[document] == n
        full = room[source[document]] <= 0
        if fresh and not full and amounts[document] > left:
            done = True
        elif fresh or full:
            if not full:
                added[n] = document
                n += 1
                move(document, False, offsets, buckets, counts, totals)
                left -= amounts[document]
                room[source[document]] -= amounts[document]
            held -= 1
            heap[0] = heap[held]
            if held:
                _sink(heap, held, worth)
        else:
            worth[document] = value(document, False, offsets, buckets, counts, n_ngrams, target, totals)
            seen_at[document] = n
            _sink(heap, held, worth)
            looks -= 1
    state[0], state[1], state[2], state[3] = held, n, left, done
