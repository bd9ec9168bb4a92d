"""A comparison with another commit: what the ratio says, and that the command runs."""

import json
import subprocess
import sys

import pytest

from benchmarks.compare import Row
from benchmarks.pool import REPOSITORY, find_corpus


def test_the_ratio_is_above_one_where_this_checkout_is_better():
    assert Row("time", "s", before=4, after=2).ratio == 2
    assert Row("speed", "MB/s", before=4, after=2, more_is_better=True).ratio == 0.5


def test_an_unknown_commit_is_refused_in_git_s_words():
    if find_corpus() is None or not (REPOSITORY / ".git").exists():
        pytest.skip("no corpus, or no repository")
    command = [sys.executable, "-m", "benchmarks.compare", "no-such-commit"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no-such-commit" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_every_row_is_measured_for_both():
    if find_corpus() is None or not (REPOSITORY / ".git").exists():
        pytest.skip("no corpus, or no repository")
    command = [sys.executable, "-m", "benchmarks.compare", "HEAD", "--megabytes", "8"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert len(rows) > 12 and all(row["before"] > 0 and row["after"] > 0 for row in rows)
    assert not list(REPOSITORY.glob(".git/worktrees/before*"))
