"""Measures of a selection: divergences, effective sample size, n-gram totals of picked documents."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.evaluation import (
    INDEPENDENT,
    CrossEntropies,
    EffectiveSampleSize,
    contained,
    cross_entropy,
    distinct,
    distribution,
    draw,
    duplicates,
    independent_distribution,
    interval,
    kl_divergence,
    kl_reduction,
    masked_totals,
    overlap,
)
from dsir.features import Features, FeatureSpec, featurize
from dsir.importance import log_weights
from dsir.noise import gumbel_noise

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


# --- KL reduction by documents, and its interval ------------------------------------------------------


def hashes(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def cross_entropies(target: np.ndarray, q: np.ndarray, content_hash=None, cuts=(), smoothing=0.5):
    """Cross-entropies of target documents, counts of shape (n, buckets), that come in batches."""
    cross = CrossEntropies(q, smoothing)
    content_hash = hashes(len(target)) if content_hash is None else content_hash
    batches = zip(np.split(target, cuts), np.split(content_hash, cuts), strict=True)
    for counts, batch_hash in batches:
        features = sparse(counts)
        cross.add(batch_hash, features.n_ngrams, log_weights(features, cross.log_q))
    return cross


def reduction_of(cross: CrossEntropies, seed: str = "") -> tuple[float, float, float]:
    """KL reduction of the second distribution over the first, and its interval."""
    raw, selected = cross.values
    replicates = cross.replicates(seed)
    return raw - selected, *interval(replicates[:, 0] - replicates[:, 1])


@settings(max_examples=50, deadline=None)
@given(data=st.data(), smoothing=smoothings)
def test_the_difference_of_two_cross_entropies_is_the_kl_reduction(data, smoothing):
    documents = np.array(data.draw(st.lists(histograms, min_size=1, max_size=6)))
    raw, selected = data.draw(histograms), data.draw(histograms)
    q = np.array([distribution(raw, smoothing), distribution(selected, smoothing)])
    raw_entropy, selected_entropy = cross_entropies(documents, q, smoothing=smoothing).values
    expected = kl_reduction(documents.sum(axis=0), raw, selected, smoothing)
    assert raw_entropy - selected_entropy == pytest.approx(expected, rel=1e-6, abs=1e-9)


def some_domain(n: int, seed: int, buckets: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Target documents of very different length and composition, and the pool's and a selection's distribution."""
    rng = np.random.default_rng(1)
    pool, domain = rng.dirichlet(np.full(buckets, 0.3), 2)
    rng = np.random.default_rng([seed, n])
    shares = rng.dirichlet(50 * domain, n)
    counts = np.array(
        [rng.multinomial(length, p) for length, p in zip(rng.integers(20, 400, n), shares, strict=True)]
    )
    raw, selected = (1e5 * pool).astype(int), (1e5 * (0.5 * pool + 0.5 * domain)).astype(int)
    return counts, np.array([distribution(raw, 0.5), distribution(selected, 0.5)])


def test_neither_the_order_of_the_target_nor_its_batches_change_the_reduction_or_the_interval():
    counts, q = some_domain(60, seed=3)
    content_hash = hashes(60)
    expected = reduction_of(cross_entropies(counts, q, content_hash))
    for seed, cuts in ((0, ()), (1, (1, 1, 30)), (2, (59,))):
        order = np.random.default_rng(seed).permutation(60)
        found = reduction_of(cross_entropies(counts[order], q, content_hash[order], cuts))
        assert found == pytest.approx(expected, rel=1e-9)


def test_the_interval_is_the_same_whenever_it_is_taken_and_hardly_another_under_another_seed():
    cross = cross_entropies(*some_domain(300, seed=4))
    (value, *first), (_, *again), (_, *other) = (reduction_of(cross, seed) for seed in ("a", "a", "b"))
    assert first == again != other
    assert other == pytest.approx(first, abs=0.15 * (first[1] - first[0]))
    assert first[0] < value < first[1]


def test_the_interval_of_sixteen_times_the_documents_is_a_fourth_as_wide():
    widths = []
    for n in (100, 1600):
        _, low, high = reduction_of(cross_entropies(*some_domain(n, seed=5)))
        widths.append(high - low)
    assert 3 < widths[0] / widths[1] < 5


def test_most_intervals_hold_the_reduction_on_all_documents_of_the_domain():
    counts, q = some_domain(3000, seed=6)
    truth = reduction_of(cross_entropies(counts, q))[0]
    held = 0
    for part in np.split(counts, 30):
        _, low, high = reduction_of(cross_entropies(part, q))
        held += low < truth < high
    assert held >= 25


def test_a_target_of_equal_documents_has_an_interval_of_no_width():
    counts, q = some_domain(1, seed=7)
    value, low, high = reduction_of(cross_entropies(np.repeat(1000 * counts, 200, axis=0), q))
    assert high - low < 1e-3 * value


def test_equal_distributions_reduce_nothing_whatever_documents_are_drawn():
    counts, q = some_domain(50, seed=8)
    assert reduction_of(cross_entropies(counts, q[[1, 1]])) == (0, 0, 0)


# --- the headline figure: unsmoothed held-out counts, picks mixed with 1 % uniform -----------------------


@given(counts=histograms)
def test_one_hundredth_of_the_distribution_of_a_pick_is_uniform(counts):
    q = independent_distribution(counts)
    assert q.sum() == pytest.approx(1, rel=1e-12) and np.all(q > 0)
    share = counts[3] / counts.sum() if counts.sum() else 1 / BUCKETS
    assert q[3] == pytest.approx(0.99 * share + 0.01 / BUCKETS, rel=1e-12)


@given(counts=histograms.filter(np.any), q=histograms.map(independent_distribution), times=st.integers(2, 9))
def test_the_cross_entropy_is_the_direct_formula_and_does_not_change_when_everything_is_repeated(
    counts, q, times
):
    total = sum(counts.tolist())
    direct = -math.fsum(c / total * math.log(x) for c, x in zip(counts.tolist(), q, strict=True))
    assert cross_entropy(counts, q) == pytest.approx(direct, rel=1e-12)
    assert cross_entropy(times * counts, q) == pytest.approx(direct, rel=1e-12)
    assert independent_distribution(times * counts) == pytest.approx(
        independent_distribution(counts), rel=1e-12
    )


@settings(max_examples=10, deadline=None)
@given(documents=st.lists(histograms, min_size=1, max_size=6).map(np.array).filter(np.any), other=histograms)
def test_the_bootstrap_serves_unsmoothed_counts(documents, other):
    q = np.array([independent_distribution(other), independent_distribution(documents[0])])
    cross = cross_entropies(documents, q, smoothing=0.0)
    expected = [cross_entropy(documents.sum(axis=0), each) for each in q]
    assert cross.values == pytest.approx(expected, rel=1e-9)
    assert np.isfinite(cross.replicates("")).all()  # though most draws of one document have none


def test_an_interval_of_unsmoothed_counts_stays_the_same_when_every_document_is_there_three_times():
    counts, q = some_domain(60, seed=10)
    once = reduction_of(cross_entropies(counts, q, hashes(60), smoothing=0.0))
    often = np.repeat(np.arange(60), 3)
    thrice = reduction_of(cross_entropies(counts[often], q, hashes(60)[often], smoothing=0.0))
    assert thrice == pytest.approx(once, rel=1e-9)


def test_few_held_out_counts_do_not_drown_in_many_buckets():
    """Pseudo-counts on the target's side shrink the figure with the number of buckets; shares do not."""
    rng = np.random.default_rng(11)
    leads, papers = [], []
    for buckets in (2_000, 64_000):
        # The same features in more buckets: all texts use the first 1,000, the target's half of the pick's.
        target, pool = (rng.dirichlet(np.full(1_000, 0.3)) for _ in range(2))
        held_out, raw, pick = (np.zeros(buckets, np.int64) for _ in range(3))
        held_out[:1_000] = rng.multinomial(5_000, target)
        raw[:1_000] = 1e6 * pool
        pick[:1_000] = 1e6 * (0.5 * pool + 0.5 * target)
        q = [independent_distribution(each) for each in (raw, pick)]
        leads.append(cross_entropy(held_out, q[0]) - cross_entropy(held_out, q[1]))
        papers.append(kl_reduction(held_out, raw, pick, 0.5))
    assert leads[1] > 0.8 * leads[0]
    assert papers[1] < 0.4 * papers[0]


def test_a_small_sample_may_turn_the_sign_that_whole_picks_have():
    """A narrow pick is hardly worse than a broad one as long as neither has the rare words."""
    rng = np.random.default_rng(12)
    words, others = 3_000, 500
    target = np.zeros(words + others)
    target[:words] = 1 / np.arange(10, words + 10)
    target /= target.sum()
    foreign = np.zeros(words + others)
    foreign[words:] = 1 / others
    narrow = np.where(np.arange(words + others) < 400, target, 0)
    broad = 0.7 * target + 0.3 * foreign
    held_out = rng.multinomial(20_000, target)
    n_ngrams, content_hash = np.full(2_000, 100), hashes(2_000, seed=12)
    picks = [rng.multinomial(100, p / p.sum(), 2_000) for p in (narrow, broad)]

    def lead_of_broad(wanted: int) -> float:
        at = draw(n_ngrams, content_hash, wanted)
        ours = [cross_entropy(held_out, independent_distribution(each[at].sum(axis=0))) for each in picks]
        return ours[0] - ours[1]

    assert lead_of_broad(2_000) < -0.1
    assert lead_of_broad(200_000) > 0.5


def test_the_independent_buckets_say_nothing_about_those_that_select():
    """N-grams that share a bucket of a selecting hash lie in any bucket of the headline's."""
    assert INDEPENDENT.hash == "sha256"
    for hash, buckets in (("fast", 10_000), ("fast", 40_009), ("fast", 65_536), ("sha256", 10_000)):
        words = pa.array([f"word{i}" for i in range(20_000)])
        mine, theirs = (
            featurize(words, replace(spec, ngrams=1)).buckets.astype(np.int64)
            for spec in (INDEPENDENT, FeatureSpec(buckets=buckets, hash=hash))
        )
        # Ranks of buckets correlate with a standard deviation of 1 / sqrt(20,000) if they are independent ...
        assert abs(np.corrcoef(mine, theirs)[0, 1]) < 4 / math.sqrt(len(words))
        # ... and so do those of neighbours, whose high bits are the same.
        near = np.argsort(theirs, kind="stable")
        assert abs(np.corrcoef(mine[near][1:], mine[near][:-1])[0, 1]) < 4 / math.sqrt(len(words))


# --- samples of equal size ---------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    wanted=st.integers(1, 20_000),
    seed=st.integers(0, 5),
)
def test_a_sample_reaches_the_wanted_size_to_within_one_document(lengths, wanted, seed):
    n_ngrams, content_hash = np.array(lengths), hashes(len(lengths), seed)
    at = draw(n_ngrams, content_hash, wanted)
    drawn = int(n_ngrams[at].sum())
    assert len(np.unique(at)) == len(at) >= 1
    assert drawn <= wanted or len(at) == 1
    if len(at) < len(lengths):
        assert drawn > wanted - max(lengths)


def test_a_sample_is_drawn_by_content_alone_and_a_smaller_one_is_part_of_it():
    n_ngrams, content_hash = np.random.default_rng(9).integers(1, 300, 200), hashes(200)
    drawn = {wanted: set(content_hash[draw(n_ngrams, content_hash, wanted)]) for wanted in (500, 5000)}
    assert drawn[500] < drawn[5000]
    order = np.random.default_rng(10).permutation(200)
    at = draw(n_ngrams[order], content_hash[order], 5000)
    assert set(content_hash[order][at]) == drawn[5000]


def test_a_sample_does_not_follow_the_noise_that_selections_are_drawn_with():
    content_hash = hashes(2000)
    at = draw(np.ones(2000, np.int64), content_hash, 500)
    best = np.argsort(-gumbel_noise(content_hash, 0, "picked/medicine"))[:500]
    assert 0.15 < overlap(at, np.sort(best)) < 0.35


# --- agreement, duplicates, leakage ------------------------------------------------------------------


def test_overlap_is_the_share_of_our_documents():
    assert overlap(np.array([1, 2, 3, 4]), np.array([3, 4, 5])) == 0.5
    assert overlap(np.array([3, 4, 5]), np.array([1, 2, 3, 4])) == pytest.approx(2 / 3)
    assert overlap(np.array([1]), np.array([], int)) == overlap(np.array([], int), np.array([1])) == 0


@given(st.lists(st.integers(0, 20), max_size=40), st.sets(st.integers(0, 20)))
def test_duplicates_and_leakage_are_counted_by_content(contents, known):
    content_hash = np.array(contents, np.uint64)
    assert duplicates(content_hash) == len(contents) - len(set(contents))
    assert distinct(content_hash).tolist() == sorted(set(contents))
    found = contained(content_hash, np.array(sorted(known), np.uint64))
    assert found.tolist() == [content in known for content in contents]


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


def test_masked_totals_of_documents_that_were_picked_several_times():
    dense = some_counts(40, seed=11)
    times = np.random.default_rng(12).integers(0, 4, (2, 40)).astype(np.uint16)
    totals = np.zeros((2, 200), np.int64)
    masked_totals(sparse(dense), times, totals)
    np.testing.assert_array_equal(totals, times.astype(int) @ dense)


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
