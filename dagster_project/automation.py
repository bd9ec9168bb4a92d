"""What happens unattended: finding new shards, refreshing what is due, the nightly refresh.

What belongs here: the sensors and the schedule, and how they stay out of each other's way. What does not: the job they
start (``dagster_project/refresh.py``), what is due (``resources/plan.py``).

``discover_shards`` registers partitions and launches nothing. ``refresh_when_due`` and ``nightly_refresh`` start the
same job; only one process at a time runs it for a home, and the next one finds fresh what the first one made.
``refresh_when_due`` starts the job once for everything that is due: what fails is not retried until its file, its
configuration or its inputs change, and a run that someone terminated is not restarted for the same reason.

Why not Dagster's automation conditions: they ignore fingerprints, they stop tracking staleness beyond a hundred
upstream partitions, and each of the graph's five levels would wait for its own tick. The job takes a new file through
all levels in one run.
"""

import json
import time

import dagster as dg

from dsir_dagster.refresh import CAUSE_TAG, DUE_TAG, HOME_TAG, IN_PROGRESS, REFRESH, due_tag
from dsir_dagster.resources.borders import several
from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.pipeline import PipelineResource
from dsir_dagster.resources.plan import Output, Plan, fingerprint, takes_part
from dsir_dagster.resources.settings import ConfigError

#: The sensor and the schedule that start the job.
WHEN_DUE = "refresh_when_due"
NIGHTLY = "nightly_refresh"

#: Seconds since its last change before a file by itself starts a refresh: someone may still be writing it.
SETTLE_SECONDS = 10.0


def build_automation(
    refresh: dg.JobDefinition, cron: str
) -> tuple[list[dg.SensorDefinition], dg.ScheduleDefinition]:
    """Return the sensors and the schedule, all switched off at first.

    Parameters
    ----------
    refresh : JobDefinition
    cron : str
        When the schedule runs (UTC).
    """

    @dg.sensor(
        minimum_interval_seconds=60,
        description=(
            "Finds the files of every source, registers new shards as partitions, removes those of vanished shards, "
            "reports changed ones. Launches nothing."
        ),
    )
    def discover_shards(context: dg.SensorEvaluationContext, pipeline: PipelineResource) -> dg.SkipReason:
        try:
            workspace = pipeline.workspace
            plan = workspace.plan()
        except (ConfigError, CorpusError) as error:
            return dg.SkipReason(unusable(error))
        vanished = workspace.discovery.vanished()
        new = register_shards(context.instance, plan, vanished)
        changed = [shard for shard in plan.uncounted if plan.raw_counts(shard).state == "stale"]
        parts = [f"{len(plan.shards)} shards", *tell("new", new), *tell("changed", changed)]
        parts += tell("vanished", vanished)
        return dg.SkipReason("; ".join(parts))

    @dg.sensor(
        name=WHEN_DUE,
        job_name=refresh.name,  # given the job itself, Dagster copies the sensor and warns about its own copy
        minimum_interval_seconds=30,
        description=(
            "Starts `refresh` when something new is due: a new, changed or vanished file, a changed configuration. "
            "Waits while any run of this pipeline is in progress."
        ),
    )
    def refresh_when_due(
        context: dg.SensorEvaluationContext, pipeline: PipelineResource
    ) -> dg.SkipReason | dg.SensorResult:
        try:
            workspace = pipeline.workspace
            plan = workspace.plan()
        except (ConfigError, CorpusError) as error:
            return dg.SkipReason(unusable(error))
        asked = set(json.loads(context.cursor or "[]"))
        due = {attempt(output): output for output in due_outputs(plan)}
        new = {key: output for key, output in due.items() if key not in asked}
        if not new:
            asked_before = f"due: {several(len(due), 'output')}; a refresh was already started for that"
            return dg.SkipReason(asked_before if due else "everything is fresh")
        settling = [output.name for output in new.values() if not settled(plan, output)]
        if len(settling) == len(new):
            return dg.SkipReason(f"changed less than {SETTLE_SECONDS:.0f} s ago: {', '.join(settling[:5])}")
        # The Dagster run of a `dsir run` is alive only as long as that command holds the home.
        runs = context.instance.get_runs(dg.RunsFilter(statuses=IN_PROGRESS))
        if workspace.lock.busy() or any(HOME_TAG not in run.tags for run in runs):
            return dg.SkipReason(f"due: {several(len(new), 'output')}; waiting for the runs in progress")
        if terminated := _terminated(context.instance, plan):
            return dg.SkipReason(
                f"due: {several(len(new), 'output')}; {terminated}. To go on, launch `{REFRESH}`, wait for the "
                "schedule, or change a file or the configuration"
            )
        request = dg.RunRequest(
            run_key=fingerprint({key: "" for key in due}), tags={DUE_TAG: due_tag(list(new.values()))}
        )
        return dg.SensorResult(run_requests=[request], cursor=json.dumps(sorted(due)))

    schedule = dg.ScheduleDefinition(
        name=NIGHTLY,
        job=refresh,
        cron_schedule=cron,
        description="Runs `refresh` at the times given by `refresh_cron` in the configuration.",
    )
    return [discover_shards, refresh_when_due], schedule


def unusable(error: Exception) -> str:
    """Say why there is no plan."""
    what = "the configuration cannot be used" if isinstance(error, ConfigError) else "the pool cannot be read"
    return f"{what}: {error}"


def _terminated(instance: dg.DagsterInstance, plan: Plan) -> str | None:
    """Say that the latest refresh was terminated, if the reason for it has not changed since."""
    newest = instance.get_runs(dg.RunsFilter(job_name=REFRESH), limit=1)
    if newest and newest[0].status == dg.DagsterRunStatus.CANCELED:
        if newest[0].tags.get(CAUSE_TAG) == plan.cause:
            return f"run {newest[0].run_id} was started for this and was terminated"
    return None


def tell(what: str, shards: list[str]) -> list[str]:
    """Say how many shards are new, changed or vanished, and name the first few."""
    if not shards:
        return []
    more = " …" if len(shards) > 5 else ""
    return [f"{len(shards)} {what}: {', '.join(shards[:5])}{more}"]


def due_outputs(plan: Plan) -> list[Output]:
    """Return the outputs that call for a refresh.

    Weights of an uncounted shard follow from its counts. A selection that was overridden in the launchpad, and its
    evaluation, call for nothing until something else about them changes.
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
    """Identify one attempt to make an output: its inputs, and what it would replace."""
    found = output.found.run_id if output.found else ""
    return fingerprint({"wanted": output.fingerprint, "found": found})


def settled(plan: Plan, output: Output) -> bool:
    """Whether no file that changed moments ago holds an output back."""
    if output.asset != "raw_counts":
        return True
    return time.time() - plan.shards[output.partition].modified > SETTLE_SECONDS
