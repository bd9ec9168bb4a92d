"""A deployment without its containers: PostgreSQL, code location, webserver, daemon, two Ray nodes.

The commands are those of ``deploy/compose.yaml``, the settings those of ``deploy/dagster.yaml``.
"""

import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from dsir_dagster.resources.settings import Settings
from tests.cluster.servers import COMPOSE, DEPLOY, Deployment, Postgres
from tests.cluster.test_ray import on_ray
from tests.e2e.test_refresh import RUNS
from tests.e2e.test_ui import location
from tests.pipeline import SmallPipeline, sentences

pytest.importorskip("ray")
pytest.importorskip("dagster_postgres")
pytestmark = pytest.mark.cluster

#: Of the environment that runs the tests, whatever the PATH says.
PROGRAMS = Path(sysconfig.get_path("scripts"))


@pytest.fixture
def postgres(monkeypatch):
    with Postgres() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def prepared(folder):
    """A pipeline whose DAGSTER_HOME has the settings of the deployment."""
    small = SmallPipeline(folder)
    small.write_pool()
    (small.home / "dagster").mkdir(parents=True)
    shutil.copy(DEPLOY / "dagster.yaml", small.home / "dagster")
    return small


def picked_without(folder, *changes):
    """What threads of one process pick from the same files."""
    small = SmallPipeline(folder)
    small.write_pool()
    for change in changes:
        change(small)
    assert small.errors() == []
    return small.picks(), small.records()


def another_file(small):
    small.write("pool/more.jsonl", sentences("medicine", 40, seed=7))


def switch(server, kind, name, on):
    """Switch a sensor or a schedule on or off."""
    selector = {"repositoryLocationName": location(server), "repositoryName": "__repository__"}
    selector[f"{kind.lower()}Name"] = name
    if on:
        query = f"mutation ($it: {kind}Selector!) {{ it: start{kind}({kind.lower()}Selector: $it) {{ __typename }} }}"
        given = selector
    else:
        query = f"query ($it: {kind}Selector!) {{ it: {kind.lower()}OrError({kind.lower()}Selector: $it) "
        given = server.ask(query + f"{{ ... on {kind} {{ id }} }} }}", it=selector)["it"]["id"]
        query = f"mutation ($it: String!) {{ it: stop{'RunningSchedule' if kind == 'Schedule' else kind}"
        query += "(id: $it) { __typename } }"
    answer = server.ask(query, it=given)["it"]["__typename"]
    assert not answer.endswith("Error"), answer


def ended(server, number):
    """Return the refreshes, newest first, once there are so many and all have ended."""
    found = server.ask(RUNS)["runsOrError"]["results"]
    done = all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in found)
    return found if len(found) >= number and done else None


def test_a_backfill_a_refresh_by_the_sensor_and_one_by_the_schedule(tmp_path, postgres, cluster):
    started, _ = cluster
    small = on_ray(prepared(tmp_path / "deployed"))
    small.config["compute"]["address"] = started.address
    small.config["refresh_cron"] = "* * * * *"
    settings = (small.home / "dagster" / "dagster.yaml").read_bytes()
    log = tmp_path / "log"
    server = Deployment(small.config_path, small.home, log, {"RAY_USAGE_STATS_ENABLED": "0"})
    # Two at once on an empty database.
    assert [each.wait(120) for each in [server.call("init"), server.call("init")]] == [0, 0], log.read_text()
    assert len(postgres.rows("SELECT version_num FROM alembic_version")) == 1
    with server:
        state = server.wait_for_backfill(server.backfill("raw_counts"), 150)
        assert state["status"] == "COMPLETED_SUCCESS"
        assert small.rows("SELECT count(DISTINCT shard) FROM documents") == [(3,)]

        switch(server, "Sensor", "refresh_when_due", on=True)
        [run] = server.wait_for(lambda: ended(server, 1), 150, "the sensor's refresh")
        assert run["status"] == "SUCCESS", log.read_text()[-3000:]
        assert (small.picks(), small.records()) == picked_without(tmp_path / "first")
        switch(server, "Sensor", "refresh_when_due", on=False)

        another_file(small)
        switch(server, "Schedule", "nightly_refresh", on=True)
        expected = picked_without(tmp_path / "second", another_file)
        runs = server.wait_for(lambda: ended(server, 2), 150, "the schedule's refresh")
        switch(server, "Schedule", "nightly_refresh", on=False)
        assert {run["status"] for run in runs} == {"SUCCESS"}
        assert (small.picks(), small.records()) == expected
    assert server.left == []
    # Everything of Dagster's is in the database, and nothing has its password.
    assert not any(small.home.rglob("*.db"))
    assert (small.home / "dagster" / "dagster.yaml").read_bytes() == settings
    password = postgres.environment["DAGSTER_PG_PASSWORD"]
    assert password not in log.read_text()
    assert postgres.rows(f"SELECT count(*) FROM event_logs WHERE event LIKE '%{password}%'") == [(0,)]
    assert postgres.rows(f"SELECT count(*) FROM runs WHERE run_body LIKE '%{password}%'") == [(0,)]
    assert postgres.rows("SELECT count(*) > 50 FROM event_logs") == [(True,)]


def dsir(small, *arguments):
    command = [PROGRAMS / "dsir", *arguments, "--config", small.config_path, "--home", small.home]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def test_every_command_works_with_postgresql_and_says_in_a_line_what_is_missing(
    tmp_path, postgres, monkeypatch
):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    small = prepared(tmp_path)
    for command in ("init", "doctor", "run", "status", "report", "verify"):
        done = dsir(small, command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert not any(small.home.rglob("*.db"))
    assert postgres.rows("SELECT status FROM runs") == [("SUCCESS",)]

    settings = small.home / "dagster" / "dagster.yaml"
    written = settings.read_text()

    def said(code):
        done = dsir(small, "init")
        assert done.returncode == code and password not in done.stderr
        [line] = done.stderr.splitlines()
        return line

    password = postgres.environment["DAGSTER_PG_PASSWORD"]
    settings.write_text(re.sub("scheme: .*", "port: 5432", written))
    assert said(2).endswith("lacks `scheme: postgresql+psycopg2`, the driver that is installed")
    settings.write_text(written)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "another")
    assert "dagster.yaml names a database that cannot be used: " in said(1)
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", password)
    monkeypatch.delenv("DAGSTER_PG_DB")
    assert said(2) == f"{settings}: the environment variable DAGSTER_PG_DB is not set"


def test_what_the_deployment_names_is_there():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DEPLOY / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], (
                volume
            )
        for other in service.get("depends_on", ()):
            assert other in COMPOSE["services"]
    assert (
        DEPLOY / COMPOSE["x-dsir"]["build"]["context"] / COMPOSE["x-dsir"]["build"]["dockerfile"]
    ).exists()
    variables = set(re.findall(r"env: (\w+)", "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))))
    assert variables <= COMPOSE["x-environment"].keys()
    # Dagster's settings are those that it writes by itself, but for the storage.
    from dsir_dagster.instance import INSTANCE_SETTINGS

    own, deployed = yaml.safe_load(INSTANCE_SETTINGS), yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert own.pop("storage") != deployed.pop("storage") and own == deployed
    values = yaml.safe_load((DEPLOY / "values.yaml").read_text())
    assert values["runLauncher"]["config"]["customRunLauncher"] == {**own["run_launcher"], "config": {}}
    configured = yaml.safe_load((DEPLOY / "dsir.yaml").read_text())
    assert configured.keys() <= Settings.model_fields.keys()


@pytest.mark.parametrize("asked", [None, "head", "ray-head:6379"])
def test_the_entry_starts_a_node_of_ray_if_asked_to_and_then_the_command(tmp_path, asked):
    program = tmp_path / "ray"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$0.arguments"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | ({"DSIR_RAY": asked} if asked else {})
    command = [DEPLOY / "entrypoint.sh", "echo", "the command"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "the command\n")
    arguments = tmp_path / "ray.arguments"
    if asked is None:
        assert not arguments.exists()
        return
    asked_for = arguments.read_text().split()
    assert asked_for[0] == "start" and "--num-cpus=0" in asked_for
    shown = subprocess.run([PROGRAMS / "ray", "start", "--help"], capture_output=True, text=True).stdout
    for option in asked_for[1:]:
        assert re.search(rf"{option.partition('=')[0]}\b", shown), option
