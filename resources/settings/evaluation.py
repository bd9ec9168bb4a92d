"""How selections are measured: the section ``evaluation``.

What belongs here: what is measured, on how much. What does not: the measures (``assets/measuring/measures.py``).
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from dsir.downstream import DownstreamOptions
from dsir.evaluation import SMOOTHING
from dsir_dagster.resources.settings.methods import MethodName
from dsir_dagster.resources.settings.types import Model, Number

#: The baselines: methods that every selection is compared with. Random picks show what the pool gives without
#: selecting, and their spread over seeds how much of a difference is chance; top_k uses the same weights without noise.
RANDOM, TOP_K = "random", "top_k"


class ProxySettings(Model):
    """Small language models trained on each pick; needs PyTorch (the extra `paper`) and takes minutes.

    Attributes
    ----------
    seeds : int
        Models for each pick.
    tokens : int
        Tokens to train each on.
    """

    seeds: Annotated[int, pydantic.Field(gt=0, le=100)] = 3
    tokens: Annotated[int, pydantic.Field(gt=0)] = 250_000


class DownstreamSettings(Model):
    """Classifiers of labelled targets, on word vectors learned from each pick.

    Attributes
    ----------
    label : str
        Field of the targets' records that holds the label (a string or an integer).
    seeds : int
        Classifiers for each pick.
    tokens : int
        Tokens to learn word vectors from.
    """

    label: str
    seeds: Annotated[int, pydantic.Field(gt=0, le=100)] = 3
    tokens: Annotated[int, pydantic.Field(gt=0)] = DownstreamOptions.tokens


class EvaluationSettings(Model):
    """How selections are measured.

    Attributes
    ----------
    compare : list of str
        Methods to compare a selection with, at the same size, beside top_k and random.
    random_seeds : int
        Number of random selections of equal size to compare a selection with.
    smoothing : float
        Pseudo-count per bucket of every distribution in a KL divergence.
    sample : int
        N-grams of each pick, and of the held-out text, to read again and measure under a hash that selected nothing,
        without a hash, and for distinct n-grams; 0 for none.
    proxy : ProxySettings, optional
        Train language models on the selection and on what it is compared with.
    downstream : DownstreamSettings, optional
        Train classifiers of targets that have labels and a holdout.
    """

    compare: list[MethodName] = pydantic.Field(default_factory=list)
    random_seeds: Annotated[int, pydantic.Field(ge=2, le=100)] = 5
    smoothing: Annotated[Number, pydantic.Field(gt=0)] = SMOOTHING
    sample: Annotated[int, pydantic.Field(ge=0)] = 200_000
    proxy: ProxySettings | None = None
    downstream: DownstreamSettings | None = None

    @pydantic.field_validator("compare")
    @classmethod
    def _each_once(cls, methods: list[str]) -> list[str]:
        if always := sorted({RANDOM, TOP_K}.intersection(methods)):
            raise ValueError(f"{' and '.join(always)} is compared with anyway; leave it out")
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice")
        return methods
