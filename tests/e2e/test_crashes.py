"""Processes of a real ``dg dev`` that die, and what becomes of the work: nothing is lost, little is done twice.

What belongs here: killing what Dagster started. What does not: kills of ``dsir run`` (``tests/assets/test_kill.py``).
"""

import os
import re
import signal
import time
from collections import Counter

import pytest

from dsir_dagster.cli import main
from tests.e2e.server import REPOSITORY, DagsterServer
from tests.pipeline import sentences

pytestmark = pytest.mark.e2e

SHARDS = 40

RUNS = """
query ($backfill: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $backfill}]}) {
    ... on Runs { results { runId status tags { key value } } } } }"""


@pytest.fixture
def slow(pipeline, monkeypatch):
    """A pool of many shards whose files take half a second each."""
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # so that the server finds the reader
    pipeline.config["raw"][0]["reader"] = "tests.e2e.readers:slow_jsonl"
    for i in range(SHARDS):
        pipeline.write(f"pool/part-{i:02d}.jsonl", sentences("law", 3, seed=i))
    assert main(["init", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
    return pipeline


def made(pipeline):
    """Return how often each shard was counted."""
    rows = pipeline.rows("SELECT partition FROM lineage WHERE asset = 'raw_counts'")
    return Counter(partition for (partition,) in rows)


def some_made(pipeline):
    try:
        return len(made(pipeline)) >= 5
    except Exception:  # the catalog is not there yet, or someone writes to it
        return False


def worker(server, run_id):
    """Return the process that executes a run."""
    query = """
    query ($run: ID!) { logsForRun(runId: $run) { ... on EventConnection {
      events { ... on MessageEvent { message } } } } }"""
    events = server.ask(query, run=run_id)["logsForRun"]["events"]
    found = [re.search(r"\(pid: (\d+)\)", event.get("message") or "") for event in events]
    return next(int(match[1]) for match in found if match)


def test_a_killed_run_is_started_again_and_goes_on_where_it_was(slow, tmp_path):
    server = DagsterServer(slow.config_path, slow.home, tmp_path / "dg.log")
    with server:
        backfill = server.backfill("raw_counts")
        server.wait_for(lambda: some_made(slow), 120, "the first shards")
        [run] = server.ask(RUNS, backfill=backfill)["runsOrError"]["results"]
        os.kill(worker(server, run["runId"]), signal.SIGKILL)
        before, killed = made(slow), time.monotonic()
        state = server.wait_for_backfill(backfill)
        print(f"from the kill to the end of the backfill: {time.monotonic() - killed:.1f} s")
    assert len(before) < SHARDS
    assert state["status"] == "COMPLETED_SUCCESS"
    assert sorted(run["status"] for run in state["runs"]) == ["FAILURE", "SUCCESS"]
    # What was recorded before the kill was not done again.
    assert made(slow) == Counter({f"pool.part-{i:02d}": 1 for i in range(SHARDS)})
    assert server.left == []


def test_a_backfill_outlives_a_server_that_is_killed(slow, tmp_path):
    server = DagsterServer(slow.config_path, slow.home, tmp_path / "dg.log")
    with server:
        backfill = server.backfill("raw_counts")
        server.wait_for(lambda: some_made(slow), 120, "the first shards")
        server.kill()
    before = made(slow)
    assert len(before) < SHARDS
    state = finish(slow, tmp_path, backfill)
    assert sorted(run["status"] for run in state["runs"]) == ["FAILURE", "SUCCESS"]


def test_a_backfill_outlives_a_server_that_is_stopped(slow, tmp_path):
    server = DagsterServer(slow.config_path, slow.home, tmp_path / "dg.log")
    with server:
        backfill = server.backfill("raw_counts")
        server.wait_for(lambda: some_made(slow), 120, "the first shards")
    # Dagster lets its runs go on to their end when it is asked to stop.
    finish(slow, tmp_path, backfill)
    assert server.left == []


def finish(pipeline, folder, backfill):
    """Start the server again and let it finish the backfill; return its status and runs."""
    server = DagsterServer(pipeline.config_path, pipeline.home, folder / "dg-again.log")
    with server:
        restarted = time.monotonic()
        state = server.wait_for_backfill(backfill)
        print(f"from the restart to the end of the backfill: {time.monotonic() - restarted:.1f} s")
    assert state["status"] == "COMPLETED_SUCCESS"
    assert made(pipeline) == Counter({f"pool.part-{i:02d}": 1 for i in range(SHARDS)})
    assert server.left == []
    return state
