"""Select documents that are distributed like a target: DSIR as a Dagster asset graph on DuckDB.

The commands: ``dsir init``, ``dsir doctor``, ``dsir run``, ``dsir status``, ``dsir report``, ``dsir why``,
``dsir changes``, ``dsir verify``, ``dsir prune``.

What belongs here: arguments, exit codes, and the output of short commands. What does not: what is due and how it runs
(``dagster_project/runs.py``), the output of commands with a module of their own (``report``, ``status``, ``why``, …).

Exit codes: 0 done, 1 something failed (named on standard error), 2 the configuration is invalid, 130 stopped by Ctrl-C,
143 by SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dagster as dg
from rich.live import Live

from dsir.compilation import warm_up
from dsir_dagster.assets.materialize import first_of
from dsir_dagster.changes import print_changes
from dsir_dagster.comparison import print_comparison
from dsir_dagster.definitions import DEFAULT_CONFIG, DEFAULT_HOME
from dsir_dagster.doctor import examine
from dsir_dagster.doctor.printing import print_doctor
from dsir_dagster.instance import open_instance
from dsir_dagster.prune import find_leftovers, print_leftovers, remove_leftovers
from dsir_dagster.refresh import Stage
from dsir_dagster.report import print_report
from dsir_dagster.resources import progress
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.catalog import Rebuilt
from dsir_dagster.resources.errors import explained
from dsir_dagster.resources.lineage import Lineage, output_name
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.verification import rebuild_catalog, verify_files
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.runs import run_refresh
from dsir_dagster.signals import Signals
from dsir_dagster.status import print_absent, print_status, shorten
from dsir_dagster.terminal import Terminal, Text, lines, write_anything
from dsir_dagster.why import print_why

# A file or a pipe has no width of its own, but for what COLUMNS says.
out = Terminal(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
err = Terminal(stderr=True, soft_wrap=True)

#: Damaged files listed by name.
SHOWN = 20

#: Commands that need an existing home, and must not create one.
NEED_A_HOME = ("report", "why", "changes", "verify", "prune")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="dsir", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, function, text in (
        ("doctor", doctor, "before a run: look at targets and pool for likely trouble"),
        ("run", run, "bring everything that is missing or stale up to date"),
        ("status", status, "show what is fresh, stale or missing, and why"),
        ("report", report, "show the selections: composition, KL reduction, where they are"),
        ("why", why, "explain why a document is in a selection, or is not"),
        (
            "changes",
            changes,
            "show which documents entered or left between two versions of a selection, and why",
        ),
        (
            "prune",
            prune,
            "show, and with --yes remove, old versions and outputs that no configuration refers to",
        ),
        ("verify", verify, "read every output and compare it with its checksum"),
        ("init", init, "prepare the home folder and register the shards, for the Dagster UI"),
    ):
        default = Path(os.environ.get("DSIR_CONFIG") or DEFAULT_CONFIG)
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        command.add_argument(
            "--config",
            type=Path,
            nargs="+" if name == "prune" else None,
            default=[default] if name == "prune" else default,
            help="the YAML file (default: DSIR_CONFIG, else the demo's)"
            + ("; all that share the home" if name == "prune" else ""),
        )
        command.add_argument(
            "--home",
            type=Path,
            default=Path(os.environ.get("DSIR_HOME") or DEFAULT_HOME),
            help="folder of outputs and catalog (default: DSIR_HOME, else .dsir)",
        )
        if name == "why":
            command.add_argument("doc_id", help="id of a document")
            command.add_argument("--selection", required=True, help="name of a selection")
        if name == "changes":
            command.add_argument("selection", help="name of a selection")
            command.add_argument("old", nargs="?", help="number or fingerprint (default: the one before)")
            command.add_argument("new", nargs="?", help="number or fingerprint (default: the newest)")
        if name == "prune":
            command.add_argument("--yes", action="store_true", help="remove them")
        if name == "verify":
            command.add_argument(
                "--rebuild",
                action="store_true",
                help="first rebuild the catalog from its last copy and the outputs' lineage files",
            )
        if name == "report":
            command.add_argument(
                "--html",
                type=Path,
                nargs="?",
                const=Path(),
                metavar="PATH",
                help="write a page that compares all selections of the home (default: report.html in it)",
            )
        if name == "status":
            command.add_argument("--all", action="store_true", help="list the fresh partitions too")
    write_anything(sys.stdout, sys.stderr)
    options = parser.parse_args(arguments)
    with Signals() as signals:
        try:
            return call(options)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            rest = (
                "; finished outputs stay, and `dsir run` goes on from there"
                if options.command == "run"
                else ""
            )
            err.print(f"stopped{rest}", style="yellow")
            return signals.exit_code


def call(options: argparse.Namespace) -> int:
    """Run a command; return the exit code. Errors are reported in a line."""
    if options.command in NEED_A_HOME and not options.home.exists():
        err.print(
            f"{options.home}: there is no home here; `dsir run` creates one, or name another with --home",
            style="red",
        )
        return 1
    try:
        return options.function(options)
    except ConfigError as error:
        err.print(lines(str(error), "red"))
        return 2
    except dg.Failure as error:
        err.print(lines(error.description or str(error), "red"))
        return 1
    except Exception as error:
        said = explained(error)
        if said is None:  # a bug: the traceback helps whoever fixes it
            raise
        err.print(lines(said, "red"))
        return 1


def init(options: argparse.Namespace) -> int:
    """Prepare DAGSTER_HOME, the catalog and the partitions of the shards."""
    workspace = Workspace(options.config, options.home)
    plan = workspace.plan()
    with open_instance(workspace.home) as instance:
        new = register_shards(instance, plan)
    out.print(f"{len(plan.shards)} shards, {len(new)} of them new; outputs go to {workspace.home}")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Look for likely trouble; warnings are not failures."""
    workspace = Workspace(options.config, options.home)
    warm_up(workspace.settings.features.spec(), lambda text: out.print(text, style="dim"))
    print_doctor(*examine(workspace), out)
    return 0


def run(options: argparse.Namespace) -> int:
    """Bring everything up to date, with progress."""
    started = time.monotonic()
    workspace = Workspace(options.config, options.home)
    plan = workspace.plan()
    if plan.uncounted or len(plan.counted_targets) < len(workspace.settings.targets):
        warm_up(workspace.settings.features.spec(), lambda text: out.print(text, style="dim"))
    warnings: list[str] = []
    failed = recomputed = 0
    with open_instance(workspace.home) as instance:
        with live_progress():
            for stage in run_refresh(workspace, instance, {"console": quiet_logger(warnings)}):
                failed += len(stage.failed)
                recomputed += len(stage.due)
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
        parts.append(f"{rejected:,} rows quarantined")
    mark, style = ("✗", "red") if stage.failed else ("✓", "green")
    return Text().append(mark, style).append(f" {stage.asset:<21}{', '.join(parts) or 'nothing to do'}")


def _total(rows: Iterable[Lineage], name: str) -> float:
    """Add up a number in the metadata of some lineage."""
    values = (row.metadata.get(name) for row in rows)
    return sum(value for value in values if isinstance(value, int | float))


@contextmanager
def live_progress() -> Iterator[None]:
    """On a terminal, show the documents, MB and MB/s of the running step in one line."""
    with Live(console=out, refresh_per_second=8, transient=True) as live:

        def show(state: progress.Progress) -> None:
            live.update(Text(f"  {state}", style="cyan") if state.done < state.partitions else Text(""))

        progress.listeners.append(show)
        try:
            yield
        finally:
            progress.listeners.remove(show)


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


def status(options: argparse.Namespace) -> int:
    """List the outputs that are not fresh, with the reason, and count the rest."""
    print_status(Workspace(options.config, options.home), options.all, out)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Read every output; name damaged ones, and set them aside with all that was made from them.

    With --rebuild, rebuild the catalog first.
    """
    workspace = Workspace(options.config, options.home)
    with workspace.lock.exclusive(lambda text: out.print(text, style="dim")):
        if options.rebuild:
            print_rebuilt(rebuild_catalog(workspace), workspace)
        verified = verify_files(workspace)
    damages = verified.damages
    if not damages:
        out.print("every file is as it was written")
        return 0
    for each in damages[:SHOWN]:
        err.print(Text(f"{each.output}: {workspace.store.where(each.file)} {each.what}", style="red"))
    if len(damages) > SHOWN:
        err.print(Text(f"and {len(damages) - SHOWN} more", style="red"))
    for asset in dict.fromkeys(asset for asset, _ in verified.followers):
        names = [output_name(*key) for key in verified.followers if key[0] == asset]
        err.print(Text(f"made from damaged files, so set aside too: {shorten(names)}", style="yellow"))
    total = f"{len(damages)} files are" if len(damages) > 1 else "1 file is"
    err.print(
        f"{total} damaged or gone; what was there is in {workspace.home / 'damaged'}, and "
        "`dsir run` makes all of it again"
    )
    return 1


def print_rebuilt(rebuilt: Rebuilt, workspace: Workspace) -> None:
    """Say what the catalog was rebuilt from."""
    source = (
        f"{rebuilt.kept} materializations from {rebuilt.source}" if rebuilt.source else "none from a copy"
    )
    text = f"{workspace.catalog.path} was rebuilt: {source}, {rebuilt.added} from lineage files"
    if rebuilt.aside:
        text += f"; the damaged one is {rebuilt.aside}"
    out.print(Text(text), soft_wrap=True)
    if rebuilt.source is None and rebuilt.added:
        out.print("there was no copy: the history before the newest outputs is lost", style="yellow")
    for path in rebuilt.rejected:
        text = f"{path}: its files are gone or differ from what was written; `dsir run` makes them again"
        err.print(Text(text, style="yellow"))


def why(options: argparse.Namespace) -> int:
    """Explain a document's place in a selection."""
    print_why(Workspace(options.config, options.home), options.doc_id, options.selection, out)
    return 0


def changes(options: argparse.Namespace) -> int:
    """Compare two versions of a selection."""
    print_changes(Workspace(options.config, options.home), options.selection, options.old, options.new, out)
    return 0


def prune(options: argparse.Namespace) -> int:
    """Show what may go; with --yes remove it while no run is in progress."""
    workspaces = [Workspace(config, options.home) for config in options.config]
    workspace = workspaces[0]
    # A list may go out of date; what is removed must not, so nobody else may write meanwhile.
    alone = (
        workspace.lock.exclusive(lambda text: out.print(text, style="dim")) if options.yes else nullcontext()
    )
    with alone:
        leftovers, absent = find_leftovers(workspaces)
        print_absent(absent, out)
        if absent:
            out.print("nothing of it is removed while it is absent")
        if not leftovers:
            out.print("there is nothing to remove: every output belongs to a configuration")
            return 0
        print_leftovers(leftovers, out)
        total = f"{len(leftovers)} files and folders, {sum(each.bytes for each in leftovers) / 1e6:,.1f} MB"
        if not options.yes:
            out.print(f"{total}; `dsir prune --yes` removes them")
            return 0
        with open_instance(workspace.home) as instance:
            remove_leftovers(workspace, leftovers, instance)
    out.print(f"removed {total}")
    return 0


def report(options: argparse.Namespace) -> int:
    """Show what was read, each selection beside the pool, and how to go on; or write a page about it."""
    if options.html is not None:
        print_comparison(Workspace(options.config, options.home), options.html, out)
        return 0
    print_report(Workspace(options.config, options.home), out)
    return 0
