"""What a selection is compared with: picks of the same size by other methods.

What belongs here: which picks are compared, their documents, their n-gram totals. What does not: the picking
(``assets/methods/``), the measures (``assets/measuring/measures.py``).
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pyarrow as pa

from dsir.evaluation import EffectiveSampleSize, contained, distinct, draw, masked_totals
from dsir.features import Features
from dsir.matching import NothingFits
from dsir.noise import gumbel_noise
from dsir.selection import Budget, TopK, positions_of
from dsir_dagster.assets.methods import pick
from dsir_dagster.assets.picking.candidates import CANDIDATE_COLUMNS, Candidates, Documents, rows_in
from dsir_dagster.resources.settings import ConfigError, MethodOptions, Selection
from dsir_dagster.resources.settings.evaluation import RANDOM, TOP_K
from dsir_dagster.resources.snapshot import Snapshot


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
        at = draw(self.n_ngrams, self.content_hash, ngrams)
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
    targets = candidates.selection.targets
    pool = PoolSummary(effective={target: EffectiveSampleSize() for target in targets})
    random = [TopK(budget) for _ in range(random_seeds)]
    contents = reduce(np.union1d, known.values())

    def look(documents: Documents) -> tuple[Documents, pa.Array, pa.Array, np.ndarray, list[np.ndarray]]:
        """Return what one block of documents adds."""
        lengths, sources = (documents.table[name].value_counts() for name in ("n_tokens", "source"))
        found = documents.content_hash[contained(documents.content_hash, contents)]
        eligible = np.flatnonzero(documents.eligible)
        content_hash = documents.content_hash[eligible]
        offered = []
        for seed, top in enumerate(random):
            key = gumbel_noise(content_hash, seed, RANDOM)
            above = np.flatnonzero(key >= top.floor)
            offered.append(documents.candidates(eligible[above]))
            offered[-1]["key"] = key[above]
        return documents, lengths, sources, found, offered

    columns = [*CANDIDATE_COLUMNS, "source"]
    for documents, lengths, sources, found, offered in candidates.map(look, columns=columns):
        for counter, counted in ((pool.lengths, lengths), (pool.sources, sources)):
            counter.update(dict(zip(*(part.to_pylist() for part in counted.flatten()), strict=True)))
        for target in targets:
            pool.effective[target].add(documents.log_weights[target][documents.eligible])
        for name, hashes in known.items():
            pool.leaked[name] += int(contained(found, hashes).sum())
        for top, some in zip(random, offered, strict=True):
            top.add(some)
    ranked = [top.candidates() for top in random]
    # At least one document, even if longer than the budget: otherwise there is nothing to compare with.
    return pool, [positions_of(each[: max(budget.prefix(each), 1)]) for each in ranked]


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
            picks[method] = pick_positions(candidates, budget, plain.by(method))
        except ConfigError as error:
            raise ConfigError(f"evaluation.compare, {method}: {error}") from error
    return picks


def pick_with_another_seed(candidates: Candidates, budget: Budget) -> np.ndarray | None:
    """Pick by the selection's method with the next seed; None if the seed does not matter."""
    selection = candidates.selection
    if not selection.declared.noise:
        return None
    other = selection.model_copy(update={"seed": selection.seed + 1, "epochs": 1})
    return pick_positions(candidates, budget, other)


def pick_positions(candidates: Candidates, budget: Budget, selection: Selection) -> np.ndarray:
    """Pick one epoch of another selection from the same pool; return positions, none if no document fits."""
    other = Candidates(candidates.snapshot, selection)
    try:
        return positions_of(pick(other, budget).epochs[0])
    except ConfigError as error:
        if isinstance(error.__cause__, NothingFits):  # an error of one method, but an empty pick by others
            return np.zeros(0, np.int64)
        raise


def describe(snapshot: Snapshot, picks: dict[str, np.ndarray]) -> dict[str, Pick]:
    """Look up the documents of several picks, given their positions in any order."""
    wanted = distinct(np.concatenate(list(picks.values())))

    def work(item: tuple[int, str]) -> pa.Table | None:
        index, shard = item
        rows = rows_in(index, wanted)
        if not len(rows):
            return None
        path = snapshot.store.path("documents", shard)
        with snapshot.store.open_table(path, snapshot.plan.raw_counts(shard).origin) as documents:
            table = documents.read(columns=["row", "n_tokens", "n_ngrams", "content_hash"])
        return table.take(pa.array(np.searchsorted(table["row"].to_numpy(), rows)))

    tables = snapshot.engine.map_shards(work, enumerate(snapshot.plan.counted))
    table = pa.concat_tables([table for table in tables if table is not None])
    columns = [table[name].to_numpy() for name in ("n_tokens", "n_ngrams", "content_hash")]
    described = {}
    for name, positions in picks.items():
        positions = np.sort(positions)
        at = np.searchsorted(wanted, positions)
        described[name] = Pick(positions, *(column[at] for column in columns))
    return described


def picked_totals(snapshot: Snapshot, picks: list[Pick]) -> np.ndarray:
    """Add up the n-grams of several picks, in one pass over the cached features.

    Returns
    -------
    ndarray of int64, shape (picks, buckets)
    """

    def work(item: tuple[int, str]) -> np.ndarray:
        index, shard = item
        origin = snapshot.plan.raw_counts(shard).origin
        totals = np.zeros((len(picks), snapshot.settings.features.buckets), dtype=np.int64)
        with snapshot.store.open_table(snapshot.store.path("documents", shard), origin) as documents:
            rows = documents.read(columns=["row"])["row"].to_numpy()
        times = np.zeros((len(picks), len(rows)), dtype=np.uint16)
        for mine, each in zip(times, picks, strict=True):
            np.add.at(mine, np.searchsorted(rows, rows_in(index, each.positions)), 1)
        done = 0
        for batch in snapshot.store.read_features(snapshot.store.path("features", shard), origin):
            here = times[:, done : done + batch.num_rows]
            if here.any():
                masked_totals(Features.from_arrow(batch), np.ascontiguousarray(here), totals)
            done += batch.num_rows
        return totals

    return reduce(np.add, snapshot.engine.map_shards(work, enumerate(snapshot.plan.counted)))


def is_random(pick: str) -> bool:
    """Tell whether a pick is one of the random ones, ``random 0`` and so on."""
    return pick.startswith(f"{RANDOM} ")
