"""Improving a draw in memory: documents are exchanged one by one while that brings the selection closer to the target.

What belongs here: the exchange, for documents whose features fit into memory. What does not: which documents these are
(:mod:`dsir.matching`), what a document is worth (``dsir.relative_entropy``).

The rounds of :mod:`dsir.matching` leave two things to gain: their gap, and the noise of the draw. Both are gained by
coordinate descent over the documents that some round picked. A sweep looks at each of them in order of content; it
takes out a member that is worth less than the bar, adds another document that is worth more, and takes the change into
account at once. Worth is exact (``dsir.relative_entropy``), in nats an n-gram. The bar is the worth at which the budget
is full, or the source's cap, as of the last sweep. Sweeps end when few documents still move; what they leave of the
budget is filled greedily (``dsir.cynical``).

So memory grows with the selection, not with the pool. A selection of more than `MOST_NGRAMS` is refined in part: the
documents of the smallest content hashes, beside a draw of the rest, whose totals are near their expectation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit

from dsir.cynical import fill
from dsir.evaluation import contained, masked_totals
from dsir.features import Features
from dsir.matching import Matching, MatchingOptions, Part, Passes
from dsir.relative_entropy import move, relative_entropy, value, values
from dsir.selection import NO_CAP, Budget, Caps, KeysByPosition, positions_of, rank, take

#: The most n-grams of documents that are held in memory, at three bytes each.
MOST_NGRAMS = 1 << 25

#: Sweeps at most; they end when fewer than this share of the members moves.
SWEEPS, SETTLED = 8, 0.005

#: Keys of documents that are in, and of those that are out, are above and below these of any draw.
_IN, _OUT = 1e6, -1e6

#: Worth, times the n-grams of the selection, orders documents within these.
_MOST = 1e5


@dataclass(frozen=True, eq=False)
class Held:
    """Documents of a matching with their features.

    Attributes
    ----------
    features : Features
        Of n documents.
    at : ndarray of int64, shape (n,)
        Which of ``Matching.documents`` they are, ascending.
    """

    features: Features
    at: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """A refined draw.

    Attributes
    ----------
    keys : KeysByPosition
        Of the documents of the matching: the largest, up to the budget, are picked.
    kl : float
        KL(target‖picks), nats.
    """

    keys: KeysByPosition
    kl: float


def hold(passes: Passes, matching: Matching, ngrams: int, most: int = MOST_NGRAMS) -> Held:
    """Read the features of a matching's documents, in one pass; of those of the smallest hashes, if they are too many.

    Parameters
    ----------
    passes : Passes
        As for :func:`dsir.matching.match`.
    matching : Matching
    ngrams : int
        The longest n-gram that is counted; so many times its tokens are at most a document's n-grams.
    most : int
        N-grams to hold at most, unless it is one document that has more.
    """
    sizes = np.cumsum(matching.documents["n_tokens"] * ngrams)
    at = np.arange(max(int(np.searchsorted(sizes, most, side="right")), 1))
    positions = positions_of(matching.documents[at])
    order = np.argsort(positions)
    found = list(passes(_Features(positions[order]), lambda: -np.inf))
    batches = [batch for part in found for batch, _ in part]
    where = np.concatenate([where for part in found for _, where in part])
    place = np.empty(len(at), np.int64)
    place[order[np.searchsorted(positions[order], where)]] = np.arange(len(at))
    return Held(Features.gathered(batches, place), at)


@dataclass(frozen=True)
class _Features:
    """The features and positions of those documents of a part that are at these positions, which are sorted."""

    positions: np.ndarray

    def __call__(self, part: Part, floor: float) -> list[tuple[pa.RecordBatch, np.ndarray]]:
        return [each for each in part(self._of_batch) if each is not None]

    def _of_batch(
        self, batch: pa.RecordBatch, candidates: np.ndarray
    ) -> tuple[pa.RecordBatch, np.ndarray] | None:
        positions = positions_of(candidates)
        mask = contained(positions, self.positions)
        return (batch.filter(pa.array(mask)), positions[mask]) if mask.any() else None


def refine(
    matching: Matching,
    held: Held,
    budget: Budget,
    options: MatchingOptions,
    *,
    seed: int,
    stream: str,
    caps: Caps | None = None,
) -> Drawn:
    """Draw documents of a matching, and exchange those held while it brings the draw closer to the target.

    Parameters
    ----------
    matching : Matching
    held : Held
    budget, options, caps
        Those of the matching.
    seed : int
    stream : str
        With the seed, names the noise of the draw.

    Returns
    -------
    Drawn
    """
    keys = matching.draw(seed, stream)
    amounts = budget.of(matching.documents)
    expected = matching.probability * amounts
    part = float(expected[held.at].sum() / expected.sum())
    exchange = _Exchange(matching, held, budget, options, caps, part)
    members = exchange.members_of(keys[held.at])
    worth = exchange.run(members)
    keys[held.at] = np.where(members, _IN, _OUT) + np.clip(worth * exchange.size, -_MOST, _MOST)
    return Drawn(KeysByPosition.of(matching.documents, keys), exchange.relative_entropy())


class _Exchange:
    """A selection of which the documents held may change.

    Attributes
    ----------
    totals : ndarray of float64, shape (buckets,)
        Of the members, with pseudo-counts and what is expected of the documents that are not held.
    """

    def __init__(
        self,
        matching: Matching,
        held: Held,
        budget: Budget,
        options: MatchingOptions,
        caps: Caps | None,
        part: float,
    ) -> None:
        self.budget = budget.scaled(max(round(part * budget.amount), 1))
        self.caps = caps and caps.scaled(part)
        self.documents = matching.documents[held.at]
        self.documents["shard"], self.documents["row"] = 0, np.arange(len(held.at))
        self.features, self.target = held.features, matching.target
        self.totals = (1 - part) * matching.totals + options.smoothing
        amounts, limits, source = self.budget.of(self.documents), *self._limits()
        self._kept = amounts.astype(np.int64), source, limits
        self._counts = held.features.offsets, held.features.buckets, held.features.counts
        self._n_ngrams = held.features.n_ngrams

    def _limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what each source may take, and the source of every document: ndarrays of int64."""
        if self.caps is None:
            return np.array([NO_CAP]), np.zeros(len(self.documents), np.int64)
        sources, source = np.unique(self.documents["source_hash"], return_inverse=True)
        return self.caps.of(sources), source

    @property
    def size(self) -> float:
        """N-grams and pseudo-counts of the members."""
        return float(self.totals.sum())

    def members_of(self, keys: np.ndarray) -> np.ndarray:
        """Start from the documents of the largest keys: ndarray of bool."""
        self.documents["key"] = keys
        members = np.zeros(len(keys), bool)
        members[take(rank(self.documents), self.budget, self.caps)["row"]] = True
        counted = np.zeros((1, len(self.totals)), np.int64)
        masked_totals(self.features, members[np.newaxis], counted)
        self.totals += counted[0]
        return members

    def run(self, members: np.ndarray) -> np.ndarray:
        """Sweep; change members in place; return the documents' worth: ndarray of float64."""
        known = (*self._counts, self._n_ngrams, self.target, self.totals)
        worth = values(members, *known)
        sweeps, moved = 0, len(members)
        while sweeps < SWEEPS and moved > SETTLED * np.count_nonzero(members):
            sweeps += 1
            bars = _bars(np.argsort(-worth, kind="stable"), worth, *self._kept, self.budget.amount)
            moved = _sweep(members, worth, bars, *self._kept, self.budget.amount, *known)
        self._fill(members)
        return values(members, *known)

    def _fill(self, members: np.ndarray) -> None:
        """Add what still fits, the best first."""
        amounts, source, limits = self._kept
        left = self.budget.amount - int(amounts[members].sum())
        taken = np.bincount(source[members], amounts[members], minlength=len(limits)).astype(np.int64)
        fill(self.features, members, self.target, self.totals, amounts, source, left, limits - taken)

    def relative_entropy(self) -> float:
        """KL(target‖selection), nats."""
        return relative_entropy(self.target, self.totals / self.size)


@njit(cache=True, nogil=True)
def _bars(order, worth, amounts, source, limits, budget):
    """The worth at which each source has what it may take, or the budget is full: float64[sources]."""
    bars = np.full(limits.size, -np.inf)
    left, room, full = budget, limits.copy(), -np.inf
    for document in order:
        of = source[document]
        if room[of] <= 0:
            if bars[of] == -np.inf:
                bars[of] = worth[document]
        elif amounts[document] > left:
            full = worth[document]
            break
        else:
            left -= amounts[document]
            room[of] -= amounts[document]
    return np.maximum(bars, full)


@njit(cache=True, nogil=True)
def _sweep(
    members,
    worth,
    bars,
    amounts,
    source,
    limits,
    budget,
    offsets,
    buckets,
    counts,
    n_ngrams,
    target,
    totals,
):
    """Exchange documents in their order; change members, their worth and the totals in place; return how many moved."""
    moved, left, room = 0, budget, limits.copy()
    for document in range(members.size):
        if members[document]:
            left -= amounts[document]
            room[source[document]] -= amounts[document]
    for document in range(members.size):
        member, of = members[document], source[document]
        here = value(document, member, offsets, buckets, counts, n_ngrams, target, totals)
        worth[document] = here
        leaves = member and here < bars[of]
        comes = not member and here > bars[of] and amounts[document] <= left and room[of] > 0
        if leaves or comes:
            move(document, member, offsets, buckets, counts, totals)
            sign = -1 if member else 1
            members[document] = not member
            left -= sign * amounts[document]
            room[of] -= sign * amounts[document]
            moved += 1
    return moved
