"""What is wanted: one selection, with its method, its size and its options.

What belongs here: the entries of the section ``selections``, and which options each method takes. What does not: the
methods (``assets/methods/``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic

from dsir.quality import PAPER
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
        Budget of tokens; documents are taken in order of their key until it is reached.
    """

    documents: Annotated[int, pydantic.Field(gt=0)] | None = None
    fraction: Annotated[Number, pydantic.Field(gt=0, le=1)] | None = None
    tokens: Annotated[int, pydantic.Field(gt=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> Size:
        given = [key for key, value in self.model_dump().items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of documents, fraction, tokens; given: {', '.join(given) or 'none'}"
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


#: Lower and upper bound, both exclusive; null where there is none. A YAML list of two.
Bounds = Annotated[
    tuple[Number | None, Number | None],
    pydantic.BeforeValidator(_two),
    pydantic.Field(strict=False),
    pydantic.AfterValidator(_ascending),
]


class Quality(Model):
    """Bounds of the quality filter (:mod:`dsir.quality`); the paper's where none are given.

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


class SolvedTemperature(Model):
    """The temperature at which the weights are as even as is asked for: exactly one of the two.

    Attributes
    ----------
    effective_sample_size : float
        ``(Σw)² / Σw²`` of the eligible documents' weights, in documents.
    acceptance : float
        Mean of the weights over the largest: the share that rejection sampling would accept.
    """

    effective_sample_size: Annotated[Number, pydantic.Field(gt=1)] | None = None
    acceptance: Annotated[Number, pydantic.Field(gt=0, lt=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _one(self) -> SolvedTemperature:
        if (self.effective_sample_size is None) == (self.acceptance is None):
            raise ValueError("give either effective_sample_size or acceptance")
        return self


def _kind_of_temperature(value: object) -> str:
    return "solved" if isinstance(value, dict | SolvedTemperature) else "number"


def _kind_of_caps(value: object) -> str:
    return "by source" if isinstance(value, Mapping) else "number"


Share = Annotated[Number, pydantic.Field(gt=0, le=1)]

#: What each method takes beside targets, size, seed and which documents are eligible.
OPTIONS = {
    "resample": {"temperature", "length", "source_caps", "epochs", "overlap"},
    "top_k": {"length", "source_caps", "overlap"},
    "random": {"source_caps", "epochs", "overlap"},
    "classifier": {"source_caps", "epochs", "overlap"},
    "classifier_top_k": {"source_caps", "overlap"},
    "match": {"temperature", "length", "source_caps", "epochs", "objective"},
    "mixture": {"source_caps", "epochs", "sources"},
}
Method = Literal["resample", "top_k", "random", "classifier", "classifier_top_k", "match", "mixture"]
#: Methods that pick for all targets of a selection together, rather than for each its share.
JOINT = ("match", "mixture")


class Selection(Model):
    """One selection: what to pick, how much, by which method.

    Where an option is not given, a dump has no such key, so that a selection without it keeps the fingerprint
    that it had before the option existed.

    Attributes
    ----------
    name : str
        Name of the selection; a partition of ``selections`` and ``evaluations``.
    targets : list of str
        Names of targets. With several, each gets its share, and nothing is picked twice.
    shares : list of float, optional
        Share of each target, normalized to 1. Default: in proportion to the targets' n-grams, as in
        the reference.
    method : str
        One of `OPTIONS`; ``assets/methods/`` has a module for each.
    size : Size
        Documents, fraction or tokens; of each epoch.
    min_tokens : int
        Documents with fewer tokens are not eligible.
    quality : Quality, optional
        Documents outside of these bounds are not eligible. In the file ``true`` (the paper's bounds), ``false``
        or a mapping.
    collapse_duplicates : bool
        Of documents of equal text only one is eligible: the first by id, then by shard and row.
    near_duplicates : float, optional
        Of documents whose word 5-grams have at least this Jaccard similarity, only the best-ranked is picked; needs
        the extra `near-duplicates`.
    temperature : float or SolvedTemperature
        What log weights are divided by before noise is added; default 1. Of `match`, what the logarithms of its rounds'
        mean ratios are, solved on those of the first round; default no noise in the rounds.
    length : {"none", "per_ngram", "sqrt", "poisson"}, optional
        Correction for the length of the document: the log weight (of `match`, a round's sum of ratios) as it is,
        divided by its n-grams, or by the square root of these; `poisson`: the log weight (of `match`, the logarithm of
        the mean ratio) with the log ratio of Poisson distributions of its tokens added. Default: none, of `match`
        per_ngram.
    source_caps : float or dict of str to float, optional
        The largest share of the budget that the documents of each source, or of the named ones, may take.
    sources : int, optional
        `mixture`: at most so many sources.
    objective : {"mean", "worst"}
        `match` with several targets: come close to their mixture, or to the target that is worst off.
    overlap : {"first", "best"}
        Of several targets that want a document, the first one listed gets it (as in the reference), or the one that
        ranks it best (so that their order does not matter).
    epochs : int
        So many selections of this size, each drawn afresh.
    seed : int
        Seed of the noise.
    output : {"jsonl", "jsonl.zst", "parquet", "none"}
        Format of the chosen records; with none, only the picks are written, which name them.
    """

    name: Name
    targets: Annotated[list[str], pydantic.Field(min_length=1)]
    shares: list[Annotated[Number, pydantic.Field(gt=0)]] | None = None
    method: Method = "resample"
    size: Size
    min_tokens: Annotated[int, pydantic.Field(ge=0)] = 100
    quality: Annotated[Quality | None, pydantic.BeforeValidator(_on_or_off)] = None
    collapse_duplicates: bool = False
    near_duplicates: Annotated[Number, pydantic.Field(gt=0, lt=1)] | None = None
    temperature: (
        Annotated[
            Annotated[Number, pydantic.Field(gt=0), pydantic.Tag("number")]
            | Annotated[SolvedTemperature, pydantic.Tag("solved")],
            pydantic.Discriminator(_kind_of_temperature),
        ]
        | None
    ) = None
    length: Literal["none", "per_ngram", "sqrt", "poisson"] | None = None
    source_caps: (
        Annotated[
            Annotated[Share, pydantic.Tag("number")] | Annotated[dict[str, Share], pydantic.Tag("by source")],
            pydantic.Discriminator(_kind_of_caps),
        ]
        | None
    ) = None
    sources: Annotated[int, pydantic.Field(gt=0)] | None = None
    objective: Literal["mean", "worst"] = "mean"
    overlap: Literal["first", "best"] = "first"
    epochs: Annotated[int, pydantic.Field(gt=0, le=1000)] = 1
    seed: Annotated[int, pydantic.Field(ge=0, lt=2**63)] = 0
    output: Literal["jsonl", "jsonl.zst", "parquet", "none"] = "jsonl"

    @pydantic.model_validator(mode="after")
    def _check(self) -> Selection:
        if self.shares is not None and len(self.shares) != len(self.targets):
            raise ValueError(f"{len(self.targets)} targets but {len(self.shares)} shares")
        if len(set(self.targets)) != len(self.targets):
            raise ValueError("a target is named twice")
        for option in sorted(set().union(*OPTIONS.values()) - OPTIONS[self.method]):
            if getattr(self, option) != type(self).model_fields[option].default:
                takers = [method for method, options in OPTIONS.items() if option in options]
                raise ValueError(f"method {self.method} takes no {option}; {', '.join(takers)} do")
        if self.method == "mixture" and len(self.targets) > 1:
            raise ValueError(f"method mixture takes one target, here are {len(self.targets)}")
        return self

    @property
    def keys_are_log_weights(self) -> bool:
        """Whether documents are ranked by log weight, with or without noise, and nothing else."""
        plain = self.temperature in (None, 1) and self.length in (None, "none")
        return self.method in ("resample", "top_k") and plain

    def by(self, method: str) -> Selection:
        """Return the same selection by another method: without the options that this one does not take.

        Raises
        ------
        ConfigError
            The method cannot pick what this selection is.
        """
        values = self.model_dump()
        for option in set().union(*OPTIONS.values()) - OPTIONS[method]:
            values.pop(option, None)
        try:
            return type(self).model_validate(values | {"method": method})
        except pydantic.ValidationError as error:
            reasons = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
            raise ConfigError(f"selection '{self.name}': {reasons}") from None

    @pydantic.model_serializer(mode="wrap")
    def _without_what_is_off(self, dump: pydantic.SerializerFunctionWrapHandler) -> dict[str, object]:
        values = dump(self)
        for option in (
            "quality",
            "collapse_duplicates",
            "near_duplicates",
            *sorted(set().union(*OPTIONS.values())),
        ):
            if getattr(self, option) == type(self).model_fields[option].default:
                values.pop(option, None)
        return values
