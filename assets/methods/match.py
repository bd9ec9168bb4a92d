"""``method: match``: the weights under which the selection as a whole is like the target.

What belongs here: running :mod:`dsir.matching` over the store. What does not: the method itself
(``dsir/matching.py``).
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from assets import plots
from assets.candidates import Candidates, Documents
from assets.importance_estimator import raw_totals, target_totals, validation_totals
from assets.materialize import markdown_table
from assets.methods.ranking import Ranking, caps_of, draws_of, noise_stream
from dsir.features import Features
from dsir.matching import Matching, MatchingOptions, match
from dsir.matching import keys as keys_under
from dsir.selection import Budget
from resources.settings import ConfigError


def fit(candidates: Candidates, budget: Budget) -> Ranking:
    """Match the targets of a selection, and rank by the weights of the best round.

    What the rounds measure has near-duplicates in it; the pick that follows them drops these, where that is configured.

    Raises
    ------
    ConfigError
        A target is too small to hold a part of it back.
    """
    workspace, plan, selection = candidates.workspace, candidates.plan, candidates.selection
    fitted, held_back = [], []
    targets = sorted(selection.targets)  # sums of floats depend on the order
    for target in targets:
        counts, _ = target_totals(workspace, plan, target)
        validation = validation_totals(workspace, plan, target)
        if not validation.any() or not (counts - validation).any():
            raise ConfigError(
                f"selection '{selection.name}': target '{target}' has too few documents to hold a fifth of them back, "
                "which is what tells method match when to stop; add documents, or choose another method"
            )
        fitted.append(counts - validation)
        held_back.append(validation)
    shares = [float(counts.sum()) for counts in fitted]
    if selection.shares is not None:
        configured = dict(zip(selection.targets, selection.shares, strict=True))
        shares = [configured[target] for target in targets]

    def batches() -> Iterator[tuple[Features, np.ndarray]]:
        for documents in candidates.stream(targets=[], features=True):
            eligible = documents.eligible
            batch = documents.batch if eligible.all() else documents.batch.filter(pa.array(eligible))
            yield Features.from_arrow(batch), documents.candidates(np.flatnonzero(eligible))

    [draw] = draws_of(selection)
    options = MatchingOptions(
        temperature=selection.temperature or 0.0,
        length=selection.length or "per_ngram",
        objective=selection.objective,
        seed=selection.seed,
        stream=noise_stream(selection, draw),
    )
    matching = match(
        batches,
        np.array(fitted),
        np.array(held_back),
        raw_totals(workspace, plan),
        budget,
        options,
        shares=np.array(shares),
        caps=caps_of(selection, None, budget),
        mapper=workspace.engine.map_blocks,
    )

    def keys(documents: Documents, target: str, stream: str) -> np.ndarray:
        return keys_under(documents.features, matching.theta, options, stream)

    return Ranking(keys, True, numbers=numbers(matching), tables=tables(matching, targets))


def numbers(matching: Matching) -> dict[str, int | float | str]:
    """Return how the rounds came to their end."""
    best = matching.curve[matching.best]
    return {
        "rounds": len(matching.curve),
        "best_round": matching.best,
        "converged": str(matching.converged).lower(),
        "kl_fit": best.kl_fit,
        "kl_validation": best.kl_validation,
        "gap": best.gap,
    }


def tables(matching: Matching, targets: list[str]) -> dict[str, str]:
    """Return the rounds as a plot and as a table."""
    several = targets if len(targets) > 1 else []
    header = ["round", "KL, fitted part", "KL, held-back part", "gap", "documents", "tokens"]
    header += [f"KL, held-back part of {target}" for target in several]
    rows = [
        (each.number, each.kl_fit, each.kl_validation, each.gap, each.documents, each.tokens)
        + (each.kl_targets if several else ())
        for each in matching.curve
    ]
    return {
        "rounds, plot": plots.rounds(matching.curve, matching.best),
        "rounds": markdown_table(header, rows),
    }
