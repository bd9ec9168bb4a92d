"""The configuration file: its schema, its defaults and its error messages.

What belongs here: the pydantic models of the YAML file and how it is read. What does not: reading
the data that the file names (``resources/corpus.py``), the paths of outputs (``resources/store.py``).

One YAML file describes one pipeline (``DSIR_CONFIG``). Unknown keys and wrong types are refused with
the path of the key. Relative URIs are relative to the folder of the file.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml

from dsir.features import FeatureSpec
from dsir.quality import PAPER

NAME_PATTERN = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"
Name = Annotated[str, pydantic.Field(pattern=NAME_PATTERN, max_length=100)]
Fields = str | Annotated[list[str], pydantic.Field(min_length=1)]


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number")
    return value


#: A finite number; as text too, since YAML takes ``1e-3`` for a text.
Number = Annotated[
    float, pydantic.BeforeValidator(_not_bool), pydantic.Field(strict=False, allow_inf_nan=False)
]


class ConfigError(ValueError):
    """The configuration can not be used; the message names the file and every bad key."""


class Model(pydantic.BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversion of types."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class Reader(Model):
    """How the files of a source or a target are read.

    Attributes
    ----------
    text : str or list of str
        Field that holds the text: a name, a dotted path into nested records, or a list of these,
        whose texts are joined by a newline.
    id : str, optional
        Field that holds the document's id (a string or an integer). Without it a document is
        called ``<shard>:<row>``.
    reader : str, optional
        ``package.module:function``, called with the file's URI, yields Arrow record batches. Without
        it the file's suffix decides: .jsonl/.json/.ndjson (plain, .gz, .zst), .parquet,
        .arrow/.ipc/.feather, .csv (plain, .gz, .zst).
    """

    text: Fields = "text"
    id: str | None = None
    reader: Annotated[str, pydantic.Field(pattern=r"^[\w.]+:\w+$")] | None = None


class RawSource(Reader):
    """A set of files of the raw pool; each file is one shard.

    Attributes
    ----------
    name : str
        Name of the source; shard keys begin with it.
    uri : str
        Path or fsspec URI, with glob characters.
    source : str, optional
        Field that names the origin of a record (The Pile: ``meta.pile_set_name``). Without it the
        origin is the name of the source.
    chunk_words : int, optional
        Cut every text into pieces of so many words (:mod:`dsir.chunking`); each piece is a document of its
        own, called ``<id of the record>#<number of the piece>``.
    """

    name: Name
    uri: str
    source: str | None = None
    chunk_words: Annotated[int, pydantic.Field(gt=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _one_field(self) -> RawSource:
        if self.chunk_words is not None and isinstance(self.text, list) and len(self.text) > 1:
            raise ValueError(
                f"chunk_words cuts the text of one field, text names {len(self.text)}; name the long one, or join "
                "them in a reader of your own (`reader: package.module:function`)"
            )
        return self


class Target(Reader):
    """A set of documents that the selection should be distributed like.

    Attributes
    ----------
    name : str
        Name of the target; a partition of ``target_counts``.
    uri : str
        Path or fsspec URI, with glob characters.
    holdout : str, optional
        Path or URI of documents of the same distribution that are never fitted on; evaluations
        measure against them. Without it the target itself is used, and the evaluation says so.
    """

    name: Name
    uri: str
    holdout: str | None = None


class FeatureSettings(Model):
    """Hashed n-grams; see :class:`dsir.features.FeatureSpec` for what each value means."""

    tokenizer: str = "wordpunct"
    ngrams: int = 2
    buckets: int = 10_000
    hash: Literal["fast", "sha256"] = "fast"

    @pydantic.model_validator(mode="after")
    def _check(self) -> FeatureSettings:
        self.spec()
        return self

    def spec(self) -> FeatureSpec:
        """Return the same values as the specification that ``dsir`` takes."""
        return FeatureSpec(**self.model_dump())


class FitSize(Model):
    """Fit the raw distribution on about this many n-grams, drawn by content hash."""

    ngrams: Annotated[int, pydantic.Field(gt=0)]


class PinnedFit(Model):
    """Fit the raw distribution once, on the shards that are counted then, and keep it under a name.

    Attributes
    ----------
    pinned : str
        Name of this version of the raw distribution. A name that was used before stands for the
        distribution that was fitted then; a new name fits a new one.
    max_drift : float
        KL(pool‖pinned distribution) in nats above which the check `pool_has_not_drifted` warns.
    """

    pinned: Name
    max_drift: Annotated[Number, pydantic.Field(gt=0)] = 0.02


def _kind_of_fit(value: object) -> str:
    if isinstance(value, PinnedFit) or (isinstance(value, dict) and "pinned" in value):
        return "pinned distribution"
    return "number of n-grams" if isinstance(value, FitSize | dict) else "whole pool"


#: Which alternative is meant is decided first, so that an error speaks of that one alone.
Fit = Annotated[
    Annotated[Literal["all"], pydantic.Tag("whole pool")]
    | Annotated[FitSize, pydantic.Tag("number of n-grams")]
    | Annotated[PinnedFit, pydantic.Tag("pinned distribution")],
    pydantic.Discriminator(_kind_of_fit),
]


class EstimatorSettings(Model):
    """How the two bag-of-n-grams distributions are fitted.

    Attributes
    ----------
    target_smoothing : float
        Laplace smoothing of the target distribution, in n-grams a bucket.
    fit : "all", {ngrams: N} or {pinned: NAME}
        N-grams of the pool that the raw distribution is fitted on.
    """

    target_smoothing: Annotated[Number, pydantic.Field(ge=0)] = 0.0
    fit: Fit = "all"

    @property
    def pinned(self) -> str | None:
        """Name of the raw distribution that the estimator is pinned to; None where it is not."""
        return self.fit.pinned if isinstance(self.fit, PinnedFit) else None


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
        What log weights are divided by before the noise is added (`match`: what the noise is multiplied by).
    length : {"none", "per_ngram", "sqrt", "poisson"}, optional
        Correction of the log weight for the length of the document: divided by its n-grams, by the square root of
        these, or with the log ratio of Poisson distributions of its tokens added. Default: none, of
        `match` per_ngram.
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
    output : {"jsonl", "jsonl.zst", "parquet"}
        Format of the chosen records.
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
    output: Literal["jsonl", "jsonl.zst", "parquet"] = "jsonl"

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
        if self.method == "match":
            if isinstance(self.temperature, SolvedTemperature):
                raise ValueError("method match takes a number as its temperature")
            if self.length == "poisson":
                raise ValueError("method match scores by ratios, to which length poisson can not be added")
            if self.epochs > 1 and self.temperature is None:
                raise ValueError("method match without a temperature picks the same documents in every epoch")
        return self

    def by(self, method: str) -> Selection:
        """Return the same selection by another method: without the options that this one does not take."""
        values = self.model_dump()
        for option in set().union(*OPTIONS.values()) - OPTIONS[method]:
            values.pop(option, None)
        return type(self).model_validate(values | {"method": method})

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


class ProxySettings(Model):
    """Small language models trained on each pick; needs PyTorch (the extra `paper`), and minutes.

    Attributes
    ----------
    seeds : int
        Models a pick.
    tokens : int
        Tokens that each is trained on.
    """

    seeds: Annotated[int, pydantic.Field(gt=0, le=100)] = 3
    tokens: Annotated[int, pydantic.Field(gt=0)] = 250_000


class DownstreamSettings(Model):
    """Classifiers of labelled targets, on word vectors learnt from each pick.

    Attributes
    ----------
    label : str
        Field of the targets' records that holds the label (a string or an integer).
    seeds : int
        Classifiers a pick.
    tokens : int
        Tokens that word vectors are learnt from.
    """

    label: str
    seeds: Annotated[int, pydantic.Field(gt=0, le=100)] = 3
    tokens: Annotated[int, pydantic.Field(gt=0)] = 1_000_000


class EvaluationSettings(Model):
    """How selections are measured.

    Attributes
    ----------
    compare : list of str
        Methods whose picks of the same size a selection is compared with, beside top_k and random.
    random_seeds : int
        Number of random selections of equal size that the selection is compared with.
    smoothing : float
        Pseudo-count a bucket of every distribution in a KL divergence.
    sample : int
        N-grams of each pick, and of the held-out text, that are read again and measured under a hash that selected
        nothing, without a hash, and for distinct n-grams; 0 for none.
    proxy : ProxySettings, optional
        Train language models on the selection and on what it is compared with.
    downstream : DownstreamSettings, optional
        Train classifiers of targets that have labels and a holdout.
    """

    compare: list[Method] = []
    random_seeds: Annotated[int, pydantic.Field(ge=2, le=100)] = 5
    smoothing: Annotated[Number, pydantic.Field(gt=0)] = 0.5
    sample: Annotated[int, pydantic.Field(ge=0)] = 200_000
    proxy: ProxySettings | None = None
    downstream: DownstreamSettings | None = None

    @pydantic.field_validator("compare")
    @classmethod
    def _each_once(cls, methods: list[str]) -> list[str]:
        if always := sorted({"top_k", "random"}.intersection(methods)):
            raise ValueError(f"{' and '.join(always)} is compared with anyway; leave it out")
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice")
        return methods


class Settings(Model):
    """The whole configuration file."""

    raw: Annotated[list[RawSource], pydantic.Field(min_length=1)]
    targets: Annotated[list[Target], pydantic.Field(min_length=1)]
    features: FeatureSettings = FeatureSettings()
    estimator: EstimatorSettings = EstimatorSettings()
    selections: Annotated[list[Selection], pydantic.Field(min_length=1)]
    evaluation: EvaluationSettings = EvaluationSettings()
    refresh_cron: str = "0 2 * * *"

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
                        f"there are: {', '.join(sorted(known))}"
                    )
        return self

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
        raise ConfigError(f"{path}: can not be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a YAML file: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping with the keys raw, targets and selections")
    try:
        settings = Settings.model_validate(content)
    except pydantic.ValidationError as error:
        lines = dict.fromkeys(f"  {_key(item, content)}: {_reason(item)}" for item in error.errors())
        raise ConfigError("\n".join([f"{path}: the configuration is not valid", *lines])) from None
    base = path.resolve().parent
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


def absolute_uri(uri: str, base: Path) -> str:
    """Return ``uri`` unchanged if it has a scheme, else as an absolute path below ``base``."""
    if "://" in uri:
        return uri
    return os.path.normpath(base / Path(uri).expanduser())


class _Loader(yaml.SafeLoader):
    """YAML, but a key that is written twice is an error rather than the last of them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        merge = "tag:yaml.org,2002:merge"  # `<<` may stand beside keys that it brings
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value if key.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is written {keys.count(key)} times", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _key(item: dict, content: object) -> str:
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


def _reason(item: dict) -> str:
    """Write a pydantic error for someone who has not read pydantic's manual."""
    if item["type"] == "extra_forbidden":
        return "unknown key; check the spelling against the README's configuration reference"
    if item["type"] == "missing":
        return "required key is missing"
    if item["type"] == "model_type":
        return "expected a mapping"
    if isinstance(item["input"], datetime.date):
        return f"YAML takes {item['input']} for a date; put it in quotes"
    message = item["msg"].removeprefix("Value error, ")
    if isinstance(item["input"], str | int | float | bool | type(None)):
        return f"{message} (given: {item['input']!r})"
    return message
