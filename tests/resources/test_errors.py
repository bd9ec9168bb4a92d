"""Foreign errors: each is one line that says what it is and what to do; a fault of the code is none of them."""

import errno
import os
import re
import sqlite3

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
import sqlalchemy as sa
from rich.text import Text

from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.database import CatalogDamaged
from dsir_dagster.resources.errors import explained


def nest(n):
    return nest(n + 1)


def attach_garbage(tmp_path):
    (tmp_path / "catalog.duckdb").write_bytes(b"garbage" * 5000)
    duckdb.connect().execute(f"ATTACH '{tmp_path}/catalog.duckdb' AS catalog")


def too_little_memory(tmp_path):
    connection = duckdb.connect(config={"memory_limit": "5MB", "temp_directory": ""})
    connection.execute("SELECT list(i) FROM range(10000000) AS t(i)").fetchall()


def a_full_database(tmp_path):
    connection = sqlite3.connect(tmp_path / "runs.db")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("PRAGMA max_page_count = 3")
    connection.execute("INSERT INTO t VALUES (zeroblob(100000))")


def a_database_that_is_none(tmp_path):
    (tmp_path / "runs.db").write_bytes(b"no database" * 1000)
    sqlite3.connect(tmp_path / "runs.db").execute("SELECT * FROM t")


def a_read_only_database(tmp_path):
    sqlite3.connect(tmp_path / "runs.db").execute("CREATE TABLE t (x)")
    sqlite3.connect(f"file:{tmp_path}/runs.db?mode=ro", uri=True).execute("CREATE TABLE u (x)")


def nowhere(tmp_path):
    sa.create_engine(f"sqlite:///{tmp_path}/none/runs.db").connect()


def a_configuration_of_dagster(tmp_path):
    (tmp_path / "dagster.yaml").write_text("run_launcher: 3\n")
    dg.DagsterInstance.from_config(str(tmp_path))


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda _: nest(0), "nested deeper"),
        (lambda _: b"\xff".decode(), "text that is not UTF-8: .* write it again as UTF-8"),
        (lambda _: "a\udcff".encode(), r"'\\udcff' cannot be written as utf-8: .* Rename the file"),
        (lambda _: "✓".encode("ascii"), r"'✓' cannot be written as ascii"),
        (lambda _: bytearray(1 << 62), "not enough memory; .* fewer cores"),
        (lambda _: pa.allocate_buffer(1 << 60), "not enough memory"),
        (lambda folder: (folder / "none").read_text(), "none: No such file or directory"),
        (lambda folder: (folder / "none").open("rb"), "none: No such file or directory"),
        (too_little_memory, "not enough memory; .*: Out of Memory Error"),
        (attach_garbage, "not a valid DuckDB database file! .* `dsir verify --rebuild`"),
        (a_full_database, "where Dagster keeps its history: database or disk is full; .* make room"),
        (
            a_database_that_is_none,
            "where Dagster keeps its history: file is not a database; move the folder away",
        ),
        (a_read_only_database, "attempt to write a readonly database; .* name another folder"),
        (nowhere, "unable to open database file; .* name another folder"),
        (a_configuration_of_dagster, "Dagster: "),
        (lambda _: Text.from_markup("[/b]"), "the terminal cannot show it"),
    ],
)
def test_a_foreign_error_is_one_line(tmp_path, fails, said):
    with pytest.raises((Exception,)) as caught:
        fails(tmp_path)
    line = explained(caught.value)
    assert line and "\n" not in line.strip()
    assert re.search(said, line), line


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "/home/x: Permission denied; it is read-only or another user's: name another folder"),
        (errno.EROFS, "/home/x: Read-only file system; it is read-only"),
        (errno.ENOSPC, "/home/x: No space left on device; finished work is kept: make room"),
        (errno.EIO, "/home/x: Input/output error"),
    ],
)
def test_the_system_names_the_file(number, said):
    assert explained(OSError(number, os.strerror(number), "/home/x")).startswith(said)


def test_our_own_errors_say_it_themselves(tmp_path):
    assert explained(CorpusError("pool.jsonl: bad")) == "pool.jsonl: bad"
    assert "--rebuild" in explained(CatalogDamaged(tmp_path / "catalog.duckdb", "is gone"))


def test_a_fault_of_the_code_is_not_explained_away():
    assert explained(KeyError("x")) is None and explained(TypeError("x")) is None
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise dg.DagsterError("step failed") from error
    except dg.DagsterError as error:
        assert explained(error).startswith("not enough memory")
