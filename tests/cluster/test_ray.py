"""Two Ray nodes: the same files and numbers as in threads, also where a node is lost meanwhile."""

import os
import threading
import time

import pytest

from dsir_dagster.resources.engine import Stopped
from dsir_dagster.resources.ray_compute import TaskLost
from tests.assets.test_compute import outcome, pipeline_over
from tests.pipeline import SmallPipeline

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.cluster


def on_ray(small):
    small.config["compute"] = {"engine": "ray"}
    return small


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    small = pipeline_over(tmp_path_factory.mktemp("threads"))
    assert small.errors() == []
    return outcome(small)


def test_every_file_and_number_is_that_of_the_threads(tmp_path, cluster, expected):
    small = on_ray(pipeline_over(tmp_path))
    assert small.errors() == []
    assert outcome(small) == expected


@pytest.mark.parametrize("made", ["features/*.arrow", "weights/target=medicine/*.parquet", "selections/*/*"])
def test_a_node_that_is_lost_in_a_stage_changes_nothing(tmp_path, cluster, expected, made):
    started, nodes = cluster
    small = on_ray(pipeline_over(tmp_path))

    def lose():
        while not any(small.home.glob(made)):
            time.sleep(0.02)
        started.remove_node(nodes[0])

    losing = threading.Thread(target=lose)
    losing.start()
    assert small.errors() == []
    losing.join()
    assert outcome(small) == expected


def test_a_task_whose_process_dies_each_time_fails_its_own_output(tmp_path, cluster):
    small = on_ray(SmallPipeline(tmp_path))
    found = dict(each for each in small.workspace().compute.map_outputs(die_of_one, [0, 1, 2], print) if each)
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], TaskLost) and "given up by Ray after 5 retries: " in str(found[1])
    assert "\n" not in str(found[1])


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_work_that_is_stopped_ends_at_once(tmp_path, cluster, seconds):
    compute = on_ray(SmallPipeline(tmp_path)).workspace().compute
    results = compute.map(wait_after_the_first, ((number, seconds) for number in range(1000)))
    assert next(results) == 0
    compute.stop()
    started = time.monotonic()
    with pytest.raises(Stopped):
        next(results)
    assert time.monotonic() - started < 20


def wait_after_the_first(worker, item):
    number, seconds = item
    time.sleep(seconds if number else 0.0)
    return number


def die_of_one(worker, item, tell):
    if item == 1:
        os._exit(1)
    return item


def test_a_bad_file_fails_its_own_shard_and_the_error_says_where_it_was_raised(tmp_path, cluster):
    small = on_ray(SmallPipeline(tmp_path))
    small.write_pool()
    small.write_bytes("pool/bad.jsonl.gz", b"\x1f\x8bnot a gzip file")
    [error] = small.errors()
    assert error.startswith("raw_counts[pool.bad]: ")
    assert small.rows("SELECT count(DISTINCT shard) FROM documents") == [(3,)]
