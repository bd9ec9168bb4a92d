"""Corpus files: find the shards, read their texts, and say of every bad record why it is bad.

What belongs here: file formats, compression, file systems, the selection of fields, the refusal of bad
input. What does not: tokens and counts (``dsir``), the catalog and the feature store, threads. Reading
has two stages so that callers can thread the second: :func:`read_blocks` is sequential and cheap,
:meth:`Block.parse` is pure and may run in any thread, in any order.

Modules: ``files`` (file systems, shards, errors), ``signatures`` (what first bytes say), ``fields`` (what is taken
from a record), ``lines`` (JSON Lines), ``layout`` (JSON that is not one value a line), ``tables`` (Parquet, Arrow IPC,
CSV), ``custom`` (readers of one's own), ``jsontext`` (records as JSON text).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from resources.corpus.fields import RecordFields, Rejected, TextBatch
from resources.corpus.files import CorpusError, FileInfo, Shard, content_stamp, discover, expand, file_format
from resources.corpus.lines import LineBlock, line_blocks
from resources.corpus.tables import TableBlock, table_blocks

if TYPE_CHECKING:
    from resources.settings import Reader

Block = LineBlock | TableBlock

__all__ = [
    "Block",
    "CorpusError",
    "FileInfo",
    "Rejected",
    "Shard",
    "TextBatch",
    "content_stamp",
    "discover",
    "expand",
    "read_blocks",
]


def read_blocks(uri: str, reader: Reader, block_bytes: int = 1 << 22) -> Iterator[Block]:
    """Read a file in blocks of about ``block_bytes``, in order.

    Decompresses and cuts at record boundaries; texts are extracted by :meth:`Block.parse`. Rows, texts
    and rejections do not depend on ``block_bytes``. At most one block is held, or one record where that
    is longer.

    Parameters
    ----------
    uri : str
        Path or fsspec URI of one file.
    reader : Reader, RawSource or Target
        Names the fields, and the custom reader if there is one.
    block_bytes : int
        Decompressed bytes a block.

    Yields
    ------
    Block
        With a method ``parse() -> TextBatch``. A file of zero bytes (JSON Lines and CSV) yields none.

    Raises
    ------
    CorpusError
        The file is missing, cut off, damaged, of an unknown format, or lacks a column. It may come
        after blocks were yielded; nothing of the file is to be used then.
    """
    fields = RecordFields.of(reader)
    if reader.reader is None and file_format(uri) == "jsonl":
        return line_blocks(uri, fields, block_bytes)
    return table_blocks(uri, reader, fields, block_bytes)
