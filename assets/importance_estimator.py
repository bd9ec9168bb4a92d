"""``importance_estimator``: fit the pool's and the targets' n-gram distributions; their log ratios.

What belongs here: from totals to log ratios. What does not: weighing documents (``assets/weights.py``).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

import dagster as dg
import numpy as np
import pyarrow as pa

from dsir.evaluation import SMOOTHING, distribution, kl_divergence
from dsir.features import Features
from dsir.importance import fit_threshold, log_ratios
from dsir_dagster.assets.materialize import Result, bring_up_to_date
from dsir_dagster.assets.raw_counts import top_buckets
from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.graph import Asset, Check, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.lineage import canonical, divided, together
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.settings import ConfigError, FitSize
from dsir_dagster.resources.settings.pool import PinnedFit
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import FileKind, Origin, schema_of, table
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

#: Columns of a file of n-gram totals.
COUNTS = ("bucket", "count")


def fit_estimator(
    context: Context, workspace: Workspace, partitions: Sequence[str], options: RunOptions
) -> Made:
    """Bring the estimator up to date, and the distribution it is pinned to.

    Parameters
    ----------
    context, workspace, options
    partitions : sequence of str
        The asset has none: ``[""]``.

    Raises
    ------
    dagster.Failure
        Nothing to fit it on is counted, or the pinned distribution cannot be used.
    """
    snapshot = workspace.snapshot()
    if not snapshot.plan.counted:
        raise dg.Failure("no shard is counted yet; materialize raw_counts first", allow_retries=False)
    if not snapshot.plan.counted_targets:
        raise dg.Failure("no target is counted yet; materialize target_counts first", allow_retries=False)
    if snapshot.plan.without:
        context.log.warning(snapshot.plan.without)
    if pinned := snapshot.plan.raw_distribution:
        check_pinned(snapshot.plan, pinned)
        if pinned.state != "fresh":
            pin = partial(pin_distribution, snapshot)
            list(bring_up_to_date(context, workspace, "raw_distribution", [pinned], pin, RunOptions()))
            snapshot = workspace.snapshot()

    def compute(worker: Worker, output: Output, tell: Tell) -> Result:
        return fit(snapshot, output)

    outputs = [snapshot.plan.importance_estimator]
    yield from bring_up_to_date(context, workspace, "importance_estimator", outputs, compute, options)


def check_drift(workspace: Workspace, partition: str, log: dg.DagsterLogManager) -> dg.AssetCheckResult:
    """Check that the pool has not drifted from the pinned distribution."""
    measured = measure_drift(workspace.snapshot())
    if not measured.passed:
        log.warning(f"{measured}; choose a new name for estimator.fit.pinned to fit it anew")
    return dg.AssetCheckResult(
        passed=measured.passed, severity=dg.AssetCheckSeverity.WARN, metadata=vars(measured)
    )


def fit(snapshot: Snapshot, output: Output) -> Result:
    """Add up the totals, compute the log ratios, write them."""
    settings = snapshot.settings.estimator
    pool = raw_totals(snapshot)
    if not pool.any() and not snapshot.plan.raw_distribution:
        raise ConfigError(f"there is no text in the {len(snapshot.plan.counted):,} shards that are counted")
    raw = fitted_totals(snapshot, pool)
    name = snapshot.store.name("importance_estimator", "log_ratios")
    divergences = {}
    with snapshot.store.table_writer(name, "importance_estimator", output.origin) as writer:
        for target in snapshot.plan.counted_targets:
            counts, _ = target_totals(snapshot, target)
            divergences[target] = kl_divergence(distribution(counts), distribution(raw))
            columns = {
                "target": target,
                "bucket": np.arange(len(raw), dtype=np.int32),
                "log_ratio": log_ratios(counts, raw, settings.target_smoothing),
            }
            writer.write_table(table("importance_estimator", columns), row_group_size=len(raw))
    return Result(
        rows=len(raw) * len(divergences),
        files=snapshot.store.written(name),
        metadata={
            "shards": len(snapshot.plan.counted),
            "shards_not_counted": len(snapshot.plan.uncounted),
            "targets": len(divergences),
            "buckets": len(raw),
            "pool_ngrams": int(pool.sum()),
            "fitted_ngrams": int(raw.sum()),
            "empty_buckets": int(np.count_nonzero(raw == 0)),
            **({"pinned": settings.pinned} if settings.pinned else {}),
        },
        tables={
            f"KL(target‖pool), nats (add-{SMOOTHING})": Table(
                [Column("target"), Column("KL", "number")], sorted(divergences.items())
            ),
            "top buckets of the pool": top_buckets(raw),
        },
    )


def fitted_totals(snapshot: Snapshot, pool: np.ndarray) -> np.ndarray:
    """Return the totals that the raw distribution is fitted on: pinned, of a sample, or of the whole pool."""
    wanted = snapshot.settings.estimator.fit
    if pinned := snapshot.plan.raw_distribution:
        name = snapshot.store.name("raw_distribution", pinned.partition)
        counts = snapshot.store.read_table(name, pinned.origin, COUNTS)
        totals = np.zeros_like(pool)
        totals[counts["bucket"].to_numpy()] = counts["count"].to_numpy()
        return totals
    if isinstance(wanted, FitSize) and wanted.ngrams < pool.sum():
        return sampled_totals(snapshot, int(pool.sum()), wanted.ngrams)
    return pool


def pin_distribution(snapshot: Snapshot, worker: Worker, output: Output, tell: Tell) -> Result:
    """Write the totals of the shards that the distribution is made of, under its name."""
    totals = raw_totals(
        snapshot, [shard for shard in snapshot.plan.shards if f"raw_counts[{shard}]" in output.inputs]
    )
    used = np.flatnonzero(totals)
    name = snapshot.store.name("raw_distribution", output.partition)
    columns = {"name": output.partition, "bucket": used.astype(np.int32), "count": totals[used]}
    snapshot.store.write_table(name, "raw_distribution", columns, output.origin)
    shards = sum(each.startswith("raw_counts[") for each in output.inputs)
    return Result(len(used), snapshot.store.written(name), {"shards": shards, "ngrams": int(totals.sum())})


def check_pinned(plan: Plan, pinned: Output) -> None:
    """Refuse a pinned distribution of other features, or one that is gone and cannot be fitted again.

    Raises
    ------
    dagster.Failure
    """
    advice = "choose a new name for estimator.fit.pinned to fit a new one"
    counted = json.loads(pinned.inputs["features"])
    different = [
        f"{key} is {counted[key]!r} there, {value!r} here"
        for key, value in plan.features.items()
        if counted[key] != value
    ]
    if different:
        raise dg.Failure(
            f"the raw distribution pinned as '{pinned.partition}' was fitted under other features "
            f"({'; '.join(different)}); {advice}",
            allow_retries=False,
        )
    if pinned.state == "missing" and pinned.found:
        now = plan.listed("raw_counts")
        changed = sorted(
            name
            for name, fingerprint in pinned.inputs.items()
            if name.startswith("raw_counts[") and now.get(name) != fingerprint
        )
        if changed:
            raise dg.Failure(
                f"the raw distribution pinned as '{pinned.partition}': {pinned.why}, and it cannot be fitted "
                f"again, since {len(changed)} shards have changed ({', '.join(changed[:3])}); "
                f"put the file back, or {advice}",
                allow_retries=False,
            )


@dataclass(frozen=True)
class Drift:
    """How far the pool has moved from the distribution the estimator is pinned to.

    Attributes
    ----------
    pinned : str
        Name of the distribution.
    drift : float
        KL(pool‖pinned distribution) in nats, both with :data:`dsir.evaluation.SMOOTHING`.
    max_drift : float
    shards, pinned_shards : int
        Counted shards of the pool; shards that the distribution was fitted on.
    """

    pinned: str
    drift: float
    max_drift: float
    shards: int
    pinned_shards: int

    @property
    def passed(self) -> bool:
        """Whether the drift is within its maximum."""
        return self.drift <= self.max_drift

    def __str__(self) -> str:
        bar = f"{'within' if self.passed else 'above'} max_drift {self.max_drift:g}"
        return f"the pool has drifted {self.drift:.4f} nats from the distribution pinned as '{self.pinned}', {bar}"


def measure_drift(snapshot: Snapshot) -> Drift:
    """Measure the drift of the counted shards from the pinned distribution.

    Raises
    ------
    dagster.Failure
        The distribution is not fitted yet.
    """
    pinned, settings = snapshot.plan.raw_distribution, snapshot.settings.estimator.fit
    assert pinned and isinstance(settings, PinnedFit), "only a pinned estimator drifts"
    check_pinned(snapshot.plan, pinned)
    if pinned.state != "fresh":
        raise dg.Failure(f"{pinned.name}: {pinned.why}; materialize importance_estimator first")
    pool = raw_totals(snapshot)
    divergence = kl_divergence(distribution(pool), distribution(fitted_totals(snapshot, pool)))
    shards = len(snapshot.plan.counted)
    return Drift(pinned.partition, divergence, settings.max_drift, shards, pinned.made.count("shards"))


def raw_totals(snapshot: Snapshot, shards: list[str] | None = None) -> np.ndarray:
    """Return the n-gram totals of some shards, by default all counted ones: ndarray of int64, shape (buckets,)."""
    totals = np.zeros(snapshot.settings.features.buckets, dtype=np.int64)
    for shard in snapshot.plan.counted if shards is None else shards:
        name = snapshot.store.name("raw_counts", shard)
        counts = snapshot.store.read_table(name, snapshot.plan.raw_counts(shard).origin, COUNTS)
        totals[counts["bucket"].to_numpy()] += counts["count"].to_numpy()
    return totals


def sampled_totals(snapshot: Snapshot, pool_ngrams: int, wanted: int) -> np.ndarray:
    """Return the totals of a sample of documents, drawn by content hash."""
    threshold = np.uint64(fit_threshold(pool_ngrams, wanted))
    shards = ((shard, snapshot.plan.raw_counts(shard).origin) for shard in snapshot.plan.counted)
    totals = reduce(np.add, snapshot.compute.map(partial(_sampled_totals, threshold), shards))
    if not totals.any():
        raise ConfigError(
            f"estimator.fit.ngrams: a sample of about {wanted:,} of the pool's {pool_ngrams:,} n-grams contains "
            "no document; raise it"
        )
    return totals


def _sampled_totals(threshold: np.uint64, worker: Worker, item: tuple[str, Origin]) -> np.ndarray:
    """Return the totals of the documents of a shard whose content hash is at most the threshold."""
    shard, origin = item
    totals = np.zeros(worker.settings.features.buckets, dtype=np.int64)
    for batch in worker.store.read_features(worker.store.name("features", shard), origin):
        sampled = batch["content_hash"].to_numpy() <= threshold
        Features.from_arrow(batch.filter(pa.array(sampled))).add_totals(totals)
    return totals


def target_totals(snapshot: Snapshot, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a target's totals and those of its holdout: two ndarrays of int64, shape (buckets,)."""
    name = snapshot.store.name("target_counts", target)
    counts = snapshot.store.read_table(
        name, snapshot.plan.target_counts(target).origin, [*COUNTS, "holdout_count"]
    )
    totals = np.zeros((2, snapshot.settings.features.buckets), dtype=np.int64)
    totals[0, counts["bucket"].to_numpy()] = counts["count"].to_numpy()
    totals[1, counts["bucket"].to_numpy()] = counts["holdout_count"].to_numpy()
    return totals[0], totals[1]


def read_log_ratios(snapshot: Snapshot) -> tuple[list[str], np.ndarray]:
    """Return the targets and their log ratios: ndarray of float64, shape (targets, buckets)."""
    name = snapshot.store.name("importance_estimator", "log_ratios")
    ratios: pa.Table = snapshot.store.read_table(name, snapshot.plan.importance_estimator.origin)
    buckets = snapshot.settings.features.buckets
    targets = ratios["target"].take(pa.array(range(0, len(ratios), buckets))).to_pylist()
    return targets, ratios["log_ratio"].to_numpy().reshape(len(targets), buckets)


def pinned_inputs(plan: Plan, name: str) -> Inputs:
    """Return what a pinned distribution is made of: once it exists, its inputs are frozen."""
    if found := plan.found("raw_distribution", name):
        return Inputs(found.inputs)
    return Inputs(together({"features": canonical(plan.features)}, plan.listed("raw_counts")))


def inputs(plan: Plan, _: str) -> Inputs:
    """Return what the estimator is made of: the pool, or its pinned distribution, and the counted targets."""
    targets = {output.name: output.fingerprint for output in map(plan.target_counts, plan.counted_targets)}
    own, shared = divided(plan.fitted_pool)
    return Inputs(together({**own, **targets}, shared))


def due_for_drift(snapshot: Snapshot, made: Sequence[Output]) -> Sequence[Output]:
    """Return the estimator if it is pinned and the pool has moved, which makes selections stale."""
    plan = snapshot.plan
    moved = any(output.state != "fresh" for output in plan.outputs_of("selections"))
    return [plan.importance_estimator] if plan.raw_distribution and moved else []


RAW_DISTRIBUTION: Asset[RunOptions] = Asset(
    name="raw_distribution",
    version="",
    description="N-gram totals of the pool an estimator is pinned to.",
    partitions=Partitions.PINNED,
    after=("raw_counts",),
    inputs=pinned_inputs,
    files=(
        FileKind(
            "raw_distribution", schema_of({"name": pa.string(), "bucket": pa.int32(), "count": pa.int64()})
        ),
    ),
    made_by="importance_estimator",
)

IMPORTANCE_ESTIMATOR = Asset(
    name="importance_estimator",
    version="2",
    description=(
        "Log ratio of the target's and the pool's probability, for every bucket and target.\n\n"
        "`log(p_target + 1e-8) - log(p_raw + 1e-8)`. Fitted on the counted shards; the metadata says how many "
        "are not counted. With `estimator.fit: {pinned: NAME}` the pool's side is fitted once and kept under that "
        "name, so that new shards leave the weights of the others fresh."
    ),
    partitions=Partitions.NONE,
    after=("raw_counts", "target_counts"),
    inputs=inputs,
    step=fit_estimator,
    group="weights",
    kinds=("numpy", "parquet"),
    files=(
        FileKind(
            "importance_estimator",
            schema_of({"target": pa.string(), "bucket": pa.int32(), "log_ratio": pa.float64()}),
            pattern="log_ratios.parquet",
        ),
    ),
    checks=(
        Check(
            name="pool_has_not_drifted",
            description=(
                "KL(pool‖pinned distribution), in nats, is within `estimator.fit.max_drift`. If not, choose a new name "
                "for `estimator.fit.pinned`: the distribution is fitted anew and every shard weighed again."
            ),
            evaluate=check_drift,
            by_partition=False,
            exists=lambda settings: settings.estimator.pinned is not None,
            due=due_for_drift,
        ),
    ),
)
