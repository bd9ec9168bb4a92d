"""Distribution matching on pools whose answer is known."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from dsir.evaluation import distribution
from dsir.features import Features
from dsir.importance import log_ratios, log_weights
from dsir.matching import MatchingOptions, match, over, scores
from dsir.refinement import hold, refine
from dsir.relative_entropy import relative_entropy, target_distribution
from dsir.selection import CANDIDATE, Budget, Caps, TopK, positions_of

BUCKETS = 60
DEFAULTS = MatchingOptions()


def features(dense: np.ndarray, content_hash: np.ndarray | None = None) -> Features:
    """Features of documents given as counts over all buckets; one token an n-gram."""
    rows, buckets = np.nonzero(dense)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    if content_hash is None:
        content_hash = np.arange(1, len(dense) + 1)
    return Features(
        offsets.astype(np.int64),
        buckets.astype(np.uint16),
        dense[rows, buckets].astype(np.uint32),
        dense.sum(axis=1).astype(np.int64),
        content_hash.astype(np.uint64),
    )


def take(batch: Features, order: np.ndarray) -> Features:
    dense = np.array([batch.dense(int(i), BUCKETS) for i in order]).reshape(len(order), BUCKETS)
    return features(dense, batch.content_hash[order])


def domains(n: int = 3) -> np.ndarray:
    """Distributions over the buckets, each mostly on its own part of them."""
    out = np.full((n, BUCKETS), 0.1 / BUCKETS)
    for domain, part in enumerate(np.array_split(np.arange(BUCKETS), n)):
        out[domain, part] += 0.9 / len(part)
    return out


def documents(chance, which: np.ndarray, words: tuple[int, int] = (20, 60)) -> np.ndarray:
    """A document of each of these domains, of its own emphasis and length: int64[n, BUCKETS]."""
    p = [chance.dirichlet(30 * domains()[each]) for each in which]
    return np.array([chance.multinomial(chance.integers(*words), each) for each in p])


def target(chance, p: np.ndarray, n: int = 20_000) -> np.ndarray:
    return chance.multinomial(n, p)


def run(pool: Features, fit, budget, options=DEFAULTS, **more):
    return match(over(lambda: [pool]), fit, pool.totals(BUCKETS), budget, options, **more)


def chosen_by(pool: Features, found, budget, options=DEFAULTS, seed=0, **more) -> np.ndarray:
    """The documents that a matching picks in the end."""
    passes = over(lambda: [pool])
    drawn = refine(found, hold(passes, found, 1, **more), budget, options, seed=seed, stream="a")
    return picked(pool, drawn.keys.at(np.arange(len(pool))), budget)


def picked(pool: Features, key: np.ndarray, budget: Budget) -> np.ndarray:
    candidates = np.zeros(len(pool), dtype=CANDIDATE)
    candidates["key"], candidates["row"] = key, np.arange(len(pool))
    candidates["content_hash"], candidates["n_tokens"] = pool.content_hash, pool.n_tokens
    top = TopK(budget)
    top.add(candidates)
    return top.picked()["row"]


# --- what is selected --------------------------------------------------------------------------------


def test_planted_target_documents_are_found():
    chance = np.random.default_rng(0)
    which = chance.permutation(np.repeat([0, 1, 2], [100, 900, 1000]))
    pool = features(documents(chance, which))
    fit = target(chance, domains()[0])
    found = run(pool, fit, Budget(documents=90))
    chosen = chosen_by(pool, found, Budget(documents=90))
    assert np.mean(which[chosen] == 0) > 0.97


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_known_mixture_is_recovered_where_top_k_takes_one_side(share):
    chance = np.random.default_rng(1)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    fit = target(chance, share * domains()[0] + (1 - share) * domains()[1])
    budget = Budget(tokens=20_000)
    found = run(pool, fit, budget)
    chosen = chosen_by(pool, found, budget)
    tokens = np.bincount(which[chosen], pool.n_tokens[chosen], minlength=3)
    assert tokens / tokens.sum() == pytest.approx([share, 1 - share, 0], abs=0.07)


def test_several_targets_are_matched_by_their_shares():
    chance = np.random.default_rng(2)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    fit = np.array([target(chance, domains()[each]) for each in (0, 1)])
    budget = Budget(tokens=20_000)
    found = run(pool, fit, budget, shares=np.array([3, 1]))
    chosen = chosen_by(pool, found, budget)
    tokens = np.bincount(which[chosen], pool.n_tokens[chosen], minlength=3)
    assert tokens / tokens.sum() == pytest.approx([0.75, 0.25, 0], abs=0.07)
    swapped = run(pool, fit[::-1], budget, shares=np.array([1, 3]))
    assert chosen_by(pool, swapped, budget).tolist() == chosen.tolist()


def test_the_worst_off_of_several_targets_is_protected():
    chance = np.random.default_rng(2)
    mixed = chance.dirichlet([0.5, 0.5, 0.5], 3000) @ domains()
    pool = features(np.array([chance.multinomial(chance.integers(20, 60), p) for p in mixed]))
    fit = np.array([target(chance, domains()[each]) for each in (0, 1)])
    worst = {}
    for objective in ("mean", "worst"):
        options = MatchingOptions(objective=objective)
        found = run(pool, fit, Budget(tokens=20_000), options, shares=np.array([9, 1]))
        worst[objective] = max(found.curve[-1].kl_targets)
    assert worst["worst"] < 0.5 * worst["mean"]


def test_caps_hold_in_every_round_and_after_them_and_the_rest_is_matched():
    chance = np.random.default_rng(1)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    fit = target(chance, 0.5 * domains()[0] + 0.5 * domains()[1])
    candidates = np.zeros(len(pool), dtype=CANDIDATE)
    candidates["content_hash"], candidates["n_tokens"] = pool.content_hash, pool.n_tokens
    candidates["row"], candidates["source_hash"] = np.arange(len(pool)), which
    budget, caps = Budget(documents=300), Caps({0: 60})
    passes = over(lambda: [(pool.to_arrow(), candidates.copy())])
    found = match(passes, fit, pool.totals(BUCKETS), budget, caps=caps)
    drawn = refine(found, hold(passes, found, 1), budget, DEFAULTS, seed=0, stream="a", caps=caps)
    candidates["key"] = drawn.keys.at(np.arange(len(pool)))
    top = TopK(budget, caps)
    top.add(candidates)
    chosen = top.picked()["row"]
    assert len(chosen) == 300 and 50 < np.bincount(which[chosen], minlength=3)[0] <= 60
    others = which[chosen][which[chosen] != 0]
    assert (others == 1).mean() > 0.8  # what the cap keeps out is not made up for by the third kind


@pytest.mark.parametrize("seed", range(20))
def test_it_comes_at_least_as_close_as_top_k_on_random_pools(seed):
    chance = np.random.default_rng(seed)
    pool = features(documents(chance, chance.integers(0, 3, 400), (1, 80)))
    p = chance.dirichlet([1, 1, 1]) @ domains()
    fit = target(chance, p)
    budget = Budget(tokens=int(pool.n_tokens.sum() * chance.uniform(0.05, 0.5)))
    found = run(pool, fit, budget)
    log_weight = log_weights(pool, log_ratios(fit, pool.totals(BUCKETS))[np.newaxis])[0]

    def distance(rows: np.ndarray) -> float:
        return relative_entropy(fit / fit.sum(), distribution(take(pool, rows).totals(BUCKETS), 0.2))

    assert distance(chosen_by(pool, found, budget)) <= distance(picked(pool, log_weight, budget)) + 0.005


def test_a_pool_of_a_few_kinds_of_like_documents_is_mixed_though_every_round_takes_one_kind():
    which = np.repeat([0, 1, 2], 400)
    pool = features(
        np.rint(200 * domains())[which].astype(np.int64), np.random.default_rng(0).permutation(1200)
    )
    wanted = np.array([0.55, 0.3, 0.15])
    fit = target(np.random.default_rng(3), wanted @ domains())
    budget = Budget(documents=200)
    found = run(pool, fit, budget)
    assert np.bincount(which[chosen_by(pool, found, budget)], minlength=3) / 200 == pytest.approx(
        wanted, abs=0.05
    )


# --- budgets, order, ties ----------------------------------------------------------------------------


def example(chance=None):
    chance = chance or np.random.default_rng(5)
    pool = features(documents(chance, chance.integers(0, 3, 300)))
    fit = target(chance, np.array([0.6, 0.4, 0.0]) @ domains())
    return pool, fit


@pytest.mark.parametrize("budget", [Budget(tokens=3000), Budget(documents=40)])
def test_every_round_keeps_to_the_budget_to_within_one_document(budget):
    pool, fit = example()
    for each in run(pool, fit, budget).curve:
        amount = each.documents if budget.tokens is None else each.tokens
        longest = 1 if budget.tokens is None else pool.n_tokens.max()
        assert budget.amount - longest < amount <= budget.amount


@pytest.mark.parametrize("caps", [None, Caps({0: 1000})])
def test_the_probability_of_a_document_is_the_weight_of_the_rounds_that_picked_it(caps):
    pool, fit = example()
    budget = Budget(tokens=3000)
    candidates = np.zeros(len(pool), dtype=CANDIDATE)
    candidates["content_hash"], candidates["n_tokens"] = pool.content_hash, pool.n_tokens
    candidates["row"], candidates["source_hash"] = np.arange(len(pool)), np.arange(len(pool)) % 2
    found = match(over(lambda: [(pool.to_arrow(), candidates)]), fit, pool.totals(BUCKETS), budget, caps=caps)
    assert found.weights.sum() == pytest.approx(1) and len(found.weights) == len(found.curve)
    assert len(np.unique(positions_of(found.documents))) == len(found.documents)
    assert (found.probability > 0).all() and (found.probability <= 1 + 1e-12).all()
    tokens = np.sum(found.probability * found.documents["n_tokens"])
    assert tokens == pytest.approx(np.sum(found.weights * [each.tokens for each in found.curve]))
    weighted = found.probability @ np.array([pool.dense(int(i), BUCKETS) for i in found.documents["row"]])
    np.testing.assert_allclose(weighted, found.totals, rtol=1e-9)


def test_a_draw_takes_documents_as_often_as_their_probabilities_say():
    pool, fit = example()
    budget = Budget(documents=60)
    found = run(pool, fit, budget, MatchingOptions(tolerance=0.2))
    drawn = np.zeros(len(found.documents))
    for seed in range(400):
        drawn[np.argsort(-found.draw(seed, "a"))[:60]] += 1 / 400
    assert drawn == pytest.approx(found.probability, abs=0.12)
    assert not np.array_equal(found.draw(0, "a"), found.draw(0, "b"))


def test_order_and_cut_of_the_batches_do_not_matter_even_where_copies_straddle_the_threshold():
    chance = np.random.default_rng(6)
    pool, fit = example(chance)
    pool = take(pool, np.repeat(np.arange(len(pool)), 7))  # equal texts: equal hashes, scores, noise
    raw, budget = pool.totals(BUCKETS), Budget(documents=100)
    options = MatchingOptions(rounds=6)
    first = match(over(lambda: [pool]), fit, raw, budget, options)
    assert {each.documents for each in first.curve} == {100}
    chosen = take(pool, chosen_by(pool, first, budget, options)).content_hash
    for _ in range(3):
        order = chance.permutation(len(pool))
        cut = [take(pool, part) for part in np.split(order, sorted(chance.integers(0, len(pool), 4)))]
        again = match(over(lambda batches=cut: batches), fit, raw, budget, options)
        assert again.curve == first.curve and np.array_equal(again.weights, first.weights)
        [whole] = [take(pool, order)]
        assert take(whole, chosen_by(whole, again, budget, options)).content_hash.tolist() == chosen.tolist()


def test_a_later_round_whose_best_document_does_not_fit_ends_the_rounds():
    """Of 15 documents that are longer than the budget, a round or another ranks one first."""
    ended = 0
    for seed in range(20):
        chance = np.random.default_rng(seed)
        which = chance.integers(0, 3, 300)
        long = chance.permutation(300) < 15
        counts = documents(chance, which)
        counts[long] *= 8
        pool = features(counts)
        fit = target(chance, np.array([0.6, 0.4, 0.0]) @ domains())
        try:
            found = run(pool, fit, Budget(tokens=120))
        except ValueError:
            continue  # in round 0 already
        ended += not found.converged
        assert found.weights.sum() == pytest.approx(1) and len(found.weights) == len(found.curve)
    assert ended > 0


def test_batches_may_be_mapped_in_any_order():
    pool, fit = example()
    parts = [take(pool, part) for part in np.array_split(np.arange(len(pool)), 5)]
    arguments = (fit, pool.totals(BUCKETS), Budget(tokens=3000))
    forward = match(over(lambda: parts), *arguments)
    backward = match(over(lambda: parts, lambda f, each: map(f, list(each)[::-1])), *arguments)
    assert forward.curve == backward.curve


# --- rounds ------------------------------------------------------------------------------------------


def test_it_stops_when_little_is_left_to_gain_and_says_so():
    pool, fit = example()
    found = run(pool, fit, Budget(tokens=3000), MatchingOptions(rounds=100))
    assert found.converged and found.curve[-1].gap <= DEFAULTS.tolerance
    assert all(each.gap > DEFAULTS.tolerance for each in found.curve[1:-1])
    assert [each.number for each in found.curve] == list(range(len(found.curve)))


def test_it_says_when_the_rounds_were_used_up():
    pool, fit = example()
    found = run(pool, fit, Budget(tokens=3000), MatchingOptions(rounds=2))
    assert not found.converged
    assert len(found.curve) == 2


def test_round_0_picks_by_the_mean_ratio_of_target_and_pool():
    pool, fit = example()
    budget = Budget(tokens=3000)
    found = run(pool, fit, budget, MatchingOptions(rounds=1))
    theta = target_distribution(fit) / distribution(pool.totals(BUCKETS), DEFAULTS.smoothing)
    mean_ratio = scores(pool, theta)
    counts = pool.dense(7, BUCKETS)
    assert mean_ratio[7] == pytest.approx(counts @ theta / counts.sum())
    assert sorted(found.documents["row"]) == sorted(picked(pool, mean_ratio, budget))
    assert (found.probability == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_gap_bounds_what_more_rounds_gain(seed):
    chance = np.random.default_rng(seed)
    pool = features(documents(chance, chance.integers(0, 3, 3000), (40, 41)))  # equal lengths: an exact bound
    fit = target(chance, chance.dirichlet([1, 1, 1]) @ domains())
    curve = run(pool, fit, Budget(documents=500), MatchingOptions(rounds=40, tolerance=0)).curve
    least = min(each.kl for each in curve)
    assert all(each.gap > -1e-9 for each in curve)
    for earlier, each in itertools.pairwise(curve):
        assert earlier.kl - each.gap <= least + 1e-6
        assert each.kl <= earlier.kl + 1e-4  # the weights of the rounds are fitted anew
    assert curve[-1].gap < 0.1 * curve[1].gap


# --- refining ----------------------------------------------------------------------------------------


def kl(pool: Features, rows: np.ndarray, found) -> float:
    return relative_entropy(found.target, distribution(take(pool, rows).totals(BUCKETS), DEFAULTS.smoothing))


@pytest.mark.parametrize("seed", range(10))
def test_refining_comes_closer_than_a_draw_and_within_the_gap_of_the_best(seed):
    chance = np.random.default_rng(seed)
    pool = features(documents(chance, chance.integers(0, 3, 1000), (30, 50)))
    fit = target(chance, chance.dirichlet([1, 1, 1]) @ domains())
    budget = Budget(tokens=4000)
    found = run(pool, fit, budget)
    candidates = found.documents.copy()
    candidates["key"] = found.draw(0, "a")
    top = TopK(budget)
    top.add(candidates)
    refined = kl(pool, chosen_by(pool, found, budget), found)
    assert refined < kl(pool, top.picked()["row"], found)
    assert refined < found.curve[-1].kl + 0.002


def test_a_selection_too_large_to_hold_is_refined_in_part():
    chance = np.random.default_rng(3)
    pool = features(documents(chance, chance.integers(0, 3, 3000)))
    fit = target(chance, np.array([0.6, 0.4, 0.0]) @ domains())
    budget = Budget(tokens=20_000)
    found = run(pool, fit, budget, MatchingOptions(tolerance=0.1))
    apart = []
    for most in (0, 5_000, 1 << 25):
        rows = chosen_by(pool, found, budget, most=most)
        assert 20_000 - 60 < pool.n_tokens[rows].sum() <= 20_000
        apart.append(kl(pool, rows, found))
    assert apart[2] < apart[1] < apart[0]


def test_another_seed_is_another_selection_as_close():
    pool, fit = example()
    budget = Budget(tokens=3000)
    found = run(pool, fit, budget)
    one, other = (chosen_by(pool, found, budget, seed=seed) for seed in (0, 1))
    assert set(one) != set(other)
    assert kl(pool, one, found) == pytest.approx(kl(pool, other, found), abs=0.01)


# --- pieces ------------------------------------------------------------------------------------------


def test_a_document_without_ngrams_scores_0_and_is_never_picked_where_others_are():
    batch = features(np.zeros((2, BUCKETS), dtype=np.int64))
    assert scores(batch, np.ones(BUCKETS)).tolist() == [0.0, 0.0]
    chance = np.random.default_rng(0)
    dense = np.concatenate([documents(chance, chance.integers(0, 3, 50)), np.zeros((50, BUCKETS), np.int64)])
    pool = features(dense)
    budget = Budget(documents=50)
    found = run(pool, target(chance, domains()[0]), budget)
    assert sorted(chosen_by(pool, found, budget)) == list(range(50))


def test_a_small_target_is_not_asked_for_what_it_does_not_have():
    """With pseudo-counts a bucket, most of a small target would be n-grams that nobody has seen."""
    counts = np.zeros(10_000, np.int64)
    counts[:50] = 3
    p = target_distribution(counts)
    assert p.sum() == pytest.approx(1) and p[:50].sum() == 1  # none occurs once: nothing is left for others
    counts[40:50], counts[50:60] = 2, 1
    p = target_distribution(counts)
    assert p.sum() == pytest.approx(1) and 0 < p[60:].sum() < 0.4
    assert p[0] > p[50] > p[60] > 0
    once = np.zeros(10_000, np.int64)
    once[:30] = (
        1  # one short document: no bucket occurs twice, and the estimated discount would leave nothing of it
    )
    assert target_distribution(once)[:30].sum() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rounds", 0),
        ("tolerance", -1.0),
        ("smoothing", 0.0),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}: {re.escape(str(value))}"):
        MatchingOptions(**{field: value})


def test_what_cannot_be_matched_is_refused():
    pool, fit = example()
    none = np.zeros_like(fit)
    for arguments, message in (
        ((none,), "target: no n-grams"),
        ((fit[:-1],), "target: .* counts; the pool has"),
    ):
        with pytest.raises(ValueError, match=message):
            run(pool, *arguments, Budget(documents=10))
    with pytest.raises(ValueError, match="the best document is longer than the budget of 1 tokens"):
        run(pool, fit, Budget(tokens=1))
