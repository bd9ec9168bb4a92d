"""``method: match``: picks that resemble the target as a whole.

What belongs here: running :mod:`dsir.matching` and :mod:`dsir.refinement` over the store. What does not: the method
itself.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pydantic

from dsir.importance import correct_for_length
from dsir.matching import Matching, MatchingOptions, Round, match
from dsir.matching import Part as MatchingPart
from dsir.refinement import Drawn, hold, refine
from dsir.selection import Budget, KeysByPosition
from dsir_dagster.assets.importance_estimator import raw_totals, target_totals
from dsir_dagster.assets.methods.ranking import Ranking, caps_of, draws_of, noise_stream
from dsir_dagster.assets.picking.candidates import CANDIDATE_COLUMNS, Candidates, Documents, Part
from dsir_dagster.resources import plots
from dsir_dagster.resources.settings import ConfigError, Method, MethodOptions, Selection
from dsir_dagster.resources.settings.types import Number
from dsir_dagster.resources.table import Column, Table


class RelativeEntropyOptions(MethodOptions):
    """Options of the methods that bring the selection's distribution close to the target's."""

    smoothing: Annotated[Number, pydantic.Field(gt=0)] = MatchingOptions.smoothing
    """Pseudo-counts per bucket of the selection's distribution; with more, the picks are more diverse."""


class MatchOptions(RelativeEntropyOptions):
    """Options of ``match``."""

    objective: Literal["mean", "worst"] = "mean"
    """With several targets: come close to their mixture, or to the target that is `worst` off."""


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Match the targets of a selection, and draw every epoch by the shares of the rounds, refined.

    The rounds see near-duplicates, even if the pick that follows is configured to drop them.

    Raises
    ------
    ConfigError
        No document fits.
    """
    snapshot, selection = candidates.snapshot, candidates.selection
    targets = sorted(selection.targets)  # sums of floats depend on the order
    counts = totals_of(candidates, targets)
    [name] = draws_of(selection)
    configured = cast(MatchOptions, selection.options)
    options = MatchingOptions(smoothing=configured.smoothing, objective=configured.objective)

    def begin(done: Sequence[Round]) -> None:
        closeness = f", KL {done[-1].kl:.3f} nats" if done else ""
        left = f", at most {done[-1].gap:.3f} to gain" if len(done) > 1 else ""  # the first gap is the pool's
        candidates.begin(f"round {len(done) + 1}{closeness}{left}", passes=2)

    passes = partial(passes_over, candidates)
    caps = caps_of(selection, None, budget)
    try:
        matching = match(
            passes,
            counts,
            raw_totals(snapshot),
            budget,
            options,
            shares=shares_by_name(selection, targets, counts),
            caps=caps,
            before_round=begin,
        )
    except ValueError as error:
        raise ConfigError(f"selection '{selection.name}': {error}") from error
    candidates.begin("features of the rounds' picks")
    held = hold(passes, matching, snapshot.settings.features.ngrams)
    drawn = {}
    for epoch in range(1, selection.epochs + 1):
        candidates.tell(part=f"refining epoch {epoch}" if selection.epochs > 1 else "refining the draw")
        stream = noise_stream(selection, name, epoch)
        drawn[stream] = refine(matching, held, budget, options, seed=selection.seed, stream=stream, caps=caps)
    first = next(iter(drawn.values()))
    return Ranking(
        partial(_keys, {stream: each.keys for stream, each in drawn.items()}),
        ("n_ngrams",),
        numbers=numbers(matching, first),
        tables=tables(matching, targets),
    )


def _keys(
    keys: dict[str, KeysByPosition], documents: Documents, target: str, stream: str, floor: float
) -> np.ndarray:
    return keys_of(keys[stream], documents)


def keys_of(known: KeysByPosition, documents: Documents) -> np.ndarray:
    """Return the keys of documents: those that are known, and below them the others by their mean log ratio.

    The others are picked only if known ones must not be, as near-duplicates.
    """
    best = np.max(list(documents.log_weights.values()), axis=0)
    best = correct_for_length(best, "per_ngram", documents.n_ngrams, documents.n_tokens)
    lowest = known.keys.min()
    keys = known.at(documents.positions)
    return np.where(keys < lowest, lowest - 2 + np.tanh(best / 8), keys)  # a mean is between -19 and 19


def passes_over(
    candidates: Candidates, function: Callable[[MatchingPart, float], Any], given: Callable[[], float]
) -> Iterator[Any]:
    """Make a pass over the features of a pool, as :data:`dsir.matching.Passes`."""
    columns = (
        CANDIDATE_COLUMNS if candidates.selection.source_caps is None else (*CANDIDATE_COLUMNS, "source")
    )
    return candidates.each_shard(
        partial(_of_shard, function), given, targets=[], features=True, columns=columns
    )


def _of_shard(function: Callable[[MatchingPart, float], Any], part: Part, floor: float) -> Any:
    return function(lambda of_batch: part(partial(_of_block, of_batch)), floor)


def _of_block(of_batch: Callable[[pa.RecordBatch, np.ndarray], Any], documents: Documents) -> Any:
    return of_batch(documents.eligible_batch, documents.candidates(np.flatnonzero(documents.eligible)))


METHOD = Method("match", fit, options=MatchOptions, joint=True)


def totals_of(candidates: Candidates, targets: list[str]) -> np.ndarray:
    """Return the targets' n-gram totals: ndarray of int64, shape (targets, buckets)."""
    return np.array([target_totals(candidates.snapshot, target)[0] for target in targets])


def shares_by_name(selection: Selection, targets: list[str], counts: np.ndarray) -> np.ndarray:
    """Return the shares of targets in this order: as configured, else in proportion to their n-grams."""
    if selection.shares is None:
        return counts.sum(axis=1).astype(np.float64)
    share = dict(zip(selection.targets, selection.shares, strict=True))
    return np.array([share[target] for target in targets])


def numbers(matching: Matching, drawn: Drawn) -> dict[str, int | float | str]:
    """Return how the rounds ended, and what refining the first draw made of it."""
    return {
        "rounds": len(matching.curve),
        "converged": str(matching.converged).lower(),
        "gap": matching.curve[-1].gap,
        "kl_rounds": matching.curve[-1].kl,
        "kl_picks": drawn.kl,
    }


def tables(matching: Matching, targets: list[str]) -> dict[str, Table | plots.Plot]:
    """Return the rounds as a plot and a table: documents and tokens of the round itself, KL of the mean of rounds."""
    several = targets if len(targets) > 1 else []
    columns = [Column("round", "whole"), *(Column(name, "number") for name in ("KL", "gap", "weight"))]
    columns += [Column("documents", "number"), Column("tokens", "number")]
    columns += [Column(f"KL of {target}", "number") for target in several]
    rows = [
        (each.number, each.kl, each.gap, float(weight), each.documents, each.tokens)
        + (each.kl_targets if several else ())
        for each, weight in zip(matching.curve, matching.weights, strict=True)
    ]
    return {"rounds, plot": plots.rounds(matching.curve), "rounds": Table(columns, rows)}
