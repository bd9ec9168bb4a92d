"""How much a drift in nats changes the picks: ``python -m benchmarks.drift``.

What belongs here: pinning the pool's distribution to a part of the shards, and comparing the best tenth of the
documents with the best tenth under the distribution of the whole pool. What does not: time (``benchmarks/refresh.py``).
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.pipeline import Pipeline
from benchmarks.pool import require_corpus
from dsir.evaluation import distribution, kl_divergence
from dsir.features import Features
from dsir.importance import log_ratios, log_weights
from dsir_dagster.assets.importance_estimator import raw_totals, target_totals
from dsir_dagster.resources.workspace import Workspace

MIN_TOKENS = 100
PARTS = (0.9, 0.75, 0.5, 0.25, 0.1)


def main() -> int:
    """Print drift and agreement for parts of the pool; return the exit code."""
    console = Console(highlight=False)
    corpus = require_corpus()
    with tempfile.TemporaryDirectory(prefix="dsir-drift-") as name:
        pool = f"{corpus.files[0].parent}/*"
        pipeline = Pipeline(Path(name) / "run", pool, corpus.target, corpus.holdout)
        pipeline.run()
        workspace = Workspace(pipeline.folder / "dsir.yaml", pipeline.home)
        snapshot = workspace.snapshot()
        totals = {shard: raw_totals(snapshot, [shard]) for shard in snapshot.plan.counted}
        target, _ = target_totals(snapshot, "target")
        chance = random.Random(0)
        pinned = {"all": snapshot.plan.counted}
        for part in PARTS:
            for draw in "ab":
                size = max(1, round(part * len(snapshot.plan.counted)))
                pinned[f"{part:.0%}, draw {draw}"] = chance.sample(snapshot.plan.counted, size)
        fitted = {name: sum(totals[shard] for shard in shards) for name, shards in pinned.items()}
        ratios = np.array([log_ratios(target, each, 0.0) for each in fitted.values()])
        weights = []
        for shard in snapshot.plan.counted:
            path = workspace.store.path("features", shard)
            for batch in workspace.store.read_features(path, snapshot.plan.raw_counts(shard).origin):
                features = Features.from_arrow(batch)
                weights.append(log_weights(features, ratios)[:, features.n_tokens >= MIN_TOKENS])
        best = [top(each, each.size // 10) for each in np.concatenate(weights, axis=1)]
    table = Table(box=None, header_style="bold")
    for header in ("pinned to", "drift, nats", "same picks"):
        table.add_column(header, justify="right" if header != "pinned to" else "left")
    now = distribution(fitted["all"])
    for (label, counts), chosen in zip(fitted.items(), best, strict=True):
        drift = kl_divergence(now, distribution(counts))
        same = len(np.intersect1d(chosen, best[0])) / len(chosen)
        table.add_row(label, f"{drift:.4f}", f"{same:.1%}")
    console.print(f"{corpus.name}; the best tenth of the documents by log weight")
    console.print(table)
    return 0


def top(log_weight: np.ndarray, n: int) -> np.ndarray:
    """Return the indices of the n largest: ndarray of int64."""
    return np.argpartition(-log_weight, n)[:n]


if __name__ == "__main__":
    sys.exit(main())
