"""JSON Lines: cutting a stream into blocks of whole lines, and parsing a block.

What belongs here: one JSON object a line. What does not: the meaning of fields (``fields``), other layouts of JSON
(``layout`` turns them into lines), formats with columns (``tables``).

Three parsers give the same result. Compiled code (``scanner``) reads a block in which every line is an ordinary object;
Arrow reads one if every line demonstrably holds one good record; otherwise the standard library parses it line by line
and gives every bad line its reason. A line that only Arrow accepts (``Inf``, integers of more than 4,300 digits,
nesting deeper than Python's recursion limit) is accepted on its own as well.
"""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from dsir_dagster.resources import wording
from dsir_dagster.resources.corpus.errors import CorpusError, cat, corpus_errors
from dsir_dagster.resources.corpus.fields import (
    INVALID_UTF8,
    BadRecord,
    Located,
    RecordFields,
    Rejected,
    TextBatch,
    excerpt,
    is_utf8,
    text_bytes,
    whole_numbers,
)
from dsir_dagster.resources.corpus.layout import layout, one_a_line
from dsir_dagster.resources.corpus.opening import open_text, read_so_far
from dsir_dagster.resources.corpus.signatures import HEAD

MAX_LINE_BYTES = 1 << 30
LONG_LINE = "longer than 1 GiB"
BLANK_LINE = "blank line"
SEVERAL = "several JSON values on one line, expected one object (`jq -c .` writes each on a line of its own)"

_BOM = b"\xef\xbb\xbf"
_NEWLINE, _RETURN, _OPEN, _CLOSE = b"\n\r{}"


@dataclass
class LineBlock:
    """Whole lines of a file.

    Attributes
    ----------
    uri : str
    fields : RecordFields
    row : int
        0-based number of the first line.
    count : int
        Number of lines.
    data : bytes
        The lines; the last one of a file may lack its newline. For a line that was too long to hold, its beginning.
    skipped : bool
        Whether the block stands for one line that was too long.
    alone : bool
        Whether this is the only line of the file.
    read : int
        Bytes of the file that were read by then, for progress; 0 if not known.
    """

    uri: str
    fields: RecordFields
    row: int
    count: int
    data: bytes
    skipped: bool = False
    alone: bool = False
    read: int = 0

    @property
    def end(self) -> int:
        """The row after its last."""
        return self.row + self.count

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where lines start and end (at their newline), int64[count] each."""
        ends = np.flatnonzero(np.frombuffer(self.data, np.uint8) == _NEWLINE)
        if not self.data.endswith(b"\n"):
            ends = np.append(ends, len(self.data))
        starts = np.empty_like(ends)
        starts[0] = 0
        starts[1:] = ends[:-1] + 1
        return starts, ends

    def parse(self) -> TextBatch:
        """Extract the texts; pure, thread-safe, mostly without the GIL.

        Raises
        ------
        CorpusError
            The file is a single value that is not a record but holds records.
        """
        if self.skipped:
            return parse_lines([(self.row, None)], self.fields, excerpt(self.data))
        columns = _scanned_columns(self.data, self.count, self.fields)
        if columns is None:
            starts, ends = self.bounds()
            if int((ends - starts).max()) <= MAX_LINE_BYTES:
                columns = _arrow_columns(self.data, starts, ends, self.fields)
        if columns is None:
            view = memoryview(self.data)
            bounds = zip(starts.tolist(), ends.tolist(), strict=True)
            batch = parse_lines(((self.row + i, view[s:e]) for i, (s, e) in enumerate(bounds)), self.fields)
            if self.alone and batch.rejected:
                self._refuse_whole(batch.rejected[0].reason)
            return batch
        texts, ids, sources = columns
        rows = np.arange(self.row, self.row + self.count, dtype=np.int64)
        return TextBatch(rows, texts, ids, sources, [], text_bytes(texts))

    def _refuse_whole(self, reason: str) -> None:
        """Refuse a file whose single value holds records, with the command that writes them one a line."""
        if reason == SEVERAL:
            within, select = "several JSON values on one line", "."
        else:
            key = _list_of_objects(self.data) if reason.startswith("no") else None  # the field is not there
            if key is None:
                return
            within = f"one JSON object ({reason}), with a list of objects under '{key}'"
            select = f".[{json.dumps(key)}][]"
        raise CorpusError(
            f"{self.uri}: the file is {within}; expected one object a line, or one array of objects: "
            f"`{cat(self.uri)} | jq -c {shlex.quote(select)} > new.jsonl` writes them so"
        )


def line_blocks(uri: str, fields: RecordFields, block_bytes: int) -> Generator[LineBlock]:
    """Decompress a file and cut it into blocks of whole lines, of one JSON value each.

    Parameters
    ----------
    uri : str
        A file of JSON: one object a line, one array of objects, or objects over several lines.
    fields : RecordFields
        Passed on to the blocks.
    block_bytes : int
        Bytes to read at a time. A block with a longer line is longer, up to ``MAX_LINE_BYTES``.

    Raises
    ------
    CorpusError
        The file is missing, cut off or damaged.
    """
    row = 0
    with corpus_errors(uri), open_text(uri) as (stream, file):
        blocks = _whole_lines(_chunks(uri, stream, block_bytes))
        following = next(blocks, None)
        while following is not None:
            data, skipped = following
            count = int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))
            count = 1 if skipped else count + (not data.endswith(b"\n"))
            single = row == 0 and count == 1
            following = next(blocks, None) if single else None
            alone = single and following is None
            yield LineBlock(uri, fields, row, count, data, skipped, alone, read_so_far(file))
            following = following if single else next(blocks, None)
            row += count


def _chunks(uri: str, stream: pa.NativeFile, block_bytes: int) -> Iterator[bytes]:
    """Read a file as one value a line; ``block_bytes`` has no influence on which layout is recognized."""
    parts, held = [], 0
    while held < HEAD and (part := stream.read(max(HEAD - held, block_bytes))):
        parts.append(part)
        held += len(part)
    head = b"".join(parts).removeprefix(_BOM)

    def chunks() -> Iterator[bytes]:
        yield from (head[start : start + block_bytes] for start in range(0, len(head), block_bytes))
        while chunk := stream.read(block_bytes):
            yield chunk

    how = layout(head[:HEAD])
    return chunks() if how == "lines" else one_a_line(uri, chunks(), how == "array")


def _whole_lines(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield bytes that end at a newline or at the end of the stream, and whether they begin a skipped line."""
    pending: list[bytes] = []  # the beginning of a line, without a newline
    held = 0
    skipping = False
    for chunk in chunks:
        if skipping:
            first = chunk.find(b"\n") + 1
            if not first:
                continue
            yield pending[0], True
            pending, held, skipping, chunk = [], 0, False, chunk[first:]
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield b"".join([*pending, memoryview(chunk)[:cut]]), False
            pending, held = [], 0
        if cut < len(chunk):
            pending.append(chunk[cut:])
            held += len(chunk) - cut
        if held > MAX_LINE_BYTES:
            pending, skipping = [b"".join(part[:4096] for part in pending[:4096])[:4096]], True
    if pending:
        yield b"".join(pending), skipping


def _scanned_columns(
    data: bytes, count: int, fields: RecordFields
) -> tuple[pa.Array, pa.Array | None, pa.Array | None] | None:
    """Parse lines in compiled code; None unless all are ordinary, and the fields are keys of theirs.

    None for very long ones as well: this takes several times their memory.
    """
    text = fields.text[0]
    distinct = len(fields.text) == 1 and text not in (fields.id, fields.source)
    if not distinct or any("." in name for name in fields.names) or len(data) > MAX_LINE_BYTES // 16:
        return None
    if not _is_utf8(data):
        return None
    # Numba takes long to import, and most commands read nothing.
    from dsir_dagster.resources.corpus.scanner import scan

    columns = scan(data, count, fields.names)
    if columns is None:
        return None
    found = dict(zip(fields.names, columns, strict=True))
    return found[text], *(found[name] if name else None for name in (fields.id, fields.source))


def _is_utf8(data: bytes) -> bool:
    offsets = np.array([0, len(data)], np.int32)
    return is_utf8(pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(data)))


def _arrow_columns(
    data: bytes, starts: np.ndarray, ends: np.ndarray, fields: RecordFields
) -> tuple[pa.Array, pa.Array | None, pa.Array | None] | None:
    """Parse lines with Arrow; None unless each line certainly is one good record.

    A line that starts with ``{`` and ends with ``}`` starts and ends outside of any object: only ``,``, ``]`` or ``}``
    could continue an open one at its end. So each line holds at least one object, and if there are as many objects as
    lines, each holds one.
    """
    octets = np.frombuffer(data, np.uint8)
    last = octets[ends - 1]
    if (last == _RETURN).any():
        last = np.where(last == _RETURN, octets[ends - 2], last)
    if (ends - starts).min() < 2 or (octets[starts] != _OPEN).any() or (last != _CLOSE).any():
        return None
    if not _is_utf8(data):
        return None
    options = pa.json.ReadOptions(use_threads=False, block_size=min(len(data) + 16, 2**31 - 1))
    numbers: dict[str, pa.DataType] = {}  # ids and sources that are numbers; strings are tried first
    while (schema := _schema(fields, tuple(numbers.items()))) is not None:
        try:
            table = pa.json.read_json(
                pa.BufferReader(data),
                read_options=options,
                parse_options=pa.json.ParseOptions(
                    explicit_schema=schema, unexpected_field_behavior="ignore"
                ),
            )
        except pa.ArrowInvalid as error:
            if not _are_numbers(error, fields, numbers):
                return None  # a bad line, or ids of several types
            continue
        if table.num_rows != len(ends):
            return None
        columns = {name: _column(table, name) for name in fields.names}
        if any(c.type == pa.float64() and whole_numbers(c) is None for c in columns.values()):
            return None  # an integer may have lost digits
        texts, missing = fields.texts_of([Located(columns[name]) for name in fields.text], len(ends))
        if missing:
            return None
        ids, sources = (
            Located(columns[name]).names() if name else None for name in (fields.id, fields.source)
        )
        return texts, ids, sources
    return None


def _are_numbers(error: pa.ArrowInvalid, fields: RecordFields, numbers: dict[str, pa.DataType]) -> bool:
    """Learn from Arrow's error which fields hold numbers; False if it does not tell."""
    if found := wording.NUMBER_FOR_STRING.match(error):
        name = found[1].replace("/", ".")
        if name in (fields.id, fields.source) and name not in (*fields.text, *numbers):
            numbers[name] = pa.int64()
            return True
    elif wording.NO_INTEGER(error) and pa.int64() in numbers.values():
        numbers.update(dict.fromkeys(numbers, pa.float64()))
        return True
    return False


@functools.cache
def _schema(fields: RecordFields, numbers: tuple[tuple[str, pa.DataType], ...]) -> pa.Schema | None:
    """Return the schema to parse the fields with; None if they contradict each other."""
    types, tree = dict(numbers), dict[str, Any]()
    for name in fields.names:
        type_ = types.get(name, pa.string())
        *parents, leaf = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                return None
        if leaf in node:
            return None
        node[leaf] = type_
        if parents:
            tree[name] = type_
    return pa.schema(_struct(tree))


def _struct(tree: dict) -> list[pa.Field]:
    return [
        pa.field(name, pa.struct(_struct(node)) if isinstance(node, dict) else node)
        for name, node in tree.items()
    ]


def _column(table: pa.Table, name: str) -> pa.Array:
    """Return the column of a field, parsed with :func:`_schema`."""
    top, *parts = name.split(".")
    column = table.column(top).combine_chunks()
    if not parts:
        return column
    return pc.coalesce(pc.struct_field(column, parts), table.column(name).combine_chunks())


def parse_lines(
    lines: Iterable[tuple[int, bytes | memoryview | None]], fields: RecordFields, skipped_excerpt: str = ""
) -> TextBatch:
    """Parse pairs of row and line (without its newline) one by one; a line of None was too long to hold."""
    rows: list[int] = []
    found: list[tuple[str, str | None, str | None]] = []
    rejected: list[Rejected] = []
    for row, line in lines:
        try:
            if line is None or len(line) > MAX_LINE_BYTES:
                raise BadRecord(LONG_LINE)
            found.append(_parse_line(bytes(line), fields))
            rows.append(row)
        except BadRecord as error:
            rejected.append(Rejected(row, str(error), skipped_excerpt if line is None else excerpt(line)))
    columns = list(zip(*found, strict=True)) or [(), (), ()]
    texts, ids, sources = (pa.array(column, pa.string()) for column in columns)
    return TextBatch(
        np.array(rows, np.int64),
        texts,
        ids if fields.id else None,
        sources if fields.source else None,
        rejected,
        text_bytes(texts),
    )


def _parse_line(line: bytes, fields: RecordFields) -> tuple[str, str | None, str | None]:
    """Parse one line with the standard library."""
    if not line.strip(b" \t\r"):
        raise BadRecord(BLANK_LINE)
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        raise BadRecord(INVALID_UTF8) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and wording.SEVERAL_JSON_VALUES(error):
            if error.doc.lstrip()[0] == "{" == error.doc[error.pos]:
                raise BadRecord(SEVERAL) from None
        columns = _arrow_columns(line, np.array([0]), np.array([len(line)]), fields)
        if columns is None:
            raise BadRecord("not JSON") from None
        texts, *others = columns
        id_, source = (column if column is None else column[0].as_py() for column in others)
        return texts[0].as_py(), id_, source
    if not isinstance(record, dict):
        raise BadRecord("not a JSON object")
    return fields.extract(record)


def _list_of_objects(line: bytes) -> str | None:
    """Return the key of an object that has a list of objects."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    lists = record.items() if isinstance(record, dict) else ()
    return next((k for k, v in lists if isinstance(v, list) and v[:1] and isinstance(v[0], dict)), None)
