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
    """Small language models trained on each pick; needs PyTorch (the extra `paper`) and takes minutes."""

    seeds: Annotated[int, pydantic.Field(gt=0, le=100)] = 3
    """Models for each pick."""
    tokens: Annotated[int, pydantic.Field(gt=0)] = 250_000
    """Tokens to train each on."""


class DownstreamSettings(Model):
    """Classifiers of labelled targets, on word vectors learned from each pick."""

    label: str
    """Field of the targets' records that holds the label: a string or an integer."""
    seeds: Annotated[int, pydantic.Field(gt=0, le=100)] = 3
    """Classifiers for each pick."""
    tokens: Annotated[int, pydantic.Field(gt=0)] = DownstreamOptions.tokens
    """Tokens to learn the word vectors from."""


class EvaluationSettings(Model):
    """How selections are measured."""

    compare: list[MethodName] = pydantic.Field(default_factory=list)
    """Methods whose picks of the same size a selection is compared with, beside `top_k` and `random`."""
    random_seeds: Annotated[int, pydantic.Field(ge=2, le=100)] = 5
    """Random selections to compare with."""
    smoothing: Annotated[Number, pydantic.Field(gt=0)] = SMOOTHING
    """Pseudo-count per bucket in the paper's KL reduction (metric `kl_reduction`) and in `dsir doctor`'s curves."""
    sample: Annotated[int, pydantic.Field(gt=0)] = 10_000_000
    """The most n-grams of a pick that are read again and counted, and of held-out text that are told apart: of more, a
    sample of this size. The default is the whole of most picks; of one four times as large, the sample moved the KL
    reduction over random by 0.003 nats."""
    proxy: ProxySettings | None = None
    """Train small language models on the picks (the extra `paper`; minutes)."""
    downstream: DownstreamSettings | None = None
    """Train classifiers of targets with labels and a holdout, on word vectors learnt from the picks."""

    @pydantic.field_validator("compare")
    @classmethod
    def _each_once(cls, methods: list[str]) -> list[str]:
        if always := sorted({RANDOM, TOP_K}.intersection(methods)):
            raise ValueError(f"{' and '.join(always)} is compared with anyway; leave it out")
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice")
        return methods
