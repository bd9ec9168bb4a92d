"""``weights``: one pass over a shard's cached features, the log weight of every document and target.

What belongs here: from features and log ratios to log weights; which of their files are still valid. What does not:
noise and picking (``assets/selections.py``).
"""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import dagster as dg
import numpy as np
import pyarrow as pa

from dsir.importance import Weigher
from dsir_dagster.assets.importance_estimator import read_log_ratios
from dsir_dagster.assets.materialize import Result, bring_up_to_date, rate, reasons
from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.graph import Asset, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.lineage import output_name
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.store import REPEATED, FileKind, Origin, Store, schema_of, table
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace


def weigh_shards(context: Context, workspace: Workspace, keys: Sequence[str], options: RunOptions) -> Made:
    """Bring the weights of some shards up to date, as :func:`dsir_dagster.assets.materialize.bring_up_to_date` does."""
    snapshot = workspace.snapshot()
    unready = [snapshot.plan.raw_counts(key) for key in keys if key not in snapshot.plan.counted]
    ready = [key for key in keys if key in snapshot.plan.counted]
    if not ready:
        raise dg.Failure(f"none of these shards is counted; materialize raw_counts first\n{reasons(unready)}")
    if unready:
        are = "is" if len(unready) == 1 else "are"
        context.log.warning(
            f"{len(unready)} of {len(keys)} shards {are} not counted, so not weighed:\n{reasons(unready)}"
        )
    if snapshot.plan.importance_estimator.state != "fresh":
        raise dg.Failure(
            f"importance_estimator is {snapshot.plan.importance_estimator.state} "
            f"({snapshot.plan.importance_estimator.why}); materialize it first",
            allow_retries=False,
        )
    targets, ratios = read_log_ratios(snapshot)

    def item_of(output: Output) -> ShardToWeigh:
        shard, found = output.partition, output.found
        counted = snapshot.plan.raw_counts(shard)
        kept = {} if options.force else kept_files(snapshot, output)
        return ShardToWeigh(
            shard,
            counted.origin,
            counted.made.count("documents"),
            counted.made.count("text_bytes"),
            {target: snapshot.plan.log_weights(shard, target) for target in targets},
            kept,
            output.made.mapping("log_weight_moments") if kept else {},
            list(found.files) if found else [],
        )

    def documents_of(output: Output) -> int:
        return snapshot.plan.raw_counts(output.partition).made.count("documents")

    # Large ones first, so that no thread is left with a large one at the end.
    ready.sort(key=lambda key: -snapshot.plan.raw_counts(key).made.count("text_bytes"))
    outputs = list(map(snapshot.plan.weights, ready))
    weigh = partial(weigh_shard, ratios)
    yield from bring_up_to_date(
        context, workspace, "weights", outputs, weigh, options, item_of=item_of, work_of=documents_of
    )


@dataclass(frozen=True)
class ShardToWeigh:
    """What a shard's log weights are made of.

    Attributes
    ----------
    shard : str
    counts : Origin
        Of its documents and features.
    documents, text_bytes : int
    targets : dict of str to Origin
        Of the log weights under each target, in the order of the log ratios.
    kept : dict of str to str
        From :func:`kept_files`.
    moments : dict of str to (float, float)
        Mean and standard deviation of the log weights that are there, by target.
    files : list of str
        Those of the log weights so far, by name.
    """

    shard: str
    counts: Origin
    documents: int
    text_bytes: int
    targets: dict[str, Origin]
    kept: dict[str, str]
    moments: dict[str, tuple[float, float]]
    files: list[str]


def kept_files(snapshot: Snapshot, output: Output) -> dict[str, str]:
    """Return, by target, the checksums of a shard's files that would be written again unchanged."""
    if output.found is None:
        return {}
    shard, found = output.partition, output.found
    there = {name: checksum for name, checksum in found.files.items() if name not in found.absent}
    kept = {}
    for target, made_of in found.mapping("log_weights").items():
        name = snapshot.store.weights(shard, target)
        valid = (
            target in snapshot.plan.counted_targets
            and made_of == snapshot.plan.log_weights(shard, target).fingerprint
        )
        if valid and name in there:
            kept[target] = there[name]
    return kept


def weigh_shard(ratios: np.ndarray, worker: Worker, item: ShardToWeigh, tell: Tell) -> Result:
    """Weigh one shard's documents under every target that is not kept; write a file for each.

    Parameters
    ----------
    ratios : ndarray of float64, shape (targets, buckets)
    worker, item, tell
    """
    started = time.monotonic()
    store, targets = worker.store, list(item.targets)
    new = [target for target in targets if target not in item.kept]
    moments = dict(item.moments)
    if new:
        of_new = Weigher(ratios[[target in new for target in targets]])
        moments |= _weigh_new(worker, item, new, of_new, tell)
    else:
        tell(documents=item.documents, work=item.documents)
    files = [store.weights(item.shard, target) for target in new]
    kept = {store.weights(item.shard, target): checksum for target, checksum in item.kept.items()}
    for name in item.files:
        if name not in kept and name not in files:
            store.remove(name)  # of a target that is gone
    tell(bytes=item.text_bytes)
    return Result(
        rows=item.documents * len(targets),
        files=store.written(*files),
        kept=kept,
        metadata={
            "documents": item.documents,
            "targets": len(targets),
            "targets_weighed": len(new),
            "log_weights": json.dumps(
                {target: origin.fingerprint for target, origin in item.targets.items()}
            ),
            "log_weight_moments": json.dumps({target: moments[target] for target in targets}),
            "bytes_read": _size_of_features(store, item.shard) if new else 0,
            "MB_per_s": rate(item.text_bytes, started),
        },
        tables={
            "log weight by target, nats": Table(
                [Column("target"), Column("mean", "number"), Column("standard deviation", "number")],
                [(t, *moments[t]) for t in targets],
            )
        },
    )


def _size_of_features(store: Store, shard: str) -> int:
    found = store.look(store.name("features", shard))
    return found.bytes if found else 0


def _weigh_new(
    worker: Worker, item: ShardToWeigh, targets: list[str], weigh: Weigher, tell: Tell
) -> dict[str, tuple[float, float]]:
    """Weigh a shard under some targets, write their files; return mean and standard deviation of each, in nats."""
    store, shard = worker.store, item.shard
    batches = store.read_features(store.name("features", shard), item.counts)
    sums, squares, n_documents = np.zeros(len(targets)), np.zeros(len(targets)), 0
    with ExitStack() as files:
        documents = files.enter_context(store.open_table(store.name("documents", shard), item.counts))
        writers = [
            files.enter_context(
                store.table_writer(store.weights(shard, target), "weights", item.targets[target])
            )
            for target in targets
        ]
        for group in range(documents.num_row_groups):
            rows = documents.read_row_group(group, columns=["row"])["row"].combine_chunks()
            log_weight = _weigh_documents(batches, len(rows), weigh)
            for writer, values in zip(writers, log_weight, strict=True):
                columns = {"shard": shard, "row": rows, "log_weight": pa.array(values)}
                writer.write_table(table("weights", columns), row_group_size=len(rows))
            sums += log_weight.sum(axis=1)
            squares += np.einsum("ij,ij->i", log_weight, log_weight)
            n_documents += len(rows)
            tell(documents=len(rows), work=len(rows))
    mean = sums / max(n_documents, 1)
    deviation = np.sqrt(np.maximum(squares / max(n_documents, 1) - mean**2, 0))
    return {t: (float(m), float(d)) for t, m, d in zip(targets, mean, deviation, strict=True)}


def _weigh_documents(batches: Iterator[pa.RecordBatch], n_documents: int, weigh: Weigher) -> np.ndarray:
    """Weigh the next ``n_documents`` of a stream of feature batches: shape (targets, n_documents)."""
    out = np.empty((weigh.targets, n_documents))
    done = 0
    while done < n_documents:
        weights, _ = weigh(next(batches))  # the batch is freed, so that the next one reuses its memory
        out[:, done : done + weights.shape[1]] = weights
        done += weights.shape[1]
    return out


def inputs(plan: Plan, shard: str) -> Inputs:
    """Return what a shard's weights are made of."""
    made_of = (("raw_counts", shard), ("importance_estimator", ""))
    return Inputs({output_name(*output): plan.fingerprint(*output) for output in made_of})


WEIGHTS = Asset(
    name="weights",
    version="5",
    description=(
        "Log importance weight of every document under every target, in nats.\n\n"
        "The sum of its n-grams' log ratios, from the features cached by `raw_counts`: no text is read. Each target "
        "has its own files, which stay as long as they are valid."
    ),
    partitions=Partitions.SHARDS,
    after=("importance_estimator",),
    inputs=inputs,
    step=weigh_shards,
    group="weights",
    kinds=("numba", "parquet"),
    files=(
        # A folder for each target: a query of one does not even open the files of others.
        FileKind(
            "weights",
            schema_of({"shard": REPEATED, "row": pa.int64(), "log_weight": pa.float64()}),
            pattern="target={target}/{partition}.parquet",
        ),
    ),
)
