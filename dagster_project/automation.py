"""What happens without anyone asking: finding new shards, refreshing what is due, the nightly refresh.

What belongs here: sensors and the schedule, and how they keep out of each other's way. What does not: the job
that they start (``dagster_project/refresh.py``), what is due (``resources/plan.py``).

None of them does another's work. ``discover_shards`` registers partitions and launches nothing.
``refresh_when_due`` and ``nightly_refresh`` start the same job, which one process at a time runs for a home, and
which finds fresh what another one did before. ``refresh_when_due`` starts it once for each thing that is due: what
fails is not tried again until its file, its configuration or its inputs change. What a person terminated is not started
again for what it was started for.

Why not Dagster's automation conditions: they know nothing of fingerprints, they stop looking at staleness beyond
a hundred upstream partitions, and each of the five levels of the graph would wait for a tick of its own. The
job takes a new file through all levels in one run.
"""

import json
import time

import dagster as dg

from dsir_dagster.refresh import CAUSE_TAG, DUE_TAG, HOME_TAG, IN_PROGRESS, REFRESH, due_tag
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.plan import Output, Plan, fingerprint, takes_part
from dsir_dagster.resources.workspace import Pipeline

#: Seconds that a file has to be left alone before it alone starts a refresh: it may still be written.
SETTLE_SECONDS = 10.0


def build_automation(
    refresh: dg.JobDefinition, cron: str
) -> tuple[list[dg.SensorDefinition], dg.ScheduleDefinition]:
    """Return the sensors and the schedule; they start switched off.

    Parameters
    ----------
    refresh : JobDefinition
    cron : str
        When the schedule runs, in UTC.
    """

    @dg.sensor(
        minimum_interval_seconds=60,
        description=(
            "Finds the files of every source, registers new shards as partitions, takes away those of vanished ones, "
            "tells of changed ones. Launches nothing."
        ),
    )
    def discover_shards(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SkipReason:
        workspace = pipeline.workspace
        try:
            plan = workspace.plan()
        except CorpusError as error:
            return dg.SkipReason(f"the pool cannot be read: {error}")
        vanished = workspace.vanished()
        new = register_shards(context.instance, plan, vanished)
        changed = [shard for shard in plan.uncounted if plan.raw_counts(shard).state == "stale"]
        parts = [f"{len(plan.shards)} shards", *tell("new", new), *tell("changed", changed)]
        parts += tell("vanished", vanished)
        return dg.SkipReason("; ".join(parts))

    @dg.sensor(
        job_name=refresh.name,  # Dagster copies a sensor that has the job itself, and warns of its own copy
        minimum_interval_seconds=30,
        description=(
            "Starts `refresh` when something is due that it has not been started for: a new or changed file, a "
            "vanished one, a changed configuration. Waits while any run of this pipeline is in progress."
        ),
    )
    def refresh_when_due(
        context: dg.SensorEvaluationContext, pipeline: Pipeline
    ) -> dg.SkipReason | dg.SensorResult:
        workspace = pipeline.workspace
        try:
            plan = workspace.plan()
        except CorpusError as error:
            return dg.SkipReason(f"the pool cannot be read: {error}")
        asked = set(json.loads(context.cursor or "[]"))
        due = {attempt(output): output for output in due_outputs(plan)}
        new = {key: output for key, output in due.items() if key not in asked}
        if not new:
            asked_before = f"due: {several(len(due), 'output')}; a refresh was started for that before"
            return dg.SkipReason(asked_before if due else "everything is fresh")
        settling = [output.name for output in new.values() if not settled(plan, output)]
        if len(settling) == len(new):
            return dg.SkipReason(f"changed less than {SETTLE_SECONDS:.0f} s ago: {', '.join(settling[:5])}")
        # The run of a `dsir run` is alive only as long as that one has the home.
        runs = context.instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))
        if workspace.busy() or any(HOME_TAG not in run.tags for run in runs):
            return dg.SkipReason(
                f"due: {several(len(new), 'output')}; waiting for the runs in progress to end"
            )
        if terminated := _terminated(context.instance, plan):
            return dg.SkipReason(
                f"due: {several(len(new), 'output')}; {terminated}. Launch `{REFRESH}` to go on, or leave it to the "
                "schedule; the next change of a file or of the configuration starts it too"
            )
        request = dg.RunRequest(
            run_key=fingerprint({key: "" for key in due}), tags={DUE_TAG: due_tag(list(new.values()))}
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(sorted(due)))

    schedule = dg.ScheduleDefinition(
        name="nightly_refresh",
        job=refresh,
        cron_schedule=cron,
        description="Runs `refresh`; when, says `refresh_cron` of the configuration.",
    )
    return [discover_shards, refresh_when_due], schedule


def _terminated(instance: dg.DagsterInstance, plan: Plan) -> str | None:
    """Say that the newest refresh was terminated, if nothing that it was started for has changed since."""
    newest = instance.get_runs(dg.RunsFilter(job_name=REFRESH), limit=1)
    if newest and newest[0].status == dg.DagsterRunStatus.CANCELED:
        if newest[0].tags.get(CAUSE_TAG) == plan.cause:
            return f"run {newest[0].run_id} was started for this, and was terminated"
    return None


def tell(what: str, shards: list[str]) -> list[str]:
    """Say how many shards are new, changed or vanished, and name the first."""
    if not shards:
        return []
    more = " …" if len(shards) > 5 else ""
    return [f"{len(shards)} {what}: {', '.join(shards[:5])}{more}"]


def due_outputs(plan: Plan) -> list[Output]:
    """Return what a refresh is to be started for.

    Weights of a shard that is not counted follow from its counts. A selection that the launchpad configured,
    and what was measured of it, are no reason for a refresh until something else about them changes.
    """
    due = []
    left_alone: set[str] = set()
    for output in plan.outputs():
        if output.state == "fresh" or not takes_part(plan, output):
            continue
        if output.asset == "selections" and output.state == "stale" and output.found:
            configured_there = "launchpad" in output.found.metadata
            if configured_there and output.changes == {"changed": ["configuration"], "new": [], "gone": []}:
                left_alone.add(output.partition)
        if output.asset not in ("selections", "evaluations") or output.partition not in left_alone:
            due.append(output)
    return due


def attempt(output: Output) -> str:
    """Name the making of an output from these inputs over what is there now."""
    found = output.found.run_id if output.found else ""
    return fingerprint({"wanted": output.fingerprint, "found": found})


def settled(plan: Plan, output: Output) -> bool:
    """Whether an output does not wait for a file that was changed moments ago."""
    if output.asset != "raw_counts":
        return True
    return time.time() - plan.shards[output.partition].modified > SETTLE_SECONDS
