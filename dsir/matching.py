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

Several targets are matched as their mixture, p = Σ_t share_t · p_t: Σ_t share_t · KL(p_t‖q) differs from KL(p‖q) by a
constant. With the objective "worst" the shares are moved, by multiplicative weights (Freund & Schapire 1999), towards
the targets that keep the most of their KL(p_t‖pool), and closeness is the largest KL(p_t‖q) / KL(p_t‖pool).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from dsir.evaluation import distribution, kl_divergence, masked_totals
from dsir.features import Features
from dsir.hashing import gumbel_noise
from dsir.importance import log_weights
from dsir.selection import CANDIDATE, Budget, Caps, TopK, pack_position

#: The first step, and what a round that came no closer makes of it: measured on real and on made pools.
STEP, SHRINK = 0.5, 0.6

#: By how much a round moves the shares of several targets towards the one that is worst off.
RATE = 1.0

#: The power of the number of n-grams that the mean theta of a document is multiplied by.
_POWERS = {"per_ngram": 0.0, "sqrt": 0.5, "none": 1.0}

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
    length : {"per_ngram", "sqrt", "none"}
        What Σ_b count_b · theta_b is divided by: the number of n-grams (module docstring), its square root, nothing.
    objective : {"mean", "worst"}
        Of several targets: come close to their mixture, or to the one that is worst off.
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
    length: str = "per_ngram"
    objective: str = "mean"
    seed: int = 0
    stream: str = "match"

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("rounds", self.rounds >= 1, "at least 1"),
            ("patience", self.patience >= 1, "at least 1"),
            ("tolerance", self.tolerance >= 0, "0 or more"),
            ("smoothing", self.smoothing > 0, "more than 0"),
            ("temperature", self.temperature >= 0, "0 or more"),
            ("length", self.length in _POWERS, f"one of {', '.join(_POWERS)}"),
            ("objective", self.objective in ("mean", "worst"), "mean or worst"),
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
        KL(target‖selected) of the two parts of the target; of several targets, of their mixture.
    gap : float
        Bounds how far the mean of the rounds before is from the optimum (module docstring); with noise,
        it does not.
    documents, tokens : int
        Selected.
    kl_targets : tuple of float
        KL(target‖selected) of the held-back part of each target.
    """

    number: int
    kl_fit: float
    kl_validation: float
    gap: float
    documents: int
    tokens: int
    kl_targets: tuple[float, ...] = ()


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


def keys(
    features: Features, theta: np.ndarray, options: MatchingOptions, stream: str | None = None
) -> np.ndarray:
    """Scores, corrected for length and with noise if there is any: what documents are ranked by.

    Shapes as in :func:`scores`; `stream` names another noise than that of the options.
    """
    key = scores(features, theta)
    if _POWERS[options.length]:
        key *= features.n_ngrams.astype(np.float64) ** _POWERS[options.length]
    if options.temperature:
        noise = gumbel_noise(features.content_hash, options.seed, stream or options.stream)
        key += options.temperature * noise
    return key


def match(
    batches: Callable[[], Iterable[Features | tuple[Features, np.ndarray]]],
    target: np.ndarray,
    validation: np.ndarray,
    raw_counts: np.ndarray,
    budget: Budget,
    options: MatchingOptions = MatchingOptions(),
    *,
    shares: np.ndarray | None = None,
    caps: Caps | None = None,
    min_tokens: int = 0,
    mapper: Callable[[Callable, Iterable], Iterable] = map,
) -> Matching:
    """Find the weights under which the best documents of a pool, up to a budget, are like the target.

    Parameters
    ----------
    batches : callable
        Returns an iterable over all of the pool's features, the same documents whenever it is called; each batch alone,
        or with its documents as an ndarray of CANDIDATE without keys, which says where they are, of what source, and
        who comes first where keys are equal. Their order and how they are cut do not matter then. Memory is
        that of a batch, of its candidates, and of about 150 bytes a document of the selection.
    target, validation : ndarray of int64, shape (buckets,) or (targets, buckets)
        Counts of the part of the target to fit on, and of the part that says when to stop (:func:`held_back`).
    raw_counts : ndarray of int64, shape (buckets,)
        N-gram totals of the pool, where the rounds start: round 0 has ``theta = p_target / p_raw``.
    budget : Budget
    options : MatchingOptions
    shares : ndarray of float64, shape (targets,), optional
        Of the selected n-grams, of several targets; any positive numbers. Default: equal.
    caps : Caps, optional
        Per source; needs candidates with the batches.
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
        A target, its held-back part or the pool has no n-grams, or the shapes differ, or no document fits.
    """
    started = time.monotonic()
    target, validation = np.atleast_2d(target), np.atleast_2d(validation)
    for name, counts in (("target", target), ("validation", validation), ("pool", raw_counts[np.newaxis])):
        if counts.shape[1] != len(raw_counts) or counts.shape[0] not in (1, len(target)):
            raise ValueError(f"{name}: {counts.shape} counts; the pool has {raw_counts.shape}")
        if not np.all(counts.sum(axis=1) > 0):
            raise ValueError(f"{name}: no n-grams")
    if validation.shape != target.shape:
        raise ValueError(f"validation: {validation.shape} counts; the targets have {target.shape}")
    fitted, held_out = (
        np.array([distribution(row, options.smoothing) for row in each]) for each in (target, validation)
    )
    share = np.ones(len(target)) if shares is None else np.asarray(shares, dtype=np.float64)
    share = share / share.sum()
    q = distribution(raw_counts, options.smoothing)
    far_fit, far = (np.array([kl_divergence(p, q) for p in each]) for each in (fitted, held_out))
    curve: list[Round] = []
    best, lowest, failures, step, converged = None, np.inf, 0, STEP, False
    for number in range(options.rounds):
        theta = share @ fitted / q
        picked, totals = _select(batches, theta, budget, caps, options, min_tokens, mapper)
        if not len(picked):
            raise ValueError(f"no document of at least {min_tokens} tokens fits into {budget}")
        selected = distribution(totals, options.smoothing)
        of_targets = np.array([kl_divergence(p, selected) for p in held_out])
        curve.append(
            Round(
                number,
                kl_divergence(share @ fitted, selected),
                kl_divergence(share @ held_out, selected),
                float(np.sum(theta * (selected - q))),
                len(picked),
                int(picked["n_tokens"].sum()),
                tuple(of_targets.tolist()),
            )
        )
        distance = curve[-1].kl_validation
        if options.objective == "worst":
            distance = float(np.max(of_targets / far))
        if distance < lowest - options.tolerance:
            failures = 0
        else:
            failures, step = failures + 1, step * SHRINK
        if distance < lowest:
            lowest, best = distance, (theta, totals, number)
        if failures == options.patience:
            converged = True
            break
        q = q + step * (selected - q)
        if options.objective == "worst":
            left = np.array([kl_divergence(p, q) for p in fitted]) / far_fit
            share = share * np.exp(RATE * (left - left.max()))
            share = share / share.sum()
    return Matching(*best, curve, converged, time.monotonic() - started)


def _numbered(
    batches: Iterable[Features | tuple[Features, np.ndarray]],
) -> Iterator[tuple[Features, np.ndarray]]:
    """Yield batches with their candidates; those that come alone are numbered in the order in which they come."""
    first = 0
    for each in batches:
        if isinstance(each, tuple):
            yield each
        else:
            candidates = np.zeros(len(each), dtype=CANDIDATE)
            candidates["content_hash"], candidates["n_tokens"] = each.content_hash, each.n_tokens
            candidates["row"] = np.arange(first, first + len(each))
            first += len(each)
            yield each, candidates


def _select(batches, theta, budget, caps, options, min_tokens, mapper) -> tuple[np.ndarray, np.ndarray]:
    """Pick by the keys under theta: the picked candidates, and their n-gram totals."""

    def keyed(batch: tuple[Features, np.ndarray]) -> np.ndarray:
        features, candidates = batch
        candidates["key"] = keys(features, theta, options)
        return candidates[candidates["n_tokens"] >= min_tokens]

    top = TopK(budget, caps)
    for each in mapper(keyed, _numbered(batches())):
        top.add(each)
    picked = top.picked()
    positions = np.sort(pack_position(picked["shard"], picked["row"]))

    def totals_of(batch: tuple[Features, np.ndarray]) -> np.ndarray:
        features, candidates = batch
        totals = np.zeros((1, len(theta)), dtype=np.int64)
        mask = np.isin(pack_position(candidates["shard"], candidates["row"]), positions)
        masked_totals(features, mask[np.newaxis], totals)
        return totals[0]

    totals = np.zeros(len(theta), dtype=np.int64)
    if len(picked):
        for each in mapper(totals_of, _numbered(batches())):
            totals += each
    return picked, totals
