"""Nearest neighbours: documents are ranked by how near they are to some document of the target.

What belongs here: similarity and the ranking. What does not: vectors (``embedding``).

In the manner of benchmark-targeted ranking (BETR): Mizrahi et al., "Language models improve when pretraining data
matches target tasks", 2025, arXiv 2507.12466. Every document of the target ranks the pool by cosine similarity; the
best rank that a document of the pool gets from any of them is its score, so that no document of the target is left
out. Of equal ranks the greater similarity comes first.

Differences: vectors are those of latent semantic analysis, not a neural network's; all of the pool is compared, where
the authors compare a sample and train a classifier to predict its scores for the rest.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.paper.corpus import Mapper

#: Documents of the target whose similarities to the pool are in memory at a time, in each thread.
_ROWS = 32


def scores(pool: np.ndarray, target: np.ndarray, neighbours: int, mapper: Mapper = map) -> np.ndarray:
    """Score the pool's documents; larger is nearer.

    Parameters
    ----------
    pool : ndarray of float32, shape (documents, dimensions)
        Unit vectors.
    target : ndarray of float32, shape (target's documents, dimensions)
        Unit vectors.
    neighbours : int
        How many documents of the pool each document of the target ranks.
    mapper : callable
        Like `map`, perhaps in several threads.

    Returns
    -------
    ndarray of float64, shape (documents,)
        Minus the best rank (from 0), plus half the similarity; -inf for what no document of the target ranks.
    """
    neighbours = min(neighbours, len(pool))

    def of(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nearest, score = [], []
        for similarity in block @ pool.T:
            some = np.argpartition(similarity, len(pool) - neighbours)[len(pool) - neighbours :]
            some = some[np.lexsort((some, -similarity[some]))]
            nearest.append(some)
            score.append(0.5 * np.clip(similarity[some], -1.0, 1.0).astype(np.float64) - np.arange(len(some)))
        return np.concatenate(nearest), np.concatenate(score)

    out = np.full(len(pool), -np.inf)
    with threadpool_limits(limits=1):
        for nearest, score in mapper(of, (target[i : i + _ROWS] for i in range(0, len(target), _ROWS))):
            np.maximum.at(out, nearest, score)
    return out


def scores_for(
    pool: np.ndarray, n_tokens: np.ndarray, target: np.ndarray, budget: int, mapper: Mapper = map
) -> np.ndarray:
    """Score documents of at least ``budget`` tokens, or all; see :func:`scores`.

    Parameters
    ----------
    pool, target, mapper
        As in :func:`scores`.
    n_tokens : ndarray of int64, shape (documents,)
        Of the pool's documents.
    budget : int
    """
    documents = budget / max(n_tokens.mean(), 1)
    neighbours = int(4 * documents / len(target)) + 1
    while True:
        found = scores(pool, target, neighbours, mapper)
        if neighbours >= len(pool) or n_tokens[np.isfinite(found)].sum() >= budget:
            return found
        neighbours *= 4
