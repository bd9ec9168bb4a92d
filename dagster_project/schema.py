"""The JSON Schema of the configuration, by which editors complete and check it.

What belongs here: what pydantic's schema says otherwise than the file. What does not: the keys and their rules
(``resources/settings/``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pydantic

from dsir_dagster.resources.settings import Selection, Settings, methods
from dsir_dagster.resources.settings.mistakes import models_in
from dsir_dagster.resources.settings.types import meanings

TITLE = "Configuration of dsir"

#: What pydantic writes where a number may also be text, and what JSON Schema calls it.
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}

_ATTRIBUTES = "\n\nAttributes\n----------\n"


def configuration_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    schema = Settings.model_json_schema()
    definitions = schema["$defs"]
    options = {}
    for name, method in methods().items():
        own = method.options.model_json_schema()
        definitions |= own.pop("$defs", {})
        options[name] = own.setdefault("properties", {})
        _describe(method.options, own)
    for model in _models(Settings, *(method.options for method in methods().values())):
        of = schema if model is Settings else definitions.get(model.__name__)
        if of is not None:
            _describe(model, of)
    _methods_in(definitions["Selection"], options)
    definitions["Selection"]["properties"]["quality"]["anyOf"].insert(0, {"type": "boolean"})
    for name in ("Size", "SolvedTemperature"):
        definitions[name] |= {"minProperties": 1, "maxProperties": 1}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | _plain(schema) | {"title": TITLE}


def _methods_in(selection: dict[str, Any], options: dict[str, dict[str, Any]]) -> None:
    """Put the options of the methods beside the common ones, and refuse those that a method does not take."""
    properties = selection["properties"]
    del properties["options"]
    properties["method"]["enum"] = list(options)
    for key in dict.fromkeys(key for own in options.values() for key in own):
        forms: list[dict[str, Any]] = []
        forms += (own[key] for own in options.values() if key in own and own[key] not in forms)
        properties[key] = forms[0] if len(forms) == 1 else {"anyOf": forms}
    taken = {key for method in methods().values() for key in method.takes}
    selection["allOf"] = []
    for name, method in methods().items():
        refused = {key: False for key in sorted(taken - method.takes)}
        if refused:
            given: dict[str, Any] = {"properties": {"method": {"const": name}}}
            if name != Selection.model_fields["method"].default:
                given["required"] = ["method"]
            selection["allOf"].append({"if": given, "then": {"properties": refused}})


def _models(*models: type[pydantic.BaseModel]) -> Iterator[type[pydantic.BaseModel]]:
    """Yield models, and those in their fields."""
    for model in models:
        yield model
        for field in model.model_fields.values():
            yield from _models(*models_in(field.annotation))


def _describe(model: type[pydantic.BaseModel], schema: dict[str, Any]) -> None:
    """Take descriptions of keys from the docstrings of fields, or of a model and its bases: the section Attributes."""
    text = (inspect.getdoc(model) or "").partition("\n\n")[0]
    schema["description"] = _prose(text)
    for name, says in meanings(model).items():
        schema["properties"][name].setdefault("description", says)
    for each in model.__mro__:
        _, _, attributes = ((each.__doc__ and inspect.cleandoc(each.__doc__)) or "").partition(_ATTRIBUTES)
        for names, says in re.findall(r"^(\S[^:\n]*) : .*\n((?:    .*\n?|\n)*)", attributes, flags=re.M):
            for name in names.split(", "):
                if name in schema["properties"]:
                    schema["properties"][name].setdefault("description", _prose(says))


def _prose(text: str) -> str:
    """Return a docstring's text as an editor shows it: without the marks of cross-references."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text.replace("``", "`"))
    return " ".join(text.split())


def _plain(node: Any) -> Any:
    """Drop titles, which repeat the keys, and write bounds as JSON Schema does."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "properties" in node and isinstance(node["properties"], dict):
        keys: Iterable[tuple[str, Any]] = node["properties"].items()
        node = node | {"properties": {key: _plain(value) for key, value in keys}}
    return {
        _BOUNDS.get(key, key): value if key == "properties" else _plain(value)
        for key, value in node.items()
        if key != "title"
    }
