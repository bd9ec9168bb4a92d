"""N-grams as they are: every one told apart, counted as they stand, and added up by document."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.evaluation import distinct
from dsir.explain import tokenize
from dsir.features import FeatureSpec, featurize
from dsir.ngrams import Vocabulary, add_totals, hash_ngrams, sums

SPEC = FeatureSpec(buckets=1000)
texts_of_few_words = st.lists(
    st.lists(st.sampled_from(["a", "b", "ab", "A", "é", ".", "a.b", "\n", "İ"]), max_size=12).map(" ".join),
    min_size=1,
    max_size=6,
)


def counted(text, spec):
    """The n-grams of a text, each a tuple of words."""
    words = tokenize(text, spec)
    return Counter(
        tuple(words[i : i + n]) for n in range(1, spec.ngrams + 1) for i in range(len(words) - n + 1)
    )


def hash_of(ngram, spec):
    """The hash of an n-gram: the last of those of a text that is nothing else."""
    return int(hash_ngrams(pa.array([" ".join(ngram)]), spec).hashes[-1])


@pytest.mark.parametrize("spec", [SPEC, FeatureSpec(ngrams=1), FeatureSpec(ngrams=4, tokenizer="whitespace")])
@settings(deadline=None, max_examples=60)
@given(texts=texts_of_few_words)
def test_every_document_has_the_ngrams_of_its_words(spec, texts):
    ngrams = hash_ngrams(pa.array(texts), spec)
    names: dict[int, tuple[str, ...]] = {}
    for i, text in enumerate(texts):
        found = Counter(ngrams.hashes[ngrams.offsets[i] : ngrams.offsets[i + 1]].tolist())
        expected = counted(text, spec)
        assert sorted(found.values()) == sorted(expected.values())
        for ngram in expected:
            assert names.setdefault(hash_of(ngram, spec), ngram) == ngram  # one hash an n-gram
            assert found[hash_of(ngram, spec)] == expected[ngram]
    features = featurize(pa.array(texts), spec)
    assert ngrams.n_ngrams.tolist() == features.n_ngrams.tolist()
    assert ngrams.content_hash.tolist() == features.content_hash.tolist()


def test_long_documents_and_words_found_by_other_means_have_the_same_ngrams():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 500, n)) for n in (0, 1, 20_000, 3, 5_000)]
    plain = hash_ngrams(pa.array(texts), FeatureSpec(ngrams=3, tokenizer="whitespace"))
    custom = hash_ngrams(pa.array(texts), FeatureSpec(ngrams=3, tokenizer="builtins:str.split"))
    assert plain.n_ngrams.tolist() == [0, 1, 59_997, 6, 14_997]
    assert plain.offsets.tolist() == custom.offsets.tolist()
    assert plain.hashes.tolist() == custom.hashes.tolist()
    for i, text in enumerate(texts):
        words = text.split()
        triples = {tuple(words[k : k + n]) for n in (1, 2, 3) for k in range(len(words) - n + 1)}
        mine = plain.of(np.arange(len(texts)) == i)
        assert len(distinct(mine)) == len(triples)


@settings(deadline=None, max_examples=60)
@given(texts=texts_of_few_words, data=st.data())
def test_totals_are_sums_over_documents_and_what_no_vocabulary_has_is_one(texts, data):
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(texts), max_size=len(texts)))
    ngrams = hash_ngrams(pa.array(texts), SPEC)
    vocabulary = Vocabulary(ngrams.of(np.arange(len(texts)) == 0))
    of_first = counted(texts[0], SPEC)
    assert len(vocabulary) == len(of_first) + 1
    numbers = vocabulary.numbers(ngrams.hashes)
    totals = np.zeros((2, len(vocabulary)), np.int64)
    add_totals(ngrams.offsets, numbers, np.array([times, [1] * len(texts)], np.uint16), totals)
    expected = Counter()
    for text, n in zip(texts, times, strict=True):
        for ngram, count in counted(text, SPEC).items():
            expected[ngram] += n * count
    for ngram in of_first:
        [number] = vocabulary.numbers(np.array([hash_of(ngram, SPEC)], np.uint64))
        assert totals[0, number] == expected[ngram]
    assert totals[0, -1] == sum(count for ngram, count in expected.items() if ngram not in of_first)
    assert totals[1].sum() == len(ngrams.hashes)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.lists(st.integers(0, 2**64 - 1), max_size=60))
def test_a_vocabulary_numbers_what_it_has_and_nothing_else(known, others):
    vocabulary = Vocabulary(np.array(known + known[:3], np.uint64))
    expected = {value: number for number, value in enumerate(sorted(set(known)))}
    found = vocabulary.numbers(np.array(known + others, np.uint64)).tolist()
    assert found == [expected.get(value, len(expected)) for value in known + others]
    assert len(vocabulary) == len(expected) + 1


def test_sums_over_documents():
    texts = ["a b a", "", "c", "b b b"]
    ngrams = hash_ngrams(pa.array(texts), FeatureSpec(ngrams=1))
    vocabulary = Vocabulary(ngrams.hashes[:2])  # a and b
    numbers = vocabulary.numbers(ngrams.hashes)
    values = np.zeros((2, 3))
    values[0, numbers[:2]] = 10, 1
    values[1, -1] = 0.5
    assert sums(ngrams, numbers, values).tolist() == [[21, 0, 0, 3], [0, 0, 0.5, 0]]


def test_words_that_joined_look_alike_are_different_ngrams():
    """A custom tokenizer may return words with spaces."""
    spec = FeatureSpec(tokenizer="tests.dsir.test_ngrams:split_at_bars")
    assert len(distinct(hash_ngrams(pa.array(["a b|c", "a|b c"]), spec).hashes)) == 6


def split_at_bars(text):
    return text.split("|")


def test_nothing_at_all():
    for texts in ([], ["", " "]):
        ngrams = hash_ngrams(pa.array(texts, pa.string()), SPEC)
        assert len(ngrams.hashes) == 0 and ngrams.n_ngrams.tolist() == [0] * len(texts)
        assert len(Vocabulary(ngrams.hashes)) == 1


def test_what_is_no_array_of_hashes_is_refused():
    with pytest.raises(ValueError, match="hashes"):
        Vocabulary(np.arange(3))
    with pytest.raises(ValueError, match="numbers"):
        add_totals(np.array([0, 1]), np.array([0]), np.ones((1, 1), bool), np.zeros((1, 2), np.int64))
