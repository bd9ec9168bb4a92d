"""What a command found, as one JSON document.

What belongs here: how values are written. What does not: which keys there are (the dataclasses that the commands
collect; listed in ``docs/operating.md``).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any


def as_json(found: object) -> str:
    """Write dataclasses, mappings, sequences and scalars as JSON.

    Times are ISO 8601, a number that JSON has no word for is null, and text is ASCII: what does not print is an escape.
    """
    return json.dumps(_plain(found), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if hasattr(value, "item") and not isinstance(value, str):  # of NumPy
        value = value.item()
    if isinstance(value, Decimal):  # DuckDB's sums of integers
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, PurePath) else value
