"""The heuristic classification baseline on pools whose answer is known, and the law of its noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.classifier import (
    ClassifierOptions,
    fit_classifier,
    keys,
    log_acceptance,
    logits,
    pool_sample,
    probabilities,
)
from dsir.features import Features
from dsir.noise import exponential_noise, gumbel_noise

BUCKETS = 60


def features(dense: np.ndarray, content_hash: np.ndarray | None = None) -> Features:
    """Features of documents given as counts over all buckets; one token an n-gram."""
    rows, buckets = np.nonzero(dense)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    if content_hash is None:
        content_hash = np.random.default_rng(len(dense)).integers(0, 2**64, len(dense), dtype=np.uint64)
    return Features(
        offsets.astype(np.int64),
        buckets.astype(np.uint16),
        dense[rows, buckets].astype(np.uint32),
        dense.sum(axis=1).astype(np.int64),
        content_hash,
    )


def take(batch: Features, rows: np.ndarray) -> Features:
    dense = np.array([batch.dense(int(i), BUCKETS) for i in rows]).reshape(len(rows), BUCKETS)
    return features(dense, batch.content_hash[rows])


def documents(chance, which: np.ndarray, words: tuple[int, int] = (20, 60)) -> np.ndarray:
    """A document of each of these domains, of its own emphasis and length: int64[n, BUCKETS]."""
    p = np.full((3, BUCKETS), 0.3 / BUCKETS)
    for domain, part in enumerate(np.array_split(np.arange(BUCKETS), 3)):
        p[domain, part] += 0.7 / len(part)
    each = [chance.dirichlet(60 * p[domain]) for domain in which]
    return np.array([chance.multinomial(chance.integers(*words), q) for q in each])


@pytest.fixture(scope="module")
def planted():
    """A target of domain 0, a pool with a tenth of it, which those are, and the classifier."""
    chance = np.random.default_rng(0)
    target = features(documents(chance, np.zeros(150, dtype=int)))
    which = chance.permutation(np.repeat([0, 1, 2], [60, 270, 270]))
    pool = features(documents(chance, which))
    sample = pool_sample(pool, len(pool), 150)
    return target, pool, which, fit_classifier([target], [sample], BUCKETS)


# --- the classifier -------------------------------------------------------------------------------------


def test_planted_target_documents_are_found(planted):
    _, pool, which, classifier = planted
    top = np.argsort(-logits(pool, classifier))[:60]
    assert np.mean(which[top] == 0) > 0.95
    assert classifier.converged and classifier.accuracy > 0.85 and classifier.log_loss < math.log(2)
    assert classifier.target_documents == 150


def test_probabilities_are_of_the_mean_over_a_documents_ngrams(planted):
    _, pool, _, classifier = planted
    for i in range(5):
        dense = pool.dense(i, BUCKETS)
        logit = classifier.intercept + dense @ classifier.theta / dense.sum()
        assert probabilities(pool, classifier)[i] == pytest.approx(1 / (1 + math.exp(-logit)), rel=1e-9)
    doubled = features(2 * np.array([pool.dense(0, BUCKETS)]))
    assert logits(doubled, classifier)[0] == pytest.approx(logits(pool, classifier)[0], rel=1e-12)


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_el2n_ranks_the_pool_as_the_log_odds_do(seed):
    """EL2N (Paul et al. 2021) is the norm of predicted probabilities less the label, here that of the pool."""
    chance = np.random.default_rng(seed)
    target = features(documents(chance, np.zeros(80, dtype=int)))
    pool = features(documents(chance, chance.permutation(np.repeat([0, 1, 2], [40, 80, 80]))))
    classifier = fit_classifier([target], [pool], BUCKETS)
    p = probabilities(pool, classifier)
    error = np.stack([1 - p, p], axis=1) - np.array([1, 0])  # classes: pool, target
    el2n = np.linalg.norm(error, axis=1)
    assert len(np.unique(el2n)) == len(pool)
    np.testing.assert_array_equal(np.argsort(-el2n), np.argsort(-logits(pool, classifier)))


@settings(max_examples=8, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_batches_and_their_order_do_not_matter(planted, random, cuts):
    target, pool, _, classifier = planted
    sample = pool_sample(pool, len(pool), 150)

    def shuffled(batch: Features) -> list[Features]:
        rows = list(range(len(batch)))
        random.shuffle(rows)
        return [take(batch, part) for part in np.array_split(np.array(rows), cuts)]

    again = fit_classifier(shuffled(target), shuffled(sample), BUCKETS)
    assert again.theta.tobytes() == classifier.theta.tobytes()
    assert (again.intercept, again.strength, again.log_loss, again.accuracy) == (
        classifier.intercept,
        classifier.strength,
        classifier.log_loss,
        classifier.accuracy,
    )
    order = np.array(random.sample(range(len(pool)), len(pool)))
    options = ClassifierOptions()
    whole = keys(pool, classifier, options)[order]
    parts = [keys(take(pool, part), classifier, options) for part in np.array_split(order, cuts)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_both_classes_weigh_the_same_whatever_their_numbers():
    chance = np.random.default_rng(1)
    target = features(documents(chance, np.repeat([0, 1], 40)))
    pool = features(documents(chance, np.repeat([0, 1], 400)))  # alike: nothing to tell them apart by
    classifier = fit_classifier([target], [pool], BUCKETS)
    assert abs(np.mean(probabilities(pool, classifier)) - 0.5) < 0.1
    assert 0.3 < classifier.accuracy < 0.7


def test_documents_without_ngrams_are_not_fitted_on_and_have_the_intercept(planted):
    target, pool, _, classifier = planted
    empty = features(np.zeros((3, BUCKETS), dtype=np.int64))
    sample = pool_sample(pool, len(pool), 150)
    again = fit_classifier([target, empty], [empty, sample], BUCKETS)
    assert again.theta.tobytes() == classifier.theta.tobytes()
    np.testing.assert_array_equal(logits(empty, classifier), np.full(3, classifier.intercept))


def test_copies_of_a_text_are_never_on_both_sides_of_the_split():
    chance = np.random.default_rng(2)
    once = documents(chance, np.zeros(2, dtype=int))
    target = features(np.repeat(once, 20, axis=0), np.repeat(np.array([5, 9], dtype=np.uint64), 20))
    pool = features(documents(chance, np.ones(40, dtype=int)))
    classifier = fit_classifier([target], [pool], BUCKETS)
    assert classifier.target_documents == 40
    same = features(np.repeat(once[:1], 40, axis=0), np.full(40, 5, dtype=np.uint64))
    with pytest.raises(ValueError, match="target: 1 different documents"):
        fit_classifier([same], [pool], BUCKETS)


def test_classes_that_cannot_be_split_are_refused(planted):
    target, pool, _, _ = planted
    with pytest.raises(ValueError, match="pool: 0 different documents with n-grams"):
        fit_classifier([target], [], BUCKETS)
    with pytest.raises(ValueError, match=r"target: bucket \d+ of 10"):
        fit_classifier([target], [pool], 10)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 2500))
def test_the_pools_sample_depends_on_content_alone(seed, cuts, wanted):
    chance = np.random.default_rng(seed)
    pool = features(chance.poisson(0.5, (2000, 3)), chance.integers(0, 2**64, 2000, dtype=np.uint64))
    whole = pool_sample(pool, 2000, wanted)
    parts = [pool_sample(take3(pool, rows), 2000, wanted) for rows in np.array_split(np.arange(2000), cuts)]
    np.testing.assert_array_equal(np.concatenate([part.content_hash for part in parts]), whole.content_hash)
    np.testing.assert_array_equal(sum(part.totals(3) for part in parts), whole.totals(3))
    assert abs(len(whole) - min(wanted, 2000)) < 5 * math.sqrt(500) + 1


def take3(batch: Features, rows: np.ndarray) -> Features:
    dense = np.zeros((len(batch), 3), dtype=np.int64)
    dense[np.repeat(np.arange(len(batch)), np.diff(batch.offsets)), batch.buckets] = batch.counts
    return features(dense[rows], batch.content_hash[rows])


# --- the noise ------------------------------------------------------------------------------------------


def hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def test_exponential_noise_is_exponential_and_a_function_of_seed_name_and_content():
    content_hash = hashes(100_000)
    noise = exponential_noise(content_hash, 3, "one")
    assert noise.min() > 0 and np.isfinite(noise).all()
    for x in (0.01, 0.1, 1.0, 3.0, 7.0):
        p = math.exp(-x)
        assert np.mean(noise > x) == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / len(noise)))
    np.testing.assert_array_equal(exponential_noise(content_hash[::-1], 3, "one"), noise[::-1])
    for other in (exponential_noise(content_hash, 4, "one"), exponential_noise(content_hash, 3, "two")):
        assert abs(np.corrcoef(noise, other)[0, 1]) < 0.02
    np.testing.assert_allclose(-np.log(noise), gumbel_noise(content_hash, 3, "one"), rtol=1e-12, atol=1e-12)


def test_exponential_noise_refuses_what_gumbel_noise_does():
    with pytest.raises(ValueError, match="content_hash: int64"):
        exponential_noise(np.arange(3), 0, "x")
    with pytest.raises(ValueError, match="seed: -1"):
        exponential_noise(hashes(3), -1, "x")


@settings(max_examples=200, deadline=None)
@given(st.floats(-800, 800), st.floats(0.1, 50))
def test_log_acceptance_is_that_of_the_rule(logit, alpha):
    p = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    found = log_acceptance(np.array([logit]), alpha)[0]
    assert found == pytest.approx(-alpha * math.log(2 - p), rel=1e-9, abs=1e-14 * alpha)
    assert -alpha * math.log(2) - 1e-12 <= found <= 0


def test_keys_above_zero_are_what_the_rule_keeps(planted):
    _, pool, _, classifier = planted
    options = ClassifierOptions(alpha=2.0, seed=5)
    pareto = np.expm1(exponential_noise(pool.content_hash, 5, options.stream) / 2.0)
    kept = probabilities(pool, classifier) > 1 - pareto
    assert 0 < kept.sum() < len(pool)
    np.testing.assert_array_equal(keys(pool, classifier, options) > 0, kept)


def test_the_largest_keys_are_a_random_subset_of_what_the_rule_keeps():
    """As in the reference, which shuffles what the rule keeps: how probable a document was no longer matters."""
    logit = np.repeat([4.0, 0.0, -4.0], 200_000)
    key = exponential_noise(hashes(len(logit)), 0, "x") + log_acceptance(logit, 9.0)
    kept = key > 0
    expected = (2 - 1 / (1 + np.exp(-np.array([4.0, 0.0, -4.0])))) ** -9
    found = kept.reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(0.25 / 200_000))
    top = np.zeros(len(key), dtype=bool)
    top[np.argsort(-key)[: kept.sum() // 2]] = True
    share = [top[logit == z].sum() / kept[logit == z].sum() for z in (4.0, 0.0, -4.0)]
    np.testing.assert_allclose(share, 0.5, atol=0.1)


def test_keys_do_not_tie_where_the_probability_rounds_to_one():
    key = exponential_noise(hashes(10_000), 0, "x") + log_acceptance(np.full(10_000, 60.0), 9.0)
    assert len(np.unique(key)) == 10_000


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_shape_out_of_range_is_named(value):
    with pytest.raises(ValueError, match=f"alpha: {value}; expected more than 0"):
        ClassifierOptions(alpha=value)
