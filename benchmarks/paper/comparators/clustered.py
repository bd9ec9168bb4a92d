"""Clustered importance sampling: documents are weighed by how much more often the target has their cluster.

What belongs here: clusters of the pool, weights of clusters, keys. What does not: vectors (``embedding``).

Grangier, Fan, Seto and Ablin, "Task-adaptive pretrained language models via clustered-importance sampling" (CRISP),
ICLR 2025, arXiv 2410.03735. The pool is clustered by k-means; with the shares of target and pool in cluster c,

    w_c = p_target(c) / p_pool(c),

and a document is drawn in proportion to the weight of its cluster, so uniformly within a cluster. It stands here for
all that budget by clusters.

Differences: vectors are those of latent semantic analysis, which the authors try beside a neural network's (random
projections of counts gave far worse selections); documents are drawn without replacement (Gumbel top-k with noise of
the content), since the other methods repeat none. A cluster that the target has none of is drawn last. The number of
clusters was chosen for this method, with its measures on held-out text in view: of 64, 256, 1,024 and 3,000 for
125,000 documents, the largest was best on all of three targets; for 531,701 documents, 4,096 were as good as 10,634.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from benchmarks.paper.comparators.embedding import Embedding
from benchmarks.paper.corpus import Mapper
from dsir.features import Features
from dsir.noise import MOST_GUMBEL, gumbel_noise

#: Documents of the pool per cluster, and the most clusters.
DOCUMENTS, MOST = 50, 4096


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of a pool.

    Attributes
    ----------
    means : MiniBatchKMeans
    of_pool : ndarray of int32, shape (documents,)
        Which cluster each document is in.
    """

    means: MiniBatchKMeans
    of_pool: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, clusters: int | None = None) -> Clusters:
        """Cluster the documents of a pool.

        Parameters
        ----------
        vectors : ndarray of float32, shape (documents, dimensions)
        clusters : int, optional
            Default: a cluster for every `DOCUMENTS` documents, at least 8 and at most `MOST`.
        """
        wanted = clusters or min(max(len(vectors) // DOCUMENTS, 8), MOST)
        means = MiniBatchKMeans(wanted, batch_size=4096, n_init=1, max_iter=3, random_state=0)
        with threadpool_limits(limits=1):
            means.fit(vectors)
            return cls(means, means.predict(vectors))

    def log_weights(self, vectors: np.ndarray) -> np.ndarray:
        """Return log w_c for a target's vectors: ndarray of float64, shape (clusters,), -inf where it has none."""
        with threadpool_limits(limits=1):
            of_target = self.means.predict(vectors)
        target, pool = (
            np.bincount(each, minlength=self.means.n_clusters) / len(each)
            for each in (of_target, self.of_pool)
        )
        with np.errstate(divide="ignore"):
            return np.log(target) - np.log(np.maximum(pool, 1 / len(self.of_pool)))


def keys(
    clusters: Clusters,
    embedding: Embedding,
    pool: list[Features],
    target: list[Features],
    seed: int,
    stream: str,
    mapper: Mapper = map,
) -> list[np.ndarray]:
    """Return what ranks the pool's documents, batch by batch: ndarrays of float64.

    Parameters
    ----------
    clusters : Clusters
    embedding : Embedding
        That the clusters were made with.
    pool, target : list of Features
    seed, stream
        Of the noise, as in :func:`dsir.noise.gumbel_noise`.
    mapper : callable
        Like `map`, perhaps in several threads.
    """
    weights = clusters.log_weights(embedding.vectors(target, mapper))
    # Noise is in -3.6 .. MOST_GUMBEL: what the target has none of comes after all else.
    absent = weights[np.isfinite(weights)].min() - 2 * MOST_GUMBEL
    weights = np.where(np.isfinite(weights), weights, absent)
    out, first = [], 0
    for batch in pool:
        of_batch = clusters.of_pool[first : first + len(batch)]
        out.append(weights[of_batch] + gumbel_noise(batch.content_hash, seed, stream))
        first += len(batch)
    return out
