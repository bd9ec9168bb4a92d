"""Proportions of a pool's sources: the mixture whose bag of n-grams comes closest to the target's.

What belongs here: from n-gram totals of sources and of a target to a weight per source, with its uncertainty.
What does not: several targets at once (``dsir.matching``), picking documents, counting, storing.

With p the target's distribution over the buckets and q_s that of source s, the weights are ::

    argmin_w  KL(p‖m),    m = Σ_s w_s q_s,    Σ_s w_s = 1,    0 <= w_s <= cap_s

This is a convex problem with as many variables as sources: maximum likelihood of mixture proportions with known
components. It is solved by sequential quadratic programming (SciPy's SLSQP). How far the result can be from the
optimum is measured, not trusted: with the alignments ``a_s = Σ_b p_b q_sb / m_b``, the gap ::

    gap = max_v Σ_s (v_s - w_s) a_s,    v over all allowed weights

is never less than KL(p‖m) minus its minimum (Jaggi, ICML 2013, equation 2). At the optimum without caps, sources in use
have ``a_s = 1``, the others ``a_s <= 1``.

Gradient alignment
------------------
DGA (Fan, Grangier & Ablin 2024, "Dynamic Gradient Alignment for Online Data Mixing") trains a model, and at every
step multiplies a source's weight by ``exp(η <∇L_target, ∇L_s>)``. Let the model be the bag of n-grams itself: a
distribution m, the softmax of one logit a bucket, trained to convergence on the current mixture. Then ∇L_s = m - q_s,
∇L_target = m - p, and in the Fisher metric of m their inner product is ``Σ_b (m_b - p_b)(m_b - q_sb) / m_b``
``= a_s - 1``. DGA is stationary if all sources in use are equally aligned and no other is more so, which are the
conditions for the optimum above. For this model and this metric, the weights here are those DGA moves towards, without
training; they say nothing about what a larger model learns from the order of words.

Few sources
-----------
A lasso penalty does nothing here, since the weights always sum to 1 (Pilanci, El Ghaoui & Chandrasekaran, NIPS 2012).
Most weights of a large pool are 0 or small at the optimum anyway. For fewer sources there is backward elimination: drop
the source that costs least to replace by more of all others, solve again, until few enough are left. This is greedy:
another subset of the same size may be closer.

Uncertainty
-----------
The n-grams of a document are not independent, so the bootstrap draws the target's *documents*, in groups: the target
comes as the totals of parts, random shares of its documents (:func:`part_of`), and as many parts as there are get drawn
with replacement. The intervals are for another target sample of the same size. They do not cover variation of the
sources' totals, nor the choice of sources by elimination; and a weight at a bound has a one-sided interval at best,
since the bootstrap is not consistent there (Andrews 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dsir.evaluation import distribution, kl_divergence

#: Largest gap of a converged result, in nats.
TOLERANCE = 1e-5

#: Parts that a target is divided into, for the uncertainty of the weights.
PARTS = 200

#: Of the solver, which takes some tens.
MAX_ITERATIONS = 1000

#: By how much caps may sum to less than 1, due to rounding.
SLACK = 1e-9


@dataclass(frozen=True)
class MixtureOptions:
    """How to mix.

    Attributes
    ----------
    smoothing : float
        Pseudo-counts a bucket of the target and of every source, greater than 0.
    max_sources : int or None
        Largest number of sources with a weight above 0 (module docstring).
    replicates : int
        Of the bootstrap, 0 for none.
    confidence : float
        Of the intervals, between 0 and 1.
    seed : int
        Of the bootstrap, 0 or more.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    smoothing: float = 1.0
    max_sources: int | None = None
    replicates: int = 200
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        for name, valid, expected in (
            ("smoothing", self.smoothing > 0, "more than 0"),
            ("max_sources", self.max_sources is None or self.max_sources >= 1, "at least 1, or none"),
            ("replicates", self.replicates == 0 or self.replicates >= 2, "0, or at least 2"),
            ("confidence", 0 < self.confidence < 1, "more than 0 and less than 1"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not valid:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected {expected}")


@dataclass(frozen=True, eq=False)
class SourceMixture:
    """The outcome of :func:`fit_mixture`; shares are of n-grams, divergences in nats.

    Attributes
    ----------
    weights : ndarray of float64, shape (sources,)
        Sum to 1.
    standard_error, lower, upper : ndarray of float64, shape (sources,)
        Of the weights: standard deviation and percentile interval of the bootstrap; NaN without one.
    alignment : ndarray of float64, shape (sources,)
        ``a_s`` (module docstring): above 1, more of the source would bring the mixture closer.
    pool_shares : ndarray of float64, shape (sources,)
        The sources' shares of the pool.
    kl : float
        KL(p‖m) under the weights.
    kl_pool : float
        The same under `pool_shares`, which may exceed the caps.
    gap : float
        Upper bound on the distance of `kl` from the minimum with the sources kept.
    converged : bool
        Whether the gap is at most :data:`TOLERANCE`.
    """

    weights: np.ndarray
    standard_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    alignment: np.ndarray
    pool_shares: np.ndarray
    kl: float
    kl_pool: float
    gap: float
    converged: bool


def part_of(content_hash: np.ndarray, parts: int = PARTS) -> np.ndarray:
    """Assign documents of the target to parts, equal texts together.

    Parameters
    ----------
    content_hash : ndarray of uint64, shape (n,)
    parts : int
        Number of parts; with fewer than 50 the intervals are rough.

    Returns
    -------
    ndarray of int64, shape (n,)
        0 to ``parts - 1``.
    """
    return (content_hash % np.uint64(parts)).astype(np.int64)


def fit_mixture(
    sources: np.ndarray,
    target_parts: np.ndarray,
    options: MixtureOptions = MixtureOptions(),
    *,
    caps: np.ndarray | None = None,
) -> SourceMixture:
    """Find the proportions of sources whose mixture is closest to the target.

    Parameters
    ----------
    sources : ndarray of int64, shape (sources, buckets)
        N-gram totals of the pool's sources. A source without n-grams has the uniform distribution.
    target_parts : ndarray of int64, shape (parts, buckets)
        N-gram totals of the target's parts (:func:`part_of`); without a bootstrap, one part is enough.
    options : MixtureOptions
    caps : ndarray of float64, shape (sources,), optional
        Largest weights, 0 or more; for example a source's size, times the epochs it may be seen, over the budget.
        Default: no caps.

    Returns
    -------
    SourceMixture

    Raises
    ------
    ValueError
        The shapes differ, the target or the pool has no n-grams, a bootstrap has a single part to draw from, or
        the caps (of `max_sources` sources) sum to less than 1.

    Notes
    -----
    Takes the time of ``1 + replicates`` solutions, each cubic in the number of sources: milliseconds for tens, seconds
    for hundreds; and the memory of the arguments as float64. Equal inputs give the same bits on one machine.
    """
    from scipy.optimize import minimize  # before the limit, which applies to the libraries already loaded
    from threadpoolctl import threadpool_limits

    caps = _checked_caps(sources, target_parts, options, caps)
    # One thread: a sum split among threads depends on their number in its last bits.
    with threadpool_limits(limits=1):
        p = distribution(target_parts.sum(axis=0), options.smoothing)
        q = np.array([distribution(each, options.smoothing) for each in sources])
        kept, weights = _least_kl(minimize, p, q, caps, options.max_sources)
        mixed = weights @ q
        alignment = q @ (p / mixed)
        best = _best(alignment[kept], caps[kept])
        gap = max(0.0, float(best @ alignment[kept] - weights @ alignment))
        replicates = _replicates(minimize, target_parts, q, caps, kept, weights, options)
        standard_error, lower, upper = _spread(replicates, options.confidence)
        pool_shares = sources.sum(axis=1) / sources.sum()
        return SourceMixture(
            weights=weights,
            standard_error=standard_error,
            lower=lower,
            upper=upper,
            alignment=alignment,
            pool_shares=pool_shares,
            kl=kl_divergence(p, mixed),
            kl_pool=kl_divergence(p, pool_shares @ q),
            gap=gap,
            converged=gap <= TOLERANCE,
        )


def _least_kl(minimize, p, q, caps, max_sources) -> tuple[np.ndarray, np.ndarray]:
    """Solve, and drop one source after the other until at most ``max_sources`` have a weight.

    Returns
    -------
    kept : ndarray of int64
        Indices of the sources in the last solution.
    weights : ndarray of float64, shape (sources,)
    """
    kept = np.flatnonzero(caps)
    weights = np.zeros(len(q))
    weights[kept] = _solve(minimize, p, q[kept], caps[kept], caps[kept] / caps.sum())
    while max_sources is not None and np.count_nonzero(weights) > max_sources:
        kept = kept[_without_one(p, q[kept], weights[kept], caps[kept], max_sources)]
        start = _within(weights[kept], caps[kept])
        weights = np.zeros(len(q))
        weights[kept] = _solve(minimize, p, q[kept], caps[kept], start)
    return kept, weights


def _replicates(minimize, target_parts, q, caps, kept, weights, options) -> np.ndarray:
    """Solve for bootstrapped parts of the target; return weights, ndarray of float64, shape (replicates, sources)."""
    drawn = np.full((options.replicates, len(q)), 0.0)
    chance = np.random.default_rng(options.seed)
    parts = len(target_parts)
    for replicate in range(options.replicates):
        times = chance.multinomial(parts, np.full(parts, 1 / parts))
        p = distribution(times @ target_parts, options.smoothing)
        drawn[replicate, kept] = _solve(minimize, p, q[kept], caps[kept], weights[kept])
    return drawn


def _spread(replicates: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return standard errors, lower and upper ends of the intervals; NaN without replicates."""
    if not len(replicates):
        none = np.full(replicates.shape[1], np.nan)
        return none, none, none
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(replicates, [tail, 1 - tail], axis=0)
    return replicates.std(axis=0, ddof=1), lower, upper


def _checked_caps(sources, target_parts, options, caps) -> np.ndarray:
    """Return the caps, clipped to 1, or raise the ValueError that :func:`fit_mixture` documents."""
    if sources.ndim != 2 or target_parts.ndim != 2 or sources.shape[1] != target_parts.shape[1]:
        raise ValueError(
            f"sources: {sources.shape}, target: {target_parts.shape}; expected (sources, buckets) and "
            "(parts, buckets) with as many buckets"
        )
    for name, counts in (("pool", sources), ("target", target_parts)):
        if not counts.sum() > 0:
            raise ValueError(f"{name}: no n-grams")
    if options.replicates and len(target_parts) < 2:
        raise ValueError(f"target: {len(target_parts)} part; a bootstrap draws from at least 2")
    caps = np.ones(len(sources)) if caps is None else np.minimum(np.asarray(caps, dtype=np.float64), 1.0)
    if caps.shape != (len(sources),) or not np.all(caps >= 0):
        raise ValueError(f"caps: {caps}; expected {len(sources)} numbers from 0 on")
    largest = np.sort(caps)[::-1][: options.max_sources].sum()
    if largest < 1 - SLACK:
        which = f"of the {options.max_sources} largest" if options.max_sources else "of all sources"
        raise ValueError(f"caps: those {which} sum to {largest:.6g}; expected 1 or more")
    return caps


def _solve(minimize, p, q, caps, start) -> np.ndarray:
    """Return the weights that minimize KL(p‖w q), starting from weights within the caps."""
    ones = np.ones(len(q))

    def cross_entropy(w):
        mixed = np.maximum(w, 0.0) @ q
        return -(p @ np.log(mixed)), -(q @ (p / mixed))

    found = minimize(
        cross_entropy,
        start,
        jac=True,
        method="SLSQP",
        bounds=np.column_stack([np.zeros(len(q)), caps]),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": lambda w: ones},
        options={"maxiter": MAX_ITERATIONS, "ftol": 1e-14},
    )
    weights = np.where(found.x < 1e-9, 0.0, found.x)
    return _within(weights, caps)


def _within(weights, caps) -> np.ndarray:
    """Scale weights to a sum of 1, in proportion as far as the caps allow."""
    weights, full = weights.copy(), np.zeros(len(weights), dtype=bool)
    while True:
        left = 1.0 - caps[full].sum()
        rest = weights[~full].sum()
        if not rest > 0:  # all sources with a weight are at their caps: the others share what is left
            weights[~full] = caps[~full]
            rest = weights[~full].sum()
        if not rest > 0:
            return np.where(full, caps, 0.0)
        scaled = np.where(full, caps, weights * (left / rest))
        over = ~full & (scaled > caps)
        if not over.any():
            return scaled
        full |= over


def _best(alignment, caps) -> np.ndarray:
    """Return the allowed weights with the largest mean alignment: the most aligned sources, up to their caps."""
    order = np.argsort(-alignment, kind="stable")
    filled = np.minimum(np.cumsum(caps[order]), 1.0)
    out = np.empty(len(caps))
    out[order] = np.diff(filled, prepend=0.0)
    return out


def _without_one(p, q, weights, caps, wanted) -> np.ndarray:
    """Return the indices without the source that costs least to replace, and without those of weight 0.

    Some of weight 0 stay if the caps of the others sum to less than 1.
    """

    def enough(which):
        return np.sort(caps[which])[::-1][:wanted].sum() >= 1 - SLACK

    used = np.flatnonzero(weights)
    kept = used if enough(used) else np.arange(len(weights))
    mixed = weights @ q
    cost = np.full(len(kept), np.inf)
    for at, source in enumerate(kept):
        rest = np.delete(kept, at)
        if enough(rest):
            others = weights[rest] @ q[rest] if weights[source] > 0.5 else mixed - weights[source] * q[source]
            cost[at] = -(p @ np.log(others / (1.0 - weights[source])))
    return np.delete(kept, np.argmin(cost))
