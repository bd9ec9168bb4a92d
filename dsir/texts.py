"""Texts as people have them, in Arrow arrays as the featurizer takes them.

What belongs here: lists, columns and iterables of str, refusing what is none of them, batches. What does not: files;
what is done with the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dsir.checks import described

#: Bytes of text in a batch, unless one document has more.
BATCH_BYTES = 1 << 22

#: Rows of a column that are cast at a time.
_CAST_ROWS = 1 << 14

_EXPECTED = "expected texts: a list of str, a column of pandas, polars or Arrow, or an object whose __iter__ yields str"


def check_texts(name: str, texts: Any, again: bool = True) -> None:
    """Refuse what holds no texts, without reading it.

    Parameters
    ----------
    name : str
        The argument's.
    texts : object
    again : bool
        Also refuse what can be read only once.

    Raises
    ------
    ValueError
        Naming the argument, what it is, and what is expected.
    """
    if hasattr(texts, "columns"):  # a table of pandas, polars or Arrow
        columns = getattr(texts, "column_names", texts.columns)
        names = [str(column) for column in columns][:5]
        raise ValueError(
            f"{name}: a {type(texts).__name__} of the columns {', '.join(names)}; expected one column: "
            f"{name}=table[{names[0] if names else 'text'!r}]"
        )
    if isinstance(texts, str | bytes):
        raise ValueError(f"{name}: a single {type(texts).__name__}; {_EXPECTED}")
    if getattr(texts, "ndim", 1) != 1:
        raise ValueError(f"{name}: {described(texts)}, of {texts.ndim} dimensions; expected one")
    column = any(hasattr(texts, protocol) for protocol in ("__arrow_c_stream__", "__arrow_c_array__"))
    if isinstance(texts, Mapping) or not (column or isinstance(texts, Iterable)):
        raise ValueError(f"{name}: {described(texts)}; {_EXPECTED}")
    if again and isinstance(texts, Iterator):
        raise ValueError(
            f"{name}: a {type(texts).__name__}, which can be read only once, and it is read several times; expected "
            f"list({name}) or, if that is too much for memory, an object whose __iter__ starts over"
        )


def batches(name: str, texts: Any, n_bytes: int = BATCH_BYTES) -> Iterator[pa.Array]:
    """Read texts in batches, in order.

    Parameters
    ----------
    name : str
        The argument's, for errors.
    texts : iterable of str, or a column of strings of pandas, polars or Arrow
    n_bytes : int
        UTF-8 bytes of a batch, about.

    Yields
    ------
    pyarrow.Array of string or large_string
        Without nulls.

    Raises
    ------
    ValueError
        Naming the argument and, for a document that is no text, its row.

    Examples
    --------
    >>> [batch.to_pylist() for batch in batches("raw", ["ab", "c", "d"], n_bytes=2)]
    [['ab'], ['c', 'd']]
    """
    check_texts(name, texts, again=False)
    column = _column(name, texts)
    return _of_iterable(name, texts, n_bytes) if column is None else _of_column(name, column, n_bytes)


def _column(name: str, texts: Any) -> pa.ChunkedArray | None:
    """Return the Arrow column that an object is or offers; None if it offers none."""
    if isinstance(texts, pa.ChunkedArray):
        return texts
    if isinstance(texts, pa.Array):
        return pa.chunked_array([texts])
    if hasattr(texts, "__arrow_c_stream__"):
        return pa.chunked_array(texts)
    return pa.chunked_array([pa.array(texts)]) if hasattr(texts, "__arrow_c_array__") else None


def _of_column(name: str, column: pa.ChunkedArray, n_bytes: int) -> Iterator[pa.Array]:
    row = 0
    for chunk in filter(len, column.chunks):
        values = chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk
        if not (pa.types.is_null(values.type) or _is_text(values.type)):
            raise ValueError(f"{name}: a column of {column.type}; expected a column of strings")
        if chunk.null_count or pa.types.is_null(values.type):
            first = row + int(np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False))[0])
            raise ValueError(
                f"{name}: {column.null_count:,} of {len(column):,} rows are null, the first is row {first}; expected "
                "str in all: drop them or fill them first"
            )
        for part in _plain(chunk):
            yield from _cut(part, n_bytes)
        row += len(chunk)


def _plain(chunk: pa.Array) -> Iterator[pa.Array]:
    """Yield a chunk as plain strings; if it has to be cast, a part at a time, not to hold the column twice."""
    if chunk.type in (pa.string(), pa.large_string()):
        yield chunk
        return
    in_dictionary = isinstance(chunk, pa.DictionaryArray)
    values: pa.Array = chunk.dictionary.cast(pa.large_string()) if in_dictionary else chunk
    for first in range(0, len(chunk), _CAST_ROWS):
        part = chunk.slice(first, _CAST_ROWS)
        yield values.take(part.indices) if in_dictionary else part.cast(pa.large_string())


def _cut(chunk: pa.Array, n_bytes: int) -> Iterator[pa.Array]:
    ends = np.cumsum(pc.binary_length(chunk).to_numpy(zero_copy_only=False), dtype=np.int64)
    begins = np.flatnonzero(np.diff(ends // n_bytes, prepend=-1))
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(chunk)], strict=True):
        yield chunk.slice(begin, end - begin)


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _of_iterable(name: str, texts: Iterable[Any], n_bytes: int) -> Iterator[pa.Array]:
    waiting: list[str] = []
    size = first = 0
    for text in texts:
        if not isinstance(text, str):
            shown = "" if text is None else f" ({text!r:.60})"
            raise ValueError(
                f"{name}: row {first + len(waiting)} is {described(text)}{shown}; expected str in all rows"
            )
        waiting.append(text)
        size += len(text)
        if size >= n_bytes:
            yield _array(name, waiting, first)
            first += len(waiting)
            waiting, size = [], 0
    if waiting:
        yield _array(name, waiting, first)


def _array(name: str, texts: list[str], first: int) -> pa.Array:
    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        for row, text in enumerate(texts, start=first):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{name}: row {row} is not valid Unicode: {error.reason} at character {error.start}; expected text "
                    "without lone surrogates: text.encode('utf-8', 'replace').decode() replaces them"
                ) from None
        raise
