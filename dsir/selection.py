"""Picking documents: Gumbel top-k over a stream of batches, for one or several targets.

What belongs here: keys, the order of documents, budgets. What does not: the noise itself
(``dsir.hashing``), the weights (``dsir.importance``), where documents are stored.

Order. Documents are ranked by key, largest first. Equal keys (in practice: equal texts, whose weight
and noise are equal) are ranked by content hash, then by the hash of the document's id, then by
position, so that the ranking does not depend on how the pool is cut into shards as long as ids are
given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: One candidate document. ``shard`` is an index into the caller's list of shards.
CANDIDATE = np.dtype(
    [
        ("key", np.float64),
        ("log_weight", np.float64),
        ("content_hash", np.uint64),
        ("id_hash", np.uint64),
        ("shard", np.int32),
        ("row", np.int64),
        ("n_tokens", np.int64),
    ]
)


@dataclass(frozen=True)
class Budget:
    """How much to pick: a number of documents or of tokens, whichever is given.

    Attributes
    ----------
    documents : int or None
    tokens : int or None
        Documents are taken in order of rank while their tokens fit into the budget; the first that
        does not fit ends the selection.
    """

    documents: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.documents is None) == (self.tokens is None):
            raise ValueError("give either documents or tokens")

    @property
    def amount(self) -> int:
        """The number of documents or tokens."""
        return self.documents if self.tokens is None else self.tokens

    def scaled(self, amount: int) -> Budget:
        """Return a budget of the same unit and another amount."""
        return Budget(documents=amount) if self.tokens is None else Budget(tokens=amount)

    def prefix(self, ranked: np.ndarray) -> int:
        """Return how many of the ranked candidates fit into the budget."""
        if self.tokens is None:
            return min(self.documents, len(ranked))
        return int(np.searchsorted(np.cumsum(ranked["n_tokens"]), self.tokens, side="right"))


def split_budget(budget: Budget, shares: np.ndarray) -> list[Budget]:
    """Divide a budget among targets: ``int(amount * share)`` each, what is left to the last.

    As the reference's ``DSIR.resample`` does with ``separate_targets``.

    Parameters
    ----------
    budget : Budget
    shares : ndarray of float64, shape (targets,)
        Any positive numbers; they are normalized to 1.
    """
    shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
    amounts = [int(budget.amount * share) for share in shares]
    amounts[-1] += budget.amount - sum(amounts)
    return [budget.scaled(amount) for amount in amounts]


def rank(candidates: np.ndarray) -> np.ndarray:
    """Return the candidates in order of rank (module docstring), best first."""
    order = np.lexsort(
        (
            candidates["row"],
            candidates["shard"],
            candidates["id_hash"],
            candidates["content_hash"],
            -candidates["key"],
        )
    )
    return candidates[order]


class TopK:
    """The best candidates of a stream, in memory proportional to the budget and one batch.

    Adding batches in another order, or cut differently, gives the same result.

    Parameters
    ----------
    budget : Budget
        A document that is outside of the budget among those seen is never needed later.

    Attributes
    ----------
    floor : float
        Candidates with a smaller key need not be added any more.
    """

    #: Candidates held beyond the budget before they are thrown out, so that the cost of a pass is
    #: linear in the number of documents.
    SLACK = 1 << 16

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._held: list[np.ndarray] = []
        self._n_held = 0
        self._limit = self.SLACK
        self.floor = -np.inf

    def add(self, candidates: np.ndarray) -> None:
        """Take a batch into account.

        Parameters
        ----------
        candidates : ndarray of CANDIDATE, shape (n,)
        """
        better = candidates[candidates["key"] >= self.floor]
        if len(better):
            self._held.append(better)
            self._n_held += len(better)
        if self._n_held > self._limit:
            self._shrink()

    def _shrink(self) -> None:
        ranked = rank(np.concatenate(self._held))
        # One more than fits: with a budget of tokens, a better document may still push others out,
        # but never bring in one that is ranked below the first that does not fit.
        kept = ranked[: self.budget.prefix(ranked) + 1]
        self._held, self._n_held = [kept], len(kept)
        self._limit = 2 * len(kept) + self.SLACK
        if len(kept) < len(ranked):
            self.floor = kept["key"][-1]

    def candidates(self) -> np.ndarray:
        """Return all that is held, ranked: the picked documents and perhaps some beyond them."""
        if not self._held:
            return np.empty(0, dtype=CANDIDATE)
        return rank(np.concatenate(self._held))

    def picked(self) -> np.ndarray:
        """Return the picked documents, ranked."""
        ranked = self.candidates()
        return ranked[: self.budget.prefix(ranked)]


def pick_in_turn(pools: list[np.ndarray], budgets: list[Budget]) -> list[np.ndarray]:
    """Pick for several targets, one after the other; a document is picked once.

    Parameters
    ----------
    pools : list of ndarray of CANDIDATE
        Ranked candidates of each target. A pool must reach down far enough to fill its budget after
        what the targets before it may take; :func:`needed` gives the budget to collect it with.
    budgets : list of Budget
        Budget of each target.

    Returns
    -------
    list of ndarray of CANDIDATE
        The picks of each target, ranked.
    """
    taken = np.empty(0, dtype=np.int64)
    picks = []
    for pool, budget in zip(pools, budgets, strict=True):
        free = pool[~np.isin(pack_position(pool["shard"], pool["row"]), taken)]
        picks.append(free[: budget.prefix(free)])
        taken = np.concatenate([taken, pack_position(picks[-1]["shard"], picks[-1]["row"])])
    return picks


def pack_position(shard: np.ndarray | int, row: np.ndarray | int) -> np.ndarray:
    """Return (shard, row) as one integer, ordered like the pair; a shard holds fewer than 2**40 rows.

    Parameters
    ----------
    shard, row : int or ndarray of int, shape (n,)

    Returns
    -------
    ndarray of int64, shape (n,), or an int64
    """
    return (np.asarray(shard, dtype=np.int64) << 40) | np.asarray(row, dtype=np.int64)


def needed(budgets: list[Budget]) -> list[Budget]:
    """Return the budget to collect each target's candidates with, before :func:`pick_in_turn`."""
    total = 0
    out = []
    for budget in budgets:
        total += budget.amount
        out.append(budget.scaled(total))
    return out
