"""Texts of some documents of the pool, and of targets, read again from their files.

What belongs here: from positions to texts. What does not: reading records (``resources/records.py``), what is done with
the texts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa

from dsir_dagster.assets.picking.rows import RowsOfShard, read_rows, rows_by_shard
from dsir_dagster.resources.compute import Tell, Worker, counted, untold
from dsir_dagster.resources.corpus import Block, TextBatch, expand, read_blocks
from dsir_dagster.resources.groups import by_file, read_first_rows
from dsir_dagster.resources.records import cut_pieces, read_records, refuse_other_texts, text_fields, texts_of
from dsir_dagster.resources.settings import ConfigError, Reader, Target
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import PIECE
from dsir_dagster.resources.workspace import Workspace

R = TypeVar("R")


@dataclass(frozen=True)
class PoolTexts:
    """Texts of some documents of the pool, held in memory.

    Attributes
    ----------
    positions : ndarray of int64, shape (n,)
        From :func:`dsir.selection.pack_position`, ascending, each once.
    texts : list of str, length n
    """

    positions: np.ndarray
    texts: list[str]

    def of(self, positions: np.ndarray) -> list[str]:
        """Return the texts at some of these positions, in any order."""
        return [self.texts[i] for i in np.searchsorted(self.positions, positions)]


def pool_texts(snapshot: Snapshot, positions: np.ndarray, tell: Tell = untold) -> list[str]:
    """Read the texts of documents of the pool; for a piece, only the piece.

    Parameters
    ----------
    snapshot
    positions : ndarray of int64, shape (n,)
        From :func:`dsir.selection.pack_position`, ascending, each once.
    tell : callable

    Returns
    -------
    list of str, length n
        In the same order; all are held in memory.

    Raises
    ------
    CorpusError
        A file is missing or damaged, or no longer has the record, the piece or its text.
    """
    shards = list(rows_by_shard(snapshot.plan, positions))
    read = snapshot.compute.map(texts_of_shard, shards)
    return [text for texts in counted(tell, "reading texts", read, len(shards)) for text in texts]


def texts_of_shard(worker: Worker, item: RowsOfShard) -> list[str]:
    """Read the texts of some documents of one shard; errors are those of :func:`pool_texts`."""
    return [text for texts, _ in text_blocks(worker, item) for text in texts.to_pylist()]


def text_blocks(worker: Worker, item: RowsOfShard) -> Iterator[tuple[pa.Array, slice]]:
    """Read the texts of some documents of one shard, about a block at a time.

    Yields
    ------
    texts : pa.Array of string or large_string
    at : slice
        Their places in ``item.rows``.

    Raises
    ------
    CorpusError
        As :func:`pool_texts`.
    """
    file = item.file
    source = worker.settings.source(file.source)
    pieces = source.chunk_words is not None
    mine = read_rows(worker, item, ["content_hash", *(PIECE if pieces else ())])
    content_hash = mine["content_hash"].to_numpy()
    rows = mine["record"].to_numpy() if pieces else item.rows
    for uri, records, at in by_file(file, read_first_rows(worker.store, file, item.counts), rows):
        if pieces:
            begins, ends = (mine[name].to_numpy()[at] for name in ("begin_byte", "end_byte"))
            blocks = _pieces(uri, source, records, begins, ends)
        else:
            blocks = _texts(uri, source, records)
        done = 0
        for texts in blocks:
            here = slice(done, done + len(texts))
            done = here.stop
            place = slice(at.start + here.start, at.start + here.stop)
            refuse_other_texts(uri, file.shard, records[here], texts, content_hash[place])
            yield texts, place


def _texts(uri: str, reader: Reader, rows: np.ndarray) -> Iterator[pa.Array]:
    fields = text_fields(reader)
    for records in read_records(uri, reader, rows, all_columns=False):
        yield texts_of(uri, fields, records)


def _pieces(
    uri: str, reader: Reader, records: np.ndarray, begins: np.ndarray, ends: np.ndarray
) -> Iterator[pa.Array]:
    """Cut pieces, in the order of their records, out of the texts as they are read."""
    rows, first = np.unique(records, return_index=True)
    first = np.append(first, len(records))
    done = 0
    for texts in _texts(uri, reader, rows):
        pieces: list[str] = []
        for text in texts.to_pylist():
            mine = slice(first[done], first[done + 1])
            pieces += cut_pieces(uri, rows[done], text, begins[mine], ends[mine])
            done += 1
        yield pa.array(pieces, pa.large_string())


def map_target(
    workspace: Workspace, target: Target, uri: str, function: Callable[[pa.Array], R]
) -> Iterator[R]:
    """Apply a function to the texts of a target's files, block by block in threads; yield the results in order.

    Parameters
    ----------
    workspace, target
    uri : str
        ``target.uri`` or ``target.holdout``.
    function : callable
        Takes the texts of one block, an array of strings.
    """
    return _map_blocks(workspace, target, uri, lambda batch: function(batch.texts))


def _map_blocks(
    workspace: Workspace, target: Target, uri: str, function: Callable[[TextBatch], R]
) -> Iterator[R]:
    def work(block: Block) -> R:
        return function(block.parse())

    for file in expand(uri, workspace.home):
        yield from workspace.engine.map_blocks(work, read_blocks(file.uri, target))


def read_labels(workspace: Workspace, target: Target, uri: str, label: str) -> tuple[list[str], list[str]]:
    """Read a target's texts and labels; nothing if no record has the field.

    Raises
    ------
    ConfigError
        Some records have the field and some do not.
    """
    labelled = target.model_copy(update={"id": label})
    texts: list[str] = []
    labels: list[str | None] = []
    for batch in _map_blocks(workspace, labelled, uri, lambda batch: batch):
        assert batch.ids is not None, "the field is configured as the id"
        texts += batch.texts.to_pylist()
        labels += batch.ids.to_pylist()
    absent = labels.count(None)
    if absent == len(labels):
        return [], []
    if absent:
        raise ConfigError(
            f"evaluation.downstream.label: {absent:,} of {len(labels):,} records of target '{target.name}' have no "
            f"field {label!r}; label them or take them out"
        )
    return texts, [label for label in labels if label is not None]
