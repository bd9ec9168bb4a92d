"""The counts behind the quality filter against plain Python, and its criteria against the published ones."""

import re
import string
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsir.features import Features, FeatureSpec, featurize
from dsir.featurizer.word_counts import STOPWORDS, WordCounts
from dsir.quality import PAPER, failing

HASHES = ["fast", "sha256"]
TOKENIZERS = {
    "wordpunct": lambda text: re.findall(r"\w+|[^\w\s]+", text.lower()),
    "whitespace": lambda text: text.lower().split(),
}
#: Words with a class, words that nearly have one, and words of all lengths that the hash treats differently.
PIECES = [
    *("the", "The", "don't", "DON", "t", "'", "yourselves", "thé", "thee"),
    *("0", "7", "9", "10", "٣", "²", "½", "_", "__", "0_"),
    *(".", "...", ").", "$", "€", "“", "—", "\u017f", "İ", "Σ"),
    *("a" * 8, "a" * 9, "b" * 24, "日本語", "😀"),
]
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=120).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
)


def python_counts(words: list[str]) -> tuple[int, int, int]:
    """Most frequent word, informative words, single digits: as plainly as they can be said."""
    uninformative = STOPWORDS | set(string.punctuation)
    return (
        max(Counter(words).values(), default=0),
        sum(word not in uninformative for word in words),
        sum(word in set(string.digits) for word in words),
    )


def counts_of(features: Features) -> list[tuple[int, int, int]]:
    counts = features.word_counts
    return list(
        zip(
            counts.most_frequent_word.tolist(),
            counts.informative_words.tolist(),
            counts.single_digits.tolist(),
            strict=True,
        )
    )


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("hash_", HASHES)
@given(documents=st.lists(texts, max_size=6))
@settings(deadline=None)
def test_counts_are_those_of_plain_python(tokenizer, hash_, documents):
    features = featurize(pa.array(documents, pa.string()), FeatureSpec(tokenizer, hash=hash_), quality=True)
    words = [TOKENIZERS[tokenizer](text) for text in documents]
    assert counts_of(features) == [python_counts(each) for each in words]
    assert features.n_tokens.tolist() == [len(each) for each in words]


def odd_words(text: str) -> list[str]:
    """Words as no built-in tokenizer finds them: with capitals, spaces, a class, or nothing in them."""
    return ["The", "the", "don't", "of course", "", "", "5", "?", *text.split(",")]


@pytest.mark.parametrize("hash_", HASHES)
def test_the_words_of_a_custom_tokenizer_are_counted(hash_):
    documents = ["", "a,a,A b,5,5,5,5", "the,the,!!,!"]
    spec = FeatureSpec(f"{__name__}:odd_words", hash=hash_)
    features = featurize(pa.array(documents), spec, quality=True)
    assert counts_of(features) == [python_counts(odd_words(text.lower())) for text in documents]


@pytest.mark.parametrize("ngrams", [1, 3])
@pytest.mark.parametrize("hash_", HASHES)
@pytest.mark.parametrize(
    "words",
    [
        [f"w{i}" for i in range(20_000)],
        [f"w{i % 7_000}" for i in range(20_000)],
        [f"w{i * i % 997}" for i in range(20_000)],
        ["the", ",", "5"] * 3_000,
        [f"w{i}" for i in range(5_000)] + ["twice", "twice"],
    ],
    ids=["all different", "equally often", "skewed", "few", "one twice"],
)
def test_long_documents_are_counted_exactly_and_leave_nothing_to_the_next(words, hash_, ngrams):
    documents = [words, ["the", "cat"], words[: len(words) // 3], []]
    spec = FeatureSpec(hash=hash_, ngrams=ngrams)
    features = featurize(pa.array([" ".join(each) for each in documents]), spec, quality=True)
    assert counts_of(features) == [python_counts(each) for each in documents]


@pytest.mark.parametrize("hash_", HASHES)
def test_without_quality_the_features_are_the_same(hash_):
    documents = pa.array(["the cat sat, 5 times.", "", "a b " * 5_000])
    spec = FeatureSpec(hash=hash_)
    counted, plain = featurize(documents, spec, quality=True), featurize(documents, spec)
    assert plain.word_counts is None and counted.word_counts is not None
    for name in ("offsets", "buckets", "counts", "n_tokens", "content_hash"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(counted, name))


def test_the_stopwords_are_nltk_s_of_2023():
    assert len(STOPWORDS) == 179
    assert {"i", "ourselves", "should've", "ain", "ma", "wouldn't", "o"} < STOPWORDS
    assert not {"would", "could", "us", "he'd", "", "shall"} & STOPWORDS


def failed(n_words: int, most_frequent: int, informative: int, digits: int, bounds=PAPER) -> str | None:
    one = (np.array([n]) for n in (most_frequent, informative, digits))
    [number] = failing(np.array([n_words]), WordCounts(*one), bounds)
    return [None, *PAPER][number]


@pytest.mark.parametrize(
    ("counts", "criterion"),
    [
        ((100, 10, 50, 0), None),
        ((40, 4, 20, 0), "words"),
        ((41, 4, 20, 0), None),
        ((499, 40, 200, 0), None),
        ((500, 50, 250, 0), "words"),
        ((100, 2, 50, 0), "most_frequent_word"),
        ((100, 3, 50, 0), None),
        ((100, 19, 50, 0), None),
        ((100, 20, 50, 0), "most_frequent_word"),
        ((100, 10, 30, 0), "informative_words"),
        ((100, 10, 31, 0), None),
        ((100, 10, 69, 0), None),
        ((100, 10, 70, 0), "informative_words"),
        ((100, 10, 50, 19), None),
        ((100, 10, 50, 20), "not_digits"),
        ((0, 0, 0, 0), "words"),
        ((100, 50, 90, 90), "most_frequent_word"),
    ],
)
def test_the_paper_s_bounds_are_exclusive_and_tried_in_order(counts, criterion):
    assert failed(*counts) == criterion


def test_a_bound_that_is_not_given_excludes_nothing():
    free = dict.fromkeys(PAPER, (None, None))
    assert failed(0, 0, 0, 0, free) is None and failed(9, 9, 9, 9, free) is None
    assert failed(0, 0, 0, 0, {**free, "not_digits": (0.0, None)}) == "not_digits"


def test_shares_are_those_of_the_published_filter():
    """On text that NLTK's tokenizer, which the authors used, cuts into the same words."""
    nltk_words = pytest.importorskip("nltk.tokenize.destructive").NLTKWordTokenizer().tokenize
    documents = [
        "The patients of the trial were given 5 mg of the drug daily , or a placebo .",
        "1 2 3 4 : 5 6 7 8 ; 9 10 11",
        "the the the the cat",
        "( a ) the first -- and ( b ) the second ... of many",
        "",
    ]
    features = featurize(pa.array(documents), FeatureSpec(), quality=True)
    for text, n_words, counts in zip(documents, features.n_tokens.tolist(), counts_of(features), strict=True):
        words = nltk_words(text.lower())
        assert (n_words, *counts) == (len(words), *python_counts(words))
