"""The DuckDB catalog: small rows, short transactions, views over the store's Parquet files.

What belongs here: connecting, waiting, recording, making the catalog again. What does not: SQL (``sql/``), bulk rows
(``resources/store.py``), the copies of the lineage that the catalog is made again from (``resources/stamps.py``),
what is stale (``resources/plan.py``).

DuckDB lets one process write and excludes every other while it does, so the file is attached for each
transaction and detached after milliseconds.

DuckDB's ATTACH reads the file's headers before it has its lock and does not read them again: two processes that attach
in turn lose transactions, or the whole file. So this project's processes take turns by a lock of their own,
``catalog.lock``, held from before ATTACH until after DETACH; readers share it. A DuckDB shell takes no such lock.
What it does while a transaction begins is noticed by the headers, which are read before ATTACH and again after it.
What it overwrites later is noticed by the number of transactions, which is kept in the lock's file too.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import duckdb
import pyarrow as pa

import sql
from resources.stamps import VERSIONED, Stamps
from resources.store import DISK_FULL

#: Of the tables in ``sql/schema.sql``. Version 1 had no sequence; ``sql/upgrade_lineage.sql`` reads it.
VERSION = 2

#: Seconds that a transaction waits for another process to let go of the catalog.
LOCK_TIMEOUT = 120.0

#: Age at which the copy of the catalog is replaced.
COPY_SECONDS = 60

# A process's locks on a file are gone as soon as it closes the file anywhere, so that two threads must not have
# the file open at once.
_PROCESS_LOCK = threading.Lock()

#: The bytes at the beginning of the file that a checkpoint writes to: three headers of 4 KB.
_HEADERS = 3 * 4096

#: What DuckDB says of a file that is not as it wrote it.
_DAMAGE = (
    "Corrupt database file",
    "Could not read enough bytes",
    "database has been invalidated",
    "deserialize",
)
#: Why a file cannot be opened though it may be in order.
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE)


class CatalogError(RuntimeError):
    """The catalog cannot be used as it is; the message says in one line why, and what to do."""


class CatalogLocked(CatalogError):
    """Another process held the catalog for longer than :data:`LOCK_TIMEOUT`."""


class CatalogDamaged(CatalogError):
    """The catalog is not what was written, or is gone though there are outputs."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; `dsir verify --rebuild` makes the catalog again from its last copy and the stamps of "
            "the outputs, and recomputes nothing"
        )


class CatalogVersion(CatalogError):
    """Another version of this project, or of DuckDB, wrote the catalog, and this one cannot use it."""


@dataclass(frozen=True)
class Lineage:
    """One materialization of one output: a row of the table ``lineage``.

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
    metadata: Mapping[str, object]


@dataclass(frozen=True)
class Rebuilt:
    """What a catalog was made again from.

    Attributes
    ----------
    source : Path or None
        The catalog itself or its copy, whichever could be read.
    kept : int
        Materializations taken from it.
    added : int
        Materializations taken from stamps.
    rejected : list of str
        Stamps whose files are gone or not what was written.
    aside : Path or None
        Where the damaged catalog is now.
    """

    source: Path | None
    kept: int
    added: int
    rejected: list[str]
    aside: Path | None


class Catalog:
    """The tables and views of ``catalog.duckdb`` in one home folder.

    Parameters
    ----------
    home : Path
        DSIR_HOME. The store must have laid out its folders before (the views need one file each).

    Attributes
    ----------
    path : Path
    longest_wait : float
        Seconds of this process's longest wait for other processes so far.
    """

    longest_wait: ClassVar[float] = 0.0

    def __init__(self, home: Path) -> None:
        self.path = home / "catalog.duckdb"
        self.stamps = Stamps(home)
        self._copy = home / "catalog.backup.duckdb"
        self._home = home
        self._ready = False

    @property
    def writable(self) -> bool:
        """Whether this process may record anything; where it may not, everything can be read all the same."""
        return os.access(self._home, os.W_OK) and (not self.path.exists() or os.access(self.path, os.W_OK))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the catalog, run the body as one transaction, detach it.

        Raises
        ------
        CatalogLocked
            Another process kept the file for too long; the message says which.
        CatalogDamaged
            The file is not what was written.
        CatalogVersion
            Another version of this project wrote it.
        OSError
            The disk is full, or the file must not be written. What was recorded before stays.
        """
        with _PROCESS_LOCK:
            self._make_current()
            with self._locked(shared=False) as lock:
                with self._attached(self.path, read_only=False) as connection:
                    connection.begin()
                    [(number,)] = connection.execute(sql.load("next_commit")).fetchall()
                    self._check_number(number - 1, lock)
                    yield connection
                    connection.commit()
                _write_number(lock, number)
                self._keep_copy()

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the catalog for reading, run the body, detach it. Raises as :meth:`transaction`."""
        with _PROCESS_LOCK:
            self._make_current()
            with (
                self._locked(shared=True) as lock,
                self._attached(self.path, read_only=True) as connection,
            ):
                [(_, number, _)] = connection.execute(sql.load("about")).fetchall()
                self._check_number(number, lock)
                yield connection

    # --- one at a time ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self, shared: bool) -> Iterator[int | None]:
        """Hold ``catalog.lock``; yield its descriptor. None where a reader has no such file and must not make one."""
        path = self._home / "catalog.lock"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            if not shared:
                raise
            try:
                lock = os.open(path, os.O_RDONLY)
            except OSError:
                yield None
                return
        try:
            waiting = self._waiting()
            while True:
                try:
                    fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    waiting(str(error))
            yield lock
        finally:
            os.close(lock)

    def _waiting(self) -> Callable[[str], None]:
        """Return what waits a moment for another process, and raises CatalogLocked when that has taken too long."""
        began = time.monotonic()

        def wait(reason: str) -> None:
            waited = time.monotonic() - began
            if waited > LOCK_TIMEOUT:
                raise CatalogLocked(
                    f"{self.path}: another process has held the catalog for {LOCK_TIMEOUT:.0f} s "
                    f"(an open DuckDB shell?); close it and start again. The system says: {reason}"
                )
            # Others hold it for milliseconds.
            time.sleep(random.uniform(0.002, 0.01))
            Catalog.longest_wait = max(Catalog.longest_wait, time.monotonic() - began)

        return wait

    @contextlib.contextmanager
    def _attached(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach a database, as the current one of a new connection."""
        with _interrupts():
            yield from self._attaching(path, read_only)

    def _attaching(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        try:
            # Closing it would let go of DuckDB's locks, so it stays open until after DETACH.
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise CatalogDamaged(path, "is gone, though outputs were recorded in it") from None
        try:
            instance = _duckdb(self.path)
            try:
                with _errors_named(path), instance.cursor() as connection:
                    self._attach(connection, path, file, read_only)
                    connection.execute("SET VARIABLE dsir_home = $home", {"home": str(self._home)})
                    yield connection
            except BaseException:
                # What failed first is what is told of. An instance that read damage may not work any more.
                _duckdb.cache_clear()
                with contextlib.suppress(duckdb.Error, RuntimeError):
                    instance.execute("DETACH catalog")
                raise
            try:
                instance.execute("DETACH catalog")
            except duckdb.Error as error:
                _duckdb.cache_clear()
                # Where the disk is full, what is committed is in the log, and is there next time.
                if not any(os.strerror(number) in str(error) for number in DISK_FULL):
                    raise CatalogDamaged(
                        path, f"what was recorded last may not be in it ({error})"
                    ) from error
        finally:
            os.close(file)

    def _attach(self, connection: duckdb.DuckDBPyConnection, path: Path, file: int, read_only: bool) -> None:
        if not os.fstat(file).st_size:
            raise CatalogDamaged(path, "has 0 bytes")
        waiting = self._waiting()
        options = " (READ_ONLY)" if read_only else ""
        while True:
            before = _headers(path, file)
            try:
                connection.execute(f"ATTACH $path AS catalog{options}", {"path": str(path)})
            except duckdb.Error as error:
                text = str(error)
                if "Could not set lock on file" in text:
                    waiting(text)
                    continue
                if "version number" in text:
                    raise CatalogVersion(f"{path}: another version of DuckDB wrote it: {text}") from error
                if not any(os.strerror(number) in text for number in (*_DENIED, *DISK_FULL)):
                    raise CatalogDamaged(path, f"cannot be opened ({' '.join(text.split())})") from error
                raise
            if _headers(path, file) == before:
                connection.execute("USE catalog")
                return
            # Someone without our lock wrote to it meanwhile, or DuckDB itself, what a killed process left in its log.
            connection.execute("DETACH catalog")
            if os.fstat(file).st_ino != path.stat().st_ino:
                raise CatalogError(
                    f"{path}: another file was put in its place while it was opened; start again"
                )

    def _check_number(self, number: int, lock: int | None) -> None:
        """Raise CatalogDamaged where transactions are gone that were recorded."""
        recorded = _read_number(lock)
        if number < recorded:
            raise CatalogDamaged(
                self.path,
                f"has {number} of {recorded} transactions that were recorded (an older file was put in its place, or a "
                "DuckDB shell that was open for writing overwrote them: open shells with `-readonly`)",
            )

    # --- making it -------------------------------------------------------------------------------------------

    def _make_current(self) -> None:
        """Make the catalog where there is none, bring one of an older version up to date, make views of another place.

        Where nothing is to be done, nothing is written.
        """
        if self._ready:
            return
        if self.path.exists():
            with self._locked(shared=True), self._attached(self.path, read_only=True) as connection:
                version, views = _version(connection, self.path)
        elif self.stamps.exist() or self._copy.exists():
            raise CatalogDamaged(self.path, "is gone, though outputs were recorded in it")
        else:
            version, views = 0, ""
        if version != VERSION or (views != self._views()[1] and self.writable):
            with self._locked(shared=False) as lock:
                # Another process may have been faster.
                if not self.path.exists():
                    self._make({}, 0)
                    _write_number(lock, 0)
                elif version != VERSION:
                    self._upgrade(lock)
                with self._attached(self.path, read_only=False) as connection:
                    self._create_views(connection)
        self._ready = True

    def _upgrade(self, lock: int) -> None:
        """Bring a catalog of an older version up to date; the old one stays as the copy."""
        with self._attached(self.path, read_only=False) as connection:
            if _version(connection, self.path)[0] == VERSION:
                return
            tables = _tables(connection, self.path)
            connection.execute("CHECKPOINT")
        self.stamps.write(_stamps_of(tables))
        shutil.copyfile(self.path, self._copy)
        number = len(tables["lineage"])
        self._make(tables, number)
        _write_number(lock, number)

    def _make(self, tables: Mapping[str, pa.Table], number: int, aside: Path | None = None) -> None:
        """Make a catalog of these rows; it takes the place of the one that is there at once.

        Parameters
        ----------
        tables : mapping of str to Table
        number : int
            Transactions that were recorded so far.
        aside : Path, optional
            Where the catalog goes that was there.
        """
        new, log = self.path.with_suffix(".new"), self.path.with_suffix(".new.wal")
        for leftover in (new, log):
            leftover.unlink(missing_ok=True)
        with _interrupts(), _errors_named(self.path), duckdb.connect(new) as connection:
            connection.execute(sql.load("schema"))
            connection.execute(sql.load("insert_about"), {"version": VERSION, "commits": number})
            for name, rows in tables.items():
                connection.register("rows", rows)
                connection.execute(sql.load(f"restore_{name}"))
            connection.execute("CHECKPOINT")  # so that no log belongs to it
        # The log first: it belongs to the file that was there, and must never be taken for the new one's.
        for old in (Path(f"{self.path}.wal"), self.path):
            if aside is not None and old.exists():
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(old, aside / old.name)
            elif old.suffix == ".wal":
                old.unlink(missing_ok=True)
        os.replace(new, self.path)

    def _views(self) -> tuple[str, str]:
        """Return the text of views and macros, and its fingerprint."""
        literal = "'" + str(self._home).replace("'", "''") + "'"
        home = f"coalesce(getvariable('dsir_home'), {literal})"
        files = f"regexp_replace({home}, '([*?[])', '[\\1]', 'g')"  # not a pattern, whatever it is called
        parts = ("views", "macros_noise", "macros_lineage", "macros_changes", "macros_why")
        text = "\n".join(map(sql.load, parts))
        text = re.sub(r"\$(home|files)", lambda match: home if match[1] == "home" else files, text)
        return text, hashlib.sha256(text.encode()).hexdigest()

    def _create_views(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the views, unless they are there. A damaged file behind one must not bar the tables."""
        text, version = self._views()
        if _version(connection, self.path)[1] == version:
            return
        connection.begin()
        try:
            connection.execute(text)
        except (
            duckdb.Error
        ):  # of whatever class: a footer that cannot be parsed has DuckDB's most general one
            connection.rollback()
            return
        connection.execute(sql.load("set_views"), {"views": version})
        connection.commit()

    def _keep_copy(self) -> None:
        """Copy the catalog, if the copy is old; whoever calls has the lock, and wrote to it without an error."""
        new = self._copy.with_suffix(".new")
        try:
            age = time.time() - self._copy.stat().st_mtime if self._copy.exists() else COPY_SECONDS
            # What is in a log would be missing.
            if 0 <= age < COPY_SECONDS or Path(f"{self.path}.wal").exists():
                return
            shutil.copyfile(self.path, new)
            os.replace(new, self._copy)
        except OSError:
            with contextlib.suppress(OSError):  # the disk is full, say: the older copy stays
                new.unlink()

    def rebuild(self, hold: Callable[[Sequence[Mapping[str, str]]], Sequence[bool]]) -> Rebuilt:
        """Make the catalog again from itself, if it can be read, or its copy, and from the stamps of the outputs.

        Parameters
        ----------
        hold : callable
            Takes the files of outputs, each a mapping of path to checksum; returns of each whether all are there and
            are what was written.

        Raises
        ------
        CatalogVersion
            A newer version of this project wrote the catalog.
        """
        with _PROCESS_LOCK, self._locked(shared=False) as lock:
            source, tables, number = None, {}, _read_number(lock)
            for path in (self.path, self._copy):
                with (
                    contextlib.suppress(CatalogDamaged, duckdb.Error),
                    self._attached(path, read_only=True) as connection,
                ):
                    _version(connection, path)
                    tables, source = _tables(connection, path), path
                    break
            kept = tables["lineage"] if source else pa.table({"sequence": []})
            names = ("asset", "partition", "fingerprint", "run_id")
            known = set(zip(*(kept[name].to_pylist() for name in names), strict=True)) if source else set()
            stamps = [row for row in self.stamps.read() if tuple(row[name] for name in names) not in known]
            verdicts = hold([row["files"] for row in stamps])
            added = [row for row, holds in zip(stamps, verdicts, strict=True) if holds]
            number = max([number, *kept["sequence"].to_pylist(), *(row["sequence"] for row in added)]) + 1
            aside = self._home / "damaged" if source != self.path and self.path.exists() else None
            self._make(tables, number, aside)
            with self._attached(self.path, read_only=False) as connection:
                self._create_views(connection)
                connection.begin()
                _insert(connection, added)
                connection.commit()
            _write_number(lock, number)
            self._ready = True
        rejected = [row for row, holds in zip(stamps, verdicts, strict=True) if not holds]
        return Rebuilt(
            source,
            len(kept),
            len(added),
            [str(self.stamps.path(*(row[name] for name in names[:3]))) for row in rejected],
            aside and aside / self.path.name,
        )

    # --- rows ------------------------------------------------------------------------------------------------

    def query(self, name: str, **parameters: object) -> pa.Table:
        """Return the result of ``sql/<name>.sql`` with its parameters bound. It only reads."""
        with self.reading() as connection:
            return connection.sql(sql.load(name), params=parameters or None).to_arrow_table()

    def query_files(self, name: str, **parameters: object) -> pa.Table:
        """Return the result of ``sql/<name>.sql``, which reads files alone: the catalog stays free for others.

        A parameter that is a RecordBatchReader is a table of this name; DuckDB reads it once.
        """
        with _duckdb(self.path).cursor() as connection:
            for key in [key for key, value in parameters.items() if isinstance(value, pa.RecordBatchReader)]:
                connection.register(key, parameters.pop(key))
            return connection.sql(sql.load(name), params=parameters or None).to_arrow_table()

    def latest(self) -> dict[tuple[str, str], dict]:
        """Return the newest materialization of every output, by (asset, partition)."""
        rows = self.query("latest").to_pylist()
        for row in rows:
            row |= {name: json.loads(row[name]) for name in ("metadata", "files", "modified")}
        return {(row["asset"], row["partition"]): row for row in rows}

    def record(self, lineage: Sequence[Lineage], metrics: Mapping[str, pa.Table] | None = None) -> None:
        """Add rows of lineage in one transaction, together with the metrics of evaluations.

        Their stamps are written before: whatever becomes of the catalog, they are not lost with it.

        Parameters
        ----------
        lineage : sequence of Lineage
        metrics : mapping of str to Table, optional
            By selection: columns selection, version, target, metric, source, value. They replace those
            that the selection had.
        """
        if not lineage:
            return
        with self.transaction() as connection:
            [(_, number, _)] = connection.execute(sql.load("about")).fetchall()
            rows = [
                {
                    "sequence": number,
                    **vars(row),
                    **{name: dict(getattr(row, name)) for name in ("inputs", "files", "metadata")},
                    "modified": self._modified(row.files),
                }
                for row in lineage
            ]
            for row in rows:
                if row["asset"] == "evaluations" and row["partition"] in (metrics or {}):
                    row["metrics"] = metrics[row["partition"]].to_pylist()
            _insert(connection, rows)
            self.stamps.write(rows)

    def _modified(self, files: Mapping[str, str]) -> dict[str, int]:
        """Return when files below the home were written, by the file system's clock: nanoseconds."""
        found = {}
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found[name] = (self._home / name).stat().st_mtime_ns
        return found

    def record_shards(self, found: pa.Table) -> None:
        """Insert or replace shards: columns shard, source, uri, size, modified, stamp."""
        with self.transaction() as connection:
            connection.register("found", found)
            connection.execute(sql.load("upsert_shards"))

    def record_pruned(self, names: Sequence[str], selections: Sequence[str]) -> None:
        """Mark lineage as pruned, and remove its stamps.

        Parameters
        ----------
        names : sequence of str
            Paths below DSIR_HOME of files, or of folders of selections' versions.
        selections : sequence of str
            Selections whose evaluations go.
        """
        with self.transaction() as connection:
            gone = {"names": list(names), "selections": list(selections)}
            pruned = connection.execute(sql.load("update_pruned"), gone).fetchall()
            connection.execute(sql.load("delete_pruned_shards"), {"names": list(names)})
            for selection in selections:
                connection.execute(sql.load("delete_evaluation"), {"selection": selection})
        for output in pruned:
            self.stamps.remove(*output)

    def record_vanished(self, gone: Sequence[str], back: Sequence[str]) -> None:
        """Record that the files of some shards are not found any more, and those of others are again."""
        with self.transaction() as connection:
            connection.execute(sql.load("update_vanished"), {"gone": list(gone), "back": list(back)})


def _insert(connection: duckdb.DuckDBPyConnection, rows: Sequence[dict]) -> None:
    """Insert rows of lineage as stamps have them; metrics replace those that the selection had."""
    if not rows:
        return
    texts = ("inputs", "files", "modified", "metadata")
    lineage = [
        {name: value for name, value in row.items() if name not in (*texts, "metrics")}
        | {name: json.dumps(row[name]) for name in texts}
        for row in rows
    ]
    connection.register("rows", pa.Table.from_pylist(lineage))
    connection.execute(sql.load("insert_lineage"))
    for row in sorted(rows, key=lambda row: row["sequence"]):
        if "metrics" in row:
            connection.execute(sql.load("delete_evaluation"), {"selection": row["partition"]})
        if row.get("metrics"):
            connection.register("metrics", pa.Table.from_pylist(row["metrics"]))
            connection.execute(sql.load("insert_evaluation"))


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[int, str]:
    """Return the version of a catalog's tables, and the fingerprint of its views.

    Raises
    ------
    CatalogVersion
        A newer version of this project made it, or one too old.
    """
    try:
        [(version, _, views)] = connection.execute(sql.load("about")).fetchall()
    except duckdb.CatalogException:
        columns = {row[0] for row in connection.execute(sql.load("columns")).fetchall()}
        if not {"pruned_at", "vanished_at", "files"} <= columns:
            raise CatalogVersion(
                f"{path}: a version of dsir made it that is too old; give another home with --home, and run again"
            ) from None
        return 1, ""
    if version > VERSION:
        raise CatalogVersion(
            f"{path}: a newer version of dsir made it (its tables are of version {version}, this one knows {VERSION}); "
            "use that version, or give another home with --home"
        )
    return version, views


def _tables(connection: duckdb.DuckDBPyConnection, path: Path) -> dict[str, pa.Table]:
    """Read all rows of a catalog, of an older version too, as the tables have them now."""
    questions = {name: f"FROM {name}" for name in ("shards", "lineage", "evaluations")}
    if _version(connection, path)[0] == 1:
        questions["lineage"] = sql.load("upgrade_lineage")
    return {name: connection.sql(text).to_arrow_table() for name, text in questions.items()}


def _stamps_of(tables: Mapping[str, pa.Table]) -> list[dict]:
    """Return what the stamps of a catalog's outputs would be."""
    metrics: dict[str, list[dict]] = {}
    for row in tables["evaluations"].to_pylist():
        metrics.setdefault(row["selection"], []).append(row)
    rows = [row for row in tables["lineage"].to_pylist() if row.pop("pruned_at") is None]
    rows.sort(key=lambda row: row["sequence"])
    newest = {
        (row["asset"], row["partition"], row["asset"] in VERSIONED and row["fingerprint"]): row
        for row in rows
    }
    for row in newest.values():
        row |= {name: dict(row[name]) for name in ("inputs", "files", "modified")}
        row["metadata"] = json.loads(row["metadata"])
        of_version = metrics.get(row["partition"]) if row["asset"] == "evaluations" else None
        if of_version and row["metadata"].get("selection_version") == of_version[0]["version"]:
            row["metrics"] = of_version
    return list(newest.values())


@contextlib.contextmanager
def _interrupts() -> Iterator[None]:
    """Let an interrupt be one: DuckDB makes an ordinary error of it where it finds it while it works."""
    try:
        yield
    except RuntimeError as error:
        if "Query interrupted" in str(error):
            raise KeyboardInterrupt from error
        raise


@contextlib.contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Say of errors that are the system's, or damage of the catalog, what they are."""
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        for number in DISK_FULL:
            if os.strerror(number) in text:
                message = f"{os.strerror(number)}; nothing was recorded: make room and start again"
                raise OSError(number, message, str(path)) from error
        if str(path) in text:
            for number in _DENIED:
                if os.strerror(number) in text:
                    raise OSError(number, os.strerror(number), str(path)) from error
        damaged = any(sign in text for sign in _DAMAGE)
        if damaged and not (isinstance(error, duckdb.IOException) and str(path) not in text):
            raise CatalogDamaged(path, f"is damaged ({' '.join(text.split())[:200]})") from error
        raise


def _headers(path: Path, file: int) -> tuple[int, bytes]:
    """Return which file is there, and its headers, which tell one state of it from every other."""
    return path.stat().st_ino, os.pread(file, _HEADERS, 0)


def _read_number(lock: int | None) -> int:
    """Return how many transactions were recorded, as the lock's file has it."""
    try:
        return int(os.pread(lock, 20, 0)) if lock is not None else 0
    except ValueError:
        return 0


def _write_number(lock: int, number: int) -> None:
    with contextlib.suppress(
        OSError
    ):  # the disk is full, say: what is lost later is then noticed a little later
        os.pwrite(lock, b"%019d\n" % number, 0)


@functools.lru_cache(maxsize=1)
def _duckdb(path: Path) -> duckdb.DuckDBPyConnection:
    """Start DuckDB for a catalog. That takes ten milliseconds, attaching the file takes one."""
    return duckdb.connect(config={"temp_directory": f"{path}.tmp"})


atexit.register(_duckdb.cache_clear)
