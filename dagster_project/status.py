"""``dsir status``: which outputs are fresh, stale, missing or failed, and why.

What belongs here: states that follow from those of inputs, absent files, and layout. What does not: the state of one
output by itself (``resources/plan.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dsir_dagster.resources.borders import several
from dsir_dagster.resources.plan import Output, Plan, follows_counts
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace
from dsir_dagster.terminal import Terminal, Text, grid

STYLES = {"fresh": "green", "stale": "yellow", "missing": "red", "failed": "red"}


@dataclass(frozen=True)
class Status:
    """An output's state and the reason for it, inputs that are to be made again included."""

    output: Output
    state: str
    why: str


@dataclass(frozen=True)
class Known:
    """What is known of a pipeline; the keys of ``dsir status --json``, where an output has the keys of its row.

    Attributes
    ----------
    outputs : list of Status
        Upstream first.
    absent : dict of str to str
        Why sources and targets have no files at all; see `Workspace.known_plan`.
    vanished : list of str
        Shards whose files are gone.
    """

    outputs: Sequence[Status]
    absent: Mapping[str, str]
    vanished: Sequence[str]

    def document(self) -> dict[str, object]:
        """Return what is known, with plain outputs and their number in each state."""
        rows = [
            {
                "asset": each.output.asset,
                "partition": each.output.partition,
                "state": each.state,
                "why": each.why,
            }
            for each in self.outputs
        ]
        counts = Counter(each.state for each in self.outputs)
        states = {state: counts[state] for state in STYLES}
        return {"states": states, "outputs": rows, "absent": self.absent, "vanished": sorted(self.vanished)}


def collect_status(workspace: Workspace) -> Known:
    """Return the state of every output."""
    plan, absent = workspace.known_plan()
    failures = {
        (row["asset"], row["partition"], row["fingerprint"]): row["error"]
        for row in workspace.catalog.query("failures").to_pylist()
    }
    found = list(statuses(plan, failures))
    in_order = [each for asset in plan.graph for each in found if each.output.asset == asset.name]
    return Known(in_order, absent, list(workspace.discovery.vanished()))


def print_status(known: Known, every: bool, quiet: bool, console: Terminal) -> None:
    """Show the outputs that are not fresh, with the reason, and count the rest.

    Parameters
    ----------
    known : Known
    every : bool
        Whether to list the fresh outputs too.
    quiet : bool
        Whether to list only those that failed.
    console : Terminal
    """
    found = known.outputs
    shown = [each for each in found if each.state == "failed"] if quiet else found
    rows = [
        row
        for asset in dict.fromkeys(each.output.asset for each in shown)
        for row in _rows(asset, shown, every)
    ]
    if not quiet:
        print_absent(known.absent, console)
    if rows:
        console.print(grid(Table([Column(name) for name in ("asset", "partition", "state", "why")], rows)))
    if known.vanished and not quiet:
        console.print(
            f"{several(len(known.vanished), 'shard')} vanished: {shorten(known.vanished)}; what was made of them stays "
            "until `dsir prune`",
            style="yellow",
            soft_wrap=True,
        )
    failed = sum(each.state == "failed" for each in found)
    due = sum(each.state in ("stale", "missing") for each in found)
    if failed:
        text = f"failed: {several(failed, 'output')}; repair what is named, and `dsir run` tries again"
        console.print(text, style="red", soft_wrap=True)
    if due:
        console.print(
            f"not fresh: {several(due, 'output')}; `dsir run` brings them up to date", soft_wrap=True
        )
    elif not failed:
        console.print("everything is fresh")


def statuses(plan: Plan, failures: Mapping[tuple[str, str, str], str]) -> Iterator[Status]:
    """Yield every output's status, upstream first.

    Parameters
    ----------
    plan : Plan
    failures : mapping of (asset, partition, fingerprint) to str
        The errors of outputs that could not be made.
    """
    first_after_counts = "selections" if plan.raw_distribution else "importance_estimator"
    uncounted: list[str] = []
    due: set[str] = set()
    failed: set[str] = set()
    for output in plan.outputs():
        state, why = output.state, output.why
        error = failures.get((output.asset, output.partition, output.fingerprint))
        if state != "fresh" and error:
            state, why = "failed", error
        elif follows_counts(plan, output) and f"raw_counts[{output.partition}]" in failed:
            continue  # as a run does
        elif state == "fresh" and output.asset == first_after_counts and uncounted:
            state, why = "stale", f"not counted yet: {shorten(uncounted)}"
        elif state == "fresh" and output.asset != "raw_distribution":
            if inputs := due and due & output.inputs.keys():
                state, why = "stale", f"follows from {shorten(inputs)}"
        if state == "failed":
            failed.add(output.name)
        elif state != "fresh":
            due.add(output.name)
            uncounted += [output.name] if output.asset == "raw_counts" else []
        yield Status(output, state, why)


def print_absent(absent: Mapping[str, str], console: Terminal) -> None:
    """Name each source and target that has no files at all; see `Workspace.known_plan`."""
    for name, why in absent.items():
        text = f"{name} is not there, and shown as it was the last time: {why}"
        console.print(Text(text, "yellow"), soft_wrap=True)


def shorten(names: Collection[str]) -> str:
    """Name the first three of many, sorted."""
    return ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rows(asset: str, found: Sequence[Status], every: bool) -> Iterator[tuple[object, ...]]:
    """Yield an asset's rows: a count of the fresh outputs and each other one, or every output."""
    mine = [each for each in found if each.output.asset == asset]
    fresh = sum(each.state == "fresh" for each in mine)
    if fresh and not every:
        count = f"{fresh} of {len(mine)}" if fresh < len(mine) else fresh
        yield asset, count, Text("fresh", STYLES["fresh"]), ""
    for each in mine:
        if each.state != "fresh" or every:
            yield asset, each.output.partition or "-", Text(each.state, STYLES[each.state]), each.why
