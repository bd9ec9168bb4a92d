"""Downstream classification: what the selection has no words for, the classifier cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from dsir.downstream import DownstreamOptions, classify, learn_vectors

TOPICS = {
    "birds": ["robin", "wren", "finch", "heron", "swift"],
    "stones": ["quartz", "basalt", "slate", "flint", "gneiss"],
}
COMMON = ["the", "of", "a", "is", "in"]


def documents(topic: str | None, n: int, seed: int) -> list[str]:
    """Texts of twenty words: common ones, and those of a topic."""
    rng = np.random.default_rng(seed)
    words = COMMON + TOPICS.get(topic, [])
    return [" ".join(rng.choice(words, 20)) for _ in range(n)]


def labelled(n: int, seed: int) -> tuple[list[str], list[str]]:
    texts = [text for i, topic in enumerate(TOPICS) for text in documents(topic, n, seed + i)]
    return texts, [topic for topic in TOPICS for _ in range(n)]


TRAIN, TEST = labelled(60, 10), labelled(40, 20)


def test_a_selection_that_has_the_targets_words_scores_higher_than_one_that_has_not():
    near = learn_vectors(documents("birds", 100, 0) + documents("stones", 100, 1), 0)
    far = learn_vectors(documents(None, 200, 2), 0)
    assert classify(near, *TRAIN, *TEST).macro > 0.95
    assert classify(far, *TRAIN, *TEST).macro < 0.7


def test_the_same_seed_gives_the_same_score_and_order_of_fitting_is_of_no_matter():
    texts = documents("birds", 100, 0) + documents(None, 100, 1)
    options = DownstreamOptions(dimensions=5, tokens=1000)
    first, other = learn_vectors(texts, 0, options), learn_vectors(texts, 1, options)
    again = learn_vectors(texts, 0, options)
    assert np.array_equal(first.transform(TEST[0]), again.transform(TEST[0]))
    assert not np.array_equal(first.transform(TEST[0]), other.transform(TEST[0]))
    assert classify(first, *TRAIN, *TEST) == classify(again, *TRAIN, *TEST)


def test_no_more_of_the_selection_is_used_than_its_tokens():
    texts = [f"a b unique{i} unique{i}" for i in range(100)]
    options = DownstreamOptions(tokens=40, min_documents=1)
    assert learn_vectors(texts, 0, options).vocabulary == 2 + 10


def test_words_are_those_that_the_features_count_and_unknown_ones_have_no_vector():
    vectors = learn_vectors(["Robin, wren", "robin wren", "finch robin"], 0)
    assert vectors.vocabulary == 2  # the comma and finch stand in one document only
    assert vectors.dimensions == 1
    assert np.array_equal(vectors.transform(["ROBIN"]), vectors.transform(["robin"]))
    assert np.array_equal(vectors.transform(["finch"]), np.zeros((1, 1)))


def test_macro_f1_is_the_mean_of_the_labels_and_micro_that_of_the_documents():
    vectors = learn_vectors(documents("birds", 50, 0) + documents("stones", 50, 1), 0)
    test = documents("birds", 30, 3) + documents("birds", 10, 4)
    found = classify(vectors, *TRAIN, test, ["birds"] * 30 + ["stones"] * 10)
    assert found.micro == pytest.approx(0.75, abs=0.03)
    assert found.macro == pytest.approx((2 * 30 / 70 + 0) / 2, abs=0.03)


def test_input_that_cannot_be_used_is_refused():
    with pytest.raises(ValueError, match="2 documents: expected at least 2, and 2 words that occur in 2"):
        learn_vectors(["a b c", "d e f"], 0)
    vectors = learn_vectors(TRAIN[0], 0)
    with pytest.raises(ValueError, match="train: 1 labels of 2 texts"):
        classify(vectors, ["a", "b"], ["x"], *TEST)
    with pytest.raises(ValueError, match="train: 1 different labels"):
        classify(vectors, ["a", "b"], ["x", "x"], *TEST)
    with pytest.raises(ValueError, match="dimensions: 0"):
        DownstreamOptions(dimensions=0)
