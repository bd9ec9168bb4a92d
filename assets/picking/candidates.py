"""Documents with their log weights and features, as a stream over the pool.

What belongs here: joining the documents, weights and features of a shard, and which documents a selection may pick at
all. What does not: the picking itself (``dsir/selection.py``), its methods (``assets/methods/``), the quality
filter's arithmetic (``dsir/quality.py``). Shared by ``selections`` and ``evaluations``.
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

#: What a document has to meet to be eligible, in this order; the names that metadata and messages give them.
CRITERIA = ("min_tokens", *(f"quality.{name}" for name in PAPER), "collapse_duplicates")


@dataclass(frozen=True)
class Documents:
    """Some documents of a shard with their log weights.

    Attributes
    ----------
    shard : int
        Index into the plan's sorted list of counted shards.
    table : pyarrow.Table
        `COLUMNS`, or those of them that were asked for.
    log_weights : dict of str to ndarray of float64
        By target.
    excluded_by : ndarray of int8
        0 for a document that is eligible, else the place in `CRITERIA`, counted from 1, of the first criterion that
        it does not meet.
    batch : pyarrow.RecordBatch, optional
        Their cached features, where these were asked for.
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
        """Sparse counts of all of the documents."""
        return Features.from_arrow(self.batch)

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of each document: ndarray of int64."""
        return self.table["n_tokens"].to_numpy()

    @property
    def n_ngrams(self) -> np.ndarray:
        """N-grams of each document: ndarray of int64."""
        return self.table["n_ngrams"].to_numpy()

    @property
    def content_hash(self) -> np.ndarray:
        """Content hash of each document: ndarray of uint64."""
        return self.table["content_hash"].to_numpy()

    @property
    def source_hash(self) -> np.ndarray:
        """Hash of the source of each document: ndarray of uint64."""
        return hash_strings(self.table["source"].combine_chunks())

    def candidates(self, at: np.ndarray) -> np.ndarray:
        """Return the documents at these places, for a selection: ndarray of CANDIDATE, without keys and weights.

        Without the hash of their source too, where this was not read.
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
    """Return where the rows of ``picks.parquet`` are, as `dsir.selection.pack_position` does: ndarray of int64."""
    shards = pc.index_in(picks["shard"].cast(pa.string()), pa.array(plan.counted))
    return pack_position(shards.to_numpy(), picks["row"].to_numpy())


#: Columns of `Documents.table` that every candidate has; all of them; those of the quality filter, where there is one.
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
        """Rows, by shard, whose text is also that of a document before; empty where they may be picked."""
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
        """Yield columns of the documents of all shards."""
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
            Whose log weights to read; those of the selection if not given.
        features : bool
            Whether to read the cached features; the batches are smaller then.
        columns : sequence of str
            Of the documents, to read; those that tell which documents are eligible are read in any case.

        Raises
        ------
        StaleInput
            The weights of a shard are absent or were computed from other inputs.
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

        These are the ones that read the shards, so ``function`` may not wait for others of them; with features, those
        for blocks.
        """
        engine = self.snapshot.engine
        if features:  # so much work that the threads share that of one shard
            return engine.map_blocks(function, self.stream(targets, features, columns))
        streams = self._streams(targets, features, columns)
        return engine.chain([lambda each=each: map(function, each()) for each in streams], held=2)

    def _streams(
        self, targets: list[str] | None, features: bool, columns: Sequence[str]
    ) -> list[Callable[[], Iterator[Documents]]]:
        """Return what reads the documents, of each shard."""
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
        """Tell which criterion each document does not meet: `Documents.excluded_by`."""
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
        """Yield a shard's documents, a row group or, with their features, a batch of these at a time."""
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
    """Cut a row group into the next batches of features; it is whole batches of them."""
    done = 0
    while done < len(documents.table):
        batch = next(batches)
        at = slice(done, done + batch.num_rows)
        mine = {target: values[at] for target, values in documents.log_weights.items()}
        table = documents.table.slice(done, batch.num_rows)
        yield Documents(documents.shard, table, mine, documents.excluded_by[at], batch)
        done += batch.num_rows
