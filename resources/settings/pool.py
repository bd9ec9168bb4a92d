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
#: Stands for the target in what `dsir new` writes without one.
FILL_IN = "FILL-IN-YOUR-TARGET.jsonl"


def _filled_in(uri: str) -> str:
    if uri == FILL_IN:
        raise ValueError(
            "this is a placeholder; write the path of what you want more of, a file or a pattern"
        )
    return uri


Fields = str | Annotated[list[str], pydantic.Field(min_length=1)]


class Reader(Model):
    """How the files of a source or a target are read."""

    text: Fields = "text"
    """Field of the text: a name, a dotted path (`meta.body`), or a list of these, joined by a newline. A path
    goes through objects, lists of objects (`messages.content`) and strings that hold JSON; the strings of a
    list are joined by a newline."""
    id: str | None = None
    """Field of the document's id: a string, number or boolean (`1.0` becomes `1`). A document without one, or
    with a list, an object or NaN, is called `<shard>:<row>` (in a group, too, by the shard that its file
    would be), and counted as `ids_replaced`."""
    max_quarantined: Annotated[Number, pydantic.Field(ge=0, le=1)] = 0.1
    """Share of the rows (blank lines apart) of a shard, or of a target, that may be quarantined. Above it the
    shard is still used, but the run's exit code is 1 and the check `few_rows_quarantined` warns."""
    reader: Annotated[str, pydantic.Field(pattern=r"^[\w.]+:\w+$")] | None = None
    """`package.module:function`: takes a URI, yields Arrow record batches; looked for beside the
    configuration, then among installed packages. Without one, the suffix decides."""
    _folder: Path | None = pydantic.PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """The folder of the configuration; None if that was not read from a file."""
        return self._folder

    def beside(self, folder: Path) -> None:
        """Set the folder of the configuration."""
        self._folder = folder


class GroupSettings(Model):
    """Files of a source as one shard (``resources/groups.py``)."""

    bytes: Annotated[pydantic.ByteSize, pydantic.Field(gt=0)]
    """Size of a shard on average, and at most twice that, unless one file is larger: a number of bytes, or
    text such as `256 MB` or `1 GiB`."""


class RawSource(Reader):
    """A set of files of the raw pool; each file is one shard, or each group of files."""

    name: Name
    """Name of the source; shard keys begin with it."""
    uri: Uri
    """Path or URI with glob characters. Every file is one shard, unless `group` is set; files in `DSIR_HOME`
    are ignored."""
    source: str | None = None
    """Field that says where a record comes from (The Pile: `meta.pile_set_name`), for compositions and caps;
    strings, numbers and booleans, as ids. `sources_replaced` counts those that fall back to the name of the
    source."""
    chunk_words: Annotated[int, pydantic.Field(gt=0)] | None = None
    """Cut every text into pieces of this many words between white space (the paper: 128), the last one
    shorter; each piece is a document, called `<id>#<number>`. Takes one text field."""
    group: GroupSettings | None = None
    """Make shards of many small files; ids and picks are the same as with a shard for every file."""

    @pydantic.model_validator(mode="after")
    def _one_field(self) -> RawSource:
        if self.chunk_words is not None and isinstance(self.text, list) and len(self.text) > 1:
            raise ValueError(
                f"chunk_words cuts the text of one field, text names {len(self.text)}; name the long one, or join "
                "them in a reader of your own (`reader: package.module:function`)"
            )
        return self


class Target(Reader):
    """A set of documents whose distribution a selection should have."""

    name: Name
    """Name of the target; a partition of `target_counts`."""
    uri: Annotated[Uri, pydantic.AfterValidator(_filled_in)]
    """Path or URI with glob characters."""
    holdout: Uri | None = None
    """Path or URI of documents of the same kind that are never fitted on; evaluations measure against them.
    Without it, they measure against the target itself, and say so."""


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
    r"""`wordpunct` (`\w+|[^\w\s]+`), `whitespace`, or `package.module:function` from str to list of str."""
    ngrams: int = FeatureSpec.ngrams
    """N-grams of order 1 to n."""
    buckets: int = FeatureSpec.buckets
    """Hash buckets, up to 2^24."""
    hash: Hash = FeatureSpec.hash
    """`fast`, or `sha256`: the published tool's buckets, bit for bit."""

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
    """Fit the pool's distribution on a sample of documents with about this many n-grams, drawn by content
    hash."""


class PinnedFit(Model):
    """Fit the raw distribution once, on the shards counted so far, and keep it under a name."""

    pinned: Name
    """Fit the pool's distribution once, on the shards counted so far, and keep it under this name; new shards
    leave old weights fresh."""
    max_drift: Annotated[Number, pydantic.Field(gt=0)] = 0.02
    """Nats that the pool may drift from the pinned distribution before the check `pool_has_not_drifted`
    warns."""


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
    """How the two bag-of-n-grams distributions are fitted."""

    target_smoothing: Annotated[Number, pydantic.Field(ge=0)] = 0.0
    """Laplace smoothing of the target's distribution, in n-grams per bucket."""
    fit: Fit = "all"
    """What the pool's distribution is fitted on: `all` counted shards, a sample (`{ngrams: N}`), or once and
    for all (`{pinned: NAME}`)."""

    @property
    def pinned(self) -> str | None:
        """Name of the raw distribution that the estimator is pinned to, if it is."""
        return self.fit.pinned if isinstance(self.fit, PinnedFit) else None
