"""Corpus files: finding shards, reading their texts, and giving the reason for every bad record.

What belongs here: file formats, compression, file systems, the choice of fields, refusing bad input. What does not:
tokens and counts (``dsir``), the catalog and the feature store, threads. Reading has two stages so that callers can
thread the second: :func:`read_blocks` is sequential and cheap, :meth:`Block.parse` is pure and may run in any thread,
in any order.

Modules: ``files`` (shards, stamps), ``opening`` (file systems, decompression), ``errors``, ``signatures`` (what first
bytes say), ``fields`` (what is taken from a record), ``lines`` (JSON Lines), ``scanner`` (ordinary ones, in compiled
code), ``layout`` (JSON that is not one value a line), ``tables`` (files with columns), ``parquet``, ``delimited``,
``custom`` (custom readers), ``jsontext`` (records as JSON text).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from dsir_dagster.resources.corpus.errors import CorpusError, NoFiles, StoreUnreachable, file_format
from dsir_dagster.resources.corpus.fields import RecordFields, Rejected, TextBatch, field_names
from dsir_dagster.resources.corpus.files import (
    FileInfo,
    Shard,
    content_stamp,
    discover,
    expand,
    file_exists,
    is_remote,
    is_still,
    stamp_of,
)
from dsir_dagster.resources.corpus.jsontext import UNPARSED_FIELD, json_values, parse_record
from dsir_dagster.resources.corpus.lines import BLANK_LINE, LineBlock, line_blocks
from dsir_dagster.resources.corpus.tables import TableBlock, table_blocks

if TYPE_CHECKING:
    from dsir_dagster.resources.settings import Reader

Block = LineBlock | TableBlock

__all__ = [
    "BLANK_LINE",
    "Block",
    "CorpusError",
    "FileInfo",
    "NoFiles",
    "Rejected",
    "Shard",
    "StoreUnreachable",
    "TextBatch",
    "content_stamp",
    "discover",
    "expand",
    "fields_of_file",
    "file_exists",
    "first_records",
    "is_remote",
    "is_still",
    "no_usable_row",
    "read_blocks",
    "stamp_of",
]


def read_blocks(
    uri: str,
    reader: Reader,
    block_bytes: int = 1 << 20,
    all_columns: bool = False,
    wanted: np.ndarray | None = None,
) -> Generator[Block]:
    """Read a file in blocks of about ``block_bytes``, in order.

    Decompresses and cuts at record boundaries; :meth:`Block.parse` extracts the texts. Rows, texts and rejections do
    not depend on ``block_bytes``. At most one block is held, or one record if that is longer.

    Parameters
    ----------
    uri : str
        Path or fsspec URI of one file.
    reader : Reader, RawSource or Target
        Names the fields, and the custom reader if there is one.
    block_bytes : int
        Decompressed bytes of a block.
    all_columns : bool
        Read columns that no field needs as well.
    wanted : ndarray of int64, optional
        Rows, ascending, that are all the caller looks at; what can be left out in this format is not read.

    Yields
    ------
    Block
        With a method ``parse() -> TextBatch``. A file of zero bytes (JSON Lines and CSV) yields none.

    Raises
    ------
    CorpusError
        The file is missing, cut off, damaged, of an unknown format, or lacks a column. If that shows after some blocks
        were yielded, they must not be used.
    """
    return _blocks(uri, reader, RecordFields.of(reader), block_bytes, all_columns, wanted)


def _blocks(
    uri: str,
    reader: Reader,
    fields: RecordFields,
    block_bytes: int,
    all_columns: bool,
    wanted: np.ndarray | None = None,
) -> Generator[Block]:
    if reader.reader is None and file_format(uri) == "jsonl":
        return line_blocks(uri, fields, block_bytes)
    return table_blocks(uri, reader, fields, block_bytes, all_columns, wanted)


def first_records(uri: str, reader: Reader, most: int = 20) -> list[object]:
    """Return the first records of a file as Python objects, whatever their fields; damaged lines are None."""
    records: list[object] = []
    for block in _blocks(uri, reader, RecordFields(()), 1 << 16, all_columns=True):
        if isinstance(block, LineBlock):
            records += map(_as_record, block.data[: 1 << 20].splitlines()[: most - len(records)])
        else:
            rows = block.batch.slice(0, most - len(records))
            columns = {name: json_values(rows.column(name)) for name in rows.schema.names}
            records += (
                dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
            )
        if len(records) >= most:
            break
    return records


def fields_of_file(uri: str, reader: Reader) -> list[str]:
    """Return the fields of a file's first records, dotted if nested; damaged records have none."""
    return list(dict.fromkeys(name for record in first_records(uri, reader) for name in field_names(record)))


def _as_record(line: bytes) -> object:
    try:
        record = parse_record(line)
    except UnicodeDecodeError:
        return None
    return None if UNPARSED_FIELD in record else record


def no_usable_row(
    uri: str, reader: Reader, reasons: Counter[str], called: str | None = None
) -> CorpusError | None:
    """Return the error for a file without a usable row; None for a file without records.

    Parameters
    ----------
    uri : str
    reader : Reader, RawSource or Target
    reasons : Counter of str
        Why rows cannot be used.
    called : str, optional
        What to call the file; the pattern, if it stands for several files.
    """
    reasons = Counter({reason: n for reason, n in reasons.items() if reason != BLANK_LINE})
    if not reasons:
        return None
    [(reason, n)] = reasons.most_common(1)
    fields = fields_of_file(uri, reader) if "field" in reason else []
    advice = "repair the file, or leave it out"
    if fields:
        advice = f"the records have: {', '.join(fields)}; set `text:` to one of them, or leave the file out"
    total = reasons.total()
    why = f": {reason}" if n == total else f", {n:,} because of this: {reason}"
    what = f"none of its {total:,} rows can" if total > 1 else "its only row cannot"
    return CorpusError(f"{called or uri}: {what} be used{why}; {advice}")
