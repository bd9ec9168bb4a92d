"""Formats with columns: Parquet, Arrow IPC, CSV, and the batches of custom readers.

What belongs here: turning such files into record batches with row numbers, and a batch into texts. What does not: which
parts of a Parquet file are read (``parquet``), parsing CSV (``delimited``), JSON Lines (``lines``), the meaning of
fields (``fields``), finding a custom reader (``custom``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
from fsspec.implementations.local import LocalFileSystem

from dsir_dagster.resources.corpus.custom import custom_batches
from dsir_dagster.resources.corpus.delimited import delimited_rows
from dsir_dagster.resources.corpus.errors import CorpusError, cat, corpus_errors, file_format
from dsir_dagster.resources.corpus.fields import (
    INVALID_UTF8,
    Located,
    ReadRows,
    RecordFields,
    Rejected,
    TextBatch,
    as_strings,
    excerpt,
    is_list,
    is_utf8,
    put,
    text_bytes,
    without_views,
)
from dsir_dagster.resources.corpus.opening import (
    ahead,
    file_system,
    open_binary,
    read_so_far,
)
from dsir_dagster.resources.corpus.parquet import open_parquet, parquet_batches
from dsir_dagster.resources.corpus.signatures import ARROW, PARQUET, container

if TYPE_CHECKING:
    from dsir_dagster.resources.settings import Reader

_MAX_ROWS = 1 << 16
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


@dataclass
class TableBlock:
    """Consecutive records of a file with columns.

    Attributes
    ----------
    uri : str
    fields : RecordFields
    rows : ndarray of int64, shape (n,)
        0-based record numbers.
    batch : pa.RecordBatch
        n rows, with at least the columns that the fields need.
    rejected : list of Rejected
        Records between them that do not fit the columns.
    one_text : bool
        Whether a record is one text (CSV), and is refused if any of its columns is not UTF-8.
    read : int
        Bytes of the file that were read by then, for progress; 0 if not known.
    """

    uri: str
    fields: RecordFields
    rows: np.ndarray
    batch: pa.RecordBatch
    rejected: list[Rejected] = field(default_factory=list)
    one_text: bool = False
    read: int = 0

    @property
    def end(self) -> int:
        """The row after its last, usable or not."""
        last = [int(self.rows[-1])] if len(self.rows) else []
        return max([*last, *(each.row for each in self.rejected)], default=-1) + 1

    def parse(self) -> TextBatch:
        """Extract the texts; pure, thread-safe, mostly without the GIL.

        Raises
        ------
        CorpusError
            A column is missing, has another type or is damaged.
        """
        fields, batch = self.fields, self.batch
        texts, bad = fields.texts_of([_column(batch, name) for name in fields.text], len(batch))
        nothing = Located(pa.nulls(len(batch)))
        ids, sources = (
            (_column(batch, name) or nothing).names() if name else None for name in (fields.id, fields.source)
        )
        for column in (texts, *(batch.columns if self.one_text else ())):
            if column.type in (pa.string(), pa.large_string()):
                bad.update((i, INVALID_UTF8) for i in self._invalid(column))
        rejected = [
            Rejected(int(self.rows[i]), reason, excerpt(pc.cast(texts[i], pa.large_binary()).as_py() or b""))
            for i, reason in bad.items()
        ]
        rejected = sorted([*self.rejected, *rejected], key=lambda item: item.row)
        rows = self.rows
        if bad:
            keep = np.ones(len(rows), bool)
            keep[list(bad)] = False
            rows, mask = rows[keep], pa.array(keep)
            texts, ids, sources = (c if c is None else c.filter(mask) for c in (texts, ids, sources))
        return TextBatch(rows, texts, ids, sources, rejected, text_bytes(texts))

    def _invalid(self, column: pa.Array) -> list[int]:
        """Return the positions of strings that are not UTF-8."""
        if is_utf8(column):
            return []
        binary = column.view(pa.large_binary() if column.type == pa.large_string() else pa.binary())
        with corpus_errors(self.uri):
            binary.validate(full=True)
        invalid = []
        for i, value in enumerate(binary.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                invalid.append(i)
        return invalid


def table_blocks(
    uri: str,
    reader: Reader,
    fields: RecordFields,
    block_bytes: int,
    all_columns: bool = False,
    wanted: np.ndarray | None = None,
) -> Generator[TableBlock]:
    """Read a file with columns.

    Parameters
    ----------
    uri : str
        A Parquet, Arrow IPC or CSV file, or any file that the custom reader takes.
    reader : Reader, RawSource or Target
        Names the custom reader, if there is one.
    fields : RecordFields
        The columns that are needed.
    block_bytes : int
        Approximate bytes of a block.
    all_columns : bool
        Read columns that no field needs as well.
    wanted : ndarray of int64, optional
        Rows, ascending: row groups of a Parquet file that have none of them are not read.

    Raises
    ------
    CorpusError
        The file is missing, damaged or of an unknown format, or lacks a column.
    """
    kind = None
    if reader.reader is not None:
        batches = custom_batches(uri, reader.reader, reader.folder)
        blocks = _numbered((batch, 0) for batch in batches)
    else:
        kind = file_format(uri)
        if kind in _DELIMITERS:
            blocks = delimited_rows(uri, _DELIMITERS[kind], block_bytes)
        else:
            roots = None if all_columns else fields
            if kind == "parquet":
                blocks = _parquet(uri, roots, block_bytes, wanted)
            else:
                blocks = _numbered(_ipc(uri, roots, block_bytes))
    schema = None
    with corpus_errors(uri):
        for rows, batch, rejected, n_read in blocks:
            if schema is None or not batch.schema.equals(schema):
                schema = batch.schema
                _check_schema(uri, schema, fields)
            yield TableBlock(uri, fields, rows, _without_views(batch), rejected, kind == "csv", n_read)


def _numbered(batches: Iterator[tuple[pa.RecordBatch, int]], row: int = 0) -> Iterator[ReadRows]:
    """Number the rows of batches that follow each other, from the first one's on."""
    for batch, read in batches:
        if batch.num_rows:
            yield np.arange(row, row + batch.num_rows, dtype=np.int64), batch, [], read
            row += batch.num_rows


def _parquet(
    uri: str, fields: RecordFields | None, block_bytes: int, wanted: np.ndarray | None
) -> Iterator[ReadRows]:
    with open_binary(uri) as stream:
        _expect(uri, stream, PARQUET)
        with open_parquet(stream) as file:
            columns = None
            if fields is not None:
                _check_schema(uri, file.schema_arrow, fields)
                columns = _roots(file.schema_arrow, fields)
            n_rows = file.metadata.num_rows
            for row, batches in parquet_batches(file, stream, columns, block_bytes, _MAX_ROWS, wanted):
                for found, batch, rejected, _ in _numbered(((batch, 0) for batch in batches), row):
                    yield found, batch, rejected, stream.size() * (int(found[-1]) + 1) // n_rows


def _ipc(uri: str, fields: RecordFields | None, block_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    with contextlib.ExitStack() as stack:
        filesystem, path = file_system(uri)
        if isinstance(filesystem, LocalFileSystem):
            stream = stack.enter_context(pa.memory_map(os.fsencode(path)))
        else:
            stream = ahead(stack.enter_context(open_binary(uri)))
        _expect(uri, stream, ARROW)
        open_ = pa.ipc.open_file if stream.read(6) == b"ARROW1" else _open_ipc_stream
        stream.seek(0)
        options = None
        if fields is not None:
            schema = stack.enter_context(open_(stream)).schema
            _check_schema(uri, schema, fields)
            included = [schema.get_field_index(name) for name in _roots(schema, fields)]
            options = pa.ipc.IpcReadOptions(included_fields=included)
            stream.seek(0)
        reader = stack.enter_context(open_(stream, options=options))
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            n, bytes_ = reader.num_record_batches, stream.size()
            batches = ((reader.get_batch(i), bytes_ * (i + 1) // n) for i in range(n))
        else:
            batches = ((batch, read_so_far(stream)) for batch in reader)
        for batch, read in batches:
            batch.validate()
            step = max(block_bytes * batch.num_rows // max(batch.get_total_buffer_size(), 1), 1)
            for start in range(0, batch.num_rows, min(step, _MAX_ROWS)):
                yield batch.slice(start, min(step, _MAX_ROWS)), read


def _expect(uri: str, stream: pa.NativeFile, kind: str) -> None:
    """Refuse a file that is recognized as something else; leave an unknown one to its reader."""
    head = stream.read(64)
    stream.seek(0)
    found = "JSON text" if head.lstrip()[:1] in (b"{", b"[") else container(head)
    if found not in (None, kind):
        raise CorpusError(
            f"{uri}: by its first bytes this is {found}, by its suffix {kind}; rename it, or write it as its "
            "suffix says"
        )


def _open_ipc_stream(stream: pa.NativeFile, options=None) -> pa.ipc.RecordBatchStreamReader:
    """Open an IPC stream; check its end marker, since nothing else shows that it was cut between two batches."""
    size = stream.size()
    stream.seek(max(size - len(_END_OF_STREAM), 0))
    if stream.read() != _END_OF_STREAM:
        raise OSError("neither an Arrow IPC file nor a complete Arrow IPC stream (no end-of-stream marker)")
    stream.seek(0)
    return pa.ipc.open_stream(stream, options=options)


def _roots(schema: pa.Schema, fields: RecordFields) -> list[str]:
    """Return the top-level columns of the fields."""
    roots = (_path(schema, name) for name in fields.names)
    return list(dict.fromkeys(path[0] for path in roots if path))


def _path(schema: pa.Schema, name: str) -> list[str] | None:
    """Return the path to a field: nested if there is such a path, else a column spelled like it.

    Failing both, a path through a text column is accepted: the text may be JSON.
    """
    path = name.split(".")
    node: pa.Schema | pa.DataType = schema
    for part in path:
        if not isinstance(node, pa.Schema):
            node = _of_elements(node)
            if not pa.types.is_struct(node):
                break
        if node.get_field_index(part) < 0:
            return [name] if name in schema.names else None
        node = node.field(part).type
    else:
        return path
    if name in schema.names:
        return [name]
    return path if _is_text(node) else None


def _of_elements(type_: pa.DataType) -> pa.DataType:
    """Return the innermost element type of a list; any other type unchanged."""
    while is_list(type_):
        type_ = type_.value_type
    return type_


def _is_text(type_: pa.DataType) -> bool:
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return as_strings(pa.array([], type_)) is not None


def _column(batch: pa.RecordBatch, name: str) -> Located | None:
    """Find a field; None if there is no column for it."""
    path = _path(batch.schema, name)
    if path is None:
        return None
    column = batch.column(path[0])
    for depth, part in enumerate(path[1:], 1):
        if not pa.types.is_struct(column.type):
            return Located(column, tuple(path[depth:]))
        column = pc.struct_field(column, part)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return Located(column)


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = [without_views(column) for column in batch.columns]
    if all(new is old for new, old in zip(columns, batch.columns, strict=True)):
        return batch
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def replace_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """Replace the column of a field; a list gets one element."""

    def replaced(node: pa.Array, path: list[str]) -> pa.Array:
        if not path:
            return column
        if is_list(node.type):
            return pa.ListArray.from_arrays(pa.array(range(len(node) + 1), pa.int32()), nested(path))
        if not pa.types.is_struct(node.type):  # JSON
            return pa.array(
                map(_put_in, node.to_pylist(), [path] * len(node), column.to_pylist()), pa.string()
            )
        children, names = node.flatten(), [field.name for field in node.type]
        at = node.type.get_field_index(path[0])
        children[at] = replaced(children[at], path[1:])
        return pa.StructArray.from_arrays(children, names=names, mask=node.is_null())

    def nested(path: list[str]) -> pa.Array:
        return pa.StructArray.from_arrays([nested(path[1:])], names=path[:1]) if path else column

    found = _path(batch.schema, name)
    if found is None:
        raise ValueError(f"there is no column for the field '{name}'")
    top, *path = found
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns[top] = replaced(columns[top], path)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _put_in(text: str | None, path: list[str], value: str | None) -> str | None:
    """Put a value into a text of JSON; leave any other text unchanged."""
    record = {"": text}
    put(record, ".".join(["", *path]), value or "")
    return record[""]


def _check_schema(uri: str, schema: pa.Schema, fields: RecordFields) -> None:
    """Refuse a file without the columns that the configuration expects."""
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise CorpusError(f"{uri}: columns named twice: {', '.join(sorted(twice))}; rename one of each")
    if not fields.text:  # someone wants to know what there is
        if convert := _other_delimiter(uri, schema):
            raise CorpusError(f"{uri}: {convert}")
        return
    if not any(_path(schema, name) for name in fields.text):
        names = " or ".join(f"'{name}'" for name in fields.text)
        columns = f"the columns are: {', '.join(schema.names)}; set `text:` to one of them"
        raise CorpusError(f"{uri}: no column {names}; {_other_delimiter(uri, schema) or columns}")
    for name in fields.text:
        path = _path(schema, name)
        if path is None:
            continue
        node: pa.Schema | pa.DataType = schema
        for part in path:
            node = node if isinstance(node, pa.Schema) else _of_elements(node)
            if not isinstance(node, pa.Schema) and not pa.types.is_struct(node):
                break  # a text that may be JSON
            node = node.field(part).type
        elements = _of_elements(node)
        if pa.types.is_struct(elements):
            such = [f"'{name}.{field.name}'" for field in elements]
            raise CorpusError(
                f"{uri}: the text column '{name}' holds {'lists of ' if is_list(node) else ''}objects, expected "
                f"strings; name a field of theirs under `text:`: {', '.join(such)}"
            )
        if not _is_text(elements):
            raise CorpusError(
                f"{uri}: the text column '{name}' has the type {node}, expected string; name another "
                "column under `text:`, or convert the file"
            )


def _other_delimiter(uri: str, schema: pa.Schema) -> str | None:
    """Name the likely delimiter of a CSV file with a single column, and the command to convert it."""
    header = schema.names[0] if len(schema.names) == 1 else ""
    found = next((c for c in ";\t|," if c in header), None)
    if found is None or file_format(uri) not in _DELIMITERS:
        return None
    called = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}[found]
    convert = f"import csv, sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter={found!r}))"
    return (
        f'its header is delimited by {called}: convert it with `{cat(uri)} | python -c "{convert}" > new.csv`'
    )
