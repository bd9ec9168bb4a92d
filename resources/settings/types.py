"""What the sections of the configuration share: their base, names, numbers, the error.

What belongs here: types that several sections use, and what the docstrings of their fields say. What does not: any
section.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import pairwise
from typing import Annotated

import pydantic

NAME_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
Name = Annotated[str, pydantic.Field(pattern=NAME_PATTERN, max_length=100)]


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


#: A finite number, also as text, which is how YAML reads ``1e-3``.
Number = Annotated[
    float, pydantic.BeforeValidator(_not_bool), pydantic.Field(strict=False, allow_inf_nan=False)
]


def meant(given: object, choices: Iterable[str], quote: str = "'") -> str:
    """Return ``; did you mean 'x'?`` if one of the choices is spelled like what was given, else ''."""
    close = get_close_matches(str(given), list(choices), n=1)
    return f"; did you mean {quote}{close[0]}{quote}?" if close else ""


class ConfigError(ValueError):
    """The configuration cannot be used; the message names the file and every bad key."""


class Model(pydantic.BaseModel):
    """Base of all sections: frozen, without unknown keys or silent type conversions."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


def meanings(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """Return the docstrings of the fields of a model and of those it extends, by field.

    Pydantic's `use_attribute_docstrings` would look for them whenever the program starts, which takes 0.1 s.
    """
    found = {}
    for each in reversed(model.__mro__):
        if issubclass(each, Model):
            [definition] = ast.parse(inspect.getsource(each)).body
            assert isinstance(definition, ast.ClassDef)
            for field, after in pairwise(definition.body):
                if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                    found[ast.unparse(field.target)] = inspect.cleandoc(ast.literal_eval(after.value))
    return found
