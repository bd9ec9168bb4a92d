"""The catalog under many processes: killed ones, readers, DuckDB shells, and a lock that comes late.

What belongs here: that no recorded transaction is lost and the file is never unreadable, whoever else has it open. What
does not: one process (``test_catalog.py``), making a lost catalog again (``test_rebuild.py``).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest

from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.database import CatalogDamaged
from dsir_dagster.resources.store import Store

#: Records one row a transaction and says so after each, as a run does that is asked what it has finished.
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from dsir_dagster.resources.catalog import Catalog
from dsir_dagster.resources.lineage import Lineage
home, who, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open(sys.argv[5], "a", buffering=1) as said:
    for i in range(first, last):
        now = datetime.now(UTC)
        Catalog(home).record([Lineage(who, str(i), "f", "run", {}, now, now, 0, 0, {}, {})])
        said.write(f"{i}\\n")
"""

READER = """
import sys, time
from pathlib import Path
from dsir_dagster.resources.catalog import Catalog
while True:
    Catalog(Path(sys.argv[1])).latest()
    print("read", flush=True)
    time.sleep(0.01)
"""

#: A DuckDB shell for writing, again and again: it takes no lock but DuckDB's own.
SHELL = """
import sys, duckdb
while True:
    try:
        with duckdb.connect(sys.argv[1]) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS scratch (i INTEGER)")
            connection.execute("INSERT INTO scratch VALUES (1)")
    except duckdb.IOException as error:
        if "lock" not in str(error):
            raise
"""


_started: list[subprocess.Popen] = []


@pytest.fixture
def home(tmp_path) -> Iterator[Path]:
    Store(tmp_path / "home").prepare()
    yield tmp_path / "home"
    for process in _started:  # a test that fails leaves nothing running
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _started.clear()


def start(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [*prefix, sys.executable, "-c", script, *map(str, arguments)]
    # In a group of its own, so that what strace started ends with it.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    _started.append(process)
    return process


def end(process: subprocess.Popen) -> str:
    os.killpg(process.pid, signal.SIGKILL)
    return process.communicate(timeout=20)[1]


def recorded(home: Path) -> set[tuple[str, str]]:
    return set(Catalog(home).latest())


@pytest.mark.parametrize(
    ("writers", "transactions", "kills"),
    [(2, 20, 1), pytest.param(8, 500, 40, marks=pytest.mark.slow)],
)
def test_nothing_that_was_recorded_is_lost_whoever_is_killed_and_readers_never_fail(
    home, tmp_path, writers, transactions, kills
):
    chance = random.Random(0)
    said = [tmp_path / f"{who}.txt" for who in range(writers)]

    def written(who: int) -> list[int]:
        return [int(line) for line in said[who].read_text().splitlines()] if said[who].exists() else []

    def begin(who: int) -> subprocess.Popen:
        first = max(written(who), default=-1) + 1
        return start(WRITER, home, f"w{who}", first, transactions, said[who])

    running = {who: begin(who) for who in range(writers)}
    reader = start(READER, home)
    reader_said = []
    killed = 0
    while running:
        time.sleep(0.02)
        for who, process in list(running.items()):
            if process.poll() is None:
                if killed < kills and len(written(who)) > transactions * killed / kills * 0.8:
                    time.sleep(chance.uniform(0, 0.02))
                    process.kill()
                    killed += process.wait() < 0
                    process.communicate()
                    running[who] = begin(who)
            else:
                assert process.returncode == 0, process.communicate()[1]
                del running[who]
    assert reader.poll() is None, reader.communicate()[1]
    reader.kill()
    reader_said, errors = reader.communicate()
    assert reader_said.count("read") > 5 and not errors
    assert killed == kills
    expected = {(f"w{who}", str(i)) for who in range(writers) for i in range(transactions)}
    assert {(f"w{who}", str(i)) for who in range(writers) for i in written(who)} <= expected
    assert recorded(home) == expected
    with duckdb.connect(home / "catalog.duckdb", read_only=True) as connection:
        # A transaction that was recorded by a process that was killed before it could say so is done again.
        [(rows, numbers)] = connection.execute(
            "SELECT count(*), count(DISTINCT sequence) FROM lineage"
        ).fetchall()
    assert len(expected) <= rows <= len(expected) + kills and numbers == rows


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed: no lock can be delayed")
@pytest.mark.parametrize("script", ["writer", "reader"])
def test_a_lock_that_comes_seconds_after_the_headers_were_read_costs_nothing(home, tmp_path, script):
    said = [tmp_path / name for name in ("before", "slow", "quick")]
    assert start(WRITER, home, "before", 0, 3, said[0]).wait() == 0
    delayed = ("strace", "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", str(home / "catalog.duckdb"))
    delayed += ("-e", "trace=fcntl", "-e", "inject=fcntl:delay_enter=1000000")
    if script == "writer":
        slow = start(WRITER, home, "slow", 0, 3, said[1], prefix=delayed)
    else:
        slow = start(READER, home, prefix=delayed)
    # Others write all the time, between what it reads and its lock too.
    quick = start(WRITER, home, "quick", 0, 10**6, said[2])
    if script == "writer":
        assert slow.wait() == 0, slow.communicate()[1]
    else:
        time.sleep(12)
        assert slow.poll() is None, slow.communicate()[1]
        assert not end(slow)
    assert "fcntl" in (tmp_path / "trace").read_text()
    assert quick.poll() is None, quick.communicate()[1]
    end(quick)
    expected = {(path.name, line) for path in said if path.exists() for line in path.read_text().splitlines()}
    assert len(expected) > 10 and expected <= recorded(home)


@pytest.mark.slow
def test_what_shells_for_writing_overwrite_is_noticed_and_made_again(home, tmp_path):
    said = [tmp_path / f"{who}.txt" for who in range(2)]
    assert start(WRITER, home, "w", 0, 1, said[0]).wait() == 0
    shells = [start(SHELL, home / "catalog.duckdb") for _ in range(2)]
    first, noticed = 1, 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and first < 200:  # bounded: shells may keep the catalog for long
        writer = start(WRITER, home, "w", first, min(first + 40, 200), said[0])
        errors = writer.communicate()[1]
        first = max(map(int, said[0].read_text().splitlines())) + 1
        shells = [each if each.poll() is None else start(SHELL, home / "catalog.duckdb") for each in shells]
        if writer.returncode:
            assert "CatalogDamaged" in errors or "CatalogLocked" in errors, errors
            noticed += 1
            Catalog(home).rebuild(lambda outputs: [True] * len(outputs))
    for shell in shells:
        end(shell)
    try:
        found = recorded(home)
    except CatalogDamaged:
        Catalog(home).rebuild(lambda outputs: [True] * len(outputs))
        found = recorded(home)
    print(f"{first} transactions, {noticed} times noticed")
    assert found >= {("w", str(i)) for i in range(first)}
