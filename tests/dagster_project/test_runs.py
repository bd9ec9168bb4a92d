"""A refresh is one Dagster run with a step per asset: what it does, what stops it, what Dagster shows after it."""

from dataclasses import replace

import dagster as dg
import pytest

from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.assets.raw_counts import count_shard
from dsir_dagster.definitions import build_defs
from dsir_dagster.resources.dagster_private import (
    CachingStaleStatusResolver,
    KnownExecutionState,
    LoadingContextForTest,
)
from dsir_dagster.runs import run_refresh
from tests.pipeline import sentences, silent


def step_states(pipeline, run_id):
    return {
        stats.step_key.removeprefix("refresh_"): stats.status.value
        for stats in pipeline.instance.get_run_step_stats(run_id)
    }


def unsynced(pipeline):
    """Return what Dagster's pages call *Unsynced* or missing."""
    graph = build_defs(pipeline.config_path, pipeline.home).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(pipeline.instance, graph, LoadingContextForTest(pipeline.instance))
    found = {}
    for key in graph.get_all_asset_keys():
        definition = graph.get(key).partitions_def
        partitions = (
            definition.get_partition_keys(dynamic_partitions_store=pipeline.instance)
            if definition
            else [None]
        )
        for partition in partitions:
            if resolver.get_status(key, partition).value != "FRESH":
                causes = resolver.get_stale_causes(key, partition)
                found[key.to_user_string(), partition] = [cause.reason for cause in causes]
    return found


def test_the_whole_graph_is_one_run_of_six_steps(pipeline):
    pipeline.write_pool()
    stages = pipeline.run()
    [run] = pipeline.instance.get_runs()
    assert run.job_name == "refresh" and run.is_success
    assert {stage.run_id for stage in stages.values()} == {run.run_id}
    assert step_states(pipeline, run.run_id) == dict.fromkeys(GRAPH.versions, "SUCCESS")
    assert run.tags["dsir/asked_by"] == "dsir run"
    assert run.tags["dsir/due"].startswith("raw_counts[pool.code]: never materialized and ")
    assert run.tags["dsir/home"] == str(pipeline.home)


def test_nothing_due_is_no_run(done):
    before = len(done.instance.get_runs())
    stages = done.run()
    assert list(stages) == list(GRAPH.versions) and not any(stage.due for stage in stages.values())
    assert len(done.instance.get_runs()) == before


def test_a_bad_file_fails_its_step_and_those_after_it_go_on_without_it(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    run, failed = pipeline.refresh()
    assert step_states(pipeline, run.run_id) == {
        **dict.fromkeys(GRAPH.versions, "SUCCESS"),
        "raw_counts": "FAILURE",
    }
    assert "raw_counts[pool.bad]" in failed["raw_counts"] and len(pipeline.picks()) == 20
    counts = pipeline.instance.get_status_by_partition(
        dg.AssetKey("raw_counts"), ["pool.bad", "pool.law"], dg.DynamicPartitionsDefinition(name="shards")
    )
    assert {key: status.value for key, status in counts.items()} == {
        "pool.bad": "FAILED",
        "pool.law": "MATERIALIZED",
    }
    # Retry from failure starts there, and goes on downstream.
    again, _ = KnownExecutionState.build_resume_retry_reexecution(pipeline.instance, run)
    assert {key.removeprefix("refresh_") for key in again} == set(GRAPH.versions) - {"target_counts"}


def test_where_nothing_is_left_to_go_on_with_one_step_fails_and_the_rest_is_not_begun(pipeline):
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    stages = pipeline.run()
    [error] = stages["raw_counts"].errors
    assert "bad.parquet" in error
    assert [message for stage in stages.values() for message in stage.errors] == [error]
    rest = ["importance_estimator", "weights", "selections", "evaluations"]
    assert [asset for asset, stage in stages.items() if stage.waited_for == ("raw_counts",)] == rest


def test_a_full_disk_ends_the_run_before_anything_is_made_of_a_part_of_the_pool(pipeline, monkeypatch):
    pipeline.write_pool()

    def full(worker, item, tell):
        if item.file.shard == "pool.law":
            raise OSError(28, "No space left on device", "features/pool.law.arrow")
        return count_shard(worker, item, tell)

    monkeypatch.setattr("dsir_dagster.assets.raw_counts.count_shard", full)
    stages = pipeline.run()
    assert "No space left on device" in stages["raw_counts"].errors[0]
    assert stages["selections"].waited_for == ("raw_counts",)
    assert pipeline.rows("SELECT DISTINCT asset FROM lineage ORDER BY ALL") == [
        ("raw_counts",),
        ("target_counts",),
    ]
    monkeypatch.undo()
    assert pipeline.errors() == [] and len(pipeline.picks()) == 20


def test_after_a_refresh_dagster_calls_nothing_unsynced(pipeline):
    pipeline.write_pool()
    pipeline.write("law.jsonl", sentences("law", 30, seed=5))
    assert pipeline.errors() == [] and unsynced(pipeline) == {}
    # A new target: every shard is weighed again, the selection stays.
    pipeline.config["targets"].append({"name": "law", "uri": "data/law.jsonl"})
    stages = pipeline.run()
    assert not stages["selections"].due and stages["weights"].due
    assert unsynced(pipeline) == {}
    # A new shard.
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    assert pipeline.errors() == [] and unsynced(pipeline) == {}


@pytest.mark.slow
def test_with_a_pinned_pool_a_new_shard_leaves_nothing_unsynced(pipeline):
    pipeline.config["estimator"] = {"fit": {"pinned": "first"}}
    pipeline.write_pool()
    assert pipeline.errors() == []
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    stages = pipeline.run()
    assert len(stages["weights"].due) == 1 and not stages["importance_estimator"].due
    assert unsynced(pipeline) == {}


@pytest.mark.slow
def test_a_materialization_by_hand_says_the_same_as_a_refresh(pipeline):
    pipeline.write_pool()
    assert pipeline.errors() == []
    assert pipeline.materialize("selections", partition="picked", force=True).success
    assert pipeline.materialize("evaluations", partition="picked", force=True).success
    assert unsynced(pipeline) == {}


def test_what_is_fresh_keeps_its_plots_and_tables(done):
    def shown(asset):
        of_partition = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=["picked"])
        [record] = done.instance.fetch_materializations(of_partition, limit=1).records
        metadata = record.asset_materialization.metadata.items()
        # Paths have changed: this home was copied.
        return record.storage_id, {k: v for k, v in metadata if not isinstance(v, dg.PathMetadataValue)}

    for asset in ("selections", "evaluations"):
        before, then = shown(asset)
        assert done.materialize(asset, partition="picked").success
        after, now = shown(asset)
        assert after > before
        assert then.pop("why") != now.pop("why") == dg.MetadataValue.text("fresh, not recomputed")
        assert now == then
    assert len([key for key in now if "plot" in key]) >= 4


def test_the_checks_of_a_refresh_are_those_of_the_assets(done):
    for asset, check in (("selections", "size_and_uniqueness"), ("evaluations", "better_than_random")):
        [record] = done.instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(dg.AssetKey(asset), check), limit=10
        )
        evaluation = record.event.dagster_event.event_specific_data
        assert evaluation.passed and evaluation.partition == "picked" and evaluation.metadata
        of_partition = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=["picked"])
        [newest] = done.instance.fetch_materializations(of_partition, limit=1).records
        assert evaluation.target_materialization_data.storage_id == newest.storage_id


def test_a_selection_that_is_not_what_it_says_is_not_evaluated(pipeline, monkeypatch):
    pipeline.write_pool()
    no = dg.AssetCheckResult(passed=False)
    [check] = GRAPH["selections"].checks
    broken = replace(GRAPH["selections"], checks=(replace(check, evaluate=lambda *_: no),))
    monkeypatch.setitem(GRAPH.assets, "selections", broken)
    _, failed = pipeline.refresh()
    assert "size_and_uniqueness failed" in failed["selections"]
    assert "does not pass its check size_and_uniqueness" in failed["evaluations"]
    assert pipeline.rows("SELECT count(*) FROM evaluations") == [(0,)]


def test_two_refreshes_at_once_in_one_home_wait_for_each_other(pipeline):
    pipeline.write_pool()
    holder = pipeline.workspace()
    assert holder.lock.hold(print) and not holder.lock.hold(print)
    assert pipeline.workspace().lock.busy()
    holder.lock.release()
    assert not pipeline.workspace().lock.busy()
    list(run_refresh(pipeline.workspace(), pipeline.instance, {"console": silent}))
    assert not pipeline.workspace().lock.busy()  # the run released it
