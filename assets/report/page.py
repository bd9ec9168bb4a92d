"""What the report of a selection says, and in which order.

What belongs here: the values that the template shows, tables of the numbers behind plots, how the selection was made.
What does not: which documents are shown (``documents.py``), how values become HTML (``rendering.py``), how plots are
drawn (``resources/plots.py``).
"""

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dsir.selection import CANDIDATE
from dsir_dagster.assets.materialize import Result
from dsir_dagster.assets.measuring.measures import Metrics
from dsir_dagster.assets.report.documents import Look, length_bin
from dsir_dagster.resources import plots
from dsir_dagster.resources.plan import Output, Plan
from dsir_dagster.resources.settings import KeyRule, Selection
from dsir_dagster.resources.snapshot import Snapshot
from dsir_dagster.resources.table import Column, Table
from dsir_dagster.resources.workspace import Workspace

#: Characters of a text that are shown at once, and after a click.
EXCERPT, EXCERPT_LONG = 320, 6_000
#: What the plots of the pool beside the picks are called in Dagster's metadata.
LOG_WEIGHTS, LENGTHS = "log weights, plot", "lengths, plot"
#: Files that are listed.
FILES = 1_000


def page_of(
    snapshot: Snapshot,
    selection: Selection,
    source: Output,
    output: Output,
    result: Result,
    metrics: Metrics,
    picks: pa.Table,
    look: Look,
    drawn: dict[str, plots.Plot],
) -> dict[str, object]:
    """Return what the template shows."""
    made = source.found.metadata
    # What this page shows in a place of its own, and whatever else there is.
    placed = ("methods side by side", "composition, plot", "composition", "all metrics")
    parts = [
        (key.removesuffix(", plot"), shown, numbers_behind(key, selection.targets, metrics))
        for key, shown in result.tables.items()
        if key not in placed
    ]
    return {
        "selection": selection,
        "made": made,
        "all_tokens": int(pc.sum(picks["n_tokens"]).as_py()),
        "metadata": result.metadata,
        "notes": [each["note"] for each in (made, result.metadata) if "note" in each],
        "value": lambda metric, pick="selection", statistic="value": metrics.get(
            metric, pick, statistic=statistic
        ),
        "methods": result.tables["methods side by side"],
        "parts": parts,
        "composition_plot": result.tables["composition, plot"],
        "composition": result.tables["composition"],
        "all_metrics": result.tables["all metrics"],
        "all_targets": len(selection.targets) > 1,
        "weights_plot": drawn[LOG_WEIGHTS],
        "weights_table": bars_table(drawn[LOG_WEIGHTS], selection.targets),
        "lengths_plot": drawn[LENGTHS],
        "lengths_table": lengths_table(metrics),
        "selected": look.selected,
        "next": look.next.documents,
        "typical": look.typical.documents,
        "keyed": KeyRule.of(made).decides,
        "excerpt": EXCERPT,
        "excerpt_long": EXCERPT_LONG,
        "numbers": {
            key: value
            for key, value in made.items()
            if key not in ("noise_keys", "key_rule", "folder", "note", "seconds", "files", "bytes_written")
        },
        "configuration": configuration(snapshot.workspace, selection),
        "lineage": list(lineage(snapshot.plan, selection, source)),
        "output": output,
        "source": source,
        "files": [snapshot.plan.shards[shard] for shard in snapshot.plan.counted[:FILES]],
        "n_files": len(snapshot.plan.counted),
        "versions": {
            **snapshot.plan.graph.versions,
            "kernel": snapshot.plan.raw_counts(snapshot.plan.counted[0]).inputs["kernel"],
        },
        "folder": snapshot.home / made["folder"],
    }


def weights_plot(selection: Selection, picks: pa.Table, look: Look) -> plots.Plot:
    """Plot the log weights of the eligible documents and of those picked."""
    by_target = []
    for target in selection.targets:
        mine = picks.filter(pc.equal(picks["target"], target)).sort_by([("key", "descending")])
        rows = np.zeros(len(mine), dtype=CANDIDATE)
        rows["log_weight"], rows["key"] = mine["log_weight"].to_numpy(), mine["key"].to_numpy()
        by_target.append(rows)
    return plots.log_weights(selection.targets, look.histograms, by_target, selection.keys_are_log_weights)


def lengths_plot(picks: pa.Table, look: Look) -> plots.Plot:
    """Plot the lengths of the pool's documents and of those picked."""
    picked = np.bincount(length_bin(picks["n_tokens"].to_numpy()), minlength=plots.LENGTHS)
    return plots.lengths(look.lengths, picked)


def bars_table(plot: plots.Plot, targets: list[str]) -> Table:
    """Return the numbers behind a plot of log weights, as they are drawn."""
    rows = []
    for ax, target in zip(plot.figure.axes, targets, strict=False):
        eligible, picked = (patch.get_data() for patch in ax.patches)
        for low, n, m in zip(eligible.edges, eligible.values, picked.values, strict=False):
            if n or m:
                rows.append((target, int(low), int(n), int(m)))
    numbers = ("log weight from, nats", "eligible", "picked")
    return Table([Column("target"), *(Column(name, "whole") for name in numbers)], rows)


def lengths_table(metrics: Metrics) -> Table:
    """Return the lengths of the pool's documents and of every pick's."""
    columns = {
        "mean": "mean",
        "a tenth has at most": "p10",
        "median": "median",
        "nine tenths have at most": "p90",
    }
    rows = [
        (
            name.replace("_", "-"),
            *(metrics.get(f"{each}_tokens", name) for each in columns.values()),
        )
        for name in ("pool", *metrics.picks)
    ]
    return Table([Column("tokens of a document"), *(Column(name, "number", 1) for name in columns)], rows)


def numbers_behind(plot: str, targets: list[str], metrics: Metrics) -> Table | None:
    """Return a table of the numbers that a plot shows: a row for every group of bars, a column for every pick."""
    views = ("over_random", "over_random_independent_hash", "over_random_unhashed")
    rows = {
        "KL reduction, plot": [(target, target, "kl_reduction") for target in targets],
        "KL reduction over random, plot": [(view.replace("_", " "), "", view) for view in views],
    }.get(plot)
    if rows is None:
        return None

    def cell(target: str, metric: str, pick: str) -> tuple[float, ...] | None:
        value, low, high, sd = (
            metrics.get(metric, pick, target, each) for each in ("value", "low", "high", "sd")
        )
        if sd is not None:
            return value, 2 * sd
        return None if value is None else (value, low, high)

    cells = [(name, *(cell(target, metric, pick) for pick in metrics.picks)) for name, target, metric in rows]
    columns = [
        Column(pick.replace("_", "-"), "spread" if pick == "random" else "interval", 4)
        for pick in metrics.picks
    ]
    return Table([Column("nats"), *columns], cells)


def configuration(workspace: Workspace, selection: Selection) -> str:
    """Return a configuration file that makes this selection, and no other."""
    settings = workspace.settings
    values = {
        "raw": [each.model_dump(exclude_defaults=True) for each in settings.raw],
        "targets": [each.model_dump(exclude_defaults=True) for each in settings.targets],
        **{
            part: getattr(settings, part).model_dump(mode="json")
            for part in ("features", "estimator", "evaluation")
        },
        "selections": [selection.model_dump(mode="json", exclude_none=True)],
    }
    for section in ("raw", "targets"):  # names first
        values[section] = [{"name": each["name"], **each} for each in values[section]]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def lineage(plan: Plan, selection: Selection, source: Output) -> Iterator[tuple[str, str, str, str]]:
    """Yield the outputs that the selection was made of: name, fingerprint, Dagster run, when; shards by run."""

    def row(output: Output) -> tuple[str, str, str, str]:
        found = output.found
        return output.name, found.fingerprint, found.run_id, when(found.finished_at)

    yield row(source)
    for outputs in (map(plan.weights, plan.counted), map(plan.raw_counts, plan.counted)):
        runs: dict[str, list[Output]] = {}
        for output in outputs:
            runs.setdefault(output.found.run_id, []).append(output)
        for run_id, of_run in runs.items():
            if len(of_run) == 1:
                yield row(of_run[0])
            else:
                last = max(each.found.finished_at for each in of_run)
                yield f"{of_run[0].asset}, {len(of_run):,} shards", "", run_id, when(last)
        if of_run[0].asset == "weights":
            yield row(plan.importance_estimator)
            yield from ([row(plan.raw_distribution)] if plan.raw_distribution else [])
            yield from (row(plan.target_counts(target)) for target in selection.targets)


def when(time: datetime) -> str:
    """Return a time to the second, with its zone."""
    return f"{time:%Y-%m-%d %H:%M:%S %Z}".strip()
