"""Distribution matching: rounds of picks whose mean resembles the target, and a draw of documents from them.

What belongs here: the rounds, from n-gram totals of a target and a stream of features, and the keys by which
documents are drawn from them. What does not: picking by keys (``dsir.selection``), counting (``dsir.features``),
reading and storing.

DSIR weighs a document as if it were picked alone. In real pools the weights of whole documents spread over hundreds of
nats, so the selection is the documents with the largest weights, which resemble each other and leave most of the target
uncovered. Here picks are measured and complemented by others, so that

    KL(p‖q) = Σ p_b log(p_b / q_b),    p the target, q the mean of the rounds' n-grams

becomes small. That is a convex function of q, and one more n-gram of bucket b changes it by -p_b / q_b. So a document
of n n-grams is worth, per n-gram of the budget,

    score = Σ_b count_b · theta_b / n,    theta_b = p_b / q_b,

the mean ratio of its n-grams (DSIR: the sum of their logarithms, with the pool as q throughout). The documents with the
largest scores, up to the budget, minimize the linearized KL, and q moves towards their distribution as far as the KL
falls: the method of Frank & Wolfe (1956) with line search, analysed by Jaggi (ICML 2013). Its gap, Σ theta (s - q) with
s the distribution of the picks, bounds how far KL(p‖q) is from the least that any selection of the budget can reach.
(The budget counts tokens or documents, not n-grams, so the bound is exact for documents of equal length. Under a budget
of documents the score is still the mean, so that it does not favor long ones.)

It is q, the weighted mean of the rounds, that comes close to the target, not a single round: in a pool with a few kinds
of similar documents, a round picks only the kind that earlier rounds took too little of. So documents are drawn, with
the weight of the rounds that pick them as inclusion probability (:func:`draw_keys`), and q is the expectation of a
draw. A round is described by its theta and its smallest picked key, so that these probabilities are a function of the
document. Rounds are added until q comes no closer to the validation part of the target, which is not fitted on.

Several targets are matched as their mixture, p = Σ_t share_t · p_t: Σ_t share_t · KL(p_t‖q) differs from KL(p‖q) by a
constant. With the objective "worst" the shares move, by multiplicative weights (Freund & Schapire 1999), towards the
targets that keep the most of their KL(p_t‖pool), and closeness is the largest KL(p_t‖q) / KL(p_t‖pool).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsir.checks import expect_array
from dsir.evaluation import contained, distribution, kl_divergence, masked_totals
from dsir.features import Features
from dsir.importance import correct_for_length, log_weights
from dsir.noise import exponential_noise, gumbel_noise
from dsir.selection import CANDIDATE, Budget, Caps, TopK, positions_of

#: How strongly a round moves the shares of several targets towards the one matched worst.
RATE = 1.0

#: The power of its number of n-grams that a document's mean theta is multiplied by.
_POWERS = {"per_ngram": 0.0, "sqrt": 0.5, "none": 1.0, "poisson": 0.0}

#: Smaller scores are raised to this before the logarithm: a document without n-grams has 0.
_LEAST_SCORE = 1e-300

#: Inclusion probabilities are clipped to at least this and at most 1 minus this.
_LEAST_PROBABILITY = 1e-9

#: Ranks what no round picks after everything that one does, whose keys are above -60.
_NOT_PICKED = -100.0

#: Splits a target by content hash, independently of noise and of samples that are ranges of the hash.
_MIX = np.uint64(0x9E3779B97F4A7C15)


class NothingFits(ValueError):
    """The best document is longer than the budget."""


@dataclass(frozen=True)
class MatchingOptions:
    """How to match.

    Attributes
    ----------
    rounds : int
        Largest number, at least 1; a round takes two passes over the features.
    patience : int
        Stop after this many rounds in a row without the mean coming closer to the validation part.
    tolerance : float
        By how much it must come closer than ever before: in nats; with objective ``worst``, as a share of
        KL(target‖pool).
    smoothing : float
        Pseudo-counts a bucket of every distribution, greater than 0. More of them make the picks more diverse and
        closer in KL, and language models of a narrow target worse (measured with 40,000 to 100,000 buckets).
    temperature : float
        Factor of Gumbel(0, 1) noise added to the logarithm of the score; 0 for none. The noise is part of the rounds,
        so that the noisy picks are matched.
    length : {"per_ngram", "sqrt", "none", "poisson"}
        What Σ_b count_b · theta_b is divided by: the number of n-grams (module docstring), its square root, nothing;
        or the mean with the term of :func:`dsir.importance.correct_for_length` added to its logarithm.
    mean_tokens : (float, float), optional
        Mean tokens a document of the target and of the pool, for ``poisson``.
    objective : {"mean", "worst"}
        With several targets: come close to their mixture, or to the one matched worst.
    seed : int
        Of the noise of the draw and of the rounds.
    stream : str
        Name of the noise, as in :func:`dsir.noise.gumbel_noise`.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    rounds: int = 40
    patience: int = 8
    tolerance: float = 1e-3
    smoothing: float = 0.2
    temperature: float = 0.0
    length: str = "per_ngram"
    mean_tokens: tuple[float, float] | None = None
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
            (
                "mean_tokens",
                (self.mean_tokens is None) == (self.length != "poisson"),
                "a pair with length poisson",
            ),
            ("objective", self.objective in ("mean", "worst"), "mean or worst"),
        ):
            if not valid:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True)
class Round:
    """One round, and how close the mean of the rounds was after it; divergences in nats.

    Attributes
    ----------
    number : int
        From 0; round 0 picks by the ratio of target to pool.
    kl_fit, kl_validation : float
        KL(target‖mean of the rounds) for the two parts of the target; for several targets, of their mixture.
    gap : float
        Bounds how far the mean of the earlier rounds is from the optimum (module docstring), unless there is noise or
        the length is not per_ngram.
    step : float
        How far the mean moved towards this round's picks; 1 is all the way.
    documents, tokens : int
        Picked in this round.
    kl_targets : tuple of float
        KL(target‖mean of the rounds) for the targets' validation parts.
    """

    number: int
    kl_fit: float
    kl_validation: float
    gap: float
    step: float
    documents: int
    tokens: int
    kl_targets: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Threshold:
    """The smallest key that a round picked.

    Attributes
    ----------
    key : float
    sources : ndarray of uint64, shape (n,)
        The sources it picked from, ascending; empty without caps.
    keys : ndarray of float64, shape (n,)
        The smallest key picked from each source.
    """

    key: float
    sources: np.ndarray
    keys: np.ndarray

    @classmethod
    def under(cls, picked: np.ndarray, caps: Caps | None) -> Threshold:
        """Return the threshold of picks: ndarray of CANDIDATE, at least one."""
        sources = np.unique(picked["source_hash"]) if caps else np.empty(0, np.uint64)
        keys = np.full(len(sources), np.inf)
        if caps:
            np.minimum.at(keys, np.searchsorted(sources, picked["source_hash"]), picked["key"])
        return cls(float(picked["key"].min()), sources, keys)

    def of(self, source_hash: np.ndarray | None) -> np.ndarray | float:
        """Return the key that documents of these sources need: ndarray of float64, or one number for all."""
        if not len(self.sources):
            return self.key
        if source_hash is None:
            raise ValueError("source_hash: None; expected the documents' sources, since the rounds had caps")
        at = np.minimum(np.searchsorted(self.sources, source_hash), len(self.sources) - 1)
        return np.where(self.sources[at] == source_hash, self.keys[at], self.key)


@dataclass(frozen=True, eq=False)
class Matching:
    """The outcome of :func:`match`.

    Attributes
    ----------
    theta : list of ndarray of float64, shape (buckets,)
        What the rounds up to the best ranked by, for :func:`round_keys`.
    thresholds : list of Threshold
        The smallest keys that these rounds picked.
    weights : ndarray of float64, shape (rounds,)
        Of these rounds in their mean; they sum to 1.
    best : int
        The round after which the mean was closest to the validation part.
    curve : list of Round
        All rounds, in order.
    converged : bool
        The rounds stopped because they no longer improved, not because the limit was reached.
    """

    theta: list[np.ndarray]
    thresholds: list[Threshold]
    weights: np.ndarray
    best: int
    curve: list[Round]
    converged: bool


def in_validation(content_hash: np.ndarray) -> np.ndarray:
    """Tell which documents of a target are for validation: about a fifth, equal texts together.

    Parameters
    ----------
    content_hash : ndarray of uint64, shape (n,)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    return (content_hash * _MIX) >> np.uint64(32) < np.uint64(2**32 // 5)


def scores(features: Features, theta: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of theta over the n-grams of every document; 0 for a document without any.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    theta : sequence of ndarray of float64, shape (buckets,)
        One a round.

    Returns
    -------
    ndarray of float64, shape (rounds, n)
        Independent of batches, threads and the other rounds.
    """
    sums = np.array([log_weights(features, each[np.newaxis])[0] for each in theta])
    return sums / np.maximum(features.n_ngrams, 1)


def round_keys(features: Features, theta: Sequence[np.ndarray], options: MatchingOptions) -> np.ndarray:
    """What a round ranks by: the logarithm of the score, corrected for length, plus any noise.

    Shapes as in :func:`scores`.
    """
    key = np.log(np.maximum(scores(features, theta), _LEAST_SCORE))
    if options.length == "poisson":
        key = correct_for_length(key, "poisson", features.n_ngrams, features.n_tokens, options.mean_tokens)
    elif _POWERS[options.length]:
        key += _POWERS[options.length] * np.log(np.maximum(features.n_ngrams, 1))
    if options.temperature:
        noise = gumbel_noise(features.content_hash, options.seed, f"{options.stream}/rounds")
        key += options.temperature * noise
    return key


def inclusion(
    features: Features,
    matching: Matching,
    options: MatchingOptions,
    source_hash: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which share of the mean of the rounds picks each document.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    matching : Matching
    options : MatchingOptions
        Those of the matching.
    source_hash : ndarray of uint64, shape (n,), optional
        The documents' sources; needed with caps.

    Returns
    -------
    probability : ndarray of float64, shape (n,)
        The weight of the rounds that pick it, between 0 and 1.
    margin : ndarray of float64, shape (n,)
        The most by which its key is above a round's smallest; negative if no round picks it.
    """
    margins = round_keys(features, matching.theta, options)
    margins -= np.array([np.broadcast_to(t.of(source_hash), len(features)) for t in matching.thresholds])
    probability = np.zeros(len(features))
    for weight, margin in zip(matching.weights, margins, strict=True):
        probability += weight * (margin >= 0)
    return probability, margins.max(axis=0)


def draw_keys(
    features: Features,
    matching: Matching,
    options: MatchingOptions,
    source_hash: np.ndarray | None = None,
    stream: str | None = None,
) -> np.ndarray:
    """Draw documents by inclusion probability: return keys, whose largest up to the budget are picked.

    Pareto sampling (Rosén, J. Statist. Plann. Inference 62, 1997): the logit of the probability plus logistic noise.
    Documents that no round picks, needed if others may not be picked, come last, those closest to a round's picks
    first.

    Parameters
    ----------
    features, matching, options, source_hash
        As in :func:`inclusion`.
    stream : str, optional
        Names another noise than the options do, for another draw.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    probability, margin = inclusion(features, matching, options, source_hash)
    noise = exponential_noise(features.content_hash, options.seed, stream or options.stream)
    logistic = -noise - np.log(-np.expm1(-noise))
    bounded = np.clip(probability, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    return np.where(margin >= 0, np.log(bounded / (1 - bounded)) + logistic, _NOT_PICKED + margin)


def ratio(
    target: np.ndarray, raw_counts: np.ndarray, smoothing: float, shares: np.ndarray | None = None
) -> np.ndarray:
    """Theta of round 0: the ratio of the target, or of the mixture of the targets, to the pool.

    Parameters are those of :func:`match`.

    Returns
    -------
    ndarray of float64, shape (buckets,)
    """
    fitted = _distributions(np.atleast_2d(target), smoothing)
    return _mixed(_normalized(shares, len(fitted)), fitted) / distribution(raw_counts, smoothing)


def _distributions(counts: np.ndarray, smoothing: float) -> np.ndarray:
    return np.array([distribution(row, smoothing) for row in counts])


def _normalized(shares: np.ndarray | None, n: int) -> np.ndarray:
    share = np.ones(n) if shares is None else np.asarray(shares, dtype=np.float64)
    return share / share.sum()


def _mixed(share: np.ndarray, distributions: np.ndarray) -> np.ndarray:
    """Return the mixture, added row by row so that its bits do not depend on a library's threads."""
    return np.sum(share[:, np.newaxis] * distributions, axis=0)


#: Maps a function of features and candidates over the batches of a part of the pool; yields the results in any order.
#: Candidates, ndarray of CANDIDATE without keys, say where the documents are, of what source, and who comes first where
#: keys are equal.
Part = Callable[[Callable[[Features, np.ndarray], Any]], Iterator[Any]]

#: Makes a pass over the pool: calls a function for every part of it, in any order and on any machine, with what the
#: second argument gives just before; yields the results. The function can be pickled. How the pool is cut into parts
#: and batches does not matter.
Passes = Callable[[Callable[[Part, float], Any], Callable[[], float]], Iterator[Any]]


def over(
    batches: Callable[[], Iterable[Features | tuple[Features, np.ndarray]]],
    mapper: Callable[..., Iterator[Any]] = map,
) -> Passes:
    """Return passes over batches that can be read again.

    Parameters
    ----------
    batches : callable
        Returns an iterable over all of the pool's features, each batch alone or with its candidates; those that come
        alone are numbered in the order in which they come.
    mapper : callable
        Like `map`, perhaps in several threads.
    """

    def numbered() -> Iterator[tuple[Features, np.ndarray]]:
        first = 0
        for each in batches():
            if isinstance(each, tuple):
                yield each
                continue
            candidates = np.zeros(len(each), dtype=CANDIDATE)
            candidates["content_hash"], candidates["n_tokens"] = each.content_hash, each.n_tokens
            candidates["row"] = np.arange(first, first + len(each))
            first += len(each)
            yield each, candidates

    def part(function: Callable[[Features, np.ndarray], Any]) -> Iterator[Any]:
        return mapper(lambda batch: function(*batch), numbered())

    def passes(function: Callable[[Part, float], Any], given: Callable[[], float]) -> Iterator[Any]:
        yield function(part, given())

    return passes


def match(
    passes: Passes,
    target: np.ndarray,
    validation: np.ndarray,
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
        again. Memory is that of a batch, of its candidates, of about 150 bytes a document of the selection, and of 8
        bytes a bucket for every round.
    target, validation : ndarray of int64, shape (buckets,) or (targets, buckets)
        Counts of the part of the target to fit on, and of the part that says when to stop (:func:`in_validation`).
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
        A target, its validation part or the pool has no n-grams, the shapes differ, or there are no documents.
    """
    rounds = _Rounds(target, validation, raw_counts, options, shares)
    for number in range(options.rounds):
        if before_round:
            before_round(rounds.curve)
        theta = rounds.theta()
        picked, totals = _select(passes, theta, budget, caps, options)
        if not len(picked):
            if number:
                break  # the next best document is longer than the budget
            raise _nothing_picked(budget)
        rounds.add(theta, Threshold.under(picked, caps), picked, totals)
        if rounds.converged:
            break
    return rounds.outcome()


def _nothing_picked(budget: Budget) -> ValueError:
    if budget.tokens is None:
        return ValueError("there are no documents to pick from")
    return NothingFits(f"the best document is longer than the budget of {budget.tokens:,} tokens; raise it")


class _Rounds:
    """The rounds so far, their mean, and how close it is to the targets.

    Attributes
    ----------
    fitted, validation : ndarray of float64, shape (targets, buckets)
        The distributions of the two parts of each target.
    share : ndarray of float64, shape (targets,)
        Of the targets in their mixture; they sum to 1.
    mean : ndarray of float64, shape (buckets,)
        The distribution of the rounds' mean; before the first, that of the pool.
    pool_kl_fit, pool_kl_validation : ndarray of float64, shape (targets,)
        KL(target‖pool) of the two parts of each target.
    best, least, failures : int, float, int
        The round after which the mean was closest to the validation part, its distance then, and the number of rounds
        since without coming closer.
    """

    def __init__(
        self,
        target: np.ndarray,
        validation: np.ndarray,
        raw_counts: np.ndarray,
        options: MatchingOptions,
        shares: np.ndarray | None,
    ) -> None:
        target, validation = np.atleast_2d(target), np.atleast_2d(validation)
        _check_counts(target, validation, raw_counts)
        self.options = options
        self.fitted = _distributions(target, options.smoothing)
        self.validation = _distributions(validation, options.smoothing)
        self.share = _normalized(shares, len(target))
        self.mean = distribution(raw_counts, options.smoothing)
        self.pool_kl_fit = self._distances(self.fitted)
        self.pool_kl_validation = self._distances(self.validation)
        self.thetas: list[np.ndarray] = []
        self.thresholds: list[Threshold] = []
        self.curve: list[Round] = []
        self.best, self.least, self.failures = 0, np.inf, 0

    @property
    def converged(self) -> bool:
        return self.failures == self.options.patience

    def _distances(self, distributions: np.ndarray) -> np.ndarray:
        return np.array([kl_divergence(p, self.mean) for p in distributions])

    def theta(self) -> np.ndarray:
        """Return what the next round ranks by."""
        return _mixed(self.share, self.fitted) / self.mean

    def add(self, theta: np.ndarray, threshold: Threshold, picked: np.ndarray, totals: np.ndarray) -> None:
        """Move the mean towards what a round picked, and measure it."""
        p = _mixed(self.share, self.fitted)
        towards = distribution(totals, self.options.smoothing) - self.mean
        gap = float(np.sum(theta * towards))
        # The pool itself is not part of the mean, so the first step goes all the way.
        step = _line_search(p, self.mean, towards) if self.curve else 1.0
        self.mean = self.mean + step * towards
        kl_targets = self._distances(self.validation)
        self.thetas.append(theta)
        self.thresholds.append(threshold)
        self.curve.append(
            Round(
                number=len(self.curve),
                kl_fit=kl_divergence(p, self.mean),
                kl_validation=kl_divergence(_mixed(self.share, self.validation), self.mean),
                gap=gap,
                step=step,
                documents=len(picked),
                tokens=int(picked["n_tokens"].sum()),
                kl_targets=tuple(kl_targets.tolist()),
            )
        )
        if self.options.objective == "worst":
            self._judge(float(np.max(kl_targets / self.pool_kl_validation)))
            self._move_shares()
        else:
            self._judge(self.curve[-1].kl_validation)

    def _judge(self, distance: float) -> None:
        """Remember the latest round if it is the closest, and how long none has come closer."""
        self.failures = 0 if distance < self.least - self.options.tolerance else self.failures + 1
        if distance < self.least:
            self.least, self.best = distance, len(self.curve) - 1

    def _move_shares(self) -> None:
        """Give more weight to the targets that keep the most of their distance to the pool."""
        left = self._distances(self.fitted) / self.pool_kl_fit
        share = self.share * np.exp(RATE * (left - left.max()))
        self.share = share / share.sum()

    def outcome(self) -> Matching:
        """Return the rounds up to the best, with their weights in the mean."""
        weights = np.empty(self.best + 1)
        left = 1.0
        for number in range(self.best, -1, -1):
            weights[number] = left * self.curve[number].step
            left *= 1 - self.curve[number].step
        kept = slice(self.best + 1)
        return Matching(
            self.thetas[kept], self.thresholds[kept], weights, self.best, self.curve, self.converged
        )


def _check_counts(target: np.ndarray, validation: np.ndarray, raw_counts: np.ndarray) -> None:
    """Raise the ValueError that :func:`match` documents if shapes differ or there are no n-grams."""
    expect_array("raw_counts", raw_counts, (np.integer,), "buckets")
    for name, counts in (("target", target), ("validation", validation), ("pool", raw_counts[np.newaxis])):
        if counts.shape[1] != len(raw_counts):
            raise ValueError(f"{name}: {counts.shape} counts; the pool has {raw_counts.shape}")
        if not np.all(counts.sum(axis=1) > 0):
            raise ValueError(f"{name}: no n-grams")
    if validation.shape != target.shape:
        raise ValueError(f"validation: {validation.shape} counts; the targets have {target.shape}")


def _line_search(p: np.ndarray, q: np.ndarray, towards: np.ndarray) -> float:
    """Return the step, between 0 and 1, at which KL(p‖q + step · towards) is least."""
    low, high = 0.0, 1.0
    for _ in range(30):
        step = (low + high) / 2
        if np.sum(p * towards / (q + step * towards)) > 0:
            low = step
        else:
            high = step
    return low


@dataclass(frozen=True)
class _Best:
    """The best of a part of the pool under theta, of those whose keys are above a floor."""

    theta: np.ndarray
    budget: Budget
    caps: Caps | None
    options: MatchingOptions

    def __call__(self, part: Part, floor: float) -> np.ndarray:
        top = TopK(self.budget, self.caps, floor=floor)
        for candidates in part(self._keyed):
            top.add(candidates)
        return top.candidates()

    def _keyed(self, features: Features, candidates: np.ndarray) -> np.ndarray:
        candidates["key"] = round_keys(features, [self.theta], self.options)[0]
        return candidates


@dataclass(frozen=True)
class _Totals:
    """The n-gram totals of those documents of a part that are at these positions, which are sorted."""

    positions: np.ndarray
    buckets: int

    def __call__(self, part: Part, floor: float) -> np.ndarray:
        return sum(part(self._of_batch), np.zeros(self.buckets, dtype=np.int64))

    def _of_batch(self, features: Features, candidates: np.ndarray) -> np.ndarray | int:
        mask = contained(positions_of(candidates), self.positions)
        if not mask.any():
            return 0
        totals = np.zeros((1, self.buckets), dtype=np.int64)
        masked_totals(features, mask[np.newaxis], totals)
        return totals[0]


def _select(
    passes: Passes, theta: np.ndarray, budget: Budget, caps: Caps | None, options: MatchingOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Pick by the keys under theta: the picked candidates, and their n-gram totals."""
    top = TopK(budget, caps)
    for candidates in passes(_Best(theta, budget, caps, options), lambda: top.floor):
        top.add(candidates)
    picked = top.picked()
    totals = np.zeros(len(theta), dtype=np.int64)
    if len(picked):
        for each in passes(_Totals(np.sort(positions_of(picked)), len(theta)), lambda: top.floor):
            totals += each
    return picked, totals
