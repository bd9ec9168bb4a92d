"""The measures of selections: KL to held-out target text, a classifier's F1, a language model's loss.

What belongs here: one number for one selection and one target, and what shaped it. What does not: the measures
themselves (``dsir``), which cells there are, their evaluation.

All functions run in other processes or threads, and depend on their arguments alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from benchmarks.paper.corpus import Mapper, StudyTarget, count, totals_of
from dsir import downstream, proxy
from dsir.evaluation import SMOOTHING, distribution, kl_divergence, masked_totals
from dsir.features import KERNEL_VERSION, FeatureSpec

#: Not the hash that selects, and more buckets.
INDEPENDENT = FeatureSpec(buckets=40_009, hash="sha256")
#: N-grams to measure per token of the budget: fewer than any selection has, so all are measured alike.
NGRAMS = 1.85

#: Targets whose F1 is the mean of all decisions, as in the paper (section 5); that of the others is the labels' mean.
MICRO = ("chemprot", "rct_pmc")

#: The most tokens to train a language model on, and to measure its loss on.
TRAIN_TOKENS, TEST_TOKENS = 1_000_000, 100_000


def train_tokens(tokens: int) -> int:
    """Return the tokens that a language model is trained on: as many of every selection with this budget."""
    return min(TRAIN_TOKENS, tokens)


def kl_version(tokens: int, target: StudyTarget) -> dict:
    """Return what shapes :func:`kl` besides the texts."""
    return {"spec": asdict(INDEPENDENT), "smoothing": SMOOTHING, "ngrams": int(NGRAMS * tokens)} | {
        "kernel": KERNEL_VERSION
    }


def kl(texts: pa.Array, targets: list[StudyTarget], tokens: int, mapper: Mapper = map) -> list[dict]:
    """KL(test‖selection) in nats for the test split of every target; the selection is in arbitrary order.

    Parameters
    ----------
    texts : pyarrow.Array of large_string
        Measured up to ``NGRAMS`` times the budget in n-grams.
    targets : list of StudyTarget
    tokens : int
        The budget.
    mapper : callable
        Like `map`, perhaps in several threads.

    Returns
    -------
    list of dict
        ``kl``, and the ``ngrams`` of the selection that were measured.
    """
    left = int(NGRAMS * tokens)
    totals = np.zeros((1, INDEPENDENT.buckets), dtype=np.int64)
    for batch in count(texts, INDEPENDENT, mapper):
        fits = np.cumsum(batch.n_ngrams) <= left
        masked_totals(batch, fits[np.newaxis], totals)
        left -= int(batch.n_ngrams[fits].sum())
        if not fits.all():
            break
    selected = distribution(totals[0], SMOOTHING)
    out = []
    for target in targets:
        counts = totals_of(count(target.test.arrow, INDEPENDENT), INDEPENDENT.buckets)
        divergence = kl_divergence(distribution(counts, SMOOTHING), selected)
        out.append({"kl": divergence, "ngrams": int(totals.sum())})
    return out


def proxy_version(tokens: int, target: StudyTarget) -> dict:
    """Return what shapes :func:`proxy_losses` besides the texts and the seed."""
    version = {"options": asdict(proxy.ProxyOptions()), "version": proxy.VERSION}
    return version | {"train_tokens": train_tokens(tokens), "test_tokens": TEST_TOKENS}


def proxy_losses(texts: list[str], targets: list[StudyTarget], seed: int, tokens: int) -> list[dict]:
    """Loss of a language model trained on a selection, on the test split of every target, in nats per token."""
    model = proxy.train_proxy(proxy.word_ids(texts, train_tokens(tokens)), seed)
    return [{"proxy": model.loss(proxy.word_ids(target.test.texts, TEST_TOKENS))} for target in targets]


def f1_version(tokens: int, target: StudyTarget) -> dict:
    """Return what shapes :func:`f1_scores` besides the texts and the seed."""
    options = asdict(downstream.DownstreamOptions())
    average = "micro" if target.name in MICRO else "macro"
    return {
        "options": options,
        "version": downstream.VERSION,
        "train": target.train.digest,
        "average": average,
    }


def f1_scores(texts: list[str], targets: list[StudyTarget], seed: int, tokens: int) -> list[dict]:
    """F1 of a classifier on features learnt from a selection, for every target."""
    vectors = downstream.learn_vectors(texts, seed)
    out = []
    for target in targets:
        train, test = target.train, target.test
        f1 = downstream.classify(vectors, train.texts, train.labels, test.texts, test.labels)
        out.append(
            {"f1": f1.micro if target.name in MICRO else f1.macro, "macro": f1.macro, "micro": f1.micro}
        )
    return out


#: Per measure: what shapes it, and the function, which runs in another process.
VERSIONS = {"kl": kl_version, "proxy": proxy_version, "f1": f1_version}
FUNCTIONS = {"proxy": proxy_losses, "f1": f1_scores}


def digest_of_rows(rows: np.ndarray) -> str:
    """Return the name of a selection: the hash of its positions, int64[n], in their order."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:32]
