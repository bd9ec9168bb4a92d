"""Cynical selection: the greedy choice against one written out, and on a mixture whose answer is known."""

import numpy as np
import pytest

from dsir.cynical import cynical
from dsir.evaluation import distribution
from dsir.matching import MatchingOptions, NothingFits, match, over
from dsir.refinement import hold, refine
from dsir.relative_entropy import relative_entropy, target_distribution, values
from dsir.selection import Budget
from tests.dsir.test_matching import BUCKETS, documents, domains, features

SMOOTHING = 0.2


def greedily(dense: np.ndarray, p: np.ndarray, n: int) -> list[int]:
    """The same without laziness: look at every document in every step."""
    totals, chosen = np.full(BUCKETS, SMOOTHING), []
    for _ in range(n):
        worth = np.log1p(dense / totals) @ p / dense.sum(axis=1)
        worth[chosen] = -np.inf
        chosen.append(int(worth.argmax()))
        totals += dense[chosen[-1]]
    return chosen


def test_every_step_adds_the_document_of_the_largest_worth():
    for seed in range(20):
        chance = np.random.default_rng(seed)
        dense = documents(chance, chance.integers(0, 3, 200))
        p = chance.dirichlet([1, 1, 1]) @ domains()
        assert cynical(features(dense), p, Budget(documents=50)).tolist() == greedily(dense, p, 50)


def test_worth_is_the_change_of_the_relative_entropy_less_what_the_size_costs():
    chance = np.random.default_rng(0)
    dense = documents(chance, chance.integers(0, 3, 30))
    pool, p = features(dense), domains()[0]
    members = np.arange(30) < 10
    totals = dense[members].sum(axis=0) + SMOOTHING
    worth = values(members, pool.offsets, pool.buckets, pool.counts, pool.n_ngrams, p, totals)
    before = relative_entropy(p, totals / totals.sum())
    for document in (3, 20):
        sign = -1 if members[document] else 1
        after = totals + sign * dense[document]
        change = before - relative_entropy(p, after / after.sum()) + np.log(after.sum() / totals.sum())
        assert worth[document] * dense[document].sum() == pytest.approx(sign * change)


def test_a_known_mixture_is_recovered_and_match_ties_it():
    chance = np.random.default_rng(1)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    counts = chance.multinomial(20_000, 0.7 * domains()[0] + 0.3 * domains()[1])
    p, budget = target_distribution(counts), Budget(tokens=20_000)
    chosen = cynical(pool, p, budget)
    tokens = np.bincount(which[chosen], pool.n_tokens[chosen], minlength=3)
    assert tokens / tokens.sum() == pytest.approx([0.7, 0.3, 0], abs=0.05)

    passes = over(lambda: [pool])
    found = match(passes, counts, pool.totals(BUCKETS), budget)
    drawn = refine(found, hold(passes, found, 1), budget, MatchingOptions(), seed=0, stream="a")

    def kl(totals: np.ndarray) -> float:
        return relative_entropy(p, distribution(totals, SMOOTHING))

    dense = np.array([pool.dense(int(i), BUCKETS) for i in chosen])
    assert drawn.kl == pytest.approx(kl(dense.sum(axis=0)), abs=0.002)


def test_caps_and_budgets_are_kept_and_it_says_what_is_left():
    chance = np.random.default_rng(2)
    which = chance.integers(0, 3, 600)
    pool = features(documents(chance, which))
    left: list[int] = []
    arguments = pool, domains()[0], Budget(tokens=5000)
    limits = np.array([1000, 10**9, 10**9])
    chosen = cynical(*arguments, source=which, limits=limits, before=left.append)
    of_source = np.bincount(which[chosen], pool.n_tokens[chosen], minlength=3)
    assert 1000 <= of_source[0] < 1000 + 60 and 5000 - 60 < of_source.sum() <= 5000
    assert left[0] == 5000 and left == sorted(left, reverse=True)
    with pytest.raises(NothingFits, match="longer than the budget of 1 tokens"):
        cynical(pool, domains()[0], Budget(tokens=1))


def test_whoever_says_stop_is_obeyed():
    pool = features(documents(np.random.default_rng(0), np.zeros(20, int)))

    def stop(left: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cynical(pool, domains()[0], Budget(documents=5), before=stop)
