"""A seventh asset, as someone might add it: the lengths of a shard's documents.

All of it is here; the test puts it into the graph.
"""

import numpy as np
import pyarrow as pa

from dsir_dagster.assets.materialize import Result, bring_up_to_date
from dsir_dagster.resources.graph import Asset, Inputs, Partitions, RunOptions
from dsir_dagster.resources.store import FileKind

LENGTHS_FILES = FileKind(
    "lengths", pa.schema([pa.field("shard", pa.string()), pa.field("n_tokens", pa.int64())])
)


def measure_lengths(context, workspace, keys, options: RunOptions):
    snapshot = workspace.snapshot()

    def compute(worker, output, tell):
        origin = snapshot.plan.raw_counts(output.partition).origin
        documents = snapshot.store.read_table(
            snapshot.store.name("documents", output.partition), origin, ["shard", "n_tokens"]
        )
        name = snapshot.store.name("lengths", output.partition)
        columns = {"shard": output.partition, "n_tokens": documents["n_tokens"].combine_chunks()}
        snapshot.store.write_table(name, "lengths", columns, output.origin)
        tokens = int(np.sum(documents["n_tokens"].to_numpy()))
        return Result(rows=len(documents), files=snapshot.store.written(name), metadata={"tokens": tokens})

    outputs = [snapshot.plan.output("lengths", key) for key in keys]
    yield from bring_up_to_date(context, workspace, "lengths", outputs, compute, options)


def inputs(plan, shard):
    counts = plan.raw_counts(shard)
    return Inputs({counts.name: counts.fingerprint})


LENGTHS = Asset(
    name="lengths",
    version="1",
    description="Tokens of every document.",
    partitions=Partitions.SHARDS,
    after=("raw_counts",),
    inputs=inputs,
    step=measure_lengths,
    group="counts",
    kinds=("parquet",),
    files=(LENGTHS_FILES,),
)
