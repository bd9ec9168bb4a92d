"""Records as JSON text.

What belongs here: how this project reads and writes JSON outside of the fast path, and how Arrow values look in JSON.
What does not: files.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

UNPARSED_FIELD = "_json"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def parse_record(line: bytes) -> dict[str, Any]:
    """Parse a JSON object; one that Python cannot parse (``Inf``, too deep) becomes a text under ``_json``."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return {UNPARSED_FIELD: line.decode()}


def dump_json(value: Any) -> bytes:
    """Write a value as compact UTF-8 JSON."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:  # a lone surrogate in a field other than the text
        return json.dumps(value, separators=(",", ":"), default=str).encode()


def json_values(array: pa.Array) -> list:
    """Turn a column into values for JSON.

    Dates and times become ISO 8601, durations integers of their unit, bytes base64, NaN and infinity null, maps lists
    of pairs, decimals strings; bytes of a string that are not UTF-8 are replaced.
    """
    type_ = array.type
    if isinstance(array, pa.ExtensionArray):
        return json_values(array.storage)
    if pa.types.is_dictionary(type_):
        return json_values(array.dictionary_decode())
    if pa.types.is_struct(type_):
        names = [field.name for field in type_]
        columns = [json_values(array.field(i)) for i in range(len(names))]
        rows = zip(*columns, strict=True) if names else [()] * len(array)
        valid = array.is_valid().to_pylist()
        return [
            dict(zip(names, row, strict=True)) if ok else None for row, ok in zip(rows, valid, strict=True)
        ]
    if pa.types.is_map(type_):
        return [
            [list(pair.values()) for pair in json_values(scalar.values)] if scalar.is_valid else None
            for scalar in array
        ]
    if hasattr(type_, "value_type"):  # lists
        return [json_values(scalar.values) if scalar.is_valid else None for scalar in array]
    if pa.types.is_floating(type_):
        return [v if v is not None and math.isfinite(v) else None for v in array.to_pylist()]
    if pa.types.is_temporal(type_) and not pa.types.is_interval(type_):
        if pa.types.is_duration(type_):
            return array.cast(pa.int64()).to_pylist()
        values = array.cast(pa.string()).to_pylist()
        return [v.replace(" ", "T", 1) if v is not None else None for v in values]
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_):
        return [base64.b64encode(v).decode() if v is not None else None for v in array.to_pylist()]
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        values = array.cast(pa.large_binary()).to_pylist()
        return [v.decode(errors="replace") if v is not None else None for v in values]


def json_lines(batch: pa.RecordBatch, leave_out: str) -> Iterator[bytes]:
    """Write the records of a batch as JSON objects, without the column ``leave_out``."""
    names = [name for name in batch.schema.names if name != leave_out]
    columns = [json_values(batch.column(name)) for name in names]
    for values in zip(*columns, strict=True) if names else [()] * len(batch):
        yield dump_json(dict(zip(names, values, strict=True)))
