"""Documents with their log weights and features, shard by shard over the pool.

What belongs here: joining a shard's documents, weights and features; which documents a selection may pick. What does
not: picking (``dsir/selection.py``), methods (``assets/methods/``), the quality filter's arithmetic
(``dsir/quality.py``). Shared by ``selections`` and ``evaluations``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from itertools import count
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.features import Features, hash_strings
from dsir.featurizer.word_counts import WordCounts
from dsir.quality import PAPER, failing
from dsir.selection import CANDIDATE, pack_position
from dsir_dagster.resources.compute import Tell, Worker, untold
from dsir_dagster.resources.plan import WORDS_COUNTED, Plan
from dsir_dagster.resources.sealed import ParquetFile
from dsir_dagster.resources.settings import ConfigError, Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import Origin, Store, columns_of

R = TypeVar("R")
T = TypeVar("T")

#: Maps a function over the documents of a shard, block by block, in order and perhaps in threads.
Part = Callable[[Callable[["Documents"], Any]], Iterator[Any]]

#: Criteria that a document must meet to be eligible, in this order, by their names in metadata and messages.
CRITERIA = ("min_tokens", *(f"quality.{name}" for name in PAPER), "collapse_duplicates")


@dataclass(frozen=True)
class Documents:
    """Some documents of a shard with their log weights.

    Attributes
    ----------
    shard : int
        Index into the plan's sorted list of counted shards.
    key : str
        The shard's.
    table : pyarrow.Table
        `COLUMNS`, or those requested.
    log_weights : dict of str to ndarray of float64
        By target.
    excluded_by : ndarray of int8
        0 for an eligible document, else the place in `CRITERIA`, counted from 1, of the first criterion it fails.
    batch : pyarrow.RecordBatch, optional
        Their cached features, if requested.
    """

    shard: int
    key: str
    table: pa.Table
    log_weights: dict[str, np.ndarray]
    excluded_by: np.ndarray
    batch: pa.RecordBatch | None = None

    @property
    def eligible(self) -> np.ndarray:
        """Which documents the selection may pick: ndarray of bool."""
        return self.excluded_by == 0

    @property
    def features(self) -> Features:
        """Sparse counts of all documents."""
        return Features.from_arrow(self.batch)

    @property
    def eligible_batch(self) -> pa.RecordBatch:
        """The cached features of the eligible documents."""
        assert self.batch is not None, "read with features"
        return self.batch if self.eligible.all() else self.batch.filter(pa.array(self.eligible))

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens a document: ndarray of int64."""
        return self.table["n_tokens"].to_numpy()

    @property
    def n_ngrams(self) -> np.ndarray:
        """N-grams a document: ndarray of int64."""
        return self.table["n_ngrams"].to_numpy()

    @property
    def content_hash(self) -> np.ndarray:
        """Content hashes: ndarray of uint64."""
        return self.table["content_hash"].to_numpy()

    @property
    def source_hash(self) -> np.ndarray:
        """Hashes of the documents' sources: ndarray of uint64."""
        return hash_strings(self.table["source"].combine_chunks())

    @property
    def positions(self) -> np.ndarray:
        """Positions from `dsir.selection.pack_position`: ndarray of int64."""
        return pack_position(self.shard, self.table["row"].to_numpy())

    def candidates(self, at: np.ndarray) -> np.ndarray:
        """Return the documents at these places: ndarray of CANDIDATE, without keys and weights.

        The hash of the source is filled in only if the source was read.
        """
        candidates = np.zeros(len(at), dtype=CANDIDATE)
        candidates["shard"] = self.shard
        for name in CANDIDATE_COLUMNS:
            candidates[name] = self.table[name].to_numpy()[at]
        if "source" in self.table.column_names:
            candidates["source_hash"] = hash_strings(self.table["source"].combine_chunks().take(pa.array(at)))
        return candidates


def read_log_weights(file: ParquetFile, group: int) -> np.ndarray:
    """Read the log weights of a row group of documents: ndarray of float64, shape (documents,)."""
    found = file.read_row_group(group, columns=["log_weight"])
    return found["log_weight"].to_numpy()


def picked_positions(plan: Plan, picks: pa.Table) -> np.ndarray:
    """Return the positions of the rows of ``picks.parquet``, from `dsir.selection.pack_position`: ndarray of int64."""
    shards = pc.index_in(picks["shard"].cast(pa.string()), pa.array(plan.counted))
    return pack_position(shards.to_numpy(), picks["row"].to_numpy())


#: Columns of `Documents.table`: those every candidate has, all, and those of the quality filter, null unless some
#: selection has one.
CANDIDATE_COLUMNS = ("row", "id_hash", "n_tokens", "content_hash")
COLUMNS = (*CANDIDATE_COLUMNS, "source", "n_ngrams")
QUALITY_COLUMNS = tuple(field.name for field in fields(WordCounts))


@dataclass(frozen=True)
class Candidates:
    """The documents of all counted shards, as a selection sees them.

    Attributes
    ----------
    snapshot, selection
    tell : callable
        Told of the documents that are looked at, and of what begins.
    """

    snapshot: Snapshot
    selection: Selection
    tell: Tell = field(default=untold, kw_only=True)

    @cached_property
    def duplicates(self) -> dict[str, np.ndarray]:
        """Rows, by shard, whose text an earlier document has; empty if duplicates may be picked."""
        if not self.selection.collapse_duplicates:
            return {}
        columns = ["shard", "row", "doc_id", "content_hash"]
        rows = columns_of("documents")
        schema = pa.schema([rows.field(name) for name in columns])
        documents = pa.RecordBatchReader.from_batches(schema, self._rows_of_documents(columns))
        found = self.snapshot.catalog.query_files("duplicates", documents=documents)
        return {
            shard: rows.values.to_numpy()
            for shard, rows in zip(found["shard"].to_pylist(), found["rows"], strict=True)
        }

    def _rows_of_documents(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield columns of all shards' documents."""
        store = self.snapshot.store
        for shard in self.snapshot.plan.counted:
            with store.open_table(
                store.name("documents", shard), self.snapshot.plan.raw_counts(shard).origin
            ) as file:
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group, columns=columns).to_batches()

    def begin(self, part: str, passes: int = 1) -> None:
        """Tell what the next passes over the pool are for, so many of them."""
        if self.tell is not untold:
            if self.selection.collapse_duplicates and "duplicates" not in vars(self):
                self.tell(part="equal texts")
                _ = self.duplicates
            self.tell(part=part, of=int(self._size[0].sum()), passes=passes)

    @cached_property
    def _size(self) -> np.ndarray:
        """Documents and bytes of text of every counted shard: ndarray of int64, shape (2, shards)."""
        plan = self.snapshot.plan
        made = [plan.raw_counts(shard).made for shard in plan.counted]
        return np.array([[each.count(name) for each in made] for name in ("documents", "text_bytes")])

    def each_shard(
        self,
        function: Callable[[Part, Any], R],
        given: Callable[[], Any] = lambda: None,
        targets: list[str] | None = None,
        features: bool = False,
        columns: Sequence[str] = COLUMNS,
    ) -> Iterator[R]:
        """Yield ``function(part, given())`` of every shard, in order of their keys; called wherever work is done.

        Parameters
        ----------
        function : callable
            Takes what maps a function over the shard's documents, block by block, in threads, and what is given; can be
            pickled (``resources/compute.py``), and so can what it returns.
        given : callable
            Called just before the function is; what it returns is all that the function knows of shards before.
        targets : list of str, optional
            Whose log weights to read. Default: the selection's.
        features : bool
            Whether to read the cached features; the blocks are smaller then.
        columns : sequence of str
            Columns of the documents to read, besides those that decide which documents are eligible.

        Raises
        ------
        StaleInput
            A shard's weights are missing or were computed from other inputs.
        """
        targets = self.selection.targets if targets is None else targets
        needed = {*columns, "n_tokens"}
        if self.duplicates:
            needed.add("row")
        if self.selection.quality is not None:
            self._check_words_are_counted()
            needed.update(QUALITY_COLUMNS)
        plan = self.snapshot.plan
        shards = (
            ShardDocuments(
                index,
                shard,
                plan.raw_counts(shard).origin,
                {target: plan.log_weights(shard, target) for target in targets},
                self.duplicates.get(shard),
            )
            for index, shard in enumerate(plan.counted)
        )
        look = _Look(function, self.selection, sorted(needed), features)
        results = self.snapshot.compute.map(look, ((shard, given()) for shard in shards))
        return results if self.tell is untold else map(self._looked_at, count(), results)

    def _check_words_are_counted(self) -> None:
        """Raise ConfigError if shards were last counted for a configuration that filters by quality nowhere."""
        plan = self.snapshot.plan
        without = [shard for shard in plan.counted if WORDS_COUNTED not in plan.raw_counts(shard).made.inputs]
        if without:
            unset = "set `quality` for a selection of the configuration, as none has it, and "
            raise ConfigError(
                f"selection '{self.selection.name}': quality filters by counts of words, which {len(without)} of "
                f"{len(plan.counted)} shards lack: {'' if plan.settings.filters_by_quality else unset}"
                "materialize raw_counts"
            )

    def _looked_at(self, index: int, result: R) -> R:
        """Tell that a shard is done; return its result."""
        documents, n_bytes = self._size[:, index].tolist()
        self.tell(documents=documents, bytes=n_bytes, work=documents)
        return result

    def each_block(
        self,
        function: Callable[[Documents], T],
        targets: list[str] | None = None,
        features: bool = False,
        columns: Sequence[str] = COLUMNS,
    ) -> Iterator[T]:
        """Yield ``function(documents)`` of every block, in order; arguments are those of :meth:`each_shard`.

        For results that are small: those of a shard come together.
        """
        for results in self.each_shard(
            partial(_of_blocks, function), targets=targets, features=features, columns=columns
        ):
            yield from results


def _of_blocks(function: Callable[[Documents], T], part: Part, given: None) -> list[T]:
    return list(part(function))


@dataclass(frozen=True)
class ShardDocuments:
    """What the documents of a shard are read from.

    Attributes
    ----------
    index : int
        Into the plan's sorted list of counted shards.
    shard : str
    counts : Origin
    weights : dict of str to Origin
        By target.
    repeated : ndarray of int64, optional
        Rows whose text is also that of a document before, where these may not be picked.
    """

    index: int
    shard: str
    counts: Origin
    weights: dict[str, Origin]
    repeated: np.ndarray | None


@dataclass(frozen=True)
class _Look:
    """Reads the documents of a shard, and calls a function with them."""

    function: Callable[[Part, Any], Any]
    selection: Selection
    columns: list[str]
    features: bool

    def __call__(self, worker: Worker, item: tuple[ShardDocuments, Any]) -> Any:
        shard, given = item
        documents = self._read(worker.store, shard)
        # With features it is so much work that the threads share that of one shard.
        mapper = worker.engine.map_blocks if self.features else map
        return self.function(lambda function: mapper(function, documents), given)

    def _read(self, store: Store, shard: ShardDocuments) -> Iterator[Documents]:
        """Yield a shard's documents, a row group or, with their features, a batch of these at a time."""
        with ExitStack() as files:
            documents = files.enter_context(
                store.open_table(store.name("documents", shard.shard), shard.counts)
            )
            weights = {
                target: files.enter_context(store.open_table(store.weights(shard.shard, target), origin))
                for target, origin in shard.weights.items()
            }
            if self.features:
                batches = store.read_features(store.name("features", shard.shard), shard.counts)
            for group in range(documents.num_row_groups):
                table = documents.read_row_group(group, columns=self.columns)
                log_weights = {target: read_log_weights(file, group) for target, file in weights.items()}
                whole = Documents(
                    shard.index, shard.shard, table, log_weights, self._exclude(shard.repeated, table)
                )
                yield from _cut(whole, batches) if self.features else [whole]

    def _exclude(self, repeated: np.ndarray | None, documents: pa.Table) -> np.ndarray:
        """Tell which criterion each document does not meet: `Documents.excluded_by`."""
        n_tokens = documents["n_tokens"].to_numpy()
        excluded_by = np.zeros(len(documents), np.int8)
        if repeated is not None:
            excluded_by[np.isin(documents["row"].to_numpy(), repeated)] = len(CRITERIA)
        if self.selection.quality is not None:
            counts = WordCounts(*(documents[name].to_numpy() for name in QUALITY_COLUMNS))
            failed = failing(n_tokens, counts, self.selection.quality.model_dump())
            excluded_by[failed > 0] = failed[failed > 0] + 1
        np.copyto(excluded_by, 1, where=n_tokens < self.selection.min_tokens)
        return excluded_by


def _cut(documents: Documents, batches: Iterator[pa.RecordBatch]) -> Iterator[Documents]:
    """Cut a row group into the next batches of features, which it is a whole number of."""
    done = 0
    while done < len(documents.table):
        batch = next(batches)
        at = slice(done, done + batch.num_rows)
        mine = {target: values[at] for target, values in documents.log_weights.items()}
        table = documents.table.slice(done, batch.num_rows)
        yield Documents(documents.shard, documents.key, table, mine, documents.excluded_by[at], batch)
        done += batch.num_rows
