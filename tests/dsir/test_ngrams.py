"""N-grams that are not hashed: every one told apart, counted as they stand, and hashed as specified."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.evaluation import distribution, kl_divergence
from dsir.explain import tokenize
from dsir.features import FeatureSpec, featurize, hash_strings
from dsir.ngrams import Occurrences, number_ngrams

SPEC = FeatureSpec(buckets=1000)
texts_of_few_words = st.lists(
    st.lists(st.sampled_from(["a", "b", "ab", "A", "é", ".", "a.b", "\n"]), max_size=12).map(" ".join),
    min_size=1,
    max_size=6,
)


def counted(text, spec):
    words = tokenize(text, spec)
    return Counter(
        " ".join(words[i : i + n]) for n in range(1, spec.ngrams + 1) for i in range(len(words) - n + 1)
    )


def xxh64(ngram):
    return int(hash_strings(pa.array([ngram]))[0])


@pytest.mark.parametrize("spec", [SPEC, FeatureSpec(ngrams=1), FeatureSpec(ngrams=4, tokenizer="whitespace")])
@settings(deadline=None, max_examples=60)
@given(texts=texts_of_few_words)
def test_every_document_has_the_ngrams_of_its_words(spec, texts):
    ngrams = number_ngrams(texts, spec)
    assert len(set(ngrams.hashes.tolist())) == len(ngrams.hashes)  # one number an n-gram
    for i, text in enumerate(texts):
        numbers = Counter(ngrams.number[ngrams.document == i].tolist())
        found = {int(ngrams.hashes[number]): count for number, count in numbers.items()}
        assert found == {xxh64(ngram): count for ngram, count in counted(text, spec).items()}


@settings(deadline=None, max_examples=60)
@given(texts=texts_of_few_words, data=st.data())
def test_totals_of_the_three_views_are_sums_over_documents(texts, data):
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts))))
    ngrams, features = number_ngrams(texts, SPEC), featurize(pa.array(texts), SPEC)
    expected = Counter()
    for text, n in zip(texts, times.tolist(), strict=True):
        for ngram, count in counted(text, SPEC).items():
            expected[ngram] += n * count
    assert ngrams.distinct(times) == (sum(n > 0 for n in expected.values()), expected.total())

    totals = Occurrences.of_features(features, 1000).totals(times)
    np.testing.assert_array_equal(totals, sum(n * features.dense(i, 1000) for i, n in enumerate(times)))

    hashed = np.zeros(97, int)
    for ngram, count in expected.items():
        hashed[xxh64(ngram) % 97] += count
    np.testing.assert_array_equal(ngrams.buckets(97).totals(times), hashed)

    first = np.arange(len(texts)) == 0
    known = ngrams.known(first)
    vocabulary = counted(texts[0], SPEC)
    assert known.size == len(vocabulary) + 1
    totals = known.totals(times)
    assert sorted(totals[:-1]) == sorted(expected[ngram] for ngram in vocabulary)
    assert totals[-1] == sum(count for ngram, count in expected.items() if ngram not in vocabulary)


def test_distinct_ngrams_of_texts_whose_number_is_known():
    ngrams = number_ngrams(["to be or not to be", "", "be"], SPEC)
    # to, be, or, not; to be, be or, or not, not to
    assert ngrams.distinct(np.array([1, 0, 0])) == (8, 11)
    assert ngrams.distinct(np.array([0, 1, 0])) == (0, 0)
    assert ngrams.distinct(np.array([1, 1, 2])) == (8, 13)
    repeated = number_ngrams(["spam " * 500], SPEC)
    assert repeated.distinct(np.array([1])) == (2, 999)


def test_an_ngram_does_not_reach_over_the_end_of_its_document():
    ngrams = number_ngrams(["a b", "c", "d"], FeatureSpec(ngrams=3))
    known = set(ngrams.hashes.tolist())
    assert known == {xxh64(ngram) for ngram in ("a", "b", "a b", "c", "d")}


def test_words_that_joined_look_alike_are_different_ngrams_until_they_are_hashed():
    """A custom tokenizer may return words with spaces."""
    spec = FeatureSpec(tokenizer="tests.dsir.test_ngrams:split_at_bars")
    ngrams = number_ngrams(["a b|c", "a|b c"], spec)
    assert len(ngrams.hashes) == 6
    assert len(set(ngrams.hashes.tolist())) == 5


def split_at_bars(text):
    return text.split("|")


def test_nothing_at_all():
    for texts in ([], ["", " "]):
        ngrams = number_ngrams(texts, SPEC)
        times = np.ones(len(texts), np.int64)
        assert ngrams.distinct(times) == (0, 0)
        assert ngrams.known(times > 0).totals(times).tolist() == [0]


@settings(deadline=None, max_examples=60)
@given(texts=texts_of_few_words)
def test_kl_divergence_over_ngrams_is_never_negative_and_zero_of_equal_samples(texts):
    ngrams = number_ngrams([*texts, *texts[::-1]], SPEC)
    ours = np.arange(2 * len(texts)) < len(texts)
    for view in (ngrams.known(ours), ngrams.buckets(40_009)):
        p, q = (distribution(view.totals(times.astype(int)), 0.5) for times in (ours, ~ours))
        assert kl_divergence(p, q) == pytest.approx(0, abs=1e-12)
        one = distribution(view.totals((np.arange(len(ours)) == 0).astype(int)), 0.5)
        assert kl_divergence(p, one) >= -1e-12


def test_sums_over_documents_are_those_of_their_features():
    texts = ["a b a", "", "c", "b b b"]
    features = featurize(pa.array(texts), SPEC)
    value = np.random.default_rng(0).normal(size=1000)
    view = Occurrences.of_features(features, 1000)
    expected = [features.dense(i, 1000) @ value for i in range(4)]
    assert view.sums(value, 4) == pytest.approx(expected)
    assert view.of(np.array([False, True, False, True])).sums(value, 4) == pytest.approx(
        [0, 0, 0, expected[3]]
    )
