"""CSV and TSV as columns of text.

What belongs here: records of any length, rows of the wrong length, row numbers. What does not: what is read of other
files with columns (``tables``), whether the text is UTF-8 (there too).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv
from fsspec.implementations.local import LocalFileSystem

from dsir_dagster.resources import wording
from dsir_dagster.resources.corpus.errors import CorpusError
from dsir_dagster.resources.corpus.fields import ReadRows, Rejected, excerpt
from dsir_dagster.resources.corpus.opening import file_system, open_text, read_so_far

MAX_ROW_BYTES = 1 << 30
WRONG_COLUMNS = "wrong number of columns"


def delimited_rows(uri: str, delimiter: str, block_bytes: int) -> Iterator[ReadRows]:
    """Read CSV as text columns, not checked yet; use larger blocks if a record does not fit.

    Arrow numbers rows of the wrong length: 1 is the header, blank lines do not count.
    """
    delivered = 0
    while True:
        try:
            for rows, batch, rejected, read in _blocks(uri, delimiter, block_bytes):
                first = int(np.searchsorted(rows, delivered))
                rows, batch = rows[first:], batch.slice(first)
                rejected = [item for item in rejected if item.row >= delivered]
                if len(rows) or rejected:
                    delivered = max([*rows[-1:].tolist(), *(item.row for item in rejected)]) + 1
                    yield rows, batch, rejected, read
            return
        except pa.ArrowInvalid as error:
            header = wording.HEADER_BEYOND_BLOCK(error)
            if not header and not wording.RECORD_BEYOND_BLOCK(error):
                raise
            if header and _fits(uri, block_bytes):
                return  # a header and no record
            if block_bytes >= MAX_ROW_BYTES:
                raise CorpusError(
                    f"{uri}: a record after row {delivered - 1} is longer than 1 GiB; is a quoted value not "
                    "closed? Repair the file, or read it with `reader: package.module:function`"
                ) from error
            block_bytes = min(max(8 * block_bytes, 1 << 20), MAX_ROW_BYTES)


def _fits(uri: str, block_bytes: int) -> bool:
    """Return whether the whole file fits into a block."""
    with open_text(uri) as (stream, _):
        size = 0
        while size <= block_bytes and (chunk := stream.read(block_bytes + 1 - size)):
            size += len(chunk)
    return size <= block_bytes


@contextlib.contextmanager
def _native_text(uri: str) -> Iterator[tuple[pa.NativeFile, pa.NativeFile]]:
    """Open a text file as a native stream; what Python code reads, as from stores, is copied to a file first.

    pyarrow 26 reads CSV ahead in a thread of its pool. If that thread is in Python code when the reader ends early or
    by an error, it waits for itself forever, and after eight such threads every reader does.
    """
    with open_text(uri) as (stream, file):
        ours = isinstance(file_system(uri)[0], LocalFileSystem)
        if ours and not isinstance(stream, pa.PythonFile | pa.TransformInputStream):
            yield stream, file
            return
        with tempfile.NamedTemporaryFile(prefix="dsir-") as copy:
            while chunk := stream.read(1 << 20):
                copy.write(chunk)
            copy.flush()
            with pa.OSFile(copy.name) as text:
                yield text, text


def _blocks(uri: str, delimiter: str, block_bytes: int) -> Iterator[ReadRows]:
    bad: dict[int, Rejected] = {}

    def on_invalid_row(invalid: pa.csv.InvalidRow) -> str:
        row = invalid.number - 2
        bad[row] = Rejected(row, WRONG_COLUMNS, excerpt(invalid.text))
        return "skip"

    with _native_text(uri) as (stream, file):
        try:
            reader = pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(use_threads=False, block_size=block_bytes),
                parse_options=pa.csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=on_invalid_row
                ),
                convert_options=pa.csv.ConvertOptions(default_column_type=pa.binary()),
            )
        except pa.ArrowInvalid as error:
            if wording.EMPTY_CSV(error):
                return
            raise
        row = 0
        with reader:
            for batch in reader:
                rows = np.arange(row, row + batch.num_rows + len(bad), dtype=np.int64)
                rows = rows[~np.isin(rows, list(bad))][: batch.num_rows]
                row = int(rows[-1]) + 1 if len(rows) else row
                done = [number for number in sorted(bad) if number < row]
                yield rows, _as_text(batch), [bad.pop(number) for number in done], read_so_far(file)
            if bad:
                nothing = pa.array([], pa.binary())
                batch = pa.RecordBatch.from_arrays([nothing] * len(reader.schema), schema=reader.schema)
                yield np.empty(0, np.int64), _as_text(batch), [bad[n] for n in sorted(bad)], read_so_far(file)


def _as_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([c.view(pa.string()) for c in batch.columns], names=batch.schema.names)
