"""``method: resample``: draw without replacement in proportion to the importance weights (paper, section 3).

What belongs here: from log weights to keys: length correction, temperature, noise. What does not: the arithmetic
(``dsir/importance.py``), the noise itself (``dsir/noise.py``).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import pydantic

from dsir.importance import correct_for_length, solve_temperature
from dsir.noise import MOST_GUMBEL, gumbel_noise
from dsir.selection import Budget
from dsir_dagster.assets.methods.ranking import Ranking
from dsir_dagster.assets.picking.candidates import Candidates, Documents, Part
from dsir_dagster.resources.settings import ConfigError, KeyRule, Method, MethodOptions, Selection
from dsir_dagster.resources.settings.types import Model, Number


class SolvedTemperature(Model):
    """The temperature at which the weights are as even as requested; give exactly one of the two."""

    effective_sample_size: Annotated[Number, pydantic.Field(gt=1)] | None = None
    """`(Σw)² / Σw²` of the eligible documents' weights, in documents."""
    acceptance: Annotated[Number, pydantic.Field(gt=0, lt=1)] | None = None
    """Mean weight over largest weight: the share that rejection sampling would accept."""

    @pydantic.model_validator(mode="after")
    def _one(self) -> "SolvedTemperature":
        if (self.effective_sample_size is None) == (self.acceptance is None):
            raise ValueError("give either effective_sample_size or acceptance")
        return self


def _kind_of_temperature(value: object) -> str:
    return "solved" if isinstance(value, dict | SolvedTemperature) else "number"


Length: TypeAlias = Literal["none", "per_ngram", "sqrt", "poisson"]
LENGTHS: tuple[Length, ...] = get_args(Length)


class LengthOptions(MethodOptions):
    """Options of the methods that correct log weights for a document's length."""

    length: Length | None = None
    """Correction of the log weight for a document's length: `none`, `per_ngram`, `sqrt` (divided by the
    n-grams, or by their square root), `poisson` (plus the log ratio of two Poisson distributions of the
    number of tokens). Default: `none`."""


class ResampleOptions(LengthOptions):
    """Options of ``resample``."""

    temperature: (
        Annotated[
            Annotated[Number, pydantic.Field(gt=0), pydantic.Tag("number")]
            | Annotated[SolvedTemperature, pydantic.Tag("solved")],
            pydantic.Discriminator(_kind_of_temperature),
        ]
        | None
    ) = None
    """What log weights are divided by before noise is added (default: 1): a number, or solved for
    `{effective_sample_size: N}` or `{acceptance: p}`."""


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Rank by log weight, divided by the temperature, plus Gumbel noise: Gumbel top-k.

    Raises
    ------
    ConfigError
        No temperature gives the requested evenness.
    """
    selection = candidates.selection
    corrected = length_correction(candidates)
    temperatures = {}
    for target in selection.targets:
        of_block = partial(_log_weights, corrected, target)
        passes = partial(passes_over, candidates, of_block, targets=[target], columns=corrected.columns)
        temperatures[target] = temperature(selection, target, passes)
    numbers = corrected.numbers()
    if cast(ResampleOptions, selection.options).temperature is not None:
        numbers["temperatures"] = json.dumps(temperatures)
    keys = partial(_keys, corrected, temperatures, selection.seed)
    return Ranking(keys, corrected.columns, numbers=numbers)


def _keys(
    corrected: "LengthCorrection",
    temperatures: dict[str, float],
    seed: int,
    documents: Documents,
    target: str,
    stream: str,
    floor: float,
) -> np.ndarray:
    key = corrected.log_weights(documents, target) / temperatures[target]
    # Log weights spread over hundreds of nats, so of most documents no noise makes up for theirs.
    at = np.flatnonzero(documents.eligible & (key + MOST_GUMBEL >= floor))
    key[at] += gumbel_noise(documents.content_hash[at], seed, stream)
    return key


def _log_weights(corrected: "LengthCorrection", target: str, documents: Documents) -> np.ndarray:
    return corrected.log_weights(documents, target)[documents.eligible]


METHOD = Method("resample", fit, KeyRule(log_weight=True, noise=True), ResampleOptions)


@dataclass(frozen=True)
class LengthCorrection:
    """Log weights as a selection's ``length`` corrects them.

    Attributes
    ----------
    length : str or None
        The option.
    mean_tokens : dict of str to float
        Mean tokens a document, by target; empty if not needed.
    pool_mean_tokens : float
        Mean tokens of the pool's eligible documents.
    """

    length: str | None
    mean_tokens: dict[str, float]
    pool_mean_tokens: float

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the documents needed for it."""
        return () if self.length is None else ("n_ngrams",)

    def log_weights(self, documents: Documents, target: str) -> np.ndarray:
        """Return the corrected log weights: ndarray of float64."""
        if self.length is None:
            return documents.log_weights[target]
        means = (self.mean_tokens[target], self.pool_mean_tokens) if self.mean_tokens else None
        return correct_for_length(
            documents.log_weights[target],
            self.length,
            documents.n_ngrams,
            documents.n_tokens,
            means,
        )

    def numbers(self) -> dict[str, str | float]:
        """Return what `sql/macros_why.sql` needs."""
        if not self.mean_tokens:
            return {}
        return {"mean_tokens": json.dumps(self.mean_tokens), "pool_mean_tokens": self.pool_mean_tokens}


def length_correction(candidates: Candidates) -> LengthCorrection:
    """Return a selection's correction; takes one pass over the documents if their mean length is needed."""
    selection = candidates.selection
    length = cast(LengthOptions, selection.options).length
    means: dict[str, float] = {}
    documents = tokens = 0
    if length == "poisson":
        candidates.begin("lengths")
        documents, tokens = np.sum(
            list(candidates.each_block(_lengths, targets=[], columns=[])), axis=0
        ).tolist()
        for target in selection.targets:
            counted = candidates.snapshot.plan.target_counts(target).made
            means[target] = counted.count("tokens") / counted.count("documents")
    return LengthCorrection(length, means, tokens / max(documents, 1))


def _lengths(documents: Documents) -> tuple[int, int]:
    """Return the number of eligible documents, and their tokens."""
    return int(documents.eligible.sum()), int(documents.n_tokens[documents.eligible].sum())


#: A pass over the log weights of eligible documents, as :func:`dsir.importance.solve_temperature` makes it.
LogWeights = Callable[[Callable[[Iterable[np.ndarray]], Any]], Iterator[Any]]


def passes_over(
    candidates: Candidates,
    log_weights: Callable[[Documents], np.ndarray],
    function: Callable[[Iterable[np.ndarray]], Any],
    **reading: Any,
) -> Iterator[Any]:
    """Make a pass over the log weights of a pool; arguments of reading are those of ``Candidates.each_shard``."""
    candidates.begin("temperature")
    return candidates.each_shard(partial(_of_part, function, log_weights), **reading)


def _of_part(function: Callable, log_weights: Callable, part: Part, given: None) -> Any:
    return function(part(log_weights))


def temperature(selection: Selection, target: str, passes: LogWeights) -> float:
    """Return the temperature of a target's draw: as configured, solved for what is configured, or else 1."""
    wanted = cast(ResampleOptions, selection.options).temperature
    if not isinstance(wanted, SolvedTemperature):
        return 1.0 if wanted is None else wanted
    try:
        return solve_temperature(passes, **wanted.model_dump())
    except ValueError as error:
        raise ConfigError(f"selection '{selection.name}', target '{target}': {error}") from None
