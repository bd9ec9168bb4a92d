"""What all assets do around their own work: skip what is fresh, isolate failures, record, report.

What belongs here: the loop over a run's partitions, and what Dagster is told about each. What does not: any one asset's
work.

An asset's step yields outputs that are done and in the catalog, with their reports. The asset and the job `refresh` run
the same step. Dagster emits the materializations of a run with many partitions only if the step succeeds. So that
neither one bad file nor a kill loses the record of the others, every output's materialization is an event of its own,
logged as soon as it is recorded: those that were recorded together in one transaction, which takes as long as a tiny
shard. Only assets with one partition a run yield an ordinary result, which the next asset in the run waits for.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from itertools import islice
from types import MappingProxyType
from typing import Any

import dagster as dg

from dsir_dagster.resources.compute import Tell, Threads, Worker
from dsir_dagster.resources.corpus import StoreUnreachable
from dsir_dagster.resources.dagster_private import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    NULL_EVENT_POINTER,
    DagsterEventBatchMetadata,
    extract_data_version_from_entry,
    generate_event_batch_id,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dsir_dagster.resources.database import Database
from dsir_dagster.resources.errors import explained
from dsir_dagster.resources.graph import Context, Made, Report, RunOptions, graph
from dsir_dagster.resources.lineage import Lineage, Metadata, Metric, output_name
from dsir_dagster.resources.plan import Output
from dsir_dagster.resources.plots import Plot
from dsir_dagster.resources.progress import Progress
from dsir_dagster.resources.store import Written
from dsir_dagster.resources.table import Table
from dsir_dagster.resources.workspace import Workspace


class OutputsFailed(dg.Failure):
    """Some outputs of an asset failed; all others are recorded and stay.

    Parameters
    ----------
    asset : str
    errors : mapping of str to Exception
        By output name.
    total : int
        Outputs requested.
    """

    def __init__(self, asset: str, errors: Mapping[str, Exception], total: int) -> None:
        self.errors = dict(errors)
        rest = f"; the other {total - len(errors)} are materialized and stay" if total > len(errors) else ""
        first = f"{len(errors)} of {total} outputs of {asset} failed{rest}.\n" if total > 1 else ""
        super().__init__(
            first + "\n".join(first_of(told(errors))),
            allow_retries=not all(is_input_error(error) for error in errors.values()),
        )


def is_input_error(error: BaseException) -> bool:
    """Whether an error lies in the input or the configuration, so that it recurs until someone repairs these."""
    if isinstance(error, StoreUnreachable):
        return False
    return isinstance(error, ValueError) or (isinstance(error, dg.Failure) and not error.allow_retries)


def told(errors: Mapping[str, Exception]) -> list[str]:
    """Write a line for each error, beginning with the output's name, which the error may already contain."""
    lines = []
    for name, error in sorted(errors.items()):
        text = in_words(error)
        lines.append(text if text.startswith(name) else f"{name}: {text}")
    return lines


def in_words(error: Exception) -> str:
    """Put an error into words, whoever raised it."""
    if isinstance(error, dg.Failure):
        return error.description or str(error)
    own = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return explained(error) or own


def errors_as_failures(step: Callable[..., Iterator]) -> Callable[..., Any]:
    """Make a step, a generator, fail with a message in place of an error whose message says it all.

    Other errors are bugs, whose traceback is wanted.
    """

    @wraps(step)
    def failing(*arguments: Any, **named: Any) -> Iterator:
        try:
            yield from step(*arguments, **named)
            return
        except dg.Failure as error:
            failure = error.with_traceback(None)
        except Exception as error:
            if explained(error) is None:
                raise
            failure = dg.Failure(in_words(error), allow_retries=not is_input_error(error))
        raise failure  # not from `except`, where it would bring the error along

    return failing


def first_of(lines: Sequence[str], shown: int = 20) -> list[str]:
    """Return the first of many lines and, if there are more, how many."""
    more = len(lines) - shown
    return [*lines[:shown], *([f"and {more:,} more"] if more > 0 else [])]


@dataclass
class Result:
    """What computing one output left behind.

    Attributes
    ----------
    rows : int
        Rows of the output.
    files : dict of str to Written
        What was written, by name.
    kept : dict of str to str
        Unchanged files of the output, by name: their recorded checksums.
    metadata : dict
        Numbers and short strings, kept in the lineage and shown in Dagster. A ``note`` is also logged as a warning.
    tables : dict
        Tables and plots, shown in Dagster only.
    metrics : list of Metric, optional
        What an evaluation measured.
    """

    rows: int
    files: dict[str, Written]
    metadata: dict[str, int | float | str]
    tables: dict[str, Table | Plot] = field(default_factory=dict)
    metrics: list[Metric] | None = None
    kept: dict[str, str] = field(default_factory=dict)


#: Computes an output from an item, and tells of its progress (``resources/compute.py``).
Task = Callable[[Worker, Any, Tell], Result]

#: Seconds between two writes to the catalog during a run with many partitions.
RECORD_SECONDS = 0.5

# Longest wait for the catalog, in seconds, that was warned about. Eight processes of this project wait less than the
# initial second for each other.
_told = 1.0


#: Events that Dagster stores in one transaction, at most.
EVENTS = 500


def log_made(context: Context, parents: Iterable[str], made: Made) -> None:
    """Log what a step made as events, with the tags by which Dagster finds out what is *Unsynced*.

    Parameters
    ----------
    context : AssetExecutionContext or OpExecutionContext
        Of an asset with ``output_required=False``, or of an op.
    parents : iterable of str
        Assets it depends on.
    made : Made
    """
    # Without it, Dagster takes them one by one.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(EVENTS))
    step = context.get_step_execution_context()
    of_parents = parent_tags(context.instance, parents)
    for together in made:
        batch = generate_event_batch_id()
        for number, (output, report) in enumerate(together, 1):
            materialization = dg.AssetMaterialization(
                output.asset,
                partition=output.partition or None,
                metadata=report,
                tags={
                    **of_parents,
                    DATA_VERSION_TAG: output.fingerprint,
                    DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
                    CODE_VERSION_TAG: graph()[output.asset].version,
                },
            )
            part = DagsterEventBatchMetadata(batch, is_end=number == len(together))
            dg.DagsterEvent.asset_materialization(step, materialization, part)


def parent_tags(instance: dg.DagsterInstance, parents: Iterable[str]) -> dict[str, str]:
    """Return the tags that tell Dagster that an asset was made of its parents' newest materializations."""
    tags = {}
    for key in map(dg.AssetKey, parents):
        record = instance.get_latest_data_version_record(key)
        version = record and extract_data_version_from_entry(record.event_log_entry)
        tags[get_input_data_version_tag(key)] = (version or DEFAULT_DATA_VERSION).value
        tags[get_input_event_pointer_tag(key)] = str(record.storage_id) if record else NULL_EVENT_POINTER
    return tags


def as_result(made: Made) -> dg.MaterializeResult:
    """Turn the single output of a step into an asset's result."""
    [[(output, report)]] = made
    return dg.MaterializeResult(metadata=report, data_version=dg.DataVersion(output.fingerprint))


def bring_up_to_date(
    context: Context,
    workspace: Workspace,
    asset: str,
    outputs: Sequence[Output],
    task: Task,
    options: RunOptions,
    failed: Mapping[str, Exception] = MappingProxyType({}),
    item_of: Callable[[Output], Any] | None = None,
    work_of: Callable[[Output], int] | None = None,
) -> Made:
    """Bring a run's outputs up to date, independently of each other; yield those that are done and recorded.

    Parameters
    ----------
    context : AssetExecutionContext or OpExecutionContext
    workspace : Workspace
    asset : str
    outputs : sequence of Output
        Of this asset; those that are fresh are reported as such and not computed.
    task : callable
        Computes an output, in a thread of this process or wherever work is done.
    options : RunOptions
    failed : mapping of str to Exception
        Outputs that were asked for and that nothing can be computed from, by name.
    item_of : callable, optional
        Makes the task's item of an output, all of it that the task knows: it is then called wherever work is done. If
        not given, the item is the output, and the task is called in this process.
    work_of : callable, optional
        Returns how much work an output is, in the unit in which the task tells of it. If not given, progress is
        measured in outputs, or in the parts of the only one.

    Raises
    ------
    OutputsFailed
        Some outputs failed; the others are recorded.
    """
    due = [output for output in outputs if output.state != "fresh" or options.force]
    fresh = (output for output in outputs if output.state == "fresh" and not options.force)
    while together := list(islice(fresh, EVENTS)):
        yield [(output, kept_report(context.instance, workspace, output)) for output in together]
    if len(due) < len(outputs):
        context.log.info(f"{asset}: {len(outputs) - len(due)} of {len(outputs)} outputs are fresh and stay")
    if due:
        context.log.info(reasons(due))
    failures = dict(failed)
    name = due[0].name if len(due) == 1 else asset
    progress = Progress(name, len(due), context.log.info, sum(map(work_of, due)) if work_of else 0)
    run_id = context.run.run_id

    compute = Threads(workspace.worker) if item_of is None else workspace.compute
    items = due if item_of is None else map(item_of, due)
    attempts = compute.map_outputs(_Attempt(task), items, progress.add, RECORD_SECONDS)

    # Opening the catalog costs as much as a small shard, so lineage is recorded twice a second. Whatever a killed run
    # had not recorded is computed again.
    unrecorded: list[tuple[Output, Lineage, Result]] = []
    recorded_at = time.monotonic()

    def record() -> Made:
        if unrecorded:
            workspace.catalog.record([lineage for _, lineage, _ in unrecorded])
            yield [
                (each, _report(workspace, each, result.metadata, result.tables, each.why or "forced"))
                for each, _, result in unrecorded
            ]
            unrecorded.clear()

    try:
        for attempted in attempts:
            progress.tick()
            if attempted is None:  # long work is under way: what is done need not wait for it
                yield from record()
                recorded_at = time.monotonic()
                continue
            number, outcome = attempted
            output = due[number]
            progress.add(partitions=1)
            if isinstance(outcome, Exception):
                failures[output.name] = outcome
                bug = outcome if explained(outcome) is None and not isinstance(outcome, dg.Failure) else None
                context.log.error(f"{output.name}: {in_words(outcome)}", exc_info=bug)
                continue
            result = outcome.result
            if "note" in result.metadata:
                context.log.warning(f"{output.name}: {result.metadata['note']}")
            unrecorded.append((output, outcome.lineage(output, run_id), result))
            if time.monotonic() - recorded_at >= RECORD_SECONDS:
                yield from record()
                recorded_at = time.monotonic()
        yield from record()
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        workspace.stop()
        raise
    finally:
        progress.end()
    if due:
        context.log.info(str(progress))
    tell_of_waiting(context.log)
    if failures:
        try:
            record_input_errors(workspace, due, failures, run_id)
        except Exception as error:  # the failures themselves are raised in any case
            context.log.error(f"the failures are not recorded: {in_words(error)}")
        raise OutputsFailed(asset, failures, len(outputs) + len(failed))


@dataclass(frozen=True)
class Attempted:
    """An output that was computed: its result, when it began and ended."""

    result: Result
    started: datetime
    finished: datetime

    def lineage(self, output: Output, run_id: str) -> Lineage:
        """Return the row to record."""
        kept = self.result.kept
        return Lineage(
            output.asset,
            output.partition,
            output.fingerprint,
            run_id,
            output.inputs,
            self.started,
            self.finished,
            self.result.rows,
            int(self.result.metadata["bytes_written"]),
            {name: file.checksum for name, file in self.result.files.items()} | kept,
            self.result.metadata,
            {name: file.modified for name, file in self.result.files.items()}
            | {name: when for name, when in (output.made.modified if kept else {}).items() if name in kept},
            metrics=self.result.metrics,
            why=output.why or "forced",
        )


@dataclass(frozen=True)
class _Attempt:
    """Computes an output by a task."""

    task: Task

    def __call__(self, worker: Worker, item: Any, tell: Tell) -> Attempted:
        started = datetime.now(UTC)
        result = self.task(worker, item, tell)
        result.metadata["bytes_written"] = sum(file.bytes for file in result.files.values())
        return Attempted(result, started, datetime.now(UTC))


def record_input_errors(
    workspace: Workspace, due: Sequence[Output], failures: Mapping[str, Exception], run_id: str
) -> None:
    """Record which outputs failed because of their input, so that nothing tries them again until it changes."""
    unusable = [
        {
            "asset": output.asset,
            "partition": output.partition,
            "fingerprint": output.fingerprint,
            "run_id": run_id,
            "error": in_words(failures[output.name]),
        }
        for output in due
        if output.name in failures and is_input_error(failures[output.name])
    ]
    if unusable:
        workspace.catalog.record_failures(unusable)


def one_by_one(asset: str, steps: Mapping[str, Callable[[], Made]]) -> Made:
    """Run the steps of some outputs one after the other, so that each has all threads; a failure stops no other.

    Parameters
    ----------
    asset : str
    steps : mapping of str to callable
        By partition; each makes one output.

    Raises
    ------
    OutputsFailed
        As :func:`bring_up_to_date`.
    """
    errors: dict[str, Exception] = {}
    for partition, step in steps.items():
        try:
            yield from step()
        except OutputsFailed as failure:
            errors |= failure.errors
        except (dg.Failure, ValueError) as error:
            errors[output_name(asset, partition)] = error
    if errors:
        raise OutputsFailed(asset, errors, len(steps))


def kept_report(instance: dg.DagsterInstance, workspace: Workspace, output: Output) -> Report:
    """Return what Dagster shows of a fresh output: what it showed when it was made, plots and tables included."""
    report = _report(workspace, output, output.made.metadata, {}, "fresh, not recomputed")
    record = newest_materialization(instance, output)
    materialization = record.asset_materialization if record else None
    shown = materialization.metadata if materialization else {}
    made = shown.get("fingerprint")
    return {**shown, **report} if made and made.value == output.fingerprint else report


def newest_materialization(instance: dg.DagsterInstance, output: Output) -> dg.EventLogRecord | None:
    """Return the event of an output's newest materialization known to Dagster."""
    partitions = [output.partition] if output.partition else None
    of_output = dg.AssetRecordsFilter(dg.AssetKey(output.asset), asset_partitions=partitions)
    return next(iter(instance.fetch_materializations(of_output, limit=1).records), None)


def reasons(due: Sequence[Output]) -> str:
    """Write a line for each of the first twenty outputs, with its state and the reason, as one event of the log."""
    return "\n".join(first_of([f"{output.name}: {output.state}, {output.why or 'forced'}" for output in due]))


def tell_of_waiting(log: dg.DagsterLogManager) -> None:
    """Warn if this process has waited longer for the catalog than it warned about so far."""
    global _told
    if Database.longest_wait > _told:
        _told = Database.longest_wait
        log.warning(f"waited {_told:.1f} s for the catalog: an open DuckDB shell?")


def _report(
    workspace: Workspace, output: Output, metadata: Metadata, tables: Mapping[str, Table | Plot], why: str
) -> Report:
    """Build Dagster's metadata: floats rounded, tables and plots as markdown."""
    shown: dict[str, int | float | str | dg.MetadataValue] = {"why": why, "fingerprint": output.fingerprint}
    for key, value in metadata.items():
        shown[key] = float(f"{value:.6g}") if isinstance(value, float) else value
        if key in ("folder", "report"):  # names; the home may have moved
            shown[key] = dg.MetadataValue.path(workspace.store.where(str(value)))
    return shown | {key: dg.MetadataValue.md(each.markdown) for key, each in tables.items()}


def rate(n_bytes: int, started: float) -> float:
    """Return MB/s since ``started`` (``time.monotonic``)."""
    return n_bytes / 1e6 / max(time.monotonic() - started, 1e-9)
