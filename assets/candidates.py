"""Documents with their log weights and keys, as a stream over the pool.

What belongs here: joining the documents and weights of a shard, which documents a selection may pick at all, and
running the pool past several :class:`dsir.selection.TopK` at once. What does not: the picking itself
(``dsir/selection.py``), the quality filter's arithmetic (``dsir/quality.py``).
Shared by ``selections`` and ``evaluations``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.features import hash_strings
from dsir.quality import PAPER, WordCounts, failing
from dsir.selection import CANDIDATE, TopK
from resources.plan import Plan
from resources.settings import Selection
from resources.workspace import Workspace

#: What a document has to meet to be eligible, in this order; the names that metadata and messages give them.
CRITERIA = ("min_tokens", *(f"quality.{name}" for name in PAPER))


@dataclass(frozen=True)
class Documents:
    """A row group of a shard's documents with their log weights.

    Attributes
    ----------
    shard : int
        Index into the plan's sorted list of counted shards.
    table : pyarrow.Table
        Columns row, doc_id, source, n_tokens, content_hash.
    log_weights : dict of str to ndarray of float64
        By target.
    excluded_by : ndarray of int8
        0 for a document that is eligible, else the place in `CRITERIA`, counted from 1, of the first criterion that
        it does not meet.
    """

    shard: int
    table: pa.Table
    log_weights: dict[str, np.ndarray]
    excluded_by: np.ndarray

    @property
    def eligible(self) -> np.ndarray:
        """Which documents the selection may pick: ndarray of bool."""
        return self.excluded_by == 0

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of each document: ndarray of int64."""
        return self.table["n_tokens"].to_numpy()

    @property
    def content_hash(self) -> np.ndarray:
        """Content hash of each document: ndarray of uint64."""
        return self.table["content_hash"].to_numpy()

    def offer(self, top: TopK, log_weight: np.ndarray, key: np.ndarray) -> None:
        """Add the documents that are eligible, and not out of reach already, to a selection.

        Parameters
        ----------
        top : TopK
        log_weight, key : ndarray of float64
        """
        at = np.flatnonzero(self.eligible & (key >= top.floor))
        kept = self.table.take(pa.array(at))
        candidates = np.empty(len(at), dtype=CANDIDATE)
        candidates["key"], candidates["log_weight"] = key[at], log_weight[at]
        candidates["content_hash"] = kept["content_hash"].to_numpy()
        candidates["id_hash"] = hash_strings(kept["doc_id"].combine_chunks())
        candidates["shard"] = self.shard
        candidates["row"] = kept["row"].to_numpy()
        candidates["n_tokens"] = kept["n_tokens"].to_numpy()
        top.add(candidates)


COLUMNS = ["row", "doc_id", "source", "n_tokens", "content_hash"]
QUALITY_COLUMNS = ["most_frequent_word", "informative_words", "single_digits"]


def exclude(documents: pa.Table, selection: Selection) -> np.ndarray:
    """Tell which criterion of a selection each document does not meet: `Documents.excluded_by`.

    Parameters
    ----------
    documents : pyarrow.Table
        Columns n_tokens and, if the selection filters by quality, `QUALITY_COLUMNS`.
    selection : Selection
    """
    n_tokens = documents["n_tokens"].to_numpy()
    excluded_by = np.zeros(len(documents), np.int8)
    if selection.quality is not None:
        counts = WordCounts(*(documents[name].to_numpy() for name in QUALITY_COLUMNS))
        failed = failing(n_tokens, counts, selection.quality.model_dump())
        excluded_by[failed > 0] = failed[failed > 0] + 1
    excluded_by[n_tokens < selection.min_tokens] = 1
    return excluded_by


def stream(
    workspace: Workspace, plan: Plan, selection: Selection, targets: list[str] | None = None
) -> Iterator[Documents]:
    """Yield the documents of all counted shards, as a selection sees them.

    Parameters
    ----------
    workspace, plan, selection
    targets : list of str, optional
        Whose log weights to read; those of the selection if not given.

    Raises
    ------
    StaleInput
        The weights of a shard are absent or were computed from other inputs.
    """
    store = workspace.store
    n_targets = len(plan.counted_targets)
    targets = selection.targets if targets is None else targets
    columns = COLUMNS if selection.quality is None else COLUMNS + QUALITY_COLUMNS

    def row_groups() -> Iterator[tuple[int, str, int]]:
        for index, shard in enumerate(plan.counted):
            path = store.path("documents", shard)
            with store.open_table(path, plan.raw_counts(shard).stamp) as documents:
                yield from ((index, shard, group) for group in range(documents.num_row_groups))

    def read(item: tuple[int, str, int]) -> Documents:
        index, shard, group = item
        with store.open_table(store.path("documents", shard), plan.raw_counts(shard).stamp) as file:
            documents = file.read_row_group(group, columns=columns)
        log_weights = {}
        if targets:
            with store.open_table(store.path("weights", shard), plan.weights(shard).stamp) as file:
                for target in targets:
                    at = group * n_targets + plan.counted_targets.index(target)
                    log_weights[target] = file.read_row_group(at, columns=["log_weight"])[
                        "log_weight"
                    ].to_numpy()
        return Documents(index, documents, log_weights, exclude(documents, selection))

    return workspace.engine.map_blocks(read, row_groups())


def stream_features(
    workspace: Workspace, plan: Plan, selection: Selection, targets: list[str]
) -> Iterator[tuple[Documents, pa.RecordBatch]]:
    """Yield the documents as :func:`stream` does, in the smaller batches of their cached features, with these."""
    store = workspace.store
    columns = COLUMNS if selection.quality is None else COLUMNS + QUALITY_COLUMNS

    def shard_stream(index: int, shard: str) -> Iterator[tuple[Documents, pa.RecordBatch]]:
        stamp = plan.raw_counts(shard).stamp
        with store.open_table(store.path("documents", shard), stamp) as file:
            table = file.read(columns=columns)
        log_weights = {}
        if targets:
            weights = store.read_table(store.path("weights", shard), plan.weights(shard).stamp)
            for target in targets:
                mine = weights.filter(pc.equal(weights["target"], target))
                log_weights[target] = mine["log_weight"].to_numpy()
        excluded_by = exclude(table, selection)
        done = 0
        for batch in store.read_features(store.path("features", shard), stamp):
            at = slice(done, done + batch.num_rows)
            mine = {target: values[at] for target, values in log_weights.items()}
            yield Documents(index, table.slice(done, batch.num_rows), mine, excluded_by[at]), batch
            done += batch.num_rows

    streams = [partial(shard_stream, index, shard) for index, shard in enumerate(plan.counted)]
    return workspace.engine.chain(streams)
