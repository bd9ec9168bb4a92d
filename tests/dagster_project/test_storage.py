"""Dagster's records in our storage: complete, readable by others, without touching other databases."""

import subprocess
import sys
from queue import Queue
from typing import NamedTuple

import dagster as dg
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from benchmarks.pool import REPOSITORY
from dsir_dagster.assets.materialize import log_made
from dsir_dagster.storage import MOST_KEPT


@dg.op
def fifty_partitions():
    for i in range(50):
        yield dg.AssetMaterialization("counts", partition=str(i))
    yield dg.Output(None)


@dg.job
def fifty():
    fifty_partitions()


def opened(folder):
    storage = {
        "module": "dsir_dagster.storage",
        "class": "QuickSqliteStorage",
        "config": {"base_dir": folder},
    }
    settings = {"storage": {"custom": storage}, "telemetry": {"enabled": False}}
    return dg.DagsterInstance.local_temp(folder, settings)


@pytest.fixture
def instance(tmp_path):
    with opened(str(tmp_path)) as instance:
        yield instance


@dg.op(out={})
def fifty_together(context):
    metadata = {"documents": 5}
    log_made(context, (), [[(Made("raw_counts", str(i), f"version {i}"), metadata) for i in range(50)]])
    yield from ()


@dg.job
def fifty_at_once():
    fifty_together()


class Made(NamedTuple):
    """What is logged of an output."""

    asset: str
    partition: str
    fingerprint: str


def test_what_was_recorded_together_is_stored_together_each_with_its_event(instance, monkeypatch):
    commits = []
    do_commit = SQLiteDialect.do_commit
    monkeypatch.setattr(
        SQLiteDialect, "do_commit", lambda self, connection: commits.append(1) or do_commit(self, connection)
    )
    run = fifty_at_once.execute_in_process(instance=instance)
    assert run.success and len(commits) < 50
    key = dg.AssetKey("raw_counts")
    assert instance.get_materialized_partitions(key) == {str(i) for i in range(50)}
    records = instance.fetch_materializations(key, limit=100).records
    shown = {
        record.partition_key: record.asset_materialization.tags["dagster/data_version"] for record in records
    }
    assert shown == {str(i): f"version {i}" for i in range(50)}
    of_run = [entry for entry in instance.all_logs(run.run_id) if entry.dagster_event.is_step_materialization]
    assert [entry.dagster_event.partition for entry in of_run] == [str(i) for i in range(50)]
    newest = instance.get_latest_materialization_event(key)
    assert newest.asset_materialization.partition == "49" and newest.run_id == run.run_id


READ = """
import sys, dagster as dg
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance:
    print(len(instance.get_runs()), len(instance.get_materialized_partitions(dg.AssetKey("counts"))))
"""


def test_dagsters_own_storage_reads_all_in_another_process_meanwhile(instance, tmp_path):
    assert fifty.execute_in_process(instance=instance).success
    assert list(tmp_path.rglob("index.db-wal"))  # still open here
    read = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True)
    assert read.stdout.split() == ["1", "50"]


def test_nothing_stays_open_at_the_end(tmp_path):
    with opened(str(tmp_path)) as instance:
        assert fifty.execute_in_process(instance=instance).success
    # SQLite writes the log back and removes it once nobody holds the database.
    assert not list(tmp_path.rglob("*.db-wal"))


def test_a_database_is_opened_once_and_its_statements_compiled_once(instance, monkeypatch):
    opened, compiled = [], []
    create_engine = sa.create_engine

    def noted(url, **options):
        engine = create_engine(url, **options)
        sa.event.listen(engine, "connect", lambda *_: opened.append(url))
        sa.event.listen(engine, "before_cursor_execute", note)
        return engine

    def note(connection, cursor, statement, parameters, context, executemany):
        if "INSERT INTO event_logs" in statement:
            compiled.append(context.compiled)

    monkeypatch.setattr(sa, "create_engine", noted)
    assert fifty.execute_in_process(instance=instance).success
    assert len(compiled) > 100
    # With and without a partition, from the run's database and from the index.
    assert len(set(map(id, compiled))) < 10
    assert len(opened) <= 4


def test_a_database_of_others_is_opened_as_they_ask(instance, tmp_path):
    """As a user's own reader may do in the same process."""
    assert fifty.execute_in_process(instance=instance).success
    engine = sa.create_engine(f"sqlite:///{tmp_path}/theirs.db")
    with engine.connect() as connection:
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2  # full


def test_few_databases_are_kept_open(instance, tmp_path):
    log = instance.event_log_storage
    for i in range(MOST_KEPT + 3):
        with log.run_connection(f"run-{i}") as connection:
            assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 1  # normal
        with log.index_connection() as connection:
            connection.execute(sa.text("INSERT INTO alembic_version SELECT 'x' WHERE false"))
    open_ = {path.name for path in tmp_path.rglob("*.db-wal")} - {"runs.db-wal"}
    assert len(open_) == MOST_KEPT and {"index.db-wal", f"run-{MOST_KEPT + 2}.db-wal"} <= open_


WRITE = """
import sys
from tests.dagster_project.test_storage import opened
with opened(sys.argv[1]) as instance:
    for line in sys.stdin:
        instance.report_engine_event(line.strip(), job_name="job", run_id="run")
"""


def test_who_watches_a_run_of_another_process_sees_its_events_before_it_ends(instance, tmp_path):
    """As a run's page does."""
    seen = Queue()
    instance.watch_event_logs("run", None, lambda entry, _: seen.put(entry.message))
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, text=True, stdin=subprocess.PIPE) as process:
        for message in ("begun", "goes on"):
            process.stdin.write(f"{message}\n")
            process.stdin.flush()
            assert message in seen.get(timeout=20)
        process.stdin.close()


def test_after_a_wipe_it_goes_on(instance):
    assert fifty.execute_in_process(instance=instance).success
    instance.wipe()
    assert instance.get_runs() == []
    run = fifty.execute_in_process(instance=instance)
    assert len(instance.all_logs(run.run_id)) > 50
