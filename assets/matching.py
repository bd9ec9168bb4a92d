"""``method: match``: the rounds of distribution matching over the cached features, and the picks under their weights.

What belongs here: running :mod:`dsir.matching` over the store. What does not: the method (``dsir/matching.py``),
what becomes of the picks (``assets/selections.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from assets import plots
from assets.candidates import Documents, stream_features
from assets.importance_estimator import raw_totals, target_totals, validation_totals
from assets.materialize import markdown_table
from dsir.features import Features
from dsir.matching import Matching, MatchingOptions, match, scores
from dsir.selection import Budget, TopK
from resources.plan import Plan
from resources.progress import Progress
from resources.settings import ConfigError, Selection
from resources.workspace import Workspace


@dataclass(frozen=True)
class Matched:
    """Documents picked by distribution matching, and how it came to them.

    Attributes
    ----------
    picked : ndarray of dsir.selection.CANDIDATE
        Ranked; the key is the score under the weights of the best round, the log weight that of DSIR.
    matching : Matching
    """

    picked: np.ndarray
    matching: Matching

    def metadata(self) -> dict[str, int | float | str]:
        """Return numbers for Dagster and the lineage."""
        best = self.matching.curve[self.matching.best]
        return {
            "rounds": len(self.matching.curve),
            "best_round": self.matching.best,
            "converged": str(self.matching.converged).lower(),
            "kl_fit": best.kl_fit,
            "kl_validation": best.kl_validation,
            "gap": best.gap,
        }

    def tables(self) -> dict[str, str]:
        """Return the rounds as a plot and as a table."""
        rows = [
            (each.number, each.kl_fit, each.kl_validation, each.gap, each.documents, each.tokens)
            for each in self.matching.curve
        ]
        header = ["round", "KL, fitted part", "KL, held-back part", "gap", "documents", "tokens"]
        return {
            "rounds, plot": plots.rounds(self.matching.curve, self.matching.best),
            "rounds": markdown_table(header, rows),
        }


def pick_matched(
    workspace: Workspace,
    plan: Plan,
    selection: Selection,
    budget: Budget,
    histogram: plots.Histogram,
    progress: Progress,
) -> Matched:
    """Match the target of a selection, and pick by the weights of the best round.

    The arguments are those of :func:`assets.selections.pick`.

    Raises
    ------
    ConfigError
        The target is too small to hold a part of it back.
    """
    [target] = selection.targets
    counts, _ = target_totals(workspace, plan, target)
    validation = validation_totals(workspace, plan, target)
    if not validation.any() or not (counts - validation).any():
        raise ConfigError(
            f"selection '{selection.name}': target '{target}' has too few documents to hold a fifth of them back, "
            "which is what tells method match when to stop; add documents, or choose another method"
        )

    def batches() -> Iterator[Features]:
        for documents, batch in stream_features(workspace, plan, selection, []):
            eligible = documents.eligible
            yield Features.from_arrow(batch if eligible.all() else batch.filter(pa.array(eligible)))

    matching = match(
        batches,
        counts - validation,
        validation,
        raw_totals(workspace, plan),
        budget,
        MatchingOptions(),
        mapper=workspace.engine.map_blocks,
    )
    top = TopK(budget)
    work = partial(_scored, theta=matching.theta)
    featurized = stream_features(workspace, plan, selection, [target])
    for documents, score in workspace.engine.map_blocks(work, featurized):
        documents.offer(top, documents.log_weights[target], score)
        histogram.add(documents.log_weights[target][documents.eligible])
        progress.add(documents=len(score))
    return Matched(top.picked(), matching)


def _scored(item: tuple[Documents, pa.RecordBatch], theta: np.ndarray) -> tuple[Documents, np.ndarray]:
    documents, batch = item
    return documents, scores(Features.from_arrow(batch), theta)
