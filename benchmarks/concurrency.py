"""How long several processes on one home wait for each other: ``python -m benchmarks.concurrency``.

What belongs here: processes that count and weigh their own shards, in Dagster runs on one catalog and one
DAGSTER_HOME. What does not: the time of one process (``benchmarks/backfill.py``).

The shards are tiny, so nearly all of the time goes to recording: no real pool puts as much load on the catalog and on
Dagster's databases.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.backfill import backfill
from benchmarks.pool import REPOSITORY
from dsir_dagster.instance import open_instance
from dsir_dagster.resources.dagster_storage import SqliteEventLogStorage
from dsir_dagster.resources.database import Database
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.workspace import Workspace


@dataclass(frozen=True)
class Waits:
    """What a process waited for.

    Attributes
    ----------
    seconds : float
        From the start of its first run to the end of its last.
    catalog : float
        Longest wait for the catalog, in seconds.
    event : float
        Longest write of an event to Dagster's SQLite database, in seconds.
    events : float
        All of these writes together, in seconds.
    """

    seconds: float
    catalog: float
    event: float
    events: float


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--shards", type=int, default=400)
    parser.add_argument("--runs", type=int, default=10, help="Dagster runs of each process (default: 10)")
    options = parser.parse_args()
    table = Table(box=None, header_style="bold")
    table.add_column("asset")
    for header in ("seconds", "longest wait for the catalog, s", "longest event, s", "share of all events"):
        table.add_column(header, justify="right")
    with tempfile.TemporaryDirectory(prefix="dsir-concurrency-") as name:
        config, home = write_pipeline(Path(name), options.shards), Path(name) / "home"
        os.environ["DAGSTER_HOME"] = str(home / "dagster")
        for asset in ("raw_counts", "weights"):
            waits = at_once(config, home, asset, options.processes, options.runs)
            seconds = max(each.seconds for each in waits)
            share = sum(each.events for each in waits) / sum(each.seconds for each in waits)
            longest = (f"{max(getattr(each, of) for each in waits):.2f}" for of in ("catalog", "event"))
            table.add_row(asset, f"{seconds:.1f}", *longest, f"{share:.0%}")
    console = Console(highlight=False)
    console.print(
        f"{options.processes} processes at once, {options.shards:,} shards of five documents, "
        f"{options.processes * options.runs} Dagster runs for each asset"
    )
    console.print(table)
    return 0


def write_pipeline(folder: Path, shards: int) -> Path:
    """Write tiny shards and a configuration over them; return its path."""
    chance = random.Random(0)
    words = [f"word{i}" for i in range(3000)]
    (folder / "pool").mkdir()
    for i in range(shards):
        lines = [json.dumps({"text": " ".join(chance.choices(words, k=150))}) for _ in range(5)]
        (folder / "pool" / f"part-{i:05d}.jsonl").write_text("\n".join(lines))
    (folder / "target.jsonl").write_text(json.dumps({"text": " ".join(words[:500])}))
    settings = {
        "raw": [{"name": "pool", "uri": "pool/*"}],
        "targets": [{"name": "target", "uri": "target.jsonl"}],
        "selections": [{"name": "tenth", "targets": ["target"], "size": {"fraction": 0.1}}],
    }
    config = folder / "dsir.yaml"
    config.write_text(yaml.safe_dump(settings))
    return config


def at_once(config: Path, home: Path, asset: str, processes: int, runs: int) -> list[Waits]:
    """Materialize all shards of an asset in several processes at once; its inputs exist.

    Parameters
    ----------
    config, home : Path
        DAGSTER_HOME is the environment's.
    asset : str
        ``raw_counts`` or ``weights``.
    processes : int
    runs : int
        Dagster runs of each process, one after the other.

    Returns
    -------
    list of Waits
        One per process.

    Raises
    ------
    RuntimeError
        A process failed; the message has the end of its output.
    """
    with open_instance(home) as instance:
        register_shards(instance, Workspace(config, home).plan())
        if asset == "weights":
            for upstream in ("target_counts", "importance_estimator"):
                backfill(config, home, instance, upstream, [])
    started = []
    for index in range(processes):
        arguments = [str(config), str(home), asset, str(index), str(processes), str(runs)]
        process = subprocess.Popen(
            [sys.executable, "-c", "from benchmarks.concurrency import work; work()", *arguments],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
    for process in started:
        process.stdout.readline()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    waits = []
    for process in started:
        out, errors = process.communicate()
        if process.returncode:
            raise RuntimeError(f"a process ended with {process.returncode}:\n{errors[-3000:]}")
        waits.append(Waits(**json.loads(out.splitlines()[-1])))
    return waits


def work() -> None:
    """Materialize one process's part: report being ready, wait for a line, print the waits."""
    config, home, asset = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    index, processes, runs = map(int, sys.argv[4:])
    events: list[float] = []
    store_event = SqliteEventLogStorage.store_event

    def timed(self: SqliteEventLogStorage, event: object) -> None:
        began = time.monotonic()
        store_event(self, event)
        events.append(time.monotonic() - began)

    SqliteEventLogStorage.store_event = timed
    with open_instance(home) as instance:
        parts = cut(cut(instance.get_dynamic_partitions("shards"), processes)[index], runs)
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        for part in parts:
            backfill(config, home, instance, asset, part)
        seconds = time.monotonic() - began
    print(json.dumps(asdict(Waits(seconds, Database.longest_wait, max(events), sum(events)))))


def cut(keys: list[str], parts: int) -> list[list[str]]:
    """Cut a list into parts of about equal length."""
    ends = [len(keys) * i // parts for i in range(parts + 1)]
    return [keys[first:last] for first, last in pairwise(ends)]


if __name__ == "__main__":
    sys.exit(main())
