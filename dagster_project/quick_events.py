"""Recording Dagster's events quickly.

What belongs here: how SQLite, where Dagster keeps its log unless it is told otherwise, commits the events of this
process. What does not: which events there are (``assets/materialize.py``).

Dagster opens its database for every event, commits, and closes it again, and SQLite waits for the disk twice: at the
commit, and where the last connection to a database is closed. On an ordinary disk that takes longer than weighing a
small shard. Here, commits do not wait, and a connection of this process stays open.

It also makes a new SQLAlchemy engine each time, which has every statement to compile again, in half of the time that an
event takes. Here, a database keeps its engine.

The log survives whatever ends a process, and is consistent after a power cut, but may then lack its last events. What
is recomputed does not depend on them: that is decided by the lineage in the catalog.
"""

import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage

#: Databases that are held open, and whose engines are kept: the instance's own, and those of its latest runs.
MOST_HELD = 8

_held: dict[str, sqlite3.Connection] = {}
_engines: dict[str, sa.Engine] = {}
_lock = threading.Lock()


def record_events_quickly() -> None:
    """Let this process write its SQLite databases without waiting, and keep their engines; once is enough."""
    if not sa.event.contains(sa.Engine, "connect", _connected):
        sa.event.listen(sa.Engine, "connect", _connected)
    sqlite_event_log.create_engine = sqlite_run_storage.create_engine = _engine


def let_go(folder: Path) -> None:
    """Close what is held of the databases below a folder: they are about to be moved."""
    with _lock:
        for path in [path for path in _held if Path(path).is_relative_to(folder)]:
            _held.pop(path).close()
        for url in [url for url in _engines if str(folder) in url]:
            _engines.pop(url).dispose()


def _engine(url: str, **options: object) -> sa.Engine:
    """Return the engine of a database. Connections are not shared through it: Dagster's engines pool none."""
    with _lock:
        if url not in _engines:
            if len(_engines) == MOST_HELD:
                _engines.pop(next(iter(_engines)))
            _engines[url] = sa.create_engine(url, **options)
        return _engines[url]


def _connected(connection: object, record: object) -> None:
    # An error: the database is locked or gone, which Dagster's own statements will say, if it matters to them.
    if isinstance(connection, sqlite3.Connection):
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA synchronous = NORMAL")
            _, _, path = connection.execute("PRAGMA database_list").fetchone()
            if path:
                with _lock:
                    _hold(path)


def _hold(path: str) -> None:
    if path not in _held:
        if len(_held) == MOST_HELD:
            _held.pop(next(iter(_held))).close()
        _held[path] = sqlite3.connect(path, check_same_thread=False, timeout=0)
    # A connection counts from when it looks into a database that has a write-ahead log, which Dagster only switches on
    # after the first connection to it.
    _held[path].execute("PRAGMA schema_version").fetchone()
