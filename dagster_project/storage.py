"""Dagster's SQLite storage with less waiting per event; ``dagster.yaml`` names it.

What belongs here: opening the databases of Dagster's runs and events. What does not: their tables, which are Dagster's;
where they are and whether they are intact (``dagster_project/instance.py``).

Dagster makes a new SQLAlchemy engine for every statement or two: it opens the database, compiles the statements,
commits, and closes the database; SQLite waits for the disk at the commit and when the last connection closes. Here a
database keeps its engine and one connection, and commits do not wait. A refresh of 300 tiny shards takes 11 s instead
of 15, or instead of 19 to 39 while others write to the same disk.

The log survives a killed process. After a power cut it is consistent but may lack its last events. Recomputation never
consults it: the lineage in the catalog decides.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import dagster as dg
import sqlalchemy as sa

from dsir_dagster.resources.dagster_storage import (
    ConfigurableClassData,
    DagsterSqliteStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    SqliteRunStorage,
    SqlPollingEventWatcher,
)

Handler = Callable[[dg.EventLogEntry, str], None]

#: Event logs kept open: the index over all runs, and the runs used last. Each run has its own database.
MOST_KEPT = 8


class QuickSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage, in the same files, that records runs and events faster.

    Parameters
    ----------
    base_dir : str
        DAGSTER_HOME.
    inst_data : ConfigurableClassData, optional
        Its entry in ``dagster.yaml``.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = QuickRunStorage.from_local(os.path.join(base_dir, "history"))
        self._event_log_storage = QuickEventLogStorage(os.path.join(base_dir, "history", "runs"))

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Return the storage that ``dagster.yaml`` describes."""
        return cls.from_local(config_value["base_dir"], inst_data)


class QuickRunStorage(SqliteRunStorage):
    """Dagster's records of runs, in a database that stays open."""

    def __init__(self, conn_string: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engine = _engine(conn_string)
        super().__init__(conn_string, inst_data)

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """Give a connection for one transaction."""
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close the database."""
        self._engine.dispose()


class QuickEventLogStorage(SqliteEventLogStorage):
    """Dagster's event logs, in at most :data:`MOST_KEPT` databases that stay open."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: dict[str, sa.Engine] = {}
        self._lock = threading.Lock()
        self._tables: set[str] = set()
        super().__init__(base_dir, inst_data)
        self._watcher = SqlPollingEventWatcher(self)

    def run_connection(self, run_id: str | None = None) -> AbstractContextManager[sa.Connection]:
        """Give a connection to a run's log for one transaction."""
        return self._transaction(run_id or "", super().run_connection)

    def index_connection(self) -> AbstractContextManager[sa.Connection]:
        """Give a connection to the index over all runs for one transaction."""
        return self._transaction("index", super().run_connection)

    @contextmanager
    def _transaction(
        self, name: str, of_dagster: Callable[[str], AbstractContextManager[sa.Connection]]
    ) -> Iterator[sa.Connection]:
        with self._lock:
            engine = self._engines.pop(name, None)
            if engine is None:
                with of_dagster(name):  # creates the tables
                    pass
                engine = _engine(self.conn_string_for_shard(name))
                if len(self._engines) == MOST_KEPT:
                    self._engines.pop(next(iter(self._engines))).dispose()
            self._engines[name] = engine  # last in order: used last
            with engine.begin() as connection:
                yield connection

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table; Dagster asks for each event that has tags."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store materializations in one transaction of their run's log and one of the index; others one by one."""
        runs = {event.run_id for event in events}
        kinds = {event.dagster_event_type for event in events}
        if len(runs) > 1 or kinds != {dg.DagsterEventType.ASSET_MATERIALIZATION}:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        insert, number = SqlEventLogStorageTable.insert(), SqlEventLogStorageTable.c.id
        with self.run_connection(*runs) as connection:
            connection.execute(insert, rows)
        with self.index_connection() as connection:
            numbers = connection.execute(insert.returning(number, sort_by_parameter_order=True), rows)
            ids = numbers.scalars().all()
            self._store_asset_event_tags(connection, events, ids)
            # Of each asset, the row of what happened to it last.
            newest = {
                event.get_dagster_event().asset_key: (event, of)
                for event, of in zip(events, ids, strict=True)
            }
            for event, of in newest.values():
                self._store_asset_event(connection, event, of)

    # Dagster watches the database file, which does not change while an open connection holds the write-ahead log.
    def watch(self, run_id: str, cursor: str | None, callback: Handler) -> None:
        """Call back for each event of a run after a cursor."""
        self._watcher.watch_run(run_id, cursor, callback)

    def end_watch(self, run_id: str, handler: Handler) -> None:
        """Stop the calls back."""
        self._watcher.unwatch_run(run_id, handler)

    def wipe(self) -> None:
        """Remove all events."""
        self._close()
        super().wipe()

    def dispose(self) -> None:
        """Close the databases."""
        self._watcher.close()
        self._close()
        super().dispose()

    def _close(self) -> None:
        with self._lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


def _engine(url: str) -> sa.Engine:
    """Return an engine that keeps one connection open and closes extra ones; commits do not wait for the disk."""
    engine = sa.create_engine(
        url, poolclass=sa.QueuePool, pool_size=1, max_overflow=-1, connect_args={"timeout": 30}
    )
    sa.event.listen(
        engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL")
    )
    return engine
