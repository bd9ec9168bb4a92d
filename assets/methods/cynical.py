"""``method: cynical``: one document after the other, each the one that brings the selection closest to the target.

What belongs here: running :mod:`dsir.cynical` over the features of a pool that fits into memory. What does not: the
method itself; the same objective for a pool of any size (``match``).
"""

from functools import partial
from typing import cast

import numpy as np
import psutil
import pyarrow as pa

from dsir.cynical import cynical
from dsir.features import Features
from dsir.matching import Part as MatchingPart
from dsir.relative_entropy import mixed, target_distribution
from dsir.selection import Budget, KeysByPosition, by_content, joined
from dsir_dagster.assets.methods.match import (
    RelativeEntropyOptions,
    keys_of,
    passes_over,
    shares_by_name,
    totals_of,
)
from dsir_dagster.assets.methods.ranking import Ranking, caps_of
from dsir_dagster.assets.picking.candidates import Candidates, Documents
from dsir_dagster.resources.settings import ConfigError, Method


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Select for the mixture of the targets, and rank documents as they were selected.

    Raises
    ------
    ConfigError
        The pool's features do not fit into memory, or no document fits into the budget.
    """
    selection = candidates.selection
    targets = sorted(selection.targets)  # sums of floats depend on the order
    counts = totals_of(candidates, targets)
    shares = shares_by_name(selection, targets, counts)
    mixture = mixed(np.array([target_distribution(each) for each in counts]), shares)
    check_memory(candidates)
    documents, features = read_pool(candidates)
    caps = caps_of(selection, None, budget)
    sources, source = np.unique(documents["source_hash"], return_inverse=True)
    candidates.tell(part="selecting", of=budget.amount)
    told = budget.amount

    def before(left: int) -> None:
        nonlocal told
        candidates.tell(work=told - left)
        told = left

    smoothing = cast(RelativeEntropyOptions, selection.options).smoothing
    try:
        order = cynical(
            features,
            mixture,
            budget,
            smoothing,
            source=source if caps else None,
            limits=caps.of(sources) if caps else None,
            before=before,
        )
    except ValueError as error:
        raise ConfigError(f"selection '{selection.name}': {error}") from error
    keys = -np.arange(len(order), dtype=np.float64)
    return Ranking(partial(_keys, KeysByPosition.of(documents.take(order), keys)), ("n_ngrams",))


def _keys(keys: KeysByPosition, documents: Documents, target: str, stream: str, floor: float) -> np.ndarray:
    return keys_of(keys, documents)


METHOD = Method("cynical", fit, options=RelativeEntropyOptions, noise=False, joint=True)


def check_memory(candidates: Candidates) -> None:
    """Refuse a pool whose features would not leave half of the free memory free."""
    plan = candidates.snapshot.plan
    ngrams = sum(plan.raw_counts(shard).made.count("ngrams") for shard in plan.counted)
    itemsize = candidates.snapshot.settings.features.spec().bucket_dtype.itemsize + 1
    needed, free = 2 * ngrams * itemsize, psutil.virtual_memory().available  # they are put in order once
    if needed > free / 2:
        raise ConfigError(
            f"selection '{candidates.selection.name}': method cynical keeps the pool's features in memory, up to "
            f"{needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free; method match selects as well from a pool of "
            "any size"
        )


def read_pool(candidates: Candidates) -> tuple[np.ndarray, Features]:
    """Return the eligible documents, ndarray of CANDIDATE, and their features, both in order of content and id."""
    candidates.begin("features of the pool")
    passes = passes_over(candidates, _read, lambda: -np.inf)
    found = [each for part in passes for each in part]
    documents = joined([each for _, each in found])
    order = by_content(documents)
    return documents.take(order), Features.gathered([batch for batch, _ in found], order)


def _read(part: MatchingPart, floor: float) -> list[tuple[pa.RecordBatch, np.ndarray]]:
    return list(part(lambda batch, documents: (batch, documents)))
