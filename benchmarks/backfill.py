"""The overhead per partition in a backfill of many small shards: ``make bench-backfill``.

What belongs here: shards of a few documents, in one Dagster run, as the UI launches a backfill. What does not: large
shards (``benchmarks/throughput.py``).

The baseline reads and featurizes the same files in a loop, without Dagster, lineage or outputs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import dagster as dg
from rich.console import Console
from rich.table import Table

from benchmarks.pool import Corpus, read_records, require_corpus
from dsir.compilation import warm_up
from dsir.features import featurize
from dsir_dagster.cli.running import quiet_logger
from dsir_dagster.definitions import build_defs
from dsir_dagster.instance import open_instance
from dsir_dagster.resources.corpus import read_blocks
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.workspace import Workspace

DOCUMENTS = 5


def main() -> int:
    """Time backfills of ``raw_counts`` and ``weights``; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    shards = parser.parse_args().shards
    console = Console(highlight=False)
    corpus = require_corpus()
    with tempfile.TemporaryDirectory(prefix="dsir-backfill-") as name:
        folder = Path(name)
        os.environ["DAGSTER_HOME"] = str(folder / "home" / "dagster")
        config = write_pipeline(folder, corpus, shards)
        workspace = Workspace(config, folder / "home")
        spec = workspace.settings.features.spec()
        warm_up(spec, lambda text: None)
        plan = workspace.plan()
        started = time.monotonic()
        for shard in plan.shards.values():
            for block in read_blocks(shard.uri, workspace.settings.source(shard.source)):
                featurize(block.parse().texts, spec)
        work = time.monotonic() - started
        table = Table(box=None, header_style="bold")
        for header in ("backfill", "seconds", "per partition, s"):
            table.add_column(header, justify="left" if header == "backfill" else "right")
        table.add_row("(the work itself)", f"{work:.1f}", f"{work / shards:.4f}")
        with open_instance(workspace.home) as instance:
            register_shards(instance, plan)
            keys = instance.get_dynamic_partitions("shards")
            for asset in ("raw_counts", "target_counts", "importance_estimator", "weights"):
                seconds = backfill(config, workspace.home, instance, asset, keys)
                if asset in ("raw_counts", "weights"):
                    table.add_row(asset, f"{seconds:.1f}", f"{seconds / shards:.4f}")
        console.print(f"{shards:,} shards of {DOCUMENTS} documents, one run for each asset")
        console.print(table)
    return 0


def write_pipeline(folder: Path, corpus: Corpus, shards: int) -> Path:
    """Write the shards and a configuration over them; return its path."""
    pool = folder / "pool"
    pool.mkdir()
    records = (record for file in corpus.files for record in read_records(file))
    texts = [record["text"] for record in islice(records, shards * DOCUMENTS)]
    for i in range(shards):
        lines = [json.dumps({"text": text}) for text in texts[i * DOCUMENTS : (i + 1) * DOCUMENTS]]
        (pool / f"part-{i:05d}.jsonl").write_text("\n".join(lines) + "\n")
    config = folder / "dsir.yaml"
    settings = {
        "raw": [{"name": "pool", "uri": f"{pool}/*.jsonl"}],
        "targets": [{"name": "target", "uri": str(corpus.target)}],
        "selections": [{"name": "tenth", "targets": ["target"], "size": {"fraction": 0.1}}],
    }
    config.write_text(json.dumps(settings))  # JSON is YAML
    return config


def backfill(config: Path, home: Path, instance: dg.DagsterInstance, asset: str, keys: list[str]) -> float:
    """Materialize all partitions of an asset in one run; return seconds."""
    job = build_defs(config, home, {"console": quiet_logger([])}).resolve_implicit_global_asset_job_def()
    first, last = (keys[0], keys[-1]) if asset in ("raw_counts", "weights") else ("target", "target")
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    started = time.monotonic()
    job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(asset)],
        tags={} if asset == "importance_estimator" else tags,
        run_config={"loggers": {"console": {}}},
    )
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
