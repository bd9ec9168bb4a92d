"""Bulk files in an S3 server: the same bytes from threads and from two nodes, whatever the network does meanwhile."""

import signal
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.assets.test_compute import outcome, pipeline_over
from tests.cluster.object_server import BUCKET
from tests.dagster_project.test_interrupts import start
from tests.pipeline import SmallPipeline

pytestmark = pytest.mark.cluster


def few_of(small: SmallPipeline) -> SmallPipeline:
    """Keep a selection by `resample`, one by `match`, and one of two targets: there are many requests to each."""
    kept = ("resample", "match", "both")
    small.config["selections"] = [each for each in small.config["selections"] if each["name"] in kept]
    return small


def in_bucket(small: SmallPipeline, name: str) -> SmallPipeline:
    small.config["store"] = f"s3://{BUCKET}/homes/{name}"
    return small


def result(small: SmallPipeline):
    """Checksums of all files but the reports, which name their folder; what was measured and told."""
    rows = small.workspace().latest().values()
    assert not any(row.absent for row in rows)
    files = {name: checksum for row in rows for name, checksum in row.files.items()}
    kept = {name: checksum for name, checksum in files.items() if not name.endswith("report.html")}
    return kept, *outcome(small)[1:]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    small = few_of(pipeline_over(tmp_path_factory.mktemp("local")))
    assert small.errors() == []
    return result(small)


def test_every_file_and_number_is_that_of_a_local_home(tmp_path, proxy, expected):
    small = in_bucket(few_of(pipeline_over(tmp_path)), "whole")
    with proxy.failing(slow_down=0.1, cut=0.1, reset=0.1):
        assert small.errors() == []
    assert set(proxy.made) == {"slow_down", "cut", "reset"}
    assert result(small) == expected


def test_a_node_that_is_lost_changes_nothing(tmp_path, proxy, cluster, expected):
    started, nodes = cluster
    small = in_bucket(few_of(pipeline_over(tmp_path)), "nodes")
    small.config["compute"] = {"engine": "ray"}
    store = small.workspace().store

    def lose():
        while not store.listing("weights"):
            time.sleep(0.05)
        started.remove_node(nodes[0])

    losing = threading.Thread(target=lose)
    losing.start()
    assert small.errors() == []
    losing.join()
    assert result(small) == expected


def test_a_run_that_is_killed_leaves_whole_objects_and_the_next_goes_on(tmp_path, proxy, expected):
    small = in_bucket(few_of(pipeline_over(tmp_path)), "killed")
    store = small.workspace().store
    for kind in ("features", "selections"):
        process = start(small)
        while not store.listing(kind) and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        process.communicate()
        for name in store.listing("features"):
            with store._files(name).open(name) as file, pa.ipc.open_file(file) as batches:
                batches.read_all()
        for name in [*store.listing("documents"), *store.listing("weights")]:
            with store._files(name).open(name) as file:
                pq.read_table(file)
    assert small.errors() == []
    assert result(small)[0] == expected[0]


def test_a_store_that_is_gone_ends_a_run_in_one_line_and_nothing_is_lost(tmp_path, proxy):
    small = in_bucket(SmallPipeline(tmp_path), "gone")
    small.write_pool()
    assert small.errors() == []
    small.config["selections"][0]["size"] = {"documents": 25}
    with proxy.failing(reset=1.0):
        process = start(small)
        _, errors = process.communicate(timeout=120)
    [line] = errors.strip().splitlines()
    assert process.returncode == 1 and line.startswith(small.config["store"])
    assert "its store does not answer; check the network and the endpoint, and try again" in line
    assert small.errors() == []
    assert small.workspace().latest()["selections", "picked"].metadata["documents"] == 25


def test_ctrl_c_ends_a_run_that_waits_for_its_store(tmp_path, proxy):
    small = in_bucket(SmallPipeline(tmp_path), "waits")
    small.write_pool()
    assert small.errors() == []
    with proxy.failing(slow_down=1.0):
        process = start(small)
        while proxy.made["slow_down"] < 3 and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        said, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130, said + errors
    assert "Traceback" not in said + errors
