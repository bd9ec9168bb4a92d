"""The job `refresh`: one Dagster run, with a step per asset, makes whatever is missing or stale, upstream first.

What belongs here: the six steps, what each has to make, which failures end the run. What does not: making an output
(``assets/``), when the job starts (``dagster_project/automation.py``), how `dsir run` runs it
(``dagster_project/runs.py``).

The steps are plain ops, since a job over assets cannot have shards, targets and selections as partitions at once. They
run the assets' own steps and yield the same events: materializations by partition, with data and code version, and
check evaluations. Dagster's pages of assets, partitions and checks look as if the assets had been materialized
themselves.

A bad file fails its own shard: the step fails and names it, and later steps go on with the other shards. So a step
yields its output before it fails, and the executor requires outputs, not success. Trouble with the machine (a full
disk, a locked catalog) ends the run. *Retry from failure* starts at the first step that failed and repeats the later
ones, which find fresh what is done.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg

from dsir_dagster.assets.materialize import (
    Made,
    OutputsFailed,
    RunOptions,
    errors_as_failures,
    first_of,
    is_input_error,
    kept_report,
    log_made,
    newest_materialization,
    parent_tags,
    told,
)
from dsir_dagster.assets.raw_counts import too_many_quarantined
from dsir_dagster.resources.corpus import CorpusError
from dsir_dagster.resources.dagster_private import (
    AssetCheckEvaluationTargetMaterializationData,
    AssetMaterializationPlannedData,
)
from dsir_dagster.resources.graph import Asset, Partitions, graph
from dsir_dagster.resources.partitions import register_shards
from dsir_dagster.resources.pipeline import PipelineResource
from dsir_dagster.resources.plan import Output, Plan, takes_part
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.workspace import Workspace

REFRESH = "refresh"

#: Tags of a run: the home, if `dsir run` executes it; who asked for it; what was due and why; the fingerprint of the
#: files and the configuration behind that.
HOME_TAG = "dsir/home"
ASKED_BY_TAG = "dsir/asked_by"
DUE_TAG = "dsir/due"
CAUSE_TAG = "dsir/cause"

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass
class Stage:
    """One asset's part of a refresh.

    Attributes
    ----------
    asset : str
    due : list of Output
        What was stale or missing.
    fresh : int
        How many outputs were fresh.
    failed : dict of str to Exception
        Errors by output name.
    left_out : dict of str to str
        Why due outputs were not attempted, by output name: something upstream failed.
    waited_for : tuple of str
        The assets that failed, if they left nothing to work on.
    """

    asset: str
    due: list[Output]
    fresh: int
    failed: dict[str, Exception] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    run_id: str = ""
    waited_for: tuple[str, ...] = ()

    @property
    def errors(self) -> list[str]:
        """What failed and why, one text per output."""
        return told(self.failed)


def stage_of(plan: Plan, asset: str) -> Stage:
    """Return which outputs of an asset's step are due, and how many are fresh."""
    outputs = [
        output
        for each in plan.graph.made_by(asset)
        for output in plan.outputs_of(each.name)
        if takes_part(plan, output)
    ]
    due = [output for output in outputs if output.state != "fresh"]
    return Stage(asset, due, len(outputs) - len(due))


def build_refresh(tell: Callable[[Stage], None] = lambda stage: None) -> dg.JobDefinition:
    """Return the job.

    Parameters
    ----------
    tell : callable
        Called with the stage of each asset when its step ends.
    """

    def build_step(asset: Asset) -> dg.OpDefinition:
        @dg.op(
            name=f"refresh_{asset.name}",
            ins={f"after_{each}": dg.In(dg.Nothing) for each in asset.after},
            out={"done": dg.Out(dg.Nothing)},
            description=f"Bring all of `{asset.name}` up to date; fresh outputs stay.",
        )
        @errors_as_failures
        def step(context: dg.OpExecutionContext, pipeline: PipelineResource) -> Iterator:
            yield from refresh_asset(context, pipeline.workspace, asset, tell)

        return step

    steps = {asset.name: build_step(asset) for asset in graph().shown}

    @dg.job(
        name=REFRESH,
        description="Bring everything that is missing or stale up to date: new shards, changed files.",
        executor_def=dg.in_process_executor.configured(
            {"step_dependency_config": {"require_upstream_step_success": False}}
        ),
    )
    def refresh():
        done: dict[str, object] = {}
        for name, step in steps.items():
            done[name] = step(**{f"after_{each}": done[each] for each in graph()[name].after})

    return refresh


def refresh_asset(
    context: dg.OpExecutionContext,
    workspace: Workspace,
    record: Asset,
    tell: Callable[[Stage], None],
) -> Iterator[dg.Output]:
    """Bring one asset up to date, within a refresh.

    Yields
    ------
    Output
        The step's own output, if later steps have something to work on.

    Raises
    ------
    dagster.Failure
        Names the outputs that failed.
    """
    asset = record.name
    stage = Stage(asset, [], 0)
    goes_on = False
    try:
        if workspace.lock.hold(context.log.info):
            begin(context, workspace)
        snapshot = workspace.snapshot()
        stage = stage_of(snapshot.plan, asset)
        try:
            log_made(context, record.after, make_due(context, snapshot, stage))
        except OutputsFailed as failure:
            stage.failed |= failure.errors
        snapshot = workspace.snapshot()
        if stage.due and record.finish:
            record.finish(context, workspace)
        stage.failed |= quarantined(snapshot, asset)
        for name, evaluation in evaluate_checks(context, snapshot, stage):
            context.log_event(evaluation)  # type: ignore[arg-type]  # which it takes; the annotation lacks it
            if evaluation.blocking and not evaluation.passed:
                stage.failed[name] = dg.Failure(
                    f"the check {evaluation.check_name} failed", allow_retries=False
                )
        log_made(context, record.after, left_behind(context, snapshot, stage))
        errors = stage.failed.values()
        goes_on = all(map(is_input_error, errors)) and (
            not errors or stage_of(snapshot.plan, asset).fresh > 0
        )
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        if HOME_TAG in context.run.tags:  # in `dsir run`, Dagster would record a failure
            context.instance.report_run_canceling(context.run)
        raise
    except Exception as error:
        stage.failed[asset] = error
    stage.run_id = context.run_id
    tell(stage)
    if goes_on:
        yield dg.Output(None, "done")
    if stage.failed:
        show_failed(context, stage)
        raise dg.Failure("\n".join(first_of(stage.errors)), allow_retries=False)


def quarantined(snapshot: Snapshot, asset: str) -> dict[str, Exception]:
    """Return outputs that lack too many of their rows: they count as failures until someone repairs the input."""
    found = [each for each in too_many_quarantined(snapshot) if each.output.startswith(f"{asset}[")]
    return {each.output: CorpusError(str(each)) for each in found}


def make_due(context: dg.OpExecutionContext, snapshot: Snapshot, stage: Stage) -> Made:
    """Make the due outputs of an asset, except those that depend on something that failed."""
    record = snapshot.plan.graph[stage.asset]
    # The pinned distribution is no Dagster asset: the estimator's step, which has no partitions, makes it.
    of_asset = [output for output in stage.due if output.asset == stage.asset]
    partitions = [output.partition for output in of_asset] or [""] * bool(stage.due)
    for name in partitions if record.partitions is Partitions.SELECTIONS else ():
        if why := not_ready(snapshot, record, name):
            stage.left_out[f"{stage.asset}[{name}]"] = why
        elif failed := failed_check(context, snapshot, record, name):
            stage.failed[f"{stage.asset}[{name}]"] = dg.Failure(failed, allow_retries=False)
    for name, why in stage.left_out.items():
        context.log.warning(f"{name} is left out: {why}")
    not_made = {**stage.left_out, **stage.failed}
    ready = [name for name in partitions if f"{stage.asset}[{name}]" not in not_made]
    if ready and record.step:
        options = (record.options or RunOptions)()
        yield from record.step(context, snapshot.workspace, ready, options)
    elif not stage.due:
        context.log.info(f"{stage.asset}: all {stage.fresh} outputs are fresh")


def not_ready(snapshot: Snapshot, record: Asset, name: str) -> str | None:
    """Say which failed inputs keep an output of a selection from being made; None if none do."""
    plan = snapshot.plan
    if parents := before(plan, record, name):
        missing = [output.name for output in parents if output.state != "fresh"]
    else:
        targets = snapshot.settings.selection(name).targets
        missing = [f"target_counts[{target}]" for target in targets if target not in plan.counted_targets]
    return f"without {', '.join(missing)}" if missing else None


def before(plan: Plan, record: Asset, name: str) -> list[Output]:
    """Return the outputs of the same selection that an asset's output is made of."""
    parents = [plan.graph[each] for each in record.after]
    return [plan.output(each.name, name) for each in parents if each.partitions is record.partitions]


def failed_check(context: dg.OpExecutionContext, snapshot: Snapshot, record: Asset, name: str) -> str | None:
    """Say which blocking check of an output's inputs does not pass; None if all do."""
    for output in before(snapshot.plan, record, name):
        for check in snapshot.plan.graph[output.asset].checks:
            if check.blocking and not check.evaluate(snapshot.workspace, name, context.log).passed:
                return f"{output.name} does not pass its check {check.name}"
    return None


def begin(context: dg.OpExecutionContext, workspace: Workspace) -> None:
    """Prepare for the first step in this process: clean up, register shards, tag the run with what is due."""
    end_killed_runs(context.instance, workspace, context.run_id)
    plan = workspace.plan()
    register_shards(context.instance, plan, workspace.discovery.vanished())
    tags = context.run.tags
    asked_by = tags.get("dagster/sensor_name") or tags.get("dagster/schedule_name") or "the Dagster UI"
    due = [output for output in plan.outputs() if output.state != "fresh"]
    missing = {ASKED_BY_TAG: asked_by, DUE_TAG: due_tag(due)}
    missing = {key: text for key, text in missing.items() if key not in tags}
    context.instance.add_run_tags(context.run_id, {**missing, CAUSE_TAG: plan.cause})


def end_killed_runs(instance: dg.DagsterInstance, workspace: Workspace, but: str = "") -> None:
    """Mark as canceled what a killed `dsir run` left unfinished, so that no page shows it running.

    The caller holds the home's lock, so no other such run is alive.
    """
    unfinished = dg.RunsFilter(statuses=IN_PROGRESS, tags={HOME_TAG: str(workspace.home)})
    for run in instance.get_runs(unfinished):
        if run.run_id != but:
            instance.report_run_canceled(run, message="Its process ended before the run did.")


def due_tag(due: Sequence[Output]) -> str:
    """Say for a run's tag what is due and why: the first output's reason, and how many more there are."""
    if not due:
        return "nothing"
    more = f" and {len(due) - 1} more" if len(due) > 1 else ""
    return f"{due[0].name}: {due[0].why}{more}"[:250]


def evaluate_checks(
    context: dg.OpExecutionContext, snapshot: Snapshot, stage: Stage
) -> Iterator[tuple[str, dg.AssetCheckEvaluation]]:
    """Evaluate the checks of what a stage made; yield each evaluation with the output's name."""
    made = [
        output
        for output in stage.due
        if output.asset == stage.asset and output.name not in {**stage.failed, **stage.left_out}
    ]
    if stage.failed and not made:
        return
    for check in snapshot.plan.graph[stage.asset].checks:
        if not check.exists(snapshot.settings):
            continue
        for output in check.due(snapshot, made):
            result = check.evaluate(snapshot.workspace, output.partition, context.log)
            yield (
                output.name,
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(output.asset),
                    check_name=check.name,
                    passed=result.passed,
                    metadata=result.metadata,
                    severity=result.severity,
                    blocking=check.blocking,
                    partition=output.partition or None,
                    target_materialization_data=_newest(context.instance, output),
                ),
            )


def _newest(
    instance: dg.DagsterInstance, output: Output
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """Return the materialization that a check is about."""
    record = newest_materialization(instance, output)
    return record and AssetCheckEvaluationTargetMaterializationData(
        run_id=record.run_id, storage_id=record.storage_id, timestamp=record.timestamp
    )


def left_behind(
    context: dg.OpExecutionContext,
    snapshot: Snapshot,
    stage: Stage,
) -> Made:
    """Report outputs that stay fresh though their inputs were made again, so Dagster does not call them *Unsynced*.

    A new target gives every shard new weights but leaves selections of other targets alone. Shards need no report:
    there may be many, and their inputs change only when they do.
    """
    record = snapshot.plan.graph[stage.asset]
    if record.partitions.many:
        return
    now = parent_tags(context.instance, record.after)
    made = {output.name for output in stage.due}
    for output in snapshot.plan.outputs():
        if output.asset == stage.asset and output.state == "fresh" and output.name not in made:
            newest = newest_materialization(context.instance, output)
            then = (newest and newest.asset_materialization and newest.asset_materialization.tags) or {}
            if any(then.get(tag) != value for tag, value in now.items()):
                yield [(output, kept_report(context.instance, snapshot.workspace, output))]


def show_failed(context: dg.OpExecutionContext, stage: Stage) -> None:
    """Make Dagster show failed outputs as failed: those planned in a run that did not materialize."""
    for output in stage.due:
        if output.name in stage.failed:
            planned = AssetMaterializationPlannedData(
                dg.AssetKey(output.asset), partition=output.partition or None
            )
            event = dg.DagsterEvent.build_asset_materialization_planned_event(
                context.job_name, f"refresh_{stage.asset}", planned
            )
            context.instance.report_dagster_event(event, context.run_id, logging.DEBUG)
