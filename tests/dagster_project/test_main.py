"""The command as a process: its output and exit code arrive, and it ends without further output."""

import os
import subprocess
import sys

import pytest

from benchmarks.pool import REPOSITORY


def dsir(*arguments, **options):
    command = [sys.executable, "-m", "dsir_dagster", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def of(pipeline):
    return "--config", pipeline.config_path, "--home", pipeline.home


def test_a_run_and_its_status(pipeline):
    pipeline.write_pool()
    done = dsir("run", *of(pipeline))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("up to date after")
    status = dsir("status", *of(pipeline))
    assert (status.returncode, status.stderr) == (0, "")
    assert status.stdout.splitlines()[-1] == "everything is fresh"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status", "--config", "nowhere.yaml"], 2, "nowhere.yaml: no such configuration file"),
        (["no-command"], 2, "No such command 'no-command'"),
    ],
)
def test_an_error_is_all_that_is_said(tmp_path, arguments, code, said):
    done = dsir(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == code
    assert said in done.stderr
    assert "nanobind" not in done.stderr and "Traceback" not in done.stderr


def test_failed_partitions_are_the_exit_code(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.parquet", b"no such format")
    done = dsir("run", *of(pipeline))
    assert done.returncode == 1
    assert "pool/bad.parquet" in done.stderr and "nanobind" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pyarrow chooses what allocates its memory")
@pytest.mark.parametrize(
    ("chosen", "used"), [({}, "jemalloc"), ({"ARROW_DEFAULT_MEMORY_POOL": "system"}, "system")]
)
def test_memory_of_arrow(chosen, used):
    """The project's choice holds in every process that opens a pipeline; the user's takes precedence."""
    others = {key: value for key, value in os.environ.items() if key != "ARROW_DEFAULT_MEMORY_POOL"}
    code = (
        "import pyarrow; from dsir_dagster.resources.engine import Engine; Engine(); "
        "print(pyarrow.default_memory_pool().backend_name)"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=REPOSITORY, env=others | chosen
    )
    assert said.stdout.strip() == used
