"""Distribution matching on pools whose answer is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dsir.evaluation import distribution, kl_divergence
from dsir.features import Features
from dsir.importance import log_ratios, log_weights
from dsir.matching import (
    MatchingOptions,
    draw_keys,
    in_validation,
    inclusion,
    match,
    over,
    ratio,
    round_keys,
    scores,
)
from dsir.selection import CANDIDATE, Budget, Caps, TopK

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


def target(chance, p: np.ndarray, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    return chance.multinomial(n, p), chance.multinomial(n // 4, p)


def run(pool: Features, fit, validation, budget, options=DEFAULTS, **more):
    return match(over(lambda: [pool]), fit, validation, pool.totals(BUCKETS), budget, options, **more)


def chosen_by(pool: Features, found, budget, options=DEFAULTS) -> np.ndarray:
    """The documents that a matching picks in the end."""
    return picked(pool, draw_keys(pool, found, options), budget)


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
    fit, validation = target(chance, domains()[0])
    found = run(pool, fit, validation, Budget(documents=90))
    chosen = chosen_by(pool, found, Budget(documents=90))
    assert np.mean(which[chosen] == 0) > 0.97


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_known_mixture_is_recovered_where_top_k_takes_one_side(share):
    chance = np.random.default_rng(1)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    fit, validation = target(chance, share * domains()[0] + (1 - share) * domains()[1])
    budget = Budget(tokens=20_000)
    found = run(pool, fit, validation, budget)
    chosen = chosen_by(pool, found, budget)
    tokens = np.bincount(which[chosen], pool.n_tokens[chosen], minlength=3)
    assert tokens / tokens.sum() == pytest.approx([share, 1 - share, 0], abs=0.07)


def test_several_targets_are_matched_by_their_shares():
    chance = np.random.default_rng(2)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    pairs = [target(chance, domains()[each]) for each in (0, 1)]
    fit, validation = (np.array(each) for each in zip(*pairs, strict=True))
    budget = Budget(tokens=20_000)
    found = run(pool, fit, validation, budget, shares=np.array([3, 1]))
    chosen = chosen_by(pool, found, budget)
    tokens = np.bincount(which[chosen], pool.n_tokens[chosen], minlength=3)
    assert tokens / tokens.sum() == pytest.approx([0.75, 0.25, 0], abs=0.07)
    swapped = run(pool, fit[::-1], validation[::-1], budget, shares=np.array([1, 3]))
    assert chosen_by(pool, swapped, budget).tolist() == chosen.tolist()


def test_the_worst_off_of_several_targets_is_protected():
    chance = np.random.default_rng(2)
    mixed = chance.dirichlet([0.5, 0.5, 0.5], 3000) @ domains()
    pool = features(np.array([chance.multinomial(chance.integers(20, 60), p) for p in mixed]))
    pairs = [target(chance, domains()[each]) for each in (0, 1)]
    fit, validation = (np.array(each) for each in zip(*pairs, strict=True))
    worst = {}
    for objective in ("mean", "worst"):
        options = MatchingOptions(objective=objective)
        found = run(pool, fit, validation, Budget(tokens=20_000), options, shares=np.array([9, 1]))
        worst[objective] = max(found.curve[found.best].kl_targets)
    assert worst["worst"] < 0.5 * worst["mean"]


def test_caps_hold_in_every_round_and_the_rest_is_matched():
    chance = np.random.default_rng(1)
    which = chance.integers(0, 3, 3000)
    pool = features(documents(chance, which))
    fit, validation = target(chance, 0.5 * domains()[0] + 0.5 * domains()[1])
    candidates = np.zeros(len(pool), dtype=CANDIDATE)
    candidates["content_hash"], candidates["n_tokens"] = pool.content_hash, pool.n_tokens
    candidates["row"], candidates["source_hash"] = np.arange(len(pool)), which
    budget, caps = Budget(documents=300), Caps({0: 60})
    found = match(
        over(lambda: [(pool, candidates.copy())]), fit, validation, pool.totals(BUCKETS), budget, caps=caps
    )
    candidates["key"] = draw_keys(pool, found, DEFAULTS, candidates["source_hash"])
    top = TopK(budget, caps)
    top.add(candidates)
    chosen = top.picked()["row"]
    assert 50 < np.bincount(which[chosen], minlength=3)[0] <= 60
    closest = kl_divergence(distribution(fit, 1.0), distribution(take(pool, chosen).totals(BUCKETS), 1.0))
    assert closest == pytest.approx(found.curve[found.best].kl_fit, abs=0.03)


@pytest.mark.parametrize(("length", "longer"), [("sqrt", 1.05), ("none", 1.2)])
def test_length_says_how_much_long_documents_are_favored(length, longer):
    pool, fit, validation = example()
    found = run(pool, fit, validation, Budget(documents=40), MatchingOptions(length=length))
    even = run(pool, fit, validation, Budget(documents=40), MatchingOptions())
    assert found.curve[found.best].tokens >= longer * even.curve[even.best].tokens


@pytest.mark.parametrize("seed", range(20))
def test_it_comes_at_least_as_close_as_top_k_on_random_pools(seed):
    chance = np.random.default_rng(seed)
    pool = features(documents(chance, chance.integers(0, 3, 400), (1, 80)))
    p = chance.dirichlet([1, 1, 1]) @ domains()
    fit, validation = target(chance, p)
    budget = Budget(tokens=int(pool.n_tokens.sum() * chance.uniform(0.05, 0.5)))
    found = run(pool, fit, validation, budget)
    log_weight = log_weights(pool, log_ratios(fit, pool.totals(BUCKETS))[np.newaxis])[0]

    def distance(rows: np.ndarray) -> float:
        return kl_divergence(distribution(fit, 1.0), distribution(take(pool, rows).totals(BUCKETS), 1.0))

    assert distance(chosen_by(pool, found, budget)) <= distance(picked(pool, log_weight, budget)) + 0.005


def test_a_pool_of_a_few_kinds_of_like_documents_is_mixed_though_every_round_takes_one_kind():
    which = np.repeat([0, 1, 2], 400)
    pool = features(
        np.rint(200 * domains())[which].astype(np.int64), np.random.default_rng(0).permutation(1200)
    )
    wanted = np.array([0.55, 0.3, 0.15])
    fit, validation = target(np.random.default_rng(3), wanted @ domains())
    budget = Budget(documents=200)
    found = run(pool, fit, validation, budget)
    assert np.bincount(which[chosen_by(pool, found, budget)], minlength=3) / 200 == pytest.approx(
        wanted, abs=0.05
    )


# --- budgets, order, ties ----------------------------------------------------------------------------


def example(chance=None):
    chance = chance or np.random.default_rng(5)
    pool = features(documents(chance, chance.integers(0, 3, 300)))
    fit, validation = target(chance, np.array([0.6, 0.4, 0.0]) @ domains())
    return pool, fit, validation


@pytest.mark.parametrize("budget", [Budget(tokens=3000), Budget(documents=40)])
def test_every_round_keeps_to_the_budget_to_within_one_document(budget):
    pool, fit, validation = example()
    for each in run(pool, fit, validation, budget).curve:
        amount = each.documents if budget.tokens is None else each.tokens
        longest = 1 if budget.tokens is None else pool.n_tokens.max()
        assert budget.amount - longest < amount <= budget.amount


@pytest.mark.parametrize("temperature", [0.0, 0.3])
@pytest.mark.parametrize("caps", [None, Caps({0: 1000})])
def test_the_probability_of_a_document_is_the_weight_of_the_rounds_whose_picks_it_is_among(temperature, caps):
    pool, fit, validation = example()
    options, budget = MatchingOptions(temperature=temperature), Budget(tokens=3000)
    candidates = np.zeros(len(pool), dtype=CANDIDATE)
    candidates["content_hash"], candidates["n_tokens"] = pool.content_hash, pool.n_tokens
    candidates["row"], candidates["source_hash"] = np.arange(len(pool)), np.arange(len(pool)) % 2
    batches = [(pool, candidates)]
    found = match(over(lambda: batches), fit, validation, pool.totals(BUCKETS), budget, options, caps=caps)
    assert found.weights.sum() == pytest.approx(1)
    expected = np.zeros(len(pool))
    for weight, key in zip(found.weights, round_keys(pool, found.theta, options), strict=True):
        top = TopK(budget, caps)
        candidates["key"] = key
        top.add(candidates.copy())
        expected[top.picked()["row"]] += weight
    probability, margin = inclusion(pool, found, options, candidates["source_hash"])
    np.testing.assert_allclose(probability, expected, atol=1e-12)
    assert ((margin >= 0) == (expected > 0)).all()


def test_a_draw_takes_documents_as_often_as_their_probabilities_say_those_of_no_round_last():
    pool, fit, validation = example()
    budget = Budget(documents=60)
    found = run(pool, fit, validation, budget)
    probability, margin = inclusion(pool, found, DEFAULTS)
    drawn = np.zeros(len(pool))
    for seed in range(400):
        key = draw_keys(pool, found, MatchingOptions(seed=seed))
        drawn[picked(pool, key, budget)] += 1 / 400
        assert key[probability > 0].min() > key[probability == 0].max()
    assert drawn == pytest.approx(probability, abs=0.12)
    outside = np.flatnonzero(probability == 0)
    assert key[outside].argmax() == margin[outside].argmax()


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_order_and_cut_of_the_batches_do_not_matter_even_where_copies_straddle_the_threshold(temperature):
    chance = np.random.default_rng(6)
    pool, fit, validation = example(chance)
    pool = take(pool, np.repeat(np.arange(len(pool)), 7))  # equal texts: equal hashes, scores, noise
    raw, budget = pool.totals(BUCKETS), Budget(documents=100)
    options = MatchingOptions(rounds=6, temperature=temperature)
    first = match(over(lambda: [pool]), fit, validation, raw, budget, options)
    assert {each.documents for each in first.curve} == {100}
    chosen = take(pool, chosen_by(pool, first, budget, options)).content_hash
    for _ in range(3):
        order = chance.permutation(len(pool))
        cut = [take(pool, part) for part in np.split(order, sorted(chance.integers(0, len(pool), 4)))]
        again = match(over(lambda batches=cut: batches), fit, validation, raw, budget, options)
        assert np.array_equal(again.theta, first.theta)
        assert again.curve == first.curve
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
        fit, validation = target(chance, np.array([0.6, 0.4, 0.0]) @ domains())
        try:
            found = run(pool, fit, validation, Budget(tokens=120))
        except ValueError:
            continue  # in round 0 already
        ended += not found.converged
        assert found.weights.sum() == pytest.approx(1) and len(found.theta) == found.best + 1
    assert ended > 0


def test_batches_may_be_mapped_in_any_order():
    pool, fit, validation = example()
    parts = [take(pool, part) for part in np.array_split(np.arange(len(pool)), 5)]
    arguments = (fit, validation, pool.totals(BUCKETS), Budget(tokens=3000))
    forward = match(over(lambda: parts), *arguments)
    backward = match(over(lambda: parts, lambda f, each: map(f, list(each)[::-1])), *arguments)
    assert np.array_equal(forward.theta, backward.theta)


# --- rounds ------------------------------------------------------------------------------------------


def test_it_stops_when_the_validation_part_is_not_better_matched_and_says_so():
    pool, fit, validation = example()
    found = run(pool, fit, validation, Budget(tokens=3000), MatchingOptions(rounds=100, tolerance=0.01))
    assert found.converged
    assert found.best < len(found.curve) < 100
    assert [each.number for each in found.curve] == list(range(len(found.curve)))
    assert found.curve[found.best].kl_validation == min(each.kl_validation for each in found.curve)


def test_it_says_when_the_rounds_were_used_up():
    pool, fit, validation = example()
    found = run(pool, fit, validation, Budget(tokens=3000), MatchingOptions(rounds=2))
    assert not found.converged
    assert len(found.curve) == 2


def test_round_0_picks_by_the_mean_ratio_of_target_and_pool():
    pool, fit, validation = example()
    found = run(pool, fit, validation, Budget(tokens=3000), MatchingOptions(rounds=1))
    smoothing = DEFAULTS.smoothing
    theta = distribution(fit, smoothing) / distribution(pool.totals(BUCKETS), smoothing)
    np.testing.assert_allclose(found.theta, [theta])
    np.testing.assert_allclose(ratio(fit, pool.totals(BUCKETS), smoothing), theta)
    counts = pool.dense(7, BUCKETS)
    assert scores(pool, found.theta)[0, 7] == pytest.approx(counts @ theta / counts.sum())


def test_the_gap_falls_and_bounds_the_distance_to_what_any_selection_reaches():
    chance = np.random.default_rng(9)
    pool = features(documents(chance, chance.integers(0, 3, 3000)))
    fit, validation = target(chance, np.array([0.6, 0.4, 0.0]) @ domains())
    options = MatchingOptions(rounds=40, patience=40)
    curve = run(pool, fit, validation, Budget(tokens=20_000), options).curve
    assert all(each.gap > -1e-9 for each in curve)
    assert curve[-1].gap < 0.1 * curve[1].gap


# --- pieces ------------------------------------------------------------------------------------------


def test_a_document_without_ngrams_scores_0():
    batch = features(np.zeros((2, BUCKETS), dtype=np.int64))
    assert scores(batch, np.ones((1, BUCKETS))).tolist() == [[0.0, 0.0]]
    assert np.isfinite(round_keys(batch, np.ones((1, BUCKETS)), DEFAULTS)).all()


def test_noise_depends_on_seed_and_stream_and_a_temperature_of_0_has_none():
    pool, fit, _ = example()
    theta = distribution(fit, 0.5)[np.newaxis] * BUCKETS
    plain = round_keys(pool, theta, MatchingOptions())
    assert plain.tolist() == np.log(scores(pool, theta)).tolist()
    noisy = [
        round_keys(pool, theta, MatchingOptions(temperature=0.1, seed=seed, stream=stream)).tobytes()
        for seed, stream in ((0, "a"), (1, "a"), (0, "b"))
    ]
    assert len({*noisy, plain.tobytes()}) == 4


def test_about_a_fifth_is_for_validation_equal_texts_together():
    hashes = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64)
    assert in_validation(hashes).mean() == pytest.approx(0.2, abs=0.01)
    assert (in_validation(hashes) == in_validation(hashes.copy()[::-1])[::-1]).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mean_tokens", (1.0, 2.0)),
        ("rounds", 0),
        ("patience", 0),
        ("tolerance", -1.0),
        ("smoothing", 0.0),
        ("temperature", -0.1),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field}: {re.escape(str(value))}"):
        MatchingOptions(**{field: value})


def test_what_can_not_be_matched_is_refused():
    pool, fit, validation = example()
    none = np.zeros_like(fit)
    for arguments, message in (
        ((none, validation), "target: no n-grams"),
        ((fit, none), "validation: no n-grams"),
        ((fit[:-1], validation), "target: .* counts; the pool has"),
    ):
        with pytest.raises(ValueError, match=message):
            run(pool, *arguments, Budget(documents=10))
    with pytest.raises(ValueError, match="the best document is longer than the budget of 1 tokens"):
        run(pool, fit, validation, Budget(tokens=1))
