"""Parquet files in batches: no more of a file is read, asked for and held at once than is needed.

What belongs here: which row groups and columns are read, in which pieces. What does not: what the rows mean, and their
numbers (``tables``).
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.corpus.opening import REQUEST_BYTES, is_distant

#: Of each column of a local file, as much as is read at once.
_BUFFER_BYTES = 1 << 20
#: Of a file in an object store, as much as is asked for and held at once.
_PART_BYTES = 4 * REQUEST_BYTES


def open_parquet(stream: pa.NativeFile) -> pq.ParquetFile:
    """Open a Parquet file."""
    # Neither all ranges of a file at once, which would be held until its end, nor a row group's whole columns.
    buffered = REQUEST_BYTES if is_distant(stream) else _BUFFER_BYTES
    return pq.ParquetFile(stream, pre_buffer=False, buffer_size=buffered)


def parquet_batches(
    file: pq.ParquetFile,
    stream: pa.NativeFile,
    columns: list[str] | None,
    block_bytes: int,
    most_rows: int,
    wanted: np.ndarray | None,
) -> Iterator[tuple[int, Iterator[pa.RecordBatch]]]:
    """Yield the file's row groups that follow each other: their first row, and their batches.

    Parameters
    ----------
    file, stream
        As opened, and what it was opened from.
    columns : list of str or None
        At the top level; None for all.
    block_bytes, most_rows : int
        Approximate bytes of a batch, and the most rows.
    wanted : ndarray of int64, optional
        Rows, ascending: row groups that have none of them are left out.
    """
    metadata = file.metadata
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    rows = min(max(block_bytes * metadata.num_rows // max(size, 1), 1), most_rows)
    for row, groups in _runs(metadata, wanted):
        if is_distant(stream):
            yield row, _of_rows(_from_afar(file, stream, groups, rows, columns), rows)
        else:
            yield row, file.iter_batches(rows, groups, columns, use_threads=False)


def _runs(metadata: pq.FileMetaData, wanted: np.ndarray | None) -> Iterator[tuple[int, list[int]]]:
    """Yield row groups that follow each other and have wanted rows, or all: their first row, their numbers."""
    first, run, end = 0, list[int](), 0
    for number in range(metadata.num_row_groups):
        begin, end = end, end + metadata.row_group(number).num_rows
        if wanted is None or np.diff(np.searchsorted(wanted, [begin, end])):
            first = first if run else begin
            run.append(number)
        elif run:
            yield first, run
            run = []
    if run:
        yield first, run


def _from_afar(
    file: pq.ParquetFile, stream: pa.NativeFile, groups: list[int], rows: int, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """Read the columns in large requests: those of small row groups together, a large one piece by piece."""
    with pq.ParquetFile(stream, metadata=file.metadata, pre_buffer=True) as together:
        for part, size in _parts(file.metadata, groups, columns):
            chosen = together if size <= _PART_BYTES else file
            yield from chosen.iter_batches(rows, part, columns, use_threads=False)


def _parts(
    metadata: pq.FileMetaData, groups: list[int], columns: list[str] | None
) -> Iterator[tuple[list[int], int]]:
    """Yield consecutive row groups whose columns have up to ``_PART_BYTES``, or one that has more, and their bytes."""
    part: list[int] = []
    held = 0
    for number in groups:
        group = metadata.row_group(number)
        chunks = map(group.column, range(group.num_columns))
        size = sum(
            chunk.total_compressed_size
            for chunk in chunks
            if columns is None or chunk.path_in_schema.split(".")[0] in columns
        )
        if part and held + size > _PART_BYTES:
            yield part, held
            part, held = [], 0
        part.append(number)
        held += size
    if part:
        yield part, held


def _of_rows(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Cut batches anew, each with this many rows but the last: as if they were read without a break."""
    waiting: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += len(batch)
        while held >= rows:
            whole = pa.concat_batches(waiting) if len(waiting) > 1 else waiting[0]
            yield whole.slice(0, rows)
            held -= rows
            waiting = [whole.slice(rows)] if held else []
    if waiting:
        yield pa.concat_batches(waiting)
