"""The job `refresh` in a real Dagster UI: terminated, kept through a reload, retried, and what its pages then show."""

import shutil
import subprocess
import time

import pytest

from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.cli import main
from tests.e2e.server import DagsterServer
from tests.e2e.test_crashes import made, slow, some_made  # noqa: F401 - a fixture
from tests.e2e.test_ui import launch, location
from tests.pipeline import sentences

pytestmark = pytest.mark.e2e

RUNS = """{ runsOrError(filter: {pipelineName: "refresh"}) { ... on Runs { results {
  runId status parentRunId tags { key value } stepStats { stepKey status } } } } }"""


def runs(server):
    """Return the runs of `refresh`, newest first."""
    return server.ask(RUNS)["runsOrError"]["results"]


def ended(server, number=1):
    """Return the newest of so many runs, once it has ended."""
    found = runs(server)
    if len(found) == number and found[0]["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
        return found[0]
    return None


def steps(run):
    return {each["stepKey"].removeprefix("refresh_"): each["status"] for each in run["stepStats"]}


def terminate(server, run_id):
    answer = server.ask(
        "mutation ($run: String!) { terminateRun(runId: $run) { __typename ... on TerminateRunFailure { message } } }",
        run=run_id,
    )["terminateRun"]
    assert answer["__typename"] == "TerminateRunSuccess", answer


def reload(server):
    answer = server.ask(
        "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }",
        name=location(server),
    )["reloadRepositoryLocation"]
    assert answer["__typename"] == "WorkspaceLocationEntry", answer


def test_a_refresh_is_terminated_and_stays_so_until_someone_goes_on(slow, tmp_path):  # noqa: F811
    server = DagsterServer(slow.config_path, slow.home, tmp_path / "dg.log")
    with server:
        launch(server, "refresh", {})
        server.wait_for(lambda: some_made(slow), 180, "the first shards")
        terminate(server, runs(server)[0]["runId"])
        run = server.wait_for(lambda: ended(server), 60, "the end of the run")
        assert run["status"] == "CANCELED"
        before = made(slow)
        assert 5 <= len(before) < 40
        assert slow.rows("SELECT DISTINCT asset FROM lineage") == [("raw_counts",)]
        # The sensor that starts what is due obeys too.
        where = {"repositoryLocationName": location(server), "repositoryName": "__repository__"}
        server.ask(
            "mutation ($due: SensorSelector!) { startSensor(sensorSelector: $due) { __typename } }",
            due={**where, "sensorName": "refresh_when_due"},
        )

        def ticked():
            query = """query ($due: SensorSelector!) { sensorOrError(sensorSelector: $due) { ... on Sensor {
              sensorState { ticks(limit: 1) { status skipReason } } } } }"""
            ticks = server.ask(query, due={**where, "sensorName": "refresh_when_due"})["sensorOrError"]
            return [
                tick
                for tick in ticks["sensorState"]["ticks"]
                if "was terminated" in (tick["skipReason"] or "")
            ]

        server.wait_for(ticked, 150, "a tick of the sensor that says so")
        assert made(slow) == before and len(runs(server)) == 1
        # By hand it goes on.
        launch(server, "refresh", {})
        run = server.wait_for(lambda: ended(server, 2), 240, "the second run")
        assert run["status"] == "SUCCESS" and steps(run) == dict.fromkeys(GRAPH.versions, "SUCCESS")
        assert set(made(slow).values()) == {1}
    assert server.left == []


def test_definitions_are_reloaded_during_a_run_which_goes_on_and_can_be_terminated(slow, tmp_path):  # noqa: F811
    for i in range(40, 100):
        slow.write(f"pool/part-{i:02d}.jsonl", sentences("law", 3, seed=i))
    server = DagsterServer(slow.config_path, slow.home, tmp_path / "dg.log")
    with server:
        launch(server, "refresh", {})
        server.wait_for(lambda: some_made(slow), 180, "the first shards")
        reload(server)
        before = len(made(slow))
        time.sleep(25)  # run monitoring looks every ten seconds
        [run] = runs(server)
        assert run["status"] == "STARTED" and len(made(slow)) > before
        reload(server)
        terminate(server, run["runId"])
        run = server.wait_for(lambda: ended(server), 60, "the end of the run")
        assert run["status"] == "CANCELED" and set(made(slow).values()) == {1}
    assert server.left == []


def test_retry_from_failure_takes_up_at_the_failed_step(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    pipeline.write_pool()
    pipeline.write_bytes("pool/more.jsonl.zst", b"not zstd")
    assert main(["init", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    with server:
        launch(server, "refresh", {})
        run = server.wait_for(lambda: ended(server), 180, "the first run")
        assert run["status"] == "FAILURE"
        assert steps(run) == {**dict.fromkeys(GRAPH.versions, "SUCCESS"), "raw_counts": "FAILURE"}
        assert len(pipeline.picks()) == 20
        (pipeline.data / "pool/more.jsonl.zst").unlink()
        pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
        answer = server.ask(
            """mutation ($params: ReexecutionParams!) { launchRunReexecution(reexecutionParams: $params) {
              __typename ... on PythonError { message } } }""",
            params={"parentRunId": run["runId"], "strategy": "FROM_FAILURE"},
        )["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        again = server.wait_for(lambda: ended(server, 2), 180, "the retry")
        assert again["status"] == "SUCCESS" and again["parentRunId"] == run["runId"]
        assert steps(again) == dict.fromkeys(set(GRAPH.versions) - {"target_counts"}, "SUCCESS")
        assert pipeline.rows("SELECT count(*) FROM documents WHERE shard = 'pool.more'") == [(5,)]
    assert server.left == []


def page(server, path, folder):
    """Return the text of a page as a browser shows it."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a Chromium")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000"]
    command = [chromium, *options, f"--user-data-dir={folder / 'chromium'}", "--window-size=1600,2400"]
    shown = subprocess.run(
        [*command, "--dump-dom", f"{server.url}/{path}"], capture_output=True, text=True, timeout=120
    )
    return shown.stdout


def test_the_pages_of_run_and_assets_after_a_refresh(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    pipeline.write_pool()
    arguments = ["--config", str(pipeline.config_path), "--home", str(pipeline.home)]
    assert main(["run", *arguments]) == 0
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    with server:
        server.ask("mutation { setNuxSeen }")
        [run] = runs(server)
        shown = page(server, f"runs/{run['runId']}", tmp_path)
        assert all(f"refresh_{asset}" in shown for asset in GRAPH.versions)
        plots = "KL reduction over random, plot"
        evaluation = "assets/evaluations?view=partitions&partition=picked"
        assert plots in page(server, evaluation, tmp_path)
        # Materialized again while it is fresh: everything is still there.
        state = server.wait_for_backfill(server.backfill("evaluations"))
        assert state["status"] == "COMPLETED_SUCCESS"
        shown = page(server, evaluation, tmp_path)
        assert plots in shown and "fresh, not recomputed" in shown
        for asset in GRAPH.versions:
            assert "Unsynced" not in page(server, f"assets/{asset}?view=overview", tmp_path)
        checks = page(server, "assets/selections?view=checks", tmp_path)
        assert "size_and_uniqueness" in checks
    assert server.left == []
