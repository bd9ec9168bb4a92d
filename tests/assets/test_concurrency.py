"""Several processes on one catalog: this project's own, and DuckDB shells that hold it for half a minute.

What belongs here: that all of them end well and with the same outputs. What does not: threads and locks of
one transaction (``tests/resources/test_catalog.py``).
"""

import re
import subprocess
import sys
import time

import pytest

from benchmarks.concurrency import at_once, write_pipeline
from tests.assets.test_kill import outputs, start
from tests.pipeline import SmallPipeline

pytestmark = pytest.mark.slow

HOLD_SECONDS = 30

#: A shell that opens the catalog as soon as it gets it, and keeps it.
SHELL = """
import sys, time, duckdb
path, seconds, role = sys.argv[1:]
while True:
    try:
        connection = duckdb.connect(path, read_only=role == "reader")
        break
    except duckdb.IOException:
        time.sleep(0.001)
print("held", flush=True)
time.sleep(float(seconds))
"""


def test_eight_processes_at_once_fail_nowhere_wait_little_and_leave_what_one_leaves(tmp_path, monkeypatch):
    homes = {}
    for processes in (1, 8):
        folder = tmp_path / str(processes)
        folder.mkdir()
        config, home = write_pipeline(folder, shards=120), folder / "home"
        monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
        for asset in ("raw_counts", "weights"):
            waits = at_once(config, home, asset, processes, runs=5)
            print(processes, asset, waits)
            # A second is the bar where the cores are ours; here others may have them.
            assert len(waits) == processes and max(each.catalog for each in waits) < 5
        homes[processes] = home
    alone, together = (outputs(homes[n]) for n in (1, 8))
    assert len(alone) > 4 * 120 and together == alone


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_a_run_waits_for_a_shell_that_holds_the_catalog_and_ends_as_an_undisturbed_one(tmp_path, role):
    calm, disturbed = SmallPipeline(tmp_path / "calm"), SmallPipeline(tmp_path / "disturbed")
    for small in (calm, disturbed):
        small.write_pool()
    undisturbed = start(calm)
    text = undisturbed.communicate()[0].decode()
    assert undisturbed.returncode == 0, text

    run = start(disturbed)
    while not list(disturbed.home.glob("raw_counts/pool.*")):
        time.sleep(0.01)  # between the first asset's start and the second one's
    shell = subprocess.Popen(
        [sys.executable, "-c", SHELL, str(disturbed.home / "catalog.duckdb"), str(HOLD_SECONDS), role],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert shell.stdout.readline() == "held\n"
    assert run.poll() is None
    held = time.monotonic()
    text = run.communicate()[0].decode()
    waited = time.monotonic() - held
    assert shell.wait() == 0 and run.returncode == 0, text
    assert waited > HOLD_SECONDS
    assert re.search(r"waited \d+\.\d s for the catalog: an open DuckDB shell\?", text), text
    assert outputs(disturbed.home) == outputs(calm.home)
    assert disturbed.picks() == calm.picks()
