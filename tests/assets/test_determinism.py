"""The same documents, in the same order, with the same bits, however the pool is cut and worked on."""

import json
from functools import partial
from pathlib import Path

import pytest

from dsir_dagster.assets import raw_counts
from dsir_dagster.resources.corpus import read_blocks
from tests.pipeline import DOMAINS, QUICK_EVALUATION, SmallPipeline, sentences


def pool():
    """Return 300 documents, with a few duplicates of text under other ids."""
    records = [
        record for seed, domain in enumerate(DOMAINS) for record in sentences(domain, 100, seed, length=60)
    ]
    records += [{**records[i], "id": f"copy-{i}"} for i in (3, 4, 150)]
    return records


def pipeline_over(folder, files):
    small = SmallPipeline(folder)
    small.config["evaluation"] = QUICK_EVALUATION
    small.config["selections"] = [
        {
            "name": "resampled",
            "targets": ["medicine"],
            "size": {"documents": 50},
            "min_tokens": 50,
            "seed": 3,
        },
        {"name": "tokens", "targets": ["medicine"], "size": {"tokens": 4000}, "min_tokens": 50},
        {"name": "mixed", "targets": ["medicine", "law"], "size": {"documents": 60}, "min_tokens": 50},
    ]
    small.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    small.write("law.jsonl", sentences("law", 30, seed=200))
    for name, records in files.items():
        small.write(f"pool/{name}.jsonl", records)
    return small


def all_picks(small):
    return {name: small.picks(name) for name in ("resampled", "tokens", "mixed")}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Return the picks from the pool as one file, with one thread."""
    small = pipeline_over(tmp_path_factory.mktemp("one"), {"all": pool()})
    assert not any(stage.errors for stage in small.run(threads=1, until="selections").values())
    picks = all_picks(small)
    assert [len(rows) for rows in picks.values()][::2] == [50, 60]
    return picks


@pytest.mark.parametrize(
    ("cut", "threads"),
    [
        pytest.param(
            lambda records: {f"{i:02d}": records[i::46] for i in range(46)}, 2, id="46 files, 2 threads"
        ),
        pytest.param(lambda records: {"b": records[:100], "a": records[100:]}, 1, id="2 files, 1 thread"),
        pytest.param(lambda records: {"reversed": records[::-1]}, 2, id="another order"),
    ],
)
def test_picks_do_not_depend_on_sharding_order_or_threads(tmp_path, expected, cut, threads):
    small = pipeline_over(tmp_path, cut(pool()))
    assert not any(stage.errors for stage in small.run(threads, until="selections").values())
    assert all_picks(small) == expected


def test_picks_do_not_depend_on_how_files_are_read(tmp_path, expected, monkeypatch):
    """In blocks of a few lines, and of small row groups; some blocks have a line that the scanner leaves to Arrow."""
    monkeypatch.setattr(raw_counts, "ROW_GROUP", 40)
    monkeypatch.setattr(raw_counts, "read_blocks", partial(read_blocks, block_bytes=5000))
    records = [{**record, "odd": float("nan")} if i % 60 == 0 else record for i, record in enumerate(pool())]
    small = pipeline_over(tmp_path, {"all": records})
    assert not any(stage.errors for stage in small.run().values())
    assert all_picks(small) == expected
    assert small.rows("SELECT row FROM documents ORDER BY row") == [(i,) for i in range(len(records))]


@pytest.mark.slow
def test_picks_do_not_depend_on_the_runs_that_led_to_them(tmp_path, expected):
    records = pool()
    small = pipeline_over(tmp_path, {"00": records[:30]})
    small.run()
    for i in range(1, 4):
        small.write(f"pool/{i:02d}.jsonl", records[30 * i : 30 * (i + 1) if i < 3 else None])
        small.run()
    assert all_picks(small) == expected


def test_partition_by_partition_equals_one_run(tmp_path, expected):
    small = pipeline_over(tmp_path, {"a": pool()[:150], "b": pool()[150:]})

    def materialize(asset, partition=None):
        assert small.materialize(asset, partition=partition).success

    small.instance.add_dynamic_partitions("shards", ["pool.b", "pool.a"])
    for target in ("law", "medicine"):
        materialize("target_counts", target)
    for shard in ("pool.b", "pool.a"):
        materialize("raw_counts", shard)
    materialize("importance_estimator")
    for shard in ("pool.a", "pool.b"):
        materialize("weights", shard)
    for selection in ("mixed", "tokens", "resampled"):
        materialize("selections", selection)
    assert all_picks(small) == expected


def test_files_are_byte_identical_where_the_sharding_is(tmp_path):
    def files(folder: Path, threads):
        small = pipeline_over(folder, {f"{i}": pool()[i::5] for i in range(5)})
        small.run(threads)
        home = small.home
        return {
            str(path.relative_to(home)): path.read_bytes()
            for path in home.rglob("*")
            # A report names the runs and the times that its lineage has, in the catalog and in lineage files.
            if path.is_file()
            and path.name != "report.html"
            and not str(path.relative_to(home)).startswith(("catalog.", "lineage/"))
        }

    one, two = files(tmp_path / "one", 1), files(tmp_path / "elsewhere", 2)
    assert len(one) > 30
    assert one == two


def test_another_seed_picks_other_documents(tmp_path, expected):
    small = pipeline_over(tmp_path, {"all": pool()})
    small.config["selections"][0]["seed"] = 4
    small.run(until="selections")
    ids = {row[2] for row in small.picks("resampled")}
    assert ids != {row[2] for row in expected["resampled"]}


def test_selected_records_are_in_order_of_shard_and_row(tmp_path):
    small = pipeline_over(tmp_path, {"b": pool()[:150], "a": pool()[150:]})
    small.run(until="selections")
    provenance = [json.loads(line)["_dsir"] for line in small.records("mixed")]
    positions = [(row["shard"], row["row"]) for row in provenance]
    assert positions == sorted(positions) and len(set(positions)) == 60
