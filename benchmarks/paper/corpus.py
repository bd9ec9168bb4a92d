"""The pool and the targets of the comparison, from a folder.

What belongs here: reading, cutting, counting. What does not: picking, measuring.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.pool import SUFFIX, read_records
from dsir.chunking import cut
from dsir.features import Features, FeatureSpec, featurize

#: Words per document of the pool, as in the paper.
WORDS = 128

_BATCH = 4_000

Mapper = Callable[[Callable, Iterable], Iterable]


def digest_of(paths: Iterable[Path]) -> str:
    """Return the hash of the names and bytes of files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]


def count(texts: pa.Array, spec: FeatureSpec, mapper: Mapper = map) -> list[Features]:
    """Count the n-grams of texts, in batches."""
    batches = (texts.slice(i, _BATCH) for i in range(0, len(texts), _BATCH))
    return list(mapper(lambda batch: featurize(batch, spec), batches))


def totals_of(batches: Iterable[Features], buckets: int) -> np.ndarray:
    """Add up the counts of batches: int64[buckets]."""
    totals = np.zeros(buckets, dtype=np.int64)
    for batch in batches:
        batch.add_totals(totals)
    return totals


def records_of(path: Path) -> list[dict]:
    """Return the records of a file of JSON Lines; exit, naming the file, if they have no texts or cannot be read."""
    try:
        records = list(read_records(path))
    except (OSError, ValueError, AttributeError) as error:
        raise SystemExit(f"{path}: {error}") from None
    if not records:
        raise SystemExit(f"{path}: no record has a `text`")
    return records


@dataclass(frozen=True)
class Split:
    """One split of a target.

    Attributes
    ----------
    texts, labels : list
        One per document; a label may be None.
    digest : str
        Digest of the file.
    """

    texts: list[str]
    labels: list[str | None]
    digest: str

    @classmethod
    def read(cls, path: Path) -> Split:
        """Read a file of JSON Lines."""
        records = records_of(path)
        labels = [record.get("label") for record in records]
        return cls([record["text"] for record in records], labels, digest_of([path]))

    @property
    def arrow(self) -> pa.Array:
        """The texts."""
        return pa.array(self.texts, pa.large_string())


@dataclass(frozen=True)
class StudyTarget:
    """A target: ``train`` to select with, ``test`` to measure with."""

    name: str
    train: Split
    test: Split

    @property
    def labelled(self) -> bool:
        """Whether it has labels for a classifier."""
        return any(self.test.labels)


class StudyCorpus:
    """The pool, in pieces, and the targets. The pool's text is read on first use.

    Parameters
    ----------
    root : Path
        Contains ``pool/*.jsonl.zst`` and ``targets/<name>/{train,test}.jsonl.zst``: a record a line with ``text``,
        in targets perhaps with ``label``.
    names : list of str
        Some of the targets; empty for all.
    mapper : callable
        Like `map`, perhaps in several threads.
    most : int, optional
        Largest number of pieces; a larger pool is sampled by chance, always the same.

    Attributes
    ----------
    digest : str
        Names the pool.
    targets : list of StudyTarget
    made : dict
        What methods made of the pool beside its counts, by name (``methods.prepare``).

    Raises
    ------
    SystemExit
        A file or a target is missing, or a file cannot be read.
    """

    def __init__(self, root: Path, names: list[str], mapper: Mapper = map, most: int | None = None) -> None:
        self._most = most
        self._files = sorted((root / "pool").glob(f"*{SUFFIX}"))
        known = sorted(path.name for path in (root / "targets").glob("*") if path.is_dir())
        if not self._files or not known:
            missing = f"targets/<name>/{{train,test}}{SUFFIX}" if self._files else f"pool/*{SUFFIX}"
            raise SystemExit(f"{root}: no {missing}; --data names a folder with a pool and targets")
        if unknown := sorted(set(names) - set(known)):
            raise SystemExit(
                f"no target {', '.join(unknown)} in {root / 'targets'}; there are {', '.join(known)}"
            )
        self._mapper = mapper
        self._counted: tuple[FeatureSpec, list[Features], np.ndarray] | None = None
        self.digest = f"{digest_of(self._files)}/{WORDS}" + (f"/{most}" if most else "")
        self.made: dict[str, Any] = {}
        self.targets = [
            StudyTarget(
                name,
                *(Split.read(root / "targets" / name / f"{each}{SUFFIX}") for each in ("train", "test")),
            )
            for name in (names or known)
        ]

    @cached_property
    def pool(self) -> pa.Array:
        """The pieces."""
        texts = [record["text"] for path in self._files for record in records_of(path)]
        pieces = cut(pa.array(texts, pa.large_string()), WORDS).texts
        if self._most is None or len(pieces) <= self._most:
            return pieces
        return pieces.take(np.sort(np.random.default_rng(0).permutation(len(pieces))[: self._most]))

    def has_counted(self, spec: FeatureSpec) -> bool:
        """Whether :meth:`counted` has the features at hand."""
        return self._counted is not None and self._counted[0] == spec

    def forget_counts(self) -> None:
        """Give the features back."""
        self._counted = None

    def counted(self, spec: FeatureSpec) -> tuple[list[Features], np.ndarray]:
        """Return the pool's features and their totals; only the last specification is kept."""
        if not self.has_counted(spec):
            self.forget_counts()
            batches = count(self.pool, spec, self._mapper)
            self._counted = spec, batches, totals_of(batches, spec.buckets)
        return self._counted[1:]
