"""The catalog for people: any DuckDB shell opens it, and it says what everything in it means."""

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from dsir_dagster.resources.catalog import READABLE_FROM, Catalog
from dsir_dagster.resources.store import Store

ROOT = Path(__file__).parents[2]

#: Where `make shells` installs other versions of DuckDB.
OLDER = sorted((ROOT / ".venv" / "duckdb").glob("*"))

#: Prints an answer, as a client of that version has it.
ASK = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2]).fetchall())"


def storage_version(path: Path) -> str:
    with duckdb.connect(path, read_only=True) as connection:
        found = (
            "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = current_database()"
        )
        return connection.execute(found).fetchone()[0]


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    Store(tmp_path / "home").prepare()
    catalog = Catalog(tmp_path / "home")
    catalog.latest()
    return catalog


def test_the_file_is_one_that_older_versions_of_duckdb_read_and_stays_so(done):
    path = done.home / "catalog.duckdb"
    assert storage_version(path).startswith(READABLE_FROM)
    done.config["selections"][0]["seed"] = 5
    assert done.errors() == []
    assert storage_version(path).startswith(READABLE_FROM)


@pytest.mark.skipif(not OLDER, reason="`make shells` installs older versions of DuckDB and runs this")
@pytest.mark.parametrize("version", [path.name for path in OLDER])
def test_an_older_version_of_duckdb_answers_as_this_one_does(done, version):
    done.config["selections"][0] |= {"seed": 5, "quality": True}
    done.config["selections"].append(
        {"name": "other", "targets": ["medicine"], "size": {"fraction": 0.2}, "length": "poisson"}
    )
    assert done.errors() == []
    path = done.home / "catalog.duckdb"
    [(views, document, made, shard)] = done.rows(
        "SELECT (SELECT list(view_name ORDER BY view_name) FROM duckdb_views() WHERE NOT internal AND NOT temporary), "
        "any_value(doc_id), any_value(version), any_value(shard) FROM selections WHERE selection = 'picked'"
    )
    questions = [
        *(f"FROM {name} ORDER BY ALL" for name in (*views, "shards", "evaluations", "failures")),
        "FROM dependents('law.jsonl') ORDER BY ALL",
        f"FROM chain('{made}', '{shard}') ORDER BY ALL",
        f"FROM why('{document}', 'picked') ORDER BY ALL",
        "SELECT w.* FROM (SELECT DISTINCT doc_id FROM documents) AS d, why(d.doc_id, 'other') AS w ORDER BY ALL",
        "FROM selection_changes('picked') ORDER BY ALL",
        "FROM selection_changes('picked', old := 1, new := 2) ORDER BY ALL",
    ]
    for question in questions:
        there = subprocess.run(
            [sys.executable, "-c", ASK, str(path), question],
            env={"PYTHONPATH": str(ROOT / ".venv" / "duckdb" / version)},
            capture_output=True,
            text=True,
        )
        assert there.stdout == f"{done.rows(question)}\n", (question, there.stderr)


def test_every_table_view_column_and_question_says_what_it_means(catalog):
    with duckdb.connect(catalog.path, read_only=True) as connection:
        silent = connection.execute(
            """
            SELECT table_name FROM duckdb_tables() WHERE comment IS NULL
            UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL
            UNION ALL SELECT table_name || '.' || column_name FROM duckdb_columns()
            WHERE NOT internal AND comment IS NULL
            UNION ALL SELECT function_name FROM duckdb_functions()
            WHERE NOT internal AND function_type = 'table_macro' AND comment IS NULL
            """
        ).fetchall()
    assert silent == []


def test_the_docs_list_the_columns_that_there_are(catalog):
    page = (ROOT / "docs" / "catalog.md").read_text()
    table = page[page.index("| table or view |") : page.index("| **question** |")]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \|$", table, flags=re.M)
    listed = {}
    for names, columns in rows:
        for name in re.findall(r"`(\w+)`", names):
            # The columns of both; after a semicolon, those that only one of them has.
            first, *others = columns.split("; ")
            more = [each.split(": ")[1] for each in others if each.startswith(f"`{name}`: ")]
            listed[name] = {word.strip() for text in (first.split(":")[0], *more) for word in text.split(",")}
    with duckdb.connect(catalog.path, read_only=True) as connection:
        there = connection.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE NOT internal GROUP BY ALL"
        ).fetchall()
    assert {name: set(columns) for name, columns in there if name in listed} == listed
    # What is not listed is behind what is: for the project alone.
    assert {name for name, _ in there} - listed.keys() == {"about", "materializations", "input_lists"}


def test_it_is_known_why_an_output_was_made_and_where_its_records_are(done):
    done.config["selections"][0]["seed"] = 5
    assert done.errors() == []
    versions = done.rows("SELECT number, why, records FROM selection_versions ORDER BY number")
    assert [(number, why) for number, why, _ in versions] == [
        (1, "never materialized"),
        (2, "changed: configuration (seed 0 -> 5)"),
    ]
    for _, _, records in versions:
        assert done.rows(f"SELECT count(*) FROM read_json('{records}')") == [(20,)]
    assert done.rows("SELECT count(*) FROM lineage WHERE why IS NULL") == [(0,)]


def test_times_are_timestamps_in_utc_and_agree_with_the_files(done):
    path = done.data / "pool/law.jsonl"
    [(modified, kind)] = done.rows(
        "SELECT epoch(modified), typeof(modified) FROM shards WHERE shard = 'pool.law'"
    )
    assert kind == "TIMESTAMP" and modified == pytest.approx(path.stat().st_mtime, abs=1e-5)
    kinds = done.rows(
        "SELECT DISTINCT data_type FROM duckdb_columns() WHERE NOT internal AND column_name LIKE '%\\_at' ESCAPE '\\'"
    )
    assert kinds == [("TIMESTAMP",)]
    late = (
        "SELECT count(*) FROM lineage WHERE NOT finished_at BETWEEN started_at AND now() AT TIME ZONE 'UTC'"
    )
    assert done.rows(late) == [(0,)]
