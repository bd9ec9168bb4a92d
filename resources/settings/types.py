"""What the sections of the configuration share: their base, names, numbers, the error.

What belongs here: types that several sections use. What does not: any section.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
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
