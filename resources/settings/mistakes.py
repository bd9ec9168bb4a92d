"""What is wrong with a configuration, for someone who does not know pydantic.

What belongs here: the place of an error, its wording, and what was probably meant. What does not: the rules
(the sections' modules).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

import pydantic
from pydantic_core import ErrorDetails

from dsir_dagster.resources.settings.methods import methods
from dsir_dagster.resources.settings.selection import Selection
from dsir_dagster.resources.settings.types import meant
from dsir_dagster.resources.uris import masked


def mistakes(
    error: pydantic.ValidationError, content: object, model: type[pydantic.BaseModel]
) -> Iterator[str]:
    """Yield a line for each error: the key, and what is wrong with it.

    Parameters
    ----------
    error : ValidationError
    content : object
        What was validated.
    model : type of BaseModel
        As what.
    """
    for item in error.errors():
        yield f"{_key(item, content)}: {_reason(item, content, model)}"


def _key(item: ErrorDetails, content: object) -> str:
    """Write an error's location as ``selections[0].size``, without the names of a union's alternatives."""
    text = ""
    missing = len(item["loc"]) - 1 if item["type"] == "missing" else None
    for depth, part in enumerate(item["loc"]):
        if isinstance(part, int) and isinstance(content, list):
            text += f"[{part}]"
            content = content[part] if part < len(content) else None
        elif isinstance(content, dict) and (part in content or depth == missing):
            text += f".{part}" if text else str(part)
            content = content.get(part)
    return text or "(top level)"


def _reason(item: ErrorDetails, content: object, model: type[pydantic.BaseModel]) -> str:
    """Word a pydantic error."""
    given = item["input"]
    if item["type"] == "extra_forbidden":
        keys = _keys_at(item["loc"][:-1], content, model)
        others = f"; the keys here are {', '.join(keys)}"
        return f"unknown key{meant(item['loc'][-1], keys, '`') or others}"
    if item["type"] == "missing":
        return "required key is missing"
    if item["type"] == "model_type":
        keys = _keys_at(item["loc"], content, model)
        return f"expected a mapping with the keys {', '.join(keys)}{_given(given)}"
    if item["type"] == "list_type":
        return "expected a list; each of its entries begins with a dash"
    if item["type"] in ("byte_size", "byte_size_unit"):
        return f"expected a number of bytes, such as 256 MB or 1 GiB (given: {masked(repr(given))})"
    if isinstance(given, datetime.date):
        return f"YAML takes {given} for a date; put it in quotes"
    if item["type"] == "literal_error":
        expected = item["ctx"]["expected"]
        return f"expected {expected}{_given(given)}{meant(given, _quoted(expected))}"
    message = item["msg"].removeprefix("Value error, ")
    if named := re.fullmatch(r"\w+: '(.*?)'; expected (.*)", message):
        return message + meant(named[1], _quoted(named[2]))
    return message + _given(given)


def _given(value: object) -> str:
    """Repeat a scalar."""
    known = isinstance(value, str | int | float | bool | type(None))
    return f" (given: {masked(repr(value))})" if known else ""


def _quoted(choices: str) -> list[str]:
    return re.findall(r"'([^']*)'", choices)


def _keys_at(loc: Sequence[int | str], content: Any, model: type[pydantic.BaseModel]) -> list[str]:
    """Return the keys that a mapping may have, as they stand in the file."""
    models, beside = [model], []
    for depth, part in enumerate(loc):
        if part == "options" and Selection in models:  # in the file they stand beside the others
            written = content[loc[0]][loc[1]]
            name = written.get("method", Selection.model_fields["method"].default)
            known = methods()
            models = [each.options for each in ([known[name]] if name in known else known.values())]
            last = depth == len(loc) - 1
            beside = [key for key in Selection.model_fields if key != "options"] if last else []
        elif fields := [each.model_fields[part] for each in models if part in each.model_fields]:
            models = list(dict.fromkeys(inner for field in fields for inner in models_in(field.annotation)))
    return list(dict.fromkeys([*beside, *(key for each in models for key in each.model_fields)]))


def models_in(annotation: Any) -> Iterable[type[pydantic.BaseModel]]:
    """Return the models in a field's annotation, whatever is around them."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [inner for each in get_args(annotation) for inner in models_in(each)]
