"""Running the job `refresh` in this process, on the same Dagster instance as the UI.

What belongs here: starting that run, following it stage by stage, and ending it. What does not: what its steps do
(``dagster_project/refresh.py``), what is printed (``dagster_project/cli.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg

from dsir_dagster.definitions import build_defs
from dsir_dagster.launcher import PLACE_TAG, place
from dsir_dagster.refresh import (
    ASKED_BY_TAG,
    DUE_TAG,
    HOME_TAG,
    REFRESH,
    Stage,
    due_tag,
    quarantined,
    stage_of,
)
from dsir_dagster.resources.dagster_private import InMemoryJob, execute_run_iterator
from dsir_dagster.resources.workspace import Workspace


def run_refresh(
    workspace: Workspace,
    instance: dg.DagsterInstance,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
    threads: int = 0,
) -> Iterator[Stage]:
    """Bring everything up to date, upstream first; yield each asset's stage when it is done.

    One Dagster run does it all; if nothing is due, none is started. A home has one run at a time: a second one waits
    and finds fresh what the first one made.

    Everything downstream leaves out a shard, target or selection that failed. If that leaves an asset nothing to work
    on, its stage says what it waited for.

    Parameters
    ----------
    workspace : Workspace
    instance : DagsterInstance
    loggers : mapping, optional
        Loggers that replace Dagster's console logger.
    threads : int
        0: the cores this process may use.

    Raises
    ------
    KeyboardInterrupt
        Someone stopped the run, by a signal or in the UI. Finished outputs stay; there are no half-made ones.
    """
    snapshot = workspace.snapshot()
    stages = [stage_of(snapshot.plan, asset) for asset in snapshot.plan.graph.versions]
    due = [output for stage in stages for output in stage.due]
    if not due:
        for stage in stages:
            stage.failed = quarantined(snapshot, stage.asset)
            yield stage
        return
    told: list[Stage] = []
    defs = build_defs(workspace.config, workspace.home, loggers, threads, told.append)
    job = defs.resolve_job_def(REFRESH)
    run = instance.create_run_for_job(
        job_def=job,
        run_config={"loggers": {"console": {}}} if loggers else {},
        tags={
            **job.run_tags,
            HOME_TAG: str(workspace.home),
            PLACE_TAG: place(),
            ASKED_BY_TAG: "dsir run",
            DUE_TAG: due_tag(due),
            # The user retries this run, not the daemon.
            "dagster/max_retries": "0",
        },
    )
    failed: list[str] = []
    done = set()
    error = None
    for event in execute_run_iterator(InMemoryJob(job), run, instance):
        while told:
            stage = told.pop(0)
            done.add(stage.asset)
            failed += [stage.asset] if stage.failed else []
            yield stage
        if event.event_type == dg.DagsterEventType.RUN_FAILURE:
            error = event.job_failure_data.error
    finished = instance.get_run_by_id(run.run_id)
    if finished and finished.status == dg.DagsterRunStatus.CANCELED:
        raise KeyboardInterrupt
    if error and not failed:
        raise dg.Failure(f"Dagster run {run.run_id} failed: {error.message.strip()}")
    for asset in snapshot.plan.graph.versions:
        if asset not in done:
            yield Stage(asset, [], 0, run_id=run.run_id, waited_for=tuple(failed))
