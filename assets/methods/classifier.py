"""``method: classifier`` and ``classifier_top_k``: the paper's heuristic classification, with and without its noise.

What belongs here: running :mod:`dsir.classifier` over the store. What does not: the method itself
(``dsir/classifier.py``).
"""

import json
from functools import partial

import numpy as np
import pyarrow as pa

from dsir.classifier import Classifier, ClassifierOptions, fit_classifier, logits, pool_sample
from dsir.classifier import keys as keys_under
from dsir.features import Features, featurize
from dsir.selection import Budget
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.picking.candidates import Candidates, Documents
from dsir_dagster.assets.picking.texts import map_target
from dsir_dagster.resources.settings import ConfigError, Method
from dsir_dagster.resources.table import Column, Table

#: The most documents of a target to fit a classifier on, with about as many of the pool; all are in memory.
LARGEST = 200_000


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Fit a classifier of each target against the pool, and rank by its log odds, with or without noise.

    Raises
    ------
    ConfigError
        A target or the pool is too small to fit on and validate.
    """
    selection = candidates.selection
    candidates.begin("eligible documents")
    eligible = sum(candidates.each_block(_eligible, targets=[], columns=[]))
    classifiers = {target: fit_target(candidates, target, eligible) for target in selection.targets}
    seed = selection.seed if selection.declared.noise else None
    rows = [
        (name, each.target_documents, each.pool_documents, each.accuracy, each.log_loss)
        for name, each in classifiers.items()
    ]
    columns = [
        Column("target"),
        Column("its documents", "whole"),
        Column("of the pool", "whole"),
        Column("accuracy, validation part", "number", 3),
        Column("log loss, validation part", "number", 4),
    ]
    accuracy = json.dumps({name: each.accuracy for name, each in classifiers.items()})
    return Ranking(
        partial(_keys, classifiers, seed),
        needs_features=True,
        numbers={"validation_accuracy": accuracy},
        tables={"classifier": Table(columns, rows)},
    )


def _keys(
    classifiers: dict[str, Classifier],
    seed: int | None,
    documents: Documents,
    target: str,
    stream: str,
    floor: float,
) -> np.ndarray:
    if seed is None:  # without noise
        return logits(documents.batch, classifiers[target])
    return keys_under(documents.batch, classifiers[target], ClassifierOptions(seed=seed, stream=stream))


METHODS = (Method("classifier", fit), Method("classifier_top_k", fit, noise=False))


def fit_target(candidates: Candidates, name: str, eligible: int) -> Classifier:
    """Fit the classifier of one target against a sample of the pool's ``eligible`` documents."""
    workspace = candidates.snapshot.workspace
    target, spec = workspace.settings.target(name), workspace.settings.features.spec()
    counted = candidates.snapshot.plan.target_counts(name).made.count("documents")

    def sampled_target(texts: pa.Array) -> Features:
        return pool_sample(featurize(texts, spec), counted, LARGEST)

    candidates.tell(part=f"reading target {name}")
    positive = list(map_target(workspace, target, target.uri, sampled_target))
    wanted = sum(map(len, positive))
    sampled_pool = partial(_sampled_pool, eligible, wanted)
    candidates.begin("sampling the pool")
    negative = list(candidates.each_block(sampled_pool, targets=[], features=True))
    candidates.tell(part=f"fitting the classifier of {name}")
    try:
        return fit_classifier(positive, negative, spec.buckets)
    except ValueError as error:
        raise ConfigError(f"selection '{candidates.selection.name}', target '{name}': {error}") from None


def _sampled_pool(eligible: int, wanted: int, documents: Documents) -> Features:
    return pool_sample(Features.from_arrow(documents.eligible_batch), eligible, wanted)


def _eligible(documents: Documents) -> int:
    return int(documents.eligible.sum())
