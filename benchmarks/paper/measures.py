"""The measures of selections: n-grams against held-out target text, language models, a classifier's F1.

What belongs here: numbers for one selection and one target, and what shaped them. What does not: the measures
themselves (``dsir``), which cells there are, their evaluation.

All functions run in other processes or threads, and depend on their arguments alone. They take the texts of a
selection in arbitrary order, targets, a seed (None where nothing is random) and the budget, and return a mapping for
every target.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from benchmarks.paper.corpus import StudyTarget, count, totals_of
from dsir import downstream, ngram_model, proxy
from dsir.evaluation import (
    INDEPENDENT,
    SMOOTHING,
    UNIFORM,
    cross_entropy,
    distribution,
    duplicates,
    independent_distribution,
    kl_divergence,
)
from dsir.features import KERNEL_VERSION, FeatureSpec
from dsir.ngram_model import NgramModel

#: What the paper's own KL reduction counts: the features that DSIR selects with, for all methods alike.
SELECTING = FeatureSpec()

#: Targets whose F1 is the mean of all decisions, as in the paper (section 5); that of the others is the labels' mean.
MICRO = ("chemprot", "rct_pmc")

#: The most tokens to train a language model on, and to measure its loss on.
TRAIN_TOKENS, TEST_TOKENS = 1_000_000, 100_000


def train_tokens(tokens: int) -> int:
    """Return the tokens that a language model is trained on: as many of every selection with this budget."""
    return min(TRAIN_TOKENS, tokens)


def counts_version(tokens: int, target: StudyTarget) -> dict:
    """Return what shapes :func:`counts` besides the texts."""
    return {
        "spec": asdict(INDEPENDENT),
        "uniform": UNIFORM,
        "selecting": asdict(SELECTING),
        "smoothing": SMOOTHING,
        "kernel": KERNEL_VERSION,
    }


def counts(texts: list[str], targets: list[StudyTarget], seed: None, tokens: int) -> list[dict]:
    """Count the whole selection.

    Returns
    -------
    list of dict
        ``cross_entropy`` of the test split with the selection under the independent hash, of which the headline figure
        is a difference; ``kl``, the divergence of the paper's KL reduction (:func:`selected_kl`); nats. ``duplicates``:
        how many documents have the text of another one that is counted.
    """
    selected = pa.array(texts, pa.large_string())
    batches = count(selected, INDEPENDENT)
    independent = independent_distribution(totals_of(batches, INDEPENDENT.buckets))
    paper = distribution(totals_of(count(selected, SELECTING), SELECTING.buckets))
    repeated = duplicates(np.concatenate([batch.content_hash for batch in batches]))
    return [
        {
            "cross_entropy": cross_entropy(
                totals_of(count(target.test.arrow, INDEPENDENT), INDEPENDENT.buckets), independent
            ),
            "kl": selected_kl(target, paper),
            "duplicates": repeated,
        }
        for target in targets
    ]


def selected_kl(target: StudyTarget, q: np.ndarray) -> float:
    """KL(test split‖q) in nats under `SELECTING`, with pseudo-counts; q: ndarray of float64, shape (buckets,)."""
    return kl_divergence(distribution(totals_of(count(target.test.arrow, SELECTING), SELECTING.buckets)), q)


def bits_version(tokens: int, target: StudyTarget) -> dict:
    """Return what shapes :func:`bits` besides the texts."""
    return {"version": ngram_model.VERSION}


def bits(texts: list[str], targets: list[StudyTarget], seed: None, tokens: int) -> list[dict]:
    """Bits per byte of the test split under a model of bytes that is trained on the whole selection."""
    model = NgramModel.fit(texts)
    return [{"bits": model.bits_per_byte(target.test.texts)} for target in targets]


def proxy_version(tokens: int, target: StudyTarget) -> dict:
    """Return what shapes :func:`proxy_losses` besides the texts and the seed."""
    version = {"options": asdict(proxy.ProxyOptions()), "version": proxy.VERSION}
    return version | {"train_tokens": train_tokens(tokens), "test_tokens": TEST_TOKENS}


def proxy_losses(texts: list[str], targets: list[StudyTarget], seed: int, tokens: int) -> list[dict]:
    """Loss of a neural language model trained on a selection, on the test split, in nats per token."""
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
    """F1 of a classifier on features learnt from a selection."""
    vectors = downstream.learn_vectors(texts, seed)
    out = []
    for target in targets:
        train, test = target.train, target.test
        f1 = downstream.classify(vectors, train.texts, train.labels, test.texts, test.labels)
        out.append(
            {"f1": f1.micro if target.name in MICRO else f1.macro, "macro": f1.macro, "micro": f1.micro}
        )
    return out


#: Per measure: what shapes it, and the function.
MEASURES: dict[str, tuple[Callable, Callable]] = {
    "counts": (counts_version, counts),
    "bits": (bits_version, bits),
    "f1": (f1_version, f1_scores),
    "proxy": (proxy_version, proxy_losses),
}


def digest_of_rows(rows: np.ndarray) -> str:
    """Return the name of a selection: the hash of its positions, int64[n], in their order."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:32]
