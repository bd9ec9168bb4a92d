"""``weights``: one pass over a shard's cached features, the log weight of every document and target.

What belongs here: from features and log ratios to log weights; which of them the file before has already. What does
not: noise and picking (``assets/selections.py``).
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import dagster as dg
import numpy as np
import pyarrow as pa

from assets.candidates import read_log_weights
from assets.importance_estimator import read_log_ratios
from assets.materialize import Result, RunOptions, markdown_table, materialize_many, rate
from dagster_project.partitions import shards
from dsir.features import Features
from dsir.importance import log_weights
from resources.corpus import CorpusError, content_stamp
from resources.plan import CODE_VERSIONS, Output, Plan
from resources.progress import Progress
from resources.store import Stamp, table
from resources.workspace import Pipeline, Workspace


def build_weights(importance_estimator: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the asset downstream of the estimator."""

    @dg.asset(
        deps=[importance_estimator],
        partitions_def=shards,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        code_version=CODE_VERSIONS["weights"],
        kinds={"numba", "parquet"},
        description=(
            "Log importance weight of every document under every target, in nats.\n\n"
            "The sum over its n-grams of the log ratio, from the features that `raw_counts` cached: no "
            "text is read. Targets whose log weights the file before has already are taken over from there."
        ),
    )
    def weights(
        context: dg.AssetExecutionContext, pipeline: Pipeline, config: RunOptions
    ) -> Iterator[dg.AssetMaterialization]:
        yield from weigh_shards(context, pipeline.workspace, context.partition_keys, config)

    return weights


def weigh_shards(
    context: dg.AssetExecutionContext | dg.OpExecutionContext,
    workspace: Workspace,
    keys: Sequence[str],
    options: RunOptions,
) -> Iterator[dg.AssetMaterialization]:
    """Bring the weights of some shards up to date, as :func:`assets.materialize.materialize_many` does."""
    plan = workspace.plan()
    unready = [key for key in keys if key not in plan.counted]
    if unready:
        context.log.warning(f"not counted, so not weighed: {', '.join(unready[:20])}")
    ready = [key for key in keys if key in plan.counted]
    if not ready:
        raise dg.Failure("none of these shards is counted; materialize raw_counts first")
    if plan.importance_estimator.state != "fresh":
        raise dg.Failure(
            f"importance_estimator is {plan.importance_estimator.state} "
            f"({plan.importance_estimator.why}); materialize it first",
            allow_retries=False,
        )
    targets, ratios = read_log_ratios(workspace, plan)

    def compute(output: Output, progress: Progress) -> Result:
        kept = {} if options.force else kept_groups(workspace, plan, output)
        return weigh_shard(workspace, plan, output, targets, ratios, kept, progress)

    outputs = list(map(plan.weights, ready))
    yield from materialize_many(context, workspace, "weights", outputs, compute, options)


def kept_groups(workspace: Workspace, plan: Plan, output: Output) -> dict[str, int]:
    """Return the targets whose log weights in the file before are what they would be now, with their place in it.

    None, where that file is gone or not what was written.
    """
    found = output.found
    if found is None:
        return {}
    shard, then = output.partition, json.loads(found["metadata"]["log_weights"])
    kept = {
        target: place
        for place, (target, made_of) in enumerate(then.items())
        if target in plan.counted_targets and made_of == plan.log_weights(shard, target)
    }
    path = workspace.store.path("weights", shard)
    try:
        written = found["files"].get(str(path.relative_to(workspace.home)))
        return kept if kept and content_stamp(str(path)) == written else {}
    except (CorpusError, OSError):
        return {}


def weigh_shard(
    workspace: Workspace,
    plan: Plan,
    output: Output,
    targets: list[str],
    ratios: np.ndarray,
    kept: dict[str, int],
    progress: Progress,
) -> Result:
    """Weigh one shard's documents and write their log weights, a row group per target in turn.

    Parameters
    ----------
    targets : list of str
        In the order of the file.
    ratios : ndarray of float64, shape (targets, buckets)
    kept : dict of str to int
        From :func:`kept_groups`.
    """
    started = time.monotonic()
    shard = output.partition
    source = plan.raw_counts(shard)
    store = workspace.store
    new = [i for i, target in enumerate(targets) if target not in kept]
    features = store.path("features", shard)
    batches = store.read_features(features, source.stamp)
    path = store.path("weights", shard)
    sums = np.zeros(len(targets))
    squares = np.zeros(len(targets))
    n_documents = 0
    with ExitStack() as files:
        documents = files.enter_context(store.open_table(store.path("documents", shard), source.stamp))
        if kept:
            written = Stamp(output.name, output.found["fingerprint"], {})
            before = files.enter_context(store.open_table(path, written))
            n_before = before.num_row_groups // max(documents.num_row_groups, 1)
        writer = files.enter_context(store.table_writer(path, "weights", output.stamp))
        for group in range(documents.num_row_groups):
            rows = documents.read_row_group(group, columns=["row"], use_threads=False)["row"].combine_chunks()
            log_weight = np.empty((len(targets), len(rows)))
            for i, target in enumerate(targets):
                if target in kept:
                    log_weight[i] = read_log_weights(before, group, n_before, kept[target])
            if new:
                log_weight[new] = _weigh_documents(batches, len(rows), ratios[new])
            for target, values in zip(targets, log_weight, strict=True):
                columns = {"shard": shard, "row": rows, "target": target, "log_weight": pa.array(values)}
                writer.write_table(table("weights", columns), row_group_size=len(rows))
            sums += log_weight.sum(axis=1)
            squares += (log_weight**2).sum(axis=1)
            n_documents += len(rows)
            progress.add(documents=len(rows))
    progress.add(bytes=source.found["metadata"]["text_bytes"])
    mean = sums / max(n_documents, 1)
    deviation = np.sqrt(np.maximum(squares / max(n_documents, 1) - mean**2, 0))
    return Result(
        rows=n_documents * len(targets),
        files=[path],
        metadata={
            "documents": n_documents,
            "targets": len(targets),
            "targets_weighed": len(new),
            "log_weights": json.dumps({target: plan.log_weights(shard, target) for target in targets}),
            "bytes_read": features.stat().st_size if new else 0,
            "MB_per_s": rate(source.found["metadata"]["text_bytes"], started),
        },
        tables={
            "log weight by target, nats": markdown_table(
                ["target", "mean", "standard deviation"],
                [(t, float(m), float(d)) for t, m, d in zip(targets, mean, deviation, strict=True)],
            )
        },
    )


def _weigh_documents(batches, n_documents: int, ratios: np.ndarray) -> np.ndarray:
    """Weigh the next ``n_documents`` of a stream of feature batches: shape (targets, n_documents)."""
    out = np.empty((len(ratios), n_documents))
    done = 0
    while done < n_documents:
        features = Features.from_arrow(next(batches))
        out[:, done : done + len(features)] = log_weights(features, ratios)
        done += len(features)
    return out
