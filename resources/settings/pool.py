"""The sources of the raw pool, the targets, how their text is counted and fitted.

What belongs here: the sections ``raw``, ``targets``, ``features`` and ``estimator``. What does not: reading the files
(``resources/corpus/``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from dsir.features import FeatureSpec, Hash
from dsir_dagster.resources.settings.types import Model, Name, Number
from dsir_dagster.resources.uris import without_credentials

Uri = Annotated[str, pydantic.AfterValidator(without_credentials)]
Fields = str | Annotated[list[str], pydantic.Field(min_length=1)]


class Reader(Model):
    """How the files of a source or a target are read.

    Attributes
    ----------
    text : str or list of str
        Field that holds the text: a name, a dotted path into nested records, or several of these, whose texts are
        joined by newlines, as are the elements of a list. A path leads through objects, lists of objects and texts that
        are JSON.
    id : str, optional
        Field that holds the document's id: a string, or a number or boolean, which becomes one. Without it, the id is
        ``<shard>:<row>``; of a file in a group, with the key and the row that it has on its own.
    max_quarantined : float
        Share of the rows of a shard, or of the target, that may be quarantined before a run fails.
    reader : str, optional
        ``package.module:function``, called with the file's URI, yields Arrow record batches; looked for beside the
        configuration first. Without it the file's suffix decides (:mod:`dsir_dagster.resources.corpus.files`).
    """

    text: Fields = "text"
    id: str | None = None
    max_quarantined: Annotated[Number, pydantic.Field(ge=0, le=1)] = 0.1
    reader: Annotated[str, pydantic.Field(pattern=r"^[\w.]+:\w+$")] | None = None
    _folder: Path | None = pydantic.PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """The folder of the configuration; None if that was not read from a file."""
        return self._folder

    def beside(self, folder: Path) -> None:
        """Set the folder of the configuration."""
        self._folder = folder


class GroupSettings(Model):
    """Files of a source as one shard (``resources/groups.py``).

    Attributes
    ----------
    bytes : int
        Wanted in a shard: a whole number, or text such as ``256 MB`` or ``1 GiB``.
    """

    bytes: Annotated[pydantic.ByteSize, pydantic.Field(gt=0)]


class RawSource(Reader):
    """A set of files of the raw pool; each file is one shard, or each group of files.

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
        Cut every text into pieces of this many words (:mod:`dsir.chunking`); each piece is a document of its own with
        the id ``<id of the record>#<number of the piece>``.
    group : GroupSettings, optional
        Make shards of many small files. Ids and picks are those of shards of one file each.
    """

    name: Name
    uri: Uri
    source: str | None = None
    chunk_words: Annotated[int, pydantic.Field(gt=0)] | None = None
    group: GroupSettings | None = None

    @pydantic.model_validator(mode="after")
    def _one_field(self) -> RawSource:
        if self.chunk_words is not None and isinstance(self.text, list) and len(self.text) > 1:
            raise ValueError(
                f"chunk_words cuts the text of one field, text names {len(self.text)}; name the long one, or join "
                "them in a reader of your own (`reader: package.module:function`)"
            )
        return self


class Target(Reader):
    """A set of documents whose distribution a selection should have.

    Attributes
    ----------
    name : str
        Name of the target; a partition of ``target_counts``.
    uri : str
        Path or fsspec URI, with glob characters.
    holdout : str, optional
        Path or URI of documents of the same distribution that are never fitted on; evaluations measure against them.
        Without it, they use the target itself and say so.
    """

    name: Name
    uri: Uri
    holdout: Uri | None = None


class FeatureSettings(Model):
    """Hashed n-grams; :class:`dsir.features.FeatureSpec` says exactly what each value means.

    Attributes
    ----------
    tokenizer : str
        ``wordpunct`` (words and punctuation), ``whitespace``, or a function ``package.module:function``.
    ngrams : int
        Longest n-gram counted.
    buckets : int
        Number of hash buckets.
    hash : {"fast", "sha256"}
        ``sha256`` gives the buckets of the reference implementation.
    """

    tokenizer: str = FeatureSpec.tokenizer
    ngrams: int = FeatureSpec.ngrams
    buckets: int = FeatureSpec.buckets
    hash: Hash = FeatureSpec.hash

    @pydantic.model_validator(mode="after")
    def _check(self) -> FeatureSettings:
        self.spec()
        return self

    def spec(self) -> FeatureSpec:
        """Return these values as the specification that ``dsir`` takes."""
        return FeatureSpec(**self.model_dump())


class FitSize(Model):
    """Fit the raw distribution on a part of the pool.

    Attributes
    ----------
    ngrams : int
        About how many n-grams, drawn by content hash.
    """

    ngrams: Annotated[int, pydantic.Field(gt=0)]


class PinnedFit(Model):
    """Fit the raw distribution once, on the shards counted so far, and keep it under a name.

    Attributes
    ----------
    pinned : str
        Name of this version of the raw distribution. A known name stands for its distribution; a new name fits a new
        one.
    max_drift : float
        KL(pool‖pinned distribution) in nats above which the check `pool_has_not_drifted` warns.
    """

    pinned: Name
    max_drift: Annotated[Number, pydantic.Field(gt=0)] = 0.02


def _kind_of_fit(value: object) -> str:
    if isinstance(value, PinnedFit) or (isinstance(value, dict) and "pinned" in value):
        return "pinned distribution"
    return "number of n-grams" if isinstance(value, FitSize | dict) else "whole pool"


#: The alternative is decided first, so that an error is about that one alone.
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
        Laplace smoothing of the target distribution, in n-grams per bucket.
    fit : "all", {ngrams: N} or {pinned: NAME}
        N-grams of the pool to fit the raw distribution on.
    """

    target_smoothing: Annotated[Number, pydantic.Field(ge=0)] = 0.0
    fit: Fit = "all"

    @property
    def pinned(self) -> str | None:
        """Name of the raw distribution that the estimator is pinned to, if it is."""
        return self.fit.pinned if isinstance(self.fit, PinnedFit) else None
