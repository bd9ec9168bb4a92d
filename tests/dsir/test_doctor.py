"""Signs of trouble: learning curves fall and end, crowded buckets are told, scripts without spaces are known."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsir.doctor import crowded_out, fragments, learning_curve, likeness, without_fragments, without_spaces
from dsir.evaluation import distribution, kl_divergence
from dsir.features import FeatureSpec, featurize
from dsir.importance import log_weights
from dsir.ngrams import hash_ngrams

SPEC = FeatureSpec(buckets=500)


def documents(n, seed, words=200, length=50):
    chance = np.random.default_rng(seed)
    return featurize(
        pa.array([" ".join(f"w{i}" for i in chance.zipf(1.5, length) % words) for _ in range(n)]), SPEC
    )


@given(st.permutations(range(37)), st.integers(1, 37))
def test_a_learning_curve_does_not_depend_on_order_or_batches(order, cut):
    features = documents(37, 0)
    others = documents(20, 1).totals(500)
    shuffled = features.to_arrow().take(pa.array(order))
    parts = [type(features).from_arrow(each) for each in (shuffled.slice(0, cut), shuffled.slice(cut))]
    curve = learning_curve(parts, others)
    assert curve == learning_curve([features], others)
    assert [point.documents for point in curve] == [1, 2, 4, 9, 18, 37]


def test_a_learning_curve_falls_and_ends_where_the_whole_is():
    features, others = documents(640, 2), documents(200, 3).totals(500)
    curve = learning_curve([features], others, 0.5)
    kls = [point.kl for point in curve]
    assert [point.documents for point in curve] == [10, 20, 40, 80, 160, 320, 640]
    assert kls == sorted(kls, reverse=True)
    assert kls[0] - kls[1] > 5 * (kls[-2] - kls[-1])
    p, q = distribution(others, 0.5), distribution(features.totals(500), 0.5)
    assert kls[-1] == pytest.approx(kl_divergence(p, q), abs=1e-12)
    assert curve[-1].ngrams == features.totals(500).sum()
    assert learning_curve([], others) == []


def test_n_grams_are_crowded_out_where_buckets_are_few():
    rare, common = ["one two"], ["three four five six seven eight"] * 20
    ngrams = hash_ngrams(pa.array([*rare, *common]), FeatureSpec())
    mine = np.arange(21) < 1
    assert crowded_out(ngrams, mine, 1) == 1.0
    assert crowded_out(ngrams, mine, 10**6) == 0.0
    assert 0 < crowded_out(ngrams, ~mine, 1) <= 1
    assert crowded_out(hash_ngrams(pa.array([""]), FeatureSpec()), np.ones(1, bool), 10) == 0.0


def test_likeness_is_the_log_weight_of_an_n_gram():
    features = featurize(pa.array(["a b a b", "", "c"]), SPEC)
    ratios = np.linspace(-1, 1, 500)
    values = likeness(features, ratios)
    assert np.isnan(values[1])
    weights = log_weights(features, ratios[None])[0]
    assert values[0] == pytest.approx(weights[0] / 7) and values[2] == pytest.approx(weights[2])


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("plain English, 123", 0),
        ("пробелы 단어 사이", 0),
        ("", 0),
        ("これは日本語です", 1),
        ("我能吞下玻璃而不伤身体", 1),
        ("ภาษาไทย", 1),
        ("ພາສາລາວ ភាសាខ្មែរ မြန်မာဘာသာ", 1),
        ("half 我能吞下", 1 / 2),
    ],
)
def test_scripts_without_spaces_are_known(text, share):
    assert without_spaces(text) == pytest.approx(share)


def test_fragments_are_counted_among_the_documents_that_are_long_enough():
    lengths, counts = np.array([5, 29, 30, 100, 900]), np.array([100, 3, 2, 5, 1])
    found = fragments(lengths, counts, min_tokens=10)
    assert (found.documents, found.short, found.median, found.mean) == (11, 3, 100, 29)
    assert fragments(lengths, counts, min_tokens=1000).documents == 0
    whole = fragments(lengths, counts, min_tokens=100)
    assert (whole.short, whole.mean) == (0, 0)


@pytest.mark.parametrize(("median", "advised"), [(142, 100), (40, 40), (2000, 600)])
def test_the_advised_minimum_is_the_papers_where_documents_are_of_usual_length(median, advised):
    assert without_fragments(median) == advised
