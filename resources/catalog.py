"""The DuckDB catalog: small rows, short transactions, views over the store's Parquet files.

What belongs here: connecting, retrying, recording. What does not: SQL (``sql/``), bulk rows
(``resources/store.py``), what is stale (``resources/plan.py``).

DuckDB lets one process write and excludes every other while it does, so the file is attached for each
transaction and detached after milliseconds; while another process holds it, attaching is tried again and again.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar

import duckdb
import pyarrow as pa

import sql
from resources.store import DISK_FULL

#: Seconds that a transaction waits for another process to let go of the catalog.
LOCK_TIMEOUT = 120.0

# A process's locks on a file are gone as soon as it closes the file anywhere, so that two threads must not have
# the file open at once.
_PROCESS_LOCK = threading.Lock()


class CatalogLocked(RuntimeError):
    """Another process held the catalog for longer than :data:`LOCK_TIMEOUT`."""


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


class Catalog:
    """The tables and views of ``catalog.duckdb`` in one home folder.

    Parameters
    ----------
    home : Path
        DSIR_HOME. The store must have laid out its folders before (the views need one file each).

    Attributes
    ----------
    longest_wait : float
        Seconds of this process's longest wait for other processes so far.
    """

    longest_wait: ClassVar[float] = 0.0

    def __init__(self, home: Path) -> None:
        self.path = home / "catalog.duckdb"
        self._home = home
        self._ready = False

    @contextlib.contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the catalog, run the body as one transaction, detach it.

        Raises
        ------
        CatalogLocked
            Another process kept the file for too long; the message says which.
        OSError
            The disk is full. What was recorded before stays.
        """
        with _PROCESS_LOCK, _full_disk_named(self.path), self._attached() as connection:
            connection.begin()
            if not self._ready:
                self._create(connection)
            yield connection
            connection.commit()
            self._ready = True

    @contextlib.contextmanager
    def _attached(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Wait for the file and attach it, as the current database of a new connection."""
        instance = _duckdb(self.path)
        try:
            with instance.cursor() as connection:
                began = time.monotonic()
                _attach(connection, self.path)
                Catalog.longest_wait = max(Catalog.longest_wait, time.monotonic() - began)
                yield connection
        finally:
            # It fails where the disk is full: what is committed is in the log, and is there next time.
            with contextlib.suppress(duckdb.Error):
                instance.execute("DETACH catalog")

    def _create(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(sql.load("schema"))
        literal = re.sub(r"([*?[])", r"[\1]", str(self._home))  # not a pattern, whatever it is called
        quoted = "'" + literal.replace("'", "''") + "'"
        parts = ("views", "macros_noise", "macros_lineage", "macros_changes", "macros_why")
        views = "\n".join(map(sql.load, parts)).replace("$home", quoted)
        # Making a view reads a file behind it, so it is done once: a damaged file must not bar the catalog. Where it
        # has to be done, since the home was moved, and can not, the tables are there for what repairs the file.
        version = hashlib.sha256(views.encode()).hexdigest()
        if connection.execute(sql.load("view_version")).fetchall() != [(version,)]:
            connection.commit()
            connection.begin()
            try:
                connection.execute(views)
            except (duckdb.IOException, duckdb.InvalidInputException):
                connection.rollback()
                connection.begin()
                return
            delete, insert = sql.load("set_view_version").split(";", 1)
            connection.execute(delete)
            connection.execute(insert, {"fingerprint": version})

    def query(self, name: str, **parameters: object) -> pa.Table:
        """Return the result of ``sql/<name>.sql`` with its parameters bound."""
        with self.transaction() as connection:
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
            row["metadata"], row["files"] = json.loads(row["metadata"]), json.loads(row["files"])
        return {(row["asset"], row["partition"]): row for row in rows}

    def record(self, lineage: Sequence[Lineage], metrics: Mapping[str, pa.Table] | None = None) -> None:
        """Add rows of lineage in one transaction, together with the metrics of evaluations.

        Parameters
        ----------
        lineage : sequence of Lineage
        metrics : mapping of str to Table, optional
            By selection: columns selection, version, target, metric, source, value. They replace those
            that the selection had.
        """
        rows = [
            {
                **vars(row),
                "inputs": json.dumps(dict(row.inputs)),
                "files": json.dumps(dict(row.files)),
                "metadata": json.dumps(dict(row.metadata)),
            }
            for row in lineage
        ]
        if not rows:
            return
        with self.transaction() as connection:
            connection.register("rows", pa.Table.from_pylist(rows))
            connection.execute(sql.load("insert_lineage"))
            for selection, table in (metrics or {}).items():
                connection.execute(sql.load("delete_evaluation"), {"selection": selection})
                connection.register("metrics", table)
                connection.execute(sql.load("insert_evaluation"))

    def record_shards(self, found: pa.Table) -> None:
        """Insert or replace shards: columns shard, source, uri, size, modified, stamp."""
        with self.transaction() as connection:
            connection.register("found", found)
            connection.execute(sql.load("upsert_shards"))

    def record_pruned(self, names: Sequence[str], selections: Sequence[str]) -> None:
        """Mark lineage as pruned.

        Parameters
        ----------
        names : sequence of str
            Paths below DSIR_HOME of files, or of folders of selections' versions.
        selections : sequence of str
            Selections whose evaluations go.
        """
        with self.transaction() as connection:
            gone = {"names": list(names), "selections": list(selections)}
            connection.execute(sql.load("update_pruned"), gone)
            for selection in selections:
                connection.execute(sql.load("delete_evaluation"), {"selection": selection})

    def record_vanished(self, gone: Sequence[str], back: Sequence[str]) -> None:
        """Record that the files of some shards are not found any more, and those of others are again."""
        with self.transaction() as connection:
            connection.execute(sql.load("update_vanished"), {"gone": list(gone), "back": list(back)})


@contextlib.contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        for number in DISK_FULL:
            if os.strerror(number) in str(error):
                message = f"{os.strerror(number)}; nothing was recorded: make room and start again"
                raise OSError(number, message, str(path)) from error
        raise


@functools.lru_cache(maxsize=1)
def _duckdb(path: Path) -> duckdb.DuckDBPyConnection:
    """Start DuckDB for a catalog. That takes ten milliseconds, attaching the file takes one."""
    return duckdb.connect(config={"temp_directory": f"{path}.tmp"})


atexit.register(_duckdb.cache_clear)


def _attach(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            connection.execute("ATTACH $path AS catalog", {"path": str(path)})
            connection.execute("USE catalog")
            return
        except duckdb.IOException as error:
            if "Could not set lock on file" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise CatalogLocked(
                    f"{path}: another process has held the catalog for {LOCK_TIMEOUT:.0f} s "
                    f"(an open DuckDB shell?); close it and start again. DuckDB says: {error}"
                ) from None
            # Others hold it for milliseconds. A queue of file locks was slower: who is woken has to be scheduled
            # before anyone goes on.
            time.sleep(random.uniform(0.002, 0.02))
