"""The DuckDB catalog: small rows, short transactions, views over the store's Parquet files.

What belongs here: its tables and views, recording, rebuilding. What does not: SQL (``sql/``), how processes take turns
with the file (``resources/database.py``), bulk rows (``resources/store.py``), the copies of the lineage to rebuild from
(``resources/lineage_files.py``), what is stale (``resources/plan.py``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from dsir_dagster import sql
from dsir_dagster.resources.database import (
    PROCESS_LOCK,
    CatalogDamaged,
    CatalogVersion,
    Database,
    errors_named,
    interrupts,
    read_number,
    started,
    write_number,
)
from dsir_dagster.resources.graph import graph
from dsir_dagster.resources.lineage import MAPPINGS, LatestLineage, Lineage, divided
from dsir_dagster.resources.lineage_files import LineageFiles
from dsir_dagster.resources.store import file_kinds

#: Version of the tables in ``sql/schema.sql``. Version 1 had no sequence; ``sql/upgrade_lineage.sql`` reads it. Before
#: version 3, a metric's name contained its pick and statistic; those rows are dropped and measured again. Before
#: version 4, outputs shared no inputs; their rows stay as they are. Before version 5, only DuckDB 2 could read the
#: file, and it did not say why an output was made.
VERSION = 5

#: DuckDB's oldest version that can read the file, so that any shell of today can.
READABLE_FROM = "v1.2.0"

#: Age in seconds at which the copy of the catalog is replaced.
COPY_SECONDS = 60


@dataclass(frozen=True)
class Rebuilt:
    """What a catalog was rebuilt from.

    Attributes
    ----------
    source : Path or None
        The catalog itself or its copy, whichever was readable.
    kept : int
        Materializations taken from it.
    added : int
        Materializations taken from lineage files.
    rejected : list of str
        Lineage files whose outputs are gone or changed.
    aside : Path or None
        Where the damaged catalog was moved.
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
        DSIR_HOME, prepared by :class:`~dsir_dagster.resources.store.Store`: each view needs a file.
    files : str, optional
        Where the bulk files are: a path or a URI. Default: the home.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, home: Path, files: str | None = None) -> None:
        self.path = home / "catalog.duckdb"
        self._files = files or str(home)
        self._database = Database(self.path, self._files)
        self.lineage_files = LineageFiles(home)
        self._copy = home / "catalog.backup.duckdb"
        self._home = home
        self._ready = False

    @property
    def writable(self) -> bool:
        """Whether this process may record anything; reading works in any case."""
        return os.access(self._home, os.W_OK) and (not self.path.exists() or os.access(self.path, os.W_OK))

    @contextlib.contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the catalog, run the body as one transaction, detach it.

        Raises
        ------
        CatalogLocked
            Another process held the file for too long; the message says which.
        CatalogDamaged
            The file is damaged.
        CatalogVersion
            Another version of this project wrote it.
        OSError
            The disk is full, or the file is not writable. Everything recorded before stays.
        """
        with PROCESS_LOCK:
            self._make_current()
            with self._database.locked() as lock:
                with self._attached(self.path, read_only=False) as connection:
                    connection.begin()
                    [(number,)] = connection.execute(sql.load("next_commit")).fetchall()
                    self._check_number(number - 1, lock)
                    yield connection
                    connection.commit()
                write_number(lock, number)
                self._keep_copy()

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the catalog for reading, run the body, detach it. Raises as :meth:`transaction`."""
        with PROCESS_LOCK:
            self._make_current()
            with (
                self._database.locked_shared() as lock,
                self._attached(self.path, read_only=True) as connection,
            ):
                [(_, number, _)] = connection.execute(sql.load("about")).fetchall()
                self._check_number(number, lock)
                yield connection

    @contextlib.contextmanager
    def _attached(self, path: Path, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach the catalog, or its copy, and tell the views where the files are now."""
        with self._database.attached(path, read_only) as connection:
            connection.execute("SET VARIABLE dsir_home = $files", {"files": self._files})
            yield connection

    def _check_number(self, number: int, lock: int | None) -> None:
        """Raise CatalogDamaged if recorded transactions are missing."""
        recorded = read_number(lock)
        if number < recorded:
            raise CatalogDamaged(
                self.path,
                f"has {number} of {recorded} recorded transactions (an older file was put in its place, or a "
                "DuckDB shell that was open for writing overwrote them: open shells with `-readonly`)",
            )

    # --- making it -------------------------------------------------------------------------------------------

    def _make_current(self) -> None:
        """Make a missing catalog, upgrade an old one, replace views that are out of date.

        Writes nothing if there is nothing to do.
        """
        if self._ready:
            return
        if self.path.exists():
            with self._database.locked_shared(), self._attached(self.path, read_only=True) as connection:
                version, views = _version(connection, self.path)
        elif self.lineage_files.exist() or self._copy.exists():
            raise CatalogDamaged(self.path, "is gone, though outputs were recorded in it")
        else:
            version, views = 0, ""
        if version != VERSION or (views != self._views()[1] and self.writable):
            with self._database.locked() as lock:
                # Another process may have been faster.
                if not self.path.exists():
                    self._make({}, 0)
                    write_number(lock, 0)
                elif version != VERSION:
                    self._upgrade(lock)
                with self._attached(self.path, read_only=False) as connection:
                    self._create_views(connection)
        self._ready = True

    def _upgrade(self, lock: int) -> None:
        """Upgrade a catalog of an older version; the old one stays as the copy."""
        with self._attached(self.path, read_only=False) as connection:
            if _version(connection, self.path)[0] == VERSION:
                return
            tables = _tables(connection, self.path)
            connection.execute("CHECKPOINT")
        self.lineage_files.write(_rows_of(tables))
        shutil.copyfile(self.path, self._copy)
        number = len(tables["lineage"])
        self._make(tables, number)
        write_number(lock, number)

    def _make(self, tables: Mapping[str, pa.Table], number: int, aside: Path | None = None) -> None:
        """Make a catalog of these rows and put it in the place of the present one, atomically.

        Parameters
        ----------
        tables : mapping of str to Table
        number : int
            Transactions recorded so far.
        aside : Path, optional
            Where the present catalog is moved. Default: it is replaced.
        """
        new, log = self.path.with_suffix(".new"), self.path.with_suffix(".new.wal")
        for leftover in (new, log):
            leftover.unlink(missing_ok=True)
        with (
            interrupts(),
            errors_named(self.path),
            duckdb.connect(new, config=dict(storage_compatibility_version=READABLE_FROM)) as connection,
        ):
            connection.execute(sql.load("schema"))
            connection.execute(sql.load("insert_about"), {"version": VERSION, "commits": number})
            for name, rows in tables.items():
                connection.register("rows", rows)
                connection.execute(sql.load(f"restore_{name}"))
            connection.execute("CHECKPOINT")  # leaves no log beside it
        # The log first: it belongs to the old file, and must never be applied to the new one.
        for old in (Path(f"{self.path}.wal"), self.path):
            if aside is not None and old.exists():
                aside.mkdir(parents=True, exist_ok=True)
                os.replace(old, aside / old.name)
            elif old.suffix == ".wal":
                old.unlink(missing_ok=True)
        os.replace(new, self.path)

    def _views(self) -> tuple[str, str]:
        """Return the text of all views and macros, and its fingerprint."""
        literal = "'" + self._files.replace("'", "''") + "'"
        where = f"coalesce(getvariable('dsir_home'), {literal})"
        files = f"regexp_replace({where}, '([*?[])', '[\\1]', 'g')"  # magic characters of the path itself
        parts = ("views", "macros_noise", "macros_lineage", "macros_changes", "macros_why", "comments")
        text = "\n".join(map(sql.load, parts))
        for kind in file_kinds().values():  # views.sql lacks kinds of added assets
            if kind.schema is not None and f"/{kind.name}/" not in text:
                text += sql.load("view").replace("$view", kind.name)
        text = re.sub(r"\$(where|files)", lambda match: where if match[1] == "where" else files, text)
        return text, hashlib.sha256(text.encode()).hexdigest()

    def _create_views(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the views, unless they are up to date. A damaged file behind a view must not block the tables."""
        text, version = self._views()
        if _version(connection, self.path)[1] == version:
            return
        connection.begin()
        try:
            connection.execute(text)
        except duckdb.Error:  # DuckDB has no narrower type for a Parquet footer that it cannot parse
            connection.rollback()
            return
        connection.execute(sql.load("set_views"), {"views": version})
        connection.commit()

    def _keep_copy(self) -> None:
        """Copy the catalog if the copy is old. The caller holds the lock and has just written without an error."""
        new = self._copy.with_suffix(".new")
        try:
            age = time.time() - self._copy.stat().st_mtime if self._copy.exists() else COPY_SECONDS
            # A copy without its log would lack transactions.
            if 0 <= age < COPY_SECONDS or Path(f"{self.path}.wal").exists():
                return
            shutil.copyfile(self.path, new)
            os.replace(new, self._copy)
        except OSError:
            with contextlib.suppress(OSError):  # if the disk is full, say, the older copy stays
                new.unlink()

    def rebuild(self, hold: Callable[[Sequence[Mapping[str, str]]], Sequence[bool]]) -> Rebuilt:
        """Rebuild the catalog from itself, if it is readable, or its copy, and from the outputs' lineage files.

        Parameters
        ----------
        hold : callable
            Takes the files of several outputs, each a mapping of path to checksum; returns for each output whether all
            its files are there and unchanged.

        Raises
        ------
        CatalogVersion
            A newer version of this project wrote the catalog.
        """
        with PROCESS_LOCK, self._database.locked() as lock:
            source, tables, number = None, {}, read_number(lock)
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
            rows = [
                row
                for row in self.lineage_files.read()
                if tuple(getattr(row, name) for name in names) not in known
            ]
            verdicts = hold([row.files for row in rows])
            added = [row for row, holds in zip(rows, verdicts, strict=True) if holds]
            number = max([number, *kept["sequence"].to_pylist(), *(row.sequence for row in added)]) + 1
            aside = self._home / "damaged" if source != self.path and self.path.exists() else None
            self._make(tables, number, aside)
            with self._attached(self.path, read_only=False) as connection:
                self._create_views(connection)
                connection.begin()
                _insert(connection, added)
                connection.commit()
            write_number(lock, number)
            self._ready = True
        rejected = [row for row, holds in zip(rows, verdicts, strict=True) if not holds]
        return Rebuilt(
            source,
            len(kept),
            len(added),
            [str(self.lineage_files.path(*row.key, row.fingerprint)) for row in rejected],
            aside and aside / self.path.name,
        )

    # --- rows ------------------------------------------------------------------------------------------------

    def query(self, name: str, **parameters: object) -> pa.Table:
        """Run ``sql/<name>.sql``, which only reads, with its parameters bound, and return the result."""
        with self.reading() as connection:
            return connection.sql(sql.load(name), params=parameters or None).to_arrow_table()

    def query_files(self, name: str, **parameters: object) -> pa.Table:
        """Run ``sql/<name>.sql``, which reads only files, and return the result; the catalog stays free for others.

        A RecordBatchReader among the parameters becomes a table of that name, which DuckDB reads once.
        """
        with started(self.path, self._files).cursor() as connection:
            for key in [key for key, value in parameters.items() if isinstance(value, pa.RecordBatchReader)]:
                connection.register(key, parameters.pop(key))
            return connection.sql(sql.load(name), params=parameters or None).to_arrow_table()

    def latest(self) -> LatestLineage:
        """Return the newest materialization of every output, by (asset, partition)."""
        with self.reading() as connection:
            return LatestLineage(
                connection.sql(sql.load("latest")).to_arrow_reader(LatestLineage.TOGETHER), self.listed
            )

    def listed(self, digest: str) -> dict[str, str]:
        """Return the inputs of a list that outputs share."""
        [row] = self.query("input_list", digest=digest).to_pylist()
        return json.loads(row["inputs"])

    def record(self, lineage: Sequence[Lineage]) -> None:
        """Add rows of lineage, with the metrics of evaluations, in one transaction.

        Their lineage files are written before the commit, so losing the catalog does not lose them.
        """
        if not lineage:
            return
        with self.transaction() as connection:
            [(_, number, _)] = connection.execute(sql.load("about")).fetchall()
            rows = [replace(row, sequence=number) for row in lineage]
            _insert(connection, rows)
            self.lineage_files.write(rows)

    def record_failures(self, rows: Sequence[Mapping[str, str]]) -> None:
        """Record outputs that failed on their input; each row has asset, partition, fingerprint, run_id and error."""
        with self.transaction() as connection:
            connection.register("rows", pa.Table.from_pylist(rows))
            connection.execute(sql.load("upsert_failures"))

    def record_shards(self, found: pa.Table) -> None:
        """Insert or replace shards: columns shard, source, uri, size, modified, stamp."""
        with self.transaction() as connection:
            connection.register("found", found)
            connection.execute(sql.load("upsert_shards"))

    def record_pruned(self, names: Sequence[str], selections: Sequence[str]) -> None:
        """Mark lineage as pruned, and remove its lineage files.

        Parameters
        ----------
        names : sequence of str
            Paths below DSIR_HOME of files, or of folders of selections' versions.
        selections : sequence of str
            Selections whose evaluations are removed.
        """
        with self.transaction() as connection:
            gone = {"names": list(names), "selections": list(selections)}
            pruned = connection.execute(sql.load("update_pruned"), gone).fetchall()
            connection.execute(sql.load("delete_pruned_shards"), {"names": list(names)})
            for selection in selections:
                connection.execute(sql.load("delete_evaluation"), {"selection": selection})
            versioned = [asset.name for asset in graph() if asset.keeps_versions]
            in_use = connection.execute(sql.load("lists_in_use"), {"versioned": versioned}).fetchall()
        for output in pruned:
            self.lineage_files.remove(*output)
        self.lineage_files.keep_lists({digest for (digest,) in in_use})

    def record_vanished(self, gone: Sequence[str], back: Sequence[str]) -> None:
        """Record that the files of some shards (``gone``) have vanished, and those of others (``back``) reappeared."""
        with self.transaction() as connection:
            connection.execute(sql.load("update_vanished"), {"gone": list(gone), "back": list(back)})


def _insert(connection: duckdb.DuckDBPyConnection, rows: Sequence[Lineage]) -> None:
    """Insert rows of lineage; metrics replace the selection's earlier ones."""
    if not rows:
        return
    lineage = [
        {name: json.dumps(value) if name in MAPPINGS else value for name, value in row.to_row().items()}
        | {"metrics": None}
        for row in rows
    ]
    listed = {
        shared.digest: shared for _, shared in (divided(row.inputs) for row in rows) if shared is not None
    }
    known = (
        {digest for (digest,) in connection.execute(sql.load("input_lists")).fetchall()} if listed else set()
    )
    for digest in listed.keys() - known:
        inputs = json.dumps(dict(listed[digest]))
        connection.execute(sql.load("insert_input_list"), {"digest": digest, "inputs": inputs})
    connection.register("rows", pa.Table.from_pylist([{"list": None, **row} for row in lineage]))
    connection.execute(sql.load("insert_lineage"))
    connection.execute(sql.load("delete_failures"))
    for row in sorted(rows, key=lambda row: row.sequence):
        if row.metrics is not None:
            connection.execute(sql.load("delete_evaluation"), {"selection": row.partition})
        if row.metrics:
            connection.register("metrics", pa.Table.from_pylist([vars(metric) for metric in row.metrics]))
            measured = {"selection": row.partition, "version": row.metadata["selection_version"]}
            connection.execute(sql.load("insert_evaluation"), measured)


def _version(connection: duckdb.DuckDBPyConnection, path: Path) -> tuple[int, str]:
    """Return the version of a catalog's tables and the fingerprint of its views.

    Raises
    ------
    CatalogVersion
        A newer version of this project made it, or one that is too old.
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
    """Read all rows of a catalog, converted to the present tables if it has an older version."""
    version, _ = _version(connection, path)
    questions = {"shards": sql.load("upgrade_shards"), "lineage": "FROM lineage"}
    if version == 1:
        questions["lineage"] = sql.load("upgrade_lineage")
    if version >= 3:
        questions["evaluations"] = "FROM evaluations"
    if version >= 4:
        questions |= {"lineage": "FROM materializations", "input_lists": "FROM input_lists"}
    if version >= 5:
        questions["shards"] = "SELECT * EXCLUDE (modified) FROM shards"
    return {name: connection.sql(text).to_arrow_table() for name, text in questions.items()}


def _rows_of(tables: Mapping[str, pa.Table]) -> list[Lineage]:
    """Return the rows for an older catalog's lineage files; they lack the metrics of evaluations."""
    kept = [row for row in tables["lineage"].to_pylist() if row.pop("pruned_at") is None]
    rows = sorted((Lineage.from_row(row, lambda digest: {}) for row in kept), key=lambda row: row.sequence)
    newest = {(*row.key, graph().keeps_versions(row.asset) and row.fingerprint): row for row in rows}
    return list(newest.values())
