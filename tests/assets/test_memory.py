"""Memory: counting takes as much for a large shard as for a small one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.pool import REPOSITORY

COUNT = """
import sys
from pathlib import Path
from benchmarks.pipeline import peak_megabytes
from dsir.compilation import warm_up
from dsir_dagster.assets.graph import GRAPH
from dsir_dagster.assets.raw_counts import ShardToCount, count_shard
from dsir_dagster.resources.compute import untold
from dsir_dagster.resources.workspace import Workspace

workspace = Workspace(Path(sys.argv[1], "dsir.yaml"), Path(sys.argv[1], "home"), 2)
warm_up(workspace.settings.features.spec(), lambda text: None)
Path("/proc/self/clear_refs").write_text("5")  # the peak is that of what follows
before = peak_megabytes("self")
plan = workspace.plan()
for key in plan.shards:
    count_shard(workspace.worker, ShardToCount(plan.shards[key], plan.raw_counts(key).origin, False), untold)
print(before, peak_megabytes("self"))
"""

CONFIG = """
raw: [{name: pool, uri: pool.jsonl.zst, id: id}]
targets: [{name: t, uri: pool.jsonl.zst}]
selections: [{name: s, targets: [t], size: {documents: 10}}]
"""


def lines_of(n_documents: int) -> bytes:
    """Return JSON Lines with about 3 KB of text each."""
    words = np.array([f"word{i:x}" for i in range(20_000)])
    drawn = np.random.default_rng(0).zipf(1.3, (n_documents, 400)) % len(words)
    records = ({"id": str(i), "text": " ".join(row)} for i, row in enumerate(words[drawn]))
    return "".join(json.dumps(record) + "\n" for record in records).encode()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_counting_takes_the_same_memory_for_four_times_the_text(tmp_path):
    some = lines_of(4000)
    taken = {}
    for times in (5, 20):
        folder = tmp_path / str(times)
        folder.mkdir()
        (folder / "dsir.yaml").write_text(CONFIG)
        with pa.output_stream(str(folder / "pool.jsonl.zst"), compression="zstd") as pool:
            for _ in range(times):
                pool.write(some)
        command = [sys.executable, "-c", COUNT, str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        before, peak = map(float, done.stdout.split())
        taken[times * len(some) / 1e6] = peak - before
    (small, least), (large, most) = taken.items()
    assert most < 150, taken
    assert most - least < 0.15 * (large - small), taken
