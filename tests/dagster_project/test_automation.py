"""Finding shards and refreshing what is due, unattended."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest

from dsir_dagster.definitions import build_defs
from tests.pipeline import sentences, silent


def definitions(pipeline):
    return build_defs(pipeline.config_path, pipeline.home, {"console": silent})


def tick(pipeline, sensor="discover_shards", cursor=None):
    defs = definitions(pipeline)
    with dg.build_sensor_context(
        instance=pipeline.instance,
        definitions=defs,
        resources={"pipeline": defs.resources["pipeline"]},
        cursor=cursor,
    ) as context:
        return defs.resolve_sensor_def(sensor).evaluate_tick(context)


class Automation:
    """The sensor `refresh_when_due` as the daemon runs it: it keeps the cursor and executes the requests."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        self.cursor = None
        self.message = ""

    def tick(self):
        """Tick; execute the requested runs. Return their number."""
        result = tick(self.pipeline, "refresh_when_due", self.cursor)
        self.cursor = result.cursor or self.cursor
        self.message = result.skip_message or ""
        for request in result.run_requests:
            assert request.tags["dsir/due"]
            self.pipeline.refresh(**request.tags)
        return len(result.run_requests)

    def settle(self):
        """Make all files look untouched for a minute."""
        for file in (self.pipeline.data / "pool").iterdir():
            os.utime(file, (time.time() - 60, time.time() - 60))


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
    assert tick(pipeline).skip_message == "3 shards"
    assert pipeline.instance.get_runs() == []


def test_the_sensor_tells_of_changed_and_vanished_shards(done):
    done.write("pool/code.jsonl", sentences("code", 7, 9))
    law = (done.data / "pool/law.jsonl").read_bytes()
    (done.data / "pool/law.jsonl").unlink()
    assert tick(done).skip_message == "2 shards; 1 changed: pool.code; 1 vanished: pool.law"
    assert sorted(done.instance.get_dynamic_partitions("shards")) == ["pool.code", "pool.medicine"]
    done.write_bytes("pool/law.jsonl", law)
    assert tick(done).skip_message == "3 shards; 1 new: pool.law; 1 changed: pool.code"


def test_an_empty_pool_does_not_fail_the_sensor(pipeline):
    assert "data/pool" in tick(pipeline).skip_message


def test_the_refresh_does_what_is_due_once_and_says_why_in_the_tags(pipeline):
    pipeline.write_pool()
    run, _ = pipeline.refresh()
    assert run.is_success and len(pipeline.picks()) == 20
    before = lineage(pipeline)
    tick(pipeline)
    run, _ = pipeline.refresh()
    assert run.is_success and lineage(pipeline) == before
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    run, _ = pipeline.refresh(**{"dagster/schedule_name": "nightly_refresh"})
    assert run.is_success
    assert run.tags["dsir/due"].startswith("raw_counts[pool.more]: never materialized and ")
    assert run.tags["dsir/asked_by"] == "nightly_refresh"


def test_a_bad_shard_fails_the_refresh_by_name_and_the_rest_is_done(pipeline):
    pipeline.write_pool()
    path = pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    run, failed = pipeline.refresh()
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert list(failed) == ["raw_counts"] and str(path) in failed["raw_counts"]
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


def test_automation_refreshes_what_is_due_once(pipeline):
    pipeline.write_pool()
    automation = Automation(pipeline)
    assert automation.tick() == 1
    assert len(pipeline.picks()) == 20
    assert automation.tick() == 0 and automation.message == "everything is fresh"
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    assert automation.tick() == 0
    assert automation.message == "changed less than 10 s ago: raw_counts[pool.more]"
    automation.settle()
    assert automation.tick() == 1 and automation.tick() == 0
    assert pipeline.rows("SELECT count(*) FROM documents WHERE shard = 'pool.more'") == [(5,)]


def test_automation_tries_a_bad_file_again_only_when_it_changed(pipeline):
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    automation = Automation(pipeline)
    automation.settle()
    assert automation.tick() == 1
    assert automation.tick() == 0 and automation.message.startswith(
        "due: 1 output; a refresh was already started for that"
    )
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet either")
    automation.settle()
    assert automation.tick() == 1 and automation.tick() == 0


def test_automation_waits_for_runs_in_progress_and_forgets_those_that_were_killed(pipeline):
    pipeline.write_pool()
    automation = Automation(pipeline)
    automation.settle()
    job = definitions(pipeline).resolve_job_def("refresh")
    other = pipeline.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert automation.tick() == 0 and "waiting for the runs in progress" in automation.message
    pipeline.instance.report_run_canceled(other)
    with pipeline.workspace().lock.exclusive(print):
        assert automation.tick() == 0 and "waiting for the runs in progress" in automation.message
    killed = pipeline.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dsir/home": str(pipeline.home)}
    )
    assert automation.tick() == 1
    assert pipeline.instance.get_run_by_id(killed.run_id).status == dg.DagsterRunStatus.CANCELED


def test_a_refresh_that_was_terminated_is_not_started_again_for_the_same(pipeline):
    pipeline.write_pool()
    automation = Automation(pipeline)
    automation.settle()
    run, _ = pipeline.refresh()
    (pipeline.home / "importance_estimator/log_ratios.parquet").unlink()  # as if it had ended earlier
    pipeline.instance.report_run_canceled(run)
    stopped = pipeline.instance.get_run_by_id(run.run_id)
    assert automation.tick() == 0
    assert f"run {stopped.run_id} was started for this and was terminated" in automation.message
    pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
    automation.settle()
    assert automation.tick() == 1 and len(pipeline.picks()) == 20


def test_automation_leaves_a_selection_as_the_launchpad_configured_it(done):
    assert done.materialize("selections", partition="picked", documents=7).success
    assert done.materialize("evaluations", partition="picked").success
    automation = Automation(done)
    automation.settle()
    assert automation.tick() == 0 and len(done.picks()) == 7
    done.write("pool/more.jsonl", sentences("medicine", 5, 9))
    automation.settle()
    assert automation.tick() == 1 and len(done.picks()) == 20


@pytest.mark.slow  # seconds by itself, two minutes at the end of a process that ran a thousand tests
def test_sensors_schedule_and_a_run_by_hand_do_no_work_twice(pipeline, tmp_path):
    pipeline.instance = dg.DagsterInstance.local_temp(
        str(tmp_path)
    )  # one in memory is not for several threads
    pipeline.write_pool()
    automation = Automation(pipeline)
    automation.settle()
    tick(pipeline)
    with ThreadPoolExecutor(3) as threads:
        # The schedule, a person, the sensor.
        at_once = [threads.submit(work) for work in (pipeline.refresh, pipeline.refresh, automation.tick)]
    for each in at_once:
        each.result()
    tick(pipeline)
    assert automation.tick() == 0
    made = pipeline.rows("SELECT asset, partition, count(*) FROM lineage GROUP BY ALL")
    assert len(made) == 3 + 1 + 1 + 3 + 1 + 1 and {count for _, _, count in made} == {1}
