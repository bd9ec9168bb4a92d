"""The explanation of a log weight is the log weight."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.explain import explain
from dsir.features import FeatureSpec, featurize
from dsir.importance import log_weights

TEXTS = st.text(max_size=80) | st.lists(
    st.sampled_from(["Alice", "went", "to", "İstanbul", "ΟΔΟΣ", "a-b", "1,000", "extraordinarily", "é"]),
    max_size=30,
).map(" ".join)


def letters(text):
    """A custom tokenizer."""
    return list(text.replace(" ", ""))


@pytest.mark.parametrize("hash_", ["fast", pytest.param("sha256", marks=pytest.mark.slow)])
@pytest.mark.parametrize("tokenizer", ["wordpunct", "whitespace", f"{__name__}:letters"])
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, ngrams=st.integers(1, 3))
def test_contributions_add_up_to_the_kernels_log_weight(hash_, tokenizer, text, ngrams):
    spec = FeatureSpec(tokenizer=tokenizer, ngrams=ngrams, buckets=997, hash=hash_)
    log_ratio = np.random.default_rng(0).normal(size=spec.buckets)
    features = featurize(pa.array([text]), spec)
    contributions = explain(text, spec, log_ratio)
    counts = np.zeros(spec.buckets, dtype=np.int64)
    for each in contributions:
        counts[each.bucket] += each.count
    assert np.array_equal(counts, features.dense(0, spec.buckets))
    [[expected]] = log_weights(features, log_ratio[None, :])
    assert sum(each.nats for each in contributions) == pytest.approx(expected, abs=1e-9)


def test_contributions_are_sorted_and_name_their_ngrams():
    spec = FeatureSpec(buckets=10_000, hash="sha256")
    log_ratio = np.zeros(10_000)
    log_ratio[6720], log_ratio[114] = 2.0, -1.0  # `alice` and `alice went`, as in the reference
    found = explain("Alice went. Alice!", spec, log_ratio)
    assert (found[0].ngram, found[0].count, found[0].nats) == ("alice", 2, 4.0)
    assert (found[-1].ngram, found[-1].count, found[-1].nats) == ("alice went", 1, -1.0)
