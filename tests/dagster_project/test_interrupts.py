"""Ctrl-C and SIGTERM stop `dsir run`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from benchmarks.pool import REPOSITORY
from tests.pipeline import sentences

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def slow(pipeline):
    """Forty shards whose files take half a second each: more than are counted before the stop."""
    pipeline.config["raw"][0]["reader"] = "tests.e2e.readers:slow_jsonl"
    for i in range(40):
        pipeline.write(f"pool/part-{i:02d}.jsonl", sentences("medicine", 3, seed=i))
    return pipeline


def start(pipeline):
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(pipeline.home / "dagster"),
        "PYTHONPATH": str(REPOSITORY),
    }
    arguments = ["run", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]
    return subprocess.Popen(
        [sys.executable, "-m", "dsir_dagster", *arguments],
        env=environment,
        # The tests may be a shell's background job, which ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: [signal.signal(s, signal.SIG_DFL) for s in (signal.SIGINT, signal.SIGTERM)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def counted(pipeline):
    try:
        return pipeline.rows("SELECT count(*) FROM lineage WHERE asset = 'raw_counts'")[0][0]
    except Exception:  # the catalog is not there yet
        return 0


def wait_for_some(pipeline, process):
    deadline = time.monotonic() + 60
    while counted(pipeline) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    assert 2 <= counted(pipeline) < 40


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_nothing_is_made_of_a_part_of_the_pool(slow, monkeypatch, number, code):
    monkeypatch.setenv("DAGSTER_HOME", str(slow.home / "dagster"))
    process = start(slow)
    wait_for_some(slow, process)
    asked = time.monotonic()
    process.send_signal(number)
    said, errors = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode == code, said + errors
    assert errors.startswith("stopped; finished outputs stay, and `") and len(errors.splitlines()) == 1
    assert errors.endswith(f" --home {slow.home}` goes on from there\n")
    assert "Traceback" not in said + errors and "✓" not in said
    assert slow.rows("SELECT DISTINCT asset FROM lineage") == [("raw_counts",)]
    assert not list(slow.home.glob("*/.tmp/new/*"))  # half-written files are gone
    with dg.DagsterInstance.from_config(str(slow.home / "dagster")) as instance:
        [run] = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.CANCELED


@pytest.mark.slow
def test_the_second_signal_ends_it_at_once(slow):
    slow.config["raw"][0]["reader"] = "tests.e2e.readers:stuck_after_some"
    process = start(slow)
    wait_for_some(slow, process)
    time.sleep(4.0)  # it waits in the middle of a file that hangs
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None  # it waits a while for the reader
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - asked < 2
    assert counted(slow) == 6  # everything finished, though others were in progress
    assert slow.workspace().lock.hold(print)  # the home is free


def catches(pid: int, number: int) -> bool:
    """Whether a process handles a signal."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the handlers of a process are read from /proc"
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_command_loads_is_one_word(pipeline, number, code):
    process = start(pipeline)
    while not catches(process.pid, signal.SIGTERM):  # from here it loads, for a second or more
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, "stopped\n")
