"""Some documents of the pool, given by their positions, shard by shard.

What belongs here: from positions to rows of shards, and to columns of these. What does not: all documents of a shard
(``candidates.py``), texts (``texts.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dsir.selection import pack_position
from dsir_dagster.resources.compute import Worker
from dsir_dagster.resources.plan import Plan, ShardFile
from dsir_dagster.resources.store import Origin


@dataclass(frozen=True)
class RowsOfShard:
    """Some documents of a shard, and what they are read from.

    Attributes
    ----------
    file : ShardFile
    counts : Origin
        Of the shard's documents and features.
    rows : ndarray of int64, shape (n,)
    """

    file: ShardFile
    counts: Origin
    rows: np.ndarray

    @classmethod
    def of(cls, plan: Plan, shard: str, rows: np.ndarray) -> "RowsOfShard":
        """Return these rows of a counted shard."""
        return cls(plan.shards[shard], plan.raw_counts(shard).origin, rows)


def rows_in(shard: int, positions: np.ndarray) -> np.ndarray:
    """Return the rows of those positions, ascending, that are in a shard: ndarray of int64."""
    first, last = np.searchsorted(positions, pack_position(np.array([shard, shard + 1]), 0))
    return positions[first:last] - pack_position(shard, 0)


def rows_by_shard(plan: Plan, positions: np.ndarray) -> Iterator[RowsOfShard]:
    """Yield documents of the pool by shard; positions, ascending, are those of `dsir.selection.pack_position`."""
    for index, shard in enumerate(plan.counted):
        if len(rows := rows_in(index, positions)):
            yield RowsOfShard.of(plan, shard, rows)


def read_rows(
    worker: Worker, item: RowsOfShard, columns: Sequence[str], dictionaries: Sequence[str] = ()
) -> pa.Table:
    """Read columns of the documents, in the order of ``item.rows``; those named as dictionaries are read as such."""
    name = worker.store.name("documents", item.file.shard)
    with worker.store.open_table(name, item.counts, dictionaries) as file:
        documents = file.read(columns=["row", *columns])
    at = np.searchsorted(documents["row"].to_numpy(), item.rows)
    return documents.drop_columns("row").take(pa.array(at))
