"""Opening the Dagster instance of a home: its settings and its databases are whole, or are made so first.

What belongs here: what a new DAGSTER_HOME is given, what is done about one that a killed or another process left half
made. What does not: what is recorded in it (``dagster_project/quick_events.py``, ``assets/materialize.py``).

Dagster makes its SQLite databases in place, table by table, whoever comes first. Two that come first together stamp a
database with two versions, and every later process stops at it; a kill leaves a database without tables, which Dagster
takes for an old one. So they are made in a folder of their own and then appear under their names whole, or not at all,
by a hard link, which never replaces what is there. A lock is held meanwhile, so that each is made once.

``dg dev`` on a new DAGSTER_HOME may still be first, in Dagster's own way. What a kill of it leaves is mended here, by
the next command that opens the instance (``dsir init`` is one), but not by ``dg dev``, which does not come by here.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.instance import InstanceRef
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from dsir_dagster.quick_events import let_go, record_events_quickly
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.workspace import private_folder

#: The instance's settings, written once into a new DAGSTER_HOME.
INSTANCE_SETTINGS = """\
telemetry:
  enabled: false
run_launcher:
  module: dsir_dagster.launcher
  class: MonitoredRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
run_retries:
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false
concurrency:
  runs:
    max_concurrent_runs: 4
"""

#: Dagster's databases, and the table of each that tells whether anything was recorded.
DATABASES = {
    "history/runs.db": "runs",
    "history/runs/index.db": "event_logs",
    "schedules/schedules.db": "jobs",
}

#: What is said of a database that two processes stamped.
TWO = "two versions"

#: A database that is not whole and was written to in these seconds is taken for one that is being made.
BEING_MADE_SECONDS = 5.0


def open_instance(home: Path, say: Callable[[str], None] | None = None) -> dg.DagsterInstance:
    """Open the Dagster instance of a home folder, in DAGSTER_HOME or ``<home>/dagster``.

    Parameters
    ----------
    home : Path
        DSIR_HOME.
    say : callable, optional
        Takes a line of text for each database that had to be mended. Default: standard error.

    Raises
    ------
    OSError
        The folder cannot be written, or a database in it is of no use and cannot be mended.
    """
    folder = Path(os.environ.setdefault("DAGSTER_HOME", str((home / "dagster").resolve())))
    private_folder(folder)
    make_whole(folder, say or (lambda line: print(line, file=sys.stderr)))
    record_events_quickly()
    # Dagster would send what a command prints during its run into files, and show it when the terminal's turn comes:
    # late, or not at all where the process has ended.
    module = "dagster._core.storage.noop_compute_log_manager"
    uncaptured = {"compute_logs": {"module": module, "class": "NoOpComputeLogManager"}}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=uncaptured))


def make_whole(folder: Path, say: Callable[[str], None]) -> None:
    """Give a DAGSTER_HOME its settings and databases where it has none; mend what a kill or a race left of them.

    Databases that are configured to be elsewhere than in SQLite are none of our business.

    Parameters
    ----------
    folder : Path
        DAGSTER_HOME.
    say : callable
        Takes a line of text for each database that had to be mended.
    """
    settings = folder / "dagster.yaml"
    if not settings.exists():
        with _scratch(folder) as scratch:
            (scratch / settings.name).write_text(INSTANCE_SETTINGS)
            _put(scratch / settings.name, settings)
    try:
        storage = InstanceRef.from_dir(str(folder)).storage_data
    except (yaml.YAMLError, dg.DagsterInvalidConfigError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{settings}: {why}; correct it, or take it away: a new one is written") from None
    if storage is None or storage.class_name != DagsterSqliteStorage.__name__:
        return
    base = Path(yaml.safe_load(storage.config_yaml)["base_dir"])
    if not any(map(fault, _databases(base))):
        return
    with (folder / "instance.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in _databases(base):
            while (found := fault(path)) and TWO not in found and _seconds_since(path) < BEING_MADE_SECONDS:
                time.sleep(0.1)
            if found:
                _mend(path, base, found, say)


def fault(path: Path) -> str:
    """Say what is wrong with one of Dagster's databases; '' if it is whole, or whole enough for Dagster itself.

    Parameters
    ----------
    path : Path
        It is one of :data:`DATABASES`.
    """
    if not path.exists():
        return "is not there"
    if not path.stat().st_size:
        return "is empty"
    recorded = next(table for name, table in DATABASES.items() if path.match(name))
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            tables = {
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            versions = _versions(database) if "alembic_version" in tables else []
            if len(versions) > 1:
                return f"has {TWO} ({', '.join(versions)})"
            # Without a version, but with something in it, it is of an older Dagster, which this one stamps.
            if versions or (
                recorded in tables and database.execute(f"SELECT 1 FROM {recorded} LIMIT 1").fetchone()
            ):
                return ""
            return "was not made to the end"
    except sqlite3.DatabaseError as error:
        # All else, a disk that is full or read-only, another process that has it locked, says nothing against it.
        if any(damage in str(error) for damage in ("not a database", "malformed")):
            return f"cannot be read ({error})"
        return ""


def _databases(base: Path) -> list[Path]:
    return [base / name for name in DATABASES]


def _versions(database: sqlite3.Connection) -> list[str]:
    return [version for (version,) in database.execute("SELECT version_num FROM alembic_version ORDER BY 1")]


def _mend(path: Path, base: Path, found: str, say: Callable[[str], None]) -> None:
    """Make a database anew, or take the versions from it that are not this Dagster's; say so."""
    new = not path.exists()
    with _scratch(base) as scratch:
        DagsterSqliteStorage(str(scratch)).dispose()
        let_go(scratch)
        fresh = scratch / path.relative_to(base)
        if TWO in found:
            with closing(sqlite3.connect(fresh)) as database:
                [head] = _versions(database)
            with closing(sqlite3.connect(path, timeout=30)) as database, database:
                if head not in _versions(database):
                    raise OSError(
                        f"{path} {found}, and {head}, this Dagster's, is not among them: two processes of other "
                        f"versions made it; move {base} away or name another DAGSTER_HOME. Outputs are not in it."
                    )
                database.execute("DELETE FROM alembic_version WHERE version_num <> ?", (head,))
            say(
                f"{path} {found}, since two processes made it at once; it has one again, and all that was recorded"
            )
            return
        if not new:
            aside = f"{path}.unusable-{time.strftime('%Y%m%d-%H%M%S')}"
            for end in ("-wal", "-shm", ""):  # the database last: a kill in between finds it again
                with suppress(FileNotFoundError):
                    os.replace(f"{path}{end}", f"{aside}{end}")
            say(f"{path} {found}; it was set aside as {Path(aside).name} and made anew")
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(fresh, path)


def _seconds_since(path: Path) -> float:
    """Return how long ago a database was written to; infinite where it is not there."""
    times = [-math.inf]
    for end in ("", "-wal", "-journal"):
        with suppress(FileNotFoundError):
            times.append(os.stat(f"{path}{end}").st_mtime)
    return time.time() - max(times)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a new folder in this one, and take it away. What kills left of others goes first."""
    for left in folder.glob(".making-*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def _put(new: Path, path: Path) -> None:
    """Let a file appear under its name, whole; one that is there by then stays."""
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(new, path)
