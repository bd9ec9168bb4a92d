"""Picking documents: Gumbel top-k over a stream of batches, for one or several targets.

What belongs here: the order of documents, budgets, caps per source, which target gets a document that several want.
What does not: the noise (``dsir.noise``), the weights (``dsir.importance``), where documents are stored.

Order. Documents are ranked by key, largest first. Equal keys (in practice: equal texts, whose weight and noise are
equal) are ranked by content hash, then by the hash of the document's id, then by position, so that with ids the ranking
does not depend on how the pool is cut into shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

#: One candidate document. ``shard`` is an index into the caller's list of shards, ``target`` into that of targets;
#: documents with the same ``source_hash`` share a cap.
CANDIDATE = np.dtype(
    [
        ("key", np.float64),
        ("log_weight", np.float64),
        ("content_hash", np.uint64),
        ("id_hash", np.uint64),
        ("shard", np.int32),
        ("row", np.int64),
        ("n_tokens", np.int64),
        ("source_hash", np.uint64),
        ("target", np.int32),
    ]
)


#: The cap of a source without one.
NO_CAP = np.iinfo(np.int64).max // 2


@dataclass(frozen=True)
class Budget:
    """How much to pick: a number of documents or of tokens, whichever is given.

    Attributes
    ----------
    documents : int or None
    tokens : int or None
        Documents are taken in order of rank while their tokens fit; the first that does not ends the selection.
    """

    documents: int | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.documents is None) == (self.tokens is None):
            raise ValueError("give either documents or tokens")

    @property
    def amount(self) -> int:
        """The number of documents or tokens."""
        amount = self.documents if self.tokens is None else self.tokens
        assert amount is not None  # one of the two is given
        return amount

    def scaled(self, amount: int) -> Budget:
        """Return a budget of the same unit and another amount."""
        return Budget(documents=amount) if self.tokens is None else Budget(tokens=amount)

    def prefix(self, ranked: np.ndarray) -> int:
        """Return how many of the ranked candidates fit into the budget."""
        return int(np.searchsorted(np.cumsum(self.of(ranked)), self.amount, side="right"))

    def of(self, candidates: np.ndarray) -> np.ndarray:
        """Return what each candidate takes of the budget: ndarray of int64, shape (n,)."""
        return np.ones(len(candidates), np.int64) if self.tokens is None else candidates["n_tokens"]


@dataclass(frozen=True)
class Caps:
    """How much of a budget the documents of one source may take, in the budget's unit.

    A document is admitted while the better ones of its source take less than the cap, so that a source exceeds its cap
    by less than one document, and a long document does not exclude those after it.

    Attributes
    ----------
    amounts : mapping of int to int
        By ``source_hash``.
    others : int or None
        For every other source; None for no cap.
    """

    amounts: Mapping[int, int] = field(default_factory=dict)
    others: int | None = None

    def raised(self, amount: int) -> Caps:
        """Return the caps, all raised by an amount."""
        return Caps(
            {source: cap + amount for source, cap in self.amounts.items()},
            None if self.others is None else self.others + amount,
        )

    def scaled(self, part: float) -> Caps:
        """Return the caps within a part of the budget."""
        return Caps(
            {source: round(part * cap) for source, cap in self.amounts.items()},
            None if self.others is None else round(part * self.others),
        )

    def of(self, sources: np.ndarray) -> np.ndarray:
        """Return the caps of sources given by their hashes: ndarray of int64, shape (n,); NO_CAP for none."""
        others = NO_CAP if self.others is None else self.others
        return np.array([self.amounts.get(int(source), others) for source in sources], np.int64)

    def admit(self, ranked: np.ndarray, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
        """Admit ranked candidates.

        Returns
        -------
        admitted : ndarray of bool, shape (n,)
        least : ndarray of int64, shape (n,)
            The least that the candidates down to each one take of the budget, whatever is added later.
        """
        sources, which = np.unique(ranked["source_hash"], return_inverse=True)
        caps = self.of(sources)
        amounts = budget.of(ranked)
        order = np.argsort(which, kind="stable")
        summed = np.cumsum(amounts[order])
        first = np.searchsorted(which[order], np.arange(len(sources)))
        before = np.empty(len(ranked), np.int64)
        before[order] = summed - amounts[order] - (summed - amounts[order])[first][which[order]]
        room = np.maximum(caps[which] - before, 0)
        return room > 0, np.cumsum(np.minimum(amounts, room))


def split_budget(budget: Budget, shares: np.ndarray, names: Sequence[str] | None = None) -> list[Budget]:
    """Divide a budget among targets.

    Parameters
    ----------
    budget : Budget
    shares : ndarray of float64, shape (targets,)
        Any positive numbers; they are normalized to 1.
    names : sequence of str, optional
        Without, every target gets ``int(amount * share)`` and the last also the rest, as in the reference's
        ``DSIR.resample`` with ``separate_targets``. With the targets' names, the rest goes to the largest remainders,
        so that the order of the targets does not matter.
    """
    shares = np.asarray(shares, dtype=np.float64) / np.sum(shares)
    amounts = [int(budget.amount * share) for share in shares]
    left = budget.amount - sum(amounts)
    if names is None:
        amounts[-1] += left
    else:
        remainders = [(amounts[i] - budget.amount * shares[i], names[i], i) for i in range(len(shares))]
        for _, _, i in sorted(remainders)[:left]:
            amounts[i] += 1
    return [budget.scaled(amount) for amount in amounts]


def rank(candidates: np.ndarray) -> np.ndarray:
    """Return the candidates in order of rank (module docstring), best first."""
    key = -candidates["key"]
    order = np.argsort(key)
    # Few keys are equal, and sorting by all fields is ten times as slow.
    ordered = key[order]
    same = ordered[1:] == ordered[:-1]
    tied = np.flatnonzero(np.append(False, same) | np.append(same, False))
    if len(tied):
        some = candidates[order[tied]]
        fields = ("row", "shard", "id_hash", "content_hash")
        by_all = np.lexsort((*(some[name] for name in fields), -some["key"]))
        order[tied] = order[tied][by_all]
    return candidates.take(order)


class TopK:
    """The best candidates of a stream, in memory proportional to the budget and one batch.

    Adding batches in another order, or cut differently, gives the same result.

    Parameters
    ----------
    budget : Budget
        A document outside the budget among those seen is never needed later.
    caps : Caps, optional
        Neither is one outside its source's cap.
    reserve : int
        How much, in the budget's unit, may be taken away from the candidates before picking: by other targets, as
        near-duplicates.
    floor : float
        Of another top of the same kind, which these candidates will be added to.

    Attributes
    ----------
    floor : float
        Candidates with a smaller key no longer need to be added.
    """

    #: Candidates held beyond the budget before they are dropped, so that the cost of a pass is linear in the number of
    #: documents.
    SLACK = 1 << 16

    def __init__(
        self, budget: Budget, caps: Caps | None = None, reserve: int = 0, floor: float = -np.inf
    ) -> None:
        self.budget = budget
        self.caps = caps
        self.reserve = reserve
        self._held: list[np.ndarray] = []
        self._n_held = 0
        self._limit = self.SLACK
        self.floor = floor

    def add(self, candidates: np.ndarray) -> None:
        """Take a batch into account.

        Parameters
        ----------
        candidates : ndarray of CANDIDATE, shape (n,)
        """
        above = candidates["key"] >= self.floor
        better = candidates if above.all() else candidates.take(np.flatnonzero(above))
        if len(better):
            self._held.append(better)
            self._n_held += len(better)
        if self._n_held > self._limit:
            self._shrink()

    def _shrink(self) -> None:
        if self._cut():
            return
        reach = self._reach
        ranked = rank(joined(self._held))
        # One more than fits: with a budget of tokens, a better document may still push others out,
        # but never bring in one that is ranked below the first that does not fit.
        if self.caps is None:
            kept = ranked[: self.budget.scaled(reach).prefix(ranked) + 1]
            below = len(kept) < len(ranked)
        else:
            # What is taken away makes room only in its own source's cap.
            admitted, _ = self.caps.raised(self.reserve).admit(ranked, self.budget)
            _, least = self.caps.admit(ranked, self.budget)
            last = int(np.searchsorted(least, reach, side="right")) + 1
            kept, below = ranked[:last][admitted[:last]], last < len(ranked)
        self._keep([kept])
        if below and len(kept):
            self.floor = kept["key"][-1]

    @property
    def _reach(self) -> int:
        return self.budget.amount + self.reserve

    def _cut(self) -> bool:
        """Drop what is out of reach of a budget of documents, without ranking; return whether that was enough.

        It is not enough if many keys are equal, and does not work with tokens or caps.
        """
        reach = self._reach
        if self.caps is not None or self.budget.tokens is not None:
            return False
        if self._n_held <= reach:
            self._limit = reach + self.SLACK
            return True
        keys = [held["key"] for held in self._held]
        floor = np.partition(np.concatenate(keys), -reach)[-reach]
        above = [np.flatnonzero(key >= floor) for key in keys]
        if sum(map(len, above)) > reach + self.SLACK:
            return False
        self._keep([held.take(at) for held, at in zip(self._held, above, strict=True) if len(at)])
        self.floor = floor
        return True

    def _keep(self, parts: list[np.ndarray]) -> None:
        self._held, self._n_held = parts, sum(map(len, parts))
        self._limit = self._n_held + max(self._n_held // 2, self.SLACK)

    def candidates(self) -> np.ndarray:
        """Return everything held, ranked: the picked documents and perhaps some beyond them."""
        if not self._held:
            return np.empty(0, dtype=CANDIDATE)
        self._cut()
        return rank(joined(self._held))

    def picked(self) -> np.ndarray:
        """Return the picked documents, ranked."""
        return take(self.candidates(), self.budget, self.caps)


def take(ranked: np.ndarray, budget: Budget, caps: Caps | None = None) -> np.ndarray:
    """Return the first of the ranked candidates that fit into the budget and their sources' caps."""
    if caps is not None:
        ranked = ranked.take(np.flatnonzero(caps.admit(ranked, budget)[0]))
    return ranked[: budget.prefix(ranked)]


def pick_in_turn(
    pools: list[np.ndarray], budgets: list[Budget], caps: list[Caps | None] | None = None
) -> list[np.ndarray]:
    """Pick for several targets, one after the other; a document is picked once.

    Parameters
    ----------
    pools : list of ndarray of CANDIDATE
        Ranked candidates by target. A pool must reach down far enough to fill its budget after the targets before it
        took theirs; :func:`needed` gives the budget to collect it with.
    budgets : list of Budget
        By target.
    caps : list of Caps or None, optional
        Caps per source within each target's budget.

    Returns
    -------
    list of ndarray of CANDIDATE
        The picks of each target, ranked.
    """
    taken = np.empty(0, dtype=np.int64)
    picks = []
    for pool, budget, cap in zip(pools, budgets, caps or [None] * len(pools), strict=True):
        free = pool.take(np.flatnonzero(~np.isin(positions_of(pool), taken))) if len(taken) else pool
        picks.append(take(free, budget, cap))
        taken = np.concatenate([taken, positions_of(picks[-1])])
    return picks


def pick_where_best(
    pools: list[np.ndarray],
    budgets: list[Budget],
    names: Sequence[str],
    caps: list[Caps | None] | None = None,
) -> list[np.ndarray]:
    """Pick for several targets at once; a document that several want goes to the one that ranks it best.

    Deferred acceptance (Gale & Shapley 1962): every target proposes to the best documents that have not refused it, as
    many as fit its budget; a document keeps the target that ranks it highest, as a share of the target's budget. The
    order of the targets does not matter.

    Parameters
    ----------
    pools, budgets, caps
        As in :func:`pick_in_turn`; a pool must reach down to the budgets of all targets together.
    names : sequence of str
        Of the targets; decides between equal places.

    Returns
    -------
    list of ndarray of CANDIDATE
        The picks of each target, ranked.
    """
    caps = caps or [None] * len(pools)
    by_name = np.argsort(np.argsort(np.array(names)))
    positions = [positions_of(pool) for pool in pools]
    places = [np.cumsum(b.of(pool)) / max(b.amount, 1) for pool, b in zip(pools, budgets, strict=True)]
    free = [np.ones(len(pool), dtype=bool) for pool in pools]
    while True:
        picks, wanted = [], []
        for target, (pool, budget, cap) in enumerate(zip(pools, budgets, caps, strict=True)):
            picks.append(take(pool[free[target]], budget, cap))
            at = np.flatnonzero(np.isin(positions[target], positions_of(picks[-1])))
            one = np.full(len(at), 1)
            wanted.append(
                (positions[target][at], places[target][at], by_name[target] * one, target * one, at)
            )
        position, place, name, of_target, row = (
            np.concatenate(columns) for columns in zip(*wanted, strict=True)
        )
        order = np.lexsort((name, place, position))
        lost = order[1:][position[order][1:] == position[order][:-1]]
        if not len(lost):
            return picks
        for i in lost:
            free[of_target[i]][row[i]] = False


def best_first(picks: list[np.ndarray], budgets: list[Budget], names: Sequence[str]) -> np.ndarray:
    """Return the picks of several targets in one order, independent of that of the targets.

    Parameters
    ----------
    picks : list of ndarray of CANDIDATE
        Of each target, ranked.
    budgets : list of Budget
    names : sequence of str
        Of the targets; decides between equal places.

    Returns
    -------
    ndarray of CANDIDATE
        In order of their places, as shares of the target's budget.
    """
    by_name = np.argsort(np.argsort(np.array(names)))
    places = [np.cumsum(b.of(each)) / max(b.amount, 1) for each, b in zip(picks, budgets, strict=True)]
    name = np.repeat(by_name, [len(each) for each in picks])
    return joined(picks).take(np.lexsort((name, np.concatenate(places))))


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate arrays of CANDIDATE as whole records, in a tenth of the time that NumPy takes field by field.

    Likewise ``candidates.take(at)`` takes a tenth of ``candidates[at]``. A single part is returned as it is.
    """
    if len(parts) == 1:
        return parts[0]
    records = np.dtype((np.void, CANDIDATE.itemsize))
    return np.concatenate([np.ascontiguousarray(part).view(records) for part in parts]).view(CANDIDATE)


def by_content(candidates: np.ndarray) -> np.ndarray:
    """Return the order of candidates by content, id and position, whatever their keys: ndarray of int64."""
    return np.lexsort([candidates[name] for name in ("row", "shard", "id_hash", "content_hash")])


def positions_of(candidates: np.ndarray) -> np.ndarray:
    """Return the positions of candidates: ndarray of int64, shape (n,), from :func:`pack_position`."""
    return pack_position(candidates["shard"], candidates["row"])


@dataclass(frozen=True, eq=False)
class KeysByPosition:
    """Keys of some documents of a pool; those of all others are lower.

    Attributes
    ----------
    positions : ndarray of int64, shape (n,)
        From :func:`pack_position`, ascending.
    keys : ndarray of float64, shape (n,)
    """

    positions: np.ndarray
    keys: np.ndarray

    @classmethod
    def of(cls, candidates: np.ndarray, keys: np.ndarray) -> KeysByPosition:
        """Return the keys of these candidates, which may be in any order."""
        positions = positions_of(candidates)
        order = np.argsort(positions)
        return cls(positions[order], keys[order])

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Return the keys of documents at these positions, int64[n], in any order: float64[n]."""
        found = np.minimum(np.searchsorted(self.positions, positions), len(self.positions) - 1)
        return np.where(self.positions[found] == positions, self.keys[found], self.keys.min() - 1)


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
    """Return the budgets to collect the targets' candidates with, before :func:`pick_in_turn`.

    The last of them is what every target needs before :func:`pick_where_best`.
    """
    total = 0
    out = []
    for budget in budgets:
        total += budget.amount
        out.append(budget.scaled(total))
    return out
