"""``method: random``: any documents, by noise alone."""

from functools import partial

import numpy as np

from dsir.noise import gumbel_noise
from dsir.selection import Budget
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.picking.candidates import Candidates, Documents
from dsir_dagster.resources.settings import KeyRule, Method


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Rank by noise: uniform sampling without replacement."""
    return Ranking(partial(_keys, candidates.selection.seed))


def _keys(seed: int, documents: Documents, target: str, stream: str, floor: float) -> np.ndarray:
    return gumbel_noise(documents.content_hash, seed, stream)


METHOD = Method("random", fit, KeyRule(noise=True))
