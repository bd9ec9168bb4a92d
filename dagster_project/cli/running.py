"""``dsir run``: bringing everything up to date, and what is said of it.

What belongs here: a line for each asset, the warnings and errors of its outputs. What does not: what is due and how it
runs (``dagster_project/runs.py``), the bar meanwhile (``dagster_project/progress_bar.py``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import nullcontext

import dagster as dg

from dsir.compilation import load_numba, warm_up
from dsir_dagster.assets.materialize import first_of
from dsir_dagster.assets.measuring.counts import independent_spec
from dsir_dagster.cli.options import Shared, err, out
from dsir_dagster.instance import open_instance
from dsir_dagster.progress_bar import shown_progress
from dsir_dagster.refresh import Stage
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.corpus.scanner import scan
from dsir_dagster.resources.lineage import Lineage
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.runs import run_refresh
from dsir_dagster.terminal import Terminal, Text, lines


def bring_up_to_date(shared: Shared) -> int:
    """Run what is due; return the exit code."""
    started = time.monotonic()
    workspace = shared.workspace()
    plan = workspace.plan()
    for name, why in plan.unreadable_targets.items():
        err.print(lines(f"target {name}: {why}", "yellow"))
    measuring = any(each.state != "fresh" for each in plan.outputs_of("evaluations"))
    if measuring or plan.uncounted or len(plan.counted_targets) < len(workspace.settings.targets):
        settings = workspace.settings
        load_numba()
        warm_up(settings.features.spec(), shared.say, independent_spec(settings) if measuring else None)
        scan(b"{}", 1, ("text",))  # for two seconds at the first use, the threads would all wait for it
    warnings: list[str] = []
    loggers = None if shared.verbose else {"console": quiet_logger(warnings)}
    failed = recomputed = 0
    with open_instance(workspace.home) as instance:
        with nullcontext() if shared.quiet or shared.verbose else shown_progress(Terminal(stderr=True)):
            for stage in run_refresh(workspace, instance, loggers):
                failed += len(stage.failed)
                recomputed += len(stage.due)
                if stage.failed or not shared.quiet:
                    out.print(stage_line(stage, workspace))
                for text in warnings:
                    err.print(lines(f"  {text}", "yellow"))
                warnings.clear()
                for text in first_of(stage.errors):
                    err.print(lines(f"  {text}", "red"))
    seconds = time.monotonic() - started
    if failed:
        err.print(
            Text(
                f"{several(failed, 'output')} failed after {seconds:.1f} s; finished outputs stay, and the next "
                "`dsir run` makes only the rest",
                style="red",
            )
        )
        return 1
    if not recomputed:
        out.print(f"everything is fresh, nothing was recomputed ({seconds:.1f} s)")
    else:
        out.print(f"up to date after {seconds:.1f} s")
    return 0


def stage_line(stage: Stage, workspace: Workspace) -> Text:
    """Summarize what became of one asset."""
    if stage.waited_for:
        return Text(
            f"- {stage.asset:<21}not begun: nothing to work on after {', '.join(stage.waited_for)}", "dim"
        )
    done = {}
    if stage.due:
        latest = workspace.catalog.latest()
        for output in stage.due:
            row = latest.get((output.asset, output.partition))
            if row and row.run_id == stage.run_id:
                done[output.partition] = row
    parts = [f"{len(done)} recomputed"] if stage.due else []
    if stage.fresh:
        parts.append(f"{stage.fresh} fresh")
    if stage.failed:
        parts.append(f"{len(stage.failed)} failed")
    if stage.left_out:
        parts.append(f"{len(stage.left_out)} left out ({'; '.join(dict.fromkeys(stage.left_out.values()))})")
    documents = _total(done.values(), "documents")
    if documents and stage.asset != "evaluations":
        parts.append(f"{documents:,} documents")
    n_bytes = _total(done.values(), "text_bytes")
    if n_bytes:
        parts.append(f"{n_bytes / 1e6:,.1f} MB")
        seconds = (
            max(row.finished_at for row in done.values()) - min(row.started_at for row in done.values())
        ).total_seconds()
        parts.append(f"{n_bytes / 1e6 / max(seconds, 1e-3):,.0f} MB/s")
    rejected = _total(done.values(), "quarantined_rows")
    if rejected:
        parts.append(f"{several(int(rejected), 'row')} quarantined")
    mark, style = ("✗", "red") if stage.failed else ("✓", "green")
    return Text().append(mark, style).append(f" {stage.asset:<21}{', '.join(parts) or 'nothing to do'}")


def _total(rows: Iterable[Lineage], name: str) -> float:
    """Add up a number in the metadata of some lineage."""
    values = (row.metadata.get(name) for row in rows)
    return sum(value for value in values if isinstance(value, int | float))


def quiet_logger(warnings: list[str]) -> dg.LoggerDefinition:
    """Return a Dagster logger that collects each warning once for the terminal; the UI shows the rest."""
    told: set[str] = set()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", None) or {}
            text = meta.get("orig_message") or record.getMessage()
            if record.levelno == logging.WARNING and text not in told:
                told.add(text)
                warnings.append(text)

    @dg.logger
    def console(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("dsir", logging.WARNING)
        logger.addHandler(Keep())
        return logger

    return console
