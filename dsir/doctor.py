"""Signs, in a target and in a sample of a pool, that a selection will disappoint.

What belongs here: arithmetic on texts and counts, before anything is fitted. What does not: reading texts, messages and
the limits for warnings (``dagster_project/doctor/checks.py``), measures of selections (``dsir.evaluation``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsir.evaluation import SMOOTHING, distribution, kl_divergence, masked_totals
from dsir.features import Features
from dsir.importance import log_weights
from dsir.ngrams import Ngrams, Vocabulary
from dsir.noise import gumbel_noise

#: Letters of scripts written without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Kana, Han.
_WITHOUT_SPACES = re.compile(
    r"[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff]"
)
_LETTER = re.compile(r"[^\W\d_]")

#: Splits a target by content hash, independently of noise and of samples that are ranges of the hash.
_MIX = np.uint64(0x9E3779B97F4A7C15)
#: Documents shorter than this share of the median are fragments. Log weights are sums over n-grams, most of which speak
#: against a document, so a method that ranks by them prefers fragments. In two cuts of a real pool, for nine targets,
#: picks by `resample` had a median of 0.16 to 0.29 of the pool's where fragments filled them, else of 0.31 or more.
FRAGMENT = 0.3
#: The least tokens of a document in the paper and the published tool.
PAPER_TOKENS = 100

#: The most points of a learning curve; fewer if a target has fewer than ``2^(POINTS - 1)`` documents.
POINTS = 7


def held_out(content_hash: np.ndarray) -> np.ndarray:
    """Tell which documents of a target to hold out: about a fifth, equal texts together.

    Parameters
    ----------
    content_hash : ndarray of uint64, shape (n,)

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    return (content_hash * _MIX) >> np.uint64(32) < np.uint64(2**32 // 5)


@dataclass(frozen=True)
class Point:
    """A point of a learning curve.

    Attributes
    ----------
    documents, ngrams : int
        Size of the part of the target fitted on.
    kl : float
        KL(other text‖fit), nats.
    """

    documents: int
    ngrams: int
    kl: float


def learning_curve(
    fitted: Sequence[Features], others: np.ndarray, smoothing: float = SMOOTHING
) -> list[Point]:
    """Measure how far other text of a target is from distributions fitted on growing parts of it.

    Each part contains the one before and is twice as large; the last is the whole. The order of documents depends only
    on their content. If the curve still falls at its end, more documents would give another distribution.

    Parameters
    ----------
    fitted : sequence of Features
        The documents of the target to fit on, in batches.
    others : ndarray of int64, shape (buckets,)
        N-gram totals of other documents of the target.
    smoothing : float
        Pseudo-counts a bucket of both distributions.

    Returns
    -------
    list of Point
        From the smallest part to the whole, at most :data:`POINTS`; empty if there are no documents.
    """
    hashes = [each.content_hash for each in fitted]
    n = sum(map(len, hashes))
    if not n:
        return []
    sizes = [n >> k for k in range(POINTS - 1, -1, -1) if n >> k]
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(gumbel_noise(np.concatenate(hashes), 0, "learning curve"), kind="stable")] = np.arange(n)
    first = np.searchsorted(sizes, place, side="right")  # the smallest part that a document is in
    totals = np.zeros((len(sizes), len(others)), dtype=np.int64)
    done = 0
    for features in fitted:
        masks = first[done : done + len(features)] == np.arange(len(sizes))[:, np.newaxis]
        masked_totals(features, masks, totals)
        done += len(features)
    totals = np.cumsum(totals, axis=0)
    p = distribution(others, smoothing)
    return [
        Point(size, int(each.sum()), kl_divergence(p, distribution(each, smoothing)))
        for size, each in zip(sizes, totals, strict=True)
    ]


def crowded_out(ngrams: Ngrams, documents: np.ndarray, buckets: int) -> float:
    """Share of some documents' n-grams that are a minority in their bucket.

    For such an n-gram, the bucket mostly reflects others. The buckets are those of a hash as even as
    ``FeatureSpec.hash``, so the share depends on their number alone.

    Parameters
    ----------
    ngrams : Ngrams
        Of a sample of the pool and of these documents.
    documents : ndarray of bool, shape (documents,)
        Whose n-grams to count, as often as they occur.
    buckets : int

    Returns
    -------
    float
        Between 0 and 1; 0 if the documents have no n-grams.
    """
    known = Vocabulary(ngrams.hashes)
    counts = np.bincount(known.numbers(ngrams.hashes), minlength=len(known.hashes))
    bucket = (known.hashes % np.uint64(buckets)).astype(np.int64)
    of_bucket = np.bincount(bucket, weights=counts, minlength=buckets)
    minority = 2 * counts < of_bucket[bucket]
    mine = known.numbers(ngrams.of(documents))
    return float(minority[mine].mean()) if len(mine) else 0.0


def likeness(features: Features, ratios: np.ndarray) -> np.ndarray:
    """Mean log weight of every document's n-grams, in nats; NaN for documents without n-grams.

    Unlike the log weight, it is comparable between documents of different length.

    Parameters
    ----------
    features : Features
        Of n documents.
    ratios : ndarray of float64, shape (buckets,)
        From :func:`dsir.importance.log_ratios`.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    weights = log_weights(features, ratios[np.newaxis])[0]
    n_ngrams = features.n_ngrams
    return np.divide(weights, n_ngrams, out=np.full(len(weights), np.nan), where=n_ngrams > 0)


def without_spaces(text: str) -> float:
    """Share of a text's letters that belong to scripts without spaces between words; 0 if it has no letters."""
    letters = len(_LETTER.findall(text))
    return min(len(_WITHOUT_SPACES.findall(text)) / letters, 1.0) if letters else 0.0


@dataclass(frozen=True)
class Fragments:
    """Documents much shorter than the others.

    Attributes
    ----------
    documents, short : int
        How many there are, and how many of them are fragments.
    median, mean : float
        Tokens of a document, and of a fragment; 0 without any.
    """

    documents: int
    short: int
    median: float
    mean: float


def fragments(n_tokens: np.ndarray, of_length: np.ndarray, min_tokens: int) -> Fragments:
    """Count the fragments among the documents of at least ``min_tokens``.

    Parameters
    ----------
    n_tokens, of_length : ndarray of int64, shape (lengths,)
        Distinct lengths, ascending, and the number of documents of each.
    min_tokens : int

    Examples
    --------
    >>> fragments(np.array([5, 20, 100]), np.array([7, 2, 5]), min_tokens=10)
    Fragments(documents=7, short=2, median=100.0, mean=20.0)
    """
    lengths, counts = n_tokens[n_tokens >= min_tokens], of_length[n_tokens >= min_tokens]
    if not counts.sum():
        return Fragments(0, 0, 0.0, 0.0)
    median = float(lengths[np.searchsorted(np.cumsum(counts), (counts.sum() + 1) // 2)])
    short = lengths < FRAGMENT * median
    n_short = int(counts[short].sum())
    mean = float(lengths[short] @ counts[short]) / max(n_short, 1)
    return Fragments(int(counts.sum()), n_short, median, mean)


def without_fragments(median: float) -> int:
    """Return the ``min_tokens`` to advise at that median: the paper's, more where documents are long, or the median."""
    return int(min(max(PAPER_TOKENS, np.ceil(FRAGMENT * median)), median))
