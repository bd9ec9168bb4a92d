"""What all assets do around their own work: skip what is fresh, isolate failures, record, report.

What belongs here: the loop over a run's partitions. What does not: any one asset's work.

Dagster emits the materializations of a run with many partitions when the step succeeds, and none when it
fails. So that one bad file does not take the others' record with it, a failing step first logs the
materialization of each partition that was done, then raises; a retry finds those fresh and skips them.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg
import pyarrow as pa

from resources.catalog import Catalog, Lineage
from resources.plan import Output
from resources.progress import Progress
from resources.workspace import Workspace


class RunOptions(dg.Config):
    """Options of a run that recomputes outputs; change them in the launchpad.

    Attributes
    ----------
    force : bool
        Recompute outputs even where they are fresh.
    """

    force: bool = False


@dataclass
class Result:
    """What computing one output left behind.

    Attributes
    ----------
    rows, bytes : int
        Rows of the output; bytes written.
    metadata : dict
        Numbers and short strings: kept in the lineage and shown in Dagster.
    tables : dict
        Markdown tables, shown in Dagster only.
    metrics : pyarrow.Table, optional
        Rows for the table ``evaluations``.
    """

    rows: int
    bytes: int
    metadata: dict[str, int | float | str]
    tables: dict[str, str] = field(default_factory=dict)
    metrics: pa.Table | None = None


Compute = Callable[[Output, Progress], Result]


def materialize(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    outputs: Iterable[Output],
    compute: Compute,
    options: RunOptions,
) -> None:
    """Bring the outputs of a run up to date, each on its own.

    Parameters
    ----------
    context : AssetExecutionContext
    workspace : Workspace
    outputs : iterable of Output
        Of one asset; those that are fresh are reported as such and not computed.
    compute : callable
        Takes an output and the progress to add to. Called from several threads.
    options : RunOptions

    Raises
    ------
    dagster.Failure
        Some outputs failed; the description names each with its error. The others are recorded.
    """
    outputs = list(outputs)
    fresh = [output for output in outputs if output.state == "fresh" and not options.force]
    due = [output for output in outputs if output not in fresh]
    asset = context.asset_key.to_user_string()
    if fresh:
        context.log.info(f"{asset}: {len(fresh)} of {len(outputs)} outputs are fresh and stay as they are")
    for output in due[:20]:
        context.log.info(f"{output.name} is {output.state}: {output.why or 'forced'}")
    reports = {output.partition: _report(output.found["metadata"], {}, "fresh") for output in fresh}
    failures: dict[str, Exception] = {}
    progress = Progress(asset, len(due), context.log.info)

    def attempt(output: Output) -> tuple[Output, Result | Exception, datetime]:
        started = datetime.now(UTC)
        try:
            return output, compute(output, progress), started
        except Exception as error:  # whatever it is, it must not stop the other partitions
            return output, error, started

    recorder = Recorder(workspace.catalog)
    try:
        for output, result, started in workspace.engine.map_outputs(attempt, due):
            progress.add(partitions=1)
            if isinstance(result, Exception):
                failures[output.name] = result
                context.log.error(f"{output.name}: {result}", exc_info=result)
                continue
            recorder.add(
                Lineage(
                    output.asset,
                    output.partition,
                    output.fingerprint,
                    context.run.run_id,
                    output.inputs,
                    started,
                    datetime.now(UTC),
                    result.rows,
                    result.bytes,
                    result.metadata,
                ),
                result.metrics,
            )
            reports[output.partition] = _report(result.metadata, result.tables, output.state)
            reports[output.partition]["fingerprint"] = output.fingerprint
    finally:
        recorder.flush()
    if due:
        context.log.info(str(progress))
    if failures:
        for partition, report in reports.items():
            context.log_event(
                dg.AssetMaterialization(
                    asset_key=context.asset_key, partition=partition or None, metadata=report
                )
            )
        raise dg.Failure(
            f"{len(failures)} of {len(outputs)} outputs of {asset} failed; "
            f"the other {len(reports)} are materialized and stay.\n"
            + "\n".join(f"{name}: {error}" for name, error in failures.items()),
            allow_retries=not all(isinstance(error, ValueError) for error in failures.values()),
        )
    for partition, report in reports.items():
        context.add_asset_metadata(report, partition_key=partition or None)


class Recorder:
    """Record lineage in the catalog, at most every half second: opening it costs as much as a small shard.

    What a killed run had not recorded yet is computed again.
    """

    INTERVAL = 0.5

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiting: list[Lineage] = []
        self._metrics: dict[str, pa.Table] = {}
        self._last = time.monotonic()

    def add(self, lineage: Lineage, metrics: pa.Table | None) -> None:
        """Take one materialization; record all that wait if it is time."""
        self._waiting.append(lineage)
        if metrics is not None:
            self._metrics[lineage.partition] = metrics
        if time.monotonic() - self._last >= self.INTERVAL:
            self.flush()

    def flush(self) -> None:
        """Record all that wait."""
        self._catalog.record(self._waiting, self._metrics)
        self._waiting, self._metrics = [], {}
        self._last = time.monotonic()


def _report(metadata: dict, tables: dict[str, str], state: str) -> dict[str, object]:
    """Build Dagster's metadata: floats rounded for reading, tables as markdown."""
    shown: dict[str, object] = {"state": "fresh, not recomputed" if state == "fresh" else f"was {state}"}
    for key, value in metadata.items():
        shown[key] = float(f"{value:.6g}") if isinstance(value, float) else value
    return shown | {key: dg.MetadataValue.md(text) for key, text in tables.items()}


def markdown_table(header: list[str], rows: Iterable[Iterable[object]]) -> str:
    """Write a markdown table; numbers get thousands separators."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        if isinstance(value, int):
            return f"{value:,}"
        return str(value).replace("|", "\\|").replace("\n", " ")

    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(cell(value) for value in row) + " |" for row in rows)])


def rate(n_bytes: int, started: float) -> float:
    """Return MB/s since ``started`` (``time.monotonic``)."""
    return n_bytes / 1e6 / max(time.monotonic() - started, 1e-9)
