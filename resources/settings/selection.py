"""A selection: its method, its size and its options.

What belongs here: the entries of the section ``selections``. What does not: the methods and their own options
(``assets/methods/``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

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
    """Size of a selection: exactly one of the three.

    Attributes
    ----------
    documents : int
        Number of documents.
    fraction : float
        Share of the eligible documents, in (0, 1].
    tokens : int
        Budget of tokens; documents are taken in order of their keys until it is reached.
    """

    documents: Annotated[int, pydantic.Field(gt=0)] | None = None
    fraction: Annotated[Number, pydantic.Field(gt=0, le=1)] | None = None
    tokens: Annotated[int, pydantic.Field(gt=0)] | None = None

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
    """Bounds of the quality filter (:mod:`dsir.quality`); the paper's by default.

    Attributes
    ----------
    words : [low, high]
        Number of words.
    most_frequent_word : [low, high]
        Share of the words that the most frequent one takes.
    informative_words : [low, high]
        Share of the words that are neither English stopwords nor punctuation.
    not_digits : [low, high]
        Share of the words that are not a single digit.
    """

    words: Bounds = PAPER["words"]
    most_frequent_word: Bounds = PAPER["most_frequent_word"]
    informative_words: Bounds = PAPER["informative_words"]
    not_digits: Bounds = PAPER["not_digits"]


def _on_or_off(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    if not isinstance(value, dict | Quality):
        raise ValueError("expected true, false or a mapping of bounds")
    return value


def _kind_of_caps(value: object) -> str:
    return "by source" if isinstance(value, Mapping) else "number"


Share = Annotated[Number, pydantic.Field(gt=0, le=1)]
#: Options added later: a dump has them only if they are not at their default.
LATER = ("quality", "collapse_duplicates", "near_duplicates", "source_caps", "overlap", "epochs")


class Selection(Model):
    """A selection: what to pick, how much, by which method.

    A dump leaves out later options at their default, so a selection without them keeps the fingerprint that it had
    before they existed.

    Attributes
    ----------
    name : str
        Name of the selection; a partition of ``selections`` and ``evaluations``.
    targets : list of str
        Names of targets. Of several, each gets its share, and nothing is picked twice.
    shares : list of float, optional
        Share of each target, normalized to 1. Default: in proportion to the targets' n-grams, as in the reference.
    method : str
        One of those in ``assets/methods/``.
    size : Size
        Documents, fraction or tokens, for each epoch.
    min_tokens : int
        Documents with fewer tokens are not eligible.
    quality : Quality, optional
        Documents outside of these bounds are not eligible. In the file: ``true`` (the paper's bounds), ``false`` or a
        mapping.
    collapse_duplicates : bool
        Of documents with equal texts, only the first by id, shard and row is eligible.
    near_duplicates : float, optional
        Of documents whose word 5-grams have at least this Jaccard similarity, only the best-ranked is picked. Needs the
        extra `near-duplicates`.
    source_caps : float or dict of str to float, optional
        The largest share of the budget for each source, or for the named ones.
    overlap : {"first", "best"}
        Which of several targets gets a document: the first one listed (as in the reference), or the one that ranks it
        best (so that their order does not matter).
    epochs : int
        Number of selections of this size, each drawn afresh.
    seed : int
        Seed of the noise.
    output : {"jsonl", "jsonl.zst", "parquet", "none"}
        Format of the chosen records; with none, only the picks are written, which name the records.
    options : MethodOptions
        Options of the method alone. In the file and in a dump, they stand beside the others.
    """

    name: Name
    targets: Annotated[list[str], pydantic.Field(min_length=1)]
    shares: list[Annotated[Number, pydantic.Field(gt=0)]] | None = None
    method: MethodName = "resample"
    size: Size
    min_tokens: Annotated[int, pydantic.Field(ge=0)] = 100
    quality: Annotated[Quality | None, pydantic.BeforeValidator(_on_or_off)] = None
    collapse_duplicates: bool = False
    near_duplicates: Annotated[Number, pydantic.Field(gt=0, lt=1)] | None = None
    source_caps: (
        Annotated[
            Annotated[Share, pydantic.Tag("number")] | Annotated[dict[str, Share], pydantic.Tag("by source")],
            pydantic.Discriminator(_kind_of_caps),
        ]
        | None
    ) = None
    overlap: Literal["first", "best"] = "first"
    epochs: Annotated[int, pydantic.Field(gt=0, le=1000)] = 1
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    output: Literal["jsonl", "jsonl.zst", "parquet", "none"] = "jsonl"
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
