"""Finding shards, and refreshing what is due, without anyone asking."""

import dagster as dg
import pytest

from dagster_project.definitions import build_defs
from tests.pipeline import sentences, silent


def definitions(pipeline):
    return build_defs(pipeline.config_path, pipeline.home, {"console": silent})


def tick(pipeline):
    defs = definitions(pipeline)
    context = dg.build_sensor_context(
        instance=pipeline.instance, definitions=defs, resources={"pipeline": defs.resources["pipeline"]}
    )
    return defs.resolve_sensor_def("discover_shards").evaluate_tick(context)


def refresh(pipeline):
    job = definitions(pipeline).resolve_job_def("refresh")
    return job.execute_in_process(
        instance=pipeline.instance, raise_on_error=False, run_config={"loggers": {"console": {}}}
    )


def lineage(pipeline):
    return pipeline.rows("SELECT count(*) FROM lineage")[0][0]


def test_the_sensor_registers_new_shards_and_launches_nothing(pipeline):
    pipeline.write_pool()
    result = tick(pipeline)
    assert not result.run_requests and "3 new" in result.skip_message
    assert sorted(pipeline.instance.get_dynamic_partitions("shards")) == [
        "pool.code",
        "pool.law",
        "pool.medicine",
    ]
    assert "0 new" in tick(pipeline).skip_message
    (pipeline.data / "pool/law.jsonl").unlink()
    assert "1 vanished: pool.law" in tick(pipeline).skip_message
    assert pipeline.instance.get_runs() == []


def test_an_empty_pool_does_not_fail_the_sensor(pipeline):
    assert "data/pool" in tick(pipeline).skip_message


def test_the_refresh_does_what_is_due_once_and_says_why_in_the_tags(pipeline):
    pipeline.write_pool()
    assert refresh(pipeline).success
    assert len(pipeline.picks()) == 20
    before = lineage(pipeline)
    tick(pipeline)
    assert refresh(pipeline).success
    assert lineage(pipeline) == before
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    assert refresh(pipeline).success
    tags = [run.tags for run in pipeline.instance.get_runs() if "pool.more" in run.tags.get("dsir/due", "")]
    assert tags and tags[-1]["dsir/due"] == "raw_counts[pool.more]: never materialized"
    assert tags[-1]["dsir/asked_by"].startswith("refresh ")


def test_a_bad_shard_fails_the_refresh_by_name_and_the_rest_is_done(pipeline):
    pipeline.write_pool()
    path = pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    result = refresh(pipeline)
    assert not result.success
    [event] = [event for event in result.all_events if event.is_step_failure]
    assert str(path) in event.step_failure_data.user_failure_data.description
    assert len(pipeline.picks()) == 20


def test_the_schedule_follows_the_configuration_and_starts_switched_off(pipeline):
    pipeline.write_pool()
    pipeline.config["refresh_cron"] = "30 4 * * 1"
    schedule = definitions(pipeline).resolve_schedule_def("nightly_refresh")
    assert schedule.cron_schedule == "30 4 * * 1" and schedule.job_name == "refresh"
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


def test_a_wrong_cron_is_refused(pipeline):
    pipeline.config["refresh_cron"] = "every night"
    with pytest.raises(Exception, match="every night"):
        definitions(pipeline)
