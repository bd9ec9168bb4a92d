"""One materialization of one output, as the catalog and the lineage files keep it.

What belongs here: its fields, decoded once. What does not: the tables (``resources/catalog.py``), the files
(``resources/lineage_files.py``), whether an output is fresh (``resources/plan.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

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


@dataclass(frozen=True)
class Lineage:
    """A row of the table ``lineage``.

    Attributes
    ----------
    asset, partition : str
        ``partition`` is '' for an asset without partitions.
    fingerprint : str
    run_id : str
        Dagster's.
    inputs : mapping of str to str
        Name of an input to its fingerprint.
    started_at, finished_at : datetime
    rows, bytes : int
        Rows of the output, bytes written.
    files : mapping of str to str
        Name of each file to its SHA-256.
    metadata : mapping
        Numbers and strings to show.
    modified : mapping of str to int
        Name of each file to when it was written, by the clock of its file system or store, in nanoseconds.
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
        """Return what the catalog and a lineage file keep, by column; ``metrics`` only if there are any."""
        row = {
            name: value for name, value in vars(self).items() if name not in ("absent", "aside", "metrics")
        }
        return row if self.metrics is None else row | {"metrics": [vars(metric) for metric in self.metrics]}

    @classmethod
    def from_row(cls, row: Mapping) -> Lineage:
        """Decode a row of the table or of a lineage file.

        Raises
        ------
        ValueError, TypeError
            It is not such a row.
        """
        values = dict(row)
        for name in ("inputs", "files", "metadata", "modified"):
            if isinstance(values[name], str):
                values[name] = json.loads(values[name])
            values[name] = dict(values[name])
        if values.get("metrics") is not None:
            values["metrics"] = [Metric(**metric) for metric in values["metrics"]]
        for name in ("started_at", "finished_at"):
            if isinstance(values[name], str):
                values[name] = datetime.fromisoformat(values[name])
        return cls(**values)


def output_name(asset: str, partition: str) -> str:
    """Return ``asset[partition]``, or the asset's name if it has no partitions."""
    return f"{asset}[{partition}]" if partition else asset
