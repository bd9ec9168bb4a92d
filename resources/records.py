"""Chosen records: read them again from the corpus, and write a selection with its provenance.

What belongs here: original records, with every field they have, their text whole or cut down to a piece. What
does not: texts (``resources/corpus``), which records are chosen (``dsir``), and moving the finished folder to
its place (the caller writes into a temporary folder and renames it).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dsir.features import hash_strings
from resources.corpus.fields import RecordFields, put
from resources.corpus.files import CorpusError, file_format
from resources.corpus.jsontext import dump_json, json_lines, json_values, parse_record
from resources.corpus.lines import LineBlock, line_blocks
from resources.corpus.tables import TableBlock, replace_column, table_blocks
from resources.store import PIECE

if TYPE_CHECKING:
    from resources.settings import Reader

PROVENANCE = pa.struct(
    [
        ("log_weight", pa.float64()),
        ("key", pa.float64()),
        ("rank", pa.int64()),
        ("epoch", pa.int64()),
        ("target", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("version", pa.string()),
    ]
)
#: The same of pieces, and of whole records among them.
PROVENANCE_OF_PIECES = pa.struct([*PROVENANCE, *PIECE.items()])
PROVENANCE_FIELD = "_dsir"
JSON_COLUMNS_KEY = b"dsir_json_columns"

#: Bytes of JSON Lines that are parsed together, or up to a block more.
PARSED_BYTES = 1 << 20

_CHANGED = "the file changed since it was counted: materialize raw_counts and weights of this shard again"
_ROW_GROUP = 1 << 16
_REPEATED = 16  # blocks of a file with columns that its records may become by being repeated
_ESCAPED_NAME = re.compile(rb"\\u00(?:5[fF]|64|73|69|72)")  # a character of "_dsir", escaped
_CONFLICT = (pa.ArrowException, OverflowError, UnicodeEncodeError)  # of types, or beyond Arrow's types


@dataclass
class Lines:
    """Chosen lines of one block: ``data[starts[i]:ends[i]]``, without newlines."""

    data: bytes
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[bytes]:
        view = memoryview(self.data)
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield bytes(view[start:end])


Records = Lines | pa.RecordBatch


@dataclass(frozen=True)
class Part:
    """A file of a selection.

    Attributes
    ----------
    path : Path
    records : int
    bytes : int
        Size of the file.
    json_columns : tuple of str
        Parquet: columns whose values have no common type; they hold JSON text.
    """

    path: Path
    records: int
    bytes: int
    json_columns: tuple[str, ...] = ()


def read_records(uri: str, reader: Reader, rows: np.ndarray, block_bytes: int = 1 << 20) -> Iterator[Records]:
    """Read chosen records of a file, as they are, in one pass that ends at the last of them.

    Parameters
    ----------
    uri : str
        Path or URI of a corpus file.
    reader : Reader, RawSource or Target
        What the file was read with.
    rows : ndarray of int64, shape (n,)
        Rows as in ``TextBatch.rows``, ascending, each once.
    block_bytes : int
        Bytes a block; at most one block is held, or one record where that is longer.

    Yields
    ------
    Lines or pa.RecordBatch
        Together n records, in the order of ``rows``; none of them is empty.

    Raises
    ------
    CorpusError
        The file is missing, damaged, or has no such row.
    ValueError
        ``rows`` are not ascending.
    """
    rows = np.asarray(rows, np.int64)
    if len(rows) and (rows[0] < 0 or (np.diff(rows) <= 0).any()):
        raise ValueError("rows must be ascending, each once, from 0")
    fields = RecordFields.of(reader)
    is_lines = reader.reader is None and file_format(uri) == "jsonl"
    if is_lines:
        blocks = line_blocks(uri, fields, block_bytes)
    else:
        blocks = table_blocks(uri, reader, fields, block_bytes, all_columns=True)
    done = 0
    with contextlib.closing(blocks):
        while done < len(rows) and (block := next(blocks, None)) is not None:
            if is_lines:
                stop = int(np.searchsorted(rows, block.row + block.count))
                if stop > done and block.skipped:
                    break
                if stop > done:
                    starts, ends = block.bounds()
                    index = rows[done:stop] - block.row
                    done = stop
                    yield Lines(block.data, starts[index], ends[index])
            elif len(block.rows):
                stop = int(np.searchsorted(rows, block.rows[-1], side="right"))
                index = np.searchsorted(block.rows, rows[done:stop])
                absent = np.flatnonzero(block.rows[index] != rows[done:stop])
                if len(absent):
                    done += int(absent[0])
                    break
                if stop > done:
                    done = stop
                    yield block.batch.take(pa.array(index))
    if done < len(rows):
        raise CorpusError(f"{uri}: there is no usable record at row {rows[done]}; {_CHANGED}")


def read_pieces(
    uri: str,
    reader: Reader,
    records: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    block_bytes: int = 1 << 20,
) -> Iterator[Records]:
    """Read the records of chosen pieces, each with the piece in the place of its text.

    Parameters
    ----------
    uri, reader, block_bytes
        As in :func:`read_records`; `reader` names one text field.
    records : ndarray of int64, shape (n,)
        Rows of the records in the file, ascending; a record may have several pieces.
    begins, ends : ndarray of int64, shape (n,)
        Bounds of the pieces in the UTF-8 bytes of the records' texts.

    Yields
    ------
    Lines or pa.RecordBatch
        Together n records, in the order given. The other fields are as they were; JSON Lines are written anew,
        as compact JSON.

    Raises
    ------
    CorpusError
        The file is missing, damaged, or has no such row or piece.
    """
    rows, first = np.unique(records, return_index=True)
    first = np.append(first, len(records))
    fields = RecordFields.of(reader)
    done = 0
    for found in read_records(uri, reader, rows, block_bytes):
        texts = texts_of(uri, fields, found)
        parents: list[int] = []
        pieces: list[str] = []
        for parent, text in enumerate(texts):
            mine = slice(first[done + parent], first[done + parent + 1])
            cut = cut_pieces(uri, rows[done + parent], text.as_py(), begins[mine], ends[mine])
            pieces += cut
            parents += [parent] * len(cut)
        done += len(found)
        put_in = _pieces_of_lines if isinstance(found, Lines) else _pieces_of_table
        yield from put_in(found, fields.text[0], parents, pieces, block_bytes)


def cut_pieces(uri: str, row: int, text: str, begins: np.ndarray, ends: np.ndarray) -> list[str]:
    """Return the pieces of a record's text that lie between these bytes; :class:`CorpusError` if it is too short."""
    encoded = text.encode()
    if len(ends) and ends.max() > len(encoded):
        raise CorpusError(
            f"{uri}: the text at row {row} has {len(encoded)} bytes, {ends.max()} were expected; {_CHANGED}"
        )
    bounds = zip(begins.tolist(), ends.tolist(), strict=True)
    return [encoded[begin:end].decode(errors="replace") for begin, end in bounds]


def texts_of(uri: str, fields: RecordFields, records: Records | list[bytes]) -> pa.Array:
    """Return the text of every record, or of every line of JSON, as it was when it was counted."""
    if isinstance(records, pa.RecordBatch):
        batch = TableBlock(uri, fields, np.arange(len(records)), records).parse()
    else:
        batch = LineBlock(uri, fields, 0, len(records), b"\n".join(records)).parse()
    if batch.rejected:
        raise CorpusError(f"{uri}: a chosen record cannot be used: {batch.rejected[0].reason}; {_CHANGED}")
    return batch.texts


def refuse_other_texts(
    uri: str, shard: str, rows: np.ndarray, texts: pa.Array, content_hash: np.ndarray
) -> None:
    """Compare texts with what was counted.

    Whether a file has changed is told by its size and time, which some tools keep: `rsync -t`, `cp -p`, archives.

    Parameters
    ----------
    uri, shard : str
    rows : ndarray of int64, shape (n,)
        Of the records in the file.
    texts : pa.Array of string or large_string, length n
        Of whole records, or pieces.
    content_hash : ndarray of uint64, shape (n,)
        As the table of documents has them.

    Raises
    ------
    CorpusError
        Names the first text that differs.
    """
    other = np.flatnonzero(hash_strings(texts) != content_hash)
    if len(other):
        raise CorpusError(
            f"{uri}: the text at row {rows[other[0]]} is not the one that was counted in shard {shard}, although the "
            "file has the size and time that it had then; `touch` it (or upload it again), and `dsir run` counts it "
            "again"
        )


def counted_texts(
    uri: str,
    shard: str,
    reader: Reader,
    rows: np.ndarray,
    content_hash: np.ndarray,
    records: Iterable[Records],
) -> Iterator[Records]:
    """Pass records on, and compare their texts with what was counted; see :func:`refuse_other_texts`.

    Parameters
    ----------
    uri, shard, rows, content_hash
        As there.
    reader : Reader
        What the file was read with.
    records : iterable of Records
        Together n records, or pieces of them.

    Yields
    ------
    Records
        As given. Some may be looked at after they were yielded, so what is made of them counts only when all are.
    """
    fields = replace(RecordFields.of(reader), id=None, source=None)
    done = 0

    def compare(some: pa.RecordBatch | list[bytes]) -> None:
        nonlocal done
        mine = slice(done, done + len(some))
        refuse_other_texts(uri, shard, rows[mine], texts_of(uri, fields, some), content_hash[mine])
        done = mine.stop

    # A block has few of the records, and parsing a few takes about as long as parsing many.
    lines: list[bytes] = []
    n_bytes = 0
    for each in records:
        if isinstance(each, Lines):
            lines += each
            n_bytes += int((each.ends - each.starts).sum())
            if n_bytes >= PARSED_BYTES:
                compare(lines)
                lines, n_bytes = [], 0
        else:
            compare(each)
        yield each
    if lines:
        compare(lines)


def _pieces_of_lines(
    records: Lines, name: str, parents: list[int], pieces: list[str], block_bytes: int
) -> Iterator[Lines]:
    """Write JSON objects with other texts, in blocks of about ``block_bytes``."""
    parsed = enumerate(map(parse_record, records))
    at, record = next(parsed)
    lines, bounds = [], [0]
    for i, (parent, piece) in enumerate(zip(parents, pieces, strict=True)):
        while at < parent:
            at, record = next(parsed)
        put(record, name, piece)
        lines.append(dump_json(record))
        bounds.append(bounds[-1] + len(lines[-1]))
        if bounds[-1] >= block_bytes or i == len(pieces) - 1:
            yield Lines(b"".join(lines), np.array(bounds[:-1]), np.array(bounds[1:]))
            lines, bounds = [], [0]


def _pieces_of_table(
    records: pa.RecordBatch, name: str, parents: list[int], pieces: list[str], block_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Repeat records with other texts, as many at a time as cannot be much longer than their block."""
    texts = pa.array(pieces, pa.large_string())
    records = replace_column(records, name, pa.nulls(len(records), pa.large_string()))
    step = max(_REPEATED * block_bytes // max(records.nbytes, 1), 1)
    for start in range(0, len(parents), step):
        batch = records.take(pa.array(parents[start : start + step]))
        yield replace_column(batch, name, texts.slice(start, step))


class RecordWriter:
    """Write a selection as ``records-00000.<format>``, …; a context manager.

    The same calls give the same bytes. JSON Lines records keep their bytes, with ``"_dsir"`` added as the
    last key; Parquet gets ``_dsir`` as a struct column. A ``_dsir`` that a record already has is replaced.

    Parameters
    ----------
    folder : Path
        An existing folder.
    format : {"jsonl", "jsonl.zst", "parquet"}
        Format of the files.
    part_bytes : int
        Uncompressed bytes of records after which the next file begins. Parquet holds as much in memory.
    """

    def __init__(
        self,
        folder: str | Path,
        format: Literal["jsonl", "jsonl.zst", "parquet"],
        part_bytes: int = 256 << 20,
    ):
        self._folder = Path(folder)
        self._format = format
        self._part_bytes = part_bytes
        self._parts: list[Part] = []
        self._records = self._held = 0  # of the current part
        self._file = self._sink = None
        self._pieces: list[tuple[Records | list[bytes], pa.StructArray]] = []

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()

    def write(self, records: Records, provenance: list[dict] | pa.StructArray) -> None:
        """Append records.

        Parameters
        ----------
        records : Lines or pa.RecordBatch
            n records.
        provenance : list of dict or pa.StructArray, length n
            log_weight, key, rank, target, shard, row, version of each; in addition, in all calls or in none, record,
            begin_byte and end_byte, null where the record is whole.

        Raises
        ------
        ValueError
            Other keys, or not one a record.
        OSError
            The file cannot be written; it is named, and closed.
        """
        stamps = _stamps(provenance)
        if len(stamps) != len(records):
            raise ValueError(f"{len(records)} records but {len(stamps)} rows of provenance")
        if self._format == "parquet":
            self._hold(records, stamps)
            return
        lines = records if isinstance(records, Lines) else json_lines(records, PROVENANCE_FIELD)
        batch: list[bytes] = []
        for line, stamp in zip(lines, _stamp_texts(stamps), strict=True):
            if self._held >= self._part_bytes:
                self._append(batch)
                self._finish_part()
                batch = []
            batch.append(_stamped(line, stamp))
            self._records += 1
            self._held += len(batch[-1])
        self._append(batch)

    def close(self) -> list[Part]:
        """Finish the last file.

        Returns
        -------
        list of Part
            None if nothing was written.

        Raises
        ------
        OSError
            The file cannot be written; it is named, and closed.
        """
        if self._records:
            self._finish_part()
        return list(self._parts)

    @property
    def _path(self) -> Path:
        return self._folder / f"records-{len(self._parts):05d}.{self._format}"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Close the file and name it if it cannot be written."""
        try:
            yield
        except OSError as error:
            self._abandon()
            message = f"cannot write: {error.strerror or error}"
            raise OSError(error.errno, message, str(self._path)) from error

    def _append(self, lines: list[bytes]) -> None:
        if not lines:
            return
        with self._writing():
            if self._file is None:
                self._file = open(self._path, "wb")
                self._sink = self._file
                if self._format == "jsonl.zst":
                    self._sink = pa.CompressedOutputStream(pa.PythonFile(self._file, "w"), "zstd")
            self._sink.write(b"".join(lines))

    def _hold(self, records: Records, stamps: pa.StructArray) -> None:
        """Parquet: keep records until the part is full."""
        if isinstance(records, Lines):
            sizes = records.ends - records.starts
            records = list(records)
        else:
            sizes = np.full(len(records), records.nbytes / max(len(records), 1))
        ends = np.cumsum(sizes)
        start = 0
        while start < len(ends):
            room = self._part_bytes - self._held + (ends[start - 1] if start else 0)
            stop = min(int(np.searchsorted(ends, room)) + 1, len(ends))
            piece = records[start:stop] if isinstance(records, list) else records.slice(start, stop - start)
            self._pieces.append((piece, stamps.slice(start, stop - start)))
            self._records += stop - start
            self._held += int(ends[stop - 1] - (ends[start - 1] if start else 0))
            start = stop
            if self._held >= self._part_bytes:
                self._finish_part()

    def _finish_part(self) -> None:
        json_columns: tuple[str, ...] = ()
        with self._writing():
            if self._format == "parquet":
                table, json_columns = _table(self._pieces)
                with open(self._path, "wb") as file:
                    pq.write_table(table, file, compression="zstd", row_group_size=_ROW_GROUP)
            else:
                self._sink.close()
                self._file.close()
            size = self._path.stat().st_size
        self._parts.append(Part(self._path, self._records, size, json_columns))
        self._file = self._sink = None
        self._pieces = []
        self._records = self._held = 0

    def _abandon(self) -> None:
        """Close what is open, whatever state it is in."""
        for stream in (self._sink, self._file):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()
        self._file = self._sink = None
        self._pieces = []
        self._records = 0


def _stamps(provenance: list[dict] | pa.StructArray) -> pa.StructArray:
    """Bring provenance into the type that is written."""
    if isinstance(provenance, list):
        keys = list(map(list, provenance)) or [PROVENANCE.names]
    else:
        keys = [provenance.type.names]
    type_ = PROVENANCE_OF_PIECES if set(PIECE) <= set(keys[0]) else PROVENANCE
    wrong = next((given for given in keys if set(given) != set(type_.names)), None)
    if wrong is not None:
        raise ValueError(f"provenance has the keys {', '.join(wrong)}; expected {', '.join(type_.names)}")
    if isinstance(provenance, list):
        return pa.array(provenance, type_)
    columns = [provenance.field(field.name).cast(field.type) for field in type_]
    return pa.StructArray.from_arrays(columns, fields=list(type_))


def _stamp_texts(stamps: pa.StructArray) -> Iterator[bytes]:
    """Write provenance as JSON; floats by repr, so that they come back bit by bit; not finite: null."""
    names = stamps.type.names
    columns = [json_values(stamps.field(name)) for name in names]
    for values in zip(*columns, strict=True):
        yield dump_json(dict(zip(names, values, strict=True)))


def _stamped(line: bytes, stamp: bytes) -> bytes:
    """Add ``"_dsir"`` to a JSON object; a newline ends it."""
    line = line.rstrip(b" \t\r\n")
    if b'"_dsir"' in line or (b"\\u00" in line and _ESCAPED_NAME.search(line)):
        record = parse_record(line)
        if PROVENANCE_FIELD in record:
            del record[PROVENANCE_FIELD]
            line = dump_json(record)
    body = line[:-1]
    comma = b"" if body.strip(b" \t\r\n") == b"{" else b","
    return b"".join((body, comma, b'"_dsir":', stamp, b"}\n"))


def _table(pieces: list[tuple[Records | list[bytes], pa.StructArray]]) -> tuple[pa.Table, tuple[str, ...]]:
    """Put pieces into one table; a column without a common type becomes JSON text."""
    tables = []
    for records, _ in pieces:
        columns = _columns(records)
        columns.pop(PROVENANCE_FIELD, None)
        tables.append(columns)
    columns, json_columns = {}, []
    for name in dict.fromkeys(name for table in tables for name in table):
        arrays = [
            table.get(name, pa.nulls(len(stamps))) for table, (_, stamps) in zip(tables, pieces, strict=True)
        ]
        column = _unified(arrays)
        if column is None:
            json_columns.append(name)
            texts = [_json_texts(records, name) for records, _ in pieces]
            column = pa.chunked_array(texts, pa.string())
        columns[name] = column
    columns[PROVENANCE_FIELD] = pa.chunked_array([stamps for _, stamps in pieces])
    table = pa.table(columns)
    table = table.combine_chunks()
    if json_columns:
        table = table.replace_schema_metadata({JSON_COLUMNS_KEY: json.dumps(json_columns)})
    return table, tuple(json_columns)


def _columns(records: pa.RecordBatch | list[bytes]) -> dict[str, pa.Array | None]:
    """Return the columns of a piece; None for one that has no type in Arrow."""
    if isinstance(records, pa.RecordBatch):
        columns = zip(records.schema.names, records.columns, strict=True)
        return {n: c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for n, c in columns}
    parsed = [parse_record(line) for line in records]
    columns = {}
    for name in dict.fromkeys(name for record in parsed for name in record):
        try:
            columns[name] = pa.array([record.get(name) for record in parsed])
        except _CONFLICT:
            columns[name] = None
    return columns


def _unified(arrays: list[pa.Array | None]) -> pa.ChunkedArray | None:
    """Concatenate under a common type without losing a value; None if there is none."""
    if any(array is None for array in arrays):
        return None
    try:
        tables = [pa.table({"": array}) for array in arrays]
        column = pa.concat_tables(tables, promote_options="permissive").column(0)
    except _CONFLICT:
        return None
    return None if _has_empty_struct(column.type) else column


def _has_empty_struct(type_: pa.DataType) -> bool:
    """Tell whether Parquet cannot store the type."""
    if pa.types.is_struct(type_):
        return type_.num_fields == 0 or any(_has_empty_struct(field.type) for field in type_)
    return hasattr(type_, "value_type") and _has_empty_struct(type_.value_type)


def _json_texts(records: pa.RecordBatch | list[bytes], name: str) -> pa.Array:
    """Write a column as JSON text; null where a record has no such field."""
    if isinstance(records, pa.RecordBatch):
        found = name in records.schema.names
        values: Iterable = json_values(records.column(name)) if found else [None] * len(records)
    else:
        values = (parse_record(line).get(name) for line in records)
    return pa.array([None if v is None else dump_json(v).decode() for v in values], pa.string())
