"""A refresh after one new file beside a full run, with the estimator fitted on all or pinned: ``make bench-refresh``.

What belongs here: what is timed and shown. What does not: timing a process (``benchmarks/pipeline.py``), the text
(``benchmarks/pool.py``).

The pool is the corpus, its files linked into a folder; the last one is added later. Each figure is a whole ``dsir run``
from start to end. An earlier run leaves compiled code and files in the caches.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.pipeline import Pipeline
from benchmarks.pool import require_corpus
from dsir_dagster.assets.importance_estimator import measure_drift
from dsir_dagster.resources.workspace import Workspace

FITS = {"all": "all", "pinned": {"pinned": "first"}}


def main() -> int:
    """Time full runs and refreshes; return the exit code."""
    console = Console(highlight=False)
    corpus = require_corpus()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="dsir-refresh-") as name:
        for fit, value in FITS.items():
            folder = Path(name) / fit
            pool = folder / "pool"
            pool.mkdir(parents=True)
            for file in corpus.files[:-1]:
                os.symlink(file, pool / file.name)
            estimator = {"fit": value}
            pipeline = Pipeline(
                folder / "run", f"{pool}/*", corpus.target, corpus.holdout, estimator=estimator
            )
            figures[fit] = {"full": pipeline.run().wall, "nothing due": pipeline.run().wall}
            last = corpus.files[-1]
            os.symlink(last, pool / last.name)
            figures[fit]["one new file"] = pipeline.run().wall
            made = [row for row in pipeline.latest() if row.asset == "weights"]
            newest = max(row.finished_at for row in pipeline.latest() if row.asset == "raw_counts")
            figures[fit]["shards weighed"] = sum(row.finished_at > newest for row in made)
            if fit == "pinned":
                workspace = Workspace(folder / "run" / "dsir.yaml", pipeline.home)
                figures[fit]["drift"] = measure_drift(workspace.snapshot()).drift
    table = Table(box=None, header_style="bold")
    for header in (
        "fit",
        "full run, s",
        "one new file, s",
        "shards weighed",
        "nothing due, s",
        "drift, nats",
    ):
        table.add_column(header, justify="right" if header != "fit" else "left")
    for fit, row in figures.items():
        drift = f"{row['drift']:.5f}" if "drift" in row else "-"
        seconds = [f"{row[key]:.1f}" for key in ("full", "one new file", "nothing due")]
        table.add_row(fit, seconds[0], seconds[1], f"{row['shards weighed']}", seconds[2], drift)
    console.print(f"{corpus.name}; {len(corpus.files)} files, the last one new")
    console.print(table)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
