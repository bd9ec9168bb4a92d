"""A person's first hour in the Dagster UI, over the API that the UI itself uses."""

import html
import re
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dsir_dagster.assets.methods import METHODS
from dsir_dagster.assets.selections import SelectionOptions
from dsir_dagster.cli import main
from tests.e2e.server import DagsterServer
from tests.pipeline import sentences

pytestmark = pytest.mark.e2e

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""


def test_from_an_empty_home_to_an_evaluated_selection_through_the_ui(pipeline, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    pipeline.write_pool()
    assert main(["init", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    with server:
        nodes = server.ask("{ assetNodes { assetKey { path } description } }")["assetNodes"]
        assert len(nodes) == 6 and all(node["description"] for node in nodes)

        state = server.wait_for_backfill(server.backfill("raw_counts", "target_counts"))
        assert state["status"] == "COMPLETED_SUCCESS" and len(state["runs"]) == 2
        rest = ["importance_estimator", "weights", "selections", "evaluations"]
        state = server.wait_for_backfill(server.backfill(*rest))
        assert state["status"] == "COMPLETED_SUCCESS"
        assert len(pipeline.picks()) == 20
        [(value, bar)] = pipeline.rows(
            "SELECT max(value) FILTER (pick = 'selection'), max(value) FILTER (pick = 'random') "
            "FROM evaluations WHERE target = '' AND metric = 'kl_reduction' AND statistic = 'value'"
        )
        assert value > bar

        # A selection with parameters from the launchpad.
        result = server.ask(
            LAUNCH,
            params={
                "selector": {
                    "repositoryLocationName": location(server),
                    "repositoryName": "__repository__",
                    "pipelineName": "__ASSET_JOB",
                    "assetSelection": [{"path": ["selections"]}],
                    "assetCheckSelection": [],
                },
                "runConfigData": {"ops": {"selections": {"config": {"documents": 7, "method": "top_k"}}}},
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "picked"}]},
                "mode": "default",
            },
        )["launchRun"]
        assert result["__typename"] == "LaunchRunSuccess", result
        server.wait_for(lambda: len(pipeline.picks()) == 7, 120, "the selection of seven")
        # The report shows what is there, and that it is not what was configured; the old evaluation is not its.
        capsys.readouterr()
        assert main(["report", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
        shown = capsys.readouterr().out
        assert "picked was overridden in the launchpad, `dsir run " in shown
        assert "Where the documents come from" not in shown
        screenshots(server, tmp_path)
    assert server.left == []


#: Fields of a run's configuration, with what the launchpad says about them.
FIELDS = """
query ($selector: PipelineSelector!) {
  runConfigSchemaOrError(selector: $selector) {
    ... on RunConfigSchema {
      rootDefaultYaml
      allConfigTypes {
        ... on CompositeConfigType { fields { name description } }
        ... on EnumConfigType { values { value } }
      }
    }
  }
}"""


def test_the_launchpad_shows_what_is_configured_and_refuses_what_is_no_choice(
    pipeline, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    pipeline.write_pool()
    other = {"name": "other", "method": "top_k", "length": "sqrt", "output": "parquet"}
    pipeline.config["selections"][0] |= {"seed": 7, "method": "resample", "temperature": 2.0}
    pipeline.config["selections"].append(pipeline.config["selections"][0] | other | {"seed": 8})
    del pipeline.config["selections"][1]["temperature"]
    assert main(["init", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
    # What both selections have is there to be changed; where they differ, the description says what each has.
    configured = {
        "collapse_duplicates": False,
        "documents": 20,
        "epochs": 1,
        "force": False,
        "length": "as_configured",
        "method": "as_configured",
        "min_tokens": 100,
        "output": "as_configured",
        "quality": False,
    }
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    with server:
        where = {"repositoryLocationName": "dsir", "repositoryName": "__repository__"}
        selector = {**where, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["selections"]}]}
        schema = server.ask(FIELDS, selector=selector)["runConfigSchemaOrError"]
        assert yaml.safe_load(schema["rootDefaultYaml"])["ops"]["selections"]["config"] == configured
        [fields] = [
            {field["name"]: field["description"] for field in each["fields"]}
            for each in schema["allConfigTypes"]
            if "min_tokens" in {field["name"] for field in each.get("fields", ())}
        ]
        assert fields.keys() == SelectionOptions.model_fields.keys() and all(fields.values())
        assert "picked 7, other 8" in fields["seed"]
        assert "picked resample, other top_k" in fields["method"]
        assert "picked 2.0, other not set" in fields["temperature"]
        choices = [
            [v["value"] for v in each["values"]] for each in schema["allConfigTypes"] if "values" in each
        ]
        assert ["as_configured", *METHODS] in choices

        result = server.ask(
            LAUNCH,
            params={
                "selector": {**selector, "assetCheckSelection": []},
                "runConfigData": {"ops": {"selections": {"config": {"method": "mach"}}}},
                "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "picked"}]},
                "mode": "default",
            },
        )["launchRun"]
        assert result["__typename"] == "RunConfigValidationInvalid", result
        assert "mach" in result["errors"][0]["message"]

        nodes = server.ask("{ assetNodes { description } }")["assetNodes"]
        assert all("Kept up to date by the job `refresh`" in node["description"] for node in nodes)
        if chromium := find_chromium():
            page = browse(
                chromium, server, "locations/dsir/jobs/__ASSET_JOB/playground", tmp_path, "--dump-dom"
            )
            assert "Join the Dagster community" not in page
            lines = re.findall(r'<pre class="\s*CodeMirror-line\s*"[^>]*>(.*?)</pre>', page, flags=re.S)
            text = "\n".join(html.unescape(re.sub("<[^>]+>|\u200b", "", line)) for line in lines)
            assert yaml.safe_load(text)["ops"]["selections"]["config"] == configured
    assert server.left == []


def test_a_bad_shard_in_a_backfill_fails_alone_and_is_materialized_alone_once_it_is_repaired(
    pipeline, tmp_path, monkeypatch
):
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    pipeline.write_pool()
    pipeline.write_bytes("pool/bad.parquet", b"not Parquet")
    pipeline.write("pool/more.jsonl", sentences("law", 3, 9))
    assert main(["init", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    with server:
        server.wait_for_backfill(server.backfill("raw_counts"))
        query = """{ assetNodes(assetKeys: [{path: ["raw_counts"]}]) {
          partitionStats { numMaterialized numFailed numPartitions } } }"""
        failed = server.ask(query)["assetNodes"][0]["partitionStats"]
        assert pipeline.rows("SELECT count(DISTINCT shard) FROM documents") == [(4,)]
        pq.write_table(pa.Table.from_pylist(sentences("code", 2, 9)), pipeline.data / "pool/bad.parquet")
        state = server.wait_for_backfill(server.backfill("raw_counts", partitions=["pool.bad"]))
        assert state["status"] == "COMPLETED_SUCCESS" and len(state["runs"]) == 1
        repaired = server.ask(query)["assetNodes"][0]["partitionStats"]
    assert failed == {"numMaterialized": 4, "numFailed": 1, "numPartitions": 5}
    assert repaired == {"numMaterialized": 5, "numFailed": 0, "numPartitions": 5}
    made = pipeline.rows("SELECT count(*) FROM lineage WHERE asset = 'raw_counts'")
    assert made == [(5,)]  # the others were not done again
    assert server.left == []


def test_a_range_is_backfilled_in_one_run_and_so_is_a_scattered_set(pipeline, tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(pipeline.home / "dagster"))
    for i in range(12):
        pipeline.write(f"pool/part-{i:02d}.jsonl", sentences("law", 3, seed=i))
    keys = [f"pool.part-{i:02d}" for i in range(12)]
    assert main(["init", "--config", str(pipeline.config_path), "--home", str(pipeline.home)]) == 0
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    counted = "SELECT DISTINCT shard FROM documents ORDER BY shard"
    with server:
        state = server.wait_for_backfill(server.backfill("raw_counts", partitions=keys[2:7]))
        assert state["status"] == "COMPLETED_SUCCESS" and len(state["runs"]) == 1
        assert pipeline.rows(counted) == [(key,) for key in keys[2:7]]
        launch(
            server,
            "materialize_shards",
            {"ops": {"materialize_matching": {"config": {"shards": ["pool.part-0[08]", "*-10"]}}}},
        )
        server.wait_for(lambda: finished(server, "materialize_shards") == 1, 120, "the scattered shards")
        scattered = [keys[0], *keys[2:7], keys[8], keys[10]]
        assert pipeline.rows(counted) == [(key,) for key in scattered]
        materialized = server.ask(
            """{ assetNodes(assetKeys: [{path: ["raw_counts"]}]) { partitionStats { numMaterialized } } }"""
        )
        assert materialized["assetNodes"][0]["partitionStats"]["numMaterialized"] == len(scattered)
    assert server.left == []


def test_new_files_are_found_and_refreshed_without_anyone_asking(pipeline, tmp_path):
    pipeline.config["estimator"] = {"fit": {"pinned": "first"}}
    pipeline.write_pool()
    server = DagsterServer(pipeline.config_path, pipeline.home, tmp_path / "dg.log")
    with server:
        where = {"repositoryLocationName": location(server), "repositoryName": "__repository__"}
        started = server.ask(
            """mutation ($found: SensorSelector!, $due: SensorSelector!, $schedule: ScheduleSelector!) {
              found: startSensor(sensorSelector: $found) { __typename }
              due: startSensor(sensorSelector: $due) { __typename }
              nightly: startSchedule(scheduleSelector: $schedule) { __typename } }""",
            found={**where, "sensorName": "discover_shards"},
            due={**where, "sensorName": "refresh_when_due"},
            schedule={**where, "scheduleName": "nightly_refresh"},
        )
        assert started["found"]["__typename"] == started["due"]["__typename"] == "Sensor"
        assert started["nightly"]["__typename"] == "ScheduleStateResult"

        def partitions():
            data = server.ask("""{ assetNodes(assetKeys: [{path: ["raw_counts"]}]) { partitionKeys } }""")
            return data["assetNodes"][0]["partitionKeys"]

        server.wait_for(lambda: finished(server, "refresh") >= 1, 240, "the first refresh")
        assert len(partitions()) == 3 and len(pipeline.picks()) == 20
        dropped = time.monotonic()
        pipeline.write("pool/more.jsonl", sentences("medicine", 5, 9))
        server.wait_for(lambda: finished(server, "refresh") >= 2, 240, "the second refresh")
        print(f"from the file dropped to the refreshed selection: {time.monotonic() - dropped:.1f} s")
        assert "pool.more" in partitions()
        assert pipeline.rows("SELECT count(*) FROM documents WHERE shard = 'pool.more'") == [(5,)]
        # By hand besides: there is nothing left to do.
        launch(server, "refresh", {})
        server.wait_for(lambda: finished(server, "refresh") >= 3, 180, "the refresh by hand")
        made = pipeline.rows("SELECT asset, partition, count(*) FROM lineage GROUP BY ALL")
        assert {(asset, partition): n for asset, partition, n in made if n > 1} == {
            ("selections", "picked"): 2,
            ("evaluations", "picked"): 2,
        }
    assert server.left == []


def launch(server, job, config):
    where = {"repositoryLocationName": location(server), "repositoryName": "__repository__"}
    result = server.ask(
        LAUNCH,
        params={"selector": {**where, "pipelineName": job}, "runConfigData": config, "mode": "default"},
    )["launchRun"]
    assert result["__typename"] == "LaunchRunSuccess", result


def finished(server, job):
    """Return how many runs of a job have ended, all of them well."""
    data = server.ask(
        """query ($job: String!) { runsOrError(filter: {pipelineName: $job, statuses: [SUCCESS, FAILURE]}) {
          ... on Runs { results { status } } } }""",
        job=job,
    )
    statuses = [run["status"] for run in data["runsOrError"]["results"]]
    assert "FAILURE" not in statuses
    return len(statuses)


def location(server):
    data = server.ask(
        "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
    )
    return data["repositoriesOrError"]["nodes"][0]["location"]["name"]


def find_chromium() -> str | None:
    """Return the path of an installed Chromium."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def screenshots(server, folder: Path):
    """Take pictures of the pages a person looks at, where a Chromium is installed."""
    chromium = find_chromium()
    if chromium is None:
        return
    target = folder / "screenshots"
    target.mkdir()
    pages = {
        "graph": "asset-groups",
        "raw_counts": "assets/raw_counts?view=partitions",
        "selection": "assets/selections?view=overview",
        "checks": "assets/evaluations?view=checks",
    }
    for name, page in pages.items():
        browse(chromium, server, page, folder, f"--screenshot={target / f'{name}.png'}")
        assert (target / f"{name}.png").stat().st_size > 20_000


def browse(chromium: str, server: DagsterServer, page: str, folder: Path, *arguments: str) -> str:
    """Open a page of the UI, wait until it is there; return what the browser writes."""
    return subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={folder / 'chromium'}",
            "--window-size=1600,1400",
            "--virtual-time-budget=20000",
            *arguments,
            f"{server.url}/{page}",
        ],
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    ).stdout
