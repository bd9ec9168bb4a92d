"""Which runs' processes are looked for here, and which are asked for elsewhere."""

import json
import os
import signal

import dagster as dg
import pytest

from dsir_dagster.launcher import PLACE_TAG, MonitoredRunLauncher, is_here, place
from dsir_dagster.resources.dagster_private import GRPC_INFO_TAG, EngineEventData, WorkerStatus

OTHER_PLACE = "another-machine pid:[1]"


@dg.op
def nothing():
    pass


@dg.job
def job():
    nothing()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def started(instance, **tags):
    """A run in progress whose log says that its process has the number of this one."""
    run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    pid = {"pid": dg.MetadataValue.text(str(os.getpid()))}
    instance.report_engine_event("Started process for run.", run, EngineEventData(metadata=pid))
    return run


def launcher_of(instance):
    launcher = MonitoredRunLauncher()
    launcher.register_instance(instance)
    return launcher


def served_at(host):
    return {GRPC_INFO_TAG: json.dumps({"host": host, "port": 1})}


@pytest.mark.parametrize(
    ("tags", "here"),
    [
        (served_at("localhost"), True),
        (served_at("code"), False),
        ({PLACE_TAG: place()}, True),
        ({PLACE_TAG: OTHER_PLACE}, False),
        ({}, False),
    ],
)
def test_a_process_number_of_another_container_is_no_process_of_this_one(instance, monkeypatch, tags, here):
    run = started(instance, **tags)
    assert is_here(run) is here
    interrupted = []
    monkeypatch.setattr(os, "kill", lambda pid, number: interrupted.append((pid, number)))
    if here:
        assert launcher_of(instance).terminate(run.run_id)
    elif GRPC_INFO_TAG not in tags:
        assert not launcher_of(instance).terminate(run.run_id)
    assert interrupted == ([(os.getpid(), signal.SIGINT)] if here else [])


def test_a_run_whose_code_server_is_gone_elsewhere_is_not_taken_for_alive(instance):
    run = started(instance, **served_at("127.0.0.9"))
    assert launcher_of(instance).check_run_worker_health(run).status == WorkerStatus.FAILED
    run = started(instance, **served_at("localhost"))
    assert launcher_of(instance).check_run_worker_health(run).status == WorkerStatus.RUNNING
