"""The job that materializes shards by a list of keys or patterns."""

import dagster as dg
import pytest

from dsir_dagster.definitions import build_defs
from tests.pipeline import sentences, silent


def materialize(pipeline, **config):
    defs = build_defs(pipeline.config_path, pipeline.home, {"console": silent})
    return defs.resolve_job_def("materialize_shards").execute_in_process(
        instance=pipeline.instance,
        raise_on_error=False,
        run_config={"loggers": {"console": {}}, "ops": {"materialize_matching": {"config": config}}},
    )


def message(result):
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data.description


def counted(pipeline):
    return sorted(shard for (shard,) in pipeline.rows("SELECT DISTINCT shard FROM documents"))


def test_scattered_shards_are_materialized_in_one_run_each_with_its_event(pipeline):
    for i in range(9):
        pipeline.write(f"pool/part-{i}.jsonl", sentences("law", 3, seed=i))
    result = materialize(pipeline, shards=["pool.part-0", "pool.part-[468]"])
    assert result.success
    assert counted(pipeline) == ["pool.part-0", "pool.part-4", "pool.part-6", "pool.part-8"]
    assert len(pipeline.instance.get_runs()) == 1
    partitions = pipeline.instance.get_materialized_partitions(dg.AssetKey("raw_counts"))
    assert sorted(partitions) == counted(pipeline)
    assert len(pipeline.rows("SELECT DISTINCT fingerprint FROM lineage")) == 4


def test_counts_and_weights_in_one_run_and_force(done):
    assert materialize(done, shards=["*"], assets=["weights", "raw_counts"]).success
    assert done.rows("SELECT count(*) FROM lineage WHERE asset IN ('raw_counts', 'weights')") == [(6,)]
    assert materialize(done, shards=["*.law"], assets=["weights", "raw_counts"], force=True).success
    made = "SELECT asset, partition FROM lineage GROUP BY ALL HAVING count(*) = 2 ORDER BY 1"
    assert done.rows(made) == [("raw_counts", "pool.law"), ("weights", "pool.law")]


def test_a_bad_shard_fails_by_name_and_leaves_the_others_done(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    result = materialize(pipeline, shards=["*"])
    assert not result.success and "raw_counts[pool.bad]" in message(result)
    assert len(counted(pipeline)) == 3


def test_a_pattern_that_matches_nothing_names_what_there_is(pipeline):
    pipeline.write_pool()
    result = materialize(pipeline, shards=["pool.law", "wiki*"])
    assert message(result) == "no shard matches 'wiki*'; there are: pool.code, pool.law, pool.medicine"
    with pytest.raises(dg.DagsterInvalidConfigError, match=r"assets\[0\] not in enum type AssetOfShards"):
        materialize(pipeline, shards=["*"], assets=["selections"])


def test_a_vanished_partition_of_a_backfill_fails_alone(done):
    (done.data / "pool/law.jsonl").unlink()
    defs = build_defs(done.config_path, done.home, {"console": silent})
    result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=done.instance,
        asset_selection=[dg.AssetKey("raw_counts")],
        tags={
            "dagster/asset_partition_range_start": "pool.code",
            "dagster/asset_partition_range_end": "pool.medicine",
        },
        run_config={"loggers": {"console": {}}, "ops": {"raw_counts": {"config": {"force": True}}}},
        raise_on_error=False,
    )
    assert message(result).startswith("1 of 3 outputs of raw_counts failed; the other 2 are materialized")
    assert "raw_counts[pool.law]: no file of the pool has this shard key any longer" in message(result)
    made = (
        "SELECT partition FROM lineage WHERE asset = 'raw_counts' GROUP BY ALL HAVING count(*) = 2 ORDER BY 1"
    )
    assert done.rows(made) == [("pool.code",), ("pool.medicine",)]
