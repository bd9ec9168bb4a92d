"""Distribution matching: rounds of picks from a stream whose weighted mean resembles the target.

What belongs here: the rounds, from n-gram totals of a target and passes over features, and the draw of documents from
them. What does not: improving a draw in memory (``dsir.refinement``), picking by keys (``dsir.selection``), counting
(``dsir.features``), reading and storing.

DSIR weighs a document as if it were picked alone. In real pools the weights of whole documents spread over hundreds of
nats, so the selection is the documents with the largest weights, which resemble each other and leave most of the target
uncovered. Here documents are picked as a set, so that the relative entropy

    KL(p‖q) = Σ_b p_b log(p_b / q_b),    p the target, q the selection,

becomes small. This objective is not ours: it is that of selection by relative entropy (Sethy, Georgiou, Ramabhadran &
Narayanan, IEEE TASLP 17, 2009) and of cynical selection (Axelrod, arXiv 1709.02279, 2017; ``dsir.cynical``), which
add one document after the other to a pool in memory. GIO (arXiv 2306.11670) minimizes it over embeddings; KLIEP
(Sugiyama et al., NeurIPS 2007) and Feng et al. (2022) reweight documents by it. Ours is the solver: the method of Frank
& Wolfe in batches, deterministic, over a stream in any order and cut into any shards, with a bound on what is left to
gain, and with budgets, caps, epochs and several targets.

KL is a convex function of q, and one more n-gram of bucket b changes it by -p_b / q_b. So a document of n n-grams is
worth, per n-gram of the budget,

    score = Σ_b count_b · theta_b / n,    theta_b = p_b / q_b,

the mean ratio of its n-grams (DSIR: the sum of their logarithms, with the pool as q throughout). A round picks the
documents with the largest scores, up to the budget, which minimizes the linearized KL (Frank & Wolfe 1956); then the
rounds so far are weighted so that the KL of their mean is least, the fully corrective variant (Jaggi, ICML 2013): with
s_r the distribution of round r's picks these are the weights of a mixture, found by expectation-maximization. The gap,
Σ theta (s - q), bounds how far KL(p‖q) is from the least that any selection of the budget can reach. (The budget counts
tokens or documents, not n-grams, so the bound is exact for documents of equal length.) The rounds end when the gap is
small.

q has pseudo-counts; p is discounted as its own counts tell (:func:`dsir.relative_entropy.target_distribution`).

It is q, the weighted mean of the rounds, that comes close to the target, not a single round: in a pool with a few kinds
of similar documents, a round picks only the kind that earlier rounds took too little of. So documents are drawn, with
the weight of the rounds that pick them as inclusion probability (:meth:`Matching.draw`), and q is the expectation of a
draw.

Several targets are matched as their mixture, p = Σ_t share_t · p_t: Σ_t share_t · KL(p_t‖q) differs from KL(p‖q) by a
constant. With the objective "worst" the shares move, by multiplicative weights (Freund & Schapire 1999), towards the
targets that keep the most of their KL(p_t‖pool), and closeness is the largest KL(p_t‖q) / KL(p_t‖pool).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from dsir.checks import expect_array
from dsir.evaluation import contained, distribution
from dsir.features import Features
from dsir.importance import Weigher
from dsir.noise import exponential_noise
from dsir.relative_entropy import mixed, relative_entropy, target_distribution
from dsir.selection import CANDIDATE, Budget, Caps, TopK, by_content, joined, positions_of

#: How strongly the shares of several targets move towards the one matched worst, and how often a round.
RATE, MOVES = 1.0, 10

#: Steps of expectation-maximization a round at most; it ends when one gains less than this many nats.
STEPS, GAIN = 100, 1e-6

#: Rounds of less weight than this are left out of the mean.
_LEAST_WEIGHT = 1e-3

#: Smaller scores are raised to this before the logarithm: a document without n-grams has 0.
_LEAST_SCORE = 1e-300

#: Inclusion probabilities are clipped to at least this and at most 1 minus this.
_LEAST_PROBABILITY = 1e-9


class NothingFits(ValueError):
    """The best document is longer than the budget."""


@dataclass(frozen=True)
class MatchingOptions:
    """How to match.

    Attributes
    ----------
    rounds : int
        Largest number, at least 1; a round takes two passes over the features.
    tolerance : float
        The rounds end when the gap is at most this: in nats; with objective ``worst``, as a share of KL(target‖pool).
    smoothing : float
        Pseudo-counts a bucket of the selection's distribution, greater than 0. More of them make the picks more
        diverse.
    objective : {"mean", "worst"}
        With several targets: come close to their mixture, or to the one matched worst.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    rounds: int = 20
    tolerance: float = 0.01
    smoothing: float = 0.2
    objective: str = "mean"

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("rounds", self.rounds >= 1, "at least 1"),
            ("tolerance", self.tolerance >= 0, "0 or more"),
            ("smoothing", self.smoothing > 0, "more than 0"),
            ("objective", self.objective in ("mean", "worst"), "mean or worst"),
        ):
            if not valid:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True)
class Round:
    """One round, and how close the weighted mean of the rounds was after it; divergences in nats.

    Attributes
    ----------
    number : int
        From 0; round 0 picks by the ratio of target to pool.
    kl : float
        KL(target‖mean of the rounds); for several targets, of their mixture.
    gap : float
        Bounds how far the mean of the earlier rounds, or at first the pool, is from the optimum (module docstring);
        with objective ``worst``, as a share of KL(target‖pool).
    documents, tokens : int
        Picked in this round.
    kl_targets : tuple of float
        KL(target‖mean of the rounds) of each target.
    """

    number: int
    kl: float
    gap: float
    documents: int
    tokens: int
    kl_targets: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Matching:
    """The outcome of :func:`match`.

    Attributes
    ----------
    documents : ndarray of CANDIDATE, shape (n,)
        Those that some round picked, in order of content, id and position.
    probability : ndarray of float64, shape (n,)
        The weight of the rounds that picked each, its inclusion probability: above 0, at most 1.
    weights : ndarray of float64, shape (rounds,)
        Of the rounds in their mean; they sum to 1.
    curve : list of Round
        All rounds, in order.
    converged : bool
        The gap came down to the tolerance before the limit of rounds was reached.
    target : ndarray of float64, shape (buckets,)
        What was matched: the distribution of the target, or of the mixture of the targets.
    totals : ndarray of float64, shape (buckets,)
        N-grams to expect of a draw.
    """

    documents: np.ndarray
    probability: np.ndarray
    weights: np.ndarray
    curve: list[Round]
    converged: bool
    target: np.ndarray
    totals: np.ndarray

    def draw(self, seed: int, stream: str) -> np.ndarray:
        """Return keys whose largest, up to the budget, are a draw of the documents: ndarray of float64, shape (n,).

        Pareto sampling (Rosén, J. Statist. Plann. Inference 62, 1997): the logit of the probability plus logistic
        noise, which depends on the seed, the name of the stream, and the content.
        """
        noise = exponential_noise(self.documents["content_hash"], seed, stream)
        logistic = -noise - np.log(-np.expm1(-noise))
        bounded = np.clip(self.probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        return np.log(bounded / (1 - bounded)) + logistic


def scores(features: Features | pa.RecordBatch, theta: np.ndarray) -> np.ndarray:
    """Mean of theta over the n-grams of every document; 0 for a document without any.

    Parameters
    ----------
    features : Features or pyarrow.RecordBatch
        Sparse counts of n documents; faster in the form in which they are stored.
    theta : ndarray of float64, shape (buckets,)

    Returns
    -------
    ndarray of float64, shape (n,)
        Independent of batches and threads.
    """
    weights, n_ngrams = Weigher(theta[np.newaxis])(features)
    return weights[0] / np.maximum(n_ngrams, 1)


#: Maps a function of features, as :meth:`dsir.features.Features.to_arrow` stores them, and of candidates over the
#: batches of a part of the pool; yields the results in any order. Candidates, ndarray of CANDIDATE without keys, say
#: where the documents are, of what source, and who comes first where keys are equal.
Part = Callable[[Callable[[pa.RecordBatch, np.ndarray], Any]], Iterator[Any]]

#: Makes a pass over the pool: calls a function for every part of it, in any order and on any machine, with what the
#: second argument gives just before; yields the results. The function can be pickled. How the pool is cut into parts
#: and batches does not matter.
Passes = Callable[[Callable[[Part, float], Any], Callable[[], float]], Iterator[Any]]


def over(
    batches: Callable[[], Iterable[Features | tuple[pa.RecordBatch, np.ndarray]]],
    mapper: Callable[..., Iterator[Any]] = map,
) -> Passes:
    """Return passes over batches that can be read again.

    Parameters
    ----------
    batches : callable
        Returns an iterable over all of the pool's features: each batch as it is stored, with its candidates; or alone,
        which :func:`numbered` then gets in every pass.
    mapper : callable
        Like `map`, perhaps in several threads.
    """

    def part(function: Callable[[pa.RecordBatch, np.ndarray], Any]) -> Iterator[Any]:
        return mapper(lambda batch: function(*batch), numbered(batches()))

    def passes(function: Callable[[Part, float], Any], given: Callable[[], float]) -> Iterator[Any]:
        yield function(part, given())

    return passes


def numbered(
    batches: Iterable[Features | tuple[pa.RecordBatch, np.ndarray]],
) -> Iterator[tuple[pa.RecordBatch, np.ndarray]]:
    """Yield batches as they are stored, with their candidates; those that come alone are numbered in their order."""
    first = 0
    for each in batches:
        if isinstance(each, tuple):
            yield each
            continue
        candidates = np.zeros(len(each), dtype=CANDIDATE)
        candidates["content_hash"], candidates["n_tokens"] = each.content_hash, each.n_tokens
        candidates["row"] = np.arange(first, first + len(each))
        first += len(each)
        yield each.to_arrow(), candidates


def match(
    passes: Passes,
    target: np.ndarray,
    raw_counts: np.ndarray,
    budget: Budget,
    options: MatchingOptions = MatchingOptions(),
    *,
    shares: np.ndarray | None = None,
    caps: Caps | None = None,
    before_round: Callable[[Sequence[Round]], None] | None = None,
) -> Matching:
    """Find rounds of picks from a pool, each as large as the budget, whose weighted mean resembles the target.

    Parameters
    ----------
    passes : Passes
        Over the pool's features, the same documents in every pass; :func:`over` makes one of batches that can be read
        again. Memory is that of a batch, of its candidates, of about 150 bytes a document of the selection and 60 a
        document of every round, and of 16 bytes a bucket for every round.
    target : ndarray of int64, shape (buckets,) or (targets, buckets)
        Counts of the target or the targets.
    raw_counts : ndarray of int64, shape (buckets,)
        N-gram totals of the pool, where the rounds start: round 0 has ``theta = p_target / p_raw``.
    budget : Budget
    options : MatchingOptions
    shares : ndarray of float64, shape (targets,), optional
        The targets' shares of the selected n-grams; any positive numbers. Default: equal.
    caps : Caps, optional
        Per source; needs candidates with the batches.
    before_round : callable, optional
        Called before each round with those that are done.

    Returns
    -------
    Matching

    Raises
    ------
    NothingFits
        The best document is longer than the budget.
    ValueError
        A target or the pool has no n-grams, the shapes differ, or there are no documents.
    """
    rounds = _Rounds(target, raw_counts, options, shares)
    for number in range(options.rounds):
        if before_round:
            before_round(rounds.curve)
        theta = rounds.theta()
        picked, totals = _select(passes, theta, budget, caps)
        if not len(picked):
            if number:
                break  # the next best document is longer than the budget
            raise nothing_picked(budget)
        rounds.add(theta, picked, totals)
        if rounds.converged:
            break
    return rounds.outcome()


def nothing_picked(budget: Budget) -> ValueError:
    """Return the error of a budget into which no document fits."""
    if budget.tokens is None:
        return ValueError("there are no documents to pick from")
    return NothingFits(f"the best document is longer than the budget of {budget.tokens:,} tokens; raise it")


class _Rounds:
    """The rounds so far, their mean, and how close it is to the targets.

    Attributes
    ----------
    targets : ndarray of float64, shape (targets, buckets)
        Distributions.
    share : ndarray of float64, shape (targets,)
        Of the targets in their mixture; they sum to 1.
    mean : ndarray of float64, shape (buckets,)
        The distribution of the rounds' mean; before the first, that of the pool.
    weights : ndarray of float64, shape (rounds,)
        Of the rounds in it.
    pool_kl : ndarray of float64, shape (targets,)
        KL(target‖pool).
    """

    def __init__(
        self,
        target: np.ndarray,
        raw_counts: np.ndarray,
        options: MatchingOptions,
        shares: np.ndarray | None,
    ) -> None:
        target = np.atleast_2d(target)
        _check_counts(target, raw_counts)
        self.options = options
        self.targets = np.array([target_distribution(counts) for counts in target])
        share = np.ones(len(target)) if shares is None else np.asarray(shares, dtype=np.float64)
        self.share = share / share.sum()
        self.mean = distribution(raw_counts, options.smoothing)
        self.pool_kl = self._distances()
        self.weights = np.empty(0)
        self.curve: list[Round] = []
        self.converged = False
        self._picks: list[np.ndarray] = []
        self._totals: list[np.ndarray] = []
        self._distributions: list[np.ndarray] = []

    @property
    def mixture(self) -> np.ndarray:
        """The mixture of the targets."""
        return mixed(self.targets, self.share)

    def _distances(self) -> np.ndarray:
        return np.array([relative_entropy(p, self.mean) for p in self.targets])

    def theta(self) -> np.ndarray:
        """Return what the next round ranks by."""
        return self.mixture / self.mean

    def add(self, theta: np.ndarray, picked: np.ndarray, totals: np.ndarray) -> None:
        """Take a round's picks into the mean, and measure it."""
        found = distribution(totals, self.options.smoothing)
        gap = self._gap(float(np.sum(theta * (found - self.mean))))
        self._picks.append(picked)
        self._totals.append(totals)
        self._distributions.append(found)
        n = len(self._picks)
        self.weights = np.append(self.weights * (n - 1) / n, 1 / n)
        self._fit()
        if self.options.objective == "worst":
            for _ in range(MOVES):
                self._move_shares()
                self._fit()
        self.converged = n > 1 and gap <= self.options.tolerance
        self.curve.append(
            Round(
                number=n - 1,
                kl=relative_entropy(self.mixture, self.mean),
                gap=gap,
                documents=len(picked),
                tokens=int(picked["n_tokens"].sum()),
                kl_targets=tuple(self._distances().tolist()),
            )
        )

    def _fit(self) -> None:
        """Weigh the rounds so that their mean is as close to the mixture as it can be."""
        p = self.mixture
        components = np.ascontiguousarray(np.array(self._distributions).T)
        self.weights = _mixture_weights(p, components, self.weights, STEPS, GAIN)
        each_weighted = zip(self.weights, self._distributions, strict=True)
        self.mean = sum((weight * each for weight, each in each_weighted), np.zeros(len(p)))

    def _gap(self, of_mixture: float) -> float:
        """Return what bounds the distance to the optimum of the objective, given that to the mixture's."""
        if self.options.objective == "mean":
            return of_mixture
        # By minimax duality: with the best answer to these shares, the worst target is at best their mean.
        stakes = self.share * self.pool_kl
        left = self._distances() / self.pool_kl
        return float(left.max() - np.sum(stakes * left) / stakes.sum() + of_mixture / stakes.sum())

    def _move_shares(self) -> None:
        """Give more weight to the targets that keep the most of their distance to the pool."""
        left = self._distances() / self.pool_kl
        share = self.share * np.exp(RATE * (left - left.max()))
        self.share = share / share.sum()

    def outcome(self) -> Matching:
        """Return the rounds that have a weight in the mean, as one."""
        weights = np.where(self.weights < _LEAST_WEIGHT, 0.0, self.weights)
        weights /= weights.sum()
        kept = np.flatnonzero(weights)
        picks = joined([self._picks[i] for i in kept])
        weight = np.repeat(weights[kept], [len(self._picks[i]) for i in kept])
        order = by_content(picks)
        picks, weight = picks.take(order), weight[order]
        first = np.append(True, np.diff(positions_of(picks)) != 0)
        return Matching(
            documents=picks.take(np.flatnonzero(first)),
            probability=np.add.reduceat(weight, np.flatnonzero(first)),
            weights=weights,
            curve=self.curve,
            converged=self.converged,
            target=self.mixture,
            totals=sum((weights[i] * self._totals[i] for i in kept), np.zeros(len(self.mean))),
        )


def _check_counts(target: np.ndarray, raw_counts: np.ndarray) -> None:
    """Raise the ValueError that :func:`match` documents if shapes differ or there are no n-grams."""
    expect_array("raw_counts", raw_counts, (np.integer,), "buckets")
    for name, counts in (("target", target), ("pool", raw_counts[np.newaxis])):
        if counts.shape[1] != len(raw_counts):
            raise ValueError(f"{name}: {counts.shape} counts; the pool has {raw_counts.shape}")
        if not np.all(counts.sum(axis=1) > 0):
            raise ValueError(f"{name}: no n-grams")


@njit(cache=True, nogil=True)
def _mixture_weights(p, components, weights, steps, gain):
    """Weights of components, float64[buckets, components], whose mixture has the least relative entropy to p.

    Expectation-maximization from ``weights``; in plain loops, so that the bits do not depend on a library's threads.
    """
    n = weights.size
    weights = weights.copy()
    last = -np.inf
    for _ in range(steps):
        likelihood = 0.0
        taken = np.zeros(n)
        for b in range(p.size):
            q = 0.0
            for r in range(n):
                q += weights[r] * components[b, r]
            likelihood += p[b] * np.log(q)
            for r in range(n):
                taken[r] += p[b] / q * components[b, r]
        if likelihood - last < gain:
            break
        last = likelihood
        weights *= taken
        weights /= weights.sum()
    return weights


@dataclass(frozen=True)
class _Best:
    """The best of a part of the pool under theta, of those whose keys are above a floor."""

    theta: np.ndarray
    budget: Budget
    caps: Caps | None

    def __call__(self, part: Part, floor: float) -> np.ndarray:
        top = TopK(self.budget, self.caps, floor=floor)
        for candidates in part(self._keyed):
            top.add(candidates)
        return top.candidates()

    def _keyed(self, batch: pa.RecordBatch, candidates: np.ndarray) -> np.ndarray:
        candidates["key"] = np.log(np.maximum(scores(batch, self.theta), _LEAST_SCORE))
        return candidates


@dataclass(frozen=True)
class _Totals:
    """The n-gram totals of those documents of a part that are at these positions, which are sorted."""

    positions: np.ndarray
    buckets: int

    def __call__(self, part: Part, floor: float) -> np.ndarray:
        totals = np.zeros(self.buckets, dtype=np.int64)
        for features in part(self._of_batch):
            features.add_totals(totals)
        return totals

    def _of_batch(self, batch: pa.RecordBatch, candidates: np.ndarray) -> Features:
        mask = contained(positions_of(candidates), self.positions)
        return Features.from_arrow(batch.filter(pa.array(mask)))


def _select(
    passes: Passes, theta: np.ndarray, budget: Budget, caps: Caps | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pick by the scores under theta: the picked candidates, and their n-gram totals."""
    top = TopK(budget, caps)
    for candidates in passes(_Best(theta, budget, caps), lambda: top.floor):
        top.add(candidates)
    picked = top.picked()
    totals = np.zeros(len(theta), dtype=np.int64)
    if len(picked):
        for each in passes(_Totals(np.sort(positions_of(picked)), len(theta)), lambda: top.floor):
            totals += each
    return picked, totals
