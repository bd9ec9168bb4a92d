"""What a selection is compared with: picks of the same size by other methods.

What belongs here: which picks are compared, their documents, their n-gram totals. What does not: the picking
(``assets/methods/``), the measures (``assets/measuring/measures.py``).
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial, reduce

import numpy as np
import pyarrow as pa

from dsir.evaluation import EffectiveSampleSize, contained, distinct, draw, masked_totals
from dsir.features import Features
from dsir.matching import NothingFits
from dsir.noise import gumbel_noise
from dsir.selection import Budget, TopK, positions_of
from dsir_dagster.assets.methods import pick
from dsir_dagster.assets.picking.candidates import CANDIDATE_COLUMNS, Candidates, Documents, Part
from dsir_dagster.assets.picking.rows import read_rows, rows_by_shard, rows_in
from dsir_dagster.resources.compute import Tell, Worker, counted, within
from dsir_dagster.resources.settings import ConfigError, MethodOptions, Selection
from dsir_dagster.resources.settings.evaluation import RANDOM, TOP_K
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import Origin


@dataclass(frozen=True)
class Pick:
    """The documents of one pick, in order of position, as often as they were picked.

    Attributes
    ----------
    positions : ndarray of int64, shape (n,)
        From :func:`dsir.selection.pack_position`.
    n_tokens, n_ngrams : ndarray of int64, shape (n,)
    content_hash : ndarray of uint64, shape (n,)
    """

    positions: np.ndarray
    n_tokens: np.ndarray
    n_ngrams: np.ndarray
    content_hash: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def sample(self, ngrams: int) -> "Pick":
        """Return documents with about that many n-grams, drawn by content."""
        return self._some(draw(self.n_ngrams, self.content_hash, ngrams))

    def up_to(self, ngrams: int) -> "Pick":
        """Return the whole pick, or documents with about that many n-grams, drawn by content, as often as picked.

        Those of one epoch are counted, so that a pick of several is cut no shorter.
        """
        _, first = np.unique(self.positions, return_index=True)
        at = first[draw(self.n_ngrams[first], self.content_hash[first], ngrams)]
        return self._some(np.flatnonzero(np.isin(self.positions, self.positions[at])))

    def once(self) -> "Pick":
        """Return every document once, in however many epochs it was picked."""
        return self._some(np.flatnonzero(np.append(True, self.positions[1:] != self.positions[:-1])))

    def _some(self, at: np.ndarray) -> "Pick":
        return Pick(self.positions[at], self.n_tokens[at], self.n_ngrams[at], self.content_hash[at])


@dataclass
class PoolSummary:
    """What one pass over all documents of the pool finds.

    Attributes
    ----------
    lengths : Counter of int
        Documents by number of tokens.
    sources : Counter
        Documents by source.
    effective : dict of str to EffectiveSampleSize
        Of the eligible documents' weights, by target.
    leaked : dict of (str, str) to int
        Documents whose content is a target's, by metric and target.
    """

    lengths: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    effective: dict[str, EffectiveSampleSize] = field(default_factory=dict)
    leaked: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def of(cls, targets: list[str]) -> "PoolSummary":
        """Return one of no documents."""
        return cls(effective={target: EffectiveSampleSize() for target in targets})

    def add(self, other: "PoolSummary") -> None:
        """Take another part of the pool into account."""
        self.lengths.update(other.lengths)
        self.sources.update(other.sources)
        self.leaked.update(other.leaked)
        for target, effective in other.effective.items():
            self.effective[target].merge(effective)


def survey_pool(
    candidates: Candidates, budget: Budget, random_seeds: int, known: dict[tuple[str, str], np.ndarray]
) -> tuple[PoolSummary, list[np.ndarray]]:
    """Look at every document once: lengths, sources, weights, leakage; and pick at random.

    Parameters
    ----------
    candidates, budget
    random_seeds : int
        Number of random picks of this budget.
    known : dict of (str, str) to ndarray of uint64
        Sorted content hashes, by metric and target.

    Returns
    -------
    PoolSummary
    list of ndarray of int64
        Positions of the documents picked with each seed.
    """
    pool = PoolSummary.of(candidates.selection.targets)
    random = [TopK(budget) for _ in range(random_seeds)]
    look = _PoolLook(candidates.selection.targets, budget, known, reduce(np.union1d, known.values()))
    candidates.begin("the pool, and random picks")
    for part, offered in candidates.each_shard(
        look, lambda: [top.floor for top in random], columns=[*CANDIDATE_COLUMNS, "source"]
    ):
        pool.add(part)
        for top, some in zip(random, offered, strict=True):
            top.add(some)
    ranked = [top.candidates() for top in random]
    # At least one document, even if longer than the budget: otherwise there is nothing to compare with.
    return pool, [positions_of(each[: max(budget.prefix(each), 1)]) for each in ranked]


@dataclass(frozen=True)
class _PoolLook:
    """What is to be added up of a shard, and its best documents of every random pick above these floors."""

    targets: list[str]
    budget: Budget
    known: dict[tuple[str, str], np.ndarray]
    contents: np.ndarray  # all that are known

    def __call__(self, part: Part, floors: list[float]) -> tuple[PoolSummary, list[np.ndarray]]:
        pool = PoolSummary.of(self.targets)
        random = [TopK(self.budget, floor=floor) for floor in floors]
        for block in part(partial(self._look, random)):
            pool.add(block)
        return pool, [top.candidates() for top in random]

    def _look(self, random: list[TopK], documents: Documents) -> PoolSummary:
        pool = PoolSummary.of(self.targets)
        for counter, name in ((pool.lengths, "n_tokens"), (pool.sources, "source")):
            counted = documents.table[name].value_counts()
            counter.update(dict(zip(*(part.to_pylist() for part in counted.flatten()), strict=True)))
        for target in self.targets:
            pool.effective[target].add(documents.log_weights[target][documents.eligible])
        found = documents.content_hash[contained(documents.content_hash, self.contents)]
        for metric, hashes in self.known.items():
            pool.leaked[metric] += int(contained(found, hashes).sum())
        eligible = np.flatnonzero(documents.eligible)
        content_hash = documents.content_hash[eligible]
        for seed, top in enumerate(random):
            key = gumbel_noise(content_hash, seed, RANDOM)
            above = np.flatnonzero(key >= top.floor)
            some = documents.candidates(eligible[above])
            some["key"] = key[above]
            top.add(some)
        return pool


def other_methods(snapshot: Snapshot, selection: Selection) -> list[str]:
    """Return the methods that a selection is compared with, besides random picks."""
    return [each for each in snapshot.settings.evaluation.compare if each != selection.method] + [TOP_K]


def picks_by_other_methods(candidates: Candidates, budget: Budget) -> dict[str, np.ndarray]:
    """Pick under the same selection by other methods, one epoch, without corrections: positions by method.

    Raises
    ------
    ConfigError
        A method cannot pick here.
    """
    plain = candidates.selection.model_copy(update={"options": MethodOptions(), "epochs": 1})
    picks = {}
    for method in other_methods(candidates.snapshot, candidates.selection):
        try:
            picks[method] = pick_positions(candidates, budget, plain.by(method), method)
        except ConfigError as error:
            raise ConfigError(f"evaluation.compare, {method}: {error}") from error
    return picks


def pick_with_another_seed(candidates: Candidates, budget: Budget) -> np.ndarray | None:
    """Pick by the selection's method with the next seed; None if the seed does not matter."""
    selection = candidates.selection
    if not selection.declared.noise:
        return None
    other = selection.model_copy(update={"seed": selection.seed + 1, "epochs": 1})
    return pick_positions(candidates, budget, other, "another seed")


def pick_positions(candidates: Candidates, budget: Budget, selection: Selection, heading: str) -> np.ndarray:
    """Pick one epoch of another selection from the same pool; return positions, none if no document fits."""
    other = Candidates(candidates.snapshot, selection, tell=within(candidates.tell, heading))
    try:
        return positions_of(pick(other, budget).epochs[0])
    except ConfigError as error:
        if isinstance(error.__cause__, NothingFits):  # an error of one method, but an empty pick by others
            return np.zeros(0, np.int64)
        raise


def describe(snapshot: Snapshot, picks: dict[str, np.ndarray], tell: Tell) -> dict[str, Pick]:
    """Look up the documents of several picks, given their positions in any order."""
    wanted = distinct(np.concatenate(list(picks.values())))
    read = partial(read_rows, columns=("n_tokens", "n_ngrams", "content_hash"))
    shards = list(rows_by_shard(snapshot.plan, wanted))
    found = snapshot.compute.map(read, shards)
    table = pa.concat_tables(counted(tell, "looking up the picks", found, len(shards)))
    columns = [column.to_numpy() for column in table.columns]
    described = {}
    for name, positions in picks.items():
        positions = np.sort(positions)
        at = np.searchsorted(wanted, positions)
        described[name] = Pick(positions, *(column[at] for column in columns))
    return described


def picked_totals(snapshot: Snapshot, picks: list[Pick], tell: Tell) -> np.ndarray:
    """Add up the n-grams of several picks, in one pass over the cached features.

    Returns
    -------
    ndarray of int64, shape (picks, buckets)
    """
    plan = snapshot.plan
    items = (
        (shard, plan.raw_counts(shard).origin, [rows_in(index, each.positions) for each in picks])
        for index, shard in enumerate(plan.counted)
    )
    found = snapshot.compute.map(_totals_of_shard, items)
    return reduce(np.add, counted(tell, "n-grams of the picks", found, len(plan.counted)))


def _totals_of_shard(worker: Worker, item: tuple[str, Origin, list[np.ndarray]]) -> np.ndarray:
    """Add up the n-grams of the documents in these rows of a shard, of every pick; a row may be there several times."""
    shard, origin, picks = item
    totals = np.zeros((len(picks), worker.settings.features.buckets), dtype=np.int64)
    if not any(map(len, picks)):
        return totals
    with worker.store.open_table(worker.store.name("documents", shard), origin) as documents:
        rows = documents.read(columns=["row"])["row"].to_numpy()
    times = np.zeros((len(picks), len(rows)), dtype=np.uint16)
    for mine, picked in zip(times, picks, strict=True):
        np.add.at(mine, np.searchsorted(rows, picked), 1)
    done = 0
    for batch in worker.store.read_features(worker.store.name("features", shard), origin):
        here = times[:, done : done + batch.num_rows]
        used = here.sum(axis=0) > 0
        features = Features.from_arrow(batch.filter(pa.array(used)))
        masked_totals(features, np.ascontiguousarray(here[:, used]), totals)
        done += batch.num_rows
    return totals


def is_random(pick: str) -> bool:
    """Tell whether a pick is one of the random ones, ``random 0`` and so on."""
    return pick.startswith(f"{RANDOM} ")
