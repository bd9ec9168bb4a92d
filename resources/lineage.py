"""One materialization of one output, as the catalog and the lineage files keep it.

What belongs here: its fields, decoded once. What does not: the tables (``resources/catalog.py``), the files
(``resources/lineage_files.py``), whether an output is fresh (``resources/plan.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa

#: Columns that hold mappings, in the catalog as JSON.
MAPPINGS = ("inputs", "files", "metadata", "modified")

#: What the lineage says about a materialization besides its inputs; Dagster shows the same.
Metadata = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Metric:
    """A number measured by an evaluation: a row of the table ``evaluations``, with the same columns.

    Attributes
    ----------
    target : str
        '' if it belongs to no single target or is the mean over all.
    metric : str
        What was measured.
    pick : str
        On which documents: `selection`, `pool`, `random`, a method's name; `seed` for the selection under another seed.
    statistic : str
        `value`, the ends of its interval `low` and `high`, or the standard deviation `sd` over seeds.
    source : str
        '' if it belongs to no single source.
    value : float
    """

    target: str
    metric: str
    pick: str
    statistic: str
    source: str
    value: float


class InputList(Mapping[str, str]):
    """Inputs that many outputs share: those of an asset for every shard, stored once under their digest.

    An output's inputs are then a `ChainMap` of its own inputs and the list.

    Parameters
    ----------
    load : callable
        Returns the inputs, name to fingerprint; called at first use.
    digest : str, optional
        If it is known.
    """

    def __init__(self, load: Callable[[], Mapping[str, str]], digest: str | None = None) -> None:
        self._load = load
        self._digest = digest

    @cached_property
    def inputs(self) -> dict[str, str]:
        """The inputs, in order of their names."""
        return dict(sorted(self._load().items()))

    @property
    def text(self) -> str:
        """The inputs as they stand in :func:`canonical` JSON, without braces."""
        return canonical(self.inputs)[1:-1]

    @property
    def digest(self) -> str:
        """SHA-256 of the inputs, in hexadecimal digits."""
        if self._digest is None:
            self._digest = hashlib.sha256(self.text.encode()).hexdigest()
        return self._digest

    def __getitem__(self, name: str) -> str:
        return self.inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)


def together(own: Mapping[str, str], shared: InputList | None) -> Mapping[str, str]:
    """Return inputs of an output's own with those that it shares with others."""
    if shared is None:
        return own
    return ChainMap(dict(own), shared)  # type: ignore[arg-type]  # typed for what is written to; this is only read


def divided(inputs: Mapping[str, str]) -> tuple[dict[str, str], InputList | None]:
    """Return an output's own inputs, and the list that it shares with others, if there is one."""
    if isinstance(inputs, ChainMap) and isinstance(inputs.maps[-1], InputList):
        return dict(ChainMap(*inputs.maps[:-1])), inputs.maps[-1]
    return dict(inputs), None


canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
"""Writes a value as JSON, independent of the order of its keys."""


@dataclass(frozen=True)
class Lineage:
    """A row of the view ``lineage``.

    Attributes
    ----------
    asset, partition : str
        ``partition`` is '' for an asset without partitions.
    fingerprint : str
    run_id : str
        Dagster's.
    inputs : mapping of str to str
        Name of an input to its fingerprint; where outputs of every shard are among them, a `ChainMap` that ends in an
        :class:`InputList`.
    started_at, finished_at : datetime
    rows, bytes : int
        Rows of the output, bytes written.
    files : mapping of str to str
        Name of each file to its checksum (``resources/stamps.py``).
    metadata : mapping
        Numbers and strings to show.
    modified : mapping of str to int
        Name of each file to when it was written, by the clock of its file system or store, in nanoseconds.
    why : str
        Why it was made; '' if it was recorded without.
    sequence : int
        Number of the transaction that recorded it; the catalog fills it in.
    metrics : sequence of Metric, optional
        What an evaluation measured; replaces what was measured on this selection before.
    absent : sequence of str
        Its missing files, as found by :meth:`resources.workspace.Workspace.latest`.
    aside : bool
        Whether ``dsir verify`` moved one of them away.
    """

    asset: str
    partition: str
    fingerprint: str
    run_id: str
    inputs: Mapping[str, str]
    started_at: datetime
    finished_at: datetime
    rows: int
    bytes: int
    files: Mapping[str, str]
    metadata: Metadata
    modified: Mapping[str, int] = field(default_factory=dict)
    why: str = field(default_factory=str)
    sequence: int = 0
    metrics: Sequence[Metric] | None = None
    absent: Sequence[str] = ()
    aside: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Asset and partition."""
        return self.asset, self.partition

    @property
    def name(self) -> str:
        """``asset[partition]``, or the asset's name if it has no partitions."""
        return output_name(self.asset, self.partition)

    def number(self, name: str) -> float:
        """Return a number from the metadata; KeyError if it has none of this name."""
        return float(self.metadata[name])

    def count(self, name: str, default: int | None = None) -> int:
        """Return a whole number from the metadata, or the default, if given, where it has none of this name."""
        return int(self.metadata[name] if default is None else self.metadata.get(name, default))

    def mapping(self, name: str) -> dict:
        """Return a mapping that the metadata holds as JSON; empty if it has none of this name."""
        return json.loads(str(self.metadata.get(name, "{}")))

    def to_row(self) -> dict[str, object]:
        """Return what the catalog and a lineage file keep, by column.

        ``list`` is the digest of the inputs that are stored once for all outputs that share them, if there are any;
        ``inputs`` are then the others. ``metrics`` only if there are any.
        """
        left_out = {"absent", "aside"} | ({"metrics"} if self.metrics is None else set())
        row = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}
        row["inputs"], shared = divided(self.inputs)
        if shared is not None:
            row["list"] = shared.digest
        if self.metrics is not None:
            row["metrics"] = [vars(metric) for metric in self.metrics]
        return row

    @classmethod
    def from_row(cls, row: Mapping, listed: Callable[[str], Mapping[str, str]]) -> Lineage:
        """Decode a row of an older catalog or of a lineage file.

        Parameters
        ----------
        row : mapping
        listed : callable
            Takes a digest, returns the inputs of a list.

        Raises
        ------
        ValueError, TypeError
            It is not such a row.
        """
        values = dict(row)
        for name in MAPPINGS:
            values[name] = decoded(values[name])
        if digest := values.pop("list", None):
            values["inputs"] = together(values["inputs"], InputList(lambda: listed(digest), digest))
        if values.get("metrics") is not None:
            values["metrics"] = [Metric(**metric) for metric in values["metrics"]]
        for name in ("started_at", "finished_at"):
            if isinstance(values[name], str):
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


def decoded(value: Any) -> dict:
    """Return a mapping that is one, JSON of one, or its items."""
    return dict(json.loads(value) if isinstance(value, str) else value)


_NONE: dict[str, int] = {}


class LatestLineage(Mapping[tuple[str, str], Lineage]):
    """The newest lineage of every output, by (asset, partition); a row is decoded when someone asks for its fields.

    There may be several rows for each of 100,000 shards, a kilobyte each, of which most commands need the fingerprint.

    Parameters
    ----------
    rows : RecordBatchReader
        Of the query `latest`.
    listed : callable
        Takes a digest, returns the inputs of a list.
    """

    #: Rows that are decompressed together.
    TOGETHER = 256

    def __init__(self, rows: pa.RecordBatchReader, listed: Callable[[str], Mapping[str, str]]) -> None:
        self._listed = listed
        self._numbers: dict[str, dict[str, int]] = {}
        self._lacking: dict[tuple[str, str], tuple[Sequence[str], bool]] = {}
        self.fingerprints: list[str] = []
        sink, options = pa.BufferOutputStream(), pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_file(sink, rows.schema, options=options) as file:
            for batch in rechunked(rows, self.TOGETHER):
                file.write_batch(batch)
                first = len(self.fingerprints)
                self.fingerprints += batch["fingerprint"].to_pylist()
                keys = zip(batch["asset"].to_pylist(), batch["partition"].to_pylist(), strict=True)
                for number, (asset, partition) in enumerate(keys, first):
                    self._numbers.setdefault(asset, {})[partition] = number
        self._file = pa.ipc.open_file(sink.getvalue())
        batch = lru_cache(maxsize=2)(self._file.get_batch)
        self._column = lru_cache(maxsize=16)(lambda number, name: batch(number)[name].to_pylist())

    def __getitem__(self, key: tuple[str, str]) -> Lineage:
        if (row := self.get(key)) is None:
            raise KeyError(key)
        return row

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        """Return a row; the default if there is none."""
        asset, partition = key
        number = self._numbers.get(asset, _NONE).get(partition)
        if number is None:
            return default
        return StoredLineage(self, asset, partition, number, *self._lacking.get(key, ((), False)))

    def lacks(self, key: tuple[str, str], absent: Sequence[str], aside: bool) -> None:
        """Take note of a row's missing files: ``absent`` and ``aside`` of :class:`Lineage`."""
        self._lacking[key] = absent, aside

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((asset, partition) for asset, numbers in self._numbers.items() for partition in numbers)

    def __len__(self) -> int:
        return len(self.fingerprints)

    def value(self, number: int, name: str) -> Any:
        """Return a field of a row; KeyError if there is none of this name."""
        value = self._column(number // self.TOGETHER, name)[number % self.TOGETHER]
        if name == "inputs":
            digest = self.value(number, "list")
            shared = digest and InputList(lambda: self._listed(digest), digest)
            return together(decoded(value), shared or None)
        return decoded(value) if name in MAPPINGS else value


class StoredLineage(Lineage):
    """A row of :class:`LatestLineage`."""

    def __init__(
        self, rows: LatestLineage, asset: str, partition: str, number: int, absent: Sequence[str], aside: bool
    ) -> None:
        # Not the dataclass's, which would decode all fields; being frozen, they are set past it.
        known = self.__dict__
        known["asset"], known["partition"], known["absent"], known["aside"] = asset, partition, absent, aside
        known["fingerprint"] = rows.fingerprints[number]
        known["_rows"], known["_number"] = rows, number

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            value = self._rows.value(self._number, name)
        except KeyError:
            raise AttributeError(name) from None
        self.__dict__[name] = value
        return value


def rechunked(rows: pa.RecordBatchReader, size: int) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of this size, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    for batch in rows:
        waiting.append(batch)
        if sum(map(len, waiting)) >= size:
            table = pa.Table.from_batches(waiting)
            whole = len(table) - len(table) % size
            yield from table.slice(0, whole).combine_chunks().to_batches(max_chunksize=size)
            waiting = table.slice(whole).to_batches()
    if waiting:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches(max_chunksize=size)


def output_name(asset: str, partition: str) -> str:
    """Return ``asset[partition]``, or the asset's name if it has no partitions."""
    return f"{asset}[{partition}]" if partition else asset
