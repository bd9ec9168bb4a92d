"""Measures of a selection: divergences, effective sample size, n-gram totals of picked documents."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.evaluation import EffectiveSampleSize, distribution, kl_divergence, kl_reduction, masked_totals
from dsir.features import Features

BUCKETS = 12
histograms = st.lists(st.integers(0, 10_000), min_size=BUCKETS, max_size=BUCKETS).map(np.array)
smoothings = st.sampled_from([1e-3, 0.5, 1.0, 10.0])


def sparse(dense: np.ndarray) -> Features:
    """Features of the counts of n documents, shape (n, buckets)."""
    documents, buckets = np.nonzero(dense)
    return Features(
        np.searchsorted(documents, np.arange(len(dense) + 1)).astype(np.int64),
        buckets.astype(np.uint16),
        dense[documents, buckets].astype(np.uint32),
        dense.sum(axis=1).astype(np.int64),
        np.arange(len(dense), dtype=np.uint64),
    )


def some_counts(n: int, seed: int, buckets: int = 200) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 9, (n, buckets)) * (rng.random((n, buckets)) < 0.2)


def direct_kl(p_counts, q_counts, smoothing: float) -> float:
    """KL divergence written out term by term."""
    p_total = math.fsum(c + smoothing for c in p_counts)
    q_total = math.fsum(c + smoothing for c in q_counts)
    terms = []
    for p_count, q_count in zip(p_counts.tolist(), q_counts.tolist(), strict=True):
        p, q = (p_count + smoothing) / p_total, (q_count + smoothing) / q_total
        terms.append(p * math.log(p / q))
    return math.fsum(terms)


# --- divergences -------------------------------------------------------------------------------------


@given(counts=histograms, smoothing=smoothings)
def test_a_distribution_has_no_zeros_and_adds_up_to_one(counts, smoothing):
    p = distribution(counts, smoothing)
    assert np.all(p > 0)
    assert p.sum() == pytest.approx(1, rel=1e-12)
    assert p[3] == pytest.approx((counts[3] + smoothing) / (counts.sum() + BUCKETS * smoothing), rel=1e-12)


@given(one=histograms, other=histograms, smoothing=smoothings)
def test_kl_divergence_is_never_negative_and_equals_the_direct_formula(one, other, smoothing):
    found = kl_divergence(distribution(one, smoothing), distribution(other, smoothing))
    assert found >= -1e-12
    assert found == pytest.approx(direct_kl(one, other, smoothing), rel=1e-9, abs=1e-12)


@given(counts=histograms, smoothing=smoothings)
def test_kl_divergence_of_a_distribution_from_itself_is_zero(counts, smoothing):
    p = distribution(counts, smoothing)
    assert kl_divergence(p, p.copy()) == 0.0


def test_kl_divergence_is_in_nats():
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    assert kl_divergence(p, q) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), rel=1e-14)


@given(target=histograms, raw=histograms, selected=histograms, smoothing=smoothings)
def test_kl_reduction_is_the_divergence_from_the_pool_less_that_from_the_selection(
    target, raw, selected, smoothing
):
    expected = direct_kl(target, raw, smoothing) - direct_kl(target, selected, smoothing)
    found = kl_reduction(target, raw, selected, smoothing)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-11)


@given(target=histograms, raw=histograms)
def test_selecting_the_whole_pool_reduces_nothing_and_the_target_itself_is_the_most(target, raw):
    assert kl_reduction(target, raw, raw, 0.5) == 0.0
    assert kl_reduction(target, raw, target, 0.5) == pytest.approx(
        direct_kl(target, raw, 0.5), rel=1e-9, abs=1e-12
    )


def test_kl_reduction_does_not_depend_on_the_order_of_the_documents():
    dense, picked = some_counts(50, seed=1), np.arange(50) < 20
    target = some_counts(1, seed=2)[0]
    reductions = set()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(50)
        totals = np.zeros((2, 200), np.int64)
        masks = np.stack([np.ones(50, bool), picked[order]])
        masked_totals(sparse(dense[order]), masks, totals)
        reductions.add(kl_reduction(target, totals[0], totals[1], 0.5))
    expected = direct_kl(target, dense.sum(axis=0), 0.5) - direct_kl(target, dense[:20].sum(axis=0), 0.5)
    assert len(reductions) == 1
    assert reductions.pop() == pytest.approx(expected, rel=1e-9)


# --- effective sample size ---------------------------------------------------------------------------


def effective(batches) -> float:
    size = EffectiveSampleSize()
    for batch in batches:
        size.add(np.asarray(batch, dtype=np.float64))
    return size.value


@settings(max_examples=200)
@given(
    weights=st.lists(st.floats(-30, 30), min_size=1, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    shift=st.sampled_from([0.0, 700.0, -700.0, 5000.0, -5000.0]),
)
def test_effective_sample_size_equals_the_direct_formula_for_batches_of_any_size(weights, cuts, shift):
    w = [math.exp(x) for x in weights]
    expected = math.fsum(w) ** 2 / math.fsum(x * x for x in w)
    batches = np.split(np.array(weights) + shift, sorted(cuts))
    # Adding the shift rounds the log weights: up to half of the spacing of doubles there.
    assert effective(batches) == pytest.approx(expected, rel=1e-12 + 4 * np.spacing(abs(shift) + 30))


def test_log_weights_beyond_the_range_of_a_float_do_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert effective([[-1e6, -1e6], [1e6], [1e6, 0.0]]) == pytest.approx(2.0)
        assert effective([[1e6, 1e6, 1e6], [-1e6]]) == pytest.approx(3.0)


def test_equal_weights_are_as_effective_as_there_are_documents_and_one_outweighing_all_counts_as_one():
    assert effective([np.full(1000, -123.0), np.full(500, -123.0)]) == pytest.approx(1500)
    assert effective([np.zeros(1000), [200.0], np.zeros(1000)]) == pytest.approx(1)


def test_effective_sample_size_of_nothing_is_zero_and_empty_batches_change_nothing():
    assert effective([]) == 0.0
    assert effective([[], []]) == 0.0
    assert effective([[], [1.0, 2.0], []]) == effective([[1.0, 2.0]])


# --- totals of picked documents ----------------------------------------------------------------------


@pytest.mark.parametrize("n_masks", [1, 4])
def test_masked_totals_are_the_sums_of_the_masked_documents(n_masks):
    dense = some_counts(80, seed=3)
    masks = np.random.default_rng(4).random((n_masks, 80)) < 0.4
    totals = np.zeros((n_masks, 200), np.int64)
    masked_totals(sparse(dense), masks, totals)
    np.testing.assert_array_equal(totals, masks.astype(int) @ dense)


def test_masked_totals_add_to_what_is_there_so_batches_sum_up_to_the_whole():
    dense = some_counts(80, seed=5)
    masks = np.random.default_rng(6).random((3, 80)) < 0.5
    totals = np.zeros((3, 200), np.int64)
    for first, last in ((0, 1), (1, 1), (1, 50), (50, 80)):
        part = Features.from_arrow(sparse(dense).to_arrow().slice(first, last - first))
        masked_totals(part, masks[:, first:last], totals)
    np.testing.assert_array_equal(totals, masks.astype(int) @ dense)


def test_a_mask_of_no_document_leaves_its_totals_and_one_of_all_gives_the_pool():
    dense = some_counts(30, seed=7)
    totals = np.zeros((2, 200), np.int64)
    masked_totals(sparse(dense), np.stack([np.zeros(30, bool), np.ones(30, bool)]), totals)
    np.testing.assert_array_equal(totals, [np.zeros(200), dense.sum(axis=0)])


def test_masked_totals_do_not_wrap_at_32_bits():
    dense = np.array([[2**32 - 1], [2**32 - 1], [2**32 - 1]])
    totals = np.zeros((1, 1), np.int64)
    masked_totals(sparse(dense), np.ones((1, 3), bool), totals)
    assert totals[0, 0] == 3 * (2**32 - 1)
