"""A selection: its method, its size and its options.

What belongs here: the entries of the section ``selections``. What does not: the methods and their own options
(``assets/methods/``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias, get_args

import pydantic

from dsir.quality import PAPER
from dsir_dagster.resources.settings.methods import (
    Method,
    MethodName,
    MethodOptions,
    defaults_of,
    methods,
    refuse,
)
from dsir_dagster.resources.settings.types import ConfigError, Model, Name, Number


class Size(Model):
    """Size of a selection: exactly one of the three."""

    documents: Annotated[int, pydantic.Field(gt=0)] | None = None
    """Number of documents."""
    fraction: Annotated[Number, pydantic.Field(gt=0, le=1)] | None = None
    """Share of the eligible documents, above 0 and at most 1."""
    tokens: Annotated[int, pydantic.Field(gt=0)] | None = None
    """Budget of tokens, which is never exceeded: documents are taken in order of their keys while they fit.
    """

    @pydantic.model_validator(mode="before")
    @classmethod
    def _a_mapping(cls, value: object) -> object:
        if not isinstance(value, dict | Size):
            raise ValueError("expected one of documents, fraction, tokens, as in {documents: 10000}")
        return value

    @pydantic.model_validator(mode="after")
    def _one(self) -> Size:
        given = [key for key, value in self.model_dump().items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"expected one of documents, fraction, tokens; given: {', '.join(given) or 'none'}"
            )
        return self


def _two(bounds: object) -> object:
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise ValueError("expected a list of two, the lower and the upper bound; null for none")
    return bounds


def _ascending(bounds: tuple[float | None, float | None]) -> tuple[float | None, float | None]:
    low, high = bounds
    if low is not None and high is not None and low >= high:
        raise ValueError(f"nothing is above {low} and below {high}")
    return bounds


#: Lower and upper bound, both exclusive; null for none. A YAML list of two.
Bounds = Annotated[
    tuple[Number | None, Number | None],
    pydantic.BeforeValidator(_two),
    pydantic.Field(strict=False),
    pydantic.AfterValidator(_ascending),
]


class Quality(Model):
    """Bounds of the quality filter (:mod:`dsir.quality`); the paper's by default."""

    words: Bounds = PAPER["words"]
    """Number of words."""
    most_frequent_word: Bounds = PAPER["most_frequent_word"]
    """Share of the words that the most frequent one takes."""
    informative_words: Bounds = PAPER["informative_words"]
    """Share of the words that are neither English stopwords nor punctuation."""
    not_digits: Bounds = PAPER["not_digits"]
    """Share of the words that are not a single digit."""


def _on_or_off(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    if not isinstance(value, dict | Quality):
        raise ValueError("expected true, false or a mapping of bounds")
    return value


def _kind_of_caps(value: object) -> str:
    return "by source" if isinstance(value, Mapping) else "number"


Share = Annotated[Number, pydantic.Field(gt=0, le=1)]
#: Format of a selection's records.
RecordFormat: TypeAlias = Literal["jsonl", "jsonl.zst", "parquet", "none"]
OUTPUTS: tuple[RecordFormat, ...] = get_args(RecordFormat)
#: Options added later: a dump has them only if they are not at their default.
LATER = ("quality", "collapse_duplicates", "near_duplicates", "source_caps", "overlap", "epochs")


class Selection(Model):
    """A selection: what to pick, how much, by which method.

    A dump leaves out later options at their default, so a selection without them keeps the fingerprint that it had
    before they existed.
    """

    name: Name
    """Name of the selection; a partition of `selections` and `evaluations`."""
    targets: Annotated[list[str], pydantic.Field(min_length=1)]
    """Names of one or more targets; with several, each gets its share and nothing is picked twice."""
    shares: list[Annotated[Number, pydantic.Field(gt=0)]] | None = None
    """Share of each target. Default: in proportion to the targets' n-grams, as in the published tool."""
    method: MethodName = "resample"
    """How documents are ranked."""
    size: Size
    """How much to pick, for each epoch: exactly one of `documents`, `fraction` and `tokens`."""
    min_tokens: Annotated[int, pydantic.Field(ge=0)] = 100
    """Shorter documents are not eligible."""
    quality: Annotated[Quality | None, pydantic.BeforeValidator(_on_or_off)] = None
    """Documents outside the bounds of a quality filter are not eligible: `true` for the paper's bounds, or a
    mapping with others, exclusive, `null` for none."""
    collapse_duplicates: bool = False
    """Of documents with equal text, only the first by id is eligible."""
    near_duplicates: Annotated[Number, pydantic.Field(gt=0, lt=1)] | None = None
    """Of documents whose word 5-grams have at least this Jaccard similarity (0.8 is usual), only the
    best-ranked is picked, and the next in rank fill the budget (the extra `near-duplicates`)."""
    source_caps: (
        Annotated[
            Annotated[Share, pydantic.Tag("number")] | Annotated[dict[str, Share], pydantic.Tag("by source")],
            pydantic.Discriminator(_kind_of_caps),
        ]
        | None
    ) = None
    """Largest share of the budget for each source, or a mapping of sources to theirs."""
    overlap: Literal["first", "best"] = "first"
    """A document that several targets want goes to the `first` listed, as in the published tool, or to the
    one that ranks it `best`, whatever the order of targets."""
    epochs: Annotated[int, pydantic.Field(gt=0, le=1000)] = 1
    """This many selections of this size, each drawn independently; the column and field `epoch` tell them
    apart."""
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    """Seed of the noise."""
    output: RecordFormat = "jsonl"
    """Format of the chosen records; or `none`: only `picks.parquet`, which names them, without reading the
    pool's files again."""
    options: pydantic.SerializeAsAny[MethodOptions] = MethodOptions()

    @pydantic.model_validator(mode="before")
    @classmethod
    def _options_apart(cls, values: object) -> object:
        """Move all but the common options below ``options``, which refuse unknown keys."""
        if not isinstance(values, dict):
            return values
        common = {key: value for key, value in values.items() if key in cls.model_fields and key != "options"}
        return common | {"options": {key: value for key, value in values.items() if key not in common}}

    @pydantic.field_validator("options", mode="plain")
    @classmethod
    def _of_the_method(cls, values: dict[str, object], info: pydantic.ValidationInfo) -> MethodOptions:
        if "method" not in info.data:  # the field `method` reports its own error
            return MethodOptions.model_validate({k: v for k, v in values.items() if not defaults_of(k)})
        method = methods()[info.data["method"]]
        others = sorted(key for key in values if key not in method.takes and defaults_of(key))
        for option in others:
            if any(values[option] != default for default in defaults_of(option)):
                raise refuse(method, option)
        return method.options.model_validate({k: v for k, v in values.items() if k not in others})

    @pydantic.model_validator(mode="after")
    def _check(self) -> Selection:
        if self.shares is not None and len(self.shares) != len(self.targets):
            raise ValueError(f"{len(self.targets)} targets but {len(self.shares)} shares")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("a target is named twice")
        for option in ("epochs", "overlap", "source_caps"):
            if (
                option not in self.declared.takes
                and getattr(self, option) != type(self).model_fields[option].default
            ):
                raise refuse(self.declared, option)
        if self.declared.one_target and len(self.targets) > 1:
            raise ValueError(f"method {self.method} takes one target; targets names {len(self.targets)}")
        return self

    @property
    def declared(self) -> Method:
        """The declaration of its method."""
        return methods()[self.method]

    @property
    def keys_are_log_weights(self) -> bool:
        """Whether documents are ranked by nothing but log weight, with or without noise."""
        temperature, length = (getattr(self.options, name, None) for name in ("temperature", "length"))
        return self.declared.keys.log_weight and temperature in (None, 1) and length in (None, "none")

    def by(self, method: str) -> Selection:
        """Return the same selection by another method, with the options that mean the same to both.

        Raises
        ------
        ConfigError
            The method cannot make such a selection.
        """
        mine, other = self.declared, methods()[method]
        fields = (mine.options.model_fields, other.options.model_fields)
        values = self.model_dump()
        for option in mine.takes:
            here, there = (each.get(option) for each in fields)
            if option not in other.takes or (here and there and here.default != there.default):
                values.pop(option, None)
        try:
            return type(self).model_validate(values | {"method": method})
        except pydantic.ValidationError as error:
            reasons = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
            raise ConfigError(f"selection '{self.name}': {reasons}") from None

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, object]:
        values = dump(self)
        own = values.pop("options", {})
        for model, dumped, later in ((self, values, LATER), (self.options, own, tuple(own))):
            for option in later:
                if getattr(model, option) == type(model).model_fields[option].default:
                    dumped.pop(option, None)
        return values | own
