"""Distribution matching: iterated importance weights that make the selection as a whole like the target.

What belongs here: the rounds from n-gram totals of a target and a stream of features to the weights that a
selection is picked by, and the score of a document under them. What does not: picking (``dsir.selection``),
counting (``dsir.features``), reading and storing.

DSIR weighs a document as if it were picked alone. On real pools the weights of whole documents spread over
hundreds of nats, so the selection is the documents of the largest weights, which are like each other and
leave most of the target uncovered. Here the selection is measured and the weights are moved, until

    KL(p‖q) = Σ p_b log(p_b / q_b),    p the target, q the mean of the selected n-grams

does not become smaller. That is a convex function of q, and one n-gram more of bucket b changes it by
-p_b / q_b. So a document of n n-grams is worth, for each n-gram that it takes of the budget,

    score = Σ_b count_b · theta_b / n,    theta_b = p_b / q_b,

the mean ratio of its n-grams (DSIR: the sum of their logarithms, q being the pool throughout). The documents
of the largest scores up to the budget minimize the linearized KL, and q moves a step towards what they hold:
the method of Frank & Wolfe (1956), analysed by Jaggi (ICML 2013). Its gap, Σ theta (s - q) with s the
distribution of the picked, bounds how far KL(p‖q) is from the least that any selection of the budget can have.
(The budget counts tokens or documents, not n-grams: exact for documents of equal length. Under a budget of
documents the score stays the mean, so that it does not favour long ones.)

What is returned is one round's theta, not the mean of the rounds, and where the pool is a few kinds of documents
that are much alike, picks by theta swing from one kind to another. So the step shrinks at every round that
does not come closer to the target. Closeness is measured on a part of the target that was not fitted on; the
closest round is returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsir.evaluation import distribution, kl_divergence, masked_totals
from dsir.features import Features
from dsir.hashing import gumbel_noise
from dsir.importance import log_weights
from dsir.selection import CANDIDATE, Budget, TopK

#: The first step, and what a round that came no closer makes of it: measured on real and on made pools.
STEP, SHRINK = 0.5, 0.6

#: Splits a target by content hash, and independently of noise and of samples that are ranges of the hash.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class MatchingOptions:
    """How to match.

    Attributes
    ----------
    rounds : int
        At most so many, at least 1; each is two passes over the features.
    patience : int
        Stop after so many rounds in a row that did not come closer to the held-back part.
    tolerance : float
        In nats: by how much a round must be closer than the closest before.
    smoothing : float
        Pseudo-counts a bucket of every distribution, greater than 0.
    temperature : float
        Added to the score is Gumbel(0, 1) noise times this; 0 for none. The mean score of a matched
        selection is about 1. The noise is part of the rounds, so that the noisy selection is what matches.
    seed : int
        Of the noise.
    stream : str
        Name of the noise, as in :func:`dsir.hashing.gumbel_noise`.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    rounds: int = 40
    patience: int = 8
    tolerance: float = 1e-3
    smoothing: float = 1.0
    temperature: float = 0.0
    seed: int = 0
    stream: str = "match"

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("rounds", self.rounds >= 1, "at least 1"),
            ("patience", self.patience >= 1, "at least 1"),
            ("tolerance", self.tolerance >= 0, "0 or more"),
            ("smoothing", self.smoothing > 0, "more than 0"),
            ("temperature", self.temperature >= 0, "0 or more"),
        ):
            if not valid:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True)
class Round:
    """What one round selected; divergences in nats.

    Attributes
    ----------
    number : int
        From 0, which picks by the ratio of the target and the pool.
    kl_fit, kl_validation : float
        KL(target‖selected) of the two parts of the target.
    gap : float
        Bounds how far the mean of the rounds before is from the optimum (module docstring); with noise,
        it does not.
    documents, tokens : int
        Selected.
    """

    number: int
    kl_fit: float
    kl_validation: float
    gap: float
    documents: int
    tokens: int


@dataclass(frozen=True, eq=False)
class Matching:
    """The outcome of :func:`match`.

    Attributes
    ----------
    theta : ndarray of float64, shape (buckets,)
        For :func:`scores`: of the best round by the held-back part.
    totals : ndarray of int64, shape (buckets,)
        N-grams that this round selected.
    best : int
        The number of this round.
    curve : list of Round
        All rounds, in order.
    converged : bool
        The rounds stopped because they did not improve, not because they were used up.
    seconds : float
        Wall time.
    """

    theta: np.ndarray
    totals: np.ndarray
    best: int
    curve: list[Round]
    converged: bool
    seconds: float


def held_back(content_hash: np.ndarray, parts: int = 5) -> np.ndarray:
    """Say which documents of a target are not fitted on: about one in ``parts``, equal texts together.

    Parameters
    ----------
    content_hash : ndarray of uint64, shape (n,)
    parts : int

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    return (content_hash * _MIX) >> np.uint64(32) < np.uint64(2**32 // parts)


def mixture(counts: np.ndarray, shares: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the distribution of several targets together, for :func:`match`.

    Parameters
    ----------
    counts : ndarray of int64, shape (targets, buckets)
    shares : ndarray of float64, shape (targets,)
        Of the selected n-grams; any positive numbers, they are normalized to 1.
    smoothing : float
        Pseudo-counts a bucket of each target.

    Returns
    -------
    ndarray of float64, shape (buckets,)
    """
    shares = np.asarray(shares, dtype=np.float64)
    each = np.array([distribution(row, smoothing) for row in counts])
    return (shares / shares.sum()) @ each


def scores(features: Features, theta: np.ndarray) -> np.ndarray:
    """Mean of theta over the n-grams of every document; 0 for a document without any.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    theta : ndarray of float64, shape (buckets,)

    Returns
    -------
    ndarray of float64, shape (n,)
        Independent of batches and threads.
    """
    return log_weights(features, theta[np.newaxis])[0] / np.maximum(features.n_ngrams, 1)


def keys(features: Features, theta: np.ndarray, options: MatchingOptions) -> np.ndarray:
    """Scores with noise, if there is any: what documents are ranked by. Shapes as in :func:`scores`."""
    key = scores(features, theta)
    if options.temperature:
        noise = gumbel_noise(features.content_hash, options.seed, options.stream)
        key += options.temperature * noise
    return key


def match(
    batches: Callable[[], Iterable[Features]],
    target: np.ndarray,
    validation: np.ndarray,
    raw_counts: np.ndarray,
    budget: Budget,
    options: MatchingOptions = MatchingOptions(),
    *,
    min_tokens: int = 0,
    mapper: Callable[[Callable, Iterable], Iterable] = map,
) -> Matching:
    """Find the weights under which the best documents of a pool, up to a budget, are like the target.

    Parameters
    ----------
    batches : callable
        Returns an iterable over all of the pool's features, the same documents whenever it is called. Their
        order and how they are cut do not matter. Memory is that of a batch, of its candidates, and of about
        150 bytes a document of the selection.
    target, validation : ndarray of int64 counts, or of float64 probabilities > 0, shape (buckets,)
        The part of the target to fit on, and the part that says when to stop (:func:`held_back`). Several
        targets are matched together as their :func:`mixture`.
    raw_counts : ndarray of int64, shape (buckets,)
        N-gram totals of the pool, where the rounds start: round 0 has ``theta = p_target / p_raw``.
    budget : Budget
    options : MatchingOptions
    min_tokens : int
        Shorter documents are not selected.
    mapper : callable
        Applies a function to the batches, perhaps in several threads, like `map`; in any order.

    Returns
    -------
    Matching

    Raises
    ------
    ValueError
        The target, its held-back part or the pool has no n-grams, or the shapes differ, or no document fits.
    """
    started = time.monotonic()
    for name, counts in (("target", target), ("validation", validation), ("pool", raw_counts)):
        if counts.shape != raw_counts.shape:
            raise ValueError(f"{name}: {counts.shape} buckets; the pool has {raw_counts.shape}")
        if not counts.sum() > 0:
            raise ValueError(f"{name}: no n-grams")
    p, p_validation = (_as_distribution(each, options.smoothing) for each in (target, validation))
    q = distribution(raw_counts, options.smoothing)
    curve: list[Round] = []
    best, lowest, failures, step, converged = None, np.inf, 0, STEP, False
    for number in range(options.rounds):
        theta = p / q
        picked, totals = _select(batches, theta, budget, options, min_tokens, mapper)
        if not len(picked):
            raise ValueError(f"no document of at least {min_tokens} tokens fits into {budget}")
        selected = distribution(totals, options.smoothing)
        kl = kl_divergence(p_validation, selected)
        curve.append(
            Round(
                number,
                kl_divergence(p, selected),
                kl,
                float(np.sum(theta * (selected - q))),
                len(picked),
                int(picked["n_tokens"].sum()),
            )
        )
        if kl < lowest - options.tolerance:
            failures = 0
        else:
            failures, step = failures + 1, step * SHRINK
        if kl < lowest:
            lowest, best = kl, (theta, totals, number)
        if failures == options.patience:
            converged = True
            break
        q = q + step * (selected - q)
    return Matching(*best, curve, converged, time.monotonic() - started)


def _as_distribution(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Smoothed probabilities of counts (integers); probabilities (floats) as they are."""
    return counts if np.issubdtype(counts.dtype, np.floating) else distribution(counts, smoothing)


def _select(batches, theta, budget, options, min_tokens, mapper) -> tuple[np.ndarray, np.ndarray]:
    """Pick by the keys under theta: the picked candidates (without positions), and their n-gram totals."""

    def candidates(features: Features) -> np.ndarray:
        out = np.zeros(len(features), dtype=CANDIDATE)
        out["key"] = keys(features, theta, options)
        out["content_hash"], out["n_tokens"] = features.content_hash, features.n_tokens
        return out[features.n_tokens >= min_tokens]

    top = TopK(budget)
    for each in mapper(candidates, batches()):
        top.add(each)
    picked = top.picked()
    totals = np.zeros(len(theta), dtype=np.int64)
    if len(picked):
        work = partial(_split_at, theta=theta, options=options, min_tokens=min_tokens, last=picked[-1])
        # Documents that tie with the last one are copies of its text: any will do, as many as were picked.
        ties = int(_same(picked["key"], picked["content_hash"], picked[-1]).sum())
        for better, copy in mapper(work, batches()):
            totals += better
            if copy is not None and ties:
                count, n = copy
                totals += count * min(n, ties)
                ties -= min(n, ties)
    return picked, totals


def _same(key, content_hash, last) -> np.ndarray:
    return (key == last["key"]) & (content_hash == last["content_hash"])


def _split_at(features, theta, options, min_tokens, last):
    """Totals of the documents ranked before the last, and the counts of its copies with their number."""
    key = keys(features, theta, options)
    tied = key == last["key"]
    better = (key > last["key"]) | (tied & (features.content_hash < last["content_hash"]))
    totals = np.zeros((1, len(theta)), dtype=np.int64)
    masked_totals(features, (better & (features.n_tokens >= min_tokens))[np.newaxis], totals)
    copies = np.flatnonzero(_same(key, features.content_hash, last))
    copy = (features.dense(int(copies[0]), len(theta)), len(copies)) if len(copies) else None
    return totals[0], copy
