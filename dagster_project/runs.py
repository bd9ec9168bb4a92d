"""Running the graph from the command line, through Dagster, stage after stage.

What belongs here: registering shards, deciding what is due, launching runs in this process on the same
Dagster instance as the UI. What does not: what is printed (``dagster_project/cli.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg

from dagster_project.partitions import shards
from resources.plan import Output, Plan
from resources.workspace import Workspace

#: Tag of the runs of one home.
HOME_TAG = "dsir/home"

IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

#: The job of the check on a pinned distribution; there where the configuration pins one.
MEASURE_DRIFT = "measure_drift"

#: Ranges of adjacent shards that are run one by one; if there are more, one run of `materialize_shards` does all.
MOST_RANGES = 5


def register_shards(instance: dg.DagsterInstance, plan: Plan) -> list[str]:
    """Add the partitions of shards that the instance does not know; return their keys."""
    known = set(instance.get_dynamic_partitions(shards.name))
    new = sorted(plan.shards.keys() - known)
    if new:
        instance.add_dynamic_partitions(shards.name, new)
    return new


@dataclass
class Stage:
    """One asset's part of a run of the whole graph.

    Attributes
    ----------
    asset : str
    due : list of Output
        What was stale or missing before.
    fresh : int
        How many outputs were fresh before.
    errors : list of str
        One message for each Dagster run that failed.
    run_ids : list of str
    """

    asset: str
    due: list[Output]
    fresh: int
    errors: list[str] = field(default_factory=list)
    run_ids: list[str] = field(default_factory=list)


def run_all(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    workspace: Workspace,
    asked_by: str = "dsir run",
    say: Callable[[str], None] = print,
) -> Iterator[Stage]:
    """Bring everything up to date, upstream first; yield each asset's stage when it is done.

    One at a time for a home: a second one waits, and finds fresh what the first one did. Every Dagster run is
    tagged with who asked for it and, for a few outputs, with why they were due.

    A shard that fails takes no part in what follows; a target, a selection likewise. Where nothing is
    left for an asset to work on, its stage and those after it fail.

    Parameters
    ----------
    defs : Definitions
    instance : DagsterInstance
    workspace : Workspace
    asked_by : str
        For the tag ``dsir/asked_by``.
    say : callable
        Takes a line of text, where there is something to wait for.
    """
    with workspace.exclusive(say):
        end_killed_runs(instance, workspace)
        yield from _stages(defs, instance, workspace, asked_by)


def end_killed_runs(instance: dg.DagsterInstance, workspace: Workspace) -> None:
    """Mark as canceled what a killed run of the whole graph left unfinished, so that no page shows it running.

    Whoever holds the home alone knows that no such run is alive.
    """
    unfinished = dg.RunsFilter(statuses=IN_PROGRESS, tags={HOME_TAG: str(workspace.home)})
    for run in instance.get_runs(unfinished):
        instance.report_run_canceled(run, message="Its process ended before it did.")


def _stages(
    defs: dg.Definitions, instance: dg.DagsterInstance, workspace: Workspace, asked_by: str
) -> Iterator[Stage]:
    graph = defs.resolve_implicit_global_asset_job_def()

    def run(asset: str, outputs: Sequence[Output], order: Sequence[str]) -> Stage:
        due = [output for output in outputs if output.state != "fresh"]
        stage = Stage(asset, due, len(outputs) - len(due))
        keys = [output.partition for output in due]
        ranges = partition_ranges(keys, order)
        if asset in ("raw_counts", "weights") and len(ranges) > MOST_RANGES:
            config = {"materialize_matching": {"config": {"shards": keys, "assets": [asset]}}}
            execute(stage, due, job=defs.resolve_job_def("materialize_shards"), config=config)
            return stage
        for first, last in ranges:
            tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
            execute(stage, due, tags=tags)
        return stage

    def execute(
        stage: Stage,
        due: Sequence[Output],
        tags: dict[str, str] | None = None,
        partition_key: str | None = None,
        job: dg.JobDefinition | None = None,
        config: dict | None = None,
    ) -> None:
        result = (job or graph).execute_in_process(
            instance=instance,
            asset_selection=None if job else [dg.AssetKey(stage.asset)],
            tags={
                **(tags or {}),
                HOME_TAG: str(workspace.home),
                "dsir/asked_by": asked_by,
                "dsir/due": due_tag(due),
                # Whoever asked for it runs it again, not the daemon besides.
                "dagster/max_retries": "0",
            },
            partition_key=partition_key,
            run_config={"loggers": {"console": {}}, "ops": config or {}},
            raise_on_error=False,
        )
        stage.run_ids.append(result.run_id)
        if not result.success:
            stage.errors += failures(result) or [f"{stage.asset}: Dagster run {result.run_id} failed"]

    plan = workspace.plan()
    register_shards(instance, plan)
    order = instance.get_dynamic_partitions(shards.name)
    yield run("raw_counts", [plan.raw_counts(shard) for shard in sorted(plan.shards)], order)
    targets = [target.name for target in workspace.settings.targets]
    yield run("target_counts", [plan.target_counts(target) for target in targets], targets)
    plan = workspace.plan()
    # The distribution that the estimator is pinned to is fitted, or fitted again, by the estimator's asset.
    estimators = [output for output in (plan.raw_distribution, plan.importance_estimator) if output]
    due = [output for output in estimators if output.state != "fresh"]
    estimator = Stage("importance_estimator", due, len(estimators) - len(due))
    if due:
        execute(estimator, due)
    yield estimator
    plan = workspace.plan()
    yield run("weights", [plan.weights(shard) for shard in plan.counted], order)
    plan = workspace.plan()
    selections = [plan.selections(selection) for selection in workspace.settings.selections]
    names = [selection.name for selection in workspace.settings.selections]
    for asset in ("selections", "evaluations"):
        outputs = selections if asset == "selections" else [plan.evaluations(each) for each in selections]
        due = [output for output in outputs if output.state != "fresh"]
        stage = Stage(asset, due, len(names) - len(due))
        if asset == "selections" and due and plan.raw_distribution and not estimator.due:
            execute(stage, due, job=defs.resolve_job_def(MEASURE_DRIFT))
        for output in due:
            execute(stage, [output], partition_key=output.partition)
        plan = workspace.plan()
        yield stage


def due_tag(due: Sequence[Output]) -> str:
    """Say in a run's tag what was due and why: the first output's reason, and how many there are."""
    first = due[0]
    more = f" and {len(due) - 1} more" if len(due) > 1 else ""
    return f"{first.name}: {first.why}{more}"[:250]


def failures(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the messages of the steps that failed, as their authors wrote them."""
    messages = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            written = data.user_failure_data.description if data.user_failure_data else None
            cause = data.error.cause if data.error and data.error.cause else data.error
            messages.append(written or (cause.message.strip() if cause else str(event.message)))
    return messages


def partition_ranges(keys: Sequence[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """Cut keys into ranges that are contiguous in the partitions' order.

    Parameters
    ----------
    keys : sequence of str
        Keys to cover; each is in ``order``.
    order : sequence of str
        All keys, in the order of the partitions definition.

    Returns
    -------
    list of (str, str)
        First and last key of each range.
    """
    index = {key: i for i, key in enumerate(order)}
    at = sorted(index[key] for key in keys)
    ranges: list[list[int]] = []
    for i in at:
        if ranges and i == ranges[-1][1] + 1:
            ranges[-1][1] = i
        else:
            ranges.append([i, i])
    return [(order[first], order[last]) for first, last in ranges]
