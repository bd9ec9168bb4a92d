"""The catalog: what is recorded is found again, views for any DuckDB client, and other processes' locks."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from dsir_dagster.resources import database
from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.database import CatalogDamaged, CatalogLocked, Database
from dsir_dagster.resources.lineage import Lineage, Metric
from dsir_dagster.resources.store import Origin, Store

START = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)
STAMP = Origin("any", "v1", {})
VIEWS = ("documents", "quarantine", "raw_counts", "target_counts", "log_ratios", "weights", "selections")
TABLES = ("shards", "lineage", "evaluations", "latest")


def lineage(asset="raw_counts", partition="wiki-0", fingerprint="v1", minutes=0, **changes) -> Lineage:
    values = {
        "run_id": "run-1",
        "inputs": {"file": "abc"},
        "started_at": START,
        "finished_at": START + timedelta(minutes=minutes),
        "rows": 3,
        "bytes": 2**40,
        "files": {"weights/a.parquet": "abc"},
        "metadata": {"documents": 3},
    }
    return Lineage(asset, partition, fingerprint, **(values | changes))


@pytest.fixture
def home(tmp_path) -> Path:
    Store(tmp_path / "home").prepare()
    return tmp_path / "home"


@pytest.fixture
def catalog(home) -> Catalog:
    return Catalog(home)


def ask(path: Path, statement: str) -> list[tuple]:
    """Ask as any DuckDB client would, without this project."""
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(statement).fetchall()


# --- recording ---------------------------------------------------------------------------------------


def test_what_is_recorded_is_found_again(catalog):
    row = lineage(
        "selections",
        "tenth",
        inputs={
            "weights[wiki-0]": "f1",
            "configuration": '{"seed":0,"text":"it\'s \\"quoted\\" [ü]"}',
            "n": "12",
        },
        metadata={"documents": 3, "share": 0.1, "note": "größer\n'\"\\ $x ?", "big": 2**53 + 1},
    )
    catalog.record([row])
    found = catalog.latest()
    assert list(found) == [("selections", "tenth")]
    found = found["selections", "tenth"]
    assert (found.fingerprint, found.run_id, found.rows, found.bytes) == ("v1", "run-1", 3, 2**40)
    assert found.inputs == row.inputs
    assert found.metadata == row.metadata
    assert found.started_at == START and found.finished_at == START


def test_a_row_without_inputs_and_partition_is_found_again(catalog):
    catalog.record([lineage("importance_estimator", "", inputs={}, metadata={})])
    found = catalog.latest()["importance_estimator", ""]
    assert found.inputs == {} and found.metadata == {}


def test_the_newest_materialization_of_every_output_counts_and_older_ones_are_kept(catalog):
    # The clock was set back before the second one.
    for partition, fingerprint, minutes in (
        ("wiki-0", "old", 61),
        ("wiki-0", "new", 1),
        ("wiki-1", "only", 0),
    ):
        catalog.record([lineage(partition=partition, fingerprint=fingerprint, minutes=minutes)])
    found = {key: row.fingerprint for key, row in catalog.latest().items()}
    assert found == {("raw_counts", "wiki-0"): "new", ("raw_counts", "wiki-1"): "only"}
    assert ask(catalog.path, "SELECT count(*) FROM lineage") == [(3,)]


def test_many_rows_are_recorded_together_or_not_at_all(catalog):
    catalog.record([lineage(partition=f"wiki-{i}", inputs={f"file {i}": "a"}) for i in range(100)])
    assert len(catalog.latest()) == 100
    assert catalog.latest()["raw_counts", "wiki-42"].inputs == {"file 42": "a"}
    with pytest.raises(duckdb.Error):
        catalog.record([lineage(partition="good"), lineage(partition="bad", run_id=None)])
    assert len(catalog.latest()) == 100
    catalog.record([])
    assert len(catalog.latest()) == 100


def test_a_new_catalog_has_nothing(catalog):
    assert catalog.latest() == {}
    assert catalog.query("known_shards").num_rows == 0


def test_what_one_catalog_records_another_one_of_the_same_home_finds(catalog, home):
    catalog.record([lineage()])
    assert Catalog(home).latest().keys() == catalog.latest().keys() == {("raw_counts", "wiki-0")}


def evaluation(selection: str, version: str, values: dict[str, float | None], minutes: int = 0) -> Lineage:
    metrics = [Metric("", name, "selection", "value", "", value) for name, value in values.items()]
    changes = {"metadata": {"selection_version": version}, "metrics": metrics}
    return lineage("evaluations", selection, version, minutes, **changes)


def test_metrics_of_an_evaluation_replace_those_of_the_same_selection_alone(catalog):
    for selection, version, values in (
        ("a", "v1", {"kl_reduction": 0.5, "gone": 1.0}),
        ("b", "v1", {"kl_reduction": 0.25}),
        ("a", "v2", {"kl_reduction": 0.75, "none": None}),
    ):
        catalog.record([evaluation(selection, version, values)])
    found = ask(catalog.path, "SELECT selection, version, metric, value FROM evaluations ORDER BY ALL")
    assert found == [
        ("a", "v2", "kl_reduction", 0.75),
        ("a", "v2", "none", None),
        ("b", "v1", "kl_reduction", 0.25),
    ]


def test_metrics_that_cannot_be_recorded_leave_the_old_ones_and_no_lineage(catalog):
    catalog.record([evaluation("a", "v1", {"kl_reduction": 0.5})])
    with pytest.raises(duckdb.Error):
        catalog.record([evaluation("a", "v2", {None: 0.5}, 1)])
    assert ask(catalog.path, "SELECT version, value FROM evaluations") == [("v1", 0.5)]
    assert catalog.latest()["evaluations", "a"].fingerprint == "v1"


def test_shards_are_inserted_or_replaced_by_their_key(catalog):
    def shard(key: str, stamp: str) -> dict:
        return {
            "shard": key,
            "source": "wiki",
            "uri": f"/pool/{key}",
            "size": 5,
            "modified": 1.5,
            "stamp": stamp,
        }

    catalog.record_shards(pa.Table.from_pylist([shard("a", "1"), shard("b", "1")]))
    catalog.record_shards(pa.Table.from_pylist([shard("b", "2"), shard("c", "1")]))
    found = {row["shard"]: row for row in catalog.query("known_shards").to_pylist()}
    assert {key: row["stamp"] for key, row in found.items()} == {"a": "1", "b": "2", "c": "1"}
    seen_at = found["c"].pop("seen_at")
    assert found["c"] == {**shard("c", "1"), "vanished": False} and seen_at.tzinfo


def test_a_shard_vanishes_and_comes_back(catalog):
    columns = {"source": "wiki", "uri": "u", "size": 5, "modified": 1.5, "stamp": "1"}
    catalog.record_shards(pa.Table.from_pylist([{"shard": key, **columns} for key in "abc"]))
    catalog.record_vanished(["a", "b"], [])
    assert catalog.query("vanished_shards", sources=["wiki"])["shard"].to_pylist() == ["a", "b"]
    assert catalog.query("vanished_shards", sources=["books"]).num_rows == 0
    catalog.record_vanished(["c"], ["a"])
    assert catalog.query("vanished_shards", sources=["wiki"])["shard"].to_pylist() == ["b", "c"]


# --- views -------------------------------------------------------------------------------------------


def fill(home: Path) -> None:
    """Write two documents of one shard, with all that belongs to them."""
    store, two = Store(home).prepare(), np.arange(2)
    for kind, partition, columns in (
        (
            "documents",
            "wiki-0",
            {
                "shard": "wiki-0",
                "row": two,
                "doc_id": ["a", "b"],
                "id_hash": np.array([7, 8], np.uint64),
                "source": "wiki",
                "n_tokens": two + 100,
                "n_ngrams": two + 199,
                "n_bytes": two + 500,
                "content_hash": np.array([1, 2**64 - 1], np.uint64),
                "most_frequent_word": two + 9,
                "informative_words": two + 50,
                "single_digits": two,
            },
        ),
        ("quarantine", "wiki-0", {"shard": "wiki-0", "row": [2], "reason": "not JSON", "excerpt": ["{"]}),
        ("raw_counts", "wiki-0", {"shard": "wiki-0", "bucket": [5, 9], "count": [1, 2]}),
        (
            "target_counts",
            "chem",
            {
                "target": "chem",
                "bucket": [5, 9],
                "count": [3, 4],
                "holdout_count": [0, 1],
            },
        ),
        ("importance_estimator", "log_ratios", {"target": "chem", "bucket": two, "log_ratio": [0.5, -0.5]}),
        ("weights", "wiki-0", {"shard": "wiki-0", "row": two, "log_weight": [1.5, 2.5]}),
    ):
        store.write_table(store.name(kind, partition, target="chem"), kind, columns, STAMP)
    for version in ("v1", "v2"):
        columns = {
            "selection": "tenth",
            "version": version,
            "epoch": [1],
            "rank": [1],
            "target": "chem",
            "shard": "wiki-0",
            "row": [1],
            "doc_id": "b",
            "source": "wiki",
            "n_tokens": [101],
            "log_weight": [2.5],
            "key": [3.5],
        }
        store.write_table(store.picks("tenth", version), "selections", columns, STAMP)


def test_every_table_and_view_answers_a_plain_connection_where_the_store_is_empty(catalog):
    catalog.latest()
    for name in (*VIEWS, *TABLES):
        assert ask(catalog.path, f"SELECT * FROM {name}") == []


def test_the_documented_columns_are_there(catalog):
    catalog.latest()
    for statement in (
        "SELECT shard, row, doc_id, source, n_tokens FROM documents",
        "SELECT shard, bucket, count FROM raw_counts",
        "SELECT target, bucket, count FROM target_counts",
        "SELECT target, bucket, log_ratio FROM log_ratios",
        "SELECT shard, row, target, log_weight FROM weights",
        "SELECT selection, shard, row, doc_id, target, log_weight, key, rank FROM selections",
        "SELECT selection, target, metric, pick, statistic, value FROM evaluations",
        "SELECT asset, partition, run_id, fingerprint, inputs, started_at, finished_at, rows, bytes FROM lineage",
    ):
        assert ask(catalog.path, statement) == []


def test_views_show_the_rows_of_the_store_to_a_plain_connection(catalog, home):
    catalog.record([lineage("selections", "tenth", "v2")])
    fill(home)
    assert ask(catalog.path, "SELECT doc_id, content_hash FROM documents ORDER BY row") == [
        ("a", 1),
        ("b", 2**64 - 1),
    ]
    assert ask(catalog.path, "SELECT shard, row, reason FROM quarantine") == [("wiki-0", 2, "not JSON")]
    assert ask(catalog.path, "SELECT bucket, count FROM raw_counts ORDER BY ALL") == [(5, 1), (9, 2)]
    assert ask(catalog.path, "SELECT target, sum(count) FROM target_counts GROUP BY ALL") == [("chem", 7)]
    assert ask(catalog.path, "SELECT max(log_ratio) FROM log_ratios") == [(0.5,)]
    assert ask(
        catalog.path,
        "SELECT d.doc_id, w.log_weight FROM documents d JOIN weights w USING (shard, row) ORDER BY ALL",
    ) == [("a", 1.5), ("b", 2.5)]


def test_of_several_versions_of_a_selection_the_view_shows_the_one_recorded_last(catalog, home):
    fill(home)
    assert catalog.latest() == {}
    shown = "SELECT version, doc_id, rank, key FROM selections"
    assert ask(catalog.path, shown) == []
    catalog.record([lineage("selections", "tenth", "v1", minutes=1)])
    assert ask(catalog.path, shown) == [("v1", "b", 1, 3.5)]
    catalog.record([lineage("selections", "tenth", "v2", minutes=2)])
    assert ask(catalog.path, shown) == [("v2", "b", 1, 3.5)]
    catalog.record([lineage("selections", "tenth", "v1", minutes=3)])
    assert ask(catalog.path, shown) == [("v1", "b", 1, 3.5)]


def test_a_selection_that_is_just_being_written_does_not_disturb_the_view(catalog, home):
    fill(home)
    catalog.record([lineage("selections", "tenth", "v1")])
    store = Store(home).prepare()
    with (
        store.new_folder(store.selection_folder("tenth", "v3")) as folder,
        store.file_of(folder, "picks.parquet") as path,
    ):
        path.write_bytes(b"PAR1, and the rest is not there yet")
        assert ask(catalog.path, "SELECT version FROM selections") == [("v1",)]


@pytest.mark.parametrize("name", ["it's a home", 'of "quotes"; --', "größe $home %s {x}", "a[1]*"])
def test_a_home_may_have_any_name(tmp_path, name):
    home = tmp_path / name
    Store(home).prepare()
    catalog = Catalog(home)
    catalog.record([lineage()])
    fill(home)
    assert ask(catalog.path, "SELECT count(*) FROM documents") == [(2,)]


# --- transactions and locks --------------------------------------------------------------------------


class Stopped(Exception):
    pass


def insert(connection: duckdb.DuckDBPyConnection, partition: str) -> None:
    connection.execute(
        "INSERT INTO materializations "
        "VALUES (1, 'a', ?, 'f', 'r', NULL, MAP {}, NULL, now(), now(), 0, 0, MAP {}, MAP {}, '{}', NULL)",
        [partition],
    )


@pytest.mark.parametrize("catalog_is_new", [True, False])
def test_an_exception_rolls_the_transaction_back_and_lets_go_of_the_file(catalog, catalog_is_new):
    if not catalog_is_new:
        catalog.latest()
    with pytest.raises(Stopped), catalog.transaction() as connection:
        insert(connection, "lost")
        raise Stopped
    assert catalog.latest() == {}
    with catalog.transaction() as connection:
        insert(connection, "kept")
    with other_process_holds(catalog.path, 0.0):
        pass  # it could open the file
    assert list(catalog.latest()) == [("a", "kept")]


def test_a_failing_statement_lets_go_of_the_file_too(catalog):
    catalog.latest()
    with pytest.raises(duckdb.Error), catalog.transaction() as connection:
        connection.execute("SELECT * FROM no_such_table")
    with other_process_holds(catalog.path, 0.0):
        pass
    assert catalog.latest() == {}


HOLD = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1], read_only=sys.argv[3] == "reader")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def other_process_holds(path: Path, seconds: float, role: str = "writer"):
    """Let another process hold the file from here on, for some seconds; end it with the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds), role], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_another_process_that_holds_the_file_for_a_second_is_waited_for(catalog, role):
    catalog.latest()
    with other_process_holds(catalog.path, 1.0, role):
        started = time.monotonic()
        catalog.record([lineage()])
        waited = time.monotonic() - started
    assert list(catalog.latest()) == [("raw_counts", "wiki-0")]
    assert 0.5 < waited < 10 and Database.longest_wait > 0.5


def test_another_process_that_never_lets_go_is_reported_with_the_file_and_what_to_do(catalog, monkeypatch):
    catalog.latest()
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.3)
    with other_process_holds(catalog.path, 60):
        started = time.monotonic()
        with pytest.raises(CatalogLocked) as caught:
            catalog.latest()
        assert time.monotonic() - started < 5
        assert str(catalog.path) in str(caught.value)
        assert "another process" in str(caught.value) and "close it and start again" in str(caught.value)
    assert catalog.latest() == {}


def test_a_file_that_is_no_database_is_reported_as_such_whatever_its_folder_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.1)
    for name in ("home", "blocks"):
        Store(tmp_path / name).prepare()
        (tmp_path / name / "catalog.duckdb").write_bytes(b"no database" * 1000)
        with pytest.raises(
            CatalogDamaged, match=r"not a valid DuckDB database file.*`dsir verify --rebuild`"
        ):
            Catalog(tmp_path / name).latest()


def test_threads_take_turns(catalog):
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(catalog.record, [lineage(partition=f"wiki-{i}")]) for i in range(12)]:
            future.result()
    assert len(catalog.latest()) == 12


def test_an_interrupt_that_duckdb_made_an_error_of_is_an_interrupt(tmp_path):
    Store(tmp_path).prepare()
    catalog = Catalog(tmp_path)
    catalog.latest()
    with pytest.raises(KeyboardInterrupt), catalog.transaction():
        raise RuntimeError("Query interrupted")
    assert catalog.latest() == {}
