"""What is taken from a record: text, id and origin; and what a parsed block looks like.

What belongs here: the meaning of ``text``, ``id`` and ``source`` in the configuration, for a record as a
Python dictionary and for Arrow columns, and the reasons for which records are refused. What does not:
file formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.chunking import Pieces, cut

if TYPE_CHECKING:
    from resources.settings import Reader

EXCERPT_CHARACTERS = 200
INVALID_UTF8 = "invalid UTF-8"
_MISSING = object()


@dataclass(frozen=True)
class Rejected:
    """A record that is not used: its 0-based row, one clause why, and its first 200 characters."""

    row: int
    reason: str
    excerpt: str


@dataclass
class TextBatch:
    """The texts of one block.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        0-based row in the file: the line number for JSON Lines (blank lines count), the record number
        for the other formats.
    texts : pa.Array of string or large_string, length n
        No nulls, valid UTF-8.
    ids : pa.Array of string, length n, or None
        None where no id field is configured; null where a record has none.
    sources : pa.Array of string, length n, or None
        None where no source field is configured; a record without one has the name of its RawSource.
    rejected : list of Rejected
        The block's other records, by row.
    n_bytes : int
        UTF-8 bytes of the texts.
    pieces : Pieces or None
        Where the texts are pieces of those of the records: which. Several have the row and the id of the same
        record then.
    """

    rows: np.ndarray
    texts: pa.Array
    ids: pa.Array | None
    sources: pa.Array | None
    rejected: list[Rejected]
    n_bytes: int
    pieces: Pieces | None = None

    def cut(self, n_words: int) -> TextBatch:
        """Cut the texts into pieces of so many words, as :func:`dsir.chunking.cut` does."""
        pieces = cut(self.texts, n_words)
        at = pa.array(pieces.parents)
        ids, sources = (column if column is None else column.take(at) for column in (self.ids, self.sources))
        rows = self.rows[pieces.parents]
        return TextBatch(rows, pieces.texts, ids, sources, self.rejected, self.n_bytes, pieces)


class BadRecord(ValueError):
    """A record can not be used; the message is the reason, without row numbers."""


@dataclass(frozen=True)
class RecordFields:
    """Which fields of a record are needed.

    Attributes
    ----------
    text : tuple of str
        Names or dotted paths; the texts are joined by a newline.
    id, source : str or None
        Names or dotted paths.
    default_source : str or None
        Origin of a record that names none.
    """

    text: tuple[str, ...]
    id: str | None = None
    source: str | None = None
    default_source: str | None = None

    @classmethod
    def of(cls, reader: Reader) -> RecordFields:
        """Take the fields from the configuration of a source or a target."""
        text = (reader.text,) if isinstance(reader.text, str) else tuple(reader.text)
        source = getattr(reader, "source", None)
        return cls(text, reader.id, source, getattr(reader, "name", None) if source else None)

    @property
    def names(self) -> tuple[str, ...]:
        """All fields, each once."""
        return tuple(dict.fromkeys([*self.text, *(name for name in (self.id, self.source) if name)]))

    def extract(self, record: dict[str, Any]) -> tuple[str, str | None, str | None]:
        """Take text, id and origin from a record.

        Raises
        ------
        BadRecord
            A field is absent, null, of a wrong type or not valid Unicode.
        """
        parts = [(name, lookup(record, name)) for name in self.text]
        given = [(name, value) for name, value in parts if value is not _MISSING and value is not None]
        if not given:
            raise BadRecord(self.no_text([name for name, value in parts if value is None]))
        for name, value in given:
            if not isinstance(value, str):
                raise BadRecord(f"field '{name}' is {_type_name(value)}, expected a string")
        text = _unicode("text", "\n".join(value for _, value in given))
        id_ = lookup(record, self.id) if self.id else None
        if isinstance(id_, int) and not isinstance(id_, bool):
            id_ = str(id_)
        elif id_ is _MISSING:
            id_ = None
        elif id_ is not None and not isinstance(id_, str):
            raise BadRecord(f"field '{self.id}' is {_type_name(id_)}, expected a string or an integer")
        source = lookup(record, self.source) if self.source else None
        if source is _MISSING or source is None:
            source = self.default_source
        elif not isinstance(source, str):
            raise BadRecord(f"field '{self.source}' is {_type_name(source)}, expected a string")
        return text, _unicode("id", id_), _unicode("source", source)

    def no_text(self, null: list[str]) -> str:
        """Say that no text is there; ``null`` are the fields that exist and are null."""
        if len(self.text) == 1:
            return f"field '{self.text[0]}' is null" if null else f"no field '{self.text[0]}'"
        return "none of the fields " + ", ".join(f"'{name}'" for name in self.text)

    def join_texts(self, columns: list[pa.Array]) -> pa.Array:
        """Join the text columns by newlines; null where every part is null."""
        if len(columns) == 1:
            return columns[0]
        type_ = pa.large_string() if any(c.type == pa.large_string() for c in columns) else pa.string()
        columns = [column.cast(type_) for column in columns]
        given = pc.is_valid(pc.coalesce(*columns))
        # pyarrow 26 drops rows that are null in every column from the result: there are none after this
        columns[0] = pc.if_else(given, columns[0], pa.scalar("", type_))
        joined = pc.binary_join_element_wise(*columns, pa.scalar("\n", type_), null_handling="skip")
        return pc.if_else(given, joined, pa.scalar(None, type_))

    def fill_sources(self, column: pa.Array) -> pa.Array:
        """Put the default origin where there is none."""
        return column.fill_null(self.default_source) if column.null_count else column


def lookup(record: dict[str, Any], name: str) -> Any:
    """Return the value of a dotted path, else of the top-level key that is spelled like it."""
    value: Any = record
    for part in name.split("."):
        value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
    if (value is _MISSING or value is None) and "." in name:
        literal = record.get(name, _MISSING)
        value = value if literal is _MISSING else literal
    return value


def put(record: dict[str, Any], name: str, value: Any) -> None:
    """Put a value in the place where :func:`lookup` finds one."""
    *parents, leaf = name.split(".")
    node: Any = record
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict) and node.get(leaf) is not None:
        node[leaf] = value
    else:
        record[name] = value


def excerpt(content: bytes | str) -> str:
    """Return the first 200 characters, printable."""
    if isinstance(content, bytes | bytearray | memoryview):
        content = bytes(content[: 4 * EXCERPT_CHARACTERS]).decode("utf-8", "replace")
    content = content[:EXCERPT_CHARACTERS]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in content)


def is_utf8(array: pa.Array) -> bool:
    """Tell whether a string column is valid UTF-8 throughout."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def text_bytes(array: pa.Array) -> int:
    """Return the UTF-8 bytes of a string column."""
    return pc.sum(pc.binary_length(array)).as_py() or 0


def _unicode(role: str, value: str | None) -> str | None:
    try:
        if value is not None:
            value.encode()
    except UnicodeEncodeError:
        raise BadRecord(f"{role} is not valid Unicode (lone surrogate)") from None
    return value


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return {str: "a string", list: "a list", dict: "an object"}.get(type(value), type(value).__name__)
