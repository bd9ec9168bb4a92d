"""The files of a selection: chosen records, each with its provenance.

What belongs here: the formats of these files. What does not: reading the records (``resources/records.py``), which
records a file has (``assets/picking/writing.py``), its place (``resources/store.py``).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from dsir_dagster.resources.corpus.jsontext import dump_json, json_lines, json_values, parse_record
from dsir_dagster.resources.records import Lines, Records
from dsir_dagster.resources.stamps import StampedFile, open_new
from dsir_dagster.resources.store import PIECE

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
#: The same for selections that contain pieces; null in a whole record.
PROVENANCE_OF_PIECES = pa.struct([*PROVENANCE, *PIECE.items()])
PROVENANCE_FIELD = "_dsir"
JSON_COLUMNS_KEY = b"dsir_json_columns"

_ROW_GROUP = 1 << 16
_ESCAPED_NAME = re.compile(rb"\\u00(?:5[fF]|64|73|69|72)")  # an escaped character of "_dsir"
_CONFLICT = (
    pa.ArrowException,
    OverflowError,
    UnicodeEncodeError,
)  # values of different types, or outside of Arrow's types


class RecordWriter:
    """Write records to one file; a context manager.

    The same calls give the same bytes. JSON Lines records keep their bytes and get ``"_dsir"`` as the last key; Parquet
    gets ``_dsir`` as a struct column. A ``_dsir`` that a record already has is replaced.

    Parameters
    ----------
    path : Path
        The file, in an existing folder.
    format : {"jsonl", "jsonl.zst", "parquet"}
        Parquet holds all records in memory.

    Attributes
    ----------
    json_columns : tuple of str
        Parquet, once closed: columns that hold JSON text because their values have no common type.
    """

    def __init__(self, path: Path, format: Literal["jsonl", "jsonl.zst", "parquet"]):
        self._path = path
        self._format = format
        self._file: StampedFile | None = None
        self._sink: StampedFile | pa.NativeFile | None = None  # what compresses into the file, or the file
        self._pieces: list[tuple[Records | list[bytes], pa.StructArray]] = []
        self.json_columns: tuple[str, ...] = ()

    def __enter__(self) -> RecordWriter:
        with self._writing():
            self._file = self._sink = open_new(self._path)
            if self._format == "jsonl.zst":
                self._sink = pa.CompressedOutputStream(pa.PythonFile(self._file, "w"), "zstd")
        return self

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            self._finish()
        else:
            self._abandon()

    def write(self, records: Records, provenance: list[dict] | pa.StructArray) -> None:
        """Append records.

        Parameters
        ----------
        records : Lines or pa.RecordBatch
            n records.
        provenance : list of dict or pa.StructArray, length n
            log_weight, key, rank, epoch, target, shard, row and version of each record; in all calls or in none, also
            record, begin_byte and end_byte, null if the record is whole.

        Raises
        ------
        ValueError
            Wrong keys, or not one row for each record.
        OSError
            The file cannot be written; it is named, and closed.
        """
        objects = provenance_rows(provenance)
        if len(objects) != len(records):
            raise ValueError(f"{len(records)} records but {len(objects)} rows of provenance")
        if self._format == "parquet":
            self._pieces.append((list(records) if isinstance(records, Lines) else records, objects))
            return
        lines = records if isinstance(records, Lines) else json_lines(records, PROVENANCE_FIELD)
        texts = provenance_texts(objects)
        with self._writing():
            self._opened.write(
                b"".join(_with_provenance(line, text) for line, text in zip(lines, texts, strict=True))
            )

    @property
    def _opened(self) -> StampedFile | pa.NativeFile:
        if self._sink is None:
            raise ValueError(f"{self._path}: not open")
        return self._sink

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Close the file and name it in the error if it cannot be written."""
        try:
            yield
        except OSError as error:
            self._abandon()
            message = f"cannot write: {error.strerror or error}"
            raise OSError(error.errno, message, str(self._path)) from error

    def _finish(self) -> None:
        with self._writing():
            if self._format == "parquet":
                table, self.json_columns = _table(self._pieces)
                pq.write_table(table, self._opened, compression="zstd", row_group_size=_ROW_GROUP)
            for stream in (self._sink, self._file):
                if stream is not None:
                    stream.close()

    def _abandon(self) -> None:
        """Close what is open, whatever state it is in."""
        for stream in (self._sink, self._file):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()
        self._file = self._sink = None
        self._pieces = []


def provenance_rows(provenance: list[dict] | pa.StructArray) -> pa.StructArray:
    """Convert provenance to the type that is written."""
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
    given = {field.name: provenance.field(field.name) for field in type_}
    columns = [
        given[field.name] if given[field.name].type == field.type else given[field.name].cast(field.type)
        for field in type_
    ]
    return pa.StructArray.from_arrays(columns, fields=list(type_))


def provenance_texts(objects: pa.StructArray) -> list[bytes]:
    """Write provenance as JSON. Floats are written by repr, so they come back bit by bit; NaN and infinity are null."""
    if not len(objects):
        return []
    names = objects.type.names
    form = b"{%b}" % b",".join(dump_json(name) + b":%b" for name in names)
    columns = (_texts_of_values(objects.field(name)) for name in names)
    return [form % values for values in zip(*columns, strict=True)]


def _texts_of_values(column: pa.Array) -> list[bytes]:
    """Write each value of a column of numbers, or of strings of which few differ, as JSON."""
    if not pa.types.is_string(column.type):
        return dump_json(json_values(column))[1:-1].split(b",")
    coded = column.dictionary_encode("encode")
    texts = list(map(dump_json, json_values(coded.dictionary)))
    return [texts[i] for i in coded.indices.to_pylist()]


def _with_provenance(line: bytes, text: bytes) -> bytes:
    """Add ``"_dsir"`` and a newline to a JSON object."""
    line = line.rstrip(b" \t\r\n")
    if b'"_dsir"' in line or (b"\\u00" in line and _ESCAPED_NAME.search(line)):
        record = parse_record(line)
        if PROVENANCE_FIELD in record:
            del record[PROVENANCE_FIELD]
            line = dump_json(record)
    body = line[:-1]
    comma = b"" if body.strip(b" \t\r\n") == b"{" else b","
    return b"".join((body, comma, b'"_dsir":', text, b"}\n"))


def _table(pieces: list[tuple[Records | list[bytes], pa.StructArray]]) -> tuple[pa.Table, tuple[str, ...]]:
    """Join pieces into one table; a column without a common type becomes JSON text."""
    tables = []
    for records, _ in pieces:
        columns = _columns(records)
        columns.pop(PROVENANCE_FIELD, None)
        tables.append(columns)
    columns, json_columns = {}, []
    for name in dict.fromkeys(name for table in tables for name in table):
        arrays = [
            table.get(name, pa.nulls(len(objects)))
            for table, (_, objects) in zip(tables, pieces, strict=True)
        ]
        column = _unified(arrays)
        if column is None:
            json_columns.append(name)
            texts = [_json_texts(records, name) for records, _ in pieces]
            column = pa.chunked_array(texts, pa.string())
        columns[name] = column
    columns[PROVENANCE_FIELD] = pa.chunked_array([objects for _, objects in pieces])
    table = pa.table(columns)
    table = table.combine_chunks()
    if json_columns:
        table = table.replace_schema_metadata({JSON_COLUMNS_KEY: json.dumps(json_columns)})
    return table, tuple(json_columns)


def _columns(records: pa.RecordBatch | list[bytes]) -> dict[str, pa.Array | None]:
    """Return the columns of a piece; None for a column without a type in Arrow."""
    if isinstance(records, pa.RecordBatch):
        given = zip(records.schema.names, records.columns, strict=True)
        return {n: c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for n, c in given}
    parsed = [parse_record(line) for line in records]
    columns: dict[str, pa.Array | None] = {}
    for name in dict.fromkeys(name for record in parsed for name in record):
        try:
            columns[name] = pa.array([record.get(name) for record in parsed])
        except _CONFLICT:
            columns[name] = None
    return columns


def _unified(arrays: list[pa.Array | None]) -> pa.ChunkedArray | None:
    """Concatenate under a common type that loses no value; None if there is none."""
    if any(array is None for array in arrays):
        return None
    try:
        tables = [pa.table({"": array}) for array in arrays]
        column = pa.concat_tables(tables, promote_options="permissive").column(0)
    except _CONFLICT:
        return None
    return None if _has_empty_struct(column.type) else column


def _has_empty_struct(type_: pa.DataType) -> bool:
    """Return whether Parquet cannot store the type."""
    if pa.types.is_struct(type_):
        return type_.num_fields == 0 or any(_has_empty_struct(field.type) for field in type_)
    return hasattr(type_, "value_type") and _has_empty_struct(type_.value_type)


def _json_texts(records: pa.RecordBatch | list[bytes], name: str) -> pa.Array:
    """Write a column as JSON text; null if a record has no such field."""
    if isinstance(records, pa.RecordBatch):
        found = name in records.schema.names
        values: Iterable = json_values(records.column(name)) if found else [None] * len(records)
    else:
        values = (parse_record(line).get(name) for line in records)
    return pa.array([None if v is None else dump_json(v).decode() for v in values], pa.string())
