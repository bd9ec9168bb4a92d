"""Write the tables of ``configuration.md`` from the models of the configuration: ``python docs/configuration.py``.

What belongs here: from models to tables. What does not: what a key means, which stands at its field
(``resources/settings/``, ``assets/methods/``), and the page's own words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import pydantic
from pydantic.fields import FieldInfo

from dsir_dagster.assets.methods import METHODS
from dsir_dagster.resources.settings import Settings
from dsir_dagster.resources.settings.types import meanings

PAGE = Path(__file__).with_suffix(".md")

#: One key of a section: its path, its default in words, its meaning.
Row = tuple[str, str, str]

#: Where the page says more about a key.
LINKS = {
    "group": "[many small files](operating.md#many-small-files)",
    "fit": "[a growing pool](operating.md#a-growing-pool)",
    "quality": "[the quality filter](method.md#quality-filter)",
    "method": "[methods](method.md#methods)",
    "engine": "[a Ray cluster](cluster.md)",
    "store": "[bulk files in an object store](cluster.md#bulk-files-in-an-object-store)",
}


def main() -> None:
    """Write the tables into the page."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """Return the page with every table between its markers, ``<!-- table: raw -->`` and ``<!-- end -->``."""

    def fresh(found: re.Match[str]) -> str:
        name = found[1]
        return (
            f"<!-- table: {name} -->\n{options() if name == 'methods' else table(rows_of(name))}<!-- end -->"
        )

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", fresh, page, flags=re.S)


def rows_of(name: str) -> Iterator[Row]:
    """Yield the rows of a section, or of ``other``, the keys without a section."""
    sections = {key: model for key, field in Settings.model_fields.items() for model in models_of(field)}
    if name == "other":
        for key, field in Settings.model_fields.items():
            if key not in sections:
                yield row(key, field, meanings(Settings))
    else:
        yield from rows(sections[name])


def rows(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[Row]:
    """Yield a row for each field, those of a model's own models after it, under its key."""
    for key, field in ordered(model):
        if key == "options":  # those of a method, which stand beside the others
            continue
        yield row(prefix + key, field, meanings(model))
        for inner in models_of(field):
            yield from rows(inner, f"{prefix}{key}.")


def ordered(model: type[pydantic.BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields as a person writes them: name and place first."""
    first = ("name", "uri")
    return sorted(model.model_fields.items(), key=lambda item: item[0] not in first)


def options() -> str:
    """Write the table of the options that some methods take, with their names."""
    takers: dict[Row, list[str]] = {}
    for method in METHODS.values():
        for each in rows(method.options):
            takers.setdefault(each, []).append(f"`{method.name}`")
    found = [(key, ", ".join(names), *rest) for (key, *rest), names in takers.items()]
    return table(found, ("key", "methods", "default", "meaning"))


def models_of(field: FieldInfo) -> list[type[pydantic.BaseModel]]:
    """Return the models among a field's types, in order, wherever they are in them."""
    found: list[type[pydantic.BaseModel]] = []

    def look(type_: Any) -> None:
        if isinstance(type_, type) and issubclass(type_, pydantic.BaseModel):
            found.append(type_)
        for inner in get_args(type_):
            look(inner)

    look(field.annotation)
    return found


def row(key: str, field: FieldInfo, says: Mapping[str, str]) -> Row:
    """Return the row of a key; a pipe in a meaning would end its cell."""
    name = key.rpartition(".")[2]
    assert name in says, f"{key}: its field has no docstring"
    meaning = " ".join(says[name].split())
    link = LINKS.get(name)
    meaning += f" See {link}." if link and key.count(".") == 0 else ""
    return key, default_of(field), meaning.replace("|", "\\|")


def default_of(field: FieldInfo) -> str:
    """Return a default as it is written in YAML."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == [] or isinstance(value, pydantic.BaseModel):
        return "-"
    if isinstance(value, tuple):  # bounds: 40, not 40.0
        value = [int(each) if each is not None and each == int(each) else each for each in value]
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def table(found: Iterable[Sequence[str]], header: Sequence[str] = ("key", "default", "meaning")) -> str:
    """Write rows as a table, their first cell as code."""
    lines = [header, ["---"] * len(header), *([f"`{key}`", *rest] for key, *rest in found)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
