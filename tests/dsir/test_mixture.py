"""Weights of sources on pools whose mixture is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.evaluation import distribution, kl_divergence
from dsir.mixture import TOLERANCE, MixtureOptions, fit_mixture, part_of

BUCKETS = 60
ALONE = MixtureOptions(smoothing=0.01, replicates=0)


def domains(chance, n: int) -> np.ndarray:
    """Distributions over the buckets that overlap."""
    return chance.dirichlet(np.full(BUCKETS, 0.3), size=n)


def totals(chance, p: np.ndarray, n: int = 200_000) -> np.ndarray:
    return np.array([chance.multinomial(n, each) for each in p])


def target_of(chance, q: np.ndarray, weights: np.ndarray, documents: int, words: int = 50) -> np.ndarray:
    """Counts of documents that are each of one source: int64[documents, BUCKETS]."""
    which = chance.choice(len(q), size=documents, p=weights)
    return np.array([chance.multinomial(words, q[source]) for source in which])


@st.composite
def problems(draw):
    """Source totals, target parts and caps that can be obeyed, of any kind."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, buckets = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    sources = chance.poisson(chance.gamma(0.3, 30, (n, buckets)))
    if draw(st.booleans()):
        sources[-1] = sources[0]
    parts = chance.poisson(chance.gamma(0.3, 30, (3, buckets)))
    sources[0, 0], parts[0, 0] = sources[0, 0] + 1, parts[0, 0] + 1
    kind = draw(st.sampled_from(["none", "some", "exact", "zeros"]))
    caps = np.ones(n)
    if kind == "some":
        caps = chance.uniform(0.1, 3, n) / n
        caps /= min(caps.sum(), 1.0)
    elif kind == "exact":
        caps = chance.dirichlet(np.ones(n))
    elif kind == "zeros":
        caps = (np.arange(n) == chance.integers(n)) | (chance.random(n) < 0.5)
    return sources, parts, caps.astype(np.float64)


# --- the weights ----------------------------------------------------------------------------------------


def test_a_known_mixture_is_recovered():
    chance = np.random.default_rng(0)
    q, truth = domains(chance, 5), np.array([0.5, 0.3, 0.15, 0.05, 0.0])
    found = fit_mixture(totals(chance, q), chance.multinomial(400_000, truth @ q)[np.newaxis], ALONE)
    assert found.converged
    np.testing.assert_allclose(found.weights, truth, atol=0.01)
    assert found.kl < 1e-3 < found.kl_pool


def test_the_pools_shares_are_those_of_its_ngrams():
    chance = np.random.default_rng(1)
    sources = totals(chance, domains(chance, 2)) * np.array([[1], [3]])
    found = fit_mixture(sources, sources.sum(axis=0)[np.newaxis], ALONE)
    np.testing.assert_allclose(found.pool_shares, [0.25, 0.75])
    np.testing.assert_allclose(found.weights, found.pool_shares, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from([0.01, 1.0]))
def test_weights_are_a_mixture_that_obeys_the_caps_and_no_other_is_closer(problem, smoothing):
    sources, parts, caps = problem
    found = fit_mixture(sources, parts, MixtureOptions(smoothing=smoothing, replicates=0), caps=caps)
    assert found.weights.sum() == pytest.approx(1, abs=1e-9)
    assert np.all(found.weights >= 0) and np.all(found.weights <= caps + 1e-9)
    assert found.converged and 0 <= found.gap <= TOLERANCE

    p = distribution(parts.sum(axis=0), smoothing)
    q = np.array([distribution(each, smoothing) for each in sources])
    assert found.kl == pytest.approx(kl_divergence(p, found.weights @ q), abs=1e-12)
    allowed = caps / caps.sum()
    assert found.kl <= kl_divergence(p, allowed @ q) + found.gap + 1e-9
    for source in np.flatnonzero(caps == 1):  # the gap bounds what any allowed mixture gains
        assert found.kl <= kl_divergence(p, q[source]) + found.gap + 1e-9


@settings(max_examples=40, deadline=None)
@given(problems())
def test_without_caps_it_is_at_least_as_close_as_the_pool_and_equal_weights(problem):
    sources, parts, _ = problem
    found = fit_mixture(sources, parts, MixtureOptions(replicates=0))
    assert 0 <= found.kl + 1e-12
    q = np.array([distribution(each, 1.0) for each in sources])
    equal = kl_divergence(distribution(parts.sum(axis=0), 1.0), q.mean(axis=0))
    assert found.kl <= min(found.kl_pool, equal) + found.gap + 1e-9
    # What gradient alignment comes to rest at: sources in use are equally aligned, no other is more.
    assert np.all(found.alignment <= 1 + 1e-5)
    np.testing.assert_allclose(found.alignment[found.weights > 0.02], 1, atol=1e-3)


def test_the_order_of_the_sources_does_not_matter():
    chance = np.random.default_rng(2)
    sources, order = totals(chance, domains(chance, 6), 5000), chance.permutation(6)
    target = chance.multinomial(5000, domains(chance, 1)[0])[np.newaxis]
    straight, turned = (fit_mixture(each, target, ALONE) for each in (sources, sources[order]))
    np.testing.assert_allclose(turned.weights, straight.weights[order], atol=0.01)
    assert turned.kl == pytest.approx(straight.kl, abs=TOLERANCE)


# --- caps and few sources -------------------------------------------------------------------------------


def test_what_a_capped_source_cannot_give_comes_from_the_one_most_like_it():
    chance = np.random.default_rng(3)
    q = domains(chance, 3)
    q[1] = 0.8 * q[0] + 0.2 * q[1]
    target = chance.multinomial(100_000, q[0])[np.newaxis]
    sources = totals(chance, q)
    assert fit_mixture(sources, target, ALONE).weights[0] > 0.97
    capped = fit_mixture(sources, target, ALONE, caps=np.array([0.4, 1.0, 1.0]))
    np.testing.assert_allclose(capped.weights, [0.4, 0.6, 0.0], atol=0.02)
    assert capped.alignment[0] > 1


def test_few_sources_are_those_that_matter():
    chance = np.random.default_rng(4)
    q = domains(chance, 8)
    truth = np.array([0.02, 0.5, 0.01, 0.0, 0.4, 0.03, 0.02, 0.02])
    sources, target = totals(chance, q), chance.multinomial(100_000, truth @ q)[np.newaxis]
    everything = fit_mixture(sources, target, ALONE)
    few = fit_mixture(sources, target, MixtureOptions(smoothing=0.01, replicates=0, max_sources=2))
    assert set(np.flatnonzero(few.weights)) == {1, 4}
    assert few.converged and few.kl >= everything.kl - TOLERANCE
    assert np.all(few.weights[[1, 4]] > truth[[1, 4]])


def test_a_source_of_weight_0_is_kept_if_the_caps_of_few_sources_need_it():
    chance = np.random.default_rng(9)
    q = domains(chance, 4)
    target = chance.multinomial(100_000, np.array([0.4, 0.35, 0.25, 0.0]) @ q)[np.newaxis]
    caps = np.array([0.4, 0.4, 0.4, 1.0])
    sources = totals(chance, q)
    assert fit_mixture(sources, target, ALONE, caps=caps).weights[3] < 0.01
    options = MixtureOptions(smoothing=0.01, replicates=0, max_sources=2)
    few = fit_mixture(sources, target, options, caps=caps)
    assert few.weights[3] == pytest.approx(0.6, abs=1e-6) and few.weights.max() <= 0.6 + 1e-6


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(1, 12))
def test_no_more_sources_than_wanted_and_caps_still_obeyed(problem, wanted):
    sources, parts, caps = problem
    options = MixtureOptions(replicates=0, max_sources=wanted)
    if np.sort(caps)[::-1][:wanted].sum() < 1 - 1e-9:
        with pytest.raises(ValueError, match=f"caps: those of the {wanted} largest"):
            fit_mixture(sources, parts, options, caps=caps)
        return
    found = fit_mixture(sources, parts, options, caps=caps)
    assert np.count_nonzero(found.weights) <= wanted
    assert found.converged and found.weights.sum() == pytest.approx(1, abs=1e-9)
    assert np.all(found.weights <= caps + 1e-9)


# --- uncertainty ----------------------------------------------------------------------------------------


def test_intervals_cover_the_truth_where_documents_are_of_one_source_each():
    chance = np.random.default_rng(5)
    q, truth = domains(chance, 3), np.array([0.5, 0.3, 0.2])
    sources, options = totals(chance, q), MixtureOptions(smoothing=0.01, replicates=60)
    covered = []
    for _ in range(15):
        documents = target_of(chance, q, truth, 200)
        found = fit_mixture(sources, documents, options)
        covered += list((found.lower <= truth) & (truth <= found.upper))
        # Documents are drawn, not n-grams: sqrt(w (1 - w) / 200), of which n-grams would give a fraction.
        np.testing.assert_allclose(found.standard_error, np.sqrt(truth * (1 - truth) / 200), rtol=0.45)
    assert np.mean(covered) > 0.8


def test_a_seed_gives_the_same_intervals_and_another_one_others():
    chance = np.random.default_rng(6)
    q = domains(chance, 4)
    sources, documents = totals(chance, q), target_of(chance, q, np.full(4, 0.25), 100)

    def run(seed: int):
        return fit_mixture(sources, documents, MixtureOptions(replicates=10, seed=seed))

    first, again, other = run(1), run(1), run(2)
    for name in ("weights", "standard_error", "lower", "upper", "alignment"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes()
    assert first.weights.tobytes() == other.weights.tobytes()
    assert first.standard_error.tobytes() != other.standard_error.tobytes()


def test_intervals_of_dropped_sources_are_zero_and_of_no_bootstrap_unknown():
    chance = np.random.default_rng(7)
    q = domains(chance, 4)
    sources, documents = totals(chance, q), target_of(chance, q, np.array([0.6, 0.4, 0, 0]), 100)
    few = fit_mixture(sources, documents, MixtureOptions(replicates=10, max_sources=2))
    dropped = few.weights == 0
    assert dropped.sum() == 2 and not few.upper[dropped].any() and np.all(few.standard_error[~dropped] > 0)
    assert np.isnan(fit_mixture(sources, documents, ALONE).upper).all()


def test_parts_of_a_target_are_equally_large_and_decided_by_the_text():
    content_hash = np.random.default_rng(8).integers(0, 2**64, 20_000, dtype=np.uint64)
    part = part_of(content_hash, 50)
    assert part.min() == 0 and part.max() == 49
    assert np.bincount(part).min() > 300
    np.testing.assert_array_equal(part_of(content_hash[::-1], 50), part[::-1])


# --- what is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "parts", "caps", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), None, "as many buckets"),
        (np.zeros((2, 3)), np.ones((2, 3)), None, "pool: no n-grams"),
        (np.ones((2, 3)), np.zeros((2, 3)), None, "target: no n-grams"),
        (np.ones((2, 3)), np.ones((1, 3)), None, "target: 1 part"),
        (np.ones((2, 3)), np.ones((2, 3)), [0.5, 0.4], r"caps: those of all sources sum to 0\.9"),
        (np.ones((2, 3)), np.ones((2, 3)), [0.5, -0.4], "expected 2 numbers from 0 on"),
        (np.ones((2, 3)), np.ones((2, 3)), [1.0], "expected 2 numbers from 0 on"),
    ],
)
def test_what_cannot_be_mixed_is_refused(sources, parts, caps, message):
    with pytest.raises(ValueError, match=message):
        fit_mixture(sources.astype(np.int64), parts.astype(np.int64), caps=caps)


@pytest.mark.parametrize(
    ("field", "value"),
    [("smoothing", 0.0), ("max_sources", 0), ("replicates", 1), ("confidence", 1.0), ("seed", -1)],
)
def test_options_out_of_range_name_the_field(field, value):
    with pytest.raises(ValueError, match=f"{field}: {value}; expected"):
        MixtureOptions(**{field: value})
