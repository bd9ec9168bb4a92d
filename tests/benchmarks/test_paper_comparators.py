"""The comparators of the paper's comparison, on pools whose answer is known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.paper.comparators import clustered, language_models, neighbours
from benchmarks.paper.comparators.embedding import Embedding
from benchmarks.paper.corpus import count
from dsir.features import FeatureSpec
from dsir.ngram_model import NgramModel

WORDS = {
    "birds": "robin wren finch heron swift".split(),
    "stones": "quartz basalt slate flint gneiss".split(),
    "tools": "hammer chisel rasp awl plane".split(),
    "herbs": "sage thyme basil mint dill".split(),
}
COMMON = "the of a is in and to it".split()
SPEC = FeatureSpec(buckets=65_536)


def documents(topic: str, n: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(COMMON + 3 * WORDS[topic], 60)) for _ in range(n)]


def arrow(texts: list[str]) -> pa.Array:
    return pa.array(texts, pa.large_string())


@pytest.fixture(scope="module")
def planted():
    """A pool of four topics, 500 documents each, and a target: three quarters birds, a quarter stones."""
    pool = arrow([text for i, topic in enumerate(WORDS) for text in documents(topic, 500, i)])
    target = arrow(documents("birds", 90, 10) + documents("stones", 30, 11))
    return pool, target


@pytest.fixture(scope="module")
def vectors(planted):
    pool, target = (count(texts, SPEC) for texts in planted)
    embedding = Embedding(pool, SPEC.buckets)
    return pool, target, embedding, embedding.vectors(pool)


def shares(keys: np.ndarray, n: int) -> np.ndarray:
    """Shares of the topics in the n documents with the largest keys."""
    best = np.argsort(-keys, kind="stable")[:n]
    return np.bincount(best // 500, minlength=4) / n


def test_vectors_of_a_topic_are_near_and_do_not_depend_on_batches(vectors):
    pool, _, embedding, found = vectors
    means = found.reshape(4, 500, -1).mean(axis=1)
    nearest = (found @ means.T).argmax(axis=1)
    assert np.array_equal(nearest, np.repeat(np.arange(4), 500))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(embedding.vectors(pool), found)


def test_clusters_are_drawn_in_the_shares_that_the_target_has_them(vectors):
    pool, target, embedding, found = vectors
    clusters = clustered.Clusters.of(found, 4)
    assert sorted(np.bincount(clusters.of_pool)) == [500] * 4
    keys = np.concatenate(clustered.keys(clusters, embedding, pool, target, 0, "nature"))
    birds, stones, *others = shares(keys, 200)
    assert birds == pytest.approx(0.75, abs=0.07) and birds + stones == 1 and not any(others)
    # Uniform within a cluster: an order by noise alone, another one for another seed.
    again = np.concatenate(clustered.keys(clusters, embedding, pool, target, 0, "nature"))
    other = np.concatenate(clustered.keys(clusters, embedding, pool, target, 1, "nature"))
    assert (
        np.array_equal(keys, again)
        and len(set(np.argsort(-keys)[:200]) & set(np.argsort(-other)[:200])) < 100
    )
    # What the target has none of comes after all else.
    assert shares(keys, 1000).tolist() == [0.5, 0.5, 0, 0]


def test_weights_of_clusters_are_ratios_of_shares(vectors):
    _, target, embedding, found = vectors
    clusters = clustered.Clusters.of(found, 4)
    weights = clusters.log_weights(embedding.vectors(target))
    birds, stones = clusters.of_pool[[0, 500]]
    assert np.exp(weights[[birds, stones]]) == pytest.approx([0.75 / 0.25, 0.25 / 0.25])
    assert np.isneginf(np.delete(weights, [birds, stones])).all()


def test_every_document_of_the_target_gets_its_neighbours(vectors):
    _, target, embedding, found = vectors
    scores = neighbours.scores(found, embedding.vectors(target), 5)
    birds, stones, *others = shares(scores, 100)
    assert birds + stones == 1 and 0.15 < stones < 0.35 and not any(others)
    assert np.isfinite(scores).sum() <= 120 * 5


def test_neighbours_rank_by_the_best_rank_then_by_similarity():
    angles = np.array([0.0, 0.1, 0.3, 1.0, 1.2, 3.0])
    pool = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    target = np.stack([np.cos([0.02, 1.05]), np.sin([0.02, 1.05])], axis=1).astype(np.float32)
    # The first ranks 0, 1, 2; the second 3, 4, 2.
    scores = neighbours.scores(pool, target, 3)
    assert np.argsort(-scores, kind="stable").tolist() == [0, 3, 1, 4, 2, 5] and np.isneginf(scores[5])
    n_tokens = np.full(6, 10)
    assert np.isfinite(neighbours.scores_for(pool, n_tokens, target, 60)).all()


def test_models_rank_what_the_target_s_model_predicts_better(planted):
    pool, target = planted
    keys = np.concatenate(language_models.keys(pool, target, [300, 1700]))
    assert shares(keys, 900)[:2].sum() > 0.99
    assert [len(each) for each in language_models.keys(pool.slice(0, 9), target, [4, 5])] == [4, 5]


def test_a_lead_is_the_difference_of_two_cross_entropies():
    ours, theirs = NgramModel.fit(documents("birds", 50, 0)), NgramModel.fit(documents("tools", 50, 1))
    texts = ["robin wren", "é", "hammer and chisel of the plane"]
    leads = language_models.leads(arrow(texts), ours, theirs)
    # Without the end of the text, which bits per byte do not count.
    for text, lead in zip(texts, leads, strict=True):
        n = len(text.encode())
        key = int.from_bytes((b"\xff" + text.encode())[-5:] + b"\xff", "big")
        length = min(n + 2, 6)
        ends = np.log(
            [float(each.probability(np.array([key], np.uint64), length)[0]) for each in (ours, theirs)]
        )
        bits = theirs.bits_per_byte([text]) - ours.bits_per_byte([text])
        assert lead * (n + 1) == pytest.approx(n * bits * np.log(2) + ends[0] - ends[1], abs=1e-6)
    assert leads[0] > 0 > leads[2]


def test_the_pool_s_model_is_of_as_many_bytes_as_the_target(planted):
    pool, target = planted
    wanted = sum(len(each.encode()) for each in target.to_pylist())
    got = sum(len(each.encode()) for each in language_models.sample(pool, wanted).to_pylist())
    assert wanted <= got < wanted + 1000
    assert language_models.sample(pool.slice(0, 3), wanted).to_pylist() != []
