"""Near-duplicates among the picks of a selection: dropped, and replaced by the next in rank.

What belongs here: reading the texts of picks, and picking again without near-duplicates. What does not: what
near-duplicates are (``dsir/near_duplicates.py``), documents of equal text, which are not even eligible
(``assets/picking/candidates.py``).
"""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from dsir.near_duplicates import DIGESTS, Sketches, near_duplicates, sketch
from dsir.selection import CANDIDATE, Budget, positions_of
from dsir_dagster.assets.picking.candidates import Candidates
from dsir_dagster.assets.picking.rows import RowsOfShard, rows_by_shard
from dsir_dagster.assets.picking.texts import texts_of_shard
from dsir_dagster.resources.compute import Worker
from dsir_dagster.resources.settings import ConfigError

#: Tokens of the texts held in memory at a time; those from one file are read together.
TOKENS_AT_A_TIME = 1 << 24


class NearDuplicates:
    """Finds near-duplicates among documents of the pool, and keeps the sketches of those it has seen.

    Takes eight bytes of memory a token and 512 a document for everything ever picked.

    Parameters
    ----------
    candidates : Candidates
    threshold : float
        Jaccard similarity from which on documents are near-duplicates.

    Raises
    ------
    ConfigError
        The library it needs is not installed.
    """

    def __init__(self, candidates: Candidates, threshold: float) -> None:
        if find_spec("rensa") is None:
            raise ConfigError(
                f"selection '{candidates.selection.name}': near_duplicates needs rensa; install it with "
                "`pip install -e .[near-duplicates]`, or leave near_duplicates out"
            )
        self._snapshot, self._threshold, self._tell = candidates.snapshot, threshold, candidates.tell
        self._at: dict[int, int] = {}
        self._sketches = Sketches([], np.empty((0, DIGESTS), np.uint32))

    def find(self, ranked: np.ndarray) -> np.ndarray:
        """Return which documents are near-duplicates of a better one: ndarray of bool, shape (n,).

        Parameters
        ----------
        ranked : ndarray of CANDIDATE, shape (n,)
            Best first.
        """
        at = positions_of(ranked)
        self._read(ranked[[position not in self._at for position in at.tolist()]])
        places = [self._at[position] for position in at.tolist()]
        mine = Sketches([self._sketches.ngrams[i] for i in places], self._sketches.digests[places])
        return near_duplicates(mine, self._threshold)

    def _read(self, documents: np.ndarray) -> None:
        documents = documents[np.argsort(positions_of(documents))]
        before = np.cumsum(documents["n_tokens"]) - documents["n_tokens"]
        part = before[np.searchsorted(documents["shard"], documents["shard"])] // TOKENS_AT_A_TIME
        digests = [self._sketches.digests]
        self._tell(part="near-duplicates", of=len(documents))
        for each in np.split(positions_of(documents), np.flatnonzero(np.diff(part)) + 1):
            self._at.update(zip(each.tolist(), range(len(self._at), len(self._at) + len(each)), strict=True))
            for read in self._snapshot.compute.map(_sketch, rows_by_shard(self._snapshot.plan, each)):
                self._sketches.ngrams.extend(read.ngrams)
                digests.append(read.digests)
                self._tell(documents=len(read.digests), work=len(read.digests))
        self._sketches = Sketches(self._sketches.ngrams, np.concatenate(digests))


def _sketch(worker: Worker, item: RowsOfShard) -> Sketches:
    """Return the sketches of some documents of a shard."""
    return sketch(texts_of_shard(worker, item), worker.settings.features.spec())


def pick_without(
    near: NearDuplicates,
    collect: Callable[[int], list[list[np.ndarray]]],
    choose: Callable[[list[np.ndarray]], list[np.ndarray]],
    in_order: Callable[[list[np.ndarray]], np.ndarray],
    budget: Budget,
) -> tuple[list[list[np.ndarray]], int]:
    """Pick, drop near-duplicates among the picks, and pick again without them until there are none.

    For one target without caps, this walks down the ranking and passes over near-duplicates of documents already
    picked.

    Parameters
    ----------
    near : NearDuplicates
    collect : callable
        Takes a reserve, in the unit of the budget; returns by epoch and target the ranked candidates, enough to pick
        from after so much was dropped.
    choose : callable
        From candidates by target to picks by target.
    in_order : callable
        From picks by target to all of them, best first.
    budget : Budget
        Of one epoch.

    Returns
    -------
    picks : list of list of ndarray of CANDIDATE
        By epoch and target. Less than the budget only if the pool has no more.
    dropped : int
        Documents.
    """
    reserve = budget.amount
    pools = collect(reserve)
    epochs, n_dropped = [], 0
    for epoch in range(len(pools)):
        dropped = np.empty(0, CANDIDATE)
        while True:
            amount = int(budget.of(dropped).sum())
            if amount > reserve:
                reserve = 2 * amount
                pools = collect(reserve)
            gone = positions_of(dropped)
            picks = choose([pool[~np.isin(positions_of(pool), gone)] for pool in pools[epoch]])
            ranked = in_order(picks)
            again = near.find(ranked)
            if not again.any():
                break
            dropped = np.concatenate([dropped, ranked[again]])
        epochs.append(picks)
        n_dropped += len(dropped)
    return epochs, n_dropped
