"""Chosen records, read again from the corpus.

What belongs here: original records with all their fields, their text whole or cut down to a piece, and the check that
it is the text that was counted. What does not: texts of whole files (``resources/corpus``), choosing records
(``dsir``), writing them (``resources/record_writer.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa

from dsir.features import hash_strings
from dsir_dagster.resources.corpus import CorpusError, read_blocks
from dsir_dagster.resources.corpus.fields import RecordFields, put
from dsir_dagster.resources.corpus.jsontext import dump_json, parse_record
from dsir_dagster.resources.corpus.lines import LineBlock
from dsir_dagster.resources.corpus.tables import TableBlock, replace_column

if TYPE_CHECKING:
    from dsir_dagster.resources.settings import Reader

#: Bytes of a block that is read, and of lines that are passed on together; a block more at most. A block holds few of
#: the chosen lines, and for few lines whatever is done with them takes about as long as for many.
BLOCK_BYTES = 1 << 20

_CHANGED = "the file changed since it was counted: materialize raw_counts and weights of this shard again"

_REPEATED = 16  # blocks of a file with columns that its repeated records may fill


@dataclass
class Lines:
    """Chosen lines, one after the other: ``data[starts[i]:ends[i]]``, and a newline after each."""

    data: bytes
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, parts: list[bytes]) -> Lines:
        """Return the lines of several parts, each of whole lines with their newlines."""
        data = b"".join(parts)
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        return cls(data, np.append(0, ends[:-1] + 1), ends)

    def __len__(self) -> int:
        return len(self.starts)

    def slice(self, offset: int, length: int | None = None) -> Lines:
        """Return some of the lines, as :meth:`pyarrow.RecordBatch.slice` does."""
        some = slice(offset, None if length is None else offset + length)
        return Lines(self.data, self.starts[some], self.ends[some])

    def __iter__(self) -> Iterator[bytes]:
        view = memoryview(self.data)
        for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
            yield bytes(view[start:end])


Records: TypeAlias = Lines | pa.RecordBatch


def read_records(
    uri: str,
    reader: Reader,
    rows: np.ndarray,
    block_bytes: int = BLOCK_BYTES,
    all_columns: bool = True,
) -> Iterator[Records]:
    """Read chosen records of a file, unchanged, in one pass that ends at the last of them.

    Row groups of a Parquet file without any of them are not read.

    Parameters
    ----------
    uri : str
        Path or URI of a corpus file.
    reader : Reader, RawSource or Target
        How the file was read.
    rows : ndarray of int64, shape (n,)
        Rows as in ``TextBatch.rows``, strictly ascending.
    block_bytes : int
        Bytes of a block, and of lines that are yielded together; a block more at most, or a record if that is longer.
    all_columns : bool
        Read columns that no field of `reader` needs as well; lines are whole in any case.

    Yields
    ------
    Lines or pa.RecordBatch
        Together n records, in the order of ``rows``; each has at least one.

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
    done = held = 0
    parts: list[bytes] = []
    with contextlib.closing(read_blocks(uri, reader, block_bytes, all_columns, rows)) as blocks:
        while done < len(rows) and (block := next(blocks, None)) is not None:
            if isinstance(block, LineBlock):
                stop = int(np.searchsorted(rows, block.row + block.count))
                if stop > done and block.skipped:
                    break
                if stop > done:
                    parts.append(_chosen_lines(block, rows[done:stop] - block.row))
                    done, held = stop, held + len(parts[-1])
                    if held >= block_bytes:
                        yield Lines.of(parts)
                        parts, held = [], 0
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
    if parts:
        yield Lines.of(parts)


def _chosen_lines(block: LineBlock, index: np.ndarray) -> bytes:
    """Return some lines of a block, each with its newline, which the last one of a file may lack."""
    starts, _ = block.bounds()
    offsets = pa.py_buffer(np.append(starts, len(block.data)))
    lines = pa.Array.from_buffers(pa.large_binary(), len(starts), [None, offsets, pa.py_buffer(block.data)])
    data = lines.take(pa.array(index)).buffers()[2].to_pybytes()
    return data if data.endswith(b"\n") else data + b"\n"


def read_pieces(
    uri: str,
    reader: Reader,
    records: np.ndarray,
    begins: np.ndarray,
    ends: np.ndarray,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Records]:
    """Read the records of chosen pieces, each with the piece in place of its text.

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
        Together n records, in the given order. The other fields are unchanged; JSON Lines are rewritten as compact
        JSON.

    Raises
    ------
    CorpusError
        The file is missing, damaged, or has no such row or piece.
    """
    rows, first = np.unique(records, return_index=True)
    first = np.append(first, len(records))
    fields = text_fields(reader)
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
        if isinstance(found, Lines):
            yield from _pieces_of_lines(found, fields.text[0], parents, pieces, block_bytes)
        else:
            yield from _pieces_of_table(found, fields.text[0], parents, pieces, block_bytes)


def cut_pieces(uri: str, row: int, text: str, begins: np.ndarray, ends: np.ndarray) -> list[str]:
    """Return the pieces of a record's text between these bytes; raise :class:`CorpusError` if it is too short."""
    encoded = text.encode()
    if len(ends) and ends.max() > len(encoded):
        raise CorpusError(
            f"{uri}: the text at row {row} has {len(encoded)} bytes, {ends.max()} were expected; {_CHANGED}"
        )
    bounds = zip(begins.tolist(), ends.tolist(), strict=True)
    return [encoded[begin:end].decode(errors="replace") for begin, end in bounds]


def text_fields(reader: Reader) -> RecordFields:
    """Return what is taken of a record where only its text is looked at."""
    return replace(RecordFields.of(reader), id=None, source=None)


def texts_of(uri: str, fields: RecordFields, records: Records) -> pa.Array:
    """Return the texts of records, extracted as for counting."""
    if isinstance(records, pa.RecordBatch):
        batch = TableBlock(uri, fields, np.arange(len(records)), records).parse()
    else:
        data = records.data[int(records.starts[0]) : int(records.ends[-1]) + 1]
        batch = LineBlock(uri, fields, 0, len(records), data).parse()
    if batch.rejected:
        raise CorpusError(f"{uri}: a chosen record cannot be used: {batch.rejected[0].reason}; {_CHANGED}")
    return batch.texts


def refuse_other_texts(
    uri: str, shard: str, rows: np.ndarray, texts: pa.Array, content_hash: np.ndarray
) -> None:
    """Compare texts with what was counted.

    A file counts as unchanged while its size and time are, but some tools keep both: `rsync -t`, `cp -p`, archives.

    Parameters
    ----------
    uri, shard : str
    rows : ndarray of int64, shape (n,)
        Of the records in the file.
    texts : pa.Array of string or large_string, length n
        Of whole records, or pieces.
    content_hash : ndarray of uint64, shape (n,)
        From the table of documents.

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
    """Pass records on and compare their texts with what was counted; see :func:`refuse_other_texts`.

    Parameters
    ----------
    uri, shard, rows, content_hash
        As there.
    reader : Reader
        How the file was read.
    records : iterable of Records
        Together n records, or pieces of them.

    Yields
    ------
    Records
        As given.
    """
    fields = text_fields(reader)
    done = 0
    for each in records:
        mine = slice(done, done + len(each))
        refuse_other_texts(uri, shard, rows[mine], texts_of(uri, fields, each), content_hash[mine])
        done = mine.stop
        yield each


def _pieces_of_lines(
    records: Lines, name: str, parents: list[int], pieces: list[str], block_bytes: int
) -> Iterator[Lines]:
    """Write JSON objects with other texts, in blocks of about ``block_bytes``."""
    parsed = enumerate(map(parse_record, records))
    at, record = next(parsed)
    lines: list[bytes] = []
    held = 0
    for i, (parent, piece) in enumerate(zip(parents, pieces, strict=True)):
        while at < parent:
            at, record = next(parsed)
        put(record, name, piece)
        lines.append(dump_json(record) + b"\n")
        held += len(lines[-1])
        if held >= block_bytes or i == len(pieces) - 1:
            yield Lines.of(lines)
            lines, held = [], 0


def _pieces_of_table(
    records: pa.RecordBatch, name: str, parents: list[int], pieces: list[str], block_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Repeat records with other texts, in batches that are not much longer than their block."""
    texts = pa.array(pieces, pa.large_string())
    records = replace_column(records, name, pa.nulls(len(records), pa.large_string()))
    step = max(_REPEATED * block_bytes // max(records.nbytes, 1), 1)
    for start in range(0, len(parents), step):
        batch = records.take(pa.array(parents[start : start + step]))
        yield replace_column(batch, name, texts.slice(start, step))
