"""What all assets do around their own work: skip what is fresh, isolate failures, record, report.

What belongs here: the loop over a run's partitions. What does not: any one asset's work.

Dagster emits the materializations of a run with many partitions when the step succeeds, and none when it
fails. So that neither one bad file nor a kill takes the others' record with it, assets of many partitions
have no output of their own: each partition's materialization is an event, yielded once it is done and in the
catalog. Assets of one partition a run yield an ordinary result, for which the next asset in the run waits.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import dagster as dg
import pyarrow as pa

from resources.borders import markdown
from resources.catalog import Catalog, Lineage
from resources.corpus import content_stamp
from resources.errors import explained
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
    rows : int
        Rows of the output.
    files : list of Path
        What was written.
    kept : dict of str to str
        Files of the output that are what they were, by name below DSIR_HOME: the checksums they were recorded with.
    metadata : dict
        Numbers and short strings: kept in the lineage and shown in Dagster.
    tables : dict
        Markdown tables, shown in Dagster only.
    metrics : pyarrow.Table, optional
        Rows for the table ``evaluations``.
    """

    rows: int
    files: list[Path]
    metadata: dict[str, int | float | str]
    tables: dict[str, str] = field(default_factory=dict)
    metrics: pa.Table | None = None
    kept: dict[str, str] = field(default_factory=dict)


Compute = Callable[[Output, Progress], Result]

#: Seconds between two records in the catalog during a run of many partitions.
RECORD_SECONDS = 0.5

# Seconds of waiting for the catalog that there was a warning of. Eight of this project's processes wait less for
# each other than the second that this begins with.
_told = 1.0


def materialize_many(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    workspace: Workspace,
    asset: str,
    outputs: Sequence[Output],
    compute: Compute,
    options: RunOptions,
    failed: Mapping[str, Exception] = MappingProxyType({}),
) -> Iterator[dg.AssetMaterialization]:
    """Bring the outputs of a run up to date, each on its own; yield an event for each that is.

    Parameters
    ----------
    context : AssetExecutionContext or OpExecutionContext
        Of an asset with ``output_required=False``, or of an op without outputs.
    workspace : Workspace
    asset : str
    outputs : sequence of Output
        Of this asset; those that are fresh are reported as such and not computed.
    compute : callable
        Takes an output and the progress to add to. Called from several threads.
    options : RunOptions
    failed : mapping of str to Exception
        Outputs that were asked for and that nothing can be computed from, by name.

    Raises
    ------
    dagster.Failure
        Some outputs failed; the description names each with its error. The others are recorded.
    """
    for output, report in bring_up_to_date(context, workspace, asset, outputs, compute, options, failed):
        yield dg.AssetMaterialization(output.asset, partition=output.partition, metadata=report)


def materialize_one(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    output: Output,
    compute: Compute,
    options: RunOptions,
) -> dg.MaterializeResult:
    """Bring one output up to date; return its materialization. As :func:`materialize_many`."""
    [(output, report)] = bring_up_to_date(context, workspace, output.asset, [output], compute, options)
    return dg.MaterializeResult(metadata=report, data_version=dg.DataVersion(output.fingerprint))


def bring_up_to_date(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    workspace: Workspace,
    asset: str,
    outputs: Sequence[Output],
    compute: Compute,
    options: RunOptions,
    failed: Mapping[str, Exception] = MappingProxyType({}),
) -> Iterator[tuple[Output, dict[str, object]]]:
    """Compute what is due, record it in the catalog, then yield it with what Dagster is to show of it.

    Parameters and errors as those of :func:`materialize_many`.
    """
    due = []
    for output in outputs:
        if output.state == "fresh" and not options.force:
            yield output, _report(workspace, output, output.found["metadata"], {}, "fresh, not recomputed")
        else:
            due.append(output)
    if len(due) < len(outputs):
        context.log.info(f"{asset}: {len(outputs) - len(due)} of {len(outputs)} outputs are fresh and stay")
    if due:
        context.log.info(reasons(due))
    failures = dict(failed)
    progress = Progress(asset, len(due), context.log.info)

    def attempt(output: Output) -> tuple[Output, Result | Exception, dict[str, str], datetime]:
        started = datetime.now(UTC)
        try:
            result = compute(output, progress)
            result.metadata["bytes_written"] = sum(file.stat().st_size for file in result.files)
            files = {str(file.relative_to(workspace.home)): content_stamp(str(file)) for file in result.files}
            return output, result, files | result.kept, started
        except Exception as error:  # whatever it is, it must not stop the other partitions
            return output, error, {}, started

    # Opening the catalog costs as much as a small shard, so lineage is recorded twice a second. What a
    # killed run had not recorded is computed again.
    unrecorded: list[tuple[Output, Lineage, Result]] = []
    recorded_at = time.monotonic()

    def record() -> Iterator[tuple[Output, dict[str, object]]]:
        metrics = {each.partition: result.metrics for each, _, result in unrecorded if result.metrics}
        workspace.catalog.record([lineage for _, lineage, _ in unrecorded], metrics)
        for each, _, result in unrecorded:
            yield each, _report(workspace, each, result.metadata, result.tables, each.why or "forced")
        unrecorded.clear()

    for output, result, files, started in workspace.engine.map_outputs(attempt, due):
        progress.add(partitions=1)
        if isinstance(result, Exception):
            failures[output.name] = result
            context.log.error(f"{output.name}: {result}", exc_info=result)
            continue
        lineage = Lineage(
            output.asset,
            output.partition,
            output.fingerprint,
            context.run.run_id,
            output.inputs,
            started,
            datetime.now(UTC),
            result.rows,
            result.metadata["bytes_written"],
            files,
            result.metadata,
        )
        unrecorded.append((output, lineage, result))
        if time.monotonic() - recorded_at >= RECORD_SECONDS:
            yield from record()
            recorded_at = time.monotonic()
    yield from record()
    if due:
        context.log.info(str(progress))
    tell_of_waiting(context.log)
    if failures:
        raise dg.Failure(
            f"{len(failures)} of {len(outputs) + len(failed)} outputs of {asset} failed; "
            f"the other {len(outputs) + len(failed) - len(failures)} are materialized and stay.\n"
            + "\n".join(f"{name}: {explained(error) or error}" for name, error in failures.items()),
            allow_retries=not all(isinstance(error, ValueError) for error in failures.values()),
        )


def reasons(due: Sequence[Output]) -> str:
    """Say of outputs what state they are in and why, a line each, in one event of the log; of the first twenty."""
    lines = [f"{output.name}: {output.state}, {output.why or 'forced'}" for output in due[:20]]
    return "\n".join([*lines, *([f"and {len(due) - 20} more"] if len(due) > 20 else [])])


def tell_of_waiting(log: dg.DagsterLogManager) -> None:
    """Warn if this process waited for the catalog, in this step or before, longer than it told of so far."""
    global _told
    if Catalog.longest_wait > _told:
        _told = Catalog.longest_wait
        log.warning(f"waited {_told:.1f} s for the catalog: an open DuckDB shell?")


def _report(
    workspace: Workspace, output: Output, metadata: dict, tables: dict[str, str], why: str
) -> dict[str, object]:
    """Build Dagster's metadata: floats rounded for reading, tables as markdown."""
    shown: dict[str, object] = {"why": why, "fingerprint": output.fingerprint}
    for key, value in metadata.items():
        shown[key] = float(f"{value:.6g}") if isinstance(value, float) else value
        if key in ("folder", "report"):  # paths below the home, which may have been moved
            shown[key] = dg.MetadataValue.path(str(workspace.home / value))
    return shown | {key: dg.MetadataValue.md(str(text)) for key, text in tables.items()}


def markdown_table(header: list[str], rows: Iterable[Iterable[object]]) -> str:
    """Write a markdown table; numbers get thousands separators, text stands in it as it is, whatever it is."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
        if isinstance(value, int):
            return f"{value:,}"
        return markdown(str(value))

    lines = ["| " + " | ".join(map(cell, header)) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(cell(value) for value in row) + " |" for row in rows)])


def rate(n_bytes: int, started: float) -> float:
    """Return MB/s since ``started`` (``time.monotonic``)."""
    return n_bytes / 1e6 / max(time.monotonic() - started, 1e-9)
