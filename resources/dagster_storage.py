"""Parts of Dagster's storage that this project needs and that Dagster may change at any time.

What belongs here: as in ``resources/dagster_private.py``, from which it is apart because it loads SQLAlchemy and
Alembic: 0.2 s, for which commands that open no instance need not wait. What does not: anything else.
"""

from dagster._core.storage.event_log.polling_event_watcher import SqlPollingEventWatcher
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

__all__ = [
    # SQLite's `synchronous` and kept connections in `storage: sqlite`
    "ConfigurableClassData",
    "DagsterSqliteStorage",
    "SqlEventLogStorageTable",
    "SqlPollingEventWatcher",
    "SqliteEventLogStorage",
    "SqliteRunStorage",
]
