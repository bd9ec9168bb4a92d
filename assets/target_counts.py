"""``target_counts``: hashed n-gram totals of every target, and of its held-out documents.

What belongs here: from a target's files to its totals. What does not: the log ratios
(``assets/importance_estimator.py``).
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from dsir.features import Features, FeatureSpec, featurize
from dsir_dagster.assets.materialize import Result, bring_up_to_date, rate
from dsir_dagster.assets.raw_counts import REPLACED, by_reason, report_quarantine
from dsir_dagster.resources.compute import Tell, Worker
from dsir_dagster.resources.corpus import (
    BLANK_LINE,
    Block,
    CorpusError,
    TextBatch,
    expand,
    no_usable_row,
    read_blocks,
)
from dsir_dagster.resources.discovery import target_stamp
from dsir_dagster.resources.graph import Asset, Context, Inputs, Made, Partitions, RunOptions
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.settings import Reader
from dsir_dagster.resources.store import FileKind, Origin, schema_of
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

#: Bytes a block; small, so that all cores share a small target.
BLOCK_BYTES = 1 << 18


def count_targets(context: Context, workspace: Workspace, names: Sequence[str], options: RunOptions) -> Made:
    """Bring the counts of some targets up to date, as :func:`dsir_dagster.assets.materialize.bring_up_to_date` does."""
    outputs = list(map(workspace.plan().target_counts, names))
    yield from bring_up_to_date(
        context, workspace, "target_counts", outputs, count_target, options, item_of=TargetToCount.of
    )


@dataclass(frozen=True)
class TargetToCount:
    """The name of a target, the stamp of its files, and the origin of its counts."""

    name: str
    stamp: str
    origin: Origin

    @classmethod
    def of(cls, output: Output) -> "TargetToCount":
        """Return the item of an output."""
        return cls(output.partition, output.inputs["file"], output.origin)


@dataclass
class Counts:
    """What was read from one set of files."""

    totals: np.ndarray
    documents: int = 0
    tokens: int = 0
    bytes: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    files: list[str] = field(default_factory=list)


def count_target(worker: Worker, item: TargetToCount, tell: Tell) -> Result:
    """Count a target and its holdout, and write the totals."""
    started = time.monotonic()
    target = worker.settings.target(item.name)
    spec = worker.settings.features.spec()
    train = count_files(worker, target.uri, target, spec, tell)
    holdout = count_files(worker, target.holdout, target, spec, tell)
    for uri, part in ((target.uri, train), (target.holdout, holdout)):
        if not uri or part.tokens:
            continue
        if not part.documents and (error := no_usable_row(part.files[0], target, part.reasons, uri)):
            raise error
        raise CorpusError(
            f"target '{target.name}': no tokens in {uri} ({part.documents} documents, {part.reasons.total()} rows "
            f"quarantined); check the files and the field {target.text!r}"
        )
    if target_stamp(target, worker.home, worker.engine) != item.stamp:
        raise CorpusError(f"target '{target.name}', {target.uri}: {REPLACED}")
    reasons = train.reasons + holdout.reasons
    used = np.flatnonzero(train.totals + holdout.totals)
    name = worker.store.name("target_counts", target.name)
    worker.store.write_table(
        name,
        "target_counts",
        {
            "target": target.name,
            "bucket": used.astype(np.int32),
            "count": train.totals[used],
            "holdout_count": holdout.totals[used],
        },
        item.origin,
    )
    return Result(
        rows=train.documents,
        files=worker.store.written(name),
        metadata={
            "documents": train.documents,
            "tokens": train.tokens,
            "ngrams": int(train.totals.sum()),
            "text_bytes": train.bytes + holdout.bytes,
            "MB_per_s": rate(train.bytes + holdout.bytes, started),
            "quarantined_rows": reasons.total(),
            **({"blank_lines": reasons[BLANK_LINE]} if reasons[BLANK_LINE] else {}),
            "holdout_documents": holdout.documents,
            "holdout_tokens": holdout.tokens,
            "empty_buckets": int(spec.buckets - np.count_nonzero(train.totals)),
            "file": "\n".join([*train.files, *holdout.files]),
        },
        tables={
            "parts": Table(
                [Column("part"), *(Column(name, "whole") for name in ("documents", "tokens", "n-grams"))],
                [
                    (name, part.documents, part.tokens, int(part.totals.sum()))
                    for name, part in (("train", train), ("holdout", holdout))
                ],
            ),
            **({"quarantined rows by reason": by_reason(reasons)} if reasons else {}),
        },
    )


def count_files(worker: Worker, uri: str | None, reader: Reader, spec: FeatureSpec, tell: Tell) -> Counts:
    """Add up the n-grams of all files that match a URI; None matches none."""

    def work(block: Block) -> tuple[TextBatch, Features]:
        batch = block.parse()
        return batch, featurize(batch.texts, spec)

    counts = Counts(np.zeros(spec.buckets, dtype=np.int64))
    for file in expand(uri, worker.home) if uri else []:
        counts.files.append(file.uri)
        for batch, features in worker.engine.map_blocks(work, read_blocks(file.uri, reader, BLOCK_BYTES)):
            features.add_totals(counts.totals)
            counts.documents += len(features)
            counts.tokens += int(features.n_tokens.sum())
            counts.bytes += batch.n_bytes
            counts.reasons.update(row.reason for row in batch.rejected)
            tell(documents=len(features), bytes=batch.n_bytes)
    return counts


def inputs(plan: Plan, target: str) -> Inputs:
    """Return what a target's counts are made of."""
    return Inputs({"file": plan.target_stamps[target], **plan.reading(plan.settings.target(target))})


TARGET_COUNTS = Asset(
    name="target_counts",
    version="4",
    description=(
        "Totals of hashed n-grams of a target and of its held-out documents.\n\n"
        "The held-out part is counted separately and never fitted on; evaluations measure on it."
    ),
    partitions=Partitions.TARGETS,
    inputs=inputs,
    step=count_targets,
    finish=report_quarantine,
    group="counts",
    kinds=("numba", "parquet"),
    files=(
        FileKind(
            "target_counts",
            schema_of(
                {
                    "target": pa.string(),
                    "bucket": pa.int32(),
                    "count": pa.int64(),
                    "holdout_count": pa.int64(),
                }
            ),
        ),
    ),
)
