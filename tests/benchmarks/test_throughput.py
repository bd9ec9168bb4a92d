"""The benchmark as one command, on a few megabytes: that it runs and adds up, not how fast it is."""

import json
import subprocess
import sys

import pytest

from benchmarks.pool import REPOSITORY, find_corpus

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output() -> list[str]:
    """Lines that a small run prints."""
    if find_corpus() is None:
        pytest.skip("no corpus: neither ../shared/data nor the demo's (`make corpus`) is there")
    options = ["--megabytes", "8", "--reference-megabytes", "0.5", "--shard-megabytes", "1"]
    command = [sys.executable, "-m", "benchmarks.throughput", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_last_line_is_all_figures(output):
    figures = json.loads(output[-1])
    assert figures["megabytes"] == pytest.approx(8, rel=0.05)
    ours, reference = figures["dsir"], figures["reference"]
    assert figures["ratio_per_core"] == pytest.approx(ours["per_core"] / reference["per_core"])
    assert ours["until_selections"] < ours["wall"]
    assert sum(ours["stages"].values()) < ours["wall"]
    assert {"raw_counts", "weights", "selections", "evaluations"} <= ours["stages"].keys()
    assert ours["nothing_due_wall"] < ours["wall"]
    for seconds in (ours["new_target"][pool] for pool in ("whole", "quarter", "sha256")):
        assert seconds["counting"] > 0
        assert 0 < seconds["to_picks_assets"] < seconds["to_picks"]
        assert 0 < seconds["to_records_assets"] < seconds["to_records"]
    assert ours["new_target"]["whole"]["to_records"] < ours["one_target_more_wall"]
    assert reference["selected"] == int(reference["eligible"] * 0.1)
    assert figures["functions"]["ours"]["featurize_fast"] > figures["functions"]["reference"]["featurize"]


def test_the_tables_name_both(output):
    text = "\n".join(output)
    assert "get_ngram_counts" in text and "dsir run" in text and "(scaled)" in text
