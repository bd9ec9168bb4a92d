"""The jobs: bringing everything up to date, and materializing a list of shards in one run.

What belongs here: jobs that the UI, the sensors and the schedule start. What does not: what is due and how it
is run (``dagster_project/runs.py``), when it is started (``dagster_project/automation.py``).
"""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase

import dagster as dg
import pydantic

from assets.materialize import RunOptions, reasons
from assets.raw_counts import count_shards
from assets.weights import weigh_shards
from dagster_project.runs import register_shards, run_all
from resources.workspace import Pipeline


class ShardOptions(RunOptions):
    """Which shards to materialize.

    Attributes
    ----------
    shards : list of str
        Shard keys, or patterns with ``*``, ``?`` and ``[…]``.
    assets : list of str
        ``raw_counts``, ``weights`` or both; in this order.
    """

    shards: list[str] = pydantic.Field(min_length=1)
    assets: list[str] = pydantic.Field(default=["raw_counts"])


def build_jobs(build_definitions: Callable[[], dg.Definitions]) -> list[dg.JobDefinition]:
    """Return the jobs ``refresh`` and ``materialize_shards``.

    Parameters
    ----------
    build_definitions : callable
        Returns the definitions whose assets ``refresh`` runs.
    """

    @dg.op(description="Bring everything that is missing or stale up to date, as `dsir run` does.")
    def bring_up_to_date(context: dg.OpExecutionContext, pipeline: Pipeline) -> None:
        errors = []
        for stage in run_all(
            build_definitions(),
            context.instance,
            pipeline.workspace,
            f"refresh {context.run_id}",
            context.log.info,
        ):
            context.log.info(
                f"{stage.asset}: {len(stage.due)} were due, {stage.fresh} fresh"
                + (f"; Dagster runs {', '.join(stage.run_ids)}" if stage.run_ids else "")
            )
            if stage.due:
                context.log.info(reasons(stage.due))
            errors += stage.errors
        if errors:
            raise dg.Failure("\n".join(errors), allow_retries=False)

    @dg.job(description="Bring everything that is missing or stale up to date: new shards, changed files.")
    def refresh():
        bring_up_to_date()

    @dg.op(
        out={},
        description="Materialize the shards that the patterns match; each is an event of its own.",
    )
    def materialize_matching(
        context: dg.OpExecutionContext, pipeline: Pipeline, config: ShardOptions
    ) -> Iterator[dg.AssetMaterialization]:
        workspace = pipeline.workspace
        steps = {"raw_counts": count_shards, "weights": weigh_shards}
        unknown = [asset for asset in config.assets if asset not in steps]
        if unknown:
            raise dg.Failure(f"assets: {', '.join(unknown)}; there are: {', '.join(steps)}")
        plan = workspace.plan()
        register_shards(context.instance, plan)
        keys = matching(config.shards, sorted(plan.shards))
        context.log.info(f"{len(keys)} of {len(plan.shards)} shards: {', '.join(keys[:20])}")
        for asset, step in steps.items():
            if asset in config.assets:
                yield from step(context, workspace, keys, config)

    @dg.job(
        description=(
            "Materialize `raw_counts` or `weights` of shards by a list of keys or patterns, in one run. (A backfill "
            "of partitions that are not adjacent becomes a run for each range of adjacent ones.)"
        )
    )
    def materialize_shards():
        materialize_matching()

    return [refresh, materialize_shards]


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
