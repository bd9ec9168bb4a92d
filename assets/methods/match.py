"""``method: match``: picks that resemble the target as a whole.

What belongs here: running :mod:`dsir.matching` over the store. What does not: the method itself
(``dsir/matching.py``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, cast

import numpy as np
import pydantic

from dsir.features import Features
from dsir.matching import Matching, MatchingOptions, Round, draw_keys, match, ratio, round_keys
from dsir.matching import Part as MatchingPart
from dsir.selection import Budget
from dsir_dagster.assets.importance_estimator import raw_totals, target_totals, validation_totals
from dsir_dagster.assets.methods.ranking import Ranking, caps_of, draws_of, noise_stream
from dsir_dagster.assets.methods.resample import ResampleOptions, length_correction, passes_over, temperature
from dsir_dagster.assets.picking.candidates import Candidates, Documents, Part
from dsir_dagster.resources import plots
from dsir_dagster.resources.settings import ConfigError, Method
from dsir_dagster.resources.settings.types import Number
from dsir_dagster.resources.table import Column, Table


class MatchOptions(ResampleOptions):
    """Options of ``match``."""

    objective: Literal["mean", "worst"] = "mean"
    """With several targets: come close to their mixture, or to the target that is `worst` off."""
    smoothing: Annotated[Number, pydantic.Field(gt=0)] = MatchingOptions.smoothing
    """Pseudo-counts per bucket in every distribution that the method compares; with more, the picks are more
    diverse and closer in KL."""


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Match the targets of a selection, and draw by the shares of the rounds.

    The rounds see near-duplicates, even if the pick that follows is configured to drop them.

    Raises
    ------
    ConfigError
        A target is too small for a validation part, no temperature gives the requested evenness, or no document fits.
    """
    snapshot, selection = candidates.snapshot, candidates.selection
    targets = sorted(selection.targets)  # sums of floats depend on the order
    fitted, validation = split_totals(candidates, targets)
    shares = np.array([float(counts.sum()) for counts in fitted])
    if selection.shares is not None:
        share = dict(zip(selection.targets, selection.shares, strict=True))
        shares = np.array([share[target] for target in targets])

    raw = raw_totals(snapshot)
    [name] = draws_of(selection)
    configured = cast(MatchOptions, selection.options)
    options = MatchingOptions(
        smoothing=configured.smoothing,
        length=configured.length or MatchingOptions.length,
        mean_tokens=mean_tokens(candidates, targets, shares),
        objective=configured.objective,
        seed=selection.seed,
        stream=noise_stream(selection, name),
    )

    def begin(done: Sequence[Round]) -> None:
        closeness = f", KL {done[-1].kl_validation:.3f} nats" if done else ""
        candidates.begin(f"round {len(done) + 1}{closeness}", passes=2)

    first = ratio(fitted, raw, options.smoothing, shares)
    log_ratios = partial(
        passes_over, candidates, partial(_log_ratios, first, options), targets=[], features=True
    )
    options = replace(options, temperature=temperature(selection, "+".join(targets), log_ratios, none=0.0))
    try:
        matching = match(
            partial(_passes, candidates),
            fitted,
            validation,
            raw,
            budget,
            options,
            shares=shares,
            caps=caps_of(selection, None, budget),
            before_round=begin,
        )
    except ValueError as error:
        raise ConfigError(f"selection '{selection.name}': {error}") from error

    return Ranking(
        partial(_keys, matching, options),
        ("source",),
        needs_features=True,
        numbers=numbers(matching, options),
        tables=tables(matching, targets),
    )


def _keys(
    matching: Matching,
    options: MatchingOptions,
    documents: Documents,
    target: str,
    stream: str,
    floor: float,
) -> np.ndarray:
    return draw_keys(documents.features, matching, options, documents.source_hash, stream)


def _log_ratios(theta: np.ndarray, options: MatchingOptions, documents: Documents) -> np.ndarray:
    return round_keys(documents.eligible_features, [theta], options)[0]


def _passes(
    candidates: Candidates, function: Callable[[MatchingPart, float], Any], given: Callable[[], float]
) -> Iterator[Any]:
    """Make a pass over the features of a pool, as :data:`dsir.matching.Passes`."""
    return candidates.each_shard(partial(_of_shard, function), given, targets=[], features=True)


def _of_shard(function: Callable[[MatchingPart, float], Any], part: Part, floor: float) -> Any:
    return function(lambda of_batch: part(partial(_of_block, of_batch)), floor)


def _of_block(of_batch: Callable[[Features, np.ndarray], Any], documents: Documents) -> Any:
    return of_batch(documents.eligible_features, documents.candidates(np.flatnonzero(documents.eligible)))


METHOD = Method("match", fit, options=MatchOptions, joint=True)


def split_totals(candidates: Candidates, targets: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the totals of the targets' parts to fit on and to validate: two ndarrays of int64, (targets, buckets)."""
    fitted, validation = [], []
    for target in targets:
        counts, _ = target_totals(candidates.snapshot, target)
        part = validation_totals(candidates.snapshot, target)
        if not part.any() or not (counts - part).any():
            raise ConfigError(
                f"selection '{candidates.selection.name}': target '{target}' has too few documents for a validation "
                "part, a fifth of them, which tells method match when to stop; add documents, or choose another method"
            )
        fitted.append(counts - part)
        validation.append(part)
    return np.array(fitted), np.array(validation)


def mean_tokens(candidates: Candidates, targets: list[str], shares: np.ndarray) -> tuple[float, float] | None:
    """Return the mean tokens of the targets' documents, by share, and of the pool's; None if not needed."""
    correction = length_correction(candidates)
    if not correction.mean_tokens:
        return None
    of_targets = np.array([correction.mean_tokens[target] for target in targets])
    # Shares are of n-grams, of which longer documents have more.
    return float(1 / np.average(1 / of_targets, weights=shares)), correction.pool_mean_tokens


def numbers(matching: Matching, options: MatchingOptions) -> dict[str, int | float | str]:
    """Return how the rounds ended."""
    best = matching.curve[matching.best]
    found: dict[str, int | float | str] = {
        "rounds": len(matching.curve),
        "rounds_kept": matching.best + 1,
        "converged": str(matching.converged).lower(),
        "kl_fit": best.kl_fit,
        "kl_validation": best.kl_validation,
        "gap": best.gap,
    }
    return found | ({"temperature": options.temperature} if options.temperature else {})


def tables(matching: Matching, targets: list[str]) -> dict[str, Table | plots.Plot]:
    """Return the rounds as a plot and a table: documents and tokens of the round itself, KL of the mean of rounds."""
    several = targets if len(targets) > 1 else []
    numbers = ("KL, fitted part", "KL, validation part", "gap", "step")
    columns = [Column("round", "whole"), *(Column(name, "number") for name in numbers)]
    columns += [Column("documents", "number"), Column("tokens", "number")]
    columns += [Column(f"KL, validation part of {target}", "number") for target in several]
    rows = [
        (each.number, each.kl_fit, each.kl_validation, each.gap, each.step, each.documents, each.tokens)
        + (each.kl_targets if several else ())
        for each in matching.curve
    ]
    return {
        "rounds, plot": plots.rounds(matching.curve, matching.best),
        "rounds": Table(columns, rows),
    }
