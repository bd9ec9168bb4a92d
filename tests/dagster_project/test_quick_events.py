"""Events in Dagster's SQLite: all of them there, and for others to read, though nobody waited for the disk."""

import subprocess
import sys

import dagster as dg
import pytest
import sqlalchemy as sa

from dsir_dagster import quick_events
from dsir_dagster.quick_events import MOST_HELD, record_events_quickly


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    for module in (quick_events.sqlite_event_log, quick_events.sqlite_run_storage):
        monkeypatch.setattr(module, "create_engine", module.create_engine)
    monkeypatch.setattr(quick_events, "_engines", {})
    record_events_quickly()
    record_events_quickly()
    yield
    sa.event.remove(sa.Engine, "connect", quick_events._connected)
    for connection in quick_events._held.values():
        connection.close()
    quick_events._held.clear()


@dg.op
def fifty_partitions():
    for i in range(50):
        yield dg.AssetMaterialization("counts", partition=str(i))
    yield dg.Output(None)


@dg.job
def fifty():
    fifty_partitions()


READ = """
import sys, dagster as dg
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    print(sorted(map(int, instance.get_materialized_partitions(dg.AssetKey("counts")))) == list(range(50)))
"""


def test_another_process_sees_all_events_while_the_databases_are_held(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert fifty.execute_in_process(instance=instance).success
        assert {path.rsplit("/", 1)[1] for path in quick_events._held} >= {"index.db", "runs.db"}
        read = subprocess.run(
            [sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True
        )
        assert read.stdout.strip() == "True"


def test_closing_a_connection_leaves_the_write_ahead_log(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert fifty.execute_in_process(instance=instance).success
    # Where nobody holds the database, SQLite writes the log back and removes it.
    assert list(tmp_path.rglob("index.db-wal"))


def test_a_statement_is_compiled_once_for_all_events(tmp_path):
    compiled = []

    def note(connection, cursor, statement, parameters, context, executemany):
        if "INSERT INTO event_logs" in statement:
            compiled.append(context.compiled)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            assert fifty.execute_in_process(instance=instance).success
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert len(compiled) > 100
    assert (
        len(set(map(id, compiled))) < 10
    )  # with and without a partition, of the run's database and of the index


def test_few_databases_are_held(tmp_path):
    for i in range(MOST_HELD + 3):
        engine = sa.create_engine(f"sqlite:///{tmp_path}/{i}.db", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 1  # normal
    assert len(quick_events._held) == MOST_HELD
    assert f"{tmp_path}/{MOST_HELD + 2}.db" in quick_events._held


def test_a_database_that_can_not_be_held_is_used_as_it_is(tmp_path):
    engine = sa.create_engine(
        f"sqlite:///{tmp_path}/locked.db", poolclass=sa.pool.NullPool, connect_args={"timeout": 0}
    )
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE TABLE t (x)"))
        connection.commit()
        connection.execute(sa.text("BEGIN EXCLUSIVE"))
        with engine.connect() as other:  # the lock keeps it from being looked into
            assert other.execute(sa.text("SELECT 1")).scalar() == 1
