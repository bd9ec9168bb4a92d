"""Moore and Lewis's selection with language models: how much better the target's model predicts a document.

What belongs here: the two models, and the difference for every document. What does not: the models themselves
(``dsir.ngram_model``); the same difference from hashed counts, which needs no second look at the texts.

Moore and Lewis, "Intelligent selection of language model training data", ACL 2010: documents are ranked by the
cross-entropy under a model of the target less that under a model of the pool, per token, and the lowest are kept. As
there, the pool's model is trained on a random sample of the size of the target.

Difference: the models are of bytes (six-grams, interpolated Kneser-Ney), the originals of words (four-grams), so the
difference is per byte.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.paper.corpus import Mapper
from dsir.ngram_model import BOUNDARY, NgramModel

#: Documents whose n-grams are in memory at a time, in each thread.
_BATCH = 2_000


def sample(pool: pa.Array, n_bytes: int) -> pa.Array:
    """Return random documents of a pool, always the same, with so many bytes or one document more."""
    order = np.random.default_rng(0).permutation(len(pool))
    lengths = pc.binary_length(pool).to_numpy()[order]
    return pool.take(order[: int(np.searchsorted(np.cumsum(lengths), n_bytes)) + 1])


def models(pool: pa.Array, target: pa.Array) -> tuple[NgramModel, NgramModel]:
    """Train a model of the target, and one of as much of the pool: pyarrow.Arrays of large_string."""
    n_bytes = pc.sum(pc.binary_length(target)).as_py()
    return NgramModel.fit(target), NgramModel.fit(sample(pool, n_bytes))


def leads(texts: pa.Array, ours: NgramModel, theirs: NgramModel) -> np.ndarray:
    """Return by how much the first model predicts texts better than the second: float64[n], nats per byte.

    The end of a text is predicted too, and counts as a byte.
    """
    joined = b"\xff".join([b"", *(text.encode("utf-8", "surrogatepass") for text in texts.to_pylist()), b""])
    symbols = np.frombuffer(joined, np.uint8)
    ends = np.flatnonzero(symbols == BOUNDARY)
    starts, ends = ends[:-1], ends[1:]  # a text's boundaries
    at = np.arange(len(symbols)) - np.repeat(np.append(starts, ends[-1]), np.append(ends - starts, 1))
    at[ends] = ends - starts  # a boundary ends the text before it
    gains = np.zeros(len(symbols))
    keys = np.zeros(len(symbols), np.uint64)  # of the n-grams that end at each symbol
    for length in range(1, ours.order + 1):
        keys[length - 1 :] |= symbols[: len(symbols) - length + 1].astype(np.uint64) << np.uint64(
            8 * length - 8
        )
        # A context reaches back to the boundary before its text.
        here = np.flatnonzero(at >= length - 1 if length == ours.order else at == length - 1)
        if length == 1 or not len(here):
            continue  # the first boundary is given
        distinct, which = np.unique(keys[here], return_inverse=True)
        gain = np.log(ours.probability(distinct, length)) - np.log(theirs.probability(distinct, length))
        gains[here] = gain[which]
    return np.add.reduceat(gains[1:], starts) / (ends - starts)


def keys(pool: pa.Array, target: pa.Array, sizes: list[int], mapper: Mapper = map) -> list[np.ndarray]:
    """Return what ranks the pool's documents, in batches of the given sizes: ndarrays of float64.

    Parameters
    ----------
    pool, target : pyarrow.Array of large_string
    sizes : list of int
    mapper : callable
        Like `map`, perhaps in several threads.
    """
    ours, theirs = models(pool, target)
    batches = (pool.slice(i, _BATCH) for i in range(0, len(pool), _BATCH))
    found = np.concatenate(list(mapper(lambda batch: leads(batch, ours, theirs), batches)))
    return np.split(found, np.cumsum(sizes)[:-1])
