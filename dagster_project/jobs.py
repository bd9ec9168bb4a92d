"""The job `materialize_shards`: a list of shards in one run.

What belongs here: choosing the shards. What does not: making them (``assets/``), the job that brings everything up to
date (``dagster_project/refresh.py``).
"""

import enum
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg
import pydantic

from dsir_dagster.assets.materialize import RunOptions, errors_as_failures, log_made
from dsir_dagster.resources.graph import Partitions, graph
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.pipeline import PipelineResource


def build_materialize_shards() -> dg.JobDefinition:
    """Return the job."""
    offered = {asset.name: asset for asset in graph().shown if asset.partitions is Partitions.SHARDS}
    if TYPE_CHECKING:
        AssetChoice: TypeAlias = str
    else:
        AssetChoice = enum.Enum("AssetOfShards", {name: name for name in offered}, type=str)

    class ShardOptions(RunOptions):
        """Which shards to materialize."""

        shards: list[str] = pydantic.Field(
            min_length=1, description="Keys of shards, or patterns with `*`, `?` and `[…]`."
        )
        assets: list[AssetChoice] = pydantic.Field(
            default=["raw_counts"], description="What to make of them, in the order of the graph."
        )

    @dg.op(
        out={},
        description="Materialize the shards that the patterns match, with an event for each.",
    )
    @errors_as_failures
    def materialize_matching(
        context: dg.OpExecutionContext, pipeline: PipelineResource, config: ShardOptions
    ) -> Iterator[dg.Output]:
        workspace = pipeline.workspace
        plan = workspace.plan()
        register_shards(context.instance, plan)
        keys = matching(config.shards, sorted(plan.shards))
        context.log.info(f"{len(keys)} of {len(plan.shards)} shards: {', '.join(keys[:20])}")
        for asset in offered.values():
            if asset.step and asset.name in config.assets:
                log_made(context, asset.after, asset.step(context, workspace, keys, config))
        yield from ()  # no output

    @dg.job(
        description=(
            "Materialize assets of shards (by default `raw_counts`) by a list of keys or patterns, in one run. "
            "(A backfill of scattered partitions takes a run for each range of adjacent ones.)"
        )
    )
    def materialize_shards():
        materialize_matching()

    return materialize_shards


def matching(patterns: list[str], keys: list[str]) -> list[str]:
    """Return the keys that at least one pattern matches.

    Raises
    ------
    dagster.Failure
        A pattern matches no key.
    """
    for pattern in patterns:
        if not any(fnmatchcase(key, pattern) for key in keys):
            some = ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
            raise dg.Failure(f"no shard matches '{pattern}'; there are: {some}", allow_retries=False)
    return [key for key in keys if any(fnmatchcase(key, pattern) for pattern in patterns)]
