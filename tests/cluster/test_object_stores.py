"""Pools in an object store: read once, in large requests; whatever the network does, the same results or one line."""

import gzip
import io
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.pool import REPOSITORY
from dsir_dagster.resources.corpus import (
    CorpusError,
    StoreUnreachable,
    discover,
    expand,
    is_still,
    read_blocks,
    stamp_of,
)
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.settings import RawSource, Reader
from tests.assets.test_compute import outcome
from tests.cluster.object_server import BUCKET, KEY, SECRET, Proxy, point_to, put
from tests.dagster_project.test_interrupts import start
from tests.pipeline import DOMAINS, SmallPipeline, sentences

pytestmark = pytest.mark.cluster

MB = 1_000_000


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def in_parquet(records, rows, **options):
    table = pa.Table.from_pylist(records)
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=rows, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def stored(s3_port):
    """A pool in several formats, of which one file takes several requests, and a target."""
    records = {domain: sentences(domain, 60, seed) for seed, domain in enumerate(DOMAINS)}
    large = sentences("law", 8_000, seed=9, length=150)
    put(s3_port, "pool/law.jsonl", lines(records["law"] + large))
    put(s3_port, "pool/code.jsonl.gz", gzip.compress(lines(records["code"])))
    put(s3_port, "pool/medicine.jsonl.zst", pa.compress(lines(records["medicine"]), "zstd", asbytes=True))
    parquet = [{"id": each["id"], "text": each["text"]} for each in sentences("medicine", 100, seed=8)]
    put(s3_port, "pool/more/medicine.parquet", in_parquet(parquet, 20))
    put(s3_port, "medicine.jsonl", lines(sentences("medicine", 30, seed=100)))
    put(s3_port, "medicine-test.jsonl", lines(sentences("medicine", 30, seed=101)))
    return s3_port


def pipeline_over(folder):
    small = SmallPipeline(folder)
    small.config["raw"][0]["uri"] = f"s3://{BUCKET}/pool/**/*"
    target = {"uri": f"s3://{BUCKET}/medicine.jsonl", "holdout": f"s3://{BUCKET}/medicine-test.jsonl"}
    small.config["targets"] = [{"name": "medicine", **target}]
    small.config["evaluation"] = {"random_seeds": 2, "sample": 20_000}
    return small


@pytest.fixture(scope="module")
def expected(stored, tmp_path_factory):
    """What comes out where nothing goes wrong."""
    with pytest.MonkeyPatch.context() as environment:
        proxy = Proxy(stored)
        point_to(proxy.endpoint, environment)
        small = pipeline_over(tmp_path_factory.mktemp("expected"))
        assert small.errors() == []
        proxy.close()
        return outcome(small)


# --- what is fetched -----------------------------------------------------------------------------------------------


def counted(folder, stored, proxy, name, content):
    """Put a file, count it as a shard, and return what share of it was fetched meanwhile."""
    small = pipeline_over(folder)
    small.config["raw"][0]["uri"] = f"s3://{BUCKET}/{folder.name}/*"
    put(stored, f"{folder.name}/{name}", content)
    plan = small.workspace().plan()
    register_shards(small.instance, plan)
    proxy.count_anew()
    [shard] = plan.shards
    assert small.materialize("raw_counts", partition=shard).success
    return proxy.fetched / len(content)


def words_that_do_not_compress(n):
    chance = random.Random(3)
    return [{"id": f"{i}", "text": " ".join(f"{chance.random():.9f}" for _ in range(120))} for i in range(n)]


def test_a_compressed_file_is_fetched_once_for_counting(tmp_path, stored, proxy):
    content = pa.compress(lines(words_that_do_not_compress(25_000)), "zstd", asbytes=True)
    assert len(content) > 12 * MB
    assert counted(tmp_path, stored, proxy, "large.jsonl.zst", content) <= 1.1
    assert len(proxy.ranges) <= 4 and proxy.requests["HEAD"] <= 8, proxy.requests


@pytest.mark.parametrize("rows", [200, 25_000])
def test_of_a_parquet_file_the_columns_that_are_read_are_fetched_in_large_ranges(
    tmp_path, stored, proxy, rows
):
    chance = random.Random(4)
    records = [{**each, "unread": chance.randbytes(500)} for each in words_that_do_not_compress(25_000)]
    content = in_parquet(records, rows, compression="zstd")
    used = in_parquet(
        [{"id": each["id"], "text": each["text"]} for each in records], rows, compression="zstd"
    )
    share = counted(tmp_path, stored, proxy, "large.parquet", content)
    assert share <= 1.1 * len(used) / len(content)
    assert len(proxy.ranges) <= 25_000 / rows + 10, proxy.ranges


@pytest.mark.parametrize("rows", [200, 25_000])
def test_blocks_of_a_parquet_file_are_those_of_a_local_one(tmp_path, stored, proxy, rows):
    content = in_parquet(words_that_do_not_compress(25_000), rows)
    (tmp_path / "a.parquet").write_bytes(content)
    put(stored, "same/a.parquet", content)
    reader = Reader(id="id")
    local, remote = (
        [block.batch for block in read_blocks(uri, reader)]
        for uri in (str(tmp_path / "a.parquet"), f"s3://{BUCKET}/same/a.parquet")
    )
    assert len(local) > 1 and local == remote


def test_after_a_second_look_a_list_is_asked_for_and_nothing_else(tmp_path, stored, proxy):
    small = SmallPipeline(tmp_path)
    small.config["raw"][0]["uri"] = f"s3://{BUCKET}/looks/*"
    put(stored, "looks/a.jsonl", lines([{"id": "1", "text": "first"}]))
    asked = []
    for pause in (0, 0, 3.1, 0):  # a look right after the file was written does not count
        time.sleep(pause)
        proxy.count_anew()
        small.workspace().discovery.shards()
        asked.append(proxy.requests["HEAD"])
    assert asked == [1, 1, 1, 0] and proxy.requests == {"LIST": 1}


# --- what is new ---------------------------------------------------------------------------------------------------


def test_a_process_that_lives_on_sees_new_and_replaced_objects(tmp_path, stored, proxy):
    small = SmallPipeline(tmp_path)
    small.config["raw"][0]["uri"] = f"s3://{BUCKET}/lives/*"
    put(stored, "lives/a.jsonl", lines([{"id": "1", "text": "first"}]))
    discovery = small.workspace().discovery
    before = {file.shard: file.stamp for file in discovery.shards()}
    assert list(before) == ["pool.a"] and re.fullmatch(r"ETag [0-9a-f-]+ \d+", before["pool.a"])
    put(
        stored, "lives/a.jsonl", lines([{"id": "1", "text": "other"}])
    )  # in the same second, of the same size
    put(stored, "lives/b.jsonl", lines([{"id": "2", "text": "new"}]))
    after = {file.shard: file.stamp for file in discovery.shards()}
    assert list(after) == ["pool.a", "pool.b"] and after["pool.a"] != before["pool.a"]


def test_an_object_that_is_replaced_before_it_is_counted_fails_its_shard(
    tmp_path, stored, proxy, monkeypatch
):
    put(stored, "replaced/a.jsonl", lines([{"id": "1", "text": "first"}]))
    [file] = expand(f"s3://{BUCKET}/replaced/*")
    stamp = stamp_of(file)
    assert is_still(file.uri, file.size, file.modified, stamp)
    put(stored, "replaced/a.jsonl", lines([{"id": "1", "text": "other"}]))
    assert not is_still(file.uri, file.size, file.modified, stamp)


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults", [{"slow_down": 0.3}, {"cut": 0.3}, {"reset": 0.3}, {"slow_down": 0.1, "cut": 0.1, "reset": 0.1}]
)
def test_what_a_bad_network_does_changes_nothing(tmp_path, proxy, expected, faults):
    small = pipeline_over(tmp_path)
    with proxy.failing(**faults):
        assert small.errors() == []
    assert set(proxy.made) == set(faults)
    assert outcome(small) == expected


def test_a_slow_store_is_waited_for(stored, proxy):
    uris, reader = [f"s3://{BUCKET}/pool/{name}" for name in ("law.jsonl", "more/medicine.parquet")], Reader()
    expected = [[block.parse().texts for block in read_blocks(uri, reader)] for uri in uris]
    with proxy.failing(delay=2.0):
        assert len(expand(f"s3://{BUCKET}/pool/**/*")) == 4
        assert [[block.parse().texts for block in read_blocks(uri, reader)] for uri in uris] == expected


def test_a_store_that_is_gone_for_twenty_seconds_is_waited_for(tmp_path, proxy, expected):
    small = pipeline_over(tmp_path)
    with proxy.failing(reset=1.0):
        returning = threading.Timer(20.0, lambda: proxy.failing().__enter__())
        returning.start()
        assert small.errors() == []
    returning.join()
    assert proxy.made["reset"] > 5
    assert outcome(small) == expected


def test_where_every_request_is_turned_away_the_error_comes_within_a_minute(tmp_path, stored, proxy):
    small = pipeline_over(tmp_path)
    started = time.monotonic()
    with proxy.failing(slow_down=1.0), pytest.raises(StoreUnreachable) as refused:
        small.run()
    assert time.monotonic() - started < 60
    assert_one_line(str(refused.value), f"s3://{BUCKET}/pool/**/*")


def test_where_no_object_is_served_each_shard_is_named_and_tried_again_next_time(tmp_path, stored, proxy):
    small = SmallPipeline(tmp_path)
    small.config["raw"][0]["uri"] = f"s3://{BUCKET}/pool/**/*"
    shards = small.workspace().plan().shards
    started = time.monotonic()
    with proxy.failing(slow_down=1.0, only=("GET",)):
        stages = small.run()
    assert time.monotonic() - started < 60  # the first two are waited for, the others are not
    assert len(stages["raw_counts"].errors) == len(shards) == 4
    for said, (key, file) in zip(stages["raw_counts"].errors, sorted(shards.items()), strict=True):
        assert_one_line(said.removeprefix(f"raw_counts[{key}]: "), file.uri)
    assert small.rows("SELECT asset FROM failures") == []
    assert small.errors() == [] and len(small.picks()) == 20


def assert_one_line(said, uri):
    assert said.startswith(f"{uri}: its store ") and "\n" not in said
    assert "Traceback" not in said and SECRET not in said


def test_what_the_store_refuses_is_said_in_one_line(stored, proxy, monkeypatch):
    pool = RawSource(name="pool", uri=f"s3://{BUCKET}-none/*")
    with pytest.raises(CorpusError, match=f"{BUCKET}-none/\\*: there is no such bucket; check the uri"):
        discover(pool)
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL", proxy.endpoint + "/"
    )  # another file system, with other credentials
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-" + SECRET)
    with pytest.raises(CorpusError, match="its store refuses access; check the credentials") as refused:
        expand(f"s3://{BUCKET}/pool/*")
    assert_one_line(str(refused.value), f"s3://{BUCKET}/pool/*")
    assert not isinstance(refused.value, StoreUnreachable)


@pytest.mark.parametrize("only", ["LIST", "GET"])
def test_ctrl_c_ends_a_run_that_waits_for_its_store(tmp_path, stored, proxy, only):
    small = pipeline_over(tmp_path)
    with proxy.failing(slow_down=1.0, only=(only,)):
        process = start(small)
        until = time.monotonic() + 60
        while proxy.made["slow_down"] < 6 and time.monotonic() < until and process.poll() is None:
            time.sleep(0.1)
        assert proxy.made["slow_down"] >= 6
        process.send_signal(signal.SIGINT)
        asked = time.monotonic()
        said, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130, said + errors
    assert "Traceback" not in said + errors


# --- credentials ---------------------------------------------------------------------------------------------------


def test_credentials_are_nowhere_but_in_the_environment(tmp_path, stored, proxy):
    small = pipeline_over(tmp_path)
    small.home.mkdir()
    common = ["--config", str(small.config_path), "--home", str(small.home)]
    said = b""
    for command in ("run", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "dsir_dagster", command, *common], cwd=REPOSITORY, capture_output=True
        )
        said += done.stdout + done.stderr
    assert b"8,280 documents" in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    for secret in (SECRET.encode(), KEY.encode() + b":"):
        assert secret not in said
        assert [path for path in files if secret in path.read_bytes()] == []


def test_tasks_of_a_cluster_take_credentials_from_their_own_environment(tmp_path, proxy, expected, cluster):
    import ray

    small = pipeline_over(tmp_path)
    small.config["compute"] = {"engine": "ray"}
    assert small.errors() == []
    assert outcome(small) == expected
    assert SECRET not in ray.get_runtime_context().get_runtime_env_string()
    logs = [path for path in Path(cluster[0].head_node.get_logs_dir_path()).rglob("*") if path.is_file()]
    assert logs and [path for path in logs if SECRET.encode() in path.read_bytes()] == []
