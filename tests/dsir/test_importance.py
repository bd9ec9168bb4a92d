"""Importance weights: log ratios, log weights, their length and temperature, and the sample that is fitted on."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np
import pytest
from data_selection import HashedNgramDSIR
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.evaluation import EffectiveSampleSize
from dsir.features import Features
from dsir.importance import (
    Weigher,
    correct_for_length,
    fit_threshold,
    log_ratios,
    log_weights,
    solve_temperature,
)


def sparse(dense: np.ndarray) -> Features:
    """Features of the counts of n documents, shape (n, buckets)."""
    documents, buckets = np.nonzero(dense)
    offsets = np.searchsorted(documents, np.arange(len(dense) + 1)).astype(np.int64)
    dtype = np.uint16 if dense.shape[1] <= 2**16 else np.uint32
    return Features(
        offsets,
        buckets.astype(dtype),
        dense[documents, buckets].astype(np.uint32),
        dense.sum(axis=1).astype(np.int64),
        np.arange(len(dense), dtype=np.uint64),
    )


def some_counts(n: int, buckets: int, seed: int, share: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 50, (n, buckets)) * (rng.random((n, buckets)) < share)


@pytest.fixture
def counts() -> tuple[np.ndarray, np.ndarray]:
    """N-gram totals of a target and a pool; each has buckets that the other lacks, and some lack both."""
    target, raw = some_counts(2, 1000, seed=1, share=0.7)
    raw = raw * 100
    assert np.any((target == 0) & (raw > 0)) and np.any((target > 0) & (raw == 0))
    assert np.any((target == 0) & (raw == 0))
    return target, raw


# --- log ratios --------------------------------------------------------------------------------------


def test_log_ratios_are_the_difference_of_log_probabilities_with_an_epsilon(counts):
    target, raw = counts
    expected = np.log(target / target.sum() + 1e-8) - np.log(raw / raw.sum() + 1e-8)
    np.testing.assert_array_equal(log_ratios(target, raw), expected)


def test_log_ratios_are_the_numbers_of_the_reference_fitted_on_the_same_counts(counts, tmp_path):
    target, raw = counts

    class FittedOnCounts(HashedNgramDSIR):
        def _fit_bow(self, paths, **_):
            return {"raw": raw, "target": target}[paths[0]]

    reference = FittedOnCounts(["raw"], ["target"], str(tmp_path), num_proc=1)
    reference.fit_importance_estimator(num_tokens_to_fit="all")
    np.testing.assert_array_equal(log_ratios(target, raw), reference.log_diff)


def test_a_bucket_of_equal_probability_has_log_ratio_zero_and_one_unseen_by_the_target_is_negative():
    ratios = log_ratios(np.array([5, 5, 0]), np.array([50, 25, 25]))
    assert ratios[0] == 0.0
    assert ratios[1] > 0
    assert ratios[2] == pytest.approx(np.log(1e-8) - np.log(0.25 + 1e-8), rel=1e-15)


def test_target_smoothing_adds_pseudo_counts_to_every_bucket_of_the_target_alone(counts):
    target, raw = counts
    smoothed = (target + 0.25) / (target + 0.25).sum()
    expected = np.log(smoothed + 1e-8) - np.log(raw / raw.sum() + 1e-8)
    np.testing.assert_allclose(log_ratios(target, raw, 0.25), expected, rtol=1e-14)


def test_smoothing_of_zero_is_no_smoothing(counts):
    np.testing.assert_array_equal(log_ratios(*counts, 0.0), log_ratios(*counts))


def test_more_smoothing_brings_the_target_closer_to_uniform(counts):
    target, raw = counts
    uniform = np.log(1 / len(raw) + 1e-8) - np.log(raw / raw.sum() + 1e-8)
    distances = [np.abs(log_ratios(target, raw, s) - uniform).max() for s in (0.01, 1.0, 100.0, 1e6)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


def test_log_ratios_leave_the_counts_as_they_are(counts):
    before = [each.copy() for each in counts]
    log_ratios(*counts, 1.0)
    np.testing.assert_array_equal(before, counts)


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
@pytest.mark.parametrize(
    ("target", "raw", "message"),
    [
        ([0, 0, 0], [1, 2, 3], "the target has no n-grams"),
        ([1, 2, 3], [0, 0, 0], "the raw pool has no n-grams"),
        ([1, 2, 3], [1, 2], r"target has \(3,\) buckets, the pool \(2,\)"),
    ],
)
def test_counts_that_define_no_ratio_are_refused_by_name(target, raw, message, smoothing):
    with pytest.raises(ValueError, match=message):
        log_ratios(np.array(target), np.array(raw), smoothing)


# --- log weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("buckets", [257, 70_000])
@pytest.mark.parametrize("targets", [1, 3, 9])
def test_log_weights_are_the_dense_dot_product_for_every_target(targets, buckets):
    dense = some_counts(40, buckets, seed=2)
    ratios = np.random.default_rng(3).normal(0, 3, (targets, buckets))
    found = log_weights(sparse(dense), ratios)
    assert found.shape == (targets, 40) and found.dtype == np.float64
    error = np.abs(found - ratios @ dense.T)
    assert np.all(error <= 1e-12 * (np.abs(ratios) @ dense.T))


@pytest.mark.parametrize("targets", [2, 3, 4, 9])
def test_a_target_has_the_same_weights_alone_as_among_others(targets):
    """Several targets are weighed at once, over larger blocks of documents: here of more than one block."""
    features = sparse(some_counts(1_500, 1_000, seed=4, share=0.1))
    assert len(features.buckets) > 1 << 17
    batch, ratios = features.to_arrow(), np.random.default_rng(5).normal(0, 3, (targets, 1_000))
    together, n_ngrams = Weigher(ratios)(batch)
    assert np.array_equal(n_ngrams, features.n_ngrams)
    for alone, expected in zip(ratios, together, strict=True):
        np.testing.assert_array_equal(log_weights(batch, alone[None, :])[0], expected)
    for document in (0, 700, 1_499):
        np.testing.assert_array_equal(
            log_weights(batch.slice(document, 1), ratios)[:, 0], together[:, document]
        )


@pytest.mark.parametrize("n_ratios", [0, 1, 5])
def test_a_bucket_without_a_ratio_is_refused_whatever_the_form(n_ratios):
    features = sparse(np.eye(6, dtype=int)[n_ratios:])
    for form in (features, features.to_arrow()):
        with pytest.raises(ValueError, match=f"ratios: {n_ratios} buckets, and the features have bucket 5"):
            log_weights(form, np.zeros((1, n_ratios)))


@given(
    document=st.lists(st.integers(0, 3) | st.integers(0, 300), max_size=30),
    buckets=st.sampled_from([30, 70_000]),
)
def test_a_log_weight_is_added_up_in_twice_four_sums_on_every_machine(document, buckets):
    dense = np.zeros((1, buckets), np.int64)
    dense[0, : len(document)] = document
    [ratios] = log_ratio = np.random.default_rng(9).normal(0, 3, (1, buckets))

    def four_sums(at):
        counts_and_ratios = zip(dense[0, at], ratios[at], strict=True)
        terms = [float(count) * float(ratio) for count, ratio in counts_and_ratios]
        whole = len(terms) - len(terms) % 4
        # Not `sum`, which corrects for rounding from Python 3.12 on.
        a, b, c, d = (reduce(add, terms[lane:whole:4], 0.0) for lane in range(4))
        a = reduce(add, terms[whole:], a)
        return (a + b) + (c + d)

    once, repeated = np.flatnonzero(dense[0] == 1), np.flatnonzero(dense[0] > 1)
    assert log_weights(sparse(dense), log_ratio).item() == four_sums(once) + four_sums(repeated)


def test_a_document_without_ngrams_has_log_weight_zero():
    dense = np.array([[0, 0, 0], [1, 0, 2], [0, 0, 0]])
    found = log_weights(sparse(dense), np.array([[1.0, 10.0, 100.0]]))
    np.testing.assert_array_equal(found, [[0.0, 201.0, 0.0]])


def test_a_batch_without_documents_has_no_weights():
    assert log_weights(sparse(np.zeros((0, 5), int)), np.ones((2, 5))).shape == (2, 0)


def test_counts_beyond_sixteen_bits_are_weighed_in_full():
    dense = np.array([[2**32 - 1, 0], [70_000, 1]])
    np.testing.assert_array_equal(log_weights(sparse(dense), np.eye(2)), dense.T)


@pytest.mark.parametrize("largest", [255, 256, 70_000])
def test_features_that_were_stored_have_the_same_weights_to_the_bit(largest):
    dense = some_counts(20, 500, seed=3)
    dense[7, 11] = largest
    features = sparse(dense)
    ratios = np.random.default_rng(4).normal(size=(5, 500))
    again = Features.from_arrow(features.to_arrow())
    assert again.counts.dtype == (np.uint8 if largest <= 255 else np.uint32)
    np.testing.assert_array_equal(log_weights(again, ratios), log_weights(features, ratios))


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 60), max_size=6))
def test_a_batch_cut_in_any_way_gives_the_same_bits_as_the_whole(cuts):
    features = sparse(some_counts(60, 300, seed=6))
    ratios = np.random.default_rng(7).normal(0, 3, (2, 300))
    whole = log_weights(features, ratios)
    bounds = [0, *sorted(cuts), 60]
    parts = [
        log_weights(Features.from_arrow(features.to_arrow().slice(first, last - first)), ratios)
        for first, last in pairwise(bounds)
    ]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1).view(np.uint64), whole.view(np.uint64))


# --- the sample that is fitted on ---------------------------------------------------------------------

amounts = st.integers(1, 10**15)


@given(total=amounts, wanted=amounts)
def test_the_threshold_is_a_64_bit_hash_and_its_share_of_all_hashes_is_the_wanted_one(total, wanted):
    threshold = fit_threshold(total, wanted)
    assert 0 <= threshold < 2**64
    share = Fraction(threshold + 1, 2**64)
    assert abs(share - min(Fraction(wanted, total), 1)) <= Fraction(1, 2**64)


@given(total=amounts, one=amounts, other=amounts)
def test_who_wants_more_ngrams_gets_at_least_the_same_documents(total, one, other):
    less, more = sorted([one, other])
    assert fit_threshold(total, less) <= fit_threshold(total, more)


@pytest.mark.parametrize("wanted", [1000, 1001, 10**12])
def test_who_wants_the_whole_pool_gets_every_document(wanted):
    assert fit_threshold(1000, wanted) == 2**64 - 1


def test_the_documents_below_the_threshold_hold_about_the_wanted_ngrams():
    rng = np.random.default_rng(8)
    hashes = rng.integers(0, 2**64, 200_000, dtype=np.uint64)
    ngrams = rng.integers(50, 500, 200_000)
    total = int(ngrams.sum())
    for share in (0.01, 0.3, 0.9):
        fitted = ngrams[hashes <= np.uint64(fit_threshold(total, int(total * share)))].sum()
        assert fitted / total == pytest.approx(share, abs=0.005)


# --- length and temperature ---------------------------------------------------------------------------


def test_corrections_for_length_are_what_they_say():
    log_weight, n_ngrams, n_tokens = np.array([-30.0, 8.0]), np.array([9, 4]), np.array([5, 2])

    def corrected(length, **means):
        return correct_for_length(log_weight, length, n_ngrams, n_tokens, **means).tolist()

    assert corrected("none") == [-30.0, 8.0]
    assert corrected("per_ngram") == [-30 / 9, 2.0]
    assert corrected("sqrt") == [-10.0, 4.0]
    poisson = [w + math.log(math.exp(-4) * 4**n / (math.exp(-3) * 3**n)) for w, n in ((-30, 5), (8, 2))]
    assert corrected("poisson", mean_tokens=(4, 3)) == pytest.approx(poisson)


@given(seed=st.integers(0, 99), spread=st.floats(0.1, 300), share=st.floats(0.02, 0.9))
def test_a_solved_temperature_gives_what_is_asked_for_however_the_pool_is_cut(seed, spread, share):
    log_weight = np.random.default_rng(seed).normal(-50, spread, 500)
    batches = np.array_split(log_weight, 7)
    solved = solve_temperature(
        lambda f: map(f, [batches[:3], batches[3:]]), effective_sample_size=share * 500
    )
    assert solved == solve_temperature(lambda f: [f([log_weight])], effective_sample_size=share * 500)
    reached = EffectiveSampleSize()
    reached.add(log_weight / solved)
    assert reached.value == pytest.approx(share * 500, rel=0.02)
    solved = solve_temperature(lambda f: [f([each]) for each in batches], acceptance=share)
    weights = np.exp((log_weight - log_weight.max()) / solved)
    assert weights.mean() / weights.max() == pytest.approx(share, rel=0.02)


def test_a_temperature_that_there_is_not_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match=r"an acceptance of 0.1: with 2 documents it is from 0.5 to 1"):
        solve_temperature(lambda f: [f([np.array([0.0, -9.0])])], acceptance=0.1)
    with pytest.raises(ValueError, match="no documents"):
        solve_temperature(lambda f: [f([])], acceptance=0.1)


@given(
    documents=st.lists(
        st.lists(st.integers(1, 300) | st.sampled_from([70_000, 2**32 - 1]), max_size=12), max_size=12
    )
)
def test_large_counts_in_any_place_are_weighed_to_the_bit(documents):
    dense = np.zeros((len(documents), 12), np.int64)
    for row, document in zip(dense, documents, strict=True):
        row[: len(document)] = document
    features = sparse(dense)
    ratios = np.random.default_rng(5).normal(size=(2, 12))
    stored = log_weights(Features.from_arrow(features.to_arrow()), ratios)
    np.testing.assert_array_equal(stored, log_weights(features, ratios))
    np.testing.assert_allclose(stored, (dense @ ratios.T).T, rtol=1e-12, atol=1e-6)
