"""``method: top_k``: the documents of the largest importance weights (paper, section 4)."""

from functools import partial

import numpy as np

from dsir.selection import Budget
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.methods.resample import LengthCorrection, LengthOptions, length_correction
from dsir_dagster.assets.picking.candidates import Candidates, Documents
from dsir_dagster.resources.settings import KeyRule, Method


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Rank by log weight, corrected for length if configured."""
    return rank_by_weight(length_correction(candidates))


def rank_by_weight(corrected: LengthCorrection) -> Ranking:
    """Rank by corrected log weights, without noise."""
    return Ranking(partial(_keys, corrected), corrected.columns, numbers=corrected.numbers())


def _keys(
    corrected: LengthCorrection, documents: Documents, target: str, stream: str, floor: float
) -> np.ndarray:
    return corrected.log_weights(documents, target)


METHOD = Method("top_k", fit, KeyRule(log_weight=True), LengthOptions, noise=False)
