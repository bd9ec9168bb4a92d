"""Fields of a record: text, id and origin; and the form of a parsed block.

What belongs here: the meaning of ``text``, ``id`` and ``source`` in the configuration, for Python dictionaries and for
Arrow columns, and the reasons to refuse a record. What does not: file formats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.chunking import Pieces, cut
from dsir_dagster.resources.corpus.jsontext import json_values

if TYPE_CHECKING:
    from dsir_dagster.resources.settings import Reader

EXCERPT_CHARACTERS = 200
INVALID_UTF8 = "invalid UTF-8"
_MISSING = object()


@dataclass(frozen=True)
class Rejected:
    """A refused record: its 0-based row, the reason in one clause, and its first 200 characters."""

    row: int
    reason: str
    excerpt: str


#: Row numbers, the rows, what is rejected between them, and the bytes of the file that were read by then.
ReadRows: TypeAlias = tuple[np.ndarray, pa.RecordBatch, list[Rejected], int]


@dataclass
class TextBatch:
    """The texts of one block.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        0-based row in the file: the line number for JSON Lines (blank lines count), the record number otherwise.
    texts : pa.Array of string or large_string, length n
        No nulls, valid UTF-8.
    ids : pa.Array of string, length n, or None
        None if no id field is configured; null if a record has no usable id.
    sources : pa.Array of string, length n, or None
        Likewise.
    rejected : list of Rejected
        The block's other records, by row.
    n_bytes : int
        UTF-8 bytes of the texts.
    pieces : Pieces or None
        If the texts are pieces of the records' texts: which. Several then share the row and the id of a record.
    """

    rows: np.ndarray
    texts: pa.Array
    ids: pa.Array | None
    sources: pa.Array | None
    rejected: list[Rejected]
    n_bytes: int
    pieces: Pieces | None = None

    def cut(self, n_words: int) -> TextBatch:
        """Cut the texts into pieces of ``n_words`` words with :func:`dsir.chunking.cut`."""
        pieces = cut(self.texts, n_words)
        at = pa.array(pieces.parents)
        ids, sources = (column if column is None else column.take(at) for column in (self.ids, self.sources))
        rows = self.rows[pieces.parents]
        return TextBatch(rows, pieces.texts, ids, sources, self.rejected, self.n_bytes, pieces)


class BadRecord(ValueError):
    """A record cannot be used; the message is the reason, without row numbers."""


@dataclass(frozen=True)
class RecordFields:
    """Which fields of a record are needed.

    A dotted path leads through objects, lists of objects (to the field of each element) and texts that are JSON.

    Attributes
    ----------
    text : tuple of str
        Names or dotted paths; their texts are joined by newlines, and so are the elements of a list.
    id, source : str or None
        Names or dotted paths. A record without a usable value is kept, with None.
    """

    text: tuple[str, ...]
    id: str | None = None
    source: str | None = None

    @classmethod
    def of(cls, reader: Reader) -> RecordFields:
        """Return the fields that a source or a target configures."""
        text = (reader.text,) if isinstance(reader.text, str) else tuple(reader.text)
        return cls(text, reader.id, getattr(reader, "source", None))

    @property
    def names(self) -> tuple[str, ...]:
        """All fields, without duplicates."""
        return tuple(dict.fromkeys([*self.text, *(name for name in (self.id, self.source) if name)]))

    def extract(self, record: dict[str, Any]) -> tuple[str, str | None, str | None]:
        """Take text, id and origin from a record.

        Raises
        ------
        BadRecord
            The text is absent, null, of a wrong type or not valid Unicode.
        """
        text = self.text_of([lookup(record, name) for name in self.text])
        id_, source = (name_of(lookup(record, name)) if name else None for name in (self.id, self.source))
        return text, id_, source

    def text_of(self, values: Sequence[Any]) -> str:
        """Join the values of the text fields, in their order.

        Raises
        ------
        BadRecord
            None of them is a text or a list of texts, or one is something else.
        """
        given = []
        for name, value in zip(self.text, values, strict=True):
            parts = [] if value is _MISSING else list(_texts(name, value))
            if parts:
                given.append("\n".join(parts))
        if not given:
            raise BadRecord(self.no_text(values))
        text = "\n".join(given)
        if not _is_unicode(text):
            raise BadRecord("text is not valid Unicode (lone surrogate)")
        return text

    def no_text(self, values: Sequence[Any]) -> str:
        """Return the reason for a record without text."""
        if len(self.text) > 1:
            return "none of the fields " + ", ".join(f"'{name}'" for name in self.text)
        [name], [value] = self.text, values
        if value is _MISSING:
            return f"no field '{name}'"
        return f"field '{name}' is " + ("null" if value is None else "a list without a text")

    def texts_of(self, columns: Sequence[Located | None], n: int) -> tuple[pa.Array, dict[int, str]]:
        """Return the texts of ``n`` records from the columns of the text fields (None for a field without a column).

        Returns
        -------
        pa.Array of string or large_string, length n
            Null if a record has no text; not checked for valid UTF-8.
        dict of int to str
            The reason for each null.
        """
        found = [column for column in columns if column is not None]
        plain = [None if column.rest else as_strings(column.array) for column in found]
        if all(column is not None for column in plain):
            texts = self._join(plain)
            missing = np.flatnonzero(np.asarray(texts.is_null())).tolist() if texts.null_count else []
            return texts, dict.fromkeys(missing, self.no_text([None] * len(self.text)))
        absent = [_MISSING] * n
        values = [absent if column is None else column.values() for column in columns]
        texts, reasons = [], {}
        for i, each in enumerate(zip(*values, strict=True)):
            try:
                texts.append(self.text_of(each))
            except BadRecord as error:
                texts.append(None)
                reasons[i] = str(error)
        return pa.array(texts, pa.large_string()), reasons

    def _join(self, columns: list[pa.Array]) -> pa.Array:
        """Join text columns by newlines; null if every part is null."""
        if len(columns) == 1:
            return columns[0]
        type_ = pa.large_string() if any(c.type == pa.large_string() for c in columns) else pa.string()
        columns = [column.cast(type_) for column in columns]
        given = pc.is_valid(pc.coalesce(*columns))
        # pyarrow 26 drops rows that are null in every column from the result; this leaves none
        columns[0] = pc.if_else(given, columns[0], pa.scalar("", type_))
        joined = pc.binary_join_element_wise(*columns, pa.scalar("\n", type_), null_handling="skip")
        return pc.if_else(given, joined, pa.scalar(None, type_))


@dataclass(frozen=True)
class Located:
    """The place of a field's values: a column, and the ``rest`` of the path below it, through lists or JSON."""

    array: pa.Array
    rest: tuple[str, ...] = ()

    def values(self) -> list:
        """Return the values that :func:`lookup` would find in the records; None if there is none."""
        return _below(self.array, self.rest)

    def names(self) -> pa.Array:
        """Return the values as ids or sources, by the rules of :func:`name_of`: a string column."""
        if self.rest:
            names = None
        elif pa.types.is_integer(self.array.type) or pa.types.is_boolean(self.array.type):
            return self.array.cast(pa.string())
        elif pa.types.is_floating(self.array.type):
            names = whole_numbers(self.array)
        else:
            names = as_strings(self.array)
            names = names if names is None or is_utf8(names) else None
        if names is None:
            return pa.array(map(name_of, self.values()), pa.string())
        empty = pc.equal(pc.binary_length(names), 0)
        if pc.any(empty).as_py():
            names = pc.if_else(empty, pa.scalar(None, names.type), names)
        return names.cast(pa.string())


def name_of(value: Any) -> str | None:
    """Return an id or a source as text; None if it has no usable one.

    Numbers and booleans are written as in JSON, whole numbers without a fraction: pandas turns all integers of a column
    with a missing value into floats.
    """
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        return value if value and _is_unicode(value) else None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    if isinstance(value, Decimal):
        return format(value.normalize(), "f") if value.is_finite() else None
    return str(value) if isinstance(value, UUID) else None


def whole_numbers(column: pa.Array) -> pa.Array | None:
    """Return floats as text without a fraction; None if one has a fraction, is not finite, or may be inexact."""
    try:
        whole = column.cast(pa.float64()).cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    largest = pc.max(pc.abs_checked(whole)).as_py() if len(whole) > whole.null_count else 0
    return whole.cast(pa.string()) if largest < 2**53 else None


def as_strings(column: pa.Array) -> pa.Array | None:
    """Return a column of strings, bytes or nulls, of whatever type, as (large_)string; None for any other type.

    Bytes are not checked to be UTF-8.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    column = without_views(column)
    if column.type == pa.null():
        return column.cast(pa.string())
    if column.type in (pa.string(), pa.large_string()):
        return column
    if column.type in (pa.binary(), pa.large_binary()):
        return column.view(pa.string() if column.type == pa.binary() else pa.large_string())
    return None


def without_views(array: pa.Array) -> pa.Array:
    """Return a column without view types at any depth, which several of Arrow's kernels do not take."""
    type_ = array.type
    if not _has_views(type_):
        return array
    if type_ == pa.string_view():
        return array.cast(pa.string())
    if type_ == pa.binary_view():
        return array.cast(pa.binary())
    if pa.types.is_dictionary(type_):
        return without_views(array.dictionary_decode())
    if pa.types.is_struct(type_):
        children = [without_views(child) for child in array.flatten()]
        names = [field.name for field in type_]
        return pa.StructArray.from_arrays(children, names=names, mask=array.is_null())
    if pa.types.is_map(type_):
        return without_views(array.cast(pa.map_(_no_view(type_.key_type), _no_view(type_.item_type))))
    # pyarrow 26 casts a list_view to a list with one offset too few
    values, offsets = without_views(array.flatten()), _offsets(array)
    large = pa.types.is_large_list(type_) or pa.types.is_large_list_view(type_)
    kind = (pa.LargeListArray, pa.int64()) if large else (pa.ListArray, pa.int32())
    return kind[0].from_arrays(pa.array(offsets, kind[1]), values, mask=array.is_null())


def _has_views(type_: pa.DataType) -> bool:
    views = (
        pa.types.is_string_view,
        pa.types.is_binary_view,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    if any(is_view(type_) for is_view in views):
        return True
    if pa.types.is_dictionary(type_):
        return _has_views(type_.value_type)
    return any(_has_views(type_.field(i).type) for i in range(type_.num_fields))


def _no_view(type_: pa.DataType) -> pa.DataType:
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(type_, type_)


def is_list(type_: pa.DataType) -> bool:
    """Return whether a column's values are lists, of whatever layout."""
    kinds = ("list", "large_list", "list_view", "large_list_view", "fixed_size_list")
    return any(getattr(pa.types, f"is_{kind}")(type_) for kind in kinds)


def _offsets(lists: pa.Array) -> np.ndarray:
    """Return the bounds of each list's elements in the flattened column: int64[n + 1]."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _below(column: pa.Array, path: Sequence[str]) -> list:
    """Return the values at a path below a column as Python objects."""
    type_ = column.type
    if pa.types.is_dictionary(type_):
        return _below(column.dictionary_decode(), path)
    if isinstance(column, pa.ExtensionArray) and not isinstance(type_, pa.UuidType):
        return _below(column.storage, path)
    if is_list(type_):
        values, offsets = _below(column.flatten(), path), _offsets(column).tolist()
        pairs = zip(offsets[:-1], offsets[1:], column.is_valid().to_pylist(), strict=True)
        return [values[start:end] if valid else None for start, end, valid in pairs]
    strings = as_strings(column)
    if strings is not None:
        try:
            values = strings.to_pylist()
        except UnicodeDecodeError:
            values = [_decoded(v) for v in strings.cast(pa.large_binary()).to_pylist()]
        return [_present(_descend(value, path)) for value in values] if path else values
    if path and pa.types.is_struct(type_):
        if type_.get_field_index(path[0]) < 0:
            return [None] * len(column)
        return _below(pc.struct_field(column, path[0]), path[1:])
    if path:
        return [None] * len(column)
    if pa.types.is_struct(type_):
        return [{} if valid else None for valid in column.is_valid().to_pylist()]
    if pa.types.is_temporal(type_) and not pa.types.is_interval(type_):
        return json_values(column)
    return column.to_pylist()


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return value if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _present(value: Any) -> Any:
    return None if value is _MISSING else value


def lookup(record: dict[str, Any], name: str) -> Any:
    """Return the value at a dotted path, else that of the top-level key spelled like it."""
    value = _descend(record, name.split("."))
    if (value is _MISSING or value is None) and "." in name:
        literal = record.get(name, _MISSING)
        value = value if literal is _MISSING else literal
    return value


def _descend(value: Any, path: Sequence[str]) -> Any:
    """Follow a path through objects, elements of lists, and texts that are JSON."""
    for depth, part in enumerate(path):
        if isinstance(value, str):
            value = _parsed(value)
        if isinstance(value, list):
            found = [_descend(each, path[depth:]) for each in value]
            return [each for each in found if each is not _MISSING] if found else found
        value = value.get(part, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _parsed(text: str) -> Any:
    """Return the object or list that a text encodes as JSON, else None."""
    if text.lstrip(" \t\r\n")[:1] in ("{", "["):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return None


def put(record: dict[str, Any], name: str, value: Any) -> None:
    """Put a value where :func:`lookup` finds one; a list gets one element."""
    path = name.split(".")
    found = _descend(record, path)
    if found is _MISSING or found is None:
        record[name] = value
    else:
        _replaced(record, path, value)


def _replaced(node: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    if isinstance(node, str):
        return json.dumps(_replaced(_parsed(node), path, value), ensure_ascii=False)
    if isinstance(node, list):
        return [_replaced({}, path, value)]
    node[path[0]] = _replaced(node.get(path[0], {}), path[1:], value)
    return node


def field_names(record: Any, limit: int = 20) -> list[str]:
    """Return the fields of a record as the configuration names them: dotted below objects."""
    names: list[str] = []
    for name, value in record.items() if isinstance(record, dict) else ():
        if isinstance(value, list):
            value = next((each for each in value if isinstance(each, dict)), None)
        names += [f"{name}.{below}" for below in field_names(value)] or [name]
    return names[:limit]


def excerpt(content: bytes | memoryview | str) -> str:
    """Return the first 200 characters, printable."""
    if not isinstance(content, str):
        content = bytes(content[: 4 * EXCERPT_CHARACTERS]).decode("utf-8", "replace")
    content = content[:EXCERPT_CHARACTERS]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in content)


def is_utf8(array: pa.Array) -> bool:
    """Return whether a string column is valid UTF-8 throughout."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def text_bytes(array: pa.Array) -> int:
    """Return the UTF-8 bytes of a string column."""
    return pc.sum(pc.binary_length(array)).as_py() or 0


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(name: str, value: Any) -> Iterator[str]:
    """Yield the texts of a value: itself, or the elements of a list."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        raise BadRecord(INVALID_UTF8)
    elif isinstance(value, list):
        for each in value:
            if each is not None and not isinstance(each, str | bytes | list):
                such = f" (name one of their fields, as '{name}.text')" if isinstance(each, dict) else ""
                kind = _type_name(each)
                raise BadRecord(f"field '{name}' is a list in which there is {kind}, expected strings{such}")
            yield from _texts(name, each)
    elif value is not None:
        raise BadRecord(f"field '{name}' is {_type_name(value)}, expected a string")


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
