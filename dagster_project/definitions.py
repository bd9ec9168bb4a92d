"""The definitions that Dagster loads, from a factory that tests call with their own configuration.

What belongs here: turning the graph's records into Dagster's assets and checks. What does not: which assets there are
(``assets/graph.py``), how any of them works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg

from dsir_dagster.assets.materialize import RunOptions, as_result, errors_as_failures, log_made
from dsir_dagster.automation import NIGHTLY, WHEN_DUE, build_automation
from dsir_dagster.configured import find_config, find_home
from dsir_dagster.jobs import build_materialize_shards
from dsir_dagster.refresh import REFRESH, Stage, build_refresh
from dsir_dagster.resources.dagster_private import accept_beta
from dsir_dagster.resources.graph import Asset, Check, Partitions, graph
from dsir_dagster.resources.partitions import shards
from dsir_dagster.resources.pipeline import PipelineResource
from dsir_dagster.resources.settings import Settings, load_settings

#: Ends every asset's description.
KEPT_UP_TO_DATE = (
    f"Kept up to date by the job `{REFRESH}`, which makes what is missing or stale. `dsir run` starts it, and so do "
    f"the sensor `{WHEN_DUE}`, when a file or the configuration changes, and the schedule `{NIGHTLY}`, once someone "
    "switches them on."
)

OWNERS = ["team:data-selection"]


def build_defs(
    config: str | Path | None = None,
    home: str | Path | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
    threads: int = 0,
    tell: Callable[[Stage], None] = lambda stage: None,
) -> dg.Definitions:
    """Build the definitions of one pipeline.

    Parameters
    ----------
    config : str or Path, optional
        The YAML file. Default: the environment variable DSIR_CONFIG, else ``dsir.yaml`` of this folder.
    home : str or Path, optional
        Where outputs go. Default: the environment variable DSIR_HOME, else ``.dsir``.
    loggers : mapping, optional
        Loggers that replace Dagster's console logger.
    threads : int
        Threads per run; 0: the cores this process may use.
    tell : callable
        Called with the stage of each asset when it ends, for a refresh in this process.

    Raises
    ------
    resources.settings.ConfigError
        There is no configuration, or it is not valid.
    """
    accept_beta()
    config, home = find_config(config).resolve(), find_home(home).resolve()
    settings = load_settings(config)
    partitions = {
        Partitions.SHARDS: shards,
        Partitions.TARGETS: dg.StaticPartitionsDefinition([target.name for target in settings.targets]),
        Partitions.SELECTIONS: dg.StaticPartitionsDefinition([each.name for each in settings.selections]),
        Partitions.NONE: None,
    }
    shown = graph().shown
    refresh = build_refresh(tell)
    sensors, schedule = build_automation(refresh, settings.refresh_cron)
    return dg.Definitions(
        assets=[build_asset(asset, partitions, settings) for asset in shown],
        asset_checks=[
            build_check(asset, check, partitions)
            for asset in shown
            for check in asset.checks
            if check.exists(settings)
        ],
        jobs=[refresh, build_materialize_shards()],
        sensors=sensors,
        schedules=[schedule],
        resources={"pipeline": PipelineResource(config=str(config), home=str(home), threads=threads)},
        # One process per run: steps take hundredths of a second, and parallelism is inside them.
        executor=dg.in_process_executor,
        loggers=loggers,
    )


def build_asset(
    asset: Asset, partitions: Mapping[Partitions, dg.PartitionsDefinition | None], settings: Settings
) -> dg.AssetsDefinition:
    """Build a Dagster asset from a record."""
    step = asset.step
    assert step is not None, "only assets with a step are shown"

    def dependency(name: str) -> dg.AssetDep:
        theirs = graph()[name].partitions
        every = theirs is not asset.partitions and Partitions.NONE not in (theirs, asset.partitions)
        return dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping() if every else None)

    def made_one_by_one(context, pipeline, config):
        made = step(context, pipeline.workspace, context.partition_keys, config)
        failure = None
        try:
            log_made(context, asset.after, made)
        except dg.Failure as error:
            failure = error
        if asset.finish:
            asset.finish(context, pipeline.workspace)
        if failure:
            raise failure
        yield from ()  # of a plain function, Dagster would take the result for the asset

    def made_alone(context, pipeline, config):
        partition = context.partition_key if context.has_partition_key else ""
        yield as_result(step(context, pipeline.workspace, [partition], config))

    compute = made_one_by_one if asset.partitions.many else made_alone
    compute.__annotations__ = {
        "context": dg.AssetExecutionContext,
        "pipeline": PipelineResource,
        "config": (asset.options or RunOptions).shown(settings),
    }
    return dg.asset(
        name=asset.name,
        deps=[dependency(name) for name in asset.after],
        partitions_def=partitions[asset.partitions],
        backfill_policy=dg.BackfillPolicy.single_run() if asset.partitions.many else None,
        output_required=not asset.partitions.many,
        code_version=asset.version,
        group_name=asset.group,
        owners=OWNERS,
        kinds=set(asset.kinds),
        description=f"{asset.description}\n\n{KEPT_UP_TO_DATE}",
    )(errors_as_failures(compute))


def build_check(
    asset: Asset, check: Check, partitions: Mapping[Partitions, dg.PartitionsDefinition | None]
) -> dg.AssetChecksDefinition:
    """Build a Dagster check from a record."""

    def evaluate(context, pipeline):
        partition = context.partition_key if check.by_partition else ""
        yield check.evaluate(pipeline.workspace, partition, context.log)

    evaluate.__annotations__ = {
        "context": dg.AssetCheckExecutionContext,
        "pipeline": PipelineResource,
        "return": dg.AssetCheckResult,
    }
    return dg.asset_check(
        asset=asset.name,
        name=check.name,
        partitions_def=partitions[asset.partitions] if check.by_partition else None,
        blocking=check.blocking,
        description=check.description,
    )(errors_as_failures(evaluate))


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions that ``dg dev`` serves, for the configuration that DSIR_CONFIG names."""
    return build_defs()
