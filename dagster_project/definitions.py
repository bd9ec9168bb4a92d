"""The definitions that Dagster loads, from a factory that tests call with their own configuration.

What belongs here: which assets, checks and resources there are, their groups and owners. What does not:
how any of them works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import dagster as dg

from dsir_dagster.assets.evaluations import build_evaluations
from dsir_dagster.assets.importance_estimator import build_importance_estimator
from dsir_dagster.assets.raw_counts import few_rows_quarantined, raw_counts
from dsir_dagster.assets.selections import build_selections
from dsir_dagster.assets.target_counts import build_target_counts
from dsir_dagster.assets.weights import build_weights
from dsir_dagster.automation import build_automation
from dsir_dagster.jobs import build_materialize_shards
from dsir_dagster.refresh import Stage, build_refresh
from dsir_dagster.resources.dagster_private import accepting_beta
from dsir_dagster.resources.settings import load_settings
from dsir_dagster.resources.workspace import Pipeline

#: The demo's, which a wheel carries as an example.
DEFAULT_CONFIG = Path(__file__).with_name("example.yaml").resolve()
DEFAULT_HOME = ".dsir"

GROUPS = {
    "raw_counts": "counts",
    "target_counts": "counts",
    "importance_estimator": "weights",
    "weights": "weights",
    "selections": "selections",
    "evaluations": "selections",
}
OWNERS = ["team:data-selection"]


@accepting_beta
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
        The YAML file. Default: the environment variable DSIR_CONFIG, else the demo's.
    home : str or Path, optional
        Where outputs go. Default: the environment variable DSIR_HOME, else ``.dsir``.
    loggers : mapping, optional
        Loggers to use in place of Dagster's console logger.
    threads : int
        Threads of each run; 0: the cores it may run on.
    tell : callable
        Takes each asset's stage of a refresh in this process, when it ends.

    Raises
    ------
    resources.settings.ConfigError
        The configuration is not valid.
    """
    config = Path(config or os.environ.get("DSIR_CONFIG") or DEFAULT_CONFIG).resolve()
    home = Path(home or os.environ.get("DSIR_HOME") or DEFAULT_HOME).resolve()
    settings = load_settings(config)
    targets = dg.StaticPartitionsDefinition([target.name for target in settings.targets])
    chosen = dg.StaticPartitionsDefinition([selection.name for selection in settings.selections])

    target_counts = build_target_counts(targets)
    importance_estimator, drift_checks = build_importance_estimator(target_counts, settings.estimator.pinned)
    weights = build_weights(importance_estimator)
    selections, size_and_uniqueness = build_selections(chosen, weights)
    evaluations, kl_reduction_beats_random = build_evaluations(chosen, selections)

    assets = [raw_counts, target_counts, importance_estimator, weights, selections, evaluations]
    refresh = build_refresh(assets, tell)
    sensors, schedule = build_automation(refresh, settings.refresh_cron)
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: spec.replace_attributes(group_name=GROUPS[spec.key.to_user_string()], owners=OWNERS),
            assets,
        ),
        asset_checks=[few_rows_quarantined, *drift_checks, size_and_uniqueness, kl_reduction_beats_random],
        jobs=[refresh, build_materialize_shards(weights)],
        sensors=sensors,
        schedules=[schedule],
        resources={"pipeline": Pipeline(config=str(config), home=str(home), threads=threads)},
        # One process a run: a step is hundredths of a second, and parallelism is inside of it.
        executor=dg.in_process_executor,
        loggers=loggers,
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions that ``dg dev`` serves: the configuration named by DSIR_CONFIG."""
    return build_defs()
