"""The same files wherever work is done: out of order, twice, on other machines."""

import json

import pytest

from dsir_dagster.resources import workspace
from dsir_dagster.resources.compute import Threads
from dsir_dagster.resources.store import TEMPORARY
from tests.compute import BadCluster
from tests.pipeline import DOMAINS, SmallPipeline, sentences

METHODS = ("resample", "top_k", "random", "classifier", "match", "mixture")


def pipeline_over(folder):
    """A pipeline with every method, near-duplicates, caps, a pinned distribution, a temperature to be solved."""
    small = SmallPipeline(folder)
    small.config["raw"][0]["source"] = "domain"
    small.config["features"]["ngrams"] = 1
    small.config["evaluation"] = {"random_seeds": 2, "sample": 20_000}
    common = {"targets": ["medicine"], "size": {"tokens": 5000}, "near_duplicates": 0.9}
    small.config["selections"] = [{"name": name, "method": name, **common} for name in METHODS]
    small.config["selections"][0] |= {"temperature": {"acceptance": 0.2}, "length": "poisson", "epochs": 2}
    small.config["selections"].append(
        {
            "name": "both",
            "targets": ["medicine", "law"],
            "size": {"documents": 40},
            "collapse_duplicates": True,
            "overlap": "best",
            "source_caps": 0.6,
            "output": "parquet",
        }
    )
    small.config["estimator"] = {"fit": {"pinned": "now"}}
    small.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    small.write("law.jsonl", sentences("law", 30, seed=200))
    for seed, domain in enumerate(DOMAINS):
        records = sentences(domain, 40, seed)
        small.write(f"pool/{domain}-a.jsonl", records[:25])
        small.write(f"pool/{domain}-b.jsonl", records[25:] + records[:3])
    return small


def outcome(small):
    """All files but those that name runs and times; what was measured; what the lineage says but for times."""
    files = {
        str(path.relative_to(small.home)): path.read_bytes()
        for path in small.home.rglob("*")
        if path.is_file()
        and path.name != "report.html"
        and TEMPORARY not in path.parts  # what a killed process left
        and not str(path.relative_to(small.home)).startswith(("catalog.", "lineage/"))
    }
    measured = small.rows(
        "SELECT selection, target, metric, pick, statistic, source, value FROM evaluations ORDER BY ALL"
    )
    # What depends on the run and the folder, or is the size of a report, which names these.
    own = ("seconds", "MB_per_s", "file", "bytes_written")
    rows = small.rows("SELECT asset, partition, metadata FROM lineage ORDER BY ALL")
    told = [
        (*key, {name: value for name, value in json.loads(row).items() if name not in own})
        for *key, row in rows
    ]
    return files, measured, told


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    small = pipeline_over(tmp_path_factory.mktemp("threads"))
    assert small.errors() == []
    return outcome(small)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_file_and_number_is_the_same_on_a_bad_cluster(tmp_path, expected, monkeypatch, seed):
    clusters = []
    monkeypatch.setattr(
        workspace, "compute_for", lambda worker: clusters.append(BadCluster(worker, seed)) or clusters[-1]
    )
    small = pipeline_over(tmp_path)
    assert small.errors() == []
    files, measured, told = outcome(small)
    assert files.keys() == expected[0].keys()
    assert [name for name in files if files[name] != expected[0][name]] == []
    assert measured == expected[1]
    assert told == expected[2]
    assert sum(cluster.repeated for cluster in clusters) > 20


def test_a_bad_file_fails_its_own_shard_on_a_cluster_too(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "compute_for", BadCluster)
    small = SmallPipeline(tmp_path)
    small.write_pool()
    small.write_bytes("pool/bad.jsonl.gz", b"\x1f\x8bnot a gzip file")
    [error] = small.errors()
    assert "raw_counts[pool.bad]" in error and "bad.jsonl.gz" in error
    assert small.rows("SELECT count(DISTINCT shard) FROM documents") == [(3,)]


def test_without_ray_everything_can_be_read_and_a_run_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("dsir_dagster.resources.ray_compute.find_spec", lambda name: None)
    small = SmallPipeline(tmp_path)
    small.write_pool()
    small.config["compute"] = {"engine": "ray"}
    assert small.workspace().plan().outputs()
    errors = small.errors()
    assert errors and all("compute.engine: ray is not installed; install it with" in each for each in errors)


def test_an_error_of_a_function_is_raised_where_its_result_is_asked_for(tmp_path):
    small = SmallPipeline(tmp_path)
    small.write_pool()
    for engine in (Threads, BadCluster):
        results = engine(small.workspace().worker).map(_one_over, [1, 2, 0, 4])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            list(results)


def _one_over(worker, item):
    return 1 / item
