"""Opening the Dagster instance of a home: its settings and databases are intact, or repaired first.

What belongs here: what a new DAGSTER_HOME gets, repairing one that a killed or concurrent process left half made. What
does not: how its databases are opened (``dagster_project/storage.py``), what is recorded in them
(``assets/materialize.py``).

Dagster creates its SQLite databases in place, table by table. Two processes that do so at once stamp a database with
two versions, and every later process stops there; a kill leaves a database without tables, which Dagster takes for an
old one. So databases are created in a scratch folder, under a lock so that each is made once, and appear under their
names complete or not at all, by a hard link, which never replaces an existing file.

``dg dev`` on a new DAGSTER_HOME may still come first and create them Dagster's way. If it is killed then, the next
command that opens the instance (such as ``dsir init``) repairs what is left; ``dg dev`` itself does not.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
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

from dsir_dagster import sql
from dsir_dagster.resources.dagster_private import CheckError, InstanceRef, NoOpComputeLogManager
from dsir_dagster.resources.dagster_storage import DagsterSqliteStorage
from dsir_dagster.resources.home import private_folder
from dsir_dagster.resources.settings import ConfigError
from dsir_dagster.resources.wording import MISSING_CLASS, SQLITE_DAMAGED, UNSET_VARIABLE, one_line
from dsir_dagster.storage import QuickSqliteStorage

#: The instance's settings, written into a new DAGSTER_HOME.
INSTANCE_SETTINGS = """\
telemetry:
  enabled: false
nux:
  enabled: false
storage:
  custom:
    module: dsir_dagster.storage
    class: QuickSqliteStorage
    config:
      base_dir:
        env: DAGSTER_HOME
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

#: SHA-256 of the settings that earlier versions wrote. Unchanged ones are replaced.
EARLIER_SETTINGS = (
    "8ae649680f0fc13f399c2aaa9f76e30ed77204ec917f78e4ba147009e6c9a3e9",
    "abf3b9bcdc38f6f1bc1b553b717e24f26068bd3b75805670c5a5498b24f7ab6c",
    "cee3b0dcd931c484f5e9041af6645ed95eb1fa953ab0759fdacd100b3963043f",
    "8cd1a5e4f274f0bdd231f03342e1cef27c5c9f150a66154a8b4cd3db7b6a3e6c",
)

#: The module of the run launcher in earlier versions.
FORMER_LAUNCHER = "dagster_project.launcher"

#: Dagster's databases, and for each the table that shows whether anything was recorded.
DATABASES = {
    "history/runs.db": "runs",
    "history/runs/index.db": "event_logs",
    "schedules/schedules.db": "jobs",
}

#: Describes a database that two processes stamped.
TWO = "two versions"

#: An incomplete database written to within these seconds is taken to be in the making.
BEING_MADE_SECONDS = 5.0


def open_instance(home: Path, say: Callable[[str], None] | None = None) -> dg.DagsterInstance:
    """Open the Dagster instance of a home folder, in DAGSTER_HOME or ``<home>/dagster``.

    Parameters
    ----------
    home : Path
        DSIR_HOME.
    say : callable, optional
        Takes a line of text for each repaired file. Default: standard error.

    Raises
    ------
    ConfigError
        ``dagster.yaml`` is not valid, or names what is not installed or not in the environment.
    OSError
        The folder cannot be written to, or one of its databases is unusable and cannot be repaired.
    """
    folder = Path(os.environ.setdefault("DAGSTER_HOME", str((home / "dagster").resolve())))
    private_folder(folder)
    make_whole(folder, say or (lambda line: print(line, file=sys.stderr)))
    # Dagster would redirect what a command prints during its run into files and copy it to the terminal later, or
    # never if the process has ended.
    nowhere = {"module": NoOpComputeLogManager.__module__, "class": NoOpComputeLogManager.__name__}
    ref = InstanceRef.from_dir(str(folder), overrides={"compute_logs": nowhere})
    try:
        with _without_retries():
            return dg.DagsterInstance.from_ref(ref)
    except (dg.DagsterInvalidConfigError, ImportError, CheckError) as error:
        raise ConfigError(f"{folder / 'dagster.yaml'}: {_unmet(error)}") from error


def _unmet(error: Exception) -> str:
    """Say what ``dagster.yaml`` asks for that is not there: a variable of the environment, a package."""
    if variable := UNSET_VARIABLE.match(error):
        return f"the environment variable {variable[1]} is not set"
    if (missing := MISSING_CLASS.match(error)) and missing[1] == "dagster_postgres":
        return (
            "dagster_postgres is not installed; `pip install -e '.[postgres]' -c constraints.txt` installs it"
        )
    if isinstance(error, ImportError) and error.name == "psycopg":
        return (
            "storage.postgres.postgres_db lacks `scheme: postgresql+psycopg2`, the driver that is installed"
        )
    return one_line(error)


@contextmanager
def _without_retries() -> Iterator[None]:
    """Keep what Dagster says of each attempt to reach its database off the terminal; the last error says it all."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Retrying failed database")

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


def make_whole(folder: Path, say: Callable[[str], None]) -> None:
    """Give a DAGSTER_HOME its settings and databases if it has none; repair what a kill or a race left of them.

    A storage other than SQLite, such as PostgreSQL, is left alone.

    Parameters
    ----------
    folder : Path
        DAGSTER_HOME.
    say : callable
        Takes a line of text for each repaired file.
    """
    settings = folder / "dagster.yaml"
    _write_settings(settings, say)
    try:
        storage = InstanceRef.from_dir(str(folder)).storage_data
    except (yaml.YAMLError, dg.DagsterInvalidConfigError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{settings}: {why}; correct it, or remove it to get a new one") from None
    of_sqlite = (QuickSqliteStorage.__name__, DagsterSqliteStorage.__name__)
    if storage is None or storage.class_name not in of_sqlite:
        return
    base_dir = storage.config_dict["base_dir"]
    if not isinstance(base_dir, str) and base_dir["env"] not in os.environ:
        return  # opening it says so
    base = Path(base_dir if isinstance(base_dir, str) else os.environ[base_dir["env"]])
    if not any(map(fault, _databases(base))):
        return
    with (folder / "instance.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for path in _databases(base):
            while (found := fault(path)) and TWO not in found and _seconds_since(path) < BEING_MADE_SECONDS:
                time.sleep(0.1)
            if found:
                _mend(path, base, found, say)


def _write_settings(settings: Path, say: Callable[[str], None]) -> None:
    """Write ``dagster.yaml`` if there is none; replace an unchanged one of an earlier version.

    Raises
    ------
    ConfigError
        It was changed, and names a module that no longer exists.
    """
    found = settings.read_bytes() if settings.exists() else None
    if found is None or hashlib.sha256(found).hexdigest() in EARLIER_SETTINGS:
        with _scratch(settings.parent) as scratch:
            new = scratch / settings.name
            new.write_text(INSTANCE_SETTINGS)
            if found is None:
                _put(new, settings)
            else:
                os.replace(new, settings)
                say(f"{settings} was written by an earlier version; it is brought up to date")
    elif FORMER_LAUNCHER.encode() in found:
        raise ConfigError(f"{settings}: {FORMER_LAUNCHER} is now dsir_dagster.launcher; correct the line")


def fault(path: Path) -> str:
    """Say what is wrong with one of Dagster's databases; '' if it is intact, or good enough for Dagster itself.

    Parameters
    ----------
    path : Path
        One of :data:`DATABASES`.
    """
    if not path.exists():
        return "is missing"
    if not path.stat().st_size:
        return "is empty"
    recorded = next(table for name, table in DATABASES.items() if path.match(name))
    try:
        with closing(sqlite3.connect(path, timeout=30)) as database:
            tables = {name for (name,) in database.execute(sql.load("dagster_tables"))}
            versions = _versions(database) if "alembic_version" in tables else []
            if len(versions) > 1:
                return f"has {TWO} ({', '.join(versions)})"
            # Without a version but with records, it comes from an older Dagster; this one stamps it.
            any_row = sql.load("dagster_recorded").replace("$table", recorded)
            if versions or (recorded in tables and database.execute(any_row).fetchone()):
                return ""
            return "is incomplete"
    except sqlite3.DatabaseError as error:
        # Other errors (a full or read-only disk, a lock held by another process) do not mean damage.
        if SQLITE_DAMAGED(error):
            return f"cannot be read ({error})"
        return ""


def _databases(base: Path) -> list[Path]:
    return [base / name for name in DATABASES]


def _versions(database: sqlite3.Connection) -> list[str]:
    return [version for (version,) in database.execute(sql.load("dagster_versions"))]


def _mend(path: Path, base: Path, found: str, say: Callable[[str], None]) -> None:
    """Recreate a database, or remove from it the versions that are not this Dagster's; say so."""
    new = not path.exists()
    with _scratch(base) as scratch:
        DagsterSqliteStorage(str(scratch)).dispose()
        fresh = scratch / path.relative_to(base)
        if TWO in found:
            with closing(sqlite3.connect(fresh)) as database:
                [head] = _versions(database)
            with closing(sqlite3.connect(path, timeout=30)) as database, database:
                if head not in _versions(database):
                    raise OSError(
                        f"{path} {found}, and {head}, this Dagster's, is not among them: other Dagster versions "
                        f"created it; move {base} away or name another DAGSTER_HOME. It holds no outputs."
                    )
                database.execute(sql.load("dagster_delete_versions"), {"version": head})
            say(
                f"{path} {found}, since two processes created it at once; it has one again, and all its records"
            )
            return
        if not new:
            aside = f"{path}.unusable-{time.strftime('%Y%m%d-%H%M%S')}"
            for end in ("-wal", "-shm", ""):  # the database last: after a kill, it is found again
                with suppress(FileNotFoundError):
                    os.replace(f"{path}{end}", f"{aside}{end}")
            say(f"{path} {found}; it was set aside as {Path(aside).name} and recreated")
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(fresh, path)


def _seconds_since(path: Path) -> float:
    """Return how long ago a database was written to; infinite if it does not exist."""
    times = [-math.inf]
    for end in ("", "-wal", "-journal"):
        with suppress(FileNotFoundError):
            times.append(os.stat(f"{path}{end}").st_mtime)
    return time.time() - max(times)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a new folder in this one and remove it afterwards. What killed processes left goes first."""
    for left in folder.glob(".making-*"):
        with suppress(FileNotFoundError):  # another process's, which is done with it
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def _put(new: Path, path: Path) -> None:
    """Make a complete file appear under its name; an existing one stays."""
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        os.replace(new, path)
