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


def size_name(factor: float) -> str:
    """Return what a pick of another size is called: ``selection x0.5`` has half of the selection's."""
    return f"selection x{factor:g}"


class BitsPerByteSettings(Model):
    """An n-gram model of the bytes of each pick: no GPU, no extra, seconds."""

    tokens: Annotated[int, pydantic.Field(gt=0)] = 2_000_000
    """Tokens to train each on, or all of the smallest pick; a million takes about 0.1 GB of memory."""


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
    budgets: list[Annotated[Number, pydantic.Field(gt=0, le=100)]] = pydantic.Field(default_factory=list)
    """Sizes at which the selection's method picks again, as factors of the selection's own, such as
    `[0.25, 0.5, 2, 4]`: whether fewer documents would be better, or more. Each takes the time of a selection."""
    random_seeds: Annotated[int, pydantic.Field(ge=2, le=100)] = 5
    """Random selections to compare with."""
    smoothing: Annotated[Number, pydantic.Field(gt=0)] = SMOOTHING
    """Pseudo-count per bucket in the paper's KL reduction (metric `kl_reduction`) and in `dsir doctor`'s curves."""
    sample: Annotated[int, pydantic.Field(gt=0)] = 10_000_000
    """The most n-grams of a pick that are read again and counted, and of held-out text that are told apart: of more, a
    sample of this size. The default is the whole of most picks; of one four times as large, the sample moved the KL
    reduction over random by 0.003 nats."""
    bits_per_byte: BitsPerByteSettings | None = None
    """Train n-gram models on the picks and measure what held-out text costs under them: `{}` for the default."""
    proxy: ProxySettings | None = None
    """Train small language models on the picks (the extra `paper`; minutes)."""
    downstream: DownstreamSettings | None = None
    """Train classifiers of targets with labels and a holdout, on word vectors learnt from the picks."""

    @property
    def sizes(self) -> list[float]:
        """All sizes that are measured, ascending, with the selection's own, 1; none unless others are asked for."""
        return sorted([*self.budgets, 1.0]) if self.budgets else []

    @pydantic.field_validator("budgets")
    @classmethod
    def _other_sizes(cls, factors: list[float]) -> list[float]:
        if 1 in factors:
            raise ValueError("1 is the selection itself, which is measured anyway; leave it out")
        if len(set(factors)) < len(factors):
            raise ValueError("a factor is named twice")
        return factors

    @pydantic.field_validator("compare")
    @classmethod
    def _each_once(cls, methods: list[str]) -> list[str]:
        if always := sorted({RANDOM, TOP_K}.intersection(methods)):
            raise ValueError(f"{' and '.join(always)} is compared with anyway; leave it out")
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice")
        return methods
