"""What happens without anyone asking: finding new shards, and the nightly refresh.

What belongs here: the sensor, the job and its schedule. What does not: what is due and how it is run
(``dagster_project/runs.py``).

The sensor registers partitions and launches nothing; the job ``refresh`` brings everything up to date and
finds new shards itself. So neither does the other's work, whichever is switched on.
"""

from collections.abc import Callable

import dagster as dg

from dagster_project.runs import register_shards, run_all
from resources.corpus import CorpusError
from resources.workspace import Pipeline


def build_automation(
    build_definitions: Callable[[], dg.Definitions], cron: str
) -> tuple[dg.SensorDefinition, dg.ScheduleDefinition]:
    """Return the sensor and the schedule; both start switched off.

    Parameters
    ----------
    build_definitions : callable
        Returns the definitions whose assets the job runs.
    cron : str
        When the schedule runs, in UTC.
    """

    @dg.sensor(
        minimum_interval_seconds=60,
        description="Finds the files of every source and registers new shards as partitions. Launches nothing.",
    )
    def discover_shards(context: dg.SensorEvaluationContext, pipeline: Pipeline) -> dg.SkipReason:
        try:
            plan = pipeline.workspace.plan()
        except CorpusError as error:
            return dg.SkipReason(f"the pool can not be read: {error}")
        new = register_shards(context.instance, plan)
        known = set(context.instance.get_dynamic_partitions("shards"))
        gone = sorted(known - plan.shards.keys())
        message = f"{len(plan.shards)} shards, {len(new)} new, {len(plan.uncounted)} not counted"
        if gone:
            message += f"; {len(gone)} vanished: {', '.join(gone[:5])}"
        return dg.SkipReason(message)

    @dg.op(description="Bring everything that is missing or stale up to date, as `dsir run` does.")
    def bring_up_to_date(context: dg.OpExecutionContext, pipeline: Pipeline) -> None:
        errors = []
        for stage in run_all(
            build_definitions(), context.instance, pipeline.workspace, f"refresh {context.run_id}"
        ):
            context.log.info(
                f"{stage.asset}: {len(stage.due)} were due, {stage.fresh} fresh"
                + (f"; Dagster runs {', '.join(stage.run_ids)}" if stage.run_ids else "")
            )
            for output in stage.due[:20]:
                context.log.info(f"{output.name} was {output.state}: {output.why}")
            errors += stage.errors
        if errors:
            raise dg.Failure("\n".join(errors), allow_retries=False)

    @dg.job(description="Bring everything that is missing or stale up to date: new shards, changed files.")
    def refresh():
        bring_up_to_date()

    schedule = dg.ScheduleDefinition(
        name="nightly_refresh",
        job=refresh,
        cron_schedule=cron,
        description="Runs `refresh`; when, says `refresh_cron` of the configuration.",
    )
    return discover_shards, schedule
