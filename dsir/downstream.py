"""Downstream classification: the value of features learnt from a selection for a labelled target.

What belongs here: from the texts of a selection and a labelled target to F1 scores. What does not: which selections
and targets, how many seeds, tables.

The paper (section 5) continues to pre-train RoBERTa on a selection and fine-tunes it on the target. Here the
representation is latent semantic analysis (Deerwester et al. 1990): the vectors of words are the leading
singular vectors of the selection's tf-idf matrix, a document is the weighted sum of its words' vectors, and logistic
regression predicts the labels. Everything but the labels is learnt from the selection: vocabulary, weights of words,
similarities. On 2 M tokens this takes a fraction of the time of word2vec and gave a higher F1; it does not see the
order of words, so it says nothing about tasks that depend on order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsir.explain import tokenize
from dsir.features import FeatureSpec

#: Changes whenever the same texts, options and seed could give a different score.
VERSION = 1

_words = partial(tokenize, spec=FeatureSpec())


@dataclass(frozen=True)
class DownstreamOptions:
    """How features are learnt.

    Attributes
    ----------
    dimensions : int
        Of the vectors, at least 1.
    tokens : int
        Approximate size of the sample of the selection's documents. Compare scores only at equal sizes.
    min_documents : int
        Words in fewer documents get no vector.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    dimensions: int = 100
    tokens: int = 1_000_000
    min_documents: int = 2

    def __post_init__(self) -> None:
        for name in ("dimensions", "tokens", "min_documents"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)!r}; expected at least 1")


@dataclass(frozen=True)
class F1:
    """F1 on the test split, between 0 and 1: the mean over labels, and over all decisions (accuracy)."""

    macro: float
    micro: float


class Vectors:
    """Word vectors, from :func:`learn_vectors`.

    Attributes
    ----------
    vocabulary : int
        Number of words that have one.
    dimensions : int
    """

    def __init__(self, tfidf, svd) -> None:
        self._tfidf, self._svd = tfidf, svd
        self.vocabulary, self.dimensions = len(tfidf.vocabulary_), len(svd.components_)

    def transform(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of n texts, ndarray of float64, shape (n, dimensions); zeros if no word has a vector."""
        return self._svd.transform(self._tfidf.transform(texts))


def learn_vectors(
    texts: Sequence[str], seed: int, options: DownstreamOptions = DownstreamOptions()
) -> Vectors:
    """Learn word vectors from a selection.

    Parameters
    ----------
    texts : sequence of str
    seed : int
        For the sample of documents and the randomized decomposition (Halko et al. 2011).
    options : DownstreamOptions

    Returns
    -------
    Vectors
        The same on every run on one machine. Has fewer dimensions if the selection has fewer words.

    Raises
    ------
    ValueError
        Fewer than two words occur in enough documents.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    tfidf = TfidfVectorizer(analyzer=list, min_df=options.min_documents, sublinear_tf=True)
    sample = list(_sample(texts, seed, options.tokens))
    # One thread: a sum split among threads depends on their number in its last bits.
    with threadpool_limits(limits=1):
        try:
            matrix = tfidf.fit_transform(sample)
        except ValueError:  # no word is left
            matrix = None
        if matrix is None or min(matrix.shape) < 2:
            raise ValueError(
                f"{len(sample):,} documents: expected at least 2, and 2 words that occur in "
                f"{options.min_documents} documents or more"
            )
        svd = TruncatedSVD(min(options.dimensions, min(matrix.shape) - 1), random_state=seed).fit(matrix)
    tfidf.set_params(analyzer=_words)
    return Vectors(tfidf, svd)


def classify(
    vectors: Vectors,
    train: Sequence[str],
    train_labels: Sequence[str],
    test: Sequence[str],
    test_labels: Sequence[str],
) -> F1:
    """Fit logistic regression of labels on the vectors of training texts; score it on test texts.

    Parameters
    ----------
    vectors : Vectors
    train, test : sequence of str
    train_labels, test_labels : sequence of str
        One a text; at least two different ones to train on.

    Returns
    -------
    F1

    Raises
    ------
    ValueError
        There are fewer than two different labels, or not one a text.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    for name, texts, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if len(texts) != len(labels):
            raise ValueError(f"{name}: {len(labels)} labels of {len(texts)} texts")
    if len(set(train_labels)) < 2:
        raise ValueError(f"train: {len(set(train_labels))} different labels; expected at least 2")
    with threadpool_limits(limits=1):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(vectors.transform(train), train_labels)
        predicted = model.predict(vectors.transform(test))
    macro, micro = (
        float(f1_score(test_labels, predicted, average=each, zero_division=0)) for each in ("macro", "micro")
    )
    return F1(macro, micro)


def _sample(texts: Sequence[str], seed: int, tokens: int) -> Iterable[list[str]]:
    """Yield the words of documents drawn at random, until there are enough."""
    left = tokens
    for i in np.random.default_rng(seed).permutation(len(texts)):
        if left <= 0:
            return
        words = _words(texts[i])
        left -= len(words)
        yield words
