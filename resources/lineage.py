"""One materialization of one output, as the catalog and the lineage files keep it.

What belongs here: its fields, and decoding them, once. What does not: the tables (``resources/catalog.py``), the
files (``resources/lineage_files.py``), whether an output is fresh (``resources/plan.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

#: What the lineage says of a materialization beside its inputs; Dagster shows the same.
Metadata = Mapping[str, int | float | str]


@dataclass(frozen=True)
class Metric:
    """A number that an evaluation measured: a row of the table ``evaluations``, whose columns it describes.

    Attributes
    ----------
    target : str
        '' where it does not belong to one target, or is the mean over all.
    metric : str
        What was measured.
    pick : str
        Of which documents: `selection`, `pool`, `random`, a method's name; `seed` for the selection under another seed.
    statistic : str
        `value`, the ends of its interval `low` and `high`, or the standard deviation `sd` over seeds.
    source : str
        '' where it does not belong to one source.
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
        Path below DSIR_HOME to the SHA-256 of the file.
    metadata : mapping
        Numbers and strings to show.
    modified : mapping of str to int
        Path to when the file was written, by the file system's clock: nanoseconds. The catalog fills it in.
    sequence : int
        Number of the transaction that recorded it; the catalog fills it in.
    metrics : sequence of Metric, optional
        Of an evaluation: what it measured, which replaces what was measured of the selection before.
    absent : sequence of str
        Its files that are not there, as :meth:`resources.workspace.Workspace.latest` finds out.
    aside : bool
        Whether ``dsir verify`` took one of them away.
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
        """``asset[partition]``, or the asset's name where there are no partitions."""
        return output_name(self.asset, self.partition)

    def mapping(self, name: str) -> dict:
        """Return a mapping that the metadata hold as JSON; empty where they have none of this name."""
        return json.loads(str(self.metadata.get(name, "{}")))

    def to_row(self) -> dict[str, object]:
        """Return what the catalog and a lineage file keep, by column; ``metrics`` only where there are some."""
        row = {
            name: value for name, value in vars(self).items() if name not in ("absent", "aside", "metrics")
        }
        return row if self.metrics is None else row | {"metrics": [vars(metric) for metric in self.metrics]}

    @classmethod
    def from_row(cls, row: Mapping) -> Lineage:
        """Return the row of a table or a lineage file, its mappings and times decoded.

        Raises
        ------
        ValueError, TypeError
            It is not one.
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
    """Return ``asset[partition]``, or the asset's name where there are no partitions."""
    return f"{asset}[{partition}]" if partition else asset
