"""The methods of selection, one module each: how a method ranks the documents of a pool.

What belongs here: the methods, and what they have in common: budgets, caps, epochs, targets. What does not: the order
and the budget themselves (``dsir/selection.py``), near-duplicates (``assets/picking/near_duplicates.py``), what becomes
of the picks (``assets/selections.py``).

A module has a function ``fit`` from candidates and a budget to a :class:`Ranking`, and declares the method with its
options, traits and rule of keys (:class:`dsir_dagster.resources.settings.Method`). A new method is a module and a line
in `METHODS`. Elsewhere only the default (``resources/settings/selection.py``) and the baselines
(``resources/settings/evaluation.py``) are known by name.
"""

import threading
from dataclasses import dataclass
from functools import partial

import numpy as np

from dsir.selection import (
    Budget,
    Caps,
    TopK,
    best_first,
    joined,
    needed,
    pick_in_turn,
    pick_where_best,
    split_budget,
)
from dsir_dagster.assets.importance_estimator import target_totals
from dsir_dagster.assets.methods import (
    classifier,
    cynical,
    match,
    mixture,
    moore_lewis,
    random,
    resample,
    top_k,
)
from dsir_dagster.assets.methods.ranking import Keys, Ranking, caps_of, draws_of, noise_stream
from dsir_dagster.assets.picking.candidates import CANDIDATE_COLUMNS, Candidates, Documents, Part
from dsir_dagster.assets.picking.near_duplicates import NearDuplicates, pick_without
from dsir_dagster.resources.settings import Method, Selection

METHODS: dict[str, Method[Candidates, Ranking]] = {
    method.name: method
    for method in (
        resample.METHOD,
        top_k.METHOD,
        random.METHOD,
        moore_lewis.METHOD,
        *classifier.METHODS,
        match.METHOD,
        cynical.METHOD,
        mixture.METHOD,
    )
}


@dataclass(frozen=True)
class Picked:
    """What a method picked.

    Attributes
    ----------
    epochs : list of ndarray of dsir.selection.CANDIDATE
        One an epoch, in order of target and rank. ``target`` is an index into the selection's targets.
    ranking : Ranking
        How they were ranked.
    near_duplicates_dropped : int
        Documents of all epochs passed over as near-duplicates of a better-ranked one.
    """

    epochs: list[np.ndarray]
    ranking: Ranking
    near_duplicates_dropped: int = 0


def pick(candidates: Candidates, budget: Budget) -> Picked:
    """Pick the documents of a selection by its method.

    Parameters
    ----------
    candidates : Candidates
    budget : Budget
        Of each epoch.
    """
    selection = candidates.selection
    threshold = selection.near_duplicates
    near = NearDuplicates(candidates, threshold) if threshold else None
    ranking = METHODS[selection.method].fit(candidates, budget)
    best = selection.overlap == "best"
    if selection.declared.joint:
        budgets = [budget]
    else:
        budgets = split_budget(budget, shares_of(candidates), selection.targets if best else None)
    caps = [caps_of(selection, ranking.source_shares, each) for each in budgets]

    def pools(reserve: int) -> list[list[np.ndarray]]:
        enough = [needed(budgets)[-1]] * len(budgets) if best else needed(budgets)
        taken = [more.amount - each.amount + reserve for more, each in zip(enough, budgets, strict=True)]
        tops = [
            [TopK(*each) for each in zip(budgets, caps, taken, strict=True)] for _ in range(selection.epochs)
        ]
        _collect(candidates, ranking, tops)
        return [[top.candidates() for top in each_epoch] for each_epoch in tops]

    def choose(pools: list[np.ndarray]) -> list[np.ndarray]:
        if best:
            return pick_where_best(pools, budgets, selection.targets, caps)
        return pick_in_turn(pools, budgets, caps)

    def in_order(picks: list[np.ndarray]) -> np.ndarray:
        return best_first(picks, budgets, selection.targets) if best else joined(picks)

    if near:
        epochs, dropped = pick_without(near, pools, choose, in_order, budget)
    else:
        epochs, dropped = [choose(each) for each in pools(reserve=0)], 0
    rows = [joined(picks) for picks in epochs]
    if selection.declared.joint:  # its targets' picks are ranked together
        rows = [each.take(np.argsort(each["target"], kind="stable")) for each in rows]
    return Picked(rows, ranking, dropped)


def _collect(candidates: Candidates, ranking: Ranking, tops: list[list[TopK]]) -> None:
    """Offer every eligible document to the top of every epoch and draw, in one pass over the pool."""
    columns = [*CANDIDATE_COLUMNS, *ranking.columns]
    if any(top.caps for each_epoch in tops for top in each_epoch):
        columns.append("source")

    def floors() -> list[list[float]]:
        return [[top.floor for top in each_epoch] for each_epoch in tops]

    kinds = [(top.budget, top.caps, top.reserve) for top in tops[0]]
    best = _Best(candidates.selection, ranking.keys, kinds)
    candidates.begin("ranking")
    for found in candidates.each_shard(best, floors, features=ranking.needs_features, columns=columns):
        for each_epoch, of_epoch in zip(tops, found, strict=True):
            for top, some in zip(each_epoch, of_epoch, strict=True):
                top.add(some)


@dataclass(frozen=True)
class _Best:
    """The best documents of a shard for every epoch and draw, of those whose keys are above the floors."""

    selection: Selection
    keys: Keys
    kinds: list[tuple[Budget, Caps | None, int]]

    def __call__(self, part: Part, floors: list[list[float]]) -> list[list[np.ndarray]]:
        tops = [
            [TopK(*kind, floor) for kind, floor in zip(self.kinds, of_epoch, strict=True)]
            for of_epoch in floors
        ]
        for _ in part(partial(self._offer, tops, threading.Lock())):
            pass
        return [[top.candidates() for top in each_epoch] for each_epoch in tops]

    def _offer(self, tops: list[list[TopK]], adding: threading.Lock, documents: Documents) -> None:
        """Add the eligible documents that may still be among the best."""
        eligible, selection = documents.eligible, self.selection
        joint, draws = selection.declared.joint, draws_of(selection)
        for epoch, each_epoch in enumerate(tops, start=1):
            for place, (draw, top) in enumerate(zip(draws, each_epoch, strict=True)):
                key = self.keys(documents, draw, noise_stream(selection, draw, epoch), top.floor)
                at = np.flatnonzero(eligible & (key >= top.floor))
                some = documents.candidates(at)
                targets = selection.targets if joint else [draw]
                log_weights = np.array([documents.log_weights[target][at] for target in targets])
                some["key"], some["log_weight"] = key[at], log_weights.max(axis=0)
                some["target"] = log_weights.argmax(axis=0) if joint else place
                with adding:  # in any order: a top does not depend on it
                    top.add(some)


def shares_of(candidates: Candidates) -> np.ndarray:
    """Return the targets' shares: as configured, else in proportion to their n-grams."""
    selection = candidates.selection
    if selection.shares is not None:
        return np.array(selection.shares)
    return np.array([target_totals(candidates.snapshot, name)[0].sum() for name in selection.targets])
