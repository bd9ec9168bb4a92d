"""A small pipeline for tests: files, a configuration, runs on an ephemeral Dagster instance.

What belongs here: set-up that several test files need. What does not: assertions.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import yaml

from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.definitions import build_defs
from dsir_dagster.refresh import Stage
from dsir_dagster.resources.dagster_private import InMemoryJob, execute_run_iterator
from dsir_dagster.resources.lineage import Lineage
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.runs import run_refresh

#: Words of two domains that share only a few: enough for a selection to be right or wrong.
DOMAINS = {
    "medicine": "patient dose therapy renal cardiac trial placebo chronic lesion serum the of with in".split(),
    "law": "court statute plaintiff appeal counsel jury verdict clause tort liable the of with in".split(),
    "code": "def return import class self lambda yield ( ) : = the of with in".split(),
}


def sentences(domain: str, n: int, seed: int, length: int = 120) -> list[dict]:
    """Make n records of about ``length`` words of one domain."""
    chance = random.Random(f"{domain} {seed}")
    return [
        {
            "id": f"{domain}-{seed}-{i}",
            "text": " ".join(chance.choices(DOMAINS[domain], k=length + chance.randrange(30))),
            "domain": domain,
            "extra": {"number": i, "nested": [1.5, None]},
        }
        for i in range(n)
    ]


#: For tests that look at picks only.
QUICK_EVALUATION = {"random_seeds": 2}


class SmallPipeline:
    """A configuration over files in one folder, and the runs of it.

    Parameters
    ----------
    folder : Path
        Files go to ``data``, outputs to ``home``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.home = folder / "home"
        self.instance = dg.DagsterInstance.ephemeral()
        self.config: dict = {
            "raw": [{"name": "pool", "uri": "data/pool/*", "id": "id"}],
            "targets": [
                {"name": "medicine", "uri": "data/medicine.jsonl", "holdout": "data/medicine-test.jsonl"}
            ],
            "features": {"buckets": 1000},
            "selections": [{"name": "picked", "targets": ["medicine"], "size": {"documents": 20}}],
        }
        self.write("medicine.jsonl", sentences("medicine", 30, seed=100))
        self.write("medicine-test.jsonl", sentences("medicine", 30, seed=101))

    def write(self, name: str, records: list[dict]) -> Path:
        """Write JSON Lines; return the path."""
        return self.write_bytes(name, "".join(json.dumps(record) + "\n" for record in records).encode())

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file below ``data``; return its path."""
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def write_pool(self) -> None:
        """Write three shards of 40 documents, each of another domain."""
        for seed, domain in enumerate(DOMAINS):
            self.write(f"pool/{domain}.jsonl", sentences(domain, 40, seed=seed))

    def copy(self, folder: Path) -> SmallPipeline:
        """Copy a pipeline that ran to another folder: files, configuration, outputs, what Dagster recorded."""
        copy = SmallPipeline(folder)
        copy.config = deepcopy(self.config)
        for mine, other in ((self.data, copy.data), (self.home, copy.home)):
            shutil.copytree(mine, other, dirs_exist_ok=True)
        for storage in ("run_storage", "event_log_storage"):  # SQLite databases in memory
            mine, other = (
                getattr(instance, storage)._held_conn.connection.driver_connection
                for instance in (self.instance, copy.instance)
            )
            mine.backup(other)
        copy.workspace().plan()  # the catalog learns where its files and the pool's are now
        return copy

    @property
    def config_path(self) -> Path:
        """The configuration, written as it is now."""
        path, text = self.folder / "dsir.yaml", yaml.safe_dump(self.config)
        if not path.exists() or path.read_text() != text:  # another thread may be reading it
            path.write_text(text)
        return path

    def workspace(self) -> Workspace:
        """Open the configuration as it is now."""
        return Workspace(self.config_path, self.home)

    def run(self, threads: int = 0, until: str = "evaluations") -> dict[str, Stage]:
        """Run what ``dsir run`` runs, the steps of later assets left out; return the stages by asset."""
        order = list(GRAPH.versions)
        later = order[order.index(until) + 1 :]
        without = {asset: replace(GRAPH[asset], step=lambda *_: iter(())) for asset in later}
        with patch.dict(GRAPH.assets, without):
            stages = run_refresh(self.workspace(), self.instance, {"console": silent}, threads)
            return {stage.asset: stage for stage in stages if stage.asset not in later}

    def refresh(self, **tags: str) -> tuple[dg.DagsterRun, dict[str, str]]:
        """Run the job `refresh` as the UI launches it; return the run, and by asset what its step failed with."""
        job = build_defs(self.config_path, self.home, {"console": silent}).resolve_job_def("refresh")
        run = self.instance.create_run_for_job(job, run_config={"loggers": {"console": {}}}, tags=tags)
        events = list(execute_run_iterator(InMemoryJob(job), run, self.instance))
        failed = {
            event.step_key.removeprefix("refresh_"): event.step_failure_data.user_failure_data.description
            for event in events
            if event.is_step_failure
        }
        return self.instance.get_run_by_id(run.run_id), failed

    def materialize(
        self, *assets: str, partition: str | None = None, **options: object
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets in one Dagster run, with options of the launchpad for the first of them."""
        defs = build_defs(self.config_path, self.home, loggers={"console": silent})
        return defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets],
            partition_key=partition,
            run_config={"loggers": {"console": {}}, "ops": {assets[0]: {"config": options}}},
            raise_on_error=False,
        )

    def errors(self, until: str = "evaluations") -> list[str]:
        """Run; return the messages of all stages."""
        return [message for stage in self.run(until=until).values() for message in stage.errors]

    def rows(self, query: str) -> list[tuple]:
        """Ask the catalog as a user does, from a connection of its own; wait for a run that is writing."""
        import duckdb

        deadline = time.monotonic() + 20
        while True:
            try:
                connection = duckdb.connect(self.home / "catalog.duckdb", read_only=True)
                break
            except duckdb.IOException as error:
                if "lock" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        with connection:
            return connection.execute(query).fetchall()

    def picks(self, selection: str = "picked") -> list[tuple]:
        """Return (target, rank, doc_id, log weight, key) of a selection, in order."""
        return self.rows(
            "SELECT target, rank, doc_id, log_weight, key FROM selections "
            f"WHERE selection = '{selection}' ORDER BY target, rank"
        )

    def records(self, selection: str = "picked") -> list[bytes]:
        """Return the lines of a selection's records."""
        [(version,)] = self.rows(
            f"SELECT fingerprint FROM latest WHERE asset = 'selections' AND partition = '{selection}'"
        )
        folder = self.home / "selections" / selection / version
        return [line for file in sorted(folder.glob("records-*")) for line in file.read_bytes().splitlines()]


@dg.logger
def silent(_: dg.InitLoggerContext):
    """Keep Dagster's log out of the tests' output."""
    import logging

    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


def materialization(asset: str, partition: str, fingerprint: str, inputs: Mapping[str, str]) -> Lineage:
    """Return a row of lineage that says no more than what an output was made of."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Lineage(asset, partition, fingerprint, "run", inputs, now, now, 0, 0, {}, {})
