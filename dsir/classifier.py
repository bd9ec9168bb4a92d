"""The paper's heuristic classification baseline: a linear classifier of target against pool.

What belongs here: from the features of target and pool documents to a classifier, and the keys by which it ranks
documents. What does not: picking (``dsir.selection``), counting (``dsir.features``).

The paper (section 4, "heuristic classification", after Brown et al. 2020, Gao et al. 2020 and Du et al. 2022) trains
fastText on the target and as many documents of the pool, and tunes it on a tenth that it does not train on. A document
with probability p of being target is kept if p > 1 - x, where x is Pareto noise of shape 9 (Lomax, starting at 0). Here
the classifier is logistic regression. Its input is that of fastText, the mean over a document's hashed n-grams, so that
it learns one number theta_b a bucket, ::

    p = 1 / (1 + exp(-intercept - Σ_b count_b · theta_b / n)),    n = Σ_b count_b

(fastText with two classes and without its factorization into ``dim`` columns). The strength of the L2 penalty is tuned
on such a tenth, the validation part.

The noise of a fixed budget
---------------------------
The rule does not target a fixed size. The reference (``heuristic_cls_pipeline.py``) repeats it with fresh noise until
it has enough, and takes a random subset of the wanted size. To rank instead, write x = u^(-1/a) - 1, with u uniform in
(0, 1) and a the shape. Then ::

    p > 1 - x    <=>    u < (2 - p)^-a    <=>    key > 0,    key = -log(u) - a · log(2 - p)

where -log(u) is standard exponential noise and (2 - p)^-a the probability of being kept. The rule keeps the documents
with positive keys, and among them u / (2 - p)^-a is uniform for any p. So if the rule keeps k or more documents, the k
largest keys are a random subset of these, exactly as in the reference; if it keeps fewer, they are all of these and
others, with the probabilities of being kept raised by one factor (sequential Poisson sampling, Ohlsson 1998), where the
reference draws again. Unlike p + x, the key does not lose the noise of documents whose p rounds to 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import pyarrow as pa

from dsir.features import Features
from dsir.featurizer.packed import PackedFeatures
from dsir.importance import fit_threshold
from dsir.matching import scores
from dsir.noise import exponential_noise, ieee_log

#: Inverse strengths of the L2 penalty to try, in units of the mean loss a document.
STRENGTHS = (1e4, 1e5, 1e6, 1e7, 1e8)

#: One in this many texts is for validation, rounded up.
VALIDATION = 10

#: Of the solver, at each strength.
MAX_ITERATIONS = 500

#: Orders documents by content hash, independently of samples that are ranges of the hash.
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class ClassifierOptions:
    """How to classify and to keep.

    Attributes
    ----------
    alpha : float
        Shape of the Pareto noise, greater than 0.
    seed : int
        Of the noise.
    stream : str
        Name of the noise, as in :func:`dsir.noise.gumbel_noise`.

    Raises
    ------
    ValueError
        Naming the field, its value, and what is expected.
    """

    alpha: float = 9.0
    seed: int = 0
    stream: str = "classifier"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha: {self.alpha!r}; expected more than 0")


@dataclass(frozen=True, eq=False)
class Classifier:
    """The outcome of :func:`fit_classifier`.

    Attributes
    ----------
    theta : ndarray of float64, shape (buckets,)
    intercept : float
        A document's log odds are the mean of theta over its n-grams plus this.
    strength : float
        The one of :data:`STRENGTHS` with the smallest log loss on the validation part.
    accuracy, log_loss : float
        Means of the two classes on the validation part; the loss in nats, log 2 for a guess.
    target_documents, pool_documents : int
        Documents with n-grams, including the validation part.
    converged : bool
        Whether the solver converged at the chosen strength within its iterations.
    """

    theta: np.ndarray
    intercept: float
    strength: float
    accuracy: float
    log_loss: float
    target_documents: int
    pool_documents: int
    converged: bool


def pool_sample(features: Features, pool_documents: int, wanted: int) -> Features:
    """Return the documents of a batch of the pool to fit a classifier on.

    A sample by content hash, which depends on the pool alone, not on shards or their order: see
    :func:`dsir.importance.fit_threshold`, here for documents.

    Parameters
    ----------
    features : Features
        Sparse counts of n documents.
    pool_documents : int
        Size of the whole pool.
    wanted : int
        Approximate number of documents to sample from all batches together.

    Returns
    -------
    Features
        Copies, without word counts.
    """
    kept = features.content_hash <= np.uint64(fit_threshold(pool_documents, wanted))
    lengths = np.diff(features.offsets)
    entries = np.repeat(kept, lengths)
    return Features(
        np.concatenate([[0], np.cumsum(lengths[kept])]),
        features.buckets[entries],
        features.counts[entries],
        features.n_tokens[kept],
        features.content_hash[kept],
    )


def fit_classifier(target: Sequence[Features], pool: Sequence[Features], buckets: int) -> Classifier:
    """Fit logistic regression of target against pool documents, with equal weights of the classes.

    Parameters
    ----------
    target, pool : sequence of Features
        The order of documents and their batches do not matter. All are in memory at once, with about 40 bytes an
        entry; for the pool use a :func:`pool_sample`.
    buckets : int

    Returns
    -------
    Classifier

    Raises
    ------
    ValueError
        The target or the pool has fewer than two different documents with n-grams, one to fit on and one for
        validation.

    Notes
    -----
    A tenth of each class's texts is for validation, equal texts together. Equal inputs give the same bits on one
    machine; on another the solver may differ in the last bits.
    """
    classes = [_rows(name, batches, buckets) for name, batches in (("target", target), ("pool", pool))]
    fitted, validation = (_frequencies([each[part] for each in classes], buckets) for part in (0, 1))
    target_documents, pool_documents = (sum(map(len, parts)) for parts in classes)
    tried = (
        _fit_at(strength, fitted, validation, target_documents, pool_documents) for strength in STRENGTHS
    )
    return min(tried, key=lambda each: each.log_loss)


def _fit_at(strength: float, fitted, validation, target_documents: int, pool_documents: int) -> Classifier:
    """Fit at one strength of the penalty; a part is frequencies (scipy CSR) and whether rows are target (bool)."""
    from sklearn.linear_model import LogisticRegression  # before the limit, which applies to loaded libraries
    from threadpoolctl import threadpool_limits

    frequencies, is_target = validation
    model = LogisticRegression(C=strength / len(fitted[1]), class_weight="balanced", max_iter=MAX_ITERATIONS)
    # One thread: a sum split among threads depends on their number in its last bits.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few iterations: `converged` says so
        model.fit(*fitted)
        logit = model.decision_function(frequencies)
    signed = np.where(is_target, logit, -logit)
    return Classifier(
        theta=model.coef_[0],
        intercept=float(model.intercept_[0]),
        strength=strength,
        accuracy=_mean_of_classes(signed > 0, is_target),
        log_loss=_mean_of_classes(np.logaddexp(0.0, -signed), is_target),
        target_documents=target_documents,
        pool_documents=pool_documents,
        converged=int(model.n_iter_[0]) < MAX_ITERATIONS,
    )


def logits(features: Features | pa.RecordBatch, classifier: Classifier) -> np.ndarray:
    """Log odds of target against pool: the keys of the baseline's top-k.

    Parameters
    ----------
    features : Features or pyarrow.RecordBatch
        Sparse counts of n documents; faster in the form in which they are stored.
    classifier : Classifier

    Returns
    -------
    ndarray of float64, shape (n,)
        Independent of batches and threads; the intercept for a document without n-grams.
    """
    return scores(features, classifier.theta) + classifier.intercept


def probabilities(features: Features, classifier: Classifier) -> np.ndarray:
    """Probability of being target if both classes were equally frequent; parameters as in :func:`logits`."""
    return _sigmoid(logits(features, classifier))


def keys(
    features: Features | pa.RecordBatch, classifier: Classifier, options: ClassifierOptions
) -> np.ndarray:
    """The keys under Pareto noise (module docstring), above 0 for documents that the rule keeps.

    Parameters
    ----------
    features : Features or pyarrow.RecordBatch
        As for :func:`logits`.
    classifier : Classifier
    options : ClassifierOptions

    Returns
    -------
    ndarray of float64, shape (n,)
        Independent of batches and threads.
    """
    stored = features if isinstance(features, Features) else PackedFeatures.from_arrow(features)
    noise = exponential_noise(stored.content_hash, options.seed, options.stream)
    return noise + log_acceptance(logits(features, classifier), options.alpha)


def log_acceptance(logit: np.ndarray, alpha: float) -> np.ndarray:
    """Logarithm of the probability ``(2 - p)^-alpha`` that the rule keeps a document.

    Parameters
    ----------
    logit : ndarray of float64, shape (n,)
        The log odds of p.
    alpha : float
        Shape of the Pareto noise.

    Returns
    -------
    ndarray of float64, shape (n,)
        From ``-alpha * log(2)`` to 0, in nats.
    """
    return alpha * _log_share(np.asarray(logit, dtype=np.float64))


def _mean_of_classes(values: np.ndarray, is_target: np.ndarray) -> float:
    return float((values[is_target].mean() + values[~is_target].mean()) / 2)


def _rows(name: str, batches: Sequence[Features], buckets: int) -> tuple[list, list]:
    """Return the documents with n-grams as (buckets, counts), ordered by content hash: to fit on, and to validate."""
    found = []
    for batch in batches:
        if len(batch.buckets) and batch.buckets.max() >= buckets:
            raise ValueError(f"{name}: bucket {batch.buckets.max()} of {buckets}")
        order = (batch.content_hash * _MIX).tolist()
        for i in np.flatnonzero(np.diff(batch.offsets)):
            entries = slice(batch.offsets[i], batch.offsets[i + 1])
            found.append((order[i], batch.buckets[entries], batch.counts[entries]))
    found.sort(key=lambda row: row[0])
    texts = sorted({order for order, _, _ in found})
    if len(texts) < 2:
        raise ValueError(
            f"{name}: {len(texts)} different documents with n-grams; a classifier needs at least 2, one to fit "
            "on and one for validation"
        )
    limit = texts[-(-len(texts) // VALIDATION) - 1]
    rows = [row[1:] for row in found]
    first = sum(order <= limit for order, _, _ in found)
    return rows[first:], rows[:first]


def _frequencies(classes: list[list], buckets: int):
    """Return the documents' n-gram frequencies (scipy CSR), and whether they are target (bool)."""
    from scipy.sparse import csr_array

    rows = [row for each in classes for row in each]
    offsets = np.concatenate([[0], np.cumsum([len(found) for found, _ in rows])])
    values = np.concatenate([counts / counts.sum() for _, counts in rows])
    indices = np.concatenate([found for found, _ in rows]).astype(np.int32)
    matrix = csr_array((values, indices, offsets.astype(np.int32)), shape=(len(rows), buckets))
    return matrix, np.repeat([True, False], [len(each) for each in classes])


# Scalar loops: a vectorised exponential may differ in the last bit with the position in a batch.
@numba.njit(cache=True, nogil=True)
def _sigmoid(logit):
    out = np.empty(len(logit), np.float64)
    for i in range(len(logit)):
        e = math.exp(-abs(logit[i]))
        out[i] = 1.0 / (1.0 + e) if logit[i] >= 0 else e / (1.0 + e)
    return out


@numba.njit(cache=True, nogil=True)
def _log_share(logit):
    """``-log(2 - p)``."""
    out = np.empty(len(logit), np.float64)
    for i in range(len(logit)):
        e = math.exp(-abs(logit[i]))
        out[i] = ieee_log((1.0 + e) / (1.0 + 2.0 * e)) if logit[i] >= 0 else ieee_log((1.0 + e) / (2.0 + e))
    return out
