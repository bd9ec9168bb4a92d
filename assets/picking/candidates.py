"""Documents with their log weights and features, as a stream over the pool.

What belongs here: joining a shard's documents, weights and features; which documents a selection may pick. What does
not: picking (``dsir/selection.py``), methods (``assets/methods/``), the quality filter's arithmetic
(``dsir/quality.py``). Shared by ``selections`` and ``evaluations``.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.features import Features, hash_strings
from dsir.featurizer.word_counts import WordCounts
from dsir.quality import PAPER, failing
from dsir.selection import CANDIDATE, pack_position
from dsir_dagster.resources.plan import Plan
from dsir_dagster.resources.sealed import ParquetFile
from dsir_dagster.resources.settings import Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import columns_of

T = TypeVar("T")

#: Criteria that a document must meet to be eligible, in this order, by their names in metadata and messages.
CRITERIA = ("min_tokens", *(f"quality.{name}" for name in PAPER), "collapse_duplicates")


@dataclass(frozen=True)
class Documents:
    """Some documents of a shard with their log weights.

    Attributes
    ----------
    shard : int
        Index into the plan's sorted list of counted shards.
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
    def eligible_features(self) -> Features:
        """Sparse counts of the eligible documents."""
        assert self.batch is not None, "streamed with features"
        every = self.eligible.all()
        return Features.from_arrow(self.batch if every else self.batch.filter(pa.array(self.eligible)))

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


def rows_in(shard: int, positions: np.ndarray) -> np.ndarray:
    """Return the rows of those positions, ascending, that are in a shard: ndarray of int64."""
    first, last = np.searchsorted(positions, pack_position(np.array([shard, shard + 1]), 0))
    return positions[first:last] - pack_position(shard, 0)


#: Columns of `Documents.table`: those every candidate has, all, and those of the quality filter.
CANDIDATE_COLUMNS = ("row", "id_hash", "n_tokens", "content_hash")
COLUMNS = (*CANDIDATE_COLUMNS, "source", "n_ngrams")
QUALITY_COLUMNS = ("most_frequent_word", "informative_words", "single_digits")


@dataclass(frozen=True)
class Candidates:
    """The documents of all counted shards, as a selection sees them.

    Attributes
    ----------
    snapshot, selection
    """

    snapshot: Snapshot
    selection: Selection

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
                store.path("documents", shard), self.snapshot.plan.raw_counts(shard).origin
            ) as file:
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group, columns=columns).to_batches()

    def stream(
        self,
        targets: list[str] | None = None,
        features: bool = False,
        columns: Sequence[str] = COLUMNS,
    ) -> Iterator[Documents]:
        """Yield the documents of all shards.

        Parameters
        ----------
        targets : list of str, optional
            Whose log weights to read. Default: the selection's.
        features : bool
            Whether to read the cached features, which makes batches smaller.
        columns : sequence of str
            Columns of the documents to read, besides those that decide which documents are eligible.

        Raises
        ------
        StaleInput
            A shard's weights are missing or were computed from other inputs.
        """
        streams = self._streams(targets, features, columns)
        return self.snapshot.engine.chain(streams, held=8 if features else 2)

    def map(
        self,
        function: Callable[[Documents], T],
        targets: list[str] | None = None,
        features: bool = False,
        columns: Sequence[str] = COLUMNS,
    ) -> Iterator[T]:
        """Yield ``function(documents)`` for what :meth:`stream` yields, in the same order, computed in threads.

        ``function`` runs in the threads that read shards, or with features in those for blocks, and must not wait for
        others of these.
        """
        engine = self.snapshot.engine
        if features:  # enough work for several threads to share a shard
            return engine.map_blocks(function, self.stream(targets, features, columns))

        def mapped(stream: Callable[[], Iterator[Documents]]) -> Iterator[T]:
            return map(function, stream())

        streams = self._streams(targets, features, columns)
        return engine.chain([partial(mapped, each) for each in streams], held=2)

    def _streams(
        self, targets: list[str] | None, features: bool, columns: Sequence[str]
    ) -> list[Callable[[], Iterator[Documents]]]:
        """Return a callable for each shard that reads its documents."""
        targets = self.selection.targets if targets is None else targets
        needed = {*columns, "n_tokens"}
        if self.duplicates:
            needed.add("row")
        if self.selection.quality is not None:
            needed.update(QUALITY_COLUMNS)
        return [
            partial(self._of_shard, index, shard, targets, sorted(needed), features)
            for index, shard in enumerate(self.snapshot.plan.counted)
        ]

    def _exclude(self, shard: str, documents: pa.Table) -> np.ndarray:
        """Return `Documents.excluded_by`."""
        n_tokens = documents["n_tokens"].to_numpy()
        excluded_by = np.zeros(len(documents), np.int8)
        if shard in self.duplicates:
            excluded_by[np.isin(documents["row"].to_numpy(), self.duplicates[shard])] = len(CRITERIA)
        if self.selection.quality is not None:
            counts = WordCounts(*(documents[name].to_numpy() for name in QUALITY_COLUMNS))
            failed = failing(n_tokens, counts, self.selection.quality.model_dump())
            excluded_by[failed > 0] = failed[failed > 0] + 1
        np.copyto(excluded_by, 1, where=n_tokens < self.selection.min_tokens)
        return excluded_by

    def _of_shard(
        self, index: int, shard: str, targets: list[str], columns: list[str], featurized: bool
    ) -> Iterator[Documents]:
        """Yield a shard's documents by row group or, with features, by batch of features."""
        store, plan = self.snapshot.store, self.snapshot.plan
        counts = plan.raw_counts(shard).origin
        with ExitStack() as files:
            documents = files.enter_context(store.open_table(store.path("documents", shard), counts))
            weights = {
                target: files.enter_context(
                    store.open_table(store.weights(shard, target), plan.log_weights(shard, target))
                )
                for target in targets
            }
            if featurized:
                batches = store.read_features(store.path("features", shard), counts)
            for group in range(documents.num_row_groups):
                table = documents.read_row_group(group, columns=columns)
                log_weights = {target: read_log_weights(file, group) for target, file in weights.items()}
                whole = Documents(index, table, log_weights, self._exclude(shard, table))
                yield from _cut(whole, batches) if featurized else [whole]


def _cut(documents: Documents, batches: Iterator[pa.RecordBatch]) -> Iterator[Documents]:
    """Cut a row group into the next batches of features, which it is a whole number of."""
    done = 0
    while done < len(documents.table):
        batch = next(batches)
        at = slice(done, done + batch.num_rows)
        mine = {target: values[at] for target, values in documents.log_weights.items()}
        table = documents.table.slice(done, batch.num_rows)
        yield Documents(documents.shard, table, mine, documents.excluded_by[at], batch)
        done += batch.num_rows
