"""The configuration file: its schema and its defaults.

What belongs here: reading the whole file; its sections are in ``pool``, ``selection`` and ``evaluation``, what is said
of mistakes in ``mistakes``. What does not: reading the data that the file names (``resources/corpus/``), the paths of
outputs (``resources/store.py``).

One YAML file describes one pipeline (``DSIR_CONFIG``). Unknown keys and wrong types are refused with the path of the
key. Relative URIs are relative to the folder of the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from dsir_dagster.resources.settings.compute import ComputeSettings
from dsir_dagster.resources.settings.evaluation import (
    BitsPerByteSettings,
    DownstreamSettings,
    EvaluationSettings,
    ProxySettings,
)
from dsir_dagster.resources.settings.methods import KeyRule, Method, MethodOptions, methods
from dsir_dagster.resources.settings.mistakes import mistakes
from dsir_dagster.resources.settings.pool import (
    EstimatorSettings,
    FeatureSettings,
    FitSize,
    RawSource,
    Reader,
    Target,
)
from dsir_dagster.resources.settings.selection import Selection, Size
from dsir_dagster.resources.settings.types import ConfigError, Model, meant
from dsir_dagster.resources.uris import absolute_uri, masked, without_credentials

__all__ = [
    "BitsPerByteSettings",
    "ComputeSettings",
    "ConfigError",
    "DownstreamSettings",
    "EvaluationSettings",
    "FitSize",
    "KeyRule",
    "Method",
    "MethodOptions",
    "ProxySettings",
    "RawSource",
    "Reader",
    "Selection",
    "Settings",
    "Size",
    "Target",
    "load_settings",
    "methods",
]


def _object_store(uri: str) -> str:
    if not re.fullmatch(r"(s3|gs|abfs)://[^/]+(/.*)?", without_credentials(uri)):
        raise ValueError("expected s3://, gs:// or abfs://, with a bucket and a prefix of this home's own")
    return uri.rstrip("/")


#: Where bulk files are instead of DSIR_HOME.
StoreUri = Annotated[str, pydantic.AfterValidator(_object_store)]


class Settings(Model):
    """The whole configuration file."""

    raw: Annotated[list[RawSource], pydantic.Field(min_length=1)]
    """The raw pool: one or more sources."""
    targets: Annotated[list[Target], pydantic.Field(min_length=1)]
    """What the selections should be like."""
    features: FeatureSettings = FeatureSettings()
    """How text becomes counts; a change counts everything again."""
    estimator: EstimatorSettings = EstimatorSettings()
    """How the distributions of pool and targets are fitted."""
    selections: Annotated[list[Selection], pydantic.Field(min_length=1)]
    """What to pick."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How selections are measured."""
    compute: ComputeSettings = ComputeSettings()
    """Where work is done."""
    store: StoreUri | None = None
    """`s3://`, `gs://` or `abfs://`: where bulk files are instead of in `DSIR_HOME`."""
    refresh_cron: str = "0 2 * * *"
    """When the schedule `nightly_refresh` runs, once switched on; UTC."""

    @pydantic.model_validator(mode="after")
    def _names(self) -> Settings:
        for section in ("raw", "targets", "selections"):
            names = [entry.name for entry in getattr(self, section)]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{section}: the name '{name}' is used {names.count(name)} times")
        known = {target.name for target in self.targets}
        for index, selection in enumerate(self.selections):
            for name in selection.targets:
                if name not in known:
                    raise ValueError(
                        f"selections[{index}].targets: no target is named '{name}'; "
                        f"there are: {', '.join(sorted(known))}{meant(name, known)}"
                    )
            for method in self.evaluation.compare:
                try:
                    selection.by(method)
                except ConfigError as error:
                    raise ValueError(f"evaluation.compare, {method}: {error}") from None
        return self

    @property
    def filters_by_quality(self) -> bool:
        """Whether any selection does, so that words are counted for it."""
        return any(selection.quality is not None for selection in self.selections)

    def source(self, name: str) -> RawSource:
        """Return the raw source of this name."""
        return next(source for source in self.raw if source.name == name)

    def target(self, name: str) -> Target:
        """Return the target of this name."""
        return next(target for target in self.targets if target.name == name)

    def selection(self, name: str) -> Selection:
        """Return the selection of this name."""
        return next(selection for selection in self.selections if selection.name == name)


def load_settings(path: str | Path) -> Settings:
    """Read and validate a configuration file.

    Parameters
    ----------
    path : str or Path
        A YAML file.

    Returns
    -------
    Settings
        With every ``uri`` and ``holdout`` made absolute.

    Raises
    ------
    ConfigError
        The file is missing, is not YAML, or has unknown keys or wrong values; each is named.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such configuration file; name one with --config or DSIR_CONFIG"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply; a configuration takes a few levels") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {masked(str(error))}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys raw, targets and selections")
    try:
        settings = Settings.model_validate(content)
    except pydantic.ValidationError as error:
        lines = dict.fromkeys(f"  {each}" for each in mistakes(error, content, Settings))
        raise ConfigError("\n".join([f"{path}: the configuration is not valid", *lines])) from None
    base = path.resolve().parent
    for reader in (*settings.raw, *settings.targets):
        reader.beside(base)
    return settings.model_copy(
        update={
            "raw": [s.model_copy(update={"uri": absolute_uri(s.uri, base)}) for s in settings.raw],
            "targets": [
                t.model_copy(
                    update={
                        "uri": absolute_uri(t.uri, base),
                        "holdout": t.holdout and absolute_uri(t.holdout, base),
                    }
                )
                for t in settings.targets
            ],
        }
    )


#: Most values of a configuration; those behind an alias count each time.
MOST_VALUES = 100_000


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, and aliases that multiply."""

    def construct_document(self, node: yaml.Node) -> object:
        values = _values_in(node, {})
        if values > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"more than {MOST_VALUES:,} values, aliases resolved; write it without them",
                node.start_mark,
            )
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        merge = "tag:yaml.org,2002:merge"  # `<<` may bring keys that are written beside it
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value if key.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is written {keys.count(key)} times", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _values_in(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Count the values of a node; RecursionError if an alias contains itself."""
    if node not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
        known[node] = 1 + sum(_values_in(part, known) for part in parts)
    return known[node]
