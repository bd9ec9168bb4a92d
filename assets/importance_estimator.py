"""``importance_estimator``: fit the pool's and the targets' n-gram distributions; their log ratios.

What belongs here: from totals to log ratios. What does not: weighing documents (``assets/weights.py``).
"""

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.materialize import Result, RunOptions, markdown_table, materialize_one
from assets.raw_counts import raw_counts, top_buckets
from dsir.evaluation import distribution, kl_divergence, masked_totals
from dsir.features import Features
from dsir.importance import fit_threshold, log_ratios
from resources.plan import CODE_VERSIONS, Output, Plan
from resources.progress import Progress
from resources.settings import ConfigError, FitSize
from resources.store import table
from resources.workspace import Pipeline, Workspace


def build_importance_estimator(target_counts: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the asset downstream of the pool's and the targets' counts."""

    @dg.asset(
        deps=[raw_counts, target_counts],
        code_version=CODE_VERSIONS["importance_estimator"],
        kinds={"numpy", "parquet"},
        description=(
            "Log ratio of the target's and the pool's probability, for every bucket and target.\n\n"
            "`log(p_target + 1e-8) - log(p_raw + 1e-8)`. Fitted on the shards that are counted; shards "
            "that are not are named in the metadata."
        ),
    )
    def importance_estimator(
        context: dg.AssetExecutionContext, pipeline: Pipeline, config: RunOptions
    ) -> dg.MaterializeResult:
        workspace = pipeline.workspace
        plan = workspace.plan()
        if not plan.counted:
            raise dg.Failure("no shard is counted yet; materialize raw_counts first", allow_retries=False)
        if not plan.counted_targets:
            raise dg.Failure("no target is counted yet; materialize target_counts first", allow_retries=False)
        if plan.uncounted:
            context.log.warning(
                f"{len(plan.uncounted)} of {len(plan.shards)} shards are not counted and take no part: "
                + ", ".join(plan.uncounted[:10])
            )

        def compute(output: Output, progress: Progress) -> Result:
            return fit(workspace, plan, output)

        return materialize_one(context, workspace, plan.importance_estimator, compute, config)

    return importance_estimator


def fit(workspace: Workspace, plan: Plan, output: Output) -> Result:
    """Add up the totals, compute the log ratios, write them."""
    settings = workspace.settings.estimator
    raw = raw_totals(workspace, plan)
    pool_ngrams = int(raw.sum())
    if isinstance(settings.fit, FitSize) and settings.fit.ngrams < pool_ngrams:
        raw = sampled_totals(workspace, plan, pool_ngrams, settings.fit.ngrams)
    path = workspace.store.path("importance_estimator", "log_ratios")
    divergences = {}
    with workspace.store.table_writer(path, "importance_estimator", output.stamp) as writer:
        for name in plan.counted_targets:
            counts, _ = target_totals(workspace, plan, name)
            divergences[name] = kl_divergence(distribution(counts, 0.5), distribution(raw, 0.5))
            columns = {
                "target": name,
                "bucket": np.arange(len(raw), dtype=np.int32),
                "log_ratio": log_ratios(counts, raw, settings.target_smoothing),
            }
            writer.write_table(table("importance_estimator", columns), row_group_size=len(raw))
    return Result(
        rows=len(raw) * len(divergences),
        files=[path],
        metadata={
            "shards": len(plan.counted),
            "shards_not_counted": len(plan.uncounted),
            "targets": len(divergences),
            "buckets": len(raw),
            "pool_ngrams": pool_ngrams,
            "fitted_ngrams": int(raw.sum()),
            "empty_buckets": int(np.count_nonzero(raw == 0)),
        },
        tables={
            "KL(target‖pool), nats (add-0.5)": markdown_table(["target", "KL"], sorted(divergences.items())),
            "top buckets of the pool": top_buckets(raw),
        },
    )


def raw_totals(workspace: Workspace, plan: Plan) -> np.ndarray:
    """Return the n-gram totals of all counted shards: ndarray of int64, shape (buckets,)."""
    totals = np.zeros(workspace.settings.features.buckets, dtype=np.int64)
    for shard in plan.counted:
        path = workspace.store.path("raw_counts", shard)
        counts = workspace.store.read_table(path, plan.raw_counts(shard).stamp)
        totals[counts["bucket"].to_numpy()] += counts["count"].to_numpy()
    return totals


def sampled_totals(workspace: Workspace, plan: Plan, pool_ngrams: int, wanted: int) -> np.ndarray:
    """Return the totals of a sample of documents, drawn by content hash."""
    threshold = np.uint64(fit_threshold(pool_ngrams, wanted))

    def work(shard: str) -> np.ndarray:
        totals = np.zeros((1, workspace.settings.features.buckets), dtype=np.int64)
        path = workspace.store.path("features", shard)
        for batch in workspace.store.read_features(path, plan.raw_counts(shard).stamp):
            features = Features.from_arrow(batch)
            masked_totals(features, (features.content_hash <= threshold)[None, :], totals)
        return totals[0]

    totals = sum(workspace.engine.map_shards(work, plan.counted))
    if not totals.any():
        raise ConfigError(
            f"estimator.fit.ngrams: a sample of about {wanted:,} of the pool's {pool_ngrams:,} n-grams holds "
            "no document; raise it"
        )
    return totals


def target_totals(workspace: Workspace, plan: Plan, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a target's totals and those of its holdout: two ndarrays of int64, shape (buckets,)."""
    path = workspace.store.path("target_counts", target)
    counts = workspace.store.read_table(path, plan.target_counts(target).stamp)
    totals = np.zeros((2, workspace.settings.features.buckets), dtype=np.int64)
    totals[0, counts["bucket"].to_numpy()] = counts["count"].to_numpy()
    totals[1, counts["bucket"].to_numpy()] = counts["holdout_count"].to_numpy()
    return totals[0], totals[1]


def read_log_ratios(workspace: Workspace, plan: Plan) -> tuple[list[str], np.ndarray]:
    """Return the targets and their log ratios: ndarray of float64, shape (targets, buckets)."""
    path = workspace.store.path("importance_estimator", "log_ratios")
    ratios: pa.Table = workspace.store.read_table(path, plan.importance_estimator.stamp)
    buckets = workspace.settings.features.buckets
    targets = ratios["target"].to_pylist()[::buckets]
    return targets, ratios["log_ratio"].to_numpy().reshape(len(targets), buckets)
